//! The documents about runs and jobs: what the API answers and what commands print, made in one place.

use serde_json::{Value, json};

use crate::engine::SCHEMA_VERSION;
use crate::engine::daemon::DaemonStatus;
use crate::store::{JobFilter, RunId, RunRow, Store, StoreError};

/// The newest runs, newest first.
///
/// # Errors
/// The state database failed.
pub async fn runs(store: &Store, limit: u32) -> Result<Value, StoreError> {
    let runs = store.runs(limit).await?;
    Ok(json!({ "schema_version": SCHEMA_VERSION, "runs": runs }))
}

/// One run with its report, which is null while it runs. `None` where there is no such run.
///
/// # Errors
/// The state database failed.
pub async fn run(store: &Store, id: RunId) -> Result<Option<Value>, StoreError> {
    Ok(store.run(id).await?.as_ref().map(run_document))
}

/// A run as a document.
fn run_document(row: &RunRow) -> Value {
    // A report that cannot be read would be one of another version: the row alone still says how the run ended.
    let report: Option<Value> = row.report.as_deref().and_then(|text| serde_json::from_str(text).ok());
    json!({ "schema_version": SCHEMA_VERSION, "run": row, "report": report })
}

/// Jobs, newest first.
///
/// # Errors
/// The state database failed.
pub async fn jobs(store: &Store, filter: &JobFilter) -> Result<Value, StoreError> {
    let jobs = store.jobs(filter).await?;
    Ok(json!({ "schema_version": SCHEMA_VERSION, "jobs": jobs }))
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
pub async fn status_of_state(store: &Store) -> Result<Value, StoreError> {
    let rules: Vec<Value> = store
        .last_runs()
        .await?
        .into_iter()
        .map(|last| {
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
