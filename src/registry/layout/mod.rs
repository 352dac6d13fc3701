//! OCI image layout directories.

use bytes::Bytes;

use super::endpoint::BodyStream;
use super::{
    BlobReader, BlobWrite, FinishedBlob, HeadManifest, Listing, MountOutcome, ReferrerList, Result, SessionState,
    UploadHabit,
};
use crate::oci::{Digest, Manifest, Reference, RepositoryName, Tag};

/// An OCI image layout directory.
#[derive(Clone, Debug)]
pub struct Layout {}

#[expect(clippy::unused_async, clippy::unimplemented, reason = "written elsewhere")]
impl Layout {
    pub fn open(name: &str, path: &std::path::Path) -> Result<Self> {
        let _ = (name, path);
        unimplemented!()
    }
    pub fn name(&self) -> &str {
        unimplemented!()
    }
    pub async fn list_repositories(&self) -> Result<Listing<RepositoryName>> {
        let _ = ();
        unimplemented!()
    }
    pub async fn list_tags(&self, repository: &RepositoryName) -> Result<Listing<Tag>> {
        let _ = repository;
        unimplemented!()
    }
    pub async fn head_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<HeadManifest>> {
        let _ = (repository, reference);
        unimplemented!()
    }
    pub async fn get_manifest(&self, repository: &RepositoryName, reference: &Reference) -> Result<Option<Manifest>> {
        let _ = (repository, reference);
        unimplemented!()
    }
    pub async fn put_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<bool> {
        let _ = (repository, reference, media_type, bytes);
        unimplemented!()
    }
    pub async fn head_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>> {
        let _ = (repository, digest);
        unimplemented!()
    }
    pub async fn open_blob(&self, repository: &RepositoryName, digest: &Digest, offset: u64) -> Result<BlobReader> {
        let _ = (repository, digest, offset);
        unimplemented!()
    }
    pub async fn begin_write(&self, repository: &RepositoryName) -> Result<BlobWrite> {
        let _ = repository;
        unimplemented!()
    }
    pub async fn resume_write(&self, write: &BlobWrite) -> Result<SessionState> {
        let _ = write;
        unimplemented!()
    }
    pub async fn upload_habit(&self, write: &BlobWrite) -> Result<UploadHabit> {
        let _ = write;
        unimplemented!()
    }
    pub async fn write_piece(
        &self,
        write: &BlobWrite,
        offset: u64,
        length: u64,
        body: BodyStream,
    ) -> Result<(BlobWrite, u64)> {
        let _ = (write, offset, length, body);
        unimplemented!()
    }
    pub async fn finish_write(
        &self,
        write: &BlobWrite,
        digest: &Digest,
        offset: u64,
        length: u64,
        body: BodyStream,
    ) -> Result<FinishedBlob> {
        let _ = (write, digest, offset, length, body);
        unimplemented!()
    }
    pub async fn cancel_write(&self, write: &BlobWrite) {
        let _ = write;
        unimplemented!()
    }
    pub async fn mount(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
    ) -> Result<MountOutcome> {
        let _ = (repository, digest, from);
        unimplemented!()
    }
    pub async fn referrers(&self, repository: &RepositoryName, subject: &Digest) -> Result<ReferrerList> {
        let _ = (repository, subject);
        unimplemented!()
    }
}
