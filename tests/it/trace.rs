//! One webhook is one trace, from the door to the provider's call, also when a restart lies between.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::processes::World;

/// Whoever calls us, and what they call the trace.
pub(crate) const FIRST: &str = "0af7651916cd43dd8448eb211c80319c";
const SECOND: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
/// The caller's span.
const CALLER: &str = "b7ad6b7169203331";
const ACCOUNT: &str = "li_account_one_0000000";

/// Nobody does anything unless told to, and the provider delivers nothing: the test does.
pub(crate) const STILL: &[&str] = &["--people", "still", "--loss-share", "1"];

/// An invitation, and a message when it is accepted.
pub(crate) fn invite_and_write() -> Value {
    json!({"name": "traced", "flow_settings": {"schema_version": 1, "steps": [
        {"id": "invite", "action": "send_linkedin_cr", "message": "Hi",
         "wait_for": {"trigger": "connection_accepted", "timeout": "72h"}},
        {"id": "write", "action": "send_linkedin_message", "message": "Thanks", "requires": ["connected"]}]}})
}

/// Starts a campaign for these people and waits until they are invited.
pub(crate) async fn invited(world: &World, people: &[&str]) {
    let account = json!({"channel": "linkedin", "provider": "unipile", "provider_account_id": ACCOUNT, "name": "one",
        "kind": "unlimited"});
    world.post("/v1/accounts", &account).await;
    let id = world.post("/v1/campaigns", &invite_and_write()).await["id"].as_str().unwrap().to_owned();
    let people: Vec<Value> =
        people.iter().map(|slug| json!({"linkedin_url": format!("https://www.linkedin.com/in/{slug}")})).collect();
    world.post(&format!("/v1/campaigns/{id}/prospects"), &json!(people)).await;
    world.post(&format!("/v1/campaigns/{id}/start"), &Value::Null).await;
    let waiting = "SELECT count(*) FROM campaign_prospect_execution_state WHERE status = 'waiting_trigger'";
    let all = i64::try_from(people.len()).unwrap();
    until("all are invited", async || world.count(waiting).await == all).await;
}

/// Somebody accepts, and this is how the provider tells it.
pub(crate) async fn accepts(world: &World, slug: &str) -> Value {
    world.order(&format!("/sandbox/people/{slug}/accept"), &json!({})).await;
    json!({"event": "new_relation", "account_id": ACCOUNT, "account_type": "LINKEDIN", "user_public_identifier": slug,
        "user_profile_url": format!("https://www.linkedin.com/in/{slug}/")})
}

pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done().await {
        assert!(Instant::now() < deadline, "{what}: not within 30 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The stages of a trace, as the log tells them, in the order in which they ended.
fn stages(log: &str, trace: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "campaignd::trace" && line["trace_id"] == trace).collect()
}

/// The stage of this name whose parent is the given one.
#[track_caller]
fn child<'a>(stages: &'a [Value], parent: &str, name: &str) -> &'a str {
    let found: Vec<&Value> = stages.iter().filter(|s| s["parent_id"] == parent && s["stage"] == name).collect();
    assert_eq!(found.len(), 1, "{name} under {parent} in {stages:#?}");
    found[0]["span_id"].as_str().unwrap()
}

fn has_ended(log: &str, trace: &str) -> bool {
    stages(log, trace).iter().any(|s| s["known"].as_str().unwrap().contains("trigger=send_finished"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_webhook_is_one_trace_down_to_the_providers_call_and_a_restart_does_not_break_it() {
    let world = World::new("trace", 60).await;
    let _sandbox = world.start_sandbox(STILL).await;
    let settings = [("CAMPAIGND_LOG__JSON", "true"), ("CAMPAIGND_TRACE__SAMPLE", "0")];
    let server = world.start_server_with("first.log", &settings);
    world.until_answers(world.metrics, "/readyz").await;
    invited(&world, &["jane-doe", "john-roe"]).await;
    let accepted = accepts(&world, "jane-doe").await;
    world.deliver(&accepted, &format!("00-{FIRST}-{CALLER}-01")).await;
    until("the message is sent", async || has_ended(&world.log("first.log"), FIRST)).await;

    let log = world.log("first.log");
    let told = stages(&log, FIRST);
    let request = child(&told, CALLER, "request");
    let store = child(&told, request, "store");
    let apply = child(&told, store, "apply");
    let transition = child(&told, apply, "transition");
    child(&told, transition, "claim");
    child(&told, transition, "provider");
    child(&told, transition, "transition");
    assert_eq!(told.len(), 7, "{told:#?}");
    let provider = told.iter().find(|s| s["stage"] == "provider").unwrap();
    let known = provider["known"].as_str().unwrap();
    assert!(known.contains("action=send_linkedin_message") && known.contains("outcome=sent"), "{known}");
    let strangers = log.lines().filter(|line| line.contains("\"campaignd::trace\"") && !line.contains(FIRST)).count();
    assert_eq!(strangers, 0, "nothing else is traced when nothing is sampled");

    // John's acceptance is stored, and the process dies before it does anything about it.
    drop(server);
    let accepted = accepts(&world, "john-roe").await;
    let stored = "INSERT INTO inbox (workspace_id, id, source, dedupe_key, body, received_at, traceparent) \
        SELECT id, gen_random_uuid(), 'unipile', 'unipile:john', convert_to($1, 'UTF8'), now(), $2 FROM workspaces";
    let query = sqlx::query(stored).bind(accepted.to_string()).bind(format!("00-{SECOND}-{CALLER}-01"));
    assert_eq!(query.execute(&world.db.pool).await.unwrap().rows_affected(), 1);
    let _server = world.start_server_with("second.log", &settings);
    until("the message is sent", async || {
        std::fs::exists(crate::harness::scratch("trace").join("second.log")).unwrap()
            && has_ended(&world.log("second.log"), SECOND)
    })
    .await;
    let told = stages(&world.log("second.log"), SECOND);
    let apply = child(&told, CALLER, "apply");
    child(&told, child(&told, apply, "transition"), "provider");
}
