//! What takes up room at an account: its sends, each in the line of its slot.

use std::collections::BTreeMap;

use super::{Job, Timed};
use crate::domain::id::SendId;
use crate::domain::time::Timestamp;
use crate::runtime::backlog::Slot;

/// The lines that have something, in the order in which they go: as long as one lane has something that may run, the next
/// waits; in a lane whoever may run for longest goes first.
#[derive(Default)]
pub(super) struct Lines(BTreeMap<Slot, Line>);

#[derive(Default)]
struct Line {
    /// What may run now, by the time since when it may.
    ready: Timed,
    /// What waits for the account's budget.
    scarce: Timed,
    /// Held back by the account.
    stuck: Vec<Job>,
}

impl Line {
    fn len(&self) -> usize {
        self.ready.len() + self.scarce.len() + self.stuck.len()
    }
}

/// Takes a send out of those that wait for a time.
pub(super) fn take(waiting: &mut Timed, send: SendId) -> Option<Job> {
    let key = *waiting.iter().find(|(_, job)| job.hint.1 == send)?.0;
    waiting.remove(&key)
}

impl Lines {
    fn of(&mut self, job: &Job) -> &mut Line {
        self.0.entry(job.slot).or_default()
    }

    /// It may run.
    pub(super) fn ready(&mut self, key: (Timestamp, u64), job: Job) {
        self.of(&job).ready.insert(key, job);
    }

    /// It waits for the account's budget.
    pub(super) fn scarce(&mut self, key: (Timestamp, u64), job: Job) {
        self.of(&job).scarce.insert(key, job);
    }

    /// The account holds it back.
    pub(super) fn stuck(&mut self, job: Job) {
        self.of(&job).stuck.push(job);
    }

    /// Those that waited for the budget until now may run.
    pub(super) fn ripen(&mut self, now: Timestamp) {
        for line in self.0.values_mut() {
            while let Some(next) = line.scarce.first_entry().filter(|next| next.key().0 <= now) {
                let (key, job) = next.remove_entry();
                line.ready.insert(key, job);
            }
        }
    }

    /// The one that goes next.
    pub(super) fn pop(&mut self) -> Option<Job> {
        let ready = self.0.iter().filter_map(|(slot, line)| Some((slot.lane, line.ready.first_key_value()?.0, *slot)));
        let (_, key, slot) = ready.min().map(|(lane, key, slot)| (lane, *key, slot))?;
        self.0.get_mut(&slot)?.ready.remove(&key)
    }

    /// Whether something may run.
    pub(super) fn is_ready(&self) -> bool {
        self.0.values().any(|line| !line.ready.is_empty())
    }

    /// When the budget has room again, as far as it is waited for.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.0.values().filter_map(|line| Some(line.scarce.first_key_value()?.0.0)).min()
    }

    /// Takes a send out that waits for the budget.
    pub(super) fn take_scarce(&mut self, send: SendId) -> Option<Job> {
        self.0.values_mut().find_map(|line| take(&mut line.scarce, send))
    }

    /// Takes a send out, whatever it waits for.
    pub(super) fn take(&mut self, send: SendId) -> Option<Job> {
        self.0.values_mut().find_map(|line| {
            let stuck = line.stuck.iter().position(|job| job.hint.1 == send);
            stuck
                .map(|at| line.stuck.remove(at))
                .or_else(|| take(&mut line.ready, send))
                .or_else(|| take(&mut line.scarce, send))
        })
    }

    /// Takes out what waits for the account or for its budget.
    pub(super) fn release(&mut self) -> Vec<Job> {
        let mut jobs = Vec::new();
        for line in self.0.values_mut() {
            jobs.append(&mut line.stuck);
            jobs.extend(std::mem::take(&mut line.scarce).into_values());
        }
        jobs
    }

    /// How many each line has. `in_flight`: the line of the one that is being sent.
    pub(super) fn open(&mut self, in_flight: Option<Slot>) -> Vec<(Slot, usize)> {
        self.0.retain(|slot, line| line.len() > 0 || Some(*slot) == in_flight);
        if let Some(slot) = in_flight {
            self.0.entry(slot).or_default();
        }
        self.0.iter().map(|(slot, line)| (*slot, line.len() + usize::from(Some(*slot) == in_flight))).collect()
    }
}
