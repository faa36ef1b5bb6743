//! The forms that the old orchestrator wrote: a bare object without `schema_version`, or the bare list of steps; `type` for
//! `action`; `wait_for` as a trigger's name; `delay_hours` and `delay_days` as numbers; steps without ids. They are read
//! leniently (what they hold besides is passed over) and written back in the current form.

use std::time::Duration;

use serde_json::{Map, Value};

use super::super::duration;
use super::parse::{Form, Reader};
use super::problem::Place;
use super::{CHECK_EVERY_DEFAULT, MAX_CHECKS_DEFAULT};

/// How long an old wait lasts that says no time: until its checks are used up.
pub(super) const WAIT_DEFAULT: Duration =
    Duration::from_secs(CHECK_EVERY_DEFAULT.as_secs() * MAX_CHECKS_DEFAULT as u64);

/// Which form a document has. What is neither list nor object is judged as the current one.
pub(super) fn form(value: &Value) -> Form {
    match value {
        Value::Array(_) => Form::Legacy,
        Value::Object(map) if !map.contains_key("schema_version") => Form::Legacy,
        _ => Form::Current,
    }
}

/// The id of an old step: its own (numbers count), or its position's.
pub(super) fn id(map: &Map<String, Value>, index: usize) -> Option<String> {
    match map.get("id") {
        None | Some(Value::Null) => Some(format!("step_{}", index + 1)),
        Some(Value::Number(n)) => Some(n.to_string()),
        Some(_) => None,
    }
}

/// The sum of `delay_hours` and `delay_days`; `None` when neither is there, `Some(None)` after a problem.
pub(super) fn delay(reader: &mut Reader, map: &Map<String, Value>, place: &Place) -> Option<Option<Duration>> {
    if reader.form == Form::Current {
        return None;
    }
    let mut total: Option<Option<f64>> = None;
    for (key, seconds) in [("delay_hours", 3600.0), ("delay_days", 86_400.0)] {
        let Some(value) = reader.get(map, key) else { continue };
        let number = value.as_f64().filter(|n| n.is_finite() && *n >= 0.0);
        if number.is_none() {
            reader.add(&place.key(key), "must be a number that is not negative, as in 72");
        }
        let sum = total.unwrap_or(Some(0.0)).zip(number).map(|(a, b)| a + b * seconds);
        total = Some(sum);
    }
    let seconds = total?;
    // To the millisecond, as durations are written; and under the same cap.
    let read = seconds.and_then(|s| {
        let d = Duration::try_from_secs_f64(s).ok()?;
        duration::parse(&duration::format(d))
    });
    if seconds.is_some() && read.is_none() {
        reader.add(&place.key("delay_hours"), "is too long: at most 3650 days are allowed");
    }
    Some(read)
}
