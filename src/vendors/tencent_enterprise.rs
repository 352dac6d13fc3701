//! The enterprise edition of Tencent Container Registry, by its API of 2019-09-24.

use futures_util::future::FutureExt;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::keyed::{in_namespaces, keyless};
use super::names::{absent_or_names, whole};
use super::once::once;
use super::tencent::{Account, Request, Site};
use super::tencent_api::response;
use crate::oci::RepositoryName;
use crate::registry::{
    Api, ApiAnswer, BulkListing, Created, Credentials, Error, ErrorKind, Issued, Kind, ListedTag, NumberedPage,
    Operation, Result, Told, Vendor, Ways, numbered, numbered_in_part,
};
use crate::telemetry::Secret;

/// Entries of a page at most.
const PAGE: u32 = 100;

static WAYS: Ways = Ways {
    must_create: true,
    // Pages by number: a tag that is deleted while another is pushed moves one past the reader, and the total stays.
    hides_tags: true,
    lists_alike: true,
    right_to_list: "the CAM actions tcr:DescribeInstances, tcr:DescribeRepositories and tcr:DescribeImages",
    ..Ways::PLAIN
};

/// One registry of the enterprise edition.
#[derive(Debug)]
pub(super) struct Enterprise {
    account: Account,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Token {
    username: Option<String>,
    token: Option<String>,
    /// Milliseconds since 1970, by its examples.
    exp_time: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    image_version: String,
    #[serde(default)]
    digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Images {
    image_info_list: Option<Vec<Image>>,
    total_count: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Repository {
    /// With its namespace.
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Repositories {
    repository_list: Option<Vec<Repository>>,
    total_count: Option<u64>,
}

/// One page of the tags.
fn tags(answer: &ApiAnswer) -> Result<NumberedPage<ListedTag>> {
    let read: Images = response(answer)?;
    let listed = |image: &Image| {
        Some(ListedTag {
            tag: image.image_version.parse().ok()?,
            digest: image.digest.parse().ok(),
            media_type: None,
            pushed: None,
        })
    };
    let tags = read.image_info_list.iter().flatten().filter_map(listed);
    Ok(NumberedPage::of(answer, tags.collect(), read.total_count, false))
}

/// One page of the repositories.
fn repositories(answer: &ApiAnswer) -> Result<NumberedPage<String>> {
    let read: Repositories = response(answer)?;
    let names = read.repository_list.into_iter().flatten().map(|it| it.name);
    Ok(NumberedPage::of(answer, names.collect(), read.total_count, false))
}

impl Enterprise {
    pub(super) fn new(account: Account) -> Self {
        Self { account }
    }

    /// Asks one action of an instance; `None` without a key.
    async fn action(
        &self,
        api: &Api,
        site: &Site,
        operation: Operation,
        repository: Option<&RepositoryName>,
        action: &str,
        parameters: Value,
    ) -> Result<Option<ApiAnswer>> {
        let mut body = json!({ "RegistryId": site.registry });
        if let (Value::Object(body), Value::Object(parameters)) = (&mut body, parameters) {
            body.extend(parameters);
        }
        let request = Request {
            operation,
            repository,
            region: &site.region,
            action,
            body,
        };
        self.account.ask(api, request).await
    }

    /// One page of a list. `Offset` is the number of the page there, from 1 (cloud.tencent.com, DescribeImages).
    async fn page(
        &self,
        api: &Api,
        site: &Site,
        repository: Option<&RepositoryName>,
        action: &str,
        parameters: &Value,
        number: u32,
    ) -> Result<ApiAnswer> {
        let operation = match repository {
            Some(_) => Operation::ListTags,
            None => Operation::ListRepositories,
        };
        let mut parameters = parameters.clone();
        parameters["Limit"] = PAGE.into();
        parameters["Offset"] = number.into();
        let answer = self
            .action(api, site, operation, repository, action, parameters)
            .await?;
        answer.ok_or_else(|| keyless(api, operation))
    }

    async fn list(&self, api: &Api, repository: &RepositoryName) -> Result<BulkListing> {
        let Some((namespace, name)) = repository.as_str().split_once('/') else {
            return Ok(BulkListing::None);
        };
        let Some(site) = self.account.site(api).await? else {
            return Ok(BulkListing::None);
        };
        let (site, parameters) = (&site, &json!({ "NamespaceName": namespace, "RepositoryName": name }));
        let page = |number: u32| async move {
            let read = self.page(api, site, Some(repository), "DescribeImages", parameters, number);
            tags(&read.await?)
        };
        match numbered_in_part(page).await {
            Ok(tags) => Ok(BulkListing::Known {
                tags: once(tags),
                // What it says of an index is not documented.
                comparable: false,
            }),
            Err(error) if error.code.as_deref().is_some_and(may_be_missing) => absent_or_names(api, repository).await,
            Err(error) => Err(error),
        }
    }

    async fn repositories(&self, api: &Api, site: &Site, namespace: Option<&str>) -> Result<Vec<RepositoryName>> {
        let parameters = &match namespace {
            Some(namespace) => json!({ "NamespaceName": namespace }),
            None => json!({}),
        };
        let page = |number: u32| async move {
            let read = self.page(api, site, None, "DescribeRepositories", parameters, number);
            repositories(&read.await?)
        };
        let names: Vec<String> = whole(api, numbered(page).await?)?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    async fn make(&self, api: &Api, repository: &RepositoryName) -> Result<Created> {
        let Some((namespace, name)) = repository.as_str().split_once('/') else {
            return Ok(Created::Nothing);
        };
        let Some(site) = self.account.site(api).await? else {
            return Ok(Created::Nothing);
        };
        let act = async |action: &str, parameters: Value| {
            let operation = Operation::CreateRepository;
            self.action(api, &site, operation, Some(repository), action, parameters)
                .await
        };
        for with_namespace in [false, true] {
            let parameters = json!({ "NamespaceName": namespace, "RepositoryName": name });
            match act("CreateRepository", parameters).await {
                Ok(None) => return Ok(Created::Nothing),
                Ok(Some(_)) => return Ok(Created::Made),
                Err(error) if error.kind == ErrorKind::Conflict => return Ok(Created::WasThere),
                // Without its namespace it cannot be made; which code says so is not documented.
                Err(error) if !with_namespace && matches!(error.kind, ErrorKind::NotFound | ErrorKind::Invalid) => {
                    let create = &api.settings().create;
                    let mut parameters = json!({ "NamespaceName": namespace, "IsPublic": create.public });
                    if let Some(scan) = create.scan_on_push {
                        parameters["IsAutoScan"] = scan.into();
                    }
                    match act("CreateNamespace", parameters).await {
                        // Where it is there, perhaps since just now, the repository tells what else is wrong.
                        Err(refused) if refused.kind != ErrorKind::Conflict => return Err(refused),
                        _ => {}
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Created::Nothing)
    }
}

/// True for the codes that a namespace or repository which is not there may have: the registry itself is asked then.
fn may_be_missing(code: &str) -> bool {
    code.starts_with("ResourceNotFound") || code.ends_with("NotExist")
}

/// True where the instance has no such namespace. The other codes for what is not there are said of an instance, too, and of its
/// region.
fn is_missing(error: &Error) -> bool {
    error.code.as_deref() == Some("ResourceNotFound.TcrResourceNotFound")
}

impl Vendor for Enterprise {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::TencentEnterprise)
    }

    fn ways(&self) -> &'static Ways {
        &WAYS
    }

    fn login<'a>(&'a self, api: &'a Api) -> Told<'a, Option<Issued>> {
        async move {
            if !self.account.has_key(api).await? {
                return Ok(None);
            }
            let Some(site) = self.account.site(api).await? else {
                return Ok(None);
            };
            let parameters = json!({ "TokenType": "temp" });
            let operation = Operation::Authenticate;
            let answer = self.action(api, &site, operation, None, "CreateInstanceToken", parameters);
            let Some(answer) = answer.await? else {
                return Ok(None);
            };
            let read: Token = response(&answer)?;
            let (Some(username), Some(password)) = (read.username, read.token) else {
                return Err(answer.error(ErrorKind::Invalid, "the API's answer says no Username or Token"));
            };
            Ok(Some(Issued {
                credentials: Credentials {
                    username,
                    password: Secret::new(password),
                },
                ends: read.exp_time.and_then(|time| Timestamp::from_millisecond(time).ok()),
            }))
        }
        .boxed()
    }

    fn list_digests<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        async move {
            match self.account.has_key(api).await? {
                true => self.list(api, repository).await,
                false => Ok(BulkListing::None),
            }
        }
        .boxed()
    }

    fn list_repositories<'a>(&'a self, api: &'a Api, below: &'a [String]) -> Told<'a, Option<Vec<RepositoryName>>> {
        async move {
            if !self.account.has_key(api).await? {
                return Ok(None);
            }
            let Some(site) = self.account.site(api).await? else {
                return Ok(None);
            };
            let list = |namespace| self.repositories(api, &site, namespace);
            Ok(Some(in_namespaces(below, is_missing, list).await?))
        }
        .boxed()
    }

    fn create<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, Created> {
        async move {
            match self.account.has_key(api).await? {
                true => self.make(api, repository).await,
                false => Ok(Created::Nothing),
            }
        }
        .boxed()
    }
}
