//! Decisions about the spool: which blobs go there, what makes room for one, and when one is no longer needed.

use super::failure::ErrorKind;
use super::upload::FAST_SOURCE;

/// What is known when a blob is about to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolFacts {
    /// Length of the blob in bytes.
    pub size: u64,
    /// Bytes a second that the source gave lately, where measured.
    pub source_rate: Option<u64>,
    /// True where the source is a directory of this machine.
    pub local_source: bool,
    /// True where any destination may lose what it was sent when a request breaks.
    pub may_lose: bool,
    /// Bytes of the blob that the spool holds from an earlier read.
    pub held: u64,
}

/// Whether a blob goes through the spool, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolDecision {
    /// What the spool holds is read from it; what comes from the source is added.
    Spool,
    /// The blob is small: reading it again costs little.
    Small,
    /// The source gives so fast, or is so near, that reading it again costs little.
    Near,
    /// The destinations keep what they were sent: nothing will be read again.
    Kept,
}

/// Bytes from which a blob is worth a file: what a slow link of 10 Mbit/s brings in a quarter of a minute. Below it the
/// destination's habit is not known either.
const SPOOL_FROM: u64 = 16 * 1024 * 1024;

/// Decides about one blob; asked again while it is read, as only then it shows how fast the source is. What an earlier read
/// has left is used in any case, and added to: it was paid for.
pub fn spool_decision(facts: SpoolFacts) -> SpoolDecision {
    if facts.held > 0 {
        SpoolDecision::Spool
    } else if facts.size < SPOOL_FROM {
        SpoolDecision::Small
    } else if facts.local_source || facts.source_rate.is_some_and(|rate| rate >= FAST_SOURCE) {
        SpoolDecision::Near
    } else if facts.may_lose {
        SpoolDecision::Spool
    } else {
        SpoolDecision::Kept
    }
}

/// True where a blob of this length can be in the spool at all.
pub fn may_be_spooled(size: u64) -> bool {
    size >= SPOOL_FROM
}

/// A file in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolEntry {
    /// Bytes that it takes, or will take.
    pub bytes: u64,
    /// When it was last written, in any unit that grows with time; `None` while a transfer uses it.
    pub idle_since: Option<i64>,
}

/// The file system that the spool is on, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What we and others use and what we could: less than its size where some is kept for root.
    pub capacity: u64,
    /// What we could use.
    pub available: u64,
}

impl Disk {
    /// True where at least a tenth would be free when `more` bytes have been written.
    pub fn has_room_for(self, more: u64) -> bool {
        self.available
            .checked_sub(more)
            .is_some_and(|left| left >= self.capacity.div_ceil(10))
    }
}

/// What must be removed so that a file which takes `has` bytes may grow to `wants`: indices of idle entries, the oldest first.
/// `None` where that would not do. `entries` are the other files.
pub fn make_room(entries: &[SpoolEntry], has: u64, wants: u64, max_size: u64, disk: Disk) -> Option<Vec<usize>> {
    let mut taken = entries.iter().map(|entry| entry.bytes).fold(wants, u64::saturating_add);
    let mut disk = disk;
    let growth = wants.saturating_sub(has);
    let mut idle: Vec<usize> = (0..entries.len()).collect();
    idle.retain(|index| entries[*index].idle_since.is_some());
    idle.sort_by_key(|index| entries[*index].idle_since);
    let mut removed = Vec::new();
    let mut oldest = idle.into_iter();
    while taken > max_size || !disk.has_room_for(growth) {
        let index = oldest.next()?;
        let bytes = entries[index].bytes;
        taken = taken.saturating_sub(bytes);
        disk.available = disk.available.saturating_add(bytes);
        removed.push(index);
    }
    Some(removed)
}

/// True where a blob's file is of use after a transfer whose destinations ended like this (`None`: well): when one of them failed
/// in a way that is tried again.
pub fn keep_in_spool(ends: impl IntoIterator<Item = Option<ErrorKind>>) -> bool {
    let again = |kind: ErrorKind| kind.is_temporary() || matches!(kind, ErrorKind::Cancelled | ErrorKind::Local);
    ends.into_iter().flatten().any(again)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn slow_and_large_blobs_that_may_be_lost_are_spooled() {
        let facts = SpoolFacts {
            size: 100 * MIB,
            source_rate: None,
            local_source: false,
            may_lose: true,
            held: 0,
        };
        assert_eq!(spool_decision(facts), SpoolDecision::Spool);
        let rate = |rate| SpoolFacts {
            source_rate: Some(rate),
            ..facts
        };
        assert_eq!(spool_decision(rate(32 * MIB - 1)), SpoolDecision::Spool);
        assert_eq!(spool_decision(rate(32 * MIB)), SpoolDecision::Near);
        let size = |size| SpoolFacts { size, ..facts };
        assert_eq!(spool_decision(size(16 * MIB)), SpoolDecision::Spool);
        assert_eq!(spool_decision(size(16 * MIB - 1)), SpoolDecision::Small);
        assert!(may_be_spooled(16 * MIB) && !may_be_spooled(16 * MIB - 1));
        let kept = SpoolFacts {
            may_lose: false,
            ..facts
        };
        assert_eq!(spool_decision(kept), SpoolDecision::Kept);
        let local = SpoolFacts {
            local_source: true,
            ..facts
        };
        assert_eq!(spool_decision(local), SpoolDecision::Near);
    }

    #[test]
    fn what_was_paid_for_is_used() {
        let facts = SpoolFacts {
            size: 100 * MIB,
            source_rate: Some(u64::MAX),
            local_source: false,
            may_lose: false,
            held: 1,
        };
        assert_eq!(spool_decision(facts), SpoolDecision::Spool);
    }

    fn entry(bytes: u64, idle_since: Option<i64>) -> SpoolEntry {
        SpoolEntry { bytes, idle_since }
    }

    const AMPLE: Disk = Disk {
        capacity: 1_000_000,
        available: 1_000_000,
    };

    #[test]
    fn the_oldest_idle_files_make_room() {
        let entries = [
            entry(10, Some(3)),
            entry(20, None),
            entry(30, Some(1)),
            entry(40, Some(2)),
        ];
        let room = |wants, max| make_room(&entries, 0, wants, max, AMPLE);
        assert_eq!(room(10, 110), Some(vec![]));
        assert_eq!(room(11, 110), Some(vec![2]));
        assert_eq!(room(40, 110), Some(vec![2]));
        assert_eq!(room(41, 110), Some(vec![2, 3]));
        assert_eq!(room(90, 110), Some(vec![2, 3, 0]));
        assert_eq!(room(91, 110), None, "what is in use stays");
        assert_eq!(room(u64::MAX, 110), None);
    }

    #[test]
    fn a_tenth_of_the_disk_stays_free() {
        let disk = |available| Disk {
            capacity: 1000,
            available,
        };
        assert!(disk(100).has_room_for(0) && !disk(99).has_room_for(0) && !disk(150).has_room_for(51));
        assert!(!disk(10).has_room_for(11));
        let idle = [entry(30, Some(1))];
        assert_eq!(make_room(&[], 0, 50, 500, disk(150)), Some(vec![]));
        assert_eq!(make_room(&[], 0, 51, 500, disk(150)), None);
        assert_eq!(
            make_room(&[], 1, 51, 500, disk(150)),
            Some(vec![]),
            "it has one already"
        );
        assert_eq!(make_room(&idle, 0, 80, 500, disk(150)), Some(vec![0]));
        assert_eq!(make_room(&idle, 0, 81, 500, disk(150)), None);
    }

    #[test]
    fn files_stay_for_what_is_tried_again() {
        use ErrorKind::*;
        for (ends, kept) in [
            (vec![None, None], false),
            (vec![Some(Network), None], true),
            (vec![None, Some(Cancelled)], true),
            (vec![Some(Server)], true),
            (vec![Some(Local)], true),
            (vec![Some(Denied), Some(Corrupt)], false),
            (vec![], false),
        ] {
            assert_eq!(keep_in_spool(ends.clone()), kept, "{ends:?}");
        }
    }
}
