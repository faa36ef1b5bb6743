//! Reading all open executions, as a start does, on a real Postgres.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "how a test fails; clippy knows test functions, not their helpers"
)]

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use campaignd::domain::execution::Status;
use campaignd::domain::id::{CampaignId, ExecutionId};
use campaignd::domain::time::Timestamp;
use campaignd::store::execution::{self, Asleep, Loaded, Scan};

use crate::writer::{NOW, World, commit, touch};

/// Several ranges: rows that other programs made fill the blocks that `World` begins.
async fn crowd(world: &World, rows: usize) {
    let campaign = world.campaign;
    world
        .db
        .script(format!(
            "WITH p AS (INSERT INTO campaign_prospects (campaign_id) SELECT '{campaign}' FROM generate_series(1, {rows})
                        RETURNING id)
             INSERT INTO campaign_prospect_execution_state (campaign_id, prospect_id, workspace_id, last_error,
                 next_execution_at)
             SELECT '{campaign}', id, '00000000-0000-7000-8000-000000000001', repeat('x', 700), now() FROM p"
        ))
        .await
        .unwrap();
}

async fn whole(scan: &Scan) -> Vec<Loaded> {
    let mut rows = Vec::new();
    for range in 0..scan.ranges() {
        rows.extend(scan.rows(range).await.unwrap());
    }
    rows
}

#[tokio::test]
async fn every_open_row_is_seen_exactly_once_by_several_readers_while_rows_are_written() {
    let world = World::new(20).await;
    crowd(&world, 6000).await;
    let writer = world.writer(1);
    let mut done = touch(&world.executions[0], "");
    done.next.status = Status::Completed;
    commit(&writer, done).await;
    world.db.script("UPDATE campaigns SET status = 'paused'").await.unwrap();

    let scan = Scan::open(&world.pool).await.unwrap();
    assert!(scan.ranges() > 2, "{scan:?}");
    assert!((1000..100_000).contains(&scan.estimate()), "{scan:?}");
    let mut seen: Vec<ExecutionId> = Vec::new();
    let mut versions = HashSet::new();
    let mut next = 0;
    while next < scan.ranges() {
        // Each row moves to the end of the table, where a later range would find it again; and new ones come.
        world.db.script("UPDATE campaign_prospect_execution_state SET version = version + 1").await.unwrap();
        crowd(&world, 10).await;
        let (a, b, c) = tokio::join!(scan.rows(next), scan.rows(next + 1), scan.rows(next + 2));
        for row in [a, b, c].into_iter().flat_map(Result::unwrap) {
            seen.push(row.id());
            let Loaded::Ready { execution, due } = row else { panic!("{row:?}") };
            assert!(due.is_some());
            versions.insert(execution.version);
        }
        next += 3;
    }
    scan.close().await;
    let different: HashSet<_> = seen.iter().copied().collect();
    assert_eq!((seen.len(), different.len()), (6019, 6019));
    assert_eq!(versions, HashSet::from([0]), "one moment, not several");
    assert_eq!(
        world.count("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_xmin IS NOT NULL AND state <> 'active'").await,
        0,
        "a snapshot is left open"
    );
}

#[tokio::test]
async fn the_narrow_and_the_whole_reading_agree_on_when_each_wakes() {
    let world = World::new(16).await;
    let ids: Vec<ExecutionId> = world.executions.iter().map(|e| e.id).collect();
    let pairs: [(&str, bool); 16] = [
        // Made by another program.
        ("version = 0", false),
        ("version = 3, next_execution_at = '2026-02-01'", true),
        ("version = 3, next_execution_at = NULL", false),
        ("version = 3, next_execution_at = 'infinity'", false),
        ("version = 3, open_send = gen_random_uuid()", false),
        ("version = 3, status = 'executing', open_send = gen_random_uuid()", false),
        ("version = 3, workspace_id = NULL", false),
        ("version = 3, flow_version = NULL", false),
        ("version = 3, status = 'paused', paused_status = 'pending'", true),
        ("version = 3, status = 'paused', paused_status = NULL", false),
        (
            "version = 3, status = 'waiting_trigger', waiting_for_trigger = 'connection_accepted', \
             next_execution_at = '2026-03-01', next_check_at = '2026-02-02'",
            true,
        ),
        (
            "version = 3, status = 'waiting_trigger', waiting_for_trigger = 'connection_accepted', \
             next_execution_at = '2026-01-01', next_check_at = '2026-02-02'",
            true,
        ),
        (
            "version = 3, status = 'waiting_trigger', waiting_for_trigger = 'connection_accepted', \
             next_execution_at = '2026-01-01', next_check_at = NULL",
            false,
        ),
        ("version = 3, status = 'waiting_trigger', next_check_at = now()", false),
        ("version = 3, status = 'pending', next_check_at = '2020-01-01'", true),
        ("version = 3, status = 'failed'", false),
    ];
    for (id, (columns, _)) in ids.iter().zip(pairs) {
        let set = format!("UPDATE campaign_prospect_execution_state SET flow_version = 1, {columns} WHERE id = '{id}'");
        world
            .db
            .script(set.replace("flow_version = 1, version = 3, flow_version", "version = 3, flow_version"))
            .await
            .unwrap();
    }
    let scan = Scan::open(&world.pool).await.unwrap();
    let loaded: BTreeMap<ExecutionId, Loaded> = whole(&scan).await.into_iter().map(|l| (l.id(), l)).collect();
    let mut asleep: BTreeMap<ExecutionId, Asleep> = BTreeMap::new();
    for range in 0..scan.ranges() {
        asleep.extend(scan.wakes(range).await.unwrap().into_iter().map(|a| (a.id(), a)));
    }
    scan.close().await;
    assert_eq!(loaded.keys().collect::<Vec<_>>(), asleep.keys().collect::<Vec<_>>());
    assert_eq!(loaded.len(), 15, "the failed one is not open");
    for (id, (columns, parked)) in ids.iter().zip(pairs).take(15) {
        match asleep[id] {
            Asleep::Parked { campaign, wake, .. } => {
                assert!(parked, "{columns}");
                let Loaded::Ready { due, .. } = &loaded[id] else { panic!("{columns}") };
                assert_eq!((campaign, wake), (world.campaign, *due), "{columns}");
            }
            Asleep::Whole { campaign, .. } => {
                assert!(!parked, "{columns}");
                assert_eq!(campaign, world.campaign);
            }
        }
    }
    assert!(matches!(&loaded[&ids[3]], Loaded::Undecodable { reason, .. } if reason.contains("years")));
}

#[tokio::test]
async fn a_row_without_a_campaign_is_left_to_the_whole_reading() {
    let world = World::new(1).await;
    world
        .db
        .script(
            "ALTER TABLE campaign_prospect_execution_state ALTER campaign_id DROP NOT NULL;
             UPDATE campaign_prospect_execution_state SET campaign_id = NULL, version = 3, flow_version = 1",
        )
        .await
        .unwrap();
    let scan = Scan::open(&world.pool).await.unwrap();
    let id = world.executions[0].id;
    assert_eq!(scan.wakes(0).await.unwrap(), [Asleep::Whole { id, campaign: CampaignId(uuid::Uuid::nil()) }]);
    assert!(matches!(scan.rows(0).await.unwrap()[..], [Loaded::Undecodable { .. }]));
    // A snapshot that is merely dropped is let go as well.
    drop(scan);
}

#[tokio::test]
async fn what_is_overdue_comes_oldest_first_and_nothing_else_does() {
    let world = World::new(9).await;
    let ids: Vec<ExecutionId> = world.executions.iter().map(|e| e.id).collect();
    let at = |seconds: u64| (NOW - Duration::from_secs(seconds)).to_string();
    let later = (NOW + Duration::from_secs(60)).to_string();
    let set = [
        format!("next_execution_at = '{}'", at(30)),
        format!("next_execution_at = '{}'", at(50)),
        // A wait: the earlier of its two times.
        format!("status = 'waiting_trigger', next_execution_at = '{later}', next_check_at = '{}'", at(40)),
        format!("status = 'waiting_trigger', next_execution_at = '{}', next_check_at = '{later}'", at(20)),
        format!("next_execution_at = '{later}', next_check_at = '{}'", at(99)),
        format!("status = 'paused', paused_status = 'pending', next_execution_at = '{}'", at(99)),
        format!("status = 'completed', next_execution_at = '{}'", at(99)),
        format!("open_send = gen_random_uuid(), next_execution_at = '{}'", at(99)),
        format!("next_execution_at = '{}'", at(0)),
    ];
    for (id, columns) in ids.iter().zip(set) {
        world
            .db
            .script(format!("UPDATE campaign_prospect_execution_state SET {columns} WHERE id = '{id}'"))
            .await
            .unwrap();
    }
    let overdue = |now: Timestamp, limit| execution::overdue(&world.pool, now, limit);
    assert_eq!(overdue(NOW, 10).await.unwrap(), [ids[1], ids[2], ids[0], ids[3], ids[8]]);
    assert_eq!(overdue(NOW, 2).await.unwrap(), [ids[1], ids[2]]);
    let stored = crate::writer::load(&world.pool, &ids).await;
    let due: HashSet<_> = stored.iter().filter(|e| e.wake_at().is_some_and(|t| t <= NOW)).map(|e| e.id).collect();
    assert_eq!(due, overdue(NOW, 10).await.unwrap().into_iter().collect(), "the same rule as the core's");
}
