//! The sandbox's shapes, as strict clients want them, and what correct clients send.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use campaignd::sandbox::{LINKEDIN_ONE, MAIL_ONE, WHATSAPP_ONE};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::sandbox_rig::{Rig, answer};

/// The fields of an object that are not there at all.
fn absent(object: &Value, names: &[&str]) -> bool {
    object.is_object() && names.iter().all(|name| object.get(name).is_none())
}

#[tokio::test]
async fn what_a_client_leaves_out_it_may_also_send_as_null_or_empty() {
    let rig = Rig::new().await;
    let jid = "33612345678@s.whatsapp.net";
    let nothing = json!({ "account_id": WHATSAPP_ONE, "attendees_ids": [jid], "text": "hello", "subject": null,
        "attachments": null, "voice_message": null, "video_message": "", "linkedin": null });
    let (status, started) = rig.post("/api/v1/chats", nothing).await;
    assert_eq!(status, 201, "{started}");
    let nothing = json!({ "account_id": null, "text": "again", "quote_id": null, "typing_duration": null,
        "attachments": [], "thread_id": null });
    let path = format!("/api/v1/chats/{}/messages", started["chat_id"].as_str().unwrap());
    let (status, sent) = rig.post(&path, nothing).await;
    assert_eq!(status, 201, "{sent}");
    let form = Form::new().text("text", "more").text("typing_duration", "").text("attachments", "");
    assert_eq!(answer(rig.ask(Method::POST, &path).multipart(form)).await.0, 201);
    let (status, empty) = rig.post(&path, json!({ "text": "", "attachments": [] })).await;
    assert_eq!((status, &empty["type"]), (400, &json!("errors/missing_parameters")));
    let (_, message) = rig.get(&format!("/api/v1/messages/{}", sent["message_id"].as_str().unwrap())).await;
    assert_eq!((&message["attachments"], &message["quoted"]), (&json!([]), &Value::Null));
    assert!(message.get("quoted").is_some() && message.get("reply_to").is_some());
    let nothing = json!({ "account_id": MAIL_ONE, "to": [{ "identifier": "a@b.example" }], "body": "x", "cc": null,
        "attachments": null, "tracking_options": null, "reply_to": null });
    assert_eq!(rig.post("/api/v1/emails", nothing).await.0, 201);
}

#[tokio::test]
async fn linkedin_keeps_each_id_of_an_answer_back_by_itself() {
    let rig = Rig::with(|o| o.null_ids_share = 0.5).await;
    let jane = rig.related("jane-never-replies").await;
    let mut seen = Vec::new();
    for _ in 0..30 {
        let (_, started) = rig.linkedin(&jane, json!({})).await;
        seen.push((started["chat_id"].is_null(), started["message_id"].is_null()));
    }
    for hidden in [(false, false), (false, true), (true, false), (true, true)] {
        assert!(seen.contains(&hidden), "{hidden:?} of {seen:?}");
    }
    let (_, chats) = rig.get(&format!("/api/v1/chat_attendees/{jane}/chats?account_id={LINKEDIN_ONE}")).await;
    let path = format!("/api/v1/chats/{}/messages", chats["items"][0]["id"].as_str().unwrap());
    let mut seen = Vec::new();
    for _ in 0..30 {
        let (status, sent) = rig.post(&path, json!({ "account_id": LINKEDIN_ONE, "text": "more" })).await;
        assert_eq!((status, &sent["object"]), (201, &json!("MessageSent")));
        seen.push(sent["message_id"].is_null());
    }
    assert!(seen.contains(&true) && seen.contains(&false), "{seen:?}");
    assert_eq!(rig.ledger().await["count"], 61, "each was sent, with the invitation");
    assert!(rig.whatsapp("33612345678", "hello").await.1["message_id"].is_string());
}

#[tokio::test]
async fn an_id_on_linkedin_is_somebodys_once_they_were_looked_up() {
    let before = Rig::new().await.provider_id("jane-doe", LINKEDIN_ONE).await;
    // The provider starts anew: it is asked for her again, and she is who she was.
    let rig = Rig::new().await;
    assert_eq!(rig.invite(&before).await.1["type"], "errors/invalid_recipient");
    assert_eq!(rig.provider_id("jane-doe", LINKEDIN_ONE).await, before);
    assert_eq!(rig.invite(&before).await.0, 200);
}

#[tokio::test]
async fn the_own_profile_is_that_of_its_kind_of_account() {
    let rig = Rig::new().await;
    let me = async |account: &str| rig.get(&format!("/api/v1/users/me?account_id={account}")).await.1;
    let ada = me(LINKEDIN_ONE).await;
    for text in ["provider_id", "entity_urn", "object_urn", "first_name", "last_name", "email", "public_profile_url"] {
        assert!(ada[text].is_string(), "{text} of {ada}");
    }
    assert_eq!((&ada["object"], &ada["provider"]), (&json!("AccountOwnerProfile"), &json!("LINKEDIN")));
    assert_eq!(ada.get("profile_picture_url"), Some(&Value::Null));
    let mailbox = me(MAIL_ONE).await;
    assert_eq!((&mailbox["object"], &mailbox["provider"]), (&json!("AccountOwnerProfile"), &json!("GMAIL")));
    assert_eq!((&mailbox["email"], &mailbox["aliases"][0]["email"]), (&json!("ada@sender.example"), &mailbox["email"]));
}

#[tokio::test]
async fn attendees_on_linkedin_have_an_urn_and_nobody_is_at_a_distance_to_oneself() {
    let rig = Rig::new().await;
    let jane = rig.related("jane-never-replies").await;
    let (_, started) = rig.linkedin(&jane, json!({})).await;
    let path = format!("/api/v1/chats/{}", started["chat_id"].as_str().unwrap());
    let both = rig.get(&format!("{path}/attendees")).await.1["items"].clone();
    let (them, own) = (&both[0]["specifics"], &both[1]["specifics"]);
    assert!([them, own].iter().all(|s| s["member_urn"].as_str().unwrap().starts_with("urn:li:member:")));
    assert_eq!(them["network_distance"], "DISTANCE_1");
    assert!(absent(own, &["network_distance", "occupation"]), "{own}");
    assert!(absent(&both[1], &["picture_url", "profile_url"]) && both[0]["profile_url"].is_string(), "{both}");
    let (_, chat) = rig.get(&path).await;
    assert!(absent(&chat, &["subject", "content_type"]), "{chat}");
    let (_, relations) = rig.get(&format!("/api/v1/users/relations?account_id={LINKEDIN_ONE}")).await;
    assert!(absent(&relations["items"][0], &["profile_picture_url"]), "{relations}");
    let (_, problem) = rig.get("/api/v1/messages/nothing").await;
    assert!(absent(&problem, &["instance"]), "{problem}");
}

#[tokio::test]
async fn mails_on_rest_show_their_files_as_mail_does_and_leave_out_what_they_have_not() {
    let rig = Rig::new().await;
    let form = Form::new()
        .text("account_id", MAIL_ONE)
        .text("to", r#"[{"identifier":"jane@never-replies.example"}]"#)
        .text("body", "x")
        .part("attachments", Part::bytes(vec![7; 10]).file_name("a.b.pdf").mime_str("application/pdf").unwrap());
    assert_eq!(answer(rig.ask(Method::POST, "/api/v1/emails").multipart(form)).await.0, 201);
    rig.act("jane@never-replies.example", "reply").await;
    let (_, list) = rig.get(&format!("/api/v1/emails?account_id={MAIL_ONE}")).await;
    let (reply, ours) = (&list["items"][0], &list["items"][1]);
    let file = &ours["attachments"][0];
    assert_eq!(
        [&file["name"], &file["size"], &file["extension"], &file["mime"]],
        [&json!("a.b.pdf"), &json!(10), &json!("pdf"), &json!("application/pdf")]
    );
    assert!(absent(ours, &["in_reply_to"]) && ours["tracking_id"].is_string(), "{ours}");
    assert!(absent(reply, &["tracking_id"]) && reply["in_reply_to"].is_object(), "{reply}");
}

#[tokio::test]
async fn a_webhook_that_nobody_triggers_by_hand_is_listed_as_such() {
    let rig = Rig::new().await;
    let body = json!({ "request_url": "http://127.0.0.1:9/x", "source": "messaging" });
    assert_eq!(rig.post("/api/v1/webhooks", body).await.0, 201);
    let listed = rig.get("/api/v1/webhooks").await.1["items"][0].clone();
    assert!(listed["type"] == "AUTO" && absent(&listed, &["trigger"]), "{listed}");
}
