//! What the actors count on their way, looked up once; and what is only known by keeping count of it.

use std::time::Duration;

use dashmap::DashMap;
use metrics::{Counter, Histogram};

use super::shared::Shared;
use super::work::Inbound;
use crate::domain::account::Channel;
use crate::domain::id::{AccountId, SendId};
use crate::domain::retry;
use crate::domain::send::{Action, SendOutcome};
use crate::telemetry::{self, Histograms};

/// The parts of a reaction to a fact from outside, each by what ends it.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    /// From its receipt until it is durable.
    Stored,
    /// Until it is known whom it is about.
    Found,
    /// From its arrival at the shard until their actor has it.
    Taken,
    /// Until its transition is durable.
    Committed,
    /// Until the provider is called for the send that was decided with it.
    Called,
}

impl Stage {
    const ALL: [Self; 5] = [Self::Stored, Self::Found, Self::Taken, Self::Committed, Self::Called];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Found => "found",
            Self::Taken => "taken",
            Self::Committed => "committed",
            Self::Called => "called",
        }
    }
}

/// Handles of a runtime.
pub(super) struct Meters {
    /// From the arrival of a trigger to its durable transition.
    reaction: Histograms,
    /// Of a fact from outside, what the parts of that took: see [`Stage`].
    stages: [Histogram; 5],
    /// How long a message waits for its actor.
    pub(super) mailbox: Histograms,
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
            stages: Stage::ALL
                .map(|stage| metrics::histogram!(telemetry::REACTION_STAGE_SECONDS, "stage" => stage.as_str())),
            mailbox: Histograms::of(telemetry::ACTOR_MAILBOX_SECONDS),
            inbox: Histograms::of(telemetry::INBOX_SECONDS),
            rejected: metrics::counter!(telemetry::MAILBOX_REJECTED),
            settling: DashMap::new(),
            troubles: DashMap::new(),
        }
    }

    /// Notes what a part of a reaction took.
    pub(super) fn stage(&self, stage: Stage, took: Duration) {
        self.stages[stage as usize].record(took.as_secs_f64());
    }

    /// A work has led to a durable transition.
    pub(super) fn reacted(&self, trigger: &'static str, inbound: &Inbound) {
        let took = inbound.arrived.elapsed();
        self.reaction.record(trigger, took.as_secs_f64());
        if let Some(taken) = inbound.taken_after() {
            self.stage(Stage::Taken, taken);
            self.stage(Stage::Committed, took.saturating_sub(taken));
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

    /// The provider is about to be called for a send. Whether a fact has led to it is asked once.
    pub(super) fn calls(&self, send: SendId) {
        if let Some(committed) = self.answering.forget(send) {
            self.meters.stage(Stage::Called, committed.elapsed());
        }
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
