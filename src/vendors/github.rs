//! GitHub's registry: listings by the API of its packages.
//!
//! Facts: docs.github.com, "REST API endpoints for packages"; goharbor/harbor, adapter githubcr.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use futures_util::future::FutureExt;
use http::HeaderValue;
use http::header::ACCEPT;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::once::once;
use super::table::Row;
use crate::oci::RepositoryName;
use crate::registry::{
    Api, ApiAnswer, ApiCall, ApiLogin, BulkListing, Credentials, Error, ErrorKind, Kind, ListedTag, NumberedPage,
    Operation, Result, Told, Vendor, Ways, numbered, numbered_and_seen_again, with_names,
};

const MIB: u64 = 1024 * 1024;
const HOST: &str = "ghcr.io";
const API_HOST: &str = "api.github.com";
/// Entries of a page, which is the most.
const PAGE: usize = 100;

pub(super) static ROW: Row = Row {
    kind: Kind::Github,
    // A request with `Content-Range` holds 4 MiB at most, else 416 "request body is too large":
    // oras-project/rust-oci-client#35. Pieces are therefore exactly that large. The same thread shows its refusal of a manifest
    // with missing blobs, MANIFEST_BLOB_UNKNOWN.
    habits: |habits| {
        habits.min_piece = 4 * MIB;
        habits.max_piece = Some(4 * MIB);
        habits.refuses_missing_blobs = true;
    },
    vendor: |_| std::sync::Arc::new(Github::default()),
};

static WAYS: Ways = Ways {
    right_to_list: "a token with the scope `read:packages`",
    // goharbor/harbor, adapter githubcr: it lists by the API for want of a catalogue.
    catalogue: false,
    ..Ways::PLAIN
};

/// GitHub's registry as one user sees it.
#[derive(Debug, Default)]
struct Github {
    /// Owners that were found to be users; all others are taken for organisations first.
    users: Mutex<HashSet<String>>,
}

/// A manifest of a package. Those of an index's platforms are there too, without tags.
#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Version {
    /// Its digest.
    name: String,
    updated_at: Option<jiff::Timestamp>,
    metadata: Option<Metadata>,
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Metadata {
    container: Option<Container>,
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Container {
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Package {
    name: String,
}

#[derive(Deserialize)]
struct Said {
    message: Option<String>,
}

impl Vendor for Github {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::Github)
    }

    fn ways(&self) -> &'static Ways {
        &WAYS
    }

    fn list_digests<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        async move {
            let (true, Some((owner, name))) = (has_token(api).await?, repository.as_str().split_once('/')) else {
                return Ok(BulkListing::None);
            };
            let place = Place(Operation::ListTags, Some(repository));
            let path = format!("packages/container/{}/versions?", name.replace('/', "%2F"));
            // Missing, or private and not this user's: the registry tells which.
            Ok(match self.read::<Version>(api, &place, owner, &path).await? {
                Some((versions, is_whole)) => {
                    let tags = once(versions.into_iter().flat_map(listed));
                    BulkListing::Known {
                        // An entry may have moved from one page to another while they were read.
                        tags: if is_whole {
                            tags
                        } else {
                            with_names(tags, api.list_tags(repository).await?)
                        },
                        // A version is named by the digest of its manifest, an index's by that of the index (same page).
                        comparable: true,
                    }
                }
                None => BulkListing::None,
            })
        }
        .boxed()
    }

    fn list_repositories<'a>(&'a self, api: &'a Api, below: &'a [String]) -> Told<'a, Option<Vec<RepositoryName>>> {
        async move {
            let refused =
                |kind, message: String| Error::new(Operation::ListRepositories, api.place(None), kind, message);
            if !has_token(api).await? {
                let message = "GitHub lists packages for a token of its own alone, at its own host; log in";
                return Err(refused(ErrorKind::Unauthorized, message.to_owned()));
            }
            let place = Place(Operation::ListRepositories, None);
            let mut names = Vec::new();
            let mut known: Vec<&str> = Vec::new();
            for beginning in below {
                let Some((owner, _)) = beginning.split_once('/') else {
                    let message =
                        "GitHub has no list of all repositories; begin the patterns with an owner, as in `octo-org/*`";
                    return Err(refused(ErrorKind::Unsupported, message.to_owned()));
                };
                if known.contains(&owner) {
                    continue;
                }
                known.push(owner);
                let path = "packages?package_type=container&";
                // Where there is nobody of this name, nothing matches.
                let packages = self.read::<Package>(api, &place, owner, path).await?;
                let (packages, _) = packages.unwrap_or_default();
                let full = packages.iter().map(|package| format!("{owner}/{}", package.name));
                names.extend(full.filter_map(|name| name.parse().ok()));
            }
            Ok(Some(names))
        }
        .boxed()
    }
}

/// For errors.
struct Place<'a>(Operation, Option<&'a RepositoryName>);

impl Github {
    /// All pages of a list of an owner, who is an organisation or a user, and whether it is whole; `None` where neither has it.
    async fn read<T: DeserializeOwned + Eq + Hash>(
        &self,
        api: &Api,
        place: &Place<'_>,
        owner: &str,
        path: &str,
    ) -> Result<Option<(Vec<T>, bool)>> {
        let mut sorts = ["orgs", "users"];
        if self.users().contains(owner) {
            sorts.reverse();
        }
        for sort in sorts {
            let read = |number| page(api, place, format!("/{sort}/{owner}/{path}"), number);
            let listed = match place.1 {
                // The registry has its tags, too.
                Some(_) => numbered_and_seen_again(read).await.map(Some),
                None => numbered(read).await.map(|read| read.map(|all| (all, true))),
            };
            match listed {
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(Some(read)) => {
                    if sort == "users" {
                        self.users().insert(owner.to_owned());
                    }
                    return Ok(Some(read));
                }
                Ok(None) => {
                    let message = "GitHub's list of packages changed while it was read, twice";
                    return Err(Error::new(place.0, api.place(place.1), ErrorKind::Server, message));
                }
            }
        }
        Ok(None)
    }

    fn users(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether there is what the API takes: not without a login, and not at other hosts, whose passwords are none of GitHub's, unless
/// the rules name their API.
async fn has_token(api: &Api) -> Result<bool> {
    let settings = api.settings();
    if !settings.url.host.eq_ignore_ascii_case(HOST) && settings.endpoint.is_none() {
        return Ok(false);
    }
    Ok(api.credentials().await?.is_some())
}

async fn page<T: DeserializeOwned>(api: &Api, place: &Place<'_>, path: String, number: u32) -> Result<NumberedPage<T>> {
    let url = api.at(API_HOST, &format!("{path}per_page={PAGE}&page={number}"))?;
    let by = |credentials: Option<&Credentials>| {
        let mut call = ApiCall::get(place.0, api.place(place.1), url.clone());
        call.headers
            .insert(ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
        call.headers
            .insert("x-github-api-version", HeaderValue::from_static("2022-11-28"));
        call.login = credentials.map_or(ApiLogin::Nobody, |found| ApiLogin::Bearer(found.password.clone()));
        call.throttled = throttled;
        call
    };
    let answer = api.call_as(by).await?;
    if answer.status != 200 {
        return Err(refusal(&answer));
    }
    let entries: Vec<T> = answer.json()?;
    let last = entries.len() < PAGE;
    Ok(NumberedPage::of(&answer, entries, None, last))
}

/// docs.github.com, "Rate limits for the REST API": both limits answer 403 or 429.
fn throttled(status: u16, body: &[u8]) -> bool {
    status == 403 && said(body).to_lowercase().contains("rate limit")
}

fn refusal(answer: &ApiAnswer) -> Error {
    let said = said(&answer.body);
    match throttled(answer.status, &answer.body) {
        true => answer.error(ErrorKind::Throttled, &said),
        false => answer.refused(&said),
    }
}

fn said(body: &[u8]) -> String {
    let said = serde_json::from_slice::<Said>(body).ok();
    said.and_then(|said| said.message).unwrap_or_default()
}

fn listed(version: Version) -> Vec<ListedTag> {
    let tags = version.metadata.and_then(|metadata| metadata.container);
    let digest = version.name.parse().ok();
    let tags = tags.map(|container| container.tags).unwrap_or_default();
    let listed = tags.into_iter().filter_map(|tag| {
        Some(ListedTag {
            tag: tag.parse().ok()?,
            digest: digest.clone(),
            media_type: None,
            pushed: version.updated_at,
        })
    });
    listed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn github_versions_are_read() {
        let version = |letter: &str, tags: &[&str]| {
            serde_json::json!({
                "id": 836, "name": format!("sha256:{}", letter.repeat(64)), "package_html_url": "https://github.com",
                "updated_at": "2020-09-11T21:56:40Z",
                "metadata": { "package_type": "container", "container": { "tags": tags } },
            })
        };
        let versions = serde_json::json!([version("a", &["v1", "latest"]), version("b", &[]), { "name": "1.0" }]);
        let versions: Vec<Version> = serde_json::from_value(versions).expect("versions");
        let tags: Vec<ListedTag> = versions.into_iter().flat_map(listed).collect();
        assert_eq!(tags.len(), 2);
        assert!(
            tags.iter()
                .all(|listed| listed.digest.is_some() && listed.pushed.is_some())
        );
    }

    #[test]
    fn github_limits_of_the_api_are_told_from_missing_rights() {
        assert!(throttled(
            403,
            br#"{"message":"API rate limit exceeded for user ID 1."}"#
        ));
        assert!(throttled(
            403,
            br#"{"message":"You have exceeded a secondary rate limit."}"#
        ));
        assert!(!throttled(
            403,
            br#"{"message":"You need at least read:packages scope."}"#
        ));
        assert!(!throttled(404, br#"{"message":"Not Found"}"#));
    }
}
