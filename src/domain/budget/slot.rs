//! Who gets a scarce slot first.

use std::cmp::Reverse;

use crate::domain::id::ExecutionId;
use crate::domain::time::Timestamp;

/// Orders those who wait for an account, first who goes first: follow-ups before first touches (a conversation that was begun
/// is not left lying for a new one), then the higher priority, then who was due earlier. Nobody is equal to anybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotKey {
    first_touch: bool,
    priority: Reverse<i32>,
    due: Timestamp,
    execution: ExecutionId,
}

impl SlotKey {
    /// The key of an execution that waits. `first_touch`: nothing was sent to the person in this campaign yet.
    pub const fn new(first_touch: bool, priority: i32, due: Timestamp, execution: ExecutionId) -> Self {
        Self { first_touch, priority: Reverse(priority), due, execution }
    }

    /// Whose it is.
    pub const fn execution(&self) -> ExecutionId {
        self.execution
    }

    /// When it was due.
    pub const fn due(&self) -> Timestamp {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn follow_ups_go_first_then_priority_then_who_waits_longest() {
        let key = |first, priority, due, id| {
            SlotKey::new(first, priority, Timestamp::from_micros(due), ExecutionId(Uuid::from_u128(id)))
        };
        let mut line = [
            key(true, 9, 1, 1),
            key(false, 0, 5, 2),
            key(false, 1, 9, 3),
            key(false, 0, 4, 4),
            key(true, 9, 1, 0),
            key(false, -1, 0, 5),
        ];
        line.sort();
        let order: Vec<u128> = line.iter().map(|k| k.execution().0.as_u128()).collect();
        assert_eq!(order, [3, 4, 2, 5, 0, 1]);
    }
}
