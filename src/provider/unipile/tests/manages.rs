//! Accounts and webhook registration.

use serde_json::{Value, json};

use super::server::{Server, golden};
use crate::domain::account::Channel;
use crate::provider::Secret;

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
    assert_eq!(unipile.ensure_webhooks(URL, &Secret::new("s3cret")).await.unwrap(), 4);
    golden("request_webhooks", &json!(server.seen()));
}

#[tokio::test]
async fn webhooks_that_are_there_stay_and_those_with_an_old_secret_are_replaced() {
    let hook = |id: &str, event: Option<&str>, secret: &str| {
        json!({"id": id, "request_url": URL, "enabled": true, "events": event.map(|e| vec![e]),
            "name": if event.is_some() { "x" } else { "campaignd account_status" },
            "headers": [{"key": "unipile-auth", "value": secret}]})
    };
    let items = json!([
        hook("w1", Some("new_relation"), "s3cret"),
        hook("w2", Some("message_received"), "s3cret"),
        hook("w3", Some("mail_received"), "old"),
        hook("w4", None, "s3cret"),
    ]);
    let (server, unipile) = Server::start(move |call, _| match call {
        "GET /api/v1/webhooks" => (200, json!({"items": items, "cursor": null})),
        _ => (200, json!({})),
    })
    .await;
    assert_eq!(unipile.ensure_webhooks(URL, &Secret::new("s3cret")).await.unwrap(), 1);
    assert_eq!(server.calls(), ["GET /api/v1/webhooks", "POST /api/v1/webhooks", "DELETE /api/v1/webhooks/w3"]);
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
