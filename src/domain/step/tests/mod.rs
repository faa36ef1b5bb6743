//! Tests of the step state machine: the seed's worked example, a table over every status and trigger, and properties of
//! random runs. What they share is here: flows written by hand and short ways to take a step.

use std::time::Duration;

use super::{Decision, Effect, FinishSend, Rejected, needs_mending, step};
use crate::domain::account::Channel;
use crate::domain::execution::{BounceStatus, ConnectionStatus, Execution, ExitReason, Status, WaitTrigger};
use crate::domain::flow::{
    CHECK_EVERY_DEFAULT, Flow, MAX_CHECKS_DEFAULT, OnTimeout, Requires, Step, StopOn, Track, WaitFor,
};
use crate::domain::id::{CampaignId, ExecutionId, ProspectId, SendId, WorkspaceId};
use crate::domain::retry;
use crate::domain::send::{Action, FailureClass, SendIntent, SendOutcome, SendStatus};
use crate::domain::suppression::Reason;
use crate::domain::time::Timestamp;
use crate::domain::trigger::{Sighting, Trigger};

mod adoption;
mod example;
mod properties;
mod rules;
mod table;

const HOUR: Duration = Duration::from_secs(3600);

/// Time 0 of every test.
const START: Timestamp = Timestamp::from_micros(1_763_200_800_000_000);

fn at_hour(hour: u32) -> Timestamp {
    START + HOUR * hour
}

fn plain(id: &str, action: Action, delay: Duration) -> Step {
    Step {
        id: id.to_owned(),
        action,
        subject: matches!(action, Action::SendEmail | Action::SendLinkedinInmail).then(|| "Hello".to_owned()),
        message: (!matches!(action, Action::Wait | Action::VisitLinkedinProfile)).then(|| "Hello".to_owned()),
        in_thread: false,
        note_required: false,
        track: Track::default(),
        delay,
        wait_for: None,
        requires: Requires::default(),
    }
}

fn wait(trigger: WaitTrigger, timeout: Duration, on_timeout: OnTimeout) -> Option<WaitFor> {
    Some(WaitFor { trigger, timeout, check_every: CHECK_EVERY_DEFAULT, max_checks: MAX_CHECKS_DEFAULT, on_timeout })
}

fn flow_of(steps: Vec<Step>) -> Flow {
    Flow { window: None, stop_on: StopOn::ALL, steps }
}

/// The seed's three steps.
fn seed_flow() -> Flow {
    let mut invite = plain("invite", Action::SendLinkedinCr, Duration::ZERO);
    invite.wait_for = wait(WaitTrigger::ConnectionAccepted, 72 * HOUR, OnTimeout::Continue);
    flow_of(vec![
        invite,
        plain("intro", Action::SendEmail, 48 * HOUR),
        plain("nudge", Action::SendLinkedinMessage, 120 * HOUR),
    ])
}

fn fresh() -> Execution {
    let id = uuid::Uuid::from_u128;
    Execution::new(ExecutionId(id(0xe)), WorkspaceId(id(1)), CampaignId(id(2)), ProspectId(id(3)), 1, START)
}

/// One prospect under test: applies triggers and keeps the effects of the last one.
#[derive(Clone)]
struct Run {
    flow: Flow,
    now: Timestamp,
    execution: Execution,
    effects: Vec<Effect>,
}

impl Run {
    fn new(flow: Flow) -> Self {
        Self { flow, now: START, execution: fresh(), effects: Vec::new() }
    }

    fn after(mut self, wait: Duration) -> Self {
        self.now = self.now + wait;
        self
    }

    fn decide(&self, trigger: &Trigger) -> Decision {
        step(&self.execution, &self.flow, trigger, self.now)
    }

    #[track_caller]
    fn apply(&mut self, trigger: &Trigger) {
        match self.decide(trigger) {
            Decision::Transition { next, effects } => {
                self.execution = *next;
                self.effects = effects;
            }
            Decision::Rejected(why) => panic!("{} was rejected: {}", trigger.name(), why.as_str()),
        }
    }

    #[track_caller]
    fn on(mut self, trigger: Trigger) -> Self {
        self.apply(&trigger);
        self
    }

    #[track_caller]
    fn refuses(&self, trigger: Trigger, why: Rejected) {
        assert_eq!(self.decide(&trigger), Decision::Rejected(why), "{}", trigger.name());
    }

    /// The open send ends.
    #[track_caller]
    fn ends(self, outcome: SendOutcome) -> Self {
        let send = self.open();
        self.on(Trigger::SendFinished { send, outcome })
    }

    #[track_caller]
    fn sent(self) -> Self {
        self.ends(SendOutcome::Sent)
    }

    #[track_caller]
    fn fails(self, class: FailureClass) -> Self {
        self.ends(failed(class))
    }

    #[track_caller]
    fn open(&self) -> SendId {
        self.execution.open_send.expect("an open send")
    }

    /// The sends the last trigger decided.
    fn new_sends(&self) -> Vec<&SendIntent> {
        self.effects.iter().filter_map(|e| if let Effect::Send(s) = e { Some(s) } else { None }).collect()
    }

    /// The only send's row change of the last trigger.
    #[track_caller]
    fn finish(&self) -> &FinishSend {
        match self.effects.as_slice() {
            [Effect::FinishSend(finish)] => finish,
            other => panic!("expected one FinishSend, got {other:?}"),
        }
    }

    #[track_caller]
    fn stands(&self, status: Status, current_step: u32, due: Option<Timestamp>) -> &Self {
        let e = &self.execution;
        assert_eq!((e.status, e.current_step, e.next_execution_at), (status, current_step, due));
        self
    }
}

fn failed(class: FailureClass) -> SendOutcome {
    SendOutcome::Failed { class, error: "the provider's words".to_owned() }
}

fn finished(send: SendId) -> Trigger {
    Trigger::SendFinished { send, outcome: SendOutcome::Sent }
}

fn unknown() -> SendOutcome {
    SendOutcome::Unknown { error: "time-out".to_owned() }
}

fn unresolved() -> SendOutcome {
    SendOutcome::Unresolved { error: "not found, not refuted".to_owned() }
}

fn never_stops() -> Flow {
    Flow { stop_on: StopOn { reply: false, unsubscribe: false, hard_bounce: false }, ..seed_flow() }
}

fn one_step(action: Action) -> Flow {
    flow_of(vec![plain("only", action, 5 * HOUR)])
}
