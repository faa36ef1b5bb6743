//! Floods, and a Postgres that holds commits back: what has no room is told so at once, what was acknowledged is applied once,
//! and timers and send results do not wait behind it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use campaignd::clock::Clock;
use campaignd::domain::account::Channel;
use campaignd::domain::execution::Status;
use campaignd::domain::id::ExecutionId;
use campaignd::domain::trigger::Trigger;
use campaignd::http::{self, App, Options, Server};
use campaignd::runtime::{DeliverError, Delivery};
use campaignd::store::{self, api_key};
use futures_util::future::join_all;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceExt;
use uuid::Uuid;

use crate::client::{Api, small};
use crate::fake::{PATIENCE, Rig, WORKSPACE, mails};

/// People who told us something by mail, and as many about whom another program told us something.
const TOLD: usize = 1_000;
/// Requests of a kind at once.
const PLACES: usize = 64;
/// How long commits are held.
const HELD: Duration = Duration::from_secs(3);

/// The API over a rig's runtime, with a key and an endpoint for webhooks.
struct Edge {
    router: Router,
    key: String,
    hook: String,
}

impl Edge {
    async fn over(rig: &Rig) -> Self {
        let clock = rig.clock.clone();
        let options = Options { webhooks_in_flight_max: PLACES, triggers_in_flight_max: PLACES, ..Options::default() };
        let pool = store::apart(&rig.pool, 10, http::CONNECTION_WAIT);
        let metrics = campaignd::telemetry::install().unwrap();
        let key = api_key::create(&pool, WORKSPACE, "test", clock.now()).await.unwrap().reveal();
        let hook = store::endpoint::create(&pool, WORKSPACE, "unipile", Some("the secret of it"), clock.now());
        let hook = format!("/v1/hooks/unipile/{}", hook.await.unwrap().id);
        let app = App { pool, runtime: rig.handle(), clock, options, metrics };
        Self { router: http::router(app), key, hook }
    }

    async fn call(&self, method: &str, path: &str, body: String) -> (StatusCode, HeaderMap) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("x-api-key", &self.key)
            .header("unipile-auth", "the secret of it")
            .header("content-type", "application/json")
            .body(Body::from(body))
            .unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        (answer.status(), answer.headers().clone())
    }

    /// The provider delivers somebody's answer to a mail.
    async fn webhook(&self, address: &str) -> (StatusCode, HeaderMap) {
        let body = json!({"event": "mail_received", "account_id": "box", "email_id": format!("of-{address}"), "role": "inbox",
            "date": "2026-05-07T15:12:45.073Z", "subject": "Re: s", "body_plain": "Tell me more",
            "from_attendee": {"identifier": address, "identifier_type": "EMAIL_ADDRESS"}});
        self.call("POST", &self.hook, body.to_string()).await
    }

    /// Another program says that somebody answered.
    async fn trigger(&self, prospect: Uuid) -> (StatusCode, HeaderMap) {
        let body = json!({"prospect_id": prospect, "trigger": "reply", "channel": "email", "key": prospect});
        self.call("POST", "/v1/triggers", body.to_string()).await
    }
}

/// Each person's id and address.
async fn people(rig: &Rig, ids: &[ExecutionId]) -> Vec<(Uuid, String)> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    sqlx::query_as(
        "SELECT p.id, p.email FROM campaign_prospects p JOIN campaign_prospect_execution_state e ON e.prospect_id = p.id \
         WHERE e.id = ANY($1)",
    )
    .bind(ids)
    .fetch_all(&rig.db.pool)
    .await
    .unwrap()
}

/// Makes these due at some time from now.
async fn due(rig: &Rig, ids: &[ExecutionId], after: &str) {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let sql = format!(
        "UPDATE campaign_prospect_execution_state SET next_execution_at = now() + '{after}' WHERE id = ANY($1)"
    );
    sqlx::query(AssertSqlSafe(sql)).bind(ids).execute(&rig.db.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_commits_are_held_a_flood_is_told_to_come_back_and_nothing_acknowledged_is_lost() {
    let mut rig = Rig::new(Clock::System).await;
    rig.account(Channel::Email, "box").await;
    rig.account(Channel::Email, "box2").await;
    let campaign = rig.campaign(&mails(1)).await;
    let told = rig.prospects(campaign, u32::try_from(TOLD).unwrap() * 2).await;
    due(&rig, &told, "1 day").await;
    let contacted = rig.prospects(campaign, 1).await;
    let timed = rig.prospects(campaign, 5).await;
    due(&rig, &timed, "4 seconds").await;
    let answer = rig.fake.hold();
    rig.start().await;
    let edge = Arc::new(Edge::over(&rig).await);
    let (by_mail, by_api) = told.split_at(TOLD);
    let (by_mail, by_api) = (people(&rig, by_mail).await, people(&rig, by_api).await);
    rig.fake.until_calls(1).await;

    // From here nothing is stored: neither facts nor transitions.
    let mut other = PgConnection::connect(&rig.db.url).await.unwrap();
    let mut hold = other.begin().await.unwrap();
    hold.execute("LOCK TABLE inbox, transitions IN SHARE MODE").await.unwrap();
    let held = Instant::now();
    answer.add_permits(10);
    let answered = Arc::new(AtomicUsize::new(0));
    let flood: Vec<_> = by_mail
        .iter()
        .map(|(_, address)| (None, address.clone()))
        .chain(by_api.iter().map(|(id, _)| (Some(*id), String::new())))
        .map(|(prospect, address)| {
            let (edge, answered) = (Arc::clone(&edge), Arc::clone(&answered));
            tokio::spawn(async move {
                let began = Instant::now();
                let (status, headers) = match prospect {
                    Some(id) => edge.trigger(id).await,
                    None => edge.webhook(&address).await,
                };
                answered.fetch_add(1, Ordering::SeqCst);
                (status, headers, began.elapsed())
            })
        })
        .collect();
    // All but those who have a place are sent away while nothing moves.
    let turned_away = TOLD * 2 - PLACES * 2;
    rig.wait("the flood is turned away", async || answered.load(Ordering::SeqCst) >= turned_away).await;
    assert!(held.elapsed() < Duration::from_secs(9), "at once, not when locks time out: {:?}", held.elapsed());
    // Who watches and who looks is answered meanwhile.
    assert_eq!(edge.call("GET", "/healthz", String::new()).await.0, StatusCode::OK);
    assert_eq!(edge.call("GET", "/readyz", String::new()).await.0, StatusCode::OK);
    assert_eq!(edge.call("GET", "/v1/campaigns", String::new()).await.0, StatusCode::OK);
    tokio::time::sleep(HELD.saturating_sub(held.elapsed())).await;
    hold.rollback().await.unwrap();

    let answers = tokio::time::timeout(PATIENCE, join_all(flood)).await.expect("nobody hangs");
    let (mut taken, mut refused) = (0, 0);
    for answer in answers {
        let (status, headers, took) = answer.unwrap();
        match status {
            StatusCode::OK | StatusCode::ACCEPTED => taken += 1,
            StatusCode::SERVICE_UNAVAILABLE => {
                assert!(headers.contains_key("retry-after"));
                refused += 1;
            }
            other => panic!("{other}"),
        }
        assert!(took < Duration::from_secs(15), "{took:?}");
    }
    println!("{taken} taken, {refused} told to come back");
    assert!(refused >= turned_away && taken > 0);
    // What was acknowledged is stored; what was not may be stored too, and is the same fact when it is told again.
    assert!(rig.one::<i64>("SELECT count(*) FROM inbox").await >= taken);

    // Whoever was sent away tells it again, as often as it takes.
    let again = async |who: Option<Uuid>, address: &str| {
        loop {
            let (status, _) = match who {
                Some(id) => edge.trigger(id).await,
                None => edge.webhook(address).await,
            };
            if status != StatusCode::SERVICE_UNAVAILABLE {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let all = async {
        for (chunk, api) in by_mail.chunks(16).zip(by_api.chunks(16)) {
            join_all(chunk.iter().map(|(_, address)| again(None, address))).await;
            join_all(api.iter().map(|(id, _)| again(Some(*id), ""))).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("everybody is heard");

    rig.until_all_final().await;
    rig.until_true("SELECT count(*) = 0 FROM inbox WHERE status = 'received'").await;
    assert_eq!(rig.one::<i64>("SELECT count(*) FROM inbox").await, i64::try_from(TOLD).unwrap() * 2, "one row a fact");
    assert_eq!(rig.one::<i64>("SELECT count(*) FROM inbox WHERE status <> 'applied'").await, 0);
    for done in rig.executions(&told).await {
        assert_eq!(done.status, Status::Completed);
    }
    let replies = "SELECT count(*) FROM transitions WHERE trigger = 'reply' AND to_status = 'completed'";
    assert_eq!(rig.one::<i64>(replies).await, i64::try_from(TOLD).unwrap() * 2, "each was applied once");
    // The result of the send came while nothing could be stored, and so did the timers.
    for id in contacted.iter().chain(&timed) {
        assert_eq!(rig.sends(*id).await, ["1 1 sent"]);
    }
    assert_eq!(rig.fake.calls().len(), 6);
    assert_eq!(rig.fake.doubled(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_triggers_at_once_are_durable_or_refused_and_hold_up_neither_timers_nor_results() {
    const FLOOD: usize = 100_000;
    let mut rig = Rig::new(Clock::System).await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    let told = rig.prospects(campaign, 2_000).await;
    due(&rig, &told, "1 day").await;
    let contacted = rig.prospects(campaign, 1).await[0];
    let answer = rig.fake.hold();
    rig.start().await;
    rig.fake.until_calls(1).await;
    let timed = rig.prospects(campaign, 1).await[0];
    due(&rig, &[timed], "1 second").await;
    rig.handle().arrivals();
    rig.until_true("SELECT count(*) = 0 FROM execution_arrivals").await;

    let before = resident();
    let handle = rig.handle();
    let flood = tokio::spawn({
        let told = told.clone();
        async move {
            join_all((0..FLOOD).map(|n| {
                let trigger = if n / told.len() % 2 == 0 { Trigger::Pause } else { Trigger::Resume };
                handle.deliver(told[n % told.len()], trigger)
            }))
            .await
        }
    });
    let began = Instant::now();
    answer.add_permits(10);
    rig.until(contacted, "the result of a send", |e| e.status.is_final()).await;
    let result = began.elapsed();
    rig.fake.until_calls(2).await;
    let timer = began.elapsed();
    let answers = tokio::time::timeout(PATIENCE, flood).await.expect("nobody hangs").unwrap();
    let took = began.elapsed();

    let (mut applied, mut rejected, mut busy) = (0, 0, 0);
    for answer in answers {
        match answer {
            Ok(Delivery::Applied { .. }) => applied += 1,
            Ok(Delivery::Rejected { .. }) => rejected += 1,
            Err(DeliverError::Busy) => busy += 1,
            Err(other) => panic!("{other}"),
        }
    }
    println!(
        "{applied} applied, {rejected} rejected, {busy} busy in {took:?}; result after {result:?}, timer after {timer:?}; \
         {} MiB more",
        resident().saturating_sub(before) >> 20
    );
    assert!(busy > 0 && applied > 0);
    let stored = "SELECT count(*) FROM transitions WHERE trigger IN ('pause', 'resume')";
    assert_eq!(rig.one::<i64>(stored).await, applied, "what was said to be applied is stored");
    assert!(result < Duration::from_secs(10) && timer < Duration::from_secs(10), "{result:?} {timer:?}");
    assert!(resident().saturating_sub(before) < 512 << 20, "memory is bounded by the permits");
    rig.until(timed, "the timed one", |e| e.status.is_final()).await;
    assert!(rig.handle().has_room());
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so_and_those_that_say_nothing_are_closed() {
    let api = Api::with(small()).await;
    let mut app = api.app.clone();
    app.options = Options { connections_max: 2, head_timeout: Duration::from_secs(2), ..small() };
    let server = Server::start(app).await.unwrap();
    let connect = || async { TcpStream::connect(server.api_addr()).await.unwrap() };
    let rest = |mut stream: TcpStream| async move {
        let mut text = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await.expect("closed in time").map(|_| text)
    };
    // One that never says anything, one that never ends its head.
    let silent = connect().await;
    let mut slow = connect().await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow:").await.unwrap();
    let refused = rest(connect().await).await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("Retry-After: 1"), "{refused}");
    // The other listener has connections of its own.
    let mut watch = TcpStream::connect(server.metrics_addr()).await.unwrap();
    watch.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(rest(watch).await.unwrap().starts_with("HTTP/1.1 200"));
    let ends = [rest(silent).await, rest(slow).await];
    assert!(ends.iter().all(|text| !text.as_deref().unwrap_or_default().contains("200")), "{ends:?}");
    let mut next = connect().await;
    next.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(rest(next).await.unwrap().starts_with("HTTP/1.1 200"));
    server.stop().await;
}

#[tokio::test]
async fn an_upload_that_finds_no_place_is_told_so_before_its_body_is_read() {
    let api = Api::with(Options { uploads_in_flight_max: 0, ..Options::default() }).await;
    let campaign = api.campaign().await;
    let refused = api.csv(&campaign, "email\nada@example.com\n").await;
    assert_eq!(refused.headers["retry-after"], "1");
    refused.problem(503, "busy");
    api.get(&format!("/v1/campaigns/{campaign}/prospects")).await.ok(200);
    assert_eq!(api.count("SELECT count(*) FROM campaign_prospects").await, 0);
}
