//! ECR Public: the registry and its token server, and at `/` the API (botocore's model `ecr-public`, 2020-10-30; AWS's
//! "Service quotas" of ECR Public). The challenge is as it is said to be; nobody could ask AWS.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use transship::demo::registry::Options;

use super::token::{Tokens, Worth};
use super::{Asked, Asking, Book, Face, Fake, document, lock, refusal, with_header};
use crate::support::aws::KEY;
use crate::support::aws::sigv4;

/// What our repositories' names begin with.
pub const ALIAS: &str = "ours";
/// The password of the user `AWS`.
const PASSWORD: &str = "ecr-public-token";
const MIB: u64 = 1024 * 1024;

pub struct EcrPublic {
    tokens: Tokens,
    /// Actions that the key may not do.
    pub forbidden: Mutex<BTreeSet<String>>,
    /// Those that were made and have no image yet.
    made: Mutex<BTreeSet<String>>,
    /// Marks of pages that were given out.
    marks: Mutex<BTreeMap<String, usize>>,
}

impl EcrPublic {
    pub async fn start() -> (Fake, Arc<Self>) {
        let public = Arc::new(Self {
            tokens: Tokens::new("/token/", "public.ecr.aws"),
            forbidden: Mutex::default(),
            made: Mutex::default(),
            marks: Mutex::default(),
        });
        (Fake::start(Arc::clone(&public), Options::default()).await, public)
    }

    /// The keys of its rules.
    pub fn keys(fake: &Fake) -> String {
        format!(
            "kind: ecr_public, endpoint: \"{}\", aws: {{ region: eu-west-1, access_key_id: {}, secret_access_key: \"{}\" }}",
            fake.url(),
            KEY.0,
            KEY.1
        )
    }

    fn exists(&self, book: &Book, repository: &str) -> bool {
        let held = repository.parse().ok().and_then(|name| book.registry.manifests(&name));
        held.is_some() || lock(&self.made).contains(repository)
    }

    fn api(&self, book: &Book, request: &Asking, action: &str) -> Asked {
        if let Err(why) = signed(request) {
            return Asked::Wrong(why);
        }
        if lock(&self.forbidden).contains(action) {
            return fault("AccessDeniedException");
        }
        let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let repository = format!("{ALIAS}/{}", asked["repositoryName"].as_str().unwrap_or_default());
        match action {
            "GetAuthorizationToken" => {
                let token = STANDARD.encode(format!("AWS:{PASSWORD}"));
                let token = json!({ "authorizationToken": token, "expiresAt": 4_102_444_800.0 });
                Asked::Answer(document(200, &json!({ "authorizationData": token })))
            }
            "DescribeRegistries" => {
                let registry = json!({ "registryId": "123456789012", "aliases": [{ "name": ALIAS }] });
                Asked::Answer(document(200, &json!({ "registries": [registry] })))
            }
            "DescribeRepositories" => self.repositories(book, &asked),
            "CreateRepository" if self.exists(book, &repository) => fault("RepositoryAlreadyExistsException"),
            "CreateRepository" => {
                lock(&self.made).insert(repository);
                Asked::Answer(document(200, &json!({ "repository": {} })))
            }
            "BatchCheckLayerAvailability" if !self.exists(book, &repository) => fault("RepositoryNotFoundException"),
            "BatchCheckLayerAvailability" => layers(book, &asked, &repository),
            "DescribeImageTags" if !self.exists(book, &repository) => fault("RepositoryNotFoundException"),
            "DescribeImageTags" => self.tags(book, &asked, &repository),
            _ => Asked::Wrong(format!("an action that nobody needs: {action}")),
        }
    }

    fn repositories(&self, book: &Book, asked: &Value) -> Asked {
        if asked["maxResults"] != 1000 || !asked["nextToken"].is_null() {
            return Asked::Wrong(format!("a page of {asked}, and there is one only"));
        }
        let names = book.registry.repositories();
        let ours = names
            .iter()
            .filter_map(|name| name.as_str().strip_prefix(ALIAS)?.strip_prefix('/'));
        let listed: Vec<Value> = ours.map(|name| json!({ "repositoryName": name })).collect();
        Asked::Answer(document(200, &json!({ "repositories": listed })))
    }

    fn tags(&self, book: &Book, asked: &Value, repository: &str) -> Asked {
        let from = match asked["nextToken"].as_str() {
            None => 0,
            Some(mark) => match lock(&self.marks).remove(mark) {
                Some(from) => from,
                None => return Asked::Wrong("a page that was not given out, or was read before".to_owned()),
            },
        };
        let Some(size @ 1..=1000) = asked["maxResults"].as_u64() else {
            return Asked::Wrong("a page has 1 to 1000 tags".to_owned());
        };
        let held = repository.parse().ok().and_then(|name| book.registry.manifests(&name));
        let mut tags: Vec<Value> = Vec::new();
        for held in held.unwrap_or_default() {
            let detail = json!({
                "imageDigest": held.digest, "imageManifestMediaType": held.media_type, "imagePushedAt": 1_767_225_600.25,
            });
            let tagged = held.tags.iter();
            tags.extend(tagged.map(|tag| json!({ "imageTag": tag, "imageDetail": detail })));
        }
        let to = tags.len().min(from + size as usize);
        let mut answer = json!({ "imageTagDetails": tags[from..to] });
        if to < tags.len() {
            let mark = format!("opaque/{repository}+{to}==");
            answer["nextToken"] = mark.as_str().into();
            lock(&self.marks).insert(mark, to);
        }
        Asked::Answer(document(200, &answer))
    }
}

fn layers(book: &Book, asked: &Value, repository: &str) -> Asked {
    let digests = asked["layerDigests"].as_array().into_iter().flatten();
    let digests: BTreeSet<&str> = digests.filter_map(Value::as_str).collect();
    if !(1..=100).contains(&digests.len()) || asked["layerDigests"].as_array().map(Vec::len) != Some(digests.len()) {
        return Asked::Wrong(format!("layers that are too many, or not distinct: {asked}"));
    }
    let layer = |digest: &&str| {
        let known = repository.parse().ok().zip(digest.parse().ok());
        let held = known.and_then(|(name, digest)| book.registry.blob(&name, &digest));
        let availability = if held.is_some() { "AVAILABLE" } else { "UNAVAILABLE" };
        json!({ "layerDigest": digest, "layerAvailability": availability })
    };
    let layers: Vec<Value> = digests.iter().map(layer).collect();
    Asked::Answer(document(200, &json!({ "layers": layers, "failures": [] })))
}

fn fault(code: &str) -> Asked {
    let name = format!("com.amazonaws.ecrpublic#{code}");
    Asked::Answer(document(400, &json!({ "__type": name, "message": "because" })))
}

/// A request to the realm without the scope of the challenge, which names no repository.
fn without_aws(request: &Asking) -> Asking {
    let pairs = url::form_urlencoded::parse(request.query.as_bytes()).into_owned();
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in pairs {
        let scopes: Vec<&str> = value.split(' ').filter(|scope| *scope != "aws").collect();
        match (name.as_str(), scopes.is_empty()) {
            ("scope", true) => {}
            ("scope", false) => {
                query.append_pair(&name, &scopes.join(" "));
            }
            _ => {
                query.append_pair(&name, &value);
            }
        }
    }
    Asking {
        query: query.finish(),
        ..request.clone()
    }
}

/// All tokens and registries are in one region.
fn signed(request: &Asking) -> Result<(), String> {
    let mut asked = http::Request::builder()
        .method(request.method.clone())
        .uri(request.target())
        .body(())
        .expect("a request");
    *asked.headers_mut() = request.headers.clone();
    let keys = BTreeMap::from([(KEY.0.to_owned(), (KEY.1.to_owned(), None))]);
    let (head, ()) = asked.into_parts();
    match sigv4::check(&head, &request.body, "ecr-public", "us-east-1", &keys) {
        Ok(_) => Ok(()),
        Err(sigv4::Bad::UnknownKey) => Err("another key than the rules have".to_owned()),
        Err(sigv4::Bad::Wrong(why)) => Err(why),
    }
}

impl Face for Arc<EcrPublic> {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        if let Some(target) = request.header("x-amz-target") {
            return match target.strip_prefix("SpencerFrontendService.") {
                Some(action) if request.path == "/" && request.method == Method::POST => {
                    self.api(book, request, action)
                }
                _ => Asked::Wrong(format!("an unknown target {target}")),
            };
        }
        if self.tokens.is_realm(request) {
            let user = match request.basic() {
                Some((user, password)) if user == "AWS" && password == PASSWORD => Some(user),
                Some(_) => return Asked::Wrong("another login than the API gave out".to_owned()),
                None => None,
            };
            let known = user.is_some();
            let granted = |repository: &str, action: &str| {
                action == "pull" || (known && repository.split('/').next() == Some(ALIAS))
            };
            return self.tokens.give(book, &without_aws(request), user.as_deref(), granted);
        }
        match self.tokens.worth(book, request) {
            Worth::Good(_) => {}
            Worth::Missing | Worth::Ended | Worth::Lacks(_) => {
                // It asks for the same scope whatever the request needs.
                let challenge = format!(
                    "Bearer realm=\"{}/token/\",service=\"public.ecr.aws\",scope=\"aws\"",
                    book.url
                );
                let answer = refusal(401, "DENIED", "Not Authorized");
                return Asked::Answer(with_header(answer, "www-authenticate", &challenge));
            }
            Worth::Unknown => return Asked::Wrong("a token that was not given out".to_owned()),
        }
        if request.path == "/v2/_catalog" {
            return Asked::Wrong("there is no catalogue".to_owned());
        }
        if let Some(repository) = request.repository()
            && !self.exists(book, repository)
        {
            let message = format!("The repository with name '{repository}' does not exist in the registry");
            return Asked::Answer(refusal(404, "NAME_UNKNOWN", &message));
        }
        let length = request.header("content-length").and_then(|text| text.parse().ok());
        if request.method == Method::PATCH && !length.is_some_and(|length| (5 * MIB..=10 * MIB).contains(&length)) {
            return Asked::Wrong(format!("a piece of {length:?} bytes"));
        }
        Asked::Pass
    }

    fn answered(&self, _book: &Book, request: &Asking, mut answer: Response) -> Response {
        if request.method == Method::PATCH && answer.status() == StatusCode::ACCEPTED {
            *answer.status_mut() = StatusCode::CREATED;
            // It stays at the end of the least first piece.
            return with_header(answer, "range", &format!("0-{}", 5 * MIB - 1));
        }
        answer
    }

    fn throttled(&self, request: &Asking) -> Response {
        match request.header("x-amz-target") {
            Some(_) => document(
                400,
                &json!({ "__type": "ThrottlingException", "message": "Rate exceeded" }),
            ),
            None => refusal(429, "TOOMANYREQUESTS", "Rate exceeded"),
        }
    }
}
