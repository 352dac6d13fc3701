//! What rules say, seen at real registries.
