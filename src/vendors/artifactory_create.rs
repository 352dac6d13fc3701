//! The local repository of Artifactory that a name begins with: who has to make it, and how it is made where the rules ask for that.
//!
//! Facts: jfrog.com, "Artifactory REST APIs", Get Repository Configuration and Create Repository; goharbor/harbor
//! `src/pkg/reg/adapter/jfrog`.

use http::{HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::json;

use super::words;
use crate::oci::RepositoryName;
use crate::registry::{Api, ApiAnswer, ApiCall, ApiLogin, Created, ErrorKind, Operation, Result};

#[derive(Deserialize)]
struct Repository {
    #[serde(default)]
    rclass: String,
}

/// After a push that found nothing there.
///
/// # Errors
/// The key is missing and is not to be made, or cannot be; or it takes no pushes.
pub(super) async fn make(api: &Api, repository: &RepositoryName, key: &str) -> Result<Created> {
    let url = api.own(&format!("/artifactory/api/repositories/{key}"))?;
    let place = api.place(Some(repository));
    let mut look = ApiCall::get(Operation::CreateRepository, place.clone(), url.clone());
    look.login = ApiLogin::Basic;
    let seen = api.call(look).await?;
    match seen.status {
        200 if seen.json::<Repository>()?.rclass.eq_ignore_ascii_case("remote") => {
            let message = format!(
                "{key} is a remote repository of Artifactory, which fetches what it has and takes no pushes: let the names at the \
                 destination begin with the key of a local one"
            );
            return Err(seen.error(ErrorKind::Unsupported, message));
        }
        200 => return Ok(Created::WasThere),
        // Before 7, and for some users since, a key that is missing is 400.
        400 | 404 => {}
        // Whether it is there is for others to know.
        401 | 403 => return Ok(Created::Nothing),
        _ => return Err(seen.refused(&words::said(&seen.body))),
    }
    let settings = &api.settings().create;
    if !settings.artifactory_local {
        let message = format!(
            "Artifactory has no repository {key} for names to begin with: an administrator makes it (Administration, Repositories, \
             Create a Repository, Local, Docker), or write `create_repositories: {{ artifactory_local: true }}` at this registry with an \
             administrator's login"
        );
        return Err(seen.error(ErrorKind::Unsupported, message));
    }
    let body = json!({ "key": key, "rclass": "local", "packageType": "docker", "dockerApiVersion": "V2" });
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

fn cannot_make(key: &str, answer: &ApiAnswer) -> crate::registry::Error {
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
