//! Everything the sandbox knows. One mutex guards it; nobody holds that over an await. Whatever changes it leaves webhooks
//! in `outbox`, errands in `errands` and acts in `acts`; `server` takes them away.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::account::Account;
use super::act::Act;
use super::calls::Calls;
use super::deeds::Deed;
use super::faults::Rule;
use super::handling::Handling;
use super::ledger::Ledger;
use super::mailbox::Mail;
use super::options::Options;
use super::people::{Person, Place};
use super::quota::Quota;
use super::ring::Ring;
use super::talk::{Chat, Message};
use super::text;
use super::webhooks::{Delivery, Errand, Hook};
use crate::domain::time::Timestamp;

/// How an account stands to a person on LinkedIn. No entry: strangers.
pub(super) enum Link {
    Pending {
        id: String,
        number: u64,
        at: Timestamp,
        note: Option<String>,
    },
    /// They invited us.
    Received {
        id: String,
        number: u64,
        at: Timestamp,
        note: Option<String>,
        secret: String,
    },
    Declined {
        at: Timestamp,
    },
    Withdrawn {
        at: Timestamp,
    },
    Connected {
        at: Timestamp,
        number: u64,
    },
}

/// Something webhooks may be waiting for.
pub(super) struct Event {
    pub(super) source: &'static str,
    pub(super) name: &'static str,
    pub(super) account: usize,
    pub(super) body: Value,
    /// What tells it from others of its name, the same in every run.
    pub(super) key: String,
    /// The deed it is about.
    pub(super) deed: Option<u64>,
}

/// See the module.
pub(super) struct World {
    pub(super) opts: Options,
    /// What the clock showed when this turn began.
    pub(super) now: Timestamp,
    pub(super) accounts: Vec<Account>,
    pub(super) people: Vec<Person>,
    /// `in:<slug>`, provider id, lid, address → person.
    pub(super) known: HashMap<String, usize>,
    /// (account, person) → how they stand.
    pub(super) links: HashMap<(usize, usize), Link>,
    /// invitation id → (account, person)
    pub(super) invitations: HashMap<String, (usize, usize)>,
    pub(super) chats: Vec<Chat>,
    /// Our id or the provider's → chat.
    pub(super) chat_ids: HashMap<String, usize>,
    pub(super) chat_of: HashMap<(usize, usize), usize>,
    /// attendee id → account, and the person unless it is the account itself
    pub(super) attendees: HashMap<String, (usize, Option<usize>)>,
    pub(super) messages: Ring<Message>,
    pub(super) message_ids: HashMap<String, u64>,
    pub(super) mails: Ring<Mail>,
    /// Our id, the provider's and the RFC id → mail.
    pub(super) mail_ids: HashMap<String, u64>,
    /// (account, address) → mails from or to it, oldest first.
    pub(super) mail_by_address: HashMap<(usize, String), Vec<u64>>,
    /// Idempotency key → the request's digest and its answer.
    pub(super) keys: HashMap<String, ([u8; 32], Value)>,
    pub(super) key_order: VecDeque<(Timestamp, String)>,
    /// token of a hosted page → what it is for
    pub(super) hosted: HashMap<String, Value>,
    pub(super) ledger: Ledger,
    pub(super) deeds: Ring<Deed>,
    pub(super) calls: Calls,
    pub(super) hooks: Vec<Arc<Hook>>,
    pub(super) handlings: Vec<Handling>,
    /// Webhooks lost on purpose.
    pub(super) lost: u64,
    pub(super) rules: Vec<Rule>,
    /// How many rules of faults there have been.
    pub(super) rules_made: u64,
    pub(super) outbox: Vec<Delivery>,
    pub(super) errands: Vec<Errand>,
    pub(super) acts: BinaryHeap<Reverse<Scheduled>>,
    pub(super) acts_changed: bool,
    /// How often each set of words has asked for an id.
    serials: HashMap<u64, u32>,
    counter: u64,
}

/// An act and when it is due; ordered by that.
pub(super) struct Scheduled {
    pub(super) at: Timestamp,
    number: u64,
    pub(super) act: Act,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl World {
    pub(super) fn new(mut opts: Options) -> std::io::Result<Self> {
        let now = opts.clock.now();
        let accounts = opts.accounts.iter().map(|a| Account::new(opts.seed, a, opts.inmail_credits, now)).collect();
        if let Some(limit) = opts.invites_per_day {
            opts.quotas.push(Quota::new(None, "invite", Duration::from_secs(24 * 3600), limit));
        }
        Ok(Self {
            now,
            accounts,
            people: Vec::new(),
            known: HashMap::new(),
            links: HashMap::new(),
            invitations: HashMap::new(),
            chats: Vec::new(),
            chat_ids: HashMap::new(),
            chat_of: HashMap::new(),
            attendees: HashMap::new(),
            messages: Ring::new(opts.history),
            message_ids: HashMap::new(),
            mails: Ring::new(opts.history),
            mail_ids: HashMap::new(),
            mail_by_address: HashMap::new(),
            keys: HashMap::new(),
            key_order: VecDeque::new(),
            hosted: HashMap::new(),
            ledger: Ledger::open(opts.history, opts.ledger_path.as_deref())?,
            deeds: Ring::new(opts.history),
            calls: Calls::new(opts.history),
            hooks: Vec::new(),
            handlings: Vec::new(),
            lost: 0,
            rules: Vec::new(),
            rules_made: 0,
            outbox: Vec::new(),
            errands: Vec::new(),
            acts: BinaryHeap::new(),
            acts_changed: false,
            serials: HashMap::new(),
            counter: 0,
            opts,
        })
    }

    /// A number nothing else in this world has, and that rises.
    pub(super) fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// A digest that nothing else has: it follows from the words and from how often they were given before, so that it is the
    /// same in every run, whatever else happens meanwhile.
    pub(super) fn unique(&mut self, words: &[&str]) -> [u8; 32] {
        let count = self.serials.entry(text::number(self.opts.seed, words)).or_default();
        *count += 1;
        let count = count.to_string();
        let all: Vec<&str> = [self.opts.run.as_str(), &count].into_iter().chain(words.iter().copied()).collect();
        text::digest(self.opts.seed, &all)
    }

    /// A new opaque id out of some words.
    pub(super) fn new_id(&mut self, words: &[&str]) -> String {
        text::opaque(&self.unique(words), 22)
    }

    /// A key for draws that is no id: it does not change with `run`.
    pub(super) fn unique_key(&mut self, words: &[&str]) -> String {
        let count = self.serials.entry(text::number(self.opts.seed, words)).or_default();
        *count += 1;
        format!("{} {count}", words.join(" "))
    }

    /// The person behind an identity; met now if never before.
    pub(super) fn meet(&mut self, place: Place, identity: &str) -> usize {
        let key = match place {
            Place::LinkedIn => format!("in:{identity}"),
            Place::Mail => identity.to_lowercase(),
            Place::Phone => format!("{identity}@s.whatsapp.net"),
        };
        if let Some(&person) = self.known.get(&key) {
            return person;
        }
        let identity = if place == Place::Mail { key.clone() } else { identity.to_owned() };
        let somebody = Person::meet(self.opts.seed, &self.opts.people, place, &identity);
        let person = self.people.len();
        self.known.insert(key, person);
        self.known.insert(somebody.provider_id.clone(), person);
        if !somebody.lid.is_empty() {
            self.known.insert(somebody.lid.clone(), person);
        }
        self.people.push(somebody);
        person
    }

    /// Somebody already met, by slug, address, number or provider id.
    pub(super) fn find_person(&self, identity: &str) -> Option<usize> {
        [
            identity.to_owned(),
            format!("in:{identity}"),
            identity.to_lowercase(),
            format!("{}@s.whatsapp.net", identity.trim_start_matches('+')),
        ]
        .iter()
        .find_map(|key| self.known.get(key).copied())
    }

    pub(super) fn later(&mut self, after: Duration, act: Act) {
        let number = self.number();
        self.acts.push(Reverse(Scheduled { at: self.now + after, number, act }));
        self.acts_changed = true;
    }

    /// Runs what is due by `until`, at most `limit` acts; each sees its own due time as the time. `true`: that was all.
    pub(super) fn run_due(&mut self, until: Timestamp, limit: usize) -> bool {
        let mut left = limit;
        while self.acts.peek().is_some_and(|Reverse(s)| s.at <= until) {
            if left == 0 {
                return false;
            }
            left -= 1;
            let Some(Reverse(scheduled)) = self.acts.pop() else { break };
            self.now = scheduled.at;
            scheduled.act.run(self);
        }
        self.now = until;
        true
    }

    /// What a restart of the provider loses: the idempotency keys.
    pub(super) fn restart(&mut self) {
        self.keys.clear();
        self.key_order.clear();
    }
}
