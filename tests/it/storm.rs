//! Everything at once: lost answers, panics, cut connections, halted accounts, paused campaigns, commands, restarts.
//!
//! What must hold at the end holds whatever happened: nobody got a text twice, every transition replays to the stored row,
//! and nothing is left open. `CAMPAIGND_STORM_SEED` chooses another storm.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use campaignd::clock::Clock;
use campaignd::domain::account::Channel;
use campaignd::domain::execution::BounceStatus;
use campaignd::domain::send::FailureClass;
use campaignd::domain::trigger::Trigger;
use campaignd::runtime::{BeforeStep, DeliverError};
use serde_json::json;

use crate::crash::cut;
use crate::fake::{Act, Rig, parsed};

/// Numbers that look random and are the same for the same seed (splitmix64).
struct Dice(AtomicU64);

impl Dice {
    fn roll(&self, sides: u64) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

fn trigger(dice: &Dice) -> Trigger {
    match dice.roll(16) {
        0..=2 => Trigger::Pause,
        3..=6 => Trigger::Resume,
        7..=8 => Trigger::ConnectionAccepted,
        9 => Trigger::Skip,
        10 => Trigger::Bounce { status: BounceStatus::Soft },
        11 => Trigger::Reply { channel: Channel::Linkedin },
        12 => Trigger::Reply { channel: Channel::Email },
        13 => Trigger::Stop,
        _ => Trigger::CheckDue,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_nobody_is_contacted_twice_and_nothing_is_left_open() {
    storm(usize::MAX).await;
}

/// Every work finds most executions parked, and every actor that comes to life parks another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_when_hardly_anybody_may_be_live() {
    storm(4).await;
}

async fn storm(resident_max: usize) {
    let seed = std::env::var("CAMPAIGND_STORM_SEED").map_or(1, |s| s.parse().unwrap());
    println!("seed {seed}");
    let dice = Arc::new(Dice(AtomicU64::new(seed)));
    let mut rig = Rig::new(Clock::scaled_from_now(36_000.0)).await;
    for n in 0..3 {
        rig.account(Channel::Linkedin, &format!("seat{n}")).await;
        rig.account(Channel::Email, &format!("box{n}")).await;
    }
    let flow = json!({"schema_version": 1, "stop_on": ["unsubscribe", "hard_bounce"], "steps": [
        {"id": "a", "action": "send_linkedin_cr", "message": "a",
         "wait_for": {"trigger": "connection_accepted", "timeout": "8h"}},
        {"id": "b", "action": "send_email", "subject": "s", "message": "b", "delay": "4h"},
        {"id": "c", "action": "send_email", "subject": "s", "message": "c", "delay": "2h"},
        {"id": "d", "action": "send_linkedin_message", "message": "d", "requires": ["connected"]}]});
    let campaign = rig.campaign(&flow).await;
    let mut ids = rig.prospects(campaign, 80).await;
    let before = rig.executions(&ids).await;
    let thrown = Arc::clone(&dice);
    rig.fake.script(move |_, _| match thrown.roll(24) {
        0 => Act::UnknownAfter,
        1 => Act::UnknownBefore,
        2 => Act::PanicAfter,
        3 => Act::Refuse(FailureClass::RetryLater, "errors/later"),
        4 => Act::Refuse(FailureClass::AccountQuota, "errors/too_many_requests"),
        5 if thrown.roll(4) == 0 => Act::Refuse(FailureClass::AccountBroken, "errors/disconnected_account"),
        6 => Act::Refuse(FailureClass::RecipientPermanent, "errors/nobody"),
        7..=12 => Act::Slow(std::time::Duration::from_millis(thrown.roll(20)), Box::new(Act::Ok)),
        _ => Act::Ok,
    });
    let thrown = Arc::clone(&dice);
    let crashes: BeforeStep = Arc::new(move |_, trigger| {
        assert!(trigger.name() == "quarantine" || thrown.roll(60) != 0, "injected");
    });

    for _life in 0..4 {
        let crashes = Arc::clone(&crashes);
        rig.start_with(|o| {
            o.before_step = Some(crashes);
            o.resident_max = resident_max;
        })
        .await;
        for round in 0..60_u64 {
            match dice.roll(12) {
                0 => drop(cut(&rig.db.pool).await),
                1 => rig.db.script("UPDATE campaigns SET status = 'paused'").await.unwrap(),
                2..=3 => rig.db.script("UPDATE campaigns SET status = 'active'").await.unwrap(),
                4 => rig.db.script("UPDATE accounts SET status = 'active'").await.unwrap(),
                5 if round < 30 => ids.extend(rig.prospects(campaign, 2).await),
                _ => {}
            }
            rig.handle().campaign_changed(campaign);
            for _ in 0..6 {
                let id = ids[usize::try_from(dice.roll(ids.len() as u64)).unwrap()];
                match rig.offer(id, trigger(&dice)).await {
                    Ok(_) | Err(DeliverError::Busy | DeliverError::Unrunnable(..)) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
        assert!(rig.stop().await, "everything in flight came to its end");
    }

    // The storm is over: everybody may go on.
    rig.fake.script(|_, _| Act::Ok);
    rig.db.script("UPDATE campaigns SET status = 'active'; UPDATE accounts SET status = 'active'").await.unwrap();
    rig.start().await;
    for id in &ids {
        rig.offer(*id, Trigger::Resume).await.unwrap();
    }
    rig.until_all_final().await;
    assert!(rig.stop().await);
    assert_eq!(rig.fake.doubled(), []);
    assert_eq!(rig.fake.overlaps(), 0);
    assert_eq!(
        rig.one::<i64>("SELECT count(*) FROM sends WHERE status IN ('pending', 'dispatching', 'unknown')").await,
        0
    );
    assert_eq!(rig.one::<i64>("SELECT count(*) FROM account_gate WHERE in_flight IS NOT NULL").await, 0);
    // What the table says was sent is what people have.
    let sent: i64 = rig.one("SELECT count(*) FROM sends WHERE status = 'sent'").await;
    assert_eq!(usize::try_from(sent).unwrap(), rig.fake.received().len());
    let replayed = rig.assert_replays(before, &parsed(&flow)).await;
    println!("{} people, {sent} sends, {replayed} transitions, {} reads back", ids.len(), rig.fake.finds().len());
}
