//! Reading the sandbox's chats back: one's own messages, what is not connected any more, and what is not there yet.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use campaignd::sandbox::{LINKEDIN_ONE, MAIL_ONE, WHATSAPP_ONE};
use reqwest::Method;
use serde_json::{Value, json};

use crate::sandbox_rig::{Rig, escaped};

/// The texts of a list, oldest first.
async fn texts(rig: &Rig, path: &str) -> Vec<String> {
    let (status, list) = rig.get(&format!("/api/v1/{path}")).await;
    assert_eq!(status, 200, "{path}: {list}");
    let items = list["items"].as_array().unwrap().iter().rev();
    items.map(|m| m["text"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn what_an_account_wrote_itself_is_found_by_its_own_attendee() {
    let rig = Rig::new().await;
    let (_, started) = rig.whatsapp("33612345671", "to one").await;
    rig.whatsapp("33612345672", "to two").await;
    rig.post("/sandbox/people/33612345671/reply", json!({ "text": "from one" })).await;
    rig.related("jane-never-replies").await;
    let chat = started["chat_id"].as_str().unwrap();
    let both = rig.get(&format!("/api/v1/chats/{chat}/attendees")).await.1["items"].clone();
    let me = both[1]["id"].as_str().unwrap();
    let (_, own) = rig.get(&format!("/api/v1/chat_attendees/{me}")).await;
    assert_eq!((&own["is_self"], &own["provider_id"]), (&json!(1), &json!("33600000001@s.whatsapp.net")));
    for id in [me, "33600000001@s.whatsapp.net"] {
        assert_eq!(texts(&rig, &format!("chat_attendees/{id}/messages")).await, ["to one", "to two"]);
        let (_, chats) = rig.get(&format!("/api/v1/chat_attendees/{id}/chats")).await;
        assert_eq!(chats["items"].as_array().unwrap().len(), 2);
    }
    let list = format!("chat_attendees/33612345671@s.whatsapp.net,{me}/messages?account_id={WHATSAPP_ONE}");
    assert_eq!(texts(&rig, &list).await, ["to one", "to two", "from one"]);
    // Another account's own attendee is nobody here.
    let ada = rig.get(&format!("/api/v1/users/me?account_id={LINKEDIN_ONE}")).await.1["provider_id"].clone();
    assert!(texts(&rig, &format!("chat_attendees/{}/messages", ada.as_str().unwrap())).await.is_empty());
}

#[tokio::test]
async fn nothing_of_an_account_is_read_while_it_is_disconnected_or_when_it_is_gone() {
    let rig = Rig::new().await;
    let (_, started) = rig.whatsapp("33612345671", "hello").await;
    rig.mail("jane@never-replies.example").await;
    let mail = rig.get(&format!("/api/v1/emails?account_id={MAIL_ONE}")).await.1["items"][0]["id"].clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (chat, message) = (text(&started["chat_id"]), text(&started["message_id"]));
    let attendee = text(&rig.get(&format!("/api/v1/chats/{chat}/attendees")).await.1["items"][0]["id"]);
    let paths = [
        format!("chats/{chat}"),
        format!("chats/{chat}/messages"),
        format!("chats/{chat}/attendees"),
        format!("messages/{message}"),
        format!("chat_attendees/{attendee}"),
        format!("emails/{}", text(&mail)),
    ];
    let everything = ["chats", "messages", "chat_attendees", "chat_attendees/33612345671@s.whatsapp.net/messages"];
    for account in [WHATSAPP_ONE, MAIL_ONE] {
        assert_eq!(rig.patch(&format!("/sandbox/accounts/{account}"), json!({ "status": "CREDENTIALS" })).await.0, 200);
    }
    for path in &paths {
        let (status, body) = rig.get(&format!("/api/v1/{path}")).await;
        assert_eq!((status, &body["type"]), (401, &json!("errors/disconnected_account")), "{path}");
    }
    for path in everything {
        assert!(texts(&rig, path).await.is_empty(), "{path}");
    }
    let send = json!({ "text": "again" });
    assert_eq!(rig.post(&format!("/api/v1/chats/{chat}/messages"), send).await.0, 401);
    for account in [WHATSAPP_ONE, MAIL_ONE] {
        let gone = rig.ask(Method::DELETE, &format!("/api/v1/accounts/{account}"));
        assert_eq!(gone.send().await.unwrap().status(), 200);
    }
    for path in &paths {
        assert_eq!(rig.get(&format!("/api/v1/{path}")).await.0, 404, "{path}");
    }
    for path in everything {
        assert!(texts(&rig, path).await.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn what_was_said_on_linkedin_can_be_read_only_some_time_later_if_so_set() {
    let rig = Rig::with(|o| o.read_lag_max = Duration::from_secs(100)).await;
    let jane = rig.related("jane-never-replies").await;
    let (_, started) = rig.linkedin(&jane, json!({ "text": "hello Jane" })).await;
    let (chat, message) = (started["chat_id"].as_str().unwrap(), started["message_id"].as_str().unwrap());
    let lists = [
        format!("chats/{chat}/messages"),
        format!("messages?account_id={LINKEDIN_ONE}"),
        format!("chats?account_id={LINKEDIN_ONE}"),
        format!("chat_attendees?account_id={LINKEDIN_ONE}"),
        format!("chat_attendees/{jane}/chats?account_id={LINKEDIN_ONE}"),
    ];
    let own = format!("/api/v1/messages/{message}");
    for path in &lists {
        assert!(texts(&rig, path).await.is_empty(), "{path}");
    }
    assert_eq!(rig.get(&own).await.0, 404);
    assert_eq!(rig.get(&format!("/api/v1/chats/{chat}")).await.1["lastMessage"], Value::Null);
    assert_eq!(rig.ledger().await["items"][1]["text"], "hello Jane", "it was sent all the same");
    rig.clock.advance(Duration::from_secs(100));
    for path in &lists {
        assert_eq!(texts(&rig, path).await.len(), 1, "{path}");
    }
    assert_eq!(rig.get(&own).await.0, 200);
    rig.whatsapp("33612345671", "hello").await;
    assert_eq!(texts(&rig, &format!("messages?account_id={WHATSAPP_ONE}")).await, ["hello"]);
    assert_eq!(rig.patch("/sandbox/settings", json!({ "read_lag_max": 0 })).await.0, 200);
    rig.linkedin(&jane, json!({ "text": "again" })).await;
    assert_eq!(texts(&rig, &lists[0]).await, ["hello Jane", "again"]);
}

#[tokio::test]
async fn a_cursor_is_base64_and_leads_on_whatever_its_length() {
    let rig = Rig::new().await;
    for n in 0..9 {
        rig.whatsapp("33612345671", &n.to_string()).await;
    }
    for pad in ["", "x", "xx"] {
        let mut path = format!("/api/v1/messages?limit=2&account_id={WHATSAPP_ONE}&unheard_of={pad}");
        let mut read = Vec::new();
        loop {
            let (_, page) = rig.get(&path).await;
            read.extend(page["items"].as_array().unwrap().iter().map(|m| m["text"].as_str().unwrap().to_owned()));
            let Some(cursor) = page["cursor"].as_str() else { break };
            let digits = cursor.trim_end_matches('=');
            assert!(cursor.len().is_multiple_of(4) && cursor.len() - digits.len() <= 2, "{cursor}");
            assert!(digits.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/'), "{cursor}");
            path = format!("/api/v1/messages?cursor={}", escaped(&page["cursor"]));
        }
        assert_eq!(read.concat(), "876543210");
    }
}
