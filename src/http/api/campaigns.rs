//! Campaigns: make, list, show, start, pause, resume.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::Shared;
use super::super::auth::Tenant;
use super::super::error::{Document, Problem, Result, flow_problems};
use super::super::extract::{Id, Json as JsonBody, Query, limit, uuid_cursor};
use super::super::import::{self, field::has_nul};
use super::{Made, name};
use crate::domain::account::Channel;
use crate::domain::flow::{self, Flow};
use crate::domain::id::{CampaignId, WorkspaceId};
use crate::domain::preview;
use crate::domain::template;
use crate::store::campaign::{self, Campaign, Listed, Status};
use crate::store::{Pool, account};

/// A campaign to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateCampaign {
    /// A name for people, at most 200 characters.
    name: String,
    /// The flow: `{"steps": [...]}`, see the flow language. Also taken under the name `flow`.
    #[serde(alias = "flow")]
    #[schema(value_type = Object)]
    flow_settings: Value,
    /// The accounts it may use. Absent: every account of the workspace.
    accounts: Option<Vec<Uuid>>,
}

/// A made campaign.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedCampaign {
    /// Its id.
    id: Uuid,
    /// A name for people.
    name: String,
    /// `draft`: it does nothing until it is started.
    status: &'static str,
    /// 1.
    flow_version: i32,
    /// The flow in the current form, as it was stored.
    #[schema(value_type = Object)]
    flow_settings: Value,
}

/// A campaign with its figures.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CampaignDetail {
    /// Its id.
    id: Uuid,
    /// A name for people.
    name: String,
    /// `draft`, `active`, `paused` or `completed`.
    status: String,
    /// The version that new prospects are pinned to; null until the engine has taken over another program's flow.
    flow_version: Option<i32>,
    /// The flow as stored.
    #[schema(value_type = Object)]
    flow_settings: Value,
    /// The accounts it may use; null = every account of the workspace.
    accounts: Option<Vec<Uuid>>,
    /// Of two campaigns that want the same account's next slot, the one with the higher number goes first.
    priority: i32,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it was last changed.
    updated_at: DateTime<Utc>,
    /// How many prospects it has and where they stand.
    prospects: ProspectCounts,
    /// Sends: channel -> status -> how many.
    sends: BTreeMap<String, BTreeMap<String, i64>>,
    /// Why the stored flow cannot be run; empty when it can.
    #[schema(value_type = Vec<Object>)]
    problems: Value,
}

/// Prospects of a campaign.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct ProspectCounts {
    /// All.
    total: i64,
    /// By execution status.
    by_status: BTreeMap<String, i64>,
    /// Of those that have ended: by reason.
    by_exit_reason: BTreeMap<String, i64>,
}

/// A page of campaigns, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CampaignPage {
    /// The page.
    campaigns: Vec<Listed>,
    /// Hand this in as `cursor` for the next page; null on the last one.
    next_cursor: Option<String>,
}

/// A campaign's new status.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CampaignStatus {
    /// Its id.
    id: Uuid,
    /// What it is now.
    status: &'static str,
    /// False: it was so already.
    changed: bool,
}

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListCampaigns {
    /// 1 to 500; 100 where it is not given.
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// `draft`, `active`, `paused` or `completed`.
    status: Option<String>,
}

/// Makes a campaign in `draft`, with version 1 of its flow.
#[utoipa::path(post, path = "/v1/campaigns", tag = "campaigns", request_body = CreateCampaign, responses(
    (status = 201, body = CreatedCampaign),
    (status = 422, description = "`invalid_flow` or `invalid_fields`, with `problems`", body = Document)))]
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    JsonBody(new): JsonBody<CreateCampaign>,
) -> Result<Made<CreatedCampaign>> {
    let title = name(&new.name, 200).map_err(|e| Problem::invalid(vec![("$.name".to_owned(), e)]))?;
    let flow = flow::parse(&new.flow_settings).map_err(|p| Problem::invalid_flow(&p))?;
    let missing = flow::missing_fields(&flow);
    if !missing.is_empty() {
        return Err(Problem::invalid_flow(&missing));
    }
    let flow_settings = flow::to_json(&flow);
    if has_nul(&flow_settings) {
        return Err(Problem::invalid(vec![("$.flow_settings".to_owned(), "holds a NUL character".to_owned())]));
    }
    let pool = &shared.app.pool;
    if let Some(accounts) = &new.accounts {
        check_accounts(pool, workspace, accounts).await?;
    }
    let now = shared.app.clock.now();
    let id = campaign::create(pool, workspace, &title, &flow_settings, new.accounts.as_deref(), now).await?;
    shared.app.runtime.campaign_changed(id);
    let made =
        CreatedCampaign { id: id.0, name: title, status: Status::Draft.as_str(), flow_version: 1, flow_settings };
    Ok((StatusCode::CREATED, Json(made)))
}

/// A flow to be looked at, for one person.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PreviewCampaign {
    /// A name, which is not looked at.
    #[serde(default, rename = "name")]
    _name: Option<String>,
    /// The flow, as for `POST /v1/campaigns`.
    #[serde(alias = "flow")]
    #[schema(value_type = Object)]
    flow_settings: Value,
    /// The person, like a row of an upload.
    #[schema(value_type = Object)]
    prospect: Value,
}

/// Shows what a flow would write to one person: each step's texts filled in, their lengths against the limits, and problems with
/// their place. Sends nothing and stores nothing.
#[utoipa::path(post, path = "/v1/campaigns/preview", tag = "campaigns", request_body = PreviewCampaign, responses(
    (status = 200, description = "`{ok, steps: [{position, id, action, texts: [{key, text, length, length_max}]}], problems}`", body = Object),
    (status = 422, description = "`invalid_flow` or `invalid_fields`, with `problems`", body = Document)))]
pub(crate) async fn preview(_tenant: Tenant, JsonBody(asked): JsonBody<PreviewCampaign>) -> Result<Json<Value>> {
    let flow = flow::parse(&asked.flow_settings).map_err(|p| Problem::invalid_flow(&p))?;
    let prospect = import::json::person(asked.prospect).map_err(|row| {
        let path = row.column.map_or_else(|| "$.prospect".to_owned(), |column| format!("$.prospect[{column:?}]"));
        Problem::invalid(vec![(path, row.reason)])
    })?;
    let mut made = preview::preview(&flow, &prospect);
    made.problems.splice(0..0, flow::missing_fields(&flow));
    Ok(Json(made.to_json()))
}

/// An empty list would mean a campaign that can never send, an unknown id one that waits for nobody knows what.
async fn check_accounts(pool: &Pool, workspace: WorkspaceId, ids: &[Uuid]) -> Result<()> {
    let wrong = |message: String| Problem::invalid(vec![("$.accounts".to_owned(), message)]);
    if ids.is_empty() || ids.len() > 1000 {
        return Err(wrong("name 1 to 1000 accounts, or leave it out to use every account".to_owned()));
    }
    let unknown = account::unknown(pool, workspace, ids).await?;
    if unknown.is_empty() {
        return Ok(());
    }
    let unknown: Vec<String> = unknown.iter().take(20).map(Uuid::to_string).collect();
    Err(wrong(format!("no such account: {}", unknown.join(", "))))
}

/// Lists the workspace's campaigns, newest first.
#[utoipa::path(get, path = "/v1/campaigns", tag = "campaigns", params(ListCampaigns), responses(
    (status = 200, body = CampaignPage), (status = 400, body = Document)))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Query(query): Query<ListCampaigns>,
) -> Result<Json<CampaignPage>> {
    let limit = limit(query.limit)?;
    let status = query.status.as_deref().map(|s| Status::parse(s).ok_or_else(|| unknown_status(s, Status::ALL)));
    let before = uuid_cursor(query.cursor.as_deref())?;
    let mut campaigns =
        campaign::list(&shared.app.pool, workspace, before, status.transpose()?, limit as i64 + 1).await?;
    let next_cursor = next(&mut campaigns, limit, |c| c.id.to_string());
    Ok(Json(CampaignPage { campaigns, next_cursor }))
}

/// The status in the query is none that exists.
pub(crate) fn unknown_status(given: &str, all: &[impl ToString]) -> Problem {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    let shown: String = given.chars().take(40).collect();
    Problem::new(
        StatusCode::BAD_REQUEST,
        "invalid_query",
        format!("status is {shown:?}; it is one of {}", all.join(", ")),
    )
}

/// Cuts a page that was read with one row too many, and gives the cursor of the next one.
pub(crate) fn next<T>(rows: &mut Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Option<String> {
    let more = rows.len() > limit;
    rows.truncate(limit);
    rows.last().filter(|_| more).map(cursor)
}

/// Shows a campaign with where its prospects and sends stand.
#[utoipa::path(get, path = "/v1/campaigns/{id}", tag = "campaigns", params(("id" = Uuid, Path)), responses(
    (status = 200, body = CampaignDetail), (status = 404, body = Document)))]
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Id(id): Id,
) -> Result<Json<CampaignDetail>> {
    let pool = &shared.app.pool;
    let id = CampaignId(id);
    let campaign = find(pool, workspace, id).await?;
    let mut prospects = ProspectCounts::default();
    for count in campaign::execution_counts(pool, workspace, id).await? {
        prospects.total += count.n;
        *prospects.by_status.entry(count.status.unwrap_or_default()).or_default() += count.n;
        if let Some(reason) = count.exit_reason {
            *prospects.by_exit_reason.entry(reason).or_default() += count.n;
        }
    }
    let mut sends: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
    for count in campaign::send_counts(pool, workspace, id).await? {
        sends.entry(count.channel).or_default().insert(count.status, count.n);
    }
    let problems =
        flow::parse(&campaign.flow_settings).err().map_or_else(|| Value::Array(Vec::new()), |p| flow_problems(&p));
    Ok(Json(CampaignDetail {
        id: campaign.id,
        name: campaign.name,
        status: campaign.status,
        flow_version: campaign.flow_version,
        flow_settings: campaign.flow_settings,
        accounts: campaign.accounts,
        priority: campaign.priority,
        created_at: campaign.created_at,
        updated_at: campaign.updated_at,
        prospects,
        sends,
        problems,
    }))
}

/// A campaign of the workspace, or 404.
pub(crate) async fn find(pool: &Pool, workspace: WorkspaceId, id: CampaignId) -> Result<Campaign> {
    campaign::get(pool, workspace, id).await?.ok_or_else(|| Problem::not_found("campaign"))
}

/// Starts a campaign. Refused with `no_account` while a channel of its flow has no account.
#[utoipa::path(post, path = "/v1/campaigns/{id}/start", tag = "campaigns", params(("id" = Uuid, Path)), responses(
    (status = 200, body = CampaignStatus), (status = 404, body = Document),
    (status = 409, description = "`invalid_status`, `no_account` (with `channels`) or `no_public_url`", body = Document),
    (status = 422, description = "`invalid_flow`", body = Document)))]
pub(crate) async fn start(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Id(id): Id,
) -> Result<Json<CampaignStatus>> {
    let pool = &shared.app.pool;
    let id = CampaignId(id);
    let campaign = find(pool, workspace, id).await?;
    if campaign.status == Status::Draft.as_str() {
        let flow = flow::parse(&campaign.flow_settings).map_err(|p| Problem::invalid_flow(&p))?;
        let served = account::channels(pool, workspace, id).await?;
        let missing: Vec<&str> =
            channels(&flow).into_iter().filter(|c| !served.contains(c)).map(Channel::as_str).collect();
        if !missing.is_empty() {
            let detail = format!(
                "the flow needs {}, and the campaign may use no account for it; add one with POST /v1/accounts",
                missing.join(", ")
            );
            return Err(Problem::conflict("no_account", detail).with("channels", missing));
        }
        let links = flow.steps.iter().find(|s| s.writes(template::UNSUBSCRIBE_URL));
        if let Some(step) = links.filter(|_| !shared.app.runtime.has_links()) {
            let detail = format!(
                "step `{}` writes {{{{ {} }}}}, and this server does not know where people reach it; set http.public_url",
                step.id,
                template::UNSUBSCRIBE_URL
            );
            return Err(Problem::conflict("no_public_url", detail));
        }
    }
    switch(&shared, workspace, id, Status::Draft, Status::Active).await
}

/// Pauses a campaign: time and sends are held, facts are still recorded.
#[utoipa::path(post, path = "/v1/campaigns/{id}/pause", tag = "campaigns", params(("id" = Uuid, Path)), responses(
    (status = 200, body = CampaignStatus), (status = 404, body = Document),
    (status = 409, description = "`invalid_status`", body = Document)))]
pub(crate) async fn pause(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Id(id): Id,
) -> Result<Json<CampaignStatus>> {
    switch(&shared, workspace, CampaignId(id), Status::Active, Status::Paused).await
}

/// Resumes a paused campaign.
#[utoipa::path(post, path = "/v1/campaigns/{id}/resume", tag = "campaigns", params(("id" = Uuid, Path)), responses(
    (status = 200, body = CampaignStatus), (status = 404, body = Document),
    (status = 409, description = "`invalid_status`", body = Document)))]
pub(crate) async fn resume(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Id(id): Id,
) -> Result<Json<CampaignStatus>> {
    switch(&shared, workspace, CampaignId(id), Status::Paused, Status::Active).await
}

/// Switches from one status to another; already there is fine, anything else is a conflict.
async fn switch(
    shared: &Shared,
    workspace: WorkspaceId,
    id: CampaignId,
    from: Status,
    to: Status,
) -> Result<Json<CampaignStatus>> {
    let pool = &shared.app.pool;
    let changed = campaign::switch(pool, workspace, id, from, to, shared.app.clock.now()).await?;
    if changed {
        shared.app.runtime.campaign_changed(id);
        tracing::info!(campaign.id = %id, status = to.as_str(), "campaign switched");
    } else {
        let status = find(pool, workspace, id).await?.status;
        if status != to.as_str() {
            let detail = format!("the campaign is {status}; only a campaign that is {from} becomes {to} this way");
            return Err(Problem::conflict("invalid_status", detail).with("campaign_status", status));
        }
    }
    Ok(Json(CampaignStatus { id: id.0, status: to.as_str(), changed }))
}

/// The channels a flow contacts people through.
pub(crate) fn channels(flow: &Flow) -> BTreeSet<Channel> {
    flow.steps.iter().filter_map(|s| s.action.channel()).collect()
}
