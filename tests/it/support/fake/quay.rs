//! Quay (quay/quay `endpoints/v2`, `endpoints/api/tag.py`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::response::Response;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use transship::demo::registry::Options;

use super::token::{Tokens, Worth};
use super::{Asked, Asking, Book, Face, Fake, REPLACED, document, lock, refusal, tags};

/// A token of an OAuth application, whose user is `$oauthtoken`.
pub const APPLICATION: &str = "quay-application-token";
/// A robot, which is for the registry alone.
pub const ROBOT: &str = "team+sync";
/// Its token.
pub const SECRET: &str = "quay-robot-token";
const PAGE: usize = 100;

pub struct Quay {
    tokens: Tokens,
    pages: Mutex<BTreeMap<String, usize>>,
}

impl Quay {
    pub async fn start() -> (Fake, Arc<Self>) {
        let quay = Arc::new(Self {
            tokens: Tokens::new("/v2/auth", "quay.example"),
            pages: Mutex::default(),
        });
        let options = Options {
            referrers_api: true,
            ..Options::default()
        };
        (Fake::start(Arc::clone(&quay), options).await, quay)
    }

    /// The keys of its rules for an application.
    pub fn keys() -> String {
        format!("kind: quay, username: \"$oauthtoken\", password: {APPLICATION}")
    }

    /// The keys of its rules for a robot.
    pub fn robot() -> String {
        format!("kind: quay, username: {ROBOT}, password: {SECRET}")
    }

    fn tags(&self, book: &Book, request: &Asking, repository: &str) -> Asked {
        match (request.authorization(), request.bearer()) {
            (_, Some(APPLICATION)) => {}
            (_, Some(REPLACED)) => return Asked::Answer(document(401, &json!({ "error": "invalid_token" }))),
            // The repositories of this fake are private.
            (None, _) => return Asked::Answer(document(401, &json!({ "error": "insufficient_scope" }))),
            _ => return Asked::Wrong("the API takes tokens of applications alone".to_owned()),
        }
        if request.parameter("onlyActiveTags").as_deref() != Some("true") {
            return Asked::Wrong("tags of the past would be listed, too".to_owned());
        }
        let number = |name: &str| request.parameter(name).and_then(|text| text.parse::<usize>().ok());
        let (Some(page), Some(size)) = (number("page"), number("limit")) else {
            return Asked::Wrong("a list is read by pages".to_owned());
        };
        let held = repository.parse().ok().and_then(|name| book.registry.manifests(&name));
        let Some(held) = held else {
            return Asked::Answer(document(404, &json!({ "error_type": "not_found" })));
        };
        let mut tags: Vec<Value> = Vec::new();
        for held in &held {
            let index = transship::oci::media_type::is_index(&held.media_type);
            tags.extend(held.tags.iter().map(|tag| {
                json!({ "name": tag, "manifest_digest": held.digest, "is_manifest_list": index, "start_ts": 1_772_366_400 })
            }));
        }
        let size = size.min(PAGE);
        let before = lock(&self.pages).insert(request.path.clone(), page).unwrap_or_default();
        // A page may be seen again.
        if page != 1 && page != before && (page != before + 1 || (page - 1) * size >= tags.len()) {
            return Asked::Wrong(format!("page {page} after page {before}"));
        }
        let shown: Vec<&Value> = tags.iter().skip((page - 1) * size).take(size).collect();
        let body = json!({ "tags": shown, "page": page, "has_additional": page * size < tags.len() });
        Asked::Answer(document(200, &body))
    }
}

impl Face for Arc<Quay> {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        if self.tokens.is_realm(request) {
            let user = match request.basic() {
                Some((user, secret)) if user == ROBOT && secret == SECRET => Some(user),
                Some((user, secret)) if user == "$oauthtoken" && secret == APPLICATION => Some(user),
                Some(_) => return Asked::Answer(refusal(401, "UNAUTHORIZED", "Invalid username or password")),
                None => None,
            };
            // Whatever else was asked for.
            if request.all("scope").iter().any(|scope| scope.contains("delete")) {
                return Asked::Wrong("Quay has no right to delete: it answers 400".to_owned());
            }
            let known = user.is_some();
            return self.tokens.give(book, request, user.as_deref(), |_, _| known);
        }
        let api = request.path.strip_prefix("/api/v1/repository/");
        if let Some(repository) = api.and_then(|path| path.strip_suffix("/tag/")) {
            if request.method != Method::GET {
                return Asked::Wrong("tags are read".to_owned());
            }
            return self.tags(book, request, repository);
        }
        if request.basic().is_some() {
            return Asked::Wrong("the password is for the token server alone".to_owned());
        }
        match self.tokens.worth(book, request) {
            Worth::Good(_) if request.method == Method::GET && request.path.ends_with("/tags/list") => {
                // `endpoints/v2/tag.py`: no page is longer, whatever is asked for.
                let repository = request.repository().and_then(|name| name.parse().ok());
                let held = repository.filter(|name| book.registry.manifests(name).is_some());
                let page = held.and_then(|name| tags::page(request, &book.registry.tags(&name), PAGE));
                page.map_or(Asked::Pass, Asked::Answer)
            }
            Worth::Good(_) => Asked::Pass,
            // The right to delete is none that a token has, so an upload cannot be given up either.
            Worth::Lacks(_) if request.method == Method::DELETE => Asked::Answer(refusal(
                401,
                "UNAUTHORIZED",
                "access to the requested resource is not authorized",
            )),
            Worth::Missing | Worth::Ended | Worth::Lacks(_) => Asked::Answer(self.tokens.challenge(
                book,
                request,
                "access to the requested resource is not authorized",
            )),
            Worth::Unknown => Asked::Wrong("a token that was not given out".to_owned()),
        }
    }

    fn answered(&self, _book: &Book, request: &Asking, mut answer: Response) -> Response {
        let is_upload = request.path.contains("/blobs/uploads/");
        match answer.status() {
            // `endpoints/v2/blob.py`: each request has a form of its own.
            StatusCode::ACCEPTED if is_upload && request.method == Method::POST => {
                answer
                    .headers_mut()
                    .insert(header::RANGE, HeaderValue::from_static("bytes=0--1"));
                answer
            }
            StatusCode::NO_CONTENT if is_upload && request.method == Method::GET => {
                let headers = answer.headers_mut();
                let last = headers
                    .get(header::RANGE)
                    .and_then(|range| range.to_str().ok()?.strip_prefix("0-")?.parse().ok());
                let held = last.map_or(0, |last: u64| last + u64::from(last > 0));
                headers.insert(
                    header::RANGE,
                    HeaderValue::from_str(&format!("bytes=0-{held}")).expect("a range"),
                );
                headers.remove(header::LOCATION);
                answer
            }
            StatusCode::BAD_REQUEST if request.reference().is_some() => {
                refusal(400, "MANIFEST_INVALID", "manifest invalid: blob not found")
            }
            _ => answer,
        }
    }

    fn immutable(&self, tag: &str) -> Option<Response> {
        Some(refusal(409, "TAG_IMMUTABLE", &format!("tag {tag} is immutable")))
    }
}
