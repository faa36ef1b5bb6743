//! A sandbox to test, a plain HTTP client beside it, and receivers for its webhooks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use campaignd::clock::Clock;
use campaignd::domain::time::Timestamp;
use campaignd::sandbox::{self, LINKEDIN_ONE, MAIL_ONE, Options, Server, WHATSAPP_ONE};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// What a receiver of webhooks got.
pub(crate) type Inbox = mpsc::UnboundedReceiver<(HeaderMap, Value)>;

pub(crate) struct Rig {
    pub(crate) server: Server,
    pub(crate) http: reqwest::Client,
    pub(crate) clock: Clock,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clock = Clock::manual(Timestamp::from_micros(1_790_000_000_000_000));
        let mut opts = Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            clock: clock.clone(),
            null_ids_share: 0.0,
            webhook_retry_delays: vec![Duration::from_millis(5); 5],
            ..Options::default()
        };
        change(&mut opts);
        Self { server: sandbox::start(opts).await.unwrap(), http: reqwest::Client::new(), clock }
    }

    pub(crate) fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.server.addr())).header("X-API-KEY", "sandbox")
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.ask(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        answer(self.ask(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn ledger(&self) -> Value {
        self.get("/sandbox/ledger").await.1
    }

    pub(crate) async fn provider_id(&self, slug: &str, account: &str) -> String {
        let (status, body) = self.get(&format!("/api/v1/users/{slug}?account_id={account}")).await;
        assert_eq!(status, 200, "{body}");
        body["provider_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn invite(&self, provider_id: &str) -> (u16, Value) {
        self.post("/api/v1/users/invite", json!({ "account_id": LINKEDIN_ONE, "provider_id": provider_id })).await
    }

    pub(crate) async fn act(&self, identity: &str, act: &str) {
        let (status, body) = self.post("/sandbox/act", json!({ "identity": identity, "act": act })).await;
        assert_eq!(status, 200, "{body}");
    }

    pub(crate) async fn fault(&self, rule: Value) {
        assert_eq!(self.post("/sandbox/faults", rule).await.0, 200);
    }

    /// Sends a plain mail to one address.
    pub(crate) async fn mail(&self, address: &str) -> Value {
        let body =
            json!({ "account_id": MAIL_ONE, "to": [{ "identifier": address }], "subject": "Hello", "body": "x" });
        let (status, sent) = self.post("/api/v1/emails", body).await;
        assert_eq!(status, 201, "{sent}");
        sent
    }

    /// Writes to a number on WhatsApp.
    pub(crate) async fn whatsapp(&self, number: &str, text: &str) -> (u16, Value) {
        let jid = format!("{number}@s.whatsapp.net");
        self.post("/api/v1/chats", json!({ "account_id": WHATSAPP_ONE, "attendees_ids": [jid], "text": text })).await
    }

    /// Writes to somebody on LinkedIn; `more` is added to the request.
    pub(crate) async fn linkedin(&self, provider_id: &str, more: Value) -> (u16, Value) {
        let mut body = json!({ "account_id": LINKEDIN_ONE, "attendees_ids": [provider_id], "text": "hello" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.post("/api/v1/chats", body).await
    }

    /// Makes somebody a relation of the first LinkedIn account; gives their provider id.
    pub(crate) async fn related(&self, slug: &str) -> String {
        let id = self.provider_id(slug, LINKEDIN_ONE).await;
        assert_eq!(self.invite(&id).await.0, 200);
        self.act(slug, "accept").await;
        id
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> (u16, Value) {
        answer(self.ask(Method::PATCH, path).json(&body)).await
    }

    /// The deeds of one kind.
    pub(crate) async fn deeds(&self, kind: &str) -> Vec<Value> {
        self.get(&format!("/sandbox/deeds?kind={kind}")).await.1["items"].as_array().unwrap().clone()
    }

    /// A receiver of webhooks that refuses the first `refusals` deliveries.
    pub(crate) async fn listen(&self, source: &str, events: Value, refusals: usize) -> Inbox {
        let (tx, rx) = mpsc::unbounded_channel();
        let state = (tx, Arc::new(AtomicUsize::new(refusals)));
        type Seen = (mpsc::UnboundedSender<(HeaderMap, Value)>, Arc<AtomicUsize>);
        let receive = |State((tx, left)): State<Seen>, headers: HeaderMap, body: String| async move {
            if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                return StatusCode::NO_CONTENT;
            }
            let _ = tx.send((headers, serde_json::from_str(&body).unwrap_or(Value::String(body))));
            StatusCode::OK
        };
        let app = axum::Router::new().route("/hook", axum::routing::post(receive)).with_state(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let hook = json!({ "request_url": url, "source": source, "events": events, "name": "mine",
            "headers": [{ "key": "Unipile-Auth", "value": "s3cret" }] });
        let (status, body) = self.post("/api/v1/webhooks", hook).await;
        assert_eq!((status, &body["object"]), (201, &json!("WebhookCreated")), "{body}");
        rx
    }
}

pub(crate) async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

pub(crate) async fn next(rx: &mut Inbox) -> (HeaderMap, Value) {
    tokio::time::timeout(Duration::from_secs(10), rx.recv()).await.unwrap().unwrap()
}

/// A cursor as it stands in an address.
pub(crate) fn escaped(cursor: &Value) -> String {
    cursor.as_str().unwrap().replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
}

pub(crate) fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}
