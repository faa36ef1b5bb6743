//! The actors: one per prospect, one per account. The only room that knows ractor.

use crate::domain::execution::Status;
use crate::domain::id::{CampaignId, ExecutionId};
use crate::domain::trigger::Trigger;

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
    /// Why it is not ready, for people; empty when ready.
    pub reason: String,
}

/// A handle to the runtime. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {}

impl Handle {
    /// Hands a trigger to an execution and waits until it is durable or refused. Loads the execution if it has no live
    /// actor.
    ///
    /// # Errors
    /// See [`DeliverError`]; nothing was changed.
    pub async fn deliver(&self, execution: ExecutionId, trigger: Trigger) -> Result<Delivery, DeliverError> {
        let _ = trigger;
        Err(DeliverError::NotFound(execution))
    }

    /// A campaign was created, started, paused or resumed: read it again and act on it.
    pub fn campaign_changed(&self, campaign: CampaignId) {
        let _ = campaign;
    }

    /// Accounts were added or changed: read them again.
    pub fn accounts_changed(&self) {}

    /// Rows are waiting in `execution_arrivals`: look now.
    pub fn arrivals(&self) {}

    /// Rows are waiting in `inbox`: look now.
    pub fn inbox(&self) {}

    /// What the runtime is doing.
    pub fn status(&self) -> RuntimeStatus {
        RuntimeStatus::default()
    }
}
