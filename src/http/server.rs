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
    #[error(
        "cannot listen on {address} for {what}: {source}; end the program that has it, or choose another address with {setting} or \
         `campaignd serve {option}`"
    )]
    Listen {
        /// What would have listened there.
        what: &'static str,
        /// The setting that says where.
        setting: &'static str,
        /// The option of `serve` that does.
        option: &'static str,
        /// Where.
        address: SocketAddr,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

/// A running server. Dropping it leaves it running; [`Server::stop`] ends it.
#[derive(Debug)]
pub struct Server {
    api_addr: SocketAddr,
    metrics_addr: SocketAddr,
    drain: Duration,
    /// `None`: it has stopped.
    api: Option<Task>,
    metrics: Task,
    upkeep: Task,
}

/// Something that runs until it is told to stop.
#[derive(Debug)]
struct Task {
    stopping: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Task {
    fn spawn<F: Future<Output = ()> + Send + 'static>(run: impl FnOnce(watch::Receiver<bool>) -> F) -> Self {
        let (stopping, stopped) = watch::channel(false);
        Self { stopping, task: tokio::spawn(run(stopped)) }
    }

    /// Tells it to stop, and cuts it off when it does not by then.
    async fn stop(mut self, deadline: Instant) {
        let _ = self.stopping.send(true);
        if tokio::time::timeout_at(deadline, &mut self.task).await.is_err() {
            tracing::warn!("requests were still open when the server stopped");
            self.task.abort();
        }
    }
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
        let (api, api_addr) = listen_api(&options).await?;
        let (metrics, metrics_addr) = match starting {
            Some(starting) => starting.end().await,
            None => listen_metrics(&options).await?,
        };
        let app_metrics = app.metrics.clone();
        // One for both: what is under way in the API is shown by the other.
        let shared = Shared::new(app);
        let server = Self {
            api_addr,
            metrics_addr,
            drain: options.drain,
            metrics: Task::spawn(|stopped| serve(metrics, metrics_routes(Arc::clone(&shared)), &options, stopped)),
            api: Some(Task::spawn(|stopped| serve(api, routes(shared), &options, stopped))),
            upkeep: Task::spawn(|stopped| upkeep(app_metrics, stopped)),
        };
        tracing::info!(api = %api_addr, metrics = %metrics_addr, "listening");
        Ok(server)
    }

    /// Where the API listens.
    pub const fn api_addr(&self) -> SocketAddr {
        self.api_addr
    }

    /// Where metrics are scraped.
    pub const fn metrics_addr(&self) -> SocketAddr {
        self.metrics_addr
    }

    /// Takes no more connections to the API, lets its requests end for as long as the options say, then cuts them off. Metrics
    /// and health go on: they tell how the rest of the program stops.
    pub async fn stop_api(&mut self) {
        if let Some(api) = self.api.take() {
            api.stop(Instant::now() + self.drain).await;
        }
    }

    /// Ends all of it, likewise.
    pub async fn stop(mut self) {
        self.stop_api().await;
        let deadline = Instant::now() + self.drain;
        self.metrics.stop(deadline).await;
        self.upkeep.stop(deadline).await;
    }
}

/// Answers health while the engine has not started: a process that waits for another's shards is alive, and says what it
/// waits for. Ends when it is dropped.
#[derive(Debug)]
pub struct Starting {
    listener: Arc<TcpListener>,
    address: SocketAddr,
    running: Task,
}

impl Starting {
    /// Listens where metrics will be.
    ///
    /// # Errors
    /// When one of the two addresses cannot be listened on: better said now than when the engine has taken over.
    pub async fn start(options: &Options, reason: watch::Receiver<StartingReason>) -> Result<Self, StartError> {
        // Not kept: whoever connects would wait for the engine instead of being refused.
        drop(listen_api(options).await?);
        let (listener, address) = listen_metrics(options).await?;
        let serving = Arc::clone(&listener);
        let running = Task::spawn(|stopped| serve(serving, starting_router(reason), options, stopped));
        Ok(Self { listener, address, running })
    }

    /// Hands the listener on.
    async fn end(mut self) -> (Arc<TcpListener>, SocketAddr) {
        self.running.task.abort();
        // It ends by being aborted, so there is nothing to hear.
        let _ = (&mut self.running.task).await;
        (Arc::clone(&self.listener), self.address)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.running.task.abort();
    }
}

/// A listener, and its address with the port that it has got.
type Listening = (Arc<TcpListener>, SocketAddr);

async fn listen_api(options: &Options) -> Result<Listening, StartError> {
    let failed = |source| StartError::Listen {
        what: "the API",
        setting: "http.listen",
        option: "--listen",
        address: options.listen,
        source,
    };
    listen(options.listen).await.map_err(failed)
}

async fn listen_metrics(options: &Options) -> Result<Listening, StartError> {
    let failed = |source| StartError::Listen {
        what: "metrics and health",
        setting: "http.metrics_listen",
        option: "--metrics-listen",
        address: options.metrics_listen,
        source,
    };
    listen(options.metrics_listen).await.map_err(failed)
}

async fn listen(address: SocketAddr) -> std::io::Result<Listening> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((Arc::new(listener), address))
}

/// Takes connections until it is told to stop, and ends when the last of them has ended. Aborting it cuts them off.
fn serve(
    listener: Arc<TcpListener>,
    router: Router,
    options: &Options,
    stopped: watch::Receiver<bool>,
) -> impl Future<Output = ()> + use<> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(options.head_timeout).max_buf_size(CONNECTION_BUFFER);
    let places = Arc::new(Semaphore::new(options.connections_max));
    async move {
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
    }
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
