//! The JSON of the state columns: what is known of a person on each channel, and which accounts carry it.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value};

use super::named;
use crate::domain::account::{Channel, ChannelAccounts};
use crate::domain::execution::{BounceStatus, ConnectionStatus, EmailState, LinkedinState, WhatsappState};
use crate::domain::id::AccountId;
use crate::domain::time::Timestamp;

/// A JSON object of a state column. NULL and JSON null are an empty one.
pub(super) struct Object<'a> {
    column: &'static str,
    map: Option<&'a Map<String, Value>>,
}

impl<'a> Object<'a> {
    pub(super) fn new(column: &'static str, value: Option<&'a Value>) -> Result<Self, String> {
        match value {
            None | Some(Value::Null) => Ok(Self { column, map: None }),
            Some(Value::Object(map)) => Ok(Self { column, map: Some(map) }),
            Some(_) => Err(format!("{column} is not a json object")),
        }
    }

    /// `None` for a missing key and for null.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map?.get(key).filter(|v| !v.is_null())
    }

    pub(super) fn wrong(&self, key: &str) -> String {
        format!("{}.{key} cannot be read", self.column)
    }

    pub(super) fn count(&self, key: &str) -> Result<u32, String> {
        self.get(key).map_or(Ok(0), |v| v.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| self.wrong(key)))
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool, String> {
        self.get(key).map_or(Ok(false), |v| v.as_bool().ok_or_else(|| self.wrong(key)))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        self.get(key).map(|v| v.as_str().ok_or_else(|| self.wrong(key))).transpose()
    }

    pub(super) fn time(&self, key: &str) -> Result<Option<Timestamp>, String> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        // Other programs write what their language prints: also a blank for the T, and no zone (then it is UTC).
        DateTime::parse_from_rfc3339(text)
            .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z"))
            .map(|t| t.with_timezone(&Utc))
            .or_else(|_| {
                chrono::NaiveDateTime::parse_from_str(&text.replace(' ', "T"), "%Y-%m-%dT%H:%M:%S%.f")
                    .map(|t| t.and_utc())
            })
            .map(|t| Some(Timestamp::from(t)))
            .map_err(|_| self.wrong(key))
    }
}

fn time_json(t: Timestamp) -> Value {
    Value::String(t.to_utc().to_rfc3339_opts(SecondsFormat::Micros, true))
}

pub(super) fn linkedin_json(state: &LinkedinState) -> Option<Value> {
    if *state == LinkedinState::default() {
        return None;
    }
    let mut map = Map::new();
    if let Some(status) = state.connection_status {
        map.insert("connection_status".to_owned(), status.as_str().into());
    }
    if let Some(at) = state.last_message_at {
        map.insert("last_message_at".to_owned(), time_json(at));
    }
    map.insert("message_count".to_owned(), state.message_count.into());
    map.insert("replied".to_owned(), state.replied.into());
    // Not among the old orchestrator's keys: written where they say something, which keeps the many rows short.
    for (key, seen) in [("delivered", state.delivered), ("read", state.read)] {
        if seen {
            map.insert(key.to_owned(), true.into());
        }
    }
    Some(Value::Object(map))
}

pub(super) fn linkedin(value: Option<&Value>) -> Result<LinkedinState, String> {
    let o = Object::new("linkedin_state", value)?;
    Ok(LinkedinState {
        connection_status: match o.text("connection_status")? {
            None | Some("" | "none" | "not_connected") => None,
            Some("connected") => Some(ConnectionStatus::Accepted),
            Some("sent" | "invited") => Some(ConnectionStatus::Pending),
            text => named("linkedin_state.connection_status", text, ConnectionStatus::parse)?,
        },
        last_message_at: o.time("last_message_at")?,
        message_count: o.count("message_count")?,
        delivered: o.flag("delivered")?,
        read: o.flag("read")?,
        replied: o.flag("replied")?,
    })
}

pub(super) fn email_json(state: &EmailState) -> Option<Value> {
    if *state == EmailState::default() {
        return None;
    }
    let mut map = Map::new();
    map.insert("sent_count".to_owned(), state.sent_count.into());
    map.insert("opened".to_owned(), state.opened.into());
    if state.clicked {
        map.insert("clicked".to_owned(), true.into());
    }
    map.insert("replied".to_owned(), state.replied.into());
    if let Some(at) = state.last_sent_at {
        map.insert("last_sent_at".to_owned(), time_json(at));
    }
    if let Some(status) = state.bounce_status {
        map.insert("bounce_status".to_owned(), status.as_str().into());
    }
    Some(Value::Object(map))
}

pub(super) fn email(value: Option<&Value>) -> Result<EmailState, String> {
    let o = Object::new("email_state", value)?;
    Ok(EmailState {
        sent_count: o.count("sent_count")?,
        opened: o.flag("opened")?,
        clicked: o.flag("clicked")?,
        replied: o.flag("replied")?,
        last_sent_at: o.time("last_sent_at")?,
        bounce_status: match o.text("bounce_status")? {
            None | Some("" | "none") => None,
            Some("hard_bounce" | "bounced") => Some(BounceStatus::Hard),
            Some("soft_bounce") => Some(BounceStatus::Soft),
            text => named("email_state.bounce_status", text, BounceStatus::parse)?,
        },
    })
}

pub(super) fn whatsapp_json(state: &WhatsappState) -> Option<Value> {
    if *state == WhatsappState::default() {
        return None;
    }
    let mut map = Map::new();
    map.insert("sent_count".to_owned(), state.sent_count.into());
    map.insert("delivered".to_owned(), state.delivered.into());
    map.insert("read".to_owned(), state.read.into());
    map.insert("replied".to_owned(), state.replied.into());
    if let Some(at) = state.last_sent_at {
        map.insert("last_sent_at".to_owned(), time_json(at));
    }
    Some(Value::Object(map))
}

pub(super) fn whatsapp(value: Option<&Value>) -> Result<WhatsappState, String> {
    let o = Object::new("whatsapp_state", value)?;
    Ok(WhatsappState {
        sent_count: o.count("sent_count")?,
        delivered: o.flag("delivered")?,
        read: o.flag("read")?,
        replied: o.flag("replied")?,
        last_sent_at: o.time("last_sent_at")?,
    })
}

pub(super) fn accounts_json(accounts: &ChannelAccounts) -> Option<Value> {
    let map: Map<String, Value> = Channel::ALL
        .iter()
        .filter_map(|c| accounts.get(*c).map(|a| (c.as_str().to_owned(), Value::String(a.to_string()))))
        .collect();
    (!map.is_empty()).then_some(Value::Object(map))
}

pub(super) fn accounts(value: Option<&Value>) -> Result<ChannelAccounts, String> {
    let o = Object::new("channel_accounts", value)?;
    let mut accounts = ChannelAccounts::default();
    for channel in Channel::ALL {
        if let Some(text) = o.text(channel.as_str())? {
            accounts.set(*channel, text.parse::<AccountId>().map_err(|_| o.wrong(channel.as_str()))?);
        }
    }
    Ok(accounts)
}
