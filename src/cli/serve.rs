//! `campaignd serve`: the daemon.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use super::database::{connect_url, ensure_key, key_file};
use super::output::Failure;
use crate::config::Config;
use crate::service::Service;

/// The exit code of a process that has lost its lease: whoever supervises it starts it again.
pub(super) const LOST: u8 = 3;

/// Arguments of `serve`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  \
    CAMPAIGND_UNIPILE__BASE_URL=http://127.0.0.1:8090 CAMPAIGND_UNIPILE__API_KEY=sandbox \\\n  \
    CAMPAIGND_UNIPILE__WEBHOOK_SECRET=a-secret-of-your-own CAMPAIGND_HTTP__PUBLIC_URL=http://127.0.0.1:8080 campaignd serve\n\n\
    SIGTERM or Ctrl-C drains: sends in flight end, everything is written, the shards are given back. A second one ends it \
    at once.")]
pub(super) struct Args {
    /// Listen here instead of http.listen.
    #[arg(long, value_name = "ADDR")]
    listen: Option<std::net::SocketAddr>,
    /// Serve metrics here instead of http.metrics_listen.
    #[arg(long, value_name = "ADDR")]
    metrics_listen: Option<std::net::SocketAddr>,
}

pub(super) async fn run(args: Args, mut config: Config) -> Result<ExitCode, Failure> {
    config.listen = args.listen.unwrap_or(config.listen);
    config.metrics_listen = args.metrics_listen.unwrap_or(config.metrics_listen);
    let mut stop = Stop::new()?;
    let (url, private) = tokio::select! {
        connected = connect_url(&config) => connected?,
        () = stop.requested() => return Ok(ExitCode::from(130)),
    };
    let started = tokio::select! {
        started = Service::start(&config, url.expose(), config.clock(), rehydration_bar()) => started,
        () = stop.requested() => return Ok(ExitCode::from(130)),
    };
    let service = started.map_err(Failure::unusable_by)?;
    if let Some(key) = ensure_key(service.pool(), &config).await? {
        eprintln!("first API key (shown once, kept in {}):\n  {key}", key_file().display());
    }
    eprintln!("campaignd serves on http://{} (metrics http://{}/metrics)", service.api_addr(), service.metrics_addr());
    let lost = tokio::select! {
        () = stop.requested() => false,
        () = service.lost() => true,
    };
    if lost {
        tracing::error!("another campaignd has taken the shards over, or the lease could not be renewed: stopping");
    } else {
        eprintln!("draining; once more to stop at once");
    }
    let drained = tokio::select! {
        drained = service.stop() => drained,
        () = stop.requested() => false,
    };
    if let Some(private) = private {
        let _ = tokio::task::spawn_blocking(move || private.stop()).await;
    }
    Ok(if lost {
        ExitCode::from(LOST)
    } else if drained {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(130)
    })
}

/// Ctrl-C and SIGTERM.
pub(super) struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    pub(super) fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|e| Failure::unusable(format!("cannot listen for signals: {e}")));
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    /// Returns at the next one.
    pub(super) async fn requested(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A bar on a terminal while executions are read back; nothing otherwise.
fn rehydration_bar() -> Box<dyn Fn(u64, u64) + Send + Sync> {
    let bar = ProgressBar::new(0);
    // A template that is wrong leaves the default style.
    if let Ok(style) = ProgressStyle::with_template("reading executions back {wide_bar} {pos}/{len} ({per_sec}, {eta})")
    {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    Box::new(move |read, all| {
        bar.set_length(all.max(read));
        bar.set_position(read);
        if read >= all {
            bar.finish_and_clear();
        }
    })
}
