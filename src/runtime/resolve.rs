//! A person's word about a send whose outcome could not be found out.
//!
//! It takes the way of every outcome: a trigger of the execution, whose commit changes the send's row and opens the gate. What
//! keeps it from meeting the engine's own reading back is that a parked send is nobody's but a person's, and that two
//! people take turns: whoever comes second finds the row decided.

use super::work::{SendDetails, Work};
use super::{DeliverError, Delivery, Handle, deliver_internal};
use crate::domain::account::AccountStatus;
use crate::domain::id::{SendId, WorkspaceId};
use crate::domain::send::{Receipt, SendStatus};
use crate::domain::trigger::Trigger;
use crate::store::send::review;

/// What became of a person's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// The execution has taken it; durable.
    Applied {
        /// The execution's version after it.
        version: i64,
        /// Its status after it.
        status: &'static str,
    },
    /// No execution waits for the send any more: it is recorded on the send alone.
    Recorded,
    /// The workspace has no such send.
    NoSuchSend,
    /// Its outcome is known.
    Known {
        /// The send's status.
        status: String,
    },
    /// The engine is still looking for it at the provider, and parks it if that does not tell.
    Settling,
}

/// Why it could not be done now; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The rows cannot be read.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// The execution cannot take it.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
}

impl Handle {
    /// Decides a send whose outcome nobody knows: it was sent, and the execution goes on; or it was not, and it is sent again.
    /// `by` names who decided. Taken for a send that is parked, and for one whose account does not send, which the engine
    /// cannot look for.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub async fn resolve(
        &self,
        workspace: WorkspaceId,
        send: SendId,
        sent: bool,
        by: &str,
    ) -> Result<Resolved, ResolveError> {
        let shared = &self.shared;
        if shared.is_draining() {
            return Err(DeliverError::Stopping.into());
        }
        let _turn = shared.resolving.lock().await;
        let Some(row) = review::get(&shared.pool, workspace, send).await? else { return Ok(Resolved::NoSuchSend) };
        if row.status != SendStatus::Unknown.as_str() {
            return Ok(Resolved::Known { status: row.status });
        }
        if row.parked_at.is_none() {
            if row.account_status.as_deref() == Some(AccountStatus::Active.as_str()) {
                return Ok(Resolved::Settling);
            }
            // From here on the engine leaves it alone, also when the account works again.
            review::park(&shared.pool, workspace, send, shared.clock.now()).await?;
        }
        let details =
            SendDetails { account: row.account(), receipt: Receipt::default(), rest_until: None, brake: None };
        let trigger = Trigger::SendResolved { send, sent, by: by.to_owned() };
        let work = Work::Trigger(trigger, Some(Box::new(details)));
        match deliver_internal(shared, row.execution(), work).await {
            Ok(Delivery::Applied { version, status }) => {
                tracing::info!(send.id = %send, execution.id = %row.execution(), sent, "a person has decided a send");
                Ok(Resolved::Applied { version, status: status.as_str() })
            }
            // Skipped, restarted or gone meanwhile.
            Ok(Delivery::Rejected { .. }) | Err(DeliverError::NotFound(_)) => {
                let note = format!("{by} decided that it was {}", if sent { "sent" } else { "not sent" });
                review::decide_alone(&shared.pool, workspace, send, sent, &note, shared.clock.now()).await?;
                tracing::info!(send.id = %send, sent, "a person has decided a send that nobody waits for");
                Ok(Resolved::Recorded)
            }
            Err(error) => Err(error.into()),
        }
    }
}
