//! What was asked of the provider: counts by account, endpoint and outcome, and the calls that were refused, one by one.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::ledger::real_now;
use super::ring::Ring;
use crate::domain::time::Timestamp;

/// A call that was answered with an error.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Refusal {
    seq: u64,
    /// By the sandbox's clock.
    at: String,
    real_at: String,
    pub(super) account_id: String,
    endpoint: &'static str,
    /// Whom or what it was about.
    about: String,
    status: u16,
    #[serde(rename = "type")]
    kind: String,
    /// Whether a rule of faults was the reason.
    fault: bool,
}

/// See the module.
pub(super) struct Calls {
    /// (account, endpoint, outcome) → how often
    counts: BTreeMap<(String, &'static str, String), u64>,
    pub(super) refusals: Ring<Refusal>,
}

/// How a call ended: a status, and the type of its error.
pub(super) struct Ending<'a> {
    pub(super) status: u16,
    pub(super) kind: Option<&'a str>,
    pub(super) fault: bool,
}

impl Calls {
    pub(super) fn new(limit: usize) -> Self {
        Self { counts: BTreeMap::new(), refusals: Ring::new(limit) }
    }

    pub(super) fn write(
        &mut self,
        at: Timestamp,
        account: &str,
        endpoint: &'static str,
        about: &str,
        ending: &Ending<'_>,
    ) {
        let outcome = match (ending.kind, ending.fault) {
            (None, false) => "ok".to_owned(),
            (None, true) => "fault".to_owned(),
            (Some(kind), false) => kind.to_owned(),
            (Some(kind), true) => format!("fault: {kind}"),
        };
        *self.counts.entry((account.to_owned(), endpoint, outcome)).or_default() += 1;
        let Some(kind) = ending.kind else { return };
        let seq = self.refusals.next() + 1;
        self.refusals.push(Refusal {
            seq,
            at: at.to_string(),
            real_at: real_now().to_string(),
            account_id: account.to_owned(),
            endpoint,
            about: about.to_owned(),
            status: ending.status,
            kind: format!("errors/{kind}"),
            fault: ending.fault,
        });
    }

    /// The counts, one object for each account and endpoint.
    pub(super) fn counts(&self) -> Vec<Value> {
        let mut list: Vec<Value> = Vec::new();
        for ((account, endpoint, outcome), count) in &self.counts {
            let same = list.last().is_some_and(|v| v["account_id"] == account.as_str() && v["endpoint"] == *endpoint);
            if !same {
                list.push(json!({ "account_id": account, "endpoint": endpoint, "total": 0, "outcomes": {} }));
            }
            if let Some(last) = list.last_mut() {
                last["total"] = json!(last["total"].as_u64().unwrap_or(0) + count);
                last["outcomes"][outcome] = json!(count);
            }
        }
        list
    }
}
