//! Why there is no answer, in words for a person.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::time::Duration;

use serde::Deserialize;

use crate::cli::output::{Failure, clean};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum Error {
    /// Nothing listens.
    #[error("no campaignd answers at {server}: start it with `campaignd serve` or pass --server")]
    NobodyThere { server: String },
    /// No connection came about.
    #[error("cannot reach {server}: {reason}")]
    Unreachable { server: String, reason: String },
    /// It takes too long; what was asked may have been done.
    #[error("{server} did not answer in time; it may still have done what was asked: look before you repeat it")]
    Slow { server: String },
    /// The connection broke; what was asked may have been done.
    #[error("the connection to {server} broke ({reason}); look before you repeat what was asked")]
    Broken { server: String, reason: String },
    /// Something else answers there.
    #[error("{server} answers ({status}), but not as campaignd does: does --server name the right address?")]
    Strange { server: String, status: u16 },
    /// The server said no.
    #[error("{0}")]
    Problem(Problem),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Problem(_) => Self::refused(error.to_string()),
            _ => Self::unusable(error.to_string()),
        }
    }
}

/// A problem document (RFC 9457) of the server.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::cli) struct Problem {
    /// `code` in words.
    pub(in crate::cli) title: String,
    /// For people.
    #[serde(default)]
    pub(in crate::cli) detail: String,
    /// For programs.
    #[serde(default)]
    pub(in crate::cli) code: String,
    /// What is wrong where.
    #[serde(default)]
    pub(in crate::cli) problems: Vec<Wrong>,
    /// The line of an upload.
    #[serde(default)]
    pub(in crate::cli) line: Option<u64>,
    /// What there is already.
    #[serde(default)]
    pub(in crate::cli) id: Option<String>,
    #[serde(skip)]
    pub(super) hint: Option<String>,
    #[serde(skip)]
    pub(in crate::cli) retry_after: Option<Duration>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::cli) struct Wrong {
    /// Its JSON path.
    pub(in crate::cli) path: String,
    /// What is wrong with it.
    pub(in crate::cli) message: String,
}

/// Title and detail, then a line for each problem.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&clean(&self.title))?;
        if !self.detail.is_empty() {
            write!(f, ": {}", clean(&self.detail))?;
        }
        for wrong in &self.problems {
            write!(f, "\n  {}: {}", clean(&wrong.path), clean(&wrong.message))?;
        }
        if let Some(id) = &self.id {
            write!(f, "\n  id: {}", clean(id))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n{hint}")?;
        }
        Ok(())
    }
}

/// Whether nobody listens there.
pub(super) fn refused(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(e) = source {
        if e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        source = e.source();
    }
    false
}

/// The innermost text of an error: the outer ones repeat the address.
pub(super) fn cause(error: &reqwest::Error) -> String {
    let mut found: &dyn std::error::Error = error;
    while let Some(source) = found.source() {
        found = source;
    }
    found.to_string()
}
