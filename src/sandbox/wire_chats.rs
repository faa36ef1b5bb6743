//! `/chats`, `/messages`, `/chat_attendees`.

use serde_json::{Value, json};

use super::errors::Problem;
use super::ledger::Entry;
use super::options::AccountKind;
use super::page::Page;
use super::people::{Place, whatsapp_digits};
use super::wire::{Answer, Call};
use super::world::{Link, World};

/// Longest message, in characters: LinkedIn's own limit.
const TEXT_MAX: usize = 8000;

pub(super) fn start(w: &mut World, call: &Call) -> Answer {
    let account = call.body_account(w, None)?;
    let kind = w.accounts[account].kind;
    if kind == AccountKind::Mail {
        return Err(Problem::new(422, "invalid_account", "The account is not designed for this feature."));
    }
    let recipients: Vec<&str> = match call.body.get("attendees_ids") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let [recipient] = recipients[..] else {
        return Err(if recipients.is_empty() {
            Problem::new(400, "missing_parameters", "attendees_ids is required.")
        } else {
            Problem::new(501, "feature_not_implemented", "The sandbox has no group chats.")
        });
    };
    let text = message_text(call)?;
    let linkedin = call.json("linkedin")?.unwrap_or_default();
    let inmail = matches!(&linkedin["inmail"], Value::Bool(true)) || linkedin["inmail"] == "true";
    let person = recipient_of(w, kind, recipient)
        .ok_or_else(|| Problem::new(422, "invalid_recipient", "Recipient cannot be reached."))?;
    let connected = matches!(w.links.get(&(account, person)), Some(Link::Connected { .. }));
    if kind == AccountKind::LinkedIn && !connected && !inmail {
        return Err(Problem::new(
            422,
            "no_connection_with_recipient",
            "The recipient appears not to be first degree connection.",
        ));
    }
    let chat = w.chat_with(account, person);
    let message = speak(w, chat, text, call.text("subject").map(str::to_owned), inmail && !connected);
    let hide = kind == AccountKind::LinkedIn && w.opts.null_ids_share > 0.0 && w.chance() < w.opts.null_ids_share;
    let ids = (!hide).then(|| (w.chats[chat].id.clone(), message));
    let (chat_id, message_id) = ids.unzip();
    Ok((201, json!({ "object": "ChatStarted", "chat_id": chat_id, "message_id": message_id })))
}

fn recipient_of(w: &mut World, kind: AccountKind, recipient: &str) -> Option<usize> {
    if kind == AccountKind::WhatsApp {
        if let Some(digits) = whatsapp_digits(recipient) {
            return Some(w.meet(Place::Phone, digits));
        }
        return w.known.get(recipient).copied().filter(|&p| w.people[p].lid == recipient);
    }
    let person = w.known.get(recipient).copied()?;
    (w.people[person].place == Place::LinkedIn && w.people[person].provider_id == recipient).then_some(person)
}

fn message_text(call: &Call) -> Result<Option<String>, Problem> {
    let text = call.text("text").filter(|t| !t.is_empty());
    if text.is_none() && call.body.get("attachments").is_none() {
        return Err(Problem::new(400, "missing_parameters", "text or attachments is required."));
    }
    if text.is_some_and(|t| t.chars().count() > TEXT_MAX) {
        return Err(Problem::new(400, "too_many_characters", format!("text is limited to {TEXT_MAX} characters.")));
    }
    Ok(text.map(str::to_owned))
}

/// Says it in the chat and writes it down; gives the message's id.
fn speak(w: &mut World, chat: usize, text: Option<String>, subject: Option<String>, inmail: bool) -> String {
    let id = w.say(chat, true, text.clone(), subject.clone(), inmail);
    let Some(chat) = w.chats.get(chat) else { return id };
    let (own, them) = (&w.accounts[chat.account], &w.people[chat.person]);
    let entry = Entry {
        kind: match (own.kind, inmail) {
            (AccountKind::WhatsApp, _) => "whatsapp",
            (_, true) => "inmail",
            (_, false) => "message",
        },
        account_id: own.id.clone(),
        recipient: them.provider_id.clone(),
        recipient_public: them.identity.clone(),
        text,
        subject,
        message_id: Some(id.clone()),
        chat_id: Some(chat.id.clone()),
        ..Entry::default()
    };
    w.ledger.write(w.now, entry);
    id
}

pub(super) fn send(w: &mut World, call: &Call) -> Answer {
    let chat = find_chat(w, call.part(1), call.text("account_id"))?;
    let account = w.chats[chat].account;
    let own = w.accounts[account].id.clone();
    w.account(Some(&own), None)?;
    let text = message_text(call)?;
    let message = speak(w, chat, text, None, false);
    Ok((201, json!({ "object": "MessageSent", "message_id": message })))
}

/// A chat by our id, or by the provider's when the account is named. Another account's chat is not found.
fn find_chat(w: &World, id: &str, account_id: Option<&str>) -> Result<usize, Problem> {
    let account = account_id.map(|a| w.account(Some(a), None)).transpose()?;
    let chat = match w.chat_ids.get(id) {
        Some(&chat) if w.chats[chat].id == id => Some(chat),
        _ => account.and_then(|a| w.chats.iter().position(|c| c.account == a && c.provider_id == id)),
    };
    chat.filter(|&c| account.is_none_or(|a| w.chats[c].account == a)).ok_or_else(|| Problem::missing("chat"))
}

pub(super) fn get(w: &mut World, call: &Call) -> Answer {
    let chat = &w.chats[find_chat(w, call.part(1), call.query("account_id"))?];
    let mut body = w.chat_json(chat);
    let last = chat.messages.last().and_then(|n| w.messages.get(*n));
    body["lastMessage"] = last.map_or(Value::Null, |m| w.message_json(m));
    Ok((200, body))
}

/// The accounts of a comma list; every account when there is none.
fn accounts_of(w: &World, list: Option<&str>) -> Result<Vec<usize>, Problem> {
    match list.filter(|l| !l.is_empty()) {
        None => Ok((0..w.accounts.len()).collect()),
        Some(list) => list.split(',').map(|id| w.account(Some(id), None)).collect(),
    }
}

/// Chats newest first, with a number that falls: the last message's is unique to a chat.
fn newest_first(w: &World, mut chats: Vec<usize>) -> impl Iterator<Item = (u64, Value)> {
    let key = |c: &usize| w.chats[*c].messages.last().map_or(0, |n| n + 1);
    chats.sort_unstable_by_key(|c| std::cmp::Reverse(key(c)));
    chats.into_iter().map(move |c| (key(&c), w.chat_json(&w.chats[c])))
}

pub(super) fn list(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let accounts = accounts_of(w, page.get("account_id"))?;
    let kind = page.get("account_type");
    let wanted = |c: &usize| {
        let chat = &w.chats[*c];
        accounts.contains(&chat.account)
            && kind.is_none_or(|k| w.accounts[chat.account].kind.wire() == k)
            && page.holds(chat.updated)
    };
    let chats = (0..w.chats.len()).filter(wanted).collect();
    Ok((200, page.list("ChatList", newest_first(w, chats))))
}

pub(super) fn messages(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let chat = &w.chats[find_chat(w, call.part(1), page.get("account_id"))?];
    let items = chat
        .messages
        .iter()
        .rev()
        .filter_map(|n| w.messages.get(*n))
        .filter(|m| page.holds(m.at))
        .filter(|m| {
            page.get("sender_id").is_none_or(|s| w.sender_id(chat.account, (!m.ours).then_some(chat.person)) == s)
        })
        .map(|m| (m.number, w.message_json(m)));
    Ok((200, page.list("MessageList", items)))
}

pub(super) fn all_messages(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let accounts = accounts_of(w, page.get("account_id"))?;
    let items = w
        .messages
        .iter()
        .rev()
        .filter(|m| accounts.contains(&w.chats[m.chat].account) && page.holds(m.at))
        .filter(|m| {
            let chat = &w.chats[m.chat];
            page.get("sender_id").is_none_or(|s| w.sender_id(chat.account, (!m.ours).then_some(chat.person)) == s)
        })
        .map(|m| (m.number, w.message_json(m)));
    Ok((200, page.list("MessageList", items)))
}

pub(super) fn message(w: &mut World, call: &Call) -> Answer {
    let found = w.message_ids.get(call.part(1)).and_then(|n| w.messages.get(*n));
    let message = found.ok_or_else(|| Problem::missing("message"))?;
    Ok((200, w.message_json(message)))
}

pub(super) fn attendees(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let accounts = accounts_of(w, page.get("account_id"))?;
    let items = w
        .chats
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, c)| accounts.contains(&c.account))
        .map(|(n, c)| (n as u64, w.attendee_json(c.account, c.person)));
    Ok((200, page.list("ChatAttendeeList", items)))
}

/// The chats of the people in a comma list of attendee or provider ids.
fn chats_of_attendees(w: &World, list: &str, accounts: &[usize]) -> Vec<usize> {
    let mut chats = Vec::new();
    for id in list.split(',') {
        if let Some(&(account, person)) = w.attendees.get(id) {
            chats.extend(w.chat_of.get(&(account, person)).filter(|_| accounts.contains(&account)));
        } else if let Some(&person) = w.known.get(id) {
            chats.extend(accounts.iter().filter_map(|a| w.chat_of.get(&(*a, person))));
        }
    }
    chats
}

pub(super) fn attendee_chats(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let accounts = accounts_of(w, page.get("account_id"))?;
    let mut chats = chats_of_attendees(w, call.part(1), &accounts);
    chats.retain(|c| page.holds(w.chats[*c].updated));
    Ok((200, page.list("ChatList", newest_first(w, chats))))
}

pub(super) fn attendee_messages(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let accounts = accounts_of(w, page.get("account_id"))?;
    let chats = chats_of_attendees(w, call.part(1), &accounts);
    let mut numbers: Vec<u64> = chats.iter().flat_map(|c| w.chats[*c].messages.iter().copied()).collect();
    numbers.sort_unstable_by_key(|n| std::cmp::Reverse(*n));
    // Sent by the attendee: their own messages only.
    let items = numbers
        .into_iter()
        .filter_map(|n| w.messages.get(n))
        .filter(|m| !m.ours && page.holds(m.at))
        .map(|m| (m.number, w.message_json(m)));
    Ok((200, page.list("MessageList", items)))
}
