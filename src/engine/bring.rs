//! Bringing the blobs of one image to its destinations, shared with everybody who wants the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::blob_table::{Claim, Lead, ended};
use super::context::RunContext;
use super::fault::Fault;
use super::image::{Target, TargetPlan};
use super::several::unordered;
use super::transfer::{Moved, RangeTrust, Sink, SourceBlob, move_blob};
use crate::oci::{Digest, RepositoryName};
use crate::plan::{BlobAction, HELD_UP};

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
    /// True where the registry fetched them by itself.
    pub(super) imported: bool,
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
    /// Once all blobs have ended, tells what became of them.
    fn tell(&mut self) {
        if let Some(teller) = self.teller.take_if(|_| self.blobs == 0) {
            // Whoever does not listen was told to stop.
            let _ = teller.send(std::mem::take(&mut self.brought));
        }
    }
}

/// How often it is looked whether the others wait for what a blob is still on its way to.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the blobs of one image share while they are brought.
struct Bringing<'a> {
    context: &'a RunContext,
    targets: &'a [Target],
    /// From when each target's blobs are taken to be there without a look.
    since: Vec<Duration>,
    moving: Semaphore,
    /// The targets at which the image has failed.
    failed: Vec<AtomicBool>,
    /// What is left for targets that were left behind until the others have theirs.
    postponed: Mutex<BTreeMap<&'a Digest, WantedBlob>>,
    ends: mpsc::UnboundedSender<(&'a Digest, usize, Option<Moved>)>,
}

/// One blob on its way.
struct OnItsWay<'a, 'b> {
    of: &'b Bringing<'a>,
    digest: &'a Digest,
    source: SourceBlob,
    /// Nothing is postponed any more.
    last: bool,
    /// The targets that somebody of ours brings it to.
    open: Mutex<BTreeSet<usize>>,
    /// When the first of them had ended.
    waits_since: OnceLock<Instant>,
}

impl OnItsWay<'_, '_> {
    /// Whether a target still wants the blob: a registry that does not answer is not asked for each one anew.
    fn wants(&self, index: usize) -> bool {
        let wants = !self.of.failed[index].load(Ordering::Relaxed);
        if !wants {
            self.send(index, None);
        }
        wants
    }

    /// Leaves it for later where the target was left behind by others of the same image.
    fn is_postponed(&self, index: usize, action: &BlobAction) -> bool {
        let behind = |target: &Target| self.of.context.transfer.pace.is_behind(target.registry());
        let targets = self.of.targets;
        let postponed = !self.last && targets.len() > 1 && behind(&targets[index]) && !targets.iter().all(behind);
        if postponed {
            let mut all = self.of.postponed.lock().unwrap_or_else(PoisonError::into_inner);
            let blob = all.entry(self.digest).or_insert_with(|| WantedBlob {
                size: self.source.size,
                by: Vec::new(),
            });
            blob.by.push((index, action.clone()));
        }
        postponed
    }

    fn open(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True where the image's other blobs need not wait for the targets that this one still moves to.
    fn holds_up_others(&self) -> bool {
        let pace = &self.of.context.transfer.pace;
        let behind = |index: &usize| pace.is_behind(self.of.targets[*index].registry());
        // Where only laggards are left, their blobs go one after the other.
        let to_laggards_only = !self.last && self.open().iter().all(behind);
        to_laggards_only || self.waits_since.get().is_some_and(|since| since.elapsed() >= HELD_UP)
    }

    fn tell(&self, index: usize, moved: Moved) {
        self.open().remove(&index);
        self.waits_since.get_or_init(Instant::now);
        if moved.result.is_err() {
            self.of.failed[index].store(true, Ordering::Relaxed);
        }
        self.send(index, Some(moved));
    }

    fn send(&self, index: usize, end: Option<Moved>) {
        // Whoever listens waits for us.
        let _ = self.of.ends.send((self.digest, index, end));
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
    let (tell, mut ends) = mpsc::unbounded_channel();
    let of = &Bringing {
        context,
        targets,
        since: plans
            .iter()
            .map(|plan| plan.as_ref().map_or(context.began, |plan| plan.believed_since))
            .collect(),
        moving: Semaphore::new(BLOBS_AT_ONCE),
        failed: targets.iter().map(|_| AtomicBool::new(false)).collect(),
        postponed: Mutex::default(),
        ends: tell,
    };
    for last in [false, true] {
        let mut blobs: Vec<_> = std::mem::take(&mut wanted).into_iter().collect();
        // What other images wait for first; then the largest, so that a small one does not wait behind all others for the last
        // large one.
        blobs.sort_by_cached_key(|(digest, blob)| {
            let wanted_by =
                |(index, _): &(usize, BlobAction)| context.blobs.wanted_by(targets[*index].registry(), digest);
            let images = blob.by.iter().map(wanted_by).max().unwrap_or(0).max(1);
            std::cmp::Reverse((images, blob.size))
        });
        context.turn.begin(blobs.len());
        let each_blob = blobs.into_iter().map(|(digest, WantedBlob { size, by })| async move {
            let source = SourceBlob {
                endpoint: context.source.clone(),
                repository: repository.clone(),
                digest: digest.clone(),
                size,
                ranges: RangeTrust::default(),
            };
            let blob = OnItsWay {
                of,
                digest,
                source,
                last,
                open: Mutex::default(),
                waits_since: OnceLock::new(),
            };
            bring(&blob, by).await;
            context.turn.end();
        });
        let mut bringing = unordered(each_blob, BLOBS_UNDER_WAY);
        loop {
            let (digest, index, moved) = tokio::select! {
                biased;
                Some(end) = ends.recv() => end,
                done = bringing.next() => match done {
                    Some(()) => continue,
                    // What was told before it is heard first.
                    None if ends.is_empty() => break,
                    None => continue,
                },
            };
            let target: &mut Awaiting = &mut awaiting[index];
            target.brought.add(context, targets[index].registry(), digest, moved);
            target.blobs -= 1;
            target.tell();
        }
        wanted = std::mem::take(&mut *of.postponed.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Brings one blob to the targets that want it, each by itself: who waits for others holds up none of ours.
async fn bring(blob: &OnItsWay<'_, '_>, wants: Vec<(usize, BlobAction)>) {
    let Bringing {
        context,
        targets,
        since,
        moving,
        ..
    } = blob.of;
    let mut open = wants;
    let mut moves = FuturesUnordered::new();
    let mut waits = FuturesUnordered::new();
    let mut place = None;
    loop {
        // Taken before the claim, as others wait for what is claimed, and free again while we only wait for others. Not while ours
        // are on their way, which nobody would look after meanwhile.
        if place.is_none() && moves.is_empty() && !open.is_empty() {
            place = moving.acquire().await.ok();
        }
        let (mut leads, mut sinks) = (Vec::new(), Vec::new());
        for (index, action) in open.drain(..) {
            if !blob.wants(index) || blob.is_postponed(index, &action) {
                continue;
            }
            let target = &targets[index];
            if action == BlobAction::Present {
                blob.tell(index, Moved::present());
                continue;
            }
            let (registry, digest) = (target.registry(), blob.digest);
            match context.blobs.claim(registry, &target.repository, digest, since[index]) {
                Claim::Present => blob.tell(index, Moved::present()),
                Claim::Wait(moving) => waits.push(async move {
                    ended(moving).await;
                    (index, action)
                }),
                Claim::Lead(lead, mount_from) => {
                    leads.push((index, lead));
                    blob.open().insert(index);
                    let action = with_mount(action, mount_from);
                    sinks.push(Sink::new(target.endpoint.clone(), target.repository.clone(), action));
                }
            }
        }
        if !leads.is_empty() {
            moves.push(lead(blob, leads, sinks));
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
                () = tokio::time::sleep(LOOK_AGAIN), if place.is_some() && targets.len() > 1 => {
                    if blob.holds_up_others() {
                        place = None;
                    }
                    None
                }
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
async fn lead(blob: &OnItsWay<'_, '_>, leads: Vec<(usize, Lead)>, sinks: Vec<Sink>) {
    let mut leads: Vec<Option<(usize, Lead)>> = leads.into_iter().map(Some).collect();
    let ended = |place: usize, moved: Moved| {
        if let Some((index, lead)) = leads[place].take() {
            if moved.result.is_ok() {
                lead.done();
            }
            blob.tell(index, moved);
        }
    };
    move_blob(&blob.of.context.transfer, &blob.source, sinks, ended).await;
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
