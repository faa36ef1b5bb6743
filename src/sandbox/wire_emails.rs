//! `/emails`.

use std::time::Duration;

use serde_json::{Value, json};

use super::act::Act;
use super::errors::Problem;
use super::ledger::Entry;
use super::mailbox::{Mail, Mailbox};
use super::options::AccountKind;
use super::page::Page;
use super::people::{Place, is_address};
use super::text::{digest, number};
use super::wire::{Answer, Call};
use super::world::World;

/// How long an idempotency key is remembered, on the clock.
const KEY_LIFE: Duration = Duration::from_secs(24 * 3600);

pub(super) fn send(w: &mut World, call: &Call) -> Answer {
    let account = call.body_account(w, Some(AccountKind::Mail))?;
    let key = match &call.idempotency_key {
        None => None,
        Some(key) if (1..=255).contains(&key.len()) => Some((account, key.clone())),
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
    let Some(first) = to.first().map(|m| m.address.to_lowercase()) else {
        return Err(Problem::new(400, "missing_parameters", "to is required."));
    };
    let Some(body) = call.text("body") else {
        return Err(Problem::new(400, "missing_parameters", "body is required."));
    };
    if let Some(bad) = to.iter().chain(&cc).chain(&bcc).find(|m| !is_address(&m.address)) {
        return Err(Problem::new(422, "invalid_recipient", format!("{:?} is no e-mail address.", bad.address)));
    }
    let headers = custom_headers(call)?;
    let subject = call.text("subject").unwrap_or_default().to_owned();
    let tracking = call.json("tracking_options")?.unwrap_or_default();
    let parent = parent_of(w, call, account, &subject)?;
    let own = &w.accounts[account];
    let from = call.json("from")?.unwrap_or_default();
    let sender = Mailbox::new(
        from["display_name"].as_str().unwrap_or(&own.name),
        from["identifier"].as_str().unwrap_or(&own.identity),
    );
    if !sender.address.eq_ignore_ascii_case(&own.identity) {
        return Err(Problem::new(422, "send_as_denied", "The account has no such alias."));
    }
    let account_id = own.id.clone();
    let (id, tracking_id, unique) = (w.new_id(), w.new_id(), w.new_id());
    let provider_id = format!("{:016x}", number(w.opts.seed, &[&unique]));
    let mail = Mail {
        number: w.mails.next(),
        id,
        provider_id: provider_id.clone(),
        account,
        message_id: format!("<{unique}@mail.gmail.com>"),
        thread_id: parent.as_ref().map_or_else(|| provider_id.clone(), |p| p.thread_id.clone()),
        tracking_id: Some(tracking_id.clone()),
        label: tracking["label"].as_str().map(str::to_owned),
        at: w.now,
        ours: true,
        from: sender,
        to,
        cc,
        bcc,
        subject: subject.clone(),
        body: body.to_owned(),
        in_reply_to: parent.map(|p| (p.message_id, p.id)),
        headers: headers.clone(),
    };
    let entry = Entry {
        kind: "email",
        account_id,
        recipient: first.clone(),
        recipient_public: first.clone(),
        text: Some(body.to_owned()),
        subject: Some(subject),
        message_id: Some(mail.message_id.clone()),
        tracking_label: mail.label.clone(),
        headers: headers.into_iter().filter(|(n, _)| n.to_ascii_lowercase().starts_with("x-")).collect(),
        idempotency_key: call.idempotency_key.clone(),
        ..Entry::default()
    };
    let number = mail.number;
    w.keep_mail(mail);
    w.ledger.write(w.now, entry);
    let person = w.meet(Place::Mail, &first);
    let them = &w.people[person];
    let opens = them.opens && (tracking["opens"] == true || tracking["opens"] == "true");
    if let Some(after) = them.bounces {
        w.later(after, Act::Bounce { mail: number });
    } else {
        if opens {
            w.later(w.opts.people.reply_min / 2, Act::Open { mail: number });
        }
        w.maybe_reply(account, person);
    }
    Ok(json!({ "object": "EmailSent", "tracking_id": tracking_id, "provider_id": provider_id,
        "provider_immutable_id": null }))
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

/// `X-` headers and the few others the provider lets through.
fn custom_headers(call: &Call) -> Result<Vec<(String, String)>, Problem> {
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
                || ["Unscribe-List", "Reply-To", "Content-Type"].contains(&name);
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
    let parent = w.mail_ids.get(id).and_then(|n| w.mails.get(*n)).filter(|m| m.account == account);
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
    if bare(subject) != bare(&parent.subject) {
        return Err(Problem::new(422, "invalid_reply_subject", "The subject must be the parent's, or Re: and that."));
    }
    Ok(Some(parent.clone()))
}

fn flag(page: &Page, name: &str) -> bool {
    matches!(page.get(name), Some("true" | "1"))
}

pub(super) fn list(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let account = w.account(page.get("account_id"), Some(AccountKind::Mail))?;
    let (meta, headers) = (flag(&page, "meta_only"), flag(&page, "include_headers"));
    if meta && headers {
        return Err(Problem::new(400, "invalid_request", "include_headers needs meta_only=false."));
    }
    let lower = |name: &str| page.get(name).filter(|v| !v.is_empty()).map(str::to_lowercase);
    let (from, to, any) = (lower("from"), lower("to"), lower("any_email"));
    let is = |m: &Mailbox, address: &str| m.address.eq_ignore_ascii_case(address);
    let sent_to = |m: &Mail, a: &str| m.to.iter().chain(&m.cc).chain(&m.bcc).any(|t| is(t, a));
    let wanted = |m: &&Mail| {
        m.account == account
            && page.holds(m.at)
            && from.as_deref().is_none_or(|a| is(&m.from, a))
            && to.as_deref().is_none_or(|a| sent_to(m, a))
            && any.as_deref().is_none_or(|l| l.split(',').any(|a| is(&m.from, a.trim()) || sent_to(m, a.trim())))
            && page.get("message_id").is_none_or(|id| m.message_id == id)
            && page.get("thread_id").is_none_or(|id| m.thread_id == id)
            && page.get("role").is_none_or(|r| r == "all" || m.role() == r)
    };
    let shown = |m: &Mail| (m.number, m.json(&w.accounts[account].id, meta, headers));
    let one = to.as_ref().or(from.as_ref());
    // One address's mails are indexed; anything else walks the mailbox.
    let body = match (one, page.get("message_id")) {
        (Some(address), _) => {
            let numbers = w.mail_by_address.get(&(account, address.clone())).map_or(&[][..], Vec::as_slice);
            let mails = numbers.iter().rev().filter_map(|n| w.mails.get(*n));
            page.list("EmailList", mails.filter(wanted).map(shown))
        }
        (None, Some(id)) => {
            let mail = w.mail_ids.get(id).and_then(|n| w.mails.get(*n));
            page.list("EmailList", mail.into_iter().filter(wanted).map(shown))
        }
        (None, None) => page.list("EmailList", w.mails.iter().rev().filter(wanted).map(shown)),
    };
    Ok((200, body))
}

pub(super) fn get(w: &mut World, call: &Call) -> Answer {
    let account = call.query("account_id").map(|a| w.account(Some(a), Some(AccountKind::Mail))).transpose()?;
    let found = w.mail_ids.get(call.part(1)).and_then(|n| w.mails.get(*n));
    // The provider's id needs the account; ours does not.
    let mail = found
        .filter(|m| account.map_or(m.id == call.part(1), |a| m.account == a))
        .ok_or_else(|| Problem::missing("email"))?;
    let headers = matches!(call.query("include_headers"), Some("true" | "1"));
    Ok((200, mail.json(&w.accounts[mail.account].id, false, headers)))
}
