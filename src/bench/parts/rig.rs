//! The engine as the parts run it: in this process with the bench's provider, or the real daemon as a process of its own.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::desk::{self, Desk};
use crate::bench::memory::Process;
use crate::bench::{Bench, Error, Scratch};
use crate::clock::Clock;
use crate::config::Config;
use crate::provider::Provider;
use crate::runtime::{self, Handle, Options, Runtime};
use crate::store::{self, Pool};
use crate::telemetry;

/// How often the metrics' histograms are folded: as the daemon does it.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at whether something has come about.
const LOOK: Duration = Duration::from_millis(5);
/// The same over HTTP, which costs the daemon more than a look.
const LOOK_HTTP: Duration = Duration::from_millis(20);
/// Memory has settled when it has not changed by more than a 200th for this long.
const SETTLED: Duration = Duration::from_secs(2);
/// It is taken as it is after this long.
const SETTLE_MAX: Duration = Duration::from_secs(20);
/// How much of a daemon's log is shown when it did not do what it should.
const LOG_SHOWN: usize = 2000;

/// How long reading back or enrolling so many prospects may take before a part gives up.
pub(super) fn patience(prospects: u64) -> Duration {
    Duration::from_secs(60 + prospects / 2_000)
}

/// An engine in this process. One that is dropped instead of being stopped stops by itself, some time later.
pub(super) struct Rig {
    engine: Pool,
    /// Taken when it is stopped.
    runtime: Option<Runtime>,
    handle: Handle,
    /// Tidies the metrics and samples the async runtime, as a daemon does.
    upkeep: AbortHandle,
    /// From `runtime::start` being called.
    started: Instant,
}

impl Rig {
    /// Starts the engine on a scratch database, with as many connections as the daemon gives it and room for so many
    /// residents. `tune` may change the other limits.
    pub(super) async fn start(
        scratch: &Scratch,
        desk: &Arc<Desk>,
        residents: u64,
        tune: impl FnOnce(&mut Options),
    ) -> Result<Self, Error> {
        let metrics = telemetry::install().map_err(|e| Error::Refused(e.to_string()))?;
        let engine = store::connect_engine(&scratch.url, Config::default().connections).await?;
        let providers: HashMap<String, Arc<dyn Provider>> =
            HashMap::from([(desk::NAME.to_owned(), Arc::clone(desk) as Arc<dyn Provider>)]);
        let mut options = Options::new(engine.clone(), Clock::System, providers);
        options.resident_max = usize::try_from(residents).unwrap_or(usize::MAX);
        tune(&mut options);
        let started = Instant::now();
        let runtime = runtime::start(options).await?;
        let upkeep = tokio::spawn(async move {
            let tidy = async {
                loop {
                    tokio::time::sleep(UPKEEP_EVERY).await;
                    metrics.upkeep();
                }
            };
            tokio::join!(tidy, telemetry::watch())
        });
        let handle = runtime.handle();
        Ok(Self { engine, runtime: Some(runtime), handle, upkeep: upkeep.abort_handle(), started })
    }

    /// The engine.
    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until everything has been read back and everybody is resident or parked, and answers how long that took from
    /// the start.
    pub(super) async fn ready(&self, bench: &Bench, prospects: u64) -> Result<Duration, Error> {
        let handle = self.handle();
        let progress = bench.progress("reading executions back", prospects);
        let limit = patience(prospects);
        loop {
            let status = handle.status();
            let known = status.residents + status.parked;
            progress.set(known);
            if status.ready && known >= prospects {
                return Ok(self.started.elapsed());
            }
            bench.check()?;
            if self.started.elapsed() > limit {
                return Err(Error::Refused(format!(
                    "the engine has {known} of {prospects} executions after {} s: {}",
                    limit.as_secs(),
                    status.reason.map_or("ready", |_| "still reading back")
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Lets what is in flight end, and stops.
    pub(super) async fn stop(mut self) {
        if let Some(runtime) = self.runtime.take() {
            stop(runtime, self.engine.clone()).await;
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.upkeep.abort();
        if let Some(runtime) = self.runtime.take() {
            // The part has failed: the next one must not find this engine at work.
            tokio::spawn(stop(runtime, self.engine.clone()));
        }
    }
}

async fn stop(runtime: Runtime, engine: Pool) {
    if !runtime.shutdown().await {
        tracing::warn!("the engine was stopped with work in flight");
    }
    engine.close().await;
}

/// What `/readyz` answers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Readiness {
    ready: bool,
    residents: u64,
    parked: u64,
}

/// A daemon as a process of its own: this very binary. Killed with -9 when dropped.
pub(super) struct Daemon {
    child: Child,
    /// When it was started.
    pub(super) started: Instant,
    /// Where its API listens.
    pub(super) api: SocketAddr,
    metrics: SocketAddr,
    http: reqwest::Client,
    directory: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Daemon {
    /// Starts `campaignd serve` on a scratch database. `settings` are environment variables.
    pub(super) fn start(scratch: &Scratch, settings: &[(&str, String)]) -> Result<Self, Error> {
        let binary = std::env::current_exe().map_err(Error::io("finding this program"))?;
        let directory = std::env::temp_dir().join(format!("campaignd-bench-{}", Uuid::new_v4().simple()));
        fs::create_dir_all(&directory).map_err(Error::io(format!("making {}", directory.display())))?;
        let (api, metrics) = free_addresses().map_err(Error::io("looking for free ports"))?;
        let log = File::create(directory.join("log")).map_err(Error::io("making a log file"))?;
        let mut command = Command::new(binary);
        command.arg("serve");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CAMPAIGND_")) {
            command.env_remove(name);
        }
        command
            .env("DATABASE_URL", &scratch.url)
            .env("CAMPAIGND_DATA_DIR", &directory)
            .env("CAMPAIGND_HTTP__LISTEN", api.to_string())
            .env("CAMPAIGND_HTTP__METRICS_LISTEN", metrics.to_string())
            .envs(settings.iter().map(|(name, value)| (*name, value.as_str())))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let http = client()?;
        let started = Instant::now();
        let child = command.spawn().map_err(Error::io("starting a daemon"))?;
        Ok(Self { child, started, api, metrics, http, directory })
    }

    /// What it uses.
    pub(super) fn process(&self) -> Process {
        Process::of(self.child.id())
    }

    /// Waits until it says that everything has been read back and all of these are resident or parked, and answers how
    /// long that took from its start.
    pub(super) async fn ready(&mut self, bench: &Bench, prospects: u64) -> Result<Duration, Error> {
        let (url, limit) = (format!("http://{}/readyz", self.metrics), patience(prospects));
        let progress = bench.progress("a daemon reads executions back", prospects);
        loop {
            let readiness = self.readiness(&url).await;
            progress.set(readiness.residents + readiness.parked);
            if readiness.ready && readiness.residents + readiness.parked >= prospects {
                return Ok(self.started.elapsed());
            }
            self.check(bench, limit, "was not ready")?;
            tokio::time::sleep(LOOK_HTTP).await;
        }
    }

    /// What it says of itself; nothing while it does not listen.
    async fn readiness(&self, url: &str) -> Readiness {
        match self.http.get(url).send().await {
            Ok(answer) => answer.json().await.unwrap_or_default(),
            Err(_) => Readiness::default(),
        }
    }

    /// An error once it has ended, the time is up or Ctrl-C was pressed.
    pub(super) fn check(&mut self, bench: &Bench, limit: Duration, what: &str) -> Result<(), Error> {
        bench.check()?;
        if let Some(status) = self.child.try_wait().map_err(Error::io("looking after a daemon"))? {
            return Err(Error::Refused(format!("a daemon ended ({status}) before it should: {}", self.log())));
        }
        if self.started.elapsed() > limit {
            return Err(Error::Refused(format!("a daemon {what} within {} s: {}", limit.as_secs(), self.log())));
        }
        Ok(())
    }

    /// Kills it with -9 and waits until it is gone.
    pub(super) fn kill(mut self) -> Result<(), Error> {
        self.child.kill().map_err(Error::io("killing a daemon"))?;
        self.child.wait().map_err(Error::io("killing a daemon")).map(drop)
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let start = text.len().saturating_sub(LOG_SHOWN);
        text.get(start..).unwrap_or(&text).trim().to_owned()
    }
}

/// Two addresses that nobody has now.
fn free_addresses() -> io::Result<(SocketAddr, SocketAddr)> {
    let (one, two) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok((one.local_addr()?, two.local_addr()?))
}

/// An HTTP client for servers of this machine.
pub(super) fn client() -> Result<reqwest::Client, Error> {
    // An error means that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build()
        .map_err(|e| Error::Refused(format!("cannot set up HTTP: {e}")))
}

/// Waits until the resident memory of a process has settled, and answers it in bytes.
pub(super) async fn settled_memory(bench: &Bench, process: &Process) -> Result<u64, Error> {
    let gone = || Error::Refused("the memory of a process cannot be read: this needs Linux".to_owned());
    let begun = Instant::now();
    let (mut since, mut before) = (Instant::now(), process.rss().ok_or_else(gone)?);
    loop {
        bench.check()?;
        tokio::time::sleep(Duration::from_millis(250)).await;
        let now = process.rss().ok_or_else(gone)?;
        if now.abs_diff(before) > before / 200 {
            (since, before) = (Instant::now(), now);
        }
        if since.elapsed() >= SETTLED || begun.elapsed() >= SETTLE_MAX {
            return Ok(now);
        }
    }
}

/// The share of one core that a process used while `wait` passed.
pub(super) async fn cpu_share(bench: &Bench, process: &Process, wait: Duration) -> Result<Option<f64>, Error> {
    let (before, begun) = (process.cpu(), Instant::now());
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = bench.cancelled() => return Err(Error::Cancelled),
    }
    let used = process.cpu().zip(before).map(|(after, before)| after.saturating_sub(before));
    Ok(used.map(|used| used.as_secs_f64() / begun.elapsed().as_secs_f64()))
}
