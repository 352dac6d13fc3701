//! Huawei Cloud SoftWare Repository for Container, the shared edition: logins by an access key, listings by its API,
//! organisations made before the first push.
//!
//! Facts: support.huaweicloud.com, api-swr (ListRepositoryTags, ListReposDetails, CreateSecret); PyPI `huaweicloudsdkswr`
//! 3.1.219; goharbor/harbor, adapter huawei, for organisations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::FutureExt;
use http::header::{CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::gathered::Gathered;
pub(super) use super::huawei_api::Surroundings;
use super::huawei_api::{Account, Request, Site, ask};
use super::keyed::keyless;
use super::names::{absent_or_names, namespaces, whole};
use super::once::once;
use super::sdk_hmac::password;
use super::table::Row;
use crate::oci::RepositoryName;
use crate::registry::{
    Api, ApiAnswer, ApiCall, ApiLogin, BulkListing, Created, Credentials, Error, ErrorKind, Issued, Kind, ListedTag,
    NumberedPage, Operation, RemoteSettings, Result, Told, Vendor, Ways, numbered, numbered_in_part,
};
use crate::telemetry::Secret;

pub(super) static ROW: Row = Row {
    kind: Kind::Huawei,
    // The realm is at the registry's own host.
    habits: |_| {},
    vendor: |settings| of(settings, Surroundings::of_process()),
};

/// Entries of a page at most.
const PAGE: u32 = 1000;

static WAYS: Ways = Ways {
    must_create: true,
    // Pages by number: a tag that is deleted while another is pushed moves one past the reader, and the total stays.
    hides_tags: true,
    lists_alike: true,
    right_to_list: "the IAM actions swr:repo:listRepoTags and swr:repo:listRepos",
    ..Ways::PLAIN
};

/// One region's registry, with what is known of us here.
pub(super) fn of(settings: &RemoteSettings, around: Surroundings) -> Arc<dyn Vendor> {
    Arc::new(Huawei {
        account: Account::new(settings, around),
    })
}

/// One region's registry.
#[derive(Debug)]
struct Huawei {
    account: Account,
}

#[derive(Deserialize)]
struct Organisation {
    /// Empty for one that is not there, by which Harbor tells it.
    #[serde(default)]
    name: String,
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Tag {
    /// The third version of the API writes it small.
    #[serde(rename = "Tag", alias = "tag")]
    tag: String,
    digest: Option<String>,
    /// When it was pushed last.
    updated: Option<String>,
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Repository {
    namespace: String,
    name: String,
}

/// A login for a while, as Docker's files have it.
#[derive(Deserialize)]
struct Logins {
    auths: BTreeMap<String, Login>,
}

#[derive(Deserialize)]
struct Login {
    auth: String,
}

/// A list by pages.
struct List<'a> {
    account: &'a Account,
    repository: Option<&'a RepositoryName>,
    path: &'a str,
    namespace: Option<&'a str>,
    right: &'static str,
    /// Entries of a page: as many as the first one had, where that is not the last and has fewer than were asked for.
    size: AtomicU32,
}

impl List<'_> {
    async fn page<T: DeserializeOwned>(&self, api: &Api, number: u32) -> Result<NumberedPage<T>> {
        if number == 1 {
            self.size.store(PAGE, Ordering::Relaxed);
        }
        let size = self.size.load(Ordering::Relaxed);
        let (limit, offset) = (size.to_string(), (number - 1).saturating_mul(size).to_string());
        let mut query = vec![("limit", limit.as_str()), ("offset", offset.as_str())];
        query.extend(self.namespace.map(|name| ("namespace", name)));
        let request = Request {
            operation: match self.repository {
                Some(_) => Operation::ListTags,
                None => Operation::ListRepositories,
            },
            repository: self.repository,
            method: Method::GET,
            path: self.path,
            query: &query,
            right: self.right,
        };
        // A long list may outlive the key that it began with.
        let site = self.account.site(api).await?;
        let site = site.ok_or_else(|| keyless(api, request.operation))?;
        let answer = ask(api, self.account, &site, &request).await?;
        let total = total(&answer.headers);
        let entries: Vec<T> = answer.json::<Option<Vec<T>>>()?.unwrap_or_default();
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        // A region may give fewer at once than were asked for, and not say how many there are. The registry completes tags.
        let is_cut =
            (1..size).contains(&count) && total.map_or(self.repository.is_none(), |total| total > count.into());
        if number == 1 && is_cut {
            self.size.store(count, Ordering::Relaxed);
        }
        let last = total.is_none() && count < self.size.load(Ordering::Relaxed);
        Ok(NumberedPage::of(&answer, entries, total, last))
    }
}

/// `Content-Range: offset-count/total`.
fn total(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    range.rsplit_once('/')?.1.trim().parse().ok()
}

fn listed(entry: Tag) -> Option<ListedTag> {
    Some(ListedTag {
        tag: entry.tag.parse().ok()?,
        digest: entry.digest.and_then(|text| text.parse().ok()),
        media_type: None,
        pushed: entry.updated.and_then(|text| text.parse().ok()),
    })
}

impl Huawei {
    async fn list(&self, api: &Api, repository: &RepositoryName) -> Result<BulkListing> {
        let Some((organisation, name)) = repository.as_str().split_once('/') else {
            return Ok(BulkListing::None);
        };
        if self.account.site(api).await?.is_none() {
            return Ok(BulkListing::None);
        }
        let list = List {
            account: &self.account,
            repository: Some(repository),
            // A slash of the name is written so.
            path: &format!(
                "/v2/manage/namespaces/{organisation}/repos/{}/tags",
                name.replace('/', "$")
            ),
            namespace: None,
            right: "swr:repo:listRepoTags",
            size: AtomicU32::new(PAGE),
        };
        match numbered_in_part(|number| list.page::<Tag>(api, number)).await {
            Ok(tags) => Ok(BulkListing::Known {
                tags: once(tags.into_iter().filter_map(listed)),
                // What it says of an index is not documented.
                comparable: false,
            }),
            Err(error) if error.kind == ErrorKind::NotFound => absent_or_names(api, repository).await,
            Err(error) => Err(error),
        }
    }

    /// All repositories, or those of an organisation.
    async fn repositories(&self, api: &Api, organisation: Option<&str>) -> Result<Vec<RepositoryName>> {
        let list = List {
            account: &self.account,
            repository: None,
            path: "/v2/manage/repos",
            namespace: organisation,
            right: "swr:repo:listRepos",
            size: AtomicU32::new(PAGE),
        };
        let read = whole(api, numbered(|number| list.page::<Repository>(api, number)).await?)?;
        // Some regions take the organisation for a part of its name: more than was asked for does no harm.
        let names = read
            .iter()
            .map(|read| format!("{}/{}", read.namespace, read.name.replace('$', "/")));
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }

    /// A login for as long as the API says, by a temporary key.
    async fn temporary(&self, api: &Api, site: &Site) -> Result<Issued> {
        let request = Request {
            operation: Operation::Authenticate,
            repository: None,
            method: Method::POST,
            path: "/v2/manage/utils/secret",
            query: &[("projectname", &site.project)],
            right: "swr::createLoginSecret",
        };
        let answer = ask(api, &self.account, site, &request).await?;
        let logins = answer.json::<Logins>()?.auths;
        let login = match logins.get(&api.settings().url.host) {
            Some(login) => Some(login),
            // Under a name of the registry that we do not use.
            None => logins
                .first_key_value()
                .map(|(_, login)| login)
                .filter(|_| logins.len() == 1),
        };
        let Some(credentials) = login.and_then(|login| credentials(&login.auth)) else {
            return Err(answer.error(ErrorKind::Invalid, "the API's answer has no login for this registry"));
        };
        Ok(Issued {
            credentials,
            ends: ends(&answer),
        })
    }
}

fn credentials(auth: &str) -> Option<Credentials> {
    let pair = String::from_utf8(STANDARD.decode(auth).ok()?).ok()?;
    let (username, password) = pair.split_once(':')?;
    Some(Credentials {
        username: username.to_owned(),
        password: Secret::new(password),
    })
}

fn ends(answer: &ApiAnswer) -> Option<Timestamp> {
    answer.headers.get("x-swr-expireat")?.to_str().ok()?.parse().ok()
}

impl Vendor for Huawei {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::Huawei)
    }

    fn ways(&self) -> &'static Ways {
        &WAYS
    }

    fn container<'r>(&self, repository: &'r RepositoryName) -> &'r str {
        let name = repository.as_str();
        name.split_once('/').map_or(name, |(organisation, _)| organisation)
    }

    fn login<'a>(&'a self, api: &'a Api) -> Told<'a, Option<Issued>> {
        async move {
            let Some(site) = self.account.site(api).await? else {
                return Ok(None);
            };
            if site.key.token.is_some() {
                return self.temporary(api, &site).await.map(Some);
            }
            Ok(Some(Issued {
                credentials: Credentials {
                    username: format!("{}@{}", site.project, site.key.id),
                    password: password(&site.key),
                },
                ends: None,
            }))
        }
        .boxed()
    }

    fn list_digests<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        self.list(api, repository).boxed()
    }

    fn list_repositories<'a>(&'a self, api: &'a Api, below: &'a [String]) -> Told<'a, Option<Vec<RepositoryName>>> {
        async move {
            if self.account.site(api).await?.is_none() {
                return Ok(None);
            }
            let Some(organisations) = namespaces(below) else {
                return self.repositories(api, None).await.map(Some);
            };
            let mut gathered = Gathered::default();
            for organisation in organisations {
                let listed = self.repositories(api, Some(organisation)).await;
                gathered.take(organisation, listed)?;
            }
            Ok(Some(gathered.names(api)?))
        }
        .boxed()
    }

    fn create<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, Created> {
        async move {
            let place = || api.place(Some(repository));
            // A name of one part would make an organisation of it, of which a user has few, and be refused all the same.
            let Some((organisation, _)) = repository.as_str().split_once('/') else {
                return Err(Error::new(
                    Operation::CreateRepository,
                    place(),
                    ErrorKind::Config,
                    "Huawei's registry has names of an organisation and a repository: put one before it in the rule, as in \
                     `to: organisation/{path}`",
                ));
            };
            let url = api.own(&format!("/dockyard/v2/namespaces/{organisation}"))?;
            let mut call = ApiCall::get(Operation::CreateRepository, place(), url);
            call.login = ApiLogin::Basic;
            let answer = api.call(call).await?;
            // Whatever else it is that answers, the next request shows what is to be done.
            let found = answer.json::<Organisation>();
            if answer.status == 200 && found.is_ok_and(|found| found.name == organisation) {
                return Ok(Created::WasThere);
            }
            let body = json!({ "namespace": organisation }).to_string();
            let url = api.own("/dockyard/v2/namespaces")?;
            let mut call = ApiCall::post(Operation::CreateRepository, place(), url, body);
            call.headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static("application/json; charset=utf-8"),
            );
            call.login = ApiLogin::Basic;
            let answer = api.call(call).await?;
            match answer.status {
                200..300 => Ok(Created::Made),
                409 => Ok(Created::WasThere),
                // Names are unique among all users of the cloud, so it may be somebody else's.
                _ => Err(answer.refused(&super::words::said(&answer.body))),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huawei_tags_totals_and_logins_are_read() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let entries: Vec<Tag> = serde_json::from_value(json!([
            { "id": 3, "repo_id": 8, "Tag": "v1", "image_id": "f5bf…", "manifest": "{}", "digest": digest, "schema": 2,
              "updated": "2018-06-13T07:59:31.192387Z", "tag_type": 1 },
            { "tag": "v2", "digest": "7583…", "updated": null },
            { "Tag": "v3", "digest": null },
            { "Tag": "no tag at all" },
        ]))
        .expect("tags");
        let tags: Vec<ListedTag> = entries.into_iter().filter_map(listed).collect();
        let shown: Vec<_> = tags
            .iter()
            .map(|listed| (listed.tag.as_str(), listed.digest.is_some(), listed.pushed.is_some()))
            .collect();
        assert_eq!(shown, [("v1", true, true), ("v2", false, false), ("v3", false, false)]);

        let range = |text: &'static str| {
            let headers = HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_static(text))]);
            total(&headers)
        };
        assert_eq!(
            [range("0-100/2014"), range("0-9/*"), range("9")],
            [Some(2014), None, None]
        );
        assert_eq!(total(&HeaderMap::new()), None);

        let login = credentials(&STANDARD.encode("cn-north-4@HST:pass:word")).expect("a login");
        assert_eq!(
            (login.username.as_str(), login.password.expose()),
            ("cn-north-4@HST", "pass:word")
        );
        assert!(credentials("%").is_none() && credentials(&STANDARD.encode("none")).is_none());
    }
}
