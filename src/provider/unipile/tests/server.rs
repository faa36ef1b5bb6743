//! A server that records raw requests and answers what the test says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequest, Multipart, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::domain::flow::Track;
use crate::domain::id::SendId;
use crate::domain::send::Action;
use crate::provider::unipile::{Options, Unipile};
use crate::provider::{Recipient, Secret, SendRequest};

/// Method and path of a request, and everything that is golden about it.
type Answer = dyn Fn(&str, &Value) -> (u16, Value) + Send + Sync;

#[derive(Clone)]
pub(super) struct Server {
    seen: Arc<Mutex<Vec<Value>>>,
    traces: Arc<Mutex<Vec<Option<String>>>>,
    answer: Arc<Answer>,
}

impl Server {
    /// Starts a server. `answer` gets `METHOD /path` and the request as recorded.
    pub(super) async fn start(
        answer: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static,
    ) -> (Self, Unipile) {
        let server = Self { seen: Arc::default(), traces: Arc::default(), answer: Arc::new(answer) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(handle).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (server, client(&base, Duration::from_secs(30)))
    }

    /// The requests so far, in order.
    pub(super) fn seen(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }

    /// The header `traceparent` of the requests so far: it is not golden.
    pub(super) fn traces(&self) -> Vec<Option<String>> {
        self.traces.lock().unwrap().clone()
    }

    /// `METHOD /path` of the requests so far.
    pub(super) fn calls(&self) -> Vec<String> {
        self.seen().iter().map(call_of).collect()
    }
}

pub(super) fn client(base: &str, timeout: Duration) -> Unipile {
    Unipile::new(Options { timeout, ..Options::new(base, Secret::new("the-key")) }).unwrap()
}

fn call_of(request: &Value) -> String {
    format!("{} {}", request["method"].as_str().unwrap(), request["path"].as_str().unwrap())
}

async fn handle(State(server): State<Server>, request: Request) -> Response {
    let trace = request.headers().get("traceparent").map(|v| v.to_str().unwrap().to_owned());
    server.traces.lock().unwrap().push(trace);
    let recorded = record(request).await;
    let (status, body) = (server.answer)(&call_of(&recorded), &recorded);
    server.seen.lock().unwrap().push(recorded);
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}

/// What is golden about a request without its body, and the content type in full.
fn head_of(request: &Request) -> (Value, String) {
    let header = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
    let kind = header("content-type").unwrap_or_default();
    let mut headers = json!({"x-api-key": header("x-api-key"), "accept": header("accept")});
    if let Some(key) = header("idempotency-key") {
        headers["idempotency-key"] = key.into();
    }
    let query: Query<Vec<(String, String)>> = Query::try_from_uri(request.uri()).unwrap();
    let head = json!({
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "query": query.0,
        "headers": headers,
        "content_type": kind.split(';').next(),
    });
    (head, kind)
}

async fn record(request: Request) -> Value {
    let (mut recorded, kind) = head_of(&request);
    if kind.starts_with("multipart/form-data") {
        let mut parts = Vec::new();
        let mut form = Multipart::from_request(request, &()).await.unwrap();
        while let Some(field) = form.next_field().await.unwrap() {
            let name = field.name().unwrap().to_owned();
            assert_eq!(field.file_name(), None, "{name} is a plain field");
            let value = field.text().await.unwrap();
            parts.push(json!([name, value]));
        }
        recorded["parts"] = parts.into();
    } else if kind == "application/json" {
        let bytes = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
        recorded["json"] = serde_json::from_slice(&bytes).unwrap();
    } else {
        assert_eq!(kind, "", "a read has no body");
    }
    recorded
}

/// A server that takes one request and answers `bytes`, then closes. With `None` it never answers.
pub(super) async fn raw(bytes: Option<&'static [u8]>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut buffer = [0_u8; 4096];
        let _ = socket.read(&mut buffer).await.unwrap();
        match bytes {
            Some(bytes) => socket.write_all(bytes).await.unwrap(),
            None => std::future::pending().await,
        }
    });
    base
}

/// An address nobody listens at.
pub(super) async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// An error answer of Unipile's.
pub(super) fn error(status: u16, kind: &str) -> (u16, Value) {
    (status, json!({"title": "T", "detail": "D", "type": format!("errors/{kind}"), "status": status}))
}

/// A request to Jane, who is known by everything a prospect's row can say.
pub(super) fn to_jane(action: Action) -> SendRequest {
    SendRequest {
        send: SendId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0042)),
        provider_account_id: "acc-1".into(),
        action,
        recipient: Recipient {
            name: Some("Jane Döe".into()),
            linkedin: Some("https://www.linkedin.com/in/jane-doe/?x=1".into()),
            email: Some("jane@acme.test".into()),
            phone: Some("+33 6 12 34 56 78".into()),
            recipient_id: None,
            chat_id: None,
        },
        subject: Some("A question".into()),
        body: Some("Hi Jane,\n\n2 < 3 & \"so\" on — ü".into()),
        reply_to: None,
        track: Track::default(),
        unsubscribe_url: None,
    }
}

/// Compares with a golden file; writes it when `UPDATE_GOLDEN` is set.
pub(super) fn golden(name: &str, value: &Value) {
    let path = format!("{}/tests/golden/unipile/{name}.json", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, format!("{}\n", serde_json::to_string_pretty(value).unwrap())).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}, set UPDATE_GOLDEN to write it"));
    let expected: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(*value, expected, "{path}");
}
