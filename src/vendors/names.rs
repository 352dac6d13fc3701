//! Names of repositories and tags, beside what a vendor's API says of them.

use crate::oci::RepositoryName;
use crate::registry::{Api, BulkListing, Error, ErrorKind, ListedTag, Operation, Result};

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

/// All entries of a list of repositories.
///
/// # Errors
/// `Server` where the list never held still: another look may find it so.
pub(super) fn whole<T>(api: &Api, listed: Option<Vec<T>>) -> Result<Vec<T>> {
    listed.ok_or_else(|| {
        let message = "the list of the repositories changed while it was read, twice";
        let place = api.place(None);
        Error::new(Operation::ListRepositories, place, ErrorKind::Server, message)
    })
}

/// The namespaces that literal beginnings of names lie in; `None` where they are not within namespaces.
pub(super) fn namespaces(below: &[String]) -> Option<Vec<&str>> {
    let mut names: Vec<&str> = below
        .iter()
        .map(|text| text.split_once('/').map(|(namespace, _)| namespace))
        .collect::<Option<_>>()?;
    names.sort_unstable();
    names.dedup();
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_lie_in_namespaces() {
        let below = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(namespaces(&below(&["b/", "a/x/", "b/y/"])), Some(vec!["a", "b"]));
        assert_eq!(namespaces(&below(&["a/", ""])), None);
    }
}
