//! Claims and outcomes of sends on a real Postgres: one at a time per account, none that was taken back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "how a test fails; clippy knows test functions, not their helpers"
)]

use std::time::Duration;

use campaignd::domain::budget::Kind;
use campaignd::domain::execution::{Execution, Status};
use campaignd::domain::id::{AccountId, SendId, WorkspaceId};
use campaignd::domain::send::{FailureClass, Receipt, SendOutcome, SendStatus};
use campaignd::domain::time::Timestamp;
use campaignd::domain::trigger::Trigger;
use campaignd::store::identity::{self, IdentityKind, Wanted};
use campaignd::store::lease::LeaseView;
use campaignd::store::send::{self, Claim, ClaimResult, Orphan};
use campaignd::store::writer::{Change, Committed, Finish, Writer};
use serde_json::json;

use crate::writer::{NOW, WORKSPACE, World, commit, due, made, touch};

fn wish(world: &World, e: &Execution, at: Timestamp) -> Claim {
    Claim {
        workspace: WORKSPACE,
        send: e.open_send.unwrap(),
        created_at: NOW,
        account: world.account,
        account_shard: world.account.shard(),
        recipient: json!({"name": "A\u{0}nn"}),
        subject: None,
        body: Some("Hi\0!".to_owned()),
        at,
        spent: None,
    }
}

async fn claim_as(world: &World, lease: &LeaseView, e: &Execution, at: Timestamp) -> ClaimResult {
    let outcomes = send::claim(&world.pool, lease, &[wish(world, e, at)]).await.unwrap();
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].send, e.open_send.unwrap());
    outcomes[0].result
}

async fn claim(world: &World, e: &Execution) -> ClaimResult {
    claim_as(world, &world.lease.view(), e, NOW).await
}

fn finish(world: &World, e: &Execution, status: SendStatus) -> Finish {
    Finish {
        send: e.open_send.unwrap(),
        status,
        parked: false,
        class: None,
        error: None,
        receipt: None,
        account: Some(world.account),
        rest_until: None,
        open_gate: true,
        brake: None,
    }
}

/// Writes an outcome, with the execution going on to whatever status.
async fn end(writer: &Writer, e: &Execution, status: Status, finish: Finish) -> Execution {
    let mut change = touch(e, "");
    change.next.status = status;
    if status != Status::Executing {
        change.next.open_send = None;
    }
    let trigger = Trigger::SendFinished { send: finish.send, outcome: SendOutcome::Sent };
    change.moves = vec![made(e, &change.next, trigger)];
    change.finish = vec![finish];
    let next = change.next.clone();
    assert_eq!(commit(writer, change).await, Committed::Done);
    next
}

async fn status_of(world: &World, send: SendId) -> String {
    sqlx::query_scalar("SELECT status FROM sends WHERE id = $1").bind(send.0).fetch_one(&world.pool).await.unwrap()
}

async fn gate(world: &World) -> Option<uuid::Uuid> {
    sqlx::query_scalar("SELECT in_flight FROM account_gate WHERE account_id = $1")
        .bind(world.account.0)
        .fetch_one(&world.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn of_sixteen_who_claim_through_one_account_at_once_one_wins() {
    let world = World::new(16).await;
    let writer = world.writer(2);
    let executions = world.decide_sends(&writer, 16).await;
    for round in 0..4 {
        let tasks: Vec<_> = executions
            .iter()
            .map(|e| {
                let (pool, lease, wish) = (world.pool.clone(), world.lease.view(), wish(&world, e, NOW));
                tokio::spawn(async move { send::claim(&pool, &lease, &[wish]).await.unwrap()[0] })
            })
            .collect();
        let mut won = Vec::new();
        for task in tasks {
            let outcome = task.await.unwrap();
            match outcome.result {
                ClaimResult::Claimed { dispatch_count } => won.push((outcome.send, dispatch_count)),
                ClaimResult::GateBusy | ClaimResult::NotPending => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(won.len(), 1, "round {round}");
        assert_eq!(gate(&world).await, Some(won[0].0.0));
        assert_eq!(world.count("SELECT count(*) FROM sends WHERE status = 'dispatching'").await, 1);
        let winner = executions.iter().find(|e| e.open_send == Some(won[0].0)).unwrap();
        end(&writer, winner, Status::Pending, finish(&world, winner, SendStatus::Sent)).await;
        assert_eq!(gate(&world).await, None);
    }
    assert_eq!(world.count("SELECT count(*) FROM sends WHERE status = 'sent'").await, 4);
    assert_eq!(world.count("SELECT used::bigint FROM account_gate").await, 4);
}

#[tokio::test]
async fn of_several_claims_for_one_account_in_one_call_the_first_is_tried() {
    let world = World::new(3).await;
    let writer = world.writer(1);
    let executions = world.decide_sends(&writer, 3).await;
    let wishes: Vec<Claim> = executions.iter().map(|e| wish(&world, e, NOW)).collect();
    let outcomes = send::claim(&world.pool, &world.lease.view(), &wishes).await.unwrap();
    assert_eq!(outcomes.len(), 3);
    for outcome in outcomes {
        let expected = if outcome.send == wishes[0].send {
            ClaimResult::Claimed { dispatch_count: 1 }
        } else {
            ClaimResult::GateBusy
        };
        assert_eq!(outcome.result, expected);
    }
}

#[tokio::test]
async fn a_claim_stores_what_will_be_handed_to_the_provider() {
    let world = World::new(1).await;
    let writer = world.writer(1);
    let e = &world.decide_sends(&writer, 1).await[0];
    assert_eq!(claim(&world, e).await, ClaimResult::Claimed { dispatch_count: 1 });
    let key = (WORKSPACE, e.open_send.unwrap());
    let d = send::load_for_dispatch(&world.pool, &[(key, false)]).await.unwrap().remove(0);
    assert_eq!(d.send.status, SendStatus::Dispatching);
    assert_eq!(d.send.lease_epoch, world.lease.epoch(world.account.shard()));
    assert_eq!((d.send.claimed_at, d.dispatch_count), (Some(NOW), 1));
    assert_eq!((d.recipient, d.body.as_deref()), (Some(json!({"name": "Ann"})), Some("Hi!")));
    assert!(d.is_open_send);
    assert_eq!(d.execution_status, Some(Status::Executing));
    assert_eq!(d.prospect["first_name"], "P1");
    assert_eq!(d.prospect["city"], "Ulm");
    for lease in [LeaseView::nobody(), world.lease.view()] {
        send::count_settle(&world.pool, &lease, key, world.account).await.unwrap();
    }
    let open = send::open_sends(&world.pool, Some(&[world.account])).await.unwrap();
    assert_eq!((open.len(), open[0].settle_count, open[0].id), (1, 1, key.1));
    assert!(send::open_sends(&world.pool, Some(&[])).await.unwrap().is_empty());
    assert_eq!(send::in_flight(&world.pool).await.unwrap(), open);
}

#[tokio::test]
async fn an_outcome_that_nobody_waits_for_is_recorded_by_the_accounts_owner_and_the_account_rests() {
    let world = World::new(1).await;
    let writer = world.writer(1);
    let e = &world.decide_sends(&writer, 1).await[0];
    assert_eq!(claim(&world, e).await, ClaimResult::Claimed { dispatch_count: 1 });
    let rest = NOW + Duration::from_secs(90);
    let orphan = Orphan {
        key: (WORKSPACE, e.open_send.unwrap()),
        account_shard: world.account.shard(),
        outcome: &SendOutcome::Sent,
        receipt: &Receipt::default(),
        rest_until: Some(rest),
        brake: Some((Kind::Invite, rest)),
        at: NOW,
    };
    assert!(!send::close_orphan(&world.pool, &LeaseView::nobody(), &orphan).await.unwrap());
    assert_eq!(status_of(&world, orphan.key.1).await, "dispatching");
    assert_eq!(gate(&world).await, Some(orphan.key.1.0));
    assert!(send::close_orphan(&world.pool, &world.lease.view(), &orphan).await.unwrap());
    assert_eq!((status_of(&world, orphan.key.1).await.as_str(), gate(&world).await), ("sent", None));
    let (at, rests): (chrono::DateTime<chrono::Utc>, serde_json::Value) =
        sqlx::query_as("SELECT next_send_at, rests FROM account_gate").fetch_one(&world.pool).await.unwrap();
    assert_eq!((Timestamp::from(at), rests), (rest, json!({"invite": rest.as_micros()})));
}

#[tokio::test]
async fn five_hundred_accounts_claim_and_are_loaded_by_one_statement_each() {
    let world = World::new(512).await;
    let writer = world.writer(1);
    // Every fourth account rests and every fifth is halted.
    world
        .db
        .script(format!(
            "INSERT INTO accounts (workspace_id, id, shard, channel, provider, provider_account_id, name, status)
                 SELECT '{WORKSPACE}', id, campaignd_shard(id), 'linkedin', 'unipile', id::text, 'seat',
                     CASE WHEN n % 5 = 0 THEN 'halted' ELSE 'active' END
                 FROM (SELECT n, gen_random_uuid() AS id FROM generate_series(1, 512) n) x;
             INSERT INTO account_gate (workspace_id, account_id, shard)
                 SELECT workspace_id, id, shard FROM accounts ON CONFLICT DO NOTHING;
             UPDATE account_gate SET next_send_at = '{NOW}'::timestamptz + interval '1 minute'
                 WHERE account_id IN (SELECT id FROM accounts ORDER BY id LIMIT 128)"
        ))
        .await
        .unwrap();
    let accounts: Vec<(uuid::Uuid, String, bool)> = sqlx::query_as(
        "SELECT a.id, a.status, g.next_send_at IS NOT NULL FROM accounts a JOIN account_gate g ON g.account_id = a.id \
         WHERE a.id <> $1",
    )
    .bind(world.account.0)
    .fetch_all(&world.pool)
    .await
    .unwrap();
    let mut claims = Vec::new();
    for (e, (account, ..)) in world.executions.iter().zip(&accounts) {
        let change = due(e, AccountId(*account));
        let mut claim = wish(&world, &change.next, NOW);
        (claim.account, claim.account_shard) = (AccountId(*account), AccountId(*account).shard());
        claims.push(claim);
        assert_eq!(commit(&writer, change).await, Committed::Done);
    }
    let keys: Vec<_> = claims.iter().map(|c| ((WORKSPACE, c.send), false)).collect();
    let loaded = send::load_for_dispatch(&world.pool, &keys).await.unwrap();
    assert_eq!(loaded.len(), 512);
    assert!(loaded.iter().all(|d| d.send.status == SendStatus::Pending && d.prospect["city"] == "Ulm"));

    let outcomes = send::claim(&world.pool, &world.lease.view(), &claims).await.unwrap();
    assert_eq!(outcomes.len(), 512);
    let mut claimed = 0;
    for outcome in outcomes {
        let n = claims.iter().position(|c| c.send == outcome.send).unwrap();
        let (_, status, rests) = &accounts[n];
        match outcome.result {
            ClaimResult::Claimed { dispatch_count: 1 } => {
                claimed += 1;
                assert!(status == "active" && !rests);
            }
            ClaimResult::AccountNotActive => assert_eq!(status, "halted"),
            ClaimResult::GateResting { until } => {
                assert!(*rests && until == NOW + Duration::from_secs(60));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(claimed > 200, "{claimed}");
    let in_flight = send::in_flight(&world.pool).await.unwrap();
    assert_eq!(in_flight.len(), claimed);
    assert!(in_flight.iter().all(|s| s.status == SendStatus::Dispatching));
    assert_eq!(send::open_sends(&world.pool, None).await.unwrap().len(), 512);
    // Those that were claimed are in flight, and say so.
    let again = send::claim(&world.pool, &world.lease.view(), &claims).await.unwrap();
    assert_eq!(again.iter().filter(|o| o.result == ClaimResult::NotPending).count(), claimed);
}

#[tokio::test]
async fn a_send_that_was_taken_back_cannot_be_claimed() {
    let world = World::new(1).await;
    let writer = world.writer(1);
    let e = &world.decide_sends(&writer, 1).await[0];
    let mut reply = touch(e, "");
    reply.next.status = Status::Completed;
    reply.next.open_send = None;
    reply.cancel = vec![e.open_send.unwrap()];
    assert_eq!(commit(&writer, reply).await, Committed::Done);
    assert_eq!(status_of(&world, e.open_send.unwrap()).await, "cancelled");
    assert_eq!(claim(&world, e).await, ClaimResult::NotPending);
    assert_eq!(gate(&world).await, None);
}

#[tokio::test]
async fn a_reply_and_a_claim_at_once_never_leave_a_cancelled_send_in_flight() {
    let world = World::new(24).await;
    let writer = world.writer(2);
    for e in world.decide_sends(&writer, 24).await {
        let mut reply: Change = touch(&e, "");
        reply.next.status = Status::Completed;
        reply.next.open_send = None;
        reply.cancel = vec![e.open_send.unwrap()];
        let (replied, claimed) = tokio::join!(commit(&writer, reply), claim(&world, &e));
        assert_eq!(replied, Committed::Done);
        let status = status_of(&world, e.open_send.unwrap()).await;
        match claimed {
            ClaimResult::Claimed { .. } => {
                assert_eq!(status, "dispatching");
                let mut after = load_one(&world, &e).await;
                after.open_send = e.open_send;
                end(&writer, &after, Status::Completed, finish(&world, &after, SendStatus::Sent)).await;
            }
            // Busy: the reply came first while the claim waited for the row; its next look finds it cancelled.
            ClaimResult::NotPending | ClaimResult::GateBusy => assert_eq!(status, "cancelled"),
            other => panic!("{other:?}"),
        }
        assert_eq!(gate(&world).await, None);
    }
}

async fn load_one(world: &World, e: &Execution) -> Execution {
    crate::writer::load(&world.pool, &[e.id]).await.remove(0)
}

#[tokio::test]
async fn an_account_that_rests_is_left_alone_until_then() {
    let world = World::new(2).await;
    let writer = world.writer(1);
    let executions = world.decide_sends(&writer, 2).await;
    assert!(matches!(claim(&world, &executions[0]).await, ClaimResult::Claimed { .. }));
    assert_eq!(claim(&world, &executions[1]).await, ClaimResult::GateBusy);
    let until = NOW + Duration::from_secs(60);
    let quota = Finish {
        class: Some(FailureClass::AccountQuota),
        error: Some("limit\0".to_owned()),
        rest_until: Some(until),
        ..finish(&world, &executions[0], SendStatus::Pending)
    };
    let first = end(&writer, &executions[0], Status::Executing, quota).await;
    assert_eq!(claim(&world, &executions[1]).await, ClaimResult::GateResting { until });
    let lease = world.lease.view();
    assert_eq!(claim_as(&world, &lease, &first, until).await, ClaimResult::Claimed { dispatch_count: 2 });
}

#[tokio::test]
async fn nothing_is_claimed_for_a_paused_campaign_a_halted_account_or_a_paused_execution() {
    let world = World::new(1).await;
    let writer = world.writer(1);
    let e = &world.decide_sends(&writer, 1).await[0];
    world.db.script("UPDATE campaigns SET status = 'paused'").await.unwrap();
    assert_eq!(claim(&world, e).await, ClaimResult::CampaignInactive);
    world.db.script("UPDATE campaigns SET status = 'active'").await.unwrap();
    assert!(send::halt_account(&world.pool, WORKSPACE, world.account, "credentials").await.unwrap());
    assert!(!send::halt_account(&world.pool, WORKSPACE, world.account, "again").await.unwrap());
    assert_eq!(claim(&world, e).await, ClaimResult::AccountNotActive);
    assert!(send::resume_account(&world.pool, WORKSPACE, world.account).await.unwrap());
    let mut pause = touch(e, "");
    pause.next.status = Status::Paused;
    pause.next.paused_status = Some(Status::Executing);
    let paused = pause.next.clone();
    assert_eq!(commit(&writer, pause).await, Committed::Done);
    assert_eq!(claim(&world, &paused).await, ClaimResult::NotPending);
    let mut resume = touch(&paused, "");
    resume.next.status = Status::Executing;
    let resumed = resume.next.clone();
    assert_eq!(commit(&writer, resume).await, Committed::Done);
    assert!(matches!(claim(&world, &resumed).await, ClaimResult::Claimed { .. }));
}

#[tokio::test]
async fn who_has_lost_the_lease_claims_nothing() {
    let world = World::new(1).await;
    let writer = world.writer(1);
    let e = &world.decide_sends(&writer, 1).await[0];
    let thief = crate::lease::take_over(&world).await;
    assert_eq!(claim(&world, e).await, ClaimResult::LeaseLost);
    assert!(matches!(claim_as(&world, &thief.view(), e, NOW).await, ClaimResult::Claimed { .. }));
}

#[tokio::test]
async fn what_a_send_taught_is_known_to_the_next_and_finds_the_execution() {
    let world = World::new(2).await;
    let writer = world.writer(1);
    let e = &world.decide_sends(&writer, 1).await[0];
    claim(&world, e).await;
    let receipt = Receipt {
        recipient_id: Some("ACo1".to_owned()),
        chat_id: Some("chat-1".to_owned()),
        invitation_id: Some("inv".to_owned()),
        ..Receipt::default()
    };
    let sent = Finish { receipt: Some(receipt), ..finish(&world, e, SendStatus::Sent) };
    let after = end(&writer, e, Status::Pending, sent).await;
    let next = due(&after, world.account);
    let key = (WORKSPACE, next.next.open_send.unwrap());
    assert_eq!(commit(&writer, next).await, Committed::Done);
    let d = send::load_for_dispatch(&world.pool, &[(key, false)]).await.unwrap().remove(0);
    assert_eq!(d.learnt.recipient_id.as_deref(), Some("ACo1"));
    assert_eq!((d.learnt.chat_id.as_deref(), d.learnt.thread_id), (Some("chat-1"), None));

    let keys = vec![(IdentityKind::Chat, "chat-1".to_owned()), (IdentityKind::Message, "none".to_owned())];
    let here = Wanted { workspace: WORKSPACE, accounts: vec![world.account], keys };
    let elsewhere = Wanted { workspace: WorkspaceId(uuid::Uuid::new_v4()), ..here.clone() };
    let another = Wanted { accounts: vec![AccountId(uuid::Uuid::new_v4())], ..here.clone() };
    let nothing = Wanted { keys: Vec::new(), ..here.clone() };
    let both = Wanted { accounts: vec![another.accounts[0], world.account], ..here.clone() };
    let found = identity::find_executions(&world.pool, &[here, elsewhere, another, nothing, both]).await.unwrap();
    let known = vec![(e.id, IdentityKind::Chat)];
    assert_eq!(found, [known.clone(), vec![], vec![], vec![], known]);
}

#[tokio::test]
async fn a_parked_send_is_not_open_and_a_settled_one_ends() {
    let world = World::new(1).await;
    let writer = world.writer(1);
    let e = &world.decide_sends(&writer, 1).await[0];
    claim(&world, e).await;
    let parked = Finish { parked: true, ..finish(&world, e, SendStatus::Unknown) };
    let after = end(&writer, e, Status::Executing, parked).await;
    assert!(send::open_sends(&world.pool, None).await.unwrap().is_empty());
    end(&writer, &after, Status::Pending, finish(&world, &after, SendStatus::Sent)).await;
    assert_eq!(status_of(&world, e.open_send.unwrap()).await, "sent");
    // What has ended stays ended.
    assert_eq!(world.count("SELECT count(*) FROM sends WHERE finished_at IS NOT NULL").await, 1);
}

#[tokio::test]
async fn a_gate_whose_send_has_ended_is_opened_and_one_in_flight_is_not() {
    let world = World::new(1).await;
    let writer = world.writer(1);
    let e = &world.decide_sends(&writer, 1).await[0];
    claim(&world, e).await;
    let (lease, later) = (world.lease.view(), NOW + Duration::from_secs(1));
    assert!(send::reopen_stale_gates(&world.pool, &lease, later).await.unwrap().is_empty());
    let silent = Finish { open_gate: false, ..finish(&world, e, SendStatus::Sent) };
    end(&writer, e, Status::Pending, silent).await;
    assert_eq!(gate(&world).await, e.open_send.map(|s| s.0));
    assert!(send::reopen_stale_gates(&world.pool, &lease, NOW).await.unwrap().is_empty());
    assert_eq!(send::reopen_stale_gates(&world.pool, &lease, later).await.unwrap(), [world.account]);
    assert_eq!(gate(&world).await, None);
}
