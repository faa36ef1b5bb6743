//! The supervisor of one virtual shard: its prospects' mailboxes, timers, births and deaths.
//!
//! It hands each actor one work at a time and keeps the rest in order, so an actor that dies in the middle loses nothing:
//! the row is read again and the same work is handed to the next incarnation. A work that kills its actor three times puts
//! the execution into quarantine; its siblings notice nothing. `execution id -> ActorRef` is kept here and nowhere else.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::backlog::Place;
use super::prospect::{ProspectActor, ProspectMessage};
use super::shared::Shared;
use super::work::{Done, Inbound, LoadResult, Outcome, Work};
use super::{DeliverError, Delivery};
use crate::domain::id::ExecutionId;
use crate::domain::step::needs_mending;
use crate::domain::time::Timestamp;
use crate::domain::trigger::Trigger;
use crate::telemetry;

/// Deaths on one work after which the execution is put into quarantine.
const CRASHES_MAX: u8 = 3;
/// Version conflicts on one work after which it is given up: somebody else keeps writing this row.
const CONFLICTS_MAX: u8 = 5;
/// Real wait before a work that was given up is taken up again by time.
const GIVEN_UP_WAIT: Duration = Duration::from_secs(30);
/// Wait before an actor that crashed is rebuilt, doubled by each crash.
const CRASH_BACKOFF: Duration = Duration::from_millis(50);
/// Wait before the wheel is looked at again when too many firings are in flight.
const TIMER_PRESSURE_WAIT: Duration = Duration::from_millis(50);

/// See the module's text.
pub(super) struct ShardSupervisor;

/// What a shard is told.
pub(super) enum ShardMessage {
    /// Work for an execution.
    Deliver(ExecutionId, Inbound),
    /// Rows that were read, asked for or not (rehydration).
    Loaded(Vec<(ExecutionId, LoadResult)>),
    /// Make an execution resident if it is not.
    Activate(ExecutionId),
    /// An actor's report.
    Done(Box<Done>),
    /// The wheel's next entry may be due.
    Tick,
    /// What held executions back may be over: wake them.
    Release,
    /// There is room for a send of this execution, which waited in line for it.
    Grant(ExecutionId, Place),
    /// The wall clock jumped: the sleep until the next entry is wrong.
    Rearm,
    /// Answer when no work is in hand any more; start none by time.
    Drain(oneshot::Sender<()>),
}

/// The state of a shard.
pub(super) struct Shard {
    shared: Arc<Shared>,
    entries: HashMap<ExecutionId, Entry>,
    wheel: super::wheel::Wheel,
    held: HashSet<ExecutionId>,
    armed: Option<(Timestamp, AbortHandle)>,
    busy: usize,
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
}

impl Entry {
    fn queue(&mut self) -> &mut VecDeque<Inbound> {
        self.queue.get_or_insert_default()
    }

    /// Whether a mending, or a quarantine, comes first anyway.
    fn has_work_before_mending(&self) -> bool {
        let first = self.in_hand.as_deref().or_else(|| self.queue.as_ref()?.front());
        first.is_some_and(|i| matches!(*i.work, Work::Trigger(Trigger::Adopted | Trigger::Quarantine { .. }, _)))
    }

    fn has_work(&self) -> bool {
        self.in_hand.is_some() || self.queue.as_ref().is_some_and(|q| !q.is_empty())
    }
}

impl Actor for ShardSupervisor {
    type Msg = ShardMessage;
    type State = Shard;
    type Arguments = Arc<Shared>;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        shared: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(Shard {
            shared,
            entries: HashMap::new(),
            wheel: super::wheel::Wheel::default(),
            held: HashSet::new(),
            armed: None,
            busy: 0,
            drained: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        shard: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ShardMessage::Deliver(execution, inbound) => shard.deliver(execution, inbound),
            ShardMessage::Loaded(rows) => {
                for (execution, result) in rows {
                    shard.loaded(&myself, execution, result).await;
                }
            }
            ShardMessage::Activate(execution) => shard.activate(execution),
            ShardMessage::Done(done) => shard.done(*done),
            ShardMessage::Tick | ShardMessage::Rearm => {
                // May be another sleeper than the one that sent this.
                if let Some((_, sleeper)) = shard.armed.take() {
                    sleeper.abort();
                }
            }
            ShardMessage::Release => {
                for execution in std::mem::take(&mut shard.held) {
                    shard.wake(execution, None);
                }
            }
            ShardMessage::Grant(execution, place) => shard.grant(execution, place),
            ShardMessage::Drain(answer) => shard.drained = Some(answer),
        }
        shard.turn_wheel(&myself);
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

    fn activate(&mut self, execution: ExecutionId) {
        if let std::collections::hash_map::Entry::Vacant(slot) = self.entries.entry(execution) {
            slot.insert(Entry::default());
            let _ = self.shared.loader.send(execution);
        }
    }

    /// Gives a live actor that has nothing in hand its next work.
    fn hand_out(&mut self, execution: ExecutionId) {
        let Some(entry) = self.entries.get_mut(&execution) else { return };
        let Some(actor) = &entry.actor else { return };
        if entry.in_hand.is_some() {
            return;
        }
        let Some(next) = entry.queue.as_mut().and_then(|q| q.pop_front()) else {
            entry.queue = None;
            return;
        };
        // A cast to an actor that is just dying is lost; its death hands the work out again.
        let _ = actor.cast(ProspectMessage::Handle(Arc::clone(&next.work)));
        entry.in_hand = Some(Box::new(next));
    }

    /// A row was read: bring it to life, or tell those who wait why not.
    async fn loaded(&mut self, myself: &ActorRef<ShardMessage>, execution: ExecutionId, result: LoadResult) {
        let entry = self.entries.entry(execution).or_default();
        if entry.actor.is_some() {
            return;
        }
        let row = match result {
            LoadResult::Ready(row) => row,
            LoadResult::Absent => return self.give_up(execution, &DeliverError::NotFound(execution)),
            LoadResult::Unrunnable(why) => {
                return self.give_up(execution, &DeliverError::Unrunnable(execution, why));
            }
        };
        if row.execution.status.is_final() && !entry.has_work() {
            self.entries.remove(&execution);
            return;
        }
        let wake = row.execution.wake_at();
        // The hint that followed the send's commit may have been lost with the process.
        if let Some(send) = row.execution.open_send {
            self.shared.hint_channels(&row.execution.accounts, (row.execution.workspace, send));
        }
        // Not again in front of the quarantine that mending itself has led to, nor of a mending that is still to be done.
        if needs_mending(&row.execution, &row.flow) && !entry.has_work_before_mending() {
            self.busy += 1;
            entry.queue().push_front(Inbound::new(Work::Trigger(Trigger::Adopted, None)));
        }
        let args = (Arc::clone(&self.shared), row);
        match ProspectActor::spawn_linked(None, ProspectActor, args, myself.get_cell()).await {
            Ok((actor, _)) => {
                self.shared.residents.fetch_add(1, Relaxed);
                entry.actor = Some(actor);
                self.wheel.arm(execution, entry.wake, wake);
                entry.wake = wake;
                // A work that was in hand when the last incarnation died goes first.
                if let Some(again) = entry.in_hand.take() {
                    entry.queue().push_front(*again);
                }
                self.hand_out(execution);
            }
            Err(error) => {
                tracing::error!(execution.id = %execution, %error, "cannot start an actor");
                self.give_up(execution, &DeliverError::Stopping);
            }
        }
    }

    fn give_up(&mut self, execution: ExecutionId, why: &DeliverError) {
        let Some(entry) = self.entries.remove(&execution) else { return };
        self.wheel.arm(execution, entry.wake, None);
        self.held.remove(&execution);
        for inbound in entry.in_hand.into_iter().map(|b| *b).chain(entry.queue.into_iter().flat_map(|q| *q)) {
            self.busy -= 1;
            inbound.answer(Err(why.clone()));
        }
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
                tracing::warn!(execution.id = %done.execution, trigger = inbound.work.name(),
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
                // It comes up by its place in line.
                done.wake = None;
                inbound.answer(Ok(Delivery::Rejected { reason: "lined" }));
            }
            Outcome::Rejected(reason) => inbound.answer(Ok(Delivery::Rejected { reason })),
            Outcome::Applied { version } => {
                entry.crashes = 0;
                // Whatever held it back, it is somewhere else now.
                self.held.remove(&done.execution);
                metrics::histogram!(telemetry::REACTION_SECONDS, "trigger" => inbound.work.name())
                    .record(inbound.arrived.elapsed().as_secs_f64());
                inbound.answer(Ok(Delivery::Applied { version, status: done.status }));
            }
        }
        self.busy -= 1;
        if !self.held.contains(&done.execution) {
            self.wheel.arm(done.execution, entry.wake, done.wake);
            entry.wake = done.wake;
        }
        if done.status.is_final() && !entry.has_work() {
            self.retire(done.execution);
        } else {
            self.hand_out(done.execution);
        }
        if released {
            self.wake(done.execution, None);
        }
    }

    /// A final execution with nothing to do needs no actor any more.
    fn retire(&mut self, execution: ExecutionId) {
        self.held.remove(&execution);
        if let Some(entry) = self.entries.remove(&execution) {
            self.wheel.arm(execution, entry.wake, None);
            self.stop_actor(entry.actor);
        }
    }

    fn stop_actor(&self, actor: Option<ActorRef<ProspectMessage>>) {
        if let Some(actor) = actor {
            self.shared.residents.fetch_sub(1, Relaxed);
            actor.stop(None);
        }
    }

    /// Ends an actor whose idea of its row is wrong and reads the row again.
    fn reload(&mut self, execution: ExecutionId) {
        let Some(entry) = self.entries.get_mut(&execution) else { return };
        let actor = entry.actor.take();
        self.wheel.arm(execution, entry.wake.take(), None);
        self.stop_actor(actor);
        let _ = self.shared.loader.send(execution);
    }

    /// An actor panicked. A linear search: crashes are rare, and a second map would cost every idle prospect memory.
    fn crashed(&mut self, actor: ractor::ActorId, error: &str) {
        let found = self.entries.iter_mut().find(|(_, e)| e.actor.as_ref().is_some_and(|a| a.get_id() == actor));
        let Some((&execution, entry)) = found else { return };
        entry.actor = None;
        self.shared.residents.fetch_sub(1, Relaxed);
        self.wheel.arm(execution, entry.wake.take(), None);
        entry.crashes = entry.crashes.saturating_add(1);
        metrics::counter!(telemetry::ACTOR_RESTARTS).increment(1);
        let trigger = entry.in_hand.as_ref().map_or("none", |i| i.work.name());
        tracing::error!(execution.id = %execution, trigger, crashes = entry.crashes, error, "a prospect actor crashed");
        if entry.crashes >= CRASHES_MAX {
            entry.crashes = 0;
            let input = format!("quarantined after {CRASHES_MAX} crashes on `{trigger}`: {error}");
            if let Some(culprit) = entry.in_hand.take() {
                self.busy -= 1;
                culprit.answer(Err(DeliverError::Unrunnable(execution, input.clone())));
            }
            metrics::counter!(telemetry::QUARANTINED).increment(1);
            self.busy += 1;
            entry.queue().push_front(Inbound::new(Work::Trigger(Trigger::Quarantine { input }, None)));
        }
        let wait = CRASH_BACKOFF * (1 << entry.crashes.min(5));
        let loader = self.shared.loader.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = loader.send(execution);
        });
    }

    /// Wakes an execution by time, unless it has something in hand: then its report arms the wheel anew.
    fn wake(&mut self, execution: ExecutionId, permit: Option<tokio::sync::OwnedSemaphorePermit>) {
        let Some(entry) = self.entries.get_mut(&execution) else { return };
        if entry.actor.is_none() || entry.has_work() {
            return;
        }
        self.busy += 1;
        entry.queue().push_back(Inbound { permit, ..Inbound::new(Work::Wake) });
        self.hand_out(execution);
    }

    /// One with something in hand comes back to the line by its own report.
    fn grant(&mut self, execution: ExecutionId, place: Place) {
        let Some(entry) = self.entries.get_mut(&execution) else { return };
        if entry.actor.is_none() || entry.has_work() {
            return;
        }
        self.busy += 1;
        let work = Work::Granted(place.account());
        entry.queue().push_back(Inbound { place: Some(place), ..Inbound::new(work) });
        self.hand_out(execution);
    }

    /// Fires what is due and sleeps until the next entry.
    fn turn_wheel(&mut self, myself: &ActorRef<ShardMessage>) {
        if self.shared.is_draining() {
            return;
        }
        let now = self.shared.clock.now();
        let mut pressed = false;
        while self.wheel.next().is_some_and(|at| at <= now) {
            let Ok(permit) = Arc::clone(&self.shared.timers).try_acquire_owned() else {
                pressed = true;
                break;
            };
            let Some((due, execution)) = self.wheel.pop_due(now) else { break };
            if let Some(entry) = self.entries.get_mut(&execution) {
                entry.wake = None;
            }
            metrics::histogram!(telemetry::TIMER_LATENESS_SECONDS)
                .record(self.shared.clock.real(now.since(due)).as_secs_f64());
            self.wake(execution, Some(permit));
        }
        let Some(next) = self.wheel.next() else { return };
        if self.armed.as_ref().is_some_and(|(at, _)| *at <= next && !pressed) {
            return;
        }
        if let Some((_, sleeper)) = self.armed.take() {
            sleeper.abort();
        }
        let (clock, myself) = (self.shared.clock.clone(), myself.clone());
        let sleeper = tokio::spawn(async move {
            if pressed {
                tokio::time::sleep(TIMER_PRESSURE_WAIT).await;
            } else {
                clock.sleep_until(next).await;
            }
            let _ = myself.cast(ShardMessage::Tick);
        });
        self.armed = Some((next, sleeper.abort_handle()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_stays_small_because_there_is_one_for_every_resident_prospect() {
        let (entry, key) = (std::mem::size_of::<Entry>(), std::mem::size_of::<ExecutionId>());
        println!("Entry {entry} B, with its key {} B", entry + key);
        assert!(entry <= 64, "{entry} B");
    }
}
