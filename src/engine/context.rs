//! What everything that works for one run shares.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::blob_table::BlobTable;
use super::control::Control;
use super::event::Events;
use super::fallback_tags::TagLocks;
use super::import::RunImports;
use super::ledger::Ledger;
use super::manifests::ManifestCache;
use super::metered::Meters;
use super::planned::PlannedTags;
use super::transfer::TransferContext;
use super::turn::Turn;
use crate::clock::Clock;
use crate::oci::Digest;
use crate::registry::Endpoint;
use crate::rules::{RegistryName, Rule};
use crate::store::{RunId, Store};

/// What is done about other sources that want the same destination tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claims {
    /// The run claims what it wants.
    Make,
    /// Nothing is changed, claims are only looked at.
    Look,
    /// A copy by hand is nobody's rival.
    Ignore,
}

/// What a run does about images that failed for good before.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunParking {
    /// They wait until their time has come.
    pub(super) obeys: bool,
    /// From when their time counts.
    pub(super) started_at: Timestamp,
}

/// One run's view of the world. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct RunContext {
    pub(super) run: RunId,
    pub(super) rule: Arc<Rule>,
    pub(super) source: Endpoint,
    pub(super) destinations: Arc<BTreeMap<RegistryName, Endpoint>>,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) control: Control,
    pub(super) ledger: Ledger,
    pub(super) events: Events,
    pub(super) blobs: BlobTable,
    /// The place of the image that is being copied.
    pub(super) turn: Turn,
    pub(super) manifests: ManifestCache,
    pub(super) tag_locks: TagLocks,
    pub(super) meters: Meters,
    pub(super) planned: PlannedTags,
    pub(super) imports: RunImports,
    pub(super) transfer: TransferContext,
    /// Process that executes, as jobs record it.
    pub(super) owner: Arc<str>,
    pub(super) claims: Claims,
    /// True after a run that did not end well: a repository without tags may hold blobs of ours, so each is looked for.
    pub(super) careful: bool,
    /// True where memory is what is in doubt: a repair looks for every blob.
    pub(super) looks_anew: bool,
    /// Monotonic time at its start, as [`Clock::elapsed`] gives it.
    pub(super) began: Duration,
    /// Where the run stands in time and among failures of earlier ones.
    pub(super) parking: RunParking,
    /// Ends that have moved, of which nothing that is remembered may be used. Empty where a run writes: it has forgotten that.
    pub(super) moved: Arc<BTreeSet<String>>,
    /// Blobs whose bytes at a destination were found damaged: that they are there is no reason not to send them.
    pub(super) damaged: Arc<BTreeSet<Digest>>,
}
