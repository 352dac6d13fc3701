//! AWS ECR, private.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::FutureExt;
use jiff::{SignedDuration, Timestamp};
use reqsign_core::StaticEnv;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::aws::{Asked, Aws, Fault, RegistryHost, ecr_api, environment_of_process, is_region};
use super::table::Row;
use crate::oci::{Digest, RepositoryName, Tag};
use crate::registry::{
    Api, BulkListing, CreateSettings, Created, Credentials, Encryption, Error, ErrorKind, Habits, Issued, Kind,
    ListedTag, Operation, Phrase, RemoteSettings, Result, Told, Vendor, Ways,
};
use crate::telemetry::Secret;

const MIB: u64 = 1024 * 1024;
/// The most that a page holds.
const PAGE: u32 = 1000;
/// Pages of one listing: ten times the images that a repository may have.
const MOST_PAGES: usize = 2_000;
/// How long a token is used whose end lies in the past, as from what stands in for AWS.
const UNTOLD_LIFE: SignedDuration = SignedDuration::from_hours(1);

pub(super) static ROW: Row = Row {
    kind: Kind::Ecr,
    habits: |habits| {
        uploads(habits);
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
];

/// What a token that has ended is called.
const EXPIRED: &str = "authorization token has expired";

static WAYS: Ways = Ways {
    must_create: true,
    right_to_list: "the permissions ecr:ListImages and ecr:DescribeRepositories",
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
}

impl Ecr {
    fn new(settings: &RemoteSettings, environment: StaticEnv) -> Self {
        Self {
            host: RegistryHost::read(&settings.url.host),
            aws: Aws::new(settings, environment, "ecr", "AmazonEC2ContainerRegistry_V20150921"),
            told: AtomicBool::new(false),
        }
    }

    /// The region, and the API's host there.
    async fn place(&self, api: &Api) -> Result<(String, String)> {
        let network = self.host.as_ref().map(|host| host.network).unwrap_or_default();
        let region = match (self.aws.written_region(), &self.host) {
            (Some(region), _) => Some(region.to_owned()),
            (None, Some(host)) => Some(host.region.clone()),
            (None, None) => self.aws.region().await,
        };
        let failed = |message: &str| Error::new(Operation::Authenticate, api.place(None), ErrorKind::Config, message);
        let region =
            region.ok_or_else(|| failed("the region of this registry is not known: write aws: { region: … }"))?;
        if !is_region(&region) {
            return Err(failed("the region of this registry is none; check aws.region"));
        }
        let host = ecr_api(&region, network);
        Ok((region, host))
    }

    /// Asks the API; the refusal's fault where it refuses. `None` without any credential.
    async fn ask<T: DeserializeOwned>(&self, api: &Api, asked: &Asked<'_>) -> Result<Option<Said<T>>> {
        let (region, host) = self.place(api).await?;
        let Some(answer) = self.aws.ask(api, &host, &region, asked).await? else {
            return Ok(None);
        };
        if answer.status == 200 {
            return Ok(Some(Said::Answer(answer.json()?)));
        }
        let fault = Fault::read(&answer.body);
        let code = fault.code.clone();
        let error = fault.into_error(&answer, &format!("ecr:{}", asked.action));
        Ok(Some(Said::Refusal(code, Box::new(error))))
    }

    /// The pages of a listing; `None` where there is no credential, or where the repository is not there.
    async fn pages<T: DeserializeOwned>(
        &self,
        api: &Api,
        asked: Asked<'_>,
        mut take: impl FnMut(T) -> Option<String>,
    ) -> Result<Listed> {
        let mut body = asked.body.clone();
        let mut seen = HashSet::new();
        loop {
            let page = Asked {
                body: &body,
                ..asked.clone()
            };
            let next = match self.ask::<T>(api, &page).await? {
                None => return Ok(Listed::NoCredential),
                Some(Said::Refusal(code, _)) if code == "RepositoryNotFoundException" => return Ok(Listed::Absent),
                Some(Said::Refusal(_, error)) => return Err(*error),
                Some(Said::Answer(page)) => take(page),
            };
            let Some(next) = next.filter(|token| !token.is_empty()) else {
                return Ok(Listed::All);
            };
            if seen.len() >= MOST_PAGES || !seen.insert(next.clone()) {
                let message = "the pages of ECR's list go in a circle, or there is no end of them";
                return Err(Error::new(asked.operation, asked.place, ErrorKind::Invalid, message));
            }
            body["nextToken"] = next.into();
        }
    }

    /// A request's body with the registry's id, where the host says it.
    fn body(&self, mut body: Map<String, Value>) -> Value {
        if let Some(host) = &self.host {
            body.insert("registryId".to_owned(), host.account.clone().into());
        }
        Value::Object(body)
    }
}

/// What the API said.
enum Said<T> {
    Answer(T),
    /// Its code, and the error that it is.
    Refusal(String, Box<Error>),
}

#[derive(Debug, PartialEq, Eq)]
enum Listed {
    All,
    Absent,
    NoCredential,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tokens {
    authorization_data: Vec<AuthorizationData>,
}

/// A token as both registries of AWS give it out.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuthorizationData {
    authorization_token: Secretive,
    expires_at: Option<f64>,
}

/// Text that is not printed.
#[derive(Deserialize)]
#[serde(transparent)]
struct Secretive(String);

impl AuthorizationData {
    /// User and password, and when they end. An end that lies in the past counts as an hour from `now`: true in the last part.
    pub(super) fn issued(&self, now: Timestamp) -> Option<(Issued, bool)> {
        let bytes = STANDARD.decode(self.authorization_token.0.trim()).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (username, password) = text.split_once(':')?;
        let told = self
            .expires_at
            .and_then(|seconds| Timestamp::from_second(seconds as i64).ok());
        let past = told.is_some_and(|ends| ends <= now);
        let ends = told.filter(|_| !past).unwrap_or(now + UNTOLD_LIFE);
        let credentials = Credentials {
            username: username.to_owned(),
            password: Secret::new(password),
        };
        let ends = Some(ends);
        Some((Issued { credentials, ends }, past))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Images {
    image_ids: Vec<ImageId>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageId {
    image_tag: Option<Tag>,
    image_digest: Option<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Repositories {
    repositories: Vec<Repository>,
    pub(super) next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Repository {
    repository_name: String,
}

impl Repositories {
    /// The names of a page, and where the next one begins.
    pub(super) fn take(self, into: &mut Vec<String>) -> Option<String> {
        into.extend(
            self.repositories
                .into_iter()
                .map(|repository| repository.repository_name),
        );
        self.next_token
    }
}

/// The request that makes a repository of these settings.
fn creation(repository: &RepositoryName, settings: &CreateSettings) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("repositoryName".to_owned(), repository.as_str().into());
    if let Some(immutable) = settings.immutable_tags {
        let word = if immutable { "IMMUTABLE" } else { "MUTABLE" };
        body.insert("imageTagMutability".to_owned(), word.into());
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
    if !settings.tags.is_empty() {
        let tags = settings
            .tags
            .iter()
            .map(|(key, value)| json!({ "Key": key, "Value": value }));
        body.insert("tags".to_owned(), tags.collect());
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
            let asked = Asked {
                operation: Operation::Authenticate,
                place: api.place(None),
                action: "GetAuthorizationToken",
                body: &json!({}),
            };
            let tokens: Tokens = match self.ask(api, &asked).await? {
                None => return Ok(None),
                Some(Said::Refusal(_, error)) => return Err(*error),
                Some(Said::Answer(tokens)) => tokens,
            };
            let issued = tokens.authorization_data.first().and_then(|data| data.issued(api.clock().now()));
            let (issued, past) = issued.ok_or_else(|| {
                let message = "ECR's API answers without a token";
                Error::new(Operation::Authenticate, api.place(None), ErrorKind::Invalid, message)
            })?;
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
            let mut tags = Vec::new();
            let listed = self
                .pages(api, asked, |page: Images| {
                    tags.extend(page.image_ids.into_iter().filter_map(|image| {
                        Some(ListedTag {
                            tag: image.image_tag?,
                            digest: image.image_digest,
                            media_type: None,
                            pushed: None,
                        })
                    }));
                    page.next_token
                })
                .await?;
            Ok(match listed {
                Listed::NoCredential => BulkListing::None,
                Listed::Absent => BulkListing::Absent,
                // Nothing at all is confirmed by the registry itself, for one request.
                Listed::All if tags.is_empty() => BulkListing::None,
                Listed::All => BulkListing::Known { tags, comparable: true },
            })
        }
        .boxed()
    }

    fn list_repositories<'a>(&'a self, api: &'a Api, _below: &'a [String]) -> Told<'a, Option<Vec<RepositoryName>>> {
        async move {
            let body = self.body(Map::from_iter([("maxResults".to_owned(), PAGE.into())]));
            let asked = Asked {
                operation: Operation::ListRepositories,
                place: api.place(None),
                action: "DescribeRepositories",
                body: &body,
            };
            let mut names = Vec::new();
            let listed = self
                .pages(api, asked, |page: Repositories| page.take(&mut names))
                .await?;
            let parsed = names.iter().filter_map(|name| name.parse().ok());
            Ok((listed == Listed::All).then(|| parsed.collect()))
        }
        .boxed()
    }

    fn create<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, Created> {
        async move {
            let body = self.body(creation(repository, &api.settings().create));
            let asked = Asked {
                operation: Operation::CreateRepository,
                place: api.place(Some(repository)),
                action: "CreateRepository",
                body: &body,
            };
            match self.ask::<Value>(api, &asked).await? {
                Some(Said::Answer(_)) => Ok(Created::Made),
                Some(Said::Refusal(code, _)) if code == "RepositoryAlreadyExistsException" => Ok(Created::WasThere),
                Some(Said::Refusal(_, error)) => Err(*error),
                None => {
                    let message = "a repository is made by AWS's API only, and there is no AWS credential; see `aws` of this registry";
                    Err(Error::new(
                        Operation::CreateRepository,
                        api.place(Some(repository)),
                        ErrorKind::Unauthorized,
                        message,
                    ))
                }
            }
        }
        .boxed()
    }
}
