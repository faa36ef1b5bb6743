//! All open executions, as one moment saw them, in ranges that several connections read side by side.
//!
//! The ranges are blocks of the table, so that nothing is sorted and no index is walked. One snapshot for all readers: in
//! it each row stands in exactly one place, however often it is written meanwhile, and is therefore seen exactly once.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use futures_util::TryStreamExt as _;
use sqlx::postgres::PgRow;
use sqlx::{Postgres, Row as _, Transaction};
use uuid::Uuid;

use super::Loaded;
use crate::domain::execution::{Status, wake_of};
use crate::domain::id::{CampaignId, ExecutionId};
use crate::domain::time::Timestamp;
use crate::store::row::{Moment, select_execution};
use crate::store::{Error, Pool, failed};

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// A long read must outlive the pool's time-outs, and a range of blocks is what there is to read, in their order.
const READER: &str = "SELECT set_config(name, value, true) FROM (VALUES ('statement_timeout', '0'), \
    ('idle_in_transaction_session_timeout', '0'), ('enable_seqscan', 'on'), ('enable_tidscan', 'on'), ('jit', 'off')) \
    AS s (name, value)";
const EXPORT: &str = "SELECT pg_export_snapshot()";
/// An adopted table may be partitioned: then a range is about the same blocks of each partition.
const SIZE: &str = "SELECT coalesce(max(pg_relation_size(t.relid) / current_setting('block_size')::bigint), 0)::bigint, \
        coalesce(sum(CASE WHEN c.reltuples >= 0 AND c.relpages > 0 \
            THEN c.reltuples / c.relpages * (pg_relation_size(t.relid) / current_setting('block_size')::bigint) \
            ELSE pg_relation_size(t.relid) / 450 END), 0)::bigint \
    FROM (SELECT 'campaign_prospect_execution_state'::regclass AS relid \
        UNION SELECT relid FROM pg_partition_tree('campaign_prospect_execution_state')) t \
    JOIN pg_class c ON c.oid = t.relid WHERE c.relkind = 'r'";
const ROWS: &str = select_execution!(
    "WHERE s.ctid >= $1::text::tid AND s.ctid < $2::text::tid \
     AND s.status IS DISTINCT FROM 'completed' AND s.status IS DISTINCT FROM 'failed'"
);
/// `asleep` says of a row what `needs_mending` would find, as far as that can be said without its flow.
const WAKES: &str = "SELECT s.id, s.campaign_id, s.status, s.next_execution_at, s.next_check_at, \
        coalesce(s.version > 0 AND s.open_send IS NULL AND s.campaign_id IS NOT NULL AND s.workspace_id IS NOT NULL \
            AND s.flow_version IS NOT NULL \
            AND CASE s.status WHEN 'pending' THEN s.next_execution_at IS NOT NULL \
                WHEN 'waiting_trigger' THEN s.next_execution_at IS NOT NULL AND s.next_check_at IS NOT NULL \
                    AND s.waiting_for_trigger IS NOT NULL AND s.trigger_max_checks IS DISTINCT FROM 0 \
                WHEN 'paused' THEN s.paused_status IN ('pending', 'executing', 'waiting_trigger') \
                ELSE false END, false) AS asleep \
    FROM campaign_prospect_execution_state s WHERE s.ctid >= $1::text::tid AND s.ctid < $2::text::tid \
    AND s.status IS DISTINCT FROM 'completed' AND s.status IS DISTINCT FROM 'failed'";

/// Blocks a range: a few thousand rows, a few milliseconds.
const BLOCKS: i64 = 256;

/// One snapshot of the executions, to be read range by range, by several readers at once. It keeps Postgres from tidying
/// up, so it is not to be kept longer than the reading takes.
pub struct Scan {
    pool: Pool,
    /// Keeps the snapshot for readers that come later.
    leader: Transaction<'static, Postgres>,
    snapshot: String,
    /// Readers that are between two ranges.
    idle: Mutex<Vec<Transaction<'static, Postgres>>>,
    ranges: u32,
    estimate: u64,
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan").field("ranges", &self.ranges).field("estimate", &self.estimate).finish_non_exhaustive()
    }
}

/// An open execution that need not be made resident, as the narrow reading gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asleep {
    /// It needs nothing but its wake-up.
    Parked {
        /// Which.
        id: ExecutionId,
        /// Of which campaign.
        campaign: CampaignId,
        /// Its wake-up ([`Execution::wake_at`](crate::domain::execution::Execution::wake_at)); `None` while paused.
        wake: Option<Timestamp>,
    },
    /// It has to be read whole: a send of it is open, another program made it, or it lacks something.
    Whole {
        /// Which.
        id: ExecutionId,
        /// Of which campaign.
        campaign: CampaignId,
    },
}

impl Asleep {
    /// Which execution this is about.
    pub const fn id(&self) -> ExecutionId {
        match self {
            Self::Parked { id, .. } | Self::Whole { id, .. } => *id,
        }
    }

    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        // An adopted table may hold rows without a campaign: read whole, each says that nothing can be made of it.
        let campaign: Option<Uuid> = row.try_get(1)?;
        let (id, campaign) = (ExecutionId(row.try_get(0)?), CampaignId(campaign.unwrap_or_default()));
        let whole = Self::Whole { id, campaign };
        let asleep: bool = row.try_get(5)?;
        let Some(status) = row.try_get::<Option<&str>, _>(2)?.and_then(Status::parse).filter(|_| asleep) else {
            return Ok(whole);
        };
        // A time that no clock shows: reading it whole says so.
        let Some(due) = finite(row.try_get(3)?) else { return Ok(whole) };
        let Some(check) = finite(row.try_get(4)?) else { return Ok(whole) };
        Ok(Self::Parked { id, campaign, wake: wake_of(status, None, due, check) })
    }
}

/// The time a column holds; the outer `None` is for one that no clock shows.
fn finite(column: Option<Moment>) -> Option<Option<Timestamp>> {
    match column {
        None => Some(None),
        Some(Moment(time)) => time.map(Some),
    }
}

impl Scan {
    /// Takes the snapshot, on a connection that is kept until [`Scan::close`].
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn open(pool: &Pool) -> Result<Self, Error> {
        let what = failed("taking a snapshot of the executions");
        let mut leader = pool.begin_with(BEGIN).await.map_err(&what)?;
        sqlx::query(READER).execute(&mut *leader).await.map_err(&what)?;
        let snapshot: String = sqlx::query_scalar(EXPORT).fetch_one(&mut *leader).await.map_err(&what)?;
        // Measured once the snapshot stands: what it sees is in these blocks, for a table only grows.
        let (blocks, rows): (i64, i64) = sqlx::query_as(SIZE).fetch_one(&mut *leader).await.map_err(&what)?;
        Ok(Self {
            pool: pool.clone(),
            leader,
            snapshot,
            idle: Mutex::default(),
            ranges: u32::try_from((blocks + BLOCKS - 1) / BLOCKS).unwrap_or(u32::MAX),
            estimate: u64::try_from(rows).unwrap_or(0),
        })
    }

    /// How many ranges there are: `0..ranges()` is everything.
    pub const fn ranges(&self) -> u32 {
        self.ranges
    }

    /// How many rows there are, roughly and with the final ones, to show progress by.
    pub const fn estimate(&self) -> u64 {
        self.estimate
    }

    /// All executions of the range that are not final, whole, whatever their campaign's status, in no order. Several
    /// ranges may be read at once, on a connection each, which are kept until [`Scan::close`].
    ///
    /// # Errors
    /// When Postgres cannot be asked. A lost connection is transient and the range may be read again, unless the one that
    /// holds the snapshot was lost too: then the scan has to be opened anew.
    pub async fn rows(&self, range: u32) -> Result<Vec<Loaded>, Error> {
        self.read(ROWS, range, "reading executions", Loaded::from_row).await
    }

    /// The same executions, narrow: what is needed to park them.
    ///
    /// # Errors
    /// See [`Scan::rows`].
    pub async fn wakes(&self, range: u32) -> Result<Vec<Asleep>, Error> {
        let what = "reading the wake-ups of executions";
        self.read(WAKES, range, what, |row| Asleep::from_row(row).map_err(failed(what))).await
    }

    /// Lets the snapshot and the connections go. Dropping does the same, a little later.
    pub async fn close(self) {
        let idle = self.idle.into_inner().unwrap_or_else(PoisonError::into_inner);
        for reader in idle.into_iter().chain([self.leader]) {
            // Nothing was written: a connection that is gone has let go already.
            let _ = reader.rollback().await;
        }
    }

    async fn read<T>(
        &self,
        statement: &'static str,
        range: u32,
        what: &'static str,
        decode: impl Fn(&PgRow) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None => self.reader().await.map_err(failed(what))?,
        };
        let first = i64::from(range) * BLOCKS;
        let mut found = Vec::new();
        {
            let mut rows = sqlx::query(statement)
                .bind(format!("({first},0)"))
                .bind(format!("({},0)", first + BLOCKS))
                .fetch(&mut *reader);
            while let Some(row) = rows.try_next().await.map_err(failed(what))? {
                found.push(decode(&row)?);
            }
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        Ok(found)
    }

    /// One more connection that sees what the first one sees.
    async fn reader(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        let mut reader = self.pool.begin_with(BEGIN).await?;
        // No parameter can stand there; the name is Postgres's own.
        let import = sqlx::AssertSqlSafe(format!("SET TRANSACTION SNAPSHOT '{}'", self.snapshot));
        sqlx::query(import).persistent(false).execute(&mut *reader).await?;
        sqlx::query(READER).execute(&mut *reader).await?;
        Ok(reader)
    }
}
