//! What travels between the door, the shards and the prospect actors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::backlog::{Place, Slot};
use super::{DeliverError, Delivery};
use crate::domain::budget::Kind;
use crate::domain::execution::{Execution, Status};
use crate::domain::flow::Flow;
use crate::domain::id::{AccountId, ExecutionId};
use crate::domain::send::Receipt;
use crate::domain::time::Timestamp;
use crate::domain::trigger::Trigger;
use crate::runtime::roster::Campaign;
use crate::telemetry::trace::Context;

/// One thing for an execution to handle.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// Its wake-up has come; which timer it is, the execution knows.
    Wake,
    /// It was due and waited for its account, which has a place for its send now.
    Granted(AccountId, Slot),
    /// A fact, a command, or a send's outcome.
    Trigger(Trigger, Option<Box<SendDetails>>),
}

impl Work {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Wake | Self::Granted(..) => "wake",
            Self::Trigger(trigger, _) => trigger.name(),
        }
    }

    /// Whether it is something that has happened outside.
    pub(super) const fn is_fact(&self) -> bool {
        matches!(self, Self::Trigger(trigger, _) if trigger.is_fact())
    }
}

/// A work, and the trace that it belongs to: small and only while it is in flight, so that a resident keeps nothing of it.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) work: Work,
    pub(super) trace: Option<Context>,
}

/// What goes into the rows with a send's outcome, beyond what the core looks at.
#[derive(Clone, Debug)]
pub(super) struct SendDetails {
    pub(super) account: AccountId,
    pub(super) receipt: Receipt,
    /// The account sends nothing before this.
    pub(super) rest_until: Option<Timestamp>,
    /// The account does nothing of this kind before that.
    pub(super) brake: Option<(Kind, Timestamp)>,
}

/// Work with the one who waits for its answer.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) errand: Arc<Errand>,
    pub(super) answer: Option<oneshot::Sender<Result<Delivery, DeliverError>>>,
    /// Held until the work is answered; `None` for send results, of which there is one an account at most.
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// The place in an account's backlog that it was given; given back with this, when the hint of its send, if it came to
    /// one, is on its way.
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) place: Option<Place>,
    pub(super) arrived: Instant,
    /// How long after that its actor was given it (the last time), in microseconds. Known of facts only.
    pub(super) taken_micros: u32,
    /// Version conflicts met so far.
    pub(super) conflicts: u8,
}

impl Inbound {
    pub(super) fn new(work: Work) -> Self {
        let errand = Arc::new(Errand { work, trace: None });
        Self { errand, answer: None, permit: None, place: None, arrived: Instant::now(), taken_micros: 0, conflicts: 0 }
    }

    /// The same as a part of a trace. To be said before it is handed over.
    pub(super) fn traced(mut self, trace: Option<Context>) -> Self {
        if let Some(errand) = Arc::get_mut(&mut self.errand) {
            errand.trace = trace;
        }
        self
    }

    /// Lets a due execution use its place in the backlog.
    pub(super) fn granted(place: Place) -> Self {
        let (account, slot) = place.whose();
        let work = Work::Granted(account, slot);
        Self { place: Some(place), ..Self::new(work) }
    }

    /// Its actor is given it.
    pub(super) fn is_taken(&mut self) {
        if self.errand.work.is_fact() {
            self.taken_micros = u32::try_from(self.arrived.elapsed().as_micros()).unwrap_or(u32::MAX);
        }
    }

    /// Of a fact: how long after its arrival its actor was given it.
    pub(super) fn taken_after(&self) -> Option<Duration> {
        self.errand.work.is_fact().then(|| Duration::from_micros(self.taken_micros.into()))
    }

    pub(super) fn answer(self, result: Result<Delivery, DeliverError>) {
        if let Some(answer) = self.answer {
            // Whoever asked may have gone away; the transition stands all the same.
            let _ = answer.send(result);
        }
    }
}

/// How an actor's handling of one work ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Applied {
        version: i64,
        /// What moved it.
        trigger: &'static str,
    },
    Rejected(&'static str),
    /// Time does not move for it now (campaign not active, no account): to be woken again when that changes.
    Held {
        /// The releases when it looked.
        releases: u64,
    },
    /// It is due, and waits in the line of its account.
    Lined,
    /// The row is not what the actor thought: it has to be read again.
    Conflict,
    /// The shard belongs to another node now, or the writer is closed.
    Lost,
}

/// An actor's report to its shard.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) execution: ExecutionId,
    pub(super) outcome: Outcome,
    pub(super) status: Status,
    pub(super) wake: Option<Timestamp>,
    /// Whether the outcome of a send is still to come.
    pub(super) sending: bool,
}

/// A row with what it takes to run it.
#[derive(Debug)]
pub(super) struct Runnable {
    pub(super) execution: Execution,
    pub(super) campaign: Arc<Campaign>,
    pub(super) flow: Arc<Flow>,
}

impl Runnable {
    /// The line of the send that it has decided.
    pub(super) fn slot(&self) -> Slot {
        Slot::of(&self.execution, self.flow.step(self.execution.current_step))
    }
}

/// What came of reading a row.
#[derive(Debug)]
pub(super) enum LoadResult {
    Ready(Box<Runnable>),
    Absent,
    Unrunnable(String),
}
