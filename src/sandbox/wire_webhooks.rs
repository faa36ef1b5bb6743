//! `/webhooks`: creating, listing and deleting them. There is no update.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::call::Call;
use super::errors::Problem;
use super::page::Page;
use super::webhooks::Hook;
use super::wire::Answer;
use super::world::World;

/// The sources, each with its events; the first is what a webhook gets when it names none.
const SOURCES: [(&str, &[&str]); 6] = [
    (
        "messaging",
        &[
            "message_received",
            "message_read",
            "message_reaction",
            "message_edited",
            "message_deleted",
            "message_delivered",
        ],
    ),
    ("users", &["new_relation"]),
    ("email", &["mail_received", "mail_sent", "mail_moved"]),
    ("email_tracking", &["mail_opened", "mail_link_clicked"]),
    ("account_status", &[]),
    ("calendar_event", &[]),
];

/// A list of objects with two texts each.
fn pairs(call: &Call, name: &str, keys: [&str; 2]) -> Result<Vec<(String, String)>, Problem> {
    let invalid = || Problem::invalid(format!("{name} must be a list of {{{}, {}}}.", keys[0], keys[1]));
    match call.json(name)? {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list
            .iter()
            .map(|item| Some((item[keys[0]].as_str()?.to_owned(), item[keys[1]].as_str()?.to_owned())))
            .collect::<Option<_>>()
            .ok_or_else(invalid),
        Some(_) => Err(invalid()),
    }
}

pub(super) fn create(w: &mut World, call: &Call) -> Answer {
    let url = call.text("request_url").unwrap_or_default();
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        return Err(Problem::new(400, "invalid_url", "request_url must be an http or https URL."));
    }
    let source = call.text("source").unwrap_or_default();
    let Some((_, known)) = SOURCES.iter().find(|(name, _)| *name == source) else {
        return Err(Problem::invalid("source is none of the known sources."));
    };
    let words = |name: &str| -> Result<Vec<String>, Problem> {
        match call.json(name)? {
            None => Ok(Vec::new()),
            Some(value) => {
                serde_json::from_value(value).map_err(|_| Problem::invalid(format!("{name} must be a list of texts.")))
            }
        }
    };
    let mut events = words("events")?;
    if events.is_empty() {
        events = known.first().map(|e| (*e).to_owned()).into_iter().collect();
    } else if !known.is_empty()
        && let Some(bad) = events.iter().find(|e| !known.contains(&e.as_str()))
    {
        return Err(Problem::invalid(format!("{bad:?} is no event of {source}.")));
    }
    let headers = pairs(call, "headers", ["key", "value"])?;
    let data = pairs(call, "data", ["name", "key"])?;
    let enabled = call.flag("enabled").unwrap_or(true);
    let format = call.text("format").unwrap_or("json");
    if !["json", "form"].contains(&format) {
        return Err(Problem::invalid("format must be json or form."));
    }
    let hook = Hook {
        number: w.number(),
        key: w.unique_key(&["webhook of", source]),
        id: w.new_id(&["webhook", source, url]),
        name: call.text("name").unwrap_or_default().to_owned(),
        source: source.to_owned(),
        request_url: url.to_owned(),
        format: format.to_owned(),
        events,
        account_ids: words("account_ids")?,
        headers,
        data,
        enabled,
        slots: Semaphore::new(w.opts.webhook_concurrency.max(1)),
    };
    let id = hook.id.clone();
    w.hooks.push(Arc::new(hook));
    Ok((201, json!({ "object": "WebhookCreated", "webhook_id": id })))
}

pub(super) fn list(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let items = w.hooks.iter().rev().map(|h| {
        let accounts: Vec<Value> = w
            .accounts
            .iter()
            .filter(|a| !a.deleted && (h.account_ids.is_empty() || h.account_ids.contains(&a.id)))
            .map(|a| json!({ "id": a.id, "name": a.name, "type": a.kind.wire() }))
            .collect();
        let headers: Vec<Value> = h.headers.iter().map(|(k, v)| json!({ "key": k, "value": v })).collect();
        let data: Vec<Value> = h.data.iter().map(|(n, k)| json!({ "name": n, "key": k })).collect();
        // The real list does not tell the source either.
        let item = json!({
            "object": "Webhook", "id": h.id, "account_ids": accounts, "enabled": h.enabled, "name": h.name,
            "request_url": h.request_url, "format": h.format, "headers": headers, "data": data, "events": h.events,
            // One that somebody triggers by hand would have a button.
            "type": "AUTO",
        });
        (h.number, item)
    });
    Ok((200, page.list("WebhookList", items)))
}

pub(super) fn delete(w: &mut World, call: &Call) -> Answer {
    let count = w.hooks.len();
    w.hooks.retain(|h| h.id != call.part(1));
    if w.hooks.len() == count {
        return Err(Problem::missing("webhook"));
    }
    Ok((200, json!({ "object": "WebhookDeleted" })))
}
