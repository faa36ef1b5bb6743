//! What waits in the shards: messages to each, and works of its prospects. The actor framework does not tell.
//!
//! A shard counts what it has taken by itself; only who sends to it adds up together, and 1,024 shards are rarely sent to by two
//! threads at once.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::domain::id::SHARDS;

/// One for each shard.
#[derive(Debug)]
pub(super) struct Mailboxes(Vec<Mailbox>);

#[derive(Debug, Default)]
struct Mailbox {
    /// Messages that were sent so far.
    sent: AtomicU64,
    /// Messages that the shard has taken so far.
    taken: AtomicU64,
    /// Works of its prospects that are not done.
    works: AtomicUsize,
}

/// What waits at all shards together, and at the one where most does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Depth {
    pub(super) all: usize,
    pub(super) deepest: usize,
}

impl Depth {
    fn add(&mut self, waiting: usize) {
        self.all += waiting;
        self.deepest = self.deepest.max(waiting);
    }
}

impl Mailboxes {
    pub(super) fn new() -> Self {
        Self((0..SHARDS).map(|_| Mailbox::default()).collect())
    }

    /// A message is being sent to a shard.
    pub(super) fn sent(&self, shard: u16) {
        if let Some(mailbox) = self.0.get(usize::from(shard)) {
            mailbox.sent.fetch_add(1, Relaxed);
        }
    }

    /// A shard says how many messages it has taken so far, and how many works of its prospects are not done.
    pub(super) fn handled(&self, shard: u16, taken: u64, works: usize) {
        if let Some(mailbox) = self.0.get(usize::from(shard)) {
            mailbox.taken.store(taken, Relaxed);
            mailbox.works.store(works, Relaxed);
        }
    }

    /// Messages that were not taken, and works that are not done.
    pub(super) fn depths(&self) -> (Depth, Depth) {
        let (mut messages, mut works) = (Depth::default(), Depth::default());
        for mailbox in &self.0 {
            // Taken first: what is sent in between must not look as if it were never sent.
            let taken = mailbox.taken.load(Relaxed);
            let waiting = mailbox.sent.load(Relaxed).saturating_sub(taken);
            messages.add(usize::try_from(waiting).unwrap_or(usize::MAX));
            works.add(mailbox.works.load(Relaxed));
        }
        (messages, works)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_and_not_taken_waits_and_the_deepest_mailbox_is_named() {
        let mailboxes = Mailboxes::new();
        for (shard, sent) in [(0, 3), (7, 10), (1023, 1)] {
            (0..sent).for_each(|_| mailboxes.sent(shard));
        }
        mailboxes.handled(7, 4, 2);
        mailboxes.handled(1023, 1, 5);
        let (messages, works) = mailboxes.depths();
        assert_eq!(messages, Depth { all: 9, deepest: 6 });
        assert_eq!(works, Depth { all: 7, deepest: 5 });
    }
}
