//! Who owns the shards. Every write of an execution, and every claim of a send, is fenced by what is stored here.
//!
//! - `node`: one row a process that serves, with `lease_until`, by the *database's* clock only.
//! - `shard_lease`: one row a shard with owner, incarnation and epoch. A claim bumps the epoch; a write takes `FOR SHARE`
//!   on the row and goes nowhere unless all three match. That fence alone keeps a stale owner from writing; everything
//!   else here only decides how soon somebody may take over.
//! - A *liveness lock*: each node holds a session advisory lock, named by its id, on a connection kept for its life. When
//!   the process dies (kill -9 too) Postgres closes that session and drops the lock at once, so a restart need not wait
//!   for the rest of the TTL. A network cut or a restart of Postgres drops it too, while the holder lives: taking over
//!   then is early but safe, because of the fence. The lock never *grants* anything; it only tells that an owner is gone.
//!
//! The holder trusts its lease until `start of the last good renewal + TTL - margin` on its own monotonic clock; past that
//! it must stop acting, which [`Lease::lost`] tells.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};
use uuid::Uuid;

use super::{Error, Pool, failed};
use crate::domain::id::SHARDS;
use crate::telemetry::LEASE_RENEWALS;

/// How long a lease is good for after a renewal; what `acquire` is called with as a rule.
pub const TTL: Duration = Duration::from_secs(15);
/// Taken off the trust window for what a last call may take.
const MARGIN: Duration = Duration::from_secs(3);

const ENTER: &str = "INSERT INTO node (id, incarnation, lease_until, build) \
    VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, \
            clock_timestamp() + make_interval(secs => $2), $3) \
    RETURNING incarnation";
/// The seed of the hash keeps these locks apart from other uses of advisory locks in the same database.
const LOCK_LIVENESS: &str = "SELECT pg_try_advisory_lock(hashtextextended($1::text, 6161))";
/// In order, so that two claims cannot deadlock. Waits for the batches that hold FOR SHARE.
const LOCK_SHARDS: &str = "SELECT shard FROM shard_lease ORDER BY shard FOR UPDATE";
/// Owners that are alive: the lease has not run out, and the liveness lock is held. Trying the lock takes it (until the end
/// of our transaction) when nobody has it.
const LIVE_OWNER: &str = "SELECT o.owner, n.lease_until FROM ( \
        SELECT DISTINCT owner FROM shard_lease WHERE owner IS NOT NULL) o \
    JOIN node n ON n.id = o.owner \
    WHERE n.lease_until > clock_timestamp() \
    AND NOT pg_try_advisory_xact_lock(hashtextextended(o.owner::text, 6161)) \
    ORDER BY n.lease_until DESC LIMIT 1";
const CLAIM: &str = "UPDATE shard_lease SET owner = $1, incarnation = $2, epoch = epoch + 1 RETURNING shard, epoch";
/// Rows of processes that are long gone and own nothing.
const SWEEP: &str = "DELETE FROM node n WHERE n.lease_until < clock_timestamp() - interval '1 day' \
    AND NOT EXISTS (SELECT 1 FROM shard_lease l WHERE l.owner = n.id)";
const RENEW: &str = "WITH renewed AS ( \
        UPDATE node SET lease_until = clock_timestamp() + make_interval(secs => $3) \
        WHERE id = $1 AND incarnation = $2 RETURNING 1) \
    SELECT (SELECT count(*) FROM renewed) AS node, \
        (SELECT count(*) FROM shard_lease WHERE owner = $1 AND incarnation = $2) AS shards";
const RELEASE: &str = "WITH freed AS ( \
        UPDATE shard_lease SET owner = NULL, incarnation = NULL WHERE owner = $1 AND incarnation = $2 RETURNING 1) \
    DELETE FROM node WHERE id = $1 AND incarnation = $2";

/// One life of one process. The id is new at every start, so an older life can never be mistaken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Random.
    pub id: Uuid,
    /// The database's clock when the node entered, in microseconds.
    pub incarnation: i64,
}

/// What a write needs to pass the fence. Cheap to clone; says nothing about whether the lease still holds.
#[derive(Clone, Debug)]
pub struct LeaseView {
    node: Node,
    epochs: Arc<[i64; SHARDS as usize]>,
}

impl LeaseView {
    /// Nobody's: it passes no fence. For what does not reach Postgres.
    pub fn nobody() -> Self {
        Self { node: Node { id: Uuid::nil(), incarnation: 0 }, epochs: Arc::new([0; SHARDS as usize]) }
    }

    /// Whose lease it is.
    pub const fn node(&self) -> Node {
        self.node
    }

    /// The epoch at which a shard (`0..SHARDS`) was claimed.
    pub fn epoch(&self, shard: u16) -> i64 {
        self.epochs.get(usize::from(shard)).copied().unwrap_or(-1)
    }
}

/// Why the shards could not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// A live process owns them.
    #[error("another campaignd ({owner}) serves this database until {until} or longer; stop it first")]
    Held {
        /// Its node id.
        owner: Uuid,
        /// Its lease by the database's clock; it is renewed all the time.
        until: chrono::DateTime<chrono::Utc>,
    },
    /// The schema lacks rows of `shard_lease`.
    #[error("shard_lease has {0} rows instead of 1024; run `campaignd migrate`")]
    Incomplete(usize),
    /// Postgres could not be asked.
    #[error(transparent)]
    Store(#[from] Error),
}

/// All shards, held by this process and renewed by a task of its own.
#[derive(Debug)]
pub struct Lease {
    view: LeaseView,
    lost: watch::Receiver<bool>,
    trusted: watch::Receiver<Instant>,
    ttl: Duration,
    stop: watch::Sender<bool>,
    task: JoinHandle<Option<PgConnection>>,
    options: Arc<PgConnectOptions>,
}

impl Lease {
    /// Enters this process as a node and claims all shards, or none. Uses one connection of its own beside the pool's.
    /// `build` is shown to people; `ttl` is [`TTL`] outside tests.
    ///
    /// # Errors
    /// [`AcquireError::Held`] while a live process owns them: nothing was changed.
    pub async fn acquire(pool: &Pool, build: &str, ttl: Duration) -> Result<Self, AcquireError> {
        let what = "claiming the shards";
        let options = pool.connect_options();
        let mut connection = PgConnection::connect_with(&options).await.map_err(failed(what))?;
        let id = Uuid::new_v4();
        // Before the first statement that sets the lease's end: the trust window must not be longer than the lease.
        let started = Instant::now();
        let claimed = Self::claim(&mut connection, id, build, ttl).await;
        let view = match claimed {
            Ok(view) => view,
            Err(error) => {
                let _ = connection.close().await;
                return Err(error);
            }
        };
        let (lost_tx, lost) = watch::channel(false);
        let (stop, stop_rx) = watch::channel(false);
        let (trust, trusted) = watch::channel(started + trust_window(ttl));
        let options_of_task = Arc::clone(&options);
        let renewal =
            Renewal { view: view.clone(), ttl, options: options_of_task, lost: lost_tx, trust, stop: stop_rx };
        let task = tokio::spawn(renewal.run(connection, started));
        Ok(Self { view, lost, trusted, ttl, stop, task, options })
    }

    /// One transaction: the node row, the lock of liveness (which outlives the transaction), the shards.
    async fn claim(
        connection: &mut PgConnection,
        id: Uuid,
        build: &str,
        ttl: Duration,
    ) -> Result<LeaseView, AcquireError> {
        let what = failed("claiming the shards");
        let locked: bool =
            sqlx::query_scalar(LOCK_LIVENESS).bind(id.to_string()).fetch_one(&mut *connection).await.map_err(&what)?;
        debug_assert!(locked, "the id is new");
        // Looked at without locks first: a node that stands by must not get in the way of the one that serves.
        Self::refuse_if_held(&mut *connection).await?;
        let mut transaction = connection.begin().await.map_err(&what)?;
        sqlx::query(LOCK_SHARDS).fetch_all(&mut *transaction).await.map_err(&what)?;
        // Dropping the transaction rolls it back.
        Self::refuse_if_held(&mut transaction).await?;
        sqlx::query(SWEEP).execute(&mut *transaction).await.map_err(&what)?;
        let incarnation: i64 = sqlx::query_scalar(ENTER)
            .bind(id)
            .bind(ttl.as_secs_f64())
            .bind(build)
            .fetch_one(&mut *transaction)
            .await
            .map_err(&what)?;
        let rows = sqlx::query(CLAIM).bind(id).bind(incarnation).fetch_all(&mut *transaction).await.map_err(&what)?;
        if rows.len() != usize::from(SHARDS) {
            return Err(AcquireError::Incomplete(rows.len()));
        }
        let mut epochs = [0_i64; SHARDS as usize];
        for row in &rows {
            let (shard, epoch): (i16, i64) = (row.try_get(0).map_err(&what)?, row.try_get(1).map_err(&what)?);
            if let Some(slot) = usize::try_from(shard).ok().and_then(|s| epochs.get_mut(s)) {
                *slot = epoch;
            }
        }
        transaction.commit().await.map_err(&what)?;
        Ok(LeaseView { node: Node { id, incarnation }, epochs: Arc::new(epochs) })
    }

    async fn refuse_if_held(connection: &mut PgConnection) -> Result<(), AcquireError> {
        let what = failed("looking for a live owner");
        match sqlx::query(LIVE_OWNER).fetch_optional(connection).await.map_err(&what)? {
            Some(row) => {
                Err(AcquireError::Held { owner: row.try_get(0).map_err(&what)?, until: row.try_get(1).map_err(&what)? })
            }
            None => Ok(()),
        }
    }

    /// What writes need.
    pub fn view(&self) -> LeaseView {
        self.view.clone()
    }

    /// Whose lease this is.
    pub const fn node(&self) -> Node {
        self.view.node
    }

    /// The epoch at which a shard was claimed.
    pub fn epoch(&self, shard: u16) -> i64 {
        self.view.epoch(shard)
    }

    /// Turns true, for good, when this process must stop acting: somebody took over, or the lease could not be renewed in
    /// time.
    pub fn lost(&self) -> watch::Receiver<bool> {
        self.lost.clone()
    }

    /// Until when the lease is trusted without another renewal.
    pub fn trusted(&self) -> watch::Receiver<Instant> {
        self.trusted.clone()
    }

    /// How long a renewed lease is trusted.
    pub fn trust_window(&self) -> Duration {
        trust_window(self.ttl)
    }

    /// Gives the shards back, so that the next process can have them at once. Close the writer first.
    ///
    /// # Errors
    /// When Postgres cannot be asked: then the lease runs out by itself.
    pub async fn release(self) -> Result<(), Error> {
        let what = "releasing the shards";
        let _ = self.stop.send(true);
        let mut connection = match self.task.await {
            Ok(Some(connection)) => connection,
            _ => PgConnection::connect_with(&self.options).await.map_err(failed(what))?,
        };
        sqlx::query(RELEASE)
            .bind(self.view.node.id)
            .bind(self.view.node.incarnation)
            .execute(&mut connection)
            .await
            .map_err(failed(what))?;
        // Closing drops the lock of liveness.
        connection.close().await.map_err(failed(what))
    }
}

/// What a renewal found.
enum Renewed {
    Ours,
    TakenOver,
}

/// The connection that stands for the life of this process.
struct Alive {
    connection: PgConnection,
    /// Whether its session holds the lock of liveness.
    locked: bool,
}

/// The task that keeps the lease.
struct Renewal {
    view: LeaseView,
    ttl: Duration,
    options: Arc<PgConnectOptions>,
    lost: watch::Sender<bool>,
    trust: watch::Sender<Instant>,
    stop: watch::Receiver<bool>,
}

/// The margin is a fifth for a short TTL, as tests use.
fn trust_window(ttl: Duration) -> Duration {
    ttl - MARGIN.min(ttl / 5)
}

impl Renewal {
    /// Renews three times a TTL until told to stop (then it hands the connection back) or until the lease is lost.
    async fn run(mut self, connection: PgConnection, started: Instant) -> Option<PgConnection> {
        let [renewed, failed] = ["renewed", "failed"].map(|o| metrics::counter!(LEASE_RENEWALS, "outcome" => o));
        let mut connection = Some(Alive { connection, locked: true });
        let mut trusted = started + trust_window(self.ttl);
        let mut next = started + self.ttl / 3;
        loop {
            tokio::select! {
                () = sleep_until(next.min(trusted)) => {}
                // Also when the Lease was dropped without a release: the lock goes with the connection.
                _ = self.stop.changed() => return connection.map(|c| c.connection),
            }
            let attempt = Instant::now();
            if attempt >= trusted {
                return self.give_up("it could not be renewed in time");
            }
            // A connection that was cut off in the middle of a statement is of no use any more.
            match timeout_at(trusted, self.renew(connection.take())).await {
                Ok(Ok((used, Renewed::Ours))) => {
                    connection = Some(used);
                    trusted = attempt + trust_window(self.ttl);
                    self.trust.send_replace(trusted);
                    renewed.increment(1);
                    next = attempt + self.ttl / 3;
                }
                Ok(Ok((_, Renewed::TakenOver))) => return self.give_up("somebody else took over"),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "cannot renew the lease; trying again");
                    failed.increment(1);
                    next = Instant::now() + self.ttl / 15;
                }
                Err(_) => return self.give_up("it could not be renewed in time"),
            }
        }
    }

    fn give_up(&self, reason: &str) -> Option<PgConnection> {
        tracing::error!(node = %self.view.node.id, reason, "lost the lease of the shards");
        let _ = self.lost.send(true);
        None
    }

    async fn renew(&self, alive: Option<Alive>) -> Result<(Alive, Renewed), Error> {
        let what = failed("renewing the lease");
        let mut alive = match alive {
            Some(alive) => alive,
            None => {
                let connection = PgConnection::connect_with(&self.options).await.map_err(&what)?;
                Alive { connection, locked: false }
            }
        };
        if !alive.locked {
            // False while our cut-off session lingers at the server and holds it still: then the next renewal takes it.
            alive.locked = sqlx::query_scalar(LOCK_LIVENESS)
                .bind(self.view.node.id.to_string())
                .fetch_one(&mut alive.connection)
                .await
                .map_err(&what)?;
        }
        let row = sqlx::query(RENEW)
            .bind(self.view.node.id)
            .bind(self.view.node.incarnation)
            .bind(self.ttl.as_secs_f64())
            .fetch_one(&mut alive.connection)
            .await
            .map_err(&what)?;
        let (node, shards): (i64, i64) = (row.try_get(0).map_err(&what)?, row.try_get(1).map_err(&what)?);
        let ours = node == 1 && shards == i64::from(SHARDS);
        Ok((alive, if ours { Renewed::Ours } else { Renewed::TakenOver }))
    }
}
