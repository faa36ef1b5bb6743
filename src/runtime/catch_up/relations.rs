//! One scan of an account's connections: whoever of our pending invitations is among them has accepted. Acceptances are told
//! to the executions at once and not through the inbox: the list is still there if that fails, and a second time they are
//! refused as known.

use std::sync::Arc;
use std::time::Duration;

use super::ReadError;
use crate::domain::account::Account;
use crate::domain::trigger::Trigger;
use crate::runtime::shared::Shared;
use crate::runtime::work::Work;
use crate::runtime::{DeliverError, Delivery, deliver_internal};
use crate::store::catch_up::{self, Mark};
use crate::store::identity;
use crate::telemetry;

/// Most pages of one scan: the list is newest first, and each page is a request to LinkedIn.
const PAGES_MAX: usize = 12;
/// How far behind the last scan the next one still looks: the list may be behind, and so may clocks.
const OVERLAP: Duration = Duration::from_secs(48 * 3600);
/// How far back the first scan looks.
const FIRST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Scans the connections that are new since the last time.
pub(super) async fn read(shared: &Arc<Shared>, account: &Account, mark: &Mark) -> Result<(), ReadError> {
    let Some(lists) = shared.providers.get(&account.provider).and_then(|p| p.lists()) else { return Ok(()) };
    let started = shared.clock.now();
    let since = mark.relations_read_at.map_or(started - FIRST, |at| at - OVERLAP);
    let mut page: Option<String> = None;
    for _ in 0..PAGES_MAX {
        let found = lists.relations(&account.provider_account_id, page.as_deref()).await?;
        // Newest first: behind the first that is old enough are only older ones.
        let old = found.items.iter().position(|r| r.since.is_some_and(|at| at < since));
        let news = found.items.get(..old.unwrap_or(found.items.len())).unwrap_or_default();
        let people: Vec<(String, Option<String>)> =
            news.iter().map(|r| (r.recipient_id.clone(), r.public_identifier.clone())).collect();
        tell(shared, account, &people).await?;
        match found.next {
            Some(next) if old.is_none() => page = Some(next),
            _ => {
                catch_up::relations_read(&shared.pool, account.workspace, account.id, started).await?;
                return Ok(());
            }
        }
    }
    tracing::warn!(account.id = %account.id, pages = PAGES_MAX,
        "an account has more new connections than one scan reads; the oldest are left out");
    catch_up::relations_read(&shared.pool, account.workspace, account.id, started).await?;
    Ok(())
}

/// Tells those who had invited one of these people.
async fn tell(shared: &Arc<Shared>, account: &Account, people: &[(String, Option<String>)]) -> Result<(), ReadError> {
    if people.is_empty() {
        return Ok(());
    }
    let invited = identity::invited(&shared.pool, account.workspace, account.id, people).await?;
    let mut taken = true;
    for execution in invited {
        match deliver_internal(shared, execution, Work::Trigger(Trigger::ConnectionAccepted, None)).await {
            Ok(Delivery::Applied { .. }) => {
                metrics::counter!(telemetry::CATCH_UP_FACTS, "list" => "relations").increment(1);
            }
            Ok(Delivery::Rejected { .. }) | Err(DeliverError::NotFound(_)) => {}
            // Others do not wait for it; the scan is made again.
            Err(DeliverError::Busy | DeliverError::Stopping | DeliverError::Unrunnable(..)) => taken = false,
        }
    }
    if taken { Ok(()) } else { Err(ReadError::NotTaken) }
}
