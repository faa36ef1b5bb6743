//! Sends: what is open, what a dispatch needs to know, and the claim that authorises a provider call.
//!
//! Owns the reads of `sends`, the gate of an account, and an account's halt. Rows of `sends` are made and ended by
//! [`super::writer`], together with the transition that decides; this file only moves `pending -> dispatching`, in
//! [`claim`]: *no committed claim, no provider call*. Called by `runtime`'s channel actors and its reconciliation.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::lease::LeaseView;
use super::row::receipt_json;
use super::{Error, Pool, clean, failed, shard_column};
use crate::domain::execution::Status;
use crate::domain::id::{AccountId, CampaignId, ExecutionId, ProspectId, SHARDS, SendId, WorkspaceId};
use crate::domain::send::{Action, Receipt, SendOutcome, SendStatus};
use crate::domain::time::Timestamp;

/// A send's key without its partition.
pub type SendKey = (WorkspaceId, SendId);

const OPEN: &str = "SELECT workspace_id, id, created_at, execution_id, campaign_id, account_id, status, lease_epoch, \
        action, claimed_at, settle_count, parked_at IS NOT NULL, flow_version, step \
    FROM sends WHERE status IN ('pending', 'dispatching', 'unknown') AND parked_at IS NULL \
    AND ($1::uuid[] IS NULL OR account_id = ANY($1)) ORDER BY created_at, id";

const LOAD: &str = "SELECT s.workspace_id, s.id, s.created_at, s.execution_id, s.campaign_id, s.account_id, s.status, \
        s.lease_epoch, s.action, s.claimed_at, s.settle_count, s.parked_at IS NOT NULL, s.flow_version, s.step, \
        s.prospect_id, s.step_id, s.attempt, s.dispatch_count, s.recipient, s.subject, s.body, \
        a.provider, a.provider_account_id, a.status, c.status, e.status, e.open_send, to_jsonb(p), i.learnt \
    FROM unnest($1::uuid[], $2::uuid[]) AS want(workspace_id, id) \
    JOIN sends s ON s.workspace_id = want.workspace_id AND s.id = want.id \
    JOIN accounts a ON a.workspace_id = s.workspace_id AND a.id = s.account_id \
    LEFT JOIN campaigns c ON c.id = s.campaign_id \
    LEFT JOIN campaign_prospect_execution_state e ON e.id = s.execution_id \
    LEFT JOIN campaign_prospects p ON p.id = s.prospect_id \
    LEFT JOIN LATERAL ( \
        SELECT jsonb_object_agg(k.kind, k.value) AS learnt FROM ( \
            SELECT DISTINCT ON (kind) kind, value FROM identities \
            WHERE execution_id = s.execution_id AND account_id = s.account_id \
            AND kind IN ('recipient', 'chat', 'lid', 'rfc_message', 'thread') \
            ORDER BY kind, created_at DESC) k) i ON true";

/// The fence is the account's shard: the gate belongs to whoever serves the account. The gate's row is locked before the
/// send's, and each is checked again once its lock is held, so of two claims one wins. `why` is what the statement's
/// snapshot saw, for those that were not claimed.
const CLAIM: &str = "WITH want AS MATERIALIZED ( \
        SELECT * FROM unnest($3::uuid[], $4::uuid[], $5::timestamptz[], $6::uuid[], $7::smallint[], $8::bigint[], \
            $9::text[], $10::text[], $11::text[], $12::timestamptz[]) \
        AS w(workspace_id, id, created_at, account_id, shard, epoch, recipient, subject, body, at)), \
    lease AS MATERIALIZED ( \
        SELECT l.shard FROM shard_lease l JOIN (SELECT DISTINCT shard, epoch FROM want) w ON w.shard = l.shard \
        WHERE l.owner = $1 AND l.incarnation = $2 AND l.epoch = w.epoch ORDER BY l.shard FOR SHARE OF l), \
    gate AS MATERIALIZED ( \
        SELECT g.workspace_id, g.account_id FROM account_gate g \
        JOIN want w ON w.workspace_id = g.workspace_id AND w.account_id = g.account_id \
        JOIN lease f ON f.shard = w.shard \
        WHERE g.in_flight IS NULL AND coalesce(g.next_send_at, '-infinity') <= w.at \
        ORDER BY g.workspace_id, g.account_id FOR UPDATE OF g), \
    claimed AS ( \
        UPDATE sends s SET status = 'dispatching', dispatch_count = s.dispatch_count + 1, lease_epoch = w.epoch, \
            claimed_at = w.at, recipient = w.recipient::jsonb, subject = w.subject, body = w.body \
        FROM want w \
        JOIN gate g ON g.workspace_id = w.workspace_id AND g.account_id = w.account_id \
        JOIN accounts a ON a.workspace_id = w.workspace_id AND a.id = w.account_id \
        JOIN sends i ON i.workspace_id = w.workspace_id AND i.id = w.id AND i.created_at = w.created_at \
        JOIN campaigns c ON c.id = i.campaign_id \
        JOIN campaign_prospect_execution_state e ON e.id = i.execution_id \
        WHERE s.workspace_id = w.workspace_id AND s.id = w.id AND s.created_at = w.created_at \
        AND s.status = 'pending' AND s.account_id = w.account_id AND a.status = 'active' \
        AND c.status IN ('active', 'running') AND e.status = 'executing' AND e.open_send = w.id \
        AND NOT EXISTS (SELECT 1 FROM sends o WHERE o.execution_id = e.id AND o.id <> s.id \
            AND o.status IN ('dispatching', 'unknown') AND o.parked_at IS NULL) \
        RETURNING s.workspace_id, s.id, s.account_id, s.dispatch_count, w.epoch, w.at), \
    shut AS ( \
        UPDATE account_gate g SET in_flight = k.id, in_flight_since = k.at, used = g.used + 1, \
            used_since = coalesce(g.used_since, k.at), lease_epoch = k.epoch \
        FROM claimed k WHERE g.workspace_id = k.workspace_id AND g.account_id = k.account_id) \
    SELECT w.id, k.dispatch_count, f.shard IS NOT NULL, locked.account_id IS NOT NULL, a.status, c.status, s.status, \
        coalesce(e.status = 'executing' AND e.open_send = w.id, false), \
        CASE WHEN g.next_send_at > w.at THEN g.next_send_at END \
    FROM want w \
    LEFT JOIN claimed k ON k.workspace_id = w.workspace_id AND k.id = w.id \
    LEFT JOIN lease f ON f.shard = w.shard \
    LEFT JOIN gate locked ON locked.workspace_id = w.workspace_id AND locked.account_id = w.account_id \
    LEFT JOIN accounts a ON a.workspace_id = w.workspace_id AND a.id = w.account_id \
    LEFT JOIN account_gate g ON g.workspace_id = w.workspace_id AND g.account_id = w.account_id \
    LEFT JOIN sends s ON s.workspace_id = w.workspace_id AND s.id = w.id AND s.created_at = w.created_at \
    LEFT JOIN campaigns c ON c.id = s.campaign_id \
    LEFT JOIN campaign_prospect_execution_state e ON e.id = s.execution_id";

const COUNT_SETTLE: &str = "UPDATE sends s SET settle_count = s.settle_count + 1 \
    FROM unnest($1::uuid[], $2::uuid[]) AS want(workspace_id, id) \
    WHERE s.workspace_id = want.workspace_id AND s.id = want.id AND s.status IN ('dispatching', 'unknown')";
const HALT: &str = "UPDATE accounts SET status = 'halted', status_reason = $3 \
    WHERE workspace_id = $1 AND id = $2 AND status = 'active'";
const RESUME: &str = "UPDATE accounts SET status = 'active', status_reason = NULL \
    WHERE workspace_id = $1 AND id = $2 AND status = 'halted'";
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

/// A send that has no outcome yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSend {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Its id.
    pub id: SendId,
    /// When it was decided; part of its key.
    pub created_at: Timestamp,
    /// Whose.
    pub execution: ExecutionId,
    /// Of which campaign.
    pub campaign: CampaignId,
    /// Through which account.
    pub account: AccountId,
    /// `Pending`, `Dispatching` or `Unknown`; another one only when it was loaded by id.
    pub status: SendStatus,
    /// The epoch of its last claim, 0 before the first. In `Dispatching` with an older epoch than the shard's: a crash's.
    pub lease_epoch: i64,
    /// What to do.
    pub action: Action,
    /// Its last claim.
    pub claimed_at: Option<Timestamp>,
    /// Reads back so far since the last claim.
    pub settle_count: u32,
    /// Whether reading back was given up; then it waits for a person.
    pub parked: bool,
    /// The flow version its texts come from.
    pub flow_version: i32,
    /// 1-based position of its step in that version.
    pub step: u32,
}

/// What the provider told us about a person, through the account of the send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learnt {
    /// LinkedIn `ACo…`, WhatsApp JID.
    pub recipient_id: Option<String>,
    /// The chat with the person.
    pub chat_id: Option<String>,
    /// WhatsApp's other name of the person.
    pub lid: Option<String>,
    /// The Message-ID of our last mail, with angle brackets.
    pub rfc_message_id: Option<String>,
    /// The thread of our mails.
    pub thread_id: Option<String>,
}

/// Everything that carrying a send out needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    /// The send.
    pub send: OpenSend,
    /// The person.
    pub prospect_id: ProspectId,
    /// The step's id.
    pub step_id: String,
    /// 1 for the first try on the step.
    pub attempt: u32,
    /// Claims so far.
    pub dispatch_count: u32,
    /// What the last claim stored for the provider; reading back must use exactly this.
    pub recipient: Option<Value>,
    /// Likewise, the mail's subject.
    pub subject: Option<String>,
    /// Likewise, the text.
    pub body: Option<String>,
    /// What carries the account, for example `unipile`.
    pub provider: String,
    /// The account's id there.
    pub provider_account_id: String,
    /// Whether the account may send (`accounts.status`).
    pub account_status: String,
    /// Whether the campaign runs: its status is `active` or `running`.
    pub campaign_active: bool,
    /// The execution's status; `None` when it is gone or cannot be read.
    pub execution_status: Option<Status>,
    /// Whether the execution waits for exactly this send.
    pub is_open_send: bool,
    /// The prospect's row as one flat object: its columns, and the keys of its `data`, `personalization_data` and
    /// `custom_fields` objects where no column of that name has a value. Null when the prospect is gone.
    pub prospect: Value,
    /// What earlier sends taught us.
    pub learnt: Learnt,
}

impl OpenSend {
    fn from_row(row: &PgRow) -> Result<Self, Error> {
        let what = failed("reading a send");
        let id: Uuid = row.try_get(1).map_err(&what)?;
        let wrong = |reason: &str| Error::Decode { what: "send", id: id.to_string(), reason: reason.to_owned() };
        let status: &str = row.try_get(6).map_err(&what)?;
        let action: &str = row.try_get(8).map_err(&what)?;
        Ok(Self {
            workspace: WorkspaceId(row.try_get(0).map_err(&what)?),
            id: SendId(id),
            created_at: time(row.try_get(2).map_err(&what)?),
            execution: ExecutionId(row.try_get(3).map_err(&what)?),
            campaign: CampaignId(row.try_get(4).map_err(&what)?),
            account: AccountId(row.try_get(5).map_err(&what)?),
            status: SendStatus::parse(status).ok_or_else(|| wrong("its status is not known"))?,
            lease_epoch: row.try_get(7).map_err(&what)?,
            action: Action::parse(action).ok_or_else(|| wrong("its action is not known"))?,
            claimed_at: row.try_get::<Option<DateTime<Utc>>, _>(9).map_err(&what)?.map(Timestamp::from),
            settle_count: count(row.try_get(10).map_err(&what)?),
            parked: row.try_get(11).map_err(&what)?,
            flow_version: row.try_get(12).map_err(&what)?,
            step: count(row.try_get(13).map_err(&what)?),
        })
    }
}

fn time(t: DateTime<Utc>) -> Timestamp {
    Timestamp::from(t)
}

fn count(n: i32) -> u32 {
    u32::try_from(n).unwrap_or(0)
}

/// The sends without an outcome, of some accounts or of all, oldest first. Parked ones are left out.
///
/// # Errors
/// When Postgres cannot be asked, or a row holds a word that is not ours.
pub async fn open_sends(pool: &Pool, accounts: Option<&[AccountId]>) -> Result<Vec<OpenSend>, Error> {
    let accounts: Option<Vec<Uuid>> = accounts.map(|ids| ids.iter().map(|a| a.0).collect());
    let rows =
        sqlx::query(OPEN).bind(accounts).fetch_all(pool).await.map_err(failed("listing the sends without outcome"))?;
    rows.iter().map(OpenSend::from_row).collect()
}

/// Reads what carrying these sends out needs. Sends without a row are absent; the order is not that of `sends`.
///
/// # Errors
/// When Postgres cannot be asked, or a row holds a word that is not ours.
pub async fn load_for_dispatch(pool: &Pool, sends: &[SendKey]) -> Result<Vec<Dispatch>, Error> {
    let (workspaces, ids) = keys(sends);
    let rows = sqlx::query(LOAD)
        .bind(workspaces)
        .bind(ids)
        .fetch_all(pool)
        .await
        .map_err(failed("loading sends for dispatch"))?;
    rows.iter().map(dispatch_from_row).collect()
}

fn keys(sends: &[SendKey]) -> (Vec<Uuid>, Vec<Uuid>) {
    sends.iter().map(|(workspace, send)| (workspace.0, send.0)).unzip()
}

fn dispatch_from_row(row: &PgRow) -> Result<Dispatch, Error> {
    let what = failed("reading a send");
    let send = OpenSend::from_row(row)?;
    let campaign: Option<&str> = row.try_get(24).map_err(&what)?;
    let execution: Option<&str> = row.try_get(25).map_err(&what)?;
    let open_send: Option<Uuid> = row.try_get(26).map_err(&what)?;
    let learnt: Option<Value> = row.try_get(28).map_err(&what)?;
    let known = |kind: &str| learnt.as_ref()?.get(kind)?.as_str().map(str::to_owned);
    Ok(Dispatch {
        prospect_id: ProspectId(row.try_get(14).map_err(&what)?),
        step_id: row.try_get(15).map_err(&what)?,
        attempt: count(row.try_get(16).map_err(&what)?),
        dispatch_count: count(row.try_get(17).map_err(&what)?),
        recipient: row.try_get(18).map_err(&what)?,
        subject: row.try_get(19).map_err(&what)?,
        body: row.try_get(20).map_err(&what)?,
        provider: row.try_get(21).map_err(&what)?,
        provider_account_id: row.try_get(22).map_err(&what)?,
        account_status: row.try_get(23).map_err(&what)?,
        campaign_active: matches!(campaign, Some("active" | "running")),
        execution_status: execution.and_then(Status::parse),
        is_open_send: open_send == Some(send.id.0),
        prospect: flat(row.try_get(27).map_err(&what)?),
        learnt: Learnt {
            recipient_id: known("recipient"),
            chat_id: known("chat"),
            lid: known("lid"),
            rfc_message_id: known("rfc_message"),
            thread_id: known("thread"),
        },
        send,
    })
}

/// One flat object out of a prospect's row: the keys of its free-form columns fill in where no column has a value.
fn flat(row: Option<Value>) -> Value {
    let Some(Value::Object(mut columns)) = row else { return Value::Null };
    let mut extra = Map::new();
    for column in ["data", "personalization_data", "custom_fields"] {
        if let Some(Value::Object(map)) = columns.remove(column) {
            extra.extend(map.into_iter().filter(|(_, v)| !v.is_null()));
        }
    }
    for (key, value) in extra {
        let slot = columns.entry(key).or_insert(Value::Null);
        if slot.is_null() {
            *slot = value;
        }
    }
    Value::Object(columns)
}

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

/// JSON as text that Postgres takes: without the escape of NUL, which jsonb refuses.
pub(crate) fn json_text(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains("\\u0000") {
        return text;
    }
    strip_nul(value).to_string()
}

fn strip_nul(value: &Value) -> Value {
    match value {
        Value::String(s) => Value::String(clean(s).into_owned()),
        Value::Array(a) => Value::Array(a.iter().map(strip_nul).collect()),
        Value::Object(o) => {
            Value::Object(o.iter().map(|(k, v)| (clean(k).into_owned(), strip_nul(v))).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

fn claim_result(row: &PgRow) -> Result<ClaimResult, sqlx::Error> {
    if let Some(n) = row.try_get::<Option<i32>, _>(1)? {
        return Ok(ClaimResult::Claimed { dispatch_count: count(n) });
    }
    let fenced: bool = row.try_get(2)?;
    let (account, campaign): (Option<&str>, Option<&str>) = (row.try_get(4)?, row.try_get(5)?);
    let (send, waits): (Option<&str>, bool) = (row.try_get(6)?, row.try_get(7)?);
    let until: Option<DateTime<Utc>> = row.try_get(8)?;
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

const CLOSE_ORPHAN: &str = "WITH closed AS ( \
        UPDATE sends SET status = $3, parked_at = CASE WHEN $4 THEN $6 END, error = coalesce($5, error), \
            finished_at = CASE WHEN $3 IN ('sent', 'failed', 'cancelled') THEN $6 ELSE finished_at END, \
            receipt = coalesce($7::jsonb, receipt) \
        WHERE workspace_id = $1 AND id = $2 AND status IN ('pending', 'dispatching', 'unknown') RETURNING account_id) \
    UPDATE account_gate g SET in_flight = NULL, in_flight_since = NULL FROM closed c \
    WHERE g.workspace_id = $1 AND g.account_id = c.account_id AND g.in_flight = $2";

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn free_form_fields_fill_in_where_no_column_has_a_value() {
        let row = json!({"first_name": "Ann", "title": null, "data": {"first_name": "X", "title": "CTO", "city": "Ulm"},
            "custom_fields": {"pet": "cat", "none": null}, "personalization_data": null});
        let expected = json!({"first_name": "Ann", "title": "CTO", "city": "Ulm", "pet": "cat"});
        assert_eq!(flat(Some(row)), expected);
        assert_eq!(flat(None), Value::Null);
    }

    #[test]
    fn nul_is_taken_out_of_json_at_any_depth() {
        assert_eq!(json_text(&json!({"a\0": ["b\0", 1]})), r#"{"a":["b",1]}"#);
    }
}
