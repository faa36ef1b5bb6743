//! An account's `limits`: JSON to [`Budget`], strictly, with every problem at once and its path, and back.
//!
//! ```json
//! {"kind": "linkedin_premium", "limits": {"invite": {"day": 25, "week": 120}}, "spacing": {"min": "45s", "max": "2m"},
//!  "warm_up": {"start": 5, "days": 14}, "timezone": "Europe/Berlin",
//!  "window": {"days": ["mon","tue","wed","thu","fri"], "from": "09:00", "to": "18:00", "holidays": ["2026-12-25"]}}
//! ```
//!
//! What is left out is the default of the kind; `"warm_up": null` is an account that needs none.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{AccountKind, Budget, Growth, Kind, Limit, Spacing, WarmUp};
use crate::domain::account::Channel;
use crate::domain::duration;
use crate::domain::flow::{Problem, hours_from_json, hours_to_json};

/// The most of anything in a day or a week.
const COUNT_MAX: u64 = 100_000;
/// The longest time between two sends.
const SPACING_MAX: Duration = Duration::from_secs(24 * 3600);
/// The longest ramp, in days.
const DAYS_MAX: u64 = 365;
/// Keys of the top level.
const TOP: &[&str] = &["kind", "limits", "spacing", "warm_up", "timezone", "window"];

/// Reads an account's limits. `channel` is the account's: its kind has to fit.
///
/// # Errors
/// Every problem, in the order of the keys.
pub fn parse(value: &Value, channel: Channel) -> Result<Budget, Vec<Problem>> {
    let mut reader = Reader::default();
    let Value::Object(map) = value else {
        reader.add("$", "must be an object, such as {\"kind\": \"linkedin_premium\"}");
        return Err(reader.problems);
    };
    reader.known_keys(map, "$", TOP);
    let kind = reader.kind(map.get("kind"), channel);
    let mut budget = Budget::defaults(kind);
    if let Some(value) = map.get("limits") {
        reader.limits(value, &mut budget);
    }
    if let Some(value) = map.get("spacing")
        && let Some(spacing) = reader.spacing(value)
    {
        budget.spacing = spacing;
    }
    match map.get("warm_up") {
        None => {}
        Some(Value::Null) => budget.warm_up = None,
        Some(value) => budget.warm_up = reader.warm_up(value),
    }
    match hours_from_json(map) {
        Ok(hours) => budget.hours = hours,
        Err(problems) => reader.problems.extend(problems),
    }
    if reader.problems.is_empty() { Ok(budget) } else { Err(reader.problems) }
}

/// Writes a budget in full, the way [`parse`] reads it.
pub fn to_json(budget: &Budget) -> Value {
    let limits: Map<String, Value> = budget
        .limits
        .iter()
        .map(|(kind, l)| (kind.as_str().to_owned(), json!({ "day": l.day, "week": l.week })))
        .collect();
    let warm_up = budget.warm_up.map_or(Value::Null, |w| match w.growth {
        Growth::PerDay(n) => json!({ "start": w.start, "per_day": n }),
        Growth::Days(n) => json!({ "start": w.start, "days": n }),
    });
    let spacing = json!({"min": duration::format(budget.spacing.min), "max": duration::format(budget.spacing.max)});
    let mut map = Map::new();
    map.insert("kind".to_owned(), budget.kind.as_str().into());
    map.insert("limits".to_owned(), Value::Object(limits));
    map.insert("spacing".to_owned(), spacing);
    map.insert("warm_up".to_owned(), warm_up);
    if let Some(hours) = &budget.hours {
        map.extend(hours_to_json(hours));
    }
    Value::Object(map)
}

#[derive(Default)]
struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn add(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(Problem { path: path.to_owned(), message: message.into() });
    }

    fn known_keys(&mut self, map: &Map<String, Value>, path: &str, known: &[&str]) {
        for key in map.keys().filter(|k| !known.contains(&k.as_str())) {
            let shown: String = key.chars().take(40).filter(|c| !c.is_control()).collect();
            self.add(&format!("{path}.{shown}"), format!("unknown key; known here: {}", known.join(", ")));
        }
    }

    /// After a problem, the careful kind of the channel, so that the rest is read all the same.
    fn kind(&mut self, value: Option<&Value>, channel: Channel) -> AccountKind {
        let careful = AccountKind::careful(channel);
        let fitting: Vec<&str> =
            AccountKind::ALL.iter().filter(|k| k.channel() == channel).map(|k| k.as_str()).collect();
        let Some(value) = value else { return careful };
        match value.as_str().and_then(AccountKind::parse) {
            Some(kind) if kind.channel() == channel => kind,
            Some(kind) => {
                let message = format!("{kind} is no kind of a {channel} account: use one of {}", fitting.join(", "));
                self.add("$.kind", message);
                careful
            }
            None => {
                self.add("$.kind", format!("is no kind of account: use one of {}", fitting.join(", ")));
                careful
            }
        }
    }

    fn limits(&mut self, value: &Value, budget: &mut Budget) {
        let Value::Object(map) = value else {
            return self.add("$.limits", "must be an object, such as {\"invite\": {\"day\": 25, \"week\": 120}}");
        };
        let channel = budget.kind.channel();
        let known: Vec<&str> = Kind::ALL.iter().filter(|k| k.channel() == channel).map(|k| k.as_str()).collect();
        self.known_keys(map, "$.limits", &known);
        for (name, value) in map {
            let Some(kind) = Kind::parse(name).filter(|k| k.channel() == channel) else { continue };
            let path = format!("$.limits.{name}");
            let Value::Object(entry) = value else {
                self.add(&path, "must be an object with day and week");
                continue;
            };
            self.known_keys(entry, &path, &["day", "week"]);
            let old = budget.limit(kind).unwrap_or(Limit { day: 0, week: 0 });
            let day = self.count(entry.get("day"), &format!("{path}.day"), 0, COUNT_MAX, old.day);
            // A day alone sets the week to as much: otherwise the default of the week would be a limit that nobody wrote.
            let week = if entry.contains_key("day") { day.saturating_mul(7) } else { old.week };
            let week = self.count(entry.get("week"), &format!("{path}.week"), 0, COUNT_MAX, week);
            if day > week {
                self.add(&path, format!("{day} a day are never reached with {week} a week: lower the day"));
            }
            let limit = Limit { day, week };
            match budget.limits.iter_mut().find(|(k, _)| *k == kind) {
                Some(slot) => slot.1 = limit,
                None => budget.limits.push((kind, limit)),
            }
        }
    }

    fn count(&mut self, value: Option<&Value>, path: &str, min: u64, max: u64, otherwise: u32) -> u32 {
        let Some(value) = value else { return otherwise };
        let count = value.as_u64().filter(|n| (min..=max).contains(n)).and_then(|n| u32::try_from(n).ok());
        count.unwrap_or_else(|| {
            self.add(path, format!("must be a whole number from {min} to {max}"));
            otherwise
        })
    }

    fn spacing(&mut self, value: &Value) -> Option<Spacing> {
        let Value::Object(map) = value else {
            self.add("$.spacing", "must be an object, such as {\"min\": \"45s\", \"max\": \"2m\"}");
            return None;
        };
        self.known_keys(map, "$.spacing", &["min", "max"]);
        let mut read = |key: &str| {
            let path = format!("$.spacing.{key}");
            let Some(value) = map.get(key) else {
                self.add(&path, "is missing: write a duration such as \"45s\"");
                return None;
            };
            let read = value.as_str().and_then(duration::parse).filter(|d| *d <= SPACING_MAX);
            if read.is_none() {
                self.add(&path, "is no duration of at most a day: write numbers with h, m, s or ms, as in \"1m30s\"");
            }
            read
        };
        let (min, max) = (read("min"), read("max"));
        let (min, max) = (min?, max?);
        if min > max {
            self.add("$.spacing", "min is longer than max");
            return None;
        }
        Some(Spacing { min, max })
    }

    fn warm_up(&mut self, value: &Value) -> Option<WarmUp> {
        let Value::Object(map) = value else {
            self.add("$.warm_up", "must be an object, such as {\"start\": 5, \"days\": 14}, or null");
            return None;
        };
        self.known_keys(map, "$.warm_up", &["start", "per_day", "days"]);
        if !map.contains_key("start") {
            self.add("$.warm_up.start", "is missing: say how much the account may do on its first day");
        }
        let start = self.count(map.get("start"), "$.warm_up.start", 1, COUNT_MAX, 1);
        let growth = match (map.get("per_day"), map.get("days")) {
            (Some(value), None) => Growth::PerDay(self.count(Some(value), "$.warm_up.per_day", 1, COUNT_MAX, 1)),
            (None, Some(value)) => Growth::Days(self.count(Some(value), "$.warm_up.days", 1, DAYS_MAX, 1)),
            _ => {
                self.add("$.warm_up", "needs either per_day (more each day) or days (until the limits are full)");
                return None;
            }
        };
        Some(WarmUp { start, growth })
    }
}
