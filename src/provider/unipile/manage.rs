//! Accounts and webhook registration: called at start-up and by the operator, not by sends.

use serde_json::json;

use super::WEBHOOK_SECRET_HEADER;
use super::client::{ANSWER_BYTES_MAX, Unipile};
use super::errors::Error;
use super::wire::{Account, Webhook};
use crate::domain::account::Channel;
use crate::provider::Secret;

/// The deliveries we need: source and event. One webhook has one source. Account status has no event names that are
/// documented, its default is all of them.
const WEBHOOKS: &[(&str, Option<&str>)] = &[
    ("users", Some("new_relation")),
    ("messaging", Some("message_received")),
    ("email", Some("mail_received")),
    ("account_status", None),
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

    /// Registers the webhooks that are missing for `request_url`, with `secret` in the header of every delivery, and
    /// replaces those that still carry another secret. Returns how many were created.
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
        for (source, event) in WEBHOOKS {
            let name = format!("campaignd {source}");
            let (stale, current): (Vec<&Webhook>, Vec<&Webhook>) = registered
                .iter()
                .filter(|w| serves(w, source, *event, &name))
                .partition(|w| secret_of(w).is_some_and(|s| s != secret.expose()));
            if current.is_empty() {
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
                if let Some(event) = event {
                    body["events"] = json!([event]);
                }
                let _: serde_json::Value = self.post_json(&["webhooks"], &body).await?;
                created += 1;
            }
            for id in stale.into_iter().filter_map(|w| w.id.as_deref()) {
                self.delete(&["webhooks", id]).await?;
            }
        }
        Ok(created)
    }
}

/// Whether a registered webhook delivers this event. The list does not document the source, so it goes by the events;
/// account status, whose event names are not documented either, by our name or by having none of the others' events.
fn serves(webhook: &Webhook, source: &str, event: Option<&str>, name: &str) -> bool {
    let events = webhook.events.as_deref().unwrap_or_default();
    match (event, webhook.source.as_deref()) {
        (_, Some(theirs)) if theirs != source => false,
        (Some(event), _) => events.iter().any(|e| e == event),
        (None, Some(_)) => true,
        (None, None) => {
            webhook.name.as_deref() == Some(name)
                || events.iter().any(|e| matches!(e.as_str(), "creation_success" | "credentials" | "reconnected"))
        }
    }
}

/// The secret its deliveries carry, if the list shows it.
fn secret_of(webhook: &Webhook) -> Option<&str> {
    let headers = webhook.headers.as_deref().unwrap_or_default();
    let ours =
        headers.iter().find(|h| h.key.as_deref().is_some_and(|k| k.eq_ignore_ascii_case(WEBHOOK_SECRET_HEADER)))?;
    ours.value.as_deref()
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
