//! What `retry` runs again: the failed images of a run, or one job's image.

use serde_json::Value;

use crate::engine::Only;
use crate::oci::RepositoryName;
use crate::store::{JobFilter, JobId, JobOutcome, JobRow, RunId, RunOutcome, RunRow, Store, StoreError};

/// What to run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// What failed in a run.
    Run(RunId),
    /// One job.
    Job(JobId),
}

/// Why there is nothing to run again.
#[derive(Debug, thiserror::Error)]
pub enum NothingToRetry {
    /// The state does not know it.
    #[error("there is no {0}: see `transship runs` and `transship jobs`")]
    Unknown(String),
    /// It has not ended.
    #[error("{0} has not ended yet: cancel it first, or wait")]
    Running(String),
    /// The state database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The rule to run again and the images to look at: all of the rule's where not all that failed is an image (a listing, a run
/// that did not come to its end). `None` where nothing failed.
///
/// # Errors
/// See [`NothingToRetry`].
pub async fn selection(store: &Store, target: Target) -> Result<Option<(String, Vec<Only>)>, NothingToRetry> {
    match target {
        Target::Run(id) => {
            let run = store
                .run(id)
                .await?
                .ok_or_else(|| NothingToRetry::Unknown(id.to_string()))?;
            if run.outcome.is_none() {
                return Err(NothingToRetry::Running(id.to_string()));
            }
            let jobs = store
                .jobs(&JobFilter {
                    run: Some(id),
                    failed: false,
                    limit: 0,
                })
                .await?;
            if failed_beside_jobs(&run, &jobs) {
                return Ok(Some((run.rule, Vec::new())));
            }
            let again: Vec<Only> = jobs.iter().filter(|job| is_undone(job)).map(image).collect();
            // Nothing named would mean the whole rule.
            Ok((!again.is_empty()).then_some((run.rule, again)))
        }
        Target::Job(id) => {
            let job = store
                .job(id)
                .await?
                .ok_or_else(|| NothingToRetry::Unknown(id.to_string()))?;
            if job.outcome.is_none() {
                return Err(NothingToRetry::Running(id.to_string()));
            }
            let only = vec![image(&job)];
            Ok(Some((job.rule, only)))
        }
    }
}

/// True where something of an ended run went wrong that none of its `jobs` stands for: a listing failed, or the run was stopped
/// before it had looked at everything.
pub(super) fn failed_beside_jobs(run: &RunRow, jobs: &[JobRow]) -> bool {
    if matches!(run.outcome, Some(RunOutcome::Interrupted | RunOutcome::Cancelled)) {
        return true;
    }
    let report: Option<Value> = run.report.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let Some(failures) = report.as_ref().and_then(|report| report["failures"].as_array()) else {
        return run.outcome != Some(RunOutcome::Ok);
    };
    failures
        .iter()
        .filter(|failure| failure["job"].is_null())
        // What the plan alone refuses has a job that the report does not number.
        .any(|failure| !jobs.iter().any(|job| is_undone(job) && stands_for(job, failure)))
}

fn is_undone(job: &JobRow) -> bool {
    matches!(job.outcome, Some(JobOutcome::Failed | JobOutcome::Interrupted) | None)
}

/// Whether the places that a report's failure names are those of the job.
fn stands_for(job: &JobRow, failure: &Value) -> bool {
    let place = |registry: &str, repository: &RepositoryName| format!("{registry}/{repository}:{}", job.reference);
    failure["source"] == place(&job.source_registry, &job.source_repository)
        && failure["destination"] == place(&job.destination_registry, &job.destination_repository)
}

fn image(job: &JobRow) -> Only {
    Only {
        repository: job.source_repository.clone(),
        reference: job.reference.clone(),
        destination: job.destination_registry.clone(),
    }
}
