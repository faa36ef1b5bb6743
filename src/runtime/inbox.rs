//! Applies stored facts: from an inbox row to the executions it is about.
//!
//! Rows stay open until their triggers are durable or refused, and triggers are idempotent, so a crash in between costs a
//! repetition that changes nothing. A fact that fits nobody yet is looked at again for a moment, beside the others: the
//! outcome of the send that it answers may still be on the way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::Value;

use super::shared::Shared;
use super::work::Work;
use super::{DeliverError, Delivery, deliver_internal, facts};
use crate::domain::account::Channel;
use crate::domain::execution::BounceStatus;
use crate::domain::id::{ExecutionId, InboxId, ProspectId};
use crate::domain::trigger::Trigger;
use crate::store::inbox::{self as rows, Inbox, InboxStatus, Mark};
use crate::store::{self, execution};
use crate::telemetry;

/// Poll, in case a hint was lost.
const POLL: Duration = Duration::from_secs(2);
/// Pause between rounds while rows wait.
const RECHECK: Duration = Duration::from_millis(250);
/// First and longest pause before a row that waits is looked at again; doubled each time.
const AGAIN_MIN: Duration = Duration::from_millis(250);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// Rows of one round.
const BATCH: i64 = 500;
/// Rows handled at once.
const PARALLEL: usize = 64;
/// How long a fact that fits nobody is looked at again, in real time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Rows that may wait. Beyond that the oldest give way: a flood about strangers must not fill the memory.
const WAITING_MAX: usize = 10_000;

/// The outcome of a fact that fits nobody.
const STRANGER: &str = "about nobody we know";
/// The outcome of a fact that could not wait any longer.
const CROWDED: &str = "too many facts waited that could not be dealt with";

/// What was found out about a row.
pub(super) enum Verdict {
    Mark {
        status: InboxStatus,
        outcome: String,
        shard: Option<u16>,
    },
    /// About nobody we know, so far.
    Nobody,
    /// Cannot be handled now: Postgres is away, or its execution cannot run until its flow is corrected.
    Later,
}

impl Verdict {
    pub(super) fn ignored(why: &str) -> Self {
        Self::Mark { status: InboxStatus::Ignored, outcome: why.to_owned(), shard: None }
    }
}

/// A row that could not be dealt with, beside the others so that it holds none of them up.
struct Waiting {
    row: Inbox,
    since: Instant,
    tries: u32,
}

impl Waiting {
    fn again_at(&self) -> Instant {
        let pauses = AGAIN_MIN * (1 << self.tries.min(7)) - AGAIN_MIN;
        self.since + if self.tries > 7 { AGAIN_MAX * (self.tries - 6) } else { pauses.min(AGAIN_MAX) }
    }
}

/// Works the inbox off until the runtime ends.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut waiting = Vec::new();
    let mut marking = Marking::default();
    let mut pause = POLL;
    while !shared.is_draining() {
        let _ = tokio::time::timeout(pause, shared.inbox.notified()).await;
        match round(&shared, &mut waiting, &mut marking).await {
            Ok(more) => pause = if more { RECHECK } else { POLL },
            Err(error) => {
                tracing::warn!(%error, "cannot work the inbox off; trying again");
                pause = POLL;
            }
        }
    }
}

/// The marks of the last round, which are written while the next one goes on: whoever waits for that one waits for one
/// commit less. A mark that is lost costs a repetition that changes nothing.
#[derive(Default)]
struct Marking {
    rows: Vec<InboxId>,
    running: Option<tokio::task::JoinHandle<Result<(), store::Error>>>,
}

impl Marking {
    /// Waits until it is done.
    async fn finish(&mut self) -> Result<(), store::Error> {
        let Some(running) = self.running.take() else { return Ok(()) };
        self.rows.clear();
        // A crash of it was printed, and leaves the rows open.
        running.await.unwrap_or(Ok(()))
    }

    async fn begin(&mut self, shared: &Arc<Shared>, marks: Vec<Mark>) -> Result<(), store::Error> {
        self.finish().await?;
        if !marks.is_empty() {
            self.rows = marks.iter().map(|m| m.id).collect();
            let shared = Arc::clone(shared);
            self.running =
                Some(tokio::spawn(async move { rows::mark(&shared.pool, &marks, shared.clock.now()).await.map(drop) }));
        }
        Ok(())
    }
}

/// One round over what is open. Answers whether to come back soon.
async fn round(shared: &Arc<Shared>, waiting: &mut Vec<Waiting>, marking: &mut Marking) -> Result<bool, store::Error> {
    let in_hand: Vec<InboxId> = waiting.iter().map(|w| w.row.id).chain(marking.rows.iter().copied()).collect();
    let open = rows::open(&shared.pool, BATCH, &in_hand).await?;
    let full = open.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX);
    let now = Instant::now();
    let (due, rest): (Vec<_>, Vec<_>) = waiting.drain(..).partition(|w| w.again_at() <= now);
    open.iter().for_each(facts::count);
    let all = due.into_iter().chain(open.into_iter().map(|row| Waiting { row, since: now, tries: 0 }));
    let judged: Vec<(Waiting, Verdict)> = futures_util::stream::iter(all)
        .map(|w| async move {
            let verdict = judge(shared, &w.row).await.unwrap_or_else(|error| broken(&w.row, &error));
            (w, verdict)
        })
        .buffered(PARALLEL)
        .collect()
        .await;
    *waiting = rest;
    let mut marks = Vec::new();
    for (mut w, verdict) in judged {
        w.tries += 1;
        match verdict {
            Verdict::Nobody if w.since.elapsed() >= PATIENCE => {
                marks.push(mark(&w.row, InboxStatus::Ignored, STRANGER.to_owned(), None));
            }
            Verdict::Nobody | Verdict::Later => waiting.push(w),
            Verdict::Mark { status, outcome, shard } => marks.push(mark(&w.row, status, outcome, shard)),
        }
    }
    for w in waiting.drain(..waiting.len().saturating_sub(WAITING_MAX)) {
        marks.push(mark(&w.row, InboxStatus::Ignored, CROWDED.to_owned(), None));
    }
    marking.begin(shared, marks).await?;
    Ok(full || !waiting.is_empty())
}

fn mark(row: &Inbox, status: InboxStatus, outcome: String, shard: Option<u16>) -> Mark {
    metrics::counter!(telemetry::INBOX, "outcome" => status.as_str()).increment(1);
    Mark { workspace: row.workspace, id: row.id, status, outcome: Some(outcome), shard }
}

/// A row that cannot be handled: later, if Postgres is away; never, if it is the row's own fault.
fn broken(row: &Inbox, error: &store::Error) -> Verdict {
    tracing::warn!(inbox.id = %row.id, %error, "cannot handle an inbox row");
    if error.is_transient() {
        return Verdict::Later;
    }
    Verdict::Mark { status: InboxStatus::Failed, outcome: error.to_string(), shard: None }
}

async fn judge(shared: &Arc<Shared>, row: &Inbox) -> Result<Verdict, store::Error> {
    match row.source.as_str() {
        "unipile" => facts::judge(shared, row).await,
        "api" => api(shared, row).await,
        other => Ok(Verdict::Mark {
            status: InboxStatus::Failed,
            outcome: format!("no room reads facts from `{other}`"),
            shard: None,
        }),
    }
}

/// A trigger that came in by the API and whose request ended before it was applied.
async fn api(shared: &Arc<Shared>, row: &Inbox) -> Result<Verdict, store::Error> {
    let body: Value = serde_json::from_slice(&row.body).unwrap_or_default();
    let prospect = body.get("prospect_id").and_then(Value::as_str).and_then(|id| id.parse::<ProspectId>().ok());
    let (Some(prospect), Some(trigger)) = (prospect, api_trigger(&body)) else {
        return Ok(Verdict::Mark { status: InboxStatus::Failed, outcome: "not a trigger".into(), shard: None });
    };
    match execution::of_prospect(&shared.pool, row.workspace, prospect).await? {
        Some(execution) => deliver_to(shared, &[execution], &trigger).await,
        None => Ok(Verdict::Nobody),
    }
}

/// The trigger that a body of `POST /v1/triggers` names; `None` when it names none.
pub fn api_trigger(body: &Value) -> Option<Trigger> {
    let text = |key: &str| body.get(key).and_then(Value::as_str);
    match text("trigger")? {
        "connection_accepted" => Some(Trigger::ConnectionAccepted),
        "reply" => Some(Trigger::Reply { channel: Channel::parse(text("channel").unwrap_or("email"))? }),
        "bounce" => Some(Trigger::Bounce { status: BounceStatus::parse(text("bounce").unwrap_or("hard"))? }),
        "unsubscribe" => Some(Trigger::Unsubscribe),
        _ => None,
    }
}

/// The same person may be in several campaigns: the fact is one for each of them.
pub(super) async fn deliver_to(
    shared: &Arc<Shared>,
    found: &[ExecutionId],
    trigger: &Trigger,
) -> Result<Verdict, store::Error> {
    let Some(first) = found.first() else { return Ok(Verdict::Nobody) };
    let (mut said, mut later) = (String::new(), false);
    for execution in found {
        match deliver_internal(shared, *execution, Work::Trigger(trigger.clone(), None)).await {
            Ok(Delivery::Applied { .. }) => said = "applied".into(),
            Ok(Delivery::Rejected { reason }) if said.is_empty() => reason.clone_into(&mut said),
            Ok(Delivery::Rejected { .. }) => {}
            // The fact must not be lost because a flow cannot be read today: it is applied once it can.
            Err(DeliverError::Busy | DeliverError::Stopping | DeliverError::Unrunnable(..)) => later = true,
            Err(error @ DeliverError::NotFound(_)) => {
                if said.is_empty() {
                    said = error.to_string();
                }
            }
        }
    }
    if later {
        // Those that took it already refuse it the second time.
        return Ok(Verdict::Later);
    }
    Ok(Verdict::Mark { status: InboxStatus::Applied, outcome: said, shard: Some(first.shard()) })
}
