//! Looking for many blobs of a repository by one request, where the vendor's API takes such.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::Registry;
use crate::oci::{Digest, RepositoryName};

/// For each blob whether it is there. What is not in it is not known.
type Held = BTreeMap<Digest, bool>;

/// Questions that wait for the one under way: what several images want to know meanwhile goes into one request.
#[derive(Debug, Default)]
pub(super) struct Looks {
    turn: tokio::sync::Mutex<()>,
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

    /// Those that one request can answer, with what it is to ask for, beginning with the first for the repository.
    fn take(&self, repository: &RepositoryName, at_once: usize) -> (Vec<Look>, Vec<Digest>) {
        let mut waiting = self.waiting();
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
            let (teller, mut told) = oneshot::channel();
            let look = Look {
                repository: repository.clone(),
                digests: digests.iter().cloned().collect(),
                teller,
            };
            self.shared.looks.waiting().push(look);
            let turn = self.shared.looks.turn.lock().await;
            // Whoever had the turn before may have asked for ours.
            if let Ok(answer) = told.try_recv() {
                held.extend(answer);
                continue;
            }
            self.look(repository, at_once).await;
            drop(turn);
            held.extend(told.await.unwrap_or_default());
        }
        held
    }

    /// One request for all that wait for this repository and find room in it.
    async fn look(&self, repository: &RepositoryName, at_once: usize) {
        let (looks, wanted) = self.shared.looks.take(repository, at_once);
        if wanted.is_empty() {
            return;
        }
        let asked = self.shared.vendor.held_blobs(&self.api(), repository, &wanted).await;
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
    }
}
