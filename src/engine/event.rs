//! What happens, as values: progress bars, lines, logs are consumers.

use tokio::sync::broadcast;

use crate::oci::Digest;
use crate::store::{JobId, JobOutcome, RunId, RunOutcome, Trigger};

/// One thing that happened. Outcomes are stored before they are told.
#[derive(Clone, Debug)]
pub enum Event {
    /// A run started.
    RunStarted {
        /// The run.
        run: RunId,
        /// Its rule.
        rule: String,
        /// What started it.
        trigger: Trigger,
    },
    /// A source repository was planned.
    RepositoryPlanned {
        /// The run.
        run: RunId,
        /// `registry/repository`.
        source: String,
        /// Jobs that copy.
        to_copy: usize,
        /// Jobs with nothing to do.
        settled: usize,
    },
    /// A place could not be looked at, so that none of its images has a job.
    PlaceFailed {
        /// The run.
        run: RunId,
        /// A registry, or `registry/repository`.
        source: String,
        /// What happened and what to do.
        message: String,
    },
    /// A job started to copy.
    JobStarted {
        /// The run.
        run: RunId,
        /// The job.
        job: JobId,
        /// `registry/repository:tag` of the source.
        source: String,
        /// `registry/repository:tag` of the destination.
        destination: String,
    },
    /// A blob began to move.
    TransferStarted {
        /// The run.
        run: RunId,
        /// The blob.
        digest: Digest,
        /// `registry/repository` of the destination.
        destination: String,
        /// Its length in bytes.
        size: u64,
        /// Bytes that need not be sent, as an interrupted upload goes on.
        resumed_from: u64,
    },
    /// A blob moved on.
    TransferProgress {
        /// The blob.
        digest: Digest,
        /// `registry/repository` of the destination.
        destination: String,
        /// Bytes that the destination holds or was sent.
        offset: u64,
    },
    /// A blob is done, or was given up.
    TransferFinished {
        /// The blob.
        digest: Digest,
        /// `registry/repository` of the destination.
        destination: String,
        /// True when it is at the destination.
        done: bool,
    },
    /// A job ended.
    JobFinished {
        /// The run.
        run: RunId,
        /// The job, where it had work to do.
        job: Option<JobId>,
        /// `registry/repository:tag` of the source.
        source: String,
        /// `registry/repository:tag` of the destination.
        destination: String,
        /// How.
        outcome: JobOutcome,
        /// For failures and warnings: what happened and what to do.
        message: Option<String>,
        /// Bytes sent.
        bytes: u64,
    },
    /// Something that a person should know but that fails nothing.
    Warning {
        /// The run.
        run: RunId,
        /// What.
        message: String,
    },
    /// A run ended.
    RunFinished {
        /// The run.
        run: RunId,
        /// Its rule.
        rule: String,
        /// How.
        outcome: RunOutcome,
    },
}

/// Where events go to and come from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Events(broadcast::Sender<Event>);

/// Events kept for a slow listener; one that falls further behind misses the oldest.
const BACKLOG: usize = 4096;

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::channel(BACKLOG).0)
    }
}

impl Events {
    /// Tells whoever listens.
    pub fn tell(&self, event: Event) {
        // No listener is no failure.
        let _ = self.0.send(event);
    }

    /// Listens from now on.
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}
