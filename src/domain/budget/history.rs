//! What an account has done lately, in a form that is small enough to be stored with every send and never counts too little.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Kind, WEEK};
use crate::domain::time::Timestamp;

/// Width of a bucket.
const BUCKET: Duration = Duration::from_secs(15 * 60);
/// The same in microseconds.
const BUCKET_MICROS: i64 = 15 * 60 * 1_000_000;

/// Counts by quarter of an hour over the last seven days, and brakes.
///
/// A quarter of an hour counts until its last instant has left the window: what a window is said to hold is what it holds, or
/// more. So a limit is kept exactly, and room comes back up to a quarter of an hour late.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// By kind: number of the quarter since 1970 -> how many.
    counts: BTreeMap<Kind, BTreeMap<i64, u32>>,
    /// The account does nothing of this kind before then; `None`: nothing at all.
    rests: BTreeMap<Option<Kind>, Timestamp>,
}

const fn bucket(at: Timestamp) -> i64 {
    at.as_micros().div_euclid(BUCKET_MICROS)
}

/// The first instant after a bucket.
const fn end(bucket: i64) -> Timestamp {
    Timestamp::from_micros(bucket.saturating_add(1).saturating_mul(BUCKET_MICROS))
}

impl History {
    /// Notes that something was done, for every kind that it counts as, and forgets what no window can see any more. Clocks
    /// that go back are no harm: nothing is forgotten that lies ahead.
    pub fn note(&mut self, kind: Kind, at: Timestamp) {
        let oldest = bucket(at - WEEK - BUCKET);
        self.add(kind, at, 1);
        for counts in self.counts.values_mut() {
            *counts = counts.split_off(&oldest);
        }
        self.counts.retain(|_, counts| !counts.is_empty());
        self.rests.retain(|_, until| *until > at);
    }

    fn add(&mut self, kind: Kind, at: Timestamp, n: u32) {
        for kind in kind.counts_as() {
            let count = self.counts.entry(*kind).or_default().entry(bucket(at)).or_default();
            *count = count.saturating_add(n);
        }
    }

    /// What was done, in any order: how many of a kind at what time.
    pub fn of_past(past: impl IntoIterator<Item = (Kind, Timestamp, u32)>) -> Self {
        let mut history = Self::default();
        past.into_iter().for_each(|(kind, at, n)| history.add(kind, at, n));
        history
    }

    /// Whether something is counted that lies ahead: by a clock that was ahead then. It stands in the way until that time
    /// comes, and what was counted before it may be forgotten.
    pub fn is_ahead(&self, now: Timestamp) -> bool {
        let last = bucket(now);
        self.counts.values().any(|counts| counts.last_key_value().is_some_and(|(bucket, _)| *bucket > last))
    }

    /// How much was done in the window that ends at `at`, or more: never less.
    pub fn count(&self, kind: Kind, window: Duration, at: Timestamp) -> u32 {
        let first = bucket(at - window);
        let counts = self.counts.get(&kind);
        // Also what lies ahead: by a clock that went back.
        counts.map_or(0, |counts| counts.range(first..).fold(0, |sum, (_, n)| sum.saturating_add(*n)))
    }

    /// When there is room for one more in the window, if there is none at `at`: the earliest instant at which what is counted
    /// falls below the limit.
    pub(super) fn room_in(&self, kind: Kind, window: Duration, limit: u32, at: Timestamp) -> Option<Timestamp> {
        let mut held = self.count(kind, window, at);
        if held < limit {
            return None;
        }
        let counts = self.counts.get(&kind)?;
        for (bucket, n) in counts.range(bucket(at - window)..) {
            held = held.saturating_sub(*n);
            if held < limit {
                return Some(end(*bucket) + window);
            }
        }
        None
    }

    /// The account rests until then: for one kind and what counts as it, or for everything. The later of two brakes holds.
    pub fn brake(&mut self, kind: Option<Kind>, until: Timestamp) {
        let rest = self.rests.entry(kind).or_insert(until);
        *rest = (*rest).max(until);
    }

    /// What an account's gate holds: its history, and beside it what the provider has said since (kind -> microseconds since
    /// 1970), which outcomes write without knowing the history.
    ///
    /// # Errors
    /// What cannot be read: then nothing may be sent.
    pub fn of_gate(history: Option<&Value>, rests: Option<&Value>) -> Result<Self, String> {
        let mut whole = history.map_or_else(|| Ok(Self::default()), Self::from_json)?;
        for (kind, until) in rests.and_then(Value::as_object).into_iter().flatten() {
            let until = until.as_i64().ok_or_else(|| format!("rests: {kind} is no time"))?;
            whole.brake(Kind::parse(kind), Timestamp::from_micros(until));
        }
        Ok(whole)
    }

    /// Lets go of all brakes: the account was reconnected, or a person says so.
    pub fn release(&mut self) {
        self.rests.clear();
    }

    /// Until when a kind rests.
    pub fn rests_until(&self, kind: Kind) -> Option<Timestamp> {
        let own = kind.counts_as().iter().map(|k| Some(*k));
        own.chain([None]).filter_map(|k| self.rests.get(&k)).max().copied()
    }

    /// As it is stored: `{"v": 1, "counts": {"invite": [[1966080, 3], ..]}, "rests": {"invite": 1767603600000000}}`, with `all`
    /// for a rest of everything.
    pub fn to_json(&self) -> Value {
        let counts: Map<String, Value> = self
            .counts
            .iter()
            .map(|(kind, counts)| (kind.as_str().to_owned(), counts.iter().map(|(b, n)| json!([b, n])).collect()))
            .collect();
        let rests: Map<String, Value> = self
            .rests
            .iter()
            .map(|(kind, until)| (kind.map_or("all", Kind::as_str).to_owned(), until.as_micros().into()))
            .collect();
        json!({ "v": 1, "counts": counts, "rests": rests })
    }

    /// Reads what was stored. A kind that this version does not know is passed over: an older program does none of it.
    ///
    /// # Errors
    /// What cannot be read: then nothing may be sent, because nobody knows how much was.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        let wrong = |what: &str| format!("history: {what}");
        if value.get("v").and_then(Value::as_u64) != Some(1) {
            return Err(wrong("v is not 1"));
        }
        let object = |key: &str| value.get(key).and_then(Value::as_object).ok_or_else(|| wrong(key));
        let mut history = Self::default();
        for (name, entries) in object("counts")? {
            let Some(kind) = Kind::parse(name) else { continue };
            let counts = history.counts.entry(kind).or_default();
            for entry in entries.as_array().ok_or_else(|| wrong(name))? {
                let number = |at: usize| entry.get(at).and_then(Value::as_i64);
                let n = number(1).and_then(|n| u32::try_from(n).ok());
                let (Some(bucket), Some(n)) = (number(0), n) else { return Err(wrong(name)) };
                let count = counts.entry(bucket).or_insert(0);
                *count = count.saturating_add(n);
            }
        }
        for (name, until) in object("rests")? {
            // A brake for what this version does not know holds for all.
            let kind = Kind::parse(name);
            let until = Timestamp::from_micros(until.as_i64().ok_or_else(|| wrong(name))?);
            history.brake(kind, until);
        }
        history.counts.retain(|_, counts| !counts.is_empty());
        Ok(history)
    }
}
