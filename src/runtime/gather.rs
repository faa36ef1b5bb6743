//! Between those who ask for one row and the store: what they ask for one by one goes to Postgres together.
//!
//! A send costs a read and a claim, and an account has one job at a time; a fact costs a look-up. Alone each would be a
//! statement of its own. Here
//! whatever was asked while the last statement ran shares the next one (no fixed delay: a lone job waits for nobody).
//! Whoever asks is answered, or told that there is no answer and to look at the row again: also when the statement failed,
//! its task crashed, or the runtime stops.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::shared::Shared;
use crate::domain::id::SendId;
use crate::store::identity::{self, Found, Wanted};
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
    /// Which, and whether what its account has done lately is wanted as well.
    type Question = (SendKey, bool);
    type Answer = Option<Dispatch>;

    const WHAT: &'static str = "read sends";

    async fn run(&self, questions: &[(SendKey, bool)]) -> Result<Vec<Option<Dispatch>>, store::Error> {
        // All accounts of an execution are hinted at its send, so two may ask for it.
        let mut wanted: HashMap<SendId, Vec<usize>> = HashMap::with_capacity(questions.len());
        let mut keys: Vec<(SendKey, bool)> = Vec::with_capacity(questions.len());
        for (i, (key, budgeted)) in questions.iter().enumerate() {
            let askers = wanted.entry(key.1).or_default();
            if askers.is_empty() {
                keys.push((*key, *budgeted));
            } else if *budgeted && let Some(asked) = keys.iter_mut().find(|(asked, _)| asked == key) {
                asked.1 = true;
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

/// Finds whom facts are about.
pub(super) struct Finds(pub(super) Pool);

impl Statement for Finds {
    type Question = Wanted;
    type Answer = Found;

    const WHAT: &'static str = "find whom facts are about";

    async fn run(&self, questions: &[Wanted]) -> Result<Vec<Found>, store::Error> {
        identity::find_executions(&self.0, questions).await
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

/// See [`loads`].
pub(super) async fn finds(shared: Arc<Shared>) {
    shared.finds.run().await;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::sync::Semaphore;
    use tokio::task::JoinSet;

    use super::*;

    const REFUSED: u32 = 13;
    const AWAY: u32 = 99;
    const CRASH: u32 = 666;

    /// Doubles numbers, but for some.
    struct Doubles {
        /// One permit a statement.
        gate: Semaphore,
        ran: Mutex<Vec<Vec<u32>>>,
    }

    impl Statement for Doubles {
        type Question = u32;
        type Answer = u32;

        const WHAT: &'static str = "double numbers";

        async fn run(&self, questions: &[u32]) -> Result<Vec<u32>, store::Error> {
            self.gate.acquire().await.unwrap().forget();
            self.ran.lock().unwrap().push(questions.to_vec());
            assert!(!questions.contains(&CRASH), "injected");
            if questions.contains(&AWAY) {
                // Nobody listens there, which is an error that goes away by itself.
                return Err(store::connect("postgres://u:p@127.0.0.1:1/x", 1).await.unwrap_err());
            }
            if questions.contains(&REFUSED) {
                return Err(store::Error::Conflict { what: "number", id: String::new() });
            }
            Ok(questions.iter().map(|n| n * 2).collect())
        }
    }

    type Answers = BTreeMap<u32, Result<u32, Unanswered>>;

    /// Asks for these and runs a gatherer over them, which may do that many statements; asked before it runs, so together.
    async fn asked(gatherer: &Arc<Gatherer<Doubles>>, numbers: &[u32], statements: usize) -> Answers {
        let mut asking = JoinSet::new();
        for n in numbers.iter().copied() {
            let gatherer = Arc::clone(gatherer);
            asking.spawn(async move { (n, gatherer.ask(n).await) });
        }
        while gatherer.queue().asked.len() < numbers.len() {
            tokio::task::yield_now().await;
        }
        gatherer.statement.gate.add_permits(statements);
        let run = tokio::spawn({
            let gatherer = Arc::clone(gatherer);
            async move { gatherer.run().await }
        });
        let mut answers = BTreeMap::new();
        while let Some(answered) = asking.join_next().await {
            answers.extend([answered.unwrap()]);
        }
        run.abort();
        answers
    }

    fn gatherer() -> Arc<Gatherer<Doubles>> {
        Arc::new(Gatherer::new(Doubles { gate: Semaphore::new(0), ran: Mutex::default() }))
    }

    fn ran(gatherer: &Gatherer<Doubles>) -> Vec<Vec<u32>> {
        gatherer.statement.ran.lock().unwrap().clone()
    }

    #[tokio::test]
    async fn what_was_asked_meanwhile_shares_a_statement_and_each_gets_its_own_answer() {
        let gatherer = gatherer();
        let numbers: Vec<u32> = (1000..1600).collect();
        let answers = asked(&gatherer, &numbers, 2).await;
        assert_eq!(answers, numbers.iter().map(|n| (*n, Ok(n * 2))).collect());
        assert_eq!(ran(&gatherer).iter().map(Vec::len).collect::<Vec<_>>(), [BATCH_MAX, 600 - BATCH_MAX]);
    }

    #[tokio::test]
    async fn one_that_is_refused_leaves_its_neighbours_their_answers() {
        let gatherer = gatherer();
        let answers = asked(&gatherer, &[12, REFUSED, 14], 4).await;
        assert_eq!(answers, [(12, Ok(24)), (REFUSED, Err(Unanswered::Refused)), (14, Ok(28))].into());
        assert_eq!(ran(&gatherer), [vec![12, REFUSED, 14], vec![12], vec![REFUSED], vec![14]]);
        // Alone it is not asked twice.
        assert_eq!(asked(&gatherer, &[REFUSED], 1).await, [(REFUSED, Err(Unanswered::Refused))].into());
    }

    #[tokio::test]
    async fn while_postgres_is_away_all_are_told_to_look_again_after_one_try() {
        let gatherer = gatherer();
        let answers = asked(&gatherer, &[1, AWAY, 2], 1).await;
        assert_eq!(answers, [1, 2, AWAY].map(|n| (n, Err(Unanswered::NotNow))).into());
    }

    #[tokio::test]
    async fn nobody_waits_for_ever_when_the_task_crashes_and_the_next_run_answers_the_others() {
        let gatherer = gatherer();
        let answers = asked(&gatherer, &[1, CRASH], 1).await;
        assert_eq!(answers, [1, CRASH].map(|n| (n, Err(Unanswered::NotNow))).into());
        assert_eq!(asked(&gatherer, &[1, 2], 1).await, [(1, Ok(2)), (2, Ok(4))].into());
    }

    #[tokio::test]
    async fn when_the_runtime_stops_those_who_wait_and_those_who_come_are_told() {
        let gatherer = gatherer();
        let waiting = tokio::spawn({
            let gatherer = Arc::clone(&gatherer);
            async move { gatherer.ask(1).await }
        });
        while gatherer.queue().asked.is_empty() {
            tokio::task::yield_now().await;
        }
        gatherer.close();
        assert_eq!(waiting.await.unwrap(), Err(Unanswered::NotNow));
        assert_eq!(gatherer.ask(2).await, Err(Unanswered::NotNow));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_done() {
        let gatherer = gatherer();
        let gone = tokio::spawn({
            let gatherer = Arc::clone(&gatherer);
            async move { gatherer.ask(1).await }
        });
        while gatherer.queue().asked.is_empty() {
            tokio::task::yield_now().await;
        }
        gone.abort();
        assert!(gone.await.is_err());
        gatherer.statement.gate.add_permits(1);
        let run = tokio::spawn({
            let gatherer = Arc::clone(&gatherer);
            async move { gatherer.run().await }
        });
        assert_eq!(gatherer.ask(2).await, Ok(4));
        assert_eq!(ran(&gatherer), [vec![2]]);
        run.abort();
    }
}
