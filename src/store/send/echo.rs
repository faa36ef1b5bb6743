//! What was said to a person, for telling a message of ours from one that somebody typed.

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::domain::echo::Said;
use crate::domain::id::{AccountId, ExecutionId, SendId, WorkspaceId};
use crate::domain::send::{Action, SendStatus};
use crate::store::{Error, Pool, failed};

/// Most sends to one person that are looked at, newest first.
const SAID_MAX: i64 = 200;

macro_rules! said {
    ($from:literal) => {
        concat!(
            "SELECT s.execution_id, s.action, s.status, s.parked_at IS NOT NULL, s.subject, s.body, s.id, s.account_id, ",
            "s.created_at, coalesce(s.receipt ?| '{message_id,tracking_id}', false) ",
            $from
        )
    };
}

// OFFSET 0 keeps the look-up by its key, also in a plan that was made while the tables were empty: see the claim.
const SAID: &str = said!(
    "FROM unnest($1::uuid[]) AS want(id) \
    CROSS JOIN LATERAL (SELECT * FROM sends s WHERE s.execution_id = want.id \
        AND (s.status IN ('dispatching', 'sent', 'unknown') OR s.status = 'pending' AND s.dispatch_count > 0) OFFSET 0) s \
    ORDER BY s.created_at DESC LIMIT $2"
);

const IN_HAND: &str = said!(
    "FROM account_gate g \
    CROSS JOIN LATERAL (SELECT * FROM sends s WHERE s.workspace_id = g.workspace_id AND s.id = g.in_flight OFFSET 0) s \
    WHERE g.workspace_id = $1 AND g.account_id = $2"
);

const OF_SEND: &str = "SELECT s.execution_id FROM sends s WHERE s.workspace_id = $1 AND s.id = $2 LIMIT 1";

/// The claimed sends of these executions that were, or may have been, carried out, or are to be again.
///
/// # Errors
/// When Postgres cannot be asked, or a row cannot be read.
pub async fn said(pool: &Pool, executions: &[ExecutionId]) -> Result<Vec<Said>, Error> {
    let what = failed("reading what was said");
    let rows = sqlx::query(SAID)
        .bind(executions.iter().map(|id| id.0).collect::<Vec<_>>())
        .bind(SAID_MAX)
        .fetch_all(pool)
        .await
        .map_err(&what)?;
    rows.iter().map(from_row).collect()
}

/// The send that an account has in hand now, whoever it is to.
///
/// # Errors
/// When Postgres cannot be asked, or the row cannot be read.
pub async fn in_hand(pool: &Pool, workspace: WorkspaceId, account: AccountId) -> Result<Option<Said>, Error> {
    let what = failed("reading what an account has in hand");
    let row = sqlx::query(IN_HAND).bind(workspace.0).bind(account.0).fetch_optional(pool).await.map_err(&what)?;
    row.as_ref().map(from_row).transpose()
}

/// Whose send this is.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn of_send(pool: &Pool, workspace: WorkspaceId, send: SendId) -> Result<Option<ExecutionId>, Error> {
    let id: Option<Uuid> = sqlx::query_scalar(OF_SEND)
        .bind(workspace.0)
        .bind(send.0)
        .fetch_optional(pool)
        .await
        .map_err(failed("finding the execution of a send"))?;
    Ok(id.map(ExecutionId))
}

fn from_row(row: &PgRow) -> Result<Said, Error> {
    let what = failed("reading a send");
    let id: Uuid = row.try_get(0).map_err(&what)?;
    let (action, status): (&str, &str) = (row.try_get(1).map_err(&what)?, row.try_get(2).map_err(&what)?);
    let wrong =
        |reason: &str| Error::Decode { what: "send of execution", id: id.to_string(), reason: reason.to_owned() };
    Ok(Said {
        execution: ExecutionId(id),
        action: Action::parse(action).ok_or_else(|| wrong("its action is not known"))?,
        status: SendStatus::parse(status).ok_or_else(|| wrong("its status is not known"))?,
        parked: row.try_get(3).map_err(&what)?,
        subject: row.try_get(4).map_err(&what)?,
        text: row.try_get(5).map_err(&what)?,
        send: SendId(row.try_get(6).map_err(&what)?),
        account: AccountId(row.try_get(7).map_err(&what)?),
        decided_at: row.try_get::<DateTime<Utc>, _>(8).map_err(&what)?.into(),
        named: row.try_get(9).map_err(&what)?,
    })
}
