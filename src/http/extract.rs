//! Extractors whose refusals are problem documents.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{FromRequest, FromRequestParts, Query as AxumQuery, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::error::{Problem, Result};

/// A JSON body. An empty body counts as `{}`, so that commands without arguments need none.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let content_type = content_type(request.headers());
        let body = body(request, state).await?;
        if body.is_empty() {
            return from_json(b"{}").map(Self);
        }
        if !is_json(&content_type) {
            return Err(unsupported("application/json"));
        }
        from_json(&body).map(Self)
    }
}

/// The whole body, within the route's limit.
pub(crate) async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes> {
    Bytes::from_request(request, state).await.map_err(|e: BytesRejection| {
        if e.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the body is larger than this route takes")
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "unreadable_body", "the body ended early or could not be read")
        }
    })
}

/// Reads JSON; says where it is wrong.
pub(crate) fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|e| {
        // serde_json's texts name fields and expected types, and never more of the body than one scalar.
        let (status, code) = if e.is_data() {
            (StatusCode::UNPROCESSABLE_ENTITY, "invalid_body")
        } else {
            (StatusCode::BAD_REQUEST, "invalid_json")
        };
        Problem::new(status, code, e.to_string()).with("line", e.line()).with("column", e.column())
    })
}

/// The media type in lower case, without parameters; empty when there is none.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether a media type is JSON.
pub(crate) fn is_json(content_type: &str) -> bool {
    content_type == "application/json" || content_type.ends_with("+json")
}

/// The media type is none of those the route takes.
pub(crate) fn unsupported(expected: &str) -> Problem {
    let detail = format!("this route takes {expected}; say so in the Content-Type header");
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
}

/// Query parameters, strictly.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match AxumQuery::<T>::from_request_parts(parts, state).await {
            Ok(AxumQuery(query)) => Ok(Self(query)),
            Err(e) => Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_query", e.body_text())),
        }
    }
}

/// The `{id}` of the path. Anything that is no UUID names nothing.
pub(crate) struct Id(pub(crate) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let id: std::result::Result<axum::extract::Path<String>, PathRejection> =
            axum::extract::Path::from_request_parts(parts, state).await;
        let id = id.ok().and_then(|axum::extract::Path(id)| id.parse().ok());
        id.map(Self).ok_or_else(|| Problem::not_found("id"))
    }
}

/// Paging of a list: `limit` (1 to 500, 100 where it is not given) and the `cursor` that the last page handed out.
pub(crate) const LIMIT_MAX: u32 = 500;

/// The number of rows to read for a page: one more than asked, to know whether there is a next one.
pub(crate) fn limit(asked: Option<u32>) -> Result<usize> {
    match asked.unwrap_or(100) {
        n @ 1..=LIMIT_MAX => Ok(n as usize),
        n => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "invalid_query",
            format!("limit is {n}; it goes from 1 to {LIMIT_MAX}"),
        )),
    }
}

/// A cursor that is a UUID.
pub(crate) fn uuid_cursor(cursor: Option<&str>) -> Result<Option<Uuid>> {
    cursor.map(|c| c.parse().map_err(|_| invalid_cursor())).transpose()
}

/// The cursor was not made by us.
pub(crate) fn invalid_cursor() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_query", "cursor must be the next_cursor of an earlier page")
}
