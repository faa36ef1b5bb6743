//! Time in a shard: two wheels, one for the live and one for the parked, and one sleeper for both.

use super::*;

/// Wait before the wheels are looked at again when too many firings are in flight.
const PRESSURE_WAIT: Duration = Duration::from_millis(50);

impl Shard {
    /// Wakes an execution by time, unless it has something in hand: then its report arms the wheel anew. One that is
    /// parked is read first.
    pub(super) fn wake(&mut self, execution: ExecutionId, permit: Option<OwnedSemaphorePermit>) {
        self.activate(execution);
        let Some(entry) = self.entries.get_mut(&execution) else { return };
        if entry.has_work() {
            return;
        }
        self.busy += 1;
        entry.queue().push_back(Inbound { permit, ..Inbound::new(Work::Wake) });
        self.hand_out(execution);
    }

    /// What was held back is due now; the wheels let it go as fast as timers may fire.
    pub(super) fn release(&mut self) {
        let now = self.shared.clock.now();
        for execution in std::mem::take(&mut self.held) {
            match self.entries.get_mut(&execution) {
                Some(entry) => {
                    self.dormant.remove(&execution);
                    self.wheel.arm(execution, entry.wake, Some(now));
                    entry.wake = Some(now);
                }
                None => self.asleep.arm(execution, None, Some(now)),
            }
        }
    }

    /// Fires what is due, oldest first, and sleeps until the next entry.
    pub(super) fn turn_wheels(&mut self, myself: &ActorRef<ShardMessage>) {
        if self.shared.is_draining() {
            return;
        }
        let now = self.shared.clock.now();
        let mut pressed = false;
        while self.next_wake().is_some_and(|at| at <= now) {
            let Ok(permit) = Arc::clone(&self.shared.timers).try_acquire_owned() else {
                pressed = true;
                break;
            };
            let Some((due, execution)) = self.pop_due(now) else { break };
            if let Some(entry) = self.entries.get_mut(&execution) {
                entry.wake = None;
            }
            self.shared.lateness.record(self.shared.clock.real(now.since(due)).as_secs_f64());
            self.wake(execution, Some(permit));
        }
        let Some(next) = self.next_wake() else { return };
        if self.armed.as_ref().is_some_and(|(at, _)| *at <= next && !pressed) {
            return;
        }
        if let Some((_, sleeper)) = self.armed.take() {
            sleeper.abort();
        }
        let (clock, myself) = (self.shared.clock.clone(), myself.clone());
        let sleeper = tokio::spawn(async move {
            if pressed {
                tokio::time::sleep(PRESSURE_WAIT).await;
            } else {
                clock.sleep_until(next).await;
            }
            let _ = myself.cast(ShardMessage::Tick);
        });
        self.armed = Some((next, sleeper.abort_handle()));
    }

    fn next_wake(&self) -> Option<Timestamp> {
        match (self.wheel.next(), self.asleep.next()) {
            (Some(live), Some(parked)) => Some(live.min(parked)),
            (live, parked) => live.or(parked),
        }
    }

    fn pop_due(&mut self, now: Timestamp) -> Option<(Timestamp, ExecutionId)> {
        if self.asleep.next() == self.next_wake() { self.asleep.pop_due(now) } else { self.wheel.pop_due(now) }
    }
}
