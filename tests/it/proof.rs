//! The proof that the channels can be trusted, seen from outside: the real binary and the sandbox as processes, hundreds of
//! people over accounts with budgets that bite, calls that fail before and after their effect, webhooks that are doubled,
//! shuffled and lost, and the server killed with -9 again and again. What was really sent is read from the sandbox's ledger;
//! `proof_check` says what must hold of it.
//!
//! Everything that is drawn comes from one seed, which every failure names. `CAMPAIGND_PROOF_PROSPECTS`, `_ACCOUNTS`, `_SEED`,
//! `_KILLS` and `_SPEED` set other numbers.

use std::time::{Duration, Instant};

use campaignd::sandbox::{AccountKind, AccountSpec, options};
use serde_json::{Value, json};

use crate::harness::scratch;
use crate::processes::World;
use crate::proof_check::{Limits, check};

/// Besides what fails by rule, calls fail since their process was killed.
const FAULTS_SHARE: f64 = 0.1;
const LOST_SHARE: f64 = 0.05;
/// The longest time between two kills, on the clock.
const KILLS_APART: Duration = Duration::from_secs(38 * 3600);
/// For each hundred prospects, beside a minute.
const PATIENCE: Duration = Duration::from_secs(60);

/// The size of a run.
#[derive(Clone, Copy, Debug)]
struct Size {
    prospects: u32,
    accounts: u32,
    seed: u64,
    kills: u32,
    /// A day in 4.3 s where nothing else is said.
    speed: u32,
}

impl Size {
    fn from_environment() -> Self {
        let number = |name: &str, otherwise: u64| {
            let name = format!("CAMPAIGND_PROOF_{name}");
            std::env::var(&name).map_or(otherwise, |text| text.parse().unwrap_or_else(|e| panic!("{name}: {e}")))
        };
        let small = |name: &str, otherwise: u64| u32::try_from(number(name, otherwise)).unwrap();
        let size = Self {
            prospects: small("PROSPECTS", 200),
            accounts: small("ACCOUNTS", 6),
            seed: number("SEED", 1),
            kills: small("KILLS", 5),
            speed: small("SPEED", 20_000),
        };
        assert!(size.accounts >= 3, "an account a channel");
        size
    }
}

/// Splitmix64: the moments of the kills.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// Names the seed when the test fails, wherever it does.
struct Named(Size);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the proof failed with {:?}; logs are in {}", self.0, scratch("proof").display());
        }
    }
}

/// Everybody has all three channels, and each identity tells whose it is.
fn person(index: u32) -> Value {
    json!({
        "first_name": format!("P{index}"), "last_name": "Example", "company_name": "Example",
        "email": format!("person.{index}@people.example"), "phone": format!("+336200{index:05}"),
        "linkedin_url": format!("https://www.linkedin.com/in/person-{index}"),
    })
}

/// Each text tells whom it is for and of which step it is.
fn campaign() -> Value {
    let text = |step: u32| format!("To {{{{ first_name }}}}: this is step {step}.");
    json!({"name": "proof", "flow_settings": {"schema_version": 1, "steps": [
        {"id": "invite", "action": "send_linkedin_cr", "message": text(1),
         "wait_for": {"trigger": "connection_accepted", "timeout": "48h"}},
        {"id": "mail", "action": "send_email", "subject": "A word, {{ first_name }}", "message": text(2), "delay": "4h"},
        {"id": "message", "action": "send_linkedin_message", "message": text(3), "requires": ["connected"], "delay": "4h"},
        {"id": "whatsapp", "action": "send_whatsapp", "message": text(4)}]}})
}

/// So little that days and weeks are used up.
fn budget(kind: AccountKind, people: u32) -> (&'static str, &'static str, Value, Limits) {
    let part = |percent: u32| (people * percent / 100).max(1);
    let (day, week) = (part(15), part(65));
    let most = json!({"day": day, "week": week});
    let spacing = json!({"min": "5s", "max": "20s"});
    let (channel, name, limits, held) = match kind {
        AccountKind::LinkedIn => {
            let (some, more) = (part(8), part(40));
            let limits = json!({"invite": most, "invite_with_note": most, "message": {"day": some, "week": more}});
            ("linkedin", "linkedin_premium", limits, vec![("invite", day, week), ("message", some, more)])
        }
        AccountKind::Mail => ("email", "mail_workspace", json!({"mail": most}), vec![("email", day, week)]),
        AccountKind::WhatsApp => {
            let limits = json!({"whatsapp_new_chat": most, "whatsapp_message": most});
            ("whatsapp", "whatsapp", limits, vec![("whatsapp", day, week)])
        }
    };
    (channel, name, json!({"kind": name, "limits": limits, "spacing": spacing, "warm_up": null}), held)
}

/// Makes the accounts, each with its share of the people; gives what each may do, by the provider's id.
async fn make_accounts(world: &World, size: Size, accounts: &[AccountSpec]) -> Vec<(String, Limits)> {
    let mut made = Vec::new();
    for account in accounts {
        let of_kind = accounts.iter().filter(|a| a.kind == account.kind).count();
        let share = size.prospects / u32::try_from(of_kind).unwrap();
        let (channel, _, limits, held) = budget(account.kind, share);
        let new = json!({"channel": channel, "provider": "unipile", "provider_account_id": account.id, "name": account.id,
            "limits": limits});
        world.post("/v1/accounts", &new).await;
        made.push((account.id.clone(), held));
    }
    made
}

/// From now on a tenth of all calls fails before its effect and a tenth after it; every webhook comes twice, out of order,
/// and some never come.
async fn break_things(world: &World) {
    let rule = |effect: &str, share: f64| json!({"match": {"endpoint": "*", "share": share}, "effect": effect});
    // Of those that the first rule lets pass.
    let after = rule("fail_after", FAULTS_SHARE);
    let before = rule("fail_before", FAULTS_SHARE / (1.0 - FAULTS_SHARE));
    world.order("/sandbox/faults", &json!([after, before])).await;
}

async fn until_all_is_over(world: &World, size: Size) {
    // Whoever is not final is parked with a send that a person has to decide, and that says why.
    let open = "SELECT count(*) FROM campaign_prospect_execution_state e WHERE status NOT IN ('completed', 'failed') \
        AND NOT EXISTS (SELECT FROM sends s WHERE s.execution_id = e.id AND s.status = 'unknown' \
            AND s.parked_at IS NOT NULL AND s.error IS NOT NULL)";
    let unsettled = "SELECT count(*) FROM sends WHERE status IN ('pending', 'dispatching') OR (status = 'unknown' AND parked_at IS NULL)";
    let deadline = Instant::now() + PATIENCE * (2 + size.prospects / 100);
    while world.count(open).await > 0 || world.count(unsettled).await > 0 {
        let (open, unsettled) = (world.count(open).await, world.count(unsettled).await);
        assert!(Instant::now() < deadline, "{open} open executions, {unsettled} unsettled sends");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_contacted_twice_or_after_an_answer_and_no_budget_is_exceeded_whatever_breaks() {
    let size = Size::from_environment();
    let _named = Named(size);
    let began = Instant::now();
    let world = World::new("proof", size.speed).await;
    let (whatsapp, mail) = (size.accounts / 3, (size.accounts + 1) / 3);
    let linkedin = size.accounts - whatsapp - mail;
    let seed = size.seed.to_string();
    let lost = format!("webhook_loss_share={LOST_SHARE}");
    let mut arguments = vec!["--people", "plain", "--seed", &seed];
    let accounts = format!("linkedin={linkedin},mail={mail},whatsapp={whatsapp}");
    arguments.extend(["--accounts", &accounts]);
    let settings = [
        "people.accept_share=0.6",
        "people.accept_mean=6h",
        "people.accept_max=40h",
        "people.reply_share=0.2",
        "people.reply_max=24h",
        "people.bounce_share=0.05",
        "people.unsubscribe_share=0.05",
        "people.unsubscribe_max=6h",
        "webhook_duplicate_share=1",
        "webhook_shuffle=300ms",
        &lost,
    ];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let _sandbox = world.start_sandbox(&arguments).await;
    let mut server = world.start_server();
    world.until_answers(world.metrics, "/readyz").await;
    let specs = options::accounts(linkedin as usize, mail as usize, whatsapp as usize);
    let limits = make_accounts(&world, size, &specs).await;
    let id = world.post("/v1/campaigns", &campaign()).await["id"].as_str().unwrap().to_owned();
    let people: Vec<Value> = (0..size.prospects).map(person).collect();
    world.post(&format!("/v1/campaigns/{id}/prospects"), &json!(people)).await;
    break_things(&world).await;
    world.post(&format!("/v1/campaigns/{id}/start"), &Value::Null).await;

    let mut draw = Draw(size.seed);
    // Over the first week or so, however fast it passes.
    let apart = u64::try_from((KILLS_APART / size.speed).as_millis()).unwrap().max(1);
    for _ in 0..size.kills {
        // Not a wait for something: the moment of the kill itself.
        tokio::time::sleep(Duration::from_millis(800 + draw.below(apart))).await;
        drop(server);
        server = world.start_server();
        world.until_answers(world.metrics, "/healthz").await;
    }
    until_all_is_over(&world, size).await;
    check(&world, size.prospects, &limits).await;

    let faults = world.look("/sandbox/faults").await;
    let struck: Vec<u64> = faults["items"].as_array().unwrap().iter().map(|f| f["struck"].as_u64().unwrap()).collect();
    let hooks = world.look("/sandbox/webhooks").await;
    println!(
        "{size:?}: {struck:?} calls failed after and before their effect; {} webhooks delivered, {} lost; {:.0} s",
        hooks["delivered"],
        hooks["lost"],
        began.elapsed().as_secs_f64()
    );
    assert!(struck.iter().all(|n| *n > 0) && hooks["lost"].as_u64() > Some(0), "nothing went wrong");
}
