//! The whole way: a webhook posted to the daemon's route until the provider's call arrives at the sandbox.
//!
//! The real daemon, its HTTP server, its inbox, its Unipile client, and the sandbox that speaks Unipile's wire, all in this
//! process. When a call arrives, the sandbox's ledger tells, by the same wall clock.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use serde::Deserialize;
use serde_json::json;

use super::people::{self, Stage, person, signed};
use super::rig::{client, patience};
use crate::bench::load::{Done, Plan, open_loop};
use crate::bench::{Bench, Error, Figure, Latencies, Part, Unit};
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::time::Timestamp;
use crate::provider::Secret;
use crate::sandbox::{self, Behaviour};
use crate::service::Service;
use crate::store::bench::people as rows;
use crate::store::endpoint;

/// The provider's name in `accounts.provider`.
pub(super) const PROVIDER: &str = "unipile";
/// Webhooks a second.
const RATE: f64 = 200.0;
/// For at most this long.
const LASTS_MAX: u64 = 20;
/// From the webhook to the provider.
const CALLED_MAX: f64 = 0.025;
/// How long the last calls are waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Nobody's next look comes up while this part runs.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// A sandbox of its own whose people do nothing by themselves.
pub(super) struct Sandboxed {
    server: sandbox::Server,
    key: String,
    http: reqwest::Client,
}

impl Sandboxed {
    /// Starts one with so many accounts.
    pub(super) async fn start(accounts: u32) -> Result<Self, Error> {
        let options = sandbox::Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            people: Behaviour {
                accept_share: 0.0,
                reply_share: 0.0,
                bounce_share: 0.0,
                open_share: 0.0,
                ..Behaviour::default()
            },
            accounts: people::sandbox_accounts(accounts),
            ..sandbox::Options::default()
        };
        let (key, http) = (options.api_key.clone(), client()?);
        let server = sandbox::start(options).await.map_err(|e| Error::Refused(e.to_string()))?;
        Ok(Self { server, key, http })
    }

    /// Where it is.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.server.addr())
    }

    /// What a daemon has to be told to use it.
    pub(super) fn settings(&self) -> [(&'static str, String); 2] {
        [("CAMPAIGND_UNIPILE__BASE_URL", self.url()), ("CAMPAIGND_UNIPILE__API_KEY", self.key.clone())]
    }
}

/// A contact as the sandbox saw it.
#[derive(Debug, Deserialize)]
pub(super) struct Contact {
    /// Whom: slug or address.
    pub(super) recipient_public: String,
    /// When the request was read: microseconds since 1970.
    pub(super) started_at: i64,
}

/// Everything that was sent so far.
pub(super) async fn ledger(sandbox: &Sandboxed) -> Result<Vec<Contact>, Error> {
    #[derive(Deserialize)]
    struct Ledger {
        items: Vec<Contact>,
    }
    let url = format!("{}/sandbox/ledger?limit=10000000", sandbox.url());
    let failed = |e: reqwest::Error| Error::Refused(format!("cannot read the sandbox's ledger: {e}"));
    let answer = sandbox.http.get(url).send().await.map_err(failed)?;
    Ok(answer.json::<Ledger>().await.map_err(failed)?.items)
}

/// Measures it, and adds it to a part.
pub(super) async fn measure(bench: &Bench, size: u64, part: &mut Part) -> Result<(), Error> {
    let scratch = bench.scratch("http").await?;
    let now = Clock::System.now();
    let accounts = people::many_accounts(bench, size);
    let sandbox = Sandboxed::start(accounts).await?;
    let stage = Arc::new(Stage::set(&scratch.pool, &people::seed_flow("48h"), PROVIDER, accounts, now).await?);
    let template = stage.waiting(now + FAR, people::spread(Duration::from_secs(3600), size))?;
    people::enrol(bench, &scratch.pool, &stage, &template, 0, size).await?;
    let hooks = webhooks(bench, size);
    rows::make_identities(&scratch.pool, &stage.cast, &stage.linkedin(), 0, signed(hooks)).await?;
    let secret = "the secret of this bench";
    let made = endpoint::create(&scratch.pool, stage.cast.workspace, PROVIDER, Some(secret), now).await?;

    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = Config {
        listen: free,
        metrics_listen: free,
        unipile_url: Some(sandbox.url()),
        unipile_key: Some(Secret::new(&sandbox.key)),
        webhook_secret: Some(Secret::new(secret)),
        resident_max: usize::try_from(size).unwrap_or(usize::MAX),
        ..Config::default()
    };
    let service = Service::start(&config, &scratch.url, Clock::System, Box::new(|_, _| ())).await?;
    let route = Route { service: &service, sandbox: &sandbox, stage: &stage, endpoint: &made.id, secret };
    let posted = route.post(bench, size, hooks, part).await;
    service.stop().await;
    posted
}

/// Where webhooks go, and where what they lead to arrives.
struct Route<'a> {
    service: &'a Service,
    sandbox: &'a Sandboxed,
    stage: &'a Arc<Stage>,
    endpoint: &'a str,
    secret: &'static str,
}

impl Route<'_> {
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    async fn post(&self, bench: &Bench, size: u64, hooks: u64, part: &mut Part) -> Result<(), Error> {
        let Self { service, sandbox, stage, endpoint, secret } = *self;
        let limit = Instant::now() + patience(size);
        let progress = bench.progress("reading executions back", size);
        loop {
            let status = service.handle().status();
            progress.set(status.residents);
            if status.ready && status.residents + status.parked >= size {
                break;
            }
            bench.check()?;
            if Instant::now() > limit {
                return Err(Error::Refused("the daemon did not read its executions back in time".to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(progress);
        let (url, http) = (format!("http://{}/v1/hooks/unipile/{endpoint}", service.api_addr()), client()?);
        let progress = bench.progress("posting webhooks, 200 a second", hooks);
        let plan = Plan::new(RATE, Duration::from_secs_f64(hooks as f64 / RATE));
        let due: Arc<DashMap<u64, Instant>> = Arc::default();
        let load = open_loop(plan, bench.cancel(), {
            let (stage, progress, due) = (Arc::clone(stage), progress.clone(), Arc::clone(&due));
            move |n, scheduled| {
                progress.set(n);
                due.insert(n, scheduled);
                let body = json!({
                    "event": "new_relation", "account_id": stage.contact_of(n), "account_type": "LINKEDIN",
                    "user_full_name": format!("Person {n}"), "user_provider_id": format!("ACoAABench{n}"),
                    "user_public_identifier": format!("person-{n}"),
                    "user_profile_url": format!("https://www.linkedin.com/in/person-{n}/"),
                });
                let request = http.post(&url).header("Unipile-Auth", secret).json(&body);
                async move {
                    match request.send().await {
                        Ok(answer) if answer.status().is_success() => Done::Now,
                        Ok(_) | Err(_) => Done::Failed,
                    }
                }
            }
        })
        .await?;
        drop(progress);
        let calls = until_called(bench, sandbox, load.started - load.failed).await?;
        // The two clocks of this process: webhooks were scheduled by one, the ledger is written by the other.
        let (instant, wall) = (Instant::now(), Clock::System.now());
        let called = Latencies::new();
        let mut seen = HashSet::new();
        for (person, at) in calls.iter().filter_map(|c| Some((person(&c.recipient_public)?, c.started_at))) {
            if !seen.insert(person) {
                return Err(Error::Refused(format!("person {person} was contacted twice")));
            }
            let ago = wall.since(Timestamp::from_micros(at));
            if let Some(scheduled) = due.get(&person) {
                called.record(instant.saturating_duration_since(*scheduled).saturating_sub(ago));
            }
        }
        let missing = load.started.saturating_sub(seen.len() as u64);

        part.distribution("webhook to provider", called);
        part.distribution("webhook acknowledged", load.latencies);
        if let Some(figure) = part.figure_mut("webhook to provider p99") {
            *figure = figure.clone().at_most(CALLED_MAX);
        }
        part.figures
            .push(Figure::new("webhooks not acknowledged or without a call", missing as f64, Unit::Count).at_most(0.0));
        part.notes.push(format!(
        "{} webhooks at {RATE} a second (open loop) with {size} residents, daemon, Unipile client and sandbox in one process",
        load.started
    ));
        Ok(())
    }
}

/// How many webhooks are posted: each person accepts once.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
fn webhooks(bench: &Bench, size: u64) -> u64 {
    let seconds = LASTS_MAX.min(bench.settings().seconds);
    ((seconds as f64 * RATE) as u64).min(size)
}

/// Waits until the sandbox has seen that many contacts, or patience ends, and answers those it has seen.
async fn until_called(bench: &Bench, sandbox: &Sandboxed, expected: u64) -> Result<Vec<Contact>, Error> {
    let limit = Instant::now() + PATIENCE;
    loop {
        let calls = ledger(sandbox).await?;
        if calls.len() as u64 >= expected || Instant::now() > limit {
            return Ok(calls);
        }
        bench.check()?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
