//! zot with its search extension (project-zot/zot `pkg/extensions/search`, `pkg/api/routes.go`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use transship::demo::registry::Options;

use super::{Asked, Asking, Book, Face, Fake, document, refusal, with_header};
use crate::support::{PASSWORD, USERNAME};

/// What a test changes.
#[derive(Default)]
pub struct Zot {
    /// The search extension is switched off.
    pub no_search: AtomicBool,
    /// The next searches answer 200 with an error.
    pub errors: AtomicU32,
}

impl Zot {
    pub async fn start() -> (Fake, Arc<Self>) {
        let zot = Arc::new(Self::default());
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

impl Face for Arc<Zot> {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        match request.basic() {
            Some((user, password)) if user == USERNAME && password == PASSWORD => {}
            Some(_) => return Asked::Wrong("another login than the rules have".to_owned()),
            None => {
                let answer = refusal(401, "UNAUTHORIZED", "authentication required");
                return Asked::Answer(with_header(
                    answer,
                    "www-authenticate",
                    "Basic realm=\"Authorization Required\"",
                ));
            }
        }
        match request.path.as_str() {
            "/v2/_zot/ext/search" => self.search(book, request),
            "/v2/_oci/ext/discover" => {
                let extensions = json!({ "extensions": [{ "name": "_zot", "endpoints": ["/v2/_zot/ext/search"] }] });
                Asked::Answer(document(200, &extensions))
            }
            _ => Asked::Pass,
        }
    }

    fn answered(&self, _book: &Book, request: &Asking, answer: Response) -> Response {
        match answer.status() {
            // A manifest whose blobs are missing (`pkg/storage`).
            StatusCode::BAD_REQUEST if request.reference().is_some() => {
                refusal(400, "MANIFEST_INVALID", "manifest invalid: blob not found")
            }
            _ => answer,
        }
    }
}
