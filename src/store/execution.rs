//! Reading executions: by id, all open ones at a start, and the ones other programs have just inserted.
//!
//! Owns the reads of `campaign_prospect_execution_state` and `execution_arrivals`. Every change of an execution goes
//! through [`super::writer`] instead; the one exception here is [`mark_unrunnable`], which leaves a note for people on a
//! row that no actor can be made of. Called by `runtime`.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use sqlx::Row as _;
use sqlx::postgres::{PgListener, PgPoolOptions, PgRow};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::lease::LeaseView;
use super::row::{Columns, select_execution};
use super::{Error, Pool, clean, failed};
use crate::domain::execution::Execution;
use crate::domain::id::{CampaignId, ExecutionId, ProspectId, WorkspaceId};
use crate::domain::time::Timestamp;

const LOAD: &str = select_execution!("WHERE s.id = ANY($1)");
const STREAM_OPEN: &str =
    select_execution!("WHERE s.status IS DISTINCT FROM 'completed' AND s.status IS DISTINCT FROM 'failed'");
const COUNT_OPEN: &str = "SELECT count(*) FROM campaign_prospect_execution_state s \
    WHERE s.status IS DISTINCT FROM 'completed' AND s.status IS DISTINCT FROM 'failed'";
const OPEN_OF_CAMPAIGN: &str = "SELECT s.id FROM campaign_prospect_execution_state s WHERE s.campaign_id = $1 \
    AND s.status IS DISTINCT FROM 'completed' AND s.status IS DISTINCT FROM 'failed'";
const OF_PROSPECT: &str = "SELECT s.id FROM campaign_prospect_execution_state s \
    JOIN campaign_prospects p ON p.id = s.prospect_id AND p.campaign_id = s.campaign_id \
    JOIN campaigns c ON c.id = s.campaign_id WHERE p.id = $2 AND c.workspace_id = $1";
// Whether a shard is ours is an element of an array that is read once, by the shard's number: a join would look every row
// up, and would do so for all that wait before the first is handed over. In the order of the primary key, which for our own
// ids is that of time, behind what was handed over last: in front lies what was struck off.
const ARRIVALS: &str = "SELECT a.execution_id, s.campaign_id FROM execution_arrivals a \
    LEFT JOIN campaign_prospect_execution_state s ON s.id = a.execution_id \
    WHERE a.execution_id > $4 \
      AND (ARRAY(SELECT coalesce(l.owner = $2 AND l.incarnation = $3, false) FROM shard_lease l ORDER BY l.shard)) \
          [campaignd_shard(a.execution_id) + 1] \
    ORDER BY a.execution_id LIMIT $1";
const FORGET_ARRIVALS: &str = "DELETE FROM execution_arrivals a WHERE a.execution_id = ANY($1) \
      AND (ARRAY(SELECT coalesce(l.owner = $2 AND l.incarnation = $3, false) FROM shard_lease l ORDER BY l.shard)) \
          [campaignd_shard(a.execution_id) + 1]";
const MARK_UNRUNNABLE: &str = "UPDATE campaign_prospect_execution_state s SET last_error = m.reason \
    FROM unnest($1::uuid[], $2::text[]) AS m(id, reason) \
    WHERE s.id = m.id AND s.last_error IS DISTINCT FROM m.reason";
/// A long read must outlive the pool's statement timeout: with a million rows the reader is the slower side. And it reads
/// everything, so the table's own order is the right one.
const NO_TIMEOUT: &str = "SELECT set_config('statement_timeout', '0', true), set_config('enable_seqscan', 'on', true), \
    set_config('plan_cache_mode', 'auto', true)";

/// Rows handed over together by [`stream_open`].
const CHUNK: usize = 512;

/// One execution as its row gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// An actor can be made of it.
    Ready {
        /// Its state.
        execution: Box<Execution>,
        /// Its wake-up ([`Execution::wake_at`]).
        due: Option<Timestamp>,
    },
    /// The row holds something that is not ours to guess about. See [`mark_unrunnable`].
    Undecodable {
        /// Which.
        id: ExecutionId,
        /// What is wrong with it, for people.
        reason: String,
    },
}

impl Loaded {
    /// Which execution this is about.
    pub fn id(&self) -> ExecutionId {
        match self {
            Self::Ready { execution, .. } => execution.id,
            Self::Undecodable { id, .. } => *id,
        }
    }

    fn from_row(row: &PgRow) -> Result<Self, Error> {
        let columns = match Columns::from_row(row) {
            Ok(columns) => columns,
            Err(error) => {
                let id: Uuid = row.try_get(0).map_err(failed("reading an execution's id"))?;
                return Ok(Self::Undecodable { id: ExecutionId(id), reason: error.to_string() });
            }
        };
        let id = ExecutionId(columns.id);
        Ok(match columns.decode() {
            Ok(execution) => Self::Ready { due: execution.wake_at(), execution: Box::new(execution) },
            Err(reason) => Self::Undecodable { id, reason },
        })
    }
}

/// Reads executions by id. Ids without a row are absent from the answer; the order is not that of `ids`.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn load(pool: &Pool, ids: &[ExecutionId]) -> Result<Vec<Loaded>, Error> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query(LOAD).bind(ids).fetch_all(pool).await.map_err(failed("loading executions"))?;
    rows.iter().map(Loaded::from_row).collect()
}

/// All executions that are not final, whatever their campaign's status, in no order, by one streaming query with one
/// connection. Memory stays bounded: Postgres waits while the reader is busy. The stream ends early by being dropped, and
/// after the first error.
pub fn stream_open(pool: &Pool) -> BoxStream<'static, Result<Loaded, Error>> {
    let (tx, rx) = mpsc::channel::<Result<Vec<Loaded>, Error>>(4);
    let pool = pool.clone();
    // A task of its own, because the rows borrow the transaction that lifts the statement timeout.
    tokio::spawn(async move {
        let reader = tx.clone();
        let error = match tokio::spawn(async move { read_open(&pool, &reader).await }).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            // A stream that merely ended would pass for a whole one.
            Err(panic) => Error::Decode { what: "the open executions", id: String::new(), reason: panic.to_string() },
        };
        let _ = tx.send(Err(error)).await;
    });
    stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|chunk| (chunk, rx)) })
        .flat_map(|chunk| match chunk {
            Ok(rows) => stream::iter(rows.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => stream::iter(vec![Err(error)]),
        })
        .boxed()
}

async fn read_open(pool: &Pool, tx: &mpsc::Sender<Result<Vec<Loaded>, Error>>) -> Result<(), Error> {
    let what = "reading the open executions";
    let mut transaction = pool.begin().await.map_err(failed(what))?;
    sqlx::query(NO_TIMEOUT).execute(&mut *transaction).await.map_err(failed(what))?;
    {
        let mut rows = sqlx::query(STREAM_OPEN).fetch(&mut *transaction);
        let mut chunk = Vec::with_capacity(CHUNK);
        while let Some(row) = rows.try_next().await.map_err(failed(what))? {
            chunk.push(Loaded::from_row(&row)?);
            if chunk.len() == CHUNK && tx.send(Ok(std::mem::take(&mut chunk))).await.is_err() {
                // Nobody reads any more.
                return Ok(());
            }
        }
        if !chunk.is_empty() {
            let _ = tx.send(Ok(chunk)).await;
        }
    }
    transaction.rollback().await.map_err(failed(what))
}

/// How many executions are not final.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn count_open(pool: &Pool) -> Result<i64, Error> {
    sqlx::query_scalar(COUNT_OPEN).fetch_one(pool).await.map_err(failed("counting the open executions"))
}

/// The executions of a campaign that are not final.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn open_of_campaign(pool: &Pool, campaign: CampaignId) -> Result<Vec<ExecutionId>, Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(OPEN_OF_CAMPAIGN)
        .bind(campaign.0)
        .fetch_all(pool)
        .await
        .map_err(failed("listing a campaign's open executions"))?;
    Ok(ids.into_iter().map(ExecutionId).collect())
}

/// The execution of a prospect, if the prospect is of that workspace and was initialised.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn of_prospect(
    pool: &Pool,
    workspace: WorkspaceId,
    prospect: ProspectId,
) -> Result<Option<ExecutionId>, Error> {
    let id: Option<Uuid> = sqlx::query_scalar(OF_PROSPECT)
        .bind(workspace.0)
        .bind(prospect.0)
        .fetch_optional(pool)
        .await
        .map_err(failed("looking up a prospect's execution"))?;
    Ok(id.map(ExecutionId))
}

/// An execution that was inserted, and the campaign it is in; `None` when it is gone again.
pub type Arrival = (ExecutionId, Option<CampaignId>);

/// Up to `limit` executions that were inserted and not handed over yet, of the shards that this node owns, by id, behind the
/// id `after`.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn arrivals(pool: &Pool, lease: &LeaseView, after: ExecutionId, limit: i64) -> Result<Vec<Arrival>, Error> {
    let rows: Vec<(Uuid, Option<Uuid>)> = sqlx::query_as(ARRIVALS)
        .bind(limit)
        .bind(lease.node().id)
        .bind(lease.node().incarnation)
        .bind(after.0)
        .fetch_all(pool)
        .await
        .map_err(failed("reading arrivals"))?;
    Ok(rows.into_iter().map(|(id, campaign)| (ExecutionId(id), campaign.map(CampaignId))).collect())
}

/// Strikes arrivals off that have been handed over. In this order: one that is handed over twice changes nothing, one
/// that is struck off first could be lost with the answer. Does nothing for shards that belong to another node now.
///
/// # Errors
/// When Postgres cannot be asked: they are read again.
pub async fn forget_arrivals(pool: &Pool, lease: &LeaseView, ids: &[ExecutionId]) -> Result<(), Error> {
    sqlx::query(FORGET_ARRIVALS)
        .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
        .bind(lease.node().id)
        .bind(lease.node().incarnation)
        .execute(pool)
        .await
        .map_err(failed("striking arrivals off"))
        .map(drop)
}

/// Leaves a note (`last_error`) on rows that no actor can be made of, and on those only that do not have it yet. Nothing
/// else of the row changes, its version neither.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn mark_unrunnable(pool: &Pool, rows: &[(ExecutionId, String)]) -> Result<u64, Error> {
    // One note an execution: which of two an UPDATE .. FROM takes is anybody's guess.
    let rows: HashMap<Uuid, String> = rows.iter().map(|(id, reason)| (id.0, clean(reason).into_owned())).collect();
    let (ids, reasons): (Vec<Uuid>, Vec<String>) = rows.into_iter().unzip();
    let done = sqlx::query(MARK_UNRUNNABLE)
        .bind(ids)
        .bind(reasons)
        .execute(pool)
        .await
        .map_err(failed("marking executions that cannot run"))?;
    Ok(done.rows_affected())
}

/// The channel on which Postgres says that rows have arrived.
pub const ARRIVALS_CHANNEL: &str = "campaignd_arrivals";

/// Longest pause between two tries to listen again.
const RELISTEN_MAX: Duration = Duration::from_secs(5);

/// Hears when executions arrive. A hint only: poll as well.
pub struct Arrivals {
    pool: Pool,
    listener: Option<PgListener>,
    /// Tries in a row that failed.
    failures: u32,
}

impl std::fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrivals").field("listening", &self.listener.is_some()).finish_non_exhaustive()
    }
}

/// Starts listening, on a connection of its own (not one of the pool's).
///
/// # Errors
/// When Postgres cannot be reached now.
pub async fn listen(pool: &Pool) -> Result<Arrivals, Error> {
    let mut arrivals = Arrivals { pool: pool.clone(), listener: None, failures: 0 };
    arrivals.listener = Some(arrivals.open().await?);
    Ok(arrivals)
}

impl Arrivals {
    async fn open(&self) -> Result<PgListener, Error> {
        let what = "listening for arrivals";
        let own = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(super::ACQUIRE_TIMEOUT)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(self.pool.connect_options().as_ref().clone());
        let mut listener = PgListener::connect_with(&own).await.map_err(failed(what))?;
        listener.listen(ARRIVALS_CHANNEL).await.map_err(failed(what))?;
        Ok(listener)
    }

    /// Returns when rows may have arrived: on a notification, and once after every reconnection, because what was
    /// notified in between is gone. Reconnects by itself, with a growing pause; cancel-safe.
    ///
    /// # Errors
    /// Only when the pool was closed: there is nothing to wait for any more.
    pub async fn recv(&mut self) -> Result<(), Error> {
        loop {
            if self.pool.is_closed() {
                return Err(Error::from_sqlx("listening for arrivals", sqlx::Error::PoolClosed));
            }
            let Some(listener) = &mut self.listener else {
                let pause = Duration::from_millis(100).saturating_mul(1 << self.failures.min(6));
                tokio::time::sleep(pause.min(RELISTEN_MAX)).await;
                match self.open().await {
                    Ok(listener) => {
                        self.listener = Some(listener);
                        self.failures = 0;
                        return Ok(());
                    }
                    Err(error) => {
                        self.failures = self.failures.saturating_add(1);
                        tracing::warn!(%error, "cannot listen for arrivals; the poll goes on");
                    }
                }
                continue;
            };
            match listener.try_recv().await {
                // None: the connection was lost, and by now it listens again.
                Ok(Some(_) | None) => {
                    // A burst of notifications is one hint.
                    while listener.next_buffered().is_some() {}
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(%error, "lost the connection that listens for arrivals");
                    self.listener = None;
                }
            }
        }
    }
}
