//! Looks again at what a send was refused for, because no webhook may ever say that it is over: accounts that are halted, at
//! growing intervals, and a key of ours that a provider refuses.
//!
//! An account that is well at its provider is let in as if its webhook had said so: its gap is read first (`catch_up`). One that
//! is halted again soon after has not been well: its interval goes on growing. A refused key is nobody's account's fault: the
//! channels of that provider stand still, each account's row says why, and all go on when the key is taken again. What is known
//! here is in memory only; after a start it is found out anew. Works on the clock of the process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use futures_util::StreamExt as _;

use super::shared::Shared;
use super::{facts, housekeeping};
use crate::domain::account::{Account, AccountStatus};
use crate::domain::id::AccountId;
use crate::domain::time::Timestamp;
use crate::provider::{Provider, Standing};
use crate::store::send;

/// How often it is looked what is due, in real time.
const ROUND: Duration = Duration::from_secs(1);
/// Accounts that are looked at together.
const AT_ONCE: usize = 4;
/// However fast the clock runs, this long in real time between two looks at the same.
const REAL_REST: Duration = Duration::from_secs(2);
/// First and longest wait before an account is looked at again; doubled each time.
const LOOK_MIN: Duration = Duration::from_secs(60);
const LOOK_MAX: Duration = Duration::from_secs(6 * 3600);
/// An account that is halted again within this of being let in was not well.
const CALM: Duration = Duration::from_secs(24 * 3600);
/// First and longest wait before a key is tried again; doubled each time.
const KEY_MIN: Duration = Duration::from_secs(30);
const KEY_MAX: Duration = Duration::from_secs(300);

/// The providers that refuse our key, and when each is asked again.
#[derive(Debug, Default)]
pub(super) struct RefusedKeys(DashMap<String, Wait>);

/// A time, and the wait that led to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wait {
    at: Timestamp,
    wait: Duration,
}

impl RefusedKeys {
    /// Whether nothing may go through this provider.
    pub(super) fn is_refused(&self, provider: &str) -> bool {
        self.0.contains_key(provider)
    }

    fn hold(&self, provider: &str, wait: Wait) -> bool {
        self.0.insert(provider.to_owned(), wait).is_none()
    }

    fn let_go(&self, provider: &str) {
        self.0.remove(provider);
    }

    fn due(&self, now: Timestamp) -> Vec<(String, Wait)> {
        let due = self.0.iter().filter(|held| held.at <= now);
        due.map(|held| (held.key().clone(), *held.value())).collect()
    }
}

/// How one halted account is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    next: Wait,
    halted: bool,
    /// When it was let in last.
    let_in: Option<Timestamp>,
}

impl Look {
    /// What is known after an account was seen to be halted or not.
    fn seen(known: Option<Self>, halted: bool, now: Timestamp) -> Option<Self> {
        match known {
            Some(look) if halted == look.halted => Some(look),
            // It was let in for good.
            Some(look) if !halted => Some(Self { halted, ..look }),
            Some(look) if look.let_in.is_some_and(|at| now < at + CALM) => {
                Some(Self { halted, next: later(look.next.wait, now, LOOK_MAX), ..look })
            }
            _ if halted => Some(Self { next: Wait { at: now + LOOK_MIN, wait: LOOK_MIN }, halted, let_in: None }),
            _ => None,
        }
    }
}

/// After twice the wait, up to a longest.
fn later(wait: Duration, now: Timestamp, longest: Duration) -> Wait {
    let wait = wait.saturating_mul(2).min(longest);
    Wait { at: now + wait, wait }
}

/// Looks until the runtime ends.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut looks: HashMap<AccountId, Look> = HashMap::new();
    while !shared.is_draining() {
        for (provider, wait) in shared.keys.due(shared.clock.now()) {
            try_key(&shared, &provider, wait).await;
        }
        look(&shared, &mut looks).await;
        tokio::time::sleep(ROUND).await;
    }
}

/// Looks at the halted accounts that are due.
async fn look(shared: &Arc<Shared>, looks: &mut HashMap<AccountId, Look>) {
    let now = shared.clock.now();
    let mut due = Vec::new();
    let accounts = shared.roster.accounts();
    looks.retain(|id, _| accounts.get(*id).is_some());
    for account in accounts.iter() {
        let halted = account.status == AccountStatus::Halted;
        if !halted && !looks.contains_key(&account.id) {
            continue;
        }
        let Some(look) = Look::seen(looks.remove(&account.id), halted, now) else { continue };
        if look.halted && look.next.at <= now && !shared.keys.is_refused(&account.provider) {
            due.push(Arc::clone(account));
        }
        looks.insert(account.id, look);
    }
    let due = futures_util::stream::iter(due).map(|account| async move {
        let well = is_well(shared, &account).await;
        (account.id, well)
    });
    let seen: Vec<(AccountId, bool)> = due.buffer_unordered(AT_ONCE).collect().await;
    let (now, not_before) = (shared.clock.now(), shared.clock.after_real(REAL_REST));
    for (id, well) in seen {
        if let Some(look) = looks.get_mut(&id) {
            look.next = later(look.next.wait, now, LOOK_MAX);
            look.next.at = look.next.at.max(not_before);
            look.let_in = if well { Some(now) } else { look.let_in };
        }
    }
}

/// Asks how an account stands; lets it in if it is well.
async fn is_well(shared: &Arc<Shared>, account: &Account) -> bool {
    let Some(lists) = shared.providers.get(&account.provider).and_then(|p| p.lists()) else { return false };
    match lists.standing(&account.provider_account_id).await {
        Ok(Standing::Well) => {}
        Ok(Standing::Broken(_)) => return false,
        Err(error) => {
            tracing::info!(account.id = %account.id, %error, "cannot look at a halted account; trying again later");
            return false;
        }
    }
    let _in_order = shared.account_status.lock().await;
    match facts::works_again(shared, account).await {
        Ok(()) => {
            tracing::info!(account.id = %account.id, "a halted account is well at its provider; it is let in again");
            shared.roster_changed.notify_one();
            true
        }
        Err(error) => {
            tracing::warn!(account.id = %account.id, %error, "cannot let a halted account in; trying again later");
            false
        }
    }
}

/// A call was refused because of our key. Answers whether all of the provider is held for that: not if the key opens other
/// things, then the account is to blame.
pub(super) async fn holds(shared: &Shared, name: &str, provider: &dyn Provider) -> bool {
    if shared.keys.is_refused(name) {
        return true;
    }
    match provider.opens().await {
        Ok(true) => return false,
        Ok(false) => {}
        Err(error) => tracing::info!(provider = name, %error, "cannot ask whether a key is taken; asking again soon"),
    }
    if shared.keys.hold(name, Wait { at: shared.clock.now() + KEY_MIN, wait: KEY_MIN }) {
        tracing::error!(
            provider = name,
            "the provider refuses our api key: nothing is sent through it until it takes the key \
            again. Renew the key there, or correct {name}.api_key in the settings and start campaignd again"
        );
    }
    note(shared, name).await;
    true
}

/// Says at every account why it does not send.
async fn note(shared: &Shared, name: &str) {
    let reason = format!(
        "{name} refuses our API key: nothing is sent through it until it takes the key again. Renew the key at {name}, or correct \
         {name}.api_key in the settings and start campaignd again"
    );
    if let Err(error) = send::hold_accounts(&shared.pool, name, &reason).await {
        tracing::warn!(provider = name, %error, "cannot note what holds the accounts of a provider");
    }
}

async fn try_key(shared: &Arc<Shared>, name: &str, wait: Wait) {
    let opens = match shared.providers.get(name) {
        Some(provider) => provider.opens().await,
        None => Ok(true),
    };
    if !matches!(opens, Ok(true)) {
        let next = later(wait.wait, shared.clock.now(), KEY_MAX);
        let at = next.at.max(shared.clock.after_real(REAL_REST));
        shared.keys.hold(name, Wait { at, ..next });
        // Those that have become active meanwhile as well.
        return note(shared, name).await;
    }
    tracing::info!(provider = name, "the provider takes our api key again; its accounts go on");
    shared.keys.let_go(name);
    if let Err(error) = send::let_go_accounts(&shared.pool, Some(name)).await {
        tracing::warn!(provider = name, %error, "cannot forget what held the accounts of a provider");
    }
    housekeeping::release(shared);
    // What could not be read meanwhile is read now.
    for account in shared.roster.accounts().iter().filter(|a| a.provider == name) {
        shared.bells.ring(account.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_767_603_600_000_000);

    #[test]
    fn an_account_that_is_halted_each_time_it_is_let_in_is_let_in_ever_less_often() {
        let (mut now, mut known, mut times) = (NOW, None, 0);
        while now < NOW + Duration::from_secs(7 * 24 * 3600) {
            known = Look::seen(known, true, now);
            let mut look = known.expect("it is halted");
            now = look.next.at;
            // Well at the provider, and the next send is refused again.
            look.next = later(look.next.wait, now, LOOK_MAX);
            look.let_in = Some(now);
            known = Look::seen(Some(look), false, now);
            times += 1;
        }
        assert!((20..50).contains(&times), "{times} times in a week");
    }

    #[test]
    fn an_account_that_was_well_for_a_day_is_looked_at_soon_when_it_breaks() {
        let look = Look { next: later(LOOK_MAX, NOW, LOOK_MAX), halted: false, let_in: Some(NOW) };
        let soon = Look::seen(Some(look), true, NOW + CALM).unwrap();
        assert_eq!(soon.next.wait, LOOK_MIN);
        assert_eq!(Look::seen(None, false, NOW), None);
    }
}
