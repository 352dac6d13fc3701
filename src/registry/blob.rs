//! The bytes of blobs on their way in and out, and uploads as they stand.

use bytes::Bytes;

use super::error::Result;
use crate::oci::{Digest, RepositoryName};

/// The body of a write: bytes as they come, or the error that ends it early. Length is given beside it.
pub type BodyStream = futures_util::stream::BoxStream<'static, std::io::Result<Bytes>>;

/// What a mount came to.
#[derive(Debug)]
pub enum MountOutcome {
    /// The blob is in the repository now.
    Mounted,
    /// Refused, and an upload was opened instead.
    Opened(BlobWrite),
    /// Refused with an error that a plain upload does not care about.
    Refused,
}

/// Where a stored upload stands.
#[derive(Debug)]
pub enum SessionState {
    /// It goes on from this many bytes.
    Open {
        /// The write, with the newest location.
        write: BlobWrite,
        /// Bytes that the destination holds.
        offset: u64,
    },
    /// It is gone; the blob starts again.
    Gone,
}

/// An unfinished write as an opaque value that can be stored ([`BlobWrite::to_stored`]).
#[derive(Clone, PartialEq, Eq)]
pub struct BlobWrite {
    /// Repository that it is in.
    pub(super) repository: RepositoryName,
    /// Newest location (URL with the session's state), or the path of a temporary file.
    pub(super) location: String,
    /// Smallest piece but the last, in bytes (`OCI-Chunk-Min-Length`).
    pub(super) min_piece: Option<u64>,
}

impl std::fmt::Debug for BlobWrite {
    /// Without the location, whose query may be a signature.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobWrite")
            .field("repository", &self.repository)
            .field("min_piece", &self.min_piece)
            .finish_non_exhaustive()
    }
}

impl BlobWrite {
    /// The text to store. It may hold the registry's session state, never a credential.
    pub fn to_stored(&self) -> String {
        serde_json::json!({ "repository": self.repository, "location": self.location, "min_piece": self.min_piece })
            .to_string()
    }

    /// A write as stored earlier.
    pub fn from_stored(text: &str) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Stored {
            repository: RepositoryName,
            location: String,
            min_piece: Option<u64>,
        }
        let Stored {
            repository,
            location,
            min_piece,
        } = serde_json::from_str(text).ok()?;
        Some(Self {
            repository,
            location,
            min_piece,
        })
    }

    /// Smallest piece but the last, in bytes, where the registry named one.
    pub fn min_piece(&self) -> Option<u64> {
        self.min_piece
    }
}

/// A blob finished at the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedBlob {
    /// Its digest, as asked for.
    pub digest: Digest,
}

/// An open blob, read piece by piece.
pub struct BlobReader {
    /// Offset of the first byte that [`BlobReader::next`] gives. Less than asked for where the end ignores ranges
    /// (then the caller skips); never more.
    pub offset: u64,
    /// Length of the whole blob, where said.
    pub total: Option<u64>,
    /// True where a registry has shown, or says, that it gives parts of blobs. A layout holds no connection that anyone
    /// would gain by closing.
    pub gives_parts: bool,
    /// True where a mirror gives it: what that makes of ranges says nothing of the registry.
    pub mirrored: bool,
    pub(super) stream: futures_util::stream::BoxStream<'static, Result<Bytes>>,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobReader")
            .field("offset", &self.offset)
            .field("total", &self.total)
            .field("gives_parts", &self.gives_parts)
            .finish_non_exhaustive()
    }
}

/// The bytes; ends at the end. A stall, a cut or more bytes than announced is an error.
impl futures_util::Stream for BlobReader {
    type Item = Result<Bytes>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.stream.as_mut().poll_next(context)
    }
}

impl BlobReader {
    /// The next bytes; `None` at the end. A stall, a cut or more bytes than announced is an error.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        futures_util::StreamExt::next(&mut self.stream).await
    }
}

/// Whether a request waits until the registry's window has a place for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It waits.
    Waits,
    /// Sent at once or not at all.
    NoWait,
}
