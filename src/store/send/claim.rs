//! The claim of a send, which authorises its provider call: *no committed claim, no provider call*.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::count;
use crate::domain::id::{AccountId, SendId, WorkspaceId};
use crate::domain::suppression::Reason;
use crate::domain::time::Timestamp;
use crate::store::lease::LeaseView;
use crate::store::{Error, Pool, clean, failed, json_text, shard_column};

/// The fence is the account's shard: the gate belongs to whoever serves the account. The gate's row is locked before the
/// send's, and each is checked again once its lock is held, so of two claims one wins. Every part goes on with the rows of
/// the part before it, and what is left is told by `IN`, which is hashed: the parts are never joined to one another row by
/// row. What is only looked at is asked for by scalar
/// subqueries: joined, it offers the planner a second way to a send's workspace, and on tables that were empty when the plan
/// was made it took that one, through everybody's sends (310 claims: 1.6 s instead of 20 ms). An account that has been given
/// limits is claimed for only by who has asked its budget.
const CLAIM: &str = "WITH want AS MATERIALIZED ( \
        SELECT * FROM unnest($3::uuid[], $4::uuid[], $5::timestamptz[], $6::uuid[], $7::smallint[], $8::bigint[], \
            $9::text[], $10::text[], $11::text[], $12::timestamptz[], $13::integer[], $14::text[]) \
        AS w(workspace_id, id, created_at, account_id, shard, epoch, recipient, subject, body, at, used, history)), \
    lease AS MATERIALIZED ( \
        SELECT l.shard FROM shard_lease l JOIN (SELECT DISTINCT shard, epoch FROM want) w ON w.shard = l.shard \
        WHERE l.owner = $1 AND l.incarnation = $2 AND l.epoch = w.epoch ORDER BY l.shard FOR SHARE OF l), \
    gate AS MATERIALIZED ( \
        SELECT w.* FROM account_gate g \
        JOIN want w ON w.workspace_id = g.workspace_id AND w.account_id = g.account_id \
        WHERE w.shard IN (SELECT shard FROM lease) \
        AND g.in_flight IS NULL AND coalesce(g.next_send_at, '-infinity') <= w.at \
        AND (w.used IS NULL OR g.used = w.used) \
        ORDER BY g.workspace_id, g.account_id FOR UPDATE OF g), \
    claimed AS ( \
        UPDATE sends s SET status = 'dispatching', dispatch_count = s.dispatch_count + 1, lease_epoch = w.epoch, \
            claimed_at = w.at, recipient = w.recipient::jsonb, subject = w.subject, body = w.body \
        FROM gate w \
        WHERE s.workspace_id = w.workspace_id AND s.id = w.id AND s.created_at = w.created_at \
        AND s.status = 'pending' AND s.account_id = w.account_id \
        AND (SELECT a.status = 'active' AND (a.limits IS NULL OR w.used IS NOT NULL) \
            FROM accounts a WHERE a.workspace_id = w.workspace_id AND a.id = w.account_id) \
        AND (SELECT c.status FROM campaigns c WHERE c.id = s.campaign_id) IN ('active', 'running') \
        AND (SELECT e.status = 'executing' AND e.open_send = s.id \
            FROM campaign_prospect_execution_state e WHERE e.id = s.execution_id) \
        AND NOT EXISTS (SELECT 1 FROM sends o WHERE o.execution_id = s.execution_id AND o.id <> s.id \
            AND o.status IN ('dispatching', 'unknown') AND o.parked_at IS NULL OFFSET 0) \
        AND NOT EXISTS (SELECT FROM campaignd_suppressed(w.workspace_id, s.channel, w.recipient::jsonb)) \
        RETURNING s.workspace_id, s.id, s.account_id, s.dispatch_count, w.epoch, w.at, w.history), \
    shut AS ( \
        UPDATE account_gate g SET in_flight = k.id, in_flight_since = k.at, used = g.used + 1, \
            used_since = coalesce(g.used_since, k.at), lease_epoch = k.epoch, \
            history = coalesce(k.history::jsonb, g.history) \
        FROM claimed k WHERE g.workspace_id = k.workspace_id AND g.account_id = k.account_id) \
    SELECT k.id, k.dispatch_count FROM claimed k";

/// Why these were not claimed, as it looks a moment later. Apart from the claim, because nearly all are claimed, and starting
/// up these look-ups each time costs as much as a claim.
const WHY: &str = "SELECT w.id, EXISTS (SELECT 1 FROM shard_lease l \
            WHERE l.shard = w.shard AND l.owner = $1 AND l.incarnation = $2 AND l.epoch = w.epoch), \
        a.status, c.status, s.status, coalesce(e.status = 'executing' AND e.open_send = w.id, false), \
        CASE WHEN g.next_send_at > w.at THEN g.next_send_at END, \
        (SELECT min(x.reason) FROM campaignd_suppressed(w.workspace_id, s.channel, w.recipient::jsonb) AS x (reason)) \
    FROM unnest($3::uuid[], $4::uuid[], $5::timestamptz[], $6::uuid[], $7::smallint[], $8::bigint[], $9::timestamptz[], \
        $10::text[]) AS w(workspace_id, id, created_at, account_id, shard, epoch, at, recipient) \
    LEFT JOIN accounts a ON a.workspace_id = w.workspace_id AND a.id = w.account_id \
    LEFT JOIN account_gate g ON g.workspace_id = w.workspace_id AND g.account_id = w.account_id \
    LEFT JOIN sends s ON s.workspace_id = w.workspace_id AND s.id = w.id AND s.created_at = w.created_at \
    LEFT JOIN campaigns c ON c.id = s.campaign_id \
    LEFT JOIN campaign_prospect_execution_state e ON e.id = s.execution_id";

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
    /// What it uses up of the account's budget; `None` for an account that has none.
    pub spent: Option<Spent>,
}

/// What a claim uses up of a budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Spent {
    /// How often the gate had been used when the history was read. Where it was used since, nothing is claimed: the decision
    /// was taken on an old history.
    pub used: i32,
    /// The history with this send in it.
    pub history: Value,
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
    /// Another send of the account is in flight or has been since its history was read, or another send of the same
    /// execution has no outcome yet.
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
    /// The person is on the list of those who are not written to.
    Suppressed {
        /// Why.
        reason: Reason,
    },
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
        .bind(first.iter().map(|c| c.spent.as_ref().map(|s| s.used)).collect::<Vec<_>>())
        .bind(first.iter().map(|c| c.spent.as_ref().map(|s| json_text(&s.history))).collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .map_err(&what)?;
    let mut claimed = HashSet::new();
    for row in &rows {
        let send = SendId(row.try_get(0).map_err(&what)?);
        let result = ClaimResult::Claimed { dispatch_count: count(row.try_get(1).map_err(&what)?) };
        claimed.insert(send);
        outcomes.push(ClaimOutcome { send, result });
    }
    let left: Vec<&Claim> = first.into_iter().filter(|c| !claimed.contains(&c.send)).collect();
    if !left.is_empty() {
        // The claims stand whatever comes of this: it must not fail them.
        let why = why_not(pool, lease, &left).await.unwrap_or_else(|error| {
            tracing::warn!(%error, sends = left.len(), "cannot tell why sends were not claimed; they are looked at again");
            HashMap::new()
        });
        outcomes.extend(left.iter().map(|c| ClaimOutcome {
            send: c.send,
            result: why.get(&c.send).copied().unwrap_or(ClaimResult::GateBusy),
        }));
    }
    Ok(outcomes)
}

async fn why_not(pool: &Pool, lease: &LeaseView, claims: &[&Claim]) -> Result<HashMap<SendId, ClaimResult>, Error> {
    let what = failed("asking why sends were not claimed");
    let rows = sqlx::query(WHY)
        .bind(lease.node().id)
        .bind(lease.node().incarnation)
        .bind(claims.iter().map(|c| c.workspace.0).collect::<Vec<_>>())
        .bind(claims.iter().map(|c| c.send.0).collect::<Vec<_>>())
        .bind(claims.iter().map(|c| c.created_at.to_utc()).collect::<Vec<_>>())
        .bind(claims.iter().map(|c| c.account.0).collect::<Vec<_>>())
        .bind(claims.iter().map(|c| shard_column(c.account_shard)).collect::<Vec<_>>())
        .bind(claims.iter().map(|c| lease.epoch(c.account_shard)).collect::<Vec<_>>())
        .bind(claims.iter().map(|c| c.at.to_utc()).collect::<Vec<_>>())
        .bind(claims.iter().map(|c| json_text(&c.recipient)).collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .map_err(&what)?;
    rows.iter().map(|row| Ok((SendId(row.try_get(0).map_err(&what)?), reason(row).map_err(&what)?))).collect()
}

fn reason(row: &PgRow) -> Result<ClaimResult, sqlx::Error> {
    let fenced: bool = row.try_get(1)?;
    let (account, campaign): (Option<&str>, Option<&str>) = (row.try_get(2)?, row.try_get(3)?);
    let (send, waits): (Option<&str>, bool) = (row.try_get(4)?, row.try_get(5)?);
    let until: Option<DateTime<Utc>> = row.try_get(6)?;
    let suppressed: Option<&str> = row.try_get(7)?;
    Ok(if !fenced {
        ClaimResult::LeaseLost
    } else if send != Some("pending") || !waits {
        ClaimResult::NotPending
    } else if !matches!(campaign, Some("active" | "running")) {
        ClaimResult::CampaignInactive
    } else if account != Some("active") {
        ClaimResult::AccountNotActive
    } else if let Some(reason) = suppressed.and_then(Reason::parse) {
        ClaimResult::Suppressed { reason }
    } else if let Some(until) = until {
        ClaimResult::GateResting { until: until.into() }
    } else {
        // The gate was shut, or another send of the same execution has no outcome yet, or what kept it from being claimed is
        // over by now. The caller looks at the row again in each case.
        ClaimResult::GateBusy
    })
}
