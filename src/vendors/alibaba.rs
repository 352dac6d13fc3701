//! Alibaba Cloud Container Registry: where its API is and who asks it, for both editions.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde_json::Value;

use super::acs3::{self, AccessKey};
use super::alibaba_api::{AcsCall, ask};
use super::alibaba_enterprise::Enterprise;
use super::alibaba_keys::AccessKeys;
pub(super) use super::alibaba_keys::Surroundings;
use super::alibaba_personal::Personal;
use super::awaited::Awaited;
use super::keyed::heeded;
use super::table::Row;
use crate::oci::{Digest, RepositoryName};
use crate::registry::{
    AlibabaSettings, Api, ApiAnswer, ApiCall, CloudSettings, Credentials, Error, ErrorKind, Habits, Issued, Kind,
    ListedTag, Operation, Place, RemoteSettings, Result, Vendor,
};
use crate::telemetry::Secret;

pub(super) static ENTERPRISE: Row = Row {
    kind: Kind::AlibabaEnterprise,
    habits,
    vendor: |settings| enterprise(settings, Surroundings::of_process()),
};

pub(super) static PERSONAL: Row = Row {
    kind: Kind::AlibabaPersonal,
    habits,
    vendor: |settings| personal(settings, Surroundings::of_process()),
};

/// The enterprise edition, with what is known of us here.
pub(super) fn enterprise(settings: &RemoteSettings, around: Surroundings) -> Arc<dyn Vendor> {
    Arc::new(Enterprise::new(Account::new(settings, around)))
}

/// The personal edition, with what is known of us here.
pub(super) fn personal(settings: &RemoteSettings, around: Surroundings) -> Arc<dyn Vendor> {
    Arc::new(Personal::new(Account::new(settings, around)))
}

fn habits(habits: &mut Habits) {
    // Realms such as https://dockerauth.cn-hangzhou.aliyuncs.com/auth: the challenge of registry.cn-hangzhou.aliyuncs.com. By the
    // beginnings of regions, as below other names there are things of users', such as a bucket at dockerauth.oss-cn-hangzhou.
    habits.token_hosts = ["cn", "ap", "eu", "me", "na", "us"]
        .iter()
        .flat_map(|area| ["dockerauth", "dockerauth-*"].map(|name| format!("{name}.{area}-*.aliyuncs.com")))
        .collect();
    // What goharbor/harbor, adapter aliacr, keeps to.
    habits.api_per_second = Some(15);
}

/// How long it is believed where a registry is: it does not move.
const SITE_LIFE: Duration = Duration::from_secs(u32::MAX as u64);

/// Where a registry is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) region: Option<String>,
    /// Reached inside Alibaba's network, as its API is then.
    pub(super) vpc: bool,
    /// The instance of the enterprise edition.
    pub(super) instance: Option<String>,
}

impl Site {
    /// What the host tells.
    fn of_host(host: &str) -> Self {
        let host = host.to_ascii_lowercase();
        let mut labels = host.split('.');
        let (first, second) = (labels.next().unwrap_or_default(), labels.next());
        if !host.ends_with(".aliyuncs.com") {
            return Self::default();
        }
        Self {
            region: second.map(str::to_owned),
            vpc: first.ends_with("-vpc") || first.ends_with("-internal"),
            instance: None,
        }
    }

    /// What the service of a challenge tells: `registry.aliyuncs.com:<region>:<number or china>[:<instance>]`
    /// (goharbor/harbor, adapter aliacr, `parseRegistryService`).
    fn of_service(service: &str) -> Option<Self> {
        let mut parts = service.strip_prefix("registry.aliyuncs.com:")?.split(':');
        // It goes into the name of a host that our signatures are for, and anybody may write a challenge.
        let region = parts.next().filter(|region| is_label(region))?;
        Some(Self {
            region: Some(region.to_owned()),
            vpc: false,
            instance: parts
                .find(|part| part.starts_with("cri-") && is_label(part))
                .map(str::to_owned),
        })
    }

    fn api_host(&self) -> Option<String> {
        let region = self.region.as_deref()?;
        let name = if self.vpc { "cr-vpc" } else { "cr" };
        Some(format!("{name}.{region}.aliyuncs.com"))
    }

    fn sts_host(&self) -> String {
        match (self.region.as_deref(), self.vpc) {
            (Some(region), true) => format!("sts-vpc.{region}.aliyuncs.com"),
            (Some(region), false) => format!("sts.{region}.aliyuncs.com"),
            (None, _) => "sts.aliyuncs.com".to_owned(),
        }
    }
}

/// True for what can be one label of a host's name.
fn is_label(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(fits)
}

/// Who asks a registry's API, and where it is.
#[derive(Debug)]
pub(super) struct Account {
    settings: AlibabaSettings,
    keys: AccessKeys,
    /// As far as its challenge tells.
    site: Awaited<Site>,
}

/// One request to the API of a registry.
pub(super) struct Request<'a> {
    pub(super) operation: Operation,
    pub(super) repository: Option<&'a RepositoryName>,
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) version: &'a str,
    pub(super) action: &'a str,
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) body: Bytes,
}

impl Account {
    pub(super) fn new(remote: &RemoteSettings, surroundings: Surroundings) -> Self {
        let (written, settings) = match &remote.cloud {
            CloudSettings::Alibaba(alibaba) => (true, alibaba.clone()),
            _ => (false, AlibabaSettings::default()),
        };
        Self {
            keys: AccessKeys::new(settings.clone(), written, heeded(remote, written, surroundings)),
            settings,
            site: Awaited::default(),
        }
    }

    /// Where the registry is, by the rules, by its host, by its challenge: its region, or its instance where `with_instance`.
    ///
    /// # Errors
    /// It cannot be reached, or says nothing of itself for now, where it has to be asked.
    pub(super) async fn site(&self, api: &Api, with_instance: bool) -> Result<Site> {
        let of_host = Site::of_host(&api.settings().url.host);
        let site = Site {
            region: self.settings.region.clone().or(of_host.region),
            instance: self.settings.instance_id.clone(),
            vpc: of_host.vpc,
        };
        let is_enough = |site: &Site| match with_instance {
            true => site.instance.is_some(),
            false => site.region.is_some(),
        };
        if is_enough(&site) {
            return Ok(site);
        }
        let life = |found: &Result<Site>| match found {
            Ok(_) => SITE_LIFE,
            Err(_) => Duration::ZERO,
        };
        let look = async {
            let told = challenge(api).await?.as_deref().and_then(Site::of_service);
            let told = told.unwrap_or_default();
            Ok(Site {
                region: site.region.or(told.region),
                instance: site.instance.or(told.instance),
                vpc: site.vpc,
            })
        };
        self.site.get(api.clock(), is_enough, life, look).await
    }

    async fn key(&self, api: &Api) -> Result<Option<AccessKey>> {
        // Without the question where the registry is: most have no key, and then it does not matter.
        let of_host = Site::of_host(&api.settings().url.host);
        let site = Site {
            region: self.settings.region.clone().or(of_host.region),
            ..of_host
        };
        self.keys.current(api, &site.sts_host()).await
    }

    /// True where there is an access key at all.
    ///
    /// # Errors
    /// One that should be there could not be had.
    pub(super) async fn has_key(&self, api: &Api) -> Result<bool> {
        Ok(self.key(api).await?.is_some())
    }

    /// Asks the API; `None` where there is no access key. A temporary key that is not taken any more is renewed once.
    ///
    /// # Errors
    /// Those of [`ask`], and a region that is not known.
    pub(super) async fn ask(&self, api: &Api, request: Request<'_>) -> Result<Option<ApiAnswer>> {
        let place = api.place(request.repository);
        let host = match &api.settings().endpoint {
            // It stands in for the host.
            Some(_) => String::new(),
            None => self.site(api, false).await?.api_host().ok_or_else(|| {
                let message = "the region is not known: set `alibaba.region` of this registry";
                Error::new(request.operation, place.clone(), ErrorKind::Config, message)
            })?,
        };
        let target = match request.query {
            [] => request.path.to_owned(),
            query => format!("{}?{}", request.path, acs3::query(query)),
        };
        let url = api.at(&host, &target)?;
        for renewed in [false, true] {
            let Some(key) = self.key(api).await? else {
                return Ok(None);
            };
            let call = AcsCall {
                operation: request.operation,
                place: place.clone(),
                method: request.method.clone(),
                url: url.clone(),
                query: request.query,
                version: request.version,
                action: request.action,
                body: request.body.clone(),
            };
            match ask(api, call, &key).await {
                Err(error) if error.kind == ErrorKind::Unauthorized && key.token.is_some() && !renewed => {
                    self.keys.forget(&key).await;
                }
                Err(error) => return Err(error),
                Ok(answer) => return Ok(Some(answer)),
            }
        }
        Ok(None)
    }
}

/// The service that the registry's challenge names; `None` where it wants no login, or names none.
///
/// # Errors
/// It cannot be reached, or answers otherwise, as a load balancer does whose registry is away.
async fn challenge(api: &Api) -> Result<Option<String>> {
    if let Some(service) = api.seen().and_then(|seen| seen.service) {
        return Ok(Some(service));
    }
    // It waits for no place: who waits for this may hold one.
    let call = ApiCall::get(Operation::Authenticate, api.place(None), api.own("/v2/")?);
    let answer = api.call(call).await?;
    match answer.status {
        200 | 401 => Ok(answer.shows().service),
        _ => Err(answer.refused("")),
    }
}

/// What a listing says that a tag points to: hex digits without the algorithm before them (ListRepoTag, GetRepoTags).
pub(super) fn listed_tag(tag: &str, digest: &str, pushed: Option<&Value>) -> Option<ListedTag> {
    let digest = match digest.contains(':') {
        true => digest.parse().ok(),
        false => format!("sha256:{digest}").parse::<Digest>().ok(),
    };
    Some(ListedTag {
        tag: tag.parse().ok()?,
        digest,
        media_type: None,
        pushed: pushed.and_then(milliseconds),
    })
}

/// A time in milliseconds since 1970, as a number or as its digits.
fn milliseconds(value: &Value) -> Option<Timestamp> {
    number(value).and_then(|number| Timestamp::from_millisecond(number).ok())
}

/// A number, or its digits: the API is not of one mind.
fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// How many entries a list has, as its pages say.
pub(super) fn total(count: Option<&Value>) -> Option<u64> {
    count.and_then(number).and_then(|number| u64::try_from(number).ok())
}

/// The login that the API gave out, with its end in milliseconds.
pub(super) fn issued(username: String, password: String, ends: Option<&Value>) -> Issued {
    Issued {
        credentials: Credentials {
            username,
            password: Secret::new(password),
        },
        ends: ends.and_then(milliseconds),
    }
}

/// True where a namespace is not there.
pub(super) fn is_missing(error: &Error) -> bool {
    error.code.as_deref() == Some("NAMESPACE_NOT_EXIST")
}

/// An answer that cannot be understood.
pub(super) fn strange(answer: &ApiAnswer, what: &str) -> Error {
    answer.error(ErrorKind::Invalid, format!("the API's answer says no {what}"))
}

/// An error of [`Operation::Authenticate`] about the settings.
pub(super) fn unset(place: Place, message: &str) -> Error {
    Error::new(Operation::Authenticate, place, ErrorKind::Config, message)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::response::IntoResponse;
    use serde_json::json;

    use super::*;
    use crate::registry::{Endpoint, Limiter, RegistrySettings, RegistryUrl};

    #[test]
    fn alibaba_sites_by_host_and_by_challenge() {
        for (host, region, api, sts) in [
            (
                "registry.cn-hangzhou.aliyuncs.com",
                Some("cn-hangzhou"),
                "cr.cn-hangzhou.aliyuncs.com",
                "sts.cn-hangzhou.aliyuncs.com",
            ),
            (
                "registry-vpc.eu-central-1.aliyuncs.com",
                Some("eu-central-1"),
                "cr-vpc.eu-central-1.aliyuncs.com",
                "sts-vpc.eu-central-1.aliyuncs.com",
            ),
            (
                "registry-internal.cn-beijing.aliyuncs.com",
                Some("cn-beijing"),
                "cr-vpc.cn-beijing.aliyuncs.com",
                "sts-vpc.cn-beijing.aliyuncs.com",
            ),
            (
                "Corp-registry.cn-shanghai.cr.aliyuncs.com",
                Some("cn-shanghai"),
                "cr.cn-shanghai.aliyuncs.com",
                "sts.cn-shanghai.aliyuncs.com",
            ),
            (
                "corp-registry-vpc.cn-shanghai.cr.aliyuncs.com",
                Some("cn-shanghai"),
                "cr-vpc.cn-shanghai.aliyuncs.com",
                "sts-vpc.cn-shanghai.aliyuncs.com",
            ),
            (
                "crpi-abc.cn-hangzhou.personal.cr.aliyuncs.com",
                Some("cn-hangzhou"),
                "cr.cn-hangzhou.aliyuncs.com",
                "sts.cn-hangzhou.aliyuncs.com",
            ),
            ("registry.corp.example", None, "", "sts.aliyuncs.com"),
            ("127.0.0.1:5000", None, "", "sts.aliyuncs.com"),
        ] {
            let site = Site::of_host(host);
            assert_eq!(site.region.as_deref(), region, "{host}");
            assert_eq!(site.api_host().unwrap_or_default(), api, "{host}");
            assert_eq!(site.sts_host(), sts, "{host}");
        }
        let site = |region: &str, instance: Option<&str>| {
            Some(Site {
                region: Some(region.to_owned()),
                vpc: false,
                instance: instance.map(str::to_owned),
            })
        };
        for (service, wanted) in [
            ("registry.aliyuncs.com:cn-hangzhou:26842", site("cn-hangzhou", None)),
            (
                "registry.aliyuncs.com:cn-beijing:china:cri-abc",
                site("cn-beijing", Some("cri-abc")),
            ),
            (
                "registry.aliyuncs.com:eu-west-1:1234:cri-x",
                site("eu-west-1", Some("cri-x")),
            ),
            ("registry.aliyuncs.com:", None),
            ("registry.aliyuncs.com:evil.example/x:china:cri-1", None),
            ("registry.aliyuncs.com:x@10.0.0.1/:china:cri-1", None),
            ("registry.aliyuncs.com:evil.example#:china:cri-1", None),
            ("registry.aliyuncs.com:cn-x:1:cri-a/b", site("cn-x", None)),
            ("harbor-registry", None),
        ] {
            assert_eq!(Site::of_service(service), wanted, "{service}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_is_away_is_asked_for_its_instance_again() {
        let asked = Arc::new(AtomicUsize::new(0));
        let before = Arc::clone(&asked);
        let app = axum::Router::new().fallback(async move |request: axum::extract::Request| {
            let challenge =
                r#"Bearer realm="http://r.example/auth",service="registry.aliyuncs.com:cn-test:china:cri-test""#;
            match request.uri().path() {
                "/v2/" if before.fetch_add(1, Ordering::Relaxed) < 4 => {
                    http::StatusCode::SERVICE_UNAVAILABLE.into_response()
                }
                "/v2/" => (http::StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response(),
                _ if !request
                    .uri()
                    .query()
                    .unwrap_or_default()
                    .contains("InstanceId=cri-test") =>
                {
                    http::StatusCode::BAD_REQUEST.into_response()
                }
                _ => axum::Json(json!({ "IsSuccess": true, "Repositories": [], "TotalCount": "0" })).into_response(),
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        // It ends with the test.
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await });
        let at = RegistryUrl {
            plain_http: true,
            host,
            path: String::new(),
        };
        let remote = RemoteSettings {
            url: at.clone(),
            endpoint: Some(at),
            cloud: CloudSettings::Alibaba(AlibabaSettings {
                access_key_id: Some("id".to_owned()),
                access_key_secret: Some(crate::telemetry::Secret::new("secret")),
                ..AlibabaSettings::default()
            }),
            ..RemoteSettings::default()
        };
        let vendor = Arc::new(Enterprise::new(Account::new(&remote, Surroundings::default())));
        let (clock, limiter) = (crate::clock::Clock::system(), Limiter::default());
        let remote = RegistrySettings::Remote(Box::new(remote));
        let end = Endpoint::open("ali", &remote, Habits::default(), vendor, clock, &limiter).expect("an end");
        let below = ["corp/".to_owned()];
        let error = end.list_repositories(&below).await.expect_err("away");
        assert_eq!(error.kind, ErrorKind::Server, "{error}");
        assert_eq!(end.list_repositories(&below).await.expect("back"), Some(Vec::new()));
        // What it said is remembered.
        assert_eq!(end.list_repositories(&below).await.expect("back"), Some(Vec::new()));
        assert_eq!(asked.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn alibaba_digests_have_no_algorithm_and_times_are_texts() {
        let digest = Digest::of(b"x");
        for text in [digest.hex().to_owned(), digest.to_string()] {
            let listed = listed_tag("v1", &text, Some(&json!("1537781384000"))).expect("a tag");
            assert_eq!(listed.digest, Some(digest.clone()));
            assert_eq!(listed.pushed, Timestamp::from_second(1_537_781_384).ok());
        }
        let odd = listed_tag("v1", "", Some(&json!(null))).expect("a tag");
        assert_eq!((odd.digest, odd.pushed), (None, None));
        assert_eq!(listed_tag("no tag", digest.hex(), None), None);
        assert_eq!(number(&json!(3)), Some(3));
    }
}
