//! The writer on a real Postgres: what is guarded, fenced, batched, retried. Also the world that the other tests of the
//! store start from.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "how a test fails; clippy knows test functions, not their helpers"
)]

use std::time::Duration;

use campaignd::domain::account::Channel;
use campaignd::domain::execution::{Execution, Status};
use campaignd::domain::flow::Flow;
use campaignd::domain::id::{AccountId, CampaignId, ExecutionId, SendId, WorkspaceId};
use campaignd::domain::send::{Action, SendIntent, SendOutcome, SendStatus};
use campaignd::domain::step::{Decision, Effect, step};
use campaignd::domain::time::Timestamp;
use campaignd::domain::trigger::Trigger;
use campaignd::store::execution::{self, Loaded};
use campaignd::store::lease::{self, Lease};
use campaignd::store::writer::{Change, Committed, Finish, Move, NewSend, Options, Writer};
use campaignd::store::{self, Pool};
use serde_json::json;
use sqlx::AssertSqlSafe;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::fake::{assert_replays, parsed};
use crate::harness::Db;

/// The workspace that every database has.
pub(crate) const WORKSPACE: WorkspaceId = WorkspaceId(Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001));
/// 2026-01-05 09:00 UTC, a Monday.
pub(crate) const NOW: Timestamp = Timestamp::from_micros(1_767_603_600_000_000);

/// A running campaign with prospects, one LinkedIn account, and the lease.
pub(crate) struct World {
    pub(crate) db: Db,
    pub(crate) pool: Pool,
    pub(crate) campaign: CampaignId,
    pub(crate) account: AccountId,
    pub(crate) executions: Vec<Execution>,
    pub(crate) lease: Lease,
}

impl World {
    pub(crate) async fn new(prospects: i32) -> Self {
        let db = Db::new().await;
        let pool = store::connect(&db.url, 24).await.unwrap();
        let (campaign, account) = (CampaignId(Uuid::new_v4()), AccountId(Uuid::new_v4()));
        let (c, w, a, shard) = (campaign, WORKSPACE, account, account.shard());
        db.script(format!(
            "INSERT INTO campaigns (id, workspace_id, name, status, flow_version) VALUES ('{c}', '{w}', 'c', 'active', 1);
             INSERT INTO accounts (workspace_id, id, shard, channel, provider, provider_account_id, name)
                 VALUES ('{w}', '{a}', {shard}, 'linkedin', 'unipile', 'seat-1', 'seat');
             INSERT INTO account_gate (workspace_id, account_id, shard) VALUES ('{w}', '{a}', {shard});
             INSERT INTO campaign_prospects (campaign_id, workspace_id, first_name, email, phone, linkedin_url, data)
                 SELECT '{c}', '{w}', 'P' || n, 'P' || n || '@Example.org', '+49 (30) 100-' || n,
                     'https://www.linkedin.com/in/Person-' || n || '/?x=1', jsonb_build_object('city', 'Ulm')
                 FROM generate_series(1, {prospects}) n;
             SELECT initialize_execution_state(campaign_id, id) FROM campaign_prospects;"
        ))
        .await
        .unwrap();
        let ids: Vec<Uuid> = sqlx::query_scalar(
            "SELECT s.id FROM campaign_prospect_execution_state s \
             JOIN campaign_prospects p ON p.id = s.prospect_id ORDER BY length(p.first_name), p.first_name",
        )
        .fetch_all(&pool)
        .await
        .unwrap();
        let ids: Vec<ExecutionId> = ids.into_iter().map(ExecutionId).collect();
        let mut executions = load(&pool, &ids).await;
        executions.sort_by_key(|e| ids.iter().position(|id| *id == e.id));
        let lease = Lease::acquire(&pool, "test", lease::TTL).await.unwrap();
        Self { db, pool, campaign, account, executions, lease }
    }

    pub(crate) fn writer(&self, lanes: usize) -> Writer {
        Writer::start(self.pool.clone(), self.lease.view(), Options { lanes, rows_max: 512 })
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&self.db.pool).await.unwrap()
    }

    /// Decides a send for each of the first executions and writes it; gives the states after it.
    pub(crate) async fn decide_sends(&self, writer: &Writer, n: usize) -> Vec<Execution> {
        let mut after = Vec::new();
        for e in &self.executions[..n] {
            let change = due(e, self.account);
            after.push(change.next.clone());
            assert_eq!(commit(writer, change).await, Committed::Done);
        }
        after
    }
}

pub(crate) async fn load(pool: &Pool, ids: &[ExecutionId]) -> Vec<Execution> {
    let loaded = execution::load(pool, ids).await.unwrap();
    let ready = |l| match l {
        Loaded::Ready { execution, .. } => *execution,
        Loaded::Undecodable { id, reason } => panic!("{id}: {reason}"),
    };
    loaded.into_iter().map(ready).collect()
}

/// The transition from one state to another.
pub(crate) fn made(before: &Execution, after: &Execution, trigger: Trigger) -> Move {
    Move {
        trigger,
        from_status: before.status,
        from_step: before.current_step,
        to_status: after.status,
        to_step: after.current_step,
    }
}

/// A change that only moves the version, and records an error.
pub(crate) fn touch(e: &Execution, text: &str) -> Change {
    let mut next = e.clone();
    next.version += 1;
    next.error_count += 1;
    next.last_error = Some(text.to_owned());
    Change {
        step_id: Some("first".to_owned()),
        at: NOW,
        moves: vec![made(e, &next, Trigger::Reply { channel: Channel::Linkedin })],
        next,
        sends: vec![],
        cancel: vec![],
        finish: vec![],
    }
}

/// The change that a due step makes: executing, with a pending send.
pub(crate) fn due(e: &Execution, account: AccountId) -> Change {
    let mut change = touch(e, "");
    let next = &mut change.next;
    next.last_error = None;
    next.status = Status::Executing;
    next.attempt += 1;
    next.send_sequence += 1;
    let send = SendId::derive(next.id, next.current_step, next.attempt, next.send_sequence);
    next.open_send = Some(send);
    next.accounts.set(Channel::Linkedin, account);
    let intent = SendIntent {
        id: send,
        step: next.current_step,
        step_id: "first".to_owned(),
        action: Action::SendLinkedinCr,
        attempt: next.attempt,
        created_at: NOW,
        status: SendStatus::Pending,
    };
    change.moves = vec![made(e, next, Trigger::Due)];
    change.sends = vec![NewSend { intent, account }];
    change
}

pub(crate) fn queue(writer: &Writer, change: Change) -> oneshot::Receiver<Committed> {
    let (tx, rx) = oneshot::channel();
    writer.commit(
        Box::new(change),
        Box::new(move |committed| {
            let _ = tx.send(committed);
        }),
    );
    rx
}

pub(crate) async fn commit(writer: &Writer, change: Change) -> Committed {
    tokio::time::timeout(Duration::from_secs(20), queue(writer, change)).await.expect("an answer in time").unwrap()
}

/// Asks until the answer is true. For what only the server's own tables tell.
pub(crate) async fn until(pool: &Pool, sql: &'static str) {
    let asking = async {
        while !sqlx::query_scalar::<_, bool>(sql).fetch_one(pool).await.unwrap() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.expect(sql);
}

/// A lane that waits for a lock.
const BLOCKED: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() \
    AND wait_event_type = 'Lock' AND query LIKE 'WITH lease AS%')";

#[tokio::test]
async fn a_change_is_written_whole_with_its_history() {
    let world = World::new(1).await;
    let writer = world.writer(2);
    let mut change = due(&world.executions[0], world.account);
    change.next.completed_steps = vec![1, 2];
    change.next.linkedin.message_count = 3;
    change.next.last_error = Some("it said \0 \"no\"".to_owned());
    let mut stored = change.next.clone();
    stored.last_error = Some("it said  \"no\"".to_owned());
    assert_eq!(commit(&writer, change.clone()).await, Committed::Done);
    assert_eq!(load(&world.pool, &[stored.id]).await, [stored]);
    let epoch = world.lease.epoch(change.next.id.shard());
    let (id, at) = (change.next.id, NOW);
    assert_eq!(
        world
            .count(&format!(
                "SELECT count(*) FROM transitions t JOIN campaign_prospect_execution_state s ON s.id = t.execution_id \
                 WHERE t.execution_id = '{id}' AND t.version = 1 AND t.trigger = 'due' AND t.at = '{at}' \
                 AND t.from_status = 'pending' AND t.to_status = 'executing' AND t.lease_epoch = {epoch} \
                 AND s.updated_at = '{at}' AND s.lease_epoch = {epoch} AND s.step_id = 'first' AND t.shard = s.shard"
            ))
            .await,
        1
    );
    assert_eq!(world.count("SELECT count(*) FROM sends WHERE status = 'pending' AND step = 1").await, 1);
    writer.close().await;
}

#[tokio::test]
async fn a_change_of_a_version_that_has_moved_is_a_conflict_and_leaves_nothing() {
    let world = World::new(1).await;
    let writer = world.writer(2);
    let e = &world.executions[0];
    assert_eq!(commit(&writer, touch(e, "first")).await, Committed::Done);
    assert_eq!(commit(&writer, due(e, world.account)).await, Committed::Conflict);
    assert_eq!(world.count("SELECT count(*) FROM transitions").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM sends").await, 0);
    assert_eq!(load(&world.pool, &[e.id]).await[0].last_error.as_deref(), Some("first"));
}

#[tokio::test]
async fn a_batch_that_is_written_again_is_a_conflict_for_each() {
    let world = World::new(20).await;
    let writer = world.writer(2);
    for expected in [Committed::Done, Committed::Conflict] {
        let answers: Vec<_> = world.executions.iter().map(|e| queue(&writer, touch(e, "x"))).collect();
        for answer in answers {
            assert_eq!(answer.await.unwrap(), expected);
        }
    }
    assert_eq!(world.count("SELECT count(*) FROM transitions").await, 20);
}

#[tokio::test]
async fn two_changes_of_one_execution_queued_together_are_both_written() {
    let world = World::new(1).await;
    let writer = world.writer(1);
    let first = touch(&world.executions[0], "1");
    let second = touch(&first.next, "2");
    let third = touch(&second.next, "3");
    let answers = [queue(&writer, first), queue(&writer, second), queue(&writer, third)];
    for answer in answers {
        assert_eq!(answer.await.unwrap(), Committed::Done);
    }
    assert_eq!(load(&world.pool, &[world.executions[0].id]).await[0].version, 3);
}

/// Decides a trigger by the rules and adds what it makes to a change.
fn decide(change: &mut Change, flow: &Flow, account: AccountId, trigger: Trigger) {
    let before = change.next.clone();
    let Decision::Transition { next, effects } = step(&before, flow, &trigger, NOW) else { panic!("{trigger:?}") };
    change.moves.push(made(&before, &next, trigger));
    change.next = *next;
    for effect in effects {
        match effect {
            Effect::Send(intent) => change.sends.push(NewSend { intent, account }),
            Effect::CancelSend(send) => change.cancel.push(send),
            Effect::FinishSend(row) => change.finish.push(Finish {
                send: row.send,
                status: row.status,
                parked: row.parked,
                class: row.class,
                error: row.error,
                receipt: None,
                account: Some(account),
                rest_until: None,
                open_gate: true,
                brake: None,
            }),
        }
    }
}

fn nothing_yet(e: &Execution) -> Change {
    Change { next: e.clone(), step_id: None, at: NOW, moves: vec![], sends: vec![], cancel: vec![], finish: vec![] }
}

#[tokio::test]
async fn two_transitions_of_one_change_are_one_update_and_two_rows_of_history_that_replay() {
    let world = World::new(1).await;
    let writer = world.writer(1);
    let flow = parsed(&json!({"schema_version": 1, "steps": [
        {"id": "a", "action": "send_linkedin_cr", "message": "a"},
        {"id": "b", "action": "send_email", "subject": "b", "message": "b"}]}));
    let before = Execution { next_execution_at: Some(NOW), ..world.executions[0].clone() };
    let mut first = nothing_yet(&before);
    decide(&mut first, &flow, world.account, Trigger::Due);
    let after = first.next.clone();
    assert_eq!(commit(&writer, first).await, Committed::Done);
    let mut second = nothing_yet(&after);
    let sent = Trigger::SendFinished { send: after.open_send.unwrap(), outcome: SendOutcome::Sent };
    decide(&mut second, &flow, world.account, sent);
    decide(&mut second, &flow, world.account, Trigger::Due);
    assert_eq!((second.moves.len(), second.sends.len(), second.finish.len()), (2, 1, 1));
    let (next, stale) = (second.next.clone(), second.clone());
    assert_eq!(commit(&writer, second).await, Committed::Done);
    assert_eq!(commit(&writer, stale).await, Committed::Conflict);

    let stored = load(&world.pool, &[before.id]).await;
    assert_eq!(stored[0].version, 3);
    assert_eq!((stored[0].status, stored[0].open_send), (Status::Executing, next.open_send));
    let history: Vec<(i64, String, String, String)> =
        sqlx::query_as("SELECT version, trigger, from_status, to_status FROM transitions ORDER BY version")
            .fetch_all(&world.pool)
            .await
            .unwrap();
    let line = |v, t: &str, from: &str, to: &str| (v, t.to_owned(), from.to_owned(), to.to_owned());
    assert_eq!(
        history,
        [
            line(1, "due", "pending", "executing"),
            line(2, "send_finished", "executing", "pending"),
            line(3, "due", "pending", "executing")
        ]
    );
    // One statement, and so one version of the row, made the last two.
    assert_eq!(world.count("SELECT count(DISTINCT xmin::text) FROM transitions").await, 2);
    assert_eq!(
        world
            .count(
                "SELECT count(*) FROM campaign_prospect_execution_state s JOIN transitions t ON t.xmin::text = s.xmin::text"
            )
            .await,
        2
    );
    let statuses: Vec<(i32, String)> =
        sqlx::query_as("SELECT step, status FROM sends ORDER BY step").fetch_all(&world.pool).await.unwrap();
    assert_eq!(statuses, [(1, "sent".to_owned()), (2, "pending".to_owned())]);
    assert_replays(&world.pool, vec![before], stored, &flow).await;
}

#[tokio::test]
async fn one_change_takes_a_send_back_and_makes_another() {
    let world = World::new(1).await;
    let writer = world.writer(1);
    let e = world.decide_sends(&writer, 1).await.remove(0);
    let mut change = due(&e, world.account);
    change.cancel = vec![e.open_send.unwrap()];
    assert_eq!(commit(&writer, change).await, Committed::Done);
    let statuses: Vec<(i32, String)> =
        sqlx::query_as("SELECT attempt, status FROM sends ORDER BY attempt").fetch_all(&world.pool).await.unwrap();
    assert_eq!(statuses, [(1, "cancelled".to_owned()), (2, "pending".to_owned())]);
}

#[tokio::test]
async fn a_stale_owners_change_is_not_written_once_somebody_else_has_the_lease() {
    let world = World::new(1).await;
    let stale = world.writer(1);
    let e = &world.executions[0];
    let first = touch(e, "mine");
    let after = first.next.clone();
    assert_eq!(commit(&stale, first).await, Committed::Done);
    // The session that stands for the owner's life dies; the owner itself lives on and does not know.
    let thief = crate::lease::take_over(&world).await;
    assert_eq!(commit(&stale, touch(&after, "stale")).await, Committed::LeaseLost);
    assert_eq!(world.count("SELECT max(version) FROM campaign_prospect_execution_state").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM transitions").await, 1);

    let fresh = Writer::start(world.pool.clone(), thief.view(), Options::default());
    assert_eq!(commit(&fresh, touch(&after, "fresh")).await, Committed::Done);
    assert_eq!(load(&world.pool, &[e.id]).await[0].last_error.as_deref(), Some("fresh"));
}

#[tokio::test]
async fn a_take_over_waits_for_the_batch_that_is_being_written() {
    let world = World::new(1).await;
    let writer = world.writer(1);
    // The batch has the fence and waits for the row.
    let mut blocker = world.db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM campaign_prospect_execution_state FOR UPDATE").execute(&mut *blocker).await.unwrap();
    let answer = queue(&writer, touch(&world.executions[0], "in time"));
    until(&world.db.pool, BLOCKED).await;
    let thief = tokio::spawn({
        let pool = world.pool.clone();
        crate::lease::kill_holders(&world.db.pool).await;
        async move { crate::lease::acquire_when_free(&pool).await }
    });
    until(
        &world.db.pool,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() \
         AND wait_event_type = 'Lock' AND query LIKE 'SELECT shard FROM shard_lease%')",
    )
    .await;
    blocker.rollback().await.unwrap();
    assert_eq!(answer.await.unwrap(), Committed::Done);
    let thief = thief.await.unwrap();
    assert!(thief.epoch(0) > world.lease.epoch(0));
}

#[tokio::test]
async fn what_queues_up_during_a_commit_is_one_statement_of_512() {
    let world = World::new(513).await;
    let writer = world.writer(1);
    let (first, rest) = world.executions.split_first().unwrap();
    let mut blocker = world.db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM campaign_prospect_execution_state WHERE id = $1 FOR UPDATE")
        .bind(first.id.0)
        .execute(&mut *blocker)
        .await
        .unwrap();
    let mut answers = vec![queue(&writer, touch(first, "alone"))];
    until(&world.db.pool, BLOCKED).await;
    answers.extend(rest.iter().map(|e| queue(&writer, due(e, world.account))));
    blocker.rollback().await.unwrap();
    for answer in answers {
        assert_eq!(answer.await.unwrap(), Committed::Done);
    }
    assert_eq!(world.count("SELECT count(DISTINCT xmin::text) FROM transitions").await, 2);
    assert_eq!(world.count("SELECT count(DISTINCT xmin::text) FROM sends").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM sends").await, 512);
}

#[tokio::test]
async fn one_change_that_postgres_refuses_does_not_hold_up_its_batch() {
    let world = World::new(6).await;
    let writer = world.writer(1);
    let mut blocker = world.db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM campaign_prospect_execution_state FOR UPDATE").execute(&mut *blocker).await.unwrap();
    let first = queue(&writer, touch(&world.executions[0], "alone"));
    until(&world.db.pool, BLOCKED).await;
    let mut poison = due(&world.executions[1], world.account);
    poison.sends[0].account = AccountId(Uuid::new_v4());
    let poison = queue(&writer, poison);
    let others: Vec<_> = world.executions[2..].iter().map(|e| queue(&writer, due(e, world.account))).collect();
    blocker.rollback().await.unwrap();
    assert_eq!(first.await.unwrap(), Committed::Done);
    assert_eq!(poison.await.unwrap(), Committed::Conflict);
    for other in others {
        assert_eq!(other.await.unwrap(), Committed::Done);
    }
    assert_eq!(world.count("SELECT count(*) FROM sends").await, 4);
}

#[tokio::test]
async fn a_batch_whose_connection_is_killed_is_written_on_a_new_one() {
    let world = World::new(1).await;
    let writer = world.writer(1);
    let mut blocker = world.db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM campaign_prospect_execution_state FOR UPDATE").execute(&mut *blocker).await.unwrap();
    let answer = queue(&writer, touch(&world.executions[0], "x"));
    until(&world.db.pool, BLOCKED).await;
    let killed: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() \
         AND wait_event_type = 'Lock' AND query LIKE 'WITH lease AS%'",
    )
    .fetch_one(&world.db.pool)
    .await
    .unwrap();
    assert_eq!(killed, 1);
    blocker.rollback().await.unwrap();
    assert_eq!(answer.await.unwrap(), Committed::Done);
    assert_eq!(world.count("SELECT count(*) FROM transitions").await, 1);
}

#[tokio::test]
async fn closing_writes_what_is_queued() {
    let world = World::new(50).await;
    let writer = world.writer(2);
    let answers: Vec<_> = world.executions.iter().map(|e| queue(&writer, touch(e, "x"))).collect();
    writer.close().await;
    for answer in answers {
        assert_eq!(answer.await.unwrap(), Committed::Done);
    }
}

#[tokio::test]
async fn closing_does_not_wait_for_a_postgres_that_is_away() {
    let world = World::new(1).await;
    let writer = world.writer(1);
    world.pool.close().await;
    let answer = queue(&writer, touch(&world.executions[0], "x"));
    writer.close().await;
    assert_eq!(answer.await.unwrap(), Committed::Closed);
}
