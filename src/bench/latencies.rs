//! A histogram of durations: fixed memory, at most 1 % off, recorded from many tasks at once.
//!
//! Logarithmic with 128 linear buckets a power of two (as HdrHistogram does it): a bucket is at most 1/128 of its values
//! wide, and its middle is answered.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Linear buckets a power of two, as a power of two.
const BITS: u32 = 7;
const LINEAR: u64 = 1 << BITS;
/// Longer durations count as this: 2^41 ns, 36 min.
const LONGEST: u64 = (1 << 41) - 1;
/// Buckets: the first 128 values one each, then 128 a power of two.
const BUCKETS: usize = ((41 - BITS as usize) + 1) * LINEAR as usize;

/// See the module's text. 36 KB.
pub struct Latencies {
    buckets: Box<[AtomicU64]>,
    count: AtomicU64,
    sum: AtomicU64,
    max: AtomicU64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for Latencies {
    fn clone(&self) -> Self {
        let copy = Self::new();
        copy.add(self);
        copy
    }
}

impl std::fmt::Debug for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Latencies").field("count", &self.count()).field("max", &self.max()).finish_non_exhaustive()
    }
}

impl Latencies {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }

    /// Counts one duration. Does not block.
    pub fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min(LONGEST);
        if let Some(bucket) = self.buckets.get(index(nanos)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.sum.fetch_add(nanos, Relaxed);
        self.max.fetch_max(nanos, Relaxed);
    }

    /// Adds what another one has counted.
    pub fn add(&self, other: &Self) {
        for (mine, theirs) in self.buckets.iter().zip(&other.buckets) {
            let n = theirs.load(Relaxed);
            if n > 0 {
                mine.fetch_add(n, Relaxed);
            }
        }
        self.count.fetch_add(other.count(), Relaxed);
        self.sum.fetch_add(other.sum.load(Relaxed), Relaxed);
        self.max.fetch_max(other.max.load(Relaxed), Relaxed);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// The longest; exact.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max.load(Relaxed))
    }

    /// The mean; exact. Zero when nothing was counted.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum.load(Relaxed).checked_div(self.count()).unwrap_or(0))
    }

    /// The duration that `percent` (0 to 100) of all do not exceed, at most 0.4 % off. Zero when nothing was counted.
    pub fn percentile(&self, percent: f64) -> Duration {
        let count = self.count();
        if count == 0 {
            return Duration::ZERO;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank between 1 and the count; a count beyond 2^53 is out of reach"
        )]
        let rank = ((count as f64 * percent.clamp(0.0, 100.0) / 100.0).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        for (i, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.load(Relaxed);
            if seen >= rank {
                return Duration::from_nanos(middle(i)).min(self.max());
            }
        }
        self.max()
    }

    /// What a report shows of them: p50, p90, p99, p99.9 and the largest.
    pub fn percentiles(&self) -> [(&'static str, Duration); 5] {
        [
            ("p50", self.percentile(50.0)),
            ("p90", self.percentile(90.0)),
            ("p99", self.percentile(99.0)),
            ("p99.9", self.percentile(99.9)),
            ("max", self.max()),
        ]
    }
}

/// The bucket of a value.
fn index(nanos: u64) -> usize {
    // The highest bit above the linear part says how coarse the bucket is.
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(BITS + 1);
    let index = u64::from(shift) * LINEAR + (nanos >> shift);
    usize::try_from(index).unwrap_or(BUCKETS)
}

/// The middle of a bucket's values.
fn middle(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index / LINEAR).saturating_sub(1);
    let low = (index - shift * LINEAR) << shift;
    low + ((1 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_one_percent_of_the_exact_ones() {
        // Spread over seven powers of ten, in an order that is not sorted; the same at each run.
        let mut values: Vec<u64> = (1..=50_000_u64).map(|i| (i * i * 7919) % 9_999_999_937 + i).collect();
        let latencies = Latencies::new();
        for v in &values {
            latencies.record(Duration::from_nanos(*v));
        }
        values.sort_unstable();
        for percent in [0.0, 1.0, 10.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0] {
            let rank = ((values.len() as f64 * percent / 100.0).ceil() as usize).clamp(1, values.len());
            let (exact, found) = (values[rank - 1] as f64, latencies.percentile(percent).as_nanos() as f64);
            assert!((found - exact).abs() <= exact * 0.01, "p{percent}: {found} for {exact}");
        }
        assert_eq!(latencies.max(), Duration::from_nanos(*values.last().unwrap()));
        assert_eq!(latencies.mean(), Duration::from_nanos(values.iter().sum::<u64>() / 50_000));
    }

    #[test]
    fn small_values_are_exact_and_endless_ones_are_kept_in_bounds() {
        let latencies = Latencies::new();
        assert_eq!((latencies.count(), latencies.percentile(99.0)), (0, Duration::ZERO));
        for nanos in 0..100 {
            latencies.record(Duration::from_nanos(nanos));
        }
        assert_eq!(latencies.percentile(50.0), Duration::from_nanos(49));
        latencies.record(Duration::MAX);
        assert!(latencies.max() > Duration::from_secs(30 * 60));
        assert_eq!(latencies.percentile(100.0).as_secs() / 60, 36);
    }

    #[test]
    fn every_bucket_holds_its_own_middle() {
        for i in 0..BUCKETS {
            assert_eq!(index(middle(i)), i);
        }
        assert_eq!(index(LONGEST), BUCKETS - 1);
    }

    #[test]
    fn what_several_counted_adds_up() {
        let (a, b) = (Latencies::new(), Latencies::new());
        a.record(Duration::from_millis(1));
        b.record(Duration::from_millis(3));
        a.add(&b);
        assert_eq!((a.count(), a.max(), a.clone().mean()), (2, Duration::from_millis(3), Duration::from_millis(2)));
    }
}
