//! What goes on with a send: kept from the commit that decided it until it has ended.
//!
//! Traces, of which only sampled ones are kept, and when the facts came that led to sends. So there is little of it, and a hint
//! stays as small as it is. It is memory only: a send that the next life of the program makes has neither (see "Decisions" in
//! ARCHITECTURE.md).

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::id::SendId;

/// How many are kept, about 100 B each. Beyond it the oldest is forgotten.
const KEPT_MAX: usize = 10_000;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Kept<T>(Mutex<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    by_send: HashMap<SendId, T>,
    /// By arrival; may name some that have been forgotten.
    order: VecDeque<SendId>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::new(Inner { by_send: HashMap::new(), order: VecDeque::new() }))
    }
}

impl<T: Copy> Kept<T> {
    fn inner(&self) -> MutexGuard<'_, Inner<T>> {
        // Nothing in here panics half way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What belongs to a send; without it nothing is kept.
    pub(super) fn keep(&self, send: SendId, what: Option<T>) {
        let Some(what) = what else { return };
        let mut inner = self.inner();
        if inner.by_send.insert(send, what).is_none() {
            inner.order.push_back(send);
        }
        while inner.by_send.len() > KEPT_MAX || inner.order.len() > 2 * KEPT_MAX {
            let Some(oldest) = inner.order.pop_front() else { break };
            inner.by_send.remove(&oldest);
        }
    }

    /// What was kept for a send.
    pub(super) fn of(&self, send: SendId) -> Option<T> {
        self.inner().by_send.get(&send).copied()
    }

    /// A send has ended. Answers what was kept for it.
    pub(super) fn forget(&self, send: SendId) -> Option<T> {
        let mut inner = self.inner();
        let forgotten = inner.by_send.remove(&send);
        if inner.by_send.is_empty() {
            inner.order.clear();
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn send(n: usize) -> SendId {
        SendId(Uuid::from_u128(n as u128))
    }

    #[test]
    fn what_belongs_to_a_send_is_kept_until_it_has_ended() {
        let kept = Kept::default();
        kept.keep(send(1), None);
        kept.keep(send(2), Some('b'));
        assert_eq!((kept.of(send(1)), kept.of(send(2))), (None, Some('b')));
        assert_eq!((kept.forget(send(2)), kept.of(send(2))), (Some('b'), None));
        assert!(kept.inner().order.is_empty());
    }

    #[test]
    fn there_is_no_more_than_a_bounded_number_whatever_ends_and_whatever_does_not() {
        let kept = Kept::default();
        for n in 0..5 * KEPT_MAX {
            kept.keep(send(n), Some(n));
            // Every other one ends.
            if n % 2 == 0 {
                kept.forget(send(n));
            }
            let inner = kept.inner();
            assert!(inner.by_send.len() <= KEPT_MAX && inner.order.len() <= 2 * KEPT_MAX);
        }
        assert_eq!(kept.of(send(5 * KEPT_MAX - 1)), Some(5 * KEPT_MAX - 1));
        assert_eq!(kept.of(send(1)), None);
    }
}
