//! When an account's lists are read: a few times a day, at times that look random to the provider and are the same for us
//! whoever works them out again.

use std::time::Duration;

use super::id::AccountId;
use super::time::Timestamp;

/// How often something is done, and how irregularly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    /// It is done once in each stretch of this length.
    pub every: Duration,
    /// Somewhere in this first part of the stretch, so that two times are never nearer than the rest of it.
    pub within: Duration,
}

/// The relations of an account: four times a day, never nearer than two hours. The provider asks for a few times a day at
/// random, and never hourly or at fixed times.
pub const RELATIONS: Rhythm = Rhythm { every: Duration::from_secs(6 * 3600), within: Duration::from_secs(4 * 3600) };

/// The messages and mails of an account, which the provider serves from its own store: twice an hour.
pub const MESSAGES: Rhythm = Rhythm { every: Duration::from_secs(1800), within: Duration::from_secs(1200) };

impl Rhythm {
    /// The first time after `after`. Derived from the account and the stretch: no two accounts are in step.
    pub fn next(self, account: AccountId, after: Timestamp) -> Timestamp {
        let every = i64::try_from(self.every.as_micros()).unwrap_or(i64::MAX).max(1);
        let within = u64::try_from(self.within.min(self.every).as_micros()).unwrap_or(u64::MAX).max(1);
        let stretch = after.as_micros().div_euclid(every);
        let time = |stretch: i64| {
            // Splitmix64 over both: stable across builds, and stretches next to each other have nothing in common.
            let (high, low) = account.0.as_u64_pair();
            let mut hash = high ^ low.rotate_left(32) ^ stretch.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let offset = i64::try_from((hash ^ (hash >> 31)) % within).unwrap_or(0);
            Timestamp::from_micros(stretch.saturating_mul(every).saturating_add(offset))
        };
        // The first stretch may lie behind already.
        [time(stretch), time(stretch.saturating_add(1))].into_iter().find(|t| *t > after).unwrap_or(after + self.every)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_lie_ahead_keep_their_distance_and_are_the_same_when_worked_out_again(
            account in any::<u128>(), from in 1_600_000_000_000_000_i64..2_000_000_000_000_000,
        ) {
            let account = AccountId(uuid::Uuid::from_u128(account));
            for rhythm in [RELATIONS, MESSAGES] {
                let mut at = Timestamp::from_micros(from);
                let first = rhythm.next(account, at);
                prop_assert_eq!(first, rhythm.next(account, first - Duration::from_micros(1)));
                for n in 0..20 {
                    let next = rhythm.next(account, at);
                    prop_assert!(next > at && next.since(at) <= rhythm.every * 2);
                    if n > 0 {
                        prop_assert!(next.since(at) >= rhythm.every - rhythm.within);
                    }
                    at = next;
                }
            }
        }
    }

    #[test]
    fn a_day_has_four_scans_at_times_that_differ_by_account_and_day() {
        let day = Duration::from_secs(24 * 3600);
        let times = |account: u128, from: Timestamp| {
            let account = AccountId(uuid::Uuid::from_u128(account));
            std::iter::successors(Some(RELATIONS.next(account, from)), |t| Some(RELATIONS.next(account, *t)))
                .take_while(|t| *t <= from + day)
                .map(|t| t.since(from))
                .collect::<Vec<_>>()
        };
        let midnight = Timestamp::from_micros(1_767_571_200_000_000);
        assert_eq!(times(1, midnight).len(), 4);
        assert_ne!(times(1, midnight), times(2, midnight));
        assert_ne!(times(1, midnight), times(1, midnight + day));
    }
}
