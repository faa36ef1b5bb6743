//! The first half of `Provider`: contacts one person once.
//!
//! In each action at most one request contacts somebody (two only where the first was refused for good: a chat that no
//! longer exists). What fails before it is a refusal; what fails in it is sorted by `errors`.

use reqwest::multipart::Form;
use serde_json::json;

use super::client::Unipile;
use super::errors::{Error, Meaning, refused};
use super::wire::{InvitationSent, MessageSent, Profile};
use crate::domain::limits;
use crate::domain::send::{Action, FailureClass, Receipt};
use crate::provider::{SendFailure, SendRequest};

impl Unipile {
    pub(super) async fn send_once(&self, request: &SendRequest) -> Result<Receipt, SendFailure> {
        if let Some(failure) = too_long(request) {
            return Err(failure);
        }
        match request.action {
            Action::SendLinkedinCr => self.invite(request).await,
            Action::SendLinkedinMessage => self.linkedin_message(request).await,
            Action::SendLinkedinInmail => self.inmail(request).await,
            Action::VisitLinkedinProfile => self.visit(request).await,
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
            Ok(sent) => {
                let usage_percent = sent.usage.and_then(percent);
                Ok(Receipt { invitation_id: sent.invitation_id, usage_percent, ..learnt })
            }
            Err(e) if e.is_kind("already_invited_recently") => {
                self.invited_before(account, &recipient, e, learnt).await
            }
            Err(e) if note.is_some() && refuses_note(&e) => {
                Err(refused(FailureClass::NoteRefused, e.code(), e.to_string(), learnt))
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
            // It may be behind, as when reading back: then the list of sent invitations knows better.
            Ok(_) => match self.pending_invitation(account, recipient).await {
                Ok(Some(pending)) => Ok(Receipt { invitation_id: pending.id, ..learnt }),
                Ok(None) => Err(refusal.of_effect(learnt)),
                Err(e) => Err(SendFailure::Unknown { message: format!("{refusal}; {e}"), learnt }),
            },
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

    /// A message to somebody who need not be a connection. Always by person: an InMail has a conversation of its own.
    async fn inmail(&self, request: &SendRequest) -> Result<Receipt, SendFailure> {
        let text = text_of(request).ok_or_else(empty_text)?;
        let recipient = match &request.recipient.recipient_id {
            Some(id) => id.clone(),
            None => self.resolve(request).await?.0,
        };
        self.start_chat(request, recipient, text).await
    }

    /// Looks at the profile so that its owner is told. Whatever goes wrong, it may be done again.
    async fn visit(&self, request: &SendRequest) -> Result<Receipt, SendFailure> {
        let account = request.provider_account_id.as_str();
        let identifier = request.recipient.recipient_id.clone().or_else(|| request.recipient.linkedin_identifier());
        let Some(identifier) = identifier else { return Err(no_profile()) };
        match self.visit_profile(account, &identifier).await {
            Ok(profile) if profile.is_self == Some(true) => Err(own_profile()),
            Ok(profile) => Ok(Receipt { recipient_id: profile.provider_id, ..Receipt::default() }),
            Err(e) if e.is_missing() => Err(self.failure(account, &e, Receipt::default()).await),
            Err(e) => Err(e.of_read(Receipt::default())),
        }
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
        let mut form = Form::new()
            .text("account_id", account.to_owned())
            .text("attendees_ids", recipient.clone())
            .text("text", text.to_owned());
        if request.action == Action::SendLinkedinInmail {
            form = form.text("linkedin[api]", "classic").text("linkedin[inmail]", "true");
            if let Some(subject) = &request.subject {
                form = form.text("subject", one_line(subject));
            }
        }
        let learnt = Receipt { recipient_id: Some(recipient), ..Receipt::default() };
        match self.post_form::<MessageSent>(&["chats"], form, None).await {
            Ok(sent) => Ok(Receipt { chat_id: sent.chat_id, message_id: sent.message_id, ..learnt }),
            Err(e) => Err(self.failure(account, &e, learnt).await),
        }
    }

    /// Looks the person up: id with the provider, and profile.
    async fn resolve(&self, request: &SendRequest) -> Result<(String, Profile), SendFailure> {
        let account = request.provider_account_id.as_str();
        let Some(identifier) = request.recipient.linkedin_identifier() else {
            return Err(no_profile());
        };
        let mut profile = match self.profile(account, &identifier).await {
            Ok(profile) => profile,
            Err(e) if e.is_missing() => return Err(self.failure(account, &e, Receipt::default()).await),
            Err(e) => return Err(e.of_read(Receipt::default())),
        };
        if profile.is_self == Some(true) {
            return Err(own_profile());
        }
        match profile.provider_id.take() {
            Some(id) => Ok((id, profile)),
            // The person's own, however well everything works.
            None => {
                let message = "the profile has no provider_id";
                Err(refused(FailureClass::RetryLater, "unreadable_answer", message, Receipt::default()))
            }
        }
    }

    /// The failure of a call. "Not found" may be the person or the account; an account that is gone must not use up one
    /// prospect after the other, so it is looked up.
    pub(super) async fn failure(&self, account: &str, error: &Error, learnt: Receipt) -> SendFailure {
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

/// Whether an invitation with a note may be refused for the note alone: free accounts have shorter notes and few of them, and
/// when they are used up they hear the same as when all invitations are.
fn refuses_note(error: &Error) -> bool {
    matches!(error.meaning(), Meaning::Refused(_))
        && (error.is_kind("too_many_characters") || error.is_kind("cannot_resend_yet"))
}

/// The text to send, if there is one.
pub(super) fn text_of(request: &SendRequest) -> Option<&str> {
    request.body.as_deref().filter(|text| !text.trim().is_empty())
}

pub(super) fn empty_text() -> SendFailure {
    refused(FailureClass::Rejected, "empty_text", "the text is empty", Receipt::default())
}

/// What is too long for the provider. Whoever renders the texts has looked already; this is the last door.
fn too_long(request: &SendRequest) -> Option<SendFailure> {
    let why = limits::check(request.action, request.subject.as_deref(), request.body.as_deref()).err()?;
    Some(refused(FailureClass::Rejected, "text_too_long", why, Receipt::default()))
}

fn no_profile() -> SendFailure {
    let message = "no usable linkedin profile";
    refused(FailureClass::RecipientPermanent, "no_linkedin", message, Receipt::default())
}

fn own_profile() -> SendFailure {
    let message = "the profile is the account's own";
    refused(FailureClass::RecipientPermanent, "own_profile", message, Receipt::default())
}

/// A subject on one line: a line end in it would start another header.
pub(super) fn one_line(subject: &str) -> String {
    subject.split(['\r', '\n']).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// A percentage that is one.
fn percent(usage: f64) -> Option<u8> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 100")]
    (0.0..=100.0).contains(&usage).then_some(usage as u8)
}
