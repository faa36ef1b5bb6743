//! Accounts and webhook registration.

use serde_json::{Value, json};

use super::server::{Server, error, golden};
use crate::domain::account::Channel;
use crate::provider::Secret;
use crate::telemetry::trace::{self, Context};

const URL: &str = "https://us.test/v1/hooks/unipile/abc";

#[tokio::test]
async fn missing_webhooks_are_created_with_the_secret_and_the_content_type() {
    let (server, unipile) = Server::start(|call, _| match call {
        "GET /api/v1/webhooks" => {
            (200, json!({"items": [{"id": "w", "request_url": "https://else.test"}], "cursor": null}))
        }
        _ => (201, json!({"object": "WebhookCreated", "webhook_id": "w1"})),
    })
    .await;
    assert_eq!(unipile.ensure_webhooks(URL, &Secret::new("s3cret")).await.unwrap(), 5);
    golden("request_webhooks", &json!(server.seen()));
}

#[tokio::test]
async fn a_call_that_is_traced_says_so_to_the_provider_and_no_other_does() {
    let (server, unipile) = Server::start(|_, _| (200, json!({"items": [], "cursor": null}))).await;
    let traced = Context::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap().context;
    unipile.accounts().await.unwrap();
    trace::scope(Some(traced), unipile.accounts()).await.unwrap();
    assert_eq!(server.traces(), [None, Some(traced.to_string())]);
}

/// A registered webhook.
fn hook(id: &str, name: &str, events: &[&str], secret: &str) -> Value {
    json!({"id": id, "request_url": URL, "enabled": true, "events": events, "name": name,
        "headers": [{"key": "unipile-auth", "value": secret}]})
}

/// All that is wanted, under names of an operator's own.
fn complete() -> Vec<Value> {
    let chats = [
        "message_received",
        "message_read",
        "message_reaction",
        "message_edited",
        "message_deleted",
        "message_delivered",
    ];
    vec![
        hook("w1", "x", &["new_relation"], "s3cret"),
        hook("w2", "x", &chats, "s3cret"),
        hook("w3", "x", &["mail_received", "mail_sent", "mail_moved"], "s3cret"),
        hook("w4", "x", &["mail_opened", "mail_link_clicked"], "s3cret"),
        hook("w5", "campaignd account_status", &[], "s3cret"),
    ]
}

async fn registered(items: Vec<Value>) -> (Server, Result<usize, crate::provider::unipile::Error>) {
    let items = json!(items);
    let (server, unipile) = Server::start(move |call, _| match call {
        "GET /api/v1/webhooks" => (200, json!({"items": items, "cursor": null})),
        _ => (200, json!({})),
    })
    .await;
    let made = unipile.ensure_webhooks(URL, &Secret::new("s3cret")).await;
    (server, made)
}

#[tokio::test]
async fn webhooks_that_are_there_stay_and_those_with_an_old_secret_are_replaced() {
    let (server, made) = registered(complete()).await;
    assert_eq!((made.unwrap(), server.calls().len()), (0, 1));
    let mut items = complete();
    items[2] = hook("w3", "x", &["mail_received", "mail_sent"], "old");
    let (server, made) = registered(items).await;
    assert_eq!(made.unwrap(), 1);
    assert_eq!(server.calls(), ["GET /api/v1/webhooks", "POST /api/v1/webhooks", "DELETE /api/v1/webhooks/w3"]);
}

#[tokio::test]
async fn a_webhook_whose_deliveries_would_be_refused_is_replaced() {
    for headers in [json!([]), json!([{"key": "X-Other", "value": "s3cret"}]), json!(null)] {
        let mut items = complete();
        items[0]["headers"] = headers.clone();
        let (server, made) = registered(items).await;
        assert_eq!(made.unwrap(), 1, "{headers}");
        assert_eq!(server.calls()[1..], ["POST /api/v1/webhooks", "DELETE /api/v1/webhooks/w1"], "{headers}");
    }
    // Of our own the list may not show them.
    let mut items = complete();
    items[4]["headers"] = json!(null);
    assert_eq!(registered(items).await.1.unwrap(), 0);
}

#[tokio::test]
async fn an_operators_webhook_that_leaves_something_out_stays_and_ours_comes_beside_it() {
    for (field, value) in [
        ("account_ids", json!([{"id": "a1"}])),
        ("format", json!("form")),
        ("data", json!([{"name": "person", "key": "user_provider_id"}])),
    ] {
        let mut items = complete();
        items[0][field] = value;
        let (server, made) = registered(items).await;
        assert_eq!(made.unwrap(), 1, "{field}");
        assert_eq!(server.calls()[1..], ["POST /api/v1/webhooks"], "{field}");
    }
    let mut items = complete();
    items[0]["account_ids"] = json!([]);
    items[0]["format"] = json!("json");
    items[0]["data"] = json!([{"name": "event", "key": "event"}]);
    assert_eq!(registered(items).await.1.unwrap(), 0);
}

#[tokio::test]
async fn a_webhook_of_ours_that_delivers_less_is_replaced_and_an_operators_own_stays() {
    for (name, deleted) in [("campaignd messaging", true), ("mine", false)] {
        let mut items = complete();
        items[1] = hook("w2", name, &["message_received"], "s3cret");
        let (server, made) = registered(items).await;
        assert_eq!(made.unwrap(), 1);
        assert_eq!(server.calls().contains(&"DELETE /api/v1/webhooks/w2".to_owned()), deleted, "{name}");
    }
}

#[tokio::test]
async fn a_tenant_that_does_not_know_an_event_delivers_the_others() {
    let (server, unipile) = Server::start(|call, request| match call {
        "GET /api/v1/webhooks" => (200, json!({"items": [], "cursor": null})),
        _ if request["json"]["events"].as_array().is_some_and(|e| e.contains(&json!("message_delivered"))) => {
            error(400, "invalid_parameters")
        }
        _ => (201, json!({"object": "WebhookCreated", "webhook_id": "w1"})),
    })
    .await;
    assert_eq!(unipile.ensure_webhooks(URL, &Secret::new("s3cret")).await.unwrap(), 5);
    let seen = server.seen();
    let created = seen.iter().filter(|r| r["json"]["source"] == "messaging").collect::<Vec<_>>();
    assert_eq!((created.len(), &created[1]["json"]["events"]), (2, &json!(["message_received"])));
}

#[tokio::test]
async fn accounts_come_with_their_channel_and_status() {
    let items: Value = json!([
        {"id": "a1", "name": "Us", "type": "LINKEDIN", "sources": [{"status": "OK"}, {"status": "CREDENTIALS"}]},
        {"id": "a2", "type": "GOOGLE_OAUTH"},
        {"id": "a3", "type": "TELEGRAM", "sources": "new"},
    ]);
    let (_, unipile) = Server::start(move |_, _| (200, json!({"items": items}))).await;
    let accounts = unipile.accounts().await.unwrap();
    let seen: Vec<_> = accounts.iter().map(|a| (a.id.as_str(), a.channel, a.status.as_str())).collect();
    assert_eq!(
        seen,
        [("a1", Some(Channel::Linkedin), "CREDENTIALS"), ("a2", Some(Channel::Email), "OK"), ("a3", None, "OK")]
    );
}
