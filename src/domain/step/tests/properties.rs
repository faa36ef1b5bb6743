//! Properties of random runs: a random flow, a world that takes sends from pending to their outcome, and triggers that come
//! in any order, late, twice and from operators. And of arbitrary rows, which nothing but a hand could have written.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::Config;

use super::*;

fn config() -> Config {
    // A failure is shrunk and then becomes a named test; no file of seeds is kept.
    // `PROPTEST_CASES` can ask for more.
    let default = Config::default();
    Config { cases: default.cases.max(4_000), failure_persistence: None, ..default }
}

// ---- what is generated -----------------------------------------------------------------------------------------------

fn delays() -> impl Strategy<Value = Duration> {
    select(vec![Duration::ZERO, HOUR / 60, HOUR, 48 * HOUR])
}

/// A wait as a parsed flow can hold it: `Goto` leads forward.
fn waits(position: u32, steps: u32) -> impl Strategy<Value = Option<WaitFor>> {
    let wait = (select(WaitTrigger::ALL), delays(), 1..8_u32, 0..8_u32, position + 1..steps + 2).prop_map(
        move |(trigger, timeout, max_checks, timeout_kind, to)| WaitFor {
            trigger,
            timeout,
            check_every: HOUR,
            max_checks,
            on_timeout: match timeout_kind {
                0 => OnTimeout::Complete,
                1 => OnTimeout::Fail,
                2 | 3 if to <= steps => OnTimeout::Goto(to),
                _ => OnTimeout::Continue,
            },
        },
    );
    prop::option::weighted(0.4, wait)
}

fn steps(position: u32, of: u32) -> impl Strategy<Value = Step> {
    (select(Action::ALL), delays(), waits(position, of), prop::bool::weighted(0.2)).prop_map(
        move |(action, delay, wait_for, connected)| {
            let mut step = plain(&format!("s{position}"), action, delay);
            step.wait_for = wait_for;
            step.requires = Requires { connected };
            step
        },
    )
}

fn flows() -> impl Strategy<Value = Flow> {
    let stops = (prop::bool::weighted(0.7), any::<bool>(), any::<bool>());
    let stops = stops.prop_map(|(reply, unsubscribe, hard_bounce)| StopOn { reply, unsubscribe, hard_bounce });
    (stops, (1..=6_u32).prop_flat_map(|n| (1..=n).map(|i| steps(i, n)).collect::<Vec<_>>()))
        .prop_map(|(stop_on, steps)| Flow { stop_on, ..flow_of(steps) })
}

/// A flow with a fresh row, or with one as another program may have left it in mid-flow.
fn starts() -> impl Strategy<Value = (Flow, Execution)> {
    let left = (
        select(vec![Status::Pending, Status::Executing, Status::WaitingTrigger, Status::Paused]),
        0..8_u32,
        select(WaitTrigger::ALL),
        any::<bool>(),
        1..8_u32,
        times(),
        times(),
    );
    (flows(), prop::option::weighted(0.3, left)).prop_map(|(flow, left)| {
        let mut e = fresh();
        if let Some((status, step, trigger, accepted, max_checks, check, due)) = left {
            e.status = status;
            e.current_step = step.min(flow.len() + 1);
            e.waiting_for_trigger = (status == Status::WaitingTrigger).then_some(trigger);
            e.linkedin.connection_status = accepted.then_some(ConnectionStatus::Accepted);
            (e.trigger_max_checks, e.next_check_at, e.next_execution_at) = (max_checks, check, due);
        }
        (flow, e)
    })
}

/// One thing that happens in the world.
#[derive(Clone, Debug)]
enum Event {
    /// Time moves to the next wake-up, if there is one, and its timer fires.
    WakeUp,
    /// Time moves by minutes.
    Minutes(u32),
    /// A channel claims the open send: the provider may be called from here on.
    Claim,
    /// The open send gets an outcome that its row allows; the number picks one.
    Outcome(u8),
    /// The outcome of some send of the past arrives (again), also of one that an operator let go of.
    LateOutcome(prop::sample::Index),
    /// The trigger before comes again.
    Again,
    /// Any other trigger, wanted or not.
    Any(Trigger),
}

fn facts() -> impl Strategy<Value = Trigger> {
    prop_oneof![
        4 => Just(Trigger::ConnectionAccepted),
        2 => select(Channel::ALL).prop_map(|channel| Trigger::Reply { channel }),
        1 => select(BounceStatus::ALL).prop_map(|status| Trigger::Bounce { status }),
        1 => (select(Channel::ALL), select(Sighting::ALL)).prop_map(|(channel, how)| Trigger::Seen { channel, how }),
    ]
}

fn other_triggers() -> impl Strategy<Value = Trigger> {
    prop_oneof![
        8 => facts(),
        4 => select(vec![Trigger::Due, Trigger::CheckDue, Trigger::Adopted]),
        4 => select(vec![
            Trigger::Pause,
            Trigger::Resume,
            Trigger::Resume,
            Trigger::Resume,
            Trigger::HumanTookOver { channel: Channel::Linkedin },
        ]),
        2 => Just(Trigger::Skip),
        2 => (0..8_u32).prop_map(|step| Trigger::Restart { step }),
        1 => select(vec![
            Trigger::Stop,
            Trigger::Unsubscribe,
            Trigger::Suppressed { reason: Reason::Complaint },
            Trigger::Quarantine { input: "a panic".to_owned() },
        ]),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => Just(Event::WakeUp),
        2 => (1..6_000_u32).prop_map(Event::Minutes),
        8 => Just(Event::Claim),
        12 => any::<u8>().prop_map(Event::Outcome),
        1 => any::<prop::sample::Index>().prop_map(Event::LateOutcome),
        2 => Just(Event::Again),
        5 => other_triggers().prop_map(Event::Any),
    ];
    prop::collection::vec(event, 0..50)
}

// ---- the world -------------------------------------------------------------------------------------------------------

/// The `sends` row as the rest of the program would keep it.
#[derive(Clone, Debug)]
struct Row {
    id: SendId,
    status: SendStatus,
    /// Reading back was given up: a person decides.
    parked: bool,
}

impl Row {
    const fn is_open(&self) -> bool {
        matches!(self.status, SendStatus::Pending | SendStatus::Dispatching | SendStatus::Unknown)
    }
}

struct World {
    flow: Flow,
    now: Timestamp,
    started_as: Execution,
    execution: Execution,
    rows: Vec<Row>,
    last: Option<Trigger>,
    /// A reply that ends the flow was recorded, and no operator has restarted it since.
    silent: bool,
    /// Every trigger that was applied, with its time.
    log: Vec<(Trigger, Timestamp)>,
}

impl World {
    /// A row is mended before anything else happens to it, as the runtime does it.
    fn new((flow, started_as): (Flow, Execution)) -> Self {
        let execution = started_as.clone();
        let (rows, log) = (Vec::new(), Vec::new());
        let mut world = Self { flow, now: START, started_as, execution, rows, last: None, silent: false, log };
        if needs_mending(&world.execution, &world.flow) {
            world.deliver(Trigger::Adopted);
        }
        world
    }

    fn row(&mut self, id: SendId) -> &mut Row {
        self.rows.iter_mut().find(|r| r.id == id).expect("an effect names a send that exists")
    }

    fn open_status(&self) -> Option<SendStatus> {
        let open = self.execution.open_send?;
        self.rows.iter().find(|r| r.id == open).map(|r| r.status)
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::WakeUp => {
                if let Some(at) = self.execution.wake_at() {
                    self.now = self.now.max(at);
                    self.deliver(self.timer());
                }
            }
            Event::Minutes(minutes) => self.now = self.now + HOUR / 60 * *minutes,
            Event::Claim => {
                if self.open_status() == Some(SendStatus::Pending) {
                    let open = self.execution.open_send.expect("it has a status");
                    self.row(open).status = SendStatus::Dispatching;
                }
            }
            Event::Outcome(pick) => {
                if let (Some(send), Some(outcome)) = (self.execution.open_send, self.outcome(*pick)) {
                    self.deliver(Trigger::SendFinished { send, outcome });
                }
            }
            Event::LateOutcome(index) => {
                let open = self.execution.open_send;
                let closed: Vec<_> = self.rows.iter().map(|r| r.id).filter(|id| Some(*id) != open).collect();
                if !closed.is_empty() {
                    self.deliver(finished(closed[index.index(closed.len())]));
                }
            }
            Event::Again => {
                if let Some(trigger) = self.last.clone() {
                    self.deliver(trigger);
                }
            }
            Event::Any(trigger) => self.deliver(trigger.clone()),
        }
    }

    /// The timer that is due, as the wheel would fire it.
    fn timer(&self) -> Trigger {
        let deadline = self.execution.next_execution_at.is_none_or(|at| at <= self.now);
        if deadline { Trigger::Due } else { Trigger::CheckDue }
    }

    /// An outcome that the row of the open send allows: a call's while dispatching, reading back's while unknown, and for
    /// one that was taken back in time, that it was not sent.
    fn outcome(&self, pick: u8) -> Option<SendOutcome> {
        let error = || "an error".to_owned();
        let classes = FailureClass::ALL;
        match self.open_status()? {
            SendStatus::Dispatching => Some(match pick {
                0..120 => SendOutcome::Sent,
                120..220 => failed(classes[usize::from(pick) % classes.len()]),
                _ => SendOutcome::Unknown { error: error() },
            }),
            SendStatus::Unknown => Some(match pick % 3 {
                0 => SendOutcome::Sent,
                1 => SendOutcome::NotSent,
                _ => SendOutcome::Unresolved { error: error() },
            }),
            SendStatus::Cancelled => Some(SendOutcome::NotSent),
            SendStatus::Pending | SendStatus::Sent | SendStatus::Failed => None,
        }
    }

    /// Delivers a trigger and checks everything that has to hold of the decision and of the state after it.
    fn deliver(&mut self, trigger: Trigger) {
        let before = self.execution.clone();
        let decision = step(&before, &self.flow, &trigger, self.now);
        self.last = Some(trigger.clone());
        let Decision::Transition { next, effects } = decision else { return };
        self.log.push((trigger.clone(), self.now));
        if matches!(trigger, Trigger::Restart { .. }) {
            self.silent = false;
        }
        for effect in &effects {
            self.carry_out(effect, &trigger);
        }
        if matches!(trigger, Trigger::Reply { .. }) && self.flow.stop_on.reply {
            self.silent = true;
            let waits = self.rows.iter().any(|r| r.status == SendStatus::Pending);
            assert!(!waits, "a send still waits to leave after a reply");
        }
        self.execution = *next;
        assert_eq!(self.execution.version, before.version + 1);
        self.holds_together(&trigger);
        self.changes_nothing_twice(&trigger);
    }

    fn carry_out(&mut self, effect: &Effect, trigger: &Trigger) {
        match effect {
            Effect::Send(intent) => {
                assert!(!self.silent, "a send was decided after a reply");
                assert!(matches!(trigger, Trigger::Due | Trigger::Adopted), "{} decided a send", trigger.name());
                let open: Vec<_> = self.rows.iter().filter(|r| r.is_open() && !r.parked).collect();
                assert!(open.is_empty(), "a send was decided while {open:?} is open");
                assert!(self.rows.iter().all(|r| r.id != intent.id), "a send's id was used twice");
                self.rows.push(Row { id: intent.id, status: intent.status, parked: false });
            }
            Effect::CancelSend(id) => {
                let row = self.row(*id);
                if row.status == SendStatus::Pending {
                    row.status = SendStatus::Cancelled;
                }
            }
            Effect::FinishSend(finish) => {
                let silent = self.silent;
                let row = self.row(finish.send);
                assert!(!silent || finish.status != SendStatus::Pending, "a send goes out again after a reply");
                assert!(row.is_open() || finish.status == SendStatus::Cancelled, "{row:?} ended twice: {finish:?}");
                row.status = finish.status;
                row.parked = finish.parked;
            }
        }
    }

    fn holds_together(&self, trigger: &Trigger) {
        let e = &self.execution;
        let n = self.flow.len();
        let under = e.paused_status.unwrap_or(e.status);
        assert_eq!(e.paused_status.is_some(), e.status == Status::Paused);
        assert_ne!(under, Status::Paused);
        assert!((1..=n + 1).contains(&e.current_step));
        if e.status == Status::Completed {
            assert_eq!(e.current_step, n + 1);
        } else {
            assert!(e.current_step <= n);
        }
        for list in [&e.completed_steps, &e.failed_steps, &e.skipped_steps] {
            let distinct: std::collections::BTreeSet<_> = list.iter().collect();
            assert_eq!(distinct.len(), list.len(), "{list:?}");
            assert!(list.iter().all(|s| (1..=n).contains(s)), "{list:?}");
        }
        assert_eq!(e.exit_reason.is_some(), e.status.is_final());
        assert_eq!(e.waiting_for_trigger.is_some(), under == Status::WaitingTrigger);
        assert!(e.open_send.is_some() || under != Status::Executing);
        // Pending: a skipped step's send that is still awaited.
        assert!(e.open_send.is_none() || under != Status::WaitingTrigger);
        let mut awake = e.clone();
        awake.status = under;
        assert!(
            under.is_final() || awake.wake_at().is_some() || awake.open_send.is_some(),
            "nothing will ever move it after {}: {e:?}",
            trigger.name()
        );
        assert!(!needs_mending(e, &self.flow), "{e:?}");
    }

    /// The same trigger right again changes nothing. Skip and restart are orders and are obeyed again; a timer counts again
    /// where the next step is due already; a verdict that leaves the send open says the same again.
    fn changes_nothing_twice(&self, trigger: &Trigger) {
        let e = &self.execution;
        let Decision::Transition { next, effects } = step(e, &self.flow, trigger, self.now) else { return };
        match trigger {
            Trigger::Skip | Trigger::Restart { .. } => {}
            Trigger::Due => {
                assert!(e.next_execution_at.is_some_and(|at| at <= self.now));
            }
            Trigger::SendFinished { send, outcome } => {
                assert_eq!(e.open_send, Some(*send), "a settled send was settled again");
                let mut same = *next;
                // Each is one of the step's tries, and the last one says so.
                if *outcome == SendOutcome::NotSent {
                    (same.attempt, same.last_error) = (e.attempt, e.last_error.clone());
                }
                same.version = e.version;
                same.error_count = e.error_count;
                assert_eq!(&same, e);
                assert!(matches!(effects.as_slice(), [Effect::FinishSend(_)]));
            }
            other => panic!("{} changed it twice", other.name()),
        }
    }
}

// ---- arbitrary rows --------------------------------------------------------------------------------------------------

fn times() -> impl Strategy<Value = Option<Timestamp>> {
    prop::option::of(prop_oneof![
        8 => (0..400_u32).prop_map(at_hour),
        1 => any::<i64>().prop_map(Timestamp::from_micros),
    ])
}

fn numbers() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0..9_u32, 1 => Just(u32::MAX), 1 => any::<u32>()]
}

fn lists() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(numbers(), 0..4)
}

fn arbitrary_executions() -> impl Strategy<Value = Execution> {
    let stand = (select(Status::ALL), prop::option::of(select(Status::ALL)), numbers(), lists(), lists(), lists());
    let waiting = (prop::option::of(select(WaitTrigger::ALL)), numbers(), numbers(), times(), times());
    let sends = (numbers(), numbers(), 0..3_u8, numbers(), numbers());
    let facts = (
        prop::option::of(select(ConnectionStatus::ALL)),
        any::<[bool; 3]>(),
        prop::option::of(select(BounceStatus::ALL)),
    );
    let rest = (prop_oneof![Just(0), Just(i64::MAX), any::<i64>()], prop::option::of(select(ExitReason::ALL)));
    (stand, waiting, sends, facts, rest).prop_map(|(stand, waiting, sends, facts, rest)| {
        let mut e = fresh();
        (e.status, e.paused_status, e.current_step, e.completed_steps, e.failed_steps, e.skipped_steps) = stand;
        (e.waiting_for_trigger, e.trigger_check_count, e.trigger_max_checks, e.next_check_at, e.next_execution_at) =
            waiting;
        let (attempt, sequence, open, counts, errors) = sends;
        (e.attempt, e.send_sequence, e.error_count) = (attempt, sequence, errors);
        e.open_send = match open {
            0 => None,
            1 => Some(SendId::derive(e.id, e.current_step, attempt, sequence)),
            _ => Some(SendId::derive(e.id, 1, 1, sequence)),
        };
        (e.linkedin.message_count, e.email.sent_count, e.whatsapp.sent_count) = (counts, counts, counts);
        let replied;
        (e.linkedin.connection_status, replied, e.email.bounce_status) = facts;
        [e.linkedin.replied, e.email.replied, e.whatsapp.replied] = replied;
        (e.version, e.exit_reason) = rest;
        e
    })
}

/// A flow that no parser would let through: jumps anywhere, zero checks.
fn arbitrary_flows() -> impl Strategy<Value = Flow> {
    (flows(), numbers(), numbers()).prop_map(|(mut flow, to, max_checks)| {
        for wait in flow.steps.iter_mut().filter_map(|s| s.wait_for.as_mut()) {
            wait.max_checks = max_checks;
            wait.check_every = if to % 2 == 0 { Duration::ZERO } else { Duration::MAX };
            if matches!(wait.on_timeout, OnTimeout::Goto(_) | OnTimeout::Fail) {
                wait.on_timeout = OnTimeout::Goto(to);
            }
        }
        flow
    })
}

fn outcomes() -> impl Strategy<Value = SendOutcome> {
    let error = || "an error".to_owned();
    prop_oneof![
        select(vec![
            SendOutcome::Sent,
            SendOutcome::NotSent,
            SendOutcome::Unknown { error: error() },
            SendOutcome::Unresolved { error: error() },
        ]),
        select(FailureClass::ALL).prop_map(failed),
    ]
}

proptest! {
    #![proptest_config(config())]

    /// What `World::deliver` asserts after every event: nothing leaves after a reply, one open send at a time, no state
    /// without a wake-up, no trigger counts twice, the fields fit together. And replaying the log gives the stored state.
    #[test]
    fn a_random_life_keeps_every_invariant_and_its_log_replays_to_the_same_state(start in starts(), events in events()) {
        let mut world = World::new(start);
        for event in &events {
            world.happens(event);
        }
        let mut replayed = world.started_as.clone();
        for (trigger, at) in &world.log {
            match step(&replayed, &world.flow, trigger, *at) {
                Decision::Transition { next, .. } => replayed = *next,
                Decision::Rejected(why) => prop_assert!(false, "{} was refused: {}", trigger.name(), why.as_str()),
            }
        }
        prop_assert_eq!(replayed, world.execution);
    }

    #[test]
    fn where_every_send_arrives_and_time_goes_on_every_execution_ends(
        start in starts(), events in events(), facts in prop::collection::btree_map(0..100_usize, facts(), 0..6)
    ) {
        let mut world = World::new(start);
        for event in &events {
            world.happens(event);
        }
        if world.execution.status == Status::Paused {
            world.deliver(Trigger::Resume);
        }
        // At most: six steps, each with a timer, a send and seven checks and a deadline; and the facts.
        for turn in 0..100 {
            if let Some(fact) = facts.get(&turn) {
                world.deliver(fact.clone());
            }
            if let Some(send) = world.execution.open_send.filter(|_| !world.execution.status.is_final()) {
                let taken_back = world.open_status() == Some(SendStatus::Cancelled);
                let outcome = if taken_back { SendOutcome::NotSent } else { SendOutcome::Sent };
                world.deliver(Trigger::SendFinished { send, outcome });
            } else {
                world.happens(&Event::WakeUp);
            }
        }
        prop_assert!(world.execution.status.is_final(), "{:?}", world.execution);
    }

    #[test]
    fn no_row_and_no_trigger_makes_it_panic(
        execution in arbitrary_executions(), flow in arbitrary_flows(), trigger in other_triggers(), outcome in outcomes(),
        at in times(), is_outcome in any::<bool>()
    ) {
        let trigger = match execution.open_send {
            Some(send) if is_outcome => Trigger::SendFinished { send, outcome },
            _ => trigger,
        };
        if let Decision::Transition { next, .. } = step(&execution, &flow, &trigger, at.unwrap_or(START)) {
            prop_assert_eq!(next.version, execution.version.saturating_add(1));
        }
    }

    #[test]
    fn whatever_a_row_lacked_it_has_a_wake_up_or_a_send_once_it_is_mended(
        execution in arbitrary_executions(), flow in flows(), at in 0..400_u32
    ) {
        match step(&execution, &flow, &Trigger::Adopted, at_hour(at)) {
            Decision::Transition { next, .. } => {
                prop_assert!(!needs_mending(&next, &flow), "{:?}", next);
                prop_assert_eq!(step(&next, &flow, &Trigger::Adopted, at_hour(at)).is_transition(), false);
                let under = next.paused_status.filter(|_| next.status == Status::Paused).unwrap_or(next.status);
                let mut awake = next.clone();
                awake.status = under;
                prop_assert!(under.is_final() || awake.wake_at().is_some() || awake.open_send.is_some(), "{:?}", next);
            }
            Decision::Rejected(why) => {
                prop_assert_eq!(needs_mending(&execution, &flow), false);
                prop_assert!(matches!(why, Rejected::NothingToMend | Rejected::AlreadyFinal));
            }
        }
    }
}

impl Decision {
    const fn is_transition(&self) -> bool {
        matches!(self, Self::Transition { .. })
    }
}
