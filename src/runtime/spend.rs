//! What a send uses up of its account's budget: asked before the claim, written by it.

use std::time::Duration;

use super::meters::deferred;
use crate::domain::account::Account;
use crate::domain::budget::{Decision, History, Kind, QUOTA_REST, Why, rest_after_usage};
use crate::domain::id::SendId;
use crate::domain::send::{Action, FailureClass, Receipt, SendOutcome};
use crate::domain::time::Timestamp;
use crate::provider::SendRequest;
use crate::store::send::{Dispatch, Spent};

/// What a budget says about a send.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Spend {
    /// Go on. The claim writes what is spent, if the account has a budget; afterwards the account rests for [`gap`].
    Now(Option<Spent>),
    /// The account does nothing at all before that.
    Closed(Timestamp),
    /// The account does nothing of this kind before that.
    /// [`Timestamp::MAX`]: as long as its limits are what they are.
    Scarce(Kind, Timestamp),
    /// Go on, but without the note: the account sends no more of them now.
    WithoutNote,
    /// Nobody knows what the account has done: nothing may be sent.
    Unreadable(String),
}

/// The kind of a send, by what it turned out to be.
pub(super) fn kind_of(action: Action, body: Option<&str>, knows_chat: bool) -> Option<Kind> {
    Kind::of(action, body.is_some_and(|text| !text.is_empty()), !knows_chat)
}

/// How long an account rests after a send: the same for the same send, whoever works it out.
pub(super) fn gap(account: &Account, send: SendId) -> Duration {
    let least = Duration::from_millis(u64::from(account.min_gap_ms));
    account.budget.as_ref().map_or(least, |budget| budget.spacing.gap(account.id, send).max(least))
}

/// Asks the account's budget. `goes_without_note`: an invitation for which it is enough that it may go without its note.
pub(super) fn spend(
    account: &Account,
    row: &Dispatch,
    request: &SendRequest,
    goes_without_note: bool,
    now: Timestamp,
) -> Spend {
    let free = Spend::Now(None);
    let Some(budget) = &account.budget else { return free };
    let knows_chat = request.recipient.chat_id.is_some();
    let Some(mut kind) = kind_of(request.action, request.body.as_deref(), knows_chat) else { return free };
    let Some(gate) = &row.gate else { return Spend::Unreadable("the account has no gate".to_owned()) };
    let mut history = match History::of_gate(gate.history.as_ref(), gate.rests.as_ref()) {
        Ok(history) => history,
        Err(why) => return Spend::Unreadable(why),
    };
    let decide = |kind| budget.decide(&history, kind, (account.id, account.since), request.send, now);
    let mut decision = decide(kind);
    if kind == Kind::InviteWithNote && goes_without_note && !matches!(decision, Decision::Allowed { .. }) {
        // It waits as long as one without a note, not until there are notes again.
        kind = Kind::Invite;
        decision = decide(kind);
        if matches!(decision, Decision::Allowed { .. }) {
            return Spend::WithoutNote;
        }
    }
    match decision {
        Decision::Allowed { .. } => {
            history.note(kind, now);
            // Looking up who it is counts with the provider as a look at the profile.
            if looks_up(request) {
                history.note(Kind::ProfileVisit, now);
            }
            Spend::Now(Some(Spent { used: gate.used, history: history.to_json() }))
        }
        // Only until it opens: what stands in the way of this kind after that is no reason for others to wait.
        Decision::Wait { until, why: Why::Closed } => {
            deferred(account.channel, "hours");
            Spend::Closed(budget.hours.as_ref().map_or(until, |hours| hours.next_open(now)))
        }
        Decision::Wait { until, why: why @ (Why::Resting | Why::DayFull { .. } | Why::WeekFull { .. }) } => {
            deferred(
                account.channel,
                match why {
                    Why::DayFull { .. } => "day",
                    Why::WeekFull { .. } => "week",
                    Why::Resting | Why::Closed => "rest",
                },
            );
            Spend::Scarce(kind, until)
        }
        Decision::Never { .. } => Spend::Scarce(kind, Timestamp::MAX),
    }
}

/// Whether carrying it out begins with reading the person's profile, whose id nothing has told yet.
fn looks_up(request: &SendRequest) -> bool {
    let known = match request.action {
        Action::SendLinkedinMessage => request.recipient.chat_id.is_some(),
        Action::SendLinkedinCr | Action::SendLinkedinInmail => false,
        Action::VisitLinkedinProfile | Action::SendEmail | Action::SendWhatsapp | Action::Wait => true,
    };
    !known && request.recipient.recipient_id.is_none()
}

/// What rests after an outcome: the provider has said that a quota is used up, or nearly so. `None` also for an account
/// without a budget, which rests as a whole, and for one that was too fast.
pub(super) fn brake_after(
    account: &Account,
    request: &SendRequest,
    (outcome, receipt): (&SendOutcome, &Receipt),
    throttled: bool,
    now: Timestamp,
) -> Option<(Kind, Timestamp)> {
    let rest = match outcome {
        SendOutcome::Failed { class: FailureClass::AccountQuota, .. } if !throttled => QUOTA_REST,
        SendOutcome::Sent => rest_after_usage(receipt.usage_percent?.into())?,
        _ => return None,
    };
    brake_until(account, request, now + rest)
}

/// The rest of what a send is of, for an account with a budget.
pub(super) fn brake_until(account: &Account, request: &SendRequest, until: Timestamp) -> Option<(Kind, Timestamp)> {
    account.budget.as_ref()?;
    let kind = match kind_of(request.action, request.body.as_deref(), request.recipient.chat_id.is_some())? {
        // All invitations are meant: that notes alone are used up is said otherwise.
        Kind::InviteWithNote => Kind::Invite,
        kind => kind,
    };
    Some((kind, until))
}
