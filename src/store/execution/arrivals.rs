//! Executions that were inserted and that nobody has taken over yet: the list of them, and hearing that it has grown.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use uuid::Uuid;

use crate::domain::id::{CampaignId, ExecutionId};
use crate::store::lease::LeaseView;
use crate::store::{Error, Pool, failed};

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
            .acquire_timeout(crate::store::ACQUIRE_TIMEOUT)
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
