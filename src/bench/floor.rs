//! The floors: what the machine, Postgres and the actor framework do without this program, measured in the same run.
//!
//! The writer's statement is measured with the changes of the seed's flow, made by the pure core, on a table of the size at
//! hand; pgbench runs the very text that the writer runs, in sessions with the same settings.

use std::time::Duration;

use uuid::Uuid;

use super::changes::{self, Batches, CHANGES, Player};
use super::pgbench::{Job, Length, Pgbench};
use super::{Bench, Error, Figure, Latencies, Part, Scratch, Unit};
use crate::clock::Clock;
use crate::domain::account::Channel;
use crate::domain::id::{AccountId, ExecutionId, ProspectId};
use crate::runtime::bare::Bare;
use crate::service::DEFAULT_WORKSPACE;
use crate::store::bench::{self as measured, floor as laid};
use crate::store::lease::{self, Lease, LeaseView};
use crate::store::writer;
use crate::store::{Pool, campaign};

/// How long one-row commits are measured at most.
const COMMITS: Duration = Duration::from_secs(6);
/// One-row commits a second where they are paced.
const PACE: u32 = 100;
/// Batches of a client at batch 512, for each second of a sustained load, and at most: they fit in memory.
const BATCHES_A_SECOND: usize = 15;
const BATCHES_MAX: usize = 150;
/// People whose changes are written one by one, for each second of a sustained load, and at most; each makes [`CHANGES`].
const SINGLES_A_SECOND: usize = 50;
const SINGLES_MAX: usize = 500;
/// Executions made by one statement.
const PORTION: usize = 10_000;

/// The floors at one size.
#[derive(Clone, Debug)]
pub struct Floor {
    /// Prospects.
    pub size: u64,
    /// Bare actors spawned in a second: linked under 1,024 supervisors, each with 400 B of state, in this process.
    pub spawn_per_second: f64,
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
    /// The same at [`PACE`] a second: a machine that is woken for each is slower than one that is hot.
    pub commit_paced: Latencies,
    /// Such commits a second.
    pub commit_1_per_second: f64,
    /// The writer's own statement with one change, one client.
    pub writer_1: Latencies,
    /// Transitions a second of it.
    pub writer_1_per_second: f64,
    /// The writer's own statement with 512 changes, one client a lane.
    pub writer_512: Latencies,
    /// Transitions a second of it.
    pub writer_512_per_second: f64,
    /// Bytes of WAL a transition of it.
    pub writer_512_wal: f64,
}

impl Floor {
    /// A percentile of the one-row commit, in seconds, if it was measured.
    pub fn commit_1(&self, percent: f64) -> Option<f64> {
        self.postgres.as_ref().map(|p| p.commit_1.percentile(percent).as_secs_f64())
    }

    /// Transitions a second at batch 512, if they were measured.
    pub fn writer_512_per_second(&self) -> Option<f64> {
        self.postgres.as_ref().map(|p| p.writer_512_per_second)
    }

    /// The floors as a part of the report.
    pub fn part(&self) -> Part {
        let mut part = Part::new("floor", self.size);
        part.figures.push(Figure::new("bare actor spawn", self.spawn_per_second, Unit::PerSecond));
        match &self.postgres {
            Some(p) => {
                part.distribution("one-row commit", p.commit_1.clone());
                part.figures.push(Figure::new("one-row commits", p.commit_1_per_second, Unit::PerSecond));
                part.distribution(&format!("one-row commit, {PACE} a second"), p.commit_paced.clone());
                part.distribution("writer's statement, batch 1", p.writer_1.clone());
                part.figures.push(Figure::new("transitions, batch 1", p.writer_1_per_second, Unit::PerSecond));
                part.distribution("writer's statement, batch 512", p.writer_512.clone());
                part.figures.push(Figure::new("transitions, batch 512", p.writer_512_per_second, Unit::PerSecond));
                part.figures.push(Figure::new("WAL a transition, batch 512", p.writer_512_wal, Unit::Bytes));
                part.notes.push(
                    "the writer's statement runs under pgbench with the text, the rows and the session settings of the \
                     writer's lanes; its parameters are read from a table instead of being sent"
                        .to_owned(),
                );
            }
            None => {
                let why = self.missing.as_deref().unwrap_or("not measured");
                part.figures.extend([
                    Figure::unmeasured("one-row commit p50", Unit::Seconds, why),
                    Figure::unmeasured("transitions, batch 512", Unit::PerSecond, why),
                ]);
            }
        }
        part
    }
}

/// Measures the floors.
pub(super) async fn measure(bench: &Bench, size: u64) -> Result<Floor, Error> {
    let (postgres, missing) = match Pgbench::find() {
        Some(pgbench) => (Some(postgres(bench, &pgbench, size).await?), None),
        None => {
            let missing = "pgbench is not installed beside the server's programs nor in PATH (Debian: postgresql-contrib \
                           or postgresql)";
            (None, Some(missing.to_owned()))
        }
    };
    let spawn_per_second = bench.bare(size).await?;
    Ok(Floor { size, spawn_per_second, postgres, missing })
}

#[expect(clippy::cast_precision_loss, reason = "a count far below 2^53")]
pub(super) async fn spawn(bench: &Bench, size: u64) -> Result<f64, Error> {
    bench.check()?;
    let count = usize::try_from(size).unwrap_or(usize::MAX);
    let progress = bench.progress(&format!("floor, {size}: bare actors"), size);
    let bare = Bare::spawn(count, |n| progress.set(n as u64))
        .await
        .ok_or_else(|| Error::Refused("a bare actor did not start".to_owned()))?;
    let per_second = size as f64 / bare.took().as_secs_f64();
    bare.stop().await;
    Ok(per_second)
}

#[expect(clippy::cast_precision_loss, reason = "counts and bytes far below 2^53")]
async fn postgres(bench: &Bench, pgbench: &Pgbench, size: u64) -> Result<PostgresFloor, Error> {
    let scratch = bench.scratch("floor").await?;
    let lasts = COMMITS.min(bench.settings().sustained());
    let commits = commits(bench, pgbench, &scratch, size, Length::Time(lasts)).await?;
    let paced = one_row(pgbench, &scratch, size, Length::Paced(lasts, PACE)).await?;

    let ground = Ground::lay(bench, &scratch, size).await?;
    let lease = Lease::acquire(&scratch.pool, "bench", lease::TTL).await.map_err(|e| Error::Refused(e.to_string()))?;
    let batches = ground.batches(&scratch.pool, &lease.view()).await;
    let written = match batches {
        Ok((singles, full)) => write(bench, pgbench, &scratch, singles, full).await,
        Err(error) => Err(error),
    };
    lease.release().await?;
    let (one, many) = written?;
    Ok(PostgresFloor {
        commit_1: commits.latencies,
        commit_paced: paced.latencies,
        commit_1_per_second: commits.per_second,
        writer_1_per_second: one.transitions_per_second(),
        writer_1: one.run.latencies,
        writer_512_per_second: many.transitions_per_second(),
        writer_512_wal: many.wal as f64 / many.transitions as f64,
        writer_512: many.run.latencies,
    })
}

async fn commits(
    bench: &Bench,
    pgbench: &Pgbench,
    scratch: &Scratch,
    size: u64,
    length: Length,
) -> Result<super::pgbench::Run, Error> {
    let _shown = bench.progress(&format!("floor, {size}: one-row commits"), 1);
    laid::make_rows(&scratch.pool, i64::try_from(size).unwrap_or(i64::MAX)).await?;
    one_row(pgbench, scratch, size, length).await
}

async fn one_row(
    pgbench: &Pgbench,
    scratch: &Scratch,
    size: u64,
    length: Length,
) -> Result<super::pgbench::Run, Error> {
    let job = Job {
        url: &scratch.url,
        script: laid::ONE_ROW,
        clients: 1,
        length,
        variables: &[("rows", size.to_string())],
        options: laid::LANE_OPTIONS,
    };
    pgbench.run(job).await
}

/// Batches by client.
type Sequences = Vec<Vec<laid::Recorded>>;

/// What pgbench made of a set of sequences.
struct Written {
    run: super::pgbench::Run,
    batches: usize,
    transitions: i64,
    /// Bytes.
    wal: i64,
}

impl Written {
    /// A batch holds about as many transitions as any other.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    fn transitions_per_second(&self) -> f64 {
        self.run.per_second * self.transitions as f64 / self.batches as f64
    }
}

/// Writes the singles and then the full batches.
async fn write(
    bench: &Bench,
    pgbench: &Pgbench,
    scratch: &Scratch,
    singles: Sequences,
    full: Sequences,
) -> Result<(Written, Written), Error> {
    let _shown = bench.progress("floor: the writer's statement", 1);
    let one = sequences(pgbench, scratch, "one", &singles).await?;
    let many = sequences(pgbench, scratch, "many", &full).await?;
    Ok((one, many))
}

/// Has pgbench write these sequences, one a client, and makes sure that every transition was made. They are laid down before
/// it begins.
async fn sequences(pgbench: &Pgbench, scratch: &Scratch, name: &str, clients: &Sequences) -> Result<Written, Error> {
    let each = clients.iter().map(Vec::len).min().unwrap_or(0);
    let script = laid::lay_down(&scratch.pool, name, clients).await?;
    let (before, wal) = (laid::transitions(&scratch.pool).await?, measured::wal(&scratch.pool).await?);
    let job = Job {
        url: &scratch.url,
        script: &script,
        clients: u32::try_from(clients.len()).unwrap_or(1),
        length: Length::Transactions(each),
        variables: &[("i", "-1".to_owned())],
        options: laid::LANE_OPTIONS,
    };
    let run = pgbench.run(job).await?;
    let wal = measured::wal(&scratch.pool).await?.since(wal).bytes;
    let transitions = laid::transitions(&scratch.pool).await? - before;
    let recorded = clients.iter().flat_map(|batches| batches.iter().take(each)).map(laid::Recorded::transitions);
    let wanted = i64::try_from(recorded.sum::<usize>()).unwrap_or(i64::MAX);
    if transitions != wanted {
        return Err(Error::Refused(format!(
            "the writer's statement made {transitions} of {wanted} transitions under pgbench: this floor would be none"
        )));
    }
    Ok(Written { run, batches: each * clients.len(), transitions, wal })
}

/// A campaign with its people, of whom the first ones are about to go through it.
struct Ground {
    full: Vec<Player>,
    singles: Vec<Player>,
    /// Full batches a lane.
    batches: usize,
}

impl Ground {
    async fn lay(bench: &Bench, scratch: &Scratch, size: u64) -> Result<Self, Error> {
        let now = Clock::System.now();
        let flow = changes::seed_flow().ok_or_else(|| Error::Refused("the seed's flow cannot be read".to_owned()))?;
        let json = changes::seed_json();
        let campaign = campaign::create(&scratch.pool, DEFAULT_WORKSPACE, "floor", &json, None, now).await?;
        // An account has one send in flight: no two changes of a batch open the same gate, and no two lanes.
        let options = writer::Options::default();
        let pairs = options.lanes * options.rows_max;
        let accounts: Vec<[AccountId; 2]> = (0..pairs).map(|_| [AccountId(new_id()), AccountId(new_id())]).collect();
        let listed: Vec<(AccountId, Channel)> = accounts
            .iter()
            .flat_map(|[linkedin, mail]| [(*linkedin, Channel::Linkedin), (*mail, Channel::Email)])
            .collect();
        laid::make_accounts(&scratch.pool, DEFAULT_WORKSPACE, &listed).await?;

        let ids: Vec<Uuid> = (0..size).map(|_| new_id()).collect();
        let progress = bench.progress(&format!("floor, {size}: prospects"), size);
        for portion in ids.chunks(PORTION) {
            bench.check()?;
            laid::make_prospects(&scratch.pool, DEFAULT_WORKSPACE, campaign, portion, now).await?;
            progress.add(portion.len() as u64);
        }
        measured::settle(&scratch.pool).await?;

        let mut next = vec![0; options.lanes];
        let player = |id: &Uuid| {
            let execution = ExecutionId(*id);
            let lane = usize::from(execution.shard()) % options.lanes;
            let turn = next.get_mut(lane)?;
            let pair = accounts.get(lane * options.rows_max + *turn % options.rows_max)?;
            *turn += 1;
            let ids = (DEFAULT_WORKSPACE, campaign, ProspectId(*id), execution);
            Some(Player::new(flow.clone(), ids, *pair, now))
        };
        let mut players = ids.iter().filter_map(player);
        let seconds = usize::try_from(bench.settings().seconds).unwrap_or(usize::MAX);
        let singles = seconds.saturating_mul(SINGLES_A_SECOND).min(SINGLES_MAX).min(ids.len() / 4);
        let batches = seconds.saturating_mul(BATCHES_A_SECOND).min(BATCHES_MAX);
        let singles = players.by_ref().take(singles).collect();
        let enough = options.lanes * options.rows_max * (batches + 2 * CHANGES).div_ceil(CHANGES);
        Ok(Self { singles, full: players.take(enough).collect(), batches })
    }

    /// The singles for one client, and full batches, one sequence a lane. Those before the batches are full are written here.
    async fn batches(self, pool: &Pool, lease: &LeaseView) -> Result<(Sequences, Sequences), Error> {
        let singles: Vec<laid::Recorded> = rounds(self.singles).map(|c| laid::Recorded::new(lease, &[&c])).collect();
        let options = writer::Options::default();
        let mut lane = laid::lane(pool).await?;
        let mut full = Vec::new();
        for n in 0..options.lanes {
            let players = self.full.iter().filter(|p| usize::from(p.execution().id.shard()) % options.lanes == n);
            let mut batches = Batches::new(players.cloned(), options.rows_max)
                .map(|changes| laid::Recorded::new(lease, &changes.iter().collect::<Vec<_>>()));
            for batch in batches.by_ref().take(CHANGES) {
                batch.write(&mut lane).await?;
            }
            full.push(batches.take(self.batches).collect::<Vec<_>>());
        }
        let shortest = full.iter().map(Vec::len).min().unwrap_or(0);
        if shortest == 0 || singles.is_empty() {
            return Err(Error::Refused("too few prospects for a floor: at least 5,000 are needed".to_owned()));
        }
        for sequence in &mut full {
            sequence.truncate(shortest);
        }
        Ok((vec![singles], full))
    }
}

/// Everybody's first change, then everybody's second, and so on: neighbours call for the same statement.
fn rounds(mut players: Vec<Player>) -> impl Iterator<Item = writer::Change> {
    (0..CHANGES).flat_map(move |_| players.iter_mut().filter_map(Player::play).collect::<Vec<_>>())
}

/// UUIDv7, as everything of ours has: in the order of time, with a random tail.
fn new_id() -> Uuid {
    Uuid::now_v7()
}
