//! Listing one end's repository: its tags, and what the listing says of them that may be believed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::context::RunContext;
use super::fault::Fault;
use super::observe::observed;
use crate::oci::{Digest, RepositoryName, Tag, media_type};
use crate::plan::{Agreement, Observation, Unknown};
use crate::registry::{BulkListing, Endpoint, HeadManifest, Side};

/// How long a listing's digests are believed after looks at tags agreed with them.
const AGREEMENT_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Name of the capability, by repository.
pub(super) const LISTED_DIGESTS_AGREE: &str = "listed_digests_agree";

/// The tags of a repository at one end.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) tags: Vec<Tag>,
    /// What tags point to, where the listing says so and is believed.
    pub(super) believed: BTreeMap<Tag, Digest>,
    /// What the listing says of the others, to be compared with looks at them.
    unproven: BTreeMap<Tag, Digest>,
    agreement: Agreement,
}

impl Listing {
    fn of_tags(tags: Vec<Tag>) -> Self {
        Self {
            tags,
            believed: BTreeMap::new(),
            unproven: BTreeMap::new(),
            agreement: Agreement::default(),
        }
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
    let agreement = match comparable {
        true => Agreement::KNOWN,
        false => match remembered(context, endpoint, repository).await {
            Ok(agreement) => agreement,
            Err(unknown) => return Observation::Unknown(unknown),
        },
    };
    let mut listing = Listing {
        agreement,
        ..Listing::of_tags(Vec::with_capacity(listed.len()))
    };
    for entry in listed {
        if let Some(digest) = entry.digest {
            let is_index = entry.media_type.as_deref().map(media_type::is_index);
            let digests = match agreement.holds_for(is_index) {
                true => &mut listing.believed,
                false => &mut listing.unproven,
            };
            digests.insert(entry.tag.clone(), digest);
        }
        listing.tags.push(entry.tag);
    }
    Observation::Known(listing)
}

async fn remembered(
    context: &RunContext,
    endpoint: &Endpoint,
    repository: &RepositoryName,
) -> Result<Agreement, Unknown> {
    if context.moved.contains(endpoint.name()) {
        return Ok(Agreement::default());
    }
    let now = context.clock.now();
    let known = context
        .store
        .capability(endpoint.name(), repository.as_str(), LISTED_DIGESTS_AGREE, now)
        .await
        .map_err(Fault::from)?;
    Ok(known.map_or_else(Agreement::default, |text| Agreement::from_text(&text)))
}

/// Compares what a listing said with what looks at its tags gave, and keeps the verdict where it is news.
pub(super) async fn learn(
    context: &RunContext,
    endpoint: &Endpoint,
    repository: &RepositoryName,
    listing: &Listing,
    looks: &BTreeMap<Tag, Observation<HeadManifest>>,
) {
    let compared = looks.iter().filter_map(|(tag, look)| {
        let Observation::Known(look) = look else { return None };
        let is_index = look.media_type.as_deref().map(media_type::is_index)?;
        let listed = listing.unproven.get(tag).or_else(|| listing.believed.get(tag))?;
        Some((listed, &look.digest, is_index))
    });
    let agreement = listing.agreement.after(compared);
    if agreement == listing.agreement {
        return;
    }
    let now = context.clock.now();
    let (registry, class) = (endpoint.name(), repository.as_str());
    let evidence = "the listing's digests compared with those of the tags";
    let learnt = context
        .store
        .learn(
            registry,
            class,
            LISTED_DIGESTS_AGREE,
            agreement.as_str(),
            evidence,
            now,
            now + AGREEMENT_LIFE,
        )
        .await;
    if let Err(error) = learnt {
        tracing::warn!("cannot keep what was learnt of {registry}/{class}: {error}");
    }
}
