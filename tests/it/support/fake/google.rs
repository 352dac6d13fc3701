//! Google Artifact Registry (google/go-containerregistry `pkg/v1/google/list.go`; cloud.google.com, Artifact Registry,
//! "Configure authentication to Artifact Registry for Docker", `projects.locations.repositories.create`; developers.google.com,
//! "Using OAuth 2.0 for Server to Server Applications").

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Method;
use serde_json::{Map, Value, json};
use transship::clock::Clock;
use transship::demo::registry::Options;

use super::token::{Login, Tokens};
use super::{Asked, Asking, Book, Face, Fake, document, lock, refusal, with_header};

/// The user whose password is an access token of OAuth.
pub const USER: &str = "oauth2accesstoken";
pub const TOKEN: &str = "ya29.fake-token";
/// The project, and a repository of it: images are below it.
pub const REPOSITORY: &str = "project/images";
/// The host that it has where the rules lead there.
pub const HOST: &str = "europe-west1-docker.pkg.dev";
/// The service account, and the id of its key.
const ACCOUNT: &str = "sync@project.iam.gserviceaccount.com";
const KEY_ID: &str = "key-1";

pub struct Google {
    tokens: Tokens,
    /// The public key of the service account.
    key: Mutex<Option<Vec<u8>>>,
    /// How many access tokens were given out for keys and machines, and the first that is good still.
    given: AtomicU32,
    good_from: AtomicU32,
    /// Repositories, `project/name`.
    repositories: Mutex<BTreeSet<String>>,
    /// What repositories were made like.
    pub made: Mutex<BTreeMap<String, Value>>,
    /// Repositories that are there once somebody looks how far their making is.
    in_making: Mutex<BTreeMap<String, String>>,
    /// The token may not make repositories.
    pub denies_creation: AtomicBool,
    /// The clock of who asks stands still, so that its assertions are none of now.
    pub any_time: AtomicBool,
    /// Blobs are read at another path of the same host.
    pub redirects: AtomicBool,
    /// Answers lists with a page for people, as for a path that it does not know.
    pub page_for_people: AtomicBool,
}

impl Google {
    pub async fn start() -> (Fake, Arc<Self>) {
        let google = Arc::new(Self {
            tokens: Tokens::new("/v2/token", HOST),
            key: Mutex::default(),
            given: AtomicU32::new(0),
            good_from: AtomicU32::new(0),
            repositories: Mutex::new(BTreeSet::from([REPOSITORY.to_owned()])),
            made: Mutex::default(),
            in_making: Mutex::default(),
            denies_creation: AtomicBool::new(false),
            any_time: AtomicBool::new(false),
            redirects: AtomicBool::new(false),
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

    /// The file of a new key of the service account.
    pub fn new_key(&self, fake: &Fake) -> Value {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        *lock(&self.key) = Some(pair.public_key().as_ref().to_vec());
        let der: Pkcs8V1Der<'_> = pair.as_der().expect("a key");
        let armour = |word: &str| format!("-----{word} PRIVATE KEY-----\n");
        let inside = STANDARD.encode(der.as_ref());
        json!({
            "type": "service_account", "private_key_id": KEY_ID, "client_email": ACCOUNT,
            "private_key": format!("{}{inside}\n{}", armour("BEGIN"), armour("END")),
            "token_uri": format!("{}/oauth2/token", fake.url()),
        })
    }

    /// All access tokens that were given out so far are good no more.
    pub fn end_tokens(&self) {
        self.good_from
            .store(self.given.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    pub(super) fn give_token(&self) -> Value {
        let number = self.given.fetch_add(1, Ordering::SeqCst);
        json!({ "access_token": format!("ya29.minted-{number}"), "expires_in": 3600, "token_type": "Bearer" })
    }

    /// What an access token is worth.
    pub(super) fn worth(&self, token: &str) -> Login {
        let number = token
            .strip_prefix("ya29.minted-")
            .and_then(|number| number.parse::<u32>().ok());
        match number {
            _ if token == TOKEN => Login::Good,
            Some(number) if number >= self.given.load(Ordering::SeqCst) => Login::Other,
            Some(number) if number >= self.good_from.load(Ordering::SeqCst) => Login::Good,
            Some(_) => Login::Ended,
            None => Login::Other,
        }
    }

    /// The token endpoint: an assertion of the account (RFC 7523), checked by the public key.
    fn grant(&self, book: &Book, request: &Asking) -> Asked {
        let form: BTreeMap<String, String> = url::form_urlencoded::parse(&request.body).into_owned().collect();
        if request.method != Method::POST || form.len() != 2 || request.authorization().is_some() {
            return Asked::Wrong("the token endpoint takes an assertion alone".to_owned());
        }
        if form.get("grant_type").map(String::as_str) != Some("urn:ietf:params:oauth:grant-type:jwt-bearer") {
            return Asked::Wrong("another grant".to_owned());
        }
        let assertion = form.get("assertion").map(String::as_str).unwrap_or_default();
        let parts: Vec<&str> = assertion.split('.').collect();
        let [head, claims, signature] = parts.as_slice() else {
            return Asked::Wrong("the assertion has not three parts".to_owned());
        };
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
        let read = |part: &str| serde_json::from_slice::<Value>(&decoded(part)).unwrap_or_default();
        if read(head) != json!({ "alg": "RS256", "typ": "JWT", "kid": KEY_ID }) {
            return Asked::Wrong(format!("the head of the assertion is {}", read(head)));
        }
        let claims = read(claims);
        let (from, until) = (claims["iat"].as_i64().unwrap_or(0), claims["exp"].as_i64().unwrap_or(0));
        let now = Clock::system().now().as_second();
        let timely = self.any_time.load(Ordering::SeqCst) || (from - now).abs() < 300;
        let right = claims["iss"] == ACCOUNT
            && claims["aud"] == format!("{}/oauth2/token", book.url)
            && claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
            && (1..=3600).contains(&(until - from))
            && timely;
        if !right {
            return Asked::Wrong(format!("the claims are {claims}"));
        }
        let key = lock(&self.key).clone().expect("a key was made");
        let signed = assertion.rsplit_once('.').map(|(signed, _)| signed).unwrap_or_default();
        let verified = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
            .verify(signed.as_bytes(), &decoded(signature))
            .is_ok();
        Asked::Answer(match verified {
            true => document(200, &self.give_token()),
            false => document(
                400,
                &json!({ "error": "invalid_grant", "error_description": "Invalid JWT Signature." }),
            ),
        })
    }

    /// The service of the machine.
    fn machine(&self, request: &Asking, account: &str) -> Asked {
        if request.header("metadata-flavor") != Some("Google") || request.authorization().is_some() {
            return Asked::Wrong("the machine is asked with Metadata-Flavor alone".to_owned());
        }
        let answer = match account {
            "default" | ACCOUNT => document(200, &self.give_token()),
            _ => Response::builder().status(404).body(Body::empty()).expect("an answer"),
        };
        Asked::Answer(with_header(answer, "metadata-flavor", "Google"))
    }

    /// The API of Artifact Registry, below the project's location.
    fn api(&self, request: &Asking, path: &str) -> Asked {
        if request.bearer().map(|token| self.worth(token)) != Some(Login::Good) {
            return Asked::Wrong("the API is asked by an access token".to_owned());
        }
        let running = |id: &str, done: bool| {
            let name = format!("projects/project/locations/europe-west1/operations/{id}");
            Asked::Answer(document(200, &json!({ "name": name, "done": done })))
        };
        if let Some(id) = path.strip_prefix("operations/") {
            if let Some(name) = lock(&self.in_making).remove(id) {
                lock(&self.repositories).insert(name);
            }
            return running(id, true);
        }
        let refused = |status: u16, word: &str| {
            let error = json!({ "code": status, "message": format!("{word}, says the fake"), "status": word });
            Asked::Answer(document(status, &json!({ "error": error })))
        };
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        match (request.parameter("repositoryId"), body["format"].as_str()) {
            (Some(id), Some("DOCKER")) if request.method == Method::POST && path == "repositories" => {
                let name = format!("project/{id}");
                if self.denies_creation.load(Ordering::SeqCst) {
                    return refused(403, "PERMISSION_DENIED");
                }
                if lock(&self.repositories).contains(&name) {
                    return refused(409, "ALREADY_EXISTS");
                }
                lock(&self.made).insert(name.clone(), body);
                lock(&self.in_making).insert("op-1".to_owned(), name);
                running("op-1", false)
            }
            _ => Asked::Wrong("the API has no such request".to_owned()),
        }
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
        if let Some(asked) = super::google_exchange::asked(self, request) {
            return asked;
        }
        if request.path == "/oauth2/token" {
            return self.grant(book, request);
        }
        let account = request
            .path
            .strip_prefix("/computeMetadata/v1/instance/service-accounts/");
        if let Some(account) = account.and_then(|rest| rest.strip_suffix("/token")) {
            return self.machine(request, &account.replace("%40", "@"));
        }
        if let Some(path) = request
            .path
            .strip_prefix("/v1/projects/project/locations/europe-west1/")
        {
            return self.api(request, path);
        }
        if let Some(path) = request.path.strip_prefix("/artifacts-downloads/") {
            let (repository, hex) = path.rsplit_once('/').unwrap_or_default();
            let names = (repository.parse().ok(), format!("sha256:{hex}").parse().ok());
            return match names {
                (Some(repository), Some(digest)) => match book.registry.blob(&repository, &digest) {
                    Some(bytes) => Asked::Answer(Response::new(Body::from(bytes))),
                    None => Asked::Wrong("nobody was led there".to_owned()),
                },
                _ => Asked::Wrong("nobody was led there".to_owned()),
            };
        }
        let judged = |user: &str, secret: &str| match user {
            USER => self.worth(secret),
            "_json_key" if secret.contains(KEY_ID) => Login::Good,
            _ => Login::Other,
        };
        if let Some(asked) = self.tokens.guard(book, request, judged) {
            return asked;
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
        if self.redirects.load(Ordering::SeqCst)
            && request.method == Method::GET
            && let Some((_, digest)) = request.path.split_once("/blobs/sha256:")
        {
            let repository = request.repository().unwrap_or_default();
            let at = format!("/artifacts-downloads/{repository}/{digest}");
            return Asked::Answer(with_header(document(302, &json!({})), "location", &at));
        }
        // Images are made by pushes, what they are in is not.
        let repositories = lock(&self.repositories).clone();
        let inside = |name: &str| {
            let held = |held: &String| {
                name.strip_prefix(held.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
            };
            repositories.iter().any(held)
        };
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
