//! The sandbox's faults: which requests they strike, and what becomes of those.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::{Duration, Instant};

use campaignd::sandbox::{LINKEDIN_ONE, MAIL_ONE, WHATSAPP_ONE};
use serde_json::{Value, json};

use crate::sandbox_rig::{Rig, escaped};

/// Waits for the ledger to have so many entries.
async fn until_written(rig: &Rig, count: u64) -> Value {
    let wait = async {
        loop {
            let ledger = rig.ledger().await;
            if ledger["count"] == count {
                return ledger;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap()
}

#[tokio::test]
async fn what_is_slow_to_happen_happens_even_if_the_client_gives_up_meanwhile() {
    let rig = Rig::new().await;
    let id = rig.provider_id("gus-given-up", LINKEDIN_ONE).await;
    let endpoint = json!({ "endpoint": "POST /users/invite" });
    rig.fault(json!({ "match": endpoint, "times": 1, "effect": "slow_before", "delay_ms": 1000 })).await;
    let struck = async {
        while rig.get("/sandbox/faults").await.1["items"][0]["struck"] != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = rig.invite(&id) => unreachable!("it is answered after a second"),
        () = struck => {}
    }
    let entry = until_written(&rig, 1).await["items"][0].clone();
    assert_eq!((&entry["recipient_public"], &entry["overlaps"]), (&json!("gus-given-up"), &json!(false)));
    // It was read when it came, not when it happened.
    let (started, finished) = (entry["started_at"].as_i64().unwrap(), entry["finished_at"].as_i64().unwrap());
    assert!(finished - started >= 1_000_000, "{entry}");
    assert_eq!(rig.invite(&id).await.1["type"], "errors/already_invited_recently");
}

#[tokio::test]
async fn a_fault_strikes_every_request_that_is_about_its_account() {
    let rig = Rig::new().await;
    let (_, started) = rig.whatsapp("33612345678", "hello").await;
    rig.whatsapp("33612345679", "hello").await;
    let mail = rig.mail("jane@never-replies.example").await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (chat, message) = (text(&started["chat_id"]), text(&started["message_id"]));
    let attendee = text(&rig.get(&format!("/api/v1/chats/{chat}/attendees")).await.1["items"][0]["id"]);
    let (_, page) = rig.get(&format!("/api/v1/messages?account_id={WHATSAPP_ONE}&limit=1")).await;
    let sent = rig.get(&format!("/api/v1/emails?account_id={MAIL_ONE}")).await.1["items"][0].clone();
    assert_eq!(sent["provider_id"], mail["provider_id"]);
    for (account, path) in [
        (WHATSAPP_ONE, format!("/messages/{message}")),
        (WHATSAPP_ONE, format!("/messages?cursor={}", escaped(&page["cursor"]))),
        // What stands beside a cursor is not looked at.
        (WHATSAPP_ONE, format!("/messages?account_id={LINKEDIN_ONE}&cursor={}", escaped(&page["cursor"]))),
        (WHATSAPP_ONE, format!("/messages?account_id={LINKEDIN_ONE},{WHATSAPP_ONE}")),
        (WHATSAPP_ONE, format!("/chats/{chat}/messages")),
        (WHATSAPP_ONE, format!("/chat_attendees/{attendee}")),
        (WHATSAPP_ONE, "/chat_attendees/33612345679@s.whatsapp.net/chats".to_owned()),
        (WHATSAPP_ONE, format!("/accounts/{WHATSAPP_ONE}")),
        (MAIL_ONE, format!("/emails/{}", text(&sent["id"]))),
    ] {
        let path = format!("/api/v1{path}");
        assert_eq!(rig.get(&path).await.0, 200, "{path}");
        let rule =
            |account: &str| json!({ "match": { "endpoint": "*", "account_id": account }, "effect": "rate_limit" });
        rig.fault(json!([rule("another"), rule(account)])).await;
        assert_eq!(rig.get(&path).await.0, 429, "{path}");
        assert_eq!(rig.ask(reqwest::Method::DELETE, "/sandbox/faults").send().await.unwrap().status(), 200);
    }
    // Where there is no account, nothing is disconnected and nothing struck.
    rig.fault(json!({ "match": { "endpoint": "*" }, "times": 1, "effect": "disconnect" })).await;
    assert_eq!(rig.get("/api/v1/webhooks").await.0, 200);
    assert_eq!(rig.get(&format!("/api/v1/messages/{message}")).await.1["type"], "errors/disconnected_account");
    let (_, account) = rig.get(&format!("/api/v1/accounts/{WHATSAPP_ONE}")).await;
    assert_eq!(account["sources"][0]["status"], "CREDENTIALS");
}

#[tokio::test]
async fn an_endpoint_may_be_spelt_in_many_ways_and_one_that_could_never_be_met_is_refused() {
    let rig = Rig::new().await;
    for endpoint in ["POST chats", "POST /chats/", "POST /api/v1/chats"] {
        rig.fault(json!({ "match": { "endpoint": endpoint }, "times": 1, "effect": "rate_limit" })).await;
        assert_eq!(rig.whatsapp("33612345678", "hello").await.0, 429, "{endpoint}");
    }
    assert_eq!(rig.get("/sandbox/faults").await.1["items"][0]["match"]["endpoint"], "POST /chats");
    let rule = json!({ "match": { "endpoint": "GET /users/jane-doe" }, "effect": "slow" });
    let (status, refused) = rig.post("/sandbox/faults", rule).await;
    let why = refused["detail"].as_str().unwrap();
    assert!(status == 400 && why.contains("about") && why.contains("GET /users/{identifier}"), "{refused}");
}

#[tokio::test]
async fn a_refusal_comes_as_late_as_it_was_asked_to() {
    let rig = Rig::new().await;
    for effect in ["fail_before", "rate_limit", "gateway_before", "reset_before", "disconnect"] {
        let target = json!({ "endpoint": "GET /chats" });
        rig.fault(json!({ "match": target, "times": 1, "effect": effect, "delay_ms": 150 })).await;
        let asked = Instant::now();
        let answer = rig.ask(reqwest::Method::GET, &format!("/api/v1/chats?account_id={WHATSAPP_ONE}")).send().await;
        assert!(asked.elapsed() >= Duration::from_millis(150), "{effect}");
        assert!(answer.is_err() || answer.unwrap().status().as_u16() >= 400, "{effect}");
    }
}

#[tokio::test]
async fn an_answer_can_end_in_the_middle_of_its_json_while_its_transport_is_whole() {
    let rig = Rig::new().await;
    let id = rig.provider_id("hal-half", LINKEDIN_ONE).await;
    let rule = json!({ "match": { "endpoint": "POST /users/invite" }, "times": 1, "effect": "truncate_json" });
    rig.fault(rule).await;
    let body = json!({ "account_id": LINKEDIN_ONE, "provider_id": id });
    let answer = rig.ask(reqwest::Method::POST, "/api/v1/users/invite").json(&body).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.content_length().is_some()), (200, true));
    let half = answer.bytes().await.unwrap();
    assert!(half.starts_with(b"{\"invitation_id") && serde_json::from_slice::<Value>(&half).is_err(), "{half:?}");
    assert_eq!(rig.ledger().await["count"], 1);
}

#[tokio::test]
async fn the_ledger_tells_of_requests_of_one_account_that_were_in_flight_together() {
    let dir = std::env::temp_dir().join(format!("campaignd-ledger-{}", uuid::Uuid::new_v4()));
    let file = dir.clone();
    let rig = Rig::with(|o| o.ledger_path = Some(file)).await;
    let (one, two) = (rig.provider_id("una-one", LINKEDIN_ONE).await, rig.provider_id("una-two", LINKEDIN_ONE).await);
    rig.fault(json!({ "match": { "endpoint": "POST /users/invite" }, "times": 1, "effect": "slow", "delay_ms": 5000 }))
        .await;
    let slow = rig.invite(&one);
    let meanwhile = async {
        while rig.ledger().await["count"] != 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(rig.invite(&two).await.0, 200);
    };
    // The slow answer is dropped once the other is there: a client that gave up.
    tokio::select! {
        _ = slow => unreachable!("five seconds are longer than the other request"),
        () = meanwhile => {}
    }
    while rig.ledger().await["items"].as_array().unwrap().iter().any(|e| e["finished_at"].is_null()) {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.ledger().await["overlapping"], 2);
    let lines = std::fs::read_to_string(&dir).unwrap();
    let written: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let recipients: Vec<_> = written.iter().map(|e| (&e["seq"], &e["recipient_public"])).collect();
    assert_eq!(recipients, [(&json!(1), &json!("una-one")), (&json!(2), &json!("una-two"))]);
    std::fs::remove_file(dir).unwrap();
}
