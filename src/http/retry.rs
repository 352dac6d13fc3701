//! What `retry` runs again: the failed images of a run, or one job's image.

use crate::engine::Only;
use crate::store::{JobFilter, JobId, JobOutcome, JobRow, RunId, Store, StoreError};

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

/// The rule to run again and the images to look at; all of the rule's where nothing of a run can be named (a listing failed).
///
/// # Errors
/// See [`NothingToRetry`].
pub async fn selection(store: &Store, target: Target) -> Result<(String, Vec<Only>), NothingToRetry> {
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
            let again = jobs
                .iter()
                .filter(|job| matches!(job.outcome, Some(JobOutcome::Failed | JobOutcome::Interrupted) | None));
            Ok((run.rule, again.map(image).collect()))
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
            Ok((job.rule, only))
        }
    }
}

fn image(job: &JobRow) -> Only {
    Only {
        repository: job.source_repository.clone(),
        reference: job.reference.clone(),
        destination: job.destination_registry.clone(),
    }
}
