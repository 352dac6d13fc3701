//! Copying what was planned: many images at once, in lanes, so that destinations that keep pace wait for none that does not.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::context::RunContext;
use super::fault::Fault;
use super::job::{ImageGroup, copy_image, refresh_attachments};
use super::run::{Work, copy_work, place_failed, until_abort};
use super::turn::Turn;
use crate::plan::ErrorKind;
use crate::store::JobOutcome;

/// Images of one lane that are copied at once. Most of their time is spent waiting for the registries' own limits; what this bounds
/// is memory.
pub(super) const IMAGES_AT_ONCE: usize = 32;

/// The same with those that only wait for blobs that other images bring.
const IMAGES_UNDER_WAY: usize = 256;

/// Images by which a destination may lag at most; past it the others wait after all. Each takes about a kilobyte of memory.
const LAG: usize = 4096;

/// Copies what comes until the planning side ends.
pub(super) async fn copy_all(context: &RunContext, mut work: mpsc::Receiver<Work>) {
    let lanes = context.destinations.len().max(1);
    let mut running = Vec::with_capacity(lanes);
    context.transfer.pace.set_front_busy(true);
    for lane in 0..lanes {
        let (sender, next) = mpsc::channel(LAG);
        let behind = (lane + 1 < lanes).then_some(sender);
        running.push(run_lane(context, lane, work, behind));
        work = next;
    }
    join_all(running).await;
}

/// Copies what comes to the destinations of a lane, and hands on to the lane `behind` what those want that were left behind. A job
/// that panics fails by itself.
async fn run_lane(
    context: &RunContext,
    lane: usize,
    mut work: mpsc::Receiver<Work>,
    behind: Option<mpsc::Sender<Work>>,
) {
    let under_way = Arc::new(Semaphore::new(IMAGES_UNDER_WAY));
    let places = Arc::new(Semaphore::new(IMAGES_AT_ONCE));
    let mut jobs = JoinSet::new();
    loop {
        tokio::select! {
            next = work.recv() => {
                let Some(next) = next else { break };
                if !context.control.may_start() {
                    leave_out(context, &next);
                    continue;
                }
                let Ok(one) = Arc::clone(&under_way).acquire_owned().await else { break };
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
                let (own, rest) = match &behind {
                    Some(_) => split(context, lane, next),
                    None => (Some(next), None),
                };
                if let (Some(behind), Some(rest)) = (&behind, rest) {
                    // It listens for as long as we send.
                    let _ = behind.send(rest).await;
                }
                let Some(own) = own else { continue };
                let context = RunContext {
                    turn: Turn::new(Arc::clone(&places), place),
                    ..context.clone()
                };
                jobs.spawn(async move {
                    match own {
                        Work::Copy(group, _promise, _wants) => copy_image(&context, group).await,
                        Work::RefreshAttachments(group, _promise) => {
                            until_abort(&context, refresh_attachments(&context, &group)).await;
                        }
                    }
                    drop(one);
                });
            }
            Some(ended) = jobs.join_next() => {
                report_panic(context, ended);
                if jobs.is_empty() && work.is_empty() {
                    context.transfer.pace.caught_up(lane);
                }
            }
        }
    }
    drop(behind);
    while let Some(ended) = jobs.join_next().await {
        report_panic(context, ended);
    }
    if lane == 0 {
        context.transfer.pace.set_front_busy(false);
    }
}

/// What is to be done for the destinations of a lane, and for those that were left behind.
fn split(context: &RunContext, lane: usize, work: Work) -> (Option<Work>, Option<Work>) {
    let pace = &context.transfer.pace;
    let group = match &work {
        Work::Copy(group, ..) | Work::RefreshAttachments(group, _) => group,
    };
    let (rest, own): (Vec<_>, Vec<_>) = group
        .destinations
        .iter()
        .cloned()
        .partition(|destination| pace.lane(destination.registry.as_str()) > lane);
    if rest.is_empty() {
        return (Some(work), None);
    }
    let of = |destinations| ImageGroup {
        destinations,
        ..group.clone()
    };
    let (own, rest) = ((!own.is_empty()).then(|| of(own)), of(rest));
    match work {
        // What the source was promised to be asked is asked once: the second to read the manifest finds it kept.
        Work::Copy(_, promise, wants) => (
            own.map(|own| Work::Copy(own, promise, wants)),
            Some(copy_work(context, rest, None)),
        ),
        Work::RefreshAttachments(_, promise) => (
            own.map(|own| Work::RefreshAttachments(own, promise)),
            Some(Work::RefreshAttachments(rest, None)),
        ),
    }
}

/// Counts planned images that are not started, as the run was told to stop.
fn leave_out(context: &RunContext, work: &Work) {
    if let Work::Copy(group, _, _) = work {
        for destination in &group.destinations {
            context
                .ledger
                .job(destination.registry.as_str(), JobOutcome::Interrupted);
        }
    }
}

fn report_panic(context: &RunContext, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        let fault = Fault::new(
            ErrorKind::Local,
            format!("a job ended by a fault in transship itself: {error}"),
        );
        place_failed(context, context.rule.name.to_string(), &fault);
    }
}
