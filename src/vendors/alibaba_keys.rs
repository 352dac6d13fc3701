//! Access keys of Alibaba Cloud: of the rules, of the environment, for an OIDC token (RRSA), of the ECS instance that we run on.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use serde::Deserialize;
use url::Url;

use super::acs3::{self, AccessKey};
use super::alibaba_api::{AcsCall, ask, ask_by_form};
use super::kept::{Current, Found, Kept};
use crate::registry::{AlibabaSettings, Api, Error, ErrorKind, Operation, Result};
use crate::telemetry::Secret;

/// How long a role is taken on for, in seconds.
const ROLE_LIFE: &str = "3600";
/// What the session with a role is called.
const SESSION: &str = "transship";
/// STS's version.
const VERSION: &str = "2015-04-01";

/// What the process's environment says, as a value, so that only [`Surroundings::of_process`] reads it. The variables are
/// those of Alibaba's own tools (aliyun/credentials-go).
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    pub(super) access_key_id: Option<String>,
    pub(super) access_key_secret: Option<Secret>,
    pub(super) security_token: Option<Secret>,
    pub(super) oidc_role: Option<String>,
    pub(super) oidc_provider: Option<String>,
    pub(super) oidc_token_file: Option<PathBuf>,
    /// The name of the instance's role: says that there is one.
    pub(super) ecs_role: Option<String>,
    /// Host or URL of STS.
    pub(super) sts: Option<String>,
    /// Where the instance tells of itself, in place of where it does.
    pub(super) metadata: Option<String>,
}

impl Surroundings {
    /// As this process has them.
    pub(super) fn of_process() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            access_key_id: text("ALIBABA_CLOUD_ACCESS_KEY_ID"),
            access_key_secret: text("ALIBABA_CLOUD_ACCESS_KEY_SECRET").map(Secret::new),
            security_token: text("ALIBABA_CLOUD_SECURITY_TOKEN").map(Secret::new),
            oidc_role: text("ALIBABA_CLOUD_ROLE_ARN"),
            oidc_provider: text("ALIBABA_CLOUD_OIDC_PROVIDER_ARN"),
            oidc_token_file: text("ALIBABA_CLOUD_OIDC_TOKEN_FILE").map(PathBuf::from),
            ecs_role: text("ALIBABA_CLOUD_ECS_METADATA"),
            sts: text("ALIBABA_CLOUD_STS_ENDPOINT"),
            metadata: None,
        }
    }
}

/// The access key of one registry, read when it is first needed and again before it ends.
#[derive(Debug)]
pub(super) struct AccessKeys {
    settings: AlibabaSettings,
    /// Whether the rules have `alibaba:` at all.
    written: bool,
    surroundings: Surroundings,
    kept: Kept<AccessKey>,
    /// That there is no key was told.
    told: AtomicBool,
}

/// What STS and the instance say. STS calls the token `SecurityToken` too.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Temporary {
    access_key_id: String,
    access_key_secret: String,
    security_token: String,
    expiration: Timestamp,
}

impl From<Temporary> for Found<AccessKey> {
    fn from(told: Temporary) -> Self {
        Self {
            value: AccessKey {
                id: told.access_key_id,
                secret: Secret::new(told.access_key_secret),
                token: Some(Secret::new(told.security_token)),
            },
            ends: Some(told.expiration),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Assumed {
    credentials: Temporary,
}

impl AccessKeys {
    pub(super) fn new(settings: AlibabaSettings, written: bool, surroundings: Surroundings) -> Self {
        Self {
            settings,
            written,
            surroundings,
            kept: Kept::default(),
            told: AtomicBool::new(false),
        }
    }

    /// The key; `None` where there is none anywhere. `sts` is the host of STS that is near the registry.
    ///
    /// # Errors
    /// One that should be there could not be had.
    pub(super) async fn current(&self, api: &Api, sts: &str) -> Result<Option<AccessKey>> {
        match self.kept.current(api.clock(), self.find(api, sts)).await? {
            Current::Is(key) => Ok(Some(key)),
            Current::Nothing => {
                if self.written && !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        registry = %api.place(None).registry,
                        "no access key of Alibaba Cloud was found, in the rules, in the environment and by the instance's role: \
                         its API is not asked"
                    );
                }
                Ok(None)
            }
            Current::Gone => {
                let message =
                    "the access key that was used so far cannot be had anew: the ECS instance does not give it out";
                Err(Error::new(
                    Operation::Authenticate,
                    api.place(None),
                    ErrorKind::Network,
                    message,
                ))
            }
        }
    }

    /// This key is not taken any more: the next is read anew.
    pub(super) async fn forget(&self, refused: &AccessKey) {
        self.kept.forget(refused).await;
    }

    async fn find(&self, api: &Api, sts: &str) -> Result<Option<Found<AccessKey>>> {
        let Some(found) = self.find_own(api, sts).await? else {
            return Ok(None);
        };
        match &self.settings.role_arn {
            Some(role) => self.assume(api, sts, role, &found.value).await.map(Some),
            None => Ok(Some(found)),
        }
    }

    async fn find_own(&self, api: &Api, sts: &str) -> Result<Option<Found<AccessKey>>> {
        let (rules, around) = (&self.settings, &self.surroundings);
        let pairs = [
            (&rules.access_key_id, &rules.access_key_secret, &rules.security_token),
            (&around.access_key_id, &around.access_key_secret, &around.security_token),
        ];
        // A role of the instance that the rules name is meant, whatever else is around.
        let pairs = if rules.ram_role.is_some() {
            &pairs[..1]
        } else {
            &pairs[..]
        };
        for (id, secret, token) in pairs {
            if let (Some(id), Some(secret)) = (id, secret) {
                let key = AccessKey {
                    id: id.clone(),
                    secret: secret.clone(),
                    token: token.as_ref().cloned(),
                };
                return Ok(Some(Found { value: key, ends: None }));
            }
        }
        if let (Some(role), Some(provider), Some(file), None) = (
            &around.oidc_role,
            &around.oidc_provider,
            &around.oidc_token_file,
            &rules.ram_role,
        ) {
            let token = tokio::fs::read_to_string(file).await.map_err(|error| {
                let message = format!("the OIDC token cannot be read from {}", file.display());
                Error::new(Operation::Authenticate, api.place(None), ErrorKind::Config, message).caused_by(error)
            })?;
            return self
                .assume_by_token(api, sts, role, provider, token.trim())
                .await
                .map(Some);
        }
        let role = rules.ram_role.as_ref().or(around.ecs_role.as_ref());
        match (self.of_instance(api, role.map(String::as_str)).await, role) {
            (Ok(found), _) => Ok(Some(found)),
            (Err(error), Some(role)) => {
                let message = format!(
                    "the ECS instance gives no access key for its role {role:?}: {}",
                    error.message
                );
                let kind = match error.kind {
                    ErrorKind::NotFound => ErrorKind::Config,
                    kind => kind,
                };
                Err(Error::new(Operation::Authenticate, api.place(None), kind, message))
            }
            // Nobody said that there is one.
            (Err(_), None) => Ok(None),
        }
    }

    fn sts(&self, api: &Api, host: &str, query: &str) -> Result<Url> {
        let host = self.surroundings.sts.as_deref().unwrap_or(host);
        let text = match host.contains("://") {
            true => format!("{}/?{query}", host.trim_end_matches('/')),
            false => format!("https://{host}/?{query}"),
        };
        Url::parse(&text).map_err(|error| {
            let message = "the address of STS is none: check `alibaba.region` and ALIBABA_CLOUD_STS_ENDPOINT";
            Error::new(Operation::Authenticate, api.place(None), ErrorKind::Config, message).caused_by(error)
        })
    }

    /// Takes on a role by the right of a key.
    async fn assume(&self, api: &Api, sts: &str, role: &str, key: &AccessKey) -> Result<Found<AccessKey>> {
        let query = [
            ("DurationSeconds", ROLE_LIFE),
            ("RoleArn", role),
            ("RoleSessionName", SESSION),
        ];
        let call = AcsCall {
            operation: Operation::Authenticate,
            place: api.place(None),
            method: Method::POST,
            url: self.sts(api, sts, &acs3::query(&query))?,
            query: &query,
            version: VERSION,
            action: "AssumeRole",
            body: Bytes::new(),
        };
        let answer = ask(api, call, key).await?;
        Ok(answer.json::<Assumed>()?.credentials.into())
    }

    /// Takes on a role by the right of a token of another issuer (RRSA: of the cluster). The token goes in the body, which no
    /// proxy writes down.
    async fn assume_by_token(
        &self,
        api: &Api,
        sts: &str,
        role: &str,
        provider: &str,
        token: &str,
    ) -> Result<Found<AccessKey>> {
        let now = api.clock().now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let query = acs3::query(&[
            ("Action", "AssumeRoleWithOIDC"),
            ("Format", "JSON"),
            ("Timestamp", &now),
            ("Version", VERSION),
        ]);
        let form = [
            ("DurationSeconds", ROLE_LIFE),
            ("OIDCProviderArn", provider),
            ("OIDCToken", token),
            ("RoleArn", role),
            ("RoleSessionName", SESSION),
        ];
        let url = self.sts(api, sts, &query)?;
        let answer = ask_by_form(api, url, "AssumeRoleWithOIDC", &form).await?;
        Ok(answer.json::<Assumed>()?.credentials.into())
    }

    /// What the ECS instance gives out for its role. Without `role` it is asked which one it has.
    async fn of_instance(&self, api: &Api, role: Option<&str>) -> Result<Found<AccessKey>> {
        let none = || {
            Error::new(
                Operation::Authenticate,
                api.place(None),
                ErrorKind::NotFound,
                "it has no role",
            )
        };
        // Nobody is asked who was not spoken of.
        if role.is_none() && !self.written {
            return Err(none());
        }
        let base = self
            .surroundings
            .metadata
            .as_deref()
            .unwrap_or("http://100.100.100.200");
        let url = |path: &str| Url::parse(&format!("{base}/latest/{path}")).map_err(|_| none());
        let mut headers = HeaderMap::new();
        let life = HeaderName::from_static("x-aliyun-ecs-metadata-token-ttl-seconds");
        headers.insert(life, HeaderValue::from_static("300"));
        let answer = api
            .metadata(Method::PUT, url("api/token")?, headers, Bytes::new())
            .await?;
        let mut headers = HeaderMap::new();
        // Instances of old take the question without it.
        if answer.status == 200
            && let Ok(mut token) = HeaderValue::from_bytes(answer.body.trim_ascii())
        {
            token.set_sensitive(true);
            headers.insert(HeaderName::from_static("x-aliyun-ecs-metadata-token"), token);
        }
        let folder = "meta-data/ram/security-credentials/";
        let role = match role {
            Some(role) => role.to_owned(),
            None => {
                let answer = api
                    .metadata(Method::GET, url(folder)?, headers.clone(), Bytes::new())
                    .await?;
                if answer.status != 200 {
                    return Err(none());
                }
                String::from_utf8_lossy(answer.body.trim_ascii()).into_owned()
            }
        };
        let path = format!("{folder}{}", acs3::escaped(&role));
        let answer = api.metadata(Method::GET, url(&path)?, headers, Bytes::new()).await?;
        match answer.status {
            200 => Ok(answer.json::<Temporary>()?.into()),
            404 => Err(none()),
            _ => Err(answer.refused("")),
        }
    }
}

#[cfg(test)]
mod tests;
