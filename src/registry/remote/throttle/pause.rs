//! When a registry wants to be left alone.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// No pause is longer, whatever a registry says: quotas are counted by the day at most, and a point in time that is years
/// away is a mistake that one question a day sets right.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// Nothing is sent to a host before its end.
#[derive(Debug)]
pub(super) struct Pause(watch::Sender<Option<Instant>>);

impl Default for Pause {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Pause {
    /// Sets one, unless a longer one is set; gives its end where it is new.
    pub(super) fn set(&self, time: Duration) -> Option<Instant> {
        if time.is_zero() {
            return None;
        }
        let until = Instant::now() + time.min(LONGEST_PAUSE);
        let longer = self.0.send_if_modified(|paused| {
            let longer = paused.is_none_or(|earlier| earlier < until);
            if longer {
                *paused = Some(until);
            }
            longer
        });
        longer.then_some(until)
    }

    /// What is left of it; `None` where there is none.
    pub(super) fn left(&self) -> Option<Duration> {
        let until = (*self.0.borrow())?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Waits until there is none.
    ///
    /// # Errors
    /// At once, with what is left, where that is longer than `patience`.
    pub(super) async fn over(&self, patience: Duration) -> Result<(), Duration> {
        let mut changes = self.0.subscribe();
        loop {
            changes.mark_unchanged();
            let Some(left) = self.left() else { return Ok(()) };
            if left > patience {
                return Err(left);
            }
            // Made longer meanwhile, it may be more than is waited.
            let _ = tokio::time::timeout(left, changes.changed()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_pause_wins() {
        const PATIENT: Duration = Duration::from_secs(60);
        let pause = Pause::default();
        assert_eq!(pause.left(), None);
        let start = Instant::now();
        assert!(pause.set(Duration::from_secs(9)).is_some());
        assert!(pause.set(Duration::from_secs(3)).is_none());
        assert_eq!(pause.left(), Some(Duration::from_secs(9)));
        pause.over(PATIENT).await.expect("patience");
        assert_eq!(start.elapsed(), Duration::from_secs(9));
        assert_eq!(pause.left(), None);
        pause.over(PATIENT).await.expect("no pause");
        assert_eq!(start.elapsed(), Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_learns_of_a_pause_that_is_too_long_at_once() {
        let pause = Pause::default();
        let start = Instant::now();
        pause.set(Duration::from_secs(50));
        let waiting = pause.over(Duration::from_secs(60));
        let lengthening = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            pause.set(Duration::from_secs(3600));
        };
        let (waited, ()) = tokio::join!(waiting, lengthening);
        assert_eq!(waited, Err(Duration::from_secs(3600)));
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        pause.set(Duration::MAX);
        assert_eq!(pause.left(), Some(LONGEST_PAUSE));
    }
}
