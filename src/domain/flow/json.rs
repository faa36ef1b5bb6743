//! [`Flow`] to JSON, always in the current form.

use serde_json::{Map, Value, json};

use super::super::duration;
use super::{Flow, OnTimeout, SCHEMA_VERSION, Step, WaitFor, names};

/// Writes a flow the way [`super::parse`] reads it. Waits are written in full; a step's other members only where they differ
/// from what is assumed without them. The time zone of a flow without a window is not kept: it means nothing.
pub fn to_json(flow: &Flow) -> Value {
    let mut map = Map::new();
    map.insert("schema_version".to_owned(), json!(SCHEMA_VERSION));
    if let Some(window) = &flow.window {
        map.extend(super::hours_to_json(window));
    }
    let stop_on: Vec<&str> = names::STOP_ON
        .iter()
        .zip([flow.stop_on.reply, flow.stop_on.unsubscribe, flow.stop_on.hard_bounce])
        .filter(|(_, on)| *on)
        .map(|(word, _)| *word)
        .collect();
    map.insert("stop_on".to_owned(), json!(stop_on));
    map.insert("steps".to_owned(), flow.steps.iter().map(|s| step(flow, s)).collect());
    Value::Object(map)
}

fn step(flow: &Flow, step: &Step) -> Value {
    let mut map = Map::new();
    map.insert("id".to_owned(), json!(step.id));
    map.insert("action".to_owned(), json!(step.action.as_str()));
    if let Some(subject) = &step.subject {
        map.insert("subject".to_owned(), json!(subject));
    }
    if let Some(message) = &step.message {
        map.insert("message".to_owned(), json!(message));
    }
    if step.in_thread {
        map.insert("in_thread".to_owned(), json!(true));
    }
    if step.note_required {
        map.insert("note_required".to_owned(), json!(true));
    }
    let track: Vec<&str> = names::TRACK
        .iter()
        .zip([step.track.opens, step.track.links])
        .filter(|(_, on)| *on)
        .map(|(word, _)| *word)
        .collect();
    if !track.is_empty() {
        map.insert("track".to_owned(), json!(track));
    }
    if !step.delay.is_zero() {
        map.insert("delay".to_owned(), json!(duration::format(step.delay)));
    }
    if let Some(wait) = &step.wait_for {
        map.insert("wait_for".to_owned(), wait_for(flow, wait));
    }
    if step.requires.connected {
        map.insert("requires".to_owned(), json!(["connected"]));
    }
    Value::Object(map)
}

fn wait_for(flow: &Flow, wait: &WaitFor) -> Value {
    let on_timeout = match wait.on_timeout {
        OnTimeout::Continue => "continue".to_owned(),
        OnTimeout::Complete => "complete".to_owned(),
        OnTimeout::Fail => "fail".to_owned(),
        OnTimeout::Goto(position) => format!("goto {}", flow.step(position).map_or("", |s| s.id.as_str())),
    };
    json!({
        "trigger": wait.trigger.as_str(),
        "timeout": duration::format(wait.timeout),
        "check_every": duration::format(wait.check_every),
        "max_checks": wait.max_checks,
        "on_timeout": on_timeout,
    })
}
