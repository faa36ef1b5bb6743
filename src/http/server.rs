//! The two listeners: the API, and metrics with health beside it.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::{App, metrics_router, router};

/// How often the metrics' histograms are folded, so that they do not grow between scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or is none of this machine's.
    #[error("cannot listen on {address}: {source}; choose another address for {what}")]
    Listen {
        /// What would have listened there.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

/// A running server. Dropping it leaves it running; [`Server::stop`] ends it.
#[derive(Debug)]
pub struct Server {
    api: SocketAddr,
    metrics: SocketAddr,
    drain: Duration,
    stopping: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens on both addresses of the options and serves. Port 0 takes a free one; see [`Server::api_addr`].
    ///
    /// # Errors
    /// When one of the addresses cannot be listened on; then nothing is left running.
    pub async fn start(app: App) -> Result<Self, StartError> {
        let options = app.options.clone();
        let (api, api_addr) = listen("the API", options.listen).await?;
        let (metrics, metrics_addr) = listen("metrics", options.metrics_listen).await?;
        let (stopping, stopped) = watch::channel(false);
        let upkeep = upkeep(app.metrics.clone(), stopped.clone());
        let tasks = vec![
            serve(metrics, metrics_router(app.clone()), stopped.clone()),
            serve(api, router(app), stopped),
            tokio::spawn(upkeep),
        ];
        tracing::info!(api = %api_addr, metrics = %metrics_addr, "listening");
        Ok(Self { api: api_addr, metrics: metrics_addr, drain: options.drain, stopping, tasks })
    }

    /// Where the API listens.
    pub const fn api_addr(&self) -> SocketAddr {
        self.api
    }

    /// Where metrics are scraped.
    pub const fn metrics_addr(&self) -> SocketAddr {
        self.metrics
    }

    /// Takes no more connections, lets requests end for as long as the options say, then cuts them off.
    pub async fn stop(self) {
        let _ = self.stopping.send(true);
        let deadline = Instant::now() + self.drain;
        for mut task in self.tasks {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                tracing::warn!("requests were still open when the server stopped");
                task.abort();
            }
        }
    }
}

async fn listen(what: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { what, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

fn serve(listener: TcpListener, router: Router, stopped: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(until(stopped)).await;
        if let Err(error) = served {
            tracing::error!(error = &error as &dyn std::error::Error, "a listener ended");
        }
    })
}

/// Returns when the server is told to stop, or was forgotten together with its runtime.
async fn until(mut stopped: watch::Receiver<bool>) {
    if stopped.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn upkeep(metrics: crate::telemetry::Metrics, stopped: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(UPKEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stop = until(stopped);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = ticks.tick() => metrics.upkeep(),
        }
    }
}
