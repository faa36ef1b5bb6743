//! Reads rows for the shards: in batches, never one query per prospect.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::roster::FlowError;
use super::shard::ShardMessage;
use super::shared::Shared;
use super::work::{LoadResult, Runnable};
use crate::domain::execution::Execution;
use crate::domain::id::ExecutionId;
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
        let loaded = loop {
            match rows::load(&shared.pool, &batch).await {
                Ok(loaded) => break loaded,
                Err(error) => {
                    tracing::warn!(%error, rows = batch.len(), "cannot read executions; trying again");
                    tokio::time::sleep(RETRY_WAIT).await;
                }
            }
        };
        let mut missing: std::collections::HashSet<ExecutionId> = batch.drain(..).collect();
        let mut by_shard = ByShard::new(&shared);
        for row in loaded {
            let (id, result) = runnable(&shared, row).await;
            missing.remove(&id);
            by_shard.push(id, result);
        }
        for id in missing {
            by_shard.push(id, LoadResult::Absent);
        }
        by_shard.flush();
    }
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
        let (id, result) = runnable(shared, row).await;
        metrics::counter!(telemetry::REHYDRATED).increment(1);
        by_shard.push(id, result);
    }
    by_shard.flush();
    progress(read);
    Ok(read)
}

async fn runnable(shared: &Shared, row: rows::Loaded) -> (ExecutionId, LoadResult) {
    match row {
        rows::Loaded::Ready { execution, .. } => {
            let id = execution.id;
            (id, with_flow(shared, *execution).await)
        }
        rows::Loaded::Undecodable { id, reason } => {
            unrunnable(shared, id, &reason).await;
            (id, LoadResult::Unrunnable(reason))
        }
    }
}

async fn with_flow(shared: &Shared, mut execution: Execution) -> LoadResult {
    if shared.roster.campaign(execution.campaign).is_none() {
        // Made by another program a moment ago, perhaps with accounts of its own.
        shared.roster_changed.notify_one();
    }
    loop {
        match shared.roster.flow_of(&mut execution).await {
            Ok((campaign, flow)) => return LoadResult::Ready(Box::new(Runnable { execution, campaign, flow })),
            Err(FlowError::Unrunnable(why)) => {
                unrunnable(shared, execution.id, &why).await;
                return LoadResult::Unrunnable(why);
            }
            Err(FlowError::Store(error)) if shared.draining.load(Relaxed) => {
                return LoadResult::Unrunnable(error.to_string());
            }
            Err(FlowError::Store(error)) => {
                tracing::warn!(%error, "cannot read a flow; trying again");
                tokio::time::sleep(RETRY_WAIT).await;
            }
        }
    }
}

/// Says why in the row, for whoever looks; the row keeps its place.
async fn unrunnable(shared: &Shared, id: ExecutionId, why: &str) {
    tracing::warn!(execution.id = %id, why, "this execution cannot run; it keeps its place");
    if let Err(error) = rows::mark_unrunnable(&shared.pool, &[(id, why.to_owned())]).await {
        tracing::warn!(execution.id = %id, %error, "cannot note why an execution does not run");
    }
}

/// Rows on their way to their shards, a message a shard.
struct ByShard<'a> {
    shared: &'a Shared,
    shards: HashMap<u16, Vec<(ExecutionId, LoadResult)>>,
}

impl<'a> ByShard<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, shards: HashMap::new() }
    }

    fn push(&mut self, id: ExecutionId, result: LoadResult) {
        let rows = self.shards.entry(id.shard()).or_default();
        rows.push((id, result));
        if rows.len() >= SHARD_CHUNK {
            self.shared.to_shard(id, ShardMessage::Loaded(std::mem::take(rows)));
        }
    }

    fn flush(self) {
        for rows in self.shards.into_values() {
            if let Some((id, _)) = rows.first() {
                let id = *id;
                self.shared.to_shard(id, ShardMessage::Loaded(rows));
            }
        }
    }
}
