//! Whether and when a failed attempt is made again.

use std::time::Duration;

use super::failure::ErrorKind;
use crate::rules::RetryPolicy;

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try again after this long.
    After(Duration),
    /// Final.
    GiveUp,
}

/// The first wait. It doubles with each attempt.
const FIRST_DELAY: Duration = Duration::from_millis(200);

/// A pause up to this long that a registry asks for is waited for; during a longer one images are put off.
pub const PAUSE_WAITED_FOR: Duration = Duration::from_secs(5 * 60);

/// Bytes that are worth a request of their own. A connection that breaks after this much may be asked for the rest as often as it
/// takes; a gibibyte in smaller parts would be tens of thousands of requests.
const WORTH_A_REQUEST: u64 = 64 * 1024;

/// Whether `came` bytes, where `left` were wanted, are a gain: then attempts are counted anew. Less than 64 KiB is none, unless it
/// is all; who counts adds up what comes until it is one.
pub fn is_gain(came: u64, left: u64) -> bool {
    came > 0 && came >= left.min(WORTH_A_REQUEST)
}

/// Decides after the `attempts`-th attempt in a row without a gain ([`is_gain`], a finished step) failed with `kind`.
/// `jitter` is a random number in 0..1; `retry_after` is what the registry asked for, obeyed up to [`PAUSE_WAITED_FOR`] whatever
/// the policy's longest delay, which is for delays of our own choosing; beyond it the job is given up. `Corrupt` and `MissingContent` are tried again twice and once; final kinds never.
pub fn after_failure(
    kind: ErrorKind,
    attempts: u32,
    policy: RetryPolicy,
    retry_after: Option<Duration>,
    jitter: f64,
) -> RetryDecision {
    let allowed = match kind {
        kind if kind.is_temporary() => policy.attempts,
        ErrorKind::Corrupt => policy.attempts.min(3),
        ErrorKind::MissingContent => policy.attempts.min(2),
        _ => return RetryDecision::GiveUp,
    };
    let asked = retry_after.unwrap_or(Duration::ZERO);
    if attempts >= allowed || asked > PAUSE_WAITED_FOR.max(policy.max_delay) {
        return RetryDecision::GiveUp;
    }
    // After 2^31 the longest delay has long been reached.
    let doublings = attempts.saturating_sub(1).min(31);
    let growing = FIRST_DELAY.saturating_mul(1 << doublings).min(policy.max_delay);
    // Up to as much again, so that jobs that failed together do not come back together.
    let jitter = if jitter.is_finite() {
        jitter.clamp(0.0, 1.0)
    } else {
        0.0
    };
    let jittered = growing.saturating_add(growing.mul_f64(jitter));
    RetryDecision::After(jittered.min(policy.max_delay).max(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 6,
        max_delay: Duration::from_secs(300),
    };

    fn wait(attempts: u32, policy: RetryPolicy, retry_after: Option<u64>, jitter: f64) -> Option<u128> {
        let retry_after = retry_after.map(Duration::from_secs);
        match after_failure(ErrorKind::Network, attempts, policy, retry_after, jitter) {
            RetryDecision::After(delay) => Some(delay.as_millis()),
            RetryDecision::GiveUp => None,
        }
    }

    #[test]
    fn delays_double_with_jitter_up_to_the_longest() {
        let waits = |jitter| (1..=6).map(|n| wait(n, POLICY, None, jitter)).collect::<Vec<_>>();
        assert_eq!(
            waits(0.0),
            [Some(200), Some(400), Some(800), Some(1600), Some(3200), None]
        );
        assert_eq!(
            waits(0.5),
            [Some(300), Some(600), Some(1200), Some(2400), Some(4800), None]
        );
        let many = RetryPolicy {
            attempts: u32::MAX,
            ..POLICY
        };
        assert_eq!(wait(4_000_000, many, None, 0.9), Some(300_000));
        assert_eq!(wait(0, POLICY, None, f64::NAN), Some(200));
        assert_eq!(wait(1, POLICY, None, 7.0), Some(400));
    }

    #[test]
    fn a_few_bytes_are_no_gain_unless_they_are_all() {
        assert!(!is_gain(1, 1 << 30) && !is_gain(WORTH_A_REQUEST - 1, 1 << 30));
        assert!(is_gain(WORTH_A_REQUEST, 1 << 30) && is_gain(1 << 20, 1 << 30));
        assert!(!is_gain(0, 0) && !is_gain(0, 1) && !is_gain(9, 10) && is_gain(10, 10));
    }

    #[test]
    fn the_registry_is_obeyed_up_to_the_longest_delay() {
        assert_eq!(wait(1, POLICY, Some(30), 0.5), Some(30_000));
        assert_eq!(wait(5, POLICY, Some(1), 0.0), Some(3200));
        assert_eq!(wait(1, POLICY, Some(300), 0.5), Some(300_000));
        assert_eq!(wait(1, POLICY, Some(301), 0.5), None);
        let hasty = RetryPolicy {
            max_delay: Duration::from_secs(30),
            ..POLICY
        };
        assert_eq!(
            wait(1, hasty, Some(40), 0.5),
            Some(40_000),
            "a pause is not ours to cut short"
        );
        assert_eq!(wait(1, hasty, Some(301), 0.5), None);
        let patient = RetryPolicy {
            max_delay: Duration::from_secs(3600),
            ..POLICY
        };
        assert_eq!(wait(1, patient, Some(301), 0.5), Some(301_000));
        assert_eq!(wait(6, POLICY, Some(1), 0.5), None);
    }

    #[test]
    fn the_kind_decides() {
        use ErrorKind::*;
        let retries = |kind, policy| {
            let again = |n: &u32| after_failure(kind, *n, policy, None, 0.0) != RetryDecision::GiveUp;
            (1..100).take_while(again).count()
        };
        for (kind, expected) in [
            (Network, 5),
            (Throttled, 5),
            (Server, 5),
            (Corrupt, 2),
            (MissingContent, 1),
            (Unauthorized, 0),
            (Denied, 0),
            (NotFound, 0),
            (Conflict, 0),
            (Invalid, 0),
            (Unsupported, 0),
            (Quota, 0),
            (TooLarge, 0),
            (Tls, 0),
            (Config, 0),
            (Local, 0),
            (Cancelled, 0),
        ] {
            assert_eq!(retries(kind, POLICY), expected, "{kind}");
            let once = RetryPolicy { attempts: 1, ..POLICY };
            assert_eq!(retries(kind, once), 0, "{kind}");
        }
    }
}
