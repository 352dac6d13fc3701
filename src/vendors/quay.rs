//! Quay: listings of tags by its own API.
//!
//! Facts: quay/quay `endpoints/api/tag.py`, `endpoints/v2` (refusals: `errors.py`).

use std::sync::Arc;

use futures_util::future::FutureExt;
use serde::Deserialize;

use super::once::once;
use super::table::Row;
use crate::oci::{Digest, RepositoryName, media_type};
use crate::registry::{
    Api, ApiCall, ApiLogin, BulkListing, Credentials, ErrorKind, Kind, ListedTag, NumberedPage, Operation, Phrase,
    Result, Told, Vendor, Ways, numbered_and_seen_again, with_names,
};

pub(super) static ROW: Row = Row {
    kind: Kind::Quay,
    // quay/quay `endpoints/v2/v2auth.py`: the realm is at the registry's own host.
    habits: |_| {},
    vendor: |_| Arc::new(Quay),
};

/// The user whose password is a token of an OAuth application: the only one whose password is for the API too.
const APPLICATION: &str = "$oauthtoken";
/// Entries of a page: more are cut to it.
const PAGE: u32 = 100;

static WAYS: Ways = Ways {
    right_to_list: "a token of an OAuth application (user `$oauthtoken`) that may view the repository",
    phrases: &[
        Phrase {
            status: 405,
            code: "DENIED",
            says: "read-only",
            writes: Some(true),
            kind: ErrorKind::Unsupported,
            advice: "Quay is read-only for maintenance",
        },
        Phrase {
            status: 405,
            code: "DENIED",
            says: "namespace is disabled",
            writes: None,
            kind: ErrorKind::Denied,
            advice: "the organisation or user is disabled at Quay",
        },
        Phrase {
            status: 403,
            code: "DENIED",
            says: "quota",
            writes: Some(true),
            kind: ErrorKind::Quota,
            advice: "the quota of the organisation is used up",
        },
    ],
    ..Ways::PLAIN
};

/// One Quay.
#[derive(Debug)]
struct Quay;

#[derive(Deserialize)]
struct Page {
    tags: Vec<Entry>,
    has_additional: bool,
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Entry {
    name: String,
    manifest_digest: Option<String>,
    is_manifest_list: Option<bool>,
    start_ts: Option<i64>,
}

impl Vendor for Quay {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::Quay)
    }

    fn ways(&self) -> &'static Ways {
        &WAYS
    }

    fn list_digests<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        async move {
            let is_application = matches!(login(api.credentials().await?.as_ref()), ApiLogin::Bearer(_));
            match numbered_and_seen_again(|number| page(api, repository, number)).await {
                Ok((entries, is_whole)) => {
                    let tags = once(entries.into_iter().filter_map(listed));
                    Ok(BulkListing::Known {
                        // An entry may have moved from one page to another while they were read.
                        tags: if is_whole {
                            tags
                        } else {
                            with_names(tags, api.list_tags(repository).await?)
                        },
                        comparable: true,
                    })
                }
                // The registry tells whether it is missing.
                Err(error) if error.kind == ErrorKind::NotFound => Ok(BulkListing::None),
                // A private repository looks so to nobody: no right is missing that every user could have.
                Err(error) if !is_application && error.kind == ErrorKind::Unauthorized => Ok(BulkListing::None),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }
}

/// Who asks the API, by the registry's login.
fn login(credentials: Option<&Credentials>) -> ApiLogin {
    match credentials {
        Some(found) if found.username == APPLICATION => ApiLogin::Bearer(found.password.clone()),
        _ => ApiLogin::Nobody,
    }
}

async fn page(api: &Api, repository: &RepositoryName, number: u32) -> Result<NumberedPage<Entry>> {
    let path = format!("/api/v1/repository/{repository}/tag/?onlyActiveTags=true&limit={PAGE}&page={number}");
    let url = api.own(&path)?;
    let by = |credentials: Option<&Credentials>| {
        let mut call = ApiCall::get(Operation::ListTags, api.place(Some(repository)), url.clone());
        call.login = login(credentials);
        call
    };
    let answer = api.call_as(by).await?;
    if answer.status != 200 {
        return Err(answer.refused(""));
    }
    let page: Page = answer.json()?;
    Ok(NumberedPage::of(&answer, page.tags, None, !page.has_additional))
}

fn listed(entry: Entry) -> Option<ListedTag> {
    let index = entry.is_manifest_list == Some(true);
    Some(ListedTag {
        tag: entry.name.parse().ok()?,
        digest: entry.manifest_digest.and_then(|text| text.parse::<Digest>().ok()),
        media_type: index.then(|| media_type::OCI_INDEX.to_owned()),
        pushed: entry
            .start_ts
            .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quay_tags_of_the_api_are_read() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let page: Page = serde_json::from_value(serde_json::json!({
            "page": 1, "has_additional": false,
            "tags": [
                { "name": "v1", "manifest_digest": digest, "is_manifest_list": true, "start_ts": 1_772_366_400,
                  "last_modified": "Sun, 01 Mar 2026 12:00:00 -0000" },
                { "name": "v1", "manifest_digest": digest.replace('a', "b"), "is_manifest_list": false },
                { "name": "v2", "manifest_digest": digest },
            ],
        }))
        .expect("a page");
        let tags = once(page.tags.into_iter().filter_map(listed));
        let shown: Vec<_> = tags
            .iter()
            .map(|listed| (listed.tag.as_str(), listed.digest.is_some(), listed.pushed.is_some()))
            .collect();
        assert_eq!(shown, [("v1", false, true), ("v2", true, false)]);
    }
}
