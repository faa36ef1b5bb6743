//! The two programs as processes: the built binary as server and as sandbox, over a database of the test's own, on one clock
//! that runs faster. Killed with -9 where a test says so, and when it ends.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use campaignd::clock::Clock;
use campaignd::domain::id::WorkspaceId;
use campaignd::domain::time::Timestamp;
use campaignd::store::api_key;
use serde_json::Value;
use uuid::Uuid;

use crate::harness::{Db, scratch};

/// A process that dies with the test.
pub(crate) struct Process(Child);

impl Process {
    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        assert!(Command::new("kill").arg(self.0.id().to_string()).status().unwrap().success());
    }

    /// The exit code of one that has ended by itself; `None` while it runs.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.0.try_wait().unwrap().map(|status| status.code().unwrap_or(-1))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The two programs, and where they are.
pub(crate) struct World {
    pub(crate) db: Db,
    /// What its files are called by.
    name: &'static str,
    key: String,
    /// Where the clock showed the same as the wall clock.
    pub(crate) origin: Timestamp,
    /// How many times faster the clock runs.
    pub(crate) speed: u32,
    api: u16,
    pub(crate) metrics: u16,
    pub(crate) sandbox: u16,
    http: reqwest::Client,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl World {
    pub(crate) async fn new(name: &'static str, speed: u32) -> Self {
        let db = Db::new().await;
        let workspace = WorkspaceId(Uuid::from_u128(0x7000_8000_0000_0000_0001));
        let now = Clock::System.now();
        let key = api_key::create(&db.pool, workspace, name, now).await.unwrap().reveal();
        let (api, metrics, sandbox) = (free_port(), free_port(), free_port());
        // A second one in this process is refused, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        Self { db, name, key, origin: now, speed, api, metrics, sandbox, http }
    }

    /// Another process over the same database, with addresses of its own.
    pub(crate) fn beside(&self) -> Self {
        Self {
            db: Db { url: self.db.url.clone(), pool: self.db.pool.clone() },
            name: "beside",
            key: self.key.clone(),
            api: free_port(),
            metrics: free_port(),
            http: self.http.clone(),
            ..*self
        }
    }

    fn command(&self, arguments: &[&str], log: &str) -> Command {
        let log = std::fs::File::options().create(true).append(true).open(scratch(self.name).join(log)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_campaignd"));
        command
            .args(arguments)
            .env("DATABASE_URL", &self.db.url)
            .env("CAMPAIGND_DATA_DIR", scratch(&format!("{}-data", self.name)))
            .env("CAMPAIGND_CLOCK__SPEED", self.speed.to_string())
            .env("CAMPAIGND_CLOCK__ORIGIN", self.origin.to_string())
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

    /// Starts the sandbox, with more arguments than where it listens.
    pub(crate) async fn start_sandbox(&self, more: &[&str]) -> Process {
        let listen = format!("127.0.0.1:{}", self.sandbox);
        let arguments = [&["sandbox", "--listen", &listen], more].concat();
        let process = Process(self.command(&arguments, "sandbox.log").spawn().unwrap());
        self.until_answers(self.sandbox, "/sandbox/clock").await;
        process
    }

    pub(crate) fn start_server(&self) -> Process {
        Process(self.command(&["serve"], "server.log").spawn().unwrap())
    }

    /// Starts the server with more settings, and a log of its own.
    pub(crate) fn start_server_with(&self, log: &str, settings: &[(&str, &str)]) -> Process {
        let mut command = self.command(&["serve"], log);
        Process(command.envs(settings.iter().copied()).spawn().unwrap())
    }

    /// Everything a process has printed to its log.
    pub(crate) fn log(&self, log: &str) -> String {
        std::fs::read_to_string(scratch(self.name).join(log)).unwrap()
    }

    /// Runs a command that comes to its end by itself: its exit code, and what it printed to its two outputs.
    pub(crate) fn run(&self, arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String, String) {
        let mut command = self.command(arguments, "commands.log");
        let output =
            command.envs(settings.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Delivers a webhook as the provider does it.
    pub(crate) async fn deliver(&self, body: &Value, traceparent: &str) {
        let endpoint: String =
            sqlx::query_scalar("SELECT id FROM webhook_endpoints").fetch_one(&self.db.pool).await.unwrap();
        let url = format!("http://127.0.0.1:{}/v1/hooks/unipile/{endpoint}", self.api);
        let request = self.http.post(url).header("Unipile-Auth", "the secret of this test");
        let answer = request.header("traceparent", traceparent).json(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    /// What `/readyz` says: whether it is ready, and why not, as `name: detail`. `None`: nobody answers.
    pub(crate) async fn readiness(&self) -> Option<(bool, Vec<String>)> {
        let url = format!("http://127.0.0.1:{}/readyz", self.metrics);
        let body: Value = self.http.get(url).send().await.ok()?.json().await.ok()?;
        let text =
            |reason: &Value| format!("{}: {}", reason["name"].as_str().unwrap(), reason["detail"].as_str().unwrap());
        Some((body["ready"].as_bool()?, body["reasons"].as_array()?.iter().map(text).collect()))
    }

    /// What `/metrics` shows for a series; `None` when it does not show it.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let url = format!("http://127.0.0.1:{}/metrics", self.metrics);
        let text = self.http.get(url).send().await.ok()?.text().await.ok()?;
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?.parse().ok()
    }

    /// Where the API listens.
    pub(crate) const fn api(&self) -> u16 {
        self.api
    }

    /// The answer to anything, whatever it is.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let url = format!("http://127.0.0.1:{}{path}", self.api);
        let mut request = self.http.request(method.parse().unwrap(), url).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// What opens the API.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) async fn until_answers(&self, port: u16, path: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let url = format!("http://127.0.0.1:{port}{path}");
        while !self.http.get(&url).send().await.is_ok_and(|a| a.status().is_success()) {
            assert!(Instant::now() < deadline, "nothing answers at {url}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let url = format!("http://127.0.0.1:{}{path}", self.api);
        let answer = self.http.post(url).bearer_auth(&self.key).json(body).send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {body}");
        body
    }

    /// What was really sent.
    pub(crate) async fn ledger(&self) -> Vec<Value> {
        self.look("/sandbox/ledger?limit=1000000").await["items"].as_array().unwrap().clone()
    }

    /// What the sandbox shows.
    pub(crate) async fn look(&self, path: &str) -> Value {
        let url = format!("http://127.0.0.1:{}{path}", self.sandbox);
        self.http.get(url).send().await.unwrap().json().await.unwrap()
    }

    /// Tells the sandbox something.
    pub(crate) async fn order(&self, path: &str, body: &Value) {
        let url = format!("http://127.0.0.1:{}{path}", self.sandbox);
        let answer = self.http.post(url).json(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
    }

    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.db.pool).await.unwrap()
    }
}
