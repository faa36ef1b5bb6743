//! Births and deaths in a shard: rows become actors, sleepers give way, crashes are rebuilt.

use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::domain::step::needs_mending;

/// Deaths on one work after which the execution is put into quarantine.
const CRASHES_MAX: u8 = 3;
/// Wait before an actor that crashed is rebuilt, doubled by each crash.
const CRASH_BACKOFF: Duration = Duration::from_millis(50);

impl Shard {
    /// A row was read: bring it to life, or tell those who wait why not.
    pub(super) async fn loaded(&mut self, myself: &ActorRef<ShardMessage>, execution: ExecutionId, result: LoadResult) {
        let full = self.shared.is_full();
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
        let wake = row.execution.wake_at();
        if !entry.has_work() {
            if row.execution.status.is_final() {
                self.entries.remove(&execution);
                return;
            }
            // Nobody waits for it, and others are live that do not sleep longer.
            let sleeps = wake.is_none_or(|at| at > self.shared.clock.now());
            if full && sleeps && row.execution.open_send.is_none() && !needs_mending(&row.execution, &row.flow) {
                self.entries.remove(&execution);
                return self.put_to_sleep(execution, wake);
            }
        }
        // The hint that followed the send's commit may have been lost with the process.
        if let Some(send) = row.execution.open_send {
            self.shared.hint_channels(&row.execution, row.slot(), (row.execution.workspace, send));
        }
        // Not again in front of the quarantine that mending itself has led to, nor of a mending that is still to be done.
        if needs_mending(&row.execution, &row.flow) && !entry.has_work_before_mending() {
            self.busy += 1;
            entry.queue().push_front(Inbound::new(Work::Trigger(Trigger::Adopted, None)));
        }
        let sending = row.execution.open_send.is_some();
        let args = (Arc::clone(&self.shared), row);
        match ProspectActor::spawn_linked(None, ProspectActor, args, myself.get_cell()).await {
            Ok((actor, _)) => {
                self.shared.residents.fetch_add(1, Relaxed);
                entry.actor = Some(actor);
                entry.sending = sending;
                self.asleep.arm(execution, wake, None);
                let wake = if self.held.contains(&execution) { None } else { wake };
                self.wheel.arm(execution, entry.wake, wake);
                entry.wake = wake;
                // A work that was in hand when the last incarnation died goes first.
                if let Some(again) = entry.in_hand.take() {
                    entry.queue().push_front(*again);
                }
                if !entry.has_work() && wake.is_none() && !sending {
                    self.dormant.insert(execution);
                }
                self.hand_out(execution);
            }
            Err(error) => {
                tracing::error!(execution.id = %execution, %error, "cannot start an actor");
                self.give_up(execution, &DeliverError::Stopping);
            }
        }
    }

    /// What the scan found that stays parked.
    pub(super) fn fall_asleep(&mut self, rows: Vec<(ExecutionId, Option<Timestamp>)>) {
        for (execution, wake) in rows {
            if !self.entries.contains_key(&execution) && !self.has_left(execution) {
                self.put_to_sleep(execution, wake);
            }
        }
    }

    fn put_to_sleep(&mut self, execution: ExecutionId, wake: Option<Timestamp>) {
        // One that is held wakes by a release only.
        if !self.held.contains(&execution) {
            self.asleep.arm(execution, None, wake);
        }
    }

    /// Keeps the runtime's count of parked executions true.
    pub(super) fn count_parked(&mut self) {
        let now = self.asleep.len();
        if now > self.counted {
            self.shared.parked.fetch_add((now - self.counted) as u64, Relaxed);
        } else {
            self.shared.parked.fetch_sub((self.counted - now) as u64, Relaxed);
        }
        self.counted = now;
    }

    /// While there are more live actors than there may be, the ones of this shard that sleep longest give way.
    pub(super) fn make_room(&mut self) {
        while self.shared.is_crowded() {
            let dormant = self.dormant.pop_first();
            let Some(execution) = dormant.or_else(|| self.longest_sleeper()) else { return };
            self.park(execution);
        }
    }

    /// The live execution that sleeps longest and has nothing to do. Those at the wheel's end that do are few: works take
    /// milliseconds.
    fn longest_sleeper(&self) -> Option<ExecutionId> {
        let idle = |id: &ExecutionId| self.entries.get(id).is_some_and(Entry::can_be_parked);
        self.wheel.latest_first().find(idle)
    }

    /// Ends an idle actor; what is left of it is its row and its wake-up.
    fn park(&mut self, execution: ExecutionId) {
        let Some(entry) = self.entries.get(&execution).filter(|e| e.can_be_parked()) else { return };
        let (wake, actor) = (entry.wake, entry.actor.clone());
        self.wheel.arm(execution, wake, None);
        self.leave(execution);
        self.put_to_sleep(execution, wake);
        self.stop_actor(actor);
        metrics::counter!(telemetry::PASSIVATED).increment(1);
    }

    /// Takes an execution out of `entries`, and remembers that while a scan may still tell of it.
    fn leave(&mut self, execution: ExecutionId) -> Option<Entry> {
        self.dormant.remove(&execution);
        if let Some(left) = &mut self.left {
            left.insert(execution);
        }
        self.entries.remove(&execution)
    }

    /// Whether what a scan read of it is older than what this shard has done with it.
    pub(super) fn has_left(&self, execution: ExecutionId) -> bool {
        self.left.as_ref().is_some_and(|left| left.contains(&execution))
    }

    pub(super) fn give_up(&mut self, execution: ExecutionId, why: &DeliverError) {
        let Some(entry) = self.leave(execution) else { return };
        self.wheel.arm(execution, entry.wake, None);
        self.held.remove(&execution);
        for inbound in entry.in_hand.into_iter().map(|b| *b).chain(entry.queue.into_iter().flat_map(|q| *q)) {
            self.busy -= 1;
            inbound.answer(Err(why.clone()));
        }
    }

    /// A final execution with nothing to do needs no actor any more.
    pub(super) fn retire(&mut self, execution: ExecutionId) {
        self.held.remove(&execution);
        if let Some(entry) = self.leave(execution) {
            self.wheel.arm(execution, entry.wake, None);
            self.stop_actor(entry.actor);
        }
    }

    fn stop_actor(&self, actor: Option<ActorRef<ProspectMessage>>) {
        if let Some(actor) = actor {
            self.shared.residents.fetch_sub(1, Relaxed);
            // Its mailbox is empty: nobody but this shard writes to it, and the writer only while a work is in hand.
            actor.stop(None);
        }
    }

    /// Ends an actor whose idea of its row is wrong and reads the row again.
    pub(super) fn reload(&mut self, execution: ExecutionId) {
        let Some(entry) = self.entries.get_mut(&execution) else { return };
        let actor = entry.actor.take();
        self.wheel.arm(execution, entry.wake.take(), None);
        self.stop_actor(actor);
        self.shared.load(execution);
    }

    /// An actor panicked. A linear search: crashes are rare, and a second map would cost every idle prospect memory.
    pub(super) fn crashed(&mut self, actor: ractor::ActorId, error: &str) {
        let found = self.entries.iter_mut().find(|(_, e)| e.actor.as_ref().is_some_and(|a| a.get_id() == actor));
        let Some((&execution, entry)) = found else { return };
        entry.actor = None;
        self.shared.residents.fetch_sub(1, Relaxed);
        self.dormant.remove(&execution);
        self.wheel.arm(execution, entry.wake.take(), None);
        entry.crashes = entry.crashes.saturating_add(1);
        metrics::counter!(telemetry::ACTOR_RESTARTS).increment(1);
        let trigger = entry.in_hand.as_ref().map_or("none", |i| i.errand.work.name());
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
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            shared.load(execution);
        });
    }
}
