//! What the sandbox draws follows from the seed and from what it is about: not from the word of a run, and not from where
//! somebody listens.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use campaignd::sandbox::{LINKEDIN_ONE, MAIL_ONE};
use reqwest::Method;
use serde_json::{Value, json};

use crate::sandbox_rig::{Inbox, Rig, hours};

/// What arrived, in words that are the same in every run.
fn heard(inbox: &mut Inbox) -> Vec<String> {
    let mut all = Vec::new();
    while let Ok((_, body)) = inbox.try_recv() {
        all.push(format!("{} {} {} {}", body["event"], body["message"], body["subject"], body["to_attendees"]));
    }
    all.sort();
    all
}

/// Everything that was drawn in a run with this word.
async fn run(word: &str) -> Value {
    let rig = Rig::with(|o| {
        word.clone_into(&mut o.run);
        (o.null_ids_share, o.webhook_loss_share, o.webhook_duplicate_share) = (0.5, 0.4, 0.4);
        o.held_loss_share = 0.5;
    })
    .await;
    // Another port each time, and another order.
    let first = if word.is_empty() { None } else { Some(rig.listen("email", json!(["mail_sent"]), 0).await) };
    let mut chats = rig.listen("messaging", json!([]), 0).await;
    let mut mails = match first {
        Some(mails) => mails,
        None => rig.listen("email", json!(["mail_sent"]), 0).await,
    };
    let reads = json!({ "endpoint": "GET /chats/{chat_id}/messages", "share": 0.5 });
    let one = json!({ "endpoint": "GET /messages/{message_id}", "share": 0.5 });
    let gone = json!({ "endpoint": "DELETE /users/invite/sent/{invitation_id}", "share": 0.5 });
    rig.fault(json!([
        { "match": reads, "effect": "rate_limit" },
        { "match": one, "effect": "rate_limit" },
        { "match": gone, "effect": "rate_limit" },
    ]))
    .await;
    let mut seen = Vec::new();
    for n in 0..20 {
        let (_, sent) = rig.whatsapp(&format!("336123456{n:02}"), &format!("hello {n}")).await;
        let [chat, message] = [&sent["chat_id"], &sent["message_id"]].map(|id| id.as_str().unwrap());
        for path in [format!("chats/{chat}/messages"), format!("messages/{message}")] {
            seen.push(json!(rig.get(&format!("/api/v1/{path}")).await.0));
        }
        rig.mail(&format!("p{n}@never-replies.example")).await;
        let person = rig.provider_id(&format!("person-{n}-never-accepts"), LINKEDIN_ONE).await;
        let id = rig.invite(&person).await.1["invitation_id"].as_str().unwrap().to_owned();
        for _ in 0..2 {
            let path = format!("/api/v1/users/invite/sent/{id}?account_id={LINKEDIN_ONE}");
            seen.push(json!(rig.ask(Method::DELETE, &path).send().await.unwrap().status().as_u16()));
        }
    }
    let jane = rig.related("jane-never-replies").await;
    for n in 0..20 {
        let (_, told) = rig.linkedin(&jane, json!({ "text": format!("to Jane {n}") })).await;
        seen.push(json!([told["chat_id"].is_null(), told["message_id"].is_null()]));
    }
    // Some of what is held is lost.
    let account = format!("/sandbox/accounts/{MAIL_ONE}");
    assert_eq!(rig.patch(&account, json!({ "status": "CREDENTIALS" })).await.0, 200);
    for n in 0..10 {
        rig.act(&format!("p{n}@never-replies.example"), "by_hand").await;
    }
    assert_eq!(rig.patch(&account, json!({ "status": "OK" })).await.0, 200);
    rig.clock.advance(hours(1));
    while rig.get("/sandbox/webhooks").await.1["pending"] != 0 {
        tokio::task::yield_now().await;
    }
    json!({ "seen": seen, "chats": heard(&mut chats), "mails": heard(&mut mails) })
}

#[tokio::test]
async fn a_run_with_another_word_and_receivers_elsewhere_loses_and_breaks_the_same() {
    let one = run("").await;
    let again = run("again").await;
    for part in ["seen", "chats", "mails"] {
        assert_eq!(one[part], again[part], "{part}");
    }
    let all = one["seen"].as_array().unwrap();
    for drawn in [json!(200), json!(429), json!([true, false]), json!([false, true])] {
        assert!(all.contains(&drawn), "{drawn} of {all:?}");
    }
    let heard = one["chats"].as_array().unwrap().len();
    assert!((15..55).contains(&heard), "{heard} of forty, lost and doubled");
}
