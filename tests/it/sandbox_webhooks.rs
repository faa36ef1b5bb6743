//! The sandbox's webhooks: how they are ordered, what becomes of them on their way, and what a disconnection does to them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use campaignd::sandbox::{LINKEDIN_ONE, WHATSAPP_ONE};
use reqwest::Method;
use serde_json::{Value, json};

use crate::sandbox_rig::{Rig, answer, escaped, hours, next};

#[tokio::test]
async fn a_webhook_is_created_as_asked_listed_and_deleted() {
    let rig = Rig::new().await;
    for (body, kind) in [
        (json!({ "source": "messaging" }), "invalid_url"),
        (json!({ "request_url": "http://x.example", "source": "mailing" }), "invalid_parameters"),
        (
            json!({ "request_url": "http://x.example", "source": "users", "events": ["mail_received"] }),
            "invalid_parameters",
        ),
        (json!({ "request_url": "http://x.example", "source": "users", "format": "xml" }), "invalid_parameters"),
        (
            json!({ "request_url": "http://x.example", "source": "users", "headers": [{ "name": "a" }] }),
            "invalid_parameters",
        ),
    ] {
        let (status, answer) = rig.post("/api/v1/webhooks", body).await;
        assert_eq!((status, &answer["type"]), (400, &json!(format!("errors/{kind}"))));
    }
    for (source, events) in [
        ("messaging", json!(["message_received"])),
        ("email", json!(["mail_received"])),
        ("email_tracking", json!(["mail_opened"])),
        ("users", json!(["new_relation"])),
        ("account_status", json!([])),
    ] {
        let body = json!({ "request_url": "http://127.0.0.1:9/x", "source": source, "account_ids": [LINKEDIN_ONE],
            "enabled": 0, "headers": [{ "key": "Unipile-Auth", "value": "s" }] });
        let (status, made) = rig.post("/api/v1/webhooks", body).await;
        assert_eq!(status, 201, "{made}");
        let listed = rig.get("/api/v1/webhooks?limit=1").await.1["items"][0].clone();
        assert_eq!(
            (&listed["id"], &listed["events"], &listed["enabled"]),
            (&made["webhook_id"], &events, &json!(false))
        );
        assert_eq!((&listed["account_ids"][0]["id"], &listed["source"]), (&json!(LINKEDIN_ONE), &Value::Null));
    }
    let (_, first) = rig.get("/api/v1/webhooks?limit=3").await;
    let (_, rest) = rig.get(&format!("/api/v1/webhooks?cursor={}", escaped(&first["cursor"]))).await;
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["cursor"]), (2, &Value::Null));
    let path = format!("/api/v1/webhooks/{}", rest["items"][0]["id"].as_str().unwrap());
    assert_eq!(answer(rig.ask(Method::DELETE, &path)).await, (200, json!({ "object": "WebhookDeleted" })));
    assert_eq!(answer(rig.ask(Method::DELETE, &path)).await.0, 404);
}

#[tokio::test]
async fn a_webhook_tells_the_properties_it_was_asked_for_in_its_format() {
    let rig = Rig::new().await;
    let mut received = rig.listen("messaging", json!([]), 0).await;
    let url = rig.get("/api/v1/webhooks").await.1["items"][0]["request_url"].clone();
    let body = json!({ "request_url": url, "source": "messaging", "format": "form",
        "data": [{ "name": "what", "key": "message" }, { "name": "mine", "key": "is_sender" }] });
    assert_eq!(rig.post("/api/v1/webhooks", body).await.0, 201);
    rig.whatsapp("33612345678", "a & b").await;
    let got = [next(&mut received).await.1, next(&mut received).await.1];
    assert!(got.contains(&json!("mine=true&what=a+%26+b")), "{got:?}");
}

#[tokio::test]
async fn rules_lose_double_and_delay_the_webhooks_they_are_for() {
    let rig = Rig::new().await;
    let mut chats = rig.listen("messaging", json!(["message_received", "message_read"]), 0).await;
    let rules = json!([
        { "source": "messaging", "event": "message_read", "loss_share": 1 },
        { "source": "messaging", "account_id": WHATSAPP_ONE, "duplicate_share": 1, "delay_min": "1h", "delay_max": "1h" },
    ]);
    assert_eq!(rig.post("/sandbox/webhooks", rules).await.0, 200);
    rig.whatsapp("33612345678", "hello").await;
    rig.act("33612345678", "read").await;
    assert!(chats.try_recv().is_err());
    rig.clock.advance(Duration::from_secs(3599));
    assert_eq!(rig.get("/sandbox/webhooks").await.1["pending"], 0);
    rig.clock.advance(Duration::from_secs(1));
    let twice = [next(&mut chats).await.1, next(&mut chats).await.1];
    assert_eq!(twice[0], twice[1]);
    assert_eq!(twice[0]["event"], "message_received");
    assert_eq!(rig.get("/sandbox/webhooks").await.1["lost"], 1);
    assert_eq!(answer(rig.ask(Method::DELETE, "/sandbox/webhooks")).await.0, 200);
    rig.act("33612345678", "reply").await;
    assert_eq!(next(&mut chats).await.1["is_sender"], false);
    assert_eq!(rig.post("/sandbox/webhooks", json!({ "loss_share": 2 })).await.0, 400);
}

#[tokio::test]
async fn webhooks_overtake_each_other_when_they_are_delayed_and_their_share_is_lost() {
    let rig = Rig::with(|o| (o.webhook_loss_share, o.webhook_delay_max) = (0.3, hours(10))).await;
    let mut chats = rig.listen("messaging", json!([]), 0).await;
    for n in 0..60 {
        assert_eq!(rig.whatsapp("33612345678", &format!("{n}")).await.0, 201);
        rig.clock.advance(Duration::from_secs(1));
    }
    rig.clock.advance(hours(10));
    let lost = rig.get("/sandbox/webhooks").await.1["lost"].as_u64().unwrap();
    assert!((8..30).contains(&lost), "{lost}");
    let mut told = Vec::new();
    for _ in lost..60 {
        told.push(next(&mut chats).await.1["message"].as_str().unwrap().parse::<u32>().unwrap());
    }
    assert!(!told.is_sorted(), "{told:?}");
}

#[tokio::test]
async fn news_of_a_disconnection_may_be_lost_but_can_be_read_when_it_is_over() {
    let rig = Rig::with(|o| o.held_loss_share = 1.0).await;
    let mut chats = rig.listen("messaging", json!([]), 0).await;
    let mut status = rig.listen("account_status", json!([]), 0).await;
    rig.whatsapp("33612345678", "hello").await;
    next(&mut chats).await;
    let rule = json!({ "match": { "endpoint": "GET /chats" }, "times": 1, "effect": "disconnect", "back_after": "2h" });
    rig.fault(rule).await;
    let read = format!("/api/v1/chats?account_id={WHATSAPP_ONE}");
    assert_eq!(rig.get(&read).await.1["type"], "errors/disconnected_account");
    assert_eq!(next(&mut status).await.1["AccountStatus"]["message"], "CREDENTIALS");
    let (_, account) = rig.get(&format!("/api/v1/accounts/{WHATSAPP_ONE}")).await;
    assert_eq!(account["sources"][0]["status"], "CREDENTIALS");
    rig.act("33612345678", "reply").await;
    assert_eq!(rig.get("/sandbox/webhooks").await.1["held"], 1);
    rig.clock.advance(hours(2));
    assert_eq!(next(&mut status).await.1["AccountStatus"]["message"], "OK");
    let (code, list) = rig.get(&read).await;
    assert_eq!((code, &list["items"][0]["unread_count"]), (200, &json!(1)));
    assert_eq!(rig.get("/sandbox/webhooks").await.1["lost"], 1);
    assert!(chats.try_recv().is_err());
    // Being put in order when nothing was wrong is told only if the word says more than OK.
    let path = format!("/sandbox/accounts/{WHATSAPP_ONE}");
    for word in ["OK", "SYNC_SUCCESS", "CONNECTING"] {
        assert_eq!(rig.patch(&path, json!({ "status": word })).await.0, 200);
    }
    assert_eq!(next(&mut status).await.1["AccountStatus"]["message"], "SYNC_SUCCESS");
    assert_eq!(next(&mut status).await.1["AccountStatus"]["message"], "CONNECTING");
    assert_eq!(rig.get(&read).await.1["type"], "errors/no_client_session");
    assert_eq!(rig.patch(&path, json!({ "status": "SLEEPY" })).await.0, 400);
}

#[tokio::test]
async fn a_hosted_page_reconnects_an_account_or_makes_one_and_tells_who_asked() {
    let rig = Rig::new().await;
    // Any receiver will do for the notice.
    let mut notices = rig.listen("calendar_event", json!([]), 0).await;
    let url = rig.get("/api/v1/webhooks").await.1["items"][0]["request_url"].clone();
    rig.post("/sandbox/act", json!({ "account_id": WHATSAPP_ONE, "act": "disconnect" })).await;
    let link = |more: Value| {
        let mut body = json!({ "type": "create", "providers": ["LINKEDIN"], "api_url": "http://x", "name": "user-1",
            "expiresOn": "2030-01-01T00:00:00.000Z", "notify_url": url });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rig.post("/api/v1/hosted/accounts/link", body)
    };
    assert_eq!(link(json!({ "expiresOn": "2030-01-01T00:00:00Z" })).await.1["type"], "errors/invalid_parameters");
    assert_eq!(link(json!({ "type": "reconnect", "reconnect_account": "nobody" })).await.0, 404);
    let (status, again) = link(json!({ "type": "reconnect", "reconnect_account": WHATSAPP_ONE })).await;
    assert_eq!((status, &again["object"]), (201, &json!("HostedAuthUrl")));
    let page = again["url"].as_str().unwrap();
    assert!(rig.http.get(page).send().await.unwrap().text().await.unwrap().contains("<button>"));
    let broken = rig.get(&format!("/api/v1/chats?account_id={WHATSAPP_ONE}")).await;
    assert_eq!(broken.0, 401, "looking at the page connects nothing");
    assert_eq!(rig.http.post(page).send().await.unwrap().status(), 200);
    assert_eq!(rig.http.post(page).send().await.unwrap().status(), 410, "a link serves once");
    let expected = json!({ "status": "RECONNECTED", "account_id": WHATSAPP_ONE, "name": "user-1" });
    assert_eq!(next(&mut notices).await.1, expected);
    assert_eq!(rig.get(&format!("/api/v1/chats?account_id={WHATSAPP_ONE}")).await.0, 200);

    for (providers, kind) in
        [(json!("*:MAILING"), "GOOGLE_OAUTH"), (json!(["INSTAGRAM", "WHATSAPP"]), "WHATSAPP"), (json!("*"), "LINKEDIN")]
    {
        let (_, new) = link(json!({ "providers": providers })).await;
        assert_eq!(rig.http.post(new["url"].as_str().unwrap()).send().await.unwrap().status(), 200);
        let made = next(&mut notices).await.1["account_id"].as_str().unwrap().to_owned();
        let made = rig.ask(Method::DELETE, &format!("/api/v1/accounts/{made}"));
        let kinds = rig.get("/api/v1/accounts?limit=1").await.1["items"][0]["type"].clone();
        assert_eq!((kinds, answer(made).await.0), (json!(kind), 200), "{providers}");
    }
    assert_eq!(link(json!({ "providers": ["INSTAGRAM"] })).await.0, 501);
    let (_, new) = link(json!({})).await;
    assert_eq!(rig.http.post(new["url"].as_str().unwrap()).send().await.unwrap().status(), 200);
    let (_, notice) = next(&mut notices).await;
    assert_eq!(notice["status"], "CREATION_SUCCESS");
    let path = format!("/api/v1/accounts/{}", notice["account_id"].as_str().unwrap());
    assert_eq!(rig.get(&path).await.1["type"], "LINKEDIN");
    assert_eq!(answer(rig.ask(Method::DELETE, &path)).await, (200, json!({ "object": "AccountDeleted" })));
    assert_eq!(rig.get(&path).await.0, 404);
    assert_eq!(rig.get("/api/v1/accounts?port=13443").await.1["items"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_webhook_is_tried_until_it_is_answered_200_and_calls_its_json_a_form() {
    let rig = Rig::new().await;
    let mut hooks = rig.listen("messaging", json!(["message_received"]), 3).await;
    let jid = "33612345678@s.whatsapp.net";
    let body = json!({ "account_id": WHATSAPP_ONE, "attendees_ids": [jid], "text": "hello" });
    let (status, started) = rig.post("/api/v1/chats", body).await;
    assert_eq!(status, 201, "{started}");
    let (headers, echo) = next(&mut hooks).await;
    assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(headers["user-agent"], "axios/1.7.7");
    assert_eq!(headers["unipile-auth"], "s3cret");
    assert_eq!((&echo["is_sender"], &echo["webhook_name"]), (&json!(true), &json!("mine")));
    assert_eq!((&echo["chat_id"], &echo["message_id"]), (&started["chat_id"], &started["message_id"]));
    rig.act("33612345678", "reply").await;
    let (_, reply) = next(&mut hooks).await;
    assert_eq!((&reply["is_sender"], &reply["chat_id"]), (&json!(false), &started["chat_id"]));
    assert!(reply["sender"]["attendee_provider_id"].as_str().unwrap().ends_with("@lid"));
    assert_eq!(reply["sender"]["attendee_public_identifier"], jid);
    assert_eq!(rig.get("/sandbox/webhooks").await.1["failed"], 3);
}

#[tokio::test]
async fn a_webhook_that_is_never_answered_200_is_dropped_after_five_retries() {
    let rig = Rig::new().await;
    let mut hooks = rig.listen("messaging", json!([]), 6).await;
    for text in ["lost", "kept"] {
        let body = json!({ "account_id": WHATSAPP_ONE, "attendees_ids": ["33612345678@s.whatsapp.net"], "text": text });
        assert_eq!(rig.post("/api/v1/chats", body).await.0, 201);
        while rig.get("/sandbox/webhooks").await.1["pending"] != 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(next(&mut hooks).await.1["message"], "kept");
    let (_, counters) = rig.get("/sandbox/webhooks").await;
    let read = |name: &str| counters[name].as_u64().unwrap();
    assert_eq!((read("delivered"), read("failed"), read("dropped")), (1, 6, 1));
}

#[tokio::test]
async fn how_often_and_how_late_a_webhook_is_tried_again_can_be_set() {
    let rig = Rig::new().await;
    let (status, settings) = rig.patch("/sandbox/settings", json!({ "webhook_retry_delays": ["1ms", 0.002] })).await;
    assert_eq!((status, &settings["webhook_retry_delays"]), (200, &json!(["1ms", "2ms"])));
    let mut hooks = rig.listen("messaging", json!([]), 3).await;
    for text in ["lost", "kept"] {
        assert_eq!(rig.whatsapp("33612345678", text).await.0, 201);
        while rig.get("/sandbox/webhooks").await.1["pending"] != 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(next(&mut hooks).await.1["message"], "kept");
    let (_, counters) = rig.get("/sandbox/webhooks").await;
    assert_eq!((&counters["failed"], &counters["dropped"]), (&json!(3), &json!(1)));
    assert_eq!(rig.patch("/sandbox/settings", json!({ "webhook_retry_delays": ["soon"] })).await.0, 400);
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_up_no_other() {
    let rig = Rig::with(|o| o.webhook_concurrency = 1).await;
    // Connections to it are made, and nobody ever answers.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", mute.local_addr().unwrap());
    assert_eq!(rig.post("/api/v1/webhooks", json!({ "request_url": url, "source": "messaging" })).await.0, 201);
    let mut hooks = rig.listen("messaging", json!([]), 0).await;
    for text in ["one", "two"] {
        assert_eq!(rig.whatsapp("33612345678", text).await.0, 201);
        assert_eq!(next(&mut hooks).await.1["message"], text);
    }
}

#[tokio::test]
async fn a_disconnected_account_refuses_work_and_tells_its_news_when_it_is_back() {
    let rig = Rig::new().await;
    let mut status = rig.listen("account_status", json!([]), 0).await;
    let mut chats = rig.listen("messaging", json!([]), 0).await;
    let body =
        || json!({ "account_id": WHATSAPP_ONE, "attendees_ids": ["33612345678@s.whatsapp.net"], "text": "hello" });
    assert_eq!(rig.post("/api/v1/chats", body()).await.0, 201);
    next(&mut chats).await;
    rig.fault(json!({ "match": { "endpoint": "POST /chats" }, "times": 1, "effect": "disconnect" })).await;
    for _ in 0..2 {
        assert_eq!(rig.post("/api/v1/chats", body()).await.1["type"], "errors/disconnected_account");
    }
    assert_eq!(next(&mut status).await.1["AccountStatus"]["message"], "CREDENTIALS");
    rig.act("33612345678", "reply").await;
    assert!(chats.try_recv().is_err());
    rig.post("/sandbox/act", json!({ "account_id": WHATSAPP_ONE, "act": "reconnect" })).await;
    assert_eq!(next(&mut status).await.1["AccountStatus"]["message"], "OK");
    assert_eq!(next(&mut chats).await.1["is_sender"], false);
}
