//! What may move an execution.

use super::account::{Channel, names};
use super::execution::BounceStatus;
use super::id::SendId;
use super::send::SendOutcome;
use super::suppression::Reason;

names! {
    /// What a person did with something that we sent, short of answering it.
    Sighting {
        /// It reached their device or their provider.
        Delivered = "delivered",
        /// They read it.
        Read = "read",
        /// They opened the mail (or software of theirs did).
        Opened = "opened",
        /// They followed a link in the mail (or software of theirs did).
        Clicked = "clicked",
    }
}

/// A fact that may move an execution. Closed: every handler lists all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// A row of another program (version 0) that needs mending before it can run: missing wake-ups, `executing` without a
    /// send of ours.
    Adopted,
    /// `next_execution_at` was reached: a pending step is due, or a wait has reached its deadline.
    Due,
    /// `next_check_at` was reached.
    CheckDue,
    /// The person accepted the connection request.
    ConnectionAccepted,
    /// The person wrote to us.
    Reply {
        /// Where.
        channel: Channel,
    },
    /// Mail to the person bounced.
    Bounce {
        /// For good, or for now.
        status: BounceStatus,
    },
    /// Something that we sent was seen. Recorded; nothing else changes.
    Seen {
        /// Where.
        channel: Channel,
        /// What was done with it.
        how: Sighting,
    },
    /// Somebody wrote to the person by hand, past us: the execution is paused until a person resumes it.
    HumanTookOver {
        /// Where.
        channel: Channel,
    },
    /// The person does not want more.
    Unsubscribe,
    /// A claim found the person on the list of those who are not written to.
    Suppressed {
        /// Why they stand there.
        reason: Reason,
    },
    /// A send has an outcome.
    SendFinished {
        /// Which.
        send: SendId,
        /// How it ended.
        outcome: SendOutcome,
    },
    /// Operator: what became of a send that could not be found out.
    SendResolved {
        /// Which.
        send: SendId,
        /// Whether it was sent; if not, it is sent again.
        sent: bool,
        /// Who decided: the name of the API key.
        by: String,
    },
    /// Operator: stop until resumed.
    Pause,
    /// Operator: go on.
    Resume,
    /// Operator: pass over the current step.
    Skip,
    /// Operator: go back (or forward) to a step and start it now. Also revives an execution that has ended.
    Restart {
        /// 1-based position.
        step: u32,
    },
    /// Operator: end it.
    Stop,
    /// The actor crashed three times on one input.
    Quarantine {
        /// The name of that input and the panic's message, for people.
        input: String,
    },
}

impl Trigger {
    /// The name used in transitions, metrics and logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Adopted => "adopted",
            Self::Due => "due",
            Self::CheckDue => "check_due",
            Self::ConnectionAccepted => "connection_accepted",
            Self::Reply { .. } => "reply",
            Self::Bounce { .. } => "bounce",
            Self::Seen { how: Sighting::Delivered, .. } => "message_delivered",
            Self::Seen { how: Sighting::Read, .. } => "message_read",
            Self::Seen { how: Sighting::Opened, .. } => "mail_opened",
            Self::Seen { how: Sighting::Clicked, .. } => "mail_clicked",
            Self::HumanTookOver { .. } => "human_took_over",
            Self::Unsubscribe => "unsubscribe",
            Self::Suppressed { .. } => "suppressed",
            Self::SendFinished { .. } => "send_finished",
            Self::SendResolved { .. } => "send_resolved",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Skip => "skip",
            Self::Restart { .. } => "restart",
            Self::Stop => "stop",
            Self::Quarantine { .. } => "quarantine",
        }
    }

    /// Why the person is not written to any more after this fact; `None` for every other.
    pub const fn suppresses(&self) -> Option<Reason> {
        match self {
            Self::Unsubscribe => Some(Reason::Unsubscribed),
            Self::Bounce { status: BounceStatus::Hard } => Some(Reason::HardBounce),
            _ => None,
        }
    }

    /// Whether this is something that has happened outside: not time, a command, or what came of our own sends.
    pub const fn is_fact(&self) -> bool {
        matches!(
            self,
            Self::ConnectionAccepted
                | Self::Reply { .. }
                | Self::Bounce { .. }
                | Self::Seen { .. }
                | Self::HumanTookOver { .. }
                | Self::Unsubscribe
        )
    }

    /// Whether this is the passing of time. Time is held back while a campaign is not active; facts are not.
    pub const fn is_time(&self) -> bool {
        matches!(self, Self::Due | Self::CheckDue)
    }
}
