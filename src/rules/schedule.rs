//! When a rule runs by itself: cron arithmetic with time zones, jitter, overlap and missed runs.

use std::time::Duration;

use jiff::Timestamp;

/// `overlap:`: what happens when a rule is due while it still runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// The due time is passed over.
    #[default]
    Skip,
    /// It runs once more when the current run ends.
    Queue,
}

/// `missed:`: what happens with due times at which no daemon ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissedRuns {
    /// One run at start, where the last missed time is within `missed_within`.
    #[default]
    Run,
    /// They are passed over.
    Skip,
}

/// Why a schedule is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a schedule: {problem}")]
pub struct InvalidSchedule {
    /// What was written.
    pub text: String,
    /// What is wrong with it, and what to write instead.
    pub problem: String,
}

/// A cron expression with its zone and habits.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    zone: String,
    /// Up to this much is added to each due time, the same for the same rule and time.
    pub jitter: Duration,
    /// See [`Overlap`].
    pub overlap: Overlap,
    /// See [`MissedRuns`].
    pub missed: MissedRuns,
    /// How old a missed time may be.
    pub missed_within: Duration,
}

impl Schedule {
    /// Reads five fields or a nickname such as `@hourly`, in `zone` (an IANA name such as `Asia/Shanghai`, or `UTC`).
    /// # Errors
    /// What is no schedule or no zone, six fields, `5/15`, dates that never come.
    pub fn parse(text: &str, zone: &str) -> Result<Self, InvalidSchedule> {
        let _ = (text, zone);
        unimplemented!()
    }
    /// The expression as written.
    pub fn text(&self) -> &str {
        &self.text
    }
    /// The zone's name.
    pub fn zone(&self) -> &str {
        &self.zone
    }
    /// The first due time after `after`, jitter included; `seed` (the rule's name) makes the jitter the same in every process.
    pub fn next_after(&self, after: Timestamp, seed: &str) -> Option<Timestamp> {
        let _ = (after, seed);
        unimplemented!()
    }
    /// What a starting daemon does about due times between `last_run` and `now`: true to run now.
    pub fn missed(&self, last_run: Option<Timestamp>, now: Timestamp, seed: &str) -> bool {
        let _ = (last_run, now, seed);
        unimplemented!()
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        (
            &self.text,
            &self.zone,
            self.jitter,
            self.overlap,
            self.missed,
            self.missed_within,
        ) == (
            &other.text,
            &other.zone,
            other.jitter,
            other.overlap,
            other.missed,
            other.missed_within,
        )
    }
}
