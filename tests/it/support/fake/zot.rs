//! zot with its search extension (project-zot/zot `pkg/extensions/search`, `pkg/api/routes.go`).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::response::IntoResponse as _;
use axum::response::Response;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use transship::demo::registry::Options;
use transship::oci::{Digest, RepositoryName, Tag};

use super::token::{Asks, Tokens};
use super::{Asked, Asking, Book, Face, Fake, document, lock, refusal, tags};
use crate::support::{PASSWORD, USERNAME};

/// What a test changes.
pub struct Zot {
    asks: Asks,
    /// The search extension is switched off.
    pub no_search: AtomicBool,
    /// The next searches answer 200 with an error.
    pub errors: AtomicU32,
    /// Requests with so many bytes of a blob are not read to their end, once each.
    pub broken_reads: Mutex<Vec<usize>>,
    /// After this many pages of tags the tag that ended the page is deleted.
    pub deleting_pages: AtomicU32,
    /// Collected as garbage just before the next manifest comes.
    pub collects: Mutex<Option<Digest>>,
    /// A manifest whose blobs are missing is refused with the code of a blob.
    pub blob_unknown: AtomicBool,
    /// Tags that were deleted since.
    deleted: Mutex<BTreeSet<Tag>>,
    /// Paths of uploads that are gone.
    ended: Mutex<BTreeSet<String>>,
}

impl Zot {
    pub async fn start() -> (Fake, Arc<Self>) {
        Self::asking(Asks::Basic("Basic realm=\"Authorization Required\"")).await
    }

    /// One whose `http.auth.bearer` names a token server.
    pub async fn with_tokens() -> (Fake, Arc<Self>) {
        Self::asking(Asks::Token(Tokens::new("/auth/token", "zot"))).await
    }

    async fn asking(asks: Asks) -> (Fake, Arc<Self>) {
        let zot = Arc::new(Self {
            asks,
            no_search: AtomicBool::default(),
            errors: AtomicU32::default(),
            broken_reads: Mutex::default(),
            deleting_pages: AtomicU32::default(),
            collects: Mutex::default(),
            blob_unknown: AtomicBool::default(),
            deleted: Mutex::default(),
            ended: Mutex::default(),
        });
        let options = Options {
            referrers_api: true,
            ..Options::default()
        };
        (Fake::start(Arc::clone(&zot), options).await, zot)
    }

    /// The keys of its rules.
    pub fn keys() -> String {
        format!("kind: zot, username: {USERNAME}, password: {PASSWORD}")
    }

    fn search(&self, book: &Book, request: &Asking) -> Asked {
        if self.no_search.load(Ordering::SeqCst) {
            return Asked::Answer(refusal(404, "NOT_FOUND", "not found"));
        }
        let left = self.errors.load(Ordering::SeqCst);
        if left > 0 {
            self.errors.store(left - 1, Ordering::SeqCst);
            let errors = json!({ "errors": [{ "message": "failed to parse" }], "data": null });
            return Asked::Answer(document(200, &errors));
        }
        let Some(query) = request.parameter("query") else {
            return Asked::Wrong("a search has one query".to_owned());
        };
        let between = |before: &str, after: &str| {
            let (_, rest) = query.split_once(before)?;
            Some(rest.split_once(after)?.0.to_owned())
        };
        let number = |before: &str, after: &str| between(before, after)?.parse::<usize>().ok();
        let (Some(name), Some(limit), Some(offset)) = (
            between("{ImageList(repo:\"", "\""),
            number("limit:", ","),
            number("offset:", ","),
        ) else {
            return Asked::Wrong("the query is none that this fake reads".to_owned());
        };
        if query.matches('{').count() != query.matches('}').count() || !query.contains("Results{Tag Digest MediaType}")
        {
            return Asked::Wrong("the query is not well formed".to_owned());
        }
        let held = name.parse().ok().and_then(|name| book.registry.manifests(&name));
        let mut images: Vec<Value> = Vec::new();
        for held in held.unwrap_or_default() {
            let of = held
                .tags
                .iter()
                .map(|tag| json!({ "Tag": tag, "Digest": held.digest, "MediaType": held.media_type }));
            images.extend(of);
        }
        images.sort_by_key(|image| image["Tag"].as_str().map(str::to_owned));
        if offset > 0 && offset >= images.len() {
            return Asked::Wrong("there is no such page".to_owned());
        }
        let shown: Vec<&Value> = images.iter().skip(offset).take(limit).collect();
        let list = json!({ "Page": { "TotalCount": images.len() }, "Results": shown });
        Asked::Answer(document(200, &json!({ "data": { "ImageList": list } })))
    }
}

impl Zot {
    /// `pkg/api/routes.go`: what follows a tag that is not there is not there either.
    fn tags(&self, book: &Book, request: &Asking, name: &RepositoryName) -> Asked {
        let mut known = book.registry.tags(name);
        known.retain(|tag| !lock(&self.deleted).contains(tag));
        let last = request.parameter("last");
        if last.is_some_and(|last| known.iter().all(|tag| tag.as_str() != last)) {
            return Asked::Answer(StatusCode::NOT_FOUND.into_response());
        }
        let Some(page) = tags::page(request, &known, usize::MAX) else {
            return Asked::Pass;
        };
        let left = self.deleting_pages.load(Ordering::SeqCst);
        let link = page.headers().get(header::LINK).and_then(|link| link.to_str().ok());
        if let Some((_, last)) = link.and_then(|link| link.split_once("last="))
            && left > 0
        {
            let tag = last.split('>').next().and_then(|tag| tag.parse().ok());
            lock(&self.deleted).insert(tag.expect("a tag"));
            self.deleting_pages.store(left - 1, Ordering::SeqCst);
        }
        Asked::Answer(page)
    }

    /// Bytes, or a question about an upload. What could not be read ends it (`pkg/api/routes.go`).
    fn upload(&self, request: &Asking) -> Asked {
        let length = request.header("content-length").and_then(|length| length.parse().ok());
        let mut broken = lock(&self.broken_reads);
        if let Some(at) = broken.iter().position(|broken| Some(*broken) == length) {
            broken.remove(at);
            lock(&self.ended).insert(request.path.clone());
            return Asked::Answer(StatusCode::INTERNAL_SERVER_ERROR.into_response());
        }
        match lock(&self.ended).contains(&request.path) {
            true => Asked::Answer(refusal(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")),
            false => Asked::Pass,
        }
    }
}

/// Any repository that has the blob: `from` is not looked at.
fn mounted(book: &Book, request: &Asking) -> Option<Asked> {
    let digest: Digest = request.parameter("mount")?.parse().ok()?;
    let names = book.registry.repositories();
    let from = names.iter().find(|name| book.registry.blob(name, &digest).is_some())?;
    Some(Asked::PassAs(format!("mount={digest}&from={from}")))
}

impl Face for Arc<Zot> {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        if let Some(refused) = self.asks.refuses(book, request) {
            return refused;
        }
        match request.path.as_str() {
            "/v2/_zot/ext/search" => self.search(book, request),
            "/v2/_oci/ext/discover" => {
                let extensions = json!({ "extensions": [{ "name": "_zot", "endpoints": ["/v2/_zot/ext/search"] }] });
                Asked::Answer(document(200, &extensions))
            }
            path if path.ends_with("/blobs/uploads/") => mounted(book, request).unwrap_or(Asked::Pass),
            path if path.contains("/blobs/uploads/") => self.upload(request),
            path if path.ends_with("/tags/list") => {
                let name = request.repository().and_then(|name| name.parse().ok());
                match name.filter(|name| book.registry.manifests(name).is_some()) {
                    Some(name) => self.tags(book, request, &name),
                    None => Asked::Pass,
                }
            }
            _ => {
                if request.method == Method::PUT
                    && request.reference().is_some()
                    && let Some(digest) = lock(&self.collects).take()
                {
                    assert!(book.registry.lose_blob(&digest), "{digest} is not there");
                }
                Asked::Pass
            }
        }
    }

    fn answered(&self, _book: &Book, request: &Asking, mut answer: Response) -> Response {
        // The place of an upload says nothing of its state.
        if request.path.contains("/blobs/uploads/")
            && let Some(location) = answer.headers().get(header::LOCATION).and_then(|at| at.to_str().ok())
            && let Some((plain, _)) = location.split_once('?')
        {
            let plain = HeaderValue::from_str(plain).expect("an address");
            answer.headers_mut().insert(header::LOCATION, plain);
        }
        match answer.status() {
            StatusCode::RANGE_NOT_SATISFIABLE if request.path.contains("/blobs/uploads/") => {
                refusal(416, "BLOB_UPLOAD_INVALID", "blob upload invalid")
            }
            // Either word is zot's (`pkg/api/routes.go`).
            StatusCode::BAD_REQUEST if request.reference().is_some() && self.blob_unknown.load(Ordering::SeqCst) => {
                refusal(400, "BLOB_UNKNOWN", "blob unknown to registry")
            }
            // A manifest whose blobs are missing (`pkg/storage`).
            StatusCode::BAD_REQUEST if request.reference().is_some() => {
                refusal(400, "MANIFEST_INVALID", "manifest invalid: blob not found")
            }
            _ => answer,
        }
    }
}
