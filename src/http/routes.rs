//! The paths of the API and the server around them.

use std::future::Future;
use std::io;
use std::pin::Pin;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use super::answer::{Answer, Refusal};
use super::documents;
use super::guard::{self, Token};
use super::listen::Listener;
use super::retry::{NothingToRetry, Target, selection};
use crate::engine::SCHEMA_VERSION;
use crate::engine::daemon::DaemonHandle;
use crate::store::{JobFilter, JobId, RunId, Store};

/// No request of ours is near this.
const MAX_BODY: usize = 64 * 1024;

/// Rows in an answer where the request names no number.
const DEFAULT_ROWS: u32 = 50;

/// Rows in an answer at most: what a client that asks for everything gets at once.
const MAX_ROWS: u32 = 10_000;

/// What the handlers need.
#[derive(Clone, Debug)]
pub struct Api {
    /// The daemon.
    pub daemon: DaemonHandle,
    /// Its state.
    pub store: Store,
    /// What must be shown over TCP to change something; without it nothing can be changed there.
    pub token: Option<Token>,
}

/// Answers on one socket until `stop` says true, then lets answers under way end.
pub fn serve(
    listener: Listener,
    api: Api,
    mut stop: watch::Receiver<bool>,
) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
    let stopped = async move {
        // The sender's end means the same.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    match listener {
        Listener::Unix(listener, file) => {
            let app = router(api);
            Box::pin(async move {
                let served = axum::serve(listener, app).with_graceful_shutdown(stopped).await;
                drop(file);
                served
            })
        }
        Listener::Loopback(listener) => {
            let token = api.token.clone();
            let app = router(api).layer(middleware::from_fn_with_state(token, guard::check));
            Box::pin(async move { axum::serve(listener, app).with_graceful_shutdown(stopped).await })
        }
    }
}

fn router(api: Api) -> Router {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/runs", get(runs))
        .route("/api/v1/runs/{id}", get(run))
        .route("/api/v1/runs/{id}/wait", get(wait))
        .route("/api/v1/runs/{id}/cancel", post(cancel))
        .route("/api/v1/jobs", get(jobs))
        .route("/api/v1/audit", get(audit))
        .route("/api/v1/trigger", post(trigger))
        .route("/api/v1/retry", post(retry))
        .fallback(|| async { Refusal::not_found("there is nothing at this path: see docs/commands.md for the API") })
        .method_not_allowed_fallback(|| async { Refusal::method() })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}

/// What stands behind `?`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    limit: u32,
    failed: bool,
    run: Option<RunId>,
}

/// Reads a query that may hold the keys `allowed`; others are refused, as a misspelt filter would show too much.
fn query(raw: Option<&str>, allowed: &[&str]) -> Result<Query, Refusal> {
    let mut query = Query {
        limit: DEFAULT_ROWS,
        ..Query::default()
    };
    for (key, value) in url::form_urlencoded::parse(raw.unwrap_or_default().as_bytes()) {
        if !allowed.contains(&&*key) {
            let known = allowed.join(", ");
            return Err(Refusal::bad_request(format!(
                "unknown parameter {key:?}: known here: {known}"
            )));
        }
        match &*key {
            "limit" => {
                let limit: u32 = value
                    .parse()
                    .map_err(|_| Refusal::bad_request(format!("limit={value:?} is not a number")))?;
                query.limit = if limit == 0 { MAX_ROWS } else { limit.min(MAX_ROWS) };
            }
            "failed" => query.failed = matches!(&*value, "" | "1" | "true"),
            _ => query.run = Some(id(&value)?),
        }
    }
    Ok(query)
}

fn id(text: &str) -> Result<RunId, Refusal> {
    text.parse().map_err(Refusal::bad_request)
}

async fn status(State(api): State<Api>) -> Answer {
    let status = api.daemon.status().await?;
    Ok(Json(documents::status_of_daemon(&status, &api.store)))
}

async fn runs(State(api): State<Api>, RawQuery(raw): RawQuery) -> Answer {
    let query = query(raw.as_deref(), &["limit"])?;
    Ok(Json(documents::runs(&api.store, query.limit, false).await?))
}

async fn run(State(api): State<Api>, Path(text): Path<String>) -> Answer {
    known_run(&api, id(&text)?).await
}

async fn known_run(api: &Api, id: RunId) -> Answer {
    match documents::run(&api.store, id, false).await? {
        Some(document) => Ok(Json(document)),
        None => Err(Refusal::not_found(format!("there is no {id}"))),
    }
}

async fn wait(State(api): State<Api>, Path(text): Path<String>) -> Answer {
    let id = id(&text)?;
    api.daemon.wait(id).await?;
    known_run(&api, id).await
}

async fn cancel(State(api): State<Api>, Path(text): Path<String>) -> Answer {
    let id = id(&text)?;
    if api.store.run(id).await?.is_none() {
        return Err(Refusal::not_found(format!("there is no {id}")));
    }
    let cancelled = api.daemon.cancel(id).await?;
    Ok(Json(
        json!({ "schema_version": SCHEMA_VERSION, "run": id, "cancelled": cancelled }),
    ))
}

async fn jobs(State(api): State<Api>, RawQuery(raw): RawQuery) -> Answer {
    let query = query(raw.as_deref(), &["failed", "run", "limit"])?;
    let filter = JobFilter {
        run: query.run,
        failed: query.failed,
        limit: query.limit,
    };
    match documents::jobs(&api.store, &filter, false).await? {
        Some(document) => Ok(Json(document)),
        None => Err(Refusal::not_found(match filter.run {
            Some(run) => format!("there is no {run}"),
            None => "there are no jobs".to_owned(),
        })),
    }
}

async fn audit(State(api): State<Api>, RawQuery(raw): RawQuery) -> Answer {
    let query = query(raw.as_deref(), &["limit"])?;
    Ok(Json(documents::audit(&api.store, query.limit).await?))
}

/// A body, or why it was not read (it is too long).
type Body = Result<Bytes, BytesRejection>;

/// `POST /api/v1/trigger`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TriggerBody {
    /// Names of rules.
    rules: Vec<String>,
}

async fn trigger(State(api): State<Api>, body: Body) -> Answer {
    let body: TriggerBody = read(&body?)?;
    if body.rules.is_empty() {
        return Err(Refusal::bad_request("no rule is named: send {\"rules\": [\"NAME\"]}"));
    }
    let runs = api.daemon.trigger(&body.rules).await?;
    Ok(Json(json!({ "schema_version": SCHEMA_VERSION, "runs": runs })))
}

/// `POST /api/v1/retry`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryBody {
    run: Option<String>,
    job: Option<String>,
}

async fn retry(State(api): State<Api>, body: Body) -> Answer {
    let body: RetryBody = read(&body?)?;
    let target = match (body.run, body.job) {
        (Some(run), None) => Target::Run(id(&run)?),
        (None, Some(job)) => Target::Job(job.parse::<JobId>().map_err(Refusal::bad_request)?),
        _ => return Err(Refusal::bad_request("send {\"run\": ID} or {\"job\": ID}")),
    };
    let selected = selection(&api.store, target).await.map_err(|error| match error {
        NothingToRetry::Unknown(_) => Refusal::not_found(error.to_string()),
        NothingToRetry::Running(_) => Refusal::conflict(error.to_string()),
        NothingToRetry::Store(error) => error.into(),
    })?;
    let run = match selected {
        Some((rule, only)) => Some(api.daemon.retry(&rule, only).await?),
        None => None,
    };
    Ok(Json(json!({ "schema_version": SCHEMA_VERSION, "run": run })))
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::bad_request(format!("the body is not as expected: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let all = ["failed", "run", "limit"];
        let read = |raw| query(Some(raw), &all).unwrap();
        assert_eq!(query(None, &all).unwrap().limit, DEFAULT_ROWS);
        let jobs = read("failed=true&run=run-7&limit=3");
        assert_eq!((jobs.failed, jobs.run, jobs.limit), (true, Some(RunId(7)), 3));
        assert!(!read("failed=false").failed);
        assert_eq!(read("limit=0").limit, MAX_ROWS);
        for bad in ["fialed=1", "limit=many", "run=job-x"] {
            assert!(query(Some(bad), &all).is_err(), "{bad}");
        }
        assert!(query(Some("run=1"), &["limit"]).is_err());
    }

    #[test]
    fn bodies_with_unknown_keys_are_refused() {
        assert!(read::<TriggerBody>(br#"{"rules":["a"]}"#).is_ok());
        assert!(read::<TriggerBody>(br#"{"rule":["a"]}"#).is_err());
        assert!(read::<RetryBody>(b"").is_err());
    }
}
