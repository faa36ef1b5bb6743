//! The actors: one per prospect, one per account, a supervisor per virtual shard. The only room that knows ractor.
//!
//! [`start`] takes the lease, rebuilds everything from the table and answers a [`Runtime`]; the rest of the program holds
//! a [`Handle`]. One direction: `deliver -> shard -> prospect actor -> writer -> (commit) -> channel -> provider ->
//! deliver`. Persist, then adopt, then act: the row is the truth and every message is a hint.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorRef};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::clock::Clock;
use crate::domain::id::SHARDS;
use crate::provider::Provider;
use crate::store::lease::{AcquireError, Lease};
use crate::store::writer::{self, Writer};
use crate::store::{self, Pool, migrate, send};

mod backlog;
pub mod bare;
mod by_hand;
mod catch_up;
mod channel;
mod dispatch;
mod facts;
mod gather;
mod handle;
mod housekeeping;
mod inbox;
mod kept;
mod links;
mod loader;
mod mailbox;
mod mend;
mod meters;
mod note;
mod plan;
mod prospect;
mod request;
mod resolve;
mod roster;
mod sample;
mod settle;
mod shard;
mod shared;
mod spend;
mod thread;
mod unread;
mod wheel;
mod work;

use channel::ChannelMessage;
use gather::{Claims, Finds, Gatherer, Loads};
use handle::deliver_internal;
pub use handle::{DeliverError, Delivery, Handle, RuntimeStatus, Unready};
pub use inbox::api_trigger;
pub use links::Links;
use links::Unsubscribing;
pub use resolve::{ResolveError, Resolved};
use shard::{ShardMessage, ShardSupervisor};
use shared::Shared;
pub use shared::{BeforeSend, BeforeStep};
pub use unread::NewFact;

/// How long shutting down waits for provider calls and commits in flight.
const DRAIN_MAX: Duration = Duration::from_secs(25);
/// How often a node that waits for another's shards looks again.
const STANDBY_POLL: Duration = Duration::from_millis(500);

/// What a runtime is made of.
pub struct Options {
    /// Where the tables are.
    pub pool: Pool,
    /// Where the time comes from.
    pub clock: Clock,
    /// By the name that accounts refer to.
    pub providers: HashMap<String, Arc<dyn Provider>>,
    /// Triggers from outside that may be in flight at once.
    pub in_flight_max: usize,
    /// Timer firings that may be in flight at once.
    pub timers_max: usize,
    /// Live actors at most (9 KB each); beyond that the executions that sleep longest are parked: they cost a wake-up entry
    /// each, and are read back on their timer or on any trigger.
    pub resident_max: usize,
    /// How long the shards stay ours without a renewal.
    pub lease_ttl: Duration,
    /// How the writer groups commits.
    pub writer: writer::Options,
    /// Called with the rows read so far and how many there are, while everything is rebuilt.
    pub progress: Box<dyn Fn(u64, u64) + Send + Sync>,
    /// The links by which people unsubscribe; `None`: mails carry none.
    pub links: Option<Links>,
    /// Fault injection for tests.
    pub before_step: Option<BeforeStep>,
    /// Fault injection for tests.
    pub before_send: Option<BeforeSend>,
}

impl Options {
    /// The usual limits.
    pub fn new(pool: Pool, clock: Clock, providers: HashMap<String, Arc<dyn Provider>>) -> Self {
        Self {
            pool,
            clock,
            providers,
            in_flight_max: 16_384,
            timers_max: 8_192,
            resident_max: 1_000_000,
            lease_ttl: store::lease::TTL,
            writer: writer::Options::default(),
            progress: Box::new(|_, _| ()),
            links: None,
            before_step: None,
            before_send: None,
        }
    }
}

/// Why a runtime could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The tables cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The shards cannot be claimed.
    #[error(transparent)]
    Lease(#[from] AcquireError),
    /// An actor did not start.
    #[error("cannot start the actors: {0}")]
    Actors(String),
}

/// A running runtime. Stop it with [`Runtime::shutdown`]; dropping it without leaves the lease to run out.
pub struct Runtime {
    handle: Handle,
    lease: Lease,
    shards: Vec<ActorRef<ShardMessage>>,
    tasks: Vec<AbortHandle>,
}

/// Takes over a migrated database: claims the shards (waiting while another live node holds them), starts the actors of
/// the accounts with their open sends, and begins to rebuild every open execution of the active campaigns from the table.
/// Answers as soon as triggers can be taken; [`Handle::status`] tells when everything is resident. What is due starts as
/// it is read.
///
/// # Errors
/// See [`StartError`].
pub async fn start(options: Options) -> Result<Runtime, StartError> {
    let lease = acquire(&options).await?;
    let started = options.clock.now();
    let view = lease.view();
    migrate::ensure_partitions(&options.pool, started, migrate::MONTHS_AHEAD).await?;
    send::reopen_stale_gates(&options.pool, &view, started).await?;
    // What a process before this one could not do, this one has not tried yet.
    send::let_go_accounts(&options.pool, None).await?;
    catch_up::hold_behind(&options, started).await?;
    let (loader, requests) = mpsc::unbounded_channel();
    let (handed, handed_over) = mpsc::channel(inbox::HANDED_MAX);
    let shared = Arc::new(Shared {
        backlogs: dashmap::DashMap::new(),
        loads: Gatherer::new(Loads(options.pool.clone())),
        claims: Gatherer::new(Claims(options.pool.clone(), view.clone())),
        finds: Gatherer::new(Finds(options.pool.clone())),
        writer: Writer::start(options.pool.clone(), view.clone(), options.writer),
        roster: roster::Roster::new(options.pool.clone()),
        pool: options.pool,
        clock: options.clock,
        lease: view,
        providers: options.providers,
        shards: std::sync::OnceLock::new(),
        mailboxes: mailbox::Mailboxes::new(),
        channels: dashmap::DashMap::new(),
        in_flight: dashmap::DashMap::new(),
        loader,
        loading: 0.into(),
        loaded: tokio::sync::Notify::new(),
        admission: Arc::new(Semaphore::new(options.in_flight_max)),
        timers: Arc::new(Semaphore::new(options.timers_max)),
        scanned: Arc::new(Semaphore::new(shared::SCANNED_MAX as usize)),
        residents: 0.into(),
        resident_max: options.resident_max as u64,
        parked: 0.into(),
        lateness: metrics::histogram!(crate::telemetry::TIMER_LATENESS_SECONDS),
        meters: meters::Meters::new(),
        ready: false.into(),
        draining: false.into(),
        lease_lost: false.into(),
        account_status: tokio::sync::Mutex::new(()),
        releases: 0.into(),
        keys: mend::RefusedKeys::default(),
        bells: catch_up::Bells::default(),
        inbox: tokio::sync::Notify::new(),
        handed,
        handed_over: tokio::sync::Mutex::new(handed_over),
        unread: unread::Unread::new(),
        arrivals: tokio::sync::Notify::new(),
        roster_changed: tokio::sync::Notify::new(),
        resolving: tokio::sync::Mutex::new(()),
        traces: kept::Kept::default(),
        answering: kept::Kept::default(),
        seen: watch::Sender::default(),
        unsubscribing: Unsubscribing::new(options.links),
        before_step: options.before_step,
        before_send: options.before_send,
    });
    let mut shards = Vec::with_capacity(usize::from(SHARDS));
    for number in 0..SHARDS {
        let (shard, _) = ShardSupervisor::spawn(None, ShardSupervisor, (Arc::clone(&shared), number))
            .await
            .map_err(|e| StartError::Actors(e.to_string()))?;
        shards.push(shard);
    }
    // Set once, here: nobody has seen `shared` before.
    let _ = shared.shards.set(shards.clone());

    let mut tasks = vec![tokio::spawn(loader::run(Arc::clone(&shared), requests)).abort_handle()];
    tasks.extend([
        keep("loads", &shared, gather::loads),
        keep("claims", &shared, gather::claims),
        keep("finds", &shared, gather::finds),
    ]);
    tasks.extend([
        keep("probe", &shared, sample::probe),
        keep("tables", &shared, sample::tables),
        tokio::spawn(sample::lease(Arc::clone(&shared), lease.trusted(), lease.trust_window())).abort_handle(),
    ]);
    // Accounts, and with them the sends that are open, come before the prospects: what was in flight is settled first.
    housekeeping::refresh(&shared, false).await?;
    let unlimited = shared.roster.accounts().iter().filter(|a| a.budget.is_none()).count();
    if unlimited > 0 {
        tracing::warn!(
            accounts = unlimited,
            "accounts without a budget: nothing but their least gap keeps them from being \
            blocked. Unless they are meant to be unlimited, give each a kind: PATCH /v1/accounts/ID {{\"limits\": {{\"kind\": ..}}}}"
        );
    }
    tasks.extend([
        tokio::spawn(rehydrate(Arc::clone(&shared), options.progress)).abort_handle(),
        keep("listen", &shared, housekeeping::listen),
        keep("arrivals", &shared, housekeeping::arrivals),
        keep("roster", &shared, housekeeping::roster),
        keep("watch", &shared, housekeeping::watch),
        keep("inbox", &shared, inbox::run),
        keep("catch_up", &shared, catch_up::run),
        keep("mend", &shared, mend::run),
        tokio::spawn(stand_down(Arc::clone(&shared), lease.lost())).abort_handle(),
    ]);
    shared.arrivals.notify_one();
    shared.inbox.notify_one();
    Ok(Runtime { handle: Handle { shared }, lease, shards, tasks })
}

/// Runs a background loop until it ends by itself, and starts it again when it crashes.
fn keep<F>(name: &'static str, shared: &Arc<Shared>, run: fn(Arc<Shared>) -> F) -> AbortHandle
where
    F: Future<Output = ()> + Send + 'static,
{
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        // Aborts the loop when this task is aborted.
        let mut running = JoinSet::new();
        loop {
            running.spawn(run(Arc::clone(&shared)));
            match running.join_next().await {
                Some(Err(crash)) if crash.is_panic() => {
                    tracing::error!(task = name, %crash, "a background task crashed; starting it again");
                    metrics::counter!(crate::telemetry::ACTOR_RESTARTS).increment(1);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                _ => return,
            }
        }
    })
    .abort_handle()
}

/// Reads everything back, as often as it takes: what was read before a failure stays resident and is passed over.
#[expect(clippy::cast_precision_loss, reason = "a gauge of a count")]
async fn rehydrate(shared: Arc<Shared>, progress: Box<dyn Fn(u64, u64) + Send + Sync>) {
    let (begun, expected) = (Instant::now(), metrics::gauge!(crate::telemetry::REHYDRATION_EXPECTED));
    metrics::gauge!(crate::telemetry::REHYDRATION_SECONDS).set(0.0);
    let progress = move |read, all: u64| {
        expected.set(all as f64);
        progress(read, all);
    };
    loop {
        match loader::rehydrate(&shared, &progress).await {
            Ok(read) => {
                tracing::info!(
                    executions = read,
                    residents = shared.residents.load(Relaxed),
                    parked = shared.parked.load(Relaxed),
                    "everything is read back"
                );
                metrics::gauge!(crate::telemetry::REHYDRATION_SECONDS).set(begun.elapsed().as_secs_f64());
                shared.ready.store(true, Relaxed);
                return;
            }
            Err(error) => {
                tracing::error!(%error, "cannot read the executions back; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Once the lease is lost nothing is begun any more: writes and claims are fenced, but what arrives, reads back and timers
/// are the new owner's as well.
async fn stand_down(shared: Arc<Shared>, mut lost: watch::Receiver<bool>) {
    if lost.wait_for(|lost| *lost).await.is_ok() {
        shared.lease_lost.store(true, Relaxed);
        shared.draining.store(true, Relaxed);
        shared.ready.store(false, Relaxed);
    }
}

async fn acquire(options: &Options) -> Result<Lease, StartError> {
    let mut said = false;
    loop {
        match Lease::acquire(&options.pool, env!("CARGO_PKG_VERSION"), options.lease_ttl).await {
            Ok(lease) => return Ok(lease),
            Err(AcquireError::Held { owner, until }) => {
                if !said {
                    tracing::warn!(owner.id = %owner, %until,
                        "another campaignd serves this database; standing by until it stops");
                    said = true;
                }
                tokio::time::sleep(STANDBY_POLL).await;
            }
            Err(other) => return Err(other.into()),
        }
    }
}

impl Runtime {
    /// A handle for the rest of the program.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Turns true when another node has taken over, or the lease could not be renewed: stop at once.
    pub fn lost(&self) -> watch::Receiver<bool> {
        self.lease.lost()
    }

    /// Takes no more triggers, lets provider calls and commits in flight end (25 s at most), writes what is left and gives
    /// the shards back. Answers whether everything in flight came to its end.
    pub async fn shutdown(self) -> bool {
        let shared = &self.handle.shared;
        shared.draining.store(true, Relaxed);
        shared.ready.store(false, Relaxed);
        let drained = tokio::time::timeout(DRAIN_MAX, self.drain()).await.is_ok();
        if !drained {
            tracing::warn!("some provider calls did not end in time; they are settled at the next start");
        }
        for task in &self.tasks {
            task.abort();
        }
        shared.loads.close();
        shared.claims.close();
        shared.finds.close();
        shared.writer.close().await;
        for channel in &shared.channels {
            channel.stop(None);
        }
        let mut stopping = JoinSet::new();
        for shard in self.shards {
            stopping.spawn(async move {
                shard.stop_children_and_wait(None, None).await;
                let _ = shard.stop_and_wait(None, None).await;
            });
        }
        while stopping.join_next().await.is_some() {}
        if let Err(error) = self.lease.release().await {
            tracing::warn!(%error, "cannot give the shards back; they are free when the lease runs out");
        }
        drained
    }

    /// Channels first: a provider call that ends still has to be recorded by its prospect.
    async fn drain(&self) {
        let mut waits = Vec::new();
        for channel in &self.handle.shared.channels {
            let (answer, wait) = oneshot::channel();
            if channel.cast(ChannelMessage::Drain(answer)).is_ok() {
                waits.push(wait);
            }
        }
        for wait in waits.drain(..) {
            let _ = wait.await;
        }
        for shard in 0..SHARDS {
            let (answer, wait) = oneshot::channel();
            self.handle.shared.tell(shard, ShardMessage::Drain(answer));
            // One that is gone drops the answer.
            waits.push(wait);
        }
        for wait in waits {
            let _ = wait.await;
        }
    }
}
