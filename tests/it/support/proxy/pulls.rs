//! A quota as Docker Hub counts it: every `GET` of a manifest, whoever asks; it is told with every answer.

use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderValue, Method};

/// Pulls that are left. Clones share them.
#[derive(Clone)]
pub struct Pulls {
    left: Arc<Mutex<u64>>,
    limit: u64,
    /// Seconds.
    window: u64,
}

impl Pulls {
    /// `left` of `limit` in so many seconds.
    pub fn new(left: u64, limit: u64, window: u64) -> Self {
        Self {
            left: Arc::new(Mutex::new(left)),
            limit,
            window,
        }
    }

    /// What is left.
    pub fn left(&self) -> u64 {
        *self.left.lock().expect("not poisoned")
    }

    /// Gives so many, as time does.
    pub fn set(&self, left: u64) {
        *self.left.lock().expect("not poisoned") = left;
    }

    /// Counts a request; false where it is one too many.
    pub(super) fn count(&self, method: &Method, path: &str) -> bool {
        if method != Method::GET || !path.contains("/manifests/") {
            return true;
        }
        let mut left = self.left.lock().expect("not poisoned");
        let fits = *left > 0;
        *left = left.saturating_sub(1);
        fits
    }

    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        let value = |number| HeaderValue::from_str(&format!("{number};w={}", self.window)).expect("a value");
        headers.insert("ratelimit-limit", value(self.limit));
        headers.insert("ratelimit-remaining", value(self.left()));
    }
}
