//! Crowds for the bench: accounts, people and their executions, made in bulk in a scratch database, and what is counted in
//! it afterwards.
//!
//! Everything about a person follows from a number, so that rows, requests and answers can be matched without looking
//! anything up. Ids are UUIDv7 in their form: in the order of an upload, with a random tail, spread over all shards.

use uuid::Uuid;

use crate::domain::account::Channel;
use crate::domain::execution::Execution;
use crate::domain::id::{AccountId, CampaignId, ExecutionId, WorkspaceId};
use crate::domain::time::Timestamp;
use crate::store::row::Columns;
use crate::store::{Error, Pool, failed};

/// The id of the `n`-th row of a kind: a thousand share a millisecond, as rows of an upload do.
macro_rules! id_of {
    ($kind:literal) => {
        concat!(
            "(lpad(to_hex(1767225600000 + n / 1000), 12, '0') || '7' || substr(md5('",
            $kind,
            "' || n), 1, 3) || '8' || substr(md5('",
            $kind,
            "' || n), 4, 15))::uuid"
        )
    };
}

// Foreign keys and the trigger that notes arrivals cost as much as the rows; only a superuser can do without.
const IS_SUPERUSER: &str = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user";
const WITHOUT_TRIGGERS: &str = "SET LOCAL session_replication_role = replica";

// Its expression costs more than the rest of a person's row, and nothing that is measured on such a crowd reads it.
const WITHOUT_PROFILES: &str = "DROP INDEX IF EXISTS campaign_prospects_linkedin";

const ACCOUNTS: &str = "WITH made AS ( \
       INSERT INTO accounts (workspace_id, id, shard, channel, provider, provider_account_id, name, created_at) \
       SELECT $1, u.id, campaignd_shard(u.id), u.channel, $2, u.name, u.name, $6 \
       FROM unnest($3::uuid[], $4::text[], $5::text[]) AS u (id, channel, name) RETURNING workspace_id, id, shard) \
     INSERT INTO account_gate (workspace_id, account_id, shard) SELECT workspace_id, id, shard FROM made";

const PROSPECTS: &str = concat!(
    "INSERT INTO campaign_prospects (id, campaign_id, workspace_id, first_name, last_name, email, linkedin_url, \
       company_name, title, data, created_at) SELECT ",
    id_of!("prospect"),
    ", $1, $2, \
       (ARRAY['Ada','Bela','Carla','David','Elif','Farid','Grace','Hugo','Ines','Jonas'])[1 + n % 10], \
       (ARRAY['Alvarez','Becker','Costa','Dubois','Eriksson','Fischer','Garcia'])[1 + n / 10 % 7], \
       'person.' || n || '@people.example', 'https://www.linkedin.com/in/person-' || n, \
       (ARRAY['Nordwind','Bluebird','Granite Works','Lumen','Orchard'])[1 + n % 5] || ' ' || n % 1000, \
       (ARRAY['Head of Sales','Founder','Operations Manager'])[1 + n % 3], \
       jsonb_build_object('city', (ARRAY['Lisbon','Berlin','Lyon','Oslo'])[1 + n % 4], 'employees', n % 5000), $3 \
     FROM generate_series($4::bigint, $5::bigint - 1) AS n"
);

// One of the two times moves from row to row: the check of a wait, else the due time.
const EXECUTIONS: &str = concat!(
    "INSERT INTO campaign_prospect_execution_state (id, campaign_id, prospect_id, workspace_id, flow_version, step_id, \
       current_step, status, completed_steps, failed_steps, skipped_steps, linkedin_state, waiting_for_trigger, \
       trigger_check_count, trigger_max_checks, next_check_at, last_executed_at, next_execution_at, error_count, version, \
       attempt, send_sequence, channel_accounts, created_at, updated_at) SELECT ",
    id_of!("execution"),
    ", $1, ",
    id_of!("prospect"),
    ", $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14::timestamptz + l.later, $15, $16::timestamptz + CASE WHEN $14 IS NULL THEN l.later \
       ELSE interval '0' END, $17, $18, $19, $20, CASE WHEN cardinality($21::uuid[]) > 0 THEN \
       jsonb_build_object('linkedin', ($21::uuid[])[1 + n % cardinality($21::uuid[])]) END, $22, $22 \
     FROM generate_series($23::bigint, $24::bigint - 1) AS n \
     CROSS JOIN LATERAL (SELECT (n - $27::bigint) * $25::bigint % $26::bigint * interval '1 microsecond' AS later) AS l"
);

const IDENTITIES: &str = concat!(
    "INSERT INTO identities (workspace_id, kind, value, account_id, execution_id, created_at) \
     SELECT $1, 'recipient', 'ACoAABench' || n, ($2::uuid[])[1 + n % cardinality($2::uuid[])], ",
    id_of!("execution"),
    ", $3 FROM generate_series($4::bigint, $5::bigint - 1) AS n"
);

const IDS: &str = concat!("SELECT ", id_of!("execution"), " FROM generate_series($1::bigint, $2::bigint - 1) AS n");

/// A database that was just made: its active campaign.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The campaign everybody is in.
    pub campaign: CampaignId,
    /// The flow version they are pinned to.
    pub flow_version: i32,
    /// When it was made; `created_at` of all rows.
    pub at: Timestamp,
}

/// When the wake-ups of a crowd are laid: `every` after one another from the template's time on, beginning again from there
/// after `within`.
#[derive(Clone, Copy, Debug)]
pub struct Laid {
    /// Who is at the template's time.
    pub first: i64,
    /// Microseconds from one to the next.
    pub every_us: i64,
    /// Microseconds after which they begin again; at least 1.
    pub within_us: i64,
}

impl Laid {
    /// All at the template's time.
    pub const AT_ONCE: Self = Self { first: 0, every_us: 0, within_us: 1 };
}

/// An account to be made.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// Its id with us.
    pub id: AccountId,
    /// What it sends.
    pub channel: Channel,
    /// Its id with the provider, and its name.
    pub name: String,
}

/// Makes accounts with their gates.
///
/// # Errors
/// The database's; so for all of these.
pub async fn make_accounts(pool: &Pool, cast: &Cast, provider: &str, new: &[NewAccount]) -> Result<(), Error> {
    sqlx::query(ACCOUNTS)
        .bind(cast.workspace.0)
        .bind(provider)
        .bind(new.iter().map(|a| a.id.0).collect::<Vec<_>>())
        .bind(new.iter().map(|a| a.channel.as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|a| a.name.as_str()).collect::<Vec<_>>())
        .bind(cast.at.to_utc())
        .execute(pool)
        .await
        .map_err(failed("bench: making accounts"))
        .map(drop)
}

/// What the executions of a crowd are copies of.
#[derive(Clone, Debug)]
pub struct Template {
    /// But for its ids, its wake-up and its accounts.
    pub execution: Execution,
    /// The id of the step it is at.
    pub step_id: String,
    /// Their wake-ups.
    pub laid: Laid,
    /// The LinkedIn accounts they were contacted through, in turns; empty while nobody was.
    pub accounts: Vec<AccountId>,
}

/// Prepares a scratch database for a crowd: people cannot be looked up by profile there any more.
///
/// # Errors
/// The database's.
pub async fn expect_people(pool: &Pool) -> Result<(), Error> {
    sqlx::query(WITHOUT_PROFILES).execute(pool).await.map_err(failed("bench: expecting people")).map(drop)
}

/// Makes people `from..to` and their executions, in one transaction.
///
/// # Errors
/// The database's.
pub async fn make_people(pool: &Pool, cast: &Cast, template: &Template, from: i64, to: i64) -> Result<(), Error> {
    let what = "bench: making people";
    let columns = Columns::encode(&template.execution);
    let laid = template.laid;
    let mut tx = pool.begin().await.map_err(failed(what))?;
    if sqlx::query_scalar(IS_SUPERUSER).fetch_one(&mut *tx).await.map_err(failed(what))? {
        sqlx::query(WITHOUT_TRIGGERS).execute(&mut *tx).await.map_err(failed(what))?;
    }
    sqlx::query(PROSPECTS)
        .bind(cast.campaign.0)
        .bind(cast.workspace.0)
        .bind(cast.at.to_utc())
        .bind(from)
        .bind(to)
        .execute(&mut *tx)
        .await
        .map_err(failed(what))?;
    sqlx::query(EXECUTIONS)
        .bind(cast.campaign.0)
        .bind(cast.workspace.0)
        .bind(cast.flow_version)
        .bind(&template.step_id)
        .bind(columns.current_step)
        .bind(columns.status)
        .bind(columns.completed_steps)
        .bind(columns.failed_steps)
        .bind(columns.skipped_steps)
        .bind(columns.linkedin_state)
        .bind(columns.waiting_for_trigger)
        .bind(columns.trigger_check_count)
        .bind(columns.trigger_max_checks)
        .bind(columns.next_check_at)
        .bind(columns.last_executed_at)
        .bind(columns.next_execution_at)
        .bind(columns.error_count)
        .bind(columns.version)
        .bind(columns.attempt)
        .bind(columns.send_sequence)
        .bind(template.accounts.iter().map(|a| a.0).collect::<Vec<_>>())
        .bind(cast.at.to_utc())
        .bind(from)
        .bind(to)
        .bind(laid.every_us)
        .bind(laid.within_us.max(1))
        .bind(laid.first)
        .execute(&mut *tx)
        .await
        .map_err(failed(what))?;
    tx.commit().await.map_err(failed(what))
}

/// What the provider would have told about people `from..to` when they were invited: `ACoAABench<n>`.
///
/// # Errors
/// The database's.
pub async fn make_identities(
    pool: &Pool,
    cast: &Cast,
    accounts: &[AccountId],
    from: i64,
    to: i64,
) -> Result<(), Error> {
    sqlx::query(IDENTITIES)
        .bind(cast.workspace.0)
        .bind(accounts.iter().map(|a| a.0).collect::<Vec<_>>())
        .bind(cast.at.to_utc())
        .bind(from)
        .bind(to)
        .execute(pool)
        .await
        .map_err(failed("bench: making identities"))
        .map(drop)
}

/// The executions of people `from..to`, in this order.
///
/// # Errors
/// The database's.
pub async fn executions(pool: &Pool, from: i64, to: i64) -> Result<Vec<ExecutionId>, Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(IDS)
        .bind(from)
        .bind(to)
        .fetch_all(pool)
        .await
        .map_err(failed("bench: listing executions"))?;
    Ok(ids.into_iter().map(ExecutionId).collect())
}
