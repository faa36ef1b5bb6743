//! The actor of one prospect: holds its execution, decides by `domain::step`, persists, adopts, then acts.
//!
//! Owned by its shard, which hands it one work at a time and holds its timers. The handler awaits nothing, so its future
//! stays small (a fat future is kept alive in every idle actor) and nothing can come between reading and deciding. What a
//! decision makes due at once is decided with it: one commit instead of two between a trigger and its next send.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::backlog::Rank;
use super::plan::{Added, Plan, Told};
use super::shard::ShardMessage;
use super::shared::{SendHint, Shared};
use super::work::{Done, Errand, Outcome, Runnable, Work};
use crate::domain::account::Channel;
use crate::domain::execution::{Execution, Status};
use crate::domain::id::AccountId;
use crate::domain::step::{Decision, needs_mending, step};
use crate::domain::time::Timestamp;
use crate::domain::trigger::Trigger;
use crate::store::writer::{Change, Committed};
use crate::telemetry::trace::Context;

/// Decisions of one commit. More than two are rare: a step that is passed over makes the next one due at once.
const CHAIN_MAX: usize = 8;

/// See the module's text.
pub(super) struct ProspectActor;

/// What a prospect actor is told.
pub(super) enum ProspectMessage {
    /// Handle this; answer with [`ShardMessage::Done`].
    Handle(Arc<Errand>),
    /// The writer's answer to the change in hand.
    Committed(Committed),
}

/// The state of a prospect actor.
pub(super) struct Resident {
    shared: Arc<Shared>,
    row: Runnable,
    /// The change that is being committed.
    pending: Option<Box<Pending>>,
}

struct Pending {
    next: Execution,
    trigger: &'static str,
    told: Told,
    /// What it belongs to, for the sends that follow from it.
    trace: Option<Context>,
    /// Something outside has led to it.
    is_fact: bool,
}

impl Actor for ProspectActor {
    type Msg = ProspectMessage;
    type State = Resident;
    type Arguments = (Arc<Shared>, Box<Runnable>);

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        (shared, row): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(Resident { shared, row: *row, pending: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        resident: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ProspectMessage::Handle(errand) => resident.handle(&myself, &errand),
            ProspectMessage::Committed(committed) => resident.committed(committed),
        }
        Ok(())
    }
}

impl Resident {
    fn handle(&mut self, myself: &ActorRef<ProspectMessage>, errand: &Errand) {
        let work = &errand.work;
        let now = self.shared.clock.now();
        let releases = self.shared.releases.load(SeqCst);
        let execution = &self.row.execution;
        let (trigger, details) = match work {
            Work::Wake | Work::Granted(..) if needs_mending(execution, &self.row.flow) => (Trigger::Adopted, None),
            Work::Wake | Work::Granted(..) => (which_timer(execution, now), None),
            Work::Trigger(trigger, details) => (trigger.clone(), details.as_deref()),
        };
        if trigger.is_time() && !self.row.campaign.is_active() {
            return self.done(Outcome::Held { releases });
        }
        let granted = if let Work::Granted(account, slot) = work { Some((*account, *slot)) } else { None };
        match self.decide(execution, &trigger, now) {
            Decision::Rejected(why) => self.done(Outcome::Rejected(why.as_str())),
            Decision::Transition { next, effects } => {
                let mut plan = Plan::new(&self.shared, &self.row, details, now);
                match plan.add(trigger, *next, effects, granted) {
                    Added::Yes => {}
                    Added::NoAccount => return self.done(Outcome::Held { releases }),
                    Added::Full(account, slot) => {
                        let due = execution.next_execution_at.unwrap_or(now);
                        let rank = Rank::of_priority(self.row.campaign.priority());
                        self.shared.backlog(account).line_up(slot, rank, due, execution.id);
                        return self.done(Outcome::Lined);
                    }
                }
                self.chain(&mut plan, now);
                let (change, told) = plan.into_change();
                self.commit(myself, change, told, errand);
            }
        }
    }

    fn decide(&self, execution: &Execution, trigger: &Trigger, now: Timestamp) -> Decision {
        if let Some(before_step) = &self.shared.before_step {
            before_step(execution, trigger);
        }
        step(execution, &self.row.flow, trigger, now)
    }

    /// Decides with it what is due at once, as far as there is an account with room. What waits for one is woken by its
    /// timer, at once, and stands in line then.
    fn chain(&self, plan: &mut Plan<'_>, now: Timestamp) {
        for _ in 1..CHAIN_MAX {
            let next = plan.next();
            let due = next.status == Status::Pending && next.wake_at().is_some_and(|at| at <= now);
            if !due || !self.row.campaign.is_active() {
                return;
            }
            let Decision::Transition { next, effects } = self.decide(next, &Trigger::Due, now) else { return };
            if !matches!(plan.add(Trigger::Due, *next, effects, None), Added::Yes) {
                return;
            }
        }
    }

    fn commit(&mut self, myself: &ActorRef<ProspectMessage>, change: Change, mut told: Told, errand: &Errand) {
        told.hints.extend(also_told(&change));
        let trigger = change.moves.first().map_or("none", |m| m.trigger.name());
        let (trace, is_fact) = (errand.trace, errand.work.is_fact());
        self.pending = Some(Box::new(Pending { next: change.next.clone(), trigger, told, trace, is_fact }));
        let myself = myself.clone();
        self.shared.writer.commit(
            Box::new(change),
            Box::new(move |committed| {
                // An actor that has died meanwhile is rebuilt from the row.
                let _ = myself.cast(ProspectMessage::Committed(committed));
            }),
        );
    }

    /// Persisted: adopt the new state, then act on it.
    fn committed(&mut self, committed: Committed) {
        let Some(pending) = self.pending.take() else { return };
        match committed {
            Committed::Done => {
                self.row.execution = pending.next;
                let slot = self.row.slot();
                let decided = self.row.execution.open_send.filter(|_| pending.is_fact);
                for (account, hint) in &pending.told.hints {
                    self.shared.traces.keep(hint.1, pending.trace);
                    self.shared.answering.keep(hint.1, (decided == Some(hint.1)).then(Instant::now));
                    self.shared.backlog(*account).hint(slot, *hint);
                }
                let version = self.row.execution.version;
                self.done(Outcome::Applied { version, trigger: pending.trigger });
            }
            Committed::Conflict => self.done(Outcome::Conflict),
            Committed::LeaseLost | Committed::Closed => self.done(Outcome::Lost),
        }
    }

    fn done(&self, outcome: Outcome) {
        let execution = &self.row.execution;
        let done = Done {
            execution: execution.id,
            outcome,
            status: execution.status,
            wake: execution.wake_at(),
            sending: execution.open_send.is_some(),
        };
        self.shared.to_shard(execution.id, ShardMessage::Done(Box::new(done)));
    }
}

/// Hints at a send that is taken back (its channel tells whether in time), or that was held back while its execution
/// was paused (its channel has forgotten it).
fn also_told(change: &Change) -> Vec<(AccountId, SendHint)> {
    let resumed = change.moves.iter().any(|m| matches!(m.trigger, Trigger::Resume));
    let sends = change.cancel.iter().copied().chain(change.next.open_send.filter(|_| resumed));
    let workspace = change.next.workspace;
    sends
        .flat_map(|send| {
            let accounts = Channel::ALL.iter().filter_map(|channel| change.next.accounts.get(*channel));
            accounts.map(move |account| (account, (workspace, send)))
        })
        .collect()
}

/// Which of its timers a waking execution means. For one that has none the core says why not.
fn which_timer(execution: &Execution, now: Timestamp) -> Trigger {
    let deadline_passed = execution.next_execution_at.is_none_or(|at| at <= now);
    if execution.status == Status::WaitingTrigger && !deadline_passed { Trigger::CheckDue } else { Trigger::Due }
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::*;

    /// The size of what a function answers, without calling it.
    fn size_of_answer<A, R>(_: impl Fn(A) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn an_idle_prospect_keeps_no_fat_future_alive() {
        let future = size_of_answer(|(myself, message, resident): (ActorRef<ProspectMessage>, _, &mut Resident)| {
            // Owned by the block, as ractor's loop owns it.
            async move { ProspectActor.handle(myself, message, resident).await }
        });
        println!(
            "handler future {future} B, Resident {} B, Execution {} B, ProspectMessage {} B",
            size_of::<Resident>(),
            size_of::<Execution>(),
            size_of::<ProspectMessage>()
        );
        assert!(future <= 1024, "{future} B");
    }
}
