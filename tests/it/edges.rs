//! Proofs of what the review found. Each fails on the code as it stands.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "how a test fails")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use campaignd::clock::Clock;
use campaignd::domain::id::{ExecutionId, SendId};
use campaignd::domain::send::Receipt;
use campaignd::domain::time::Timestamp;
use campaignd::domain::trigger::Trigger;
use campaignd::provider::{FindError, Found, Provider, SendFailure, SendRequest};
use campaignd::runtime::{self, Options, Runtime};
use campaignd::store::{self, execution};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::harness::Db;

const WS: &str = "00000000-0000-7000-8000-000000000001";

#[derive(Default)]
struct Fake {
    sent: Mutex<Vec<SendId>>,
}

impl Provider for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }
    fn send<'a>(&'a self, request: &'a SendRequest) -> BoxFuture<'a, Result<Receipt, SendFailure>> {
        self.sent.lock().unwrap().push(request.send);
        Box::pin(async { Ok(Receipt::default()) })
    }
    fn find<'a>(&'a self, _: &'a SendRequest, _: Timestamp) -> BoxFuture<'a, Result<Found, FindError>> {
        Box::pin(async { Ok(Found::Absent) })
    }
}

async fn start(db: &Db, fake: &Arc<Fake>) -> Runtime {
    let pool = store::connect(&db.url, 8).await.unwrap();
    let mut providers: HashMap<String, Arc<dyn Provider>> = HashMap::new();
    providers.insert("fake".into(), Arc::clone(fake) as Arc<dyn Provider>);
    let runtime = runtime::start(Options::new(pool, Clock::System, providers)).await.unwrap();
    until(Duration::from_secs(20), async || runtime.handle().status().ready).await;
    runtime
}

/// Whether it came true in time.
async fn until(most: Duration, f: impl AsyncFn() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < most {
        if f().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

fn account(channel: &str) -> String {
    let id = Uuid::new_v4();
    format!(
        "INSERT INTO accounts (workspace_id, id, shard, channel, provider, provider_account_id, name) \
         VALUES ('{WS}', '{id}', campaignd_shard('{id}'), '{channel}', 'fake', '{id}', 'x'); \
         INSERT INTO account_gate (workspace_id, account_id, shard) VALUES ('{WS}', '{id}', campaignd_shard('{id}'));"
    )
}

fn campaign(id: Uuid, steps: &str) -> String {
    format!(
        "INSERT INTO campaigns (id, name, status, flow_settings) \
         VALUES ('{id}', 'c', 'active', '{{\"schema_version\":1,\"steps\":[{steps}]}}');"
    )
}

const MAIL: &str = r#"{"id":"mail","action":"send_email","subject":"s","message":"m"}"#;
const INVITE: &str = r#"{"id":"invite","action":"send_linkedin_cr"}"#;

/// A person with an execution.
fn person(campaign: Uuid, execution: Uuid, columns: &str, values: &str) -> String {
    let prospect = Uuid::new_v4();
    format!(
        "INSERT INTO campaign_prospects (id, campaign_id, first_name, email, linkedin_url) \
         VALUES ('{prospect}', '{campaign}', 'A', '{prospect}@x.test', 'https://www.linkedin.com/in/{prospect}'); \
         INSERT INTO campaign_prospect_execution_state (id, campaign_id, prospect_id, status, current_step{columns}) \
         VALUES ('{execution}', '{campaign}', '{prospect}', 'pending', 1{values});"
    )
}

async fn status(db: &Db, id: Uuid) -> String {
    sqlx::query_scalar("SELECT status FROM campaign_prospect_execution_state WHERE id = $1")
        .bind(id)
        .fetch_one(&db.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_infinite_time_in_one_row_does_not_hide_the_other_rows() {
    let db = Db::new().await;
    let c = Uuid::new_v4();
    db.script(campaign(c, MAIL)).await.unwrap();
    let bad = Uuid::new_v4();
    db.script(person(c, bad, ", next_execution_at", ", 'infinity'")).await.unwrap();
    for _ in 0..700 {
        db.script(person(c, Uuid::new_v4(), ", next_execution_at", ", now() + interval '1 day'")).await.unwrap();
    }
    let pool = store::connect(&db.url, 4).await.unwrap();
    let mut stream = execution::stream_open(&pool);
    let (mut rows, mut errors) = (0, 0);
    while let Some(row) = stream.next().await {
        if row.is_ok() { rows += 1 } else { errors += 1 }
    }
    assert_eq!((rows, errors), (701, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_infinite_time_does_not_end_the_loader() {
    let db = Db::new().await;
    let fake = Arc::new(Fake::default());
    let runtime = start(&db, &fake).await;
    let c = Uuid::new_v4();
    db.script(account("email")).await.unwrap();
    db.script(campaign(c, MAIL)).await.unwrap();
    runtime.handle().accounts_changed();
    tokio::time::sleep(Duration::from_millis(500)).await;
    db.script(person(c, Uuid::new_v4(), ", next_execution_at", ", 'infinity'")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let good = Uuid::new_v4();
    db.script(person(c, good, ", next_execution_at", ", now()")).await.unwrap();
    let through = until(Duration::from_secs(8), async || status(&db, good).await == "completed").await;
    let answered = tokio::time::timeout(
        Duration::from_secs(3),
        runtime.handle().deliver(ExecutionId(Uuid::new_v4()), Trigger::Stop),
    )
    .await
    .is_ok();
    tokio::time::timeout(Duration::from_secs(40), runtime.shutdown()).await.ok();
    assert!(through && answered, "through: {through}, an unknown execution is answered: {answered}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_the_loader_sees_first_gets_its_channel() {
    let db = Db::new().await;
    let fake = Arc::new(Fake::default());
    let runtime = start(&db, &fake).await;
    let (c, e) = (Uuid::new_v4(), Uuid::new_v4());
    // Another program adds an account, a campaign and a person in one commit.
    db.script(format!(
        "BEGIN; {} {} {} COMMIT;",
        account("email"),
        campaign(c, MAIL),
        person(c, e, ", next_execution_at", ", now()")
    ))
    .await
    .unwrap();
    let sent = until(Duration::from_secs(15), async || !fake.sent.lock().unwrap().is_empty()).await;
    let s = status(&db, e).await;
    runtime.shutdown().await;
    assert!(sent, "nobody dispatches it; execution {s}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skip_of_a_step_without_an_account_goes_on_with_the_next() {
    let db = Db::new().await;
    let fake = Arc::new(Fake::default());
    db.script(account("linkedin")).await.unwrap();
    let (c, e) = (Uuid::new_v4(), Uuid::new_v4());
    db.script(campaign(c, &format!("{MAIL},{INVITE}"))).await.unwrap();
    db.script(person(c, e, ", next_execution_at", ", now()")).await.unwrap();
    let runtime = start(&db, &fake).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(status(&db, e).await, "pending");
    runtime.handle().deliver(ExecutionId(e), Trigger::Skip).await.unwrap();
    let sent = until(Duration::from_secs(12), async || !fake.sent.lock().unwrap().is_empty()).await;
    let s = status(&db, e).await;
    runtime.shutdown().await;
    assert!(sent, "the invitation is due and sleeps; execution {s}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_is_over_before_anybody_looks_loses_no_send() {
    let db = Db::new().await;
    let fake = Arc::new(Fake::default());
    db.script(account("email")).await.unwrap();
    let (c, e) = (Uuid::new_v4(), Uuid::new_v4());
    db.script(campaign(c, MAIL)).await.unwrap();
    let runtime = start(&db, &fake).await;
    // Paused and resumed in the table within one poll, while somebody becomes due.
    tokio::time::sleep(Duration::from_millis(5300)).await;
    db.script(format!("UPDATE campaigns SET status = 'paused' WHERE id = '{c}'")).await.unwrap();
    db.script(person(c, e, ", next_execution_at", ", now()")).await.unwrap();
    until(Duration::from_secs(3), async || status(&db, e).await == "executing").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    db.script(format!("UPDATE campaigns SET status = 'active' WHERE id = '{c}'")).await.unwrap();
    let sent = until(Duration::from_secs(15), async || !fake.sent.lock().unwrap().is_empty()).await;
    let s = status(&db, e).await;
    runtime.shutdown().await;
    assert!(sent, "nobody dispatches it; execution {s}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_postgres_refuses_does_not_spin() {
    let db = Db::new().await;
    let fake = Arc::new(Fake::default());
    db.script(account("email")).await.unwrap();
    let (c, e) = (Uuid::new_v4(), Uuid::new_v4());
    db.script(campaign(c, MAIL)).await.unwrap();
    let gone = Uuid::new_v4();
    let account = format!(", '{{\"email\":\"{gone}\"}}', now()");
    db.script(person(c, e, ", channel_accounts, next_execution_at", &account)).await.unwrap();
    let runtime = start(&db, &fake).await;
    let rollbacks = async || {
        sqlx::query_scalar::<_, i64>("SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()")
            .fetch_one(&db.pool)
            .await
            .unwrap()
    };
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = rollbacks().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let spun = rollbacks().await - before;
    tokio::time::timeout(Duration::from_secs(40), runtime.shutdown()).await.ok();
    assert!(spun < 50, "{spun} refused statements in 5 s for one row");
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_about_strangers_do_not_hold_up_a_reply() {
    let db = Db::new().await;
    let fake = Arc::new(Fake::default());
    let (c, e) = (Uuid::new_v4(), Uuid::new_v4());
    db.script(campaign(c, MAIL)).await.unwrap();
    db.script(person(c, e, ", next_execution_at", ", now() + interval '1 day'")).await.unwrap();
    db.script(format!(
        "INSERT INTO inbox (workspace_id, id, source, dedupe_key, body, received_at) \
         SELECT '{WS}', gen_random_uuid(), 'api', 'k' || n, convert_to('{{\"trigger\":\"reply\",\"channel\":\"email\",\"prospect_id\":\"' || gen_random_uuid() || '\"}}', 'UTF8'), \
         now() - interval '1 minute' FROM generate_series(1, 1000) n; \
         INSERT INTO inbox (workspace_id, id, source, dedupe_key, body, received_at) \
         SELECT '{WS}', gen_random_uuid(), 'api', 'mine', convert_to('{{\"trigger\":\"reply\",\"channel\":\"email\",\"prospect_id\":\"' || prospect_id || '\"}}', 'UTF8'), now() \
         FROM campaign_prospect_execution_state WHERE id = '{e}';"
    ))
    .await
    .unwrap();
    let runtime = start(&db, &fake).await;
    let begun = Instant::now();
    until(Duration::from_secs(60), async || status(&db, e).await == "completed").await;
    let took = begun.elapsed();
    runtime.shutdown().await;
    assert!(took < Duration::from_secs(5), "the reply was applied after {took:?}");
}

/// Answers only when told to.
#[derive(Default)]
struct Slow {
    calls: Mutex<Vec<(SendId, Option<String>)>>,
    go: tokio::sync::Notify,
}

impl Provider for Slow {
    fn name(&self) -> &'static str {
        "fake"
    }
    fn send<'a>(&'a self, request: &'a SendRequest) -> BoxFuture<'a, Result<Receipt, SendFailure>> {
        let first = {
            let mut calls = self.calls.lock().unwrap();
            calls.push((request.send, request.body.clone()));
            calls.len() == 1
        };
        Box::pin(async move {
            if first {
                self.go.notified().await;
            }
            Ok(Receipt::default())
        })
    }
    fn find<'a>(&'a self, _: &'a SendRequest, _: Timestamp) -> BoxFuture<'a, Result<Found, FindError>> {
        Box::pin(async { Ok(Found::Absent) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skip_then_restart_of_a_step_whose_send_is_under_way_sends_it_once() {
    let db = Db::new().await;
    let slow = Arc::new(Slow::default());
    db.script(account("email")).await.unwrap();
    let (c, e) = (Uuid::new_v4(), Uuid::new_v4());
    db.script(campaign(c, MAIL)).await.unwrap();
    db.script(person(c, e, ", next_execution_at", ", now()")).await.unwrap();
    let pool = store::connect(&db.url, 8).await.unwrap();
    let mut providers: HashMap<String, Arc<dyn Provider>> = HashMap::new();
    providers.insert("fake".into(), Arc::clone(&slow) as Arc<dyn Provider>);
    let runtime = runtime::start(Options::new(pool, Clock::System, providers)).await.unwrap();
    assert!(until(Duration::from_secs(10), async || slow.calls.lock().unwrap().len() == 1).await);
    let handle = runtime.handle();
    let restarted = async || handle.deliver(ExecutionId(e), Trigger::Restart { step: 1 }).await.unwrap();
    eprintln!("restart while in flight: {:?}", restarted().await);
    eprintln!("skip: {:?}", handle.deliver(ExecutionId(e), Trigger::Skip).await.unwrap());
    eprintln!("restart after the skip: {:?}", restarted().await);
    slow.go.notify_one();
    until(Duration::from_secs(5), async || slow.calls.lock().unwrap().len() > 1).await;
    let calls = slow.calls.lock().unwrap().clone();
    runtime.shutdown().await;
    assert_eq!(calls.len(), 1, "the person got the same mail {} times: {calls:?}", calls.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_is_corrected_while_its_campaign_is_active_wakes_its_people() {
    let db = Db::new().await;
    let fake = Arc::new(Fake::default());
    db.script(account("email")).await.unwrap();
    let (c, e) = (Uuid::new_v4(), Uuid::new_v4());
    db.script(campaign(c, r#"{"id":"x","action":"dance"}"#)).await.unwrap();
    db.script(person(c, e, ", next_execution_at", ", now()")).await.unwrap();
    let runtime = start(&db, &fake).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    db.script(format!(
        "UPDATE campaigns SET flow_settings = '{{\"schema_version\":1,\"steps\":[{MAIL}]}}' WHERE id = '{c}'"
    ))
    .await
    .unwrap();
    let sent = until(Duration::from_secs(14), async || !fake.sent.lock().unwrap().is_empty()).await;
    let s = status(&db, e).await;
    runtime.shutdown().await;
    assert!(sent, "it sleeps; execution {s}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_the_lease_takes_no_arrivals() {
    let db = Db::new().await;
    let fake = Arc::new(Fake::default());
    db.script(account("email")).await.unwrap();
    let c = Uuid::new_v4();
    db.script(campaign(c, MAIL)).await.unwrap();
    let runtime = start(&db, &fake).await;
    // Somebody else takes over; this node has not noticed yet (it looks every five seconds).
    tokio::time::sleep(Duration::from_millis(5300)).await;
    db.script("UPDATE shard_lease SET owner = gen_random_uuid(), incarnation = 1, epoch = epoch + 1").await.unwrap();
    db.script(person(c, Uuid::new_v4(), ", next_execution_at", ", now()")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM execution_arrivals").fetch_one(&db.pool).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), runtime.shutdown()).await.ok();
    assert_eq!(left, 1, "the arrival is gone, and the new owner never sees it");
}
