//! What a run has come to so far: the fold that becomes its report.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::fault::Fault;
use super::report::{Change, DestinationReport, Failure, RunReport, SourceBytes, SourceCounts};
use crate::registry::Account;
use crate::store::{JobId, JobOutcome, RunId, RunOutcome, Trigger};

/// Failures, changes and warnings that a report names, each: what a source lists must not fill our memory.
const NAMED: usize = 10_000;

/// The first [`NAMED`] of something, and how many more there were.
#[derive(Debug)]
pub(super) struct First<T> {
    pub(super) named: Vec<T>,
    pub(super) left_out: u64,
}

impl<T> Default for First<T> {
    fn default() -> Self {
        Self {
            named: Vec::new(),
            left_out: 0,
        }
    }
}

impl<T> First<T> {
    pub(super) fn push(&mut self, one: T) {
        if self.named.len() < NAMED {
            self.named.push(one);
        } else {
            self.left_out += 1;
        }
    }
}

/// How one blob got to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlobWay {
    Copied,
    Mounted,
    Present,
    /// Fetched by the registry itself.
    Imported,
}

/// Counts of one run; shared by everything that works for it.
#[derive(Clone, Debug)]
pub(super) struct Ledger(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    account: Arc<Account>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    source: SourceCounts,
    read: u64,
    destinations: Vec<DestinationReport>,
    changes: First<Change>,
    failures: First<Failure>,
    warnings: First<String>,
    /// What is said once alone, and has been.
    said: BTreeSet<String>,
}

impl Ledger {
    pub(super) fn new(destinations: impl IntoIterator<Item = String>) -> Self {
        let destinations = destinations
            .into_iter()
            .map(|registry| DestinationReport {
                registry,
                ..DestinationReport::default()
            })
            .collect();
        Self(Arc::new(Shared {
            account: Arc::new(Account::default()),
            counts: Mutex::new(Counts {
                destinations,
                ..Counts::default()
            }),
        }))
    }

    pub(super) fn account(&self) -> Arc<Account> {
        Arc::clone(&self.0.account)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn destination(&self, registry: &str, change: impl FnOnce(&mut DestinationReport)) {
        let mut counts = self.counts();
        if let Some(destination) = counts.destinations.iter_mut().find(|d| d.registry == registry) {
            change(destination);
        }
    }

    pub(super) fn repository(&self, tags_listed: usize) {
        let mut counts = self.counts();
        counts.source.repositories += 1;
        counts.source.tags_listed += tags_listed as u64;
    }

    pub(super) fn selected(&self, tags: usize) {
        self.counts().source.tags_selected += tags as u64;
    }

    pub(super) fn warning(&self, message: String) {
        self.counts().warnings.push(message);
    }

    /// Whether this was asked for the first time in the run.
    pub(super) fn is_first(&self, subject: &str) -> bool {
        self.counts().said.insert(subject.to_owned())
    }

    pub(super) fn read(&self, bytes: u64) {
        self.counts().read += bytes;
    }

    pub(super) fn written(&self, registry: &str, bytes: u64) {
        self.destination(registry, |d| d.bytes.written += bytes);
    }

    pub(super) fn resumed(&self, registry: &str, bytes: u64) {
        self.destination(registry, |d| d.bytes.resumed += bytes);
    }

    pub(super) fn blob(&self, registry: &str, way: BlobWay) {
        self.destination(registry, |d| match way {
            BlobWay::Copied => d.blobs.copied += 1,
            BlobWay::Mounted => d.blobs.mounted += 1,
            BlobWay::Present => d.blobs.present += 1,
            BlobWay::Imported => d.blobs.imported += 1,
        });
    }

    pub(super) fn job(&self, registry: &str, outcome: JobOutcome) {
        self.destination(registry, |d| d.images.add(outcome));
    }

    /// An image in step, by what was seen earlier.
    pub(super) fn trusted(&self, registry: &str) {
        self.destination(registry, |d| d.trusted += 1);
    }

    pub(super) fn change(&self, change: Change) {
        self.counts().changes.push(change);
    }

    pub(super) fn failure(&self, failure: Failure) {
        self.counts().failures.push(failure);
    }

    /// The failures so far, and how many more there were than are named.
    pub(super) fn failures(&self) -> (Vec<Failure>, u64) {
        let counts = self.counts();
        (counts.failures.named.clone(), counts.failures.left_out)
    }

    /// A failure outside any job: a listing that is unknown, a repository that is missing.
    pub(super) fn place_failure(&self, source: String, destination: Option<String>, fault: &Fault) {
        self.failure(Self::as_failure(source, destination, None, fault, 1));
    }

    pub(super) fn as_failure(
        source: String,
        destination: Option<String>,
        job: Option<JobId>,
        fault: &Fault,
        attempts: u32,
    ) -> Failure {
        Failure {
            source,
            destination,
            job,
            digest: None,
            kind: fault.kind,
            status: fault.status,
            code: fault.code.clone(),
            message: fault.message.clone(),
            attempts,
            next_attempt_at: None,
        }
    }

    /// Closes the account. `stopped`: the run was told to stop, with the outcome that this has.
    pub(super) fn close(
        &self,
        id: RunId,
        rule: &str,
        trigger: Trigger,
        stopped: Option<RunOutcome>,
        started_at: Timestamp,
        finished_at: Timestamp,
    ) -> RunReport {
        let counts = self.counts();
        let done: u64 = counts
            .destinations
            .iter()
            .map(|d| d.images.total() - d.images.failed)
            .sum();
        let outcome = match stopped {
            Some(outcome) => outcome,
            None if counts.failures.named.is_empty() => RunOutcome::Ok,
            None if done == 0 => RunOutcome::Failed,
            None => RunOutcome::Partial,
        };
        let mut warnings = counts.warnings.named.clone();
        if counts.warnings.left_out > 0 {
            warnings.push(format!("{} more warnings are not listed", counts.warnings.left_out));
        }
        RunReport {
            id,
            rule: rule.to_owned(),
            trigger,
            outcome,
            started_at,
            finished_at,
            source: counts.source,
            destinations: counts.destinations.clone(),
            bytes: SourceBytes { read: counts.read },
            requests: self.0.account.requests(),
            changes: counts.changes.named.clone(),
            changes_left_out: counts.changes.left_out,
            failures: counts.failures.named.clone(),
            failures_left_out: counts.failures.left_out,
            warnings,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::ErrorKind;

    #[test]
    fn a_report_names_ten_thousand_of_each_and_counts_the_rest() {
        let ledger = Ledger::new(["ecr".to_owned()]);
        let fault = Fault::new(ErrorKind::Network, "broken");
        for number in 0..10_003 {
            ledger.place_failure(format!("harbor/{number}"), None, &fault);
        }
        for number in 0..10_002 {
            ledger.change(Change {
                source: format!("harbor/{number}"),
                destination: String::new(),
                digest: None,
                previous_digest: None,
                outcome: JobOutcome::Copied,
            });
        }
        for number in 0..10_005 {
            ledger.warning(format!("{number}"));
        }
        let at = Timestamp::UNIX_EPOCH;
        let report = ledger.close(RunId(1), "a", Trigger::Manual, None, at, at);
        assert_eq!((report.failures.len(), report.failures_left_out), (10_000, 3));
        assert_eq!((report.changes.len(), report.changes_left_out), (10_000, 2));
        assert_eq!(report.failures[9_999].source, "harbor/9999");
        assert_eq!(report.warnings.len(), 10_001);
        assert_eq!(
            report.warnings.last().map(String::as_str),
            Some("5 more warnings are not listed")
        );
        assert_eq!(report.outcome, RunOutcome::Failed);
    }
}
