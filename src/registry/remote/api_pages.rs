//! Lists of a vendor's own API that lead from page to page by links.

use url::Url;

use super::api::ApiAnswer;
use super::links::next_page;
use super::lists::Pages;
use super::targets::{host_and_port, resolve, same_origin};
use crate::registry::{ErrorKind, Operation, Place, Result};

/// The largest list, in bytes: a hundred thousand images and more.
const MAX_LIST: usize = 64 * 1024 * 1024;

/// Follows the links of one list from page to page (`Link`, RFC 8288).
pub struct ApiPages {
    pages: Pages,
    /// Bytes of all pages so far.
    read: usize,
}

impl ApiPages {
    /// For one list; `operation` and `place` are for errors.
    pub fn new(operation: Operation, place: Place) -> Self {
        Self {
            pages: Pages::new(operation, place),
            read: 0,
        }
    }

    /// Where the page after this one is, as the answer says it; `None` after the last.
    ///
    /// # Errors
    /// A link that was followed already, that leads where it may not, or one page or byte too many.
    pub fn next(&mut self, answer: &ApiAnswer) -> Result<Option<Url>> {
        let next = self.pages.after(&answer.url, &answer.headers)?;
        // Never followed with our login, so that it is no list for us: GitLab names itself as its configuration does.
        if let Some(url) = next.as_ref().filter(|url| !same_origin(url, &answer.url)) {
            let message = format!("the link to the next page leads to {}", host_and_port(url));
            return Err(answer.error(ErrorKind::Invalid, message));
        }
        self.within_bounds(answer, next)
    }

    /// As [`ApiPages::next`], for a list that goes on at `behind` its last entry, too: where a link says that there is more, or the
    /// page `is_full`. A link that leads back to this list is followed; one that leads elsewhere says no more than that.
    ///
    /// # Errors
    /// As [`ApiPages::next`].
    pub fn next_or(&mut self, answer: &ApiAnswer, is_full: bool, behind: Option<Url>) -> Result<Option<Url>> {
        let link = next_page(&answer.headers);
        if link.is_none() && !is_full {
            return self.within_bounds(answer, None);
        }
        let linked = link.and_then(|target| resolve(&answer.url, &target).ok());
        let is_ours = |url: &Url| same_origin(url, &answer.url) && url.path() == answer.url.path();
        let Some(next) = linked.filter(is_ours).or(behind) else {
            return self.within_bounds(answer, None);
        };
        let next = self.pages.lead(&answer.url, next)?;
        self.within_bounds(answer, Some(next))
    }

    /// Before the first page of a further list that is read as a part of this one: the bounds are those of all of them.
    ///
    /// # Errors
    /// What was read so far is too long.
    pub fn go_on(&self) -> Result<()> {
        match self.read > MAX_LIST {
            true => Err(self
                .pages
                .error(format!("the lists have more than {} MiB together", MAX_LIST >> 20))),
            false => Ok(()),
        }
    }

    fn within_bounds(&mut self, answer: &ApiAnswer, next: Option<Url>) -> Result<Option<Url>> {
        self.read = self.read.saturating_add(answer.body.len());
        if next.is_some() && self.read > MAX_LIST {
            let message = format!("the list has more than {} MiB", MAX_LIST / (1024 * 1024));
            return Err(answer.error(ErrorKind::Invalid, message));
        }
        Ok(next)
    }
}
