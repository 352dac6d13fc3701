//! Which destinations of a run keep pace with each other. Those that do share reads; who holds up the others is left behind: it
//! reads for itself, from a queue of its own, and holds up nobody, until it has caught up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::plan::SharedTime;
use crate::registry::Endpoint;

/// Shared by all that is copied in one run. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Pace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    source: Endpoint,
    /// Images that are shared at once.
    images_at_once: usize,
    /// By the registry's name.
    standings: Mutex<HashMap<String, Standing>>,
    /// Somebody may read by itself now.
    changed: Notify,
}

/// Where a destination stands.
#[derive(Debug, Default)]
struct Standing {
    behind: bool,
    /// Changes when what was counted is forgotten.
    epoch: u64,
    reads: SharedTime,
    images: SharedTime,
    /// Images that are on their way to it or wait for their turn.
    images_left: usize,
    /// Reads for it alone.
    lone_reads: usize,
}

impl Standing {
    fn time(&mut self, what: Shared) -> &mut SharedTime {
        match what {
            Shared::Read => &mut self.reads,
            Shared::Image => &mut self.images,
        }
    }

    fn leave_behind(&mut self, registry: &str) {
        self.behind = true;
        self.begin_anew();
        tracing::info!(
            destination = registry,
            "it takes what is copied much more slowly than others, which do not wait for it: it reads for itself"
        );
    }

    fn begin_anew(&mut self) {
        self.epoch += 1;
        (self.reads, self.images) = Default::default();
    }
}

/// What destinations share.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shared {
    /// A read of a blob, which holds one of the source's places.
    Read,
    /// An image, which holds one of the places of images.
    Image,
}

impl Pace {
    pub(super) fn new(clock: Clock, source: Endpoint, images_at_once: usize) -> Self {
        Self(Arc::new(Inner {
            clock,
            source,
            images_at_once,
            standings: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    fn standings(&self) -> MutexGuard<'_, HashMap<String, Standing>> {
        self.0.standings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True for a destination that others do not wait for.
    pub(super) fn is_behind(&self, registry: &str) -> bool {
        let now = self.0.clock.elapsed();
        let mut standings = self.standings();
        let Some(standing) = standings.get_mut(registry) else {
            return false;
        };
        let late = !standing.behind
            && (standing.reads.is_left_behind(now, self.0.source.blob_reads_at_once())
                || standing.images.is_left_behind(now, self.0.images_at_once));
        if late {
            standing.leave_behind(registry);
        }
        standing.behind
    }

    /// Several destinations begin to share something.
    pub(super) fn share<'a>(&self, what: Shared, registries: impl Iterator<Item = &'a str>) -> Sharing {
        let now = self.0.clock.elapsed();
        let mut standings = self.standings();
        let members = registries.map(|registry| {
            let standing = standings.entry(registry.to_owned()).or_default();
            standing.time(what).begin(now);
            Some(Member {
                registry: registry.to_owned(),
                epoch: standing.epoch,
                waited_for: false,
            })
        });
        let members = members.collect();
        drop(standings);
        Sharing {
            pace: self.clone(),
            what,
            members,
        }
    }

    /// An image is to be brought to a destination; dropped when it is there.
    pub(super) fn image(&self, registry: &str) -> ImageLeft {
        self.standings().entry(registry.to_owned()).or_default().images_left += 1;
        ImageLeft {
            pace: self.clone(),
            registry: registry.to_owned(),
        }
    }

    /// Waits until a blob may be read for one destination alone.
    pub(super) async fn lone_read(&self, registry: &str) -> LoneRead {
        loop {
            let changed = self.0.changed.notified();
            if let Some(read) = self.try_lone_read(registry) {
                return read;
            }
            changed.await;
        }
    }

    /// As [`Pace::lone_read`]; `None` where it has to wait. Others find half of the source's places free of what one destination
    /// reads alone, unless that one is quick and they are not.
    pub(super) fn try_lone_read(&self, registry: &str) -> Option<LoneRead> {
        let most = (self.0.source.blob_reads_at_once() / 2).max(1);
        let mut standings = self.standings();
        let mut others = standings
            .iter()
            .filter(|(name, standing)| *name != registry && standing.images_left > 0);
        let (busy, quick) = (others.clone().next().is_some(), !others.any(|(_, other)| other.behind));
        let standing = standings.entry(registry.to_owned()).or_default();
        if busy && (quick || standing.behind) && standing.lone_reads >= most {
            return None;
        }
        standing.lone_reads += 1;
        Some(LoneRead {
            pace: self.clone(),
            registry: registry.to_owned(),
        })
    }
}

/// The right to read for one destination alone.
#[derive(Debug)]
pub(super) struct LoneRead {
    pace: Pace,
    registry: String,
}

impl Drop for LoneRead {
    fn drop(&mut self) {
        if let Some(standing) = self.pace.standings().get_mut(&self.registry) {
            standing.lone_reads = standing.lone_reads.saturating_sub(1);
        }
        self.pace.0.changed.notify_waiters();
    }
}

/// An image that is not yet at a destination.
#[derive(Debug)]
pub(super) struct ImageLeft {
    pace: Pace,
    registry: String,
}

impl Drop for ImageLeft {
    fn drop(&mut self) {
        let mut standings = self.pace.standings();
        let others = standings.iter().filter(|(name, _)| **name != self.registry);
        let most = others.map(|(_, other)| other.images_left).max().unwrap_or(0);
        if let Some(standing) = standings.get_mut(&self.registry) {
            standing.images_left = standing.images_left.saturating_sub(1);
            // It has no more left to do than another one.
            if standing.behind && standing.images_left <= most {
                standing.behind = false;
                standing.begin_anew();
            }
        }
        drop(standings);
        self.pace.0.changed.notify_waiters();
    }
}

/// Destinations that share something, until this is dropped.
#[derive(Debug)]
pub(super) struct Sharing {
    pace: Pace,
    what: Shared,
    members: Vec<Option<Member>>,
}

#[derive(Debug)]
struct Member {
    registry: String,
    epoch: u64,
    waited_for: bool,
}

impl Sharing {
    /// One of them, by its place among all, has ended; `well`: it has what it wanted, so that it would go on to something else.
    pub(super) fn ended(&mut self, place: usize, well: bool) {
        let now = self.pace.0.clock.elapsed();
        let mut standings = self.pace.standings();
        if let Some(member) = self.members[place].take()
            && let Some(time) = time_of(&mut standings, self.what, &member)
        {
            time.end(now, member.waited_for);
        }
        if !well {
            return;
        }
        // They wait for the others from now on.
        for member in self.members.iter_mut().flatten().filter(|member| !member.waited_for) {
            if let Some(time) = time_of(&mut standings, self.what, member) {
                time.waited_for(now);
                member.waited_for = true;
            }
        }
    }
}

impl Sharing {
    /// One of them was seen to hold up the others.
    pub(super) fn leave_behind(&mut self, place: usize) {
        let mut standings = self.pace.standings();
        if let Some(member) = &self.members[place]
            && let Some(standing) = standings.get_mut(&member.registry)
            && standing.epoch == member.epoch
            && !standing.behind
        {
            standing.leave_behind(&member.registry);
        }
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        for place in 0..self.members.len() {
            self.ended(place, false);
        }
    }
}

/// What is counted of a member; `None` where it was left behind meanwhile, or has caught up.
fn time_of<'a>(
    standings: &'a mut HashMap<String, Standing>,
    what: Shared,
    member: &Member,
) -> Option<&'a mut SharedTime> {
    let standing = standings.get_mut(&member.registry)?;
    (standing.epoch == member.epoch).then(|| standing.time(what))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::registry::Layout;

    const SECOND: Duration = Duration::from_secs(1);

    /// With one place for images. The folder is the source.
    fn pace(folder: &tempfile::TempDir) -> Pace {
        let layout = Layout::open("src", folder.path()).expect("a folder");
        Pace::new(Clock::system(), Endpoint::Layout(layout), 1)
    }

    const BOTH: [&str; 2] = ["near", "far"];

    fn behind(pace: &Pace) -> [bool; 2] {
        BOTH.map(|registry| pace.is_behind(registry))
    }

    async fn shared_image(pace: &Pace, between: Duration) -> Sharing {
        let mut sharing = pace.share(Shared::Image, BOTH.into_iter());
        sharing.ended(0, true);
        tokio::time::advance(between).await;
        sharing
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_waited_for_is_left_behind_until_it_has_no_more_to_do_than_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let pace = pace(&folder);
        let far = [(); 3].map(|()| pace.image("far"));
        let near = pace.image("near");
        let first = shared_image(&pace, 9 * SECOND).await;
        assert_eq!(behind(&pace), [false, false]);
        let second = shared_image(&pace, 9 * SECOND).await;
        assert_eq!(behind(&pace), [false, true]);
        // What was begun together counts no more.
        tokio::time::advance(100 * SECOND).await;
        drop((first, second));
        let [one, two, three] = far;
        drop(one);
        assert_eq!(behind(&pace), [false, true], "two are left");
        drop(two);
        assert_eq!(behind(&pace), [false, false], "as many as for the other");
        drop((three, near));
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_holds_up_nobody_by_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let pace = pace(&folder);
        let mut sharing = pace.share(Shared::Image, BOTH.into_iter());
        sharing.ended(0, false);
        tokio::time::advance(100 * SECOND).await;
        assert_eq!(behind(&pace), [false, false], "nobody waits for it");
        sharing.ended(1, true);
        tokio::time::advance(100 * SECOND).await;
        assert_eq!(behind(&pace), [false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_destination_alone_takes_all_places_while_another_is_busy() {
        let folder = tempfile::tempdir().expect("a folder");
        let pace = pace(&folder);
        let half = pace.0.source.blob_reads_at_once() / 2;
        let take = |registry, count: usize| {
            (0..count)
                .map_while(|_| pace.try_lone_read(registry))
                .collect::<Vec<_>>()
        };
        assert_eq!(take("far", 2 * half).len(), 2 * half, "nobody else is there");
        let near = pace.image("near");
        let mut reads = take("far", 2 * half);
        assert_eq!(reads.len(), half);
        let mut next = std::pin::pin!(pace.lone_read("far"));
        assert!(futures_util::poll!(&mut next).is_pending());
        reads.pop();
        reads.push(next.await);
        let mut next = std::pin::pin!(pace.lone_read("far"));
        assert!(futures_util::poll!(&mut next).is_pending());
        drop(near);
        reads.push(next.await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_quick_one_has_all_places_but_those_of_who_was_left_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let pace = pace(&folder);
        let _images = BOTH.map(|registry| pace.image(registry));
        pace.share(Shared::Read, BOTH.into_iter()).leave_behind(1);
        let half = pace.0.source.blob_reads_at_once() / 2;
        let count = |registry| {
            (0..2 * half)
                .map_while(|_| pace.try_lone_read(registry))
                .collect::<Vec<_>>()
        };
        let (far, near) = (count("far"), count("near"));
        assert_eq!((far.len(), near.len()), (half, 2 * half));
    }
}
