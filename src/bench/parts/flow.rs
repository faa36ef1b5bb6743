//! Everybody through the seed's three steps, all due at once, with a provider that answers at once and people who accept a
//! second later: durable transitions a second, sustained.
//!
//! What is counted are rows of `transitions`, by the moment of their decision, in a window that begins when everything is
//! resident and the first second is over, and ends before the crowd runs out of work. Afterwards it is checked that nobody
//! was contacted twice and that every history is whole: otherwise there is no figure.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};

use super::desk::{self, Desk};
use super::people::{self, Stage, signed};
use super::rig::{Rig, patience};
use crate::bench::memory::Process;
use crate::bench::{Bench, Error, Figure, Part, Scratch, Series, Unit};
use crate::clock::Clock;
use crate::domain::id::ExecutionId;
use crate::domain::time::Timestamp;
use crate::domain::trigger::Trigger;
use crate::runtime::{DeliverError, Handle};
use crate::store::bench::{self as rows, people as crowd, seen};

/// Of what Postgres does with the writer's own statement at batch 512.
const OF_FLOOR: f64 = 0.7;
/// The seed's two and five days: long enough to go through the wheel, short enough to be over.
const DELAY: &str = "1s";
/// From being invited to accepting.
const ACCEPTS_AFTER: Duration = Duration::from_secs(1);
/// Acceptances on their way at once.
const ACCEPTING_MAX: usize = 4_096;
/// Sends of one person.
const SENDS: u64 = 3;
/// The window ends when so much of all work is done: a crowd's last people keep no engine busy.
const WINDOW_SHARE: f64 = 0.8;
/// From everything being resident to the window.
const RAMP: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// The table that every transition updates.
const STATE: &str = "campaign_prospect_execution_state";

/// What one run saw in its window.
pub(super) struct Seen {
    pub(super) transitions_per_second: f64,
    pub(super) sends_per_second: f64,
    pub(super) window: Duration,
    pub(super) wal_per_transition: f64,
    pub(super) full_pages: i64,
    pub(super) hot_share: Option<f64>,
    /// Cores used by this process, and by Postgres where it runs on this machine.
    pub(super) own_cores: Option<f64>,
    pub(super) postgres_cores: Option<f64>,
    pub(super) series: Series,
}

/// Measures it.
pub(super) async fn run(bench: &Bench, size: u64) -> Result<Part, Error> {
    let mut part = Part::new("flow", size);
    let floor = super::floor(bench, size, &mut part).await?.and_then(|floor| floor.writer_512_per_second());
    let scratch = bench.scratch("flow").await?;
    let seen = measure(bench, &scratch, size, bench.settings().sustained()).await?;

    part.figures.push(
        Figure::new("durable transitions", seen.transitions_per_second, Unit::PerSecond)
            .at_least_times(OF_FLOOR, floor, "the writer's statement at batch 512")
            .note(format!("over {:.1} s", seen.window.as_secs_f64())),
    );
    part.figures.push(
        Figure::new("sends", seen.sends_per_second, Unit::PerSecond).note("each is claimed first, a commit of its own"),
    );
    part.figures.push(
        Figure::new("WAL a transition", seen.wal_per_transition, Unit::Bytes)
            .note(format!("everything that is written, claims included; {} whole pages in it", seen.full_pages)),
    );
    part.figures.push(match seen.hot_share {
        Some(share) => Figure::new("HOT share of the state table", share, Unit::Share),
        None => Figure::unmeasured("HOT share of the state table", Unit::Share, "no updates were reported"),
    });
    for (name, cores) in [("cores used by the engine", seen.own_cores), ("cores used by Postgres", seen.postgres_cores)]
    {
        part.figures.push(match cores {
            Some(cores) => Figure::new(name, cores, Unit::Count),
            None => Figure::unmeasured(name, Unit::Count, "Postgres runs elsewhere, or this is not Linux"),
        });
    }
    part.series.push(seen.series);
    part.notes.push(format!(
        "{size} prospects, all due at once, {} accounts; checked afterwards: nobody contacted twice, every history whole",
        people::many_accounts(bench, size)
    ));
    Ok(part)
}

/// Lets a crowd of `size` loose on a scratch database for at most `lasts`.
pub(super) async fn measure(bench: &Bench, scratch: &Scratch, size: u64, lasts: Duration) -> Result<Seen, Error> {
    let now = Clock::System.now();
    let accounts = people::many_accounts(bench, size);
    let stage = Stage::set(&scratch.pool, &people::seed_flow(DELAY), desk::NAME, accounts, now).await?;
    people::enrol(bench, &scratch.pool, &stage, &stage.due(now), 0, size).await?;
    let ids: Arc<[ExecutionId]> = crowd::executions(&scratch.pool, 0, signed(size)).await?.into();

    let desk = Arc::new(Desk::new(size));
    let rig = Rig::start(scratch, &desk, size, |_| ()).await?;
    let accepting = tokio::spawn(accept(rig.handle(), desk.invitations(), ids));
    let seen = watch(bench, scratch, &rig, &desk, size, lasts).await;
    accepting.abort();
    rig.stop().await;
    let (window, mut seen) = seen?;

    if desk.doubled() > 0 {
        return Err(Error::Refused(format!("{} sends were made twice", desk.doubled())));
    }
    let (gaps, twice) = seen::broken_histories(&scratch.pool, 0).await?;
    if gaps > 0 || twice > 0 {
        return Err(Error::Refused(format!(
            "{gaps} executions have a history with gaps, {twice} steps have two sends"
        )));
    }
    seen.finish(scratch, window).await?;
    Ok(seen)
}

/// Waits for the window and takes the counters at both its ends.
async fn watch(
    bench: &Bench,
    scratch: &Scratch,
    rig: &Rig,
    desk: &Desk,
    size: u64,
    lasts: Duration,
) -> Result<((Timestamp, Timestamp), Seen), Error> {
    let progress = bench.progress("flow: sends", size * SENDS);
    // However many there are then: what is due goes on its way as it is read, and the first may be through before the last is read.
    rig.ready(bench, 0).await?;
    let limit = Instant::now() + patience(size);
    let enough = share(size * SENDS, WINDOW_SHARE);
    let ramp = Instant::now() + RAMP;
    while Instant::now() < ramp && desk.calls() < enough / 4 {
        progress.set(desk.calls());
        bench.check()?;
        tokio::time::sleep(LOOK).await;
    }
    let own = Process::own();
    let (begun, from) = (Instant::now(), Clock::System.now());
    let before = Counters::read(scratch, &own).await?;
    while begun.elapsed() < lasts && desk.calls() < enough {
        progress.set(desk.calls());
        bench.check()?;
        if Instant::now() > limit {
            return Err(Error::Refused(format!("{} of {} sends within the time", desk.calls(), size * SENDS)));
        }
        tokio::time::sleep(LOOK).await;
    }
    let after = Counters::read(scratch, &own).await?;
    let (to, window) = (Clock::System.now(), begun.elapsed());
    Ok(((from, to), after.since(&before, window)))
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
fn share(of: u64, share: f64) -> u64 {
    (of as f64 * share) as u64
}

/// What is read at both ends of a window.
struct Counters {
    wal: rows::Wal,
    updated: i64,
    hot: i64,
    own: Option<Duration>,
    postgres: Option<HashMap<i32, Duration>>,
}

impl Counters {
    async fn read(scratch: &Scratch, own: &Process) -> Result<Self, Error> {
        let state = rows::tables(&scratch.pool, &[STATE]).await?.pop().unwrap_or_default();
        let pids = seen::backends(&scratch.pool).await?;
        Ok(Self {
            wal: rows::wal(&scratch.pool).await?,
            updated: state.updated,
            hot: state.hot,
            own: own.cpu(),
            postgres: postgres_cpu(&pids),
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "counts and bytes far below 2^53")]
    fn since(&self, before: &Self, window: Duration) -> Seen {
        let wal = self.wal.since(before.wal);
        let updated = self.updated - before.updated;
        let cores = |used: Duration| used.as_secs_f64() / window.as_secs_f64();
        let postgres = self.postgres.as_ref().zip(before.postgres.as_ref()).map(|(after, before)| {
            // A session that began meanwhile has used nothing before.
            let used = |(pid, cpu): (&i32, &Duration)| cpu.saturating_sub(before.get(pid).copied().unwrap_or_default());
            after.iter().map(used).sum()
        });
        Seen {
            transitions_per_second: 0.0,
            sends_per_second: 0.0,
            window,
            wal_per_transition: wal.bytes as f64,
            full_pages: wal.full_pages,
            hot_share: (updated > 0).then(|| (self.hot - before.hot) as f64 / updated as f64),
            own_cores: self.own.zip(before.own).map(|(after, before)| cores(after.saturating_sub(before))),
            postgres_cores: postgres.map(cores),
            series: Series { name: "durable transitions".to_owned(), unit: Unit::PerSecond, points: Vec::new() },
        }
    }
}

impl Seen {
    /// Counts what the tables say about the window.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    async fn finish(&mut self, scratch: &Scratch, (from, to): (Timestamp, Timestamp)) -> Result<(), Error> {
        let seconds = to.since(from).as_secs_f64();
        let transitions = seen::transitions(&scratch.pool, from, to).await?;
        if transitions == 0 {
            return Err(Error::Refused("nothing was decided in the window".to_owned()));
        }
        self.transitions_per_second = transitions as f64 / seconds;
        self.sends_per_second = seen::sent(&scratch.pool, from, to).await? as f64 / seconds;
        self.wal_per_transition /= transitions as f64;
        let points = seen::transitions_per_second(&scratch.pool, from).await?;
        self.series.points = points.into_iter().map(|(second, n)| (second as f64, n as f64)).collect();
        // The last second was not a whole one.
        self.series.points.pop();
        Ok(())
    }
}

/// CPU time of the server's processes, if it runs on this machine.
fn postgres_cpu(pids: &[i32]) -> Option<HashMap<i32, Duration>> {
    let one = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let cpu = name.starts_with("postgres").then(|| Process::of(u32::try_from(*pid).ok()?).cpu())??;
        Some((*pid, cpu))
    };
    // One may have ended since; none at all means that they are not here.
    let found: HashMap<i32, Duration> = pids.iter().filter_map(one).collect();
    (!found.is_empty()).then_some(found)
}

/// Plays the people: everybody accepts a second after having been invited.
async fn accept(handle: Handle, mut invited: mpsc::UnboundedReceiver<(Instant, u64)>, ids: Arc<[ExecutionId]>) {
    let slots = Arc::new(Semaphore::new(ACCEPTING_MAX));
    while let Some((at, person)) = invited.recv().await {
        tokio::time::sleep_until((at + ACCEPTS_AFTER).into()).await;
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let Some(id) = usize::try_from(person).ok().and_then(|n| ids.get(n)).copied() else { continue };
        let handle = handle.clone();
        tokio::spawn(async move {
            while let Err(DeliverError::Busy) = handle.deliver(id, Trigger::ConnectionAccepted).await {
                tokio::time::sleep(LOOK).await;
            }
            drop(slot);
        });
    }
}
