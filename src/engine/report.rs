//! What a run came to: the JSON report, which scripts read.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::oci::Digest;
use crate::plan::{ErrorKind, RepositoryPlan};
use crate::store::{JobId, JobOutcome, RunId, RunOutcome, Trigger};

/// Version of every JSON document that we print.
pub const SCHEMA_VERSION: u32 = 1;

/// What `sync --format json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct SyncReport {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The runs, in the order of the rules.
    pub runs: Vec<RunReport>,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// Its id.
    pub id: RunId,
    /// Its rule; for `copy`, `copy`.
    pub rule: String,
    /// What started it.
    pub trigger: Trigger,
    /// How it ended.
    pub outcome: RunOutcome,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// What was seen at the source.
    pub source: SourceCounts,
    /// What was done at each destination, in the rule's order.
    pub destinations: Vec<DestinationReport>,
    /// Bytes of blobs read from the source.
    pub bytes: SourceBytes,
    /// Attempts by registry name and method.
    pub requests: BTreeMap<String, BTreeMap<String, u64>>,
    /// Tags that were put, and images left alone with a difference.
    pub changes: Vec<Change>,
    /// How many more changes there were: 10,000 are named.
    pub changes_left_out: u64,
    /// What failed: jobs, and listings that are unknown.
    pub failures: Vec<Failure>,
    /// How many more failures there were: 10,000 are named.
    pub failures_left_out: u64,
    /// What a person should know although it fails nothing, such as patterns that match nothing.
    pub warnings: Vec<String>,
}

/// What was seen at the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceCounts {
    /// Repositories that the rule matched.
    pub repositories: u64,
    /// Their tags; attachments are not counted.
    pub tags_listed: u64,
    /// Tags that the rule wants.
    pub tags_selected: u64,
}

/// Bytes at the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceBytes {
    /// Bytes of blobs read.
    pub read: u64,
}

/// Bytes at a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DestinationBytes {
    /// Bytes of blobs sent.
    pub written: u64,
    /// Bytes that were not sent again because a session went on.
    pub resumed: u64,
}

/// What was done at one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DestinationReport {
    /// Its name.
    pub registry: String,
    /// Jobs by outcome.
    pub images: ImageCounts,
    /// How many of those in step were not looked at in this run but trusted (`trust_destination`).
    pub trusted: u64,
    /// Tags deleted.
    pub tags_deleted: u64,
    /// Deletes that were not certain enough.
    pub deletes_blocked: u64,
    /// Blobs by how they got there.
    pub blobs: BlobCounts,
    /// Bytes sent.
    pub bytes: DestinationBytes,
}

/// Jobs by outcome; sums to the images planned for the destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(
    missing_docs,
    reason = "the names are the outcomes of `JobOutcome`, which has the docs"
)]
pub struct ImageCounts {
    pub in_step: u64,
    pub copied: u64,
    pub kept: u64,
    pub held: u64,
    pub deferred: u64,
    pub gone: u64,
    pub skipped: u64,
    pub failed: u64,
}

impl ImageCounts {
    /// Counts one job. An interrupted one counts as failed: it was planned and is not done.
    pub fn add(&mut self, outcome: JobOutcome) {
        let count = match outcome {
            JobOutcome::InStep => &mut self.in_step,
            JobOutcome::Copied => &mut self.copied,
            JobOutcome::Kept => &mut self.kept,
            JobOutcome::Held => &mut self.held,
            JobOutcome::Deferred => &mut self.deferred,
            JobOutcome::Gone => &mut self.gone,
            JobOutcome::Skipped => &mut self.skipped,
            JobOutcome::Failed | JobOutcome::Interrupted => &mut self.failed,
        };
        *count += 1;
    }

    /// All jobs.
    pub fn total(&self) -> u64 {
        self.in_step + self.copied + self.kept + self.held + self.deferred + self.gone + self.skipped + self.failed
    }
}

/// Blobs by how they got to the destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlobCounts {
    /// Sent.
    pub copied: u64,
    /// Mounted from another repository.
    pub mounted: u64,
    /// Already there.
    pub present: u64,
    /// Fetched by the registry itself from the source.
    pub imported: u64,
}

/// One image that changed, or that was left alone although it differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `registry/repository:tag`.
    pub source: String,
    /// `registry/repository:tag`.
    pub destination: String,
    /// What the destination should hold.
    pub digest: Option<Digest>,
    /// What it held before.
    pub previous_digest: Option<Digest>,
    /// `copied`, `kept`, `gone`, `skipped`.
    pub outcome: JobOutcome,
}

/// One failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// `registry/repository:tag`, or less where less is concerned.
    pub source: String,
    /// `registry/repository:tag`, or nothing where a listing of the source failed.
    pub destination: Option<String>,
    /// The job, where one was started.
    pub job: Option<JobId>,
    /// What should have been copied.
    pub digest: Option<Digest>,
    /// Kind of the failure.
    pub kind: ErrorKind,
    /// HTTP status, where one came.
    pub status: Option<u16>,
    /// The registry's error code, where one came.
    pub code: Option<String>,
    /// What happened and what to do.
    pub message: String,
    /// Attempts made.
    pub attempts: u32,
    /// The first run of its rule from then on tries it again; `None`: the next one does.
    pub next_attempt_at: Option<Timestamp>,
}

/// What a run of a rule would do.
#[derive(Clone, Debug, Serialize)]
pub struct RulePlan {
    /// The rule.
    pub rule: String,
    /// Its repositories. Empty where they were given to the caller one by one.
    pub repositories: Vec<RepositoryPlan>,
    /// Patterns that match nothing, and those whose tags are all left out.
    pub warnings: Vec<String>,
    /// Failures outside a repository: a catalogue that could not be listed.
    pub failures: Vec<Failure>,
    /// True when a run would copy something.
    pub work: bool,
    /// True when something failed or is unknown.
    pub failed: bool,
}

/// What `verify` found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VerifyReport {
    /// The rule.
    pub rule: String,
    /// Images compared, counted a destination.
    pub images: u64,
    /// Images that differ and are left so, as the rule wants it (`on_conflict: keep`, `moved_tags: keep`).
    pub kept: u64,
    /// Images of which none of the wanted platforms is there.
    pub skipped: u64,
    /// Images whose tag vanished at the source after it was listed.
    pub gone: u64,
    /// Manifests seen at destinations.
    pub manifests: u64,
    /// Blobs seen at destinations.
    pub blobs: u64,
    /// Bytes hashed with `--deep`.
    pub bytes: u64,
    /// Faults.
    pub findings: Vec<VerifyFinding>,
    /// How many more faults there were: 10,000 are named.
    pub findings_left_out: u64,
    /// The run that repaired them, with `--repair`.
    pub repaired: Option<RunReport>,
    /// What is still wrong after the repair: registries that hold a digest already mostly drop what is sent anew.
    pub unrepaired: Vec<VerifyFinding>,
    /// How many more of those there were: 10,000 are named.
    pub unrepaired_left_out: u64,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifyFinding {
    /// `registry/repository:tag` of the source.
    pub source: String,
    /// `registry/repository:tag` of the destination.
    pub destination: String,
    /// `missing`, `different`, `manifest_missing`, `blob_missing`, `corrupt`, `unreadable`, `unknown`.
    pub fault: &'static str,
    /// What is missing or wrong.
    pub digest: Option<Digest>,
    /// In words.
    pub message: String,
}

/// What `ping` found at one registry.
#[derive(Clone, Debug, Serialize)]
pub struct PingReport {
    /// Its name.
    pub registry: String,
    /// Its URL or path.
    pub address: String,
    /// The steps in order; after a failed one of the way to it (`name`, `address`, `tls`, `login`) the rest is not tried.
    pub steps: Vec<PingStep>,
    /// Addresses that its host's name stands for; empty where a proxy looks for it, and for a directory.
    pub addresses: Vec<std::net::IpAddr>,
    /// The certificate that it showed.
    pub certificate: Option<PingCertificate>,
    /// Who we are there; null for nobody, and where that was not reached.
    pub user: Option<String>,
    /// What it is, as `kind` in the rules; null where that was not found out.
    pub kind: Option<&'static str>,
    /// Product and version, where it tells them.
    pub version: Option<String>,
    /// How far its clock is ahead of ours, in seconds (negative: behind).
    pub clock_skew_seconds: Option<i64>,
    /// What was learnt of it and still holds.
    pub capabilities: Vec<PingCapability>,
    /// How much more of the same sorts is known of single repositories.
    pub capabilities_left_out: usize,
    /// What broken uploads leave: `keeps_bytes`, `keeps_pieces`, `keeps_nothing`, `not_known`.
    pub upload_habit: &'static str,
}

/// A registry's certificate.
#[derive(Clone, Debug, Serialize)]
pub struct PingCertificate {
    /// Who issued it; empty where it does not say.
    pub issuer: String,
    /// When it ends.
    pub ends: Timestamp,
    /// Whole days until then.
    pub days_left: i64,
}

/// One thing that was learnt of a registry.
#[derive(Clone, Debug, Serialize)]
pub struct PingCapability {
    /// Of which repositories; `*` for all.
    pub class: String,
    /// What.
    pub name: String,
    /// What of it.
    pub value: String,
    /// The same in plain words.
    pub message: String,
    /// What showed it.
    pub evidence: String,
    /// When.
    pub learnt: Timestamp,
    /// Until when it is believed.
    pub expires: Timestamp,
}

/// A right on one repository.
#[derive(Clone, Debug, Serialize)]
pub struct PingRight {
    /// The repository.
    pub repository: String,
    /// As [`PingStep::ok`].
    pub ok: Option<bool>,
    /// What was found, or what failed and what to do.
    pub message: String,
}

/// One step of `ping`.
#[derive(Clone, Debug, Serialize)]
pub struct PingStep {
    /// `name`, `address`, `tls`, `login`, `clock`, `kind`, `list`, `pull`, `push`, `delete`.
    pub step: &'static str,
    /// True when it worked; `None` when it could not be tried (no repository to try on).
    pub ok: Option<bool>,
    /// What was found, or what failed and what to do.
    pub message: String,
    /// The repositories that a right was tried on, 20 at most; empty for other steps.
    pub repositories: Vec<PingRight>,
}
