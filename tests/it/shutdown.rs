//! Stopping, starting again, and standing by.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up has failed")]

use std::time::{Duration, Instant};

use campaignd::domain::account::Channel;
use campaignd::domain::execution::Status;
use campaignd::domain::trigger::Trigger;
use campaignd::runtime::{self, DeliverError};

use crate::processes::World;
use crate::trace::until;
use serde_json::Value;

use crate::fake::{Act, Rig, hours, mails, parsed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutting_down_under_load_leaves_nothing_half_done_and_the_next_start_goes_on() {
    let mut rig = Rig::fast().await;
    for n in 0..4 {
        rig.account(Channel::Email, &format!("box{n}")).await;
    }
    let campaign = rig.campaign(&mails(3)).await;
    let ids = rig.prospects(campaign, 120).await;
    let before = rig.executions(&ids).await;
    rig.fake.script(|_, _| Act::Slow(Duration::from_millis(10), Box::new(Act::Ok)));
    let mut seen = 0;
    for _ in 0..3 {
        rig.start().await;
        rig.fake.until_calls(seen + 40).await;
        let handle = rig.handle();
        let began = Instant::now();
        assert!(rig.stop().await, "everything in flight came to its end");
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        assert_eq!(handle.deliver(ids[0], Trigger::Pause).await, Err(DeliverError::Stopping));
        assert!(!handle.status().ready);
        assert_eq!(rig.one::<i64>("SELECT count(*) FROM sends WHERE status = 'dispatching'").await, 0);
        assert_eq!(rig.one::<i64>("SELECT count(*) FROM account_gate WHERE in_flight IS NOT NULL").await, 0);
        assert_eq!(rig.one::<i64>("SELECT count(*) FROM shard_lease WHERE owner IS NOT NULL").await, 0);
        seen = rig.fake.calls().len();
        let sent = rig.one::<i64>("SELECT count(*) FROM sends WHERE status = 'sent'").await;
        assert_eq!(sent, i64::try_from(seen).unwrap(), "every call is recorded");
    }
    rig.fake.script(|_, _| Act::Ok);
    rig.start().await;
    rig.until_all_final().await;
    assert_eq!(rig.fake.doubled(), []);
    assert_eq!(rig.fake.received().len(), ids.len() * 3);
    assert_eq!(rig.fake.finds().len(), 0, "nothing had to be read back");
    rig.assert_replays(before, &parsed(&mails(3))).await;
}

#[tokio::test]
async fn a_call_that_was_cut_off_by_a_crash_is_read_back_by_the_next_life() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    let ids = rig.prospects(campaign, 2).await;
    let gate = rig.fake.hold();
    rig.start().await;
    rig.fake.until_calls(1).await;
    let first = rig.fake.calls()[0].clone();
    // As after kill -9: the row says dispatching, the gate is shut, and nobody renews the lease.
    crate::lease::kill_holders(&rig.db.pool).await;
    drop(rig.runtime.take());
    let mut next = Rig::on(rig.db, rig.clock).await;
    next.fake.has_received(&first.person, &first.text);
    next.start().await;
    next.advance_until(Duration::from_secs(1), "both ends", async || {
        next.one::<i64>("SELECT count(*) FROM sends WHERE status = 'sent'").await == 2
    })
    .await;
    next.until_all_final().await;
    assert_eq!(next.fake.finds(), [first.send]);
    assert!(next.fake.calls().iter().all(|c| c.send != first.send));
    assert_eq!(next.fake.calls().len(), 1);
    assert_eq!(next.fake.doubled(), []);
    drop(gate);
    assert_eq!(next.executions(&ids).await.iter().filter(|e| e.status == Status::Completed).count(), 2);
}

#[tokio::test]
async fn a_second_runtime_stands_by_until_the_first_gives_the_shards_back() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(2)).await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.start().await;
    rig.until(id, "the first mail", |e| e.current_step == 2).await;
    let second = tokio::spawn(runtime::start(rig.options()));
    let other = rig.prospects(campaign, 1).await[0];
    rig.until(other, "the first one goes on", |e| e.current_step == 2).await;
    assert!(!second.is_finished(), "it stands by");
    assert!(rig.stop().await);
    let second = tokio::time::timeout(Duration::from_secs(20), second).await.expect("it takes over").unwrap().unwrap();
    rig.runtime = Some(second);
    rig.clock.advance(hours(1));
    rig.until_all_final().await;
    assert_eq!(rig.fake.calls().len(), 4);
    assert_eq!(rig.fake.doubled(), []);
    assert!(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stands_by_is_alive_says_what_it_waits_for_and_takes_over() {
    let first = World::new("standby", 1).await;
    let served = first.start_server();
    first.until_answers(first.metrics, "/readyz").await;
    let second = first.beside();
    let _waits = second.start_server();
    second.until_answers(second.metrics, "/healthz").await;
    let url = format!("http://127.0.0.1:{}/readyz", second.metrics);
    let standing_by = async || {
        let body: Value = reqwest::get(&url).await.ok()?.json().await.ok()?;
        Some((body["ready"].as_bool()?, body["reasons"][0]["name"].as_str().unwrap_or_default().to_owned()))
    };
    until("it stands by", async || standing_by().await == Some((false, "leases".to_owned()))).await;
    drop(served);
    second.until_answers(second.metrics, "/readyz").await;
    second.until_answers(second.metrics, "/metrics").await;
}

#[tokio::test]
async fn what_became_due_while_nobody_ran_is_done_at_the_next_start() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(2)).await;
    let ids = rig.prospects(campaign, 10).await;
    rig.start().await;
    for id in &ids {
        rig.until(*id, "the first mail", |e| e.current_step == 2).await;
    }
    assert!(rig.stop().await);
    rig.clock.advance(hours(48));
    rig.start().await;
    rig.until_all_final().await;
    assert_eq!(rig.fake.calls().len(), 20);
    assert_eq!(rig.fake.doubled(), []);
}

#[tokio::test]
async fn a_call_that_never_ends_is_given_up_at_the_end_and_read_back_by_the_next_life() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    let id = rig.prospects(campaign, 1).await[0];
    let _never = rig.fake.hold();
    rig.start().await;
    rig.fake.until_calls(1).await;
    let began = Instant::now();
    assert!(!rig.stop().await);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(rig.sends(id).await, ["1 1 dispatching"]);
    rig.fake.script(|_, _| Act::Ok);
    rig.start().await;
    rig.advance_until(Duration::from_secs(1), "the mail", async || rig.execution(id).await.status.is_final()).await;
    assert_eq!(rig.fake.calls().len(), 2);
    assert_eq!(rig.fake.finds().len(), 2);
}
