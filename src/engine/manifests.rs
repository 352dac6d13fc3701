//! Manifests read earlier, in this process or before it, and whole trees of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;

use super::choice::Rewritten;
use super::fault::Fault;
use super::several::unordered;
use crate::clock::Clock;
use crate::oci::{Descriptor, Digest, Manifest, ManifestShape, Reference, RepositoryName, Tag, media_type};
use crate::plan::{ErrorKind, ImageTree};
use crate::registry::{Endpoint, Side};
use crate::store::{NewManifest, Store};

/// Bytes of manifests kept in memory at most. A manifest has some kilobytes, so this holds those of the images under way many times over.
const KEPT_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of manifests kept in the state at most, give or take [`TRIM_EVERY`]: some ten thousand images.
const STORED_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes that are stored before the state is looked through for what must go.
const TRIM_EVERY: usize = 4 * 1024 * 1024;

/// Bytes that wait to be stored at most.
const WAITING_BYTES: usize = 1024 * 1024;

/// A stored manifest that is used again is marked so once in this time, as each mark is a write.
const MARK_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Children read at once for one image.
const CHILDREN_AT_ONCE: usize = 8;

/// Indexes within indexes at most, and manifests of one image at most: far above real images, far below what hurts.
const DEEPEST: usize = 8;
const MOST_MANIFESTS: usize = 4_000;

/// Bytes of all manifests of one image at most; some thousand platforms fit.
const MOST_BYTES: usize = 32 * 1024 * 1024;

/// Manifests by place and digest: content that cannot change. What one repository gave is no proof that another one holds
/// it, so the place is part of the key. Bounded, oldest out.
///
/// What registries gave is also kept in the state database, so that a retry, another destination or the next process does
/// not read it again. It is written in batches: see [`ManifestCache::flush`].
#[derive(Clone, Debug)]
pub(super) struct ManifestCache {
    kept: Arc<Mutex<Kept>>,
    state: Option<(Store, Clock)>,
}

#[derive(Debug, Default)]
struct Kept {
    manifests: HashMap<Key, Manifest>,
    order: VecDeque<Key>,
    bytes: usize,
    /// Read, and not yet in the state.
    waiting: Vec<NewManifest>,
    waiting_bytes: usize,
    /// Numbers of stored manifests to be marked as used.
    used: BTreeSet<i64>,
    /// Bytes stored since the state was looked through; `None` before the first time.
    stored: Option<usize>,
}

/// Registry, repository, digest.
type Key = (String, RepositoryName, Digest);

fn key(endpoint: &Endpoint, repository: &RepositoryName, digest: &Digest) -> Key {
    (endpoint.name().to_owned(), repository.clone(), digest.clone())
}

impl Kept {
    /// False where it was kept already.
    fn keep(&mut self, key: Key, manifest: &Manifest) -> bool {
        if self.manifests.insert(key.clone(), manifest.clone()).is_some() {
            return false;
        }
        self.bytes += manifest.bytes().len();
        self.order.push_back(key);
        while self.bytes > KEPT_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(manifest) = self.manifests.remove(&oldest) {
                self.bytes -= manifest.bytes().len();
            }
        }
        true
    }
}

impl ManifestCache {
    /// For the life of this value only.
    pub(super) fn in_memory() -> Self {
        Self {
            kept: Arc::default(),
            state: None,
        }
    }

    /// In memory, and beyond it in the state.
    pub(super) fn stored(store: Store, clock: Clock) -> Self {
        Self {
            kept: Arc::default(),
            state: Some((store, clock)),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a manifest that an end gave; `tag`: under which tag, where not by digest.
    pub(super) async fn keep(
        &self,
        endpoint: &Endpoint,
        repository: &RepositoryName,
        tag: Option<&Tag>,
        manifest: &Manifest,
    ) {
        let full = {
            let mut kept = self.kept();
            let key = key(endpoint, repository, manifest.digest());
            let new = kept.keep(key, manifest);
            // A layout is read as fast as the state.
            let remote = matches!(endpoint, Endpoint::Registry(_));
            if remote && self.state.is_some() && (new || tag.is_some()) {
                kept.waiting_bytes += manifest.bytes().len();
                kept.waiting.push(NewManifest {
                    registry: endpoint.name().to_owned(),
                    repository: repository.clone(),
                    tag: tag.cloned(),
                    digest: manifest.digest().clone(),
                    media_type: manifest.media_type().to_owned(),
                    bytes: manifest.bytes().clone(),
                });
            }
            kept.waiting_bytes > WAITING_BYTES
        };
        if full {
            self.flush().await;
        }
    }

    /// Writes what waits to the state, in one transaction. To be called when a group of manifests has been read; what a
    /// process that dies before has read is read again.
    pub(super) async fn flush(&self) {
        let Some((store, clock)) = &self.state else { return };
        let (waiting, used, trim) = {
            let mut kept = self.kept();
            let (waiting, used) = (std::mem::take(&mut kept.waiting), std::mem::take(&mut kept.used));
            if waiting.is_empty() && used.is_empty() {
                return;
            }
            let bytes = std::mem::take(&mut kept.waiting_bytes);
            let stored = kept.stored.map(|stored| stored + bytes);
            let trim = stored.is_none_or(|stored| stored >= TRIM_EVERY);
            kept.stored = if trim { Some(0) } else { stored };
            (waiting, used, trim)
        };
        let used: Vec<i64> = used.into_iter().collect();
        let limit = trim.then_some(STORED_BYTES);
        if let Err(error) = store.keep_manifests(&waiting, &used, clock.now(), limit).await {
            tracing::warn!("cannot keep manifests: {error}");
        }
    }

    /// A manifest that the same repository gave in this process, while it is remembered.
    pub(super) fn peek(&self, endpoint: &Endpoint, repository: &RepositoryName, digest: &Digest) -> Option<Manifest> {
        let key = key(endpoint, repository, digest);
        self.kept().manifests.get(&key).cloned()
    }

    /// A manifest that the same repository gave before; from the state only where its bytes still have the digest.
    async fn get(&self, endpoint: &Endpoint, repository: &RepositoryName, digest: &Digest) -> Option<Manifest> {
        let key = key(endpoint, repository, digest);
        if let Some(manifest) = self.kept().manifests.get(&key) {
            return Some(manifest.clone());
        }
        let (store, clock) = self.state.as_ref()?;
        let found = store.kept_manifest(endpoint.name(), repository, digest).await;
        let found = found
            .inspect_err(|error| tracing::warn!("cannot look for a kept manifest: {error}"))
            .ok()
            .flatten()?;
        let manifest = Manifest::parse(Some(&found.media_type), found.bytes.into(), Some(digest));
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(error) => {
                tracing::warn!(%digest, "a manifest kept in the state is damaged and is read again: {error}");
                if let Err(error) = store.drop_manifest(found.id).await {
                    tracing::warn!("cannot drop a damaged manifest: {error}");
                }
                return None;
            }
        };
        let age = clock.now().duration_since(found.used_at);
        let mut kept = self.kept();
        if age.unsigned_abs() >= MARK_EVERY {
            kept.used.insert(found.id);
        }
        kept.keep(key, &manifest);
        Some(manifest)
    }

    /// Which of these manifests are indexes, as far as the same repository gave them before.
    pub(super) async fn shapes(
        &self,
        endpoint: &Endpoint,
        repository: &RepositoryName,
        digests: &[&Digest],
    ) -> BTreeMap<Digest, bool> {
        let mut known = BTreeMap::new();
        if let Some((store, _)) = &self.state {
            let kept = store.kept_media_types(endpoint.name(), repository, digests).await;
            let kept = kept.inspect_err(|error| tracing::warn!("cannot look for kept manifests: {error}"));
            let kept = kept.unwrap_or_default().into_iter();
            known.extend(kept.map(|(digest, media_type)| (digest, media_type::is_index(&media_type))));
        }
        for digest in digests {
            if let Some(manifest) = self.peek(endpoint, repository, digest) {
                known.insert((*digest).clone(), manifest.shape() == ManifestShape::Index);
            }
        }
        known
    }

    /// Those of `tags` whose manifest was read before and kept: what they point to is cheaper to ask for than to read.
    pub(super) async fn tags_read_before(
        &self,
        endpoint: &Endpoint,
        repository: &RepositoryName,
        tags: &[Tag],
    ) -> BTreeSet<Tag> {
        let Some((store, _)) = &self.state else {
            return BTreeSet::new();
        };
        let found = store.kept_tags(endpoint.name(), repository, tags).await;
        found
            .inspect_err(|error| tracing::warn!("cannot look for kept manifests: {error}"))
            .unwrap_or_default()
    }
}

/// True where a manifest would not have to be read from the end.
pub(super) async fn is_kept(
    cache: &ManifestCache,
    endpoint: &Endpoint,
    repository: &RepositoryName,
    digest: &Digest,
) -> bool {
    cache.get(endpoint, repository, digest).await.is_some()
}

/// Reads a manifest by digest, from memory where it was read before. `None` where the end does not have it.
pub(super) async fn read(
    cache: &ManifestCache,
    endpoint: &Endpoint,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<Manifest>, Fault> {
    if let Some(manifest) = cache.get(endpoint, repository, digest).await {
        return Ok(Some(manifest));
    }
    let reference = Reference::Digest(digest.clone());
    let manifest = endpoint
        .get_manifest(repository, &reference)
        .await
        .map_err(|error| error.on(Side::Source))?;
    if let Some(manifest) = &manifest {
        cache.keep(endpoint, repository, None, manifest).await;
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
    descend(cache, endpoint, repository, root, &BTreeMap::new(), |_| true).await
}

/// As [`read_tree`], for an image of which some indexes are not the source's.
pub(super) async fn read_rewritten(
    cache: &ManifestCache,
    endpoint: &Endpoint,
    repository: &RepositoryName,
    rewritten: &Rewritten,
) -> Result<ImageTree, Fault> {
    let root = rewritten.top.clone();
    descend(cache, endpoint, repository, root, &rewritten.within, |_| true).await
}

/// Reads what a top manifest reaches by entries of which `wanted` holds; the top manifest is among what is given.
pub(super) async fn read_some(
    cache: &ManifestCache,
    endpoint: &Endpoint,
    repository: &RepositoryName,
    root: Manifest,
    wanted: impl Fn(&Descriptor) -> bool,
) -> Result<BTreeMap<Digest, Manifest>, Fault> {
    let tree = descend(cache, endpoint, repository, root, &BTreeMap::new(), wanted).await?;
    Ok(tree.manifests)
}

/// Reads what a top manifest reaches by entries that are to be followed, but for those manifests that are `known`.
async fn descend(
    cache: &ManifestCache,
    endpoint: &Endpoint,
    repository: &RepositoryName,
    root: Manifest,
    known: &BTreeMap<Digest, Manifest>,
    follow: impl Fn(&Descriptor) -> bool,
) -> Result<ImageTree, Fault> {
    let mut tree = ImageTree {
        root: root.digest().clone(),
        manifests: BTreeMap::new(),
    };
    let mut bytes = root.bytes().len();
    let mut level = vec![root];
    for _ in 0..DEEPEST {
        let mut wanted: Vec<Digest> = Vec::new();
        for manifest in level {
            let entries = manifest.entries().iter().filter(|entry| follow(entry));
            wanted.extend(entries.map(|entry| entry.digest.clone()));
            tree.manifests.insert(manifest.digest().clone(), manifest);
        }
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|digest| !tree.manifests.contains_key(digest));
        if wanted.is_empty() {
            cache.flush().await;
            return Ok(tree);
        }
        if tree.manifests.len() + wanted.len() > MOST_MANIFESTS {
            break;
        }
        let each_child = wanted.into_iter().map(|digest| async move {
            if let Some(manifest) = known.get(&digest) {
                return Ok(manifest.clone());
            }
            let manifest = read(cache, endpoint, repository, &digest).await?;
            manifest.ok_or_else(|| missing_child(endpoint, repository, &digest))
        });
        let mut reading = unordered(each_child, CHILDREN_AT_ONCE);
        level = Vec::new();
        while let Some(manifest) = reading.next().await {
            let manifest = manifest?;
            bytes += manifest.bytes().len();
            // One level alone may have thousands.
            if bytes > MOST_BYTES {
                return Err(too_large(endpoint, repository, &tree.root));
            }
            level.push(manifest);
        }
    }
    Err(too_large(endpoint, repository, &tree.root))
}

fn too_large(endpoint: &Endpoint, repository: &RepositoryName, root: &Digest) -> Fault {
    let place = format!("{}/{repository}@{root}", endpoint.name());
    Fault::new(
        ErrorKind::TooLarge,
        format!(
            "{place} has more than {MOST_MANIFESTS} manifests, more than {} MiB of them or more than {DEEPEST} levels of indexes: \
             leave the tag out of the rule, or select platforms",
            MOST_BYTES >> 20
        ),
    )
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
