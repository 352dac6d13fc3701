//! JFrog Artifactory with repositories by path, by host (those of [`DOMAIN`]) and below its own API (jfrog.com, "Artifactory REST APIs"
//! and "Get Started With Artifactory as a Docker Registry").

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::response::{IntoResponse as _, Response};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use transship::demo::registry::Options;
use transship::oci::media_type;

use super::nexus::tags_between;
use super::token::{Asks, Tokens};
use super::{Asked, Asking, Book, Face, Fake, document, lock, refusal, with_header};
use crate::support::{PASSWORD, USERNAME};

/// Files of a folder beside its manifest: so many that the list of two thousand tags is longer than 8 MiB.
const LAYERS: usize = 15;

/// Entries of a page of a catalogue that nobody asks to be longer.
const PAGE: usize = 1000;

/// Where the link to the next page of a key's catalogue leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Links {
    /// There is none: a full page is all that tells.
    #[default]
    None,
    /// To where the list is.
    Here,
    /// To the path that a registry has.
    Root,
    /// To another host.
    Elsewhere,
}

/// A host in it is that of the key which is its first part (the subdomain method).
pub const DOMAIN: &str = "corp.example";

const BASIC: &str = "Basic realm=\"Artifactory Realm\"";

pub struct Artifactory {
    asks: Asks,
    /// What its own repositories are, by key; all others are local ones that nobody lists.
    pub keys: Mutex<BTreeMap<String, &'static str>>,
    /// What the registry's own catalogue answers: 404 as where names begin with keys, another refusal, or 200.
    pub root: AtomicU16,
    /// What the list of keys answers.
    pub lists_keys: AtomicU16,
    /// Keys whose catalogues are not for this user.
    pub secret: Mutex<BTreeSet<String>>,
    pub links: Mutex<Links>,
    /// No key takes pushes.
    pub refuses_pushes: AtomicBool,
    /// There are no other keys than those that are listed.
    pub is_strict: AtomicBool,
    /// What it answers to who makes a key; 0 where nobody is to ask for one.
    pub makes_keys: AtomicU16,
    /// Entries of a catalogue's page at most, whatever is asked for; 0 for as many as that.
    pub short: AtomicUsize,
    /// Spaces behind each page of a catalogue.
    pub padding: AtomicUsize,
    /// Last entries of pages that were given out.
    lasts: Mutex<BTreeSet<String>>,
}

impl Artifactory {
    pub async fn start() -> Fake {
        Self::with_keys(&[]).await.0
    }

    /// One with these repositories of its own: key, and `LOCAL`, `REMOTE`, `VIRTUAL` or `FEDERATED`.
    pub async fn with_keys(keys: &[(&str, &'static str)]) -> (Fake, Arc<Self>) {
        Self::asking(Asks::Basic(BASIC), keys).await
    }

    /// One whose images are for who has a token.
    pub async fn with_tokens() -> Fake {
        Self::asking(Asks::Token(Tokens::new("/v2/token", "artifactory.example")), &[])
            .await
            .0
    }

    async fn asking(asks: Asks, keys: &[(&str, &'static str)]) -> (Fake, Arc<Self>) {
        let keys = keys.iter().map(|(key, class)| ((*key).to_owned(), *class));
        let artifactory = Arc::new(Self {
            asks,
            keys: Mutex::new(keys.collect()),
            root: AtomicU16::new(404),
            lists_keys: AtomicU16::new(200),
            secret: Mutex::default(),
            links: Mutex::default(),
            refuses_pushes: AtomicBool::default(),
            is_strict: AtomicBool::default(),
            makes_keys: AtomicU16::default(),
            short: AtomicUsize::default(),
            padding: AtomicUsize::default(),
            lasts: Mutex::default(),
        });
        (
            Fake::start(Arc::clone(&artifactory), Options::default()).await,
            artifactory,
        )
    }

    /// The keys of its rules.
    pub fn keys() -> String {
        format!("kind: artifactory, username: {USERNAME}, password: {PASSWORD}")
    }

    /// What is asked for below `/artifactory/api/`.
    fn api(&self, book: &Book, request: &Asking, path: &str) -> Asked {
        if let Some(key) = path.strip_prefix("repositories/")
            && request.method == Method::PUT
        {
            return self.make(request, key);
        }
        if request.method != Method::GET {
            return Asked::Wrong("the API is asked for lists alone".to_owned());
        }
        if let Some(repository) = path.strip_prefix("storage/") {
            return files(book, request, repository);
        }
        if let Some(key) = path
            .strip_prefix("docker/")
            .and_then(|path| path.strip_suffix("/v2/_catalog"))
        {
            return self.catalogue(book, request, key);
        }
        let keys = lock(&self.keys);
        match path.strip_prefix("repositories") {
            Some("") if request.query == "packageType=docker" => {
                let status = self.lists_keys.load(Ordering::SeqCst);
                if status != 200 {
                    return Asked::Answer(failed(status));
                }
                let of = |(key, class): (&String, &&str)| {
                    let url = format!("{}/artifactory/{key}", book.url);
                    json!({ "key": key, "type": class, "url": url, "packageType": "Docker" })
                };
                Asked::Answer(document(200, &Value::Array(keys.iter().map(of).collect())))
            }
            Some(key) => {
                let key = key.trim_start_matches('/');
                if self.is_strict.load(Ordering::SeqCst) && !keys.contains_key(key) {
                    return Asked::Answer(failed(400));
                }
                let class = keys
                    .get(key)
                    .map_or_else(|| "local".to_owned(), |class| class.to_ascii_lowercase());
                Asked::Answer(document(
                    200,
                    &json!({ "key": key, "packageType": "docker", "rclass": class }),
                ))
            }
            None => Asked::Wrong("the API has no such path".to_owned()),
        }
    }

    fn make(&self, request: &Asking, key: &str) -> Asked {
        let wanted = json!({ "key": key, "rclass": "local", "packageType": "docker", "dockerApiVersion": "V2" });
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let is_json = request.header("content-type") == Some("application/json");
        match self.makes_keys.load(Ordering::SeqCst) {
            0 => Asked::Wrong("nobody asked for a repository of Artifactory to be made".to_owned()),
            _ if body != wanted || !is_json => Asked::Wrong("this is no local Docker repository".to_owned()),
            200 => {
                let was_there = lock(&self.keys).insert(key.to_owned(), "LOCAL").is_some();
                match was_there {
                    true => Asked::Wrong("it is there already".to_owned()),
                    false => Asked::Answer(StatusCode::OK.into_response()),
                }
            }
            status => Asked::Answer(failed(status)),
        }
    }

    fn catalogue(&self, book: &Book, request: &Asking, key: &str) -> Asked {
        if lock(&self.secret).contains(key) {
            return Asked::Answer(failed(403));
        }
        let inside = format!("{key}/");
        let repositories = book.registry.repositories();
        let names = repositories
            .iter()
            .filter_map(|name| name.as_str().strip_prefix(&inside));
        let mut names: Vec<&str> = names.collect();
        names.sort_unstable();
        if names.is_empty() && !lock(&self.keys).contains_key(key) {
            return Asked::Answer(failed(404));
        }
        let Some(size @ 1..=PAGE) = request.parameter("n").and_then(|text| text.parse::<usize>().ok()) else {
            return Asked::Wrong("a page of a catalogue has 1 to 1000 entries".to_owned());
        };
        let last = request.parameter("last");
        if last.as_ref().is_some_and(|last| !lock(&self.lasts).remove(last)) {
            return Asked::Wrong("a page behind what ended none, or one that was read before".to_owned());
        }
        names.retain(|name| last.as_deref().is_none_or(|last| *name > last));
        let most = match self.short.load(Ordering::SeqCst) {
            0 => size,
            short => short.min(size),
        };
        let shown = &names[..most.min(names.len())];
        let mut page = json!({ "repositories": shown }).to_string();
        page.push_str(&" ".repeat(self.padding.load(Ordering::SeqCst)));
        let answer = with_header(page.into_response(), "content-type", "application/json");
        let Some(last) = shown.last() else {
            return Asked::Answer(answer);
        };
        lock(&self.lasts).insert((*last).to_owned());
        if shown.len() == names.len() {
            return Asked::Answer(answer);
        }
        let query = format!("last={last}&n={size}");
        let target = match *lock(&self.links) {
            Links::None => return Asked::Answer(answer),
            Links::Here => format!("{}?{query}", request.path),
            Links::Root => format!("/v2/_catalog?{query}"),
            Links::Elsewhere => format!("http://artifactory.invalid{}?{query}", request.path),
        };
        Asked::Answer(with_header(answer, "link", &format!("<{target}>; rel=\"next\"")))
    }
}

/// A refusal in the words of its API.
fn failed(status: u16) -> Response {
    document(
        status,
        &json!({ "errors": [{ "status": status, "message": "not for you, or not there" }] }),
    )
}

fn file(folder: &str, name: &str, sha2: &str) -> Value {
    json!({
        "uri": format!("/{folder}/{name}"), "size": 31_337_000, "lastModified": "2026-03-01T12:00:00.000Z", "folder": false,
        "sha1": "a".repeat(40), "sha2": sha2,
    })
}

fn files(book: &Book, request: &Asking, repository: &str) -> Asked {
    if request.method != Method::GET
        || request.all("list").len() != 1
        || request.parameter("depth").as_deref() != Some("2")
    {
        return Asked::Wrong("this is no list of files".to_owned());
    }
    let held = repository.parse().ok().and_then(|name| book.registry.manifests(&name));
    let Some(held) = held else {
        let errors = json!({ "errors": [{ "status": 404, "message": "Unable to find item" }] });
        return Asked::Answer(document(404, &errors));
    };
    let mut files: Vec<Value> = Vec::new();
    for held in &held {
        let name = match media_type::is_index(&held.media_type) {
            true => "list.manifest.json",
            false => "manifest.json",
        };
        let folders = held.tags.iter().map(ToString::to_string);
        for folder in folders.chain([held.digest.to_string()]) {
            files.push(file(&folder, name, held.digest.hex()));
            // Each folder has the config and the layers, too.
            for layer in 0..LAYERS {
                let hex = format!("{layer:064x}");
                files.push(file(&folder, &format!("sha256__{hex}"), &hex));
            }
        }
    }
    Asked::Answer(document(200, &json!({ "uri": request.path, "files": files })))
}

impl Artifactory {
    fn judge(&self, book: &Book, request: &Asking) -> Asked {
        if let Some((key, _, rest)) = of_one_key(request)
            && !matches!(rest.as_str(), "" | "_catalog")
        {
            if let Some(refused) = self.asks.refuses(book, request) {
                return refused;
            }
            let inner = Asking {
                path: format!("/v2/{key}/{rest}"),
                ..request.clone()
            };
            return match self.images(book, &inner) {
                Asked::Pass => Asked::PassTo(inner.path),
                asked => asked,
            };
        }
        if request.path.starts_with("/artifactory/api/docker/") && request.path.ends_with("/v2/") {
            return self
                .asks
                .refuses(book, request)
                .unwrap_or_else(|| Asked::PassTo("/v2/".to_owned()));
        }
        // The API takes user and password at once, however images are asked for.
        if let Some(path) = request.path.strip_prefix("/artifactory/api/") {
            let refused = Asks::Basic(BASIC).refuses(book, request);
            return refused.unwrap_or_else(|| self.api(book, request, path));
        }
        if let Some(refused) = self.asks.refuses(book, request) {
            return refused;
        }
        self.images(book, request)
    }

    fn images(&self, book: &Book, request: &Asking) -> Asked {
        let length = request.header("content-length").unwrap_or("0");
        if request.method == Method::PUT && request.path.contains("/blobs/uploads/") && length != "0" {
            return Asked::Wrong("some versions lose bytes that come with the closing PUT".to_owned());
        }
        if request.path == "/v2/_catalog" {
            return match self.root.load(Ordering::SeqCst) {
                200 => Asked::Pass,
                404 => Asked::Answer(StatusCode::NOT_FOUND.into_response()),
                status => Asked::Answer(refusal(status, "DENIED", "not permitted")),
            };
        }
        if request.writes() && self.refuses_pushes.load(Ordering::SeqCst) {
            return Asked::Answer(refusal(404, "NAME_UNKNOWN", "Repository name not known to registry."));
        }
        let key = request.repository().and_then(|name| name.split('/').next());
        if self.is_strict.load(Ordering::SeqCst) && key.is_some_and(|key| !lock(&self.keys).contains_key(key)) {
            return Asked::Answer(refusal(404, "NAME_UNKNOWN", "Repository name not known to registry."));
        }
        // Digests stand among the tags (containers/skopeo#2346).
        if request.method == Method::GET && request.path.ends_with("/tags/list") {
            let digest = json!(format!("sha256:{}", "a".repeat(64)));
            return tags_between(book, request, &[digest]).map_or(Asked::Pass, Asked::Answer);
        }
        Asked::Pass
    }
}

/// The key that the host or the path of a request has, the path to `/v2/`, and what is behind it.
fn of_one_key(request: &Asking) -> Option<(String, String, String)> {
    if let Some(path) = request.path.strip_prefix("/artifactory/api/docker/") {
        let (key, rest) = path.split_once("/v2/")?;
        return Some((
            key.to_owned(),
            format!("/artifactory/api/docker/{key}/v2/"),
            rest.to_owned(),
        ));
    }
    let host = request.header("host")?.split(':').next()?;
    let key = host.strip_suffix(DOMAIN)?.strip_suffix('.')?;
    let rest = request.path.strip_prefix("/v2/")?;
    Some((key.to_owned(), "/v2/".to_owned(), rest.to_owned()))
}

impl Face for Arc<Artifactory> {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        match self.judge(book, request) {
            Asked::Answer(answer) => Asked::Answer(self.answered(book, request, answer)),
            asked => asked,
        }
    }

    /// As GoogleContainerTools/kaniko#1095 saw it, where the user may push and not delete.
    fn immutable(&self, _tag: &str) -> Option<Response> {
        let detail = json!({ "description": "HTTP 403 Forbidden" });
        let error = json!({ "code": "MANIFEST_INVALID", "message": "manifest invalid", "detail": detail });
        Some(document(403, &json!({ "errors": [error] })))
    }

    fn answered(&self, _book: &Book, request: &Asking, mut answer: Response) -> Response {
        if let Some((key, before, _)) = of_one_key(request)
            && let Some(location) = answer.headers().get("location")
        {
            let inside = location.to_str().expect("an address").to_owned();
            let outside = inside.replacen(&format!("/v2/{key}/"), &before, 1);
            answer = with_header(answer, "location", &outside);
        }
        with_header(answer, "x-jfrog-version", "Artifactory/7.98.7 79800900")
    }
}
