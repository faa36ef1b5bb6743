//! Uploads into one campaign enter in the order in which their bodies were there, two at a time, and never two at once that
//! have a person in common.
//!
//! So the two cannot find each other's people absent, and of a person who is in both the first row is the one that is taken.
//! Across processes the database sees to that (`store::upload`). Whoever waits there would hold a connection; here the next one
//! is being read meanwhile.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex, Notify, OwnedMutexGuard};

use crate::domain::id::CampaignId;

/// Uploads into one campaign that are taken in at once: one backend of Postgres is busy with each.
const INSIDE_MAX: usize = 2;

/// Who is at it, by campaign.
#[derive(Debug, Default)]
pub(crate) struct Turns(StdMutex<HashMap<CampaignId, Arc<Queue>>>);

#[derive(Debug, Default)]
struct Queue {
    /// Held by the one who is next.
    door: Arc<Mutex<()>>,
    inside: StdMutex<Vec<Arc<Keys>>>,
    left: Notify,
}

impl Turns {
    /// Stands in the queue of a campaign from the first poll on, and ends when it is next.
    pub(crate) async fn queue(&self, campaign: CampaignId) -> Turn {
        let queue = {
            let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody stands in these any more: one a campaign of the last moments stays.
            queues.retain(|_, queue| Arc::strong_count(queue) > 1);
            Arc::clone(queues.entry(campaign).or_default())
        };
        let door = Arc::clone(&queue.door).lock_owned().await;
        Turn { queue, door }
    }
}

/// Being next.
#[derive(Debug)]
pub(crate) struct Turn {
    queue: Arc<Queue>,
    door: OwnedMutexGuard<()>,
}

impl Turn {
    /// Goes in with people of these keys, once there is room and nobody inside has one of them.
    pub(crate) async fn enter(self, keys: Keys) -> Inside {
        let keys = Arc::new(keys);
        while !self.queue.admit(&keys) {
            self.queue.left.notified().await;
        }
        drop(self.door);
        Inside { queue: self.queue, keys }
    }
}

/// What people are known by, as hashes: two that are equal by chance cost a wait.
#[derive(Debug)]
pub(crate) struct Keys(HashSet<u64>);

impl<'a> FromIterator<(&'static str, &'a str)> for Keys {
    /// Of columns and values.
    fn from_iter<I: IntoIterator<Item = (&'static str, &'a str)>>(keys: I) -> Self {
        let hash = |key: (&str, &str)| {
            let mut hasher = DefaultHasher::new();
            key.hash(&mut hasher);
            hasher.finish()
        };
        Self(keys.into_iter().map(hash).collect())
    }
}

/// Being taken in; over when it is dropped.
#[derive(Debug)]
pub(crate) struct Inside {
    queue: Arc<Queue>,
    keys: Arc<Keys>,
}

impl Queue {
    fn inside(&self) -> MutexGuard<'_, Vec<Arc<Keys>>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, keys: &Arc<Keys>) -> bool {
        let mut inside = self.inside();
        let fits = inside.len() < INSIDE_MAX && inside.iter().all(|others| others.0.is_disjoint(&keys.0));
        if fits {
            inside.push(Arc::clone(keys));
        }
        fits
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.queue.inside().retain(|keys| !Arc::ptr_eq(keys, &self.keys));
        // Whoever is next waits, or will look before it waits: one permit is enough.
        self.queue.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn campaign(n: u128) -> CampaignId {
        CampaignId(uuid::Uuid::from_u128(n))
    }

    fn mail(address: &str) -> Keys {
        std::iter::once(("email", address)).collect()
    }

    #[tokio::test]
    async fn turns_are_taken_in_order_and_campaigns_do_not_wait_for_each_other() {
        let turns = Turns::default();
        let first = turns.queue(campaign(1)).await;
        let mut second = Box::pin(turns.queue(campaign(1)));
        assert!(second.as_mut().now_or_never().is_none());
        let mut third = Box::pin(turns.queue(campaign(1)));
        assert!(third.as_mut().now_or_never().is_none());
        drop(turns.queue(campaign(2)).now_or_never().unwrap());
        drop(first);
        assert!(third.as_mut().now_or_never().is_none());
        drop(second.await);
        drop(third.await);
        drop(turns.queue(campaign(3)).await);
        assert_eq!(turns.0.lock().unwrap().len(), 1, "queues that nobody stands in are forgotten");
    }

    #[tokio::test]
    async fn two_uploads_are_inside_at_once_unless_they_have_somebody_in_common() {
        let turns = Turns::default();
        let ada = turns.queue(campaign(1)).await.enter(mail("ada@example.com")).await;
        let bela = turns.queue(campaign(1)).await.enter(mail("bela@example.com")).now_or_never().unwrap();
        let mut third = Box::pin(turns.queue(campaign(1)).await.enter(mail("cleo@example.com")));
        assert!(third.as_mut().now_or_never().is_none(), "a third waits for room");
        drop(bela);
        let third = third.now_or_never().unwrap();
        drop(third);
        let mut again = Box::pin(turns.queue(campaign(1)).await.enter(mail("ada@example.com")));
        assert!(again.as_mut().now_or_never().is_none(), "the same person waits for the first of them");
        assert!(turns.queue(campaign(1)).now_or_never().is_none(), "nobody overtakes who waits");
        drop(ada);
        again.now_or_never().unwrap();
    }
}
