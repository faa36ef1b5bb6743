//! Applies stored facts: from an inbox row to the executions it is about. `pump` brings the rows.
//!
//! Rows stay open until their triggers are durable or refused, and triggers are idempotent, so a crash in between costs a
//! repetition that changes nothing. A fact that fits nobody yet is looked at again for a moment, beside the others: the
//! outcome of the send that it answers may still be on the way.

use std::sync::Arc;

use serde_json::Value;

use super::meters::Stage;
use super::shared::Shared;
use super::work::Work;
use super::{DeliverError, Delivery, deliver_internal, facts};
use crate::domain::account::Channel;
use crate::domain::execution::BounceStatus;
use crate::domain::id::{ExecutionId, ProspectId};
use crate::domain::trigger::Trigger;
use crate::store::inbox::{Inbox, InboxStatus};
use crate::store::{self, execution, suppression};

mod pump;

pub(super) use pump::{HANDED_MAX, run};

/// What was found out about a row.
pub(super) enum Verdict {
    Mark {
        status: InboxStatus,
        outcome: String,
        shard: Option<u16>,
    },
    /// About nobody we know, so far.
    Nobody,
    /// Cannot be handled now: Postgres is away, or its execution cannot run until its flow is corrected.
    Later,
}

impl Verdict {
    pub(super) fn ignored(why: &str) -> Self {
        Self::Mark { status: InboxStatus::Ignored, outcome: why.to_owned(), shard: None }
    }
}

/// Deals with a row: finds whom it is about, and delivers it.
async fn verdict(shared: &Arc<Shared>, row: &Inbox, is_first: bool) -> Verdict {
    judge(shared, row, is_first).await.unwrap_or_else(|error| broken(row, &error))
}

/// A row that cannot be handled: later, if Postgres is away; never, if it is the row's own fault.
fn broken(row: &Inbox, error: &store::Error) -> Verdict {
    tracing::warn!(inbox.id = %row.id, %error, "cannot handle an inbox row");
    if error.is_transient() {
        return Verdict::Later;
    }
    Verdict::Mark { status: InboxStatus::Failed, outcome: error.to_string(), shard: None }
}

async fn judge(shared: &Arc<Shared>, row: &Inbox, is_first: bool) -> Result<Verdict, store::Error> {
    match row.source.as_str() {
        "unipile" => facts::judge(shared, row, is_first).await,
        // `link`: somebody unsubscribed by the link in a mail.
        "api" | "link" => api(shared, row).await,
        other => Ok(Verdict::Mark {
            status: InboxStatus::Failed,
            outcome: format!("no room reads facts from `{other}`"),
            shard: None,
        }),
    }
}

/// A trigger that came in by the API and whose request ended before it was applied.
async fn api(shared: &Arc<Shared>, row: &Inbox) -> Result<Verdict, store::Error> {
    let body: Value = serde_json::from_slice(&row.body).unwrap_or_default();
    let prospect = body.get("prospect_id").and_then(Value::as_str).and_then(|id| id.parse::<ProspectId>().ok());
    let (Some(prospect), Some(trigger)) = (prospect, api_trigger(&body)) else {
        return Ok(Verdict::Mark { status: InboxStatus::Failed, outcome: "not a trigger".into(), shard: None });
    };
    match execution::of_prospect(&shared.pool, row.workspace, prospect).await? {
        Some(execution) => deliver_to(shared, row, &[execution], &trigger).await,
        None => Ok(Verdict::Nobody),
    }
}

/// The trigger that a body of `POST /v1/triggers` names; `None` when it names none.
pub fn api_trigger(body: &Value) -> Option<Trigger> {
    let text = |key: &str| body.get(key).and_then(Value::as_str);
    match text("trigger")? {
        "connection_accepted" => Some(Trigger::ConnectionAccepted),
        "reply" => Some(Trigger::Reply { channel: Channel::parse(text("channel").unwrap_or("email"))? }),
        "bounce" => Some(Trigger::Bounce { status: BounceStatus::parse(text("bounce").unwrap_or("hard"))? }),
        "unsubscribe" => Some(Trigger::Unsubscribe),
        _ => None,
    }
}

/// The same person may be in several campaigns: the fact is one for each of them.
pub(super) async fn deliver_to(
    shared: &Arc<Shared>,
    row: &Inbox,
    found: &[ExecutionId],
    trigger: &Trigger,
) -> Result<Verdict, store::Error> {
    let Some(first) = found.first() else { return Ok(Verdict::Nobody) };
    if let Some(took) = shared.unread.found(row.id, found) {
        shared.meters.stage(Stage::Found, took);
    }
    // Before anything is applied: whoever asked not to be written to is on the list even if the process dies here, and also when
    // no execution is left to be moved. The fact stays open until then.
    if let Some(reason) = trigger.suppresses() {
        suppression::add_people(&shared.pool, found, reason, shared.clock.now()).await?;
    }
    let (mut said, mut later) = (String::new(), false);
    for execution in found {
        match deliver_internal(shared, *execution, Work::Trigger(trigger.clone(), None)).await {
            Ok(Delivery::Applied { .. }) => said = "applied".into(),
            Ok(Delivery::Rejected { reason }) if said.is_empty() => reason.clone_into(&mut said),
            Ok(Delivery::Rejected { .. }) => {}
            // The fact must not be lost because a flow cannot be read today: it is applied once it can.
            Err(DeliverError::Busy | DeliverError::Stopping | DeliverError::Unrunnable(..)) => later = true,
            Err(error @ DeliverError::NotFound(_)) => {
                if said.is_empty() {
                    said = error.to_string();
                }
            }
        }
    }
    if later {
        // Those that took it already refuse it the second time.
        return Ok(Verdict::Later);
    }
    Ok(Verdict::Mark { status: InboxStatus::Applied, outcome: said, shard: Some(first.shard()) })
}
