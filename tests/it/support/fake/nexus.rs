//! Sonatype Nexus Repository 3, whose lists of tags hold nulls (containers/skopeo#2409), with its search (help.sonatype.com,
//! "Search API"), whose index may be behind.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::response::{Html, IntoResponse as _, Response};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use transship::demo::registry::Options;

use super::token::{Asks, Tokens};
use super::{Asked, Asking, Book, Face, Fake, document, lock, refusal, with_header};
use crate::support::{PASSWORD, USERNAME};

/// What Nexus calls the repository.
pub const REPOSITORY: &str = "docker-hosted";
/// Components of a page of the search.
const PAGE: usize = 50;

const BASIC: &str = "BASIC realm=\"Sonatype Nexus Repository Manager\"";

pub struct Nexus {
    asks: Asks,
    /// Whether there is a search to be asked.
    searches: AtomicBool,
    /// The search is not for this user.
    pub denies: AtomicBool,
    /// The search leads to the same page again and again.
    pub is_endless: AtomicBool,
    /// Manifests are refused, with this code, for what they name and is not there (estesp/manifest-tool#190).
    pub lacks: Mutex<Option<&'static str>>,
    /// What the search has of an image in place of what is there, as components without their image.
    index: Mutex<BTreeMap<String, Vec<Value>>>,
}

impl Nexus {
    /// A port of its own for one repository, behind which nobody may search.
    pub async fn start() -> Fake {
        let nexus = Self::asking(Asks::Basic(BASIC), false);
        Fake::start(nexus, Options::default()).await
    }

    /// The same with the Docker Bearer Token Realm: one token for all that its user may do.
    pub async fn with_tokens() -> Fake {
        let nexus = Self::asking(Asks::Token(Tokens::for_all("/v2/token")), false);
        Fake::start(nexus, Options::default()).await
    }

    fn asking(asks: Asks, searches: bool) -> Arc<Self> {
        Arc::new(Self {
            asks,
            searches: AtomicBool::new(searches),
            denies: AtomicBool::default(),
            is_endless: AtomicBool::default(),
            lacks: Mutex::default(),
            index: Mutex::default(),
        })
    }

    /// One whose search is for who asks.
    pub async fn start_with_search() -> (Fake, Arc<Self>) {
        let nexus = Self::asking(Asks::Basic(BASIC), true);
        (Fake::start(Arc::clone(&nexus), Options::default()).await, nexus)
    }

    /// The keys of its rules.
    pub fn keys() -> String {
        format!("kind: nexus, username: {USERNAME}, password: {PASSWORD}")
    }

    /// The keys of its rules, where tags are to be listed by the search.
    pub fn keys_with_search(fake: &Fake) -> String {
        format!(
            "{}, endpoint: \"{}\", bulk_listing: true, nexus_repository: {REPOSITORY}",
            Self::keys(),
            fake.url()
        )
    }

    /// The index stays as it is now for an image, whatever is pushed.
    pub fn freeze(&self, book: &Book, image: &str) {
        let now = components(book, image);
        lock(&self.index).insert(image.to_owned(), now);
    }

    /// The index has also this of an image.
    pub fn add(&self, book: &Book, image: &str, component: Value) {
        let mut index = lock(&self.index);
        index
            .entry(image.to_owned())
            .or_insert_with(|| components(book, image))
            .push(component);
    }

    /// The index has what is there.
    pub fn catch_up(&self) {
        lock(&self.index).clear();
    }

    fn search(&self, book: &Book, request: &Asking) -> Asked {
        let is = |name: &str, value: &str| request.parameter(name).as_deref() == Some(value);
        if !self.searches.load(Ordering::Relaxed) || request.method != Method::GET {
            return Asked::Wrong("nobody asked for the search to be used".to_owned());
        }
        if !is("repository", REPOSITORY) || !is("format", "docker") {
            return Asked::Wrong("the search is over other repositories, too".to_owned());
        }
        let Some(image) = request.parameter("name") else {
            return Asked::Wrong("the search is over other images, too".to_owned());
        };
        if self.denies.load(Ordering::Relaxed) {
            return Asked::Answer(document(403, &json!({})));
        }
        let indexed = lock(&self.index).get(&image).cloned();
        let all = indexed.unwrap_or_else(|| components(book, &image));
        let token = request.parameter("continuationToken");
        let page = match token.as_deref().map(|token| token.strip_prefix("page-")) {
            None => 0,
            Some(Some(number)) => number.parse().expect("a token that was given out"),
            Some(None) => return Asked::Wrong("a token that was not given out".to_owned()),
        };
        let items: Vec<&Value> = all.iter().skip(page * PAGE).take(PAGE).collect();
        let next = match self.is_endless.load(Ordering::Relaxed) {
            true => json!("page-0"),
            false if (page + 1) * PAGE < all.len() => json!(format!("page-{}", page + 1)),
            false => Value::Null,
        };
        Asked::Answer(document(200, &json!({ "items": items, "continuationToken": next })))
    }
}

/// What there is of an image: its tags, and manifests without any by their digests.
fn components(book: &Book, image: &str) -> Vec<Value> {
    let held = image.parse().ok().and_then(|name| book.registry.manifests(&name));
    let mut all = Vec::new();
    for entry in held.unwrap_or_default() {
        let mut names: Vec<String> = entry.tags.iter().map(ToString::to_string).collect();
        if names.is_empty() {
            names.push(entry.digest.to_string());
        }
        for name in names {
            all.push(component(
                REPOSITORY,
                image,
                &name,
                entry.digest.hex(),
                &entry.media_type,
            ));
        }
    }
    all.sort_by_key(|component| component["version"].to_string());
    all
}

/// A component of the search's answer.
pub fn component(repository: &str, image: &str, version: &str, sha256: &str, media_type: &str) -> Value {
    json!({
        "id": "ZG9ja2Vy", "repository": repository, "format": "docker", "group": null, "name": image, "version": version,
        "assets": [{
            "downloadUrl": format!("http://nexus.example/repository/{repository}/v2/{image}/manifests/{version}"),
            "path": format!("v2/{image}/manifests/{version}"), "repository": repository, "format": "docker",
            "checksum": { "sha1": "da39a3ee", "sha256": sha256 }, "contentType": media_type,
        }],
    })
}

/// The names of a repository's tags between others; `None` where there is no such repository.
pub fn tags_between(book: &Book, request: &Asking, others: &[Value]) -> Option<Response> {
    let name = request.repository()?;
    let repository = name.parse().ok()?;
    book.registry.manifests(&repository)?;
    let mut tags = others.to_vec();
    tags.extend(book.registry.tags(&repository).iter().map(|tag| json!(tag)));
    tags.extend_from_slice(others);
    Some(document(200, &json!({ "name": name, "tags": tags })))
}

impl Nexus {
    fn judge(&self, book: &Book, request: &Asking) -> Asked {
        // The search takes user and password at once, however images are asked for.
        if request.path == "/service/rest/v1/search" {
            let refused = Asks::Basic(BASIC).refuses(book, request);
            return refused.unwrap_or_else(|| self.search(book, request));
        }
        // A repository that it has not, in a page for people; who has not logged in may be asked to.
        let refused = self.asks.refuses(book, request);
        let is_told_to_nobody = request.path.starts_with("/repository/docker-hidden/");
        if request.path.starts_with("/repository/") && !(is_told_to_nobody && refused.is_some()) {
            let page = (StatusCode::NOT_FOUND, Html("<html>Repository not found</html>"));
            return Asked::Answer(page.into_response());
        }
        if let Some(refused) = refused {
            return refused;
        }
        if let Some(code) = *lock(&self.lacks)
            && request.method == Method::PUT
            && request.reference().is_some()
        {
            return Asked::Answer(refusal(404, code, "unknown to registry"));
        }
        if request.method == Method::GET && request.path.ends_with("/tags/list") {
            return tags_between(book, request, &[Value::Null]).map_or(Asked::Pass, Asked::Answer);
        }
        Asked::Pass
    }
}

impl Face for Arc<Nexus> {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        match self.judge(book, request) {
            Asked::Answer(answer) => Asked::Answer(self.answered(book, request, answer)),
            asked => asked,
        }
    }

    /// As GoogleContainerTools/jib#3057 saw it, where redeploying is switched off.
    fn immutable(&self, _tag: &str) -> Option<Response> {
        let detail = format!("Repository does not allow updating assets: {REPOSITORY}");
        let error = json!({ "code": "BLOB_UPLOAD_INVALID", "message": "blob upload invalid", "detail": detail });
        Some(document(400, &json!({ "errors": [error] })))
    }

    fn answered(&self, _book: &Book, _request: &Asking, answer: Response) -> Response {
        with_header(answer, "server", "Nexus/3.70.0-03 (OSS)")
    }
}
