//! Huawei Cloud SWR, the shared edition: its API is that of support.huaweicloud.com, api-swr, and of PyPI `huaweicloudsdkswr`;
//! the paths of its token server and of its organisations are those of goharbor/harbor, adapter huawei.

#![expect(
    clippy::result_large_err,
    reason = "what ends the judging early is an answer as any other"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};
use transship::clock::Clock;
use transship::demo::registry::Options;
use transship::oci::Digest;

use super::acs3::{hex, hmac};
use super::sdk_hmac::{Signature, Signatures};
use super::token::{Login, Tokens};
use super::{Asked, Asking, Book, Face, Fake, document, lock, refusal, with_header};

pub const REGION: &str = "cn-north-4";
pub const KEY: &str = "AKFAKE";
pub const SECRET: &str = "huawei-secret-0123456789";
/// A login of long life: the region, and an access key.
pub const USER: &str = "cn-north-4@AKFAKE";
/// A temporary access key.
pub const TEMPORARY: (&str, &str, &str) = ("HSTFAKE", "huawei-temporary-secret", "security-token-0123");
/// Entries of a page at most.
const PAGE: usize = 1000;

/// What is made of the access key and its secret.
pub fn password() -> String {
    hex(&hmac(SECRET.as_bytes(), KEY.as_bytes()))
}

pub struct Huawei {
    tokens: Tokens,
    organisations: Mutex<BTreeSet<String>>,
    pub signatures: Signatures,
    /// Ends of paths of the API that the key may not ask.
    pub forbidden: Mutex<BTreeSet<String>>,
    /// The list of the tags of a missing repository is empty, where it else is refused.
    pub missing_is_empty: AtomicBool,
    /// After the first page of tags the first tag is deleted and another one pushed.
    pub shifts: AtomicBool,
    /// The list says of an index what its first child is.
    pub lists_children: AtomicBool,
    /// What its API says that a tag points to, where it is behind.
    pub stale: Mutex<BTreeMap<String, Digest>>,
    /// Lists do not say how many entries they have.
    pub without_totals: AtomicBool,
    /// Pages have no more entries than this, whatever is asked for; 0 for as many.
    pub most: AtomicUsize,
    /// Where the last page of a list ended.
    pages: Mutex<BTreeMap<String, usize>>,
    logins: AtomicU32,
}

impl Huawei {
    /// With these organisations.
    pub async fn start(organisations: &[&str]) -> (Fake, Arc<Self>) {
        let names = organisations.iter().map(|name| (*name).to_owned());
        let huawei = Arc::new(Self {
            tokens: Tokens::new("/swr/auth/v2/registry/auth", "dockyard"),
            organisations: Mutex::new(names.collect()),
            signatures: Signatures::default(),
            forbidden: Mutex::default(),
            missing_is_empty: AtomicBool::default(),
            shifts: AtomicBool::default(),
            lists_children: AtomicBool::default(),
            stale: Mutex::default(),
            without_totals: AtomicBool::default(),
            most: AtomicUsize::default(),
            pages: Mutex::default(),
            logins: AtomicU32::default(),
        });
        huawei.signatures.add(KEY, SECRET, None);
        huawei.signatures.add(TEMPORARY.0, TEMPORARY.1, Some(TEMPORARY.2));
        (Fake::start(Arc::clone(&huawei), Options::default()).await, huawei)
    }

    /// The keys of its rules, with an access key.
    pub fn keys(fake: &Fake) -> String {
        format!(
            "kind: huawei, endpoint: \"{}\", huawei: {{ region: {REGION}, access_key: {KEY}, secret_key: \"{SECRET}\" }}",
            fake.url()
        )
    }

    /// The keys of its rules, with the login of `docker login` alone.
    pub fn keys_of_user() -> String {
        format!("kind: huawei, username: \"{USER}\", password: {}", password())
    }

    fn organisations(&self, request: &Asking, path: &str) -> Asked {
        match request.basic() {
            Some((user, password)) if self.judged(&user, &password) == Login::Good => {}
            _ => return Asked::Wrong("organisations are asked for by user and password".to_owned()),
        }
        let mut organisations = lock(&self.organisations);
        match (request.method.as_str(), path.strip_prefix("namespaces/")) {
            ("GET", Some(name)) => {
                // One that is missing has no name.
                let name = organisations.get(name).map_or("", String::as_str);
                Asked::Answer(document(200, &json!({ "id": 1, "name": name, "auth": 7 })))
            }
            ("POST", None) if path == "namespaces" => {
                let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
                let Some(name) = asked["namespace"].as_str() else {
                    return Asked::Wrong("an organisation without a name".to_owned());
                };
                match organisations.insert(name.to_owned()) {
                    true => Asked::Answer(document(201, &json!({}))),
                    false => Asked::Answer(document(409, &json!({ "errors": [{ "message": "it exists" }] }))),
                }
            }
            _ => Asked::Wrong("the API has no such path".to_owned()),
        }
    }

    /// The key that signed a request which it may send.
    fn signed(&self, request: &Asking) -> Result<String, Asked> {
        let gateway = |message: &str| {
            let said = format!("Incorrect IAM authentication information: {message}");
            let body = json!({ "error_msg": said, "error_code": "APIGW.0301", "request_id": "f1" });
            Asked::Answer(document(401, &body))
        };
        let key = match self.signatures.check(request) {
            Signature::Good(key) => key,
            Signature::Mismatch => return Err(gateway("verify aksk signature fail")),
            Signature::Expired => return Err(gateway("calc ak sk signature fail:signature expired")),
            Signature::Wrong(why) => return Err(Asked::Wrong(why)),
        };
        match lock(&self.forbidden).iter().any(|end| request.path.ends_with(end)) {
            true => Err(refused(403, "SVCSTG.SWR.4030170", "Insufficient permissions")),
            false => Ok(key),
        }
    }

    /// One page of a list, from where the last one ended or from the first entry.
    fn page(&self, request: &Asking, all: &[Value]) -> Asked {
        let number = |name: &str| request.parameter(name).and_then(|text| text.parse::<usize>().ok());
        let (Some(limit), Some(offset)) = (number("limit"), number("offset")) else {
            return Asked::Wrong("limit and offset go together".to_owned());
        };
        if !(1..=PAGE).contains(&limit) || !offset.is_multiple_of(limit) {
            return Asked::Wrong(format!("{limit} from {offset} on are no page"));
        }
        let most = match self.most.load(Ordering::Relaxed) {
            0 => limit,
            most => limit.min(most),
        };
        let end = all.len().min(offset + most);
        let before = lock(&self.pages).insert(request.path.clone(), end);
        // Who is not told how many there are looks behind the last.
        let behind = match self.without_totals.load(Ordering::Relaxed) {
            true => offset > all.len(),
            false => offset >= all.len(),
        };
        if offset != 0 && (before != Some(offset) || behind) {
            return Asked::Wrong(format!("a page from {offset} on, after one to {before:?}"));
        }
        let shown: Vec<&Value> = all.iter().skip(offset).take(most).collect();
        let range = format!("{offset}-{}/{}", shown.len(), all.len());
        let answer = document(200, &json!(shown));
        Asked::Answer(match self.without_totals.load(Ordering::Relaxed) {
            true => answer,
            false => with_header(answer, "content-range", &range),
        })
    }

    /// Tags and their digests, as they are when a page is asked for; `None` for a repository that is not there.
    fn tags(&self, book: &Book, repository: &str, is_first: bool) -> Option<Vec<Value>> {
        let held = book.registry.manifests(&repository.parse().ok()?)?;
        let children = self.lists_children.load(Ordering::Relaxed);
        let mut tags: Vec<(String, String)> = Vec::new();
        for entry in &held {
            let document: Value = serde_json::from_slice(&entry.bytes).unwrap_or_default();
            let shown = match document["manifests"][0]["digest"].as_str().filter(|_| children) {
                Some(child) => child.to_owned(),
                None => entry.digest.to_string(),
            };
            let stale = lock(&self.stale);
            let shown = |tag: &str| stale.get(tag).map_or(shown.clone(), ToString::to_string);
            tags.extend(entry.tags.iter().map(|tag| (tag.to_string(), shown(tag.as_str()))));
        }
        tags.sort();
        if self.shifts.load(Ordering::Relaxed) {
            match is_first {
                true => _ = tags.pop(),
                false => _ = tags.remove(0),
            }
        }
        let shown = tags.into_iter().map(|(tag, digest)| {
            json!({ "id": 1, "repo_id": 1, "Tag": tag, "image_id": "", "digest": digest, "schema": 2, "tag_type": 0,
                    "updated": "2024-06-13T07:59:31.192387Z" })
        });
        Some(shown.collect())
    }

    fn api(&self, book: &Book, request: &Asking, path: &str) -> Result<Asked, Asked> {
        let key = self.signed(request)?;
        let get = request.method == Method::GET;
        if let Some(rest) = path
            .strip_prefix("namespaces/")
            .and_then(|path| path.strip_suffix("/tags"))
        {
            let parts: Vec<&str> = rest.split('/').collect();
            let [organisation, "repos", name] = parts.as_slice() else {
                return Err(Asked::Wrong("a slash of a name is written as a dollar".to_owned()));
            };
            let name = format!("{organisation}/{}", name.replace('$', "/"));
            let is_first = request.parameter("offset").as_deref() == Some("0");
            return match self.tags(book, &name, is_first) {
                _ if !get => Err(Asked::Wrong("tags are read".to_owned())),
                Some(tags) => Ok(self.page(request, &tags)),
                None if self.missing_is_empty.load(Ordering::Relaxed) => Ok(self.page(request, &[])),
                None => Err(refused(404, "SVCSTG.SWR.4040402", "Repository does not exist")),
            };
        }
        match path {
            "repos" if get => {
                let within = request.parameter("namespace").unwrap_or_default();
                let names = book.registry.repositories();
                let shown = names.iter().filter_map(|name| {
                    let (organisation, name) = name.as_str().split_once('/')?;
                    // By a part of the name.
                    organisation
                        .contains(&within)
                        .then(|| json!({ "namespace": organisation, "name": name, "num_images": 1, "tags": ["v1"] }))
                });
                let shown: Vec<Value> = shown.collect();
                Ok(self.page(request, &shown))
            }
            "utils/secret" if request.method == Method::POST => {
                if request.parameter("projectname").as_deref() != Some(REGION) {
                    return Err(Asked::Wrong("a login for another project".to_owned()));
                }
                let number = self.logins.fetch_add(1, Ordering::Relaxed) + 1;
                let login = STANDARD.encode(format!("{REGION}@{key}:temporary-{number}"));
                let ends = Clock::system().now() + SignedDuration::from_hours(24);
                let answer = document(200, &json!({ "auths": { "swr.fake.example": { "auth": login } } }));
                Ok(Asked::Answer(with_header(answer, "x-swr-expireat", &ends.to_string())))
            }
            _ => Err(Asked::Wrong("the API has no such path".to_owned())),
        }
    }

    fn judged(&self, user: &str, secret: &str) -> Login {
        let last = format!("temporary-{}", self.logins.load(Ordering::Relaxed));
        let temporary = format!("{REGION}@{}", TEMPORARY.0);
        match (user, secret) {
            (USER, secret) if secret == password() => Login::Good,
            (user, secret) if user == temporary && secret == last => Login::Good,
            // By a secret that is not the key's.
            (USER, _) => Login::Ended,
            _ => Login::Other,
        }
    }
}

/// A refusal of the API, in both of its forms.
fn refused(status: u16, code: &str, message: &str) -> Asked {
    let body = json!({
        "errors": [{ "errorCode": code, "errorMessage": message, "detail": "" }], "error_code": code, "error_msg": message,
    });
    Asked::Answer(document(status, &body))
}

impl Face for Arc<Huawei> {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        if let Some(path) = request.path.strip_prefix("/dockyard/v2/") {
            return self.organisations(request, path);
        }
        if let Some(path) = request.path.strip_prefix("/v2/manage/") {
            return self.api(book, request, path).unwrap_or_else(|refused| refused);
        }
        if let Some(asked) = self
            .tokens
            .guard(book, request, |user, secret| self.judged(user, secret))
        {
            return asked;
        }
        let organisation = request
            .path
            .strip_prefix("/v2/")
            .and_then(|path| path.split('/').next());
        let there = organisation.is_some_and(|name| lock(&self.organisations).contains(name));
        if request.writes() && request.method != Method::DELETE && !there {
            return Asked::Answer(refusal(
                403,
                "DENIED",
                "you do not have the permission, or the namespace is missing",
            ));
        }
        Asked::Pass
    }

    fn throttled(&self, request: &Asking) -> Response {
        match request.path.starts_with("/v2/manage/") {
            true => {
                let message = "The throttling threshold has been reached: policy user over ratelimit";
                document(
                    429,
                    &json!({ "error_msg": message, "error_code": "APIGW.0308", "request_id": "f2" }),
                )
            }
            false => refusal(429, "TOOMANYREQUESTS", "too many requests"),
        }
    }
}
