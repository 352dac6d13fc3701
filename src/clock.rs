//! The one clock: made in `main`, handed to whatever needs the time, held still by tests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// Wall time and monotonic time. Cheap to clone; clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
enum Inner {
    System { start: Instant },
    Manual { wall: Mutex<Timestamp>, start: Instant },
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self(Arc::new(Inner::System { start: Instant::now() }))
    }

    /// A wall clock that moves only by [`Clock::set`]; monotonic time is tokio's, which tests can pause.
    pub fn manual(wall: Timestamp) -> Self {
        Self(Arc::new(Inner::Manual {
            wall: Mutex::new(wall),
            start: Instant::now(),
        }))
    }

    /// The wall time.
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
            Inner::System { .. } => Timestamp::now(),
            Inner::Manual { wall, .. } => *wall.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        }
    }

    /// Moves a manual clock's wall time; nothing happens to the machine's.
    pub fn set(&self, to: Timestamp) {
        if let Inner::Manual { wall, .. } = &*self.0 {
            *wall.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = to;
        }
    }

    /// Monotonic time since the clock was made: unaffected by jumps of the wall clock.
    pub fn elapsed(&self) -> Duration {
        match &*self.0 {
            Inner::System { start } | Inner::Manual { start, .. } => start.elapsed(),
        }
    }
}
