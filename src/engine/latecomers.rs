//! Destinations that said nothing while their repositories were planned: until they answer again they are planned by
//! themselves, and the others do not wait for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::observe::Awaited;
use super::run::REPOSITORIES_AT_ONCE;
use crate::oci::Tag;
use crate::plan::Unknown;
use crate::rules::{MatchedRepository, RegistryName};

/// Some destinations of a rule.
pub(super) type Ends = BTreeSet<RegistryName>;

/// Which destinations say nothing. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Silences(Arc<BTreeMap<RegistryName, Silence>>);

#[derive(Debug, Default)]
struct Silence {
    lasts: AtomicBool,
    /// Has begun once in this run.
    has_been: AtomicBool,
    /// With what a list ended meanwhile that was waited for to the end.
    failure: Mutex<Option<Unknown>>,
}

impl Silence {
    fn failure(&self) -> MutexGuard<'_, Option<Unknown>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Silences {
    fn lasts(&self, registry: &RegistryName) -> bool {
        let silence = self.0.get(registry);
        silence.is_some_and(|silence| silence.lasts.load(Ordering::Relaxed))
    }

    /// With what a list of a silent destination has ended, for which others need not be asked for.
    pub(super) fn failure(&self, registry: &RegistryName) -> Option<Unknown> {
        let silence = self.0.get(registry).filter(|_| self.lasts(registry))?;
        silence.failure().clone()
    }

    /// A list of a destination has failed.
    pub(super) fn fail(&self, registry: &RegistryName, why: &Unknown) {
        if let Some(silence) = self
            .0
            .get(registry)
            .filter(|_| why.kind.is_temporary() && self.lasts(registry))
        {
            silence.failure().get_or_insert_with(|| Unknown {
                message: format!(
                    "{}; it says nothing since, and was not asked again in this run",
                    why.message
                ),
                ..why.clone()
            });
        }
    }

    /// True for a destination that has said nothing once in this run.
    pub(super) fn has_been(&self, registry: &RegistryName) -> bool {
        let silence = self.0.get(registry);
        silence.is_some_and(|silence| silence.has_been.load(Ordering::Relaxed))
    }

    fn begin(&self, registry: &RegistryName) {
        let Some(silence) = self.0.get(registry) else { return };
        silence.has_been.store(true, Ordering::Relaxed);
        if !silence.lasts.swap(true, Ordering::Relaxed) {
            tracing::info!(
                destination = %registry,
                "it says nothing: others do not wait for it, what is to be done there is found out later"
            );
        }
    }

    /// The destination has answered.
    pub(super) fn end(&self, registry: &RegistryName) {
        if let Some(silence) = self.0.get(registry)
            && silence.lasts.swap(false, Ordering::Relaxed)
        {
            *silence.failure() = None;
        }
    }
}

/// Where repositories go that are planned for one destination alone. The queues have no bound: what is in them is held for the
/// list of all repositories anyway.
#[derive(Debug)]
pub(super) struct Latecomers {
    silences: Silences,
    queues: BTreeMap<RegistryName, UnboundedSender<PutOff>>,
}

/// A repository that is planned later for one destination.
#[derive(Debug)]
pub(super) struct PutOff {
    pub(super) matched: Arc<MatchedRepository>,
    /// The last tag that was planned with the others.
    pub(super) after: Option<Tag>,
    /// Its list there, which is still awaited.
    pub(super) listing: Option<Awaited>,
}

/// The repositories that were put off for a destination.
pub(super) struct Later {
    registry: RegistryName,
    queue: UnboundedReceiver<PutOff>,
}

impl Latecomers {
    /// For a run to these destinations that begins: nobody is silent.
    pub(super) fn new<'r>(destinations: impl Iterator<Item = &'r RegistryName>) -> (Self, Vec<Later>) {
        let (mut later, mut silences) = (Vec::new(), BTreeMap::new());
        let queues = destinations.map(|registry| {
            let (sender, queue) = mpsc::unbounded_channel();
            let registry = registry.clone();
            later.push(Later {
                registry: registry.clone(),
                queue,
            });
            silences.insert(registry.clone(), Silence::default());
            (registry, sender)
        });
        let queues = queues.collect();
        let silences = Silences(Arc::new(silences));
        (Self { silences, queues }, later)
    }

    pub(super) fn silences(&self) -> &Silences {
        &self.silences
    }

    /// Of these destinations, those that a repository is planned for together, and those that are silent. Not all of them are:
    /// where nobody else goes on, nobody is waited for.
    pub(super) fn sort(&self, ends: Ends) -> (Ends, Ends) {
        let (late, on_time): (Ends, Ends) = ends.into_iter().partition(|registry| self.silences.lasts(registry));
        match on_time.is_empty() {
            true => (late, on_time),
            false => (on_time, late),
        }
    }

    /// A destination has said nothing for too long.
    pub(super) fn fell_silent(&self, registry: &RegistryName) {
        self.silences.begin(registry);
    }

    /// Plans a repository for a destination later, from the tag on that follows `after`.
    pub(super) fn put_off(&self, registry: &RegistryName, put_off: PutOff) {
        if let Some(queue) = self.queues.get(registry) {
            // Whoever listens does so for as long as we send.
            let _ = queue.send(put_off);
        }
    }
}

impl Later {
    /// Plans what was put off, until nothing more can be.
    pub(super) async fn plan<F: Future<Output = ()>>(self, plan: impl Fn(PutOff, RegistryName) -> F) {
        let Self { registry, queue } = self;
        let next = |mut queue: UnboundedReceiver<PutOff>| async move { Some((queue.recv().await?, queue)) };
        stream::unfold(queue, next)
            .for_each_concurrent(REPOSITORIES_AT_ONCE, |put_off| plan(put_off, registry.clone()))
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::ErrorKind;
    use crate::rules::{RepositoryPattern, RepositoryRule};

    fn put_off(name: &str, after: Option<&Tag>) -> PutOff {
        let matched = MatchedRepository {
            name: name.parse().expect("a name"),
            named: true,
            entry: RepositoryRule {
                pattern: RepositoryPattern::parse(name).expect("a pattern"),
                exclude: Vec::new(),
                to: None,
                tags: None,
            },
            captures: Vec::new(),
        };
        PutOff {
            matched: Arc::new(matched),
            after: after.cloned(),
            listing: None,
        }
    }

    fn ends(names: &[&str]) -> Ends {
        names.iter().map(|name| RegistryName::new(*name)).collect()
    }

    #[tokio::test]
    async fn who_says_nothing_is_late_until_it_answers() {
        let (far, near) = (RegistryName::new("far"), RegistryName::new("near"));
        let all = ends(&["far", "near"]);
        let (latecomers, later) = Latecomers::new(all.iter());
        let sorted = || latecomers.sort(all.clone());
        assert_eq!(sorted(), (all.clone(), Ends::new()));
        latecomers.fell_silent(&far);
        assert_eq!(sorted(), (ends(&["near"]), ends(&["far"])));
        assert_eq!(
            latecomers.sort(ends(&["far"])),
            (ends(&["far"]), Ends::new()),
            "nobody waits for it"
        );
        latecomers.fell_silent(&near);
        assert_eq!(sorted(), (all.clone(), Ends::new()), "nobody is left who would wait");
        let silences = latecomers.silences().clone();
        all.iter().for_each(|registry| silences.end(registry));
        assert_eq!(sorted(), (all.clone(), Ends::new()));
        assert!(silences.has_been(&far));

        // What failed for it holds for as long as it is silent, and only where it may be another time.
        let [broken, refused] = [ErrorKind::Network, ErrorKind::Denied].map(|kind| Unknown::new(kind, "no"));
        silences.fail(&far, &broken);
        assert_eq!(silences.failure(&far), None);
        latecomers.fell_silent(&far);
        silences.fail(&far, &refused);
        assert_eq!(silences.failure(&far), None);
        silences.fail(&far, &broken);
        assert_eq!(silences.failure(&far).map(|why| why.kind), Some(ErrorKind::Network));
        silences.end(&far);
        latecomers.fell_silent(&far);
        assert_eq!(silences.failure(&far), None);

        let v1: Tag = "v1".parse().expect("a tag");
        latecomers.put_off(&far, put_off("one", None));
        latecomers.put_off(&far, put_off("two", Some(&v1)));
        latecomers.put_off(&near, put_off("one", None));
        drop(latecomers);
        let planned = Mutex::new(Vec::new());
        let each = |put_off: PutOff, registry: RegistryName| {
            let planned = &planned;
            async move {
                let name = put_off.matched.name.to_string();
                planned
                    .lock()
                    .expect("a list")
                    .push((registry.to_string(), name, put_off.after));
            }
        };
        futures_util::future::join_all(later.into_iter().map(|later| later.plan(each))).await;
        let mut planned = planned.into_inner().expect("a list");
        planned.sort();
        let of = |end: &str, name: &str, after: Option<&Tag>| (end.to_owned(), name.to_owned(), after.cloned());
        assert_eq!(
            planned,
            [
                of("far", "one", None),
                of("far", "two", Some(&v1)),
                of("near", "one", None)
            ]
        );
    }
}
