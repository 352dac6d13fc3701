//! Names of registries that lead elsewhere than they did: what is remembered under such a name is of another registry.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::context::RunContext;
use crate::registry::Endpoint;
use crate::store::{Store, StoreError};

/// Forgets what is remembered under the name of an end that has moved. To be called before the first request of a run.
///
/// # Errors
/// The state database fails. What is remembered could then be of another registry, so nothing may go by it.
pub(super) async fn forget_moved<'e>(
    store: &Store,
    ends: impl IntoIterator<Item = &'e Endpoint>,
    now: Timestamp,
) -> Result<(), StoreError> {
    for end in ends {
        let address = end.address();
        if let Some(former) = store.keep_address(end.name(), &address, now).await? {
            tracing::info!(
                "{} is at {address} now and was at {former}: what was remembered of it is forgotten and looked for anew",
                end.name()
            );
        }
    }
    Ok(())
}

/// The names of those of `ends` that have moved: what is remembered under them is of another registry.
///
/// # Errors
/// The state database fails.
pub(super) async fn moved<'e>(
    store: &Store,
    ends: impl IntoIterator<Item = &'e Endpoint>,
) -> Result<BTreeSet<String>, StoreError> {
    let mut moved = BTreeSet::new();
    for end in ends {
        let kept = store.address(end.name()).await?;
        if kept.is_some_and(|kept| kept != end.address()) {
            moved.insert(end.name().to_owned());
        }
    }
    Ok(moved)
}

/// True where what is remembered under the name of an end is of another registry.
///
/// # Errors
/// As [`moved`].
pub(super) async fn has_moved(store: &Store, end: &Endpoint) -> Result<bool, StoreError> {
    Ok(!moved(store, [end]).await?.is_empty())
}

/// Forgets what a run remembered of ends that have moved while it was under way: it went on with the rules of its start.
pub(super) async fn leave(context: &RunContext) {
    for end in std::iter::once(&context.source).chain(context.destinations.values()) {
        if let Err(error) = context.store.forget_former(end.name(), &end.address()).await {
            tracing::warn!("cannot forget what was remembered of {}: {error}", end.name());
        }
    }
}
