//! Reading executions, addresses and the inbox on a real Postgres.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "how a test fails; clippy knows test functions, not their helpers"
)]

use std::collections::HashSet;
use std::time::Duration;

use campaignd::domain::account::Channel;
use campaignd::domain::execution::Status;
use campaignd::domain::id::{ExecutionId, InboxId};
use campaignd::store::execution::{self, Loaded};
use campaignd::store::identity;
use campaignd::store::inbox::{self, InboxStatus, Mark, NewInbox, Stored};
use campaignd::store::lease::LeaseView;
use serde_json::json;
use uuid::Uuid;

use crate::writer::{NOW, WORKSPACE, World, commit, touch};

/// Before every id.
const START: ExecutionId = ExecutionId(Uuid::nil());

#[tokio::test]
async fn arrivals_stay_until_they_are_struck_off_and_only_the_owner_sees_them() {
    let world = World::new(200).await;
    let lease = world.lease.view();
    let arrivals = async |after, limit| {
        let found = execution::arrivals(&world.pool, &lease, after, limit).await.unwrap();
        assert!(found.iter().all(|(_, campaign)| *campaign == Some(world.executions[0].campaign)));
        found.into_iter().map(|(id, _)| id).collect::<Vec<_>>()
    };
    let first = arrivals(START, 30).await;
    assert_eq!(arrivals(START, 30).await, first);
    let mut seen = HashSet::new();
    loop {
        let ids = arrivals(START, 30).await;
        if ids.is_empty() {
            break;
        }
        execution::forget_arrivals(&world.pool, &lease, &ids).await.unwrap();
        assert!(ids.into_iter().all(|id| seen.insert(id)), "one came back after it was struck off");
    }
    assert_eq!(seen.len(), 200);

    touch_arrivals(&world).await;
    let mut all: Vec<_> = world.executions.iter().map(|e| e.id).collect();
    all.sort_unstable();
    let behind = arrivals(all[149], 30).await;
    assert_eq!(behind, all[150..180], "by id, behind the one that was handed over last");
    // One shard is another node's: its executions are seen by that node.
    let (lost, theirs) = (all[0].shard(), all.iter().filter(|id| id.shard() == all[0].shard()).count());
    let take = format!("UPDATE shard_lease SET owner = gen_random_uuid() WHERE shard = {lost}");
    world.db.script(take).await.unwrap();
    let ours = arrivals(START, 300).await;
    assert_eq!(ours.len(), 200 - theirs);
    assert!(ours.iter().all(|id| id.shard() != lost));
    world.db.script("UPDATE shard_lease SET owner = gen_random_uuid()").await.unwrap();
    assert_eq!(arrivals(START, 30).await, []);
    execution::forget_arrivals(&world.pool, &lease, &all).await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM execution_arrivals").fetch_one(&world.pool).await.unwrap();
    assert_eq!(left, 200, "struck off by a node that does not own them any more");
}

/// Puts every execution back into the list.
async fn touch_arrivals(world: &World) {
    world
        .db
        .script("INSERT INTO execution_arrivals (execution_id) SELECT id FROM campaign_prospect_execution_state")
        .await
        .unwrap();
}

#[tokio::test]
async fn an_insert_is_heard_and_a_cut_connection_is_reported_once() {
    let world = World::new(1).await;
    let mut arrivals = execution::listen(&world.pool).await.unwrap();
    let (campaign, long) = (world.campaign, Duration::from_secs(20));
    world
        .db
        .script(format!(
            "WITH p AS (INSERT INTO campaign_prospects (campaign_id) VALUES ('{campaign}') RETURNING id)
             INSERT INTO campaign_prospect_execution_state (campaign_id, prospect_id) SELECT '{campaign}', id FROM p"
        ))
        .await
        .unwrap();
    tokio::time::timeout(long, arrivals.recv()).await.unwrap().unwrap();
    world
        .db
        .script("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()")
        .await
        .unwrap();
    tokio::time::timeout(long, arrivals.recv()).await.unwrap().unwrap();
    world.db.script("NOTIFY campaignd_arrivals").await.unwrap();
    tokio::time::timeout(long, arrivals.recv()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named_and_marked_once() {
    let world = World::new(2).await;
    let id = world.executions[0].id;
    world
        .db
        .script(format!("UPDATE campaign_prospect_execution_state SET waiting_for_trigger = 'moon' WHERE id = '{id}'"))
        .await
        .unwrap();
    let loaded = execution::load(&world.pool, &[id]).await.unwrap();
    let Loaded::Undecodable { reason, .. } = &loaded[0] else { panic!("{loaded:?}") };
    assert_eq!(reason, "waiting_for_trigger is 'moon'");
    let mark = [(id, reason.clone())];
    let note = async |lease: &LeaseView| execution::mark_unrunnable(&world.pool, lease, &mark).await.unwrap();
    assert_eq!(note(&LeaseView::nobody()).await, 0, "whoever does not hold its shard writes nothing");
    assert_eq!(note(&world.lease.view()).await, 1);
    assert_eq!(note(&world.lease.view()).await, 0);
}

#[tokio::test]
async fn a_person_is_found_by_any_spelling_of_the_address_open_executions_first() {
    let world = World::new(3).await;
    let e = &world.executions[1];
    let by = |channel, address: &'static str| identity::by_address(&world.pool, WORKSPACE, channel, address);
    assert_eq!(by(Channel::Email, " p2@EXAMPLE.org").await.unwrap(), [e.id]);
    assert_eq!(by(Channel::Linkedin, "person-2").await.unwrap(), [e.id]);
    assert_eq!(by(Channel::Linkedin, "http://linkedin.com/in/PERSON-2").await.unwrap(), [e.id]);
    assert_eq!(by(Channel::Whatsapp, "0049301002").await.unwrap(), [e.id]);
    assert!(by(Channel::Email, "").await.unwrap().is_empty());
    assert!(by(Channel::Whatsapp, "n/a").await.unwrap().is_empty());
    world.db.script("UPDATE campaign_prospects SET email = 'same@x.org'").await.unwrap();
    let writer = world.writer(1);
    let mut done = touch(&world.executions[2], "");
    done.next.status = Status::Failed;
    commit(&writer, done).await;
    let found = by(Channel::Email, "same@x.org").await.unwrap();
    assert_eq!((found.len(), found[2]), (3, world.executions[2].id));
    assert_eq!(execution::of_prospect(&world.pool, WORKSPACE, e.prospect).await.unwrap(), Some(e.id));
}

#[tokio::test]
async fn a_fact_is_stored_once_and_kept_until_it_is_marked() {
    let world = World::new(1).await;
    let fact = |key: &str, seconds| NewInbox {
        workspace: WORKSPACE,
        id: InboxId(Uuid::new_v4()),
        source: "unipile".to_owned(),
        dedupe_key: key.to_owned(),
        headers: Some(json!({"a": "b\u{0}"})),
        body: b"{\0}".to_vec(),
        received_at: NOW + Duration::from_secs(seconds),
        shard: None,
    };
    assert_eq!(inbox::store(&world.pool, &fact("late", 2)).await.unwrap(), Stored::New);
    assert_eq!(inbox::store(&world.pool, &fact("early", 1)).await.unwrap(), Stored::New);
    assert_eq!(inbox::store(&world.pool, &fact("late", 3)).await.unwrap(), Stored::Duplicate);
    let open = inbox::open(&world.pool, 10, &[]).await.unwrap();
    assert_eq!(open.iter().map(|i| i.dedupe_key.as_str()).collect::<Vec<_>>(), ["early", "late"]);
    assert_eq!((open[0].body.as_slice(), &open[0].headers), (b"{\0}".as_slice(), &Some(json!({"a": "b"}))));
    let mark = |status| Mark { workspace: WORKSPACE, id: open[0].id, status, outcome: None, shard: Some(7) };
    assert_eq!(inbox::mark(&world.pool, &[mark(InboxStatus::Applied)], NOW).await.unwrap(), 1);
    assert_eq!(inbox::mark(&world.pool, &[mark(InboxStatus::Failed)], NOW).await.unwrap(), 0);
    assert_eq!(inbox::open(&world.pool, 10, &[]).await.unwrap().len(), 1);
}
