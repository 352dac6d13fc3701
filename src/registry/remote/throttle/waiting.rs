//! Who waits for a place, and who is next.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::class::Class;

/// Every so many turns the one that has waited longest goes first, whatever its priority, so that nobody waits for ever.
const TURN_OF_THE_OLDEST: u64 = 8;

/// Those who wait, by class. Of those for whom there is room the highest priority goes first, and among equals the
/// one that came first.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    lines: [BTreeMap<(Reverse<i64>, u64), T>; Class::ALL.len()],
    came: u64,
    turns: u64,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self {
            lines: std::array::from_fn(|_| BTreeMap::new()),
            came: 0,
            turns: 0,
        }
    }
}

impl<T> Waiting<T> {
    pub(super) fn push(&mut self, class: Class, priority: i64, who: T) {
        self.came += 1;
        self.lines[class.number()].insert((Reverse(priority), self.came), who);
    }

    /// True where somebody of this class waits.
    pub(super) fn any(&self, class: Class) -> bool {
        !self.lines[class.number()].is_empty()
    }

    /// Takes the next one of the classes that have room.
    pub(super) fn take(&mut self, room: impl Fn(Class) -> bool) -> Option<(Class, T)> {
        let open: Vec<Class> = Class::ALL
            .into_iter()
            .filter(|class| self.any(*class) && room(*class))
            .collect();
        let lines = &self.lines;
        let oldest = |class: Class| lines[class.number()].keys().min_by_key(|(_, came)| *came).copied();
        let first = |class: Class| lines[class.number()].keys().next().copied();
        let of_the_oldest = self.turns % TURN_OF_THE_OLDEST == TURN_OF_THE_OLDEST - 1;
        let (key, class) = if of_the_oldest {
            let keys = open.into_iter().filter_map(|class| Some((oldest(class)?, class)));
            keys.min_by_key(|((_, came), _)| *came)?
        } else {
            let keys = open.into_iter().filter_map(|class| Some((first(class)?, class)));
            keys.min_by_key(|(key, _)| *key)?
        };
        self.turns += 1;
        Some((class, self.lines[class.number()].remove(&key)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(waiting: &mut Waiting<u32>) -> Vec<u32> {
        std::iter::from_fn(|| waiting.take(|_| true))
            .map(|(_, who)| who)
            .collect()
    }

    #[test]
    fn equals_go_in_the_order_in_which_they_came() {
        let mut waiting = Waiting::default();
        let classes = [Class::BlobWrite, Class::Read, Class::List].into_iter().cycle();
        for (class, number) in classes.zip(0..20) {
            waiting.push(class, 0, number);
        }
        assert_eq!(order(&mut waiting), (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn higher_priorities_go_first_and_nobody_waits_for_ever() {
        let mut waiting = Waiting::default();
        waiting.push(Class::Read, 0, 1000);
        for number in 0..20 {
            waiting.push(Class::Read, 5, number);
        }
        let order = order(&mut waiting);
        assert_eq!(order[..8], [0, 1, 2, 3, 4, 5, 6, 1000]);
        assert_eq!(order[8..], (7..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_class_without_room_holds_up_no_other() {
        let mut waiting = Waiting::default();
        waiting.push(Class::BlobRead, 9, 1);
        waiting.push(Class::Read, 0, 2);
        let small = |class: Class| !class.is_blob();
        assert_eq!(waiting.take(small).map(|(_, who)| who), Some(2));
        assert_eq!(waiting.take(small), None);
        assert!(waiting.any(Class::BlobRead) && !waiting.any(Class::Read));
        assert_eq!(waiting.take(|_| true), Some((Class::BlobRead, 1)));
    }
}
