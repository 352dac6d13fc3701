//! Fakes of Alibaba Cloud Container Registry: the enterprise edition (API of 2018-12-01) and the personal one (2016-06-07).

#![expect(
    clippy::result_large_err,
    reason = "what ends the judging early is an answer as any other"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use axum::response::Response;
use http::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};
use transship::clock::Clock;
use transship::demo::registry::Options;

use super::acs3::{Signature, Signatures};
use super::token::{Tokens, Worth};
use super::{Asked, Asking, Book, Face, Fake, document, lock, refusal};

pub const KEY: &str = "LTAItest";
pub const SECRET: &str = "alibaba-secret-0123456789";
pub const INSTANCE: &str = "cri-test";
pub const OIDC_TOKEN: &str = "eyJvaWRj.token.of-the-cluster";
/// The only one that may be taken on.
pub const ROLE: &str = "acs:ram::1234:role/replicator";
const USER: &str = "cr_temp_user";
const ENTERPRISE: &str = "2018-12-01";
const PERSONAL: &str = "2016-06-07";
const STS: &str = "2015-04-01";
/// Entries of a page at most.
const PAGE: usize = 100;

/// What the tests of a fake turn, beside those of the frame.
#[derive(Default)]
pub struct Cloud {
    pub signatures: Signatures,
    /// Namespaces, and whether a push makes a repository in them.
    pub namespaces: Mutex<BTreeMap<String, bool>>,
    pub repositories: Mutex<BTreeMap<String, Value>>,
    /// Actions that the key may not do.
    pub forbidden: Mutex<BTreeSet<String>>,
    /// Artifacts with an empty config are refused.
    pub images_only: AtomicBool,
    /// After the first page of tags the first tag is deleted and the last one pushed.
    pub shifts: AtomicBool,
    logins: AtomicU32,
    sessions: AtomicU32,
}

struct Alibaba {
    cloud: std::sync::Arc<Cloud>,
    tokens: Tokens,
    personal: bool,
    /// It is asked by these alone.
    names: Option<&'static Names>,
}

/// Hosts of an instance of the enterprise edition, and of what stands beside it.
pub struct Names {
    pub registry: &'static str,
    /// Of its realm, with the scheme.
    pub realm: &'static str,
    pub api: &'static str,
}

impl Names {
    fn host_of(&self, path: &str) -> &str {
        match path {
            "/auth" => self.realm.trim_start_matches("https://"),
            path if path.starts_with("/v2/") => self.registry,
            _ => self.api,
        }
    }
}

/// help.aliyun.com, "Endpoints" and "Configure network access": public, and inside a VPC.
pub const PUBLIC: Names = Names {
    registry: "corp-registry.cn-shanghai.cr.aliyuncs.com",
    realm: "https://dockerauth.cn-shanghai.aliyuncs.com",
    api: "cr.cn-shanghai.aliyuncs.com",
};
pub const VPC: Names = Names {
    registry: "corp-registry-vpc.cn-shanghai.cr.aliyuncs.com",
    realm: "https://dockerauth-vpc.cn-shanghai.aliyuncs.com",
    api: "cr-vpc.cn-shanghai.aliyuncs.com",
};

/// A fake of the enterprise edition that is asked by its own names.
pub async fn enterprise_as(names: &'static Names) -> (Fake, std::sync::Arc<Cloud>) {
    start("registry.aliyuncs.com:cn-shanghai:china:cri-test", false, Some(names)).await
}

/// A fake of the enterprise edition.
pub async fn enterprise() -> (Fake, std::sync::Arc<Cloud>) {
    start("registry.aliyuncs.com:cn-test:china:cri-test", false, None).await
}

/// A fake of the personal edition.
pub async fn personal() -> (Fake, std::sync::Arc<Cloud>) {
    start("registry.aliyuncs.com:cn-test:26842", true, None).await
}

async fn start(service: &'static str, personal: bool, names: Option<&'static Names>) -> (Fake, std::sync::Arc<Cloud>) {
    let cloud = std::sync::Arc::new(Cloud::default());
    cloud.signatures.add(KEY, SECRET, None);
    let tokens = Tokens::new("/auth", service);
    let face = Alibaba {
        cloud: std::sync::Arc::clone(&cloud),
        tokens: match names {
            Some(names) => tokens.at(names.realm),
            None => tokens,
        },
        personal,
        names,
    };
    let url = names.map(|names| format!("https://{}", names.registry));
    (Fake::start_as(face, Options::default(), url).await, cloud)
}

/// What stands in the rules for a fake, beside its address.
pub fn keys(fake: &Fake, kind: &str) -> String {
    format!(
        "kind: {kind}, endpoint: \"{}\", alibaba: {{ region: cn-test, access_key_id: {KEY}, access_key_secret: \"{SECRET}\" }}",
        fake.url()
    )
}

impl Cloud {
    /// A namespace; `auto` says whether a push makes repositories in it.
    pub fn namespace(&self, name: &str, auto: bool) {
        lock(&self.namespaces).insert(name.to_owned(), auto);
    }

    /// A repository with its namespace.
    pub fn repository(&self, name: &str) {
        let (namespace, _) = name.split_once('/').expect("a namespace");
        lock(&self.namespaces).entry(namespace.to_owned()).or_insert(false);
        lock(&self.repositories).insert(name.to_owned(), json!({}));
    }

    /// Whether the registry has something there, or a push would make it.
    fn takes(&self, book: &Book, name: &str) -> bool {
        let auto = name
            .split_once('/')
            .and_then(|(namespace, _)| lock(&self.namespaces).get(namespace).copied());
        self.has(book, name) || auto == Some(true)
    }

    /// All that were made by calls and by pushes.
    fn names(&self, book: &Book) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = lock(&self.repositories).keys().cloned().collect();
        names.extend(book.registry.repositories().iter().map(ToString::to_string));
        names
    }

    fn has(&self, book: &Book, name: &str) -> bool {
        let held = || name.parse().is_ok_and(|name| book.registry.manifests(&name).is_some());
        lock(&self.repositories).contains_key(name) || held()
    }
}

fn refused(status: u16, code: &str) -> Asked {
    Asked::Answer(document(
        status,
        &json!({ "Code": code, "Message": format!("{code}, says the fake"), "RequestId": "F0", "IsSuccess": false }),
    ))
}

fn answered(mut value: Value) -> Asked {
    value["RequestId"] = "F1".into();
    Asked::Answer(document(200, &value))
}

/// One page of a list, by numbers from 1.
fn page<T: Clone>(request: &Asking, number: &str, all: &[T]) -> Result<Vec<T>, Asked> {
    let count = |name: &str| request.parameter(name).and_then(|text| text.parse::<usize>().ok());
    match (count(number), count("PageSize")) {
        (Some(page @ 1..), Some(size @ 1..=PAGE)) if (page - 1) * size < all.len().max(1) => {
            Ok(all.iter().skip((page - 1) * size).take(size).cloned().collect())
        }
        _ => Err(Asked::Wrong("no page of the list".to_owned())),
    }
}

/// Tag, hex digest and the time of each tag.
fn tags(book: &Book, repository: &str) -> Vec<(String, String)> {
    let held = repository.parse().ok().and_then(|name| book.registry.manifests(&name));
    let mut tags: Vec<(String, String)> = held
        .unwrap_or_default()
        .iter()
        .flat_map(|held| {
            held.tags
                .iter()
                .map(|tag| (tag.to_string(), held.digest.hex().to_owned()))
        })
        .collect();
    tags.sort();
    tags
}

impl Alibaba {
    fn signed(&self, request: &Asking, version: &str, action: &str) -> Result<(), Asked> {
        match self.cloud.signatures.check(request, version, action) {
            Signature::Good(_) if lock(&self.cloud.forbidden).contains(action) => Err(refused(403, "Forbidden.RAM")),
            Signature::Good(_) => Ok(()),
            Signature::Again => Err(refused(400, "SignatureNonceUsed")),
            Signature::Unknown(id) if id.starts_with("STS.") => Err(refused(400, "InvalidSecurityToken.Expired")),
            Signature::Unknown(_) => Err(refused(404, "InvalidAccessKeyId.NotFound")),
            Signature::Wrong(why) => Err(Asked::Wrong(why)),
        }
    }

    /// All tags of a repository as they are when a page is asked for by this parameter.
    fn tags(&self, book: &Book, request: &Asking, number: &str, repository: &str) -> Vec<(String, String)> {
        let mut all = tags(book, repository);
        match request.parameter(number).as_deref() {
            _ if !self.cloud.shifts.load(Ordering::Relaxed) => {}
            Some("1") => _ = all.pop(),
            _ => _ = all.remove(0),
        }
        all
    }

    fn new_login(&self) -> (String, i64) {
        let number = self.cloud.logins.fetch_add(1, Ordering::Relaxed) + 1;
        let ends = Clock::system().now() + SignedDuration::from_hours(1);
        (format!("temporary-{number}"), ends.as_millisecond())
    }

    fn new_session(&self) -> Value {
        let number = self.cloud.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let (id, secret, token) = (
            format!("STS.{number}"),
            format!("session-secret-{number}"),
            format!("session/token+{number}=="),
        );
        self.cloud.signatures.add(&id, &secret, Some(&token));
        let ends = Clock::system().now() + SignedDuration::from_hours(1);
        let ends = ends.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        json!({ "Credentials": {
            "AccessKeyId": id, "AccessKeySecret": secret, "SecurityToken": token, "Expiration": ends,
        } })
    }

    fn sts(&self, request: &Asking) -> Result<Asked, Asked> {
        if request.method != Method::POST {
            return Err(Asked::Wrong("STS is asked by POST".to_owned()));
        }
        if request.parameter("Action").as_deref() == Some("AssumeRoleWithOIDC") {
            let form: BTreeMap<String, String> = url::form_urlencoded::parse(&request.body).into_owned().collect();
            let field = |name: &str| form.get(name).map(String::as_str);
            let right = field("OIDCToken") == Some(OIDC_TOKEN)
                && field("RoleArn") == Some(ROLE)
                && field("OIDCProviderArn") == Some("acs:ram::1234:oidc-provider/cluster")
                && field("RoleSessionName").is_some()
                && request.authorization().is_none()
                && !request.query.contains("Token");
            return match right {
                true => Ok(answered(self.new_session())),
                false => Err(Asked::Wrong("AssumeRoleWithOIDC is not as documented".to_owned())),
            };
        }
        self.signed(request, STS, "AssumeRole")?;
        match request.parameter("RoleArn").as_deref() {
            Some(ROLE) => Ok(answered(self.new_session())),
            _ => Err(refused(404, "EntityNotExist.Role")),
        }
    }

    fn enterprise(&self, book: &Book, request: &Asking) -> Result<Asked, Asked> {
        let action = request.header("x-acs-action").unwrap_or_default().to_owned();
        self.signed(request, ENTERPRISE, &action)?;
        let parameter = |name: &str| request.parameter(name).unwrap_or_default();
        if parameter("InstanceId") != INSTANCE {
            return Err(refused(200, "INSTANCE_NOT_EXIST"));
        }
        let name = || format!("{}/{}", parameter("RepoNamespaceName"), parameter("RepoName"));
        let named = |id: &str| {
            let name = id.strip_prefix("crr-").filter(|name| self.cloud.has(book, name));
            name.map(str::to_owned)
        };
        match action.as_str() {
            "GetAuthorizationToken" => {
                let (token, ends) = self.new_login();
                Ok(answered(json!({
                    "TempUsername": USER, "AuthorizationToken": token, "ExpireTime": ends, "IsSuccess": true,
                    "Code": "success",
                })))
            }
            "GetRepository" => match self.cloud.has(book, &name()) {
                true => Ok(answered(json!({
                    "RepoId": format!("crr-{}", name()), "RepoName": parameter("RepoName"), "IsSuccess": true,
                    "RepoNamespaceName": parameter("RepoNamespaceName"), "Code": "success",
                }))),
                false => Err(refused(200, "REPO_NOT_EXIST")),
            },
            "ListRepository" => {
                if parameter("RepoStatus") != "NORMAL" {
                    return Err(Asked::Wrong("the status of the repositories is missing".to_owned()));
                }
                let namespace = request.parameter("RepoNamespaceName");
                if let Some(namespace) = &namespace
                    && !lock(&self.cloud.namespaces).contains_key(namespace)
                {
                    return Err(refused(200, "NAMESPACE_NOT_EXIST"));
                }
                let all: Vec<Value> = self
                    .cloud
                    .names(book)
                    .iter()
                    .filter_map(|name| name.split_once('/'))
                    .filter(|(space, _)| namespace.as_deref().is_none_or(|namespace| namespace == *space))
                    .map(|(space, name)| {
                        json!({ "RepoId": format!("crr-{space}/{name}"), "RepoName": name, "RepoNamespaceName": space })
                    })
                    .collect();
                let entries = page(request, "PageNo", &all)?;
                Ok(answered(
                    json!({ "Repositories": entries, "TotalCount": all.len().to_string(), "IsSuccess": true }),
                ))
            }
            "ListRepoTag" => {
                let Some(name) = named(&parameter("RepoId")) else {
                    return Err(refused(200, "REPO_NOT_EXIST"));
                };
                let all = self.tags(book, request, "PageNo", &name);
                let images = page(request, "PageNo", &all)?.into_iter().map(|(tag, digest)| {
                    json!({ "Tag": tag, "Digest": digest, "ImageUpdate": "1537781384000", "Status": "NORMAL" })
                });
                let images: Vec<Value> = images.collect();
                Ok(answered(
                    json!({ "Images": images, "TotalCount": all.len().to_string(), "IsSuccess": true }),
                ))
            }
            "CreateNamespace" => {
                let auto = parameter("AutoCreateRepo") == "true";
                if !["PRIVATE", "PUBLIC"].contains(&parameter("DefaultRepoType").as_str()) {
                    return Err(Asked::Wrong("the type of the repositories is missing".to_owned()));
                }
                let namespace = parameter("NamespaceName");
                match lock(&self.cloud.namespaces).insert(namespace, auto) {
                    None => Ok(answered(json!({ "IsSuccess": true }))),
                    Some(_) => Err(refused(200, "NAMESPACE_ALREADY_EXIST")),
                }
            }
            "CreateRepository" => {
                if parameter("Summary").is_empty() {
                    return Err(Asked::Wrong("the summary is missing".to_owned()));
                }
                if !lock(&self.cloud.namespaces).contains_key(&parameter("RepoNamespaceName")) {
                    return Err(refused(200, "NAMESPACE_NOT_EXIST"));
                }
                let made = json!({ "type": parameter("RepoType"), "immutable": request.parameter("TagImmutability") });
                match lock(&self.cloud.repositories).insert(name(), made) {
                    None => Ok(answered(
                        json!({ "RepoId": format!("crr-{}", name()), "IsSuccess": true }),
                    )),
                    Some(_) => Err(refused(200, "REPO_ALREADY_EXIST")),
                }
            }
            _ => Err(Asked::Wrong(format!("{action} is no action"))),
        }
    }

    fn personal(&self, book: &Book, request: &Asking) -> Result<Asked, Asked> {
        let parts: Vec<&str> = request.path.split('/').skip(1).collect();
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let small = |code: &str| {
            Err(Asked::Answer(document(
                404,
                &json!({ "code": code, "message": "so it is", "requestId": "F2" }),
            )))
        };
        match (request.method.clone(), parts.as_slice()) {
            (Method::GET, ["tokens"]) => {
                self.signed(request, PERSONAL, "GetAuthorizationToken")?;
                let (token, ends) = self.new_login();
                Ok(Asked::Answer(document(
                    200,
                    &json!({ "data": { "tempUserName": USER, "authorizationToken": token, "expireDate": ends }, "requestId": "F" }),
                )))
            }
            (Method::GET, ["repos", namespace @ ..]) if namespace.len() < 2 => {
                let action = if namespace.is_empty() {
                    "GetRepoList"
                } else {
                    "GetRepoListByNamespace"
                };
                self.signed(request, PERSONAL, action)?;
                let all: Vec<Value> = self
                    .cloud
                    .names(book)
                    .iter()
                    .filter_map(|name| name.split_once('/'))
                    .filter(|(space, _)| namespace.is_empty() || namespace == [*space])
                    .map(|(space, name)| json!({ "repoNamespace": space, "repoName": name }))
                    .collect();
                let entries = page(request, "Page", &all)?;
                Ok(answered(
                    json!({ "data": { "total": all.len(), "page": 1, "pageSize": PAGE, "repos": entries } }),
                ))
            }
            (Method::GET, ["repos", namespace, name, "tags"]) => {
                self.signed(request, PERSONAL, "GetRepoTags")?;
                let name = format!("{namespace}/{name}");
                if !self.cloud.has(book, &name) {
                    return small("REPO_NOT_EXIST");
                }
                let all = self.tags(book, request, "Page", &name);
                let entries = page(request, "Page", &all)?
                    .into_iter()
                    .map(|(tag, digest)| json!({ "tag": tag, "digest": digest, "imageUpdate": 1_537_781_384_000_i64 }));
                let entries: Vec<Value> = entries.collect();
                Ok(answered(
                    json!({ "data": { "total": all.len(), "page": 1, "pageSize": PAGE, "tags": entries } }),
                ))
            }
            (Method::PUT, ["namespace"]) => {
                self.signed(request, PERSONAL, "CreateNamespace")?;
                let Some(namespace) = body["Namespace"]["Namespace"].as_str() else {
                    return Err(Asked::Wrong("no namespace".to_owned()));
                };
                lock(&self.cloud.namespaces).insert(namespace.to_owned(), false);
                Ok(answered(json!({ "data": { "namespaceId": 1 } })))
            }
            (Method::PUT, ["repos"]) => {
                self.signed(request, PERSONAL, "CreateRepo")?;
                let text = |name: &str| body["Repo"][name].as_str().unwrap_or_default().to_owned();
                if text("Summary").is_empty() || !["PRIVATE", "PUBLIC"].contains(&text("RepoType").as_str()) {
                    return Err(Asked::Wrong("no summary or no type".to_owned()));
                }
                if !lock(&self.cloud.namespaces).contains_key(&text("RepoNamespace")) {
                    return small("NAMESPACE_NOT_EXIST");
                }
                let name = format!("{}/{}", text("RepoNamespace"), text("RepoName"));
                lock(&self.cloud.repositories).insert(name, json!({ "type": text("RepoType") }));
                Ok(answered(json!({ "data": { "repoId": 1 } })))
            }
            _ => Err(Asked::Wrong("no path of the API".to_owned())),
        }
    }

    fn data_plane(&self, book: &Book, request: &Asking) -> Result<Asked, Asked> {
        if self.tokens.is_realm(request) {
            let last = format!("temporary-{}", self.cloud.logins.load(Ordering::Relaxed));
            let user = match request.basic() {
                None => None,
                Some((user, password)) if user == USER && password == last => Some(user),
                Some(_) => return Err(Asked::Answer(refusal(401, "UNAUTHORIZED", "authentication failed"))),
            };
            let user = user.as_deref();
            return Ok(self.tokens.give(book, request, user, |_, _| user.is_some()));
        }
        match self.tokens.worth(book, request) {
            Worth::Good(_) => {}
            Worth::Unknown => return Err(Asked::Wrong("a token that was not given out".to_owned())),
            _ => {
                return Err(Asked::Answer(self.tokens.challenge(
                    book,
                    request,
                    "authentication required",
                )));
            }
        }
        if request.path == "/v2/_catalog" {
            return Err(Asked::Wrong("there is no catalogue".to_owned()));
        }
        let repository = request.repository().map(str::to_owned);
        let repository = repository.or_else(|| {
            let rest = request.path.strip_prefix("/v2/")?;
            Some(rest.split_once("/blobs/uploads")?.0.to_owned())
        });
        if let Some(repository) = repository
            && !self.cloud.takes(book, &repository)
        {
            return Err(Asked::Answer(refusal(
                404,
                "NAME_UNKNOWN",
                "repository name not known to registry",
            )));
        }
        let empty = "application/vnd.oci.empty.v1+json";
        if self.cloud.images_only.load(Ordering::Relaxed)
            && request.method == Method::PUT
            && request.reference().is_some()
            && serde_json::from_slice::<Value>(&request.body).is_ok_and(|body| body["config"]["mediaType"] == empty)
        {
            let message = format!("unknown manifest class for {empty}");
            return Err(Asked::Answer(refusal(403, "DENIED", &message)));
        }
        Ok(Asked::Pass)
    }
}

impl Face for Alibaba {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        if let Some(names) = self.names {
            let (host, asked) = (names.host_of(&request.path), request.header("host").unwrap_or_default());
            if host != asked {
                return Asked::Wrong(format!("it is at {host}, and was asked for at {asked}"));
            }
        }
        let asked = match request.path.as_str() {
            "/sts/" => self.sts(request),
            path if path.starts_with("/v2/") || path == "/auth" => self.data_plane(book, request),
            _ if self.personal => self.personal(book, request),
            "/" if request.method == Method::POST && request.body.is_empty() => self.enterprise(book, request),
            _ => Err(Asked::Wrong("no path of the API".to_owned())),
        };
        asked.unwrap_or_else(|refused| refused)
    }

    fn throttled(&self, request: &Asking) -> Response {
        if request.path.starts_with("/v2/") {
            return refusal(429, "TOOMANYREQUESTS", "too many requests");
        }
        // Whether such a request uses up its nonce is not documented: here it does.
        self.signatures().use_up(request);
        document(
            400,
            &json!({ "Code": "Throttling.User", "Message": "Request was denied due to user flow control." }),
        )
    }

    /// help.aliyun.com, "Configure a repository to be immutable"; status and code are not documented.
    fn immutable(&self, _tag: &str) -> Option<Response> {
        let message = "The requested tag already exists and cannot be overwritten.";
        (!self.personal).then(|| refusal(403, "DENIED", message))
    }
}

impl Alibaba {
    fn signatures(&self) -> &Signatures {
        &self.cloud.signatures
    }
}
