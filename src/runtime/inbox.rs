//! Applies stored facts: from an inbox row to the executions it is about. `pump` brings the rows.
//!
//! Rows stay open until their triggers are durable or refused, and triggers are idempotent, so a crash in between costs a
//! repetition that changes nothing. A fact that fits nobody yet is looked at again for a moment, beside the others: the
//! outcome of the send that it answers may still be on the way.

use std::sync::Arc;

use serde_json::Value;

use super::shared::Shared;
use super::work::Work;
use super::{DeliverError, Delivery, deliver_internal};
use crate::domain::account::Channel;
use crate::domain::execution::BounceStatus;
use crate::domain::id::{AccountId, ExecutionId, ProspectId, WorkspaceId};
use crate::domain::trigger::Trigger;
use crate::provider::unipile::webhook::{self, Event, MailKind};
use crate::store::identity::{self, IdentityKind, Wanted};
use crate::store::inbox::{Inbox, InboxStatus};
use crate::store::{self, execution, send, suppression};

mod pump;

pub(super) use pump::run;

/// What was found out about a row.
enum Verdict {
    Mark {
        status: InboxStatus,
        outcome: String,
        shard: Option<u16>,
    },
    /// About nobody we know, so far.
    Nobody,
    /// Cannot be handled now: Postgres is away, or its execution cannot run until its flow is corrected.
    Later,
}

impl Verdict {
    fn ignored(why: &str) -> Self {
        Self::Mark { status: InboxStatus::Ignored, outcome: why.to_owned(), shard: None }
    }
}

/// Deals with a row: finds whom it is about, and delivers it.
async fn verdict(shared: &Arc<Shared>, row: &Inbox) -> Verdict {
    judge(shared, row).await.unwrap_or_else(|error| broken(row, &error))
}

/// A row that cannot be handled: later, if Postgres is away; never, if it is the row's own fault.
fn broken(row: &Inbox, error: &store::Error) -> Verdict {
    tracing::warn!(inbox.id = %row.id, %error, "cannot handle an inbox row");
    if error.is_transient() {
        return Verdict::Later;
    }
    Verdict::Mark { status: InboxStatus::Failed, outcome: error.to_string(), shard: None }
}

async fn judge(shared: &Arc<Shared>, row: &Inbox) -> Result<Verdict, store::Error> {
    match row.source.as_str() {
        "unipile" => unipile(shared, row).await,
        // `link`: somebody unsubscribed by the link in a mail.
        "api" | "link" => api(shared, row).await,
        other => Ok(Verdict::Mark {
            status: InboxStatus::Failed,
            outcome: format!("no room reads facts from `{other}`"),
            shard: None,
        }),
    }
}

/// A trigger that came in by the API and whose request ended before it was applied.
async fn api(shared: &Arc<Shared>, row: &Inbox) -> Result<Verdict, store::Error> {
    let body: Value = serde_json::from_slice(&row.body).unwrap_or_default();
    let prospect = body.get("prospect_id").and_then(Value::as_str).and_then(|id| id.parse::<ProspectId>().ok());
    let (Some(prospect), Some(trigger)) = (prospect, api_trigger(&body)) else {
        return Ok(Verdict::Mark { status: InboxStatus::Failed, outcome: "not a trigger".into(), shard: None });
    };
    match execution::of_prospect(&shared.pool, row.workspace, prospect).await? {
        Some(execution) => deliver_to(shared, &[execution], &trigger).await,
        None => Ok(Verdict::Nobody),
    }
}

/// The trigger that a body of `POST /v1/triggers` names; `None` when it names none.
pub fn api_trigger(body: &Value) -> Option<Trigger> {
    let text = |key: &str| body.get(key).and_then(Value::as_str);
    match text("trigger")? {
        "connection_accepted" => Some(Trigger::ConnectionAccepted),
        "reply" => Some(Trigger::Reply { channel: Channel::parse(text("channel").unwrap_or("email"))? }),
        "bounce" => Some(Trigger::Bounce { status: BounceStatus::parse(text("bounce").unwrap_or("hard"))? }),
        "unsubscribe" => Some(Trigger::Unsubscribe),
        _ => None,
    }
}

async fn unipile(shared: &Arc<Shared>, row: &Inbox) -> Result<Verdict, store::Error> {
    let event = webhook::parse(&row.body, row.received_at).event;
    let ws = row.workspace;
    // Whatever the secret says: a workspace's endpoint speaks for that workspace's accounts only.
    let known = event.account().is_none_or(|id| !shared.roster.accounts().named(ws, id).is_empty());
    if !known {
        return Ok(Verdict::ignored("the account is not one of this workspace"));
    }
    match event {
        Event::NewRelation { account, recipient_id, public_identifier, profile_url } => {
            let keys: Vec<_> = recipient_id.iter().map(|id| (IdentityKind::Recipient, id.clone())).collect();
            let mut found = by_identity(shared, ws, &account, keys).await?;
            for address in [public_identifier, profile_url, recipient_id].into_iter().flatten() {
                if found.is_empty() {
                    found = identity::by_address(&shared.pool, ws, Channel::Linkedin, &address).await?;
                }
            }
            deliver_to(shared, &found, &Trigger::ConnectionAccepted).await
        }
        Event::MessageReceived { from_us: true, .. } => Ok(Verdict::ignored("our own message")),
        Event::MessageReceived { is_group: true, .. } => Ok(Verdict::ignored("a group chat")),
        Event::MessageReceived { channel: None, .. } => Ok(Verdict::ignored("not a channel of ours")),
        Event::MessageReceived {
            account,
            channel: Some(channel),
            chat_id,
            sender_id,
            sender_public,
            sender_phone,
            sender_lid,
            ..
        } => {
            let recipients = [sender_id, sender_public.clone()].into_iter().flatten();
            let keys = chat_id
                .map(|id| (IdentityKind::Chat, id))
                .into_iter()
                .chain(recipients.map(|id| (IdentityKind::Recipient, id)))
                .chain(sender_lid.map(|id| (IdentityKind::Lid, id)))
                .collect();
            let mut found = by_identity(shared, ws, &account, keys).await?;
            for address in [sender_phone, sender_public].into_iter().flatten() {
                if found.is_empty() {
                    found = identity::by_address(&shared.pool, ws, channel, &address).await?;
                }
            }
            deliver_to(shared, &found, &Trigger::Reply { channel }).await
        }
        Event::MailReceived { kind: MailKind::Ours, .. } => Ok(Verdict::ignored("our own mail")),
        Event::MailReceived { kind: MailKind::AutoReply, .. } => Ok(Verdict::ignored("an automatic answer")),
        Event::MailReceived {
            account,
            thread_id,
            in_reply_to_message_id,
            in_reply_to_id,
            from,
            kind: kind @ (MailKind::Reply | MailKind::Bounce { .. }),
            ..
        } => {
            let keys = in_reply_to_message_id
                .map(|id| (IdentityKind::RfcMessage, id))
                .into_iter()
                .chain(in_reply_to_id.map(|id| (IdentityKind::Message, id)))
                .chain(thread_id.map(|id| (IdentityKind::Thread, id)))
                .collect();
            let mut found = by_identity(shared, ws, &account, keys).await?;
            let (trigger, addresses) = match kind {
                MailKind::Bounce { failed, hard } => {
                    let status = if hard { BounceStatus::Hard } else { BounceStatus::Soft };
                    (Trigger::Bounce { status }, failed)
                }
                MailKind::Reply | MailKind::AutoReply | MailKind::Ours => {
                    (Trigger::Reply { channel: Channel::Email }, from.into_iter().collect())
                }
            };
            for address in addresses {
                if found.is_empty() {
                    found = identity::by_address(&shared.pool, ws, Channel::Email, &address).await?;
                }
            }
            deliver_to(shared, &found, &trigger).await
        }
        Event::AccountStatus { account, message } => account_status(shared, ws, &account, &message).await,
        Event::Unknown { event } => Ok(Verdict::ignored(&format!("an event we have no use for: {event}"))),
        Event::Unreadable { reason } => Ok(Verdict::Mark { status: InboxStatus::Failed, outcome: reason, shard: None }),
    }
}

async fn by_identity(
    shared: &Shared,
    workspace: WorkspaceId,
    account: &str,
    keys: Vec<(IdentityKind, String)>,
) -> Result<Vec<ExecutionId>, store::Error> {
    let accounts: Vec<AccountId> = shared.roster.accounts().named(workspace, account).iter().map(|a| a.id).collect();
    if accounts.is_empty() || keys.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = Wanted { workspace, accounts, keys };
    let found = match shared.finds.ask(wanted.clone()).await {
        Ok(found) => found,
        // Asked alone it says why not, or is answered.
        Err(_) => identity::find_executions(&shared.pool, &[wanted]).await?.pop().unwrap_or_default(),
    };
    let mut ids: Vec<ExecutionId> = found.into_iter().map(|(id, _)| id).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// The same person may be in several campaigns: the fact is one for each of them.
async fn deliver_to(shared: &Arc<Shared>, found: &[ExecutionId], trigger: &Trigger) -> Result<Verdict, store::Error> {
    let Some(first) = found.first() else { return Ok(Verdict::Nobody) };
    // Before anything is applied: whoever asked not to be written to is on the list even if the process dies here, and also when
    // no execution is left to be moved. The fact stays open until then.
    if let Some(reason) = trigger.suppresses() {
        suppression::add_people(&shared.pool, found, reason, shared.clock.now()).await?;
    }
    let (mut said, mut later) = (String::new(), false);
    for execution in found {
        match deliver_internal(shared, *execution, Work::Trigger(trigger.clone(), None)).await {
            Ok(Delivery::Applied { .. }) => said = "applied".into(),
            Ok(Delivery::Rejected { reason }) if said.is_empty() => reason.clone_into(&mut said),
            Ok(Delivery::Rejected { .. }) => {}
            // The fact must not be lost because a flow cannot be read today: it is applied once it can.
            Err(DeliverError::Busy | DeliverError::Stopping | DeliverError::Unrunnable(..)) => later = true,
            Err(error @ DeliverError::NotFound(_)) => {
                if said.is_empty() {
                    said = error.to_string();
                }
            }
        }
    }
    if later {
        // Those that took it already refuse it the second time.
        return Ok(Verdict::Later);
    }
    Ok(Verdict::Mark { status: InboxStatus::Applied, outcome: said, shard: Some(first.shard()) })
}

async fn account_status(
    shared: &Arc<Shared>,
    workspace: WorkspaceId,
    provider_account: &str,
    message: &str,
) -> Result<Verdict, store::Error> {
    let account = shared.roster.accounts().named(workspace, provider_account).first().map(|a| a.id);
    let Some(account) = account else { return Ok(Verdict::Nobody) };
    // Fair, and rows reach it in their order: what was said last is what holds.
    let _in_order = shared.account_status.lock().await;
    match message {
        "OK" | "RECONNECTED" | "CREATION_SUCCESS" | "SYNC_SUCCESS" => {
            send::resume_account(&shared.pool, workspace, account).await?;
        }
        "ERROR" | "STOPPED" | "CREDENTIALS" | "DELETED" => {
            send::halt_account(&shared.pool, workspace, account, &format!("the provider says {message}")).await?;
        }
        _ => return Ok(Verdict::ignored("an account status that changes nothing")),
    }
    shared.roster_changed.notify_one();
    Ok(Verdict::Mark { status: InboxStatus::Applied, outcome: message.to_owned(), shard: None })
}
