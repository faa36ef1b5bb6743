//! What surrounds every request: its id, its log line, its metrics, its time limit, its place among the others, and the
//! answer when a handler panics.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::{counter, histogram};
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use super::error::Problem;
use super::limits::Kind;
use super::{Options, Shared};
use crate::store;
use crate::telemetry::trace::{self, Known, Stage};
use crate::telemetry::{HTTP_REQUESTS, HTTP_SECONDS};

/// The route whose requests may take longer.
pub(crate) const IMPORT_ROUTE: &str = "/v1/campaigns/{id}/prospects";
/// Carries the request's id, in and out.
const REQUEST_ID: &str = "x-request-id";

/// Names the request, counts it and logs how it ended. Never logs anything a person wrote: the route's template in place
/// of the path, and no query.
pub(crate) async fn observe(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = method(request.method());
    let route = route(&request);
    let span = tracing::info_span!("request", request.id = %id, method, route = %route);
    let headers = request.headers().get_all(trace::HEADER).into_iter().map(HeaderValue::as_bytes);
    let mut stage = Stage::of(shared.sampler.decide(headers, may_begin(request.method(), &route)), "request");
    stage.note("http.route", || Known::Route(route.clone()));
    stage.note("http.method", || Known::Name(method));
    let mut response = stage.run(next.run(request)).instrument(span.clone()).await;

    let status = response.status();
    stage.note("http.status", || Known::Count(status.as_u16().into()));
    if status.is_server_error() {
        stage.fail();
    }
    drop(stage);
    let took = started.elapsed();
    counter!(HTTP_REQUESTS, "route" => route.clone(), "method" => method, "code" => status.as_u16().to_string())
        .increment(1);
    histogram!(HTTP_SECONDS, "route" => route).record(took.as_secs_f64());
    span.in_scope(|| tracing::debug!(status = status.as_u16(), duration_ms = took.as_secs_f64() * 1e3, "answered"));
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    // Answers are one workspace's data, and some hold a secret that is shown once.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Lets a request in when there is room, and ends it when it takes too long. Dropping a handler rolls its transaction back.
pub(crate) async fn bound(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let kind = Kind::of(request.method(), &route(&request));
    let _place = match shared.limits.enter(kind) {
        Ok(place) => place,
        Err(busy) => return busy.into_response(),
    };
    let limit = limit(&shared.app.options, kind);
    let mut response = match tokio::time::timeout(limit, store::with_pool(kind.pool(), next.run(request))).await {
        Ok(response) => response,
        Err(_) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "request_timeout",
            format!(
                "not done within {} s; nothing of it may have been carried out, so look before you repeat it",
                limit.as_secs()
            ),
        )
        .retry_after(5)
        .into_response(),
    };
    // The rows' times are this clock's, which a demo runs faster: a client that shows "in 3 h" needs to know it.
    if let Ok(now) = HeaderValue::from_str(&shared.app.clock.now().to_string()) {
        response.headers_mut().insert("campaignd-time", now);
    }
    response
}

/// Whether a trace may begin here: where triggers come in. Who only looks is traced if the caller is.
fn may_begin(method: &Method, route: &str) -> bool {
    let kind = Kind::of(method, route);
    method == Method::POST
        && (route.starts_with("/v1/prospects/") || !matches!(kind, Kind::Watch | Kind::Other | Kind::Upload))
}

fn limit(options: &Options, kind: Kind) -> Duration {
    match kind {
        Kind::Upload => options.import_timeout,
        Kind::Webhook => options.webhook_timeout,
        Kind::Watch | Kind::Trigger | Kind::Unsubscribe | Kind::Other => options.request_timeout,
    }
}

/// The answer to a panic. The message goes to the log only.
pub(crate) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(panic = message, "a handler panicked");
    Problem::internal().into_response()
}

/// The route's template; `other` where none matched, so that strangers cannot make metrics grow.
fn route(request: &Request) -> String {
    request.extensions().get::<MatchedPath>().map_or_else(|| "other".to_owned(), |p| p.as_str().to_owned())
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The id the client gave, if it is a harmless one, or a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|v| v.to_str().ok());
    let harmless = |s: &&str| {
        (1..=64).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    given.filter(harmless).map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use tower::ServiceExt;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_a_problem_document_without_its_message() {
        async fn broken() {
            panic!("the secret is 42");
        }
        let router = Router::new().route("/", axum::routing::get(broken)).layer(CatchPanicLayer::custom(panicked));
        let response = router.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        assert!(!String::from_utf8_lossy(&body).contains("42"));
    }

    #[test]
    fn a_request_id_that_could_forge_a_log_line_is_replaced() {
        let with = |id: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_static(id));
            request_id(&headers)
        };
        assert_eq!(with("abc-1_2"), "abc-1_2");
        assert_ne!(with("a b"), "a b");
        assert_eq!(request_id(&HeaderMap::new()).len(), 36);
    }
}
