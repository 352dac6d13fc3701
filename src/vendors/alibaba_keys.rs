//! Access keys of Alibaba Cloud: of the rules, of the environment, for an OIDC token (RRSA), of the ECS instance that we run on.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use serde::Deserialize;
use url::Url;

use super::acs3::{self, AccessKey};
use super::alibaba_api::{AcsCall, ask, ask_by_form};
use crate::registry::{AlibabaSettings, Api, Error, ErrorKind, Operation, Result};
use crate::telemetry::Secret;

/// How long a role is taken on for, in seconds.
const ROLE_LIFE: &str = "3600";
/// What the session with a role is called.
const SESSION: &str = "transship";
/// A key is not used any more when it ends so soon.
const LEAST_LIFE: Duration = Duration::from_secs(300);
/// How long it is believed that the instance has no key for us: asking a machine that is none of Alibaba's takes seconds.
const NOBODY_LIFE: Duration = Duration::from_secs(5 * 60);
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
    held: tokio::sync::Mutex<Option<Held>>,
    /// That there is no key was told.
    told: AtomicBool,
}

#[derive(Clone, Debug)]
struct Held {
    /// `None`: there is none anywhere.
    key: Option<AccessKey>,
    /// By the clock's monotonic time; `None` where it does not end.
    renew_at: Option<Duration>,
}

/// An access key, and when it ends.
struct Found {
    key: AccessKey,
    ends: Option<Timestamp>,
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

impl From<Temporary> for Found {
    fn from(told: Temporary) -> Self {
        Self {
            key: AccessKey {
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
            held: tokio::sync::Mutex::default(),
            told: AtomicBool::new(false),
        }
    }

    /// The key; `None` where there is none anywhere. `sts` is the host of STS that is near the registry.
    ///
    /// # Errors
    /// One that should be there could not be had.
    pub(super) async fn current(&self, api: &Api, sts: &str) -> Result<Option<AccessKey>> {
        let mut held = self.held.lock().await;
        let now = api.clock().elapsed();
        if let Some(held) = &*held
            && held.renew_at.is_none_or(|at| now < at)
        {
            return Ok(held.key.clone());
        }
        let Some(found) = self.find(api, sts).await? else {
            if self.written && !self.told.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    registry = %api.place(None).registry,
                    "no access key of Alibaba Cloud was found, in the rules, in the environment and by the instance's role: its \
                     API is not asked"
                );
            }
            *held = Some(Held {
                key: None,
                renew_at: Some(now + NOBODY_LIFE),
            });
            return Ok(None);
        };
        let left = found.ends.map(|ends| {
            let left = Duration::try_from(ends.duration_since(api.clock().now())).unwrap_or_default();
            left.saturating_sub(LEAST_LIFE).max(left / 5)
        });
        *held = Some(Held {
            key: Some(found.key.clone()),
            renew_at: left.map(|left| now + left),
        });
        Ok(Some(found.key))
    }

    /// The key is not taken any more: the next is read anew.
    pub(super) async fn forget(&self) {
        *self.held.lock().await = None;
    }

    async fn find(&self, api: &Api, sts: &str) -> Result<Option<Found>> {
        let Some(found) = self.find_own(api, sts).await? else {
            return Ok(None);
        };
        match &self.settings.role_arn {
            Some(role) => self.assume(api, sts, role, &found.key).await.map(Some),
            None => Ok(Some(found)),
        }
    }

    async fn find_own(&self, api: &Api, sts: &str) -> Result<Option<Found>> {
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
                return Ok(Some(Found { key, ends: None }));
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
                Err(Error::new(
                    Operation::Authenticate,
                    api.place(None),
                    error.kind,
                    message,
                ))
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
    async fn assume(&self, api: &Api, sts: &str, role: &str, key: &AccessKey) -> Result<Found> {
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
    async fn assume_by_token(&self, api: &Api, sts: &str, role: &str, provider: &str, token: &str) -> Result<Found> {
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
    async fn of_instance(&self, api: &Api, role: Option<&str>) -> Result<Found> {
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
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::response::IntoResponse;
    use serde_json::json;

    use super::super::alibaba::Account;
    use super::super::alibaba_enterprise::Enterprise;
    use super::*;
    use crate::clock::Clock;
    use crate::registry::{CloudSettings, Endpoint, Habits, Limiter, RegistrySettings, RegistryUrl, RemoteSettings};

    /// What an ECS instance tells of itself, and the API of a registry beside it.
    #[derive(Clone, Default)]
    struct Instance {
        seen: Arc<Mutex<Vec<String>>>,
        /// Seconds for which its keys are good.
        life: i64,
        /// It knows no tokens, as those of old.
        old: bool,
        /// It has no role.
        bare: bool,
    }

    async fn answer(instance: Instance, request: axum::extract::Request) -> axum::response::Response {
        let target = request.uri().path().to_owned();
        let header = |name: &str| {
            let value = request.headers().get(name);
            value
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let what = match target.strip_prefix("/latest/") {
            Some(path) => format!("{} {path}", request.method()),
            None => format!("{} by {}", header("x-acs-action"), header("x-acs-accesskey-id")),
        };
        instance.seen.lock().expect("not poisoned").push(what);
        let token = if instance.old { "" } else { "the-token" };
        let refused = || http::StatusCode::FORBIDDEN.into_response();
        match target.as_str() {
            "/latest/api/token" if instance.old => http::StatusCode::NOT_FOUND.into_response(),
            "/latest/api/token" if header("x-aliyun-ecs-metadata-token-ttl-seconds").is_empty() => refused(),
            "/latest/api/token" => token.into_response(),
            path if path.starts_with("/latest/") && header("x-aliyun-ecs-metadata-token") != token => refused(),
            "/latest/meta-data/ram/security-credentials/" if instance.bare => {
                http::StatusCode::NOT_FOUND.into_response()
            }
            "/latest/meta-data/ram/security-credentials/" => "replicator\n".into_response(),
            "/latest/meta-data/ram/security-credentials/replicator" => {
                let ends = Clock::system().now() + jiff::SignedDuration::from_secs(instance.life);
                axum::Json(json!({
                    "AccessKeyId": "STS.ecs", "AccessKeySecret": "s", "SecurityToken": "t", "Code": "Success",
                    "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                }))
                .into_response()
            }
            "/" if header("x-acs-security-token") != "t" => refused(),
            "/" => axum::Json(json!({ "IsSuccess": true, "Repositories": [], "TotalCount": "0" })).into_response(),
            _ => http::StatusCode::NOT_FOUND.into_response(),
        }
    }

    /// Lists repositories twice by the key of the instance; what it saw.
    async fn ask_twice(instance: Instance, settings: AlibabaSettings, written: bool) -> (Vec<String>, bool) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let serving = instance.clone();
        let app = axum::Router::new().fallback(move |request| answer(serving.clone(), request));
        // It ends with the test.
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await });
        let at = RegistryUrl {
            plain_http: true,
            host: host.clone(),
            path: String::new(),
        };
        let remote = RemoteSettings {
            url: at.clone(),
            endpoint: Some(at),
            cloud: match written {
                true => CloudSettings::Alibaba(AlibabaSettings {
                    instance_id: Some("cri-test".to_owned()),
                    region: Some("cn-test".to_owned()),
                    ..settings
                }),
                false => CloudSettings::None,
            },
            ..RemoteSettings::default()
        };
        let around = Surroundings {
            metadata: Some(format!("http://{host}")),
            ..Surroundings::default()
        };
        let vendor = Arc::new(Enterprise::new(Account::new(&remote, around)));
        let clock = Clock::system();
        let limiter = Limiter::default();
        let remote = RegistrySettings::Remote(Box::new(remote));
        let end = Endpoint::open("ali", &remote, Habits::default(), vendor, clock, &limiter).expect("an end");
        let below = ["corp/".to_owned()];
        let first = end.list_repositories(&below).await;
        let again = end.list_repositories(&below).await;
        let all = matches!((first, again), (Ok(Some(_)), Ok(Some(_))));
        let seen = instance.seen.lock().expect("not poisoned").clone();
        (seen, all)
    }

    #[tokio::test]
    async fn alibaba_keys_of_an_ecs_instance_are_renewed_before_they_end() {
        let folder = "GET meta-data/ram/security-credentials/";
        let role = "GET meta-data/ram/security-credentials/replicator";
        let list = "ListRepository by STS.ecs";
        let instance = |life, old| Instance {
            life,
            old,
            ..Instance::default()
        };
        let (seen, all) = ask_twice(instance(3600, false), AlibabaSettings::default(), true).await;
        assert!(all);
        assert_eq!(seen, ["PUT api/token", folder, role, list, list]);

        // Named in the rules, of an instance of old, with a key that has ended already.
        let named = AlibabaSettings {
            ram_role: Some("replicator".to_owned()),
            ..AlibabaSettings::default()
        };
        let (seen, all) = ask_twice(instance(-10, true), named, true).await;
        assert!(all);
        assert_eq!(
            seen.iter().filter(|what| *what == role).count(),
            seen.iter().filter(|what| *what == "PUT api/token").count()
        );
        assert!(seen.iter().filter(|what| *what == role).count() > 1 && !seen.contains(&folder.to_owned()));

        // Without a role there is no key, which is asked once.
        let mut bare = instance(3600, false);
        bare.bare = true;
        let (seen, _) = ask_twice(bare, AlibabaSettings::default(), true).await;
        let metadata: Vec<&String> = seen.iter().filter(|what| !what.contains(" by ")).collect();
        assert_eq!(metadata, ["PUT api/token", folder], "{seen:?}");

        // Nobody spoke of Alibaba's ways: nothing is asked.
        let (seen, _) = ask_twice(instance(3600, false), AlibabaSettings::default(), false).await;
        let asked = |what: &String| what.contains("meta-data") || what.contains("ListRepository");
        assert!(!seen.iter().any(asked), "{seen:?}");
    }
}
