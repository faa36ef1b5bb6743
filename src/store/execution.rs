//! Reading executions: by id, all open ones at a start (`scan`), and the ones other programs have just inserted
//! (`arrivals`).
//!
//! Owns the reads of `campaign_prospect_execution_state` and `execution_arrivals`. Every change of an execution goes
//! through [`super::writer`] instead; the one exception here is [`mark_unrunnable`], which leaves a note for people on a
//! row that no actor can be made of. Called by `runtime`.

use std::collections::HashMap;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::lease::LeaseView;
use super::row::{Columns, select_execution};
use super::{Error, Pool, clean, failed, shard_column};
use crate::domain::execution::Execution;
use crate::domain::id::{CampaignId, ExecutionId, ProspectId, WorkspaceId};
use crate::domain::time::Timestamp;

mod arrivals;
mod scan;

pub use arrivals::{ARRIVALS_CHANNEL, Arrival, Arrivals, arrivals, forget_arrivals, listen};
pub use scan::{Asleep, Scan};

const LOAD: &str = select_execution!("WHERE s.id = ANY($1)");
const OPEN_OF_CAMPAIGN: &str = "SELECT s.id FROM campaign_prospect_execution_state s WHERE s.campaign_id = $1 \
    AND s.status IS DISTINCT FROM 'completed' AND s.status IS DISTINCT FROM 'failed'";
const PERSON_OF: &str = "SELECT c.workspace_id, e.prospect_id FROM campaign_prospect_execution_state e \
    JOIN campaigns c ON c.id = e.campaign_id WHERE e.id = $1";
const OF_PROSPECT: &str = "SELECT s.id FROM campaign_prospect_execution_state s \
    JOIN campaign_prospects p ON p.id = s.prospect_id AND p.campaign_id = s.campaign_id \
    JOIN campaigns c ON c.id = s.campaign_id WHERE p.id = $2 AND c.workspace_id = $1";
/// The time is the one of `Execution::wake_at`.
const OVERDUE: &str = "SELECT s.id FROM campaign_prospect_execution_state s \
    WHERE s.status IN ('pending', 'waiting_trigger') AND (s.status = 'waiting_trigger' OR s.open_send IS NULL) \
    AND s.campaign_id IN (SELECT c.id FROM campaigns c WHERE c.status IN ('active', 'running')) \
    AND least(s.next_execution_at, CASE WHEN s.status = 'waiting_trigger' THEN s.next_check_at END) <= $1 \
    ORDER BY least(s.next_execution_at, CASE WHEN s.status = 'waiting_trigger' THEN s.next_check_at END), s.id LIMIT $2";
const MARK_UNRUNNABLE: &str = "WITH mark AS MATERIALIZED ( \
        SELECT * FROM unnest($3::uuid[], $4::text[], $5::smallint[], $6::bigint[]) AS m(id, reason, shard, epoch)), \
    lease AS MATERIALIZED ( \
        SELECT l.shard FROM shard_lease l JOIN (SELECT DISTINCT shard, epoch FROM mark) m ON m.shard = l.shard \
        WHERE l.owner = $1 AND l.incarnation = $2 AND l.epoch = m.epoch ORDER BY l.shard FOR SHARE OF l) \
    UPDATE campaign_prospect_execution_state s SET last_error = m.reason FROM mark m \
    WHERE s.id = m.id AND m.shard IN (SELECT shard FROM lease) AND s.last_error IS DISTINCT FROM m.reason";
/// A long read must outlive the pool's statement timeout: with a million rows the reader is the slower side. And it reads
/// everything, so the table's own order is the right one.
const NO_TIMEOUT: &str = "SELECT set_config('statement_timeout', '0', true), set_config('enable_seqscan', 'on', true), \
    set_config('plan_cache_mode', 'auto', true)";

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

/// The workspace and the prospect of an execution; `None` when there is no such execution any more.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn person_of(pool: &Pool, execution: ExecutionId) -> Result<Option<(WorkspaceId, ProspectId)>, Error> {
    let row: Option<(Uuid, Uuid)> = sqlx::query_as(PERSON_OF)
        .bind(execution.0)
        .fetch_optional(pool)
        .await
        .map_err(failed("looking up an execution's prospect"))?;
    Ok(row.map(|(workspace, prospect)| (WorkspaceId(workspace), ProspectId(prospect))))
}

/// Up to `limit` executions whose wake-up has passed by `now`, oldest first, of the campaigns that run. One pass over
/// the table: no index is kept on times, because each transition would have to write it.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn overdue(pool: &Pool, now: Timestamp, limit: i64) -> Result<Vec<ExecutionId>, Error> {
    let what = failed("reading what is overdue");
    let mut transaction = pool.begin().await.map_err(&what)?;
    sqlx::query(NO_TIMEOUT).execute(&mut *transaction).await.map_err(&what)?;
    let ids: Vec<Uuid> =
        sqlx::query_scalar(OVERDUE).bind(now.to_utc()).bind(limit).fetch_all(&mut *transaction).await.map_err(&what)?;
    transaction.rollback().await.map_err(&what)?;
    Ok(ids.into_iter().map(ExecutionId).collect())
}

/// Leaves a note (`last_error`) on rows that no actor can be made of, and on those only that do not have it yet. Nothing
/// else of the row changes, its version neither. Fenced like every write of an execution.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn mark_unrunnable(pool: &Pool, lease: &LeaseView, rows: &[(ExecutionId, String)]) -> Result<u64, Error> {
    // One note an execution: which of two an UPDATE .. FROM takes is anybody's guess.
    let rows: HashMap<ExecutionId, String> =
        rows.iter().map(|(id, reason)| (*id, clean(reason).into_owned())).collect();
    let shards: Vec<u16> = rows.keys().map(|id| id.shard()).collect();
    let (ids, reasons): (Vec<Uuid>, Vec<String>) = rows.into_iter().map(|(id, reason)| (id.0, reason)).unzip();
    let done = sqlx::query(MARK_UNRUNNABLE)
        .bind(lease.node().id)
        .bind(lease.node().incarnation)
        .bind(ids)
        .bind(reasons)
        .bind(shards.iter().map(|s| shard_column(*s)).collect::<Vec<_>>())
        .bind(shards.iter().map(|s| lease.epoch(*s)).collect::<Vec<_>>())
        .execute(pool)
        .await
        .map_err(failed("marking executions that cannot run"))?;
    Ok(done.rows_affected())
}
