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

/// Decides after the `attempts`-th attempt in a row without a gain (a new acknowledged byte, a finished step) failed with `kind`.
/// `jitter` is a random number in 0..1; `retry_after` is what the registry asked for, obeyed up to the policy's longest delay, beyond which
/// the job is given up. `Corrupt` and `MissingContent` are tried again twice and once; final kinds never.
pub fn after_failure(
    kind: ErrorKind,
    attempts: u32,
    policy: RetryPolicy,
    retry_after: Option<Duration>,
    jitter: f64,
) -> RetryDecision {
    let _ = (kind, attempts, policy, retry_after, jitter);
    unimplemented!()
}
