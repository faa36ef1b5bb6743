//! Open-loop load: operations start by a timetable, not when the one before has been answered.
//!
//! A latency counts from when its operation should have started. So a system that stalls for a second is charged for
//! everything that would have come in that second, and a generator that is late itself makes the figures worse, never
//! better; how late it was is reported as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot, watch};

use super::{Error, Latencies, Series, Unit};

/// Sleeping is about this late; the rest of the wait is spun away.
const SPIN: Duration = Duration::from_micros(80);

/// A timetable.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Operations a second, evenly spread.
    pub per_second: f64,
    /// For how long they are started.
    pub lasts: Duration,
    /// Operations that may be unanswered at once. When it is reached, the next ones start late, and that counts.
    pub in_flight_max: u32,
    /// How long the last ones are waited for after the end.
    pub patience: Duration,
}

impl Plan {
    /// With 100,000 operations in flight at most, and half a minute of patience.
    pub const fn new(per_second: f64, lasts: Duration) -> Self {
        Self { per_second, lasts, in_flight_max: 100_000, patience: Duration::from_secs(30) }
    }

    /// How many operations are started.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of operations")]
    pub fn operations(&self) -> u64 {
        (self.per_second * self.lasts.as_secs_f64()).floor() as u64
    }

    /// When an operation should start, after the first.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 operations")]
    fn offset(&self, operation: u64) -> Duration {
        Duration::from_secs_f64(operation as f64 / self.per_second)
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Now.
    Now,
    /// It was over then: seen by somebody who had no time to say so.
    At(Instant),
    /// It did not do what it should: counted, not timed.
    Failed,
}

/// What came of a load.
#[derive(Debug)]
pub struct Load {
    /// From when each operation should have started until it was over.
    pub latencies: Latencies,
    /// How late the generator started them.
    pub lateness: Latencies,
    /// Operations started.
    pub started: u64,
    /// Operations that failed.
    pub failed: u64,
    /// Operations not over when patience ended.
    pub unanswered: u64,
    /// Operations that had to wait because too many were unanswered.
    pub held_back: u64,
    /// From the first start to the last answer.
    pub took: Duration,
    /// Answers a second.
    pub answered: Series,
}

struct Shared {
    latencies: Latencies,
    lateness: Latencies,
    failed: AtomicU64,
    held_back: AtomicU64,
    over: AtomicU64,
    by_second: Vec<AtomicU64>,
    /// Nanoseconds after the beginning.
    last: AtomicU64,
}

/// Starts operations by a timetable, from a thread of its own, and waits until they are over. `operation` gets its number
/// (from 0) and when it should have started, and runs as a task of its own.
///
/// # Errors
/// [`Error::Cancelled`] when `cancel` turns true; [`Error::Io`] when there is no thread to be had.
pub async fn open_loop<F, T>(plan: Plan, cancel: watch::Receiver<bool>, operation: F) -> Result<Load, Error>
where
    F: Fn(u64, Instant) -> T + Send + 'static,
    T: Future<Output = Done> + Send + 'static,
{
    let seconds = (plan.lasts + plan.patience).as_secs() + 2;
    let shared = Arc::new(Shared {
        latencies: Latencies::new(),
        lateness: Latencies::new(),
        failed: AtomicU64::new(0),
        held_back: AtomicU64::new(0),
        over: AtomicU64::new(0),
        by_second: (0..seconds).map(|_| AtomicU64::new(0)).collect(),
        last: AtomicU64::new(0),
    });
    let (ended, end) = oneshot::channel();
    let slots = Arc::new(Semaphore::new(usize::try_from(plan.in_flight_max).unwrap_or(usize::MAX)));
    let generator = Generator { plan, cancel: cancel.clone(), shared: Arc::clone(&shared), slots: Arc::clone(&slots) };
    let handle = Handle::current();
    thread::Builder::new()
        .name("bench-load".to_owned())
        .spawn(move || {
            // Nobody hears it when the one who asked has gone.
            let _ = ended.send(generator.run(&handle, &operation));
        })
        .map_err(Error::io("starting a thread for the load"))?;
    // A generator that panicked has said why.
    let started = end.await.map_err(|_| Error::Refused("the load generator crashed".to_owned()))?;
    if *cancel.borrow() {
        return Err(Error::Cancelled);
    }
    let all = slots.acquire_many(plan.in_flight_max);
    let patience = tokio::time::timeout(plan.patience, all);
    let mut stop = cancel;
    tokio::select! {
        _ = patience => {}
        Ok(_) = stop.wait_for(|cancelled| *cancelled) => return Err(Error::Cancelled),
    }
    Ok(shared.load(started))
}

impl Shared {
    fn over(&self, begun: Instant, scheduled: Instant, done: Done) {
        let at = match done {
            Done::Now => Instant::now(),
            Done::At(at) => at,
            Done::Failed => {
                self.failed.fetch_add(1, Relaxed);
                self.over.fetch_add(1, Relaxed);
                return;
            }
        };
        self.latencies.record(at.saturating_duration_since(scheduled));
        let since = at.saturating_duration_since(begun);
        if let Some(second) = usize::try_from(since.as_secs()).ok().and_then(|s| self.by_second.get(s)) {
            second.fetch_add(1, Relaxed);
        }
        self.last.fetch_max(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.over.fetch_add(1, Relaxed);
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a second, for a plot")]
    fn load(&self, started: u64) -> Load {
        let took = Duration::from_nanos(self.last.load(Relaxed));
        let points = self.by_second.iter().take(usize::try_from(took.as_secs()).unwrap_or(0));
        let points = points.enumerate().map(|(s, n)| (s as f64, n.load(Relaxed) as f64)).collect();
        Load {
            latencies: self.latencies.clone(),
            lateness: self.lateness.clone(),
            started,
            failed: self.failed.load(Relaxed),
            unanswered: started.saturating_sub(self.over.load(Relaxed)),
            held_back: self.held_back.load(Relaxed),
            took,
            answered: Series { name: "answered".to_owned(), unit: Unit::PerSecond, points },
        }
    }
}

struct Generator {
    plan: Plan,
    cancel: watch::Receiver<bool>,
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
}

impl Generator {
    /// Answers how many were started.
    fn run<F, T>(&self, runtime: &Handle, operation: &F) -> u64
    where
        F: Fn(u64, Instant) -> T,
        T: Future<Output = Done> + Send + 'static,
    {
        let begun = Instant::now();
        let mut started = 0;
        for number in 0..self.plan.operations() {
            let scheduled = begun + self.plan.offset(number);
            wait_until(scheduled);
            if *self.cancel.borrow() {
                break;
            }
            let slot = Arc::clone(&self.slots).try_acquire_owned().or_else(|_| {
                self.shared.held_back.fetch_add(1, Relaxed);
                runtime.block_on(Arc::clone(&self.slots).acquire_owned())
            });
            // The semaphore is never closed.
            let Ok(slot) = slot else { break };
            self.shared.lateness.record(scheduled.elapsed());
            let (running, shared) = (operation(number, scheduled), Arc::clone(&self.shared));
            runtime.spawn(async move {
                let done = running.await;
                shared.over(begun, scheduled, done);
                drop(slot);
            });
            started += 1;
        }
        started
    }
}

/// Sleeping alone is late by a tenth of a millisecond; spinning alone would cost a core.
fn wait_until(at: Instant) {
    loop {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if left > SPIN { thread::sleep(left - SPIN) } else { std::hint::spin_loop() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never() -> watch::Receiver<bool> {
        watch::channel(false).1
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stall_is_charged_to_everything_that_was_due_meanwhile() {
        // One at a time, and the first takes 200 ms: the ones that were due meanwhile start late.
        let plan = Plan { in_flight_max: 1, ..Plan::new(100.0, Duration::from_millis(400)) };
        let load = open_loop(plan, never(), |number, _| async move {
            if number == 0 {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Done::Now
        })
        .await
        .unwrap();
        assert_eq!((load.started, load.failed, load.unanswered), (40, 0, 0));
        assert!(load.held_back >= 1);
        // Half of them were due while nothing could start; the one at 150 ms waited for 50.
        assert!(load.latencies.percentile(65.0) >= Duration::from_millis(30), "{:?}", load.latencies.percentile(65.0));
        assert!(load.latencies.max() >= Duration::from_millis(200));
        assert!(load.lateness.max() >= Duration::from_millis(150));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn answers_do_not_slow_the_timetable_and_are_timed_from_it() {
        let plan = Plan::new(200.0, Duration::from_millis(250));
        let scheduled_latency = Duration::from_millis(30);
        let load = open_loop(plan, never(), move |number, scheduled| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            match number {
                7 => Done::Failed,
                _ => Done::At(scheduled + scheduled_latency),
            }
        })
        .await
        .unwrap();
        // Fifty of 100 ms each take 5 s one after the other.
        assert_eq!((load.started, load.failed, load.held_back), (50, 1, 0));
        assert_eq!(load.latencies.count(), 49);
        assert_eq!(load.latencies.max(), scheduled_latency);
        assert!(load.took < Duration::from_secs(4));
    }

    #[tokio::test]
    async fn what_is_never_answered_is_counted_and_a_cancelled_load_ends() {
        let plan = Plan { patience: Duration::from_millis(50), ..Plan::new(100.0, Duration::from_millis(50)) };
        let load = open_loop(plan, never(), |number, _| async move {
            if number == 2 {
                std::future::pending::<()>().await;
            }
            Done::Now
        })
        .await
        .unwrap();
        assert_eq!((load.started, load.unanswered), (5, 1));

        let (cancel, cancelled) = watch::channel(false);
        let plan = Plan::new(1.0, Duration::from_secs(3600));
        let running = tokio::spawn(open_loop(plan, cancelled, move |_, _| {
            cancel.send_replace(true);
            async { Done::Now }
        }));
        assert!(matches!(running.await.unwrap(), Err(Error::Cancelled)));
    }
}
