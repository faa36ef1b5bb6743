//! The hot pieces alone: one step, one batch through the writer, one activation, one template, one stage of a trace.
//!
//! `cargo bench` runs them all; `cargo bench -- step` those with "step" in their name. The batch through Postgres needs an
//! installed one and is left out without it: it runs a private cluster of its own without fsync, so that what is measured
//! is the statement and not the disk. What the whole does, `campaignd bench` tells.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench that cannot set itself up has failed; criterion's macros"
)]

use std::cell::RefCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use campaignd::bench::changes::{Batches, CHANGES, Player, seed_flow, seed_json};
use campaignd::domain::account::Channel;
use campaignd::domain::id::{AccountId, CampaignId, ExecutionId, ProspectId};
use campaignd::domain::step::step;
use campaignd::domain::template;
use campaignd::domain::time::Timestamp;
use campaignd::postgres;
use campaignd::runtime::bare::Bare;
use campaignd::service::DEFAULT_WORKSPACE;
use campaignd::store::bench::floor::{self, Lane, Recorded};
use campaignd::store::lease::{self, Lease, LeaseView};
use campaignd::store::row::Columns;
use campaignd::store::writer::Change;
use campaignd::store::{self, Pool, campaign, migrate};
use campaignd::telemetry::trace::{Known, Sampler, Share, Side, Stage};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use tokio::runtime::Runtime;
use uuid::Uuid;

// As in the program: what is measured allocates.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const NOW: Timestamp = Timestamp::from_micros(1_767_603_600_000_000);
const ROWS: usize = 512;
/// People made at once for batches through Postgres.
const CROWD: usize = 20_000;
const TEXT: &str = "Hi {{ first_name | default('there') }},\n\nI saw that {{ company_name | default('your company') }} is \
    hiring{% if data is defined %} in {{ city | default('town') | title }}{% endif %}. May I show you what we do?\n\nBest,\nAda";

fn id() -> Uuid {
    Uuid::now_v7()
}

fn players(campaign: CampaignId, accounts: [AccountId; 2], ids: &[Uuid]) -> Vec<Player> {
    let flow = seed_flow().unwrap();
    let player = |id: &Uuid| (DEFAULT_WORKSPACE, campaign, ProspectId(*id), ExecutionId(*id));
    ids.iter().map(|id| Player::new(flow.clone(), player(id), accounts, NOW)).collect()
}

fn strangers(n: usize) -> Vec<Player> {
    let ids: Vec<Uuid> = (0..n).map(|_| id()).collect();
    players(CampaignId(id()), [AccountId(id()), AccountId(id())], &ids)
}

/// One decision of the pure core, at each point of the seed's flow.
fn one_step(c: &mut Criterion) {
    let mut player = strangers(1).remove(0);
    let mut group = c.benchmark_group("step");
    for number in 1..=CHANGES {
        let Some((trigger, at)) = player.trigger() else { break };
        let (execution, flow) = (player.execution().clone(), player.flow().clone());
        group.bench_function(format!("{number} {}", trigger.name()), |b| {
            b.iter(|| step(black_box(&execution), &flow, black_box(&trigger), at));
        });
        player.play();
    }
}

/// Changes into the arrays of a statement.
fn one_encoding(c: &mut Criterion) {
    let changes: Vec<Change> = Batches::new(strangers(ROWS * 3), ROWS).nth(CHANGES).unwrap();
    let changes: Vec<&Change> = changes.iter().collect();
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(ROWS as u64));
    let lease = LeaseView::nobody();
    group.bench_function(format!("batch of {ROWS}"), |b| b.iter(|| Recorded::new(&lease, black_box(&changes))));
}

/// A database with a campaign in it, and a lease on its shards.
struct Ground {
    pool: Pool,
    lease: Lease,
    lane: Lane,
    campaign: CampaignId,
    accounts: [AccountId; 2],
}

impl Ground {
    async fn lay(url: &str) -> Self {
        let pool = store::connect(url, 4).await.unwrap();
        migrate::migrate(&pool).await.unwrap();
        let campaign = campaign::create(&pool, DEFAULT_WORKSPACE, "bench", &seed_json(), None, NOW).await.unwrap();
        let accounts = [AccountId(id()), AccountId(id())];
        let listed = [(accounts[0], Channel::Linkedin), (accounts[1], Channel::Email)];
        floor::make_accounts(&pool, DEFAULT_WORKSPACE, &listed).await.unwrap();
        let lease = Lease::acquire(&pool, "bench", lease::TTL).await.unwrap();
        let lane = floor::lane(&pool).await.unwrap();
        Self { pool, lease, lane, campaign, accounts }
    }

    /// Batches over people that were not there before; those that are not full yet are written.
    async fn crowd(&mut self, rows: usize) -> Batches {
        let ids: Vec<Uuid> = (0..CROWD).map(|_| id()).collect();
        floor::make_prospects(&self.pool, DEFAULT_WORKSPACE, self.campaign, &ids, NOW).await.unwrap();
        let mut batches = Batches::new(players(self.campaign, self.accounts, &ids), rows);
        for changes in batches.by_ref().take(CHANGES) {
            self.write(&changes).await;
        }
        batches
    }

    async fn write(&mut self, changes: &[Change]) -> Duration {
        let changes: Vec<&Change> = changes.iter().collect();
        let begun = Instant::now();
        let moved = Recorded::new(&self.lease.view(), &changes).write(&mut self.lane).await.unwrap();
        let took = begun.elapsed();
        assert_eq!(moved, changes.len());
        took
    }
}

/// Changes through the writer's statement into Postgres.
fn one_batch(c: &mut Criterion) {
    let data_dir = std::env::temp_dir().join(format!("campaignd-criterion-{}", std::process::id())).join("pg");
    let Ok(cluster) = postgres::start(postgres::Options::throwaway(data_dir.clone())) else {
        eprintln!("write: left out, because there is no Postgres to run");
        return;
    };
    let runtime = Runtime::new().unwrap();
    let ground = RefCell::new(runtime.block_on(Ground::lay(cluster.url())));
    let mut group = c.benchmark_group("write");
    for rows in [1, ROWS] {
        group.throughput(Throughput::Elements(rows as u64)).sample_size(20);
        let mut batches = None;
        group.bench_function(format!("batch of {rows}"), |b| {
            b.iter_custom(|times| {
                let mut ground = ground.borrow_mut();
                runtime.block_on(async {
                    let mut took = Duration::ZERO;
                    for _ in 0..times {
                        let changes = loop {
                            match batches.as_mut().and_then(Batches::next) {
                                Some(changes) => break changes,
                                None => batches = Some(ground.crowd(rows).await),
                            }
                        };
                        took += ground.write(&changes).await;
                    }
                    took
                })
            });
        });
    }
    group.finish();
    runtime.block_on(ground.into_inner().pool.close());
    cluster.stop();
    let _ = std::fs::remove_dir_all(data_dir.parent().unwrap());
}

/// A row into an execution, and a bare actor of that size beside it: an activation is both.
fn one_activation(c: &mut Criterion) {
    let mut player = strangers(1).remove(0);
    let _ = (player.play(), player.play());
    let columns = Columns::encode(player.execution());
    let mut group = c.benchmark_group("activate");
    group.bench_function("decode a row", |b| {
        b.iter_batched(|| columns.clone(), |columns| columns.decode().unwrap(), BatchSize::SmallInput);
    });
    let runtime = Runtime::new().unwrap();
    group.sample_size(20).throughput(Throughput::Elements(1000));
    group.bench_function("spawn 1,000 bare actors", |b| {
        b.iter_custom(|times| {
            runtime.block_on(async {
                let count = usize::try_from(times).unwrap() * 1000;
                let bare = Bare::spawn(count, |_| ()).await.unwrap();
                let took = bare.took();
                bare.stop().await;
                took
            })
        });
    });
}

/// A message of a few lines with conditions, filters and defaults.
fn one_template(c: &mut Criterion) {
    let person =
        json!({"first_name": "Ann", "last_name": "Lee", "company_name": "Nordwind", "city": "ulm", "data": {"x": 1}});
    template::render(TEXT, &person).unwrap();
    c.bench_function("template", |b| b.iter(|| template::render(black_box(TEXT), black_box(&person)).unwrap()));
}

/// A stage of a trace: what all pay where nothing is traced, and what one pays that is. Nobody listens to the log.
fn one_stage(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut group = c.benchmark_group("stage");
    for (name, share) in [("off", 0.0), ("sampled", 1.0)] {
        let outer = Stage::of(Sampler::new(Share::of(share)).decide(std::iter::empty(), true), "outer");
        group.bench_function(name, |b| {
            b.iter_custom(|n| {
                runtime.block_on(outer.run(async move {
                    let began = Instant::now();
                    for _ in 0..n {
                        let mut stage = Stage::within("inner", Side::Inside);
                        stage.note("n", || Known::Count(black_box(7)));
                        black_box(stage.run(async { black_box(7) }).await);
                    }
                    began.elapsed()
                }))
            });
        });
    }
}

criterion_group!(benches, one_step, one_encoding, one_activation, one_template, one_stage, one_batch);
criterion_main!(benches);
