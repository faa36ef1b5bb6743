//! Settles a send whose outcome was lost, by reading back from the provider before anything is sent again.

use std::sync::Arc;
use std::time::Duration;

use super::channel::{Job, Report, Seat};
use super::dispatch::finish;
use super::request;
use super::roster::FlowError;
use super::shared::Shared;
use crate::domain::send::{Action, FailureClass, Receipt, SendOutcome};
use crate::domain::time::Timestamp;
use crate::provider::{Found, absence_settles, settle_delays};
use crate::store::send::{self as rows, Dispatch};

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
    let since = row.send.claimed_at.unwrap_or(row.send.created_at - ADOPTED_LOOK_BACK);
    if let Err(error) =
        rows::count_settle(&shared.pool, &shared.lease, (row.send.workspace, row.send.id), account.id).await
    {
        tracing::warn!(send.id = %row.send.id, %error, "cannot count a read back");
    }
    let outcome = match provider.find(&request, since).await {
        Ok(Found::Sent(receipt)) => {
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
            if absence_settles(row.send.action) {
                SendOutcome::NotSent
            } else {
                SendOutcome::Unresolved {
                    error: "the provider shows no trace of it, which is not enough to send it again".into(),
                }
            }
        }
        Err(error) => {
            job.unreadable += 1;
            if job.unreadable < UNREADABLE_MAX {
                return Report::Later(job, wait_from(shared, now, UNREADABLE_WAIT));
            }
            SendOutcome::Unresolved { error: error.to_string() }
        }
    };
    seat.count(row.send.action, &outcome);
    let again = outcome == SendOutcome::NotSent;
    finish(shared, account, &row, outcome, Receipt::default()).await;
    shared.settled(row.send.id);
    if again {
        // A send like any other: behind the others, and only when the account has rested.
        return Report::Later(Job { settles: false, absent: 0, ..job }, shared.clock.now());
    }
    Report::Gone(row.send.id)
}
