//! How many may be under way at once: windows for each class, a ceiling over all.

use tokio::time::Instant;

use super::class::Class;
use super::window::Window;

/// Says for whom there is room.
pub(super) trait Rules {
    /// One more of this class fits.
    fn room(&self, class: Class) -> bool;
    /// One more is under way.
    fn enter(&mut self, class: Class);
    /// One less is.
    fn leave(&mut self, class: Class);
}

/// One at a time, whatever the class.
#[derive(Debug, Default)]
pub(super) struct OneByOne {
    taken: bool,
}

impl Rules for OneByOne {
    fn room(&self, _: Class) -> bool {
        !self.taken
    }
    fn enter(&mut self, _: Class) {
        self.taken = true;
    }
    fn leave(&mut self, _: Class) {
        self.taken = false;
    }
}

/// One at a time of each class.
#[derive(Debug, Default)]
pub(super) struct OneOfEach {
    taken: [bool; Class::ALL.len()],
}

impl Rules for OneOfEach {
    fn room(&self, class: Class) -> bool {
        !self.taken[class.number()]
    }
    fn enter(&mut self, class: Class) {
        self.taken[class.number()] = true;
    }
    fn leave(&mut self, class: Class) {
        self.taken[class.number()] = false;
    }
}

/// `limits.concurrency`: no more than so many of all classes together.
///
/// It counts as 2 at least, and reads of blobs never fill it: a blob that is copied within one registry is read and
/// written at once, and the read could not end if the write had to wait for it. From 3 on blobs leave one place to small
/// requests, which else would wait for gibibytes.
#[derive(Debug, Default)]
pub(super) struct Ceiling {
    most: Option<usize>,
    under_way: [usize; Class::ALL.len()],
}

impl Ceiling {
    /// Another limit; those under way stay.
    pub(super) fn set(&mut self, most: Option<usize>) {
        self.most = most.map(|most| most.max(2));
    }

    /// How many of a class there may be while nothing else is under way.
    pub(super) fn most(&self, class: Class) -> usize {
        let Some(most) = self.most else { return usize::MAX };
        let blobs = (most - 1).max(2);
        match class {
            Class::BlobRead => blobs - 1,
            Class::BlobWrite => blobs,
            _ => most,
        }
    }

    fn count(&self, class: Class) -> usize {
        self.under_way[class.number()]
    }
}

impl Rules for Ceiling {
    fn room(&self, class: Class) -> bool {
        let Some(most) = self.most else { return true };
        let blobs = (most - 1).max(2);
        let reads = self.count(Class::BlobRead);
        let fits = match class {
            Class::BlobRead => reads + 1 < blobs && reads + self.count(Class::BlobWrite) < blobs,
            Class::BlobWrite => reads + self.count(Class::BlobWrite) < blobs,
            _ => true,
        };
        fits && self.under_way.iter().sum::<usize>() < most
    }

    fn enter(&mut self, class: Class) {
        self.under_way[class.number()] += 1;
    }

    fn leave(&mut self, class: Class) {
        let count = &mut self.under_way[class.number()];
        *count = count.saturating_sub(1);
    }
}

/// The places of one registry.
#[derive(Debug)]
pub(super) struct Windows {
    windows: [Window; Class::ALL.len()],
    pub(super) ceiling: Ceiling,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            windows: Class::ALL.map(|class| Window::new(class.bounds())),
            ceiling: Ceiling::default(),
        }
    }
}

impl Windows {
    /// Something of this class came back well.
    pub(super) fn answered(&mut self, class: Class, now: Instant, units: u64) {
        let window = &mut self.windows[class.number()];
        let full = self.ceiling.count(class) >= window.size();
        window.answered(now, units, full);
    }

    /// See [`Window::congested`].
    pub(super) fn congested(&mut self, class: Class, now: Instant, sent: Instant) -> bool {
        self.windows[class.number()].congested(now, sent)
    }

    /// Places of a class, free or taken.
    pub(super) fn size(&self, class: Class) -> usize {
        self.windows[class.number()].size()
    }
}

impl Rules for Windows {
    fn room(&self, class: Class) -> bool {
        self.ceiling.count(class) < self.size(class) && self.ceiling.room(class)
    }
    fn enter(&mut self, class: Class) {
        self.ceiling.enter(class);
    }
    fn leave(&mut self, class: Class) {
        self.ceiling.leave(class);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(ceiling: &mut Ceiling, class: Class) -> usize {
        let mut entered = 0;
        while entered < 100 && ceiling.room(class) {
            ceiling.enter(class);
            entered += 1;
        }
        entered
    }

    #[test]
    fn reads_leave_room_for_a_write_and_blobs_for_a_small_request() {
        for (most, reads, writes, small) in [(1, 1, 1, 0), (2, 1, 1, 0), (3, 1, 1, 1), (5, 3, 1, 1), (20, 18, 1, 1)] {
            let mut ceiling = Ceiling::default();
            ceiling.set(Some(most));
            let found = [Class::BlobRead, Class::BlobWrite, Class::Read].map(|class| fill(&mut ceiling, class));
            assert_eq!(found, [reads, writes, small], "of {most}");
            assert_eq!(ceiling.most(Class::BlobRead), reads, "of {most}");
            assert!(!ceiling.room(Class::List), "of {most}");
            ceiling.leave(Class::BlobWrite);
            assert!(ceiling.room(Class::List) && ceiling.room(Class::BlobWrite), "of {most}");
        }
        let mut writes_first = Ceiling::default();
        writes_first.set(Some(5));
        assert_eq!(writes_first.most(Class::BlobWrite), 4);
        assert_eq!(fill(&mut writes_first, Class::BlobWrite), 4);
        assert_eq!(fill(&mut writes_first, Class::BlobRead), 0);
        assert_eq!(fill(&mut writes_first, Class::Read), 1);
    }

    #[test]
    fn without_a_ceiling_only_windows_bound() {
        let mut windows = Windows::default();
        for class in Class::ALL {
            let mut entered = 0;
            while windows.room(class) {
                windows.enter(class);
                entered += 1;
            }
            assert_eq!(entered, class.bounds().start, "{class:?}");
        }
    }
}
