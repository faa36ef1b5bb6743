//! The actor of one prospect: holds its execution, decides by `domain::step`, persists, adopts, then acts.
//!
//! Owned by its shard, which hands it one work at a time and holds its timers. The handler awaits nothing, so its future
//! stays small (a fat future is kept alive in every idle actor) and nothing can come between reading and deciding.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::shard::ShardMessage;
use super::shared::{SendHint, Shared};
use super::work::{Done, Outcome, Runnable, SendDetails, Work};
use crate::domain::account::Channel;
use crate::domain::execution::{Execution, Status};
use crate::domain::id::{AccountId, SendId};
use crate::domain::send::{SendIntent, SendStatus};
use crate::domain::step::{Decision, Effect, FinishSend, needs_mending, step};
use crate::domain::time::Timestamp;
use crate::domain::trigger::Trigger;
use crate::store::writer::{Change, Committed, Finish, Move, NewSend};

/// See the module's text.
pub(super) struct ProspectActor;

/// What a prospect actor is told.
pub(super) enum ProspectMessage {
    /// Handle this; answer with [`ShardMessage::Done`].
    Handle(Arc<Work>),
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
    hints: Vec<(AccountId, SendHint)>,
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
            ProspectMessage::Handle(work) => resident.handle(&myself, &work),
            ProspectMessage::Committed(committed) => resident.committed(committed),
        }
        Ok(())
    }
}

impl Resident {
    fn handle(&mut self, myself: &ActorRef<ProspectMessage>, work: &Work) {
        let now = self.shared.clock.now();
        let releases = self.shared.releases.load(SeqCst);
        let execution = &self.row.execution;
        let (trigger, details) = match work {
            Work::Wake if needs_mending(execution, &self.row.flow) => (Trigger::Adopted, None),
            Work::Wake => (which_timer(execution, now), None),
            Work::Trigger(trigger, details) => (trigger.clone(), details.as_deref()),
        };
        if trigger.is_time() && !self.row.campaign.is_active() {
            return self.done(Outcome::Held { releases });
        }
        if let Some(before_step) = &self.shared.before_step {
            before_step(execution, &trigger);
        }
        match step(execution, &self.row.flow, &trigger, now) {
            Decision::Rejected(why) => self.done(Outcome::Rejected(why.as_str())),
            Decision::Transition { next, effects } => {
                match self.change(*next, effects, trigger, details, now) {
                    Some((change, pending)) => {
                        self.pending = Some(Box::new(pending));
                        let myself = myself.clone();
                        self.shared.writer.commit(
                            Box::new(change),
                            Box::new(move |committed| {
                                // An actor that has died meanwhile is rebuilt from the row.
                                let _ = myself.cast(ProspectMessage::Committed(committed));
                            }),
                        );
                    }
                    None => self.done(Outcome::Held { releases }),
                }
            }
        }
    }

    /// Turns a decision into rows. `None`: it needs an account and there is none, so nothing is decided yet.
    fn change(
        &self,
        mut next: Execution,
        effects: Vec<Effect>,
        trigger: Trigger,
        details: Option<&SendDetails>,
        now: Timestamp,
    ) -> Option<(Change, Pending)> {
        let before = &self.row.execution;
        let (mut sends, mut cancel, mut finish, mut hints) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut told = None;
        for effect in effects {
            match effect {
                Effect::Send(intent) => {
                    let account = self.account(&mut next, &intent)?;
                    hints.push((account, self.hint(intent.id)));
                    sends.push(NewSend { intent, account });
                }
                Effect::CancelSend(send) => {
                    // Its channel tells whether it was taken back in time.
                    told = Some(send);
                    cancel.push(send);
                }
                Effect::FinishSend(row) => {
                    if let Some(account) = details.map(|d| d.account)
                        && row.status == SendStatus::Pending
                    {
                        hints.push((account, self.hint(row.send)));
                    }
                    finish.push(finish_row(row, details));
                }
            }
        }
        // Resumed with a send that was held back meanwhile: its channel has forgotten it.
        if matches!(trigger, Trigger::Resume) {
            told = next.open_send;
        }
        if let Some(send) = told {
            let accounts = Channel::ALL.iter().filter_map(|channel| next.accounts.get(*channel));
            hints.extend(accounts.map(|account| (account, self.hint(send))));
        }
        let step_id = self.row.flow.step(next.current_step).map(|s| s.id.clone());
        let change = Change {
            next: next.clone(),
            step_id,
            at: now,
            moves: vec![Move {
                trigger,
                from_status: before.status,
                from_step: before.current_step,
                to_status: next.status,
                to_step: next.current_step,
            }],
            sends,
            cancel,
            finish,
        };
        Some((change, Pending { next, hints }))
    }

    fn account(&self, next: &mut Execution, intent: &SendIntent) -> Option<AccountId> {
        let channel = intent.action.channel()?;
        let account = self.shared.roster.account_for(next, &self.row.campaign, channel)?;
        next.accounts.set(channel, account);
        Some(account)
    }

    const fn hint(&self, send: SendId) -> SendHint {
        (self.row.execution.workspace, send)
    }

    /// Persisted: adopt the new state, then act on it.
    fn committed(&mut self, committed: Committed) {
        let Some(pending) = self.pending.take() else { return };
        match committed {
            Committed::Done => {
                self.row.execution = pending.next;
                for (account, hint) in pending.hints {
                    self.shared.hint_channel(account, hint);
                }
                self.done(Outcome::Applied { version: self.row.execution.version });
            }
            Committed::Conflict => self.done(Outcome::Conflict),
            Committed::LeaseLost | Committed::Closed => self.done(Outcome::Lost),
        }
    }

    fn done(&self, outcome: Outcome) {
        let execution = &self.row.execution;
        let done = Done { execution: execution.id, outcome, status: execution.status, wake: execution.wake_at() };
        self.shared.to_shard(execution.id, ShardMessage::Done(Box::new(done)));
    }
}

/// Which of its timers a waking execution means. For one that has none the core says why not.
fn which_timer(execution: &Execution, now: Timestamp) -> Trigger {
    let deadline_passed = execution.next_execution_at.is_none_or(|at| at <= now);
    if execution.status == Status::WaitingTrigger && !deadline_passed { Trigger::CheckDue } else { Trigger::Due }
}

fn finish_row(row: FinishSend, details: Option<&SendDetails>) -> Finish {
    Finish {
        send: row.send,
        status: row.status,
        parked: row.parked,
        class: row.class,
        error: row.error,
        receipt: details.map(|d| d.receipt.clone()),
        account: details.map(|d| d.account),
        rest_until: details.and_then(|d| d.rest_until),
        open_gate: true,
    }
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
