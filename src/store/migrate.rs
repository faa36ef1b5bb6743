//! Brings a database up to date: an empty one, or one that the seed's system has been running on.
//!
//! Owns the embedded migrations and the look at the database before them. What cannot be adopted is refused by name before
//! anything is changed; everything that is done then happens in one transaction a migration. Called by `campaignd migrate`
//! and, at start, by `serve` and `demo`.

use std::sync::LazyLock;

use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection, PgPool};

use crate::domain::time::Timestamp;

/// The oldest Postgres that is supported, as `server_version_num` counts.
pub const POSTGRES_MIN: i32 = 150_000;

/// Months of partitions that are kept ready, the current one included. A statement that looks a send up pays for each of
/// them, the empty ones too; the runtime makes more as time goes on.
pub const MONTHS_AHEAD: u32 = 2;

/// The migrations, with a table of their own name: the database may belong to a project that uses sqlx as well.
static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!();
    migrator.dangerous_set_table_name("public.campaignd_migrations");
    // `migrate` holds a lock of its own, which covers the look at the database as well.
    migrator.set_locking(false);
    migrator
});

/// What [`migrate`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The migrations that were applied now, as `1 seed`.
    pub applied: Vec<String>,
    /// What was found in the database before the first migration; `None` when there was no execution table.
    pub adopted: Option<Adopted>,
    /// Nothing had to be done.
    pub already_up_to_date: bool,
}

/// Rows of another program that were taken over where they stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// Rows of the execution table.
    pub executions: i64,
    /// Of these, the ones in mid-flow: neither completed nor failed.
    pub open: i64,
}

/// Why a database was not brought up to date. It was left as it was, except for migrations that had succeeded before.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The server is too old.
    #[error("postgres {found} is too old: campaignd needs 15 or newer (upgrade the server, or use another one)")]
    TooOld {
        /// The server's own words for its version.
        found: String,
    },
    /// The role may not do it.
    #[error(
        "role `{role}` may not {what}: connect as the owner of the tables (or as a role that is granted it), \
         or let such a role run `campaignd migrate` once"
    )]
    NoPrivilege {
        /// Who we are connected as.
        role: String,
        /// What it was not allowed to do.
        what: String,
    },
    /// Tables of another program have the names of ours.
    #[error(
        "these tables exist already and are not campaignd's: {}. nothing was changed: rename them \
         (ALTER TABLE .. RENAME TO ..), or give campaignd a database of its own", tables.join(", ")
    )]
    ForeignTables {
        /// Their names.
        tables: Vec<String>,
    },
    /// Columns of an adopted table have types that the engine cannot work with.
    #[error("cannot adopt the tables of this database: {}. nothing was changed", problems.join("; "))]
    NotAdoptable {
        /// One sentence a column.
        problems: Vec<String>,
    },
    /// Time columns cannot be converted because something depends on their type.
    #[error(
        "time columns have to become timestamptz, but these depend on them: {}. nothing was changed: drop them, \
         migrate, and create them again", dependents.join(", ")
    )]
    DependentObjects {
        /// As Postgres describes them: `view due_list (column campaign_prospect_execution_state.next_execution_at)`.
        dependents: Vec<String>,
    },
    /// The database has migrations that this program does not know.
    #[error("the database has migration {0}, which this campaignd does not know: use the newer campaignd that made it")]
    Newer(i64),
    /// A migration in the database is not the one this program would apply.
    #[error("migration {0} in the database differs from this program's: use the campaignd that applied it")]
    Changed(i64),
    /// A migration failed; it was rolled back as a whole.
    #[error("migration {version} failed and was rolled back")]
    Failed {
        /// Its number.
        version: i64,
        /// What Postgres said.
        source: sqlx::Error,
    },
    /// The connection or the server failed.
    #[error("postgres failed while migrating")]
    Database(#[from] sqlx::Error),
    /// The migrations themselves are at fault.
    #[error("the migrations cannot be run")]
    Migrator(#[source] sqlx::migrate::MigrateError),
}

/// How a database's schema stands to this program's migrations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Every migration of this program was applied, and no other.
    Current,
    /// These are missing; all of them where nobody has migrated yet.
    Behind {
        /// Their numbers.
        missing: Vec<i64>,
    },
    /// A newer campaignd has applied more.
    Newer {
        /// The highest number.
        version: i64,
    },
    /// One is another than this program's with its number.
    Changed {
        /// Its number.
        version: i64,
    },
}

impl Standing {
    /// Whether this program can work with it. A newer one may have brought it further: its changes are made so that this one
    /// goes on.
    pub const fn is_usable(&self) -> bool {
        matches!(self, Self::Current | Self::Newer { .. })
    }
}

/// Looks at the schema and changes nothing.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn standing(pool: &PgPool) -> Result<Standing, super::Error> {
    let mut conn = pool.acquire().await.map_err(super::failed("looking at the schema"))?;
    standing_of(&mut conn).await
}

/// The same over a connection of the caller's.
pub(super) async fn standing_of(conn: &mut PgConnection) -> Result<Standing, super::Error> {
    let applied = applied(conn).await.map_err(super::failed("looking at the schema"))?;
    let known = |version: i64| MIGRATOR.iter().find(|m| m.version == version);
    let changed = applied.iter().find(|(version, sum)| known(*version).is_some_and(|m| *m.checksum != **sum));
    if let Some((version, _)) = changed {
        return Ok(Standing::Changed { version: *version });
    }
    let is_applied = |version: i64| applied.iter().any(|(other, _)| *other == version);
    let missing: Vec<i64> = MIGRATOR.iter().map(|m| m.version).filter(|version| !is_applied(*version)).collect();
    if !missing.is_empty() {
        return Ok(Standing::Behind { missing });
    }
    let newest = applied.iter().map(|(version, _)| *version).max().unwrap_or_default();
    Ok(if known(newest).is_some() { Standing::Current } else { Standing::Newer { version: newest } })
}

/// Brings the schema up to date and makes the partitions of the coming year. Doing it again changes nothing; several
/// processes that do it at once take turns.
pub async fn migrate(pool: &PgPool) -> Result<Report, MigrateError> {
    let mut conn = pool.acquire().await?;
    let version: i32 = sqlx::query_scalar(VERSION).fetch_one(&mut *conn).await?;
    if version < POSTGRES_MIN {
        let found = sqlx::query_scalar(VERSION_TEXT).fetch_one(&mut *conn).await?;
        return Err(MigrateError::TooOld { found });
    }
    let mut report = Report { applied: Vec::new(), adopted: None, already_up_to_date: true };
    if !up_to_date(&applied(&mut conn).await?) {
        sqlx::query(LOCK).execute(&mut *conn).await?;
        match run(&mut conn).await {
            Ok(done) => report = done,
            Err(error) => {
                // Not returned to the pool: it holds the lock. Closing it lets go.
                conn.detach().close().await.ok();
                return Err(error);
            }
        }
        sqlx::query(UNLOCK).execute(&mut *conn).await?;
    }
    // By the database's clock: at this point there is no other.
    sqlx::query(ENSURE_FROM_NOW).bind(MONTHS_AHEAD.cast_signed()).execute(&mut *conn).await?;
    Ok(report)
}

/// Applies what is missing, under the lock. Another process may have done it while we waited for it.
async fn run(conn: &mut PgConnection) -> Result<Report, MigrateError> {
    let before = applied(conn).await?;
    if up_to_date(&before) {
        return Ok(Report { applied: Vec::new(), adopted: None, already_up_to_date: true });
    }
    preflight(conn, &before).await?;
    let adopted = if before.is_empty() { count_adopted(conn).await? } else { None };
    if before.is_empty() {
        sqlx::query(NOTE_FOUND).execute(&mut *conn).await?;
    }
    if let Err(error) = MIGRATOR.run_direct(None, conn, false).await {
        let role = sqlx::query_scalar(ROLE).fetch_one(conn).await.unwrap_or_default();
        return Err(name_failure(error, role));
    }
    let applied = MIGRATOR
        .iter()
        .filter(|m| !before.iter().any(|(version, _)| *version == m.version))
        .map(|m| format!("{} {}", m.version, m.description))
        .collect();
    Ok(Report { applied, adopted, already_up_to_date: false })
}

/// Makes the missing month partitions of `transitions` and `sends`, for `months` months from the one of `from` (UTC), and
/// gives the names of the new ones. A month that already has rows in the default partition is left there.
pub async fn ensure_partitions(pool: &PgPool, from: Timestamp, months: u32) -> Result<Vec<String>, super::Error> {
    sqlx::query_scalar(ENSURE)
        .bind(from.to_utc())
        .bind(months.cast_signed())
        .fetch_all(pool)
        .await
        .map_err(super::failed("making partitions"))
}

/// Whether every migration of this program was applied, and no other.
fn up_to_date(applied: &[(i64, Vec<u8>)]) -> bool {
    applied.len() == MIGRATOR.iter().count()
        && MIGRATOR.iter().zip(applied).all(|(m, (version, sum))| m.version == *version && *m.checksum == **sum)
}

/// Migrations in the database, by number, with their checksums.
async fn applied(conn: &mut PgConnection) -> Result<Vec<(i64, Vec<u8>)>, sqlx::Error> {
    if sqlx::query_scalar(HAS_MIGRATIONS).fetch_one(&mut *conn).await? {
        sqlx::query_as(APPLIED).fetch_all(conn).await
    } else {
        Ok(Vec::new())
    }
}

/// Looks for everything that would make a migration fail half-way, or do harm, and says so first.
async fn preflight(conn: &mut PgConnection, applied: &[(i64, Vec<u8>)]) -> Result<(), MigrateError> {
    let role: String = sqlx::query_scalar(ROLE).fetch_one(&mut *conn).await?;
    if !sqlx::query_scalar(MAY_CREATE).fetch_one(&mut *conn).await? {
        return Err(MigrateError::NoPrivilege { role, what: "create tables in schema public".to_owned() });
    }
    for (migration, names) in [(2, FOREIGN_TABLES), (6, FOREIGN_SUPPRESSIONS)] {
        if !applied.iter().any(|(version, _)| *version == migration) {
            let tables: Vec<String> = sqlx::query_scalar(names).fetch_all(&mut *conn).await?;
            if !tables.is_empty() {
                return Err(MigrateError::ForeignTables { tables });
            }
        }
    }
    if applied.is_empty() {
        let foreign: Vec<String> = sqlx::query_scalar(NOT_OWNED).fetch_all(&mut *conn).await?;
        if !foreign.is_empty() {
            return Err(MigrateError::NoPrivilege { role, what: format!("alter {}", foreign.join(", ")) });
        }
        let problems: Vec<String> = sqlx::query_scalar(WRONG_TYPES).fetch_all(&mut *conn).await?;
        if !problems.is_empty() {
            return Err(MigrateError::NotAdoptable { problems });
        }
        let dependents: Vec<String> = sqlx::query_scalar(DEPENDENTS).fetch_all(&mut *conn).await?;
        if !dependents.is_empty() {
            return Err(MigrateError::DependentObjects { dependents });
        }
    }
    Ok(())
}

/// Counts what is about to be adopted.
async fn count_adopted(conn: &mut PgConnection) -> Result<Option<Adopted>, sqlx::Error> {
    if !sqlx::query_scalar(HAS_EXECUTIONS).fetch_one(&mut *conn).await? {
        return Ok(None);
    }
    let (executions, open) = sqlx::query_as(COUNT_EXECUTIONS).fetch_one(conn).await?;
    Ok(Some(Adopted { executions, open }))
}

/// Turns sqlx's error into one that says how to mend it.
fn name_failure(error: sqlx::migrate::MigrateError, role: String) -> MigrateError {
    use sqlx::migrate::MigrateError as E;
    match error {
        E::VersionMissing(version) => MigrateError::Newer(version),
        E::VersionMismatch(version) => MigrateError::Changed(version),
        E::Execute(source) | E::ExecuteMigration(source, _)
            if source.as_database_error().and_then(|e| e.code()).as_deref() == Some("42501") =>
        {
            let what = source.as_database_error().map_or_else(String::new, |e| format!("do this ({})", e.message()));
            MigrateError::NoPrivilege { role, what }
        }
        E::ExecuteMigration(source, version) => MigrateError::Failed { version, source },
        E::Execute(source) => MigrateError::Database(source),
        other => MigrateError::Migrator(other),
    }
}

const VERSION: &str = "SELECT current_setting('server_version_num')::integer";
const VERSION_TEXT: &str = "SELECT current_setting('server_version')";
const LOCK: &str = "SELECT pg_advisory_lock(hashtextextended('campaignd_migrate', 0))";
const UNLOCK: &str = "SELECT pg_advisory_unlock(hashtextextended('campaignd_migrate', 0))";
const ROLE: &str = "SELECT current_user::text";
const HAS_MIGRATIONS: &str = "SELECT to_regclass('public.campaignd_migrations') IS NOT NULL";
const APPLIED: &str = "SELECT version, checksum FROM public.campaignd_migrations WHERE success ORDER BY version";
const MAY_CREATE: &str = "SELECT has_schema_privilege('public', 'CREATE')";
const HAS_EXECUTIONS: &str = "SELECT to_regclass('public.campaign_prospect_execution_state') IS NOT NULL";
/// For 0003, which drops indexes of ours, and 0005, which drops foreign keys: what was there before us.
const NOTE_FOUND: &str = "
    SELECT set_config('campaignd.found_indexes', coalesce((SELECT string_agg(indexname, ',') FROM pg_indexes
            WHERE schemaname = 'public' AND tablename = 'campaign_prospect_execution_state'), ''), false),
        set_config('campaignd.found_tables', coalesce((SELECT string_agg(tablename, ',') FROM pg_tables
            WHERE schemaname = 'public'), ''), false)";
const COUNT_EXECUTIONS: &str = "
    SELECT count(*), count(*) FILTER (WHERE to_jsonb(s) ->> 'status' IS DISTINCT FROM 'completed'
                                        AND to_jsonb(s) ->> 'status' IS DISTINCT FROM 'failed')
    FROM public.campaign_prospect_execution_state s";
const ENSURE: &str = "SELECT campaignd_ensure_partitions($1, $2)";
const ENSURE_FROM_NOW: &str = "SELECT campaignd_ensure_partitions(now(), $1)";

/// Relations with the names of 0002. Before it ran, they are somebody else's.
const FOREIGN_TABLES: &str = "
    SELECT relname::text FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind NOT IN ('i', 'I')
      AND relname IN ('accounts', 'account_catch_up', 'account_gate', 'flow_versions', 'transitions', 'transitions_default', 'sends',
                      'sends_default', 'identities', 'inbox', 'api_keys', 'webhook_endpoints', 'node', 'shard_lease',
                      'execution_arrivals')
    ORDER BY 1";

/// The same for 0006.
const FOREIGN_SUPPRESSIONS: &str = "
    SELECT relname::text FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind NOT IN ('i', 'I')
      AND relname IN ('suppressions', 'link_secrets')
    ORDER BY 1";

/// Tables that would be altered and are owned by a role we are no member of.
const NOT_OWNED: &str = "
    SELECT 'table ' || relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace
      AND relname IN ('workspaces', 'workspace_members', 'campaigns', 'campaign_prospects',
                      'campaign_prospect_execution_state')
      AND NOT pg_has_role(relowner, 'USAGE')
    ORDER BY 1";

/// What an adopted table has to have, and the types that the engine can read and write. `needed`: it cannot be added.
const WRONG_TYPES: &str = "
    WITH expected (relation, name, types, needed) AS (VALUES
        ('workspaces', 'id', '{uuid}', true),
        ('workspaces', 'name', '{text,varchar}', false),
        ('workspace_members', 'workspace_id', '{uuid}', false),
        ('workspace_members', 'user_id', '{uuid,text,varchar}', false),
        ('campaigns', 'id', '{uuid}', true),
        ('campaigns', 'workspace_id', '{uuid}', false),
        ('campaigns', 'name', '{text,varchar}', false),
        ('campaigns', 'status', '{text,varchar}', false),
        ('campaigns', 'flow_settings', '{jsonb,json}', false),
        ('campaigns', 'flow_version', '{int4}', false),
        ('campaigns', 'send_priority', '{int4}', false),
        ('campaigns', 'accounts', '{_uuid}', false),
        ('campaigns', 'created_at', '{timestamptz,timestamp}', false),
        ('campaigns', 'updated_at', '{timestamptz,timestamp}', false),
        ('campaign_prospects', 'id', '{uuid}', true),
        ('campaign_prospects', 'campaign_id', '{uuid}', true),
        ('campaign_prospects', 'workspace_id', '{uuid}', false),
        ('campaign_prospects', 'first_name', '{text,varchar,citext}', false),
        ('campaign_prospects', 'last_name', '{text,varchar,citext}', false),
        ('campaign_prospects', 'email', '{text,varchar,citext}', false),
        ('campaign_prospects', 'phone', '{text,varchar,citext}', false),
        ('campaign_prospects', 'linkedin_url', '{text,varchar,citext}', false),
        ('campaign_prospects', 'company_name', '{text,varchar,citext}', false),
        ('campaign_prospects', 'title', '{text,varchar,citext}', false),
        ('campaign_prospects', 'data', '{jsonb,json}', false),
        ('campaign_prospects', 'created_at', '{timestamptz,timestamp}', false),
        ('campaign_prospect_execution_state', 'id', '{uuid}', true),
        ('campaign_prospect_execution_state', 'campaign_id', '{uuid}', true),
        ('campaign_prospect_execution_state', 'prospect_id', '{uuid}', true),
        ('campaign_prospect_execution_state', 'current_step', '{int4}', false),
        ('campaign_prospect_execution_state', 'status', '{text,varchar}', false),
        ('campaign_prospect_execution_state', 'completed_steps', '{_int4}', false),
        ('campaign_prospect_execution_state', 'failed_steps', '{_int4}', false),
        ('campaign_prospect_execution_state', 'skipped_steps', '{_int4}', false),
        ('campaign_prospect_execution_state', 'linkedin_state', '{jsonb}', false),
        ('campaign_prospect_execution_state', 'email_state', '{jsonb}', false),
        ('campaign_prospect_execution_state', 'whatsapp_state', '{jsonb}', false),
        ('campaign_prospect_execution_state', 'waiting_for_trigger', '{text,varchar}', false),
        ('campaign_prospect_execution_state', 'trigger_check_count', '{int4}', false),
        ('campaign_prospect_execution_state', 'trigger_max_checks', '{int4}', false),
        ('campaign_prospect_execution_state', 'next_check_at', '{timestamptz,timestamp}', false),
        ('campaign_prospect_execution_state', 'n8n_execution_id', '{text,varchar}', false),
        ('campaign_prospect_execution_state', 'last_executed_at', '{timestamptz,timestamp}', false),
        ('campaign_prospect_execution_state', 'next_execution_at', '{timestamptz,timestamp}', false),
        ('campaign_prospect_execution_state', 'last_error', '{text,varchar}', false),
        ('campaign_prospect_execution_state', 'error_count', '{int4}', false),
        ('campaign_prospect_execution_state', 'workspace_id', '{uuid}', false),
        ('campaign_prospect_execution_state', 'flow_version', '{int4}', false),
        ('campaign_prospect_execution_state', 'step_id', '{text,varchar}', false),
        ('campaign_prospect_execution_state', 'version', '{int8}', false),
        ('campaign_prospect_execution_state', 'shard', '{int2}', false),
        ('campaign_prospect_execution_state', 'lease_epoch', '{int8}', false),
        ('campaign_prospect_execution_state', 'exit_reason', '{text,varchar}', false),
        ('campaign_prospect_execution_state', 'paused_status', '{text,varchar}', false),
        ('campaign_prospect_execution_state', 'attempt', '{int4}', false),
        ('campaign_prospect_execution_state', 'send_sequence', '{int4}', false),
        ('campaign_prospect_execution_state', 'open_send', '{uuid}', false),
        ('campaign_prospect_execution_state', 'channel_accounts', '{jsonb}', false),
        ('campaign_prospect_execution_state', 'created_at', '{timestamptz,timestamp}', false),
        ('campaign_prospect_execution_state', 'updated_at', '{timestamptz,timestamp}', false)
    )
    SELECT CASE
        WHEN c.relkind NOT IN ('r', 'p') THEN format('%s is not a table', e.relation)
        WHEN a.attname IS NULL THEN format('%s has no column %s', e.relation, e.name)
        ELSE format('%s.%s is %s, not %s', e.relation, e.name, format_type(a.atttypid, a.atttypmod),
                    replace(replace(array_to_string(e.types::text[], ' or '), '_int4', 'integer[]'), '_uuid', 'uuid[]'))
        END
    FROM expected e
    JOIN pg_class c ON c.relname = e.relation AND c.relnamespace = 'public'::regnamespace
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = e.name AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_type t ON t.oid = a.atttypid
    WHERE CASE WHEN c.relkind NOT IN ('r', 'p') THEN e.needed
               WHEN a.attname IS NULL THEN e.needed
               ELSE t.typname <> ALL (e.types::text[]) END
    ORDER BY e.relation, e.name";

/// What keeps a time column from changing its type: views, policies, triggers and functions that name it.
const DEPENDENTS: &str = "
    SELECT DISTINCT CASE WHEN r.oid IS NOT NULL THEN format('view %s', r.ev_class::regclass)
                    ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END
           || format(' (column %s.%s)', c.relname, a.attname)
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped AND a.atttypid = 'timestamp'::regtype
    JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid = a.attnum
    LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    WHERE c.relnamespace = 'public'::regnamespace
      AND d.classid IN ('pg_rewrite'::regclass, 'pg_policy'::regclass, 'pg_trigger'::regclass, 'pg_proc'::regclass)
      AND (c.relname, a.attname) IN (
          ('campaigns', 'created_at'), ('campaigns', 'updated_at'), ('campaign_prospects', 'created_at'),
          ('campaign_prospect_execution_state', 'next_check_at'),
          ('campaign_prospect_execution_state', 'last_executed_at'),
          ('campaign_prospect_execution_state', 'next_execution_at'),
          ('campaign_prospect_execution_state', 'created_at'),
          ('campaign_prospect_execution_state', 'updated_at'))
    ORDER BY 1";
