//! Why there is no private Postgres, in words that say what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is no private Postgres. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No server is installed.
    #[error("no postgres is installed: type `{hint}`, or set CAMPAIGND_PG_BINDIR, or set DATABASE_URL to a server")]
    NotInstalled {
        /// The line to type on this system.
        hint: &'static str,
    },
    /// The cluster could not be made.
    #[error("cannot make a postgres cluster in {data_dir}: {output}")]
    Initdb {
        /// Where.
        data_dir: PathBuf,
        /// What initdb said.
        output: String,
    },
    /// The server did not come up.
    #[error("postgres in {data_dir} did not start: {reason}. end of its log:\n{log}")]
    Start {
        /// Where.
        data_dir: PathBuf,
        /// What was seen from outside.
        reason: String,
        /// The last lines of its log.
        log: String,
    },
    /// The cluster belongs to another major version.
    #[error(
        "the cluster in {data_dir} was made by postgres {found}, but {installed} is installed: install {found}, or move \
         the directory away to start afresh"
    )]
    OtherVersion {
        /// Where.
        data_dir: PathBuf,
        /// Its version.
        found: String,
        /// Ours.
        installed: String,
    },
    /// The password of a running cluster cannot be read.
    #[error("cannot read the password in {path}: run as the user who made the cluster")]
    Password {
        /// The password's file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file or a process could not be handled.
    #[error("cannot {what}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// Why not.
        source: io::Error,
    },
}

/// Says what was tried with which path.
pub(super) trait At<T> {
    fn at(self, what: &str, path: &Path) -> Result<T, Error>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, what: &str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io { what: format!("{what} {}", path.display()), source })
    }
}
