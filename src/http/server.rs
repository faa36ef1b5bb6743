//! The two listeners: the API, and metrics with health beside it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use super::health::{StartingReason, starting_router};
use super::limits::shed;
use super::{App, Options, Shared, metrics_routes, routes};

/// How often the metrics' histograms are folded, so that they do not grow between scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The most a connection reads ahead, in bytes; also the longest head of a request.
const CONNECTION_BUFFER: usize = 64 << 10;
/// Pause after a connection could not be taken.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// What a connection is told that there is no place for.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

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
        Self::start_after(app, None).await
    }

    /// The same, where health has been answered since before.
    ///
    /// # Errors
    /// See [`Server::start`].
    pub async fn start_after(app: App, starting: Option<Starting>) -> Result<Self, StartError> {
        let options = app.options.clone();
        let (api, api_addr) = listen("the API", options.listen).await?;
        let (metrics, metrics_addr) = match starting {
            Some(starting) => starting.end().await,
            None => listen("metrics", options.metrics_listen).await?,
        };
        let (stopping, stopped) = watch::channel(false);
        let upkeep = upkeep(app.metrics.clone(), stopped.clone());
        // One for both: what is under way in the API is shown by the other.
        let shared = Shared::new(app);
        let tasks = vec![
            serve(metrics, metrics_routes(Arc::clone(&shared)), &options, stopped.clone()),
            serve(api, routes(shared), &options, stopped),
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

/// Answers health while the engine has not started: a process that waits for another's shards is alive, and says what it
/// waits for. Ends when it is dropped.
#[derive(Debug)]
pub struct Starting {
    listener: Arc<TcpListener>,
    address: SocketAddr,
    task: JoinHandle<()>,
    /// Kept: without it nobody would be told to stop.
    _stopping: watch::Sender<bool>,
}

impl Starting {
    /// Listens where metrics will be. `None`: the address is taken, as a rule by the process that this one waits for.
    pub async fn start(options: &Options, reason: watch::Receiver<StartingReason>) -> Option<Self> {
        let (listener, address) = listen("health", options.metrics_listen).await.ok()?;
        let (stopping, stopped) = watch::channel(false);
        let task = serve(Arc::clone(&listener), starting_router(reason), options, stopped);
        Some(Self { listener, address, task, _stopping: stopping })
    }

    /// Hands the listener on.
    async fn end(mut self) -> (Arc<TcpListener>, SocketAddr) {
        self.task.abort();
        // It ends by being aborted, so there is nothing to hear.
        let _ = (&mut self.task).await;
        (Arc::clone(&self.listener), self.address)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(what: &'static str, address: SocketAddr) -> Result<(Arc<TcpListener>, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { what, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((Arc::new(listener), address))
}

/// Takes connections until it is told to stop, and ends when the last of them has ended. Aborting it cuts them off.
fn serve(
    listener: Arc<TcpListener>,
    router: Router,
    options: &Options,
    stopped: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(options.head_timeout).max_buf_size(CONNECTION_BUFFER);
    let places = Arc::new(Semaphore::new(options.connections_max));
    tokio::spawn(async move {
        let mut open = JoinSet::new();
        let stop = until(stopped.clone());
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                // What has ended gives its memory back.
                Some(_) = open.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        open.spawn(connection(http.clone(), stream, router.clone(), stopped.clone(), place));
                    }
                    Err(_) => turn_away(stream),
                },
                Err(error) => {
                    // No more files, or a client that went away: the next one may have more luck.
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot take a connection");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
        drop(listener);
        while open.join_next().await.is_some() {}
    })
}

/// Serves one connection, and lets its request end when the server stops.
async fn connection(
    http: http1::Builder,
    stream: TcpStream,
    router: Router,
    stopped: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    let served = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = until(stopped) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection broke");
    }
}

/// Answers a connection that there is no place for, without reading what it wants, and closes it.
fn turn_away(stream: TcpStream) {
    shed("connection");
    // What was read does not reset the connection before the answer was. Both fail on a client that is gone already.
    let _ = stream.try_read(&mut [0; 4096]);
    let _ = stream.try_write(FULL);
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
    let tasks = crate::telemetry::watch();
    tokio::pin!(stop, tasks);
    loop {
        tokio::select! {
            () = &mut stop => return,
            // Never ends.
            () = &mut tasks => return,
            _ = ticks.tick() => metrics.upkeep(),
        }
    }
}
