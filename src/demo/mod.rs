//! Registries inside the program, and small images to put into them: what `transship demo` and the tests run against.

pub mod images;
pub mod registry;
