//! Sends as the API lists them, and the rows of those that a person decides about.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::walk::{Onward, ROWS_MAX, Walk};
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
/// How many sends there are in a stretch, of anybody: that many are read. It stops counting in time.
const IN_STRETCH: &str =
    "SELECT count(*) FROM (SELECT FROM sends s WHERE s.created_at > $1 AND s.created_at <= $2 LIMIT $3) AS n";
/// A stretch is found by its time: with a limit, a pass over a whole month looks cheap to the planner and is not.
const BY_TIME: &str = "SELECT set_config('enable_seqscan', 'off', true)";
/// Later than any send.
const LAST: DateTime<Utc> = match DateTime::from_timestamp(32_503_680_000, 0) {
    Some(at) => at,
    None => DateTime::UNIX_EPOCH,
};
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

/// A page of sends, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// What was found: fewer than asked for, or none, also where there are more behind.
    pub sends: Vec<Listed>,
    /// Where to go on, as [`Filter::before`]; `None`: there are no more.
    pub more: Option<(DateTime<Utc>, Uuid)>,
}

impl Page {
    /// Of what was found for one more than the limit.
    fn full(mut sends: Vec<Listed>, limit: usize) -> Self {
        let more = sends.len() > limit;
        sends.truncate(limit);
        let more = sends.last().filter(|_| more).map(|last| (last.created_at, last.id));
        Self { sends, more }
    }
}

/// Sends, newest first. What they are filtered by is looked for from the newest on, in a bounded number of rows: where it is
/// rare, a page ends there.
///
/// # Errors
/// The database's.
pub async fn list(
    pool: &Pool,
    workspace: WorkspaceId,
    filter: Filter,
    limit: usize,
    now: Timestamp,
) -> Result<Page, Error> {
    let what = failed("sends: list");
    let rows = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    if filter.parked == Some(true) {
        let sends = sqlx::query_as(LIST_PARKED)
            .bind(workspace.0)
            .bind(filter.status.map(SendStatus::as_str))
            .bind(filter.campaign)
            .bind(filter.account)
            .bind(filter.before.map(|b| b.0))
            .bind(filter.before.map(|b| b.1))
            .bind(rows(limit + 1))
            .fetch_all(pool)
            .await
            .map_err(&what)?;
        return Ok(Page::full(sends, limit));
    }
    // Nothing is newer than that, whatever the clock of a demo shows.
    let (mut at, mut id) = filter.before.unwrap_or((LAST, Uuid::max()));
    let mut walk = Walk::from(filter.before.map_or_else(|| now.to_utc(), |b| b.0));
    let mut transaction = pool.begin().await.map_err(&what)?;
    sqlx::query(BY_TIME).execute(&mut *transaction).await.map_err(&what)?;
    let mut sends: Vec<Listed> = Vec::new();
    loop {
        let since = walk.since();
        let there: i64 = sqlx::query_scalar(IN_STRETCH)
            .bind(since)
            .bind(at)
            .bind(ROWS_MAX + 1)
            .persistent(false)
            .fetch_one(&mut *transaction)
            .await
            .map_err(&what)?;
        if walk.is_too_far(there) {
            continue;
        }
        if there > 0 {
            let found: Vec<Listed> = sqlx::query_as(LIST)
                .bind(workspace.0)
                .bind(filter.status.map(SendStatus::as_str))
                .bind(filter.campaign)
                .bind(filter.account)
                .bind(filter.parked)
                .bind(at)
                .bind(id)
                .bind(rows(limit + 1 - sends.len()))
                .bind(since)
                // Planned for this stretch, never for any.
                .persistent(false)
                .fetch_all(&mut *transaction)
                .await
                .map_err(&what)?;
            sends.extend(found);
        }
        if sends.len() > limit {
            break;
        }
        match walk.on(there) {
            Onward::Further => (at, id) = (since, Uuid::max()),
            Onward::NextPage => return Ok(Page { sends, more: Some((since, Uuid::max())) }),
            Onward::Through => break,
        }
    }
    Ok(Page::full(sends, limit))
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
