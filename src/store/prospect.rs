//! Prospects as the API lists and shows them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Error, Pool, failed};
use crate::domain::execution::Status;
use crate::domain::id::{CampaignId, ExecutionId, ProspectId, WorkspaceId};

// Walks the unique index on (campaign_id, prospect_id).
const LIST: &str = "SELECT p.id, p.first_name, p.last_name, p.email, p.phone, p.linkedin_url, p.company_name, p.title, p.created_at, \
       e.status, e.current_step, e.exit_reason, e.next_execution_at \
     FROM campaign_prospect_execution_state e \
     JOIN campaigns c ON c.id = e.campaign_id \
     JOIN campaign_prospects p ON p.id = e.prospect_id \
     WHERE c.workspace_id = $1 AND e.campaign_id = $2 AND ($3::uuid IS NULL OR e.prospect_id > $3) \
       AND ($4::text IS NULL OR e.status = $4) \
     ORDER BY e.prospect_id LIMIT $5";

const GET: &str = "SELECT p.id, p.campaign_id, p.first_name, p.last_name, p.email, p.phone, p.linkedin_url, p.company_name, p.title, \
       coalesce(p.data, '{}') AS data, p.created_at \
     FROM campaign_prospects p JOIN campaigns c ON c.id = p.campaign_id WHERE c.workspace_id = $1 AND p.id = $2";

const EXECUTION: &str = "SELECT e.id, e.campaign_id, e.prospect_id, e.current_step, e.status, \
       coalesce(e.completed_steps, '{}') AS completed_steps, coalesce(e.failed_steps, '{}') AS failed_steps, \
       coalesce(e.skipped_steps, '{}') AS skipped_steps, e.linkedin_state, e.email_state, e.whatsapp_state, \
       e.waiting_for_trigger, coalesce(e.trigger_check_count, 0) AS trigger_check_count, \
       coalesce(e.trigger_max_checks, 168) AS trigger_max_checks, e.next_check_at, e.n8n_execution_id, e.last_executed_at, \
       e.next_execution_at, e.last_error, coalesce(e.error_count, 0) AS error_count, \
       coalesce(e.flow_version, c.flow_version) AS flow_version, e.version, e.exit_reason, e.paused_status, e.open_send, \
       e.channel_accounts, e.updated_at \
     FROM campaign_prospect_execution_state e JOIN campaigns c ON c.id = e.campaign_id \
     WHERE c.workspace_id = $1 AND e.prospect_id = $2";

const OPEN_SEND: &str = "SELECT s.id, s.status, s.channel, s.action, s.account_id, a.name AS account_name, a.status AS account_status, \
       a.status_reason, g.next_send_at, s.parked_at, a.created_at AS account_since, a.limits, g.history, g.rests \
     FROM sends s \
     JOIN accounts a ON a.workspace_id = s.workspace_id AND a.id = s.account_id \
     LEFT JOIN account_gate g ON g.workspace_id = s.workspace_id AND g.account_id = s.account_id \
     WHERE s.workspace_id = $1 AND s.execution_id = $2 AND s.id = $3 ORDER BY s.created_at DESC LIMIT 1";

/// A prospect in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema, sqlx::FromRow)]
#[schema(as = ProspectSummary)]
pub struct Listed {
    /// Its id.
    pub id: Uuid,
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: Option<String>,
    /// Mail address.
    pub email: Option<String>,
    /// Phone number.
    pub phone: Option<String>,
    /// LinkedIn profile.
    pub linkedin_url: Option<String>,
    /// Employer.
    pub company_name: Option<String>,
    /// Job title.
    pub title: Option<String>,
    /// When the person was taken in.
    pub created_at: Option<DateTime<Utc>>,
    /// Where the execution stands.
    pub status: Option<String>,
    /// 1-based; number of steps + 1 when completed.
    pub current_step: Option<i32>,
    /// Why it ended.
    pub exit_reason: Option<String>,
    /// When the current step is due, or the deadline of a wait.
    pub next_execution_at: Option<DateTime<Utc>>,
}

/// A prospect.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema, sqlx::FromRow)]
#[schema(as = ProspectRow)]
pub struct Prospect {
    /// Its id.
    pub id: Uuid,
    /// The campaign it is in.
    pub campaign_id: Uuid,
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: Option<String>,
    /// Mail address.
    pub email: Option<String>,
    /// Phone number.
    pub phone: Option<String>,
    /// LinkedIn profile.
    pub linkedin_url: Option<String>,
    /// Employer.
    pub company_name: Option<String>,
    /// Job title.
    pub title: Option<String>,
    /// Every other column of the upload.
    pub data: Value,
    /// When the person was taken in.
    pub created_at: Option<DateTime<Utc>>,
}

/// The execution row as it stands in the table, with the table's column names.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema, sqlx::FromRow)]
#[schema(as = ExecutionRow)]
pub struct Execution {
    /// The row's id.
    pub id: Uuid,
    /// The campaign.
    pub campaign_id: Uuid,
    /// The person.
    pub prospect_id: Uuid,
    /// 1-based; number of steps + 1 when completed.
    pub current_step: Option<i32>,
    /// `pending`, `executing`, `waiting_trigger`, `completed`, `failed` or `paused`.
    pub status: Option<String>,
    /// Positions of the steps that were done.
    pub completed_steps: Vec<i32>,
    /// Positions of the steps that failed.
    pub failed_steps: Vec<i32>,
    /// Positions of the steps that were passed over.
    pub skipped_steps: Vec<i32>,
    /// LinkedIn facts.
    pub linkedin_state: Option<Value>,
    /// Mail facts.
    pub email_state: Option<Value>,
    /// WhatsApp facts.
    pub whatsapp_state: Option<Value>,
    /// What a wait waits for.
    pub waiting_for_trigger: Option<String>,
    /// Checks done in this wait.
    pub trigger_check_count: i32,
    /// Checks after which the wait ends.
    pub trigger_max_checks: i32,
    /// When the next check is due.
    pub next_check_at: Option<DateTime<Utc>>,
    /// The n8n workflow a step was handed to.
    pub n8n_execution_id: Option<String>,
    /// When the last step was carried out.
    pub last_executed_at: Option<DateTime<Utc>>,
    /// When the current step is due, or the deadline of a wait.
    pub next_execution_at: Option<DateTime<Utc>>,
    /// The last error.
    pub last_error: Option<String>,
    /// Errors so far.
    pub error_count: i32,
    /// The flow version it is pinned to.
    pub flow_version: Option<i32>,
    /// +1 per transition.
    pub version: i64,
    /// Why it ended.
    pub exit_reason: Option<String>,
    /// While paused: what it was.
    pub paused_status: Option<String>,
    /// The send that has no outcome yet.
    pub open_send: Option<Uuid>,
    /// Which account contacts this person on each channel.
    pub channel_accounts: Option<Value>,
    /// When the row was last changed.
    pub updated_at: Option<DateTime<Utc>>,
}

impl Execution {
    /// Its id in the engine's type.
    pub fn execution_id(&self) -> ExecutionId {
        ExecutionId(self.id)
    }
}

/// The open send of an execution and the account it goes through.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct OpenSend {
    /// The send.
    pub id: Uuid,
    /// The send status' name.
    pub status: String,
    /// The channel's name.
    pub channel: String,
    /// What it does.
    pub action: String,
    /// The account it goes through.
    pub account_id: Uuid,
    /// The account's name.
    pub account_name: String,
    /// The account's status.
    pub account_status: String,
    /// Why the account is halted.
    pub status_reason: Option<String>,
    /// The account sends nothing before this.
    pub next_send_at: Option<DateTime<Utc>>,
    /// Set when reading back was given up.
    pub parked_at: Option<DateTime<Utc>>,
    /// When the account was made.
    pub account_since: DateTime<Utc>,
    /// How much the account may do (`domain::budget`).
    pub limits: Option<Value>,
    /// What it has done lately.
    pub history: Option<Value>,
    /// What the provider has said about its quotas.
    pub rests: Option<Value>,
}

/// Prospects of a campaign in the order they were taken in, after the one of id `after`.
///
/// # Errors
/// The database's.
pub async fn list(
    pool: &Pool,
    workspace: WorkspaceId,
    campaign: CampaignId,
    after: Option<Uuid>,
    status: Option<Status>,
    limit: i64,
) -> Result<Vec<Listed>, Error> {
    sqlx::query_as(LIST)
        .bind(workspace.0)
        .bind(campaign.0)
        .bind(after)
        .bind(status.map(Status::as_str))
        .bind(limit)
        .fetch_all(pool)
        .await
        .map_err(failed("prospect: list"))
}

/// A prospect of the workspace.
///
/// # Errors
/// The database's.
pub async fn get(pool: &Pool, workspace: WorkspaceId, id: ProspectId) -> Result<Option<Prospect>, Error> {
    sqlx::query_as(GET).bind(workspace.0).bind(id.0).fetch_optional(pool).await.map_err(failed("prospect: get"))
}

/// The execution of a prospect; `None` when there is no such prospect, or no execution was made for it yet.
///
/// # Errors
/// The database's.
pub async fn execution(pool: &Pool, workspace: WorkspaceId, prospect: ProspectId) -> Result<Option<Execution>, Error> {
    sqlx::query_as(EXECUTION)
        .bind(workspace.0)
        .bind(prospect.0)
        .fetch_optional(pool)
        .await
        .map_err(failed("prospect: execution"))
}

/// The open send of an execution.
///
/// # Errors
/// The database's.
pub async fn open_send(
    pool: &Pool,
    workspace: WorkspaceId,
    execution: ExecutionId,
    send: Uuid,
) -> Result<Option<OpenSend>, Error> {
    sqlx::query_as(OPEN_SEND)
        .bind(workspace.0)
        .bind(execution.0)
        .bind(send)
        .fetch_optional(pool)
        .await
        .map_err(failed("prospect: open send"))
}
