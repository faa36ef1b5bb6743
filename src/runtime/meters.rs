//! What the actors count on their way, looked up once; and what is only known by keeping count of it.

use dashmap::DashMap;
use metrics::Counter;

use super::shared::Shared;
use crate::domain::account::Channel;
use crate::domain::id::{AccountId, SendId};
use crate::domain::retry;
use crate::domain::send::{Action, SendOutcome};
use crate::telemetry::{self, Histograms};

/// Handles of a runtime.
pub(super) struct Meters {
    /// From the arrival of a trigger to its durable transition.
    pub(super) reaction: Histograms,
    /// From the receipt of a fact to its being dealt with.
    pub(super) inbox: Histograms,
    /// Triggers that found no permit.
    pub(super) rejected: Counter,
    /// Sends that are being looked up at the provider.
    settling: DashMap<SendId, Channel>,
    /// How many calls of an account in a row its provider was not up to, by what was to be done; no entry: the last one was
    /// fine.
    troubles: DashMap<(AccountId, Action), u32>,
}

impl Meters {
    pub(super) fn new() -> Self {
        Self {
            reaction: Histograms::of(telemetry::REACTION_SECONDS),
            inbox: Histograms::of(telemetry::INBOX_SECONDS),
            rejected: metrics::counter!(telemetry::MAILBOX_REJECTED),
            settling: DashMap::new(),
            troubles: DashMap::new(),
        }
    }

    /// How many sends of a channel are being looked up.
    pub(super) fn settling(&self, channel: Channel) -> usize {
        self.settling.iter().filter(|entry| *entry.value() == channel).count()
    }
}

impl Shared {
    /// Nobody knows whether this send happened: it is going to be looked up.
    pub(super) fn settles(&self, send: SendId, channel: Channel) {
        self.meters.settling.insert(send, channel);
    }

    /// It is known now, or left to a person.
    pub(super) fn settled(&self, send: SendId) {
        self.meters.settling.remove(&send);
    }

    /// How many calls of this account in a row its provider was not up to.
    pub(super) fn trouble(&self, account: AccountId, action: Action) -> u32 {
        self.meters.troubles.get(&(account, action)).map_or(0, |streak| *streak)
    }

    /// A call of this account had this outcome; answers what [`Shared::trouble`] says from now on.
    pub(super) fn called(&self, account: AccountId, action: Action, outcome: &SendOutcome) -> u32 {
        if !retry::is_trouble(outcome) {
            self.meters.troubles.remove(&(account, action));
            return 0;
        }
        let mut streak = self.meters.troubles.entry((account, action)).or_default();
        *streak = streak.saturating_add(1);
        *streak
    }
}

/// A send was put off. `reason` is one of the values of [`telemetry::SENDS_DEFERRED`].
pub(super) fn deferred(channel: Channel, reason: &'static str) {
    metrics::counter!(telemetry::SENDS_DEFERRED, "channel" => channel.as_str(), "reason" => reason).increment(1);
}
