//! A strict stand-in for AWS: the API of ECR, STS, the services that give a machine its role, and a registry with ECR's
//! habits. Signatures are checked by code of its own.

mod registry;
pub mod sigv4;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::request::Parts;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use registry::Stored;

/// The account, and so the registry's id.
pub const ACCOUNT: &str = "123456789012";
pub const REGION: &str = "eu-west-1";
/// Who may do everything, and his secret.
pub const KEY: (&str, &str) = ("AKIDEXAMPLE00000", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");

/// What may be changed, and what was seen.
#[derive(Default)]
pub struct Book {
    /// Access keys: the secret, and the session token that goes with it.
    pub keys: BTreeMap<String, (String, Option<String>)>,
    pub repositories: BTreeMap<String, Stored>,
    /// Requests of the API by action.
    pub actions: Vec<(String, Value)>,
    /// Requests to STS by form, and to the services of the machine by path.
    pub others: Vec<String>,
    /// Tokens given out; only the last is good.
    pub tokens: usize,
    /// `expiresAt` of tokens, in seconds since 1970; by default half a day from a day in 2026.
    pub ends: Option<f64>,
    /// Answers to these actions, used up: status, `__type`.
    pub refusals: BTreeMap<String, Vec<(u16, String)>>,
    /// After a page that is not the last of a list: this tag of a repository names this image from then on.
    pub moves: Option<(String, String, String)>,
    /// The registry has a template that makes what is pushed to (ECR user guide, "Repository creation templates", create on push).
    pub creates_on_push: bool,
    /// Entries of a page.
    pub page: usize,
    /// Page tokens that were given out and not used yet.
    pages: BTreeMap<String, usize>,
    /// Links to next pages of names that were given out and not followed yet.
    links: BTreeMap<String, usize>,
    /// An ended token is 403 with words, not 401 with a challenge.
    pub ends_by_words: bool,
    /// A closing PUT without bytes is refused.
    pub refuses_empty_put: bool,
    /// The account's setting `BLOB_MOUNTING` is on.
    pub mounts: bool,
    /// What a manifest is refused with whose layers are missing, where not 400 `BLOB_UNKNOWN`.
    pub lacks: Option<(u16, &'static str)>,
    /// Blob and manifest requests of `/v2/`: method, path, status.
    pub seen: Vec<(String, String, u16)>,
    uploads: registry::Uploads,
    /// What was done wrong.
    pub wrong: Vec<String>,
}

/// It runs until dropped, and fails the test then where it was asked wrongly.
pub struct Aws {
    addr: SocketAddr,
    book: Arc<Mutex<Book>>,
    _serving: JoinSet<()>,
}

impl Aws {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let book = Book {
            keys: BTreeMap::from([(KEY.0.to_owned(), (KEY.1.to_owned(), None))]),
            page: 1000,
            ..Book::default()
        };
        let book = Arc::new(Mutex::new(book));
        let app = Router::new().fallback(answer).with_state(Arc::clone(&book));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await.expect("a running server") });
        Self {
            addr,
            book,
            _serving: serving,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A registry of rules, with these further keys.
    pub fn rules(&self, more: &str) -> String {
        let url = self.url();
        format!("{{ url: \"{url}\", kind: ecr, endpoint: \"{url}\", {more} }}")
    }

    /// How often the API was asked for an action.
    pub fn asked(&self, action: &str) -> usize {
        self.book().actions.iter().filter(|(name, _)| name == action).count()
    }
}

impl Drop for Aws {
    fn drop(&mut self) {
        let wrong = std::mem::take(&mut self.book().wrong);
        if !std::thread::panicking() {
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
    }
}

/// An answer.
fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).expect("an answer")
}

fn fault(status: u16, code: &str, message: &str) -> Response {
    let body = json!({ "__type": code, "message": message }).to_string();
    reply(status, &[("content-type", "application/x-amz-json-1.1")], body)
}

async fn answer(State(book): State<Arc<Mutex<Book>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 64 << 20).await else {
        // It broke off, and nobody hears the answer.
        return reply(400, &[], "");
    };
    let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
    if head.headers.contains_key("x-amz-target") {
        return book.api(&head, &body);
    }
    let path = head.uri.path().to_owned();
    if path.starts_with("/v2/") {
        let response = book.registry(&head, &body);
        let status = response.status().as_u16();
        book.seen.push((head.method.to_string(), path, status));
        return response;
    }
    if body.starts_with(b"Action=") || path == "/sts" {
        return book.sts(&head, &body);
    }
    if path.starts_with("/federation/") {
        return book.portal(&head);
    }
    book.machine(&head)
}

impl Book {
    /// Who signed; or the refusal.
    fn signer(&mut self, head: &Parts, body: &Bytes, service: &str) -> Result<String, Box<Response>> {
        match sigv4::check(head, body, service, REGION, &self.keys) {
            Ok(key) => Ok(key),
            Err(sigv4::Bad::UnknownKey) => Err(Box::new(fault(
                400,
                "UnrecognizedClientException",
                "The security token is invalid.",
            ))),
            Err(sigv4::Bad::Wrong(why)) => {
                self.wrong.push(format!("{} {}: {why}", head.method, head.uri));
                let refusal = fault(400, "InvalidSignatureException", "The signature does not match.");
                Err(Box::new(refusal))
            }
        }
    }

    fn api(&mut self, head: &Parts, body: &Bytes) -> Response {
        let header = |name: &str| {
            head.headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        if head.method != "POST" || head.uri.path() != "/" || header("content-type") != "application/x-amz-json-1.1" {
            self.wrong
                .push(format!("{} {} {}", head.method, head.uri, header("content-type")));
        }
        let target = header("x-amz-target").to_owned();
        let Some(action) = target.strip_prefix("AmazonEC2ContainerRegistry_V20150921.") else {
            self.wrong.push(format!("an unknown target {target}"));
            return fault(400, "UnknownOperationException", "");
        };
        if let Err(refusal) = self.signer(head, body, "ecr") {
            return *refusal;
        }
        let asked: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        self.actions.push((action.to_owned(), asked.clone()));
        if let Some(refusals) = self.refusals.get_mut(action)
            && !refusals.is_empty()
        {
            let (status, code) = refusals.remove(0);
            return fault(status, &format!("com.amazonaws.ecr#{code}"), "because");
        }
        // Without it the API tells of the asker's own account.
        let id = asked["registryId"].as_str();
        if action != "GetAuthorizationToken" && id != Some(ACCOUNT) {
            self.wrong.push(format!("{action} for the registry {id:?}"));
        }
        let name = asked["repositoryName"].as_str().unwrap_or_default();
        let answer = match action {
            "GetAuthorizationToken" => {
                self.tokens += 1;
                let token = STANDARD.encode(format!("AWS:{}", self.token()));
                let ends = self.ends.unwrap_or(4_102_444_800.0);
                json!({ "authorizationData": [{ "authorizationToken": token, "expiresAt": ends }] })
            }
            "CreateRepository" => {
                if self.repositories.contains_key(name) {
                    return fault(400, "RepositoryAlreadyExistsException", "it exists");
                }
                self.repositories.insert(name.to_owned(), Stored::default());
                json!({ "repository": { "repositoryName": name } })
            }
            "DescribeRepositories" => {
                let names: Vec<Value> = self
                    .repositories
                    .keys()
                    .map(|name| json!({ "repositoryName": name }))
                    .collect();
                return self.paged("repositories", names, &asked);
            }
            "DescribeImages" => {
                if asked["filter"] != json!({ "tagStatus": "TAGGED", "imageStatus": "ANY" }) {
                    self.wrong
                        .push(format!("DescribeImages with the filter {}", asked["filter"]));
                }
                let Some(repository) = self.repositories.get(name) else {
                    return fault(400, "RepositoryNotFoundException", "it does not exist");
                };
                return self.paged("imageDetails", repository.details(), &asked);
            }
            "BatchCheckLayerAvailability" => {
                let Some(repository) = self.repositories.get(name) else {
                    return fault(400, "RepositoryNotFoundException", "it does not exist");
                };
                let digests: Vec<&str> = asked["layerDigests"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                let distinct: BTreeSet<&&str> = digests.iter().collect();
                if !(1..=100).contains(&digests.len()) || distinct.len() != digests.len() {
                    self.wrong.push(format!(
                        "{} layers at once, {} of them distinct",
                        digests.len(),
                        distinct.len()
                    ));
                }
                let layers = digests.iter().map(|digest| repository.layer(digest));
                json!({ "layers": layers.collect::<Vec<_>>(), "failures": [] })
            }
            "BatchDeleteImage" => {
                let Some(repository) = self.repositories.get(name) else {
                    return fault(400, "RepositoryNotFoundException", "it does not exist");
                };
                let ids: Vec<&Value> = asked["imageIds"].as_array().into_iter().flatten().collect();
                let is_there = |id: &&&Value| {
                    id["imageDigest"]
                        .as_str()
                        .is_none_or(|digest| repository.manifests.contains_key(digest))
                };
                if ids.len() != 1 || ids.iter().any(|id| is_there(&id)) {
                    self.wrong.push(format!("{asked} would be deleted"));
                }
                let failure = json!({ "imageId": ids.first(), "failureCode": "ImageNotFound", "failureReason": "Requested image not found" });
                json!({ "imageIds": [], "failures": [failure] })
            }
            "ListImages" => {
                if asked["filter"]["tagStatus"] != "TAGGED" {
                    self.wrong.push("ListImages without the filter for tags".to_owned());
                }
                let Some(repository) = self.repositories.get(name) else {
                    return fault(400, "RepositoryNotFoundException", "it does not exist");
                };
                let archived = |digest: &&String| repository.archived.contains(*digest);
                let images = repository.tags.iter().filter(|(_, digest)| !archived(digest));
                let images = images.map(|(tag, digest)| json!({ "imageTag": tag, "imageDigest": digest }));
                let images = images.collect();
                return self.paged("imageIds", images, &asked);
            }
            other => {
                self.wrong.push(format!("an action that nobody needs: {other}"));
                return fault(400, "InvalidAction", other);
            }
        };
        reply(
            200,
            &[("content-type", "application/x-amz-json-1.1")],
            answer.to_string(),
        )
    }

    /// A page: tokens are opaque and good once.
    fn paged(&mut self, key: &str, entries: Vec<Value>, asked: &Value) -> Response {
        if asked["maxResults"] != 1000 {
            self.wrong.push(format!("a page of {}", asked["maxResults"]));
        }
        let from = match asked["nextToken"].as_str() {
            None => 0,
            Some(token) => match self.pages.remove(token) {
                Some(from) => from,
                None => {
                    self.wrong.push(format!("a page token that was not given out: {token}"));
                    return fault(400, "InvalidParameterException", "nextToken");
                }
            },
        };
        let to = entries.len().min(from + self.page);
        let mut answer = json!({ key: entries[from..to] });
        if to < entries.len() {
            let token = format!("opaque+{}/{to}==", self.actions.len());
            answer["nextToken"] = token.as_str().into();
            self.pages.insert(token, to);
            if let Some((repository, tag, digest)) = self.moves.take() {
                let stored = self.repositories.get_mut(&repository).expect("seeded");
                stored.tags.insert(tag, digest);
            }
        }
        reply(
            200,
            &[("content-type", "application/x-amz-json-1.1")],
            answer.to_string(),
        )
    }

    /// The password that is good now.
    fn token(&self) -> String {
        format!("ecr-token-{}", self.tokens)
    }

    fn sts(&mut self, head: &Parts, body: &Bytes) -> Response {
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let form: BTreeMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
        let field = |name: &str| form.get(name).cloned().unwrap_or_default();
        let by = match field("Action").as_str() {
            "AssumeRole" => match self.signer(head, body, "sts") {
                Ok(key) => key,
                Err(refusal) => return *refusal,
            },
            // By the token alone, for whoever has it.
            "AssumeRoleWithWebIdentity" if header("authorization").is_none() => {
                match field("WebIdentityToken").as_str() {
                    "pod-token" => "web".to_owned(),
                    other => {
                        let text = format!(
                            "<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>the token {other} is none\
                         </Message></Error></ErrorResponse>"
                        );
                        return reply(400, &[], text);
                    }
                }
            }
            action => {
                self.wrong.push(format!("{action} with {:?}", form.keys()));
                return reply(400, &[], "");
            }
        };
        let (action, role) = (field("Action"), field("RoleArn"));
        if header("content-type") != Some("application/x-www-form-urlencoded") || field("Version") != "2011-06-15" {
            self.wrong
                .push(format!("{action} as {:?}, {:?}", header("content-type"), form.keys()));
        }
        self.others.push(format!(
            "{action} {role} {} {}",
            field("ExternalId"),
            field("RoleSessionName")
        ));
        if role.ends_with("/broken") {
            return reply(500, &[], "");
        }
        if role.ends_with("/shut") {
            let text = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>may not assume</Message></Error></ErrorResponse>";
            return reply(403, &[], text);
        }
        let key = format!("ASIAROLE{:0>8}", self.others.len());
        let (secret, token) = (format!("secret/of+{by}"), "session/token+==".to_owned());
        self.keys.insert(key.clone(), (secret.clone(), Some(token.clone())));
        let text = format!(
            "<{action}Response><{action}Result><Credentials><AccessKeyId>{key}</AccessKeyId>\
             <SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>\
             <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></{action}Result></{action}Response>"
        );
        reply(200, &[("content-type", "text/xml")], text)
    }

    /// The portal of IAM Identity Center: `GetRoleCredentials`.
    fn portal(&mut self, head: &Parts) -> Response {
        let query = head.uri.query().unwrap_or_default();
        self.others.push(format!("{} {}?{query}", head.method, head.uri.path()));
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let asked: BTreeMap<String, String> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let field = |name: &str| asked.get(name).map(String::as_str);
        if (head.method.as_str(), head.uri.path()) != ("GET", "/federation/credentials")
            || header("authorization").is_some()
            || (field("account_id"), field("role_name")) != (Some(ACCOUNT), Some("Push All"))
        {
            self.wrong.push(format!("{} {}", head.method, head.uri));
            return reply(404, &[], "");
        }
        let token = header("x-amz-sso_bearer_token").unwrap_or_default();
        let refusal = |status, code, message: String| {
            let body = json!({ "__type": code, "message": message }).to_string();
            reply(status, &[("content-type", "application/json")], body)
        };
        match token {
            "sso-token" => {}
            "sso-token-without-role" => {
                let message = format!("{token} gives No access");
                return refusal(403, "ForbiddenException", message);
            }
            other => {
                return refusal(
                    401,
                    "UnauthorizedException",
                    format!("Session token {other} not found or invalid"),
                );
            }
        }
        let (key, secret) = ("ASIASSO000000001".to_owned(), "sso/secret+".to_owned());
        let session = "session/token+==".to_owned();
        self.keys.insert(key.clone(), (secret.clone(), Some(session.clone())));
        let credentials = json!({
            "accessKeyId": key, "secretAccessKey": secret, "sessionToken": session, "expiration": 4_102_444_800_000_i64,
        });
        reply(200, &[], json!({ "roleCredentials": credentials }).to_string())
    }

    /// IMDSv2 of an instance, and the credentials of a container.
    fn machine(&mut self, head: &Parts) -> Response {
        let path = head.uri.path().to_owned();
        self.others.push(path.clone());
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let document = |more: Value| {
            let mut document = json!({
                "AccessKeyId": KEY.0, "SecretAccessKey": KEY.1, "Expiration": "2099-01-01T00:00:00Z",
                "Code": "Success", "LastUpdated": "2026-01-01T00:00:00Z", "Type": "AWS-HMAC",
            });
            document["Token"] = more;
            reply(200, &[], document.to_string())
        };
        self.keys
            .insert(KEY.0.to_owned(), (KEY.1.to_owned(), Some("machine-token".to_owned())));
        match (head.method.as_str(), path.as_str()) {
            ("PUT", "/latest/api/token") if header("x-aws-ec2-metadata-token-ttl-seconds").is_some() => {
                reply(200, &[], "imds-token")
            }
            ("GET", "/creds") if header("authorization") == Some("container-secret") => {
                document("machine-token".into())
            }
            // As a service that says more than it should.
            ("GET", "/creds-of-nobody") => reply(
                403,
                &[],
                format!(
                    "not by {} but by machine-token",
                    header("authorization").unwrap_or_default()
                ),
            ),
            ("GET", "/latest/meta-data/iam/security-credentials/")
                if header("x-aws-ec2-metadata-token") == Some("imds-token") =>
            {
                reply(200, &[], "worker")
            }
            ("GET", "/latest/meta-data/iam/security-credentials/worker")
                if header("x-aws-ec2-metadata-token") == Some("imds-token") =>
            {
                document("machine-token".into())
            }
            _ => {
                self.wrong.push(format!("{} {path}", head.method));
                reply(404, &[], "")
            }
        }
    }
}
