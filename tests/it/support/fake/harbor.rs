//! Harbor 2.x (goharbor/harbor `src/server/middleware/v2auth`, `src/server/v2.0/handler`, `src/server/registry`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use transship::demo::registry::{Habits, Held, Options};
use transship::oci::{Manifest, RepositoryName};

use super::token::{Tokens, Worth};
use super::{Asked, Asking, Book, Face, Fake, document, lock, refusal, with_header};

/// A robot with a prefix of its own choice.
pub const ROBOT: &str = "bot$ci+sync";
/// Its secret.
pub const SECRET: &str = "harbor-robot-secret";
/// What is answered to each change while it is read-only.
const READ_ONLY: &str = "The system is in read only mode. Any modification is prohibited.";
/// The largest page.
const PAGE: usize = 100;

/// What the fake has beside what the registry behind it keeps.
pub struct Harbor {
    tokens: Tokens,
    state: Mutex<State>,
}

/// What a test changes.
#[derive(Default)]
pub struct State {
    pub projects: BTreeMap<String, Project>,
    /// The robot may not ask for lists and projects.
    pub denies_listing: bool,
    /// The robot may not make projects.
    pub denies_creation: bool,
    pub read_only: bool,
    /// The quota of every project is used up.
    pub over_quota: bool,
    /// What the robot is called, where not [`ROBOT`].
    pub robot: Option<String>,
    /// Repositories that are there to be pulled, and that a proxy-cache project has not fetched yet.
    pub not_fetched: BTreeSet<String>,
    /// What proxy-cache projects fetch from cannot be reached, and what is asked of them fails.
    pub broken_proxies: bool,
    /// It is 2.1, which says in another way that a proxy-cache project takes no pushes.
    pub early_proxies: bool,
    /// Lists say that there is one entry more.
    pub total_lies: bool,
    /// Before 2.2 projects were asked for by id, and by name in their list alone.
    pub projects_by_id_alone: bool,
    /// A project that the robot may not see.
    pub hidden: Option<String>,
    /// A project that the robot may not pull from.
    pub unreadable: Option<String>,
    /// A policy of the projects forbids the pull of every image.
    pub forbids_pulls: bool,
    /// Before 2.0 there was no such API.
    pub no_api: bool,
    /// Projects that were made by a call.
    pub made: Vec<(String, Value)>,
    /// The page that was read last, by path.
    pages: BTreeMap<String, usize>,
}

#[derive(Clone, Debug, Default)]
pub struct Project {
    pub public: bool,
    /// It fetches what is pulled from elsewhere.
    pub proxy: bool,
    /// What the API calls it beside its name; 0 where the test does not ask for it.
    pub id: u64,
}

impl State {
    fn hides(&self, project: &str) -> bool {
        self.denies_listing || self.hidden.as_deref() == Some(project)
    }
}

impl Harbor {
    /// Starts one with these projects.
    pub async fn start(projects: &[&str]) -> (Fake, Arc<Self>) {
        let harbor = Arc::new(Self {
            tokens: Tokens::new("/service/token", "harbor-registry"),
            state: Mutex::default(),
        });
        for project in projects {
            harbor.project(project, Project::default());
        }
        let options = Options {
            habits: Habits {
                // Harbor lists tags by itself, sorted and paged.
                pages_tags: true,
                ..Habits::distribution_2_8()
            },
            referrers_api: true,
            ..Options::default()
        };
        (Fake::start(Arc::clone(&harbor), options).await, harbor)
    }

    /// The keys of its rules.
    pub fn keys() -> String {
        format!("kind: harbor, username: \"{ROBOT}\", password: {SECRET}")
    }

    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.state));
    }

    pub fn project(&self, name: &str, project: Project) {
        self.change(|state| {
            state.projects.insert(name.to_owned(), project);
        });
    }

    /// The projects that were made by calls, with what was said of them.
    pub fn made(&self) -> Vec<(String, Value)> {
        lock(&self.state).made.clone()
    }

    fn has(&self, project: &str) -> bool {
        lock(&self.state).projects.contains_key(project)
    }

    fn is_robot(&self, request: &Asking) -> bool {
        let state = lock(&self.state);
        let robot = state.robot.as_deref().unwrap_or(ROBOT);
        request
            .basic()
            .is_some_and(|(user, secret)| user == robot && secret == SECRET)
    }

    fn is_public(&self, project: &str) -> bool {
        lock(&self.state)
            .projects
            .get(project)
            .is_some_and(|project| project.public)
    }

    /// The protocol: by a token, or by user and password at once.
    fn registry(&self, book: &Book, request: &Asking) -> Asked {
        if request.path == "/v2/" {
            return match self.is_robot(request) || matches!(self.tokens.worth(book, request), Worth::Good(Some(_))) {
                true => Asked::Pass,
                false => Asked::Answer(self.tokens.challenge(book, request, "unauthorized")),
            };
        }
        // Who may not see everything has no catalogue.
        let sees_all = self.is_robot(request) && lock(&self.state).hidden.is_none();
        if request.path == "/v2/_catalog" && !sees_all {
            return Asked::Answer(wants_basic());
        }
        // `src/server/middleware/v2auth/access.go`: a mount needs the right to pull from where the blob is.
        let from = request.parameter("from");
        let from = from.as_deref().and_then(|name| name.split('/').next());
        if from.is_some() && from == lock(&self.state).unreadable.as_deref() {
            return Asked::Answer(self.tokens.challenge(book, request, "unauthorized"));
        }
        let worth = match request.authorization() {
            None => return Asked::Answer(self.tokens.challenge(book, request, "unauthorized")),
            Some(_) if self.is_robot(request) => Worth::Good(Some(ROBOT.to_owned())),
            Some(_) => self.tokens.worth(book, request),
        };
        if let Some(project) = request.repository().and_then(|name| name.split('/').next())
            && !self.has(project)
        {
            let message = format!("project {project} not found");
            let answer = refusal(401, "UNAUTHORIZED", &message);
            return Asked::Answer(with_header(answer, "www-authenticate", ""));
        }
        match worth {
            Worth::Good(_) => self.rules(request),
            Worth::Ended => Asked::Answer(wants_basic()),
            Worth::Missing => Asked::Answer(wants_basic()),
            // A project that was made after the token was given out.
            Worth::Lacks(_) => Asked::Answer(self.tokens.challenge(book, request, "unauthorized")),
            Worth::Unknown => Asked::Wrong("a token that was not given out".to_owned()),
        }
    }

    /// What Harbor refuses by itself.
    fn rules(&self, request: &Asking) -> Asked {
        let state = lock(&self.state);
        let project = request.repository().and_then(|name| name.split('/').next());
        let proxy = project.is_some_and(|name| state.projects.get(name).is_some_and(|project| project.proxy));
        if request.writes() && state.read_only {
            return Asked::Answer(refusal(403, "DENIED", READ_ONLY));
        }
        if proxy && state.broken_proxies {
            return Asked::Answer(refusal(500, "UNKNOWN", "internal server error"));
        }
        if request.writes() && proxy {
            // `src/server/middleware/repoproxy/proxy.go`, of 2.1.0 and of today.
            let (status, code) = match state.early_proxies {
                true => (405, "METHOD_NOT_ALLOWED"),
                false => (403, "DENIED"),
            };
            return Asked::Answer(refusal(status, code, "can not push artifact to a proxy project: cache"));
        }
        if !request.writes() && request.reference().is_some() && state.forbids_pulls {
            let message = "current image with 2 vulnerabilities cannot be pulled due to configured policy in 'Prevent images \
                           with vulnerability severity of \"High\" or higher from running.'";
            return Asked::Answer(refusal(412, "PROJECTPOLICYVIOLATION", message));
        }
        if request.method == Method::POST && state.over_quota {
            let message = "Quota exceeded when processing the request of adding 1.4 KiB of storage resource, which when \
                           updated to current usage of 9.9 MiB will exceed the configured upper limit of 10.0 MiB.";
            return Asked::Answer(refusal(403, "DENIED", message));
        }
        Asked::Pass
    }

    fn api(&self, book: &Book, request: &Asking, path: &str) -> Asked {
        if lock(&self.state).no_api {
            let answer = Response::builder().status(404).body(Body::from("404 page not found"));
            return Asked::Answer(answer.expect("an answer"));
        }
        if path == "/ping" {
            return Asked::Answer(Response::new(Body::from("Pong")));
        }
        if request.bearer().is_some() {
            return Asked::Wrong("the API takes no tokens of the registry".to_owned());
        }
        if !self.is_robot(request) {
            return Asked::Answer(refusal(401, "UNAUTHORIZED", "unauthorized"));
        }
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["systeminfo"]) => {
                let info = json!({ "auth_mode": "db_auth", "harbor_version": "v2.13.1-abcdef" });
                Asked::Answer(document(200, &info))
            }
            ("HEAD", ["projects"]) => {
                let Some(name) = request.parameter("project_name") else {
                    return Asked::Wrong("no project is named".to_owned());
                };
                let status = if self.has(&name) { 200 } else { 404 };
                Asked::Answer(
                    Response::builder()
                        .status(status)
                        .body(Body::empty())
                        .expect("an answer"),
                )
            }
            ("POST", ["projects"]) => self.make(request),
            ("GET", ["projects"]) => self.projects_with(request),
            ("GET", ["projects", name]) => self.project_of(request, name),
            ("GET", ["repositories"]) => self.repositories(book, request, None),
            ("GET", ["projects", name, "repositories"]) => self.repositories(book, request, Some(name)),
            ("GET", ["projects", name, "repositories", rest, "artifacts"]) => {
                // What stands before Harbor decodes the path once, so a slash of a name has to be encoded twice.
                if rest.contains("%2F") {
                    return Asked::Wrong("a slash is encoded once: it would be a path of its own".to_owned());
                }
                let repository = format!("{name}/{}", rest.replace("%252F", "/"));
                self.artifacts(book, request, name, &repository)
            }
            _ => Asked::Wrong("the API has no such path".to_owned()),
        }
    }

    fn make(&self, request: &Asking) -> Asked {
        let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
            return Asked::Wrong("the body is no document".to_owned());
        };
        let (Some(name), Some(public)) = (body["project_name"].as_str(), body["metadata"]["public"].as_str()) else {
            return Asked::Wrong("a project has a name, and says in words whether it is public".to_owned());
        };
        if request.header("content-type") != Some("application/json") {
            return Asked::Answer(refusal(415, "UNSUPPORTED_MEDIA_TYPE", "unsupported media type"));
        }
        let mut state = lock(&self.state);
        if state.read_only {
            return Asked::Answer(refusal(403, "DENIED", READ_ONLY));
        }
        if state.over_quota {
            let message = "quota exceeded: no more projects for this account";
            return Asked::Answer(refusal(403, "FORBIDDEN", message));
        }
        if state.denies_creation {
            return Asked::Answer(refusal(403, "FORBIDDEN", "forbidden"));
        }
        if state.projects.contains_key(name) {
            return Asked::Answer(refusal(
                409,
                "CONFLICT",
                &format!("The project named {name} already exists"),
            ));
        }
        let project = Project {
            public: public == "true",
            ..Project::default()
        };
        state.projects.insert(name.to_owned(), project);
        state.made.push((name.to_owned(), body.clone()));
        Asked::Answer(Response::builder().status(201).body(Body::empty()).expect("an answer"))
    }

    fn project_of(&self, request: &Asking, name: &str) -> Asked {
        let state = lock(&self.state);
        let is_name = request.header("x-is-resource-name") == Some("true") && !state.projects_by_id_alone;
        let found = match name.parse::<u64>() {
            Ok(id) if !is_name => state.projects.iter().find(|(_, project)| project.id == id),
            Err(_) if state.projects_by_id_alone => {
                let message = "project_id in path must be of type int64: \"team\"";
                return Asked::Answer(refusal(422, "UNPROCESSABLE_ENTITY", message));
            }
            _ => state.projects.get_key_value(name),
        };
        Asked::Answer(match found {
            // To a robot, one that is missing looks like one that it may not see (goharbor/harbor#21800).
            None => refusal(403, "FORBIDDEN", "forbidden"),
            Some((found, _)) if state.hides(found) => refusal(403, "FORBIDDEN", "forbidden"),
            Some((found, project)) => document(200, &shown(found, project)),
        })
    }

    /// Those that the robot may see and whose names contain what is asked for.
    fn projects_with(&self, request: &Asking) -> Asked {
        let Some(part) = request.parameter("name") else {
            return Asked::Wrong("no project is named".to_owned());
        };
        let state = lock(&self.state);
        let found = state
            .projects
            .iter()
            .filter(|(name, _)| name.contains(&part) && !state.hides(name));
        let entries = found.map(|(name, project)| shown(name, project)).collect();
        drop(state);
        self.page(request, entries)
    }

    fn repositories(&self, book: &Book, request: &Asking, project: Option<&str>) -> Asked {
        let state = lock(&self.state);
        if project.is_some_and(|name| !state.projects.contains_key(name) || state.hides(name)) || state.denies_listing {
            return Asked::Answer(refusal(403, "FORBIDDEN", "forbidden"));
        }
        drop(state);
        let all = book.registry.repositories();
        let of_project = all.iter().map(RepositoryName::as_str).filter(|name| {
            let of = name.split('/').next().unwrap_or_default();
            project.map_or_else(|| self.has(of), |project| of == project)
        });
        let entries = of_project
            .map(|name| json!({ "name": name, "artifact_count": 1 }))
            .collect();
        self.page(request, entries)
    }

    fn artifacts(&self, book: &Book, request: &Asking, project: &str, repository: &str) -> Asked {
        let state = lock(&self.state);
        if state.hides(project) || !state.projects.contains_key(project) {
            return Asked::Answer(refusal(403, "FORBIDDEN", "forbidden"));
        }
        let id = state.projects.get(project).map(|project| project.id);
        let is_fetched = !state.not_fetched.contains(repository);
        drop(state);
        if request.parameter("with_tag").as_deref() != Some("true") {
            return Asked::Wrong("without `with_tag` there are no tags".to_owned());
        }
        if request.parameter("q").as_deref() != Some("tags=*") {
            return Asked::Wrong("all that is untagged would be listed, too".to_owned());
        }
        let held = repository.parse().ok().and_then(|name| book.registry.manifests(&name));
        // Harbor does not look whether there is such a repository.
        let held = held.filter(|_| is_fetched).unwrap_or_default();
        let entries = held.iter().filter(|held| !held.tags.is_empty() && !is_accessory(held));
        let entries = entries.map(|held| {
            let tags: Vec<Value> = held
                .tags
                .iter()
                .map(|tag| json!({ "name": tag, "push_time": "2026-03-01T12:00:00.000Z" }))
                .collect();
            json!({ "digest": held.digest, "manifest_media_type": held.media_type, "tags": tags, "project_id": id })
        });
        self.page(request, entries.collect())
    }

    fn page(&self, request: &Asking, entries: Vec<Value>) -> Asked {
        let number = |name: &str| request.parameter(name).and_then(|text| text.parse::<usize>().ok());
        let (Some(page), Some(size)) = (number("page"), number("page_size")) else {
            return Asked::Wrong("a list is read by pages".to_owned());
        };
        if size > PAGE || size == 0 || page == 0 {
            return Asked::Answer(refusal(
                422,
                "UNPROCESSABLE_ENTITY",
                "page_size in query should be less than or equal to 100",
            ));
        }
        let mut state = lock(&self.state);
        let before = state.pages.insert(request.path.clone(), page).unwrap_or_default();
        if page != 1 && page != before + 1 {
            return Asked::Wrong(format!("page {page} after page {before}"));
        }
        let lies = usize::from(state.total_lies);
        let total = entries.len() + lies;
        if page > 1 && (page - 1) * size >= entries.len() && lies == 0 {
            return Asked::Wrong("there is no such page".to_owned());
        }
        let shown: Vec<&Value> = entries.iter().skip((page - 1) * size).take(size).collect();
        let mut answer = document(200, &json!(shown));
        answer = with_header(answer, "x-total-count", &total.to_string());
        if page * size < total {
            let next = format!("<{}?page={}&page_size={size}>; rel=\"next\"", request.path, page + 1);
            answer = with_header(answer, "link", &next);
        }
        Asked::Answer(answer)
    }
}

impl Face for Arc<Harbor> {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        if self.tokens.is_realm(request) {
            let robot = self.is_robot(request);
            if request.authorization().is_some() && !robot {
                return Asked::Answer(refusal(401, "UNAUTHORIZED", "unauthorized"));
            }
            let user = robot.then_some(ROBOT);
            return self.tokens.give(book, request, user, |repository, action| {
                let project = repository.split('/').next().unwrap_or_default();
                match robot {
                    true => self.has(project) && lock(&self.state).unreadable.as_deref() != Some(project),
                    false => action == "pull" && self.is_public(project),
                }
            });
        }
        match request.path.strip_prefix("/api/v2.0") {
            Some(path) => self.api(book, request, path),
            None => self.registry(book, request),
        }
    }

    fn answered(&self, _book: &Book, request: &Asking, answer: Response) -> Response {
        let refers = request.path.contains("/referrers/");
        match answer.status() {
            // Harbor's words for all that it does not know.
            StatusCode::NOT_FOUND if !request.path.contains("/uploads/") && !refers => {
                refusal(404, "NOT_FOUND", "artifact not found")
            }
            _ => answer,
        }
    }

    fn immutable(&self, tag: &str) -> Option<Response> {
        let message = format!("Failed to process request due to 'repository:{tag}' configured as immutable.");
        Some(refusal(412, "PRECONDITION", &message))
    }
}

fn shown(name: &str, project: &Project) -> Value {
    let registry = if project.proxy { json!(7) } else { Value::Null };
    json!({ "name": name, "project_id": project.id, "registry_id": registry })
}

fn wants_basic() -> Response {
    let answer = refusal(401, "UNAUTHORIZED", "unauthorized");
    with_header(answer, "www-authenticate", "Basic realm=\"harbor\"")
}

/// What Harbor lists under another artifact: signatures by tag, and whatever names a subject.
fn is_accessory(held: &Held) -> bool {
    let by_tag = held.tags.iter().all(|tag| {
        let tag = tag.as_str();
        tag.starts_with("sha256-") && [".sig", ".att", ".sbom"].iter().any(|end| tag.ends_with(end))
    });
    let manifest = Manifest::parse(Some(&held.media_type), held.bytes.clone(), None);
    by_tag || manifest.is_ok_and(|manifest| manifest.subject().is_some())
}
