//! Work at the disk, which is waited for only so long: a disk that hangs must not hang a transfer.

use std::any::Any;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// How long a transfer waits for the disk before it goes on without the spool. Disks pause for a second or two while they
/// write back what many wrote.
pub(super) const DISK_PATIENCE: Duration = Duration::from_secs(5);

/// What is said of a disk that was waited for in vain.
pub(super) const TOO_SLOW: &str = "the disk is too slow";

/// Threads that work at a spool's disk.
#[derive(Debug, Default)]
pub(super) struct Threads {
    /// What work holds that was not done in time, gone when it is.
    late: Mutex<Vec<Weak<dyn Any + Send + Sync>>>,
}

impl Threads {
    fn late(&self) -> MutexGuard<'_, Vec<Weak<dyn Any + Send + Sync>>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does work that blocks, and waits for it for [`DISK_PATIENCE`] at most. Later it goes on, and what it gives is dropped.
    ///
    /// # Errors
    /// The work's own. `TimedOut`: it takes too long, or earlier work still does. So a disk that hangs takes no more threads than
    /// had come to it by then; there is one pool of them for the whole process.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if self.hang() {
            return Err(too_slow());
        }
        let under_way = Arc::new(());
        let seen: Weak<()> = Arc::downgrade(&under_way);
        let done = tokio::task::spawn_blocking(move || {
            let _under_way = under_way;
            work()
        });
        match tokio::time::timeout(DISK_PATIENCE, done).await {
            Ok(done) => done.unwrap_or_else(|error| Err(io::Error::other(error))),
            Err(_) => {
                self.wait_for(seen);
                Err(too_slow())
            }
        }
    }

    /// Nothing more is done until the last one who holds this has dropped it.
    pub(super) fn wait_for(&self, held: Weak<dyn Any + Send + Sync>) {
        self.late().push(held);
    }

    /// True while work that was not done in time goes on.
    pub(super) fn hang(&self) -> bool {
        let mut late = self.late();
        late.retain(|held| held.strong_count() > 0);
        !late.is_empty()
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, TOO_SLOW)
}
