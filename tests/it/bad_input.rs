//! Faults of every kind, one a test and all by the same table ([`table::Row`]): the exit status, a message with place and
//! remedy, the other image copied, and success once the fault is mended.
//!
//! Not here: a registry that never answers (the time-outs are a minute and more), and a redirect from https to http.

mod access;
mod content;
mod front;
mod large;
mod moving;
mod rules_file;
mod space;
mod state;
mod table;
