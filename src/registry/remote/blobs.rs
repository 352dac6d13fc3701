//! Reading blobs.

use std::ops::Range;

use futures_util::StreamExt;
use http::{HeaderValue, Method, StatusCode, header};
use tokio::time::Instant;

use super::auth::Scopes;
use super::body::{BodyFault, Incoming};
use super::call::{Answer, Call, body_error};
use super::manifests::content_length;
use super::ranges::ContentRange;
use super::throttle::{Class, Direction, Flow, Permit};
use super::{Registry, Taken};
use crate::oci::{Digest, Reference, RepositoryName};
use crate::registry::{BlobReader, Error, ErrorKind, Operation, Patience, Place, Result};

impl Registry {
    /// Length of a blob that is there, `None` where it is not.
    pub async fn head_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>> {
        let call = self.blob_call(Operation::FindBlob, Method::HEAD, repository, digest)?;
        let answer = self.run(call).await?;
        match answer.status {
            StatusCode::OK => match content_length(&answer.headers) {
                Some(length) => Ok(Some(length)),
                None => self.length_by_range(repository, digest).await,
            },
            StatusCode::NOT_FOUND if !answer.elsewhere => Ok(None),
            // A signed address is signed for one method: for GET, where the registry does not think of HEAD.
            StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED if answer.elsewhere => {
                self.length_by_range(repository, digest).await
            }
            StatusCode::METHOD_NOT_ALLOWED => self.length_by_range(repository, digest).await,
            _ => Err(answer.into_error(self.user()).await),
        }
    }

    async fn length_by_range(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>> {
        let call = self
            .blob_call(Operation::FindBlob, Method::GET, repository, digest)?
            // By the client for blobs: where ranges are ignored the answer is the blob, and its connection is thrown away.
            .class(Class::BlobRead)
            .header(header::RANGE, HeaderValue::from_static("bytes=0-0"));
        let answer = self.run(call).await?;
        let length = match answer.status {
            StatusCode::PARTIAL_CONTENT => ContentRange::read(&answer.headers).and_then(|range| range.total),
            StatusCode::OK => content_length(&answer.headers),
            // There is no first byte.
            StatusCode::RANGE_NOT_SATISFIABLE => Some(0),
            StatusCode::NOT_FOUND if !answer.elsewhere => return Ok(None),
            _ => return Err(answer.into_error(self.user()).await),
        };
        match length {
            Some(length) => Ok(Some(length)),
            None => Err(answer.broken_protocol("the registry does not say how long the blob is")),
        }
    }

    /// Opens a blob at an offset. The reader begins at 0 where ranges are ignored.
    ///
    /// The place in the window of blob reads is held until the reader ends or is dropped; it is the one of
    /// [`Registry::with_reading_place`] where there is one. Whoever copies takes the reader before the write it feeds,
    /// so that two copies cannot wait for each other's.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` where the offset is not within the blob, or the answer is another range than asked for.
    pub async fn open_blob(&self, repository: &RepositoryName, digest: &Digest, offset: u64) -> Result<BlobReader> {
        self.read(repository, digest, self.turn().await, offset..u64::MAX).await
    }

    /// Opens the bytes `range` of a blob: see [`crate::registry::Endpoint::open_blob_range`].
    pub async fn open_blob_range(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: Range<u64>,
        patience: Patience,
    ) -> Result<Option<BlobReader>> {
        let turn = match patience {
            Patience::Waits => self.turn().await,
            Patience::NoWait => match self.turn_at_once() {
                None => return Ok(None),
                turn => turn,
            },
        };
        self.read(repository, digest, turn, range).await.map(Some)
    }

    /// Sends a read of the bytes `asked` of a blob, in the place of `turn` or another, and gives what comes, which may be all
    /// of it. An `asked` that ends at `u64::MAX` has no end, and one that begins at 0 as well is no range.
    async fn read(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        turn: Option<Taken>,
        asked: Range<u64>,
    ) -> Result<BlobReader> {
        if let Some(mirrors) = &self.mirrors {
            return Box::pin(self.open_mirrored(mirrors, repository, digest, asked, turn)).await;
        }
        let call = self.ranged_call(repository, digest, &asked)?;
        let answer = match &turn {
            Some(taken) => self.run_in_place(taken, call).await?,
            None => self.run(call).await?,
        };
        self.reader(answer, turn, asked).await
    }

    /// The read of the bytes `asked`, as [`Registry::read`] takes them.
    pub(super) fn ranged_call(&self, repository: &RepositoryName, digest: &Digest, asked: &Range<u64>) -> Result<Call> {
        let call = self.blob_call(Operation::ReadBlob, Method::GET, repository, digest)?;
        let call = call.class(Class::BlobRead);
        match (asked.start, asked.end) {
            (0, u64::MAX) => Ok(call),
            (start, u64::MAX) => with_range(call, &format!("bytes={start}-")),
            (start, end) => with_range(call, &format!("bytes={start}-{}", end.saturating_sub(1))),
        }
    }

    /// What an answer to a read of `asked` gives. `turn` is held until its end, beside the answer's own place.
    pub(super) async fn reader(&self, answer: Answer, turn: Option<Taken>, asked: Range<u64>) -> Result<BlobReader> {
        let Range { start, end } = asked;
        let place = answer.place.clone();
        let opened = Instant::now();
        let in_part = start > 0 || end < u64::MAX;
        let said = answer.headers.get(header::ACCEPT_RANGES);
        let said = said.is_some_and(|units| units.as_bytes().eq_ignore_ascii_case(b"bytes"));
        let (offset, left, total) = match answer.status {
            StatusCode::OK => {
                let length = content_length(&answer.headers);
                (0, length, length)
            }
            StatusCode::PARTIAL_CONTENT if in_part => match ContentRange::read(&answer.headers) {
                Some(range) if range.first == start && range.last < end => {
                    // What is missing of an open end is noticed as a cut.
                    let all = range.total.filter(|_| end == u64::MAX);
                    (start, Some(all.unwrap_or(range.last + 1) - start), range.total)
                }
                Some(range) => {
                    let message = format!(
                        "bytes from {start} were asked for, bytes {}-{} came",
                        range.first, range.last
                    );
                    return Err(answer.broken_protocol(message));
                }
                None => {
                    return Err(
                        answer.broken_protocol("a part of the blob came without saying which (no Content-Range)")
                    );
                }
            },
            StatusCode::RANGE_NOT_SATISFIABLE => {
                return Err(answer.broken_protocol(format!("the blob has no byte at offset {start}")));
            }
            StatusCode::PARTIAL_CONTENT => {
                return Err(answer.broken_protocol("the whole blob was asked for, a part of it came"));
            }
            _ => return Err(answer.into_error(self.user()).await),
        };
        // Who ignores a range may say what it likes.
        let gives_parts = match answer.status {
            StatusCode::PARTIAL_CONTENT => true,
            _ => said && !in_part,
        };
        let (incoming, permit) = answer.into_body();
        let reading = Reading {
            incoming,
            left,
            place,
            flow: self.shared.transport.flow(Direction::Down, left),
            opened,
            _permit: permit,
            _taken: turn,
        };
        let stream = futures_util::stream::unfold(Some(reading), |reading| async move {
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(reading))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(BlobReader {
            offset,
            total,
            gives_parts,
            mirrored: false,
            stream: stream.boxed(),
        })
    }

    fn blob_call(
        &self,
        operation: Operation,
        method: Method,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Call> {
        let url = self.repository_url(repository, &format!("blobs/{digest}"))?;
        let place = self.place(Some(repository), Some(&Reference::Digest(digest.clone())));
        Ok(Call::new(operation, place, method, url, Scopes::pull(repository)))
    }
}

fn with_range(call: Call, range: &str) -> Result<Call> {
    let value = HeaderValue::from_str(range);
    let value = value.map_err(|error| call.error(ErrorKind::Invalid, "no such offset").caused_by(error))?;
    Ok(call.header(header::RANGE, value))
}

/// A blob's body under way.
struct Reading {
    incoming: Incoming,
    /// Bytes still to come, where known.
    left: Option<u64>,
    place: Place,
    flow: Flow,
    opened: Instant,
    _permit: Option<Permit>,
    _taken: Option<Taken>,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<bytes::Bytes>> {
        let chunk = match self.incoming.next().await {
            Ok(chunk) => chunk,
            Err(fault) => {
                if matches!(fault, BodyFault::Broken(_)) {
                    self.flow.broke(self.opened);
                }
                return Err(body_error(Operation::ReadBlob, self.place.clone(), fault));
            }
        };
        if let Some(bytes) = &chunk {
            self.flow.pass(bytes.len()).await;
        }
        let Some(left) = &mut self.left else {
            return Ok(chunk);
        };
        let fault = |kind, message: String| Error::new(Operation::ReadBlob, self.place.clone(), kind, message);
        match &chunk {
            None if *left > 0 => {
                let message = format!("the answer was cut: {left} more bytes were announced");
                return Err(fault(ErrorKind::Network, message));
            }
            None => {}
            Some(bytes) => {
                *left = left.checked_sub(bytes.len() as u64).ok_or_else(|| {
                    fault(
                        ErrorKind::Corrupt,
                        "more bytes came than the registry announced".to_owned(),
                    )
                })?;
            }
        }
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::super::throttle::Limiter;
    use super::*;
    use crate::registry::Limits;

    #[tokio::test(start_paused = true)]
    async fn what_is_read_keeps_to_the_bandwidth() {
        let limits = Limits {
            bandwidth: Some(100_000),
            ..Limits::default()
        };
        let throttle = Limiter::default().throttle("there", "there", limits);
        let chunks = (0..50).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![0; 20_000])));
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
        let response = reqwest::Response::from(http::Response::new(body));
        let mut reading = Reading {
            incoming: Incoming::new(response),
            left: None,
            place: Place::default(),
            flow: throttle.flow(Direction::Down, None),
            opened: Instant::now(),
            _permit: None,
            _taken: None,
        };
        let start = Instant::now();
        let mut read = 0;
        while let Some(bytes) = reading.next().await.expect("bytes") {
            read += bytes.len();
        }
        assert_eq!(read, 1_000_000);
        let time = start.elapsed().as_secs_f64();
        assert!((9.5..=10.0).contains(&time), "{time}");
    }
}
