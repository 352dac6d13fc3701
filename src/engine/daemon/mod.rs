//! The daemon: schedules, triggers, reload, drain.

use std::sync::Arc;

use crate::config::Config;
use crate::store::{RunId, RunRow};

/// Asks the running daemon for things. Cheap to clone; what the API and the signals hold.
#[derive(Clone, Debug)]
pub struct DaemonHandle {}

/// What the daemon is doing.
#[derive(Clone, Debug, serde::Serialize)]
pub struct DaemonStatus {
    /// Process id.
    pub pid: u32,
    /// When it started.
    pub started_at: jiff::Timestamp,
    /// One entry a rule.
    pub rules: Vec<RuleStatus>,
    /// The last reload that was refused, in words.
    pub reload_error: Option<String>,
}

/// One rule as the daemon sees it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RuleStatus {
    /// The rule.
    pub rule: String,
    /// Its schedule as written.
    pub schedule: Option<String>,
    /// When it is due next.
    pub next_at: Option<jiff::Timestamp>,
    /// The run under way.
    pub running: Option<RunId>,
    /// The last ended run.
    pub last: Option<RunRow>,
}

impl DaemonHandle {
    /// Runs rules now; a rule that runs already is joined. Gives the runs.
    pub async fn trigger(&self, rules: &[String]) -> Result<Vec<RunId>, super::EngineError> {
        let _ = rules;
        unimplemented!()
    }
    /// Runs again what failed: a whole run's rule, or one job's image.
    pub async fn retry(&self, rule: &str, only: Vec<super::Only>) -> Result<RunId, super::EngineError> {
        let _ = (rule, only);
        unimplemented!()
    }
    /// Stops a run. False where it is not running.
    pub async fn cancel(&self, run: RunId) -> bool {
        let _ = run;
        unimplemented!()
    }
    /// Waits until a run ends.
    pub async fn wait(&self, run: RunId) -> Result<Option<RunRow>, super::EngineError> {
        let _ = run;
        unimplemented!()
    }
    /// What it is doing.
    pub async fn status(&self) -> DaemonStatus {
        unimplemented!()
    }
    /// Swaps the rules; runs under way keep the old ones.
    pub async fn reload(&self, config: Arc<Config>) -> Result<(), super::EngineError> {
        let _ = config;
        unimplemented!()
    }
    /// A reload was refused: shown by `status`.
    pub async fn reload_refused(&self, why: String) {
        let _ = why;
        unimplemented!()
    }
    /// Starts nothing new, gives what is under way 20 s, then stops it; resolves when all has ended.
    pub async fn shut_down(&self, reason: &str) {
        let _ = reason;
        unimplemented!()
    }
}

/// Starts the daemon's scheduler on an engine. `alive` is called at least every 60 s by the scheduler's own loop, for the watchdog.
pub async fn start(
    engine: super::Engine,
    alive: impl Fn() + Send + 'static,
) -> Result<DaemonHandle, super::EngineError> {
    let _ = (engine, alive);
    unimplemented!()
}
