//! Uploads into one campaign take turns, in the order in which their bodies were there.
//!
//! The database serialises them as well (see `store::prospect`), but whoever waits there holds a connection. Here the next
//! one is being read while one is taken in, and of a person who is in two of them the first row is the one that is taken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::domain::id::CampaignId;

/// Who is at it, by campaign.
#[derive(Debug, Default)]
pub(crate) struct Turns(StdMutex<HashMap<CampaignId, Arc<Mutex<()>>>>);

impl Turns {
    /// Stands in the queue of a campaign from the first poll on, and ends when it is its turn.
    pub(crate) async fn queue(&self, campaign: CampaignId) -> OwnedMutexGuard<()> {
        let queue = {
            let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody stands in these any more: one a campaign of the last moments stays.
            queues.retain(|_, queue| Arc::strong_count(queue) > 1);
            Arc::clone(queues.entry(campaign).or_default())
        };
        queue.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn turns_are_taken_in_order_and_campaigns_do_not_wait_for_each_other() {
        let turns = Turns::default();
        let campaign = |n| CampaignId(uuid::Uuid::from_u128(n));
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
}
