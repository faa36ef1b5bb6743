//! Sends through the API: lists, and a person's word about those that could not be found out.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use campaignd::domain::account::Channel;
use campaignd::domain::execution::{ExitReason, Status};
use campaignd::domain::id::ExecutionId;
use campaignd::domain::trigger::Trigger;
use campaignd::http::{self, App, Options};
use campaignd::store::api_key;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::fake::{Act, NOW, Read, Rig, WORKSPACE};

/// The API over a rig's engine.
pub(crate) struct Desk {
    router: Router,
    key: String,
}

impl Desk {
    pub(crate) async fn over(rig: &Rig) -> Self {
        let metrics = campaignd::telemetry::install().unwrap();
        let clock = rig.clock.clone();
        let key = api_key::create(&rig.pool, WORKSPACE, "Olga at the desk", clock.now()).await.unwrap().reveal();
        let app = App { pool: rig.pool.clone(), runtime: rig.handle(), clock, options: Options::default(), metrics };
        Self { router: http::router(app), key }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("x-api-key", &self.key)
            .header("content-type", "application/json")
            .body(if body.is_null() { Body::empty() } else { Body::from(body.to_string()) })
            .unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let bytes = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn list(&self, query: &str) -> Vec<Value> {
        let (status, page) = self.call("GET", &format!("/v1/sends{query}"), Value::Null).await;
        assert_eq!(status, 200, "{page}");
        page["sends"].as_array().unwrap().clone()
    }

    async fn resolve(&self, id: &str, outcome: &str) -> (u16, Value) {
        self.call("POST", &format!("/v1/sends/{id}/resolve"), json!({"outcome": outcome})).await
    }

    async fn timeline(&self, rig: &Rig, person: ExecutionId) -> Vec<Value> {
        let prospect = rig.execution(person).await.prospect;
        let (_, page) = self.call("GET", &format!("/v1/prospects/{prospect}/timeline"), Value::Null).await;
        page["entries"].as_array().unwrap().clone()
    }
}

fn flow() -> Value {
    json!({"schema_version": 1, "steps": [{"id": "mail", "action": "send_email", "subject": "Hi", "message": "Hello {{ name }}"}]})
}

/// People whose mail nobody knows about: the call ended without an answer, and reading back fails until it is given up.
async fn parked(n: u32, act: Act) -> (Rig, Vec<ExecutionId>, Desk) {
    let mut rig = Rig::fast().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&flow()).await;
    rig.fake.script(move |_, _| act.clone());
    rig.fake.reads(|_, _| Read::Error);
    rig.start().await;
    let people = rig.prospects(campaign, n).await;
    let desk = Desk::over(&rig).await;
    rig.wait("parked", async || desk.list("?parked=true").await.len() == n as usize).await;
    (rig, people, desk)
}

#[tokio::test]
async fn a_parked_send_says_why_what_was_tried_and_where_to_look() {
    let (rig, people, desk) = parked(3, Act::UnknownAfter).await;
    let all = desk.list("?status=unknown").await;
    assert_eq!(all.len(), 3);
    let told = &all[0]["unknown"];
    assert_eq!(told["parked"], true);
    assert!(told["why"].as_str().unwrap().contains("the provider was called at"), "{told}");
    assert!(
        told["tried"].as_str().unwrap().starts_with("looked for it at the provider 30 times, given up at"),
        "{told}"
    );
    assert!(told["look_at"].as_str().unwrap().starts_with("the sent mails of"), "{told}");
    let (_, first) = desk.call("GET", "/v1/sends?limit=2", Value::Null).await;
    let next = format!("/v1/sends?limit=2&cursor={}", first["next_cursor"].as_str().unwrap());
    let (_, second) = desk.call("GET", &next, Value::Null).await;
    assert_eq!(second["next_cursor"], Value::Null);
    assert_eq!(
        [&first["sends"][0], &first["sends"][1], &second["sends"][0]].map(|s| &s["id"]),
        [0, 1, 2].map(|n| &all[n]["id"])
    );
    let account = all[0]["account_id"].as_str().unwrap();
    let campaign = all[0]["campaign_id"].as_str().unwrap();
    let nobody = "00000000-0000-0000-0000-000000000001";
    for (query, n) in [
        (format!("?account={account}&campaign={campaign}"), 3),
        (format!("?account={nobody}"), 0),
        (format!("?campaign={nobody}&parked=true"), 0),
        ("?status=sent".to_owned(), 0),
        ("?parked=false".to_owned(), 0),
        ("?status=sent&parked=true".to_owned(), 0),
    ] {
        assert_eq!(desk.list(&query).await.len(), n, "{query}");
    }
    for bad in ["?status=lost", "?campaign=x", "?parked=maybe", "?cursor=x", "?limit=0", "?colour=red"] {
        let (status, problem) = desk.call("GET", &format!("/v1/sends{bad}"), Value::Null).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_query")), "{bad}");
    }
    assert_eq!(people.len(), 3);
    drop(rig);
}

#[tokio::test]
async fn sent_lets_the_flow_go_on_and_who_said_so_is_in_the_timeline() {
    let (rig, people, desk) = parked(1, Act::UnknownAfter).await;
    let id = desk.list("").await[0]["id"].as_str().unwrap().to_owned();
    let (status, problem) = desk.resolve(&id, "perhaps").await;
    assert_eq!((status, &problem["problems"][0]["path"]), (422, &json!("$.outcome")));
    let (status, answer) = desk.resolve(&id, "sent").await;
    assert_eq!((status, &answer["applied"], &answer["status"]), (200, &json!(true), &json!("completed")), "{answer}");
    let row = rig.until(people[0], "ended", |e| e.status == Status::Completed).await;
    assert_eq!((row.exit_reason, row.email.sent_count, row.open_send), (Some(ExitReason::Finished), 1, None));
    let timeline = desk.timeline(&rig, people[0]).await;
    let decided = timeline.iter().find(|e| e["trigger"] == "send_resolved").unwrap();
    assert_eq!(decided["detail"], json!({"send": id, "outcome": "sent", "by": "Olga at the desk"}));
    let (status, problem) = desk.resolve(&id, "not_sent").await;
    assert_eq!((status, &problem["code"], &problem["send_status"]), (409, &json!("send_known"), &json!("sent")));
    assert_eq!(desk.list("?parked=true").await.len(), 0);
    assert_eq!(rig.fake.calls().len(), 1);
}

#[tokio::test]
async fn not_sent_sends_it_again_once_however_many_say_so() {
    let (rig, people, desk) = parked(1, Act::UnknownBefore).await;
    let id = desk.list("").await[0]["id"].as_str().unwrap().to_owned();
    rig.fake.script(|_, _| Act::Ok);
    let answers = futures_util::future::join_all((0..5).map(|_| desk.resolve(&id, "not_sent"))).await;
    assert_eq!(answers.iter().filter(|(status, _)| *status == 200).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|(_, problem)| problem["code"] == "send_known").count(), 4, "{answers:?}");
    rig.until(people[0], "sent", |e| e.exit_reason == Some(ExitReason::Finished)).await;
    assert_eq!(rig.fake.calls().len(), 2);
    assert_eq!(rig.fake.doubled(), []);
    assert_eq!(desk.list("?status=sent").await[0]["id"], json!(id));
}

#[tokio::test]
async fn a_send_that_nobody_waits_for_is_recorded_alone_and_never_sent_again() {
    let (rig, people, desk) = parked(2, Act::UnknownBefore).await;
    for person in &people {
        rig.apply(*person, Trigger::Stop).await;
    }
    rig.wait("let go", async || rig.executions(&people).await.iter().all(|e| e.open_send.is_none())).await;
    let ids: Vec<String> = desk.list("").await.iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect();
    for (id, (outcome, status)) in ids.iter().zip([("sent", "sent"), ("not_sent", "cancelled")]) {
        let (code, answer) = desk.resolve(id, outcome).await;
        assert_eq!((code, &answer["applied"]), (200, &json!(false)), "{answer}");
        let shown = desk.list(&format!("?status={status}")).await;
        assert_eq!(shown.len(), 1);
        assert!(shown[0]["error"].as_str().unwrap().starts_with("Olga at the desk decided"), "{shown:?}");
    }
    assert_eq!(rig.fake.calls().len(), 2);
}

#[tokio::test]
async fn only_what_nobody_knows_can_be_decided() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&flow()).await;
    rig.fake.script(|_, n| if n == 0 { Act::UnknownBefore } else { Act::Ok });
    rig.fake.reads(|_, _| Read::Error);
    rig.start().await;
    let people = rig.prospects(campaign, 1).await;
    let desk = Desk::over(&rig).await;
    rig.wait("unknown", async || !desk.list("?status=unknown").await.is_empty()).await;
    let send = desk.list("?status=unknown").await.remove(0);
    assert_eq!(send["unknown"]["parked"], false);
    let id = send["id"].as_str().unwrap();
    let (status, problem) = desk.resolve(id, "sent").await;
    assert_eq!((status, &problem["code"]), (409, &json!("settling")), "the engine is at it");
    // An account that does not send cannot be asked either: then a person may decide.
    rig.db.script("UPDATE accounts SET status = 'halted'").await.unwrap();
    let (status, answer) = desk.resolve(id, "sent").await;
    assert_eq!((status, &answer["applied"]), (200, &json!(true)), "{answer}");
    rig.until(people[0], "ended", |e| e.exit_reason == Some(ExitReason::Finished)).await;
    for gone in ["00000000-0000-0000-0000-000000000001", "x"] {
        let (status, _) = desk.resolve(gone, "sent").await;
        assert_eq!(status, 404, "{gone}");
    }
}

#[tokio::test]
async fn what_is_rare_is_found_page_by_page_and_no_page_looks_at_everything() {
    let mut rig = Rig::manual().await;
    rig.start().await;
    let desk = Desk::over(&rig).await;
    // Two a second, and a burst of 15,000 in one second; the oldest of all has failed.
    let (now, nobody) = (NOW.to_utc(), "00000000-0000-0000-0000-000000000009");
    rig.db
        .script(format!(
            "INSERT INTO sends (workspace_id, id, created_at, execution_id, shard, prospect_id, campaign_id, flow_version, step,
                 step_id, action, channel, attempt, account_id, account_shard, status)
             SELECT '{WORKSPACE}', gen_random_uuid(), '{now}'::timestamptz
                     - interval '1 second' * CASE WHEN n <= 15000 THEN 50 + n / 15001.0 ELSE n / 2.0 END,
                 '{nobody}', 0, '{nobody}', '{nobody}', 1, 1, 'm1', 'send_email', 'email', 1, '{nobody}', 0,
                 CASE WHEN n = 60000 THEN 'failed' ELSE 'sent' END
             FROM generate_series(1, 60000) AS n; ANALYZE sends"
        ))
        .await
        .unwrap();
    let mut pages = Vec::new();
    let mut path = "/v1/sends?status=failed".to_owned();
    loop {
        let (status, page) = desk.call("GET", &path, Value::Null).await;
        assert_eq!(status, 200, "{page}");
        pages.push(page["sends"].as_array().unwrap().len());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/sends?status=failed&cursor={cursor}");
    }
    assert_eq!(pages.iter().sum::<usize>(), 1, "{pages:?}");
    assert!((3..6).contains(&pages.len()), "20,000 to 30,000 of 60,000 each: {pages:?}");

    // Without a filter each page is full, and together they are all there is.
    let (mut seen, mut path) = (std::collections::HashSet::new(), "/v1/sends?limit=500".to_owned());
    loop {
        let (_, page) = desk.call("GET", &path, Value::Null).await;
        let sends = page["sends"].as_array().unwrap();
        assert!(sends.iter().all(|s| seen.insert(s["id"].as_str().unwrap().to_owned())), "twice");
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        assert_eq!(sends.len(), 500);
        path = format!("/v1/sends?limit=500&cursor={cursor}");
    }
    assert_eq!(seen.len(), 60_000);
    assert!(rig.stop().await);
}
