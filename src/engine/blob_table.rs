//! Which blobs are at which destination repositories, and who is bringing them there: no blob is sent twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::oci::{Digest, RepositoryName};

/// How long a blob that we saw or wrote counts as present without asking again, at most. Registries collect
/// garbage in hours at the soonest, and a manifest that is refused for a missing blob heals (see `image`). Where a wrong
/// belief would not show itself so, nothing of earlier runs counts (see `blob_memory`).
const TRUSTED_FOR: Duration = Duration::from_secs(3600);

/// Blobs remembered at most; past it the knowledge that is trusted no longer is thrown away, and where that is little, all of it.
const REMEMBERED: usize = 200_000;

/// Shared by all runs of a process.
#[derive(Clone, Debug)]
pub(super) struct BlobTable {
    clock: Clock,
    blobs: Arc<Mutex<HashMap<(String, Digest), Places>>>,
    /// How many planned images want a blob at a registry.
    wanted: Arc<Mutex<HashMap<(String, Digest), usize>>>,
}

/// Blobs that a planned image wants, until this is dropped.
#[derive(Debug)]
pub(super) struct Wants {
    table: BlobTable,
    keys: Vec<(String, Digest)>,
}

impl Drop for Wants {
    fn drop(&mut self) {
        let mut wanted = self.table.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.keys {
            if let Some(count) = wanted.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    wanted.remove(key);
                }
            }
        }
    }
}

/// What is known of one blob at one registry.
#[derive(Debug, Default)]
struct Places {
    /// Where it is, or is brought to.
    states: HashMap<RepositoryName, State>,
    /// Mounts that were refused, from and to, and when: they are not proposed again as long as what was seen is trusted.
    refused: HashMap<(RepositoryName, RepositoryName), Duration>,
}

impl Places {
    /// Drops what is no longer trusted.
    fn expire(&mut self, now: Duration) {
        let trusted = |since: &Duration| now.saturating_sub(*since) < TRUSTED_FOR;
        self.states.retain(|_, state| match state {
            State::Present(since) => trusted(since),
            State::Moving(_) => true,
        });
        self.refused.retain(|_, at| trusted(at));
    }

    fn is_refused(&self, from: &RepositoryName, to: &RepositoryName) -> bool {
        // Names are cloned only for the few blobs of which a mount was refused.
        !self.refused.is_empty() && self.refused.contains_key(&(from.clone(), to.clone()))
    }
}

#[derive(Clone, Debug)]
enum State {
    Present(Duration),
    Moving(watch::Receiver<()>),
}

/// What to do about one blob at one destination repository.
#[derive(Debug)]
pub(super) enum Claim {
    /// It is there.
    Present,
    /// Somebody brings it to this repository, or to another one of the registry, from where it can be mounted then. Ask again after that.
    Wait(watch::Receiver<()>),
    /// It is ours to bring; mounted from this repository if possible.
    Lead(Lead, Option<RepositoryName>),
}

/// The duty to bring a blob. Dropped without [`Lead::done`], the next who asks gets it.
#[derive(Debug)]
pub(super) struct Lead {
    table: BlobTable,
    key: (String, Digest),
    repository: RepositoryName,
    /// Followers wait for this to be dropped.
    _moving: watch::Sender<()>,
    done: bool,
}

impl BlobTable {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            blobs: Arc::default(),
            wanted: Arc::default(),
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<(String, Digest), Places>) -> T) -> T {
        change(&mut self.blobs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What to do about a blob. That it was at the repository before `since` (monotonic time) counts for nothing.
    pub(super) fn claim(&self, registry: &str, repository: &RepositoryName, digest: &Digest, since: Duration) -> Claim {
        let now = self.clock.elapsed();
        self.with(|blobs| {
            if blobs.len() >= REMEMBERED {
                make_room(blobs, now);
            }
            let key = (registry.to_owned(), digest.clone());
            let places = blobs.entry(key.clone()).or_default();
            places.expire(now);
            if matches!(places.states.get(repository), Some(State::Present(seen)) if *seen < since) {
                places.states.remove(repository);
            }
            match places.states.get(repository) {
                Some(State::Present(_)) => return Claim::Present,
                Some(State::Moving(moving)) => return Claim::Wait(moving.clone()),
                None => {}
            }
            let mut open = places
                .states
                .iter()
                .filter(|(from, _)| !places.is_refused(from, repository));
            let present = open.clone().find(|(_, state)| matches!(state, State::Present(_)));
            let mount_from = present.map(|(from, _)| from.clone());
            if mount_from.is_none()
                && let Some((_, State::Moving(moving))) = open.next()
            {
                return Claim::Wait(moving.clone());
            }
            let (sender, receiver) = watch::channel(());
            places.states.insert(repository.clone(), State::Moving(receiver));
            let lead = Lead {
                table: self.clone(),
                key,
                repository: repository.clone(),
                _moving: sender,
                done: false,
            };
            Claim::Lead(lead, mount_from)
        })
    }

    /// True where the blob was brought to the repository or seen there since then (monotonic time), or is on its way to it.
    pub(super) fn is_known(
        &self,
        registry: &str,
        repository: &RepositoryName,
        digest: &Digest,
        since: Duration,
    ) -> bool {
        self.with(|blobs| {
            let places = blobs.get(&(registry.to_owned(), digest.clone()));
            match places.and_then(|places| places.states.get(repository)) {
                Some(State::Present(seen)) => *seen >= since,
                Some(State::Moving(_)) => true,
                None => false,
            }
        })
    }

    /// Keeps that a blob was seen at the repository.
    pub(super) fn saw(&self, registry: &str, repository: &RepositoryName, digest: &Digest) {
        let now = self.clock.elapsed();
        self.with(|blobs| {
            if blobs.len() >= REMEMBERED {
                make_room(blobs, now);
            }
            let places = blobs.entry((registry.to_owned(), digest.clone())).or_default();
            // Who brings it just now says so when it is there.
            if !matches!(places.states.get(repository), Some(State::Moving(_))) {
                places.states.insert(repository.clone(), State::Present(now));
            }
        });
    }

    /// Says that an image wants these blobs, so that the image that brings one knows which ones others wait for.
    pub(super) fn want(&self, keys: Vec<(String, Digest)>) -> Wants {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &keys {
            *wanted.entry(key.clone()).or_default() += 1;
        }
        drop(wanted);
        Wants {
            table: self.clone(),
            keys,
        }
    }

    /// How many images are known to want a blob at a registry.
    pub(super) fn wanted_by(&self, registry: &str, digest: &Digest) -> usize {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.get(&(registry.to_owned(), digest.clone())).copied().unwrap_or(0)
    }

    /// True while somebody brings the blob to the repository.
    pub(super) fn is_moving(&self, registry: &str, repository: &RepositoryName, digest: &Digest) -> bool {
        self.with(|blobs| {
            let places = blobs.get(&(registry.to_owned(), digest.clone()));
            matches!(
                places.and_then(|places| places.states.get(repository)),
                Some(State::Moving(_))
            )
        })
    }

    /// Keeps that the registry did not mount a blob from one repository into another, so that it is not proposed again.
    pub(super) fn mount_refused(&self, registry: &str, digest: &Digest, from: &RepositoryName, to: &RepositoryName) {
        let now = self.clock.elapsed();
        self.with(|blobs| {
            let places = blobs.entry((registry.to_owned(), digest.clone())).or_default();
            places.refused.insert((from.clone(), to.clone()), now);
        });
    }

    /// True where [`BlobTable::mount_refused`] was told so within the hour.
    pub(super) fn is_mount_refused(
        &self,
        registry: &str,
        digest: &Digest,
        from: &RepositoryName,
        to: &RepositoryName,
    ) -> bool {
        let now = self.clock.elapsed();
        self.with(|blobs| {
            let places = blobs.get_mut(&(registry.to_owned(), digest.clone()));
            places.is_some_and(|places| {
                places.expire(now);
                places.is_refused(from, to)
            })
        })
    }

    /// Forgets that blobs are at a repository, as that proved wrong.
    pub(super) fn forget<'a>(
        &self,
        registry: &str,
        repository: &RepositoryName,
        digests: impl IntoIterator<Item = &'a Digest>,
    ) {
        self.with(|blobs| {
            for digest in digests {
                if let Some(places) = blobs.get_mut(&(registry.to_owned(), digest.clone()))
                    && matches!(places.states.get(repository), Some(State::Present(_)))
                {
                    places.states.remove(repository);
                }
            }
        });
    }
}

impl Lead {
    /// The blob is at the repository.
    pub(super) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let now = self.table.clock.elapsed();
        self.table.with(|blobs| {
            let places = blobs.entry(self.key.clone()).or_default();
            if self.done {
                // It may not have been there when a mount from here was refused.
                places.refused.retain(|(from, _), _| *from != self.repository);
                places.states.insert(self.repository.clone(), State::Present(now));
            } else {
                places.states.remove(&self.repository);
            }
        });
    }
}

/// Throws away what is trusted no longer, and where that is less than a quarter, all that is not on its way.
fn make_room(blobs: &mut HashMap<(String, Digest), Places>, now: Duration) {
    let before = blobs.len();
    let empty = |places: &Places| places.states.is_empty() && places.refused.is_empty();
    blobs.retain(|_, places| {
        places.expire(now);
        !empty(places)
    });
    if blobs.len() <= before - before / 4 {
        return;
    }
    blobs.retain(|_, places| {
        places.states.retain(|_, state| matches!(state, State::Moving(_)));
        places.refused.clear();
        !empty(places)
    });
}

/// Waits until whoever brings the blob has ended, one way or the other.
pub(super) async fn ended(mut moving: watch::Receiver<()>) {
    // Nothing is ever sent: the sender's end is the news.
    let _ = moving.changed().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RepositoryName {
        text.parse().expect("a repository name")
    }

    /// Whatever is known counts.
    const EVER: Duration = Duration::ZERO;

    fn lead(claim: Claim) -> (Lead, Option<RepositoryName>) {
        match claim {
            Claim::Lead(lead, mount_from) => (lead, mount_from),
            other => panic!("expected the lead, got {other:?}"),
        }
    }

    #[test]
    fn what_is_trusted_no_longer_goes_first_and_what_is_on_its_way_stays() {
        let mut blobs = HashMap::new();
        let key = |n: usize| ("r".to_owned(), Digest::of(n.to_string().as_bytes()));
        let (_sender, moving) = watch::channel(());
        let mut add = |n: usize, state: State| {
            let places = Places {
                states: HashMap::from([(name("a"), state)]),
                refused: HashMap::new(),
            };
            blobs.insert(key(n), places);
        };
        let now = TRUSTED_FOR * 2;
        add(0, State::Moving(moving));
        (1..8).for_each(|n| add(n, State::Present(now)));
        (8..12).for_each(|n| add(n, State::Present(TRUSTED_FOR)));
        make_room(&mut blobs, now);
        assert_eq!(blobs.len(), 8, "the old third is gone");
        assert!(blobs.contains_key(&key(1)));
        make_room(&mut blobs, now);
        assert_eq!(blobs.keys().collect::<Vec<_>>(), [&key(0)], "nothing is old");
    }

    #[tokio::test(start_paused = true)]
    async fn one_leads_and_the_others_wait() {
        let table = BlobTable::new(Clock::system());
        let digest = Digest::of(b"x");
        let (first, none) = lead(table.claim("r", &name("a"), &digest, EVER));
        assert_eq!(none, None);
        let Claim::Wait(same) = table.claim("r", &name("a"), &digest, EVER) else {
            panic!("the same repository waits")
        };
        let Claim::Wait(_) = table.claim("r", &name("b"), &digest, EVER) else {
            panic!("another repository waits, to mount")
        };
        let (_elsewhere, _) = lead(table.claim("other", &name("a"), &digest, EVER));
        first.done();
        ended(same).await;
        assert!(matches!(table.claim("r", &name("a"), &digest, EVER), Claim::Present));
        let (_second, from) = lead(table.claim("r", &name("b"), &digest, EVER));
        assert_eq!(from, Some(name("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn wants_are_counted_while_they_last() {
        let table = BlobTable::new(Clock::system());
        let (shared, own) = (Digest::of(b"shared"), Digest::of(b"own"));
        let key = |digest: &Digest| ("r".to_owned(), digest.clone());
        let first = table.want(vec![key(&shared), key(&own)]);
        let second = table.want(vec![key(&shared)]);
        assert_eq!((table.wanted_by("r", &shared), table.wanted_by("r", &own)), (2, 1));
        assert_eq!(table.wanted_by("other", &shared), 0);
        drop(first);
        assert_eq!((table.wanted_by("r", &shared), table.wanted_by("r", &own)), (1, 0));
        drop(second);
        assert_eq!(table.wanted_by("r", &shared), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_lead_passes_on() {
        let table = BlobTable::new(Clock::system());
        let digest = Digest::of(b"x");
        let (first, _) = lead(table.claim("r", &name("a"), &digest, EVER));
        let Claim::Wait(moving) = table.claim("r", &name("a"), &digest, EVER) else {
            panic!("waits")
        };
        drop(first);
        ended(moving).await;
        lead(table.claim("r", &name("a"), &digest, EVER));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_there_before_a_run_counts_only_where_it_is_said_to() {
        let clock = Clock::system();
        let table = BlobTable::new(clock.clone());
        let digest = Digest::of(b"x");
        let claim = |place, since| table.claim("r", &name(place), &digest, since);
        for place in ["a", "b"] {
            lead(claim(place, EVER)).0.done();
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        let began = clock.elapsed();
        assert!(matches!(claim("a", EVER), Claim::Present));
        let (again, from) = lead(claim("a", began));
        assert_eq!(
            from,
            Some(name("b")),
            "a mount is tried, as it costs nothing where it fails"
        );
        assert!(matches!(claim("a", EVER), Claim::Wait(_)));
        again.done();
        assert!(matches!(claim("a", began), Claim::Present));
        // Who waits to mount does so also where it had the blob before.
        table.forget("r", &name("a"), [&digest]);
        let (_under_way, _) = lead(claim("a", began));
        assert!(matches!(claim("b", began), Claim::Wait(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_mount_is_not_proposed_again_and_others_are() {
        let table = BlobTable::new(Clock::system());
        let digest = Digest::of(b"x");
        let claim = |to| table.claim("r", &name(to), &digest, EVER);
        let refuse = |from, to| table.mount_refused("r", &digest, &name(from), &name(to));
        lead(claim("a")).0.done();
        for _ in 0..3 {
            let (tried, from) = lead(claim("b"));
            refuse("a", "b");
            assert!(from.is_none_or(|from| from == name("a")));
            drop(tried);
        }
        assert_eq!(lead(claim("b")).1, None, "it was refused");
        assert_eq!(lead(claim("c")).1, Some(name("a")), "nothing is known of this one");
        assert!(table.is_mount_refused("r", &digest, &name("a"), &name("b")));
        assert!(!table.is_mount_refused("r", &Digest::of(b"y"), &name("a"), &name("b")));
        lead(claim("d")).0.done();
        assert_eq!(lead(claim("b")).1, Some(name("d")), "from elsewhere it may be");
        // Who cannot mount what is brought does not wait for it.
        table.forget("r", &name("a"), [&digest]);
        table.forget("r", &name("d"), [&digest]);
        let (_under_way, _) = lead(claim("d"));
        refuse("d", "b");
        lead(claim("b"));
        let Claim::Wait(_) = claim("c") else { panic!("to mount") };
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_mount_may_be_tried_when_the_blob_was_brought_again_or_an_hour_has_passed() {
        let table = BlobTable::new(Clock::system());
        let digest = Digest::of(b"x");
        let refused = || table.is_mount_refused("r", &digest, &name("a"), &name("b"));
        for passes in [false, true] {
            table.mount_refused("r", &digest, &name("a"), &name("b"));
            assert!(refused());
            match passes {
                true => tokio::time::advance(TRUSTED_FOR).await,
                false => lead(table.claim("r", &name("a"), &digest, EVER)).0.done(),
            }
            assert!(!refused());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn knowledge_is_forgotten() {
        let table = BlobTable::new(Clock::system());
        let digest = Digest::of(b"x");
        lead(table.claim("r", &name("a"), &digest, EVER)).0.done();
        table.forget("r", &name("a"), [&digest]);
        lead(table.claim("r", &name("a"), &digest, EVER)).0.done();
        tokio::time::advance(TRUSTED_FOR).await;
        lead(table.claim("r", &name("a"), &digest, EVER));
    }
}
