//! The floors: what the machine, Postgres and the actor framework do without this program, measured in the same run.

use std::time::Duration;

use super::memory::Process;
use super::{Bench, Error, Figure, Latencies, Part, Unit};
use crate::runtime::bare::Bare;

/// The floors at one size.
#[derive(Clone, Debug)]
pub struct Floor {
    /// Prospects.
    pub size: u64,
    /// Bare actors spawned in a second: linked under 1,024 supervisors, each with 400 B of state, in this process.
    pub spawn_per_second: f64,
    /// Resident bytes a bare actor takes.
    pub spawn_bytes: Option<f64>,
    /// What Postgres does; `None` when there is no pgbench, and [`Floor::missing`] says so.
    pub postgres: Option<PostgresFloor>,
    /// Why [`Floor::postgres`] is missing.
    pub missing: Option<String>,
}

/// What Postgres does on this machine when pgbench asks, with the settings of the engine's own connections.
#[derive(Clone, Debug)]
pub struct PostgresFloor {
    /// A durable commit of one row, by key, one client.
    pub commit_1: Latencies,
    /// Such commits a second.
    pub commit_1_per_second: f64,
    /// The writer's own statement with one change, one client.
    pub writer_1: Latencies,
    /// Transitions a second of it.
    pub writer_1_per_second: f64,
    /// Transitions a second of the writer's own statement with 512 changes, two clients, as the writer has lanes.
    pub writer_512_per_second: f64,
    /// Latency of such a batch.
    pub writer_512: Latencies,
    /// Bytes of WAL a transition of those.
    pub writer_512_wal: f64,
}

impl Floor {
    /// The floors as a part of the report.
    pub fn part(&self) -> Part {
        let mut part = Part::new("floor", self.size);
        part.figures.push(Figure::new("bare actor spawn", self.spawn_per_second, Unit::PerSecond));
        if let Some(bytes) = self.spawn_bytes {
            part.figures.push(Figure::new("bare actor", bytes, Unit::Bytes));
        }
        part.notes.extend(self.missing.clone());
        part
    }

    /// A percentile of the one-row commit, if it was measured.
    pub fn commit_1(&self, percent: f64) -> Option<Duration> {
        self.postgres.as_ref().map(|p| p.commit_1.percentile(percent))
    }

    /// Transitions a second at batch 512, if they were measured.
    pub fn writer_512_per_second(&self) -> Option<f64> {
        self.postgres.as_ref().map(|p| p.writer_512_per_second)
    }
}

/// Measures the floors.
pub(super) async fn measure(bench: &Bench, size: u64) -> Result<Floor, Error> {
    let (spawn_per_second, spawn_bytes) = spawn(bench, size).await?;
    Ok(Floor { size, spawn_per_second, spawn_bytes, postgres: None, missing: Some("pgbench was not asked".to_owned()) })
}

#[expect(clippy::cast_precision_loss, reason = "counts and bytes far below 2^53")]
async fn spawn(bench: &Bench, size: u64) -> Result<(f64, Option<f64>), Error> {
    let count = usize::try_from(size).unwrap_or(usize::MAX);
    let before = Process::own().rss();
    let progress = bench.progress(&format!("floor {size}: bare actors"), size);
    let bare = Bare::spawn(count, |n| progress.set(n as u64))
        .await
        .ok_or_else(|| Error::Refused("a bare actor did not start".to_owned()))?;
    let after = Process::own().rss();
    let per_second = size as f64 / bare.took().as_secs_f64();
    bare.stop().await;
    let bytes = before.zip(after).map(|(before, after)| after.saturating_sub(before) as f64 / size as f64);
    Ok((per_second, bytes))
}
