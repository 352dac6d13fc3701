//! AWS ECR Public.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::future::FutureExt;
use reqsign_core::StaticEnv;
use serde::Deserialize;
use serde_json::{Map, json};

use super::awaited::Awaited;
use super::aws::{
    Asked, AuthorizationData, Aws, BLOBS_AT_ONCE, Listed, PAGE, Repositories, Said, Site, environment_of_process,
    labels,
};
use super::ecr::{PHRASES, pushed_at};
use super::once::once;
use super::table::Row;
use crate::oci::{Digest, RepositoryName, Tag};
use crate::registry::{
    Api, BulkListing, Created, Error, ErrorKind, Issued, Kind, ListedTag, Operation, Place, RemoteSettings, Result,
    Told, Vendor, Ways,
};

/// The API gives out tokens in this region only, and all registries are in it.
static SITE: LazyLock<Site> = LazyLock::new(|| Site {
    region: "us-east-1".to_owned(),
    host: "api.ecr-public.us-east-1.amazonaws.com".to_owned(),
});
/// How long our own aliases are believed: new ones are given rarely.
const ALIASES_LIFE: Duration = Duration::from_secs(3600);
/// How long a credential that the rules do not ask for, and that does not work, is left alone.
const FAILURE_LIFE: Duration = Duration::from_secs(300);
/// Every piece of an upload but the last, in bytes.
const PIECE: u64 = 10 * 1024 * 1024;

pub(super) static ROW: Row = Row {
    kind: Kind::EcrPublic,
    // The same upload service, with 1,000 pieces of 10 MiB for a layer of 10,000 MiB: docs.aws.amazon.com, Amazon ECR Public,
    // "Service quotas". So no piece is shorter. Its token realm is at its own host.
    habits: |habits| {
        super::ecr::uploads(habits);
        habits.min_piece = PIECE;
        habits.max_piece = Some(PIECE);
    },
    vendor: |settings| Arc::new(EcrPublic::new(settings, environment_of_process())),
};

static WAYS: Ways = Ways {
    must_create: true,
    right_to_list: "the permissions ecr-public:DescribeRegistries, ecr-public:DescribeImageTags and \
                    ecr-public:DescribeRepositories",
    // A foreign registry has none, and our own is listed by the API.
    catalogue: false,
    blobs_at_once: BLOBS_AT_ONCE,
    phrases: PHRASES,
    ..Ways::PLAIN
};

/// The public registry: everybody's repositories below an alias for each account.
#[derive(Debug)]
struct EcrPublic {
    aws: Aws,
    /// The aliases of our own account's registry; `None` without a credential.
    aliases: Awaited<Option<Arc<[String]>>>,
    /// That the credential which happens to be around does not work was told.
    told: AtomicBool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    /// One, where the private registry gives a list.
    authorization_data: AuthorizationData,
}

#[derive(Deserialize)]
struct Registries {
    registries: Vec<Registry>,
}

#[derive(Deserialize)]
struct Registry {
    #[serde(default)]
    aliases: Vec<Alias>,
}

#[derive(Deserialize)]
struct Alias {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageTags {
    image_tag_details: Vec<ImageTag>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageTag {
    image_tag: Option<Tag>,
    image_detail: Option<ImageDetail>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageDetail {
    image_digest: Option<Digest>,
    image_manifest_media_type: Option<String>,
    /// `ReferencedImageDetail` of the API model, in seconds since 1970.
    image_pushed_at: Option<f64>,
}

impl EcrPublic {
    fn new(settings: &RemoteSettings, environment: StaticEnv) -> Self {
        Self {
            aws: Aws::new(settings, environment, "ecr-public", "SpencerFrontendService"),
            aliases: Awaited::default(),
            told: AtomicBool::new(false),
        }
    }

    /// What stands before the first slash of our own repositories' names; `None` without a credential.
    async fn aliases(&self, api: &Api, operation: Operation, place: &Place) -> Result<Option<Arc<[String]>>> {
        let look = async {
            let asked = Asked {
                operation,
                place: place.clone(),
                action: "DescribeRegistries",
                body: &json!({}),
            };
            let registries = match self.aws.said::<Registries>(api, &SITE, &asked).await? {
                None => return Ok(None),
                Some(Said::Refusal(error)) => return Err(*error),
                Some(Said::Answer(registries)) => registries,
            };
            let aliases = registries.registries.into_iter().flat_map(|registry| registry.aliases);
            Ok(Some(aliases.map(|alias| alias.name).collect()))
        };
        let life = |found: &Result<Option<Arc<[String]>>>| match found {
            Ok(Some(_)) => ALIASES_LIFE,
            // There may be a credential later; how long there is none is known elsewhere.
            Ok(None) => Duration::ZERO,
            Err(_) if self.aws.is_asked_for() => Duration::ZERO,
            Err(_) => FAILURE_LIFE,
        };
        self.aliases.get(api.clock(), Option::is_some, life, look).await
    }

    /// A failure to find out who we are, where the rules do not ask for AWS: everybody may read, and what is around may be there for
    /// something else.
    ///
    /// # Errors
    /// The rules ask for it.
    fn as_nobody(&self, error: Error) -> Result<()> {
        if self.aws.is_asked_for() {
            return Err(error);
        }
        match self.told.swap(true, Ordering::Relaxed) {
            false => tracing::warn!("{error}: ECR Public is read as nobody"),
            true => tracing::debug!("{error}: ECR Public is read as nobody"),
        }
        Ok(())
    }

    /// The name by which the API knows a repository of our own; `None` for others'.
    async fn own<'r>(
        &self,
        api: &Api,
        operation: Operation,
        repository: &'r RepositoryName,
    ) -> Result<Option<&'r str>> {
        let Some((alias, name)) = repository.as_str().split_once('/') else {
            return Ok(None);
        };
        let place = api.place(Some(repository));
        let ours = self.aliases(api, operation, &place).await?;
        let is_ours = ours.iter().flat_map(|ours| ours.iter()).any(|own| own == alias);
        Ok(is_ours.then_some(name))
    }

    /// The same to read.
    async fn own_or_nobody<'r>(
        &self,
        api: &Api,
        operation: Operation,
        repository: &'r RepositoryName,
    ) -> Result<Option<&'r str>> {
        match self.own(api, operation, repository).await {
            Ok(own) => Ok(own),
            Err(error) => self.as_nobody(error).map(|()| None),
        }
    }
}

impl Vendor for EcrPublic {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::EcrPublic)
    }

    fn ways(&self) -> &'static Ways {
        &WAYS
    }

    fn login<'a>(&'a self, api: &'a Api) -> Told<'a, Option<Issued>> {
        async move {
            let refused = match self.aws.token::<Token>(api, &SITE).await {
                Ok(None) => return Ok(None),
                Ok(Some(Said::Answer(token))) => {
                    let (issued, _) = AuthorizationData::issued(Some(&token.authorization_data), api)?;
                    return Ok(Some(issued));
                }
                Ok(Some(Said::Refusal(error))) => *error,
                Err(error) => error,
            };
            // An AWS user without rights here reads as nobody.
            self.as_nobody(refused).map(|()| None)
        }
        .boxed()
    }

    fn list_digests<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        async move {
            let operation = Operation::ListTags;
            let Some(name) = self.own_or_nobody(api, operation, repository).await? else {
                return Ok(BulkListing::None);
            };
            let body = json!({ "repositoryName": name, "maxResults": PAGE });
            let asked = Asked {
                operation,
                place: api.place(Some(repository)),
                action: "DescribeImageTags",
                body: &body,
            };
            let mut tags = Vec::new();
            let listed = self
                .aws
                .pages(api, &SITE, asked, |page: ImageTags| {
                    tags.extend(page.image_tag_details.into_iter().filter_map(|told| {
                        let detail = told.image_detail;
                        Some(ListedTag {
                            tag: told.image_tag?,
                            media_type: detail
                                .as_ref()
                                .and_then(|image| image.image_manifest_media_type.clone()),
                            pushed: detail.as_ref().and_then(|image| pushed_at(image.image_pushed_at)),
                            digest: detail.and_then(|image| image.image_digest),
                        })
                    }));
                    page.next_token
                })
                .await?;
            Ok(match listed {
                Listed::Absent => BulkListing::Absent,
                // As with the private registry, nothing at all is confirmed.
                Listed::All if !tags.is_empty() => BulkListing::Known {
                    tags: once(tags),
                    comparable: true,
                },
                Listed::All | Listed::NoCredential => BulkListing::None,
            })
        }
        .boxed()
    }

    fn held_blobs<'a>(
        &'a self,
        api: &'a Api,
        repository: &'a RepositoryName,
        digests: &'a [Digest],
    ) -> Told<'a, BTreeMap<Digest, bool>> {
        async move {
            let Some(name) = self.own_or_nobody(api, Operation::FindBlob, repository).await? else {
                return Ok(BTreeMap::new());
            };
            let body = Map::from_iter([("repositoryName".to_owned(), name.into())]);
            let place = api.place(Some(repository));
            self.aws.held_blobs(api, &SITE, place, (body, digests)).await
        }
        .boxed()
    }

    fn list_repositories<'a>(&'a self, api: &'a Api, below: &'a [String]) -> Told<'a, Option<Vec<RepositoryName>>> {
        async move {
            let operation = Operation::ListRepositories;
            let nobody = || {
                let message = "the repositories of ECR Public are listed by AWS's API only, and there is no AWS credential; see \
                               `aws` of this registry";
                Error::new(operation, api.place(None), ErrorKind::Unauthorized, message)
            };
            let ours = self.aliases(api, operation, &api.place(None)).await?.ok_or_else(nobody)?;
            let is_ours = |text: &String| {
                text.split_once('/')
                    .is_some_and(|(alias, _)| ours.iter().any(|own| own == alias))
            };
            if !below.iter().all(is_ours) {
                let message =
                    "only the repositories of our own account can be listed: begin the pattern with its alias";
                return Err(Error::new(operation, api.place(None), ErrorKind::Unsupported, message));
            }
            let body = json!({ "maxResults": PAGE });
            let asked = Asked {
                operation,
                place: api.place(None),
                action: "DescribeRepositories",
                body: &body,
            };
            let mut names = Vec::new();
            let take = |page: Repositories| page.take(&mut names);
            if self.aws.pages(api, &SITE, asked, take).await? != Listed::All {
                return Err(nobody());
            }
            let all = ours
                .iter()
                .flat_map(|alias| names.iter().map(move |name| format!("{alias}/{name}")));
            Ok(Some(all.filter_map(|name| name.parse().ok()).collect()))
        }
        .boxed()
    }

    fn create<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, Created> {
        async move {
            let operation = Operation::CreateRepository;
            let place = api.place(Some(repository));
            let Some(name) = self.own(api, operation, repository).await? else {
                let message = "its alias (the part before the first slash) is none of the AWS account's registry";
                return Err(Error::new(operation, place, ErrorKind::Denied, message));
            };
            let mut body = json!({ "repositoryName": name });
            if let Some(labels) = labels(api) {
                body["tags"] = labels;
            }
            self.aws.create(api, &SITE, place, &body).await
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
