//! What people tell it to do, prospect by prospect and campaign by campaign.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up has failed")]

use std::sync::Arc;
use std::time::Duration;

use campaignd::domain::account::Channel;
use campaignd::domain::execution::{ExitReason, Status};
use campaignd::domain::id::ExecutionId;
use campaignd::domain::trigger::Trigger;
use campaignd::runtime::DeliverError;
use serde_json::json;
use sqlx::Acquire;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::fake::{Act, NOW, Rig, hours, mails, parsed};

/// A campaign of mails with one prospect that has the first one.
async fn after_the_first(n: usize) -> (Rig, ExecutionId) {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(n)).await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.start().await;
    rig.until(id, "the first mail", |e| e.current_step == 2).await;
    (rig, id)
}

/// A prospect that has everything its campaign has to send: whatever was due before it has been looked at.
async fn passer_by(rig: &Rig) {
    let campaign = rig.campaign(&mails(1)).await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.until(id, "the passer-by's end", |e| e.status.is_final()).await;
}

#[tokio::test]
async fn a_paused_prospect_sleeps_past_its_time_and_goes_on_when_resumed() {
    let (rig, id) = after_the_first(2).await;
    rig.apply(id, Trigger::Pause).await;
    let row = rig.execution(id).await;
    assert_eq!((row.status, row.paused_status), (Status::Paused, Some(Status::Pending)));
    assert_eq!(row.next_execution_at, Some(NOW + hours(1)));
    assert_eq!(rig.refused(id, Trigger::Pause).await, "paused");
    rig.clock.advance(hours(30));
    passer_by(&rig).await;
    assert_eq!(rig.execution(id).await, row);
    rig.apply(id, Trigger::Resume).await;
    let row = rig.until(id, "the second mail", |e| e.status.is_final()).await;
    assert_eq!((row.email.sent_count, row.paused_status), (2, None));
    assert_eq!(rig.refused(id, Trigger::Resume).await, "not_paused");
}

#[tokio::test]
async fn a_prospect_paused_with_a_send_waiting_is_not_written_to_until_it_is_resumed() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    let gate = rig.fake.hold();
    rig.prospects(campaign, 1).await;
    rig.start().await;
    rig.fake.until_calls(1).await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.until(id, "a send", |e| e.status == Status::Executing).await;
    rig.apply(id, Trigger::Pause).await;
    gate.add_permits(100);
    passer_by(&rig).await;
    let row = rig.execution(id).await;
    assert_eq!((row.status, row.paused_status), (Status::Paused, Some(Status::Executing)));
    assert_eq!(rig.sends(id).await, ["1 1 pending"]);
    rig.apply(id, Trigger::Resume).await;
    rig.until(id, "the mail", |e| e.status.is_final()).await;
    assert_eq!(rig.sends(id).await, ["1 1 sent"]);
}

#[tokio::test]
async fn skip_passes_over_the_current_step() {
    let (rig, id) = after_the_first(3).await;
    rig.apply(id, Trigger::Skip).await;
    let row = rig.until(id, "the third mail", |e| e.status.is_final()).await;
    assert_eq!((row.skipped_steps.as_slice(), row.completed_steps.as_slice()), (&[2][..], &[1, 3][..]));
    let texts: Vec<String> = rig.fake.calls().into_iter().map(|c| c.text).collect();
    assert_eq!(texts, ["m1", "m3"]);
    assert_eq!(rig.refused(id, Trigger::Skip).await, "already_final");
}

#[tokio::test]
async fn restart_begins_a_step_anew_also_after_the_end() {
    let (rig, id) = after_the_first(2).await;
    rig.clock.advance(hours(1));
    rig.until(id, "the end", |e| e.status.is_final()).await;
    assert_eq!(rig.refused(id, Trigger::Restart { step: 3 }).await, "no_such_step");
    rig.apply(id, Trigger::Restart { step: 2 }).await;
    let row = rig.until(id, "the end again", |e| e.status.is_final() && e.email.sent_count == 3).await;
    assert_eq!(row.completed_steps, [1, 2]);
    assert_eq!(rig.sends(id).await, ["1 1 sent", "2 1 sent", "2 1 sent"]);
}

#[tokio::test]
async fn stop_ends_it_for_good_and_its_timers_with_it() {
    let (rig, id) = after_the_first(2).await;
    rig.apply(id, Trigger::Stop).await;
    let row = rig.execution(id).await;
    assert_eq!((row.status, row.exit_reason, row.current_step), (Status::Completed, Some(ExitReason::Stopped), 3));
    rig.clock.advance(hours(30));
    passer_by(&rig).await;
    assert_eq!(rig.execution(id).await, row);
    assert_eq!(rig.refused(id, Trigger::Stop).await, "already_final");
    // Facts are still taken down.
    rig.apply(id, Trigger::Reply { channel: Channel::Email }).await;
    assert!(rig.execution(id).await.email.replied);
}

#[tokio::test]
async fn a_paused_campaign_holds_timers_and_claims_but_takes_facts_and_goes_on_when_resumed() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let mut flow = mails(2);
    flow["stop_on"] = json!([]);
    let campaign = rig.campaign(&flow).await;
    let timer = rig.prospects(campaign, 1).await[0];
    rig.start().await;
    rig.until(timer, "step 1", |e| e.current_step == 2).await;
    // A send that waits behind another one.
    let gate = rig.fake.hold();
    let other = rig.campaign(&mails(1)).await;
    rig.prospects(other, 1).await;
    rig.fake.until_calls(2).await;
    let claim = rig.prospects(campaign, 1).await[0];
    rig.until(claim, "a send", |e| e.status == Status::Executing).await;

    rig.db.script(format!("UPDATE campaigns SET status = 'paused' WHERE id = '{campaign}'")).await.unwrap();
    rig.handle().campaign_changed(campaign);
    // The campaigns are read by a task of its own: until then a timer that fires too early is told something else.
    rig.wait("the pause is known", async || rig.refused(claim, Trigger::Due).await == "held").await;
    gate.add_permits(1000);
    rig.clock.advance(hours(5));
    passer_by(&rig).await;
    let row = rig.execution(timer).await;
    assert_eq!((row.status, row.current_step, row.email.sent_count), (Status::Pending, 2, 1));
    assert_eq!(rig.sends(claim).await, ["1 1 pending"]);

    rig.apply(timer, Trigger::Reply { channel: Channel::Email }).await;
    rig.apply(claim, Trigger::Bounce { status: campaignd::domain::execution::BounceStatus::Soft }).await;
    assert!(rig.execution(timer).await.email.replied);

    rig.db.script(format!("UPDATE campaigns SET status = 'active' WHERE id = '{campaign}'")).await.unwrap();
    rig.handle().campaign_changed(campaign);
    rig.until(timer, "the second mail", |e| e.email.sent_count == 2).await;
    rig.until(claim, "its mail", |e| e.email.sent_count == 1).await;
    rig.clock.advance(hours(1));
    rig.until_all_final().await;
    assert_eq!(rig.fake.doubled(), []);
}

#[tokio::test]
async fn without_an_account_for_its_channel_a_prospect_is_held_and_starts_when_one_is_added() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Linkedin, "seat").await;
    let campaign = rig.campaign(&mails(1)).await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.start().await;
    // Another campaign's invitation that came later is out: this one has been looked at.
    let other = rig.campaign(&json!({"schema_version": 1, "steps": [{"id": "a", "action": "send_linkedin_cr"}]})).await;
    let free = rig.prospects(other, 1).await[0];
    rig.until(free, "the invitation", |e| e.status.is_final()).await;
    let row = rig.execution(id).await;
    assert_eq!((row.status, row.version, row.error_count), (Status::Pending, 0, 0));
    rig.account(Channel::Email, "box").await;
    rig.handle().accounts_changed();
    rig.until(id, "the mail", |e| e.status.is_final()).await;
}

#[tokio::test]
async fn a_prospect_held_for_lack_of_an_account_moves_on_when_the_step_is_skipped() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig
        .campaign(&json!({"schema_version": 1, "steps": [
            {"id": "a", "action": "send_linkedin_cr"},
            {"id": "b", "action": "send_email", "subject": "s", "message": "m"}]}))
        .await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.start().await;
    passer_by(&rig).await;
    assert_eq!(rig.execution(id).await.version, 0);
    rig.apply(id, Trigger::Skip).await;
    let row = rig.until(id, "the mail", |e| e.status.is_final()).await;
    assert_eq!((row.skipped_steps.as_slice(), row.email.sent_count), (&[1][..], 1));
}

#[tokio::test]
async fn a_campaign_uses_only_the_accounts_it_was_given() {
    let mut rig = Rig::manual().await;
    for n in 0..4 {
        rig.account(Channel::Email, &format!("box{n}")).await;
    }
    let campaign = rig.campaign(&mails(1)).await;
    rig.db
        .script("UPDATE campaigns SET accounts = (SELECT array_agg(id) FROM accounts WHERE name = 'box2')")
        .await
        .unwrap();
    rig.prospects(campaign, 10).await;
    rig.start().await;
    rig.until_all_final().await;
    assert!(rig.fake.calls().iter().all(|c| c.account == "box2"));
}

#[tokio::test]
async fn nobody_is_not_found() {
    let (rig, _) = after_the_first(2).await;
    let nobody = ExecutionId(Uuid::now_v7());
    assert_eq!(rig.offer(nobody, Trigger::Pause).await, Err(DeliverError::NotFound(nobody)));
    assert!(rig.handle().has_room());
}

#[tokio::test]
async fn when_admission_is_full_the_next_trigger_is_told_to_come_back() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(2)).await;
    let ids = rig.prospects(campaign, 2).await;
    rig.start_with(|o| o.in_flight_max = 1).await;
    for id in &ids {
        rig.until(*id, "step 1", |e| e.current_step == 2).await;
    }
    // Somebody holds the row, so the first trigger cannot commit.
    let mut other = rig.db.pool.acquire().await.unwrap();
    let mut tx = other.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM campaign_prospect_execution_state WHERE id = $1 FOR UPDATE")
        .bind(ids[0].0)
        .execute(&mut *tx)
        .await
        .unwrap();
    let first = tokio::spawn({
        let (handle, id) = (rig.handle(), ids[0]);
        async move { handle.deliver(id, Trigger::Pause).await }
    });
    rig.wait("the first is under way", async || !rig.handle().has_room()).await;
    assert_eq!(rig.offer(ids[1], Trigger::Pause).await, Err(DeliverError::Busy));
    tx.rollback().await.unwrap();
    assert!(first.await.unwrap().is_ok());
    rig.wait("there is room again", async || rig.handle().has_room()).await;
    rig.apply(ids[1], Trigger::Pause).await;
    // Timers have permits of their own.
    rig.apply(ids[1], Trigger::Resume).await;
    rig.clock.advance(hours(1));
    rig.until(ids[1], "the end", |e| e.status.is_final()).await;
}

#[tokio::test]
async fn no_step_is_restarted_and_none_sent_while_another_send_is_under_way() {
    let mut rig = Rig::manual().await;
    for n in 0..3 {
        rig.account(Channel::Email, &format!("box{n}")).await;
    }
    rig.account(Channel::Linkedin, "seat").await;
    let flow = json!({"schema_version": 1, "steps": [
        {"id": "a", "action": "send_email", "subject": "s", "message": "one"},
        {"id": "b", "action": "send_linkedin_cr", "message": "two"}]});
    let campaign = rig.campaign(&flow).await;
    let id = rig.prospects(campaign, 1).await[0];
    let before = rig.execution(id).await;
    let gate = rig.fake.hold();
    rig.start().await;
    rig.fake.until_calls(1).await;
    for step in [1, 2] {
        assert_eq!(rig.refused(id, Trigger::Restart { step }).await, "send_under_way");
    }
    // Skipped: the next step, though due and on another account, waits for what comes of this one.
    rig.apply(id, Trigger::Skip).await;
    rig.clock.advance(hours(1));
    let other = rig.campaign(&json!({"schema_version": 1, "steps": [{"id": "w", "action": "wait"}]})).await;
    let passer = rig.prospects(other, 1).await[0];
    rig.until(passer, "the passer-by's end", |e| e.status.is_final()).await;
    assert_eq!(rig.sends(id).await, ["1 1 dispatching"]);
    gate.add_permits(10);
    let row = rig.until(id, "the end", |e| e.status.is_final() && e.open_send.is_none()).await;
    assert_eq!((row.email.sent_count, row.skipped_steps.as_slice()), (1, &[1][..]));
    assert_eq!(rig.sends(id).await, ["1 1 sent", "2 1 sent"]);
    assert!(rig.stop().await);
    rig.assert_replays(vec![before], &parsed(&flow)).await;
}

#[tokio::test]
async fn an_outcome_that_is_lost_after_the_end_is_still_read_back_and_recorded() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(2)).await;
    let id = rig.prospects(campaign, 1).await[0];
    let gate = Arc::new(Semaphore::new(0));
    let handed = Arc::clone(&gate);
    rig.fake.script(move |_, _| Act::Hold(Arc::clone(&handed), Box::new(Act::UnknownAfter)));
    rig.start().await;
    rig.fake.until_calls(1).await;
    rig.apply(id, Trigger::Stop).await;
    gate.add_permits(1);
    rig.until_true("SELECT status = 'unknown' FROM sends").await;
    assert_eq!(rig.refused(id, Trigger::Restart { step: 1 }).await, "send_under_way");
    rig.advance_until(Duration::from_secs(1), "it is settled", async || rig.execution(id).await.open_send.is_none())
        .await;
    let row = rig.execution(id).await;
    assert_eq!((row.status, row.exit_reason, row.email.sent_count), (Status::Completed, Some(ExitReason::Stopped), 1));
    assert_eq!(rig.sends(id).await, ["1 1 sent"]);
    assert!(rig.stop().await);
}

#[tokio::test]
async fn a_campaign_that_is_paused_while_nobody_runs_takes_facts_and_starts_when_it_is_active() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let mut flow = mails(2);
    flow["stop_on"] = json!([]);
    let campaign = rig.campaign(&flow).await;
    rig.db.script("UPDATE campaigns SET status = 'paused'").await.unwrap();
    let ids = rig.prospects(campaign, 3).await;
    rig.start().await;
    rig.apply(ids[0], Trigger::Reply { channel: Channel::Email }).await;
    rig.apply(ids[1], Trigger::Skip).await;
    passer_by(&rig).await;
    assert_eq!(rig.fake.calls().len(), 1);
    rig.db.script("UPDATE campaigns SET status = 'active'").await.unwrap();
    rig.handle().campaign_changed(campaign);
    rig.until(ids[0], "the first mail", |e| e.email.sent_count == 1).await;
    rig.until(ids[1], "the second mail", |e| e.status.is_final()).await;
    rig.until(ids[2], "the first mail", |e| e.email.sent_count == 1).await;
    rig.clock.advance(hours(1));
    rig.until_all_final().await;
    assert_eq!(rig.fake.doubled(), []);
    assert!(rig.stop().await);
}
