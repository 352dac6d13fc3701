//! Whether a mirror is asked, by what became of the questions before.

use std::time::Duration;

/// How long a mirror that failed is left alone at first; doubles with each failure after that.
const FIRST_REST: Duration = Duration::from_secs(60);
/// The longest rest. A mirror that does not know us rests as long at once: that takes a person to mend.
const LONGEST_REST: Duration = Duration::from_secs(15 * 60);

/// How long a mirror is not asked for a repository that it refused. Registries say so of what they lack, too, so that nothing
/// follows for others.
pub const REFUSED_FOR: Duration = LONGEST_REST;

/// What may be wrong with a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorTrouble {
    /// It did not answer, failed, or gave something else than was asked for.
    Failed,
    /// It does not take our login.
    Refused,
}

/// What is remembered of a mirror. Times are those of a monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MirrorHealth {
    rests_until: Option<Duration>,
    rested: Option<Duration>,
}

impl MirrorHealth {
    /// True where it may be asked at `now`.
    pub fn is_asked(&self, now: Duration) -> bool {
        self.rests_until.is_none_or(|until| now >= until)
    }

    /// It gave what was asked for.
    pub fn fine(&mut self, now: Duration) {
        // What was asked before a trouble says nothing of the time after it.
        if self.is_asked(now) {
            *self = Self::default();
        }
    }

    /// It has a trouble. Gives for how long it rests, and whether it was well before: that is worth telling. `None` where
    /// it rests already, as after the first of several questions that fail at once.
    pub fn trouble(&mut self, what: MirrorTrouble, now: Duration) -> Option<(Duration, bool)> {
        if !self.is_asked(now) {
            return None;
        }
        let rest = match (what, self.rested) {
            (MirrorTrouble::Refused, _) => LONGEST_REST,
            (MirrorTrouble::Failed, None) => FIRST_REST,
            (MirrorTrouble::Failed, Some(rested)) => (rested * 2).min(LONGEST_REST),
        };
        let news = self.rested.is_none();
        *self = Self {
            rests_until: Some(now + rest),
            rested: Some(rest),
        };
        Some((rest, news))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn one_that_fails_rests_longer_each_time_until_it_is_well() {
        let mut health = MirrorHealth::default();
        let mut now = MINUTE;
        for (minutes, news) in [(1, true), (2, false), (4, false), (8, false), (15, false), (15, false)] {
            assert!(health.is_asked(now));
            assert_eq!(
                health.trouble(MirrorTrouble::Failed, now),
                Some((MINUTE * minutes, news))
            );
            // Others that were under way fail with it.
            assert_eq!(health.trouble(MirrorTrouble::Failed, now), None);
            assert!(!health.is_asked(now + MINUTE * minutes - Duration::from_millis(1)));
            now += MINUTE * minutes;
        }
        health.fine(now - MINUTE);
        assert_eq!(
            health.trouble(MirrorTrouble::Failed, now),
            Some((MINUTE * 15, false)),
            "asked before"
        );
        now += MINUTE * 15;
        health.fine(now);
        assert_eq!(
            health.trouble(MirrorTrouble::Failed, now),
            Some((MINUTE, true)),
            "told again"
        );
    }

    #[test]
    fn one_that_does_not_know_us_rests_long() {
        let mut health = MirrorHealth::default();
        assert_eq!(
            health.trouble(MirrorTrouble::Refused, MINUTE),
            Some((MINUTE * 15, true))
        );
        assert!(health.is_asked(MINUTE * 16));
        assert_eq!(
            health.trouble(MirrorTrouble::Failed, MINUTE * 16),
            Some((MINUTE * 15, false))
        );
    }
}
