//! What happened to one prospect: its transitions and sends, merged by time and read in pages.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Error, Pool, failed};
use crate::domain::id::{ExecutionId, WorkspaceId};

// A transition sorts before the send it decided, which carries the same time. The page's bounds stand inside both arms,
// so that each reads no more than a page.
const PAGE: &str = "SELECT at, kind, key, body FROM ( \
       (SELECT t.at, 0::int2 AS kind, lpad(t.version::text, 20, '0') AS key, jsonb_build_object( \
          'version', t.version, 'flow_version', t.flow_version, 'trigger', t.trigger, 'detail', t.detail, \
          'from_status', t.from_status, 'to_status', t.to_status, 'from_step', t.from_step, 'to_step', t.to_step) AS body \
        FROM transitions t WHERE t.workspace_id = $1 AND t.execution_id = $2 AND t.at >= $3 \
          AND (t.at, 0::int2, lpad(t.version::text, 20, '0')) > ($3, $4, $5) \
        ORDER BY t.at, t.version LIMIT $6) \
       UNION ALL \
       (SELECT s.created_at, 1::int2, s.id::text, jsonb_build_object( \
          'id', s.id, 'step', s.step, 'step_id', s.step_id, 'action', s.action, 'channel', s.channel, \
          'attempt', s.attempt, 'account_id', s.account_id, 'status', s.status, 'subject', s.subject, 'body', s.body, \
          'failure_class', s.failure_class, 'error', s.error, 'claimed_at', s.claimed_at, 'finished_at', s.finished_at) \
        FROM sends s WHERE s.workspace_id = $1 AND s.execution_id = $2 AND s.created_at >= $3 \
          AND (s.created_at, 1::int2, s.id::text) > ($3, $4, $5) \
        ORDER BY s.created_at, s.id::text LIMIT $6)) entries \
     ORDER BY at, kind, key LIMIT $6";

/// One line of the timeline.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct Entry {
    /// When: the transition's time, or when the send was decided.
    pub at: DateTime<Utc>,
    /// 0 = transition, 1 = send.
    pub kind: i16,
    /// Orders entries of one time and kind.
    pub key: String,
    /// The row, without the columns that say whose it is.
    pub body: Value,
}

/// A place between two entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Of the last entry that was read.
    pub at: DateTime<Utc>,
    /// Likewise.
    pub kind: i16,
    /// Likewise.
    pub key: String,
}

impl Cursor {
    /// Before everything.
    pub fn start() -> Self {
        Self { at: DateTime::UNIX_EPOCH, kind: -1, key: String::new() }
    }
}

/// The next entries after `cursor`, oldest first.
///
/// # Errors
/// The database's.
pub async fn page(
    pool: &Pool,
    workspace: WorkspaceId,
    execution: ExecutionId,
    cursor: &Cursor,
    limit: i64,
) -> Result<Vec<Entry>, Error> {
    sqlx::query_as(PAGE)
        .bind(workspace.0)
        .bind(execution.0)
        .bind(cursor.at)
        .bind(cursor.kind)
        .bind(&cursor.key)
        .bind(limit)
        .fetch_all(pool)
        .await
        .map_err(failed("timeline: page"))
}
