//! What the APIs of both registries of AWS answer: refusals, pages, tokens.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{Asked, Aws, Fault};
use crate::oci::Digest;
use crate::registry::{Api, Created, Credentials, Error, ErrorKind, Issued, Operation, Place, Result};
use crate::telemetry::Secret;

/// The most blobs that a request asks for: `BatchedOperationLayerDigestList` of both API models.
pub(in crate::vendors) const BLOBS_AT_ONCE: usize = 100;
/// The most that a page holds.
pub(in crate::vendors) const PAGE: u32 = 1000;
/// Pages of one listing: ten times the images that a repository may have.
const MOST_PAGES: usize = 2_000;
/// How long a token is used whose end lies in the past, as from what stands in for AWS.
const UNTOLD_LIFE: SignedDuration = SignedDuration::from_hours(1);

/// Where an API is.
#[derive(Clone, Debug)]
pub(in crate::vendors) struct Site {
    pub(in crate::vendors) region: String,
    pub(in crate::vendors) host: String,
}

/// What an API said.
pub(in crate::vendors) enum Said<T> {
    Answer(T),
    /// It has its code, and says which permission is needed.
    Refusal(Box<Error>),
}

/// How far a listing came.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::vendors) enum Listed {
    All,
    /// The repository is not there.
    Absent,
    NoCredential,
}

/// True for a refusal with this code.
pub(in crate::vendors) fn is(error: &Error, code: &str) -> bool {
    error.code.as_deref() == Some(code)
}

impl Aws {
    /// Asks the API. `None` without any credential.
    pub(in crate::vendors) async fn said<T: DeserializeOwned>(
        &self,
        api: &Api,
        site: &Site,
        asked: &Asked<'_>,
    ) -> Result<Option<Said<T>>> {
        let Some(answer) = self.ask(api, &site.host, &site.region, asked).await? else {
            return Ok(None);
        };
        if answer.status == 200 {
            return Ok(Some(Said::Answer(answer.json()?)));
        }
        // Permissions begin with the name that signatures have.
        let action = format!("{}:{}", self.service, asked.action);
        let error = Fault::read(&answer.body).into_error(&answer, &action);
        Ok(Some(Said::Refusal(Box::new(error))))
    }

    /// Asks for all pages of a listing.
    pub(in crate::vendors) async fn pages<T: DeserializeOwned>(
        &self,
        api: &Api,
        site: &Site,
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
            let next = match self.said::<T>(api, site, &page).await? {
                None => return Ok(Listed::NoCredential),
                Some(Said::Refusal(error)) if is(&error, "RepositoryNotFoundException") => return Ok(Listed::Absent),
                Some(Said::Refusal(error)) => return Err(*error),
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

    /// Asks for a repository to be made.
    pub(in crate::vendors) async fn create(
        &self,
        api: &Api,
        site: &Site,
        place: Place,
        body: &Value,
    ) -> Result<Created> {
        let operation = Operation::CreateRepository;
        let asked = Asked {
            operation,
            place: place.clone(),
            action: "CreateRepository",
            body,
        };
        match self.said::<Value>(api, site, &asked).await? {
            Some(Said::Answer(_)) => Ok(Created::Made),
            Some(Said::Refusal(error)) if is(&error, "RepositoryAlreadyExistsException") => Ok(Created::WasThere),
            Some(Said::Refusal(error)) => Err(*error),
            None => {
                let message = "a repository is made by AWS's API only, and there is no AWS credential; see `aws` of this registry";
                Err(Error::new(operation, place, ErrorKind::Unauthorized, message))
            }
        }
    }

    /// Which of a repository's blobs are there: `body` names it, with the registry's id where that is needed. Empty once that was
    /// refused.
    pub(in crate::vendors) async fn held_blobs(
        &self,
        api: &Api,
        site: &Site,
        place: Place,
        (mut body, digests): (Map<String, Value>, &[Digest]),
    ) -> Result<BTreeMap<Digest, bool>> {
        if self.looks_one_by_one.load(Ordering::Relaxed) {
            return Ok(BTreeMap::new());
        }
        let digests = digests.iter().map(ToString::to_string).collect();
        body.insert("layerDigests".to_owned(), digests);
        let asked = Asked {
            operation: Operation::FindBlob,
            place,
            action: "BatchCheckLayerAvailability",
            body: &body.into(),
        };
        match self.said::<Layers>(api, site, &asked).await? {
            None => Ok(BTreeMap::new()),
            Some(Said::Answer(found)) => Ok(found.layers.into_iter().filter_map(Layer::held).collect()),
            Some(Said::Refusal(error)) => {
                if !error.kind.is_temporary() && error.kind != ErrorKind::NotFound {
                    self.looks_one_by_one.store(true, Ordering::Relaxed);
                }
                Err(*error)
            }
        }
    }

    /// Asks for a token.
    pub(in crate::vendors) async fn token<T: DeserializeOwned>(
        &self,
        api: &Api,
        site: &Site,
    ) -> Result<Option<Said<T>>> {
        let asked = Asked {
            operation: Operation::Authenticate,
            place: api.place(None),
            action: "GetAuthorizationToken",
            body: &json!({}),
        };
        self.said(api, site, &asked).await
    }
}

/// Labels of a repository that is to be made.
pub(in crate::vendors) fn labels(api: &Api) -> Option<Value> {
    let tags = &api.settings().create.tags;
    let labels = tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value }));
    (!tags.is_empty()).then(|| labels.collect())
}

/// A token as both registries give it out.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::vendors) struct AuthorizationData {
    authorization_token: String,
    expires_at: Option<f64>,
}

impl AuthorizationData {
    /// User and password, and when they end. An end that lies in the past counts as an hour from now: true in the last part.
    ///
    /// # Errors
    /// There is none in it.
    pub(in crate::vendors) fn issued(found: Option<&Self>, api: &Api) -> Result<(Issued, bool)> {
        found.and_then(|data| data.read(api.clock().now())).ok_or_else(|| {
            let message = "ECR's API answers without a token";
            Error::new(Operation::Authenticate, api.place(None), ErrorKind::Invalid, message)
        })
    }

    fn read(&self, now: Timestamp) -> Option<(Issued, bool)> {
        let bytes = STANDARD.decode(self.authorization_token.trim()).ok()?;
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
struct Layers {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    layer_digest: Option<Digest>,
    layer_availability: Option<String>,
}

impl Layer {
    /// Whether it is there; what is archived, or new, is neither.
    fn held(self) -> Option<(Digest, bool)> {
        let is_there = match self.layer_availability?.as_str() {
            "AVAILABLE" => true,
            "UNAVAILABLE" => false,
            _ => return None,
        };
        Some((self.layer_digest?, is_there))
    }
}

/// A page of `DescribeRepositories`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::vendors) struct Repositories {
    repositories: Vec<Repository>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Repository {
    repository_name: String,
}

impl Repositories {
    /// The names of a page, and where the next one begins.
    pub(in crate::vendors) fn take(self, into: &mut Vec<String>) -> Option<String> {
        into.extend(
            self.repositories
                .into_iter()
                .map(|repository| repository.repository_name),
        );
        self.next_token
    }
}
