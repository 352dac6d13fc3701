//! Reading and removing blobs.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{StatusCode, header};

use super::failure::Failure;
use super::{Asked, Shared};
use crate::oci::{Digest, RepositoryName};

const DIGEST: header::HeaderName = header::HeaderName::from_static("docker-content-digest");

pub(super) fn get(shared: &Shared, asked: &Asked, name: &RepositoryName, digest: &Digest) -> Result<Response, Failure> {
    let blob = shared.storage().blob(name, digest).ok_or_else(Failure::blob_unknown)?;
    let tag = format!("\"{digest}\"");
    let headers = [
        (DIGEST, digest.to_string()),
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::ETAG, tag.clone()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CACHE_CONTROL, "max-age=31536000".to_owned()),
    ];
    if asked.header(header::IF_NONE_MATCH) == Some(&tag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let size = blob.len();
    match asked
        .header(header::RANGE)
        .map_or(Wanted::Whole, |range| Wanted::parse(range, size))
    {
        Wanted::Whole => Ok((headers, blob).into_response()),
        Wanted::Part(start, end) => {
            let range = format!("bytes {start}-{}/{size}", end - 1);
            let part: Bytes = blob.slice(start..end);
            Ok((
                StatusCode::PARTIAL_CONTENT,
                headers,
                [(header::CONTENT_RANGE, range)],
                part,
            )
                .into_response())
        }
        Wanted::Nothing => {
            let range = format!("bytes */{size}");
            let text = "invalid range: failed to overlap\n";
            Ok((
                StatusCode::RANGE_NOT_SATISFIABLE,
                [(header::CONTENT_RANGE, range)],
                text,
            )
                .into_response())
        }
    }
}

pub(super) fn delete(shared: &Shared, name: &RepositoryName, digest: &Digest) -> Result<Response, Failure> {
    if shared.storage().unlink_blob(name, digest) {
        Ok(StatusCode::ACCEPTED.into_response())
    } else {
        Err(Failure::blob_unknown())
    }
}

/// What a `Range` header asks for (RFC 9110, section 14).
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    /// From the first to before the second.
    Part(usize, usize),
    Nothing,
}

impl Wanted {
    fn parse(range: &str, size: usize) -> Self {
        let Some(set) = range.strip_prefix("bytes=") else {
            return Self::Nothing;
        };
        // distribution 3 answers several ranges with the whole.
        if set.contains(',') {
            return Self::Whole;
        }
        let Some((start, end)) = set.trim().split_once('-') else {
            return Self::Nothing;
        };
        match (start.parse::<usize>(), end.parse::<usize>()) {
            (Ok(start), Ok(end)) if start <= end && start < size => Self::Part(start, size.min(end.saturating_add(1))),
            (Ok(start), Err(_)) if end.is_empty() && start < size => Self::Part(start, size),
            (Err(_), Ok(last)) if start.is_empty() && last > 0 && size > 0 => {
                Self::Part(size.saturating_sub(last), size)
            }
            _ => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, wanted) in [
            ("bytes=0-0", Wanted::Part(0, 1)),
            ("bytes=2-4", Wanted::Part(2, 5)),
            ("bytes=2-400", Wanted::Part(2, 10)),
            ("bytes=2-18446744073709551615", Wanted::Part(2, 10)),
            ("bytes=2-", Wanted::Part(2, 10)),
            ("bytes=-3", Wanted::Part(7, 10)),
            ("bytes=-30", Wanted::Part(0, 10)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=4-2", Wanted::Nothing),
            ("bytes=x", Wanted::Nothing),
            ("bytes=0-1,3-4", Wanted::Whole),
        ] {
            assert_eq!(Wanted::parse(text, 10), wanted, "{text}");
        }
    }
}
