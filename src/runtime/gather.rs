//! Between the jobs of the channels and the store: what they ask for one by one goes to Postgres together.
//!
//! A send costs a read and a claim; an account has one job at a time, so alone each would be a statement of its own. Here
//! whatever was asked while the last statement ran shares the next one (no fixed delay: a lone job waits for nobody).
//! Whoever asks is answered, or told that there is no answer and to look at the row again: also when the statement failed,
//! its task crashed, or the runtime stops.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::shared::Shared;
use crate::domain::id::SendId;
use crate::store::send::{self as rows, Claim, ClaimResult, Dispatch, SendKey};
use crate::store::{self, Pool, lease::LeaseView};

/// Most questions in one statement.
const BATCH_MAX: usize = 512;

/// A statement that answers many questions.
pub(super) trait Statement {
    type Question: Clone + Send + Sync;
    type Answer: Send;

    /// For logs: what cannot be done when it fails.
    const WHAT: &'static str;

    /// One answer a question, in their order.
    fn run(&self, questions: &[Self::Question])
    -> impl Future<Output = Result<Vec<Self::Answer>, store::Error>> + Send;
}

/// Why there is no answer. What was asked for may have been done all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// Postgres is away, or the runtime stops: look again in a moment.
    NotNow,
    /// Postgres refuses this one, or its row cannot be read.
    Refused,
}

/// Gathers the questions of one statement.
pub(super) struct Gatherer<S: Statement> {
    statement: S,
    queue: Mutex<Queue<S>>,
    filled: Notify,
}

struct Queue<S: Statement> {
    asked: VecDeque<Asked<S>>,
    closed: bool,
}

struct Asked<S: Statement> {
    question: S::Question,
    answer: oneshot::Sender<Result<S::Answer, Unanswered>>,
}

impl<S: Statement> Gatherer<S> {
    pub(super) fn new(statement: S) -> Self {
        let queue = Queue { asked: VecDeque::new(), closed: false };
        Self { statement, queue: Mutex::new(queue), filled: Notify::new() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<S>> {
        // Held for a push or a drain.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks with the next statement. As many may ask as there are accounts: each has one job at a time.
    pub(super) async fn ask(&self, question: S::Question) -> Result<S::Answer, Unanswered> {
        let (answer, answered) = oneshot::channel();
        {
            let mut queue = self.queue();
            if queue.closed {
                return Err(Unanswered::NotNow);
            }
            queue.asked.push_back(Asked { question, answer });
        }
        self.filled.notify_one();
        // Dropped with its batch: the task crashed.
        answered.await.unwrap_or(Err(Unanswered::NotNow))
    }

    /// Answers until it is closed. A batch that crashes it is not tried again; the next run takes what came after it.
    pub(super) async fn run(&self) {
        loop {
            let mut batch: Vec<_> = {
                let mut queue = self.queue();
                if queue.closed {
                    return;
                }
                let room = queue.asked.len().min(BATCH_MAX);
                queue.asked.drain(..room).collect()
            };
            if batch.is_empty() {
                self.filled.notified().await;
                continue;
            }
            // Nobody would act on a claim whose asker is gone, so it is not made.
            batch.retain(|asked| !asked.answer.is_closed());
            if !batch.is_empty() {
                self.answer(batch).await;
            }
        }
    }

    async fn answer(&self, batch: Vec<Asked<S>>) {
        let (questions, askers): (Vec<_>, Vec<_>) = batch.into_iter().map(|a| (a.question, a.answer)).unzip();
        match self.statement.run(&questions).await {
            Ok(answers) => {
                // Who gives up waiting looks at the row again.
                askers.into_iter().zip(answers).for_each(|(asker, answer)| drop(asker.send(Ok(answer))));
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, sends = questions.len(), "cannot {} now; trying again", S::WHAT);
                askers.into_iter().for_each(|asker| drop(asker.send(Err(Unanswered::NotNow))));
            }
            Err(error) => {
                if questions.len() > 1 {
                    tracing::warn!(%error, sends = questions.len(), "cannot {} together; one by one", S::WHAT);
                }
                self.one_by_one(&questions, askers, error).await;
            }
        }
    }

    /// So that one question which Postgres refuses does not leave its neighbours without an answer. A refused statement has
    /// changed nothing.
    async fn one_by_one(
        &self,
        questions: &[S::Question],
        askers: Vec<oneshot::Sender<Result<S::Answer, Unanswered>>>,
        together: store::Error,
    ) {
        let mut away = false;
        let mut alone = (questions.len() == 1).then_some(together);
        for (question, asker) in questions.iter().zip(askers) {
            if away {
                let _ = asker.send(Err(Unanswered::NotNow));
                continue;
            }
            let result = match alone.take() {
                Some(error) => Err(error),
                None => self.statement.run(std::slice::from_ref(question)).await,
            };
            let answer = match result {
                Ok(answers) => answers.into_iter().next().ok_or(Unanswered::NotNow),
                Err(error) if error.is_transient() => {
                    away = true;
                    Err(Unanswered::NotNow)
                }
                Err(error) => {
                    tracing::error!(%error, "cannot {}: this send waits", S::WHAT);
                    Err(Unanswered::Refused)
                }
            };
            let _ = asker.send(answer);
        }
    }

    /// Nothing is asked any more; who waits is told so.
    pub(super) fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        queue.asked.clear();
        self.filled.notify_one();
    }
}

/// Reads what carrying a send out needs; `None` when it has no row.
pub(super) struct Loads(pub(super) Pool);

impl Statement for Loads {
    type Question = SendKey;
    type Answer = Option<Dispatch>;

    const WHAT: &'static str = "read sends";

    async fn run(&self, questions: &[SendKey]) -> Result<Vec<Option<Dispatch>>, store::Error> {
        // All accounts of an execution are hinted at its send, so two may ask for it.
        let mut wanted: HashMap<SendId, Vec<usize>> = HashMap::with_capacity(questions.len());
        let mut keys = Vec::with_capacity(questions.len());
        for (i, key) in questions.iter().enumerate() {
            let askers = wanted.entry(key.1).or_default();
            if askers.is_empty() {
                keys.push(*key);
            }
            askers.push(i);
        }
        let mut answers = vec![None; questions.len()];
        for row in rows::load_for_dispatch(&self.0, &keys).await? {
            let Some((last, others)) = wanted.get(&row.send.id).and_then(|askers| askers.split_last()) else {
                continue;
            };
            for i in others {
                answers[*i] = Some(row.clone());
            }
            answers[*last] = Some(row);
        }
        Ok(answers)
    }
}

/// Claims sends. `None`: what came of it cannot be read, so the claim may stand and the row has to be looked at.
pub(super) struct Claims(pub(super) Pool, pub(super) LeaseView);

impl Statement for Claims {
    type Question = Claim;
    type Answer = Option<ClaimResult>;

    const WHAT: &'static str = "claim sends";

    async fn run(&self, questions: &[Claim]) -> Result<Vec<Option<ClaimResult>>, store::Error> {
        let outcomes: HashMap<SendId, ClaimResult> = match rows::claim(&self.0, &self.1, questions).await {
            Ok(outcomes) => outcomes.into_iter().map(|o| (o.send, o.result)).collect(),
            // Committed, so it must not be asked again as a statement that was refused may be.
            Err(error @ store::Error::Decode { .. }) => {
                tracing::error!(%error, sends = questions.len(), "cannot read what came of claims");
                HashMap::new()
            }
            Err(error) => return Err(error),
        };
        Ok(questions.iter().map(|c| outcomes.get(&c.send).copied()).collect())
    }
}

/// Background tasks of the runtime.
pub(super) async fn loads(shared: Arc<Shared>) {
    shared.loads.run().await;
}

/// See [`loads`].
pub(super) async fn claims(shared: Arc<Shared>) {
    shared.claims.run().await;
}
