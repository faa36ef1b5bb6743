//! From a stored fact of a provider to the executions it is about, and to the trigger that it is for them.
//!
//! People are found by what the provider calls them, their chat or their mail, else by their address. One person may be in
//! several campaigns. Called by `inbox`, which tries again later what cannot be decided now.

use std::sync::Arc;

use super::by_hand;
use super::inbox::{Verdict, deliver_to};
use super::shared::Shared;
use crate::domain::account::{Account, Channel};
use crate::domain::execution::BounceStatus;
use crate::domain::id::{ExecutionId, SendId};
use crate::domain::trigger::{Sighting, Trigger};
use crate::provider::unipile::webhook::{self, Event, MailKind, Person};
use crate::store::identity::{self, IdentityKind, Wanted};
use crate::store::inbox::{Inbox, InboxStatus};
use crate::store::{self, catch_up, send};
use crate::telemetry;

/// Finds out what a fact is about and delivers it. `is_first`: nobody has looked at it before, so that it is counted once.
pub(super) async fn judge(shared: &Arc<Shared>, row: &Inbox, is_first: bool) -> Result<Verdict, store::Error> {
    let mut event = webhook::parse(&row.body, row.received_at).event;
    if is_first {
        metrics::counter!(telemetry::FACTS, "event" => event.name()).increment(1);
    }
    let ws = row.workspace;
    // Whatever the secret says: a workspace's endpoint speaks for that workspace's accounts only.
    let accounts = shared.roster.accounts();
    let account = event.account().map(|id| accounts.named(ws, id).first().map(|a| &**a));
    let account = match account {
        Some(None) => return Ok(Verdict::ignored("the account is not one of this workspace")),
        Some(Some(account)) => Some(account),
        None => None,
    };
    if let Some(account) = account {
        event = event.on(account.channel);
    }
    match (event, account) {
        (Event::NewRelation { recipient_id, public_identifier, profile_url, .. }, Some(account)) => {
            let keys: Vec<_> = recipient_id.iter().map(|id| (IdentityKind::Recipient, id.clone())).collect();
            let mut found = by_identity(shared, account, keys).await?;
            for address in [public_identifier, profile_url, recipient_id].into_iter().flatten() {
                if found.is_empty() {
                    found = identity::by_address(&shared.pool, ws, Channel::Linkedin, &address).await?;
                    // Whoever is contacted by another account is no connection of that one.
                    let is_only = accounts.is_only(account);
                    found = identity::not_of_others(&shared.pool, &found, account.id, is_only).await?;
                }
            }
            tell(shared, account, row, &found, &Trigger::ConnectionAccepted).await
        }
        (Event::MessageReceived { is_group: true, .. }, _) => Ok(Verdict::ignored("a group chat")),
        (Event::MessageReceived { channel: None, .. } | Event::MessageSeen { channel: None, .. }, _) => {
            Ok(Verdict::ignored("not a channel of ours"))
        }
        (
            Event::MessageReceived {
                from_us: true,
                channel: Some(channel),
                chat_id,
                message_id,
                others,
                text,
                timestamp,
                ..
            },
            Some(account),
        ) => {
            let written = by_hand::Written { channel, chat_id, message_id, others, text, timestamp };
            by_hand::message(shared, account, row, written).await
        }
        (
            Event::MessageReceived {
                from_us: false, channel: Some(channel), chat_id, message_id, is_sure, sender, ..
            },
            Some(account),
        ) => {
            if !is_sure {
                let keys = message_id.map(|id| (IdentityKind::Message, id)).into_iter();
                if !by_identity(shared, account, keys.collect()).await?.is_empty() {
                    return Ok(Verdict::ignored(by_hand::ECHO));
                }
                // It may be the echo of that one.
                if send::is_busy(&shared.pool, ws, account.id, row.received_at).await? {
                    return Ok(Verdict::Later);
                }
            }
            let found = by_chat(shared, account, channel, chat_id.as_deref(), &sender).await?;
            learn(shared, account, &found, chat_id.as_deref(), &sender).await?;
            let by_address = found.kinds.is_empty();
            answered(shared, account, row, (found.executions, by_address), channel).await
        }
        (Event::MessageSeen { from_us: false, .. }, _) => Ok(Verdict::ignored("we saw what they wrote")),
        (Event::MessageSeen { channel: Some(channel), chat_id, message_id, how, .. }, Some(account)) => {
            let keys = message_id.map(|id| (IdentityKind::Message, id)).into_iter();
            let mut found = by_identity(shared, account, keys.collect()).await?;
            if found.is_empty() {
                let keys = chat_id.map(|id| (IdentityKind::Chat, id)).into_iter();
                found = by_identity(shared, account, keys.collect()).await?;
            }
            deliver_to(shared, row, &found, &Trigger::Seen { channel, how }).await
        }
        (Event::MessageChanged { what, .. }, _) => Ok(Verdict::ignored(&format!("{what}: nothing follows from it"))),
        (Event::MailReceived { kind: MailKind::Ours, .. }, _) => Ok(Verdict::ignored("our own mail")),
        (Event::MailReceived { kind: MailKind::AutoReply, .. }, _) => Ok(Verdict::ignored("an automatic answer")),
        (
            Event::MailReceived {
                email_id,
                message_id,
                thread_id,
                in_reply_to_message_id,
                in_reply_to_id,
                from,
                kind: kind @ (MailKind::Reply | MailKind::Bounce { .. }),
                ..
            },
            Some(account),
        ) => {
            let keys = in_reply_to_message_id
                .map(|id| (IdentityKind::RfcMessage, id))
                .into_iter()
                .chain(in_reply_to_id.map(|id| (IdentityKind::Message, id)))
                .chain(thread_id.map(|id| (IdentityKind::Thread, id)))
                .collect();
            let own = message_id
                .map(|id| (IdentityKind::RfcMessage, id))
                .into_iter()
                .chain(email_id.map(|id| (IdentityKind::Message, id)))
                .collect();
            // They share a statement.
            let (found, own) = tokio::join!(by_identity(shared, account, keys), by_identity(shared, account, own));
            let (mut found, own) = (found?, own?);
            // Some mailboxes show what was sent under another role.
            let is_own_address = from.as_deref().is_some_and(|f| f.eq_ignore_ascii_case(account.name.trim()));
            if !own.is_empty() || is_own_address {
                return Ok(Verdict::ignored("our own mail"));
            }
            let by_address = found.is_empty();
            let (bounce, addresses) = match kind {
                MailKind::Bounce { failed, hard } => {
                    (Some(if hard { BounceStatus::Hard } else { BounceStatus::Soft }), failed)
                }
                MailKind::Reply | MailKind::AutoReply | MailKind::Ours => (None, from.into_iter().collect()),
            };
            for address in addresses {
                if found.is_empty() {
                    found = identity::by_address(&shared.pool, ws, Channel::Email, &address).await?;
                }
            }
            match bounce {
                Some(status) => tell(shared, account, row, &found, &Trigger::Bounce { status }).await,
                None => answered(shared, account, row, (found, by_address), Channel::Email).await,
            }
        }
        (event @ Event::MailSent { .. }, Some(account)) => by_hand::mail(shared, account, row, event).await,
        (Event::MailTracked { how, send, tracking_id, .. }, account) => {
            tracked(shared, row, account, how, send, tracking_id).await
        }
        (Event::AccountStatus { message, .. }, Some(account)) => account_status(shared, account, &message).await,
        (Event::Unknown { event }, _) => Ok(Verdict::ignored(&format!("an event we have no use for: {event}"))),
        (Event::Unreadable { reason }, _) => {
            Ok(Verdict::Mark { status: InboxStatus::Failed, outcome: reason, shard: None })
        }
        // All these name their account.
        (
            Event::NewRelation { .. }
            | Event::MessageReceived { .. }
            | Event::MessageSeen { .. }
            | Event::MailReceived { .. }
            | Event::MailSent { .. }
            | Event::AccountStatus { .. },
            None,
        ) => Ok(Verdict::ignored("it names no account")),
    }
}

/// About nobody we know. While a send of the account has no outcome it may be about that one's person, whose name with the provider
/// the outcome brings.
pub(super) async fn nobody(shared: &Shared, account: &Account, row: &Inbox) -> Result<Verdict, store::Error> {
    let is_open = send::is_busy(&shared.pool, account.workspace, account.id, row.received_at).await?;
    Ok(if is_open { Verdict::Later } else { Verdict::Nobody })
}

async fn tell(
    shared: &Arc<Shared>,
    account: &Account,
    row: &Inbox,
    found: &[ExecutionId],
    trigger: &Trigger,
) -> Result<Verdict, store::Error> {
    if found.is_empty() {
        return nobody(shared, account, row).await;
    }
    deliver_to(shared, row, found, trigger).await
}

/// Somebody has answered: an answer is one in every campaign that the person is in. An address leads to all of them, a name only to
/// those that know it.
async fn answered(
    shared: &Arc<Shared>,
    account: &Account,
    row: &Inbox,
    (mut found, by_address): (Vec<ExecutionId>, bool),
    channel: Channel,
) -> Result<Verdict, store::Error> {
    if !by_address && !found.is_empty() && shared.roster.has_campaigns(account.workspace) {
        for execution in identity::of_same_people(&shared.pool, account.workspace, &found).await? {
            if !found.contains(&execution) {
                found.push(execution);
            }
        }
    }
    tell(shared, account, row, &found, &Trigger::Reply { channel }).await
}

/// What names a person led to.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) executions: Vec<ExecutionId>,
    /// By which kinds of names; empty when it was the address.
    kinds: Vec<IdentityKind>,
}

/// Who a chat is with: by the chat, by what the provider calls the person, else by their address.
pub(super) async fn by_chat(
    shared: &Shared,
    account: &Account,
    channel: Channel,
    chat: Option<&str>,
    person: &Person,
) -> Result<Found, store::Error> {
    let recipients = [person.id.clone(), person.public.clone()].into_iter().flatten();
    let keys: Vec<(IdentityKind, String)> = chat
        .map(|id| (IdentityKind::Chat, id.to_owned()))
        .into_iter()
        .chain(recipients.map(|id| (IdentityKind::Recipient, id)))
        .chain(person.lid.clone().map(|id| (IdentityKind::Lid, id)))
        .collect();
    let pairs = find(shared, account, keys).await?;
    let mut found = Found::default();
    for (execution, kind) in pairs {
        if !found.executions.contains(&execution) {
            found.executions.push(execution);
        }
        if !found.kinds.contains(&kind) {
            found.kinds.push(kind);
        }
    }
    for address in [person.phone.as_ref(), person.public.as_ref()].into_iter().flatten() {
        if found.executions.is_empty() {
            found.executions = identity::by_address(&shared.pool, account.workspace, channel, address).await?;
        }
    }
    Ok(found)
}

/// Notes the chat and the LID of a person who was recognised by something else: LinkedIn may not tell the chat when it is
/// started, and WhatsApp may name a person by a LID alone later on.
pub(super) async fn learn(
    shared: &Shared,
    account: &Account,
    found: &Found,
    chat: Option<&str>,
    person: &Person,
) -> Result<(), store::Error> {
    let names = [(IdentityKind::Chat, chat), (IdentityKind::Lid, person.lid.as_deref())];
    let new = names.into_iter().filter(|(kind, _)| !found.kinds.contains(kind));
    let new: Vec<_> = new.filter_map(|(kind, name)| Some((kind, name?))).collect();
    identity::learn(&shared.pool, account.workspace, account.id, &found.executions, &new, shared.clock.now()).await
}

/// The executions that any of these names leads to.
pub(super) async fn by_identity(
    shared: &Shared,
    account: &Account,
    keys: Vec<(IdentityKind, String)>,
) -> Result<Vec<ExecutionId>, store::Error> {
    let found = find(shared, account, keys).await?;
    let mut ids: Vec<ExecutionId> = found.into_iter().map(|(id, _)| id).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Asks together with whoever asks now.
pub(super) async fn find(
    shared: &Shared,
    account: &Account,
    keys: Vec<(IdentityKind, String)>,
) -> Result<identity::Found, store::Error> {
    if keys.is_empty() {
        return Ok(identity::Found::new());
    }
    let wanted = Wanted { workspace: account.workspace, accounts: vec![account.id], keys };
    match shared.finds.ask(wanted.clone()).await {
        Ok(found) => Ok(found),
        // Asked alone it says why not, or is answered.
        Err(_) => Ok(identity::find_executions(&shared.pool, &[wanted]).await?.pop().unwrap_or_default()),
    }
}

/// A mail was opened or clicked: the label that we gave it names the send, else its tracking id does.
async fn tracked(
    shared: &Arc<Shared>,
    row: &Inbox,
    account: Option<&Account>,
    how: Sighting,
    label: Option<SendId>,
    tracking_id: Option<String>,
) -> Result<Verdict, store::Error> {
    let mut found: Vec<ExecutionId> = match label {
        Some(send) => send::of_send(&shared.pool, row.workspace, send).await?.into_iter().collect(),
        None => Vec::new(),
    };
    if let (true, Some(account), Some(id)) = (found.is_empty(), account, tracking_id) {
        found = by_identity(shared, account, vec![(IdentityKind::Tracking, id)]).await?;
    }
    deliver_to(shared, row, &found, &Trigger::Seen { channel: Channel::Email, how }).await
}

/// An account works again, says its provider. What came in meanwhile is read first: nobody is written to who has answered. For
/// who holds the turn of [`Shared::account_status`].
pub(super) async fn works_again(shared: &Shared, account: &Account) -> Result<(), store::Error> {
    let (workspace, id) = (account.workspace, account.id);
    if catch_up::back(&shared.pool, workspace, id, shared.clock.now()).await? {
        shared.bells.ring(id);
    } else {
        send::resume_account(&shared.pool, workspace, id).await?;
    }
    Ok(())
}

async fn account_status(shared: &Arc<Shared>, account: &Account, message: &str) -> Result<Verdict, store::Error> {
    let (workspace, id) = (account.workspace, account.id);
    // Fair, and rows reach it in their order: what was said last is what holds.
    let _in_order = shared.account_status.lock().await;
    match message {
        "OK" | "RECONNECTED" | "CREATION_SUCCESS" | "SYNC_SUCCESS" => {
            works_again(shared, account).await?;
        }
        _ if webhook::is_broken(message) => {
            send::halt_account(&shared.pool, workspace, id, &format!("the provider says {message}")).await?;
            catch_up::broken(&shared.pool, workspace, id, message).await?;
            tracing::warn!(account.id = %id, message, "the account is halted until it works again: its provider says that it does not");
        }
        _ => return Ok(Verdict::ignored("an account status that changes nothing")),
    }
    shared.roster_changed.notify_one();
    Ok(Verdict::Mark { status: InboxStatus::Applied, outcome: message.to_owned(), shard: None })
}
