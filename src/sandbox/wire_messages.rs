//! `GET /chats` and `GET /messages`: reading back what was said. An account that is not connected is not read, and a message
//! on LinkedIn may be some time in coming.

use serde_json::Value;

use super::call::Call;
use super::errors::Problem;
use super::options::AccountKind;
use super::page::Page;
use super::talk::{Chat, Message};
use super::text::unit;
use super::wire::Answer;
use super::world::World;

/// Whether reads show a message yet: on LinkedIn some time after it was said, up to `read_lag_max`.
pub(super) fn is_shown(w: &World, message: &Message) -> bool {
    let lag = w.opts.read_lag_max;
    let linkedin = || w.accounts[w.chats[message.chat].account].kind == AccountKind::LinkedIn;
    lag.is_zero()
        || !linkedin()
        || w.now.since(message.at) >= lag.mul_f64(unit(w.opts.seed, &["read lag", &message.key]))
}

/// Whether lists show a chat yet: with its first message. One whose messages are all forgotten is an old one.
pub(super) fn is_chat_shown(w: &World, chat: &Chat) -> bool {
    let mut kept = chat.messages.iter().filter_map(|n| w.messages.get(*n)).peekable();
    kept.peek().is_none() || kept.any(|m| is_shown(w, m))
}

/// A chat by our id, or by the provider's when the account is named. Another account's chat is not found.
pub(super) fn find_chat(w: &World, id: &str, account_id: Option<&str>) -> Result<usize, Problem> {
    let account = account_id.map(|a| w.account(Some(a), None)).transpose()?;
    let chat = match w.chat_ids.get(id) {
        Some(&chat) if w.chats[chat].id == id => Some(chat),
        _ => account.and_then(|a| w.chats.iter().position(|c| c.account == a && c.provider_id == id)),
    };
    let chat = chat.filter(|&c| account.is_none_or(|a| w.chats[c].account == a));
    let chat = chat.ok_or_else(|| Problem::missing("chat"))?;
    w.connected(w.chats[chat].account)?;
    Ok(chat)
}

/// One chat, with its last message.
pub(super) fn chat(w: &mut World, call: &Call) -> Answer {
    let chat = &w.chats[find_chat(w, call.part(1), call.query("account_id"))?];
    let mut body = w.chat_json(chat);
    let last = chat.messages.iter().rev().filter_map(|n| w.messages.get(*n)).find(|m| is_shown(w, m));
    body["lastMessage"] = last.map_or(Value::Null, |m| w.message_json(m));
    Ok((200, body))
}

/// The accounts of a comma list; every connected account when there is none.
pub(super) fn accounts_of(w: &World, list: Option<&str>) -> Result<Vec<usize>, Problem> {
    match list.filter(|l| !l.is_empty()) {
        None => Ok((0..w.accounts.len()).filter(|a| w.connected(*a).is_ok()).collect()),
        Some(list) => list.split(',').map(|id| w.account(Some(id), None)).collect(),
    }
}

/// Chats newest first, with a number that falls: the last message's is unique to a chat.
pub(super) fn newest_first(w: &World, mut chats: Vec<usize>) -> impl Iterator<Item = (u64, Value)> {
    let key = |c: &usize| w.chats[*c].messages.last().map_or(0, |n| n + 1);
    chats.sort_unstable_by_key(|c| std::cmp::Reverse(key(c)));
    chats.into_iter().map(move |c| (key(&c), w.chat_json(&w.chats[c])))
}

pub(super) fn chats(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let accounts = accounts_of(w, page.get("account_id"))?;
    let kind = page.get("account_type").filter(|k| !k.is_empty());
    let unread = match page.get("unread") {
        None | Some("") => None,
        Some("true" | "1") => Some(true),
        Some("false" | "0") => Some(false),
        Some(_) => return Err(Problem::invalid("unread must be true or false.")),
    };
    let wanted = |c: &usize| {
        let chat = &w.chats[*c];
        accounts.contains(&chat.account)
            && kind.is_none_or(|k| w.accounts[chat.account].kind.wire() == k)
            && unread.is_none_or(|u| u == (chat.unread > 0))
            && page.holds(chat.updated)
            && is_chat_shown(w, chat)
    };
    let chats = (0..w.chats.len()).filter(wanted).collect();
    Ok((200, page.list("ChatList", newest_first(w, chats))))
}

/// The messages of one chat.
pub(super) fn of_chat(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let chat = &w.chats[find_chat(w, call.part(1), page.get("account_id"))?];
    let items = chat
        .messages
        .iter()
        .rev()
        .filter_map(|n| w.messages.get(*n))
        .filter(|m| page.holds(m.at) && is_shown(w, m))
        .filter(|m| page.get("sender_id").is_none_or(|s| is_sender(w, m, s)))
        .map(|m| (m.number, w.message_json(m)));
    Ok((200, page.list("MessageList", items)))
}

/// Whether somebody with this provider id, attendee id or (on WhatsApp) number wrote a message.
pub(super) fn is_sender(w: &World, m: &Message, id: &str) -> bool {
    let chat = &w.chats[m.chat];
    let who = if m.ours() { None } else { Some(chat.person) };
    let own = match who {
        None => w.accounts[chat.account].own_id.as_str(),
        Some(p) => w.people[p].provider_id.as_str(),
    };
    w.sender_id(chat.account, who) == id || own == id || w.attendee_id(chat.account, who) == id
}

/// The messages of all chats.
pub(super) fn all(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let accounts = accounts_of(w, page.get("account_id"))?;
    let items = w
        .messages
        .iter()
        .rev()
        .filter(|m| accounts.contains(&w.chats[m.chat].account) && page.holds(m.at) && is_shown(w, m))
        .filter(|m| page.get("sender_id").is_none_or(|s| is_sender(w, m, s)))
        .map(|m| (m.number, w.message_json(m)));
    Ok((200, page.list("MessageList", items)))
}

/// One message.
pub(super) fn get(w: &mut World, call: &Call) -> Answer {
    let found = w.message(call.part(1)).filter(|m| is_shown(w, m));
    let message = found.ok_or_else(|| Problem::missing("message"))?;
    w.connected(w.chats[message.chat].account)?;
    Ok((200, w.message_json(message)))
}

/// Files are known by name, type, size and digest only.
pub(super) fn attachment_bytes(_: &mut World, _: &Call) -> Answer {
    Err(Problem::new(501, "feature_not_implemented", "The sandbox keeps no bytes of attachments."))
}
