//! Parking against everything else, in thousands of interleavings: the real shard and the real actors, with a table, a
//! loader and a writer that answer when the script says so.

use std::collections::HashMap as Map;
use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use serde_json::json;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::*;
use crate::clock::Clock;
use crate::domain::account::Channel;
use crate::domain::execution::{BounceStatus, Execution, Status};
use crate::domain::flow::{self, Flow};
use crate::domain::id::{CampaignId, ProspectId, WorkspaceId};
use crate::domain::send::SendOutcome;
use crate::domain::step::{Decision, step};
use crate::runtime::roster::Campaign;
use crate::runtime::work::Runnable;
use crate::store::writer::{Answer, Change, Committed};

const START: Timestamp = Timestamp::from_micros(1_767_603_600_000_000);
const PEOPLE: usize = 12;
const RESIDENT_MAX: u64 = 3;

#[derive(Clone, Debug)]
enum Act {
    Deliver(usize, Trigger),
    /// The loader answers one of its requests.
    Load(usize),
    /// The writer answers one of its changes.
    Commit(usize),
    Advance(u64),
    Release,
    /// Another program changes a row.
    Foreign(usize),
}

fn trigger() -> impl Strategy<Value = Trigger> {
    prop_oneof![
        4 => Just(Trigger::Pause),
        4 => Just(Trigger::Resume),
        2 => Just(Trigger::Reply { channel: Channel::Linkedin }),
        1 => Just(Trigger::Bounce { status: BounceStatus::Soft }),
        1 => Just(Trigger::ConnectionAccepted),
    ]
}

/// What happens, and how many messages are handled before the next thing does.
fn acts() -> impl Strategy<Value = Vec<(Act, u8)>> {
    let act = prop_oneof![
        6 => (0..PEOPLE, trigger()).prop_map(|(who, trigger)| Act::Deliver(who, trigger)),
        6 => any::<usize>().prop_map(Act::Load),
        6 => any::<usize>().prop_map(Act::Commit),
        2 => (1_u64..90).prop_map(Act::Advance),
        1 => Just(Act::Release),
        1 => (0..PEOPLE).prop_map(Act::Foreign),
    ];
    prop::collection::vec((act, 0_u8..6), 1..120)
}

/// What somebody who delivered a trigger waits for.
type Awaited = oneshot::Receiver<Result<Delivery, DeliverError>>;

struct World {
    shared: Arc<Shared>,
    shard: ActorRef<ShardMessage>,
    requests: mpsc::UnboundedReceiver<ExecutionId>,
    asked: Vec<ExecutionId>,
    changes: mpsc::UnboundedReceiver<(Box<Change>, Answer)>,
    writing: Vec<(Box<Change>, Answer)>,
    table: Map<ExecutionId, Execution>,
    /// The transitions of each execution that are durable, by trigger.
    history: Vec<(ExecutionId, &'static str)>,
    answers: Vec<(ExecutionId, &'static str, Awaited)>,
    campaign: Arc<Campaign>,
    flow: Arc<Flow>,
}

/// All in one shard.
fn person(n: usize) -> ExecutionId {
    ExecutionId(Uuid::from_u128(((n as u128 + 1) << 10) | 7))
}

fn flow() -> Flow {
    flow::parse(&json!({"schema_version": 1, "stop_on": [], "steps": [
        {"id": "a", "action": "send_linkedin_cr", "message": "a",
         "wait_for": {"trigger": "connection_accepted", "timeout": "9000h", "check_every": "1h", "max_checks": 10000}}]}))
    .unwrap()
}

/// Somebody who was invited and has not answered.
fn invited(id: ExecutionId, flow: &Flow) -> Execution {
    let (workspace, campaign) = (WorkspaceId(Uuid::nil()), CampaignId(Uuid::nil()));
    let new = Execution::new(id, workspace, campaign, ProspectId(id.0), 1, START);
    let Decision::Transition { next, .. } = step(&new, flow, &Trigger::Due, START) else { panic!("not due") };
    let sent = Trigger::SendFinished { send: next.open_send.unwrap(), outcome: SendOutcome::Sent };
    let Decision::Transition { next, .. } = step(&next, flow, &sent, START) else { panic!("not sent") };
    assert_eq!(next.status, Status::WaitingTrigger);
    *next
}

impl World {
    async fn new() -> Self {
        let (shared, (requests, changes)) = Shared::scripted(Clock::manual(START), RESIDENT_MAX);
        let (shard, _) = ShardSupervisor::spawn(None, ShardSupervisor, (Arc::clone(&shared), 7)).await.unwrap();
        shared.shards.set(vec![shard.clone(); 1024]).unwrap();
        let flow = Arc::new(flow());
        let table: Map<_, _> = (0..PEOPLE).map(|n| (person(n), invited(person(n), &flow))).collect();
        let campaign = Arc::new(Campaign::running(WorkspaceId(Uuid::nil())));
        let mut world = Self {
            shared,
            shard,
            requests,
            asked: Vec::new(),
            changes,
            writing: Vec::new(),
            table,
            history: Vec::new(),
            answers: Vec::new(),
            campaign,
            flow,
        };
        for n in 0..PEOPLE {
            let result = world.row(person(n));
            let permit = world.shared.scan_permit(1).await.unwrap();
            let _ = world.shard.cast(ShardMessage::Scanned(vec![(person(n), result)], permit));
        }
        let _ = world.shard.cast(ShardMessage::ScanDone);
        world.quiet().await;
        world
    }

    fn row(&self, id: ExecutionId) -> LoadResult {
        let (campaign, flow) = (Arc::clone(&self.campaign), Arc::clone(&self.flow));
        LoadResult::Ready(Box::new(Runnable { execution: self.table[&id].clone(), campaign, flow }))
    }

    async fn settle(&mut self, messages: u8) {
        for _ in 0..messages {
            tokio::task::yield_now().await;
        }
        while let Ok(id) = self.requests.try_recv() {
            self.asked.push(id);
        }
        while let Ok(change) = self.changes.try_recv() {
            self.writing.push(change);
        }
    }

    fn load(&mut self, n: usize) {
        if let Some(n) = n.checked_rem(self.asked.len()) {
            let id = self.asked.swap_remove(n);
            let _ = self.shard.cast(ShardMessage::Loaded(vec![(id, self.row(id))]));
        }
    }

    fn commit(&mut self, n: usize) {
        let Some(n) = n.checked_rem(self.writing.len()) else { return };
        let (change, answer) = self.writing.swap_remove(n);
        let id = change.next.id;
        let guard = change.next.version - i64::try_from(change.moves.len()).unwrap();
        if self.table[&id].version != guard {
            return answer(Committed::Conflict);
        }
        self.history.extend(change.moves.iter().map(|m| (id, m.trigger.name())));
        self.table.insert(id, change.next);
        answer(Committed::Done);
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Deliver(who, trigger) => {
                let (answer, wait) = oneshot::channel();
                self.answers.push((person(who), trigger.name(), wait));
                let inbound = Inbound { answer: Some(answer), ..Inbound::new(Work::Trigger(trigger, None)) };
                self.shared.to_shard(person(who), ShardMessage::Deliver(person(who), inbound));
            }
            Act::Load(n) => self.load(n),
            Act::Commit(n) => self.commit(n),
            Act::Advance(minutes) => self.shared.clock.advance(Duration::from_secs(60 * minutes)),
            Act::Release => drop(self.shard.cast(ShardMessage::Release)),
            Act::Foreign(who) => self.table.get_mut(&person(who)).unwrap().version += 1,
        }
    }

    /// Until nobody asks or writes any more.
    async fn quiet(&mut self) {
        let mut still = 0;
        while still < 3 {
            self.settle(200).await;
            still = if self.asked.is_empty() && self.writing.is_empty() { still + 1 } else { 0 };
            for n in (0..self.asked.len()).rev() {
                self.load(n);
            }
            for n in (0..self.writing.len()).rev() {
                self.commit(n);
            }
        }
    }

    /// What has to hold whenever nothing is under way.
    fn check(&mut self) {
        let mut applied = Vec::new();
        for (id, trigger, mut wait) in self.answers.drain(..) {
            match wait.try_recv() {
                Ok(Ok(Delivery::Applied { .. })) => applied.push((id, trigger)),
                Ok(Ok(Delivery::Rejected { .. })) => {}
                other => panic!("{trigger}: {other:?}"),
            }
        }
        let timers = ["due", "check_due"];
        let mut durable: Vec<_> = self.history.drain(..).filter(|(_, t)| !timers.contains(t)).collect();
        durable.sort_unstable();
        applied.sort_unstable();
        assert_eq!(applied, durable, "what was answered as applied, and what is durable");
        assert!(self.shared.residents.load(Relaxed) <= RESIDENT_MAX, "as many live as there may be");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_trigger_and_no_timer_is_lost_or_doubled_by_parking(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            assert_eq!(world.shared.parked.load(Relaxed), PEOPLE as u64 - RESIDENT_MAX);
            for (act, messages) in acts {
                world.act(act);
                world.settle(messages).await;
            }
            world.quiet().await;
            world.check();
            // Everybody who waits still hears the clock, whoever was parked in between.
            let before = world.table.clone();
            world.act(Act::Advance(90));
            world.quiet().await;
            world.check();
            for (id, execution) in &before {
                let waits = execution.status == Status::WaitingTrigger;
                let checks = world.table[id].trigger_check_count - execution.trigger_check_count;
                assert_eq!(checks > 0, waits, "{id}: {execution:?}");
            }
            world.shard.stop_children_and_wait(None, None).await;
            let _ = world.shard.stop_and_wait(None, None).await;
        });
    }
}

#[test]
fn an_entry_stays_small_because_there_is_one_for_every_resident_prospect() {
    let (entry, key) = (size_of::<Entry>(), size_of::<ExecutionId>());
    println!("Entry {entry} B, with its key {} B", entry + key);
    assert!(entry <= 64, "{entry} B");
}
