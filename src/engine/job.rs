//! One image to one or more destinations: the jobs, from their start to their recorded end.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{join, join_all};
use tokio::sync::mpsc;

use super::attachments::copy_attachments;
use super::context::RunContext;
use super::deferral;
use super::event::Event;
use super::fault::Fault;
use super::image::{Arrived, Target, copy_tree};
use super::ledger::Ledger;
use super::looks::head;
use super::observe::Attachments;
use super::pace::ImageLeft;
use super::parking;
use super::planned::PlannedPut;
use super::prepare::{NotCopied, Prepared, prepare};
use super::report::Change;
use super::settle::skip_message;
use super::tag_put::{KEPT, may_put, record_put};
use crate::oci::{Digest, Reference, RepositoryName, Tag};
use crate::plan::{CopyReason, ErrorKind, Observation, ParkedFailure};
use crate::registry::{Place, Side};
use crate::rules::RegistryName;
use crate::store::{FinishedJob, JobId, JobOutcome, NewJob};

/// One image of a source repository and the destinations that need it.
#[derive(Clone, Debug)]
pub(super) struct ImageGroup {
    pub(super) repository: RepositoryName,
    /// Tag or digest at the source.
    pub(super) reference: Reference,
    /// What it pointed to when it was planned.
    pub(super) source: Digest,
    /// What the destinations were planned to hold.
    pub(super) wanted: Option<Digest>,
    pub(super) destinations: Vec<GroupDestination>,
    /// Attachment tags of the source repository.
    pub(super) attachments: Arc<Attachments>,
}

/// One destination of an image.
#[derive(Clone, Debug)]
pub(super) struct GroupDestination {
    pub(super) registry: RegistryName,
    pub(super) repository: RepositoryName,
    /// Under which tag; by digest only without one.
    pub(super) tag: Option<Tag>,
    /// Why it is copied.
    pub(super) reason: CopyReason,
    /// What the tag pointed to when it was planned.
    pub(super) previous: Option<Digest>,
    /// How it failed before, where that was put aside.
    pub(super) parked: Option<ParkedFailure>,
    /// True where it waited for a quota or for a registry's pause to end.
    pub(super) waited: bool,
    /// Its put among those of other runs, where these are known.
    pub(super) put: Option<Arc<PlannedPut>>,
}

impl ImageGroup {
    pub(super) fn source_place(&self, context: &RunContext) -> String {
        Place::image(context.source.name(), &self.repository, Some(&self.reference)).to_string()
    }
}

impl GroupDestination {
    fn reference(&self, digest: &Digest) -> Reference {
        self.tag
            .clone()
            .map_or_else(|| Reference::Digest(digest.clone()), Reference::Tag)
    }

    /// What it is called for people; `digest` is what it is to hold.
    pub(super) fn place(&self, digest: &Digest) -> String {
        Place::image(self.registry.as_str(), &self.repository, Some(&self.reference(digest))).to_string()
    }
}

/// Copies one image to all its destinations and records each job's end as it comes. Never fails: failures are in the ledger.
/// `left`: what counts the image for each destination until it has ended there; none where nobody counts.
pub(super) async fn copy_image(context: &RunContext, group: ImageGroup, left: Vec<ImageLeft>) {
    let mut left: Vec<Option<ImageLeft>> = left.into_iter().map(Some).collect();
    let source = group.source_place(context);
    // Side by side, as what waits for the disk at the same time waits only once.
    let starting = group.destinations.iter();
    let jobs = join_all(starting.map(|destination| start(context, &group, &source, destination))).await;
    let (tell, mut ends) = mpsc::unbounded_channel();
    let bringing = async {
        let tell = tell;
        let tell_end = |index, end| {
            // Whoever listens waits for us.
            let _ = tell.send((index, end));
        };
        tokio::select! {
            () = bring(context, &group, &jobs, &tell_end) => None,
            // What can be taken up again is recorded as it happens, so nothing is lost by dropping the rest.
            reason = context.control.wait_abort() => Some(reason),
        }
    };
    let recording = async {
        let mut open = jobs.clone();
        let mut told = Vec::new();
        // Beside the others, whose steps may hold the turn at the state that this waits for.
        while ends.recv_many(&mut told, jobs.len()).await > 0 {
            let finishing = told.drain(..).filter_map(|(index, end): (usize, End)| {
                drop(left.get_mut(index).and_then(Option::take));
                let job = open[index].take()?;
                Some(finish(context, &group, &source, &group.destinations[index], job, end))
            });
            join_all(finishing.collect::<Vec<_>>()).await;
        }
        open
    };
    let (stopped, open) = join(bringing, recording).await;
    let fault = stopped.map_or_else(Fault::untold, |reason| Fault::stopped(&reason));
    let finishing = group.destinations.iter().zip(open).filter_map(|(destination, job)| {
        let end = End::failed(fault.clone(), 1);
        Some(finish(context, &group, &source, destination, job?, end))
    });
    join_all(finishing.collect::<Vec<_>>()).await;
}

/// Records that a job starts and tells it; `None` where that failed.
async fn start(
    context: &RunContext,
    group: &ImageGroup,
    source: &str,
    destination: &GroupDestination,
) -> Option<JobId> {
    let reference = group.reference.to_string();
    let new = NewJob {
        run: context.run,
        source_registry: context.source.name(),
        source_repository: &group.repository,
        reference: &reference,
        destination_registry: destination.registry.as_str(),
        destination_repository: &destination.repository,
        digest: Some(&group.source),
        owner: &context.owner,
    };
    let place = destination.place(&group.source);
    match context.store.start_job(new, context.clock.now()).await {
        Ok(job) => {
            context.events.tell(Event::JobStarted {
                run: context.run,
                job,
                source: source.to_owned(),
                destination: place,
            });
            Some(job)
        }
        Err(error) => {
            fail_unrecorded(context, source, &place, destination, &Fault::from(error));
            None
        }
    }
}

/// Brings what was planned, and tells each destination's end as it comes. Its manifest may have been read before the tag moved on
/// and its blobs were deleted: then what the tag points to now is brought instead, once.
async fn bring(context: &RunContext, group: &ImageGroup, jobs: &[Option<JobId>], tell: &impl TellEnd) {
    let lost = Mutex::new(Vec::new());
    let tag = group.reference.tag();
    let first = |index, end: End| match tag.is_some() && end.lost_at_source() {
        true => lost.lock().unwrap_or_else(PoisonError::into_inner).push((index, end)),
        false => tell(index, end),
    };
    bring_planned(context, group, jobs, &first).await;
    let lost = lost.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (false, Some(tag)) = (lost.is_empty(), tag) else {
        return;
    };
    match head(&context.source, &group.repository, tag, Side::Source).await {
        Observation::Known(moved) if moved != group.source => {
            let again = ImageGroup {
                source: moved,
                destinations: lost
                    .iter()
                    .map(|(index, _)| group.destinations[*index].clone())
                    .collect(),
                ..group.clone()
            };
            let jobs: Vec<Option<JobId>> = lost.iter().map(|(index, _)| jobs[*index]).collect();
            bring_planned(context, &again, &jobs, &|place: usize, end| tell(lost[place].0, end)).await;
        }
        Observation::Absent => {
            for (index, _) in lost {
                tell(index, End::settled(JobOutcome::Gone, None));
            }
        }
        Observation::Known(_) | Observation::Unknown(_) => {
            for (index, end) in lost {
                tell(index, end);
            }
        }
    }
}

/// Hears how the job of a destination ended, by its place in the group.
trait TellEnd: Fn(usize, End) + Sync {}

impl<T: Fn(usize, End) + Sync> TellEnd for T {}

async fn bring_planned(context: &RunContext, group: &ImageGroup, jobs: &[Option<JobId>], tell: &impl TellEnd) {
    let (prepared, attempts) = prepare(context, group).await;
    let all = |end: &dyn Fn() -> End| (0..group.destinations.len()).for_each(|index| tell(index, end()));
    match prepared {
        Ok(Ok(prepared)) => copy_prepared(context, group, &prepared, jobs, tell).await,
        Ok(Err(NotCopied::Gone)) => all(&|| End::settled(JobOutcome::Gone, None)),
        Ok(Err(NotCopied::Skipped(available))) => {
            let available: Vec<String> = available.iter().map(ToString::to_string).collect();
            let message = skip_message(&available);
            all(&|| End::settled(JobOutcome::Skipped, Some(message.clone())));
        }
        Err(fault) => all(&|| End::failed(fault.clone(), attempts)),
    }
}

/// How a job ended.
struct End {
    outcome: JobOutcome,
    /// What the destination holds now.
    digest: Option<Digest>,
    /// Its attachments are there too.
    compared: bool,
    fault: Option<Fault>,
    /// For people, where nothing failed.
    message: Option<String>,
    attempts: u32,
    /// Bytes of blobs sent for it.
    bytes: u64,
}

impl End {
    fn settled(outcome: JobOutcome, message: Option<String>) -> Self {
        Self {
            outcome,
            digest: None,
            compared: false,
            fault: None,
            message,
            attempts: 1,
            bytes: 0,
        }
    }

    /// True where the source no longer has what the image is made of.
    fn lost_at_source(&self) -> bool {
        self.fault
            .as_ref()
            .is_some_and(|fault| fault.kind == ErrorKind::NotFound && fault.side == Some(Side::Source))
    }

    fn failed(fault: Fault, attempts: u32) -> Self {
        let outcome = match fault.kind {
            ErrorKind::Cancelled => JobOutcome::Interrupted,
            _ => JobOutcome::Failed,
        };
        Self {
            outcome,
            digest: None,
            compared: false,
            fault: Some(fault),
            message: None,
            attempts: attempts.max(1),
            bytes: 0,
        }
    }
}

async fn copy_prepared(
    context: &RunContext,
    group: &ImageGroup,
    prepared: &Prepared,
    jobs: &[Option<JobId>],
    tell: &impl TellEnd,
) {
    let root = &prepared.tree.root;
    if !prepared.missing_platforms.is_empty() {
        warn(
            context,
            format!(
                "{} has no image for {}",
                group.source_place(context),
                prepared.missing_platforms.join(", ")
            ),
        );
    }
    let targets: Vec<Target> = group
        .destinations
        .iter()
        .filter_map(|destination| {
            Some(Target {
                endpoint: context.destinations.get(&destination.registry)?.clone(),
                repository: destination.repository.clone(),
                absent: destination.reason == CopyReason::NewRepository,
                tag: destination.tag.clone(),
                previous: destination.previous.clone(),
            })
        })
        .collect();
    let before_tag = |index: usize| may_put(context, &targets[index], &group.destinations[index], root);
    let arrived = |index: usize, arrived: Arrived| {
        let (target, destination, job) = (&targets[index], &group.destinations[index], jobs[index]);
        async move {
            let Arrived {
                result,
                attempts,
                bytes,
                imported,
            } = arrived;
            let result = match result {
                Ok(()) => record_put(context, group, root, target, destination, job).await,
                failed => failed,
            };
            let mut end = match result {
                Ok(()) => attach(context, group, prepared, target, attempts).await,
                Err(fault) if fault.code.as_deref() == Some(KEPT) => {
                    End::settled(JobOutcome::Kept, Some(fault.message))
                }
                Err(fault) => End::failed(fault, attempts),
            };
            end.bytes = bytes;
            if imported && end.outcome == JobOutcome::Copied && end.message.is_none() {
                end.message = Some("the registry imported it by itself".to_owned());
            }
            tell(index, end);
        }
    };
    copy_tree(
        context,
        &group.repository,
        &prepared.tree,
        &targets,
        prepared.as_at_source,
        before_tag,
        arrived,
    )
    .await;
}

/// The image is there: see to its attachments, whose failure is a warning.
async fn attach(context: &RunContext, group: &ImageGroup, prepared: &Prepared, target: &Target, attempts: u32) -> End {
    let root = &prepared.tree.root;
    let faults = copy_attachments(
        context,
        &group.repository,
        &prepared.subjects,
        &group.attachments,
        target,
    )
    .await;
    let message = attachments_left(context, target, root, faults);
    End {
        outcome: JobOutcome::Copied,
        digest: Some(root.clone()),
        compared: message.is_none(),
        fault: None,
        message,
        attempts: attempts.max(1),
        bytes: 0,
    }
}

/// Attachments of one image that a warning names with what went wrong; the others are counted.
const FAULTS_TOLD: usize = 5;

/// Warns of attachments that failed, which are tried again in the next run; `None` where there are none.
fn attachments_left(context: &RunContext, target: &Target, subject: &Digest, faults: Vec<Fault>) -> Option<String> {
    if faults.is_empty() {
        return None;
    }
    let registry = target.endpoint.name();
    let what: Vec<&str> = faults
        .iter()
        .take(FAULTS_TOLD)
        .map(|fault| fault.message.as_str())
        .collect();
    let more = match faults.len() - what.len() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let message = format!(
        "attachments were not all copied, the next run tries again: {}{more}",
        what.join("; ")
    );
    warn(
        context,
        format!("{registry}/{}@{}: {message}", target.repository, subject),
    );
    Some(message)
}

/// Looks after the attachments of an image that is in step already.
pub(super) async fn refresh_attachments(context: &RunContext, group: &ImageGroup) {
    let prepared = match prepare(context, group).await.0 {
        Ok(Ok(prepared)) => prepared,
        // It is no longer wanted.
        Ok(Err(_)) => return,
        Err(fault) => {
            for target in targets(context, group) {
                attachments_left(context, &target, &group.source, vec![fault.clone()]);
            }
            return;
        }
    };
    let prepared = &prepared;
    let refreshing = targets(context, group).map(|target| refresh_at(context, group, prepared, target));
    join_all(refreshing).await;
}

/// Where the attachments of an image go that is there.
fn targets<'a>(context: &'a RunContext, group: &'a ImageGroup) -> impl Iterator<Item = Target> + 'a {
    group.destinations.iter().filter_map(|destination| {
        let endpoint = context.destinations.get(&destination.registry)?;
        Some(Target {
            endpoint: endpoint.clone(),
            repository: destination.repository.clone(),
            absent: false,
            tag: None,
            previous: None,
        })
    })
}

async fn refresh_at(context: &RunContext, group: &ImageGroup, prepared: &Prepared, target: Target) {
    let faults = copy_attachments(
        context,
        &group.repository,
        &prepared.subjects,
        &group.attachments,
        &target,
    )
    .await;
    let subject = &prepared.tree.root;
    if attachments_left(context, &target, subject, faults).is_some() {
        return;
    }
    let (registry, now) = (target.endpoint.name(), context.clock.now());
    let recorded = context
        .store
        .record_attachments_checked(registry, &target.repository, subject, now)
        .await;
    if let Err(error) = recorded {
        tracing::warn!("cannot remember that attachments were compared: {error}");
    }
}

/// Tells something that a person should know but that fails nothing, now and in the report.
pub(super) fn warn(context: &RunContext, message: String) {
    context.ledger.warning(message.clone());
    context.events.tell(Event::Warning {
        run: context.run,
        message,
    });
}

async fn finish(
    context: &RunContext,
    group: &ImageGroup,
    source: &str,
    destination: &GroupDestination,
    job: JobId,
    end: End,
) {
    let place = destination.place(&group.source);
    let wait = end.fault.as_ref();
    let wait = wait.and_then(|fault| deferral::instead_of(context, fault, destination.registry.as_str()));
    let outcome = if wait.is_some() {
        JobOutcome::Deferred
    } else {
        end.outcome
    };
    let fault = end.fault.as_ref().filter(|_| wait.is_none());
    // One that waits says nothing of how it would have ended.
    let next_attempt_at = match &wait {
        Some(_) => None,
        None => parking::settle(context, group, destination, fault, end.attempts).await,
    };
    let finished = FinishedJob {
        outcome,
        kind: fault.map(|fault| fault.kind),
        status: fault.and_then(|fault| fault.status),
        code: fault.and_then(|fault| fault.code.clone()),
        message: fault.map(|fault| fault.message.clone()).or_else(|| end.message.clone()),
        attempts: end.attempts,
        bytes_written: end.bytes,
        next_attempt_at,
    };
    let finished = match &wait {
        Some(wait) => deferral::finished(wait, end.attempts, end.bytes),
        None => finished,
    };
    deferral::settle(context, group, destination, wait.as_ref(), fault).await;
    // Stored before it is told.
    let compared = end.digest.as_ref().filter(|_| end.compared);
    let stored = context.store.finish_job(job, &finished, compared, context.clock.now());
    if let Err(error) = stored.await {
        let fault = Fault::from(error);
        context
            .ledger
            .place_failure(source.to_owned(), Some(place.clone()), &fault);
    }
    context.ledger.job(destination.registry.as_str(), outcome);
    if let Some(fault) = fault {
        let mut failure = Ledger::as_failure(source.to_owned(), Some(place.clone()), Some(job), fault, end.attempts);
        failure.digest = Some(group.source.clone());
        failure.next_attempt_at = next_attempt_at;
        context.ledger.failure(failure);
    } else {
        context.ledger.change(Change {
            source: source.to_owned(),
            destination: place.clone(),
            digest: end.digest.clone(),
            previous_digest: destination.previous.clone(),
            outcome,
        });
    }
    context.events.tell(Event::JobFinished {
        run: context.run,
        job: Some(job),
        source: source.to_owned(),
        destination: place,
        outcome,
        message: finished.message,
        bytes: end.bytes,
    });
}

fn fail_unrecorded(context: &RunContext, source: &str, place: &str, destination: &GroupDestination, fault: &Fault) {
    context.ledger.job(destination.registry.as_str(), JobOutcome::Failed);
    context
        .ledger
        .place_failure(source.to_owned(), Some(place.to_owned()), fault);
}
