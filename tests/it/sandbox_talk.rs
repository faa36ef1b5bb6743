//! The sandbox's chats: hidden numbers, receipts, edits, files, and reading all of it back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use campaignd::sandbox::{LINKEDIN_ONE, WHATSAPP_ONE};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::sandbox_rig::{Rig, answer, hours, next};

#[tokio::test]
async fn a_phone_that_hides_its_number_answers_as_a_lid_only() {
    let rig = Rig::new().await;
    let mut chats = rig.listen("messaging", json!([]), 0).await;
    // Numbers ending in 99990004 are like that, and reply.
    let (status, started) = rig.whatsapp("33699990004", "hello").await;
    assert_eq!(status, 201, "{started}");
    next(&mut chats).await;
    rig.clock.advance(hours(13));
    let (_, reply) = next(&mut chats).await;
    assert_eq!(reply["chat_id"], started["chat_id"]);
    let sender = &reply["sender"];
    let lid = sender["attendee_provider_id"].as_str().unwrap();
    assert!(lid.ends_with("@lid"), "{lid}");
    assert_eq!(
        (&sender["attendee_public_identifier"], &sender["attendee_specifics"]["phone_number"]),
        (&Value::Null, &json!("hidden"))
    );
    assert!(!reply.to_string().contains("33699990004"), "the number is nowhere");
    let (_, chat) = rig.get(&format!("/api/v1/chats/{}", reply["chat_id"].as_str().unwrap())).await;
    assert_eq!((&chat["attendee_provider_id"], &chat["attendee_public_identifier"]), (&json!(lid), &Value::Null));
    let (_, found) = rig.get(&format!("/api/v1/chat_attendees/{lid}/chats?account_id={WHATSAPP_ONE}")).await;
    assert_eq!(found["items"][0]["id"], started["chat_id"]);
    let (_, people) = rig.get(&format!("/api/v1/chat_attendees?account_id={WHATSAPP_ONE}")).await;
    assert_eq!(people["items"][0]["specifics"]["phone_number"], "hidden");
    // The lid is an address, too.
    let body = json!({ "account_id": WHATSAPP_ONE, "attendees_ids": lid, "text": "again" });
    assert_eq!(rig.post("/api/v1/chats", body).await.1["chat_id"], started["chat_id"]);
}

#[tokio::test]
async fn numbers_without_whatsapp_cannot_be_reached() {
    let rig = Rig::new().await;
    assert_eq!(rig.whatsapp("33699990003", "hello").await.1["type"], "errors/invalid_recipient");
    let path = format!("/api/v1/users/33699990003@s.whatsapp.net?account_id={WHATSAPP_ONE}");
    assert_eq!(rig.get(&path).await.0, 404);
    let (_, known) = rig.get(&format!("/api/v1/users/33612345678@s.whatsapp.net?account_id={WHATSAPP_ONE}")).await;
    assert_eq!(known, json!({ "object": "UserProfile", "provider": "WHATSAPP", "id": "33612345678@s.whatsapp.net" }));
    assert_eq!(rig.patch("/sandbox/people/33612345678", json!({ "reachable": false })).await.0, 200);
    assert_eq!(rig.whatsapp("33612345678", "hello").await.0, 422);
    assert_eq!(rig.ledger().await["count"], 0);
}

#[tokio::test]
async fn what_happens_to_messages_is_told_and_can_be_read() {
    let rig = Rig::with(|o| o.people.deliver_share = 1.0).await;
    let events = [
        "message_received",
        "message_delivered",
        "message_read",
        "message_reaction",
        "message_edited",
        "message_deleted",
    ];
    let mut chats = rig.listen("messaging", json!(events), 0).await;
    // Numbers ending in 99990006 read.
    let (_, started) = rig.whatsapp("33699990006", "hello").await;
    assert_eq!(next(&mut chats).await.1["event"], "message_received");
    rig.clock.advance(Duration::from_secs(60));
    let (_, delivered) = next(&mut chats).await;
    assert_eq!((&delivered["event"], &delivered["message_id"]), (&json!("message_delivered"), &started["message_id"]));
    rig.clock.advance(hours(4));
    let (_, read) = next(&mut chats).await;
    assert_eq!((&read["event"], &read["is_sender"]), (&json!("message_read"), &json!(true)));
    let message = async |id: &Value| rig.get(&format!("/api/v1/messages/{}", id.as_str().unwrap())).await.1;
    let ours = message(&started["message_id"]).await;
    assert_eq!((&ours["seen"], &ours["delivered"], &ours["is_sender"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!(ours["seen_by"].as_object().unwrap().len(), 1);

    rig.post("/sandbox/people/33699990006/react", json!({ "text": "🎉" })).await;
    assert_eq!(next(&mut chats).await.1["reaction"], "🎉");
    rig.post("/sandbox/people/33699990006/reply", json!({ "text": "yes" })).await;
    let (_, reply) = next(&mut chats).await;
    rig.post("/sandbox/people/33699990006/edit", json!({ "text": "no" })).await;
    let (_, edited) = next(&mut chats).await;
    assert_eq!((&edited["event"], &edited["message"]), (&json!("message_edited"), &json!("no")));
    assert_eq!(message(&reply["message_id"]).await["edited"], 1);
    rig.act("33699990006", "delete").await;
    assert_eq!(next(&mut chats).await.1["event"], "message_deleted");
    let gone = message(&reply["message_id"]).await;
    assert_eq!((&gone["deleted"], &gone["text"]), (&json!(1), &Value::Null));
    // Twice is once.
    assert_eq!(rig.post("/sandbox/people/33699990006/delete", json!({})).await.0, 409);
}

#[tokio::test]
async fn a_webhook_that_names_no_events_hears_received_messages_only() {
    let rig = Rig::new().await;
    let mut chats = rig.listen("messaging", json!([]), 0).await;
    rig.whatsapp("33612345678", "hello").await;
    rig.act("33612345678", "read").await;
    rig.act("33612345678", "reply").await;
    let heard = [next(&mut chats).await.1, next(&mut chats).await.1];
    assert!(heard.iter().all(|b| b["event"] == "message_received"), "{heard:?}");
}

#[tokio::test]
async fn messages_carry_files_and_quotes_and_refuse_what_makes_no_sense() {
    let rig = Rig::new().await;
    let jid = "33612345678@s.whatsapp.net";
    let file = |name: &str, mime: &str| Part::bytes(vec![7; 10]).file_name(name.to_owned()).mime_str(mime).unwrap();
    let form = Form::new()
        .text("account_id", WHATSAPP_ONE)
        .text("attendees_ids", jid)
        .part("attachments", file("a.png", "image/png"))
        .part("attachments", file("b.txt", "text/plain"))
        .part("voice_message", file("c.ogg", "audio/ogg"));
    let (status, started) = answer(rig.ask(Method::POST, "/api/v1/chats").multipart(form)).await;
    assert_eq!(status, 201, "{started}");
    let chat = started["chat_id"].as_str().unwrap();
    let (_, list) = rig.get(&format!("/api/v1/chats/{chat}/messages")).await;
    let kinds: Vec<&Value> = list["items"][0]["attachments"].as_array().unwrap().iter().map(|a| &a["type"]).collect();
    assert_eq!(
        (kinds, &list["items"][0]["text"]),
        (vec![&json!("img"), &json!("file"), &json!("audio")], &Value::Null)
    );
    let message = &list["items"][0];
    let file = message["attachments"][0]["id"].as_str().unwrap();
    let bytes = rig.get(&format!("/api/v1/messages/{}/attachments/{file}", message["id"].as_str().unwrap())).await;
    assert_eq!((bytes.0, &bytes.1["type"]), (501, &json!("errors/feature_not_implemented")));
    let path = format!("/api/v1/chats/{chat}/messages");
    let send = |more: Value| rig.post(&path, more);
    let quote = json!({ "account_id": WHATSAPP_ONE, "text": "see above", "quote_id": started["message_id"],
        "typing_duration": 1500 });
    let (status, sent) = send(quote).await;
    assert_eq!(status, 201, "{sent}");
    let (_, quoting) = rig.get(&format!("/api/v1/messages/{}", sent["message_id"].as_str().unwrap())).await;
    assert_eq!(quoting["quoted"]["provider_id"], list["items"][0]["provider_id"]);
    for (body, kind) in [
        (json!({ "text": "x", "quote_id": "nothing" }), "invalid_message"),
        (json!({ "text": "x", "typing_duration": "long" }), "invalid_parameters"),
        (json!({}), "missing_parameters"),
        (json!({ "text": "x".repeat(8001) }), "too_many_characters"),
        (json!({ "attachments": "a.png" }), "invalid_parameters"),
    ] {
        assert_eq!(send(body).await.1["type"], format!("errors/{kind}"));
    }
    let group = Form::new().text("account_id", LINKEDIN_ONE).text("text", "x").text("linkedin[api]", "recruiter");
    let group = group.text("attendees_ids", "ACoAAx");
    let (status, body) = answer(rig.ask(Method::POST, "/api/v1/chats").multipart(group)).await;
    assert_eq!((status, &body["type"]), (403, &json!("errors/feature_not_subscribed")));
}

#[tokio::test]
async fn chats_and_messages_are_found_by_time_by_sender_and_by_what_is_unread() {
    let rig = Rig::new().await;
    let (_, one) = rig.whatsapp("33612345671", "to one").await;
    rig.clock.advance(Duration::from_secs(10));
    rig.whatsapp("33612345672", "to two").await;
    rig.act("33612345671", "reply").await;
    let items = async |path: &str| {
        let (status, list) = rig.get(path).await;
        assert_eq!(status, 200, "{path}: {list}");
        list["items"].as_array().unwrap().clone()
    };
    let unread = items(&format!("/api/v1/chats?account_id={WHATSAPP_ONE}&unread=true")).await;
    assert_eq!((unread.len(), &unread[0]["id"], &unread[0]["unread_count"]), (1, &one["chat_id"], &json!(1)));
    assert_eq!(items("/api/v1/chats?account_type=LINKEDIN").await.len(), 0);
    assert_eq!(items("/api/v1/chats?unread=0").await.len(), 1);
    assert_eq!(rig.get("/api/v1/chats?unread=some").await.0, 400);

    let all = items(&format!("/api/v1/messages?account_id={WHATSAPP_ONE},{LINKEDIN_ONE}")).await;
    let texts: Vec<&str> = all.iter().map(|m| m["text"].as_str().unwrap()).collect();
    assert_eq!((texts.len(), texts[1], texts[2]), (3, "to two", "to one"), "newest first");
    let theirs = all[0]["sender_id"].as_str().unwrap();
    assert_eq!(items(&format!("/api/v1/messages?sender_id={theirs}")).await.len(), 1);
    assert_eq!(items("/api/v1/messages?sender_id=33612345671@s.whatsapp.net").await.len(), 1);
    assert_eq!(items(&format!("/api/v1/chat_attendees/{theirs},33612345672@s.whatsapp.net/messages")).await.len(), 1);
    // Both ends are exclusive.
    let at = all[2]["timestamp"].as_str().unwrap();
    assert_eq!(items(&format!("/api/v1/messages?after={at}")).await.len(), 2);
    assert_eq!(items(&format!("/api/v1/messages?before={at}")).await.len(), 0);

    let chat = one["chat_id"].as_str().unwrap();
    let (_, whole) = rig.get(&format!("/api/v1/chats/{chat}")).await;
    assert_eq!(whole["lastMessage"]["id"], all[0]["id"]);
    let thread = whole["provider_id"].as_str().unwrap();
    assert_eq!(rig.get(&format!("/api/v1/chats/{thread}")).await.0, 404, "the provider's id needs the account");
    assert_eq!(rig.get(&format!("/api/v1/chats/{thread}?account_id={WHATSAPP_ONE}")).await.1["id"], whole["id"]);
    let both = items(&format!("/api/v1/chats/{chat}/attendees")).await;
    assert_eq!((&both[0]["is_self"], &both[1]["is_self"]), (&json!(0), &json!(1)));
    let attendee = both[0]["id"].as_str().unwrap();
    assert_eq!(rig.get(&format!("/api/v1/chat_attendees/{attendee}")).await.1["provider_id"], theirs);
    assert_eq!(rig.get("/api/v1/messages/nothing").await.0, 404);
}
