//! Manifests read in this process, and whole trees of them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;

use super::fault::Fault;
use super::several::unordered;
use crate::oci::{Digest, Manifest, ManifestShape, Reference, RepositoryName};
use crate::plan::{ErrorKind, ImageTree};
use crate::registry::{Endpoint, Side};

/// Bytes of manifests kept at most. A manifest has some kilobytes, so this holds those of the images under way many times over.
const KEPT_BYTES: usize = 8 * 1024 * 1024;

/// Children read at once for one image.
const CHILDREN_AT_ONCE: usize = 8;

/// Indexes within indexes at most, and manifests of one image at most: far above real images, far below what hurts.
const DEEPEST: usize = 8;
const MOST_MANIFESTS: usize = 4_000;

/// Manifests by digest: content that cannot change. Bounded, oldest out.
#[derive(Clone, Debug, Default)]
pub(super) struct ManifestCache(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    manifests: HashMap<Digest, Manifest>,
    order: VecDeque<Digest>,
    bytes: usize,
}

impl ManifestCache {
    pub(super) fn get(&self, digest: &Digest) -> Option<Manifest> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.manifests.get(digest).cloned()
    }

    pub(super) fn keep(&self, manifest: &Manifest) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = manifest.digest().clone();
        if kept.manifests.insert(digest.clone(), manifest.clone()).is_some() {
            return;
        }
        kept.bytes += manifest.bytes().len();
        kept.order.push_back(digest);
        while kept.bytes > KEPT_BYTES {
            let Some(oldest) = kept.order.pop_front() else { break };
            if let Some(manifest) = kept.manifests.remove(&oldest) {
                kept.bytes -= manifest.bytes().len();
            }
        }
    }
}

/// Reads a manifest by digest, from memory where it was read before. `None` where the end does not have it.
pub(super) async fn read(
    cache: &ManifestCache,
    endpoint: &Endpoint,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<Manifest>, Fault> {
    if let Some(manifest) = cache.get(digest) {
        return Ok(Some(manifest));
    }
    let reference = Reference::Digest(digest.clone());
    let manifest = endpoint
        .get_manifest(repository, &reference)
        .await
        .map_err(|error| error.on(Side::Source))?;
    if let Some(manifest) = &manifest {
        cache.keep(manifest);
    }
    Ok(manifest)
}

/// Reads everything that a top manifest reaches.
pub(super) async fn read_tree(
    cache: &ManifestCache,
    endpoint: &Endpoint,
    repository: &RepositoryName,
    root: Manifest,
) -> Result<ImageTree, Fault> {
    let place = || format!("{}/{}", endpoint.name(), repository);
    let mut tree = ImageTree {
        root: root.digest().clone(),
        manifests: BTreeMap::new(),
    };
    let mut level = vec![root];
    for _ in 0..DEEPEST {
        let mut wanted: Vec<Digest> = Vec::new();
        for manifest in level {
            if manifest.shape() == ManifestShape::Schema1 {
                return Err(Fault::new(
                    ErrorKind::Unsupported,
                    format!(
                        "{}@{} is a Docker schema 1 image, which current registries refuse: pull and push it with a current client",
                        place(),
                        manifest.digest()
                    ),
                ));
            }
            wanted.extend(manifest.entries().iter().map(|entry| entry.digest.clone()));
            tree.manifests.insert(manifest.digest().clone(), manifest);
        }
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|digest| !tree.manifests.contains_key(digest));
        if wanted.is_empty() {
            return Ok(tree);
        }
        if tree.manifests.len() + wanted.len() > MOST_MANIFESTS {
            break;
        }
        let each_child = wanted.into_iter().map(|digest| async move {
            let manifest = read(cache, endpoint, repository, &digest).await?;
            manifest.ok_or_else(|| missing_child(endpoint, repository, &digest))
        });
        let mut reading = unordered(each_child, CHILDREN_AT_ONCE);
        level = Vec::new();
        while let Some(manifest) = reading.next().await {
            level.push(manifest?);
        }
    }
    Err(Fault::new(
        ErrorKind::TooLarge,
        format!(
            "{}@{} has more than {MOST_MANIFESTS} manifests or more than {DEEPEST} levels of indexes",
            place(),
            tree.root
        ),
    ))
}

fn missing_child(endpoint: &Endpoint, repository: &RepositoryName, digest: &Digest) -> Fault {
    let place = format!("{}/{repository}@{digest}", endpoint.name());
    let mut fault = Fault::new(
        ErrorKind::NotFound,
        format!("the image names the manifest {place}, which is not there: push the image again, or select platforms"),
    );
    fault.side = Some(Side::Source);
    fault
}
