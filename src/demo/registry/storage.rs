//! What a registry holds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::demo::images::SampleImage;
use crate::oci::{Algorithm, Digest, Hasher, RepositoryName, Tag};

/// Blobs are kept once; a repository holds those that were pushed or mounted into it.
#[derive(Debug, Default)]
pub(super) struct Storage {
    blobs: HashMap<Digest, Bytes>,
    repositories: BTreeMap<RepositoryName, Repository>,
    uploads: HashMap<(RepositoryName, String), Arc<Mutex<Upload>>>,
    uploads_started: u64,
}

#[derive(Debug, Default)]
pub(super) struct Repository {
    blobs: HashSet<Digest>,
    manifests: BTreeMap<Digest, Stored>,
    /// In no order that a client could rely on: newest first.
    tags: Vec<(Tag, Digest)>,
}

/// A manifest as it was pushed.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) media_type: String,
    pub(super) bytes: Bytes,
}

/// An upload under way. Bytes are hashed as they come.
pub(super) struct Upload {
    pub(super) data: Vec<u8>,
    pub(super) hasher: Hasher,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload")
            .field("bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}

impl Storage {
    pub(super) fn repository(&self, name: &RepositoryName) -> Option<&Repository> {
        self.repositories.get(name)
    }

    pub(super) fn repository_mut(&mut self, name: &RepositoryName) -> &mut Repository {
        self.repositories.entry(name.clone()).or_default()
    }

    /// Names of the repositories that hold a manifest or did, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &RepositoryName> {
        self.repositories.keys()
    }

    pub(super) fn blob(&self, name: &RepositoryName, digest: &Digest) -> Option<Bytes> {
        let repository = self.repositories.get(name)?;
        repository.blobs.get(digest)?;
        self.blobs.get(digest).cloned()
    }

    pub(super) fn add_blob(&mut self, name: &RepositoryName, digest: Digest, bytes: Bytes) {
        self.blobs.insert(digest.clone(), bytes);
        self.repository_mut(name).blobs.insert(digest);
    }

    /// Lets `to` hold a blob of `from`; false where `from` has none.
    pub(super) fn mount(&mut self, from: &RepositoryName, to: &RepositoryName, digest: &Digest) -> bool {
        let there = self.blob(from, digest).is_some();
        if there {
            self.repository_mut(to).blobs.insert(digest.clone());
        }
        there
    }

    pub(super) fn unlink_blob(&mut self, name: &RepositoryName, digest: &Digest) -> bool {
        self.repositories
            .get_mut(name)
            .is_some_and(|repository| repository.blobs.remove(digest))
    }

    pub(super) fn lose_blob(&mut self, digest: &Digest) -> bool {
        self.blobs.remove(digest).is_some()
    }

    pub(super) fn delete_repository(&mut self, name: &RepositoryName) -> bool {
        self.repositories.remove(name).is_some()
    }

    /// Bytes of all blobs.
    pub(super) fn used(&self) -> u64 {
        self.blobs.values().map(|bytes| bytes.len() as u64).sum()
    }

    pub(super) fn start_upload(&mut self, name: &RepositoryName) -> String {
        self.uploads_started += 1;
        let id = format!("00000000-0000-4000-8000-{:012x}", self.uploads_started);
        let upload = Upload {
            data: Vec::new(),
            hasher: Hasher::new(Algorithm::Sha256),
        };
        self.uploads
            .insert((name.clone(), id.clone()), Arc::new(Mutex::new(upload)));
        id
    }

    pub(super) fn upload(&self, name: &RepositoryName, id: &str) -> Option<Arc<Mutex<Upload>>> {
        self.uploads.get(&(name.clone(), id.to_owned())).cloned()
    }

    pub(super) fn end_upload(&mut self, name: &RepositoryName, id: &str) {
        self.uploads.remove(&(name.clone(), id.to_owned()));
    }

    pub(super) fn seed(&mut self, name: &RepositoryName, tag: Option<&Tag>, image: &SampleImage) {
        for child in &image.children {
            self.seed(name, None, child);
        }
        for blob in &image.blobs {
            self.add_blob(name, Digest::of(blob), blob.clone());
        }
        let stored = Stored {
            media_type: image.media_type.to_owned(),
            bytes: image.manifest.clone(),
        };
        self.repository_mut(name).put(image.digest(), stored, tag);
    }
}

impl Repository {
    pub(super) fn manifest(&self, digest: &Digest) -> Option<&Stored> {
        self.manifests.get(digest)
    }

    pub(super) fn manifests(&self) -> impl Iterator<Item = (&Digest, &Stored)> {
        self.manifests.iter()
    }

    pub(super) fn tagged(&self, tag: &Tag) -> Option<&Digest> {
        let (_, digest) = self.tags.iter().find(|(name, _)| name == tag)?;
        Some(digest)
    }

    pub(super) fn tags_of(&self, digest: &Digest) -> Vec<Tag> {
        let named = self.tags.iter().filter(|(_, named)| named == digest);
        let mut tags: Vec<Tag> = named.map(|(tag, _)| tag.clone()).collect();
        tags.sort();
        tags
    }

    pub(super) fn put(&mut self, digest: Digest, stored: Stored, tag: Option<&Tag>) {
        if let Some(tag) = tag {
            self.tags.retain(|(name, _)| name != tag);
            self.tags.insert(0, (tag.clone(), digest.clone()));
        }
        self.manifests.insert(digest, stored);
    }

    pub(super) fn remove_tag(&mut self, tag: &Tag) -> bool {
        let before = self.tags.len();
        self.tags.retain(|(name, _)| name != tag);
        self.tags.len() < before
    }

    /// Removes a manifest and all tags that name it.
    pub(super) fn remove_manifest(&mut self, digest: &Digest) -> bool {
        self.tags.retain(|(_, named)| named != digest);
        self.manifests.remove(digest).is_some()
    }

    pub(super) fn unsorted_tags(&self) -> Vec<Tag> {
        self.tags.iter().map(|(tag, _)| tag.clone()).collect()
    }

    pub(super) fn sorted_tags(&self) -> Vec<Tag> {
        let mut tags = self.unsorted_tags();
        tags.sort();
        tags
    }
}

impl Upload {
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.data.extend_from_slice(bytes);
    }
}
