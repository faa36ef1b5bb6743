//! `campaignd demo`: everything a newcomer needs to see, without any configuration.
//!
//! A private Postgres, the sandbox and the daemon in one process, and a client that does what a user would do: over HTTP,
//! with an API key. Its database is kept until the next run.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use serde_json::{Value, json};
use uuid::Uuid;

use super::database::{connect_url, in_database, open};
use super::live::{Live, Snapshot};
use super::output::{Failure, with_sources};
use super::people;
use super::serve::{LOST, Stop};
use crate::clock::Clock;
use crate::config::Config;
use crate::provider::Secret;
use crate::sandbox::{self, LINKEDIN_ONE, LINKEDIN_TWO, MAIL_ONE};
use crate::service::Service;
use crate::store::{self, database::DEMO_DATABASE};

/// Five days in a minute.
const SPEED: f64 = 7200.0;
/// Prospects of one upload.
const UPLOAD: usize = 10_000;
/// How often the view is refreshed.
const REFRESH: Duration = Duration::from_millis(500);

/// Arguments of `demo`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  campaignd demo --prospects 200 --exit\n\n\
    While it runs, in another terminal:\n  psql \"$(campaignd db url --demo)\"\n  curl http://127.0.0.1:9464/metrics\n\n\
    Ctrl-C drains. The data is kept; the next run starts afresh.")]
pub(super) struct Args {
    /// How many people.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    prospects: u32,
    /// How many times faster than real time the campaign runs.
    #[arg(long, default_value_t = SPEED)]
    speed: f64,
    /// Stop when everybody is through, with a JSON summary as the last line.
    #[arg(long)]
    exit: bool,
}

pub(super) async fn run(args: Args, mut config: Config) -> Result<ExitCode, Failure> {
    if !(1.0..=1_000_000.0).contains(&args.speed) {
        return Err(Failure::unusable("--speed must be between 1 and 1000000"));
    }
    let mut stop = Stop::new()?;
    let started = Instant::now();
    let (url, private) = tokio::select! {
        connected = connect_url(&config) => connected?,
        () = stop.requested() => return Ok(ExitCode::from(130)),
    };
    let url = if private.is_some() {
        eprintln!("private Postgres is up ({:.1} s)", started.elapsed().as_secs_f64());
        let admin = open(&url).await?;
        if !store::database::recreate_demo(&admin).await.map_err(Failure::refused_by)? {
            return Err(Failure::refused("another demo is running: end it with Ctrl-C first"));
        }
        admin.close().await;
        Secret::new(in_database(url.expose(), DEMO_DATABASE))
    } else {
        eprintln!("DATABASE_URL is set: the demo adds a campaign to that database");
        url
    };

    let clock = Clock::scaled_from_now(args.speed);
    let sandbox = sandbox::start(sandbox::Options {
        listen: free_or_any(SocketAddr::from(([127, 0, 0, 1], 8090))),
        clock: clock.clone(),
        // A database that is kept may remember the ids of another demo.
        run: Uuid::new_v4().to_string(),
        ..sandbox::Options::default()
    })
    .await
    .map_err(Failure::unusable_by)?;
    config.listen = free_or_any(config.listen);
    config.metrics_listen = free_or_any(config.metrics_listen);
    config.public_url = Some(format!("http://{}", config.listen));
    config.unipile_url = Some(format!("http://{}", sandbox.addr()));
    config.unipile_key = Some(Secret::new(sandbox::Options::default().api_key));
    config.webhook_secret = Some(Secret::new(Uuid::new_v4().to_string()));
    let service = tokio::select! {
        started = Service::start(&config, url.expose(), clock.clone(), Box::new(|_, _| ())) => {
            started.map_err(Failure::unusable_by)?
        }
        () = stop.requested() => return Ok(ExitCode::from(130)),
    };
    // Not kept in the key file: that one is for `serve`.
    let workspace = crate::service::DEFAULT_WORKSPACE;
    let key = store::api_key::create(service.pool(), workspace, "demo", clock.now())
        .await
        .map_err(Failure::refused)?
        .reveal();
    let api = format!("http://{}", service.api_addr());
    eprintln!("API      {api}");
    eprintln!("key      export CAMPAIGND_API_KEY={key}");
    eprintln!("metrics  http://{}/metrics", service.metrics_addr());
    eprintln!("sandbox  http://{0}/sandbox/ledger", sandbox.addr());
    eprintln!("psql     psql \"$(campaignd db url --demo)\"");

    let client = Client { http: reqwest::Client::new(), api, key };
    let begun = clock.now();
    let outcome = tokio::select! {
        outcome = play(&client, &args, &clock) => outcome.map(Some),
        () = stop.requested() => Ok(None),
        () = service.lost() => Err(lost()),
    };
    let wall = started.elapsed();
    let code = match outcome {
        Ok(Some((shot, live))) => {
            live.finish();
            let ledger = ledger(&client.http, sandbox.addr()).await?;
            let summary = summary(&shot, &ledger, wall);
            if args.exit {
                println!("{summary}");
                ExitCode::SUCCESS
            } else {
                let days = clock.now().since(begun).as_secs_f64() / 86_400.0;
                eprintln!(
                    "everybody is through after {days:.1} days of the campaign, {:.0} s: {summary}",
                    wall.as_secs_f64()
                );
                eprintln!("the server goes on; Ctrl-C ends it");
                tokio::select! {
                    () = stop.requested() => ExitCode::SUCCESS,
                    () = service.lost() => {
                        eprintln!("campaignd: {}", lost());
                        ExitCode::from(LOST)
                    }
                }
            }
        }
        Ok(None) => {
            eprintln!("\ndraining; the data is kept");
            ExitCode::from(130)
        }
        Err(failure) => {
            tokio::select! {
                _ = service.stop() => {}
                () = stop.requested() => {}
            }
            return Err(failure);
        }
    };
    tokio::select! {
        _ = service.stop() => {}
        () = stop.requested() => {}
    }
    sandbox.stop().await;
    if let Some(private) = private {
        let _ = tokio::task::spawn_blocking(move || private.stop()).await;
    }
    Ok(code)
}

/// How a demo ends that owns nothing any more: it would stand there with nobody moving.
fn lost() -> Failure {
    let message = "another campaignd has taken the shards over, or the lease could not be renewed: the demo ends";
    Failure { message: message.to_owned(), exit_code: LOST }
}

/// The address if nobody has it, else any free port of the same host: a demo should not fail because something runs.
fn free_or_any(wanted: SocketAddr) -> SocketAddr {
    let free = |address| std::net::TcpListener::bind(address).and_then(|l| l.local_addr());
    free(wanted).or_else(|_| free(SocketAddr::new(wanted.ip(), 0))).unwrap_or(wanted)
}

/// Makes accounts, campaign and prospects, starts it, and watches until everybody is through.
async fn play(client: &Client, args: &Args, clock: &Clock) -> Result<(Snapshot, Live), Failure> {
    for (channel, id, name) in [
        ("linkedin", LINKEDIN_ONE, "Ada on LinkedIn"),
        ("linkedin", LINKEDIN_TWO, "Ben on LinkedIn"),
        ("email", MAIL_ONE, "Ada's mailbox"),
    ] {
        // Five days in a minute, and nobody who could be blocked.
        let account = json!({"channel": channel, "provider": "unipile", "provider_account_id": id, "name": name,
            "kind": "unlimited"});
        client.post_or_existing("/v1/accounts", &account).await?;
    }
    let campaign = client.post("/v1/campaigns", &people::campaign()).await?;
    let id = campaign["id"].as_str().ok_or_else(|| Failure::refused("the API answered without an id"))?.to_owned();
    let total = usize::try_from(args.prospects).unwrap_or(usize::MAX);
    for first in (0..total).step_by(UPLOAD) {
        let batch: Vec<Value> = (first..total.min(first + UPLOAD)).map(people::person).collect();
        client.post(&format!("/v1/campaigns/{id}/prospects"), &json!(batch)).await?;
    }
    client.post(&format!("/v1/campaigns/{id}/start"), &Value::Null).await?;
    eprintln!("campaign {id} is running: {} prospects, {}x real time", args.prospects, args.speed);
    let begun = clock.now();
    let mut live = Live::new(u64::from(args.prospects));
    loop {
        let shot = Snapshot::of(&client.get(&format!("/v1/campaigns/{id}")).await?);
        live.show(&shot, clock.now().since(begun));
        if shot.finished() >= u64::from(args.prospects) {
            return Ok((shot, live));
        }
        tokio::time::sleep(REFRESH).await;
    }
}

/// What the sandbox says really happened.
async fn ledger(http: &reqwest::Client, sandbox: SocketAddr) -> Result<Vec<Value>, Failure> {
    let url = format!("http://{sandbox}/sandbox/ledger?limit=10000000");
    let answer: Value = match http.get(url).send().await {
        Ok(answer) => answer.json().await.map_err(Failure::refused)?,
        Err(error) => return Err(Failure::refused(format!("cannot read the sandbox's ledger: {error}"))),
    };
    Ok(answer["items"].as_array().cloned().unwrap_or_default())
}

/// The last line of `demo --exit`. Sends are the table's; duplicates are counted in the provider's ledger: the same kind
/// of contact with the same text to the same person twice.
fn summary(shot: &Snapshot, ledger: &[Value], wall: Duration) -> Value {
    let mut seen: HashMap<[&str; 4], u64> = HashMap::new();
    for entry in ledger {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        *seen.entry([text("kind"), text("recipient"), text("subject"), text("text")]).or_default() += 1;
    }
    let duplicates: u64 = seen.values().map(|n| n - 1).sum();
    json!({
        "prospects": shot.total,
        "completed": shot.status("completed"),
        "failed": shot.status("failed"),
        "sends": {"linkedin": shot.sent("linkedin"), "email": shot.sent("email"), "whatsapp": shot.sent("whatsapp")},
        "duplicate_sends": duplicates,
        "unknown_sends": shot.unknown,
        "wall_seconds": (wall.as_secs_f64() * 10.0).round() / 10.0,
    })
}

/// The API as its users see it.
struct Client {
    http: reqwest::Client,
    api: String,
    key: String,
}

impl Client {
    async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.answer(path, self.http.get(format!("{}{path}", self.api))).await.map(|(_, body)| body)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let (status, body) = self.answer(path, self.http.post(format!("{}{path}", self.api)).json(body)).await?;
        if status.is_success() { Ok(body) } else { Err(refused(path, &body)) }
    }

    /// Like `post`, but what is there already is fine.
    async fn post_or_existing(&self, path: &str, body: &Value) -> Result<(), Failure> {
        let (status, body) = self.answer(path, self.http.post(format!("{}{path}", self.api)).json(body)).await?;
        if status.is_success() || status == reqwest::StatusCode::CONFLICT { Ok(()) } else { Err(refused(path, &body)) }
    }

    async fn answer(
        &self,
        path: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<(reqwest::StatusCode, Value), Failure> {
        let failed = |e: reqwest::Error| Failure::refused(format!("{path}: {}", with_sources(&e)));
        let answer = request.bearer_auth(&self.key).send().await.map_err(failed)?;
        let status = answer.status();
        Ok((status, answer.json().await.map_err(failed)?))
    }
}

fn refused(path: &str, body: &Value) -> Failure {
    Failure::refused(format!("{path}: {}", body["detail"].as_str().or(body["title"].as_str()).unwrap_or("refused")))
}
