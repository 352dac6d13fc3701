//! Copying what was planned: many images at once, in lanes, so that destinations that keep pace wait for none that does not.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::context::RunContext;
use super::fault::Fault;
use super::job::{GroupDestination, ImageGroup, copy_image, refresh_attachments};
use super::pace::ImageLeft;
use super::run::{Work, place_failed, until_abort, wants};
use super::turn::Turn;
use crate::plan::ErrorKind;
use crate::rules::RegistryName;
use crate::store::JobOutcome;

/// Images of one lane that are copied at once. Most of their time is spent waiting for the registries' own limits; what this bounds
/// is memory.
pub(super) const IMAGES_AT_ONCE: usize = 24;

/// The same with those that only wait for blobs that other images bring.
const IMAGES_UNDER_WAY: usize = 256;

/// Images that wait for one of several destinations at most; past it the others wait after all. Each takes a kilobyte or two.
const LAG: usize = 4096;

/// The queues of destinations that go by themselves.
type Queues = BTreeMap<RegistryName, mpsc::Sender<Item>>;

/// Something to do, counted for its destinations until it is done.
struct Item {
    work: Work,
    left: Vec<ImageLeft>,
}

impl Item {
    fn new(context: &RunContext, work: Work) -> Self {
        let destinations = work.group().destinations.iter();
        let left = destinations.map(|destination| context.transfer.pace.image(destination.registry.as_str()));
        Self {
            left: left.collect(),
            work,
        }
    }
}

/// Copies what comes until the planning side ends. An image is shared by the destinations that keep pace; who was left behind, or is
/// the only one to lack it, has a lane of its own.
pub(super) async fn copy_all(context: &RunContext, mut work: mpsc::Receiver<Work>) {
    let several = context.destinations.len() > 1;
    let (mut queues, mut lanes) = (Queues::new(), Vec::new());
    // One that is alone holds up nobody but the planning.
    for registry in context.destinations.keys().filter(|_| several) {
        let (sender, queue) = mpsc::channel(LAG);
        queues.insert(registry.clone(), sender);
        lanes.push(run_lane(context, queue, None));
    }
    let (shared, sharing) = mpsc::channel(1);
    lanes.push(run_lane(context, sharing, several.then(|| queues.clone())));
    let sorting = async move {
        while let Some(work) = work.recv().await {
            let together = match several {
                true => sort(context, work, &queues).await,
                false => Some(work),
            };
            // The lanes listen for as long as we send.
            if let Some(work) = together {
                let _ = shared.send(Item::new(context, work)).await;
            }
        }
    };
    futures_util::future::join(sorting, join_all(lanes)).await;
}

/// Hands what single destinations are to have to their queues. Gives what several have together.
async fn sort(context: &RunContext, work: Work, queues: &Queues) -> Option<Work> {
    let pace = &context.transfer.pace;
    let behind = |destination: &GroupDestination| pace.is_behind(destination.registry.as_str());
    let (mut alone, mut together): (Vec<_>, Vec<_>) = work.group().destinations.iter().cloned().partition(behind);
    if together.len() == 1 {
        alone.append(&mut together);
    } else if alone.is_empty() {
        return Some(work);
    }
    for destination in alone {
        if let Some(queue) = queues.get(&destination.registry) {
            let _ = queue.send(Item::new(context, work.part(vec![destination]))).await;
        }
    }
    (!together.is_empty()).then(|| work.part(together))
}

/// Copies what comes. `queues`: where those go that were left behind since it was put together. A job that panics fails by itself.
async fn run_lane(context: &RunContext, mut items: mpsc::Receiver<Item>, queues: Option<Queues>) {
    let under_way = Arc::new(Semaphore::new(IMAGES_UNDER_WAY));
    let places = Arc::new(Semaphore::new(IMAGES_AT_ONCE));
    let mut jobs = JoinSet::new();
    loop {
        tokio::select! {
            next = items.recv() => {
                let Some(mut item) = next else { break };
                if !context.control.may_start() {
                    leave_out(context, &item.work);
                    continue;
                }
                let Ok(one) = Arc::clone(&under_way).acquire_owned().await else { break };
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
                // Told while we waited.
                if !context.control.may_start() {
                    leave_out(context, &item.work);
                    continue;
                }
                if let Some(queues) = &queues {
                    let Some(work) = sort(context, item.work, queues).await else { continue };
                    item = Item::new(context, work);
                }
                let context = RunContext {
                    turn: Turn::new(Arc::clone(&places), place),
                    ..context.clone()
                };
                jobs.spawn(async move {
                    let Item { work, left } = item;
                    match work {
                        Work::Copy(group, _promise, told) => {
                            let _wants = told.unwrap_or_else(|| wants(&context, &group));
                            copy_image(&context, group, left).await;
                        }
                        Work::RefreshAttachments(group, _promise) => {
                            until_abort(&context, refresh_attachments(&context, &group)).await;
                        }
                    }
                    drop(one);
                });
            }
            Some(ended) = jobs.join_next() => report_panic(context, ended),
        }
    }
    // Those that go by themselves wait for no more from here.
    drop(queues);
    while let Some(ended) = jobs.join_next().await {
        report_panic(context, ended);
    }
}

impl Work {
    fn group(&self) -> &ImageGroup {
        match self {
            Self::Copy(group, ..) | Self::RefreshAttachments(group, _) => group,
        }
    }

    /// The same for some of the destinations. What was promised is given back when all have read it.
    fn part(&self, destinations: Vec<GroupDestination>) -> Self {
        let group = ImageGroup {
            destinations,
            ..self.group().clone()
        };
        match self {
            Self::Copy(_, promise, _) => Self::Copy(group, promise.clone(), None),
            Self::RefreshAttachments(_, promise) => Self::RefreshAttachments(group, promise.clone()),
        }
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
