//! Docker Hub: names under which it is reached, its meter, and listings by its own API at `hub.docker.com`.
//!
//! Facts: docs.docker.com, "Docker Hub API" and "Pull usage and limits".

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::FutureExt;
use http::{HeaderValue, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::awaited::Awaited;
use super::gathered::Gathered;
use super::once::once;
use super::table::Row;
use crate::oci::{Digest, RepositoryName};
use crate::registry::{
    Api, ApiAnswer, ApiCall, ApiLogin, BulkListing, Credentials, Error, ErrorKind, Kind, ListedTag, NumberedPage,
    Operation, Phrase, Result, Told, Vendor, Ways, numbered, numbered_in_part,
};
use crate::telemetry::Secret;

/// The aliases, `library/` and the key of the login files: moby's `registry` package and containers/image
/// `docker/docker_client.go`. The realm https://auth.docker.io/token: docs.docker.com, Registry API, authentication.
/// Metered: docs.docker.com/docker-hub/usage/pulls.
pub(super) static ROW: Row = Row {
    kind: Kind::DockerHub,
    habits: |habits| {
        habits.api_host = Some("registry-1.docker.io".to_owned());
        habits.credential_key = Some("https://index.docker.io/v1/".to_owned());
        habits.default_namespace = Some(LIBRARY.to_owned());
        habits.token_hosts = vec!["auth.docker.io".to_owned()];
        habits.metered = true;
        // Its API has a limit of its own, which is not written anywhere: well below what a person's browser asks.
        habits.api_per_second = Some(5);
    },
    vendor: |_| Arc::new(Hub::default()),
};

/// Where the official images are.
const LIBRARY: &str = "library";
const API_HOST: &str = "hub.docker.com";
/// Entries of a page: larger ones are cut to it.
const PAGE: u32 = 100;
/// How long a token of the API is used. It is good for longer.
const TOKEN_LIFE: Duration = Duration::from_secs(300);
/// What access tokens of organisations begin with, which stand for a password.
const ORGANISATION_TOKEN: &str = "dckr_oat_";
/// How long a login that failed is not tried again: each of many repositories would try it.
const FAILURE_LIFE: Duration = Duration::from_secs(60);

static WAYS: Ways = Ways {
    // The API may be behind the registry, and a tag that it does not show is no tag that is gone.
    hides_tags: true,
    // docs.docker.com, "Organization access tokens": what these need beside Image Pull. Others see what their user does.
    right_to_list: "read access by Docker Hub's API (an organisation access token: the scope Tag Read, `scope-tag-read`)",
    lists_alike: true,
    // Asking for it is refused.
    catalogue: false,
    phrases: &[Phrase {
        status: 429,
        code: "TOOMANYREQUESTS",
        says: "pull rate limit",
        writes: Some(false),
        kind: ErrorKind::Throttled,
        advice: "the pulls of these six hours are used up: log in, with a plan that has more, or wait",
    }],
    ..Ways::PLAIN
};

/// Docker Hub as one user sees it.
#[derive(Debug, Default)]
struct Hub {
    token: Awaited<Secret>,
    /// The user was told that a list may lack what is private.
    told_of_private: AtomicBool,
}

#[derive(Deserialize)]
struct Page<T> {
    count: Option<u64>,
    next: Option<String>,
    results: Vec<T>,
}

/// The digests of its `images` are those of single platforms: they are left alone.
#[derive(Deserialize, PartialEq, Eq, Hash)]
struct TagEntry {
    name: String,
    digest: Option<String>,
    media_type: Option<String>,
    tag_last_pushed: Option<jiff::Timestamp>,
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
struct RepositoryEntry {
    name: String,
    is_private: Option<bool>,
}

#[derive(Deserialize)]
struct Token {
    /// The older login calls it `token`.
    #[serde(alias = "token")]
    access_token: String,
}

#[derive(Deserialize)]
struct Said {
    #[serde(alias = "detail")]
    message: Option<String>,
}

impl Vendor for Hub {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::DockerHub)
    }

    fn ways(&self) -> &'static Ways {
        &WAYS
    }

    fn list_digests<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        async move {
            if !has_api(api) {
                return Ok(BulkListing::None);
            }
            let (namespace, name) = repository
                .as_str()
                .split_once('/')
                .unwrap_or((LIBRARY, repository.as_str()));
            let path = format!("/v2/namespaces/{namespace}/repositories/{name}/tags");
            let read = |number| self.page(api, Operation::ListTags, Some(repository), &path, number);
            match numbered_in_part(read).await {
                Ok(entries) => Ok(BulkListing::Known {
                    tags: tags_of(entries),
                    comparable: false,
                }),
                // Missing, or private and not this user's: the registry tells which.
                Err(error) if error.kind == ErrorKind::NotFound => Ok(BulkListing::None),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn list_repositories<'a>(&'a self, api: &'a Api, below: &'a [String]) -> Told<'a, Option<Vec<RepositoryName>>> {
        async move {
            if !has_api(api) {
                return Ok(None);
            }
            let mut gathered = Gathered::default();
            let mut known: Vec<&str> = Vec::new();
            for beginning in below {
                let Some((namespace, _)) = beginning.split_once('/') else {
                    let message = "Docker Hub has no list of all repositories; begin the patterns with a namespace, as in `library/*`";
                    let place = api.place(None);
                    return Err(Error::new(Operation::ListRepositories, place, ErrorKind::Unsupported, message));
                };
                if known.contains(&namespace) {
                    continue;
                }
                known.push(namespace);
                // A push moves its repository to the front of any other order.
                let path = format!("/v2/namespaces/{namespace}/repositories?ordering=name");
                let read = |number| self.page(api, Operation::ListRepositories, None, &path, number);
                let entries = match numbered::<RepositoryEntry, _, _>(read).await {
                    Ok(Some(entries)) => Ok(entries),
                    Ok(None) => {
                        let message =
                            format!("the list of the repositories in {namespace} changed while it was read, twice");
                        let place = api.place(None);
                        return Err(Error::new(Operation::ListRepositories, place, ErrorKind::Server, message));
                    }
                    // Where there is nobody of this name, nothing matches.
                    Err(error) if error.kind == ErrorKind::NotFound => Ok(Vec::new()),
                    Err(error) => Err(error),
                };
                if let Ok(entries) = &entries
                    && !entries.iter().any(|entry| entry.is_private == Some(true))
                {
                    self.tell_of_private(api, namespace).await?;
                }
                let full = |entries: Vec<RepositoryEntry>| {
                    let names = entries.iter().map(|entry| format!("{namespace}/{}", entry.name));
                    names.filter_map(|name| name.parse().ok()).collect()
                };
                gathered.take(namespace, entries.map(full))?;
            }
            Ok(Some(gathered.names(api)?))
        }
        .boxed()
    }
}

impl Hub {
    /// Says once that a list without anything private may lack it: it is answered so (200) to a token of the organisation that has not
    /// the scope for it (docs.docker.com, "Organization access tokens", listing behavior).
    async fn tell_of_private(&self, api: &Api, namespace: &str) -> Result<()> {
        let of_organisation = |login: &Credentials| {
            login.password.expose().starts_with(ORGANISATION_TOKEN) && login.username.eq_ignore_ascii_case(namespace)
        };
        let is_told = || self.told_of_private.swap(true, Ordering::Relaxed);
        if api.credentials().await?.as_ref().is_some_and(of_organisation) && !is_told() {
            let registry = api.place(None).registry;
            tracing::warn!(
                registry,
                "patterns find no private repositories in {namespace}: where there are some, give the organisation access token the scope \
                 Repository List (scope-repository-list)"
            );
        }
        Ok(())
    }

    async fn page<T: DeserializeOwned>(
        &self,
        api: &Api,
        operation: Operation,
        repository: Option<&RepositoryName>,
        path: &str,
        number: u32,
    ) -> Result<NumberedPage<T>> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let url = api.at(API_HOST, &format!("{path}{separator}page={number}&page_size={PAGE}"))?;
        let mut refused: Option<Secret> = None;
        let answer = loop {
            let token = self.token(api, refused.as_ref()).await?;
            let mut call = ApiCall::get(operation, api.place(repository), url.clone());
            if let Some(token) = &token {
                call.login = ApiLogin::Bearer(token.clone());
            }
            let answer = api.call(call).await?;
            match token {
                // A token may end before its time, once.
                Some(token) if answer.status == 401 && refused.is_none() => {
                    refused = Some(token);
                }
                _ => break answer,
            }
        };
        if answer.status != 200 {
            return Err(error_of(&answer));
        }
        let page: Page<T> = answer.json()?;
        let last = page.next.is_none();
        Ok(NumberedPage::of(&answer, page.results, page.count, last))
    }

    /// The token of the API for the registry's user, another one than `refused`; `None` for nobody.
    async fn token(&self, api: &Api, refused: Option<&Secret>) -> Result<Option<Secret>> {
        let Some(credentials) = api.credentials().await? else {
            return Ok(None);
        };
        // An identity token is for the token server alone.
        if credentials.username == "<token>" {
            return Ok(None);
        }
        let good = |token: &Secret| refused.is_none_or(|refused| refused.expose() != token.expose());
        let life = |token: &Result<Secret>| match token {
            Ok(_) => TOKEN_LIFE,
            Err(_) => FAILURE_LIFE,
        };
        let token = self.token.get(api.clock(), good, life, log_in(api));
        token.await.map(Some)
    }
}

/// A mirror at another host has its own images and passwords, which are none of Docker Hub's, unless the rules name its API.
fn has_api(api: &Api) -> bool {
    let settings = api.settings();
    settings.endpoint.is_some() || super::table::kind_of(&settings.url.host) == Kind::DockerHub
}

async fn log_in(api: &Api) -> Result<Secret> {
    let mut answer = post(api, "/v2/auth/token", ["identifier", "secret"]).await?;
    if answer.status == 404 {
        answer = post(api, "/v2/users/login", ["username", "password"]).await?;
    }
    match answer.status {
        200 => Ok(Secret::new(answer.json::<Token>()?.access_token)),
        _ => Err(error_of(&answer)),
    }
}

/// Sends user and password under these names.
async fn post(api: &Api, path: &str, [user, secret]: [&str; 2]) -> Result<ApiAnswer> {
    let url = api.at(API_HOST, path)?;
    let login = |credentials: Option<&Credentials>| {
        let (name, password) = credentials.map_or(("", ""), |found| (&found.username, found.password.expose()));
        let body = json!({ user: name, secret: password }).to_string();
        let mut call = ApiCall::post(Operation::Authenticate, api.place(None), url.clone(), body);
        call.headers
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        call
    };
    api.call_as(login).await
}

fn error_of(answer: &ApiAnswer) -> Error {
    let said = serde_json::from_slice::<Said>(&answer.body).ok();
    answer.refused(&said.and_then(|said| said.message).unwrap_or_default())
}

fn tags_of(entries: Vec<TagEntry>) -> Vec<ListedTag> {
    once(entries.into_iter().filter_map(|entry| {
        Some(ListedTag {
            tag: entry.name.parse().ok()?,
            // Old tags have none.
            digest: entry.digest.and_then(|text| text.parse::<Digest>().ok()),
            media_type: entry.media_type.filter(|kind| !kind.is_empty()),
            pushed: entry.tag_last_pushed,
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_hub_tags_have_the_digest_of_the_tag_or_none() {
        let index = format!("sha256:{}", "a".repeat(64));
        let body = json!({
            "count": 3, "next": null, "previous": null,
            "results": [
                { "name": "3.20", "digest": index, "media_type": "application/vnd.oci.image.index.v1+json",
                  "tag_last_pushed": "2026-03-01T12:00:00.123456Z",
                  "images": [{ "architecture": "amd64", "digest": format!("sha256:{}", "b".repeat(64)) }] },
                { "name": "2.0", "digest": null, "media_type": "", "tag_last_pushed": null,
                  "images": [{ "architecture": "amd64", "digest": format!("sha256:{}", "c".repeat(64)) }] },
                { "name": "1.0", "images": [] },
            ],
        });
        let page: Page<TagEntry> = serde_json::from_value(body).expect("a page");
        let tags = tags_of(page.results);
        let digests: Vec<Option<String>> = tags
            .iter()
            .map(|listed| listed.digest.as_ref().map(ToString::to_string))
            .collect();
        assert_eq!(digests, [Some(index), None, None]);
        assert!(tags[0].pushed.is_some() && tags[1].media_type.is_none());
    }
}
