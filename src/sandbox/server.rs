//! Starting and stopping: the listener, the world's mutex, the one task that plays the people.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, get, post};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::net::{Breakable, Breaker};
use super::options::Options;
use super::text;
use super::webhooks::Courier;
use super::world::World;
use super::{inspect, wire};
use crate::clock::Clock;

/// Acts played before the world's lock is given back once.
const ACTS_A_TURN: usize = 256;
/// How long `stop` waits for requests under way.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Why a sandbox could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else listens there, or may not be listened there.
    #[error(
        "the sandbox cannot listen on {addr}: {source}; choose another address with --listen, or stop what listens there"
    )]
    Bind {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The ledger's file cannot be opened for appending.
    #[error(
        "the sandbox cannot open its ledger file {path}: {source}; check that the directory exists and can be written"
    )]
    Ledger {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The client for webhooks cannot be made.
    #[error("the sandbox cannot make its http client for webhooks: {0}")]
    Http(#[from] reqwest::Error),
}

/// What requests share.
pub(super) struct Sandbox {
    world: Mutex<World>,
    pub(super) api_key: String,
    pub(super) clock: Clock,
    pub(super) courier: Arc<Courier>,
    wake: Notify,
    seed: u64,
    duplicate_share: f64,
    shuffle: Duration,
}

impl Sandbox {
    /// One turn with the world: sets its time, and afterwards sends off the webhooks it left.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.now = self.clock.now();
        let out = f(&mut world);
        let deliveries = std::mem::take(&mut world.outbox);
        let woken = std::mem::take(&mut world.acts_changed);
        // Drawn in here, where the world's chance is.
        let draws: Vec<_> = deliveries.iter().map(|_| (world.number(), world.number())).collect();
        drop(world);
        if woken {
            self.wake.notify_one();
        }
        for (delivery, (one, two)) in deliveries.into_iter().zip(draws) {
            let draw = |n: u64, what: &str| text::unit(self.seed, &[what, &n.to_string()]);
            if self.duplicate_share > 0.0 && draw(one, "duplicate") < self.duplicate_share {
                let again = super::webhooks::Delivery { hook: Arc::clone(&delivery.hook), body: delivery.body.clone() };
                self.courier.take(again, self.shuffle.mul_f64(draw(one, "hold")));
            }
            self.courier.take(delivery, self.shuffle.mul_f64(draw(two, "hold")));
        }
        out
    }
}

/// A running sandbox. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops: requests under way get two seconds, webhooks not yet delivered are lost.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        for task in &mut self.tasks {
            if tokio::time::timeout(STOP_GRACE, &mut *task).await.is_err() {
                task.abort();
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Starts a sandbox; it answers when this returns.
///
/// # Errors
/// When the address cannot be listened on, the ledger's file cannot be opened, or TLS cannot be set up.
pub async fn start(opts: Options) -> Result<Server, Error> {
    let listener = TcpListener::bind(opts.listen).await.map_err(|source| Error::Bind { addr: opts.listen, source })?;
    let addr = listener.local_addr().map_err(|source| Error::Bind { addr: opts.listen, source })?;
    let (stop, stopped) = watch::channel(false);
    let path = opts.ledger_path.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
    let sandbox = Arc::new(Sandbox {
        api_key: opts.api_key.clone(),
        clock: opts.clock.clone(),
        courier: Arc::new(Courier::new(&opts, stopped.clone())?),
        wake: Notify::new(),
        seed: opts.seed,
        duplicate_share: opts.webhook_duplicate_share,
        shuffle: opts.webhook_shuffle,
        world: Mutex::new(World::new(opts).map_err(|source| Error::Ledger { path, source })?),
    });
    let app = Router::new()
        .route("/api/v1/{*path}", any(wire::api))
        .route("/sandbox/people", get(inspect::people))
        .route("/sandbox/ledger", get(inspect::ledger))
        .route("/sandbox/webhooks", get(inspect::webhooks))
        .route("/sandbox/clock", get(inspect::clock))
        .route("/sandbox/faults", post(inspect::set_faults).get(inspect::faults).delete(inspect::clear_faults))
        .route("/sandbox/act", post(inspect::act))
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::clone(&sandbox));
    let app = app.into_make_service_with_connect_info::<Breaker>();
    let mut end = stopped.clone();
    let server = tokio::spawn(async move {
        let until = async move {
            let _ = end.wait_for(|s| *s).await;
        };
        if let Err(error) = axum::serve(Breakable(listener), app).with_graceful_shutdown(until).await {
            tracing::error!(%error, "the sandbox stopped serving");
        }
    });
    let players = tokio::spawn(play(sandbox, stopped));
    tracing::info!(%addr, "the sandbox listens");
    Ok(Server { addr, stop, tasks: vec![server, players] })
}

/// Plays the people: sleeps until the next act is due, plays it, looks again.
async fn play(sandbox: Arc<Sandbox>, mut stop: watch::Receiver<bool>) {
    loop {
        let next = sandbox.with(|w| {
            w.run_due(w.now, ACTS_A_TURN);
            w.acts.peek().map(|std::cmp::Reverse(s)| s.at)
        });
        let due = async {
            match next {
                Some(at) => sandbox.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = sandbox.wake.notified() => {}
            _ = stop.wait_for(|s| *s) => return,
        }
        tokio::task::yield_now().await;
    }
}
