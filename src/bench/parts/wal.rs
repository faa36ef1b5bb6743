//! What the indexes on due times cost and what they are worth: WAL a transition, HOT share and transitions a second with
//! them and without, and beside it the question of other programs that they are for, `get_next_pending_executions(10)`.

use std::time::{Duration, Instant};

use super::desk;
use super::flow;
use super::people::{self, Stage};
use crate::bench::{Bench, Error, Figure, Latencies, Part, Unit};
use crate::clock::Clock;
use crate::store::bench::seen;

/// Bytes of WAL a transition, in the shape that ships.
const WAL_MAX: f64 = 900.0;
/// How long ten pending executions may take to be found among a million.
const PENDING_MAX: f64 = 1.0;
/// Seconds of each run.
const LASTS_MAX: u64 = 20;
/// How often other programs ask.
const ASKED: u32 = 7;

/// Measures it.
pub(super) async fn run(bench: &Bench, size: u64) -> Result<Part, Error> {
    let mut part = Part::new("wal", size);
    let lasts = Duration::from_secs(LASTS_MAX.min(bench.settings().seconds));
    for indexed in [true, false] {
        let (shipped, pending) = pending(bench, size, indexed).await?;
        let scratch = bench.scratch("wal").await?;
        if !shipped {
            seen::index_due_times(&scratch.pool, indexed).await?;
        }
        let shape = if indexed { "with an index on due times" } else { "without" };
        let ours = if shipped { " (ships)" } else { "" };
        let seen = flow::measure(bench, &scratch, size, lasts).await?;

        let wal = Figure::new(format!("WAL a transition, {shape}{ours}"), seen.wal_per_transition, Unit::Bytes)
            .note(format!("{} whole pages in it", seen.full_pages));
        part.figures.push(if shipped { wal.at_most(WAL_MAX) } else { wal });
        let hot = format!("HOT share, {shape}{ours}");
        part.figures.push(match seen.hot_share {
            Some(share) => Figure::new(hot, share, Unit::Share),
            None => Figure::unmeasured(hot, Unit::Share, "no updates were reported"),
        });
        let rate = format!("durable transitions, {shape}{ours}");
        part.figures.push(Figure::new(rate, seen.transitions_per_second, Unit::PerSecond));
        let asked = Figure::new(
            format!("get_next_pending_executions(10), {shape}{ours}"),
            pending.percentile(50.0).as_secs_f64(),
            Unit::Seconds,
        );
        part.figures.push(if shipped && size <= 1_000_000 { asked.at_most(PENDING_MAX) } else { asked });
    }
    part.notes.push(format!(
        "the flow of the part `flow` for {} s in each shape; the function is asked {ASKED} times on {size} pending rows, a \
         tenth of them due",
        lasts.as_secs()
    ));
    Ok(part)
}

/// Whether this is the shape that ships, and how long other programs wait for the next ten, before anything else runs: a
/// tenth of the rows is due.
async fn pending(bench: &Bench, size: u64, indexed: bool) -> Result<(bool, Latencies), Error> {
    let scratch = bench.scratch("pending").await?;
    let shipped = (seen::due_indexes(&scratch.pool).await? > 0) == indexed;
    seen::index_due_times(&scratch.pool, indexed).await?;
    let now = Clock::System.now();
    let accounts = bench.settings().accounts(size);
    let stage = Stage::set(&scratch.pool, &people::seed_flow("48h"), desk::NAME, accounts, now).await?;
    let due = (size / 10).max(1);
    people::enrol(bench, &scratch.pool, &stage, &stage.due(now + Duration::from_secs(24 * 3600)), due, size).await?;
    people::enrol(bench, &scratch.pool, &stage, &stage.due(now), 0, due).await?;
    let latencies = Latencies::new();
    for _ in 0..ASKED {
        bench.check()?;
        let begun = Instant::now();
        let found = seen::next_pending(&scratch.pool).await?;
        latencies.record(begun.elapsed());
        if found == 0 {
            return Err(Error::Refused("get_next_pending_executions found nothing among due executions".to_owned()));
        }
    }
    Ok((shipped, latencies))
}
