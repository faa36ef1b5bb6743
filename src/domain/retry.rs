//! How long to wait before trying again.

use std::time::Duration;

use super::id::ExecutionId;

/// Tries of one step before it counts as failed.
pub const ATTEMPTS_MAX: u32 = 5;

/// The wait before attempt `attempt + 1` of a step: one minute, doubled each time, at most six hours, spread by up to a
/// fifth either way. The spread derives from its arguments: the same decision taken again gives the same instant.
pub fn backoff(execution: ExecutionId, step: u32, attempt: u32) -> Duration {
    let base = Duration::from_secs(60).saturating_mul(1 << attempt.clamp(1, 10).saturating_sub(1));
    let base = base.min(Duration::from_secs(6 * 3600));
    // FNV-1a over the arguments: stable across builds, unlike std's hasher.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in execution.0.as_bytes().iter().chain(&step.to_be_bytes()).chain(&attempt.to_be_bytes()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let permille = 800 + u32::try_from((hash >> 20) % 401).unwrap_or(0);
    base * permille / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_is_bounded_and_stays_within_a_fifth() {
        let execution = ExecutionId(uuid::Uuid::from_u128(42));
        for (attempt, base) in [(1, 60), (2, 120), (3, 240), (4, 480), (9, 15360), (40, 21600)] {
            let wait = backoff(execution, 1, attempt).as_secs_f64();
            let base = f64::from(base);
            assert!((base * 0.8..=base * 1.2).contains(&wait), "attempt {attempt}: {wait} s");
        }
        assert_eq!(backoff(execution, 1, 1), backoff(execution, 1, 1));
    }
}
