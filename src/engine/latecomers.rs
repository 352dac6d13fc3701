//! Destinations that said nothing while their repositories were planned: until they have caught up they are planned by
//! themselves, and the others do not wait for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::run::REPOSITORIES_AT_ONCE;
use crate::oci::Tag;
use crate::rules::{MatchedRepository, RegistryName};

/// Some destinations of a rule.
pub(super) type Ends = BTreeSet<RegistryName>;

/// Where repositories go that are planned for one destination alone. The queues have no bound: what is in them is less than
/// the list of all repositories, which is held anyway.
#[derive(Debug)]
pub(super) struct Latecomers {
    queues: BTreeMap<RegistryName, Queue>,
}

#[derive(Debug)]
struct Queue {
    sender: UnboundedSender<PutOff>,
    left: Arc<AtomicUsize>,
}

/// A repository that is planned later for one destination.
#[derive(Debug)]
pub(super) struct PutOff {
    pub(super) matched: MatchedRepository,
    /// The last tag that was planned with the others.
    pub(super) after: Option<Tag>,
    _left: Left,
}

/// Counts what is left to plan.
#[derive(Debug)]
struct Left(Arc<AtomicUsize>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The repositories that were put off for a destination.
pub(super) struct Later {
    ends: Ends,
    queue: UnboundedReceiver<PutOff>,
}

impl Latecomers {
    /// For a run to these destinations that begins: nobody is late.
    pub(super) fn new<'r>(destinations: impl Iterator<Item = &'r RegistryName>) -> (Self, Vec<Later>) {
        let mut later = Vec::new();
        let queues = destinations.map(|registry| {
            let (sender, queue) = mpsc::unbounded_channel();
            let ends = Ends::from([registry.clone()]);
            later.push(Later { ends, queue });
            let left = Arc::default();
            (registry.clone(), Queue { sender, left })
        });
        let queues = queues.collect();
        (Self { queues }, later)
    }

    /// True for a destination that is being planned by itself.
    pub(super) fn is_late(&self, registry: &RegistryName) -> bool {
        let queue = self.queues.get(registry);
        queue.is_some_and(|queue| queue.left.load(Ordering::Relaxed) > 0)
    }

    /// The destinations that a repository is planned for together, and those that are late. Not all of them are: where nobody
    /// else goes on, nobody is late.
    pub(super) fn sort(&self) -> (Ends, Ends) {
        let ends = self.queues.keys().cloned();
        let (late, on_time): (Ends, Ends) = ends.partition(|registry| self.is_late(registry));
        match on_time.is_empty() {
            true => (late, on_time),
            false => (on_time, late),
        }
    }

    /// Plans a repository for these destinations later, from the tag on that follows `after`.
    pub(super) fn put_off(&self, matched: &MatchedRepository, ends: &Ends, after: Option<&Tag>) {
        for (registry, queue) in ends.iter().filter_map(|end| self.queues.get_key_value(end)) {
            if queue.left.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::info!(
                    destination = %registry,
                    "it says nothing: others do not wait for it, what is to be done there is found out later"
                );
            }
            let put_off = PutOff {
                matched: matched.clone(),
                after: after.cloned(),
                _left: Left(Arc::clone(&queue.left)),
            };
            // Whoever listens does so for as long as we send.
            let _ = queue.sender.send(put_off);
        }
    }
}

impl Later {
    /// Plans what was put off, until nothing more can be.
    pub(super) async fn plan<F: Future<Output = ()>>(self, plan: impl Fn(PutOff, Ends) -> F) {
        let Self { ends, queue } = self;
        let next = |mut queue: UnboundedReceiver<PutOff>| async move { Some((queue.recv().await?, queue)) };
        stream::unfold(queue, next)
            .for_each_concurrent(REPOSITORIES_AT_ONCE, |put_off| plan(put_off, ends.clone()))
            .await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::rules::{RepositoryPattern, RepositoryRule};

    fn matched(name: &str) -> MatchedRepository {
        MatchedRepository {
            name: name.parse().expect("a name"),
            named: true,
            entry: RepositoryRule {
                pattern: RepositoryPattern::parse(name).expect("a pattern"),
                exclude: Vec::new(),
                to: None,
                tags: None,
            },
            captures: Vec::new(),
        }
    }

    fn ends(names: &[&str]) -> Ends {
        names.iter().map(|name| RegistryName::new(*name)).collect()
    }

    #[tokio::test]
    async fn who_was_put_off_is_late_until_all_of_it_is_planned() {
        let all = ends(&["far", "near"]);
        let (latecomers, later) = Latecomers::new(all.iter());
        assert_eq!(latecomers.sort(), (all.clone(), Ends::new()));
        let v1: Tag = "v1".parse().expect("a tag");
        latecomers.put_off(&matched("one"), &ends(&["far"]), None);
        latecomers.put_off(&matched("two"), &ends(&["far"]), Some(&v1));
        assert_eq!(latecomers.sort(), (ends(&["near"]), ends(&["far"])));
        latecomers.put_off(&matched("one"), &ends(&["near"]), None);
        assert_eq!(
            latecomers.sort(),
            (all.clone(), Ends::new()),
            "nobody is left who would wait"
        );
        let (shared, planned) = (Mutex::new(Some(latecomers)), Mutex::new(Vec::new()));
        let each = |put_off: PutOff, ends: Ends| {
            let (shared, planned) = (&shared, &planned);
            async move {
                let name = put_off.matched.name.to_string();
                let registry = ends.first().expect("one").to_string();
                planned
                    .lock()
                    .expect("a list")
                    .push((registry, name, put_off.after.clone()));
                drop(put_off);
                if planned.lock().expect("a list").len() == 3 {
                    let latecomers = shared.lock().expect("it").take();
                    assert_eq!(latecomers.expect("once").sort().1, Ends::new(), "all have caught up");
                }
            }
        };
        futures_util::future::join_all(later.into_iter().map(|later| later.plan(each))).await;
        let mut planned = planned.into_inner().expect("a list");
        planned.sort();
        let planned: Vec<_> = planned
            .iter()
            .map(|(end, name, after)| (end.as_str(), name.as_str(), after.as_ref()))
            .collect();
        assert_eq!(
            planned,
            [("far", "one", None), ("far", "two", Some(&v1)), ("near", "one", None)]
        );
    }
}
