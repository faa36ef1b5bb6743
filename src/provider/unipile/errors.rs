//! What goes wrong, and what each of Unipile's error types means for the engine.
//!
//! The question behind every class: may the same contact be tried again without contacting somebody twice? Only a
//! refusal that is known to be one says so. Everything else is unknown and is read back.

use crate::domain::send::{FailureClass, Receipt};
use crate::provider::SendFailure;

/// Longest text of the provider that is passed on, in characters.
const WORDS_MAX: usize = 300;

/// The code of every answer that says "too fast": also a gateway's, which has no type.
const TOO_MANY_REQUESTS: &str = "errors/too_many_requests";

/// What can go wrong in a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The options cannot be used.
    #[error("cannot use the options for unipile: {0}")]
    Options(String),
    /// Not a byte of the request was written: not resolved, not connected, not a valid request.
    #[error("unipile was not reached: {0}")]
    NotSent(String),
    /// The request was written, or part of it, and no answer came.
    #[error("no answer from unipile: {0}")]
    Lost(String),
    /// It was accepted, but the answer cannot be read.
    #[error("cannot read unipile's answer: {0}")]
    Unreadable(String),
    /// It was answered with an error.
    #[error("unipile answered {0}")]
    Api(ApiError),
}

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status} {kind}{words}", kind = kind_text(kind), words = words_text(words))]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// The type, without its `errors/`. Empty when the body is not Unipile's (a proxy's page, a wrong base URL).
    pub kind: String,
    /// Title and detail, for people.
    pub words: String,
}

fn kind_text(kind: &str) -> &str {
    if kind.is_empty() { "without a type" } else { kind }
}

fn words_text(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(": {words}") }
}

/// What a refused or failed call that contacts somebody means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nobody was contacted.
    Refused(FailureClass),
    /// Somebody may have been contacted.
    Unknown,
}

impl ApiError {
    /// Reads an error body, whatever it is.
    pub(super) fn read(status: u16, body: &[u8]) -> Self {
        let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |name: &str| json.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        let (title, detail) = (text("title"), text("detail"));
        let words = if detail.is_empty() { title.to_owned() } else { format!("{title} ({detail})") };
        let words = words.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect();
        let kind = text("type").rsplit('/').next().unwrap_or_default();
        let kind = kind.chars().filter(|c| c.is_ascii_graphic()).take(80).collect();
        Self { status, kind, words }
    }

    /// Whether it says "too fast", in whoever's words, and not that a quota is used up.
    fn is_pace(&self) -> bool {
        const QUOTAS: &[&str] =
            &["limit_exceeded", "connection_limit_reached", "cannot_resend_yet", "cannot_resend_within_24hrs"];
        self.status == 429 && !QUOTAS.contains(&self.kind.as_str())
    }

    /// What it means for the engine, by status and type. Types that are new to us are taken by their status.
    pub(super) fn meaning(&self) -> Meaning {
        use FailureClass::{
            AccountBroken, AccountQuota, AlreadyDone, KeyRefused, RecipientPermanent, Rejected, RetryLater, Unavailable,
        };
        let class = match (self.status, self.kind.as_str()) {
            // As far as these words go our key is meant, and then it is refused for every account. `invalid_credentials` may be
            // the account's own: whoever gets this asks whether the key opens anything at all.
            (401, "missing_credentials" | "invalid_credentials" | "") => KeyRefused,
            // The session, a checkpoint: nothing goes through this account until somebody looks.
            (401, _) => AccountBroken,
            (403, "account_restricted" | "action_required") => AccountBroken,
            (403, "insufficient_permissions" | "session_mismatch" | "unknown_authentication_context") => AccountBroken,
            (503, "no_client_session") => AccountBroken,
            // Documented as refusals of the account, not of the person: they would hit every prospect in turn.
            (422, "invalid_account" | "account_configuration_error" | "unauthorized") => AccountBroken,
            (422, "sender_rejected" | "ip_rejected_by_server") => AccountBroken,

            (422, "already_connected") => AlreadyDone,
            (422, "cannot_resend_yet" | "cannot_resend_within_24hrs") => AccountQuota,
            (422, "limit_exceeded" | "connection_limit_reached") => AccountQuota,
            (429, _) => AccountQuota,

            // A cool-down of weeks after an earlier invitation. The invitation's send looks at the profile first.
            (422, "already_invited_recently") => RecipientPermanent,
            (422, "invalid_recipient" | "no_connection_with_recipient" | "blocked_recipient") => RecipientPermanent,
            (422, "user_unreachable" | "cannot_invite_attendee" | "recipient_rejected") => RecipientPermanent,
            // Not Unipile's own answer: a proxy, or a wrong base URL. Neither person nor request is to blame.
            (403..=405, "") => Unavailable,
            (404, _) => RecipientPermanent,

            // Not sent, and gone by itself sooner or later.
            (422, "provider_unreachable" | "realtime_client_not_initialized") => RetryLater,

            // The key of a mail was used for another request: what became of that one is to be read back.
            (409, _) => return Meaning::Unknown,
            (408, _) => return Meaning::Unknown,
            (501, _) => Rejected,
            (500.., _) | (..400, _) => return Meaning::Unknown,

            // Content and features: 400, 403 (no subscription), 415, the rest of 422.
            (400.., _) => Rejected,
        };
        Meaning::Refused(class)
    }
}

impl Error {
    /// Sorts a transport error. The address is left out: it names people.
    pub(super) fn transport(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            text = format!("{text}: {inner}");
            source = inner.source();
        }
        if error.is_builder() || error.is_connect() || error.is_dns() { Self::NotSent(text) } else { Self::Lost(text) }
    }

    /// The name under which a failed send keeps this error.
    pub(super) fn code(&self) -> String {
        match self {
            Self::Options(_) => "options".into(),
            Self::NotSent(_) => "unreachable".into(),
            Self::Lost(_) => "no_answer".into(),
            Self::Unreadable(_) => "unreadable_answer".into(),
            Self::Api(e) if e.is_pace() => TOO_MANY_REQUESTS.into(),
            Self::Api(e) if e.kind.is_empty() => format!("http_{}", e.status),
            Self::Api(e) => format!("errors/{}", e.kind),
        }
    }

    /// Whether Unipile itself says that the thing does not exist. A 404 of anybody else (a proxy, a wrong base URL) does
    /// not count: nothing follows from it.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Api(e) if e.status == 404 && !e.kind.is_empty())
    }

    /// Whether the key of a request was used for another one.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(e) if e.status == 409)
    }

    /// Whether it is an answer of this type.
    pub(super) fn is_kind(&self, kind: &str) -> bool {
        matches!(self, Self::Api(e) if e.kind == kind)
    }

    /// Whether it may be our key that is refused.
    pub(super) fn refuses_key(&self) -> bool {
        self.meaning() == Meaning::Refused(FailureClass::KeyRefused)
    }

    /// What it means in the call that contacts somebody.
    pub(super) fn meaning(&self) -> Meaning {
        match self {
            Self::Options(_) | Self::NotSent(_) => Meaning::Refused(FailureClass::Unavailable),
            // A success we cannot read has happened: its ids are to be read back.
            Self::Lost(_) | Self::Unreadable(_) => Meaning::Unknown,
            Self::Api(e) => e.meaning(),
        }
    }

    /// As the outcome of the call that contacts somebody.
    pub(super) fn of_effect(&self, learnt: Receipt) -> SendFailure {
        match self.meaning() {
            Meaning::Refused(class) => refused(class, self.code(), self.to_string(), learnt),
            Meaning::Unknown if self.is_conflict() => SendFailure::Conflict { message: self.to_string() },
            Meaning::Unknown => SendFailure::Unknown { message: self.to_string(), learnt },
        }
    }

    /// As the outcome of a read that came before: nobody was contacted, whatever went wrong.
    pub(super) fn of_read(&self, learnt: Receipt) -> SendFailure {
        let class = match self.meaning() {
            Meaning::Refused(class) => class,
            Meaning::Unknown => FailureClass::Unavailable,
        };
        refused(class, self.code(), self.to_string(), learnt)
    }
}

/// A refusal.
pub(super) fn refused(
    class: FailureClass,
    code: impl Into<String>,
    message: impl Into<String>,
    learnt: Receipt,
) -> SendFailure {
    SendFailure::Refused { class, code: code.into(), message: message.into(), learnt }
}
