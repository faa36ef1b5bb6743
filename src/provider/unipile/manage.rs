//! Accounts and webhook registration: called at start-up and by the operator, not by sends.

use serde_json::json;

use super::WEBHOOK_SECRET_HEADER;
use super::client::{ANSWER_BYTES_MAX, Unipile};
use super::errors::Error;
use super::wire::{Account, Webhook, WebhookField};
use crate::domain::account::Channel;
use crate::provider::Secret;

/// The deliveries we want: source, the events that we cannot do without, and those besides. One webhook has one source.
/// Account status has no event names that are documented, its default is all of them.
const WEBHOOKS: &[(&str, &[&str], &[&str])] = &[
    ("users", &["new_relation"], &[]),
    (
        "messaging",
        &["message_received"],
        // Documented, but not in every list of names: a tenant may refuse them.
        &["message_read", "message_reaction", "message_edited", "message_deleted", "message_delivered"],
    ),
    ("email", &["mail_received"], &["mail_sent"]),
    ("email_tracking", &["mail_opened"], &["mail_link_clicked"]),
    ("account_status", &[], &[]),
];

/// An account connected at Unipile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnipileAccount {
    /// Its id: our `provider_account_id`.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// Unipile's type, for example `LINKEDIN` or `GOOGLE_OAUTH`.
    pub kind: String,
    /// What it sends with us; `None` for networks we do not use.
    pub channel: Option<Channel>,
    /// The first status of its parts that is not `OK`; `OK` when there is none.
    pub status: String,
}

impl Unipile {
    /// Every account of the tenant.
    ///
    /// # Errors
    /// Whatever the read says.
    pub async fn accounts(&self) -> Result<Vec<UnipileAccount>, Error> {
        let mut accounts = Vec::new();
        let _: Option<()> = self
            .search(&["accounts"], &[("limit", "250")], ANSWER_BYTES_MAX, |account: Account| {
                accounts.extend(described(account));
                None
            })
            .await?;
        Ok(accounts)
    }

    /// Asks for something that any key opens.
    pub(super) async fn key_opens(&self) -> Result<(), Error> {
        let _: serde_json::Value = self.get(&["accounts"], &[("limit", "1")], ANSWER_BYTES_MAX).await?;
        Ok(())
    }

    /// Registers the webhooks that are missing for `request_url`, with `secret` in the header of every delivery, and
    /// replaces those that carry another secret or none: whatever they deliver is refused. Returns how many were created.
    ///
    /// # Errors
    /// Whatever the first failing call says; those before it have taken effect, and calling again goes on from there.
    pub async fn ensure_webhooks(&self, request_url: &str, secret: &Secret) -> Result<usize, Error> {
        let mut registered = Vec::new();
        let _: Option<()> = self
            .search(&["webhooks"], &[("limit", "250")], ANSWER_BYTES_MAX, |webhook: Webhook| {
                if webhook.request_url.as_deref() == Some(request_url) && webhook.enabled != Some(false) {
                    registered.push(webhook);
                }
                None
            })
            .await?;
        let mut created = 0;
        for (source, needed, besides) in WEBHOOKS {
            let name = format!("campaignd {source}");
            let all: Vec<&str> = needed.iter().chain(*besides).copied().collect();
            let (mut current, stale): (Vec<&Webhook>, Vec<&Webhook>) = registered
                .iter()
                .filter(|w| serves(w, source, needed, &name))
                .partition(|w| is_accepted(w, secret, &name));
            current.retain(|w| is_named(w, &name) || is_whole(w));
            if !current.iter().any(|w| serves(w, source, &all, &name)) {
                match self.create_webhook(request_url, source, &name, &all, secret).await {
                    Ok(()) => {
                        created += 1;
                        // Those of ours that deliver less would deliver everything twice.
                        for id in current.iter().filter(|w| is_named(w, &name)).filter_map(|w| w.id.as_deref()) {
                            self.delete(&["webhooks", id]).await?;
                        }
                    }
                    Err(Error::Api(refusal)) if matches!(refusal.status, 400 | 422) && !besides.is_empty() => {
                        tracing::warn!(source, %refusal, "unipile does not deliver some events; doing without them");
                        if current.is_empty() {
                            self.create_webhook(request_url, source, &name, needed, secret).await?;
                            created += 1;
                        }
                    }
                    Err(other) => return Err(other),
                }
            }
            for id in stale.into_iter().filter_map(|w| w.id.as_deref()) {
                self.delete(&["webhooks", id]).await?;
            }
        }
        Ok(created)
    }

    async fn create_webhook(
        &self,
        request_url: &str,
        source: &str,
        name: &str,
        events: &[&str],
        secret: &Secret,
    ) -> Result<(), Error> {
        let mut body = json!({
            "request_url": request_url,
            "source": source,
            "name": name,
            "format": "json",
            "enabled": true,
            "headers": [
                {"key": WEBHOOK_SECRET_HEADER, "value": secret.expose()},
                // Without it the body is JSON under a form's content type.
                {"key": "Content-Type", "value": "application/json"},
            ],
        });
        if !events.is_empty() {
            body["events"] = json!(events);
        }
        self.post_json::<serde_json::Value>(&["webhooks"], &body).await.map(drop)
    }
}

/// Whether a registered webhook delivers these events. The list does not document the source, so it goes by the events;
/// account status, whose event names are not documented either, by our name or by having none of the others' events.
fn serves(webhook: &Webhook, source: &str, wanted: &[&str], name: &str) -> bool {
    let events = webhook.events.as_deref().unwrap_or_default();
    match webhook.source.as_deref() {
        Some(theirs) if theirs != source => false,
        Some(_) if wanted.is_empty() => true,
        None if wanted.is_empty() => {
            is_named(webhook, name)
                || events.iter().any(|e| matches!(e.as_str(), "creation_success" | "credentials" | "reconnected"))
        }
        _ => wanted.iter().all(|event| events.iter().any(|e| e == event)),
    }
}

fn is_named(webhook: &Webhook, name: &str) -> bool {
    webhook.name.as_deref() == Some(name)
}

/// Whether its deliveries carry our secret. Of one that we made ourselves so they do, where the list does not show it.
fn is_accepted(webhook: &Webhook, secret: &Secret, name: &str) -> bool {
    let is_ours = |key: &str| key.eq_ignore_ascii_case(WEBHOOK_SECRET_HEADER);
    let Some(headers) = &webhook.headers else { return is_named(webhook, name) };
    match headers.iter().find(|h| h.key.as_deref().is_some_and(is_ours)) {
        Some(header) => header.value.as_deref().is_none_or(|value| value == secret.expose()),
        None => false,
    }
}

/// Whether somebody else's webhook delivers everything of all accounts, as it is. Asked of our own it might be made anew at each
/// start: what the list shows of a webhook without a choice is not documented.
fn is_whole(webhook: &Webhook) -> bool {
    let renames = |field: &WebhookField| field.name.is_some() && field.key.is_some() && field.name != field.key;
    webhook.account_ids.as_ref().is_none_or(Vec::is_empty)
        && webhook.format.as_deref().is_none_or(|format| format == "json")
        && !webhook.data.iter().flatten().any(renames)
}

fn described(account: Account) -> Option<UnipileAccount> {
    let kind = account.kind.unwrap_or_default();
    let statuses = account.sources.unwrap_or_default().into_iter().filter_map(|s| s.status);
    Some(UnipileAccount {
        id: account.id?,
        name: account.name.unwrap_or_default(),
        channel: channel_of(&kind),
        kind,
        status: statuses.into_iter().find(|s| s != "OK").unwrap_or_else(|| "OK".into()),
    })
}

/// The channel of Unipile's account type.
pub(super) fn channel_of(kind: &str) -> Option<Channel> {
    match kind {
        "LINKEDIN" => Some(Channel::Linkedin),
        "WHATSAPP" => Some(Channel::Whatsapp),
        "MAIL" | "GOOGLE" | "GOOGLE_OAUTH" | "OUTLOOK" | "EXCHANGE" | "ICLOUD" => Some(Channel::Email),
        _ => None,
    }
}
