//! Tests of the whole: against registries in memory, and against real ones started as processes.

mod support;

mod registry_habits;
mod support_checks;
