//! Bringing the blobs of one image to its destinations, shared with everybody who wants the same.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::blob_table::{Claim, Lead, ended};
use super::context::RunContext;
use super::fault::Fault;
use super::image::{Target, TargetPlan};
use super::pace::{Pace, Shared};
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

    /// Adds how one blob fared; `None`: it was not tried, as the image has failed there by then.
    fn add(&mut self, context: &RunContext, registry: &str, digest: &Digest, moved: Option<Moved>) {
        let Some(moved) = moved else { return };
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
    /// Once all blobs have ended, tells what became of them: whether all are there.
    fn tell(&mut self) -> Option<bool> {
        let teller = self.teller.take_if(|_| self.blobs == 0)?;
        let well = self.brought.fault.is_none();
        // Whoever does not listen was told to stop.
        let _ = teller.send(std::mem::take(&mut self.brought));
        Some(well)
    }
}

/// How often it is looked whether an image waits only for destinations that were left behind.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// True where some have all blobs, and whoever has not was left behind by those.
fn waits_for_laggards(pace: &Pace, targets: &[Target], awaiting: &[Awaiting]) -> bool {
    let lanes = |done: bool| {
        let of = targets
            .iter()
            .zip(awaiting)
            .filter(move |(_, a)| a.teller.is_none() == done);
        of.map(|(target, _)| pace.lane(target.registry()))
    };
    match (lanes(true).min(), lanes(false).min()) {
        (Some(done), Some(open)) => open > done,
        _ => false,
    }
}

/// Hears how one blob fares at the targets.
struct Listener<'a> {
    digest: &'a Digest,
    /// The targets at which the image has failed.
    failed: &'a [AtomicBool],
    ends: mpsc::UnboundedSender<(&'a Digest, usize, Option<Moved>)>,
}

impl Listener<'_> {
    /// Whether a target still wants the blob: a registry that does not answer is not asked for each one anew.
    fn wants(&self, index: usize) -> bool {
        let wants = !self.failed[index].load(Ordering::Relaxed);
        if !wants {
            self.send(index, None);
        }
        wants
    }

    fn tell(&self, index: usize, moved: Moved) {
        if moved.result.is_err() {
            self.failed[index].store(true, Ordering::Relaxed);
        }
        self.send(index, Some(moved));
    }

    fn send(&self, index: usize, end: Option<Moved>) {
        // Whoever listens waits for us.
        let _ = self.ends.send((self.digest, index, end));
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
    let pace = &context.transfer.pace;
    let mut sharing = (targets.len() > 1).then(|| pace.share(Shared::Image, targets.iter().map(Target::registry)));
    for (index, target) in awaiting.iter_mut().enumerate() {
        if let (Some(well), Some(sharing)) = (target.tell(), &mut sharing) {
            sharing.ended(index, well);
        }
    }
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
    let failed: Vec<AtomicBool> = targets.iter().map(|_| AtomicBool::new(false)).collect();
    let failed = failed.as_slice();
    let (tell, mut ends) = mpsc::unbounded_channel();
    let each_blob = blobs.into_iter().map(|(digest, WantedBlob { size, by })| {
        let ends = tell.clone();
        async move {
            let source = SourceBlob {
                endpoint: context.source.clone(),
                repository: repository.clone(),
                digest: digest.clone(),
                size,
                ranges: RangeTrust::default(),
            };
            let listener = Listener { digest, failed, ends };
            bring(context, &source, targets, since, by, moving, &listener).await;
            context.turn.end();
        }
    });
    let mut bringing = unordered(each_blob, BLOBS_UNDER_WAY);
    drop(tell);
    let mut looks = tokio::time::interval(LOOK_AGAIN);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            end = ends.recv() => {
                // All have ended.
                let Some((digest, index, moved)) = end else { return };
                let target: &mut Awaiting = &mut awaiting[index];
                target.brought.add(context, targets[index].registry(), digest, moved);
                target.blobs -= 1;
                if let (Some(well), Some(sharing)) = (target.tell(), &mut sharing) {
                    sharing.ended(index, well);
                }
            }
            Some(()) = bringing.next() => {}
            _ = looks.tick(), if sharing.is_some() => {
                if waits_for_laggards(pace, targets, &awaiting) {
                    context.turn.leave();
                }
            }
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
    listener: &Listener<'_>,
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
        for (index, action) in open.drain(..).filter(|(index, _)| listener.wants(*index)) {
            let target = &targets[index];
            if action == BlobAction::Present {
                listener.tell(index, Moved::present());
                continue;
            }
            let (registry, digest) = (target.registry(), &source.digest);
            match context.blobs.claim(registry, &target.repository, digest, since[index]) {
                Claim::Present => listener.tell(index, Moved::present()),
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
            moves.push(lead(context, source, leads, sinks, listener));
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
    listener: &Listener<'_>,
) {
    let mut leads: Vec<Option<(usize, Lead)>> = leads.into_iter().map(Some).collect();
    let ended = |place: usize, moved: Moved| {
        if let Some((index, lead)) = leads[place].take() {
            if moved.result.is_ok() {
                lead.done();
            }
            listener.tell(index, moved);
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
