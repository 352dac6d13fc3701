//! Registries by the distribution protocol.
/// A registry by the distribution protocol.
#[derive(Clone, Debug)]
pub struct Registry {}
