//! The repositories of several namespaces, of which this user may not see all.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::oci::RepositoryName;
use crate::registry::{Api, Error, ErrorKind, Result};

/// Namespaces whose list was refused, of which the user was told.
#[derive(Debug, Default)]
pub(super) struct Refused(Mutex<HashSet<String>>);

/// What the lists of some namespaces came to.
pub(super) struct Gathered<'a> {
    refused: &'a Refused,
    names: Vec<RepositoryName>,
    /// One list was read.
    is_any: bool,
    refusals: Vec<(String, Error)>,
}

impl<'a> Gathered<'a> {
    pub(super) fn new(refused: &'a Refused) -> Self {
        Self {
            refused,
            names: Vec::new(),
            is_any: false,
            refusals: Vec::new(),
        }
    }

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

    /// All names. Of a namespace that was refused the user is told once, where there are others.
    ///
    /// # Errors
    /// The first refusal, where no list was read.
    pub(super) fn names(self, api: &Api) -> Result<Vec<RepositoryName>> {
        let mut refusals = self.refusals;
        if !self.is_any && !refusals.is_empty() {
            return Err(refusals.swap_remove(0).1);
        }
        let mut told = self.refused.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (namespace, error) in refusals {
            if told.insert(namespace.clone()) {
                let registry = api.place(None).registry;
                tracing::warn!(registry, "{error}: patterns find no repositories in {namespace}");
            }
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
