//! RFC 9457 problem documents: the one shape of every error answer.
//!
//! `code` is stable and for programs, `detail` is for people. Neither ever holds SQL, a path of this machine or a secret.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::domain::flow;
use crate::runtime::DeliverError;
use crate::store;

/// An error answer. Build with [`Problem::new`], add fields with [`Problem::with`]. Boxed, since every `Result` carries one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem(Box<Parts>);

#[derive(Clone, Debug, PartialEq)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    detail: String,
    extra: Map<String, Value>,
    header: Option<(header::HeaderName, HeaderValue)>,
}

/// The document on the wire.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Document {
    /// A URN made of `code`.
    #[schema(example = "urn:campaignd:problem:not_found")]
    r#type: String,
    /// `code` in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// Stable, for programs.
    code: String,
    /// For people: what is wrong and how to mend it.
    detail: String,
    /// Further fields, by `code`.
    #[serde(flatten)]
    extra: Map<String, Value>,
}

/// The result of a handler.
pub(crate) type Result<T> = std::result::Result<T, Problem>;

impl Problem {
    /// A problem with a stable `code`.
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts { status, code, detail: detail.into(), extra: Map::new(), header: None }))
    }

    /// Adds a field. `type`, `title`, `status`, `code` and `detail` are taken.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        debug_assert!(!["type", "title", "status", "code", "detail"].contains(&name), "{name} is taken");
        self.0.extra.insert(name.to_owned(), value.into());
        self
    }

    /// Says after how many seconds to try again.
    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.0.header = Some((header::RETRY_AFTER, HeaderValue::from(seconds)));
        self
    }

    /// Absent, or another workspace's: the same answer, so that nothing can be learnt from it.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no such {what}"))
    }

    /// No, or no valid key. One answer for every way in which a key can be wrong.
    pub(crate) fn unauthorized(code: &'static str, detail: &str) -> Self {
        let mut problem = Self::new(StatusCode::UNAUTHORIZED, code, detail);
        problem.0.header = Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        problem
    }

    /// The status does not allow it.
    pub(crate) fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// Fields that are wrong: each with its JSON path.
    pub(crate) fn invalid(problems: Vec<(String, String)>) -> Self {
        let list: Vec<Value> =
            problems.into_iter().map(|(path, message)| serde_json::json!({"path": path, "message": message})).collect();
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_fields", "some fields are wrong; see problems")
            .with("problems", list)
    }

    /// A flow that cannot be used.
    pub(crate) fn invalid_flow(problems: &[flow::Problem]) -> Self {
        let detail = format!("the flow has {} problem(s); see problems", problems.len());
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_flow", detail).with("problems", flow_problems(problems))
    }

    /// Something broke on our side; what it was stands in the log only.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something went wrong on our side; it was logged")
    }

    /// Too much at once.
    pub(crate) fn busy(detail: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail).retry_after(1)
    }
}

/// `[{path, message}]`.
pub(crate) fn flow_problems(problems: &[flow::Problem]) -> Value {
    problems.iter().map(|p| serde_json::json!({"path": p.path, "message": p.message})).collect()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Parts { status, code, detail, extra, header } = *self.0;
        let document = Document {
            r#type: format!("urn:campaignd:problem:{code}"),
            title: code.replace('_', " "),
            status: status.as_u16(),
            code: code.to_owned(),
            detail,
            extra,
        };
        let mut response = (status, Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some((name, value)) = header {
            headers.insert(name, value);
        }
        response
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        // The text goes to the log only; the request's id leads to it.
        tracing::error!(error = &error as &dyn std::error::Error, "storage failed");
        if !error.is_transient() {
            return Self::internal();
        }
        let detail = "the database is not available now; try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", detail).retry_after(2)
    }
}

impl From<DeliverError> for Problem {
    fn from(error: DeliverError) -> Self {
        match error {
            DeliverError::Busy => Self::busy("too many triggers are in flight; try again in a second"),
            DeliverError::Stopping => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "this server is stopping; try again")
                    .retry_after(1)
            }
            DeliverError::NotFound(_) => Self::not_found("prospect"),
            DeliverError::Unrunnable(_, reason) => Self::conflict("unrunnable", reason),
        }
    }
}
