//! `campaignd bench`: the engine measured on this machine, with the floors it stands on measured in the same run.
//!
//! Owns what every part needs: the settings, a Postgres of its own or a database beside the configured one ([`scratch`]),
//! the floors ([`floor`]), load that comes on time whether or not it is answered ([`load`]), latencies ([`Latencies`]),
//! memory and CPU time ([`memory`]), and the report ([`report`], [`markdown`], [`plot`]). [`parts`] holds the measurements.
//! Called by the command line.
//!
//! Nothing here touches a table of the database that `DATABASE_URL` names: each measurement gets a database of its own on
//! the same server, dropped when it is over, also after an error or Ctrl-C.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};

use crate::{postgres, runtime, service, store};

pub mod changes;
pub mod figure;
pub mod floor;
pub mod latencies;
pub mod load;
pub mod markdown;
pub mod memory;
pub mod needs;
pub mod parts;
mod pgbench;
pub mod plot;
pub mod progress;
pub mod report;
pub mod scratch;

pub use figure::{Bound, Figure, Part, Series, Target, Unit};
pub use floor::Floor;
pub use latencies::Latencies;
pub use progress::Progress;
pub use scratch::{Scratch, Server};

/// Why a measurement was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database does not answer, or refuses.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The schema of a scratch database cannot be made.
    #[error(transparent)]
    Migrate(#[from] store::migrate::MigrateError),
    /// The private Postgres does not run.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    /// The engine did not start.
    #[error(transparent)]
    Runtime(#[from] runtime::StartError),
    /// The daemon did not start.
    #[error(transparent)]
    Service(#[from] service::Error),
    /// A file, a process or a socket.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Ctrl-C.
    #[error("cancelled")]
    Cancelled,
    /// The measurement would not be one: what is in the way and how to mend it.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// For `map_err`: names what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what: what.into(), source }
    }
}

/// Accounts where nobody says how many: one for so many prospects, within these bounds.
const PROSPECTS_AN_ACCOUNT: u64 = 250;
const ACCOUNTS_MIN: u32 = 16;
const ACCOUNTS_MAX: u32 = 4096;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many prospects, smallest first: each part runs at each of these.
    pub sizes: Vec<u64>,
    /// Seconds of a sustained load.
    pub seconds: u64,
    /// Where the report goes; made when it is missing.
    pub report: PathBuf,
    /// Sending accounts; `None`: see [`Settings::accounts`].
    pub accounts: Option<u32>,
}

impl Settings {
    /// Sending accounts for that many prospects: one for every 250, at least 16 and at most 4,096, unless it was said.
    pub fn accounts(&self, prospects: u64) -> u32 {
        self.accounts.unwrap_or_else(|| {
            u32::try_from(prospects / PROSPECTS_AN_ACCOUNT).unwrap_or(ACCOUNTS_MAX).clamp(ACCOUNTS_MIN, ACCOUNTS_MAX)
        })
    }

    /// How long a sustained load lasts.
    pub const fn sustained(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// One run of the bench: what the parts are given.
pub struct Bench {
    settings: Settings,
    server: Server,
    progress: progress::Group,
    cancel: watch::Receiver<bool>,
    floors: Mutex<BTreeMap<u64, Arc<Floor>>>,
    /// Bare actors spawned in a second, by how many.
    bare: Mutex<BTreeMap<u64, f64>>,
}

impl Bench {
    /// A run on this server. `cancel` turns true at Ctrl-C.
    pub fn new(settings: Settings, server: Server, cancel: watch::Receiver<bool>) -> Self {
        Self {
            settings,
            server,
            progress: progress::Group::new(),
            cancel,
            floors: Mutex::default(),
            bare: Mutex::default(),
        }
    }

    /// What is to be measured.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The Postgres that everything runs on.
    pub const fn server(&self) -> &Server {
        &self.server
    }

    /// A migrated database of its own. It is dropped after the part that made it, whatever became of that; `name` is for
    /// people.
    ///
    /// # Errors
    /// When the role may not make databases, or Postgres refuses.
    pub async fn scratch(&self, name: &str) -> Result<Scratch, Error> {
        self.check()?;
        self.server.scratch(name).await
    }

    /// Shows that something with `total` steps is under way, until the answer is dropped.
    pub fn progress(&self, what: &str, total: u64) -> Progress {
        self.progress.start(what, total)
    }

    /// Bare actors spawned in a second, measured the first time it is asked for. Ask before anything else runs in this
    /// process: in memory that others have used and given back, a million actors start at a quarter of the rate.
    ///
    /// # Errors
    /// When an actor does not start.
    pub async fn bare(&self, size: u64) -> Result<f64, Error> {
        let mut bare = self.bare.lock().await;
        if let Some(rate) = bare.get(&size) {
            return Ok(*rate);
        }
        let rate = floor::spawn(self, size).await?;
        bare.insert(size, rate);
        Ok(rate)
    }

    /// The floors at a size: measured the first time they are asked for, about half a minute at 100,000 prospects.
    ///
    /// # Errors
    /// When they cannot be measured. That pgbench is missing is no error: the floors it gives are `None` then.
    pub async fn floor(&self, size: u64) -> Result<Arc<Floor>, Error> {
        let mut floors = self.floors.lock().await;
        if let Some(floor) = floors.get(&size) {
            return Ok(Arc::clone(floor));
        }
        let floor = Arc::new(floor::measure(self, size).await?);
        floors.insert(size, Arc::clone(&floor));
        Ok(floor)
    }

    /// Drops everything the run made in Postgres, wanted or not, and stops the private one.
    pub async fn close(self) {
        self.server.close().await;
    }

    /// For [`load::open_loop`]: turns true at Ctrl-C.
    pub fn cancel(&self) -> watch::Receiver<bool> {
        self.cancel.clone()
    }

    /// Whether Ctrl-C was pressed.
    pub fn is_cancelled(&self) -> bool {
        *self.cancel.borrow()
    }

    /// For loops: an error once Ctrl-C was pressed.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn check(&self) -> Result<(), Error> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Returns at Ctrl-C.
    pub async fn cancelled(&self) {
        let mut cancel = self.cancel.clone();
        if cancel.wait_for(|cancelled| *cancelled).await.is_err() {
            // Nobody can press it any more.
            std::future::pending().await
        }
    }
}
