//! Facts from outside that are acknowledged and have not reached those they are about. A claim waits for them: nobody is
//! written to after their answer was acknowledged, however busy the inbox is.
//!
//! A fact is noted before it is stored, so before its acknowledgement. Until it is known whom it is about it may be about
//! anybody of its workspace; that takes a look-up of some milliseconds. From then on only claims for those people wait, until their actors have taken the fact, or cannot for now: then the claim's own
//! statement finds the send taken back, or goes on. After a start all claims wait until the inbox was read once.
//!
//! What the process does not know of (a fact that another process took in) is noted when it is read.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::meters::Stage;
use super::shared::Shared;
use crate::domain::id::{ExecutionId, InboxId, WorkspaceId};
use crate::store::inbox::NewInbox;

/// No claim waits longer for one fact, in real time: its row may have been dealt with by somebody else.
const PATIENCE: Duration = Duration::from_secs(30);

/// Facts that are remembered, about 200 B each. As many unread ones are a flood: no more are taken in.
const FACTS_MAX: usize = 100_000;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Unread {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug)]
struct Inner {
    /// Since when the inbox has been waiting to be read for the first time; `None` when it was.
    unopened: Option<Instant>,
    /// The number of the fact that was noted last.
    last: u64,
    facts: HashMap<InboxId, Fact>,
    /// Those of which it is not known whom they are about, by number.
    sought: HashMap<WorkspaceId, BTreeMap<u64, Instant>>,
    /// The others, with when they were noted.
    about: HashMap<ExecutionId, Vec<(InboxId, Instant)>>,
}

#[derive(Debug)]
struct Fact {
    workspace: WorkspaceId,
    number: u64,
    noted: Instant,
    /// Since when its row has been durable, as far as is known here.
    stored: Instant,
    about: Vec<ExecutionId>,
}

impl Unread {
    /// Of a runtime whose inbox was not read yet.
    pub(super) fn new() -> Self {
        let inner = Inner {
            unopened: Some(Instant::now()),
            last: 0,
            facts: HashMap::new(),
            sought: HashMap::new(),
            about: HashMap::new(),
        };
        Self { inner: Mutex::new(inner), changed: Notify::new() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fact is about to be stored, or was read. Noted once.
    pub(super) fn note(&self, workspace: WorkspaceId, id: InboxId) {
        let mut inner = self.inner();
        if inner.facts.contains_key(&id) {
            return;
        }
        inner.last += 1;
        let (number, noted) = (inner.last, Instant::now());
        inner.facts.insert(id, Fact { workspace, number, noted, stored: noted, about: Vec::new() });
        inner.sought.entry(workspace).or_default().insert(number, noted);
    }

    /// Its row is durable. Answers how long that took.
    fn stored(&self, id: InboxId) -> Option<Duration> {
        let mut inner = self.inner();
        let fact = inner.facts.get_mut(&id)?;
        fact.stored = Instant::now();
        Some(fact.stored - fact.noted)
    }

    /// Whether more facts may be taken in.
    pub(super) fn has_room(&self) -> bool {
        self.inner().facts.len() < FACTS_MAX
    }

    /// It is about these, and will be told to them. The first time it answers how long it took to find them.
    pub(super) fn found(&self, id: InboxId, about: &[ExecutionId]) -> Option<Duration> {
        let mut inner = self.inner();
        let fact = inner.facts.get_mut(&id)?;
        let took = fact.about.is_empty().then(|| fact.stored.elapsed());
        let (workspace, number, noted) = (fact.workspace, fact.number, fact.noted);
        let earlier = std::mem::replace(&mut fact.about, about.to_vec());
        inner.forget_about(id, &earlier);
        for execution in about {
            inner.about.entry(*execution).or_default().push((id, noted));
        }
        inner.forget_sought(workspace, number);
        drop(inner);
        self.changed.notify_waiters();
        took
    }

    /// It was dealt with, or nothing can be done about it now.
    pub(super) fn judged(&self, id: InboxId) {
        let mut inner = self.inner();
        let Some(fact) = inner.facts.remove(&id) else { return };
        inner.forget_sought(fact.workspace, fact.number);
        inner.forget_about(id, &fact.about);
        drop(inner);
        self.changed.notify_waiters();
    }

    /// All that was stored before the start has been read, and noted.
    pub(super) fn opened(&self) {
        if self.inner().unopened.take().is_some() {
            self.changed.notify_waiters();
        }
    }

    /// Waits until nothing that was noted before now may still be about this execution, for [`PATIENCE`] at most.
    pub(super) async fn read(&self, workspace: WorkspaceId, execution: ExecutionId) {
        let last = self.inner().last;
        loop {
            let changed = self.changed.notified();
            let Some(since) = self.inner().obstacle(workspace, execution, last) else { return };
            // Times out for this one: there may be others.
            let left = PATIENCE.saturating_sub(since.elapsed());
            let _ = tokio::time::timeout(left, changed).await;
        }
    }
}

impl Inner {
    /// Since when something has been unread that may be about this execution, and not for too long.
    fn obstacle(&self, workspace: WorkspaceId, execution: ExecutionId, last: u64) -> Option<Instant> {
        let sought = self.sought.get(&workspace).into_iter().flat_map(|sought| sought.range(..=last));
        let about = self.about.get(&execution).into_iter().flatten().map(|(_, noted)| noted);
        let unread = self.unopened.iter().chain(sought.map(|(_, noted)| noted)).chain(about);
        unread.copied().find(|since| since.elapsed() < PATIENCE)
    }

    fn forget_sought(&mut self, workspace: WorkspaceId, number: u64) {
        if let Some(sought) = self.sought.get_mut(&workspace) {
            sought.remove(&number);
            if sought.is_empty() {
                self.sought.remove(&workspace);
            }
        }
    }

    fn forget_about(&mut self, id: InboxId, about: &[ExecutionId]) {
        for execution in about {
            if let Some(facts) = self.about.get_mut(execution) {
                facts.retain(|(fact, _)| *fact != id);
                if facts.is_empty() {
                    self.about.remove(execution);
                }
            }
        }
    }
}

/// A fact that is being stored. Claims wait for it from now on; no more if it is dropped without having been stored.
#[derive(Debug)]
pub struct NewFact {
    shared: Arc<Shared>,
    id: InboxId,
    stored: bool,
}

impl NewFact {
    pub(super) fn new(shared: Arc<Shared>, workspace: WorkspaceId, id: InboxId) -> Self {
        shared.unread.note(workspace, id);
        Self { shared, id, stored: false }
    }

    /// It is known to be about this execution.
    #[must_use]
    pub fn about(self, execution: ExecutionId) -> Self {
        self.shared.unread.found(self.id, &[execution]);
        self
    }

    /// Its row is durable now.
    pub fn is_durable(&self) {
        if let Some(took) = self.shared.unread.stored(self.id) {
            self.shared.meters.stage(Stage::Stored, took);
        }
    }

    /// It is durable, and may be acknowledged: has it dealt with, without a detour over the table if there is room.
    pub fn stored(mut self, new: NewInbox) {
        self.stored = true;
        if self.shared.handed.try_send(new.into()).is_err() {
            self.shared.inbox.notify_one();
        }
    }
}

impl Drop for NewFact {
    fn drop(&mut self) {
        if !self.stored {
            self.shared.unread.judged(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;
    use uuid::Uuid;

    use super::*;

    const fn fact(n: u128) -> InboxId {
        InboxId(Uuid::from_u128(n))
    }

    const fn execution(n: u128) -> ExecutionId {
        ExecutionId(Uuid::from_u128(n))
    }

    const HERE: WorkspaceId = WorkspaceId(Uuid::from_u128(1));
    const THERE: WorkspaceId = WorkspaceId(Uuid::from_u128(2));

    fn opened() -> Unread {
        let unread = Unread::new();
        unread.opened();
        unread
    }

    /// Whether a claim goes on at once.
    async fn goes_on(unread: &Unread, workspace: WorkspaceId, about: u128) -> bool {
        poll!(pin!(unread.read(workspace, execution(about)))).is_ready()
    }

    #[tokio::test]
    async fn a_claim_waits_for_what_may_be_about_its_person_and_for_nothing_else() {
        let unread = opened();
        unread.note(HERE, fact(1));
        assert!(goes_on(&unread, THERE, 7).await);
        let mut waits = pin!(unread.read(HERE, execution(7)));
        assert!(poll!(&mut waits).is_pending());
        // What comes in while it waits does not make it wait longer.
        unread.note(HERE, fact(2));
        unread.found(fact(1), &[execution(8), execution(9)]);
        assert!(poll!(&mut waits).is_ready());
        assert!(!goes_on(&unread, HERE, 7).await);
        unread.judged(fact(2));
        assert!(goes_on(&unread, HERE, 7).await);
        assert!(!goes_on(&unread, HERE, 8).await && !goes_on(&unread, HERE, 9).await);
        unread.judged(fact(1));
        assert!(goes_on(&unread, HERE, 8).await && goes_on(&unread, HERE, 9).await);
        let inner = unread.inner();
        assert!(inner.facts.is_empty() && inner.sought.is_empty() && inner.about.is_empty());
    }

    #[tokio::test]
    async fn all_claims_wait_until_the_inbox_was_read_once() {
        let unread = Unread::new();
        let mut waits = pin!(unread.read(HERE, execution(1)));
        assert!(poll!(&mut waits).is_pending());
        unread.note(HERE, fact(1));
        unread.found(fact(1), &[execution(1)]);
        unread.opened();
        assert!(poll!(&mut waits).is_pending());
        unread.judged(fact(1));
        assert!(poll!(&mut waits).is_ready());
    }

    #[tokio::test]
    async fn a_fact_that_is_found_anew_is_about_those_it_was_found_for_last() {
        let unread = opened();
        unread.note(HERE, fact(1));
        unread.note(HERE, fact(1));
        unread.found(fact(1), &[execution(1)]);
        unread.found(fact(1), &[execution(2)]);
        assert!(goes_on(&unread, HERE, 1).await);
        assert!(!goes_on(&unread, HERE, 2).await);
        unread.judged(fact(1));
        unread.judged(fact(1));
        assert!(goes_on(&unread, HERE, 2).await);
    }

    #[test]
    fn a_flood_is_not_taken_in_until_some_of_it_was_read() {
        let unread = opened();
        (0..FACTS_MAX as u128).for_each(|n| unread.note(HERE, fact(n)));
        assert!(!unread.has_room());
        unread.judged(fact(7));
        assert!(unread.has_room());
    }

    #[tokio::test]
    async fn no_claim_waits_for_ever() {
        let unread = opened();
        unread.note(HERE, fact(1));
        let long_ago = Instant::now().checked_sub(PATIENCE).unwrap();
        unread.inner().sought.get_mut(&HERE).unwrap().insert(1, long_ago);
        assert!(goes_on(&unread, HERE, 1).await);
    }
}
