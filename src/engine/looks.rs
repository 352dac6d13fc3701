//! What tags point to at both sides: asked of the ends where it is not known well enough.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;

use futures_util::StreamExt;

use super::context::{Claims, RunContext};
use super::latecomers::Ends;
use super::listings::{self, Listing};
use super::observe::{observed, unknown};
use super::resolve::{resolve, resolve_found};
use super::several::one_by_one;
use super::silent::{Patience, ask_all, question};
use crate::oci::{Digest, Reference, RepositoryName, Tag};
use crate::plan::{DestinationInventory, Observation, RepositoryInventory, WantedImage, needs_look};
use crate::registry::{Answers, Endpoint, HeadManifest, Side};
use crate::rules::RegistryName;
use crate::store::StoreError;

/// Tags asked about at once in one repository. The registry's own limit is narrower; this only keeps it busy.
const TAGS_AT_ONCE: usize = 64;

/// How a source tag is looked at first.
enum FirstLook {
    /// Its manifest will be needed, so it is read at once.
    Read,
    /// A listing says what it points to.
    Known(Digest),
    /// It has been.
    Seen(Observation<HeadManifest>),
    Ask,
}

/// Tags and what looks at them gave.
pub(super) type Looks = BTreeMap<Tag, Observation<HeadManifest>>;

/// What is known of one destination.
struct Seen<'l> {
    inventory: DestinationInventory,
    listing: Option<&'l Listing>,
    believed: BTreeMap<Tag, Digest>,
    looks: Looks,
}

/// Completes the inventory of these tags. `source` and `listings`: what the listings say, where they say something. Gives the
/// destinations that said nothing; the inventory is not about them any more.
pub(super) async fn look_at_tags(
    context: &RunContext,
    source: Option<&Listing>,
    listings: &BTreeMap<&RegistryName, &Listing>,
    inventory: &mut RepositoryInventory,
    tags: &[Tag],
    patience: Patience<'_>,
) -> Ends {
    let repository = inventory.repository.clone();
    let to_read = to_read(context, &repository, tags, &inventory.destinations).await;
    let asked = tags.iter().filter(|tag| !to_read.contains(*tag));
    let samples = prove(
        context,
        &repository,
        &context.source,
        &repository,
        source,
        asked,
        Side::Source,
    )
    .await;
    let believed = source.map(|listing| listing.believed(&samples)).unwrap_or_default();
    let known = |tag: &Tag| believed.get(tag).copied();
    let resolving = async {
        let each_tag = tags.iter().cloned().map(|tag| {
            let first = match (samples.get(&tag), known(&tag)) {
                _ if to_read.contains(&tag) => FirstLook::Read,
                (Some(look), _) => FirstLook::Seen(look.clone()),
                (None, Some(digest)) => FirstLook::Known(digest.clone()),
                (None, None) => FirstLook::Ask,
            };
            (tag, first)
        });
        let repository = &repository;
        let looked = one_by_one(each_tag.collect::<Vec<_>>(), |(tag, first)| async move {
            let (look, wanted) = match first {
                FirstLook::Read => {
                    let wanted = resolve(context, repository, &tag).await;
                    (read(context, repository, &wanted), wanted)
                }
                FirstLook::Seen(look) => {
                    let wanted = resolve_look(context, repository, &tag, &look).await;
                    (Some(look), wanted)
                }
                FirstLook::Known(digest) => (None, resolve_found(context, repository, &tag, &digest).await),
                FirstLook::Ask => look_at_source(context, repository, &tag).await,
            };
            (tag, look, wanted)
        });
        let resolved: Vec<_> = looked.buffer_unordered(TAGS_AT_ONCE).collect().await;
        // Once for all tags, before the first is copied: a process that is killed then need not read them again.
        context.manifests.flush().await;
        resolved
    };
    let mut silent = Ends::new();
    let ends = std::mem::take(&mut inventory.destinations);
    let of_source = &repository;
    let looking = ends.iter().map(|destination| {
        let listing = listings.get(&destination.registry).copied();
        let answers = Answers::default();
        let counting = answers.clone();
        let asking = async move { counting.to(look(context, of_source, destination, listing, tags)).await };
        question(context, &destination.registry, patience, answers, asking, Result::is_ok)
    });
    let (resolved, looked) = ask_all(resolving, looking.collect()).await;

    let mut source_looks = Looks::new();
    for (tag, look, wanted) in resolved {
        if let Some(look) = look {
            source_looks.insert(tag.clone(), look);
        }
        inventory.wanted.insert(tag, wanted);
    }
    let mut seen = Vec::with_capacity(ends.len());
    for (mut destination, looked) in ends.into_iter().zip(looked) {
        let looked = match looked {
            None => {
                silent.insert(destination.registry);
                continue;
            }
            Some(Ok(looked)) => looked,
            Some(Err(error)) => {
                destination.listed = Observation::Unknown(unknown(error.into()));
                Looked::default()
            }
        };
        destination.written = looked.written;
        destination.digests = digests(&looked.looks);
        let known = looked.believed.iter();
        destination
            .digests
            .extend(known.map(|(tag, digest)| (tag.clone(), Observation::Known(digest.clone()))));
        destination.trusted = looked.remembered;
        seen.push(Seen {
            listing: listings.get(&destination.registry).copied(),
            inventory: destination,
            believed: looked.believed,
            looks: looked.looks,
        });
    }

    // What is about to be acted upon is looked at first: the source, as what it gives decides over all destinations.
    let doubtful: Vec<Tag> = tags
        .iter()
        .filter(|tag| known(tag).is_some() && !to_read.contains(*tag) && !samples.contains_key(*tag))
        .filter(|tag| !in_step_everywhere(inventory.wanted.get(*tag), &seen, tag))
        .cloned()
        .collect();
    let asked = &repository;
    let looked = one_by_one(doubtful, |tag| async move {
        let (look, wanted) = look_at_source(context, asked, &tag).await;
        (tag, look, wanted)
    });
    let again: Vec<_> = looked.buffer_unordered(TAGS_AT_ONCE).collect().await;
    for (tag, look, wanted) in again {
        source_looks.extend(look.map(|look| (tag.clone(), look)));
        inventory.wanted.insert(tag, wanted);
    }
    let wanted = &inventory.wanted;
    let looking = seen.iter().map(|seen| {
        let answers = Answers::default();
        let counting = answers.clone();
        let asking = async move { counting.to(look_again(context, seen, wanted)).await };
        question(context, &seen.inventory.registry, patience, answers, asking, |_| true)
    });
    let ((), looked) = ask_all(ready(()), looking.collect()).await;
    for (mut seen, again) in seen.into_iter().zip(looked) {
        let Some(again) = again else {
            silent.insert(seen.inventory.registry);
            continue;
        };
        let destination = &mut seen.inventory;
        destination.trusted.retain(|tag| !again.contains_key(tag));
        destination.digests.extend(digests(&again));
        seen.looks.extend(again);
        if let (Some(listing), Some(endpoint)) = (seen.listing, context.destinations.get(&destination.registry)) {
            listings::learn(context, endpoint, &destination.repository, listing, &seen.looks).await;
        }
        remember(context, destination, &seen.looks, wanted).await;
        inventory.destinations.push(seen.inventory);
    }
    if let Some(listing) = source {
        listings::learn(context, &context.source, &repository, listing, &source_looks).await;
    }
    silent
}

/// Tags to read at once instead of asking what they point to: some destination lacks them, so that their manifest will be
/// needed, and it was not read before.
async fn to_read(
    context: &RunContext,
    repository: &RepositoryName,
    tags: &[Tag],
    destinations: &[DestinationInventory],
) -> BTreeSet<Tag> {
    // Where reading is counted, asking is free.
    if context.source.is_metered() {
        return BTreeSet::new();
    }
    let lacks = |tag: &Tag| {
        destinations
            .iter()
            .any(|d| !matches!(&d.listed, Observation::Known(there) if there.contains(tag)))
    };
    let lacking: Vec<Tag> = tags.iter().filter(|tag| lacks(tag)).cloned().collect();
    let read_before = context
        .manifests
        .tags_read_before(&context.source, repository, &lacking)
        .await;
    lacking.into_iter().filter(|tag| !read_before.contains(tag)).collect()
}

async fn look_at_source(
    context: &RunContext,
    repository: &RepositoryName,
    tag: &Tag,
) -> (Option<Observation<HeadManifest>>, Observation<WantedImage>) {
    let look = look_at(&context.source, repository, tag, Side::Source).await;
    let wanted = resolve_look(context, repository, tag, &look).await;
    (Some(look), wanted)
}

async fn resolve_look(
    context: &RunContext,
    repository: &RepositoryName,
    tag: &Tag,
    look: &Observation<HeadManifest>,
) -> Observation<WantedImage> {
    match look {
        Observation::Known(found) => resolve_found(context, repository, tag, &found.digest).await,
        Observation::Absent => Observation::Absent,
        Observation::Unknown(unknown) => Observation::Unknown(unknown.clone()),
    }
}

/// What a source tag was seen to point to when its manifest was read, while that is remembered.
fn read(
    context: &RunContext,
    repository: &RepositoryName,
    wanted: &Observation<WantedImage>,
) -> Option<Observation<HeadManifest>> {
    let Observation::Known(WantedImage { source, .. }) = wanted else {
        return None;
    };
    let manifest = context.manifests.peek(&context.source, repository, source)?;
    Some(Observation::Known(HeadManifest {
        digest: source.clone(),
        media_type: Some(manifest.media_type().to_owned()),
        size: Some(manifest.bytes().len() as u64),
    }))
}

/// Looks at those tags first that show whether the others need a look: see [`listings::samples`]. `source`: the repository that these
/// images come from.
async fn prove(
    context: &RunContext,
    source: &RepositoryName,
    endpoint: &Endpoint,
    repository: &RepositoryName,
    listing: Option<&Listing>,
    tags: impl IntoIterator<Item = &Tag>,
    side: Side,
) -> Looks {
    let Some(listing) = listing else { return Looks::new() };
    let samples = listings::samples(context, source, listing, tags).await;
    look_at_all(endpoint, repository, samples, side).await
}

/// What is known of a destination's tags after a first look.
#[derive(Default)]
struct Looked {
    written: BTreeMap<Tag, BTreeSet<Digest>>,
    /// Not looked at, as a listing or our memory says what they point to.
    believed: BTreeMap<Tag, Digest>,
    /// Those of them of which memory says so.
    remembered: BTreeSet<Tag>,
    looks: Looks,
}

async fn look(
    context: &RunContext,
    source: &RepositoryName,
    destination: &DestinationInventory,
    listing: Option<&Listing>,
    tags: &[Tag],
) -> Result<Looked, StoreError> {
    let mut looked = Looked::default();
    let (Observation::Known(listed), Some(endpoint)) =
        (&destination.listed, context.destinations.get(&destination.registry))
    else {
        return Ok(looked);
    };
    let common: Vec<Tag> = tags.iter().filter(|tag| listed.contains(tag)).cloned().collect();
    if common.is_empty() {
        return Ok(looked);
    }
    let (registry, repository) = (destination.registry.as_str(), &destination.repository);
    looked.written = context.store.written_under(registry, repository, &common).await?;
    looked.looks = prove(
        context,
        source,
        endpoint,
        repository,
        listing,
        &common,
        Side::Destination,
    )
    .await;
    if let Some(listing) = listing {
        let believed = listing.believed(&looked.looks);
        let known = common.iter().filter(|tag| !looked.looks.contains_key(*tag));
        let known = known.filter_map(|tag| Some((tag.clone(), (*believed.get(tag)?).clone())));
        looked.believed.extend(known);
    }
    let trust = context.rule.trust_destination;
    if !trust.is_zero() {
        let now = context.clock.now();
        let unknown: Vec<Tag> = common
            .iter()
            .filter(|tag| !looked.believed.contains_key(*tag) && !looked.looks.contains_key(*tag))
            .cloned()
            .collect();
        let seen = context
            .store
            .seen_tags(registry, repository, &unknown, now - trust, now)
            .await?;
        looked.remembered.extend(seen.keys().cloned());
        looked.believed.extend(seen);
    }
    let rest = common
        .into_iter()
        .filter(|tag| !looked.believed.contains_key(tag) && !looked.looks.contains_key(tag))
        .collect();
    let rest = look_at_all(endpoint, repository, rest, Side::Destination).await;
    looked.looks.extend(rest);
    Ok(looked)
}

/// Keeps what destination tags were seen to point to, where the rule will go by that.
async fn remember(
    context: &RunContext,
    destination: &DestinationInventory,
    looks: &Looks,
    wanted: &BTreeMap<Tag, Observation<WantedImage>>,
) {
    if context.rule.trust_destination.is_zero() || context.claims != Claims::Make {
        return;
    }
    let in_step = looks.iter().filter_map(|(tag, look)| match (look, wanted.get(tag)) {
        (Observation::Known(look), Some(Observation::Known(wanted))) if wanted.digest.as_ref() == Ok(&look.digest) => {
            Some((tag.clone(), look.digest.clone()))
        }
        _ => None,
    });
    let in_step: Vec<(Tag, Digest)> = in_step.collect();
    let (registry, now) = (destination.registry.as_str(), context.clock.now());
    let recorded = context
        .store
        .record_seen_tags(registry, &destination.repository, &in_step, now)
        .await;
    if let Err(error) = recorded {
        tracing::warn!("cannot remember what tags point to: {error}");
    }
}

/// Looks at what a destination is believed to hold where that is about to be acted upon.
async fn look_again(context: &RunContext, seen: &Seen<'_>, wanted: &BTreeMap<Tag, Observation<WantedImage>>) -> Looks {
    let differ = seen.believed.iter();
    let differ = differ.filter(|(tag, digest)| needs_look(digest, wanted.get(*tag)));
    let differ: Vec<Tag> = differ.map(|(tag, _)| tag.clone()).collect();
    let destination = &seen.inventory;
    match context.destinations.get(&destination.registry) {
        Some(endpoint) => look_at_all(endpoint, &destination.repository, differ, Side::Destination).await,
        None => Looks::new(),
    }
}

/// True where every destination that could be listed is known to hold what is wanted.
fn in_step_everywhere(wanted: Option<&Observation<WantedImage>>, seen: &[Seen<'_>], tag: &Tag) -> bool {
    let Some(Observation::Known(WantedImage { digest: Ok(wanted), .. })) = wanted else {
        return false;
    };
    let in_step = |seen: &Seen<'_>| {
        let destination = &seen.inventory;
        matches!(destination.listed, Observation::Unknown(_))
            || matches!(destination.digests.get(tag), Some(Observation::Known(held)) if held == wanted)
    };
    seen.iter().all(in_step)
}

fn digests(looks: &Looks) -> BTreeMap<Tag, Observation<Digest>> {
    let digest = |look: &Observation<HeadManifest>| match look {
        Observation::Known(found) => Observation::Known(found.digest.clone()),
        Observation::Absent => Observation::Absent,
        Observation::Unknown(unknown) => Observation::Unknown(unknown.clone()),
    };
    looks.iter().map(|(tag, look)| (tag.clone(), digest(look))).collect()
}

async fn look_at_all(endpoint: &Endpoint, repository: &RepositoryName, tags: Vec<Tag>, side: Side) -> Looks {
    let looked = one_by_one(tags, |tag| async move {
        let look = look_at(endpoint, repository, &tag, side).await;
        (tag, look)
    });
    looked.buffer_unordered(TAGS_AT_ONCE).collect().await
}

async fn look_at(endpoint: &Endpoint, repository: &RepositoryName, tag: &Tag, side: Side) -> Observation<HeadManifest> {
    let found = endpoint.head_manifest(repository, &Reference::Tag(tag.clone())).await;
    observed(found.map_err(|error| error.on(side)))
}

/// What a tag points to.
pub(super) async fn head(
    endpoint: &Endpoint,
    repository: &RepositoryName,
    tag: &Tag,
    side: Side,
) -> Observation<Digest> {
    match look_at(endpoint, repository, tag, side).await {
        Observation::Known(found) => Observation::Known(found.digest),
        Observation::Absent => Observation::Absent,
        Observation::Unknown(unknown) => Observation::Unknown(unknown),
    }
}
