//! The note of an invitation: whether it is sent, and what its refusal means for the step.
//!
//! The core decides that an invitation which was refused for its note is another send; that its text is left out then is
//! found here, from the rows of the tries before.

use super::shared::Shared;
use crate::domain::flow::Step;
use crate::domain::send::FailureClass;
use crate::store;
use crate::store::send::{Dispatch, note_refused};

/// The provider's word for a note that is too long for the account.
const TOO_LONG: &str = "errors/too_many_characters";

/// Whether this try leaves out the note: an earlier one was refused for it.
pub(super) async fn is_left_out(shared: &Shared, row: &Dispatch, step: &Step) -> Result<bool, store::Error> {
    if row.attempt <= 1 || !step.goes_without_note() {
        return Ok(false);
    }
    note_refused(&shared.pool, row.send.execution, row.send.step).await
}

/// What a refusal means for a step that is not sent without its note: a quota of notes comes back, a note does not become
/// shorter.
pub(super) fn class(class: FailureClass, code: &str, goes_without: bool) -> FailureClass {
    match class {
        FailureClass::NoteRefused if !goes_without && code == TOO_LONG => FailureClass::Rejected,
        FailureClass::NoteRefused if !goes_without => FailureClass::AccountQuota,
        other => other,
    }
}

/// Whether the refusal says that there will be no notes for a while.
pub(super) fn is_used_up(class: FailureClass, code: &str) -> bool {
    class == FailureClass::NoteRefused && code != TOO_LONG
}
