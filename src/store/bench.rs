//! What `campaignd bench` asks of Postgres beside the engine: scratch databases, and what the server has counted.
//!
//! A run is a session that stands for as long as the run, with the run's name as its `application_name`, which every role
//! can see on the whole server. Scratch databases have the run's name in theirs: one whose run has no session was left
//! behind by a process that is gone.

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::{Error, Pool, failed};

pub mod floor;
pub mod people;
pub mod seen;

/// What the names of runs and of their databases begin with.
const PREFIX: &str = "campaignd_bench_";

const MAY_CREATE: &str = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user";
const ROLE: &str = "SELECT current_user::text";
const HAS_CAMPAIGNS: &str = "SELECT to_regclass('public.campaigns') IS NOT NULL";
const ANY_CAMPAIGN: &str = "SELECT EXISTS (SELECT 1 FROM public.campaigns)";
// The pattern is exact: nothing that anybody else may have called so is taken for ours. Databases of roles that we are no
// member of could not be dropped anyway.
const LEFT_BEHIND: &str = "SELECT d.datname::text FROM pg_database d \
    WHERE d.datname ~ '^campaignd_bench_[0-9a-f]{12}_[0-9]+$' AND pg_has_role(d.datdba, 'USAGE') \
    AND NOT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.application_name = left(d.datname, 28)) \
    AND NOT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.datid = d.oid)";
const SETTINGS: &str =
    "SELECT name, current_setting(name) FROM unnest($1::text[]) WITH ORDINALITY AS s (name, n) ORDER BY n";
const VERSION: &str = "SELECT current_setting('server_version')";
const WAL: &str = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint, wal_records, wal_fpi, \
    wal_buffers_full FROM pg_stat_wal";
const TABLES: &str = "SELECT t.root::text, sum(s.n_tup_ins)::bigint, sum(s.n_tup_upd)::bigint, \
        sum(s.n_tup_hot_upd)::bigint, sum(s.n_dead_tup)::bigint, \
        sum(pg_relation_size(s.relid))::bigint, sum(pg_indexes_size(s.relid))::bigint \
    FROM pg_stat_user_tables s \
    CROSS JOIN LATERAL (SELECT coalesce(pg_partition_root(s.relid), s.relid)::regclass) AS t (root) \
    WHERE t.root::text = ANY($1) GROUP BY 1";
const FLUSH: &str = "SELECT pg_stat_force_next_flush()";
const CHECKPOINT: &str = "CHECKPOINT";
const ANALYSE: &str = "VACUUM (ANALYZE)";

/// The settings that decide how fast Postgres writes, as a report shows them.
pub const SHOWN_SETTINGS: &[&str] = &[
    "shared_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "wal_compression",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_buffers",
    "commit_delay",
    "autovacuum",
    "jit",
    "data_checksums",
    "max_connections",
];

/// A run of the bench as the server sees it: the session that says that it lives.
#[derive(Debug)]
pub struct Run {
    name: String,
    session: PgConnection,
}

impl Run {
    /// Enters a run. `id`: twelve hexadecimal digits, new at every run.
    ///
    /// # Errors
    /// When Postgres does not let us in.
    pub async fn enter(url: &str, id: &str) -> Result<Self, Error> {
        let name = format!("{PREFIX}{id}");
        let options: PgConnectOptions =
            url.parse().map_err(|_: sqlx::Error| Error::Address("it cannot be read".to_owned()))?;
        let session = PgConnection::connect_with(&options.application_name(&name))
            .await
            .map_err(failed("entering a run of the bench"))?;
        Ok(Self { name, session })
    }

    /// The name of this run's `number`-th database.
    pub fn database(&self, number: u32) -> String {
        format!("{}_{number}", self.name)
    }

    /// Ends it. Its databases are anybody's to drop from here on.
    pub async fn leave(self) {
        let _ = self.session.close().await;
    }
}

/// Whether our role may make databases; and its name.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn may_create(pool: &Pool) -> Result<(bool, String), Error> {
    let what = failed("asking for the rights of the role");
    let may: Option<bool> = sqlx::query_scalar(MAY_CREATE).fetch_optional(pool).await.map_err(&what)?;
    let role = sqlx::query_scalar(ROLE).fetch_one(pool).await.map_err(&what)?;
    Ok((may.unwrap_or(false), role))
}

/// Whether the database holds campaigns: then it is somebody's, and no place for a bench.
///
/// # Errors
/// When Postgres cannot be asked, or does not let us look.
pub async fn holds_campaigns(pool: &Pool) -> Result<bool, Error> {
    let what = failed("looking for campaigns");
    if !sqlx::query_scalar::<_, bool>(HAS_CAMPAIGNS).fetch_one(pool).await.map_err(&what)? {
        return Ok(false);
    }
    sqlx::query_scalar(ANY_CAMPAIGN).fetch_one(pool).await.map_err(&what)
}

/// Databases of runs that are gone.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn left_behind(pool: &Pool) -> Result<Vec<String>, Error> {
    sqlx::query_scalar(LEFT_BEHIND).fetch_all(pool).await.map_err(failed("looking for databases of earlier runs"))
}

/// Makes an empty database. Its name is one of [`Run::database`].
///
/// # Errors
/// When Postgres refuses.
pub async fn create_database(pool: &Pool, name: &str) -> Result<(), Error> {
    run_on(pool, name, "making a scratch database", |name| format!("CREATE DATABASE {name} TEMPLATE template0")).await
}

/// Drops a database that nobody is connected to.
///
/// # Errors
/// When somebody is, or Postgres refuses.
pub async fn drop_unused(pool: &Pool, name: &str) -> Result<(), Error> {
    run_on(pool, name, "dropping a scratch database", |name| format!("DROP DATABASE IF EXISTS {name}")).await
}

/// Drops a database of this run, whoever is still connected to it.
///
/// # Errors
/// When Postgres refuses.
pub async fn drop_database(pool: &Pool, name: &str) -> Result<(), Error> {
    run_on(pool, name, "dropping a scratch database", |name| format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        .await
}

/// A database's name is no parameter: it stands in the statement. So nothing but our own names gets this far. The copy
/// or the removal of a large one may take longer than a statement of the pool.
async fn run_on(pool: &Pool, name: &str, what: &'static str, statement: impl Fn(&str) -> String) -> Result<(), Error> {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !plain || !name.starts_with(PREFIX) {
        return Err(Error::Conflict { what: "scratch database", id: name.to_owned() });
    }
    let mut connection =
        PgConnection::connect_with(&pool.connect_options().as_ref().clone().options([("statement_timeout", "0")]))
            .await
            .map_err(failed(what))?;
    let done = sqlx::query(AssertSqlSafe(statement(name))).execute(&mut connection).await.map_err(failed(what));
    let _ = connection.close().await;
    done.map(drop)
}

/// The server's version and its [`SHOWN_SETTINGS`].
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn settings(pool: &Pool) -> Result<(String, Vec<(String, String)>), Error> {
    let what = failed("reading the server's settings");
    let version = sqlx::query_scalar(VERSION).fetch_one(pool).await.map_err(&what)?;
    let settings = sqlx::query_as(SETTINGS).bind(SHOWN_SETTINGS).fetch_all(pool).await.map_err(&what)?;
    Ok((version, settings))
}

/// What the server wrote since it was made. It is the whole server's: subtract two of them, with nobody else on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wal {
    /// Bytes, exact and up to this moment.
    pub bytes: i64,
    /// Records; sessions report them once a second.
    pub records: i64,
    /// Whole pages in it, as they are written first after a checkpoint.
    pub full_pages: i64,
    /// How often it had to be written because its buffers were full.
    pub buffers_full: i64,
}

impl Wal {
    /// What was written since `before`.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            bytes: self.bytes - before.bytes,
            records: self.records - before.records,
            full_pages: self.full_pages - before.full_pages,
            buffers_full: self.buffers_full - before.buffers_full,
        }
    }
}

/// Reads what the server wrote.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn wal(pool: &Pool) -> Result<Wal, Error> {
    let what = failed("reading what was written");
    let row = sqlx::query(WAL).fetch_one(pool).await.map_err(&what)?;
    let get = |n: usize| row.try_get::<i64, _>(n).map_err(&what);
    Ok(Wal { bytes: get(0)?, records: get(1)?, full_pages: get(2)?, buffers_full: get(3)? })
}

/// What was done to a table since it was made; its partitions count with it. Sessions report it once a second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Rows inserted.
    pub inserted: i64,
    /// Rows updated.
    pub updated: i64,
    /// Of these, without touching an index.
    pub hot: i64,
    /// Dead rows now.
    pub dead: i64,
    /// Bytes of its rows now.
    pub bytes: i64,
    /// Bytes of its indexes now.
    pub index_bytes: i64,
}

/// Reads what was done to tables.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn tables(pool: &Pool, names: &[&str]) -> Result<Vec<Table>, Error> {
    let what = failed("reading what was done to tables");
    let mut connection = pool.acquire().await.map_err(&what)?;
    sqlx::query(FLUSH).execute(&mut *connection).await.map_err(&what)?;
    let rows = sqlx::query(TABLES).bind(names).fetch_all(&mut *connection).await.map_err(&what)?;
    let read = |row: &sqlx::postgres::PgRow| {
        Ok(Table {
            name: row.try_get(0)?,
            inserted: row.try_get(1)?,
            updated: row.try_get(2)?,
            hot: row.try_get(3)?,
            dead: row.try_get(4)?,
            bytes: row.try_get(5)?,
            index_bytes: row.try_get(6)?,
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(&what)
}

/// Brings the tables into the shape they have in the long run: visible to all, with statistics, and everything on disk. A
/// role that may not make a checkpoint goes without.
///
/// # Errors
/// When Postgres refuses the rest.
pub async fn settle(pool: &Pool) -> Result<(), Error> {
    let what = failed("vacuuming a scratch database");
    let options = pool.connect_options().as_ref().clone().options([("statement_timeout", "0")]);
    let mut connection = PgConnection::connect_with(&options).await.map_err(&what)?;
    sqlx::query(ANALYSE).execute(&mut connection).await.map_err(&what)?;
    if let Err(error) = sqlx::query(CHECKPOINT).execute(&mut connection).await {
        tracing::debug!(%error, "no checkpoint before a measurement");
    }
    let _ = connection.close().await;
    Ok(())
}
