//! What happens when webhooks do not come: the runtime and the real client against the sandbox, to which no webhook is ever
//! registered. Everything that is learnt is read back from lists. And what the client sends that only a provider can judge:
//! threads, InMails, visits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use campaignd::clock::Clock;
use campaignd::domain::account::Channel;
use campaignd::domain::execution::{ExitReason, Status};
use campaignd::domain::id::{ExecutionId, InboxId};
use campaignd::domain::send::Receipt;
use campaignd::domain::time::Timestamp;
use campaignd::provider::unipile::{self, Unipile};
use campaignd::provider::{
    FindError, Found, Lists, Missed, Page, Provider, Relation, Secret, SendFailure, SendRequest, Standing,
};
use campaignd::sandbox::{self, LINKEDIN_ONE, MAIL_ONE, Server};
use campaignd::store::inbox::{self, NewInbox, Stored};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fake::{NOW, Rig, WORKSPACE, hours};

/// The runtime, and the provider it works with.
struct World {
    rig: Rig,
    sandbox: Server,
    http: reqwest::Client,
}

impl World {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clock = Clock::manual(NOW);
        let options = sandbox::Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            clock: clock.clone(),
            null_ids_share: 0.0,
            ..sandbox::Options::default()
        };
        let sandbox = sandbox::start(options).await.unwrap();
        Self { rig: Rig::new(clock).await, sandbox, http: reqwest::Client::new() }
    }

    async fn account(&self, channel: Channel, name: &str) {
        let id = self.rig.account(channel, name).await;
        self.rig.db.script(format!("UPDATE accounts SET provider = 'unipile' WHERE id = '{id}'")).await.unwrap();
    }

    /// People of a campaign, by a word that is their profile and the name of their mailbox. They never act by themselves.
    async fn people(&self, flow: &Value, names: &[&str]) -> Vec<ExecutionId> {
        let campaign = self.rig.campaign(flow).await;
        let ids = self.rig.prospects(campaign, u32::try_from(names.len()).unwrap()).await;
        for (id, name) in ids.iter().zip(names) {
            let (slug, mail) = (profile(name), mailbox(name));
            self.rig
                .db
                .script(format!(
                    "UPDATE campaign_prospects p SET linkedin_url = 'https://www.linkedin.com/in/{slug}', email = '{mail}' \
                     FROM campaign_prospect_execution_state e WHERE e.prospect_id = p.id AND e.id = '{id}'"
                ))
                .await
                .unwrap();
        }
        ids
    }

    async fn start(&mut self) {
        let base = format!("http://{}", self.sandbox.addr());
        let unipile = Unipile::new(unipile::Options::new(base, Secret::new("sandbox"))).unwrap();
        let unipile: Arc<dyn Provider> = Arc::new(unipile);
        self.rig.start_with(|o| o.providers = HashMap::from([("unipile".to_owned(), unipile)])).await;
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Value {
        let answer = request.header("X-API-KEY", "sandbox").send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert!(status.is_success(), "{status}: {body}");
        body
    }

    async fn get(&self, path: &str) -> Value {
        self.ask(self.http.get(format!("http://{}{path}", self.sandbox.addr()))).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.ask(self.http.post(format!("http://{}{path}", self.sandbox.addr())).json(&body)).await
    }

    async fn act(&self, identity: &str, act: &str) {
        self.post("/sandbox/act", json!({"identity": identity, "act": act})).await;
    }

    /// Requests are refused with an error, and nothing happens.
    async fn fault(&self, endpoint: &str, status: u16, kind: &str, times: Option<u32>) {
        let rule = json!({"match": {"endpoint": endpoint}, "effect": "fail_before", "status": status, "type": kind,
            "times": times});
        self.post("/sandbox/faults", rule).await;
    }

    async fn clear_faults(&self) {
        self.ask(self.http.delete(format!("http://{}/sandbox/faults", self.sandbox.addr()))).await;
    }

    /// What a person was sent, in order: of a kind of the ledger's.
    async fn sent(&self, kind: &str, identity: &str) -> Vec<Value> {
        let ledger = self.get("/sandbox/ledger").await;
        let items = ledger["items"].as_array().unwrap().iter();
        items.filter(|e| e["kind"] == kind && e["recipient_public"] == identity).cloned().collect()
    }

    async fn texts(&self, kind: &str, identity: &str) -> Vec<String> {
        self.sent(kind, identity).await.iter().map(|e| e["text"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Waits until the ledger holds so many of a kind for a person.
    async fn until_sent(&self, kind: &str, identity: &str, n: usize) {
        self.rig.wait(&format!("{n} {kind} to {identity}"), async || self.sent(kind, identity).await.len() >= n).await;
    }

    /// Stores a fact as the receiver does, and has it looked at.
    async fn webhook(&self, key: &str, body: &Value) -> Stored {
        let new = NewInbox {
            workspace: WORKSPACE,
            id: InboxId(Uuid::now_v7()),
            source: "unipile".to_owned(),
            dedupe_key: key.to_owned(),
            headers: None,
            body: body.to_string().into_bytes(),
            received_at: self.rig.clock.now(),
            shard: None,
        };
        let stored = inbox::store(&self.rig.pool, &new).await.unwrap();
        self.rig.handle().inbox();
        stored
    }

    async fn status_webhook(&self, account: &str, message: &str) {
        let body = json!({"AccountStatus": {"account_id": account, "account_type": "X", "message": message}});
        let key = format!("unipile:account_status:{account}:{message}:{}", self.rig.clock.now().as_micros());
        assert_eq!(self.webhook(&key, &body).await, Stored::New);
    }

    /// The triggers that moved an execution, oldest first.
    async fn triggers(&self, id: ExecutionId) -> Vec<String> {
        sqlx::query_scalar("SELECT trigger FROM transitions WHERE execution_id = $1 ORDER BY version")
            .bind(id.0)
            .fetch_all(&self.rig.db.pool)
            .await
            .unwrap()
    }

    async fn stop(mut self) {
        assert!(self.rig.stop().await);
        self.sandbox.stop().await;
    }
}

fn profile(name: &str) -> String {
    format!("{name}-never-accepts-never-replies")
}

fn mailbox(name: &str) -> String {
    format!("{name}@never-replies.example")
}

/// Two mails, two days apart.
fn two_mails() -> Value {
    json!({"schema_version": 1, "steps": [
        {"id": "m1", "action": "send_email", "subject": "s", "message": "m1", "delay": "48h"},
        {"id": "m2", "action": "send_email", "subject": "s", "message": "m2"}]})
}

/// Invites, and writes to who has accepted.
fn invite_then_write(note: Option<&str>) -> Value {
    let wait =
        json!({"trigger": "connection_accepted", "timeout": "300h", "max_checks": 300, "on_timeout": "complete"});
    let mut invite = json!({"id": "invite", "action": "send_linkedin_cr", "wait_for": wait});
    if let Some(note) = note {
        invite["message"] = note.into();
    }
    json!({"schema_version": 1, "steps": [
        invite,
        {"id": "hello", "action": "send_linkedin_message", "message": "hello", "delay": "48h"},
        {"id": "again", "action": "send_linkedin_message", "message": "again"},
    ]})
}

#[tokio::test]
async fn acceptances_are_found_by_a_few_scans_a_day_when_every_webhook_is_lost() {
    let mut world = World::new().await;
    world.account(Channel::Linkedin, LINKEDIN_ONE).await;
    let names = ["ann", "ben", "cem"];
    let ids = world.people(&invite_then_write(None), &names).await;
    world.start().await;
    for id in &ids {
        world.rig.until(*id, "waiting", |e| e.status == Status::WaitingTrigger).await;
    }
    for name in ["ann", "ben"] {
        world.act(&profile(name), "accept").await;
        // Two stretches hold a scan, wherever in them it is.
        world.rig.clock.advance(hours(12));
        world.until_sent("message", &profile(name), 1).await;
        assert_eq!(world.texts("message", &profile(name)).await, ["hello"]);
    }
    let cem = world.rig.until(ids[2], "still waiting", |e| e.trigger_check_count > 0).await;
    assert_eq!((cem.status, cem.is_connected()), (Status::WaitingTrigger, false));
    let accepted = world.triggers(ids[0]).await.iter().filter(|t| *t == "connection_accepted").count();
    assert_eq!(accepted, 1, "the second scan sees the same connection, which is known");
    let scanned: bool = world.rig.one("SELECT relations_read_at IS NOT NULL FROM account_catch_up").await;
    assert!(scanned, "how far it was scanned outlives the process");
    world.stop().await;
}

#[tokio::test]
async fn a_first_scan_that_fails_is_made_again_soon() {
    let mut world = World::new().await;
    world.account(Channel::Linkedin, LINKEDIN_ONE).await;
    world.rig.db.script(format!("UPDATE accounts SET created_at = '{NOW}'")).await.unwrap();
    let ids = world.people(&invite_then_write(None), &["ann"]).await;
    world.fault("GET /users/relations", 500, "provider_error", None).await;
    world.start().await;
    world.rig.until(ids[0], "waiting", |e| e.status == Status::WaitingTrigger).await;
    world.act(&profile("ann"), "accept").await;
    world
        .rig
        .advance_until(Duration::from_secs(600), "a scan fails", async || {
            world.get("/sandbox/faults").await["items"][0]["struck"].as_u64() > Some(0)
        })
        .await;
    let failed_at = world.rig.clock.now();
    world.clear_faults().await;
    world
        .rig
        .advance_until(Duration::from_secs(10), "it is made again", async || {
            world.rig.one::<bool>("SELECT relations_read_at IS NOT NULL FROM account_catch_up").await
        })
        .await;
    assert!(world.rig.clock.now() < failed_at + hours(1), "{} after {failed_at}", world.rig.clock.now());
    world.until_sent("message", &profile("ann"), 1).await;
    world.stop().await;
}

#[tokio::test]
async fn a_notes_echo_tells_the_acceptance_and_a_message_typed_by_hand_pauses_the_prospect() {
    let mut world = World::new().await;
    world.account(Channel::Linkedin, LINKEDIN_ONE).await;
    let ids = world.people(&invite_then_write(Some("our note")), &["ann", "ben"]).await;
    world.start().await;
    for (id, name) in ids.iter().zip(["ann", "ben"]) {
        world.rig.until(*id, "waiting", |e| e.status == Status::WaitingTrigger).await;
        world.act(&profile(name), "accept").await;
    }
    // Long before any scan must have been, the messages have.
    world.rig.clock.advance(hours(1));
    for (id, name) in ids.iter().zip(["ann", "ben"]) {
        world.until_sent("message", &profile(name), 1).await;
        world.rig.until(*id, "written to", |e| e.linkedin.message_count == 1 && e.status == Status::Pending).await;
    }
    // Somebody goes on by hand with Ann.
    let chat = world.sent("message", &profile("ann")).await[0]["chat_id"].as_str().unwrap().to_owned();
    let typed = json!({"account_id": LINKEDIN_ONE, "text": "Ann, let us talk on the phone"});
    world.post(&format!("/api/v1/chats/{chat}/messages"), typed).await;
    world.rig.clock.advance(hours(1));
    let ann = world.rig.until(ids[0], "taken over", |e| e.status == Status::Paused).await;
    assert!(ann.last_error.as_deref().is_some_and(|e| e.contains("by hand")), "{:?}", ann.last_error);
    assert_eq!(world.triggers(ids[0]).await.iter().filter(|t| *t == "human_took_over").count(), 1);
    // Our own messages were read back as well, and nobody took them for a person's.
    world.rig.clock.advance(hours(48));
    world.until_sent("message", &profile("ben"), 2).await;
    assert_eq!(world.texts("message", &profile("ben")).await, ["hello", "again"]);
    assert_eq!(world.texts("message", &profile("ann")).await, ["hello", "Ann, let us talk on the phone"]);
    world.rig.until(ids[1], "over", |e| e.exit_reason == Some(ExitReason::Finished)).await;
    world.stop().await;
}

#[tokio::test]
async fn after_a_reconnection_the_gap_is_read_before_anything_is_sent() {
    let mut world = World::new().await;
    world.account(Channel::Email, MAIL_ONE).await;
    let ids = world.people(&two_mails(), &["ann", "ben"]).await;
    world.start().await;
    for (id, name) in ids.iter().zip(["ann", "ben"]) {
        world.until_sent("email", &mailbox(name), 1).await;
        world.rig.until(*id, "mailed", |e| e.email.sent_count == 1).await;
    }
    world.post("/sandbox/act", json!({"account_id": MAIL_ONE, "act": "disconnect"})).await;
    world.status_webhook(MAIL_ONE, "CREDENTIALS").await;
    world.rig.until_true("SELECT status = 'halted' FROM accounts").await;
    // Meanwhile Ann answers, which nobody is told of, and both second mails fall due.
    world.act(&mailbox("ann"), "reply").await;
    world.rig.clock.advance(hours(49));
    for id in &ids {
        world.rig.until(*id, "due", |e| e.status == Status::Executing).await;
    }
    world.post("/sandbox/act", json!({"account_id": MAIL_ONE, "act": "reconnect"})).await;
    world.status_webhook(MAIL_ONE, "RECONNECTED").await;
    world.until_sent("email", &mailbox("ben"), 2).await;
    let ann = world.rig.until(ids[0], "replied", |e| e.status.is_final()).await;
    assert_eq!(ann.exit_reason, Some(ExitReason::Replied));
    assert_eq!(world.sent("email", &mailbox("ann")).await.len(), 1, "the answer was read first");
    world.rig.until_true("SELECT status = 'active' AND status_reason IS NULL FROM accounts").await;
    world.rig.until_true("SELECT back_at IS NULL AND broken IS NULL FROM account_catch_up").await;
    // The webhook that was lost comes after all: it is the same fact.
    let key: String = world
        .rig
        .one("SELECT dedupe_key FROM inbox WHERE dedupe_key LIKE 'unipile:mail_received:%' AND status = 'applied'")
        .await;
    assert_eq!(world.webhook(&key, &json!({"event": "mail_received"})).await, Stored::Duplicate);
    world.stop().await;
}

#[tokio::test]
async fn after_a_night_without_the_program_the_gap_is_read_before_anything_is_sent() {
    let mut world = World::new().await;
    world.account(Channel::Email, MAIL_ONE).await;
    let ids = world.people(&two_mails(), &["ann", "ben"]).await;
    world.start().await;
    for (id, name) in ids.iter().zip(["ann", "ben"]) {
        world.until_sent("email", &mailbox(name), 1).await;
        world.rig.until(*id, "mailed", |e| e.email.sent_count == 1).await;
    }
    world.rig.until_true("SELECT count(*) = 1 FROM account_catch_up WHERE back_at IS NULL").await;
    assert!(world.rig.stop().await);
    world.act(&mailbox("ann"), "reply").await;
    world.rig.clock.advance(hours(49));
    // Its list cannot be read at first either.
    world.fault("GET /emails", 500, "provider_error", Some(1)).await;
    world.start().await;
    world
        .rig
        .advance_until(Duration::from_secs(5), "the second mail", async || {
            world.sent("email", &mailbox("ben")).await.len() == 2
        })
        .await;
    let ann = world.rig.until(ids[0], "replied", |e| e.status.is_final()).await;
    assert_eq!(ann.exit_reason, Some(ExitReason::Replied));
    assert_eq!(world.sent("email", &mailbox("ann")).await.len(), 1, "the answer was read first");
    world.rig.until_true("SELECT status = 'active' AND status_reason IS NULL FROM accounts").await;
    world.stop().await;
}

#[tokio::test]
async fn an_account_whose_gap_cannot_be_read_sends_again_after_some_tries() {
    let mut world = World::new().await;
    world.account(Channel::Email, MAIL_ONE).await;
    let ids = world.people(&two_mails(), &["ann"]).await;
    world.start().await;
    world.rig.until(ids[0], "mailed", |e| e.email.sent_count == 1).await;
    world.rig.until_true("SELECT count(*) = 1 FROM account_catch_up").await;
    assert!(world.rig.stop().await);
    world.rig.clock.advance(hours(49));
    world.fault("GET /emails", 500, "provider_error", None).await;
    world.start().await;
    let started = world.rig.clock.now();
    world
        .rig
        .advance_until(Duration::from_secs(10), "the second mail", async || {
            world.sent("email", &mailbox("ann")).await.len() == 2
        })
        .await;
    let waited = world.rig.clock.now().since(started);
    assert!(waited > Duration::from_secs(120) && waited < hours(1), "{waited:?}");
    world.stop().await;
}

#[tokio::test]
async fn an_account_whose_webhooks_are_lost_is_seen_to_break_and_to_work_again() {
    let mut world = World::new().await;
    world.account(Channel::Email, MAIL_ONE).await;
    let ids = world.people(&two_mails(), &["ann"]).await;
    world.start().await;
    world.rig.until(ids[0], "mailed", |e| e.email.sent_count == 1).await;
    world.post("/sandbox/act", json!({"account_id": MAIL_ONE, "act": "disconnect"})).await;
    world.rig.clock.advance(hours(1));
    world.rig.until_true("SELECT status = 'halted' AND status_reason LIKE '%CREDENTIALS%' FROM accounts").await;
    world.rig.clock.advance(hours(48));
    world.rig.until(ids[0], "due", |e| e.status == Status::Executing).await;
    world.post("/sandbox/act", json!({"account_id": MAIL_ONE, "act": "reconnect"})).await;
    world
        .rig
        .advance_until(Duration::from_secs(600), "the second mail", async || {
            world.sent("email", &mailbox("ann")).await.len() == 2
        })
        .await;
    world.rig.until(ids[0], "over", |e| e.exit_reason == Some(ExitReason::Finished)).await;
    world.stop().await;
}

#[tokio::test]
async fn an_account_that_a_refused_send_has_halted_is_looked_at_again_and_its_gap_is_read_first() {
    let mut world = World::new().await;
    world.account(Channel::Email, MAIL_ONE).await;
    let ids = world.people(&two_mails(), &["ann", "ben"]).await;
    world.start().await;
    for (id, name) in ids.iter().zip(["ann", "ben"]) {
        world.until_sent("email", &mailbox(name), 1).await;
        world.rig.until(*id, "mailed", |e| e.email.sent_count == 1).await;
    }
    // The session breaks for one call, and nobody says so: neither webhook nor the account's status.
    world.fault("POST /emails", 401, "expired_credentials", Some(1)).await;
    world.rig.clock.advance(hours(49));
    world.rig.until_true("SELECT status = 'halted' AND status_reason LIKE '%expired_credentials%' FROM accounts").await;
    world.act(&mailbox("ann"), "reply").await;
    world
        .rig
        .advance_until(Duration::from_secs(30), "the second mail", async || {
            world.sent("email", &mailbox("ben")).await.len() == 2
        })
        .await;
    let ann = world.rig.until(ids[0], "replied", |e| e.status.is_final()).await;
    assert_eq!(ann.exit_reason, Some(ExitReason::Replied));
    assert_eq!(world.sent("email", &mailbox("ann")).await.len(), 1, "the answer was read first");
    world.rig.until_true("SELECT status = 'active' AND status_reason IS NULL FROM accounts").await;
    world.stop().await;
}

#[tokio::test]
async fn a_key_that_is_refused_holds_everybody_and_halts_nobody_until_it_is_taken_again() {
    let mut world = World::new().await;
    world.account(Channel::Email, MAIL_ONE).await;
    world.account(Channel::Linkedin, LINKEDIN_ONE).await;
    let mails = world.people(&two_mails(), &["ann"]).await;
    let visit = json!({"schema_version": 1, "steps": [{"id": "look", "action": "visit_linkedin_profile"}]});
    let visits = world.people(&visit, &["ben"]).await;
    world.fault("*", 401, "missing_credentials", None).await;
    world.start().await;
    let held = "SELECT count(*) = 2 FROM accounts \
        WHERE status = 'active' AND status_reason LIKE 'unipile refuses our API key%'";
    world.rig.until_true(held).await;
    world.rig.until_true("SELECT count(*) = 2 AND bool_and(status = 'pending') FROM sends").await;
    world.rig.clock.advance(hours(1));
    world.rig.until_true(held).await;
    let tried: i64 = world.rig.one("SELECT sum(dispatch_count)::bigint FROM sends").await;
    assert!(tried <= 2, "each account found out at most once, and waits: {tried}");
    world.clear_faults().await;
    world
        .rig
        .advance_until(Duration::from_secs(60), "it goes on", async || {
            world.rig.one::<i64>("SELECT count(*) FROM sends WHERE status = 'sent'").await == 2
        })
        .await;
    world.rig.until_true("SELECT bool_and(status = 'active' AND status_reason IS NULL) FROM accounts").await;
    world.rig.until(visits[0], "over", |e| e.exit_reason == Some(ExitReason::Finished)).await;
    world.rig.until(mails[0], "mailed", |e| e.email.sent_count == 1).await;
    world.stop().await;
}

#[tokio::test]
async fn a_word_about_credentials_halts_the_account_when_our_key_opens_other_things() {
    let mut world = World::new().await;
    world.account(Channel::Email, MAIL_ONE).await;
    world.people(&two_mails(), &["ann"]).await;
    world.fault("POST /emails", 401, "invalid_credentials", None).await;
    world.start().await;
    world.rig.until_true("SELECT status = 'halted' AND status_reason LIKE '%invalid_credentials%' FROM accounts").await;
    world.stop().await;
}

/// A provider whose accounts are all broken; counts how often it is asked how one stands.
#[derive(Default)]
struct Broken(AtomicU32);

impl Provider for Broken {
    fn name(&self) -> &'static str {
        "unipile"
    }

    fn send<'a>(&'a self, _: &'a SendRequest) -> BoxFuture<'a, Result<Receipt, SendFailure>> {
        panic!("nothing is sent through a broken account")
    }

    fn find<'a>(&'a self, _: &'a SendRequest, _: Timestamp) -> BoxFuture<'a, Result<Found, FindError>> {
        panic!("nothing was sent through a broken account")
    }

    fn lists(&self) -> Option<&dyn Lists> {
        Some(self)
    }
}

impl Lists for Broken {
    fn standing<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Standing, FindError>> {
        self.0.fetch_add(1, Relaxed);
        Box::pin(async { Ok(Standing::Broken("CREDENTIALS".into())) })
    }

    fn relations<'a>(&'a self, _: &'a str, _: Option<&'a str>) -> BoxFuture<'a, Result<Page<Relation>, FindError>> {
        panic!("a broken account is not read")
    }

    fn missed<'a>(
        &'a self,
        _: Channel,
        _: &'a str,
        _: Timestamp,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page<Missed>, FindError>> {
        panic!("a broken account is not read")
    }

    fn complete<'a>(&'a self, _: &'a str, _: &'a Missed) -> BoxFuture<'a, Result<Option<Vec<u8>>, FindError>> {
        panic!("a broken account is not read")
    }
}

#[tokio::test]
async fn a_broken_account_is_asked_less_and_less_often() {
    let mut world = World::new().await;
    world.account(Channel::Email, MAIL_ONE).await;
    let broken = Arc::new(Broken::default());
    let provider = Arc::clone(&broken) as Arc<dyn Provider>;
    world.rig.start_with(|o| o.providers = HashMap::from([("unipile".to_owned(), provider)])).await;
    let asked = |n| {
        let broken = Arc::clone(&broken);
        async move || broken.0.load(Relaxed) >= n
    };
    world.rig.advance_until(Duration::from_secs(60), "it is asked", asked(1)).await;
    world.rig.until_true("SELECT status = 'halted' FROM accounts").await;
    let first = world.rig.clock.now();
    world.rig.advance_until(Duration::from_secs(5), "it is asked again", asked(5)).await;
    let passed = world.rig.clock.now().since(first);
    assert!(passed > Duration::from_secs(60), "{passed:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_follow_up_goes_into_the_thread_under_its_subject() {
    let mut world = World::new().await;
    world.account(Channel::Email, MAIL_ONE).await;
    let flow = json!({"schema_version": 1, "steps": [
        {"id": "m1", "action": "send_email", "subject": "For {{ first_name }}", "message": "m1"},
        {"id": "m2", "action": "send_email", "message": "m2", "in_thread": true},
        {"id": "m3", "action": "send_email", "message": "m3", "subject": "not this", "in_thread": true}]});
    let ids = world.people(&flow, &["ann"]).await;
    world.start().await;
    world.rig.until(ids[0], "over", |e| e.exit_reason == Some(ExitReason::Finished)).await;
    let sent = world.sent("email", &mailbox("ann")).await;
    let subjects: Vec<&str> = sent.iter().map(|e| e["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, ["For P1", "Re: For P1", "Re: For P1"]);
    let mails = world.get(&format!("/api/v1/emails?account_id={MAIL_ONE}&role=sent")).await;
    let mails = mails["items"].as_array().unwrap();
    assert_eq!(mails.len(), 3);
    assert!(mails.iter().all(|m| m["thread_id"] == mails[0]["thread_id"]), "{mails:#?}");
    assert_eq!(
        mails[0]["in_reply_to"]["message_id"], mails[1]["message_id"],
        "newest first: the third answers the second"
    );
    world.stop().await;
}

#[tokio::test]
async fn a_visit_and_an_inmail_need_no_connection() {
    let mut world = World::new().await;
    world.account(Channel::Linkedin, LINKEDIN_ONE).await;
    let flow = json!({"schema_version": 1, "steps": [
        {"id": "look", "action": "visit_linkedin_profile"},
        {"id": "inmail", "action": "send_linkedin_inmail", "subject": "A question", "message": "Hi {{ first_name }}"}]});
    let ids = world.people(&flow, &["ann"]).await;
    world.start().await;
    let ann = world.rig.until(ids[0], "over", |e| e.exit_reason == Some(ExitReason::Finished)).await;
    assert_eq!(ann.linkedin.message_count, 1);
    assert_eq!(world.rig.sends(ids[0]).await, ["1 1 sent", "2 1 sent"]);
    let recipient: String =
        world.rig.one("SELECT receipt ->> 'recipient_id' FROM sends WHERE action = 'visit_linkedin_profile'").await;
    let sent = world.get("/sandbox/ledger").await;
    let inmail = sent["items"].as_array().unwrap().iter().find(|e| e["text"] == "Hi P1").unwrap().clone();
    assert_eq!(
        (inmail["recipient"].as_str(), inmail["subject"].as_str()),
        (Some(recipient.as_str()), Some("A question"))
    );
    world.stop().await;
}

#[tokio::test]
async fn when_the_notes_of_a_free_account_are_used_up_its_invitations_go_without() {
    let mut world = World::new().await;
    world.account(Channel::Linkedin, LINKEDIN_ONE).await;
    world.post("/sandbox/quotas", json!([{"action": "note", "window": "31d", "limit": 1}])).await;
    let flow = json!({"schema_version": 1, "steps": [{"id": "invite", "action": "send_linkedin_cr", "message": "Hi"}]});
    world.people(&flow, &["ann", "ben", "cem"]).await;
    world.start().await;
    world.rig.until_all_final().await;
    let mut notes = Vec::new();
    for name in ["ann", "ben", "cem"] {
        notes.append(&mut world.texts("invite", &profile(name)).await);
    }
    notes.sort();
    assert_eq!(notes, ["", "", "Hi"]);
    world.stop().await;
}

#[tokio::test]
async fn a_note_that_grew_too_long_fails_its_step_before_anybody_is_called() {
    let mut world = World::new().await;
    world.account(Channel::Linkedin, LINKEDIN_ONE).await;
    let note = format!("{{{{ first_name }}}} {}", "x".repeat(298));
    let flow = json!({"schema_version": 1, "steps": [{"id": "invite", "action": "send_linkedin_cr", "message": note}]});
    let ids = world.people(&flow, &["ann"]).await;
    world.start().await;
    let ann = world.rig.until(ids[0], "over", |e| e.status.is_final()).await;
    let error = ann.last_error.unwrap();
    assert!(error.contains("step `invite`") && error.contains("at most 300 characters, this one has 301"), "{error}");
    assert_eq!(world.get("/sandbox/ledger").await["count"], 0);
    world.stop().await;
}
