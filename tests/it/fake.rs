//! A provider that does as it is told and remembers what it was asked, and a rig that runs the runtime against it.
//!
//! The provider's ledger is the truth about what people received: a contact is a person and a text, so a step that was
//! sent twice under two ids counts twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use campaignd::clock::Clock;
use campaignd::domain::account::Channel;
use campaignd::domain::execution::Execution;
use campaignd::domain::flow::{self, Flow};
use campaignd::domain::id::{AccountId, CampaignId, ExecutionId, SendId, WorkspaceId};
use campaignd::domain::send::{FailureClass, Receipt};
use campaignd::domain::step::{Decision, step};
use campaignd::domain::time::Timestamp;
use campaignd::domain::trigger::Trigger;
use campaignd::provider::{FindError, Found, Provider, SendFailure, SendRequest};
use campaignd::runtime::{self, DeliverError, Delivery, Handle, Options, Runtime};
use campaignd::store::execution::{self, Loaded};
use campaignd::store::{self, Pool, row};
use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use crate::harness::Db;

/// Id, status, open send, send's status, last error of an execution that has not ended.
type OpenRow = (Uuid, String, Option<Uuid>, Option<String>, Option<String>);

/// The workspace that every database has.
pub(crate) const WORKSPACE: WorkspaceId = WorkspaceId(Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001));
/// 2026-01-05 09:00 UTC, a Monday.
pub(crate) const NOW: Timestamp = Timestamp::from_micros(1_767_603_600_000_000);
/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a row.
const LOOK: Duration = Duration::from_millis(5);

pub(crate) fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

/// What the provider does with one call.
#[derive(Clone)]
pub(crate) enum Act {
    /// The person has it.
    Ok,
    /// Definitely not sent.
    Refuse(FailureClass, &'static str),
    /// Nothing was sent, and nobody is told.
    UnknownBefore,
    /// The person has it, and nobody is told.
    UnknownAfter,
    /// Nothing was sent under this request's key, but something else.
    Conflict,
    /// The person has it, and the program crashes.
    PanicAfter,
    /// Waits for a permit, then acts.
    Hold(Arc<Semaphore>, Box<Act>),
    /// Takes its time, then acts.
    Slow(Duration, Box<Act>),
}

/// What the provider answers when it is asked what became of a send.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// The truth.
    Ledger,
    /// It cannot be asked.
    Error,
    /// It shows nothing, whatever was sent.
    Absent,
    /// The person is a connection.
    Connected,
}

/// One call as the provider got it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) send: SendId,
    pub(crate) account: String,
    pub(crate) person: String,
    pub(crate) text: String,
    pub(crate) at: Instant,
}

type Script = Box<dyn FnMut(&SendRequest, usize) -> Act + Send>;
type ReadScript = Box<dyn FnMut(&SendRequest, usize) -> Read + Send>;

struct Inner {
    script: Script,
    reads: ReadScript,
    calls: Vec<Call>,
    finds: Vec<SendId>,
    looked: Vec<(SendRequest, Timestamp)>,
    running: HashMap<String, usize>,
    overlaps: usize,
    received: BTreeMap<(String, String), u32>,
}

/// See the module's text.
pub(crate) struct Fake {
    inner: Mutex<Inner>,
    called: watch::Sender<usize>,
    asked: watch::Sender<usize>,
}

impl Fake {
    /// Sends everything and tells the truth.
    pub(crate) fn new() -> Arc<Self> {
        let inner = Inner {
            script: Box::new(|_, _| Act::Ok),
            reads: Box::new(|_, _| Read::Ledger),
            calls: Vec::new(),
            finds: Vec::new(),
            looked: Vec::new(),
            running: HashMap::new(),
            overlaps: 0,
            received: BTreeMap::new(),
        };
        Arc::new(Self { inner: Mutex::new(inner), called: watch::Sender::new(0), asked: watch::Sender::new(0) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do from now on; the number says how often this send was asked for before.
    pub(crate) fn script(&self, script: impl FnMut(&SendRequest, usize) -> Act + Send + 'static) {
        self.inner().script = Box::new(script);
    }

    /// What to answer from now on; the number says how often this send was read back before.
    pub(crate) fn reads(&self, script: impl FnMut(&SendRequest, usize) -> Read + Send + 'static) {
        self.inner().reads = Box::new(script);
    }

    /// Every call holds until the answered semaphore gives a permit.
    pub(crate) fn hold(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        let handed = Arc::clone(&gate);
        self.script(move |_, _| Act::Hold(Arc::clone(&handed), Box::new(Act::Ok)));
        gate
    }

    /// The person has this text already.
    pub(crate) fn has_received(&self, person: &str, text: &str) {
        *self.inner().received.entry((person.into(), text.into())).or_default() += 1;
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.inner().calls.clone()
    }

    pub(crate) fn finds(&self) -> Vec<SendId> {
        self.inner().finds.clone()
    }

    /// What was read back, and from when on.
    pub(crate) fn looked(&self) -> Vec<(SendRequest, Timestamp)> {
        self.inner().looked.clone()
    }

    /// How often which person received which text.
    pub(crate) fn received(&self) -> BTreeMap<(String, String), u32> {
        self.inner().received.clone()
    }

    /// What arrived more than once.
    pub(crate) fn doubled(&self) -> Vec<(String, String)> {
        self.received().into_iter().filter(|(_, n)| *n > 1).map(|(key, _)| key).collect()
    }

    /// Calls that began while another of the same account was running.
    pub(crate) fn overlaps(&self) -> usize {
        self.inner().overlaps
    }

    /// Waits until there were that many calls.
    pub(crate) async fn until_calls(&self, n: usize) {
        let mut seen = self.called.subscribe();
        let seen = tokio::time::timeout(PATIENCE, seen.wait_for(|calls| *calls >= n)).await;
        assert!(seen.is_ok(), "{} of {n} calls in time", self.inner().calls.len());
    }

    /// Waits until there were that many reads back.
    pub(crate) async fn until_finds(&self, n: usize) {
        let mut seen = self.asked.subscribe();
        let seen = tokio::time::timeout(PATIENCE, seen.wait_for(|finds| *finds >= n)).await;
        assert!(seen.is_ok(), "{} of {n} reads in time", self.inner().finds.len());
    }

    fn deliver(&self, request: &SendRequest) -> Receipt {
        let key = key(request);
        let receipt = receipt(request, &key.0);
        *self.inner().received.entry(key).or_default() += 1;
        receipt
    }

    async fn act(&self, request: &SendRequest, mut act: Act) -> Result<Receipt, SendFailure> {
        loop {
            act = match act {
                Act::Ok => return Ok(self.deliver(request)),
                Act::Refuse(class, code) => {
                    return Err(SendFailure::Refused {
                        class,
                        code: code.to_owned(),
                        message: "no".to_owned(),
                        learnt: Receipt::default(),
                    });
                }
                Act::UnknownBefore => return Err(unknown()),
                Act::Conflict => return Err(SendFailure::Conflict { message: "409".to_owned() }),
                Act::UnknownAfter => {
                    self.deliver(request);
                    return Err(unknown());
                }
                Act::PanicAfter => {
                    self.deliver(request);
                    panic!("the provider's client crashed");
                }
                Act::Hold(gate, then) => {
                    gate.acquire().await.unwrap().forget();
                    *then
                }
                Act::Slow(wait, then) => {
                    tokio::time::sleep(wait).await;
                    *then
                }
            };
        }
    }
}

fn unknown() -> SendFailure {
    SendFailure::Unknown { message: "timed out".to_owned(), learnt: Receipt::default() }
}

/// Who is told what.
fn key(request: &SendRequest) -> (String, String) {
    let text = request.body.clone().or_else(|| request.subject.clone()).unwrap_or_default();
    (request.recipient.name.clone().unwrap_or_default(), text)
}

fn receipt(request: &SendRequest, person: &str) -> Receipt {
    Receipt {
        recipient_id: Some(format!("ACo-{person}")),
        chat_id: Some(format!("chat-{person}")),
        message_id: Some(format!("message-{}", request.send)),
        ..Receipt::default()
    }
}

/// A call that is running, also when its future is dropped.
struct Running<'a>(&'a Fake, String);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *self.0.inner().running.entry(self.1.clone()).or_default() -= 1;
    }
}

impl Provider for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn send<'a>(&'a self, request: &'a SendRequest) -> BoxFuture<'a, Result<Receipt, SendFailure>> {
        Box::pin(async move {
            let account = request.provider_account_id.clone();
            let (person, text) = key(request);
            let act = {
                let mut inner = self.inner();
                let earlier = inner.calls.iter().filter(|c| c.send == request.send).count();
                let running = inner.running.entry(account.clone()).or_default();
                *running += 1;
                if *running > 1 {
                    inner.overlaps += 1;
                }
                let call = Call { send: request.send, account: account.clone(), person, text, at: Instant::now() };
                inner.calls.push(call);
                (inner.script)(request, earlier)
            };
            let _running = Running(self, account);
            self.called.send_modify(|n| *n += 1);
            self.act(request, act).await
        })
    }

    fn find<'a>(&'a self, request: &'a SendRequest, since: Timestamp) -> BoxFuture<'a, Result<Found, FindError>> {
        Box::pin(async move {
            let key = key(request);
            let (read, found) = {
                let mut inner = self.inner();
                let earlier = inner.finds.iter().filter(|s| **s == request.send).count();
                inner.finds.push(request.send);
                inner.looked.push((request.clone(), since));
                ((inner.reads)(request, earlier), inner.received.contains_key(&key))
            };
            self.asked.send_modify(|n| *n += 1);
            match (read, found) {
                (Read::Error, _) => Err(FindError { message: "not now".to_owned() }),
                (Read::Ledger, true) => Ok(Found::Sent(receipt(request, &key.0))),
                (Read::Connected, _) => Ok(Found::Connected(receipt(request, &key.0))),
                (Read::Ledger, false) | (Read::Absent, _) => Ok(Found::Absent),
            }
        })
    }
}

/// A database, a clock, the provider, and the runtime once it is started.
pub(crate) struct Rig {
    pub(crate) db: Db,
    pub(crate) pool: Pool,
    pub(crate) clock: Clock,
    pub(crate) fake: Arc<Fake>,
    pub(crate) runtime: Option<Runtime>,
    /// Prospects so far: no two have a name in common.
    people: AtomicU32,
}

impl Rig {
    /// On a migrated database with nothing in it.
    pub(crate) async fn new(clock: Clock) -> Self {
        Self::on(Db::new().await, clock).await
    }

    /// Gives an account these limits.
    pub(crate) async fn limit(&self, account: AccountId, limits: &Value) {
        let change = "UPDATE accounts SET limits = $2 WHERE id = $1";
        sqlx::query(change).bind(account.0).bind(limits).execute(&self.db.pool).await.unwrap();
    }

    /// With a clock that only the test moves.
    pub(crate) async fn manual() -> Self {
        Self::new(Clock::manual(NOW)).await
    }

    /// With a clock on which an hour takes a second.
    pub(crate) async fn fast() -> Self {
        Self::new(Clock::scaled_from_now(3600.0)).await
    }

    pub(crate) async fn on(db: Db, clock: Clock) -> Self {
        let pool = store::connect(&db.url, 16).await.unwrap();
        Self { db, pool, clock, fake: Fake::new(), runtime: None, people: AtomicU32::new(0) }
    }

    /// A sending account; `name` is also its id with the provider.
    pub(crate) async fn account(&self, channel: Channel, name: &str) -> AccountId {
        let id = AccountId(Uuid::now_v7());
        let shard = id.shard();
        self.db
            .script(format!(
                "INSERT INTO accounts (workspace_id, id, shard, channel, provider, provider_account_id, name)
                     VALUES ('{WORKSPACE}', '{id}', {shard}, '{channel}', 'fake', '{name}', '{name}');
                 INSERT INTO account_gate (workspace_id, account_id, shard) VALUES ('{WORKSPACE}', '{id}', {shard});"
            ))
            .await
            .unwrap();
        id
    }

    /// An active campaign as another program makes it.
    pub(crate) async fn campaign(&self, flow: &Value) -> CampaignId {
        let id: Uuid = sqlx::query_scalar(
            "INSERT INTO campaigns (name, status, flow_settings) VALUES ('c', 'active', $1) RETURNING id",
        )
        .bind(flow)
        .fetch_one(&self.db.pool)
        .await
        .unwrap();
        CampaignId(id)
    }

    /// Prospects of a campaign, due now. The first ever is `P1`, and so on.
    pub(crate) async fn prospects(&self, campaign: CampaignId, n: u32) -> Vec<ExecutionId> {
        let ids: Vec<ExecutionId> = (0..n).map(|_| ExecutionId(Uuid::now_v7())).collect();
        self.insert(campaign, &ids).await;
        ids
    }

    /// Prospects with these execution ids.
    pub(crate) async fn insert(&self, campaign: CampaignId, ids: &[ExecutionId]) {
        let before = self.people.fetch_add(u32::try_from(ids.len()).unwrap(), Ordering::Relaxed);
        sqlx::query(
            "WITH want AS (SELECT id, n, gen_random_uuid() AS prospect FROM unnest($1::uuid[]) WITH ORDINALITY AS u (id, n)),
             people AS (INSERT INTO campaign_prospects (id, campaign_id, workspace_id, first_name, email, phone, linkedin_url)
                 SELECT prospect, $2, $3, 'P' || $4 + n, 'p' || $4 + n || '@example.org', '+4930100' || $4 + n,
                     'https://www.linkedin.com/in/p' || $4 + n FROM want)
             INSERT INTO campaign_prospect_execution_state (id, campaign_id, prospect_id, next_execution_at)
             SELECT id, $2, prospect, $5 FROM want",
        )
        .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
        .bind(campaign.0)
        .bind(WORKSPACE.0)
        .bind(i64::from(before))
        .bind(self.clock.now().to_utc())
        .execute(&self.db.pool)
        .await
        .unwrap();
    }

    pub(crate) fn options(&self) -> Options {
        let fake: Arc<dyn Provider> = Arc::clone(&self.fake) as Arc<dyn Provider>;
        Options::new(self.pool.clone(), self.clock.clone(), HashMap::from([("fake".to_owned(), fake)]))
    }

    pub(crate) async fn start(&mut self) {
        self.start_with(|_| ()).await;
    }

    pub(crate) async fn start_with(&mut self, change: impl FnOnce(&mut Options)) {
        let mut options = self.options();
        change(&mut options);
        let started = tokio::time::timeout(PATIENCE, runtime::start(options)).await;
        self.runtime = Some(started.expect("started in time").unwrap());
        // Read back: what happens from here on is not the start's doing.
        self.wait("the runtime is ready", async || self.handle().status().ready).await;
    }

    /// Shuts the runtime down; answers what it answers.
    pub(crate) async fn stop(&mut self) -> bool {
        self.runtime.take().expect("a runtime").shutdown().await
    }

    pub(crate) fn handle(&self) -> Handle {
        self.runtime.as_ref().expect("a runtime").handle()
    }

    /// Hands over a trigger that must be applied.
    pub(crate) async fn apply(&self, execution: ExecutionId, trigger: Trigger) {
        match self.handle().deliver(execution, trigger.clone()).await {
            Ok(Delivery::Applied { .. }) => {}
            other => panic!("{}: {other:?}", trigger.name()),
        }
    }

    /// Hands over a trigger that changes nothing; answers why.
    pub(crate) async fn refused(&self, execution: ExecutionId, trigger: Trigger) -> &'static str {
        match self.handle().deliver(execution, trigger.clone()).await {
            Ok(Delivery::Rejected { reason }) => reason,
            other => panic!("{}: {other:?}", trigger.name()),
        }
    }

    /// Hands over a trigger, whatever becomes of it.
    pub(crate) async fn offer(&self, execution: ExecutionId, trigger: Trigger) -> Result<Delivery, DeliverError> {
        self.handle().deliver(execution, trigger).await
    }

    /// The row as it is now.
    pub(crate) async fn execution(&self, id: ExecutionId) -> Execution {
        self.executions(&[id]).await.remove(0)
    }

    /// The rows, in the order of the ids.
    pub(crate) async fn executions(&self, ids: &[ExecutionId]) -> Vec<Execution> {
        let loaded = execution::load(&self.db.pool, ids).await.unwrap();
        let mut found: HashMap<ExecutionId, Execution> = loaded
            .into_iter()
            .map(|l| match l {
                Loaded::Ready { execution, .. } => (execution.id, *execution),
                Loaded::Undecodable { id, reason } => panic!("{id}: {reason}"),
            })
            .collect();
        ids.iter().map(|id| found.remove(id).expect("a row")).collect()
    }

    /// Looks at the row until it is as wanted.
    pub(crate) async fn until(&self, id: ExecutionId, what: &str, wanted: impl Fn(&Execution) -> bool) -> Execution {
        let started = Instant::now();
        loop {
            let row = self.execution(id).await;
            if wanted(&row) {
                return row;
            }
            assert!(started.elapsed() < PATIENCE, "{what}: {row:#?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Looks until this holds.
    pub(crate) async fn wait(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let started = Instant::now();
        while !holds().await {
            assert!(started.elapsed() < PATIENCE, "not in time: {what}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Looks until this query answers true.
    pub(crate) async fn until_true(&self, sql: &str) {
        self.wait(sql, async || self.one::<bool>(sql).await).await;
    }

    /// Waits until everybody's execution has ended and no send is open.
    pub(crate) async fn until_all_final(&self) {
        let started = Instant::now();
        loop {
            let open: Vec<OpenRow> = sqlx::query_as(
                "SELECT e.id, e.status, e.open_send, s.status, e.last_error FROM campaign_prospect_execution_state e \
                 LEFT JOIN sends s ON s.id = e.open_send \
                 WHERE e.status NOT IN ('completed', 'failed') OR e.open_send IS NOT NULL",
            )
            .fetch_all(&self.db.pool)
            .await
            .unwrap();
            if open.is_empty() {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{} are still open: {:#?}", open.len(), &open[..open.len().min(5)]);
            tokio::time::sleep(LOOK * 4).await;
        }
    }

    /// Moves a manual clock in small steps until this holds: for what takes many timers.
    pub(crate) async fn advance_until(&self, by: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let started = Instant::now();
        while !holds().await {
            assert!(started.elapsed() < PATIENCE, "not in time: {what}");
            self.clock.advance(by);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The answer of a query with one value.
    pub(crate) async fn one<T>(&self, sql: &str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&self.db.pool).await.expect(sql)
    }

    /// The sends of an execution as `step attempt status`, oldest first.
    pub(crate) async fn sends(&self, id: ExecutionId) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT step || ' ' || attempt || ' ' || status FROM sends WHERE execution_id = $1 \
             ORDER BY created_at, step, attempt",
        )
        .bind(id.0)
        .fetch_all(&self.db.pool)
        .await
        .unwrap()
    }

    /// See [`assert_replays`].
    pub(crate) async fn assert_replays(&self, before: Vec<Execution>, flow: &Flow) -> usize {
        let ids: Vec<ExecutionId> = before.iter().map(|e| e.id).collect();
        assert_replays(&self.db.pool, before, self.executions(&ids).await, flow).await
    }
}

/// Replays the transitions of these executions from the states they had, and compares with what is stored.
pub(crate) async fn assert_replays(
    pool: &PgPool,
    before: Vec<Execution>,
    stored: Vec<Execution>,
    flow: &Flow,
) -> usize {
    type Line = (Uuid, String, Option<Value>, DateTime<Utc>, i64);
    let lines: Vec<Line> = sqlx::query_as(
        "SELECT execution_id, trigger, detail, at, version FROM transitions WHERE execution_id = ANY($1) \
         ORDER BY execution_id, version",
    )
    .bind(before.iter().map(|e| e.id.0).collect::<Vec<_>>())
    .fetch_all(pool)
    .await
    .unwrap();
    for (mut e, stored) in before.into_iter().zip(stored) {
        e.flow_version = stored.flow_version;
        let id = e.id.0;
        for (_, name, detail, at, version) in lines.iter().filter(|l| l.0 == id) {
            let trigger = row::trigger(name, detail.as_ref()).unwrap();
            match step(&e, flow, &trigger, Timestamp::from(*at)) {
                Decision::Transition { next, .. } => e = *next,
                Decision::Rejected(why) => panic!("{}: {trigger:?} at {version}: {why:?} of {e:#?}", e.id),
            }
            assert_eq!(e.version, *version, "{name}");
        }
        // Drawn by the runtime, not decided by the core.
        e.accounts = stored.accounts;
        assert_eq!(e, stored, "replayed on the left");
    }
    lines.len()
}

/// The seed's example, with short texts.
pub(crate) fn seed_flow() -> Value {
    json!({"schema_version": 1, "steps": [
        {"id": "invite", "action": "send_linkedin_cr", "message": "invite",
         "wait_for": {"trigger": "connection_accepted", "timeout": "72h"}},
        {"id": "intro", "action": "send_email", "subject": "s", "message": "intro", "delay": "48h"},
        {"id": "nudge", "action": "send_linkedin_message", "message": "nudge", "delay": "120h",
         "requires": ["connected"]}]})
}

/// That many mails, an hour apart, with the texts `m1`, `m2`, ..
pub(crate) fn mails(n: usize) -> Value {
    let steps: Vec<Value> = (1..=n)
        .map(|i| json!({"id": format!("m{i}"), "action": "send_email", "subject": "s", "message": format!("m{i}"), "delay": "1h"}))
        .collect();
    json!({"schema_version": 1, "steps": steps})
}

pub(crate) fn parsed(flow: &Value) -> Flow {
    flow::parse(flow).unwrap()
}
