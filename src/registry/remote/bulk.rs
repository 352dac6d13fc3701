//! Listings by the vendor's API, and what is done where it may not be asked.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Registry;
use super::api::Api;
use crate::oci::RepositoryName;
use crate::registry::{
    BulkListing, CloudSettings, Error, ErrorKind, ListedTag, Listing, LoginSource, Operation, Result,
};

/// How long an API that refused is left alone: rights are granted by people.
const REFUSAL_LIFE: Duration = Duration::from_secs(6 * 3600);
/// How long one that is in trouble is.
const TROUBLE_LIFE: Duration = Duration::from_secs(300);
/// Refusals that are remembered; above it all are forgotten, which costs a request each.
const MOST_REFUSALS: usize = 10_000;

/// What is done where tags are not listed with what they point to.
const TAG_BY_TAG: &str = "digests are asked for tag by tag";

/// Where the API refused to list, or failed to.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Refused>);

#[derive(Debug, Default)]
struct Refused {
    /// By project or repository, and [`REPOSITORIES`].
    held: HashMap<String, Held>,
    /// Until when nothing is asked there at all.
    all_until: Duration,
    /// The user has been warned of a missing right.
    told: bool,
    /// Until when the user is not warned of trouble again.
    quiet_until: Duration,
}

/// One of them.
#[derive(Debug)]
struct Held {
    /// Until when it is not asked, by the clock's monotonic time.
    until: Duration,
    /// What the API said, where a right is missing; `None` for trouble.
    refusal: Option<String>,
    /// Nobody has been told yet who keeps it for later processes.
    is_news: bool,
}

/// Stands for the listing of repositories, which is asked for each time: it is not left alone, only told of once.
const REPOSITORIES: &str = "";

/// A refusal of the vendor's API to list, for a missing right: it is left alone for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListingRefusal {
    /// The project or repository whose tags were asked for; `None` for the listing of repositories.
    pub container: Option<String>,
    /// What the API said.
    pub said: String,
    /// For how long it is left alone still.
    pub left: Duration,
}

/// Whether the vendor's API lists the tags of a repository for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListingRight {
    /// It does.
    Granted,
    /// It was not asked: there is none, or the rules leave it alone.
    NotAsked,
    /// It refused. In words, with what is done instead and what this user lacks.
    Refused(String),
}

/// What stands in the way of a listing by the API. Other ways to the same are tried; all other errors say nothing of what
/// there is, and fail it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hindrance {
    /// This user, or anybody, may not ask.
    Refusal,
    /// It fails here, or answers what nobody can use.
    Trouble,
    /// It cannot be reached: a wall that lets the registry through and not its API.
    OutOfReach,
}

impl Hindrance {
    /// Being asked too often is none: a look at each tag would be more to ask, not less.
    fn of(error: &Error) -> Option<Self> {
        match error.kind {
            ErrorKind::Denied | ErrorKind::Unauthorized | ErrorKind::Unsupported | ErrorKind::NotFound => {
                Some(Self::Refusal)
            }
            ErrorKind::Server | ErrorKind::Invalid | ErrorKind::TooLarge => Some(Self::Trouble),
            ErrorKind::Network | ErrorKind::Tls => Some(Self::OutOfReach),
            // It is not about the API that nobody knows who we are; the registry may have a login of its own.
            ErrorKind::Config if error.operation == Operation::Authenticate => Some(Self::Trouble),
            _ => None,
        }
    }
}

impl Refusals {
    fn hold_for(&self, container: &str, now: Duration) -> bool {
        let refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now < refused.all_until || refused.held.get(container).is_some_and(|held| now < held.until)
    }

    /// True while nothing is asked there at all.
    pub(super) fn is_out_of_reach(&self, now: Duration) -> bool {
        now < self.0.lock().unwrap_or_else(PoisonError::into_inner).all_until
    }

    /// Takes note of one; true where the user is to be told: of a refusal once, of trouble once in a while.
    fn take(&self, hindrance: Hindrance, error: &Error, container: &str, now: Duration) -> bool {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.held.len() >= MOST_REFUSALS {
            refused.held.clear();
        }
        let (life, refusal) = match hindrance {
            Hindrance::Refusal => (REFUSAL_LIFE, Some(error.to_string())),
            Hindrance::Trouble => (TROUBLE_LIFE, None),
            Hindrance::OutOfReach => {
                refused.all_until = now + TROUBLE_LIFE;
                (TROUBLE_LIFE, None)
            }
        };
        let held = Held {
            until: now + life,
            is_news: refusal.is_some(),
            refusal,
        };
        refused.held.insert(container.to_owned(), held);
        if hindrance == Hindrance::Refusal {
            return !std::mem::replace(&mut refused.told, true);
        }
        let told = now < refused.quiet_until;
        if !told {
            refused.quiet_until = now + REFUSAL_LIFE;
        }
        !told
    }

    /// The refusals for a missing right since this was asked last.
    fn take_news(&self, now: Duration) -> Vec<ListingRefusal> {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let news = refused.held.iter_mut().filter_map(|(container, held)| {
            let said = held.refusal.clone()?;
            std::mem::take(&mut held.is_news).then(|| ListingRefusal {
                container: Some(container.clone()).filter(|container| container != REPOSITORIES),
                said,
                left: held.until.saturating_sub(now),
            })
        });
        news.filter(|refusal| !refusal.left.is_zero()).collect()
    }

    /// Takes over what is kept. A refusal that was kept and is so no more has proved wrong: it is forgotten.
    fn assume(&self, kept: Vec<ListingRefusal>, now: Duration) {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused.held.retain(|_, held| held.is_news || held.refusal.is_none());
        refused.told |= !kept.is_empty();
        for refusal in kept.into_iter().take(MOST_REFUSALS) {
            let container = refusal.container.unwrap_or_else(|| REPOSITORIES.to_owned());
            refused.held.entry(container).or_insert(Held {
                until: now + refusal.left,
                refusal: Some(refusal.said),
                is_news: false,
            });
        }
    }
}

impl Registry {
    /// What the vendor asks its API by.
    pub(super) fn api(&self) -> Api {
        Api::of(self)
    }

    /// All tags with what they point to, where the vendor's API has them and lets this user ask. [`BulkListing::None`]
    /// elsewhere, with one warning where a right is missing; the names alone where the API fails and the registry does not.
    pub async fn list_digests(&self, repository: &RepositoryName) -> Result<BulkListing> {
        let vendor = &self.shared.vendor;
        let now = self.shared.transport.clock().elapsed();
        if self.shared.settings.lists_names_only || self.shared.refusals.hold_for(vendor.container(repository), now) {
            return Ok(BulkListing::None);
        }
        match vendor.list_digests(&self.api(), repository).await {
            Ok(BulkListing::Known { tags, comparable }) if vendor.ways().hides_tags => {
                let names = self.list_tags(repository).await?;
                // Harbor answers an empty list for a repository that is not there.
                if names.is_none() && tags.is_empty() {
                    return Ok(BulkListing::Absent);
                }
                Ok(BulkListing::Known {
                    tags: with_names(tags, names),
                    comparable,
                })
            }
            Ok(BulkListing::Absent) => {
                self.shared.creation.is_missing(repository);
                Ok(BulkListing::Absent)
            }
            Ok(listing) => Ok(listing),
            Err(error) => match self.hindrance(&error) {
                Some(Hindrance::Refusal) if error.operation != Operation::Authenticate => {
                    self.hold(&error, Hindrance::Refusal, vendor.container(repository));
                    Ok(BulkListing::None)
                }
                // While its kind is not known the registry itself failed.
                Some(hindrance) if vendor.kind().is_some() => {
                    // Where the registry fails too it is not about the API.
                    let names = self.list_tags(repository).await?;
                    self.hold(&error, hindrance, vendor.container(repository));
                    Ok(match names {
                        None => BulkListing::Absent,
                        Some(_) => BulkListing::Known {
                            tags: with_names(Vec::new(), names),
                            comparable: false,
                        },
                    })
                }
                _ => Err(error),
            },
        }
    }

    /// What stands in the way here. A login that is not of the rules may be another one at any time (docker login, a credential
    /// helper): that it is refused now holds for a short while only, and for no other process.
    fn hindrance(&self, error: &Error) -> Option<Hindrance> {
        let found = Hindrance::of(error);
        let settings = &self.shared.settings;
        let changes = matches!(settings.login, LoginSource::DockerConfig) && settings.cloud == CloudSettings::None;
        match error.kind {
            ErrorKind::Unauthorized if changes => found.and(Some(Hindrance::Trouble)),
            // It wants no more logins for a while (Docker Hub's API has some of its own): the registry may do without.
            ErrorKind::Throttled if error.operation == Operation::Authenticate => Some(Hindrance::Trouble),
            _ => found,
        }
    }

    /// Asks the API for the tags of the repository, however it was refused before. A refusal is news then
    /// ([`Registry::take_refusals`]).
    ///
    /// # Errors
    /// It does not say.
    pub async fn may_list_digests(&self, repository: &RepositoryName) -> Result<ListingRight> {
        if self.shared.settings.lists_names_only {
            return Ok(ListingRight::NotAsked);
        }
        let vendor = &self.shared.vendor;
        match vendor.list_digests(&self.api(), repository).await {
            Ok(BulkListing::None) => Ok(ListingRight::NotAsked),
            Ok(BulkListing::Absent | BulkListing::Known { .. }) => Ok(ListingRight::Granted),
            // Who may not log in was not heard of by the API.
            Err(error)
                if self.hindrance(&error) == Some(Hindrance::Refusal) && error.operation != Operation::Authenticate =>
            {
                let now = self.shared.transport.clock().elapsed();
                let container = vendor.container(repository);
                self.shared.refusals.take(Hindrance::Refusal, &error, container, now);
                Ok(ListingRight::Refused(self.told(&error, Hindrance::Refusal, TAG_BY_TAG)))
            }
            Err(error) => Err(error),
        }
    }

    /// Where the vendor's API refused to list since this was asked last: to be kept for later processes.
    pub fn take_refusals(&self) -> Vec<ListingRefusal> {
        self.shared.refusals.take_news(self.shared.transport.clock().elapsed())
    }

    /// Takes over all refusals that are kept; those that were and are no more are forgotten.
    pub fn assume_refusals(&self, kept: Vec<ListingRefusal>) {
        self.shared
            .refusals
            .assume(kept, self.shared.transport.clock().elapsed());
    }

    /// Leaves the API alone for a while, and says so.
    fn hold(&self, error: &Error, hindrance: Hindrance, container: &str) {
        let now = self.shared.transport.clock().elapsed();
        if self.shared.refusals.take(hindrance, error, container, now) {
            self.warn(error, hindrance, TAG_BY_TAG);
        }
    }

    /// Repositories, in the registry's order, each once: those that begin with one of `below` by the vendor's API, else all of
    /// the catalogue. `None` where it has no catalogue. With them, why parts of the list are not known.
    pub async fn list_repositories(&self, below: &[String]) -> Result<(Listing<RepositoryName>, Vec<Error>)> {
        let (vendor, api) = (&self.shared.vendor, self.api());
        let was_known = vendor.kind().is_some();
        let told = vendor.list_repositories(&api, below).await;
        let refused = match told {
            Ok(Some(repositories)) => return Ok((Some(once(repositories)), api.take_left_out())),
            Ok(None) => None,
            Err(error) if Hindrance::of(&error) == Some(Hindrance::Refusal) => Some(error),
            Err(error) => return Err(error),
        };
        let listed = self.list_otherwise(refused).await;
        // What has no catalogue may have shown by that answer what it is, and what else it has.
        let is_without = match &listed {
            Ok(listed) => listed.is_none(),
            Err(error) => Hindrance::of(error) == Some(Hindrance::Refusal),
        };
        if is_without
            && !was_known
            && let Some(repositories) = vendor.list_repositories(&api, below).await?
        {
            return Ok((Some(once(repositories)), api.take_left_out()));
        }
        Ok((listed?, Vec::new()))
    }

    /// Repositories where the vendor's API does not list them, or refused to.
    async fn list_otherwise(&self, refused: Option<Error>) -> Result<Listing<RepositoryName>> {
        let vendor = &self.shared.vendor;
        match (vendor.ways().catalogue, refused) {
            (false, Some(error)) => Err(error),
            (false, None) => Ok(None),
            (true, None) => self.list_catalogue().await,
            (true, Some(mut error)) => {
                let listed = self.list_catalogue().await;
                // The vendor's API says what is missing; a catalogue may be for administrators alone.
                if let Err(other) = &listed
                    && Hindrance::of(other) == Some(Hindrance::Refusal)
                {
                    error.message = format!("{}; the catalogue was refused, too ({})", error.message, other.message);
                    return Err(error);
                }
                // Without a catalogue it is the API's refusal that stands in the way.
                if matches!(listed, Ok(None)) {
                    return Err(error);
                }
                let now = self.shared.transport.clock().elapsed();
                let refusals = &self.shared.refusals;
                if listed.is_ok() && refusals.take(Hindrance::Refusal, &error, REPOSITORIES, now) {
                    self.warn(&error, Hindrance::Refusal, "the catalogue is used");
                }
                listed
            }
        }
    }

    fn warn(&self, error: &Error, hindrance: Hindrance, instead: &str) {
        tracing::warn!(registry = self.name(), "{}", self.told(error, hindrance, instead));
    }

    fn told(&self, error: &Error, hindrance: Hindrance, instead: &str) -> String {
        let right = self.shared.vendor.ways().right_to_list;
        let more = match (hindrance, right) {
            (Hindrance::Refusal, "") => String::new(),
            (Hindrance::Refusal, right) => format!("; listing is faster once this user has {right}"),
            _ => "; the API is asked again in five minutes".to_owned(),
        };
        format!("{error}: {instead}{more}")
    }
}

fn once(mut repositories: Vec<RepositoryName>) -> Vec<RepositoryName> {
    let mut known = HashSet::new();
    repositories.retain(|name| known.insert(name.clone()));
    repositories
}

/// The tags of both. Those that one of them lacks have no digest: they are looked at. An API may be behind the registry.
pub fn with_names(mut tags: Vec<ListedTag>, names: Listing<crate::oci::Tag>) -> Vec<ListedTag> {
    let names = names.unwrap_or_default();
    let (by_name, known): (HashSet<_>, HashSet<_>) = (
        names.iter().cloned().collect(),
        tags.iter().map(|listed| listed.tag.clone()).collect(),
    );
    for listed in &mut tags {
        if !by_name.contains(&listed.tag) {
            (listed.digest, listed.media_type) = (None, None);
        }
    }
    let hidden = names.into_iter().filter(|tag| !known.contains(tag));
    tags.extend(hidden.map(|tag| ListedTag {
        tag,
        digest: None,
        media_type: None,
        pushed: None,
    }));
    tags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Place;

    const HOUR: Duration = Duration::from_secs(3600);

    fn refused() -> Error {
        Error::new(
            Operation::ListTags,
            Place::default(),
            ErrorKind::Denied,
            "no such right",
        )
    }

    #[test]
    fn refusals_are_told_once_kept_once_and_last_as_long_in_the_next_process() {
        let first = Refusals::default();
        assert!(first.take(Hindrance::Refusal, &refused(), "team", HOUR));
        assert!(!first.take(Hindrance::Refusal, &refused(), "base", HOUR));
        first.take(Hindrance::Trouble, &refused(), "slow", HOUR);
        let mut kept = first.take_news(2 * HOUR);
        kept.sort_by(|a, b| a.container.cmp(&b.container));
        let containers: Vec<_> = kept.iter().map(|refusal| refusal.container.as_deref()).collect();
        assert_eq!(containers, [Some("base"), Some("team")], "trouble is not kept");
        assert_eq!(kept[0].left, 5 * HOUR);
        assert_eq!(first.take_news(2 * HOUR), []);

        let second = Refusals::default();
        let began = 7 * HOUR;
        second.assume(kept.clone(), began);
        assert!(second.hold_for("team", began + 4 * HOUR) && !second.hold_for("team", began + 5 * HOUR));
        assert!(!second.hold_for("other", began));
        assert_eq!(second.take_news(began), [], "what is kept is no news");
        assert!(
            !second.take(Hindrance::Refusal, &refused(), "other", began),
            "the user knows"
        );

        // One that another process found to be wrong is forgotten; what nobody has kept yet is not.
        second.assume(kept.drain(..1).collect(), began);
        assert_eq!(
            ["base", "team", "other"].map(|name| second.hold_for(name, began)),
            [true, false, true]
        );
    }
}
