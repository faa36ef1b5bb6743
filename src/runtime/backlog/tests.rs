//! What a backlog promises.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::id::{SendId, WorkspaceId};
use crate::domain::send::Action;

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
    let backlog = Backlog::new(AccountId(Uuid::from_u128(7)));
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

const IDLE: Load = Load { room: BACKLOG_MAX, open: Vec::new(), known: 0, off: false };

/// The line that most tests are about.
fn invite() -> Slot {
    Slot::of_open(Action::SendLinkedinCr, 1, None)
}

fn load(open: usize, known: usize) -> Load {
    Load { open: vec![(invite(), open)], known, ..IDLE }
}

#[test]
fn there_is_room_for_a_bounded_number_and_the_others_line_up_by_their_due_time() {
    let (backlog, rung) = backlog();
    let mut inside: Vec<Place> = (0..BACKLOG_MAX).map(|_| backlog.enter(invite()).unwrap()).collect();
    assert!(backlog.enter(invite()).is_none());
    for n in [3, 1, 2, 1] {
        backlog.line_up(invite(), Rank::default(), due(n), execution(n.unsigned_abs().into()));
    }
    assert_eq!(backlog.lengths(), (3, 0));
    // Somebody leaves: nobody overtakes those in line, who are let in when the backlog is low.
    inside.pop();
    assert!(backlog.enter(invite()).is_none());
    assert!(backlog.settle(IDLE).is_empty());
    assert_eq!(rung.load(SeqCst), 0);
    inside.truncate(BACKLOG_MAX / LOW_PART);
    assert_eq!(rung.load(SeqCst), 1);
    let granted = backlog.settle(IDLE);
    assert_eq!(ids(&granted), [execution(1), execution(2), execution(3)]);
    drop(granted);
    assert!(backlog.enter(invite()).is_some());
}

#[test]
fn a_campaign_of_higher_priority_stands_ahead_of_what_has_been_due_for_longer() {
    let (backlog, _) = backlog();
    for (n, priority) in [(1, 0), (2, 5), (3, -5), (4, 5)] {
        backlog.line_up(invite(), Rank::of_priority(priority), due(n), execution(n.unsigned_abs().into()));
    }
    assert_eq!(ids(&backlog.settle(IDLE)), [execution(2), execution(4), execution(1), execution(3)]);
}

#[test]
fn an_account_with_a_budget_has_less_room() {
    let (backlog, _) = backlog();
    let budgeted = Load { room: BUDGETED_MAX, ..IDLE };
    backlog.settle(budgeted.clone());
    let inside: Vec<Place> = std::iter::from_fn(|| backlog.enter(invite())).collect();
    assert_eq!(inside.len(), BUDGETED_MAX);
    backlog.line_up(invite(), Rank::default(), due(1), execution(1));
    assert!(backlog.settle(budgeted).is_empty());
}

#[test]
fn no_line_takes_the_room_of_another_and_those_under_way_are_let_in_first() {
    let (backlog, _) = backlog();
    let visit = Slot::of_open(Action::VisitLinkedinProfile, 1, None);
    let follow_up = Slot::of_open(Action::SendLinkedinMessage, 2, None);
    let full: Vec<Place> = std::iter::from_fn(|| backlog.enter(invite())).collect();
    assert_eq!(full.len(), BACKLOG_MAX);
    assert!(backlog.enter(visit).is_some() && backlog.enter(follow_up).is_some());
    drop(full);
    // Both are full of what waits for a budget, and only one of them empties.
    let both = Load { open: vec![(invite(), BACKLOG_MAX), (visit, BACKLOG_MAX)], ..IDLE };
    backlog.settle(both);
    for (n, slot) in [(1, invite()), (2, visit), (3, follow_up)] {
        backlog.line_up(slot, Rank::default(), due(n), execution(n.unsigned_abs().into()));
    }
    assert_eq!(ids(&backlog.settle(load(BACKLOG_MAX, 64))), [execution(3), execution(2)]);
}

#[test]
fn a_hint_takes_up_room_from_the_moment_it_is_given() {
    let (backlog, _) = backlog();
    for n in 0..BACKLOG_MAX {
        let place = backlog.enter(invite()).unwrap();
        backlog.hint(invite(), send(n as u128));
        drop(place);
    }
    assert!(backlog.enter(invite()).is_none());
    assert_eq!(backlog.take_hints().len(), BACKLOG_MAX);
    assert!(backlog.enter(invite()).is_none(), "taken, and not yet said what was made of them");
    backlog.settle(load(BACKLOG_MAX - 1, 70));
    assert!(backlog.enter(invite()).is_some());
}

#[test]
fn the_line_and_the_hints_survive_the_channel_and_too_many_hints_are_said_to_be_lost() {
    let (backlog, rung) = backlog();
    backlog.detach();
    backlog.line_up(invite(), Rank::default(), due(1), execution(1));
    for n in 0..=HINTS_MAX {
        backlog.hint(invite(), send(n as u128));
    }
    assert!(attach(&backlog, &rung), "one was thrown away");
    assert_eq!(backlog.take_hints().len(), HINTS_MAX);
    assert_eq!(ids(&backlog.settle(IDLE)), [execution(1)]);
    assert!(!attach(&backlog, &rung), "said once");
}

#[test]
fn an_account_that_is_switched_off_lets_its_whole_line_go_in_portions_whatever_it_has() {
    let (backlog, rung) = backlog();
    let stuck = || load(BACKLOG_MAX, BACKLOG_MAX);
    assert!(backlog.settle(stuck()).is_empty());
    for n in 0..1000 {
        backlog.line_up(invite(), Rank::default(), due(n), execution(n.unsigned_abs().into()));
    }
    assert!(backlog.settle(stuck()).is_empty());
    let mut left = Vec::new();
    loop {
        let granted = backlog.settle(Load { off: true, ..stuck() });
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
        match self.backlog.enter(invite()) {
            Some(place) => {
                assert!(self.line.is_empty(), "it overtook those in line");
                self.inside.push((who, place));
            }
            None => {
                self.backlog.line_up(invite(), Rank::default(), who.0, who.1);
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
            self.backlog.hint(invite(), send(who.1.0.as_u128()));
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
        for (id, place) in self.backlog.settle(load(self.queue, self.queue)) {
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
