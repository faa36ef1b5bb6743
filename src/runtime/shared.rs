//! What all actors share.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use ractor::ActorRef;
use tokio::sync::{Mutex, Notify, Semaphore, mpsc};

use super::backlog::Backlog;
use super::channel::ChannelMessage;
use super::gather::{Claims, Gatherer, Loads};
use super::roster::Roster;
use super::shard::ShardMessage;
use crate::clock::Clock;
use crate::domain::account::{Channel, ChannelAccounts};
use crate::domain::execution::Execution;
use crate::domain::id::{AccountId, ExecutionId, SendId, WorkspaceId};
use crate::domain::trigger::Trigger;
use crate::provider::Provider;
use crate::store::Pool;
use crate::store::lease::LeaseView;
use crate::store::writer::Writer;

/// Called before every step, for fault injection: a panic in it is a panic of the actor.
pub type BeforeStep = Arc<dyn Fn(&Execution, &Trigger) + Send + Sync>;

/// Called by a channel before it starts on a send, for fault injection: a panic in it is a panic of the channel.
pub type BeforeSend = Arc<dyn Fn(SendId) + Send + Sync>;

/// Handles and limits of one runtime.
pub(super) struct Shared {
    pub(super) pool: Pool,
    pub(super) clock: Clock,
    pub(super) lease: LeaseView,
    pub(super) writer: Writer,
    pub(super) roster: Roster,
    pub(super) providers: HashMap<String, Arc<dyn Provider>>,
    /// Filled once, right after the shard supervisors have started.
    pub(super) shards: OnceLock<Vec<ActorRef<ShardMessage>>>,
    pub(super) channels: DashMap<AccountId, ActorRef<ChannelMessage>>,
    /// What each account has to do. Outlives a crashed channel actor.
    pub(super) backlogs: DashMap<AccountId, Arc<Backlog>>,
    /// Reads and claims of sends, of all accounts together.
    pub(super) loads: Gatherer<Loads>,
    pub(super) claims: Gatherer<Claims>,
    /// The send whose provider call is running, by account. Outlives a crashed channel actor.
    pub(super) in_flight: DashMap<AccountId, SendId>,
    /// Executions to be read from the table and handed to their shard.
    pub(super) loader: mpsc::UnboundedSender<ExecutionId>,
    /// Triggers from outside that may be in flight; bounds every mailbox.
    pub(super) admission: Arc<Semaphore>,
    /// Timer firings that may be in flight, apart from the above, so that a flood of triggers does not stop time.
    pub(super) timers: Arc<Semaphore>,
    pub(super) residents: AtomicU64,
    pub(super) ready: AtomicBool,
    pub(super) draining: AtomicBool,
    /// Status changes of accounts are applied one after the other, in the order they came in.
    pub(super) account_status: Mutex<()>,
    /// How often what was held has been released: whoever looked before the last time has to look again.
    pub(super) releases: AtomicU64,
    pub(super) inbox: Notify,
    pub(super) arrivals: Notify,
    pub(super) roster_changed: Notify,
    pub(super) before_step: Option<BeforeStep>,
    pub(super) before_send: Option<BeforeSend>,
}

impl Shared {
    /// Hands a message to the shard of an execution. A shard that is gone (shutdown) swallows it: the row is the truth.
    pub(super) fn to_shard(&self, execution: ExecutionId, message: ShardMessage) {
        if let Some(shard) = self.shards.get().and_then(|s| s.get(usize::from(execution.shard()))) {
            let _ = shard.cast(message);
        }
    }

    /// Tells the channel of an account that a send may be waiting for it.
    pub(super) fn hint_channel(&self, account: AccountId, hint: SendHint) {
        self.backlog(account).hint(hint);
    }

    /// What an account has to do.
    pub(super) fn backlog(&self, account: AccountId) -> Arc<Backlog> {
        if let Some(backlog) = self.backlogs.get(&account) {
            return Arc::clone(&backlog);
        }
        Arc::clone(&self.backlogs.entry(account).or_insert_with(|| Backlog::new(account)))
    }

    /// The same for every account of an execution: which of them carries the send, its row tells.
    pub(super) fn hint_channels(&self, accounts: &ChannelAccounts, hint: SendHint) {
        for channel in Channel::ALL {
            if let Some(account) = accounts.get(*channel) {
                self.hint_channel(account, hint);
            }
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("residents", &self.residents).finish_non_exhaustive()
    }
}

/// A send that may be waiting. Only a hint: the channel reads the row.
pub(super) type SendHint = (WorkspaceId, SendId);
