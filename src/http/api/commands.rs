//! An operator's commands to one prospect: pause, resume, skip, restart, stop.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::Shared;
use super::super::auth::Tenant;
use super::super::error::{Document, Problem, Result};
use super::super::extract::{Id, Json as JsonBody};
use super::prospects::execution_of;
use crate::domain::flow::{self, Flow};
use crate::domain::id::{CampaignId, WorkspaceId};
use crate::domain::trigger::Trigger;
use crate::runtime::Delivery;
use crate::store::prospect::Execution;
use crate::store::{Pool, campaign, suppression};

/// A command that was carried out; durable.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Applied {
    /// Always true.
    applied: bool,
    /// The execution's version after it.
    version: i64,
    /// Its status after it.
    status: &'static str,
}

/// Where to go on: one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Restart {
    /// 1-based position of the step.
    step: Option<u32>,
    /// The step's id.
    step_id: Option<String>,
}

/// A command that needs nothing but the prospect.
async fn simple(shared: &Shared, workspace: WorkspaceId, id: Uuid, trigger: Trigger) -> Result<Json<Applied>> {
    let execution = execution_of(&shared.app.pool, workspace, id).await?;
    command(shared, &execution, trigger).await
}

/// Hands a trigger to the prospect's execution.
async fn command(shared: &Shared, execution: &Execution, trigger: Trigger) -> Result<Json<Applied>> {
    let name = trigger.name();
    match shared.app.runtime.deliver(execution.execution_id(), trigger).await? {
        Delivery::Applied { version, status } => {
            tracing::info!(execution.id = %execution.id, trigger = name, version, "operator command applied");
            Ok(Json(Applied { applied: true, version, status: status.as_str() }))
        }
        Delivery::Rejected { reason } => {
            let detail = format!("{name} does not fit the prospect's status: {}", reason.replace('_', " "));
            Err(Problem::conflict("rejected", detail).with("reason", reason))
        }
    }
}

/// Pauses a prospect until it is resumed.
#[utoipa::path(post, path = "/v1/prospects/{id}/pause", tag = "prospects", params(("id" = Uuid, Path)), responses(
    (status = 200, body = Applied), (status = 404, body = Document),
    (status = 409, description = "`rejected`, with `reason`", body = Document), (status = 503, body = Document)))]
pub(crate) async fn pause(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Id(id): Id,
) -> Result<Json<Applied>> {
    simple(&shared, workspace, id, Trigger::Pause).await
}

/// Resumes a paused prospect.
#[utoipa::path(post, path = "/v1/prospects/{id}/resume", tag = "prospects", params(("id" = Uuid, Path)), responses(
    (status = 200, body = Applied), (status = 404, body = Document),
    (status = 409, description = "`rejected`, with `reason`", body = Document), (status = 503, body = Document)))]
pub(crate) async fn resume(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Id(id): Id,
) -> Result<Json<Applied>> {
    simple(&shared, workspace, id, Trigger::Resume).await
}

/// Passes over the current step.
#[utoipa::path(post, path = "/v1/prospects/{id}/skip", tag = "prospects", params(("id" = Uuid, Path)), responses(
    (status = 200, body = Applied), (status = 404, body = Document),
    (status = 409, description = "`rejected`, with `reason`", body = Document), (status = 503, body = Document)))]
pub(crate) async fn skip(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Id(id): Id,
) -> Result<Json<Applied>> {
    simple(&shared, workspace, id, Trigger::Skip).await
}

/// Ends a prospect's execution.
#[utoipa::path(post, path = "/v1/prospects/{id}/stop", tag = "prospects", params(("id" = Uuid, Path)), responses(
    (status = 200, body = Applied), (status = 404, body = Document),
    (status = 409, description = "`rejected`, with `reason`", body = Document), (status = 503, body = Document)))]
pub(crate) async fn stop(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Id(id): Id,
) -> Result<Json<Applied>> {
    simple(&shared, workspace, id, Trigger::Stop).await
}

/// Goes to a step and starts it now; also revives an execution that has ended.
#[utoipa::path(post, path = "/v1/prospects/{id}/restart", tag = "prospects", params(("id" = Uuid, Path)),
    request_body = Restart, responses(
    (status = 200, body = Applied), (status = 404, body = Document),
    (status = 409, description = "`rejected`, with `reason`; `suppressed`: the person is not written to any more", body = Document),
    (status = 422, description = "`invalid_fields`: no such step", body = Document), (status = 503, body = Document)))]
pub(crate) async fn restart(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Id(id): Id,
    JsonBody(to): JsonBody<Restart>,
) -> Result<Json<Applied>> {
    let pool = &shared.app.pool;
    let execution = execution_of(pool, workspace, id).await?;
    let flow = pinned_flow(pool, workspace, &execution).await?;
    let wrong = |field: &str, message: String| Problem::invalid(vec![(format!("$.{field}"), message)]);
    let step = match (to.step, to.step_id) {
        (Some(n), None) if (1..=flow.len()).contains(&n) => n,
        (Some(_), None) => return Err(wrong("step", format!("the flow has steps 1 to {}", flow.len()))),
        (None, Some(id)) => flow.position(&id).ok_or_else(|| {
            let ids: Vec<&str> = flow.steps.iter().map(|s| s.id.as_str()).collect();
            wrong("step_id", format!("no such step; the flow has {}", ids.join(", ")))
        })?,
        _ => return Err(wrong("step", "give either step (a position) or step_id".to_owned())),
    };
    if let Some(entry) = suppression::of_execution(pool, execution.execution_id()).await?.first() {
        let detail = format!(
            "this person is not written to any more ({}, since {}); if they have agreed to be written to again, take the entry \
             off the list first: DELETE /v1/suppressions/{}",
            entry.reason.replace('_', " "),
            entry.created_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            entry.id
        );
        return Err(Problem::conflict("suppressed", detail)
            .with("reason", entry.reason.as_str())
            .with("suppression_id", entry.id.to_string()));
    }
    command(&shared, &execution, Trigger::Restart { step }).await
}

/// The flow version the execution is pinned to; the campaign's own flow where another program never wrote versions.
async fn pinned_flow(pool: &Pool, workspace: WorkspaceId, execution: &Execution) -> Result<Flow> {
    let id = CampaignId(execution.campaign_id);
    let version = match execution.flow_version {
        Some(version) => campaign::flow_version(pool, workspace, id, version).await?,
        None => None,
    };
    let stored = match version {
        Some(stored) => stored,
        None => super::campaigns::find(pool, workspace, id).await?.flow_settings,
    };
    flow::parse(&stored).map_err(|p| Problem::invalid_flow(&p))
}
