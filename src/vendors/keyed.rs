//! Registries whose APIs a key of a cloud's account asks: when the environment's key counts, and what lists by it have in common.

use std::future::Future;

use super::names::namespaces;
use crate::oci::RepositoryName;
use crate::registry::{Api, Error, ErrorKind, LoginSource, Operation, RemoteSettings, Result};

/// What of the environment counts for a registry: nothing where the rules say who logs in and say nothing of the cloud. The
/// environment's key may be another account's then, and what it does not see would be taken for what is not there. `written`:
/// the rules have the cloud's own keys for this registry.
pub(super) fn heeded<A: Default>(remote: &RemoteSettings, written: bool, around: A) -> A {
    match remote.login {
        LoginSource::Given(_) | LoginSource::Anonymous if !written => A::default(),
        _ => around,
    }
}

/// The key was there a moment ago, and cannot be had any more.
pub(super) fn keyless(api: &Api, operation: Operation) -> Error {
    let message = "the key that was used so far cannot be had anew";
    Error::new(operation, api.place(None), ErrorKind::Network, message)
}

/// The repositories below what names begin with, by `list` of a namespace or of all. A namespace that `is_missing` has none.
///
/// # Errors
/// Those of `list`.
pub(super) async fn in_namespaces<'b, F>(
    below: &'b [String],
    is_missing: impl Fn(&Error) -> bool,
    list: impl Fn(Option<&'b str>) -> F,
) -> Result<Vec<RepositoryName>>
where
    F: Future<Output = Result<Vec<RepositoryName>>>,
{
    let Some(namespaces) = namespaces(below) else {
        return list(None).await;
    };
    let mut all = Vec::new();
    for namespace in namespaces {
        match list(Some(namespace)).await {
            Ok(names) => all.extend(names),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}
