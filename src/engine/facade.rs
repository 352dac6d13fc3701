//! The engine: the ends of the rules made ready, and what can be asked of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;

use super::addresses;
use super::blob_table::BlobTable;
use super::context::{Claims, RunContext, RunParking};
use super::control::Control;
use super::event::Events;
use super::fallback_tags::TagLocks;
use super::fault::Fault;
use super::import::RunImports;
use super::lanes::IMAGES_AT_ONCE;
use super::ledger::Ledger;
use super::manifests::ManifestCache;
use super::metered::Meters;
use super::pace::Pace;
use super::planned::PlannedTags;
use super::planning::plan_one;
use super::report::{PingReport, RulePlan, RunReport, VerifyReport};
use super::requests::{RunRequest, VerifyRequest};
use super::run;
use super::several::one_by_one;
use super::transfer::{Spool, TransferContext, TransferPool};
use super::turn::Turn;
use crate::clock::Clock;
use crate::config::Config;
use crate::plan::{Decision, PlannedDestination, RepositoryPlan, SelectedTagsByPattern};
use crate::registry::{Endpoint, Limiter, MirrorSettings, RegistrySettings, RemoteSettings, TlsSettings};
use crate::rules::{MatchedRepository, RegistryName, Rule, RuleName};
use crate::store::{RunId, RunOutcome, Store, StoreError, Trigger};
use crate::vendors;

/// Executes rules. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    config: Arc<Config>,
    ends: Arc<BTreeMap<RegistryName, Endpoint>>,
    blobs: BlobTable,
    manifests: ManifestCache,
    spool: Option<Spool>,
    /// The how manieth reading of the rules it is of.
    reading: u64,
    pub(super) shared: Arc<Shared>,
}

/// What outlives a reload of the rules.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) events: Events,
    pub(super) tag_locks: TagLocks,
    pub(super) meters: Meters,
    pub(super) planned: PlannedTags,
    pub(super) pool: TransferPool,
    limiter: Limiter,
    pub(super) owner: Arc<str>,
    pub(super) running: Mutex<BTreeMap<RuleName, RunId>>,
    /// How often the rules were read again.
    readings: AtomicU64,
}

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
    #[error("there is no registry {name:?} in the rules: `transship ping` without a name tries all of them")]
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

fn open_ends(
    config: &Config,
    clock: &Clock,
    limiter: &Limiter,
    before: Option<&BTreeMap<RegistryName, Endpoint>>,
) -> Result<BTreeMap<RegistryName, Endpoint>, EngineError> {
    limiter.set(config.limits);
    let mut ends = BTreeMap::new();
    for (name, settings) in &config.registries {
        let (habits, vendor) = vendors::for_settings(settings);
        ends.insert(
            name.clone(),
            Endpoint::open(name.as_str(), settings, habits, vendor, clock.clone(), limiter)?,
        );
    }
    for (name, end) in &ends {
        if let Some(RegistrySettings::Remote(settings)) = config.registries.get(name) {
            let mirrors = mirrors_of(settings, &ends, clock, limiter)?;
            if !mirrors.is_empty() {
                let before = before.and_then(|before| before.get(name));
                end.set_mirrors(mirrors, settings.mirrors_resolve_tags, before);
            }
        }
    }
    Ok(ends)
}

/// The mirrors of a registry: others of the rules, or what their addresses say, reached as the registry is, with no login but what
/// Docker's files have.
fn mirrors_of(
    settings: &RemoteSettings,
    ends: &BTreeMap<RegistryName, Endpoint>,
    clock: &Clock,
    limiter: &Limiter,
) -> Result<Vec<(Endpoint, Option<String>)>, EngineError> {
    let mut mirrors = Vec::new();
    for mirror in &settings.mirrors {
        match mirror {
            MirrorSettings::Registry { name, prefix } => {
                // The rules are refused where it is not there.
                let end = ends.get(&RegistryName::new(name.as_str()));
                mirrors.extend(end.map(|end| (end.clone(), prefix.clone())));
            }
            MirrorSettings::Url(url) => {
                let own = RegistrySettings::Remote(Box::new(RemoteSettings {
                    url: url.clone(),
                    tls: TlsSettings {
                        ca_file: settings.tls.ca_file.clone(),
                        ..TlsSettings::default()
                    },
                    resolve: settings.resolve.clone(),
                    proxy: settings.proxy.clone(),
                    timeouts: settings.timeouts,
                    ..RemoteSettings::default()
                }));
                let (habits, vendor) = vendors::for_settings(&own);
                let end = Endpoint::open(&url.host, &own, habits, vendor, clock.clone(), limiter)?;
                mirrors.push((end, None));
            }
        }
    }
    Ok(mirrors)
}

impl Engine {
    /// Makes the ends of `config` ready; connects to nothing.
    ///
    /// # Errors
    /// A registry whose settings cannot work, such as a CA file that cannot be read.
    pub fn new(config: Arc<Config>, store: Store, clock: Clock) -> Result<Self, EngineError> {
        Self::telling(config, store, clock, Events::default())
    }

    /// As [`Engine::new`], telling `events`.
    pub(super) fn telling(
        config: Arc<Config>,
        store: Store,
        clock: Clock,
        events: Events,
    ) -> Result<Self, EngineError> {
        let limiter = Limiter::default();
        let ends = open_ends(&config, &clock, &limiter, None)?;
        let blobs = BlobTable::new(clock.clone());
        let manifests = ManifestCache::stored(store.clone(), clock.clone());
        let shared = Shared {
            store,
            clock,
            events,
            tag_locks: TagLocks::default(),
            meters: Meters::default(),
            planned: PlannedTags::default(),
            pool: TransferPool::default(),
            limiter,
            owner: format!("pid {}", std::process::id()).into(),
            running: Mutex::default(),
            readings: AtomicU64::new(0),
        };
        Ok(Self {
            spool: config.spool.clone().map(Spool::new),
            config,
            ends: Arc::new(ends),
            blobs,
            manifests,
            reading: 0,
            shared: Arc::new(shared),
        })
    }

    /// The same engine with other rules. What runs stays, and so does what is known of blobs and manifests, unless a registry has moved.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn with_config(&self, config: Arc<Config>) -> Result<Self, EngineError> {
        let ends = open_ends(&config, &self.shared.clock, &self.shared.limiter, Some(&self.ends))?;
        // The same spool goes on, so that what has been said of it is not said again.
        let spool = match &self.spool {
            Some(spool) if config.spool.as_ref() == Some(spool.settings()) => Some(spool.clone()),
            _ => config.spool.clone().map(Spool::new),
        };
        let stays = |(name, end): (&RegistryName, &Endpoint)| {
            let now = ends.get(name);
            now.is_some_and(|now| now.address() == end.address())
        };
        let (store, clock) = (&self.shared.store, &self.shared.clock);
        // Runs under way keep theirs: what they see is true where they look.
        let (blobs, manifests) = match self.ends.iter().all(stays) {
            true => (self.blobs.clone(), self.manifests.clone()),
            false => (
                BlobTable::new(clock.clone()),
                ManifestCache::stored(store.clone(), clock.clone()),
            ),
        };
        Ok(Self {
            blobs,
            manifests,
            config,
            ends: Arc::new(ends),
            spool,
            reading: self.shared.readings.fetch_add(1, Ordering::Relaxed) + 1,
            shared: Arc::clone(&self.shared),
        })
    }

    /// True once the rules have been read again since this engine was made.
    pub(super) fn is_of_before(&self) -> bool {
        self.reading < self.shared.readings.load(Ordering::Relaxed)
    }

    /// What happens, for progress bars and logs. May drop events for a slow listener; reports lose nothing.
    pub fn events(&self) -> Events {
        self.shared.events.clone()
    }

    /// The state database.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// The rules.
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn ends(&self) -> &BTreeMap<RegistryName, Endpoint> {
        &self.ends
    }

    /// The rules with these names, or all.
    ///
    /// # Errors
    /// A name that no rule has, with the nearest one.
    pub fn rule_names(&self, wanted: &[String]) -> Result<Vec<RuleName>, EngineError> {
        if wanted.is_empty() {
            return Ok(self.config.rules.iter().map(|rule| rule.name.clone()).collect());
        }
        wanted
            .iter()
            .map(|name| self.rule(name).map(|rule| rule.name.clone()))
            .collect()
    }

    pub(super) fn rule(&self, name: &str) -> Result<&Rule, EngineError> {
        let found = self.config.rules.iter().find(|rule| rule.name.as_str() == name);
        found.ok_or_else(|| EngineError::UnknownRule {
            name: name.to_owned(),
            hint: crate::config::nearest(name, self.config.rules.iter().map(|rule| rule.name.as_str()))
                .map(str::to_owned),
        })
    }

    /// The priority of a rule; 0 where there is none of this name.
    pub fn priority(&self, rule: &RuleName) -> i32 {
        self.rule(rule.as_str()).map_or(0, |rule| rule.priority)
    }

    /// The run of a rule that is under way in this process.
    pub fn running(&self, rule: &RuleName) -> Option<RunId> {
        self.shared
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(rule)
            .copied()
    }

    /// The ends of a rule that there are.
    pub(super) fn ends_of<'e>(&'e self, rule: &'e Rule) -> impl Iterator<Item = &'e Endpoint> {
        let names = rule.destinations.iter().map(|destination| &destination.registry);
        std::iter::once(&rule.source)
            .chain(names)
            .filter_map(|name| self.ends.get(name))
    }

    fn end(&self, name: &RegistryName) -> Result<&Endpoint, EngineError> {
        self.ends
            .get(name)
            .ok_or_else(|| EngineError::UnknownRegistry { name: name.to_string() })
    }

    /// A run's view of the world.
    pub(super) fn context(
        &self,
        rule: Rule,
        run: RunId,
        careful: bool,
        claims: Claims,
        control: Control,
    ) -> Result<RunContext, EngineError> {
        let ledger = Ledger::new(rule.destinations.iter().map(|d| d.registry.to_string()));
        let account = ledger.account();
        account.set_priority(rule.priority);
        let source = self
            .end(&rule.source)?
            .with_mirrors_first()
            .charged_to(Arc::clone(&account));
        let mut destinations = BTreeMap::new();
        for destination in &rule.destinations {
            let end = self.end(&destination.registry)?.charged_to(Arc::clone(&account));
            destinations.insert(destination.registry.clone(), end);
        }
        let shared = &self.shared;
        let transfer = TransferContext {
            run,
            store: shared.store.clone(),
            clock: shared.clock.clone(),
            control: control.clone(),
            ledger: ledger.clone(),
            events: shared.events.clone(),
            blobs: self.blobs.clone(),
            retry: rule.retry,
            pool: shared.pool.clone(),
            spool: self.spool.clone(),
            pace: Pace::new(
                shared.clock.clone(),
                source.clone(),
                IMAGES_AT_ONCE,
                shared.pool.laggards(source.name()),
            ),
        };
        Ok(RunContext {
            run,
            rule: Arc::new(rule),
            source,
            destinations: Arc::new(destinations),
            store: shared.store.clone(),
            clock: shared.clock.clone(),
            control,
            ledger,
            events: shared.events.clone(),
            blobs: self.blobs.clone(),
            turn: Turn::default(),
            manifests: self.manifests.clone(),
            tag_locks: shared.tag_locks.clone(),
            meters: shared.meters.clone(),
            planned: shared.planned.clone(),
            imports: RunImports::default(),
            transfer,
            owner: Arc::clone(&shared.owner),
            claims,
            careful,
            looks_anew: false,
            began: shared.clock.elapsed(),
            parking: RunParking {
                obeys: false,
                started_at: shared.clock.now(),
            },
            moved: Arc::default(),
            damaged: Arc::default(),
        })
    }

    /// Plans a rule and changes nothing; repositories are given to `each` as they are planned.
    ///
    /// # Errors
    /// No such rule, or the state database fails.
    pub async fn plan(
        &self,
        rule: &RuleName,
        control: &Control,
        each: &mut (dyn FnMut(RepositoryPlan) + Send),
    ) -> Result<RulePlan, EngineError> {
        let mut rule = self.rule(rule.as_str())?.clone();
        // Not forgotten: a daemon may be at work with the rules as they were.
        let moved = addresses::moved(self.store(), self.ends_of(&rule)).await?;
        if !moved.is_empty() {
            rule.trust_destination = Duration::ZERO;
        }
        let name = rule.name.to_string();
        let context = RunContext {
            moved: Arc::new(moved),
            ..self.context(rule, RunId(0), false, Claims::Look, control.clone())?
        };
        super::rates::restore(&context).await;
        super::learnt::restore(&context).await;
        let mut copies = 0;
        let mut failed = false;
        let run::Matches {
            repositories: matched,
            mut warnings,
        } = run::match_repositories(&context).await;
        let context = &context;
        let mut selected = SelectedTagsByPattern::default();
        let each_plan = |matched: MatchedRepository| async move {
            let pattern = matched.entry.pattern.to_string();
            (pattern, plan_one(context, matched).await.0)
        };
        let planning = one_by_one(matched, each_plan).buffered(run::REPOSITORIES_AT_ONCE);
        let mut planning = std::pin::pin!(planning);
        while let Some((pattern, plan)) = planning.next().await {
            selected.count(&pattern, plan.tags_listed, plan.images.len());
            failed |= plan.problem.is_some();
            let is_copied = |to: &PlannedDestination| matches!(to.decision, Decision::Copy { .. });
            let to_copy = plan
                .images
                .iter()
                .filter(|image| image.destinations.iter().any(is_copied));
            copies += to_copy.count() as u64;
            for destination in plan.images.iter().flat_map(|image| &image.destinations) {
                failed |= matches!(destination.decision, Decision::Fail { .. });
            }
            each(plan);
            if !control.may_start() {
                failed = true;
                break;
            }
        }
        if control.may_start() {
            warnings.extend(selected.warnings(context.source.name()));
        }
        warnings.extend(super::metered::forecast(context, copies));
        let (failures, left_out) = context.ledger.failures();
        failed |= !failures.is_empty();
        if left_out > 0 {
            warnings.push(format!("{left_out} more failures are not listed"));
        }
        Ok(RulePlan {
            rule: name,
            repositories: Vec::new(),
            warnings,
            failures,
            work: copies > 0,
            failed,
        })
    }

    /// Runs a rule: observe, plan, execute.
    ///
    /// # Errors
    /// No such rule, the rule runs already, or the state database fails at the start or the end. What fails in between is in the report.
    pub async fn run(&self, request: RunRequest, control: Control) -> Result<RunReport, EngineError> {
        let started = self.start(request).await?;
        self.execute(started, control).await
    }

    /// Closes what a dead process left open; gives the rules whose last run was broken off, by that or by a signal, each with the run
    /// that is gone on with.
    ///
    /// # Errors
    /// The state database fails.
    pub async fn recover(&self) -> Result<Vec<RunRequest>, EngineError> {
        self.shared.store.close_interrupted(self.shared.clock.now()).await?;
        let last = self.shared.store.last_runs().await?;
        let interrupted = last
            .into_iter()
            .filter(|run| run.outcome == Some(RunOutcome::Interrupted) && self.rule(&run.rule).is_ok());
        Ok(interrupted
            .map(|run| RunRequest {
                rule: RuleName::new(run.rule),
                trigger: Trigger::Recovery,
                continues: Some(run.id),
                only: Vec::new(),
                at_once: false,
            })
            .collect())
    }

    /// Compares destinations with sources without trusting memory.
    ///
    /// # Errors
    /// No such rule, or the state database fails.
    pub async fn verify(&self, request: VerifyRequest, control: &Control) -> Result<VerifyReport, EngineError> {
        super::verify::verify(self, request, control).await
    }

    /// The rule's value.
    pub(super) fn rule_value(&self, name: &RuleName) -> Result<Rule, EngineError> {
        self.rule(name.as_str()).cloned()
    }

    /// Tries registries: address, TLS, credentials, rights. All where `names` is empty.
    ///
    /// # Errors
    /// A name that no registry has.
    pub async fn ping(&self, names: &[String]) -> Result<Vec<PingReport>, EngineError> {
        super::ping::ping(self, names).await
    }
}

impl From<EngineError> for Fault {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Endpoint(error) => error.into(),
            EngineError::Store(error) => error.into(),
            other => Self::new(crate::plan::ErrorKind::Config, other.to_string()),
        }
    }
}
