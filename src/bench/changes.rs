//! The flow's own changes, made by the pure core: what the writer is given when people go through the seed's campaign.
//!
//! A [`Player`] is one person who is contacted, accepts, and never replies: a step is due, its send ends well, the
//! invitation is accepted, until the flow is over. Used for the floors and by the benches of single pieces.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::domain::account::Channel;
use crate::domain::execution::{Execution, Status};
use crate::domain::flow::{self, Flow};
use crate::domain::id::{AccountId, CampaignId, ExecutionId, ProspectId, WorkspaceId};
use crate::domain::send::{Receipt, SendOutcome, SendStatus};
use crate::domain::step::{Decision, Effect, step};
use crate::domain::time::Timestamp;
use crate::domain::trigger::Trigger;
use crate::store::writer::{Change, Finish, Move, NewSend};

/// The seed's campaign, as `examples/seed.json` has it.
const SEED: &str = include_str!("../../examples/seed.json");

/// Changes of a person who goes through the seed's campaign and accepts the invitation. The engine decides what an
/// acceptance makes due together with it, so they hold one transition more than they are.
pub const CHANGES: usize = 6;

/// The seed's flow, as a campaign stores it.
pub fn seed_json() -> serde_json::Value {
    let mut file: serde_json::Value = serde_json::from_str(SEED).unwrap_or_default();
    file["flow_settings"].take()
}

/// The seed's flow. `None` if the example is not one.
pub fn seed_flow() -> Option<Arc<Flow>> {
    flow::parse(&seed_json()).ok().map(Arc::new)
}

/// A person going through a flow.
#[derive(Clone, Debug)]
pub struct Player {
    flow: Arc<Flow>,
    execution: Execution,
    accounts: [AccountId; 2],
    now: Timestamp,
}

impl Player {
    /// At the first step, due at `now`, of version 1. `accounts`: for LinkedIn and for mail.
    pub fn new(
        flow: Arc<Flow>,
        ids: (WorkspaceId, CampaignId, ProspectId, ExecutionId),
        accounts: [AccountId; 2],
        now: Timestamp,
    ) -> Self {
        let (workspace, campaign, prospect, id) = ids;
        let execution = Execution { version: 1, ..Execution::new(id, workspace, campaign, prospect, 1, now) };
        Self { flow, execution, accounts, now }
    }

    /// The state it is in.
    pub const fn execution(&self) -> &Execution {
        &self.execution
    }

    /// The flow it goes through.
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// What happens to it next, and when; `None` when it is through.
    pub fn trigger(&self) -> Option<(Trigger, Timestamp)> {
        let e = &self.execution;
        let due = e.next_execution_at.map_or(self.now, |at| at.max(self.now));
        match (e.status, e.open_send) {
            (Status::Pending, _) => Some((Trigger::Due, due)),
            (Status::Executing, Some(send)) => {
                Some((Trigger::SendFinished { send, outcome: SendOutcome::Sent }, self.now))
            }
            (Status::WaitingTrigger, _) => Some((Trigger::ConnectionAccepted, self.now)),
            _ => None,
        }
    }

    /// Takes the next step, and what it makes due at once, and answers the change the writer would be given, as the engine
    /// makes it. `None` when it is through.
    pub fn play(&mut self) -> Option<Change> {
        let (trigger, at) = self.trigger()?;
        let mut change = Change {
            next: self.execution.clone(),
            step_id: None,
            at,
            moves: Vec::new(),
            sends: Vec::new(),
            cancel: Vec::new(),
            finish: Vec::new(),
        };
        self.decide(&mut change, trigger)?;
        while self.execution.status == Status::Pending && self.execution.wake_at().is_some_and(|due| due <= at) {
            self.decide(&mut change, Trigger::Due)?;
        }
        change.next = self.execution.clone();
        change.step_id = self.flow.step(change.next.current_step).map(|s| s.id.clone());
        self.now = at;
        Some(change)
    }

    fn decide(&mut self, change: &mut Change, trigger: Trigger) -> Option<()> {
        let Decision::Transition { next, effects } = step(&self.execution, &self.flow, &trigger, change.at) else {
            return None;
        };
        let mut next = *next;
        for effect in effects {
            match effect {
                Effect::Send(intent) => {
                    let channel = intent.action.channel()?;
                    let account = self.account(channel);
                    next.accounts.set(channel, account);
                    change.sends.push(NewSend { intent, account });
                }
                Effect::CancelSend(send) => change.cancel.push(send),
                Effect::FinishSend(row) => {
                    let channel = self.flow.step(self.execution.current_step).and_then(|s| s.action.channel());
                    change.finish.push(Finish {
                        send: row.send,
                        status: row.status,
                        parked: row.parked,
                        class: row.class,
                        error: row.error,
                        receipt: (row.status == SendStatus::Sent).then(|| self.receipt(channel)),
                        account: channel.map(|c| self.account(c)),
                        rest_until: None,
                        open_gate: true,
                        brake: None,
                    });
                }
            }
        }
        let before = std::mem::replace(&mut self.execution, next);
        change.moves.push(Move {
            trigger,
            from_status: before.status,
            from_step: before.current_step,
            to_status: self.execution.status,
            to_step: self.execution.current_step,
        });
        Some(())
    }

    const fn account(&self, channel: Channel) -> AccountId {
        let [linkedin, mail] = self.accounts;
        match channel {
            Channel::Email => mail,
            Channel::Linkedin | Channel::Whatsapp => linkedin,
        }
    }

    /// As the provider answers for the channel.
    fn receipt(&self, channel: Option<Channel>) -> Receipt {
        let person = self.execution.id.0.simple();
        let step = self.execution.current_step;
        match channel {
            Some(Channel::Email) => Receipt {
                message_id: Some(format!("mail-{person}-{step}")),
                tracking_id: Some(format!("track-{person}-{step}")),
                ..Receipt::default()
            },
            _ if step == 1 => Receipt {
                recipient_id: Some(format!("ACoAA{person}")),
                invitation_id: Some(format!("inv-{person}")),
                ..Receipt::default()
            },
            _ => Receipt {
                recipient_id: Some(format!("ACoAA{person}")),
                chat_id: Some(format!("chat-{person}")),
                message_id: Some(format!("msg-{person}-{step}")),
                ..Receipt::default()
            },
        }
    }
}

/// Batches of `size` changes, each by another person, with everybody at another point of the flow: what a lane is given while
/// many people are under way. The first [`CHANGES`] batches are smaller: people come in bit by bit. Ends when a full batch
/// cannot be made any more.
#[derive(Debug)]
pub struct Batches {
    size: usize,
    waiting: VecDeque<Player>,
    active: VecDeque<Player>,
    made: usize,
}

impl Batches {
    /// Over these people, in their order.
    pub fn new(players: impl IntoIterator<Item = Player>, size: usize) -> Self {
        Self { size, waiting: players.into_iter().collect(), active: VecDeque::new(), made: 0 }
    }
}

impl Iterator for Batches {
    type Item = Vec<Change>;

    fn next(&mut self) -> Option<Vec<Change>> {
        let wanted = if self.made < CHANGES { self.size * (self.made + 1) / CHANGES } else { self.size };
        while self.active.len() < wanted {
            self.active.push_back(self.waiting.pop_front()?);
        }
        self.made += 1;
        let mut batch = Vec::with_capacity(self.size);
        for _ in 0..self.active.len() {
            let mut player = self.active.pop_front()?;
            batch.extend(player.play());
            if player.trigger().is_some() {
                self.active.push_back(player);
            }
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use uuid::Uuid;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_767_603_600_000_000);

    fn player(n: u128) -> Player {
        let id = Uuid::from_u128;
        let ids = (WorkspaceId(id(1)), CampaignId(id(2)), ProspectId(id(n)), ExecutionId(id(n)));
        Player::new(seed_flow().unwrap(), ids, [AccountId(id(3)), AccountId(id(4))], NOW)
    }

    #[test]
    fn a_player_goes_through_the_whole_campaign_in_six_changes_and_seven_transitions() {
        let mut player = player(9);
        let changes: Vec<Change> = std::iter::from_fn(|| player.play()).collect();
        assert_eq!((changes.len(), player.execution().status), (CHANGES, Status::Completed));
        let triggers: Vec<&str> = changes.iter().flat_map(|c| &c.moves).map(|m| m.trigger.name()).collect();
        assert_eq!(
            triggers,
            ["due", "send_finished", "connection_accepted", "due", "send_finished", "due", "send_finished"]
        );
        assert_eq!(player.execution().version, 8);
        assert_eq!(changes.iter().map(|c| c.sends.len()).sum::<usize>(), 3);
        assert!(changes.iter().flat_map(|c| &c.finish).all(|f| f.receipt.is_some() && f.account.is_some()));
    }

    #[test]
    fn batches_are_full_and_mixed_once_everybody_is_in_and_hold_nobody_twice() {
        let batches: Vec<Vec<Change>> = Batches::new((10..1010).map(player), 70).collect();
        assert_eq!(batches[..CHANGES].iter().map(Vec::len).collect::<Vec<_>>(), [11, 23, 35, 46, 58, 70]);
        assert!(batches.len() > 80);
        for batch in &batches[CHANGES..] {
            let people: HashSet<ExecutionId> = batch.iter().map(|c| c.next.id).collect();
            let kinds: HashSet<&str> = batch.iter().flat_map(|c| &c.moves).map(|m| m.trigger.name()).collect();
            assert_eq!((batch.len(), people.len(), kinds.len()), (70, 70, 3));
        }
    }
}
