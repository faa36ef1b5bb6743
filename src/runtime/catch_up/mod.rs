//! Makes up for webhooks that were lost: reads each account's lists back from its provider, at times that look random, and at
//! once when an account was reconnected. Such an account sends again only after its gap has been read, because somebody may
//! have answered meanwhile.
//!
//! One task an account, so that nothing of an account is read twice at once, and few of them act together. How far each has
//! been read is in `account_catch_up`; an account that is overdue after a start is read then. What fails is tried again, later
//! each time. Works on the clock of the process.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use super::Options;
use super::shared::Shared;
use crate::domain::account::{Account, AccountStatus, Channel};
use crate::domain::id::AccountId;
use crate::domain::rhythm::{MESSAGES, RELATIONS};
use crate::domain::time::Timestamp;
use crate::store::catch_up::{self, Mark};
use crate::telemetry;

mod messages;
mod relations;

/// How often it is looked whether there are new accounts.
const ACCOUNTS_LOOK: Duration = Duration::from_secs(5);
/// Accounts that are read at once.
const READERS: usize = 4;
/// However fast the clock runs, an account rests this long in real time between two reads.
const REAL_REST: Duration = Duration::from_secs(2);
/// First and longest wait after a read that failed; doubled each time.
const RETRY_MIN: Duration = Duration::from_secs(30);
const RETRY_MAX: Duration = Duration::from_secs(30 * 60);
/// Reads that may fail in a row before an account that is back sends again all the same.
const BACK_TRIES: u32 = 5;

/// An account that was not read for that long when the program starts is read before it sends. Each is read twice an hour.
const BEHIND: Duration = Duration::from_secs(3600);

/// Wakes the reader of an account.
#[derive(Debug, Default)]
pub(super) struct Bells(DashMap<AccountId, Arc<Notify>>);

impl Bells {
    /// Has the account read at once. A ring before the reader listens is kept.
    pub(super) fn ring(&self, account: AccountId) {
        self.of(account).notify_one();
    }

    fn of(&self, account: AccountId) -> Arc<Notify> {
        Arc::clone(&self.0.entry(account).or_default())
    }
}

/// Why a read did not come to its end.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    #[error(transparent)]
    Provider(#[from] crate::provider::FindError),
    #[error("an execution could not take what was read")]
    NotTaken,
}

/// Before anything is sent: who may have answered while nothing ran is not written to on. An account whose lists were not read for
/// long is treated as one that was reconnected.
pub(super) async fn hold_behind(options: &Options, now: Timestamp) -> Result<(), crate::store::Error> {
    let providers = options.providers.iter().filter(|(_, provider)| provider.lists().is_some());
    let providers: Vec<&str> = providers.map(|(name, _)| name.as_str()).collect();
    let behind = catch_up::behind(&options.pool, &providers, now - BEHIND, now).await?;
    if behind > 0 {
        tracing::warn!(
            accounts = behind,
            "webhooks may have been lost while nothing ran; accounts send again once that is read"
        );
    }
    Ok(())
}

/// Watches the roster and keeps one reader an account.
pub(super) async fn run(shared: Arc<Shared>) {
    let seats = Arc::new(Semaphore::new(READERS));
    let mut readers: JoinSet<()> = JoinSet::new();
    let mut reading: HashMap<tokio::task::Id, AccountId> = HashMap::new();
    while !shared.is_draining() {
        let read_already: HashSet<AccountId> = reading.values().copied().collect();
        let new: Vec<_> = shared.roster.accounts().iter().filter(|a| !read_already.contains(&a.id)).cloned().collect();
        for (account, mark) in begin(&shared, new).await {
            let task = readers.spawn(read(Arc::clone(&shared), account, mark, Arc::clone(&seats)));
            reading.insert(task.id(), account);
        }
        tokio::time::sleep(ACCOUNTS_LOOK).await;
        while let Some(ended) = readers.try_join_next_with_id() {
            let task = match ended {
                Ok((task, ())) => task,
                Err(crash) => {
                    tracing::error!(%crash, "the reader of an account crashed; starting it again");
                    metrics::counter!(telemetry::ACTOR_RESTARTS).increment(1);
                    crash.id()
                }
            };
            reading.remove(&task);
        }
    }
}

/// How far those of these accounts have been read that have lists: one statement, however many there are at a start.
async fn begin(shared: &Shared, accounts: Vec<Arc<Account>>) -> Vec<(AccountId, Mark)> {
    let has_lists = |a: &Arc<Account>| shared.providers.get(&a.provider).is_some_and(|p| p.lists().is_some());
    let keys: Vec<_> = accounts.iter().filter(|a| has_lists(a)).map(|a| (a.workspace, a.id)).collect();
    catch_up::marks(&shared.pool, &keys, shared.clock.now()).await.unwrap_or_else(|error| {
        tracing::warn!(%error, accounts = keys.len(), "cannot read how far accounts were read; trying again");
        Vec::new()
    })
}

/// What is due for an account, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    messages: Timestamp,
    /// `None` where there is nothing to scan.
    relations: Option<Timestamp>,
}

impl Plan {
    /// What follows from how far the account has been read.
    fn of(account: &Account, mark: &Mark) -> Self {
        let scans = account.channel == Channel::Linkedin && account.status == AccountStatus::Active;
        // The first scan is a while after the account was made, like every other. Not after its messages were read: that time
        // moves on, and a scan that failed would be put off with it.
        let scanned = mark.relations_read_at.unwrap_or_else(|| account.since.min(mark.messages_read_at));
        Self {
            messages: MESSAGES.next(account.id, mark.messages_read_at),
            relations: scans.then(|| RELATIONS.next(account.id, scanned)),
        }
    }

    fn first(self) -> Timestamp {
        self.relations.map_or(self.messages, |relations| relations.min(self.messages))
    }
}

/// Reads one account for ever; ends when it is gone from the roster, or the runtime ends. `mark`: how far it was read.
async fn read(shared: Arc<Shared>, id: AccountId, mark: Mark, seats: Arc<Semaphore>) {
    let bell = shared.bells.of(id);
    let (mut failures, mut broken) = (0_u32, 0_u32);
    let mut not_before = shared.clock.now();
    let mut known = Some(mark);
    loop {
        let Some(account) = shared.roster.accounts().get(id) else { return };
        let mark = match known.take() {
            Some(mark) => mark,
            None => match catch_up::mark(&shared.pool, account.workspace, id, shared.clock.now()).await {
                Ok(mark) => mark,
                Err(error) => {
                    tracing::warn!(account.id = %id, %error, "cannot read how far an account was read; trying again");
                    tokio::time::sleep(ACCOUNTS_LOOK).await;
                    continue;
                }
            },
        };
        let plan = Plan::of(&account, &mark);
        let due = if mark.back_at.is_some() { shared.clock.now() } else { plan.first() };
        tokio::select! {
            () = shared.clock.sleep_until(due.max(not_before)) => {}
            // Rung for an account that is back: what failed before must not hold it up.
            () = bell.notified() => not_before = shared.clock.now(),
            // Its status may have changed, which changes what is due.
            () = tokio::time::sleep(ACCOUNTS_LOOK) => {
                known = Some(mark);
                continue;
            }
        }
        if shared.is_draining() {
            return;
        }
        if account.status == AccountStatus::Disabled {
            tokio::time::sleep(ACCOUNTS_LOOK).await;
            continue;
        }
        let Ok(_seat) = seats.acquire().await else { return };
        let ended = turn(&shared, &account, failures).await;
        (failures, broken) = match ended {
            Ended::Read => (0, 0),
            Ended::Failed => (failures.saturating_add(1), 0),
            // No try to read anything.
            Ended::Broken => (0, broken.saturating_add(1)),
        };
        let rest = match failures.max(broken) {
            0 => Duration::ZERO,
            n => RETRY_MIN.saturating_mul(1 << (n - 1).min(10)).min(RETRY_MAX),
        };
        not_before = (shared.clock.now() + rest).max(shared.clock.after_real(REAL_REST));
    }
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// All that was due was read.
    Read,
    /// Some of it was not.
    Failed,
    /// The account does not work: it is asked less and less often, until it is said to.
    Broken,
}

impl Ended {
    const fn of(all: bool) -> Self {
        if all { Self::Read } else { Self::Failed }
    }
}

/// Reads what is due.
async fn turn(shared: &Arc<Shared>, account: &Arc<Account>, failures: u32) -> Ended {
    let now = shared.clock.now();
    // Again: it may have been rung for meanwhile.
    let mark = match catch_up::mark(&shared.pool, account.workspace, account.id, now).await {
        Ok(mark) => mark,
        Err(error) => return Ended::of(said(account, "messages", Err(error.into()))),
    };
    let plan = Plan::of(account, &mark);
    let back = mark.back_at.is_some();
    let mut ended = true;
    if back || plan.messages <= now {
        let read = messages::read(shared, account, &mark).await;
        let standing = read.as_ref().ok().copied();
        ended &= said(account, "messages", read.map(drop));
        if standing == Some(messages::Standing::Broken) {
            return Ended::Broken;
        }
    }
    // An account that is back is not active yet: its connections are read with the rest of its gap.
    let scans = back && account.channel == Channel::Linkedin;
    if scans || plan.relations.is_some_and(|at| at <= now) {
        ended &= said(account, "relations", relations::read(shared, account, &mark).await);
    }
    if back
        && (ended || failures + 1 >= BACK_TRIES)
        && let Err(error) = resume(shared, account, ended).await
    {
        tracing::warn!(account.id = %account.id, %error, "cannot let an account send again; trying again later");
        return Ended::Failed;
    }
    Ended::of(ended)
}

/// Lets an account send again whose gap has been read, or cannot be.
async fn resume(shared: &Arc<Shared>, account: &Account, read: bool) -> Result<(), crate::store::Error> {
    let _in_order = shared.account_status.lock().await;
    if catch_up::resume(&shared.pool, account.workspace, account.id).await? {
        if read {
            tracing::info!(account.id = %account.id, "the account is back and its gap is read; it sends again");
        } else {
            tracing::warn!(account.id = %account.id, "the account is back and sends again; its gap could not be read");
        }
        shared.roster_changed.notify_one();
    }
    Ok(())
}

/// Notes how a read ended.
fn said(account: &Account, list: &'static str, read: Result<(), ReadError>) -> bool {
    let outcome = if read.is_ok() { "done" } else { "failed" };
    metrics::counter!(telemetry::CATCH_UP_READS, "list" => list, "outcome" => outcome).increment(1);
    if let Err(error) = &read {
        tracing::warn!(account.id = %account.id, list, %error, "cannot read an account back; trying again later");
    }
    read.is_ok()
}
