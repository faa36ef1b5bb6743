//! The claim of a send, which authorises its provider call: *no committed claim, no provider call*.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::count;
use crate::domain::id::{AccountId, SendId, WorkspaceId};
use crate::domain::time::Timestamp;
use crate::store::lease::LeaseView;
use crate::store::{Error, Pool, clean, failed, json_text, shard_column};

/// The fence is the account's shard: the gate belongs to whoever serves the account. The gate's row is locked before the
/// send's, and each is checked again once its lock is held, so of two claims one wins. What was not claimed is answered by
/// what the statement's snapshot saw. Every part goes on with the rows of the part before it, and what is left is told by
/// `IN`, which is hashed: the parts are never joined to one another row by row.
const CLAIM: &str = "WITH want AS MATERIALIZED ( \
        SELECT * FROM unnest($3::uuid[], $4::uuid[], $5::timestamptz[], $6::uuid[], $7::smallint[], $8::bigint[], \
            $9::text[], $10::text[], $11::text[], $12::timestamptz[]) \
        AS w(workspace_id, id, created_at, account_id, shard, epoch, recipient, subject, body, at)), \
    lease AS MATERIALIZED ( \
        SELECT l.shard FROM shard_lease l JOIN (SELECT DISTINCT shard, epoch FROM want) w ON w.shard = l.shard \
        WHERE l.owner = $1 AND l.incarnation = $2 AND l.epoch = w.epoch ORDER BY l.shard FOR SHARE OF l), \
    gate AS MATERIALIZED ( \
        SELECT w.* FROM account_gate g \
        JOIN want w ON w.workspace_id = g.workspace_id AND w.account_id = g.account_id \
        WHERE w.shard IN (SELECT shard FROM lease) \
        AND g.in_flight IS NULL AND coalesce(g.next_send_at, '-infinity') <= w.at \
        ORDER BY g.workspace_id, g.account_id FOR UPDATE OF g), \
    claimed AS ( \
        UPDATE sends s SET status = 'dispatching', dispatch_count = s.dispatch_count + 1, lease_epoch = w.epoch, \
            claimed_at = w.at, recipient = w.recipient::jsonb, subject = w.subject, body = w.body \
        FROM gate w \
        JOIN accounts a ON a.workspace_id = w.workspace_id AND a.id = w.account_id, \
        campaigns c, campaign_prospect_execution_state e \
        WHERE s.workspace_id = w.workspace_id AND s.id = w.id AND s.created_at = w.created_at \
        AND c.id = s.campaign_id AND e.id = s.execution_id \
        AND s.status = 'pending' AND s.account_id = w.account_id AND a.status = 'active' \
        AND c.status IN ('active', 'running') AND e.status = 'executing' AND e.open_send = w.id \
        AND NOT EXISTS (SELECT 1 FROM sends o WHERE o.execution_id = e.id AND o.id <> w.id \
            AND o.status IN ('dispatching', 'unknown') AND o.parked_at IS NULL) \
        RETURNING s.workspace_id, s.id, s.account_id, s.dispatch_count, w.epoch, w.at), \
    shut AS ( \
        UPDATE account_gate g SET in_flight = k.id, in_flight_since = k.at, used = g.used + 1, \
            used_since = coalesce(g.used_since, k.at), lease_epoch = k.epoch \
        FROM claimed k WHERE g.workspace_id = k.workspace_id AND g.account_id = k.account_id) \
    SELECT k.id, k.dispatch_count, true, NULL, NULL, NULL, true, NULL FROM claimed k \
    UNION ALL \
    SELECT w.id, NULL, w.shard IN (SELECT shard FROM lease), a.status, c.status, s.status, \
        coalesce(e.status = 'executing' AND e.open_send = w.id, false), \
        CASE WHEN g.next_send_at > w.at THEN g.next_send_at END \
    FROM want w \
    LEFT JOIN accounts a ON a.workspace_id = w.workspace_id AND a.id = w.account_id \
    LEFT JOIN account_gate g ON g.workspace_id = w.workspace_id AND g.account_id = w.account_id \
    LEFT JOIN sends s ON s.workspace_id = w.workspace_id AND s.id = w.id AND s.created_at = w.created_at \
    LEFT JOIN campaigns c ON c.id = s.campaign_id \
    LEFT JOIN campaign_prospect_execution_state e ON e.id = s.execution_id \
    WHERE w.id NOT IN (SELECT id FROM claimed)";

/// A wish to carry a send out now.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Which.
    pub send: SendId,
    /// Part of its key.
    pub created_at: Timestamp,
    /// Through which account.
    pub account: AccountId,
    /// The account's shard: whoever holds it may claim.
    pub account_shard: u16,
    /// Whom, as it will be handed to the provider.
    pub recipient: Value,
    /// The mail's subject, rendered.
    pub subject: Option<String>,
    /// The text, rendered.
    pub body: Option<String>,
    /// Now, by the program's clock.
    pub at: Timestamp,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimResult {
    /// Durable: the provider must be called now, once.
    Claimed {
        /// Claims of this send so far, this one included.
        dispatch_count: u32,
    },
    /// The send is not pending any more, or its execution does not wait for it.
    NotPending,
    /// Another send of the account is in flight, or another send of the same execution has no outcome yet.
    GateBusy,
    /// The account rests.
    GateResting {
        /// Until then.
        until: Timestamp,
    },
    /// The campaign is not running.
    CampaignInactive,
    /// The account is halted, switched off or gone.
    AccountNotActive,
    /// The account's shard is not ours any more.
    LeaseLost,
}

/// What became of the claim of one send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimOutcome {
    /// Which.
    pub send: SendId,
    /// What.
    pub result: ClaimResult,
}

/// Claims sends: locks each account's gate, moves the send to `dispatching` with what will be handed to the provider, and
/// shuts the gate, in one fenced statement. Of several claims for one account the first of `claims` is tried and the
/// others are answered `GateBusy`. One outcome a claim, in no order.
///
/// # Errors
/// When Postgres cannot be asked. If the answer was lost the claim may stand all the same: the send is then found in
/// `dispatching` and must be read back from the provider before anything else.
pub async fn claim(pool: &Pool, lease: &LeaseView, claims: &[Claim]) -> Result<Vec<ClaimOutcome>, Error> {
    let what = failed("claiming sends");
    let mut accounts = HashSet::new();
    let (first, later): (Vec<&Claim>, Vec<&Claim>) =
        claims.iter().partition(|c| accounts.insert((c.workspace, c.account)));
    let mut outcomes: Vec<ClaimOutcome> =
        later.iter().map(|c| ClaimOutcome { send: c.send, result: ClaimResult::GateBusy }).collect();
    if first.is_empty() {
        return Ok(outcomes);
    }
    let text = |t: &Option<String>| t.as_deref().map(|t| clean(t).into_owned());
    let rows = sqlx::query(CLAIM)
        .bind(lease.node().id)
        .bind(lease.node().incarnation)
        .bind(first.iter().map(|c| c.workspace.0).collect::<Vec<_>>())
        .bind(first.iter().map(|c| c.send.0).collect::<Vec<_>>())
        .bind(first.iter().map(|c| c.created_at.to_utc()).collect::<Vec<_>>())
        .bind(first.iter().map(|c| c.account.0).collect::<Vec<_>>())
        .bind(first.iter().map(|c| shard_column(c.account_shard)).collect::<Vec<_>>())
        .bind(first.iter().map(|c| lease.epoch(c.account_shard)).collect::<Vec<_>>())
        .bind(first.iter().map(|c| json_text(&c.recipient)).collect::<Vec<_>>())
        .bind(first.iter().map(|c| text(&c.subject)).collect::<Vec<_>>())
        .bind(first.iter().map(|c| text(&c.body)).collect::<Vec<_>>())
        .bind(first.iter().map(|c| c.at.to_utc()).collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .map_err(&what)?;
    for row in &rows {
        let send: Uuid = row.try_get(0).map_err(&what)?;
        outcomes.push(ClaimOutcome { send: SendId(send), result: claim_result(row).map_err(&what)? });
    }
    // A want without a row cannot be (the wants lead the joins), but a caller must never wait for an answer.
    let answered: HashMap<SendId, ()> = outcomes.iter().map(|o| (o.send, ())).collect();
    outcomes.extend(
        first
            .iter()
            .filter(|c| !answered.contains_key(&c.send))
            .map(|c| ClaimOutcome { send: c.send, result: ClaimResult::NotPending }),
    );
    Ok(outcomes)
}

fn claim_result(row: &PgRow) -> Result<ClaimResult, sqlx::Error> {
    if let Some(n) = row.try_get::<Option<i32>, _>(1)? {
        return Ok(ClaimResult::Claimed { dispatch_count: count(n) });
    }
    let fenced: bool = row.try_get(2)?;
    let (account, campaign): (Option<&str>, Option<&str>) = (row.try_get(3)?, row.try_get(4)?);
    let (send, waits): (Option<&str>, bool) = (row.try_get(5)?, row.try_get(6)?);
    let until: Option<DateTime<Utc>> = row.try_get(7)?;
    Ok(if !fenced {
        ClaimResult::LeaseLost
    } else if send != Some("pending") || !waits {
        ClaimResult::NotPending
    } else if !matches!(campaign, Some("active" | "running")) {
        ClaimResult::CampaignInactive
    } else if account != Some("active") {
        ClaimResult::AccountNotActive
    } else if let Some(until) = until {
        ClaimResult::GateResting { until: until.into() }
    } else {
        // The gate is shut; or it was ours, and the send changed while we waited for it, or another send of the same
        // execution has no outcome yet. The caller looks at the row again in each case.
        ClaimResult::GateBusy
    })
}
