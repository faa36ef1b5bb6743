//! A database for each test.
//!
//! One private cluster serves the whole run and dies with it; a database of it is migrated once and copied for each test.
//! Servers that a test starts as processes of their own are given a database's URL.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use campaignd::postgres::{Options, Private};
use campaignd::{postgres, store};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};

/// The database that is copied.
const TEMPLATE: &str = "campaignd_template";

/// Before the process id in the name of a run's directory.
const PREFIX: &str = "campaignd-it.";

/// The cluster of this run, with the template in it.
static CLUSTER: LazyLock<Private> = LazyLock::new(|| {
    // Made on a thread with a runtime of its own: the tests' runtimes come and go.
    std::thread::spawn(|| {
        remove_dead();
        let data_dir = std::env::temp_dir().join(format!("{PREFIX}{}", process::id())).join("pg");
        let cluster = postgres::start(Options::throwaway(data_dir)).expect("a private postgres");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            create(cluster.url(), TEMPLATE, None).await;
            let pool = connect(&with_database(cluster.url(), TEMPLATE), 1).await;
            store::migrate::migrate(&pool).await.expect("migrations");
            pool.close().await;
        });
        cluster
    })
    .join()
    .expect("a cluster for the tests")
});

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A database of its own, for one test. It goes with the cluster.
pub(crate) struct Db {
    /// Where a process finds it.
    pub(crate) url: String,
    /// A few connections to it.
    pub(crate) pool: PgPool,
}

impl Db {
    /// A migrated database with the default workspace and nothing else.
    pub(crate) async fn new() -> Self {
        Self::copy_of(Some(TEMPLATE)).await
    }

    /// A database with nothing in it.
    pub(crate) async fn empty() -> Self {
        Self::copy_of(None).await
    }

    async fn copy_of(template: Option<&str>) -> Self {
        let name = format!("t{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        create(CLUSTER.url(), &name, template).await;
        let url = with_database(CLUSTER.url(), &name);
        let pool = connect(&url, 8).await;
        Self { url, pool }
    }

    /// From now on nobody gets into this database, and nobody stays: as if its server were gone.
    pub(crate) async fn shut(&self) {
        let (_, name) = self.url.rsplit_once('/').unwrap();
        let mut conn = PgConnection::connect(&with_database(&self.url, "postgres")).await.unwrap();
        let shut = format!(
            "ALTER DATABASE {name} ALLOW_CONNECTIONS false; \
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        );
        conn.execute(AssertSqlSafe(shut)).await.unwrap();
    }

    /// Runs a script of several statements.
    pub(crate) async fn script(&self, sql: impl Into<String>) -> Result<(), sqlx::Error> {
        self.pool.execute(AssertSqlSafe(sql.into())).await.map(|_| ())
    }
}

/// A directory for one test's files, in the run's own, which the next run removes.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let dir = CLUSTER.data_dir().with_file_name("scratch").join(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}

async fn create(url: &str, name: &str, template: Option<&str>) {
    let mut conn = PgConnection::connect(url).await.expect("the test cluster");
    let template = template.unwrap_or("template0");
    conn.execute(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE {template}"))).await.expect("a database");
    conn.close().await.expect("close");
}

async fn connect(url: &str, connections: u32) -> PgPool {
    PgPoolOptions::new().max_connections(connections).connect(url).await.expect("the test database")
}

/// The same server, another database.
fn with_database(url: &str, name: &str) -> String {
    let (server, _) = url.rsplit_once('/').expect("a database in the url");
    format!("{server}/{name}")
}

/// Removes what runs that have ended left behind. Their servers have gone with them, or are just about to.
fn remove_dead() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(PREFIX) else { continue };
        let alive = Path::new("/proc").join(pid).exists();
        if !alive && postgres::running_url(&entry.path().join("pg")).is_none() {
            // Another user's is not ours to remove.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
