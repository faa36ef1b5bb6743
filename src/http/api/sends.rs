//! Sends: list, and decide those whose outcome could not be found out.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::Shared;
use super::super::auth::{Caller, Tenant};
use super::super::error::{Document, Problem, Result};
use super::super::extract::{Id, Json as JsonBody, Query, invalid_cursor, limit};
use super::campaigns::unknown_status;
use crate::domain::id::SendId;
use crate::domain::send::{Action, SendStatus};
use crate::runtime::{ResolveError, Resolved};
use crate::store::send::review::{self, Filter, Listed};

/// Which sends.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListSends {
    /// 1 to 500; 100 where it is not given.
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// `pending`, `dispatching`, `sent`, `failed`, `unknown` or `cancelled`.
    status: Option<String>,
    /// Of this campaign.
    campaign: Option<Uuid>,
    /// Through this account.
    account: Option<Uuid>,
    /// `true`: only those that a person has to decide. `false`: only the others.
    parked: Option<bool>,
}

/// A page of sends, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SendPage {
    /// The page. It may hold fewer than `limit`, or none, and have a next one all the same: a request looks through a bounded
    /// number of sends.
    sends: Vec<ShownSend>,
    /// Hand this in as `cursor` for the next page; null on the last one.
    next_cursor: Option<String>,
}

/// A send, and what to do about it if its outcome is not known.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShownSend {
    #[serde(flatten)]
    send: Listed,
    /// Only while its outcome is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<Unknown>,
}

/// Why the outcome of a send is not known, and how a person finds out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Unknown {
    /// Whether a person has to decide; else the engine still looks for it.
    parked: bool,
    /// What happened.
    why: String,
    /// What the engine has done to find out.
    tried: String,
    /// Where a person sees whether it was sent.
    look_at: String,
}

/// Lists sends, newest first.
#[utoipa::path(get, path = "/v1/sends", tag = "sends", params(ListSends), responses(
    (status = 200, body = SendPage), (status = 400, body = Document)))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Query(query): Query<ListSends>,
) -> Result<Json<SendPage>> {
    let limit = limit(query.limit)?;
    let status =
        query.status.as_deref().map(|s| SendStatus::parse(s).ok_or_else(|| unknown_status(s, SendStatus::ALL)));
    let before = query.cursor.as_deref().map(|c| parse_cursor(c).ok_or_else(invalid_cursor)).transpose()?;
    let filter = Filter {
        status: status.transpose()?,
        campaign: query.campaign,
        account: query.account,
        parked: query.parked,
        before,
    };
    let page = review::list(&shared.app.pool, workspace, filter, limit, shared.app.clock.now()).await?;
    let next_cursor = page.more.map(|(at, id)| format!("{}.{id}", at.timestamp_micros()));
    Ok(Json(SendPage { sends: page.sends.into_iter().map(show).collect(), next_cursor }))
}

/// Reads `<microseconds>.<id>`.
fn parse_cursor(text: &str) -> Option<(DateTime<chrono::Utc>, Uuid)> {
    let (at, id) = text.split_once('.')?;
    Some((DateTime::from_timestamp_micros(at.parse().ok()?)?, id.parse().ok()?))
}

fn show(send: Listed) -> ShownSend {
    let unknown = (send.status == SendStatus::Unknown.as_str()).then(|| explain(&send));
    ShownSend { send, unknown }
}

fn explain(send: &Listed) -> Unknown {
    let time = |at: DateTime<chrono::Utc>| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let called = send.claimed_at.map_or_else(
        || "it was never called by us: another program may have sent it".to_owned(),
        |at| format!("the provider was called at {}", time(at)),
    );
    let tried = match (send.settle_count, send.parked_at) {
        (0, None) => "nothing yet".to_owned(),
        (0, Some(at)) => format!("nothing: it was parked at {}", time(at)),
        (n, None) => format!("looked for it at the provider {n} times so far"),
        (n, Some(at)) => format!("looked for it at the provider {n} times, given up at {}", time(at)),
    };
    let why = send.error.clone().unwrap_or_else(|| "its outcome was lost".to_owned());
    Unknown { parked: send.parked_at.is_some(), why: format!("{why}; {called}"), tried, look_at: look_at(send) }
}

fn look_at(send: &Listed) -> String {
    let whom = |keys: &[&str]| {
        let recipient = send.recipient.as_ref();
        let found = keys.iter().find_map(|key| recipient?.get(*key).and_then(Value::as_str));
        found.unwrap_or("this person").to_owned()
    };
    let account = send.account_name.as_deref().unwrap_or("the account");
    match Action::parse(&send.action) {
        Some(Action::SendLinkedinCr) => {
            format!("the sent invitations of {account} on LinkedIn, or its connections: {}", whom(&["linkedin"]))
        }
        Some(Action::SendLinkedinMessage) => {
            format!("the chat of {account} on LinkedIn with {}", whom(&["linkedin", "recipient_id"]))
        }
        Some(Action::SendEmail) => format!("the sent mails of {account} to {}", whom(&["email"])),
        Some(Action::SendWhatsapp) => format!("the chat of {account} on WhatsApp with {}", whom(&["phone"])),
        _ => format!("what {account} has done, at its provider"),
    }
}

/// What became of the send.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResolveSend {
    /// `sent` or `not_sent`.
    outcome: String,
}

/// A send that was decided; durable.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResolvedSend {
    /// Its id.
    id: Uuid,
    /// What was decided: `sent`, or `not_sent`.
    outcome: &'static str,
    /// Whether its execution has taken it: it goes on after `sent` and sends it again after `not_sent`. Else the execution had
    /// ended or gone on without, and it is recorded on the send alone: nothing is sent.
    applied: bool,
    /// The execution's version after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
    /// The execution's status after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
}

/// Decides a send whose outcome is not known. Who decided is in the timeline, by the name of the API key.
#[utoipa::path(post, path = "/v1/sends/{id}/resolve", tag = "sends", params(("id" = Uuid, Path)),
    request_body = ResolveSend, responses(
    (status = 200, body = ResolvedSend), (status = 404, body = Document),
    (status = 409, description = "`send_known` (with `send_status`): its outcome is known; `settling`: the engine still looks for it",
        body = Document),
    (status = 422, description = "`invalid_fields`", body = Document), (status = 503, body = Document)))]
pub(crate) async fn resolve(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Caller(by): Caller,
    Id(id): Id,
    JsonBody(asked): JsonBody<ResolveSend>,
) -> Result<Json<ResolvedSend>> {
    let (sent, outcome) = match asked.outcome.as_str() {
        "sent" => (true, "sent"),
        "not_sent" => (false, "not_sent"),
        _ => return Err(Problem::invalid(vec![("$.outcome".to_owned(), "is one of sent, not_sent".to_owned())])),
    };
    let resolved = shared.app.runtime.resolve(workspace, SendId(id), sent, &by).await.map_err(|e| match e {
        ResolveError::Store(error) => Problem::from(error),
        ResolveError::Deliver(error) => Problem::from(error),
    })?;
    match resolved {
        Resolved::Applied { version, status } => {
            Ok(Json(ResolvedSend { id, outcome, applied: true, version: Some(version), status: Some(status) }))
        }
        Resolved::Recorded => Ok(Json(ResolvedSend { id, outcome, applied: false, version: None, status: None })),
        Resolved::NoSuchSend => Err(Problem::not_found("send")),
        Resolved::Known { status } => {
            let detail =
                format!("its outcome is known: {status}; only a send whose outcome is not known can be decided");
            Err(Problem::conflict("send_known", detail).with("send_status", status))
        }
        Resolved::Settling => Err(Problem::new(
            StatusCode::CONFLICT,
            "settling",
            "the engine is still looking for it at the provider, and parks it if that does not tell; look again in some minutes",
        )),
    }
}
