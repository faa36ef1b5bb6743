//! One lane of the writer: takes what queued up, writes it, answers, and tries again when Postgres is away.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use metrics::{Counter, Histogram};
use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use tokio::sync::{mpsc, watch};

use super::batch::{self, Outcome};
use super::{Change, Committed, Job, Load};
use crate::domain::id::ExecutionId;
use crate::store::lease::LeaseView;
use crate::store::{Error, Pool, failed};
use crate::telemetry::{
    COMMIT_ROWS, COMMIT_SECONDS, Counters, ENDED, PERSIST_CONFLICTS, PERSIST_FAILURES, PERSIST_FENCED, TRANSITIONS,
};

/// First and longest pause between two tries of a batch.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// For the lane's connection only. The statement has many parts and looks everything up by key, so planning it each time is
/// a large share of a batch (measured with 8,000 executions and 15 partitions, debug build: 17,500 changes/s planned each
/// time, 26,700 planned once; with outcomes and identities 9,400 and 15,200). What was planned while the tables were empty
/// must still look up by key when they are not.
pub(in crate::store) const PLAN_ONCE: &str = "SELECT set_config('plan_cache_mode', 'force_generic_plan', false), \
    set_config('enable_seqscan', 'off', false), set_config('enable_mergejoin', 'off', false)";

/// A lane's state: one connection that it keeps, and what has to wait for the next batch.
pub(super) struct Lane {
    pool: Pool,
    lease: LeaseView,
    rows_max: usize,
    closing: watch::Receiver<bool>,
    connection: Option<PoolConnection<Postgres>>,
    /// Second changes of an execution: one statement cannot change a row twice.
    waiting: VecDeque<Job>,
    /// Which lane it is, and where it says what it has to do.
    load: (usize, Arc<Load>),
    meters: Meters,
}

/// What a lane counts, looked up once.
struct Meters {
    rows: Histogram,
    seconds: Histogram,
    made: Counters,
    ended: Counters,
    fenced: Counter,
    conflicts: Counter,
}

impl Meters {
    fn new() -> Self {
        Self {
            rows: metrics::histogram!(COMMIT_ROWS),
            seconds: metrics::histogram!(COMMIT_SECONDS),
            made: Counters::of(TRANSITIONS),
            ended: Counters::of(ENDED),
            fenced: metrics::counter!(PERSIST_FENCED, "writer" => "transition"),
            conflicts: metrics::counter!(PERSIST_CONFLICTS),
        }
    }

    fn count(&self, job: &Job, committed: Committed) {
        match committed {
            Committed::Done => {
                for made in &job.change.moves {
                    self.made.add(made.trigger.name(), 1);
                }
                let was_open = job.change.moves.first().is_some_and(|made| !made.from_status.is_final());
                if let Some(reason) =
                    job.change.next.exit_reason.filter(|_| was_open && job.change.next.status.is_final())
                {
                    self.ended.add(reason.as_str(), 1);
                }
                self.seconds.record(job.queued.elapsed().as_secs_f64());
            }
            Committed::LeaseLost => self.fenced.increment(1),
            Committed::Conflict => self.conflicts.increment(1),
            Committed::Closed => {}
        }
    }
}

impl Lane {
    pub(super) fn new(
        (pool, lease): (Pool, LeaseView),
        rows_max: usize,
        closing: watch::Receiver<bool>,
        load: (usize, Arc<Load>),
    ) -> Self {
        let (connection, waiting, meters) = (None, VecDeque::new(), Meters::new());
        Self { pool, lease, rows_max, closing, connection, waiting, load, meters }
    }

    /// Until the writer is closed, or all its handles are gone, and nothing is queued.
    pub(super) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Job>) {
        let mut taken = Vec::with_capacity(self.rows_max);
        let mut closing = self.closing.clone();
        let mut closed = false;
        loop {
            let room = self.rows_max.saturating_sub(self.waiting.len());
            if self.waiting.is_empty() {
                let received = tokio::select! {
                    biased;
                    received = queue.recv_many(&mut taken, self.rows_max) => received,
                    _ = closing.wait_for(|closing| *closing), if !closed => {
                        // No more is taken; what is queued is still written.
                        queue.close();
                        closed = true;
                        continue;
                    }
                };
                if received == 0 {
                    return;
                }
            } else {
                // What waits goes first; do not wait for more.
                while taken.len() < room
                    && let Ok(job) = queue.try_recv()
                {
                    taken.push(job);
                }
            }
            let batch = self.pick(taken.drain(..));
            self.write(batch).await;
        }
    }

    /// One change an execution, in the order they came; the others wait.
    fn pick(&mut self, taken: impl Iterator<Item = Job>) -> Vec<Job> {
        let mut seen = HashSet::new();
        let mut batch = Vec::new();
        let mut waiting = VecDeque::new();
        for job in self.waiting.drain(..).chain(taken) {
            if batch.len() < self.rows_max && seen.insert(job.change.next.id) {
                batch.push(job);
            } else {
                // Also keeps a third change of an execution behind its second.
                seen.insert(job.change.next.id);
                waiting.push_back(job);
            }
        }
        self.waiting = waiting;
        batch
    }

    async fn write(&mut self, batch: Vec<Job>) {
        self.load.1.mark(self.load.0, batch.iter().map(|job| job.queued).min());
        let changes: Vec<&Change> = batch.iter().map(|j| &*j.change).collect();
        let answers = match self.persist(&changes).await {
            Ok(outcome) => outcome,
            Err(None) => HashMap::new(),
            Err(Some(error)) => {
                tracing::warn!(%error, rows = changes.len(), "a batch is refused; writing its changes one by one");
                self.one_by_one(&changes).await
            }
        };
        self.load.1.mark(self.load.0, None);
        self.load.1.rows.fetch_sub(batch.len(), Relaxed);
        self.meters.rows.record(f64::from(u32::try_from(batch.len()).unwrap_or(u32::MAX)));
        for job in batch {
            let committed = answers.get(&job.change.next.id).copied().unwrap_or(Committed::Closed);
            self.meters.count(&job, committed);
            (job.answer)(committed);
        }
    }

    /// So that one change which Postgres refuses (a broken key, a value out of range) does not hold up its neighbours.
    async fn one_by_one(&mut self, changes: &[&Change]) -> HashMap<ExecutionId, Committed> {
        let mut answers = HashMap::new();
        for change in changes {
            match self.persist(std::slice::from_ref(change)).await {
                Ok(outcome) => answers.extend(outcome),
                Err(None) => {}
                Err(Some(error)) => {
                    tracing::error!(
                        execution = %change.next.id, version = change.next.version, trigger = change.trigger(), %error,
                        "postgres refuses a change; it is not written"
                    );
                    answers.insert(change.next.id, Committed::Conflict);
                }
            }
        }
        answers
    }

    /// Writes changes, again and again while Postgres is away. `Err(None)`: the writer was closed in the meantime.
    /// `Err(Some)`: Postgres refuses them.
    async fn persist(&mut self, changes: &[&Change]) -> Result<HashMap<ExecutionId, Committed>, Option<Error>> {
        let statement = batch::Batch::new(&self.lease, changes);
        let mut pause = RETRY_MIN;
        loop {
            let error = match self.attempt(&statement).await {
                Ok(outcome) => return Ok(answers(changes, &outcome)),
                Err(error) => error,
            };
            metrics::counter!(PERSIST_FAILURES, "class" => error.class()).increment(1);
            if !error.is_transient() {
                return Err(Some(error));
            }
            // It may be the connection that is broken; a new one costs a millisecond.
            self.connection = None;
            if *self.closing.borrow() {
                tracing::error!(%error, rows = changes.len(), "closing without having written a batch");
                return Err(None);
            }
            tracing::warn!(%error, rows = changes.len(), "cannot write a batch now; trying again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // One more try at once, then the branch above ends it.
                _ = self.closing.wait_for(|closing| *closing) => {}
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn attempt(&mut self, statement: &batch::Batch) -> Result<Outcome, Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            empty => {
                let what = failed("connecting to write transitions");
                let mut connection = self.pool.acquire().await.map_err(&what)?;
                // Not given back to the pool with these settings.
                connection.close_on_drop();
                sqlx::query(PLAN_ONCE).execute(&mut *connection).await.map_err(&what)?;
                empty.insert(connection)
            }
        };
        statement.run(connection).await
    }
}

fn answers(changes: &[&Change], outcome: &Outcome) -> HashMap<ExecutionId, Committed> {
    changes
        .iter()
        .map(|change| {
            let id = change.next.id;
            let committed = if outcome.moved.contains(&id.0) {
                Committed::Done
            } else if outcome.shards.contains(&id.shard()) {
                Committed::Conflict
            } else {
                Committed::LeaseLost
            };
            (id, committed)
        })
        .collect()
}
