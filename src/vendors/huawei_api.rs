//! Huawei Cloud's API of its registry: who asks it, where it is, and what its refusals mean.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;

use super::acs3;
use super::huawei_instance::Instance;
use super::keyed::heeded;
use super::sdk_hmac::{self, AccessKey, Unsigned};
use super::words::{code, said};
use crate::oci::RepositoryName;
use crate::registry::{
    Api, ApiAnswer, ApiCall, CloudSettings, Error, ErrorKind, HuaweiSettings, Operation, RemoteSettings, Result,
};
use crate::telemetry::Secret;

/// By how much this machine's clock may be off.
const CLOCK_OFF: Duration = Duration::from_secs(15 * 60);
/// A signature is good for 15 minutes. What was signed longer ago than this and is called too old has waited for its turn.
const SIGNATURE_LIFE: Duration = Duration::from_secs(14 * 60);

/// What the process's environment says, as a value, so that only [`Surroundings::of_process`] reads it. The variables are
/// those of Huawei's own SDKs (PyPI `huaweicloudsdkcore` 3.1.219, `auth/provider.py`).
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    pub(super) access_key: Option<String>,
    pub(super) secret_key: Option<Secret>,
    pub(super) security_token: Option<Secret>,
    pub(super) project_id: Option<String>,
    /// Where the ECS instance tells of itself, in place of where it does.
    pub(super) metadata: Option<String>,
}

impl Surroundings {
    /// As this process has them.
    pub(super) fn of_process() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            access_key: text("HUAWEICLOUD_SDK_AK"),
            secret_key: text("HUAWEICLOUD_SDK_SK").map(Secret::new),
            security_token: text("HUAWEICLOUD_SDK_SECURITY_TOKEN").map(Secret::new),
            project_id: text("HUAWEICLOUD_SDK_PROJECT_ID"),
            metadata: None,
        }
    }
}

/// Who asks the API of one registry.
#[derive(Debug)]
pub(super) struct Account {
    settings: HuaweiSettings,
    /// Whether the rules have `huawei:` at all.
    written: bool,
    around: Surroundings,
    instance: Instance,
    /// That there is no key was told.
    told: AtomicBool,
}

/// A key, and what it is for.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) key: AccessKey,
    /// The name of the project: the region's own, unless another is written.
    pub(super) project: String,
    project_id: Option<String>,
    /// Where the API is.
    host: String,
}

/// One request to the API.
pub(super) struct Request<'a> {
    pub(super) operation: Operation,
    pub(super) repository: Option<&'a RepositoryName>,
    pub(super) method: Method,
    /// With nothing to be escaped.
    pub(super) path: &'a str,
    pub(super) query: &'a [(&'a str, &'a str)],
    /// The action that IAM has to grant for it.
    pub(super) right: &'static str,
}

impl Account {
    pub(super) fn new(remote: &RemoteSettings, around: Surroundings) -> Self {
        let (written, settings) = match &remote.cloud {
            CloudSettings::Huawei(huawei) => (true, huawei.clone()),
            _ => (false, HuaweiSettings::default()),
        };
        Self {
            around: heeded(remote, written, around),
            settings,
            written,
            instance: Instance::default(),
            told: AtomicBool::new(false),
        }
    }

    /// The key and the API; `None` without a key, and where only the environment has one and the region is not known.
    ///
    /// # Errors
    /// `Config` where the rules name a key and no region can be told; the instance answers neither a key nor that there is none, or
    /// gave out a key before, and does not now.
    pub(super) async fn site(&self, api: &Api) -> Result<Option<Site>> {
        let Some((key, project_id)) = self.key(api).await? else {
            if self.written && !self.told.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    registry = %api.place(None).registry,
                    "no access key of Huawei Cloud was found, in the rules, in the environment and by the instance's agency: its API \
                     is not asked"
                );
            }
            return Ok(None);
        };
        let host = api.settings().url.host.to_ascii_lowercase();
        let named = self.settings.region.as_deref().or_else(|| region(&host));
        let region = match named {
            Some(region) if is_region(region) => region,
            None if !self.written => return Ok(None),
            other => {
                let why = match other {
                    Some(_) => "`huawei.region` is no region: write one such as cn-north-4",
                    None => "the region is not known: set `huawei.region` of this registry",
                };
                return Err(Error::new(
                    Operation::Authenticate,
                    api.place(None),
                    ErrorKind::Config,
                    why,
                ));
            }
        };
        Ok(Some(Site {
            key,
            project: self.settings.project_name.as_deref().unwrap_or(region).to_owned(),
            project_id,
            host: api_host(region),
        }))
    }

    /// A key with the id of its project, where that is said: of the rules, of the environment, of the ECS instance that we run on.
    async fn key(&self, api: &Api) -> Result<Option<(AccessKey, Option<String>)>> {
        if let Some(found) = self.lasting_key() {
            return Ok(Some(found));
        }
        // Nobody is asked who was not spoken of.
        if !self.written {
            return Ok(None);
        }
        let key = self.instance.key(api, self.around.metadata.as_deref()).await?;
        Ok(key.map(|key| (key, self.settings.project_id.clone())))
    }

    /// A key that is there for as long as the process.
    fn lasting_key(&self) -> Option<(AccessKey, Option<String>)> {
        let (rules, around) = (&self.settings, &self.around);
        let places = [
            (&rules.access_key, &rules.secret_key, &rules.security_token, None),
            (
                &around.access_key,
                &around.secret_key,
                &around.security_token,
                around.project_id.clone(),
            ),
        ];
        places.into_iter().find_map(|(id, secret, token, project_id)| {
            let key = AccessKey {
                id: id.clone()?,
                secret: secret.clone()?,
                token: token.clone(),
            };
            Some((key, rules.project_id.clone().or(project_id)))
        })
    }
}

/// The region of a registry's own host.
fn region(host: &str) -> Option<&str> {
    let host = host.strip_suffix(":443").unwrap_or(host);
    let (region, domain) = host.strip_prefix("swr.")?.split_once('.')?;
    (is_region(region) && domain == domain_of(region)).then_some(region)
}

/// True for what can be one label of a host and nothing else: our key signs for the host that is made of it.
fn is_region(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(is_plain)
}

/// PyPI `huaweicloudsdkswr` 3.1.219, `region/swr_region.py`: one region is elsewhere.
fn domain_of(region: &str) -> &'static str {
    match region {
        "eu-west-101" => "myhuaweicloud.eu",
        _ => "myhuaweicloud.com",
    }
}

fn api_host(region: &str) -> String {
    format!("swr-api.{region}.{}", domain_of(region))
}

/// Sends a request that the account's key signs, to Huawei's own host of the region or to `endpoint:`, and gives the answer where
/// it is no refusal. A key of the instance that is not taken any more is got anew, once.
///
/// # Errors
/// What its status says; `NotFound` only in words of the API's.
pub(super) async fn ask(api: &Api, account: &Account, site: &Site, request: &Request<'_>) -> Result<ApiAnswer> {
    let refused = match ask_by(api, site, request).await {
        Err(error) if error.kind == ErrorKind::Unauthorized && site.key.token.is_some() => error,
        told => return told,
    };
    account.instance.forget(&site.key).await;
    match account.site(api).await? {
        Some(renewed) if renewed.key != site.key => ask_by(api, &renewed, request).await,
        _ => Err(refused),
    }
}

async fn ask_by(api: &Api, site: &Site, request: &Request<'_>) -> Result<ApiAnswer> {
    let path = match request.query {
        [] => request.path.to_owned(),
        query => format!("{}?{}", request.path, acs3::query(query)),
    };
    let url = api.at(&site.host, &path)?;
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    let unsigned = Unsigned {
        method: request.method.as_str(),
        host: &host,
        path: url.path(),
        query: request.query,
        project_id: site.project_id.as_deref(),
        body: b"",
    };
    let mut again = false;
    loop {
        let signed_at = api.clock().elapsed();
        let place = api.place(request.repository);
        let headers = sdk_hmac::sign(&unsigned, &site.key, api.clock().now()).ok_or_else(|| {
            let message = "the key or the project has characters that none has: check `huawei` of this registry";
            Error::new(request.operation, place.clone(), ErrorKind::Config, message)
        })?;
        let call = ApiCall {
            method: request.method.clone(),
            headers,
            ..ApiCall::get(request.operation, place, url.clone())
        };
        api.signs(CLOCK_OFF);
        let answer = api.call(call).await?;
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        let waited = api.clock().elapsed().saturating_sub(signed_at) > SIGNATURE_LIFE;
        if again || !waited || answer.status != 401 || !has_expired(&said(&answer.body)) {
            return Err(refusal(&answer, request.right, site.key.token.is_some()));
        }
        again = true;
    }
}

fn has_expired(message: &str) -> bool {
    message.to_ascii_lowercase().contains("expired")
}

fn refusal(answer: &ApiAnswer, right: &str, is_temporary: bool) -> Error {
    let (code, message) = (code(&answer.body).unwrap_or_default(), said(&answer.body));
    // Of a signature it may repeat what was signed.
    let words = match answer.status {
        401 => code.clone(),
        _ => format!("{code} {message}"),
    };
    let mut error = answer.refused(words.trim());
    // Before the API stands a gateway, which has codes of its own: there the API itself is not to be found.
    if error.kind == ErrorKind::NotFound && (code.is_empty() || code.starts_with("API")) {
        error.kind = ErrorKind::Server;
    }
    error.code = answer.told(Some(code));
    let advice = advice(answer.status, &message, right, is_temporary);
    if !advice.is_empty() {
        error.message = format!("{}; {advice}", error.message);
    }
    error
}

/// What the user can do (support.huaweicloud.com, devg-apisign, "Common Errors Related to IAM Authentication Information").
fn advice(status: u16, message: &str, right: &str, is_temporary: bool) -> String {
    let has_expired = has_expired(message);
    match status {
        401 if has_expired && is_temporary => {
            "the temporary key has ended, or the clock of this machine is more than 15 minutes off".to_owned()
        }
        401 if has_expired => "the clock of this machine is more than 15 minutes off: set it right".to_owned(),
        401 => "check the access key (`huawei:` of this registry, or HUAWEICLOUD_SDK_AK)".to_owned(),
        403 => format!("grant the IAM action {right}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::LoginSource;

    #[test]
    fn huawei_regions_by_host_lead_to_huaweis_own_hosts_alone() {
        for (host, wanted) in [
            (
                "swr.cn-north-4.myhuaweicloud.com",
                Some("swr-api.cn-north-4.myhuaweicloud.com"),
            ),
            (
                "swr.cn-north-4.myhuaweicloud.com:443",
                Some("swr-api.cn-north-4.myhuaweicloud.com"),
            ),
            (
                "swr.eu-west-101.myhuaweicloud.eu",
                Some("swr-api.eu-west-101.myhuaweicloud.eu"),
            ),
            ("swr.cn-north-4.myhuaweicloud.eu", None),
            ("swr.cn-north-4.myhuaweicloud.com:8443", None),
            ("swr.a.b.myhuaweicloud.com", None),
            ("swr..myhuaweicloud.com", None),
            ("swr.cn-north-4.myhuaweicloud.com.evil.example", None),
            ("swr.cn-north-4.evil.example", None),
            ("registry.corp.example", None),
            ("127.0.0.1:5000", None),
        ] {
            assert_eq!(region(host).map(api_host).as_deref(), wanted, "{host}");
        }
        // What is written into the rules makes no other host of it.
        for text in [
            "",
            "evil.example/",
            "a.b",
            "a@evil.example",
            "a#",
            "a?",
            "A",
            "a:1",
            "ä",
        ] {
            assert!(!is_region(text), "{text}");
        }
        assert!(is_region("cn-north-4"));
    }

    #[test]
    fn huawei_keys_of_the_rules_go_before_those_of_the_environment() {
        let around = Surroundings {
            access_key: Some("AKenv".to_owned()),
            secret_key: Some(Secret::new("s")),
            security_token: Some(Secret::new("t")),
            project_id: Some("penv".to_owned()),
            metadata: None,
        };
        let of = |settings: HuaweiSettings| {
            let remote = RemoteSettings {
                cloud: CloudSettings::Huawei(settings),
                ..RemoteSettings::default()
            };
            let found = Account::new(&remote, around.clone()).lasting_key();
            found.map(|(key, project)| (key.id, key.token.is_some(), project))
        };
        let rules = HuaweiSettings {
            access_key: Some("AKrules".to_owned()),
            secret_key: Some(Secret::new("s")),
            ..HuaweiSettings::default()
        };
        // Neither the token nor the project of the one is for the other's key.
        assert_eq!(of(rules.clone()), Some(("AKrules".to_owned(), false, None)));
        assert_eq!(
            of(HuaweiSettings::default()),
            Some(("AKenv".to_owned(), true, Some("penv".to_owned())))
        );
        let without = Account::new(&RemoteSettings::default(), Surroundings::default());
        assert_eq!(without.lasting_key(), None);
        // Somebody else logs in than the environment's user.
        for login in [LoginSource::Anonymous, LoginSource::DockerConfig] {
            let is_found = login == LoginSource::DockerConfig;
            let remote = RemoteSettings {
                login,
                ..RemoteSettings::default()
            };
            assert_eq!(Account::new(&remote, around.clone()).lasting_key().is_some(), is_found);
        }
    }

    #[test]
    fn huawei_refusals_say_what_to_do() {
        let expired = "Incorrect IAM authentication information: calc ak sk signature fail:signature expired";
        for (status, message, is_temporary, words) in [
            (401, expired, false, "the clock of this machine"),
            (401, expired, true, "the temporary key has ended"),
            (401, "verify aksk signature fail", false, "check the access key"),
            (403, "", false, "grant the IAM action swr:repo:listRepoTags"),
        ] {
            let told = advice(status, message, "swr:repo:listRepoTags", is_temporary);
            assert!(told.starts_with(words), "{told}");
        }
        assert_eq!(advice(404, "expired", "r", false), "");
    }
}
