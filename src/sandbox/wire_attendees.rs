//! `/chat_attendees`: the people of chats.

use serde_json::json;

use super::call::Call;
use super::errors::Problem;
use super::page::Page;
use super::wire::Answer;
use super::wire_messages::{accounts_of, find_chat, is_chat_shown, is_sender, is_shown, newest_first};
use super::world::World;

pub(super) fn list(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let accounts = accounts_of(w, page.get("account_id"))?;
    let items = w
        .chats
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, c)| accounts.contains(&c.account) && is_chat_shown(w, c))
        .map(|(n, c)| (n as u64, w.attendee_json(c.account, Some(c.person))));
    Ok((200, page.list("ChatAttendeeList", items)))
}

/// One attendee by our id; the account itself is one, too.
pub(super) fn get(w: &mut World, call: &Call) -> Answer {
    let &(account, person) = w.attendees.get(call.part(1)).ok_or_else(|| Problem::missing("attendee"))?;
    w.connected(account)?;
    Ok((200, w.attendee_json(account, person)))
}

/// Both sides of a chat.
pub(super) fn of_chat(w: &mut World, call: &Call) -> Answer {
    let chat = &w.chats[find_chat(w, call.part(1), call.query("account_id"))?];
    let items = [w.attendee_json(chat.account, Some(chat.person)), w.attendee_json(chat.account, None)];
    Ok((200, json!({ "object": "ChatAttendeeList", "items": items, "cursor": null })))
}

/// The chats of those in a comma list of attendee or provider ids: of an account itself all that it has.
pub(super) fn chats_of(w: &World, list: &str, accounts: &[usize]) -> Vec<usize> {
    let mut chats: Vec<usize> = Vec::new();
    let all_of = |account: usize| (0..w.chats.len()).filter(move |c| w.chats[*c].account == account);
    for id in list.split(',').map(str::trim).filter(|id| !id.is_empty()) {
        match w.attendees.get(id) {
            Some((account, _)) if !accounts.contains(account) => {}
            Some(&(account, Some(person))) => chats.extend(w.chat_of.get(&(account, person))),
            Some(&(account, None)) => chats.extend(all_of(account)),
            None => {
                // An account of ours may be a person to another.
                let person = w.known.get(id);
                chats.extend(accounts.iter().filter_map(|a| w.chat_of.get(&(*a, *person?))));
                let own = accounts.iter().filter(|a| w.accounts[**a].own_id == id);
                chats.extend(own.flat_map(|a| all_of(*a)));
            }
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
    chats.retain(|c| page.holds(w.chats[*c].updated) && is_chat_shown(w, &w.chats[*c]));
    Ok((200, page.list("ChatList", newest_first(w, chats))))
}

pub(super) fn messages(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let accounts = accounts_of(w, page.get("account_id"))?;
    let chats = chats_of(w, call.part(1), &accounts);
    let mut numbers: Vec<u64> = chats.iter().flat_map(|c| w.chats[*c].messages.iter().copied()).collect();
    numbers.sort_unstable_by_key(|n| std::cmp::Reverse(*n));
    // Sent by the attendee: their own messages only.
    let senders: Vec<&str> = call.part(1).split(',').map(str::trim).collect();
    let items = numbers
        .into_iter()
        .filter_map(|n| w.messages.get(n))
        .filter(|m| page.holds(m.at) && is_shown(w, m) && senders.iter().any(|id| is_sender(w, m, id)))
        .map(|m| (m.number, w.message_json(m)));
    Ok((200, page.list("MessageList", items)))
}
