//! Whether a source's ranges are believed: a proxy may answer one with the bytes of another, which only the digest of the whole
//! blob shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::origin::BLOB_RANGES;
use super::{SourceBlob, TransferContext};

/// Value of [`BLOB_RANGES`] where ranges brought other bytes than the whole blob has.
pub(super) const WRONG: &str = "wrong";

/// How long that is believed. Short, as it makes every resumed read begin anew, and proxies are mended.
const WRONG_LIFE: Duration = Duration::from_secs(3600);

/// All bytes so far came with a whole blob.
const UNUSED: u8 = 0;
/// Some came by a range.
const USED: u8 = 1;
/// Ranges are not asked for any more.
const LOST: u8 = 2;

/// The ranges of one blob over all attempts of a transfer. Cheap to clone; clones are of the same transfer.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct RangeTrust(Arc<AtomicU8>);

impl RangeTrust {
    /// Bytes come by a range.
    pub(super) fn used(&self) {
        let _ = self.swap(UNUSED, USED);
    }

    /// After bytes that are not the blob's: no ranges from now on. True where the wrong ones may have come by a range, so that
    /// nothing is said about the blob yet.
    pub(super) fn lose(&self) -> bool {
        self.swap(USED, LOST)
    }

    /// True where the blob is read from its first byte on, without ranges.
    pub(super) fn is_lost(&self) -> bool {
        self.0.load(Ordering::Relaxed) == LOST
    }

    fn swap(&self, from: u8, to: u8) -> bool {
        let swapped = self.0.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        swapped.is_ok()
    }
}

/// Remembers that the source's ranges are wrong, once the same blob came whole and right.
pub(super) async fn remember_wrong_ranges(context: &TransferContext, source: &SourceBlob) {
    let registry = source.endpoint.name();
    tracing::warn!(
        source = registry, digest = %source.digest,
        "parts of a blob had other bytes than the blob that came whole: no parts are asked for there for an hour; a proxy \
         before the registry may answer ranges wrongly"
    );
    let evidence = "a blob read by ranges had another digest than the same one read whole";
    let now = context.clock.now();
    let learnt = context
        .store
        .learn(registry, "*", BLOB_RANGES, WRONG, evidence, now, now + WRONG_LIFE);
    if let Err(error) = learnt.await {
        tracing::warn!("cannot keep what was learnt of {registry}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bytes_that_came_by_a_range_are_doubted_and_only_once() {
        let trust = RangeTrust::default();
        assert!(!trust.lose(), "the blob came whole");
        trust.used();
        assert!(!trust.is_lost());
        assert!(trust.lose() && trust.is_lost());
        trust.used();
        assert!(!trust.lose() && trust.is_lost(), "once");
    }
}
