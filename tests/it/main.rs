//! Everything that is tested from the outside, in one binary: each further one would cost a link of several seconds.

mod cli_help;
mod house;
mod memory;
mod plan_laws;
mod recovery;
mod registry_habits;
mod resume;
mod scenarios;
mod support;
mod support_checks;
