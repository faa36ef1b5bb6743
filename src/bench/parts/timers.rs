//! Wake-ups in time: everybody waits with a look planned, a thousand of them due in each second.
//!
//! Lateness is measured at the step itself: what the execution's own row says when it was due, against the clock at the
//! moment the core is asked. Afterwards nothing is due any more, and what the process uses with everybody resident is
//! measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::desk::{self, Desk};
use super::people::{self, Stage};
use super::rig::{Rig, cpu_share};
use crate::bench::memory::Process;
use crate::bench::{Bench, Error, Figure, Latencies, Part, Unit};
use crate::clock::Clock;
use crate::domain::execution::Execution;
use crate::domain::time::Timestamp;
use crate::domain::trigger::Trigger;
use crate::store::Pool;
use crate::store::bench::{self as rows, people::Laid};

/// Due in each second.
const RATE: u64 = 1_000;
/// For at most this long.
const LASTS_MAX: u64 = 40;
/// Lateness, 99 of 100.
const LATE_MAX: f64 = 0.020;
/// Share of a core with everybody resident and nothing due.
const IDLE_MAX: f64 = 0.03;
/// Executions that are read back in a second, for when the first is due: rather late than while it is read.
const READ_BACK: u64 = 25_000;
/// Start of the engine at any size.
const START: Duration = Duration::from_secs(4);
/// How many seconds, at most, nothing is due while the idle process is looked at.
const IDLE_LASTS_MAX: u64 = 12;
/// The looks of the others come up far from here, and again after an hour those that were due.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// Measures it.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub(super) async fn run(bench: &Bench, size: u64) -> Result<Part, Error> {
    let scratch = bench.scratch("timers").await?;
    let now = Clock::System.now();
    let accounts = bench.settings().accounts(size);
    let stage = Stage::set(&scratch.pool, &people::seed_flow("48h"), desk::NAME, accounts, now).await?;
    let seconds = LASTS_MAX.min(bench.settings().seconds);
    let due = (RATE * seconds).min(size);
    let others = stage.waiting(now + FAR, people::spread(Duration::from_secs(3600), size))?;
    people::enrol(bench, &scratch.pool, &stage, &others, due, size).await?;
    // Their rows take a few seconds as well.
    let first = Clock::System.now() + START + Duration::from_secs((size + due) / READ_BACK);
    let laid = Laid { first: 0, every_us: 1_000_000 / people::signed(RATE), within_us: i64::MAX };
    people::enrol(bench, &scratch.pool, &stage, &stage.waiting(first, laid)?, 0, due).await?;

    let probe = Arc::new(Probe { from: AtomicI64::new(i64::MAX), late: Latencies::new() });
    let desk = Arc::new(Desk::new(size));
    let rig = Rig::start(&scratch, &desk, size, |options| {
        let probe = Arc::clone(&probe);
        options.before_step = Some(Arc::new(move |execution, trigger| probe.note(execution, trigger)));
    })
    .await?;
    let measured = measure(bench, &scratch.pool, &rig, &probe, size, due, first).await;
    rig.stop().await;
    let (skipped, idle, wal) = measured?;

    let mut part = Part::new("timers", size);
    let noted = probe.late.count();
    part.distribution("lateness", probe.late.clone());
    if let Some(figure) = part.figure_mut("lateness p99") {
        *figure = figure.clone().at_most(LATE_MAX);
    }
    part.figures.push(Figure::new("timers fired in time", noted as f64, Unit::Count));
    part.figures.push(match idle {
        Some(share) => Figure::new("idle CPU, share of a core", share, Unit::Share).at_most(IDLE_MAX),
        None => Figure::unmeasured("idle CPU, share of a core", Unit::Share, "this needs Linux"),
    });
    part.figures.push(
        Figure::new("WAL a look", wal.bytes as f64 / noted.max(1) as f64, Unit::Bytes)
            .note("an update of the execution and a row of history, nothing sent"),
    );
    part.notes.push(format!("{size} wake-ups armed, {RATE} due in each of {:.1} s", due as f64 / RATE as f64));
    if skipped > 0 {
        part.notes.push(format!("{skipped} were due before everything had been read back, and do not count"));
    }
    Ok(part)
}

/// Lets the timers fire. Answers how many do not count, the idle process' share of a core, and what was written.
async fn measure(
    bench: &Bench,
    pool: &Pool,
    rig: &Rig,
    probe: &Probe,
    size: u64,
    due: u64,
    first: Timestamp,
) -> Result<(u64, Option<f64>, rows::Wal), Error> {
    rig.ready(bench, size).await?;
    // What fell due while rows were read is late for another reason, and takes a moment to be worked off.
    let from =
        first.max(Clock::System.now() + Duration::from_millis(if Clock::System.now() > first { 2_000 } else { 0 }));
    probe.from.store(from.as_micros(), Relaxed);
    let missed = u64::try_from(from.since(first).as_millis()).unwrap_or(u64::MAX).saturating_mul(RATE) / 1_000;
    let skipped = missed.min(due);
    let expected = due - skipped;
    if expected == 0 {
        return Err(Error::Refused(format!("all {due} timers were due before {size} executions had been read back")));
    }
    let before = rows::wal(pool).await?;
    let last = first + Duration::from_millis(due * 1_000 / RATE);
    let progress = bench.progress("timers, 1,000 a second", expected);
    let limit = Instant::now() + last.since(Clock::System.now()) + Duration::from_secs(30);
    while probe.late.count() < expected {
        progress.set(probe.late.count());
        bench.check()?;
        if Instant::now() > limit {
            return Err(Error::Refused(format!("{} of {expected} timers fired", probe.late.count())));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(progress);
    // What the last ones wrote is on its way.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let wal = rows::wal(pool).await?.since(before);
    let idle = Duration::from_secs(IDLE_LASTS_MAX.min(bench.settings().seconds));
    let _progress = bench.progress("idle", 1);
    Ok((skipped, cpu_share(bench, &Process::own(), idle).await?, wal))
}

/// Looks at every step that time asks for.
struct Probe {
    /// Due times before this do not count: microseconds since 1970.
    from: AtomicI64,
    late: Latencies,
}

impl Probe {
    fn note(&self, execution: &Execution, trigger: &Trigger) {
        let Some(due) = execution.wake_at().filter(|_| trigger.is_time()) else { return };
        if due.as_micros() >= self.from.load(Relaxed) {
            self.late.record(Clock::System.now().since(due));
        }
    }
}
