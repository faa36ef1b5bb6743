//! Health, readiness and metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use crate::store;

/// The database has this long to answer `/readyz`.
const DATABASE_WAIT: Duration = Duration::from_secs(2);

/// Whether this server can do its work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// True exactly with status 200.
    ready: bool,
    /// Why not; empty when ready.
    reasons: Vec<String>,
    /// Live prospect actors.
    residents: u64,
    /// Executions without a live actor that have a wake-up.
    parked: u64,
}

/// Answers as long as the process does: touches nothing else.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 200, body = String)))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the database can be reached and the engine runs.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses(
    (status = 200, body = Readiness), (status = 503, body = Readiness)))]
pub(crate) async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let mut reasons = Vec::new();
    match tokio::time::timeout(DATABASE_WAIT, store::health::ping(&shared.app.pool)).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => reasons.push("the database refuses to answer".to_owned()),
        Err(_) => reasons.push(format!("the database did not answer within {} s", DATABASE_WAIT.as_secs())),
    }
    let runtime = shared.app.runtime.status();
    if !runtime.ready {
        let reason = if runtime.reason.is_empty() { "the engine has not started" } else { &runtime.reason };
        reasons.push(reason.to_owned());
    }
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, reasons, residents: runtime.residents, parked: runtime.parked })).into_response()
}

/// The metrics in Prometheus' text format.
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    shared.limits.sample();
    store::sample_pool("api", &shared.app.pool);
    let text = shared.app.metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
