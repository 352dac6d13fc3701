//! The repositories of GitLab's groups and projects, by the API of GitLab itself: the catalogue of its registry is for
//! administrators alone.
//!
//! Facts: docs.gitlab.com, "Container registry API" and "REST API"; gitlabhq `lib/api/group_container_repositories.rb`.

use serde::Deserialize;

use super::gathered::Gathered;
use super::names::whole;
use crate::oci::RepositoryName;
use crate::registry::{
    Api, ApiAnswer, ApiCall, ApiLogin, Credentials, Error, ErrorKind, NumberedPage, Operation, Result, numbered,
};

/// The registry of gitlab.com, and where its API is.
const HOST: &str = "registry.gitlab.com";
const API_HOST: &str = "gitlab.com";
/// Entries of a page, which is the most.
const PAGE: usize = 100;
/// The user of an identity token, which is for the token server alone.
const IDENTITY_USER: &str = "<token>";

#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Entry {
    id: u64,
    /// The name of the repository, with those of the groups and the project.
    path: String,
}

#[derive(Deserialize)]
struct Said {
    #[serde(alias = "error_description")]
    message: Option<String>,
}

/// Those of the groups and projects that the patterns lie in.
///
/// # Errors
/// `Unsupported` where nobody says where the API is or a pattern begins with no group; the first refusal where none may be listed.
pub(super) async fn list(api: &Api, below: &[String]) -> Result<Vec<RepositoryName>> {
    let refused = |message: &str| {
        let place = api.place(None);
        Error::new(Operation::ListRepositories, place, ErrorKind::Unsupported, message)
    };
    let settings = api.settings();
    if !settings.url.host.eq_ignore_ascii_case(HOST) && settings.endpoint.is_none() {
        return Err(refused(
            "patterns need GitLab's own API: write where GitLab is (`endpoint: https://gitlab.example`)",
        ));
    }
    let mut gathered = Gathered::default();
    let mut read: Vec<String> = Vec::new();
    for beginning in below {
        let Some(path) = beginning.strip_suffix('/') else {
            return Err(refused(
                "GitLab has no list of all repositories; begin the patterns with a group, as in `group/**`",
            ));
        };
        if read.iter().any(|holder| beginning.starts_with(holder.as_str())) {
            continue;
        }
        let listed = holder_of(api, path).await.map(|(holder, names)| {
            read.push(format!("{holder}/"));
            names
        });
        gathered.take(path, listed)?;
    }
    gathered.names(api)
}

/// The project or group at `path`, or the nearest that it lies in, with all repositories of it: a group's list has those of all
/// groups and projects below it.
async fn holder_of<'p>(api: &Api, path: &'p str) -> Result<(&'p str, Vec<RepositoryName>)> {
    let mut holder = path;
    loop {
        // A project lies in a group or is a user's.
        let sorts: &[&str] = if holder.contains('/') {
            &["projects", "groups"]
        } else {
            &["groups"]
        };
        for sort in sorts {
            let entries = match numbered(|number| page(api, sort, holder, number)).await {
                // Missing, or not for this user to know of: what it lies in has its repositories, too.
                Err(error) if error.kind == ErrorKind::NotFound => continue,
                entries => whole(api, entries?)?,
            };
            let names = entries.into_iter().filter_map(|entry| entry.path.parse().ok());
            return Ok((holder, names.collect()));
        }
        let Some((above, _)) = holder.rsplit_once('/') else {
            // It may be there and hidden, so that it is not known to be empty.
            let message = format!(
                "GitLab shows this user no group or project of the path {path}: it is missing, or {RIGHT} is; below a user's name \
                 begin the pattern with a project, as in `user/project/**`"
            );
            let place = api.place(None);
            return Err(Error::new(
                Operation::ListRepositories,
                place,
                ErrorKind::NotFound,
                message,
            ));
        };
        holder = above;
    }
}

/// docs.gitlab.com, "Access token scopes" and "Roles and permissions".
const RIGHT: &str =
    "the role Reporter there with an access token that has the scope `read_api` (of a group or a project: `api`)";

async fn page(api: &Api, sort: &str, holder: &str, number: u32) -> Result<NumberedPage<Entry>> {
    let path = format!(
        "/api/v4/{sort}/{}/registry/repositories?per_page={PAGE}&page={number}",
        holder.replace('/', "%2F")
    );
    let url = api.at(API_HOST, &path)?;
    let by = |credentials: Option<&Credentials>| {
        let mut call = ApiCall::get(Operation::ListRepositories, api.place(None), url.clone());
        let token = credentials.filter(|found| found.username != IDENTITY_USER);
        call.login = token.map_or(ApiLogin::Nobody, |found| ApiLogin::Bearer(found.password.clone()));
        call
    };
    let answer = api.call_as(by).await?;
    if answer.status != 200 {
        return Err(refusal(&answer));
    }
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
    // Lists of more than ten thousand are not counted.
    let total = header("x-total").and_then(|text| text.parse().ok());
    let next = header("x-next-page").map(str::is_empty);
    let entries: Vec<Entry> = answer.json()?;
    let last = next.unwrap_or(total.is_none() && entries.len() < PAGE);
    Ok(NumberedPage::of(&answer, entries, total, last))
}

fn refusal(answer: &ApiAnswer) -> Error {
    let said = serde_json::from_slice::<Said>(&answer.body).ok();
    let said = said.and_then(|said| said.message).unwrap_or_default();
    let mut error = answer.refused(&said);
    match error.kind {
        ErrorKind::Unauthorized => error.message.push_str(
            "; patterns need an access token with the scope `read_api`: passwords and deploy tokens are for the registry alone",
        ),
        ErrorKind::Denied => error.message.push_str(&format!("; patterns need {RIGHT}")),
        _ => {}
    }
    error
}
