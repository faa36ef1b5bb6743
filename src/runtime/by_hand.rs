//! What the owner of an account wrote: the echo of a send of ours, the note that begins a chat when an invitation is accepted,
//! or a person at the keyboard. That pauses everything that is under way for whom they wrote to.
//!
//! By the provider's id where the send's outcome told it; else by the text, over everything that was said to the person: in
//! the end in every campaign of the workspace, whichever way the person was found. While a send to them has no outcome, nothing
//! is decided. The echo of a send whose outcome was lost is its outcome.

use std::sync::Arc;
use std::time::Duration;

use super::facts::{self, by_chat, by_identity};
use super::inbox::{Verdict, deliver_to};
use super::settle;
use super::shared::Shared;
use crate::domain::account::{Account, Channel};
use crate::domain::echo::{self, Own, Ruling};
use crate::domain::id::{ExecutionId, SendId};
use crate::domain::send::Receipt;
use crate::domain::time::Timestamp;
use crate::domain::trigger::Trigger;
use crate::provider::unipile::webhook::{Event, Person, Words};
use crate::store::identity::{self, IdentityKind};
use crate::store::inbox::{Inbox, InboxStatus};
use crate::store::{self, send};

/// Older than that when it arrives, it is a mailbox being read in, and nobody is taking over.
const STALE: Duration = Duration::from_secs(14 * 24 * 3600);

/// The outcome of our own messages.
pub(super) const ECHO: &str = "the echo of a send of ours";

/// What the provider calls a message.
type Keys = Vec<(IdentityKind, String)>;

/// A message that the account's owner wrote in a chat.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) channel: Channel,
    pub(super) chat_id: Option<String>,
    pub(super) message_id: Option<String>,
    pub(super) others: Vec<Person>,
    pub(super) text: Option<Words>,
    pub(super) timestamp: Option<Timestamp>,
}

/// Judges a message in a chat.
pub(super) async fn message(
    shared: &Arc<Shared>,
    account: &Account,
    row: &Inbox,
    written: Written,
) -> Result<Verdict, store::Error> {
    let keys: Keys = written.message_id.clone().map(|id| (IdentityKind::Message, id)).into_iter().collect();
    if !by_identity(shared, account, keys.clone()).await?.is_empty() {
        return Ok(Verdict::ignored(ECHO));
    }
    let person = written.others.first().cloned().unwrap_or_default();
    let found = by_chat(shared, account, written.channel, written.chat_id.as_deref(), &person).await?;
    if found.executions.is_empty() {
        return facts::nobody(shared, account, row).await;
    }
    facts::learn(shared, account, &found, written.chat_id.as_deref(), &person).await?;
    let text = written.text.as_ref().map(Words::as_str);
    let (channel, at) = (written.channel, written.timestamp);
    let own = Own { channel, account: account.id, send: None, at, subject: None, text };
    let names =
        Receipt { chat_id: written.chat_id.clone(), message_id: written.message_id.clone(), ..Receipt::default() };
    rule(shared, account, row, Sighted { own, keys, names, typed: true }, &found.executions).await
}

/// Judges a mail that left the mailbox.
pub(super) async fn mail(
    shared: &Arc<Shared>,
    account: &Account,
    row: &Inbox,
    event: Event,
) -> Result<Verdict, store::Error> {
    let Event::MailSent {
        email_id,
        provider_id,
        message_id,
        thread_id,
        tracking_id,
        through_api,
        send,
        to,
        subject,
        text,
        timestamp,
        ..
    } = event
    else {
        return Ok(Verdict::ignored("not a mail that was sent"));
    };
    // By us, or by another program through the same provider: nobody typed it.
    let typed = !through_api && send.is_none();
    if send.is_some() && shared.in_flight.get(&account.id).map(|running| *running) == send {
        return Ok(Verdict::Later);
    }
    let names = Receipt {
        message_id: provider_id.clone().or_else(|| email_id.clone()),
        tracking_id: tracking_id.clone(),
        rfc_message_id: message_id.clone(),
        thread_id: thread_id.clone(),
        ..Receipt::default()
    };
    let keys = [email_id, provider_id].into_iter().flatten().map(|id| (IdentityKind::Message, id));
    let keys = keys
        .chain(message_id.map(|id| (IdentityKind::RfcMessage, id)))
        .chain(tracking_id.map(|id| (IdentityKind::Tracking, id)));
    let keys: Keys = keys.collect();
    // It tells more where the outcome of a mail got lost.
    if !typed && shared.meters.settling(Channel::Email) == 0 {
        return by_program(shared, account, row, send, (keys, thread_id)).await;
    }
    if !by_identity(shared, account, keys.clone()).await?.is_empty() {
        return match typed {
            true => Ok(Verdict::ignored(ECHO)),
            false => by_program(shared, account, row, send, (keys, thread_id)).await,
        };
    }
    let thread = names.thread_id.clone().map(|id| (IdentityKind::Thread, id)).into_iter().collect();
    let mut found = by_identity(shared, account, thread).await?;
    for address in to {
        for execution in identity::by_address(&shared.pool, account.workspace, Channel::Email, &address).await? {
            if !found.contains(&execution) {
                found.push(execution);
            }
        }
    }
    if found.is_empty() {
        return match typed {
            true => Ok(Verdict::Nobody),
            false => by_program(shared, account, row, send, (keys, names.thread_id)).await,
        };
    }
    let own = Own {
        channel: Channel::Email,
        account: account.id,
        send,
        at: timestamp,
        subject: subject.as_ref().map(Words::as_str),
        text: text.as_ref().map(Words::as_str),
    };
    rule(shared, account, row, Sighted { own, keys, names, typed }, &found).await
}

/// What somebody, or a program, has written.
struct Sighted<'a> {
    own: Own<'a>,
    keys: Keys,
    /// The same, as the outcome of a send would have told them.
    names: Receipt,
    /// Whether a person may have typed it.
    typed: bool,
}

/// A mail that left through the API: what its send could not learn of its names is learnt here, because answers are matched by them.
async fn by_program(
    shared: &Shared,
    account: &Account,
    row: &Inbox,
    send: Option<SendId>,
    (mut names, thread): (Keys, Option<String>),
) -> Result<Verdict, store::Error> {
    let (workspace, now) = (account.workspace, shared.clock.now());
    let thread = thread.map(|id| (IdentityKind::Thread, id));
    // One statement for all, though a thread alone does not make a mail ours.
    let known = facts::find(shared, account, names.iter().cloned().chain(thread.clone()).collect()).await?;
    let mut whose: Vec<_> = known.iter().filter(|(_, k)| *k != IdentityKind::Thread).map(|(id, _)| *id).collect();
    if let (true, Some(send)) = (whose.is_empty(), send) {
        whose.extend(send::of_send(&shared.pool, workspace, send).await?);
    }
    if whose.is_empty() {
        return facts::nobody(shared, account, row).await;
    }
    names.extend(thread);
    whose.sort_unstable();
    whose.dedup();
    let new = names.iter().filter(|(kind, _)| known.iter().all(|(_, k)| k != kind));
    let new: Vec<_> = new.map(|(kind, name)| (*kind, name.as_str())).collect();
    identity::learn(&shared.pool, workspace, account.id, &whose, &new, now).await?;
    Ok(Verdict::ignored(ECHO))
}

async fn rule(
    shared: &Arc<Shared>,
    account: &Account,
    row: &Inbox,
    Sighted { own, keys, names, typed }: Sighted<'_>,
    found: &[ExecutionId],
) -> Result<Verdict, store::Error> {
    // Before what was said: a send that ends in between is then seen in one of the two.
    let in_hand = send::in_hand(&shared.pool, account.workspace, account.id).await?;
    let said = send::said(&shared.pool, found).await?;
    let mut ruling = echo::judge(own, &said);
    if ruling == Ruling::ByHand {
        // By a chat only those are found who know it: another campaign may have just written the first time.
        let everywhere = identity::of_same_people(&shared.pool, account.workspace, found).await?;
        ruling = echo::judge(own, &send::said(&shared.pool, &everywhere).await?);
    }
    // What has got its outcome meanwhile may have told its name with it.
    if ruling == Ruling::ByHand && !by_identity(shared, account, keys.clone()).await?.is_empty() {
        ruling = Ruling::Ours;
    }
    match ruling {
        Ruling::Ours | Ruling::ByHand if !typed => {
            by_program(shared, account, row, own.send, (keys, names.thread_id)).await
        }
        Ruling::Ours => Ok(Verdict::ignored(ECHO)),
        Ruling::Settles { execution, send, action } => {
            if !settle::echoed(shared, account, (execution, send, action), names).await? {
                return Ok(Verdict::Later);
            }
            let shard = Some(execution.shard());
            Ok(Verdict::Mark { status: InboxStatus::Applied, outcome: ECHO.to_owned(), shard })
        }
        Ruling::NoteAccepted(executions) => deliver_to(shared, row, &executions, &Trigger::ConnectionAccepted).await,
        Ruling::Wait => Ok(Verdict::Later),
        // To the same person in another campaign, for all we know: its outcome will tell the message's id.
        Ruling::ByHand if in_hand.is_some_and(|send| echo::resembles(own, &send)) => Ok(Verdict::Later),
        Ruling::ByHand if own.at.is_some_and(|at| row.received_at.since(at) > STALE) => {
            Ok(Verdict::ignored("written by hand, long ago"))
        }
        Ruling::ByHand => deliver_to(shared, row, found, &Trigger::HumanTookOver { channel: own.channel }).await,
    }
}
