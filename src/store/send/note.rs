//! Whether an invitation goes without its note.

use crate::domain::id::ExecutionId;
use crate::store::{Error, Pool, failed};

// Of the tries since the first one: a step that was restarted begins with its note again.
const REFUSED: &str = "SELECT EXISTS (SELECT FROM sends s \
    WHERE s.execution_id = $1 AND s.step = $2 AND s.failure_class = 'note_refused' \
    AND s.created_at >= (SELECT max(f.created_at) FROM sends f \
        WHERE f.execution_id = $1 AND f.step = $2 AND f.attempt = 1))";

/// Whether an earlier try on this step was refused for its note.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn note_refused(pool: &Pool, execution: ExecutionId, step: u32) -> Result<bool, Error> {
    sqlx::query_scalar(REFUSED)
        .bind(execution.0)
        .bind(i32::try_from(step).unwrap_or(i32::MAX))
        .fetch_one(pool)
        .await
        .map_err(failed("looking whether a note was refused"))
}
