//! `/v2/` with ECR's habits: no repository by itself, 201 for a piece, a `Range` that stays behind, pieces between 5 and 20
//! MiB, `TAG_INVALID`, mounts only with the account's setting for them, links to pages that say the host and an opaque mark.

use std::collections::{BTreeMap, BTreeSet};

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::request::Parts;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Book, reply};

const MIB: usize = 1024 * 1024;

/// A repository.
#[derive(Clone, Default)]
pub struct Stored {
    pub tags: BTreeMap<String, String>,
    pub manifests: BTreeMap<String, (String, Bytes)>,
    pub blobs: BTreeMap<String, Bytes>,
    pub immutable: bool,
    /// Digests of images that cannot be pulled until somebody fetches them back.
    pub archived: BTreeSet<String>,
}

impl Stored {
    /// What `DescribeImages` says of the images that have tags.
    pub(super) fn details(&self) -> Vec<Value> {
        let tagged: BTreeSet<&String> = self.tags.values().collect();
        let detail = |digest: &String| {
            let tags: Vec<&String> = self
                .tags
                .iter()
                .filter(|(_, of)| *of == digest)
                .map(|(tag, _)| tag)
                .collect();
            json!({
                "imageDigest": digest,
                "imageTags": tags,
                "imagePushedAt": 1_767_225_600.25,
                "imageManifestMediaType": self.manifests.get(digest).map(|(media_type, _)| media_type),
                "imageStatus": if self.archived.contains(digest) { "ARCHIVED" } else { "ACTIVE" },
            })
        };
        tagged.into_iter().map(detail).collect()
    }

    /// What `BatchCheckLayerAvailability` says of one.
    pub(super) fn layer(&self, digest: &str) -> Value {
        match self.blobs.get(digest) {
            Some(bytes) => json!({ "layerDigest": digest, "layerAvailability": "AVAILABLE", "layerSize": bytes.len() }),
            None => json!({ "layerDigest": digest, "layerAvailability": "UNAVAILABLE" }),
        }
    }

    /// What a manifest names and the repository lacks.
    fn lacks(&self, manifest: &Value) -> Option<String> {
        let layers = manifest["layers"].as_array().into_iter().flatten();
        let blobs = layers
            .chain(manifest.get("config"))
            .filter_map(|blob| blob["digest"].as_str());
        let entries = manifest["manifests"].as_array().into_iter().flatten();
        let mut missing = blobs.filter(|digest| !self.blobs.contains_key(*digest));
        let mut children = entries
            .filter_map(|entry| entry["digest"].as_str())
            .filter(|digest| !self.manifests.contains_key(*digest));
        missing.next().or_else(|| children.next()).map(str::to_owned)
    }

    /// The referrers of a manifest, as an index.
    fn referrers(&self, subject: &str) -> String {
        let all = self.manifests.iter().filter_map(|(digest, (media_type, bytes))| {
            let manifest: Value = serde_json::from_slice(bytes).ok()?;
            let artifact = manifest
                .get("artifactType")
                .or_else(|| manifest["config"].get("mediaType"));
            (manifest["subject"]["digest"] == subject).then(
                || json!({ "mediaType": media_type, "digest": digest, "size": bytes.len(), "artifactType": artifact }),
            )
        });
        let all: Vec<Value> = all.collect();
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": all })
            .to_string()
    }
}

pub type Uploads = BTreeMap<String, Upload>;

/// An open upload: its bytes, and the lengths of the pieces that brought them.
#[derive(Default)]
pub struct Upload {
    bytes: Vec<u8>,
    pieces: Vec<usize>,
}

fn refused(status: u16, code: &str, message: &str) -> Response {
    let body = json!({ "errors": [{ "code": code, "message": message }] }).to_string();
    reply(status, &[("content-type", "text/plain; charset=utf-8")], body)
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Book {
    pub(super) fn registry(&mut self, head: &Parts, body: &Bytes) -> Response {
        let login = head.headers.get("authorization").and_then(|value| value.to_str().ok());
        let wanted = format!("Basic {}", STANDARD.encode(format!("AWS:{}", self.token())));
        if login != Some(wanted.as_str()) || self.tokens == 0 {
            let ended = login.is_some() && self.ends_by_words;
            let challenge = "Basic realm=\"https://1.dkr.ecr/\",service=\"ecr.amazonaws.com\"";
            return match ended {
                true => refused(
                    403,
                    "DENIED",
                    "Your authorization token has expired. Reauthenticate and try again.",
                ),
                false => reply(401, &[("www-authenticate", challenge)], "Not Authorized"),
            };
        }
        let path = head.uri.path().trim_start_matches("/v2/").to_owned();
        if path.is_empty() {
            return reply(200, &[], "");
        }
        let (marker, at) = ["/manifests/", "/blobs/", "/tags/list", "/referrers/"]
            .into_iter()
            .find_map(|marker| Some((marker, path.rfind(marker)?)))
            .unwrap_or(("", 0));
        let (name, rest) = (&path[..at], &path[at + marker.len()..]);
        if self.creates_on_push && head.method == "POST" && rest == "uploads/" {
            self.repositories.entry(name.to_owned()).or_default();
        }
        if !self.repositories.contains_key(name) {
            let message = format!("The repository with name '{name}' does not exist in the registry with id '1'");
            return refused(404, "NAME_UNKNOWN", &message);
        }
        match (head.method.as_str(), marker) {
            ("GET", "/tags/list") => self.names(head, name),
            ("GET", "/referrers/") => {
                let index = self.repositories[name].referrers(rest);
                reply(
                    200,
                    &[("content-type", "application/vnd.oci.image.index.v1+json")],
                    index,
                )
            }
            (_, "/manifests/") => self.manifest(head, name, rest, body),
            (_, "/blobs/") if rest.starts_with("uploads/") => self.upload(head, name, &rest["uploads/".len()..], body),
            ("GET" | "HEAD", "/blobs/") => match self.repositories[name].blobs.get(rest) {
                Some(bytes) => reply(200, &[("docker-content-digest", rest)], bytes.clone()),
                None => refused(404, "BLOB_UNKNOWN", "no such layer"),
            },
            (method, _) => {
                self.wrong.push(format!("{method} {path}"));
                refused(405, "UNSUPPORTED", "no such thing")
            }
        }
    }

    /// A page of names, sorted by nothing: a hundred where no other number is asked for. The link to the next says the host, too,
    /// and goes on from a mark that is no tag (google/go-containerregistry#681, docker_registry2#34).
    fn names(&mut self, head: &Parts, name: &str) -> Response {
        let query = head.uri.query().unwrap_or_default();
        let asked: BTreeMap<String, String> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let size = match asked.get("n").map(|number| number.parse::<usize>()) {
            None => 100,
            Some(Ok(size @ 1..=1000)) => size,
            Some(_) => {
                self.wrong.push(format!("{} {}", head.method, head.uri));
                let message = "Invalid parameter at 'maxResults' failed to satisfy constraint: 'Member must have value less \
                               than or equal to 1000'";
                return refused(405, "UNSUPPORTED", message);
            }
        };
        let from = match asked.get("last") {
            None => 0,
            Some(_) => match self.links.remove(&head.uri.to_string()) {
                Some(from) => from,
                None => {
                    self.wrong.push(format!("a page that no link led to: {}", head.uri));
                    return refused(400, "INVALID_PARAMETER", "last");
                }
            },
        };
        let tags: Vec<&String> = self.repositories[name].tags.keys().rev().collect();
        let to = tags.len().min(from + size.min(self.page));
        let body = json!({ "name": name, "tags": tags[from..to] }).to_string();
        let more = to < tags.len();
        let mut link = String::new();
        if more {
            let next = format!("{}?last=b3BhcXVl%2F{to}%2B%3D%3D&n={size}", head.uri.path());
            let host = head.headers.get("host").and_then(|host| host.to_str().ok());
            link = format!("<http://{}{next}>; rel=\"next\"", host.unwrap_or_default());
            self.links.insert(next, to);
        }
        let link = more.then_some(("link", link.as_str()));
        let headers: Vec<_> = link
            .into_iter()
            .chain([("content-type", "text/plain; charset=utf-8")])
            .collect();
        reply(200, &headers, body)
    }

    /// What a request to mount asks for: the blob, and its bytes in the repository that it names.
    fn mounted(&self, head: &Parts) -> Option<(String, Bytes)> {
        let query = head.uri.query().unwrap_or_default();
        let asked: BTreeMap<String, String> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let digest = asked.get("mount").filter(|_| self.mounts)?;
        let bytes = self.repositories.get(asked.get("from")?)?.blobs.get(digest)?;
        Some((digest.clone(), bytes.clone()))
    }

    fn manifest(&mut self, head: &Parts, name: &str, reference: &str, body: &Bytes) -> Response {
        let lacks = self.lacks.unwrap_or((400, "BLOB_UNKNOWN"));
        let Some(repository) = self.repositories.get_mut(name) else {
            return refused(404, "NAME_UNKNOWN", "");
        };
        if head.method == "PUT" {
            let digest = digest(body);
            let manifest: Value = serde_json::from_slice(body).unwrap_or_default();
            if manifest["mediaType"].is_null() {
                let message =
                    "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax'";
                return refused(405, "UNSUPPORTED", message);
            }
            if let Some(missing) = repository.lacks(&manifest) {
                let message = format!("The specified layers or images could not be found: {missing}");
                return refused(lacks.0, lacks.1, &message);
            }
            if !reference.starts_with("sha256:") {
                let other = repository.tags.get(reference).is_some_and(|found| *found != digest);
                if other && repository.immutable {
                    let message = format!(
                        "The image tag '{reference}' already exists in the '{name}' repository and cannot be overwritten \
                         because the tag is immutable."
                    );
                    return refused(400, "TAG_INVALID", &message);
                }
                repository.tags.insert(reference.to_owned(), digest.clone());
            }
            let media_type = head.headers.get("content-type").and_then(|value| value.to_str().ok());
            let media_type = media_type.unwrap_or_default().to_owned();
            repository.manifests.insert(digest.clone(), (media_type, body.clone()));
            let subject = manifest["subject"]["digest"]
                .as_str()
                .map(|subject| ("oci-subject", subject));
            let headers: Vec<_> = subject
                .into_iter()
                .chain([("docker-content-digest", digest.as_str())])
                .collect();
            return reply(201, &headers, "");
        }
        let digest = match repository.tags.get(reference) {
            Some(digest) => digest.clone(),
            None => reference.to_owned(),
        };
        match repository.manifests.get(&digest) {
            Some((media_type, bytes)) if !repository.archived.contains(&digest) => reply(
                200,
                &[("content-type", media_type), ("docker-content-digest", &digest)],
                bytes.clone(),
            ),
            _ => refused(404, "MANIFEST_UNKNOWN", "Requested image not found"),
        }
    }

    fn upload(&mut self, head: &Parts, name: &str, id: &str, body: &Bytes) -> Response {
        let at = |id: &str| format!("/v2/{name}/blobs/uploads/{id}");
        if head.method == "POST" {
            if let Some((digest, bytes)) = self.mounted(head)
                && let Some(repository) = self.repositories.get_mut(name)
            {
                repository.blobs.insert(digest.clone(), bytes);
                let at = format!("/v2/{name}/blobs/{digest}");
                return reply(201, &[("location", &at), ("docker-content-digest", &digest)], "");
            }
            // A mount is an upload where the account has not switched mounting on.
            let id = format!("upload-{}", self.uploads.len() + 1);
            self.uploads.insert(id.clone(), Upload::default());
            return reply(202, &[("location", &at(&id)), ("range", "0-0")], "");
        }
        if head.method == "DELETE" {
            self.uploads.remove(id);
            return reply(204, &[], "");
        }
        if !matches!(head.method.as_str(), "PATCH" | "PUT") {
            // Whether it can be asked nobody knows; who does not believe what it says need not ask.
            self.wrong.push(format!("{} {}", head.method, head.uri));
            return refused(405, "UNSUPPORTED", "no such thing");
        }
        let empty_put = self.refuses_empty_put && head.method == "PUT" && body.is_empty();
        let Some(upload) = self.uploads.get_mut(id) else {
            return refused(404, "BLOB_UPLOAD_UNKNOWN", "no such upload");
        };
        let range = head.headers.get("content-range").and_then(|value| value.to_str().ok());
        let from = upload.bytes.len();
        let fits = match range {
            Some(range) => range == format!("{from}-{}", (from + body.len()).saturating_sub(1)),
            None => from == 0 || body.is_empty(),
        };
        if !fits {
            self.wrong
                .push(format!("{} {} with {range:?} at {from}", head.method, head.uri));
            return refused(416, "BLOB_UPLOAD_INVALID", "another offset");
        }
        if range.is_some() && body.len() > 20 * MIB {
            self.wrong.push(format!("a piece of {} bytes", body.len()));
        }
        if upload.pieces.iter().any(|piece| *piece < 5 * MIB) && !body.is_empty() {
            self.wrong
                .push("a piece of less than 5 MiB that is not the last".to_owned());
            return refused(400, "BLOB_UPLOAD_INVALID", "Layer part size is smaller than 5 MiB");
        }
        if !body.is_empty() {
            upload.bytes.extend_from_slice(body);
            upload.pieces.push(body.len());
        }
        if head.method == "PATCH" {
            // It stays at the end of the first piece.
            let stale = format!("0-{}", upload.pieces.first().map_or(0, |first| first - 1));
            return reply(201, &[("location", &at(id)), ("range", &stale)], "");
        }
        if empty_put {
            return refused(400, "BLOB_UPLOAD_INVALID", "no part came with the request");
        }
        let bytes = Bytes::from(std::mem::take(&mut upload.bytes));
        let query = head.uri.query().unwrap_or_default().as_bytes();
        let wanted =
            url::form_urlencoded::parse(query).find_map(|(key, value)| (key == "digest").then(|| value.into_owned()));
        let found = digest(&bytes);
        if wanted.as_deref() != Some(found.as_str()) {
            return refused(400, "BLOB_UPLOAD_INVALID", "None of the provided layer digests match");
        }
        if let Some(repository) = self.repositories.get_mut(name) {
            repository.blobs.insert(found.clone(), bytes);
        }
        reply(201, &[("docker-content-digest", &found)], "")
    }
}
