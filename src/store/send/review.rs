//! Sends as the API lists them, and the rows of those that a person decides about.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::id::{AccountId, ExecutionId, SendId, WorkspaceId};
use crate::domain::send::SendStatus;
use crate::domain::time::Timestamp;
use crate::store::{Error, Pool, clean, failed};

macro_rules! sends {
    ($where:literal) => {
        concat!(
            "SELECT s.id, s.created_at, s.campaign_id, s.prospect_id, s.execution_id, s.step, s.step_id, s.action, s.channel, ",
            "s.attempt, s.status, s.account_id, a.name AS account_name, a.status AS account_status, s.dispatch_count, ",
            "s.claimed_at, s.finished_at, s.settle_count, s.parked_at, s.failure_class, s.error, s.recipient, s.subject, s.body ",
            "FROM sends s LEFT JOIN accounts a ON a.workspace_id = s.workspace_id AND a.id = s.account_id ",
            $where
        )
    };
}

// Newest first, over the partitions. No index is on a status, because each claim and each outcome would have to write it; what
// is parked is found through sends_parked. What is not is read in stretches back from the newest, which sends_time finds.
const LIST: &str = sends!(
    "WHERE s.workspace_id = $1 AND ($2::text IS NULL OR s.status = $2) AND ($3::uuid IS NULL OR s.campaign_id = $3) \
     AND ($4::uuid IS NULL OR s.account_id = $4) AND ($5::boolean IS NULL OR (s.parked_at IS NOT NULL) = $5) \
     AND s.created_at <= $6 AND (s.created_at, s.id) < ($6, $7) AND s.created_at > $9 \
     ORDER BY s.created_at DESC, s.id DESC LIMIT $8"
);
/// Later than any send.
const LAST: DateTime<Utc> = match DateTime::from_timestamp(32_503_680_000, 0) {
    Some(at) => at,
    None => DateTime::UNIX_EPOCH,
};
/// How far back each stretch reaches, in seconds, if the one before was too short; then everything. A stretch is read from its
/// end again: all before it cost a tenth of it.
const STRETCHES: &[i64] = &[60, 600, 6_000, 86_400, 864_000, 8_640_000];
const LIST_PARKED: &str = sends!(
    "WHERE s.workspace_id = $1 AND ($2::text IS NULL OR s.status = $2) AND ($3::uuid IS NULL OR s.campaign_id = $3) \
     AND ($4::uuid IS NULL OR s.account_id = $4) AND s.parked_at IS NOT NULL \
     AND ($5::timestamptz IS NULL OR (s.created_at, s.id) < ($5, $6)) \
     ORDER BY s.created_at DESC, s.id DESC LIMIT $7"
);
const GET: &str = sends!("WHERE s.workspace_id = $1 AND s.id = $2 ORDER BY s.created_at DESC LIMIT 1");

const PARK: &str = "UPDATE sends SET parked_at = coalesce(parked_at, $3) \
    WHERE workspace_id = $1 AND id = $2 AND status = 'unknown'";

const DECIDE_ALONE: &str = "UPDATE sends SET status = $3, finished_at = $5, parked_at = NULL, error = $4 \
    WHERE workspace_id = $1 AND id = $2 AND status = 'unknown'";

/// A send in a list.
#[derive(Clone, PartialEq, Serialize, ToSchema, sqlx::FromRow)]
#[schema(as = SendRow)]
pub struct Listed {
    /// Its id.
    pub id: Uuid,
    /// When it was decided.
    pub created_at: DateTime<Utc>,
    /// Of which campaign.
    pub campaign_id: Uuid,
    /// To whom.
    pub prospect_id: Uuid,
    /// Their execution.
    pub execution_id: Uuid,
    /// 1-based position of the step.
    pub step: i32,
    /// The step's id.
    pub step_id: String,
    /// What it does.
    pub action: String,
    /// `linkedin`, `email` or `whatsapp`.
    pub channel: Option<String>,
    /// 1 for the first try on the step.
    pub attempt: i32,
    /// `pending`, `dispatching`, `sent`, `failed`, `unknown` or `cancelled`.
    pub status: String,
    /// Through which account.
    pub account_id: Uuid,
    /// The account's name.
    pub account_name: Option<String>,
    /// The account's status.
    pub account_status: Option<String>,
    /// Calls of the provider so far.
    pub dispatch_count: i32,
    /// The last of them.
    pub claimed_at: Option<DateTime<Utc>>,
    /// When its outcome was known.
    pub finished_at: Option<DateTime<Utc>>,
    /// How often it was looked for at the provider since.
    pub settle_count: i32,
    /// When that was given up: a person has to decide.
    pub parked_at: Option<DateTime<Utc>>,
    /// Why it failed.
    pub failure_class: Option<String>,
    /// The provider's words, or ours.
    pub error: Option<String>,
    /// Whom, as it was handed to the provider.
    pub recipient: Option<Value>,
    /// The mail's subject.
    pub subject: Option<String>,
    /// The text.
    pub body: Option<String>,
}

impl Listed {
    /// Its id in the engine's type.
    pub const fn send_id(&self) -> SendId {
        SendId(self.id)
    }

    /// Its execution's id in the engine's type.
    pub const fn execution(&self) -> ExecutionId {
        ExecutionId(self.execution_id)
    }

    /// Its account's id in the engine's type.
    pub const fn account(&self) -> AccountId {
        AccountId(self.account_id)
    }
}

// Texts and addresses are never printed.
impl std::fmt::Debug for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Send").field("id", &self.id).field("status", &self.status).finish_non_exhaustive()
    }
}

/// Which sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// With this status only.
    pub status: Option<SendStatus>,
    /// Of this campaign only.
    pub campaign: Option<Uuid>,
    /// Through this account only.
    pub account: Option<Uuid>,
    /// Only those that are parked, or only those that are not.
    pub parked: Option<bool>,
    /// Behind the send with this time and id.
    pub before: Option<(DateTime<Utc>, Uuid)>,
}

/// Sends, newest first. What they are filtered by is looked for from the newest on: where it is rare, much is read.
///
/// # Errors
/// The database's.
pub async fn list(
    pool: &Pool,
    workspace: WorkspaceId,
    filter: Filter,
    limit: i64,
    now: Timestamp,
) -> Result<Vec<Listed>, Error> {
    if filter.parked == Some(true) {
        return sqlx::query_as(LIST_PARKED)
            .bind(workspace.0)
            .bind(filter.status.map(SendStatus::as_str))
            .bind(filter.campaign)
            .bind(filter.account)
            .bind(filter.before.map(|b| b.0))
            .bind(filter.before.map(|b| b.1))
            .bind(limit)
            .fetch_all(pool)
            .await
            .map_err(failed("sends: list"));
    }
    // Nothing is newer than that, whatever the clock of a demo shows.
    let (at, id) = filter.before.unwrap_or((LAST, Uuid::max()));
    let from = filter.before.map_or_else(|| now.to_utc(), |b| b.0);
    let stretches = STRETCHES.iter().filter_map(|seconds| from.checked_sub_signed(TimeDelta::seconds(*seconds)));
    for since in stretches.map(Some).chain([None]) {
        let found: Vec<Listed> = sqlx::query_as(LIST)
            .bind(workspace.0)
            .bind(filter.status.map(SendStatus::as_str))
            .bind(filter.campaign)
            .bind(filter.account)
            .bind(filter.parked)
            .bind(at)
            .bind(id)
            .bind(limit)
            .bind(since.unwrap_or(DateTime::UNIX_EPOCH))
            // Planned for this stretch, never for any.
            .persistent(false)
            .fetch_all(pool)
            .await
            .map_err(failed("sends: list"))?;
        if since.is_none() || i64::try_from(found.len()).is_ok_and(|n| n >= limit) {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// One send of the workspace.
///
/// # Errors
/// The database's.
pub async fn get(pool: &Pool, workspace: WorkspaceId, send: SendId) -> Result<Option<Listed>, Error> {
    sqlx::query_as(GET).bind(workspace.0).bind(send.0).fetch_optional(pool).await.map_err(failed("sends: get"))
}

/// Parks a send whose outcome nobody knows, so that the engine does not look at it any more. False: its outcome is known.
///
/// # Errors
/// The database's.
pub async fn park(pool: &Pool, workspace: WorkspaceId, send: SendId, at: Timestamp) -> Result<bool, Error> {
    let done = sqlx::query(PARK)
        .bind(workspace.0)
        .bind(send.0)
        .bind(at.to_utc())
        .execute(pool)
        .await
        .map_err(failed("sends: park"))?;
    Ok(done.rows_affected() > 0)
}

/// Records a person's word about a send that no execution waits for any more: `sent`, or cancelled, because nobody wants it
/// now. `note` says who decided. False: its outcome is known.
///
/// # Errors
/// The database's.
pub async fn decide_alone(
    pool: &Pool,
    workspace: WorkspaceId,
    send: SendId,
    sent: bool,
    note: &str,
    at: Timestamp,
) -> Result<bool, Error> {
    let status = if sent { SendStatus::Sent } else { SendStatus::Cancelled };
    let done = sqlx::query(DECIDE_ALONE)
        .bind(workspace.0)
        .bind(send.0)
        .bind(status.as_str())
        .bind(&*clean(note))
        .bind(at.to_utc())
        .execute(pool)
        .await
        .map_err(failed("sends: decide"))?;
    Ok(done.rows_affected() > 0)
}
