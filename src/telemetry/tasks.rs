//! Samples the async runtime: how busy it is, and how late it wakes who sleeps.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::sleep;

use super::names::{RUNTIME_BUSY, RUNTIME_LAG, RUNTIME_QUEUED, RUNTIME_TASKS};

/// How long the probe sleeps.
const NAP: Duration = Duration::from_millis(50);
/// Naps between two samples of the rest.
const NAPS: u32 = 20;

/// Samples the runtime it is called on until it is dropped. One a process.
#[expect(clippy::cast_precision_loss, reason = "gauges of counts")]
pub async fn watch() {
    let runtime = Handle::current().metrics();
    let lag = metrics::histogram!(RUNTIME_LAG);
    let [busy, tasks, queued] = [RUNTIME_BUSY, RUNTIME_TASKS, RUNTIME_QUEUED].map(|name| metrics::gauge!(name));
    let worked = || (0..runtime.num_workers()).map(|n| runtime.worker_total_busy_duration(n)).sum::<Duration>();
    let (mut before, mut since) = (worked(), Instant::now());
    loop {
        for _ in 0..NAPS {
            let asleep = Instant::now();
            sleep(NAP).await;
            lag.record(asleep.elapsed().saturating_sub(NAP).as_secs_f64());
        }
        let now = worked();
        let possible = since.elapsed().as_secs_f64() * runtime.num_workers() as f64;
        busy.set((now.saturating_sub(before).as_secs_f64() / possible).min(1.0));
        tasks.set(runtime.num_alive_tasks() as f64);
        queued.set(runtime.global_queue_depth() as f64);
        (before, since) = (now, Instant::now());
    }
}
