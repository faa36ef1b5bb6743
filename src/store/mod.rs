//! All SQL. One file a subject; every statement is a constant, every batch one statement.
//!
//! Owns the connection pool's settings, the error type, the codec between [`crate::domain`] and rows, the lease of the
//! shards, and the writer through which every transition of an execution goes. Called by `runtime` and `http`; nothing
//! outside this room speaks SQL.
//!
//! What other rooms may rely on: a write of an execution is fenced by the shard lease ([`lease`]) and guarded by the
//! row's `version` ([`writer`]); a provider is called only after [`send::claim()`] has committed.

use std::time::Duration;

use serde_json::{Map, Value};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::telemetry;

pub mod account;
pub mod api_key;
pub mod bench;
pub mod campaign;
pub mod catch_up;
pub mod database;
pub mod doctor;
pub mod endpoint;
pub mod execution;
pub mod identity;
pub mod inbox;
pub mod lease;
pub mod link_secret;
pub mod migrate;
pub mod prospect;
pub mod roster;
pub mod row;
pub mod sample;
pub mod send;
pub mod suppression;
pub mod timeline;
pub mod upload;
pub mod writer;

/// The connection pool. Cheap to clone.
pub type Pool = sqlx::PgPool;

tokio::task_local! {
    /// Whose connections a task uses, for the metrics: the driver does not say which pool was exhausted.
    static POOL: &'static str;
}

/// Says for the metrics which pool is asked in there: one of the values of [`telemetry::POOL`]. What runs in none of these is
/// the engine's.
pub(crate) fn with_pool<F: Future>(name: &'static str, inner: F) -> impl Future<Output = F::Output> {
    POOL.scope(name, inner)
}

/// How long a caller waits for a free connection, or for Postgres to answer the first time.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a statement did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres is away, busy or restarting, or the statement lost a race for locks: the same call may work in a moment.
    #[error("{what}: postgres is not available now: {source}")]
    Unavailable {
        /// What was tried.
        what: &'static str,
        /// The driver's words.
        source: sqlx::Error,
    },
    /// Postgres refused the statement: trying again gives the same answer.
    #[error("{what}: postgres refused it: {source}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// The driver's words.
        source: sqlx::Error,
    },
    /// A stored value is not one of ours.
    #[error("cannot read {what} {id}: {reason}")]
    Decode {
        /// What kind of row.
        what: &'static str,
        /// Which one; empty when not even that could be read.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else changed the row first; read it again.
    #[error("{what} {id} was changed by somebody else; read it again")]
    Conflict {
        /// What kind of row.
        what: &'static str,
        /// Which one.
        id: String,
    },
    /// The database's address cannot be used at all.
    #[error("cannot use the database address: {0}")]
    Address(String),
}

impl Error {
    /// Whether the same call may work in a moment.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Whether a connection failed because of TLS: the server has none, or its certificate does not hold.
    pub fn is_about_tls(&self) -> bool {
        match self {
            Self::Unavailable { source: sqlx::Error::Tls(_), .. } => true,
            // A certificate is looked at while bytes are read.
            Self::Unavailable { source: sqlx::Error::Io(error), .. } => error.kind() == std::io::ErrorKind::InvalidData,
            _ => false,
        }
    }

    /// The class of Postgres' error, as the metrics name it. By SQLSTATE; see [`telemetry::PERSIST_FAILURES`].
    pub fn class(&self) -> &'static str {
        let (Self::Unavailable { source, .. } | Self::Refused { source, .. }) = self else { return "other" };
        match source {
            sqlx::Error::PoolTimedOut => "timeout",
            sqlx::Error::Database(e) => match e.code().as_deref() {
                Some("57014" | "55P03" | "25P03") => "timeout",
                Some("40001" | "40P01") => "serialization",
                Some(code) if code.starts_with("08") => "connection",
                Some(code) if code.starts_with("23") => "constraint",
                Some(code) if code.starts_with("53") || code.starts_with("58") => "resources",
                Some(code) if code.starts_with("57") => "shutdown",
                _ => "other",
            },
            source if is_transient(source) => "connection",
            _ => "other",
        }
    }

    /// Sorts a driver error; `what` says what was tried.
    pub(crate) fn from_sqlx(what: &'static str, source: sqlx::Error) -> Self {
        if matches!(source, sqlx::Error::PoolTimedOut) {
            let pool = POOL.try_with(|pool| *pool).unwrap_or("engine");
            metrics::counter!(telemetry::POOL_TIMEOUTS, "pool" => pool).increment(1);
        }
        if is_transient(&source) {
            return Self::Unavailable { what, source };
        }
        match source {
            sqlx::Error::ColumnDecode { index, source } => {
                Self::Decode { what, id: String::new(), reason: format!("column {index}: {source}") }
            }
            source => Self::Refused { what, source },
        }
    }
}

/// For `map_err`: sorts the driver's errors of one call.
pub(crate) fn failed(what: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| Error::from_sqlx(what, source)
}

/// Whether an error of the driver goes away by itself. By SQLSTATE class: 08 connection, 53 resources, 57 operator
/// intervention (restart, `pg_terminate_backend`, statement timeout), 58 system; and the ones a retry resolves:
/// serialization failure, deadlock, lock timeout, a session killed for idling, a standby that is not promoted yet.
fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(e) => e.code().is_some_and(|code| {
            matches!(&*code, "40001" | "40P01" | "55P03" | "25P03" | "25006")
                || matches!(code.get(..2), Some("08" | "53" | "57" | "58"))
        }),
        _ => false,
    }
}

/// Opens the pool and makes sure that Postgres answers. `max` is the most connections it opens.
///
/// # Errors
/// [`Error::Address`] for an address that cannot be read, [`Error::Unavailable`] or [`Error::Refused`] when Postgres does
/// not let us in; none of them shows the password.
pub async fn connect(url: &str, max: u32) -> Result<Pool, Error> {
    open(url, max, &[]).await
}

/// The same for the runtime, whose few statements run all the time: each is planned once a connection. Planning a claim
/// anew, over the partitions of `sends`, costs several times what carrying it out does (measured: 34 against 132 sends a
/// second over two accounts, 2 cores, busy machine).
///
/// # Errors
/// See [`connect`].
pub async fn connect_engine(url: &str, max: u32) -> Result<Pool, Error> {
    // What was planned while the tables were empty must still look up by key when they are not.
    let planned_once =
        [("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off"), ("enable_mergejoin", "off")];
    open(url, max, &planned_once).await
}

/// For tests that never ask: a pool without a database.
#[cfg(test)]
pub(crate) fn imagined() -> Pool {
    PgPoolOptions::new().connect_lazy_with(PgConnectOptions::new_without_pgpass())
}

/// A pool of its own for one kind of work on the same database: no other kind takes its `connections`, and nobody waits
/// longer than `wait` for one. Opens nothing yet. Needs a tokio runtime.
pub fn apart(pool: &Pool, connections: u32, wait: Duration) -> Pool {
    let options = (*pool.connect_options()).clone();
    pool.options().clone().max_connections(connections).acquire_timeout(wait).connect_lazy_with(options)
}

/// Sets the gauges of a pool's connections. `name` is one of the values of [`telemetry::POOL`].
#[expect(clippy::cast_precision_loss, reason = "gauges of counts")]
pub fn sample_pool(name: &'static str, pool: &Pool) {
    let (open, idle) = (pool.size() as usize, pool.num_idle());
    let max = pool.options().get_max_connections() as usize;
    for (state, count) in [("idle", idle), ("used", open.saturating_sub(idle)), ("max", max)] {
        metrics::gauge!(telemetry::POOL, "pool" => name, "state" => state).set(count as f64);
    }
}

async fn open(url: &str, max: u32, settings: &[(&str, &str)]) -> Result<Pool, Error> {
    let options: PgConnectOptions = url.parse().map_err(|_: sqlx::Error| {
        // The parser's message may quote the address, and with it the password.
        Error::Address("it is not of the form postgres://user:password@host:port/database".to_owned())
    })?;
    let shown = format!(
        "{}@{}:{}/{}",
        options.get_username(),
        options.get_socket().map_or_else(|| options.get_host().to_owned(), |s| s.display().to_string()),
        options.get_port(),
        options.get_database().unwrap_or("")
    );
    let options = options.application_name("campaignd").options([
        ("statement_timeout", "30s"),
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "30s"),
        // Compiling a statement costs more than any of ours takes.
        ("jit", "off"),
    ]);
    let options = options.options(settings.iter().copied());
    let pool =
        PgPoolOptions::new().max_connections(max).acquire_timeout(ACQUIRE_TIMEOUT).connect_lazy_with(options.clone());
    // One connection by hand first: the pool would hide the reason behind its own time-out.
    let probe = tokio::time::timeout(ACQUIRE_TIMEOUT, <sqlx::PgConnection as sqlx::Connection>::connect_with(&options));
    match probe.await {
        Ok(Ok(connection)) => {
            let _ = sqlx::Connection::close(connection).await;
            Ok(pool)
        }
        Ok(Err(source)) => {
            tracing::warn!(database = %shown, error = %source, "cannot connect to postgres");
            Err(Error::from_sqlx("connecting to postgres", source))
        }
        Err(_) => {
            tracing::warn!(database = %shown, "postgres does not answer");
            Err(Error::from_sqlx("connecting to postgres", sqlx::Error::PoolTimedOut))
        }
    }
}

/// Takes NUL characters out: Postgres cannot store them in text or jsonb.
pub(crate) fn clean(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "").into() } else { text.into() }
}

/// JSON as text that Postgres takes: without the escape of NUL, which jsonb refuses.
pub(crate) fn json_text(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains("\\u0000") {
        return text;
    }
    strip_nul(value).to_string()
}

fn strip_nul(value: &Value) -> Value {
    match value {
        Value::String(s) => Value::String(clean(s).into_owned()),
        Value::Array(a) => Value::Array(a.iter().map(strip_nul).collect()),
        Value::Object(o) => {
            Value::Object(o.iter().map(|(k, v)| (clean(k).into_owned(), strip_nul(v))).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

/// A shard as its column type.
#[expect(clippy::cast_possible_wrap, reason = "a shard is below 1024")]
pub(crate) const fn shard_column(shard: u16) -> i16 {
    shard as i16
}

/// A count as its column type; stops at the largest the column can hold.
pub(crate) fn int(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_is_taken_out_and_other_text_is_left_alone() {
        assert_eq!(clean("a\0b\0"), "ab");
        assert!(matches!(clean("plain"), std::borrow::Cow::Borrowed("plain")));
    }

    #[test]
    fn nul_is_taken_out_of_json_at_any_depth() {
        assert_eq!(json_text(&serde_json::json!({"a\0": ["b\0", 1]})), r#"{"a":["b",1]}"#);
    }

    #[tokio::test]
    async fn a_bad_address_is_refused_without_showing_it() {
        let error = connect("postgres://u:secret@[bad", 1).await.unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn nobody_listening_is_transient() {
        let error = connect("postgres://u:secret@127.0.0.1:1/x", 1).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
