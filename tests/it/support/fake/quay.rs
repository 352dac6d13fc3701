//! Quay (quay/quay `endpoints/v2`, `endpoints/api/tag.py`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::response::Response;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use transship::demo::registry::Options;
use transship::oci::RepositoryName;

use super::token::{Tokens, Worth};
use super::{Asked, Asking, Book, Face, Fake, REPLACED, document, lock, refusal, tags, with_header};

/// A token of an OAuth application, whose user is `$oauthtoken`.
pub const APPLICATION: &str = "quay-application-token";
/// A robot, which is for the registry alone.
pub const ROBOT: &str = "team+sync";
/// Its token.
pub const SECRET: &str = "quay-robot-token";
const PAGE: usize = 100;

/// What `endpoints/v2/errors.py` says with `DENIED`: status and message.
pub const READ_ONLY: Denial = (
    405,
    "System is currently read-only. Pulls will succeed but all write operations are currently suspended.",
);
pub const QUOTA: Denial = (403, "Quota has been exceeded on namespace");
pub const DISABLED: Denial = (
    405,
    "This namespace is disabled. Please contact your system administrator.",
);

pub type Denial = (u16, &'static str);

/// The parameter of an address in the storage, which is good without a login.
const SIGNATURE: &str = "Signature";

pub struct Quay {
    tokens: Tokens,
    pages: Mutex<BTreeMap<String, usize>>,
    /// All writes are refused so.
    pub denies: Mutex<Option<Denial>>,
    /// Blobs are read of a storage at another host.
    pub redirects: AtomicBool,
    /// Pages of tags go on from a token, as in older versions.
    pub page_tokens: AtomicBool,
}

impl Quay {
    pub async fn start() -> (Fake, Arc<Self>) {
        let quay = Arc::new(Self {
            tokens: Tokens::new("/v2/auth", "quay.example"),
            pages: Mutex::default(),
            denies: Mutex::default(),
            redirects: AtomicBool::default(),
            page_tokens: AtomicBool::default(),
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

/// A page of tags whose link has a token: the name of the last tag is not looked at.
fn page_by_token(request: &Asking, book: &Book, name: &RepositoryName) -> Asked {
    let tags = book.registry.tags(name);
    let at = match request.parameter("next_page") {
        None => 0,
        Some(token) => match token.strip_prefix("gAAAA=+").and_then(|at| at.parse().ok()) {
            Some(at) if at < tags.len() => at,
            _ => return Asked::Wrong("a token of a page that was not given out".to_owned()),
        },
    };
    let shown: Vec<&str> = tags.iter().skip(at).take(PAGE).map(|tag| tag.as_str()).collect();
    let page = document(200, &json!({ "name": name, "tags": shown }));
    if at + PAGE >= tags.len() {
        return Asked::Answer(page);
    }
    let link = format!(
        "</v2/{name}/tags/list?n={PAGE}&next_page=gAAAA%3D%2B{}>; rel=\"next\"",
        at + PAGE
    );
    Asked::Answer(with_header(page, "link", &link))
}

impl Quay {
    /// What it answers to who may ask.
    fn answer(&self, book: &Book, request: &Asking) -> Asked {
        let denied = *lock(&self.denies);
        if let Some((status, message)) = denied.filter(|_| request.writes()) {
            return Asked::Answer(refusal(status, "DENIED", message));
        }
        let is_read = request.method == Method::GET;
        let repository = request
            .repository()
            .and_then(|name| name.parse::<RepositoryName>().ok());
        let Some(name) = repository.filter(|name| is_read && book.registry.manifests(name).is_some()) else {
            return Asked::Pass;
        };
        if request.path.ends_with("/tags/list") {
            if self.page_tokens.load(Ordering::SeqCst) {
                return page_by_token(request, book, &name);
            }
            // `endpoints/v2/tag.py`: no page is longer, whatever is asked for.
            let page = tags::page(request, &book.registry.tags(&name), PAGE);
            return page.map_or(Asked::Pass, Asked::Answer);
        }
        if let Some((_, subject)) = request.path.split_once("/referrers/") {
            let held = book.registry.manifests(&name).unwrap_or_default();
            // No empty list, as others give.
            return match held.iter().any(|held| held.digest.to_string() == subject) {
                true => Asked::Pass,
                false => Asked::Answer(refusal(400, "MANIFEST_INVALID", "manifest invalid")),
            };
        }
        if request.path.contains("/blobs/sha256:") && self.redirects.load(Ordering::SeqCst) {
            // The registry is at an address, the storage at a name.
            let storage = book.url.replace("127.0.0.1", "localhost");
            let at = format!("{storage}{}?{SIGNATURE}=s", request.path);
            return Asked::Answer(with_header(document(302, &json!({})), "location", &at));
        }
        Asked::Pass
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
        if request.parameter(SIGNATURE).is_some() {
            return match request.authorization() {
                Some(_) => Asked::Wrong("the storage refuses a login beside its signature".to_owned()),
                None => Asked::Pass,
            };
        }
        if request.basic().is_some() {
            return Asked::Wrong("the password is for the token server alone".to_owned());
        }
        match self.tokens.worth(book, request) {
            Worth::Good(_) => self.answer(book, request),
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
