//! The enterprise edition of Alibaba Cloud Container Registry, by its API of 2018-12-01.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::FutureExt;
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::alibaba::{Account, Request, is_missing, issued, listed_tag, strange, total, unset};
use super::keyed::{in_namespaces, keyless};
use super::names::{absent_or_names, whole};
use super::once::once;
use crate::oci::RepositoryName;
use crate::registry::{
    Api, ApiAnswer, BulkListing, Created, ErrorKind, Issued, Kind, ListedTag, NumberedPage, Operation, Phrase, Result,
    Told, Vendor, Ways, numbered, numbered_in_part,
};

const VERSION: &str = "2018-12-01";
/// Entries of a page at most.
const PAGE: &str = "100";
/// Repositories whose ids are remembered; above it they are asked for again.
const MOST_IDS: usize = 10_000;

static WAYS: Ways = Ways {
    must_create: true,
    // Pages by number: a tag that is deleted while another is pushed moves one past the reader, and the total stays.
    hides_tags: true,
    lists_alike: true,
    right_to_list: "the RAM actions cr:GetRepository, cr:ListRepository and cr:ListRepoTag",
    // help.aliyun.com, "Configure a repository to be immutable": these words, and neither status nor code.
    phrases: &[Phrase {
        status: 0,
        code: "",
        says: "already exists and cannot be overwritten",
        writes: Some(true),
        kind: ErrorKind::Conflict,
        advice: "the repository's tags are immutable: let the rule leave them (`moved_tags: keep`, `on_conflict: keep`), or \
                 change the repository's setting",
    }],
    catalogue: false,
    ..Ways::PLAIN
};

/// One registry of the enterprise edition.
#[derive(Debug)]
pub(super) struct Enterprise {
    account: Account,
    /// By repository, the id that the API knows it by.
    ids: Mutex<HashMap<RepositoryName, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Token {
    temp_username: Option<String>,
    authorization_token: Option<String>,
    expire_time: Option<Value>,
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "PascalCase")]
struct Repository {
    repo_id: Option<String>,
    repo_name: Option<String>,
    repo_namespace_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Repositories {
    #[serde(default)]
    repositories: Vec<Repository>,
    total_count: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    tag: String,
    #[serde(default)]
    digest: String,
    image_update: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Images {
    #[serde(default)]
    images: Vec<Image>,
    total_count: Option<Value>,
}

/// One page of the tags.
fn tags(answer: &ApiAnswer) -> Result<NumberedPage<ListedTag>> {
    let read: Images = answer.json()?;
    let listed = |image: &Image| listed_tag(&image.tag, &image.digest, image.image_update.as_ref());
    let tags = read.images.iter().filter_map(listed);
    let total = total(read.total_count.as_ref());
    Ok(NumberedPage::of(answer, tags.collect(), total, false))
}

impl Enterprise {
    pub(super) fn new(account: Account) -> Self {
        Self {
            account,
            ids: Mutex::default(),
        }
    }

    /// The instance's id.
    async fn instance(&self, api: &Api) -> Result<String> {
        self.account.site(api, true).await?.instance.ok_or_else(|| {
            let message = "the instance is not known: set `alibaba.instance_id` of this registry, such as cri-abc";
            unset(api.place(None), message)
        })
    }

    /// Asks one action of the instance; `None` without an access key.
    async fn action(
        &self,
        api: &Api,
        operation: Operation,
        repository: Option<&RepositoryName>,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Option<ApiAnswer>> {
        if !self.account.has_key(api).await? {
            return Ok(None);
        }
        let instance = self.instance(api).await?;
        let mut query = vec![("InstanceId", instance.as_str())];
        query.extend(parameters);
        let request = Request {
            operation,
            repository,
            method: Method::POST,
            path: "/",
            version: VERSION,
            action,
            query: &query,
            body: Bytes::new(),
        };
        self.account.ask(api, request).await
    }

    fn remember(&self, repository: RepositoryName, id: String) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len() >= MOST_IDS {
            ids.clear();
        }
        ids.insert(repository, id);
    }

    fn remembered(&self, repository: &RepositoryName) -> Option<String> {
        let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.get(repository).cloned()
    }

    /// The id of a repository; `None` without an access key.
    async fn id(&self, api: &Api, repository: &RepositoryName, namespace: &str, name: &str) -> Result<Option<String>> {
        let parameters = [("RepoNamespaceName", namespace), ("RepoName", name)];
        let answer = self
            .action(api, Operation::ListTags, Some(repository), "GetRepository", &parameters)
            .await?;
        let Some(answer) = answer else { return Ok(None) };
        let read: Repository = answer.json()?;
        let id = read.repo_id.ok_or_else(|| strange(&answer, "RepoId"))?;
        self.remember(repository.clone(), id.clone());
        Ok(Some(id))
    }

    /// All tags of a repository.
    async fn tags(&self, api: &Api, repository: &RepositoryName, id: &str) -> Result<Vec<ListedTag>> {
        let operation = Operation::ListTags;
        let page = |number: u32| async move {
            let number = number.to_string();
            let parameters = [("RepoId", id), ("PageNo", &number), ("PageSize", PAGE)];
            let answer = self
                .action(api, operation, Some(repository), "ListRepoTag", &parameters)
                .await?;
            tags(&answer.ok_or_else(|| keyless(api, operation))?)
        };
        Ok(once(numbered_in_part(page).await?))
    }

    async fn list(&self, api: &Api, repository: &RepositoryName) -> Result<BulkListing> {
        let Some((namespace, name)) = repository.as_str().split_once('/') else {
            return Ok(BulkListing::None);
        };
        let missing = |error: &crate::registry::Error| error.kind == ErrorKind::NotFound;
        // An id that is remembered may be one of a repository that was deleted and made again since.
        for remembered in [true, false] {
            let id = match self.remembered(repository).filter(|_| remembered) {
                Some(id) => id,
                None if remembered => continue,
                None => match self.id(api, repository, namespace, name).await {
                    Ok(Some(id)) => id,
                    Ok(None) => return Ok(BulkListing::None),
                    Err(error) if missing(&error) => return absent_or_names(api, repository).await,
                    Err(error) => return Err(error),
                },
            };
            match self.tags(api, repository, &id).await {
                Ok(tags) => {
                    return Ok(BulkListing::Known {
                        tags,
                        // What it says of an index is not documented.
                        comparable: false,
                    });
                }
                Err(error) if missing(&error) && remembered => {}
                Err(error) if missing(&error) => return absent_or_names(api, repository).await,
                Err(error) => return Err(error),
            }
        }
        Ok(BulkListing::None)
    }

    async fn repositories(&self, api: &Api, namespace: Option<&str>) -> Result<Vec<RepositoryName>> {
        let operation = Operation::ListRepositories;
        let page = |number: u32| async move {
            let number = number.to_string();
            let mut parameters = vec![("RepoStatus", "NORMAL"), ("PageNo", &number), ("PageSize", PAGE)];
            parameters.extend(namespace.map(|namespace| ("RepoNamespaceName", namespace)));
            let answer = self.action(api, operation, None, "ListRepository", &parameters).await?;
            let answer = answer.ok_or_else(|| keyless(api, operation))?;
            let read: Repositories = answer.json()?;
            let total = total(read.total_count.as_ref());
            Ok(NumberedPage::of(&answer, read.repositories, total, false))
        };
        let read: Vec<Repository> = whole(api, numbered(page).await?)?;
        let mut names = Vec::new();
        for repository in read {
            let (Some(namespace), Some(name)) = (repository.repo_namespace_name, repository.repo_name) else {
                continue;
            };
            let Ok(name) = format!("{namespace}/{name}").parse::<RepositoryName>() else {
                continue;
            };
            if let Some(id) = repository.repo_id {
                self.remember(name.clone(), id);
            }
            names.push(name);
        }
        Ok(names)
    }

    async fn make(&self, api: &Api, repository: &RepositoryName) -> Result<Created> {
        let Some((namespace, name)) = repository.as_str().split_once('/') else {
            return Ok(Created::Nothing);
        };
        let create = &api.settings().create;
        let kind = if create.public { "PUBLIC" } else { "PRIVATE" };
        let mut parameters = vec![
            ("RepoNamespaceName", namespace),
            ("RepoName", name),
            ("RepoType", kind),
            ("Summary", "made by transship"),
        ];
        if let Some(immutable) = create.immutable_throughout() {
            parameters.push(("TagImmutability", if immutable { "true" } else { "false" }));
        }
        let act = async |action: &str, parameters: &[(&str, &str)]| {
            self.action(api, Operation::CreateRepository, Some(repository), action, parameters)
                .await
        };
        for with_namespace in [false, true] {
            match act("CreateRepository", &parameters).await {
                Ok(None) => return Ok(Created::Nothing),
                Ok(Some(_)) => return Ok(Created::Made),
                Err(error) if error.kind == ErrorKind::Conflict => return Ok(Created::WasThere),
                // Without its namespace it cannot be made; which code says so is not documented.
                Err(error) if !with_namespace && matches!(error.kind, ErrorKind::NotFound | ErrorKind::Invalid) => {
                    let parameters = [
                        ("NamespaceName", namespace),
                        ("AutoCreateRepo", "true"),
                        ("DefaultRepoType", kind),
                    ];
                    match act("CreateNamespace", &parameters).await {
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

impl Vendor for Enterprise {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::AlibabaEnterprise)
    }

    fn ways(&self) -> &'static Ways {
        &WAYS
    }

    fn login<'a>(&'a self, api: &'a Api) -> Told<'a, Option<Issued>> {
        async move {
            let answer = self.action(api, Operation::Authenticate, None, "GetAuthorizationToken", &[]);
            let Some(answer) = answer.await? else {
                return Ok(None);
            };
            let read: Token = answer.json()?;
            match (read.temp_username, read.authorization_token) {
                (Some(username), Some(password)) => Ok(Some(issued(username, password, read.expire_time.as_ref()))),
                _ => Err(strange(&answer, "TempUsername or AuthorizationToken")),
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
