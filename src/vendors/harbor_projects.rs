//! Harbor's projects: what they are, and how they are made.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Method};
use serde::Deserialize;
use serde_json::json;

use super::awaited::Awaited;
use super::harbor::{page, refused};
use super::words;
use crate::oci::RepositoryName;
use crate::registry::{Api, ApiAnswer, ApiCall, ApiLogin, Created, Error, ErrorKind, Operation, Result, numbered};

/// How long a project counts as what it was seen to be: a proxy cache stays one.
const LIFE: Duration = Duration::from_secs(3600);
/// Projects that are remembered; above it all are forgotten, which costs a request each.
const MOST: usize = 10_000;

/// The projects of one Harbor that were asked for.
#[derive(Debug, Default)]
pub(super) struct Projects(Mutex<HashMap<String, Arc<Awaited<Project>>>>);

/// What a project is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Project {
    Missing,
    /// It holds what was pushed to it.
    Own,
    /// It fetches from elsewhere what is pulled, and lists what it has fetched so far.
    Proxy,
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
struct ProjectAnswer {
    name: String,
    registry_id: Option<i64>,
}

impl ProjectAnswer {
    fn sort(&self) -> Project {
        match self.registry_id {
            Some(1..) => Project::Proxy,
            _ => Project::Own,
        }
    }
}

impl Projects {
    /// What a project is: asked once in a while.
    ///
    /// # Errors
    /// It cannot be seen by this user, or not be asked.
    pub(super) async fn get(&self, api: &Api, name: &str) -> Result<Project> {
        let life = |seen: &Result<Project>| match seen {
            Ok(Project::Own | Project::Proxy) => LIFE,
            // One that is missing may be made at any time.
            Ok(Project::Missing) | Err(_) => Duration::ZERO,
        };
        let project = self.of(name);
        project.get(api.clock(), |_| true, life, ask(api, name)).await
    }

    fn of(&self, name: &str) -> Arc<Awaited<Project>> {
        let mut projects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if projects.len() >= MOST {
            projects.retain(|_, project| Arc::strong_count(project) > 1);
        }
        Arc::clone(projects.entry(name.to_owned()).or_default())
    }
}

async fn ask(api: &Api, name: &str) -> Result<Project> {
    let url = api.own(&format!("/api/v2.0/projects/{name}"))?;
    let mut call = ApiCall::get(Operation::ListTags, api.place(None), url);
    call.login = ApiLogin::Basic;
    // A name of digits is an id without it (goharbor/harbor#22383).
    call.headers
        .insert("x-is-resource-name", HeaderValue::from_static("true"));
    let seen = api.call(call).await?;
    // Before 2.2 (goharbor/harbor#13744) it is asked for by id alone: 422 to all else, and to digits whatever has that id.
    let mut is_by_id = matches!(seen.status, 400 | 422);
    if seen.status == 200 {
        let project: ProjectAnswer = seen.json()?;
        if project.name == name {
            return Ok(project.sort());
        }
        is_by_id = true;
    }
    // A project that is missing is 403, older 401, to who may not see it (goharbor/harbor#21800). Any user may ask whether a
    // project is there; where this API is unknown (Harbor 1), everything is 404, but in no document of its own.
    let is_refused = matches!(seen.status, 401 | 403 | 404) && words::code(&seen.body).is_some();
    if !is_by_id && !is_refused {
        return Err(refused(&seen));
    }
    if (is_by_id || name.bytes().all(|byte| byte.is_ascii_digit()))
        && let Some(project) = listed(api, name).await?
    {
        return Ok(project);
    }
    match looked_for(api, name).await? {
        404 => Ok(Project::Missing),
        _ if is_by_id => {
            let message = format!("the project {name} is there, and not in this user's list of projects");
            Err(seen.error(ErrorKind::Denied, message))
        }
        _ => Err(refused(&seen)),
    }
}

/// A project as the list of projects has it, which finds all whose names contain this one; `None` where it is not in it.
async fn listed(api: &Api, name: &str) -> Result<Option<Project>> {
    let path = format!("/projects?name={name}");
    let read = |number| page::<ProjectAnswer>(api, Operation::ListTags, None, &path, number);
    let projects = numbered(read).await?.ok_or_else(|| {
        let message = "the list of projects changed while it was read, twice";
        Error::new(Operation::ListTags, api.place(None), ErrorKind::Server, message)
    })?;
    let found = projects.iter().find(|project| project.name == name);
    Ok(found.map(ProjectAnswer::sort))
}

/// Status of the question whether there is a project, which any user may ask: 200, 404.
async fn looked_for(api: &Api, project: &str) -> Result<u16> {
    let url = api.own(&format!("/api/v2.0/projects?project_name={project}"))?;
    let mut call = ApiCall::get(Operation::ListTags, api.place(None), url);
    call.method = Method::HEAD;
    call.login = ApiLogin::Basic;
    Ok(api.call(call).await?.status)
}

/// Makes the project that a repository is in.
///
/// # Errors
/// What stands in the way.
pub(super) async fn make(api: &Api, repository: &RepositoryName) -> Result<Created> {
    // What has no project in its name is no repository of Harbor's, and no reason to make a project.
    let Some((project, _)) = repository.as_str().split_once('/') else {
        return Ok(Created::Nothing);
    };
    // The right to make projects is looked at before whether there is one, and who pushes needs none.
    if looked_for(api, project).await.is_ok_and(|status| status == 200) {
        return Ok(Created::WasThere);
    }
    let settings = &api.settings().create;
    // Harbor's own default is taken for the quota.
    let mut metadata = json!({ "public": settings.public.to_string() });
    if let Some(scan) = settings.scan_on_push {
        metadata["auto_scan"] = json!(scan.to_string());
    }
    let body = json!({ "project_name": project, "metadata": metadata }).to_string();
    let url = api.own("/api/v2.0/projects")?;
    let mut call = ApiCall::post(Operation::CreateRepository, api.place(Some(repository)), url, body);
    call.headers.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    call.login = ApiLogin::Basic;
    let answer = api.call(call).await?;
    match answer.status {
        201 => Ok(Created::Made),
        409 => Ok(Created::WasThere),
        401 | 403 => Err(cannot_make(project, &answer)),
        _ => Err(refused(&answer)),
    }
}

/// Why a project is not made. That Harbor is read-only, or full, is not a matter of rights although the status says so.
fn cannot_make(project: &str, answer: &ApiAnswer) -> Error {
    let said = words::said(&answer.body);
    let speaks_of = |words: &str| said.to_ascii_lowercase().contains(words);
    let mut error = answer.refused(&said);
    let (kind, why, advice) = match () {
        () if speaks_of("read only mode") => (
            ErrorKind::Unsupported,
            "and cannot be made: Harbor is read-only",
            "an administrator ends that (Configuration, System Settings)",
        ),
        () if speaks_of("quota") || speaks_of("upper limit") => (
            ErrorKind::Quota,
            "and cannot be made: a quota of Harbor's is used up",
            "free space or remove projects there, or have the quota raised",
        ),
        () => (
            ErrorKind::Denied,
            "and this user may not make it",
            "make it at Harbor, or give the user the system permission to create projects",
        ),
    };
    error.kind = kind;
    error.message = format!("the project {project} is not there {why} ({}); {advice}", error.message);
    error
}
