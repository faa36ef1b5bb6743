//! Passivation: beyond `resident_max` executions are parked, and nobody notices but the memory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use campaignd::domain::account::Channel;
use campaignd::domain::execution::{ConnectionStatus, Execution, Status};
use campaignd::domain::id::ExecutionId;
use campaignd::domain::trigger::Trigger;
use campaignd::runtime::Delivery;
use serde_json::{Value, json};

use crate::fake::{Rig, hours, parsed, seed_flow};

/// People who were invited and have not answered, and the flow they are in.
async fn invited(rig: &mut Rig, people: u32, resident_max: usize) -> (Vec<ExecutionId>, Vec<Execution>, Value) {
    rig.account(Channel::Linkedin, "seat").await;
    rig.account(Channel::Email, "box").await;
    let flow = seed_flow();
    let campaign = rig.campaign(&flow).await;
    let ids = rig.prospects(campaign, people).await;
    let before = rig.executions(&ids).await;
    rig.start_with(|o| o.resident_max = resident_max).await;
    rig.until_true(&format!(
        "SELECT count(*) = {people} FROM campaign_prospect_execution_state WHERE status = 'waiting_trigger'"
    ))
    .await;
    (ids, before, flow)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_actors_are_live_than_there_may_be_and_the_others_have_a_wake_up() {
    let mut rig = Rig::manual().await;
    invited(&mut rig, 40, 10).await;
    rig.wait("ten are live and thirty parked", async || {
        let status = rig.handle().status();
        status.residents == 10 && status.parked == 30
    })
    .await;

    // The same after a restart, where they are never made live in the first place.
    assert!(rig.stop().await);
    rig.start_with(|o| o.resident_max = 10).await;
    let status = rig.handle().status();
    assert!(status.residents <= 10, "{status:?}");
    assert_eq!(status.residents + status.parked, 40, "{status:?}");
    assert!(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_execution_wakes_on_a_trigger_and_on_its_timer() {
    let mut rig = Rig::manual().await;
    let (ids, before, flow) = invited(&mut rig, 20, 1).await;

    // Nineteen of them at least are parked.
    for id in &ids[..10] {
        rig.apply(*id, Trigger::ConnectionAccepted).await;
    }
    for id in &ids[..10] {
        rig.until(*id, "the mail is sent", |e| e.email.sent_count == 1).await;
    }

    // The first check of the others' wait is due after an hour.
    rig.clock.advance(hours(1));
    for id in &ids[10..] {
        rig.until(*id, "it has looked", |e| e.trigger_check_count == 1).await;
    }

    // And the end of the wait after 72 hours.
    rig.clock.advance(hours(72));
    for id in &ids[10..] {
        rig.until(*id, "it went on", |e| {
            e.current_step > 1 && e.linkedin.connection_status != Some(ConnectionStatus::Accepted)
        })
        .await;
    }
    assert!(rig.stop().await);
    rig.assert_replays(before, &parsed(&flow)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_paused_is_parked_and_comes_back_on_resume() {
    let mut rig = Rig::manual().await;
    let (ids, _, _) = invited(&mut rig, 6, 1).await;
    for id in &ids {
        rig.apply(*id, Trigger::Pause).await;
    }
    rig.wait("at most one is live", async || rig.handle().status().residents <= 1).await;
    assert!(rig.stop().await);
    rig.start_with(|o| o.resident_max = 1).await;
    for id in &ids {
        rig.apply(*id, Trigger::Resume).await;
        assert_eq!(rig.execution(*id).await.status, Status::WaitingTrigger);
    }
    assert!(rig.stop().await);
}

/// Triggers and timers race with parking all the time: each fact is applied exactly once, whoever was live.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_trigger_is_lost_between_parking_and_delivery() {
    const PEOPLE: u32 = 120;
    const ROUNDS: usize = 40;
    let mut rig = Rig::manual().await;
    rig.account(Channel::Linkedin, "seat").await;
    let flow = json!({"schema_version": 1, "stop_on": [], "steps": [
        {"id": "a", "action": "send_linkedin_cr", "message": "a",
         "wait_for": {"trigger": "connection_accepted", "timeout": "9000h", "check_every": "1h", "max_checks": 10000}}]});
    let campaign = rig.campaign(&flow).await;
    let ids = rig.prospects(campaign, PEOPLE).await;
    let before = rig.executions(&ids).await;
    rig.start_with(|o| o.resident_max = 6).await;
    rig.until_true("SELECT bool_and(status = 'waiting_trigger') FROM campaign_prospect_execution_state").await;

    let (ids, handle) = (Arc::new(ids), rig.handle());
    let (applied, running) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
    let clock = rig.clock.clone();
    let ticking = Arc::clone(&running);
    // Everybody's check comes due every few milliseconds: parked ones are read for it, and park others.
    let ticker = tokio::spawn(async move {
        while ticking.load(Ordering::Relaxed) {
            clock.advance(Duration::from_secs(600));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let mut senders = Vec::new();
    for sender in 0..4_usize {
        let (ids, handle, applied) = (Arc::clone(&ids), handle.clone(), Arc::clone(&applied));
        senders.push(tokio::spawn(async move {
            // Each person belongs to one sender, so each answer can be told in advance.
            for round in 0..ROUNDS {
                for id in ids.iter().skip(sender).step_by(4) {
                    let trigger = if round % 2 == 0 { Trigger::Pause } else { Trigger::Resume };
                    match handle.deliver(*id, trigger.clone()).await {
                        Ok(Delivery::Applied { .. }) => applied.fetch_add(1, Ordering::Relaxed),
                        other => panic!("{}: {other:?}", trigger.name()),
                    };
                }
            }
        }));
    }
    for sender in senders {
        sender.await.unwrap();
    }
    running.store(false, Ordering::Relaxed);
    ticker.await.unwrap();
    assert_eq!(applied.load(Ordering::Relaxed), ids.len() * ROUNDS);
    assert!(rig.stop().await);
    let transitions = rig.assert_replays(before, &parsed(&flow)).await;
    assert!(transitions > ids.len() * ROUNDS, "checks happened too: {transitions}");
}
