//! Sending accounts as the API makes, lists and changes them. The gate's claims are the engine's and live elsewhere.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Error, Pool, failed};
use crate::domain::account::{AccountStatus, Channel};
use crate::domain::budget::{History, Kind};
use crate::domain::id::{AccountId, CampaignId, WorkspaceId};
use crate::domain::send::Action;
use crate::domain::time::Timestamp;

// An account without its gate could never send, so both rows are made by one statement.
const INSERT: &str = "WITH made AS ( \
       INSERT INTO accounts \
           (workspace_id, id, shard, channel, provider, provider_account_id, name, min_gap_ms, created_at, limits) \
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
       ON CONFLICT (workspace_id, provider, provider_account_id) DO NOTHING RETURNING id, shard), \
     gate AS (INSERT INTO account_gate (workspace_id, account_id, shard) SELECT $1, id, shard FROM made) \
     SELECT id FROM made";

const EXISTING: &str = "SELECT id FROM accounts WHERE workspace_id = $1 AND provider = $2 AND provider_account_id = $3";

const LIST: &str = "SELECT a.id, a.channel, a.provider, a.provider_account_id, a.name, a.status, a.status_reason, \
       a.min_gap_ms, g.in_flight, g.next_send_at, a.created_at, a.limits, g.history, g.rests \
     FROM accounts a LEFT JOIN account_gate g ON g.workspace_id = a.workspace_id AND g.account_id = a.id \
     WHERE a.workspace_id = $1 AND ($2::uuid IS NULL OR a.id = $2) ORDER BY a.created_at, a.id";

const UPDATE: &str = "UPDATE accounts SET name = coalesce($3, name), min_gap_ms = coalesce($4, min_gap_ms), \
       limits = CASE WHEN $5 THEN $6 ELSE limits END, \
       status = coalesce($7, status), status_reason = CASE WHEN $7 IS NULL THEN status_reason END \
     WHERE workspace_id = $1 AND id = $2";

// No claim of the account commits while the row is held.
const GATE: &str = "SELECT a.limits IS NULL, g.history FROM account_gate g \
     JOIN accounts a ON a.workspace_id = g.workspace_id AND a.id = g.account_id \
     WHERE g.workspace_id = $1 AND g.account_id = $2 FOR UPDATE OF g";

// No index leads from an account to its sends, so this reads the partitions of those months; it is asked once in an account's life.
// A row holds its last claim only.
const PAST: &str = "SELECT s.action, coalesce(s.body, '') <> '', s.recipient ->> 'chat_id' IS NULL, \
       max(s.claimed_at), count(*) \
     FROM sends s WHERE s.workspace_id = $1 AND s.account_id = $2 AND s.created_at > $3::timestamptz - interval '62 days' \
       AND s.claimed_at > $3::timestamptz - interval '8 days' AND s.claimed_at <= $3 \
     GROUP BY 1, 2, 3, floor(extract(epoch FROM s.claimed_at) / 900)";
const NO_TIMEOUT: &str = "SELECT set_config('statement_timeout', '0', true)";

// A claim that was decided on the history before is refused by `used`: it would put it back.
const PUT: &str = "UPDATE account_gate SET used = used + 1, history = $3, \
       rests = CASE WHEN $4 THEN NULL ELSE rests END, next_send_at = CASE WHEN $4 THEN NULL ELSE next_send_at END \
     WHERE workspace_id = $1 AND account_id = $2";

const UNKNOWN: &str = "SELECT i.id FROM unnest($2::uuid[]) AS i (id) \
     WHERE NOT EXISTS (SELECT 1 FROM accounts a WHERE a.workspace_id = $1 AND a.id = i.id)";

const CHANNELS: &str = "SELECT DISTINCT a.channel FROM accounts a \
     JOIN campaigns c ON c.workspace_id = a.workspace_id AND (c.accounts IS NULL OR a.id = ANY (c.accounts)) \
     WHERE c.workspace_id = $1 AND c.id = $2 AND a.status <> 'disabled'";

/// An account to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct New {
    /// What it sends.
    pub channel: Channel,
    /// What carries it, for example `unipile`.
    pub provider: String,
    /// Its id with the provider.
    pub provider_account_id: String,
    /// A name for people.
    pub name: String,
    /// Least time between two sends, in milliseconds.
    pub min_gap_ms: i32,
    /// How much it may do, as `domain::budget` reads it.
    pub limits: Option<Value>,
}

/// What is to be changed about an account; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// A name for people.
    pub name: Option<String>,
    /// Least time between two sends, in milliseconds.
    pub min_gap_ms: Option<i32>,
    /// How much it may do; `Some(None)`: nobody says any more.
    pub limits: Option<Option<Value>>,
    /// `active` or `disabled`.
    pub status: Option<AccountStatus>,
    /// Let go of what the provider's word made it rest for.
    pub release: bool,
}

/// What became of [`create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// Made, with its gate.
    New(AccountId),
    /// The workspace has that provider account already.
    Exists(AccountId),
}

/// An account in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema, sqlx::FromRow)]
#[schema(as = AccountRow)]
pub struct Listed {
    /// Its id with us.
    pub id: Uuid,
    /// `linkedin`, `email` or `whatsapp`.
    pub channel: String,
    /// What carries it.
    pub provider: String,
    /// Its id with the provider.
    pub provider_account_id: String,
    /// A name for people.
    pub name: String,
    /// `active`, `halted` (the provider says it is broken) or `disabled`.
    pub status: String,
    /// Why it is halted.
    pub status_reason: Option<String>,
    /// Least time between two sends, in milliseconds.
    pub min_gap_ms: i32,
    /// The send that is with the provider now.
    pub in_flight: Option<Uuid>,
    /// It sends nothing before this.
    pub next_send_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// How much it may do, as it is stored.
    #[serde(skip)]
    pub limits: Option<Value>,
    /// What it has done lately, as it is stored.
    #[serde(skip)]
    pub history: Option<Value>,
    /// What the provider has said about its quotas, as it is stored.
    #[serde(skip)]
    pub rests: Option<Value>,
}

/// Makes an account and its gate in one statement.
///
/// # Errors
/// The database's.
pub async fn create(pool: &Pool, workspace: WorkspaceId, new: &New, now: Timestamp) -> Result<Created, Error> {
    let id = AccountId(super::campaign::new_id(now));
    let made: Option<Uuid> = sqlx::query_scalar(INSERT)
        .bind(workspace.0)
        .bind(id.0)
        .bind(i16::try_from(id.shard()).unwrap_or_default())
        .bind(new.channel.as_str())
        .bind(&new.provider)
        .bind(&new.provider_account_id)
        .bind(&new.name)
        .bind(new.min_gap_ms)
        .bind(now.to_utc())
        .bind(&new.limits)
        .fetch_optional(pool)
        .await
        .map_err(failed("account: create"))?;
    if let Some(id) = made {
        return Ok(Created::New(AccountId(id)));
    }
    // Accounts are never deleted, so the row that stood in the way is there.
    let id = sqlx::query_scalar(EXISTING)
        .bind(workspace.0)
        .bind(&new.provider)
        .bind(&new.provider_account_id)
        .fetch_one(pool)
        .await
        .map_err(failed("account: create"))?;
    Ok(Created::Exists(AccountId(id)))
}

/// Every account of a workspace, oldest first, or the one with an id.
///
/// # Errors
/// The database's.
pub async fn list(pool: &Pool, workspace: WorkspaceId, only: Option<AccountId>) -> Result<Vec<Listed>, Error> {
    sqlx::query_as(LIST)
        .bind(workspace.0)
        .bind(only.map(|id| id.0))
        .fetch_all(pool)
        .await
        .map_err(failed("account: list"))
}

/// Changes an account. Answers whether there is one.
///
/// An account that is given limits while it runs has done something already: what it has claimed in the last seven days is
/// counted in the same commit. Each send counts once, at its last claim, as what it turned out to be; what was decided more
/// than 62 days ago is not looked at. Letting go forgets what a clock that was ahead has counted in the time to come.
///
/// # Errors
/// The database's; then nothing is changed.
pub async fn update(
    pool: &Pool,
    workspace: WorkspaceId,
    id: AccountId,
    changes: &Changes,
    now: Timestamp,
) -> Result<bool, Error> {
    let what = failed("account: update");
    let mut transaction = pool.begin().await.map_err(&what)?;
    if changes.release || matches!(changes.limits, Some(Some(_))) {
        settle_gate(&mut transaction, workspace, id, changes, now).await?;
    }
    let updated = sqlx::query(UPDATE)
        .bind(workspace.0)
        .bind(id.0)
        .bind(changes.name.as_deref())
        .bind(changes.min_gap_ms)
        .bind(changes.limits.is_some())
        .bind(changes.limits.as_ref().and_then(Option::as_ref))
        .bind(changes.status.map(AccountStatus::as_str))
        .execute(&mut *transaction)
        .await
        .map_err(&what)?;
    transaction.commit().await.map_err(&what)?;
    Ok(updated.rows_affected() > 0)
}

/// Brings the account's history up to what the changes ask for.
async fn settle_gate(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    id: AccountId,
    changes: &Changes,
    now: Timestamp,
) -> Result<(), Error> {
    let what = failed("account: its gate");
    let gate: Option<(bool, Option<Value>)> =
        sqlx::query_as(GATE).bind(workspace.0).bind(id.0).fetch_optional(&mut *connection).await.map_err(&what)?;
    let Some((unlimited, stored)) = gate else { return Ok(()) };
    // One that cannot be read stays as it is: nobody would know what was done.
    let known = stored.as_ref().and_then(|json| History::from_json(json).ok());
    let begins = unlimited && matches!(changes.limits, Some(Some(_)));
    let history = if begins || (changes.release && known.as_ref().is_some_and(|h| h.is_ahead(now))) {
        Some(past(connection, workspace, id, now).await?.to_json())
    } else if let (true, Some(mut history)) = (changes.release, known) {
        history.release();
        Some(history.to_json())
    } else if changes.release {
        stored
    } else {
        return Ok(());
    };
    sqlx::query(PUT)
        .bind(workspace.0)
        .bind(id.0)
        .bind(history)
        .bind(changes.release)
        .execute(connection)
        .await
        .map_err(&what)
        .map(drop)
}

/// What an account has claimed in the last seven days.
async fn past(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    id: AccountId,
    now: Timestamp,
) -> Result<History, Error> {
    let what = failed("account: what it has done");
    sqlx::query(NO_TIMEOUT).execute(&mut *connection).await.map_err(&what)?;
    let rows: Vec<(String, bool, bool, DateTime<Utc>, i64)> = sqlx::query_as(PAST)
        .bind(workspace.0)
        .bind(id.0)
        .bind(now.to_utc())
        .fetch_all(connection)
        .await
        .map_err(&what)?;
    Ok(History::of_past(rows.into_iter().filter_map(|(action, has_text, first, at, n)| {
        let kind = Kind::of(Action::parse(&action)?, has_text, first)?;
        Some((kind, at.into(), u32::try_from(n).unwrap_or(u32::MAX)))
    })))
}

/// Which of these ids are no accounts of the workspace.
///
/// # Errors
/// The database's.
pub async fn unknown(pool: &Pool, workspace: WorkspaceId, ids: &[Uuid]) -> Result<Vec<Uuid>, Error> {
    sqlx::query_scalar(UNKNOWN).bind(workspace.0).bind(ids).fetch_all(pool).await.map_err(failed("account: unknown"))
}

/// The channels for which a campaign has an account that is not switched off.
///
/// # Errors
/// The database's.
pub async fn channels(pool: &Pool, workspace: WorkspaceId, campaign: CampaignId) -> Result<Vec<Channel>, Error> {
    let names: Vec<String> = sqlx::query_scalar(CHANNELS)
        .bind(workspace.0)
        .bind(campaign.0)
        .fetch_all(pool)
        .await
        .map_err(failed("account: channels"))?;
    Ok(names.iter().filter_map(|n| Channel::parse(n)).collect())
}
