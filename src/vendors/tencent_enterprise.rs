//! The enterprise edition of Tencent Container Registry, by its API of 2019-09-24.

use futures_util::future::FutureExt;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::names::{absent_or_names, namespaces};
use super::tencent::{Account, Request, Site};
use super::tencent_api::response;
use crate::oci::RepositoryName;
use crate::registry::{
    Api, ApiAnswer, BulkListing, Created, Credentials, ErrorKind, Issued, Kind, ListedTag, NumberedPage, Operation,
    Result, Told, Vendor, Ways, numbered,
};
use crate::telemetry::Secret;

/// Entries of a page at most.
const PAGE: u32 = 100;

static WAYS: Ways = Ways {
    must_create: true,
    // Pages by number: a tag that is deleted while another is pushed moves one past the reader, and the total stays.
    hides_tags: true,
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
    Ok(NumberedPage {
        total: read.total_count,
        entries: read.image_info_list.iter().flatten().filter_map(listed).collect(),
        last: false,
    })
}

/// One page of the repositories.
fn repositories(answer: &ApiAnswer) -> Result<NumberedPage<String>> {
    let read: Repositories = response(answer)?;
    Ok(NumberedPage {
        total: read.total_count,
        entries: read.repository_list.into_iter().flatten().map(|it| it.name).collect(),
        last: false,
    })
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

    /// All entries of a list; `None` without a key, or where the list never held still. `Offset` is the number of the page
    /// there, from 1 (cloud.tencent.com, DescribeImages).
    async fn pages<T: PartialEq>(
        &self,
        api: &Api,
        repository: Option<&RepositoryName>,
        action: &str,
        parameters: &Value,
        read: fn(&ApiAnswer) -> Result<NumberedPage<T>>,
    ) -> Result<Option<Vec<T>>> {
        let Some(site) = self.account.site(api).await? else {
            return Ok(None);
        };
        let operation = match repository {
            Some(_) => Operation::ListTags,
            None => Operation::ListRepositories,
        };
        let site = &site;
        let page = |number: u32| async move {
            let mut parameters = parameters.clone();
            parameters["Limit"] = PAGE.into();
            parameters["Offset"] = number.into();
            let answer = self
                .action(api, site, operation, repository, action, parameters)
                .await?;
            match answer {
                Some(answer) => read(&answer),
                None => Ok(NumberedPage {
                    entries: Vec::new(),
                    total: Some(1),
                    last: true,
                }),
            }
        };
        numbered(page).await
    }

    async fn list(&self, api: &Api, repository: &RepositoryName) -> Result<BulkListing> {
        let Some((namespace, name)) = repository.as_str().split_once('/') else {
            return Ok(BulkListing::None);
        };
        let parameters = json!({ "NamespaceName": namespace, "RepositoryName": name });
        match self
            .pages(api, Some(repository), "DescribeImages", &parameters, tags)
            .await
        {
            Ok(Some(tags)) => Ok(BulkListing::Known {
                tags,
                // What it says of an index is not documented.
                comparable: false,
            }),
            Ok(None) => Ok(BulkListing::None),
            Err(error) if error.code.as_deref().is_some_and(is_missing) => absent_or_names(api, repository).await,
            Err(error) => Err(error),
        }
    }

    async fn repositories(&self, api: &Api, namespace: Option<&str>) -> Result<Option<Vec<RepositoryName>>> {
        let parameters = match namespace {
            Some(namespace) => json!({ "NamespaceName": namespace }),
            None => json!({}),
        };
        let names = self
            .pages(api, None, "DescribeRepositories", &parameters, repositories)
            .await?;
        Ok(names.map(|names| names.iter().filter_map(|name| name.parse().ok()).collect()))
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
                        // It is not for the namespace that the repository was refused.
                        Err(refused) if refused.kind == ErrorKind::Conflict && error.kind == ErrorKind::Invalid => {
                            return Err(error);
                        }
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

/// True for the codes of a namespace or repository that is not there; the instance that is not is an error of ours.
fn is_missing(code: &str) -> bool {
    code.starts_with("ResourceNotFound") || code.ends_with("NotExist")
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
            let Some(namespaces) = namespaces(below) else {
                return self.repositories(api, None).await;
            };
            let mut all = Vec::new();
            for namespace in namespaces {
                match self.repositories(api, Some(namespace)).await {
                    Ok(Some(names)) => all.extend(names),
                    Ok(None) => return Ok(None),
                    // A namespace that is not there has none.
                    Err(error) if error.code.as_deref().is_some_and(is_missing) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(Some(all))
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
