//! Decisions about one upload: how the next request is cut, and where a broken one goes on.

use crate::oci::HashState;

/// How a registry treats the bytes of a broken request .
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UploadHabit {
    /// Kept to the byte and reported: distribution 3, olareg.
    KeepsBytes,
    /// Lost with the session; what earlier requests brought stays: the distribution 2.8 family.
    KeepsPieces,
    /// An upload cannot be taken up again at all.
    KeepsNothing,
}

/// What is known when the next request of an upload is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadFacts {
    /// How the destination treats broken bodies.
    pub habit: UploadHabit,
    /// Length of the blob in bytes.
    pub size: u64,
    /// Bytes that the destination holds.
    pub offset: u64,
    /// Bytes a second that the source gave lately, where measured.
    pub source_rate: Option<u64>,
    /// The destination's smallest piece but the last, in bytes.
    pub min_piece: u64,
    /// Its largest, in bytes.
    pub max_piece: Option<u64>,
}

/// How the next request is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextRequest {
    /// Everything that is left, in the closing request.
    Rest,
    /// A piece of this many bytes, filled before it is sent.
    Piece {
        /// Bytes.
        length: u64,
    },
}

/// A hash state saved at an offset of the blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Bytes hashed.
    pub offset: u64,
    /// The state after them.
    pub state: HashState,
}

/// Where a broken transfer goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// The source is read from here, with this state (`None`: from 0 with an empty hash).
    pub checkpoint: Option<Checkpoint>,
    /// The destination is sent bytes from here.
    pub send_from: u64,
}

/// Cuts the next request. Bytes kept: one request. Not kept: a blob that the source gives at 32 MiB/s or more, or that will be done within
/// 30 s, goes in one request; a slower one, or one whose source was not measured yet, in pieces of max(min_piece, size / 4000, 5 MiB), cut to max_piece, rounded up to whole MiB.
/// The last piece is a `Rest`.
pub fn next_request(facts: UploadFacts) -> NextRequest {
    let _ = facts;
    unimplemented!()
}

/// Finds the newest checkpoint at or before what the destination holds.
pub fn resume_point(checkpoints: &[Checkpoint], destination_holds: u64) -> ResumePoint {
    let _ = (checkpoints, destination_holds);
    unimplemented!()
}
