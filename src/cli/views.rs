//! The documents of the API and the state as commands read them, so that both are shown by the same code.

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::exit::Stop;

/// Reads a document.
pub(super) fn read<T: DeserializeOwned>(document: &Value) -> Result<T, Stop> {
    T::deserialize(document).map_err(|error| {
        Stop::failed(format!(
            "the answer is not as expected ({error}): is the daemon of another version of transship?"
        ))
    })
}

/// A run.
#[derive(Debug, Deserialize)]
pub(super) struct RunView {
    pub(super) id: String,
    pub(super) rule: String,
    pub(super) trigger: String,
    pub(super) outcome: Option<String>,
    pub(super) started_at: Timestamp,
    pub(super) finished_at: Option<Timestamp>,
}

/// A run's report, as far as people are shown it.
#[derive(Debug, Deserialize)]
pub(super) struct ReportView {
    pub(super) id: String,
    pub(super) rule: String,
    pub(super) outcome: String,
    pub(super) started_at: Timestamp,
    pub(super) finished_at: Timestamp,
    pub(super) source: SourceView,
    pub(super) destinations: Vec<DestinationView>,
    pub(super) bytes: ReadView,
    pub(super) failures: Vec<FailureView>,
    /// Missing in reports of earlier versions, as changes that are left out are.
    #[serde(default)]
    pub(super) failures_left_out: u64,
    #[serde(default)]
    pub(super) changes_left_out: u64,
    /// None in reports of earlier versions.
    #[serde(default)]
    pub(super) warnings: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct SourceView {
    pub(super) repositories: u64,
    pub(super) tags_listed: u64,
    pub(super) tags_selected: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct ReadView {
    pub(super) read: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct DestinationView {
    pub(super) registry: String,
    pub(super) images: ImagesView,
    pub(super) bytes: WrittenView,
}

#[derive(Debug, Deserialize)]
pub(super) struct ImagesView {
    pub(super) in_step: u64,
    pub(super) copied: u64,
    pub(super) kept: u64,
    pub(super) held: u64,
    pub(super) deferred: u64,
    pub(super) gone: u64,
    pub(super) skipped: u64,
    pub(super) failed: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct WrittenView {
    pub(super) written: u64,
    pub(super) resumed: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct FailureView {
    pub(super) source: String,
    pub(super) destination: Option<String>,
    pub(super) job: Option<String>,
    pub(super) kind: String,
    pub(super) message: String,
}

/// A job.
#[derive(Debug, Deserialize)]
pub(super) struct JobView {
    pub(super) id: String,
    pub(super) run: String,
    pub(super) source_registry: String,
    pub(super) source_repository: String,
    pub(super) reference: String,
    pub(super) destination_registry: String,
    pub(super) destination_repository: String,
    pub(super) outcome: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) message: Option<String>,
    pub(super) attempts: u32,
    pub(super) next_attempt_at: Option<Timestamp>,
}

/// A line of the audit trail.
#[derive(Debug, Deserialize)]
pub(super) struct AuditView {
    pub(super) at: Timestamp,
    pub(super) run: Option<String>,
    pub(super) action: String,
    pub(super) source: String,
    pub(super) registry: String,
    pub(super) repository: String,
    pub(super) tag: String,
    pub(super) digest: String,
    pub(super) previous_digest: Option<String>,
}

/// What `status` shows.
#[derive(Debug, Deserialize)]
pub(super) struct StatusView {
    pub(super) daemon: Option<DaemonView>,
    pub(super) rules: Vec<RuleView>,
}

#[derive(Debug, Deserialize)]
pub(super) struct DaemonView {
    pub(super) pid: u32,
    pub(super) started_at: Timestamp,
    pub(super) reload_error: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RuleView {
    pub(super) rule: String,
    pub(super) schedule: Option<String>,
    pub(super) next_at: Option<Timestamp>,
    pub(super) running: Option<String>,
    pub(super) last: Option<RunView>,
}
