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
    /// Blobs that were looked for and are not there.
    pub missing: BTreeSet<Digest>,
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
        let walk = self.walk();
        match walk.missing {
            Some(missing) => Err(missing),
            None => Ok(walk.manifests),
        }
    }

    /// Distinct blobs that must be at the destination (foreign layers left out), largest first. Of a tree with missing
    /// manifests, those of the manifests that are there.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        distinct_blobs(&self.walk().manifests)
    }

    /// Foreign layers that clients fetch from the addresses that the manifest gives, each once.
    fn foreign(&self) -> Vec<&Descriptor> {
        let walk = self.walk();
        let copied: BTreeSet<&Digest> = distinct_blobs(&walk.manifests)
            .iter()
            .map(|blob| &blob.digest)
            .collect();
        let mut seen = BTreeSet::new();
        let blobs = walk.manifests.iter().flat_map(|manifest| manifest.blobs());
        blobs
            .filter(|blob| stays_away(blob) && !copied.contains(&blob.digest) && seen.insert(&blob.digest))
            .collect()
    }

    /// Visits what the root reaches. No recursion, as the depth is whatever a registry serves; a manifest is entered
    /// once, so that shared children come once and nothing goes round in circles.
    fn walk(&self) -> Walk<'_> {
        let mut found = Walk {
            manifests: Vec::with_capacity(self.manifests.len()),
            missing: None,
        };
        let Some(root) = self.manifests.get(&self.root) else {
            found.missing = Some(IncompleteTree {
                parent: self.root.clone(),
                missing: self.root.clone(),
            });
            return found;
        };
        let mut entered = BTreeSet::from([&self.root]);
        let mut open = vec![(&self.root, root, root.entries().iter())];
        while let Some((digest, manifest, entries)) = open.last_mut() {
            let Some(entry) = entries.next() else {
                found.manifests.push(*manifest);
                open.pop();
                continue;
            };
            if !entered.insert(&entry.digest) {
                continue;
            }
            match self.manifests.get(&entry.digest) {
                Some(child) => open.push((&entry.digest, child, child.entries().iter())),
                None => {
                    found.missing.get_or_insert_with(|| IncompleteTree {
                        parent: (*digest).clone(),
                        missing: entry.digest.clone(),
                    });
                }
            }
        }
        found
    }
}

struct Walk<'a> {
    /// Children before parents.
    manifests: Vec<&'a Manifest>,
    /// The first entry that was not read.
    missing: Option<IncompleteTree>,
}

/// True for a layer that clients fetch from elsewhere. One that gives no address can only come from a registry, so it
/// is copied like any other (image-spec `layer.md`, "Non-Distributable Layers").
fn stays_away(blob: &Descriptor) -> bool {
    blob.is_foreign() && !blob.urls.is_empty()
}

fn distinct_blobs<'a>(manifests: &[&'a Manifest]) -> Vec<&'a Descriptor> {
    let mut distinct: BTreeMap<&Digest, &Descriptor> = BTreeMap::new();
    for blob in manifests.iter().flat_map(|manifest| manifest.blobs()) {
        if !stays_away(blob) {
            distinct.entry(&blob.digest).or_insert(blob);
        }
    }
    let mut blobs: Vec<&Descriptor> = distinct.into_values().collect();
    // The sort keeps the order by digest among equals, so that a plan is the same every time.
    blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
    blobs
}

/// Plans one image. `tag`: `None` for an image that is copied by digest only.
/// # Errors
/// An entry that is not among the manifests.
pub fn image_plan(tree: &ImageTree, tag: Option<&Tag>, known: &KnownContent) -> Result<ImagePlan, IncompleteTree> {
    let manifests = tree.children_first()?;
    let action = |blob: &Descriptor| {
        if known.present.contains(&blob.digest) {
            return BlobAction::Present;
        }
        let mount_from = known.mountable.get(&blob.digest).cloned();
        if known.repository_absent || known.missing.contains(&blob.digest) {
            BlobAction::Send { mount_from }
        } else {
            BlobAction::Find { mount_from }
        }
    };
    let blobs = distinct_blobs(&manifests)
        .into_iter()
        .map(|blob| BlobStep {
            digest: blob.digest.clone(),
            size: blob.size,
            action: action(blob),
        })
        .collect();
    let mut steps: Vec<ManifestStep> = manifests
        .iter()
        .map(|manifest| ManifestStep {
            digest: manifest.digest().clone(),
            reference: Reference::Digest(manifest.digest().clone()),
        })
        .collect();
    if let (Some(top), Some(tag)) = (steps.last_mut(), tag) {
        top.reference = Reference::Tag(tag.clone());
    }
    Ok(ImagePlan {
        blobs,
        manifests: steps,
        foreign: tree.foreign().into_iter().cloned().collect(),
    })
}

#[cfg(test)]
mod tests;
