//! Fakes of Tencent Container Registry, both editions (API of 2019-09-24: cloud.tencent.com, product 1141;
//! tencentcloud-sdk-python `tcr/v20190924`; goharbor/harbor, adapter tencentcr).

#![expect(
    clippy::result_large_err,
    reason = "what ends the judging early is an answer as any other"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::response::Response;
use http::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};
use transship::clock::Clock;
use transship::demo::registry::Options;

use super::tc3::{Signature, Signatures};
use super::token::{Login, Tokens};
use super::{Asked, Asking, Book, Face, Fake, document, lock, refusal};
use crate::support::{PASSWORD, USERNAME};

pub const ID: &str = "AKIDtest0123456789";
pub const KEY: &str = "tencent-secret-0123456789";
pub const INSTANCE: &str = "tcr-test";
pub const REGION: &str = "ap-test";
/// A user of the API is a number.
const USER: &str = "100000000001";
/// Entries of a page at most.
const PAGE: u64 = 100;

/// What the tests of a fake turn, beside those of the frame.
#[derive(Default)]
pub struct Cloud {
    pub signatures: Signatures,
    /// Namespaces, and what they were made like.
    pub namespaces: Mutex<BTreeMap<String, Value>>,
    /// Repositories that were made by a call, with what was said of them.
    pub repositories: Mutex<BTreeMap<String, Value>>,
    /// Actions that the key may not do.
    pub forbidden: Mutex<BTreeSet<String>>,
    /// The list of the tags of a missing repository is empty, where it else is refused.
    pub missing_is_empty: AtomicBool,
    /// After the first page of tags the first tag is deleted and the last one pushed.
    pub shifts: AtomicBool,
    /// The list says of an index what its first child is.
    pub lists_children: AtomicBool,
    /// The page that was read last, by list.
    pages: Mutex<BTreeMap<String, u64>>,
    logins: AtomicU32,
}

struct Tencent {
    cloud: Arc<Cloud>,
    tokens: Tokens,
    personal: bool,
}

/// A fake of the enterprise edition.
pub async fn enterprise() -> (Fake, Arc<Cloud>) {
    start(false).await
}

/// A fake of the personal edition.
pub async fn personal() -> (Fake, Arc<Cloud>) {
    start(true).await
}

async fn start(personal: bool) -> (Fake, Arc<Cloud>) {
    let cloud = Arc::new(Cloud::default());
    cloud.signatures.add(ID, KEY, None);
    let face = Tencent {
        cloud: Arc::clone(&cloud),
        tokens: Tokens::new("/service/token", "harbor-registry"),
        personal,
    };
    (Fake::start(face, Options::default()).await, cloud)
}

/// What stands in the rules for a fake, beside its address.
pub fn keys(fake: &Fake, kind: &str) -> String {
    let login = match kind {
        "tencent_personal" => format!("username: {USERNAME}, password: {PASSWORD}, "),
        _ => String::new(),
    };
    let id = match kind {
        "tencent_personal" => String::new(),
        _ => format!("registry_id: {INSTANCE}, "),
    };
    format!(
        "kind: {kind}, {login}endpoint: \"{}\", tencent: {{ {id}region: {REGION}, secret_id: {ID}, secret_key: \"{KEY}\" }}",
        fake.url()
    )
}

impl Cloud {
    /// A namespace, in which pushes make repositories.
    pub fn namespace(&self, name: &str) {
        lock(&self.namespaces).insert(name.to_owned(), json!({}));
    }

    fn has(&self, book: &Book, name: &str) -> bool {
        let held = || name.parse().is_ok_and(|name| book.registry.manifests(&name).is_some());
        lock(&self.repositories).contains_key(name) || held()
    }

    fn has_namespace(&self, name: &str) -> bool {
        lock(&self.namespaces).contains_key(name)
    }

    /// All repositories, of one namespace where that is said.
    fn names(&self, book: &Book, namespace: Option<&str>) -> Vec<String> {
        let mut names: BTreeSet<String> = lock(&self.repositories).keys().cloned().collect();
        names.extend(book.registry.repositories().iter().map(ToString::to_string));
        let within = |name: &String| {
            namespace.is_none_or(|space| name.strip_prefix(space).is_some_and(|rest| rest.starts_with('/')))
        };
        names.into_iter().filter(within).collect()
    }
}

/// Every answer has 200, and stands in `Response`.
fn answered(mut value: Value) -> Asked {
    value["RequestId"] = "F1".into();
    Asked::Answer(document(200, &json!({ "Response": value })))
}

fn refused(code: &str) -> Asked {
    answered(json!({ "Error": { "Code": code, "Message": format!("{code}, says the fake") } }))
}

impl Tencent {
    fn signed(&self, request: &Asking, action: &str) -> Result<(), Asked> {
        let is = |name: &str, value: &str| request.header(name) == Some(value);
        if request.method != Method::POST || !request.query.is_empty() || !is("x-tc-version", "2019-09-24") {
            return Err(Asked::Wrong("the API is asked by POST, of its version".to_owned()));
        }
        if !is("content-type", "application/json; charset=utf-8") {
            return Err(Asked::Wrong("the API takes JSON".to_owned()));
        }
        if action != "DescribeInstances" && !is("x-tc-region", REGION) {
            return Err(refused("UnsupportedRegion"));
        }
        match self.cloud.signatures.check(request, "tcr") {
            Signature::Good if lock(&self.cloud.forbidden).contains(action) => {
                Err(refused("AuthFailure.UnauthorizedOperation"))
            }
            Signature::Good => Ok(()),
            Signature::Unknown => Err(refused("AuthFailure.SecretIdNotFound")),
            Signature::Mismatch => Err(refused("AuthFailure.SignatureFailure")),
            Signature::Wrong(why) => Err(Asked::Wrong(why)),
        }
    }

    /// One page of a list. The enterprise edition numbers pages from 1, the personal one entries from 0. Who lists reads them
    /// in their order, from the first.
    fn page<T: Clone>(&self, list: &str, body: &Value, all: &[T]) -> Result<Vec<T>, Asked> {
        let number = |name: &str| body[name].as_u64();
        let (Some(limit @ 1..=PAGE), Some(offset)) = (number("Limit"), number("Offset")) else {
            return Err(Asked::Wrong(format!("{body} has no page of 100 entries at most")));
        };
        let page = match self.personal {
            false => offset.checked_sub(1),
            true => offset.is_multiple_of(limit).then_some(offset / limit),
        };
        let Some(page) = page else {
            return Err(Asked::Wrong(format!("{body} asks for no page")));
        };
        let before = lock(&self.cloud.pages).insert(list.to_owned(), page);
        if page != 0 && before != Some(page - 1) {
            return Err(Asked::Wrong(format!("page {page} of {list} after {before:?}")));
        }
        let start = usize::try_from(page * limit).expect("a place");
        if start >= all.len().max(1) {
            return Err(Asked::Wrong(format!("{list} has no page {page}")));
        }
        let size = usize::try_from(limit).expect("a size");
        Ok(all.iter().skip(start).take(size).cloned().collect())
    }

    /// Tags and their digests, as they are when a page is asked for.
    fn tags(&self, book: &Book, repository: &str, page: &Value) -> Vec<(String, String)> {
        let held = repository.parse().ok().and_then(|name| book.registry.manifests(&name));
        let held = held.unwrap_or_default();
        let children = self.cloud.lists_children.load(Ordering::Relaxed);
        let mut tags: Vec<(String, String)> = Vec::new();
        for entry in &held {
            let document: Value = serde_json::from_slice(&entry.bytes).unwrap_or_default();
            let shown = match document["manifests"][0]["digest"].as_str().filter(|_| children) {
                Some(child) => child.to_owned(),
                None => entry.digest.to_string(),
            };
            tags.extend(entry.tags.iter().map(|tag| (tag.to_string(), shown.clone())));
        }
        tags.sort();
        if self.cloud.shifts.load(Ordering::Relaxed) {
            match page["Offset"].as_u64() {
                Some(1) => _ = tags.pop(),
                _ => _ = tags.remove(0),
            }
        }
        tags
    }

    fn enterprise(&self, book: &Book, request: &Asking, action: &str, body: &Value) -> Result<Asked, Asked> {
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        if action == "DescribeInstances" {
            let right = body["AllRegion"] == true && body["Offset"] == 0;
            let by_id = body["Registryids"] == json!([INSTANCE]);
            let by_name = body["Filters"] == json!([{ "Name": "RegistryName", "Values": ["corp"] }])
                || body["Filters"] == json!([{ "Name": "RegistryName", "Values": ["corp-vpc", "corp"] }]);
            if !right || by_id == by_name {
                return Err(Asked::Wrong(format!("{body} asks for no instance of ours")));
            }
            return Ok(answered(json!({ "TotalCount": 1, "Registries": [{
                "RegistryId": INSTANCE, "RegistryName": "corp", "PublicDomain": "corp.tencentcloudcr.com",
                "RegionName": REGION, "Status": "Running",
            }] })));
        }
        if text("RegistryId") != INSTANCE {
            return Err(refused("ResourceNotFound"));
        }
        let (namespace, name) = (
            text("NamespaceName"),
            format!("{}/{}", text("NamespaceName"), text("RepositoryName")),
        );
        match action {
            "CreateInstanceToken" if text("TokenType") == "temp" => {
                let number = self.cloud.logins.fetch_add(1, Ordering::Relaxed) + 1;
                let ends = Clock::system().now() + SignedDuration::from_hours(1);
                Ok(answered(json!({
                    "Username": USER, "Token": format!("temporary-{number}"), "ExpTime": ends.as_millisecond(), "TokenId": "",
                })))
            }
            "DescribeImages" => {
                if !self.cloud.has(book, &name) && !self.cloud.missing_is_empty.load(Ordering::Relaxed) {
                    return Err(refused("ResourceNotFound.TcrResourceNotFound"));
                }
                let all = self.tags(book, &name, body);
                let images = self.page(&name, body, &all)?.into_iter().map(|(tag, digest)| {
                    json!({ "ImageVersion": tag, "Digest": digest, "Size": 1033, "Kind": "Image",
                            "UpdateTime": "2024-07-19 07:33:22.915755 +0000 UTC" })
                });
                let images: Vec<Value> = images.collect();
                Ok(answered(json!({ "ImageInfoList": images, "TotalCount": all.len() })))
            }
            "DescribeRepositories" => {
                let namespace = body["NamespaceName"].as_str();
                if namespace.is_some_and(|name| !self.cloud.has_namespace(name)) {
                    return Err(refused("ResourceNotFound.TcrResourceNotFound"));
                }
                let all = self.cloud.names(book, namespace);
                let listed = self.page("repositories", body, &all)?.into_iter().map(|name| {
                    let namespace = name.split('/').next().unwrap_or_default().to_owned();
                    json!({ "Name": name, "Namespace": namespace, "Public": false })
                });
                let listed: Vec<Value> = listed.collect();
                Ok(answered(json!({ "RepositoryList": listed, "TotalCount": all.len() })))
            }
            "CreateNamespace" => {
                if !body["IsPublic"].is_boolean() {
                    return Err(Asked::Wrong("IsPublic is required".to_owned()));
                }
                let made = json!({ "public": body["IsPublic"], "scan": body["IsAutoScan"] });
                match lock(&self.cloud.namespaces).insert(namespace, made) {
                    None => Ok(answered(json!({}))),
                    Some(_) => Err(refused("FailedOperation.ErrorTcrResourceConflict")),
                }
            }
            "CreateRepository" => {
                if !self.cloud.has_namespace(&namespace) {
                    return Err(refused("ResourceNotFound.TcrResourceNotFound"));
                }
                if self.cloud.has(book, &name) {
                    return Err(refused("FailedOperation.ErrorTcrResourceConflict"));
                }
                lock(&self.cloud.repositories).insert(name, json!({}));
                Ok(answered(json!({})))
            }
            _ => Err(Asked::Wrong(format!(
                "{action} is no action, or {body} not for it ({})",
                request.path
            ))),
        }
    }

    fn personal(&self, book: &Book, action: &str, body: &Value) -> Result<Asked, Asked> {
        let name = body["RepoName"].as_str().unwrap_or_default().to_owned();
        match action {
            "DescribeRepositoryOwnerPersonal" | "DescribeRepositoryFilterPersonal" => {
                let namespace = body["Namespace"].as_str();
                if namespace.is_some() != (action == "DescribeRepositoryFilterPersonal") {
                    return Err(Asked::Wrong(format!("{action} with {body}")));
                }
                let all = self.cloud.names(book, namespace);
                let listed = self.page("repositories", body, &all)?;
                let listed = listed
                    .into_iter()
                    .map(|name| json!({ "RepoName": name, "TagCount": 1, "Public": 0 }));
                let listed: Vec<Value> = listed.collect();
                let data = json!({ "RepoInfo": listed, "TotalCount": all.len(), "Server": "ccr.ccs.tencentyun.com" });
                Ok(answered(json!({ "Data": data })))
            }
            "CreateNamespacePersonal" => {
                let Some(namespace) = body["Namespace"].as_str() else {
                    return Err(Asked::Wrong("no Namespace".to_owned()));
                };
                match lock(&self.cloud.namespaces).insert(namespace.to_owned(), json!({})) {
                    None => Ok(answered(json!({}))),
                    Some(_) => Err(refused("InvalidParameter.ErrNamespaceExist")),
                }
            }
            "CreateRepositoryPersonal" => {
                let namespace = name.split('/').next().unwrap_or_default();
                if !self.cloud.has_namespace(namespace) {
                    return Err(refused("ResourceNotFound.ErrNoNamespace"));
                }
                if self.cloud.has(book, &name) {
                    return Err(refused("InvalidParameter.ErrRepoExist"));
                }
                lock(&self.cloud.repositories).insert(name, json!({ "public": body["Public"] }));
                Ok(answered(json!({})))
            }
            _ => Err(Asked::Wrong(format!("{action} is no action, or {body} not for it"))),
        }
    }

    fn api(&self, book: &Book, request: &Asking) -> Result<Asked, Asked> {
        let action = request.header("x-tc-action").unwrap_or_default();
        self.signed(request, action)?;
        let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
            return Err(Asked::Wrong("the body is no JSON".to_owned()));
        };
        match self.personal {
            true => self.personal(book, action, &body),
            false => self.enterprise(book, request, action, &body),
        }
    }

    fn data_plane(&self, book: &Book, request: &Asking) -> Result<Asked, Asked> {
        let last = format!("temporary-{}", self.cloud.logins.load(Ordering::Relaxed));
        let (user, password) = match self.personal {
            true => (USERNAME, PASSWORD),
            false => (USER, last.as_str()),
        };
        let judged = |name: &str, secret: &str| match name == user && secret == password {
            true => Login::Good,
            false => Login::Ended,
        };
        if let Some(asked) = self.tokens.guard(book, request, judged) {
            return Err(asked);
        }
        let repository = request.repository().map(str::to_owned);
        let repository = repository.or_else(|| {
            let rest = request.path.strip_prefix("/v2/")?;
            Some(rest.split_once("/blobs/uploads")?.0.to_owned())
        });
        let namespace = repository.as_deref().and_then(|name| name.split('/').next());
        if namespace.is_some_and(|namespace| !self.cloud.has_namespace(namespace)) {
            return Err(Asked::Answer(refusal(404, "NOT_FOUND", "the namespace is missing")));
        }
        Ok(Asked::Pass)
    }
}

impl Face for Tencent {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        let asked = match request.path.as_str() {
            "/" => self.api(book, request),
            _ => self.data_plane(book, request),
        };
        asked.unwrap_or_else(|refused| refused)
    }

    fn throttled(&self, request: &Asking) -> Response {
        match request.path.as_str() {
            "/" => document(
                200,
                &json!({ "Response": {
                    "Error": { "Code": "RequestLimitExceeded", "Message": "Your current request times exceed the limit" },
                    "RequestId": "F2",
                } }),
            ),
            _ => refusal(429, "TOOMANYREQUESTS", "too many requests"),
        }
    }

    /// As Harbor says it.
    fn immutable(&self, tag: &str) -> Option<Response> {
        let message = format!("Failed to process request due to '{tag}' configured as immutable.");
        (!self.personal).then(|| refusal(412, "PRECONDITION", &message))
    }
}
