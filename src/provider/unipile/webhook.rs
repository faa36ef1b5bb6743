//! From a delivered body to a fact.
//!
//! Total: any bytes give an [`Event`], so that a delivery is never refused for what is in it (Unipile would repeat it
//! five times and then drop it). The content type is not looked at, because it is wrong by default. Deliveries carry no
//! id and come at least once and in any order: [`Parsed::dedupe_key`] is what makes two of them the same fact.
//!
//! Called by `http` (which stores the body under that key before it answers) and by whatever replays stored bodies.

use serde_json::Value;
use sha2::{Digest, Sha256};

pub use super::mail::MailKind;
use super::mail::{self, message_id};
use super::manage::channel_of;
use super::wire::{clean, instant, truth};
use crate::domain::account::Channel;
use crate::domain::time::Timestamp;

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
        /// Whether there are more than two people in the chat.
        is_group: bool,
        /// The writer's id: LinkedIn `ACo…`; on WhatsApp a JID or a LID.
        sender_id: Option<String>,
        /// The writer's public identifier: on WhatsApp `<digits>@s.whatsapp.net`, also where the id is a LID.
        sender_public: Option<String>,
        /// The writer's phone number, `+` and digits.
        sender_phone: Option<String>,
        /// The writer's LID, `<digits>@lid`.
        sender_lid: Option<String>,
        /// When it was written.
        timestamp: Option<Timestamp>,
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

impl Event {
    /// The provider's id of the account it is about, where there is one.
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::NewRelation { account, .. }
            | Self::MessageReceived { account, .. }
            | Self::MailReceived { account, .. }
            | Self::AccountStatus { account, .. } => Some(account),
            Self::Unknown { .. } | Self::Unreadable { .. } => None,
        }
    }

    /// The name used in metrics and logs: a closed set, whatever is delivered.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NewRelation { .. } => "new_relation",
            Self::MessageReceived { .. } => "message_received",
            Self::MailReceived { .. } => "mail_received",
            Self::AccountStatus { .. } => "account_status",
            Self::Unknown { .. } => "unknown",
            Self::Unreadable { .. } => "unreadable",
        }
    }
}

/// Reads a delivery. `received` tells two equal status changes of one account apart, which carry no time of their own:
/// within the same minute they count as one.
pub fn parse(body: &[u8], received: Timestamp) -> Parsed {
    let json: Value = match serde_json::from_slice(body) {
        Ok(json @ Value::Object(_)) => json,
        Ok(_) => return unreadable(body, "the body is json, but not an object"),
        Err(_) => return unreadable(body, "the body is not json"),
    };
    let (event, key) = match json.get("AccountStatus") {
        Some(status) => account_status(status, received),
        None => match text(&json, "event").as_deref() {
            Some("new_relation") => new_relation(&json),
            Some("message_received") => message_received(&json),
            Some("mail_received") => mail_received(&json),
            Some(other) => (Event::Unknown { event: other.to_owned() }, None),
            None => (Event::Unreadable { reason: "the body names no event".into() }, None),
        },
    };
    let dedupe_key = match key {
        Some(key) if key.len() <= KEY_BYTES_MAX => key,
        Some(key) => hash(key.as_bytes()),
        None => hash(body),
    };
    Parsed { event, dedupe_key }
}

/// An event, and its key where the event names what happened.
type Keyed = (Event, Option<String>);

fn no_account() -> Keyed {
    (Event::Unreadable { reason: "the body names no account".into() }, None)
}

fn account_status(status: &Value, received: Timestamp) -> Keyed {
    let Some(account) = text(status, "account_id") else { return no_account() };
    let message = text(status, "message").unwrap_or_default().to_uppercase();
    let minute = received.as_micros().div_euclid(60_000_000);
    let key = format!("account_status:{account}:{message}:{minute}");
    (Event::AccountStatus { account, message }, Some(key))
}

fn new_relation(json: &Value) -> Keyed {
    let Some(account) = text(json, "account_id") else { return no_account() };
    let recipient_id = text(json, "user_provider_id");
    let public_identifier = text(json, "user_public_identifier");
    let key = recipient_id.as_ref().or(public_identifier.as_ref()).map(|id| format!("new_relation:{account}:{id}"));
    let profile_url = text(json, "user_profile_url");
    (Event::NewRelation { account, recipient_id, public_identifier, profile_url }, key)
}

fn message_received(json: &Value) -> Keyed {
    let Some(account) = text(json, "account_id") else { return no_account() };
    // Calls, group changes and the like: nobody wrote anything.
    if flag(json, "is_event") == Some(true) {
        return (Event::Unknown { event: "message_received (system)".into() }, None);
    }
    let none = Value::Null;
    let sender = json.get("sender").unwrap_or(&none);
    let info = json.get("account_info").unwrap_or(&none);
    let specifics = sender.get("attendee_specifics").unwrap_or(&none);
    let sender_id = text(sender, "attendee_provider_id");
    let sender_public = text(sender, "attendee_public_identifier");
    let sender_phone = phone(specifics);
    let lid = [text(specifics, "lid"), sender_id.clone()];
    let sender_lid = lid.into_iter().flatten().find(|id| id.ends_with("@lid"));
    let from_us = flag(json, "is_sender").unwrap_or_else(|| {
        let same = |a: Option<String>, b: &Option<String>| a.is_some() && a == *b;
        same(text(info, "user_id"), &sender_id) || same(phone(info), &sender_phone)
    });
    let message_id = text(json, "message_id");
    let key = message_id.as_ref().map(|id| format!("message_received:{id}"));
    let event = Event::MessageReceived {
        channel: text(json, "account_type").as_deref().and_then(channel_of),
        chat_id: text(json, "chat_id"),
        from_us,
        is_group: flag(json, "is_group").unwrap_or(false),
        timestamp: json.get("timestamp").and_then(instant),
        account,
        message_id,
        sender_id,
        sender_public,
        sender_phone,
        sender_lid,
    };
    (event, key)
}

fn mail_received(json: &Value) -> Keyed {
    let Some(account) = text(json, "account_id") else { return no_account() };
    let none = Value::Null;
    let answered = json.get("in_reply_to").unwrap_or(&none);
    let email_id = text(json, "email_id");
    let key = email_id.as_ref().map(|id| format!("mail_received:{id}"));
    let event = Event::MailReceived {
        message_id: text(json, "message_id").as_deref().and_then(message_id),
        thread_id: text(json, "thread_id"),
        in_reply_to_message_id: text(answered, "message_id")
            .or_else(|| clean(answered))
            .as_deref()
            .and_then(message_id),
        in_reply_to_id: text(answered, "id"),
        from: mail::from_address(json),
        kind: mail::kind(json),
        account,
        email_id,
    };
    (event, key)
}

/// A phone number as `+` and digits; WhatsApp may say `hidden` instead.
fn phone(of: &Value) -> Option<String> {
    let digits: String = text(of, "phone_number")?.chars().filter(char::is_ascii_digit).collect();
    (!digits.is_empty()).then(|| format!("+{digits}"))
}

fn text(json: &Value, name: &str) -> Option<String> {
    json.get(name).and_then(clean)
}

fn flag(json: &Value, name: &str) -> Option<bool> {
    json.get(name).and_then(truth)
}

fn unreadable(body: &[u8], reason: &str) -> Parsed {
    Parsed { event: Event::Unreadable { reason: reason.to_owned() }, dedupe_key: hash(body) }
}

fn hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}
