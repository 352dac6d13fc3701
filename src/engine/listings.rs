//! Listing one end's repository: its tags, and what the listing says of them that may be believed.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;

use super::context::RunContext;
use super::fault::Fault;
use super::learnt::ALL;
use super::looks::Looks;
use super::observe::observed;
use crate::oci::{Digest, RepositoryName, Tag, media_type};
use crate::plan::{Agreement, Observation};
use crate::registry::{BulkListing, Endpoint, Side};
use crate::store::{Capability, StoreError};

/// How long a listing's digests are believed after looks at tags agreed with them.
const AGREEMENT_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// In the last part of that life some tags are looked at again, so that it does not end with a look at every tag.
const RENEWED: Duration = Duration::from_secs(3 * 24 * 3600);

/// How long the listing of a repository is not believed after a look differed. It may have been a tag that moved just then; for the rest of
/// [`AGREEMENT_LIFE`] it has to prove itself, as others of the registry may be right where it is behind.
const DIFFERENCE_LIFE: Duration = Duration::from_secs(6 * 3600);

/// Names of the capabilities: that looks agreed with what lists said of indexes, and of other manifests. Of a repository, or of all
/// where they are listed alike.
pub(super) const INDEXES_AGREE: &str = "listed_index_digests_agree";
pub(super) const IMAGES_AGREE: &str = "listed_image_digests_agree";
/// That a look at a tag differed from what the list said of it, by repository.
pub(super) const DIFFERS: &str = "listed_digests_differ";

/// Tags of each shape that are looked at to prove a listing.
const SAMPLES: usize = 2;

/// The tags of a repository at one end.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) tags: Vec<Tag>,
    /// What the listing says that tags point to.
    digests: BTreeMap<Tag, Listed>,
    trust: Trust,
}

/// What a listing says of a tag.
#[derive(Debug)]
struct Listed {
    digest: Digest,
    /// `None` where it does not say.
    is_index: Option<bool>,
}

/// How far the digests of a listing are believed.
#[derive(Clone, Copy, Debug, Default)]
struct Trust {
    agreement: Agreement,
    /// The part of it that is to be proven again.
    due: Agreement,
    standing: Standing,
}

/// What looks may make of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    /// Nothing.
    #[default]
    Fixed,
    /// They may show again that it differs.
    Doubted,
    /// They prove it for this repository, of which a look differed lately.
    Alone,
    /// They prove it for all repositories that are listed alike.
    Shared,
}

impl Standing {
    fn may_grow(self) -> bool {
        matches!(self, Self::Alone | Self::Shared)
    }
}

impl Listing {
    fn of_tags(tags: Vec<Tag>) -> Self {
        Self {
            tags,
            digests: BTreeMap::new(),
            trust: Trust::default(),
        }
    }

    /// What `looks` at some of its tags make of it, with what was known before: what its tags point to, where that is believed.
    pub(super) fn believed(&self, looks: &Looks) -> BTreeMap<&Tag, &Digest> {
        let Some(seen) = self.compare(looks) else {
            return BTreeMap::new();
        };
        let agreement = match self.trust.standing.may_grow() {
            true => self.trust.agreement.and(seen),
            false => self.trust.agreement,
        };
        let believed = self.digests.iter();
        let believed = believed.filter(|(_, listed)| agreement.holds_for(listed.is_index));
        believed.map(|(tag, listed)| (tag, &listed.digest)).collect()
    }

    /// The shapes in which looks agreed; `None` where one differs.
    fn compare(&self, looks: &Looks) -> Option<Agreement> {
        Agreement::of_looks(looks.iter().filter_map(|(tag, look)| {
            let Observation::Known(look) = look else { return None };
            let is_index = look.media_type.as_deref().map(media_type::is_index)?;
            Some((&self.digests.get(tag)?.digest, &look.digest, is_index))
        }))
    }
}

/// Lists a repository, with digests where the end's listing has them.
pub(super) async fn list(
    context: &RunContext,
    endpoint: &Endpoint,
    repository: &RepositoryName,
    side: Side,
) -> Observation<Listing> {
    let (listed, comparable) = match endpoint.list_digests(repository).await {
        Ok(BulkListing::None) => {
            let tags = endpoint.list_tags(repository).await.map_err(|error| error.on(side));
            return observed(tags.map(|tags| tags.map(Listing::of_tags)));
        }
        Ok(BulkListing::Absent) => return Observation::Absent,
        Ok(BulkListing::Known { tags, comparable }) => (tags, comparable),
        Err(error) => return Observation::Unknown(Fault::from(error.on(side)).into()),
    };
    let trust = match comparable {
        true => Trust {
            agreement: Agreement::KNOWN,
            ..Trust::default()
        },
        // What memory says is what is in doubt, or is of another registry.
        false if context.looks_anew || context.moved.contains(endpoint.name()) => Trust::default(),
        false => match remembered(context, endpoint, repository).await {
            Ok(trust) => trust,
            Err(error) => return Observation::Unknown(Fault::from(error).into()),
        },
    };
    let mut listing = Listing {
        trust,
        ..Listing::of_tags(Vec::with_capacity(listed.len()))
    };
    for entry in listed {
        if let Some(digest) = entry.digest {
            let is_index = entry.media_type.as_deref().map(media_type::is_index);
            listing.digests.insert(entry.tag.clone(), Listed { digest, is_index });
        }
        listing.tags.push(entry.tag);
    }
    Observation::Known(listing)
}

/// Of which repositories it holds what looks at one of them showed.
fn scope<'a>(endpoint: &Endpoint, repository: &'a RepositoryName, standing: Standing) -> &'a str {
    match standing == Standing::Shared && endpoint.lists_alike() {
        true => ALL,
        false => repository.as_str(),
    }
}

async fn remembered(
    context: &RunContext,
    endpoint: &Endpoint,
    repository: &RepositoryName,
) -> Result<Trust, StoreError> {
    let now = context.clock.now();
    let registry = endpoint.name();
    let after = |time: Duration| now + SignedDuration::try_from(time).unwrap_or_default();
    let known = async |class: &str, name: &str, at| context.store.capability(registry, class, name, at).await;
    let differs = async |at| Ok::<_, StoreError>(known(repository.as_str(), DIFFERS, at).await?.is_some());
    let standing = match differs(now).await? {
        false => Standing::Shared,
        true if differs(after(AGREEMENT_LIFE - DIFFERENCE_LIFE)).await? => Standing::Doubted,
        true => Standing::Alone,
    };
    let mut trust = Trust {
        standing,
        ..Trust::default()
    };
    if !standing.may_grow() {
        return Ok(trust);
    }
    let scope = scope(endpoint, repository, standing);
    for (name, index) in [(INDEXES_AGREE, true), (IMAGES_AGREE, false)] {
        let holds = async |at| Ok::<_, StoreError>(known(scope, name, at).await?.is_some());
        let shape = Agreement { index, plain: !index };
        if holds(now).await? {
            trust.agreement = trust.agreement.and(shape);
            if !holds(after(RENEWED)).await? {
                trust.due = trust.due.and(shape);
            }
        }
    }
    Ok(trust)
}

/// Tags to be looked at before the others, so that these need no look where the listing proves right: of each shape that is not
/// proven (any more for long), as far as it is known which those are. `tags`: those that are of interest.
pub(super) async fn samples(
    context: &RunContext,
    source: &RepositoryName,
    listing: &Listing,
    tags: impl IntoIterator<Item = &Tag>,
) -> Vec<Tag> {
    let trust = listing.trust;
    let wanted = Agreement::KNOWN.beyond(trust.agreement.beyond(trust.due));
    if !trust.standing.may_grow() || wanted.is_empty() {
        return Vec::new();
    }
    let listed = tags
        .into_iter()
        .filter_map(|tag| Some((tag, listing.digests.get(tag)?)));
    let listed: Vec<(&Tag, &Listed)> = listed.collect();
    // All of them are looked at in any case.
    if !trust.agreement.holds_for(None) && listed.len() <= 2 * SAMPLES {
        return Vec::new();
    }
    let digests: Vec<&Digest> = listed.iter().map(|(_, listed)| &listed.digest).collect();
    let shapes = context.manifests.shapes(&context.source, source, &digests).await;
    let of_shape = |is_index: Option<bool>| {
        let shape = |listed: &Listed| listed.is_index.or_else(|| shapes.get(&listed.digest).copied());
        let meant = listed.iter().filter(move |(_, listed)| shape(listed) == is_index);
        meant.map(|(tag, _)| (*tag).clone()).take(SAMPLES).collect::<Vec<Tag>>()
    };
    let mut samples = Vec::new();
    let mut is_open = false;
    for (is_wanted, is_index) in [(wanted.index, true), (wanted.plain, false)] {
        if is_wanted {
            let known = of_shape(Some(is_index));
            is_open |= known.is_empty();
            samples.extend(known);
        }
    }
    if is_open {
        samples.extend(of_shape(None));
    }
    samples
}

/// Compares what a listing said with what looks at its tags gave, and keeps the verdict where it is news.
pub(super) async fn learn(
    context: &RunContext,
    endpoint: &Endpoint,
    repository: &RepositoryName,
    listing: &Listing,
    looks: &Looks,
) {
    let trust = listing.trust;
    if trust.standing == Standing::Fixed {
        return;
    }
    let (registry, scope) = (endpoint.name(), scope(endpoint, repository, trust.standing));
    let now = context.clock.now();
    let line = |class: &str, name: &str, evidence: &str, life: Duration| Capability {
        class: class.to_owned(),
        name: name.to_owned(),
        value: "yes".to_owned(),
        evidence: evidence.to_owned(),
        learnt: now,
        expires: now + SignedDuration::try_from(life).unwrap_or_default(),
    };
    let keep = async || -> Result<(), StoreError> {
        let Some(seen) = listing.compare(looks) else {
            for class in [scope, repository.as_str()] {
                for name in [INDEXES_AGREE, IMAGES_AGREE] {
                    context.store.forget_capability(registry, class, name).await?;
                }
            }
            let evidence = "a digest of the listing was not the tag's";
            let differs = line(repository.as_str(), DIFFERS, evidence, AGREEMENT_LIFE);
            return context.store.learn_all(registry, &[differs]).await;
        };
        if !trust.standing.may_grow() {
            return Ok(());
        }
        let news = seen.beyond(trust.agreement.beyond(trust.due));
        let evidence = "the listing's digests compared with those of the tags";
        let names = [(news.index, INDEXES_AGREE), (news.plain, IMAGES_AGREE)];
        let news = names.into_iter().filter(|(is_news, _)| *is_news);
        let news: Vec<Capability> = news
            .map(|(_, name)| line(scope, name, evidence, AGREEMENT_LIFE))
            .collect();
        context.store.learn_all(registry, &news).await
    };
    if let Err(error) = keep().await {
        tracing::warn!("cannot keep what was learnt of {registry}/{repository}: {error}");
    }
}
