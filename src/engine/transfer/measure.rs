//! What is measured while a blob is read.

use std::time::Duration;

/// What is measured for the next decision.
#[derive(Debug)]
pub(super) struct Round {
    /// Parts to be given before it begins: they were asked for under other circumstances.
    pub(super) skip: usize,
    /// Parts to be given before it ends.
    pub(super) left: usize,
    /// Offset at which it began.
    pub(super) from: u64,
    /// When it began.
    pub(super) since: Duration,
    pub(super) waited: Duration,
}

impl Round {
    /// One that begins now and ends with the part whose turn it is.
    pub(super) fn new(from: u64, since: Duration) -> Self {
        Self {
            skip: 0,
            left: 1,
            from,
            since,
            waited: Duration::ZERO,
        }
    }
}

/// Measures what the source gives while we wait for it; time spent waiting for sinks does not count.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) bytes: u64,
    pub(super) waited: Duration,
}

/// Bytes after which a rate is believed: the first ones come out of buffers that were filled before we asked.
const MEASURED_FROM: u64 = 4 * 1024 * 1024;

impl Meter {
    pub(super) fn rate(&self) -> Option<u64> {
        if self.bytes < MEASURED_FROM {
            return None;
        }
        let micros = u64::try_from(self.waited.as_micros()).unwrap_or(u64::MAX).max(1);
        Some(self.bytes.saturating_mul(1_000_000) / micros)
    }
}
