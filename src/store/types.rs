//! Rows and identifiers of the state database.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::oci::{Digest, RepositoryName, Tag};
use crate::plan::{Checkpoint, ErrorKind};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i64);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!(concat!($prefix, "-{}"), self.0))
            }
        }
        impl FromStr for $name {
            type Err = String;
            /// With or without its prefix.
            fn from_str(text: &str) -> Result<Self, String> {
                let number = text.strip_prefix(concat!($prefix, "-")).unwrap_or(text);
                number.parse().map(Self).map_err(|_| format!(concat!("{:?} is no id such as ", $prefix, "-12"), text))
            }
        }
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}
id!(
    /// A run; prints as `run-12`.
    RunId, "run");
id!(
    /// A job; prints as `job-345`.
    JobId, "job");
id!(
    /// An open upload.
    UploadId, "upload");

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant),* }
        impl $name {
            /// The word used in the database and in reports.
            pub fn as_str(self) -> &'static str { match self { $(Self::$variant => $word),* } }
        }
        impl FromStr for $name {
            type Err = ();
            fn from_str(text: &str) -> Result<Self, ()> { match text { $($word => Ok(Self::$variant),)* _ => Err(()) } }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(self.as_str()) }
        }
    };
}
words!(
    /// What started a run.
    Trigger { /// The rule's schedule.
        Schedule = "schedule", /// A person.
        Manual = "manual", /// A webhook.
        Event = "event", /// The end of another process in the middle of a run.
        Recovery = "recovery" });
words!(
    /// How a run ended.
    RunOutcome { /// No job failed.
        Ok = "ok", /// Some jobs failed.
        Partial = "partial", /// Nothing could be done, or every job failed.
        Failed = "failed", /// The process ended in the middle.
        Interrupted = "interrupted", /// Somebody stopped it.
        Cancelled = "cancelled" });
words!(
    /// How a job ended.
    JobOutcome { /// Nothing to do.
        InStep = "in_step", /// Copied.
        Copied = "copied", /// Left alone by policy.
        Kept = "kept", /// A gate said no.
        Held = "held", /// Quota or window.
        Deferred = "deferred", /// Vanished at the source meanwhile.
        Gone = "gone", /// Nothing of the wanted platforms.
        Skipped = "skipped", /// Failed.
        Failed = "failed", /// The process or the run was stopped in the middle.
        Interrupted = "interrupted" });

/// A run to start.
#[derive(Clone, Debug)]
pub struct NewRun<'a> {
    /// The rule.
    pub rule: &'a str,
    /// What started it.
    pub trigger: Trigger,
    /// The interrupted run that it continues.
    pub continues: Option<RunId>,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunRow {
    /// Its id.
    pub id: RunId,
    /// The rule.
    pub rule: String,
    /// What started it.
    pub trigger: Trigger,
    /// The interrupted run that it continues.
    pub continues: Option<RunId>,
    /// How it ended; `None` while it runs.
    pub outcome: Option<RunOutcome>,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Its report as JSON, once it ended.
    #[serde(skip)]
    pub report: Option<String>,
}

/// A job to start: one image to one destination.
#[derive(Clone, Debug)]
pub struct NewJob<'a> {
    /// Its run.
    pub run: RunId,
    /// Source registry's name.
    pub source_registry: &'a str,
    /// Source repository.
    pub source_repository: &'a RepositoryName,
    /// Tag (or digest) at both ends.
    pub reference: &'a str,
    /// Destination registry's name.
    pub destination_registry: &'a str,
    /// Destination repository.
    pub destination_repository: &'a RepositoryName,
    /// What the destination should hold.
    pub digest: Option<&'a Digest>,
    /// Process that executes it.
    pub owner: &'a str,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedJob {
    /// Outcome.
    pub outcome: JobOutcome,
    /// For failed jobs: kind.
    pub kind: Option<ErrorKind>,
    /// HTTP status, where one came.
    pub status: Option<u16>,
    /// The registry's error code, where one came.
    pub code: Option<String>,
    /// What happened and what to do.
    pub message: Option<String>,
    /// Attempts made.
    pub attempts: u32,
    /// Bytes sent to the destination.
    pub bytes_written: u64,
    /// The first run of its rule from then on tries it again; of a deferred one: when it fits at the latest.
    pub next_attempt_at: Option<Timestamp>,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// Its run.
    pub run: RunId,
    /// The run's rule.
    pub rule: String,
    /// Source registry's name.
    pub source_registry: String,
    /// Source repository.
    pub source_repository: RepositoryName,
    /// Tag or digest.
    pub reference: String,
    /// Destination registry's name.
    pub destination_registry: String,
    /// Destination repository.
    pub destination_repository: RepositoryName,
    /// What the destination should hold.
    pub digest: Option<Digest>,
    /// Outcome; `None` while it runs.
    pub outcome: Option<JobOutcome>,
    /// For failed jobs: kind.
    pub kind: Option<ErrorKind>,
    /// HTTP status, where one came.
    pub status: Option<u16>,
    /// The registry's error code.
    pub code: Option<String>,
    /// What happened and what to do.
    pub message: Option<String>,
    /// Attempts made.
    pub attempts: u32,
    /// Bytes sent to the destination.
    pub bytes_written: u64,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The first run of its rule from then on tries it again; of a deferred one: when it fits at the latest.
    pub next_attempt_at: Option<Timestamp>,
}

/// Which jobs to list.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Of this run only.
    pub run: Option<RunId>,
    /// Failed ones only; without a run, only the last attempt at each image.
    pub failed: bool,
    /// At most this many; 0 for no limit.
    pub limit: u32,
}

/// Which upload: a blob to a destination repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadKey {
    /// Destination registry's name.
    pub registry: String,
    /// Destination repository.
    pub repository: RepositoryName,
    /// The blob.
    pub digest: Digest,
}

/// An open upload as remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredUpload {
    /// Its id.
    pub id: UploadId,
    /// Which upload.
    pub key: UploadKey,
    /// Length of the blob in bytes.
    pub size: u64,
    /// The write, as [`crate::registry::BlobWrite::to_stored`] made it.
    pub write: String,
    /// Bytes that the destination acknowledged.
    pub offset: u64,
    /// Hash states, oldest first.
    pub checkpoints: Vec<Checkpoint>,
    /// When it was last used: opened, taken up, or known to have come further.
    pub used_at: Timestamp,
    /// Number of the process that uses it, or used it last; `None` where it is nobody's.
    pub owner: Option<u32>,
}

/// A manifest that was read.
#[derive(Clone, Debug)]
pub struct NewManifest {
    /// Registry, by its name in the rules.
    pub registry: String,
    /// Repository that gave it.
    pub repository: RepositoryName,
    /// Under which tag it was read; `None` where by digest.
    pub tag: Option<Tag>,
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its bytes, as they came.
    pub bytes: Bytes,
}

/// A manifest that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptManifest {
    /// Its number.
    pub id: i64,
    /// Its media type.
    pub media_type: String,
    /// Its bytes, not checked.
    pub bytes: Vec<u8>,
    /// When it was last wanted, roughly.
    pub used_at: Timestamp,
}

/// A tag that was put.
#[derive(Clone, Debug)]
pub struct Write<'a> {
    /// In which run (`None` for `copy`).
    pub run: Option<RunId>,
    /// By which job.
    pub job: Option<JobId>,
    /// Under which rule (empty for `copy`).
    pub rule: &'a str,
    /// `registry/repository` of the source.
    pub source: &'a str,
    /// Destination registry's name.
    pub registry: &'a str,
    /// Destination repository.
    pub repository: &'a RepositoryName,
    /// The tag.
    pub tag: &'a Tag,
    /// What it points to now.
    pub digest: &'a Digest,
    /// What it pointed to before, where it existed and that was known.
    pub previous: Option<&'a Digest>,
}

/// A tag that is about to be put.
#[derive(Clone, Copy, Debug)]
pub struct Intention<'a> {
    /// In which run.
    pub run: RunId,
    /// `registry/repository` of the source.
    pub source: &'a str,
    /// What the tag pointed to before, where it existed and that was known.
    pub previous: Option<&'a Digest>,
    /// Under which rule (empty for `copy`).
    pub rule: &'a str,
    /// Destination registry's name.
    pub registry: &'a str,
    /// Destination repository.
    pub repository: &'a RepositoryName,
    /// The tag.
    pub tag: &'a Tag,
    /// What it is to point to.
    pub digest: &'a Digest,
}

/// A line of the audit trail.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// In which run.
    pub run: Option<RunId>,
    /// By which job.
    pub job: Option<JobId>,
    /// Under which rule.
    pub rule: String,
    /// `put_tag`.
    pub action: String,
    /// `registry/repository` of the source.
    pub source: String,
    /// Destination registry's name.
    pub registry: String,
    /// Destination repository.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
    /// What it points to since.
    pub digest: Digest,
    /// What it pointed to before.
    pub previous_digest: Option<Digest>,
}
