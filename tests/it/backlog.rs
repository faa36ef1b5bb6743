//! Much to do at once: what is let in, in which order, and that nobody is lost on the way.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up has failed")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use campaignd::domain::account::Channel;
use campaignd::domain::execution::Status;
use campaignd::domain::id::ExecutionId;
use campaignd::domain::send::FailureClass;
use campaignd::runtime::BeforeSend;

use crate::fake::{Act, Rig, hours, mails};

/// The bound: sends of one account that are decided and not finished.
const BACKLOG_MAX: i64 = 64;

/// Writes down, at each insert of sends, how many are open of the account that has the most.
const PEAKS: &str = "CREATE TABLE peaks (open bigint);
    CREATE FUNCTION peak() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
        INSERT INTO peaks SELECT max(n) FROM (SELECT count(*) AS n FROM sends \
            WHERE status IN ('pending', 'dispatching') GROUP BY account_id) c; RETURN NULL; END $$;
    CREATE TRIGGER peak AFTER INSERT ON sends FOR EACH STATEMENT EXECUTE FUNCTION peak();";

/// Executions that became due one after the other, a second each, the last one a second ago; their ids say nothing about
/// the order. Answers the name of each, the oldest first.
async fn overdue(rig: &Rig, n: u32) -> Vec<String> {
    let campaign = rig.campaign(&mails(1)).await;
    rig.prospects(campaign, n).await;
    rig.db
        .script(
            "UPDATE campaign_prospect_execution_state e SET next_execution_at = e.next_execution_at - o.n * interval '1 s' \
             FROM (SELECT id, row_number() OVER (ORDER BY md5(id::text)) AS n FROM campaign_prospect_execution_state) o \
             WHERE o.id = e.id",
        )
        .await
        .unwrap();
    sqlx::query_scalar(
        "SELECT p.first_name FROM campaign_prospect_execution_state e JOIN campaign_prospects p ON p.id = e.prospect_id \
         ORDER BY e.next_execution_at",
    )
    .fetch_all(&rig.db.pool)
    .await
    .unwrap()
}

/// Waits until the sends of so many are decided, as far as there are places, and all others are in line. A place and the
/// hint that takes it over are both counted for a moment, so it may be a few less than 64.
async fn all_in_line(rig: &Rig, people: i64, accounts: i64) {
    rig.wait("whoever has no place is in line", async || {
        let decided: i64 = rig.one("SELECT count(*) FROM sends").await;
        (33 * accounts..=BACKLOG_MAX * accounts).contains(&decided)
            && decided + i64::try_from(rig.handle().lined()).unwrap() == people
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_overdue_work_is_done_by_due_time_a_backlog_at_a_time() {
    let mut rig = Rig::manual().await;
    for n in 0..3 {
        rig.account(Channel::Email, &format!("box{n}")).await;
    }
    rig.db.script(PEAKS).await.unwrap();
    let oldest_first = overdue(&rig, 2000).await;
    let gate = rig.fake.hold();
    rig.start().await;
    all_in_line(&rig, 2000, 3).await;
    gate.add_permits(10_000);
    rig.until_all_final().await;
    assert_eq!(rig.handle().lined(), 0);
    assert!(rig.one::<i64>("SELECT max(open) FROM peaks").await <= BACKLOG_MAX);

    let rank: HashMap<&str, usize> =
        oldest_first.iter().enumerate().map(|(rank, name)| (name.as_str(), rank)).collect();
    let mut by_account: HashMap<String, Vec<usize>> = HashMap::new();
    for call in rig.fake.calls() {
        by_account.entry(call.account).or_default().push(rank[call.person.as_str()]);
    }
    assert_eq!(by_account.len(), 3);
    for ranks in by_account.values() {
        // The first ones were let in as they came. From then on nobody waits while younger ones go by, but for those who
        // decide at the same time.
        let mut sorted = ranks[64..].to_vec();
        sorted.sort_unstable();
        for (place, rank) in ranks[64..].iter().enumerate() {
            let fair = sorted.binary_search(rank).unwrap();
            assert!(place.abs_diff(fair) <= 64, "{fair}th by due time, {place}th to be sent");
        }
    }
    assert_eq!(rig.fake.doubled(), []);
    assert!(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_crash_and_a_restart_in_the_middle_lose_nobody_in_line_and_double_nothing() {
    let mut rig = Rig::manual().await;
    for n in 0..2 {
        rig.account(Channel::Email, &format!("box{n}")).await;
    }
    overdue(&rig, 600).await;
    let (sends, crashes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = (Arc::clone(&sends), Arc::clone(&crashes));
    let crashing: BeforeSend = Arc::new(move |_| {
        if count.0.fetch_add(1, SeqCst) % 80 == 79 {
            count.1.fetch_add(1, SeqCst);
            panic!("injected");
        }
    });
    let hook = Arc::clone(&crashing);
    rig.start_with(|o| o.before_send = Some(hook)).await;
    rig.fake.until_calls(200).await;
    assert!(rig.stop().await);
    assert!(rig.fake.calls().len() < 600, "there is something left to do");
    rig.start_with(|o| o.before_send = Some(crashing)).await;
    rig.until_all_final().await;
    assert!(crashes.load(SeqCst) >= 5);
    assert_eq!(rig.fake.received().len(), 600);
    assert_eq!(rig.fake.doubled(), []);
    assert_eq!(rig.fake.overlaps(), 0);
    assert_eq!(rig.handle().lined(), 0);
    assert!(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_is_switched_off_hands_its_line_to_another() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "old").await;
    overdue(&rig, 300).await;
    let gate = rig.fake.hold();
    rig.start().await;
    all_in_line(&rig, 300, 1).await;
    rig.fake.until_calls(1).await;
    rig.account(Channel::Email, "new").await;
    rig.db.script("UPDATE accounts SET status = 'disabled' WHERE name = 'old'").await.unwrap();
    rig.handle().accounts_changed();
    // Whose send is decided stays with the account; one of them is under way.
    let decided: i64 =
        rig.one("SELECT count(*) FROM sends s JOIN accounts a ON a.id = s.account_id WHERE a.name = 'old'").await;
    rig.until_true(
        "SELECT count(*) BETWEEN 33 AND 64 FROM sends s JOIN accounts a ON a.id = s.account_id WHERE a.name = 'new'",
    )
    .await;
    gate.add_permits(10_000);
    rig.until_true(&format!(
        "SELECT count(*) = 301 - {decided} FROM campaign_prospect_execution_state WHERE status = 'completed'"
    ))
    .await;
    let by = |name: &str| rig.fake.calls().iter().filter(|c| c.account == name).count();
    assert_eq!((by("old"), by("new")), (1, 300 - usize::try_from(decided).unwrap()));
    assert_eq!(rig.handle().lined(), 0);
    rig.db.script("UPDATE accounts SET status = 'active'").await.unwrap();
    rig.handle().accounts_changed();
    rig.until_all_final().await;
    assert_eq!(rig.fake.received().len(), 300);
    assert_eq!(rig.fake.doubled(), []);
    assert!(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_campaign_leaves_the_line_to_the_others_and_comes_back_to_it() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    overdue(&rig, 300).await;
    let gate = rig.fake.hold();
    rig.start().await;
    all_in_line(&rig, 300, 1).await;
    let paused = rig.one::<uuid::Uuid>("SELECT id FROM campaigns").await;
    rig.db.script(format!("UPDATE campaigns SET status = 'paused' WHERE id = '{paused}'")).await.unwrap();
    let other = rig.campaign(&mails(1)).await;
    let ids = rig.prospects(other, 100).await;
    rig.handle().campaign_changed(other);
    rig.handle().arrivals();
    gate.add_permits(10_000);
    for id in &ids {
        rig.until(*id, "the other campaign's mail", |e| e.status.is_final()).await;
    }
    let through = rig.fake.calls().len();
    assert!(through < 300, "{through}");
    rig.db.script("UPDATE campaigns SET status = 'active'").await.unwrap();
    rig.handle().campaign_changed(other);
    rig.until_all_final().await;
    assert_eq!(rig.fake.received().len(), 400);
    assert_eq!(rig.fake.doubled(), []);
    assert!(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_window_and_a_rest_take_no_room_from_others_and_a_resting_account_lets_nobody_in() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    // It is Monday.
    let mut flow = mails(1);
    flow["timezone"] = serde_json::json!("UTC");
    flow["window"] = serde_json::json!({"days": ["tue"], "from": "09:00", "to": "18:00"});
    let closed = rig.campaign(&flow).await;
    let waiting = rig.prospects(closed, 200).await;
    rig.start().await;
    for id in &waiting {
        rig.until(*id, "a send that waits for its window", |e| e.status == Status::Executing).await;
    }
    // More than a backlog waits, and others go by.
    let open = rig.campaign(&mails(1)).await;
    let others = rig.prospects(open, 10).await;
    rig.handle().arrivals();
    for id in &others {
        rig.until(*id, "a mail", |e| e.status.is_final()).await;
    }
    // The account's quota is used up: it rests for a day.
    rig.fake.script(|_, _| Act::Refuse(FailureClass::AccountQuota, "errors/quota"));
    rig.prospects(open, 200).await;
    rig.handle().arrivals();
    rig.fake.until_calls(11).await;
    rig.until_true("SELECT next_send_at IS NOT NULL AND in_flight IS NULL FROM account_gate").await;
    rig.wait("the rest of them are in line", async || rig.handle().lined() > 100).await;
    let decided: i64 = rig.one("SELECT count(*) FROM sends").await;
    assert!(decided <= 200 + 10 + 1 + BACKLOG_MAX, "{decided}");
    rig.fake.script(|_, _| Act::Ok);
    // Tuesday, and the rest is over.
    rig.clock.advance(hours(24));
    rig.until_all_final().await;
    assert_eq!((rig.fake.received().len(), rig.fake.calls().len()), (410, 411));
    assert_eq!(rig.fake.doubled(), []);
    assert!(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_send_that_postgres_refuses_to_claim_harms_none_of_fifty_accounts() {
    let mut rig = Rig::manual().await;
    for n in 0..50 {
        rig.account(Channel::Email, &format!("box{n}")).await;
    }
    let campaign = rig.campaign(&mails(1)).await;
    let ids = rig.prospects(campaign, 500).await;
    let poisoned: ExecutionId = ids[250];
    rig.db
        .script(format!(
            "CREATE SEQUENCE tries;
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 PERFORM nextval('tries'); RAISE EXCEPTION 'not this one'; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON sends FOR EACH ROW \
                 WHEN (NEW.execution_id = '{poisoned}' AND NEW.status = 'dispatching') EXECUTE FUNCTION refuse();"
        ))
        .await
        .unwrap();
    rig.start().await;
    for id in ids.iter().filter(|id| **id != poisoned) {
        rig.until(*id, "the others' mails", |e| e.status.is_final()).await;
    }
    assert_eq!(rig.sends(poisoned).await, ["1 1 pending"]);
    // Together with others and alone, and not again at once.
    let tries: i64 = rig.one("SELECT last_value FROM tries").await;
    assert!(tries <= 2, "{tries} tries");
    assert_eq!((rig.fake.doubled(), rig.fake.overlaps()), (vec![], 0));
    rig.db.script("DROP TRIGGER refuse ON sends").await.unwrap();
    rig.advance_until(Duration::from_secs(1), "its turn", async || rig.execution(poisoned).await.status.is_final())
        .await;
    assert_eq!(rig.fake.received().len(), 500);
    assert!(rig.stop().await);
}
