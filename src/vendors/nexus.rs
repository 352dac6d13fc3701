//! Sonatype Nexus Repository 3: listings of tags by its search, where the rules ask for it.
//!
//! Facts: help.sonatype.com, "Search API" and "Pagination"; sonatype-nexus-community/nexus-repo-api-client-go
//! `docs/SearchAPI.md`. The search has an index of its own that follows the repositories, so what it says of a tag may be what
//! that named a while ago.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::{FutureExt, ready};
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::Serializer;

use super::once::once;
use super::product;
use super::table::Row;
use crate::oci::{Digest, RepositoryName};
use crate::registry::{
    Api, ApiAnswer, ApiCall, ApiLogin, BulkListing, Created, Error, ErrorKind, Kind, ListedTag, Operation, Phrase,
    RemoteSettings, Result, Told, Vendor, Ways,
};

pub(super) static ROW: Row = Row {
    kind: Kind::Nexus,
    habits: |_| {},
    vendor: of,
};

/// Below the address of Nexus itself.
const SEARCH: &str = "/service/rest/v1/search";
/// Pages and entries of one search: as many as a list by links may have.
const MAX_PAGES: usize = 40_000;
const MAX_ENTRIES: usize = 2_000_000;
/// All pages together, in bytes: as a list by links.
const MAX_SIZE: usize = 64 * 1024 * 1024;
/// The longest media type, in bytes (RFC 6838, section 4.2: twice 127 and a slash).
const LONGEST_MEDIA_TYPE: usize = 255;
/// The longest token that leads to a next page, in bytes.
const LONGEST_TOKEN: usize = 4096;

/// What is said where nothing is at an address of Nexus, or nothing that takes a push.
const MISSING: &str = "Nexus has no repository of this name, and transship makes none, as it is an administrator who says where it \
    stores what and who may read it (Settings, Repositories, Create repository, docker (hosted); or \
    POST /service/rest/v1/repositories/docker/hosted)";

static WAYS: Ways = Ways {
    // The index may not have a tag yet, or still have one that is gone.
    hides_tags: true,
    right_to_list: "the privileges nx-search-read and nx-repository-view-docker-<repository>-browse",
    ..UNSEARCHED
};

/// Of one whose search nobody asked for.
static UNSEARCHED: Ways = Ways {
    create_when_refused: true,
    nowhere: MISSING,
    phrases: PHRASES,
    ..Ways::PLAIN
};

/// GoogleContainerTools/jib#3057: what it says of a tag that is there has the code of an upload.
static PHRASES: &[Phrase] = &[Phrase {
    status: 400,
    code: "",
    says: "does not allow updating assets",
    writes: Some(true),
    kind: ErrorKind::Conflict,
    advice: "the repository's deployment policy is `Disable redeploy`: let the rule leave its tags (`moved_tags: keep`, \
             `on_conflict: keep`), or change the policy",
}];

pub(super) fn of(settings: &RemoteSettings) -> Arc<dyn Vendor> {
    let is_meant = settings.kind == Some(Kind::Nexus);
    let repository = settings.nexus_search.clone().filter(|_| is_meant);
    Arc::new(Nexus { repository })
}

/// A repository of Nexus.
#[derive(Debug)]
struct Nexus {
    /// Its name in Nexus, where its tags are searched for.
    repository: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    items: Vec<Component>,
    continuation_token: Option<String>,
}

/// A tag of an image.
#[derive(Deserialize)]
struct Component {
    #[serde(default)]
    repository: String,
    #[serde(default)]
    format: String,
    name: String,
    version: Option<String>,
    #[serde(default)]
    assets: Vec<Asset>,
}

/// A file of it: manifests have paths as in the distribution protocol.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asset {
    #[serde(default)]
    path: String,
    checksum: Option<Checksum>,
    content_type: Option<String>,
}

#[derive(Deserialize)]
struct Checksum {
    sha256: Option<String>,
}

impl Vendor for Nexus {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::Nexus)
    }

    fn ways(&self) -> &'static Ways {
        match self.repository {
            Some(_) => &WAYS,
            None => &UNSEARCHED,
        }
    }

    fn list_digests<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        async move {
            let Some(searched) = &self.repository else {
                return Ok(BulkListing::None);
            };
            let mut tags = Vec::new();
            let mut token: Option<String> = None;
            let mut known = HashSet::new();
            let mut size = 0_usize;
            loop {
                let answer = page(api, searched, repository, token.as_deref()).await?;
                size = size.saturating_add(answer.body.len());
                if size > MAX_SIZE {
                    let message = format!("the search finds more than {} MiB", MAX_SIZE >> 20);
                    return Err(answer.error(ErrorKind::Invalid, message));
                }
                let page: Page = answer.json()?;
                let found = page.items.into_iter();
                tags.extend(found.filter_map(|component| listed(searched, repository, component)));
                token = page.continuation_token.filter(|token| !token.is_empty());
                let Some(next) = &token else { break };
                let is_endless = known.len() >= MAX_PAGES || tags.len() > MAX_ENTRIES;
                if is_endless || next.len() > LONGEST_TOKEN || !known.insert(next.clone()) {
                    return Err(answer.error(ErrorKind::Invalid, "the search comes to no end"));
                }
            }
            Ok(BulkListing::Known {
                tags: once(tags),
                // Whether it is the digest that a look gives is not documented, and the index may be behind.
                comparable: false,
            })
        }
        .boxed()
    }

    fn create<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, Created> {
        let place = api.place(Some(repository));
        let error = Error::new(Operation::CreateRepository, place, ErrorKind::Unsupported, MISSING);
        Box::pin(ready(Err(error)))
    }

    fn version<'a>(&'a self, api: &'a Api) -> Told<'a, Option<String>> {
        Box::pin(ready(Ok(product::said(api, "server", "Nexus"))))
    }
}

async fn page(api: &Api, searched: &str, repository: &RepositoryName, token: Option<&str>) -> Result<ApiAnswer> {
    let parameters = [
        ("repository", searched),
        ("format", "docker"),
        ("name", repository.as_str()),
    ];
    let query = Serializer::new(String::new())
        .extend_pairs(parameters)
        .extend_pairs(token.map(|token| ("continuationToken", token)))
        .finish();
    let url = address(api, &query)?;
    let mut call = ApiCall::get(Operation::ListTags, api.place(Some(repository)), url);
    call.login = ApiLogin::Basic;
    let answer = api.call(call).await?;
    match answer.status {
        200 => Ok(answer),
        // A port of its own answers the distribution protocol alone. No right is missing that one would have to wait for.
        404 => Err(answer.error(
            ErrorKind::Invalid,
            "Nexus has no search there: write its own address as `endpoint` of this registry",
        )),
        _ => Err(answer.refused("")),
    }
}

/// A component that is a tag of the image in the repository that is searched. Whatever else the search finds is somebody else's.
fn listed(searched: &str, image: &RepositoryName, component: Component) -> Option<ListedTag> {
    let is_ours = component.repository == searched && component.name == image.as_str();
    if !is_ours || component.format != "docker" {
        return None;
    }
    let tag: crate::oci::Tag = component.version?.parse().ok()?;
    let path = format!("v2/{image}/manifests/{tag}");
    let mut manifests = component
        .assets
        .into_iter()
        .filter(|asset| asset.path.trim_start_matches('/') == path);
    // Two say that the index is not done with it.
    let manifest = manifests.next().filter(|_| manifests.next().is_none());
    let (checksum, media_type) = manifest.map_or((None, None), |found| (found.checksum, found.content_type));
    let sum = checksum.and_then(|checksum| checksum.sha256);
    Some(ListedTag {
        tag,
        digest: sum.and_then(|sum| format!("sha256:{sum}").parse::<Digest>().ok()),
        media_type: media_type.filter(|kind| (1..=LONGEST_MEDIA_TYPE).contains(&kind.len())),
        pushed: None,
    })
}

/// Where the search is: at `endpoint:`, else beside the path of the repository (`/repository/<name>`) at the registry's own origin.
fn address(api: &Api, query: &str) -> Result<Url> {
    let settings = api.settings();
    if settings.endpoint.is_some() {
        return api.at("", &format!("{SEARCH}?{query}"));
    }
    let path = settings.url.path.as_str();
    let before = path.rsplit_once("/repository/").map_or(path, |(before, _)| before);
    let mut url = api.own("/")?;
    url.set_path(&format!("{before}{SEARCH}"));
    url.set_query(Some(query));
    Ok(url)
}

#[cfg(test)]
mod tests;
