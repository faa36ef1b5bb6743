//! What stands outside the provider's wire and is only looked at: who was met, what was sent, what they did, what was asked.
//! No key.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ledger::Entry;
use super::server::Sandbox;
use super::summary;
use super::wire::{json_response, problem};
use super::world::{Link, World};

/// Which part of a list: what comes after a number, of one kind, account or person, so many.
#[derive(Deserialize)]
pub(super) struct Part {
    after: Option<u64>,
    kind: Option<String>,
    account_id: Option<String>,
    identity: Option<String>,
    place: Option<String>,
    format: Option<String>,
    limit: Option<usize>,
}

impl Part {
    fn limit(&self, default: usize) -> usize {
        self.limit.unwrap_or(default)
    }

    fn wants(&self, kind: &str, account: &str, identities: &[&str]) -> bool {
        self.kind.as_deref().is_none_or(|k| k == kind)
            && self.account_id.as_deref().is_none_or(|a| a == account)
            && self.identity.as_deref().is_none_or(|i| identities.contains(&i))
    }
}

fn ndjson<T: Serialize>(items: &[T]) -> Response {
    let lines =
        items.iter().filter_map(|e| serde_json::to_string(e).ok()).fold(String::new(), |all, l| all + &l + "\n");
    ([(CONTENT_TYPE, "application/x-ndjson")], lines).into_response()
}

/// Everyone met so far, in the order of meeting.
pub(super) async fn people(State(sandbox): State<Arc<Sandbox>>, Query(q): Query<Part>) -> Json<Value> {
    Json(sandbox.with(|w| {
        let first = usize::try_from(q.after.unwrap_or(0)).unwrap_or(usize::MAX).min(w.people.len());
        let wanted = (first..w.people.len())
            .filter(|p| q.place.as_deref().is_none_or(|place| w.people[*p].place.as_str() == place));
        let items: Vec<Value> = wanted.take(q.limit(1000)).map(|p| person_view(w, p)).collect();
        json!({ "items": items, "count": w.people.len() })
    }))
}

/// One person.
pub(super) async fn person(State(sandbox): State<Arc<Sandbox>>, Path(identity): Path<String>) -> Response {
    sandbox.with(|w| match super::orders::person_of(w, &identity) {
        Ok(person) => json_response(200, &person_view(w, person)),
        Err(p) => problem(&p),
    })
}

/// A person as both show them. `seq` is what `after` wants.
pub(super) fn person_view(w: &World, index: usize) -> Value {
    let p = &w.people[index];
    let seconds = |d: Option<std::time::Duration>| d.map(|d| d.as_secs());
    let links: Vec<Value> = (0..w.accounts.len())
        .filter_map(|a| {
            let state = match w.links.get(&(a, index))? {
                Link::Pending { .. } => "pending",
                Link::Received { .. } => "received",
                Link::Declined { .. } => "declined",
                Link::Withdrawn { .. } => "withdrawn",
                Link::Connected { .. } => "connected",
            };
            Some(json!({ "account_id": w.accounts[a].id, "state": state }))
        })
        .collect();
    let c = &p.conduct;
    json!({
        "seq": index + 1, "place": p.place.as_str(), "identity": p.identity, "provider_id": p.provider_id,
        "lid": (!p.lid.is_empty()).then_some(&p.lid), "name": p.full_name(), "conduct": c,
        // The same, in the words and seconds of before.
        "behaviour": { "accepts_after_s": seconds(c.accept_after), "replies_after_s": seconds(c.reply_after),
            "bounces_after_s": seconds(c.bounce_after), "opens": c.open_after.is_some() },
        "replied": p.replied, "links": links,
    })
}

/// The effects that really happened, oldest first.
pub(super) async fn ledger(State(sandbox): State<Arc<Sandbox>>, Query(q): Query<Part>) -> Response {
    let (items, count, overlapping) = sandbox.with(|w| {
        // Entry number n has seq n + 1, so what comes after a seq starts at that number.
        let later = w.ledger.entries.iter_from(q.after.unwrap_or(0));
        let wanted = later.filter(|e| {
            let also = e.also.iter().map(String::as_str);
            let receivers: Vec<&str> = [e.recipient.as_str(), &e.recipient_public].into_iter().chain(also).collect();
            q.wants(e.kind, &e.account_id, &receivers)
        });
        let items: Vec<Entry> = wanted.take(q.limit(usize::MAX)).cloned().collect();
        (items, w.ledger.entries.next(), w.ledger.overlapping)
    });
    if q.format.as_deref() == Some("ndjson") {
        return ndjson(&items);
    }
    Json(json!({ "items": items, "count": count, "overlapping": overlapping })).into_response()
}

/// One more window for the summary.
#[derive(Deserialize)]
pub(super) struct Look {
    #[serde(default, with = "super::span::maybe")]
    window: Option<std::time::Duration>,
}

/// What the ledger adds up to.
pub(super) async fn ledger_summary(State(sandbox): State<Arc<Sandbox>>, Query(q): Query<Look>) -> Json<Value> {
    Json(sandbox.with(|w| summary::summary(w, q.window)))
}

/// What people did, oldest first.
pub(super) async fn deeds(State(sandbox): State<Arc<Sandbox>>, Query(q): Query<Part>) -> Response {
    let (items, count) = sandbox.with(|w| {
        let later = w.deeds.iter_from(q.after.unwrap_or(0));
        let wanted = later.filter(|d| q.wants(d.kind, &d.account_id, &[&d.identity]));
        (wanted.take(q.limit(usize::MAX)).cloned().collect::<Vec<_>>(), w.deeds.next())
    });
    if q.format.as_deref() == Some("ndjson") {
        return ndjson(&items);
    }
    Json(json!({ "items": items, "count": count })).into_response()
}

/// What was asked of the provider, counted, and what was refused, one by one.
pub(super) async fn calls(State(sandbox): State<Arc<Sandbox>>, Query(q): Query<Part>) -> Json<Value> {
    Json(sandbox.with(|w| {
        let later = w.calls.refusals.iter_from(q.after.unwrap_or(0));
        let wanted = later.filter(|r| q.account_id.as_deref().is_none_or(|a| a == r.account_id));
        let refused: Vec<_> = wanted.take(q.limit(1000)).collect();
        json!({ "counts": w.calls.counts(), "refused": refused, "refused_count": w.calls.refusals.next() })
    }))
}

/// Accounts with their state and what they used of their quotas.
pub(super) async fn accounts(State(sandbox): State<Arc<Sandbox>>) -> Json<Value> {
    Json(sandbox.with(|w| {
        let items: Vec<Value> = (0..w.accounts.len()).map(|a| w.account_view(a)).collect();
        json!({ "items": items })
    }))
}

/// Delivery counters, the webhooks that exist, and the rules for what becomes of deliveries.
pub(super) async fn webhooks(State(sandbox): State<Arc<Sandbox>>) -> Json<Value> {
    let (hooks, rules, lost, held) = sandbox.with(|w| {
        let hooks: Vec<Value> = w
            .hooks
            .iter()
            .map(|h| json!({ "id": h.id, "source": h.source, "events": h.events, "request_url": h.request_url }))
            .collect();
        let held: usize = w.accounts.iter().map(|a| a.held.len()).sum();
        (hooks, json!(w.handlings), w.lost, held)
    });
    let mut report = sandbox.courier.report();
    report["webhooks"] = json!(hooks);
    report["rules"] = rules;
    report["lost"] = json!(lost);
    report["held"] = json!(held);
    Json(report)
}

/// An overview of what there is.
pub(super) async fn index() -> Json<Value> {
    Json(json!({
        "wire": "/api/v1, with X-API-KEY",
        "look": ["/sandbox/ledger", "/sandbox/ledger/summary", "/sandbox/deeds", "/sandbox/calls", "/sandbox/people",
            "/sandbox/people/{identity}", "/sandbox/accounts", "/sandbox/webhooks", "/sandbox/clock",
            "/sandbox/settings", "/sandbox/faults", "/sandbox/quotas"],
        "change": ["PATCH /sandbox/settings", "PATCH /sandbox/people/{identity}", "POST /sandbox/people/{identity}/{act}",
            "PATCH /sandbox/accounts/{id}", "POST|DELETE /sandbox/faults", "POST|DELETE /sandbox/quotas",
            "POST|DELETE /sandbox/webhooks", "POST /sandbox/clock", "POST /sandbox/restart"],
        "acts": super::orders::ACTS,
    }))
}
