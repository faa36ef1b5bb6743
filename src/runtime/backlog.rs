//! What an account has to do: the executions that wait for room, the places given to those who decide, and the hints that
//! its channel has not looked at. Outlives the channel's actor, so that a crash of it loses neither line nor hints.
//!
//! A due execution takes a place ([`Backlog::enter`]) before it decides a send. When there is none it waits in line, by its
//! campaign's priority and its due time; the channel lets the oldest in when its queue runs low ([`Backlog::settle`]). So a restart with a million
//! overdue executions makes a few sends an account, and each next one when one has left.
//!
//! An account has one for each [`Lane`]: those who are under way do not wait behind those who have heard nothing yet.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::shared::SendHint;
use crate::domain::execution::Execution;
use crate::domain::id::{AccountId, ExecutionId};
use crate::domain::time::Timestamp;

/// Sends of an account that are decided and can go now, in flight or being decided. Two portions: one is sent while the
/// other is read and decided.
pub(super) const BACKLOG_MAX: usize = 64;
/// The same of an account with a budget, which sends one a minute and not one in milliseconds: what is decided keeps its
/// place, so the fewer there are the sooner somebody goes who is more urgent.
pub(super) const BUDGETED_MAX: usize = 8;
/// The line moves up when this part of them is left. Of 64 it is enough to keep an account busy that sends one in 3 ms (claim and outcome, each
/// a commit) for the 100 ms that reading, deciding and committing a portion takes on a loaded machine; and so a portion is
/// large enough to be read and committed in one statement.
const LOW_PART: usize = 2;
/// Hints that are kept while the account has no channel. What is more than that is read from the table.
const HINTS_MAX: usize = 4096;

/// How far back in line: a higher priority of the campaign stands further ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(Reverse<i32>);

impl Rank {
    /// Of a campaign with this priority.
    pub(super) const fn of_priority(priority: i32) -> Self {
        Self(Reverse(priority))
    }
}

/// The two lines of an account, first the one that goes first. Neither takes the other's room: a thousand invitations that
/// wait for tomorrow's budget do not keep a follow-up waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Lane {
    /// Something was done for this person already.
    FollowUp,
    /// The first thing that is done for this person.
    First,
}

impl Lane {
    /// Both, in their order.
    pub(super) const ALL: [Self; 2] = [Self::FollowUp, Self::First];

    /// Of the send that an execution decides, or has decided and waits for.
    pub(super) const fn of(execution: &Execution) -> Self {
        if execution.last_executed_at.is_none() { Self::First } else { Self::FollowUp }
    }

    /// Of an open send of which no more is known than its step.
    pub(super) const fn of_step(step: u32) -> Self {
        if step <= 1 { Self::First } else { Self::FollowUp }
    }
}

/// Rings for the channel to look at its backlog.
type Bell = Box<dyn Fn() + Send>;

/// See the module's text.
pub(super) struct Backlog {
    account: AccountId,
    lane: Lane,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Executions that are due and wait for room, by rank and due time: 32 B an entry.
    line: BTreeSet<(Rank, Timestamp, ExecutionId)>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// How many there may be: [`BACKLOG_MAX`] or [`BUDGETED_MAX`].
    pub(super) room: usize,
    /// Sends that fill the backlog: those that can go now or as soon as the account may act. Not those that wait for
    /// something of their own (a window, a read back, a paused campaign): others pass them by.
    pub(super) open: usize,
    /// All sends it knows.
    pub(super) known: usize,
    /// The account is switched off: those in line choose another one.
    pub(super) off: bool,
}

impl Default for Load {
    fn default() -> Self {
        Self { room: BACKLOG_MAX, open: 0, known: 0, off: false }
    }
}

/// Room for one execution to decide a send. Given back when it is dropped, so a crash cannot keep it.
pub(super) struct Place(Arc<Backlog>);

impl Place {
    /// Whose backlog it is in, and in which line.
    pub(super) fn whose(&self) -> (AccountId, Lane) {
        (self.0.account, self.0.lane)
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
        f.debug_tuple("Place").field(&self.whose()).finish()
    }
}

impl Inner {
    /// What counts against the bound. Of an account that is switched off only those who are deciding: its sends stay where
    /// they are.
    fn taken(&self) -> usize {
        if self.load.off { self.deciding } else { self.load.open + self.hints.len() + self.deciding }
    }

    /// Whether the line moves up.
    fn is_low(&self) -> bool {
        self.taken() <= self.load.room / LOW_PART
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
        if !self.line.is_empty() && self.is_low() {
            self.ring();
        }
    }
}

impl Backlog {
    pub(super) fn new(account: AccountId, lane: Lane) -> Arc<Self> {
        Arc::new(Self { account, lane, inner: Mutex::default() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room to decide a send now, if there is any and nobody waits for it. To be kept until the channel has been hinted at
    /// the send.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut inner = self.inner();
        if !inner.line.is_empty() || inner.taken() >= inner.load.room {
            return None;
        }
        inner.deciding += 1;
        Some(Place(Arc::clone(self)))
    }

    /// A due execution waits until there is room; a second time changes nothing.
    pub(super) fn line_up(&self, rank: Rank, due: Timestamp, execution: ExecutionId) {
        let mut inner = self.inner();
        inner.line.insert((rank, due, execution));
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
        if inner.line.is_empty() || !inner.is_low() {
            return Vec::new();
        }
        let room = inner.load.room.saturating_sub(inner.taken());
        let granted: Vec<_> = (0..room).map_while(|_| inner.line.pop_first()).collect();
        inner.deciding += granted.len();
        granted.into_iter().map(|(_, _, execution)| (execution, Place(Arc::clone(self)))).collect()
    }

    /// Executions in line and sends that the channel knows, for the gauges.
    pub(super) fn lengths(&self) -> (usize, usize) {
        let inner = self.inner();
        (inner.line.len(), inner.load.known + inner.hints.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::id::{SendId, WorkspaceId};

    fn execution(n: u128) -> ExecutionId {
        ExecutionId(Uuid::from_u128(n))
    }

    fn due(n: i64) -> Timestamp {
        Timestamp::from_micros(n)
    }

    fn send(n: u128) -> SendHint {
        (WorkspaceId(Uuid::nil()), SendId(Uuid::from_u128(n)))
    }

    /// A backlog whose bell is counted.
    fn backlog() -> (Arc<Backlog>, Arc<AtomicUsize>) {
        let backlog = Backlog::new(AccountId(Uuid::from_u128(7)), Lane::First);
        let rung = Arc::new(AtomicUsize::new(0));
        assert!(!attach(&backlog, &rung));
        (backlog, rung)
    }

    fn attach(backlog: &Backlog, rung: &Arc<AtomicUsize>) -> bool {
        let rung = Arc::clone(rung);
        backlog.attach(Box::new(move || {
            rung.fetch_add(1, SeqCst);
        }))
    }

    fn ids(granted: &[(ExecutionId, Place)]) -> Vec<ExecutionId> {
        granted.iter().map(|(id, _)| *id).collect()
    }

    const IDLE: Load = Load { room: BACKLOG_MAX, open: 0, known: 0, off: false };

    #[test]
    fn there_is_room_for_a_bounded_number_and_the_others_line_up_by_their_due_time() {
        let (backlog, rung) = backlog();
        let mut inside: Vec<Place> = (0..BACKLOG_MAX).map(|_| backlog.enter().unwrap()).collect();
        assert!(backlog.enter().is_none());
        for n in [3, 1, 2, 1] {
            backlog.line_up(Rank::default(), due(n), execution(n.unsigned_abs().into()));
        }
        assert_eq!(backlog.lengths(), (3, 0));
        // Somebody leaves: nobody overtakes those in line, who are let in when the backlog is low.
        inside.pop();
        assert!(backlog.enter().is_none());
        assert!(backlog.settle(IDLE).is_empty());
        assert_eq!(rung.load(SeqCst), 0);
        inside.truncate(BACKLOG_MAX / LOW_PART);
        assert_eq!(rung.load(SeqCst), 1);
        let granted = backlog.settle(IDLE);
        assert_eq!(ids(&granted), [execution(1), execution(2), execution(3)]);
        drop(granted);
        assert!(backlog.enter().is_some());
    }

    #[test]
    fn a_campaign_of_higher_priority_stands_ahead_of_what_has_been_due_for_longer() {
        let (backlog, _) = backlog();
        for (n, priority) in [(1, 0), (2, 5), (3, -5), (4, 5)] {
            backlog.line_up(Rank::of_priority(priority), due(n), execution(n.unsigned_abs().into()));
        }
        assert_eq!(ids(&backlog.settle(IDLE)), [execution(2), execution(4), execution(1), execution(3)]);
    }

    #[test]
    fn an_account_with_a_budget_has_less_room() {
        let (backlog, _) = backlog();
        let budgeted = Load { room: BUDGETED_MAX, ..IDLE };
        backlog.settle(budgeted);
        let inside: Vec<Place> = std::iter::from_fn(|| backlog.enter()).collect();
        assert_eq!(inside.len(), BUDGETED_MAX);
        backlog.line_up(Rank::default(), due(1), execution(1));
        assert!(backlog.settle(budgeted).is_empty());
    }

    #[test]
    fn a_hint_takes_up_room_from_the_moment_it_is_given() {
        let (backlog, _) = backlog();
        for n in 0..BACKLOG_MAX {
            let place = backlog.enter().unwrap();
            backlog.hint(send(n as u128));
            drop(place);
        }
        assert!(backlog.enter().is_none());
        assert_eq!(backlog.take_hints().len(), BACKLOG_MAX);
        assert!(backlog.enter().is_none(), "taken, and not yet said what was made of them");
        backlog.settle(Load { open: BACKLOG_MAX - 1, known: 70, ..IDLE });
        assert!(backlog.enter().is_some());
    }

    #[test]
    fn the_line_and_the_hints_survive_the_channel_and_too_many_hints_are_said_to_be_lost() {
        let (backlog, rung) = backlog();
        backlog.detach();
        backlog.line_up(Rank::default(), due(1), execution(1));
        for n in 0..=HINTS_MAX {
            backlog.hint(send(n as u128));
        }
        assert!(attach(&backlog, &rung), "one was thrown away");
        assert_eq!(backlog.take_hints().len(), HINTS_MAX);
        assert_eq!(ids(&backlog.settle(IDLE)), [execution(1)]);
        assert!(!attach(&backlog, &rung), "said once");
    }

    #[test]
    fn an_account_that_is_switched_off_lets_its_whole_line_go_in_portions_whatever_it_has() {
        let (backlog, rung) = backlog();
        let stuck = Load { open: BACKLOG_MAX, known: BACKLOG_MAX, ..IDLE };
        assert!(backlog.settle(stuck).is_empty());
        for n in 0..1000 {
            backlog.line_up(Rank::default(), due(n), execution(n.unsigned_abs().into()));
        }
        assert!(backlog.settle(stuck).is_empty());
        let mut left = Vec::new();
        loop {
            let granted = backlog.settle(Load { off: true, ..stuck });
            if granted.is_empty() {
                break;
            }
            assert!(granted.len() <= BACKLOG_MAX);
            left.extend(ids(&granted));
            backlog.take_hints();
            let before = rung.load(SeqCst);
            drop(granted);
            assert!(backlog.lengths().0 == 0 || rung.load(SeqCst) > before, "the next portion is asked for");
        }
        assert_eq!(left, (0..1000).map(execution).collect::<Vec<_>>());
    }

    /// What can happen to a backlog, in any order.
    #[derive(Clone, Debug)]
    enum Event {
        /// An execution is due.
        Due(u16),
        /// One of those with a place decides; `false`: it crashes instead, or decides nothing, and is due again.
        Decides(usize, bool),
        /// The channel looks, if it was told to, having sent some.
        Channel(usize),
        /// The channel crashes, and another one takes over what the table says.
        Crash,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => any::<u16>().prop_map(Event::Due),
            4 => (any::<usize>(), prop::bool::weighted(0.9)).prop_map(|(n, sends)| Event::Decides(n, sends)),
            2 => (0..8_usize).prop_map(Event::Channel),
            1 => Just(Event::Crash),
        ]
    }

    /// The world around a backlog: who is inside, what the channel has, and who is in line as it should be.
    struct World {
        backlog: Arc<Backlog>,
        rung: Arc<AtomicUsize>,
        looked: usize,
        inside: Vec<((Timestamp, ExecutionId), Place)>,
        line: BTreeSet<(Timestamp, ExecutionId)>,
        hinted: usize,
        queue: usize,
        sent: usize,
    }

    impl World {
        fn due(&mut self, who: (Timestamp, ExecutionId)) {
            match self.backlog.enter() {
                Some(place) => {
                    assert!(self.line.is_empty(), "it overtook those in line");
                    self.inside.push((who, place));
                }
                None => {
                    self.backlog.line_up(Rank::default(), who.0, who.1);
                    self.line.insert(who);
                }
            }
        }

        fn decides(&mut self, n: usize, sends: bool) {
            if self.inside.is_empty() {
                return;
            }
            let (who, place) = self.inside.swap_remove(n % self.inside.len());
            if sends {
                self.backlog.hint(send(who.1.0.as_u128()));
                self.hinted += 1;
            }
            drop(place);
            if !sends {
                self.due(who);
            }
        }

        /// Whether the channel has a reason to run: something of its own, or the bell.
        fn is_awake(&self) -> bool {
            self.queue > 0 || self.rung.load(SeqCst) > self.looked
        }

        fn channel(&mut self, sends: usize) {
            if !self.is_awake() {
                return;
            }
            self.looked = self.rung.load(SeqCst);
            let hints = self.backlog.take_hints().len();
            assert_eq!(hints, std::mem::take(&mut self.hinted));
            self.queue += hints;
            let sends = sends.min(self.queue);
            self.queue -= sends;
            self.sent += sends;
            for (id, place) in self.backlog.settle(Load { open: self.queue, known: self.queue, ..IDLE }) {
                let oldest = self.line.pop_first().unwrap();
                assert_eq!(oldest.1, id, "not the oldest");
                self.inside.push((oldest, place));
            }
        }

        fn crash(&mut self) {
            self.backlog.detach();
            attach(&self.backlog, &self.rung);
            // A channel looks when it starts.
            self.looked = 0;
            self.rung.fetch_add(1, SeqCst);
        }

        fn assert_bounded(&self) {
            let open = self.inside.len() + self.hinted + self.queue;
            assert!(open <= BACKLOG_MAX, "{open}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn whatever_happens_the_bound_holds_the_oldest_go_first_and_nobody_is_forgotten(
            events in prop::collection::vec(event(), 1..400)
        ) {
            let (backlog, rung) = backlog();
            let mut world = World {
                backlog, rung, looked: 0, inside: Vec::new(), line: BTreeSet::new(), hinted: 0, queue: 0, sent: 0,
            };
            let mut all = 0;
            for event in events {
                match event {
                    Event::Due(at) => {
                        all += 1;
                        world.due((due(at.into()), execution(all)));
                    }
                    Event::Decides(n, sends) => world.decides(n, sends),
                    Event::Channel(sends) => world.channel(sends),
                    Event::Crash => world.crash(),
                }
                world.assert_bounded();
            }
            // Left alone, and woken by the bell only, everything is sent.
            while world.is_awake() || !world.inside.is_empty() {
                world.decides(0, true);
                world.channel(1);
                world.assert_bounded();
            }
            prop_assert_eq!(world.sent as u128, all);
            prop_assert_eq!(world.backlog.lengths().0, 0);
        }
    }
}
