//! The sandbox over real HTTP: what the wire says, what the ledger proves, what people do.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use campaignd::sandbox::{self, LINKEDIN_ONE, LINKEDIN_TWO, MAIL_ONE, Options};
use reqwest::Method;
use reqwest::multipart::Form;
use serde_json::{Value, json};

use crate::sandbox_rig::{Rig, answer, escaped, hours, next};

#[tokio::test]
async fn a_wrong_key_is_refused_in_the_providers_words() {
    let rig = Rig::new().await;
    let url = format!("http://{}/api/v1/accounts", rig.server.addr());
    let response = rig.http.get(url).header("X-API-KEY", "wrong").send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("application/json"));
    let body: Value = response.json().await.unwrap();
    assert_eq!(
        (&body["type"], &body["status"], body["title"].is_string()),
        (&json!("errors/missing_credentials"), &json!(401), true)
    );
    rig.server.stop().await;
}

#[tokio::test]
async fn a_second_invitation_is_refused_and_the_first_can_be_read_back_in_three_places() {
    let rig = Rig::new().await;
    let jane = rig.provider_id("jane-never-accepts", LINKEDIN_ONE).await;
    let (status, first) = rig.invite(&jane).await;
    assert_eq!((status, &first["object"]), (200, &json!("UserInvitationSent")));
    let (status, second) = rig.invite(&jane).await;
    assert_eq!((status, &second["type"]), (422, &json!("errors/already_invited_recently")));
    let (_, profile) = rig.get(&format!("/api/v1/users/{jane}?account_id={LINKEDIN_ONE}")).await;
    assert_eq!(profile["invitation"], json!({ "type": "SENT", "status": "PENDING" }));
    // The other account has sent her nothing.
    let (_, profile) = rig.get(&format!("/api/v1/users/{jane}?account_id={LINKEDIN_TWO}")).await;
    assert!(profile.get("invitation").is_none());
    let (_, sent) = rig.get(&format!("/api/v1/users/invite/sent?account_id={LINKEDIN_ONE}")).await;
    assert_eq!(sent["items"][0]["id"], first["invitation_id"]);
    let ledger = rig.ledger().await;
    assert_eq!((&ledger["count"], &ledger["overlapping"]), (&json!(1), &json!(0)));
    assert_eq!(ledger["items"][0]["recipient_public"], "jane-never-accepts");
    let id = first["invitation_id"].as_str().unwrap();
    let gone = rig.ask(Method::DELETE, &format!("/api/v1/users/invite/sent/{id}?account_id={LINKEDIN_ONE}"));
    assert_eq!(answer(gone).await.1["object"], "InvitationCanceled");
    assert_eq!(rig.invite(&jane).await.1["type"], "errors/already_invited_recently");
}

#[tokio::test]
async fn invitations_that_cannot_be_sent_are_refused_with_their_type() {
    let rig = Rig::new().await;
    let jane = rig.provider_id("jane-doe", LINKEDIN_ONE).await;
    let long = json!({ "account_id": LINKEDIN_ONE, "provider_id": jane, "message": "x".repeat(301) });
    let cases = [
        (long, 400, "errors/too_many_characters"),
        (json!({ "account_id": LINKEDIN_ONE, "provider_id": "ACoAAnobody" }), 422, "errors/invalid_recipient"),
        (json!({ "account_id": LINKEDIN_ONE, "provider_id": "jane-doe" }), 422, "errors/invalid_recipient"),
        (json!({ "account_id": MAIL_ONE, "provider_id": jane }), 422, "errors/invalid_account"),
        (json!({ "account_id": "nope", "provider_id": jane }), 404, "errors/resource_not_found"),
        (json!({ "provider_id": jane }), 400, "errors/missing_parameters"),
    ];
    for (body, status, kind) in cases {
        let (got, answer) = rig.post("/api/v1/users/invite", body).await;
        assert_eq!((got, &answer["type"]), (status, &json!(kind)));
    }
    for nobody in ["missing-person", "ACoAAofAnotherTime", "no_slug"] {
        assert_eq!(rig.get(&format!("/api/v1/users/{nobody}?account_id={LINKEDIN_ONE}")).await.0, 404, "{nobody}");
    }
    assert_eq!(rig.get(&format!("/api/v1/users/jos%C3%A9-m?account_id={LINKEDIN_ONE}")).await.0, 200);
    assert_eq!(rig.ledger().await["count"], 0);
}

#[tokio::test]
async fn a_chat_is_started_by_multipart_with_repeated_and_bracketed_fields() {
    let rig = Rig::new().await;
    let jane = rig.provider_id("jane-always-accepts", LINKEDIN_ONE).await;
    let form =
        || Form::new().text("account_id", LINKEDIN_ONE).text("attendees_ids", jane.clone()).text("text", "hello");
    let send = |form| answer(rig.ask(Method::POST, "/api/v1/chats").multipart(form));
    let (status, refused) = send(form()).await;
    assert_eq!((status, &refused["type"]), (422, &json!("errors/no_connection_with_recipient")));
    let (status, inmail) = send(form().text("linkedin[api]", "classic").text("linkedin[inmail]", "true")).await;
    assert_eq!((status, &inmail["object"]), (201, &json!("ChatStarted")));
    // Two recipients are a group, which is told apart from one.
    assert_eq!(send(form().text("attendees_ids", "ACoAAother")).await.0, 501);
    rig.invite(&jane).await;
    rig.act("jane-always-accepts", "accept").await;
    let (status, started) = send(form()).await;
    assert_eq!((status, &started["chat_id"]), (201, &inmail["chat_id"]), "one person, one chat");
    let chat = started["chat_id"].as_str().unwrap();
    let more = Form::new().text("account_id", LINKEDIN_ONE).text("text", "again");
    let (status, sent) = answer(rig.ask(Method::POST, &format!("/api/v1/chats/{chat}/messages")).multipart(more)).await;
    assert_eq!((status, &sent["object"]), (201, &json!("MessageSent")));
    // The guard: another account's chat is not found.
    let guard = json!({ "account_id": LINKEDIN_TWO, "text": "x" });
    assert_eq!(rig.post(&format!("/api/v1/chats/{chat}/messages"), guard).await.0, 404);
    let (_, found) = rig.get(&format!("/api/v1/chat_attendees/{jane}/chats?account_id={LINKEDIN_ONE}")).await;
    assert_eq!(found["items"][0]["id"], started["chat_id"]);
    let (_, list) = rig.get(&format!("/api/v1/chats/{chat}/messages?limit=2")).await;
    assert_eq!((&list["items"][0]["text"], &list["items"][0]["is_sender"]), (&json!("again"), &json!(1)));
    let rest = escaped(&list["cursor"]);
    let (_, list) = rig.get(&format!("/api/v1/chats/{chat}/messages?cursor={rest}")).await;
    assert_eq!((list["items"].as_array().unwrap().len(), &list["cursor"]), (1, &Value::Null));
}

#[tokio::test]
async fn a_mail_with_the_same_key_is_sent_once_and_another_with_that_key_is_a_conflict() {
    let rig = Rig::new().await;
    let form = |body: &str| {
        Form::new()
            .text("account_id", MAIL_ONE)
            .text("to", r#"[{"identifier":"jane@never-replies.example","display_name":"Jane"}]"#)
            .text("subject", "Hello")
            .text("body", body.to_owned())
            .text("custom_headers", r#"[{"name":"X-Campaignd-Send","value":"send-1"}]"#)
            .text("tracking_options", r#"{"label":"send-1"}"#)
    };
    let send = |body: &str| {
        answer(rig.ask(Method::POST, "/api/v1/emails").header("Idempotency-Key", "send-1").multipart(form(body)))
    };
    let (status, first) = send("<p>Hi</p>").await;
    assert_eq!((status, &first["object"]), (201, &json!("EmailSent")));
    assert_eq!(send("<p>Hi</p>").await, (201, first.clone()));
    let (status, conflict) = send("<p>Other</p>").await;
    assert_eq!((status, &conflict["type"]), (409, &json!("errors/resource_already_used")));
    let ledger = rig.ledger().await;
    assert_eq!(ledger["count"], 1);
    let entry = &ledger["items"][0];
    assert_eq!((&entry["idempotency_key"], &entry["tracking_label"]), (&json!("send-1"), &json!("send-1")));
    assert_eq!(entry["headers"], json!([["X-Campaignd-Send", "send-1"]]));
    let query = "to=JANE@never-replies.example&include_headers=true&role=sent&after=2026-01-01T00:00:00.000Z";
    let (_, found) = rig.get(&format!("/api/v1/emails?account_id={MAIL_ONE}&{query}")).await;
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    assert_eq!(found["items"][0]["provider_id"], first["provider_id"]);
    let headers = found["items"][0]["headers"].as_array().unwrap();
    assert!(headers.contains(&json!({ "name": "X-Campaignd-Send", "value": "send-1" })));
    let bad = json!({ "account_id": MAIL_ONE, "to": [{ "identifier": "a@b.example" }], "body": "x",
        "custom_headers": [{ "name": "Message-ID", "value": "<x>" }] });
    assert_eq!(rig.post("/api/v1/emails", bad).await.1["type"], "errors/invalid_headers");
}

#[tokio::test]
async fn a_request_that_fails_after_its_effect_is_in_the_ledger_and_one_before_is_not() {
    let rig = Rig::new().await;
    let target = json!({ "endpoint": "POST /users/invite", "account_id": LINKEDIN_ONE });
    for (slug, effect, happened) in [
        ("anna-one", "fail_before", 0),
        ("anna-two", "fail_after", 1),
        ("anna-three", "reset_before", 1),
        ("anna-four", "reset_after", 2),
        ("anna-five", "truncate", 3),
        ("anna-six", "rate_limit", 3),
        ("anna-seven", "slow", 4),
    ] {
        let id = rig.provider_id(slug, LINKEDIN_ONE).await;
        rig.fault(json!([{ "match": target, "times": 1, "effect": effect, "delay_ms": 1 }])).await;
        let body = json!({ "account_id": LINKEDIN_ONE, "provider_id": id });
        let sent = rig.ask(Method::POST, "/api/v1/users/invite").json(&body).send().await;
        match effect {
            "reset_before" | "reset_after" => assert!(sent.is_err(), "{effect}"),
            "truncate" => assert!(sent.unwrap().bytes().await.is_err()),
            "fail_before" => assert_eq!(sent.unwrap().status(), 500),
            "fail_after" => assert_eq!(sent.unwrap().status(), 504),
            "rate_limit" => assert_eq!(sent.unwrap().status(), 429),
            _ => assert_eq!(sent.unwrap().status(), 200),
        }
        assert_eq!(rig.ledger().await["count"], happened, "{effect}");
    }
}

#[tokio::test]
async fn dates_without_milliseconds_are_refused() {
    let rig = Rig::new().await;
    let (status, body) = rig.get(&format!("/api/v1/emails?account_id={MAIL_ONE}&after=2026-11-23T12:00:00Z")).await;
    assert_eq!((status, &body["type"]), (400, &json!("errors/invalid_parameters")));
    let (status, _) = rig.get(&format!("/api/v1/emails?account_id={MAIL_ONE}&after=2026-11-23T12:00:00.000Z")).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn somebody_who_accepts_a_noted_invitation_is_told_of_by_both_webhooks() {
    let rig = Rig::new().await;
    let mut chats = rig.listen("messaging", json!(["message_received"]), 0).await;
    let mut relations = rig.listen("users", json!(["new_relation"]), 0).await;
    let id = rig.provider_id("tom-always-accepts", LINKEDIN_ONE).await;
    let body = json!({ "account_id": LINKEDIN_ONE, "provider_id": id, "message": "our note" });
    assert_eq!(rig.post("/api/v1/users/invite", body).await.0, 200);
    rig.clock.advance(hours(61));
    let (_, note) = next(&mut chats).await;
    assert_eq!((&note["message"], &note["is_sender"]), (&json!("our note"), &json!(true)));
    let (_, relation) = next(&mut relations).await;
    assert_eq!((&relation["user_provider_id"], &relation["event"]), (&json!(id), &json!("new_relation")));
    let (_, profile) = rig.get(&format!("/api/v1/users/{id}?account_id={LINKEDIN_ONE}")).await;
    assert_eq!((&profile["is_relationship"], &profile["network_distance"]), (&json!(true), &json!("FIRST_DEGREE")));
    let (_, list) = rig.get(&format!("/api/v1/users/relations?account_id={LINKEDIN_ONE}")).await;
    assert_eq!(list["items"][0]["member_id"], json!(id));
    let (_, sent) = rig.get(&format!("/api/v1/users/invite/sent?account_id={LINKEDIN_ONE}")).await;
    assert_eq!(sent["items"], json!([]));
    assert_eq!(rig.invite(&id).await.1["type"], "errors/already_connected");
}

#[tokio::test]
async fn mail_comes_back_from_those_who_reply_and_those_who_bounce() {
    let rig = Rig::new().await;
    let mut mails = rig.listen("email", json!(["mail_received"]), 0).await;
    for address in ["jane+replies@example.com", "tom+bounces@example.com"] {
        let body =
            json!({ "account_id": MAIL_ONE, "to": [{ "identifier": address }], "subject": "Hello", "body": "x" });
        assert_eq!(rig.post("/api/v1/emails", body).await.0, 201);
    }
    let ledger = rig.ledger().await;
    rig.clock.advance(hours(13));
    let mut got = [next(&mut mails).await.1, next(&mut mails).await.1];
    got.sort_by_key(|m| m["subject"].as_str().unwrap().to_owned());
    let [bounce, reply] = got;
    assert_eq!(bounce["from_attendee"]["identifier"], "mailer-daemon@googlemail.com");
    assert_eq!(bounce["in_reply_to"]["message_id"], ledger["items"][1]["message_id"]);
    let text = bounce["body"].as_str().unwrap();
    assert!(text.contains("tom+bounces@example.com") && text.contains("550 5.1.1"), "{text}");
    assert_eq!((&reply["subject"], &reply["role"]), (&json!("Re: Hello"), &json!("inbox")));
    assert_eq!(reply["in_reply_to"]["message_id"], ledger["items"][0]["message_id"]);
}

#[tokio::test]
async fn an_address_in_use_is_named_with_what_to_do() {
    let rig = Rig::new().await;
    let opts = Options { listen: rig.server.addr(), ..Options::default() };
    let error = sandbox::start(opts).await.unwrap_err().to_string();
    assert!(error.contains(&rig.server.addr().to_string()) && error.contains("--listen"), "{error}");
}

#[tokio::test]
async fn a_stopped_sandbox_gives_its_address_back() {
    let rig = Rig::new().await;
    assert_eq!(rig.get("/sandbox/clock").await.0, 200);
    let addr = rig.server.addr();
    rig.server.stop().await;
    let again = sandbox::start(Options { listen: addr, ..Options::default() }).await.unwrap();
    again.stop().await;
}

#[tokio::test]
async fn a_message_whose_ids_are_withheld_can_be_found_by_its_attendee() {
    let rig = Rig::with(|o| (o.null_ids_share, o.webhook_duplicate_share) = (1.0, 1.0)).await;
    let mut hooks = rig.listen("messaging", json!([]), 0).await;
    let jane = rig.provider_id("jane-always-accepts", LINKEDIN_ONE).await;
    rig.invite(&jane).await;
    rig.act("jane-always-accepts", "accept").await;
    let body = json!({ "account_id": LINKEDIN_ONE, "attendees_ids": [jane], "text": "hello" });
    let (status, started) = rig.post("/api/v1/chats", body).await;
    assert_eq!((status, started), (201, json!({ "object": "ChatStarted", "chat_id": null, "message_id": null })));
    let (_, chats) = rig.get(&format!("/api/v1/chat_attendees/{jane}/chats?account_id={LINKEDIN_ONE}")).await;
    let entry = &rig.ledger().await["items"][1];
    assert_eq!((&chats["items"][0]["id"], &entry["kind"]), (&entry["chat_id"], &json!("message")));
    let (one, two) = (next(&mut hooks).await.1, next(&mut hooks).await.1);
    assert_eq!((&one["message_id"], &one), (&entry["message_id"], &two), "told twice, the same");
}

#[tokio::test]
async fn the_day_has_so_many_invitations_and_its_landings_are_told() {
    let rig = Rig::with(|o| o.invites_per_day = Some(4)).await;
    let mut usage = Vec::new();
    for n in 0..5 {
        let id = rig.provider_id(&format!("person-{n}"), LINKEDIN_ONE).await;
        let (status, body) = rig.invite(&id).await;
        usage.push((status, body["usage"].as_u64()));
    }
    assert_eq!(usage, [(200, None), (200, Some(50)), (200, Some(75)), (200, Some(95)), (422, None)]);
    rig.clock.advance(hours(24));
    let id = rig.provider_id("person-4", LINKEDIN_ONE).await;
    assert_eq!(rig.invite(&id).await.0, 200);
}

#[tokio::test]
async fn orders_that_make_no_sense_are_explained() {
    let rig = Rig::new().await;
    let rule = json!({ "match": { "endpoint": "POST /messages/send" }, "effect": "slow" });
    assert_eq!(rig.post("/sandbox/faults", rule).await.0, 400);
    let rule = json!({ "match": { "endpoint": "POST /chats" }, "effect": "explode" });
    assert_eq!(rig.post("/sandbox/faults", rule).await.0, 400);
    assert_eq!(rig.post("/sandbox/act", json!({ "identity": "nobody-yet", "act": "reply" })).await.0, 404);
    assert_eq!(rig.post("/api/v1/messages/send", json!({})).await.1["type"], "errors/resource_not_found");
    let upload = rig.ask(Method::POST, "/api/v1/chats").header("content-type", "text/plain").body("x");
    assert_eq!(answer(upload).await.1["type"], "errors/unsupported_media_type");
}
