//! Connected accounts: their state, and what becomes of news while one is disconnected.

use std::time::Duration;

use serde_json::{Value, json};

use super::act::Act;
use super::errors::Problem;
use super::options::{AccountKind, AccountSpec};
use super::people;
use super::quota::Uses;
use super::text::unit;
use super::world::{Event, World};
use crate::domain::time::Timestamp;

/// A connected account.
pub(super) struct Account {
    pub(super) id: String,
    /// The same in every run.
    pub(super) key: String,
    pub(super) name: String,
    pub(super) kind: AccountKind,
    pub(super) identity: String,
    /// `ACoAA…`, the address, or `<digits>@s.whatsapp.net`.
    pub(super) own_id: String,
    /// One of [`STATES`].
    pub(super) status: &'static str,
    /// Webhooks held while the account is disconnected.
    pub(super) held: Vec<Event>,
    pub(super) premium: bool,
    pub(super) aliases: Vec<String>,
    /// `InMail` credits left.
    pub(super) credits: u32,
    pub(super) uses: Uses,
    /// The last landing of the quota that was told (50, 75, 90, 95).
    pub(super) landing: u32,
    pub(super) created_at: Timestamp,
    /// Nobody finds it any more; its number stays taken.
    pub(super) deleted: bool,
}

impl Account {
    pub(super) fn new(seed: u64, spec: &AccountSpec, credits: u32, now: Timestamp) -> Self {
        Self {
            id: spec.id.clone(),
            key: spec.id.clone(),
            name: spec.name.clone(),
            kind: spec.kind,
            identity: spec.identity.clone(),
            own_id: match spec.kind {
                AccountKind::LinkedIn => people::linkedin_id(seed, &spec.identity),
                AccountKind::Mail => spec.identity.clone(),
                AccountKind::WhatsApp => format!("{}@s.whatsapp.net", spec.identity),
            },
            status: "OK",
            held: Vec::new(),
            premium: spec.premium,
            aliases: spec.aliases.clone(),
            credits: if spec.premium { credits } else { 0 },
            uses: Uses::default(),
            landing: 0,
            created_at: now,
            deleted: false,
        }
    }
}

/// What `sources[].status` can be.
const STATES: [&str; 6] = ["OK", "STOPPED", "ERROR", "CREDENTIALS", "PERMISSIONS", "CONNECTING"];
/// Messages of `AccountStatus` that mean an account that works.
const GOOD_NEWS: [&str; 4] = ["OK", "RECONNECTED", "CREATION_SUCCESS", "SYNC_SUCCESS"];

impl World {
    pub(super) fn account_index(&self, id: &str) -> Option<usize> {
        self.accounts.iter().position(|a| a.id == id && !a.deleted)
    }

    /// The account of a request, connected and of the right kind.
    pub(super) fn account(&self, id: Option<&str>, kind: Option<AccountKind>) -> Result<usize, Problem> {
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            return Err(Problem::new(400, "missing_parameters", "account_id is required."));
        };
        let index = self.account_index(id).ok_or_else(|| Problem::missing("account"))?;
        if kind.is_some_and(|k| k != self.accounts[index].kind) {
            return Err(Problem::new(422, "invalid_account", "The account is not designed for this feature."));
        }
        self.connected(index)
    }

    /// An account, if it is there and connected.
    pub(super) fn connected(&self, index: usize) -> Result<usize, Problem> {
        let account = &self.accounts[index];
        match account.status {
            _ if account.deleted => Err(Problem::missing("account")),
            "OK" => Ok(index),
            "CONNECTING" => Err(Problem::new(503, "no_client_session", "The account is still connecting.")),
            "PERMISSIONS" => {
                Err(Problem::new(401, "insufficient_privileges", "The account lacks permissions at the provider."))
            }
            _ => Err(Problem::new(
                401,
                "disconnected_account",
                "The account appears to be disconnected from the provider service.",
            )),
        }
    }

    /// Puts an account into the state a message of `AccountStatus` tells of, and tells it if it changed. News held back
    /// follow good news. `false`: there is no such message.
    pub(super) fn set_status(&mut self, index: usize, message: &str) -> bool {
        let (state, message) = match STATES.iter().find(|s| **s == message) {
            Some(state) => (*state, *state),
            None => match GOOD_NEWS.iter().find(|m| **m == message) {
                Some(good) => ("OK", *good),
                None => return false,
            },
        };
        let changed = self.accounts[index].status != state;
        self.accounts[index].status = state;
        if changed || message != state {
            self.tell_status(index, message);
        }
        if state == "OK" {
            let share = self.opts.held_loss_share;
            for event in std::mem::take(&mut self.accounts[index].held) {
                if share > 0.0 && unit(self.opts.seed, &["held", event.name, &event.key]) < share {
                    self.lost += 1;
                } else {
                    self.emit(event);
                }
            }
        }
        true
    }

    /// Disconnects an account, and sees to its return if that has a time.
    pub(super) fn disconnect(&mut self, index: usize, back_after: Option<Duration>) {
        self.set_status(index, "CREDENTIALS");
        if let Some(after) = back_after {
            self.later(after, Act::Reconnect { account: index });
        }
    }

    /// Removes an account for good.
    pub(super) fn delete_account(&mut self, index: usize) {
        self.tell_status(index, "DELETED");
        self.accounts[index].deleted = true;
        self.accounts[index].held.clear();
    }

    fn tell_status(&mut self, index: usize, message: &str) {
        let account = &self.accounts[index];
        let body = json!({ "AccountStatus": {
            "account_id": account.id, "account_type": account.kind.wire(), "message": message } });
        let own = self.accounts[index].key.clone();
        let key = self.unique_key(&["account_status", &own, message]);
        self.emit(Event { source: "account_status", name: "account_status", account: index, body, key, deed: None });
    }

    /// An account as the inspection API shows it.
    pub(super) fn account_view(&self, index: usize) -> Value {
        let a = &self.accounts[index];
        let day = Duration::from_secs(24 * 3600);
        let used = |window: Duration| {
            let used = super::quota::ACTIONS.iter().map(|w| (*w, a.uses.within(w, window, self.now)));
            used.filter(|(_, n)| *n > 0).map(|(w, n)| (w.to_owned(), json!(n))).collect::<serde_json::Map<_, _>>()
        };
        json!({
            "id": a.id, "kind": a.kind.wire(), "identity": a.identity, "provider_id": a.own_id, "status": a.status,
            "deleted": a.deleted, "premium": a.premium, "inmail_credits": a.credits, "aliases": a.aliases,
            "news_held": a.held.len(), "used_in_a_day": used(day), "used_in_a_week": used(7 * day),
        })
    }
}
