//! What lost webhooks would have said, read from lists: the requests, and that each body is read as its webhook's would be.

use std::time::Duration;

use serde_json::{Value, json};

use super::server::{Server, client, error, golden, raw};
use crate::domain::account::Channel;
use crate::domain::time::Timestamp;
use crate::provider::unipile::webhook::{Event, MailKind, parse};
use crate::provider::{Missed, Page, Provider, Relation, Standing};

/// 2026-07-06T09:02:00.002Z
const SINCE: Timestamp = Timestamp::from_micros(1_783_328_520_002_345);

fn page(items: Value, cursor: Option<&str>) -> (u16, Value) {
    (200, json!({"object": "List", "items": items, "cursor": cursor}))
}

#[tokio::test]
async fn connections_come_page_by_page_with_the_id_that_was_invited() {
    let (server, unipile) = Server::start(|_, request| {
        let next = request["query"].as_array().unwrap().iter().any(|q| q[0] == "cursor");
        let item = json!({"object": "UserRelation", "member_id": "ACoAAAjane", "created_at": 1_783_328_520_002_i64,
            "public_identifier": "jane-doe", "member_urn": "urn:li:fsd_profile:ACoAAAjane"});
        if next { page(json!([{"member_id": null}]), Some("c2")) } else { page(json!([item]), Some("c2")) }
    })
    .await;
    let lists = unipile.lists().unwrap();
    let first = lists.relations("acc-1", None).await.unwrap();
    let jane = Relation {
        recipient_id: "ACoAAAjane".into(),
        public_identifier: Some("jane-doe".into()),
        since: Some(Timestamp::from_micros(1_783_328_520_002_000)),
    };
    assert_eq!(first, Page { items: vec![jane], next: Some("c2".into()) });
    // Somebody without an id cannot be told apart, and a cursor that leads to itself leads nowhere.
    let last = lists.relations("acc-1", Some("c2")).await.unwrap();
    assert_eq!(last, Page { items: Vec::new(), next: None });
    golden("request_relations", &json!(server.seen()));
}

fn message(id: &str, change: Value) -> Value {
    let mut message = json!({"object": "Message", "id": id, "chat_id": "chat-1", "text": "Hello", "is_sender": 0,
        "sender_id": "ACoAAAjane", "timestamp": "2026-07-06T09:43:27.002Z", "message_type": "MESSAGE", "deleted": 0});
    for (key, value) in change.as_object().unwrap() {
        message[key] = value.clone();
    }
    message
}

fn chat(kind: u8) -> Value {
    json!({"object": "Chat", "id": "chat-1", "type": kind, "attendee_provider_id": "ACoAAAjane",
        "attendee_public_identifier": null})
}

#[tokio::test]
async fn a_message_of_a_list_is_the_fact_that_its_webhook_would_have_been() {
    let (server, unipile) = Server::start(|call, _| match call {
        "GET /api/v1/messages" => page(
            json!([
                message("m1", json!({})),
                message("m2", json!({"is_sender": 1, "sender_id": "ACoAAAown"})),
                message("m3", json!({"deleted": 1})),
                message("m4", json!({"is_event": 1})),
                message("m5", json!({"chat_id": null})),
            ]),
            None,
        ),
        "GET /api/v1/chats/chat-1" => (200, chat(0)),
        other => panic!("{other}"),
    })
    .await;
    let lists = unipile.lists().unwrap();
    let found = lists.missed(Channel::Linkedin, "acc-1", SINCE, None).await.unwrap();
    let keys: Vec<&str> = found.items.iter().map(|m| m.key.as_str()).collect();
    assert_eq!(keys, ["message_received:m1", "message_received:m2"]);
    let mut read = Vec::new();
    for missed in &found.items {
        let body = lists.complete("acc-1", missed).await.unwrap().unwrap();
        let parsed = parse(&body, SINCE);
        assert_eq!(parsed.dedupe_key, missed.key, "completing it does not change which fact it is");
        let Event::MessageReceived { from_us, is_group, sender, others, chat_id, channel, .. } = parsed.event else {
            panic!()
        };
        assert_eq!((is_group, chat_id.as_deref(), channel), (false, Some("chat-1"), Some(Channel::Linkedin)));
        read.push((from_us, sender.id.unwrap(), others.into_iter().filter_map(|p| p.id).collect::<Vec<_>>()));
    }
    let jane = || "ACoAAAjane".to_owned();
    assert_eq!(read, [(false, jane(), vec![]), (true, "ACoAAAown".to_owned(), vec![jane()])]);
    golden("request_missed_messages", &json!(server.seen()));
}

#[tokio::test]
async fn what_a_group_says_is_marked_and_a_chat_that_is_gone_says_nothing() {
    let missed = |key: &str| Missed {
        key: key.into(),
        body: b"{\"event\":\"message_received\"}".to_vec(),
        chat: Some("chat-1".into()),
    };
    let (_, unipile) = Server::start(|_, _| (200, chat(1))).await;
    let body = unipile.lists().unwrap().complete("acc-1", &missed("k")).await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["is_group"], true);
    let (_, unipile) = Server::start(|_, _| error(404, "resource_not_found")).await;
    assert_eq!(unipile.lists().unwrap().complete("acc-1", &missed("k")).await.unwrap(), None);
    let (_, unipile) = Server::start(|_, _| error(500, "unexpected_error")).await;
    assert!(unipile.lists().unwrap().complete("acc-1", &missed("k")).await.is_err(), "not known is not gone");
}

#[tokio::test]
async fn a_whatsapp_message_under_a_lid_is_completed_with_the_number() {
    let (_, unipile) = Server::start(|call, _| match call {
        "GET /api/v1/messages" => page(json!([message("m1", json!({"sender_id": "140111@lid"}))]), None),
        _ => (
            200,
            json!({"id": "chat-1", "type": 0, "attendee_provider_id": "140111@lid",
            "attendee_public_identifier": "33612345678@s.whatsapp.net"}),
        ),
    })
    .await;
    let lists = unipile.lists().unwrap();
    let found = lists.missed(Channel::Whatsapp, "wa-acc", SINCE, None).await.unwrap();
    let body = lists.complete("wa-acc", &found.items[0]).await.unwrap().unwrap();
    let Event::MessageReceived { sender, channel, .. } = parse(&body, SINCE).event else { panic!() };
    assert_eq!((sender.lid.as_deref(), channel), (Some("140111@lid"), Some(Channel::Whatsapp)));
    assert_eq!(sender.public.as_deref(), Some("33612345678@s.whatsapp.net"));
}

#[tokio::test]
async fn mails_of_a_list_are_received_or_sent_and_drafts_are_neither() {
    let mail = |id: &str, role: &str| {
        json!({"object": "Email", "id": id, "role": role, "subject": "Re: A question", "origin": "external",
            "from_attendee": {"identifier": "jane@acme.test"}, "in_reply_to": {"message_id": "<sent-1@us.test>"}})
    };
    let items =
        json!([mail("e1", "inbox"), mail("e2", "sent"), mail("e3", "drafts"), mail("e4", "trash"), mail("e5", "spam")]);
    let (server, unipile) = Server::start(move |_, _| page(items.clone(), None)).await;
    let lists = unipile.lists().unwrap();
    let found = lists.missed(Channel::Email, "mail-acc", SINCE, None).await.unwrap();
    let keys: Vec<&str> = found.items.iter().map(|m| m.key.as_str()).collect();
    assert_eq!(keys, ["mail_received:e1", "mail_sent:e2", "mail_received:e5"]);
    let body = lists.complete("mail-acc", &found.items[0]).await.unwrap().unwrap();
    let Event::MailReceived { account, kind, in_reply_to_message_id, .. } = parse(&body, SINCE).event else { panic!() };
    assert_eq!((account.as_str(), kind), ("mail-acc", MailKind::Reply));
    assert_eq!(in_reply_to_message_id.as_deref(), Some("<sent-1@us.test>"));
    golden("request_missed_mails", &json!(server.seen()));
}

#[tokio::test]
async fn a_message_that_was_cut_in_an_emoji_hides_none_of_its_page() {
    let body = br#"{"items":[{"id":"m1","chat_id":"c","text":"cut \ud83d"},{"id":"m2","chat_id":"c"}]}"#;
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}", body.len(), String::from_utf8_lossy(body));
    let base = raw(Some(answer.leak().as_bytes())).await;
    let unipile = client(&base, Duration::from_secs(30));
    let found = unipile.lists().unwrap().missed(Channel::Linkedin, "acc-1", SINCE, None).await.unwrap();
    let keys: Vec<&str> = found.items.iter().map(|m| m.key.as_str()).collect();
    assert_eq!(keys, ["message_received:m1", "message_received:m2"]);
}

#[tokio::test]
async fn an_account_stands_as_the_part_that_messages_go_through() {
    for (status, body, expected) in [
        (200, json!({"id": "acc-1", "sources": [{"status": "OK"}]}), Standing::Well),
        (200, json!({"id": "acc-1", "sources": [{"status": "OK"}, {"status": "Connecting"}]}), Standing::Well),
        (200, json!({"id": "acc-1"}), Standing::Well),
        (
            200,
            json!({"sources": [{"status": "OK"}, {"status": "CREDENTIALS"}]}),
            Standing::Broken("CREDENTIALS".into()),
        ),
        (200, json!({"sources": [{"status": "PERMISSIONS"}]}), Standing::Broken("PERMISSIONS".into())),
        // A word that nobody knows yet is no reason to stop reading.
        (200, json!({"sources": [{"id": "acc_MESSAGING", "status": "SYNCING"}]}), Standing::Well),
        (
            200,
            json!({"sources": [{"id": "a_b_MAILS", "status": "OK"}, {"id": "a_b_CALENDAR", "status": "STOPPED"}]}),
            Standing::Well,
        ),
        (
            200,
            json!({"sources": [{"id": "a_CALENDAR", "status": "OK"}, {"id": "a_MAILS", "status": "ERROR"}]}),
            Standing::Broken("ERROR".into()),
        ),
        (404, json!({"type": "errors/resource_not_found"}), Standing::Broken("DELETED".into())),
    ] {
        let (_, unipile) = Server::start(move |_, _| (status, body.clone())).await;
        assert_eq!(unipile.lists().unwrap().standing("acc-1").await.unwrap(), expected);
    }
    for status in [401, 404, 500, 502] {
        let (_, unipile) = Server::start(move |_, _| (status, json!("a proxy's page"))).await;
        assert!(unipile.lists().unwrap().standing("acc-1").await.is_err(), "{status} says nothing about the account");
    }
}
