//! Waiting for one's turn where only so much a second passes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::class::Class;
use super::gate::Gate;
use super::pace::Pace;
use super::places::OneByOne;

/// Added to a priority: who was sent away once goes before who comes for the first time.
const AGAIN: i64 = 1 << 32;

/// The priority of a request among those that wait; `again`: it was sent before and refused.
pub(super) fn order(priority: i32, again: bool) -> i64 {
    i64::from(priority) + if again { AGAIN } else { 0 }
}

/// Bytes pass in parts of at most this, so that blobs side by side take turns.
const LARGEST_PART: u64 = 16 * 1024;

/// The smallest part of bytes worth a turn.
const SMALLEST_PART: u64 = 1024;

/// A part of bytes should take no longer than this ...
const TIME_OF_A_PART: Duration = Duration::from_millis(50);

/// ... and less where several turnstiles stand before one: each of them gets one turn after the other there, which
/// must not be too few for its own rate.
const TIME_AT_THE_WHOLE: Duration = Duration::from_millis(10);

/// Lets pass at a [`Pace`], one after the other in the order of [`super::waiting::Waiting`].
#[derive(Debug, Default)]
pub(super) struct Turnstile {
    pace: Mutex<Pace>,
    turn: Arc<Gate<OneByOne>>,
}

impl Turnstile {
    pub(super) fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn of `units`, here and then at `whole`, which stands behind several of us. Whoever waits there
    /// keeps the turn here, so that nothing bunches up between the two and both rates are exact.
    pub(super) async fn pass(&self, units: u64, priority: i64, whole: &Self) {
        if self.is_free() && whole.is_free() {
            self.pace().pass(Instant::now(), units);
            return;
        }
        let _turn = self.turn.enter(Class::Read, priority).await;
        self.opened().await;
        whole.pass_alone(units, priority).await;
        self.pace().pass(Instant::now(), units);
    }

    /// Waits for the turn of `units`, here only.
    pub(super) async fn pass_alone(&self, units: u64, priority: i64) {
        let _turn = self.turn.enter(Class::Read, priority).await;
        self.opened().await;
        self.pace().pass(Instant::now(), units);
    }

    /// Nothing has to wait.
    pub(super) fn is_free(&self) -> bool {
        self.pace().is_free(Instant::now())
    }

    /// The next may pass now.
    pub(super) fn is_open(&self) -> bool {
        let now = Instant::now();
        self.pace().opens(now) <= now
    }

    /// Passes where the next may do so now, whoever waits for it; false where not.
    pub(super) fn try_pass(&self, units: u64) -> bool {
        let now = Instant::now();
        let mut pace = self.pace();
        let open = pace.opens(now) <= now;
        if open {
            pace.pass(now, units);
        }
        open
    }

    /// Waits until the next may pass. The pace may change meanwhile.
    pub(super) async fn opened(&self) {
        loop {
            let now = Instant::now();
            let opens = self.pace().opens(now);
            if opens <= now {
                return;
            }
            // Not longer, so that a higher rate of new rules is noticed.
            tokio::time::sleep_until(opens.min(now + Duration::from_secs(1))).await;
        }
    }

    /// As [`Turnstile::pass`], for bytes.
    pub(super) async fn pass_bytes(&self, mut bytes: u64, priority: i64, whole: &Self) {
        while bytes > 0 {
            let part = self.part(whole).map_or(bytes, |part| part.min(bytes));
            self.pass(part, priority, whole).await;
            bytes -= part;
        }
    }

    /// How many bytes pass in one turn; any number where there is no limit.
    pub(super) fn part(&self, whole: &Self) -> Option<u64> {
        let own = self.pace().rate().map(|rate| rate * TIME_OF_A_PART.as_secs_f64());
        let there = whole.pace().rate().map(|rate| rate * TIME_AT_THE_WHOLE.as_secs_f64());
        let part = [own, there].into_iter().flatten().min_by(f64::total_cmp)?;
        Some((part as u64).clamp(SMALLEST_PART, LARGEST_PART))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turnstile(rate: f64) -> Turnstile {
        let turnstile = Turnstile::default();
        turnstile.pace().set(Some(rate));
        turnstile
    }

    /// Moves chunks through the turnstile for so long; gives the bytes.
    async fn moves(through: &Turnstile, whole: &Turnstile, chunk: u64, time: Duration) -> u64 {
        let end = Instant::now() + time;
        let mut moved = 0;
        while Instant::now() < end {
            through.pass_bytes(chunk, 0, whole).await;
            moved += chunk;
        }
        moved
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[track_caller]
    fn about(found: u64, wanted: f64) {
        let share = found as f64 / wanted;
        assert!((0.95..=1.05).contains(&share), "{found} of {wanted}");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_keep_their_rate_and_equals_their_share() {
        for rate in [100_000.0, 10_000_000.0, 1e9] {
            let (own, whole) = (turnstile(rate), Turnstile::default());
            // One gives large chunks, the others small ones.
            let moved = tokio::join!(
                moves(&own, &whole, 256 * 1024, 8 * SECOND),
                moves(&own, &whole, 16 * 1024, 8 * SECOND),
                moves(&own, &whole, 16 * 1024, 8 * SECOND),
            );
            // The last chunk of each may have just begun.
            let all = moved.0 + moved.1 + moved.2;
            let last = if rate < 1e6 { 256.0 * 1024.0 } else { 0.0 };
            assert!(
                all as f64 >= rate * 8.0 * 0.95 && all as f64 <= rate * 8.0 * 1.05 + last,
                "{moved:?} at {rate}"
            );
            if rate > 1e6 {
                for share in [moved.0, moved.1, moved.2] {
                    let part = share as f64 / all as f64 * 3.0;
                    assert!((0.8..=1.2).contains(&part), "{moved:?} at {rate}");
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_of_the_whole_is_over_all() {
        let (one, two) = (turnstile(300_000.0), Turnstile::default());
        let whole = turnstile(1_000_000.0);
        let (first, second) = tokio::join!(
            moves(&one, &whole, 10_000, 10 * SECOND),
            moves(&two, &whole, 10_000, 10 * SECOND),
        );
        about(first, 3_000_000.0);
        about(first + second, 10_000_000.0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_again_goes_first() {
        let (own, whole) = (turnstile(10.0), Turnstile::default());
        let order = Mutex::new(Vec::new());
        let come = |number, priority| {
            let (own, whole, order) = (&own, &whole, &order);
            async move {
                own.pass(1, priority, whole).await;
                order.lock().expect("no panic").push(number);
            }
        };
        tokio::join!(come(1, 0), come(2, 0), come(3, 5), come(4, AGAIN));
        // The second has been called when the others come.
        assert_eq!(*order.lock().expect("no panic"), [1, 2, 4, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_rate_holds_at_once() {
        let (own, whole) = (turnstile(0.01), Turnstile::default());
        let start = Instant::now();
        own.pass(1, 0, &whole).await;
        let waits = own.pass(1, 0, &whole);
        let faster = async {
            tokio::time::sleep(3 * SECOND).await;
            own.pace().set(None);
        };
        tokio::join!(waits, faster);
        assert!(start.elapsed() <= 4 * SECOND, "{:?}", start.elapsed());
    }
}
