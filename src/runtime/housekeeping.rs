//! Background loops: rows of other programs, changes of campaigns and accounts, the lease, the wall clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use ractor::Actor;

use super::channel::{ChannelActor, ChannelMessage};
use super::shard::ShardMessage;
use super::shared::Shared;
use crate::domain::account::Account;
use crate::domain::id::{AccountId, CampaignId};
use crate::store::send::{self, OpenSend};
use crate::store::{self, execution, migrate};
use crate::telemetry;

/// Poll for arrivals, in case a notification was lost.
const ARRIVALS_POLL: Duration = Duration::from_secs(2);
/// Arrivals taken in one go.
const ARRIVALS_BATCH: i64 = 10_000;
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
        loop {
            match hand_over(&shared).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot look for arrivals; trying again");
                    break;
                }
            }
        }
    }
}

async fn hand_over(shared: &Shared) -> Result<usize, store::Error> {
    let ids = execution::arrivals(&shared.pool, &shared.lease, ARRIVALS_BATCH).await?;
    for id in &ids {
        // The row tells whether its campaign is active: an actor of a draft campaign just waits.
        shared.to_shard(*id, ShardMessage::Activate(*id));
    }
    if !ids.is_empty() {
        execution::forget_arrivals(&shared.pool, &shared.lease, &ids).await?;
    }
    Ok(ids.len())
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

/// Everybody of a campaign that has become active.
async fn activate(shared: &Arc<Shared>, campaign: CampaignId) -> Result<(), store::Error> {
    for id in execution::open_of_campaign(&shared.pool, campaign).await? {
        shared.to_shard(id, ShardMessage::Activate(id));
    }
    Ok(())
}

/// What was held back may go on.
fn release(shared: &Shared) {
    shared.releases.fetch_add(1, SeqCst);
    for shard in shared.shards.get().into_iter().flatten() {
        let _ = shard.cast(ShardMessage::Release);
    }
    for channel in &shared.channels {
        let _ = channel.cast(ChannelMessage::Release);
    }
}

/// Starts the channel actors of these accounts with what is open for them: one read for all.
async fn start_channels(shared: &Arc<Shared>, accounts: Vec<Arc<Account>>) -> Result<(), store::Error> {
    if accounts.is_empty() {
        return Ok(());
    }
    let ids: Vec<AccountId> = accounts.iter().map(|a| a.id).collect();
    let mut open: HashMap<AccountId, Vec<OpenSend>> = HashMap::new();
    for send in send::open_sends(&shared.pool, Some(&ids)).await? {
        open.entry(send.account).or_default().push(send);
    }
    for account in accounts {
        let open = open.remove(&account.id).unwrap_or_default();
        start_channel(shared, account, open).await;
    }
    // What was committed between the read above and now found no channel to be told.
    tokio::spawn(tell_again(Arc::clone(shared), ids));
    Ok(())
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

/// Hints channels at everything that is open for their accounts.
async fn tell_again(shared: Arc<Shared>, accounts: Vec<AccountId>) {
    loop {
        match send::open_sends(&shared.pool, Some(&accounts)).await {
            Ok(open) => return open.iter().for_each(|s| shared.hint_channel(s.account, (s.workspace, s.id))),
            Err(_) if shared.is_draining() => return,
            Err(error) => tracing::warn!(%error, "cannot read the open sends; trying again"),
        }
        tokio::time::sleep(CHANNEL_RESTART_WAIT).await;
    }
}

/// Samples what is only known by looking, keeps partitions ahead, and notices jumps of the wall clock.
pub(super) async fn watch(shared: Arc<Shared>) {
    let (mut wall, mut real) = (shared.clock.now(), Instant::now());
    let mut partitions = Instant::now();
    while !shared.is_draining() {
        tokio::time::sleep(CLOCK_CHECK).await;
        #[expect(clippy::cast_precision_loss, reason = "a gauge of a count")]
        metrics::gauge!(telemetry::RESIDENTS).set(shared.residents.load(Relaxed) as f64);
        let (now, elapsed) = (shared.clock.now(), real.elapsed());
        let expected = wall + elapsed.mul_f64(shared.clock.scale());
        let off = shared.clock.real(now.since(expected).max(expected.since(now)));
        if off > CLOCK_JUMP {
            tracing::warn!(jump_seconds = off.as_secs(), "the wall clock jumped; all timers are armed anew");
            for shard in shared.shards.get().into_iter().flatten() {
                let _ = shard.cast(ShardMessage::Rearm);
            }
            for channel in &shared.channels {
                let _ = channel.cast(ChannelMessage::Wake);
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
