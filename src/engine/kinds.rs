//! What registries turned out to be, kept beyond the process: it is found out by requests of its own.

use std::time::Duration;

use super::context::RunContext;
use crate::registry::{Endpoint, Kind};

/// Name of the capability.
const KIND: &str = "kind";

/// How long that is believed: a name may come to stand for another product.
const KIND_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

fn ends(context: &RunContext) -> impl Iterator<Item = &Endpoint> {
    std::iter::once(&context.source).chain(context.destinations.values())
}

/// Tells the ends of a run what earlier processes found out. To be called before the first request.
pub(super) async fn restore(context: &RunContext) {
    let now = context.clock.now();
    for end in ends(context).filter(|end| end.kind().is_none()) {
        match context.store.capability(end.name(), "*", KIND, now).await {
            Ok(known) => {
                if let Some(kind) = known.as_deref().and_then(Kind::from_word) {
                    end.assume_kind(kind);
                }
            }
            Err(error) => tracing::warn!("cannot look which kind {} is: {error}", end.name()),
        }
    }
}

/// Keeps what was found out in this process.
pub(super) async fn keep(context: &RunContext) {
    let now = context.clock.now();
    for end in ends(context) {
        let Some(kind) = end.take_found_kind() else { continue };
        let evidence = "the registry's answers";
        let learnt = context
            .store
            .learn(end.name(), "*", KIND, kind.as_str(), evidence, now, now + KIND_LIFE);
        if let Err(error) = learnt.await {
            tracing::warn!("cannot keep which kind {} is: {error}", end.name());
        }
    }
}
