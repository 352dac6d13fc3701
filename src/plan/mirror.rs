//! Whether a mirror is asked, by what became of the questions before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::oci::RepositoryName;

/// How long a mirror that failed is left alone at first; doubles with each failure after that.
const FIRST_REST: Duration = Duration::from_secs(60);
/// The longest rest. A mirror that does not know us rests as long at once: that takes a person to mend.
const LONGEST_REST: Duration = Duration::from_secs(15 * 60);

/// How long a mirror is not asked for a repository that it refused. Registries say so of what they lack, too, so that nothing
/// follows for others.
pub const REFUSED_FOR: Duration = LONGEST_REST;

/// Different repositories refused in a row after which more than they are left alone. Four are looked at at once, so that
/// one moment's bad luck is not enough; each further one would cost a request that is refused, and little else.
pub const REFUSED_IN_A_ROW: usize = 5;
/// How many of these may lie in one namespace: one or two that we may not read, beside many that we may, are usual, and say
/// nothing of the mirror however many repositories they have.
const OF_ONE_NAMESPACE: usize = 2;
/// Refused repositories and namespaces that are remembered. Above it all are forgotten.
const MOST: usize = 10_000;

/// What may be wrong with a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorTrouble {
    /// It did not answer, failed, or gave something else than was asked for.
    Failed,
    /// It does not take our login.
    Refused,
}

/// What follows from a repository that a mirror refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorRefusal {
    /// That one is left alone for [`REFUSED_FOR`]. With whether it is the only one: that is worth telling.
    Repository(bool),
    /// So is all that lies in its namespace. With whether that is news.
    Namespace(bool),
    /// The mirror is left alone, for this time. With whether it was well before.
    Mirror(Duration, bool),
}

/// What is remembered of a mirror. Times are those of a monotonic clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MirrorHealth {
    rests_until: Option<Duration>,
    rested: Option<Duration>,
    /// Repositories that it refused, with the time until which they are not asked for.
    refused: HashMap<RepositoryName, Duration>,
    /// Namespaces all of which it seems to refuse, likewise. They stay until it gave something of them, so that they are told
    /// of once.
    refused_below: BTreeMap<String, Duration>,
    /// Repositories by their namespaces that it refused since it let us in.
    row: BTreeMap<String, BTreeSet<RepositoryName>>,
}

/// What stands first in a repository's name behind the mirror's `prefix`: what rights are mostly granted on. A name of one part
/// is one by itself.
fn namespace<'n>(name: &'n RepositoryName, prefix: Option<&str>) -> &'n str {
    let name = name.as_str();
    let behind = prefix.and_then(|prefix| name.strip_prefix(prefix)?.strip_prefix('/'));
    let name = behind.unwrap_or(name);
    name.split_once('/').map_or(name, |(first, _)| first)
}

impl MirrorHealth {
    /// True where it may be asked at `now`.
    pub fn is_asked(&self, now: Duration) -> bool {
        self.rests_until.is_none_or(|until| now >= until)
    }

    /// True where it may be asked at `now` for a repository, by its name there, which begins with the mirror's `prefix`.
    pub fn is_asked_for(&self, name: &RepositoryName, prefix: Option<&str>, now: Duration) -> bool {
        let rests = |until: Option<&Duration>| until.is_some_and(|until| now < *until);
        self.is_asked(now) && !rests(self.refused.get(name)) && !rests(self.refused_below.get(namespace(name, prefix)))
    }

    /// It gave what was asked for.
    pub fn fine(&mut self, now: Duration) {
        // What was asked before a trouble says nothing of the time after it.
        if self.is_asked(now) {
            self.rests_until = None;
            self.rested = None;
        }
    }

    /// It refused nothing when asked for a repository, whether it has what was asked for or not.
    pub fn let_in(&mut self, name: &RepositoryName, prefix: Option<&str>, now: Duration) {
        if self.is_asked(now) {
            self.row.clear();
            self.refused_below.remove(namespace(name, prefix));
        }
    }

    /// It refused a repository, by its name there. `None` where it rests already.
    pub fn refused(&mut self, name: &RepositoryName, prefix: Option<&str>, now: Duration) -> Option<MirrorRefusal> {
        if !self.is_asked(now) {
            return None;
        }
        self.refused.retain(|_, until| now < *until);
        let is_only = self.refused.is_empty();
        if self.refused.len() >= MOST {
            self.refused.clear();
        }
        self.refused.insert(name.clone(), now + REFUSED_FOR);
        let of_it = self.row.entry(namespace(name, prefix).to_owned()).or_default();
        if of_it.len() < REFUSED_IN_A_ROW {
            of_it.insert(name.clone());
        }
        let of_it = of_it.len();
        let count: usize = self.row.values().map(|names| names.len().min(OF_ONE_NAMESPACE)).sum();
        if count >= REFUSED_IN_A_ROW {
            // After the rest it takes as many again.
            self.row.clear();
            let (rest, news) = self.trouble(MirrorTrouble::Refused, now)?;
            return Some(MirrorRefusal::Mirror(rest, news));
        }
        if of_it < REFUSED_IN_A_ROW {
            return Some(MirrorRefusal::Repository(is_only));
        }
        if self.refused_below.len() >= MOST {
            self.refused_below.clear();
        }
        let below = namespace(name, prefix).to_owned();
        let before = self.refused_below.insert(below, now + REFUSED_FOR);
        Some(MirrorRefusal::Namespace(before.is_none()))
    }

    /// It has a trouble. Gives for how long it rests, and whether it was well before: that is worth telling. `None` where
    /// it rests already, as after the first of several questions that fail at once.
    pub fn trouble(&mut self, what: MirrorTrouble, now: Duration) -> Option<(Duration, bool)> {
        if !self.is_asked(now) {
            return None;
        }
        let rest = match (what, self.rested) {
            (MirrorTrouble::Refused, _) => LONGEST_REST,
            (MirrorTrouble::Failed, None) => FIRST_REST,
            (MirrorTrouble::Failed, Some(rested)) => (rested * 2).min(LONGEST_REST),
        };
        let news = self.rested.is_none();
        self.rests_until = Some(now + rest);
        self.rested = Some(rest);
        Some((rest, news))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn one_that_fails_rests_longer_each_time_until_it_is_well() {
        let mut health = MirrorHealth::default();
        let mut now = MINUTE;
        for (minutes, news) in [(1, true), (2, false), (4, false), (8, false), (15, false), (15, false)] {
            assert!(health.is_asked(now));
            assert_eq!(
                health.trouble(MirrorTrouble::Failed, now),
                Some((MINUTE * minutes, news))
            );
            // Others that were under way fail with it.
            assert_eq!(health.trouble(MirrorTrouble::Failed, now), None);
            assert!(!health.is_asked(now + MINUTE * minutes - Duration::from_millis(1)));
            now += MINUTE * minutes;
        }
        health.fine(now - MINUTE);
        assert_eq!(
            health.trouble(MirrorTrouble::Failed, now),
            Some((MINUTE * 15, false)),
            "asked before"
        );
        now += MINUTE * 15;
        health.fine(now);
        assert_eq!(
            health.trouble(MirrorTrouble::Failed, now),
            Some((MINUTE, true)),
            "told again"
        );
    }

    #[test]
    fn one_that_does_not_know_us_rests_long() {
        let mut health = MirrorHealth::default();
        assert_eq!(
            health.trouble(MirrorTrouble::Refused, MINUTE),
            Some((MINUTE * 15, true))
        );
        assert!(health.is_asked(MINUTE * 16));
        assert_eq!(
            health.trouble(MirrorTrouble::Failed, MINUTE * 16),
            Some((MINUTE * 15, false))
        );
    }

    fn name(text: &str) -> RepositoryName {
        text.parse().expect("a name")
    }

    /// What follows from these refusals, one after the other.
    fn follows(health: &mut MirrorHealth, prefix: Option<&str>, names: &[&str], now: Duration) -> Vec<MirrorRefusal> {
        let all = names.iter().filter_map(|text| health.refused(&name(text), prefix, now));
        all.collect()
    }

    #[test]
    fn one_that_refuses_everybodys_repositories_rests_as_a_whole_and_is_found_well_again() {
        use MirrorRefusal::{Mirror, Repository};
        let mut health = MirrorHealth::default();
        let names = ["a/one", "b/one", "app", "b/two", "b/two", "d/one", "e/one"];
        let others = Repository(false);
        assert_eq!(
            follows(&mut health, None, &names, MINUTE),
            [
                Repository(true),
                others,
                others,
                others,
                others,
                Mirror(MINUTE * 15, true)
            ],
            "who is asked at the same time says no more"
        );
        assert!(!health.is_asked_for(&name("z/one"), None, MINUTE * 16 - Duration::from_millis(1)));
        // It is asked for all of them again, and one that goes on is not told of again.
        let later = MINUTE * 16;
        assert!(health.is_asked_for(&name("a/one"), None, later));
        let told = follows(&mut health, None, &["a/one", "b/one", "c/one", "d/one", "e/one"], later);
        assert_eq!(told.last(), Some(&Mirror(MINUTE * 15, false)));
        let later = MINUTE * 31;
        health.let_in(&name("a/one"), None, later);
        health.fine(later);
        let told = follows(&mut health, None, &["a/one", "b/one", "c/one", "d/one"], later);
        assert_eq!(told, [Repository(true), others, others, others]);
        // One that it lets us read in between begins the row anew.
        health.let_in(&name("x/one"), None, later);
        let told = follows(&mut health, None, &["e/one", "f/one", "g/one", "h/one", "i/one"], later);
        assert_eq!(told, [others, others, others, others, Mirror(MINUTE * 15, true)]);
    }

    #[test]
    fn a_namespace_that_is_refused_rests_by_itself() {
        use MirrorRefusal::{Namespace, Repository};
        let mut health = MirrorHealth::default();
        let prefix = Some("cache/hub");
        let many: Vec<String> = (0..9).map(|number| format!("cache/hub/private/{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let others = Repository(false);
        let told = follows(&mut health, prefix, &many[..6], MINUTE);
        assert_eq!(
            told,
            [
                Repository(true),
                others,
                others,
                others,
                Namespace(true),
                Namespace(false)
            ]
        );
        assert!(!health.is_asked_for(&name(many[8]), prefix, MINUTE));
        assert!(
            health.is_asked_for(&name("cache/hub/private"), None, MINUTE),
            "another's"
        );
        // Neither it nor a second one costs the mirror its place, whatever comes first.
        let told = follows(&mut health, prefix, &["cache/hub/b/1", "cache/hub/b/2"], MINUTE);
        assert_eq!(told, [others, others]);
        assert!(health.is_asked_for(&name("cache/hub/public/1"), prefix, MINUTE));
        health.let_in(&name("cache/hub/public/1"), prefix, MINUTE);
        assert!(!health.is_asked_for(&name(many[8]), prefix, MINUTE * 15), "it rests on");
        // Later it is tried again, and told of again where it had let us in.
        let later = MINUTE * 16;
        assert!(health.is_asked_for(&name(many[0]), prefix, later));
        let told = follows(&mut health, prefix, &many[..5], later);
        assert_eq!(told.last(), Some(&Namespace(false)));
        health.let_in(&name(many[0]), prefix, later);
        assert!(health.is_asked_for(&name(many[8]), prefix, later));
        let told = follows(&mut health, prefix, &many[..5], later);
        assert_eq!(told.last(), Some(&Namespace(true)));
    }

    #[test]
    fn namespaces_of_mirrors_are_what_stands_first_behind_the_prefix() {
        for (text, prefix, wanted) in [
            ("library/alpine", None, "library"),
            ("alpine", None, "alpine"),
            ("hub-proxy/library/alpine", Some("hub-proxy"), "library"),
            ("hub-proxy/alpine", Some("hub-proxy"), "alpine"),
            ("group/sub/app", None, "group"),
            ("hub-proxy2/app", Some("hub-proxy"), "hub-proxy2"),
        ] {
            assert_eq!(namespace(&name(text), prefix), wanted, "{text}");
        }
    }
}
