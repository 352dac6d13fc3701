//! The documents about runs and jobs: what the API answers and what commands print, made in one place.

use serde_json::{Value, json};

use super::retry::failed_beside_jobs;
use crate::engine::SCHEMA_VERSION;
use crate::engine::daemon::DaemonStatus;
use crate::store::{JobFilter, JobOutcome, RunId, RunOutcome, RunRow, Store, StoreError};

/// The newest runs, newest first. With `gone`, here and below, no process is at work on the state: what is open was interrupted.
///
/// # Errors
/// The state database failed.
pub async fn runs(store: &Store, limit: u32, gone: bool) -> Result<Value, StoreError> {
    let mut runs = store.runs(limit).await?;
    runs.iter_mut().for_each(|run| close(run, gone));
    Ok(json!({ "schema_version": SCHEMA_VERSION, "runs": runs }))
}

/// One run with its report, which is null while it runs. `None` where there is no such run.
///
/// # Errors
/// The state database failed.
pub async fn run(store: &Store, id: RunId, gone: bool) -> Result<Option<Value>, StoreError> {
    let mut run = store.run(id).await?;
    if let Some(run) = &mut run {
        close(run, gone);
    }
    Ok(run.as_ref().map(run_document))
}

fn close(run: &mut RunRow, gone: bool) {
    if gone {
        run.outcome.get_or_insert(RunOutcome::Interrupted);
    }
}

/// A run as a document.
fn run_document(row: &RunRow) -> Value {
    // A report that cannot be read would be one of another version: the row alone still says how the run ended.
    let report: Option<Value> = row.report.as_deref().and_then(|text| serde_json::from_str(text).ok());
    json!({ "schema_version": SCHEMA_VERSION, "run": row, "report": report })
}

/// Jobs, newest first, whether there are more, and, where failures of all runs are asked for, the newest runs of rules that
/// failed in something that is no job. `None` where there is no such run.
///
/// # Errors
/// The state database failed.
pub async fn jobs(store: &Store, filter: &JobFilter, gone: bool) -> Result<Option<Value>, StoreError> {
    if let Some(run) = filter.run
        && store.run(run).await?.is_none()
    {
        return Ok(None);
    }
    let one_more = match filter.limit {
        0 => 0,
        limit => limit.saturating_add(1),
    };
    let mut jobs = store
        .jobs(&JobFilter {
            limit: one_more,
            ..filter.clone()
        })
        .await?;
    let wanted = usize::try_from(filter.limit).unwrap_or(usize::MAX);
    let more = wanted > 0 && jobs.len() > wanted;
    if more {
        jobs.truncate(wanted);
    }
    if gone {
        for job in &mut jobs {
            job.outcome.get_or_insert(JobOutcome::Interrupted);
        }
    }
    let failed_runs = if filter.failed && filter.run.is_none() {
        failed_runs(store).await?
    } else {
        Vec::new()
    };
    Ok(Some(
        json!({ "schema_version": SCHEMA_VERSION, "jobs": jobs, "more": more, "failed_runs": failed_runs }),
    ))
}

/// The newest run of each rule, where it failed in something that is no job.
async fn failed_runs(store: &Store) -> Result<Vec<RunId>, StoreError> {
    let mut found = Vec::new();
    for run in store.last_runs().await? {
        if !matches!(run.outcome, Some(RunOutcome::Failed | RunOutcome::Partial)) {
            continue;
        }
        let of_run = JobFilter {
            run: Some(run.id),
            failed: true,
            limit: 0,
        };
        if failed_beside_jobs(&run, &store.jobs(&of_run).await?) {
            found.push(run.id);
        }
    }
    Ok(found)
}

/// The audit trail, newest first.
///
/// # Errors
/// The state database failed.
pub async fn audit(store: &Store, limit: u32) -> Result<Value, StoreError> {
    let entries = store.audit(limit).await?;
    Ok(json!({ "schema_version": SCHEMA_VERSION, "entries": entries }))
}

/// What a running daemon says of itself.
pub fn status_of_daemon(status: &DaemonStatus, store: &Store) -> Value {
    json!({
        "schema_version": SCHEMA_VERSION,
        "state": store.path(),
        "daemon": { "pid": status.pid, "started_at": status.started_at, "reload_error": status.reload_error },
        "rules": status.rules,
    })
}

/// What the state alone knows: each rule's last run. Schedules are known to a daemon only.
///
/// # Errors
/// The state database failed.
pub async fn status_of_state(store: &Store, gone: bool) -> Result<Value, StoreError> {
    let rules: Vec<Value> = store
        .last_runs()
        .await?
        .into_iter()
        .map(|mut last| {
            close(&mut last, gone);
            let running = last.outcome.is_none().then_some(last.id);
            json!({
                "rule": last.rule,
                "schedule": null,
                "next_at": null,
                "running": running,
                "last": last.outcome.is_some().then_some(&last),
            })
        })
        .collect();
    Ok(json!({ "schema_version": SCHEMA_VERSION, "state": store.path(), "daemon": null, "rules": rules }))
}
