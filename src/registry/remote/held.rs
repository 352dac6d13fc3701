//! Looking for many blobs of a repository by one request, where the vendor's API takes such.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::Registry;
use crate::oci::{Digest, RepositoryName};
use crate::registry::ErrorKind;

/// For each blob whether it is there. What is not in it is not known.
type Held = BTreeMap<Digest, bool>;

/// How long an API that failed is left alone: finding that out may take more than a minute.
const TROUBLE_LIFE: Duration = Duration::from_secs(300);

/// Questions that wait for the one under way: what several images want to know meanwhile goes into one request.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// Whoever has it asks; in it until when nobody does, by the clock's monotonic time.
    turn: tokio::sync::Mutex<Duration>,
    waiting: Mutex<Vec<Look>>,
}

#[derive(Debug)]
struct Look {
    repository: RepositoryName,
    digests: BTreeSet<Digest>,
    teller: oneshot::Sender<Held>,
}

impl Looks {
    fn waiting(&self) -> MutexGuard<'_, Vec<Look>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place among them.
    fn wait(&self, repository: &RepositoryName, digests: &[Digest]) -> oneshot::Receiver<Held> {
        let (teller, told) = oneshot::channel();
        self.waiting().push(Look {
            repository: repository.clone(),
            digests: digests.iter().cloned().collect(),
            teller,
        });
        told
    }

    /// Those that one request can answer, with what it is to ask for, beginning with the first for the repository. Whoever was told
    /// to stop meanwhile waits no longer.
    fn take(&self, repository: &RepositoryName, at_once: usize) -> (Vec<Look>, Vec<Digest>) {
        let mut waiting = self.waiting();
        waiting.retain(|look| !look.teller.is_closed());
        let mut wanted = BTreeSet::new();
        let fits = |look: &mut Look| {
            if look.repository != *repository || wanted.union(&look.digests).count() > at_once {
                return false;
            }
            wanted.extend(look.digests.iter().cloned());
            true
        };
        let taken = waiting.extract_if(.., fits).collect();
        (taken, wanted.into_iter().collect())
    }
}

impl Registry {
    /// Which of these blobs the repository has, asked for by as few requests as the vendor's API takes, together with what others
    /// want to know just then. Empty where there is no such API; blobs of which it says nothing are left out, as are all where it
    /// cannot be asked.
    pub async fn held_blobs(&self, repository: &RepositoryName, digests: &[Digest]) -> BTreeMap<Digest, bool> {
        let at_once = self.shared.vendor.ways().blobs_at_once;
        let mut held = Held::new();
        if at_once == 0 {
            return held;
        }
        for digests in digests.chunks(at_once) {
            held.extend(self.held_of(repository, digests, at_once).await);
        }
        held
    }

    /// The same for as many as one request takes.
    async fn held_of(&self, repository: &RepositoryName, digests: &[Digest], at_once: usize) -> Held {
        let shared = &self.shared;
        let mut told = shared.looks.wait(repository, digests);
        let mut not_before = shared.looks.turn.lock().await;
        loop {
            match told.try_recv() {
                // Whoever had the turn before may have asked for ours.
                Ok(answer) => return answer,
                // It was told to stop before the answer came.
                Err(TryRecvError::Closed) => told = shared.looks.wait(repository, digests),
                Err(TryRecvError::Empty) => {}
            }
            let now = shared.transport.clock().elapsed();
            if now < *not_before || shared.refusals.is_out_of_reach(now) {
                drop(told);
                shared.looks.waiting().retain(|look| !look.teller.is_closed());
                return Held::new();
            }
            // Those that came before us may fill it: then the next one is ours.
            if !self.look(repository, at_once).await {
                *not_before = shared.transport.clock().elapsed() + TROUBLE_LIFE;
            }
        }
    }

    /// One request for all that wait for this repository and find room in it. False where the API is to be left alone.
    async fn look(&self, repository: &RepositoryName, at_once: usize) -> bool {
        let (looks, wanted) = self.shared.looks.take(repository, at_once);
        if wanted.is_empty() {
            return true;
        }
        let asked = self.shared.vendor.held_blobs(&self.api(), repository, &wanted).await;
        let failed = asked.as_ref().err().map(|error| error.kind);
        let held = asked.unwrap_or_else(|error| {
            tracing::debug!("blobs are looked for one by one: {error}");
            Held::new()
        });
        for look in looks {
            let of_look = look.digests.iter();
            let answer = of_look.filter_map(|digest| Some((digest.clone(), *held.get(digest)?)));
            // Whoever does not listen was told to stop.
            let _ = look.teller.send(answer.collect());
        }
        // That a repository is not there is an answer.
        failed.is_none_or(|kind| kind == ErrorKind::NotFound)
    }
}
