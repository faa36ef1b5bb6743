//! The actor of one sending account: strictly one send in flight.
//!
//! It decides when the account acts and on which send; [`dispatch`](super::dispatch) carries one job out in a task that
//! reports back, so that the actor stays prompt. What it knows of sends are hints: each job reads the row first.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::dispatch;
use super::shared::{SendHint, Shared};
use crate::domain::account::{Account, AccountStatus};
use crate::domain::id::{CampaignId, SendId};
use crate::domain::send::SendStatus;
use crate::domain::time::Timestamp;
use crate::store::send as rows;

/// Real wait before a send is looked at again that was held back while nothing here says why.
const HELD_WAIT: Duration = Duration::from_secs(5);
/// Wait before looking again while a provider call of an earlier incarnation is still running.
const PREDECESSOR_WAIT: Duration = Duration::from_millis(100);

/// See the module's text.
pub(super) struct ChannelActor;

/// What a channel is told.
pub(super) enum ChannelMessage {
    /// A send may be waiting.
    Hint(SendHint),
    /// The job in flight has ended.
    Report(Report),
    /// Look for something to do.
    Wake,
    /// The account's row changed.
    Account(Arc<Account>),
    /// What held sends back may be over.
    Release,
    /// Answer when nothing is in flight any more; start nothing.
    Drain(oneshot::Sender<()>),
}

/// A send this channel knows of, and how often it has read back for it.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) hint: SendHint,
    /// Reads back that found nothing.
    pub(super) absent: u32,
    /// Reads back that failed.
    pub(super) unreadable: u32,
}

/// How a job ended.
#[derive(Debug)]
pub(super) enum Report {
    /// The send needs this channel no more.
    Gone(SendId),
    /// To be looked at again then.
    Later(Job, Timestamp),
    /// To be looked at again when the campaign or the account changes.
    Held(Job, CampaignId),
    /// The account rests until then; the send keeps its place.
    Rest(Job, Timestamp),
    /// The send is done, and the account rests until then.
    Done(SendId, Option<Timestamp>),
}

/// The state of a channel.
pub(super) struct Line {
    shared: Arc<Shared>,
    account: Arc<Account>,
    /// Jobs by the time from which they may run, then by arrival.
    queue: BTreeMap<(Timestamp, u64), Job>,
    /// The sends that are queued, in flight or held, so that a repeated hint adds nothing.
    known: HashSet<SendId>,
    held: Vec<Job>,
    arrivals: u64,
    in_flight: Option<SendId>,
    /// The send in flight was hinted at meanwhile: what its job saw may be out of date.
    hinted: Option<SendHint>,
    rest_until: Option<Timestamp>,
    alarm: Option<AbortHandle>,
    /// Releases what is held after a while, one for all of it.
    look_again: Option<AbortHandle>,
    drained: Option<oneshot::Sender<()>>,
}

impl Actor for ChannelActor {
    type Msg = ChannelMessage;
    type State = Line;
    type Arguments = (Arc<Shared>, Arc<Account>, Vec<rows::OpenSend>);

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        (shared, account, open): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let mut line = Line {
            shared,
            account,
            queue: BTreeMap::new(),
            known: HashSet::new(),
            held: Vec::new(),
            arrivals: 0,
            in_flight: None,
            hinted: None,
            rest_until: None,
            alarm: None,
            look_again: None,
            drained: None,
        };
        // What may hold the gate goes first: behind others that wait for the gate it would wait for all of them.
        for send in open
            .iter()
            .filter(|s| s.status != SendStatus::Pending)
            .chain(open.iter().filter(|s| s.status == SendStatus::Pending))
        {
            line.hint((send.workspace, send.id));
        }
        let _ = myself.cast(ChannelMessage::Wake);
        Ok(line)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        line: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ChannelMessage::Hint(hint) => line.hint(hint),
            ChannelMessage::Report(report) => line.report(report, &myself),
            ChannelMessage::Wake => {}
            ChannelMessage::Account(account) => {
                line.account = account;
                line.release();
            }
            ChannelMessage::Release => line.release(),
            ChannelMessage::Drain(answer) => line.drained = Some(answer),
        }
        line.advance(&myself);
        Ok(())
    }
}

impl Line {
    fn hint(&mut self, hint: SendHint) {
        if !self.known.contains(&hint.1) {
            let now = self.shared.clock.now();
            self.put(Job { hint, absent: 0, unreadable: 0 }, now);
        } else if self.in_flight == Some(hint.1) {
            self.hinted = Some(hint);
        }
    }

    fn put(&mut self, job: Job, at: Timestamp) {
        self.arrivals += 1;
        self.known.insert(job.hint.1);
        self.queue.insert((at, self.arrivals), job);
    }

    fn looks_again(&self) -> bool {
        self.look_again.as_ref().is_some_and(|later| !later.is_finished())
    }

    fn release(&mut self) {
        let now = self.shared.clock.now();
        for job in std::mem::take(&mut self.held) {
            self.put(job, now);
        }
    }

    fn report(&mut self, report: Report, myself: &ActorRef<ChannelMessage>) {
        self.in_flight = None;
        let hinted = self.hinted.take();
        match report {
            Report::Gone(send) => {
                self.known.remove(&send);
                if let Some(hint) = hinted {
                    self.hint(hint);
                }
            }
            Report::Later(job, at) => self.put(job, at),
            Report::Held(job, campaign) => {
                // Where the table said no and our copy says yes, no change may ever be seen: look again.
                let runs = self.shared.roster.campaign(campaign).is_some_and(|c| c.is_active());
                if runs && self.account.status == AccountStatus::Active && !self.looks_again() {
                    let myself = myself.clone();
                    let later = tokio::spawn(async move {
                        tokio::time::sleep(HELD_WAIT).await;
                        let _ = myself.cast(ChannelMessage::Release);
                    });
                    self.look_again = Some(later.abort_handle());
                }
                self.held.push(job);
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

    /// Starts the next job if the account may act now, else sets the alarm for when it may.
    fn advance(&mut self, myself: &ActorRef<ChannelMessage>) {
        if self.in_flight.is_some() {
            return;
        }
        if let Some(drained) = self.drained.take() {
            let _ = drained.send(());
            return;
        }
        if self.shared.is_draining() {
            return;
        }
        let Some((&(ready, _), _)) = self.queue.first_key_value() else { return };
        let now = self.shared.clock.now();
        let at = self.rest_until.map_or(ready, |rest| rest.max(ready));
        if at > now {
            return self.alarm(myself, at);
        }
        if self.shared.in_flight.contains_key(&self.account.id) {
            // The call of a crashed predecessor is still running: never two at once.
            return self.alarm_in(myself, PREDECESSOR_WAIT);
        }
        let Some((_, job)) = self.queue.pop_first() else { return };
        self.in_flight = Some(job.hint.1);
        dispatch::start(Arc::clone(&self.shared), Arc::clone(&self.account), job, myself.clone());
    }

    fn alarm(&mut self, myself: &ActorRef<ChannelMessage>, at: Timestamp) {
        let (clock, myself) = (self.shared.clock.clone(), myself.clone());
        self.set_alarm(async move {
            clock.sleep_until(at).await;
            let _ = myself.cast(ChannelMessage::Wake);
        });
    }

    fn alarm_in(&mut self, myself: &ActorRef<ChannelMessage>, wait: Duration) {
        let myself = myself.clone();
        self.set_alarm(async move {
            tokio::time::sleep(wait).await;
            let _ = myself.cast(ChannelMessage::Wake);
        });
    }

    fn set_alarm(&mut self, sleeper: impl Future<Output = ()> + Send + 'static) {
        if let Some(alarm) = self.alarm.replace(tokio::spawn(sleeper).abort_handle()) {
            alarm.abort();
        }
    }
}
