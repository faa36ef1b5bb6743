//! The lease of the shards on a real Postgres: who gets it, who is refused, who notices.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "how a test fails; clippy knows test functions, not their helpers"
)]

use std::time::Duration;

use campaignd::domain::id::SHARDS;
use campaignd::store::lease::{AcquireError, Lease, TTL};
use campaignd::store::{self, Pool};

use crate::harness::Db;
use crate::writer::{World, until};

/// Cuts the sessions that hold a lock of liveness: what the server does when the process on the other side dies.
pub(crate) async fn kill_holders(pool: &Pool) {
    sqlx::query(
        "SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE l.locktype = 'advisory' \
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .execute(pool)
    .await
    .unwrap();
    until(pool, UNHELD).await;
}

const UNHELD: &str = "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' \
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";

/// Asks until the owner is seen to be gone.
pub(crate) async fn acquire_when_free(pool: &Pool) -> Lease {
    let asking = async {
        loop {
            match Lease::acquire(pool, "thief", TTL).await {
                Ok(lease) => return lease,
                Err(AcquireError::Held { .. }) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.expect("the lease becomes free")
}

/// Takes the lease from a world whose process is thought dead.
pub(crate) async fn take_over(world: &World) -> Lease {
    kill_holders(&world.db.pool).await;
    acquire_when_free(&world.pool).await
}

async fn pool() -> (Db, Pool) {
    let db = Db::new().await;
    let pool = store::connect(&db.url, 4).await.unwrap();
    (db, pool)
}

#[tokio::test]
async fn the_first_to_ask_gets_every_shard_and_each_claim_bumps_the_epoch() {
    let (db, pool) = pool().await;
    let lease = Lease::acquire(&pool, "a", TTL).await.unwrap();
    let owned: i64 = sqlx::query_scalar("SELECT count(*) FROM shard_lease WHERE owner = $1 AND incarnation = $2")
        .bind(lease.node().id)
        .bind(lease.node().incarnation)
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(owned, i64::from(SHARDS));
    let before = lease.epoch(1023);
    lease.release().await.unwrap();
    let again = Lease::acquire(&pool, "b", TTL).await.unwrap();
    assert_eq!(again.epoch(1023), before + 1);
    assert_eq!(again.view().epoch(1024), -1);
}

#[tokio::test]
async fn a_live_owner_keeps_the_lease_also_past_its_first_ttl() {
    let (db, pool) = pool().await;
    let ttl = Duration::from_millis(1500);
    let lease = Lease::acquire(&pool, "a", ttl).await.unwrap();
    until(&db.pool, "SELECT lease_until > started_at + interval '3 s' FROM node").await;
    match Lease::acquire(&pool, "b", ttl).await {
        Err(AcquireError::Held { owner, .. }) => assert_eq!(owner, lease.node().id),
        other => panic!("{other:?}"),
    }
    assert!(!*lease.lost().borrow());
    // The refused one left nothing behind.
    let nodes: i64 = sqlx::query_scalar("SELECT count(*) FROM node").fetch_one(&db.pool).await.unwrap();
    assert_eq!(nodes, 1);
}

#[tokio::test]
async fn a_dead_owners_lease_can_be_taken_at_once_and_a_release_at_once_too() {
    let (_db, pool) = pool().await;
    let dead = Lease::acquire(&pool, "a", Duration::from_secs(3600)).await.unwrap();
    let epoch = dead.epoch(7);
    // As when the process ends without a word: the connection goes, the rows stay.
    drop(dead);
    let next = acquire_when_free(&pool).await;
    assert_eq!(next.epoch(7), epoch + 1);
    next.release().await.unwrap();
    Lease::acquire(&pool, "c", TTL).await.unwrap();
}

#[tokio::test]
async fn an_owner_that_was_taken_for_dead_notices() {
    let (db, pool) = pool().await;
    let first = Lease::acquire(&pool, "a", Duration::from_secs(3)).await.unwrap();
    kill_holders(&db.pool).await;
    let _second = acquire_when_free(&pool).await;
    let mut lost = first.lost();
    tokio::time::timeout(Duration::from_secs(10), lost.wait_for(|lost| *lost)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_cut_connection_alone_does_not_lose_the_lease() {
    let (db, pool) = pool().await;
    let lease = Lease::acquire(&pool, "a", Duration::from_millis(1500)).await.unwrap();
    kill_holders(&db.pool).await;
    until(
        &db.pool,
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
    )
    .await;
    assert!(!*lease.lost().borrow());
    assert!(matches!(Lease::acquire(&pool, "b", TTL).await, Err(AcquireError::Held { .. })));
}

#[tokio::test]
async fn of_many_who_ask_at_once_one_gets_the_lease() {
    let (_db, pool) = pool().await;
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { Lease::acquire(&pool, "x", TTL).await })
        })
        .collect();
    let mut held = Vec::new();
    for task in asking {
        match task.await.unwrap() {
            Ok(lease) => held.push(lease),
            Err(AcquireError::Held { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(held.len(), 1);
}
