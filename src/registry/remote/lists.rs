//! Lists of tags, repositories and referrers, a page at a time.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};
use std::str::FromStr;

use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use url::Url;

use super::Registry;
use super::auth::Scopes;
use super::call::{Answer, Call};
use super::links::next_page;
use super::refusal::{Refusal, content_type};
use super::targets::resolve;
use super::throttle::Class;
use crate::oci::{RepositoryName, Tag};
use crate::registry::{Error, ErrorKind, Listing, Operation, Place, Result};

/// Entries asked for on the first page; later pages are asked for as the registry's links say. ECR refuses more than 1000,
/// distribution 3.1 gives no more.
const PAGE_ENTRIES: usize = 1000;
/// The largest page, in bytes: distribution 2.8 gives all tags at once, and 8 MiB hold 60,000 of the longest.
pub(super) const MAX_PAGE_SIZE: usize = 8 * 1024 * 1024;
/// Entries of one list. Ten times what ECR lets a repository hold; an endless list ends here.
const MAX_ENTRIES: usize = 2_000_000;
/// The names of one list, all together, in bytes: long names reach this long before there are [`MAX_ENTRIES`].
const MAX_NAMES_SIZE: usize = 64 * 1024 * 1024;
/// The longest link to a next page: what most servers take as an address, and ECR's tokens are some hundred bytes.
const MAX_LINK: usize = 8 * 1024;
/// Pages of one list, for registries whose pages are empty or repeat: enough for [`MAX_ENTRIES`] by pages of 50 (old Quay).
const MAX_PAGES: usize = 40_000;

/// How often a list is read from its start where a later page is not found.
const MAX_STARTS: u32 = 3;

/// Follows the pages of one list.
pub(super) struct Pages {
    /// Hashes of the pages' addresses, by a key that the registry cannot know.
    seen: HashSet<u64>,
    key: RandomState,
    operation: Operation,
    place: Place,
}

impl Pages {
    pub(super) fn new(operation: Operation, place: Place) -> Self {
        Self {
            seen: HashSet::new(),
            key: RandomState::new(),
            operation,
            place,
        }
    }

    /// The next page's URL from an answer's `Link`, `None` after the last one.
    ///
    /// # Errors
    /// A link that was followed already, that leads where it may not, or one page too many.
    pub(super) fn next(&mut self, answer: &Answer) -> Result<Option<Url>> {
        self.after(&answer.url, &answer.headers)
    }

    /// As [`Pages::next`], for the page at `page` that came with these headers.
    ///
    /// # Errors
    /// As [`Pages::next`].
    pub(super) fn after(&mut self, page: &Url, headers: &HeaderMap) -> Result<Option<Url>> {
        let Some(target) = next_page(headers) else {
            return Ok(None);
        };
        if target.len() > MAX_LINK {
            return Err(self.error(format!("the link to the next page is longer than {MAX_LINK} bytes")));
        }
        let url = resolve(page, &target)
            .map_err(|target| self.error(format!("the link to the next page is refused: {target}")))?;
        self.lead(page, url).map(Some)
    }

    /// From one page to the next, at `url`.
    ///
    /// # Errors
    /// It was read already, or is one page too many.
    pub(super) fn lead(&mut self, page: &Url, url: Url) -> Result<Url> {
        self.seen.insert(self.key.hash_one(page));
        if !self.seen.insert(self.key.hash_one(&url)) {
            return Err(self.error("the pages go in a circle: a link leads to a page already read; a proxy before the registry may drop queries"));
        }
        if self.seen.len() > MAX_PAGES {
            return Err(self.error(format!("the list has more than {MAX_PAGES} pages")));
        }
        Ok(url)
    }

    pub(super) fn error(&self, message: impl Into<String>) -> Error {
        Error::new(self.operation, self.place.clone(), ErrorKind::Invalid, message)
    }
}

/// What a list has brought so far, each entry once.
#[derive(Debug)]
struct Entries<T> {
    known: HashSet<T>,
    list: Vec<T>,
    /// Of the names in `list`, in bytes.
    size: usize,
    /// Entries that were no names.
    skipped: usize,
}

impl<T: FromStr + Clone + Eq + Hash> Entries<T> {
    fn new() -> Self {
        Self {
            known: HashSet::new(),
            list: Vec::new(),
            size: 0,
            skipped: 0,
        }
    }

    /// Takes an entry; what is wrong where that makes the list too long.
    fn take(&mut self, entry: Option<String>) -> Result<(), String> {
        // Nexus lists nulls, Artifactory digests.
        let Some((size, entry)) = entry.and_then(|text| Some((text.len(), text.parse::<T>().ok()?))) else {
            self.skipped += 1;
            return Ok(());
        };
        if !self.known.insert(entry.clone()) {
            return Ok(());
        }
        self.size += size;
        self.list.push(entry);
        if self.list.len() > MAX_ENTRIES {
            return Err(format!("the list has more than {MAX_ENTRIES} entries"));
        }
        if self.size > MAX_NAMES_SIZE {
            return Err(format!(
                "the names of the list are longer than {} MiB together",
                MAX_NAMES_SIZE >> 20
            ));
        }
        Ok(())
    }
}

/// `tags/list`. A missing key is no empty list; `null` is (distribution 2.8, once all tags were deleted).
#[derive(Deserialize)]
struct TagPage {
    #[serde(deserialize_with = "Option::deserialize")]
    tags: Option<Vec<Option<String>>>,
}

#[derive(Deserialize)]
struct RepositoryPage {
    #[serde(deserialize_with = "Option::deserialize")]
    repositories: Option<Vec<Option<String>>>,
}

impl Registry {
    /// All tags, in the registry's order, each once. `None` where the repository is not there.
    pub async fn list_tags(&self, repository: &RepositoryName) -> Result<Listing<Tag>> {
        let place = self.place(Some(repository), None);
        let url = self.repository_url(repository, "tags/list")?;
        let read = |body: &[u8]| serde_json::from_slice::<TagPage>(body).map(|page| page.tags);
        let scopes = Scopes::list(repository, self.shared.vendor.ways().list_action);
        let listed = Box::pin(self.list(Operation::ListTags, place, url, &scopes, read)).await?;
        if listed.is_none() {
            self.shared.creation.is_missing(repository);
        }
        Ok(listed)
    }

    /// Repositories by the catalogue, in the registry's order, each once. `None` where it has no catalogue.
    pub(super) async fn list_catalogue(&self) -> Result<Listing<RepositoryName>> {
        let place = self.place(None, None);
        let url = self.url("_catalog")?;
        let read = |body: &[u8]| serde_json::from_slice::<RepositoryPage>(body).map(|page| page.repositories);
        Box::pin(self.list(Operation::ListRepositories, place, url, &Scopes::catalog(), read)).await
    }

    async fn list<T: FromStr + Clone + Eq + Hash>(
        &self,
        operation: Operation,
        place: Place,
        url: Url,
        scopes: &Scopes,
        read: impl Fn(&[u8]) -> serde_json::Result<Option<Vec<Option<String>>>>,
    ) -> Result<Listing<T>> {
        let mut pages = Pages::new(operation, place.clone());
        let mut first = url.clone();
        first.query_pairs_mut().append_pair("n", &PAGE_ENTRIES.to_string());
        let mut next = Some(first.clone());
        let mut starts = 1;
        let (mut sized, mut asks_size) = (true, true);
        let mut first_page = true;
        let mut entries = Entries::<T>::new();
        while let Some(at) = next {
            let call = Call::new(operation, place.clone(), Method::GET, at, scopes.clone()).class(Class::List);
            let answer = self.run(call).await?;
            if answer.status != StatusCode::OK {
                let status = answer.status;
                let (mut error, enveloped) = answer.into_told_error(self.user()).await;
                // distribution 3 refuses a page size over its `catalog.maxentries` or `tags.maxtags`.
                if sized && error.code.as_deref() == Some("PAGINATION_NUMBER_INVALID") {
                    (sized, asks_size) = (false, false);
                    next = Some(url.clone());
                    continue;
                }
                let without = operation == Operation::ListRepositories
                    && (status == StatusCode::METHOD_NOT_ALLOWED || error.code.as_deref() == Some("UNSUPPORTED"));
                // Only the first page can say that there is no list; later it is a list cut short. zot has no page behind an
                // entry that was deleted since it ended the page before.
                if !first_page && status == StatusCode::NOT_FOUND {
                    if starts < MAX_STARTS {
                        starts += 1;
                        first_page = true;
                        (pages, entries) = (Pages::new(operation, place.clone()), Entries::new());
                        next = Some(if asks_size { first.clone() } else { url.clone() });
                        continue;
                    }
                    error.message = format!(
                        "{}: a later page of the list, {MAX_STARTS} times from its start; it may change faster than it can be read",
                        error.message
                    );
                }
                if !first_page || !(status == StatusCode::NOT_FOUND || without) {
                    return Err(error);
                }
                // A proxy before a registry that starts answers so, too, and then nothing is known of the repository.
                let own = enveloped || operation == Operation::ListRepositories || self.is_present().await;
                if !own {
                    return Err(self.is_away(error));
                }
                return Ok(None);
            }
            (sized, first_page) = (false, false);
            next = pages.next(&answer)?;
            let html = content_type(&answer.headers).as_deref() == Some("text/html");
            let body = answer.collect(MAX_PAGE_SIZE).await?;
            let page = read(&body).map_err(|error| {
                let invalid = |message| Error::new(operation, place.clone(), ErrorKind::Invalid, message);
                if html || body.first() == Some(&b'<') {
                    invalid("the answer is a web page, not a list; check the url of the registry")
                } else {
                    invalid("the answer is no list as the distribution protocol has it; check the url of the registry")
                        .caused_by(error)
                }
            })?;
            for entry in page.unwrap_or_default() {
                entries.take(entry).map_err(|message| pages.error(message))?;
            }
        }
        if entries.skipped > 0 {
            tracing::debug!(place = %place, skipped = entries.skipped, "entries that are no names were left out of the list");
        }
        Ok(Some(entries.list))
    }
}

impl Refusal {
    /// True where not the content but the route itself is unknown: registries answer their own 404s in an envelope.
    pub(super) fn is_unknown_route(&self) -> bool {
        matches!(self.status.as_u16(), 404 | 405 | 501) && !self.enveloped || matches!(self.status.as_u16(), 405 | 501)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_long_names_ends_by_their_size() {
        let mut entries = Entries::<RepositoryName>::new();
        let long = "x".repeat(240);
        let most = MAX_NAMES_SIZE / 250;
        for number in 0..most {
            entries
                .take(Some(format!("{long}/{number:09}")))
                .expect("within the limit");
        }
        for again in [None, Some("No Name".to_owned()), Some(format!("{long}/{:09}", 0))] {
            entries.take(again).expect("nothing more to keep");
        }
        assert_eq!((entries.list.len(), entries.skipped), (most, 2));
        let ended = entries.take(Some(format!("{long}/{most:09}")));
        assert!(ended.is_err_and(|message| message.contains("longer than 64 MiB")));
    }
}
