//! What the metrics say is so, they stay few, and what measures the database sees it freeze.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use campaignd::clock::Clock;
use campaignd::domain::time::Timestamp;
use campaignd::sandbox::options;
use campaignd::store::sample::Eye;
use campaignd::telemetry::{CATALOG, Kind, Metric};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::fake::{Rig, hours};
use crate::harness::Db;
use crate::processes::World;

/// As the runtime waits for a probe.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where the last scrape of a server at work is kept, for promtool (`.ci/run`).
const SCRAPE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/metrics.txt");

fn signal(name: &str, pid: i32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn a_frozen_server_is_given_up_within_a_second_and_asked_anew_on_another_connection() {
    let db = Db::new().await;
    let mut eye = Eye::new(&db.pool);
    let now = || Clock::System.now();
    let found = eye.probe(now).await.unwrap();
    assert!(found.offset.abs() < 1.0 && found.round_trip < PATIENCE, "{found:?}");
    let frozen: i32 = sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT clock_timestamp()' AND datname = current_database()",
    )
    .fetch_one(&db.pool)
    .await
    .unwrap();
    signal("-STOP", frozen);
    let begun = Instant::now();
    let given_up = timeout(PATIENCE, eye.probe(now)).await;
    signal("-CONT", frozen);
    assert!(given_up.is_err() && begun.elapsed() < 2 * PATIENCE);
    assert!(eye.probe(now).await.is_ok());

    // One that takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://nobody@127.0.0.1:{}/x", silent.local_addr().unwrap().port());
    let pool = sqlx::postgres::PgPoolOptions::new().connect_lazy(&url).unwrap();
    let mut eye = Eye::new(&pool);
    for _ in 0..2 {
        let begun = Instant::now();
        assert!(timeout(PATIENCE, eye.probe(now)).await.is_err() && begun.elapsed() < 2 * PATIENCE);
    }
}

#[tokio::test]
async fn the_table_tells_what_is_overdue_and_when_the_rest_is_due() {
    let rig = Rig::manual().await;
    let flow = json!({"steps": [{"id": "a", "action": "send_email", "subject": "s", "message": "m"}]});
    let runs = rig.campaign(&flow).await;
    let asleep = rig.campaign(&flow).await;
    let now = rig.clock.now();
    let at = |when: Timestamp| when.to_utc().to_rfc3339();
    let minute = Duration::from_secs(60);
    for (campaign, status, due) in [
        (runs, "pending", now - hours(2)),
        (runs, "waiting_trigger", now - minute),
        (runs, "pending", now + minute / 2),
        (runs, "pending", now + minute * 2),
        (runs, "pending", now + hours(2)),
        (runs, "pending", now + hours(200)),
        // None of these is waited for.
        (runs, "completed", now - hours(3)),
        (runs, "paused", now - hours(3)),
        (asleep, "pending", now - hours(3)),
    ] {
        let id = rig.prospects(campaign, 1).await[0];
        let due = at(due);
        rig.db
            .script(format!(
                "UPDATE campaign_prospect_execution_state SET status = '{status}', next_execution_at = '{due}' \
                 WHERE id = '{id}'; UPDATE campaigns SET status = 'paused' WHERE id = '{asleep}'"
            ))
            .await
            .unwrap();
    }
    let mut eye = Eye::new(&rig.db.pool);
    for _ in 0..2 {
        let found = eye.timers(now).await.unwrap();
        assert_eq!((found.horizons, found.is_last), ([2, 1, 1, 1, 1], true));
        assert_eq!(found.oldest, [Some(now - hours(2)), Some(now - minute)]);
    }
    assert_eq!(eye.inbox().await.unwrap().count, 0);
    assert!(eye.parked().await.unwrap().is_empty() && eye.gates().await.unwrap().is_empty());
}

/// What a server shows.
struct Scrape(String);

impl Scrape {
    async fn of(world: &World) -> Self {
        let url = format!("http://127.0.0.1:{}/metrics", world.metrics);
        Self(reqwest::get(url).await.unwrap().text().await.unwrap())
    }

    /// Every series, without its value.
    fn series(&self) -> BTreeSet<String> {
        let lines = self.0.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
        lines.map(|l| l.rsplit_once(' ').unwrap().0.to_owned()).collect()
    }

    fn value(&self, series: &str) -> f64 {
        let found = self.0.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {series} in:\n{}", self.0)).parse().unwrap()
    }
}

/// The metric of a series, and whether the catalogue lists every value of its labels.
fn metric(series: &str) -> (&'static Metric, bool) {
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let end = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| name.strip_suffix(end));
    let metric = CATALOG
        .iter()
        .find(|m| m.name == name || (m.kind == Kind::Histogram && Some(m.name) == end))
        .unwrap_or_else(|| panic!("{name} is not in the catalogue"));
    let mut listed = true;
    for part in labels.trim_end_matches('}').split("\",").filter(|p| !p.is_empty()) {
        let (label, value) = part.split_once("=\"").unwrap();
        let value = value.trim_end_matches('"');
        if label != "le" {
            let label = metric.labels.iter().find(|l| l.name == label).unwrap_or_else(|| panic!("{series}: {label}"));
            listed &= label.values.contains(&value);
        }
    }
    (metric, listed)
}

fn person(index: usize) -> Value {
    json!({
        "first_name": format!("P{index}"), "email": format!("person.{index}@people.example"),
        "linkedin_url": format!("https://www.linkedin.com/in/person-{index}"),
    })
}

/// Makes a campaign with people of its own, and starts it.
async fn start(world: &World, people: std::ops::Range<usize>) {
    let campaign = json!({"name": format!("c{}", people.start), "flow_settings": {"schema_version": 1, "steps": [
        {"id": "invite", "action": "send_linkedin_cr", "message": "Hello {{ first_name }}",
         "wait_for": {"trigger": "connection_accepted", "timeout": "48h"}},
        {"id": "mail", "action": "send_email", "subject": "A word", "message": "Hello {{ first_name }}", "delay": "4h"}]}});
    let id = world.post("/v1/campaigns", &campaign).await["id"].as_str().unwrap().to_owned();
    let people: Vec<Value> = people.map(person).collect();
    world.post(&format!("/v1/campaigns/{id}/prospects"), &json!(people)).await;
    world.post(&format!("/v1/campaigns/{id}/start"), &Value::Null).await;
}

async fn until_everybody_is_through(world: &World) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let open = "SELECT count(*) FROM campaign_prospect_execution_state WHERE status NOT IN ('completed', 'failed')";
    while world.count(open).await > 0 {
        assert!(Instant::now() < deadline, "{} are not through", world.count(open).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_campaigns_over_many_accounts_make_no_more_series_than_one() {
    let world = World::new("metrics", 20_000).await;
    let _sandbox = world.start_sandbox(&["--accounts", "linkedin=8,mail=8,whatsapp=1"]).await;
    let _server = world.start_server();
    world.until_answers(world.metrics, "/readyz").await;
    let account = |(index, account): (usize, options::AccountSpec)| {
        let (channel, kind) =
            if account.id.starts_with("wa") { ("whatsapp", "whatsapp") } else { ("linkedin", "linkedin_premium") };
        let (channel, kind) =
            if index >= 8 && channel == "linkedin" { ("email", "mail_imap") } else { (channel, kind) };
        json!({"channel": channel, "provider": "unipile", "provider_account_id": account.id, "name": account.id,
               "kind": kind})
    };
    let accounts: Vec<Value> = options::accounts(8, 8, 0).into_iter().enumerate().map(account).collect();
    for account in [&accounts[0], &accounts[8]] {
        world.post("/v1/accounts", account).await;
    }
    start(&world, 0..20).await;
    until_everybody_is_through(&world).await;
    let one = Scrape::of(&world).await;
    assert_eq!(one.value("campaignd_ready"), 1.0);
    assert_eq!(one.value("campaignd_db_up"), 1.0);
    assert_eq!(one.value(r#"campaignd_accounts{channel="linkedin",state="active"}"#), 1.0);
    let sent = r#"campaignd_sends_total{channel="linkedin",action="send_linkedin_cr",outcome="sent"}"#;
    assert_eq!(one.value(sent), 20.0);

    for account in accounts[1..8].iter().chain(&accounts[9..]) {
        world.post("/v1/accounts", account).await;
    }
    for n in 1..50 {
        start(&world, n * 20..n * 20 + 4).await;
    }
    until_everybody_is_through(&world).await;
    let many = Scrape::of(&world).await;
    std::fs::write(SCRAPE, &many.0).unwrap();
    assert_eq!(many.value(sent), 20.0 + 49.0 * 4.0);
    for stage in ["stored", "found", "taken", "committed", "called"] {
        let series = format!("campaignd_reaction_stage_seconds_count{{stage=\"{stage}\"}}");
        assert!(many.value(&series) > 0.0, "people have accepted: {series}");
    }
    for kind in ["shard", "channel"] {
        assert!(many.value(&format!("campaignd_actor_mailbox_wait_seconds_count{{kind=\"{kind}\"}}")) > 0.0);
    }
    assert!(many.0.contains("campaignd_build_info{") && many.0.contains("rustc=\"rustc 1."));
    // A histogram has no series before its first sample, and a status of HTTP none before its first answer: those may come
    // later. All others are there from the start, and nothing has a label with a value of its own.
    let from_the_start = |series: &BTreeSet<String>| -> BTreeSet<String> {
        let counted = |series: &&String| {
            let metric = metric(series).0;
            metric.kind != Kind::Histogram && metric.labels.iter().all(|label| !label.values.is_empty())
        };
        series.iter().filter(counted).cloned().collect()
    };
    let (before, after) = (one.series(), many.series());
    assert_eq!(from_the_start(&before), from_the_start(&after));
    for series in after.difference(&before) {
        let (metric, listed) = metric(series);
        assert!(listed || metric.name.starts_with("campaignd_http_"), "{series}");
    }
    println!("{} series with one campaign and 2 accounts, {} with 50 and 16", before.len(), after.len());
    assert!(after.len() < 2000, "{}", after.len());
}
