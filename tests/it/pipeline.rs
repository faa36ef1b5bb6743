//! From the table to the provider and back: what each prospect's row holds, and what each person receives.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up has failed")]

use std::sync::Arc;
use std::time::Duration;

use campaignd::clock::Clock;
use campaignd::domain::account::Channel;
use campaignd::domain::execution::{BounceStatus, ConnectionStatus, ExitReason, Status, WaitTrigger};
use campaignd::domain::retry::ATTEMPTS_MAX;
use campaignd::domain::send::FailureClass;
use campaignd::domain::trigger::Trigger;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::fake::{Act, NOW, Read, Rig, WORKSPACE, hours, mails, parsed, seed_flow};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_seeds_example_holds_line_by_line_in_the_table() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Linkedin, "seat").await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&seed_flow()).await;
    let id = rig.prospects(campaign, 1).await[0];

    // Time 0: { current_step: 1, status: 'pending', next_execution_at: 'NOW' }
    let before = rig.execution(id).await;
    assert_eq!((before.current_step, before.status, before.next_execution_at), (1, Status::Pending, Some(NOW)));

    // Time 0: Execute Step 1 (LinkedIn CR)
    rig.start().await;
    let row = rig.until(id, "step 1", |e| e.status == Status::WaitingTrigger).await;
    assert_eq!(row.current_step, 1);
    assert_eq!(row.waiting_for_trigger, Some(WaitTrigger::ConnectionAccepted));
    assert_eq!(row.next_check_at, Some(NOW + hours(1)));
    assert_eq!(row.next_execution_at, Some(NOW + hours(72)));
    assert_eq!(row.linkedin.connection_status, Some(ConnectionStatus::Pending));
    assert_eq!(row.last_executed_at, Some(NOW));

    // Checks come every hour, and each is counted.
    for check in 1..=11 {
        rig.clock.advance(hours(1));
        let row = rig.until(id, "a check", |e| e.trigger_check_count == check).await;
        assert_eq!(row.next_check_at, Some(NOW + hours(u64::from(check) + 1)));
    }

    // Time 12h: Connection accepted! (before the twelfth check, so that the row is seen between the two)
    let accepted = NOW + hours(12);
    let gate = rig.fake.hold();
    rig.clock.advance(hours(1));
    rig.until(id, "the twelfth check", |e| e.trigger_check_count == 12).await;
    rig.apply(id, Trigger::ConnectionAccepted).await;
    let (status, step, at): (String, i32, chrono::DateTime<chrono::Utc>) =
        sqlx::query_as("SELECT to_status, to_step, at FROM transitions WHERE trigger = 'connection_accepted'")
            .fetch_one(&rig.db.pool)
            .await
            .unwrap();
    assert_eq!((status.as_str(), step, at), ("pending", 2, accepted.to_utc()));
    let row = rig.execution(id).await;
    assert_eq!(row.linkedin.connection_status, Some(ConnectionStatus::Accepted));

    // Time 12h: Execute Step 2 (Email)
    gate.add_permits(1);
    let row = rig.until(id, "step 2", |e| e.current_step == 3).await;
    assert_eq!(row.status, Status::Pending);
    assert_eq!(row.email.sent_count, 1);
    assert_eq!(row.next_execution_at, Some(accepted + hours(48)));

    // Time 60h: Execute Step 3 (LinkedIn message)
    gate.add_permits(1);
    rig.clock.advance(hours(48));
    let row = rig.until(id, "step 3", |e| e.status.is_final()).await;
    assert_eq!((row.current_step, row.status), (4, Status::Completed));
    assert_eq!(row.linkedin.message_count, 1);
    assert_eq!(row.completed_steps, [1, 2, 3]);
    assert_eq!(row.exit_reason, Some(ExitReason::Finished));
    assert_eq!(row.last_executed_at, Some(NOW + hours(60)));

    let texts: Vec<String> = rig.fake.calls().into_iter().map(|c| c.text).collect();
    assert_eq!(texts, ["invite", "intro", "nudge"]);
    assert_eq!(rig.sends(id).await, ["1 1 sent", "2 1 sent", "3 1 sent"]);
    rig.assert_replays(vec![before], &parsed(&seed_flow())).await;
}

#[tokio::test]
async fn replaying_the_transitions_of_a_wild_mix_gives_exactly_the_stored_states() {
    // Five days in twelve seconds.
    let mut rig = Rig::new(Clock::scaled_from_now(36_000.0)).await;
    for n in 0..3 {
        rig.account(Channel::Linkedin, &format!("seat{n}")).await;
        rig.account(Channel::Email, &format!("box{n}")).await;
    }
    let mut flow = seed_flow();
    flow["stop_on"] = json!(["unsubscribe", "hard_bounce"]);
    let campaign = rig.campaign(&flow).await;
    let ids = rig.prospects(campaign, 50).await;
    let before = rig.executions(&ids).await;
    rig.fake.script(|request, earlier| match (request.send.0.as_u128() >> 7) % 12 {
        0 if earlier == 0 => Act::UnknownAfter,
        1 if earlier == 0 => Act::UnknownBefore,
        2 => Act::Refuse(FailureClass::RetryLater, "errors/later"),
        3 => Act::Refuse(FailureClass::RecipientPermanent, "errors/nobody"),
        4 => Act::Refuse(FailureClass::AlreadyDone, "errors/already"),
        5 if earlier == 0 => Act::Refuse(FailureClass::AccountQuota, "errors/too_many_requests"),
        6 if earlier == 0 => Act::PanicAfter,
        _ => Act::Ok,
    });
    rig.start().await;
    // Commands and facts at odd moments; many come too late or twice, which is part of it.
    for round in 0..6_usize {
        for (n, id) in ids.iter().enumerate() {
            let trigger = match (n * 7 + round * 5) % 14 {
                0 => Trigger::Pause,
                1 => Trigger::Skip,
                2 => Trigger::Reply { channel: Channel::Linkedin },
                3 => Trigger::Bounce { status: BounceStatus::Soft },
                4 if round == 4 => Trigger::Bounce { status: BounceStatus::Hard },
                5 if round == 5 => Trigger::Unsubscribe,
                6 => Trigger::Restart { step: 1 },
                7 if round == 3 => Trigger::Stop,
                8..=10 => Trigger::ConnectionAccepted,
                _ => Trigger::Resume,
            };
            rig.offer(*id, trigger).await.unwrap();
        }
    }
    for id in &ids {
        rig.offer(*id, Trigger::Resume).await.unwrap();
    }
    rig.until_all_final().await;
    assert!(rig.stop().await);
    let replayed = rig.assert_replays(before, &parsed(&flow)).await;
    assert!(replayed > 300, "{replayed}");
    assert_eq!(rig.fake.overlaps(), 0);
    assert_eq!(
        rig.one::<i64>("SELECT count(*) FROM sends WHERE status IN ('pending', 'dispatching', 'unknown')").await,
        0
    );
    assert_eq!(rig.one::<i64>("SELECT count(*) FROM account_gate WHERE in_flight IS NOT NULL").await, 0);
}

#[tokio::test]
async fn two_prospects_of_one_account_never_overlap() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    let ids = rig.prospects(campaign, 30).await;
    rig.fake.script(|_, _| Act::Slow(Duration::from_millis(3), Box::new(Act::Ok)));
    rig.start().await;
    rig.until_all_final().await;
    assert_eq!(rig.fake.calls().len(), ids.len());
    assert_eq!(rig.fake.overlaps(), 0);
    assert_eq!(rig.one::<i64>("SELECT used::bigint FROM account_gate").await, 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_is_sent_exactly_once_though_a_fifth_of_the_answers_is_lost() {
    let mut rig = Rig::fast().await;
    for n in 0..5 {
        rig.account(Channel::Email, &format!("box{n}")).await;
    }
    let campaign = rig.campaign(&mails(2)).await;
    let ids = rig.prospects(campaign, 500).await;
    rig.fake.script(|request, earlier| match (request.send.0.as_u128() >> 9) % 10 {
        0 if earlier == 0 => Act::UnknownAfter,
        1 if earlier == 0 => Act::UnknownBefore,
        _ => Act::Ok,
    });
    rig.start().await;
    rig.until_all_final().await;
    let received = rig.fake.received();
    assert_eq!(received.len(), ids.len() * 2);
    assert_eq!(rig.fake.doubled(), []);
    assert_eq!(rig.fake.overlaps(), 0);
    assert!(rig.fake.finds().len() > 100, "{} reads", rig.fake.finds().len());
    assert_eq!(rig.one::<i64>("SELECT count(*) FROM sends WHERE status = 'sent'").await, 1000);
    let statuses: Vec<Status> = rig.executions(&ids).await.into_iter().map(|e| e.status).collect();
    assert!(statuses.iter().all(|s| *s == Status::Completed));
    // Spread over all accounts.
    let mut accounts: Vec<String> = rig.fake.calls().into_iter().map(|c| c.account).collect();
    accounts.sort_unstable();
    accounts.dedup();
    assert_eq!(accounts.len(), 5);
}

#[tokio::test]
async fn what_may_work_later_is_tried_five_times_further_and_further_apart_and_then_the_step_fails() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.fake.script(|_, _| Act::Refuse(FailureClass::RetryLater, "errors/later"));
    rig.start().await;
    let mut last = None;
    for attempt in 1..ATTEMPTS_MAX {
        let row = rig.until(id, "a retry", |e| e.status == Status::Pending && e.attempt == attempt).await;
        let wait = row.next_execution_at.unwrap().since(rig.clock.now());
        assert!(last.is_none_or(|last| wait > last), "attempt {attempt}: {wait:?} after {last:?}");
        last = Some(wait);
        assert_eq!(row.error_count, attempt);
        rig.fake.until_calls(usize::try_from(attempt).unwrap()).await;
        rig.clock.advance(wait);
    }
    let row = rig.until(id, "the end", |e| e.status.is_final()).await;
    assert_eq!((row.status, row.exit_reason), (Status::Failed, Some(ExitReason::Error)));
    assert_eq!(row.failed_steps, [1]);
    assert_eq!(row.last_error.as_deref(), Some("errors/later: no"));
    assert_eq!(rig.sends(id).await, (1..=5).map(|n| format!("1 {n} failed")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_used_up_quota_rests_the_account_and_the_prospect_keeps_its_place() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    let ids = rig.prospects(campaign, 2).await;
    rig.fake.script(|_, earlier| match earlier {
        0 => Act::Refuse(FailureClass::AccountQuota, "errors/quota"),
        _ => Act::Ok,
    });
    rig.start().await;
    rig.until_true("SELECT next_send_at IS NOT NULL AND in_flight IS NULL FROM account_gate").await;
    let rest: chrono::DateTime<chrono::Utc> = rig.one("SELECT next_send_at FROM account_gate").await;
    assert_eq!(rest, (NOW + hours(24)).to_utc());
    // Both keep their place, with the same send; the second was not even tried.
    for id in &ids {
        let row = rig.until(*id, "a send", |e| e.status == Status::Executing).await;
        assert_eq!((row.current_step, row.attempt, row.error_count), (1, 1, 0));
        assert_eq!(rig.sends(*id).await, ["1 1 pending"]);
    }
    rig.fake.script(|_, _| Act::Ok);
    rig.clock.advance(hours(23));
    // A second campaign's prospect has to wait for the same account: its send is behind the rest, too.
    let other = rig.campaign(&mails(1)).await;
    let late = rig.prospects(other, 1).await[0];
    rig.handle().arrivals();
    rig.until(late, "a send", |e| e.status == Status::Executing).await;
    assert_eq!(rig.fake.calls().len(), 1);
    rig.clock.advance(hours(1));
    rig.until_all_final().await;
    assert_eq!(rig.fake.calls().len(), 4);
    assert_eq!(rig.fake.doubled(), []);
    assert_eq!(rig.fake.received().len(), 3);
}

#[tokio::test]
async fn a_broken_account_halts_alone_and_goes_on_once_it_is_active_again() {
    let mut rig = Rig::manual().await;
    let broken = rig.account(Channel::Email, "box").await;
    rig.account(Channel::Linkedin, "seat").await;
    let campaign = rig.campaign(&mails(1)).await;
    let ids = rig.prospects(campaign, 3).await;
    rig.fake.script(|_, _| Act::Refuse(FailureClass::AccountBroken, "errors/disconnected_account"));
    rig.start().await;
    rig.until_true("SELECT status = 'halted' FROM accounts WHERE channel = 'email'").await;
    let reason: String = rig.one("SELECT status_reason FROM accounts WHERE channel = 'email'").await;
    assert_eq!(reason, "errors/disconnected_account: no");
    for id in &ids {
        rig.until(*id, "a send", |e| e.status == Status::Executing).await;
        assert_eq!(rig.sends(*id).await, ["1 1 pending"]);
    }
    // Another account works meanwhile.
    rig.fake.script(|_, _| Act::Ok);
    let other = rig
        .campaign(&json!({"schema_version": 1, "steps":
        [{"id": "a", "action": "send_linkedin_cr", "message": "hi"}]}))
        .await;
    let free = rig.prospects(other, 1).await[0];
    rig.until(free, "the other account sends", |e| e.status.is_final()).await;
    assert_eq!(rig.fake.calls().len(), 2);

    rig.db
        .script(format!("UPDATE accounts SET status = 'active', status_reason = NULL WHERE workspace_id = '{WORKSPACE}' AND id = '{broken}'"))
        .await
        .unwrap();
    rig.handle().accounts_changed();
    rig.until_all_final().await;
    assert_eq!(rig.fake.received().len(), 4);
    assert_eq!(rig.fake.doubled(), []);
    let row = rig.execution(ids[0]).await;
    assert_eq!((row.status, row.failed_steps.len()), (Status::Completed, 0));
}

#[tokio::test]
async fn a_closed_window_defers_the_send_and_not_the_transition() {
    // It is Monday, 09:00.
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let mut flow = mails(1);
    flow["timezone"] = json!("UTC");
    flow["window"] = json!({"days": ["tue"], "from": "10:00", "to": "11:00"});
    let closed = rig.campaign(&flow).await;
    let id = rig.prospects(closed, 1).await[0];
    rig.start().await;
    let row = rig.until(id, "a send", |e| e.status == Status::Executing).await;
    assert_eq!(row.version, 1);
    // A send without a window that came later leaves first: so the channel has looked at the first one.
    let open = rig.campaign(&mails(1)).await;
    let other = rig.prospects(open, 1).await[0];
    rig.until(other, "the other one's end", |e| e.status.is_final()).await;
    assert_eq!(rig.sends(id).await, ["1 1 pending"]);
    rig.clock.advance(hours(24));
    let again = rig.prospects(open, 1).await[0];
    rig.until(again, "another one's end", |e| e.status.is_final()).await;
    assert_eq!(rig.sends(id).await, ["1 1 pending"], "an hour too early");
    rig.clock.advance(hours(1));
    let row = rig.until(id, "the end", |e| e.status.is_final()).await;
    assert_eq!(row.email.last_sent_at, Some(NOW + hours(25)));
}

#[tokio::test]
async fn a_send_that_cannot_be_read_back_is_parked_for_a_person_and_never_sent_again() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.fake.script(|_, _| Act::UnknownBefore);
    rig.fake.reads(|_, _| Read::Error);
    rig.start().await;
    rig.fake.until_calls(1).await;
    rig.advance_until(MINUTE, "the send is parked", async || {
        rig.one::<bool>("SELECT count(parked_at) = 1 FROM sends").await
    })
    .await;
    assert_eq!(rig.fake.finds().len(), 30);
    let row = rig.execution(id).await;
    assert_eq!((row.status, row.error_count), (Status::Executing, 1));
    assert!(row.open_send.is_some());
    assert_eq!(rig.sends(id).await, ["1 1 unknown"]);
    assert_eq!(rig.one::<i32>("SELECT settle_count FROM sends").await, 30);
    // The account is free for others, and what is parked stays parked, also after a restart.
    rig.fake.script(|_, _| Act::Ok);
    let second = rig.campaign(&mails(1)).await;
    let other = rig.prospects(second, 1).await[0];
    rig.until(other, "the other one's end", |e| e.status.is_final()).await;
    assert!(rig.stop().await);
    rig.start().await;
    let third = rig.prospects(second, 1).await[0];
    rig.until(third, "a third one's end", |e| e.status.is_final()).await;
    assert_eq!(rig.sends(id).await, ["1 1 unknown"]);
    assert_eq!(rig.fake.calls().len(), 3);
    assert_eq!(rig.fake.finds().len(), 30);
}

#[tokio::test]
async fn a_reply_takes_a_pending_send_back_in_the_same_commit() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(2)).await;
    let gate = rig.fake.hold();
    let first = rig.prospects(campaign, 1).await[0];
    rig.start().await;
    rig.fake.until_calls(1).await;
    // Behind the first, which is under way.
    let id = rig.prospects(campaign, 1).await[0];
    rig.until(id, "a send", |e| e.status == Status::Executing).await;
    rig.apply(id, Trigger::Reply { channel: Channel::Email }).await;
    let row = rig.execution(id).await;
    assert_eq!((row.status, row.exit_reason), (Status::Completed, Some(ExitReason::Replied)));
    assert!(row.email.replied);
    assert_eq!(rig.sends(id).await, ["1 1 cancelled"]);
    let together: bool = rig
        .one(&format!(
            "SELECT s.xmin = t.xmin FROM sends s JOIN transitions t USING (execution_id) \
             WHERE s.execution_id = '{id}' AND t.trigger = 'reply'"
        ))
        .await;
    assert!(together, "one transaction");
    gate.add_permits(10);
    rig.until(first, "the first one's mail", |e| e.email.sent_count == 1).await;
    // Nobody was called for it, and it is not left open either.
    let row = rig.until(id, "the send is closed", |e| e.open_send.is_none()).await;
    assert_eq!(row.email.sent_count, 0);
    assert_eq!(rig.sends(id).await, ["1 1 cancelled"]);
    assert_eq!(rig.fake.calls().len(), 1);
}

#[tokio::test]
async fn a_reply_during_the_provider_call_ends_the_flow_and_both_are_recorded() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(2)).await;
    let id = rig.prospects(campaign, 1).await[0];
    let before = rig.execution(id).await;
    let gate = rig.fake.hold();
    rig.start().await;
    rig.fake.until_calls(1).await;
    rig.apply(id, Trigger::Reply { channel: Channel::Email }).await;
    assert_eq!(rig.sends(id).await, ["1 1 dispatching"]);
    gate.add_permits(1);
    let row = rig.until(id, "the outcome", |e| e.open_send.is_none()).await;
    assert_eq!((row.status, row.exit_reason), (Status::Completed, Some(ExitReason::Replied)));
    assert_eq!((row.email.sent_count, row.email.replied), (1, true));
    assert_eq!(rig.sends(id).await, ["1 1 sent"]);
    assert_eq!(rig.one::<i64>("SELECT count(*) FROM account_gate WHERE in_flight IS NOT NULL").await, 0);
    rig.assert_replays(vec![before], &parsed(&mails(2))).await;
}

#[tokio::test]
async fn accounts_send_side_by_side() {
    let mut rig = Rig::manual().await;
    for n in 0..4 {
        rig.account(Channel::Email, &format!("box{n}")).await;
    }
    let campaign = rig.campaign(&mails(1)).await;
    // Everybody waits for the others: with one account at a time this would never end.
    let together = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&together);
    rig.fake.script(move |_, _| Act::Hold(Arc::clone(&gate), Box::new(Act::Ok)));
    rig.prospects(campaign, 60).await;
    rig.start().await;
    rig.fake.until_calls(4).await;
    together.add_permits(1000);
    rig.until_all_final().await;
    assert_eq!(rig.fake.overlaps(), 0);
}

#[tokio::test]
async fn more_timers_than_permits_all_fire() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig
        .campaign(&json!({"schema_version": 1, "steps": [
        {"id": "a", "action": "wait", "delay": "1h"}, {"id": "b", "action": "wait", "delay": "1h"}]}))
        .await;
    rig.prospects(campaign, 300).await;
    rig.start_with(|o| o.timers_max = 2).await;
    rig.until_true("SELECT bool_and(current_step = 2) FROM campaign_prospect_execution_state").await;
    rig.clock.advance(hours(1));
    rig.until_all_final().await;
    assert_eq!(rig.one::<i64>("SELECT count(*) FROM transitions").await, 600);
    assert!(rig.stop().await);
}

#[tokio::test]
async fn a_text_that_cannot_be_rendered_fails_its_step_with_the_reason_and_the_next_one_runs() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig
        .campaign(&json!({"schema_version": 1, "steps": [
            {"id": "a", "action": "send_email", "subject": "s", "message": "Hi {{ title }}"},
            {"id": "b", "action": "send_email", "subject": "s", "message": "Hi {{ first_name }}"}]}))
        .await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.start().await;
    let row = rig.until(id, "the end", |e| e.status.is_final()).await;
    println!("{:?} {:?} {:?}", row.status, row.failed_steps, row.last_error);
    assert!(rig.fake.calls().iter().all(|c| c.text != "Hi "), "an empty place is never sent");
    assert_eq!(row.email.sent_count, 1);
    assert!(row.last_error.unwrap().contains("title"));
}

#[tokio::test]
async fn sends_of_an_account_keep_its_gap() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    rig.db.script("UPDATE accounts SET min_gap_ms = 60000").await.unwrap();
    let campaign = rig.campaign(&mails(1)).await;
    rig.prospects(campaign, 4).await;
    rig.start().await;
    for sent in 1..=4 {
        rig.until_true(&format!("SELECT count(*) = {sent} FROM sends WHERE status = 'sent'")).await;
        rig.until_true("SELECT count(*) = 4 FROM sends").await;
        let next: chrono::DateTime<chrono::Utc> = rig.one("SELECT next_send_at FROM account_gate").await;
        assert_eq!(next, (rig.clock.now() + MINUTE).to_utc());
        assert_eq!(rig.fake.calls().len(), sent);
        rig.clock.advance(MINUTE);
    }
    rig.until_all_final().await;
}
