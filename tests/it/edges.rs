//! What a review of the runtime found, kept as tests: rows nobody expects, and two things that happen at once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use campaignd::clock::Clock;
use campaignd::domain::account::Channel;
use campaignd::domain::execution::Status;
use campaignd::domain::id::{CampaignId, ExecutionId};
use campaignd::domain::trigger::Trigger;
use campaignd::runtime::DeliverError;
use campaignd::store::execution::{Loaded, Scan};
use serde_json::json;
use uuid::Uuid;

use crate::fake::{PATIENCE, Rig, WORKSPACE, mails};

/// A prospect that is due at infinity, put straight into the tables.
async fn due_at_infinity(rig: &Rig, campaign: CampaignId) -> ExecutionId {
    let id = ExecutionId(Uuid::now_v7());
    rig.db
        .script(format!(
            "WITH p AS (INSERT INTO campaign_prospects (campaign_id, first_name, email) \
                 VALUES ('{campaign}', 'Late', 'late@example.org') RETURNING id) \
             INSERT INTO campaign_prospect_execution_state \
                 (id, campaign_id, prospect_id, status, current_step, next_execution_at) \
             SELECT '{id}', '{campaign}', id, 'pending', 1, 'infinity' FROM p"
        ))
        .await
        .unwrap();
    id
}

/// Lets somebody new go through the whole of a campaign: what was asked for before that has been looked at.
async fn passer_by(rig: &Rig, campaign: CampaignId) {
    let id = rig.prospects(campaign, 1).await[0];
    rig.until(id, "the passer-by's end", |e| e.status.is_final()).await;
}

#[tokio::test]
async fn an_infinite_time_in_one_row_does_not_hide_the_other_rows() {
    let rig = Rig::manual().await;
    let campaign = rig.campaign(&mails(1)).await;
    due_at_infinity(&rig, campaign).await;
    rig.prospects(campaign, 700).await;
    let scan = Scan::open(&rig.pool).await.unwrap();
    let (mut ready, mut unreadable) = (0, 0);
    for range in 0..scan.ranges() {
        for row in scan.rows(range).await.unwrap() {
            if matches!(row, Loaded::Ready { .. }) { ready += 1 } else { unreadable += 1 }
        }
    }
    scan.close().await;
    assert_eq!((ready, unreadable), (700, 1));
}

#[tokio::test]
async fn an_infinite_time_does_not_end_the_loader() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    rig.start().await;
    let bad = due_at_infinity(&rig, campaign).await;
    rig.until_true(&format!("SELECT last_error IS NOT NULL FROM campaign_prospect_execution_state WHERE id = '{bad}'"))
        .await;
    passer_by(&rig, campaign).await;
    let unknown = ExecutionId(Uuid::now_v7());
    let answer = tokio::time::timeout(PATIENCE, rig.offer(unknown, Trigger::Stop)).await;
    assert_eq!(answer.expect("an answer"), Err(DeliverError::NotFound(unknown)));
    assert!(rig.stop().await);
}

#[tokio::test]
async fn an_account_that_the_loader_sees_first_gets_its_channel() {
    let mut rig = Rig::manual().await;
    rig.start().await;
    // Another program adds an account, a campaign and a person; only the person is notified of.
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    passer_by(&rig, campaign).await;
    assert_eq!(rig.fake.calls().len(), 1);
    assert!(rig.stop().await);
}

#[tokio::test]
async fn a_skip_of_a_step_without_an_account_goes_on_with_the_next() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Linkedin, "seat").await;
    let flow = json!({"schema_version": 1, "steps": [
        {"id": "mail", "action": "send_email", "subject": "s", "message": "mail"},
        {"id": "invite", "action": "send_linkedin_cr", "message": "invite"}]});
    let campaign = rig.campaign(&flow).await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.start().await;
    // It was due as it came to life, so its shard has that in hand before the skip.
    rig.wait("it is live", async || rig.handle().status().residents == 1).await;
    assert_eq!(rig.execution(id).await.status, Status::Pending);
    rig.apply(id, Trigger::Skip).await;
    rig.until(id, "the end", |e| e.status.is_final()).await;
    assert_eq!(rig.sends(id).await, ["2 1 sent"]);
    assert!(rig.stop().await);
}

#[tokio::test]
async fn a_pause_that_is_over_before_anybody_looks_loses_no_send() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    rig.start().await;
    // The claim waits for the gate, and what it knows of the campaign is from before it waited.
    let mut gate = rig.db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM account_gate FOR UPDATE").execute(&mut *gate).await.unwrap();
    rig.db.script("UPDATE campaigns SET status = 'paused'").await.unwrap();
    let id = rig.prospects(campaign, 1).await[0];
    rig.until_true(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')",
    )
    .await;
    sqlx::query("UPDATE campaigns SET status = 'active'").execute(&mut *gate).await.unwrap();
    gate.commit().await.unwrap();
    rig.until(id, "the end", |e| e.status.is_final()).await;
    assert_eq!(rig.sends(id).await, ["1 1 sent"]);
    assert!(rig.stop().await);
}

#[tokio::test]
async fn a_change_that_postgres_refuses_does_not_spin() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    let id = rig.prospects(campaign, 1).await[0];
    // Its send would refer to an account that is gone.
    let gone = json!({"email": Uuid::now_v7()});
    rig.db
        .script(format!("UPDATE campaign_prospect_execution_state SET channel_accounts = '{gone}' WHERE id = '{id}'"))
        .await
        .unwrap();
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    rig.start_with(|o| {
        o.before_step = Some(Arc::new(move |e, _| {
            if e.id == id {
                counted.fetch_add(1, Relaxed);
            }
        }));
    })
    .await;
    // Once, and again after each of five refusals; then it is left alone while others go by.
    rig.wait("it is given up", async || tries.load(Relaxed) >= 6).await;
    for _ in 0..10 {
        passer_by(&rig, campaign).await;
    }
    assert_eq!(tries.load(Relaxed), 6);
    // Not for good.
    rig.clock.advance(Duration::from_secs(60));
    rig.wait("it is tried again", async || tries.load(Relaxed) >= 12).await;
    assert!(rig.stop().await);
}

#[tokio::test]
async fn facts_about_strangers_do_not_hold_up_a_reply() {
    // Of real time: which of two facts was dealt with first is read from the rows.
    let mut rig = Rig::new(Clock::System).await;
    let campaign = rig.campaign(&mails(1)).await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.db
        .script(format!(
            "INSERT INTO inbox (workspace_id, id, source, dedupe_key, body, received_at) \
             SELECT '{WORKSPACE}', gen_random_uuid(), 'api', key, convert_to(jsonb_build_object( \
                 'trigger', 'reply', 'channel', 'email', 'prospect_id', prospect)::text, 'UTF8'), at \
             FROM (SELECT 'k' || n AS key, gen_random_uuid() AS prospect, now() - interval '1 minute' AS at \
                 FROM generate_series(1, 1000) n \
                 UNION ALL SELECT 'mine', prospect_id, now() FROM campaign_prospect_execution_state WHERE id = '{id}') f"
        ))
        .await
        .unwrap();
    rig.start().await;
    rig.until_true("SELECT status = 'applied' FROM inbox WHERE dedupe_key = 'mine'").await;
    assert!(rig.execution(id).await.email.replied);
    let earlier: i64 = rig
        .one(
            "SELECT count(*) FROM inbox s JOIN inbox m ON m.dedupe_key = 'mine' AND s.processed_at < m.processed_at \
             WHERE s.status = 'ignored'",
        )
        .await;
    assert_eq!(earlier, 0, "strangers that were waited for");
    assert!(rig.stop().await);
}

#[tokio::test]
async fn skip_then_restart_of_a_step_whose_send_is_under_way_sends_it_once() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    let id = rig.prospects(campaign, 1).await[0];
    let gate = rig.fake.hold();
    rig.start().await;
    rig.fake.until_calls(1).await;
    assert_eq!(rig.refused(id, Trigger::Restart { step: 1 }).await, "send_under_way");
    rig.apply(id, Trigger::Skip).await;
    assert_eq!(rig.refused(id, Trigger::Restart { step: 1 }).await, "send_under_way");
    gate.add_permits(10);
    // Behind whatever the account has to do for the first one.
    passer_by(&rig, campaign).await;
    assert_eq!(rig.sends(id).await, ["1 1 sent"]);
    assert_eq!(rig.fake.calls().len(), 2);
    assert_eq!(rig.fake.doubled(), []);
    assert!(rig.stop().await);
}

#[tokio::test]
async fn a_flow_that_is_corrected_while_its_campaign_is_active_wakes_its_people() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&json!({"schema_version": 1, "steps": [{"id": "x", "action": "dance"}]})).await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.start().await;
    rig.until_true("SELECT last_error IS NOT NULL FROM campaign_prospect_execution_state").await;
    rig.db.script(format!("UPDATE campaigns SET flow_settings = '{}'", mails(1))).await.unwrap();
    // Nothing but the poll, a few seconds early.
    rig.handle().campaign_changed(campaign);
    rig.until(id, "the end", |e| e.status.is_final()).await;
    assert_eq!(rig.sends(id).await, ["1 1 sent"]);
    assert!(rig.stop().await);
}

#[tokio::test]
async fn a_node_without_the_lease_takes_no_arrivals() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    // It does not notice by itself that somebody else has taken over.
    rig.start_with(|o| o.lease_ttl = Duration::from_secs(3600)).await;
    rig.db
        .script("UPDATE shard_lease SET owner = gen_random_uuid(), incarnation = 1, epoch = epoch + 1")
        .await
        .unwrap();
    rig.prospects(campaign, 1).await;
    // Three times: it reads, may strike off what it read, and reads again when that is done.
    for _ in 0..3 {
        let now: String = rig.one("SELECT clock_timestamp()::text").await;
        let looked = format!(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() \
             AND application_name = 'campaignd' AND query LIKE '%execution_arrivals%' AND query_start > '{now}')"
        );
        rig.wait("it has looked for arrivals", async || {
            rig.handle().arrivals();
            rig.one::<bool>(&looked).await
        })
        .await;
    }
    let left: i64 = rig.one("SELECT count(*) FROM execution_arrivals").await;
    assert_eq!(left, 1, "the arrival is gone, and the new owner never sees it");
    rig.stop().await;
}
