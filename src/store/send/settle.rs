//! What is noted about a send after its provider call, beside the transitions: reads back, and an outcome that nobody
//! waits for.

use super::{SendKey, keys};
use crate::domain::send::{Receipt, SendOutcome, SendStatus};
use crate::domain::time::Timestamp;
use crate::store::row::receipt_json;
use crate::store::{Error, Pool, clean, failed, json_text};

const COUNT_SETTLE: &str = "UPDATE sends s SET settle_count = s.settle_count + 1 \
    FROM unnest($1::uuid[], $2::uuid[]) AS want(workspace_id, id) \
    WHERE s.workspace_id = want.workspace_id AND s.id = want.id AND s.status IN ('dispatching', 'unknown')";
const CLOSE_ORPHAN: &str = "WITH closed AS ( \
        UPDATE sends SET status = $3, parked_at = CASE WHEN $4 THEN $6 END, error = coalesce($5, error), \
            finished_at = CASE WHEN $3 IN ('sent', 'failed', 'cancelled') THEN $6 ELSE finished_at END, \
            receipt = coalesce($7::jsonb, receipt) \
        WHERE workspace_id = $1 AND id = $2 AND status IN ('pending', 'dispatching', 'unknown') RETURNING account_id) \
    UPDATE account_gate g SET in_flight = NULL, in_flight_since = NULL FROM closed c \
    WHERE g.workspace_id = $1 AND g.account_id = c.account_id AND g.in_flight = $2";

/// Counts one more read back for each of these sends.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn count_settle(pool: &Pool, sends: &[SendKey]) -> Result<(), Error> {
    let (workspaces, ids) = keys(sends);
    sqlx::query(COUNT_SETTLE)
        .bind(workspaces)
        .bind(ids)
        .execute(pool)
        .await
        .map_err(failed("counting reads back"))
        .map(drop)
}

/// Records an outcome that no execution waits for any more (it was restarted or removed while the provider was called),
/// and opens the account's gate. What was not sent is cancelled: nobody wants it now.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn close_orphan(
    pool: &Pool,
    key: SendKey,
    outcome: &SendOutcome,
    receipt: &Receipt,
    at: Timestamp,
) -> Result<(), Error> {
    let (status, parked, error) = match outcome {
        SendOutcome::Sent => (SendStatus::Sent, false, None),
        SendOutcome::Failed { error, .. } => (SendStatus::Failed, false, Some(error)),
        SendOutcome::Unknown { error } => (SendStatus::Unknown, false, Some(error)),
        SendOutcome::NotSent => (SendStatus::Cancelled, false, None),
        SendOutcome::Unresolved { error } => (SendStatus::Unknown, true, Some(error)),
    };
    sqlx::query(CLOSE_ORPHAN)
        .bind(key.0.0)
        .bind(key.1.0)
        .bind(status.as_str())
        .bind(parked)
        .bind(error.map(|e| clean(e).into_owned()))
        .bind(at.to_utc())
        .bind(receipt_json(receipt).map(|json| json_text(&json)))
        .execute(pool)
        .await
        .map_err(failed("recording an outcome that no execution waits for"))
        .map(drop)
}
