//! Lists in pages: a limit, a cursor that carries the whole earlier query, newest first.

use serde_json::{Value, json};

use super::call::Call;
use super::errors::Problem;
use super::text::{cursor, parse_cursor, parse_iso};
use crate::domain::time::Timestamp;

/// What a list request asked for, its cursor already opened.
pub(super) struct Page {
    query: Vec<(String, String)>,
    limit: usize,
    /// Only items with a number below this.
    below: u64,
    pub(super) before: Option<Timestamp>,
    pub(super) after: Option<Timestamp>,
}

/// What a cursor carries: the query it began with, and the number that the next items are below.
pub(super) fn carried(text: &str) -> Option<(Vec<(String, String)>, u64)> {
    let cursor = parse_cursor(text)?;
    Some((serde_json::from_value(cursor["q"].clone()).ok()?, cursor["below"].as_u64()?))
}

impl Page {
    /// Reads `limit` (1..=`max`), `cursor`, `before` and `after`.
    pub(super) fn read(call: &Call, default: usize, max: usize) -> Result<Self, Problem> {
        let (query, below) = match call.query("cursor").filter(|c| !c.is_empty()) {
            None => (call.query.clone(), u64::MAX),
            Some(text) => carried(text).ok_or_else(|| Problem::invalid("cursor is not one of ours."))?,
        };
        let mut page = Self { query, limit: default, below, before: None, after: None };
        if let Some(text) = page.get("limit") {
            page.limit = text
                .parse()
                .ok()
                .filter(|n| (1..=max).contains(n))
                .ok_or_else(|| Problem::invalid(format!("limit must be a number from 1 to {max}.")))?;
        }
        for name in ["before", "after"] {
            let Some(text) = page.get(name) else { continue };
            let at = parse_iso(text).ok_or_else(|| {
                Problem::invalid(format!("{name} must be an ISO 8601 date of the form YYYY-MM-DDTHH:MM:SS.sssZ."))
            })?;
            if name == "before" { page.before = Some(at) } else { page.after = Some(at) }
        }
        Ok(page)
    }

    /// A parameter of the query the cursor began with.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether an item of this time is asked for. Both ends are exclusive.
    pub(super) fn holds(&self, at: Timestamp) -> bool {
        // The wire has milliseconds, so the comparison has too.
        let ms = |t: Timestamp| t.as_micros().div_euclid(1000);
        self.before.is_none_or(|b| ms(at) < ms(b)) && self.after.is_none_or(|a| ms(at) > ms(a))
    }

    /// The list's body. `items` come newest first, each with a number that falls from item to item.
    pub(super) fn list(&self, object: &str, items: impl Iterator<Item = (u64, Value)>) -> Value {
        let mut rest = items.skip_while(|(n, _)| *n >= self.below);
        let mut page = Vec::new();
        let mut last = 0;
        for (number, item) in rest.by_ref().take(self.limit) {
            page.push(item);
            last = number;
        }
        let more = rest.next().is_some();
        let query: Vec<_> = self.query.iter().filter(|(n, _)| n != "cursor").collect();
        let cursor = more.then(|| cursor(&json!({ "q": query, "below": last })));
        json!({ "object": object, "items": page, "cursor": cursor })
    }
}
