//! Bringing the blobs of one image to its destinations, shared with everybody who wants the same.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::blob_table::{Claim, Lead, ended};
use super::context::RunContext;
use super::fault::Fault;
use super::image::{Target, TargetPlan};
use super::several::unordered;
use super::transfer::{Moved, RangeTrust, Sink, SourceBlob, move_blob};
use crate::oci::{Digest, RepositoryName};
use crate::plan::BlobAction;

/// Blobs of one image that are looked after at once; the registries' own limits are narrower.
const BLOBS_AT_ONCE: usize = 8;

/// The same with those that other images bring.
const BLOBS_UNDER_WAY: usize = 64;

/// How the blobs of a tree fared at one destination.
#[derive(Debug, Default)]
pub(super) struct Brought {
    /// The first.
    pub(super) fault: Option<Fault>,
    pub(super) attempts: u32,
    pub(super) bytes: u64,
    /// Those that were seen there or brought.
    pub(super) arrived: Vec<Digest>,
    /// True where some were taken to be there without a look.
    pub(super) believed: bool,
}

impl Brought {
    /// Nothing was heard of them.
    pub(super) fn untold() -> Self {
        Self {
            fault: Some(Fault::untold()),
            ..Self::default()
        }
    }

    fn add(&mut self, context: &RunContext, registry: &str, digest: &Digest, moved: Moved) {
        self.attempts = self.attempts.max(moved.attempts);
        self.bytes += moved.bytes;
        match moved.result {
            Ok(way) => {
                context.ledger.blob(registry, way);
                // What nobody looked for was not seen either.
                if moved.attempts > 0 {
                    self.arrived.push(digest.clone());
                } else {
                    self.believed = true;
                }
            }
            Err(fault) => {
                self.fault.get_or_insert(fault);
            }
        }
    }
}

/// One blob of a tree and the targets that want it, by index.
struct WantedBlob {
    size: u64,
    by: Vec<(usize, BlobAction)>,
}

/// A target whose blobs are on their way.
struct Awaiting {
    blobs: usize,
    brought: Brought,
    teller: Option<oneshot::Sender<Brought>>,
}

impl Awaiting {
    /// Tells what became of the blobs, once all have ended.
    fn tell(&mut self) {
        if self.blobs == 0
            && let Some(teller) = self.teller.take()
        {
            // Whoever does not listen was told to stop.
            let _ = teller.send(std::mem::take(&mut self.brought));
        }
    }
}

/// Brings every blob to every target that lacks it; each blob is read once for all that keep pace. Each target's teller is told
/// when its own blobs have ended.
pub(super) async fn bring_blobs(
    context: &RunContext,
    repository: &RepositoryName,
    targets: &[Target],
    plans: &[Result<TargetPlan, Fault>],
    tellers: Vec<oneshot::Sender<Brought>>,
) {
    let since: Vec<Duration> = plans
        .iter()
        .map(|plan| plan.as_ref().map_or(context.began, |plan| plan.believed_since))
        .collect();
    let since = since.as_slice();
    let mut awaiting: Vec<Awaiting> = tellers
        .into_iter()
        .map(|teller| Awaiting {
            blobs: 0,
            brought: Brought::default(),
            teller: Some(teller),
        })
        .collect();
    let mut wanted: BTreeMap<&Digest, WantedBlob> = BTreeMap::new();
    for (index, plan) in plans.iter().enumerate() {
        for step in plan.iter().flat_map(|plan| &plan.image.blobs) {
            let blob = wanted.entry(&step.digest).or_insert_with(|| WantedBlob {
                size: step.size,
                by: Vec::new(),
            });
            blob.by.push((index, step.action.clone()));
            awaiting[index].blobs += 1;
        }
    }
    awaiting.iter_mut().for_each(Awaiting::tell);
    let mut blobs: Vec<_> = wanted.into_iter().collect();
    // What other images wait for first; then the largest, so that a small one does not wait behind all others for the last
    // large one.
    blobs.sort_by_cached_key(|(digest, blob)| {
        let wanted_by = |(index, _): &(usize, BlobAction)| context.blobs.wanted_by(targets[*index].registry(), digest);
        let images = blob.by.iter().map(wanted_by).max().unwrap_or(0).max(1);
        std::cmp::Reverse((images, blob.size))
    });
    context.turn.begin(blobs.len());
    let moving = &Semaphore::new(BLOBS_AT_ONCE);
    let (tell, mut ends) = mpsc::unbounded_channel();
    let each_blob = blobs.into_iter().map(|(digest, WantedBlob { size, by })| {
        let tell = tell.clone();
        async move {
            let source = SourceBlob {
                endpoint: context.source.clone(),
                repository: repository.clone(),
                digest: digest.clone(),
                size,
                ranges: RangeTrust::default(),
            };
            let told = |index, moved| {
                // Whoever listens waits for us.
                let _ = tell.send((digest, index, moved));
            };
            bring(context, &source, targets, since, by, moving, &told).await;
            context.turn.end();
        }
    });
    let mut bringing = unordered(each_blob, BLOBS_UNDER_WAY);
    drop(tell);
    loop {
        tokio::select! {
            Some((digest, index, moved)) = ends.recv() => {
                let target: &mut Awaiting = &mut awaiting[index];
                target.brought.add(context, targets[index].registry(), digest, moved);
                target.blobs -= 1;
                target.tell();
            }
            Some(()) = bringing.next() => {}
            else => return,
        }
    }
}

/// Brings one blob to the targets that want it, each by itself: who waits for others holds up none of ours. `since`: from when each
/// target's blobs are taken to be there without a look.
async fn bring(
    context: &RunContext,
    source: &SourceBlob,
    targets: &[Target],
    since: &[Duration],
    wants: Vec<(usize, BlobAction)>,
    moving: &Semaphore,
    tell: &(impl Fn(usize, Moved) + Sync),
) {
    let mut open = wants;
    let mut moves = FuturesUnordered::new();
    let mut waits = FuturesUnordered::new();
    let mut place = None;
    loop {
        // Taken before the claim, as others wait for what is claimed, and free again while we only wait for others.
        if place.is_none() {
            place = moving.acquire().await.ok();
        }
        let (mut leads, mut sinks) = (Vec::new(), Vec::new());
        for (index, action) in open.drain(..) {
            let target = &targets[index];
            if action == BlobAction::Present {
                tell(index, Moved::present());
                continue;
            }
            let (registry, digest) = (target.registry(), &source.digest);
            match context.blobs.claim(registry, &target.repository, digest, since[index]) {
                Claim::Present => tell(index, Moved::present()),
                Claim::Wait(moving) => waits.push(async move {
                    ended(moving).await;
                    (index, action)
                }),
                Claim::Lead(lead, mount_from) => {
                    leads.push((index, lead));
                    let action = with_mount(action, mount_from);
                    sinks.push(Sink::new(target.endpoint.clone(), target.repository.clone(), action));
                }
            }
        }
        if !leads.is_empty() {
            moves.push(lead(context, source, leads, sinks, tell));
        }
        let ended = if moves.is_empty() {
            place = None;
            match waits.is_empty() {
                true => return,
                false => context.turn.while_waiting(waits.next()).await,
            }
        } else {
            tokio::select! {
                Some(()) = moves.next() => None,
                Some(want) = waits.next() => Some(want),
                else => None,
            }
        };
        open.extend(ended);
        // Those that ended together go on together: one read for all.
        while let Some(Some(want)) = waits.next().now_or_never() {
            open.push(want);
        }
    }
}

/// Brings one blob to targets that nobody else brings it to. Who waits for one of them hears its end as it comes.
async fn lead(
    context: &RunContext,
    source: &SourceBlob,
    leads: Vec<(usize, Lead)>,
    sinks: Vec<Sink>,
    tell: &(impl Fn(usize, Moved) + Sync),
) {
    let mut leads: Vec<Option<(usize, Lead)>> = leads.into_iter().map(Some).collect();
    let ended = |place: usize, moved: Moved| {
        if let Some((index, lead)) = leads[place].take() {
            if moved.result.is_ok() {
                lead.done();
            }
            tell(index, moved);
        }
    };
    move_blob(&context.transfer, source, sinks, ended).await;
}

fn with_mount(action: BlobAction, place: Option<RepositoryName>) -> BlobAction {
    match action {
        BlobAction::Find { mount_from } => BlobAction::Find {
            mount_from: place.or(mount_from),
        },
        BlobAction::Send { mount_from } => BlobAction::Send {
            mount_from: place.or(mount_from),
        },
        BlobAction::Present => BlobAction::Present,
    }
}
