//! GitLab's registry with the database of its metadata (gitlab-org/container-registry `docs/spec/gitlab/api.md`), and the lists of
//! repositories of GitLab itself (docs.gitlab.com, "Container registry API", "Pagination", "Access token scopes").

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::response::Response;
use http::Method;
use serde_json::{Value, json};
use transship::demo::registry::Options;

use super::token::{Tokens, Worth, needed};
use super::{Asked, Asking, Book, Face, Fake, document, lock, refusal, with_header};
use crate::support::{PASSWORD, USERNAME};

/// Whose repositories these are: groups with projects, and a user's project.
const PROJECTS: [&str; 5] = [
    "group/project",
    "group/sub/tool",
    "secret/project",
    "hidden/project",
    "octocat/tool",
];
/// A user, who is no group.
const USER: &str = "octocat";
/// A group in which our user has not the role to see repositories, and one that he may not even know of.
const SECRET: &str = "secret";
const HIDDEN: &str = "hidden";
/// Entries of a page of GitLab itself.
const PAGE: usize = 100;

pub struct Gitlab {
    tokens: Tokens,
    /// Our user may read the catalogue.
    pub administers: AtomicBool,
    /// The password is none of an access token with the scope `read_api`.
    pub registry_only: AtomicBool,
    /// The lists are too long for GitLab to count them.
    pub uncounted: AtomicBool,
    /// The registry has no such database.
    pub plain: AtomicBool,
    /// Tags that its API does not show.
    pub hides: Mutex<HashSet<String>>,
    /// Links to next pages that were given out.
    links: Mutex<HashSet<String>>,
}

impl Gitlab {
    pub async fn start() -> (Fake, Arc<Self>) {
        let gitlab = Arc::new(Self {
            tokens: Tokens::new("/jwt/auth", "container_registry"),
            administers: AtomicBool::new(false),
            registry_only: AtomicBool::new(false),
            uncounted: AtomicBool::new(false),
            plain: AtomicBool::new(false),
            hides: Mutex::default(),
            links: Mutex::default(),
        });
        (Fake::start(Arc::clone(&gitlab), Options::default()).await, gitlab)
    }

    /// The keys of its rules.
    pub fn keys() -> String {
        format!("kind: gitlab, username: {USERNAME}, password: {PASSWORD}")
    }

    /// The keys of its rules, with where GitLab itself is.
    pub fn keys_with_api(fake: &Fake) -> String {
        format!("{}, endpoint: \"{}\"", Self::keys(), fake.url())
    }

    /// What GitLab itself answers; `path` begins after `/api/v4/`.
    fn api(&self, book: &Book, request: &Asking, path: &str) -> Asked {
        let said = |status, message: &str| Asked::Answer(document(status, &json!({ "message": message })));
        if request.method != Method::GET || request.bearer() != Some(PASSWORD) {
            return Asked::Wrong("the API takes the token itself".to_owned());
        }
        let number = |name: &str| request.parameter(name).and_then(|text| text.parse::<usize>().ok());
        let (Some(page @ 1..), Some(size @ 1..=PAGE)) = (number("page"), number("per_page")) else {
            return Asked::Wrong("a list is read by pages of 100 at most".to_owned());
        };
        let [sort @ ("groups" | "projects"), id, "registry", "repositories"] = path.split('/').collect::<Vec<_>>()[..]
        else {
            return Asked::Wrong("the API has no such path".to_owned());
        };
        if self.registry_only.load(Ordering::SeqCst) {
            let error =
                json!({ "error": "insufficient_scope", "error_description": "The request requires higher privileges" });
            return Asked::Answer(document(403, &error));
        }
        let holder = id.replace("%2F", "/");
        let inside = format!("{holder}/");
        let is_there = match sort {
            "projects" => PROJECTS.contains(&holder.as_str()),
            _ => holder != USER && PROJECTS.iter().any(|project| project.starts_with(&inside)),
        };
        let top = holder.split('/').next().unwrap_or_default();
        if !is_there || top == HIDDEN {
            return match sort {
                "projects" => said(404, "404 Project Not Found"),
                _ => said(404, "404 Group Not Found"),
            };
        }
        if top == SECRET {
            return said(403, "403 Forbidden");
        }
        let names = book.registry.repositories();
        let own = names
            .iter()
            .filter(|name| name.as_str() == holder || name.as_str().starts_with(&inside));
        let entries: Vec<Value> = own
            .enumerate()
            .map(|(id, name)| json!({ "id": id + 1, "name": "", "path": name, "project_id": 9, "location": format!("gitlab.example:5000/{name}") }))
            .collect();
        let shown: Vec<&Value> = entries.iter().skip((page - 1) * size).take(size).collect();
        let next = match page * size < entries.len() {
            true => (page + 1).to_string(),
            false => String::new(),
        };
        let answer = with_header(document(200, &json!(shown)), "x-next-page", &next);
        Asked::Answer(match self.uncounted.load(Ordering::SeqCst) {
            true => answer,
            false => with_header(answer, "x-total", &entries.len().to_string()),
        })
    }

    fn tags(&self, book: &Book, request: &Asking, repository: &str) -> Asked {
        if self.plain.load(Ordering::SeqCst) {
            let answer = Response::builder().status(404).body(Body::from("404 page not found"));
            return Asked::Answer(answer.expect("an answer"));
        }
        let last = request.parameter("last");
        if last.is_some() && !lock(&self.links).remove(&request.target()) {
            return Asked::Wrong("a page that was not linked to, or was read before".to_owned());
        }
        let Some(size @ 1..=1000) = request.parameter("n").and_then(|text| text.parse::<usize>().ok()) else {
            return Asked::Wrong("a page has 1 to 1000 tags".to_owned());
        };
        let held = repository.parse().ok().and_then(|name| book.registry.manifests(&name));
        let Some(held) = held else {
            return Asked::Answer(refusal(404, "NAME_UNKNOWN", "repository name not known to registry"));
        };
        let mut tags: Vec<Value> = Vec::new();
        for held in &held {
            let hides = lock(&self.hides);
            let shown = held.tags.iter().filter(|tag| !hides.contains(tag.as_str()));
            tags.extend(shown.map(|tag| {
                json!({ "name": tag, "digest": held.digest, "media_type": held.media_type, "published_at": "2026-03-01T12:00:00.412+00:00" })
            }));
        }
        // The mark of a page says nothing to clients.
        let at = last
            .and_then(|mark| mark.strip_prefix("mark-")?.parse().ok())
            .unwrap_or(0);
        let shown: Vec<&Value> = tags.iter().skip(at).take(size).collect();
        let mut answer = document(200, &json!(shown));
        if at + size < tags.len() {
            let next = format!("{}?n={size}&last=mark-{}", request.path, at + size);
            lock(&self.links).insert(next.clone());
            answer = with_header(answer, "link", &format!("<{}{next}>; rel=\"next\"", book.url));
        }
        Asked::Answer(answer)
    }
}

impl Face for Arc<Gitlab> {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        if let Some(path) = request.path.strip_prefix("/api/v4/") {
            return self.api(book, request, path);
        }
        if self.tokens.is_realm(request) {
            let user = request
                .basic()
                .filter(|(user, password)| user == USERNAME && password == PASSWORD);
            let known = user.is_some();
            let user = user.map(|(user, _)| user);
            let administers = self.administers.load(Ordering::SeqCst);
            let may = |name: &str, _: &str| known && (name != "catalog" || administers);
            return self.tokens.give(book, request, user.as_deref(), may);
        }
        let listed = request
            .path
            .strip_prefix("/gitlab/v1/repositories/")
            .and_then(|rest| rest.strip_suffix("/tags/list/"));
        let wanted = match listed {
            Some(repository) => vec![format!("repository:{repository}:pull")],
            None => needed(request),
        };
        match (self.tokens.worth_of(book, request, wanted.clone()), listed) {
            (Worth::Good(_), Some(repository)) => self.tags(book, request, repository),
            (Worth::Good(_), None) => Asked::Pass,
            (Worth::Unknown, _) => Asked::Wrong("a token that was not given out".to_owned()),
            _ => Asked::Answer(self.tokens.challenge_of(book, wanted, "authentication required")),
        }
    }
}
