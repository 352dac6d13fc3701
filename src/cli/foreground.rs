//! Runs in the foreground: several rules at once, with progress and signals.

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};

use super::context::Context;
use super::exit::{Exit, Signal, Stop, StrictArg, chain};
use super::progress::Progress;
use super::signals::Signals;
use crate::engine::{Control, ControlHandle, Engine, RunReport, RunRequest};

/// Rules that run at once: enough that one slow registry does not hold up the others.
const RULES_AT_ONCE: usize = 4;

/// What several runs came to.
#[derive(Debug)]
pub(super) struct Done {
    /// The reports, in the order of the requests.
    pub(super) runs: Vec<RunReport>,
    /// The exit status.
    pub(super) exit: Exit,
    /// Messages of failures that were shown meanwhile.
    pub(super) told: BTreeSet<String>,
}

/// Runs what is asked for. Runs that could not start at all are said on standard error.
pub(super) async fn run(
    context: &Context,
    engine: &Engine,
    requests: Vec<RunRequest>,
    strict: StrictArg,
) -> Result<Done, Stop> {
    let mut signals = Signals::listen()?;
    let controls: Vec<(String, ControlHandle, Control)> = requests
        .iter()
        .map(|request| {
            let (handle, control) = ControlHandle::new();
            (request.rule.to_string(), handle, control)
        })
        .collect();
    let handles: Vec<ControlHandle> = controls.iter().map(|(_, handle, _)| handle.clone()).collect();
    let mut progress = Progress::new(&context.output, context.verbose());
    let mut events = engine.events().listen();

    let mut waiting: Vec<_> = requests.into_iter().zip(controls).enumerate().collect();
    waiting.sort_by_key(|(_, (request, _))| std::cmp::Reverse(engine.priority(&request.rule)));
    let jobs: Vec<_> = waiting
        .into_iter()
        .map(|(place, (request, (rule, _, control)))| async move {
            // A rule that had not begun when the signal came is not begun any more.
            if !control.may_start() {
                return (place, (rule, None));
            }
            let report = Box::pin(engine.run(request, control)).await;
            (place, (rule, Some(report)))
        })
        .collect();
    let work = async {
        let mut ended = stream::iter(jobs).buffered(RULES_AT_ONCE).collect::<Vec<_>>().await;
        ended.sort_by_key(|(place, _)| *place);
        ended.into_iter().map(|(_, ended)| ended).collect::<Vec<_>>()
    };
    let follow = progress.follow(&mut events);
    let beside = async {
        tokio::select! {
            done = work => done,
            () = async { follow.await; std::future::pending().await } => Vec::new(),
        }
    };
    let (done, signal) = Box::pin(signals.guard(&context.output, &handles, beside)).await;
    let told = progress.finish(&mut events);
    Ok(gather(context, done.unwrap_or_default(), signal, strict, told))
}

type Ended = (String, Option<Result<RunReport, crate::engine::EngineError>>);

fn gather(
    context: &Context,
    ended: Vec<Ended>,
    signal: Option<Signal>,
    strict: StrictArg,
    told: BTreeSet<String>,
) -> Done {
    let mut done = Done {
        runs: Vec::new(),
        told,
        exit: signal.map_or(Exit::Fine, Exit::Stopped),
    };
    for (rule, report) in ended {
        match report {
            Some(Ok(report)) => {
                done.exit = done.exit.worse(Exit::of_run(&report, strict));
                done.runs.push(report);
            }
            Some(Err(error)) => {
                context.output.error(format!("rule {rule}: {}", chain(&error)));
                done.exit = done.exit.worse(Exit::Failed);
            }
            None => context.output.note(format!("rule {rule}: not started")),
        }
    }
    done
}
