//! The list of those who are not written to: add, list, remove.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::Shared;
use super::super::auth::Tenant;
use super::super::error::{Document, Problem, Result};
use super::super::extract::{Id, Query, body, content_type, is_json, limit, unsupported, uuid_cursor};
use super::super::import::{RejectedRow, suppressions as import};
use super::Made;
use super::campaigns::next;
use super::import::refused;
use crate::domain::suppression::{Key, Kind, Reason};
use crate::store::suppression::{self, Filter, Listed, New};

/// What became of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AddedSuppressions {
    /// Entries that are new, or hold on every channel now and held for mail alone before.
    added: u64,
    /// Entries that were on the list already, or twice in the request.
    known: u64,
    /// Entries that were not taken, each with its place and reason.
    rejected: Vec<RejectedRow>,
}

/// Which part of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListSuppressions {
    /// 1 to 500; 100 where it is not given.
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// `address`, `domain`, `profile` or `phone`.
    kind: Option<String>,
    /// `unsubscribed`, `hard_bounce`, `complaint` or `manual`.
    reason: Option<String>,
    /// The entry with exactly this value, in any spelling; with `kind` where the value alone does not tell.
    value: Option<String>,
}

/// A page of the list, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SuppressionPage {
    /// The page.
    suppressions: Vec<Listed>,
    /// Hand this in as `cursor` for the next page; null on the last one.
    next_cursor: Option<String>,
}

/// An entry that was taken off.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RemovedSuppression {
    /// Its id.
    id: Uuid,
    /// Always true.
    removed: bool,
}

/// Puts addresses, domains, profiles and phone numbers on the list, at most 10,000 in a request. From now on nobody whom an
/// entry names is taken in, and whoever is under way ends as `suppressed` before anything more is sent to them.
#[utoipa::path(post, path = "/v1/suppressions", tag = "suppressions",
    request_body(description = "`{\"value\", \"kind\"?, \"reason\"?}`, an array of them, `{\"suppressions\": [...]}`, or CSV",
        content((Object = "application/json"), (String = "text/csv"))),
    responses(
        (status = 201, description = "Entries were added", body = AddedSuppressions),
        (status = 200, description = "Nothing was added: all were there, or none was taken", body = AddedSuppressions),
        (status = 413, description = "`body_too_large` or `too_many_rows`", body = Document),
        (status = 415, body = Document),
        (status = 422, description = "`not_utf8`, `empty_file`, `no_contact_column`, `invalid_csv`", body = Document)))]
pub(crate) async fn add(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    request: Request,
) -> Result<Made<AddedSuppressions>> {
    let reader = match content_type(request.headers()).as_str() {
        "text/csv" | "application/csv" => import::csv,
        other if is_json(other) => import::json,
        _ => return Err(unsupported("application/json or text/csv")),
    };
    let body = body(request, &()).await?;
    let import::List { entries, rejected } = reader(&body).map_err(|e| refused(&e))?;
    let new = |(key, reason)| New { key, reason, campaign: None, prospect: None };
    let entries: Vec<New> = entries.into_iter().map(new).collect();
    let added = suppression::add(&shared.app.pool, workspace, &entries, shared.app.clock.now()).await?;
    tracing::info!(added, given = entries.len(), rejected = rejected.len(), "suppressions added");
    let status = if added > 0 { StatusCode::CREATED } else { StatusCode::OK };
    let known = (entries.len() as u64).saturating_sub(added);
    Ok((status, Json(AddedSuppressions { added, known, rejected })))
}

/// Lists who is not written to, newest first.
#[utoipa::path(get, path = "/v1/suppressions", tag = "suppressions", params(ListSuppressions), responses(
    (status = 200, body = SuppressionPage), (status = 400, body = Document)))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Query(query): Query<ListSuppressions>,
) -> Result<Json<SuppressionPage>> {
    let pool = &shared.app.pool;
    let limit = limit(query.limit)?;
    let kind = query.kind.as_deref().map(|name| {
        Kind::parse(name).ok_or_else(|| unknown("kind", &Kind::ALL.iter().map(|k| k.as_str()).collect::<Vec<_>>()))
    });
    let kind = kind.transpose()?;
    let reason = query.reason.as_deref().map(|name| {
        Reason::parse(name)
            .ok_or_else(|| unknown("reason", &Reason::ALL.iter().map(|r| r.as_str()).collect::<Vec<_>>()))
    });
    let reason = reason.transpose()?;
    let before = uuid_cursor(query.cursor.as_deref())?;
    if let Some(value) = &query.value {
        let key = Key::parse(kind, value)
            .map_err(|why| Problem::new(StatusCode::BAD_REQUEST, "invalid_query", format!("value {why}")))?;
        let mut suppressions = suppression::find(pool, workspace, &[key]).await?;
        suppressions.retain(|entry| reason.is_none_or(|r| entry.reason == r.as_str()));
        return Ok(Json(SuppressionPage { suppressions, next_cursor: None }));
    }
    let filter = Filter { before, kind, reason };
    let mut suppressions = suppression::list(pool, workspace, filter, limit as i64 + 1).await?;
    let next_cursor = next(&mut suppressions, limit, |s| s.id.to_string());
    Ok(Json(SuppressionPage { suppressions, next_cursor }))
}

/// Takes an entry off the list. Whoever ended because of it stays ended until they are restarted.
#[utoipa::path(delete, path = "/v1/suppressions/{id}", tag = "suppressions", params(("id" = Uuid, Path)), responses(
    (status = 200, body = RemovedSuppression), (status = 404, body = Document)))]
pub(crate) async fn remove(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Id(id): Id,
) -> Result<Json<RemovedSuppression>> {
    if !suppression::remove(&shared.app.pool, workspace, id).await? {
        return Err(Problem::not_found("suppression"));
    }
    tracing::info!(suppression.id = %id, "suppression removed");
    Ok(Json(RemovedSuppression { id, removed: true }))
}

fn unknown(field: &str, known: &[&str]) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_query", format!("{field} is one of {}", known.join(", ")))
}
