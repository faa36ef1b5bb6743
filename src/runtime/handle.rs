//! The door: what the rest of the program may ask the runtime, and what it answers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;

use super::channel::ChannelMessage;
use super::sample;
use super::shard::ShardMessage;
use super::shared::Shared;
use super::unread::NewFact;
use super::work::{Inbound, Work};
use crate::domain::execution::Status;
use crate::domain::id::{AccountId, CampaignId, ExecutionId, InboxId, WorkspaceId};
use crate::domain::trigger::Trigger;
use crate::store::lease::LeaseView;
use crate::store::migrate;
use crate::telemetry::trace::{Known, Side, Stage};

/// What became of a trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It moved the execution; durable.
    Applied {
        /// The execution's version after it.
        version: i64,
        /// Its status after it.
        status: Status,
    },
    /// It came late, twice, or does not fit the status: nothing changed.
    Rejected {
        /// A stable name, for example `already_final`.
        reason: &'static str,
    },
}

/// Why a trigger could not be handled now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliverError {
    /// Too many triggers are in flight; try again shortly.
    #[error("too many triggers in flight; try again in a second")]
    Busy,
    /// There is no such execution.
    #[error("no execution {0}")]
    NotFound(ExecutionId),
    /// The execution cannot run, for example because its flow cannot be read.
    #[error("execution {0} cannot run: {1}")]
    Unrunnable(ExecutionId, String),
    /// The runtime is stopping or has lost its lease.
    #[error("the runtime is stopping")]
    Stopping,
}

/// What the runtime is doing, for `/readyz` and the live view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// Whether every execution has been read back from the table and the runtime acts.
    pub ready: bool,
    /// Live prospect actors.
    pub residents: u64,
    /// Executions without a live actor that have a wake-up.
    pub parked: u64,
    /// Why it is not ready; `None` when it is.
    pub reason: Option<Unready>,
}

/// Why the runtime is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// Executions are being read back from the table. What is read already runs.
    Rehydrating,
    /// It was told to stop: what is in flight comes to its end.
    Draining,
    /// Another process has taken the shards over, or the lease could not be renewed in time.
    LeaseLost,
}

/// A handle to the runtime. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("status", &self.status()).finish()
    }
}

impl Handle {
    /// Hands a trigger to an execution and waits until it is durable or refused. Loads the execution if it has no live
    /// actor.
    ///
    /// # Errors
    /// See [`DeliverError`]; nothing was changed.
    pub async fn deliver(&self, execution: ExecutionId, trigger: Trigger) -> Result<Delivery, DeliverError> {
        if self.shared.is_draining() {
            return Err(DeliverError::Stopping);
        }
        let permit = Arc::clone(&self.shared.admission).try_acquire_owned().map_err(|_| {
            self.shared.meters.rejected.increment(1);
            DeliverError::Busy
        })?;
        let inbound = Inbound { permit: Some(permit), ..Inbound::new(Work::Trigger(trigger, None)) };
        ask(&self.shared, execution, inbound).await
    }

    /// A campaign was created, started, paused or resumed: read it again and act on it.
    pub fn campaign_changed(&self, campaign: CampaignId) {
        tracing::debug!(campaign.id = %campaign, "campaign changed");
        self.shared.roster_changed.notify_one();
    }

    /// An account's gate was changed by a person: its channel looks at everything again.
    pub fn account_released(&self, account: AccountId) {
        let known = self.shared.roster.accounts().get(account);
        if let (Some(channel), Some(account)) = (self.shared.channels.get(&account), known) {
            let _ = channel.cast(ChannelMessage::Account(account));
        }
    }

    /// The account that contacts a person whom none has contacted on this channel yet: in its line they wait. `None`: there
    /// is none, or this process does not know the campaign.
    pub fn account_drawn(
        &self,
        campaign: CampaignId,
        execution: ExecutionId,
        channel: crate::domain::account::Channel,
    ) -> Option<AccountId> {
        let campaign = self.shared.roster.campaign(campaign)?;
        self.shared.roster.draw(execution, &campaign, channel)
    }

    /// Accounts were added or changed: read them again.
    pub fn accounts_changed(&self) {
        self.shared.roster_changed.notify_one();
    }

    /// Rows are waiting in `execution_arrivals`: look now.
    pub fn arrivals(&self) {
        self.shared.arrivals.notify_one();
    }

    /// A fact is about to be stored in `inbox`: from now on nobody it may be about is written to before it was dealt with.
    pub fn new_fact(&self, workspace: WorkspaceId, id: InboxId) -> NewFact {
        NewFact::new(Arc::clone(&self.shared), workspace, id)
    }

    /// Rows are waiting in `inbox`: look now.
    pub fn inbox(&self) {
        self.shared.inbox.notify_one();
    }

    /// Whether facts may be stored that cannot be dealt with at once; when not, answer 503.
    pub fn takes_facts(&self) -> bool {
        self.shared.unread.has_room()
    }

    /// Whether triggers from outside are taken now; when not, answer 503.
    pub fn has_room(&self) -> bool {
        let shared = &self.shared;
        !shared.is_draining() && shared.admission.available_permits() > 0 && self.takes_facts()
    }

    /// What passes the fence while this process owns the shards.
    pub fn lease(&self) -> &LeaseView {
        &self.shared.lease
    }

    /// Whether mails carry a link by which people unsubscribe.
    pub fn has_links(&self) -> bool {
        self.shared.unsubscribing.is_set()
    }

    /// Executions that are due and wait for room in the backlog of their account.
    pub fn lined(&self) -> usize {
        self.shared.backlogs.iter().map(|backlog| backlog.lengths().0).sum()
    }

    /// How the schema stands, by the prober, which asks each second and waits as long. Waits up to two seconds for an answer
    /// that is not older than that.
    ///
    /// # Errors
    /// Why the database does not answer, for people.
    pub async fn schema(&self) -> Result<migrate::Standing, String> {
        sample::seen(&self.shared).await
    }

    /// What the runtime is doing.
    pub fn status(&self) -> RuntimeStatus {
        let ready = self.shared.ready.load(Relaxed);
        let reason = if ready {
            None
        } else if self.shared.lease_lost.load(Relaxed) {
            Some(Unready::LeaseLost)
        } else if self.shared.is_draining() {
            Some(Unready::Draining)
        } else {
            Some(Unready::Rehydrating)
        };
        RuntimeStatus {
            ready,
            residents: self.shared.residents.load(Relaxed),
            parked: self.shared.parked.load(Relaxed),
            reason,
        }
    }
}

/// Work from inside: send results and inbox facts. Bounded by the accounts and by the inbox's rounds, so it takes no
/// permit, and a flood from outside cannot hold it up.
pub(super) async fn deliver_internal(
    shared: &Shared,
    execution: ExecutionId,
    work: Work,
) -> Result<Delivery, DeliverError> {
    ask(shared, execution, Inbound::new(work)).await
}

async fn ask(shared: &Shared, execution: ExecutionId, mut inbound: Inbound) -> Result<Delivery, DeliverError> {
    let (answer, wait) = oneshot::channel();
    inbound.answer = Some(answer);
    let mut stage = Stage::within("transition", Side::Inside);
    stage.note("execution.id", || Known::Id(execution.0));
    stage.note("trigger", || Known::Name(inbound.errand.work.name()));
    shared.to_shard(execution, ShardMessage::Deliver(execution, inbound.traced(stage.context())));
    // A shard that is gone drops the answer.
    let result = wait.await.unwrap_or(Err(DeliverError::Stopping));
    match &result {
        Ok(Delivery::Applied { version, .. }) => {
            stage.note("outcome", || Known::Name("applied"));
            stage.note("execution.version", || Known::Count(*version));
        }
        Ok(Delivery::Rejected { reason }) => stage.note("outcome", || Known::Name(reason)),
        // Whoever asked asks again, or has been told no.
        Err(_) => stage.discard(),
    }
    result
}
