//! transship keeps container registries in step: it reads YAML rules, compares tags between registries and copies
//! exactly what is missing, with jobs that survive a crash.
//!
//! The modules depend on each other in one direction only; `ARCHITECTURE.md` has the picture.

pub mod clock;
pub mod config;
pub mod demo;
pub mod engine;
pub mod oci;
pub mod plan;
pub mod registry;
pub mod rules;
pub mod store;
pub mod telemetry;
pub mod vendors;
