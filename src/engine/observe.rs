//! Looking at one source repository and its destinations: the inventory that a plan is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

use super::context::{Claims, RunContext};
use super::fault::Fault;
use super::latecomers::Ends;
use super::listings::{Listing, list};
use super::looks::look_at_tags;
use super::silent::{Patience, ask_all, question};
use crate::oci::{AttachmentTag, Digest, RepositoryName, Tag};
use crate::plan::{DestinationInventory, ErrorKind, Observation, RepositoryInventory, Unknown};
use crate::registry::{Answers, Endpoint, Side};
use crate::rules::{Destination, MatchedRepository, RegistryName, TagFilter};

/// Selected tags that are looked at and planned together. Some megabytes of memory.
const PART: usize = 2_500;

/// The first of them where some are to be copied, so that copying begins soon.
const FIRST_PART: usize = 100;

/// A claim on a destination tag that was not renewed for this long is void: its rule was removed or changed.
const CLAIM_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Both sides of a repository as their listings have them, before any tag is looked at.
#[derive(Debug)]
pub(super) struct Listed {
    source: Observation<Listing>,
    /// Tags of the source, attachments not counted.
    pub(super) tags_listed: usize,
    /// In the order of their names.
    pub(super) selected: Arc<[Tag]>,
    destinations: Vec<ListedDestination>,
    attachments: Arc<Attachments>,
    destination_attachments: Arc<AttachmentTags>,
}

/// Attachment tags of each destination; `None` where its tags are not known.
type AttachmentTags = BTreeMap<RegistryName, Option<BTreeSet<Tag>>>;

#[derive(Debug)]
struct ListedDestination {
    registry: RegistryName,
    repository: RepositoryName,
    listing: Observation<Listing>,
    tags: BTreeSet<Tag>,
}

/// What was seen of some selected tags of a repository, and what was read on the way.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) inventory: RepositoryInventory,
    /// Attachment tags of the source, by what they belong to.
    pub(super) attachments: Arc<Attachments>,
    pub(super) destination_attachments: Arc<AttachmentTags>,
    /// All selected tags, of which this is about a part.
    selected: Arc<[Tag]>,
    /// True for the first part.
    first: bool,
}

impl Observed {
    /// True where what is known of a destination's tag is to be judged by this part: it is of the part, or it is selected no
    /// longer and this is the first part.
    pub(super) fn is_about(&self, tag: &Tag) -> bool {
        self.inventory.wanted.contains_key(tag) || (self.first && !self.selected.contains(tag))
    }
}

/// Attachment tags of a repository, by subject.
pub(super) type Attachments = BTreeMap<Digest, Vec<Tag>>;

/// The filter that holds for a matched repository.
pub(super) fn filter<'a>(context: &'a RunContext, matched: &'a MatchedRepository) -> &'a TagFilter {
    matched.entry.tags.as_ref().unwrap_or(&context.rule.tags)
}

pub(super) fn unknown(fault: Fault) -> Unknown {
    fault.into()
}

pub(super) fn observed<T>(result: Result<Option<T>, crate::registry::Error>) -> Observation<T> {
    match result {
        Ok(Some(value)) => Observation::Known(value),
        Ok(None) => Observation::Absent,
        Err(error) => Observation::Unknown(unknown(error.into())),
    }
}

/// The list of a destination's repository, on its way; given up when dropped.
#[derive(Debug)]
pub(super) struct Awaited {
    /// One task.
    listing: JoinSet<ListedDestination>,
    answers: Answers,
}

/// What is known of the list of a destination's repository before it is waited for.
#[derive(Debug)]
pub(super) enum Earlier {
    Awaited(Awaited),
    /// It is not asked for, as others failed.
    Failed(Unknown),
}

/// Lists the source and these destinations. Never fails: what could not be listed is unknown. Gives the destinations, too, that
/// said nothing and are left out, with their lists, which may still come. `earlier`: of one of them.
pub(super) async fn list_both(
    context: &RunContext,
    matched: &Arc<MatchedRepository>,
    ends: &Ends,
    patience: Patience<'_>,
    earlier: Option<(RegistryName, Earlier)>,
) -> (Listed, BTreeMap<RegistryName, Awaited>) {
    let listing = list(context, &context.source, &matched.name, Side::Source);
    let wanted = context.rule.destinations.iter().filter_map(|destination| {
        let endpoint = context.destinations.get(&destination.registry)?;
        ends.contains(&destination.registry).then_some((destination, endpoint))
    });
    let mut earlier = BTreeMap::from_iter(earlier);
    let mut lists: Vec<(&Destination, Awaited)> = Vec::new();
    for (destination, endpoint) in wanted {
        let list = match earlier.remove(&destination.registry) {
            Some(Earlier::Awaited(list)) => list,
            Some(Earlier::Failed(why)) => begin_list(context, matched, destination, endpoint, Some(why)),
            None => begin_list(context, matched, destination, endpoint, None),
        };
        lists.push((destination, list));
    }
    let questions = lists.iter_mut().map(|(destination, Awaited { listing, answers })| {
        let is_known = |listed: &Option<Result<ListedDestination, JoinError>>| {
            let listed = listed.as_ref().and_then(|listed| listed.as_ref().ok());
            listed.is_some_and(|listed| !matches!(listed.listing, Observation::Unknown(_)))
        };
        let (registry, answers) = (&destination.registry, answers.clone());
        question(context, registry, patience, answers, listing.join_next(), is_known)
    });
    let (source, listed) = ask_all(listing, questions.collect()).await;
    let (mut destinations, mut silent) = (Vec::new(), BTreeMap::new());
    for ((destination, list), listed) in lists.into_iter().zip(listed) {
        match listed {
            Some(Some(Ok(listed))) => destinations.push(listed),
            None => {
                silent.insert(destination.registry.clone(), list);
            }
            // Its task has panicked.
            Some(_) => destinations.push(ListedDestination {
                registry: destination.registry.clone(),
                repository: matched.name.clone(),
                listing: Observation::Unknown(Unknown::new(
                    ErrorKind::Local,
                    "the list ended by a fault in transship itself",
                )),
                tags: BTreeSet::new(),
            }),
        }
    }
    let mut attachments = Attachments::new();
    let mut tags_listed = 0;
    let selected = match &source {
        Observation::Known(listing) => {
            for tag in &listing.tags {
                if let Some(attachment) = AttachmentTag::parse(tag) {
                    attachments.entry(attachment.subject).or_default().push(tag.clone());
                }
            }
            let chosen = filter(context, matched).select(listing.tags.iter().cloned());
            tags_listed = chosen.selected.len() + chosen.excluded.len();
            chosen.selected
        }
        Observation::Absent | Observation::Unknown(_) => Vec::new(),
    };
    let destination_attachments = destinations.iter().map(|destination| {
        let tags = match &destination.listing {
            Observation::Unknown(_) => None,
            _ => {
                let tags = destination.tags.iter();
                Some(
                    tags.filter(|tag| AttachmentTag::parse(tag).is_some())
                        .cloned()
                        .collect(),
                )
            }
        };
        (destination.registry.clone(), tags)
    });
    let listed = Listed {
        destination_attachments: Arc::new(destination_attachments.collect()),
        source,
        tags_listed,
        selected: selected.into(),
        destinations,
        attachments: Arc::new(attachments),
    };
    (listed, silent)
}

impl Listed {
    /// True where the source has been listed.
    pub(super) fn is_known(&self) -> bool {
        matches!(self.source, Observation::Known(_))
    }

    /// Why a destination could not be listed.
    pub(super) fn failure_at(&self, registry: &RegistryName) -> Option<&Unknown> {
        let destination = self.destinations.iter().find(|end| end.registry == *registry)?;
        match &destination.listing {
            Observation::Unknown(why) => Some(why),
            Observation::Known(_) | Observation::Absent => None,
        }
    }

    /// The selected tags that follow `after` in parts, as places among all of them: memory is for one part at a time, and
    /// copying begins with the first. At least one where it is about all tags, or nothing is known of them.
    pub(super) fn parts(&self, after: Option<&Tag>) -> Vec<Range<usize>> {
        let start = after.map_or(0, |after| self.selected.partition_point(|tag| tag <= after));
        let selected = &self.selected[start..];
        let lacking = |destination: &ListedDestination| selected.iter().any(|tag| !destination.tags.contains(tag));
        let first = match self.destinations.iter().any(lacking) {
            true => FIRST_PART.min(selected.len()),
            false => 0,
        };
        let (all, rest) = (self.selected.len(), start + first);
        let mut parts = Vec::new();
        if first > 0 || (selected.is_empty() && (after.is_none() || !self.is_known())) {
            parts.push(start..rest);
        }
        parts.extend((rest..all).step_by(PART).map(|start| start..all.min(start + PART)));
        parts
    }

    /// From now on it is about the other destinations.
    pub(super) fn leave_out(&mut self, ends: &Ends) {
        self.destinations
            .retain(|destination| !ends.contains(&destination.registry));
    }

    /// What is known of these tags from the listings alone.
    fn inventory(&self, context: &RunContext, matched: &MatchedRepository, tags: &[Tag]) -> RepositoryInventory {
        let destinations = self.destinations.iter().map(|destination| DestinationInventory {
            registry: destination.registry.clone(),
            repository: destination.repository.clone(),
            listed: match &destination.listing {
                Observation::Known(_) => {
                    let there = tags.iter().filter(|tag| destination.tags.contains(tag));
                    Observation::Known(there.cloned().collect())
                }
                Observation::Absent => Observation::Absent,
                Observation::Unknown(unknown) => Observation::Unknown(unknown.clone()),
            },
            digests: BTreeMap::new(),
            trusted: BTreeSet::new(),
            written: BTreeMap::new(),
            claimed: BTreeMap::new(),
        });
        RepositoryInventory {
            registry: context.rule.source.clone(),
            repository: matched.name.clone(),
            named: matched.named,
            listed: match &self.source {
                Observation::Known(_) => Observation::Known(tags.to_vec()),
                Observation::Absent => Observation::Absent,
                Observation::Unknown(unknown) => Observation::Unknown(unknown.clone()),
            },
            wanted: BTreeMap::new(),
            destinations: destinations.collect(),
        }
    }
}

fn known(listing: &Observation<Listing>) -> Option<&Listing> {
    match listing {
        Observation::Known(listing) => Some(listing),
        Observation::Absent | Observation::Unknown(_) => None,
    }
}

/// Looks at all selected tags.
pub(super) async fn observe(context: &RunContext, matched: &Arc<MatchedRepository>) -> Observed {
    let ends = context.destinations.keys().cloned().collect();
    let (listed, _) = list_both(context, matched, &ends, Patience::Endless, None).await;
    let look = |part: Range<usize>| observe_part(context, matched, &listed, part, Patience::Endless);
    let mut parts = listed.parts(None).into_iter();
    let (mut whole, _) = look(parts.next().unwrap_or_default()).await;
    for part in parts {
        let part = look(part).await.0.inventory;
        whole.inventory.wanted.extend(part.wanted);
        let both = whole.inventory.destinations.iter_mut().zip(part.destinations);
        for (whole, part) in both {
            whole.digests.extend(part.digests);
            whole.trusted.extend(part.trusted);
            whole.written.extend(part.written);
            whole.claimed.extend(part.claimed);
            match (&mut whole.listed, part.listed) {
                (Observation::Known(tags), Observation::Known(more)) => tags.extend(more),
                (Observation::Known(_), unknown @ Observation::Unknown(_)) => whole.listed = unknown,
                _ => {}
            }
        }
    }
    if let Observation::Known(listing) = listed.source {
        whole.inventory.listed = Observation::Known(listing.tags);
    }
    whole
}

/// Looks at some of the selected tags at both sides. Never fails: what could not be seen is in the inventory as unknown. Gives the
/// destinations, too, that said nothing and are left out.
pub(super) async fn observe_part(
    context: &RunContext,
    matched: &MatchedRepository,
    listed: &Listed,
    part: Range<usize>,
    patience: Patience<'_>,
) -> (Observed, Ends) {
    let first = part.start == 0;
    let tags = &listed.selected[part];
    let mut inventory = listed.inventory(context, matched, tags);
    claim(context, matched, tags, &mut inventory.destinations).await;
    let source = known(&listed.source);
    let listings = listed.destinations.iter();
    let listings = listings.filter_map(|end| Some((&end.registry, known(&end.listing)?)));
    let silent = look_at_tags(context, source, &listings.collect(), &mut inventory, tags, patience).await;
    let observed = Observed {
        inventory,
        attachments: Arc::clone(&listed.attachments),
        destination_attachments: Arc::clone(&listed.destination_attachments),
        selected: Arc::clone(&listed.selected),
        first,
    };
    (observed, silent)
}

/// Begins to list a destination repository, or to say `why` it is not listed. It goes on by itself, whoever waits for it.
fn begin_list(
    context: &RunContext,
    matched: &Arc<MatchedRepository>,
    destination: &Destination,
    endpoint: &Endpoint,
    why: Option<Unknown>,
) -> Awaited {
    let answers = Answers::default();
    let counting = answers.clone();
    let (context, matched) = (context.clone(), Arc::clone(matched));
    let (destination, endpoint) = (destination.clone(), endpoint.clone());
    let listing = async move {
        let listing = list_destination(&context, &matched, &destination, &endpoint, why);
        counting.to(listing).await
    };
    let mut task = JoinSet::new();
    task.spawn(listing);
    Awaited { listing: task, answers }
}

/// Lists a destination repository. One whose name cannot be made is unknown with that message.
async fn list_destination(
    context: &RunContext,
    matched: &MatchedRepository,
    destination: &Destination,
    endpoint: &Endpoint,
    why: Option<Unknown>,
) -> ListedDestination {
    let (repository, mut listing) = match (matched.name_at(destination), why) {
        (Ok(repository), Some(why)) => (repository, Observation::Unknown(why)),
        (Ok(repository), None) => {
            let listing = list(context, endpoint, &repository, Side::Destination).await;
            (repository, listing)
        }
        (Err(error), _) => {
            let message = format!("`to` makes no repository name of {}: {error}", matched.name);
            let unknown = Unknown::new(ErrorKind::Config, message);
            (matched.name.clone(), Observation::Unknown(unknown))
        }
    };
    let tags = match &mut listing {
        Observation::Known(listing) => std::mem::take(&mut listing.tags).into_iter().collect(),
        Observation::Absent | Observation::Unknown(_) => BTreeSet::new(),
    };
    ListedDestination {
        registry: destination.registry.clone(),
        repository,
        listing,
        tags,
    }
}

/// Claims the destination tags for this source, so that two sources do not write the same tag in turn.
async fn claim(
    context: &RunContext,
    matched: &MatchedRepository,
    tags: &[Tag],
    destinations: &mut [DestinationInventory],
) {
    let source = format!("{}/{}", context.rule.source, matched.name);
    let now = context.clock.now();
    for destination in destinations {
        let registry = destination.registry.as_str();
        let rule = context.rule.name.as_str();
        let (store, repository, since) = (&context.store, &destination.repository, now - CLAIM_LIFE);
        let claims = match context.claims {
            Claims::Make => {
                store
                    .claim_tags(registry, repository, tags, rule, &source, now, since)
                    .await
            }
            Claims::Look => store.claimed_tags(registry, repository, tags, &source, since).await,
            Claims::Ignore => Ok(BTreeMap::new()),
        };
        match claims {
            Ok(claimed) => destination.claimed = claimed,
            Err(error) => destination.listed = Observation::Unknown(unknown(error.into())),
        }
    }
}
