//! From a delivered body to a fact.
//!
//! Total: any bytes give an [`Event`], so that a delivery is never refused for what is in it (Unipile would repeat it
//! five times and then drop it). The content type is not looked at, because it is wrong by default. Deliveries carry no
//! id and come at least once and in any order: [`Parsed::dedupe_key`] is what makes two of them the same fact.
//!
//! Called by `http` (which stores the body under that key before it answers), by whatever replays stored bodies, and for the
//! bodies that `lists` makes up for deliveries that were lost.

use std::fmt;

use serde_json::Value;
use sha2::{Digest, Sha256};

pub use super::mail::MailKind;
use super::{events, wire};
use crate::domain::account::Channel;
use crate::domain::id::SendId;
use crate::domain::time::Timestamp;
use crate::domain::trigger::Sighting;

/// Longest key kept as it is, in bytes; longer ones are hashed.
const KEY_BYTES_MAX: usize = 300;

/// A delivery as we understand it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What it says.
    pub event: Event,
    /// The same for repeated deliveries of one fact; unique within one endpoint. Not longer than 300 bytes.
    pub dedupe_key: String,
}

/// What a delivery says. Every id is the provider's; texts are trimmed and at most 512 characters long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody is a connection now: accepted our invitation, or we theirs. Up to eight hours late.
    NewRelation {
        /// The account.
        account: String,
        /// The person's id.
        recipient_id: Option<String>,
        /// The person's public identifier.
        public_identifier: Option<String>,
        /// The person's profile.
        profile_url: Option<String>,
    },
    /// A message in a chat, theirs or ours.
    MessageReceived {
        /// The account.
        account: String,
        /// The channel; `None` for networks we do not use.
        channel: Option<Channel>,
        /// The chat.
        chat_id: Option<String>,
        /// The message.
        message_id: Option<String>,
        /// Whether the account's owner wrote it, through us or by hand.
        from_us: bool,
        /// Whether the delivery says so, or names the writer and the account alike; else it is a guess.
        is_sure: bool,
        /// Whether there are more than two people in the chat.
        is_group: bool,
        /// The writer.
        sender: Person,
        /// The others in the chat, eight at most.
        others: Vec<Person>,
        /// What was written.
        text: Option<Words>,
        /// When it was written.
        timestamp: Option<Timestamp>,
    },
    /// A message arrived or was read.
    MessageSeen {
        /// The account.
        account: String,
        /// The channel; `None` for networks we do not use.
        channel: Option<Channel>,
        /// The chat.
        chat_id: Option<String>,
        /// The message.
        message_id: Option<String>,
        /// Whether it is one of ours: then it was they who saw it. Taken for ours where that is not said.
        from_us: bool,
        /// Delivered or read.
        how: Sighting,
    },
    /// A message was changed, taken back or reacted to. Nothing follows from it, it is kept.
    MessageChanged {
        /// The account.
        account: String,
        /// What happened to it: the provider's name of the event.
        what: &'static str,
    },
    /// A mail in the mailbox.
    MailReceived {
        /// The account.
        account: String,
        /// The mail, at Unipile.
        email_id: Option<String>,
        /// Its Message-ID, with angle brackets.
        message_id: Option<String>,
        /// Its thread.
        thread_id: Option<String>,
        /// The Message-ID of the mail it answers, with angle brackets.
        in_reply_to_message_id: Option<String>,
        /// The id of the mail it answers, at Unipile or the provider.
        in_reply_to_id: Option<String>,
        /// The writer's address, lower case.
        from: Option<String>,
        /// What it is.
        kind: MailKind,
    },
    /// A mail that left the mailbox, sent by us, by another program, or by hand.
    MailSent {
        /// The account.
        account: String,
        /// The mail, at Unipile.
        email_id: Option<String>,
        /// The mail, at its provider.
        provider_id: Option<String>,
        /// Its Message-ID, with angle brackets.
        message_id: Option<String>,
        /// Its thread.
        thread_id: Option<String>,
        /// The tracking id that it was sent with.
        tracking_id: Option<String>,
        /// Whether it was sent through the API, by us or by another program.
        through_api: bool,
        /// The send it is, where it carries our header.
        send: Option<SendId>,
        /// To whom, lower case, twenty addresses at most.
        to: Vec<String>,
        /// Its subject.
        subject: Option<Words>,
        /// Its text, the plain one where there is one.
        text: Option<Words>,
        /// When it was sent.
        timestamp: Option<Timestamp>,
    },
    /// A mail was opened, or a link in it followed.
    MailTracked {
        /// The account, where it is said.
        account: Option<String>,
        /// Opened or clicked.
        how: Sighting,
        /// The send, out of the label that we gave the mail.
        send: Option<SendId>,
        /// The tracking id that the mail was sent with.
        tracking_id: Option<String>,
    },
    /// An account changed its status.
    AccountStatus {
        /// The account.
        account: String,
        /// The new status, upper case: `OK`, `CREDENTIALS`, `RECONNECTED`, ...
        message: String,
    },
    /// An event we have no use for, or do not know.
    Unknown {
        /// Its name.
        event: String,
    },
    /// Not a delivery we can read.
    Unreadable {
        /// Why.
        reason: String,
    },
}

/// A person as a chat names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// The id with the provider: LinkedIn `ACo…`; on WhatsApp a JID or a LID.
    pub id: Option<String>,
    /// The public identifier: on WhatsApp `<digits>@s.whatsapp.net`, also where the id is a LID.
    pub public: Option<String>,
    /// The phone number, `+` and digits.
    pub phone: Option<String>,
    /// The LID, `<digits>@lid`.
    pub lid: Option<String>,
}

/// What somebody wrote, at most 20,000 characters of it. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Words(String);

impl Words {
    pub(super) fn new(text: &str) -> Self {
        Self(text.chars().filter(|c| *c != '\0').take(20_000).collect())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

impl Event {
    /// The provider's id of the account it is about, where there is one.
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::NewRelation { account, .. }
            | Self::MessageReceived { account, .. }
            | Self::MessageSeen { account, .. }
            | Self::MessageChanged { account, .. }
            | Self::MailReceived { account, .. }
            | Self::MailSent { account, .. }
            | Self::AccountStatus { account, .. } => Some(account),
            Self::MailTracked { account, .. } => account.as_deref(),
            Self::Unknown { .. } | Self::Unreadable { .. } => None,
        }
    }

    /// The same with the account's channel, where the delivery does not name one that we know.
    #[must_use]
    pub fn on(mut self, channel: Channel) -> Self {
        if let Self::MessageReceived { channel: said, .. } | Self::MessageSeen { channel: said, .. } = &mut self {
            said.get_or_insert(channel);
        }
        self
    }

    /// The name used in metrics and logs: a closed set, whatever is delivered.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NewRelation { .. } => "new_relation",
            Self::MessageReceived { .. } => "message_received",
            Self::MessageSeen { how: Sighting::Delivered, .. } => "message_delivered",
            Self::MessageSeen { .. } => "message_read",
            Self::MessageChanged { what, .. } => what,
            Self::MailReceived { .. } => "mail_received",
            Self::MailSent { .. } => "mail_sent",
            Self::MailTracked { how: Sighting::Opened, .. } => "mail_opened",
            Self::MailTracked { .. } => "mail_link_clicked",
            Self::AccountStatus { .. } => "account_status",
            Self::Unknown { .. } => "unknown",
            Self::Unreadable { .. } => "unreadable",
        }
    }
}

/// Whether an account of this status, or with a part of it, neither sends nor receives until somebody looks. Words that we do not
/// know say nothing.
pub fn is_broken(status: &str) -> bool {
    matches!(status, "ERROR" | "STOPPED" | "CREDENTIALS" | "PERMISSIONS" | "DELETED")
}

/// Reads a delivery. `received` tells two equal status changes of one account apart, which carry no time of their own:
/// within the same minute they count as one.
pub fn parse(body: &[u8], received: Timestamp) -> Parsed {
    let json: Value = match wire::json(body) {
        Ok(json @ Value::Object(_)) => json,
        Ok(_) => return unreadable(body, "the body is json, but not an object"),
        Err(_) => return unreadable(body, "the body is not json"),
    };
    let (event, key) = events::read(&json, received);
    let dedupe_key = match key {
        Some(key) if key.len() <= KEY_BYTES_MAX => key,
        Some(key) => hash(key.as_bytes()),
        None => hash(body),
    };
    Parsed { event, dedupe_key }
}

fn unreadable(body: &[u8], reason: &str) -> Parsed {
    Parsed { event: Event::Unreadable { reason: reason.to_owned() }, dedupe_key: hash(body) }
}

fn hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}
