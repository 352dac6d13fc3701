//! Manifests read in this process, and whole trees of them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;

use super::fault::Fault;
use super::several::unordered;
use crate::oci::{Digest, Manifest, Reference, RepositoryName};
use crate::plan::{ErrorKind, ImageTree};
use crate::registry::{Endpoint, Side};

/// Bytes of manifests kept at most. A manifest has some kilobytes, so this holds those of the images under way many times over.
const KEPT_BYTES: usize = 8 * 1024 * 1024;

/// Children read at once for one image.
const CHILDREN_AT_ONCE: usize = 8;

/// Indexes within indexes at most, and manifests of one image at most: far above real images, far below what hurts.
const DEEPEST: usize = 8;
const MOST_MANIFESTS: usize = 4_000;

/// Bytes of all manifests of one image at most; some thousand platforms fit.
const MOST_BYTES: usize = 32 * 1024 * 1024;

/// Manifests by place and digest: content that cannot change. What one repository gave is no proof that another one holds
/// it, so the place is part of the key. Bounded, oldest out.
#[derive(Clone, Debug, Default)]
pub(super) struct ManifestCache(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    manifests: HashMap<Key, Manifest>,
    order: VecDeque<Key>,
    bytes: usize,
}

/// Registry, repository, digest.
type Key = (String, RepositoryName, Digest);

fn key(endpoint: &Endpoint, repository: &RepositoryName, digest: &Digest) -> Key {
    (endpoint.name().to_owned(), repository.clone(), digest.clone())
}

impl ManifestCache {
    fn get(&self, key: &Key) -> Option<Manifest> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.manifests.get(key).cloned()
    }

    pub(super) fn keep(&self, endpoint: &Endpoint, repository: &RepositoryName, manifest: &Manifest) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(endpoint, repository, manifest.digest());
        if kept.manifests.insert(key.clone(), manifest.clone()).is_some() {
            return;
        }
        kept.bytes += manifest.bytes().len();
        kept.order.push_back(key);
        while kept.bytes > KEPT_BYTES {
            let Some(oldest) = kept.order.pop_front() else { break };
            if let Some(manifest) = kept.manifests.remove(&oldest) {
                kept.bytes -= manifest.bytes().len();
            }
        }
    }
}

/// True where a manifest would not have to be read from the end.
pub(super) async fn is_kept(
    cache: &ManifestCache,
    endpoint: &Endpoint,
    repository: &RepositoryName,
    digest: &Digest,
) -> bool {
    cache.get(&key(endpoint, repository, digest)).is_some()
}

/// Reads a manifest by digest, from memory where it was read before. `None` where the end does not have it.
pub(super) async fn read(
    cache: &ManifestCache,
    endpoint: &Endpoint,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<Manifest>, Fault> {
    if let Some(manifest) = cache.get(&key(endpoint, repository, digest)) {
        return Ok(Some(manifest));
    }
    let reference = Reference::Digest(digest.clone());
    let manifest = endpoint
        .get_manifest(repository, &reference)
        .await
        .map_err(|error| error.on(Side::Source))?;
    if let Some(manifest) = &manifest {
        cache.keep(endpoint, repository, manifest);
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
    let mut bytes = 0;
    for _ in 0..DEEPEST {
        let mut wanted: Vec<Digest> = Vec::new();
        for manifest in level {
            bytes += manifest.bytes().len();
            wanted.extend(manifest.entries().iter().map(|entry| entry.digest.clone()));
            tree.manifests.insert(manifest.digest().clone(), manifest);
        }
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|digest| !tree.manifests.contains_key(digest));
        if wanted.is_empty() {
            return Ok(tree);
        }
        if tree.manifests.len() + wanted.len() > MOST_MANIFESTS || bytes > MOST_BYTES {
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
            "{}@{} has more than {MOST_MANIFESTS} manifests, more than {} MiB of them or more than {DEEPEST} levels of indexes",
            place(),
            tree.root,
            MOST_BYTES >> 20
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
