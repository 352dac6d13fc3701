//! The personal edition of Tencent Container Registry, by its API of 2019-09-24. Its login is a user and a password of the
//! registry's own, and its lists say no digests of manifests: tags are looked at one by one.

use futures_util::future::FutureExt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::keyed::{in_namespaces, keyless};
use super::names::whole;
use super::tencent::{Account, Request};
use super::tencent_api::response;
use crate::oci::RepositoryName;
use crate::registry::{
    Api, ApiAnswer, Created, Error, ErrorKind, Kind, NumberedPage, Operation, Result, Told, Vendor, Ways, numbered,
};

/// Entries of a page at most.
const PAGE: u32 = 100;

static WAYS: Ways = Ways {
    must_create: true,
    right_to_list: "the CAM action tcr:DescribeRepositoryOwnerPersonal",
    ..Ways::PLAIN
};

/// One registry of the personal edition.
#[derive(Debug)]
pub(super) struct Personal {
    account: Account,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Repository {
    /// With its namespace.
    repo_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Repositories {
    repo_info: Option<Vec<Repository>>,
    total_count: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    data: Repositories,
}

/// The region of a host: `ccr` is that of mainland China, whose registry is one.
fn region(host: &str) -> Option<&'static str> {
    let name = host.strip_suffix(".ccs.tencentyun.com")?;
    match name {
        "ccr" => Some("ap-guangzhou"),
        "hkccr" => Some("ap-hongkong"),
        "sgccr" => Some("ap-singapore"),
        _ => None,
    }
}

impl Personal {
    pub(super) fn new(account: Account) -> Self {
        Self { account }
    }

    /// Asks one action; `None` without a key.
    async fn action(
        &self,
        api: &Api,
        operation: Operation,
        repository: Option<&RepositoryName>,
        action: &str,
        body: Value,
    ) -> Result<Option<ApiAnswer>> {
        if !self.account.has_key(api).await? {
            return Ok(None);
        }
        let host = api.settings().url.host.to_ascii_lowercase();
        let written = self.account.settings.region.as_deref();
        let region = written.or_else(|| region(&host)).ok_or_else(|| {
            let message = "the region is not known: set `tencent.region` of this registry";
            Error::new(operation, api.place(repository), ErrorKind::Config, message)
        })?;
        let request = Request {
            operation,
            repository,
            region,
            action,
            body,
        };
        self.account.ask(api, request).await
    }

    /// All repositories, or those of a namespace. `Offset` counts entries here, from 0.
    async fn repositories(&self, api: &Api, namespace: Option<&str>) -> Result<Vec<RepositoryName>> {
        let page = |number: u32| async move {
            let mut body = json!({ "Limit": PAGE, "Offset": (number - 1) * PAGE });
            let action = match namespace {
                Some(namespace) => {
                    body["Namespace"] = namespace.into();
                    "DescribeRepositoryFilterPersonal"
                }
                None => "DescribeRepositoryOwnerPersonal",
            };
            let operation = Operation::ListRepositories;
            let answer = self.action(api, operation, None, action, body).await?;
            let answer = answer.ok_or_else(|| keyless(api, operation))?;
            let read = response::<Data>(&answer)?.data;
            let names = read.repo_info.into_iter().flatten().map(|it| it.repo_name);
            Ok(NumberedPage::of(&answer, names.collect(), read.total_count, false))
        };
        let names: Vec<String> = whole(api, numbered(page).await?)?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    async fn make(&self, api: &Api, repository: &RepositoryName) -> Result<Created> {
        let Some((namespace, _)) = repository.as_str().split_once('/') else {
            return Ok(Created::Nothing);
        };
        let act = async |action: &str, body: Value| {
            let operation = Operation::CreateRepository;
            self.action(api, operation, Some(repository), action, body).await
        };
        for with_namespace in [false, true] {
            let public = u8::from(api.settings().create.public);
            let body = json!({ "RepoName": repository.as_str(), "Public": public });
            match act("CreateRepositoryPersonal", body).await {
                Ok(None) => return Ok(Created::Nothing),
                Ok(Some(_)) => return Ok(Created::Made),
                Err(error) if error.kind == ErrorKind::Conflict => return Ok(Created::WasThere),
                // Without its namespace it cannot be made; which code says so is not documented.
                Err(error) if !with_namespace && matches!(error.kind, ErrorKind::NotFound | ErrorKind::Invalid) => {
                    match act("CreateNamespacePersonal", json!({ "Namespace": namespace })).await {
                        Err(refused) if refused.kind != ErrorKind::Conflict => return Err(refused),
                        // It was made just now, or is somebody else's, as names are unique among all users: the repository
                        // tells which.
                        _ => {}
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Created::Nothing)
    }
}

impl Vendor for Personal {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::TencentPersonal)
    }

    fn ways(&self) -> &'static Ways {
        &WAYS
    }

    fn list_repositories<'a>(&'a self, api: &'a Api, below: &'a [String]) -> Told<'a, Option<Vec<RepositoryName>>> {
        async move {
            if !self.account.has_key(api).await? {
                return Ok(None);
            }
            // A user who is not there, or another key than theirs, says nothing of a namespace.
            let is_missing = |error: &Error| error.code.as_deref() == Some("ResourceNotFound.ErrNoNamespace");
            let listed = in_namespaces(below, is_missing, |namespace| self.repositories(api, namespace)).await?;
            Ok(Some(listed))
        }
        .boxed()
    }

    fn create<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, Created> {
        self.make(api, repository).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tencent_regions_of_the_personal_edition_by_host() {
        for (host, wanted) in [
            ("ccr.ccs.tencentyun.com", Some("ap-guangzhou")),
            ("hkccr.ccs.tencentyun.com", Some("ap-hongkong")),
            ("sgccr.ccs.tencentyun.com", Some("ap-singapore")),
            ("xxccr.ccs.tencentyun.com", None),
            ("registry.corp.example", None),
        ] {
            assert_eq!(region(host), wanted, "{host}");
        }
    }
}
