//! GitLab's registry: listings by its own API, where it has a database of its metadata, and repositories by GitLab's.
//!
//! Facts: gitlab-org/container-registry `docs/spec/gitlab/api.md`.

use std::sync::Arc;

use futures_util::future::FutureExt;
use serde::Deserialize;
use url::Url;

use super::once::once;
use super::table::Row;
use crate::oci::{Digest, RepositoryName};
use crate::registry::{
    ABSENT, ABSENT_LIFE, Api, ApiAnswer, ApiCall, ApiLogin, ApiPages, BulkListing, Fact, Kind, ListedTag, Operation,
    PRESENT, PRESENT_LIFE, Result, Told, Vendor, Ways,
};

/// The realm is https://gitlab.com/jwt/auth: docs.gitlab.com, "Container registry authentication".
pub(super) static ROW: Row = Row {
    kind: Kind::Gitlab,
    habits: |habits| habits.token_hosts = vec!["gitlab.com".to_owned()],
    vendor: |_| Arc::new(Gitlab),
};

/// Entries of a page.
const PAGE: u32 = 1000;

static WAYS: Ways = Ways {
    hides_tags: true,
    right_to_list: "the right to pull from the project (for patterns: to list by GitLab's API)",
    ..Ways::PLAIN
};

/// One GitLab.
#[derive(Debug)]
struct Gitlab;

#[derive(Deserialize)]
struct Entry {
    name: String,
    digest: Option<String>,
    media_type: Option<String>,
    published_at: Option<jiff::Timestamp>,
}

impl Vendor for Gitlab {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::Gitlab)
    }

    fn ways(&self) -> &'static Ways {
        &WAYS
    }

    fn list_digests<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        async move {
            // It gets the API by a migration of its metadata, which is looked for now and then.
            if api.known(Fact::MetadataDatabase, None).as_deref() == Some(ABSENT) {
                return Ok(BulkListing::None);
            }
            let place = api.place(Some(repository));
            let mut next = Some(first_page(api, repository, PAGE)?);
            let mut pages = ApiPages::new(Operation::ListTags, place.clone());
            let mut tags = Vec::new();
            while let Some(url) = next {
                let answer = page(api, repository, url).await?;
                if answer.status == 404 {
                    return Ok(BulkListing::None);
                }
                next = pages.next(&answer)?;
                let read: Vec<Entry> = answer.json()?;
                tags.extend(read.into_iter().filter_map(listed));
            }
            Ok(BulkListing::Known {
                tags: once(tags),
                comparable: true,
            })
        }
        .boxed()
    }

    fn explore<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, ()> {
        async move {
            if api.known(Fact::MetadataDatabase, None).is_none() {
                page(api, repository, first_page(api, repository, 1)?).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn list_repositories<'a>(&'a self, api: &'a Api, below: &'a [String]) -> Told<'a, Option<Vec<RepositoryName>>> {
        super::gitlab_repositories::list(api, below)
            .map(|listed| listed.map(Some))
            .boxed()
    }
}

fn first_page(api: &Api, repository: &RepositoryName, size: u32) -> Result<Url> {
    api.own(&format!("/gitlab/v1/repositories/{repository}/tags/list/?n={size}"))
}

/// A page of tags, 200 or 404; what the answer shows of the registry is kept.
async fn page(api: &Api, repository: &RepositoryName, url: Url) -> Result<ApiAnswer> {
    let mut call = ApiCall::get(Operation::ListTags, api.place(Some(repository)), url);
    // As the client itself asks for lists, so that it is the same token.
    call.login = ApiLogin::Own(vec![format!("repository:{repository}:pull")]);
    let answer = api.call(call).await?;
    let (value, evidence, life) = match answer.status {
        200 => (PRESENT, "its own API listed tags", PRESENT_LIFE),
        // In words of the registry it is this repository that is missing, and the protocol tells that.
        404 if super::words::code(&answer.body).is_some() => return Ok(answer),
        404 => (ABSENT, "its own API answered 404", ABSENT_LIFE),
        _ => return Err(answer.refused(&super::words::said(&answer.body))),
    };
    api.learn(Fact::MetadataDatabase, None, value, evidence, life);
    Ok(answer)
}

fn listed(entry: Entry) -> Option<ListedTag> {
    Some(ListedTag {
        tag: entry.name.parse().ok()?,
        digest: entry.digest.and_then(|text| text.parse::<Digest>().ok()),
        media_type: entry.media_type.filter(|kind| !kind.is_empty()),
        pushed: entry.published_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gitlab_tags_of_the_api_are_read() {
        let entries: Vec<Entry> = serde_json::from_value(serde_json::json!([
            {
                "name": "0.1.0", "digest": format!("sha256:{}", "a".repeat(64)),
                "config_digest": format!("sha256:{}", "b".repeat(64)),
                "media_type": "application/vnd.oci.image.manifest.v1+json", "size_bytes": 286_734_237,
                "created_at": "2022-06-07T12:10:12.412+00:00", "published_at": "2022-06-08T12:10:12.412+00:00",
            },
            { "name": "latest", "digest": null },
        ]))
        .expect("entries");
        let tags = once(entries.into_iter().filter_map(listed));
        assert_eq!(tags.len(), 2);
        assert!(tags[0].digest.is_some() && tags[0].pushed.is_some() && tags[1].digest.is_none());
    }
}
