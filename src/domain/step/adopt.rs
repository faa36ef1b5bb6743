//! Rows that another program made (version 0), taken over from where they stand.

use super::Rejected;
use super::moves::Moves;
use crate::domain::execution::{Execution, Status};
use crate::domain::flow::Flow;
use crate::domain::send::SendStatus;

/// Whether a row needs [`Trigger::Adopted`](crate::domain::trigger::Trigger::Adopted) before it can run: it lacks what
/// would wake it up. A row as `initialize_execution_state` makes it does not, nor does any row that this core wrote; one
/// that another program writes to later does again, whatever its version.
pub fn needs_mending(execution: &Execution, flow: &Flow) -> bool {
    lacks_something(execution, execution.status, flow)
}

fn lacks_something(execution: &Execution, status: Status, flow: &Flow) -> bool {
    match status {
        Status::Completed | Status::Failed => false,
        Status::Paused => match execution.paused_status {
            None | Some(Status::Paused | Status::Completed | Status::Failed) => true,
            Some(underneath) => lacks_something(execution, underneath, flow),
        },
        Status::Executing => execution.open_send.is_none(),
        Status::Pending => execution.next_execution_at.is_none() || flow.step(execution.current_step).is_none(),
        Status::WaitingTrigger => {
            execution.next_execution_at.is_none()
                || execution.next_check_at.is_none()
                || execution.waiting_for_trigger.is_none()
                || execution.trigger_max_checks == 0
                || flow.step(execution.current_step).is_none()
        }
    }
}

/// Gives the row what it lacks: a wake-up, or a send to be settled.
pub(super) fn mend(m: &mut Moves<'_>) -> Result<(), Rejected> {
    m.unless_final()?;
    if !needs_mending(&m.next, m.flow) {
        return Err(Rejected::NothingToMend);
    }
    if m.next.status == Status::Paused {
        let underneath = match m.next.paused_status {
            Some(known @ (Status::Pending | Status::Executing | Status::WaitingTrigger)) => known,
            _ if m.next.waiting_for_trigger.is_some() => Status::WaitingTrigger,
            _ => Status::Pending,
        };
        m.next.paused_status = Some(underneath);
    }
    m.while_unpaused(mend_unpaused);
    Ok(())
}

fn mend_unpaused(m: &mut Moves<'_>) {
    m.next.current_step = m.next.current_step.max(1);
    let Some(step) = m.current() else { return m.execute() };
    match m.next.status {
        // The old orchestrator may or may not have sent it: a send of ours in `unknown` makes the channel read back
        // from the provider before anything is sent.
        Status::Executing if step.action.channel().is_some() => m.send(step, SendStatus::Unknown),
        Status::Executing => {
            m.next.status = Status::Pending;
            m.next.next_execution_at = Some(m.now);
        }
        Status::WaitingTrigger => {
            let wait = m.wait();
            m.next.waiting_for_trigger.get_or_insert(wait.trigger);
            m.next.next_check_at.get_or_insert(m.now + wait.check_every);
            m.next.next_execution_at.get_or_insert(m.now + wait.timeout);
            if m.next.trigger_max_checks == 0 {
                m.next.trigger_max_checks = wait.max_checks;
            }
        }
        Status::Pending => {
            m.next.next_execution_at.get_or_insert(m.now);
        }
        Status::Completed | Status::Failed | Status::Paused => {}
    }
}
