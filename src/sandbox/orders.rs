//! What people and accounts are told to do over the control API: `POST /sandbox/act` and `POST /sandbox/people/{identity}/{act}`.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::act::{MailAct, MessageAct};
use super::conduct::{Bounce, Conduct};
use super::errors::Problem;
use super::people::{Place, is_address, is_number, is_slug};
use super::settings::merge;
use super::talk::{By, Message};
use super::world::{Link, World};

/// What somebody is to do now.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Order {
    /// Slug, address, number or provider id.
    pub(super) identity: String,
    pub(super) act: String,
    /// Towards which account; the one last in touch when absent.
    account_id: Option<String>,
    /// Of a reply, an edit, a note, a reaction, or what the owner writes by hand.
    text: Option<String>,
    /// Of a click.
    url: Option<String>,
    /// Of `disconnect`: when the account is back, on the clock, in seconds.
    back_after_s: Option<f64>,
}

/// What people can be told to do.
pub(super) const ACTS: [&str; 18] = [
    "accept",
    "decline",
    "invite",
    "remove",
    "reply",
    "by_hand",
    "deliver",
    "read",
    "react",
    "edit",
    "delete",
    "bounce",
    "soft_bounce",
    "out_of_office",
    "open",
    "click",
    "unsubscribe",
    "scan",
];

/// Does it.
pub(super) fn perform(w: &mut World, order: &Order) -> Result<Value, Problem> {
    let only = match &order.account_id {
        None => None,
        Some(id) => Some(w.account_index(id).ok_or_else(|| Problem::missing("account"))?),
    };
    if let ("disconnect" | "reconnect", Some(account)) = (order.act.as_str(), only) {
        if order.act == "reconnect" {
            w.set_status(account, "OK");
        } else {
            let back = order.back_after_s.filter(|s| (0.0..1e9).contains(s));
            w.disconnect(account, back.map(Duration::from_secs_f64));
        }
        return Ok(json!({ "account_id": order.account_id, "act": order.act }));
    }
    if !ACTS.contains(&order.act.as_str()) {
        let list = ACTS.join(", ");
        return Err(Problem::invalid(format!("act must be one of {list}; disconnect or reconnect with account_id.")));
    }
    let person =
        w.find_person(&order.identity).ok_or_else(|| Problem::missing("person; nobody has asked for them yet"))?;
    for account in w.accounts_near(person, only) {
        if act_towards(w, account, person, order) {
            return Ok(json!({ "account_id": w.accounts[account].id, "act": order.act }));
        }
    }
    Err(Problem::new(409, "unprocessable_entity", "There is nothing this person could do that to."))
}

fn act_towards(w: &mut World, account: usize, person: usize, order: &Order) -> bool {
    let text = order.text.clone();
    let mail = |w: &mut World, what| {
        let mail = w.last_mail_to(account, &w.people[person].identity);
        mail.is_some_and(|m| w.mail_act(what, m.number, person, order.url.clone()))
    };
    let message = |w: &mut World, what, by: By| {
        let last = last_message(w, account, person, by).map(|m| m.number);
        last.is_some_and(|n| w.message_act(what, n, text.clone()))
    };
    match order.act.as_str() {
        "accept" => w.accept(account, person),
        "decline" => w.decline(account, person),
        "invite" => w.invited_by(account, person, text),
        "remove" => {
            let related = matches!(w.links.get(&(account, person)), Some(Link::Connected { .. }));
            related && w.links.remove(&(account, person)).is_some()
        }
        "reply" => {
            let done = w.reply(account, person, text);
            // Whoever was told to reply does not do so again of themselves.
            w.people[person].replies_set = w.people[person].replies_set.max(u32::from(done));
            done
        }
        "by_hand" => w.by_hand(account, person, text),
        "deliver" => message(w, MessageAct::Deliver, By::Us),
        "read" => message(w, MessageAct::Read, By::Us),
        "react" => message(w, MessageAct::React, By::Us),
        "edit" => message(w, MessageAct::Edit, By::Them),
        "delete" => message(w, MessageAct::Delete, By::Them),
        "bounce" => mail(w, MailAct::Bounce(Bounce::Hard)),
        "soft_bounce" => mail(w, MailAct::Bounce(Bounce::Soft)),
        "out_of_office" => mail(w, MailAct::OutOfOffice),
        "open" => mail(w, MailAct::Open),
        "click" => mail(w, MailAct::Click),
        "unsubscribe" => mail(w, MailAct::Unsubscribe),
        "scan" => mail(w, MailAct::Scan),
        _ => false,
    }
}

/// The last message of one side in the chat of two.
fn last_message(w: &World, account: usize, person: usize, by: By) -> Option<&Message> {
    let chat = &w.chats[*w.chat_of.get(&(account, person))?];
    chat.messages.iter().rev().filter_map(|n| w.messages.get(*n)).find(|m| m.by == by)
}

/// Somebody by identity; met now if they can be somebody and never were.
pub(super) fn person_of(w: &mut World, identity: &str) -> Result<usize, Problem> {
    if let Some(person) = w.find_person(identity) {
        return Ok(person);
    }
    let place = Place::of(identity);
    let bare = identity.trim_start_matches('+').trim_end_matches("@s.whatsapp.net");
    let fits = match place {
        Place::LinkedIn => is_slug(identity),
        Place::Mail => is_address(identity),
        Place::Phone => is_number(bare),
    };
    if !fits {
        return Err(Problem::missing("person: an identity is a slug, an address or a number"));
    }
    Ok(w.meet(place, if place == Place::Phone { bare } else { identity }))
}

/// Changes what somebody does, from now on and for what is waiting for them.
pub(super) fn instruct(w: &mut World, person: usize, change: &Value) -> Result<(), Problem> {
    if !change.is_object() {
        return Err(Problem::invalid("the conduct of a person is a JSON object."));
    }
    let them = &w.people[person];
    let mut whole = serde_json::to_value(&them.conduct).unwrap_or_default();
    merge(&mut whole, change);
    let conduct: Conduct =
        serde_json::from_value(whole).map_err(|e| Problem::invalid(format!("no conduct of a person: {e}")))?;
    let waits_for_reply = them.replies_set > 0 && !them.replied;
    let them = &mut w.people[person];
    them.conduct = conduct;
    them.plan += 1;
    // What was set off under the old plan is off; what it was about is still there.
    if waits_for_reply {
        them.replies_set = 0;
    }
    them.hand_set = them.hand_wrote;
    let pending: Vec<(usize, String, Duration)> = (0..w.accounts.len())
        .filter_map(|a| match w.links.get(&(a, person))? {
            Link::Pending { id, at, .. } => Some((a, id.clone(), w.now.since(*at))),
            _ => None,
        })
        .collect();
    for (account, id, ago) in pending {
        w.invitation_sets_off(account, person, &id, ago);
    }
    let touched = w.accounts_near(person, None).into_iter().find(|a| match w.people[person].place {
        Place::Mail => w.last_mail_to(*a, &w.people[person].identity).is_some(),
        _ => last_message(w, *a, person, By::Us).is_some(),
    });
    if let Some(account) = touched.filter(|_| !w.people[person].replied) {
        w.contact_sets_off(account, person);
    }
    Ok(())
}
