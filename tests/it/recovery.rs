//! Recovery, seen from outside: the real binary and the sandbox as processes, the server killed with -9 again and again in
//! the middle of a campaign. What is proved is read from the sandbox's ledger and from the table.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::scratch;
use crate::processes::World;

const KILLS: u32 = 10;
const PROSPECTS: usize = 500;
/// Five days in 48 s.
const SPEED: u32 = 9000;
const PATIENCE: Duration = Duration::from_secs(240);

fn person(index: usize) -> Value {
    json!({
        "first_name": format!("Person{index}"), "last_name": "Example", "company_name": "Example",
        "email": format!("person.{index}@people.example"),
        "linkedin_url": format!("https://www.linkedin.com/in/person-{index}"),
    })
}

fn campaign() -> Value {
    json!({"name": "recovery", "flow_settings": {"schema_version": 1, "steps": [
        {"id": "invite", "action": "send_linkedin_cr", "message": "Hello {{ first_name }}",
         "wait_for": {"trigger": "connection_accepted", "timeout": "72h"}},
        {"id": "intro", "action": "send_email", "subject": "Hello {{ first_name }}", "message": "One", "delay": "24h"},
        {"id": "nudge", "action": "send_linkedin_message", "message": "Two", "requires": ["connected"]}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_during_a_campaign_lose_no_send_and_double_none() {
    let world = World::new("recovery", SPEED).await;
    let _sandbox = world.start_sandbox(&[]).await;
    let mut server = world.start_server();
    world.until_answers(world.metrics, "/readyz").await;
    for (channel, id) in [
        ("linkedin", "li_account_one_0000000"),
        ("linkedin", "li_account_two_0000000"),
        ("email", "mail_account_one_00000"),
    ] {
        let account = json!({"channel": channel, "provider": "unipile", "provider_account_id": id, "name": id,
            "kind": "unlimited"});
        world.post("/v1/accounts", &account).await;
    }
    let id = world.post("/v1/campaigns", &campaign()).await["id"].as_str().unwrap().to_owned();
    let people: Vec<Value> = (0..PROSPECTS).map(person).collect();
    world.post(&format!("/v1/campaigns/{id}/prospects"), &json!(people)).await;
    world.post(&format!("/v1/campaigns/{id}/start"), &Value::Null).await;

    // Random, and printed: the moments are what this test is about.
    let moments: Vec<u64> = Uuid::new_v4().as_bytes().iter().map(|b| 150 + u64::from(*b) * 10).collect();
    println!("killing after {moments:?} ms each");
    for wait in moments.iter().take(KILLS as usize) {
        // Not a wait for something: the moment of the kill itself.
        tokio::time::sleep(Duration::from_millis(*wait)).await;
        drop(server);
        server = world.start_server();
        world.until_answers(world.metrics, "/healthz").await;
    }

    let deadline = Instant::now() + PATIENCE;
    let open = "SELECT count(*) FROM campaign_prospect_execution_state WHERE status NOT IN ('completed', 'failed')";
    let unsettled = "SELECT count(*) FROM sends WHERE status IN ('pending', 'dispatching', 'unknown')";
    while world.count(open).await > 0 || world.count(unsettled).await > 0 {
        assert!(
            Instant::now() < deadline,
            "{} open executions, {} unsettled sends; see {}",
            world.count(open).await,
            world.count(unsettled).await,
            scratch("recovery").display()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    let ledger = world.ledger().await;
    let mut contacts: HashMap<String, u32> = HashMap::new();
    for entry in &ledger {
        let key = format!("{} {} {}", entry["kind"], entry["recipient"], entry["text"]);
        *contacts.entry(key).or_default() += 1;
    }
    let doubled: Vec<_> = contacts.iter().filter(|(_, n)| **n > 1).collect();
    assert!(doubled.is_empty(), "contacted twice: {doubled:?}");
    assert_eq!(world.count("SELECT count(*) FROM campaign_prospect_execution_state").await, 500);
    let sent = world.count("SELECT count(*) FROM sends WHERE status = 'sent'").await;
    assert_eq!(usize::try_from(sent).unwrap(), ledger.len(), "the table and the provider tell different stories");
    assert_eq!(
        world.count("SELECT count(DISTINCT prospect_id) FROM sends WHERE step = 1 AND status = 'sent'").await,
        500,
        "somebody was never invited"
    );
    assert_eq!(world.count("SELECT count(*) FROM account_gate WHERE in_flight IS NOT NULL").await, 0, "a gate is shut");
    let settled = world
        .count("SELECT count(*) FROM transitions WHERE trigger = 'send_finished' AND detail->>'outcome' = 'unknown'")
        .await;
    println!("{} contacts, {settled} of them settled after their outcome was lost", ledger.len());
}
