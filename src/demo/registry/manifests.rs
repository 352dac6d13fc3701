//! Manifests, tags and referrers.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};

use super::failure::Failure;
use super::storage::{Repository, Storage, Stored};
use super::{Asked, Shared};
use crate::oci::{Digest, MAX_MANIFEST_SIZE, Manifest, ManifestShape, Reference, RepositoryName, media_type};

const DIGEST: header::HeaderName = header::HeaderName::from_static("docker-content-digest");
const SUBJECT: header::HeaderName = header::HeaderName::from_static("oci-subject");
const FILTERS: header::HeaderName = header::HeaderName::from_static("oci-filters-applied");

pub(super) fn get(
    shared: &Shared,
    asked: &Asked,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Response, Failure> {
    let storage = shared.storage();
    let repository = storage.repository(name).ok_or_else(Failure::manifest_unknown)?;
    let mut digest = find(repository, reference)
        .ok_or_else(Failure::manifest_unknown)?
        .clone();
    let mut stored = repository.manifest(&digest).ok_or_else(Failure::manifest_unknown)?;

    let accepts = |media_type: &str| accepts(asked, media_type);
    let refused = match stored.media_type.as_str() {
        media_type::OCI_MANIFEST => !accepts(media_type::OCI_MANIFEST),
        media_type::OCI_INDEX => shared.options.habits.index_needs_accept && !accepts(media_type::OCI_INDEX),
        _ => false,
    };
    if refused {
        return Err(Failure::manifest_unknown());
    }
    // For clients of before 2016: a list asked for by tag becomes its linux/amd64 image.
    if stored.media_type == media_type::DOCKER_LIST
        && reference.tag().is_some()
        && !accepts(media_type::DOCKER_LIST)
        && let Some(child) = linux_amd64(stored)
    {
        stored = repository.manifest(&child).ok_or_else(Failure::manifest_unknown)?;
        digest = child;
    }

    let tag = format!("\"{digest}\"");
    let matched = asked.header(header::IF_NONE_MATCH);
    if matched.is_some_and(|value| value == tag || value == digest.to_string()) {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    let headers = [
        (DIGEST, digest.to_string()),
        (header::CONTENT_TYPE, stored.media_type.clone()),
        (header::ETAG, tag),
    ];
    Ok((headers, stored.bytes.clone()).into_response())
}

fn find<'a>(repository: &'a Repository, reference: &'a Reference) -> Option<&'a Digest> {
    match reference {
        Reference::Tag(tag) => repository.tagged(tag),
        Reference::Digest(digest) => Some(digest),
    }
}

/// `*/*` counts for nothing, as in distribution.
fn accepts(asked: &Asked, media_type: &str) -> bool {
    let values = asked.headers.get_all(header::ACCEPT);
    values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|part| part.split(';').next())
        .any(|part| part.trim() == media_type)
}

fn linux_amd64(list: &Stored) -> Option<Digest> {
    let document: Value = serde_json::from_slice(&list.bytes).ok()?;
    let entry = document.get("manifests")?.as_array()?.iter().find(|entry| {
        let platform = &entry["platform"];
        platform["architecture"] == "amd64" && platform["os"] == "linux"
    })?;
    entry["digest"].as_str()?.parse().ok()
}

pub(super) async fn put(
    shared: &Shared,
    asked: &Asked,
    name: &RepositoryName,
    reference: Reference,
    body: Body,
) -> Result<Response, Failure> {
    let limit = usize::try_from(MAX_MANIFEST_SIZE).unwrap_or(usize::MAX);
    let collected = Limited::new(body, limit).collect().await;
    let bytes = collected.map_err(|_| Failure::manifest_invalid())?.to_bytes();
    shared.note(asked.index, |entry| entry.received += bytes.len() as u64);

    let content_type = asked.header(header::CONTENT_TYPE).unwrap_or_default();
    let manifest = read(content_type, bytes)?;
    if let Reference::Digest(digest) = &reference
        && digest != manifest.digest()
    {
        return Err(Failure::digest_invalid());
    }
    let mut storage = shared.storage();
    check_content(shared, &storage, name, &manifest)?;

    let digest = manifest.digest().clone();
    let stored = Stored {
        media_type: manifest.media_type().to_owned(),
        bytes: manifest.bytes().clone(),
    };
    storage
        .repository_mut(name)
        .put(digest.clone(), stored, reference.tag());
    let headers = [
        (
            header::LOCATION,
            asked.absolute(&format!("/v2/{name}/manifests/{digest}")),
        ),
        (DIGEST, digest.to_string()),
    ];
    let mut response = (StatusCode::CREATED, headers).into_response();
    if shared.options.referrers_api
        && let Some(subject) = manifest.subject()
        && let Ok(value) = subject.digest.to_string().parse()
    {
        response.headers_mut().insert(SUBJECT, value);
    }
    Ok(response)
}

/// The four types that distribution takes, and only where `Content-Type` is the manifest's own type.
fn read(content_type: &str, bytes: Bytes) -> Result<Manifest, Failure> {
    let content_type = content_type.split(';').next().unwrap_or_default().trim();
    let shape = match content_type {
        media_type::OCI_INDEX | media_type::DOCKER_LIST => ManifestShape::Index,
        media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => ManifestShape::Image,
        _ => return Err(Failure::manifest_invalid()),
    };
    let own: Value = serde_json::from_slice(&bytes).map_err(|_| Failure::manifest_invalid())?;
    // Only OCI documents may leave their type out.
    let own = own["mediaType"].as_str();
    let oci = matches!(content_type, media_type::OCI_INDEX | media_type::OCI_MANIFEST);
    if own.is_some_and(|own| own != content_type) || (own.is_none() && !oci) {
        return Err(Failure::manifest_invalid());
    }
    let manifest = Manifest::parse(Some(content_type), bytes, None).map_err(|_| Failure::manifest_invalid())?;
    if manifest.shape() == shape {
        Ok(manifest)
    } else {
        Err(Failure::manifest_invalid())
    }
}

fn check_content(
    shared: &Shared,
    storage: &Storage,
    name: &RepositoryName,
    manifest: &Manifest,
) -> Result<(), Failure> {
    let unknown = || {
        Failure::new(
            StatusCode::BAD_REQUEST,
            "MANIFEST_BLOB_UNKNOWN",
            "blob unknown to registry",
        )
    };
    for blob in manifest.blobs() {
        if blob.is_foreign() && !blob.urls.is_empty() {
            if !shared.options.allow_foreign {
                return Err(Failure::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "UNKNOWN",
                    "unknown error",
                ));
            }
        } else if !shared.options.takes_incomplete && storage.blob(name, &blob.digest).is_none() {
            return Err(unknown());
        }
    }
    for entry in manifest.entries() {
        let there = storage
            .repository(name)
            .is_some_and(|repository| repository.manifest(&entry.digest).is_some());
        if !there {
            return Err(unknown());
        }
    }
    Ok(())
}

pub(super) fn delete(shared: &Shared, name: &RepositoryName, reference: &Reference) -> Result<Response, Failure> {
    let mut storage = shared.storage();
    if storage.repository(name).is_none() {
        return Err(Failure::name_unknown());
    }
    let repository = storage.repository_mut(name);
    let gone = match reference {
        Reference::Digest(digest) => repository.remove_manifest(digest),
        Reference::Tag(tag) if shared.options.habits.deletes_tags => repository.remove_tag(tag),
        Reference::Tag(_) => return Err(Failure::digest_invalid()),
    };
    if gone {
        Ok(StatusCode::ACCEPTED.into_response())
    } else {
        Err(Failure::manifest_unknown())
    }
}

/// The referrers of a digest as an index; an empty one where there are none (distribution-spec
/// "Listing Referrers").
pub(super) fn referrers(
    shared: &Shared,
    asked: &Asked,
    name: &RepositoryName,
    subject: &Digest,
) -> Result<Response, Failure> {
    if !shared.options.referrers_api {
        return Err(Failure::page_not_found());
    }
    let filter = asked.query("artifactType");
    let storage = shared.storage();
    let manifests = storage.repository(name).into_iter().flat_map(Repository::manifests);
    let entries: Vec<Value> = manifests
        .filter_map(|(digest, stored)| entry(digest, stored, subject))
        .filter(|entry| filter.is_none_or(|filter| entry["artifactType"] == filter))
        .collect();
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries });
    let headers = [(header::CONTENT_TYPE, media_type::OCI_INDEX)];
    let mut response = (headers, index.to_string()).into_response();
    if filter.is_some() {
        let applied = header::HeaderValue::from_static("artifactType");
        response.headers_mut().insert(FILTERS, applied);
    }
    Ok(response)
}

fn entry(digest: &Digest, stored: &Stored, subject: &Digest) -> Option<Value> {
    let manifest = Manifest::parse(Some(&stored.media_type), stored.bytes.clone(), None).ok()?;
    if manifest.subject()?.digest != *subject {
        return None;
    }
    let mut entry = json!({ "mediaType": stored.media_type, "digest": digest, "size": stored.bytes.len() });
    if let Some(artifact_type) = manifest.artifact_type() {
        entry["artifactType"] = json!(artifact_type);
    }
    let annotations = manifest.annotations();
    if !annotations.is_empty() {
        entry["annotations"] = json!(annotations);
    }
    Some(entry)
}
