//! GitLab's registry with the database of its metadata (gitlab-org/container-registry `docs/spec/gitlab/api.md`).

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::response::Response;
use serde_json::{Value, json};
use transship::demo::registry::Options;

use super::token::{Tokens, Worth, needed};
use super::{Asked, Asking, Book, Face, Fake, document, lock, refusal, with_header};
use crate::support::{PASSWORD, USERNAME};

pub struct Gitlab {
    tokens: Tokens,
    /// The registry has no such database.
    pub plain: AtomicBool,
    /// Links to next pages that were given out.
    links: Mutex<HashSet<String>>,
}

impl Gitlab {
    pub async fn start() -> (Fake, Arc<Self>) {
        let gitlab = Arc::new(Self {
            tokens: Tokens::new("/jwt/auth", "container_registry"),
            plain: AtomicBool::new(false),
            links: Mutex::default(),
        });
        (Fake::start(Arc::clone(&gitlab), Options::default()).await, gitlab)
    }

    /// The keys of its rules.
    pub fn keys() -> String {
        format!("kind: gitlab, username: {USERNAME}, password: {PASSWORD}")
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
            tags.extend(held.tags.iter().map(|tag| {
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
        if self.tokens.is_realm(request) {
            let user = request
                .basic()
                .filter(|(user, password)| user == USERNAME && password == PASSWORD);
            let known = user.is_some();
            let user = user.map(|(user, _)| user);
            return self.tokens.give(book, request, user.as_deref(), |_, _| known);
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
