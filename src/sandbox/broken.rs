//! Answers of requests that go wrong on order.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::errors::Problem;
use super::faults::{Effect, Strike};
use super::net::Breaker;
use super::wire::problem;

/// A proxy's answer: no JSON.
pub(super) fn gateway(status: Option<u16>) -> Response {
    let status = StatusCode::from_u16(status.unwrap_or(502)).unwrap_or(StatusCode::BAD_GATEWAY);
    let page = format!("<html><head><title>{status}</title></head><body><h1>{status}</h1><hr>nginx</body></html>");
    (status, [(CONTENT_TYPE, "text/html")], page).into_response()
}

/// Status and type of the faults that strike before anything is done; a reset has neither.
pub(super) fn refused_with(strike: &Strike) -> Option<(u16, String)> {
    let (status, kind) = match strike.effect {
        Effect::FailBefore => (500, "unexpected_error"),
        Effect::RateLimit => (429, "too_many_requests"),
        Effect::Disconnect => (401, "disconnected_account"),
        Effect::GatewayBefore => (502, "gateway"),
        Effect::ResetBefore => (0, "reset"),
        _ => return None,
    };
    let kind = strike.kind.as_deref().unwrap_or(kind);
    Some((strike.status.unwrap_or(status), kind.strip_prefix("errors/").unwrap_or(kind).to_owned()))
}

/// The answer of a fault that strikes before anything is done.
pub(super) fn refuse(strike: &Strike, breaker: &Breaker) -> Response {
    let (status, kind) = refused_with(strike).unwrap_or((500, "unexpected_error".to_owned()));
    let detail = match strike.effect {
        Effect::GatewayBefore => return gateway(strike.status),
        Effect::ResetBefore => {
            breaker.cut();
            return StatusCode::OK.into_response();
        }
        Effect::RateLimit => "The provider cannot accept any more requests at the moment. Please try again later.",
        Effect::Disconnect => "The account appears to be disconnected from the provider service.",
        _ => "Something went wrong.",
    };
    problem(&Problem::new(status, &kind, detail))
}

/// An answer of which the first half comes, as if it were all of it.
pub(super) async fn cut_short(answer: Response) -> Response {
    let (parts, body) = answer.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let half = bytes.slice(..bytes.len() / 2);
    Response::from_parts(parts, Body::from(half))
}

/// An answer that promises its whole length and breaks off in the middle.
pub(super) async fn truncate(answer: Response, breaker: Breaker) -> Response {
    let (mut parts, body) = answer.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    parts.headers.insert("content-length", HeaderValue::from(bytes.len()));
    let half = bytes.slice(..bytes.len() / 2);
    let stream = futures_util::stream::unfold((Some(half), breaker), |(half, breaker)| async move {
        match half {
            Some(half) => Some((Ok::<Bytes, std::io::Error>(half), (None, breaker))),
            None => {
                // Long enough for the first half to leave.
                tokio::time::sleep(Duration::from_millis(20)).await;
                breaker.cut();
                Some((Err(std::io::ErrorKind::ConnectionReset.into()), (None, breaker)))
            }
        }
    });
    Response::from_parts(parts, Body::from_stream(stream))
}
