//! Keeps the inbox moving: takes what the doors hand over, reads what else is open, has many facts dealt with at once, and marks
//! what was decided.
//!
//! Nothing here waits for a neighbour. A fact whose execution is busy (it waits for a provider call, or its row is being
//! read) holds up neither the facts behind it nor the marks of those before it, and what comes in meanwhile is read at
//! once. A mark that is lost costs a repetition that changes nothing.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::FuturesUnordered;

use super::{Verdict, verdict};
use crate::domain::id::InboxId;
use crate::runtime::shared::Shared;
use crate::store;
use crate::store::inbox::{self as rows, Inbox, InboxStatus, Mark};
use crate::telemetry;
use crate::telemetry::trace::{Known, Side, Stage};

/// Poll, in case a hint was lost.
const POLL: Duration = Duration::from_secs(2);
/// First and longest pause before a row that waits is looked at again; doubled each time.
const AGAIN_MIN: Duration = Duration::from_millis(250);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// Rows of one read.
const BATCH: i64 = 500;
/// Rows dealt with at once.
const PARALLEL: usize = 64;
/// How long a fact that fits nobody is looked at again, in real time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Facts on their way from the door that took them in.
pub(in crate::runtime) const HANDED_MAX: usize = 1024;
/// Rows that were dealt with last, and may come once more: handed over and read at the same time.
const DONE_MAX: usize = 8192;
/// Rows that may wait. At that many the oldest about strangers give way, and nothing more is read: a flood must not fill the
/// memory.
const WAITING_MAX: usize = 10_000;

/// The outcome of a fact that fits nobody.
const STRANGER: &str = "about nobody we know";
/// The outcome of a fact that could not wait any longer.
const CROWDED: &str = "too many facts waited that could not be dealt with";

/// A row in hand.
struct Fact {
    row: Inbox,
    since: Instant,
    tries: u32,
    /// It was about nobody we know when it was looked at last.
    is_stranger: bool,
}

impl Fact {
    /// The pause before it is looked at again.
    fn pause(&self) -> Duration {
        (AGAIN_MIN * (1 << self.tries.saturating_sub(1).min(7))).min(AGAIN_MAX)
    }
}

/// Everything in hand, by how far it has come.
#[derive(Default)]
struct Pump {
    /// Read, and not begun.
    ready: VecDeque<Fact>,
    judging: FuturesUnordered<BoxFuture<'static, (Fact, Verdict)>>,
    /// Could not be dealt with, by when it is looked at again and by arrival.
    waiting: BTreeMap<(Instant, u64), Fact>,
    arrivals: u64,
    /// Decided, and not durable.
    marks: Vec<Mark>,
    /// Those that are being written.
    writing: Vec<InboxId>,
    /// All of the above: a row that comes again is not taken twice.
    in_hand: HashSet<InboxId>,
    done: Done,
}

/// Rows that were dealt with last, in their order.
#[derive(Default)]
struct Done {
    order: VecDeque<InboxId>,
    ids: HashSet<InboxId>,
}

impl Done {
    fn add(&mut self, id: InboxId) {
        self.order.push_back(id);
        self.ids.insert(id);
    }

    /// Forgets those that were dealt with longest ago.
    fn trim(&mut self) {
        while self.order.len() > DONE_MAX
            && let Some(id) = self.order.pop_front()
        {
            self.ids.remove(&id);
        }
    }
}

/// Works the inbox off until the runtime ends.
pub(in crate::runtime) async fn run(shared: Arc<Shared>) {
    let mut pump = Pump::default();
    let mut reading: OptionFuture<BoxFuture<'static, Result<Vec<Inbox>, store::Error>>> = None.into();
    let mut marking: OptionFuture<BoxFuture<'static, Result<(), store::Error>>> = None.into();
    let (mut is_reading, mut is_marking, mut look) = (false, false, true);
    let mut look_at = Instant::now();
    let mut handed_over = shared.handed_over.lock().await;
    while !shared.is_draining() {
        let now = Instant::now();
        pump.ripen(now);
        pump.begin(&shared);
        if !is_reading && pump.has_room() && (look || look_at <= now) {
            (look, is_reading, look_at) = (false, true, now + POLL);
            let (shared, besides) = (Arc::clone(&shared), pump.in_hand.iter().copied().collect::<Vec<_>>());
            let read = async move { rows::open(&shared.pool, BATCH, &besides).await };
            reading = Some(Box::pin(read) as BoxFuture<'static, _>).into();
        }
        if !is_marking && !pump.marks.is_empty() {
            is_marking = true;
            marking = Some(pump.write(&shared)).into();
        }
        // A read that cannot begin yet is begun when something else has come to its end.
        let next_look = (!is_reading && pump.has_room()).then_some(look_at);
        let wake = pump.waiting.keys().next().map(|(at, _)| *at).into_iter().chain(next_look).min();
        tokio::select! {
            Some((fact, verdict)) = pump.judging.next(), if !pump.judging.is_empty() => {
                shared.unread.judged(fact.row.id);
                pump.judged(&shared, fact, verdict);
            }
            Some(read) = &mut reading, if is_reading => {
                is_reading = false;
                match read {
                    Ok(read) => {
                        let is_all = read.len() < usize::try_from(BATCH).unwrap_or(usize::MAX);
                        look |= !is_all;
                        pump.take(&shared, read);
                        if is_all {
                            shared.unread.opened();
                        }
                    }
                    Err(error) => tracing::warn!(%error, "cannot read the inbox; trying again"),
                }
            }
            Some(marked) = &mut marking, if is_marking => {
                is_marking = false;
                pump.written(marked.is_ok());
                // Not while a read may still bring them.
                if !is_reading {
                    pump.done.trim();
                }
                if let Err(error) = marked {
                    tracing::warn!(%error, "cannot mark what was decided about facts; they are dealt with again");
                    look_at = Instant::now() + POLL;
                }
            }
            // Its row is durable. Without room it stays in the table until there is some.
            Some(row) = handed_over.recv() => {
                if pump.has_room() {
                    pump.take(&shared, vec![row]);
                } else {
                    look = true;
                }
            }
            () = shared.inbox.notified() => look = true,
            () = tokio::time::sleep_until(wake.unwrap_or(now).into()), if wake.is_some() => {}
        }
    }
    if is_marking {
        let _ = marking.await;
    }
}

/// Deals with a row as a stage of the trace that it came in with, were it in another life of the program.
async fn traced(shared: &Arc<Shared>, row: &Inbox, first: bool) -> Verdict {
    let mut stage = Stage::under(row.trace, "apply", Side::Consumer);
    stage.note("inbox.id", || Known::Id(row.id.0));
    let verdict = stage.run(verdict(shared, row, first)).await;
    match &verdict {
        Verdict::Mark { status, .. } => stage.note("outcome", || Known::Name(status.as_str())),
        Verdict::Nobody | Verdict::Later => stage.discard(),
    }
    verdict
}

impl Pump {
    /// Whether more may be read.
    fn has_room(&self) -> bool {
        self.ready.len() < PARALLEL && self.waiting.len() < WAITING_MAX
    }

    fn take(&mut self, shared: &Shared, read: Vec<Inbox>) {
        let since = Instant::now();
        for row in read {
            if !self.done.ids.contains(&row.id) && self.in_hand.insert(row.id) {
                shared.unread.note(row.workspace, row.id);
                self.ready.push_back(Fact { row, since, tries: 0, is_stranger: false });
            }
        }
    }

    /// What has waited long enough goes first.
    fn ripen(&mut self, now: Instant) {
        while let Some(next) = self.waiting.first_entry().filter(|next| next.key().0 <= now) {
            self.ready.push_front(next.remove());
        }
    }

    fn begin(&mut self, shared: &Arc<Shared>) {
        while self.judging.len() < PARALLEL
            && let Some(fact) = self.ready.pop_front()
        {
            let shared = Arc::clone(shared);
            self.judging.push(Box::pin(async move {
                let verdict = traced(&shared, &fact.row, fact.tries == 0).await;
                (fact, verdict)
            }));
        }
    }

    fn judged(&mut self, shared: &Shared, mut fact: Fact, verdict: Verdict) {
        fact.tries += 1;
        match verdict {
            Verdict::Nobody if fact.since.elapsed() >= PATIENCE => {
                self.mark(shared, &fact.row, InboxStatus::Ignored, STRANGER.to_owned(), None);
            }
            Verdict::Nobody | Verdict::Later => {
                fact.is_stranger = matches!(verdict, Verdict::Nobody);
                if !fact.is_stranger {
                    // Whatever it waited for may just have told whom it is about.
                    fact.since = Instant::now();
                }
                self.arrivals += 1;
                self.waiting.insert((Instant::now() + fact.pause(), self.arrivals), fact);
                // Never one about somebody we know: those wait here, and more of them in the table.
                let strangers = self.waiting.iter().filter(|(_, fact)| fact.is_stranger);
                if self.waiting.len() >= WAITING_MAX
                    && let Some(oldest) = strangers.min_by_key(|(_, fact)| fact.since).map(|(key, _)| *key)
                    && let Some(oldest) = self.waiting.remove(&oldest)
                {
                    self.mark(shared, &oldest.row, InboxStatus::Ignored, CROWDED.to_owned(), None);
                }
            }
            Verdict::Mark { status, outcome, shard } => self.mark(shared, &fact.row, status, outcome, shard),
        }
    }

    fn mark(&mut self, shared: &Shared, row: &Inbox, status: InboxStatus, outcome: String, shard: Option<u16>) {
        metrics::counter!(telemetry::INBOX, "outcome" => status.as_str()).increment(1);
        let took = shared.clock.real(shared.clock.now().since(row.received_at));
        shared.meters.inbox.record(status.as_str(), took.as_secs_f64());
        self.marks.push(Mark { workspace: row.workspace, id: row.id, status, outcome: Some(outcome), shard });
    }

    fn write(&mut self, shared: &Arc<Shared>) -> BoxFuture<'static, Result<(), store::Error>> {
        let marks = std::mem::take(&mut self.marks);
        self.writing = marks.iter().map(|m| m.id).collect();
        let shared = Arc::clone(shared);
        Box::pin(async move { rows::mark(&shared.pool, &marks, shared.clock.now()).await.map(drop) })
    }

    /// Durable, or lost: then they are read again.
    fn written(&mut self, durable: bool) {
        for id in self.writing.drain(..) {
            self.in_hand.remove(&id);
            if durable {
                self.done.add(id);
            }
        }
    }
}
