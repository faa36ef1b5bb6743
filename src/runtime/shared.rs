//! What all actors share.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use ractor::ActorRef;
use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::backlog::{Backlog, Slot};
use super::catch_up::Bells;
use super::channel::ChannelMessage;
use super::gather::{Claims, Finds, Gatherer, Loads};
use super::kept::Kept;
use super::links::Unsubscribing;
use super::mailbox::Mailboxes;
use super::mend::RefusedKeys;
use super::meters::Meters;
use super::roster::Roster;
use super::sample::Seen;
use super::shard::ShardMessage;
use super::unread::Unread;
use crate::clock::Clock;
use crate::domain::account::Channel;
use crate::domain::execution::Execution;
use crate::domain::id::{AccountId, ExecutionId, SHARDS, SendId, WorkspaceId};
use crate::domain::trigger::Trigger;
use crate::provider::Provider;
use crate::store::Pool;
use crate::store::inbox::Inbox;
use crate::store::lease::LeaseView;
use crate::store::writer::Writer;
use crate::telemetry::trace::Context;

/// Rows of a scan that may be on their way to their shards at once: some tens of megabytes.
pub(super) const SCANNED_MAX: u32 = 32_768;

/// Rows to be read beyond which long lists wait.
const LOADING_MAX: usize = 16_384;
/// How often it is looked whether that has changed, should the bell have been missed.
const LOADING_LOOK: Duration = Duration::from_millis(50);

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
    /// What waits in them.
    pub(super) mailboxes: Mailboxes,
    pub(super) channels: DashMap<AccountId, ActorRef<ChannelMessage>>,
    /// What each account has to do. Outlives a crashed channel actor.
    pub(super) backlogs: DashMap<AccountId, Arc<Backlog>>,
    /// Reads and claims of sends, of all accounts together.
    pub(super) loads: Gatherer<Loads>,
    pub(super) claims: Gatherer<Claims>,
    /// Look-ups of facts.
    pub(super) finds: Gatherer<Finds>,
    /// The send whose provider call is running, by account. Outlives a crashed channel actor.
    pub(super) in_flight: DashMap<AccountId, SendId>,
    /// Executions to be read from the table and handed to their shard.
    pub(super) loader: mpsc::UnboundedSender<ExecutionId>,
    /// How many of those there are, and a bell that rings when there are fewer.
    pub(super) loading: AtomicUsize,
    pub(super) loaded: Notify,
    /// Triggers from outside that may be in flight; bounds every mailbox.
    pub(super) admission: Arc<Semaphore>,
    /// Timer firings that may be in flight, apart from the above, so that a flood of triggers does not stop time.
    pub(super) timers: Arc<Semaphore>,
    /// Bounds what a scan reads ahead of the shards.
    pub(super) scanned: Arc<Semaphore>,
    /// Live actors, and how many there may be.
    pub(super) residents: AtomicU64,
    pub(super) resident_max: u64,
    /// Wake-ups of executions without a live actor.
    pub(super) parked: AtomicU64,
    /// How late timers fire.
    pub(super) lateness: metrics::Histogram,
    /// What else is counted on the way.
    pub(super) meters: Meters,
    pub(super) ready: AtomicBool,
    pub(super) draining: AtomicBool,
    pub(super) lease_lost: AtomicBool,
    /// Status changes of accounts are applied one after the other, in the order they came in.
    pub(super) account_status: Mutex<()>,
    /// How often what was held has been released: whoever looked before the last time has to look again.
    pub(super) releases: AtomicU64,
    /// Providers that refuse our key.
    pub(super) keys: RefusedKeys,
    /// Rung when an account's lists are to be read at once.
    pub(super) bells: Bells,
    /// There are facts in the table that were not looked at.
    pub(super) inbox: Notify,
    /// Facts that were just stored, for the inbox, which reads those from the table for which there is no room here.
    pub(super) handed: mpsc::Sender<Inbox>,
    pub(super) handed_over: Mutex<mpsc::Receiver<Inbox>>,
    /// Facts that have not reached those they are about.
    pub(super) unread: Unread,
    pub(super) arrivals: Notify,
    pub(super) roster_changed: Notify,
    /// People who decide sends take turns.
    pub(super) resolving: Mutex<()>,
    /// Traces that go on with a send which has not ended.
    pub(super) traces: Kept<Context>,
    /// When the commit was that decided a send because of a fact from outside, until its provider is called.
    pub(super) answering: Kept<Instant>,
    /// What the prober saw of the database last.
    pub(super) seen: watch::Sender<Option<Seen>>,
    /// The links of mails.
    pub(super) unsubscribing: Unsubscribing,
    pub(super) before_step: Option<BeforeStep>,
    pub(super) before_send: Option<BeforeSend>,
}

impl Shared {
    /// Hands a message to the shard of an execution. A shard that is gone (shutdown) swallows it: the row is the truth.
    pub(super) fn to_shard(&self, execution: ExecutionId, message: ShardMessage) {
        self.tell(execution.shard(), message);
    }

    /// Hands a message to a shard.
    pub(super) fn tell(&self, shard: u16, message: ShardMessage) {
        if let Some(actor) = self.shards.get().and_then(|s| s.get(usize::from(shard))) {
            self.mailboxes.sent(shard);
            let _ = actor.cast(message);
        }
    }

    /// Hands a message to every shard.
    pub(super) fn tell_all(&self, message: impl Fn() -> ShardMessage) {
        (0..SHARDS).for_each(|shard| self.tell(shard, message()));
    }

    /// Tells every account of an execution that a send may be waiting for it: which of them carries it, its row tells.
    pub(super) fn hint_channels(&self, execution: &Execution, slot: Slot, hint: SendHint) {
        for channel in Channel::ALL {
            if let Some(account) = execution.accounts.get(*channel) {
                self.backlog(account).hint(slot, hint);
            }
        }
    }

    /// What an account has to do. Made on demand: a hint may come before the account's channel has started.
    pub(super) fn backlog(&self, account: AccountId) -> Arc<Backlog> {
        if let Some(backlog) = self.backlogs.get(&account) {
            return Arc::clone(&backlog);
        }
        Arc::clone(&self.backlogs.entry(account).or_insert_with(|| Backlog::new(account)))
    }

    /// Whether there are as many live actors as there may be.
    pub(super) fn is_full(&self) -> bool {
        self.residents.load(Relaxed) >= self.resident_max
    }

    /// Whether there are more live actors than there may be.
    pub(super) fn is_crowded(&self) -> bool {
        self.residents.load(Relaxed) > self.resident_max
    }

    /// Has the row of an execution read and handed to its shard.
    pub(super) fn load(&self, execution: ExecutionId) {
        self.loading.fetch_add(1, Relaxed);
        let _ = self.loader.send(execution);
    }

    /// Waits while very many rows are still to be read: who has a long list hands it over bit by bit.
    pub(super) async fn room_to_load(&self) {
        while self.loading.load(Relaxed) > LOADING_MAX && !self.is_draining() {
            // The bell may have rung just before.
            let _ = tokio::time::timeout(LOADING_LOOK, self.loaded.notified()).await;
        }
    }

    /// Waits until the shards have room for so many rows of a scan. `None` only when nobody takes them any more.
    pub(super) async fn scan_permit(&self, rows: usize) -> Option<OwnedSemaphorePermit> {
        let rows = u32::try_from(rows).unwrap_or(SCANNED_MAX).min(SCANNED_MAX);
        Arc::clone(&self.scanned).acquire_many_owned(rows).await.ok()
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

/// What a scripted runtime asks of its loader, and of its writer.
#[cfg(test)]
type Asked = (
    mpsc::UnboundedReceiver<ExecutionId>,
    mpsc::UnboundedReceiver<(Box<crate::store::writer::Change>, crate::store::writer::Answer)>,
);

#[cfg(test)]
impl Shared {
    /// For tests: without a database, a loader or a writer; the test plays them.
    pub(super) fn scripted(clock: Clock, resident_max: u64) -> (Arc<Self>, Asked) {
        let pool = crate::store::imagined();
        let (loader, requests) = mpsc::unbounded_channel();
        let (handed, handed_over) = mpsc::channel(1);
        let (writer, changes) = Writer::scripted();
        let lease = LeaseView::nobody();
        let shared = Self {
            roster: Roster::new(pool.clone()),
            loads: Gatherer::new(Loads(pool.clone())),
            claims: Gatherer::new(Claims(pool.clone(), lease.clone())),
            finds: Gatherer::new(Finds(pool.clone())),
            pool,
            clock,
            lease,
            writer,
            providers: HashMap::new(),
            shards: OnceLock::new(),
            mailboxes: Mailboxes::new(),
            channels: DashMap::new(),
            backlogs: DashMap::new(),
            in_flight: DashMap::new(),
            loader,
            loading: 0.into(),
            loaded: Notify::new(),
            admission: Arc::new(Semaphore::new(1024)),
            timers: Arc::new(Semaphore::new(1024)),
            scanned: Arc::new(Semaphore::new(SCANNED_MAX as usize)),
            residents: 0.into(),
            resident_max,
            parked: 0.into(),
            lateness: metrics::histogram!(crate::telemetry::TIMER_LATENESS_SECONDS),
            meters: Meters::new(),
            ready: false.into(),
            draining: false.into(),
            lease_lost: false.into(),
            account_status: Mutex::new(()),
            releases: 0.into(),
            keys: RefusedKeys::default(),
            bells: Bells::default(),
            inbox: Notify::new(),
            handed,
            handed_over: Mutex::new(handed_over),
            unread: Unread::new(),
            arrivals: Notify::new(),
            roster_changed: Notify::new(),
            resolving: Mutex::new(()),
            traces: Kept::default(),
            answering: Kept::default(),
            seen: watch::Sender::default(),
            unsubscribing: Unsubscribing::new(None),
            before_step: None,
            before_send: None,
        };
        (Arc::new(shared), (requests, changes))
    }
}
