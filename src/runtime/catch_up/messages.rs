//! One read of what an account received and sent: whatever no webhook has told becomes a row of the inbox, with the body and the
//! key that its webhook would have had, and is applied as if it had come by itself. Twice the same changes nothing.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::ReadError;
use crate::domain::account::Account;
use crate::domain::id::InboxId;
use crate::domain::time::Timestamp;
use crate::provider::unipile::webhook;
use crate::provider::{self, Lists, Missed};
use crate::runtime::shared::Shared;
use crate::store::catch_up::{self, Mark};
use crate::store::inbox::{self, NewInbox};
use crate::store::{self, campaign};
use crate::telemetry;

/// Most pages of one read. What is older then is left out, and said so.
const PAGES_MAX: usize = 100;
/// How far before the last read the next one begins: what is written at one time may show a while later.
const OVERLAP: Duration = Duration::from_secs(30 * 60);
/// How long it is waited, in real time, until what was read has been applied. A fact about nobody takes five seconds.
const APPLIED_WAIT: Duration = Duration::from_secs(10);
/// Between two looks whether it has.
const APPLIED_LOOK: Duration = Duration::from_millis(50);

/// How the account stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Well,
    Broken,
}

/// Asks how the account stands; if well, reads what happened since the last time.
pub(super) async fn read(shared: &Arc<Shared>, account: &Account, mark: &Mark) -> Result<Standing, ReadError> {
    let Some(lists) = shared.providers.get(&account.provider).and_then(|p| p.lists()) else {
        return Ok(Standing::Well);
    };
    let started = shared.clock.now();
    if let provider::Standing::Broken(word) = lists.standing(&account.provider_account_id).await? {
        // Said once: it stays broken until it is well again, and a person may have resumed it meanwhile.
        if mark.broken.as_deref() != Some(word.as_str()) {
            tell_status(shared, account, &word).await?;
            catch_up::broken(&shared.pool, account.workspace, account.id, &word).await?;
        }
        return Ok(Standing::Broken);
    }
    let stored = missed(shared, account, lists, mark.messages_read_at - OVERLAP).await?;
    if mark.back_at.is_some() {
        applied(shared, account, &stored).await?;
    }
    // Seen broken, and now it is not: whatever webhook said so was lost. What has been read counts for its gap. Whether it is
    // halted, its row tells: our copy may not know yet.
    if mark.broken.is_some() {
        tell_status(shared, account, "RECONNECTED").await?;
    }
    let seen = mark.broken.as_deref();
    catch_up::messages_read(&shared.pool, account.workspace, account.id, started, seen).await?;
    Ok(Standing::Well)
}

/// Stores what is not in the inbox yet; answers those rows.
async fn missed(
    shared: &Arc<Shared>,
    account: &Account,
    lists: &dyn Lists,
    since: Timestamp,
) -> Result<Vec<InboxId>, ReadError> {
    let mut stored = Vec::new();
    let mut page: Option<String> = None;
    for _ in 0..PAGES_MAX {
        let found = lists.missed(account.channel, &account.provider_account_id, since, page.as_deref()).await?;
        stored.extend(keep(shared, account, lists, found.items).await?);
        match found.next {
            Some(next) => page = Some(next),
            None => return Ok(stored),
        }
    }
    tracing::warn!(account.id = %account.id, pages = PAGES_MAX,
        "an account has more news than one read takes; the oldest are left out");
    Ok(stored)
}

/// Keeps those of a page that no webhook has told.
async fn keep(
    shared: &Arc<Shared>,
    account: &Account,
    lists: &dyn Lists,
    items: Vec<Missed>,
) -> Result<Vec<InboxId>, ReadError> {
    let keys: Vec<String> = items.iter().map(|m| key(account, &m.key)).collect();
    let known = inbox::known(&shared.pool, account.workspace, &keys).await?;
    let mut new = Vec::new();
    for (missed, key) in items.iter().zip(keys) {
        if known.contains(&key) {
            continue;
        }
        if let Some(body) = lists.complete(&account.provider_account_id, missed).await? {
            new.push(row(shared, account, key, body));
        }
    }
    let stored = inbox::store_all(&shared.pool, new).await?;
    if !stored.is_empty() {
        metrics::counter!(telemetry::CATCH_UP_FACTS, "list" => "messages").increment(stored.len() as u64);
        shared.inbox.notify_one();
    }
    Ok(stored)
}

/// Waits until these rows have been dealt with, as far as that is soon.
async fn applied(shared: &Arc<Shared>, account: &Account, rows: &[InboxId]) -> Result<(), store::Error> {
    let waited = tokio::time::timeout(APPLIED_WAIT, async {
        while inbox::waiting(&shared.pool, account.workspace, rows).await? > 0 {
            tokio::time::sleep(APPLIED_LOOK).await;
        }
        Ok(())
    });
    // What takes longer waits for something else, such as a send without an outcome.
    waited.await.unwrap_or(Ok(()))
}

/// A change of the account's status, as its webhook would have told it.
async fn tell_status(shared: &Arc<Shared>, account: &Account, word: &str) -> Result<(), store::Error> {
    let status = json!({
        "AccountStatus": {"account_id": account.provider_account_id, "message": word, "account_type": null},
    });
    let body = status.to_string().into_bytes();
    let parsed = webhook::parse(&body, shared.clock.now());
    let new = row(shared, account, key(account, &parsed.dedupe_key), body);
    inbox::store(&shared.pool, &new).await?;
    shared.inbox.notify_one();
    Ok(())
}

/// The key under which `http` stores the same fact.
fn key(account: &Account, key: &str) -> String {
    format!("{}:{key}", account.provider)
}

fn row(shared: &Shared, account: &Account, dedupe_key: String, body: Vec<u8>) -> NewInbox {
    let now = shared.clock.now();
    NewInbox {
        workspace: account.workspace,
        id: InboxId(campaign::new_id(now)),
        source: account.provider.clone(),
        dedupe_key,
        headers: None,
        body,
        received_at: now,
        shard: None,
    }
}
