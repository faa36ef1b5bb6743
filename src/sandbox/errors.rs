//! The provider's error body: `title`, `type`, `status`, and sometimes `detail`.

use axum::http::StatusCode;
use serde_json::{Value, json};

/// An answer that says no. `kind` is without the `errors/` in front.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: u16,
    pub(super) kind: String,
    pub(super) detail: String,
}

impl Problem {
    pub(super) fn new(status: u16, kind: &str, detail: impl Into<String>) -> Self {
        let kind = kind.strip_prefix("errors/").unwrap_or(kind).to_owned();
        Self { status, kind, detail: detail.into() }
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(400, "invalid_parameters", detail)
    }

    pub(super) fn missing(what: &str) -> Self {
        Self::new(404, "resource_not_found", format!("The requested {what} was not found."))
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(super) fn body(&self) -> Value {
        json!({
            "title": title(&self.kind),
            "detail": self.detail,
            "type": format!("errors/{}", self.kind),
            "status": self.status().as_u16(),
        })
    }
}

/// `already_invited_recently` and `cannot_resend_yet` have titles seen live; the rest reads like its type.
fn title(kind: &str) -> String {
    match kind {
        "already_invited_recently" => "Should delay new invitation to this recipient".to_owned(),
        "no_connection_with_recipient" | "invalid_recipient" => "Recipient cannot be reached".to_owned(),
        "resource_already_used" => "Resource already used".to_owned(),
        "disconnected_account" => "Disconnected account".to_owned(),
        other => {
            let mut title = other.replace('_', " ");
            if let Some(first) = title.get_mut(0..1) {
                first.make_ascii_uppercase();
            }
            title
        }
    }
}
