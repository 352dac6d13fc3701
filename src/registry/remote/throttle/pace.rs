//! So much a second: requests, or bytes.

use std::time::Duration;

use tokio::time::Instant;

/// How far ahead of the pace things may be: makes up for timers that ring late, and is little enough that every few
/// seconds keep the rate within some hundredths.
const AHEAD: Duration = Duration::from_millis(50);

/// How long what was not asked for leave ([`Pace::charge`]) may hold up what does.
const MOST_DEBT: Duration = Duration::from_secs(1);

/// After a pause requests follow each other by this much at least ...
const RESTART_GAP: Duration = Duration::from_millis(4);

/// ... for so long.
const RESTART: Duration = Duration::from_millis(250);

/// What passes at an even pace. It knows when the next thing is due; time that nobody used is lost.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Units a second; any without.
    rate: Option<f64>,
    /// When the next unit is due.
    due: Option<Instant>,
    /// The end of a pause.
    restarted: Option<Instant>,
    last: Option<Instant>,
}

impl Pace {
    /// Another rate; what has passed stays.
    pub(super) fn set(&mut self, rate: Option<f64>) {
        self.rate = rate.filter(|rate| rate.is_finite() && *rate > 0.0);
        if self.rate.is_none() {
            self.due = None;
        }
    }

    pub(super) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Nothing has to wait.
    pub(super) fn is_free(&self, now: Instant) -> bool {
        self.rate.is_none() && self.restarted.is_none_or(|at| now >= at + RESTART)
    }

    /// When the next may pass.
    pub(super) fn opens(&self, now: Instant) -> Instant {
        let by_rate = match (self.rate, self.due) {
            (Some(_), Some(due)) => due.checked_sub(AHEAD).unwrap_or(due),
            _ => now,
        };
        let by_restart = match (self.restarted, self.last) {
            (Some(at), Some(last)) if now >= at && now < at + RESTART => last + RESTART_GAP,
            _ => now,
        };
        by_rate.max(by_restart).max(now)
    }

    /// `units` pass.
    pub(super) fn pass(&mut self, now: Instant, units: u64) {
        self.last = Some(now);
        if let Some(time) = self.time(units) {
            self.due = Some(self.due.map_or(now, |due| due.max(now)) + time);
        }
    }

    /// `units` have passed without asking; others wait for it, but not long.
    pub(super) fn charge(&mut self, now: Instant, units: u64) {
        if let Some(time) = self.time(units) {
            let from = self.due.map_or(now, |due| due.max(now));
            self.due = Some((from + time.min(MOST_DEBT)).min(from.max(now + MOST_DEBT)));
        }
    }

    /// Nothing will pass until then, and only one after the other just after it.
    pub(super) fn restart(&mut self, at: Instant) {
        self.restarted = Some(at);
    }

    fn time(&self, units: u64) -> Option<Duration> {
        // A rate as low as one in a year is still some number of seconds.
        self.rate
            .map(|rate| Duration::try_from_secs_f64(units as f64 / rate).unwrap_or(Duration::from_secs(86_400 * 366)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets units pass as soon as they may; gives when each did.
    fn passes(pace: &mut Pace, mut now: Instant, units: u64, count: usize) -> Vec<Instant> {
        (0..count)
            .map(|_| {
                now = pace.opens(now);
                pace.pass(now, units);
                now
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn every_window_of_two_seconds_keeps_the_rate() {
        let start = Instant::now();
        for rate in [2.0, 7.0, 50.0, 333.0, 1000.0] {
            let mut pace = Pace::default();
            pace.set(Some(rate));
            // With an idle second in between, whose share is lost.
            let mut all = passes(&mut pace, start, 1, (rate * 5.0) as usize);
            let pause = *all.last().expect("some") + Duration::from_secs(1);
            all.extend(passes(&mut pace, pause, 1, (rate * 5.0) as usize));
            let window = Duration::from_secs(2);
            let most = all.iter().map(|from| {
                let inside = all.iter().filter(|at| *at >= from && **at < *from + window);
                inside.count()
            });
            let most = most.max().expect("some") as f64;
            assert!(
                most <= (rate * 2.0 * 1.05).floor().max(rate * 2.0 + 1.0),
                "{most} at {rate}"
            );
            let time = all[(rate * 5.0) as usize - 1] - start;
            assert!((4.4..=5.0).contains(&time.as_secs_f64()), "{time:?} at {rate}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn less_than_one_a_second_is_a_rate_too() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.set(Some(0.5));
        let at: Vec<u128> = passes(&mut pace, start, 1, 4)
            .into_iter()
            .map(|at| (at - start).as_millis())
            .collect();
        assert_eq!(at, [0, 1950, 3950, 5950]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_did_not_ask_holds_up_others_no_longer_than_a_second() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.set(Some(100.0));
        pace.charge(start, 10);
        assert_eq!(pace.opens(start), start + Duration::from_millis(50));
        for _ in 0..50 {
            pace.charge(start, 1000);
        }
        assert_eq!(pace.opens(start), start + Duration::from_millis(950));
        let mut any = Pace::default();
        any.charge(start, 1000);
        assert_eq!(any.opens(start), start);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_pause_requests_come_one_after_the_other() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.pass(start, 1);
        let end = start + Duration::from_secs(2);
        pace.restart(end);
        assert!(!pace.is_free(start));
        let at = passes(&mut pace, end, 1, 100);
        assert!(at[..60].windows(2).all(|pair| pair[1] - pair[0] == RESTART_GAP));
        assert_eq!(at[99], at[70], "afterwards they are free again");
        assert!(pace.is_free(at[99]));
    }
}
