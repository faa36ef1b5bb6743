//! The API, the webhook receiver, health and metrics.
//!
//! Owns the wire: routes, keys, limits, problem documents. It decides nothing: what an operator or a provider says goes to
//! [`runtime::Handle`](crate::runtime::Handle) as a trigger, and what is shown is read from `store`. [`router`] can be called
//! without a socket, which is how the tests do it; [`Server`] puts it on two listeners.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::telemetry::{Metrics, trace};
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Router, middleware};
use tower_http::catch_panic::CatchPanicLayer;

use crate::clock::Clock;
use crate::runtime::Handle;
use crate::store::Pool;

mod api;
mod auth;
mod error;
mod extract;
mod health;
pub(crate) mod import;
mod limits;
mod observe;
mod openapi;
mod server;
mod turns;
mod unsubscribe;
mod webhook;

pub use health::StartingReason;
pub use server::{Server, StartError, Starting};

use api::{accounts, campaigns, commands, hooks, priority, prospects, sends, suppressions, triggers};
use error::Problem;
use limits::{Limits, TRIGGERS_ROUTE, UNSUBSCRIBE_ROUTE, WEBHOOK_ROUTE};

/// A request waits no longer for a connection to the database: an early 503 is better than a late one.
pub const CONNECTION_WAIT: Duration = Duration::from_secs(3);
/// Largest body of a request, in bytes.
const BODY_MAX: usize = 1 << 20;
/// Largest list of those who are not written to in one request, in bytes.
const SUPPRESSIONS_BODY_MAX: usize = 4 << 20;
/// Largest upload of prospects, in bytes.
const IMPORT_BODY_MAX: usize = 25 << 20;

/// What the routes work with. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// The database.
    pub pool: Pool,
    /// The engine.
    pub runtime: Handle,
    /// The time that rows are written with.
    pub clock: Clock,
    /// Addresses and limits.
    pub options: Options,
    /// What `/metrics` shows.
    pub metrics: Metrics,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Addresses and limits of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the API listens. Plain HTTP: put a proxy with TLS before it when it leaves this machine.
    pub listen: SocketAddr,
    /// Where metrics and health are served. Has no keys: keep it inside.
    pub metrics_listen: SocketAddr,
    /// A request that takes longer is ended.
    pub request_timeout: Duration,
    /// An upload of prospects that takes longer is ended, and takes nobody in.
    pub import_timeout: Duration,
    /// A delivery of the provider that takes longer is refused, and delivered again.
    pub webhook_timeout: Duration,
    /// Requests at once, besides those below; more get 503. Each may hold a body of 1 MiB.
    pub in_flight_max: usize,
    /// Webhook deliveries at once; more get 503 and are delivered again.
    pub webhooks_in_flight_max: usize,
    /// Triggers at once; more get 503.
    pub triggers_in_flight_max: usize,
    /// People who unsubscribe by link at once; more get 503.
    pub unsubscribes_in_flight_max: usize,
    /// Uploads of prospects at once; more get 503. Each may hold a body of 25 MiB and, for a moment, its rows.
    pub uploads_in_flight_max: usize,
    /// Connections to each listener at once; more are answered with 503 and closed.
    pub connections_max: usize,
    /// A connection on which no whole head of a request arrives within this time is closed, an idle one too.
    pub head_timeout: Duration,
    /// How long a stopping server waits for open requests.
    pub drain: Duration,
    /// The share of triggers that are traced, besides those whose caller traces them.
    pub trace_share: trace::Share,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            metrics_listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
            request_timeout: Duration::from_secs(30),
            import_timeout: Duration::from_secs(120),
            webhook_timeout: Duration::from_secs(10),
            in_flight_max: 256,
            webhooks_in_flight_max: 256,
            triggers_in_flight_max: 256,
            unsubscribes_in_flight_max: 64,
            uploads_in_flight_max: 4,
            connections_max: 2048,
            // More than load balancers keep an idle connection: those must be the ones to close it.
            head_timeout: Duration::from_secs(75),
            drain: Duration::from_secs(10),
            trace_share: trace::Share::default(),
        }
    }
}

/// What every handler is given.
struct Shared {
    app: App,
    keys: auth::Cache,
    limits: Limits,
    uploads: turns::Turns,
    sampler: trace::Sampler,
    /// Read when it is first needed.
    link_secret: tokio::sync::OnceCell<crate::domain::link::LinkSecret>,
}

impl Shared {
    fn new(app: App) -> Arc<Self> {
        let limits = Limits::new(&app.options, &app.pool);
        let sampler = trace::Sampler::new(app.options.trace_share);
        Arc::new(Self {
            app,
            keys: auth::Cache::default(),
            limits,
            uploads: turns::Turns::default(),
            sampler,
            link_secret: tokio::sync::OnceCell::new(),
        })
    }
}

/// Every route of the API listener.
pub fn router(app: App) -> Router {
    routes(Shared::new(app))
}

fn routes(shared: Arc<Shared>) -> Router {
    // Every route in here needs a key; what needs none stands below, where it can be counted.
    let keyed = Router::new()
        .route("/v1/campaigns", post(campaigns::create).get(campaigns::list))
        .route("/v1/campaigns/preview", post(campaigns::preview))
        .route("/v1/campaigns/{id}", get(campaigns::show).patch(priority::change))
        .route("/v1/campaigns/{id}/start", post(campaigns::start))
        .route("/v1/campaigns/{id}/pause", post(campaigns::pause))
        .route("/v1/campaigns/{id}/resume", post(campaigns::resume))
        .route(
            observe::IMPORT_ROUTE,
            post(api::import::import).layer(DefaultBodyLimit::max(IMPORT_BODY_MAX)).get(prospects::list),
        )
        .route("/v1/prospects/{id}", get(prospects::show))
        .route("/v1/prospects/{id}/timeline", get(prospects::timeline))
        .route("/v1/prospects/{id}/pause", post(commands::pause))
        .route("/v1/prospects/{id}/resume", post(commands::resume))
        .route("/v1/prospects/{id}/skip", post(commands::skip))
        .route("/v1/prospects/{id}/restart", post(commands::restart))
        .route("/v1/prospects/{id}/stop", post(commands::stop))
        .route(TRIGGERS_ROUTE, post(triggers::create))
        .route("/v1/sends", get(sends::list))
        .route("/v1/sends/{id}/resolve", post(sends::resolve))
        .route(
            "/v1/suppressions",
            post(suppressions::add).layer(DefaultBodyLimit::max(SUPPRESSIONS_BODY_MAX)).get(suppressions::list),
        )
        .route("/v1/suppressions/{id}", delete(suppressions::remove))
        .route("/v1/accounts", post(accounts::create).get(accounts::list))
        .route("/v1/accounts/{id}", get(accounts::get).patch(accounts::change))
        .route("/v1/hooks", post(hooks::create).get(hooks::list))
        .method_not_allowed_fallback(method_not_allowed)
        .route_layer(middleware::from_fn_with_state(Arc::clone(&shared), auth::authenticate));
    let open = Router::new()
        .route(WEBHOOK_ROUTE, post(webhook::receive))
        .route(
            UNSUBSCRIBE_ROUTE,
            get(unsubscribe::page).post(unsubscribe::confirm).layer(DefaultBodyLimit::max(unsubscribe::BODY_MAX)),
        )
        .route("/openapi.json", get(openapi::document))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .method_not_allowed_fallback(method_not_allowed);
    surround(keyed.merge(open), shared)
}

/// Every route of the metrics listener.
pub fn metrics_router(app: App) -> Router {
    metrics_routes(Shared::new(app))
}

fn metrics_routes(shared: Arc<Shared>) -> Router {
    let routes = Router::new()
        .route("/metrics", get(health::metrics))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz));
    surround(routes, shared)
}

/// Puts around the routes what every request needs. The last layer is the outermost.
fn surround(routes: Router<Arc<Shared>>, shared: Arc<Shared>) -> Router {
    routes
        .fallback(|| async {
            Problem::new(StatusCode::NOT_FOUND, "unknown_route", "there is no such route; see /openapi.json")
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), observe::bound))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), observe::observe))
        .with_state(shared)
}

async fn method_not_allowed() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this route does not take that method; see /openapi.json",
    )
}
