//! What breaks, and what does not: panics, conflicts, lost connections, a stolen lease.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use campaignd::domain::account::Channel;
use campaignd::domain::execution::{ExitReason, Status};
use campaignd::domain::id::ExecutionId;
use campaignd::domain::trigger::Trigger;
use campaignd::runtime::{BeforeStep, DeliverError};
use campaignd::store::Pool;
use uuid::Uuid;

use crate::fake::{Act, NOW, Rig, hours, mails, parsed};

/// Panics while there are panics left for this execution and trigger.
fn panics(times: usize, name: &'static str, on: ExecutionId) -> (BeforeStep, Arc<AtomicUsize>) {
    let panicked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&panicked);
    let hook: BeforeStep = Arc::new(move |execution, trigger| {
        if execution.id == on && trigger.name() == name && count.load(Ordering::SeqCst) < times {
            count.fetch_add(1, Ordering::SeqCst);
            panic!("injected");
        }
    });
    (hook, panicked)
}

/// Ids of one shard.
fn of_one_shard(n: u128) -> Vec<ExecutionId> {
    let base = Uuid::now_v7().as_u128() & !0xffff_ffff;
    (0..n).map(|i| ExecutionId(Uuid::from_u128(base | (i << 10) | 0x155))).collect()
}

#[tokio::test]
async fn a_crashed_actor_is_rebuilt_from_its_row_and_gets_the_same_trigger_again() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(2)).await;
    let ids = rig.prospects(campaign, 2).await;
    let before = rig.executions(&ids).await;
    let (hook, panicked) = panics(2, "due", ids[0]);
    rig.start_with(|o| o.before_step = Some(hook)).await;
    for id in &ids {
        rig.until(*id, "step 1", |e| e.current_step == 2).await;
    }
    assert_eq!(panicked.load(Ordering::SeqCst), 2);
    rig.clock.advance(hours(1));
    rig.until_all_final().await;
    assert_eq!(rig.fake.doubled(), []);
    rig.assert_replays(before, &parsed(&mails(2))).await;
}

#[tokio::test]
async fn a_trigger_that_was_handed_over_survives_the_crash_of_its_actor() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(2)).await;
    let id = rig.prospects(campaign, 1).await[0];
    let (hook, panicked) = panics(2, "pause", id);
    rig.start_with(|o| o.before_step = Some(hook)).await;
    rig.until(id, "step 1", |e| e.current_step == 2).await;
    // Whoever handed it over gets the answer all the same.
    rig.apply(id, Trigger::Pause).await;
    assert_eq!(panicked.load(Ordering::SeqCst), 2);
    assert_eq!(rig.execution(id).await.status, Status::Paused);
}

#[tokio::test]
async fn three_crashes_on_one_trigger_quarantine_the_execution_and_its_siblings_notice_nothing() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(2)).await;
    let ids = of_one_shard(5);
    assert!(ids.iter().all(|id| id.shard() == ids[0].shard()));
    rig.insert(campaign, &ids).await;
    let (hook, panicked) = panics(usize::MAX, "connection_accepted", ids[2]);
    rig.start_with(|o| o.before_step = Some(hook)).await;
    for id in &ids {
        rig.until(*id, "step 1", |e| e.current_step == 2).await;
    }
    let answer = rig.offer(ids[2], Trigger::ConnectionAccepted).await;
    assert!(matches!(&answer, Err(DeliverError::Unrunnable(id, _)) if *id == ids[2]), "{answer:?}");
    let row = rig.until(ids[2], "quarantine", |e| e.status.is_final()).await;
    assert_eq!(panicked.load(Ordering::SeqCst), 3);
    assert_eq!((row.status, row.exit_reason), (Status::Failed, Some(ExitReason::Quarantined)));
    let error = row.last_error.unwrap();
    assert!(error.contains("connection_accepted") && error.contains("injected"), "{error}");
    // Its neighbours answer and go on.
    rig.apply(ids[1], Trigger::ConnectionAccepted).await;
    rig.clock.advance(hours(1));
    rig.until_all_final().await;
    for id in ids.iter().filter(|id| **id != ids[2]) {
        assert_eq!(rig.execution(*id).await.email.sent_count, 2);
    }
    assert_eq!(rig.execution(ids[2]).await.email.sent_count, 1);
    // A person can have it back.
    rig.apply(ids[2], Trigger::Restart { step: 2 }).await;
    rig.until_all_final().await;
    assert_eq!(rig.execution(ids[2]).await.email.sent_count, 2);
}

#[tokio::test]
async fn a_row_that_crashes_the_actor_while_it_is_taken_over_is_quarantined_as_well() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    let ids = rig.prospects(campaign, 2).await;
    // Needs mending: nobody wrote when it is due.
    rig.db
        .script(format!(
            "UPDATE campaign_prospect_execution_state SET next_execution_at = NULL WHERE id = '{}'",
            ids[0]
        ))
        .await
        .unwrap();
    let (hook, panicked) = panics(usize::MAX, "adopted", ids[0]);
    rig.start_with(|o| o.before_step = Some(hook)).await;
    let row = rig.until(ids[0], "quarantine", |e| e.status.is_final()).await;
    assert_eq!(row.exit_reason, Some(ExitReason::Quarantined));
    assert_eq!(panicked.load(Ordering::SeqCst), 3);
    rig.until_all_final().await;
    assert_eq!(rig.fake.calls().len(), 1);
}

#[tokio::test]
async fn a_row_that_somebody_else_changed_is_read_again_and_the_trigger_applied_to_it() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(2)).await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.start().await;
    let row = rig.until(id, "step 1", |e| e.current_step == 2).await;
    rig.db
        .script(format!(
            "UPDATE campaign_prospect_execution_state SET version = version + 1, last_error = 'seen by hand' WHERE id = '{id}'"
        ))
        .await
        .unwrap();
    rig.apply(id, Trigger::Pause).await;
    let after = rig.execution(id).await;
    assert_eq!((after.status, after.version), (Status::Paused, row.version + 2));
    assert_eq!(after.last_error.as_deref(), Some("seen by hand"));
    rig.apply(id, Trigger::Resume).await;
    rig.clock.advance(hours(1));
    rig.until_all_final().await;
}

#[tokio::test]
async fn a_conflict_on_a_timer_does_not_lose_the_timer() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(2)).await;
    let ids = rig.prospects(campaign, 5).await;
    rig.start().await;
    for id in &ids {
        rig.until(*id, "step 1", |e| e.current_step == 2).await;
    }
    rig.db.script("UPDATE campaign_prospect_execution_state SET version = version + 3").await.unwrap();
    rig.clock.advance(hours(1));
    rig.until_all_final().await;
    assert_eq!(rig.fake.calls().len(), 10);
}

/// Cuts every connection of this database but our own.
pub(crate) async fn cut(pool: &Pool) -> i64 {
    sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'campaignd'",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_again_and_again_lose_nothing_and_double_nothing() {
    let mut rig = Rig::fast().await;
    for n in 0..4 {
        rig.account(Channel::Email, &format!("box{n}")).await;
    }
    let campaign = rig.campaign(&mails(3)).await;
    let ids = rig.prospects(campaign, 150).await;
    let before = rig.executions(&ids).await;
    rig.start().await;
    for calls in [5, 60, 120, 180, 240, 300, 360, 420] {
        rig.fake.until_calls(calls).await;
        cut(&rig.db.pool).await;
    }
    rig.until_all_final().await;
    assert_eq!(rig.fake.doubled(), []);
    assert_eq!(rig.fake.received().len(), ids.len() * 3);
    assert!(!*rig.runtime.as_ref().unwrap().lost().borrow());
    rig.assert_replays(before, &parsed(&mails(3))).await;
}

#[tokio::test]
async fn prospects_that_arrive_while_connections_are_cut_are_picked_up() {
    let mut rig = Rig::fast().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    rig.start().await;
    for n in 0..20_u32 {
        rig.prospects(campaign, 3).await;
        if n.is_multiple_of(4) {
            cut(&rig.db.pool).await;
        }
    }
    rig.until_all_final().await;
    assert_eq!(rig.one::<i64>("SELECT count(*) FROM sends WHERE status = 'sent'").await, 60);
}

#[tokio::test]
async fn a_provider_client_that_panics_after_sending_is_read_back_and_sends_nothing_twice() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    let ids = rig.prospects(campaign, 3).await;
    rig.fake.script(|request, _| match request.recipient.name.as_deref() {
        Some("P1") => Act::PanicAfter,
        _ => Act::Ok,
    });
    rig.start().await;
    rig.advance_until(Duration::from_secs(1), "everybody's end", async || {
        rig.one::<i64>("SELECT count(*) FROM sends WHERE status = 'sent'").await == 3
    })
    .await;
    rig.until_all_final().await;
    assert_eq!(rig.fake.calls().len(), ids.len());
    assert_eq!(rig.fake.finds().len(), 1);
}

#[tokio::test]
async fn after_a_crash_between_claim_and_outcome_the_account_rests_as_after_every_send() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    rig.db.script("UPDATE accounts SET min_gap_ms = 86400000").await.unwrap();
    let campaign = rig.campaign(&mails(1)).await;
    rig.prospects(campaign, 2).await;
    let mut crashed = false;
    rig.fake.script(move |_, _| if std::mem::replace(&mut crashed, true) { Act::Ok } else { Act::PanicAfter });
    rig.start().await;
    rig.advance_until(Duration::from_secs(1), "its outcome is known to be lost", async || {
        rig.one::<bool>("SELECT next_send_at IS NOT NULL FROM account_gate").await
    })
    .await;
    let rests = "SELECT g.next_send_at = s.claimed_at + interval '24 hours' FROM account_gate g, sends s \
        WHERE s.claimed_at IS NOT NULL";
    assert!(rig.one::<bool>(rests).await);
    rig.advance_until(Duration::from_secs(600), "the second", async || rig.fake.calls().len() == 2).await;
    assert!(rig.clock.now() >= NOW + hours(24), "{}", rig.clock.now());
    rig.until_all_final().await;
    assert_eq!(rig.fake.doubled(), []);
    assert!(rig.stop().await);
}

#[tokio::test]
async fn a_runtime_whose_lease_was_stolen_writes_nothing_and_calls_nobody() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(2)).await;
    let ids = rig.prospects(campaign, 20).await;
    let gate = rig.fake.hold();
    rig.start_with(|o| o.lease_ttl = Duration::from_millis(1500)).await;
    gate.add_permits(5);
    // Five are through, the sixth is under way.
    rig.fake.until_calls(6).await;
    rig.until_true("SELECT count(*) = 20 FROM sends").await;
    let thief = Uuid::new_v4();
    rig.db
        .script(format!("UPDATE shard_lease SET epoch = epoch + 1, owner = '{thief}', incarnation = 1"))
        .await
        .unwrap();
    const STATE: &str = "SELECT md5(concat( \
        (SELECT string_agg(e::text, '' ORDER BY e.id) FROM campaign_prospect_execution_state e), \
        (SELECT string_agg(s::text, '' ORDER BY s.id) FROM sends s), (SELECT count(*) FROM transitions)))";
    let before: String = rig.one(STATE).await;
    gate.add_permits(1000);
    let mut lost = rig.runtime.as_ref().unwrap().lost();
    tokio::time::timeout(Duration::from_secs(20), lost.wait_for(|lost| *lost)).await.expect("it notices").unwrap();
    rig.clock.advance(hours(100));
    for id in &ids {
        let answer = rig.offer(*id, Trigger::Pause).await;
        assert_eq!(answer, Err(DeliverError::Stopping));
    }
    assert_eq!(rig.one::<String>(STATE).await, before);
    assert_eq!(rig.fake.calls().len(), 6);
    // What it does not own it does not take either: the new owner finds what has arrived.
    let late = rig.prospects(campaign, 1).await;
    rig.handle().arrivals();
    for _ in 0..20 {
        assert_eq!(rig.one::<i64>("SELECT count(*) FROM execution_arrivals").await, 1);
    }
    rig.stop().await;
    assert_eq!(rig.execution(late[0]).await.version, 0);
    assert_eq!(rig.one::<String>("SELECT max(owner::text) FROM shard_lease").await, thief.to_string());
    assert!(rig.clock.now() > NOW);
}

#[tokio::test]
async fn a_change_that_postgres_refuses_is_not_tried_in_a_hot_loop_and_holds_up_nobody() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    let ids = rig.prospects(campaign, 10).await;
    // Somebody's trigger on an adopted table. A sequence counts the tries, because it is not rolled back.
    rig.db
        .script(format!(
            "CREATE SEQUENCE tries;
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 PERFORM nextval('tries'); RAISE EXCEPTION 'not this one'; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON campaign_prospect_execution_state FOR EACH ROW \
                 WHEN (NEW.id = '{}') EXECUTE FUNCTION refuse();",
            ids[0]
        ))
        .await
        .unwrap();
    rig.start().await;
    for id in &ids[1..] {
        rig.until(*id, "the others' mails", |e| e.status.is_final()).await;
    }
    rig.until_true("SELECT last_value > 5 FROM tries").await;
    let before: i64 = rig.one("SELECT last_value FROM tries").await;
    // As long as a hundred round trips take, and then some.
    for _ in 0..200 {
        rig.one::<i64>("SELECT count(*) FROM sends").await;
    }
    let tries: i64 = rig.one::<i64>("SELECT last_value FROM tries").await - before;
    assert!(tries <= 20, "{tries} tries");
    rig.db.script("DROP TRIGGER refuse ON campaign_prospect_execution_state").await.unwrap();
    rig.advance_until(Duration::from_secs(1), "its turn", async || rig.execution(ids[0]).await.status.is_final()).await;
    assert!(rig.stop().await);
}

#[tokio::test]
async fn an_execution_that_is_deleted_during_the_provider_call_leaves_no_gate_shut() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    let id = rig.prospects(campaign, 1).await[0];
    let gate = rig.fake.hold();
    rig.start().await;
    rig.fake.until_calls(1).await;
    rig.db.script(format!("DELETE FROM campaign_prospect_execution_state WHERE id = '{id}'")).await.unwrap();
    gate.add_permits(10);
    let other = rig.prospects(campaign, 1).await[0];
    rig.until(other, "the next one's mail", |e| e.status.is_final()).await;
    assert_eq!(rig.sends(id).await, ["1 1 sent"]);
    assert_eq!(rig.offer(id, Trigger::Pause).await, Err(DeliverError::NotFound(id)));
    assert!(rig.stop().await);
}

#[tokio::test]
async fn a_send_resumed_while_its_claim_is_being_refused_is_not_forgotten() {
    let mut rig = Rig::manual().await;
    let account = rig.account(Channel::Email, "box").await;
    let mut flow = mails(1);
    flow["timezone"] = serde_json::json!("UTC");
    flow["window"] = serde_json::json!({"days": ["mon"], "from": "10:00", "to": "18:00"});
    let campaign = rig.campaign(&flow).await;
    let id = ExecutionId(Uuid::from_u128(Uuid::now_v7().as_u128() & !0x3ff | u128::from(account.shard() ^ 1)));
    rig.insert(campaign, &[id]).await;
    rig.start().await;
    rig.until(id, "a send", |e| e.status == Status::Executing).await;
    rig.apply(id, Trigger::Pause).await;
    // The account's claims have to wait, executions of other shards go on.
    let mut other = rig.db.pool.acquire().await.unwrap();
    let mut tx = sqlx::Acquire::begin(&mut *other).await.unwrap();
    sqlx::query("SELECT 1 FROM shard_lease WHERE shard = $1 FOR UPDATE")
        .bind(i16::try_from(account.shard()).unwrap())
        .execute(&mut *tx)
        .await
        .unwrap();
    rig.clock.advance(hours(1));
    rig.until_true(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    .await;
    rig.apply(id, Trigger::Resume).await;
    tx.rollback().await.unwrap();
    rig.until(id, "the mail", |e| e.status.is_final()).await;
    assert_eq!(rig.fake.calls().len(), 1);
    assert!(rig.stop().await);
}
