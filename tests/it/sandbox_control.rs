//! The sandbox's other side: people who are told what to do, its clock, its faults, and what it proves.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use campaignd::sandbox::{Behaviour, LINKEDIN_ONE, LINKEDIN_TWO, MAIL_ONE, WHATSAPP_ONE};
use reqwest::Method;
use serde_json::{Value, json};

use crate::sandbox_rig::{Rig, answer, hours, next};

/// What one person sees of a run in which others may come between: every answer, and what they did themselves.
async fn run(seed: u64, others: usize) -> Value {
    let rig = Rig::with(|o| {
        (o.seed, o.people, o.null_ids_share, o.webhook_loss_share) = (seed, Behaviour::lifelike(), 0.5, 0.5);
    })
    .await;
    rig.fault(json!({ "match": { "endpoint": "*", "share": 0.2 }, "effect": "fail_after" })).await;
    let mut seen = Vec::new();
    for n in 0..40 {
        for o in 0..others {
            rig.get(&format!("/api/v1/users/other-{n}-{o}?account_id={LINKEDIN_TWO}")).await;
            rig.whatsapp(&format!("3361{n:03}{o:04}"), "hello").await;
        }
        let (status, profile) = rig.get(&format!("/api/v1/users/person-{n}?account_id={LINKEDIN_ONE}")).await;
        seen.push(json!([status, profile]));
        let invite = json!({ "account_id": LINKEDIN_ONE, "provider_id": profile["provider_id"], "message": "hi" });
        seen.push(json!(rig.post("/api/v1/users/invite", invite).await));
        let mail = json!({ "account_id": MAIL_ONE, "to": [{ "identifier": format!("p{n}@example.com") }], "subject": "s",
            "body": "b", "tracking_options": { "opens": true } });
        seen.push(json!(rig.post("/api/v1/emails", mail).await));
    }
    rig.clock.advance(hours(100));
    let (_, deeds) = rig.get("/sandbox/deeds").await;
    let deeds: Vec<Value> = deeds["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|d| d["place"] != "whatsapp" && !d["identity"].as_str().unwrap().starts_with("other"))
        .map(|d| json!([d["at"], d["kind"], d["identity"], d["about"], d["text"]]))
        .collect();
    let lost = rig.get("/sandbox/webhooks").await.1["lost"].clone();
    assert_eq!(lost, 0, "nobody listens");
    json!([seen, deeds])
}

#[tokio::test]
async fn the_same_seed_and_requests_give_the_same_run_whatever_comes_between() {
    let alone = run(5, 0).await;
    assert_eq!(run(5, 2).await, alone);
    let other = run(6, 0).await;
    assert_ne!(other[0], alone[0]);
    assert!(alone[1].as_array().unwrap().len() > 40, "people did things: {}", alone[1]);
}

/// Who was really invited, and who was told so, when sixty are invited at once and much of it fails.
async fn storm() -> (Vec<String>, Vec<String>) {
    let rig = Rig::new().await;
    rig.fault(json!([
        { "match": { "endpoint": "POST /users/invite", "share": 0.3 }, "effect": "fail_after" },
        { "match": { "endpoint": "POST /users/invite", "share": 0.3 }, "effect": "fail_before" },
    ]))
    .await;
    let one = async |n: u32| {
        let slug = format!("person-{n}-never-accepts");
        let id = rig.provider_id(&slug, LINKEDIN_ONE).await;
        (rig.invite(&id).await.0 == 200).then_some(slug)
    };
    let mut told: Vec<String> = futures_util::future::join_all((0..60).map(one)).await.into_iter().flatten().collect();
    let ledger = rig.ledger().await;
    let mut sent: Vec<String> = ledger["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["recipient_public"].as_str().unwrap().to_owned())
        .collect();
    told.sort();
    sent.sort();
    (sent, told)
}

#[tokio::test]
async fn faults_strike_the_same_people_in_whatever_order_they_are_asked_for() {
    let (sent, told) = storm().await;
    assert_eq!(storm().await, (sent.clone(), told.clone()));
    assert!(told.iter().all(|t| sent.contains(t)), "what was confirmed was sent");
    assert!(told.len() + 5 < sent.len() && sent.len() < 58, "{} of {}", told.len(), sent.len());
}

#[tokio::test]
async fn the_word_of_a_run_changes_the_ids_and_nothing_else() {
    let mut ids = Vec::new();
    for word in ["", "", "again"] {
        let rig = Rig::with(|o| o.run = word.to_owned()).await;
        let id = rig.provider_id("jane-doe", LINKEDIN_ONE).await;
        let (_, started) = rig.whatsapp("33612345678", "hello").await;
        ids.push((id, started["chat_id"].clone(), started["message_id"].clone()));
    }
    assert_eq!(ids[0], ids[1]);
    assert_eq!(ids[0].0, ids[2].0, "people stay who they are");
    assert!(ids[0].1 != ids[2].1 && ids[0].2 != ids[2].2);
}

#[tokio::test]
async fn a_person_does_what_they_are_told_and_what_waits_for_them_follows() {
    let rig = Rig::new().await;
    // Nobody has asked for them yet, and they can be told all the same.
    let (status, person) = rig.patch("/sandbox/people/tess-told", json!({ "accept_after": "never" })).await;
    assert_eq!((status, &person["conduct"]["accept_after"]), (200, &Value::Null));
    let id = rig.provider_id("tess-told", LINKEDIN_ONE).await;
    assert_eq!(rig.invite(&id).await.0, 200);
    rig.clock.advance(hours(100));
    assert_eq!(rig.get("/sandbox/people/tess-told").await.1["links"][0]["state"], "pending");
    // Five days after the invitation: that is twenty hours from now.
    let change = json!({ "accept_after": "5d", "reply_after": "30m", "reply_text": "As I was told", "replies_max": 2 });
    assert_eq!(rig.patch("/sandbox/people/tess-told", change).await.0, 200);
    rig.clock.advance(hours(19));
    assert_eq!(rig.deeds("accept").await.len(), 0);
    rig.clock.advance(hours(1));
    assert_eq!(rig.deeds("accept").await.len(), 1);
    for _ in 0..3 {
        assert_eq!(rig.linkedin(&id, json!({})).await.0, 201);
        rig.clock.advance(hours(1));
    }
    let replies = rig.deeds("reply").await;
    assert_eq!((replies.len(), &replies[0]["text"]), (2, &json!("As I was told")));
    for wrong in [json!({ "accepts": "1h" }), json!({ "reply_after": "soon" }), json!([1])] {
        assert_eq!(rig.patch("/sandbox/people/tess-told", wrong).await.0, 400);
    }
    assert_eq!(rig.get("/sandbox/people/no%20slug").await.0, 404);
}

#[tokio::test]
async fn a_reply_that_is_called_off_does_not_come() {
    let rig = Rig::new().await;
    rig.mail("ray+replies@example.com").await;
    assert_eq!(rig.patch("/sandbox/people/ray+replies@example.com", json!({ "reply_after": null })).await.0, 200);
    rig.clock.advance(hours(20));
    assert_eq!(rig.deeds("reply").await.len(), 0);
    assert_eq!(rig.patch("/sandbox/people/ray+replies@example.com", json!({ "reply_after": "1m" })).await.0, 200);
    rig.clock.advance(hours(1));
    assert_eq!(rig.deeds("reply").await.len(), 1);
}

#[tokio::test]
async fn the_clock_can_be_turned_over_http_and_what_is_due_is_done_by_then() {
    let rig = Rig::new().await;
    let id = rig.provider_id("carl-accepts", LINKEDIN_ONE).await;
    rig.invite(&id).await;
    let (_, before) = rig.get("/sandbox/clock").await;
    let (status, after) = rig.post("/sandbox/clock", json!({ "to_next": true })).await;
    assert_eq!((status, &after["now"]), (200, &before["next_act_at"]));
    assert_eq!(rig.deeds("accept").await.len(), 1);
    let (_, later) = rig.post("/sandbox/clock", json!({ "advance": "3d", "speed": 0 })).await;
    assert_eq!(later["acts_waiting"], 0);
    rig.clock.advance(hours(5));
    assert_eq!(rig.get("/sandbox/clock").await.1["now"], later["now"], "it stands");
    rig.post("/sandbox/clock", json!({ "speed": 2 })).await;
    rig.clock.advance(Duration::from_secs(3600));
    let (_, moved) = rig.post("/sandbox/clock", json!({ "advance": 0, "speed": 0 })).await;
    let hour = |v: &Value| v["now"].as_str().unwrap()[11..13].parse::<u32>().unwrap();
    assert_eq!((hour(&moved) + 24 - hour(&later)) % 24, 2);
    assert_eq!(rig.post("/sandbox/clock", json!({ "speed": -1 })).await.0, 400);
}

#[tokio::test]
async fn rules_of_faults_can_skip_aim_answer_like_a_proxy_and_be_taken_back() {
    let rig = Rig::new().await;
    rig.fault(json!([
        { "match": { "endpoint": "POST /chats", "about": "33612345672" }, "skip": 1, "times": 1, "effect": "gateway_after" },
        { "match": { "endpoint": "POST /emails" }, "effect": "gateway_before", "status": 504 },
    ]))
    .await;
    assert_eq!(rig.whatsapp("33612345671", "aimed at another").await.0, 201);
    assert_eq!(rig.whatsapp("33612345672", "skipped").await.0, 201);
    let body = json!({ "account_id": WHATSAPP_ONE, "attendees_ids": ["33612345672@s.whatsapp.net"], "text": "struck" });
    let struck = rig.ask(Method::POST, "/api/v1/chats").json(&body).send().await.unwrap();
    assert_eq!((struck.status().as_u16(), struck.headers()["content-type"].to_str().unwrap()), (502, "text/html"));
    assert!(struck.text().await.unwrap().starts_with("<html>"));
    assert_eq!(rig.ledger().await["count"], 3, "it happened all the same");
    let body = json!({ "account_id": MAIL_ONE, "to": [{ "identifier": "a@b.example" }], "body": "x" });
    assert_eq!(rig.ask(Method::POST, "/api/v1/emails").json(&body).send().await.unwrap().status(), 504);
    let (_, rules) = rig.get("/sandbox/faults").await;
    assert_eq!((&rules["items"][0]["struck"], &rules["items"][1]["struck"]), (&json!(1), &json!(1)));
    let path = format!("/sandbox/faults/{}", rules["items"][1]["id"]);
    assert_eq!(answer(rig.ask(Method::DELETE, &path)).await.0, 200);
    assert_eq!(rig.post("/api/v1/emails", body).await.0, 201);
    assert_eq!(answer(rig.ask(Method::DELETE, &path)).await.0, 404);
    let (_, calls) = rig.get(&format!("/sandbox/calls?account_id={MAIL_ONE}")).await;
    assert_eq!((&calls["refused"][0]["status"], &calls["refused"][0]["fault"]), (&json!(504), &json!(true)));
    let count = calls["counts"].as_array().unwrap().iter().find(|c| c["endpoint"] == "POST /emails").unwrap();
    assert_eq!(count["outcomes"], json!({ "ok": 1, "fault: gateway": 1 }));
    for wrong in [
        json!({ "match": { "endpoint": "POST /chats", "share": 2 }, "effect": "slow" }),
        json!({ "match": { "endpoint": "POST /chats" }, "effect": "slow", "status": 200 }),
        json!({ "match": { "endpoint": "POST /chats" }, "effect": "slow", "unheard_of": 1 }),
    ] {
        assert_eq!(rig.post("/sandbox/faults", wrong).await.0, 400);
    }
}

#[tokio::test]
async fn the_summary_proves_budgets_doubles_and_contacts_after_an_answer() {
    let rig = Rig::new().await;
    let mut mails = rig.listen("email", json!([]), 0).await;
    for minutes in [0, 30, 59, 60, 200] {
        rig.mail(&format!("m{minutes}@never-replies.example")).await;
        rig.clock.advance(Duration::from_secs(60 * if minutes == 59 { 60 } else { 30 }));
    }
    rig.mail("m0@never-replies.example").await;
    let summary = async || rig.get("/sandbox/ledger/summary").await.1;
    let line = summary().await["accounts"][0].clone();
    assert_eq!((&line["account_id"], &line["kind"], &line["count"]), (&json!(MAIL_ONE), &json!("all"), &json!(6)));
    assert_eq!(
        (&line["max_in_an_hour"], &line["max_in_a_day"], &line["min_gap_s"]),
        (&json!(2), &json!(6), &json!(1800.0))
    );
    let narrow = rig.get("/sandbox/ledger/summary?window=31m").await.1;
    assert_eq!(narrow["accounts"][0]["max_in_window"], 2);
    assert_eq!(rig.get("/sandbox/ledger/summary?window=30m").await.1["accounts"][0]["max_in_window"], 1);
    assert_eq!(summary().await["doubled"]["count"], 1);
    assert_eq!(summary().await["after_answer"]["count"], 0);
    // An answer counts from when its webhook was answered 200.
    rig.act("m30@never-replies.example", "reply").await;
    next(&mut mails).await;
    while rig.deeds("reply").await[0]["acknowledged_at"].is_null() {
        tokio::task::yield_now().await;
    }
    rig.mail("m30@never-replies.example").await;
    assert_eq!(summary().await["after_answer"]["items"][0]["recipient"], "m30@never-replies.example");
    let found = rig.get("/sandbox/ledger?identity=m30@never-replies.example").await.1;
    assert_eq!(found["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn settings_change_those_who_are_met_from_then_on() {
    let rig = Rig::new().await;
    let change = json!({ "people": { "bounce_share": 1, "bounce_max": "10s" }, "null_ids_share": 1 });
    let (status, settings) = rig.patch("/sandbox/settings", change).await;
    assert_eq!((status, &settings["people"]["bounce_max"]), (200, &json!("10s")));
    rig.mail("anybody@example.com").await;
    rig.clock.advance(Duration::from_secs(10));
    assert_eq!(rig.deeds("bounce").await.len(), 1);
    for wrong in [json!({ "null_ids_share": 2 }), json!({ "people": { "unheard_of": 1 } })] {
        assert_eq!(rig.patch("/sandbox/settings", wrong).await.0, 400);
    }
    // An account that is made up is not counted under its name.
    assert_eq!(rig.get("/api/v1/users/me?account_id=made-up").await.0, 404);
    assert_eq!(rig.get("/sandbox/calls").await.1["counts"][0]["account_id"], "");
    let index = rig.get("/sandbox").await.1;
    for path in index["look"].as_array().unwrap() {
        let path = path.as_str().unwrap().replace("{identity}", "anybody@example.com");
        assert_eq!(rig.get(&path).await.0, 200, "{path}");
    }
    let (status, nowhere) = rig.get("/api/v2/accounts").await;
    assert_eq!((status, &nowhere["type"]), (404, &json!("errors/resource_not_found")));
}

#[test]
fn the_command_says_what_is_wrong_with_its_arguments() {
    for (arguments, what) in [
        (["--set", "people.reply_share=2"], "reply_share is a share"),
        (["--set", "people.unheard_of=1"], "unknown field `unheard_of`"),
        (["--set", "webhook_delay_max"], "NAME=VALUE"),
        (["--free", "nobody"], "no such account"),
        (["--accounts", "fax=1"], "linkedin=2"),
        (["--speed", "0"], "between"),
        (["--retry-delays", "1s,soon"], "--retry-delays: a list is expected"),
    ] {
        let run = std::process::Command::new(env!("CARGO_BIN_EXE_campaignd"))
            .args(["sandbox", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(!run.status.success() && said.contains(what), "{arguments:?}: {said}");
    }
}
