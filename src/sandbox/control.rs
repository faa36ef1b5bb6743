//! What stands outside the provider's wire and changes things: faults, quotas, settings, people, accounts, the clock. No key;
//! bodies are read as JSON whatever their content type says.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::errors::Problem;
use super::faults::Rule;
use super::handling::Handling;
use super::inspect::person_view;
use super::orders::{self, Order};
use super::quota::Quota;
use super::routes::endpoint;
use super::server::Sandbox;
use super::settings;
use super::span;
use super::wire::{json_response, problem};

/// Acts played in one turn when the clock is turned.
const ACTS_A_TURN: usize = 10_000;

fn reply(answer: Result<Value, Problem>) -> Response {
    match answer {
        Ok(body) => json_response(200, &body),
        Err(p) => problem(&p),
    }
}

fn read<T: DeserializeOwned>(body: &Bytes, what: &str) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|e| Problem::invalid(format!("no {what}: {e}")))
}

/// One, or a list of them.
fn read_list<T: DeserializeOwned>(body: &Bytes, what: &str) -> Result<Vec<T>, Problem> {
    let value: Value = read(body, what)?;
    let list = if value.is_array() { value } else { json!([value]) };
    serde_json::from_value(list).map_err(|e| Problem::invalid(format!("no {what}: {e}")))
}

/// Adds rules of faults: one, or a list of them.
pub(super) async fn set_faults(State(sandbox): State<Arc<Sandbox>>, body: Bytes) -> Response {
    let rules = read_list::<Rule>(&body, "list of fault rules").and_then(|mut rules| {
        rules.iter_mut().try_for_each(|r| r.check(endpoint)).map_err(Problem::invalid)?;
        Ok(rules)
    });
    reply(rules.map(|rules| {
        sandbox.with(|w| {
            // Rules that are spent go, so that a long run of them cannot grow.
            w.rules.retain(|r| r.times != Some(0));
            for mut rule in rules {
                w.rules_made += 1;
                rule.id = w.rules_made;
                w.rules.push(rule);
            }
            json!({ "items": w.rules })
        })
    }))
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

/// One rule less.
pub(super) async fn delete_fault(State(sandbox): State<Arc<Sandbox>>, Path(id): Path<u64>) -> Response {
    reply(sandbox.with(|w| {
        let count = w.rules.len();
        w.rules.retain(|r| r.id != id);
        if w.rules.len() == count { Err(Problem::missing("rule")) } else { Ok(json!({ "items": w.rules })) }
    }))
}

/// Adds quotas: one, or a list of them.
pub(super) async fn set_quotas(State(sandbox): State<Arc<Sandbox>>, body: Bytes) -> Response {
    let quotas = read_list::<Quota>(&body, "list of quotas").and_then(|quotas| {
        quotas.iter().try_for_each(Quota::check).map_err(Problem::invalid)?;
        Ok(quotas)
    });
    reply(quotas.map(|quotas| {
        sandbox.with(|w| {
            w.opts.quotas.extend(quotas);
            json!({ "items": w.opts.quotas })
        })
    }))
}

/// The quotas, with how often each refused.
pub(super) async fn quotas(State(sandbox): State<Arc<Sandbox>>) -> Json<Value> {
    Json(sandbox.with(|w| json!({ "items": w.opts.quotas })))
}

/// No quotas any more.
pub(super) async fn clear_quotas(State(sandbox): State<Arc<Sandbox>>) -> Json<Value> {
    sandbox.with(|w| w.opts.quotas.clear());
    Json(json!({ "items": [] }))
}

/// Sets the rules for what becomes of webhooks, in place of those before.
pub(super) async fn set_handlings(State(sandbox): State<Arc<Sandbox>>, body: Bytes) -> Response {
    let rules = read_list::<Handling>(&body, "list of webhook rules").and_then(|rules| {
        rules.iter().try_for_each(Handling::check).map_err(Problem::invalid)?;
        Ok(rules)
    });
    reply(rules.map(|rules| {
        sandbox.with(|w| {
            w.handlings = rules;
            json!({ "rules": w.handlings })
        })
    }))
}

/// Webhooks are treated as the settings say again.
pub(super) async fn clear_handlings(State(sandbox): State<Arc<Sandbox>>) -> Json<Value> {
    sandbox.with(|w| w.handlings.clear());
    Json(json!({ "rules": [] }))
}

/// The settings.
pub(super) async fn settings(State(sandbox): State<Arc<Sandbox>>) -> Json<Value> {
    Json(sandbox.with(|w| settings::view(&w.opts)))
}

/// Changes some settings. People met before keep what they do.
pub(super) async fn set_settings(State(sandbox): State<Arc<Sandbox>>, body: Bytes) -> Response {
    reply(read::<Value>(&body, "settings").and_then(|change| {
        sandbox.with(|w| {
            settings::change(&mut w.opts, &change).map_err(Problem::invalid)?;
            sandbox.courier.set_delays(&w.opts.webhook_retry_delays);
            Ok(settings::view(&w.opts))
        })
    }))
}

/// Makes somebody do something now; or an account `disconnect` and `reconnect`.
pub(super) async fn act(State(sandbox): State<Arc<Sandbox>>, body: Bytes) -> Response {
    let order = read::<Order>(&body, "order to act");
    reply(order.and_then(|order| sandbox.with(|w| orders::perform(w, &order))))
}

/// The same, with person and act in the path; the body may be empty.
pub(super) async fn act_of(
    State(sandbox): State<Arc<Sandbox>>,
    Path((identity, act)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let order = if body.is_empty() { Ok(Order::default()) } else { read::<Order>(&body, "order to act") };
    reply(order.and_then(|mut order| {
        (order.identity, order.act) = (identity, act.replace('-', "_"));
        sandbox.with(|w| {
            orders::person_of(w, &order.identity)?;
            orders::perform(w, &order)
        })
    }))
}

/// Changes what somebody does.
pub(super) async fn set_person(
    State(sandbox): State<Arc<Sandbox>>,
    Path(identity): Path<String>,
    body: Bytes,
) -> Response {
    reply(read::<Value>(&body, "conduct of a person").and_then(|change| {
        sandbox.with(|w| {
            let person = orders::person_of(w, &identity)?;
            orders::instruct(w, person, &change)?;
            Ok(person_view(w, person))
        })
    }))
}

/// What can be changed about an account.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountChange {
    /// A message of `AccountStatus`: `OK`, `CREDENTIALS`, `RECONNECTED`, …
    status: Option<String>,
    premium: Option<bool>,
    inmail_credits: Option<u32>,
    aliases: Option<Vec<String>>,
}

/// Changes an account.
pub(super) async fn set_account(State(sandbox): State<Arc<Sandbox>>, Path(id): Path<String>, body: Bytes) -> Response {
    reply(read::<AccountChange>(&body, "change of an account").and_then(|change| {
        sandbox.with(|w| {
            let index = w.account_index(&id).ok_or_else(|| Problem::missing("account"))?;
            if change.status.as_deref().is_some_and(|s| !w.set_status(index, s)) {
                return Err(Problem::invalid("status is none that the provider tells of."));
            }
            let own = &mut w.accounts[index];
            own.premium = change.premium.unwrap_or(own.premium);
            own.credits = change.inmail_credits.unwrap_or(own.credits);
            own.aliases = change.aliases.unwrap_or_else(|| std::mem::take(&mut own.aliases));
            Ok(w.account_view(index))
        })
    }))
}

/// The sandbox's time.
pub(super) async fn clock(State(sandbox): State<Arc<Sandbox>>) -> Json<Value> {
    Json(time(&sandbox))
}

fn time(sandbox: &Sandbox) -> Value {
    let (now, next, waiting) =
        sandbox.with(|w| (w.now.to_string(), w.acts.peek().map(|r| r.0.at.to_string()), w.acts.len()));
    json!({ "now": now, "speed": sandbox.dial.speed(), "next_act_at": next, "acts_waiting": waiting })
}

/// How the clock is turned.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Turn {
    /// Forward by so much.
    #[serde(default, with = "span::maybe")]
    advance: Option<std::time::Duration>,
    /// To the next act that waits; nothing waits, nothing happens.
    #[serde(default)]
    to_next: bool,
    /// From now on so many times faster than the clock behind it; zero stops it.
    speed: Option<f64>,
}

/// Turns the clock, and answers when everything that became due by it is done.
pub(super) async fn set_clock(State(sandbox): State<Arc<Sandbox>>, body: Bytes) -> Response {
    let turn = match read::<Turn>(&body, "turn of the clock") {
        Ok(turn) => turn,
        Err(p) => return problem(&p),
    };
    if turn.speed.is_some_and(|s| !(0.0..=1_000_000.0).contains(&s)) {
        return problem(&Problem::invalid("speed is a number from 0 to 1000000."));
    }
    let next = sandbox.with(|w| w.acts.peek().map(|r| r.0.at.since(w.now)));
    let forward = turn.advance.or(next.filter(|_| turn.to_next)).unwrap_or_default();
    sandbox.dial.turn(forward, turn.speed);
    while !sandbox.play(ACTS_A_TURN) {
        tokio::task::yield_now().await;
    }
    sandbox.wake();
    json_response(200, &time(&sandbox))
}

/// What a restart of the provider loses: idempotency keys.
pub(super) async fn restart(State(sandbox): State<Arc<Sandbox>>) -> Json<Value> {
    sandbox.with(super::world::World::restart);
    Json(json!({ "restarted": true }))
}
