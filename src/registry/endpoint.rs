//! The verbs that every end has.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::blob::{BlobReader, BlobWrite, BodyStream, FinishedBlob, MountOutcome, Patience, SessionState};
use super::error::Result;
use crate::oci::{Descriptor, Digest, Manifest, Reference, RepositoryName, Tag};
pub use crate::plan::UploadHabit;

/// A registry or an OCI image layout directory. Cheap to clone; clones share connections, tokens and limits.
#[derive(Clone, Debug)]
pub enum Endpoint {
    /// Spoken to by the distribution protocol.
    Registry(super::remote::Registry),
    /// A directory.
    Layout(super::layout::Layout),
}

/// What a `HEAD` of a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadManifest {
    /// What the tag points to.
    pub digest: Digest,
    /// Media type as the registry says, without parameters.
    pub media_type: Option<String>,
    /// Length in bytes, where said.
    pub size: Option<u64>,
}

/// A whole listing. `None` where the repository (or the catalogue) is not there: that is known, not an error.
pub type Listing<T> = Option<Vec<T>>;

/// A tag of a listing that tells more than its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTag {
    /// The tag.
    pub tag: Tag,
    /// What it points to, where the listing says so.
    pub digest: Option<Digest>,
    /// The manifest's media type, where said.
    pub media_type: Option<String>,
    /// When it was pushed, where said.
    pub pushed: Option<jiff::Timestamp>,
}

/// A whole listing with digests, in place of a listing of names and a `HEAD` for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkListing {
    /// The end has no such listing.
    None,
    /// The repository is not there.
    Absent,
    /// All tags.
    Known {
        /// In the order of the end.
        tags: Vec<ListedTag>,
        /// True for a kind whose digests here are known to be those that a `HEAD` gives.
        comparable: bool,
    },
}

impl BulkListing {
    /// True where it says that nothing is there.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::None => false,
            Self::Absent => true,
            Self::Known { tags, .. } => tags.is_empty(),
        }
    }
}

/// Referrers of a manifest, and where they were found.
#[derive(Clone, Debug, Default)]
pub struct ReferrerList {
    /// Descriptors with artifact type and annotations.
    pub referrers: Vec<Descriptor>,
    /// True where the end has the referrers API; false where the fallback tag was read (or is missing).
    pub api: bool,
}

impl Endpoint {
    /// Makes an end ready; connects to nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work: an unreadable CA file, a layout that is no layout.
    pub fn open(
        name: &str,
        settings: &super::RegistrySettings,
        habits: super::Habits,
        vendor: std::sync::Arc<dyn super::Vendor>,
        clock: crate::clock::Clock,
        limiter: &super::Limiter,
    ) -> Result<Self> {
        match settings {
            super::RegistrySettings::Remote(settings) => {
                super::remote::Registry::open(name, settings, habits, vendor, clock, limiter).map(Self::Registry)
            }
            super::RegistrySettings::Layout { path } => super::layout::Layout::open(name, path).map(Self::Layout),
        }
    }

    /// The same end whose requests are charged to `account`: one clone a run. A layout makes no requests.
    #[must_use]
    pub fn charged_to(&self, account: std::sync::Arc<super::Account>) -> Self {
        match self {
            Self::Registry(registry) => Self::Registry(registry.charged_to(account)),
            Self::Layout(layout) => Self::Layout(layout.clone()),
        }
    }

    /// Gives a registry its mirrors, once, each with what stands before repositories' names there. Only
    /// [`Endpoint::with_mirrors_first`] asks them; layouts have none and are none. `before`: the same registry by the rules as they
    /// were, of whose mirrors it is remembered how they did.
    pub fn set_mirrors(&self, mirrors: Vec<(Self, Option<String>)>, resolve_tags: bool, before: Option<&Self>) {
        let registries = mirrors.into_iter().filter_map(|(end, prefix)| match end {
            Self::Registry(registry) => Some((registry, prefix)),
            Self::Layout(_) => None,
        });
        if let Self::Registry(registry) = self {
            let before = match before {
                Some(Self::Registry(before)) => Some(before),
                Some(Self::Layout(_)) | None => None,
            };
            registry.set_mirrors(registries.collect(), resolve_tags, before);
        }
    }

    /// The same end as a source: blobs, and manifests by digest, are read from its mirrors first.
    #[must_use]
    pub fn with_mirrors_first(&self) -> Self {
        match self {
            Self::Registry(registry) => Self::Registry(registry.with_mirrors_first()),
            Self::Layout(layout) => Self::Layout(layout.clone()),
        }
    }

    /// The bytes of a blob were wrong: true where a mirror gave them, so that the end itself is to be asked. It is, from now on.
    pub fn doubt(&self, digest: &Digest) -> bool {
        match self {
            Self::Registry(registry) => registry.doubt(digest),
            Self::Layout(_) => false,
        }
    }

    /// Whether somebody has doubted it so before.
    pub fn is_doubted(&self, digest: &Digest) -> bool {
        match self {
            Self::Registry(registry) => registry.is_doubted(digest),
            Self::Layout(_) => false,
        }
    }

    /// The name in the rules, or the host for `copy`.
    pub fn name(&self) -> &str {
        match self {
            Self::Registry(registry) => registry.name(),
            Self::Layout(layout) => layout.name(),
        }
    }

    /// What is known of its kind.
    pub fn habits(&self) -> &super::Habits {
        static LAYOUT: std::sync::LazyLock<super::Habits> = std::sync::LazyLock::new(|| super::Habits {
            upload: Some(UploadHabit::KeepsBytes),
            ..super::Habits::default()
        });
        match self {
            Self::Registry(registry) => registry.habits(),
            Self::Layout(_) => &LAYOUT,
        }
    }

    /// True where a manifest is known to be refused whose blobs the repository lacks. A layout refuses it too, but asking it
    /// for a blob costs nothing, so that nothing need be remembered.
    pub fn refuses_missing_blobs(&self) -> bool {
        match self {
            Self::Registry(registry) => registry.refuses_missing_blobs(),
            Self::Layout(_) => false,
        }
    }

    /// True the first time that [`Endpoint::refuses_missing_blobs`] holds by what was seen: what is worth keeping.
    pub fn newly_refuses_missing_blobs(&self) -> bool {
        match self {
            Self::Registry(registry) => registry.newly_refuses_missing_blobs(),
            Self::Layout(_) => false,
        }
    }

    /// Until when the end wants to be left alone, as its answers said: what a later process has to be told by
    /// [`Endpoint::set_penalty`]. `None` when it does not. Requests wait for the end of a short pause, and fail as
    /// `Throttled` during one longer than five minutes.
    pub fn penalty(&self) -> Option<jiff::Timestamp> {
        match self {
            Self::Registry(registry) => registry.penalty(),
            Self::Layout(_) => None,
        }
    }

    /// The end's metered quota of manifest reads as it last said; `None` where it said nothing of one.
    pub fn quota(&self) -> Option<crate::plan::Quota> {
        match self {
            Self::Registry(registry) => registry.quota(),
            Self::Layout(_) => None,
        }
    }

    /// What an earlier process knew of the quota; a newer answer holds.
    pub fn set_quota(&self, quota: crate::plan::Quota) {
        match self {
            Self::Registry(registry) => registry.set_quota(quota),
            Self::Layout(_) => {}
        }
    }

    /// True where reading a manifest is counted and asking what a tag points to is not.
    pub fn is_metered(&self) -> bool {
        self.habits().metered || self.quota().is_some()
    }

    /// The host (with its port) that is asked; `None` for a layout.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Registry(registry) => Some(registry.host()),
            Self::Layout(_) => None,
        }
    }

    /// Where the end is, without credentials: scheme, host, port and path of a registry, a layout's directory as an absolute path.
    pub fn address(&self) -> String {
        match self {
            Self::Registry(registry) => registry.address().to_owned(),
            Self::Layout(layout) => {
                let path = layout.path();
                // Fails only where there is no current directory any more.
                let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
                absolute.display().to_string()
            }
        }
    }

    /// What the rules call the account there, without what proves it; `None` where they do not say, and of a layout.
    pub fn account_name(&self) -> Option<String> {
        match self {
            Self::Registry(registry) => registry.account_name(),
            Self::Layout(_) => None,
        }
    }

    /// Leaves the end alone until then; a longer pause that it asked for stays, and a time that is over does nothing.
    pub fn set_penalty(&self, until: jiff::Timestamp) {
        match self {
            Self::Registry(registry) => registry.set_penalty(until),
            Self::Layout(_) => {}
        }
    }

    /// Waits for a place to read a blob: the same end, holding one until it and its readers are dropped. The blobs that it
    /// opens one after the other ([`Endpoint::open_blob`]) need not wait again, so a reader that broke off finds its place
    /// still free, however few places there are by then; one that is opened beside another waits until that is dropped.
    pub async fn with_reading_place(&self) -> Self {
        match self {
            Self::Registry(registry) => Self::Registry(registry.with_reading_place().await),
            Self::Layout(layout) => Self::Layout(layout.with_reading_place().await),
        }
    }

    /// As [`Endpoint::with_reading_place`], where a place is free that nobody waits for.
    pub fn with_free_reading_place(&self) -> Option<Self> {
        Some(match self {
            Self::Registry(registry) => Self::Registry(registry.with_free_reading_place()?),
            Self::Layout(layout) => Self::Layout(layout.with_free_reading_place()?),
        })
    }

    /// From now on what is read in the place of [`Endpoint::with_reading_place`] is being written, so that it is held as a
    /// whole until the end. Before that, others have its part of the process's places while the registry has a pause.
    pub fn keep_reading_place(&self) {
        match self {
            Self::Registry(registry) => registry.keep_reading_place(),
            // Layouts have no pauses.
            Self::Layout(_) => {}
        }
    }

    /// How many blobs are read at once as things are; further readers wait.
    pub fn blob_reads_at_once(&self) -> usize {
        match self {
            Self::Registry(registry) => registry.blob_reads_at_once(),
            Self::Layout(layout) => layout.blob_reads_at_once(),
        }
    }

    /// Answers so far to questions for lists, manifests and the like, whoever asked, but for those that tell of trouble and will be
    /// asked again. `None` for a layout, which always answers.
    pub fn small_answers(&self) -> Option<u64> {
        match self {
            Self::Registry(registry) => Some(registry.small_answers()),
            Self::Layout(_) => None,
        }
    }

    /// Referrers by the API alone; `None` where the end has none, or refuses it to us. A layout finds them in its index.
    pub async fn referrers_by_api(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>> {
        match self {
            Self::Registry(registry) => registry.referrers_by_api(repository, subject).await,
            Self::Layout(layout) => layout
                .referrers(repository, subject)
                .await
                .map(|list| Some(list.referrers)),
        }
    }

    /// Whether the end lists the referrers of a manifest by itself, asked for no more than the first page of them.
    pub async fn has_referrers_api(&self, repository: &RepositoryName, subject: &Digest) -> Result<bool> {
        match self {
            Self::Registry(registry) => registry.has_referrers_api(repository, subject).await,
            Self::Layout(_) => Ok(true),
        }
    }

    /// Whether [`Endpoint::referrers_by_api`] gave `None` because the question was refused to us: there may be referrers.
    pub fn refuses_referrers(&self, repository: &RepositoryName) -> bool {
        match self {
            Self::Registry(registry) => registry.refuses_referrers(repository),
            Self::Layout(_) => false,
        }
    }

    /// Whether what the digests of its list of one repository mean they mean in its lists of all.
    pub fn lists_alike(&self) -> bool {
        match self {
            Self::Registry(registry) => registry.vendor().ways().lists_alike,
            Self::Layout(_) => false,
        }
    }

    /// What it is; `None` where that is not known (yet), and for a layout.
    pub fn kind(&self) -> Option<super::Kind> {
        match self {
            Self::Registry(registry) => registry.vendor().kind(),
            Self::Layout(_) => None,
        }
    }

    /// Takes over what an earlier process found out of its kind, and how long that is still believed; without effect where it is known.
    pub fn assume_kind(&self, kind: super::Kind, left: std::time::Duration) {
        if let Self::Registry(registry) = self {
            registry.assume_kind(kind, left);
        }
    }

    /// Its kind, where it was found out since this was asked last: to be kept for later processes.
    pub fn take_found_kind(&self) -> Option<super::Kind> {
        match self {
            Self::Registry(registry) => registry.vendor().take_found(),
            Self::Layout(_) => None,
        }
    }

    /// Where its vendor's API refused to list, for a missing right, since this was asked last: to be kept for later processes.
    pub fn take_refusals(&self) -> Vec<super::ListingRefusal> {
        match self {
            Self::Registry(registry) => registry.take_refusals(),
            Self::Layout(_) => Vec::new(),
        }
    }

    /// Takes over all such refusals that are kept; those that were and are no more are forgotten.
    pub fn assume_refusals(&self, kept: Vec<super::ListingRefusal>) {
        if let Self::Registry(registry) = self {
            registry.assume_refusals(kept);
        }
    }

    /// What has changed in what is known of it since this was asked last: to be kept for later processes.
    pub fn take_fact_news(&self) -> Vec<super::FactNews> {
        match self {
            Self::Registry(registry) => registry.take_fact_news(),
            Self::Layout(_) => Vec::new(),
        }
    }

    /// Takes over all that is kept of it; what was and is no more is forgotten.
    pub fn assume_facts(&self, kept: Vec<super::Finding>) {
        if let Self::Registry(registry) = self {
            registry.assume_facts(kept);
        }
    }

    /// Product and version, where the end tells them.
    ///
    /// # Errors
    /// It cannot be asked.
    pub async fn version(&self) -> Result<Option<String>> {
        match self {
            Self::Registry(registry) => registry.version().await,
            Self::Layout(_) => Ok(None),
        }
    }

    /// Repositories whose names begin with one of `below` (the empty text: all), and perhaps others, in the registry's order:
    /// by the vendor's API where it has one for that, else by the catalogue. `None` where it has no catalogue (404). With them,
    /// why parts of the list are not known, as of a namespace that this user may not see.
    pub async fn list_repositories_in_part(
        &self,
        below: &[String],
    ) -> Result<(Listing<RepositoryName>, Vec<super::Error>)> {
        match self {
            Self::Registry(registry) => registry.list_repositories(below).await,
            Self::Layout(layout) => Ok((layout.list_repositories().await?, Vec::new())),
        }
    }

    /// As [`Endpoint::list_repositories_in_part`], for who needs a few of them: what is not known is a warning.
    pub async fn list_repositories(&self, below: &[String]) -> Result<Listing<RepositoryName>> {
        let (listed, left_out) = self.list_repositories_in_part(below).await?;
        for error in left_out {
            tracing::warn!(registry = self.name(), "{error}");
        }
        Ok(listed)
    }

    /// All tags. `None` where the repository is not there.
    pub async fn list_tags(&self, repository: &RepositoryName) -> Result<Listing<Tag>> {
        match self {
            Self::Registry(registry) => registry.list_tags(repository).await,
            Self::Layout(layout) => layout.list_tags(repository).await,
        }
    }

    /// All tags with what they point to, where the end tells that in one go. The distribution protocol has no such thing; some
    /// vendors' APIs have, and a layout's index.
    pub async fn list_digests(&self, repository: &RepositoryName) -> Result<BulkListing> {
        match self {
            Self::Registry(registry) => registry.list_digests(repository).await,
            Self::Layout(layout) => layout.list_digests(repository).await,
        }
    }

    /// What a tag points to (or whether a digest is there), without reading it. `None` where it is not there.
    pub async fn head_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<HeadManifest>> {
        match self {
            Self::Registry(registry) => registry.head_manifest(repository, reference).await,
            Self::Layout(layout) => layout.head_manifest(repository, reference).await,
        }
    }

    /// Reads a manifest; digest checked against bytes, header and reference. `None` where it is not there.
    pub async fn get_manifest(&self, repository: &RepositoryName, reference: &Reference) -> Result<Option<Manifest>> {
        match self {
            Self::Registry(registry) => registry.get_manifest(repository, reference).await,
            Self::Layout(layout) => layout.get_manifest(repository, reference).await,
        }
    }

    /// Writes a manifest's bytes under a tag or its digest. True in the answer: the registry knows the subject (`OCI-Subject`).
    /// Under a tag it is tried once.
    pub async fn put_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<bool> {
        match self {
            Self::Registry(registry) => registry.put_manifest(repository, reference, media_type, bytes).await,
            Self::Layout(layout) => layout.put_manifest(repository, reference, media_type, bytes).await,
        }
    }

    /// Length of a blob that is there, `None` where it is not.
    pub async fn head_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>> {
        match self {
            Self::Registry(registry) => registry.head_blob(repository, digest).await,
            Self::Layout(layout) => layout.head_blob(repository, digest).await,
        }
    }

    /// Which of these blobs a repository has, where many can be asked for at once. Blobs that are left out are not known of:
    /// all of them, where there is no API for it or it cannot be asked.
    pub async fn held_blobs(&self, repository: &RepositoryName, digests: &[Digest]) -> BTreeMap<Digest, bool> {
        match self {
            Self::Registry(registry) => registry.held_blobs(repository, digests).await,
            Self::Layout(_) => BTreeMap::new(),
        }
    }

    /// Opens a blob at an offset.
    pub async fn open_blob(&self, repository: &RepositoryName, digest: &Digest, offset: u64) -> Result<BlobReader> {
        match self {
            Self::Registry(registry) => registry.open_blob(repository, digest, offset).await,
            Self::Layout(layout) => layout.open_blob(repository, digest, offset).await,
        }
    }

    /// Opens the bytes `range` of a blob, which are not all of it. The reader may give less of them, or begin at 0 and give
    /// everything, where ranges are ignored. `None`: nothing was asked, as no place was free for who does not wait, or the
    /// end is a layout, which gains nothing by it.
    ///
    /// # Errors
    /// As [`Endpoint::open_blob`]; `Invalid` where other bytes than asked for came.
    pub async fn open_blob_range(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: std::ops::Range<u64>,
        patience: Patience,
    ) -> Result<Option<BlobReader>> {
        match self {
            Self::Registry(registry) => registry.open_blob_range(repository, digest, range, patience).await,
            Self::Layout(_) => Ok(None),
        }
    }

    /// Opens an upload.
    pub async fn begin_write(&self, repository: &RepositoryName) -> Result<BlobWrite> {
        match self {
            Self::Registry(registry) => registry.begin_write(repository).await,
            Self::Layout(layout) => layout.begin_write(repository).await,
        }
    }

    /// Asks where a stored upload stands.
    pub async fn resume_write(&self, write: &BlobWrite) -> Result<SessionState> {
        match self {
            Self::Registry(registry) => registry.resume_write(write).await,
            Self::Layout(layout) => layout.resume_write(write).await,
        }
    }

    /// Learns, on a fresh empty upload, how broken bodies are treated: distribution 3 and olareg answer 204 to a GET of
    /// the location without its query, the 2.8 family 404; the session stays usable.
    pub async fn upload_habit(&self, write: &BlobWrite) -> Result<UploadHabit> {
        match self {
            Self::Registry(registry) => registry.upload_habit(write).await,
            Self::Layout(layout) => layout.upload_habit(write).await,
        }
    }

    /// Sends one piece of `length` bytes from `offset` (PATCH). Gives the write with the newest location, and the bytes
    /// that the destination holds now.
    pub async fn write_piece(
        &self,
        write: &BlobWrite,
        offset: u64,
        length: u64,
        body: BodyStream,
    ) -> Result<(BlobWrite, u64)> {
        match self {
            Self::Registry(registry) => registry.write_piece(write, offset, length, body).await,
            Self::Layout(layout) => layout.write_piece(write, offset, length, body).await,
        }
    }

    /// Sends the last `length` bytes (0 for none left) and closes the upload (PUT); the destination checks the digest.
    pub async fn finish_write(
        &self,
        write: &BlobWrite,
        digest: &Digest,
        offset: u64,
        length: u64,
        body: BodyStream,
    ) -> Result<FinishedBlob> {
        match self {
            Self::Registry(registry) => registry.finish_write(write, digest, offset, length, body).await,
            Self::Layout(layout) => layout.finish_write(write, digest, offset, length, body).await,
        }
    }

    /// Gives an upload up. Failures are of no interest: registries clean up by themselves.
    pub async fn cancel_write(&self, write: &BlobWrite) {
        match self {
            Self::Registry(registry) => registry.cancel_write(write).await,
            Self::Layout(layout) => layout.cancel_write(write).await,
        }
    }

    /// Whether it fetches images from there by itself.
    pub fn imports_from(&self, source: &Self) -> super::Imports {
        match (self, source) {
            (Self::Registry(registry), Self::Registry(source)) => registry.imports_from(source),
            _ => super::Imports::Never,
        }
    }

    /// Has it fetch an image from there by itself, by digest and under no tag, and waits until it has. `bytes`: of its blobs.
    ///
    /// # Errors
    /// It refuses, fails or takes too long: the image is to be copied.
    pub async fn import(
        &self,
        source: &Self,
        from: &RepositoryName,
        digest: &Digest,
        to: &RepositoryName,
        bytes: u64,
    ) -> Result<()> {
        match (self, source) {
            (Self::Registry(registry), Self::Registry(source)) => {
                registry.import(source, from, digest, to, bytes).await
            }
            _ => Ok(()),
        }
    }

    /// Mounts a blob from another repository of the same end.
    pub async fn mount(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
    ) -> Result<MountOutcome> {
        match self {
            Self::Registry(registry) => registry.mount(repository, digest, from).await,
            Self::Layout(layout) => layout.mount(repository, digest, from).await,
        }
    }

    /// Referrers of a manifest by the API, else by the fallback tag.
    pub async fn referrers(&self, repository: &RepositoryName, subject: &Digest) -> Result<ReferrerList> {
        match self {
            Self::Registry(registry) => registry.referrers(repository, subject).await,
            Self::Layout(layout) => layout.referrers(repository, subject).await,
        }
    }
}
