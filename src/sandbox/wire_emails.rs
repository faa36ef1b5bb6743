//! `POST /emails`.

use std::time::Duration;

use serde_json::{Value, json};

use super::account::Account;
use super::call::{Call, truth};
use super::errors::Problem;
use super::ledger::Entry;
use super::mailbox::{Mail, Mailbox, Tracking};
use super::options::AccountKind;
use super::people::{Place, is_address};
use super::text::{digest, number, opaque};
use super::wire::Answer;
use super::world::World;

/// How long an idempotency key is remembered, on the clock.
const KEY_LIFE: Duration = Duration::from_secs(24 * 3600);

pub(super) fn send(w: &mut World, call: &Call) -> Answer {
    let account = call.body_account(w, Some(AccountKind::Mail))?;
    let key = match &call.idempotency_key {
        None => None,
        Some(key) if (1..=255).contains(&key.len()) => Some(key.clone()),
        Some(_) => return Err(Problem::invalid("Idempotency-Key must have 1 to 255 characters.")),
    };
    // serde_json keeps objects sorted, so the same fields give the same digest however they were sent.
    let print = digest(0, &[&Value::Object(call.body.clone()).to_string()]);
    forget_old_keys(w);
    if let Some((before, answer)) = key.as_ref().and_then(|k| w.keys.get(k)) {
        if *before == print {
            return Ok((201, answer.clone()));
        }
        return Err(Problem::new(
            409,
            "resource_already_used",
            "The idempotency key has already been used for a different request.",
        ));
    }
    let answer = deliver(w, call, account)?;
    if let Some(key) = key {
        w.keys.insert(key.clone(), (print, answer.clone()));
        w.key_order.push_back((w.now, key));
    }
    Ok((201, answer))
}

fn forget_old_keys(w: &mut World) {
    while let Some((at, _)) = w.key_order.front() {
        if w.now.since(*at) < KEY_LIFE && w.key_order.len() <= w.opts.history {
            break;
        }
        if let Some((_, key)) = w.key_order.pop_front() {
            w.keys.remove(&key);
        }
    }
}

fn deliver(w: &mut World, call: &Call, account: usize) -> Result<Value, Problem> {
    let to = mailboxes(call, "to")?;
    let (cc, bcc) = (mailboxes(call, "cc")?, mailboxes(call, "bcc")?);
    if to.is_empty() {
        return Err(Problem::new(400, "missing_parameters", "to is required."));
    }
    let Some(body) = call.text("body") else {
        return Err(Problem::new(400, "missing_parameters", "body is required."));
    };
    let all: Vec<&Mailbox> = to.iter().chain(&cc).chain(&bcc).collect();
    if let Some(bad) = all.iter().find(|m| !is_address(&m.address)) {
        return Err(Problem::new(422, "invalid_recipient", format!("{:?} is no e-mail address.", bad.address)));
    }
    let headers = custom_headers(call, w.opts.list_unsubscribe)?;
    let subject = call.text("subject").unwrap_or_default().to_owned();
    if subject.contains(['\r', '\n']) {
        return Err(Problem::new(400, "unescaped_characters", "subject must be one line."));
    }
    let tracking = tracking_options(call)?;
    let parent = parent_of(w, call, account, &subject)?;
    let sender = sender(call, &w.accounts[account])?;
    let people = receivers(w, &all)?;
    let attachments: Vec<Value> = match call.said("attachments") {
        None => Vec::new(),
        Some(Value::Array(files)) => files.iter().filter_map(attachment).collect(),
        Some(file) => attachment(file).into_iter().collect(),
    };
    w.charge(account, &["email"])?;
    let (account_id, account_key) = (w.accounts[account].id.clone(), w.accounts[account].key.clone());
    let mut addresses = people.iter().map(|p| w.people[*p].identity.clone());
    let first = addresses.next().unwrap_or_default();
    let also: Vec<String> = addresses.collect();
    let id = w.new_id(&["mail", &account_id, &first]);
    let key = w.unique_key(&["mail to", &account_key, &first]);
    let part = |what: &str, len| opaque(&digest(w.opts.seed, &[what, &id]), len);
    let (tracking_id, message_id) = (part("tracking", 22), format!("<{}@mail.gmail.com>", part("rfc", 22)));
    let provider_id = format!("{:016x}", number(w.opts.seed, &["provider", &id]));
    let entry = Entry {
        kind: "email",
        account_id,
        recipient: first.clone(),
        recipient_public: first,
        also,
        text: Some(body.to_owned()),
        subject: Some(subject.clone()),
        message_id: Some(message_id.clone()),
        tracking_label: tracking.label.clone(),
        headers: headers
            .iter()
            .filter(|(n, _)| n.to_ascii_lowercase().starts_with("x-") || n.starts_with("List-"))
            .cloned()
            .collect(),
        idempotency_key: call.idempotency_key.clone(),
        ..Entry::default()
    };
    let mail = Mail {
        number: 0,
        id,
        key,
        provider_id: provider_id.clone(),
        account,
        message_id,
        thread_id: parent.as_ref().map_or_else(|| provider_id.clone(), |p| p.thread_id.clone()),
        tracking: Some(Tracking { id: tracking_id.clone(), ..tracking }),
        at: w.now,
        ours: true,
        by_api: true,
        from: sender,
        to,
        cc,
        bcc,
        subject,
        body: body.to_owned(),
        in_reply_to: parent.map(|p| (p.message_id, p.id)),
        headers,
        attachments,
    };
    let number = w.keep_mail(mail, None);
    w.ledger.write(w.now, entry);
    for person in people {
        w.mail_sets_off(account, person, number);
    }
    Ok(json!({ "object": "EmailSent", "tracking_id": tracking_id, "provider_id": provider_id,
        "provider_immutable_id": null }))
}

/// Everybody a mail goes to, once each, the first of `to` first; or why it cannot go to one of them.
fn receivers(w: &mut World, all: &[&Mailbox]) -> Result<Vec<usize>, Problem> {
    let mut people = Vec::new();
    for mailbox in all {
        let person = w.meet(Place::Mail, &mailbox.address);
        if w.people[person].conduct.blocks {
            return Err(Problem::new(422, "blocked_recipient", "The recipient has blocked the account."));
        }
        if !w.people[person].conduct.reachable {
            return Err(Problem::new(422, "recipient_rejected", "The server of the recipient rejects the address."));
        }
        if !people.contains(&person) {
            people.push(person);
        }
    }
    Ok(people)
}

/// A file of a form as a mail shows it.
fn attachment(file: &Value) -> Option<Value> {
    let (name, mime) = (file["file_name"].as_str()?, file["mime_type"].as_str()?);
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    Some(
        json!({ "id": file["digest"], "name": name, "size": file["file_bytes"], "extension": extension, "mime": mime }),
    )
}

/// Whom a mail comes from: the account, or one of its aliases.
fn sender(call: &Call, own: &Account) -> Result<Mailbox, Problem> {
    let from = call.json("from")?.unwrap_or_default();
    if !(from.is_null() || from.is_object()) {
        return Err(Problem::invalid("from must be an object with display_name or identifier."));
    }
    let sender = Mailbox::new(
        from["display_name"].as_str().unwrap_or(&own.name),
        from["identifier"].as_str().unwrap_or(&own.identity),
    );
    let known = std::iter::once(&own.identity).chain(&own.aliases).any(|a| sender.address.eq_ignore_ascii_case(a));
    if known { Ok(sender) } else { Err(Problem::new(422, "send_as_denied", "The account has no such alias.")) }
}

fn tracking_options(call: &Call) -> Result<Tracking, Problem> {
    let options = match call.json("tracking_options")? {
        None => return Ok(Tracking::default()),
        Some(options) if options.is_object() => options,
        Some(_) => return Err(Problem::invalid("tracking_options must be an object.")),
    };
    let label = match &options["label"] {
        Value::Null => None,
        Value::String(label) => Some(label.clone()),
        _ => return Err(Problem::new(400, "invalid_label", "label must be a text.")),
    };
    Ok(Tracking {
        id: String::new(),
        opens: truth(&options["opens"]).unwrap_or(false),
        links: truth(&options["links"]).unwrap_or(false),
        label,
        custom_domain: options["custom_domain"].as_str().map(str::to_owned),
    })
}

/// A list of `{display_name?, identifier}`.
fn mailboxes(call: &Call, name: &str) -> Result<Vec<Mailbox>, Problem> {
    let invalid = || Problem::invalid(format!("{name} must be a list of objects with an identifier."));
    let list = match call.json(name)? {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(invalid()),
    };
    list.iter()
        .map(|m| {
            let address = m["identifier"].as_str().ok_or_else(invalid)?;
            Ok(Mailbox::new(m["display_name"].as_str().unwrap_or_default(), address))
        })
        .collect()
}

/// `X-` headers and the few others the provider lets through. Whether it takes the unsubscribe headers by their right names
/// is not published, so that is a setting.
fn custom_headers(call: &Call, list_unsubscribe: bool) -> Result<Vec<(String, String)>, Problem> {
    let list = match call.json("custom_headers")? {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Problem::invalid("custom_headers must be a list of {name, value}.")),
    };
    list.iter()
        .map(|h| {
            let (Some(name), Some(value)) = (h["name"].as_str(), h["value"].as_str()) else {
                return Err(Problem::invalid("custom_headers must be a list of {name, value}."));
            };
            let allowed = name.starts_with("X-")
                || name.starts_with("x-")
                || ["Unscribe-List", "Reply-To", "Content-Type"].contains(&name)
                || (list_unsubscribe && ["List-Unsubscribe", "List-Unsubscribe-Post"].contains(&name));
            if !allowed || value.contains(['\r', '\n']) {
                return Err(Problem::new(422, "invalid_headers", format!("The header {name:?} is not allowed.")));
            }
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// The mail being answered. Its subject must be kept.
fn parent_of(w: &World, call: &Call, account: usize, subject: &str) -> Result<Option<Mail>, Problem> {
    let Some(id) = call.text("reply_to").filter(|r| !r.is_empty()) else { return Ok(None) };
    let parent = w.mail(id).filter(|m| m.account == account);
    let Some(parent) = parent else {
        return Err(Problem::new(422, "parent_mail_not_found", "The mail being answered was not found."));
    };
    let bare = |s: &str| {
        let s = s.trim();
        ["Re:", "RE:", "re:", "Re :", "RE :", "re :"]
            .iter()
            .find_map(|p| s.strip_prefix(p))
            .map_or_else(|| s.to_owned(), |rest| rest.trim().to_owned())
    };
    // The parent's may be an answer itself: that is one more `Re:`, or none more.
    if bare(subject) != parent.subject.trim() && bare(subject) != bare(&parent.subject) {
        return Err(Problem::new(422, "invalid_reply_subject", "The subject must be the parent's, or Re: and that."));
    }
    Ok(Some(parent.clone()))
}
