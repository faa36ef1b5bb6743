//! From decisions to rows: what one commit of an execution holds.

use super::backlog::{Place, Slot};
use super::shared::{SendHint, Shared};
use super::work::{Runnable, SendDetails};
use crate::domain::execution::Execution;
use crate::domain::id::{AccountId, SendId};
use crate::domain::send::{SendIntent, SendStatus};
use crate::domain::step::{Effect, FinishSend};
use crate::domain::time::Timestamp;
use crate::domain::trigger::Trigger;
use crate::store::writer::{Change, Finish, Move, NewSend};

/// Decisions about one execution that become durable together.
pub(super) struct Plan<'a> {
    shared: &'a Shared,
    row: &'a Runnable,
    /// What came with the outcome of a send, if that is what is decided about.
    details: Option<&'a SendDetails>,
    at: Timestamp,
    /// The state after what was added so far.
    next: Option<Execution>,
    moves: Vec<Move>,
    sends: Vec<NewSend>,
    cancel: Vec<SendId>,
    finish: Vec<Finish>,
    told: Told,
}

/// Whether a decision was taken.
pub(super) enum Added {
    /// It is part of the plan.
    Yes,
    /// It needs an account and there is none.
    NoAccount,
    /// This line of this account has enough to do.
    Full(AccountId, Slot),
}

/// Who is to be told once a plan is durable.
#[derive(Default)]
pub(super) struct Told {
    pub(super) hints: Vec<(AccountId, SendHint)>,
    /// Kept until the channels have been hinted at what was decided.
    places: Vec<Place>,
}

impl<'a> Plan<'a> {
    pub(super) const fn new(
        shared: &'a Shared,
        row: &'a Runnable,
        details: Option<&'a SendDetails>,
        at: Timestamp,
    ) -> Self {
        Self {
            shared,
            row,
            details,
            at,
            next: None,
            moves: Vec::new(),
            sends: Vec::new(),
            cancel: Vec::new(),
            finish: Vec::new(),
            told: Told { hints: Vec::new(), places: Vec::new() },
        }
    }

    /// The state after what was added so far.
    pub(super) fn next(&self) -> &Execution {
        self.next.as_ref().unwrap_or(&self.row.execution)
    }

    /// Adds a decision. One that is not taken has changed nothing. `granted`: where it was given a place.
    pub(super) fn add(
        &mut self,
        trigger: Trigger,
        mut next: Execution,
        effects: Vec<Effect>,
        granted: Option<(AccountId, Slot)>,
    ) -> Added {
        let (mut accounts, mut places) = (Vec::new(), Vec::new());
        for effect in &effects {
            if let Effect::Send(intent) = effect {
                let Some(account) = self.account(&mut next, intent) else { return Added::NoAccount };
                accounts.push(account);
                let slot = Slot::of(&next, self.row.flow.step(intent.step));
                if granted != Some((account, slot)) {
                    let Some(place) = self.shared.backlog(account).enter(slot) else {
                        return Added::Full(account, slot);
                    };
                    places.push(place);
                }
            }
        }
        self.told.places.extend(places);
        let before = self.next();
        let moved = Move {
            trigger,
            from_status: before.status,
            from_step: before.current_step,
            to_status: next.status,
            to_step: next.current_step,
        };
        let workspace = next.workspace;
        let mut accounts = accounts.into_iter();
        for effect in effects {
            match effect {
                Effect::Send(intent) => {
                    if let Some(account) = accounts.next() {
                        self.told.hints.push((account, (workspace, intent.id)));
                        self.sends.push(NewSend { intent, account });
                    }
                }
                Effect::CancelSend(send) => self.cancel.push(send),
                Effect::FinishSend(row) => {
                    if let Some(account) = self.details.map(|d| d.account)
                        && row.status == SendStatus::Pending
                    {
                        self.told.hints.push((account, (workspace, row.send)));
                    }
                    self.finish.push(finish_row(row, self.details));
                }
            }
        }
        self.moves.push(moved);
        self.next = Some(next);
        Added::Yes
    }

    fn account(&self, next: &mut Execution, intent: &SendIntent) -> Option<AccountId> {
        let channel = intent.action.channel()?;
        let account = self.shared.roster.account_for(next, &self.row.campaign, channel)?;
        next.accounts.set(channel, account);
        Some(account)
    }

    /// What is to be written, and who is to be told once it is.
    pub(super) fn into_change(self) -> (Change, Told) {
        let next = self.next.unwrap_or_else(|| self.row.execution.clone());
        let step_id = self.row.flow.step(next.current_step).map(|s| s.id.clone());
        let (moves, sends, cancel, finish) = (self.moves, self.sends, self.cancel, self.finish);
        (Change { next, step_id, at: self.at, moves, sends, cancel, finish }, self.told)
    }
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
        brake: details.and_then(|d| d.brake).map(|(kind, until)| (kind.as_str(), until)),
    }
}
