//! The repositories of several namespaces, of which this user may not see all.

use crate::oci::RepositoryName;
use crate::registry::{Api, Error, ErrorKind, Result};

/// Names of one list, of however many namespaces: as many as a list by links may have.
pub(super) const MAX_NAMES: usize = 2_000_000;

/// What the lists of some namespaces came to.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    names: Vec<RepositoryName>,
    /// One list was read.
    is_any: bool,
    refusals: Vec<(String, Error)>,
}

impl Gathered {
    /// Takes the list of one.
    ///
    /// # Errors
    /// It failed otherwise than by being refused.
    pub(super) fn take(&mut self, namespace: &str, listed: Result<Vec<RepositoryName>>) -> Result<()> {
        match listed {
            Ok(names) => {
                self.is_any = true;
                self.names.extend(names);
                Ok(())
            }
            Err(error) if is_refusal(error.kind) => {
                self.refusals.push((namespace.to_owned(), error));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// How many names it has so far.
    pub(super) fn count(&self) -> usize {
        self.names.len()
    }

    /// All names. A namespace that was refused is left out of the list, where others are in it.
    ///
    /// # Errors
    /// The first refusal, where no list was read.
    pub(super) fn names(self, api: &Api) -> Result<Vec<RepositoryName>> {
        let mut refusals = self.refusals;
        if !self.is_any && !refusals.is_empty() {
            return Err(refusals.swap_remove(0).1);
        }
        for (namespace, mut error) in refusals {
            error.message = format!("{}; patterns find nothing in {namespace}", error.message);
            api.leave_out(error);
        }
        Ok(self.names)
    }
}

fn is_refusal(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Denied | ErrorKind::Unauthorized | ErrorKind::NotFound | ErrorKind::Unsupported
    )
}
