//! Everything the sandbox knows. One mutex guards it; nobody holds that over an await. Whatever changes it leaves webhooks
//! in `outbox` and acts in `acts`; `server` takes both away.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::act::Act;
use super::errors::Problem;
use super::faults::Rule;
use super::ledger::Ledger;
use super::mailbox::Mail;
use super::options::{AccountKind, Options};
use super::people::{self, Person, Place};
use super::talk::{Chat, Message};
use super::text;
use super::webhooks::{Delivery, Hook};
use crate::domain::time::Timestamp;

/// A list that numbers what is pushed and forgets its oldest beyond a limit.
pub(super) struct Ring<T> {
    first: u64,
    items: VecDeque<T>,
    limit: usize,
}

impl<T> Ring<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { first: 0, items: VecDeque::new(), limit: limit.max(1) }
    }
    /// The number the next push gets.
    pub(super) fn next(&self) -> u64 {
        self.first + self.items.len() as u64
    }
    /// Adds one; gives back what had to go.
    pub(super) fn push(&mut self, item: T) -> Option<T> {
        self.items.push_back(item);
        if self.items.len() <= self.limit {
            return None;
        }
        self.first += 1;
        self.items.pop_front()
    }
    pub(super) fn get(&self, number: u64) -> Option<&T> {
        self.items.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        self.items.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.items.iter()
    }
    /// Those numbered `number` and above, oldest first.
    pub(super) fn iter_from(&self, number: u64) -> impl Iterator<Item = &T> {
        let start = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.items.len());
        self.items.range(start..)
    }
}

/// A connected account.
pub(super) struct Account {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) kind: AccountKind,
    pub(super) identity: String,
    /// `ACoAA…`, the address, or `<digits>@s.whatsapp.net`.
    pub(super) own_id: String,
    /// `OK` or `CREDENTIALS`.
    pub(super) status: &'static str,
    /// Webhooks held while the account is disconnected.
    pub(super) held: Vec<Event>,
    /// When the invitations of the last 24 hours were sent.
    pub(super) invites: VecDeque<Timestamp>,
    /// The last landing of the quota that was told (50, 75, 90, 95).
    pub(super) landing: u32,
    pub(super) created_at: Timestamp,
}

/// How an account stands to a person on LinkedIn. No entry: strangers.
pub(super) enum Link {
    Pending { id: String, number: u64, at: Timestamp, note: Option<String> },
    Withdrawn { at: Timestamp },
    Connected { at: Timestamp, number: u64 },
}

/// Something webhooks may be waiting for.
pub(super) struct Event {
    pub(super) source: &'static str,
    pub(super) name: &'static str,
    pub(super) account: usize,
    pub(super) body: Value,
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
    /// attendee id → (account, person)
    pub(super) attendees: HashMap<String, (usize, usize)>,
    pub(super) messages: Ring<Message>,
    pub(super) message_ids: HashMap<String, u64>,
    pub(super) mails: Ring<Mail>,
    /// Our id, the provider's and the RFC id → mail.
    pub(super) mail_ids: HashMap<String, u64>,
    /// (account, address) → mails from or to it, oldest first.
    pub(super) mail_by_address: HashMap<(usize, String), Vec<u64>>,
    /// (account, key) → the request's digest and its answer.
    pub(super) keys: HashMap<(usize, String), ([u8; 32], Value)>,
    pub(super) key_order: VecDeque<(Timestamp, (usize, String))>,
    pub(super) ledger: Ledger,
    pub(super) hooks: Vec<Arc<Hook>>,
    pub(super) rules: Vec<Rule>,
    pub(super) outbox: Vec<Delivery>,
    pub(super) acts: BinaryHeap<Reverse<Scheduled>>,
    pub(super) acts_changed: bool,
    run: String,
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
    pub(super) fn new(opts: Options) -> std::io::Result<Self> {
        let now = opts.clock.now();
        let accounts = opts
            .accounts
            .iter()
            .map(|a| Account {
                id: a.id.clone(),
                name: a.name.clone(),
                kind: a.kind,
                identity: a.identity.clone(),
                own_id: match a.kind {
                    AccountKind::LinkedIn => people::linkedin_id(opts.seed, &a.identity),
                    AccountKind::Mail => a.identity.clone(),
                    AccountKind::WhatsApp => format!("{}@s.whatsapp.net", a.identity),
                },
                status: "OK",
                held: Vec::new(),
                invites: VecDeque::new(),
                landing: 0,
                created_at: now,
            })
            .collect();
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
            ledger: Ledger::open(opts.history, opts.ledger_path.as_deref())?,
            hooks: Vec::new(),
            rules: Vec::new(),
            outbox: Vec::new(),
            acts: BinaryHeap::new(),
            acts_changed: false,
            run: Uuid::new_v4().to_string(),
            counter: 0,
            opts,
        })
    }

    /// A number nothing else in this world has.
    pub(super) fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// A new opaque id; two runs never make the same, so that a restarted sandbox cannot be mistaken for the old one.
    pub(super) fn new_id(&mut self) -> String {
        let number = self.number().to_string();
        text::opaque(&text::digest(self.opts.seed, &[&self.run, &number]), 22)
    }

    /// A number in 0..1 for things that are no person's nature.
    pub(super) fn chance(&mut self) -> f64 {
        let number = self.number().to_string();
        text::unit(self.opts.seed, &["chance", &number])
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

    pub(super) fn account_index(&self, id: &str) -> Option<usize> {
        self.accounts.iter().position(|a| a.id == id)
    }

    /// The account of a request, connected and of the right kind.
    pub(super) fn account(&self, id: Option<&str>, kind: Option<AccountKind>) -> Result<usize, Problem> {
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            return Err(Problem::new(400, "missing_parameters", "account_id is required."));
        };
        let index = self.account_index(id).ok_or_else(|| Problem::missing("account"))?;
        let account = &self.accounts[index];
        if kind.is_some_and(|k| k != account.kind) {
            return Err(Problem::new(422, "invalid_account", "The account is not designed for this feature."));
        }
        if account.status != "OK" {
            return Err(Problem::new(
                401,
                "disconnected_account",
                "The account appears to be disconnected from the provider service.",
            ));
        }
        Ok(index)
    }

    pub(super) fn later(&mut self, after: Duration, act: Act) {
        let number = self.number();
        self.acts.push(Reverse(Scheduled { at: self.now + after, number, act }));
        self.acts_changed = true;
    }

    /// Runs what is due by `until`, at most `limit` acts; each sees its own due time as the time.
    pub(super) fn run_due(&mut self, until: Timestamp, limit: usize) {
        for _ in 0..limit {
            if self.acts.peek().is_none_or(|Reverse(s)| s.at > until) {
                break;
            }
            let Some(Reverse(scheduled)) = self.acts.pop() else { break };
            self.now = scheduled.at;
            scheduled.act.run(self);
        }
        self.now = until;
    }

    /// Tells every webhook that waits for it. A disconnected account's news wait until it is connected again.
    pub(super) fn emit(&mut self, event: Event) {
        let limit = self.opts.history;
        let account = &mut self.accounts[event.account];
        if account.status != "OK" && event.source != "account_status" {
            if account.held.len() < limit {
                account.held.push(event);
            }
            return;
        }
        let id = account.id.clone();
        for hook in &self.hooks {
            if !hook.wants(event.source, event.name, &id) {
                continue;
            }
            let mut body = event.body.clone();
            if let (Some(object), true) = (body.as_object_mut(), event.source != "account_status") {
                object.insert("webhook_name".to_owned(), json!(hook.name));
            }
            self.outbox.push(Delivery { hook: Arc::clone(hook), body: body.to_string() });
        }
    }

    /// Sets an account's status and tells it when it changed; news held back follow an `OK`.
    pub(super) fn set_status(&mut self, index: usize, status: &'static str) {
        let account = &mut self.accounts[index];
        if account.status == status {
            return;
        }
        account.status = status;
        let body = json!({ "AccountStatus": {
            "account_id": account.id, "account_type": account.kind.wire(), "message": status } });
        let held = if status == "OK" { std::mem::take(&mut account.held) } else { Vec::new() };
        self.emit(Event { source: "account_status", name: "account_status", account: index, body });
        for event in held {
            self.emit(event);
        }
    }
}
