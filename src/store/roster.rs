//! What the runtime keeps in memory of campaigns, flow versions and accounts: small tables, read whole.
//!
//! Called by `runtime::roster`. The rows are the truth; the runtime's copy is refreshed on a hint and every few seconds.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;

use super::{Error, Pool, failed};
use crate::domain::account::{Account, AccountStatus, Channel};
use crate::domain::budget;
use crate::domain::id::{AccountId, CampaignId, WorkspaceId};

/// A campaign as the runtime needs it.
#[derive(Clone, Debug)]
pub struct CampaignRow {
    /// Its id.
    pub id: CampaignId,
    /// Its tenant.
    pub workspace: WorkspaceId,
    /// Whether its prospects move: status `active` (or `running`, as other programs call it).
    pub active: bool,
    /// The version that new executions are pinned to; `None` until its flow has been taken over.
    pub flow_version: Option<i32>,
    /// `flow_settings` as it stands, only while `flow_version` is `None`.
    pub flow_settings: Option<Value>,
    /// The accounts it may use; `None` = every account of its workspace.
    pub accounts: Option<Vec<AccountId>>,
    /// Of two campaigns that want the same slot, the one with the higher number goes first.
    pub priority: i32,
}

const CAMPAIGNS: &str = "
SELECT c.id, c.workspace_id, COALESCE(c.status IN ('active', 'running'), false) AS active, c.flow_version, c.accounts,
       COALESCE(c.send_priority, 0) AS send_priority,
       CASE WHEN c.flow_version IS NULL THEN c.flow_settings END AS flow_settings
FROM campaigns c
WHERE $1::uuid IS NULL OR c.id = $1";

/// All campaigns, or one.
///
/// # Errors
/// The database cannot be asked.
pub async fn campaigns(pool: &Pool, only: Option<CampaignId>) -> Result<Vec<CampaignRow>, Error> {
    let what = failed("reading campaigns");
    let rows = sqlx::query(CAMPAIGNS).bind(only.map(|id| id.0)).fetch_all(pool).await.map_err(&what)?;
    rows.iter()
        .map(|row| {
            Ok(CampaignRow {
                id: CampaignId(row.try_get("id")?),
                workspace: WorkspaceId(row.try_get("workspace_id")?),
                active: row.try_get("active")?,
                flow_version: row.try_get("flow_version")?,
                flow_settings: row.try_get("flow_settings")?,
                accounts: row
                    .try_get::<Option<Vec<Uuid>>, _>("accounts")?
                    .map(|ids| ids.into_iter().map(AccountId).collect()),
                priority: row.try_get("send_priority")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(&what)
}

const FLOW: &str = "SELECT flow FROM flow_versions WHERE campaign_id = $1 AND version = $2";

/// The flow of one version, in the current form.
///
/// # Errors
/// The database cannot be asked.
pub async fn flow(pool: &Pool, campaign: CampaignId, version: i32) -> Result<Option<Value>, Error> {
    sqlx::query_scalar(FLOW)
        .bind(campaign.0)
        .bind(version)
        .fetch_optional(pool)
        .await
        .map_err(failed("reading a flow version"))
}

const PIN_FLOW: &str = "
WITH v AS (
    INSERT INTO flow_versions (workspace_id, campaign_id, version, flow) VALUES ($1, $2, 1, $3)
    ON CONFLICT (workspace_id, campaign_id, version) DO NOTHING
)
UPDATE campaigns SET flow_version = 1 WHERE id = $2 AND flow_version IS NULL";

/// Takes over the flow of a campaign that another program made: stored as version 1. `flow_settings` is left as it is.
///
/// # Errors
/// The database cannot be asked.
pub async fn pin_flow(pool: &Pool, workspace: WorkspaceId, campaign: CampaignId, flow: &Value) -> Result<(), Error> {
    sqlx::query(PIN_FLOW)
        .bind(workspace.0)
        .bind(campaign.0)
        .bind(flow)
        .execute(pool)
        .await
        .map_err(failed("taking over a flow"))
        .map(drop)
}

const ACCOUNTS: &str = "
SELECT workspace_id, id, channel, provider, provider_account_id, name, status, min_gap_ms, limits, created_at
FROM accounts ORDER BY workspace_id, id";

/// All accounts, ordered by id.
///
/// # Errors
/// The database cannot be asked.
pub async fn accounts(pool: &Pool) -> Result<Vec<Account>, Error> {
    let what = failed("reading accounts");
    let rows = sqlx::query(ACCOUNTS).fetch_all(pool).await.map_err(&what)?;
    rows.iter().filter_map(|row| account(row).transpose()).collect::<Result<_, _>>().map_err(&what)
}

/// `None`: a word that is not ours, which the CHECK constraints of the table do not admit. An account whose limits cannot be
/// read (the API writes none that cannot) does not send: without them it might do anything.
fn account(row: &PgRow) -> Result<Option<Account>, sqlx::Error> {
    let (Some(channel), Some(mut status)) =
        (Channel::parse(row.try_get("channel")?), AccountStatus::parse(row.try_get("status")?))
    else {
        return Ok(None);
    };
    let id = AccountId(row.try_get("id")?);
    let limits: Option<Value> = row.try_get("limits")?;
    let budget = match limits.map(|limits| budget::parse(&limits, channel)).transpose() {
        Ok(budget) => budget.map(Arc::new),
        Err(problems) => {
            let problem = problems.first().map(ToString::to_string).unwrap_or_default();
            tracing::error!(account.id = %id, problem, "the limits of this account cannot be read: it does not send until \
                they are corrected (PATCH /v1/accounts/{id})");
            status = AccountStatus::Halted;
            None
        }
    };
    Ok(Some(Account {
        id,
        workspace: WorkspaceId(row.try_get("workspace_id")?),
        channel,
        provider: row.try_get("provider")?,
        provider_account_id: row.try_get("provider_account_id")?,
        name: row.try_get("name")?,
        status,
        min_gap_ms: u32::try_from(row.try_get::<i32, _>("min_gap_ms")?).unwrap_or(0),
        budget,
        since: row.try_get::<DateTime<Utc>, _>("created_at")?.into(),
    }))
}
