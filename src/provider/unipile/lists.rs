//! What webhooks that were lost would have said: the account's status, its connections, and its messages and mails since a
//! time, each turned into the body that its webhook would have had. So there is one reader of facts, and one key for each.
//!
//! Messages and chats come from Unipile's own store; relations are read from LinkedIn at each call.

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::client::{ANSWER_BYTES_MAX, Unipile};
use super::errors::Error;
use super::webhook;
use super::wire::{self, Chat, Source, UserRelation, clean, instant_text, truth};
use crate::domain::account::Channel;
use crate::domain::time::Timestamp;
use crate::provider::{FindError, Lists, Missed, Page, Relation, Standing};

/// Connections on one page: the request goes to LinkedIn, so fewer and longer ones are better.
const RELATIONS_LIMIT: &str = "250";
/// Messages on one page.
const MESSAGES_LIMIT: &str = "100";
/// Mails on one page: with headers come the whole bodies.
const MAILS_LIMIT: &str = "20";
/// Longest page of mails, in bytes.
const MAILS_BYTES_MAX: usize = 32 << 20;

impl Lists for Unipile {
    fn standing<'a>(&'a self, account: &'a str) -> BoxFuture<'a, Result<Standing, FindError>> {
        Box::pin(async move { self.account_standing(account).await.map_err(why) })
    }

    fn relations<'a>(
        &'a self,
        account: &'a str,
        page: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page<Relation>, FindError>> {
        Box::pin(async move { self.relations_page(account, page).await.map_err(why) })
    }

    fn missed<'a>(
        &'a self,
        channel: Channel,
        account: &'a str,
        since: Timestamp,
        page: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page<Missed>, FindError>> {
        Box::pin(async move {
            match channel {
                Channel::Email => self.mails_page(account, since, page).await,
                Channel::Linkedin => self.messages_page("LINKEDIN", account, since, page).await,
                Channel::Whatsapp => self.messages_page("WHATSAPP", account, since, page).await,
            }
            .map_err(why)
        })
    }

    fn complete<'a>(
        &'a self,
        account: &'a str,
        missed: &'a Missed,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, FindError>> {
        Box::pin(async move {
            let Some(chat) = &missed.chat else { return Ok(Some(missed.body.clone())) };
            match self.chat(account, chat).await {
                Ok(chat) => Ok(with_chat(&missed.body, &chat)),
                Err(e) if e.is_missing() => Ok(None),
                Err(e) => Err(why(e)),
            }
        })
    }
}

fn why(error: Error) -> FindError {
    FindError { message: error.to_string() }
}

impl Unipile {
    async fn account_standing(&self, account: &str) -> Result<Standing, Error> {
        let found = match self.account(account).await {
            Err(e) if e.is_missing() => return Ok(Standing::Broken("DELETED".to_owned())),
            other => other?,
        };
        let sources = found.sources.unwrap_or_default();
        let is_named = sources.iter().any(Source::carries_messages);
        // A calendar of the same account says nothing about its messages.
        let own = sources.into_iter().filter(|s| !is_named || s.carries_messages());
        let broken = own.filter_map(|s| s.status).map(|s| s.to_uppercase()).find(|s| webhook::is_broken(s));
        Ok(broken.map_or(Standing::Well, Standing::Broken))
    }

    async fn relations_page(&self, account: &str, cursor: Option<&str>) -> Result<Page<Relation>, Error> {
        let query = [("account_id", account), ("limit", RELATIONS_LIMIT)];
        let page: wire::Page<UserRelation> =
            self.page(&["users", "relations"], &query, cursor, ANSWER_BYTES_MAX * 4).await?;
        let relation = |r: UserRelation| {
            Some(Relation { recipient_id: r.member_id?, public_identifier: r.public_identifier, since: r.created_at })
        };
        Ok(Page { items: page.items.into_iter().filter_map(relation).collect(), next: next(page.cursor, cursor) })
    }

    async fn messages_page(
        &self,
        kind: &str,
        account: &str,
        since: Timestamp,
        cursor: Option<&str>,
    ) -> Result<Page<Missed>, Error> {
        let after = instant_text(since);
        let query = [("account_id", account), ("after", after.as_str()), ("limit", MESSAGES_LIMIT)];
        let page: wire::Page<Value> = self.page(&["messages"], &query, cursor, ANSWER_BYTES_MAX * 4).await?;
        let items = page.items.iter().filter_map(|message| message_body(kind, account, message)).collect();
        Ok(Page { items, next: next(page.cursor, cursor) })
    }

    async fn mails_page(&self, account: &str, since: Timestamp, cursor: Option<&str>) -> Result<Page<Missed>, Error> {
        let after = instant_text(since);
        let query = [
            ("account_id", account),
            ("after", after.as_str()),
            ("include_headers", "true"),
            ("meta_only", "false"),
            ("limit", MAILS_LIMIT),
        ];
        let page: wire::Page<Value> = self.page(&["emails"], &query, cursor, MAILS_BYTES_MAX).await?;
        let items = page.items.into_iter().filter_map(|mail| mail_body(account, mail)).collect();
        Ok(Page { items, next: next(page.cursor, cursor) })
    }
}

/// Where the next page is, unless it is the same one again.
fn next(next: Option<String>, this: Option<&str>) -> Option<String> {
    next.filter(|next| this != Some(next.as_str()))
}

/// `message_received` as it would have been delivered, without its chat: messages name their writer only.
fn message_body(kind: &str, account: &str, message: &Value) -> Option<Missed> {
    let is = |name: &str| message.get(name).and_then(truth) == Some(true);
    if is("deleted") || is("hidden") || is("is_event") {
        return None;
    }
    let body = json!({
        "event": "message_received",
        "account_id": account,
        "account_type": kind,
        "chat_id": message.get("chat_id"),
        "message_id": message.get("id"),
        "message": message.get("text"),
        "subject": message.get("subject"),
        "timestamp": message.get("timestamp"),
        "message_type": message.get("message_type"),
        "is_sender": is("is_sender"),
        "sender": {"attendee_provider_id": message.get("sender_id")},
    });
    let chat = message.get("chat_id").and_then(clean)?;
    Some(missed(&body, Some(chat)))
}

/// Adds who else is in the chat, and whether it is a group: what a group says is no answer to us.
fn with_chat(body: &[u8], chat: &Chat) -> Option<Vec<u8>> {
    let mut body: Value = serde_json::from_slice(body).ok()?;
    let group = matches!(chat.kind.as_deref(), Some("1" | "2"));
    body["is_group"] = group.into();
    if body["is_sender"] == Value::Bool(false) && !group {
        body["sender"]["attendee_public_identifier"] = json!(chat.attendee_public_identifier);
    }
    body["attendees"] = json!([{
        "attendee_provider_id": chat.attendee_provider_id,
        "attendee_public_identifier": chat.attendee_public_identifier,
    }]);
    Some(body.to_string().into_bytes())
}

fn missed(body: &Value, chat: Option<String>) -> Missed {
    let body = body.to_string().into_bytes();
    // No key of a message or mail has a time in it.
    Missed { key: webhook::parse(&body, Timestamp::from_micros(0)).dedupe_key, body, chat }
}

/// `mail_received` or `mail_sent` as it would have been delivered; `None` for what is neither.
fn mail_body(account: &str, mut mail: Value) -> Option<Missed> {
    let event = match mail.get("role").and_then(Value::as_str).unwrap_or_default() {
        "sent" => "mail_sent",
        "drafts" | "draft" | "trash" => return None,
        _ => "mail_received",
    };
    let id = mail.get("id").cloned().filter(|id| clean(id).is_some())?;
    let fields = mail.as_object_mut()?;
    fields.insert("event".to_owned(), event.into());
    fields.insert("account_id".to_owned(), account.into());
    fields.insert("email_id".to_owned(), id);
    Some(missed(&mail, None))
}
