//! Looking at one source repository and its destinations: the inventory that a plan is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{join, join_all};

use super::choice::{choose, remembered_choice};
use super::context::{Claims, RunContext};
use super::fault::Fault;
use super::manifests;
use super::metered;
use super::several::unordered;
use crate::oci::{AttachmentTag, Digest, Manifest, Reference, RepositoryName, Tag};
use crate::plan::{DestinationInventory, ErrorKind, Observation, RepositoryInventory, Unknown, WantedImage};
use crate::registry::{Endpoint, Side};
use crate::rules::{RepositoryRule, TagFilter};

/// Tags asked about at once in one repository. The registry's own limit is narrower; this only keeps it busy.
const TAGS_AT_ONCE: usize = 64;

/// A claim on a destination tag that was not renewed for this long is void: its rule was removed or changed.
const CLAIM_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A source repository that a rule matched.
#[derive(Clone, Debug)]
pub(super) struct MatchedRepository {
    pub(super) name: RepositoryName,
    /// True when the rule names it exactly.
    pub(super) named: bool,
    /// The entry of `repositories:` that matched.
    pub(super) entry: RepositoryRule,
    /// What the entry's wildcards matched.
    pub(super) captures: Vec<String>,
}

/// What was seen, and what was read on the way.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) inventory: RepositoryInventory,
    /// Attachment tags of the source, by what they belong to.
    pub(super) attachments: Attachments,
    /// Attachment tags of each destination, in the rule's order; `None` where its tags are not known.
    pub(super) destination_attachments: Vec<Option<BTreeSet<Tag>>>,
}

/// Attachment tags of a repository, by subject.
pub(super) type Attachments = BTreeMap<Digest, Vec<Tag>>;

/// The filter that holds for a matched repository.
pub(super) fn filter<'a>(context: &'a RunContext, matched: &'a MatchedRepository) -> &'a TagFilter {
    matched.entry.tags.as_ref().unwrap_or(&context.rule.tags)
}

pub(super) fn unknown(fault: Fault) -> Unknown {
    Unknown {
        kind: fault.kind,
        status: fault.status,
        code: fault.code,
        message: fault.message,
    }
}

fn observed<T>(result: Result<Option<T>, crate::registry::Error>) -> Observation<T> {
    match result {
        Ok(Some(value)) => Observation::Known(value),
        Ok(None) => Observation::Absent,
        Err(error) => Observation::Unknown(unknown(error.into())),
    }
}

/// Looks at both sides. Never fails: what could not be seen is in the inventory as unknown.
pub(super) async fn observe(context: &RunContext, matched: &MatchedRepository) -> Observed {
    let source = &context.source;
    let listing = async { observed(source.list_tags(&matched.name).await.map_err(|e| e.on(Side::Source))) };
    let (listed, mut destinations) = join(listing, list_destinations(context, matched)).await;
    let mut attachments = Attachments::new();
    let selected = match &listed {
        Observation::Known(tags) => {
            for tag in tags {
                if let Some(attachment) = AttachmentTag::parse(tag) {
                    attachments.entry(attachment.subject).or_default().push(tag.clone());
                }
            }
            filter(context, matched).select(tags.iter().cloned()).selected
        }
        Observation::Absent | Observation::Unknown(_) => Vec::new(),
    };
    let destination_attachments = destinations
        .iter()
        .map(|destination| match &destination.listed {
            Observation::Known(tags) => Some(
                tags.iter()
                    .filter(|tag| AttachmentTag::parse(tag).is_some())
                    .cloned()
                    .collect(),
            ),
            Observation::Absent => Some(BTreeSet::new()),
            Observation::Unknown(_) => None,
        })
        .collect();
    claim(context, matched, &selected, &mut destinations).await;
    let lacking = to_read(context, matched, &selected, &destinations).await;
    let looking = join_all(
        destinations
            .iter_mut()
            .map(|destination| look(context, &selected, destination)),
    );
    let resolving = async {
        let each_tag = selected.iter().map(|tag| async {
            let wanted = resolve(context, &matched.name, tag, lacking.contains(tag)).await;
            (tag.clone(), wanted)
        });
        let resolved: BTreeMap<Tag, Observation<WantedImage>> = unordered(each_tag, TAGS_AT_ONCE).collect().await;
        // Once for all tags, before the first is copied: a process that is killed then need not read them again.
        context.manifests.flush().await;
        resolved
    };
    let (wanted, _) = join(resolving, looking).await;
    Observed {
        inventory: RepositoryInventory {
            registry: context.rule.source.clone(),
            repository: matched.name.clone(),
            named: matched.named,
            listed,
            wanted,
            destinations,
        },
        attachments,
        destination_attachments,
    }
}

/// Tags to read at once instead of asking what they point to: some destination lacks them, so that their manifest will be
/// needed, and it was not read before.
async fn to_read(
    context: &RunContext,
    matched: &MatchedRepository,
    selected: &[Tag],
    destinations: &[DestinationInventory],
) -> BTreeSet<Tag> {
    // Where reading is counted, asking is free.
    if context.source.is_metered() {
        return BTreeSet::new();
    }
    let lacks = |tag: &Tag| {
        destinations
            .iter()
            .any(|d| !matches!(&d.listed, Observation::Known(tags) if tags.contains(tag)))
    };
    let lacking: Vec<Tag> = selected.iter().filter(|tag| lacks(tag)).cloned().collect();
    let read_before = context
        .manifests
        .tags_read_before(&context.source, &matched.name, &lacking)
        .await;
    lacking.into_iter().filter(|tag| !read_before.contains(tag)).collect()
}

/// Lists each destination repository. One whose name cannot be made is unknown with that message.
async fn list_destinations(context: &RunContext, matched: &MatchedRepository) -> Vec<DestinationInventory> {
    let listing = context.rule.destinations.iter().filter_map(|destination| {
        let endpoint = context.destinations.get(&destination.registry)?;
        Some(async move {
            let template = destination.to.as_ref().or(matched.entry.to.as_ref());
            let name = match template {
                Some(template) => template.expand(&matched.name, &matched.captures),
                None => Ok(matched.name.clone()),
            };
            let (repository, listed) = match name {
                Ok(repository) => {
                    let tags = endpoint
                        .list_tags(&repository)
                        .await
                        .map_err(|e| e.on(Side::Destination));
                    (
                        repository,
                        observed(tags.map(|tags| tags.map(|tags| tags.into_iter().collect()))),
                    )
                }
                Err(error) => {
                    let message = format!("`to` makes no repository name of {}: {error}", matched.name);
                    let unknown = Unknown::new(ErrorKind::Config, message);
                    (matched.name.clone(), Observation::Unknown(unknown))
                }
            };
            DestinationInventory {
                registry: destination.registry.clone(),
                repository,
                listed,
                digests: BTreeMap::new(),
                written: BTreeMap::new(),
                claimed: BTreeMap::new(),
            }
        })
    });
    join_all(listing).await
}

/// Claims the destination tags for this source, so that two sources do not write the same tag in turn.
async fn claim(
    context: &RunContext,
    matched: &MatchedRepository,
    selected: &[Tag],
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
                    .claim_tags(registry, repository, selected, rule, &source, now, since)
                    .await
            }
            Claims::Look => store.claimed_tags(registry, repository, selected, &source, since).await,
            Claims::Ignore => Ok(BTreeMap::new()),
        };
        match claims {
            Ok(claimed) => destination.claimed = claimed,
            Err(error) => destination.listed = Observation::Unknown(unknown(error.into())),
        }
    }
}

/// Looks up what a destination's tags point to, for the selected tags that it lists.
async fn look(context: &RunContext, selected: &[Tag], destination: &mut DestinationInventory) {
    let Observation::Known(listed) = &destination.listed else {
        return;
    };
    let Some(endpoint) = context.destinations.get(&destination.registry) else {
        return;
    };
    let repository = &destination.repository;
    let common: Vec<Tag> = selected.iter().filter(|tag| listed.contains(tag)).cloned().collect();
    if common.is_empty() {
        return;
    }
    match context.store.written(destination.registry.as_str(), repository).await {
        Ok(written) => destination.written = written,
        Err(error) => {
            destination.listed = Observation::Unknown(unknown(error.into()));
            return;
        }
    }
    let each_tag = common.into_iter().map(|tag| async move {
        let digest = head(endpoint, repository, &tag, Side::Destination).await;
        (tag, digest)
    });
    destination.digests = unordered(each_tag, TAGS_AT_ONCE).collect().await;
}

/// What a tag points to.
pub(super) async fn head(
    endpoint: &Endpoint,
    repository: &RepositoryName,
    tag: &Tag,
    side: Side,
) -> Observation<Digest> {
    let found = endpoint.head_manifest(repository, &Reference::Tag(tag.clone())).await;
    observed(
        found
            .map(|head| head.map(|head| head.digest))
            .map_err(|error| error.on(side)),
    )
}

/// What the destinations of a source tag should hold. `read`: the manifest will be needed, so it is read at once.
pub(super) async fn resolve(
    context: &RunContext,
    repository: &RepositoryName,
    tag: &Tag,
    read: bool,
) -> Observation<WantedImage> {
    if !read {
        let source = match head(&context.source, repository, tag, Side::Source).await {
            Observation::Known(digest) => digest,
            Observation::Absent => return Observation::Absent,
            Observation::Unknown(unknown) => return Observation::Unknown(unknown),
        };
        match remembered_choice(context, &source).await {
            Ok(Some(wanted)) => return Observation::Known(wanted),
            Ok(None) => {}
            Err(fault) => return Observation::Unknown(unknown(fault)),
        }
        // Which platforms it has is seen when its turn comes to be read.
        if metered::is_planned(context)
            && !manifests::is_kept(&context.manifests, &context.source, repository, &source).await
        {
            let digest = Ok(source.clone());
            return Observation::Known(WantedImage {
                source,
                digest,
                missing_platforms: Vec::new(),
            });
        }
        // Its platforms are judged by its manifest, which may have been read before.
        match manifests::read(&context.manifests, &context.source, repository, &source).await {
            Ok(Some(manifest)) => return judged(context, repository, &manifest).await,
            // The tag has moved on meanwhile.
            Ok(None) => {}
            Err(fault) => return Observation::Unknown(unknown(fault)),
        }
    }
    resolve_by_reading(context, repository, &Reference::Tag(tag.clone())).await
}

/// As [`resolve`], for an image that is named by digest.
pub(super) async fn resolve_digest(
    context: &RunContext,
    repository: &RepositoryName,
    digest: &Digest,
) -> Observation<WantedImage> {
    resolve_by_reading(context, repository, &Reference::Digest(digest.clone())).await
}

async fn resolve_by_reading(
    context: &RunContext,
    repository: &RepositoryName,
    reference: &Reference,
) -> Observation<WantedImage> {
    let manifest = context
        .source
        .get_manifest(repository, reference)
        .await
        .map_err(|error| error.on(Side::Source));
    let manifest = match observed(manifest) {
        Observation::Known(manifest) => manifest,
        Observation::Absent => return Observation::Absent,
        Observation::Unknown(unknown) => return Observation::Unknown(unknown),
    };
    let tag = reference.tag();
    context
        .manifests
        .keep(&context.source, repository, tag, &manifest)
        .await;
    judged(context, repository, &manifest).await
}

/// What the rule's platforms make of a manifest.
async fn judged(context: &RunContext, repository: &RepositoryName, manifest: &Manifest) -> Observation<WantedImage> {
    // The platform of a plain image stands in its config, which need not be read at every run.
    let wanted = match remembered_choice(context, manifest.digest()).await {
        Ok(Some(wanted)) => Ok(wanted),
        Ok(None) => choose(context, repository, manifest).await.map(|(wanted, _)| wanted),
        Err(fault) => Err(fault),
    };
    match wanted {
        Ok(wanted) => Observation::Known(wanted),
        Err(fault) => Observation::Unknown(unknown(fault)),
    }
}
