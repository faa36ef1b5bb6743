//! From a trigger being delivered to the next send being handed to its channel, durable first.
//!
//! Everybody waits for an acceptance; each sample delivers one, and the mail that follows is due at once. The engine hands
//! the send to its channel when the decision is durable, right before it answers the one who delivered, so that the answer
//! with status `executing` is the moment (an upper bound by one hop). The provider's call comes after the claim, a second
//! commit, and is reported beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::desk::{self, Desk};
use super::people::{self, Stage, signed};
use super::rig::Rig;
use crate::bench::load::{Done, Plan, open_loop};
use crate::bench::{Bench, Error, Figure, Floor, Latencies, Part, Unit};
use crate::clock::Clock;
use crate::domain::execution::Status;
use crate::domain::id::ExecutionId;
use crate::domain::trigger::Trigger;
use crate::runtime::{Delivery, Handle};
use crate::store::bench::people as rows;

/// Samples one at a time.
const IDLE_MAX: u64 = 500;
/// Pause between two of them: the engine is at rest again.
const IDLE_PAUSE: Duration = Duration::from_millis(5);
/// Triggers a second under load.
const RATE: f64 = 1_000.0;
/// For at most this long.
const LASTS_MAX: u64 = 20;
/// How long one send may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nobody's next look comes up while this part runs.
const FAR: Duration = Duration::from_secs(24 * 3600);
/// Against the floor's commit of one row: the median, and the 99th percentile.
const TIMES: [(&str, f64); 2] = [("p50", 3.0), ("p99", 12.0)];

/// Measures it, and beside it the way from a webhook to the provider.
pub(super) async fn run(bench: &Bench, size: u64) -> Result<Part, Error> {
    let mut part = inside(bench, size).await?;
    super::http::measure(bench, size, &mut part).await?;
    Ok(part)
}

async fn inside(bench: &Bench, size: u64) -> Result<Part, Error> {
    let mut part = Part::new("react", size);
    let floor = super::floor(bench, size, &mut part).await?;
    let scratch = bench.scratch("react").await?;
    let now = Clock::System.now();
    let accounts = people::many_accounts(bench, size);
    let stage = Stage::set(&scratch.pool, &people::seed_flow("48h"), desk::NAME, accounts, now).await?;
    let template = stage.waiting(now + FAR, people::spread(Duration::from_secs(3600), size))?;
    people::enrol(bench, &scratch.pool, &stage, &template, 0, size).await?;
    let desk = Arc::new(Desk::new(size));
    let rig = Rig::start(&scratch, &desk, size, |_| ()).await?;
    rig.ready(bench, size).await?;

    let idle = IDLE_MAX.min(size / 5).max(1);
    let seconds = LASTS_MAX.min(bench.settings().seconds);
    let loaded = (RATE * seconds as f64).min((size - idle) as f64 * 0.9) as u64;
    let ids: Arc<[ExecutionId]> = rows::executions(&scratch.pool, 0, signed(idle + loaded)).await?.into();
    let probe = Arc::new(Probe {
        handle: rig.handle(),
        desk: Arc::clone(&desk),
        ids,
        handed: AtomicU64::new(0),
        uncalled: AtomicU64::new(0),
    });

    let (handed, called) = (Latencies::new(), Latencies::new());
    let progress = bench.progress("reacting, one at a time", idle);
    for person in 0..idle {
        bench.check()?;
        let begun = Instant::now();
        let (answered, call) = probe.react(person).await?;
        let Some(call) = call else {
            return Err(Error::Refused(format!("person {person} was not contacted within {} s", PATIENCE.as_secs())));
        };
        handed.record(answered.saturating_duration_since(begun));
        called.record(call.saturating_duration_since(begun));
        progress.set(person + 1);
        tokio::time::sleep(IDLE_PAUSE).await;
    }
    drop(progress);

    let progress = bench.progress("reacting at 1,000 a second", loaded);
    let plan = Plan::new(RATE, Duration::from_secs_f64(loaded as f64 / RATE));
    let load_called = Arc::new(Latencies::new());
    let load = {
        let (probe, load_called, progress) = (Arc::clone(&probe), Arc::clone(&load_called), progress.clone());
        open_loop(plan, bench.cancel(), move |n, scheduled| {
            let (probe, load_called) = (Arc::clone(&probe), Arc::clone(&load_called));
            progress.set(n);
            async move {
                match probe.react(idle + n).await {
                    Ok((answered, call)) => {
                        match call {
                            Some(call) => load_called.record(call.saturating_duration_since(scheduled)),
                            None => {
                                probe.uncalled.fetch_add(1, Relaxed);
                            }
                        }
                        Done::At(answered)
                    }
                    Err(_) => Done::Failed,
                }
            }
        })
        .await?
    };
    drop(progress);
    let doubled = desk.doubled();
    let all = probe.handed.load(Relaxed) == idle + load.started;
    let uncalled = probe.uncalled.load(Relaxed);
    drop(probe);
    rig.stop().await;
    if doubled > 0 {
        return Err(Error::Refused(format!("{doubled} sends were made twice")));
    }

    part.distribution("idle, handed to the channel", handed);
    part.distribution("idle, provider called", called);
    part.distribution("1,000/s, handed to the channel", load.latencies);
    part.distribution("1,000/s, provider called", load_called.as_ref().clone());
    for load in ["idle", "1,000/s"] {
        for (percentile, times) in TIMES {
            bound(&mut part, &format!("{load}, handed to the channel {percentile}"), times, floor.as_deref());
        }
    }
    if let Some(paced) = floor.as_deref().and_then(|floor| floor.postgres.as_ref()).map(|p| &p.commit_paced) {
        for percent in [50.0, 99.0] {
            let name = format!("idle, handed to the channel p{percent:.0}");
            let commit = paced.percentile(percent).as_secs_f64();
            let times = part.figure_mut(&name).and_then(|figure| figure.value).map(|took| took / commit);
            let name = format!("{name}, against a commit that is paced as well");
            part.figures.extend(times.map(|times| Figure::new(name, times, Unit::Times)));
        }
    }
    part.figures
        .push(Figure::new("1,000/s, provider not called within 10 s", uncalled as f64, Unit::Count).at_most(0.0));
    part.figures.push(
        Figure::new("1,000/s, not answered or failed", (load.failed + load.unanswered) as f64, Unit::Count)
            .at_most(0.0),
    );
    part.figures.push(Figure::new(
        "1,000/s, generator late p99",
        load.lateness.percentile(99.0).as_secs_f64(),
        Unit::Seconds,
    ));
    part.notes.push(format!(
        "{idle} samples one at a time, {} at 1,000 a second (open loop); {accounts} accounts",
        load.started
    ));
    if !all {
        part.notes.push(
            "some answers came before the next send was decided: `handed to the channel` is then too early".to_owned(),
        );
    }
    Ok(part)
}

/// Sets what a figure has to reach: a multiple of the floor's median commit of one row.
fn bound(part: &mut Part, name: &str, times: f64, floor: Option<&Floor>) {
    let commit = floor.and_then(|floor| floor.commit_1(50.0));
    if let Some(figure) = part.figure_mut(name) {
        *figure = figure.clone().at_most_times(times, commit, "the median one-row commit");
    }
}

struct Probe {
    handle: Handle,
    desk: Arc<Desk>,
    /// By person.
    ids: Arc<[ExecutionId]>,
    /// Answers that said that the next send was decided.
    handed: AtomicU64,
    /// Sends that the provider was not called for in time.
    uncalled: AtomicU64,
}

impl Probe {
    /// Delivers an acceptance, and answers when that was durable and when the provider was called. `None`: not in time.
    async fn react(&self, person: u64) -> Result<(Instant, Option<Instant>), Error> {
        let id = usize::try_from(person).ok().and_then(|n| self.ids.get(n));
        let id = id.ok_or_else(|| Error::Refused(format!("there is no person {person}")))?;
        let call = self.desk.await_call(person);
        let answer = self.handle.deliver(*id, Trigger::ConnectionAccepted).await;
        let answered = Instant::now();
        match answer {
            Ok(Delivery::Applied { status, .. }) => {
                self.handed.fetch_add(u64::from(status == Status::Executing), Relaxed);
            }
            Ok(Delivery::Rejected { reason }) => {
                return Err(Error::Refused(format!("an acceptance was rejected: {reason}")));
            }
            Err(error) => return Err(Error::Refused(format!("an acceptance was not taken: {error}"))),
        }
        Ok((answered, tokio::time::timeout(PATIENCE, call).await.ok().and_then(Result::ok)))
    }
}
