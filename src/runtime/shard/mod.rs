//! The supervisor of one virtual shard: its prospects' mailboxes, timers, births and deaths.
//!
//! It hands each actor one work at a time and keeps the rest in order, so an actor that dies in the middle loses nothing:
//! the row is read again and the same work is handed to the next incarnation. A work that kills its actor three times puts
//! the execution into quarantine; its siblings notice nothing. `execution id -> ActorRef` is kept here and nowhere else.
//!
//! `lives` brings actors to life, parks and buries them; `timers` turns the wheels. Parking cannot lose a trigger: what is
//! delivered and what is parked go through this one mailbox, and only an execution with nothing in hand is parked, whose
//! last change is committed. A trigger that comes later finds no entry, and the row is read.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::AbortHandle;

use super::backlog::Place;
use super::prospect::{ProspectActor, ProspectMessage};
use super::shared::Shared;
use super::wheel::Wheel;
use super::work::{Done, Inbound, LoadResult, Outcome, Work};
use super::{DeliverError, Delivery};
use crate::domain::id::ExecutionId;
use crate::domain::time::Timestamp;
use crate::domain::trigger::Trigger;
use crate::telemetry;

mod lives;
mod timers;

/// Version conflicts on one work after which it is given up: somebody else keeps writing this row.
const CONFLICTS_MAX: u8 = 5;
/// Real wait before a work that was given up is taken up again by time.
const GIVEN_UP_WAIT: Duration = Duration::from_secs(30);

/// See the module's text.
pub(super) struct ShardSupervisor;

/// What a shard is told.
pub(super) enum ShardMessage {
    /// Work for an execution.
    Deliver(ExecutionId, Inbound),
    /// Rows that were read because this shard asked for them.
    Loaded(Vec<(ExecutionId, LoadResult)>),
    /// Rows of the scan at a start, which may be older than what this shard knows. The permit bounds how many are on
    /// their way.
    Scanned(Vec<(ExecutionId, LoadResult)>, OwnedSemaphorePermit),
    /// Wake-ups that the scan read for executions that stay parked.
    Asleep(Vec<(ExecutionId, Option<Timestamp>)>, OwnedSemaphorePermit),
    /// The scan is over.
    ScanDone,
    /// Take care of an execution that this shard may not know yet.
    Activate(ExecutionId),
    /// The account of a due execution has room for a send now.
    Grant(ExecutionId, Place),
    /// An actor's report.
    Done(Box<Done>),
    /// The wheel's next entry may be due.
    Tick,
    /// What held executions back may be over: wake them.
    Release,
    /// The wall clock jumped: the sleep until the next entry is wrong.
    Rearm,
    /// Answer when no work is in hand any more; start none by time.
    Drain(oneshot::Sender<()>),
    /// Note how long this was on its way.
    Probe(Instant),
}

/// The state of a shard.
pub(super) struct Shard {
    shared: Arc<Shared>,
    number: u16,
    /// Messages from others that were taken so far.
    taken: u64,
    /// Executions that are live or being read.
    entries: HashMap<ExecutionId, Entry>,
    /// Wake-ups of live executions.
    wheel: Wheel,
    /// Wake-ups of parked executions: all that they cost.
    asleep: Wheel,
    /// Live executions with nothing to do and no wake-up: the first to be parked.
    dormant: BTreeSet<ExecutionId>,
    /// Executions whose time does not move (campaign not active, no account), live or parked.
    held: HashSet<ExecutionId>,
    /// While the scan runs: executions that left `entries` since it began. What it read of them is out of date.
    left: Option<HashSet<ExecutionId>>,
    armed: Option<(Timestamp, AbortHandle)>,
    busy: usize,
    /// The size of `asleep` that the runtime's count holds.
    counted: usize,
    drained: Option<oneshot::Sender<()>>,
}

/// One execution that is live or being read.
#[derive(Default)]
struct Entry {
    actor: Option<ActorRef<ProspectMessage>>,
    wake: Option<Timestamp>,
    in_hand: Option<Box<Inbound>>,
    /// Boxed: nearly always absent, and there is an entry for every resident prospect.
    #[expect(clippy::box_collection, reason = "8 bytes instead of 32 in every entry")]
    queue: Option<Box<VecDeque<Inbound>>>,
    crashes: u8,
    /// A send of it is under way: its outcome is on the way too, so it is not parked.
    sending: bool,
}

impl Entry {
    fn queue(&mut self) -> &mut VecDeque<Inbound> {
        self.queue.get_or_insert_default()
    }

    /// Whether a mending, or a quarantine, comes first anyway.
    fn has_work_before_mending(&self) -> bool {
        let first = self.in_hand.as_deref().or_else(|| self.queue.as_ref()?.front());
        first.is_some_and(|i| matches!(i.errand.work, Work::Trigger(Trigger::Adopted | Trigger::Quarantine { .. }, _)))
    }

    fn has_work(&self) -> bool {
        self.in_hand.is_some() || self.queue.as_ref().is_some_and(|q| !q.is_empty())
    }

    /// Whether its row alone is enough to go on from.
    fn can_be_parked(&self) -> bool {
        self.actor.is_some() && !self.sending && !self.has_work()
    }
}

impl Actor for ShardSupervisor {
    type Msg = ShardMessage;
    type State = Shard;
    type Arguments = (Arc<Shared>, u16);

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        (shared, number): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(Shard {
            shared,
            number,
            taken: 0,
            entries: HashMap::new(),
            wheel: Wheel::default(),
            asleep: Wheel::default(),
            dormant: BTreeSet::new(),
            held: HashSet::new(),
            left: Some(HashSet::new()),
            armed: None,
            busy: 0,
            counted: 0,
            drained: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        shard: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        // Its own alarm nobody has counted as sent.
        shard.taken += u64::from(!matches!(message, ShardMessage::Tick));
        match message {
            ShardMessage::Deliver(execution, inbound) => shard.deliver(execution, inbound),
            ShardMessage::Loaded(rows) => {
                for (execution, result) in rows {
                    shard.loaded(&myself, execution, result).await;
                }
            }
            ShardMessage::Scanned(rows, permit) => {
                for (execution, result) in rows {
                    if !shard.has_left(execution) {
                        shard.loaded(&myself, execution, result).await;
                    }
                }
                drop(permit);
            }
            ShardMessage::Asleep(rows, permit) => {
                shard.fall_asleep(rows);
                drop(permit);
            }
            ShardMessage::ScanDone => shard.left = None,
            ShardMessage::Activate(execution) => shard.activate(execution),
            ShardMessage::Grant(execution, place) => shard.deliver(execution, Inbound::granted(place)),
            ShardMessage::Done(done) => shard.done(*done),
            ShardMessage::Tick | ShardMessage::Rearm => {
                // May be another sleeper than the one that sent this.
                if let Some((_, sleeper)) = shard.armed.take() {
                    sleeper.abort();
                }
            }
            ShardMessage::Release => shard.release(),
            ShardMessage::Drain(answer) => shard.drained = Some(answer),
            ShardMessage::Probe(sent) => shard.shared.meters.mailbox.record("shard", sent.elapsed().as_secs_f64()),
        }
        shard.make_room();
        shard.turn_wheels(&myself);
        shard.count_parked();
        shard.shared.mailboxes.handled(shard.number, shard.taken, shard.busy);
        if shard.busy == 0
            && let Some(drained) = shard.drained.take()
        {
            let _ = drained.send(());
        }
        Ok(())
    }

    /// A dead child is this shard's to rebuild; the default would stop the shard and all of its prospects.
    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        shard: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(cell, error) = event {
            shard.crashed(cell.get_id(), &error.to_string());
        }
        Ok(())
    }
}

impl Shard {
    fn deliver(&mut self, execution: ExecutionId, inbound: Inbound) {
        self.busy += 1;
        self.activate(execution);
        let entry = self.entries.entry(execution).or_default();
        entry.queue().push_back(inbound);
        self.hand_out(execution);
    }

    /// Has the row of an execution read, unless it is live or being read.
    fn activate(&mut self, execution: ExecutionId) {
        if let std::collections::hash_map::Entry::Vacant(slot) = self.entries.entry(execution) {
            slot.insert(Entry::default());
            self.shared.load(execution);
        }
    }

    /// Gives a live actor that has nothing in hand its next work.
    fn hand_out(&mut self, execution: ExecutionId) {
        let Some(entry) = self.entries.get_mut(&execution) else { return };
        let Some(actor) = &entry.actor else { return };
        if entry.in_hand.is_some() {
            return;
        }
        let Some(mut next) = entry.queue.as_mut().and_then(|q| q.pop_front()) else {
            entry.queue = None;
            return;
        };
        self.dormant.remove(&execution);
        next.is_taken();
        // A cast to an actor that is just dying is lost; its death hands the work out again.
        let _ = actor.cast(ProspectMessage::Handle(Arc::clone(&next.errand)));
        entry.in_hand = Some(Box::new(next));
    }

    fn done(&mut self, mut done: Done) {
        let Some(entry) = self.entries.get_mut(&done.execution) else { return };
        let Some(mut inbound) = entry.in_hand.take() else { return };
        let mut released = false;
        match done.outcome {
            Outcome::Conflict if inbound.conflicts < CONFLICTS_MAX => {
                inbound.conflicts += 1;
                entry.in_hand = Some(inbound);
                self.reload(done.execution);
                return;
            }
            Outcome::Conflict => {
                tracing::warn!(execution.id = %done.execution, trigger = inbound.errand.work.name(),
                    "gave up for now: another writer keeps changing this row, or Postgres refuses the change");
                inbound.answer(Err(DeliverError::Busy));
                // Not at once: it would be refused again, as fast as Postgres can.
                let later = self.shared.clock.after_real(GIVEN_UP_WAIT);
                done.wake = Some(done.wake.map_or(later, |at| at.max(later))).filter(|_| !done.status.is_final());
            }
            Outcome::Lost => {
                // It is the new owner's to wake.
                done.wake = None;
                inbound.answer(Err(DeliverError::Stopping));
            }
            Outcome::Held { releases } => {
                // A release that overtook this report would not come again.
                released = self.shared.releases.load(SeqCst) != releases;
                if !released {
                    self.held.insert(done.execution);
                }
                inbound.answer(Ok(Delivery::Rejected { reason: "held" }));
            }
            Outcome::Lined => {
                // Its account wakes it.
                done.wake = None;
                inbound.answer(Ok(Delivery::Rejected { reason: "lined" }));
            }
            Outcome::Rejected(reason) => inbound.answer(Ok(Delivery::Rejected { reason })),
            Outcome::Applied { version, trigger } => {
                entry.crashes = 0;
                // Whatever held it back, it is somewhere else now.
                self.held.remove(&done.execution);
                self.shared.meters.reacted(trigger, &inbound);
                inbound.answer(Ok(Delivery::Applied { version, status: done.status }));
            }
        }
        self.busy -= 1;
        entry.sending = done.sending;
        let wake = if self.held.contains(&done.execution) { None } else { done.wake };
        self.wheel.arm(done.execution, entry.wake, wake);
        entry.wake = wake;
        if entry.has_work() {
            self.hand_out(done.execution);
        } else if done.status.is_final() {
            self.retire(done.execution);
        } else {
            entry.queue = None;
            if wake.is_none() && !done.sending {
                self.dormant.insert(done.execution);
            }
        }
        if released {
            self.wake(done.execution, None);
        }
    }
}

#[cfg(test)]
mod tests;
