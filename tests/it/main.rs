//! Everything that is tested from the outside, in one binary: each further one would cost a link of several seconds.

mod access;
mod attachments;
mod bad_input;
mod cli_help;
mod commands;
mod daemon;
mod demo;
mod house;
mod images;
mod limits;
mod memory;
mod mounts;
mod moved;
mod plan_laws;
mod policies;
mod put_off;
mod ranges;
mod recovery;
mod registry_habits;
mod requests;
mod resume;
mod scenarios;
mod spool;
mod support;
mod support_checks;
mod sync;
