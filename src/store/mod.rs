//! The state database: what transship remembers across runs and crashes. SQL stands nowhere else.
//!
//! Verbs, never a transaction handed out. Times are [`jiff::Timestamp`]s given by the caller and stored as milliseconds UTC.

mod lock;
mod types;

pub use lock::{Holder, StateLock};
pub use types::{
    AuditEntry, FinishedJob, JobFilter, JobId, JobOutcome, JobRow, NewJob, NewRun, RunId, RunOutcome, RunRow,
    StoredUpload, Trigger, UploadId, UploadKey, Write,
};

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::oci::{Digest, RepositoryName, Tag};
use crate::plan::Checkpoint;

/// The state database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {}

/// A failure of the state database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or created.
    #[error("cannot open the state database {path}: {message}")]
    Open {
        /// Its path.
        path: PathBuf,
        /// What happened and what to do.
        message: String,
        /// The cause.
        #[source]
        cause: Option<sqlx::Error>,
    },
    /// The database was made by a newer version of transship.
    #[error("the state database {path} was made by a newer version of transship: use that version, or another --state")]
    Newer {
        /// Its path.
        path: PathBuf,
    },
    /// A statement failed.
    #[error("the state database failed while trying to {verb}")]
    Statement {
        /// What was tried, in words.
        verb: &'static str,
        /// The cause.
        #[source]
        cause: sqlx::Error,
    },
}

type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// Opens or creates the database at `path` (and its folder), brings the schema up to date.
    pub async fn open(path: &Path) -> Result<Self> {
        let _ = path;
        unimplemented!()
    }
    /// Opens an existing database for reading only; `None` where there is none.
    pub async fn open_read_only(path: &Path) -> Result<Option<Self>> {
        let _ = path;
        unimplemented!()
    }
    /// Where it is.
    pub fn path(&self) -> &Path {
        unimplemented!()
    }
    /// Writes everything out and closes.
    pub async fn close(self) {
        unimplemented!()
    }

    // --- runs
    /// Starts a run.
    pub async fn start_run(&self, run: NewRun<'_>, now: Timestamp) -> Result<RunId> {
        let _ = (run, now);
        unimplemented!()
    }
    /// Ends a run with its report as JSON.
    pub async fn finish_run(&self, run: RunId, outcome: RunOutcome, report: &str, now: Timestamp) -> Result<()> {
        let _ = (run, outcome, report, now);
        unimplemented!()
    }
    /// Closes runs (and their open jobs) that a dead process left open, as `interrupted`; gives them, oldest first.
    pub async fn close_interrupted(&self, now: Timestamp) -> Result<Vec<RunRow>> {
        let _ = now;
        unimplemented!()
    }
    /// The newest `limit` runs, newest first.
    pub async fn runs(&self, limit: u32) -> Result<Vec<RunRow>> {
        let _ = limit;
        unimplemented!()
    }
    /// One run.
    pub async fn run(&self, run: RunId) -> Result<Option<RunRow>> {
        let _ = run;
        unimplemented!()
    }
    /// The newest run of each rule.
    pub async fn last_runs(&self) -> Result<Vec<RunRow>> {
        unimplemented!()
    }
    /// When a rule last started, for missed schedules.
    pub async fn last_started(&self, rule: &str) -> Result<Option<Timestamp>> {
        let _ = rule;
        unimplemented!()
    }
    /// Asks whichever process executes the run to stop it. False where it is not running.
    pub async fn request_cancel(&self, run: RunId) -> Result<bool> {
        let _ = run;
        unimplemented!()
    }
    /// Of these runs, those for which a stop was asked.
    pub async fn cancel_requested(&self, runs: &[RunId]) -> Result<Vec<RunId>> {
        let _ = runs;
        unimplemented!()
    }
    /// Deletes runs (with jobs and audit kept as the schema says) older than `before`, except each rule's last. Gives how many.
    pub async fn clean_runs(&self, before: Timestamp) -> Result<u64> {
        let _ = before;
        unimplemented!()
    }

    // --- jobs
    /// Adds a job, running.
    pub async fn start_job(&self, job: NewJob<'_>, now: Timestamp) -> Result<JobId> {
        let _ = (job, now);
        unimplemented!()
    }
    /// Adds jobs that need nothing done (in step, kept, skipped …), in one transaction.
    pub async fn record_settled_jobs(&self, jobs: &[(NewJob<'_>, FinishedJob)], now: Timestamp) -> Result<()> {
        let _ = (jobs, now);
        unimplemented!()
    }
    /// Ends a job.
    pub async fn finish_job(&self, job: JobId, finished: &FinishedJob, now: Timestamp) -> Result<()> {
        let _ = (job, finished, now);
        unimplemented!()
    }
    /// Jobs, newest first.
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>> {
        let _ = filter;
        unimplemented!()
    }
    /// One job.
    pub async fn job(&self, job: JobId) -> Result<Option<JobRow>> {
        let _ = job;
        unimplemented!()
    }

    // --- uploads
    /// Remembers an open upload, before its first byte; replaces one for the same key.
    pub async fn save_upload(
        &self,
        key: &UploadKey,
        size: u64,
        write: &str,
        offset: u64,
        now: Timestamp,
    ) -> Result<UploadId> {
        let _ = (key, size, write, offset, now);
        unimplemented!()
    }
    /// Remembers the newest location and the acknowledged offset, with the hash state there if known, in one transaction.
    pub async fn record_offset(
        &self,
        upload: UploadId,
        write: &str,
        offset: u64,
        checkpoint: Option<&Checkpoint>,
        now: Timestamp,
    ) -> Result<()> {
        let _ = (upload, write, offset, checkpoint, now);
        unimplemented!()
    }
    /// Remembers a hash state while streaming; the last eight are kept.
    pub async fn record_checkpoint(&self, upload: UploadId, checkpoint: &Checkpoint, now: Timestamp) -> Result<()> {
        let _ = (upload, checkpoint, now);
        unimplemented!()
    }
    /// The open upload for a key.
    pub async fn upload(&self, key: &UploadKey) -> Result<Option<StoredUpload>> {
        let _ = key;
        unimplemented!()
    }
    /// All open uploads.
    pub async fn uploads(&self) -> Result<Vec<StoredUpload>> {
        unimplemented!()
    }
    /// Forgets an upload (finished or gone) and its checkpoints.
    pub async fn forget_upload(&self, upload: UploadId) -> Result<()> {
        let _ = upload;
        unimplemented!()
    }

    // --- blobs known to be at a destination
    /// Remembers blobs seen in or written to a repository.
    pub async fn remember_blobs(
        &self,
        registry: &str,
        repository: &RepositoryName,
        digests: &[Digest],
        now: Timestamp,
    ) -> Result<()> {
        let _ = (registry, repository, digests, now);
        unimplemented!()
    }
    /// Which of `digests` are remembered, and in which repositories of the registry (at most four each).
    pub async fn known_blobs(
        &self,
        registry: &str,
        digests: &[Digest],
    ) -> Result<BTreeMap<Digest, Vec<RepositoryName>>> {
        let _ = (registry, digests);
        unimplemented!()
    }
    /// Forgets blobs of a repository that proved not to be there.
    pub async fn forget_blobs(&self, registry: &str, repository: &RepositoryName, digests: &[Digest]) -> Result<()> {
        let _ = (registry, repository, digests);
        unimplemented!()
    }
    /// Remembers that mounts between two repositories are refused.
    pub async fn remember_mount_refusal(
        &self,
        registry: &str,
        from: &RepositoryName,
        to: &RepositoryName,
        until: Timestamp,
    ) -> Result<()> {
        let _ = (registry, from, to, until);
        unimplemented!()
    }
    /// True when mounts between two repositories are known to be refused.
    pub async fn mount_refused(
        &self,
        registry: &str,
        from: &RepositoryName,
        to: &RepositoryName,
        now: Timestamp,
    ) -> Result<bool> {
        let _ = (registry, from, to, now);
        unimplemented!()
    }

    // --- capabilities
    /// Keeps what was learnt of a registry (`class`: of which repositories, `*` for all).
    pub async fn learn(
        &self,
        registry: &str,
        class: &str,
        name: &str,
        value: &str,
        evidence: &str,
        now: Timestamp,
        expires: Timestamp,
    ) -> Result<()> {
        let _ = (registry, class, name, value, evidence, now, expires);
        unimplemented!()
    }
    /// What was learnt, unless expired.
    pub async fn capability(&self, registry: &str, class: &str, name: &str, now: Timestamp) -> Result<Option<String>> {
        let _ = (registry, class, name, now);
        unimplemented!()
    }
    /// All capabilities of a registry: (class, name, value, evidence, learnt).
    pub async fn capabilities(&self, registry: &str) -> Result<Vec<(String, String, String, String, Timestamp)>> {
        let _ = registry;
        unimplemented!()
    }
    /// Forgets what proved wrong.
    pub async fn forget_capability(&self, registry: &str, class: &str, name: &str) -> Result<()> {
        let _ = (registry, class, name);
        unimplemented!()
    }

    // --- what we wrote
    /// Records that a tag was put: audit trail and history, in one transaction.
    pub async fn record_write(&self, write: &Write<'_>, now: Timestamp) -> Result<()> {
        let _ = (write, now);
        unimplemented!()
    }
    /// All digests that we wrote under the tags of a repository.
    pub async fn written(
        &self,
        registry: &str,
        repository: &RepositoryName,
    ) -> Result<BTreeMap<Tag, BTreeSet<Digest>>> {
        let _ = (registry, repository);
        unimplemented!()
    }
    /// The audit trail, newest first.
    pub async fn audit(&self, limit: u32) -> Result<Vec<AuditEntry>> {
        let _ = limit;
        unimplemented!()
    }
    /// Keeps when everything that a tag reaches was seen at the destination.
    pub async fn record_verified(
        &self,
        registry: &str,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<()> {
        let _ = (registry, repository, tag, digest, now);
        unimplemented!()
    }

    // --- rewritten indexes and attachments
    /// What a policy made of a source digest: JSON text as given to [`Store::remember_choice`].
    pub async fn choice(&self, source: &Digest, policy: &str) -> Result<Option<String>> {
        let _ = (source, policy);
        unimplemented!()
    }
    /// Remembers it.
    pub async fn remember_choice(&self, source: &Digest, policy: &str, choice: &str, now: Timestamp) -> Result<()> {
        let _ = (source, policy, choice, now);
        unimplemented!()
    }
    /// When the attachments of these images were last compared at a destination repository.
    pub async fn attachments_checked(
        &self,
        registry: &str,
        repository: &RepositoryName,
    ) -> Result<BTreeMap<Digest, Timestamp>> {
        let _ = (registry, repository);
        unimplemented!()
    }
    /// Keeps when they were compared.
    pub async fn record_attachments_checked(
        &self,
        registry: &str,
        repository: &RepositoryName,
        subject: &Digest,
        now: Timestamp,
    ) -> Result<()> {
        let _ = (registry, repository, subject, now);
        unimplemented!()
    }

    // --- claims on destination tags
    /// Claims destination tags for a source (`rule`, `source registry/repository`); gives the tags that another source has claimed, with the
    /// other claim in words. A claim by the same source is renewed; one not renewed since `stale_before` is taken over.
    pub async fn claim_tags(
        &self,
        registry: &str,
        repository: &RepositoryName,
        tags: &[Tag],
        rule: &str,
        source: &str,
        now: Timestamp,
        stale_before: Timestamp,
    ) -> Result<BTreeMap<Tag, String>> {
        let _ = (registry, repository, tags, rule, source, now, stale_before);
        unimplemented!()
    }
}
