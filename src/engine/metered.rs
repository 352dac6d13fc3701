//! Sources that count the manifests that are read: images are looked into one after the other, as far as the quota goes;
//! the others are put off before anything is read of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::choice::choose;
use super::context::{Claims, RunContext};
use super::deferral::{self, Wait, seconds};
use super::fault::Fault;
use super::job::ImageGroup;
use super::manifests;
use super::run::{Work, copy_work};
use crate::oci::{Digest, Manifest, RepositoryName, Tag};
use crate::plan::{Budget, Turn};
use crate::registry::Endpoint;
use crate::store::DeferredImage;

/// How long a rule waits for those of a higher priority to say what they want. Looking at some thousand tags takes minutes;
/// one that takes longer lists a registry that hardly answers, or one without an end, and may do so for hours.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// The meters of all sources that count, shared by all runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Meters(Arc<Mutex<BTreeMap<(String, String), Meter>>>);

/// The quota of one source, and who waits for it.
#[derive(Clone, Debug, Default)]
struct Meter(Arc<MeterState>);

#[derive(Debug, Default)]
struct MeterState {
    budget: Mutex<Budget>,
    /// One image is looked into at a time: what it needs is known only then.
    looking: tokio::sync::Mutex<()>,
    /// Runs that have not yet said what they want, with their priority.
    undecided: watch::Sender<Vec<(u64, i32)>>,
}

/// Reads that were promised to an image; given back when it has been read.
#[derive(Debug)]
pub(super) struct Promise {
    meter: Meter,
    reads: u64,
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.meter.budget().done(self.reads);
    }
}

/// The place of a run among those that want the same quota.
#[derive(Debug)]
pub(super) struct Place {
    meter: Meter,
    number: u64,
    priority: i32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let number = self.number;
        let undecided = &self.meter.0.undecided;
        undecided.send_modify(|all| all.retain(|(other, _)| *other != number));
    }
}

impl Meters {
    fn of(&self, end: &Endpoint) -> Meter {
        let key = (end.name().to_owned(), end.host().unwrap_or_default().to_owned());
        let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        meters.entry(key).or_default().clone()
    }

    /// Takes a place for a run. Where its source does not count, it is of no consequence.
    pub(super) fn enter(&self, context: &RunContext) -> Place {
        self.of(&context.source).enter(context.rule.priority)
    }
}

impl Meter {
    fn enter(&self, priority: i32) -> Place {
        let mut number = 0;
        self.0.undecided.send_modify(|all| {
            number = all.iter().map(|(other, _)| other + 1).max().unwrap_or_default();
            all.push((number, priority));
        });
        Place {
            meter: self.clone(),
            number,
            priority,
        }
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.0.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, end: &Endpoint, now: Timestamp) {
        if let Some(quota) = end.quota() {
            self.budget().hear(quota, now);
        }
    }

    fn promise(&self, reads: u64) -> Promise {
        self.budget().promise(reads);
        Promise {
            meter: self.clone(),
            reads,
        }
    }

    /// Promises the reads where they fit behind `ahead`.
    fn take(&self, ahead: u64, reads: u64, now: Timestamp) -> Result<Promise, Timestamp> {
        // The guard is gone before the promise takes its own.
        let turn = self.budget().turn(ahead, reads, now);
        match turn {
            Turn::Now => Ok(self.promise(reads)),
            Turn::At(until) => Err(until),
        }
    }
}

impl Place {
    /// Waits until every run of a higher priority has said what it wants of `source`, but not for ever.
    async fn turn(&self, rule: &str, source: &str) {
        let mut undecided = self.meter.0.undecided.subscribe();
        let first = |all: &Vec<(u64, i32)>| all.iter().all(|(_, priority)| *priority <= self.priority);
        if first(&undecided.borrow()) {
            return;
        }
        let minutes = LONGEST_WAIT.as_secs() / 60;
        tracing::info!(
            rule,
            "{source} counts what is read of it, and rules of a higher priority are still looking at what they want there: \
             this one waits for them, {minutes} min at most"
        );
        // The sender lives as long as the meter, which we hold.
        let waited = tokio::time::timeout(LONGEST_WAIT, undecided.wait_for(first)).await;
        if waited.is_err() {
            tracing::info!(
                rule,
                "rules of a higher priority have not said for {minutes} min what they want of {source}: this one goes on"
            );
        }
    }
}

/// True where the run's manifest reads are counted and planned.
pub(super) fn is_planned(context: &RunContext) -> bool {
    // A copy by hand has no later run to which something could be put off.
    context.claims == Claims::Make && context.source.is_metered()
}

/// True where nothing is read of the source to find out what tags come to: what is read is counted, and whether it is needed is seen
/// when it is copied.
pub(super) fn is_spared(context: &RunContext) -> bool {
    let only_plans = context.claims == Claims::Look && !context.looks_anew;
    is_planned(context) || (only_plans && context.source.is_metered())
}

/// What the quota of the source means for so many images to copy, where they may not fit.
pub(super) fn forecast(context: &RunContext, images: u64) -> Option<String> {
    let (source, now) = (&context.source, context.clock.now());
    if !source.is_metered() {
        return None;
    }
    let meter = context.meters.of(source);
    meter.hear(source, now);
    let left = meter.budget().left(now)?;
    // What was read before is not read again, so that it may be less.
    let reads = images.saturating_mul(guess(0, 0));
    if reads <= left {
        return None;
    }
    let of = share(source);
    let renewed = source.quota().map_or(now, |quota| quota.renewed_at());
    Some(format!(
        "{} counts the manifests that are read, and lets us read {left} {of}; {images} images are to be copied, of two manifests or \
         more each: those that do not fit wait for a later run, until {} for the first of them",
        source.name(),
        seconds(renewed)
    ))
}

/// Of how many reads in which time.
fn share(source: &Endpoint) -> String {
    match source.quota() {
        Some(quota) => {
            let limit = quota.limit.map(|limit| format!("of {limit} ")).unwrap_or_default();
            format!("{limit}in {} h", quota.window.as_secs().div_ceil(3600))
        }
        None => "for now".to_owned(),
    }
}

/// What is known when a whole rule has been looked at.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Images to copy, in the order of their repositories.
    pub(super) images: Vec<ImageGroup>,
    /// Images in step whose attachments are to be looked after.
    pub(super) due: Vec<ImageGroup>,
}

/// Hands on what fits into the quota, the longest waiting first, and puts off the rest.
pub(super) async fn admit(
    context: &RunContext,
    place: Place,
    wanted: Wanted,
    waited: &[DeferredImage],
    sender: &mpsc::Sender<Work>,
) {
    let Wanted { mut images, due } = wanted;
    if images.is_empty() && due.is_empty() {
        return;
    }
    tokio::select! {
        () = place.turn(context.rule.name.as_str(), context.source.name()) => {}
        _ = context.control.wait_stop() => {}
    }
    let queue = Queue::new(waited);
    // Stable: those that wait equally long stay in the order of the plan.
    images.sort_by_key(|group| queue.place(group).map_or(Timestamp::MAX, |image| image.since));
    let meter = place.meter.clone();
    let mut later: Vec<(ImageGroup, Wait)> = Vec::new();
    let (mut ahead, mut read, mut looked) = (0, 0, 0);
    for group in images {
        // The copying side counts what it does not start.
        if !context.control.may_start() {
            if sender.send(copy_work(context, group, None)).await.is_err() {
                return;
            }
            continue;
        }
        let until = if later.is_empty() {
            match look_into(context, &meter, &group).await {
                Ok(promise) => {
                    read += promise.reads + 1;
                    looked += 1;
                    if sender.send(copy_work(context, group, Some(promise))).await.is_err() {
                        return;
                    }
                    continue;
                }
                Err(until) => until,
            }
        } else {
            let turn = meter.budget().turn(ahead, guess(read, looked), context.clock.now());
            match turn {
                Turn::At(until) => until,
                // What the first of them could not have is left for it.
                Turn::Now => later.iter().map(|(_, wait)| wait.until).max().unwrap_or(Timestamp::MAX),
            }
        };
        ahead += guess(read, looked);
        // That a quota was asked for again is no reason to wait longer.
        let before = queue.place(&group).map(|image| image.until);
        let now = context.clock.now();
        let until = before
            .filter(|before| *before > now)
            .map_or(until, |before| before.min(until));
        let wait = wait(context, &meter, seconds(until));
        later.push((group, wait));
    }
    drop(place);
    // Of those that wait, too, nothing is read twice.
    context.manifests.flush().await;
    let all_fit = later.is_empty();
    deferral::put_off(context, &later).await;
    for group in due {
        if !all_fit || !context.control.may_start() {
            break;
        }
        meter.hear(&context.source, context.clock.now());
        // Half of the quota is left to images.
        let half = context.source.quota().and_then(|quota| quota.limit).unwrap_or_default() / 2;
        let known = manifests::is_kept(&context.manifests, &context.source, &group.repository, &group.source).await;
        let reads = if known { 0 } else { guess(read, looked) };
        let taken = meter.take(half, reads, context.clock.now());
        match taken {
            Ok(promise) => {
                let work = Work::RefreshAttachments(group, Some(Arc::new(promise)));
                if sender.send(work).await.is_err() {
                    return;
                }
            }
            Err(_) => {
                tracing::info!(run = %context.run, "attachments of images in step are looked after when the quota of {} allows", context.source.name());
                break;
            }
        }
    }
}

/// How images wait already, by source repository and tag; where several destinations wait, as the longest waiting.
struct Queue<'a>(BTreeMap<(&'a RepositoryName, &'a Tag), &'a DeferredImage>);

impl<'a> Queue<'a> {
    fn new(waited: &'a [DeferredImage]) -> Self {
        let mut oldest = BTreeMap::new();
        for image in waited {
            oldest.entry((&image.source, &image.tag)).or_insert(image);
        }
        Self(oldest)
    }

    fn place(&self, group: &ImageGroup) -> Option<&'a DeferredImage> {
        let tag = group.reference.tag()?;
        self.0.get(&(&group.repository, tag)).copied()
    }
}

/// Reads that an image needs which was not looked into: as the others on the average.
fn guess(read: u64, looked: u64) -> u64 {
    if looked == 0 { 2 } else { read.div_ceil(looked).max(1) }
}

fn wait(context: &RunContext, meter: &Meter, until: Timestamp) -> Wait {
    let name = context.source.name();
    let left = meter.budget().left(context.clock.now()).unwrap_or_default();
    let of = share(&context.source);
    let message = format!(
        "{name} counts the manifests that are read, and lets us read {left} {of}: it fits at {until} at the latest"
    );
    Wait { until, message }
}

/// Reads the top manifest, unless it was read before, and promises the reads that the image needs beyond it.
///
/// # Errors
/// The time at which they fit.
async fn look_into(context: &RunContext, meter: &Meter, group: &ImageGroup) -> Result<Promise, Timestamp> {
    let _one_at_a_time = meter.0.looking.lock().await;
    let (source, repository) = (&context.source, &group.repository);
    meter.hear(source, context.clock.now());
    let kept = manifests::is_kept(&context.manifests, source, repository, &group.source).await;
    let taken = meter.take(0, u64::from(!kept), context.clock.now())?;
    let needed = needed(context, group).await;
    drop(taken);
    meter.hear(source, context.clock.now());
    match needed {
        Ok(reads) => meter.take(0, reads, context.clock.now()),
        Err(fault) => match deferral::instead_of(context, &fault, "") {
            Some(wait) => Err(wait.until),
            // The job meets the same and says so.
            None => Ok(meter.promise(0)),
        },
    }
}

/// Manifests that the image needs beyond its top one and that were not read before.
async fn needed(context: &RunContext, group: &ImageGroup) -> Result<u64, Fault> {
    let (source, repository) = (&context.source, &group.repository);
    let Some(top) = manifests::read(&context.manifests, source, repository, &group.source).await? else {
        return Ok(0);
    };
    let (_, rewritten) = choose(context, repository, &top).await?;
    let needed: BTreeSet<&Digest> = match &rewritten {
        None => top.entries().iter().map(|entry| &entry.digest).collect(),
        Some(rewritten) => {
            let entries = std::iter::once(&rewritten.top).chain(rewritten.within.values());
            let entries = entries.flat_map(Manifest::entries).map(|entry| &entry.digest);
            entries.filter(|digest| !rewritten.made(digest)).collect()
        }
    };
    let mut reads = 0;
    for digest in needed {
        let kept = manifests::is_kept(&context.manifests, source, repository, digest).await;
        reads += u64::from(!kept);
    }
    Ok(reads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_rule_waits_for_those_of_a_higher_priority_but_not_for_ever() {
        let meter = Meter::default();
        let low = meter.enter(0);
        let start = Instant::now();
        let turn = || low.turn("low", "hub");
        turn().await;
        assert_eq!(start.elapsed(), Duration::ZERO, "nobody is before it");
        let (equal, high) = (meter.enter(0), meter.enter(5));
        let decides = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(high);
        };
        tokio::join!(turn(), decides);
        assert_eq!(start.elapsed(), Duration::from_secs(60), "{equal:?} is not waited for");
        let silent = meter.enter(1);
        turn().await;
        assert_eq!(start.elapsed(), Duration::from_secs(60) + LONGEST_WAIT);
        silent.turn("silent", "hub").await;
        assert_eq!(start.elapsed(), Duration::from_secs(60) + LONGEST_WAIT, "it is first");
    }
}
