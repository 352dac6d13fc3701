//! The personal edition of Alibaba Cloud Container Registry, by its API of 2016-06-07.

use bytes::Bytes;
use futures_util::future::FutureExt;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::acs3::escaped;
use super::alibaba::{Account, Request, is_missing, issued, listed_tag, strange, total};
use super::keyed::{in_namespaces, keyless};
use super::names::{absent_or_names, whole};
use super::once::once;
use crate::oci::RepositoryName;
use crate::registry::{
    Api, ApiAnswer, BulkListing, Created, ErrorKind, Issued, Kind, NumberedPage, Operation, Result, Told, Vendor, Ways,
    numbered, numbered_in_part,
};

const VERSION: &str = "2016-06-07";
/// Entries of a page at most.
const PAGE: &str = "100";

static WAYS: Ways = Ways {
    must_create: true,
    // Pages by number: a tag that is deleted while another is pushed moves one past the reader, and the total stays.
    hides_tags: true,
    lists_alike: true,
    right_to_list: "the RAM actions cr:ListRepository and cr:ListRepositoryTag",
    catalogue: false,
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

#[derive(Deserialize, PartialEq, Eq, Hash)]
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

    /// One page of a list.
    async fn page(
        &self,
        api: &Api,
        repository: Option<&RepositoryName>,
        (path, action): (&str, &str),
        number: u32,
    ) -> Result<ApiAnswer> {
        let operation = match repository {
            Some(_) => Operation::ListTags,
            None => Operation::ListRepositories,
        };
        let number = number.to_string();
        let query = [("Page", number.as_str()), ("PageSize", PAGE)];
        let route = Route {
            method: Method::GET,
            path,
            action,
        };
        let answer = self
            .send(api, operation, repository, route, &query, Bytes::new())
            .await?;
        answer.ok_or_else(|| keyless(api, operation))
    }

    async fn list(&self, api: &Api, repository: &RepositoryName) -> Result<BulkListing> {
        let Some((namespace, name)) = repository.as_str().split_once('/') else {
            return Ok(BulkListing::None);
        };
        if !self.account.has_key(api).await? {
            return Ok(BulkListing::None);
        }
        let path = &format!("/repos/{}/{}/tags", escaped(namespace), escaped(name));
        let page = |number: u32| async move {
            let answer = self.page(api, Some(repository), (path, "GetRepoTags"), number).await?;
            let read: Tags = data(&answer)?;
            let listed = |tag: &Tag| listed_tag(&tag.tag, &tag.digest, tag.updated.as_ref());
            let tags = read.tags.iter().filter_map(listed).collect();
            Ok(NumberedPage::of(&answer, tags, total(read.total.as_ref()), false))
        };
        match numbered_in_part(page).await {
            Ok(tags) => Ok(BulkListing::Known {
                tags: once(tags),
                // What it says of an index is not documented.
                comparable: false,
            }),
            Err(error) if error.kind == ErrorKind::NotFound => absent_or_names(api, repository).await,
            Err(error) => Err(error),
        }
    }

    async fn repositories(&self, api: &Api, namespace: Option<&str>) -> Result<Vec<RepositoryName>> {
        let (path, action) = match namespace {
            Some(namespace) => (format!("/repos/{}", escaped(namespace)), "GetRepoListByNamespace"),
            None => ("/repos".to_owned(), "GetRepoList"),
        };
        let path = &path;
        let page = |number: u32| async move {
            let answer = self.page(api, None, (path, action), number).await?;
            let read: Repositories = data(&answer)?;
            let total = total(read.total.as_ref());
            Ok(NumberedPage::of(&answer, read.repos, total, false))
        };
        let read: Vec<Repository> = whole(api, numbered(page).await?)?;
        let names = read
            .iter()
            .map(|repository| format!("{}/{}", repository.repo_namespace, repository.repo_name));
        Ok(names.filter_map(|name| name.parse().ok()).collect())
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
                // Where it is there, perhaps since just now, the repository tells what else is wrong.
                self.put(api, repository, "/namespace", "CreateNamespace", namespace)
                    .await?;
                self.put(api, repository, "/repos", "CreateRepo", body).await
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
            let list = |namespace| self.repositories(api, namespace);
            Ok(Some(in_namespaces(below, is_missing, list).await?))
        }
        .boxed()
    }

    fn create<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, Created> {
        self.make(api, repository).boxed()
    }
}
