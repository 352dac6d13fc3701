//! Everything that is tested from the outside, in one binary: each further one would cost a link of several seconds.

mod bad_input;
mod cli_help;
mod house;
mod plan_laws;
mod registry_habits;
mod scenarios;
mod support;
mod support_checks;
