//! The daemon: schedules, triggers, reload, drain.

mod due;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::conduct::Started;
use super::control::ControlHandle;
use super::event::Event;
use super::facade::{Engine, EngineError};
use super::parking;
use super::requests::{Only, RunRequest};
use crate::config::Config;
use crate::rules::{Overlap, RuleName};
use crate::store::{RunId, RunRow, Trigger};
use due::{Agenda, Due, by_priority};

/// The scheduler looks at the clocks at least this often, so that a jump of the wall clock is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How long what is under way may go on after the daemon was told to end.
const GRACE: Duration = Duration::from_secs(20);

/// How often they are looked for.
const CLEAN_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Asks the running daemon for things. Cheap to clone; what the API and the signals hold.
#[derive(Clone, Debug)]
pub struct DaemonHandle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Mutex<Engine>,
    agenda: Mutex<Agenda>,
    /// Rules that run once more when their current run ends.
    queued: Mutex<BTreeSet<RuleName>>,
    reload_error: Mutex<Option<String>>,
    control: ControlHandle,
    tasks: TaskTracker,
    /// Changes whenever a run ends or the rules change.
    changed: watch::Sender<u64>,
    started_at: Timestamp,
}

/// What the daemon is doing.
#[derive(Clone, Debug, serde::Serialize)]
pub struct DaemonStatus {
    /// Process id.
    pub pid: u32,
    /// When it started.
    pub started_at: Timestamp,
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
    pub next_at: Option<Timestamp>,
    /// The run under way.
    pub running: Option<RunId>,
    /// The last ended run.
    pub last: Option<RunRow>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DaemonHandle {
    fn engine(&self) -> Engine {
        lock(&self.0.engine).clone()
    }

    /// Runs rules now; a rule that runs already is joined. Gives the runs.
    ///
    /// # Errors
    /// An unknown rule (then nothing is started), or the state database fails.
    pub async fn trigger(&self, rules: &[String]) -> Result<Vec<RunId>, EngineError> {
        let names = self.engine().rule_names(rules)?;
        let mut runs = Vec::with_capacity(names.len());
        for rule in names {
            let request = RunRequest {
                rule,
                trigger: Trigger::Manual,
                continues: None,
                only: Vec::new(),
                at_once: true,
            };
            runs.push(match self.launch(request).await {
                Ok(run) => run,
                Err(EngineError::AlreadyRunning { run, .. }) => run,
                Err(error) => return Err(error),
            });
        }
        Ok(runs)
    }

    /// Runs again what failed: a whole run's rule, or one job's image.
    ///
    /// # Errors
    /// An unknown rule, one that is running, or the state database fails.
    pub async fn retry(&self, rule: &str, only: Vec<Only>) -> Result<RunId, EngineError> {
        self.launch(RunRequest {
            rule: RuleName::new(rule),
            trigger: Trigger::Manual,
            continues: None,
            only,
            at_once: true,
        })
        .await
    }

    /// Stops a run. False where it is not running.
    ///
    /// # Errors
    /// The state database fails.
    pub async fn cancel(&self, run: RunId) -> Result<bool, EngineError> {
        Ok(self.engine().store().request_cancel(run).await?)
    }

    /// Waits until a run ends. `None` for a run that there never was.
    ///
    /// # Errors
    /// The state database fails.
    pub async fn wait(&self, run: RunId) -> Result<Option<RunRow>, EngineError> {
        let mut changed = self.0.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let row = self.engine().store().run(run).await?;
            if row.as_ref().is_none_or(|row| row.outcome.is_some()) {
                return Ok(row);
            }
            // The sender lives as long as the handle.
            let _ = changed.changed().await;
        }
    }

    /// What it is doing.
    ///
    /// # Errors
    /// The state database fails.
    pub async fn status(&self) -> Result<DaemonStatus, EngineError> {
        let engine = self.engine();
        let ended = engine.store().last_runs().await?;
        let mut last: BTreeMap<String, RunRow> = ended
            .into_iter()
            .filter(|row| row.outcome.is_some())
            .map(|row| (row.rule.clone(), row))
            .collect();
        let agenda = lock(&self.0.agenda);
        let rules = engine
            .config()
            .rules
            .iter()
            .map(|rule| RuleStatus {
                rule: rule.name.to_string(),
                schedule: rule.schedule.as_ref().map(|schedule| schedule.text().to_owned()),
                next_at: agenda.next_at(&rule.name),
                running: engine.running(&rule.name),
                last: last.remove(rule.name.as_str()),
            })
            .collect();
        Ok(DaemonStatus {
            pid: std::process::id(),
            started_at: self.0.started_at,
            rules,
            reload_error: lock(&self.0.reload_error).clone(),
        })
    }

    /// Swaps the rules; runs under way keep the old ones.
    ///
    /// # Errors
    /// A registry whose settings cannot work; then the old rules stay.
    pub async fn reload(&self, config: Arc<Config>) -> Result<(), EngineError> {
        let engine = self.engine().with_config(config)?;
        let now = engine.clock().now();
        engine.forget_other_rules().await?;
        engine.end_old_claims().await?;
        parking::settings_were_read(engine.store(), now).await;
        lock(&self.0.agenda).replace(&engine.config().rules, now);
        *lock(&self.0.engine) = engine;
        *lock(&self.0.reload_error) = None;
        self.0.changed.send_modify(|n| *n += 1);
        Ok(())
    }

    /// A reload was refused: shown by `status`.
    pub fn reload_refused(&self, why: String) {
        *lock(&self.0.reload_error) = Some(why);
    }

    /// Starts nothing new, gives what is under way 20 s, then stops it; resolves when all has ended.
    pub async fn shut_down(&self, reason: &str) {
        self.0.control.drain(reason);
        self.0.tasks.close();
        if tokio::time::timeout(GRACE, self.0.tasks.wait()).await.is_err() {
            self.0.control.abort(reason);
            self.0.tasks.wait().await;
        }
    }

    /// Starts a run in a task of its own; gives its id once it is recorded.
    async fn launch(&self, request: RunRequest) -> Result<RunId, EngineError> {
        let engine = self.engine();
        let started = engine.start(request).await?;
        let run = started.run;
        let handle = self.clone();
        self.0.tasks.spawn(async move { handle.conduct(engine, started).await });
        Ok(run)
    }

    async fn conduct(self, engine: Engine, started: Started) {
        let rule = started.rule_name().clone();
        let run = started.run;
        let control = self.0.control.listen();
        match engine.execute(started, control).await {
            Ok(report) => {
                for failure in &report.failures {
                    let destination = failure.destination.as_deref();
                    tracing::warn!(%run, %rule, source = failure.source, destination, kind = %failure.kind, "{}", failure.message);
                }
                tracing::info!(%run, %rule, outcome = %report.outcome, "run ended");
            }
            Err(error) => tracing::error!(%run, %rule, "run ended: {}", super::fault::chain(&error)),
        }
        if lock(&self.0.queued).remove(&rule) {
            lock(&self.0.agenda).add(rule);
        }
        self.0.changed.send_modify(|n| *n += 1);
    }

    /// Starts a scheduled run, or does what the rule says where it is running.
    async fn launch_scheduled(&self, rule: RuleName, overlap: Overlap) {
        if !self.0.control.listen().may_start() {
            return;
        }
        let request = RunRequest {
            rule: rule.clone(),
            trigger: Trigger::Schedule,
            continues: None,
            only: Vec::new(),
            at_once: false,
        };
        match (self.launch(request).await, overlap) {
            (Ok(run), _) => tracing::info!(%rule, %run, "started on schedule"),
            (Err(EngineError::AlreadyRunning { run, .. }), Overlap::Queue) => {
                tracing::info!(%rule, %run, "due while it runs: queued");
                lock(&self.0.queued).insert(rule);
            }
            (Err(EngineError::AlreadyRunning { run, .. }), Overlap::Skip) => {
                tracing::warn!(%rule, %run, "due while it runs: passed over");
            }
            (Err(error), _) => tracing::error!(%rule, "cannot be started: {}", super::fault::chain(&error)),
        }
    }

    /// Puts warnings of runs into the log; ends when the daemon is told to.
    async fn log_warnings(self) {
        let mut events = self.engine().events().listen();
        let control = self.0.control.listen();
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                _ = control.wait_stop() => return,
            };
            match event {
                Ok(Event::Warning { run, message }) => tracing::warn!(%run, "{message}"),
                // Only who falls behind thousands of events misses some, and failures are logged by themselves.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Looks at the clocks for ever; ends when the daemon is told to.
    async fn schedule(self, alive: Alive) {
        let clock = self.engine().clock().clone();
        let control = self.0.control.listen();
        let mut changed = self.0.changed.subscribe();
        let mut cleaned: Option<Duration> = None;
        loop {
            (alive.tell)();
            let now = clock.now();
            let mut due = lock(&self.0.agenda).take_due(now, clock.elapsed());
            by_priority(&mut due, &self.engine().config().rules);
            for Due { rule, overlap } in due {
                self.launch_scheduled(rule, overlap).await;
            }
            if cleaned.is_none_or(|at| clock.elapsed().saturating_sub(at) >= CLEAN_EVERY) {
                cleaned = Some(clock.elapsed());
                self.engine().forget_old_runs().await;
            }
            let next = lock(&self.0.agenda).next();
            let longest = LOOK_EVERY.min(alive.every);
            let pause = next.map_or(longest, |at| until(now, at).min(longest));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = changed.changed() => {}
                _ = control.wait_stop() => return,
            }
        }
    }
}

/// From now to then; at least a moment, so that a due time is behind us when we look again.
fn until(now: Timestamp, then: Timestamp) -> Duration {
    let gap = then.duration_since(now);
    let gap = if gap.is_negative() {
        Duration::ZERO
    } else {
        gap.unsigned_abs()
    };
    gap + Duration::from_millis(1)
}

/// Who is told that the scheduler's loop turns: a watchdog.
pub struct Alive {
    /// Called by the loop itself, so that a hanging one is silent.
    pub tell: Box<dyn Fn() + Send>,
    /// How often at least; the loop turns every 60 s anyway.
    pub every: Duration,
}

/// Starts the daemon's scheduler on an engine: first what a dead process left open, then what was missed, then the
/// schedules.
///
/// # Errors
/// The state database fails.
pub async fn start(engine: Engine, alive: Alive) -> Result<DaemonHandle, EngineError> {
    let recovered = engine.recover().await?;
    engine.forget_other_rules().await?;
    engine.end_old_claims().await?;
    let clock = engine.clock().clone();
    let now = clock.now();
    parking::settings_were_read(engine.store(), now).await;
    let mut last_started = BTreeMap::new();
    for rule in &engine.config().rules {
        if let Some(at) = engine.store().last_started(rule.name.as_str()).await? {
            last_started.insert(rule.name.clone(), at);
        }
    }
    let mut agenda = Agenda::new(&engine.config().rules, now, clock.elapsed());
    let again: BTreeSet<RuleName> = recovered.iter().map(|request| request.rule.clone()).collect();
    agenda.add_missed(&engine.config().rules, &last_started, &again, now);
    let (control, _) = ControlHandle::new();
    let handle = DaemonHandle(Arc::new(Inner {
        engine: Mutex::new(engine),
        agenda: Mutex::new(agenda),
        queued: Mutex::default(),
        reload_error: Mutex::default(),
        control,
        tasks: TaskTracker::new(),
        changed: watch::channel(0).0,
        started_at: now,
    }));
    for request in recovered {
        let rule = request.rule.clone();
        match handle.launch(request).await {
            Ok(run) => tracing::info!(%rule, %run, "goes on after an interruption"),
            Err(error) => tracing::error!(%rule, "cannot go on after an interruption: {}", super::fault::chain(&error)),
        }
    }
    handle.0.tasks.spawn(handle.clone().log_warnings());
    handle.0.tasks.spawn(handle.clone().schedule(alive));
    Ok(handle)
}
