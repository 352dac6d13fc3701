//! What a vendor's API says is not there, by the second proof of the protocol.

use crate::oci::RepositoryName;
use crate::registry::{Api, BulkListing, ListedTag, Result};

/// Looks with the protocol's own listing for a repository that the API does not have: it counts as absent only where both
/// say so. Otherwise its names.
///
/// # Errors
/// Those of the listing.
pub(super) async fn absent_or_names(api: &Api, repository: &RepositoryName) -> Result<BulkListing> {
    let Some(tags) = api.list_tags(repository).await? else {
        return Ok(BulkListing::Absent);
    };
    let tags = tags.into_iter().map(|tag| ListedTag {
        tag,
        digest: None,
        media_type: None,
        pushed: None,
    });
    Ok(BulkListing::Known {
        tags: tags.collect(),
        comparable: false,
    })
}
