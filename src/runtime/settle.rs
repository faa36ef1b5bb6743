//! Settles a send whose outcome was lost: by its echo, or by reading back from the provider before anything is sent again.

use std::sync::Arc;
use std::time::Duration;

use super::channel::{Job, Report, Seat};
use super::dispatch::{finish, record_alone};
use super::request;
use super::roster::FlowError;
use super::shared::Shared;
use super::work::{SendDetails, Work};
use super::{DeliverError, Delivery, deliver_internal};
use crate::domain::account::Account;
use crate::domain::id::{ExecutionId, SendId};
use crate::domain::retry;
use crate::domain::send::{Action, FailureClass, Receipt, SendOutcome};
use crate::domain::time::Timestamp;
use crate::domain::trigger::Trigger;
use crate::provider::{Found, absence_settles, settle_delays};
use crate::store;
use crate::store::send::{self as rows, Dispatch};
use crate::telemetry;

/// However fast the clock runs, the provider gets this long in real time to finish what it was asked.
const REAL_WAIT: Duration = Duration::from_millis(300);
/// Wait between two reads that failed.
const UNREADABLE_WAIT: Duration = Duration::from_secs(60);
/// Reads that fail in a row before a person has to decide.
const UNREADABLE_MAX: u32 = 30;
/// How far back to look for a send of the old orchestrator, whose time nobody recorded.
const ADOPTED_LOOK_BACK: Duration = Duration::from_secs(7 * 24 * 3600);

/// When to read back first after `now`.
pub(super) fn first_read(shared: &Shared, action: Action, now: Timestamp) -> Timestamp {
    wait_from(shared, now, settle_delays(action).first().copied().unwrap_or_default())
}

/// The later of a wait on the clock and the least real wait.
fn wait_from(shared: &Shared, now: Timestamp, delay: Duration) -> Timestamp {
    now + delay.max(REAL_WAIT.mul_f64(shared.clock.scale()))
}

/// Reads back once and acts on what it finds.
pub(super) async fn read_back(shared: &Arc<Shared>, seat: &Seat, mut job: Job, mut row: Dispatch) -> Report {
    let account = &*seat.account;
    let now = shared.clock.now();
    if row.dispatch_count == 0
        && let Err(FlowError::Store(error)) = shared.roster.flow(row.send.campaign, row.send.flow_version).await
    {
        tracing::warn!(send.id = %row.send.id, %error, "cannot read a flow; trying again");
        return Report::Later(job, wait_from(shared, now, UNREADABLE_WAIT));
    }
    let request = match request::of(shared, account, &mut row).await {
        Ok(request) => request,
        Err(FlowError::Store(error)) => {
            tracing::warn!(send.id = %row.send.id, %error, "cannot read what a send needs; trying again");
            return Report::Later(job, wait_from(shared, now, UNREADABLE_WAIT));
        }
        Err(FlowError::Unrunnable(error)) => {
            // Never claimed (adopted) and cannot even be rendered: it cannot have been our text.
            let outcome = SendOutcome::Failed { class: FailureClass::Rejected, error };
            finish(shared, account, &row, outcome, Receipt::default()).await;
            return Report::Gone(row.send.id);
        }
    };
    let Some(provider) = shared.providers.get(&account.provider).cloned() else {
        return Report::Held(job, row.send.campaign);
    };
    // What an earlier call has sent may show only now: then from before any of them.
    let since = match row.send.claimed_at {
        Some(claimed) if row.dispatch_count == 1 => claimed,
        Some(_) => row.send.created_at,
        None => row.send.created_at - ADOPTED_LOOK_BACK,
    };
    if let Err(error) =
        rows::count_settle(&shared.pool, &shared.lease, (row.send.workspace, row.send.id), account.id).await
    {
        tracing::warn!(send.id = %row.send.id, %error, "cannot count a read back");
    }
    let found = match provider.find(&request, since).await {
        // What another program has sent is not known by its text alone.
        Ok(Found::Unclear) if row.send.claimed_at.is_none() => Ok(Found::Absent),
        found => found,
    };
    if matches!(found, Ok(Found::Connected(_))) {
        // Before its outcome, so that with that nothing is waited for. Refused where it is known.
        let accepted = Work::Trigger(Trigger::ConnectionAccepted, None);
        if let Err(DeliverError::Busy | DeliverError::Stopping) =
            deliver_internal(shared, row.send.execution, accepted).await
        {
            return Report::Later(job, wait_from(shared, now, UNREADABLE_WAIT));
        }
    }
    let outcome = match found {
        // Whether it was this invitation, nobody can tell: it counts as if.
        Ok(Found::Sent(receipt) | Found::Connected(receipt)) => {
            seat.count(row.send.action, &SendOutcome::Sent);
            finish(shared, account, &row, SendOutcome::Sent, receipt).await;
            return Report::Gone(row.send.id);
        }
        Ok(Found::Absent) => {
            job.unreadable = 0;
            job.absent += 1;
            let delays = settle_delays(row.send.action);
            let read = usize::try_from(job.absent).unwrap_or(usize::MAX);
            if let Some(delay) = delays.get(read) {
                return Report::Later(job, wait_from(shared, now, *delay));
            }
            if job.conflict {
                let error = "the provider has had another request under its key, and shows no trace of either".into();
                SendOutcome::Unresolved { error }
            } else if absence_settles(row.send.action) {
                SendOutcome::NotSent
            } else {
                SendOutcome::Unresolved {
                    error: "the provider shows no trace of it, which is not enough to send it again".into(),
                }
            }
        }
        Ok(Found::Unclear) | Err(_) => {
            job.unreadable += 1;
            if job.unreadable < UNREADABLE_MAX {
                return Report::Later(job, wait_from(shared, now, UNREADABLE_WAIT));
            }
            let unclear = "something else was written to this person since: it may be this, with its text changed";
            SendOutcome::Unresolved { error: found.err().map_or_else(|| unclear.to_owned(), |e| e.to_string()) }
        }
    };
    seat.count(row.send.action, &outcome);
    let again = outcome == SendOutcome::NotSent;
    finish(shared, account, &row, outcome, Receipt::default()).await;
    shared.settled(row.send.id);
    if again {
        let wait = match row.dispatch_count {
            // Not by us so far.
            0 => Duration::ZERO,
            calls => retry::backoff(row.send.execution, row.send.step, calls),
        };
        // A send like any other: behind the others, and only when the account has rested.
        return Report::Later(Job { settles: false, absent: 0, ..job }, shared.clock.now() + wait);
    }
    Report::Gone(row.send.id)
}

/// The provider has told of a send of which nobody knew whether it happened. Answers whether that is recorded; if not, the fact
/// must not be lost.
pub(super) async fn echoed(
    shared: &Shared,
    account: &Account,
    (execution, send, action): (ExecutionId, SendId, Action),
    receipt: Receipt,
) -> Result<bool, store::Error> {
    let outcome = SendOutcome::Sent;
    let details = SendDetails { account: account.id, receipt, rest_until: None, brake: None };
    let trigger = Trigger::SendFinished { send, outcome: outcome.clone() };
    let work = Work::Trigger(trigger, Some(Box::new(details.clone())));
    match deliver_internal(shared, execution, work).await {
        Ok(Delivery::Applied { .. }) => {}
        Err(DeliverError::Busy | DeliverError::Stopping | DeliverError::Unrunnable(..)) => return Ok(false),
        // It has gone on without it.
        Ok(Delivery::Rejected { .. }) | Err(DeliverError::NotFound(_)) => {
            if !record_alone(shared, (account.workspace, send), &outcome, &details).await? {
                return Ok(false);
            }
        }
    }
    shared.settled(send);
    metrics::counter!(telemetry::SENDS, "channel" => account.channel.as_str(), "action" => action.as_str(),
        "outcome" => outcome.as_str())
    .increment(1);
    tracing::info!(send.id = %send, execution.id = %execution, "a send whose outcome was lost has arrived: the provider shows it");
    Ok(true)
}
