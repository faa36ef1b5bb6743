//! Background loops: rows of other programs, changes of campaigns and accounts, the lease, the wall clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorRef};

use super::backlog::Slot;
use super::channel::{ChannelActor, ChannelMessage};
use super::shard::ShardMessage;
use super::shared::Shared;
use crate::domain::account::Account;
use crate::domain::id::{AccountId, CampaignId, ExecutionId};
use crate::domain::send::SendStatus;
use crate::store::send::{self, OpenSend};
use crate::store::{self, execution, migrate};
use crate::telemetry;

/// Poll for arrivals, in case a notification was lost.
const ARRIVALS_POLL: Duration = Duration::from_secs(2);
/// Arrivals taken in one go.
const ARRIVALS_BATCH: i64 = 10_000;
/// Before every id.
const START: ExecutionId = ExecutionId(uuid::Uuid::nil());
/// People of a campaign that becomes active who are handed over together.
const ACTIVATED_AT_ONCE: usize = 4_096;
/// Poll for campaigns and accounts that somebody changed in the tables.
const ROSTER_POLL: Duration = Duration::from_secs(5);
/// How often the wall clock is compared with the monotonic one.
const CLOCK_CHECK: Duration = Duration::from_secs(1);
/// A difference that counts as a jump.
const CLOCK_JUMP: Duration = Duration::from_secs(2);
/// How often partitions are looked after.
const PARTITIONS_EVERY: Duration = Duration::from_secs(6 * 3600);
/// Pause before a crashed channel actor is replaced.
const CHANNEL_RESTART_WAIT: Duration = Duration::from_millis(200);

/// Notifications of arrivals become hints; the poll is in [`arrivals`].
pub(super) async fn listen(shared: Arc<Shared>) {
    let mut listener = loop {
        match execution::listen(&shared.pool).await {
            Ok(listener) => break listener,
            Err(error) => {
                tracing::warn!(%error, "cannot listen for arrivals; polling until it works");
                tokio::time::sleep(ARRIVALS_POLL).await;
            }
        }
    };
    while listener.recv().await.is_ok() {
        shared.arrivals.notify_one();
    }
}

/// Picks up rows that other programs (and our own uploads) have made.
pub(super) async fn arrivals(shared: Arc<Shared>) {
    loop {
        let _ = tokio::time::timeout(ARRIVALS_POLL, shared.arrivals.notified()).await;
        if shared.is_draining() {
            return;
        }
        let mut after = START;
        loop {
            match hand_over(&shared, after).await {
                Ok(Some(last)) => after = last,
                // Once more from the start: ids of other programs come in any order.
                Ok(None) if after != START => after = START,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "cannot look for arrivals; trying again");
                    break;
                }
            }
        }
    }
}

/// Hands over the next arrivals behind an id. Answers the last of them; `None` when there are no more.
async fn hand_over(shared: &Shared, after: ExecutionId) -> Result<Option<ExecutionId>, store::Error> {
    shared.room_to_load().await;
    let arrivals = execution::arrivals(&shared.pool, &shared.lease, after, ARRIVALS_BATCH).await?;
    for (id, campaign) in &arrivals {
        // Nobody of a draft is made resident, so a large upload costs no memory. When its campaign becomes active, the roster
        // says so first and everybody of it is read then: none falls between.
        let asleep = campaign.and_then(|c| shared.roster.campaign(c)).is_some_and(|c| !c.is_active());
        if !asleep {
            shared.to_shard(*id, ShardMessage::Activate(*id));
        }
    }
    let ids: Vec<ExecutionId> = arrivals.into_iter().map(|(id, _)| id).collect();
    if !ids.is_empty() {
        execution::forget_arrivals(&shared.pool, &shared.lease, &ids).await?;
    }
    Ok(ids.last().copied())
}

/// Keeps the copy of campaigns and accounts true.
pub(super) async fn roster(shared: Arc<Shared>) {
    loop {
        let _ = tokio::time::timeout(ROSTER_POLL, shared.roster_changed.notified()).await;
        if shared.is_draining() {
            return;
        }
        if let Err(error) = refresh(&shared, true).await {
            tracing::warn!(%error, "cannot read campaigns and accounts; trying again");
        }
    }
}

/// Reads campaigns and accounts once and acts on what changed. `activate`: also reads the executions of campaigns that run
/// now; at the start rehydration does that.
pub(super) async fn refresh(shared: &Arc<Shared>, activate: bool) -> Result<(), store::Error> {
    let changes = shared.roster.refresh(None).await?;
    for account in &changes.accounts {
        if let Some(channel) = shared.channels.get(&account.id) {
            let _ = channel.cast(ChannelMessage::Account(Arc::clone(account)));
        }
    }
    let acted = act_on(shared, if activate { &changes.activated } else { &[] }).await;
    if acted.is_err() {
        shared.roster.unannounce(&changes.activated);
    }
    if !changes.accounts.is_empty() || !changes.activated.is_empty() {
        release(shared);
    }
    acted
}

/// What can fail: every account has a channel, and the executions of campaigns that run now are resident.
async fn act_on(shared: &Arc<Shared>, activated: &[CampaignId]) -> Result<(), store::Error> {
    let accounts = shared.roster.accounts();
    let without = accounts.iter().filter(|a| !shared.channels.contains_key(&a.id)).map(Arc::clone).collect();
    start_channels(shared, without).await?;
    for campaign in activated {
        activate(shared, *campaign).await?;
    }
    Ok(())
}

/// Everybody of a campaign that has become active: listed now, handed over as fast as rows are read.
async fn activate(shared: &Arc<Shared>, campaign: CampaignId) -> Result<(), store::Error> {
    let everybody = execution::open_of_campaign(&shared.pool, campaign).await?;
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        for some in everybody.chunks(ACTIVATED_AT_ONCE) {
            shared.room_to_load().await;
            for id in some {
                shared.to_shard(*id, ShardMessage::Activate(*id));
            }
        }
    });
    Ok(())
}

/// What was held back may go on.
pub(super) fn release(shared: &Shared) {
    shared.releases.fetch_add(1, SeqCst);
    shared.tell_all(|| ShardMessage::Release);
    for channel in &shared.channels {
        let _ = channel.cast(ChannelMessage::Release);
    }
}

/// Starts the channel actors of these accounts with what may hold their gates. What else is open for them is read beside
/// that, in one pass over all executions, so that a start does not wait for it.
async fn start_channels(shared: &Arc<Shared>, accounts: Vec<Arc<Account>>) -> Result<(), store::Error> {
    if accounts.is_empty() {
        return Ok(());
    }
    let ids: Vec<AccountId> = accounts.iter().map(|a| a.id).collect();
    let mut open: HashMap<AccountId, Vec<OpenSend>> = HashMap::new();
    for send in send::in_flight(&shared.pool).await? {
        open.entry(send.account).or_default().push(send);
    }
    // Hints of what is committed from here on are kept in the backlogs.
    for account in accounts {
        let open = open.remove(&account.id).unwrap_or_default();
        start_channel(shared, account, open).await;
    }
    tokio::spawn(tell_all(Arc::clone(shared), ids));
    Ok(())
}

/// Hints at everything that is open for these accounts.
async fn tell_all(shared: Arc<Shared>, accounts: Vec<AccountId>) {
    for send in open_sends(&shared, &accounts).await {
        // Not through the line: it is read back while the account rests.
        if send.status != SendStatus::Pending
            && let Some(channel) = shared.channels.get(&send.account)
        {
            let _ = channel.cast(ChannelMessage::Open(vec![send]));
            continue;
        }
        let flow = shared.roster.flow(send.campaign, send.flow_version).await.ok();
        let slot = Slot::of_open(send.action, send.step, flow.as_deref());
        shared.backlog(send.account).hint(slot, (send.workspace, send.id));
    }
}

/// What is open for these accounts, however long it takes Postgres to answer.
async fn open_sends(shared: &Shared, accounts: &[AccountId]) -> Vec<OpenSend> {
    loop {
        match send::open_sends(&shared.pool, Some(accounts)).await {
            Ok(open) => return open,
            Err(_) if shared.is_draining() => return Vec::new(),
            Err(error) => tracing::warn!(%error, "cannot read the open sends; trying again"),
        }
        tokio::time::sleep(CHANNEL_RESTART_WAIT).await;
    }
}

/// Starts one channel actor and watches over it.
async fn start_channel(shared: &Arc<Shared>, account: Arc<Account>, open: Vec<OpenSend>) {
    let id = account.id;
    match ChannelActor::spawn(None, ChannelActor, (Arc::clone(shared), account, open)).await {
        Ok((actor, ended)) => {
            shared.channels.insert(id, actor);
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                let _ = ended.await;
                shared.backlog(id).detach();
                if shared.is_draining() {
                    return;
                }
                tracing::error!(account.id = %id, "a channel actor ended; starting it again from the table");
                metrics::counter!(telemetry::ACTOR_RESTARTS).increment(1);
                tokio::time::sleep(CHANNEL_RESTART_WAIT).await;
                // The next refresh finds an account without a channel.
                shared.channels.remove(&id);
                shared.roster_changed.notify_one();
            });
        }
        Err(error) => tracing::error!(account.id = %id, %error, "cannot start a channel actor"),
    }
}

/// Tells a channel everything that is open for its account: hints were lost while there was no channel.
pub(super) async fn tell_again(shared: Arc<Shared>, account: AccountId, channel: ActorRef<ChannelMessage>) {
    let open = open_sends(&shared, &[account]).await;
    let _ = channel.cast(ChannelMessage::Open(open));
}

/// Keeps partitions ahead, and notices jumps of the wall clock.
pub(super) async fn watch(shared: Arc<Shared>) {
    let (mut wall, mut real) = (shared.clock.now(), Instant::now());
    let mut partitions = Instant::now();
    while !shared.is_draining() {
        tokio::time::sleep(CLOCK_CHECK).await;
        let (now, elapsed) = (shared.clock.now(), real.elapsed());
        let expected = wall + elapsed.mul_f64(shared.clock.scale());
        let off = shared.clock.real(now.since(expected).max(expected.since(now)));
        if off > CLOCK_JUMP {
            let direction = if now > expected { "forward" } else { "backward" };
            metrics::counter!(telemetry::CLOCK_JUMPS, "direction" => direction).increment(1);
            tracing::warn!(jump_seconds = off.as_secs(), "the wall clock jumped; all timers are armed anew");
            shared.tell_all(|| ShardMessage::Rearm);
            for channel in &shared.channels {
                let _ = channel.cast(ChannelMessage::Rearm);
            }
        }
        (wall, real) = (now, Instant::now());
        if partitions.elapsed() > PARTITIONS_EVERY {
            partitions = Instant::now();
            if let Err(error) = migrate::ensure_partitions(&shared.pool, now, migrate::MONTHS_AHEAD).await {
                tracing::warn!(%error, "cannot make next months' partitions; the default partition takes their rows");
            }
        }
    }
}
