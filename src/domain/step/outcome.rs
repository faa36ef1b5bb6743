//! What a send's outcome does to its execution.

use super::moves::Moves;
use super::{FinishSend, Rejected};
use crate::domain::execution::{ConnectionStatus, Status};
use crate::domain::id::SendId;
use crate::domain::retry;
use crate::domain::send::{Action, FailureClass, SendOutcome, SendStatus};

/// Handles [`SendOutcome`] of the open send. While paused, the execution goes on underneath and stays paused.
pub(super) fn finish(m: &mut Moves<'_>, send: SendId, outcome: &SendOutcome) -> Result<(), Rejected> {
    if m.next.open_send != Some(send) {
        return Err(Rejected::Late);
    }
    let underneath = if m.next.status == Status::Paused { m.next.paused_status } else { Some(m.next.status) };
    if underneath == Some(Status::Executing) {
        m.while_unpaused(|m| settle(m, send, outcome));
    } else {
        overtaken(m, send, outcome);
    }
    Ok(())
}

fn settle(m: &mut Moves<'_>, send: SendId, outcome: &SendOutcome) {
    let Some(step) = m.current() else {
        // A row changed by hand: there is no step to go on with, but what happened is recorded.
        overtaken(m, send, outcome);
        return if m.next.open_send.is_none() {
            m.finish()
        };
    };
    let mut row = FinishSend { send, status: SendStatus::Sent, parked: false, class: None, error: None };
    match outcome {
        SendOutcome::Sent => {
            m.next.open_send = None;
            record(m, step.action);
            m.succeeded(step);
        }
        SendOutcome::Failed { class, error } => {
            row.status = SendStatus::Failed;
            row.class = Some(*class);
            row.error = Some(error.clone());
            match class {
                FailureClass::AlreadyDone => {
                    m.next.open_send = None;
                    if step.action == Action::SendLinkedinCr {
                        m.next.linkedin.connection_status = Some(ConnectionStatus::Accepted);
                    }
                    m.next.last_executed_at = Some(m.now);
                    m.succeeded(step);
                }
                FailureClass::RetryLater => {
                    m.error(error);
                    m.next.open_send = None;
                    if m.next.attempt >= retry::ATTEMPTS_MAX {
                        m.step_failed(step);
                    } else {
                        let wait = retry::backoff(m.next.id, m.next.current_step, m.next.attempt);
                        m.next.status = Status::Pending;
                        m.next.next_execution_at = Some(m.now + wait);
                    }
                }
                // The account's trouble, not the prospect's: it keeps its place, with the same send.
                FailureClass::AccountQuota
                | FailureClass::AccountBroken
                | FailureClass::KeyRefused
                | FailureClass::Unavailable => {
                    row.status = SendStatus::Pending;
                    m.next.last_error = Some(error.clone());
                }
                // Another send, due now: its text is no part of the decision, whoever carries it out leaves the note out.
                FailureClass::NoteRefused if step.goes_without_note() && m.next.attempt < retry::ATTEMPTS_MAX => {
                    m.next.last_error = Some(error.clone());
                    m.next.open_send = None;
                    m.next.status = Status::Pending;
                    m.next.next_execution_at = Some(m.now);
                }
                FailureClass::RecipientPermanent | FailureClass::Rejected | FailureClass::NoteRefused => {
                    m.error(error);
                    m.next.open_send = None;
                    m.step_failed(step);
                }
            }
        }
        SendOutcome::Unknown { error } => {
            row.status = SendStatus::Unknown;
            row.error = Some(error.clone());
            m.next.last_error = Some(error.clone());
        }
        // The same send again, for what is known of it: each call was one of the step's tries.
        SendOutcome::NotSent if m.next.attempt < retry::ATTEMPTS_MAX => {
            m.next.attempt = m.next.attempt.saturating_add(1);
            row.status = SendStatus::Pending;
        }
        SendOutcome::NotSent => {
            let error = format!("called {} times, and each time the provider shows no trace of it", m.next.attempt);
            m.error(&error);
            (row.status, row.parked, row.error) = (SendStatus::Unknown, true, Some(error));
        }
        SendOutcome::Unresolved { error } => {
            row.status = SendStatus::Unknown;
            row.parked = true;
            row.error = Some(error.clone());
            m.error(error);
        }
    }
    m.finish_send(row);
}

/// The step was skipped, or the execution ended, while the provider was being called: what was sent is recorded, what was
/// not is not sent any more.
fn overtaken(m: &mut Moves<'_>, send: SendId, outcome: &SendOutcome) {
    let mut row = FinishSend { send, status: SendStatus::Cancelled, parked: false, class: None, error: None };
    match outcome {
        SendOutcome::Sent => {
            row.status = SendStatus::Sent;
            m.next.open_send = None;
            // The step of this send is not known any more from the position; its channel facts are what counts.
            if let Some(step) = position_of(m, send).and_then(|position| m.flow.step(position)) {
                record(m, step.action);
            }
        }
        SendOutcome::Failed { class, error } => {
            m.next.open_send = None;
            row.class = Some(*class);
            row.error = Some(error.clone());
            let is_accounts = matches!(
                class,
                FailureClass::AccountQuota
                    | FailureClass::AccountBroken
                    | FailureClass::KeyRefused
                    | FailureClass::Unavailable
            );
            if !is_accounts {
                row.status = SendStatus::Failed;
            }
        }
        SendOutcome::NotSent => m.next.open_send = None,
        SendOutcome::Unknown { error } => {
            row.status = SendStatus::Unknown;
            row.error = Some(error.clone());
        }
        SendOutcome::Unresolved { error } => {
            row.status = SendStatus::Unknown;
            row.parked = true;
            row.error = Some(error.clone());
            // A person decides about the send now; what the operator chose instead need not wait for that.
            m.next.open_send = None;
        }
    }
    m.finish_send(row);
}

/// The step of the last send of this execution, found by deriving the ids of every step again: a final execution's
/// position no longer tells which step its last send was for.
fn position_of(m: &Moves<'_>, send: SendId) -> Option<u32> {
    (1..=m.flow.len()).find(|position| {
        (1..=retry::ATTEMPTS_MAX)
            .any(|attempt| SendId::derive(m.next.id, *position, attempt, m.next.send_sequence) == send)
    })
}

/// The channel's facts after a send.
fn record(m: &mut Moves<'_>, action: Action) {
    let now = Some(m.now);
    let next = &mut m.next;
    next.last_executed_at = now;
    match action {
        Action::SendLinkedinCr => {
            next.linkedin.connection_status.get_or_insert(ConnectionStatus::Pending);
        }
        Action::SendLinkedinMessage | Action::SendLinkedinInmail => {
            next.linkedin.message_count = next.linkedin.message_count.saturating_add(1);
            next.linkedin.last_message_at = now;
        }
        Action::SendEmail => {
            next.email.sent_count = next.email.sent_count.saturating_add(1);
            next.email.last_sent_at = now;
        }
        Action::SendWhatsapp => {
            next.whatsapp.sent_count = next.whatsapp.sent_count.saturating_add(1);
            next.whatsapp.last_sent_at = now;
        }
        Action::VisitLinkedinProfile | Action::Wait => {}
    }
}
