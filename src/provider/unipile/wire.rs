//! The shapes of Unipile's answers: only what we use, and as lenient as JSON allows.
//!
//! Fields come and go, enums grow, booleans are 0/1 in one place and true/false in the next. A list must have its
//! `items`, though: a list read as empty would be taken for "was never sent".

use chrono::DateTime;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::domain::time::Timestamp;

/// Longest id, name or address that is kept, in characters.
pub(super) const TEXT_MAX: usize = 512;

/// A page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// As long as it is: it goes back as it came.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) cursor: Option<String>,
}

/// `GET /users/{identifier}`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Profile {
    #[serde(deserialize_with = "text")]
    pub(super) provider_id: Option<String>,
    #[serde(deserialize_with = "flag")]
    is_relationship: Option<bool>,
    #[serde(deserialize_with = "flag")]
    pub(super) is_self: Option<bool>,
    #[serde(deserialize_with = "text")]
    network_distance: Option<String>,
    #[serde(deserialize_with = "lenient")]
    invitation: Option<ProfileInvitation>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ProfileInvitation {
    #[serde(rename = "type", deserialize_with = "text")]
    kind: Option<String>,
    #[serde(deserialize_with = "text")]
    status: Option<String>,
}

impl Profile {
    /// Whether the person is a connection.
    pub(super) fn is_connected(&self) -> bool {
        self.is_relationship == Some(true)
            || matches!(self.network_distance.as_deref(), Some("FIRST_DEGREE" | "DISTANCE_1"))
    }

    /// Whether an invitation of ours waits for an answer.
    pub(super) fn is_invited(&self) -> bool {
        self.invitation
            .as_ref()
            .is_some_and(|i| i.kind.as_deref() != Some("RECEIVED") && i.status.as_deref() == Some("PENDING"))
    }
}

/// `POST /users/invite`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct InvitationSent {
    #[serde(deserialize_with = "text")]
    pub(super) invitation_id: Option<String>,
    /// Percent of the provider's limit: there when a new mark (50, 75, 90, 95) is passed.
    #[serde(deserialize_with = "lenient")]
    pub(super) usage: Option<f64>,
}

/// An item of `GET /users/invite/sent`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PendingInvitation {
    #[serde(deserialize_with = "text")]
    pub(super) id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) invited_user_id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) invited_user_public_id: Option<String>,
}

/// An item of `GET /users/relations`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct UserRelation {
    #[serde(deserialize_with = "text")]
    pub(super) member_id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) public_identifier: Option<String>,
    /// Milliseconds since 1970.
    #[serde(deserialize_with = "time")]
    pub(super) created_at: Option<Timestamp>,
}

/// `POST /chats` and `POST /chats/{id}/messages`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MessageSent {
    #[serde(deserialize_with = "text")]
    pub(super) chat_id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) message_id: Option<String>,
}

/// `GET /chats/{id}`, and an item of `GET /chat_attendees/{id}/chats`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Chat {
    #[serde(deserialize_with = "text")]
    pub(super) id: Option<String>,
    /// 0 with one person, 1 a group, 2 a channel.
    #[serde(rename = "type", deserialize_with = "text")]
    pub(super) kind: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) attendee_provider_id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) attendee_public_identifier: Option<String>,
}

/// An item of `GET /chats/{id}/messages`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Message {
    #[serde(deserialize_with = "text")]
    pub(super) id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) chat_id: Option<String>,
    /// As long as it is: it is compared whole.
    #[serde(deserialize_with = "lenient")]
    pub(super) text: Option<String>,
    #[serde(deserialize_with = "time")]
    pub(super) timestamp: Option<Timestamp>,
    #[serde(deserialize_with = "flag")]
    pub(super) is_sender: Option<bool>,
}

/// `POST /emails`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MailSent {
    #[serde(deserialize_with = "text")]
    pub(super) tracking_id: Option<String>,
    /// Text; the documentation has shown an object as well, which is of no use here.
    #[serde(deserialize_with = "text")]
    pub(super) provider_id: Option<String>,
}

/// `GET /emails/{id}`, and an item of `GET /emails`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Mail {
    #[serde(deserialize_with = "text")]
    pub(super) id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) provider_id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) message_id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) thread_id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) tracking_id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) role: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) origin: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(super) subject: Option<String>,
    #[serde(deserialize_with = "time")]
    pub(super) date: Option<Timestamp>,
    #[serde(deserialize_with = "lenient")]
    pub(super) headers: Option<Vec<Header>>,
}

/// A mail header.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    #[serde(deserialize_with = "text")]
    pub(super) name: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) value: Option<String>,
}

/// An item of `GET /accounts`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Account {
    #[serde(deserialize_with = "text")]
    pub(super) id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) name: Option<String>,
    #[serde(rename = "type", deserialize_with = "text")]
    pub(super) kind: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(super) sources: Option<Vec<Source>>,
}

/// A part of an account.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Source {
    /// The account's id and what it is: `<account>_MESSAGING`.
    #[serde(deserialize_with = "text")]
    id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) status: Option<String>,
}

impl Source {
    /// Whether it is the part that messages or mails go through, by its name.
    pub(super) fn carries_messages(&self) -> bool {
        let part = self.id.as_deref().and_then(|id| Some(id.rsplit_once('_')?.1)).unwrap_or_default();
        matches!(part, "MESSAGING" | "MAIL" | "MAILS" | "MAILING" | "EMAIL" | "EMAILS")
    }
}

/// An item of `GET /webhooks`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Webhook {
    #[serde(deserialize_with = "text")]
    pub(super) id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) name: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) source: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(super) request_url: Option<String>,
    #[serde(deserialize_with = "flag")]
    pub(super) enabled: Option<bool>,
    #[serde(deserialize_with = "lenient")]
    pub(super) events: Option<Vec<String>>,
    #[serde(deserialize_with = "lenient")]
    pub(super) headers: Option<Vec<WebhookHeader>>,
    /// Of which accounts; empty: of all.
    #[serde(deserialize_with = "lenient")]
    pub(super) account_ids: Option<Vec<Value>>,
    #[serde(deserialize_with = "text")]
    pub(super) format: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(super) data: Option<Vec<WebhookField>>,
}

/// A property that deliveries carry, and under which name.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WebhookField {
    #[serde(deserialize_with = "text")]
    pub(super) name: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) key: Option<String>,
}

/// A header that deliveries carry.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WebhookHeader {
    #[serde(deserialize_with = "text")]
    pub(super) key: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) value: Option<String>,
}

/// Reads JSON that need not be quite right: a text that was cut in the middle of an emoji, or in another encoding, must not hide
/// the rest. What cannot be read becomes the replacement character.
pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(bytes).or_else(|error| serde_json::from_str(&mended(bytes)).map_err(|_| error))
}

/// As UTF-8, without the mark that some put before it, and without halves of escaped pairs.
fn mended(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut whole = String::with_capacity(rest.len());
    while let Some((before, from)) = rest.find('\\').and_then(|at| rest.split_at_checked(at)) {
        whole.push_str(before);
        let length = match unit(from) {
            Some((0xd800..=0xdbff, after)) if matches!(unit(after), Some((0xdc00..=0xdfff, _))) => 12,
            Some((0xd800..=0xdfff, after)) => {
                whole.push_str("\\ufffd");
                rest = after;
                continue;
            }
            Some(_) => 6,
            // With whatever it escapes.
            None => 1 + from.chars().nth(1).map_or(0, char::len_utf8),
        };
        let Some((escape, after)) = from.split_at_checked(length) else { break };
        whole.push_str(escape);
        rest = after;
    }
    whole + rest
}

/// The UTF-16 unit that a text begins with as an escape, and what comes after it.
fn unit(text: &str) -> Option<(u16, &str)> {
    let (hex, after) = text.strip_prefix("\\u")?.split_at_checked(4)?;
    if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    Some((u16::from_str_radix(hex, 16).ok()?, after))
}

/// Text as we keep it: trimmed, without the NUL that Postgres refuses, not longer than [`TEXT_MAX`]; `None` when nothing
/// is left. Numbers are taken as text, since some ids are numbers.
pub(super) fn clean(value: &Value) -> Option<String> {
    let text: String = match value {
        Value::String(s) => s.trim().chars().filter(|c| *c != '\0').take(TEXT_MAX).collect(),
        Value::Number(n) => n.to_string(),
        _ => return None,
    };
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// A truth value, however it is written.
pub(super) fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::Number(n) => n.as_f64().map(|n| n != 0.0),
        Value::String(s) if s == "true" || s == "1" => Some(true),
        Value::String(s) if s == "false" || s == "0" => Some(false),
        _ => None,
    }
}

/// An instant: RFC 3339, or milliseconds since 1970.
pub(super) fn instant(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(s) => DateTime::parse_from_rfc3339(s).ok().map(|t| t.to_utc().into()),
        Value::Number(n) => n.as_i64()?.checked_mul(1000).map(Timestamp::from_micros),
        _ => None,
    }
}

/// An instant as the API takes it: UTC with exactly three digits of milliseconds, or it answers 400.
pub(super) fn instant_text(at: Timestamp) -> String {
    at.to_utc().format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Value::deserialize(from).map(|v| clean(&v))
}

fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    Value::deserialize(from).map(|v| truth(&v))
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    Value::deserialize(from).map(|v| instant(&v))
}

/// Anything that can be read as `T`; `None` for the rest.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Option<T>, D::Error> {
    Value::deserialize(from).map(|v| serde_json::from_value(v).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_broken_somewhere_hides_nothing_else() {
        let read = |bytes: &[u8]| json::<Value>(bytes).map(|v| v["a"].as_str().unwrap_or_default().to_owned()).ok();
        for (bytes, expected) in [
            (&br#"{"a":"x\ud83d"}"#[..], "x\u{fffd}"),
            (br#"{"a":"x\ude00y","b":"\ud83d\ude00"}"#, "x\u{fffd}y"),
            (br#"{"a":"\ud83d\ude00\ud83d"}"#, "\u{1f600}\u{fffd}"),
            (br#"{"a":"\\ud83d\ud83d\n\""}"#, "\\ud83d\u{fffd}\n\""),
            (b"{\"a\":\"x\xff\xe9\"}", "x\u{fffd}\u{fffd}"),
            (b"\xef\xbb\xbf{\"a\":\"x\"}", "x"),
        ] {
            assert_eq!(read(bytes).as_deref(), Some(expected), "{}", String::from_utf8_lossy(bytes));
        }
        for bytes in [&b""[..], b"{", b"{\"a\":\"x\\ud8", b"{\"a\":\"\\", b"\\ud83d", b"a=b", b"{\"a\":\"\\ud83d\\"] {
            assert_eq!(read(bytes), None, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
