//! The API without a socket: a database, a runtime and the router, and requests to it.

use std::collections::HashMap;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use campaignd::clock::Clock;
use campaignd::domain::id::WorkspaceId;
use campaignd::http::{self, App, Options};
use campaignd::runtime::{self, Runtime};
use campaignd::store::api_key;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::harness::Db;

/// The tenant that every database has.
pub(crate) const WORKSPACE: WorkspaceId = WorkspaceId(uuid::Uuid::from_u128(0x7000_8000_0000_0000_0001));
/// Another one.
pub(crate) const STRANGER: WorkspaceId = WorkspaceId(uuid::Uuid::from_u128(0x7000_8000_0000_0000_0002));

/// A server of its own, for one test.
pub(crate) struct Api {
    pub(crate) db: Db,
    pub(crate) app: App,
    pub(crate) key: String,
    router: Router,
    /// Kept: the engine lives as long as the test.
    _runtime: Runtime,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// The body, after making sure of the status.
    #[track_caller]
    pub(crate) fn ok(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }

    /// Makes sure that it is a problem document of that status and code, and gives it.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!((self.status.as_u16(), self.body["code"].as_str()), (status, Some(code)), "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["type"], format!("urn:campaignd:problem:{code}"));
        assert!(self.body["title"].is_string() && self.body["detail"].is_string(), "{}", self.body);
        self.body
    }
}

impl Api {
    pub(crate) async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let db = Db::new().await;
        let clock = Clock::System;
        let runtime =
            runtime::start(runtime::Options::new(db.pool.clone(), clock.clone(), HashMap::new())).await.unwrap();
        let metrics = campaignd::telemetry::install().unwrap();
        let app = App { pool: db.pool.clone(), runtime: runtime.handle(), clock, options, metrics };
        let key = api_key::create(&db.pool, WORKSPACE, "test", app.clock.now()).await.unwrap().reveal();
        Self { router: http::router(app.clone()), db, app, key, _runtime: runtime }
    }

    /// A key of another workspace.
    pub(crate) async fn stranger(&self) -> String {
        self.db
            .script(format!(
                "INSERT INTO workspaces (id, name) VALUES ('{STRANGER}', 'stranger') ON CONFLICT DO NOTHING"
            ))
            .await
            .unwrap();
        api_key::create(&self.db.pool, STRANGER, "stranger", self.app.clock.now()).await.unwrap().reveal()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let body =
            serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// A request with a key and a body of some type.
    pub(crate) async fn call_as(
        &self,
        key: &str,
        method: &str,
        path: &str,
        kind: &str,
        body: impl Into<Body>,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", kind)
            .body(body.into())
            .unwrap();
        self.send(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call_as(&self.key, "GET", path, "application/json", Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call_as(&self.key, "POST", path, "application/json", body.to_string()).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call_as(&self.key, "PATCH", path, "application/json", body.to_string()).await
    }

    pub(crate) async fn csv(&self, campaign: &str, body: impl Into<Body>) -> Answer {
        let path = format!("/v1/campaigns/{campaign}/prospects?return_ids=true");
        self.call_as(&self.key, "POST", &path, "text/csv", body).await
    }

    /// A campaign of the seed's kind, in `draft`.
    pub(crate) async fn campaign(&self) -> String {
        let made = self.post("/v1/campaigns", json!({"name": "Spring", "flow_settings": flow()})).await.ok(201);
        made["id"].as_str().unwrap().to_owned()
    }

    /// One prospect in a campaign.
    pub(crate) async fn prospect(&self, campaign: &str) -> String {
        let report =
            self.csv(campaign, "first_name,email,linkedin\nAda,ada@example.com,linkedin.com/in/ada\n").await.ok(201);
        report["prospect_ids"][0].as_str().unwrap().to_owned()
    }

    /// How many rows a query counts.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.db.pool).await.unwrap()
    }
}

/// LinkedIn, then mail.
pub(crate) fn flow() -> Value {
    json!({"steps": [
        {"id": "invite", "action": "send_linkedin_cr", "message": "Hi {{ first_name }}",
         "wait_for": {"trigger": "connection_accepted", "timeout": "72h"}},
        {"id": "intro", "action": "send_email", "subject": "Hello", "message": "Hello {{ first_name }}"}]})
}

/// Limits that a test reaches.
pub(crate) fn small() -> Options {
    Options {
        listen: ([127, 0, 0, 1], 0).into(),
        metrics_listen: ([127, 0, 0, 1], 0).into(),
        drain: Duration::from_secs(5),
        ..Options::default()
    }
}
