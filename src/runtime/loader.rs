//! Reads rows for the shards: in batches, never one query per prospect.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::roster::FlowError;
use super::shard::ShardMessage;
use super::shared::Shared;
use super::work::{LoadResult, Runnable};
use crate::domain::execution::Execution;
use crate::domain::id::{CampaignId, ExecutionId};
use crate::store::{self, execution as rows};
use crate::telemetry;

/// Rows read by one query.
const BATCH: usize = 1000;
/// Wait before a failed read is tried again.
const RETRY_WAIT: Duration = Duration::from_millis(200);
/// Rows handed to one shard in one message while rehydrating.
const SHARD_CHUNK: usize = 128;

/// Serves load requests until all senders are gone.
pub(super) async fn run(shared: Arc<Shared>, mut requests: mpsc::UnboundedReceiver<ExecutionId>) {
    let mut batch = Vec::with_capacity(BATCH);
    while requests.recv_many(&mut batch, BATCH).await > 0 {
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

/// Brings every open execution of the active campaigns back to life: one streaming query. Writes nothing.
///
/// `progress` is called now and then with the number of rows read.
pub(super) async fn rehydrate(shared: &Arc<Shared>, progress: &(dyn Fn(u64) + Sync)) -> Result<u64, store::Error> {
    let mut stream = rows::stream_open(&shared.pool);
    let mut by_shard = ByShard::new(shared);
    let mut read = 0_u64;
    while let Some(row) = stream.next().await {
        let row = row?;
        read += 1;
        if read.is_multiple_of(1000) {
            progress(read);
        }
        if let rows::Loaded::Ready { execution, .. } = &row
            && !shared.roster.campaign(execution.campaign).is_some_and(|c| c.is_active())
        {
            continue;
        }
        metrics::counter!(telemetry::REHYDRATED).increment(1);
        by_shard.add(row).await;
    }
    by_shard.flush().await;
    progress(read);
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
        let rows = self.shards.entry(id.shard()).or_default();
        rows.push((id, result));
        if rows.len() >= SHARD_CHUNK {
            self.shared.to_shard(id, ShardMessage::Loaded(std::mem::take(rows)));
        }
    }

    /// Says why in the rows, for whoever looks; they keep their place.
    async fn note(&mut self) {
        let notes = std::mem::take(&mut self.notes);
        if let Err(error) = rows::mark_unrunnable(&self.shared.pool, &notes).await {
            tracing::warn!(rows = notes.len(), %error, "cannot note why executions do not run");
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
