//! Repositories of Artifact Registry, which no push makes (cloud.google.com, Artifact Registry REST,
//! `projects.locations.repositories.create`).

use std::time::Duration;

use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::json;

use crate::oci::RepositoryName;
use crate::registry::{Api, ApiAnswer, ApiCall, ApiLogin, Created, Error, ErrorKind, Operation, Result};
use crate::telemetry::Secret;

const HOST: &str = "artifactregistry.googleapis.com";
/// How often a repository that is being made is looked at, and how long is waited before each look.
const LOOKS: u32 = 30;
const PAUSE: Duration = Duration::from_secs(1);

/// A repository of Artifact Registry, in which the images of a name lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place<'r> {
    /// With a colon where it is one of a domain.
    pub(super) project: String,
    pub(super) repository: &'r str,
    /// What the names of its images begin with, without a slash at the end.
    pub(super) prefix: &'r str,
}

impl<'r> Place<'r> {
    /// `project/repository/image…`; of a project of a domain `example.com/project/repository/image…`.
    pub(super) fn of(name: &'r RepositoryName) -> Option<Self> {
        let name = name.as_str();
        let mut parts = name.split('/');
        let first = parts.next()?;
        let project = match first.contains('.') {
            true => format!("{first}:{}", parts.next()?),
            false => first.to_owned(),
        };
        let repository = parts.next()?;
        // There is no image without a name of its own.
        parts.next()?;
        let prefix = &name[..project.len() + 1 + repository.len()];
        Some(Self {
            project,
            repository,
            prefix,
        })
    }
}

/// A long-running operation.
#[derive(Deserialize)]
struct Running {
    #[serde(default)]
    name: String,
    #[serde(default)]
    done: bool,
    error: Option<Status>,
}

#[derive(Deserialize)]
struct Refusal {
    error: Status,
}

#[derive(Deserialize)]
struct Status {
    /// `google.rpc.Code` in an operation, the HTTP status in a refusal.
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
    #[serde(default)]
    status: String,
}

/// `google.rpc.Code`.
const ALREADY_EXISTS: i64 = 6;
const PERMISSION_DENIED: i64 = 7;

/// Makes the repository of a name at a location, by this token, and waits until it is there.
///
/// # Errors
/// What the API says.
pub(super) async fn make(
    api: &Api,
    name: &RepositoryName,
    at: &Place<'_>,
    location: &str,
    token: &Secret,
) -> Result<Created> {
    let create = &api.settings().create;
    let mut body = json!({ "format": "DOCKER", "dockerConfig": {} });
    if let Some(immutable) = create.immutable_throughout() {
        body["dockerConfig"]["immutableTags"] = immutable.into();
    }
    if !create.tags.is_empty() {
        body["labels"] = json!(create.tags);
    }
    let (project, repository) = (&at.project, at.repository);
    let path = format!("/v1/projects/{project}/locations/{location}/repositories?repositoryId={repository}");
    let operation = Operation::CreateRepository;
    let mut call = ApiCall::post(operation, api.place(Some(name)), api.at(HOST, &path)?, body.to_string());
    call.headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    call.login = ApiLogin::Bearer(token.clone());
    let mut answer = api.call(call).await?;
    for _ in 0..LOOKS {
        match answer.status {
            200 => {}
            409 => return Ok(Created::WasThere),
            _ => return Err(refused(&answer)),
        }
        let running: Running = answer.json()?;
        match running.error {
            Some(error) if error.code == ALREADY_EXISTS => return Ok(Created::WasThere),
            Some(error) => {
                let kind = match error.code {
                    PERMISSION_DENIED => ErrorKind::Denied,
                    _ => ErrorKind::Invalid,
                };
                return Err(answer.error(kind, format!("the repository could not be made: {}", error.message)));
            }
            None if running.done => return Ok(Created::Made),
            None => {}
        }
        // It names an operation of the project: an answer says no other address.
        let own = format!("projects/{project}/locations/{location}/operations/");
        let id = running.name.strip_prefix(&own).filter(|id| is_id(id)).ok_or_else(|| {
            let message = "the API's answer names no operation of the project";
            answer.error(ErrorKind::Invalid, message)
        })?;
        tokio::time::sleep(PAUSE).await;
        let mut call = ApiCall::get(
            operation,
            api.place(Some(name)),
            api.at(HOST, &format!("/v1/{own}{id}"))?,
        );
        call.login = ApiLogin::Bearer(token.clone());
        answer = api.call(call).await?;
    }
    Err(answer.error(
        ErrorKind::Server,
        "the repository is still being made; it is tried again",
    ))
}

fn is_id(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

fn refused(answer: &ApiAnswer) -> Error {
    let said: Option<Refusal> = serde_json::from_slice(&answer.body).ok();
    let words = said.as_ref().map_or("", |said| said.error.message.as_str());
    let mut error = answer.refused(words);
    if answer.status == 403 {
        error.message = format!(
            "{}; grant the permission artifactregistry.repositories.create (Artifact Registry Administrator)",
            error.message
        );
    }
    error.code = said.map(|said| said.error.status).filter(|code| !code.is_empty());
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn google_repositories_of_names() {
        for (name, wanted) in [
            ("project/images/app", Some(("project", "images", "project/images"))),
            ("project/images/deep/app", Some(("project", "images", "project/images"))),
            (
                "example.com/project/images/app",
                Some(("example.com:project", "images", "example.com/project/images")),
            ),
            ("project/images", None),
            ("example.com/project/images", None),
            ("app", None),
        ] {
            let name: RepositoryName = name.parse().expect("a name");
            let found = Place::of(&name);
            let found = found.as_ref().map(|at| (at.project.as_str(), at.repository, at.prefix));
            assert_eq!(found, wanted, "{name}");
        }
    }
}
