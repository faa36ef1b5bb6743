//! Reads rows for the shards: in batches, never one query per prospect.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc;

use super::roster::FlowError;
use super::shard::ShardMessage;
use super::shared::{SCANNED_MAX, Shared};
use super::work::{LoadResult, Runnable};
use crate::domain::execution::Execution;
use crate::domain::id::{CampaignId, ExecutionId};
use crate::domain::time::Timestamp;
use crate::store::{self, execution as rows};
use crate::telemetry;

/// Rows read by one query.
const BATCH: usize = 1000;
/// Wait before a failed read is tried again.
const RETRY_WAIT: Duration = Duration::from_millis(200);
/// Overdue executions that are read before all others at a start: more than the accounts of one machine send in a second.
const OVERDUE_FIRST: i64 = 10_000;

/// Serves load requests until all senders are gone.
pub(super) async fn run(shared: Arc<Shared>, mut requests: mpsc::UnboundedReceiver<ExecutionId>) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let asked = requests.recv_many(&mut batch, BATCH).await;
        if asked == 0 {
            return;
        }
        batch.sort_unstable();
        batch.dedup();
        // In a task of its own: whatever happens to one batch, those who wait for it are answered, and the next is read.
        let reading = tokio::spawn(read(Arc::clone(&shared), batch.clone()));
        if let Err(panic) = reading.await {
            tracing::error!(%panic, rows = batch.len(), "reading executions crashed; they are left alone");
            let mut by_shard = ByShard::new(&shared);
            for id in &batch {
                by_shard.push(*id, LoadResult::Unrunnable("reading its row crashed".to_owned()));
            }
            by_shard.flush().await;
        }
        batch.clear();
        shared.loading.fetch_sub(asked, Relaxed);
        shared.loaded.notify_waiters();
    }
}

async fn read(shared: Arc<Shared>, batch: Vec<ExecutionId>) {
    let loaded = loop {
        match rows::load(&shared.pool, &batch).await {
            Ok(loaded) => break loaded,
            Err(error) => {
                tracing::warn!(%error, rows = batch.len(), "cannot read executions; trying again");
                tokio::time::sleep(RETRY_WAIT).await;
            }
        }
    };
    let mut missing: HashSet<ExecutionId> = batch.into_iter().collect();
    let mut by_shard = ByShard::new(&shared);
    for row in loaded {
        missing.remove(&row.id());
        by_shard.add(row).await;
    }
    for id in missing {
        by_shard.push(id, LoadResult::Absent);
    }
    by_shard.flush().await;
}

/// Brings every open execution of the active campaigns back: as many live as there may be, the others parked. Bulk reads
/// over one snapshot, by a few readers at once, never faster than the shards take them. Writes nothing.
///
/// What is overdue is read first, oldest first, and alone: the scan beside it takes the cores that the first due work waits for.
/// `progress` is called now and then with the number of rows read so far and of those there may be.
pub(super) async fn rehydrate(shared: &Arc<Shared>, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<u64, store::Error> {
    let scan = rows::Scan::open(&shared.pool).await?;
    let (next, read) = (AtomicU32::new(0), AtomicU64::new(0));
    let reader = async || {
        loop {
            let range = next.fetch_add(1, Relaxed);
            if range >= scan.ranges() {
                return Ok::<(), store::Error>(());
            }
            let rows = if shared.is_full() {
                fall_asleep(shared, &scan, range).await?
            } else {
                live(shared, &scan, range).await?
            };
            progress(read.fetch_add(rows, Relaxed) + rows, scan.estimate());
        }
    };
    let overdue = overdue_first(shared).await;
    let (a, b) = tokio::join!(reader(), reader());
    scan.close().await;
    overdue?;
    a?;
    b?;
    // All of them are in their shards when every permit is back.
    let _ = shared.scanned.acquire_many(SCANNED_MAX).await;
    shared.tell_all(|| ShardMessage::ScanDone);
    Ok(read.into_inner())
}

/// Has what is overdue read by id, oldest first. The rest of it comes with the scan, and waits its turn by its due time in the
/// line of its account.
async fn overdue_first(shared: &Shared) -> Result<(), store::Error> {
    for id in rows::overdue(&shared.pool, shared.clock.now(), OVERDUE_FIRST).await? {
        shared.to_shard(id, ShardMessage::Activate(id));
    }
    Ok(())
}

async fn live(shared: &Arc<Shared>, scan: &rows::Scan, range: u32) -> Result<u64, store::Error> {
    let found = scan.rows(range).await?;
    let read = found.len() as u64;
    let mut by_shard = ByShard::new(shared);
    for row in found {
        if let rows::Loaded::Ready { execution, .. } = &row
            && !shared.roster.campaign(execution.campaign).is_some_and(|c| c.is_active())
        {
            continue;
        }
        by_shard.add(row).await;
    }
    metrics::counter!(telemetry::REHYDRATED).increment(read);
    by_shard.hand_over_scanned().await;
    Ok(read)
}

async fn fall_asleep(shared: &Shared, scan: &rows::Scan, range: u32) -> Result<u64, store::Error> {
    let found = scan.wakes(range).await?;
    let read = found.len() as u64;
    let mut shards: HashMap<u16, Vec<(ExecutionId, Option<Timestamp>)>> = HashMap::new();
    for row in found {
        let (rows::Asleep::Parked { id, campaign, .. } | rows::Asleep::Whole { id, campaign }) = row;
        if !shared.roster.campaign(campaign).is_some_and(|c| c.is_active()) {
            continue;
        }
        match row {
            rows::Asleep::Parked { id, wake, .. } => shards.entry(id.shard()).or_default().push((id, wake)),
            rows::Asleep::Whole { .. } => shared.to_shard(id, ShardMessage::Activate(id)),
        }
    }
    metrics::counter!(telemetry::REHYDRATED).increment(read);
    for rows in shards.into_values() {
        if let (Some((id, _)), Some(permit)) = (rows.first(), shared.scan_permit(rows.len()).await) {
            shared.to_shard(*id, ShardMessage::Asleep(rows, permit));
        }
    }
    Ok(read)
}

/// Rows on their way to their shards, a message a shard; and those that cannot run.
struct ByShard<'a> {
    shared: &'a Shared,
    shards: HashMap<u16, Vec<(ExecutionId, LoadResult)>>,
    /// Campaigns whose flow could not be read a moment ago: asked once, not once a row.
    unreadable: HashMap<(CampaignId, i32), String>,
    notes: Vec<(ExecutionId, String)>,
}

impl<'a> ByShard<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, shards: HashMap::new(), unreadable: HashMap::new(), notes: Vec::new() }
    }

    async fn add(&mut self, row: rows::Loaded) {
        let (id, result) = match row {
            rows::Loaded::Ready { execution, .. } => (execution.id, self.with_flow(*execution).await),
            rows::Loaded::Undecodable { id, reason } => (id, LoadResult::Unrunnable(reason)),
        };
        if let LoadResult::Unrunnable(why) = &result {
            self.notes.push((id, why.clone()));
            if self.notes.len() >= BATCH {
                self.note().await;
            }
        }
        self.push(id, result);
    }

    async fn with_flow(&mut self, mut execution: Execution) -> LoadResult {
        let pinned = (execution.campaign, execution.flow_version);
        if let Some(why) = self.unreadable.get(&pinned) {
            return LoadResult::Unrunnable(why.clone());
        }
        if self.shared.roster.campaign(execution.campaign).is_none() {
            // Made by another program a moment ago, perhaps with accounts of its own.
            self.shared.roster_changed.notify_one();
        }
        loop {
            match self.shared.roster.flow_of(&mut execution).await {
                Ok((campaign, flow)) => return LoadResult::Ready(Box::new(Runnable { execution, campaign, flow })),
                Err(FlowError::Unrunnable(why)) => {
                    tracing::warn!(campaign.id = %execution.campaign, why, "executions of this campaign cannot run");
                    self.unreadable.insert(pinned, why.clone());
                    return LoadResult::Unrunnable(why);
                }
                Err(FlowError::Store(error)) if self.shared.is_draining() => {
                    return LoadResult::Unrunnable(error.to_string());
                }
                Err(FlowError::Store(error)) => {
                    tracing::warn!(%error, "cannot read a flow; trying again");
                    tokio::time::sleep(RETRY_WAIT).await;
                }
            }
        }
    }

    fn push(&mut self, id: ExecutionId, result: LoadResult) {
        self.shards.entry(id.shard()).or_default().push((id, result));
    }

    /// Says why in the rows, for whoever looks; they keep their place.
    async fn note(&mut self) {
        let notes = std::mem::take(&mut self.notes);
        if let Err(error) = rows::mark_unrunnable(&self.shared.pool, &self.shared.lease, &notes).await {
            tracing::warn!(rows = notes.len(), %error, "cannot note why executions do not run");
        }
    }

    /// Hands over what a scan has read, as fast as the shards take it.
    async fn hand_over_scanned(mut self) {
        for rows in std::mem::take(&mut self.shards).into_values() {
            if let (Some((id, _)), Some(permit)) = (rows.first(), self.shared.scan_permit(rows.len()).await) {
                let id = *id;
                self.shared.to_shard(id, ShardMessage::Scanned(rows, permit));
            }
        }
        if !self.notes.is_empty() {
            self.note().await;
        }
    }

    async fn flush(mut self) {
        for rows in std::mem::take(&mut self.shards).into_values() {
            if let Some((id, _)) = rows.first() {
                let id = *id;
                self.shared.to_shard(id, ShardMessage::Loaded(rows));
            }
        }
        if !self.notes.is_empty() {
            self.note().await;
        }
    }
}
