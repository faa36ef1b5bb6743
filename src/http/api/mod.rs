//! The API under `/v1`: one file a noun. Every handler is bound to the workspace of the request's key.

pub(crate) mod accounts;
mod allowance;
pub(crate) mod campaigns;
pub(crate) mod commands;
pub(crate) mod hooks;
pub(crate) mod import;
pub(crate) mod priority;
pub(crate) mod prospects;
pub(crate) mod sends;
pub(crate) mod suppressions;
pub(crate) mod triggers;
pub(crate) mod waiting;

use axum::Json;
use axum::http::StatusCode;

/// A made resource.
pub(crate) type Made<T> = (StatusCode, Json<T>);

/// Text a person gave: trimmed, not empty, on one line, within a length.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn name(text: &str, max: usize) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("must not hold control characters or line breaks".to_owned());
    }
    if text.chars().count() > max {
        return Err(format!("must not be longer than {max} characters"));
    }
    Ok(text.to_owned())
}
