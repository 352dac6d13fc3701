//! How many requests passed, by method and by what they are about.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Tags,
    Manifest,
    Blob,
    Upload,
    Referrers,
    Catalog,
    Base,
}

impl Kind {
    /// By the path alone (distribution-spec 1.1, "Endpoints").
    pub fn of(path: &str) -> Self {
        if path.ends_with("/tags/list") {
            Self::Tags
        } else if path.contains("/blobs/uploads") {
            Self::Upload
        } else if path.contains("/blobs/") {
            Self::Blob
        } else if path.contains("/manifests/") {
            Self::Manifest
        } else if path.contains("/referrers/") {
            Self::Referrers
        } else if path.ends_with("/_catalog") {
            Self::Catalog
        } else {
            Self::Base
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tags => "tags",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Upload => "upload",
            Self::Referrers => "referrers",
            Self::Catalog => "catalog",
            Self::Base => "base",
        })
    }
}

/// Requests so far.
#[derive(Debug, Default)]
pub struct Counts {
    all: AtomicU64,
    by: Mutex<BTreeMap<(String, Kind), u64>>,
}

impl Counts {
    /// Counts one and says which it is, from 1.
    pub(super) fn note(&self, method: &Method, path: &str) -> u64 {
        if let Ok(mut by) = self.by.lock() {
            *by.entry((method.as_str().to_owned(), Kind::of(path))).or_default() += 1;
        }
        self.all.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn reset(&self) {
        self.all.store(0, Ordering::Relaxed);
        if let Ok(mut by) = self.by.lock() {
            by.clear();
        }
    }

    pub fn all(&self) -> u64 {
        self.all.load(Ordering::Relaxed)
    }

    /// `HEAD manifest` and the like, with how many of them passed.
    pub fn table(&self) -> BTreeMap<String, u64> {
        let by = self.by.lock().map(|by| by.clone()).unwrap_or_default();
        by.into_iter()
            .map(|((method, kind), count)| (format!("{method} {kind}"), count))
            .collect()
    }
}
