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

/// The time that a destination spends on what it shares with others (reads of blobs, images), and how much of it they wait for it.
///
/// Counted over all that is shared at once: where as many wait as may be under way together, nothing goes on for the others.
#[derive(Clone, Copy, Debug, Default)]
pub struct SharedTime {
    under_way: u32,
    waited_for: u32,
    shared: Duration,
    held_up: Duration,
    seen: Duration,
}

impl SharedTime {
    fn pass(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.seen);
        self.shared = self.shared.saturating_add(passed.saturating_mul(self.under_way));
        self.held_up = self.held_up.saturating_add(passed.saturating_mul(self.waited_for));
        self.seen = now;
    }

    /// It begins with one more at `now` (monotonic time).
    pub fn begin(&mut self, now: Duration) {
        self.pass(now);
        self.under_way += 1;
    }

    /// With one of them another one is done.
    pub fn waited_for(&mut self, now: Duration) {
        self.pass(now);
        self.waited_for += 1;
    }

    /// With one of them it has ended itself. `was_waited_for`: [`SharedTime::waited_for`] was told of it.
    pub fn end(&mut self, now: Duration, was_waited_for: bool) {
        self.pass(now);
        self.under_way = self.under_way.saturating_sub(1);
        self.waited_for = self.waited_for.saturating_sub(u32::from(was_waited_for));
    }

    /// As [`is_left_behind`], where `places` may be under way at once.
    pub fn is_left_behind(&mut self, now: Duration, places: usize) -> bool {
        self.pass(now);
        let places = u32::try_from(places).unwrap_or(u32::MAX).max(1);
        is_left_behind(self.held_up / places, self.shared / places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn who_holds_all_places_is_left_behind_and_who_holds_a_few_is_not() {
        for (shared, places, left_behind) in [(4, 4, true), (1, 4, false), (8, 4, true)] {
            let mut time = SharedTime::default();
            (0..shared).for_each(|_| time.begin(at(100)));
            (0..shared).for_each(|_| time.waited_for(at(101)));
            assert!(!time.is_left_behind(at(105), places), "too soon to say");
            assert_eq!(
                time.is_left_behind(at(112), places),
                left_behind,
                "{shared} of {places}"
            );
        }
    }

    #[test]
    fn who_keeps_pace_is_never_left_behind() {
        let mut time = SharedTime::default();
        let mut now = 0;
        for _ in 0..1000 {
            time.begin(at(now));
            time.waited_for(at(now + 6));
            assert!(!time.is_left_behind(at(now + 10), 1));
            time.end(at(now + 10), true);
            now += 10;
        }
        // What it is alone with holds up nobody.
        time.begin(at(now));
        assert!(!time.is_left_behind(at(now + 100_000), 1));
        time.end(at(now + 100_000), false);
        // Nothing is under way.
        assert!(!time.is_left_behind(at(now + 1_000_000), 1));
    }

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
