//! The state database: what transship remembers across runs and crashes. SQL stands nowhere else.
//!
//! Verbs, never a transaction handed out: a verb that has returned is on disk, one that failed left no trace, one that
//! was dropped while it ran is done wholly or not at all. Times are [`jiff::Timestamp`]s given by the caller and stored as milliseconds UTC.

mod addresses;
mod blobs;
mod capabilities;
mod choices;
mod claims;
mod connection;
mod deferred;
mod error;
mod jobs;
mod lock;
mod manifests;
mod owner;
mod parked;
mod rates;
mod rows;
mod runs;
mod seen_tags;
#[cfg(test)]
mod tests;
mod types;
mod upkeep;
mod uploads;
mod writer;
mod written;

pub use blobs::MountRefusal;
pub use capabilities::Capability;
pub use claims::Claimant;
pub use deferred::DeferredImage;
pub use error::StoreError;
pub use lock::{Holder, StateLock};
pub use rates::Rates;
pub use types::{
    AuditEntry, FinishedJob, Intention, JobFilter, JobId, JobOutcome, JobRow, KeptManifest, NewJob, NewManifest,
    NewRun, RunId, RunOutcome, RunRow, StoredUpload, Trigger, UploadId, UploadKey, Write,
};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use connection::Connections;
use error::Result;
use owner::Owner;

/// The state database. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Store(Arc<Connections>);

impl Store {
    /// Opens or creates the database at `path` (and its folder), brings the schema up to date, and looks for damage where
    /// a process was killed while it had it open. What it creates, only this user may read.
    ///
    /// Open uploads are those of whoever holds the [`StateLock`]: for a process that does, and for those that bring no blobs.
    pub async fn open(path: &Path) -> Result<Self> {
        Ok(Self(Arc::new(Connections::open(path, Owner::of_state_lock()).await?)))
    }

    /// As [`Store::open`], for a `command` that brings blobs without the [`StateLock`], beside others of its kind: each has its own
    /// open uploads, and takes up those of processes that have ended.
    pub async fn open_among_others(path: &Path, command: &str) -> Result<Self> {
        let owner = Owner::among_others(path, command)?;
        let store = Self(Arc::new(Connections::open(path, owner).await?));
        store.disown_uploads().await?;
        Ok(store)
    }

    /// Opens an existing database for reading only, also beside a process that writes it; `None` where there is none.
    /// Verbs that write then fail.
    pub async fn open_read_only(path: &Path) -> Result<Option<Self>> {
        let opened = Connections::open_read_only(path).await?;
        Ok(opened.map(|connections| Self(Arc::new(connections))))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Waits for verbs under way, writes everything back into the one file and closes, for all clones: their verbs then fail.
    pub async fn close(self) {
        self.0.close().await;
    }

    /// Names what was tried when `work` fails.
    async fn verb<T>(&self, verb: &'static str, work: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
        let done = work.await;
        self.0.close_used().await;
        done.map_err(|cause| StoreError::statement(self.path(), verb, cause))
    }
}

/// A file beside the database: its path with `suffix` added.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
