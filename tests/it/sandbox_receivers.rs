//! Whom the sandbox's mails reach: everybody they name, answers where they are asked for, and a key that serves once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use campaignd::sandbox::{MAIL_ONE, options};
use reqwest::Method;
use serde_json::{Value, json};

use crate::sandbox_rig::{Rig, answer, hours, next};

/// A mail with more fields.
async fn send(rig: &Rig, more: Value) -> (u16, Value) {
    let mut body = json!({ "account_id": MAIL_ONE, "subject": "Hello", "body": "x" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    rig.post("/api/v1/emails", body).await
}

fn to(address: &str) -> Value {
    json!([{ "identifier": address }])
}

#[tokio::test]
async fn everybody_a_mail_names_does_something_about_it() {
    let rig = Rig::new().await;
    let (ann, bob, cy) = ("ann@never-replies.example", "Bob+replies@example.com", "cy+bounces@example.com");
    let all = json!({ "to": [{ "identifier": ann }, { "identifier": bob }], "cc": to(cy), "bcc": to(ann) });
    assert_eq!(send(&rig, all).await.0, 201);
    rig.clock.advance(hours(13));
    let who = async |kind: &str| {
        let deeds = rig.deeds(kind).await;
        deeds.iter().map(|d| d["identity"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((who("reply").await, who("bounce").await), (vec![bob.to_lowercase()], vec![cy.to_owned()]));
    // A second one to one of them is a second contact of theirs.
    let entry = rig.ledger().await["items"][0].clone();
    assert_eq!((&entry["recipient"], &entry["also"]), (&json!(ann), &json!([bob.to_lowercase(), cy])));
    assert_eq!(send(&rig, json!({ "to": to(bob) })).await.0, 201);
    let summary = rig.get("/sandbox/ledger/summary").await.1;
    assert_eq!(
        summary["doubled"],
        json!({ "count": 1, "items": [
        { "kind": "email", "recipient": bob.to_lowercase(), "seqs": [1, 2] }] })
    );
    assert_eq!(
        rig.get(&format!("/sandbox/ledger?identity={}", cy.replace('+', "%2B"))).await.1["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    // What the owner writes by hand goes to the person, wherever the mail had named them.
    let mut mails = rig.listen("email", json!(["mail_sent"]), 0).await;
    rig.act(cy, "by_hand").await;
    let (_, told) = next(&mut mails).await;
    assert_eq!((&told["to_attendees"][0]["identifier"], &told["to_attendees"][1]), (&json!(cy), &Value::Null));
    let (status, refused) = send(&rig, json!({ "to": to(ann), "cc": to("rex+rejected@example.com") })).await;
    assert_eq!((status, &refused["type"]), (422, &json!("errors/recipient_rejected")));
}

#[tokio::test]
async fn a_contact_after_an_answer_is_seen_whatever_place_the_mail_gives_the_person() {
    let rig = Rig::new().await;
    let mut mails = rig.listen("email", json!([]), 0).await;
    rig.mail("bob@never-replies.example").await;
    rig.act("bob@never-replies.example", "reply").await;
    next(&mut mails).await;
    while rig.deeds("reply").await[0]["acknowledged_at"].is_null() {
        tokio::task::yield_now().await;
    }
    let copied = json!({ "to": to("ann@never-replies.example"), "bcc": to("bob@never-replies.example") });
    assert_eq!(send(&rig, copied).await.0, 201);
    let late = rig.get("/sandbox/ledger/summary").await.1["after_answer"].clone();
    assert_eq!(late, json!({ "count": 1, "items": [{ "seq": 2, "recipient": "bob@never-replies.example" }] }));
}

#[tokio::test]
async fn people_answer_where_they_are_asked_to() {
    let rig = Rig::with(|o| o.accounts = options::accounts(0, 2, 0)).await;
    let other = options::accounts(0, 2, 0).swap_remove(1);
    let mut mails = rig.listen("email", json!([]), 0).await;
    let other_named = format!("Other <{}>", other.identity);
    for (n, (reply_to, account)) in [
        ("ada+in@sender.example", Some(MAIL_ONE)),
        (other_named.as_str(), Some(other.id.as_str())),
        ("desk@elsewhere.example", None),
    ]
    .into_iter()
    .enumerate()
    {
        let person = format!("p{n}@never-replies.example");
        let headers = json!([{ "name": "Reply-To", "value": reply_to }]);
        assert_eq!(send(&rig, json!({ "to": to(&person), "custom_headers": headers })).await.0, 201);
        rig.act(&person, "reply").await;
        let Some(account) = account else { continue };
        let (_, told) = next(&mut mails).await;
        let address = reply_to.trim_start_matches("Other <").trim_end_matches('>');
        assert_eq!((&told["account_id"], &told["to_attendees"][0]["identifier"]), (&json!(account), &json!(address)));
        let (_, inbox) = rig.get(&format!("/api/v1/emails?account_id={account}&from={person}")).await;
        assert_eq!(inbox["items"].as_array().unwrap().len(), 1);
    }
    // The last one answered, too, but nowhere that we could see.
    assert_eq!(rig.deeds("reply").await.len(), 3);
    while rig.get("/sandbox/webhooks").await.1["pending"] != 0 {
        tokio::task::yield_now().await;
    }
    assert!(mails.try_recv().is_err());
    // Machines answer whom the mail came from.
    let headers = json!([{ "name": "Reply-To", "value": "desk@elsewhere.example" }]);
    send(&rig, json!({ "to": to("cy+bounces@example.com"), "custom_headers": headers })).await;
    rig.act("cy+bounces@example.com", "bounce").await;
    assert_eq!(next(&mut mails).await.1["from_attendee"]["identifier"], "mailer-daemon@googlemail.com");
}

#[tokio::test]
async fn an_answer_to_an_answer_may_add_another_re_or_none() {
    let rig = Rig::new().await;
    let mut parent = rig.mail("rita@never-replies.example").await;
    for (subject, status) in
        [("Re: Hello", 201), ("Re: Re: Hello", 201), ("Re: Re: Hello", 201), ("Re: Re: Hello!", 422), ("Re: Bye", 422)]
    {
        let more = json!({ "to": to("rita@never-replies.example"), "subject": subject,
            "reply_to": parent["provider_id"] });
        let (got, body) = send(&rig, more).await;
        assert_eq!(got, status, "{subject}: {body}");
        if got == 201 {
            parent = body;
        }
    }
}

#[tokio::test]
async fn an_idempotency_key_is_the_tenants_not_an_accounts() {
    let rig = Rig::with(|o| o.accounts = options::accounts(0, 2, 0)).await;
    let mut answers = Vec::new();
    for account in options::accounts(0, 2, 0) {
        let body = json!({ "account_id": account.id, "to": to("ida@never-replies.example"), "body": "x" });
        let request = rig.ask(Method::POST, "/api/v1/emails").header("Idempotency-Key", "k").json(&body);
        answers.push(answer(request).await);
    }
    assert_eq!((answers[0].0, answers[1].0), (201, 409));
    assert_eq!(answers[1].1["type"], "errors/resource_already_used");
}
