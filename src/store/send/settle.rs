//! What is noted about a send after its provider call, beside the transitions: reads back, and an outcome that nobody
//! waits for.

use super::SendKey;
use crate::domain::budget::Kind;
use crate::domain::id::AccountId;
use crate::domain::send::{Receipt, SendOutcome, SendStatus};
use crate::domain::time::Timestamp;
use crate::store::lease::LeaseView;
use crate::store::row::receipt_json;
use crate::store::{Error, Pool, clean, failed, json_text, shard_column};

/// The fence of both: the account's shard, as of the claim before them.
macro_rules! fenced {
    ($rest:literal) => {
        concat!(
            "WITH lease AS MATERIALIZED ( \
                SELECT l.shard FROM shard_lease l \
                WHERE l.shard = $3 AND l.owner = $4 AND l.incarnation = $5 AND l.epoch = $6 FOR SHARE OF l)",
            $rest
        )
    };
}

const COUNT_SETTLE: &str = fenced!(
    " UPDATE sends s SET settle_count = s.settle_count + 1 \
    WHERE s.workspace_id = $1 AND s.id = $2 AND s.status IN ('dispatching', 'unknown') AND EXISTS (SELECT FROM lease)"
);
const CLOSE_ORPHAN: &str = fenced!(
    ", closed AS ( \
        UPDATE sends SET status = $7, parked_at = CASE WHEN $8 THEN $10 END, error = coalesce($9, error), \
            finished_at = CASE WHEN $7 IN ('sent', 'failed', 'cancelled') THEN $10 ELSE finished_at END, \
            receipt = coalesce($11::jsonb, receipt) \
        WHERE workspace_id = $1 AND id = $2 AND status IN ('pending', 'dispatching', 'unknown') \
        AND EXISTS (SELECT FROM lease) RETURNING account_id), \
    opened AS ( \
        UPDATE account_gate g SET in_flight = CASE WHEN g.in_flight = $2 THEN NULL ELSE g.in_flight END, \
            in_flight_since = CASE WHEN g.in_flight = $2 THEN NULL ELSE g.in_flight_since END, \
            next_send_at = greatest(g.next_send_at, $12), \
            rests = CASE WHEN $13::text IS NULL THEN g.rests \
                ELSE coalesce(g.rests, '{}') || jsonb_build_object($13::text, $14::bigint) END \
        FROM closed c WHERE g.workspace_id = $1 AND g.account_id = c.account_id) \
    SELECT EXISTS (SELECT FROM lease)"
);

/// Counts one more read back for a send, as long as its account's shard is ours.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn count_settle(pool: &Pool, lease: &LeaseView, key: SendKey, account: AccountId) -> Result<(), Error> {
    sqlx::query(COUNT_SETTLE)
        .bind(key.0.0)
        .bind(key.1.0)
        .bind(shard_column(account.shard()))
        .bind(lease.node().id)
        .bind(lease.node().incarnation)
        .bind(lease.epoch(account.shard()))
        .execute(pool)
        .await
        .map_err(failed("counting reads back"))
        .map(drop)
}

/// An outcome that no execution waits for any more.
#[derive(Clone, Copy, Debug)]
pub struct Orphan<'a> {
    /// Of which send.
    pub key: SendKey,
    /// The shard of its account.
    pub account_shard: u16,
    /// How it ended.
    pub outcome: &'a SendOutcome,
    /// What the provider handed back.
    pub receipt: &'a Receipt,
    /// The account sends nothing before this.
    pub rest_until: Option<Timestamp>,
    /// The account does nothing of this kind before that.
    pub brake: Option<(Kind, Timestamp)>,
    /// When it ended.
    pub at: Timestamp,
}

/// Records an outcome that no execution waits for any more (it was restarted or removed while the provider was called),
/// opens the account's gate, and has the account rest as after every send. What was not sent is cancelled: nobody wants it now.
/// Answers whether the account's shard is ours; if not, nothing is written.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn close_orphan(pool: &Pool, lease: &LeaseView, orphan: &Orphan<'_>) -> Result<bool, Error> {
    let (status, parked, error) = match orphan.outcome {
        SendOutcome::Sent => (SendStatus::Sent, false, None),
        SendOutcome::Failed { error, .. } => (SendStatus::Failed, false, Some(error)),
        SendOutcome::Unknown { error } => (SendStatus::Unknown, false, Some(error)),
        SendOutcome::NotSent => (SendStatus::Cancelled, false, None),
        SendOutcome::Unresolved { error } => (SendStatus::Unknown, true, Some(error)),
    };
    sqlx::query_scalar(CLOSE_ORPHAN)
        .bind(orphan.key.0.0)
        .bind(orphan.key.1.0)
        .bind(shard_column(orphan.account_shard))
        .bind(lease.node().id)
        .bind(lease.node().incarnation)
        .bind(lease.epoch(orphan.account_shard))
        .bind(status.as_str())
        .bind(parked)
        .bind(error.map(|e| clean(e).into_owned()))
        .bind(orphan.at.to_utc())
        .bind(receipt_json(orphan.receipt).map(|json| json_text(&json)))
        .bind(orphan.rest_until.map(Timestamp::to_utc))
        .bind(orphan.brake.map(|(kind, _)| kind.as_str()))
        .bind(orphan.brake.map(|(_, until)| until.as_micros()))
        .fetch_one(pool)
        .await
        .map_err(failed("recording an outcome that no execution waits for"))
}
