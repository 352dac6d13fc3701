//! The engine within the test, with a wall clock that the test moves and a state that outlives it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;
use transship::clock::Clock;
use transship::config::{self, Config, Environment, Mode};
use transship::engine::{ControlHandle, Engine, Failure, RunReport, RunRequest};
use transship::registry::{Endpoint, Limiter};
use transship::rules::{RegistryName, RuleName};
use transship::store::{Store, Trigger};

/// Rules, a state and a clock, from which one engine after the other is made.
pub struct Workshop {
    folder: TempDir,
    rules: String,
    pub clock: Clock,
}

impl Workshop {
    /// At noon of some day.
    pub fn new(rules: &str) -> Self {
        let noon: Timestamp = "2026-03-01T12:00:00Z".parse().expect("a time");
        Self {
            folder: TempDir::new().expect("a temporary directory"),
            rules: rules.to_owned(),
            clock: Clock::manual(noon),
        }
    }

    /// Other rules for the engines to come.
    pub fn set_rules(&mut self, rules: &str) {
        rules.clone_into(&mut self.rules);
    }

    /// Moves the wall clock.
    pub fn pass(&self, time: Duration) {
        self.clock.set(self.clock.now() + time);
    }

    /// The rules as they are read now.
    pub fn config(&self) -> Arc<Config> {
        let files = [("rules.yaml".to_owned(), self.rules.clone())];
        let loaded = config::parse(&files, &Environment, Mode::Run);
        let loaded = loaded.unwrap_or_else(|failure| panic!("the rules are wrong: {failure:?}"));
        Arc::new(loaded.config)
    }

    /// One end of the rules by itself, by the machine's clock.
    pub fn end(&self, name: &str) -> Endpoint {
        self.end_by(name, Clock::system())
    }

    /// The same by another clock.
    pub fn end_by(&self, name: &str, clock: Clock) -> Endpoint {
        let settings = &self.config().registries[&RegistryName::new(name)];
        let (habits, vendor) = transship::vendors::for_settings(settings);
        Endpoint::open(name, settings, habits, vendor, clock, &Limiter::default()).expect("an end")
    }

    /// An engine as a new process would make it.
    pub async fn engine(&self) -> Engine {
        let store = Store::open(&self.folder.path().join("state.db"))
            .await
            .expect("a state");
        Engine::new(self.config(), store, self.clock.clone()).expect("an engine")
    }
}

/// Runs a rule as its schedule would.
pub async fn scheduled(engine: &Engine, rule: &str) -> RunReport {
    run(engine, rule, Trigger::Schedule).await
}

/// Runs a rule as a person would.
pub async fn by_hand(engine: &Engine, rule: &str) -> RunReport {
    run(engine, rule, Trigger::Manual).await
}

async fn run(engine: &Engine, rule: &str, trigger: Trigger) -> RunReport {
    let request = RunRequest {
        rule: RuleName::new(rule),
        trigger,
        continues: None,
        only: Vec::new(),
        at_once: trigger == Trigger::Manual,
    };
    let (_handle, control) = ControlHandle::new();
    Box::pin(engine.run(request, control)).await.expect("a run")
}

/// The one failure of a run.
#[track_caller]
pub fn only_failure(report: &RunReport) -> &Failure {
    match report.failures.as_slice() {
        [failure] => failure,
        failures => panic!("{failures:?}"),
    }
}
