//! What the ledger adds up to: whether budgets held in every rolling window, whether anybody was contacted twice the same
//! way, and whether anybody was contacted after their answer had been acknowledged.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::deeds::Deed;
use super::ledger::Entry;
use super::world::World;

const HOUR: Duration = Duration::from_secs(3600);
/// The windows that are told, by name.
const WINDOWS: [(&str, Duration); 3] = [
    ("max_in_an_hour", HOUR),
    ("max_in_a_day", Duration::from_secs(24 * 3600)),
    ("max_in_a_week", Duration::from_secs(7 * 24 * 3600)),
];
/// Doubled and late contacts that are listed; all are counted.
const LISTED_MAX: usize = 100;

/// Kinds of entries that reach a person.
const CONTACTS: [&str; 5] = ["invite", "message", "inmail", "whatsapp", "email"];

/// The most that fell into one rolling window; `at` rises.
fn busiest(at: &[i64], window: Duration) -> usize {
    let window = i64::try_from(window.as_micros()).unwrap_or(i64::MAX);
    let (mut first, mut most) = (0, 0);
    for (last, end) in at.iter().enumerate() {
        while end - at[first] >= window {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}

/// One line for each account and kind, and one with all contacts of the account together.
fn by_account(w: &World, window: Option<Duration>) -> Vec<Value> {
    let mut groups: BTreeMap<(&str, &str), Vec<&Entry>> = BTreeMap::new();
    for entry in w.ledger.entries.iter() {
        groups.entry((&entry.account_id, entry.kind)).or_default().push(entry);
        if CONTACTS.contains(&entry.kind) {
            groups.entry((&entry.account_id, "all")).or_default().push(entry);
        }
    }
    let lines = groups.into_iter().map(|((account, kind), entries)| {
        let at: Vec<i64> = entries.iter().map(|e| e.at_us).collect();
        let gap = at.windows(2).map(|pair| pair[1] - pair[0]).min();
        let mut line = Map::new();
        line.insert("account_id".to_owned(), json!(account));
        line.insert("kind".to_owned(), json!(kind));
        line.insert("count".to_owned(), json!(entries.len()));
        for (name, window) in WINDOWS {
            line.insert(name.to_owned(), json!(busiest(&at, window)));
        }
        if let Some(window) = window {
            line.insert("max_in_window".to_owned(), json!(busiest(&at, window)));
        }
        #[expect(clippy::cast_precision_loss, reason = "a gap in seconds for people to read")]
        line.insert("min_gap_s".to_owned(), json!(gap.map(|us| us as f64 / 1e6)));
        line.insert("overlapping".to_owned(), json!(entries.iter().filter(|e| e.overlaps).count()));
        line.insert("first_at".to_owned(), json!(entries.first().map(|e| &e.at)));
        line.insert("last_at".to_owned(), json!(entries.last().map(|e| &e.at)));
        Value::Object(line)
    });
    lines.collect()
}

/// Whom an entry reached: a mail may have more receivers than one.
fn receivers(e: &Entry) -> impl Iterator<Item = &str> {
    std::iter::once(e.recipient_public.as_str()).chain(e.also.iter().map(String::as_str))
}

/// Contacts with the same kind, text and receiver.
fn doubled(w: &World) -> (u64, Vec<Value>) {
    let mut seen: HashMap<[&str; 4], Vec<u64>> = HashMap::new();
    for e in w.ledger.entries.iter().filter(|e| CONTACTS.contains(&e.kind)) {
        let (subject, text) = (e.subject.as_deref().unwrap_or_default(), e.text.as_deref().unwrap_or_default());
        for receiver in std::iter::once(e.recipient.as_str()).chain(receivers(e).skip(1)) {
            seen.entry([e.kind, receiver, subject, text]).or_default().push(e.seq);
        }
    }
    let mut twice: Vec<_> = seen.into_iter().filter(|(_, seqs)| seqs.len() > 1).collect();
    twice.sort_unstable_by_key(|(_, seqs)| seqs[0]);
    let count = twice.iter().map(|(_, seqs)| seqs.len() as u64 - 1).sum();
    let listed = twice.iter().take(LISTED_MAX);
    (count, listed.map(|(key, seqs)| json!({ "kind": key[0], "recipient": key[1], "seqs": seqs })).collect())
}

/// Contacts whose request was read after the first reply, bounce or one-click of that person had been answered 200.
fn after_answer(w: &World) -> (u64, Vec<Value>) {
    let mut answered: HashMap<&str, i64> = HashMap::new();
    // Who only looked at the page of an unsubscribe link has not unsubscribed.
    let answers = |d: &&Deed| ["reply", "bounce"].contains(&d.kind) || (d.kind == "unsubscribe" && d.text.is_some());
    for deed in w.deeds.iter().filter(answers) {
        if let Some(at) = deed.acknowledged_at {
            let first = answered.entry(&deed.identity).or_insert(at);
            *first = at.min(*first);
        }
    }
    let late: Vec<(u64, &str)> = w
        .ledger
        .entries
        .iter()
        .filter(|e| CONTACTS.contains(&e.kind))
        .flat_map(|e| receivers(e).map(move |receiver| (e, receiver)))
        .filter(|(e, receiver)| answered.get(receiver).is_some_and(|at| e.started_at > *at))
        .map(|(e, receiver)| (e.seq, receiver))
        .collect();
    let listed = late.iter().take(LISTED_MAX).map(|(seq, receiver)| json!({ "seq": seq, "recipient": receiver }));
    (late.len() as u64, listed.collect())
}

/// The whole summary; `window` is one more that budgets are looked at by.
pub(super) fn summary(w: &World, window: Option<Duration>) -> Value {
    let (doubled_count, doubled) = doubled(w);
    let (late_count, late) = after_answer(w);
    json!({
        "count": w.ledger.entries.next(), "overlapping": w.ledger.overlapping, "accounts": by_account(w, window),
        "doubled": { "count": doubled_count, "items": doubled },
        "after_answer": { "count": late_count, "items": late },
        "refused": w.calls.refusals.next(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_window_is_found_wherever_it_lies_and_its_end_is_outside() {
        let second = Duration::from_secs(1);
        let us = |s: &[i64]| s.iter().map(|n| n * 1_000_000).collect::<Vec<_>>();
        assert_eq!(busiest(&us(&[0, 10, 11, 12, 30]), 3 * second), 3);
        assert_eq!(busiest(&us(&[0, 3, 6]), 3 * second), 1);
        assert_eq!(busiest(&us(&[5, 5, 5]), second), 3);
        assert_eq!(busiest(&[], second), 0);
    }
}
