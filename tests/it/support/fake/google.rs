//! Google Artifact Registry (google/go-containerregistry `pkg/v1/google/list.go`; cloud.google.com, Artifact Registry,
//! "Configure authentication to Artifact Registry for Docker").

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::response::Response;
use http::Method;
use serde_json::{Map, Value, json};
use transship::demo::registry::Options;

use super::token::Tokens;
use super::{Asked, Asking, Book, Face, Fake, document, refusal, with_header};

/// The user whose password is an access token of OAuth.
pub const USER: &str = "oauth2accesstoken";
pub const TOKEN: &str = "ya29.fake-token";
/// The project, and its only repository: images are below it.
pub const REPOSITORY: &str = "project/images";

pub struct Google {
    tokens: Tokens,
    /// Answers lists with a page for people, as for a path that it does not know.
    pub page_for_people: AtomicBool,
}

impl Google {
    pub async fn start() -> (Fake, Arc<Self>) {
        let google = Arc::new(Self {
            tokens: Tokens::new("/v2/token", "europe-west1-docker.pkg.dev"),
            page_for_people: AtomicBool::new(false),
        });
        let options = Options {
            referrers_api: true,
            ..Options::default()
        };
        (Fake::start(Arc::clone(&google), options).await, google)
    }

    /// The keys of its rules.
    pub fn keys() -> String {
        format!("kind: google, username: {USER}, password: {TOKEN}")
    }

    fn list(&self, book: &Book, path: &str) -> Response {
        if self.page_for_people.load(Ordering::SeqCst) {
            let page = Response::builder().header("content-type", "text/html");
            return page.body(Body::from("<!doctype html>")).expect("an answer");
        }
        let inside = format!("{path}/");
        let names = book.registry.repositories();
        let below = names
            .iter()
            .filter_map(|name| name.as_str().strip_prefix(&inside)?.split('/').next());
        let children: BTreeSet<&str> = below.collect();
        let held = path.parse().ok().and_then(|name| book.registry.manifests(&name));
        if held.is_none() && children.is_empty() {
            return refusal(404, "NAME_UNKNOWN", &format!("Repository \"{path}\" not found"));
        }
        let (mut tags, mut manifests) = (Vec::new(), Map::new());
        for held in held.unwrap_or_default() {
            tags.extend(held.tags.iter().map(|tag| json!(tag)));
            let said = json!({
                "imageSizeBytes": "1033", "layerId": "", "mediaType": held.media_type, "tag": held.tags,
                "timeCreatedMs": "0", "timeUploadedMs": "1772366400000",
            });
            manifests.insert(held.digest.to_string(), said);
        }
        let tags = Value::Array(tags);
        document(
            200,
            &json!({ "name": path, "child": children, "tags": tags, "manifest": manifests }),
        )
    }
}

impl Face for Arc<Google> {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        if self.tokens.is_realm(request) {
            let user = match request.basic() {
                Some((user, secret)) if user == USER && secret == TOKEN => Some(user),
                Some(_) => return Asked::Wrong("another login than the rules have".to_owned()),
                None => None,
            };
            let known = user.is_some();
            return self.tokens.give(book, request, user.as_deref(), |_, _| known);
        }
        if let Some(refused) = self.tokens.refuses(book, request) {
            return refused;
        }
        if request.path == "/v2/_catalog" {
            let answer = Response::builder().status(404).header("content-type", "text/html");
            return Asked::Answer(answer.body(Body::from("<!doctype html>")).expect("an answer"));
        }
        if let Some(path) = request.path.strip_prefix("/v2/")
            && let Some(path) = path.strip_suffix("/tags/list")
            && request.method == Method::GET
        {
            return Asked::Answer(self.list(book, path));
        }
        // Images are made by pushes, what they are in is not.
        let inside = |name: &str| name.strip_prefix(REPOSITORY).is_some_and(|rest| rest.starts_with('/'));
        if request
            .path
            .strip_prefix("/v2/")
            .is_some_and(|path| !path.is_empty() && !inside(path))
        {
            let message = format!("Repository not found: {}", request.path);
            return Asked::Answer(refusal(404, "NAME_UNKNOWN", &message));
        }
        Asked::Pass
    }

    fn answered(&self, _book: &Book, _request: &Asking, answer: Response) -> Response {
        with_header(answer, "server", "Docker")
    }
}
