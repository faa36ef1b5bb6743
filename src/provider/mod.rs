//! What carries a channel. [`Provider`] speaks our types; `unipile` turns them into the provider's wire.
//!
//! A provider never retries by itself and never decides: it reports what happened, in the classes of [`SendFailure`].

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::domain::account::Channel;
use crate::domain::flow::Track;
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
    /// One of the actions that go through a channel.
    pub action: Action,
    /// Whom.
    pub recipient: Recipient,
    /// The subject of the mail or InMail, rendered.
    pub subject: Option<String>,
    /// The text, rendered. `None`: an invitation without a note, or a visit.
    pub body: Option<String>,
    /// The provider's id of the mail of ours that this mail answers: it goes into the same thread. The subject must be that
    /// mail's, with or without `Re:`.
    pub reply_to: Option<String>,
    /// What of a mail is tracked.
    pub track: Track,
    /// Where the person can unsubscribe with one click (RFC 8058). Becomes the mail's List-Unsubscribe headers.
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
    /// The provider has had another request under this one's key: what came of that is to be read back, and this one is never
    /// taken.
    Conflict {
        /// For people.
        message: String,
    },
}

/// What reading back found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was sent.
    Sent(Receipt),
    /// An invitation: the person is a connection already.
    Connected(Receipt),
    /// No trace of it but something that may be it, with its text changed on the way.
    Unclear,
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

    /// Looks for earlier attempts of the same request made at or after `since` (by our clock).
    fn find<'a>(&'a self, request: &'a SendRequest, since: Timestamp) -> BoxFuture<'a, Result<Found, FindError>>;

    /// Whether our key opens anything at all: asked when a call was refused because of it.
    fn opens(&self) -> BoxFuture<'_, Result<bool, FindError>> {
        Box::pin(async { Ok(true) })
    }

    /// The provider's lists, from which lost webhooks are made up for. `None`: it has none.
    fn lists(&self) -> Option<&dyn Lists> {
        None
    }
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What is on it, newest first.
    pub items: Vec<T>,
    /// Where the next one is; `None` after the last.
    pub next: Option<String>,
}

/// A connection of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The person's id with the provider: what an invitation was sent to.
    pub recipient_id: String,
    /// The person's public identifier.
    pub public_identifier: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// How an account stands with the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It works.
    Well,
    /// It does not, in the provider's word: `CREDENTIALS`, `STOPPED`, ...
    Broken(String),
}

/// What a provider can be asked for when webhooks may have been lost. Accounts are named by their id with the provider. Each
/// call is one page: who asks decides how many.
pub trait Lists: Send + Sync {
    /// How the account stands.
    fn standing<'a>(&'a self, account: &'a str) -> BoxFuture<'a, Result<Standing, FindError>>;

    /// Who is a connection of the account, newest first.
    fn relations<'a>(
        &'a self,
        account: &'a str,
        page: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page<Relation>, FindError>>;

    /// What happened on a channel after `since`, newest first. Most of it is known, so no more than its key is worked out.
    fn missed<'a>(
        &'a self,
        channel: Channel,
        account: &'a str,
        since: Timestamp,
        page: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page<Missed>, FindError>>;

    /// The whole body of something that is not known, with whatever has to be looked up for it. `None`: it is gone, or it
    /// cannot be said what it is about.
    fn complete<'a>(
        &'a self,
        account: &'a str,
        missed: &'a Missed,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, FindError>>;
}

/// Something that a webhook should have told.
#[derive(Clone, PartialEq, Eq)]
pub struct Missed {
    /// The key that its webhook would have had.
    pub key: String,
    /// The body that its webhook would have had, as far as the list tells.
    pub body: Vec<u8>,
    /// The chat that has to be looked up for the rest.
    pub chat: Option<String>,
}

// Bodies hold what people wrote: they are never printed.
impl fmt::Debug for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Missed").field("key", &self.key).finish_non_exhaustive()
    }
}

/// When to read back after a send's outcome was lost: it counts as not sent only when every one of these reads found
/// nothing. An invitation has a natural key at the provider, so one read tells; messages may lag behind.
pub const fn settle_delays(action: Action) -> &'static [Duration] {
    const AT_ONCE: &[Duration] = &[Duration::ZERO];
    const MAIL: &[Duration] = &[Duration::ZERO, Duration::from_secs(60)];
    const MESSAGE: &[Duration] = &[Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(300)];
    match action {
        Action::SendLinkedinCr | Action::VisitLinkedinProfile | Action::Wait => AT_ONCE,
        Action::SendEmail => MAIL,
        Action::SendLinkedinMessage | Action::SendLinkedinInmail | Action::SendWhatsapp => MESSAGE,
    }
}

/// Whether a send that reading back did not find may be sent again. A visit harms nobody twice, and the others leave a trace
/// that can be relied on. An InMail costs a credit and reaches somebody who does not know us: when it cannot be found, a
/// person decides.
pub const fn absence_settles(action: Action) -> bool {
    match action {
        Action::SendLinkedinInmail => false,
        Action::SendLinkedinCr
        | Action::SendLinkedinMessage
        | Action::VisitLinkedinProfile
        | Action::SendEmail
        | Action::SendWhatsapp
        | Action::Wait => true,
    }
}
