//! What must hold of a run of the proof: read from the sandbox's ledger, and from the table where the ledger cannot tell when
//! something was decided.

use std::collections::HashMap;
use std::time::Duration;

use campaignd::domain::time::Timestamp;
use serde_json::Value;

use crate::processes::World;

/// What an account may do: a kind of the ledger's, in a day, in a week.
pub(crate) type Limits = Vec<(&'static str, u32, u32)>;

const DAY: Duration = Duration::from_secs(24 * 3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// Real time between the acknowledgement of an answer and a claim that did not see it: it was acknowledged after the claim had
/// looked whether there are any, and before its commit.
const CLAIMS: Duration = Duration::from_millis(100);

/// One contact of the ledger, with what was decided about it.
struct Contact {
    person: u32,
    step: u32,
    kind: String,
    account: String,
    /// When it took effect, by the clock.
    at: Timestamp,
    /// When its request was read, by the wall clock.
    started: Timestamp,
    /// When it was authorised, by the clock: the commit before the call.
    claimed: Timestamp,
}

/// Fails unless everything holds; prints what was seen.
pub(crate) async fn check(world: &World, prospects: u32, limits: &[(String, Limits)]) {
    let contacts = contacts(world).await;
    let summary = world.look("/sandbox/ledger/summary").await;

    let mut by_step: HashMap<(u32, u32), u32> = HashMap::new();
    for contact in &contacts {
        *by_step.entry((contact.person, contact.step)).or_default() += 1;
    }
    let doubled: Vec<_> = by_step.iter().filter(|(_, n)| **n > 1).collect();
    assert!(doubled.is_empty(), "contacted twice by one step (person, step): {doubled:?}");
    assert_eq!(summary["doubled"]["count"], 0, "{}", summary["doubled"]);
    assert_eq!(summary["overlapping"], 0, "two sends of one account at once");
    nobody_after_an_answer(world, &contacts).await;
    budgets_held(&contacts, &authorised(world).await, &summary, limits);

    let ended =
        world.count("SELECT count(*) FROM campaign_prospect_execution_state WHERE status IN ('completed', 'failed')");
    let ended = ended.await;
    let parked = world.count("SELECT count(*) FROM sends WHERE status = 'unknown'").await;
    assert!(ended + parked >= i64::from(prospects), "{ended} ended, {parked} parked");
    assert_eq!(world.count("SELECT count(*) FROM account_gate WHERE in_flight IS NOT NULL").await, 0, "a gate is shut");
    let reasons: Vec<(String, i64)> = sqlx::query_as(
        "SELECT coalesce(exit_reason, 'none'), count(*) FROM campaign_prospect_execution_state GROUP BY 1 ORDER BY 2 DESC",
    )
    .fetch_all(&world.db.pool)
    .await
    .unwrap();
    let settled = world
        .count("SELECT count(*) FROM transitions WHERE trigger = 'send_finished' AND detail->>'outcome' = 'unknown'")
        .await;
    println!("{} contacts, {settled} with a lost outcome, {parked} parked; ended: {reasons:?}", contacts.len());
}

/// `To P17: this is step 2.`, also within HTML.
fn told(text: &str) -> Option<(u32, u32)> {
    let number = |after: &str| {
        let rest = text.split_once(after)?.1;
        rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse().ok()
    };
    Some((number("To P")?, number("this is step ")?))
}

/// Whose an identity is: `person-17`, `person.17@people.example`, `33620000017`.
fn whose(identity: &str) -> u32 {
    let local = identity.split('@').next().unwrap_or_default();
    let digits = local.strip_prefix("336200").or_else(|| local.get("person-".len()..));
    digits.and_then(|d| d.parse().ok()).unwrap_or_else(|| panic!("{identity} is nobody of the campaign"))
}

fn micros(value: &Value) -> Timestamp {
    Timestamp::from_micros(value.as_i64().unwrap())
}

/// The ledger's contacts. Each must be one that the table knows as sent: the claim comes before the call.
async fn contacts(world: &World) -> Vec<Contact> {
    let claims: Vec<(String, i32, i64)> = sqlx::query_as(
        "SELECT p.email, s.step, (extract(epoch FROM s.claimed_at) * 1000000)::bigint FROM sends s \
         JOIN campaign_prospects p ON p.id = s.prospect_id WHERE s.status IN ('sent', 'unknown') AND s.claimed_at IS NOT NULL",
    )
    .fetch_all(&world.db.pool)
    .await
    .unwrap();
    let claims: HashMap<(u32, u32), i64> =
        claims.into_iter().map(|(email, step, at)| ((whose(&email), u32::try_from(step).unwrap()), at)).collect();
    let entries = world.ledger().await;
    let contact = |entry: &Value| {
        let text = entry["text"].as_str().unwrap_or_default();
        let (person, step) = told(text).unwrap_or_else(|| panic!("no text of the campaign: {entry}"));
        assert_eq!(person, whose(entry["recipient_public"].as_str().unwrap()), "sent to somebody else: {entry}");
        let at = micros(&entry["at_us"]);
        let claimed = claims.get(&(person, step)).unwrap_or_else(|| panic!("the table does not know of {entry}"));
        Contact {
            person,
            step,
            kind: entry["kind"].as_str().unwrap().to_owned(),
            account: entry["account_id"].as_str().unwrap().to_owned(),
            at,
            started: micros(&entry["started_at"]),
            // What was claimed again, because reading back did not find it, would be seen as a second contact.
            claimed: Timestamp::from_micros(*claimed).min(at),
        }
    };
    let contacts: Vec<Contact> = entries.iter().map(contact).collect();
    let sent = claims.len();
    assert!(sent >= contacts.len(), "{sent} sends, {} contacts", contacts.len());
    contacts
}

/// Nothing was authorised after an answer on any channel had been acknowledged, but for what was just being claimed: a claim
/// waits for the facts that were acknowledged before it. What was on its way at that moment cannot be called back. Both are
/// counted.
async fn nobody_after_an_answer(world: &World, contacts: &[Contact]) {
    // Who only looked at the page of an unsubscribe link has not unsubscribed.
    let answers = |d: &&Value| match d["kind"].as_str().unwrap() {
        "reply" | "bounce" => true,
        "unsubscribe" => !d["text"].is_null(),
        _ => false,
    };
    let deeds = world.look("/sandbox/deeds?limit=1000000").await;
    let mut acknowledged: HashMap<u32, Timestamp> = HashMap::new();
    let mut answered = 0;
    for deed in deeds["items"].as_array().unwrap().iter().filter(answers) {
        answered += 1;
        if !deed["acknowledged_at"].is_null() {
            let at = micros(&deed["acknowledged_at"]);
            let first = acknowledged.entry(whose(deed["identity"].as_str().unwrap())).or_insert(at);
            *first = at.min(*first);
        }
    }
    let applied: Vec<(String, i64)> = sqlx::query_as(
        "SELECT p.email, (extract(epoch FROM min(t.at)) * 1000000)::bigint FROM transitions t \
         JOIN campaign_prospect_execution_state e ON e.id = t.execution_id JOIN campaign_prospects p ON p.id = e.prospect_id \
         WHERE t.trigger IN ('reply', 'unsubscribe') OR t.to_status IN ('completed', 'failed') GROUP BY p.email",
    )
    .fetch_all(&world.db.pool)
    .await
    .unwrap();
    let applied: HashMap<u32, Timestamp> =
        applied.into_iter().map(|(email, at)| (whose(&email), Timestamp::from_micros(at))).collect();
    let clock = |real: Timestamp| {
        let since = real.since(world.origin);
        world.origin + since * world.speed
    };

    let (mut on_their_way, mut between, mut late) = (0, 0, Vec::new());
    for contact in contacts {
        let who = format!("person {} by step {}", contact.person, contact.step);
        if let Some(at) = applied.get(&contact.person).filter(|at| contact.claimed > **at) {
            late.push(format!("{who}: claimed at {}, over since {at}", contact.claimed));
        }
        let Some(at) = acknowledged.get(&contact.person).filter(|at| contact.started > **at) else { continue };
        let (at, real) = (clock(*at), contact.started.since(*at));
        if contact.claimed > at && real > CLAIMS {
            late.push(format!("{who}: claimed at {}, answered at {at}, {real:?} before the call", contact.claimed));
        } else if contact.claimed > at {
            between += 1;
        } else {
            on_their_way += 1;
        }
    }
    println!(
        "{answered} answers, {} people's acknowledged; {on_their_way} contacts were on their way then, {between} were just being \
         claimed",
        acknowledged.len()
    );
    assert!(late.is_empty(), "contacted after an answer:\n{}", late.join("\n"));
    assert!(!acknowledged.is_empty(), "nobody answered");
}

/// The most that any window of this length holds; its end is outside of it.
fn busiest(times: &[Timestamp], window: Duration) -> usize {
    let mut times = times.to_vec();
    times.sort_unstable();
    let mut first = 0;
    let counts = times.iter().enumerate().map(|(last, end)| {
        while first < last && end.since(times[first]) >= window {
            first += 1;
        }
        last + 1 - first
    });
    counts.max().unwrap_or(0)
}

/// When each account was allowed to make a contact of a kind, by the clock: also those that failed before their effect.
async fn authorised(world: &World) -> HashMap<(String, &'static str), Vec<Timestamp>> {
    let claims: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT a.provider_account_id, s.action, (extract(epoch FROM s.claimed_at) * 1000000)::bigint FROM sends s \
         JOIN accounts a ON a.id = s.account_id WHERE s.claimed_at IS NOT NULL",
    )
    .fetch_all(&world.db.pool)
    .await
    .unwrap();
    let mut authorised: HashMap<_, Vec<Timestamp>> = HashMap::new();
    for (account, action, at) in claims {
        let kind = match action.as_str() {
            "send_linkedin_cr" => "invite",
            "send_linkedin_message" => "message",
            "send_email" => "email",
            "send_whatsapp" => "whatsapp",
            other => panic!("{other} is no step of the campaign"),
        };
        authorised.entry((account, kind)).or_default().push(Timestamp::from_micros(at));
    }
    authorised
}

/// No window holds more contacts than the account may make: exactly, by the times at which they were authorised, and by the
/// times at which the provider saw them, in windows that are shorter by the longest way from the one to the other: on a fast
/// clock the milliseconds of a call are an hour.
fn budgets_held(
    contacts: &[Contact],
    authorised: &HashMap<(String, &'static str), Vec<Timestamp>>,
    summary: &Value,
    limits: &[(String, Limits)],
) {
    let way = contacts.iter().map(|c| c.at.since(c.claimed)).max().unwrap_or_default();
    let mut full = 0;
    for (account, limits) in limits {
        for (kind, day, week) in limits {
            let own = || contacts.iter().filter(|c| c.account == *account && c.kind == *kind);
            let claimed = authorised.get(&(account.clone(), *kind)).cloned().unwrap_or_default();
            let seen: Vec<Timestamp> = own().map(|c| c.at).collect();
            for (window, limit) in [(DAY, *day as usize), (WEEK, *week as usize)] {
                let most = busiest(&claimed, window);
                assert!(most <= limit, "{account}: {most} of {kind} authorised in {window:?}, may do {limit}");
                let most_seen = busiest(&seen, window.saturating_sub(way));
                assert!(
                    most_seen <= limit,
                    "{account}: {most_seen} of {kind} sent in {window:?} less {way:?}, may do {limit}"
                );
                full += u32::from(most * 10 >= limit * 9);
            }
            let line = summary["accounts"].as_array().unwrap().iter();
            let line =
                line.clone().find(|l| l["account_id"] == **account && l["kind"] == *kind).cloned().unwrap_or_default();
            println!(
                "{account} {kind}: {} sent; authorised at most {} a day (may {day}) and {} a week (may {week}); as the provider saw it {} and {}",
                seen.len(),
                busiest(&claimed, DAY),
                busiest(&claimed, WEEK),
                line["max_in_a_day"],
                line["max_in_a_week"],
            );
        }
    }
    println!("the longest way from the claim to the effect took {way:?} of the clock; {full} limits were used up");
    assert!(full > 0, "no budget was ever used up");
}
