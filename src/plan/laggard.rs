//! Whether a destination that holds up the others is left behind.

use std::time::Duration;

/// A destination may hold up the others so long. Longer than a registry's usual pause while it moves a finished piece to its
/// storage.
pub const HELD_UP: Duration = Duration::from_secs(10);

/// Decides after the others stood idle for `held_up` of the `elapsed` time, as one had no room for what they could have had.
///
/// True where that is long, and most of the time: without it the others would be done in less than half the time, which is worth
/// reading the blob from the source once more.
pub fn is_left_behind(held_up: Duration, elapsed: Duration) -> bool {
    held_up >= HELD_UP && held_up.saturating_mul(2) > elapsed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_most_of_the_others_time_is_left_behind() {
        let decided =
            |held_up: u64, elapsed: u64| is_left_behind(Duration::from_millis(held_up), Duration::from_millis(elapsed));
        assert!(!decided(9_999, 10_000), "it may be over at once");
        assert!(decided(10_000, 10_000));
        assert!(decided(10_000, 19_999));
        assert!(!decided(10_000, 20_000), "not even twice as fast without it");
        assert!(!decided(3_600_000, 86_400_000));
        assert!(!decided(0, 0));
    }
}
