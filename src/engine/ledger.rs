//! What a run has come to so far: the fold that becomes its report.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::fault::Fault;
use super::report::{Change, DestinationReport, Failure, RunReport, SourceBytes, SourceCounts};
use crate::registry::Account;
use crate::store::{JobId, JobOutcome, RunId, RunOutcome, Trigger};

/// How one blob got to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlobWay {
    Copied,
    Mounted,
    Present,
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
    changes: Vec<Change>,
    failures: Vec<Failure>,
    warnings: Vec<String>,
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

    pub(super) fn failures(&self) -> Vec<Failure> {
        self.counts().failures.clone()
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
            None if counts.failures.is_empty() => RunOutcome::Ok,
            None if done == 0 => RunOutcome::Failed,
            None => RunOutcome::Partial,
        };
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
            changes: counts.changes.clone(),
            failures: counts.failures.clone(),
            warnings: counts.warnings.clone(),
        }
    }
}
