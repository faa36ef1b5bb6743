//! Runs pgbench and reads its log of transactions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use reqwest::Url;
use tokio::process::Command;

use super::{Error, Latencies};
use crate::postgres;

/// Query parameters of a database URL that libpq knows; the others are the driver's.
const LIBPQ: &[&str] = &["host", "port", "user", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey"];
/// How much of what pgbench says is shown when it fails.
const SHOWN: usize = 600;

/// An installed pgbench.
#[derive(Clone, Debug)]
pub(super) struct Pgbench {
    program: PathBuf,
}

/// What to run.
#[derive(Clone, Debug)]
pub(super) struct Job<'a> {
    /// The database.
    pub(super) url: &'a str,
    /// In pgbench's language.
    pub(super) script: &'a str,
    /// Sessions.
    pub(super) clients: u32,
    /// When it ends.
    pub(super) length: Length,
    /// Its variables (`-D`).
    pub(super) variables: &'a [(&'a str, String)],
    /// Settings of the sessions, as `PGOPTIONS` takes them.
    pub(super) options: &'a str,
}

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Length {
    /// After so many transactions of each client.
    Transactions(usize),
    /// After this time.
    Time(Duration),
    /// After this time, with so many a second and no more; a late one counts from when it should have begun.
    Paced(Duration, u32),
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Of the transactions.
    pub(super) latencies: Latencies,
    /// Transactions a second, without the time it took to connect.
    pub(super) per_second: f64,
}

impl Pgbench {
    /// The one beside the server's programs, else the one in `PATH`.
    pub(super) fn find() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let beside = postgres::find_binaries().ok();
        let program = beside.into_iter().chain(std::env::split_paths(&path)).map(|dir| dir.join("pgbench"));
        program.into_iter().find(|p| p.is_file()).map(|program| Self { program })
    }

    /// Runs it to its end; dropping the future kills it.
    pub(super) async fn run(&self, job: Job<'_>) -> Result<Run, Error> {
        let home = Directory::new()?;
        let script = home.0.join("script.sql");
        fs::write(&script, job.script).map_err(Error::io("writing a script for pgbench"))?;
        let (url, password) = without_password(job.url)?;
        let mut command = Command::new(&self.program);
        command.args(["--no-vacuum", "--protocol=prepared", "--jobs=1", "--log"]);
        command.arg("--log-prefix").arg(home.0.join("log")).arg("--file").arg(&script);
        command.arg(format!("--client={}", job.clients));
        command.arg(match job.length {
            Length::Transactions(n) => format!("--transactions={n}"),
            Length::Time(time) | Length::Paced(time, _) => format!("--time={}", time.as_secs().max(1)),
        });
        if let Length::Paced(_, rate) = job.length {
            command.arg(format!("--rate={rate}"));
        }
        for (name, value) in job.variables {
            command.arg("-D").arg(format!("{name}={value}"));
        }
        command.arg(url).env("PGOPTIONS", job.options).env("LC_ALL", "C");
        if let Some(password) = password {
            command.env("PGPASSWORD", password);
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(Error::io(format!("running {}", self.program.display())))?;
        let latencies = read_logs(&home.0)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let per_second = value(&text, "tps = ").ok_or_else(|| failure(&output))?;
        // Deadlocks, as a rule. Without them the run would have been another one.
        let failed = value(&text, "number of failed transactions: ").unwrap_or(0.0);
        match output.status.success() {
            true if failed > 0.0 => Err(Error::Refused(format!("{failed} transactions of pgbench failed"))),
            true => Ok(Run { latencies, per_second }),
            false => Err(failure(&output)),
        }
    }
}

/// A directory that goes when it is not needed any more.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("campaignd-pgbench-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir_all(&path).map_err(Error::io(format!("making {}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The URL as libpq takes it, without the password, which everybody could see in the list of processes; and the password.
fn without_password(url: &str) -> Result<(String, Option<String>), Error> {
    let refused = || Error::Refused("the database's URL cannot be read".to_owned());
    let mut url: Url = url.parse().map_err(|_| refused())?;
    let known: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(k, _)| LIBPQ.contains(&&**k))
        .map(|(k, v)| (k.into_owned(), v.into_owned()))
        .collect();
    let password = url.password().map(decoded);
    if password.is_some() {
        url.set_password(None).map_err(|()| refused())?;
    }
    url.set_query(None);
    if !known.is_empty() {
        url.query_pairs_mut().extend_pairs(known);
    }
    Ok((url.into(), password))
}

/// Takes the percent signs out.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok());
        match hex {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Lines of `client transaction microseconds script seconds microseconds`, in one file a thread.
fn read_logs(home: &Path) -> Result<Latencies, Error> {
    let latencies = Latencies::new();
    for entry in fs::read_dir(home).map_err(Error::io("looking for pgbench's log"))?.flatten() {
        if !entry.file_name().to_string_lossy().starts_with("log.") {
            continue;
        }
        let text = fs::read_to_string(entry.path()).map_err(Error::io("reading pgbench's log"))?;
        for micros in text.lines().filter_map(|l| l.split_whitespace().nth(2)?.parse().ok()) {
            latencies.record(Duration::from_micros(micros));
        }
    }
    Ok(latencies)
}

/// The number after `name` in pgbench's summary: `tps = 1234.567890 (without initial connection time)`.
fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|l| l.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

fn failure(output: &Output) -> Error {
    let text = String::from_utf8_lossy(&output.stderr);
    let end: String = text.chars().take(SHOWN).collect();
    Error::Refused(format!("pgbench failed ({}): {}", output.status, end.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_by_the_environment_and_the_drivers_settings_stay_behind() {
        let (url, password) =
            without_password("postgres://u:p%40%2F@h:5/d?sslmode=disable&statement-cache-capacity=9").unwrap();
        assert_eq!((url.as_str(), password.as_deref()), ("postgres://u@h:5/d?sslmode=disable", Some("p@/")));
        let (url, password) = without_password("postgres://u@h/d").unwrap();
        assert_eq!((url.as_str(), password), ("postgres://u@h/d", None));
    }

    #[test]
    fn a_summary_is_read_by_name() {
        let text = "latency average = 2 ms\nnumber of failed transactions: 3 (0.9%)\ntps = 620.5 (without initial connection time)\n";
        assert_eq!((value(text, "tps = "), value(text, "number of failed transactions: ")), (Some(620.5), Some(3.0)));
        assert_eq!(value("", "tps = "), None);
    }

    #[test]
    fn the_log_of_transactions_is_read() {
        let home = Directory::new().unwrap();
        fs::write(home.0.join("log.77"), "0 1 1500 0 1767603600 1\n0 2 2500 0 1767603600 2\n").unwrap();
        fs::write(home.0.join("log.77.1"), "1 1 3500 0 1767603600 1\n").unwrap();
        let latencies = read_logs(&home.0).unwrap();
        assert_eq!((latencies.count(), latencies.max()), (3, Duration::from_micros(3500)));
    }
}
