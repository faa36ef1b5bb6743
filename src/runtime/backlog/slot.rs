//! What stands in one line of an account: who goes before whom, and what uses up the same budget.

use std::cmp::Reverse;

use crate::domain::budget::Kind;
use crate::domain::execution::Execution;
use crate::domain::flow::{Flow, Step};
use crate::domain::send::Action;

/// How far back in line: a higher priority of the campaign stands further ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::runtime) struct Rank(Reverse<i32>);

impl Rank {
    /// Of a campaign with this priority.
    pub(in crate::runtime) const fn of_priority(priority: i32) -> Self {
        Self(Reverse(priority))
    }
}

/// Who goes first at an account, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::runtime) enum Lane {
    /// Something was done for this person already.
    FollowUp,
    /// The first thing that is done for this person.
    First,
}

impl Lane {
    /// Of the send that an execution decides, or has decided and waits for.
    const fn of(execution: &Execution) -> Self {
        if execution.last_executed_at.is_none() { Self::First } else { Self::FollowUp }
    }

    /// Of an open send of which no more is known than its step.
    const fn of_step(step: u32) -> Self {
        if step <= 1 { Self::First } else { Self::FollowUp }
    }
}

/// A line of an account. Each has room of its own: a thousand invitations that wait for tomorrow's budget keep neither a
/// follow-up waiting nor a visit, whose budget has room.
///
/// Ordered as they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::runtime) struct Slot {
    pub(in crate::runtime) lane: Lane,
    /// `None` for what uses up no budget.
    kind: Option<Kind>,
}

impl Slot {
    /// Of the send that an execution decides with this step.
    pub(in crate::runtime) fn of(execution: &Execution, step: Option<&Step>) -> Self {
        let lane = Lane::of(execution);
        let kind = step.and_then(|step| Kind::of(step.action, step.needs_note(), lane == Lane::First));
        Self { lane, kind }
    }

    /// Of an open send of which its row tells no more. Without the flow it may be a guess: a job that waits for a budget moves
    /// to the line it turns out to belong to ([`with_kind`](Self::with_kind)).
    pub(in crate::runtime) fn of_open(action: Action, step: u32, flow: Option<&Flow>) -> Self {
        let lane = Lane::of_step(step);
        let has_text = flow.and_then(|flow| flow.step(step)).is_some_and(Step::needs_note);
        Self { lane, kind: Kind::of(action, has_text, lane == Lane::First) }
    }

    /// The same for what uses up the budget of this kind.
    pub(in crate::runtime) const fn with_kind(self, kind: Kind) -> Self {
        Self { kind: Some(kind), ..self }
    }
}
