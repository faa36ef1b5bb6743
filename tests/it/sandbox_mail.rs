//! The sandbox's mail: what is let through, what comes back, tracking and the unsubscribe link.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use axum::extract::State;
use axum::http::Method as HttpMethod;
use campaignd::sandbox::MAIL_ONE;
use reqwest::multipart::{Form, Part};
use reqwest::{Method, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::sandbox_rig::{Rig, answer, hours, next};

/// A mail to one address, with more fields.
fn mail(address: &str, more: Value) -> Value {
    let mut body = json!({ "account_id": MAIL_ONE, "to": [{ "identifier": address }], "subject": "Hello",
        "body": "<p>Hi <a href=\"https://shop.example/?a=1&amp;b=2\">look</a></p>" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn opens_and_clicks_are_told_of_mails_that_are_tracked_and_of_no_others() {
    let rig = Rig::new().await;
    let mut hooks = rig.listen("email_tracking", json!(["mail_opened", "mail_link_clicked"]), 0).await;
    let address = "olga+opens+clicks+never-replies@example.com";
    assert_eq!(rig.post("/api/v1/emails", mail(address, json!({}))).await.0, 201);
    let tracking = json!({ "tracking_options": { "opens": true, "links": 1, "label": "send-7" } });
    let (_, sent) = rig.post("/api/v1/emails", mail(address, tracking)).await;
    rig.clock.advance(hours(3));
    let mut got = [next(&mut hooks).await.1, next(&mut hooks).await.1];
    got.sort_by_key(|b| b["event"].as_str().unwrap().to_owned());
    let [click, open] = got;
    assert_eq!((&open["event"], &open["label"]), (&json!("mail_opened"), &json!("send-7")));
    assert!(open.get("url").is_none());
    assert_eq!(
        (&click["event"], &click["url"]),
        (&json!("mail_link_clicked"), &json!("https://shop.example/?a=1&b=2"))
    );
    assert_eq!((&click["tracking_id"], &open["tracking_id"]), (&sent["tracking_id"], &sent["tracking_id"]));
    assert_ne!(click["event_id"], open["event_id"]);
    assert!(hooks.try_recv().is_err());
    let bad = mail(address, json!({ "tracking_options": { "label": 7 } }));
    assert_eq!(rig.post("/api/v1/emails", bad).await.1["type"], "errors/invalid_label");
}

#[tokio::test]
async fn bounces_come_hard_or_soft_and_not_always_in_the_thread() {
    let rig = Rig::new().await;
    let mut mails = rig.listen("email", json!([]), 0).await;
    let sent = rig.mail("sam+soft-bounces@example.com").await;
    rig.clock.advance(hours(1));
    let (_, soft) = next(&mut mails).await;
    assert_eq!(soft["subject"], "Delivery Status Notification (Delay)");
    assert!(soft["body"].as_str().unwrap().contains("4.2.2"));
    assert_eq!(soft["thread_id"], sent["provider_id"]);
    rig.mail("una+bounces+unthreaded@example.com").await;
    rig.clock.advance(hours(1));
    let (_, hard) = next(&mut mails).await;
    assert!(hard["body_plain"].as_str().unwrap().contains("550 5.1.1"));
    assert_eq!((&hard["in_reply_to"], &hard["thread_id"]), (&Value::Null, &hard["provider_id"]));
    let path = format!("/api/v1/emails/{}?include_headers=true", hard["email_id"].as_str().unwrap());
    let headers = rig.get(&path).await.1["headers"].clone();
    let failed = json!({ "name": "X-Failed-Recipients", "value": "una+bounces+unthreaded@example.com" });
    assert!(headers.as_array().unwrap().contains(&failed), "{headers}");
    let kinds: Vec<String> = rig.get("/sandbox/deeds").await.1["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["soft_bounce", "bounce"]);
}

#[tokio::test]
async fn somebody_out_of_office_answers_every_mail_by_machine() {
    let rig = Rig::new().await;
    let mut mails = rig.listen("email", json!([]), 0).await;
    for address in ["abe+out-of-office+never-replies@example.com", "bea+out-of-office+never-replies@example.com"] {
        let sent = rig.mail(address).await;
        rig.clock.advance(hours(1));
        let (_, answer) = next(&mut mails).await;
        let subject = answer["subject"].as_str().unwrap();
        assert!(["Automatic reply: Hello", "Out of office Re: Hello"].contains(&subject), "{subject}");
        assert_eq!(
            (&answer["from_attendee"]["identifier"], &answer["thread_id"]),
            (&json!(address), &sent["provider_id"])
        );
        let path = format!("/api/v1/emails/{}?include_headers=1", answer["email_id"].as_str().unwrap());
        let headers = rig.get(&path).await.1["headers"].clone();
        for (name, value) in [("Auto-Submitted", "auto-replied"), ("X-Autoreply", "yes")] {
            assert!(headers.as_array().unwrap().contains(&json!({ "name": name, "value": value })), "{headers}");
        }
    }
    assert_eq!(rig.get("/sandbox/people").await.1["items"][0]["replied"], false);
}

#[tokio::test]
async fn people_unsubscribe_by_one_click_and_scanners_only_look() {
    let rig = Rig::new().await;
    let (tx, mut seen) = mpsc::unbounded_channel();
    type Seen = mpsc::UnboundedSender<(String, String, String)>;
    let page = |State(tx): State<Seen>, method: HttpMethod, uri: axum::http::Uri, body: String| async move {
        let _ = tx.send((method.to_string(), uri.to_string(), body));
    };
    let app = axum::Router::new().fallback(page).with_state(tx);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let headers = |path: &str, post: bool| {
        let link = format!("<mailto:off@sender.example>, <{url}{path}>");
        let mut list = vec![json!({ "name": "List-Unsubscribe", "value": link })];
        if post {
            list.push(json!({ "name": "List-Unsubscribe-Post", "value": "List-Unsubscribe=One-Click" }));
        }
        json!({ "custom_headers": list })
    };
    let mut wait = async |expected: (&str, &str, &str)| {
        rig.clock.advance(hours(13));
        // The player of the sandbox and the errand are tasks of their own.
        let got = tokio::time::timeout(Duration::from_secs(10), seen.recv()).await.unwrap().unwrap();
        assert_eq!((got.0.as_str(), got.1.as_str(), got.2.as_str()), expected);
    };
    let uma = "uma+unsubscribes+never-scanned@example.com";
    assert_eq!(rig.post("/api/v1/emails", mail(uma, headers("/u/1", true))).await.0, 201);
    wait(("POST", "/u/1", "List-Unsubscribe=One-Click")).await;
    assert_eq!(rig.post("/api/v1/emails", mail("sid+scanned@example.com", headers("/u/2", true))).await.0, 201);
    wait(("GET", "/u/2", "")).await;
    // Without the second header it is a link like any other, and people only get to the page.
    assert_eq!(rig.post("/api/v1/emails", mail("ugo+unsubscribes@example.com", headers("/u/3", false))).await.0, 201);
    wait(("GET", "/u/3", "")).await;
    let answered = async || {
        let deeds = rig.deeds("unsubscribe").await;
        (deeds.len() == 2 && deeds.iter().all(|d| d["status"] == 200)).then_some(deeds)
    };
    let deeds = loop {
        if let Some(deeds) = answered().await {
            break deeds;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((&deeds[0]["text"], &deeds[1]["text"]), (&json!("one-click"), &Value::Null));
    assert!(deeds[0]["acknowledged_at"].is_i64());
    // A mail after the one click, and one after a mere look.
    rig.mail(uma).await;
    rig.mail("ugo+unsubscribes@example.com").await;
    let late = rig.get("/sandbox/ledger/summary").await.1["after_answer"].clone();
    assert_eq!((&late["count"], &late["items"][0]["recipient"]), (&json!(1), &json!(uma)));

    assert_eq!(rig.patch("/sandbox/settings", json!({ "list_unsubscribe": false })).await.0, 200);
    let (status, body) = rig.post("/api/v1/emails", mail("a@b.example", headers("/u", true))).await;
    assert_eq!((status, &body["type"]), (422, &json!("errors/invalid_headers")));
    let other = json!({ "custom_headers": [{ "name": "Unscribe-List", "value": "<https://x.example>" }] });
    assert_eq!(rig.post("/api/v1/emails", mail("a@b.example", other)).await.0, 201);
}

#[tokio::test]
async fn idempotency_keys_live_a_day_or_until_a_restart() {
    let rig = Rig::new().await;
    let send = async |key: &str| {
        let form = Form::new()
            .text("account_id", MAIL_ONE)
            .text("to", r#"[{"identifier":"ida@never-replies.example"}]"#)
            .text("body", "x")
            .text("Idempotency-Key", key.to_owned());
        answer(rig.ask(Method::POST, "/api/v1/emails").multipart(form)).await
    };
    let (_, first) = send("k").await;
    rig.clock.advance(hours(23));
    assert_eq!(send("k").await.1, first);
    // The same request as JSON with the key in a header is the same request.
    let json = json!({ "account_id": MAIL_ONE, "to": "[{\"identifier\":\"ida@never-replies.example\"}]", "body": "x" });
    let again = rig.ask(Method::POST, "/api/v1/emails").header("Idempotency-Key", "k").json(&json);
    assert_eq!(answer(again).await.1, first);
    rig.clock.advance(hours(1));
    let (_, second) = send("k").await;
    assert_ne!(second["tracking_id"], first["tracking_id"]);
    assert_eq!(rig.post("/sandbox/restart", json!({})).await.0, 200);
    assert_ne!(send("k").await.1["tracking_id"], second["tracking_id"]);
    assert_eq!(rig.ledger().await["count"], 3);
    assert_eq!(send(&"k".repeat(256)).await.0, 400);
}

#[tokio::test]
async fn a_mail_that_answers_another_keeps_its_thread_and_its_subject() {
    let rig = Rig::new().await;
    let to = "rita@never-replies.example";
    let (_, first) = rig.post("/api/v1/emails", mail(to, json!({}))).await;
    let parent = first["provider_id"].as_str().unwrap();
    for subject in ["Hello", "Re: Hello", "RE : Hello", "re:Hello"] {
        let (status, body) =
            rig.post("/api/v1/emails", mail(to, json!({ "reply_to": parent, "subject": subject }))).await;
        assert_eq!(status, 201, "{subject}: {body}");
    }
    let (_, list) = rig.get(&format!("/api/v1/emails?account_id={MAIL_ONE}&thread_id={parent}")).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 5);
    assert_eq!(list["items"][0]["in_reply_to"]["id"], list["items"][4]["id"]);
    for (more, kind) in [
        (json!({ "reply_to": parent, "subject": "Something else" }), "invalid_reply_subject"),
        (json!({ "reply_to": "nothing" }), "parent_mail_not_found"),
        (json!({ "from": { "identifier": "boss@sender.example" } }), "send_as_denied"),
        (json!({ "subject": "Hello\r\nBcc: x@y.example" }), "unescaped_characters"),
        (json!({ "custom_headers": [{ "name": "X-A", "value": "1\r\nBcc: x@y" }] }), "invalid_headers"),
    ] {
        assert_eq!(rig.post("/api/v1/emails", mail(to, more)).await.1["type"], format!("errors/{kind}"));
    }
    let rejected = rig.post("/api/v1/emails", mail("rex+rejected@example.com", json!({}))).await;
    assert_eq!((rejected.0, &rejected.1["type"]), (422, &json!("errors/recipient_rejected")));
    let alias = json!({ "aliases": ["boss@sender.example"] });
    assert_eq!(rig.patch(&format!("/sandbox/accounts/{MAIL_ONE}"), alias).await.0, 200);
    let from = json!({ "from": { "identifier": "boss@sender.example" } });
    assert_eq!(rig.post("/api/v1/emails", mail(to, from)).await.0, 201);
}

#[tokio::test]
async fn mails_are_found_by_what_they_say_of_themselves() {
    let rig = Rig::new().await;
    let form = Form::new()
        .text("account_id", MAIL_ONE)
        .text("to", r#"[{"identifier":"pat+replies@example.com"}]"#)
        .text("cc", r#"[{"identifier":"carl@never-replies.example"}]"#)
        .text("subject", "Figures")
        .text("body", "plain <text>")
        .text("custom_headers", r#"[{"name":"Content-Type","value":"text/plain; charset=utf-8"},{"name":"Reply-To","value":"ada+in@sender.example"}]"#)
        .part("attachments", Part::bytes(vec![1, 2, 3]).file_name("a.pdf").mime_str("application/pdf").unwrap());
    let (status, sent) = answer(rig.ask(Method::POST, "/api/v1/emails").multipart(form)).await;
    assert_eq!(status, 201, "{sent}");
    rig.clock.advance(hours(13));
    let find = async |query: &str| {
        let (status, list) = rig.get(&format!("/api/v1/emails?account_id={MAIL_ONE}&{query}")).await;
        assert_eq!(status, 200, "{query}: {list}");
        list["items"].as_array().unwrap().clone()
    };
    let mine = &find("role=sent").await[0];
    assert_eq!((&mine["body_plain"], &mine["has_attachments"]), (&json!("plain <text>"), &json!(true)));
    assert_eq!(mine["reply_to_attendees"][0]["identifier"], "ada+in@sender.example");
    assert_eq!((&mine["attachments"][0]["name"], &mine["attachments"][0]["size"]), (&json!("a.pdf"), &json!(3)));
    for (query, count) in [
        ("folder=INBOX", 1),
        ("exclude_folders=INBOX,SPAM", 1),
        ("any_email=carl@never-replies.example", 1),
        ("any_email=nobody@x.example,PAT%2Breplies@example.com", 2),
        ("from=pat%2Breplies@example.com", 1),
        ("search=figures", 2),
        ("port=13443", 2),
        ("before=2026-09-21T14:00:00.000Z", 0),
    ] {
        assert_eq!(find(query).await.len(), count, "{query}");
    }
    let meta = &find("meta_only=true&role=inbox").await[0];
    assert_eq!((&meta["kind"], &meta["body"]), (&json!("1_meta"), &json!("")));
    for refused in ["search=x&from=a@b.example", "meta_only=true&include_headers=true"] {
        let (status, body) = rig.get(&format!("/api/v1/emails?account_id={MAIL_ONE}&{refused}")).await;
        assert_eq!((status, &body["type"]), (400, &json!("errors/invalid_request")));
    }
    // The provider's id needs the account beside it.
    let provider_id = sent["provider_id"].as_str().unwrap();
    assert_eq!(rig.get(&format!("/api/v1/emails/{provider_id}")).await.0, 404);
    let (_, found) = rig.get(&format!("/api/v1/emails/{provider_id}?account_id={MAIL_ONE}")).await;
    assert_eq!(found["id"], mine["id"]);
    assert_eq!(rig.ledger().await["items"][0]["also"], json!(["carl@never-replies.example"]));
}

#[tokio::test]
async fn a_mail_written_by_hand_is_sent_but_not_by_us() {
    let rig = Rig::new().await;
    let mut mails = rig.listen("email", json!(["mail_sent"]), 0).await;
    let sent = rig.mail("hal@never-replies.example").await;
    assert_eq!(next(&mut mails).await.1["tracking_id"], sent["tracking_id"]);
    rig.act("hal@never-replies.example", "by_hand").await;
    let (headers, told) = next(&mut mails).await;
    assert_eq!(headers[CONTENT_TYPE], "application/x-www-form-urlencoded");
    assert_eq!(
        (&told["origin"], &told["tracking_id"], &told["role"]),
        (&json!("external"), &Value::Null, &json!("sent"))
    );
    assert_eq!(rig.ledger().await["count"], 1);
}
