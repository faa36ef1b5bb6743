//! What the actors count on their way, looked up once; and what is only known by keeping count of it.

use dashmap::DashMap;
use metrics::Counter;

use super::shared::Shared;
use crate::domain::account::Channel;
use crate::domain::id::SendId;
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
}

impl Meters {
    pub(super) fn new() -> Self {
        Self {
            reaction: Histograms::of(telemetry::REACTION_SECONDS),
            inbox: Histograms::of(telemetry::INBOX_SECONDS),
            rejected: metrics::counter!(telemetry::MAILBOX_REJECTED),
            settling: DashMap::new(),
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
}

/// A send was put off. `reason` is one of the values of [`telemetry::SENDS_DEFERRED`].
pub(super) fn deferred(channel: Channel, reason: &'static str) {
    metrics::counter!(telemetry::SENDS_DEFERRED, "channel" => channel.as_str(), "reason" => reason).increment(1);
}
