//! Health, readiness and metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::Shared;
use crate::runtime::Unready;
use crate::store;
use crate::store::migrate::Standing;

/// Whether this server can do its work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// True exactly with status 200.
    ready: bool,
    /// Why not; empty when ready.
    reasons: Vec<Reason>,
    /// Live prospect actors.
    residents: u64,
    /// Executions without a live actor that have a wake-up.
    parked: u64,
}

/// Something that keeps this server from its work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reason {
    /// `database`, `schema`, `leases`, `rehydrating` or `draining`.
    name: &'static str,
    /// For people.
    detail: String,
}

impl Reason {
    const fn new(name: &'static str, detail: String) -> Self {
        Self { name, detail }
    }
}

/// Answers as long as the process does: touches nothing else.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 200, body = String)))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the database answers with a schema that this program knows, and the engine runs. Asks nobody: the engine's prober
/// has asked within the last two seconds, on a connection of its own.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses(
    (status = 200, body = Readiness), (status = 503, body = Readiness)))]
pub(crate) async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let mut reasons = Vec::new();
    match shared.app.runtime.schema().await {
        Ok(Standing::Current | Standing::Newer { .. }) => {}
        Ok(Standing::Behind { missing }) => {
            reasons.push(Reason::new(
                "schema",
                format!("{} migrations are missing: run `campaignd migrate`", missing.len()),
            ));
        }
        Ok(Standing::Changed { version }) => {
            let detail = format!("migration {version} in the database is not this program's");
            reasons.push(Reason::new("schema", detail));
        }
        // The driver's words name hosts and roles: they are in the log.
        Err(_) => reasons.push(Reason::new("database", "it does not answer, or refuses to".to_owned())),
    }
    let runtime = shared.app.runtime.status();
    reasons.extend(runtime.reason.map(|why| match why {
        Unready::Rehydrating => Reason::new("rehydrating", "executions are being read back from the table".to_owned()),
        Unready::Draining => Reason::new("draining", "it was told to stop".to_owned()),
        Unready::LeaseLost => Reason::new(
            "leases",
            "another process has the shards, or the lease could not be renewed in time".to_owned(),
        ),
    }));
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, reasons, residents: runtime.residents, parked: runtime.parked })).into_response()
}

/// What a process does before its engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartingReason {
    /// It connects to the database.
    Database,
    /// It brings the schema up to date, or waits for another that does.
    Schema,
    /// It claims the shards, or stands by while another process has them.
    Leases,
}

/// Health of a process whose engine does not run yet.
pub(crate) fn starting_router(reason: watch::Receiver<StartingReason>) -> Router {
    let unready = move || async move {
        let reason = match *reason.borrow() {
            StartingReason::Database => Reason::new("database", "connecting to it".to_owned()),
            StartingReason::Schema => Reason::new("schema", "bringing it up to date".to_owned()),
            StartingReason::Leases => {
                Reason::new("leases", "claiming the shards; standing by while another process has them".to_owned())
            }
        };
        let body = Readiness { ready: false, reasons: vec![reason], residents: 0, parked: 0 };
        (StatusCode::SERVICE_UNAVAILABLE, Json(body))
    };
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(unready))
}

/// The metrics in Prometheus' text format.
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    shared.limits.sample();
    store::sample_pool("api", &shared.app.pool);
    let text = shared.app.metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
