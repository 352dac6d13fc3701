//! Which destinations of a run keep pace with each other. Those that do share reads; who holds up the others is left behind: it
//! reads for itself, from a queue of its own, and holds up nobody, until it has caught up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    laggards: LaggardReads,
}

/// The reads of one source for destinations that were left behind, each for one alone, in all runs of the process: its places are
/// the process's. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct LaggardReads(Arc<Reads>);

#[derive(Debug, Default)]
struct Reads {
    count: AtomicUsize,
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

    fn leave_behind(&mut self, registry: &str, laggards: &LaggardReads) {
        self.behind = true;
        laggards.0.count.fetch_add(self.lone_reads, Ordering::Relaxed);
        self.begin_anew();
        tracing::info!(
            destination = registry,
            "it takes what is copied much more slowly than others, which do not wait for it: it reads for itself"
        );
    }

    fn catch_up(&mut self, laggards: &LaggardReads) {
        self.behind = false;
        laggards.0.count.fetch_sub(self.lone_reads, Ordering::Relaxed);
        self.begin_anew();
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
    pub(super) fn new(clock: Clock, source: Endpoint, images_at_once: usize, laggards: LaggardReads) -> Self {
        Self(Arc::new(Inner {
            clock,
            source,
            images_at_once,
            standings: Mutex::default(),
            laggards,
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
            standing.leave_behind(registry, &self.0.laggards);
        }
        let behind = standing.behind;
        drop(standings);
        if late {
            self.0.laggards.0.changed.notify_waiters();
        }
        behind
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
            let changed = self.0.laggards.0.changed.notified();
            if let Some(read) = self.try_lone_read(registry) {
                return read;
            }
            changed.await;
        }
    }

    /// As [`Pace::lone_read`]; `None` where it has to wait. Others find half of the source's places free of what is read for those
    /// that were left behind, each of which has one; and of what one destination reads that may turn out to be slow.
    pub(super) fn try_lone_read(&self, registry: &str) -> Option<LoneRead> {
        let most = (self.0.source.blob_reads_at_once() / 2).max(1);
        let mut standings = self.standings();
        let others = standings
            .iter()
            .filter(|(name, other)| *name != registry && other.images_left > 0);
        let (laggards, quick): (Vec<_>, Vec<_>) = others.map(|(_, other)| other).partition(|other| other.behind);
        let (laggards, quick) = (!laggards.is_empty(), !quick.is_empty());
        let standing = standings.entry(registry.to_owned()).or_default();
        let own = standing.lone_reads;
        let full = match standing.behind {
            true => {
                let all = self.0.laggards.0.count.load(Ordering::Relaxed);
                own > 0 && ((quick && all >= most) || (laggards && own >= most))
            }
            false => quick && !laggards && own >= most,
        };
        if full {
            return None;
        }
        self.0
            .laggards
            .0
            .count
            .fetch_add(usize::from(standing.behind), Ordering::Relaxed);
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
        let laggards = &self.pace.0.laggards.0;
        if let Some(standing) = self.pace.standings().get_mut(&self.registry) {
            standing.lone_reads = standing.lone_reads.saturating_sub(1);
            laggards
                .count
                .fetch_sub(usize::from(standing.behind), Ordering::Relaxed);
        }
        laggards.changed.notify_waiters();
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
        let laggards = &self.pace.0.laggards;
        let mut standings = self.pace.standings();
        let others = standings.iter().filter(|(name, _)| **name != self.registry);
        // That another one is as slow says nothing.
        let quick = others.filter(|(_, other)| !other.behind);
        let most = quick.map(|(_, other)| other.images_left).max().unwrap_or(0);
        if let Some(standing) = standings.get_mut(&self.registry) {
            standing.images_left = standing.images_left.saturating_sub(1);
            // It has no more left to do than another one.
            if standing.behind && standing.images_left <= most {
                standing.catch_up(laggards);
            }
        }
        drop(standings);
        laggards.0.changed.notify_waiters();
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
            standing.leave_behind(&member.registry, &self.pace.0.laggards);
        }
        drop(standings);
        self.pace.0.laggards.0.changed.notify_waiters();
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
        Pace::new(Clock::system(), Endpoint::Layout(layout), 1, LaggardReads::default())
    }

    /// As many reads as it may have, up to a number.
    fn take(pace: &Pace, registry: &str, count: usize) -> Vec<LoneRead> {
        (0..count).map_while(|_| pace.try_lone_read(registry)).collect()
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
        assert_eq!(take(&pace, "far", 2 * half).len(), 2 * half, "nobody else is there");
        let near = pace.image("near");
        let mut reads = take(&pace, "far", 2 * half);
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
        let [far, near] = ["far", "near"].map(|registry| take(&pace, registry, 2 * half));
        assert_eq!((far.len(), near.len()), (half, 2 * half));
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_were_left_behind_have_half_together_in_all_runs_and_one_each() {
        let folder = tempfile::tempdir().expect("a folder");
        let (pace, mut other_run) = (pace(&folder), self::pace(&folder));
        if let Some(inner) = Arc::get_mut(&mut other_run.0) {
            inner.laggards = pace.0.laggards.clone();
        }
        let half = pace.0.source.blob_reads_at_once() / 2;
        assert!(half >= 2);
        let all = ["near", "far", "slow"];
        let _images: Vec<_> = [&pace, &other_run]
            .into_iter()
            .flat_map(|pace| all.map(|registry| pace.image(registry)))
            .collect();
        // What it began before counts too.
        let before = take(&pace, "far", half - 1);
        assert_eq!(before.len(), half - 1);
        for pace in [&pace, &other_run] {
            let mut sharing = pace.share(Shared::Read, all.into_iter());
            (1..3).for_each(|place| sharing.leave_behind(place));
        }
        let slow = take(&pace, "slow", half);
        assert_eq!(slow.len(), 1);
        let elsewhere = ["slow", "far"].map(|registry| take(&other_run, registry, half));
        assert_eq!(elsewhere.map(|reads| reads.len()), [1, 1]);
        assert_eq!(take(&pace, "near", 2 * half).len(), 2 * half);
        drop(before);
        let slow: Vec<_> = slow.into_iter().chain(take(&pace, "slow", 2 * half)).collect();
        assert_eq!(slow.len(), half, "those of the other run are gone");
        drop(slow);
        assert_eq!(pace.0.laggards.0.count.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_two_that_were_left_behind_does_not_catch_up_with_the_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let pace = pace(&folder);
        let (mut far, slow) = (
            Vec::from([(); 3].map(|()| pace.image("far"))),
            [(); 5].map(|()| pace.image("slow")),
        );
        let near = pace.image("near");
        let mut sharing = pace.share(Shared::Read, ["near", "far", "slow"].into_iter());
        (1..3).for_each(|place| sharing.leave_behind(place));
        far.pop();
        assert!(pace.is_behind("far"), "the quick one has less");
        far.pop();
        assert!(!pace.is_behind("far"), "as much as the quick one");
        assert!(pace.is_behind("slow"));
        drop((slow, near));
        assert!(!pace.is_behind("slow"), "nothing is left");
    }
}
