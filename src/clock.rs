//! The one door to time. Only this file reads the operating system's clock.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::time::Timestamp;

/// Longest single sleep: a wall-clock jump is noticed after this long at the latest.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// Where the program gets the time from. Cheap to clone; clones show the same time.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The operating system's wall clock.
    System,
    /// Runs `speed` times faster than the wall clock since `origin`, where both showed the same. Processes that are given
    /// the same two numbers show the same time, also after a restart.
    Scaled {
        /// Where both clocks showed the same.
        origin: Timestamp,
        /// Seconds of this clock in one real second; more than zero.
        speed: f64,
    },
    /// Moves only when told to: for tests.
    Manual(Arc<watch::Sender<Timestamp>>),
}

impl Clock {
    /// A clock that runs `speed` times faster from now on.
    pub fn scaled_from_now(speed: f64) -> Self {
        Self::Scaled { origin: wall(), speed }
    }

    /// A clock that stands at `start` until it is advanced.
    pub fn manual(start: Timestamp) -> Self {
        Self::Manual(Arc::new(watch::Sender::new(start)))
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => wall(),
            Self::Scaled { origin, speed } => {
                let real = wall().as_micros() - origin.as_micros();
                // Microseconds since the origin: exact in f64 for the next 285 years.
                #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "see above")]
                let scaled = (real as f64 * speed) as i64;
                Timestamp::from_micros(origin.as_micros().saturating_add(scaled))
            }
            Self::Manual(at) => *at.borrow(),
        }
    }

    /// Moves a manual clock forward. Does nothing to the others.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(at) = self {
            at.send_modify(|t| *t = *t + by);
        }
    }

    /// How long a stretch of this clock's time takes in real time. A manual clock answers zero: it takes no time at all.
    pub fn real(&self, stretch: Duration) -> Duration {
        match self {
            Self::System => stretch,
            Self::Scaled { speed, .. } => stretch.div_f64(speed.max(f64::MIN_POSITIVE)),
            Self::Manual(_) => Duration::ZERO,
        }
    }

    /// Seconds of this clock in one real second; a manual clock answers 1.
    pub const fn scale(&self) -> f64 {
        match self {
            Self::Scaled { speed, .. } => *speed,
            Self::System | Self::Manual(_) => 1.0,
        }
    }

    /// What this clock will show after a stretch of real time.
    pub fn after_real(&self, stretch: Duration) -> Timestamp {
        self.now() + stretch.mul_f64(self.scale())
    }

    /// Waits until this clock shows `at`. Looks at the clock again every 30 s, so that a jump of the wall clock does not
    /// leave a sleeper behind.
    pub async fn sleep_until(&self, at: Timestamp) {
        if let Self::Manual(time) = self {
            // The sender lives in `self`, so the wait cannot fail.
            let _ = time.subscribe().wait_for(|t| *t >= at).await;
            return;
        }
        loop {
            let now = self.now();
            if now >= at {
                return;
            }
            let wait = self.real(at.since(now)).clamp(Duration::from_micros(1), SLEEP_MAX);
            tokio::time::sleep_until(Instant::now() + wait).await;
        }
    }
}

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
fn wall() -> Timestamp {
    chrono::Utc::now().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scaled_clock_runs_faster_from_its_origin() {
        let origin = wall() - Duration::from_secs(10);
        let clock = Clock::Scaled { origin, speed: 360.0 };
        let shown = clock.now().since(origin).as_secs_f64();
        assert!((3600.0..3700.0).contains(&shown), "{shown} s");
        assert_eq!(clock.real(Duration::from_secs(3600)), Duration::from_secs(10));
    }

    #[tokio::test]
    async fn a_manual_clock_wakes_its_sleepers_when_it_is_moved() {
        let start = Timestamp::from_micros(0);
        let clock = Clock::manual(start);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(start + Duration::from_secs(5)).await }
        });
        clock.advance(Duration::from_secs(5));
        sleeper.await.unwrap();
        assert_eq!(clock.now(), start + Duration::from_secs(5));
    }
}
