//! A send: the intent to contact somebody once, what came of it, and why it failed.

use super::account::{Channel, names};
use super::id::SendId;
use super::time::Timestamp;

names! {
    /// What a step does. `send_*` and `visit_*` act through a channel; the others do not.
    Action {
        /// A LinkedIn connection request, with or without a note.
        SendLinkedinCr = "send_linkedin_cr",
        /// A LinkedIn message to a connection.
        SendLinkedinMessage = "send_linkedin_message",
        /// A LinkedIn InMail: a message to somebody who need not be a connection. It costs the account a credit.
        SendLinkedinInmail = "send_linkedin_inmail",
        /// A look at a LinkedIn profile that its owner is told of.
        VisitLinkedinProfile = "visit_linkedin_profile",
        /// A mail.
        SendEmail = "send_email",
        /// A WhatsApp message.
        SendWhatsapp = "send_whatsapp",
        /// Nothing but time, or a trigger.
        Wait = "wait",
    }
}

impl Action {
    /// The channel this action goes through; `None` when it has to do with nobody.
    pub const fn channel(self) -> Option<Channel> {
        match self {
            Self::SendLinkedinCr
            | Self::SendLinkedinMessage
            | Self::SendLinkedinInmail
            | Self::VisitLinkedinProfile => Some(Channel::Linkedin),
            Self::SendEmail => Some(Channel::Email),
            Self::SendWhatsapp => Some(Channel::Whatsapp),
            Self::Wait => None,
        }
    }
}

names! {
    /// Where a send stands (design: none lost, none doubled silently).
    SendStatus {
        /// Decided and durable; nobody has been called yet.
        Pending = "pending",
        /// Claimed: the provider may have been called.
        Dispatching = "dispatching",
        /// The provider has it.
        Sent = "sent",
        /// Definitely not sent, and not to be tried again as this send.
        Failed = "failed",
        /// It may or may not have been sent; to be settled by reading back from the provider.
        Unknown = "unknown",
        /// Taken back before anybody was called.
        Cancelled = "cancelled",
    }
}

names! {
    /// The class of a failure: what the engine does about it.
    FailureClass {
        /// The goal is already reached (already connected): the step counts as done.
        AlreadyDone = "already_done",
        /// Definitely not sent; the same contact may be tried later.
        RetryLater = "retry_later",
        /// The account's quota is used up: the account rests, the prospect keeps its place.
        AccountQuota = "account_quota",
        /// This person cannot be reached this way: the step fails, no retry.
        RecipientPermanent = "recipient_permanent",
        /// The account is broken: it halts, the prospect keeps its place.
        AccountBroken = "account_broken",
        /// The provider refuses our key: nobody's account is to blame, the prospect keeps its place.
        KeyRefused = "key_refused",
        /// The provider was not reached, or failed before anybody was contacted: nobody is to blame, the account rests for a while,
        /// the prospect keeps its place.
        Unavailable = "unavailable",
        /// The content or the request is refused: the step fails, no retry.
        Rejected = "rejected",
        /// Of an invitation the note is refused, and perhaps nothing else: it is sent again without one, where its step lets it.
        NoteRefused = "note_refused",
    }
}

/// How a send ended, as the core sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// The provider has it.
    Sent,
    /// Definitely not sent.
    Failed {
        /// What to do about it.
        class: FailureClass,
        /// For people: the provider's words.
        error: String,
    },
    /// Nobody knows: a time-out, a 5xx, a crash in the middle of the call.
    Unknown {
        /// For people: what happened.
        error: String,
    },
    /// Settled by reading back: it was never sent. The same send goes back to pending.
    NotSent,
    /// Reading back did not settle it: parked for a person, never resent by itself.
    Unresolved {
        /// For people: what was tried.
        error: String,
    },
}

impl SendOutcome {
    /// The name used in metrics and in the transition's trigger.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed { .. } => "failed",
            Self::Unknown { .. } => "unknown",
            Self::NotSent => "not_sent",
            Self::Unresolved { .. } => "unresolved",
        }
    }
}

/// A decision to contact somebody: becomes a row of `sends` in the commit that decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendIntent {
    /// Derived from execution, step and attempt.
    pub id: SendId,
    /// 1-based position of the step in the pinned flow version.
    pub step: u32,
    /// The step's id.
    pub step_id: String,
    /// What to do.
    pub action: Action,
    /// 1 for the first try on this step.
    pub attempt: u32,
    /// When it was decided.
    pub created_at: Timestamp,
    /// `Pending` as a rule. `Unknown` when the row was found in `executing` without a send of ours (adopted from the old
    /// orchestrator): then it is settled by reading back before anything is sent.
    pub status: SendStatus,
}

/// What the provider handed back for a send. Every id is the provider's, and everything is optional, as on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// The person's id with the provider (LinkedIn `ACo…`, WhatsApp JID).
    pub recipient_id: Option<String>,
    /// The chat the message went into.
    pub chat_id: Option<String>,
    /// The message, or the mail, at the provider.
    pub message_id: Option<String>,
    /// The invitation.
    pub invitation_id: Option<String>,
    /// The tracking id of a mail.
    pub tracking_id: Option<String>,
    /// The RFC 822 Message-ID of a mail, with angle brackets.
    pub rfc_message_id: Option<String>,
    /// The mail thread.
    pub thread_id: Option<String>,
    /// How much of its limit the account has used up with this, in percent: said only when a new mark is passed.
    pub usage_percent: Option<u8>,
}
