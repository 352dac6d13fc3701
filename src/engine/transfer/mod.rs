//! The one unit that moves bytes: a fetch of one source blob with one or more sinks, each with its own bounded
//! queue, offset, session and error.

mod attempts;
mod audience;
mod feed;
mod feeding;
mod fetch;
mod measure;
mod origin;
mod part;
mod pool;
mod session;
mod sink;
mod spool;
mod trust;

pub(super) use attempts::{Moved, move_blob};
pub(super) use origin::BLOB_RANGES;
pub(super) use pool::TransferPool;
pub(super) use session::UPLOAD_HABIT;
pub(super) use spool::Spool;
pub(super) use trust::RangeTrust;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::blob_table::BlobTable;
use super::control::Control;
use super::event::Events;
use super::fault::Fault;
use super::ledger::Ledger;
use super::pace::Pace;
use crate::clock::Clock;
use crate::oci::{Digest, RepositoryName};
use crate::plan::BlobAction;
use crate::registry::{Endpoint, Side};
use crate::rules::RetryPolicy;
use crate::store::{RunId, Store};

/// What every transfer of a run needs.
#[derive(Clone, Debug)]
pub(super) struct TransferContext {
    pub(super) run: RunId,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) control: Control,
    pub(super) ledger: Ledger,
    pub(super) events: Events,
    pub(super) blobs: BlobTable,
    pub(super) retry: RetryPolicy,
    pub(super) pool: TransferPool,
    pub(super) spool: Option<Spool>,
    pub(super) pace: Pace,
}

/// The blob and where it is read from.
#[derive(Clone, Debug)]
pub(super) struct SourceBlob {
    pub(super) endpoint: Endpoint,
    pub(super) repository: RepositoryName,
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// New for each transfer.
    pub(super) ranges: RangeTrust,
}

impl SourceBlob {
    /// The same blob with a place to read it, held until it is dropped: a fetch whose source breaks off finds it still free.
    async fn with_reading_place(&self) -> Self {
        Self {
            endpoint: self.endpoint.with_reading_place().await,
            ..self.clone()
        }
    }
}

/// One destination repository that should hold the blob.
#[derive(Clone, Debug)]
pub(super) struct Sink {
    pub(super) endpoint: Endpoint,
    pub(super) repository: RepositoryName,
    pub(super) action: BlobAction,
    /// Bytes sent so far, over all attempts.
    sent: Arc<AtomicU64>,
}

impl Sink {
    pub(super) fn new(endpoint: Endpoint, repository: RepositoryName, action: BlobAction) -> Self {
        Self {
            endpoint,
            repository,
            action,
            sent: Arc::default(),
        }
    }

    fn place(&self) -> String {
        format!("{}/{}", self.endpoint.name(), self.repository)
    }
}

/// A number in 0..1 that differs from call to call and process to process: jitter needs no more.
pub(super) fn random_fraction() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let hash = std::collections::hash_map::RandomState::new().build_hasher().finish();
    // The upper 53 bits fill a double's mantissa.
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

fn at_source(mut fault: Fault) -> Fault {
    fault.side = Some(Side::Source);
    fault
}
