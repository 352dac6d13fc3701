//! The local repository of Artifactory that a name begins with, or that the address is of: who has to make it, and how it is made where
//! the rules ask for that.
//!
//! Facts: jfrog.com, "Artifactory REST APIs", Get Repository Configuration and Create Repository; goharbor/harbor
//! `src/pkg/reg/adapter/jfrog`.

use http::{HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::json;

use super::artifactory_address as address;
use super::artifactory_repositories::{self as repositories, Key};
use super::words;
use crate::oci::RepositoryName;
use crate::registry::{Api, ApiAnswer, ApiCall, ApiLogin, Created, Error, ErrorKind, Operation, Result};

/// Keys of which an image is looked for by its name here: empty ones tell nothing.
const MOST_TRIED: usize = 5;

/// Whether names begin with keys at the address of a registry, as far as its images tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// They do.
    WithKeys,
    /// They do not: the host or the port is that of one key.
    WithoutKeys,
}

#[derive(Deserialize)]
struct Repository {
    #[serde(default)]
    rclass: String,
}

/// After a push that found nothing there; with how names begin here, where that was looked at.
///
/// # Errors
/// The key is missing and is not to be made, or cannot be; or it takes no pushes.
pub(super) async fn make(
    api: &Api,
    repository: &RepositoryName,
    known: Option<Begin>,
) -> (Result<Created>, Option<Begin>) {
    let mut seen = None;
    let made = make_one(api, repository, known, &mut seen).await;
    (made, seen)
}

async fn make_one(
    api: &Api,
    repository: &RepositoryName,
    known: Option<Begin>,
    seen: &mut Option<Begin>,
) -> Result<Created> {
    let url = &api.settings().url;
    if let Some(key) = address::key_of_path(url) {
        return match look(api, repository, key).await?.ended()? {
            Found::Ends(created) => Ok(created),
            Found::Missing(_) if api.settings().create.artifactory_local => put(api, repository, key).await,
            Found::Missing(answer) => Err(missing(&answer, &format!("{key}, which this address is that of"))),
        };
    }
    let host = address::key_of_host(url);
    let mut begins = known;
    // A key of this name: the host's own, or one that merely has the name of its first part. Whom it is hidden from could not push by
    // this host either, so that it is not that of a key.
    let mut alike = None;
    if let Some(host) = host
        && let found @ (Look::There | Look::Remote(_)) = look(api, repository, host).await?
    {
        if begins.is_none() {
            begins = Box::pin(begin(api, repository)).await?;
            *seen = begins;
        }
        if begins == Some(Begin::WithoutKeys) {
            found.ended()?;
            return Ok(Created::WasThere);
        }
        alike = Some(host);
    }
    let Some((key, _)) = repository.as_str().split_once('/') else {
        return Ok(Created::Nothing);
    };
    let answer = match look(api, repository, key).await?.ended()? {
        Found::Ends(created) => return Ok(created),
        Found::Missing(answer) => answer,
    };
    // A key that is made by mistake stays, and so does the next.
    if let (Some(host), None) = (alike, begins) {
        let message = format!(
            "Artifactory has no repository {key}, and it has {host}, which this host may be that of: no image tells whether names begin \
             with keys here, and nothing was made. If they do, an administrator makes {key} (Administration, Repositories, Create a \
             Repository, Local, Docker); if not, {host} refuses the push for a reason of its own"
        );
        return Err(answer.error(ErrorKind::Unsupported, message));
    }
    if !api.settings().create.artifactory_local {
        let or = match host {
            Some(host) if alike.is_none() => format!(", nor {host} where this host is that of one"),
            _ => String::new(),
        };
        return Err(missing(&answer, &format!("{key} for names to begin with{or}")));
    }
    if begins.is_none() {
        begins = Box::pin(begin(api, repository)).await?;
        *seen = begins;
    }
    match begins {
        Some(Begin::WithoutKeys) => Err(Error::new(
            Operation::CreateRepository,
            api.place(Some(repository)),
            ErrorKind::Unsupported,
            "names do not begin with keys of Artifactory at this address, so it is that of one repository, which is missing or is not for \
             this user, and nothing was made: an administrator makes it (Administration, Repositories, Create a Repository, Local, \
             Docker)",
        )),
        Some(Begin::WithKeys) | None => put(api, repository, key).await,
    }
}

/// What is found where a key should be.
enum Look {
    There,
    /// It takes no pushes; with what is said of that.
    Remote(Error),
    /// Whether it is there is for others to know.
    Hidden,
    Missing(Box<ApiAnswer>),
}

/// What that means where it is the key of what is pushed.
enum Found {
    /// No key is to be made for that.
    Ends(Created),
    Missing(Box<ApiAnswer>),
}

impl Look {
    fn ended(self) -> Result<Found> {
        match self {
            Self::There => Ok(Found::Ends(Created::WasThere)),
            Self::Remote(error) => Err(error),
            Self::Hidden => Ok(Found::Ends(Created::Nothing)),
            Self::Missing(answer) => Ok(Found::Missing(answer)),
        }
    }
}

async fn look(api: &Api, repository: &RepositoryName, key: &str) -> Result<Look> {
    let url = address::url(api, &format!("/api/repositories/{key}"))?;
    let mut call = ApiCall::get(Operation::CreateRepository, api.place(Some(repository)), url);
    call.login = ApiLogin::Basic;
    let seen = api.call(call).await?;
    match seen.status {
        200 if seen.json::<Repository>()?.rclass.eq_ignore_ascii_case("remote") => {
            let message = format!(
                "{key} is a remote repository of Artifactory, which fetches what it has and takes no pushes: let the names at the \
                 destination begin with the key of a local one, or let the address be that of one"
            );
            Ok(Look::Remote(seen.error(ErrorKind::Unsupported, message)))
        }
        200 => Ok(Look::There),
        // Before 7, and for some users since, a key that is missing is 400.
        400 | 404 => Ok(Look::Missing(Box::new(seen))),
        401 | 403 => Ok(Look::Hidden),
        _ => Err(seen.refused(&words::said(&seen.body))),
    }
}

fn missing(answer: &ApiAnswer, what: &str) -> Error {
    let message = format!(
        "Artifactory has no repository {what}: an administrator makes it (Administration, Repositories, \
         Create a Repository, Local, Docker), or write `create_repositories: {{ artifactory_local: true }}` at this registry with an \
         administrator's login"
    );
    answer.error(ErrorKind::Unsupported, message)
}

async fn put(api: &Api, repository: &RepositoryName, key: &str) -> Result<Created> {
    let url = address::url(api, &format!("/api/repositories/{key}"))?;
    let body = json!({ "key": key, "rclass": "local", "packageType": "docker", "dockerApiVersion": "V2" });
    let place = api.place(Some(repository));
    let mut call = ApiCall::post(Operation::CreateRepository, place, url, body.to_string());
    call.method = Method::PUT;
    call.login = ApiLogin::Basic;
    let json = HeaderValue::from_static("application/json");
    call.headers.insert(header::CONTENT_TYPE, json);
    let answer = api.call(call).await?;
    match answer.status {
        200 | 201 => Ok(Created::Made),
        // Somebody else made it meanwhile.
        400 | 409 if words::said(&answer.body).to_ascii_lowercase().contains("exist") => Ok(Created::WasThere),
        _ => Err(cannot_make(key, &answer)),
    }
}

/// Looks for images of other keys by the names that they have here if names begin with keys. `None` where no key has any that this user
/// may see: it is believed then that they do.
///
/// # Errors
/// It cannot be looked at now.
async fn begin(api: &Api, repository: &RepositoryName) -> Result<Option<Begin>> {
    let keys = match repositories::keys(api).await {
        Ok(keys) => keys,
        Err(error) if error.kind.is_temporary() => return Err(error),
        Err(_) => return Ok(None),
    };
    let mut found = None;
    for Key { key, .. } in keys.iter().filter(|key| !key.lists_in_part()).take(MOST_TRIED) {
        let Some(name) = repositories::first_image(api, key).await? else {
            continue;
        };
        let url = api.own(&format!("/v2/{name}/tags/list?n=1"))?;
        let mut call = ApiCall::get(Operation::CreateRepository, api.place(Some(repository)), url);
        call.login = ApiLogin::Own(vec![format!("repository:{name}:pull")]);
        let answer = api.call(call).await?;
        match answer.status {
            200 => return Ok(Some(Begin::WithKeys)),
            404 => found = Some(Begin::WithoutKeys),
            429 | 500.. => return Err(answer.refused("")),
            // A right that is missing tells nothing.
            _ => {}
        }
    }
    Ok(found)
}

fn cannot_make(key: &str, answer: &ApiAnswer) -> Error {
    let mut error = answer.refused(&words::said(&answer.body));
    if matches!(error.kind, ErrorKind::Denied | ErrorKind::Unauthorized) {
        error.message = format!(
            "Artifactory has no repository {key}, and this user may not make it ({}); an administrator makes it (Administration, \
             Repositories, Create a Repository, Local, Docker)",
            error.message
        );
    }
    error
}
