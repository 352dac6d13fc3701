//! What is found out of a registry by asking it, and is worth keeping for later processes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Facts that are remembered; above it those that are kept elsewhere are forgotten, then no more are taken: each costs a request.
const MOST: usize = 10_000;

/// Value of a [`Fact`] that says whether there is something.
pub const PRESENT: &str = "present";
/// The other one.
pub const ABSENT: &str = "absent";
/// How long [`PRESENT`] is believed, which nothing is left undone for.
pub const PRESENT_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long it is believed what kind of registry one was found to be: a name may come to stand for another product.
pub const KIND_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long [`ABSENT`] is: what is switched on or upgraded is found within hours.
pub const ABSENT_LIFE: Duration = Duration::from_secs(6 * 3600);

/// What may be found out. A fact that proves wrong must cost requests alone: whoever uses one has a way that is right without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    /// Whether there is the referrers API: [`PRESENT`], [`ABSENT`]; of a repository, that it is refused to us there.
    ReferrersApi,
    /// zot: whether its search extension is switched on.
    Search,
    /// GitLab: whether its registry has the database of its metadata, and with it the API that lists tags.
    MetadataDatabase,
    /// Azure: how many tags of a page may be asked for, or that none may.
    PageSize,
    /// Harbor: what a project is, and its id.
    Project,
    /// That blobs were mounted from one repository into another.
    Mounts,
}

impl Fact {
    const ALL: [Self; 6] = [
        Self::ReferrersApi,
        Self::Search,
        Self::MetadataDatabase,
        Self::PageSize,
        Self::Project,
        Self::Mounts,
    ];

    /// Its name in the state and in what `ping` tells.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReferrersApi => "referrers_api",
            Self::Search => "search",
            Self::MetadataDatabase => "metadata_database",
            Self::PageSize => "page_size",
            Self::Project => "project",
            Self::Mounts => "mounts",
        }
    }

    /// The fact of this name; `None` for what is none.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fact| fact.as_str() == name)
    }
}

/// A fact that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What of it is known.
    pub fact: Fact,
    /// Of which project or repository; `None` for the registry as a whole.
    pub class: Option<String>,
    /// What it is.
    pub value: String,
    /// What showed it.
    pub evidence: String,
    /// For how long it is believed still.
    pub left: Duration,
}

/// What has changed in what is known, for who keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FactNews {
    /// It was found out.
    Found(Finding),
    /// It proved wrong, and nothing is known in its place.
    Wrong {
        /// What.
        fact: Fact,
        /// As [`Finding::class`].
        class: Option<String>,
    },
}

/// The facts of one registry.
#[derive(Debug, Default)]
pub(super) struct Facts(Mutex<HashMap<Key, Held>>);

type Key = (Fact, Option<String>);

#[derive(Debug)]
struct Held {
    /// What it is, with what showed it; `None` where what was kept proved wrong.
    found: Option<(String, String)>,
    /// Until when it is believed, by the clock's monotonic time.
    until: Duration,
    /// Nobody has been told yet who keeps it.
    is_news: bool,
}

fn key(fact: Fact, class: Option<&str>) -> Key {
    (fact, class.map(str::to_owned))
}

impl Facts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is believed of it at `now`.
    pub(super) fn get(&self, fact: Fact, class: Option<&str>, now: Duration) -> Option<String> {
        let facts = self.lock();
        let held = facts.get(&key(fact, class)).filter(|held| now < held.until)?;
        held.found.as_ref().map(|(value, _)| value.clone())
    }

    /// It was found out. The same once more is no news while half of its life is left, so that what is seen in every run is not
    /// written in every run.
    pub(super) fn learn(&self, finding: Finding, now: Duration) {
        let mut facts = self.lock();
        let Finding {
            fact,
            class,
            value,
            evidence,
            left,
        } = finding;
        let key = (fact, class);
        if facts.len() >= MOST && !facts.contains_key(&key) {
            facts.retain(|_, held| held.is_news);
            if facts.len() >= MOST {
                return;
            }
        }
        let is_known = facts.get(&key).is_some_and(|held| {
            let same = held.found.as_ref().is_some_and(|(known, _)| *known == value);
            same && held.until > now + left / 2
        });
        if !is_known {
            let held = Held {
                found: Some((value, evidence)),
                until: now + left,
                is_news: true,
            };
            facts.insert(key, held);
        }
    }

    /// It proved wrong.
    pub(super) fn forget(&self, fact: Fact, class: Option<&str>) {
        if let Some(held) = self.lock().get_mut(&key(fact, class)) {
            held.found = None;
            held.is_news = true;
        }
    }

    /// What has changed since this was asked last.
    pub(super) fn take_news(&self, now: Duration) -> Vec<FactNews> {
        let mut facts = self.lock();
        let mut news = Vec::new();
        facts.retain(|(fact, class), held| {
            let (fact, class) = (*fact, class.clone());
            let is_news = std::mem::take(&mut held.is_news);
            match &held.found {
                Some((value, evidence)) if is_news && now < held.until => news.push(FactNews::Found(Finding {
                    fact,
                    class,
                    value: value.clone(),
                    evidence: evidence.clone(),
                    left: held.until.saturating_sub(now),
                })),
                None if is_news => news.push(FactNews::Wrong { fact, class }),
                _ => {}
            }
            held.found.is_some()
        });
        news
    }

    /// Takes over all that is kept. What was kept and is so no more has proved wrong to somebody, or is over: it is forgotten. What
    /// nobody has been told of yet is newer.
    pub(super) fn assume(&self, kept: Vec<Finding>, now: Duration) {
        let mut facts = self.lock();
        facts.retain(|_, held| held.is_news);
        for finding in kept.into_iter().take(MOST) {
            facts.entry((finding.fact, finding.class)).or_insert(Held {
                found: Some((finding.value, finding.evidence)),
                until: now + finding.left,
                is_news: false,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn finding(fact: Fact, class: Option<&str>, value: &str) -> Finding {
        Finding {
            fact,
            class: class.map(str::to_owned),
            value: value.to_owned(),
            evidence: "a test".to_owned(),
            left: 6 * HOUR,
        }
    }

    fn found(news: Vec<FactNews>) -> Vec<(Option<String>, String, Duration)> {
        let found = news.into_iter().map(|news| match news {
            FactNews::Found(finding) => (finding.class, finding.value, finding.left),
            FactNews::Wrong { fact, class } => panic!("{fact:?} {class:?} proved wrong"),
        });
        found.collect()
    }

    #[test]
    fn names_are_those_of_one_fact() {
        for fact in Fact::ALL {
            assert_eq!(Fact::from_name(fact.as_str()), Some(fact));
        }
        assert_eq!(Fact::from_name("kind"), None);
    }

    #[test]
    fn facts_are_told_once_and_last_as_long_in_the_next_process() {
        let first = Facts::default();
        first.learn(finding(Fact::Search, None, ABSENT), HOUR);
        assert_eq!(first.get(Fact::Search, None, 2 * HOUR).as_deref(), Some(ABSENT));
        assert_eq!(
            first.get(Fact::Search, Some("team"), HOUR),
            None,
            "of all is not of each"
        );
        let kept = first.take_news(2 * HOUR);
        assert_eq!(found(kept.clone()), [(None, ABSENT.to_owned(), 5 * HOUR)]);
        assert_eq!(first.take_news(2 * HOUR), []);
        // The same again is news only once half of its life is over.
        first.learn(finding(Fact::Search, None, ABSENT), 3 * HOUR);
        assert_eq!(first.take_news(3 * HOUR), []);
        first.learn(finding(Fact::Search, None, ABSENT), 5 * HOUR);
        assert_eq!(found(first.take_news(5 * HOUR)).len(), 1);
        // Something else is at once.
        first.learn(finding(Fact::Search, None, PRESENT), 5 * HOUR);
        assert_eq!(found(first.take_news(5 * HOUR))[0].1, PRESENT);

        let second = Facts::default();
        let kept = kept.into_iter().map(|news| match news {
            FactNews::Found(finding) => finding,
            FactNews::Wrong { .. } => panic!("nothing was wrong"),
        });
        second.assume(kept.collect(), 7 * HOUR);
        assert_eq!(second.get(Fact::Search, None, 11 * HOUR).as_deref(), Some(ABSENT));
        assert_eq!(second.get(Fact::Search, None, 12 * HOUR), None);
        assert_eq!(second.take_news(7 * HOUR), [], "what is kept is no news");
    }

    #[test]
    fn facts_beyond_so_many_are_not_taken_before_the_others_are_kept() {
        let facts = Facts::default();
        let learn = |number: usize| {
            facts.learn(
                finding(Fact::ReferrersApi, Some(&format!("a{number}")), "refused"),
                HOUR,
            );
        };
        (0..MOST + 2).for_each(learn);
        let known = |number: usize| facts.get(Fact::ReferrersApi, Some(&format!("a{number}")), HOUR);
        assert_eq!((known(MOST - 1).as_deref(), known(MOST)), (Some("refused"), None));
        assert_eq!(facts.take_news(HOUR).len(), MOST);
        learn(MOST);
        assert_eq!((known(0), known(MOST).as_deref()), (None, Some("refused")));
    }

    #[test]
    fn what_proves_wrong_is_forgotten_here_and_where_it_is_kept() {
        let facts = Facts::default();
        facts.assume(
            vec![
                finding(Fact::Project, Some("team"), "own 1"),
                finding(Fact::Project, Some("base"), "own 2"),
            ],
            HOUR,
        );
        facts.forget(Fact::Project, Some("team"));
        facts.forget(Fact::Project, Some("never known"));
        assert_eq!(facts.get(Fact::Project, Some("team"), HOUR), None);
        // It is not believed again before it is forgotten where it is kept.
        facts.assume(vec![finding(Fact::Project, Some("team"), "own 1")], HOUR);
        assert_eq!(facts.get(Fact::Project, Some("team"), HOUR), None);
        let wrong = FactNews::Wrong {
            fact: Fact::Project,
            class: Some("team".to_owned()),
        };
        assert_eq!(facts.take_news(HOUR), [wrong]);
        // What another process found to be wrong is kept no more.
        assert_eq!(facts.get(Fact::Project, Some("base"), HOUR), None);
    }
}
