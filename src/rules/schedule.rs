//! When a rule runs by itself: cron arithmetic with time zones, jitter, overlap and missed runs.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

use crate::oci::Digest;

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
    cron: Cron,
    time_zone: TimeZone,
    /// Up to this much is added to each due time, the same for the same rule and time. Never so much that it reaches
    /// the next due time.
    pub jitter: Duration,
    /// See [`Overlap`].
    pub overlap: Overlap,
    /// See [`MissedRuns`].
    pub missed: MissedRuns,
    /// How old a missed time may be.
    pub missed_within: Duration,
}

const NICKNAMES: [&str; 6] = ["@hourly", "@daily", "@weekly", "@monthly", "@yearly", "@annually"];

const FIELD_RANGES: &str = "it cannot be read: minutes are 0-59, hours 0-23, days of the month 1-31, months 1-12 or \
     JAN-DEC, weekdays 0-7 or SUN-SAT";

/// The highest useful number of each of the five fields, for the hint about steps.
const FIELD_ENDS: [u32; 5] = [59, 23, 31, 12, 6];

impl Schedule {
    /// Reads five fields or a nickname such as `@hourly`, in `zone` (an IANA name such as `Asia/Shanghai`, or `UTC`).
    /// Weekdays count from Sunday as 0; where both day fields are set, either is enough (POSIX `crontab`).
    /// # Errors
    /// What is no schedule or no zone, six fields, `5/15`, dates that never come.
    pub fn parse(text: &str, zone: &str) -> Result<Self, InvalidSchedule> {
        let invalid = |problem: String| InvalidSchedule {
            text: text.to_owned(),
            problem,
        };
        check_form(text).map_err(invalid)?;
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let cron = parser
            .parse(text)
            .map_err(|error| invalid(format!("{FIELD_RANGES} ({error})")))?;
        // The zones that come with the program, so that a machine without zone files reads the same rules.
        let time_zone = TimeZoneDatabase::bundled().get(zone).map_err(|_| {
            invalid(format!(
                "there is no time zone {zone:?}: write an IANA name such as Asia/Shanghai, or UTC"
            ))
        })?;
        let schedule = Self {
            text: text.to_owned(),
            zone: zone.to_owned(),
            cron,
            time_zone,
            jitter: Duration::ZERO,
            overlap: Overlap::default(),
            missed: MissedRuns::default(),
            missed_within: DEFAULT_MISSED_WITHIN,
        };
        // Any time does to find out whether there is a date at all: the search spans leap years and centuries.
        if schedule.due_after(Timestamp::UNIX_EPOCH).is_none() {
            return Err(invalid("its date never comes".to_owned()));
        }
        Ok(schedule)
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
    /// Asked again and again with its own answer it gives every due time once, in order.
    pub fn next_after(&self, after: Timestamp, seed: &str) -> Option<Timestamp> {
        // A time that was due already may have been moved to after `after` by its jitter.
        if let Some(due) = self.last_due(after) {
            let moved = self.with_jitter(due, seed);
            if moved > after {
                return Some(moved);
            }
        }
        self.due_after(after).map(|due| self.with_jitter(due, seed))
    }

    /// What a starting daemon does about due times between `last_run` and `now`: true to run now. Without a last run
    /// nothing is known to be missed.
    pub fn missed(&self, last_run: Option<Timestamp>, now: Timestamp, seed: &str) -> bool {
        let (MissedRuns::Run, Some(last_run)) = (self.missed, last_run) else {
            return false;
        };
        // A time exactly that old still counts.
        let oldest = SignedDuration::try_from(self.missed_within)
            .ok()
            .and_then(|within| now.checked_sub(within).ok())
            .and_then(|oldest| oldest.checked_sub(SignedDuration::from_nanos(1)).ok())
            .unwrap_or(Timestamp::MIN);
        self.next_after(last_run.max(oldest), seed)
            .is_some_and(|due| due <= now)
    }

    /// The first due time after `after`, without jitter.
    fn due_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after = after.to_zoned(self.time_zone.clone());
        let due = self.cron.find_next_occurrence(&after, false).ok()?;
        Some(due.timestamp())
    }

    /// The last due time at or before `at` that jitter can have moved past it.
    fn last_due(&self, at: Timestamp) -> Option<Timestamp> {
        let jitter = SignedDuration::try_from(self.jitter).unwrap_or(SignedDuration::MAX);
        let mut window = SignedDuration::from_mins(1).min(jitter);
        // Ever longer windows keep the number of steps small for frequent and for rare schedules alike.
        while window > SignedDuration::ZERO {
            let start = at.checked_sub(window).unwrap_or(Timestamp::MIN);
            let mut last = None;
            let mut due = self.due_after(start);
            while let Some(time) = due.filter(|time| *time <= at) {
                last = Some(time);
                due = self.due_after(time);
            }
            if last.is_some() || window == jitter || start == Timestamp::MIN {
                return last;
            }
            window = window.checked_mul(2).unwrap_or(jitter).min(jitter);
        }
        None
    }

    /// `due` with its jitter: less than what is left to the next due time, so that the order stays.
    fn with_jitter(&self, due: Timestamp, seed: &str) -> Timestamp {
        if self.jitter.is_zero() {
            return due;
        }
        let gap = self.due_after(due).map_or(u128::MAX, |next| {
            u128::try_from(next.duration_since(due).as_millis()).unwrap_or(0)
        });
        let span = gap.min(self.jitter.as_millis() + 1).max(1);
        let digest = Digest::of(format!("{seed}\n{}", due.as_second()).as_bytes());
        // Sixteen hex digits always make a u64.
        let number = u64::from_str_radix(&digest.hex()[..16], 16).unwrap_or(0);
        let moved = i64::try_from(u128::from(number) % span).unwrap_or(0);
        due.checked_add(SignedDuration::from_millis(moved)).unwrap_or(due)
    }
}

/// How old a missed time may be where the rule does not say: an hour, so that a restart catches up and a machine that
/// was off for a week does not start everything at once.
const DEFAULT_MISSED_WITHIN: Duration = Duration::from_secs(3600);

/// The mistakes that the parser would report in words that do not help.
fn check_form(text: &str) -> Result<(), String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    if let [nickname] = fields[..]
        && nickname.starts_with('@')
    {
        return if NICKNAMES.iter().any(|known| known.eq_ignore_ascii_case(nickname)) {
            Ok(())
        } else {
            Err(format!(
                "unknown nickname {nickname}: valid are {}, or write five fields",
                NICKNAMES.join(", ")
            ))
        };
    }
    match fields.len() {
        5 => {}
        0 => return Err("it is empty: write five fields, such as */30 * * * *, or @hourly".to_owned()),
        6 | 7 => {
            return Err(format!(
                "it has {} fields, and seconds or years are not supported: write five, minute hour day month weekday",
                fields.len()
            ));
        }
        n => {
            return Err(format!(
                "it has {n} fields: write five, minute hour day month weekday, such as */30 * * * *"
            ));
        }
    }
    for (field, end) in fields.iter().zip(FIELD_ENDS) {
        for part in field.split(',') {
            let Some((start, step)) = part.split_once('/') else {
                continue;
            };
            if !start.is_empty() && start.bytes().all(|b| b.is_ascii_digit()) {
                return Err(format!(
                    "a step needs a range: instead of {part} write {start}-{end}/{step}"
                ));
            }
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests;
