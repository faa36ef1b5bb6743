//! A daemon with everybody resident is killed with -9 and started again, with work that fell due while it was away.
//!
//! The real thing: `campaignd serve` as a process, with the sandbox as its provider. The clock starts with the second
//! process. Its first due work is done when the decision is in the table, where it is looked for every few milliseconds;
//! when the provider was called, the sandbox's ledger tells.

use std::time::{Duration, Instant};

use super::http::{Sandboxed, ledger};
use super::people::{self, Stage};
use super::rig::{Daemon, patience};
use crate::bench::{Bench, Error, Figure, Part, Unit};
use crate::clock::Clock;
use crate::store::bench::seen;

/// Prospects whose first step fell due while nothing ran.
const OVERDUE_MAX: u64 = 1_000;
/// From the start to the first due work, at any size.
const FIRST_MAX: f64 = 1.0;
/// From the start until a million are resident.
const MILLION_MAX: f64 = 20.0;
/// And that many times what bare actors take.
const BARE_TIMES: f64 = 2.0;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(3);
/// Nobody else's next look comes up while this part runs.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// Measures it.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub(super) async fn run(bench: &Bench, size: u64) -> Result<Part, Error> {
    let mut part = Part::new("rehydrate", size);
    let floor = super::floor(bench, size, &mut part).await?;
    let scratch = bench.scratch("rehydrate").await?;
    let now = Clock::System.now();
    let accounts = bench.settings().accounts(size);
    let sandbox = Sandboxed::start(accounts).await?;
    let flow = people::seed_flow("48h");
    let stage = Stage::set(&scratch.pool, &flow, super::http::PROVIDER, accounts, now).await?;
    let overdue = OVERDUE_MAX.min(size.div_ceil(10));
    let waiting = stage.waiting(now + FAR, people::spread(Duration::from_secs(3600), size))?;
    people::enrol(bench, &scratch.pool, &stage, &waiting, 0, size - overdue).await?;

    let limit = patience(size);
    let mut settings = sandbox.settings().to_vec();
    settings.push(super::park::resident_limit(size));
    let mut first = Daemon::start(&scratch, &settings)?;
    first.ready(bench, size - overdue).await?;
    first.kill()?;
    // At the end of the table, so that only asking for what is due finds them early.
    people::enrol(bench, &scratch.pool, &stage, &stage.due(Clock::System.now()), size - overdue, size).await?;
    if seen::any_transition(&scratch.pool).await? {
        return Err(Error::Refused("something was decided before anything was due".to_owned()));
    }

    let restarted = Clock::System.now();
    let mut second = Daemon::start(&scratch, &settings)?;
    let progress = bench.progress("restarted after kill -9: first due work", 1);
    while !seen::any_transition(&scratch.pool).await? {
        second.check(bench, limit, "decided nothing")?;
        tokio::time::sleep(LOOK).await;
    }
    let decided = second.started.elapsed();
    drop(progress);
    let resident = second.ready(bench, size).await?;
    let waits = Instant::now();
    let progress = bench.progress("restarted: overdue work", overdue);
    let calls = loop {
        let calls = ledger(&sandbox).await?;
        progress.set(calls.len() as u64);
        if calls.len() as u64 >= overdue {
            break calls;
        }
        if waits.elapsed() > limit {
            return Err(Error::Refused(format!("{} of {overdue} overdue people were contacted", calls.len())));
        }
        second.check(bench, limit * 2, "did not do its overdue work")?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    second.kill()?;
    let after = |at: i64| (at - restarted.as_micros()) as f64 / 1e6;
    let called = calls.iter().map(|c| after(c.started_at)).fold(f64::INFINITY, f64::min);
    let last = calls.iter().map(|c| after(c.started_at)).fold(0.0, f64::max);

    let resident = resident.as_secs_f64();
    part.figures.push(
        Figure::new("first due work, durable", decided.as_secs_f64(), Unit::Seconds)
            .at_most(FIRST_MAX)
            .note("from the start of the process to the decision being seen in the table"),
    );
    part.figures.push(Figure::new("first due work, provider called", called, Unit::Seconds));
    part.figures.push(
        Figure::new("all overdue work, provider called", last, Unit::Seconds).note(format!("{overdue} prospects")),
    );
    let all = Figure::new("all resident", resident, Unit::Seconds);
    part.figures.push(if size <= 1_000_000 { all.at_most(MILLION_MAX) } else { all });
    let name = "all resident, against bare actors";
    part.figures.push(match &floor {
        Some(floor) => {
            let times = Figure::new(name, resident * floor.spawn_per_second / size as f64, Unit::Times);
            if size >= 100_000 {
                times.at_most(BARE_TIMES)
            } else {
                times.note("no target at this size: the start of the process is most of it")
            }
        }
        None => Figure::unmeasured(name, Unit::Times, "no floor"),
    });
    part.figures.push(Figure::new("read back", size as f64 / resident, Unit::PerSecond));
    part.notes.push(format!(
        "`campaignd serve` with {size} prospects killed with -9 and started again; {overdue} of them fell due meanwhile; the \
         sandbox is the provider, {accounts} accounts"
    ));
    Ok(part)
}
