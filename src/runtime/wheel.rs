//! A timer wheel: who has to be woken when. 27 bytes an entry.

use std::collections::BTreeSet;

use crate::domain::id::ExecutionId;
use crate::domain::time::Timestamp;

/// Wake-ups, ordered by time.
#[derive(Debug, Default)]
pub(super) struct Wheel {
    entries: BTreeSet<(Timestamp, ExecutionId)>,
}

impl Wheel {
    /// Puts an execution's wake-up at `to`, taking the earlier one out.
    pub(super) fn arm(&mut self, execution: ExecutionId, from: Option<Timestamp>, to: Option<Timestamp>) {
        if let Some(at) = from {
            self.entries.remove(&(at, execution));
        }
        if let Some(at) = to {
            self.entries.insert((at, execution));
        }
    }

    /// The earliest wake-up.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.entries.first().map(|(at, _)| *at)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Everybody in it, the latest wake-up first.
    pub(super) fn latest_first(&self) -> impl Iterator<Item = ExecutionId> {
        self.entries.iter().rev().map(|(_, execution)| *execution)
    }

    /// Takes out the earliest entry if it is due.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<(Timestamp, ExecutionId)> {
        let first = *self.entries.first()?;
        if first.0 > now {
            return None;
        }
        self.entries.pop_first()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn wake_ups_come_out_oldest_first_and_a_re_armed_one_only_at_its_new_time() {
        let (a, b) = (ExecutionId(uuid::Uuid::from_u128(1)), ExecutionId(uuid::Uuid::from_u128(2)));
        let t = |s| Timestamp::from_micros(0) + Duration::from_secs(s);
        let mut wheel = Wheel::default();
        wheel.arm(a, None, Some(t(10)));
        wheel.arm(b, None, Some(t(5)));
        wheel.arm(a, Some(t(10)), Some(t(3)));
        assert_eq!(wheel.next(), Some(t(3)));
        assert_eq!(wheel.pop_due(t(2)), None);
        assert_eq!(wheel.pop_due(t(20)), Some((t(3), a)));
        assert_eq!(wheel.pop_due(t(20)), Some((t(5), b)));
        assert_eq!(wheel.pop_due(t(20)), None);
        wheel.arm(b, None, Some(t(1)));
        wheel.arm(b, Some(t(1)), None);
        assert_eq!(wheel.next(), None);
    }
}
