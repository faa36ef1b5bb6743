//! Traces that go on with a send: kept from the commit that decided it until it has ended.
//!
//! Only sampled ones, so this is nearly empty, and a hint stays as small as it is. It is memory only: a send that the next
//! life of the program makes is not joined to its trace (see "Decisions" in ARCHITECTURE.md).

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::id::SendId;
use crate::telemetry::trace::Context;

/// Traces that are kept, about 100 B each. Beyond it the oldest is forgotten: its send goes on untraced.
const TRACES_MAX: usize = 10_000;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// How many there are: nearly always none, and then nobody takes the lock.
    count: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_send: HashMap<SendId, Context>,
    /// By arrival; may name some that have been forgotten.
    order: VecDeque<SendId>,
}

impl Traces {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trace that a send belongs to; without one nothing is kept.
    pub(super) fn keep(&self, send: SendId, trace: Option<Context>) {
        let Some(trace) = trace else { return };
        let mut inner = self.inner();
        if inner.by_send.insert(send, trace).is_none() {
            inner.order.push_back(send);
        }
        while inner.by_send.len() > TRACES_MAX || inner.order.len() > 2 * TRACES_MAX {
            let Some(oldest) = inner.order.pop_front() else { break };
            inner.by_send.remove(&oldest);
        }
        self.count.store(inner.by_send.len(), Relaxed);
    }

    /// The trace of a send.
    pub(super) fn of(&self, send: SendId) -> Option<Context> {
        if self.count.load(Relaxed) == 0 { None } else { self.inner().by_send.get(&send).copied() }
    }

    /// A send has ended.
    pub(super) fn forget(&self, send: SendId) {
        if self.count.load(Relaxed) > 0 {
            let mut inner = self.inner();
            inner.by_send.remove(&send);
            if inner.by_send.is_empty() {
                inner.order.clear();
            }
            self.count.store(inner.by_send.len(), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn send(n: usize) -> SendId {
        SendId(Uuid::from_u128(n as u128))
    }

    fn trace() -> Option<Context> {
        Some(Context::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap().context)
    }

    #[test]
    fn a_trace_is_kept_until_its_send_has_ended() {
        let traces = Traces::default();
        traces.keep(send(1), None);
        traces.keep(send(2), trace());
        assert_eq!((traces.of(send(1)), traces.of(send(2))), (None, trace()));
        traces.forget(send(2));
        assert_eq!(traces.of(send(2)), None);
        assert!(traces.inner().order.is_empty());
    }

    #[test]
    fn there_are_no_more_than_a_bounded_number_whatever_ends_and_whatever_does_not() {
        let traces = Traces::default();
        for n in 0..5 * TRACES_MAX {
            traces.keep(send(n), trace());
            // Every other one ends.
            if n % 2 == 0 {
                traces.forget(send(n));
            }
            let inner = traces.inner();
            assert!(inner.by_send.len() <= TRACES_MAX && inner.order.len() <= 2 * TRACES_MAX);
        }
        assert_eq!(traces.of(send(5 * TRACES_MAX - 1)), trace());
        assert_eq!(traces.of(send(1)), None);
    }
}
