//! Conducting a run: its record, its control, its end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::addresses;
use super::context::{Claims, RunContext, RunParking};
use super::control::{Control, ControlHandle, Stop};
use super::event::Event;
use super::facade::{Engine, EngineError, Shared};
use super::job::ImageGroup;
use super::parking;
use super::rates::RatesKeeper;
use super::report::RunReport;
use super::requests::{RunRequest, Single};
use super::run;
use crate::oci::Digest;
use crate::rules::{Rule, RuleName};
use crate::store::{NewRun, RunId, RunOutcome};

/// How often a run looks whether another process asked it to stop.
const CANCEL_POLL: Duration = Duration::from_secs(1);

impl Engine {
    /// Starts a run: it has an id and is recorded.
    pub(super) async fn start(&self, request: RunRequest) -> Result<Started, EngineError> {
        let rule = self.rule(request.rule.as_str())?.clone();
        let shared = &self.shared;
        let name = rule.name.clone();
        let running = self.occupy(&name)?;
        let last = shared.store.last_runs().await?;
        // Whatever did not end well may have left blobs in repositories that have no tags yet.
        let left_behind = last
            .iter()
            .any(|row| row.rule == name.as_str() && row.outcome != Some(RunOutcome::Ok));
        let started_at = shared.clock.now();
        addresses::forget_moved(&shared.store, self.ends_of(&rule), started_at).await?;
        let new = NewRun {
            rule: name.as_str(),
            trigger: request.trigger,
            continues: request.continues,
        };
        let run = shared.store.start_run(new, started_at).await?;
        shared
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.clone(), run);
        shared.events.tell(Event::RunStarted {
            run,
            rule: name.to_string(),
            trigger: request.trigger,
        });
        Ok(Started {
            run,
            rule,
            careful: left_behind || request.continues.is_some(),
            request,
            started_at,
            running,
        })
    }

    /// Marks a rule as running.
    fn occupy(&self, rule: &RuleName) -> Result<Running, EngineError> {
        let mut under_way = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = under_way.get(rule).copied() {
            return Err(EngineError::AlreadyRunning {
                rule: rule.to_string(),
                run,
            });
        }
        under_way.insert(rule.clone(), RunId(0));
        Ok(Running {
            shared: Arc::clone(&self.shared),
            rule: rule.clone(),
        })
    }

    /// Executes a started run to its end.
    pub(super) async fn execute(&self, started: Started, control: Control) -> Result<RunReport, EngineError> {
        let only = started.request.only.clone();
        self.conduct(started, control, Claims::Make, async |context| {
            Box::pin(run::execute(context, &only)).await
        })
        .await
    }

    /// As [`Engine::execute`], of one named image only.
    pub(super) async fn execute_single(
        &self,
        started: Started,
        single: Single,
        control: Control,
    ) -> Result<RunReport, EngineError> {
        self.conduct(started, control, Claims::Ignore, async |context| {
            Box::pin(super::single::execute(context, &single)).await;
        })
        .await
    }

    /// As [`Engine::execute`], by hand and outside the rules.
    pub(super) async fn execute_by_hand(&self, started: Started, control: Control) -> Result<RunReport, EngineError> {
        self.conduct(started, control, Claims::Ignore, async |context| {
            Box::pin(run::execute(context, &[])).await
        })
        .await
    }

    /// As [`Engine::execute`]; of these images only, without planning them again. `damaged` blobs are sent even where
    /// the destination has them.
    pub(super) async fn execute_groups(
        &self,
        started: Started,
        groups: Vec<ImageGroup>,
        damaged: BTreeSet<Digest>,
        control: Control,
    ) -> Result<RunReport, EngineError> {
        self.conduct(started, control, Claims::Look, async |context| {
            let context = RunContext {
                looks_anew: true,
                damaged: Arc::new(damaged),
                ..context.clone()
            };
            run::copy_groups(&context, groups).await;
        })
        .await
    }

    /// Everything around the work of a run: its control, its end, its record.
    async fn conduct(
        &self,
        started: Started,
        control: Control,
        claims: Claims,
        work: impl AsyncFnOnce(&RunContext),
    ) -> Result<RunReport, EngineError> {
        let Started {
            run,
            rule,
            careful,
            request,
            started_at,
            running,
        } = started;
        // The run has a control of its own, so that it can be stopped alone.
        let (handle, own) = ControlHandle::new();
        let context = RunContext {
            parking: RunParking {
                obeys: !request.at_once,
                started_at,
            },
            ..self.context(rule, run, careful, claims, own)?
        };
        let name = context.rule.name.to_string();
        super::rates::restore(&context).await;
        super::learnt::restore(&context).await;
        let mut rates = RatesKeeper::default();
        let cancelled = {
            let work = work(&context);
            self.watch(work, &context, &handle, &control, &mut rates).await
        };
        rates.keep(&context).await;
        super::learnt::keep(&context).await;
        addresses::leave(&context).await;
        // What it put aside may have failed for settings that have been mended since it began.
        if self.is_of_before() {
            parking::settings_were_read(&self.shared.store, self.shared.clock.now()).await;
        }
        let stopped = match (cancelled, context.control.state()) {
            (true, _) => Some(RunOutcome::Cancelled),
            (false, Stop::Run) => None,
            (false, Stop::Drain(_) | Stop::Abort(_)) => Some(RunOutcome::Interrupted),
        };
        let finished_at = self.shared.clock.now();
        let report = context
            .ledger
            .close(run, &name, request.trigger, stopped, started_at, finished_at);
        if report.outcome == RunOutcome::Ok {
            super::tidy::give_up_old_uploads(&context).await;
        }
        let text = serde_json::to_string(&report).unwrap_or_default();
        self.shared
            .store
            .finish_run(run, report.outcome, &text, finished_at)
            .await?;
        drop(running);
        self.shared.events.tell(Event::RunFinished {
            run,
            rule: name,
            outcome: report.outcome,
        });
        Ok(report)
    }

    /// Drives a run while listening for whoever wants it stopped. True where it was cancelled alone.
    async fn watch(
        &self,
        work: impl Future<Output = ()>,
        context: &RunContext,
        handle: &ControlHandle,
        control: &Control,
        rates: &mut RatesKeeper,
    ) -> bool {
        let run = context.run;
        let cancelled = AtomicBool::new(false);
        // Beside the work, never between its steps: else it could wait for a turn at the state which the work holds.
        let looking = async {
            let mut poll = tokio::time::interval(CANCEL_POLL);
            poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                poll.tick().await;
                // Soon, as a process that is killed says nothing any more.
                rates.keep(context).await;
                let asked = self.shared.store.cancel_requested(&[run]).await;
                if asked.is_ok_and(|runs| runs.contains(&run)) && !cancelled.swap(true, Ordering::Relaxed) {
                    handle.abort("the run was cancelled");
                }
            }
        };
        let mut work = std::pin::pin!(work);
        let mut looking = std::pin::pin!(looking);
        let mut told = Stop::Run;
        loop {
            tokio::select! {
                () = &mut work => return cancelled.load(Ordering::Relaxed),
                () = &mut looking => {}
                stop = control.wait_change(&told) => {
                    match &stop {
                        Stop::Run => {}
                        Stop::Drain(reason) => handle.drain(reason.clone()),
                        Stop::Abort(reason) => handle.abort(reason.clone()),
                    }
                    told = stop;
                }
            }
        }
    }
}

/// A run that has begun.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) run: RunId,
    rule: Rule,
    careful: bool,
    request: RunRequest,
    started_at: jiff::Timestamp,
    running: Running,
}

impl Started {
    /// The rule that runs.
    pub(super) fn rule_name(&self) -> &RuleName {
        &self.rule.name
    }
}

/// A rule is running while this lives.
#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    rule: RuleName,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.rule);
    }
}
