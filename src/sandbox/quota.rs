//! What an account may do in a rolling window of the clock, and what it hears when that is used up.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::errors::Problem;
use super::options::{AccountKind, AccountSpec};
use super::span;
use super::world::World;
use crate::domain::time::Timestamp;

/// Longest window a quota can have.
const WINDOW_MAX: Duration = Duration::from_secs(31 * 24 * 3600);
/// Uses remembered of one action of one account.
const USES_MAX: usize = 100_000;
/// What a quota can be about.
pub(super) const ACTIONS: [&str; 9] =
    ["invite", "note", "message", "inmail", "new_chat", "whatsapp", "email", "profile", "relations"];

/// A limit. `status` and `type` change what is answered when it is used up.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// The account it is for; every account when absent, each for itself.
    #[serde(default)]
    pub account_id: Option<String>,
    /// `invite`, `note` (an invitation that carries one), `message`, `inmail`, `new_chat` (the first WhatsApp message to
    /// somebody), `whatsapp`, `email`, `profile` or `relations` (lists of relations and sent invitations).
    pub action: String,
    /// The rolling window, of the clock; 31 days at most.
    #[serde(with = "span::needed")]
    pub window: Duration,
    /// How often in the window.
    pub limit: u32,
    /// 422, or 429 for mail and reads, when absent.
    #[serde(default)]
    pub status: Option<u16>,
    /// `cannot_resend_yet` for invitations, `limit_exceeded` for messages, `too_many_requests` for the rest, when absent.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// How often it was hit.
    #[serde(default, skip_deserializing)]
    pub refused: u64,
}

impl Quota {
    /// A limit with the usual answer.
    pub fn new(account_id: Option<&str>, action: &str, window: Duration, limit: u32) -> Self {
        let account_id = account_id.map(str::to_owned);
        Self { account_id, action: action.to_owned(), window, limit, status: None, kind: None, refused: 0 }
    }

    /// What is wrong with it.
    pub(super) fn check(&self) -> Result<(), String> {
        if !ACTIONS.contains(&self.action.as_str()) {
            return Err(format!("{:?} is no action; there are {}", self.action, ACTIONS.join(", ")));
        }
        if self.window.is_zero() || self.window > WINDOW_MAX {
            return Err("window must be more than nothing and at most 31d".to_owned());
        }
        Ok(())
    }

    fn is_for(&self, account: &str, action: &str) -> bool {
        self.action == action && self.account_id.as_deref().is_none_or(|a| a == account)
    }

    fn refusal(&self) -> Problem {
        let (status, kind) = match self.action.as_str() {
            "invite" | "note" => (422, "cannot_resend_yet"),
            "message" | "inmail" | "new_chat" | "whatsapp" => (422, "limit_exceeded"),
            _ => (429, "too_many_requests"),
        };
        let detail = "You have reached a temporary provider limit. Please try again later.";
        Problem::new(self.status.unwrap_or(status), self.kind.as_deref().unwrap_or(kind), detail)
    }
}

/// The limits the provider recommends, as quotas of these accounts.
pub fn recommended(accounts: &[AccountSpec]) -> Vec<Quota> {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
    let mut list = Vec::new();
    for account in accounts {
        let mut add = |action, window, limit| list.push(Quota::new(Some(&account.id), action, window, limit));
        match account.kind {
            AccountKind::LinkedIn => {
                if account.premium {
                    add("invite", DAY, 100);
                    add("invite", WEEK, 200);
                    add("inmail", DAY, 50);
                } else {
                    add("invite", WEEK, 150);
                    add("note", WINDOW_MAX, 5);
                }
                add("profile", DAY, 100);
                add("message", DAY, 100);
            }
            AccountKind::Mail => add("email", DAY, 100),
            AccountKind::WhatsApp => add("new_chat", DAY, 50),
        }
    }
    list
}

/// What an account did lately, by action, oldest first.
#[derive(Default)]
pub(super) struct Uses(HashMap<&'static str, VecDeque<Timestamp>>);

impl Uses {
    /// How often in the window that ends now.
    pub(super) fn within(&self, action: &str, window: Duration, now: Timestamp) -> u32 {
        let Some(uses) = self.0.get(action) else { return 0 };
        // Times only rise, so those within are at the end.
        let before = uses.partition_point(|at| now.since(*at) >= window);
        u32::try_from(uses.len() - before).unwrap_or(u32::MAX)
    }

    fn note(&mut self, action: &'static str, now: Timestamp) {
        let uses = self.0.entry(action).or_default();
        uses.push_back(now);
        while uses.len() > USES_MAX || uses.front().is_some_and(|at| now.since(*at) >= WINDOW_MAX) {
            uses.pop_front();
        }
    }
}

impl World {
    /// Lets an account do something, and notes it; or refuses, because a quota of one of the actions is used up.
    pub(super) fn charge(&mut self, account: usize, actions: &[&'static str]) -> Result<(), Problem> {
        let now = self.now;
        let own = &mut self.accounts[account];
        for quota in &mut self.opts.quotas {
            let action = actions.iter().find(|a| quota.is_for(&own.id, a));
            if action.is_some_and(|a| own.uses.within(a, quota.window, now) >= quota.limit) {
                quota.refused += 1;
                return Err(quota.refusal());
            }
        }
        for action in actions {
            own.uses.note(action, now);
        }
        Ok(())
    }

    /// The landing of an account's fullest quota of invitations (50, 75, 90, 95 %), when it is one higher than told before.
    pub(super) fn landing(&mut self, account: usize) -> Option<u32> {
        let now = self.now;
        let own = &mut self.accounts[account];
        let quotas = self.opts.quotas.iter().filter(|q| q.is_for(&own.id, "invite") && q.limit > 0);
        let fullest =
            quotas.map(|q| own.uses.within("invite", q.window, now).saturating_mul(100) / q.limit).max().unwrap_or(0);
        let landing = [95, 90, 75, 50].into_iter().find(|l| fullest >= *l).unwrap_or(0);
        let news = (landing > own.landing).then_some(landing);
        own.landing = landing;
        news
    }
}
