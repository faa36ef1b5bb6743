//! How long to wait before trying again, and whom a failure is counted against.

use std::time::Duration;

use super::id::ExecutionId;
use super::send::{FailureClass, SendOutcome};

/// Tries of one step before it counts as failed.
pub const ATTEMPTS_MAX: u32 = 5;
/// Longest rest of an account whose provider is in trouble: how late it may go on when that is over.
const REST_MAX: Duration = Duration::from_secs(3600);

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

/// Whether an outcome says that the provider is in trouble. Every other one shows that it works.
pub const fn is_trouble(outcome: &SendOutcome) -> bool {
    matches!(outcome, SendOutcome::Unknown { .. } | SendOutcome::Failed { class: FailureClass::Unavailable, .. })
}

/// How long an account rests after an outcome that was its `streak`-th trouble in a row: as in [`backoff`], at most an hour.
/// One answer alone that is lost is no trouble yet. LinkedIn's limits show as such errors, too.
pub fn rest(outcome: &SendOutcome, execution: ExecutionId, step: u32, streak: u32) -> Option<Duration> {
    let counted = match outcome {
        SendOutcome::Failed { class: FailureClass::Unavailable, .. } => streak,
        SendOutcome::Unknown { .. } => streak.saturating_sub(1),
        SendOutcome::Sent | SendOutcome::Failed { .. } | SendOutcome::NotSent | SendOutcome::Unresolved { .. } => 0,
    };
    (counted > 0).then(|| backoff(execution, step, counted).min(REST_MAX))
}

/// What it means that the provider was not up to a call, the `tries`-th of one send, after `streak` troubles of the account in
/// a row: the prospect keeps its place. Unless what the account does for others gets through, and this never: then it has to do
/// with this prospect, and costs a try.
pub const fn unavailable(streak: u32, tries: u32) -> FailureClass {
    if streak == 0 && tries >= ATTEMPTS_MAX { FailureClass::RetryLater } else { FailureClass::Unavailable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_rests_longer_with_each_trouble_and_never_for_long() {
        let execution = ExecutionId(uuid::Uuid::from_u128(42));
        let failed = |class| SendOutcome::Failed { class, error: "x".to_owned() };
        let lost = SendOutcome::Unknown { error: "x".to_owned() };
        let rest = |outcome: &SendOutcome, streak| rest(outcome, execution, 1, streak);
        let down = failed(FailureClass::Unavailable);
        let rests: Vec<_> = (1..=20).map(|streak| rest(&down, streak).unwrap()).collect();
        assert!(rests.is_sorted() && rests[0] < rests[1], "{rests:?}");
        assert_eq!(rests[19], REST_MAX);
        assert_eq!((rest(&lost, 1), rest(&lost, 2)), (None, Some(rests[0])));
        for fine in [SendOutcome::Sent, SendOutcome::NotSent, failed(FailureClass::Rejected)] {
            assert_eq!((is_trouble(&fine), rest(&fine, 9)), (false, None));
        }
        assert!(is_trouble(&down) && is_trouble(&lost));
    }

    #[test]
    fn what_fails_for_one_prospect_alone_costs_it_a_try_in_the_end() {
        assert_eq!(unavailable(0, ATTEMPTS_MAX - 1), FailureClass::Unavailable);
        assert_eq!(unavailable(0, ATTEMPTS_MAX), FailureClass::RetryLater);
        assert_eq!(unavailable(1, 1000), FailureClass::Unavailable, "nobody gets through");
    }

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
