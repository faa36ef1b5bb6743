//! Recovery, seen from outside: the real binary and the sandbox as processes, the server killed with -9 again and again in
//! the middle of a campaign. What is proved is read from the sandbox's ledger and from the table.

use std::collections::HashMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use campaignd::clock::Clock;
use campaignd::domain::id::WorkspaceId;
use campaignd::store::api_key;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Db, scratch};

const KILLS: u32 = 10;
const PROSPECTS: usize = 500;
/// Five days in 48 s.
const SPEED: &str = "9000";
const PATIENCE: Duration = Duration::from_secs(240);

/// A process that dies with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The two programs, and where they are.
struct World {
    db: Db,
    key: String,
    origin: String,
    api: u16,
    metrics: u16,
    sandbox: u16,
    http: reqwest::Client,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl World {
    async fn new() -> Self {
        let db = Db::new().await;
        let workspace = WorkspaceId(Uuid::from_u128(0x7000_8000_0000_0000_0001));
        let now = Clock::System.now();
        let key = api_key::create(&db.pool, workspace, "recovery", now).await.unwrap().reveal();
        let (api, metrics, sandbox) = (free_port(), free_port(), free_port());
        // A second one in this process is refused, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        Self { db, key, origin: now.to_string(), api, metrics, sandbox, http }
    }

    fn command(&self, arguments: &[&str], log: &str) -> Command {
        let log = std::fs::File::options().create(true).append(true).open(scratch("recovery").join(log)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_campaignd"));
        command
            .args(arguments)
            .env("DATABASE_URL", &self.db.url)
            .env("CAMPAIGND_DATA_DIR", scratch("recovery-data"))
            .env("CAMPAIGND_CLOCK__SPEED", SPEED)
            .env("CAMPAIGND_CLOCK__ORIGIN", &self.origin)
            .env("CAMPAIGND_HTTP__LISTEN", format!("127.0.0.1:{}", self.api))
            .env("CAMPAIGND_HTTP__METRICS_LISTEN", format!("127.0.0.1:{}", self.metrics))
            .env("CAMPAIGND_HTTP__PUBLIC_URL", format!("http://127.0.0.1:{}", self.api))
            .env("CAMPAIGND_UNIPILE__BASE_URL", format!("http://127.0.0.1:{}", self.sandbox))
            .env("CAMPAIGND_UNIPILE__API_KEY", "sandbox")
            .env("CAMPAIGND_UNIPILE__WEBHOOK_SECRET", "the secret of this test")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command
    }

    async fn start_sandbox(&self) -> Process {
        let listen = format!("127.0.0.1:{}", self.sandbox);
        let process = Process(self.command(&["sandbox", "--listen", &listen], "sandbox.log").spawn().unwrap());
        self.until_answers(self.sandbox, "/sandbox/clock").await;
        process
    }

    fn start_server(&self) -> Process {
        Process(self.command(&["serve"], "server.log").spawn().unwrap())
    }

    async fn until_answers(&self, port: u16, path: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let url = format!("http://127.0.0.1:{port}{path}");
        while !self.http.get(&url).send().await.is_ok_and(|a| a.status().is_success()) {
            assert!(Instant::now() < deadline, "nothing answers at {url}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let url = format!("http://127.0.0.1:{}{path}", self.api);
        let answer = self.http.post(url).bearer_auth(&self.key).json(body).send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {body}");
        body
    }

    async fn ledger(&self) -> Vec<Value> {
        let url = format!("http://127.0.0.1:{}/sandbox/ledger?limit=1000000", self.sandbox);
        let answer: Value = self.http.get(url).send().await.unwrap().json().await.unwrap();
        answer["items"].as_array().unwrap().clone()
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.db.pool).await.unwrap()
    }
}

fn person(index: usize) -> Value {
    json!({
        "first_name": format!("Person{index}"), "last_name": "Example", "company_name": "Example",
        "email": format!("person.{index}@people.example"),
        "linkedin_url": format!("https://www.linkedin.com/in/person-{index}"),
    })
}

fn campaign() -> Value {
    json!({"name": "recovery", "flow_settings": {"schema_version": 1, "steps": [
        {"id": "invite", "action": "send_linkedin_cr", "message": "Hello {{ first_name }}",
         "wait_for": {"trigger": "connection_accepted", "timeout": "72h"}},
        {"id": "intro", "action": "send_email", "subject": "Hello {{ first_name }}", "message": "One", "delay": "24h"},
        {"id": "nudge", "action": "send_linkedin_message", "message": "Two", "requires": ["connected"]}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_during_a_campaign_lose_no_send_and_double_none() {
    let world = World::new().await;
    let _sandbox = world.start_sandbox().await;
    let mut server = world.start_server();
    world.until_answers(world.metrics, "/readyz").await;
    for (channel, id) in [
        ("linkedin", "li_account_one_0000000"),
        ("linkedin", "li_account_two_0000000"),
        ("email", "mail_account_one_00000"),
    ] {
        let account = json!({"channel": channel, "provider": "unipile", "provider_account_id": id, "name": id});
        world.post("/v1/accounts", &account).await;
    }
    let id = world.post("/v1/campaigns", &campaign()).await["id"].as_str().unwrap().to_owned();
    let people: Vec<Value> = (0..PROSPECTS).map(person).collect();
    world.post(&format!("/v1/campaigns/{id}/prospects"), &json!(people)).await;
    world.post(&format!("/v1/campaigns/{id}/start"), &Value::Null).await;

    // Random, and printed: the moments are what this test is about.
    let moments: Vec<u64> = Uuid::new_v4().as_bytes().iter().map(|b| 150 + u64::from(*b) * 10).collect();
    println!("killing after {moments:?} ms each");
    for wait in moments.iter().take(KILLS as usize) {
        // Not a wait for something: the moment of the kill itself.
        tokio::time::sleep(Duration::from_millis(*wait)).await;
        drop(server);
        server = world.start_server();
        world.until_answers(world.metrics, "/healthz").await;
    }

    let deadline = Instant::now() + PATIENCE;
    let open = "SELECT count(*) FROM campaign_prospect_execution_state WHERE status NOT IN ('completed', 'failed')";
    let unsettled = "SELECT count(*) FROM sends WHERE status IN ('pending', 'dispatching', 'unknown')";
    while world.count(open).await > 0 || world.count(unsettled).await > 0 {
        assert!(
            Instant::now() < deadline,
            "{} open executions, {} unsettled sends; see {}",
            world.count(open).await,
            world.count(unsettled).await,
            scratch("recovery").display()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    let ledger = world.ledger().await;
    let mut contacts: HashMap<String, u32> = HashMap::new();
    for entry in &ledger {
        let key = format!("{} {} {}", entry["kind"], entry["recipient"], entry["text"]);
        *contacts.entry(key).or_default() += 1;
    }
    let doubled: Vec<_> = contacts.iter().filter(|(_, n)| **n > 1).collect();
    assert!(doubled.is_empty(), "contacted twice: {doubled:?}");
    assert_eq!(world.count("SELECT count(*) FROM campaign_prospect_execution_state").await, 500);
    let sent = world.count("SELECT count(*) FROM sends WHERE status = 'sent'").await;
    assert_eq!(usize::try_from(sent).unwrap(), ledger.len(), "the table and the provider tell different stories");
    assert_eq!(
        world.count("SELECT count(DISTINCT prospect_id) FROM sends WHERE step = 1 AND status = 'sent'").await,
        500,
        "somebody was never invited"
    );
    assert_eq!(world.count("SELECT count(*) FROM account_gate WHERE in_flight IS NOT NULL").await, 0, "a gate is shut");
    let settled = world
        .count("SELECT count(*) FROM transitions WHERE trigger = 'send_finished' AND detail->>'outcome' = 'unknown'")
        .await;
    println!("{} contacts, {settled} of them settled after their outcome was lost", ledger.len());
}
