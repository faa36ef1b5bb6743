//! The actor of one sending account: strictly one send in flight.
//!
//! It decides when the account acts and on which send; [`dispatch`](super::dispatch) carries one job out in a task that
//! reports back, so that the actor stays prompt. What it knows of sends are hints: each job reads the row first.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{Counter, Histogram};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::backlog::{BACKLOG_MAX, BUDGETED_MAX, Backlog, Load, Slot};
use super::shard::ShardMessage;
use super::shared::{SendHint, Shared};
use super::{dispatch, housekeeping};
use crate::domain::account::{Account, AccountStatus};
use crate::domain::id::{CampaignId, SendId};
use crate::domain::send::{Action, SendOutcome, SendStatus};
use crate::domain::time::Timestamp;
use crate::store::send as rows;
use crate::telemetry;

mod lines;
#[cfg(test)]
mod tests;

use lines::Lines;

/// Real wait before a send is looked at again that was held back while nothing here says why.
const HELD_WAIT: Duration = Duration::from_secs(5);
/// Wait before looking again while a provider call of an earlier incarnation is still running.
const PREDECESSOR_WAIT: Duration = Duration::from_millis(100);

/// See the module's text.
pub(super) struct ChannelActor;

/// What a channel is told.
pub(super) enum ChannelMessage {
    /// The job in flight has ended.
    Report(Report),
    /// Look at the backlog, and for something to do.
    Wake,
    /// These sends are open, says the table.
    Open(Vec<rows::OpenSend>),
    /// The account's row changed.
    Account(Arc<Account>),
    /// What held sends back may be over.
    Release,
    /// The wall clock jumped: the sleep until the next send is wrong.
    Rearm,
    /// Answer when nothing is in flight any more; start nothing.
    Drain(oneshot::Sender<()>),
    /// Note how long this was on its way.
    Probe(Instant),
}

/// What the jobs of a channel need, with the meters looked up once.
pub(super) struct Seat {
    pub(super) account: Arc<Account>,
    /// Duration of its provider calls.
    pub(super) called: Histogram,
    /// By action: of those that go through its channel.
    sent: Vec<(Action, Counter)>,
}

impl Seat {
    fn new(account: Arc<Account>) -> Arc<Self> {
        let channel = account.channel.as_str();
        let actions = Action::ALL.iter().copied().filter(|action| action.channel() == Some(account.channel));
        let sent = actions.map(|action| (action, sends(channel, action, &SendOutcome::Sent))).collect();
        Arc::new(Self { account, called: metrics::histogram!(telemetry::PROVIDER_SECONDS, "channel" => channel), sent })
    }

    /// Counts a finished send.
    pub(super) fn count(&self, action: Action, outcome: &SendOutcome) {
        match self.sent.iter().find(|(of, _)| *of == action) {
            Some((_, sent)) if *outcome == SendOutcome::Sent => sent.increment(1),
            _ => sends(self.account.channel.as_str(), action, outcome).increment(1),
        }
    }
}

fn sends(channel: &'static str, action: Action, outcome: &SendOutcome) -> Counter {
    metrics::counter!(telemetry::SENDS,
        "channel" => channel, "action" => action.as_str(), "outcome" => outcome.as_str())
}

/// A send this channel knows of, and how often it has read back for it.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) hint: SendHint,
    /// The line it takes up room in.
    pub(super) slot: Slot,
    /// Its provider call may have happened, so that it is to be read back: that asks neither for budget nor for spacing. It may
    /// hold the gate as well, and behind others that wait for the gate it would wait for all of them.
    pub(super) settles: bool,
    /// Reads back that found nothing.
    pub(super) absent: u32,
    /// Reads back that failed.
    pub(super) unreadable: u32,
    /// The provider never takes it: when it cannot be found, a person decides.
    pub(super) conflict: bool,
}

/// How a job ended.
#[derive(Debug)]
pub(super) enum Report {
    /// The send needs this channel no more.
    Gone(SendId),
    /// To be looked at again then.
    Later(Job, Timestamp),
    /// To be looked at again then, when the account's budget has room for it; at [`Timestamp::MAX`], when its limits change.
    /// Others in its line are no better off, so it keeps its room.
    Scarce(Job, Timestamp),
    /// To be looked at again when the campaign or the account changes.
    Held(Job, CampaignId),
    /// The account rests until then; the send keeps its place.
    Rest(Job, Timestamp),
    /// The send is done, and the account rests until then.
    Done(SendId, Option<Timestamp>),
}

/// Jobs in the order of a time, then of arrival.
type Timed = BTreeMap<(Timestamp, u64), Job>;

/// The state of a channel.
pub(super) struct Queue {
    shared: Arc<Shared>,
    seat: Arc<Seat>,
    /// What is to be settled: before everything else, and while the account rests.
    first: VecDeque<Job>,
    /// The same, before its time.
    settling: Timed,
    lines: Lines,
    backlog: Arc<Backlog>,
    /// What else waits for a time of its own: until then others pass it by, and it takes up no room.
    later: Timed,
    /// Held back by their campaign: they take up no room either.
    held: Vec<Job>,
    /// All of the above and the one in flight, so that a repeated hint adds nothing.
    known: HashSet<SendId>,
    arrivals: u64,
    in_flight: Option<(SendId, Slot)>,
    /// The send in flight was hinted at meanwhile: what its job saw may be out of date.
    hinted: Option<SendHint>,
    rest_until: Option<Timestamp>,
    /// When the channel is woken next, and by whom.
    alarm: Option<(Timestamp, AbortHandle)>,
    /// Releases what is held after a while, one for all of it.
    look_again: Option<AbortHandle>,
    drained: Option<oneshot::Sender<()>>,
}

impl Actor for ChannelActor {
    type Msg = ChannelMessage;
    type State = Queue;
    type Arguments = (Arc<Shared>, Arc<Account>, Vec<rows::OpenSend>);

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        (shared, account, open): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let mut queue = Queue::new(shared, account);
        queue.open(&open);
        let wake = myself.clone();
        if queue.backlog.attach(Box::new(move || drop(wake.cast(ChannelMessage::Wake)))) {
            tokio::spawn(housekeeping::tell_again(Arc::clone(&queue.shared), queue.seat.account.id, myself.clone()));
        }
        let _ = myself.cast(ChannelMessage::Wake);
        Ok(queue)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        queue: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        for (slot, hint) in queue.backlog.take_hints() {
            queue.hint(hint, slot, false);
        }
        match message {
            ChannelMessage::Report(report) => queue.report(report, &myself),
            ChannelMessage::Wake => {}
            ChannelMessage::Open(open) => queue.open(&open),
            ChannelMessage::Account(account) => {
                queue.seat = Seat::new(account);
                // The gate's row tells whether it still rests.
                queue.rest_until = None;
                queue.release();
            }
            ChannelMessage::Release => queue.release(),
            ChannelMessage::Rearm => queue.alarm = None,
            ChannelMessage::Drain(answer) => queue.drained = Some(answer),
            ChannelMessage::Probe(sent) => queue.shared.meters.mailbox.record("channel", sent.elapsed().as_secs_f64()),
        }
        queue.ripen();
        queue.advance(&myself);
        queue.let_in();
        Ok(())
    }
}

impl Queue {
    fn new(shared: Arc<Shared>, account: Arc<Account>) -> Self {
        Self {
            first: VecDeque::new(),
            settling: Timed::new(),
            lines: Lines::default(),
            backlog: shared.backlog(account.id),
            shared,
            seat: Seat::new(account),
            later: Timed::new(),
            held: Vec::new(),
            known: HashSet::new(),
            arrivals: 0,
            in_flight: None,
            hinted: None,
            rest_until: None,
            alarm: None,
            look_again: None,
            drained: None,
        }
    }

    /// What the table says is open.
    fn open(&mut self, open: &[rows::OpenSend]) {
        for send in open {
            let settles = send.status != SendStatus::Pending;
            self.hint((send.workspace, send.id), Slot::of_open(send.action, send.step, None), settles);
        }
    }

    fn hint(&mut self, hint: SendHint, slot: Slot, settles: bool) {
        if !self.known.contains(&hint.1) {
            let now = self.shared.clock.now();
            self.put(Job { hint, slot, settles, absent: 0, unreadable: 0, conflict: false }, now);
        } else if self.in_flight.is_some_and(|(send, _)| send == hint.1) {
            self.hinted = Some(hint);
        } else if settles {
            self.settle_now(hint.1);
        } else {
            self.look_now(hint.1);
        }
    }

    /// It was hinted at as a send like any other, by an execution that was read before the table told that its call may have
    /// happened. Not one that waits to be read back: see [`look_now`](Self::look_now).
    fn settle_now(&mut self, send: SendId) {
        let held = self.held.iter().position(|job| job.hint.1 == send);
        let job = held.map(|at| self.held.swap_remove(at)).or_else(|| lines::take(&mut self.later, send));
        let job = job.or_else(|| self.lines.take(send));
        if let Some(job) = job {
            let now = self.shared.clock.now();
            self.put(Job { settles: true, ..job }, now);
        }
    }

    /// Something happened to a send that waits for the budget: it may have been taken back, and its execution waits to hear that.
    /// Not to one that waits to be read back: too early a look would take it for not sent.
    fn look_now(&mut self, send: SendId) {
        if let Some(job) = self.lines.take_scarce(send) {
            let now = self.shared.clock.now();
            self.put(job, now);
        }
    }

    fn put(&mut self, job: Job, at: Timestamp) {
        let key = self.arrived(at);
        self.known.insert(job.hint.1);
        let waiting = if job.settles { &mut self.settling } else { &mut self.later };
        waiting.insert(key, job);
    }

    const fn arrived(&mut self, at: Timestamp) -> (Timestamp, u64) {
        self.arrivals += 1;
        (at, self.arrivals)
    }

    fn looks_again(&self) -> bool {
        self.look_again.as_ref().is_some_and(|later| !later.is_finished())
    }

    fn release(&mut self) {
        let now = self.shared.clock.now();
        let mut jobs = std::mem::take(&mut self.held);
        // The budget may be another one.
        jobs.append(&mut self.lines.release());
        for job in jobs {
            self.put(job, now);
        }
    }

    /// Tells the backlog what there is, and lets in who may decide next.
    fn let_in(&mut self) {
        if self.shared.is_draining() {
            return;
        }
        let load = Load {
            room: if self.seat.account.budget.is_some() { BUDGETED_MAX } else { BACKLOG_MAX },
            open: self.lines.open(self.in_flight.map(|(_, slot)| slot)),
            known: self.known.len(),
            off: self.seat.account.status == AccountStatus::Disabled,
        };
        for (execution, place) in self.backlog.settle(load) {
            self.shared.to_shard(execution, ShardMessage::Grant(execution, place));
        }
    }

    fn report(&mut self, report: Report, myself: &ActorRef<ChannelMessage>) {
        let slot = self.in_flight.take().map(|(_, slot)| slot);
        let hinted = self.hinted.take();
        match report {
            Report::Gone(send) => {
                self.known.remove(&send);
                if let Some((hint, slot)) = hinted.zip(slot) {
                    self.hint(hint, slot, false);
                }
            }
            // What the job saw may be out of date.
            Report::Scarce(job, _) if hinted.is_some() => {
                let now = self.shared.clock.now();
                self.put(job, now);
            }
            Report::Later(job, at) => self.put(job, at),
            Report::Scarce(job, at) => {
                let key = self.arrived(at);
                self.lines.scarce(key, job);
            }
            Report::Held(job, campaign) => {
                // Where the table said no and our copy says yes, no change may ever be seen: look again.
                let runs = self.shared.roster.campaign(campaign).is_some_and(|c| c.is_active());
                let sends = self.seat.account.status == AccountStatus::Active;
                if runs && sends && !self.looks_again() {
                    let myself = myself.clone();
                    let later = tokio::spawn(async move {
                        tokio::time::sleep(HELD_WAIT).await;
                        let _ = myself.cast(ChannelMessage::Release);
                    });
                    self.look_again = Some(later.abort_handle());
                }
                if runs { self.lines.stuck(job) } else { self.held.push(job) }
            }
            Report::Rest(job, until) => {
                self.rest_until = self.rest_until.max(Some(until));
                self.put(job, until);
            }
            Report::Done(send, rest) => {
                self.known.remove(&send);
                self.rest_until = self.rest_until.max(rest);
            }
        }
    }

    /// What waited for its time and has it now fills the backlog.
    fn ripen(&mut self) {
        let now = self.shared.clock.now();
        while let Some(next) = self.settling.first_entry().filter(|next| next.key().0 <= now) {
            self.first.push_back(next.remove());
        }
        while let Some(next) = self.later.first_entry().filter(|next| next.key().0 <= now) {
            let (key, job) = next.remove_entry();
            self.lines.ready(key, job);
        }
        self.lines.ripen(now);
    }

    /// When there is something to do: `None` when there is nothing to wait for. Reading back contacts nobody, so it does not wait
    /// until the account has rested. What turns out not to have been sent does: the claim asks again.
    fn next_at(&self, now: Timestamp) -> Option<Timestamp> {
        if !self.first.is_empty() {
            return Some(now);
        }
        let first = |waiting: &Timed| waiting.first_key_value().map(|((at, _), _)| *at);
        let ready = if self.lines.is_ready() {
            Some(now)
        } else {
            let next = first(&self.later).into_iter().chain(self.lines.next_at()).min();
            next.filter(|at| *at < Timestamp::MAX)
        };
        let rested = ready.map(|at| self.rest_until.map_or(at, |rest| rest.max(at)));
        first(&self.settling).into_iter().chain(rested).min()
    }

    /// Starts the next job if the account may act now, else sets the alarm for when it may.
    fn advance(&mut self, myself: &ActorRef<ChannelMessage>) {
        if self.in_flight.is_some() {
            return;
        }
        if let Some(drained) = self.drained.take() {
            let _ = drained.send(());
            return;
        }
        // Woken when the provider takes our key again.
        if self.shared.is_draining() || self.shared.keys.is_refused(&self.seat.account.provider) {
            return;
        }
        let now = self.shared.clock.now();
        let Some(at) = self.next_at(now) else { return };
        if at > now {
            return self.alarm(myself, at);
        }
        if self.shared.in_flight.contains_key(&self.seat.account.id) {
            // The call of a crashed predecessor is still running: never two at once.
            return self.alarm_in(myself, PREDECESSOR_WAIT);
        }
        // Where there is nothing to settle, the account has rested.
        let Some(job) = self.first.pop_front().or_else(|| self.lines.pop()) else { return };
        self.in_flight = Some((job.hint.1, job.slot));
        if let Some(before_send) = &self.shared.before_send {
            before_send(job.hint.1);
        }
        dispatch::start(Arc::clone(&self.shared), Arc::clone(&self.seat), job, myself.clone());
    }

    fn alarm(&mut self, myself: &ActorRef<ChannelMessage>, at: Timestamp) {
        if self.alarm.as_ref().is_some_and(|(set, sleeper)| *set == at && !sleeper.is_finished()) {
            return;
        }
        let (clock, myself) = (self.shared.clock.clone(), myself.clone());
        self.set_alarm(at, async move {
            clock.sleep_until(at).await;
            let _ = myself.cast(ChannelMessage::Wake);
        });
    }

    fn alarm_in(&mut self, myself: &ActorRef<ChannelMessage>, wait: Duration) {
        let myself = myself.clone();
        self.set_alarm(self.shared.clock.now(), async move {
            tokio::time::sleep(wait).await;
            let _ = myself.cast(ChannelMessage::Wake);
        });
    }

    fn set_alarm(&mut self, at: Timestamp, sleeper: impl Future<Output = ()> + Send + 'static) {
        if let Some((_, earlier)) = self.alarm.replace((at, tokio::spawn(sleeper).abort_handle())) {
            earlier.abort();
        }
    }
}
