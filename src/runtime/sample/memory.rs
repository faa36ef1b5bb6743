//! Gauges of what the process knows by itself, and probes of the mailboxes.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tokio::sync::Semaphore;

use super::{count, set, set_at};
use crate::domain::account::{AccountStatus, Channel};
use crate::domain::id::SHARDS;
use crate::runtime::channel::ChannelMessage;
use crate::runtime::shard::ShardMessage;
use crate::runtime::shared::Shared;
use crate::store::sample_pool;
use crate::telemetry as names;

/// Mailboxes of each kind that are probed in one round.
const PROBES: u16 = 8;

/// Samples the memory, round by round.
pub(super) struct Memory {
    /// Triggers, and timer firings, that there may be at once.
    limits: [usize; 2],
    /// The shard and the account whose mailboxes are probed next.
    shard: u16,
    account: usize,
}

/// What the accounts of a channel do together.
#[derive(Clone, Copy, Default)]
struct Sums {
    /// By [`AccountStatus::ALL`].
    states: [usize; AccountStatus::ALL.len()],
    in_flight: usize,
    line: usize,
    queue: usize,
}

impl Memory {
    /// To be made while no permit is taken.
    pub(super) fn new(shared: &Shared) -> Self {
        let limits = [&shared.admission, &shared.timers].map(|permits| permits.available_permits());
        Self { limits, shard: 0, account: 0 }
    }

    pub(super) fn sample(&mut self, shared: &Shared) {
        let [triggers, timers] = self.limits;
        let taken = |permits: &Semaphore, limit: usize| count(limit.saturating_sub(permits.available_permits()));
        for (kind, permits, limit) in [("trigger", &shared.admission, triggers), ("timer", &shared.timers, timers)] {
            set_at(names::MAILBOX, "kind", kind, taken(permits, limit));
            set_at(names::MAILBOX_LIMIT, "kind", kind, count(limit));
        }
        let number = |n: u64| count(usize::try_from(n).unwrap_or(usize::MAX));
        set_at(names::ACTORS, "kind", "prospect", number(shared.residents.load(Relaxed)));
        set_at(names::ACTORS, "kind", "channel", count(shared.channels.len()));
        set_at(names::ACTORS, "kind", "shard", count(shared.shards.get().map_or(0, Vec::len)));
        set(names::PARKED, number(shared.parked.load(Relaxed)));
        set(names::LOADING, count(shared.loading.load(Relaxed)));
        let (rows, oldest) = shared.writer.waiting();
        set(names::PERSIST_QUEUE, count(rows));
        set(names::PERSIST_OLDEST, oldest.as_secs_f64());
        sample_pool("engine", &shared.pool);
        let phase = match (shared.is_draining(), shared.ready.load(Relaxed)) {
            (true, _) => "stopping",
            (false, true) => "done",
            (false, false) => "reading",
        };
        for name in ["reading", "done", "stopping"] {
            set_at(names::REHYDRATION_PHASE, "phase", name, f64::from(name == phase));
        }
        for provider in shared.providers.values().map(|provider| provider.name()) {
            set_at(names::KEY_REFUSED, "provider", provider, f64::from(shared.keys.is_refused(provider)));
        }
        sample_accounts(shared);
        self.mailboxes(shared);
    }

    /// How much is in the mailboxes, and how long something stays in there: what is sent here is measured where it arrives.
    fn mailboxes(&mut self, shared: &Shared) {
        let (messages, works) = shared.mailboxes.depths();
        for (kind, depth) in [("shard", messages), ("prospect", works)] {
            set_at(names::ACTOR_MAILBOX, "kind", kind, count(depth.all));
            set_at(names::ACTOR_MAILBOX_DEEPEST, "kind", kind, count(depth.deepest));
        }
        for _ in 0..PROBES {
            shared.tell(self.shard, ShardMessage::Probe(Instant::now()));
            self.shard = (self.shard + 1) % SHARDS;
        }
        let mut probed = 0;
        for account in shared.roster.accounts().iter().skip(self.account).take(PROBES.into()) {
            probed += 1;
            if let Some(channel) = shared.channels.get(&account.id) {
                let _ = channel.cast(ChannelMessage::Probe(Instant::now()));
            }
        }
        self.account = if probed < PROBES { 0 } else { self.account + usize::from(PROBES) };
    }
}

fn sample_accounts(shared: &Shared) {
    let mut sums = HashMap::<Channel, Sums>::new();
    for account in shared.roster.accounts().iter() {
        let sum = sums.entry(account.channel).or_default();
        if let Some(at) = AccountStatus::ALL.iter().position(|status| *status == account.status) {
            sum.states[at] += 1;
        }
        sum.in_flight += usize::from(shared.in_flight.contains_key(&account.id));
        let (line, queue) = shared.backlog(account.id).lengths();
        (sum.line, sum.queue) = (sum.line + line, sum.queue + queue);
    }
    for channel in Channel::ALL {
        let sum = sums.get(channel).copied().unwrap_or_default();
        let channel_name = channel.as_str();
        for (status, n) in AccountStatus::ALL.iter().zip(sum.states) {
            metrics::gauge!(names::ACCOUNTS, "channel" => channel_name, "state" => status.as_str()).set(count(n));
        }
        set_at(names::SENDS_IN_FLIGHT, "channel", channel_name, count(sum.in_flight));
        set_at(names::CHANNEL_LINE, "channel", channel_name, count(sum.line));
        set_at(names::CHANNEL_QUEUE, "channel", channel_name, count(sum.queue));
        let settling = count(shared.meters.settling(*channel));
        metrics::gauge!(names::SENDS_UNKNOWN, "channel" => channel_name, "state" => "settling").set(settling);
    }
}
