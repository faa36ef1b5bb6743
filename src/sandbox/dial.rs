//! The sandbox's own time: that of its clock until somebody turns it, over `POST /sandbox/clock`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::time::Timestamp;

/// Where both times were read when the dial was last turned, and how fast it has run since.
#[derive(Clone, Copy)]
struct Anchor {
    clock: Timestamp,
    shown: Timestamp,
    speed: f64,
}

/// A clock that can be turned forward, sped up, and stopped.
pub(super) struct Dial {
    clock: Clock,
    anchor: Mutex<Option<Anchor>>,
}

impl Dial {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, anchor: Mutex::new(None) }
    }

    fn anchor(&self) -> Option<Anchor> {
        *self.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Timestamp {
        let now = self.clock.now();
        self.anchor().map_or(now, |a| a.shown + now.since(a.clock).mul_f64(a.speed))
    }

    /// How many times faster than its clock it runs.
    pub(super) fn speed(&self) -> f64 {
        self.anchor().map_or(1.0, |a| a.speed)
    }

    /// Turns it forward, and sets how many times faster than its clock it runs from now on; zero stops it.
    pub(super) fn turn(&self, forward: Duration, speed: Option<f64>) {
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let clock = self.clock.now();
        let (shown, old) = anchor.map_or((clock, 1.0), |a| (a.shown + clock.since(a.clock).mul_f64(a.speed), a.speed));
        *anchor = Some(Anchor { clock, shown: shown + forward, speed: speed.unwrap_or(old) });
    }

    /// Waits until it shows `at`. Somebody who turns it has to wake whoever waits.
    pub(super) async fn sleep_until(&self, at: Timestamp) {
        match self.anchor() {
            None => self.clock.sleep_until(at).await,
            Some(a) if a.speed > 0.0 => {
                // At most ten years, so that a crawling dial does not reach beyond what a duration holds.
                let wait = (at.since(a.shown).as_secs_f64() / a.speed).min(315_360_000.0);
                self.clock.sleep_until(a.clock + Duration::from_secs_f64(wait)).await;
            }
            Some(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dial_is_turned_sped_up_and_stopped() {
        let clock = Clock::manual(Timestamp::from_micros(0));
        let dial = Dial::new(clock.clone());
        let second = Duration::from_secs(1);
        clock.advance(second);
        assert_eq!(dial.now().as_micros(), 1_000_000);
        dial.turn(10 * second, Some(3.0));
        clock.advance(second);
        assert_eq!(dial.now().as_micros(), 14_000_000);
        dial.sleep_until(dial.now()).await;
        dial.turn(Duration::ZERO, Some(0.0));
        clock.advance(second);
        assert_eq!((dial.now().as_micros(), dial.speed().to_bits()), (14_000_000, 0.0_f64.to_bits()));
    }
}
