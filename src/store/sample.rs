//! What the tables alone can tell, for the gauges: whether the database answers, what it is late with, what is parked, what
//! accounts have used up.
//!
//! Each [`Eye`] has a connection of its own, beside the pools: it must see that they are exhausted, and take nothing from
//! them. Nothing here is on the way of a send or a transition. There is no index on a due time (see ARCHITECTURE: it would halve
//! what the writer does), so [`Eye::timers`] reads the table by ranges of blocks, so many at a time, round and round.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::time::timeout;
use uuid::Uuid;

use super::migrate::{Standing, standing_of};
use super::{Error, Pool, failed};
use crate::domain::id::AccountId;
use crate::domain::time::Timestamp;

const CLOCK: &str = "SELECT clock_timestamp()";
/// Through `inbox_open`, and never more than so many of its entries.
const INBOX: &str = "SELECT count(*), min(received_at) FROM ( \
    SELECT received_at FROM inbox WHERE status = 'received' ORDER BY received_at LIMIT 100000) AS i";
/// Through `sends_parked`.
const PARKED: &str =
    "SELECT channel, count(*) FROM sends WHERE parked_at IS NOT NULL AND status = 'unknown' GROUP BY channel";
const GATES: &str =
    "SELECT account_id, history, rests FROM account_gate WHERE history IS NOT NULL OR rests IS NOT NULL";
const BLOCKS: &str =
    "SELECT pg_relation_size('campaign_prospect_execution_state') / current_setting('block_size')::bigint";
/// The wake-ups of a range of blocks: see `Execution::wake_at`. Those of campaigns that do not run are held back. Not grouped by
/// status, which would sort them.
const WAKES: &str = "SELECT min(s.wake) FILTER (WHERE s.status = 'pending'), \
        min(s.wake) FILTER (WHERE s.status = 'waiting_trigger'), \
        count(*) FILTER (WHERE s.wake <= $3), \
        count(*) FILTER (WHERE s.wake > $3 AND s.wake <= $4), \
        count(*) FILTER (WHERE s.wake > $4 AND s.wake <= $5), \
        count(*) FILTER (WHERE s.wake > $5 AND s.wake <= $6), \
        count(*) FILTER (WHERE s.wake > $6) \
    FROM (SELECT status, campaign_id, CASE status WHEN 'pending' THEN next_execution_at \
            ELSE least(next_execution_at, next_check_at) END AS wake \
        FROM campaign_prospect_execution_state \
        WHERE ctid >= $1::text::tid AND ctid < $2::text::tid AND open_send IS NULL \
        AND status IN ('pending', 'waiting_trigger')) AS s \
    JOIN campaigns c ON c.id = s.campaign_id AND c.status IN ('active', 'running') \
    WHERE isfinite(s.wake)";
/// What is read must be a range of blocks, whatever the planner thinks of a table that it knows nothing of.
const SETTINGS: &str = "SELECT set_config('enable_seqscan', 'on', false), set_config('enable_tidscan', 'on', false), \
    set_config('statement_timeout', '5s', false)";

/// Blocks that one look at the timers reads: 32 MB, a table of 30,000 executions whole, or a million in some five minutes.
const BLOCKS_A_LOOK: i64 = 4096;
const MINUTE: Duration = Duration::from_secs(60);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);

/// Looks at the database through a connection of its own, made when it is needed.
#[derive(Debug)]
pub struct Eye {
    pool: Pool,
    connection: Option<PgConnection>,
    /// The first block that the next look at the timers reads.
    block: i64,
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probe {
    /// From asking to the answer.
    pub round_trip: Duration,
    /// The database's clock less this machine's, in seconds.
    pub offset: f64,
}

/// The facts that are stored and not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// How many, up to 100,000.
    pub count: i64,
    /// When the oldest came in.
    pub oldest: Option<Timestamp>,
}

/// The wake-ups in a part of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timers {
    /// The oldest of those in `pending`, and of those in `waiting_trigger`.
    pub oldest: [Option<Timestamp>; 2],
    /// How many are overdue, due within a minute, an hour, a day, and later.
    pub horizons: [i64; 5],
    /// This was the last part: the next one begins anew.
    pub is_last: bool,
}

/// What the gate of an account knows of its budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// Whose.
    pub account: AccountId,
    /// What it has done, as `domain::budget` reads it.
    pub history: Option<Value>,
    /// What the provider said of its quotas.
    pub rests: Option<Value>,
}

impl Eye {
    /// Opens nothing yet. The connection has the settings of the pool's.
    pub fn new(pool: &Pool) -> Self {
        Self { pool: pool.clone(), connection: None, block: 0 }
    }

    /// Takes the connection out: when a look is given up half way, it is of no use any more.
    async fn open(&mut self) -> Result<PgConnection, Error> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let what = failed("connecting to look at the database");
        let options = self.pool.connect_options();
        let connecting = timeout(CONNECT, PgConnection::connect_with(&options)).await;
        let mut connection = connecting.unwrap_or(Err(sqlx::Error::PoolClosed)).map_err(&what)?;
        sqlx::query(SETTINGS).execute(&mut connection).await.map_err(&what)?;
        Ok(connection)
    }

    /// Asks for the time. `now` is this machine's clock. Give it up after a second: a server that is frozen takes
    /// connections and never answers.
    ///
    /// # Errors
    /// When the database does not answer; the next probe connects anew.
    pub async fn probe(&mut self, now: impl Fn() -> Timestamp) -> Result<Probe, Error> {
        let what = failed("probing the database");
        let mut connection = self.open().await?;
        let (asked, begun) = (now(), Instant::now());
        let theirs: DateTime<Utc> = sqlx::query_scalar(CLOCK).fetch_one(&mut connection).await.map_err(&what)?;
        let round_trip = begun.elapsed();
        self.connection = Some(connection);
        let middle = asked + round_trip / 2;
        let theirs = Timestamp::from(theirs);
        // One of both is zero.
        let offset = theirs.since(middle).as_secs_f64() - middle.since(theirs).as_secs_f64();
        Ok(Probe { round_trip, offset })
    }

    /// Asks how the schema stands.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn schema(&mut self) -> Result<Standing, Error> {
        let mut connection = self.open().await?;
        let standing = standing_of(&mut connection).await?;
        self.connection = Some(connection);
        Ok(standing)
    }

    /// What waits in the inbox.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn inbox(&mut self) -> Result<Open, Error> {
        let what = failed("counting the inbox");
        let mut connection = self.open().await?;
        let (count, oldest): (i64, Option<DateTime<Utc>>) =
            sqlx::query_as(INBOX).fetch_one(&mut connection).await.map_err(&what)?;
        self.connection = Some(connection);
        Ok(Open { count, oldest: oldest.map(Timestamp::from) })
    }

    /// Sends that wait for a person, by channel.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn parked(&mut self) -> Result<Vec<(String, i64)>, Error> {
        let mut connection = self.open().await?;
        let found = sqlx::query_as(PARKED).fetch_all(&mut connection).await.map_err(failed("counting parked sends"))?;
        self.connection = Some(connection);
        Ok(found)
    }

    /// The gates of all accounts that have done something under a budget.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn gates(&mut self) -> Result<Vec<Gate>, Error> {
        let mut connection = self.open().await?;
        let rows: Vec<(Uuid, Option<Value>, Option<Value>)> =
            sqlx::query_as(GATES).fetch_all(&mut connection).await.map_err(failed("reading gates"))?;
        self.connection = Some(connection);
        Ok(rows.into_iter().map(|(id, history, rests)| Gate { account: AccountId(id), history, rests }).collect())
    }

    /// The wake-ups in the next part of the table. `now` is the engine's clock. A partitioned table (an adopted one may be)
    /// has no blocks of its own and shows nothing.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn timers(&mut self, now: Timestamp) -> Result<Timers, Error> {
        let what = failed("looking for overdue timers");
        let mut connection = self.open().await?;
        let blocks: i64 = sqlx::query_scalar(BLOCKS).fetch_one(&mut connection).await.map_err(&what)?;
        let (from, to) = (self.block, self.block + BLOCKS_A_LOOK);
        let row = sqlx::query(WAKES)
            .bind(format!("({from},0)"))
            .bind(format!("({to},0)"))
            .bind(now.to_utc())
            .bind((now + MINUTE).to_utc())
            .bind((now + 60 * MINUTE).to_utc())
            .bind((now + 24 * 60 * MINUTE).to_utc())
            .fetch_one(&mut connection)
            .await
            .map_err(&what)?;
        self.connection = Some(connection);
        let oldest = |column| row.try_get::<Option<DateTime<Utc>>, _>(column).map(|at| at.map(Timestamp::from));
        let mut found = Timers {
            oldest: [oldest(0).map_err(&what)?, oldest(1).map_err(&what)?],
            horizons: [0; 5],
            is_last: to >= blocks,
        };
        for (n, column) in found.horizons.iter_mut().zip(2..) {
            *n = row.try_get(column).map_err(&what)?;
        }
        self.block = if found.is_last { 0 } else { to };
        Ok(found)
    }
}
