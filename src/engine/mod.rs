//! The shell that acts: observe, plan, execute, verify, schedule, recover. Decides nothing that `plan` can decide.

mod control;
pub mod daemon;
mod event;
mod report;
mod requests;

pub use control::{Control, ControlHandle, Stop};
pub use event::{Event, Events};
pub use report::{
    BlobCounts, Change, DestinationReport, Failure, ImageCounts, PingReport, PingStep, RulePlan, RunReport,
    SCHEMA_VERSION, SyncReport, VerifyFinding, VerifyReport,
};
pub use requests::{CopyEnd, CopyRequest, Only, RunRequest, VerifyRequest, copy_state};

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Config;
use crate::rules::RuleName;
use crate::store::{RunId, Store, StoreError};

/// Executes rules. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {}

/// Why the engine could not start something.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No such rule.
    #[error("there is no rule {name:?}{}", hint.as_ref().map(|h| format!(": did you mean {h:?}?")).unwrap_or_default())]
    UnknownRule {
        /// What was asked for.
        name: String,
        /// The nearest name.
        hint: Option<String>,
    },
    /// No such registry.
    #[error("there is no registry {name:?} in the rules")]
    UnknownRegistry {
        /// What was asked for.
        name: String,
    },
    /// A rule never runs twice at once.
    #[error("rule {rule:?} is running already ({run})")]
    AlreadyRunning {
        /// The rule.
        rule: String,
        /// Its run.
        run: RunId,
    },
    /// An end cannot be used at all.
    #[error(transparent)]
    Endpoint(#[from] crate::registry::Error),
    /// The state database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Makes the ends of `config` ready; connects to nothing.
    pub fn new(config: Arc<Config>, store: Store, clock: Clock) -> Result<Self, EngineError> {
        let _ = (config, store, clock);
        unimplemented!()
    }
    /// What happens, for progress bars and logs. May drop events for a slow listener; reports lose nothing.
    pub fn events(&self) -> Events {
        unimplemented!()
    }
    /// The state database.
    pub fn store(&self) -> &Store {
        unimplemented!()
    }
    /// The rules with these names, or all; an unknown name is an error with the nearest one.
    pub fn rule_names(&self, wanted: &[String]) -> Result<Vec<RuleName>, EngineError> {
        let _ = wanted;
        unimplemented!()
    }
    /// Plans a rule and changes nothing; repositories are given to `each` as they are planned.
    pub async fn plan(
        &self,
        rule: &RuleName,
        control: &Control,
        each: &mut (dyn FnMut(crate::plan::RepositoryPlan) + Send),
    ) -> Result<RulePlan, EngineError> {
        let _ = (rule, control, each);
        unimplemented!()
    }
    /// Runs a rule: observe, plan, execute.
    pub async fn run(&self, request: RunRequest, control: Control) -> Result<RunReport, EngineError> {
        let _ = (request, control);
        unimplemented!()
    }
    /// Closes what a dead process left open; gives the rules that should run again, each with the run it continues.
    pub async fn recover(&self) -> Result<Vec<RunRequest>, EngineError> {
        unimplemented!()
    }
    /// Compares destinations with sources without trusting memory.
    pub async fn verify(&self, request: VerifyRequest, control: &Control) -> Result<VerifyReport, EngineError> {
        let _ = (request, control);
        unimplemented!()
    }
    /// Tries registries: address, TLS, credentials, rights. All where `names` is empty.
    pub async fn ping(&self, names: &[String]) -> Result<Vec<PingReport>, EngineError> {
        let _ = names;
        unimplemented!()
    }
}

/// Copies one image (or all tags of a repository) without a rules file.
pub async fn copy(
    request: CopyRequest,
    store: Store,
    clock: Clock,
    control: Control,
    events: Events,
) -> Result<RunReport, EngineError> {
    let _ = (request, store, clock, control, events);
    unimplemented!()
}
