//! The repositories of Artifactory: by the registry's own catalogue, and where that is missing or refused by those of Artifactory's
//! own repositories, which the first parts of names are the keys of.
//!
//! Facts: jfrog.com, "Artifactory REST APIs", Get Repositories and List Docker Repositories; goharbor/harbor
//! `src/pkg/reg/adapter/jfrog`. Of its pages it is said that `n` and `last` are heeded from 5.4.6 on, and nothing of where their links
//! lead to.

use std::collections::HashSet;

use serde::Deserialize;
use url::Url;

use super::artifactory_address as address;
use super::gathered::{Gathered, MAX_NAMES};
use super::in_part::InPart;
use super::names::namespaces;
use crate::oci::RepositoryName;
use crate::registry::{Api, ApiAnswer, ApiCall, ApiLogin, ApiPages, Error, ErrorKind, Operation, Result};

/// Entries of a page.
const PAGE: usize = 1000;

/// Keys whose catalogues are read for one list: each costs a request and more.
const MOST_KEYS: usize = 1000;

/// A repository of Artifactory's own.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Key {
    pub(super) key: String,
    /// `LOCAL`, `REMOTE`, `VIRTUAL` or `FEDERATED`; empty where nobody says.
    #[serde(default, rename = "type")]
    pub(super) class: String,
    #[serde(default)]
    package_type: String,
}

impl Key {
    fn of_name(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            class: String::new(),
            package_type: String::new(),
        }
    }

    /// Names of images may begin with it.
    fn is_of_docker(&self) -> bool {
        let is_part = !self.key.contains('/') && self.key.parse::<RepositoryName>().is_ok();
        is_part && (self.package_type.is_empty() || self.package_type.eq_ignore_ascii_case("docker"))
    }

    /// It holds what it has fetched, or shows what others hold.
    pub(super) fn lists_in_part(&self) -> bool {
        ["remote", "virtual"]
            .iter()
            .any(|class| self.class.eq_ignore_ascii_case(class))
    }
}

#[derive(Deserialize)]
struct Catalogue {
    repositories: Option<Vec<Option<String>>>,
}

/// Those that lie below what the patterns begin with, and perhaps others. The keys that were seen on the way go to `learn`.
///
/// # Errors
/// Neither the registry's own catalogue nor one of a key may be read.
pub(super) async fn list(
    api: &Api,
    below: &[String],
    told: &InPart,
    learn: impl Fn(&[Key]),
) -> Result<Vec<RepositoryName>> {
    let refusal = match api.list_catalogue().await {
        Ok(Some(names)) => return Ok(names),
        Ok(None) => None,
        // What has a page for people there has no catalogue there.
        Err(error) if is_refusal(error.kind) || error.kind == ErrorKind::Invalid => Some(error),
        Err(error) => return Err(error),
    };
    // The address is that of one key already.
    if address::key_of_path(&api.settings().url).is_some() {
        return Err(refusal.unwrap_or_else(|| no_catalogue(api)));
    }
    let of_keys = Box::pin(by_key(api, below, told, refusal.as_ref(), learn)).await;
    of_keys.map_err(|mut error| {
        if let Some(refusal) = refusal.filter(|_| is_refusal(error.kind)) {
            error.message = format!(
                "{}; the registry's own catalogue cannot be read either ({})",
                error.message, refusal.message
            );
        }
        error
    })
}

async fn by_key(
    api: &Api,
    below: &[String],
    told: &InPart,
    refusal: Option<&Error>,
    learn: impl Fn(&[Key]),
) -> Result<Vec<RepositoryName>> {
    let wanted = namespaces(below);
    let known = match keys(api).await {
        Ok(known) => known,
        // What the patterns name may be asked for all the same.
        Err(error) if wanted.is_some() && is_refusal(error.kind) => Vec::new(),
        Err(error) => return Err(error),
    };
    // The host is that of one key (the subdomain method), and names have none in them: what was refused is that key's catalogue.
    if refusal.is_some()
        && known
            .iter()
            .any(|key| address::is_host_of(&api.settings().url, &key.key))
    {
        return Err(no_catalogue(api));
    }
    let keys: Vec<Key> = match wanted {
        None => known,
        Some(wanted) => {
            let of = |name: &str| known.iter().find(|key| key.key == name).cloned();
            let of_name = wanted.iter().map(|name| of(name).unwrap_or_else(|| Key::of_name(name)));
            of_name.collect()
        }
    };
    // A user who may see none is shown none.
    if keys.is_empty() && refusal.is_some() {
        let message = "Artifactory shows this user no repositories for images: grant the right to read them";
        let place = api.place(None);
        return Err(Error::new(
            Operation::ListRepositories,
            place,
            ErrorKind::Denied,
            message,
        ));
    }
    if keys.len() > MOST_KEYS {
        let message = format!(
            "Artifactory has {} repositories for images, of which {MOST_KEYS} are read at most: let the patterns begin with their keys",
            keys.len()
        );
        let (operation, place) = (Operation::ListRepositories, api.place(None));
        return Err(Error::new(operation, place, ErrorKind::Unsupported, message));
    }
    learn(&keys);
    tell(api, told, &keys);
    let mut gathered = Gathered::default();
    // All of them are one list, which is no longer than others may be.
    let mut pages = ApiPages::new(Operation::ListRepositories, api.place(None));
    for Key { key, .. } in &keys {
        pages.go_on()?;
        let room = MAX_NAMES.saturating_sub(gathered.count());
        gathered.take(key, catalogue(api, key, &mut pages, room).await)?;
    }
    gathered.names(api)
}

/// Says once of each key that its catalogue may lack something.
fn tell(api: &Api, told: &InPart, keys: &[Key]) {
    let in_part = keys.iter().filter(|key| key.lists_in_part());
    if let Some(news) = told.news(in_part.map(|key| key.key.as_str())) {
        tracing::warn!(
            registry = api.place(None).registry,
            "patterns may not find all there is in {news}: Artifactory lists of a remote repository what it has fetched so far, and of \
             a virtual one what its members list; write the names of those that are missing"
        );
    }
}

/// Those that Artifactory shows this user, for images.
///
/// # Errors
/// They may not be listed, or cannot be now.
pub(super) async fn keys(api: &Api) -> Result<Vec<Key>> {
    let url = address::url(api, "/api/repositories?packageType=docker")?;
    let mut call = ApiCall::get(Operation::ListRepositories, api.place(None), url);
    call.login = ApiLogin::Basic;
    let answer = api.call(call).await?;
    if answer.status != 200 {
        return Err(answer.refused(""));
    }
    let mut keys: Vec<Key> = answer.json()?;
    keys.retain(Key::is_of_docker);
    Ok(keys)
}

/// One image of a key, by its name behind the key; `None` where there is none, or none for this user.
///
/// # Errors
/// It cannot be looked for now.
pub(super) async fn first_image(api: &Api, key: &str) -> Result<Option<RepositoryName>> {
    let url = address::url(api, &format!("/api/docker/{key}/v2/_catalog?n=1"))?;
    let mut call = ApiCall::get(Operation::ListRepositories, api.place(None), url);
    call.login = ApiLogin::Basic;
    let names = match api.call(call).await {
        Ok(answer) if answer.status == 200 => answer.json::<Catalogue>().ok().and_then(|page| page.repositories),
        Ok(answer) => match answer.refused("") {
            error if error.kind.is_temporary() => return Err(error),
            _ => None,
        },
        Err(error) if error.kind.is_temporary() => return Err(error),
        Err(_) => None,
    };
    let first = names.unwrap_or_default().into_iter().flatten().next();
    Ok(first.and_then(|name| format!("{key}/{name}").parse().ok()))
}

/// What a key holds, by the names that the registry has for it.
async fn catalogue(api: &Api, key: &str, pages: &mut ApiPages, room: usize) -> Result<Vec<RepositoryName>> {
    let first = address::url(api, &format!("/api/docker/{key}/v2/_catalog?n={PAGE}"))?;
    let mut known = HashSet::new();
    let mut names = Vec::new();
    let mut next = Some(first.clone());
    while let Some(url) = next {
        let mut call = ApiCall::get(Operation::ListRepositories, api.place(None), url);
        call.login = ApiLogin::Basic;
        let answer = api.call(call).await?;
        if answer.status != 200 {
            return Err(refused(&answer, key));
        }
        let entries = answer.json::<Catalogue>()?.repositories.unwrap_or_default();
        let (count, before) = (entries.len(), known.len());
        let mut last = None;
        for entry in entries.into_iter().flatten() {
            last = Some(entry.clone());
            if known.insert(entry.clone()) {
                names.extend(format!("{key}/{entry}").parse::<RepositoryName>());
            }
        }
        if known.len() > room {
            let message = format!("the catalogues of its keys have more than {MAX_NAMES} entries together");
            return Err(answer.error(ErrorKind::Invalid, message));
        }
        // What does not know `n` gives all at once, and what does not know `last` the same again.
        let is_full = count == PAGE && known.len() > before;
        next = pages.next_or(&answer, is_full, last.map(|last| behind(&first, &last)))?;
    }
    Ok(names)
}

/// The page behind an entry.
fn behind(first: &Url, last: &str) -> Url {
    let mut url = first.clone();
    url.query_pairs_mut().append_pair("last", last);
    url
}

fn refused(answer: &ApiAnswer, key: &str) -> Error {
    let mut error = answer.refused("");
    match error.kind {
        // Before 7 a key that is missing is 400.
        ErrorKind::NotFound | ErrorKind::Invalid => {
            error.kind = ErrorKind::NotFound;
            error.message = format!(
                "Artifactory shows this user no Docker repository {key}: it is missing, or the permission to read it is \
                 ({})",
                error.message
            );
        }
        ErrorKind::Denied | ErrorKind::Unauthorized => {
            error.message = format!(
                "{}; patterns need the permission to read the repository {key}",
                error.message
            );
        }
        _ => {}
    }
    error
}

fn no_catalogue(api: &Api) -> Error {
    let message = "it has no catalogue for this user: name the repositories in the rules in place of patterns";
    Error::new(
        Operation::ListRepositories,
        api.place(None),
        ErrorKind::Unsupported,
        message,
    )
}

fn is_refusal(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Denied | ErrorKind::Unauthorized | ErrorKind::NotFound | ErrorKind::Unsupported
    )
}
