//! The way of a request under `/api/v1`: key, route, body, fault, the world, answer.
//!
//! Operations are plain functions over the world, so none can hold its lock over an await.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use super::broken::{gateway, refuse, refused_with, truncate};
use super::calls::Ending;
use super::errors::Problem;
use super::faults::{self, Effect, Strike};
use super::net::Breaker;
use super::options::AccountKind;
use super::server::Sandbox;
use super::text::percent_decode;
use super::world::World;
use super::{
    multipart, wire_accounts as accounts, wire_attendees as attendees, wire_chats as chats, wire_emails as emails,
    wire_invites as invites, wire_mailbox as mailbox, wire_users as users, wire_webhooks as webhooks,
};

/// A request, read.
pub(super) struct Call {
    path: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) body: Map<String, Value>,
    pub(super) idempotency_key: Option<String>,
    /// Where this sandbox is reached, for links to itself.
    pub(super) origin: String,
}

impl Call {
    /// The `i`th part of the path, decoded.
    pub(super) fn part(&self, i: usize) -> &str {
        self.path.get(i).map_or("", String::as_str)
    }

    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A truth of the query: `true` or 1.
    pub(super) fn query_flag(&self, name: &str) -> bool {
        matches!(self.query(name), Some("true" | "1"))
    }

    /// A truth of the body, however it is written.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.body.get(name).and_then(truth)
    }

    /// Whom or what it is about: for faults and refusals.
    fn about(&self) -> String {
        let path = self.path.iter().skip(1).map(String::as_str);
        let mut parts: Vec<String> = path.map(str::to_owned).collect();
        for field in ["provider_id", "attendees_ids", "to"] {
            match self.body.get(field) {
                None => {}
                Some(Value::String(text)) => parts.push(text.clone()),
                Some(value) => parts.push(value.to_string()),
            }
        }
        parts.join(" ")
    }

    /// A text of the body.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.body.get(name).and_then(Value::as_str)
    }

    /// A field of the body that holds JSON: as it is, or as text of a form field.
    pub(super) fn json(&self, name: &str) -> Result<Option<Value>, Problem> {
        match self.body.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => serde_json::from_str(text)
                .map(Some)
                .map_err(|_| Problem::invalid(format!("{name} must be JSON in its form field."))),
            Some(value) => Ok(Some(value.clone())),
        }
    }

    /// The account of a read, named in the query.
    pub(super) fn query_account(&self, w: &World, kind: Option<AccountKind>) -> Result<usize, Problem> {
        w.account(self.query("account_id"), kind)
    }

    /// The account of a change, named in the body.
    pub(super) fn body_account(&self, w: &World, kind: Option<AccountKind>) -> Result<usize, Problem> {
        w.account(self.text("account_id"), kind)
    }
}

/// What a client means by `true`, `"true"`, `1` and `"1"`, and by their opposites.
pub(super) fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Number(n) => n.as_u64().filter(|n| *n < 2).map(|n| n == 1),
        Value::String(text) => match text.as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A status and a body.
pub(super) type Answer = Result<(u16, Value), Problem>;
type Op = fn(&mut World, &Call) -> Answer;

/// The operation behind a method and a path, with the name faults know it by.
fn route(method: &Method, path: &[&str]) -> Option<(&'static str, Op)> {
    Some(match (method.as_str(), path) {
        ("GET", ["users", "me"]) => ("GET /users/me", users::me),
        ("GET", ["users", "relations"]) => ("GET /users/relations", users::relations),
        ("GET", ["users", "invite", "sent"]) => ("GET /users/invite/sent", invites::sent),
        ("GET", ["users", "invite", "received"]) => ("GET /users/invite/received", invites::received),
        ("POST", ["users", "invite", "received", _]) => {
            ("POST /users/invite/received/{invitation_id}", invites::handle)
        }
        ("DELETE", ["users", "invite", "sent", _]) => ("DELETE /users/invite/sent/{invitation_id}", invites::withdraw),
        ("POST", ["users", "invite"]) => ("POST /users/invite", invites::invite),
        ("GET", ["users", _]) => ("GET /users/{identifier}", users::profile),
        ("POST", ["chats"]) => ("POST /chats", chats::start),
        ("GET", ["chats"]) => ("GET /chats", chats::list),
        ("GET", ["chats", _]) => ("GET /chats/{chat_id}", chats::get),
        ("POST", ["chats", _, "messages"]) => ("POST /chats/{chat_id}/messages", chats::send),
        ("GET", ["chats", _, "messages"]) => ("GET /chats/{chat_id}/messages", chats::messages),
        ("GET", ["messages"]) => ("GET /messages", chats::all_messages),
        ("GET", ["messages", _, "attachments", _]) => {
            ("GET /messages/{message_id}/attachments/{attachment_id}", chats::attachment_bytes)
        }
        ("GET", ["messages", _]) => ("GET /messages/{message_id}", chats::message),
        ("GET", ["chats", _, "attendees"]) => ("GET /chats/{chat_id}/attendees", attendees::of_chat),
        ("GET", ["chat_attendees"]) => ("GET /chat_attendees", attendees::list),
        ("GET", ["chat_attendees", _]) => ("GET /chat_attendees/{attendee_id}", attendees::get),
        ("GET", ["chat_attendees", _, "chats"]) => ("GET /chat_attendees/{attendee_id}/chats", attendees::chats),
        ("GET", ["chat_attendees", _, "messages"]) => ("GET /chat_attendees/{sender_id}/messages", attendees::messages),
        ("POST", ["emails"]) => ("POST /emails", emails::send),
        ("GET", ["emails"]) => ("GET /emails", mailbox::list),
        ("GET", ["emails", _]) => ("GET /emails/{email_id}", mailbox::get),
        ("GET", ["accounts"]) => ("GET /accounts", accounts::list),
        ("GET", ["accounts", _]) => ("GET /accounts/{id}", accounts::get),
        ("DELETE", ["accounts", _]) => ("DELETE /accounts/{id}", accounts::delete),
        ("POST", ["hosted", "accounts", "link"]) => ("POST /hosted/accounts/link", accounts::hosted_link),
        ("POST", ["webhooks"]) => ("POST /webhooks", webhooks::create),
        ("GET", ["webhooks"]) => ("GET /webhooks", webhooks::list),
        ("DELETE", ["webhooks", _]) => ("DELETE /webhooks/{id}", webhooks::delete),
        _ => return None,
    })
}

/// Whether `POST /users/invite` and its like name a route; `/api/v1` in front and names in braces are as good as any.
pub(super) fn is_endpoint(name: &str) -> bool {
    let Some((method, path)) = name.split_once(' ') else { return false };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return false };
    let parts: Vec<&str> = path.trim_start_matches("/api/v1").trim_matches('/').split('/').collect();
    route(&method, &parts).is_some()
}

/// Whether a request changes something outside: those are watched for overlaps.
fn changes(label: &str) -> bool {
    !label.starts_with("GET ") && ![" /webhooks", " /accounts", " /hosted"].iter().any(|p| label.contains(p))
}

/// Answers everything under `/api/v1`.
pub(super) async fn api(
    State(sandbox): State<Arc<Sandbox>>,
    ConnectInfo(breaker): ConnectInfo<Breaker>,
    request: Request,
) -> Response {
    let key = request.headers().get("x-api-key").and_then(|v| v.to_str().ok());
    if key != Some(sandbox.api_key.as_str()) {
        return problem(&Problem::new(401, "missing_credentials", "Missing or invalid X-API-KEY header."));
    }
    let method = request.method().clone();
    let path = request.uri().path().trim_start_matches("/api/v1").trim_matches('/').to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    let Some((label, op)) = route(&method, &parts) else {
        return nowhere().await;
    };
    let key = request.headers().get("idempotency-key").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let query = query_of(request.uri());
    let host = request.headers().get("host").and_then(|v| v.to_str().ok()).unwrap_or("localhost").to_owned();
    let mut body = match multipart::read(request).await {
        Ok(body) => body,
        Err(p) => return problem(&p),
    };
    let field_key = body.remove("Idempotency-Key").and_then(|v| v.as_str().map(str::to_owned));
    let call = Call {
        path: parts.iter().map(|p| percent_decode(p)).collect(),
        query,
        body,
        idempotency_key: key.or(field_key),
        origin: format!("http://{host}"),
    };
    work(&sandbox, &breaker, label, op, &call).await
}

/// The answer where there is nothing: in the same shape as under `/api/v1`.
pub(super) async fn nowhere() -> Response {
    problem(&Problem::new(404, "resource_not_found", "There is no such route."))
}

/// Ends a watched request even when its client has gone away and dropped us.
struct Watch<'a> {
    sandbox: &'a Sandbox,
    ticket: u64,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.sandbox.with(|w| w.ledger.finish(self.ticket));
    }
}

/// What a request met before it was worked on.
struct Entrance {
    account: String,
    about: String,
    strike: Option<Strike>,
    ticket: Option<u64>,
}

/// Looks up the faults of a request, and begins to watch it.
fn enter(w: &mut World, label: &'static str, call: &Call) -> Entrance {
    let (mut account, about) = (account_of(w, call), call.about());
    let request = faults::Request { label, account: &account, about: &about };
    let strike = faults::strike(&mut w.rules, w.opts.seed, &request);
    if let Some(strike) = strike.as_ref().filter(|s| s.effect == Effect::Disconnect)
        && let Some(index) = w.account_index(&account)
    {
        w.disconnect(index, strike.back_after);
    }
    if w.account_index(&account).is_none() {
        // Whatever clients make up is counted as one.
        account.clear();
    }
    if let Some((status, kind)) = strike.as_ref().and_then(refused_with) {
        w.calls.write(w.now, &account, label, &about, &Ending { status, kind: Some(&kind), fault: true });
    }
    let ticket = (changes(label) && !account.is_empty()).then(|| w.ledger.begin(&account));
    Entrance { account, about, strike, ticket }
}

async fn work(sandbox: &Sandbox, breaker: &Breaker, label: &'static str, op: Op, call: &Call) -> Response {
    let Entrance { account, about, strike, ticket } = sandbox.with(|w| enter(w, label, call));
    let watch = ticket.map(|ticket| Watch { sandbox, ticket });
    if let Some(refusal) = strike.as_ref().and_then(|s| refuse(s, breaker)) {
        return refusal;
    }
    if let Some(strike) = strike.as_ref().filter(|s| s.effect == Effect::SlowBefore) {
        tokio::time::sleep(Duration::from_millis(strike.delay_ms.unwrap_or(1000))).await;
    }
    let answer = sandbox.with(|w| {
        w.ledger.current = ticket;
        let answer = op(w, call);
        w.ledger.current = None;
        let ending = match &answer {
            Ok((status, _)) => Ending { status: *status, kind: None, fault: strike.is_some() },
            Err(p) => Ending { status: p.status, kind: Some(&p.kind), fault: false },
        };
        w.calls.write(w.now, &account, label, &about, &ending);
        answer
    });
    let answer = match answer {
        Ok((status, body)) => json_response(status, &body),
        Err(p) => problem(&p),
    };
    let Some(strike) = strike else {
        drop(watch);
        return answer;
    };
    let wait = strike.delay_ms.or((strike.effect == Effect::Slow).then_some(1000));
    if let Some(ms) = wait.filter(|_| strike.effect != Effect::SlowBefore) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    drop(watch);
    match strike.effect {
        Effect::FailAfter => problem(&Problem::new(
            strike.status.unwrap_or(504),
            strike.kind.as_deref().unwrap_or("request_timeout"),
            "Request timed out. Please try again.",
        )),
        Effect::GatewayAfter => gateway(strike.status),
        Effect::ResetAfter => {
            breaker.cut();
            answer
        }
        Effect::Truncate => truncate(answer, breaker.clone()).await,
        _ => answer,
    }
}

/// The account a request is about, for faults and overlaps: named, or the chat's.
fn account_of(w: &World, call: &Call) -> String {
    let named = call.text("account_id").or_else(|| call.query("account_id"));
    named.map(str::to_owned).unwrap_or_else(|| {
        let chat = (call.part(0) == "chats").then(|| w.chat_ids.get(call.part(1))).flatten();
        chat.map(|&c| w.accounts[w.chats[c].account].id.clone()).unwrap_or_default()
    })
}

pub(super) fn query_of(uri: &Uri) -> Vec<(String, String)> {
    Query::<Vec<(String, String)>>::try_from_uri(uri).map(|Query(q)| q).unwrap_or_default()
}

pub(super) fn problem(p: &Problem) -> Response {
    json_response(p.status().as_u16(), &p.body())
}

pub(super) fn json_response(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(CONTENT_TYPE, "application/json; charset=utf-8")], body.to_string()).into_response()
}
