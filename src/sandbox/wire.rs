//! The way of a request under `/api/v1`: key, route, body, fault, the world, answer.

use std::sync::Arc;

use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::broken::{cut_short, gateway, refuse, refused_with, truncate};
use super::call::Call;
use super::calls::Ending;
use super::errors::Problem;
use super::faults::{self, Effect, Strike};
use super::ledger::Ticket;
use super::multipart;
use super::net::Breaker;
use super::routes::{Op, changes, route};
use super::server::Sandbox;
use super::text::percent_decode;
use super::world::World;

/// A status and a body.
pub(super) type Answer = Result<(u16, Value), Problem>;

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
    work(sandbox, &breaker, label, op, call).await
}

/// The answer where there is nothing: in the same shape as under `/api/v1`.
pub(super) async fn nowhere() -> Response {
    problem(&Problem::new(404, "resource_not_found", "There is no such route."))
}

/// Ends a watched request even when its client has gone away and dropped us.
struct Watch {
    sandbox: Arc<Sandbox>,
    ticket: Ticket,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.sandbox.with(|w| w.ledger.finish(self.ticket));
    }
}

/// What a request met before it was worked on.
struct Entrance {
    /// The one account it is about; empty when there is none, or more than one.
    account: String,
    about: String,
    strike: Option<Strike>,
    ticket: Option<Ticket>,
}

/// Looks up the faults of a request, and begins to watch it.
fn enter(w: &mut World, label: &'static str, call: &Call) -> Entrance {
    let (accounts, about) = (call.accounts(w), call.about());
    let ids: Vec<String> = accounts.iter().map(|a| w.accounts[*a].id.clone()).collect();
    // Only shares are drawn, and only from this.
    let key = if w.rules.is_empty() { String::new() } else { call.key(w) };
    let request = faults::Request { label, accounts: &ids, about: &about, key: &key };
    let strike = faults::strike(&mut w.rules, w.opts.seed, &request);
    if let Some(strike) = strike.as_ref().filter(|s| s.effect == Effect::Disconnect) {
        for &index in &accounts {
            if strike.account_id.as_ref().is_none_or(|a| *a == w.accounts[index].id) {
                w.disconnect(index, strike.back_after);
            }
        }
    }
    let account = if let [one] = &ids[..] { one.clone() } else { String::new() };
    if let Some((status, kind)) = strike.as_ref().and_then(refused_with) {
        w.calls.write(w.now, &account, label, &about, &Ending { status, kind: Some(&kind), fault: true });
    }
    let ticket = (changes(label) && !account.is_empty()).then(|| w.ledger.begin(&account));
    Entrance { account, about, strike, ticket }
}

/// A request on its way to its effect.
struct Work {
    sandbox: Arc<Sandbox>,
    label: &'static str,
    op: Op,
    call: Call,
    account: String,
    about: String,
    ticket: Option<Ticket>,
    struck: bool,
}

impl Work {
    fn run(&self) -> Answer {
        self.sandbox.with(|w| {
            w.ledger.current = self.ticket;
            let answer = (self.op)(w, &self.call);
            w.ledger.current = None;
            let ending = match &answer {
                Ok((status, _)) => Ending { status: *status, kind: None, fault: self.struck },
                Err(p) => Ending { status: p.status, kind: Some(&p.kind), fault: false },
            };
            w.calls.write(w.now, &self.account, self.label, &self.about, &ending);
            answer
        })
    }
}

async fn work(sandbox: Arc<Sandbox>, breaker: &Breaker, label: &'static str, op: Op, call: Call) -> Response {
    let Entrance { account, about, strike, ticket } = sandbox.with(|w| enter(w, label, &call));
    let watch = ticket.map(|ticket| Watch { sandbox: Arc::clone(&sandbox), ticket });
    let struck = strike.is_some();
    let work = Work { sandbox, label, op, call, account, about, ticket, struck };
    let Some(strike) = strike else {
        return respond(work.run());
    };
    let wait = strike.wait();
    if refused_with(&strike).is_some() {
        tokio::time::sleep(wait).await;
        return refuse(&strike, breaker);
    }
    let answer = if strike.effect == Effect::SlowBefore {
        // A client that gives up meanwhile drops this future, but not what it has asked for.
        let late = async move {
            tokio::time::sleep(wait).await;
            work.run()
        };
        let cut = |_| Err(Problem::new(500, "unexpected_error", "The work on the request has ended early."));
        respond(tokio::spawn(late).await.unwrap_or_else(cut))
    } else {
        let answer = respond(work.run());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        answer
    };
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
        Effect::TruncateJson => cut_short(answer).await,
        _ => answer,
    }
}

fn respond(answer: Answer) -> Response {
    match answer {
        Ok((status, body)) => json_response(status, &body),
        Err(p) => problem(&p),
    }
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
