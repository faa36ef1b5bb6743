//! Prospects: list, show, timeline.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::Shared;
use super::super::auth::Tenant;
use super::super::error::{Document, Problem, Result};
use super::super::extract::{Id, Query, invalid_cursor, limit, uuid_cursor};
use super::campaigns::{find, next, unknown_status};
use super::waiting::{WaitingOn, waiting_on};
use crate::domain::execution::Status;
use crate::domain::id::{CampaignId, ProspectId, WorkspaceId};
use crate::store::Pool;
use crate::store::prospect::{self, Execution, Listed, Prospect};
use crate::store::timeline::{self, Cursor};

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListProspects {
    /// 1 to 500; 100 where it is not given.
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// `pending`, `executing`, `waiting_trigger`, `completed`, `failed` or `paused`.
    status: Option<String>,
}

/// A page of prospects in the order they were taken in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProspectPage {
    /// The page.
    prospects: Vec<Listed>,
    /// Hand this in as `cursor` for the next page; null on the last one.
    next_cursor: Option<String>,
}

/// A prospect with the state of its execution.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProspectDetail {
    #[serde(flatten)]
    prospect: Prospect,
    /// The execution row; null while none was made (a prospect that another program inserted).
    execution: Option<Execution>,
    /// What happens next, and when.
    waiting_on: WaitingOn,
}

/// Which part of a timeline.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadTimeline {
    /// 1 to 500; 100 where it is not given.
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// One line of a timeline.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TimelineEntry {
    /// When it happened: the transition, or the decision to send.
    at: DateTime<Utc>,
    /// `transition` or `send`.
    kind: &'static str,
    /// The transition (trigger, from, to ...) or the send (channel, status, text, times ...).
    #[serde(flatten)]
    #[schema(value_type = Object)]
    entry: Value,
}

/// A page of a timeline, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TimelinePage {
    /// The page.
    entries: Vec<TimelineEntry>,
    /// Hand this in as `cursor` for the next page; null on the last one.
    next_cursor: Option<String>,
}

/// Lists a campaign's prospects.
#[utoipa::path(get, path = "/v1/campaigns/{id}/prospects", tag = "prospects", params(("id" = Uuid, Path), ListProspects),
    responses((status = 200, body = ProspectPage), (status = 400, body = Document), (status = 404, body = Document)))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Id(id): Id,
    Query(query): Query<ListProspects>,
) -> Result<Json<ProspectPage>> {
    let pool = &shared.app.pool;
    let id = CampaignId(id);
    let limit = limit(query.limit)?;
    let status = query.status.as_deref().map(|s| Status::parse(s).ok_or_else(|| unknown_status(s, Status::ALL)));
    let after = uuid_cursor(query.cursor.as_deref())?;
    find(pool, workspace, id).await?;
    let mut prospects = prospect::list(pool, workspace, id, after, status.transpose()?, limit as i64 + 1).await?;
    let next_cursor = next(&mut prospects, limit, |p| p.id.to_string());
    Ok(Json(ProspectPage { prospects, next_cursor }))
}

/// Shows a prospect: the person, the execution row, and what it waits for.
#[utoipa::path(get, path = "/v1/prospects/{id}", tag = "prospects", params(("id" = Uuid, Path)), responses(
    (status = 200, body = ProspectDetail), (status = 404, body = Document)))]
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Id(id): Id,
) -> Result<Json<ProspectDetail>> {
    let pool = &shared.app.pool;
    let id = ProspectId(id);
    let prospect = prospect::get(pool, workspace, id).await?.ok_or_else(|| Problem::not_found("prospect"))?;
    let execution = prospect::execution(pool, workspace, id).await?;
    let engine = (&shared.app.runtime, shared.app.clock.now());
    let waiting_on = waiting_on(pool, workspace, prospect.campaign_id, execution.as_ref(), engine).await?;
    Ok(Json(ProspectDetail { prospect, execution, waiting_on }))
}

/// What happened to a prospect: its transitions and sends, oldest first.
#[utoipa::path(get, path = "/v1/prospects/{id}/timeline", tag = "prospects", params(("id" = Uuid, Path), ReadTimeline),
    responses((status = 200, body = TimelinePage), (status = 400, body = Document), (status = 404, body = Document)))]
pub(crate) async fn timeline(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Id(id): Id,
    Query(query): Query<ReadTimeline>,
) -> Result<Json<TimelinePage>> {
    let pool = &shared.app.pool;
    let limit = limit(query.limit)?;
    let cursor =
        query.cursor.as_deref().map_or_else(|| Ok(Cursor::start()), |c| parse_cursor(c).ok_or_else(invalid_cursor))?;
    let execution = match prospect::execution(pool, workspace, ProspectId(id)).await? {
        Some(execution) => execution,
        // Somebody without an execution has no history yet.
        None if prospect::get(pool, workspace, ProspectId(id)).await?.is_some() => {
            return Ok(Json(TimelinePage { entries: Vec::new(), next_cursor: None }));
        }
        None => return Err(Problem::not_found("prospect")),
    };
    let mut rows = timeline::page(pool, workspace, execution.execution_id(), &cursor, limit as i64 + 1).await?;
    let next_cursor = next(&mut rows, limit, |e| format!("{}.{}.{}", e.at.timestamp_micros(), e.kind, e.key));
    let entries = rows
        .into_iter()
        .map(|e| TimelineEntry { at: e.at, kind: if e.kind == 0 { "transition" } else { "send" }, entry: e.body })
        .collect();
    Ok(Json(TimelinePage { entries, next_cursor }))
}

/// Reads `<microseconds>.<kind>.<key>`.
fn parse_cursor(text: &str) -> Option<Cursor> {
    let mut parts = text.splitn(3, '.');
    let at = DateTime::from_timestamp_micros(parts.next()?.parse().ok()?)?;
    let kind = parts.next()?.parse().ok()?;
    let key = parts.next()?;
    let plain = key.len() <= 40 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    plain.then(|| Cursor { at, kind, key: key.to_owned() })
}

/// The execution of a prospect of the workspace, or 404.
pub(crate) async fn execution_of(pool: &Pool, workspace: WorkspaceId, prospect: Uuid) -> Result<Execution> {
    prospect::execution(pool, workspace, ProspectId(prospect)).await?.ok_or_else(|| Problem::not_found("prospect"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_cursor_reads_back_and_others_are_refused() {
        let cursor = parse_cursor("1700000000000001.1.abc-9").unwrap();
        assert_eq!(
            (cursor.at.timestamp_micros(), cursor.kind, cursor.key.as_str()),
            (1_700_000_000_000_001, 1, "abc-9")
        );
        for bad in ["", "x.1.a", "1.1", "1.1.a'b", "99999999999999999999.1.a"] {
            assert_eq!(parse_cursor(bad), None, "{bad}");
        }
    }
}
