//! What `campaignd doctor` asks the database. Reads only, and takes no lock that anybody waits for.

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use uuid::Uuid;

use super::{Error, Pool, failed};
use crate::domain::time::Timestamp;

const SERVER: &str = "SELECT current_setting('server_version'), current_setting('server_version_num')::int, \
    current_user::text, clock_timestamp(), pg_is_in_recovery(), \
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int";
/// Tables of which the engine reads and writes rows, and what the role lacks on them. Row-level security without a policy
/// shows no rows to whoever is neither the owner nor above it.
const RIGHTS: &str = "SELECT c.relname::text, \
        NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') \
            AND has_table_privilege(c.oid, 'UPDATE')) AS lacks, \
        row_security_active(c.oid) AND NOT pg_has_role(c.relowner, 'USAGE') AS hidden \
    FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') \
    AND c.relname IN ('campaigns', 'campaign_prospects', 'campaign_prospect_execution_state', 'execution_arrivals', \
        'flow_versions', 'transitions', 'sends', 'accounts', 'account_gate', 'identities', 'inbox', 'account_catch_up', \
        'suppressions', 'link_secrets', 'api_keys', 'webhook_endpoints', 'node', 'shard_lease', 'campaignd_migrations') \
    ORDER BY 1";
/// A partition is made by an owner of its parent only. Null where there are no tables yet.
const MAY_PARTITION: &str = "SELECT bool_and(pg_has_role(relowner, 'USAGE')) AND has_schema_privilege('public', 'CREATE') \
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname IN ('sends', 'transitions')";
/// The liveness lock (see `lease`) is looked for among the locks that are held, not tried.
const OWNERS: &str = "SELECT l.owner, count(*), n.lease_until, n.build, \
        coalesce(n.lease_until > clock_timestamp(), false) AS current, \
        EXISTS (SELECT FROM pg_locks k WHERE k.locktype = 'advisory' AND k.granted AND k.objsubid = 1 \
            AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
            AND (k.classid::bigint << 32 | k.objid::bigint) = hashtextextended(l.owner::text, 6161)) AS lives \
    FROM shard_lease l LEFT JOIN node n ON n.id = l.owner AND n.incarnation = l.incarnation \
    GROUP BY l.owner, n.lease_until, n.build ORDER BY 2 DESC LIMIT 20";
const ACCOUNTS: &str = "SELECT id, name, channel, provider, provider_account_id, status, status_reason, limits IS NULL \
    FROM accounts WHERE status <> 'disabled' ORDER BY channel, name LIMIT 1000";
const PARKED: &str = "SELECT count(*), min(parked_at) FROM sends WHERE status = 'unknown' AND parked_at IS NOT NULL";
const BACKLOG: &str = "SELECT count(*) FILTER (WHERE status = 'received'), \
        min(received_at) FILTER (WHERE status = 'received'), \
        count(*) FILTER (WHERE status = 'failed' AND received_at > $1) FROM inbox";
const CAMPAIGNS: &str = "SELECT count(*), \
        count(*) FILTER (WHERE flow_settings::text LIKE '%unsubscribe_url%') FROM campaigns WHERE status = 'active'";

/// What the server says about itself and us.
#[derive(Clone, Debug)]
pub struct Server {
    /// As people write it.
    pub version: String,
    /// As `server_version_num` counts.
    pub number: i32,
    /// Who we are.
    pub role: String,
    /// Its clock.
    pub clock: Timestamp,
    /// It follows another one and takes no writes.
    pub is_standby: bool,
    /// Connections that it has for everybody.
    pub connections: i32,
}

/// What our role lacks.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    /// Tables that it may not read and write.
    pub lacks: Vec<String>,
    /// Tables whose rows are hidden from it.
    pub hidden: Vec<String>,
    /// Whether it can make next month's partitions; true where there are no tables yet, and it can make them.
    pub may_partition: bool,
}

/// Somebody who has shards, or nobody.
#[derive(Clone, Debug)]
pub struct Owner {
    /// `None`: these shards are free.
    pub node: Option<Uuid>,
    /// How many.
    pub shards: i64,
    /// Until when, by the database's clock.
    pub until: Option<DateTime<Utc>>,
    /// Its version.
    pub build: Option<String>,
    /// The lease has not run out.
    pub is_current: bool,
    /// Its process lives: it holds its lock.
    pub lives: bool,
}

/// An account that should send.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Its id.
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// What it sends.
    pub channel: String,
    /// What carries it.
    pub provider: String,
    /// Its id there.
    pub provider_account_id: String,
    /// `active` or `halted`.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// Nobody has said how much it may do.
    pub is_unlimited: bool,
}

/// What waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Sends that a person has to decide.
    pub parked: i64,
    /// Since when the oldest of them.
    pub parked_since: Option<DateTime<Utc>>,
    /// Facts that were not applied yet.
    pub facts: i64,
    /// When the oldest of them came in.
    pub facts_since: Option<DateTime<Utc>>,
    /// Facts of the last day that cannot be read.
    pub unreadable: i64,
    /// Active campaigns.
    pub campaigns: i64,
    /// Active campaigns whose texts have a link to unsubscribe.
    pub with_links: i64,
}

impl Rights {
    /// Whether it can be seen which migrations were applied.
    pub fn see_migrations(&self) -> bool {
        !self.lacks.iter().chain(&self.hidden).any(|table| table == "campaignd_migrations")
    }
}

/// Asks the server about itself.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn server(pool: &Pool) -> Result<Server, Error> {
    let what = failed("asking the server about itself");
    let row = sqlx::query(SERVER).fetch_one(pool).await.map_err(&what)?;
    let read = || -> Result<Server, sqlx::Error> {
        Ok(Server {
            version: row.try_get(0)?,
            number: row.try_get(1)?,
            role: row.try_get(2)?,
            clock: row.try_get::<DateTime<Utc>, _>(3)?.into(),
            is_standby: row.try_get(4)?,
            connections: row.try_get(5)?,
        })
    };
    read().map_err(&what)
}

/// Looks at what the role may do.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn rights(pool: &Pool) -> Result<Rights, Error> {
    let what = failed("looking at the rights of the role");
    let rows: Vec<(String, bool, bool)> = sqlx::query_as(RIGHTS).fetch_all(pool).await.map_err(&what)?;
    let may: Option<bool> = sqlx::query_scalar(MAY_PARTITION).fetch_one(pool).await.map_err(&what)?;
    let mut rights = Rights { may_partition: may.unwrap_or(true), ..Rights::default() };
    for (table, lacks, hidden) in rows {
        if lacks {
            rights.lacks.push(table);
        } else if hidden {
            rights.hidden.push(table);
        }
    }
    Ok(rights)
}

/// Who has the shards.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn owners(pool: &Pool) -> Result<Vec<Owner>, Error> {
    let what = failed("looking at the leases");
    let rows = sqlx::query(OWNERS).fetch_all(pool).await.map_err(&what)?;
    rows.iter()
        .map(|row| {
            Ok(Owner {
                node: row.try_get(0)?,
                shards: row.try_get(1)?,
                until: row.try_get(2)?,
                build: row.try_get(3)?,
                is_current: row.try_get(4)?,
                lives: row.try_get(5)?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(&what)
}

/// Accounts that are not switched off, of all workspaces.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn senders(pool: &Pool) -> Result<Vec<Sender>, Error> {
    let what = failed("looking at the accounts");
    let rows = sqlx::query(ACCOUNTS).fetch_all(pool).await.map_err(&what)?;
    rows.iter()
        .map(|row| {
            Ok(Sender {
                id: row.try_get(0)?,
                name: row.try_get(1)?,
                channel: row.try_get(2)?,
                provider: row.try_get(3)?,
                provider_account_id: row.try_get(4)?,
                status: row.try_get(5)?,
                reason: row.try_get(6)?,
                is_unlimited: row.try_get(7)?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(&what)
}

/// What waits for somebody, at this time of the rows' clock.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn waiting(pool: &Pool, now: Timestamp) -> Result<Waiting, Error> {
    let what = failed("looking at what waits");
    let day = std::time::Duration::from_secs(24 * 3600);
    let (parked, parked_since) = sqlx::query_as(PARKED).fetch_one(pool).await.map_err(&what)?;
    let (facts, facts_since, unreadable) =
        sqlx::query_as(BACKLOG).bind((now - day).to_utc()).fetch_one(pool).await.map_err(&what)?;
    let (campaigns, with_links) = sqlx::query_as(CAMPAIGNS).fetch_one(pool).await.map_err(&what)?;
    Ok(Waiting { parked, parked_since, facts, facts_since, unreadable, campaigns, with_links })
}
