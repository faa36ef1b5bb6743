//! The inbox: facts from outside, stored before they are acknowledged and deduplicated by key, applied afterwards.
//!
//! Owns table `inbox`. Called by `http` (which stores) and `runtime` (which applies and marks).

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::Row as _;
use uuid::Uuid;

use super::{Error, Pool, clean, failed, json_text, shard_column};
use crate::domain::account::names;
use crate::domain::id::{InboxId, WorkspaceId};
use crate::domain::time::Timestamp;
use crate::telemetry::trace;

const STORE: &str = "INSERT INTO inbox (workspace_id, id, shard, source, dedupe_key, headers, body, received_at, \
        traceparent) \
    VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, $7, $8, $9) \
    ON CONFLICT (workspace_id, dedupe_key) DO NOTHING RETURNING id";
const STORE_ALL: &str = "INSERT INTO inbox (workspace_id, id, source, dedupe_key, body, received_at) \
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::timestamptz[]) \
    ON CONFLICT (workspace_id, dedupe_key) DO NOTHING RETURNING id";
const KNOWN: &str = "SELECT i.dedupe_key FROM unnest($2::text[]) AS want(dedupe_key) \
    JOIN inbox i ON i.workspace_id = $1 AND i.dedupe_key = want.dedupe_key";
const WAITING: &str = "SELECT count(*) FROM unnest($2::uuid[]) AS want(id) \
    JOIN inbox i ON i.workspace_id = $1 AND i.id = want.id WHERE i.status = 'received'";
const OPEN: &str = "SELECT workspace_id, id, shard, source, dedupe_key, headers, body, received_at, traceparent FROM inbox \
    WHERE status = 'received' AND id <> ALL($2) ORDER BY received_at LIMIT $1";
/// Only from `received`: what was decided about a row is not changed afterwards.
const MARK: &str = "UPDATE inbox i SET status = m.status, outcome = m.outcome, shard = coalesce(m.shard, i.shard), \
        processed_at = $6 \
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::smallint[]) \
        AS m(workspace_id, id, status, outcome, shard) \
    WHERE i.workspace_id = m.workspace_id AND i.id = m.id AND i.status = 'received'";

names! {
    /// Where a stored fact stands.
    InboxStatus {
        /// Stored, not looked at yet.
        Received = "received",
        /// It moved an execution, or was refused by one as late or repeated.
        Applied = "applied",
        /// It is about nobody we know, or of a kind that moves nothing.
        Ignored = "ignored",
        /// It cannot be read; kept for people.
        Failed = "failed",
    }
}

/// A fact to be stored.
#[derive(Clone)]
pub struct NewInbox {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// A new id.
    pub id: InboxId,
    /// Who says so, for example `unipile` or `api`.
    pub source: String,
    /// The same fact delivered twice has the same key.
    pub dedupe_key: String,
    /// The request's headers that matter, without secrets.
    pub headers: Option<Value>,
    /// As it came in.
    pub body: Vec<u8>,
    /// When.
    pub received_at: Timestamp,
    /// The shard of the execution it is about, if that is known already.
    pub shard: Option<u16>,
}

/// A stored fact that was not looked at yet.
#[derive(Clone, PartialEq)]
pub struct Inbox {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Its id.
    pub id: InboxId,
    /// Who says so.
    pub source: String,
    /// The key it is known by.
    pub dedupe_key: String,
    /// The request's headers that matter.
    pub headers: Option<Value>,
    /// As it came in.
    pub body: Vec<u8>,
    /// When.
    pub received_at: Timestamp,
    /// The shard of the execution it is about, if known.
    pub shard: Option<u16>,
    /// The trace it came in with: whatever follows from it belongs to that.
    pub trace: Option<trace::Context>,
}

// Bodies hold what people wrote: neither is ever printed.
impl std::fmt::Debug for NewInbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewInbox").field("id", &self.id).field("source", &self.source).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("id", &self.id).field("source", &self.source).finish_non_exhaustive()
    }
}

impl From<NewInbox> for Inbox {
    /// The row that storing it here has made.
    fn from(new: NewInbox) -> Self {
        let NewInbox { workspace, id, source, dedupe_key, headers, body, received_at, shard } = new;
        Self { workspace, id, source, dedupe_key, headers, body, received_at, shard, trace: trace::current() }
    }
}

/// What became of storing a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is durable.
    New,
    /// A fact with its key was durable already; nothing was changed.
    Duplicate,
}

/// Stores a fact; durable when this returns, so that it may be acknowledged. The trace that runs here is kept with it.
///
/// # Errors
/// When Postgres cannot be asked: do not acknowledge it.
pub async fn store(pool: &Pool, new: &NewInbox) -> Result<Stored, Error> {
    let id: Option<Uuid> = sqlx::query_scalar(STORE)
        .bind(new.workspace.0)
        .bind(new.id.0)
        .bind(new.shard.map(shard_column))
        .bind(clean(&new.source).into_owned())
        .bind(clean(&new.dedupe_key).into_owned())
        .bind(new.headers.as_ref().map(json_text))
        .bind(&new.body)
        .bind(new.received_at.to_utc())
        .bind(trace::current().map(|trace| trace.to_string()))
        .fetch_optional(pool)
        .await
        .map_err(failed("storing an inbox row"))?;
    Ok(if id.is_some() { Stored::New } else { Stored::Duplicate })
}

/// Stores facts in one statement. Answers the ids of those that are new; the others were durable already.
///
/// # Errors
/// When Postgres cannot be asked: none is stored.
pub async fn store_all(pool: &Pool, new: Vec<NewInbox>) -> Result<Vec<InboxId>, Error> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = sqlx::query_scalar(STORE_ALL)
        .bind(new.iter().map(|n| n.workspace.0).collect::<Vec<_>>())
        .bind(new.iter().map(|n| n.id.0).collect::<Vec<_>>())
        .bind(new.iter().map(|n| clean(&n.source).into_owned()).collect::<Vec<_>>())
        .bind(new.iter().map(|n| clean(&n.dedupe_key).into_owned()).collect::<Vec<_>>())
        .bind(new.iter().map(|n| n.body.as_slice()).collect::<Vec<_>>())
        .bind(new.iter().map(|n| n.received_at.to_utc()).collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .map_err(failed("storing inbox rows"))?;
    Ok(ids.into_iter().map(InboxId).collect())
}

/// Which of these keys are in the inbox already, looked at or not.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn known(pool: &Pool, workspace: WorkspaceId, keys: &[String]) -> Result<HashSet<String>, Error> {
    let found: Vec<String> = sqlx::query_scalar(KNOWN)
        .bind(workspace.0)
        .bind(keys.iter().map(|k| clean(k).into_owned()).collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .map_err(failed("looking for inbox rows"))?;
    Ok(found.into_iter().collect())
}

/// How many of these facts were not dealt with yet.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn waiting(pool: &Pool, workspace: WorkspaceId, ids: &[InboxId]) -> Result<i64, Error> {
    sqlx::query_scalar(WAITING)
        .bind(workspace.0)
        .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
        .fetch_one(pool)
        .await
        .map_err(failed("counting inbox rows"))
}

/// Up to `limit` facts that were not looked at yet, oldest first, besides those that the caller has in hand. They stay until
/// they are marked: apply them idempotently.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn open(pool: &Pool, limit: i64, besides: &[InboxId]) -> Result<Vec<Inbox>, Error> {
    let what = failed("reading the inbox");
    let rows = sqlx::query(OPEN)
        .bind(limit)
        .bind(besides.iter().map(|id| id.0).collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .map_err(&what)?;
    rows.iter()
        .map(|row| {
            Ok(Inbox {
                workspace: WorkspaceId(row.try_get(0)?),
                id: InboxId(row.try_get(1)?),
                shard: row.try_get::<Option<i16>, _>(2)?.and_then(|s| u16::try_from(s).ok()),
                source: row.try_get(3)?,
                dedupe_key: row.try_get(4)?,
                headers: row.try_get(5)?,
                body: row.try_get(6)?,
                received_at: row.try_get::<DateTime<Utc>, _>(7)?.into(),
                trace: row
                    .try_get::<Option<&str>, _>(8)?
                    .and_then(|t| Some(trace::Context::parse(t.as_bytes())?.context)),
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(&what)
}

/// What was decided about a stored fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Which.
    pub id: InboxId,
    /// Not `Received`.
    pub status: InboxStatus,
    /// A stable word or a sentence for people, for example `applied` or `already_final`.
    pub outcome: Option<String>,
    /// The shard of the execution it turned out to be about.
    pub shard: Option<u16>,
}

/// Stores what was decided. Rows that were marked before keep their first mark.
///
/// # Errors
/// When Postgres cannot be asked: the facts are read again, and must be applied idempotently.
pub async fn mark(pool: &Pool, marks: &[Mark], at: Timestamp) -> Result<u64, Error> {
    if marks.is_empty() {
        return Ok(0);
    }
    let done = sqlx::query(MARK)
        .bind(marks.iter().map(|m| m.workspace.0).collect::<Vec<_>>())
        .bind(marks.iter().map(|m| m.id.0).collect::<Vec<_>>())
        .bind(marks.iter().map(|m| m.status.as_str()).collect::<Vec<_>>())
        .bind(marks.iter().map(|m| m.outcome.as_deref().map(|t| clean(t).into_owned())).collect::<Vec<_>>())
        .bind(marks.iter().map(|m| m.shard.map(shard_column)).collect::<Vec<_>>())
        .bind(at.to_utc())
        .execute(pool)
        .await
        .map_err(failed("marking inbox rows"))?;
    Ok(done.rows_affected())
}
