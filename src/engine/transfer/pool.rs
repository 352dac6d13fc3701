//! What all transfers of a process share: memory, and what they found out about sources.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::pace::LaggardReads;
use crate::plan::{AHEAD, FoundFlows};

/// Memory for pieces that are filled before they are sent and for parts that came before their turn, for the whole process,
/// in MiB. Sixteen hold three pieces of the usual 5 MiB, so that one fills while others are sent.
const PIECE_POOL_MIB: usize = 16;

const MIB: u64 = 1024 * 1024;

/// How long it is believed how a source is read best: links change with the time of day.
const FOUND_LIFE: Duration = Duration::from_secs(600);

/// Shared by all transfers of a process.
#[derive(Clone, Debug)]
pub(in crate::engine) struct TransferPool {
    pieces: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
    sources: Arc<Mutex<HashMap<String, SourceFacts>>>,
}

#[derive(Clone, Debug, Default)]
struct SourceFacts {
    laggards: LaggardReads,
    /// Bytes a second.
    rate: Option<u64>,
    /// Until when it is believed.
    found: Option<(FoundFlows, Duration)>,
}

/// Memory for a part that comes before its turn.
#[derive(Debug)]
pub(super) struct Memory {
    _ahead: OwnedSemaphorePermit,
    _pieces: OwnedSemaphorePermit,
}

impl Default for TransferPool {
    fn default() -> Self {
        Self {
            pieces: Arc::new(Semaphore::new(PIECE_POOL_MIB)),
            ahead: Arc::new(Semaphore::new(mebibytes(AHEAD) as usize)),
            sources: Arc::default(),
        }
    }
}

fn mebibytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(MIB)).unwrap_or(u32::MAX)
}

impl TransferPool {
    /// Memory to fill a piece of so many bytes; waits for it.
    pub(super) async fn piece(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        // Never closed.
        Arc::clone(&self.pieces).acquire_many_owned(mebibytes(bytes)).await.ok()
    }

    /// Memory to fill a piece of so many bytes, where it is free at once.
    pub(super) fn spare_piece(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.pieces).try_acquire_many_owned(mebibytes(bytes)).ok()
    }

    /// Memory for a part of so many bytes, where it is free at once. Never waited for, and never more than half of all, as
    /// it is given back only when the destination takes the bytes: whoever fills a piece may have to wait meanwhile.
    pub(super) fn spare_memory(&self, bytes: u64) -> Option<Memory> {
        let ahead = Arc::clone(&self.ahead).try_acquire_many_owned(mebibytes(bytes)).ok()?;
        Some(Memory {
            _ahead: ahead,
            _pieces: self.spare_piece(bytes)?,
        })
    }

    /// What is read of a source for those that were left behind.
    pub(in crate::engine) fn laggards(&self, registry: &str) -> LaggardReads {
        self.sources().entry(registry.to_owned()).or_default().laggards.clone()
    }

    /// Bytes a second that a source gave lately.
    pub(super) fn rate(&self, registry: &str) -> Option<u64> {
        self.sources().get(registry)?.rate
    }

    pub(super) fn record_rate(&self, registry: &str, bytes_per_second: u64) {
        self.sources().entry(registry.to_owned()).or_default().rate = Some(bytes_per_second);
    }

    /// How a large blob of a source was read best, not long before `now`.
    pub(super) fn found(&self, registry: &str, now: Duration) -> Option<FoundFlows> {
        let (found, until) = self.sources().get(registry)?.found?;
        (now < until).then_some(found)
    }

    pub(super) fn record_found(&self, registry: &str, found: FoundFlows, now: Duration) {
        self.sources().entry(registry.to_owned()).or_default().found = Some((found, now + FOUND_LIFE));
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<String, SourceFacts>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
