//! The way of a request under `/api/v1`: key, route, body, fault, the world, answer.
//!
//! Operations are plain functions over the world, so none can hold its lock over an await.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use super::errors::Problem;
use super::faults::{self, Effect, Rule};
use super::net::Breaker;
use super::options::AccountKind;
use super::server::Sandbox;
use super::text::percent_decode;
use super::world::World;
use super::{multipart, wire_accounts as accounts, wire_chats as chats, wire_emails as emails, wire_users as users};

/// A request, read.
pub(super) struct Call {
    path: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) body: Map<String, Value>,
    pub(super) idempotency_key: Option<String>,
}

impl Call {
    /// The `i`th part of the path, decoded.
    pub(super) fn part(&self, i: usize) -> &str {
        self.path.get(i).map_or("", String::as_str)
    }

    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
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

/// A status and a body.
pub(super) type Answer = Result<(u16, Value), Problem>;
type Op = fn(&mut World, &Call) -> Answer;

/// The operation behind a method and a path, with the name faults know it by.
fn route(method: &Method, path: &[&str]) -> Option<(&'static str, Op)> {
    Some(match (method.as_str(), path) {
        ("GET", ["users", "me"]) => ("GET /users/me", users::me),
        ("GET", ["users", "relations"]) => ("GET /users/relations", users::relations),
        ("GET", ["users", "invite", "sent"]) => ("GET /users/invite/sent", users::sent),
        ("GET", ["users", "invite", "received"]) => ("GET /users/invite/received", users::received),
        ("DELETE", ["users", "invite", "sent", _]) => ("DELETE /users/invite/sent/{invitation_id}", users::withdraw),
        ("POST", ["users", "invite"]) => ("POST /users/invite", users::invite),
        ("GET", ["users", _]) => ("GET /users/{identifier}", users::profile),
        ("POST", ["chats"]) => ("POST /chats", chats::start),
        ("GET", ["chats"]) => ("GET /chats", chats::list),
        ("GET", ["chats", _]) => ("GET /chats/{chat_id}", chats::get),
        ("POST", ["chats", _, "messages"]) => ("POST /chats/{chat_id}/messages", chats::send),
        ("GET", ["chats", _, "messages"]) => ("GET /chats/{chat_id}/messages", chats::messages),
        ("GET", ["messages"]) => ("GET /messages", chats::all_messages),
        ("GET", ["messages", _]) => ("GET /messages/{message_id}", chats::message),
        ("GET", ["chat_attendees"]) => ("GET /chat_attendees", chats::attendees),
        ("GET", ["chat_attendees", _, "chats"]) => ("GET /chat_attendees/{attendee_id}/chats", chats::attendee_chats),
        ("GET", ["chat_attendees", _, "messages"]) => {
            ("GET /chat_attendees/{sender_id}/messages", chats::attendee_messages)
        }
        ("POST", ["emails"]) => ("POST /emails", emails::send),
        ("GET", ["emails"]) => ("GET /emails", emails::list),
        ("GET", ["emails", _]) => ("GET /emails/{email_id}", emails::get),
        ("GET", ["accounts"]) => ("GET /accounts", accounts::list),
        ("GET", ["accounts", _]) => ("GET /accounts/{id}", accounts::get),
        ("POST", ["webhooks"]) => ("POST /webhooks", accounts::create_webhook),
        ("GET", ["webhooks"]) => ("GET /webhooks", accounts::webhooks),
        ("DELETE", ["webhooks", _]) => ("DELETE /webhooks/{id}", accounts::delete_webhook),
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
    !label.starts_with("GET ") && !label.contains(" /webhooks")
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
        return problem(&Problem::new(404, "resource_not_found", "There is no such route."));
    };
    let key = request.headers().get("idempotency-key").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let query = query_of(request.uri());
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
    };
    work(&sandbox, &breaker, label, op, &call).await
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

async fn work(sandbox: &Sandbox, breaker: &Breaker, label: &'static str, op: Op, call: &Call) -> Response {
    let (rule, ticket) = sandbox.with(|w| {
        let account = account_of(w, call);
        let mut rules = std::mem::take(&mut w.rules);
        let rule = faults::strike(&mut rules, label, &account, || w.chance());
        w.rules = rules;
        if rule.as_ref().is_some_and(|r| r.effect == Effect::Disconnect)
            && let Some(index) = w.account_index(&account)
        {
            w.set_status(index, "CREDENTIALS");
        }
        (rule, (changes(label) && !account.is_empty()).then(|| w.ledger.begin(&account)))
    });
    let watch = ticket.map(|ticket| Watch { sandbox, ticket });
    if let Some(refusal) = rule.as_ref().and_then(|r| refuse(r, breaker)) {
        return refusal;
    }
    let answer = sandbox.with(|w| {
        w.ledger.current = ticket;
        let answer = op(w, call);
        w.ledger.current = None;
        answer
    });
    let answer = match answer {
        Ok((status, body)) => json_response(status, &body),
        Err(p) => problem(&p),
    };
    let Some(rule) = rule else {
        drop(watch);
        return answer;
    };
    if let Some(ms) = rule.delay_ms.or((rule.effect == Effect::Slow).then_some(1000)) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    drop(watch);
    match rule.effect {
        Effect::FailAfter => problem(&Problem::new(
            rule.status.unwrap_or(504),
            rule.kind.as_deref().unwrap_or("request_timeout"),
            "Request timed out. Please try again.",
        )),
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

/// The faults that strike before anything is done.
fn refuse(rule: &Rule, breaker: &Breaker) -> Option<Response> {
    let fail = |status: u16, kind: &str, detail: &str| {
        let kind = rule.kind.as_deref().unwrap_or(kind);
        problem(&Problem::new(rule.status.unwrap_or(status), kind, detail))
    };
    match rule.effect {
        Effect::FailBefore => Some(fail(500, "unexpected_error", "Something went wrong.")),
        Effect::RateLimit => Some(fail(
            429,
            "too_many_requests",
            "The provider cannot accept any more requests at the moment. Please try again later.",
        )),
        Effect::Disconnect => {
            Some(fail(401, "disconnected_account", "The account appears to be disconnected from the provider service."))
        }
        Effect::ResetBefore => {
            breaker.cut();
            Some(StatusCode::OK.into_response())
        }
        _ => None,
    }
}

/// An answer that promises its whole length and breaks off in the middle.
async fn truncate(answer: Response, breaker: Breaker) -> Response {
    let (mut parts, body) = answer.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    parts.headers.insert("content-length", HeaderValue::from(bytes.len()));
    let half = bytes.slice(..bytes.len() / 2);
    let stream = futures_util::stream::unfold((Some(half), breaker), |(half, breaker)| async move {
        match half {
            Some(half) => Some((Ok::<Bytes, std::io::Error>(half), (None, breaker))),
            None => {
                // Long enough for the first half to leave.
                tokio::time::sleep(Duration::from_millis(20)).await;
                breaker.cut();
                Some((Err(std::io::ErrorKind::ConnectionReset.into()), (None, breaker)))
            }
        }
    });
    Response::from_parts(parts, Body::from_stream(stream))
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
