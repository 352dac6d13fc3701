//! Registries by the distribution protocol.

mod auth;
mod transport;

/// A registry by the distribution protocol. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {}
