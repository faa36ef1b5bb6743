//! The state of one prospect, as its row holds it.

use super::account::{ChannelAccounts, names};
use super::id::{CampaignId, ExecutionId, ProspectId, SendId, WorkspaceId};
use super::time::Timestamp;

names! {
    /// Where an execution stands. The names are the seed's.
    Status {
        /// Waits for `next_execution_at`.
        Pending = "pending",
        /// A send exists and has no outcome yet.
        Executing = "executing",
        /// Waits for a trigger, with a check and a deadline.
        WaitingTrigger = "waiting_trigger",
        /// Over. `exit_reason` tells how.
        Completed = "completed",
        /// Over. `exit_reason` and `last_error` tell why.
        Failed = "failed",
        /// Stopped by an operator, or because a person took over, until resumed; what it was is kept in `paused_status`.
        Paused = "paused",
    }
}

impl Status {
    /// Whether nothing more happens by itself.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

names! {
    /// Why an execution ended.
    ExitReason {
        /// All steps were gone through.
        Finished = "finished",
        /// The person replied.
        Replied = "replied",
        /// The person unsubscribed.
        Unsubscribed = "unsubscribed",
        /// The person stands on the list of those who are not written to.
        Suppressed = "suppressed",
        /// Mail to the person bounced for good.
        Bounced = "bounced",
        /// A wait ran out and its flow says that ends it.
        Timeout = "timeout",
        /// An operator stopped it.
        Stopped = "stopped",
        /// No step could be carried out.
        Error = "error",
        /// The execution crashed its actor again and again on one input.
        Quarantined = "quarantined",
    }
}

names! {
    /// Facts that a step can wait for (`wait_for.trigger`, column `waiting_for_trigger`).
    WaitTrigger {
        /// The person accepted the connection request.
        ConnectionAccepted = "connection_accepted",
        /// The person replied on any channel.
        Reply = "reply",
    }
}

names! {
    /// `linkedin_state.connection_status`.
    ConnectionStatus {
        /// The invitation is out.
        Pending = "pending",
        /// The person is a connection.
        Accepted = "accepted",
    }
}

names! {
    /// `email_state.bounce_status`.
    BounceStatus {
        /// Delivery failed for good.
        Hard = "hard",
        /// Delivery is delayed or failed for now.
        Soft = "soft",
    }
}

/// Column `linkedin_state`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkedinState {
    /// `None` before the first invitation.
    pub connection_status: Option<ConnectionStatus>,
    /// The last message we sent.
    pub last_message_at: Option<Timestamp>,
    /// Messages and InMails sent (invitations do not count).
    pub message_count: u32,
    /// Whether any was delivered.
    pub delivered: bool,
    /// Whether any was read.
    pub read: bool,
    /// Whether the person wrote to us here.
    pub replied: bool,
}

/// Column `email_state`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmailState {
    /// Mails sent.
    pub sent_count: u32,
    /// Whether any was opened.
    pub opened: bool,
    /// Whether a link in any was followed.
    pub clicked: bool,
    /// Whether the person answered.
    pub replied: bool,
    /// The last mail we sent.
    pub last_sent_at: Option<Timestamp>,
    /// `None` while nothing bounced.
    pub bounce_status: Option<BounceStatus>,
}

/// Column `whatsapp_state`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhatsappState {
    /// Messages sent.
    pub sent_count: u32,
    /// Whether any was delivered.
    pub delivered: bool,
    /// Whether any was read.
    pub read: bool,
    /// Whether the person answered.
    pub replied: bool,
    /// The last message we sent.
    pub last_sent_at: Option<Timestamp>,
}

/// The state of one prospect. Field names are the seed's column names; types are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The row's id.
    pub id: ExecutionId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The campaign.
    pub campaign: CampaignId,
    /// The person.
    pub prospect: ProspectId,
    /// The flow version this execution is pinned to.
    pub flow_version: i32,
    /// Where it stands.
    pub status: Status,
    /// While `Paused`: what it was, and becomes again on resume.
    pub paused_status: Option<Status>,
    /// 1-based; number of steps + 1 when completed.
    pub current_step: u32,
    /// Positions of the steps that were done.
    pub completed_steps: Vec<u32>,
    /// Positions of the steps that failed.
    pub failed_steps: Vec<u32>,
    /// Positions of the steps that were passed over.
    pub skipped_steps: Vec<u32>,
    /// LinkedIn facts.
    pub linkedin: LinkedinState,
    /// Mail facts.
    pub email: EmailState,
    /// WhatsApp facts.
    pub whatsapp: WhatsappState,
    /// Set while `WaitingTrigger` (also while paused from it).
    pub waiting_for_trigger: Option<WaitTrigger>,
    /// Checks done in this wait.
    pub trigger_check_count: u32,
    /// Checks after which this wait ends.
    pub trigger_max_checks: u32,
    /// When the next check of a wait is due.
    pub next_check_at: Option<Timestamp>,
    /// When the last step was carried out.
    pub last_executed_at: Option<Timestamp>,
    /// `Pending`: when the current step is due. `WaitingTrigger`: the deadline of the wait.
    pub next_execution_at: Option<Timestamp>,
    /// The last error, for people.
    pub last_error: Option<String>,
    /// Errors so far.
    pub error_count: u32,
    /// Why it ended; set with a final status.
    pub exit_reason: Option<ExitReason>,
    /// +1 per transition: the optimistic guard. 0 for a row that another program made and we have not yet changed.
    pub version: i64,
    /// Tries on the current step.
    pub attempt: u32,
    /// Sends decided so far, over all steps.
    pub send_sequence: u32,
    /// The send that has no outcome yet: set while `Executing` (also while paused from it). It stays when the step is
    /// skipped or the execution ends meanwhile, because the provider may have been called: until its outcome is known,
    /// nothing else is sent.
    pub open_send: Option<SendId>,
    /// Which account contacts this person on each channel. The core carries it and does not look at it.
    pub accounts: ChannelAccounts,
}

impl Execution {
    /// A fresh execution as `initialize_execution_state` makes it: step 1, pending, due at `now`.
    pub fn new(
        id: ExecutionId,
        workspace: WorkspaceId,
        campaign: CampaignId,
        prospect: ProspectId,
        flow_version: i32,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            workspace,
            campaign,
            prospect,
            flow_version,
            status: Status::Pending,
            paused_status: None,
            current_step: 1,
            completed_steps: Vec::new(),
            failed_steps: Vec::new(),
            skipped_steps: Vec::new(),
            linkedin: LinkedinState::default(),
            email: EmailState::default(),
            whatsapp: WhatsappState::default(),
            waiting_for_trigger: None,
            trigger_check_count: 0,
            trigger_max_checks: super::flow::MAX_CHECKS_DEFAULT,
            next_check_at: None,
            last_executed_at: None,
            next_execution_at: Some(now),
            last_error: None,
            error_count: 0,
            exit_reason: None,
            version: 0,
            attempt: 0,
            send_sequence: 0,
            open_send: None,
            accounts: ChannelAccounts::default(),
        }
    }

    /// Whether the person has answered on any channel.
    pub const fn has_replied(&self) -> bool {
        self.linkedin.replied || self.email.replied || self.whatsapp.replied
    }

    /// Whether the person is a LinkedIn connection.
    pub fn is_connected(&self) -> bool {
        self.linkedin.connection_status == Some(ConnectionStatus::Accepted)
    }

    /// The wake-up that the timer wheel has to hold: the earlier of the due time and the next check; `None` while
    /// executing, paused or final.
    pub fn wake_at(&self) -> Option<Timestamp> {
        wake_of(self.status, self.open_send, self.next_execution_at, self.next_check_at)
    }
}

/// [`Execution::wake_at`], for who has only these columns of it.
pub fn wake_of(
    status: Status,
    open_send: Option<SendId>,
    next_execution_at: Option<Timestamp>,
    next_check_at: Option<Timestamp>,
) -> Option<Timestamp> {
    match status {
        // Not before the send that was skipped over has an outcome: at most one send is open.
        Status::Pending if open_send.is_some() => None,
        Status::Pending => next_execution_at,
        Status::WaitingTrigger => match (next_execution_at, next_check_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        },
        Status::Executing | Status::Completed | Status::Failed | Status::Paused => None,
    }
}
