//! What a run asked of the registries: every attempt is counted, in the one request loop.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};

/// Requests by registry name (token and redirect hosts under their own names) and method.
#[derive(Debug, Default)]
pub struct Account {
    requests: Mutex<BTreeMap<String, BTreeMap<String, u64>>>,
    priority: AtomicI32,
}

impl Account {
    /// Where requests wait for a place, those of a higher priority go first. 0 unless set.
    pub fn set_priority(&self, priority: i32) {
        self.priority.store(priority, Ordering::Relaxed);
    }

    /// See [`Account::set_priority`].
    pub fn priority(&self) -> i32 {
        self.priority.load(Ordering::Relaxed)
    }

    /// Counts one attempt.
    pub fn charge(&self, registry: &str, method: &http::Method) {
        let mut requests = self.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let by_method = requests.entry(registry.to_owned()).or_default();
        *by_method.entry(method.as_str().to_owned()).or_default() += 1;
    }

    /// The counts so far.
    pub fn requests(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        self.requests
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}
