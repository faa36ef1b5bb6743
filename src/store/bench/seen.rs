//! What the bench reads off a scratch database: what was done, whether the history is whole, and the reads of other programs
//! whose cost depends on the indexes.

use crate::domain::time::Timestamp;
use crate::store::{Error, Pool, failed};

const PER_SECOND: &str = "SELECT floor(extract(epoch FROM at - $1))::int8 AS second, count(*) FROM transitions \
     WHERE at >= $1 GROUP BY 1 ORDER BY 1";
const TRANSITIONS: &str = "SELECT count(*) FROM transitions WHERE at >= $1 AND at < $2";
const SENT_BETWEEN: &str =
    "SELECT count(*) FROM sends WHERE finished_at >= $1 AND finished_at < $2 AND status = 'sent'";
const GAPS: &str = "SELECT count(*) FROM (SELECT execution_id, count(*) AS n, min(version) AS low, max(version) AS high \
       FROM transitions GROUP BY execution_id) AS t \
     JOIN campaign_prospect_execution_state e ON e.id = t.execution_id \
     WHERE t.high <> e.version OR t.high - t.low + 1 <> t.n OR t.low <> $1 + 1";
const SENT_TWICE: &str = "SELECT count(*) FROM (SELECT 1 FROM sends WHERE status IN ('dispatching', 'sent', 'unknown') \
     GROUP BY execution_id, step HAVING count(*) > 1) AS t";
const ANY_TRANSITION: &str = "SELECT EXISTS (SELECT FROM transitions)";
const OPEN: &str = "SELECT count(*) FROM campaign_prospect_execution_state WHERE status NOT IN ('completed', 'failed')";
const BACKENDS: &str = "SELECT pid FROM pg_stat_activity";
const NEXT_PENDING: &str = "SELECT count(*) FROM get_next_pending_executions(10)";
const DUE_INDEXES: &str = "SELECT count(*) FROM pg_indexes WHERE tablename = 'campaign_prospect_execution_state' \
     AND indexdef ~ '\\((next_execution_at|next_check_at)'";
const DROP_DUE_INDEXES: &str = "DROP INDEX IF EXISTS execution_state_due, execution_state_check";
// As migration 0001 makes them.
const MAKE_DUE_INDEX: &str = "CREATE INDEX IF NOT EXISTS execution_state_due ON campaign_prospect_execution_state \
     (next_execution_at) WHERE status IN ('pending', 'waiting_trigger')";
const MAKE_CHECK_INDEX: &str = "CREATE INDEX IF NOT EXISTS execution_state_check ON campaign_prospect_execution_state \
     (next_check_at) WHERE status = 'waiting_trigger'";
const NO_TIMEOUT: &str = "SET LOCAL statement_timeout = 0";

/// Transitions by whole seconds since `from`.
///
/// # Errors
/// The database's.
pub async fn transitions_per_second(pool: &Pool, from: Timestamp) -> Result<Vec<(i64, i64)>, Error> {
    let mut tx = long(pool).await?;
    sqlx::query_as(PER_SECOND)
        .bind(from.to_utc())
        .fetch_all(&mut *tx)
        .await
        .map_err(failed("bench: counting transitions"))
}

/// Transitions decided in `from..to`.
///
/// # Errors
/// The database's.
pub async fn transitions(pool: &Pool, from: Timestamp, to: Timestamp) -> Result<i64, Error> {
    between(pool, TRANSITIONS, from, to).await
}

/// Sends that ended well in `from..to`.
///
/// # Errors
/// The database's.
pub async fn sent(pool: &Pool, from: Timestamp, to: Timestamp) -> Result<i64, Error> {
    between(pool, SENT_BETWEEN, from, to).await
}

async fn between(pool: &Pool, statement: &'static str, from: Timestamp, to: Timestamp) -> Result<i64, Error> {
    let mut tx = long(pool).await?;
    sqlx::query_scalar(statement)
        .bind(from.to_utc())
        .bind(to.to_utc())
        .fetch_one(&mut *tx)
        .await
        .map_err(failed("bench: counting what was done"))
}

/// What is wrong with the histories of a crowd that began at `version`: how many executions have one with a gap or another
/// end than their row, and how many steps were sent twice.
///
/// # Errors
/// The database's.
pub async fn broken_histories(pool: &Pool, version: i64) -> Result<(i64, i64), Error> {
    let what = failed("bench: checking the histories");
    let mut tx = long(pool).await?;
    let gaps = sqlx::query_scalar(GAPS).bind(version).fetch_one(&mut *tx).await.map_err(&what)?;
    let twice = sqlx::query_scalar(SENT_TWICE).fetch_one(&mut *tx).await.map_err(&what)?;
    Ok((gaps, twice))
}

/// The processes of the server, on the machine it runs on.
///
/// # Errors
/// The database's.
pub async fn backends(pool: &Pool) -> Result<Vec<i32>, Error> {
    sqlx::query_scalar(BACKENDS).fetch_all(pool).await.map_err(failed("bench: listing sessions"))
}

/// Whether anything was decided yet.
///
/// # Errors
/// The database's.
pub async fn any_transition(pool: &Pool) -> Result<bool, Error> {
    sqlx::query_scalar(ANY_TRANSITION).fetch_one(pool).await.map_err(failed("bench: looking for a transition"))
}

/// Executions that have not ended.
///
/// # Errors
/// The database's.
pub async fn open(pool: &Pool) -> Result<i64, Error> {
    let mut tx = long(pool).await?;
    sqlx::query_scalar(OPEN).fetch_one(&mut *tx).await.map_err(failed("bench: counting open executions"))
}

/// What other programs ask: the next ten executions that are due. Answers how many there were.
///
/// # Errors
/// The database's.
pub async fn next_pending(pool: &Pool) -> Result<i64, Error> {
    let mut tx = long(pool).await?;
    sqlx::query_scalar(NEXT_PENDING).fetch_one(&mut *tx).await.map_err(failed("bench: asking for pending executions"))
}

/// How many indexes on due times the state table has.
///
/// # Errors
/// The database's.
pub async fn due_indexes(pool: &Pool) -> Result<i64, Error> {
    sqlx::query_scalar(DUE_INDEXES).fetch_one(pool).await.map_err(failed("bench: listing indexes"))
}

/// Makes or drops the two indexes on due times.
///
/// # Errors
/// The database's.
pub async fn index_due_times(pool: &Pool, wanted: bool) -> Result<(), Error> {
    let statements: &[&str] = if wanted { &[MAKE_DUE_INDEX, MAKE_CHECK_INDEX] } else { &[DROP_DUE_INDEXES] };
    let what = failed("bench: changing indexes");
    let mut tx = long(pool).await?;
    for statement in statements {
        sqlx::query(*statement).execute(&mut *tx).await.map_err(&what)?;
    }
    tx.commit().await.map_err(what)
}

/// A transaction whose statements take as long as they take.
async fn long(pool: &Pool) -> Result<sqlx::Transaction<'static, sqlx::Postgres>, Error> {
    let what = failed("bench: beginning a long read");
    let mut tx = pool.begin().await.map_err(&what)?;
    sqlx::query(NO_TIMEOUT).execute(&mut *tx).await.map_err(what)?;
    Ok(tx)
}
