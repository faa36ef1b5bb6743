//! Starting and stopping: the listener, the world's mutex, the one task that plays the people.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, delete, get, patch, post};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::dial::Dial;
use super::net::{Breakable, Breaker};
use super::options::Options;
use super::webhooks::Courier;
use super::world::World;
use super::{control, hosted, inspect, wire};

/// Acts played before the world's lock is given back once.
const ACTS_A_TURN: usize = 256;
/// Acts played before a request is worked on, so that it sees what was due before it.
const ACTS_BEFORE: usize = 10_000;
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
    pub(super) dial: Dial,
    pub(super) courier: Arc<Courier>,
    wake: Notify,
}

impl Sandbox {
    /// One turn with the world: what was due before it is played first, and afterwards the webhooks it left are sent off.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        self.turn(ACTS_BEFORE, |w, _| f(w))
    }

    /// Plays what is due, at most so many acts. `true`: that was all.
    pub(super) fn play(&self, acts: usize) -> bool {
        self.turn(acts, |_, all| all)
    }

    /// Has the player look again when the next act is due.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    fn turn<T>(&self, acts: usize, f: impl FnOnce(&mut World, bool) -> T) -> T {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        for outcome in self.courier.outcomes() {
            world.note(&outcome);
        }
        // Of two that read the clock, the later may come first: time does not go back for that.
        let now = self.dial.now().max(world.now);
        let all = world.run_due(now, acts);
        let out = f(&mut world, all);
        let deliveries = std::mem::take(&mut world.outbox);
        let errands = std::mem::take(&mut world.errands);
        let woken = std::mem::take(&mut world.acts_changed);
        drop(world);
        if woken {
            self.wake();
        }
        for delivery in deliveries {
            self.courier.take(delivery);
        }
        for errand in errands {
            self.courier.run(errand);
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
        dial: Dial::new(opts.clock.clone()),
        courier: Arc::new(Courier::new(&opts, stopped.clone())?),
        wake: Notify::new(),
        world: Mutex::new(World::new(opts).map_err(|source| Error::Ledger { path, source })?),
    });
    let app = Router::new()
        .route("/api/v1/{*path}", any(wire::api))
        .route("/sandbox", get(inspect::index))
        .route("/sandbox/people", get(inspect::people))
        .route("/sandbox/people/{identity}", get(inspect::person).patch(control::set_person))
        .route("/sandbox/people/{identity}/{act}", post(control::act_of))
        .route("/sandbox/act", post(control::act))
        .route("/sandbox/ledger", get(inspect::ledger))
        .route("/sandbox/ledger/summary", get(inspect::ledger_summary))
        .route("/sandbox/deeds", get(inspect::deeds))
        .route("/sandbox/calls", get(inspect::calls))
        .route("/sandbox/accounts", get(inspect::accounts))
        .route("/sandbox/accounts/{id}", patch(control::set_account))
        .route(
            "/sandbox/webhooks",
            get(inspect::webhooks).post(control::set_handlings).delete(control::clear_handlings),
        )
        .route("/sandbox/clock", get(control::clock).post(control::set_clock))
        .route("/sandbox/settings", get(control::settings).patch(control::set_settings))
        .route("/sandbox/faults", get(control::faults).post(control::set_faults).delete(control::clear_faults))
        .route("/sandbox/faults/{id}", delete(control::delete_fault))
        .route("/sandbox/quotas", get(control::quotas).post(control::set_quotas).delete(control::clear_quotas))
        .route("/sandbox/restart", post(control::restart))
        .route("/sandbox/hosted/{token}", get(hosted::page).post(hosted::connect))
        .fallback(wire::nowhere)
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
        let next = sandbox.turn(ACTS_A_TURN, |w, _| w.acts.peek().map(|std::cmp::Reverse(s)| s.at));
        let due = async {
            match next {
                Some(at) => sandbox.dial.sleep_until(at).await,
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
