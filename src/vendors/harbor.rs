//! Harbor: listings of artifacts, and projects that are made on the way to a push.
//!
//! Its API is `/api/v2.0` at the registry's own host, by user and password (a robot's name is one, whatever its prefix).
//! Facts: goharbor/harbor `api/v2.0/swagger.yaml`, `src/server/v2.0/handler`, `src/server/middleware`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::FutureExt;
use serde::Deserialize;

use super::gathered::Gathered;
use super::harbor_projects::{Project, Projects, make};
use super::in_part::InPart;
use super::names::whole;
use super::once::once;
use super::table::Row;
use super::words;
use crate::oci::{Digest, RepositoryName};
use crate::registry::{
    Api, ApiAnswer, ApiCall, ApiLogin, BulkListing, Created, Error, ErrorKind, Kind, ListedTag, NumberedPage,
    Operation, Phrase, Result, Told, Vendor, Ways, numbered, numbered_in_part,
};

pub(super) static ROW: Row = Row {
    kind: Kind::Harbor,
    // Its registry is distribution 2.8, whose manifest store checks every blob.
    habits: |habits| habits.refuses_missing_blobs = true,
    vendor: |_| Arc::new(Harbor::default()),
};

/// Entries of a page: more is answered 422.
const PAGE: usize = 100;

static WAYS: Ways = Ways {
    must_create: true,
    // Signatures pushed by tag are accessories of their image there, and no artifacts.
    hides_tags: true,
    right_to_list: "the permissions to read the project and to list its repositories, artifacts and tags",
    phrases: PHRASES,
    ..Ways::PLAIN
};

static PHRASES: &[Phrase] = &[
    Phrase {
        status: 401,
        code: "",
        says: "not found",
        writes: None,
        kind: ErrorKind::Denied,
        advice: "the project is missing there, or this user may not see it: make it, or grant the rights",
    },
    Phrase {
        status: 403,
        code: "",
        says: "read only mode",
        writes: None,
        kind: ErrorKind::Unsupported,
        advice: "Harbor is read-only until an administrator ends that (Configuration, System Settings)",
    },
    Phrase {
        status: 0,
        code: "",
        says: "proxy project",
        writes: Some(true),
        kind: ErrorKind::Unsupported,
        advice: "a proxy-cache project takes no pushes: name another project in `to`",
    },
    Phrase {
        status: 405,
        code: "METHOD_NOT_ALLOWED",
        says: "",
        writes: Some(true),
        kind: ErrorKind::Unsupported,
        advice: "a proxy-cache project takes no pushes: name another project in `to`",
    },
    Phrase {
        status: 403,
        code: "",
        says: "configured upper limit",
        writes: None,
        kind: ErrorKind::Quota,
        advice: "the quota of the project is used up: free space in it, or raise it",
    },
    Phrase {
        status: 412,
        code: "",
        says: "configured as immutable",
        writes: Some(true),
        kind: ErrorKind::Conflict,
        advice: "a rule of the project makes this tag immutable",
    },
    Phrase {
        status: 412,
        code: "PROJECTPOLICYVIOLATION",
        says: "",
        writes: Some(false),
        kind: ErrorKind::Denied,
        advice: "a policy of the project (vulnerabilities, signatures) forbids the pull",
    },
];

/// One Harbor.
#[derive(Debug, Default)]
struct Harbor {
    projects: Projects,
    /// All projects are listed at once, of which each is seen to be a proxy cache only later.
    lists_all: AtomicBool,
    told_of: InPart,
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Artifact {
    digest: Digest,
    manifest_media_type: Option<String>,
    tags: Option<Vec<TagOfArtifact>>,
    #[serde(default)]
    project_id: i64,
}

impl Artifact {
    /// True where it is known not to lie in this project.
    fn is_elsewhere(&self, project: i64) -> bool {
        project > 0 && self.project_id > 0 && self.project_id != project
    }
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
struct TagOfArtifact {
    name: String,
    push_time: Option<jiff::Timestamp>,
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
struct RepositoryEntry {
    name: String,
}

#[derive(Deserialize)]
struct Info {
    harbor_version: Option<String>,
}

impl Vendor for Harbor {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::Harbor)
    }

    fn ways(&self) -> &'static Ways {
        &WAYS
    }

    fn list_digests<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        async move {
            let Some((project, rest)) = repository.as_str().split_once('/') else {
                return Ok(BulkListing::None);
            };
            let known = Projects::known(api, project);
            let listed = match known {
                Some(known) => tags(api, repository, (project, rest), known).await,
                None => Ok(None),
            };
            let is_doubted = match &listed {
                // A proxy cache has what it has not fetched yet.
                Ok(Some(listing)) => listing.is_empty() && !self.projects.is_fresh(api, project),
                Ok(None) => true,
                Err(error) => is_doubtful(error),
            };
            // The project may have gone, or be another one by now.
            let found = match is_doubted {
                true => Some(self.projects.ask(api, project).await?),
                false => known,
            };
            if self.lists_all.load(Ordering::Relaxed) {
                self.tell(api, project, found);
            }
            if found == known
                && let Some(listed) = listed.transpose()
            {
                return listed;
            }
            let found = found.unwrap_or(Project::Missing);
            let listing = tags(api, repository, (project, rest), found).await?;
            listing.ok_or_else(|| {
                let message = "its list of artifacts is that of another project";
                Error::new(
                    Operation::ListTags,
                    api.place(Some(repository)),
                    ErrorKind::Server,
                    message,
                )
            })
        }
        .boxed()
    }

    fn explore<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, ()> {
        async move {
            let project = self.container(repository);
            if repository.as_str() != project && Projects::known(api, project).is_none() {
                self.projects.ask(api, project).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn list_repositories<'a>(&'a self, api: &'a Api, below: &'a [String]) -> Told<'a, Option<Vec<RepositoryName>>> {
        async move {
            let mut gathered = Gathered::default();
            for (project, path) in listings(below) {
                let listed = self.repositories(api, project, &path).await;
                gathered.take(project.unwrap_or_default(), listed)?;
            }
            Ok(Some(gathered.names(api)?))
        }
        .boxed()
    }

    fn create<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, Created> {
        make(api, repository).boxed()
    }

    fn container<'r>(&self, repository: &'r RepositoryName) -> &'r str {
        repository.as_str().split('/').next().unwrap_or_default()
    }

    fn version<'a>(&'a self, api: &'a Api) -> Told<'a, Option<String>> {
        async move {
            let answer = get(api, Operation::Ping, None, "/systeminfo").await?;
            if answer.status != 200 {
                return Err(refused(&answer));
            }
            // It says so only to who has logged in.
            let info: Info = answer.json()?;
            Ok(info.harbor_version.map(|version| format!("Harbor {version}")))
        }
        .boxed()
    }
}

impl Harbor {
    /// Those of one list, a project's or all.
    async fn repositories(&self, api: &Api, project: Option<&str>, path: &str) -> Result<Vec<RepositoryName>> {
        let read = async || {
            let read = |number| page::<RepositoryEntry>(api, Operation::ListRepositories, None, path, number);
            let entries = whole(api, numbered(read).await?)?;
            let names = entries.into_iter().filter_map(|entry| entry.name.parse().ok());
            Ok(names.collect())
        };
        let Some(project) = project else {
            self.lists_all.store(true, Ordering::Relaxed);
            return read().await;
        };
        let known = Projects::known(api, project);
        if known.is_some() {
            self.tell(api, project, known);
            let listed: Result<Vec<RepositoryName>> = read().await;
            if !listed.as_ref().is_err_and(is_doubtful) {
                return listed;
            }
        }
        let found = self.projects.ask(api, project).await?;
        self.tell(api, project, Some(found));
        match found {
            Project::Missing => Ok(Vec::new()),
            Project::Own(_) | Project::Proxy(_) => read().await,
        }
    }

    /// Says once of a project that patterns may not find all there is in it.
    fn tell(&self, api: &Api, project: &str, found: Option<Project>) {
        if matches!(found, Some(Project::Proxy(_)))
            && let Some(news) = self.told_of.news([project])
        {
            tracing::warn!(
                registry = api.place(None).registry,
                "patterns may not find all there is in {news}: Harbor lists of a proxy-cache project what it has fetched so far; write the \
                 names of the repositories that are missing"
            );
        }
    }
}

/// True for a refusal that a project would get which is not there any more.
fn is_doubtful(error: &Error) -> bool {
    matches!(
        error.kind,
        ErrorKind::Denied | ErrorKind::Unauthorized | ErrorKind::NotFound
    )
}

/// The tags of a repository, whose project is this; `None` where the answer does not fit that.
async fn tags(
    api: &Api,
    repository: &RepositoryName,
    (project, rest): (&str, &str),
    found: Project,
) -> Result<Option<BulkListing>> {
    let id = match found {
        Project::Missing => return Ok(Some(BulkListing::Absent)),
        Project::Proxy(_) => return Ok(Some(BulkListing::None)),
        Project::Own(id) => id,
    };
    let path = format!(
        "/projects/{project}/repositories/{}/artifacts?with_tag=true&q=tags%3D*",
        twice_encoded(rest)
    );
    let read = |number| page::<Artifact>(api, Operation::ListTags, Some(repository), &path, number);
    match numbered_in_part(read).await {
        // What was asked for just now holds: ids are compared where both are told.
        Ok(artifacts) if artifacts.iter().any(|artifact| artifact.is_elsewhere(id)) => Ok(None),
        Ok(artifacts) => Ok(Some(BulkListing::Known {
            tags: tags_of(artifacts),
            comparable: true,
        })),
        // The project is there, so the repository is not.
        Err(error) if error.kind == ErrorKind::NotFound && error.code.as_deref() == Some("NOT_FOUND") => {
            Ok(Some(BulkListing::Absent))
        }
        Err(error) => Err(error),
    }
}

pub(super) async fn get(
    api: &Api,
    operation: Operation,
    repository: Option<&RepositoryName>,
    path: &str,
) -> Result<ApiAnswer> {
    let url = api.own(&format!("/api/v2.0{path}"))?;
    let mut call = ApiCall::get(operation, api.place(repository), url);
    call.login = ApiLogin::Basic;
    api.call(call).await
}

/// One page of a list; `path` as for [`get`].
pub(super) async fn page<T: serde::de::DeserializeOwned>(
    api: &Api,
    operation: Operation,
    repository: Option<&RepositoryName>,
    path: &str,
    number: u32,
) -> Result<NumberedPage<T>> {
    let separator = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{separator}page={number}&page_size={PAGE}");
    let answer = get(api, operation, repository, &path).await?;
    if answer.status != 200 {
        return Err(refused(&answer));
    }
    let total = answer.headers.get("x-total-count");
    let total = total.and_then(|value| value.to_str().ok()?.parse().ok());
    let entries: Vec<T> = answer.json()?;
    let last = total.is_none() && entries.len() < PAGE;
    Ok(NumberedPage::of(&answer, entries, total, last))
}

pub(super) fn refused(answer: &ApiAnswer) -> crate::registry::Error {
    let mut error = answer.refused(&words::said(&answer.body));
    error.code = answer.told(words::code(&answer.body));
    error
}

/// A repository's name without its project, as a part of a path: what stands before Harbor decodes it once.
fn twice_encoded(repository: &str) -> String {
    repository.replace('/', "%252F")
}

/// What to list for patterns that begin so: projects with their paths, or everything.
fn listings(below: &[String]) -> Vec<(Option<&str>, String)> {
    let mut projects: Vec<&str> = Vec::new();
    for beginning in below {
        match beginning.split_once('/') {
            Some((project, _)) if !projects.contains(&project) => projects.push(project),
            Some(_) => {}
            None => return vec![(None, "/repositories".to_owned())],
        }
    }
    let of = |project: &'_ str| format!("/projects/{project}/repositories");
    projects
        .into_iter()
        .map(|project| (Some(project), of(project)))
        .collect()
}

fn tags_of(artifacts: Vec<Artifact>) -> Vec<ListedTag> {
    let of = |artifact: Artifact| {
        let Artifact {
            digest,
            manifest_media_type,
            tags,
            ..
        } = artifact;
        tags.unwrap_or_default().into_iter().filter_map(move |entry| {
            Some(ListedTag {
                tag: entry.name.parse().ok()?,
                digest: Some(digest.clone()),
                media_type: manifest_media_type.clone(),
                // Go's zero time says that it is not known.
                pushed: entry.push_time.filter(|time| time.as_second() > 0),
            })
        })
    };
    once(artifacts.into_iter().flat_map(of))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn harbor_artifacts_of_the_api_are_read() {
        let body = json!([
            {
                "digest": format!("sha256:{}", "a".repeat(64)),
                "manifest_media_type": "application/vnd.oci.image.index.v1+json",
                "tags": [
                    { "name": "v1", "push_time": "2026-03-01T12:00:00.000Z", "immutable": false },
                    { "name": "latest", "push_time": "0001-01-01T00:00:00.000Z" },
                ],
                "accessories": [{ "type": "signature.cosign" }],
            },
            { "digest": format!("sha256:{}", "b".repeat(64)), "tags": null },
            { "digest": format!("sha256:{}", "c".repeat(64)), "tags": [{ "name": "v1" }] },
        ]);
        let artifacts: Vec<Artifact> = serde_json::from_value(body).expect("artifacts");
        let tags = tags_of(artifacts);
        let shown: Vec<_> = tags
            .iter()
            .map(|listed| (listed.tag.as_str(), listed.digest.is_some(), listed.pushed.is_some()))
            .collect();
        // v1 moved from one to the other while the list was read.
        assert_eq!(shown, [("v1", false, true), ("latest", true, false)]);
        assert_eq!(
            tags[1].media_type.as_deref(),
            Some("application/vnd.oci.image.index.v1+json")
        );
    }

    #[test]
    fn harbor_repositories_are_listed_by_project_where_the_patterns_name_one() {
        let all = |below: &[&str]| -> Vec<String> {
            let below: Vec<String> = below.iter().map(ToString::to_string).collect();
            listings(&below).into_iter().map(|(_, path)| path).collect()
        };
        assert_eq!(
            all(&["team/", "team/web/", "base/"]),
            ["/projects/team/repositories", "/projects/base/repositories"]
        );
        assert_eq!(all(&["team/", ""]), ["/repositories"]);
        assert_eq!(twice_encoded("web/front/app"), "web%252Ffront%252Fapp");
    }
}
