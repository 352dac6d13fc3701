//! OCI image layout directories (image-spec `image-layout.md`) as an end of a copy.
//!
//! One directory holds several repositories, which share its blobs. An entry of `index.json` is named by the annotation
//! `org.opencontainers.image.ref.name`: `repository:tag`, or the tag alone for [`IMAGE_REPOSITORY`], which is how a
//! bundle of one image looks to other tools (`skopeo inspect oci:DIR:tag`). Referrers stand there without a name.
//!
//! Every file is written beside its place and renamed, and `index.json` is changed under a lock between processes.
//! Beside the layout's own files stand `.transship-ingest/` (unfinished writes) and `.transship-lock`, which other
//! tools ignore, as they must.

mod folder;
mod index;
mod lookup;
mod trouble;
mod write;

#[cfg(test)]
mod tests;

use std::io::SeekFrom;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::AsyncSeekExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::folder::{Folder, too_large};
use self::index::Entry;
use self::lookup::{UNNAMED_TAG, check_complete, find_referrers, invalid, resolve, unnamed_image};
use self::trouble::{Doing, Trouble};
use super::blob::{BlobReader, MountOutcome};
use super::endpoint::{BulkListing, HeadManifest, ListedTag, Listing, ReferrerList};
use super::error::{Error, ErrorKind, Operation, Place, Result};
use crate::oci::{AttachmentTag, Digest, MAX_MANIFEST_SIZE, Manifest, Reference, RepositoryName, Tag};

/// The repository whose tags are named in a layout by the tag alone, as other tools write and read them. It is the one
/// that `oci:DIR:tag` means on the command line.
pub const IMAGE_REPOSITORY: &str = "image";

/// Blobs read at once: disks like few long reads better than many.
const READS_AT_ONCE: usize = 4;

/// Bytes read from a file at once.
const READ_SIZE: usize = 256 * 1024;

/// An OCI image layout directory. Clones share what was read of it.
#[derive(Clone, Debug)]
pub struct Layout {
    name: Arc<str>,
    folder: Arc<Folder>,
    reads: Arc<Semaphore>,
    _reading: Option<Arc<OwnedSemaphorePermit>>,
}

impl Layout {
    /// The layout at `path`; `name` is for messages. Creates nothing before the first write.
    ///
    /// # Errors
    /// `Config`: a directory with other things in it, a file, or a layout of another version.
    pub fn open(name: &str, path: &Path) -> Result<Self> {
        let folder = Folder::new(path);
        folder.check().map_err(|trouble| {
            let place = Place {
                registry: name.to_owned(),
                ..Place::default()
            };
            trouble.at(Operation::OpenLayout, place)
        })?;
        Ok(Self {
            name: name.into(),
            folder: Arc::new(folder),
            reads: Arc::new(Semaphore::new(READS_AT_ONCE)),
            _reading: None,
        })
    }

    /// Waits for a place to read a blob: the same layout, holding one until it is dropped.
    pub async fn with_reading_place(&self) -> Self {
        // Never closed.
        let permit = Arc::clone(&self.reads).acquire_owned().await.ok();
        Self {
            _reading: permit.map(Arc::new),
            ..self.clone()
        }
    }

    /// As [`Layout::with_reading_place`], where one is free.
    pub fn with_free_reading_place(&self) -> Option<Self> {
        let permit = Arc::clone(&self.reads).try_acquire_owned().ok()?;
        Some(Self {
            _reading: Some(Arc::new(permit)),
            ..self.clone()
        })
    }

    /// How many blobs are read at once; further readers wait.
    pub fn blob_reads_at_once(&self) -> usize {
        READS_AT_ONCE
    }

    /// The name given to [`Layout::open`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Every image that `index.json` names, and the one without a name; attachments are none. `None` where there is no
    /// layout.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub async fn images(&self) -> Result<Listing<(RepositoryName, Tag)>> {
        let at = self.at(Operation::ListTags, None, None);
        self.run(at, |folder| {
            let Some(view) = folder.view()? else {
                return Ok(None);
            };
            let mut images = Vec::new();
            for (repository, tags) in &view.named {
                let tags = tags.keys().filter(|tag| AttachmentTag::parse(tag).is_none());
                images.extend(tags.map(|tag| (repository.clone(), tag.clone())));
            }
            let unnamed = (IMAGE_REPOSITORY.parse(), UNNAMED_TAG.parse());
            if let (Ok(repository), Ok(tag)) = unnamed
                && !view.named.contains_key(&repository)
                && unnamed_image(folder)?.is_some()
            {
                images.push((repository, tag));
            }
            Ok(Some(images))
        })
        .await
    }

    /// Looks whether there is a layout that can be read, or a place where one can be made.
    ///
    /// # Errors
    /// As [`Layout::open`], and an `index.json` that cannot be read.
    pub async fn ping(&self) -> Result<()> {
        let at = self.at(Operation::OpenLayout, None, None);
        self.run(at, |folder| {
            folder.check()?;
            folder.view().map(drop)
        })
        .await
    }

    /// The repositories that `index.json` names. `None` where there is no layout.
    ///
    /// # Errors
    /// An `index.json` that cannot be read.
    pub async fn list_repositories(&self) -> Result<Listing<RepositoryName>> {
        let at = self.at(Operation::ListRepositories, None, None);
        self.run(at, |folder| {
            let Some(view) = folder.view()? else {
                return Ok(None);
            };
            let mut names: Vec<RepositoryName> = view.named.keys().cloned().collect();
            if !names.iter().any(|name| name.as_str() == IMAGE_REPOSITORY) && unnamed_image(folder)?.is_some() {
                names.extend(IMAGE_REPOSITORY.parse::<RepositoryName>().ok());
                names.sort();
            }
            Ok(Some(names))
        })
        .await
    }

    /// All tags of a repository. `None` where it is not there.
    ///
    /// # Errors
    /// An `index.json` that cannot be read.
    pub async fn list_tags(&self, repository: &RepositoryName) -> Result<Listing<Tag>> {
        let at = self.at(Operation::ListTags, Some(repository), None);
        let repository = repository.clone();
        self.run(at, move |folder| {
            let Some(view) = folder.view()? else {
                return Ok(None);
            };
            if let Some(tags) = view.named.get(&repository) {
                return Ok(Some(tags.keys().cloned().collect()));
            }
            if repository.as_str() == IMAGE_REPOSITORY && unnamed_image(folder)?.is_some() {
                return Ok(Some(UNNAMED_TAG.parse().into_iter().collect()));
            }
            Ok(None)
        })
        .await
    }

    /// All tags with what they point to, in one pass. A tag whose manifest is not there whole has no digest.
    ///
    /// # Errors
    /// An `index.json` or manifests that cannot be read.
    pub async fn list_digests(&self, repository: &RepositoryName) -> Result<BulkListing> {
        let at = self.at(Operation::ListTags, Some(repository), None);
        let repository = repository.clone();
        self.run(at, move |folder| {
            let Some(view) = folder.view()? else {
                return Ok(BulkListing::Absent);
            };
            // An image without a name is found by other rules, one look at a time.
            let Some(entries) = view.named.get(&repository) else {
                let unnamed = repository.as_str() == IMAGE_REPOSITORY && unnamed_image(folder)?.is_some();
                return Ok(if unnamed {
                    BulkListing::None
                } else {
                    BulkListing::Absent
                });
            };
            let mut tags = Vec::with_capacity(entries.len());
            for (tag, entry) in entries {
                let bytes = folder.manifest_bytes(&entry.digest)?;
                let whole = bytes.and_then(|bytes| {
                    Manifest::parse(entry.media_type.as_deref(), bytes.into(), Some(&entry.digest)).ok()
                });
                tags.push(ListedTag {
                    tag: tag.clone(),
                    digest: whole.as_ref().map(|manifest| manifest.digest().clone()),
                    media_type: whole.map(|manifest| manifest.media_type().to_owned()),
                    pushed: None,
                });
            }
            Ok(BulkListing::Known { tags, comparable: true })
        })
        .await
    }

    /// What a tag points to, or whether a manifest is there. `None` where it is not there whole.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub async fn head_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<HeadManifest>> {
        let at = self.at(Operation::ResolveTag, Some(repository), Some(reference));
        let (repository, reference) = (repository.clone(), reference.clone());
        self.run(at, move |folder| {
            let Some(entry) = resolve(folder, &repository, &reference)? else {
                return Ok(None);
            };
            // Read in full: a damaged manifest counts as missing, so that it is written again.
            let Some(bytes) = folder.manifest_bytes(&entry.digest)? else {
                return Ok(None);
            };
            let size = bytes.len() as u64;
            let manifest = Manifest::parse(entry.media_type.as_deref(), bytes.into(), Some(&entry.digest));
            Ok(manifest.ok().map(|manifest| HeadManifest {
                digest: entry.digest,
                media_type: Some(manifest.media_type().to_owned()),
                size: Some(size),
            }))
        })
        .await
    }

    /// Reads a manifest; its digest is checked. `None` where the tag or digest is not there.
    ///
    /// # Errors
    /// `Corrupt`: the tag's manifest is missing or its bytes have another digest. `Invalid`: it is no manifest. `TooLarge`: it is
    /// larger than manifests may be.
    pub async fn get_manifest(&self, repository: &RepositoryName, reference: &Reference) -> Result<Option<Manifest>> {
        let at = self.at(Operation::ReadManifest, Some(repository), Some(reference));
        let (repository, reference) = (repository.clone(), reference.clone());
        self.run(at, move |folder| {
            let Some(entry) = resolve(folder, &repository, &reference)? else {
                return Ok(None);
            };
            let Some(bytes) = folder.manifest_bytes(&entry.digest)? else {
                if folder
                    .blob_size(&entry.digest)?
                    .is_some_and(|size| size > MAX_MANIFEST_SIZE)
                {
                    let advice = "no manifest is so large; copy the image into the layout again, or leave it out";
                    return Err(too_large(&folder.blob(&entry.digest), MAX_MANIFEST_SIZE, advice));
                }
                return match reference {
                    Reference::Digest(_) => Ok(None),
                    Reference::Tag(_) => Err(Trouble::new(
                        ErrorKind::Corrupt,
                        format!(
                            "index.json names {} for this tag, but {} is missing; copy the image into the layout again",
                            entry.digest,
                            folder.blob(&entry.digest).display()
                        ),
                    )),
                };
            };
            Manifest::parse(entry.media_type.as_deref(), bytes.into(), Some(&entry.digest))
                .map(Some)
                .map_err(invalid)
        })
        .await
    }

    /// Stores a manifest under its digest, and under a tag where one is given. True, as a subject is always indexed.
    ///
    /// # Errors
    /// `MissingContent`: a blob or child is missing or has another length. `Invalid`, `TooLarge`, `Corrupt`: the bytes.
    pub async fn put_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<bool> {
        let at = self.at(Operation::WriteManifest, Some(repository), Some(reference));
        let (repository, reference, media_type) = (repository.clone(), reference.clone(), media_type.to_owned());
        self.run(at, move |folder| {
            let manifest = Manifest::parse(Some(&media_type), bytes, reference.digest()).map_err(invalid)?;
            check_complete(folder, &manifest)?;
            let entry = Entry {
                media_type: Some(media_type),
                digest: manifest.digest().clone(),
                size: manifest.bytes().len() as u64,
            };
            folder.write_manifest(&entry.digest, manifest.bytes())?;
            match &reference {
                Reference::Tag(tag) => {
                    // Looked up before the lock is taken, as it may read the old manifest.
                    let old = resolve(folder, &repository, &reference)?;
                    let old_referrer = match old {
                        Some(old) if folder.subject(&old.digest)?.is_some() => Some(old.digest),
                        _ => None,
                    };
                    folder.change_index(|index| {
                        index.set_tag(&repository, tag, &entry, |digest| old_referrer.as_ref() == Some(digest))
                    })?;
                }
                Reference::Digest(_) if manifest.subject().is_some() => {
                    folder.change_index(|index| index.add_unnamed(&entry, manifest.artifact_type()))?;
                }
                Reference::Digest(_) => {}
            }
            Ok(true)
        })
        .await
    }

    /// Length of a blob that is there, `None` where it is not.
    ///
    /// # Errors
    /// Folders that cannot be read.
    pub async fn head_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>> {
        let at = self.at(Operation::FindBlob, Some(repository), Some(&digest.clone().into()));
        let digest = digest.clone();
        self.run(at, move |folder| folder.blob_size(&digest)).await
    }

    /// Opens a blob at an offset. Its digest is for the reader to check.
    ///
    /// # Errors
    /// `NotFound`: it is not there. `Invalid`: it ends before `offset`.
    pub async fn open_blob(&self, repository: &RepositoryName, digest: &Digest, offset: u64) -> Result<BlobReader> {
        let at = self.at(Operation::ReadBlob, Some(repository), Some(&digest.clone().into()));
        let path = self.folder.blob(digest);
        let wanted = digest.clone();
        let opened = self.run(at.clone(), move |folder| folder.open_blob(&wanted)).await?;
        let Some((file, total)) = opened else {
            let message = format!("{} is not there", path.display());
            return Err(at.fail(Trouble::new(ErrorKind::NotFound, message)));
        };
        let mut file = tokio::fs::File::from_std(file);
        if offset > total {
            let message = format!("{} has {total} bytes, fewer than the offset {offset}", path.display());
            return Err(at.fail(Trouble::new(ErrorKind::Invalid, message)));
        }
        let sought = file.seek(SeekFrom::Start(offset)).await.doing("read", &path);
        sought.map_err(|trouble| at.fail(trouble))?;
        let stream = tokio_util::io::ReaderStream::with_capacity(file, READ_SIZE)
            .map(move |chunk| chunk.doing("read", &path).map_err(|trouble| at.fail(trouble)));
        Ok(BlobReader {
            offset,
            total: Some(total),
            gives_parts: false,
            mirrored: false,
            stream: stream.boxed(),
        })
    }

    /// Mounted where the blob is in the layout at all, as its repositories share blobs.
    ///
    /// # Errors
    /// Folders that cannot be read.
    pub async fn mount(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        _from: &RepositoryName,
    ) -> Result<MountOutcome> {
        let at = self.at(Operation::MountBlob, Some(repository), Some(&digest.clone().into()));
        let digest = digest.clone();
        let size = self.run(at, move |folder| folder.blob_size(&digest)).await?;
        Ok(match size {
            Some(_) => MountOutcome::Mounted,
            None => MountOutcome::Refused,
        })
    }

    /// Manifests of `index.json` whose subject is `subject`, and those of its fallback tag.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub async fn referrers(&self, repository: &RepositoryName, subject: &Digest) -> Result<ReferrerList> {
        let at = self.at(
            Operation::ListReferrers,
            Some(repository),
            Some(&subject.clone().into()),
        );
        let (repository, subject) = (repository.clone(), subject.clone());
        self.run(at, move |folder| {
            let referrers = find_referrers(folder, &repository, &subject)?;
            Ok(ReferrerList { referrers, api: true })
        })
        .await
    }

    /// Does file work where it may block.
    async fn run<T: Send + 'static>(
        &self,
        at: At,
        work: impl FnOnce(&Folder) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T> {
        let folder = Arc::clone(&self.folder);
        match tokio::task::spawn_blocking(move || work(&folder)).await {
            Ok(result) => result.map_err(|trouble| at.fail(trouble)),
            Err(error) => Err(at
                .fail(Trouble::new(ErrorKind::Local, "the work on its files was broken off"))
                .caused_by(error)),
        }
    }

    fn at(&self, operation: Operation, repository: Option<&RepositoryName>, reference: Option<&Reference>) -> At {
        let place = Place {
            registry: self.name.to_string(),
            repository: repository.map(ToString::to_string),
            reference: reference.map(ToString::to_string),
        };
        At { operation, place }
    }
}

/// What an error will say about its place.
#[derive(Clone, Debug)]
struct At {
    operation: Operation,
    place: Place,
}

impl At {
    fn fail(&self, trouble: Trouble) -> Error {
        trouble.at(self.operation, self.place.clone())
    }
}
