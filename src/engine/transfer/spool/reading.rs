//! The bytes of a blob in order: out of the spool as far as it holds them, then from the source, which fills the spool.

use bytes::Bytes;
use tokio::sync::Mutex;

use super::SpoolFile;
use crate::engine::fault::Fault;
use crate::engine::transfer::origin::Origin;
use crate::engine::transfer::{SourceBlob, TransferContext};
use crate::plan::{ErrorKind, SpoolDecision, SpoolFacts, keep_in_spool, may_be_spooled, spool_decision};
use crate::registry::Endpoint;

/// Bytes that are read from the file at once.
const BLOCK: u64 = 512 * 1024;

/// Bytes that are read again so that the file has no hole: what a killed process had sent but not written yet is less.
const LARGEST_GAP: u64 = 8 * 1024 * 1024;

/// One blob's file over all attempts of a transfer.
#[derive(Debug, Default)]
pub(in crate::engine::transfer) struct Slot(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// Nobody has asked for it yet.
    #[default]
    Unasked,
    /// This transfer goes without.
    Without,
    Ours(SpoolFile),
}
