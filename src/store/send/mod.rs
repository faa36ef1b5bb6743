//! Sends: what is open, what a dispatch needs to know, and the claim that authorises a provider call.
//!
//! Owns the reads of `sends`, the gate of an account, and an account's halt. Rows of `sends` are made and ended by
//! [`super::writer`], together with the transition that decides; these files only move `pending -> dispatching`, in
//! [`claim()`]: *no committed claim, no provider call*. Called by `runtime`'s channel actors and its reconciliation.

use uuid::Uuid;

use crate::domain::id::{SendId, WorkspaceId};

mod account;
mod claim;
mod echo;
mod load;
mod note;
pub mod review;
mod settle;
mod thread;
mod walk;

pub use account::{halt_account, hold_accounts, is_busy, let_go_accounts, reopen_stale_gates, resume_account};
pub use claim::{Claim, ClaimOutcome, ClaimResult, Spent, claim};
pub use echo::{in_hand, of_send, said};
pub use load::{Dispatch, Gate, Learnt, OpenSend, in_flight, load_for_dispatch, open_sends};
pub use note::note_refused;
pub use settle::{Orphan, close_orphan, count_settle};
pub use thread::{Thread, thread};

/// A send's key without its partition.
pub type SendKey = (WorkspaceId, SendId);

/// A count as the program has it.
fn count(n: i32) -> u32 {
    u32::try_from(n).unwrap_or(0)
}

/// The keys as two columns.
fn keys(sends: &[SendKey]) -> (Vec<Uuid>, Vec<Uuid>) {
    sends.iter().map(|(workspace, send)| (workspace.0, send.0)).unzip()
}
