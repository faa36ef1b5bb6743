//! Unipile, API v1: LinkedIn, mail and WhatsApp through one HTTP API.
//!
//! Owns everything that knows Unipile's wire: the client, its error types, the webhooks it delivers. The rest of the
//! program sees [`Unipile`] through [`Provider`], and [`webhook::Event`].
//!
//! - `client`: requests, time limits, the size limit of an answer. One call is one request: nothing is retried here.
//! - `wire`: the answers' shapes, read leniently, because fields and values appear without notice.
//! - `errors`: what each error type means for the engine.
//! - `recipient`: from a prospect's row to the ids the API takes.
//! - `send` with `mailing`, `find`: the two halves of [`Provider`]. `read`: the calls both use.
//! - `lists`: what webhooks that were lost would have said.
//! - `manage`: accounts and webhook registration, called at start-up and by the operator.
//! - `webhook`, `events`, `mail`: from a delivered body to a fact.
//!
//! The wire as documented in November 2026: developer.unipile.com, reference and docs pages, and unipile-node-sdk 1.9.3.

use futures_util::future::BoxFuture;

use crate::domain::send::Receipt;
use crate::domain::time::Timestamp;
use crate::provider::{FindError, Found, Lists, Provider, SendFailure, SendRequest};

mod client;
mod errors;
mod events;
mod find;
mod lists;
mod mail;
mod mailing;
mod manage;
mod read;
mod recipient;
mod send;
#[cfg(test)]
mod tests;
pub mod webhook;
mod wire;

pub use client::{Options, Unipile};
pub use errors::{ApiError, Error};
pub use manage::UnipileAccount;

/// The header in which a webhook delivery carries the shared secret.
pub const WEBHOOK_SECRET_HEADER: &str = "Unipile-Auth";

/// The custom mail header that carries a send's id, so that reading back can recognise the mail.
pub const SEND_HEADER: &str = "X-Campaignd-Send";

impl Provider for Unipile {
    fn name(&self) -> &'static str {
        "unipile"
    }

    fn send<'a>(&'a self, request: &'a SendRequest) -> BoxFuture<'a, Result<Receipt, SendFailure>> {
        Box::pin(self.send_once(request))
    }

    fn find<'a>(&'a self, request: &'a SendRequest, since: Timestamp) -> BoxFuture<'a, Result<Found, FindError>> {
        Box::pin(async move { self.read_back(request, since).await.map_err(|e| FindError { message: e.to_string() }) })
    }

    fn opens(&self) -> BoxFuture<'_, Result<bool, FindError>> {
        Box::pin(async {
            match self.key_opens().await {
                Ok(()) => Ok(true),
                Err(e) if e.refuses_key() => Ok(false),
                Err(e) => Err(FindError { message: e.to_string() }),
            }
        })
    }

    fn lists(&self) -> Option<&dyn Lists> {
        Some(self)
    }
}
