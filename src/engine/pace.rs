//! Which destinations of a run keep pace with each other. Those that do share reads; who holds up the others is left behind, in a
//! lane of its own with others of its kind, where it reads for itself and holds up nobody, until it has caught up.

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
    /// Images of one lane that are copied at once.
    images_at_once: usize,
    state: Mutex<State>,
    /// Reads of those that were left behind may begin.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By the registry's name.
    standings: HashMap<String, Standing>,
    /// Reads that are under way for destinations that were left behind.
    reads_behind: usize,
    /// There is work for those that keep pace.
    front_busy: bool,
}

/// Where a destination stands.
#[derive(Debug, Default)]
struct Standing {
    /// How often it was left behind.
    lane: usize,
    /// Changes when what was counted is forgotten.
    epoch: u64,
    reads: SharedTime,
    images: SharedTime,
}

impl Standing {
    fn time(&mut self, what: Shared) -> &mut SharedTime {
        match what {
            Shared::Read => &mut self.reads,
            Shared::Image => &mut self.images,
        }
    }

    fn leave_behind(&mut self, registry: &str) {
        self.move_to(self.lane + 1);
        tracing::info!(
            destination = registry,
            "it takes what is copied much more slowly than others, which do not wait for it: it reads for itself"
        );
    }

    fn move_to(&mut self, lane: usize) {
        *self = Self {
            lane,
            epoch: self.epoch + 1,
            ..Self::default()
        };
    }
}

/// What destinations share.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shared {
    /// A read of a blob, which holds one of the source's places.
    Read,
    /// An image, which holds one of the lane's places.
    Image,
}

impl Pace {
    pub(super) fn new(clock: Clock, source: Endpoint, images_at_once: usize) -> Self {
        Self(Arc::new(Inner {
            clock,
            source,
            images_at_once,
            state: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The destination's lane: 0 where it keeps pace, else how often it was left behind.
    pub(super) fn lane(&self, registry: &str) -> usize {
        let now = self.0.clock.elapsed();
        let mut state = self.state();
        let Some(standing) = state.standings.get_mut(registry) else {
            return 0;
        };
        if standing.reads.is_left_behind(now, self.0.source.blob_reads_at_once())
            || standing.images.is_left_behind(now, self.0.images_at_once)
        {
            standing.leave_behind(registry);
        }
        standing.lane
    }

    /// Nothing is left to do in a lane: those that were left behind there share again with those before them.
    pub(super) fn caught_up(&self, lane: usize) {
        for standing in self.state().standings.values_mut() {
            if standing.lane == lane && lane > 0 {
                standing.move_to(lane - 1);
            }
        }
    }

    /// Whether there is work for those that keep pace: they have half of the source's places for themselves.
    pub(super) fn set_front_busy(&self, busy: bool) {
        self.state().front_busy = busy;
        self.0.changed.notify_waiters();
    }

    /// Several destinations begin to share something.
    pub(super) fn share<'a>(&self, what: Shared, registries: impl Iterator<Item = &'a str>) -> Sharing {
        let now = self.0.clock.elapsed();
        let mut state = self.state();
        let members = registries.map(|registry| {
            let standing = state.standings.entry(registry.to_owned()).or_default();
            standing.time(what).begin(now);
            Some(Member {
                registry: registry.to_owned(),
                epoch: standing.epoch,
                waited_for: false,
            })
        });
        let members = members.collect();
        drop(state);
        Sharing {
            pace: self.clone(),
            what,
            members,
        }
    }

    /// Waits until a blob may be read for these destinations only.
    pub(super) async fn reading_turn(&self, registries: impl Iterator<Item = &str> + Clone) -> Option<ReadBehind> {
        loop {
            let changed = self.0.changed.notified();
            // In the lane before the last one, too, there is somebody who does not wait for them.
            if registries.clone().any(|registry| self.lane(registry) == 0) {
                return None;
            }
            if let Some(turn) = self.try_read_behind() {
                return Some(turn);
            }
            changed.await;
        }
    }

    fn try_read_behind(&self) -> Option<ReadBehind> {
        let mut state = self.state();
        let most = match state.front_busy {
            true => (self.0.source.blob_reads_at_once() / 2).max(1),
            false => usize::MAX,
        };
        (state.reads_behind < most).then(|| {
            state.reads_behind += 1;
            ReadBehind(self.clone())
        })
    }

    /// A destination that was left behind within a read goes on by itself, however many do so.
    pub(super) fn reads_anyhow(&self) -> ReadBehind {
        self.state().reads_behind += 1;
        ReadBehind(self.clone())
    }
}

/// The right to read for destinations that were left behind.
#[derive(Debug)]
pub(super) struct ReadBehind(Pace);

impl Drop for ReadBehind {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.reads_behind = state.reads_behind.saturating_sub(1);
        drop(state);
        self.0.0.changed.notify_waiters();
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
        let mut state = self.pace.state();
        if let Some(member) = self.members[place].take()
            && let Some(time) = time_of(&mut state, self.what, &member)
        {
            time.end(now, member.waited_for);
        }
        if !well {
            return;
        }
        // They wait for the others from now on.
        for member in self.members.iter_mut().flatten().filter(|member| !member.waited_for) {
            if let Some(time) = time_of(&mut state, self.what, member) {
                time.waited_for(now);
                member.waited_for = true;
            }
        }
    }
}

impl Sharing {
    /// One of them was seen to hold up the others.
    pub(super) fn leave_behind(&mut self, place: usize) {
        let mut state = self.pace.state();
        if let Some(member) = &self.members[place]
            && let Some(standing) = state.standings.get_mut(&member.registry)
            && standing.epoch == member.epoch
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
fn time_of<'a>(state: &'a mut State, what: Shared, member: &Member) -> Option<&'a mut SharedTime> {
    let standing = state.standings.get_mut(&member.registry)?;
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

    async fn shared_image(pace: &Pace, between: Duration) -> Sharing {
        let mut sharing = pace.share(Shared::Image, ["near", "far"].into_iter());
        sharing.ended(0, true);
        tokio::time::advance(between).await;
        sharing
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_waited_for_is_left_behind_until_it_has_caught_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let pace = pace(&folder);
        let first = shared_image(&pace, 9 * SECOND).await;
        assert_eq!((pace.lane("near"), pace.lane("far")), (0, 0));
        let second = shared_image(&pace, 9 * SECOND).await;
        assert_eq!((pace.lane("near"), pace.lane("far")), (0, 1));
        // What was begun together counts no more.
        tokio::time::advance(100 * SECOND).await;
        drop((first, second));
        assert_eq!((pace.lane("near"), pace.lane("far")), (0, 1));
        pace.caught_up(0);
        assert_eq!(pace.lane("far"), 1, "it is in another lane");
        pace.caught_up(1);
        assert_eq!(pace.lane("far"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_holds_up_nobody_by_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let pace = pace(&folder);
        let mut sharing = pace.share(Shared::Image, ["near", "far"].into_iter());
        sharing.ended(0, false);
        tokio::time::advance(100 * SECOND).await;
        assert_eq!(pace.lane("far"), 0, "nobody waits for it");
        sharing.ended(1, true);
        tokio::time::advance(100 * SECOND).await;
        assert_eq!((pace.lane("near"), pace.lane("far")), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn many_reads_leave_a_destination_behind_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let pace = pace(&folder);
        let mut reads: Vec<Sharing> = (0..3)
            .map(|_| pace.share(Shared::Read, ["near", "far"].into_iter()))
            .collect();
        reads.iter_mut().for_each(|read| read.leave_behind(1));
        assert_eq!(pace.lane("far"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn those_left_behind_have_half_of_the_places_while_others_are_busy() {
        let folder = tempfile::tempdir().expect("a folder");
        let pace = pace(&folder);
        let far = || ["far"].into_iter();
        assert!(pace.reading_turn(far()).await.is_none(), "it keeps pace");
        pace.share(Shared::Read, ["near", "far"].into_iter()).leave_behind(1);
        assert!(pace.reading_turn(["near", "far"].into_iter()).await.is_none());
        pace.set_front_busy(true);
        let places = pace.0.source.blob_reads_at_once() / 2;
        let mut turns = Vec::new();
        for _ in 0..places {
            turns.push(pace.reading_turn(far()).await.expect("a turn"));
        }
        let mut next = std::pin::pin!(pace.reading_turn(far()));
        assert!(futures_util::poll!(&mut next).is_pending());
        turns.pop();
        let next = next.await.expect("a turn");
        let mut waits = std::pin::pin!(pace.reading_turn(far()));
        assert!(futures_util::poll!(&mut waits).is_pending());
        pace.set_front_busy(false);
        assert!(waits.await.is_some(), "nobody else wants them");
        drop(next);
    }
}
