//! What an account has to do: the executions that wait for room, the places given to those who decide, and the hints that
//! its channel has not looked at. Outlives the channel's actor, so that a crash of it loses neither line nor hints.
//!
//! A due execution takes a place ([`Backlog::enter`]) before it decides a send. When there is none it waits in line, by its
//! due time; the channel lets the oldest in when its queue runs low ([`Backlog::settle`]). So a restart with a million
//! overdue executions makes a few sends an account, and each next one when one has left.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::shared::SendHint;
use crate::domain::id::{AccountId, ExecutionId};
use crate::domain::time::Timestamp;

/// Sends of an account that are decided and can go now, in flight or being decided. Two portions: one is sent while the
/// other is read and decided.
pub(super) const BACKLOG_MAX: usize = 64;
/// The line moves up when this few are left: enough to keep an account busy that sends one in 3 ms (claim and outcome, each
/// a commit) for the 100 ms that reading, deciding and committing a portion takes on a loaded machine; and so a portion is
/// large enough to be read and committed in one statement.
const LOW_MARK: usize = 32;
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
    /// Executions that are due and wait for room: 24 B an entry.
    line: BTreeSet<(Timestamp, ExecutionId)>,
    /// Places that are taken.
    deciding: usize,
    hints: Vec<SendHint>,
    /// A hint was thrown away.
    overflowed: bool,
    load: Load,
    /// `None` while no channel lives.
    bell: Option<Bell>,
    /// The channel has not looked since the bell rang.
    rung: bool,
}

/// What the channel has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Sends that fill the backlog: those that can go now or as soon as the account may act. Not those that wait for
    /// something of their own (a window, a read back, a paused campaign): others pass them by.
    pub(super) open: usize,
    /// All sends it knows.
    pub(super) known: usize,
    /// The account is switched off: those in line choose another one.
    pub(super) off: bool,
}

/// Room for one execution to decide a send. Given back when it is dropped, so a crash cannot keep it.
pub(super) struct Place(Arc<Backlog>);

impl Place {
    /// Whose backlog it is in.
    pub(super) fn account(&self) -> AccountId {
        self.0.account
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.deciding -= 1;
        inner.ring_if_low();
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Place").field(&self.0.account).finish()
    }
}

impl Inner {
    /// What counts against the bound. Of an account that is switched off only those who are deciding: its sends stay where
    /// they are.
    fn taken(&self) -> usize {
        if self.load.off { self.deciding } else { self.load.open + self.hints.len() + self.deciding }
    }

    fn ring(&mut self) {
        if !self.rung
            && let Some(bell) = &self.bell
        {
            bell();
            self.rung = true;
        }
    }

    fn ring_if_low(&mut self) {
        if !self.line.is_empty() && self.taken() <= LOW_MARK {
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
    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut inner = self.inner();
        if !inner.line.is_empty() || inner.taken() >= BACKLOG_MAX {
            return None;
        }
        inner.deciding += 1;
        Some(Place(Arc::clone(self)))
    }

    /// A due execution waits until there is room; a second time changes nothing.
    pub(super) fn line_up(&self, due: Timestamp, execution: ExecutionId) {
        let mut inner = self.inner();
        inner.line.insert((due, execution));
        inner.ring_if_low();
    }

    /// A send may be waiting. Kept until the channel takes it.
    pub(super) fn hint(&self, hint: SendHint) {
        let mut inner = self.inner();
        if inner.bell.is_none() && inner.hints.len() >= HINTS_MAX {
            inner.overflowed = true;
            return;
        }
        inner.hints.push(hint);
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
    pub(super) fn take_hints(&self) -> Vec<SendHint> {
        let mut inner = self.inner();
        inner.rung = false;
        // Until the channel says what it has made of them.
        inner.load.open += inner.hints.len();
        std::mem::take(&mut inner.hints)
    }

    /// For the channel: says what it has, and answers who may decide now, oldest first, each with its place.
    pub(super) fn settle(self: &Arc<Self>, load: Load) -> Vec<(ExecutionId, Place)> {
        let mut inner = self.inner();
        inner.load = load;
        if inner.line.is_empty() || inner.taken() > LOW_MARK {
            return Vec::new();
        }
        let room = BACKLOG_MAX - inner.taken();
        let granted: Vec<_> = (0..room).map_while(|_| inner.line.pop_first()).collect();
        inner.deciding += granted.len();
        granted.into_iter().map(|(_, execution)| (execution, Place(Arc::clone(self)))).collect()
    }

    /// Executions in line and sends that the channel knows, for the gauges.
    pub(super) fn lengths(&self) -> (usize, usize) {
        let inner = self.inner();
        (inner.line.len(), inner.load.known + inner.hints.len())
    }
}

