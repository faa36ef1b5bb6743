//! Finds the Postgres that is installed and runs a private cluster of it, for development, the demo and tests.
//!
//! Owns the data directory, the password beside it and the server process. The server dies with us, also when we are
//! killed; as root it runs as user `postgres`, because it refuses root. Called by the command line when no `DATABASE_URL`
//! is set, and by the tests. Speaks no SQL: to see that the server answers, the start of the wire protocol is enough.
//!
//! `binaries` finds the installed server, `cluster` makes the files, `server` runs the process, `running` looks at it from
//! outside, `os` holds the system calls.

use std::fmt;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod binaries;
mod cluster;
mod error;
mod os;
mod running;
mod server;

pub use binaries::find_binaries;
use cluster::{beside, initialise, make_dirs, url};
use error::At as _;
pub use error::Error;
use server::Keeper;

/// The superuser, and the database, of a private cluster.
const NAME: &str = "campaignd";
/// How long a start may take: recovery after a crash included.
const START: Duration = Duration::from_secs(30);
/// Between two looks at a starting or stopping server.
const POLL: Duration = Duration::from_millis(20);

/// Which cluster to run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its directory; made when it is missing.
    pub data_dir: PathBuf,
    /// `true`: keeps what is committed, and asks for a password. `false`: for tests. Faster, and a crash of the machine loses
    /// everything; anybody on this machine can connect.
    pub durable: bool,
}

impl Options {
    /// The durable cluster in [`default_data_dir`].
    pub fn durable() -> Self {
        Self { data_dir: default_data_dir(), durable: true }
    }

    /// A cluster for tests in `data_dir`.
    pub fn throwaway(data_dir: PathBuf) -> Self {
        Self { data_dir, durable: false }
    }
}

/// Where the private cluster lives: `CAMPAIGND_DATA_DIR`/pg; as root `/var/lib/campaignd/pg` (the server's own user cannot
/// enter /root); else `$XDG_DATA_HOME/campaignd/pg` or `~/.local/share/campaignd/pg`.
pub fn default_data_dir() -> PathBuf {
    let from = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = from("CAMPAIGND_DATA_DIR") {
        return std::path::absolute(&dir).unwrap_or(dir).join("pg");
    }
    if os::is_root() {
        return "/var/lib/campaignd/pg".into();
    }
    from("XDG_DATA_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(std::env::temp_dir)
        .join("campaignd/pg")
}

/// A running private cluster. Dropping it stops the server, if it is ours.
pub struct Private {
    url: String,
    data_dir: PathBuf,
    keeper: Option<Keeper>,
}

impl Private {
    /// Where to connect. Holds the password: not for logs.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The cluster's directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Whether this process runs the server; `false` when another campaignd does, and we only found it.
    pub fn is_owned(&self) -> bool {
        self.keeper.is_some()
    }

    /// Stops the server, after its open transactions were rolled back, and waits for it. Does nothing to another's server.
    pub fn stop(self) {
        drop(self);
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Private").field("data_dir", &self.data_dir).field("owned", &self.is_owned()).finish()
    }
}

/// The URL of the private cluster in `data_dir`, if it is running and its password is ours to read. Holds the password.
pub fn running_url(data_dir: &Path) -> Option<String> {
    let port = running::port_of(data_dir)?;
    running::answers(port).then(|| url(data_dir, port).ok()).flatten()
}

/// Bytes that can still be written where `path` is. `None`: the system does not tell.
pub fn free_disk(path: &Path) -> Option<u64> {
    os::free_disk(path)
}

/// Runs the private cluster, and makes it first where there is none: half a second. One that is already running is used as
/// it is. Blocks until it takes connections, half a minute at the longest.
pub fn start(options: Options) -> Result<Private, Error> {
    let Options { data_dir, durable } = options;
    let binaries = find_binaries()?;
    let user = os::server_user();
    make_dirs(&data_dir, user)?;
    // Two processes that start together take turns; the second one finds the first one's server.
    let lock_path = beside(&data_dir, "lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path).at("open", &lock_path)?;
    lock.lock().at("lock", &lock_path)?;

    if let Some(port) = running::wait_for_other(&data_dir) {
        let url = url(&data_dir, port)?;
        return Ok(Private { url, data_dir, keeper: None });
    }
    if data_dir.join("PG_VERSION").exists() {
        binaries::check_version(&binaries, &data_dir)?;
    } else {
        initialise(&binaries, &data_dir, user, durable)?;
    }
    let mut attempt = 1;
    let (keeper, port) = loop {
        // The port is free now, and may be gone when the server takes it: then it ends, and we take another.
        let port = running::free_port().at("find a free port for", &data_dir)?;
        match server::launch(&binaries, &data_dir, user, durable, port) {
            Ok(keeper) => break (keeper, port),
            Err(Error::Start { log, .. }) if attempt < 3 && log.contains("in use") => attempt += 1,
            Err(error) => return Err(error),
        }
    };
    let url = url(&data_dir, port)?;
    Ok(Private { url, data_dir, keeper: Some(keeper) })
}
