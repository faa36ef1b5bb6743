//! `POST /chats` and `POST /chats/{id}/messages`: what is said.

use serde_json::{Value, json};

use super::call::{Call, truth};
use super::errors::Problem;
use super::ledger::Entry;
use super::options::AccountKind;
use super::people::{Place, whatsapp_digits};
use super::talk::{Message, Words};
use super::text::unit;
use super::wire::Answer;
use super::wire_messages::find_chat;
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
    let words = words_of(call)?;
    let linkedin = call.json("linkedin")?.unwrap_or_default();
    match linkedin["api"].as_str() {
        None | Some("" | "classic") => {}
        Some("recruiter" | "sales_navigator") => {
            return Err(Problem::new(403, "feature_not_subscribed", "The account has no such subscription."));
        }
        Some(_) => return Err(Problem::invalid("linkedin[api] must be classic, recruiter or sales_navigator.")),
    }
    let person = recipient_of(w, kind, recipient)
        .ok_or_else(|| Problem::new(422, "invalid_recipient", "Recipient cannot be reached."))?;
    if w.people[person].conduct.blocks {
        return Err(Problem::new(422, "blocked_recipient", "The recipient has blocked the account."));
    }
    // Somebody who invited us may be answered by naming their invitation.
    let asked = linkedin["invitation_id"].as_str();
    let invited =
        matches!(w.links.get(&(account, person)), Some(Link::Received { id, .. }) if asked == Some(id.as_str()));
    let inmail = if kind == AccountKind::WhatsApp {
        let first = !w.chat_of.contains_key(&(account, person));
        w.charge(account, if first { &["whatsapp", "new_chat"] } else { &["whatsapp"] })?;
        false
    } else if w.may_write(account, person) || invited {
        w.charge(account, &["message"])?;
        false
    } else if truth(&linkedin["inmail"]) == Some(true) {
        pay_inmail(w, account, person)?;
        true
    } else {
        return Err(no_connection());
    };
    let chat = w.chat_with(account, person);
    let subject = call.text("subject").or_else(|| call.text("title")).map(str::to_owned);
    let message = speak(w, chat, Words { subject, inmail, ..words });
    let chat_id = (!withheld(w, message, "null chat id")).then(|| w.chats[chat].id.clone());
    Ok((201, json!({ "object": "ChatStarted", "chat_id": chat_id, "message_id": told_id(w, message) })))
}

/// Whether an answer about a message keeps an id back: LinkedIn's do now and then, each for itself.
fn withheld(w: &World, message: u64, what: &str) -> bool {
    let share = w.opts.null_ids_share;
    let of_linkedin = |m: &&Message| w.accounts[w.chats[m.chat].account].kind == AccountKind::LinkedIn;
    let message = w.messages.get(message).filter(|_| share > 0.0).filter(of_linkedin);
    message.is_some_and(|m| unit(w.opts.seed, &[what, &m.key]) < share)
}

/// The id of a message as the answer to it tells.
fn told_id(w: &World, message: u64) -> Option<&str> {
    w.messages.get(message).filter(|_| !withheld(w, message, "null message id")).map(|m| m.id.as_str())
}

fn no_connection() -> Problem {
    Problem::new(422, "no_connection_with_recipient", "The recipient appears not to be first degree connection.")
}

/// Takes what an `InMail` costs: nothing to an open profile, else a credit.
fn pay_inmail(w: &mut World, account: usize, person: usize) -> Result<(), Problem> {
    let (own, conduct) = (&w.accounts[account], &w.people[person].conduct);
    if !own.premium {
        return Err(Problem::new(403, "feature_not_subscribed", "The account has no subscription with InMail."));
    }
    if !conduct.takes_inmail {
        return Err(Problem::new(422, "not_allowed_inmail", "The recipient takes no InMail."));
    }
    let costs = !conduct.open_profile;
    if costs && own.credits == 0 {
        return Err(Problem::new(422, "insufficient_credits", "The account has no InMail credit left."));
    }
    w.charge(account, &["inmail"])?;
    w.accounts[account].credits -= u32::from(costs);
    Ok(())
}

fn recipient_of(w: &mut World, kind: AccountKind, recipient: &str) -> Option<usize> {
    if kind == AccountKind::WhatsApp {
        let person = match whatsapp_digits(recipient) {
            Some(digits) => w.meet(Place::Phone, digits),
            None => w.known.get(recipient).copied().filter(|&p| w.people[p].lid == recipient)?,
        };
        return w.people[person].conduct.reachable.then_some(person);
    }
    let person = w.known.get(recipient).copied()?;
    (w.people[person].place == Place::LinkedIn && w.people[person].provider_id == recipient).then_some(person)
}

/// What a request says: text, files, or both.
fn words_of(call: &Call) -> Result<Words, Problem> {
    let text = call.text("text").filter(|t| !t.is_empty());
    let attachments: Vec<Value> = ["attachments", "voice_message", "video_message"]
        .iter()
        .filter_map(|name| call.said(name))
        .flat_map(|files| files.as_array().cloned().unwrap_or_else(|| vec![files.clone()]))
        .map(|file| attachment(&file))
        .collect::<Option<_>>()
        .ok_or_else(|| Problem::invalid("attachments must be files of a multipart form."))?;
    if text.is_none() && attachments.is_empty() {
        return Err(Problem::new(400, "missing_parameters", "text or attachments is required."));
    }
    if text.is_some_and(|t| t.chars().count() > TEXT_MAX) {
        return Err(Problem::new(400, "too_many_characters", format!("text is limited to {TEXT_MAX} characters.")));
    }
    let typing = call.said("typing_duration");
    if typing.is_some_and(|t| t.as_u64().or_else(|| t.as_str()?.parse().ok()).is_none()) {
        return Err(Problem::invalid("typing_duration must be a number of milliseconds."));
    }
    Ok(Words { text: text.map(str::to_owned), attachments, ..Words::default() })
}

/// A file of a form as a message shows it; `None` for what is no file.
fn attachment(file: &Value) -> Option<Value> {
    let (name, mime) = (file["file_name"].as_str()?, file["mime_type"].as_str()?);
    let kind = match mime.split('/').next() {
        Some("image") => "img",
        Some("video") => "video",
        Some("audio") => "audio",
        _ => "file",
    };
    Some(json!({ "id": file["digest"], "type": kind, "file_name": name, "mimetype": mime,
        "file_size": file["file_bytes"], "unavailable": false }))
}

/// Says it in the chat and writes it down; gives the message's number.
fn speak(w: &mut World, chat: usize, words: Words) -> u64 {
    let (text, subject, inmail) = (words.text.clone(), words.subject.clone(), words.inmail);
    let number = w.say(chat, words);
    let id = w.messages.get(number).map(|m| m.id.clone()).unwrap_or_default();
    let chat = &w.chats[chat];
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
        message_id: Some(id),
        chat_id: Some(chat.id.clone()),
        ..Entry::default()
    };
    w.ledger.write(w.now, entry);
    number
}

pub(super) fn send(w: &mut World, call: &Call) -> Answer {
    let chat = find_chat(w, call.part(1), call.text("account_id"))?;
    let (account, person) = (w.chats[chat].account, w.chats[chat].person);
    let words = words_of(call)?;
    let quoted = call.text("quote_id").filter(|q| !q.is_empty()).map(str::to_owned);
    if let Some(id) = &quoted
        && w.message(id).is_none_or(|m| m.chat != chat)
    {
        return Err(Problem::new(422, "invalid_message", "The message being quoted is not of this chat."));
    }
    if w.people[person].conduct.blocks {
        return Err(Problem::new(422, "blocked_recipient", "The recipient has blocked the account."));
    }
    if !w.may_write(account, person) {
        return Err(no_connection());
    }
    let whatsapp = w.accounts[account].kind == AccountKind::WhatsApp;
    w.charge(account, if whatsapp { &["whatsapp"] } else { &["message"] })?;
    let message = speak(w, chat, Words { quoted, ..words });
    Ok((201, json!({ "object": "MessageSent", "message_id": told_id(w, message) })))
}
