//! What stands outside the provider's wire: who was met, what really happened, faults, acts on order, the clock. No key.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::Problem;
use super::faults::Rule;
use super::people::Place;
use super::server::Sandbox;
use super::wire::{is_endpoint, json_response, problem};
use super::world::{Link, World};

/// `?limit=` of the people's list.
#[derive(Deserialize)]
pub(super) struct PeopleQuery {
    limit: Option<usize>,
}

/// Everyone met so far, in the order of meeting.
pub(super) async fn people(State(sandbox): State<Arc<Sandbox>>, Query(q): Query<PeopleQuery>) -> Json<Value> {
    Json(sandbox.with(|w| {
        let limit = q.limit.unwrap_or(1000);
        let items: Vec<Value> = (0..w.people.len()).take(limit).map(|p| person(w, p)).collect();
        json!({ "items": items, "count": w.people.len() })
    }))
}

fn person(w: &World, index: usize) -> Value {
    let p = &w.people[index];
    let place = match p.place {
        Place::LinkedIn => "linkedin",
        Place::Mail => "email",
        Place::Phone => "whatsapp",
    };
    let seconds = |d: Option<std::time::Duration>| d.map(|d| d.as_secs());
    let links: Vec<Value> = (0..w.accounts.len())
        .filter_map(|a| {
            let state = match w.links.get(&(a, index))? {
                Link::Pending { .. } => "pending",
                Link::Withdrawn { .. } => "withdrawn",
                Link::Connected { .. } => "connected",
            };
            Some(json!({ "account_id": w.accounts[a].id, "state": state }))
        })
        .collect();
    json!({
        "place": place, "identity": p.identity, "provider_id": p.provider_id, "name": p.full_name(),
        "behaviour": { "accepts_after_s": seconds(p.accepts), "replies_after_s": seconds(p.replies),
            "bounces_after_s": seconds(p.bounces), "opens": p.opens },
        "replied": p.replied, "links": links,
    })
}

/// Which part of the ledger.
#[derive(Deserialize)]
pub(super) struct LedgerQuery {
    after: Option<u64>,
    kind: Option<String>,
    format: Option<String>,
    limit: Option<usize>,
}

/// The effects that really happened, oldest first.
pub(super) async fn ledger(State(sandbox): State<Arc<Sandbox>>, Query(q): Query<LedgerQuery>) -> Response {
    let (items, count, overlapping) = sandbox.with(|w| {
        // Entry number n has seq n + 1, so what comes after a seq starts at that number.
        let later = w.ledger.entries.iter_from(q.after.unwrap_or(0));
        let wanted = later.filter(|e| q.kind.as_deref().is_none_or(|kind| e.kind == kind));
        let items: Vec<_> = wanted.take(q.limit.unwrap_or(usize::MAX)).cloned().collect();
        (items, w.ledger.entries.next(), w.ledger.overlapping)
    });
    if q.format.as_deref() == Some("ndjson") {
        let lines =
            items.iter().filter_map(|e| serde_json::to_string(e).ok()).fold(String::new(), |all, l| all + &l + "\n");
        return ([(CONTENT_TYPE, "application/x-ndjson")], lines).into_response();
    }
    Json(json!({ "items": items, "count": count, "overlapping": overlapping })).into_response()
}

/// Delivery counters and the webhooks that exist.
pub(super) async fn webhooks(State(sandbox): State<Arc<Sandbox>>) -> Json<Value> {
    let hooks: Vec<Value> = sandbox.with(|w| {
        let hooks = w.hooks.iter();
        hooks
            .map(|h| json!({ "id": h.id, "source": h.source, "events": h.events, "request_url": h.request_url }))
            .collect()
    });
    let mut report = sandbox.courier.report();
    report["webhooks"] = json!(hooks);
    Json(report)
}

/// The sandbox's time.
pub(super) async fn clock(State(sandbox): State<Arc<Sandbox>>) -> Json<Value> {
    let (next, waiting) = sandbox.with(|w| (w.acts.peek().map(|r| r.0.at.to_string()), w.acts.len()));
    Json(json!({ "now": sandbox.clock.now().to_string(), "next_act_at": next, "acts_waiting": waiting }))
}

/// Adds rules: one, or a list of them. Whatever the content type says, the body is read as JSON.
pub(super) async fn set_faults(State(sandbox): State<Arc<Sandbox>>, body: Bytes) -> Response {
    let read = serde_json::from_slice::<Value>(&body).and_then(|value| {
        let list = if value.is_array() { value } else { json!([value]) };
        serde_json::from_value::<Vec<Rule>>(list)
    });
    let rules = match read {
        Ok(rules) => rules,
        Err(error) => return problem(&Problem::invalid(format!("no list of fault rules: {error}"))),
    };
    if let Some(bad) = rules.iter().find(|r| r.target.endpoint != "*" && !is_endpoint(&r.target.endpoint)) {
        let detail =
            format!("{:?} is no endpoint; they are named like \"POST /users/invite\", or *.", bad.target.endpoint);
        return problem(&Problem::invalid(detail));
    }
    sandbox.with(|w| {
        // Rules that are spent go, so that a long run of them cannot grow.
        w.rules.retain(|r| r.times != Some(0));
        w.rules.extend(rules);
        json_response(200, &json!({ "items": w.rules }))
    })
}

/// The rules, with how often each struck.
pub(super) async fn faults(State(sandbox): State<Arc<Sandbox>>) -> Json<Value> {
    Json(sandbox.with(|w| json!({ "items": w.rules })))
}

/// No faults any more.
pub(super) async fn clear_faults(State(sandbox): State<Arc<Sandbox>>) -> Json<Value> {
    sandbox.with(|w| w.rules.clear());
    Json(json!({ "items": [] }))
}

/// What somebody is to do now.
#[derive(Deserialize)]
pub(super) struct ActOrder {
    #[serde(default)]
    identity: String,
    act: String,
    account_id: Option<String>,
    text: Option<String>,
}

/// Makes somebody accept, reply or bounce now; or an account `disconnect` and `reconnect`.
pub(super) async fn act(State(sandbox): State<Arc<Sandbox>>, body: Bytes) -> Response {
    let order = match serde_json::from_slice::<ActOrder>(&body) {
        Ok(order) => order,
        Err(error) => return problem(&Problem::invalid(format!("no order to act: {error}"))),
    };
    match sandbox.with(|w| perform(w, &order)) {
        Ok(done) => json_response(200, &done),
        Err(p) => problem(&p),
    }
}

fn perform(w: &mut World, order: &ActOrder) -> Result<Value, Problem> {
    let only = match &order.account_id {
        None => None,
        Some(id) => Some(w.account_index(id).ok_or_else(|| Problem::missing("account"))?),
    };
    if let ("disconnect" | "reconnect", Some(account)) = (order.act.as_str(), only) {
        w.set_status(account, if order.act == "reconnect" { "OK" } else { "CREDENTIALS" });
        return Ok(json!({ "account_id": order.account_id, "act": order.act }));
    }
    let person =
        w.find_person(&order.identity).ok_or_else(|| Problem::missing("person; nobody has asked for them yet"))?;
    for account in w.accounts_near(person, only) {
        let done = match order.act.as_str() {
            "accept" => w.accept(account, person),
            "reply" => w.reply(account, person, order.text.clone()),
            "bounce" => {
                let mail = w.last_mail_to(account, &w.people[person].identity);
                mail.is_some_and(|m| w.bounce(m.number))
            }
            _ => return Err(Problem::invalid("act must be accept, reply, bounce, disconnect or reconnect.")),
        };
        if done {
            return Ok(json!({ "account_id": w.accounts[account].id, "act": order.act }));
        }
    }
    Err(Problem::new(409, "unprocessable_entity", "There is nothing this person could do that to."))
}
