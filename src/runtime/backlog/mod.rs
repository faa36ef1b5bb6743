//! What an account has to do: the executions that wait for room, the places given to those who decide, and the hints that
//! its channel has not looked at. Outlives the channel's actor, so that a crash of it loses neither lines nor hints.
//!
//! A due execution takes a place ([`Backlog::enter`]) before it decides a send. When there is none it waits in line, by its
//! campaign's priority and its due time; the channel lets the oldest in when its queue runs low ([`Backlog::settle`]). So a
//! restart with a million overdue executions makes a few sends an account, and each next one when one has left.
//!
//! An account has a line for each [`Slot`], each with its own room: those who are under way do not wait behind those who
//! have heard nothing yet, and no kind of action waits for another one's budget.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::shared::SendHint;
use crate::domain::id::{AccountId, ExecutionId};
use crate::domain::time::Timestamp;

mod slot;
#[cfg(test)]
mod tests;

pub(super) use slot::{Rank, Slot};

/// Sends of a line that are decided and can go now, in flight or being decided. Two portions: one is sent while the other is
/// read and decided.
pub(super) const BACKLOG_MAX: usize = 64;
/// The same of an account with a budget, which sends one a minute and not one in milliseconds: what is decided keeps its
/// place, so the fewer there are the sooner somebody goes who is more urgent.
pub(super) const BUDGETED_MAX: usize = 8;
/// The line moves up when this part of them is left. Of 64 it is enough to keep an account busy that sends one in 3 ms
/// (claim and outcome, each a commit) for the 100 ms that reading, deciding and committing a portion takes on a loaded
/// machine; and so a portion is large enough to be read and committed in one statement.
const LOW_PART: usize = 2;
/// Hints that are kept while the account has no channel. What is more than that is read from the table.
const HINTS_MAX: usize = 4096;

/// Rings for the channel to look at its backlog.
type Bell = Box<dyn Fn() + Send>;

/// See the module's text.
pub(super) struct Backlog {
    account: AccountId,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    lines: BTreeMap<Slot, Line>,
    hints: Vec<(Slot, SendHint)>,
    /// A hint was thrown away.
    overflowed: bool,
    load: Load,
    /// `None` while no channel lives.
    bell: Option<Bell>,
    /// The channel has not looked since the bell rang.
    rung: bool,
}

#[derive(Default)]
struct Line {
    /// Executions that are due and wait for room, by rank and due time: 32 B an entry.
    waiting: BTreeSet<(Rank, Timestamp, ExecutionId)>,
    /// Places that are taken.
    deciding: usize,
    /// Hints that the channel has not said yet what it has made of.
    hinted: usize,
    /// See [`Load::open`].
    open: usize,
}

/// What the channel has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// How many sends there may be in a line: [`BACKLOG_MAX`] or [`BUDGETED_MAX`].
    pub(super) room: usize,
    /// Sends that fill their line: those that can go now or as soon as the account may act. Not those that wait for
    /// something of their own (a window, a read back, a paused campaign): others pass them by. A line that is not named has
    /// none.
    pub(super) open: Vec<(Slot, usize)>,
    /// All sends it knows.
    pub(super) known: usize,
    /// The account is switched off: those in line choose another one.
    pub(super) off: bool,
}

impl Default for Load {
    fn default() -> Self {
        Self { room: BACKLOG_MAX, open: Vec::new(), known: 0, off: false }
    }
}

/// Room for one execution to decide a send. Given back when it is dropped, so a crash cannot keep it.
pub(super) struct Place(Arc<Backlog>, Slot);

impl Place {
    /// Whose backlog it is in, and in which line.
    pub(super) fn whose(&self) -> (AccountId, Slot) {
        (self.0.account, self.1)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.line(self.1).deciding -= 1;
        inner.ring_if_low(self.1);
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Place").field(&self.whose()).finish()
    }
}

impl Line {
    /// What counts against the bound. Of an account that is switched off only those who are deciding: its sends stay where
    /// they are.
    fn taken(&self, load: &Load) -> usize {
        if load.off { self.deciding } else { self.open + self.hinted + self.deciding }
    }

    /// Whether somebody waits and the line moves up.
    fn moves_up(&self, load: &Load) -> bool {
        !self.waiting.is_empty() && self.taken(load) <= load.room / LOW_PART
    }
}

impl Inner {
    fn line(&mut self, slot: Slot) -> &mut Line {
        self.lines.entry(slot).or_default()
    }

    fn ring(&mut self) {
        if !self.rung
            && let Some(bell) = &self.bell
        {
            bell();
            self.rung = true;
        }
    }

    fn ring_if_low(&mut self, slot: Slot) {
        if self.lines.get(&slot).is_some_and(|line| line.moves_up(&self.load)) {
            self.ring();
        }
    }
}

impl Backlog {
    pub(super) fn new(account: AccountId) -> Arc<Self> {
        Arc::new(Self { account, inner: Mutex::default() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room to decide a send now, if there is any and nobody waits for it. To be kept until the channel has been hinted at
    /// the send.
    pub(super) fn enter(self: &Arc<Self>, slot: Slot) -> Option<Place> {
        let mut inner = self.inner();
        let Inner { lines, load, .. } = &mut *inner;
        let line = lines.entry(slot).or_default();
        if !line.waiting.is_empty() || line.taken(load) >= load.room {
            return None;
        }
        line.deciding += 1;
        Some(Place(Arc::clone(self), slot))
    }

    /// A due execution waits until there is room; a second time changes nothing.
    pub(super) fn line_up(&self, slot: Slot, rank: Rank, due: Timestamp, execution: ExecutionId) {
        let mut inner = self.inner();
        inner.line(slot).waiting.insert((rank, due, execution));
        inner.ring_if_low(slot);
    }

    /// A send may be waiting. Kept until the channel takes it.
    pub(super) fn hint(&self, slot: Slot, hint: SendHint) {
        let mut inner = self.inner();
        if inner.bell.is_none() && inner.hints.len() >= HINTS_MAX {
            inner.overflowed = true;
            return;
        }
        inner.hints.push((slot, hint));
        inner.line(slot).hinted += 1;
        inner.ring();
    }

    /// A channel has started: `bell` tells it to look. Answers whether hints were thrown away, so that the table has to be
    /// read.
    pub(super) fn attach(&self, bell: Bell) -> bool {
        let mut inner = self.inner();
        inner.bell = Some(bell);
        inner.rung = false;
        std::mem::take(&mut inner.overflowed)
    }

    /// The channel has ended.
    pub(super) fn detach(&self) {
        self.inner().bell = None;
    }

    /// For the channel: the hints since the last time.
    pub(super) fn take_hints(&self) -> Vec<(Slot, SendHint)> {
        let mut inner = self.inner();
        inner.rung = false;
        std::mem::take(&mut inner.hints)
    }

    /// For the channel: says what it has, with the hints that it took, and answers who may decide now, oldest first, each
    /// with its place.
    pub(super) fn settle(self: &Arc<Self>, load: Load) -> Vec<(ExecutionId, Place)> {
        let mut inner = self.inner();
        let Inner { lines, hints, load: known, .. } = &mut *inner;
        for line in lines.values_mut() {
            (line.open, line.hinted) = (0, 0);
        }
        for (slot, open) in &load.open {
            lines.entry(*slot).or_default().open = *open;
        }
        // What came in since it took the others.
        for (slot, _) in &*hints {
            lines.entry(*slot).or_default().hinted += 1;
        }
        let mut granted = Vec::new();
        for (slot, line) in lines.iter_mut() {
            if line.moves_up(&load) {
                let room = load.room.saturating_sub(line.taken(&load));
                let ahead: Vec<_> = (0..room).map_while(|_| line.waiting.pop_first()).collect();
                line.deciding += ahead.len();
                granted.extend(ahead.into_iter().map(|(.., execution)| (execution, Place(Arc::clone(self), *slot))));
            }
        }
        *known = load;
        granted
    }

    /// Executions in line and sends that the channel knows, for the gauges.
    pub(super) fn lengths(&self) -> (usize, usize) {
        let inner = self.inner();
        let waiting = inner.lines.values().map(|line| line.waiting.len()).sum();
        (waiting, inner.load.known + inner.hints.len())
    }
}
