//! One job of a channel: reads the send's row and does what its status asks for.
//!
//! `pending`: render, claim (no committed claim, no provider call), call, deliver the outcome. `dispatching`: a crash's, so
//! its outcome is unknown. `unknown`: read back from the provider. Runs in a task of its own and reports to the channel.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::channel::{ChannelMessage, Job, Report, Seat};
use super::gather::Unanswered;
use super::meters::deferred;
use super::roster::FlowError;
use super::shared::Shared;
use super::spend::{self, Spend};
use super::work::{SendDetails, Work};
use super::{Delivery, deliver_internal, mend, note, request, settle};
use crate::domain::account::{Account, AccountStatus};
use crate::domain::budget::Kind;
use crate::domain::execution::Status;
use crate::domain::flow::Step;
use crate::domain::retry;
use crate::domain::send::{FailureClass, Receipt, SendOutcome, SendStatus};
use crate::domain::suppression::Reason;
use crate::domain::trigger::Trigger;
use crate::provider::SendFailure;
use crate::store;
use crate::store::send::{self as rows, Claim, ClaimResult, Dispatch};
use crate::telemetry;
use crate::telemetry::trace::{self, Known, Side, Stage};
use ractor::ActorRef;

/// Wait before a job is tried again whose database read failed.
const DATABASE_WAIT: Duration = Duration::from_millis(250);
/// Wait before a busy gate is looked at again.
const GATE_WAIT: Duration = Duration::from_millis(250);
/// Real wait before a send is tried again that Postgres refuses, or whose row cannot be read.
const REFUSED_WAIT: Duration = Duration::from_secs(30);
/// Wait before a job is tried again that crashed.
const CRASH_WAIT: Duration = Duration::from_secs(1);
/// The provider's word for "too fast": the account rests for minutes, not for a day.
const THROTTLED: &str = "errors/too_many_requests";
/// How long an account rests when the provider says its quota is used up.
const QUOTA_REST: Duration = Duration::from_secs(24 * 3600);

/// Starts the job; the channel gets a [`Report`] whatever happens, also when the task panics.
pub(super) fn start(shared: Arc<Shared>, seat: Arc<Seat>, job: Job, channel: ActorRef<ChannelMessage>) {
    shared.in_flight.insert(seat.account.id, job.hint.1);
    let trace = shared.traces.of(job.hint.1);
    let running = Running { shared, seat, channel, job: job.clone(), report: None };
    tokio::spawn(async move {
        let report = trace::scope(trace, run(&running.shared, &running.seat, job)).await;
        if let Report::Gone(send) | Report::Done(send, _) = &report {
            running.shared.traces.forget(*send);
        }
        if let Report::Gone(send) = report {
            running.shared.settled(send);
        }
        running.ends(report);
    });
}

/// A job whose provider call may be running. Its end is reported when it is dropped: after a panic as well.
struct Running {
    shared: Arc<Shared>,
    seat: Arc<Seat>,
    channel: ActorRef<ChannelMessage>,
    job: Job,
    report: Option<Report>,
}

impl Running {
    fn ends(mut self, report: Report) {
        self.report = Some(report);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.in_flight.remove(&self.seat.account.id);
        let report = self.report.take().unwrap_or_else(|| {
            // An engine that is stopping ends its tasks; the next start looks at the rows.
            if !self.shared.is_draining() {
                tracing::error!(send.id = %self.job.hint.1, "a send's task crashed; its row will be looked at again");
            }
            // It may have been claimed.
            let job = Job { settles: true, ..self.job.clone() };
            Report::Later(job, self.shared.clock.now() + CRASH_WAIT)
        });
        // A channel that has crashed is started again from the table.
        let _ = self.channel.cast(ChannelMessage::Report(report));
    }
}

async fn run(shared: &Arc<Shared>, seat: &Seat, mut job: Job) -> Report {
    let account = &*seat.account;
    let row = match shared.loads.ask((job.hint, account.budget.is_some())).await {
        Ok(row) => row,
        Err(why) => return unanswered(shared, job, why).await,
    };
    let Some(row) = row.filter(|row| row.send.account == account.id) else { return Report::Gone(job.hint.1) };
    let overtaken = row.is_open_send && row.execution_status != Some(Status::Executing);
    // Whoever hinted at it may not have known. Still true where the row says pending: it may have been claimed since.
    job.settles |= matches!(row.send.status, SendStatus::Dispatching | SendStatus::Unknown);
    // An account that does not send cannot be read back from either; only what needs no provider is done.
    let needs_provider = matches!(row.send.status, SendStatus::Pending | SendStatus::Dispatching | SendStatus::Unknown);
    if account.status != AccountStatus::Active && needs_provider {
        deferred(account.channel, "account");
        return Report::Held(job, row.send.campaign);
    }
    match row.send.status {
        SendStatus::Pending => dispatch(shared, seat, job, row).await,
        SendStatus::Dispatching => {
            let error = "the process ended during the provider call".to_owned();
            shared.settles(row.send.id, account.channel);
            finish(shared, account, &row, SendOutcome::Unknown { error }, Receipt::default()).await;
            // What the dead process asked for may still be on its way through the provider.
            Report::Later(job, settle::first_read(shared, row.send.action, shared.clock.now()))
        }
        SendStatus::Unknown if row.send.parked => {
            if overtaken {
                let error = "parked for a person".to_owned();
                finish(shared, account, &row, SendOutcome::Unresolved { error }, Receipt::default()).await;
            }
            Report::Gone(job.hint.1)
        }
        SendStatus::Unknown => {
            shared.settles(row.send.id, account.channel);
            settle::read_back(shared, seat, job, row).await
        }
        // Taken back before anybody was called: its execution waits to hear that.
        SendStatus::Cancelled if row.is_open_send => {
            finish(shared, account, &row, SendOutcome::NotSent, Receipt::default()).await;
            Report::Gone(job.hint.1)
        }
        // Its outcome was recorded on the row alone, while the execution could not take it.
        SendStatus::Sent if row.is_open_send => {
            finish(shared, account, &row, SendOutcome::Sent, Receipt::default()).await;
            Report::Gone(job.hint.1)
        }
        SendStatus::Failed if row.is_open_send => {
            let error = "it failed while its execution could not run".to_owned();
            let outcome = SendOutcome::Failed { class: FailureClass::Rejected, error };
            finish(shared, account, &row, outcome, Receipt::default()).await;
            Report::Gone(job.hint.1)
        }
        SendStatus::Sent | SendStatus::Failed | SendStatus::Cancelled => Report::Gone(job.hint.1),
    }
}

/// Not here and now: whatever was asked for, the row tells later.
async fn unanswered(shared: &Shared, job: Job, why: Unanswered) -> Report {
    let at = match why {
        Unanswered::NotNow => {
            tokio::time::sleep(DATABASE_WAIT).await;
            shared.clock.now()
        }
        // Not soon: it makes Postgres refuse everybody who asks together with it.
        Unanswered::Refused => shared.clock.after_real(REFUSED_WAIT),
    };
    Report::Later(job, at)
}

async fn dispatch(shared: &Arc<Shared>, seat: &Seat, job: Job, mut row: Dispatch) -> Report {
    let account = &*seat.account;
    // Whoever has answered is not written to: their answer takes the send back, and the claim finds that.
    shared.unread.read(row.send.workspace, row.send.execution).await;
    let now = shared.clock.now();
    let send = job.hint.1;
    let mut goes_without_note = false;
    match shared.roster.flow(row.send.campaign, row.send.flow_version).await {
        Ok(flow) => {
            let tries_left = row.attempt < retry::ATTEMPTS_MAX;
            goes_without_note = tries_left && flow.step(row.send.step).is_some_and(Step::goes_without_note);
            if let Some(open) = flow.window.as_ref().map(|w| w.next_open(now)).filter(|open| *open > now) {
                deferred(account.channel, "window");
                return Report::Later(job, open);
            }
        }
        // Not the person's fault: neither is the window passed over nor the step given up.
        Err(FlowError::Store(error)) => {
            tracing::warn!(send.id = %send, %error, "cannot read a flow; trying again");
            tokio::time::sleep(DATABASE_WAIT).await;
            return Report::Later(job, shared.clock.now());
        }
        // Said below, as the reason why there is nothing to send.
        Err(FlowError::Unrunnable(_)) => {}
    }
    let request = match request::of(shared, account, &mut row).await {
        Ok(request) => request,
        Err(FlowError::Store(error)) => {
            tracing::warn!(send.id = %send, %error, "cannot read what a send needs; trying again");
            return unanswered(shared, job, Unanswered::NotNow).await;
        }
        Err(FlowError::Unrunnable(error)) => {
            let outcome = SendOutcome::Failed { class: FailureClass::Rejected, error };
            finish(shared, account, &row, outcome, Receipt::default()).await;
            return Report::Gone(send);
        }
    };
    let Some(provider) = shared.providers.get(&account.provider).cloned() else {
        tracing::error!(account.id = %account.id, provider = account.provider, "no such provider is configured");
        return Report::Held(job, row.send.campaign);
    };
    let spent = match spend::spend(account, &row, &request, goes_without_note, now) {
        Spend::Now(spent) => spent,
        Spend::Closed(until) => return Report::Rest(job, until),
        // As if the provider had said so.
        Spend::WithoutNote => {
            let error = "the account sends no more notes now: the invitation goes without".to_owned();
            let outcome = SendOutcome::Failed { class: FailureClass::NoteRefused, error };
            finish(shared, account, &row, outcome, Receipt::default()).await;
            return Report::Gone(send);
        }
        // Into the line of what it has turned out to be.
        Spend::Scarce(kind, until) => return Report::Scarce(Job { slot: job.slot.with_kind(kind), ..job }, until),
        Spend::Unreadable(error) => {
            tracing::error!(account.id = %account.id, error, "what this account has done cannot be read: it does not send");
            return Report::Later(job, shared.clock.after_real(REFUSED_WAIT));
        }
    };
    let claim = Claim {
        workspace: row.send.workspace,
        send,
        created_at: row.send.created_at,
        account: account.id,
        account_shard: account.id.shard(),
        recipient: request::recipient_json(&request.recipient),
        subject: request.subject.clone(),
        body: request.body.clone(),
        at: now,
        spent,
    };
    let mut claiming = Stage::within("claim", Side::Inside);
    claiming.note("send.id", || Known::Id(send.0));
    let claimed = match shared.claims.ask(claim).await {
        Ok(Some(claimed)) => claimed,
        // The claim may have been committed: the row tells.
        Ok(None) => return unanswered(shared, Job { settles: true, ..job }, Unanswered::NotNow).await,
        Err(why) => return unanswered(shared, Job { settles: true, ..job }, why).await,
    };
    if matches!(claimed, ClaimResult::Claimed { .. }) {
        drop(claiming)
    } else {
        claiming.discard()
    }
    match claimed {
        ClaimResult::Claimed { .. } => {}
        ClaimResult::GateResting { until } => {
            deferred(account.channel, "gap");
            return Report::Rest(job, until);
        }
        ClaimResult::GateBusy => {
            deferred(account.channel, "busy");
            tokio::time::sleep(GATE_WAIT).await;
            return Report::Later(job, shared.clock.now());
        }
        ClaimResult::CampaignInactive => {
            deferred(account.channel, "campaign");
            shared.roster.note_inactive(row.send.campaign);
            shared.roster_changed.notify_one();
            return Report::Held(job, row.send.campaign);
        }
        ClaimResult::AccountNotActive => {
            deferred(account.channel, "account");
            shared.roster.note_halted(account.id);
            shared.roster_changed.notify_one();
            return Report::Held(job, row.send.campaign);
        }
        ClaimResult::Suppressed { reason } => return suppressed(shared, account, job, &row, reason).await,
        // It may be this job's own claim of before, whose answer got lost and which was not to be seen yet: one more look.
        ClaimResult::NotPending if job.settles => return Report::Later(Job { settles: false, ..job }, now),
        // Cancelled, or its execution is paused: resuming hints again.
        ClaimResult::NotPending => return Report::Gone(send),
        ClaimResult::LeaseLost => {
            metrics::counter!(telemetry::PERSIST_FENCED, "writer" => "claim").increment(1);
            return Report::Gone(send);
        }
    }

    shared.calls(send);
    let started = Instant::now();
    let mut calling = Stage::within("provider", Side::Client);
    calling.note("send.id", || Known::Id(send.0));
    calling.note("account.id", || Known::Id(account.id.0));
    calling.note("action", || Known::Name(row.send.action.as_str()));
    let result = calling.run(provider.send(&request)).await;
    seat.called.record(started.elapsed().as_secs_f64());
    let now = shared.clock.now();
    let gap = spend::gap(account, send);
    let gap = (!gap.is_zero()).then(|| now + gap);
    let throttled = matches!(&result, Err(SendFailure::Refused { code, .. }) if code == THROTTLED);
    let quota_rest =
        if throttled { retry::backoff(row.send.execution, row.send.step, row.dispatch_count + 1) } else { QUOTA_REST };
    let mut no_notes = false;
    let conflict = matches!(&result, Err(SendFailure::Conflict { .. }));
    let (outcome, receipt) = match result {
        Ok(receipt) => (SendOutcome::Sent, receipt),
        Err(SendFailure::Refused { class, code, message, learnt }) => {
            no_notes = note::is_used_up(class, &code);
            let class = match note::class(class, &code, goes_without_note) {
                FailureClass::Unavailable => {
                    retry::unavailable(shared.trouble(account.id, row.send.action), row.dispatch_count + 1)
                }
                other => other,
            };
            (SendOutcome::Failed { class, error: format!("{code}: {message}") }, learnt)
        }
        Err(SendFailure::Unknown { message, learnt }) => (SendOutcome::Unknown { error: message }, learnt),
        Err(SendFailure::Conflict { message }) => (SendOutcome::Unknown { error: message }, Receipt::default()),
    };
    calling.note("outcome", || Known::Name(outcome.as_str()));
    if outcome != SendOutcome::Sent {
        calling.fail();
    }
    drop(calling);
    seat.count(row.send.action, &outcome);
    if matches!(outcome, SendOutcome::Unknown { .. }) {
        shared.settles(send, account.channel);
    }
    if matches!(&outcome, SendOutcome::Failed { class: FailureClass::AccountQuota, .. }) {
        deferred(account.channel, if throttled { "throttled" } else { "quota" });
    }
    let streak = shared.called(account.id, row.send.action, &outcome);
    let trouble = retry::rest(&outcome, row.send.execution, row.send.step, streak).map(|rest| now + rest);
    if trouble.is_some() {
        deferred(account.channel, "unavailable");
    }
    // Of an account with a budget only what is used up rests; what it may still do goes on.
    let brake = if no_notes {
        account.budget.is_some().then(|| (Kind::InviteWithNote, now + QUOTA_REST))
    } else {
        spend::brake_after(account, &request, (&outcome, &receipt), throttled, now)
    };
    // Likewise where the provider is not up to it: LinkedIn's limits may show as that.
    let brake = brake.or_else(|| spend::brake_until(account, &request, trouble?));
    let trouble = trouble.filter(|_| brake.is_none());
    let rest = match &outcome {
        SendOutcome::Failed { class: FailureClass::AccountQuota, .. } if brake.is_some() => gap,
        SendOutcome::Failed { class: FailureClass::AccountQuota, .. } => Some(now + quota_rest),
        SendOutcome::Failed { class: FailureClass::RetryLater, .. } => {
            Some(now + retry::backoff(row.send.execution, row.send.step, 1)).max(gap)
        }
        SendOutcome::Sent
        | SendOutcome::Failed { .. }
        | SendOutcome::Unknown { .. }
        | SendOutcome::NotSent
        | SendOutcome::Unresolved { .. } => gap.max(trouble),
    };
    let details = SendDetails { account: account.id, receipt, rest_until: rest, brake };
    hand_over(shared, &row, outcome.clone(), details).await;
    match outcome {
        SendOutcome::Failed { class: FailureClass::AccountBroken, error } => {
            halt(shared, account, &error).await;
            Report::Held(job, row.send.campaign)
        }
        SendOutcome::Failed { class: FailureClass::KeyRefused, error } => {
            if mend::holds(shared, &account.provider, &*provider).await {
                // At once, when the key is taken again.
                return Report::Later(job, now);
            }
            halt(shared, account, &error).await;
            Report::Held(job, row.send.campaign)
        }
        // After it behind the others, should it have to do with this one.
        SendOutcome::Failed { class: FailureClass::AccountQuota | FailureClass::Unavailable, .. } => match brake {
            Some((kind, until)) => Report::Scarce(Job { slot: job.slot.with_kind(kind), ..job }, until),
            None => Report::Rest(job, rest.unwrap_or(now)),
        },
        SendOutcome::Unknown { .. } => {
            Report::Later(Job { settles: true, conflict, ..job }, settle::first_read(shared, row.send.action, now))
        }
        SendOutcome::Sent | SendOutcome::Failed { .. } | SendOutcome::NotSent | SendOutcome::Unresolved { .. } => {
            Report::Done(send, rest)
        }
    }
}

/// Hands the outcome to the execution. One that wants it no more (it was restarted elsewhere) does not keep the send's row
/// from being closed.
pub(super) async fn finish(
    shared: &Arc<Shared>,
    account: &Account,
    row: &Dispatch,
    outcome: SendOutcome,
    receipt: Receipt,
) {
    // Who claimed it may have died before it wrote for how long the account rests.
    let gap = spend::gap(account, row.send.id);
    let rest_until = row.send.claimed_at.filter(|_| !gap.is_zero()).map(|at| at + gap);
    let details = SendDetails { account: account.id, receipt, rest_until, brake: None };
    hand_over(shared, row, outcome, details).await;
}

/// [`finish`] with all that is known.
async fn hand_over(shared: &Arc<Shared>, row: &Dispatch, outcome: SendOutcome, details: SendDetails) {
    let trigger = Trigger::SendFinished { send: row.send.id, outcome: outcome.clone() };
    loop {
        let work = Work::Trigger(trigger.clone(), Some(Box::new(details.clone())));
        let why = match deliver_internal(shared, row.send.execution, work).await {
            Ok(Delivery::Applied { .. }) => return,
            Ok(Delivery::Rejected { reason }) => reason.to_owned(),
            Err(super::DeliverError::Stopping) => return,
            Err(super::DeliverError::Busy) => {
                tokio::time::sleep(DATABASE_WAIT).await;
                continue;
            }
            Err(error @ (super::DeliverError::NotFound(_) | super::DeliverError::Unrunnable(..))) => error.to_string(),
        };
        tracing::info!(send.id = %row.send.id, execution.id = %row.send.execution, outcome = outcome.as_str(), why,
            "the execution does not take this outcome; recording it on the send alone");
        match record_alone(shared, (row.send.workspace, row.send.id), &outcome, &details).await {
            // Where the account is another's by now, that one settles the send.
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(send.id = %row.send.id, %error, "cannot record an outcome; trying again");
                tokio::time::sleep(DATABASE_WAIT).await;
            }
        }
    }
}

/// Records an outcome on the send, which no execution takes. Answers whether the account's shard is ours.
pub(super) async fn record_alone(
    shared: &Shared,
    key: rows::SendKey,
    outcome: &SendOutcome,
    details: &SendDetails,
) -> Result<bool, store::Error> {
    let orphan = rows::Orphan {
        key,
        account_shard: details.account.shard(),
        outcome,
        receipt: &details.receipt,
        rest_until: details.rest_until,
        brake: details.brake,
        at: shared.clock.now(),
    };
    rows::close_orphan(&shared.pool, &shared.lease, &orphan).await
}

/// The person is not to be written to: the execution ends, which takes the send back.
async fn suppressed(shared: &Arc<Shared>, account: &Account, job: Job, row: &Dispatch, reason: Reason) -> Report {
    if !reason.holds_everywhere() {
        // The person may be reached otherwise: only this step has failed.
        let error = format!("the person is not written to here: {reason}");
        let outcome = SendOutcome::Failed { class: FailureClass::RecipientPermanent, error };
        finish(shared, account, row, outcome, Receipt::default()).await;
        return Report::Gone(job.hint.1);
    }
    let work = Work::Trigger(Trigger::Suppressed { reason }, None);
    match deliver_internal(shared, row.send.execution, work).await {
        Ok(_) => Report::Gone(job.hint.1),
        Err(error) => {
            tracing::warn!(send.id = %row.send.id, %error, "cannot end an execution of somebody who is not written to; trying again");
            Report::Later(job, shared.clock.after_real(REFUSED_WAIT))
        }
    }
}

async fn halt(shared: &Arc<Shared>, account: &Account, reason: &str) {
    tracing::error!(account.id = %account.id, reason, "the account is halted until it works again; it is looked at from time to time");
    if let Err(error) = rows::halt_account(&shared.pool, account.workspace, account.id, reason).await {
        tracing::error!(account.id = %account.id, %error, "cannot record that an account is halted");
    }
    shared.roster.note_halted(account.id);
    shared.roster_changed.notify_one();
}
