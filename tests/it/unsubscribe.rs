//! The link in a mail by which a person unsubscribes: from the mail to the list.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use campaignd::domain::account::Channel;
use campaignd::domain::execution::ExitReason;
use campaignd::domain::id::{ExecutionId, ProspectId};
use campaignd::domain::link;
use campaignd::runtime::Links;
use campaignd::store::{execution, link_secret};
use serde_json::json;

use crate::client::{Answer, Api, WORKSPACE};
use crate::fake::{Act, Rig};

const FORM: &str = "application/x-www-form-urlencoded";

/// A prospect, and the token of the link in their mails.
async fn person(api: &Api) -> (String, ExecutionId, String) {
    let campaign = api.campaign().await;
    let id = api.prospect(&campaign).await;
    let prospect: ProspectId = id.parse().unwrap();
    let execution = execution::of_prospect(&api.db.pool, WORKSPACE, prospect).await.unwrap().unwrap();
    let secret = link_secret::unsubscribe(&api.db.pool, api.app.clock.now()).await.unwrap();
    let token = link::token(&secret, execution);
    (id, execution, token)
}

async fn ask(api: &Api, method: &str, token: &str, kind: &str, body: &str) -> Answer {
    let request = Request::builder().method(method).uri(format!("/u/{token}")).header("content-type", kind);
    api.send(request.body(Body::from(body.to_owned())).unwrap()).await
}

async fn ended_by(api: &Api, id: &str) -> Option<String> {
    let shown = api.get(&format!("/v1/prospects/{id}")).await.ok(200);
    shown["execution"]["exit_reason"].as_str().map(str::to_owned)
}

async fn until_ended(api: &Api, id: &str) -> String {
    for _ in 0..2000 {
        if let Some(reason) = ended_by(api, id).await {
            return reason;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not ended in time");
}

#[tokio::test]
async fn nothing_happens_on_get_and_the_button_unsubscribes() {
    let api = Api::new().await;
    let (id, _, token) = person(&api).await;
    for method in ["GET", "HEAD"] {
        let page = ask(&api, method, &token, FORM, "").await;
        assert_eq!(page.status, 200);
        assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
        assert!(page.headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
        assert_eq!(
            (&page.headers["referrer-policy"], &page.headers["cache-control"]),
            (&"no-referrer".parse().unwrap(), &"no-store".parse().unwrap())
        );
        let text = page.body.as_str().unwrap_or_default().to_owned();
        assert!(method == "HEAD" || text.contains("<form method=\"post\">"), "{text}");
        for told in ["<script", "ada", "Ada", "example.com", &id] {
            assert!(!text.contains(told), "{told} in {text}");
        }
    }
    assert_eq!(api.count("SELECT count(*) FROM inbox").await, 0);
    assert_eq!(api.count("SELECT count(*) FROM suppressions").await, 0);
    // A scanner that posts something else.
    assert_eq!(ask(&api, "POST", &token, FORM, "").await.status, 400);
    assert_eq!(ask(&api, "POST", &token, FORM, &"x".repeat(5000)).await.status, 413);
    assert_eq!(api.count("SELECT count(*) FROM suppressions").await, 0);
    ask(&api, "PUT", &token, FORM, "unsubscribe=yes").await.problem(405, "method_not_allowed");
    assert_eq!(ended_by(&api, &id).await, None);

    let done = ask(&api, "POST", &token, FORM, "unsubscribe=yes").await;
    assert_eq!(done.status, 200);
    assert!(done.body.as_str().unwrap().contains("You are unsubscribed"));
    // Durable when it is answered, applied in a moment.
    assert_eq!(api.count("SELECT count(*) FROM suppressions WHERE reason = 'unsubscribed'").await, 2);
    assert_eq!(until_ended(&api, &id).await, "unsubscribed");
}

#[tokio::test]
async fn one_click_of_a_mail_program_unsubscribes_once_however_often_it_comes() {
    let api = Api::new().await;
    let (id, _, token) = person(&api).await;
    let part = "--b\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--b--\r\n";
    for (kind, body) in [
        (FORM, "List-Unsubscribe=One-Click"),
        (FORM, "List-Unsubscribe=One-Click"),
        ("multipart/form-data; boundary=b", part),
    ] {
        assert_eq!(ask(&api, "POST", &token, kind, body).await.status, 200, "{body}");
    }
    assert_eq!(until_ended(&api, &id).await, "unsubscribed");
    assert_eq!(api.count("SELECT count(*) FROM suppressions").await, 2);
    assert!(api.count("SELECT count(*) FROM inbox").await <= 2, "one an hour");
    // Taken off the list and asked again by the same link: on it again.
    api.db.script("DELETE FROM suppressions").await.unwrap();
    assert_eq!(ask(&api, "POST", &token, FORM, "unsubscribe=yes").await.status, 200);
    assert_eq!(api.count("SELECT count(*) FROM suppressions").await, 2);
}

#[tokio::test]
async fn a_link_that_nobody_made_gets_one_answer_and_changes_nothing() {
    let api = Api::new().await;
    let (_, execution, token) = person(&api).await;
    let secret = link_secret::unsubscribe(&api.db.pool, api.app.clock.now()).await.unwrap();
    let gone = link::token(&secret, ExecutionId(uuid::Uuid::from_u128(7)));
    let forged = link::token(&link::LinkSecret::new(vec![0; 32]).unwrap(), execution);
    let mut texts = std::collections::BTreeSet::new();
    for bad in [forged.as_str(), &token[..63], "x", &"0".repeat(64), &gone] {
        let answer = ask(&api, "POST", bad, FORM, "unsubscribe=yes").await;
        assert_eq!(answer.status, 404, "{bad}");
        texts.insert(answer.body.as_str().unwrap().to_owned());
        if bad != gone {
            assert_eq!(ask(&api, "GET", bad, FORM, "").await.status, 404, "{bad}");
        }
    }
    assert_eq!(texts.len(), 1, "nothing can be learnt from the answer");
    assert_eq!(api.count("SELECT count(*) FROM suppressions").await, 0);
    assert_eq!(api.count("SELECT count(*) FROM inbox").await, 0);
    assert_eq!(api.count("SELECT count(*) FROM link_secrets").await, 1);
}

#[tokio::test]
async fn mails_carry_the_persons_link_in_their_text_and_for_their_header() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let flow = json!({"schema_version": 1, "steps": [{"id": "mail", "action": "send_email", "subject": "Hi",
        "message": "Hello {{ name }}, {{ data.role | default('nobody') }}\n\nNo more of this: {{ unsubscribe_url }}"}]});
    let campaign = rig.campaign(&flow).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    rig.fake.script(move |request, _| {
        noted.lock().unwrap().push((request.unsubscribe_url.clone(), request.body.clone()));
        Act::Ok
    });
    let secret = link_secret::unsubscribe(&rig.pool, rig.clock.now()).await.unwrap();
    let links = Links { public_url: "https://go.example".to_owned(), secret: secret.clone() };
    let people = rig.prospects(campaign, 2).await;
    rig.db.script("UPDATE campaign_prospects SET data = '{\"role\": \"countess\"}'").await.unwrap();
    rig.start_with(|o| o.links = Some(links)).await;
    assert!(rig.handle().has_links());
    for person in &people {
        rig.until(*person, "mailed", |e| e.exit_reason == Some(ExitReason::Finished)).await;
    }
    let mut expected: Vec<_> =
        people.iter().map(|p| link::unsubscribe_url(&secret, "https://go.example", *p)).collect();
    let seen = seen.lock().unwrap();
    let mut got: Vec<_> = seen.iter().map(|(url, _)| url.clone().unwrap()).collect();
    expected.sort();
    got.sort();
    assert_eq!(got, expected);
    for (url, body) in seen.iter() {
        assert!(body.as_ref().unwrap().ends_with(url.as_ref().unwrap()), "{body:?}");
        assert!(body.as_ref().unwrap().contains(", countess\n"), "what an upload put into data: {body:?}");
    }
}

#[tokio::test]
async fn a_flow_that_writes_the_link_does_not_start_where_nobody_could_follow_it() {
    let api = Api::new().await;
    let flow = json!({"schema_version": 1, "steps": [{"id": "mail", "action": "send_email", "subject": "Hi",
        "message": "Hello. {{ unsubscribe_url }}"}]});
    let made = api.post("/v1/campaigns", json!({"name": "x", "flow_settings": flow})).await.ok(201);
    let account = json!({"channel": "email", "provider": "unipile", "provider_account_id": "a", "name": "Box"});
    api.post("/v1/accounts", account).await.ok(201);
    let start = format!("/v1/campaigns/{}/start", made["id"].as_str().unwrap());
    api.post(&start, json!({})).await.problem(409, "no_public_url");
}
