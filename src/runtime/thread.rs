//! The thread that a mail goes on in: which mail it answers, and under which subject. And what it is tracked for.

use super::shared::Shared;
use crate::domain::flow::{Step, Track};
use crate::domain::send::Action;
use crate::store;
use crate::store::send::{Dispatch, Thread, thread};

/// The mail that a step's mail answers. `None`: it begins a thread of its own, as asked for or because there is no mail yet.
pub(super) async fn of_step(shared: &Shared, row: &Dispatch, step: &Step) -> Result<Option<Thread>, store::Error> {
    if !step.in_thread {
        return Ok(None);
    }
    thread(&shared.pool, row.send.execution, row.send.account).await
}

/// The same for a row that was claimed before: whatever cannot be read is done without, the subject still tells.
pub(super) async fn of_row(shared: &Shared, row: &Dispatch) -> Option<Thread> {
    if row.send.action != Action::SendEmail {
        return None;
    }
    let flow = shared.roster.flow(row.send.campaign, row.send.flow_version).await.ok()?;
    of_step(shared, row, flow.step(row.send.step)?).await.ok()?
}

/// What a mail that was claimed before is tracked for.
pub(super) async fn track_of_row(shared: &Shared, row: &Dispatch) -> Track {
    let flow = shared.roster.flow(row.send.campaign, row.send.flow_version).await.ok();
    flow.and_then(|flow| Some(flow.step(row.send.step)?.track)).unwrap_or_default()
}

/// The subject of a mail: the thread's, where it goes on in one; its own, where there is none.
pub(super) fn subject(step: &Step, thread: Option<&Thread>, own: Option<String>) -> Result<Option<String>, String> {
    if !step.in_thread {
        return Ok(own);
    }
    match thread.and_then(Thread::answer_subject).or(own) {
        Some(subject) => Ok(Some(subject)),
        None => Err(format!(
            "step `{}` answers an earlier mail, but none was sent: give it a subject for that case",
            step.id
        )),
    }
}
