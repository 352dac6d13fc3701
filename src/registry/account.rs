//! What a run asked of the registries: every attempt is counted, in the one request loop.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};

/// Hosts that are counted each. A registry may send us on to another host with every blob.
const HOSTS: usize = 200;
/// The longest name of a host with its port.
const LONGEST_HOST: usize = 300;
/// What is counted of all further hosts.
const OTHERS: &str = "others";

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

    /// Counts one attempt; those at further hosts than the first 200 together, as `others`.
    pub fn charge(&self, registry: &str, method: &http::Method) {
        let mut requests = self.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let own = registry.len() <= LONGEST_HOST && (requests.len() < HOSTS || requests.contains_key(registry));
        let host = if own { registry } else { OTHERS };
        let by_method = requests.entry(host.to_owned()).or_default();
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

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn hosts_without_end_are_counted_together() {
        let account = Account::default();
        for number in 0..1_000 {
            account.charge(&format!("{number}.example"), &Method::GET);
        }
        account.charge("0.example", &Method::GET);
        account.charge(&"x".repeat(1_000), &Method::HEAD);
        let requests = account.requests();
        assert_eq!(requests.len(), HOSTS + 1);
        assert_eq!(requests["0.example"]["GET"], 2);
        assert_eq!((requests[OTHERS]["GET"], requests[OTHERS]["HEAD"]), (800, 1));
    }
}
