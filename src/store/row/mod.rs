//! The codec between [`Execution`] and its row, and between
//! [`Trigger`](crate::domain::trigger::Trigger) and a transition's `trigger` + `detail`.
//!
//! Owns which column holds what. Reading is forgiving where other programs write (NULL counts as nothing yet, an unknown
//! key is ignored) and strict where a wrong guess would contact somebody (an unknown status is an error). Called by
//! `execution`, `writer` and whoever shows or replays a timeline.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{clean, int};
use crate::domain::execution::{Execution, ExitReason, Status, WaitTrigger};
use crate::domain::flow::MAX_CHECKS_DEFAULT;
use crate::domain::id::{CampaignId, ExecutionId, ProspectId, SendId, WorkspaceId};
use crate::domain::time::Timestamp;

mod moment;
mod state;
#[cfg(test)]
mod tests;
mod transition;

pub(crate) use moment::Moment;
use state::{accounts, accounts_json, email, email_json, linkedin, linkedin_json, whatsapp, whatsapp_json};
pub use transition::{receipt_json, trigger, trigger_detail};

/// What a read of an execution selects, from `campaign_prospect_execution_state s`, in the order that
/// [`Columns::from_row`] reads. Rows of other programs have neither workspace nor flow version: the campaign's count, and
/// only for them is it asked.
macro_rules! select_execution {
    ($tail:literal) => {
        concat!(
            "SELECT s.id, ",
            "coalesce(s.workspace_id, (SELECT c.workspace_id FROM campaigns c WHERE c.id = s.campaign_id)), ",
            "s.campaign_id, s.prospect_id, ",
            "coalesce(s.flow_version, (SELECT c.flow_version FROM campaigns c WHERE c.id = s.campaign_id)), ",
            "s.status, s.paused_status, s.current_step, ",
            "s.completed_steps, s.failed_steps, s.skipped_steps, ",
            "s.linkedin_state, s.email_state, s.whatsapp_state, ",
            "s.waiting_for_trigger, s.trigger_check_count, s.trigger_max_checks, ",
            "s.next_check_at, s.last_executed_at, s.next_execution_at, ",
            "s.last_error, s.error_count, s.exit_reason, ",
            "s.version, s.attempt, s.send_sequence, s.open_send, s.channel_accounts ",
            "FROM campaign_prospect_execution_state s ",
            $tail
        )
    };
}
pub(crate) use select_execution;

/// The columns of an execution's row as the driver gives them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    /// `id`.
    pub id: Uuid,
    /// `workspace_id`, or the campaign's.
    pub workspace_id: Option<Uuid>,
    /// `campaign_id`.
    pub campaign_id: Option<Uuid>,
    /// `prospect_id`.
    pub prospect_id: Option<Uuid>,
    /// `flow_version`, or the campaign's; read as 0 while neither has one (the campaign of another program, seen first).
    pub flow_version: Option<i32>,
    /// `status`.
    pub status: Option<String>,
    /// `paused_status`.
    pub paused_status: Option<String>,
    /// `current_step`.
    pub current_step: Option<i32>,
    /// `completed_steps`.
    pub completed_steps: Option<Vec<Option<i32>>>,
    /// `failed_steps`.
    pub failed_steps: Option<Vec<Option<i32>>>,
    /// `skipped_steps`.
    pub skipped_steps: Option<Vec<Option<i32>>>,
    /// `linkedin_state`.
    pub linkedin_state: Option<Value>,
    /// `email_state`.
    pub email_state: Option<Value>,
    /// `whatsapp_state`.
    pub whatsapp_state: Option<Value>,
    /// `waiting_for_trigger`.
    pub waiting_for_trigger: Option<String>,
    /// `trigger_check_count`.
    pub trigger_check_count: Option<i32>,
    /// `trigger_max_checks`.
    pub trigger_max_checks: Option<i32>,
    /// `next_check_at`.
    pub next_check_at: Option<DateTime<Utc>>,
    /// `last_executed_at`.
    pub last_executed_at: Option<DateTime<Utc>>,
    /// `next_execution_at`.
    pub next_execution_at: Option<DateTime<Utc>>,
    /// `last_error`.
    pub last_error: Option<String>,
    /// `error_count`.
    pub error_count: Option<i32>,
    /// `exit_reason`.
    pub exit_reason: Option<String>,
    /// `version`.
    pub version: Option<i64>,
    /// `attempt`.
    pub attempt: Option<i32>,
    /// `send_sequence`.
    pub send_sequence: Option<i32>,
    /// `open_send`.
    pub open_send: Option<Uuid>,
    /// `channel_accounts`.
    pub channel_accounts: Option<Value>,
    /// Whether a time column holds what no clock will show; such a column is `None` here.
    pub endless: bool,
}

impl Columns {
    /// Takes the columns out of a row that was read with `select_execution!`.
    pub(crate) fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let mut endless = false;
        let mut time = |column: usize| {
            row.try_get::<Option<Moment>, _>(column).map(|moment| {
                endless |= moment == Some(Moment(None));
                moment.and_then(|m| m.0).map(Timestamp::to_utc)
            })
        };
        let (next_check_at, last_executed_at, next_execution_at) = (time(17)?, time(18)?, time(19)?);
        Ok(Self {
            id: row.try_get(0)?,
            workspace_id: row.try_get(1)?,
            campaign_id: row.try_get(2)?,
            prospect_id: row.try_get(3)?,
            flow_version: row.try_get(4)?,
            status: row.try_get(5)?,
            paused_status: row.try_get(6)?,
            current_step: row.try_get(7)?,
            completed_steps: row.try_get(8)?,
            failed_steps: row.try_get(9)?,
            skipped_steps: row.try_get(10)?,
            linkedin_state: row.try_get(11)?,
            email_state: row.try_get(12)?,
            whatsapp_state: row.try_get(13)?,
            waiting_for_trigger: row.try_get(14)?,
            trigger_check_count: row.try_get(15)?,
            trigger_max_checks: row.try_get(16)?,
            next_check_at,
            last_executed_at,
            next_execution_at,
            last_error: row.try_get(20)?,
            error_count: row.try_get(21)?,
            exit_reason: row.try_get(22)?,
            version: row.try_get(23)?,
            attempt: row.try_get(24)?,
            send_sequence: row.try_get(25)?,
            open_send: row.try_get(26)?,
            channel_accounts: row.try_get(27)?,
            endless,
        })
    }

    /// The columns that hold an execution: what the writer stores.
    pub fn encode(e: &Execution) -> Self {
        Self {
            id: e.id.0,
            workspace_id: Some(e.workspace.0),
            campaign_id: Some(e.campaign.0),
            prospect_id: Some(e.prospect.0),
            flow_version: Some(e.flow_version),
            status: Some(e.status.as_str().to_owned()),
            paused_status: e.paused_status.map(|s| s.as_str().to_owned()),
            current_step: Some(int(e.current_step)),
            completed_steps: Some(positions_column(&e.completed_steps)),
            failed_steps: Some(positions_column(&e.failed_steps)),
            skipped_steps: Some(positions_column(&e.skipped_steps)),
            linkedin_state: linkedin_json(&e.linkedin),
            email_state: email_json(&e.email),
            whatsapp_state: whatsapp_json(&e.whatsapp),
            waiting_for_trigger: e.waiting_for_trigger.map(|t| t.as_str().to_owned()),
            trigger_check_count: Some(int(e.trigger_check_count)),
            trigger_max_checks: Some(int(e.trigger_max_checks)),
            next_check_at: e.next_check_at.map(Timestamp::to_utc),
            last_executed_at: e.last_executed_at.map(Timestamp::to_utc),
            next_execution_at: e.next_execution_at.map(Timestamp::to_utc),
            last_error: e.last_error.as_deref().map(|t| clean(t).into_owned()),
            error_count: Some(int(e.error_count)),
            exit_reason: e.exit_reason.map(|r| r.as_str().to_owned()),
            version: Some(e.version),
            attempt: Some(int(e.attempt)),
            send_sequence: Some(int(e.send_sequence)),
            open_send: e.open_send.map(|s| s.0),
            channel_accounts: accounts_json(&e.accounts),
            endless: false,
        }
    }

    /// The execution that the columns hold.
    ///
    /// # Errors
    /// A sentence about the first column that cannot be read.
    pub fn decode(self) -> Result<Execution, String> {
        let missing = |column: &str| format!("{column} is null, and its campaign does not say either");
        if self.endless {
            return Err(
                "next_check_at, last_executed_at or next_execution_at is not between the years 1 and 9999".into()
            );
        }
        Ok(Execution {
            id: ExecutionId(self.id),
            workspace: WorkspaceId(self.workspace_id.ok_or_else(|| missing("workspace_id"))?),
            campaign: CampaignId(self.campaign_id.ok_or_else(|| missing("campaign_id"))?),
            prospect: ProspectId(self.prospect_id.ok_or_else(|| missing("prospect_id"))?),
            flow_version: self.flow_version.unwrap_or(0),
            status: named("status", self.status.as_deref(), Status::parse)?.unwrap_or(Status::Pending),
            paused_status: named("paused_status", self.paused_status.as_deref(), Status::parse)?,
            current_step: count("current_step", self.current_step, 1)?,
            completed_steps: positions("completed_steps", self.completed_steps)?,
            failed_steps: positions("failed_steps", self.failed_steps)?,
            skipped_steps: positions("skipped_steps", self.skipped_steps)?,
            linkedin: linkedin(self.linkedin_state.as_ref())?,
            email: email(self.email_state.as_ref())?,
            whatsapp: whatsapp(self.whatsapp_state.as_ref())?,
            waiting_for_trigger: named("waiting_for_trigger", self.waiting_for_trigger.as_deref(), WaitTrigger::parse)?,
            trigger_check_count: count("trigger_check_count", self.trigger_check_count, 0)?,
            trigger_max_checks: count("trigger_max_checks", self.trigger_max_checks, MAX_CHECKS_DEFAULT)?,
            next_check_at: self.next_check_at.map(Timestamp::from),
            last_executed_at: self.last_executed_at.map(Timestamp::from),
            next_execution_at: self.next_execution_at.map(Timestamp::from),
            last_error: self.last_error,
            error_count: count("error_count", self.error_count, 0)?,
            exit_reason: named("exit_reason", self.exit_reason.as_deref(), ExitReason::parse)?,
            version: self.version.unwrap_or(0),
            attempt: count("attempt", self.attempt, 0)?,
            send_sequence: count("send_sequence", self.send_sequence, 0)?,
            open_send: self.open_send.map(SendId),
            accounts: accounts(self.channel_accounts.as_ref())?,
        })
    }
}

/// Reads a name; NULL and the empty text are `None`.
fn named<T>(column: &str, text: Option<&str>, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, String> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => parse(text).map(Some).ok_or_else(|| format!("{column} is '{}'", short(text))),
    }
}

/// Reads a count; NULL is `default`.
fn count(column: &str, value: Option<i32>, default: u32) -> Result<u32, String> {
    value.map_or(Ok(default), |n| u32::try_from(n).map_err(|_| format!("{column} is {n}")))
}

fn positions_column(steps: &[u32]) -> Vec<Option<i32>> {
    steps.iter().map(|s| Some(int(*s))).collect()
}

fn positions(column: &str, value: Option<Vec<Option<i32>>>) -> Result<Vec<u32>, String> {
    value
        .unwrap_or_default()
        .into_iter()
        .flatten()
        .map(|n| u32::try_from(n).map_err(|_| format!("{column} holds {n}")))
        .collect()
}

/// At most forty characters of a foreign value: enough to recognise it in a log.
fn short(text: &str) -> String {
    text.chars().take(40).collect()
}
