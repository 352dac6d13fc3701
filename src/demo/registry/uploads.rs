//! Upload sessions (distribution-spec "Pushing blobs").

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::BodyExt as _;

use super::failure::Failure;
use super::storage::Upload;
use super::{Asked, Shared};
use crate::oci::{Algorithm, Digest, RepositoryName};

const INVALID: Failures = Failures("BLOB_UPLOAD_INVALID", "blob upload invalid");
const UNKNOWN: Failures = Failures("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");

/// Two refusals of distribution that share a status.
struct Failures(&'static str, &'static str);

impl From<Failures> for Failure {
    fn from(Failures(code, message): Failures) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }
}

fn lock(upload: &Mutex<Upload>) -> MutexGuard<'_, Upload> {
    upload.lock().unwrap_or_else(PoisonError::into_inner)
}

/// POST: mounts where that is asked for and possible, else opens a session. A body is thrown away, as is a
/// `digest` parameter: distribution has no upload in one request.
pub(super) fn start(shared: &Shared, asked: &Asked, name: &RepositoryName) -> Result<Response, Failure> {
    let mut storage = shared.storage();
    if let (Some(digest), Some(from)) = (asked.query("mount"), asked.query("from"))
        && let (Ok(digest), Ok(from)) = (digest.parse::<Digest>(), from.parse::<RepositoryName>())
        && storage.mount(&from, name, &digest)
    {
        return Ok(created(asked, name, &digest));
    }
    let id = storage.start_upload(name);
    let mut response = progress(shared, asked, StatusCode::ACCEPTED, name, &id, 0);
    if let Some(least) = shared.options.least_piece {
        let name = header::HeaderName::from_static("oci-chunk-min-length");
        response.headers_mut().insert(name, least.into());
    }
    Ok(response)
}

/// GET: where the upload stands, and where to go on.
pub(super) fn status(shared: &Shared, asked: &Asked, name: &RepositoryName, id: &str) -> Result<Response, Failure> {
    let upload = open(shared, asked, name, id)?;
    let size = lock(&upload).data.len();
    Ok(progress(shared, asked, StatusCode::NO_CONTENT, name, id, size))
}

/// PATCH: appends. What a broken request brought stays.
pub(super) async fn patch(
    shared: &Shared,
    asked: &Asked,
    name: &RepositoryName,
    id: &str,
    body: Body,
) -> Result<Response, Failure> {
    let upload = open(shared, asked, name, id)?;
    if shared.options.habits.checks_content_range {
        check_range(asked, lock(&upload).data.len())?;
    }
    append(shared, asked, &upload, body).await?;
    let size = lock(&upload).data.len();
    Ok(progress(shared, asked, StatusCode::ACCEPTED, name, id, size))
}

/// PUT: appends, then checks the digest and closes.
pub(super) async fn finish(
    shared: &Shared,
    asked: &Asked,
    name: &RepositoryName,
    id: &str,
    body: Body,
) -> Result<Response, Failure> {
    let upload = open(shared, asked, name, id)?;
    let digest = asked.query("digest").and_then(|text| text.parse::<Digest>().ok());
    let digest = digest.ok_or_else(Failure::digest_invalid)?;
    append(shared, asked, &upload, body).await?;

    let mut storage = shared.storage();
    let mut upload = lock(&upload);
    // Content is kept under its sha256 name, whatever algorithm the client checked it with.
    let canonical = upload.hasher.clone().finish();
    let matches = match digest.algorithm() {
        Algorithm::Sha256 => digest == canonical,
        Algorithm::Sha512 => digest.matches(&upload.data),
    };
    if !matches {
        // The upload stays, with what this request brought.
        return Err(Failure::digest_invalid());
    }
    let size = upload.data.len() as u64;
    if shared.options.quota.is_some_and(|quota| storage.used() + size > quota) {
        return Err(Failure::denied("the blob would exceed the project's storage quota"));
    }
    let bytes = Bytes::from(std::mem::take(&mut upload.data));
    storage.end_upload(name, id);
    storage.add_blob(name, canonical.clone(), bytes);
    Ok(created(asked, name, &canonical))
}

/// DELETE: gives the upload up.
pub(super) fn cancel(shared: &Shared, asked: &Asked, name: &RepositoryName, id: &str) -> Result<Response, Failure> {
    open(shared, asked, name, id)?;
    shared.storage().end_upload(name, id);
    Ok((StatusCode::NO_CONTENT, [("docker-upload-uuid", id)]).into_response())
}

fn open(shared: &Shared, asked: &Asked, name: &RepositoryName, id: &str) -> Result<Arc<Mutex<Upload>>, Failure> {
    let upload = shared.storage().upload(name, id);
    if shared.options.habits.offset_in_location {
        let offset = asked.query("_state").and_then(read_state).ok_or(INVALID)?;
        let upload = upload.ok_or(UNKNOWN)?;
        if lock(&upload).data.len() != offset {
            return Err(INVALID.into());
        }
        return Ok(upload);
    }
    Ok(upload.ok_or(UNKNOWN)?)
}

fn read_state(state: &str) -> Option<usize> {
    state.strip_prefix("offset-")?.parse().ok()
}

/// distribution 3: only with both headers, and `Content-Range` as `start-end` without a unit.
fn check_range(asked: &Asked, size: usize) -> Result<(), Failure> {
    let (Some(range), Some(length)) = (
        asked.header(header::CONTENT_RANGE),
        asked.header(header::CONTENT_LENGTH),
    ) else {
        return Ok(());
    };
    let refused = |code, message| Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, code, message);
    let invalid = || refused("RANGE_INVALID", "invalid content range");
    let (start, end) = range.split_once('-').ok_or_else(invalid)?;
    let (start, end): (usize, usize) = (
        start.parse().map_err(|_| invalid())?,
        end.parse().map_err(|_| invalid())?,
    );
    if start > end || start != size {
        return Err(invalid());
    }
    let length = length.parse::<usize>().ok().and_then(|length| length.checked_sub(1));
    if length != Some(end - start) {
        return Err(Failure::new(
            StatusCode::BAD_REQUEST,
            "SIZE_INVALID",
            "provided length did not match content length",
        ));
    }
    Ok(())
}

async fn append(shared: &Shared, asked: &Asked, upload: &Mutex<Upload>, mut body: Body) -> Result<(), Failure> {
    while let Some(frame) = body.frame().await {
        // Nobody reads this answer: the client is gone. What came before stays.
        let frame = frame.map_err(|_| Failure::new(StatusCode::BAD_REQUEST, "UNKNOWN", "client disconnected"))?;
        if let Ok(data) = frame.into_data() {
            lock(upload).append(&data);
            shared.note(asked.index, |entry| entry.received += data.len() as u64);
        }
    }
    Ok(())
}

fn progress(
    shared: &Shared,
    asked: &Asked,
    status: StatusCode,
    name: &RepositoryName,
    id: &str,
    size: usize,
) -> Response {
    let path = match shared.options.takes_incomplete {
        true => format!("/v2/{name}/blobs/uploads/{id}"),
        false => format!("/v2/{name}/blobs/uploads/{id}?_state=offset-{size}"),
    };
    // Zero bytes and one byte read the same, as in distribution.
    let range = format!("0-{}", size.saturating_sub(1));
    let location = asked.absolute(&path);
    let headers = [
        (header::LOCATION, location.as_str()),
        (header::RANGE, &range),
        (header::HeaderName::from_static("docker-upload-uuid"), id),
    ];
    (status, headers).into_response()
}

fn created(asked: &Asked, name: &RepositoryName, digest: &Digest) -> Response {
    let location = asked.absolute(&format!("/v2/{name}/blobs/{digest}"));
    let headers = [
        (header::LOCATION, location),
        (
            header::HeaderName::from_static("docker-content-digest"),
            digest.to_string(),
        ),
    ];
    (StatusCode::CREATED, headers).into_response()
}
