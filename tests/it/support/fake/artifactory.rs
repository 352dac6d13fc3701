//! JFrog Artifactory with repositories by path (jfrog.com, "Artifactory REST APIs").

use std::sync::Arc;

use axum::response::Response;
use http::Method;
use serde_json::{Value, json};
use transship::demo::registry::Options;
use transship::oci::media_type;

use super::nexus::tags_between;
use super::{Asked, Asking, Book, Face, Fake, document, refusal, with_header};
use crate::support::{PASSWORD, USERNAME};

/// Files of a folder beside its manifest: so many that the list of two thousand tags is longer than 8 MiB.
const LAYERS: usize = 15;

#[derive(Default)]
pub struct Artifactory {
    /// The keys of repositories that hold what they have fetched from elsewhere.
    remote: Vec<String>,
}

impl Artifactory {
    pub async fn start() -> Fake {
        Fake::start(Arc::new(Self::default()), Options::default()).await
    }

    /// One with a remote repository of this name.
    pub async fn start_with_remote(key: &str) -> Fake {
        let remote = vec![key.to_owned()];
        Fake::start(Arc::new(Self { remote }), Options::default()).await
    }

    /// The keys of its rules.
    pub fn keys() -> String {
        format!("kind: artifactory, username: {USERNAME}, password: {PASSWORD}")
    }
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

impl Face for Arc<Artifactory> {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        match request.basic() {
            Some((user, password)) if user == USERNAME && password == PASSWORD => {}
            Some(_) => return Asked::Wrong("another login than the rules have".to_owned()),
            None => {
                let answer = refusal(401, "UNAUTHORIZED", "The access token is missing");
                return Asked::Answer(with_header(
                    answer,
                    "www-authenticate",
                    "Basic realm=\"Artifactory Realm\"",
                ));
            }
        }
        let length = request.header("content-length").unwrap_or("0");
        if request.method == Method::PUT && request.path.contains("/blobs/uploads/") && length != "0" {
            return Asked::Wrong("some versions lose bytes that come with the closing PUT".to_owned());
        }
        if let Some(key) = request.path.strip_prefix("/artifactory/api/repositories/") {
            let class = match self.remote.iter().any(|remote| remote == key) {
                true => "remote",
                false => "local",
            };
            return Asked::Answer(document(
                200,
                &json!({ "key": key, "packageType": "docker", "rclass": class }),
            ));
        }
        match request.path.strip_prefix("/artifactory/api/storage/") {
            Some(repository) => files(book, request, repository),
            // Digests stand among the tags (containers/skopeo#2346).
            None if request.method == Method::GET && request.path.ends_with("/tags/list") => {
                let digest = json!(format!("sha256:{}", "a".repeat(64)));
                tags_between(book, request, &[digest]).map_or(Asked::Pass, Asked::Answer)
            }
            None => Asked::Pass,
        }
    }

    fn answered(&self, _book: &Book, _request: &Asking, answer: Response) -> Response {
        with_header(answer, "x-jfrog-version", "Artifactory/7.98.7 79800900")
    }
}
