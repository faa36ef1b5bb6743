//! What keeps an account from sending, or lets it send again: its halt, and a gate that was left shut.

use uuid::Uuid;

use crate::domain::id::{AccountId, SHARDS, WorkspaceId};
use crate::domain::time::Timestamp;
use crate::store::lease::LeaseView;
use crate::store::{Error, Pool, clean, failed, shard_column};

const HALT: &str = "UPDATE accounts SET status = 'halted', status_reason = $3 \
    WHERE workspace_id = $1 AND id = $2 AND status = 'active'";
const RESUME: &str = "UPDATE accounts SET status = 'active', status_reason = NULL \
    WHERE workspace_id = $1 AND id = $2 AND status = 'halted'";
/// Of an account that sends a reason says what holds it all the same.
const HOLD: &str = "UPDATE accounts SET status_reason = $2 \
    WHERE provider = $1 AND status = 'active' AND status_reason IS DISTINCT FROM $2";
const LET_GO: &str = "UPDATE accounts SET status_reason = NULL \
    WHERE ($1::text IS NULL OR provider = $1) AND status = 'active' AND status_reason IS NOT NULL";
/// `in_flight_since < $3` also keeps a claim that commits while this runs from being undone by an older view of its send.
const REOPEN: &str = "WITH lease AS MATERIALIZED ( \
        SELECT l.shard FROM shard_lease l JOIN unnest($4::smallint[], $5::bigint[]) AS w(shard, epoch) \
        ON w.shard = l.shard WHERE l.owner = $1 AND l.incarnation = $2 AND l.epoch = w.epoch \
        ORDER BY l.shard FOR SHARE OF l) \
    UPDATE account_gate g SET in_flight = NULL, in_flight_since = NULL FROM lease f \
    WHERE f.shard = g.shard AND g.in_flight IS NOT NULL AND g.in_flight_since < $3 AND NOT EXISTS ( \
        SELECT 1 FROM sends s WHERE s.workspace_id = g.workspace_id AND s.id = g.in_flight \
        AND s.status IN ('dispatching', 'unknown') AND s.parked_at IS NULL) \
    RETURNING g.account_id";

const BUSY: &str = "SELECT EXISTS (SELECT FROM account_gate \
    WHERE workspace_id = $1 AND account_id = $2 AND in_flight IS NOT NULL AND in_flight_since <= $3)";

/// Whether an account has a send in hand that was claimed by `at` and whose outcome is not known: what it tells of the person
/// is not known either.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn is_busy(pool: &Pool, workspace: WorkspaceId, account: AccountId, at: Timestamp) -> Result<bool, Error> {
    sqlx::query_scalar(BUSY)
        .bind(workspace.0)
        .bind(account.0)
        .bind(at.to_utc())
        .fetch_one(pool)
        .await
        .map_err(failed("looking at the gate of an account"))
}

/// Halts an active account: nothing is claimed for it until it is resumed. Answers whether it was active.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn halt_account(
    pool: &Pool,
    workspace: WorkspaceId,
    account: AccountId,
    reason: &str,
) -> Result<bool, Error> {
    let done = sqlx::query(HALT)
        .bind(workspace.0)
        .bind(account.0)
        .bind(&*clean(reason))
        .execute(pool)
        .await
        .map_err(failed("halting an account"))?;
    Ok(done.rows_affected() > 0)
}

/// Lets a halted account send again. Answers whether it was halted.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn resume_account(pool: &Pool, workspace: WorkspaceId, account: AccountId) -> Result<bool, Error> {
    let done = sqlx::query(RESUME)
        .bind(workspace.0)
        .bind(account.0)
        .execute(pool)
        .await
        .map_err(failed("resuming an account"))?;
    Ok(done.rows_affected() > 0)
}

/// Notes at every account of a provider that would send why none of them does.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn hold_accounts(pool: &Pool, provider: &str, reason: &str) -> Result<(), Error> {
    let what = failed("noting what holds accounts");
    sqlx::query(HOLD).bind(provider).bind(&*clean(reason)).execute(pool).await.map_err(what).map(drop)
}

/// Nothing holds the accounts of a provider any more, or of all of them.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn let_go_accounts(pool: &Pool, provider: Option<&str>) -> Result<(), Error> {
    let what = failed("forgetting what held accounts");
    sqlx::query(LET_GO).bind(provider).execute(pool).await.map_err(what).map(drop)
}

/// Opens the gates whose send has ended, or is parked, without them being opened (a crash between two statements of an
/// older build, or a hand in the tables). Only gates that were shut before `before`: pass the time of this process's
/// start. Answers their accounts.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn reopen_stale_gates(pool: &Pool, lease: &LeaseView, before: Timestamp) -> Result<Vec<AccountId>, Error> {
    let accounts: Vec<Uuid> = sqlx::query_scalar(REOPEN)
        .bind(lease.node().id)
        .bind(lease.node().incarnation)
        .bind(before.to_utc())
        .bind((0..SHARDS).map(shard_column).collect::<Vec<_>>())
        .bind((0..SHARDS).map(|s| lease.epoch(s)).collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .map_err(failed("opening stale gates"))?;
    Ok(accounts.into_iter().map(AccountId).collect())
}
