//! The webhook receiver: who may deliver, and that whatever is delivered is stored before it is acknowledged.

use axum::body::Body;
use axum::http::Request;
use campaignd::http::Options;
use serde_json::json;

use crate::client::{Answer, Api, WORKSPACE};

const SECRET: &str = "a-secret-of-some-length";

async fn endpoint(api: &Api) -> String {
    let made = api.post("/v1/hooks", json!({"secret": SECRET})).await.ok(201);
    assert_eq!((&made["secret"], &made["header"]), (&json!(SECRET), &json!("Unipile-Auth")));
    made["path"].as_str().unwrap().to_owned()
}

async fn deliver(api: &Api, path: &str, secret: Option<&str>, body: impl Into<Body>) -> Answer {
    // As Unipile does it: JSON under a form's content type.
    let mut request =
        Request::post(path).header("content-type", "application/x-www-form-urlencoded").header("user-agent", "axios");
    if let Some(secret) = secret {
        request = request.header("Unipile-Auth", secret);
    }
    api.send(request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn a_delivery_is_stored_once_and_acknowledged_each_time() {
    let api = Api::new().await;
    let path = endpoint(&api).await;
    let body = json!({"event": "new_relation", "account_id": "acc", "user_provider_id": "ACoAAAexample1"}).to_string();
    for status in ["stored", "duplicate", "duplicate"] {
        assert_eq!(deliver(&api, &path, Some(SECRET), body.clone()).await.ok(200), json!({"status": status}));
    }
    assert_eq!(api.count("SELECT count(*) FROM inbox").await, 1);
    let stored: (uuid::Uuid, Vec<u8>, serde_json::Value) =
        sqlx::query_as("SELECT workspace_id, body, headers FROM inbox WHERE source = 'unipile'")
            .fetch_one(&api.db.pool)
            .await
            .unwrap();
    assert_eq!((stored.0, stored.1), (WORKSPACE.0, body.into_bytes()));
    assert_eq!(stored.2["user-agent"], "axios");
    assert!(!stored.2.to_string().contains(SECRET));
}

#[tokio::test]
async fn any_bytes_are_acknowledged() {
    let api = Api::new().await;
    let path = endpoint(&api).await;
    let bodies: [&[u8]; 7] =
        [b"", b"not json", b"{", b"[1,2]", b"\xff\xfe\x00", br#"{"event":"from_the_future"}"#, b"null"];
    for body in bodies {
        deliver(&api, &path, Some(SECRET), body).await.ok(200);
    }
    assert_eq!(api.count("SELECT count(*) FROM inbox").await, 7);
}

#[tokio::test]
async fn a_delivery_without_the_secret_is_refused() {
    let api = Api::new().await;
    let path = endpoint(&api).await;
    for secret in [None, Some(""), Some("wrong"), Some("a-secret-of-some-lengtH")] {
        deliver(&api, &path, secret, "{}").await.problem(401, "invalid_webhook_secret");
    }
    deliver(&api, "/v1/hooks/unipile/nobody", Some(SECRET), "{}").await.problem(404, "not_found");
    // An API key opens nothing here.
    api.call_as(&api.key, "POST", &path, "application/json", "{}").await.problem(401, "invalid_webhook_secret");
    assert_eq!(api.count("SELECT count(*) FROM inbox").await, 0);
}

#[tokio::test]
async fn an_endpoint_without_a_secret_takes_nothing() {
    let api = Api::new().await;
    let insert =
        format!("INSERT INTO webhook_endpoints (workspace_id, id, provider) VALUES ('{WORKSPACE}', 'open', 'unipile')");
    api.db.script(insert).await.unwrap();
    for secret in [None, Some(""), Some(SECRET)] {
        deliver(&api, "/v1/hooks/unipile/open", secret, "{}").await.problem(403, "webhook_secret_not_configured");
    }
    assert_eq!(api.get("/v1/hooks").await.ok(200)["hooks"][0]["has_secret"], false);
    assert_eq!(api.count("SELECT count(*) FROM inbox").await, 0);
}

#[tokio::test]
async fn a_generated_secret_works_and_is_shown_once() {
    let api = Api::new().await;
    let made = api.post("/v1/hooks", json!({})).await.ok(201);
    let (path, secret) = (made["path"].as_str().unwrap(), made["secret"].as_str().unwrap());
    deliver(&api, path, Some(secret), "{}").await.ok(200);
    let listed = api.get("/v1/hooks").await.ok(200);
    assert_eq!(listed["hooks"][0]["id"], made["id"]);
    assert!(!listed.to_string().contains(secret));
    api.post("/v1/hooks", json!({"secret": "short"})).await.problem(422, "invalid_fields");
}

#[tokio::test]
async fn what_cannot_be_stored_is_to_be_delivered_again() {
    let api = Api::new().await;
    let path = endpoint(&api).await;
    deliver(&api, &path, Some(SECRET), vec![b'x'; (1 << 20) + 1]).await.problem(413, "body_too_large");
    api.db.script("ALTER TABLE inbox RENAME TO gone").await.unwrap();
    let refused = deliver(&api, &path, Some(SECRET), "{}").await;
    assert!(refused.headers.contains_key("retry-after"));
    let problem = refused.problem(503, "storage_unavailable");
    assert!(!problem.to_string().contains("inbox"), "no SQL in answers: {problem}");

    let full = Api::with(Options { webhooks_in_flight_max: 0, ..Options::default() }).await;
    deliver(&full, "/v1/hooks/unipile/x", None, "{}").await.problem(503, "busy");
}
