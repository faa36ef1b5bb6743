//! What carries a channel. [`Provider`] speaks our types; `unipile` turns them into the provider's wire.
//!
//! A provider never retries by itself and never decides: it reports what happened, in the classes of [`SendFailure`].

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::domain::id::SendId;
use crate::domain::send::{Action, FailureClass, Receipt};
use crate::domain::time::Timestamp;

pub mod unipile;

/// A key or password: `Debug` does not show it, and nothing but [`Secret::expose`] hands it out.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Keeps `value` from being shown.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Everything a provider needs to contact one person once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendRequest {
    /// Travels wherever the wire lets it: idempotency key, custom header, tracking label.
    pub send: SendId,
    /// The account's id with the provider.
    pub provider_account_id: String,
    /// One of the `send_*` actions.
    pub action: Action,
    /// Whom.
    pub recipient: Recipient,
    /// The mail's subject, rendered.
    pub subject: Option<String>,
    /// The text, rendered. `None`: an invitation without a note.
    pub body: Option<String>,
    /// Where the person unsubscribes with one POST (RFC 8058): for a mail, where people can reach us.
    pub unsubscribe_url: Option<String>,
}

/// Whom to contact: what the prospect's row says, and what the provider has told us since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipient {
    /// Full name, for the mail's display name.
    pub name: Option<String>,
    /// A LinkedIn profile URL, public identifier or provider id, as the prospect's row has it.
    pub linkedin: Option<String>,
    /// A mail address.
    pub email: Option<String>,
    /// A phone number in any notation.
    pub phone: Option<String>,
    /// The person's id with the provider, learnt from an earlier send through the same account.
    pub recipient_id: Option<String>,
    /// The chat with the person, learnt likewise.
    pub chat_id: Option<String>,
}

/// Why a send did not end in a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendFailure {
    /// Definitely not sent.
    Refused {
        /// What to do about it.
        class: FailureClass,
        /// The provider's error type, for example `errors/disconnected_account`, or our own name.
        code: String,
        /// For people.
        message: String,
        /// What was learnt all the same, for example the person's id.
        learnt: Receipt,
    },
    /// Nobody knows whether it was sent.
    Unknown {
        /// For people.
        message: String,
        /// What was learnt all the same.
        learnt: Receipt,
    },
}

/// What reading back found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was sent.
    Sent(Receipt),
    /// There is no trace of it. Whether that is enough is for the caller: see [`settle_delays`].
    Absent,
}

/// Why reading back failed; it may be tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read back from the provider: {message}")]
pub struct FindError {
    /// For people.
    pub message: String,
}

/// Something that carries one or more channels.
pub trait Provider: Send + Sync + 'static {
    /// The name accounts refer to, for example `unipile`.
    fn name(&self) -> &'static str;

    /// Contacts the person, once. Reads that come before (resolving a profile) are part of it; a failure there means
    /// nothing was sent.
    fn send<'a>(&'a self, request: &'a SendRequest) -> BoxFuture<'a, Result<Receipt, SendFailure>>;

    /// Looks for an earlier attempt of the same request made at or after `since` (the claim's time, by our clock).
    fn find<'a>(&'a self, request: &'a SendRequest, since: Timestamp) -> BoxFuture<'a, Result<Found, FindError>>;
}

/// When to read back after a send's outcome was lost: it counts as not sent only when every one of these reads found
/// nothing. An invitation has a natural key at the provider, so one read tells; messages may lag behind.
pub const fn settle_delays(action: Action) -> &'static [Duration] {
    const AT_ONCE: &[Duration] = &[Duration::ZERO];
    const MAIL: &[Duration] = &[Duration::ZERO, Duration::from_secs(60)];
    const MESSAGE: &[Duration] = &[Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(300)];
    match action {
        Action::SendLinkedinCr | Action::Wait => AT_ONCE,
        Action::SendEmail => MAIL,
        Action::SendLinkedinMessage | Action::SendWhatsapp => MESSAGE,
    }
}
