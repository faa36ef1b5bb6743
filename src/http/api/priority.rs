//! `PATCH /v1/campaigns/{id}`: which campaign goes first where two want the same slot.

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
use crate::domain::id::CampaignId;
use crate::store::campaign;

/// A larger number means nothing more.
const PRIORITY_MAX: i32 = 100;

/// What is to be changed about a campaign.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeCampaign {
    /// Of two campaigns that want the same account's next slot, the one with the higher number goes first: -100 to 100.
    priority: i32,
}

/// What it is now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChangedCampaign {
    /// Its id.
    id: Uuid,
    /// Its priority.
    priority: i32,
}

/// Sets a campaign's priority. It holds for those who stand in line from now on; follow-ups go before first touches whatever it is.
#[utoipa::path(patch, path = "/v1/campaigns/{id}", tag = "campaigns", params(("id" = Uuid, Path)),
    request_body = ChangeCampaign, responses(
    (status = 200, body = ChangedCampaign), (status = 404, body = Document),
    (status = 422, description = "`invalid_fields`", body = Document)))]
pub(crate) async fn change(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Id(id): Id,
    JsonBody(asked): JsonBody<ChangeCampaign>,
) -> Result<Json<ChangedCampaign>> {
    let priority = asked.priority;
    if !(-PRIORITY_MAX..=PRIORITY_MAX).contains(&priority) {
        let reason = format!("is between -{PRIORITY_MAX} and {PRIORITY_MAX}");
        return Err(Problem::invalid(vec![("$.priority".to_owned(), reason)]));
    }
    let id = CampaignId(id);
    if !campaign::set_priority(&shared.app.pool, workspace, id, priority, shared.app.clock.now()).await? {
        return Err(Problem::not_found("campaign"));
    }
    shared.app.runtime.campaign_changed(id);
    Ok(Json(ChangedCampaign { id: id.0, priority }))
}
