//! What a channel makes of what it is told, in whichever order it comes.

use uuid::Uuid;

use super::*;
use crate::clock::Clock;
use crate::domain::account::Channel;
use crate::domain::id::{AccountId, ExecutionId, WorkspaceId};

const START: Timestamp = Timestamp::from_micros(1_767_603_600_000_000);
const REST: Duration = Duration::from_secs(24 * 3600);
const LOST: SendId = SendId(Uuid::from_u128(1));
const NEXT: SendId = SendId(Uuid::from_u128(2));

fn account() -> Account {
    Account {
        id: AccountId(Uuid::from_u128(9)),
        workspace: WorkspaceId(Uuid::nil()),
        channel: Channel::Email,
        provider: "fake".into(),
        provider_account_id: "box".into(),
        name: "box".into(),
        status: AccountStatus::Active,
        min_gap_ms: 0,
        budget: None,
        since: START,
    }
}

fn slot() -> Slot {
    Slot::of_open(Action::SendEmail, 1, None)
}

/// A channel that has heard of one send whose outcome was lost, and of another; as executions hint at them, who do not know which
/// is which.
fn hinted() -> Queue {
    let (shared, _) = Shared::scripted(Clock::manual(START), 10);
    let mut queue = Queue::new(shared, Arc::new(account()));
    queue.hint((WorkspaceId(Uuid::nil()), NEXT), slot(), false);
    queue.hint((WorkspaceId(Uuid::nil()), LOST), slot(), false);
    queue.ripen();
    queue
}

fn row(status: SendStatus) -> rows::OpenSend {
    rows::OpenSend {
        workspace: WorkspaceId(Uuid::nil()),
        id: LOST,
        created_at: START,
        execution: ExecutionId(Uuid::from_u128(3)),
        campaign: CampaignId(Uuid::from_u128(4)),
        account: AccountId(Uuid::from_u128(9)),
        status,
        lease_epoch: 1,
        action: Action::SendEmail,
        claimed_at: Some(START),
        settle_count: 0,
        parked: false,
        flow_version: 1,
        step: 1,
    }
}

/// The account rests because of the other one, which was in line before it.
fn rest(queue: &mut Queue) {
    let next = queue.lines.pop().unwrap();
    assert_eq!(next.hint.1, NEXT);
    queue.rest_until = Some(START + REST);
    queue.put(next, START + REST);
}

#[tokio::test]
async fn a_send_that_is_to_be_read_back_waits_for_no_rest_though_its_execution_hinted_at_it_first() {
    let mut queue = hinted();
    rest(&mut queue);
    assert_eq!(queue.next_at(START), Some(START + REST));
    queue.open(&[row(SendStatus::Unknown)]);
    queue.ripen();
    assert_eq!(queue.next_at(START), Some(START));
    assert_eq!(queue.first.iter().map(|job| job.hint.1).collect::<Vec<_>>(), [LOST]);
    assert!(!queue.lines.is_ready(), "it is not in two places");
}

#[tokio::test]
async fn it_is_found_wherever_it_waits() {
    type Place = fn(&mut Queue, Job, (Timestamp, u64));
    let places: [Place; 5] = [
        |queue, job, (at, _)| queue.put(job, at),
        |queue, job, _| queue.held.push(job),
        |queue, job, at| queue.lines.ready(at, job),
        |queue, job, at| queue.lines.scarce(at, job),
        |queue, job, _| queue.lines.stuck(job),
    ];
    for (i, place) in places.into_iter().enumerate() {
        let mut queue = hinted();
        let job = queue.lines.take(LOST).unwrap();
        place(&mut queue, job, (START + REST, 0));
        queue.open(&[row(SendStatus::Unknown)]);
        assert_eq!(
            queue.settling.values().map(|job| (job.hint.1, job.settles)).collect::<Vec<_>>(),
            [(LOST, true)],
            "{i}"
        );
        assert_eq!((queue.later.len(), queue.held.len(), queue.lines.release().len()), (0, 0, 0), "{i}");
    }
}

#[tokio::test]
async fn a_send_that_waits_to_be_read_back_is_not_looked_at_earlier_because_it_is_hinted_at() {
    let mut queue = hinted();
    let job = queue.lines.take(LOST).unwrap();
    queue.put(Job { settles: true, ..job }, START + REST);
    rest(&mut queue);
    queue.open(&[row(SendStatus::Unknown)]);
    queue.open(&[row(SendStatus::Pending)]);
    queue.ripen();
    assert_eq!(queue.next_at(START), Some(START + REST));
}
