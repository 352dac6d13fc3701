//! Everything that is tested from the outside, in one binary: each further one would cost a link of several seconds.

mod cli_help;
mod commands;
mod daemon;
mod demo;
mod house;
mod plan_laws;
mod registry_habits;
mod scenarios;
mod support;
mod support_checks;
