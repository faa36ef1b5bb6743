//! Reads each kind of delivered body. Every key is what [`webhook`](super::webhook) documents; nothing here fails.

use serde_json::Value;

use super::SEND_HEADER;
use super::mail::{self, message_id};
use super::manage::channel_of;
use super::webhook::{Event, MailKind, Person, Words};
use super::wire::{clean, instant, truth};
use crate::domain::account::Channel;
use crate::domain::id::SendId;
use crate::domain::time::Timestamp;
use crate::domain::trigger::Sighting;

/// Most others of a chat, and most addresses of a mail, that are looked at.
const OTHERS_MAX: usize = 8;
const ADDRESSES_MAX: usize = 20;

/// An event, and its key where the event names what happened.
type Keyed = (Event, Option<String>);

/// Reads a body that is a JSON object.
pub(super) fn read(json: &Value, received: Timestamp) -> Keyed {
    if let Some(status) = json.get("AccountStatus") {
        return account_status(status, received);
    }
    match text(json, "event").as_deref() {
        Some("new_relation") => new_relation(json),
        Some("message_received") => message_received(json),
        Some("message_read") => message_seen(json, Sighting::Read, "message_read"),
        Some("message_delivered") => message_seen(json, Sighting::Delivered, "message_delivered"),
        Some("message_reaction") => message_changed(json, "message_reaction"),
        Some("message_edited") => message_changed(json, "message_edited"),
        Some("message_deleted") => message_changed(json, "message_deleted"),
        Some("mail_received") if role(json) == "sent" => mail_sent(json),
        Some("mail_received") => mail_received(json),
        Some("mail_sent") => mail_sent(json),
        Some("mail_opened") => mail_tracked(json, Sighting::Opened, "mail_opened"),
        Some("mail_link_clicked") => mail_tracked(json, Sighting::Clicked, "mail_link_clicked"),
        Some(other) => (Event::Unknown { event: other.to_owned() }, None),
        None => (Event::Unreadable { reason: "the body names no event".into() }, None),
    }
}

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
    let sender = person(json.get("sender").unwrap_or(&none));
    let info = json.get("account_info").unwrap_or(&none);
    let own = (text(info, "user_id"), phone(info));
    let is_own = |p: &Person| (own.0.is_some() && own.0 == p.id) || (own.1.is_some() && own.1 == number(p));
    let said = flag(json, "is_sender");
    let from_us = said.unwrap_or_else(|| is_own(&sender));
    let is_sure = said.is_some()
        || from_us
        || (own.0.is_some() && sender.id.is_some())
        || (own.1.is_some() && number(&sender).is_some());
    let others = list(json, "attendees").iter().map(person);
    let others = others.filter(|p| *p != Person::default() && !is_own(p) && !same(p, &sender)).take(OTHERS_MAX);
    let message_id = text(json, "message_id");
    let key = message_id.as_ref().map(|id| format!("message_received:{id}"));
    let event = Event::MessageReceived {
        channel: channel(json),
        chat_id: text(json, "chat_id"),
        from_us,
        is_sure,
        is_group: flag(json, "is_group").unwrap_or(false),
        others: others.collect(),
        text: words(json, "message"),
        timestamp: json.get("timestamp").and_then(instant),
        account,
        message_id,
        sender,
    };
    (event, key)
}

fn message_seen(json: &Value, how: Sighting, name: &str) -> Keyed {
    let Some(account) = text(json, "account_id") else { return no_account() };
    let message_id = text(json, "message_id");
    let key = message_id.as_ref().map(|id| format!("{name}:{id}"));
    let event = Event::MessageSeen {
        channel: channel(json),
        chat_id: text(json, "chat_id"),
        from_us: flag(json, "is_sender").unwrap_or(true),
        how,
        account,
        message_id,
    };
    (event, key)
}

/// Several reactions and edits of one message are several facts: each goes by its bytes.
fn message_changed(json: &Value, what: &'static str) -> Keyed {
    let Some(account) = text(json, "account_id") else { return no_account() };
    (Event::MessageChanged { account, what }, None)
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

fn mail_sent(json: &Value) -> Keyed {
    let Some(account) = text(json, "account_id") else { return no_account() };
    // In the mailbox, but on its way to nobody.
    if matches!(role(json), "drafts" | "draft") {
        let (kind, from) = (MailKind::Ours, None);
        let event = Event::MailReceived {
            email_id: text(json, "email_id"),
            message_id: None,
            thread_id: None,
            in_reply_to_message_id: None,
            in_reply_to_id: None,
            account,
            from,
            kind,
        };
        return (event, None);
    }
    let email_id = text(json, "email_id");
    let key = email_id.as_ref().map(|id| format!("mail_sent:{id}"));
    let to = ["to_attendees", "cc_attendees", "bcc_attendees"].into_iter().flat_map(|field| list(json, field));
    let header = list(json, "headers")
        .iter()
        .find(|header| text(header, "name").is_some_and(|name| name.eq_ignore_ascii_case(SEND_HEADER)));
    let event = Event::MailSent {
        provider_id: text(json, "provider_id"),
        message_id: text(json, "message_id").as_deref().and_then(message_id),
        thread_id: text(json, "thread_id"),
        tracking_id: text(json, "tracking_id"),
        through_api: json.get("origin").and_then(Value::as_str) == Some("unipile"),
        send: header.and_then(|h| text(h, "value")).and_then(|id| id.parse::<SendId>().ok()),
        to: to.filter_map(|a| text(a, "identifier")).map(|a| a.to_lowercase()).take(ADDRESSES_MAX).collect(),
        subject: words(json, "subject"),
        text: words(json, "body_plain").or_else(|| words(json, "body")),
        timestamp: json.get("date").and_then(instant),
        account,
        email_id,
    };
    (event, key)
}

fn mail_tracked(json: &Value, how: Sighting, name: &str) -> Keyed {
    let key = text(json, "event_id").map(|id| format!("{name}:{id}"));
    let event = Event::MailTracked {
        account: text(json, "account_id"),
        how,
        send: text(json, "label").and_then(|label| label.parse::<SendId>().ok()),
        tracking_id: text(json, "tracking_id"),
    };
    (event, key)
}

fn person(of: &Value) -> Person {
    let none = Value::Null;
    let specifics = of.get("attendee_specifics").unwrap_or(&none);
    let id = text(of, "attendee_provider_id");
    let lid = [text(specifics, "lid"), id.clone()].into_iter().flatten().find(|id| id.ends_with("@lid"));
    Person { public: text(of, "attendee_public_identifier"), phone: phone(specifics), id, lid }
}

/// The person's phone number: WhatsApp may hide it, and show it in an id all the same.
fn number(person: &Person) -> Option<String> {
    let jid = |id: &String| Some(format!("+{}", id.strip_suffix("@s.whatsapp.net")?));
    person.phone.clone().or_else(|| [&person.public, &person.id].into_iter().flatten().find_map(jid))
}

fn channel(json: &Value) -> Option<Channel> {
    channel_of(&text(json, "account_type")?.to_uppercase())
}

/// Whether two mentions are of one person, as far as they say.
fn same(a: &Person, b: &Person) -> bool {
    let equal = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
    equal(&a.id, &b.id) || equal(&a.public, &b.public) || equal(&a.lid, &b.lid)
}

/// A phone number as `+` and digits; WhatsApp may say `hidden` instead.
fn phone(of: &Value) -> Option<String> {
    let digits: String = text(of, "phone_number")?.chars().filter(char::is_ascii_digit).collect();
    (!digits.is_empty()).then(|| format!("+{digits}"))
}

fn role(json: &Value) -> &str {
    json.get("role").and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(json: &'a Value, name: &str) -> &'a [Value] {
    json.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text(json: &Value, name: &str) -> Option<String> {
    json.get(name).and_then(clean)
}

fn words(json: &Value, name: &str) -> Option<Words> {
    json.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty()).map(Words::new)
}

fn flag(json: &Value, name: &str) -> Option<bool> {
    json.get(name).and_then(truth)
}
