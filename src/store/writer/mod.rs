//! The writer: the one way in which an execution changes. Group commit over a few lanes.
//!
//! A lane takes whatever queued up while its last commit ran (no fixed delay: a lone change pays one commit, a burst shares
//! one), writes it as one statement, and answers each caller after the commit. The statement is fenced by the shard lease and
//! guarded by each row's `version`; transition, sends, cancellations, outcomes, gates and identities go with it or not at
//! all. A lane is chosen by shard, so that a lease row is share-locked by one lane at a time.
//!
//! What a caller gets is one of [`Committed`]. A lost answer of Postgres (was it committed?) shows up as `Conflict` when the
//! batch is written again: the version has moved, by ourselves or not, and the caller reads the row again either way.
//!
//! Called by `runtime`; `statement` holds the SQL, `batch` what it is given, `lane` the loop.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Pool;
use super::lease::LeaseView;
use crate::domain::execution::{Execution, Status};
use crate::domain::id::{AccountId, SendId};
use crate::domain::send::{FailureClass, Receipt, SendIntent, SendStatus};
use crate::domain::time::Timestamp;
use crate::domain::trigger::Trigger;

mod batch;
mod lane;
mod statement;

pub(in crate::store) use batch::Batch;
pub(in crate::store) use lane::PLAN_ONCE;

/// One durable change of an execution: one transition, or several that were decided one after the other, with everything
/// that must be durable together with them. One row update, one commit, and a row of history a transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The state after all of it. Its `version` is the stored one plus one a move: that is the guard.
    pub next: Execution,
    /// The id of the step that `next.current_step` is, for people; `None` past the last step.
    pub step_id: Option<String>,
    /// When it was decided; becomes `updated_at` and the `at` of each transition.
    pub at: Timestamp,
    /// Its transitions, in order; at least one. Their versions are consecutive, and the last one's is `next.version`.
    pub moves: Vec<Move>,
    /// Sends decided by it. None of them may be in `cancel` or `finish`: those are about rows that are there already.
    pub sends: Vec<NewSend>,
    /// Sends taken back by it, if they are still pending: one that was claimed in the meantime goes on, and its outcome
    /// arrives as a trigger of its own.
    pub cancel: Vec<SendId>,
    /// Sends that it gives an outcome.
    pub finish: Vec<Finish>,
}

impl Change {
    /// The version that its first transition makes.
    fn first_version(&self) -> i64 {
        self.guard() + 1
    }

    /// The version that the row must have for it to be written.
    fn guard(&self) -> i64 {
        self.next.version - i64::try_from(self.moves.len()).unwrap_or(i64::MAX)
    }

    /// What caused it first, for logs.
    fn trigger(&self) -> &'static str {
        self.moves.first().map_or("none", |m| m.trigger.name())
    }
}

/// One transition of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// What caused it.
    pub trigger: Trigger,
    /// The status before it.
    pub from_status: Status,
    /// The step before it.
    pub from_step: u32,
    /// The status after it.
    pub to_status: Status,
    /// The step after it.
    pub to_step: u32,
}

/// A send to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSend {
    /// What was decided.
    pub intent: SendIntent,
    /// Through which account.
    pub account: AccountId,
}

/// The outcome of a send. Moves it only from `pending`, `dispatching` or `unknown`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// Which.
    pub send: SendId,
    /// `Sent` and `Failed` end it; `Unknown` keeps it to be read back; `Pending` puts it back to be claimed again, and its
    /// reads back count anew.
    pub status: SendStatus,
    /// Reading back was given up: it waits for a person.
    pub parked: bool,
    /// Why it failed.
    pub class: Option<FailureClass>,
    /// For people.
    pub error: Option<String>,
    /// What the provider handed back, or what was learnt all the same. Its ids become identities, if `account` is set.
    pub receipt: Option<Receipt>,
    /// Through which account it went. Needed for identities and for the gate.
    pub account: Option<AccountId>,
    /// The account sends nothing before that; never moves its gate's time back.
    pub rest_until: Option<Timestamp>,
    /// Open the account's gate, if this send is the one in flight.
    pub open_gate: bool,
    /// The account does nothing of this kind (or `all`) before that: kept in the gate beside its history.
    pub brake: Option<(&'static str, Timestamp)>,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Durable: adopt `next`, then act.
    Done,
    /// Not written: the row's version is not the one that the change was decided on any more, or Postgres refuses this very change. Read the
    /// row again.
    Conflict,
    /// Not written: the shard belongs to somebody else.
    LeaseLost,
    /// The writer was closed first. Written or not: unknown.
    Closed,
}

/// How the writer works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Lanes, each with one connection that it keeps.
    pub lanes: usize,
    /// Most changes in one statement.
    pub rows_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { lanes: 2, rows_max: 512 }
    }
}

/// Gets what became of a change; called once, from a lane's task, so it must not block.
pub type Answer = Box<dyn FnOnce(Committed) + Send>;

/// A change on its way.
struct Job {
    change: Box<Change>,
    answer: Answer,
    queued: Instant,
}

/// A handle to the lanes. Dropping it without [`Writer::close`] lets the lanes finish what is queued on their own.
pub struct Writer {
    lanes: Vec<mpsc::UnboundedSender<Job>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    closing: watch::Sender<bool>,
    load: Arc<Load>,
}

/// What the lanes have to do, for the gauges.
struct Load {
    /// Times below are told from here on.
    since: Instant,
    /// Changes that were handed over and are not answered.
    rows: AtomicUsize,
    /// A lane: when the oldest change in its hands was handed over, in microseconds from `since`; 0 when it has none.
    oldest: Vec<AtomicU64>,
}

impl Load {
    fn of_lanes(lanes: usize) -> Arc<Self> {
        let oldest = (0..lanes).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { since: Instant::now(), rows: AtomicUsize::new(0), oldest })
    }

    fn mark(&self, lane: usize, oldest: Option<Instant>) {
        let Some(mark) = self.oldest.get(lane) else { return };
        let micros =
            |at: Instant| u64::try_from(at.saturating_duration_since(self.since).as_micros()).unwrap_or(u64::MAX);
        mark.store(oldest.map_or(0, |at| micros(at).max(1)), Relaxed);
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("lanes", &self.lanes.len()).finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts the lanes. They take [`Options::lanes`] connections of the pool for good, so the pool must be larger.
    pub fn start(pool: Pool, lease: LeaseView, options: Options) -> Self {
        let (closing, _) = watch::channel(false);
        let mut lanes = Vec::new();
        let mut tasks = Vec::new();
        let load = Load::of_lanes(options.lanes.max(1));
        for n in 0..options.lanes.max(1) {
            let (tx, rx) = mpsc::unbounded_channel();
            let to = (pool.clone(), lease.clone());
            let lane = lane::Lane::new(to, options.rows_max.max(1), closing.subscribe(), (n, Arc::clone(&load)));
            tasks.push(tokio::spawn(lane.run(rx)));
            lanes.push(tx);
        }
        Self { lanes, tasks: Mutex::new(tasks), closing, load }
    }

    /// Changes that were handed over and are not durable yet, and how long the oldest of them waits.
    pub fn waiting(&self) -> (usize, Duration) {
        let marks = self.load.oldest.iter().map(|mark| mark.load(Relaxed)).filter(|mark| *mark > 0);
        let oldest = marks.min().map(|micros| self.load.since + Duration::from_micros(micros));
        (self.load.rows.load(Relaxed), oldest.map_or(Duration::ZERO, |at| at.elapsed()))
    }

    /// For tests: a writer that is played by whoever takes the changes from the channel.
    #[cfg(test)]
    pub(crate) fn scripted() -> (Self, mpsc::UnboundedReceiver<(Box<Change>, Answer)>) {
        let (lane, mut jobs) = mpsc::unbounded_channel::<Job>();
        let (play, changes) = mpsc::unbounded_channel();
        let (closing, _) = watch::channel(false);
        let task = tokio::spawn(async move {
            while let Some(job) = jobs.recv().await {
                let _ = play.send((job.change, job.answer));
            }
        });
        (Self { lanes: vec![lane], tasks: Mutex::new(vec![task]), closing, load: Load::of_lanes(1) }, changes)
    }

    /// Queues a change. Never blocks: how much may be queued is for the caller to bound. `answer` is called in any case,
    /// also with [`Committed::Closed`] when the writer is closed.
    pub fn commit(&self, change: Box<Change>, answer: Answer) {
        let lane = usize::from(change.next.id.shard()) % self.lanes.len();
        let job = Job { change, answer, queued: Instant::now() };
        match self.lanes.get(lane) {
            Some(lane) => {
                self.load.rows.fetch_add(1, Relaxed);
                if let Err(mpsc::error::SendError(job)) = lane.send(job) {
                    self.load.rows.fetch_sub(1, Relaxed);
                    (job.answer)(Committed::Closed);
                }
            }
            None => (job.answer)(Committed::Closed),
        }
    }

    /// Writes what is queued and ends the lanes. While Postgres is away nothing is waited for: what could not be written
    /// is answered [`Committed::Closed`], as is every change from then on.
    pub async fn close(&self) {
        // A watch without receivers: the lanes have ended already.
        let _ = self.closing.send(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // A lane that panicked has dropped its answers; there is nothing left to wait for.
            let _ = task.await;
        }
    }
}
