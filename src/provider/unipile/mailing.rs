//! Sends a mail: its form, its headers, its thread, and what is tried once more when the provider definitely refused.
//!
//! Each form that may be tried has an idempotency key of its own, derived from the send: the same key with another form would
//! be a conflict, and a form that is tried again after a lost answer must have the key it had.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use reqwest::multipart::Form;
use serde_json::{Value, json};

use super::SEND_HEADER;
use super::client::Unipile;
use super::errors::{Error, refused};
use super::recipient::html_body;
use super::send::{empty_text, one_line, text_of};
use super::wire::{Mail, MailSent};
use crate::domain::send::{FailureClass, Receipt};
use crate::provider::{SendFailure, SendRequest};

/// Longest time for learning a sent mail's Message-ID.
const MAIL_ID_WAIT: Duration = Duration::from_secs(5);

/// The one header name for unsubscribing that the API documents (sic).
const DOCUMENTED_UNSUBSCRIBE: &str = "Unscribe-List";

/// What may differ between two tries of one mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// Whether the unsubscribe headers are spelt as RFC 2369 and RFC 8058 do.
    plain_headers: bool,
    /// Whether it is put into the thread.
    threaded: bool,
}

impl Shape {
    /// What tells its idempotency key from the others'; nothing for the usual one.
    const fn suffix(self) -> &'static str {
        match (self.plain_headers, self.threaded) {
            (true, true) => "",
            (false, true) => "-h",
            (true, false) => "-t",
            (false, false) => "-ht",
        }
    }
}

impl Unipile {
    pub(super) async fn send_mail(&self, request: &SendRequest) -> Result<Receipt, SendFailure> {
        let account = request.provider_account_id.as_str();
        let Some(to) = request.recipient.mail() else {
            let message = "no usable mail address";
            return Err(refused(FailureClass::RecipientPermanent, "no_email", message, Receipt::default()));
        };
        let body = text_of(request).ok_or_else(empty_text)?;
        let mut form = Shape { plain_headers: !self.plain_headers_refused.load(Relaxed), threaded: true };
        loop {
            let error = match self.try_mail(request, to, body, form).await {
                Ok(sent) => return Ok(self.receipt(account, sent).await),
                Err(error) => error,
            };
            // Both are refusals, so nobody was written to; each is answered once.
            if error.is_kind("invalid_headers") && form.plain_headers && request.unsubscribe_url.is_some() {
                tracing::info!("unipile refuses List-Unsubscribe headers; using the name that it documents");
                self.plain_headers_refused.store(true, Relaxed);
                form.plain_headers = false;
            } else if error.is_kind("parent_mail_not_found") && form.threaded && request.reply_to.is_some() {
                // The subject still says what it goes on with.
                form.threaded = false;
            } else {
                return Err(self.failure(account, &error, Receipt::default()).await);
            }
        }
    }

    async fn try_mail(&self, request: &SendRequest, to: &str, body: &str, this: Shape) -> Result<MailSent, Error> {
        let (send, track) = (request.send.to_string(), request.track);
        let account = request.provider_account_id.clone();
        let mut form = Form::new().text("account_id", account).text("to", attendees(request, to));
        if let Some(subject) = &request.subject {
            form = form.text("subject", one_line(subject));
        }
        let mut headers = vec![json!({"name": SEND_HEADER, "value": send})];
        headers.extend(unsubscribe_headers(request, this.plain_headers));
        form = form
            .text("body", html_body(body))
            .text("custom_headers", Value::from(headers).to_string())
            .text("tracking_options", json!({"opens": track.opens, "links": track.links, "label": send}).to_string());
        if let Some(parent) = request.reply_to.as_ref().filter(|_| this.threaded) {
            form = form.text("reply_to", parent.clone());
        }
        let key = format!("{send}{}", this.suffix());
        self.post_form(&["emails"], form, Some(&key)).await
    }

    async fn receipt(&self, account: &str, sent: MailSent) -> Receipt {
        let mail = self.sent_mail(account, sent.provider_id.as_deref()).await;
        Receipt {
            tracking_id: sent.tracking_id,
            message_id: sent.provider_id,
            rfc_message_id: mail.message_id.as_deref().and_then(super::mail::message_id),
            thread_id: mail.thread_id,
            ..Receipt::default()
        }
    }

    /// The sent mail, for its Message-ID and thread, which answers are matched by. The mail has been sent whatever
    /// happens here.
    async fn sent_mail(&self, account: &str, id: Option<&str>) -> Mail {
        let Some(id) = id else { return Mail::default() };
        let wait = MAIL_ID_WAIT.min(self.timeout);
        tokio::time::timeout(wait, self.mail(account, id)).await.ok().and_then(Result::ok).unwrap_or_default()
    }
}

/// The headers by which a mail program offers to unsubscribe. What would break out of a header is left out.
fn unsubscribe_headers(request: &SendRequest, plain: bool) -> Vec<Value> {
    let usable = |url: &&String| url.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b','));
    let Some(url) = request.unsubscribe_url.as_ref().filter(usable) else { return Vec::new() };
    if !plain {
        return vec![json!({"name": DOCUMENTED_UNSUBSCRIBE, "value": format!("<{url}>")})];
    }
    vec![
        json!({"name": "List-Unsubscribe", "value": format!("<{url}>")}),
        json!({"name": "List-Unsubscribe-Post", "value": "List-Unsubscribe=One-Click"}),
    ]
}

/// The `to` field: JSON inside one form field.
fn attendees(request: &SendRequest, address: &str) -> String {
    let name = request.recipient.name.as_deref().map(str::trim).filter(|n| !n.is_empty());
    match name {
        Some(name) => json!([{"display_name": name, "identifier": address}]).to_string(),
        None => json!([{"identifier": address}]).to_string(),
    }
}
