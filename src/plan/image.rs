//! The plan of one image at one destination: ordered steps.

use std::collections::{BTreeMap, BTreeSet};

use crate::oci::{Descriptor, Digest, Manifest, Reference, RepositoryName, Tag};

/// A top manifest with every manifest that it reaches as an entry. Subjects are not followed.
#[derive(Clone, Debug)]
pub struct ImageTree {
    /// Digest of the top manifest.
    pub root: Digest,
    /// All manifests by digest.
    pub manifests: BTreeMap<Digest, Manifest>,
}

/// What is known of the destination repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownContent {
    /// True when the repository is not there, so that nothing needs to be looked for.
    pub repository_absent: bool,
    /// Blobs that are there for certain (seen or written in this run, or remembered).
    pub present: BTreeSet<Digest>,
    /// Blobs that another repository of the same registry holds.
    pub mountable: BTreeMap<Digest, RepositoryName>,
}

/// How one blob gets to the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobAction {
    /// It is there.
    Present,
    /// Look first; then mount or upload.
    Find {
        /// A repository of the same registry to mount it from.
        mount_from: Option<RepositoryName>,
    },
    /// It is not there for certain: mount it from this repository, or upload it.
    Send {
        /// A repository of the same registry to mount it from.
        mount_from: Option<RepositoryName>,
    },
}

/// One distinct blob of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobStep {
    /// The blob.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// How it gets there.
    pub action: BlobAction,
}

/// One manifest to put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestStep {
    /// The manifest.
    pub digest: Digest,
    /// Under which reference: its digest, or the tag for the top manifest.
    pub reference: Reference,
}

/// Ordered steps: all blobs (in any order, several at once), then the manifests in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagePlan {
    /// Distinct blobs, largest first.
    pub blobs: Vec<BlobStep>,
    /// Children before parents; the last is the top manifest.
    pub manifests: Vec<ManifestStep>,
    /// Foreign layers, which are not copied.
    pub foreign: Vec<Descriptor>,
}

/// A manifest that an index names is not among those read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the manifest {missing} that {parent} names was not read")]
pub struct IncompleteTree {
    /// The index.
    pub parent: Digest,
    /// Its entry.
    pub missing: Digest,
}

impl ImageTree {
    /// Every manifest, children before parents, the root last.
    /// # Errors
    /// An entry that is not among the manifests.
    pub fn children_first(&self) -> Result<Vec<&Manifest>, IncompleteTree> {
        unimplemented!()
    }

    /// Distinct blobs that must be at the destination (foreign layers left out), largest first.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        unimplemented!()
    }
}

/// Plans one image. `tag`: `None` for an image that is copied by digest only.
/// # Errors
/// An entry that is not among the manifests.
pub fn image_plan(tree: &ImageTree, tag: Option<&Tag>, known: &KnownContent) -> Result<ImagePlan, IncompleteTree> {
    let _ = (tree, tag, known);
    unimplemented!()
}
