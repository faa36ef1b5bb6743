//! Many more enrolled than may be resident: what a parked prospect takes, and how long it takes to react.
//!
//! Memory is that of the real daemon as a process: with everybody enrolled, less the same daemon when just those who may be
//! resident were. The reaction is measured in this process, from the acceptance being delivered to the decision being
//! durable and its send handed to the channel.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::desk::{self, Desk};
use super::people::{self, Stage, signed};
use super::rig::{Daemon, Rig, settled_memory};
use crate::bench::load::{Done, Plan, open_loop};
use crate::bench::{Bench, Error, Figure, Latencies, Part, Scratch, Unit};
use crate::clock::Clock;
use crate::domain::id::ExecutionId;
use crate::domain::trigger::Trigger;
use crate::runtime::{Delivery, Handle};
use crate::store::bench::people as rows;

/// Enrolled for every one in the size, and the share of the size that may be resident.
const TIMES: u64 = 10;
const RESIDENT_SHARE: u64 = 2;
/// Most bytes a parked prospect may take.
const PARKED_MAX: f64 = 128.0;
/// From the acceptance to the next send at its channel.
const REACTION_MAX: f64 = 0.025;
/// Samples one at a time, and the pause between two.
const IDLE: u64 = 300;
const IDLE_PAUSE: Duration = Duration::from_millis(5);
/// Under load.
const RATE: f64 = 200.0;
const LASTS_MAX: u64 = 15;
/// Nobody's next look comes up while this part runs.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// Measures it.
#[expect(clippy::cast_precision_loss, reason = "counts and bytes far below 2^53")]
pub(super) async fn run(bench: &Bench, size: u64) -> Result<Part, Error> {
    let (resident, enrolled) = ((size / RESIDENT_SHARE).max(1), size * TIMES);
    let scratch = bench.scratch("park").await?;
    let now = Clock::System.now();
    let accounts = bench.settings().accounts(enrolled);
    let stage = Stage::set(&scratch.pool, &people::seed_flow("48h"), desk::NAME, accounts, now).await?;
    let template = stage.waiting(now + FAR, people::spread(Duration::from_secs(3600), enrolled))?;
    people::enrol(bench, &scratch.pool, &stage, &template, 0, resident).await?;
    let few = memory(bench, &scratch, resident, resident).await?;
    people::enrol(bench, &scratch.pool, &stage, &template, resident, enrolled).await?;
    let all = memory(bench, &scratch, resident, enrolled).await?;

    let desk = Arc::new(Desk::new(enrolled));
    let rig = Rig::start(&scratch, &desk, resident, |_| ()).await?;
    let reacted = react(bench, &scratch, &rig, enrolled).await;
    rig.stop().await;
    let seen = reacted?;
    if desk.doubled() > 0 {
        return Err(Error::Refused(format!("{} sends were made twice", desk.doubled())));
    }

    let mut part = Part::new("park", size);
    let parked = enrolled.saturating_sub(resident);
    let each = all.saturating_sub(few) as f64 / parked as f64;
    let figure = Figure::new("memory a parked prospect", each, Unit::Bytes);
    // Below that, what a process takes anyway moves the figure.
    part.figures.push(if size >= 100_000 { figure.at_most(PARKED_MAX) } else { figure });
    part.figures.push(Figure::new("everything known after the start", seen.ready.as_secs_f64(), Unit::Seconds));
    part.figures.push(Figure::new("parked", seen.parked as f64, Unit::Count));
    part.figures.push(Figure::new("resident", seen.residents as f64, Unit::Count).at_most(resident as f64 * 1.01));
    part.distribution("reaction of a parked one, idle", seen.idle);
    part.distribution("reaction of a parked one, 200/s", seen.loaded);
    for name in ["reaction of a parked one, idle p99", "reaction of a parked one, 200/s p99"] {
        if let Some(figure) = part.figure_mut(name) {
            *figure = figure.clone().at_most(REACTION_MAX);
        }
    }
    part.figures.push(Figure::new("not answered or failed", seen.failed as f64, Unit::Count).at_most(0.0));
    part.notes.push(format!(
        "{enrolled} enrolled, at most {resident} resident; the longest sleepers are asked, who are parked; {accounts} accounts"
    ));
    Ok(part)
}

/// What the daemon takes once it knows of everybody.
async fn memory(bench: &Bench, scratch: &Scratch, resident_max: u64, enrolled: u64) -> Result<u64, Error> {
    let mut daemon = Daemon::start(scratch, &[resident_limit(resident_max)])?;
    daemon.ready(bench, enrolled).await?;
    let memory = settled_memory(bench, &daemon.process()).await?;
    daemon.kill()?;
    Ok(memory)
}

/// How a daemon is told how many may be resident.
pub(super) fn resident_limit(residents: u64) -> (&'static str, String) {
    ("CAMPAIGND_RUNTIME__RESIDENT_MAX", residents.max(1).to_string())
}

/// What was seen of the engine in this process.
struct Seen {
    ready: Duration,
    parked: u64,
    residents: u64,
    idle: Latencies,
    loaded: Latencies,
    failed: u64,
}

/// Delivers acceptances to the longest sleepers: one at a time, then 200 a second.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
async fn react(bench: &Bench, scratch: &Scratch, rig: &Rig, enrolled: u64) -> Result<Seen, Error> {
    let ready = rig.ready(bench, enrolled).await?;
    let status = rig.handle().status();
    let idle_count = IDLE.min(enrolled / 20).max(1);
    let seconds = LASTS_MAX.min(bench.settings().seconds);
    let loaded = ((seconds as f64 * RATE) as u64).min(enrolled / 10);
    let first = enrolled.saturating_sub(idle_count + loaded);
    let ids: Arc<[ExecutionId]> = rows::executions(&scratch.pool, signed(first), signed(enrolled)).await?.into();

    let idle = Latencies::new();
    let progress = bench.progress("waking the parked, one at a time", idle_count);
    for (id, n) in ids.iter().zip(1..=idle_count) {
        bench.check()?;
        let begun = Instant::now();
        accept(&rig.handle(), *id).await?;
        idle.record(begun.elapsed());
        progress.set(n);
        tokio::time::sleep(IDLE_PAUSE).await;
    }
    drop(progress);
    let progress = bench.progress("waking the parked, 200 a second", loaded);
    let plan = Plan::new(RATE, Duration::from_secs_f64(loaded as f64 / RATE));
    let handle = rig.handle();
    let load = open_loop(plan, bench.cancel(), {
        let (ids, progress) = (Arc::clone(&ids), progress.clone());
        move |n, _| {
            progress.set(n);
            let id = usize::try_from(idle_count + n).ok().and_then(|n| ids.get(n)).copied();
            let handle = handle.clone();
            async move {
                match id {
                    Some(id) => accept(&handle, id).await.map_or(Done::Failed, |()| Done::Now),
                    None => Done::Failed,
                }
            }
        }
    })
    .await?;
    Ok(Seen {
        ready,
        parked: status.parked,
        residents: status.residents,
        idle,
        loaded: load.latencies,
        failed: load.failed + load.unanswered,
    })
}

/// Delivers an acceptance; answers when it is durable, and with it the next send.
async fn accept(handle: &Handle, id: ExecutionId) -> Result<(), Error> {
    match handle.deliver(id, Trigger::ConnectionAccepted).await {
        Ok(Delivery::Applied { .. }) => Ok(()),
        Ok(Delivery::Rejected { reason }) => Err(Error::Refused(format!("an acceptance was rejected: {reason}"))),
        Err(error) => Err(Error::Refused(format!("an acceptance was not taken: {error}"))),
    }
}
