//! What sets one vendor's registries apart from a plain OCI registry. Its habits are data in one table.

mod habits;

pub use habits::{Kind, habits_for, kind_of};
