//! Where a bench runs: a private Postgres of its own, or databases of its own beside the one that `DATABASE_URL` names.
//!
//! Neither touches anything that was there before. What a killed run left behind is swept up by the next one: only a
//! cluster whose process is gone, and only databases whose run has no session any more.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Url;
use uuid::Uuid;

use super::Error;
use crate::postgres::{self, Private};
use crate::store::{self, Pool, bench, migrate};

/// Before the process id in the name of the directory of a private cluster.
const PREFIX: &str = "bench-";
/// Connections of the pool of a scratch database.
const CONNECTIONS: u32 = 20;

/// The Postgres that a run uses.
pub struct Server {
    url: Url,
    admin: Pool,
    run: bench::Run,
    databases: Arc<Mutex<Databases>>,
    made: AtomicU32,
    private: Option<(Private, PathBuf)>,
    version: String,
    settings: Vec<(String, String)>,
}

/// Of this run, by name.
#[derive(Default)]
struct Databases {
    in_use: Vec<String>,
    /// Not wanted any more, and not dropped yet.
    done: Vec<String>,
}

/// A migrated database of its own. Dropping it marks it to be dropped in Postgres by [`Server::sweep`].
pub struct Scratch {
    /// Where it is. Holds the password, if there is one: not for logs.
    pub url: String,
    /// A pool for requests and looks from outside. The engine has its own: [`store::connect_engine`].
    pub pool: Pool,
    name: String,
    databases: Arc<Mutex<Databases>>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        databases.in_use.retain(|name| *name != self.name);
        databases.done.push(std::mem::take(&mut self.name));
    }
}

impl Server {
    /// Uses the server of this URL, or without one a private cluster in a directory of its own, made now and removed by
    /// [`Server::close`].
    ///
    /// # Errors
    /// [`Error::Refused`] when the URL's database holds campaigns or the role may not make databases.
    pub async fn open(database_url: Option<&str>) -> Result<Self, Error> {
        match database_url {
            Some(url) => Self::on(url, None).await,
            None => {
                let home = postgres::default_data_dir().with_file_name(format!("{PREFIX}{}", std::process::id()));
                let data_dir = home.join("pg");
                let started = tokio::task::spawn_blocking(move || {
                    remove_dead(&postgres::default_data_dir());
                    postgres::start(postgres::Options { data_dir, durable: true })
                });
                let private = started.await.map_err(|e| Error::Refused(e.to_string()))??;
                let url = private.url().to_owned();
                Self::on(&url, Some((private, home))).await
            }
        }
    }

    async fn on(url: &str, private: Option<(Private, PathBuf)>) -> Result<Self, Error> {
        let admin = store::connect(url, 2).await?;
        let url: Url = url.parse().map_err(|_| Error::Refused("DATABASE_URL cannot be read as a URL".to_owned()))?;
        if private.is_none() {
            if bench::holds_campaigns(&admin).await? {
                return Err(Error::Refused(
                    "the database that DATABASE_URL names holds campaigns. The bench would compete with them for the \
                     server: give it another server, or unset DATABASE_URL and it runs a Postgres of its own"
                        .to_owned(),
                ));
            }
            if let (false, role) = bench::may_create(&admin).await? {
                return Err(Error::Refused(format!(
                    "role `{role}` may not make databases, and the bench makes its own: ALTER ROLE {role} CREATEDB, or \
                     unset DATABASE_URL and it runs a Postgres of its own"
                )));
            }
            for name in bench::left_behind(&admin).await? {
                // Somebody who has just connected to it keeps it.
                match bench::drop_unused(&admin, &name).await {
                    Ok(()) => tracing::info!(database = name, "dropped what a killed run left behind"),
                    Err(error) => tracing::warn!(database = name, %error, "cannot drop what a killed run left behind"),
                }
            }
        }
        let id = Uuid::new_v4().simple().to_string();
        let run = bench::Run::enter(url.as_str(), id.get(..12).unwrap_or(&id)).await?;
        let (version, settings) = bench::settings(&admin).await?;
        Ok(Self { url, admin, run, databases: Arc::default(), made: AtomicU32::new(0), private, version, settings })
    }

    /// Its version, in its own words.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The settings that decide how fast it writes, by name.
    pub fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    /// Whether it is a private cluster of this run.
    pub const fn is_private(&self) -> bool {
        self.private.is_some()
    }

    /// Bytes free where it has its data; `None`: that is not known, because it is not ours.
    pub fn free_disk(&self) -> Option<u64> {
        self.private.as_ref().and_then(|(private, _)| postgres::free_disk(private.data_dir()))
    }

    /// A migrated database of its own.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn scratch(&self, what: &str) -> Result<Scratch, Error> {
        self.sweep().await;
        let name = self.run.database(self.made.fetch_add(1, Relaxed));
        // Before it exists: a run that is cancelled in between drops it all the same.
        self.databases.lock().unwrap_or_else(PoisonError::into_inner).in_use.push(name.clone());
        tracing::debug!(database = name, what, "making a scratch database");
        bench::create_database(&self.admin, &name).await?;
        let mut url = self.url.clone();
        url.set_path(&name);
        let pool = store::connect(url.as_str(), CONNECTIONS).await?;
        migrate::migrate(&pool).await?;
        Ok(Scratch { url: url.into(), pool, name, databases: Arc::clone(&self.databases) })
    }

    /// Drops the databases that are not wanted any more.
    pub async fn sweep(&self) {
        let done = std::mem::take(&mut self.databases.lock().unwrap_or_else(PoisonError::into_inner).done);
        self.drop_all(done).await;
    }

    async fn drop_all(&self, names: Vec<String>) {
        for name in names {
            if let Err(error) = bench::drop_database(&self.admin, &name).await {
                tracing::warn!(database = name, %error, "cannot drop a scratch database; the next run tries again");
            }
        }
    }

    /// Drops everything this run made, wanted or not, and stops and removes the private cluster.
    pub async fn close(self) {
        if let Some((private, home)) = self.private {
            self.admin.close().await;
            self.run.leave().await;
            let _ = tokio::task::spawn_blocking(move || {
                private.stop();
                if let Err(error) = fs::remove_dir_all(&home) {
                    tracing::warn!(directory = %home.display(), %error, "cannot remove the private cluster");
                }
            })
            .await;
            return;
        }
        let names = {
            let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
            let mut names = std::mem::take(&mut databases.in_use);
            names.append(&mut databases.done);
            names
        };
        self.drop_all(names).await;
        self.run.leave().await;
        self.admin.close().await;
    }
}

/// Removes the clusters of runs that were killed. Their servers have gone with them, or are just about to.
fn remove_dead(data_dir: &Path) {
    let Some(parent) = data_dir.parent() else { return };
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(PREFIX).filter(|pid| pid.bytes().all(|b| b.is_ascii_digit())) else {
            continue;
        };
        let alive = Path::new("/proc").join(pid).exists();
        let cluster = entry.path().join("pg");
        if !alive && cluster.is_dir() && postgres::running_url(&cluster).is_none() {
            // Another user's is not ours to remove.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
