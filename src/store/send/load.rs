//! Reads of sends: which are open, and what carrying one out needs to know.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{SendKey, count, keys};
use crate::domain::execution::Status;
use crate::domain::id::{AccountId, CampaignId, ExecutionId, ProspectId, SendId, WorkspaceId};
use crate::domain::send::{Action, SendStatus};
use crate::domain::time::Timestamp;
use crate::store::{Error, Pool, failed};

macro_rules! open_send {
    ($from:literal) => {
        concat!(
            $from,
            " SELECT s.workspace_id, s.id, s.created_at, s.execution_id, s.campaign_id, s.account_id, s.status, ",
            "s.lease_epoch, s.action, s.claimed_at, s.settle_count, s.parked_at IS NOT NULL, s.flow_version, s.step ",
            "FROM open o JOIN sends s ON s.workspace_id = o.workspace_id AND s.id = o.id ",
            "WHERE s.status IN ('pending', 'dispatching', 'unknown') AND s.parked_at IS NULL ",
        )
    };
}

/// Found from both ends, the execution that waits for it and the gate that it shut: an index on what is open would have
/// to be written by each claim and each outcome.
const OPEN: &str = concat!(
    open_send!(
        "WITH open AS ( \
            SELECT e.workspace_id, e.open_send AS id FROM campaign_prospect_execution_state e \
            WHERE e.open_send IS NOT NULL \
            UNION SELECT g.workspace_id, g.in_flight FROM account_gate g WHERE g.in_flight IS NOT NULL)"
    ),
    "AND ($1::uuid[] IS NULL OR s.account_id = ANY($1)) ORDER BY s.created_at, s.id"
);
const IN_FLIGHT: &str = concat!(
    open_send!(
        "WITH open AS (SELECT g.workspace_id, g.in_flight AS id FROM account_gate g WHERE g.in_flight IS NOT NULL)"
    ),
    "ORDER BY s.created_at, s.id"
);
/// One pass over all executions may take longer than the pool allows a statement.
const NO_TIMEOUT: &str = "SELECT set_config('statement_timeout', '0', true)";

// OFFSET 0 keeps each look-up by its whole key, also in a plan that was made while the tables were empty: see the claim. What
// the claim checks again (account, campaign, and the execution of a pending send) is not read: that is two look-ups in three.
const LOAD: &str = "SELECT s.workspace_id, s.id, s.created_at, s.execution_id, s.campaign_id, s.account_id, s.status, \
        s.lease_epoch, s.action, s.claimed_at, s.settle_count, s.parked_at IS NOT NULL, s.flow_version, s.step, \
        s.prospect_id, s.step_id, s.attempt, s.dispatch_count, s.recipient, s.subject, s.body, \
        e.status, e.open_send, to_jsonb(p), i.learnt, g.used, g.history, g.rests \
    FROM unnest($1::uuid[], $2::uuid[], $3::boolean[]) AS want(workspace_id, id, budgeted) \
    CROSS JOIN LATERAL (SELECT * FROM sends s WHERE s.workspace_id = want.workspace_id AND s.id = want.id OFFSET 0) s \
    LEFT JOIN LATERAL (SELECT e.status, e.open_send FROM campaign_prospect_execution_state e \
        WHERE e.id = s.execution_id AND s.status <> 'pending' OFFSET 0) e ON true \
    LEFT JOIN campaign_prospects p ON p.id = s.prospect_id \
    LEFT JOIN LATERAL ( \
        SELECT jsonb_object_agg(k.kind, k.value ORDER BY k.created_at) AS learnt FROM identities k \
        WHERE k.execution_id = s.execution_id AND k.account_id = s.account_id \
        AND k.kind IN ('recipient', 'chat', 'lid', 'rfc_message', 'thread')) i ON true \
    LEFT JOIN LATERAL (SELECT g.used, g.history, g.rests FROM account_gate g \
        WHERE want.budgeted AND g.workspace_id = s.workspace_id AND g.account_id = s.account_id OFFSET 0) g ON true";

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
    /// The execution's status; `None` when it is gone or cannot be read, and for a pending send, where it is not asked for.
    pub execution_status: Option<Status>,
    /// Whether the execution waits for exactly this send; not asked for a pending one.
    pub is_open_send: bool,
    /// The prospect's row as one flat object: its columns, and the keys of its `data`, `personalization_data` and
    /// `custom_fields` objects where no column of that name has a value. Null when the prospect is gone.
    pub prospect: Value,
    /// What earlier sends taught us.
    pub learnt: Learnt,
    /// What its account has done lately; only where it was asked for.
    pub gate: Option<Gate>,
}

/// An account's gate, as far as a budget needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// How often it was used.
    pub used: i32,
    /// What for (`domain::budget`); `None`: nothing yet.
    pub history: Option<Value>,
    /// What the provider has said: kind of action -> microseconds since 1970.
    pub rests: Option<Value>,
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

/// The sends without an outcome that an execution waits for or that shut a gate, of some accounts or of all, oldest first.
/// Parked ones are left out. One pass over all executions: for an account whose queue was lost, not for every day.
///
/// # Errors
/// When Postgres cannot be asked, or a row holds a word that is not ours.
pub async fn open_sends(pool: &Pool, accounts: Option<&[AccountId]>) -> Result<Vec<OpenSend>, Error> {
    let what = failed("listing the sends without outcome");
    let accounts: Option<Vec<Uuid>> = accounts.map(|ids| ids.iter().map(|a| a.0).collect());
    let mut transaction = pool.begin().await.map_err(&what)?;
    sqlx::query(NO_TIMEOUT).execute(&mut *transaction).await.map_err(&what)?;
    let rows = sqlx::query(OPEN).bind(accounts).fetch_all(&mut *transaction).await.map_err(&what)?;
    transaction.rollback().await.map_err(&what)?;
    rows.iter().map(OpenSend::from_row).collect()
}

/// The sends without an outcome that have their account's gate shut, oldest first: at a start, those whose provider call
/// the dead process may have been in. Parked ones are left out.
///
/// # Errors
/// When Postgres cannot be asked, or a row holds a word that is not ours.
pub async fn in_flight(pool: &Pool) -> Result<Vec<OpenSend>, Error> {
    let rows = sqlx::query(IN_FLIGHT).fetch_all(pool).await.map_err(failed("listing the sends in flight"))?;
    rows.iter().map(OpenSend::from_row).collect()
}

/// Reads what carrying these sends out needs, and of those with `true` what their account has done lately. Sends without a
/// row are absent; the order is not that of `sends`.
///
/// # Errors
/// When Postgres cannot be asked, or a row holds a word that is not ours.
pub async fn load_for_dispatch(pool: &Pool, sends: &[(SendKey, bool)]) -> Result<Vec<Dispatch>, Error> {
    let (keyed, budgeted): (Vec<SendKey>, Vec<bool>) = sends.iter().copied().unzip();
    let (workspaces, ids) = keys(&keyed);
    let rows = sqlx::query(LOAD)
        .bind(workspaces)
        .bind(ids)
        .bind(budgeted)
        .fetch_all(pool)
        .await
        .map_err(failed("loading sends for dispatch"))?;
    rows.iter().map(dispatch_from_row).collect()
}

fn dispatch_from_row(row: &PgRow) -> Result<Dispatch, Error> {
    let what = failed("reading a send");
    let send = OpenSend::from_row(row)?;
    let execution: Option<&str> = row.try_get(21).map_err(&what)?;
    let open_send: Option<Uuid> = row.try_get(22).map_err(&what)?;
    let learnt: Option<Value> = row.try_get(24).map_err(&what)?;
    let known = |kind: &str| learnt.as_ref()?.get(kind)?.as_str().map(str::to_owned);
    Ok(Dispatch {
        prospect_id: ProspectId(row.try_get(14).map_err(&what)?),
        step_id: row.try_get(15).map_err(&what)?,
        attempt: count(row.try_get(16).map_err(&what)?),
        dispatch_count: count(row.try_get(17).map_err(&what)?),
        recipient: row.try_get(18).map_err(&what)?,
        subject: row.try_get(19).map_err(&what)?,
        body: row.try_get(20).map_err(&what)?,
        execution_status: execution.and_then(Status::parse),
        is_open_send: open_send == Some(send.id.0),
        prospect: flat(row.try_get(23).map_err(&what)?),
        learnt: Learnt {
            recipient_id: known("recipient"),
            chat_id: known("chat"),
            lid: known("lid"),
            rfc_message_id: known("rfc_message"),
            thread_id: known("thread"),
        },
        gate: match row.try_get::<Option<i32>, _>(25).map_err(&what)? {
            Some(used) => {
                Some(Gate { used, history: row.try_get(26).map_err(&what)?, rests: row.try_get(27).map_err(&what)? })
            }
            None => None,
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
}
