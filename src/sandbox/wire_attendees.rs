//! `/chat_attendees`: the people of chats.

use serde_json::json;

use super::errors::Problem;
use super::page::Page;
use super::wire::{Answer, Call};
use super::wire_chats::{accounts_of, find_chat, newest_first};
use super::world::World;

pub(super) fn list(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let accounts = accounts_of(w, page.get("account_id"))?;
    let items = w
        .chats
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, c)| accounts.contains(&c.account))
        .map(|(n, c)| (n as u64, w.attendee_json(c.account, Some(c.person))));
    Ok((200, page.list("ChatAttendeeList", items)))
}

/// One attendee by our id.
pub(super) fn get(w: &mut World, call: &Call) -> Answer {
    let &(account, person) = w.attendees.get(call.part(1)).ok_or_else(|| Problem::missing("attendee"))?;
    Ok((200, w.attendee_json(account, Some(person))))
}

/// Both sides of a chat.
pub(super) fn of_chat(w: &mut World, call: &Call) -> Answer {
    let chat = &w.chats[find_chat(w, call.part(1), call.query("account_id"))?];
    let items = [w.attendee_json(chat.account, Some(chat.person)), w.attendee_json(chat.account, None)];
    Ok((200, json!({ "object": "ChatAttendeeList", "items": items, "cursor": null })))
}

/// The chats of the people in a comma list of attendee or provider ids.
fn chats_of(w: &World, list: &str, accounts: &[usize]) -> Vec<usize> {
    let mut chats = Vec::new();
    for id in list.split(',').map(str::trim) {
        if let Some(&(account, person)) = w.attendees.get(id) {
            chats.extend(w.chat_of.get(&(account, person)).filter(|_| accounts.contains(&account)));
        } else if let Some(&person) = w.known.get(id) {
            chats.extend(accounts.iter().filter_map(|a| w.chat_of.get(&(*a, person))));
        }
    }
    chats.sort_unstable();
    chats.dedup();
    chats
}

pub(super) fn chats(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let accounts = accounts_of(w, page.get("account_id"))?;
    let mut chats = chats_of(w, call.part(1), &accounts);
    chats.retain(|c| page.holds(w.chats[*c].updated));
    Ok((200, page.list("ChatList", newest_first(w, chats))))
}

pub(super) fn messages(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let accounts = accounts_of(w, page.get("account_id"))?;
    let chats = chats_of(w, call.part(1), &accounts);
    let mut numbers: Vec<u64> = chats.iter().flat_map(|c| w.chats[*c].messages.iter().copied()).collect();
    numbers.sort_unstable_by_key(|n| std::cmp::Reverse(*n));
    // Sent by the attendee: their own messages only.
    let items = numbers
        .into_iter()
        .filter_map(|n| w.messages.get(n))
        .filter(|m| !m.ours() && page.holds(m.at))
        .map(|m| (m.number, w.message_json(m)));
    Ok((200, page.list("MessageList", items)))
}
