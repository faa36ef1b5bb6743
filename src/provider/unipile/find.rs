//! The second half of `Provider`: was it sent?
//!
//! No call but the mail's has an idempotency key, so what was sent is recognised by what it is: the one pending invitation
//! between two people, a message of ours with the same text, a mail with our header. "Absent" is only said when every
//! read succeeded.

use std::time::Duration;

use super::SEND_HEADER;
use super::client::Unipile;
use super::errors::Error;
use super::recipient::normalised;
use super::wire::{Mail, Message, instant_text};
use crate::domain::echo::alike;
use crate::domain::send::{Action, Receipt};
use crate::domain::time::Timestamp;
use crate::provider::{Found, SendRequest};

/// How far the provider's clock may be behind ours.
const SKEW: Duration = Duration::from_secs(120);

/// Most messages of the same text whose chats are looked up.
const CANDIDATES_MAX: usize = 50;

impl Unipile {
    pub(super) async fn read_back(&self, request: &SendRequest, since: Timestamp) -> Result<Found, Error> {
        let since = since - SKEW;
        match request.action {
            Action::SendLinkedinCr => self.find_invitation(request).await,
            Action::SendLinkedinMessage | Action::SendLinkedinInmail | Action::SendWhatsapp => {
                self.find_sent_message(request, since).await
            }
            Action::SendEmail => self.find_sent_mail(request, since).await,
            // A visit leaves no trace, and may be made again.
            Action::VisitLinkedinProfile | Action::Wait => Ok(Found::Absent),
        }
    }

    /// The profile says whether an invitation is pending, or accepted already. It may be behind, the list of sent
    /// invitations settles it.
    async fn find_invitation(&self, request: &SendRequest) -> Result<Found, Error> {
        let account = request.provider_account_id.as_str();
        let identifier = match &request.recipient.recipient_id {
            Some(id) => Some(id.clone()),
            None => request.recipient.linkedin_identifier(),
        };
        // Without anybody to look up, nobody was invited.
        let Some(identifier) = identifier else { return Ok(Found::Absent) };
        let profile = match self.profile(account, &identifier).await {
            Err(e) if e.is_missing() => return self.absent_if_account_exists(account).await,
            other => other?,
        };
        let recipient = profile.provider_id.clone().or_else(|| request.recipient.recipient_id.clone());
        let receipt = Receipt { recipient_id: recipient.clone(), ..Receipt::default() };
        if profile.is_connected() {
            return Ok(Found::Connected(receipt));
        }
        if profile.is_invited() {
            return Ok(Found::Sent(receipt));
        }
        let pending = self.pending_invitation(account, recipient.as_deref().unwrap_or(&identifier)).await?;
        Ok(pending.map_or(Found::Absent, |p| Found::Sent(Receipt { invitation_id: p.id, ..receipt })))
    }

    /// Looks in the known chat, else in every chat with the person.
    async fn find_sent_message(&self, request: &SendRequest, since: Timestamp) -> Result<Found, Error> {
        let account = request.provider_account_id.as_str();
        // An InMail has a conversation of its own.
        let known = request.recipient.chat_id.as_ref().filter(|_| request.action != Action::SendLinkedinInmail);
        if let Some(chat) = known {
            match self.find_in_chat(request, chat, since).await {
                // The chat is gone: a message would have gone into a new one.
                Err(e) if e.is_missing() => {}
                other => return other,
            }
        }
        let whatsapp = request.action == Action::SendWhatsapp;
        let person = match &request.recipient.recipient_id {
            Some(id) => Some(id.clone()),
            None if whatsapp => request.recipient.whatsapp_id(),
            None => match request.recipient.linkedin_identifier() {
                Some(identifier) => match self.profile(account, &identifier).await {
                    Ok(profile) => {
                        let unreadable = || Error::Unreadable("the profile has no provider_id".into());
                        Some(profile.provider_id.ok_or_else(unreadable)?)
                    }
                    Err(e) if e.is_missing() => return self.absent_if_account_exists(account).await,
                    Err(e) => return Err(e),
                },
                None => None,
            },
        };
        // Without anybody to write to, nobody was written to.
        let Some(person) = person else { return Ok(Found::Absent) };
        let chats = match self.chats_with(account, &person).await {
            Ok(chats) => chats,
            Err(e) if e.is_missing() => {
                self.account(account).await?;
                Vec::new()
            }
            Err(e) => return Err(e),
        };
        let mut unclear = false;
        for chat in chats {
            match self.find_in_chat(request, &chat, since).await {
                Ok(Found::Sent(receipt)) => {
                    return Ok(Found::Sent(Receipt { recipient_id: Some(person), ..receipt }));
                }
                // It may be in another one all the same.
                Ok(Found::Unclear) => unclear = true,
                Ok(Found::Absent | Found::Connected(_)) => {}
                Err(e) if e.is_missing() => {}
                Err(e) => return Err(e),
            }
        }
        match whatsapp {
            true if !unclear => self.find_under_another_name(request, person, since).await,
            _ => Ok(if unclear { Found::Unclear } else { Found::Absent }),
        }
    }

    /// WhatsApp may list the person under a LID, which nothing we know leads to. So every message of ours with this text
    /// is looked at, and the chat says whose number it went to.
    async fn find_under_another_name(
        &self,
        request: &SendRequest,
        person: String,
        since: Timestamp,
    ) -> Result<Found, Error> {
        let account = request.provider_account_id.as_str();
        let mut sent = Vec::new();
        self.each_message(account, &instant_text(since), |message| {
            if is_ours(&message, request, since) && sent.len() < CANDIDATES_MAX {
                sent.push(message);
            }
        })
        .await?;
        let mut hidden = sent.len() == CANDIDATES_MAX;
        for message in sent {
            let Some(chat_id) = message.chat_id else { continue };
            let chat = match self.chat(account, &chat_id).await {
                Err(e) if e.is_missing() => continue,
                other => other?,
            };
            let names = [&chat.attendee_public_identifier, &chat.attendee_provider_id];
            if names.iter().any(|name| name.as_deref() == Some(&person)) {
                let (chat_id, message_id) = (Some(chat_id), message.id);
                return Ok(Found::Sent(Receipt {
                    recipient_id: Some(person),
                    chat_id,
                    message_id,
                    ..Receipt::default()
                }));
            }
            hidden |= !names.iter().any(|name| name.as_deref().is_some_and(|n| n.ends_with("@s.whatsapp.net")));
        }
        if hidden {
            // Neither "sent" nor "absent" would be the truth.
            return Err(Error::Unreadable(
                "this text went to people whose number is not shown, or to too many of them".into(),
            ));
        }
        Ok(Found::Absent)
    }

    async fn find_in_chat(&self, request: &SendRequest, chat: &str, since: Timestamp) -> Result<Found, Error> {
        let mut unexplained = false;
        let found = self
            .find_message(chat, &instant_text(since), |message: Message| {
                if !is_ours(&message, request, since) {
                    unexplained |= may_be_ours(&message, since + SKEW);
                    return None;
                }
                Some(Receipt {
                    recipient_id: request.recipient.recipient_id.clone(),
                    chat_id: Some(message.chat_id.unwrap_or_else(|| chat.to_owned())),
                    message_id: message.id,
                    ..Receipt::default()
                })
            })
            .await?;
        let nothing = if unexplained { Found::Unclear } else { Found::Absent };
        Ok(found.map_or(nothing, Found::Sent))
    }

    /// A mail with our header, else (the provider dropped it, or another program sent it) one we sent with the same
    /// subject.
    async fn find_sent_mail(&self, request: &SendRequest, since: Timestamp) -> Result<Found, Error> {
        let Some(to) = request.recipient.mail() else { return Ok(Found::Absent) };
        let send = request.send.to_string();
        let subject = normalised(request.subject.as_deref().unwrap_or_default());
        let mut similar = None;
        let found = self
            .find_mail(&request.provider_account_id, to, &instant_text(since), |mail: Mail| {
                match send_header(&mail) {
                    Some(value) if value == send => return Some(receipt_of(mail)),
                    // Another send of ours.
                    Some(_) => return None,
                    None => {}
                }
                let ours = mail.role.as_deref() == Some("sent") || mail.origin.as_deref() == Some("unipile");
                let same = normalised(mail.subject.as_deref().unwrap_or_default()) == subject;
                if similar.is_none() && ours && same && mail.date.is_none_or(|t| t >= since) {
                    similar = Some(receipt_of(mail));
                }
                None
            })
            .await?;
        Ok(found.or(similar).map_or(Found::Absent, Found::Sent))
    }

    /// "Not found" settles it only while the account is there.
    async fn absent_if_account_exists(&self, account: &str) -> Result<Found, Error> {
        self.account(account).await.map(|_| Found::Absent)
    }
}

/// Whether this is the message we look for: written by the account's owner since then, with the same text. Told as its echo is.
fn is_ours(message: &Message, request: &SendRequest, since: Timestamp) -> bool {
    message.is_sender == Some(true)
        && message.timestamp.is_none_or(|t| t >= since)
        && alike(message.text.as_deref(), request.body.as_deref())
}

/// Whether a message with another text may be the one we look for: written by the account's owner after `claimed`.
fn may_be_ours(message: &Message, claimed: Timestamp) -> bool {
    message.is_sender == Some(true)
        && message.timestamp.is_some_and(|t| t >= claimed)
        && message.text.as_deref().is_some_and(|text| !text.trim().is_empty())
}

/// Our header of a mail, if it is there.
fn send_header(mail: &Mail) -> Option<&str> {
    let headers = mail.headers.as_deref().unwrap_or_default();
    let ours = headers.iter().find(|h| h.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(SEND_HEADER)))?;
    ours.value.as_deref()
}

fn receipt_of(mail: Mail) -> Receipt {
    Receipt {
        message_id: mail.provider_id.or(mail.id),
        tracking_id: mail.tracking_id,
        rfc_message_id: mail.message_id.as_deref().and_then(super::mail::message_id),
        thread_id: mail.thread_id,
        ..Receipt::default()
    }
}
