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
use crate::registry::{
    Api, ApiAnswer, ApiCall, ApiLogin, Created, Error, ErrorKind, Fact, Operation, Result, numbered,
};

/// How long a project counts as what it was seen to be: a proxy cache stays one, and another project has another id.
const LIFE: Duration = Duration::from_secs(6 * 3600);
/// For how long that a repository is not there is believed without asking what its project is by now: a proxy cache that was made in
/// its place has what it has not fetched yet.
const FRESH: Duration = Duration::from_secs(10 * 60);
/// Projects that were asked for; above it those that nobody waits for are forgotten.
const MOST: usize = 10_000;
/// What is kept of a project, with its id behind it.
const OWN: &str = "own";
const PROXY: &str = "proxy";

/// The projects of one Harbor that were asked for.
#[derive(Debug, Default)]
pub(super) struct Projects(Mutex<HashMap<String, Arc<Asked>>>);

#[derive(Debug, Default)]
struct Asked {
    what: Awaited<Project>,
    /// When an answer came last, by the clock's monotonic time.
    answered: Mutex<Option<Duration>>,
}

/// What a project is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Project {
    Missing,
    /// It holds what was pushed to it; by its id, 0 where that is not known.
    Own(i64),
    /// It fetches from elsewhere what is pulled, and lists what it has fetched so far. As `Own`.
    Proxy(i64),
}

impl Project {
    /// What is kept of it; `None` where it is missing, as it may be made at any time.
    fn value(self) -> Option<String> {
        match self {
            Self::Missing => None,
            Self::Own(id) => Some(format!("{OWN} {id}")),
            Self::Proxy(id) => Some(format!("{PROXY} {id}")),
        }
    }

    fn of_value(value: &str) -> Option<Self> {
        let (sort, id) = value.split_once(' ')?;
        let id = id.parse().ok()?;
        match sort {
            OWN => Some(Self::Own(id)),
            PROXY => Some(Self::Proxy(id)),
            _ => None,
        }
    }
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
struct ProjectAnswer {
    name: String,
    #[serde(default)]
    project_id: i64,
    registry_id: Option<i64>,
}

impl ProjectAnswer {
    fn sort(&self) -> Project {
        match self.registry_id {
            Some(1..) => Project::Proxy(self.project_id),
            _ => Project::Own(self.project_id),
        }
    }
}

impl Projects {
    /// What a project was seen to be, by this process or an earlier one, and is believed to be still. What then does not fit it has to be
    /// asked for anew ([`Projects::ask`]).
    pub(super) fn known(api: &Api, name: &str) -> Option<Project> {
        Project::of_value(&api.known(Fact::Project, Some(name))?)
    }

    /// What a project is, asked by one for all who want to know just now.
    ///
    /// # Errors
    /// It cannot be seen by this user, or not be asked.
    pub(super) async fn ask(&self, api: &Api, name: &str) -> Result<Project> {
        let project = self.of(name);
        let life = |_: &Result<Project>| Duration::ZERO;
        let asked = project.what.get(api.clock(), |_| true, life, ask(api, name)).await;
        *project.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(api.clock().elapsed());
        match asked.as_ref().map(|project| project.value()) {
            Ok(Some(value)) => {
                let evidence = "Harbor's API says so of the project";
                api.learn(Fact::Project, Some(name), &value, evidence, LIFE);
            }
            Ok(None) | Err(_) => api.forget(Fact::Project, Some(name)),
        }
        asked
    }

    /// Whether this process asked for a project just now, so that what is known of it needs no second look.
    pub(super) fn is_fresh(&self, api: &Api, name: &str) -> bool {
        let projects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = projects
            .get(name)
            .and_then(|project| *project.answered.lock().unwrap_or_else(PoisonError::into_inner));
        answered.is_some_and(|at| api.clock().elapsed() < at + FRESH)
    }

    fn of(&self, name: &str) -> Arc<Asked> {
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
