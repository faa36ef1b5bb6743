//! How far the lists of each account have been read back from its provider.
//!
//! Owns table `account_catch_up`. Called by `runtime`'s catch-up, which reads, and by its inbox, when an account is back.

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::{Error, Pool, clean, failed};
use crate::domain::id::{AccountId, WorkspaceId};
use crate::domain::time::Timestamp;

/// Of an account that is seen for the first time, nothing before now is read.
const MARKS: &str = "WITH want AS (SELECT * FROM unnest($1::uuid[], $2::uuid[]) AS want(workspace_id, account_id)), \
    made AS ( \
        INSERT INTO account_catch_up (workspace_id, account_id, messages_read_at) \
        SELECT workspace_id, account_id, $3 FROM want ON CONFLICT (workspace_id, account_id) DO NOTHING \
        RETURNING account_id, messages_read_at, relations_read_at, broken, back_at) \
    SELECT * FROM made \
    UNION ALL SELECT account_id, c.messages_read_at, c.relations_read_at, c.broken, c.back_at \
    FROM want JOIN account_catch_up c USING (workspace_id, account_id)";
/// Only forward: of two processes that read, the one that got further counts. What was said to be broken while it was read stays
/// so: forgotten, the account would be halted for ever.
const MESSAGES_READ: &str = "UPDATE account_catch_up SET messages_read_at = greatest(messages_read_at, $3), \
        broken = CASE WHEN broken IS DISTINCT FROM $4 THEN broken END \
    WHERE workspace_id = $1 AND account_id = $2";
const RELATIONS_READ: &str = "UPDATE account_catch_up SET relations_read_at = greatest(relations_read_at, $3) \
    WHERE workspace_id = $1 AND account_id = $2";
/// What was to be read first of one that waits for that is not the reason any more.
const BROKEN: &str = "WITH told AS ( \
        UPDATE accounts a SET status_reason = 'the provider says ' || $3 FROM account_catch_up c \
        WHERE a.workspace_id = $1 AND a.id = $2 AND a.status = 'halted' \
        AND c.workspace_id = $1 AND c.account_id = $2 AND c.back_at IS NOT NULL) \
    UPDATE account_catch_up SET broken = $3, back_at = NULL WHERE workspace_id = $1 AND account_id = $2";
/// Only where somebody reads (a row) and something is to be resumed (a halted account).
const BACK: &str = "WITH told AS ( \
        UPDATE accounts SET status_reason = 'reconnected; what was missed meanwhile is read back first' \
        WHERE workspace_id = $1 AND id = $2 AND status = 'halted' RETURNING id) \
    UPDATE account_catch_up c SET back_at = coalesce(c.back_at, $3), broken = NULL FROM told \
    WHERE c.workspace_id = $1 AND c.account_id = told.id";
const RESUME: &str = "WITH back AS ( \
        UPDATE account_catch_up SET back_at = NULL \
        WHERE workspace_id = $1 AND account_id = $2 AND back_at IS NOT NULL RETURNING account_id) \
    UPDATE accounts a SET status = 'active', status_reason = NULL FROM back b \
    WHERE a.workspace_id = $1 AND a.id = b.account_id AND a.status = 'halted'";

/// Those whose lists nobody has read since $1. Of an account without a row nothing can have been missed.
const BEHIND: &str = "WITH behind AS ( \
        UPDATE account_catch_up c SET back_at = coalesce(c.back_at, $2), broken = NULL FROM accounts a \
        WHERE a.workspace_id = c.workspace_id AND a.id = c.account_id AND a.status = 'active' \
        AND a.provider = ANY($3) AND c.messages_read_at < $1 RETURNING c.workspace_id, c.account_id) \
    UPDATE accounts a SET status = 'halted', status_reason = 'what was missed while nothing ran is read back first' \
    FROM behind b WHERE a.workspace_id = b.workspace_id AND a.id = b.account_id";

/// How far an account has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Messages and mails before this are read.
    pub messages_read_at: Timestamp,
    /// Connections before this are read; `None` before the first time.
    pub relations_read_at: Option<Timestamp>,
    /// What was wrong with it when the provider was asked last.
    pub broken: Option<String>,
    /// Since when it waits to be read, before it sends again.
    pub back_at: Option<Timestamp>,
}

/// How far an account has been read; begun at `now` when it is not known yet.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn mark(pool: &Pool, workspace: WorkspaceId, account: AccountId, now: Timestamp) -> Result<Mark, Error> {
    let read = marks(pool, &[(workspace, account)], now).await?.pop();
    // Made or found; gone again at once only when the account was deleted meanwhile.
    Ok(read.map_or(Mark { messages_read_at: now, relations_read_at: None, broken: None, back_at: None }, |(_, m)| m))
}

/// The same of many, in no order, in one statement.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn marks(
    pool: &Pool,
    accounts: &[(WorkspaceId, AccountId)],
    now: Timestamp,
) -> Result<Vec<(AccountId, Mark)>, Error> {
    if accounts.is_empty() {
        return Ok(Vec::new());
    }
    let what = failed("reading how far accounts were read back");
    let rows = sqlx::query(MARKS)
        .bind(accounts.iter().map(|(workspace, _)| workspace.0).collect::<Vec<_>>())
        .bind(accounts.iter().map(|(_, account)| account.0).collect::<Vec<_>>())
        .bind(now.to_utc())
        .fetch_all(pool)
        .await
        .map_err(&what)?;
    let mark = |row: &PgRow| {
        let time = |column: usize| row.try_get::<Option<DateTime<Utc>>, _>(column).map(|t| t.map(Timestamp::from));
        let mark = Mark {
            messages_read_at: row.try_get::<DateTime<Utc>, _>(1)?.into(),
            relations_read_at: time(2)?,
            broken: row.try_get(3)?,
            back_at: time(4)?,
        };
        Ok((AccountId(row.try_get(0)?), mark))
    };
    rows.iter().map(mark).collect::<Result<_, sqlx::Error>>().map_err(&what)
}

/// Messages and mails before `at` are read, and the account works. `broken`: what it was said to be when the reading began.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn messages_read(
    pool: &Pool,
    workspace: WorkspaceId,
    account: AccountId,
    at: Timestamp,
    broken: Option<&str>,
) -> Result<(), Error> {
    sqlx::query(MESSAGES_READ)
        .bind(workspace.0)
        .bind(account.0)
        .bind(at.to_utc())
        .bind(broken)
        .execute(pool)
        .await
        .map_err(failed("noting how far an account is read"))
        .map(drop)
}

/// Connections before `at` are read.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn relations_read(
    pool: &Pool,
    workspace: WorkspaceId,
    account: AccountId,
    at: Timestamp,
) -> Result<(), Error> {
    change(pool, RELATIONS_READ, workspace, account, at).await.map(drop)
}

/// The account does not work, in the provider's word.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn broken(pool: &Pool, workspace: WorkspaceId, account: AccountId, word: &str) -> Result<(), Error> {
    sqlx::query(BROKEN)
        .bind(workspace.0)
        .bind(account.0)
        .bind(&*clean(word))
        .execute(pool)
        .await
        .map_err(failed("noting that an account is broken"))
        .map(drop)
}

/// A halted account works again: it is to be read back, and sends after that. Answers whether somebody will do so; if
/// not, it was not halted, or its provider has no lists.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn back(pool: &Pool, workspace: WorkspaceId, account: AccountId, at: Timestamp) -> Result<bool, Error> {
    change(pool, BACK, workspace, account, at).await
}

/// At a start: the active accounts of these providers that were not read since `since` send after they have been. Answers how many
/// these are.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn behind(pool: &Pool, providers: &[&str], since: Timestamp, now: Timestamp) -> Result<u64, Error> {
    let done = sqlx::query(BEHIND)
        .bind(since.to_utc())
        .bind(now.to_utc())
        .bind(providers)
        .execute(pool)
        .await
        .map_err(failed("finding accounts that were not read for long"))?;
    Ok(done.rows_affected())
}

/// It has been read back: it sends again. Answers whether it was waiting for that.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn resume(pool: &Pool, workspace: WorkspaceId, account: AccountId) -> Result<bool, Error> {
    let done = sqlx::query(RESUME)
        .bind(workspace.0)
        .bind(account.0)
        .execute(pool)
        .await
        .map_err(failed("resuming an account that was read back"))?;
    Ok(done.rows_affected() > 0)
}

async fn change(
    pool: &Pool,
    statement: &'static str,
    workspace: WorkspaceId,
    account: AccountId,
    at: Timestamp,
) -> Result<bool, Error> {
    let done = sqlx::query(statement)
        .bind(workspace.0)
        .bind(account.0)
        .bind(at.to_utc())
        .execute(pool)
        .await
        .map_err(failed("noting how far an account was read back"))?;
    Ok(done.rows_affected() > 0)
}
