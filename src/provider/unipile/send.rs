//! The first half of `Provider`: contacts one person once.
//!
//! In each action at most one request contacts somebody (two only where the first was refused for good: a chat that no
//! longer exists). What fails before it is a refusal; what fails in it is sorted by `errors`.

use std::time::Duration;

use reqwest::multipart::Form;
use serde_json::json;

use super::SEND_HEADER;
use super::client::Unipile;
use super::errors::{Error, Meaning, refused};
use super::recipient::html_body;
use super::wire::{InvitationSent, Mail, MailSent, MessageSent, Profile};
use crate::domain::send::{Action, FailureClass, Receipt};
use crate::provider::{SendFailure, SendRequest};

/// Longest note of an invitation, in characters (200 on free LinkedIn accounts: the provider refuses those itself).
const NOTE_CHARS_MAX: usize = 300;

/// Longest time for learning a sent mail's Message-ID.
const MAIL_ID_WAIT: Duration = Duration::from_secs(5);

impl Unipile {
    pub(super) async fn send_once(&self, request: &SendRequest) -> Result<Receipt, SendFailure> {
        match request.action {
            Action::SendLinkedinCr => self.invite(request).await,
            Action::SendLinkedinMessage => self.linkedin_message(request).await,
            Action::SendWhatsapp => self.whatsapp_message(request).await,
            Action::SendEmail => self.send_mail(request).await,
            Action::Wait => Err(refused(
                FailureClass::Rejected,
                "nothing_to_send",
                "the action wait contacts nobody",
                Receipt::default(),
            )),
        }
    }

    async fn invite(&self, request: &SendRequest) -> Result<Receipt, SendFailure> {
        let account = request.provider_account_id.as_str();
        let note = request.body.as_deref().map(str::trim).filter(|n| !n.is_empty());
        if note.is_some_and(|n| n.chars().count() > NOTE_CHARS_MAX) {
            let message = format!("the note is longer than {NOTE_CHARS_MAX} characters, shorten it in the flow");
            return Err(refused(FailureClass::Rejected, "note_too_long", message, Receipt::default()));
        }
        let recipient = match &request.recipient.recipient_id {
            Some(id) => id.clone(),
            None => {
                let (id, profile) = self.resolve(request).await?;
                let learnt = Receipt { recipient_id: Some(id.clone()), ..Receipt::default() };
                if profile.is_connected() {
                    let message = "the person is a connection already";
                    return Err(refused(FailureClass::AlreadyDone, "already_connected", message, learnt));
                }
                if profile.is_invited() {
                    return Ok(learnt);
                }
                id
            }
        };
        let learnt = Receipt { recipient_id: Some(recipient.clone()), ..Receipt::default() };
        let mut body = json!({"account_id": account, "provider_id": recipient});
        if let Some(note) = note {
            body["message"] = note.into();
        }
        match self.post_json::<InvitationSent>(&["users", "invite"], &body).await {
            Ok(sent) => Ok(Receipt { invitation_id: sent.invitation_id, ..learnt }),
            Err(e) if e.is_kind("already_invited_recently") => {
                self.invited_before(account, &recipient, e, learnt).await
            }
            Err(e) => Err(self.failure(account, &e, learnt).await),
        }
    }

    /// What a refusal for an earlier invitation means: it still waits for an answer (then it is as good as ours), or it
    /// was withdrawn or refused and LinkedIn wants weeks to pass.
    async fn invited_before(
        &self,
        account: &str,
        recipient: &str,
        refusal: Error,
        learnt: Receipt,
    ) -> Result<Receipt, SendFailure> {
        match self.profile(account, recipient).await {
            Ok(profile) if profile.is_connected() => {
                Err(refused(FailureClass::AlreadyDone, "already_connected", refusal.to_string(), learnt))
            }
            Ok(profile) if profile.is_invited() => Ok(learnt),
            Ok(_) => Err(refusal.of_effect(learnt)),
            // Reading back asks the same question later, without another invitation.
            Err(e) => Err(SendFailure::Unknown { message: format!("{refusal}; {e}"), learnt }),
        }
    }

    async fn linkedin_message(&self, request: &SendRequest) -> Result<Receipt, SendFailure> {
        let text = text_of(request).ok_or_else(empty_text)?;
        if let Some(receipt) = self.send_in_chat(request, text).await? {
            return Ok(receipt);
        }
        let recipient = match &request.recipient.recipient_id {
            Some(id) => id.clone(),
            None => self.resolve(request).await?.0,
        };
        self.start_chat(request, recipient, text).await
    }

    async fn whatsapp_message(&self, request: &SendRequest) -> Result<Receipt, SendFailure> {
        let text = text_of(request).ok_or_else(empty_text)?;
        if let Some(receipt) = self.send_in_chat(request, text).await? {
            return Ok(receipt);
        }
        let Some(recipient) = request.recipient.whatsapp_id() else {
            let message = "no phone number in international notation";
            return Err(refused(FailureClass::RecipientPermanent, "no_phone", message, Receipt::default()));
        };
        self.start_chat(request, recipient, text).await
    }

    /// Sends in the known chat. `None`: there is none, or it no longer exists.
    async fn send_in_chat(&self, request: &SendRequest, text: &str) -> Result<Option<Receipt>, SendFailure> {
        let Some(chat) = &request.recipient.chat_id else { return Ok(None) };
        let learnt = Receipt { recipient_id: request.recipient.recipient_id.clone(), ..Receipt::default() };
        // The account is a guard: a chat of another account is refused.
        let form = Form::new().text("account_id", request.provider_account_id.clone()).text("text", text.to_owned());
        match self.post_form::<MessageSent>(&["chats", chat, "messages"], form, None).await {
            Ok(sent) => Ok(Some(Receipt { chat_id: Some(chat.clone()), message_id: sent.message_id, ..learnt })),
            Err(e) if e.is_missing() => Ok(None),
            Err(e) => Err(e.of_effect(Receipt { chat_id: Some(chat.clone()), ..learnt })),
        }
    }

    async fn start_chat(&self, request: &SendRequest, recipient: String, text: &str) -> Result<Receipt, SendFailure> {
        let account = request.provider_account_id.as_str();
        // Several people would be several fields of the same name. Options of one network are `linkedin[..]` fields; the
        // defaults are right for a message to a connection.
        let form = Form::new()
            .text("account_id", account.to_owned())
            .text("attendees_ids", recipient.clone())
            .text("text", text.to_owned());
        let learnt = Receipt { recipient_id: Some(recipient), ..Receipt::default() };
        match self.post_form::<MessageSent>(&["chats"], form, None).await {
            Ok(sent) => Ok(Receipt { chat_id: sent.chat_id, message_id: sent.message_id, ..learnt }),
            Err(e) => Err(self.failure(account, &e, learnt).await),
        }
    }

    async fn send_mail(&self, request: &SendRequest) -> Result<Receipt, SendFailure> {
        let account = request.provider_account_id.as_str();
        let Some(to) = request.recipient.mail() else {
            let message = "no usable mail address";
            return Err(refused(FailureClass::RecipientPermanent, "no_email", message, Receipt::default()));
        };
        let body = text_of(request).ok_or_else(empty_text)?;
        let send = request.send.to_string();
        let mut form = Form::new().text("account_id", account.to_owned()).text("to", attendees(request, to));
        if let Some(subject) = &request.subject {
            // A line end in a subject would start another header.
            form = form.text("subject", subject.split(['\r', '\n']).collect::<Vec<_>>().join(" ").trim().to_owned());
        }
        let form = form
            .text("body", html_body(body))
            .text("custom_headers", json!([{"name": SEND_HEADER, "value": send}]).to_string())
            .text("tracking_options", json!({"opens": false, "links": false, "label": send}).to_string());
        match self.post_form::<MailSent>(&["emails"], form, Some(&send)).await {
            Ok(sent) => {
                let mail = self.sent_mail(account, sent.provider_id.as_deref()).await;
                Ok(Receipt {
                    tracking_id: sent.tracking_id,
                    message_id: sent.provider_id,
                    rfc_message_id: mail.message_id.as_deref().and_then(super::mail::message_id),
                    thread_id: mail.thread_id,
                    ..Receipt::default()
                })
            }
            Err(e) => Err(self.failure(account, &e, Receipt::default()).await),
        }
    }

    /// The sent mail, for its Message-ID and thread, which answers are matched by. The mail has been sent whatever
    /// happens here.
    async fn sent_mail(&self, account: &str, id: Option<&str>) -> Mail {
        let Some(id) = id else { return Mail::default() };
        let wait = MAIL_ID_WAIT.min(self.timeout);
        tokio::time::timeout(wait, self.mail(account, id)).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Looks the person up: id with the provider, and profile.
    async fn resolve(&self, request: &SendRequest) -> Result<(String, Profile), SendFailure> {
        let account = request.provider_account_id.as_str();
        let Some(identifier) = request.recipient.linkedin_identifier() else {
            let message = "no usable linkedin profile";
            return Err(refused(FailureClass::RecipientPermanent, "no_linkedin", message, Receipt::default()));
        };
        let mut profile = match self.profile(account, &identifier).await {
            Ok(profile) => profile,
            Err(e) if e.is_missing() => return Err(self.failure(account, &e, Receipt::default()).await),
            Err(e) => return Err(e.of_read(Receipt::default())),
        };
        if profile.is_self == Some(true) {
            let message = "the profile is the account's own";
            return Err(refused(FailureClass::RecipientPermanent, "own_profile", message, Receipt::default()));
        }
        match profile.provider_id.take() {
            Some(id) => Ok((id, profile)),
            None => Err(Error::Unreadable("the profile has no provider_id".into()).of_read(Receipt::default())),
        }
    }

    /// The failure of a call. "Not found" may be the person or the account; an account that is gone must not use up one
    /// prospect after the other, so it is looked up.
    async fn failure(&self, account: &str, error: &Error, learnt: Receipt) -> SendFailure {
        if !error.is_missing() || error.meaning() == Meaning::Unknown {
            return error.of_effect(learnt);
        }
        match self.account(account).await {
            Ok(_) => error.of_effect(learnt),
            Err(gone) if gone.is_missing() => {
                let message = "unipile does not know the account any more, connect it again";
                refused(FailureClass::AccountBroken, "account_not_found", message, learnt)
            }
            Err(other) => other.of_read(learnt),
        }
    }
}

/// The text to send, if there is one.
fn text_of(request: &SendRequest) -> Option<&str> {
    request.body.as_deref().filter(|text| !text.trim().is_empty())
}

fn empty_text() -> SendFailure {
    refused(FailureClass::Rejected, "empty_text", "the text is empty", Receipt::default())
}

/// The `to` field: JSON inside one form field.
fn attendees(request: &SendRequest, address: &str) -> String {
    let name = request.recipient.name.as_deref().map(str::trim).filter(|n| !n.is_empty());
    match name {
        Some(name) => json!([{"display_name": name, "identifier": address}]).to_string(),
        None => json!([{"identifier": address}]).to_string(),
    }
}
