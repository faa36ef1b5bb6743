//! `/users/invite`: sending, withdrawing, and those that people send us.

use std::time::Duration;

use serde_json::{Value, json};

use super::call::Call;
use super::errors::Problem;
use super::ledger::Entry;
use super::options::AccountKind;
use super::page::Page;
use super::people::Place;
use super::text::iso;
use super::wire::Answer;
use super::world::{Link, World};
use crate::domain::time::Timestamp;

/// Longest note of an invitation, in characters: of a paid account, and of a free one.
const NOTE_MAX: [usize; 2] = [300, 200];
/// How long nobody can be invited again after the invitation was withdrawn or declined.
const COOL_DOWN: Duration = Duration::from_secs(21 * 24 * 3600);

pub(super) fn invite(w: &mut World, call: &Call) -> Answer {
    let account = call.body_account(w, Some(AccountKind::LinkedIn))?;
    let Some(provider_id) = call.text("provider_id").filter(|p| !p.is_empty()) else {
        return Err(Problem::new(400, "missing_parameters", "provider_id is required."));
    };
    let note = call.text("message").filter(|m| !m.is_empty()).map(str::to_owned);
    let note_max = NOTE_MAX[usize::from(!w.accounts[account].premium)];
    if note.as_deref().is_some_and(|n| n.chars().count() > note_max) {
        return Err(Problem::new(400, "too_many_characters", format!("message is limited to {note_max} characters.")));
    }
    let person = w.known.get(provider_id).copied().filter(|&p| w.people[p].provider_id == provider_id);
    let Some(person) = person.filter(|&p| w.people[p].place == Place::LinkedIn) else {
        return Err(Problem::new(422, "invalid_recipient", "Recipient cannot be reached."));
    };
    let address = call.text("user_email").filter(|a| !a.is_empty()).map(str::to_owned);
    may_invite(w, account, person, address.is_some())?;
    let actions: &[&str] = if note.is_some() { &["invite", "note"] } else { &["invite"] };
    w.charge(account, actions)?;
    let usage = w.landing(account);
    let (own, who) = (w.accounts[account].id.clone(), w.people[person].provider_id.clone());
    let id = w.invitation_id(&["invitation", &own, &who]);
    let mutual = matches!(w.links.get(&(account, person)), Some(Link::Received { .. }));
    let entry = Entry {
        kind: "invite",
        account_id: own,
        recipient: who,
        recipient_public: w.people[person].identity.clone(),
        text: note.clone(),
        invitation_id: Some(id.clone()),
        user_email: address,
        ..Entry::default()
    };
    w.ledger.write(w.now, entry);
    if mutual {
        // Two who invite each other are relations at once.
        w.connect(account, person, &id, None);
    } else {
        let number = w.number();
        w.invitations.insert(id.clone(), (account, person));
        w.links.insert((account, person), Link::Pending { id: id.clone(), number, at: w.now, note });
        w.invitation_sets_off(account, person, &id, Duration::ZERO);
    }
    let mut body = json!({ "object": "UserInvitationSent", "invitation_id": id });
    if let Some(usage) = usage {
        body["usage"] = json!(usage);
    }
    Ok((200, body))
}

/// Whether LinkedIn lets an account invite somebody.
fn may_invite(w: &World, account: usize, person: usize, with_address: bool) -> Result<(), Problem> {
    let conduct = &w.people[person].conduct;
    if conduct.blocks {
        return Err(Problem::new(422, "blocked_recipient", "The recipient has blocked the account."));
    }
    match w.links.get(&(account, person)) {
        None | Some(Link::Received { .. }) => {}
        Some(Link::Withdrawn { at } | Link::Declined { at }) if w.now.since(*at) >= COOL_DOWN => {}
        Some(Link::Connected { .. }) => {
            return Err(Problem::new(422, "already_connected", "The recipient is already a relation."));
        }
        Some(Link::Pending { .. } | Link::Withdrawn { .. } | Link::Declined { .. }) => {
            return Err(Problem::new(
                422,
                "already_invited_recently",
                "An invitation has already been sent recently to this recipient.",
            ));
        }
    }
    if conduct.needs_email && !with_address {
        return Err(Problem::new(
            422,
            "unprocessable_entity",
            "The recipient takes invitations only from people who know their address: send user_email.",
        ));
    }
    Ok(())
}

/// An invitation as both lists show it, with what differs left to the caller.
fn item(w: &World, object: &str, id: &str, person: usize, at: Timestamp, note: Option<&str>) -> Value {
    let them = &w.people[person];
    let days = w.now.since(at).as_secs() / 86_400;
    let verb = if object == "InvitationSent" { "Sent" } else { "Received" };
    let date = if days == 0 { format!("{verb} today") } else { format!("{verb} {days} days ago") };
    json!({
        "object": object, "id": id, "invited_user": them.full_name(), "invited_user_id": them.provider_id,
        "invited_user_public_id": them.identity, "invited_user_description": them.headline,
        "invited_user_profile_picture_url": null, "date": date, "parsed_datetime": iso(at), "invitation_text": note,
        "specifics": { "provider": "LINKEDIN", "shared_secret": "sandbox" },
    })
}

pub(super) fn sent(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let account = w.account(page.get("account_id"), Some(AccountKind::LinkedIn))?;
    w.charge(account, &["relations"])?;
    let own = &w.accounts[account];
    let mut pending: Vec<_> = w
        .links
        .iter()
        .filter_map(|(&(a, person), link)| match link {
            Link::Pending { id, number, at, note } if a == account => Some((*number, person, id, *at, note)),
            _ => None,
        })
        .collect();
    pending.sort_unstable_by_key(|p| std::cmp::Reverse(p.0));
    let items = pending.into_iter().map(|(number, person, id, at, note)| {
        let mut item = item(w, "InvitationSent", id, person, at, note.as_deref());
        item["inviter"] = json!({ "inviter_name": own.name, "inviter_id": own.own_id,
            "inviter_public_identifier": own.identity, "inviter_description": null });
        (number, item)
    });
    Ok((200, page.list("InvitationList", items)))
}

pub(super) fn received(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 10, 100)?;
    let account = w.account(page.get("account_id"), Some(AccountKind::LinkedIn))?;
    let own = &w.accounts[account];
    let mut waiting: Vec<_> = w
        .links
        .iter()
        .filter_map(|(&(a, person), link)| match link {
            Link::Received { id, number, at, note, secret } if a == account => {
                Some((*number, person, id, *at, note, secret))
            }
            _ => None,
        })
        .collect();
    waiting.sort_unstable_by_key(|p| std::cmp::Reverse(p.0));
    let items = waiting.into_iter().map(|(number, person, id, at, note, secret)| {
        let them = &w.people[person];
        let mut item = item(w, "InvitationReceived", id, person, at, note.as_deref());
        // Here the account is the one that is invited.
        item["invited_user"] = json!(own.name);
        item["invited_user_id"] = json!(own.own_id);
        item["invited_user_public_id"] = json!(own.identity);
        item["invited_user_description"] = Value::Null;
        item["inviter"] = json!({ "inviter_name": them.full_name(), "inviter_id": them.provider_id,
            "inviter_public_identifier": them.identity, "inviter_description": them.headline });
        item["specifics"]["shared_secret"] = json!(secret);
        (number, item)
    });
    Ok((200, page.list("InvitationList", items)))
}

/// Accepts or declines an invitation that somebody sent us.
pub(super) fn handle(w: &mut World, call: &Call) -> Answer {
    let account = call.body_account(w, Some(AccountKind::LinkedIn))?;
    let provider = call.text("provider").unwrap_or_default();
    if provider != "LINKEDIN" {
        return Err(Problem::invalid("provider must be LINKEDIN."));
    }
    let action = call.text("action").unwrap_or_default();
    if !["accept", "decline"].contains(&action) {
        return Err(Problem::new(400, "invalid_action", "action must be accept or decline."));
    }
    let id = call.part(3).to_owned();
    let key = w.invitations.get(&id).copied().filter(|(owner, _)| *owner == account);
    let Some((person, Some(Link::Received { secret, .. }))) = key.map(|k| (k.1, w.links.get(&k))) else {
        return Err(Problem::missing("invitation"));
    };
    if call.text("shared_secret") != Some(secret) {
        return Err(Problem::invalid("shared_secret is not that of the invitation."));
    }
    let (kind, status) =
        if action == "accept" { ("accept_received", "ACCEPTED") } else { ("decline_received", "DECLINED") };
    write(w, kind, account, person, &id);
    if action == "accept" {
        w.connect(account, person, &id, None);
    } else {
        w.links.remove(&(account, person));
        w.invitations.remove(&id);
    }
    Ok((200, json!({ "object": "UserInvitationHandled", "status": status })))
}

fn write(w: &mut World, kind: &'static str, account: usize, person: usize, invitation: &str) {
    let entry = Entry {
        kind,
        account_id: w.accounts[account].id.clone(),
        recipient: w.people[person].provider_id.clone(),
        recipient_public: w.people[person].identity.clone(),
        invitation_id: Some(invitation.to_owned()),
        ..Entry::default()
    };
    w.ledger.write(w.now, entry);
}

pub(super) fn withdraw(w: &mut World, call: &Call) -> Answer {
    let account = call.query_account(w, Some(AccountKind::LinkedIn))?;
    let id = call.part(3).to_owned();
    let key = w.invitations.get(&id).copied().filter(|(owner, _)| *owner == account);
    let Some(key) = key.filter(|k| matches!(w.links.get(k), Some(Link::Pending { .. }))) else {
        return Err(Problem::missing("invitation"));
    };
    w.invitations.remove(&id);
    w.links.insert(key, Link::Withdrawn { at: w.now });
    write(w, "withdraw", account, key.1, &id);
    Ok((200, json!({ "object": "InvitationCanceled" })))
}
