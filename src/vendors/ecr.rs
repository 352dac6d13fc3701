//! AWS ECR, private.

mod answers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::FutureExt;
use reqsign_core::StaticEnv;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

pub(super) use self::answers::pushed_at;
use self::answers::{Details, ImageDetail, Images};
use super::aws::{
    Asked, AuthorizationData, Aws, BLOBS_AT_ONCE, Listed, PAGE, RegistryHost, Repositories, Said, Site, ecr_api,
    environment_of_process, is, is_region, labels,
};
use super::once::once;
use super::table::Row;
use crate::oci::{Digest, RepositoryName};
use crate::registry::{
    Api, BulkListing, Created, Encryption, Error, ErrorKind, Habits, Issued, Kind, ListedTag, Operation, Phrase,
    RemoteSettings, Result, Told, UploadHabit, Vendor, Ways,
};

const MIB: u64 = 1024 * 1024;
/// No image has it: to be named where nothing may happen.
const NO_IMAGE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

pub(super) static ROW: Row = Row {
    kind: Kind::Ecr,
    habits: |habits| {
        uploads(habits);
        // `LayersNotFoundException` of `PutImage`.
        habits.refuses_missing_blobs = true;
        // Basic on every request: ECR user guide, "Private registry authentication".
        habits.login_first = true;
    },
    vendor: |settings| Arc::new(Ecr::new(settings, environment_of_process())),
};

/// Parts of 5 MiB at least: ECR's service quotas; 20 MiB (20,971,520 bytes) at most: `PartSize` in the API model of
/// ecr-2015-09-21. The stale Range: aws/containers-roadmap#2831. Uploads vanish in about a day.
pub(super) fn uploads(habits: &mut Habits) {
    habits.min_piece = 5 * MIB;
    habits.max_piece = Some(20 * MIB);
    habits.trust_upload_range = false;
    // So where an upload stands is not to be had, and one that broke off starts again: short pieces would save nothing.
    habits.upload = Some(UploadHabit::KeepsNothing);
    // What ListImages and DescribeRepositories take is not published; "low tens" was seen.
    habits.api_per_second = Some(10);
}

/// Refusals of `/v2/` that mean something else here. The texts: GoogleContainerTools/kaniko#204 and issues like it.
pub(super) const PHRASES: &[Phrase] = &[
    Phrase {
        status: 0,
        code: "TAG_INVALID",
        says: "immutable",
        writes: Some(true),
        kind: ErrorKind::Conflict,
        advice: "the repository's tags are immutable: let the rule leave them (`moved_tags: keep`, `on_conflict: keep`), or \
                 change the repository's setting",
    },
    Phrase {
        status: 0,
        code: "",
        says: EXPIRED,
        writes: None,
        kind: ErrorKind::Unauthorized,
        advice: "the token of ECR has ended",
    },
    Phrase {
        status: 0,
        code: "",
        says: "is not authorized to perform",
        writes: None,
        kind: ErrorKind::Denied,
        advice: "grant the AWS user that permission, in its own policies or in the repository's",
    },
    Phrase {
        status: 0,
        code: "",
        says: "rate exceeded",
        writes: None,
        kind: ErrorKind::Throttled,
        advice: "too many requests; lower limits.requests_per_second",
    },
    // containers/image#584; containers/skopeo#869 met it with encrypted layers. The field is optional elsewhere (image-spec 1.1,
    // "Image Manifest"), and to add it would make another image of it.
    Phrase {
        status: 0,
        code: "UNSUPPORTED",
        says: "invalid json syntax",
        writes: Some(true),
        kind: ErrorKind::Unsupported,
        advice: "ECR takes a manifest only with `mediaType` in it, and with layers of types that it knows: build the image anew with \
                 a newer tool, or leave the tag out of the rule",
    },
];

/// What a token that has ended is called.
const EXPIRED: &str = "authorization token has expired";

static WAYS: Ways = Ways {
    must_create: true,
    // What is hidden is asked for: see `described`.
    hides_tags: false,
    blobs_at_once: BLOBS_AT_ONCE,
    right_to_list: "the permissions ecr:DescribeImages (or ecr:ListImages) and ecr:DescribeRepositories",
    phrases: PHRASES,
    expired_login: Some(EXPIRED),
    ..Ways::PLAIN
};

/// A private registry.
#[derive(Debug)]
struct Ecr {
    host: Option<RegistryHost>,
    aws: Aws,
    /// That the end of a token lies in the past was told.
    told: AtomicBool,
    /// `DescribeImages` is not granted.
    lists_only: AtomicBool,
    /// That the account is not known was told.
    told_of_account: AtomicBool,
}

impl Ecr {
    fn new(settings: &RemoteSettings, environment: StaticEnv) -> Self {
        Self {
            host: RegistryHost::read(&settings.url.host),
            aws: Aws::new(settings, environment, "ecr", "AmazonEC2ContainerRegistry_V20150921"),
            told: AtomicBool::new(false),
            lists_only: AtomicBool::new(false),
            told_of_account: AtomicBool::new(false),
        }
    }

    /// The account whose registry it is: without it the API tells of the asker's own, which may have the same names.
    fn account(&self) -> Option<&str> {
        match &self.host {
            Some(host) => Some(&host.account),
            None => self.aws.registry_id(),
        }
    }

    /// The region, and the API's host there.
    async fn site(&self, api: &Api) -> Result<Site> {
        let network = self.host.as_ref().map(|host| host.network).unwrap_or_default();
        let region = match &self.host {
            Some(host) => Some(host.region.clone()),
            None => self.aws.region().await,
        };
        let failed = |message: &str| Error::new(Operation::Authenticate, api.place(None), ErrorKind::Config, message);
        let region =
            region.ok_or_else(|| failed("the region of this registry is not known: write aws: { region: … }"))?;
        if !is_region(&region) {
            return Err(failed("the region of this registry is none; check aws.region"));
        }
        let host = ecr_api(&region, network);
        Ok(Site { region, host })
    }

    async fn said<T: DeserializeOwned>(&self, api: &Api, asked: &Asked<'_>) -> Result<Option<Said<T>>> {
        self.aws.said(api, &self.site(api).await?, asked).await
    }

    /// The tags of a repository, those of archived images too, which `ListImages` and this leave out where nobody asks for
    /// them (`ImageStatusFilter` of the API model). Archived images cannot be pulled: what such a tag points to is not said, so
    /// that it is looked at.
    async fn described(&self, api: &Api, repository: &RepositoryName, tags: &mut Vec<ListedTag>) -> Result<Listed> {
        let body = self.body(Map::from_iter([
            ("repositoryName".to_owned(), repository.as_str().into()),
            (
                "filter".to_owned(),
                json!({ "tagStatus": "TAGGED", "imageStatus": "ANY" }),
            ),
            ("maxResults".to_owned(), PAGE.into()),
        ]));
        let asked = Asked {
            operation: Operation::ListTags,
            place: api.place(Some(repository)),
            action: "DescribeImages",
            body: &body,
        };
        let take = |page: Details| {
            tags.extend(page.image_details.into_iter().flat_map(ImageDetail::tags));
            page.next_token
        };
        self.aws.pages(api, &self.site(api).await?, asked, take).await
    }

    /// The same by the lesser right.
    async fn listed(&self, api: &Api, repository: &RepositoryName, tags: &mut Vec<ListedTag>) -> Result<Listed> {
        let body = self.body(Map::from_iter([
            ("repositoryName".to_owned(), repository.as_str().into()),
            ("filter".to_owned(), json!({ "tagStatus": "TAGGED" })),
            ("maxResults".to_owned(), PAGE.into()),
        ]));
        let asked = Asked {
            operation: Operation::ListTags,
            place: api.place(Some(repository)),
            action: "ListImages",
            body: &body,
        };
        let take = |page: Images| {
            tags.extend(page.image_ids.into_iter().filter_map(|image| {
                Some(ListedTag {
                    tag: image.image_tag?,
                    digest: image.image_digest,
                    media_type: None,
                    pushed: None,
                })
            }));
            page.next_token
        };
        self.aws.pages(api, &self.site(api).await?, asked, take).await
    }

    /// A request's body with the registry's id.
    fn body(&self, mut body: Map<String, Value>) -> Value {
        if let Some(account) = self.account() {
            body.insert("registryId".to_owned(), account.into());
        }
        Value::Object(body)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tokens {
    authorization_data: Vec<AuthorizationData>,
}

/// The request that makes a repository of these settings.
fn creation(repository: &RepositoryName, api: &Api) -> Map<String, Value> {
    let settings = &api.settings().create;
    let mut body = Map::new();
    body.insert("repositoryName".to_owned(), repository.as_str().into());
    if let Some(immutable) = settings.immutable_tags {
        let word = if immutable { "IMMUTABLE" } else { "MUTABLE" };
        let exceptions = settings.tag_mutability_exceptions.iter();
        let filters: Vec<Value> = exceptions
            .map(|pattern| json!({ "filterType": "WILDCARD", "filter": pattern }))
            .collect();
        let word = match filters.is_empty() {
            true => word.to_owned(),
            false => format!("{word}_WITH_EXCLUSION"),
        };
        body.insert("imageTagMutability".to_owned(), word.into());
        if !filters.is_empty() {
            body.insert("imageTagMutabilityExclusionFilters".to_owned(), filters.into());
        }
    }
    if let Some(scans) = settings.scan_on_push {
        body.insert("imageScanningConfiguration".to_owned(), json!({ "scanOnPush": scans }));
    }
    if let Some(encryption) = settings.encryption {
        let word = match encryption {
            Encryption::Aes256 => "AES256",
            Encryption::Kms => "KMS",
            Encryption::KmsDsse => "KMS_DSSE",
        };
        let mut configuration = json!({ "encryptionType": word });
        if let Some(key) = &settings.kms_key {
            configuration["kmsKey"] = key.as_str().into();
        }
        body.insert("encryptionConfiguration".to_owned(), configuration);
    }
    if let Some(labels) = labels(api) {
        body.insert("tags".to_owned(), labels);
    }
    body
}

impl Vendor for Ecr {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::Ecr)
    }

    fn ways(&self) -> &'static Ways {
        &WAYS
    }

    fn login<'a>(&'a self, api: &'a Api) -> Told<'a, Option<Issued>> {
        async move {
            let tokens = match self.aws.token::<Tokens>(api, &self.site(api).await?).await? {
                None => return Ok(None),
                Some(Said::Refusal(error)) => return Err(*error),
                Some(Said::Answer(tokens)) => tokens,
            };
            let (issued, past) = AuthorizationData::issued(tokens.authorization_data.first(), api)?;
            if past && !self.told.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "a token of ECR has ended already when it is given out; it is used for an hour. Is this machine's clock right?"
                );
            }
            Ok(Some(issued))
        }
        .boxed()
    }

    fn list_digests<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        async move {
            if self.account().is_none() {
                if !self.told_of_account.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        registry = api.place(None).registry,
                        "its host does not say whose registry it is: tags are asked for one by one, and nothing is made, unless the \
                         rules say aws: {{ registry_id: \"<account>\" }}"
                    );
                }
                return Ok(BulkListing::None);
            }
            let mut tags = Vec::new();
            let described = match self.lists_only.load(Ordering::Relaxed) {
                false => Some(self.described(api, repository, &mut tags).await),
                true => None,
            };
            let listed = match described {
                Some(Err(error)) if error.kind == ErrorKind::Denied => {
                    tracing::debug!("archived images of ECR are not seen: {error}");
                    None
                }
                described => described,
            };
            let listed = match listed {
                Some(listed) => listed?,
                None => {
                    tags.clear();
                    let listed = self.listed(api, repository, &mut tags).await?;
                    self.lists_only.store(true, Ordering::Relaxed);
                    listed
                }
            };
            Ok(match listed {
                Listed::NoCredential => BulkListing::None,
                Listed::Absent => BulkListing::Absent,
                // Nothing at all is confirmed by the registry itself, for one request.
                Listed::All if tags.is_empty() => BulkListing::None,
                // A tag that moved meanwhile may be in it twice.
                Listed::All => BulkListing::Known {
                    tags: once(tags),
                    comparable: true,
                },
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
            let Some(account) = self.account() else {
                return Ok(BTreeMap::new());
            };
            let body = Map::from_iter([
                ("registryId".to_owned(), account.into()),
                ("repositoryName".to_owned(), repository.as_str().into()),
            ]);
            let (site, place) = (self.site(api).await?, api.place(Some(repository)));
            self.aws.held_blobs(api, &site, place, (body, digests)).await
        }
        .boxed()
    }

    fn may_delete<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, Option<bool>> {
        async move {
            if self.account().is_none() {
                return Ok(None);
            }
            let body = self.body(Map::from_iter([
                ("repositoryName".to_owned(), repository.as_str().into()),
                ("imageIds".to_owned(), json!([{ "imageDigest": NO_IMAGE }])),
            ]));
            let asked = Asked {
                operation: Operation::Ping,
                place: api.place(Some(repository)),
                action: "BatchDeleteImage",
                body: &body,
            };
            Ok(match self.said::<Value>(api, &asked).await? {
                // Each image has an answer of its own, and none has this digest.
                Some(Said::Answer(_)) => Some(true),
                Some(Said::Refusal(error)) if error.kind == ErrorKind::Denied => Some(false),
                Some(Said::Refusal(error)) if is(&error, "RepositoryNotFoundException") => None,
                Some(Said::Refusal(error)) => return Err(*error),
                None => None,
            })
        }
        .boxed()
    }

    fn list_repositories<'a>(&'a self, api: &'a Api, _below: &'a [String]) -> Told<'a, Option<Vec<RepositoryName>>> {
        async move {
            if self.account().is_none() {
                return Ok(None);
            }
            let body = self.body(Map::from_iter([("maxResults".to_owned(), PAGE.into())]));
            let asked = Asked {
                operation: Operation::ListRepositories,
                place: api.place(None),
                action: "DescribeRepositories",
                body: &body,
            };
            let mut names = Vec::new();
            let take = |page: Repositories| page.take(&mut names);
            let listed = self.aws.pages(api, &self.site(api).await?, asked, take).await?;
            let parsed = names.iter().filter_map(|name| name.parse().ok());
            Ok((listed == Listed::All).then(|| parsed.collect()))
        }
        .boxed()
    }

    fn create<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, Created> {
        async move {
            if self.account().is_none() {
                let message = "its host does not say in whose registry it would be made: write aws: { registry_id: \"<account>\" }, \
                               or make it yourself";
                let place = api.place(Some(repository));
                return Err(Error::new(Operation::CreateRepository, place, ErrorKind::Config, message));
            }
            let body = self.body(creation(repository, api));
            let site = self.site(api).await?;
            self.aws.create(api, &site, api.place(Some(repository)), &body).await
        }
        .boxed()
    }
}
