//! Decisions about one upload: how the next request is cut, and where a broken one goes on.

use std::time::Duration;

use crate::oci::HashState;

/// How a registry treats the bytes of a broken request.
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

impl UploadHabit {
    const ALL: [Self; 3] = [Self::KeepsBytes, Self::KeepsPieces, Self::KeepsNothing];

    /// The word used in the state database and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeepsBytes => "keeps_bytes",
            Self::KeepsPieces => "keeps_pieces",
            Self::KeepsNothing => "keeps_nothing",
        }
    }

    /// The habit of a word; `None` for a word of another version.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|habit| habit.as_str() == word)
    }
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

const MIB: u64 = 1024 * 1024;

/// Bytes a second from which a broken request costs so little that it is not worth cutting.
pub(super) const FAST_SOURCE: u64 = 32 * MIB;

/// Seconds within which a request may be lost as a whole.
const SHORT: u64 = 30;

/// The most pieces of one upload: under the 10,000 parts of S3 (Amazon S3 user guide, "Multipart upload limits") even
/// where a registry cuts pieces again.
const MOST_PIECES: u64 = 4000;

/// The least piece: S3's least part, on which most registries store (same page).
const LEAST_PIECE: u64 = 5 * MIB;

/// How many seconds of the source one piece holds: a registry that keeps pieces only is asked to remember what came every few
/// seconds, and not for every breath of a slow link.
const PIECE_SECONDS: u64 = 4;

/// The longest piece that is filled in memory before it is sent; longer ones are filled in the spool, or stream where the blob
/// is not there. One that streams is under way as long as the source takes, and with it all that came before is lost when
/// it breaks; so pieces are longer only where the registry wants them longer.
pub const FILL_LIMIT: u64 = 8 * MIB;

/// While one request streams, the hash state is stored at least so often, in bytes. Eight are kept.
const CHECKPOINT_EVERY: u64 = 8 * MIB;

/// Bytes and time after which it is stored where the request is slow. Eight times this much covers what can be on its way to a
/// destination, which we count as sent, and it does not hold: some 10 MiB in the buffers of both ends' sockets.
const CHECKPOINT_OF_SLOW: (u64, Duration) = (2 * MIB, Duration::from_secs(1));

/// Whether the hash state is worth storing now: the last one was stored so many bytes and so long ago.
pub fn checkpoint_due(bytes: u64, time: Duration) -> bool {
    let (least, pause) = CHECKPOINT_OF_SLOW;
    bytes >= CHECKPOINT_EVERY || (bytes >= least && time >= pause)
}

/// Cuts the next request. Bytes kept: one request. Not kept: a blob that the source gives at 32 MiB/s or more, or that will be done within
/// 30 s, goes in one request; a slower one in pieces of what the source gives in 4 s, in whole MiB, up to what is filled in memory; none shorter
/// than max(min_piece, size / 4000, 5 MiB), rounded up to whole MiB, which is the length while the source was not measured yet. All are cut to max_piece.
/// Where nothing at all is kept, pieces gain nothing. The last piece is a `Rest`. No request is longer than `max_piece`.
pub fn next_request(facts: UploadFacts) -> NextRequest {
    let left = facts.size.saturating_sub(facts.offset);
    let largest = facts.max_piece.unwrap_or(u64::MAX).max(1);
    let quick = |rate: u64| rate >= FAST_SOURCE || left <= rate.saturating_mul(SHORT);
    let length = match facts.habit {
        UploadHabit::KeepsBytes | UploadHabit::KeepsNothing => left,
        UploadHabit::KeepsPieces if facts.source_rate.is_some_and(quick) => left,
        UploadHabit::KeepsPieces => {
            let least = facts.min_piece.max(facts.size.div_ceil(MOST_PIECES)).max(LEAST_PIECE);
            let least = least.checked_next_multiple_of(MIB).unwrap_or(least);
            let given = facts.source_rate.unwrap_or(0).saturating_mul(PIECE_SECONDS);
            (given / MIB * MIB).min(FILL_LIMIT).max(least)
        }
    };
    let length = length.min(largest);
    if length >= left {
        NextRequest::Rest
    } else {
        NextRequest::Piece { length }
    }
}

/// Finds the newest checkpoint at or before what the destination holds.
pub fn resume_point(checkpoints: &[Checkpoint], destination_holds: u64) -> ResumePoint {
    let usable = checkpoints
        .iter()
        .filter(|checkpoint| checkpoint.offset <= destination_holds);
    ResumePoint {
        checkpoint: usable.max_by_key(|checkpoint| checkpoint.offset).cloned(),
        send_from: destination_holds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1024 * MIB;

    fn facts() -> UploadFacts {
        UploadFacts {
            habit: UploadHabit::KeepsPieces,
            size: GIB,
            offset: 0,
            source_rate: Some(MIB),
            min_piece: 0,
            max_piece: None,
        }
    }

    fn piece(mib: u64) -> NextRequest {
        NextRequest::Piece { length: mib * MIB }
    }

    #[test]
    fn one_request_where_cutting_gains_nothing() {
        for (habit, rate, offset) in [
            (UploadHabit::KeepsBytes, None, 0),
            (UploadHabit::KeepsBytes, Some(1), 0),
            (UploadHabit::KeepsNothing, Some(1), 0),
            (UploadHabit::KeepsPieces, Some(32 * MIB), 0),
            (UploadHabit::KeepsPieces, Some(MIB), GIB - 30 * MIB),
            (UploadHabit::KeepsPieces, None, GIB - 5 * MIB),
            (UploadHabit::KeepsPieces, None, GIB),
            (UploadHabit::KeepsPieces, None, GIB + 1),
        ] {
            let facts = UploadFacts {
                habit,
                source_rate: rate,
                offset,
                ..facts()
            };
            assert_eq!(next_request(facts), NextRequest::Rest, "{facts:?}");
        }
    }

    #[test]
    fn slow_sources_go_in_pieces() {
        assert_eq!(next_request(facts()), piece(5));
        let unmeasured = UploadFacts {
            source_rate: None,
            ..facts()
        };
        assert_eq!(next_request(unmeasured), piece(5));
        let almost = UploadFacts {
            offset: GIB - 30 * MIB - 1,
            ..facts()
        };
        assert_eq!(next_request(almost), piece(5));
        let large = UploadFacts {
            size: 40 * GIB,
            ..facts()
        };
        assert_eq!(next_request(large), piece(11), "10.24 MiB rounded up");
        let least = UploadFacts {
            min_piece: 8 * MIB + 1,
            ..facts()
        };
        assert_eq!(next_request(least), piece(9));
        let huge = UploadFacts {
            size: u64::MAX,
            source_rate: None,
            ..facts()
        };
        let NextRequest::Piece { length } = next_request(huge) else {
            panic!("a piece")
        };
        assert!(length >= u64::MAX / MOST_PIECES);
    }

    #[test]
    fn pieces_end_every_few_seconds_and_fit_in_memory() {
        let cut = |rate: u64, min_piece: u64, max_piece: Option<u64>| {
            next_request(UploadFacts {
                source_rate: Some(rate),
                min_piece,
                max_piece,
                ..facts()
            })
        };
        assert_eq!(cut(0, 0, None), piece(5));
        assert_eq!(cut(MIB, 0, None), piece(5), "not below S3's least");
        assert_eq!(cut(3 * MIB / 2, 0, None), piece(6));
        assert_eq!(cut(2 * MIB - 1, 0, None), piece(7));
        assert_eq!(cut(20 * MIB, 0, None), piece(8), "more would stream");
        assert_eq!(cut(20 * MIB, 16 * MIB, None), piece(16), "unless the registry wants it");
        assert_eq!(cut(2 * MIB, 0, Some(6 * MIB)), piece(6));
    }

    #[test]
    fn checkpoints_are_dense_where_bytes_are_slow() {
        let due = |mib: u64, millis: u64| checkpoint_due(mib * MIB, Duration::from_millis(millis));
        assert!(!due(7, 999));
        assert!(due(8, 0), "not one a second of a fast one, but one every 8 MiB");
        assert!(!due(1, 60_000), "eight of them cover what is on its way");
        assert!(due(2, 1000));
        assert!(!due(2, 999));
    }

    #[test]
    fn the_largest_piece_binds_every_request() {
        for habit in [
            UploadHabit::KeepsBytes,
            UploadHabit::KeepsPieces,
            UploadHabit::KeepsNothing,
        ] {
            let facts = UploadFacts {
                habit,
                max_piece: Some(4 * MIB),
                ..facts()
            };
            assert_eq!(next_request(facts), piece(4), "{habit:?}");
        }
    }

    #[test]
    fn goes_on_from_the_newest_checkpoint_that_is_held() {
        let checkpoint = |offset: u64| Checkpoint {
            offset,
            state: HashState::from_bytes(offset.to_le_bytes().to_vec()),
        };
        let saved = [checkpoint(8), checkpoint(24), checkpoint(16)];
        for (held, expected) in [
            (0, None),
            (7, None),
            (8, Some(8)),
            (23, Some(16)),
            (24, Some(24)),
            (99, Some(24)),
        ] {
            let point = resume_point(&saved, held);
            assert_eq!(point.checkpoint, expected.map(checkpoint), "{held}");
            assert_eq!(point.send_from, held);
        }
        assert_eq!(resume_point(&[], 5).checkpoint, None);
    }
}
