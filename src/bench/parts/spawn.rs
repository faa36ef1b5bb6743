//! How fast actors are made of rows, and what a resident prospect takes.
//!
//! The rate is the engine's, in this process, from its start on a table of waiting prospects until all are resident. The
//! memory is that of the real daemon as a process of its own: with everybody resident, less the same daemon on the same
//! database before anybody was enrolled.

use std::sync::Arc;
use std::time::Duration;

use super::desk::{self, Desk};
use super::park::resident_limit;
use super::people::{self, Stage};
use super::rig::{Daemon, Rig, settled_memory};
use crate::bench::{Bench, Error, Figure, Part, Unit};
use crate::clock::Clock;

/// Most bytes a resident prospect may take, with the seed's flow and state.
const RESIDENT_MAX: f64 = 9_000.0;
/// Nobody's next look comes up while this part runs.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// Measures it.
#[expect(clippy::cast_precision_loss, reason = "counts and bytes far below 2^53")]
pub(super) async fn run(bench: &Bench, size: u64) -> Result<Part, Error> {
    let mut part = Part::new("spawn", size);
    let floor = super::floor(bench, size, &mut part).await?;
    let scratch = bench.scratch("spawn").await?;
    let now = Clock::System.now();
    let flow = people::seed_flow("48h");
    let stage = Stage::set(&scratch.pool, &flow, desk::NAME, bench.settings().accounts(size), now).await?;
    let empty = memory(bench, &scratch, 0).await?;
    let hour = Duration::from_secs(3600);
    let template = stage.waiting(now + FAR, people::spread(hour, size))?;
    people::enrol(bench, &scratch.pool, &stage, &template, 0, size).await?;

    let desk = Arc::new(Desk::new(size));
    let rig = Rig::start(&scratch, &desk, size, |_| ()).await?;
    let took = rig.ready(bench, size).await?;
    let parked = rig.handle().status().parked;
    rig.stop().await;
    if parked > 0 {
        return Err(Error::Refused(format!("{parked} of {size} executions were parked, though there is room for all")));
    }
    let full = memory(bench, &scratch, size).await?;

    let rate = size as f64 / took.as_secs_f64();
    part.figures.push(Figure::new("resident from the start of the engine", took.as_secs_f64(), Unit::Seconds));
    part.figures.push(
        Figure::new("actors made of rows", rate, Unit::PerSecond)
            .note("reading the table, 1,024 supervisors and the accounts' channels included"),
    );
    part.figures.push(match &floor {
        Some(floor) => Figure::new("against bare actors", rate / floor.spawn_per_second, Unit::Times),
        None => Figure::unmeasured("against bare actors", Unit::Times, "no floor"),
    });
    let each = full.saturating_sub(empty) as f64 / size as f64;
    let figure = Figure::new("memory a resident", each, Unit::Bytes);
    // Below that, what a process takes anyway moves the figure.
    part.figures.push(if size >= 20_000 { figure.at_most(RESIDENT_MAX) } else { figure });
    part.figures.push(Figure::new("memory of the daemon, nobody enrolled", empty as f64, Unit::Bytes));
    part.figures.push(Figure::new("memory of the daemon, all resident", full as f64, Unit::Bytes));
    part.notes.push(format!(
        "{size} prospects who were invited and wait, {} accounts; memory is that of `campaignd serve`, settled",
        stage.accounts.len()
    ));
    Ok(part)
}

/// What the daemon takes once everything is resident and it has settled.
async fn memory(bench: &Bench, scratch: &crate::bench::Scratch, prospects: u64) -> Result<u64, Error> {
    let mut daemon = Daemon::start(scratch, &[resident_limit(prospects)])?;
    daemon.ready(bench, prospects).await?;
    let memory = settled_memory(bench, &daemon.process()).await?;
    daemon.kill()?;
    Ok(memory)
}
