//! The personal edition of Alibaba Cloud Container Registry, by its API of 2016-06-07.

use bytes::Bytes;
use futures_util::future::FutureExt;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::acs3::escaped;
use super::alibaba::{Account, Request, in_namespaces, issued, listed_tag, strange, total};
use super::names::absent_or_names;
use crate::oci::RepositoryName;
use crate::registry::{
    Api, ApiAnswer, BulkListing, Created, ErrorKind, Issued, Kind, ListedTag, NumberedPage, Operation, Result, Told,
    Vendor, Ways, numbered,
};

const VERSION: &str = "2016-06-07";
/// Entries of a page at most.
const PAGE: &str = "100";

static WAYS: Ways = Ways {
    must_create: true,
    // Pages by number: a tag that is deleted while another is pushed moves one past the reader, and the total stays.
    hides_tags: true,
    right_to_list: "the RAM actions cr:ListRepository and cr:ListRepositoryTag",
    catalogue: false,
    empty_config: Some(false),
    ..Ways::PLAIN
};

/// One registry of the personal edition.
#[derive(Debug)]
pub(super) struct Personal {
    account: Account,
}

/// One request: method and path, and its name as the SDK signs it.
struct Route<'a> {
    method: Method,
    path: &'a str,
    action: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    temp_user_name: Option<String>,
    authorization_token: Option<String>,
    expire_date: Option<Value>,
}

#[derive(Deserialize)]
struct Tag {
    tag: String,
    #[serde(default)]
    digest: String,
    #[serde(rename = "imageUpdate")]
    updated: Option<Value>,
}

#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    tags: Vec<Tag>,
    total: Option<Value>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Repository {
    repo_namespace: String,
    repo_name: String,
}

#[derive(Deserialize)]
struct Repositories {
    #[serde(default)]
    repos: Vec<Repository>,
    total: Option<Value>,
}

/// What stands under `data`, or, as one of the documents has it, at the top.
fn data<T: serde::de::DeserializeOwned>(answer: &ApiAnswer) -> Result<T> {
    let mut read: Value = answer.json()?;
    let inner = match read.get_mut("data") {
        Some(data) => data.take(),
        None => read,
    };
    serde_json::from_value(inner).map_err(|_| strange(answer, "data of the documented form"))
}

impl Personal {
    pub(super) fn new(account: Account) -> Self {
        Self { account }
    }

    /// Sends one request; `None` without an access key.
    async fn send(
        &self,
        api: &Api,
        operation: Operation,
        repository: Option<&RepositoryName>,
        route: Route<'_>,
        query: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Option<ApiAnswer>> {
        if !self.account.has_key(api).await? {
            return Ok(None);
        }
        let request = Request {
            operation,
            repository,
            method: route.method,
            path: route.path,
            version: VERSION,
            action: route.action,
            query,
            body,
        };
        self.account.ask(api, request).await
    }

    /// All entries of a list by pages; `None` without an access key, or where the list never held still.
    async fn pages<T: PartialEq>(
        &self,
        api: &Api,
        repository: Option<&RepositoryName>,
        (path, action): (&str, &str),
        read: fn(&ApiAnswer) -> Result<NumberedPage<T>>,
    ) -> Result<Option<Vec<T>>> {
        let operation = match repository {
            Some(_) => Operation::ListTags,
            None => Operation::ListRepositories,
        };
        let page = |number: u32| async move {
            let number = number.to_string();
            let query = [("Page", number.as_str()), ("PageSize", PAGE)];
            let route = Route {
                method: Method::GET,
                path,
                action,
            };
            match self
                .send(api, operation, repository, route, &query, Bytes::new())
                .await?
            {
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
        let path = format!("/repos/{}/{}/tags", escaped(namespace), escaped(name));
        let read: fn(&ApiAnswer) -> Result<NumberedPage<ListedTag>> = |answer| {
            let read: Tags = data(answer)?;
            let listed = |tag: &Tag| listed_tag(&tag.tag, &tag.digest, tag.updated.as_ref());
            Ok(NumberedPage {
                total: total(read.total.as_ref()),
                entries: read.tags.iter().filter_map(listed).collect(),
                last: false,
            })
        };
        match self.pages(api, Some(repository), (&path, "GetRepoTags"), read).await {
            Ok(Some(tags)) => Ok(BulkListing::Known {
                tags,
                // What it says of an index is not documented.
                comparable: false,
            }),
            Ok(None) => Ok(BulkListing::None),
            Err(error) if error.kind == ErrorKind::NotFound => absent_or_names(api, repository).await,
            Err(error) => Err(error),
        }
    }

    async fn repositories(&self, api: &Api, namespace: Option<&str>) -> Result<Option<Vec<RepositoryName>>> {
        let (path, action) = match namespace {
            Some(namespace) => (format!("/repos/{}", escaped(namespace)), "GetRepoListByNamespace"),
            None => ("/repos".to_owned(), "GetRepoList"),
        };
        let read: fn(&ApiAnswer) -> Result<NumberedPage<Repository>> = |answer| {
            let read: Repositories = data(answer)?;
            Ok(NumberedPage {
                total: total(read.total.as_ref()),
                entries: read.repos,
                last: false,
            })
        };
        let Some(read) = self.pages(api, None, (&path, action), read).await? else {
            return Ok(None);
        };
        let names = read
            .iter()
            .map(|repository| format!("{}/{}", repository.repo_namespace, repository.repo_name));
        Ok(Some(names.filter_map(|name| name.parse().ok()).collect()))
    }

    async fn put(
        &self,
        api: &Api,
        repository: &RepositoryName,
        path: &str,
        action: &str,
        body: Value,
    ) -> Result<Created> {
        let route = Route {
            method: Method::PUT,
            path,
            action,
        };
        let body = Bytes::from(body.to_string());
        let sent = self.send(api, Operation::CreateRepository, Some(repository), route, &[], body);
        match sent.await {
            Ok(Some(_)) => Ok(Created::Made),
            Ok(None) => Ok(Created::Nothing),
            Err(error) if error.kind == ErrorKind::Conflict => Ok(Created::WasThere),
            Err(error) => Err(error),
        }
    }

    async fn make(&self, api: &Api, repository: &RepositoryName) -> Result<Created> {
        // Deeper names are none here: the push says so.
        let Some((namespace, name)) = repository
            .as_str()
            .split_once('/')
            .filter(|(_, name)| !name.contains('/'))
        else {
            return Ok(Created::Nothing);
        };
        let kind = if api.settings().create.public {
            "PUBLIC"
        } else {
            "PRIVATE"
        };
        let body = json!({ "Repo": {
            "RepoNamespace": namespace, "RepoName": name, "RepoType": kind, "Summary": "made by transship",
            "Detail": "", "RepoBuildType": "MANUAL",
        } });
        let made = self.put(api, repository, "/repos", "CreateRepo", body.clone()).await;
        match made {
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Invalid) => {
                let namespace = json!({ "Namespace": { "Namespace": namespace } });
                match self
                    .put(api, repository, "/namespace", "CreateNamespace", namespace)
                    .await?
                {
                    Created::WasThere if error.kind == ErrorKind::Invalid => Err(error),
                    _ => self.put(api, repository, "/repos", "CreateRepo", body).await,
                }
            }
            made => made,
        }
    }
}

impl Vendor for Personal {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::AlibabaPersonal)
    }

    fn ways(&self) -> &'static Ways {
        &WAYS
    }

    fn login<'a>(&'a self, api: &'a Api) -> Told<'a, Option<Issued>> {
        async move {
            let route = Route {
                method: Method::GET,
                path: "/tokens",
                action: "GetAuthorizationToken",
            };
            let sent = self.send(api, Operation::Authenticate, None, route, &[], Bytes::new());
            let Some(answer) = sent.await? else {
                return Ok(None);
            };
            let read: Token = data(&answer)?;
            match (read.temp_user_name, read.authorization_token) {
                (Some(username), Some(password)) => Ok(Some(issued(username, password, read.expire_date.as_ref()))),
                _ => Err(strange(&answer, "tempUserName or authorizationToken")),
            }
        }
        .boxed()
    }

    fn list_digests<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        self.list(api, repository).boxed()
    }

    fn list_repositories<'a>(&'a self, api: &'a Api, below: &'a [String]) -> Told<'a, Option<Vec<RepositoryName>>> {
        async move {
            if !self.account.has_key(api).await? {
                return Ok(None);
            }
            in_namespaces(below, |namespace| self.repositories(api, namespace)).await
        }
        .boxed()
    }

    fn create<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, Created> {
        self.make(api, repository).boxed()
    }
}
