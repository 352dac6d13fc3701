//! Tencent Container Registry: where its API is and who asks it, for both editions.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::awaited::Awaited;
use super::keyed::heeded;
use super::table::Row;
use super::tencent_api::{TcCall, ask, response};
use super::tencent_enterprise::Enterprise;
use super::tencent_keys::SecretKeys;
pub(super) use super::tencent_keys::Surroundings;
use super::tencent_personal::Personal;
use crate::oci::RepositoryName;
use crate::registry::{
    Api, ApiAnswer, CloudSettings, Error, ErrorKind, Habits, Kind, Operation, RemoteSettings, Result, TencentSettings,
    Vendor,
};

pub(super) static ENTERPRISE: Row = Row {
    kind: Kind::TencentEnterprise,
    habits,
    vendor: |settings| enterprise(settings, Surroundings::of_process()),
};

pub(super) static PERSONAL: Row = Row {
    kind: Kind::TencentPersonal,
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
    // What goharbor/harbor, adapter tencentcr, keeps to. The documents allow 20 and more for each action.
    habits.api_per_second = Some(10);
}

/// How long it is believed where an instance is: it does not move.
const SITE_LIFE: Duration = Duration::from_secs(u32::MAX as u64);
/// Where instances of all regions are asked for.
const ANY_REGION: &str = "ap-guangzhou";

/// An instance of the enterprise edition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) registry: String,
    pub(super) region: String,
}

/// What the API says of an instance.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    registry_id: String,
    #[serde(default)]
    registry_name: String,
    #[serde(default)]
    public_domain: String,
    #[serde(default)]
    region_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instances {
    registries: Option<Vec<Instance>>,
}

/// The names that the instance at a host may have: what stands before `.tencentcloudcr.com`, and that without the ending of
/// hosts inside a VPC, which is not documented.
fn names(host: &str) -> Vec<&str> {
    let Some(name) = host.strip_suffix(".tencentcloudcr.com") else {
        return Vec::new();
    };
    let inside = name.strip_suffix("-vpc");
    std::iter::once(name).chain(inside).collect()
}

/// The instance that is meant: by its id, else by its domain, else by the first of its names.
fn meant<'i>(instances: &'i [Instance], id: Option<&str>, host: &str) -> Option<&'i Instance> {
    if let Some(id) = id {
        return instances.iter().find(|instance| instance.registry_id == id);
    }
    let by_domain = instances.iter().find(|instance| instance.public_domain == host);
    let by_name = || {
        let names = names(host);
        let mut found = names
            .iter()
            .filter_map(|name| instances.iter().find(|instance| instance.registry_name == *name));
        found.next()
    };
    by_domain.or_else(by_name)
}

/// Who asks a registry's API, and where it is.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) settings: TencentSettings,
    keys: SecretKeys,
    /// Once it is known.
    site: Awaited<Option<Site>>,
}

/// One request to the API of a registry.
pub(super) struct Request<'a> {
    pub(super) operation: Operation,
    pub(super) repository: Option<&'a RepositoryName>,
    pub(super) region: &'a str,
    pub(super) action: &'a str,
    pub(super) body: Value,
}

impl Account {
    pub(super) fn new(remote: &RemoteSettings, around: Surroundings) -> Self {
        let (written, settings) = match &remote.cloud {
            CloudSettings::Tencent(tencent) => (true, tencent.clone()),
            _ => (false, TencentSettings::default()),
        };
        Self {
            keys: SecretKeys::new(settings.clone(), written, heeded(remote, written, around)),
            settings,
            site: Awaited::default(),
        }
    }

    /// True where there is a key at all.
    ///
    /// # Errors
    /// One that should be there could not be had.
    pub(super) async fn has_key(&self, api: &Api) -> Result<bool> {
        Ok(self.keys.current(api).await?.is_some())
    }

    /// The instance, by the rules or by the API; `None` where there is no key.
    ///
    /// # Errors
    /// Those of [`ask`]; `Config` where the key's account has no such instance.
    pub(super) async fn site(&self, api: &Api) -> Result<Option<Site>> {
        if let (Some(id), Some(region)) = (&self.settings.registry_id, &self.settings.region) {
            return Ok(Some(Site {
                registry: id.clone(),
                region: region.clone(),
            }));
        }
        let life = |found: &Result<Option<Site>>| match found {
            Ok(_) => SITE_LIFE,
            Err(_) => Duration::ZERO,
        };
        let look = Box::pin(self.look(api));
        self.site.get(api.clock(), Option::is_some, life, look).await
    }

    /// Asks the API for the instance.
    async fn look(&self, api: &Api) -> Result<Option<Site>> {
        let (id, region) = (self.settings.registry_id.as_deref(), self.settings.region.as_deref());
        let host = api.settings().url.host.to_ascii_lowercase();
        let which = match id {
            Some(id) => json!({ "Registryids": [id] }),
            // goharbor/harbor, adapter tencentcr.
            None => json!({ "Filters": [{ "Name": "RegistryName", "Values": names(&host) }] }),
        };
        let mut body = json!({ "AllRegion": true, "Limit": 100, "Offset": 0 });
        if let (Value::Object(body), Value::Object(which)) = (&mut body, which) {
            body.extend(which);
        }
        if id.is_none() && names(&host).is_empty() {
            let message = "the instance is not known: set `tencent.registry_id` of this registry, such as tcr-abc";
            let place = api.place(None);
            return Err(Error::new(Operation::Authenticate, place, ErrorKind::Config, message));
        }
        let request = Request {
            operation: Operation::Authenticate,
            repository: None,
            region: region.unwrap_or(ANY_REGION),
            action: "DescribeInstances",
            body,
        };
        let Some(answer) = self.ask(api, request).await? else {
            return Ok(None);
        };
        let instances = response::<Instances>(&answer)?.registries.unwrap_or_default();
        let Some(instance) = meant(&instances, id, &host) else {
            let message = match id {
                Some(id) => format!("the key's account has no instance {id}: check `tencent.registry_id`"),
                None => format!(
                    "the key's account has no instance at {host}: check the key, or set `tencent.registry_id` of this registry"
                ),
            };
            return Err(answer.error(ErrorKind::Config, message));
        };
        Ok(Some(Site {
            registry: instance.registry_id.clone(),
            region: region.unwrap_or(&instance.region_name).to_owned(),
        }))
    }

    /// Asks the API; `None` where there is no key. A temporary key that is not taken any more is renewed once.
    ///
    /// # Errors
    /// Those of [`ask`].
    pub(super) async fn ask(&self, api: &Api, request: Request<'_>) -> Result<Option<ApiAnswer>> {
        let international = self.settings.international;
        let host = match international {
            true => "tcr.intl.tencentcloudapi.com",
            false => "tcr.tencentcloudapi.com",
        };
        let url = api.at(host, "/")?;
        for renewed in [false, true] {
            let Some(key) = self.keys.current(api).await? else {
                return Ok(None);
            };
            let call = TcCall {
                operation: request.operation,
                place: api.place(request.repository),
                url: url.clone(),
                region: request.region,
                action: request.action,
                body: &request.body,
                international,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, name: &str, domain: &str) -> Instance {
        Instance {
            registry_id: id.to_owned(),
            registry_name: name.to_owned(),
            public_domain: domain.to_owned(),
            region_name: "ap-shanghai".to_owned(),
        }
    }

    #[test]
    fn tencent_instances_by_id_by_domain_and_by_name() {
        let all = [
            instance("tcr-1", "corp", "corp.tencentcloudcr.com"),
            instance("tcr-2", "corp-vpc", ""),
            instance("tcr-3", "other", "other.tencentcloudcr.com"),
        ];
        let found = |id: Option<&str>, host: &str| meant(&all, id, host).map(|found| found.registry_id.as_str());
        for (id, host, wanted) in [
            (None, "corp.tencentcloudcr.com", Some("tcr-1")),
            // One that is called so goes before the ending.
            (None, "corp-vpc.tencentcloudcr.com", Some("tcr-2")),
            (None, "other-vpc.tencentcloudcr.com", Some("tcr-3")),
            // A filter that nobody heeds makes nobody's instance ours.
            (None, "third.tencentcloudcr.com", None),
            (None, "registry.corp.example", None),
            (Some("tcr-3"), "registry.corp.example", Some("tcr-3")),
            (Some("tcr-4"), "corp.tencentcloudcr.com", None),
        ] {
            assert_eq!(found(id, host), wanted, "{host}");
        }
        assert_eq!(names("a-vpc.tencentcloudcr.com"), ["a-vpc", "a"]);
        assert_eq!(names("a.example"), [""; 0]);
    }
}
