//! Reads `wait_for`.

use std::time::Duration;

use serde_json::Value;

use super::super::duration;
use super::super::execution::WaitTrigger;
use super::names::{self, mend_word, not_built, quote};
use super::parse::{Form, Reader, kind};
use super::problem::Place;
use super::steps::{Given, read_duration};
use super::{CHECK_EVERY_DEFAULT, MAX_CHECKS_DEFAULT, OnTimeout, WaitFor, legacy};

/// The shortest time between two checks.
const CHECK_EVERY_MIN: Duration = Duration::from_secs(60);
/// The most checks of a wait.
const CHECKS_MAX: u32 = 10_000;

/// Where a wait goes on when it ran out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Continue,
    Complete,
    Fail,
    /// The step of that id.
    Goto(String),
}

/// A wait as it was read. What is `None` has been reported.
#[derive(Clone, Debug)]
pub(super) struct WaitDraft {
    pub(super) place: Place,
    pub(super) trigger: Option<WaitTrigger>,
    pub(super) timeout: Option<Duration>,
    pub(super) check_every: Option<Duration>,
    pub(super) max_checks: Option<u32>,
    pub(super) on_timeout: Option<Target>,
}

impl WaitDraft {
    /// The finished wait; `None` if something of it could not be read.
    pub(super) fn finish(self, ids: &[Option<String>]) -> Option<WaitFor> {
        Some(WaitFor {
            trigger: self.trigger?,
            timeout: self.timeout?,
            check_every: self.check_every?,
            max_checks: self.max_checks?,
            on_timeout: match self.on_timeout? {
                Target::Continue => OnTimeout::Continue,
                Target::Complete => OnTimeout::Complete,
                Target::Fail => OnTimeout::Fail,
                Target::Goto(id) => {
                    let index = ids.iter().position(|i| i.as_deref() == Some(id.as_str()))?;
                    OnTimeout::Goto(u32::try_from(index + 1).ok()?)
                }
            },
        })
    }
}

/// Reads the wait at `place` of the step at `step`, whose `delay` is the deadline of the plain form.
pub(super) fn read(
    reader: &mut Reader,
    value: &Value,
    place: &Place,
    step: &Place,
    delay: Given<Duration>,
) -> WaitDraft {
    let mut wait = WaitDraft {
        place: place.clone(),
        trigger: None,
        timeout: None,
        check_every: Some(CHECK_EVERY_DEFAULT),
        max_checks: Some(MAX_CHECKS_DEFAULT),
        on_timeout: Some(Target::Continue),
    };
    match value {
        Value::String(word) => {
            wait.trigger = read_trigger(reader, word, place);
            wait.timeout = deadline(reader, Given::No, delay, place, step);
        }
        Value::Object(map) => {
            reader.unknown_keys(map, place, names::WAIT);
            let key = place.key("trigger");
            match reader.get(map, "trigger") {
                Some(Value::String(word)) => wait.trigger = read_trigger(reader, word, &key),
                Some(other) => {
                    reader.add(&key, format!("must be a text, one of {}, not {}", triggers().join(", "), kind(other)))
                }
                None => {
                    reader.add(&key, format!("is missing: say what is waited for, one of {}", triggers().join(", ")))
                }
            }
            let timeout = read_duration(reader, map, "timeout", place);
            wait.timeout = deadline(reader, timeout, delay, &place.key("timeout"), step);
            match read_duration(reader, map, "check_every", place) {
                Given::No => {}
                Given::Bad => wait.check_every = None,
                Given::Is(d) if d < CHECK_EVERY_MIN => {
                    reader.add(&place.key("check_every"), "is too short: check once a minute (\"1m\") or less often");
                    wait.check_every = None;
                }
                Given::Is(d) => wait.check_every = Some(d),
            }
            if let Some(value) = reader.get(map, "max_checks") {
                wait.max_checks =
                    value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=CHECKS_MAX).contains(n));
                if wait.max_checks.is_none() {
                    reader.add(&place.key("max_checks"), format!("must be a whole number from 1 to {CHECKS_MAX}"));
                }
            }
            if let Some(value) = reader.get(map, "on_timeout") {
                wait.on_timeout = read_target(reader, value, &place.key("on_timeout"));
            }
        }
        other => reader.add(
            place,
            format!("must be an object with trigger and timeout, or a trigger's name, not {}", kind(other)),
        ),
    }
    wait
}

fn triggers() -> Vec<&'static str> {
    WaitTrigger::ALL.iter().map(|t| t.as_str()).collect()
}

fn read_trigger(reader: &mut Reader, word: &str, place: &Place) -> Option<WaitTrigger> {
    let found = WaitTrigger::parse(word);
    if found.is_none() {
        let message = if names::TRIGGERS_LATER.contains(&word) {
            not_built(word)
        } else {
            format!("unknown trigger `{}`: {}", quote(word), mend_word(word, &triggers()))
        };
        reader.add(place, message);
    }
    found
}

/// The deadline out of the wait's `timeout` and the step's `delay`. `place` is where a timeout stands or is missed.
fn deadline(
    reader: &mut Reader,
    timeout: Given<Duration>,
    delay: Given<Duration>,
    place: &Place,
    step: &Place,
) -> Option<Duration> {
    let found = match (timeout, delay) {
        (Given::Bad, _) => return None,
        (Given::Is(t), Given::Is(d)) if t != d => {
            reader.add(
                &step.key("delay"),
                format!(
                    "delay ({}) and wait_for.timeout ({}) both given: drop delay, the timeout is the deadline",
                    duration::format(d),
                    duration::format(t)
                ),
            );
            return None;
        }
        (Given::Is(t), _) => t,
        // In the plain form and in the old ones the delay is the deadline.
        (Given::No, Given::Is(d)) if reader.form == Form::Legacy || place_is_wait(place, step) => d,
        (Given::No, Given::No) if reader.form == Form::Legacy => legacy::WAIT_DEFAULT,
        (Given::No, Given::Bad) if reader.form == Form::Legacy || place_is_wait(place, step) => return None,
        (Given::No, _) => {
            reader.add(place, "a wait without a timeout: say how long to wait, as in {\"timeout\": \"72h\"}");
            return None;
        }
    };
    if found.is_zero() {
        reader.add(place, "the timeout is zero: wait for some time, as in \"72h\", or remove wait_for");
        return None;
    }
    Some(found)
}

/// Whether the wait has the plain form: then there is no object in which a timeout could stand.
fn place_is_wait(place: &Place, step: &Place) -> bool {
    place.same(&step.key("wait_for"))
}

fn read_target(reader: &mut Reader, value: &Value, place: &Place) -> Option<Target> {
    let goto = |id: &str| Some(Target::Goto(id.trim().to_owned()));
    match value {
        Value::String(text) => match text.as_str() {
            "continue" => return Some(Target::Continue),
            "complete" => return Some(Target::Complete),
            "fail" => return Some(Target::Fail),
            other => {
                if let Some(id) = other.strip_prefix("goto ") {
                    return goto(id);
                }
                reader.add(
                    place,
                    format!(
                        "unknown `{}`: write continue, complete, fail, or goto and a step's id (\"goto intro\")",
                        quote(other)
                    ),
                );
            }
        },
        Value::Object(map) if map.len() == 1 && map.get("goto").is_some_and(Value::is_string) => {
            return goto(map.get("goto").and_then(Value::as_str).unwrap_or(""));
        }
        _ => reader.add(place, "must be continue, complete, fail, or goto and a step's id, as in \"goto intro\""),
    }
    None
}
