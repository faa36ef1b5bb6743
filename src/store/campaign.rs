//! Campaigns as the API makes, lists and switches them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Error, Pool, failed};
use crate::domain::account::names;
use crate::domain::id::{CampaignId, WorkspaceId};
use crate::domain::time::Timestamp;

// The first version of the flow is made with the campaign: an execution is always pinned to a version that exists.
const INSERT: &str = "WITH made AS ( \
       INSERT INTO campaigns (id, workspace_id, name, status, flow_settings, flow_version, accounts, created_at, updated_at) \
       VALUES ($2, $1, $3, 'draft', $4, 1, $5, $6, $6) RETURNING id) \
     INSERT INTO flow_versions (workspace_id, campaign_id, version, flow, created_at) SELECT $1, id, 1, $4, $6 FROM made";

// Other programs say `running` for `active`.
const GET: &str = "SELECT c.id, c.name, CASE c.status WHEN 'running' THEN 'active' ELSE coalesce(c.status, 'draft') END AS status, \
       coalesce(c.flow_settings, '{}') AS flow_settings, c.flow_version, c.accounts, coalesce(c.send_priority, 0) AS priority, c.created_at, c.updated_at \
     FROM campaigns c WHERE c.workspace_id = $1 AND c.id = $2";

const PRIORITY: &str = "UPDATE campaigns SET send_priority = $3, updated_at = $4 WHERE workspace_id = $1 AND id = $2";

const LIST: &str = "SELECT c.id, c.name, CASE c.status WHEN 'running' THEN 'active' ELSE coalesce(c.status, 'draft') END AS status, \
       c.flow_version, c.created_at, c.updated_at FROM campaigns c \
     WHERE c.workspace_id = $1 AND ($2::uuid IS NULL OR c.id < $2) AND ($3::text IS NULL OR c.status = $3 OR ($3 = 'active' AND c.status = 'running')) \
     ORDER BY c.id DESC LIMIT $4";

const SWITCH: &str = "UPDATE campaigns SET status = $4, updated_at = $5 WHERE workspace_id = $1 AND id = $2 \
     AND (status = $3 OR ($3 = 'active' AND status = 'running') OR ($3 = 'draft' AND status IS NULL))";

const EXECUTIONS: &str = "SELECT e.status, e.exit_reason, count(*) AS n \
     FROM campaign_prospect_execution_state e JOIN campaigns c ON c.id = e.campaign_id \
     WHERE c.workspace_id = $1 AND c.id = $2 GROUP BY e.status, e.exit_reason";

// Through the campaign's executions: no index leads from a campaign to its sends, because each send would have to write it.
const SENDS: &str = "SELECT s.channel, s.status, count(*) AS n FROM campaigns c \
     JOIN campaign_prospect_execution_state e ON e.campaign_id = c.id JOIN sends s ON s.execution_id = e.id \
     WHERE c.workspace_id = $1 AND c.id = $2 GROUP BY s.channel, s.status";

const FLOW_VERSION: &str =
    "SELECT flow FROM flow_versions WHERE workspace_id = $1 AND campaign_id = $2 AND version = $3";

names! {
    /// Whether a campaign's time runs.
    Status {
        /// Made, not started yet.
        Draft = "draft",
        /// Runs.
        Active = "active",
        /// Time triggers and sends are held; facts are recorded.
        Paused = "paused",
        /// Over.
        Completed = "completed",
    }
}

/// A campaign with its flow.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct Campaign {
    /// Its id.
    pub id: Uuid,
    /// A name for people.
    pub name: String,
    /// See [`Status`].
    pub status: String,
    /// The flow as stored: made by us, or by another program in an older form.
    pub flow_settings: Value,
    /// The version that new prospects are pinned to; null until the engine has taken over another program's flow.
    pub flow_version: Option<i32>,
    /// The accounts it may use; `None` = every account of the workspace.
    pub accounts: Option<Vec<Uuid>>,
    /// Of two campaigns that want the same account's next slot, the one with the higher number goes first.
    pub priority: i32,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// A campaign in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema, sqlx::FromRow)]
#[schema(as = CampaignSummary)]
pub struct Listed {
    /// Its id.
    pub id: Uuid,
    /// A name for people.
    pub name: String,
    /// `draft`, `active`, `paused` or `completed`.
    pub status: String,
    /// The version that new prospects are pinned to; null until the engine has taken over another program's flow.
    pub flow_version: Option<i32>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// How many executions stand where.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ExecutionCount {
    /// The seed's status names.
    pub status: Option<String>,
    /// Why it ended; `None` while it has not.
    pub exit_reason: Option<String>,
    /// How many.
    pub n: i64,
}

/// How many sends of a channel stand where.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct SendCount {
    /// The channel's name.
    pub channel: String,
    /// The send status' name.
    pub status: String,
    /// How many.
    pub n: i64,
}

/// A fresh UUIDv7 at `now`. Time is an argument because only `clock` reads the operating system's.
pub(crate) fn new_id(now: Timestamp) -> Uuid {
    let micros = now.as_micros().max(0).unsigned_abs();
    let nanos = (micros % 1_000_000) as u32 * 1000;
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, micros / 1_000_000, nanos))
}

/// Makes a campaign in `draft` with version 1 of its flow.
///
/// # Errors
/// The database's.
pub async fn create(
    pool: &Pool,
    workspace: WorkspaceId,
    name: &str,
    flow: &Value,
    accounts: Option<&[Uuid]>,
    now: Timestamp,
) -> Result<CampaignId, Error> {
    let id = new_id(now);
    sqlx::query(INSERT)
        .bind(workspace.0)
        .bind(id)
        .bind(name)
        .bind(flow)
        .bind(accounts)
        .bind(now.to_utc())
        .execute(pool)
        .await
        .map_err(failed("campaign: create"))?;
    Ok(CampaignId(id))
}

/// A campaign of the workspace.
///
/// # Errors
/// The database's.
pub async fn get(pool: &Pool, workspace: WorkspaceId, id: CampaignId) -> Result<Option<Campaign>, Error> {
    sqlx::query_as(GET).bind(workspace.0).bind(id.0).fetch_optional(pool).await.map_err(failed("campaign: get"))
}

/// Campaigns of the workspace, newest first, after the one of id `before`.
///
/// # Errors
/// The database's.
pub async fn list(
    pool: &Pool,
    workspace: WorkspaceId,
    before: Option<Uuid>,
    status: Option<Status>,
    limit: i64,
) -> Result<Vec<Listed>, Error> {
    sqlx::query_as(LIST)
        .bind(workspace.0)
        .bind(before)
        .bind(status.map(Status::as_str))
        .bind(limit)
        .fetch_all(pool)
        .await
        .map_err(failed("campaign: list"))
}

/// Moves a campaign from one status to another. False: it is not in `from` (any more).
///
/// # Errors
/// The database's.
pub async fn switch(
    pool: &Pool,
    workspace: WorkspaceId,
    id: CampaignId,
    from: Status,
    to: Status,
    now: Timestamp,
) -> Result<bool, Error> {
    let done = sqlx::query(SWITCH)
        .bind(workspace.0)
        .bind(id.0)
        .bind(from.as_str())
        .bind(to.as_str())
        .bind(now.to_utc())
        .execute(pool)
        .await
        .map_err(failed("campaign: switch"))?;
    Ok(done.rows_affected() > 0)
}

/// Executions of a campaign by status and exit reason.
///
/// # Errors
/// The database's.
pub async fn execution_counts(
    pool: &Pool,
    workspace: WorkspaceId,
    id: CampaignId,
) -> Result<Vec<ExecutionCount>, Error> {
    sqlx::query_as(EXECUTIONS)
        .bind(workspace.0)
        .bind(id.0)
        .fetch_all(pool)
        .await
        .map_err(failed("campaign: execution counts"))
}

/// Sends of a campaign by channel and status.
///
/// # Errors
/// The database's.
pub async fn send_counts(pool: &Pool, workspace: WorkspaceId, id: CampaignId) -> Result<Vec<SendCount>, Error> {
    sqlx::query_as(SENDS).bind(workspace.0).bind(id.0).fetch_all(pool).await.map_err(failed("campaign: send counts"))
}

/// One numbered version of a campaign's flow; `None` when that version was never written (a campaign of another program).
///
/// # Errors
/// The database's.
pub async fn flow_version(
    pool: &Pool,
    workspace: WorkspaceId,
    id: CampaignId,
    version: i32,
) -> Result<Option<Value>, Error> {
    sqlx::query_scalar(FLOW_VERSION)
        .bind(workspace.0)
        .bind(id.0)
        .bind(version)
        .fetch_optional(pool)
        .await
        .map_err(failed("campaign: flow version"))
}

/// Sets a campaign's priority. Answers whether there is one.
///
/// # Errors
/// The database's.
pub async fn set_priority(
    pool: &Pool,
    workspace: WorkspaceId,
    id: CampaignId,
    priority: i32,
    now: Timestamp,
) -> Result<bool, Error> {
    let done = sqlx::query(PRIORITY)
        .bind(workspace.0)
        .bind(id.0)
        .bind(priority)
        .bind(now.to_utc())
        .execute(pool)
        .await
        .map_err(failed("campaign: set priority"))?;
    Ok(done.rows_affected() > 0)
}
