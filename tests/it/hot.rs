//! What a transition costs Postgres: rows that change without any index being written.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "how a test fails; clippy knows test functions, not their helpers"
)]

use std::time::Duration;

use campaignd::domain::execution::Status;
use campaignd::domain::send::{SendOutcome, SendStatus};
use campaignd::domain::trigger::Trigger;
use campaignd::store::send::{self, Claim, ClaimResult};
use campaignd::store::writer::{Committed, Finish};
use serde_json::json;

use crate::writer::{NOW, WORKSPACE, World, due, made, queue, touch};

/// Rows updated and, of those, rows whose update wrote no index; of a table or its partitions. Backends report these now and
/// then: waits until there are as many as there must be.
async fn updates(world: &World, table: &str, at_least: i64) -> (i64, i64) {
    let asking = async {
        loop {
            let found: (i64, i64) = sqlx::query_as(
                "SELECT coalesce(sum(n_tup_upd), 0)::bigint, coalesce(sum(n_tup_hot_upd), 0)::bigint \
                 FROM pg_stat_user_tables WHERE relname LIKE $1",
            )
            .bind(format!("{table}%"))
            .fetch_one(&world.db.pool)
            .await
            .unwrap();
            if found.0 >= at_least {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asking).await.expect(table)
}

#[tokio::test]
async fn transitions_claims_and_outcomes_write_no_index_of_what_they_change() {
    let world = World::new(300).await;
    let writer = world.writer(1);
    // Three transitions each, with every due time different from the one before.
    let mut after = Vec::new();
    for (n, e) in world.executions.iter().enumerate() {
        let mut waits = touch(e, "waits");
        waits.next.status = Status::WaitingTrigger;
        waits.next.next_execution_at = Some(NOW + Duration::from_secs(n as u64));
        waits.next.next_check_at = Some(NOW + Duration::from_secs(60));
        let mut pending = touch(&waits.next, "pending");
        pending.next.status = Status::Pending;
        pending.next.next_execution_at = Some(NOW);
        let decided = due(&pending.next, world.account);
        after.push(decided.next.clone());
        for answer in [waits, pending, decided].map(|change| queue(&writer, change)) {
            assert_eq!(answer.await.unwrap(), Committed::Done);
        }
    }
    let lease = world.lease.view();
    for e in &after[..20] {
        let send = e.open_send.unwrap();
        let wish = Claim {
            workspace: WORKSPACE,
            send,
            created_at: NOW,
            account: world.account,
            account_shard: world.account.shard(),
            recipient: json!({"name": "Ann", "linkedin": "https://www.linkedin.com/in/ann"}),
            subject: None,
            body: Some("Hello Ann".to_owned()),
            at: NOW,
            spent: None,
        };
        let claimed = send::claim(&world.pool, &lease, &[wish]).await.unwrap();
        assert!(matches!(claimed[0].result, ClaimResult::Claimed { .. }), "{claimed:?}");
        let mut sent = touch(e, "");
        sent.next.status = Status::Pending;
        sent.next.open_send = None;
        sent.moves = vec![made(e, &sent.next, Trigger::SendFinished { send, outcome: SendOutcome::Sent })];
        sent.finish = vec![Finish {
            send,
            status: SendStatus::Sent,
            parked: false,
            class: None,
            error: None,
            receipt: None,
            account: Some(world.account),
            rest_until: None,
            open_gate: true,
            brake: None,
        }];
        assert_eq!(queue(&writer, sent).await.unwrap(), Committed::Done);
    }
    writer.close().await;
    world.pool.close().await;
    let (all, hot) = updates(&world, "campaign_prospect_execution_state", 920).await;
    // None at all if an index were in the way. Not every one, because the long transactions of other tests keep old
    // versions from being tidied up, and then a page has no room for one more; alone it is nearly all.
    assert!(hot * 100 >= all * 70, "{hot} of {all} updates of executions");
    let (all, hot) = updates(&world, "sends_", 40).await;
    assert!(hot * 100 >= all * 70, "{hot} of {all} updates of sends");
    let (all, hot) = updates(&world, "account_gate", 40).await;
    assert!(hot * 100 >= all * 70, "{hot} of {all} updates of gates");
}
