//! How many requests of one class are under way at once: a value that learns from what comes back.

use std::time::Duration;

use tokio::time::Instant;

use super::class::Bounds;

/// The shortest time over which a rate is believed.
const ROUND: Duration = Duration::from_millis(250);

/// After a growth that did not help, the next one is tried so much later: links and registries change by the minute.
const CONTENT_FOR: Duration = Duration::from_secs(30);

/// A growth helped where the rate rose by at least this part of what it would have risen by if all places were worth the same.
const WORTH: f64 = 1.0 / 3.0;

/// The size of a window.
///
/// It begins with what is safe. While all places are taken it grows by a quarter and measures what came of it (requests
/// or bytes a second): it stays where that helped, goes back where it did not. A sign of congestion halves it, once for all
/// requests that were under way by then; after that it grows back by one place for each window's worth of answers up to
/// the size that it had, and from there on by one place at a time.
#[derive(Clone, Debug)]
pub(super) struct Window {
    size: usize,
    most: usize,
    /// Up to here growth needs no proof.
    known: usize,
    halved_at: Option<Instant>,
    round: Option<Round>,
    /// What the last growth is compared with.
    before: Option<Measured>,
    content_until: Option<Instant>,
}

/// What came back since then while the window was full.
#[derive(Clone, Copy, Debug)]
struct Round {
    since: Instant,
    answers: usize,
    units: u64,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    size: usize,
    /// Units a second.
    rate: f64,
}

impl Window {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            size: bounds.start,
            most: bounds.most,
            known: bounds.start,
            halved_at: None,
            round: None,
            before: None,
            content_until: None,
        }
    }

    /// Requests that may be under way.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Something came back well: an answer (one unit), or so many bytes of a blob. `full`: no place was free.
    pub(super) fn answered(&mut self, now: Instant, units: u64, full: bool) {
        if !full {
            // What is not used up needs no growth, and its rate says nothing.
            self.round = None;
            self.before = None;
            return;
        }
        let round = self.round.get_or_insert(Round {
            since: now,
            answers: 0,
            units: 0,
        });
        // The first answer of a round starts its clock: it was earned before.
        if round.since < now || round.answers > 0 {
            round.units += units;
        }
        round.answers += 1;
        let round = *round;
        if round.answers <= self.size {
            return;
        }
        if self.size < self.known {
            self.resize(self.size + 1);
            return;
        }
        let time = now.saturating_duration_since(round.since);
        if time < ROUND || self.content_until.is_some_and(|until| now < until) {
            return;
        }
        let here = Measured {
            size: self.size,
            rate: round.units as f64 / time.as_secs_f64(),
        };
        match self.before {
            Some(before) if !helped(before, here) => {
                self.known = before.size;
                self.before = None;
                self.content_until = Some(now + CONTENT_FOR);
                self.resize(before.size);
            }
            _ if self.size < self.most => {
                self.known = self.size;
                self.before = Some(here);
                self.resize((self.size + self.step()).min(self.most));
            }
            _ => self.resize(self.size),
        }
    }

    fn step(&self) -> usize {
        match self.halved_at {
            None => (self.size / 4).max(1),
            Some(_) => 1,
        }
    }

    fn resize(&mut self, size: usize) {
        self.size = size;
        self.round = None;
    }

    /// The registry refused a request, sent at `sent`, as it has too many, or broke its connection. Halves the window, but
    /// only once for everything that was under way when the last halving happened.
    pub(super) fn congested(&mut self, now: Instant, sent: Instant) -> bool {
        if self.halved_at.is_some_and(|at| sent <= at) {
            return false;
        }
        // A growth that is still on trial proves nothing.
        self.known = self
            .before
            .take()
            .map_or(self.size.max(self.known), |before| before.size);
        self.halved_at = Some(now);
        self.resize((self.size / 2).max(1));
        true
    }
}

fn helped(before: Measured, here: Measured) -> bool {
    let places = here.size as f64 / before.size as f64 - 1.0;
    here.rate >= before.rate * (1.0 + places * WORTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { start: 8, most: 32 };

    /// A registry that answers `rate` requests a second whatever is asked, or `each` a second and place.
    struct Registry {
        each: f64,
        most: f64,
    }

    /// Runs a full window against it; gives the largest and the last size.
    fn run(window: &mut Window, registry: &Registry, now: &mut Instant, time: Duration) -> (usize, usize) {
        let end = *now + time;
        let mut largest = window.size();
        while *now < end {
            let rate = (registry.each * window.size() as f64).min(registry.most);
            *now += Duration::from_secs_f64(1.0 / rate);
            window.answered(*now, 1, true);
            largest = largest.max(window.size());
            assert!(window.size() >= 1 && window.size() <= BOUNDS.most);
        }
        (largest, window.size())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_grows_while_it_helps_and_no_further_than_it_may() {
        let mut now = Instant::now();
        let mut window = Window::new(BOUNDS);
        let endless = Registry { each: 20.0, most: 1e9 };
        assert_eq!(run(&mut window, &endless, &mut now, 20 * SECOND), (32, 32));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_help_is_taken_back() {
        let mut now = Instant::now();
        let mut window = Window::new(BOUNDS);
        // Twelve places fill it.
        let small = Registry {
            each: 20.0,
            most: 240.0,
        };
        let (largest, last) = run(&mut window, &small, &mut now, 20 * SECOND);
        assert!((12..=16).contains(&largest), "{largest}");
        assert!((12..=15).contains(&last), "{last}");
        // One that is full from the start stays as it is, but for a trial now and then.
        let mut window = Window::new(BOUNDS);
        let full = Registry { each: 1e9, most: 100.0 };
        assert_eq!(run(&mut window, &full, &mut now, 20 * SECOND), (10, 8));
        assert_eq!(run(&mut window, &full, &mut now, 20 * SECOND), (10, 8));
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_that_is_not_full_does_not_grow() {
        let mut now = Instant::now();
        let mut window = Window::new(BOUNDS);
        for number in 0..10_000u64 {
            now += Duration::from_millis(1);
            window.answered(now, 1, !number.is_multiple_of(5));
        }
        assert_eq!(window.size(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn congestion_halves_once_for_all_that_was_under_way() {
        let start = Instant::now();
        let mut window = Window::new(Bounds { start: 48, most: 128 });
        let at = |ms| start + Duration::from_millis(ms);
        assert!(window.congested(at(10), at(0)));
        for sent in 0..=10 {
            assert!(!window.congested(at(11 + sent), at(sent)), "sent at {sent}");
        }
        assert_eq!(window.size(), 24);
        // One that was sent afterwards knows better.
        assert!(window.congested(at(30), at(20)));
        assert!(!window.congested(at(31), at(25)));
        assert_eq!(window.size(), 12);
        for number in 0..20 {
            let time = 100 + number * 10;
            assert!(window.congested(at(time + 5), at(time)));
        }
        assert_eq!(window.size(), 1, "one place is always left");
    }

    #[tokio::test(start_paused = true)]
    async fn after_congestion_it_grows_back_by_one_for_each_window_of_answers() {
        let mut now = Instant::now();
        let mut window = Window::new(BOUNDS);
        assert!(window.congested(now, now));
        assert_eq!(window.size(), 4);
        let mut sizes = vec![4];
        let mut answers = 0;
        while window.size() < 8 {
            now += Duration::from_millis(1);
            window.answered(now, 1, true);
            answers += 1;
            if window.size() != *sizes.last().expect("one") {
                sizes.push(window.size());
            }
        }
        assert_eq!(sizes, [4, 5, 6, 7, 8]);
        assert_eq!(answers, 5 + 6 + 7 + 8);
        // Past that it goes on with care.
        let endless = Registry { each: 20.0, most: 1e9 };
        run(&mut window, &endless, &mut now, SECOND);
        assert!((9..=11).contains(&window.size()), "{}", window.size());
    }

    #[tokio::test(start_paused = true)]
    async fn a_growth_on_trial_is_forgotten_by_congestion() {
        let mut now = Instant::now();
        let mut window = Window::new(BOUNDS);
        let endless = Registry { each: 20.0, most: 1e9 };
        while window.size() == 8 {
            run(&mut window, &endless, &mut now, Duration::from_millis(20));
        }
        assert_eq!(window.size(), 10);
        assert!(window.congested(now, now));
        assert_eq!(window.size(), 5);
        let full = Registry { each: 1e9, most: 100.0 };
        let (largest, _) = run(&mut window, &full, &mut now, SECOND);
        assert!(largest <= 9, "{largest}: ten was never proven");
    }
}
