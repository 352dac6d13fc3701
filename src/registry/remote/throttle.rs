//! How much is asked of one registry at once, and when it wants to be left alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

/// Manifest reads and other small requests at once: with round trips of 50 ms, 48 under way ask some 900 tags a
/// second, which registries answer from memory; over HTTP/2 they share a few connections.
const SMALL: usize = 48;
/// Pages of lists at once: each makes a registry walk its storage (distribution) or its database, and is the one
/// request that is dear to it.
const LISTS: usize = 4;
/// Blobs read at once: enough to fill a link whose single flows are slow, few enough that a home directory of
/// open sockets does not form at the object store behind it.
const BLOB_READS: usize = 8;
/// Uploads at once: as reads; ECR resets sockets when many uploads run side by side.
const BLOB_WRITES: usize = 8;

/// No pause is longer, whatever a registry says: quotas are counted by the day at most, and a point in time that is years
/// away is a mistake that one question a day sets right.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// What kind of load a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Manifests, and whatever else is one small request.
    Small,
    /// A page of tags, repositories or referrers.
    List,
    /// A blob's bytes from the registry. The permit is held until the body ends.
    BlobRead,
    /// A blob's bytes to the registry.
    BlobWrite,
}

/// The right to have one request under way. Dropping it lets the next one in.
#[derive(Debug)]
pub(super) struct Permit {
    _class: OwnedSemaphorePermit,
    _ceiling: Option<OwnedSemaphorePermit>,
}

/// Windows and pause of one registry, shared by all clones of its end.
#[derive(Debug)]
pub(super) struct Throttle {
    small: Arc<Semaphore>,
    lists: Arc<Semaphore>,
    blob_reads: Arc<Semaphore>,
    reads: usize,
    blob_writes: Arc<Semaphore>,
    ceiling: Option<Arc<Semaphore>>,
    /// Nothing is sent before this.
    paused_until: watch::Sender<Option<Instant>>,
}

impl Throttle {
    /// `ceiling` is `limits.concurrency`: no more than this many requests of all classes together. It counts as 2
    /// at least, and blob reads never fill it: a blob that is copied within one registry is read and written at
    /// once, and the read could not end if the write had to wait for it.
    pub(super) fn new(ceiling: Option<usize>) -> Self {
        let ceiling = ceiling.map(|ceiling| ceiling.max(2));
        let reads = ceiling.map_or(BLOB_READS, |ceiling| BLOB_READS.min(ceiling - 1));
        let window = |permits| Arc::new(Semaphore::new(permits));
        Self {
            small: window(SMALL),
            lists: window(LISTS),
            blob_reads: window(reads),
            reads,
            blob_writes: window(BLOB_WRITES),
            ceiling: ceiling.map(window),
            paused_until: watch::Sender::new(None),
        }
    }

    /// Places for reads of blobs.
    pub(super) fn blob_reads(&self) -> usize {
        self.reads
    }

    /// Waits for a place. Reads of blobs and writes of blobs wait in different queues, so that a copy within one
    /// registry cannot wait for itself. Whoever needs both takes the read first.
    pub(super) async fn enter(&self, class: Class) -> Permit {
        const OPEN: &str = "the semaphores live as long as the registry and are never closed";
        let window = match class {
            Class::Small => &self.small,
            Class::List => &self.lists,
            Class::BlobRead => &self.blob_reads,
            Class::BlobWrite => &self.blob_writes,
        };
        let class = Arc::clone(window).acquire_owned().await.expect(OPEN);
        let ceiling = match &self.ceiling {
            Some(ceiling) => Some(Arc::clone(ceiling).acquire_owned().await.expect(OPEN)),
            None => None,
        };
        Permit {
            _class: class,
            _ceiling: ceiling,
        }
    }

    /// Sends nothing to the registry for `time`, whoever asks. A longer pause that is already set stays.
    pub(super) fn pause(&self, time: Duration) {
        if time.is_zero() {
            return;
        }
        let until = Instant::now() + time.min(LONGEST_PAUSE);
        self.paused_until.send_if_modified(|paused| {
            let longer = paused.is_none_or(|earlier| earlier < until);
            if longer {
                *paused = Some(until);
            }
            longer
        });
    }

    /// What is left of the pause; `None` where there is none.
    pub(super) fn paused_for(&self) -> Option<Duration> {
        let until = (*self.paused_until.borrow())?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Waits until no pause is set.
    ///
    /// # Errors
    /// At once, with what is left, where that is longer than `patience`.
    pub(super) async fn pause_over(&self, patience: Duration) -> Result<(), Duration> {
        let mut changes = self.paused_until.subscribe();
        loop {
            changes.mark_unchanged();
            let Some(left) = self.paused_for() else { return Ok(()) };
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
    async fn a_copy_within_one_registry_cannot_wait_for_itself() {
        for ceiling in [None, Some(1), Some(2), Some(5)] {
            let throttle = Throttle::new(ceiling);
            let reads = throttle.blob_reads.available_permits();
            let mut permits = Vec::new();
            for _ in 0..reads {
                permits.push(throttle.enter(Class::BlobRead).await);
            }
            // With every read open, a write and a small request still get in, one after the other.
            let entered = tokio::time::timeout(Duration::from_secs(1), throttle.enter(Class::BlobWrite)).await;
            assert!(entered.is_ok(), "{ceiling:?}");
            drop(entered);
            assert!(
                tokio::time::timeout(Duration::from_secs(1), throttle.enter(Class::Small))
                    .await
                    .is_ok()
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_ceiling_is_over_all_classes() {
        let throttle = Throttle::new(Some(2));
        let _small = throttle.enter(Class::Small).await;
        let _list = throttle.enter(Class::List).await;
        let third = tokio::time::timeout(Duration::from_secs(1), throttle.enter(Class::BlobWrite)).await;
        assert!(third.is_err(), "three requests under a ceiling of two");
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_pause_wins() {
        const PATIENT: Duration = Duration::from_secs(60);
        let throttle = Throttle::new(None);
        assert_eq!(throttle.paused_for(), None);
        let start = Instant::now();
        throttle.pause(Duration::from_secs(9));
        throttle.pause(Duration::from_secs(3));
        assert_eq!(throttle.paused_for(), Some(Duration::from_secs(9)));
        throttle.pause_over(PATIENT).await.expect("patience");
        assert_eq!(start.elapsed(), Duration::from_secs(9));
        assert_eq!(throttle.paused_for(), None);
        throttle.pause_over(PATIENT).await.expect("no pause");
        assert_eq!(start.elapsed(), Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_learns_of_a_pause_that_is_too_long_at_once() {
        let throttle = Throttle::new(None);
        let start = Instant::now();
        throttle.pause(Duration::from_secs(50));
        let waiting = throttle.pause_over(Duration::from_secs(60));
        let lengthening = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            throttle.pause(Duration::from_secs(3600));
        };
        let (waited, ()) = tokio::join!(waiting, lengthening);
        assert_eq!(waited, Err(Duration::from_secs(3600)));
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        throttle.pause(Duration::MAX);
        assert_eq!(throttle.paused_for(), Some(LONGEST_PAUSE));
    }
}
