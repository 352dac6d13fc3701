//! Byte ranges of answers, read with suspicion.

use http::{HeaderMap, header};

/// `Content-Range: bytes first-last/total` (RFC 9110, 14.4); `total` is `None` for `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) total: Option<u64>,
}

impl ContentRange {
    /// Reads a 206's header; `None` where it is missing or makes no sense.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.trim();
        let (unit, rest) = value.split_once(' ')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (range, total) = rest.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let first: u64 = first.trim().parse().ok()?;
        let last: u64 = last.trim().parse().ok()?;
        let total = match total.trim() {
            "*" => None,
            text => Some(text.parse::<u64>().ok()?),
        };
        (first <= last && last < u64::MAX && total.is_none_or(|total| last < total)).then_some(Self {
            first,
            last,
            total,
        })
    }
}

/// Bytes that an upload session says it holds, from its `Range: 0-last`.
///
/// `None` where it says nothing usable: no header, Quay's `0--1`, and `0-0`, which registries write for an empty upload
/// and for one of one byte alike. A prefix `bytes=` or `bytes ` is accepted.
pub(super) fn held_bytes(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(header::RANGE)?.to_str().ok()?.trim();
    let value = value
        .strip_prefix("bytes")
        .unwrap_or(value)
        .trim_start_matches(['=', ' ']);
    let (first, last) = value.split_once('-')?;
    if first.trim() != "0" {
        return None;
    }
    match last.trim().parse::<u64>().ok()? {
        0 => None,
        last => last.checked_add(1),
    }
}

/// The same from the answer to the question where an upload stands. Quay's, which has no `Location`, is `bytes=0-` and how many
/// there are, in place of the last one's offset (quay/quay `endpoints/v2/blob.py`): from one too many it takes nothing more.
pub(super) fn held_by_status(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::RANGE)?.as_bytes();
    let counts = range.starts_with(b"bytes=") && !headers.contains_key(header::LOCATION);
    held_bytes(headers).map(|held| held - u64::from(counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_RANGE, value.parse().expect("a value"));
            ContentRange::read(&headers)
        };
        let range = |first, last, total| Some(ContentRange { first, last, total });
        assert_eq!(read("bytes 5-9/10"), range(5, 9, Some(10)));
        assert_eq!(read("Bytes 5-9/*"), range(5, 9, None));
        for bad in [
            "5-9/10",
            "bytes 9-5/10",
            "bytes 5-10/10",
            "bytes */10",
            "bytes 5-9",
            "items 5-9/10",
            "",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn ranges_of_uploads() {
        let held = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, value.parse().expect("a value"));
            held_bytes(&headers)
        };
        assert_eq!(held("0-99"), Some(100));
        assert_eq!(held("bytes=0-99"), Some(100));
        assert_eq!(held("bytes 0-99"), Some(100));
        for unknown in ["0-0", "bytes=0--1", "0-", "", "5-9", "x"] {
            assert_eq!(held(unknown), None, "{unknown}");
        }
        assert_eq!(held(&format!("0-{}", u64::MAX)), None);
        assert_eq!(held_bytes(&HeaderMap::new()), None);
    }

    #[test]
    fn quay_counts_the_bytes_of_an_upload() {
        let held = |range: &str, location: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, range.parse().expect("a value"));
            if location {
                headers.insert(header::LOCATION, "/v2/app/blobs/uploads/1".parse().expect("a value"));
            }
            held_by_status(&headers)
        };
        assert_eq!(
            (held("bytes=0-100", false), held("bytes=0-1", false)),
            (Some(100), Some(1))
        );
        assert_eq!((held("bytes=0-99", true), held("0-99", false)), (Some(100), Some(100)));
        assert_eq!((held("bytes=0-0", false), held("bytes=0--1", false)), (None, None));
    }
}
