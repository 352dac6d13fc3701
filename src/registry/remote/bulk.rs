//! Listings by the vendor's API, and what is done where it may not be asked.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Registry;
use super::api::Api;
use crate::oci::RepositoryName;
use crate::registry::{BulkListing, Error, ErrorKind, ListedTag, Listing, Result};

/// How long an API that refused is left alone: rights are granted by people.
const REFUSAL_LIFE: Duration = Duration::from_secs(6 * 3600);
/// Refusals that are remembered; above it all are forgotten, which costs a request each.
const MOST_REFUSALS: usize = 10_000;

/// Where the API refused to list.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Refused>);

#[derive(Debug, Default)]
struct Refused {
    /// By project or repository: until when it is not asked.
    until: HashMap<String, Duration>,
    /// The user has been warned.
    told: bool,
}

impl Refusals {
    fn hold_for(&self, container: &str, now: Duration) -> bool {
        let refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused.until.get(container).is_some_and(|until| now < *until)
    }

    /// Takes note of one; true the first time of all.
    fn take(&self, container: &str, now: Duration) -> bool {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.until.len() >= MOST_REFUSALS {
            refused.until.clear();
        }
        refused.until.insert(container.to_owned(), now + REFUSAL_LIFE);
        !std::mem::replace(&mut refused.told, true)
    }
}

impl Registry {
    /// What the vendor asks its API by.
    pub(super) fn api(&self) -> Api {
        Api::of(self)
    }

    /// All tags with what they point to, where the vendor's API has them and lets this user ask. [`BulkListing::None`]
    /// elsewhere, with one warning where a right is missing.
    pub async fn list_digests(&self, repository: &RepositoryName) -> Result<BulkListing> {
        let vendor = &self.shared.vendor;
        let now = self.shared.transport.clock().elapsed();
        if self.shared.refusals.hold_for(vendor.container(repository), now) {
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
            Err(error) if may_not_be_asked(&error) => {
                if self.shared.refusals.take(vendor.container(repository), now) {
                    self.warn(&error, "digests are asked for tag by tag");
                }
                Ok(BulkListing::None)
            }
            Err(error) => Err(error),
        }
    }

    /// Repositories, in the registry's order, each once: those that begin with one of `below` by the vendor's API, else all of
    /// the catalogue. `None` where it has no catalogue.
    pub async fn list_repositories(&self, below: &[String]) -> Result<Listing<RepositoryName>> {
        let vendor = &self.shared.vendor;
        let refused = match vendor.list_repositories(&self.api(), below).await {
            Ok(Some(repositories)) => {
                let mut known = HashSet::new();
                let mut once = repositories;
                once.retain(|name| known.insert(name.clone()));
                return Ok(Some(once));
            }
            Ok(None) => None,
            Err(error) if may_not_be_asked(&error) => Some(error),
            Err(error) => return Err(error),
        };
        match (vendor.ways().catalogue, refused) {
            (false, Some(error)) => Err(error),
            (false, None) => Ok(None),
            (true, None) => self.list_catalogue().await,
            (true, Some(error)) => {
                let listed = self.list_catalogue().await;
                if listed.is_ok() && self.shared.refusals.take("", Duration::ZERO) {
                    self.warn(&error, "the catalogue is used");
                }
                listed
            }
        }
    }

    fn warn(&self, error: &Error, instead: &str) {
        let right = self.shared.vendor.ways().right_to_list;
        let grant = match right {
            "" => String::new(),
            right => format!("; listing is faster once this user has {right}"),
        };
        tracing::warn!(registry = self.name(), "{error}: {instead}{grant}");
    }
}

/// True for an error that says that this user, or anybody, may not ask: other ways to the same are tried. All other errors say
/// nothing of what there is.
fn may_not_be_asked(error: &Error) -> bool {
    matches!(
        error.kind,
        ErrorKind::Denied | ErrorKind::Unauthorized | ErrorKind::Unsupported | ErrorKind::NotFound
    )
}

/// The tags of both, those of the names alone without a digest.
fn with_names(tags: Vec<ListedTag>, names: Listing<crate::oci::Tag>) -> Vec<ListedTag> {
    let known: HashSet<_> = tags.iter().map(|listed| listed.tag.clone()).collect();
    let hidden = names.into_iter().flatten().filter(|tag| !known.contains(tag));
    let hidden: Vec<_> = hidden
        .map(|tag| ListedTag {
            tag,
            digest: None,
            media_type: None,
            pushed: None,
        })
        .collect();
    tags.into_iter().chain(hidden).collect()
}
