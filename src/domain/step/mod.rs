//! The step state machine: `(execution, flow, trigger, now) -> decision`.
//!
//! Pure: no await, no clock, no randomness. A decision taken again from the same arguments is the same decision, which is
//! what makes replaying transitions and re-deciding after a crash sound. A late or repeated trigger is data
//! ([`Rejected`]), never an error.
//!
//! Invariants (properties in `tests`): only [`Trigger::Due`] and [`Trigger::Adopted`] create a send, and only when none is
//! open; every state that is not final has a wake-up or an open send; nothing is sent after a reply that ends the flow.

use super::execution::{BounceStatus, ConnectionStatus, Execution, ExitReason, Status, WaitTrigger};
use super::flow::Flow;
use super::id::SendId;
use super::send::{FailureClass, SendIntent, SendOutcome, SendStatus};
use super::time::Timestamp;
use super::trigger::Trigger;

mod adopt;
mod moves;
mod outcome;
#[cfg(test)]
mod tests;

pub use adopt::needs_mending;
use moves::Moves;

/// What a trigger does to an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The execution changes; `next.version` is one more than before.
    Transition {
        /// The state after it.
        next: Box<Execution>,
        /// What has to become durable with it.
        effects: Vec<Effect>,
    },
    /// Nothing changes.
    Rejected(Rejected),
}

/// A change to the `sends` table that is part of a transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A new send.
    Send(SendIntent),
    /// Take a send back, if nobody has been called yet.
    CancelSend(SendId),
    /// Record how a send ended, or that it goes back to pending.
    FinishSend(FinishSend),
}

/// How a send's row changes when its outcome arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishSend {
    /// Which.
    pub send: SendId,
    /// `Sent`, `Failed`, `Unknown`, `Cancelled`, or `Pending` when it is to be dispatched again.
    pub status: SendStatus,
    /// Whether reading back has been given up: a person decides.
    pub parked: bool,
    /// Why it failed.
    pub class: Option<FailureClass>,
    /// For people.
    pub error: Option<String>,
}

/// Why a trigger changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejected {
    /// The time has not come.
    NotDue,
    /// It is about a send that is not open (any more).
    Late,
    /// The execution has ended.
    AlreadyFinal,
    /// The fact is recorded already.
    AlreadyKnown,
    /// The execution is paused.
    Paused,
    /// Resume of an execution that is not paused.
    NotPaused,
    /// The status does not take this trigger.
    NotWaiting,
    /// Restart at a step that the flow does not have.
    NoSuchStep,
    /// A send has no outcome yet, so no other may be decided.
    SendUnderWay,
    /// The row needs no mending.
    NothingToMend,
}

impl Rejected {
    /// The stable name for answers, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotDue => "not_due",
            Self::Late => "late",
            Self::AlreadyFinal => "already_final",
            Self::AlreadyKnown => "already_known",
            Self::Paused => "paused",
            Self::NotPaused => "not_paused",
            Self::NotWaiting => "not_waiting",
            Self::NoSuchStep => "no_such_step",
            Self::SendUnderWay => "send_under_way",
            Self::NothingToMend => "nothing_to_mend",
        }
    }
}

/// Decides what a trigger does to an execution at `now`.
pub fn step(execution: &Execution, flow: &Flow, trigger: &Trigger, now: Timestamp) -> Decision {
    match decide(execution, flow, trigger, now) {
        Ok(moves) => moves.into_decision(),
        Err(why) => Decision::Rejected(why),
    }
}

fn decide<'f>(execution: &Execution, flow: &'f Flow, trigger: &Trigger, now: Timestamp) -> Result<Moves<'f>, Rejected> {
    let mut m = Moves::new(execution, flow, now);
    match trigger {
        Trigger::Adopted => adopt::mend(&mut m)?,
        Trigger::Due => due(&mut m)?,
        Trigger::CheckDue => check_due(&mut m)?,
        Trigger::SendFinished { send, outcome } => outcome::finish(&mut m, *send, outcome)?,
        // Facts are recorded after the end as well (the state columns are kept current), and then change nothing else.
        Trigger::ConnectionAccepted => {
            if m.next.is_connected() {
                return Err(m.known());
            }
            m.next.linkedin.connection_status = Some(ConnectionStatus::Accepted);
            m.while_unpaused(|m| m.trigger_arrived(WaitTrigger::ConnectionAccepted));
        }
        Trigger::Reply { channel } => {
            let known = std::mem::replace(m.replied(*channel), true);
            if m.flow.stop_on.reply && !m.next.status.is_final() {
                m.complete(ExitReason::Replied);
            } else if known {
                return Err(m.known());
            } else {
                m.while_unpaused(|m| m.trigger_arrived(WaitTrigger::Reply));
            }
        }
        Trigger::Bounce { status } => {
            match (m.next.email.bounce_status, status) {
                (Some(BounceStatus::Hard), _) | (Some(BounceStatus::Soft), BounceStatus::Soft) => {
                    return Err(m.known());
                }
                (Some(BounceStatus::Soft) | None, _) => m.next.email.bounce_status = Some(*status),
            }
            if *status == BounceStatus::Hard && m.flow.stop_on.hard_bounce && !m.next.status.is_final() {
                m.fail(ExitReason::Bounced);
            }
        }
        Trigger::Seen { channel, how } => {
            if !m.seen(*channel, *how) {
                return Err(m.known());
            }
        }
        Trigger::HumanTookOver { channel } => {
            m.pause()?;
            m.next.last_error =
                Some(format!("somebody wrote to this person by hand ({channel}): resume when it is yours again"));
        }
        // Whatever `stop_on` says: nobody is written to after asking not to be.
        Trigger::Unsubscribe => {
            m.unless_final()?;
            m.complete(ExitReason::Unsubscribed);
        }
        // Before anybody was called: what was decided to be sent is taken back.
        Trigger::Suppressed { .. } => {
            m.unless_final()?;
            m.complete(ExitReason::Suppressed);
        }
        Trigger::SendResolved { send, sent, .. } => {
            let outcome = if *sent { SendOutcome::Sent } else { SendOutcome::NotSent };
            // Whoever has it sent again means it: the tries that were used up count no more.
            if !sent && m.next.open_send == Some(*send) {
                m.next.attempt = 0;
            }
            outcome::finish(&mut m, *send, &outcome)?;
        }
        Trigger::Pause => m.pause()?,
        Trigger::Resume => {
            if m.next.status != Status::Paused {
                return Err(Rejected::NotPaused);
            }
            m.next.status = m.next.paused_status.take().unwrap_or(Status::Pending);
        }
        Trigger::Skip => {
            m.unless_final()?;
            m.while_unpaused(Moves::skip_now);
        }
        Trigger::Restart { step } => {
            if m.flow.step(*step).is_none() {
                return Err(Rejected::NoSuchStep);
            }
            // Whatever step it is for: until its outcome is known, it could be sent a second time.
            if m.next.open_send.is_some() {
                return Err(Rejected::SendUnderWay);
            }
            m.restart(*step);
        }
        Trigger::Stop => {
            m.unless_final()?;
            m.complete(ExitReason::Stopped);
        }
        Trigger::Quarantine { input } => {
            m.unless_final()?;
            m.error(input);
            m.fail(ExitReason::Quarantined);
        }
    }
    Ok(m)
}

/// A pending step is due, or a wait has reached its deadline.
fn due(m: &mut Moves<'_>) -> Result<(), Rejected> {
    match m.next.status {
        Status::Pending => {
            m.reached(m.next.next_execution_at)?;
            if m.next.open_send.is_some() {
                return Err(Rejected::SendUnderWay);
            }
            m.execute();
        }
        Status::WaitingTrigger => {
            m.reached(m.next.next_execution_at)?;
            m.wait_ends();
        }
        Status::Executing => return Err(Rejected::NotWaiting),
        Status::Paused => return Err(Rejected::Paused),
        Status::Completed | Status::Failed => return Err(Rejected::AlreadyFinal),
    }
    Ok(())
}

/// A wait looks whether what it waits for is already recorded, counts the check, and ends after the last one.
fn check_due(m: &mut Moves<'_>) -> Result<(), Rejected> {
    match m.next.status {
        Status::WaitingTrigger => {}
        Status::Pending | Status::Executing => return Err(Rejected::NotWaiting),
        Status::Paused => return Err(Rejected::Paused),
        Status::Completed | Status::Failed => return Err(Rejected::AlreadyFinal),
    }
    m.reached(m.next.next_check_at)?;
    let wait = m.wait();
    m.next.trigger_check_count = m.next.trigger_check_count.saturating_add(1);
    if m.holds(wait.trigger) || m.next.trigger_check_count >= m.next.trigger_max_checks {
        m.wait_ends();
    } else {
        // Checks keep their rhythm; those that were missed while nothing ran are not made up for.
        let planned = m.next.next_check_at.unwrap_or(m.now) + wait.check_every;
        m.next.next_check_at = Some(if planned > m.now { planned } else { m.now + wait.check_every });
    }
    Ok(())
}
