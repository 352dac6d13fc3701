//! Which requests fail, and how. It follows from a seed and from the request itself, not from the order in which requests come,
//! so that a tool with many connections meets the same as one with a single one.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::Method;

use super::{Conditions, Kind};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Injured {
    /// The connection is closed without an answer; the registry has seen nothing.
    Reset,
    /// 503 without `Retry-After`; the registry has seen nothing.
    Unavailable,
    /// The connection is closed after the registry has answered.
    Lost,
}

pub(super) struct Harm {
    failing: Option<(u64, u64)>,
    seen: Mutex<HashMap<String, u64>>,
    done: AtomicU64,
    corrupt: Option<String>,
    corrupted: AtomicBool,
}

impl Harm {
    pub(super) fn new(conditions: &Conditions) -> Self {
        Self {
            failing: conditions.failing,
            seen: Mutex::default(),
            done: AtomicU64::new(0),
            corrupt: conditions.corrupt.clone(),
            corrupted: AtomicBool::new(false),
        }
    }

    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// The fate of a request: drawn from its method, its path without the name of an upload, and how often that was asked.
    pub(super) fn next(&self, method: &Method, path: &str) -> Option<Injured> {
        let (thousandth, seed) = self.failing?;
        let stable = match path.split_once("/blobs/uploads/") {
            Some((repository, rest)) => format!("{method} {repository} upload {}", rest.is_empty()),
            None => format!("{method} {path}"),
        };
        let nth = {
            let mut seen = self.seen.lock().ok()?;
            let nth = seen.entry(stable.clone()).or_default();
            *nth += 1;
            *nth
        };
        let drawn = draw(seed, &stable, nth);
        if drawn % 1000 >= thousandth {
            return None;
        }
        self.done.fetch_add(1, Ordering::Relaxed);
        Some(match (drawn / 1000) % 3 {
            0 => Injured::Reset,
            1 => Injured::Unavailable,
            _ => Injured::Lost,
        })
    }

    /// True once, for the first answer with the blob.
    pub(super) fn corrupts(&self, path: &str) -> bool {
        let meant = self
            .corrupt
            .as_ref()
            .is_some_and(|digest| Kind::of(path) == Kind::Blob && path.ends_with(digest));
        let now = meant && !self.corrupted.swap(true, Ordering::Relaxed);
        self.done.fetch_add(u64::from(now), Ordering::Relaxed);
        now
    }
}

/// FNV-1a over all of it, then a finisher (that of splitmix64) as FNV's low bits are poor.
fn draw(seed: u64, text: &str, nth: u64) -> u64 {
    let bytes = seed
        .to_le_bytes()
        .into_iter()
        .chain(text.bytes())
        .chain(nth.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
