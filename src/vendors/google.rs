//! Google Artifact Registry, and Container Registry, which it serves.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::FutureExt;
use serde::Deserialize;

use super::google_create;
use super::google_key::ServiceAccount;
pub(super) use super::google_login::Surroundings;
use super::google_login::{Identity, of_key};
use super::once::once;
use super::table::Row;
use crate::oci::{Digest, RepositoryName, Tag};
use crate::registry::{
    Api, ApiAnswer, ApiCall, ApiLogin, BulkListing, CloudSettings, Created, Credentials, Error, ErrorKind,
    GoogleSettings, Issued, Kind, ListedTag, Operation, Place, RemoteSettings, Result, Told, Vendor, Ways,
};
use crate::telemetry::Secret;

pub(super) static ROW: Row = Row {
    kind: Kind::Google,
    // The realm is at the registry's own host.
    habits: |_| {},
    vendor: |settings| of(settings, Surroundings::of_process()),
};

/// With what is known of us here.
pub(super) fn of(settings: &RemoteSettings, around: Surroundings) -> Arc<dyn Vendor> {
    let (written, google) = match &settings.cloud {
        CloudSettings::Google(google) => (true, google.clone()),
        _ => (false, GoogleSettings::default()),
    };
    Arc::new(Google {
        identity: Identity::new(google, written, around),
        location: location(&settings.url.host),
    })
}

/// The user whose password is an access token, and the one whose password is the key of a service account
/// (cloud.google.com, "Configure authentication to Artifact Registry for Docker").
const TOKEN_USER: &str = "oauth2accesstoken";
const KEY_USER: &str = "_json_key";
const ENCODED_KEY_USER: &str = "_json_key_base64";

/// Folders that are looked into for one list of repositories.
const MOST_FOLDERS: usize = 10_000;

static WAYS: Ways = Ways {
    must_create: true,
    right_to_list: "the permission `artifactregistry.repositories.downloadArtifacts` (Artifact Registry Reader)",
    ..Ways::PLAIN
};

/// Google's registries. Their own `tags/list` says which digests tags have and what is below a path: google/go-containerregistry
/// `pkg/v1/google/list.go`.
#[derive(Debug)]
struct Google {
    identity: Identity,
    /// Where its repositories are; none for the old names of Container Registry, and for hosts of users' own.
    location: Option<String>,
}

/// The location of a host such as `europe-west1-docker.pkg.dev`.
fn location(host: &str) -> Option<String> {
    let host = host.to_ascii_lowercase();
    let location = host.strip_suffix("-docker.pkg.dev")?;
    Some(location.to_owned()).filter(|location| !location.is_empty() && !location.contains('.'))
}

/// The access token that a login is, or that its key gets; `None` for a login of another sort.
async fn access_token(api: &Api, login: Credentials) -> Result<Option<Secret>> {
    let text = match login.username.as_str() {
        TOKEN_USER => return Ok(Some(login.password)),
        KEY_USER => login.password.expose().to_owned(),
        ENCODED_KEY_USER => {
            let decoded = STANDARD.decode(login.password.expose().trim()).unwrap_or_default();
            String::from_utf8(decoded).unwrap_or_default()
        }
        _ => return Ok(None),
    };
    match ServiceAccount::read(&text) {
        Ok(key) => Ok(Some(of_key(api, &key).await?.secret)),
        Err(why) => {
            let message = format!(
                "the password of {} is no key of a service account: {why}",
                login.username
            );
            Err(Error::new(
                Operation::Authenticate,
                api.place(None),
                ErrorKind::Config,
                message,
            ))
        }
    }
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    tags: Vec<String>,
    /// By digest; missing where it is another registry that answers.
    manifest: Option<BTreeMap<String, Manifest>>,
    /// What is below.
    #[serde(default)]
    child: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    tag: Vec<String>,
    media_type: Option<String>,
    time_uploaded_ms: Option<Milliseconds>,
}

/// Container Registry writes a text, Artifact Registry a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Milliseconds {
    Number(i64),
    Text(String),
}

impl Vendor for Google {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::Google)
    }

    fn ways(&self) -> &'static Ways {
        &WAYS
    }

    fn login<'a>(&'a self, api: &'a Api) -> Told<'a, Option<Issued>> {
        async move {
            let token = self.identity.token(api).await?;
            Ok(token.map(|token| Issued {
                credentials: Credentials {
                    username: TOKEN_USER.to_owned(),
                    password: token.secret,
                },
                ends: Some(token.ends),
            }))
        }
        .boxed()
    }

    fn container<'r>(&self, repository: &'r RepositoryName) -> &'r str {
        google_create::Place::of(repository).map_or(repository.as_str(), |at| at.prefix)
    }

    fn create<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, Created> {
        async move {
            let (Some(at), Some(location)) = (google_create::Place::of(repository), &self.location) else {
                return Ok(Created::Nothing);
            };
            let Some(login) = api.credentials().await? else {
                return Ok(Created::Nothing);
            };
            match access_token(api, login).await? {
                Some(token) => google_create::make(api, repository, &at, location, &token).await,
                None => Ok(Created::Nothing),
            }
        }
        .boxed()
    }

    fn list_digests<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        async move {
            let place = api.place(Some(repository));
            let answer = ask(api, Operation::ListTags, place, repository.as_str()).await?;
            match answer.status {
                200 => {}
                // The protocol's own listing tells what that means.
                404 => return Ok(BulkListing::None),
                _ => return Err(answer.refused(&super::words::said(&answer.body))),
            }
            Ok(match listed(answer.json()?) {
                Some(tags) => BulkListing::Known { tags, comparable: true },
                None => BulkListing::None,
            })
        }
        .boxed()
    }

    fn list_repositories<'a>(&'a self, api: &'a Api, below: &'a [String]) -> Told<'a, Option<Vec<RepositoryName>>> {
        async move {
            let operation = Operation::ListRepositories;
            let refused = |kind, message: &str| Error::new(operation, api.place(None), kind, message);
            let mut folders: Vec<String> = Vec::new();
            for beginning in below {
                let Some(folder) = beginning.strip_suffix('/') else {
                    let message = "Google has no list of all repositories; begin the patterns with project and repository, as in `project/repository/**`";
                    return Err(refused(ErrorKind::Unsupported, message));
                };
                let (mine, inside) = (folder.to_owned(), format!("{folder}/"));
                // What is below another beginning is found there.
                if !below.iter().any(|other| *other != *beginning && inside.starts_with(other.as_str())) && !folders.contains(&mine) {
                    folders.push(mine);
                }
            }
            let mut names = Vec::new();
            let mut looked = 0_usize;
            while let Some(folder) = folders.pop() {
                looked += 1;
                if looked > MOST_FOLDERS {
                    let message = "there is no end of the folders; begin the patterns with more of the path";
                    return Err(refused(ErrorKind::Invalid, message));
                }
                let answer = ask(api, operation, api.place(None), &folder).await?;
                match answer.status {
                    200 => {}
                    // It went away since it was listed.
                    404 if looked > 1 => continue,
                    _ => return Err(answer.refused(&super::words::said(&answer.body))),
                }
                let listing: Listing = answer.json()?;
                if (!listing.tags.is_empty() || listing.manifest.is_some_and(|held| !held.is_empty()))
                    && let Ok(name) = folder.parse()
                {
                    names.push(name);
                }
                folders.extend(listing.child.iter().map(|child| format!("{folder}/{child}")));
            }
            Ok(Some(names))
        }
        .boxed()
    }
}

async fn ask(api: &Api, operation: Operation, place: Place, path: &str) -> Result<ApiAnswer> {
    let mut call = ApiCall::get(operation, place, api.own(&format!("/v2/{path}/tags/list"))?);
    // As the client itself asks for lists, so that it is the same token.
    call.login = ApiLogin::Own(vec![format!("repository:{path}:pull")]);
    api.call(call).await
}

/// All tags; `None` where it does not say which digests they have.
fn listed(listing: Listing) -> Option<Vec<ListedTag>> {
    let mut known = Vec::new();
    for (digest, manifest) in listing.manifest? {
        let digest = digest.parse::<Digest>().ok();
        let pushed = manifest.time_uploaded_ms.and_then(|time| time.stamp());
        known.extend(manifest.tag.iter().filter_map(|tag| {
            Some(ListedTag {
                tag: tag.parse().ok()?,
                digest: digest.clone(),
                media_type: manifest.media_type.clone(),
                pushed,
            })
        }));
    }
    let mut tags = once(known);
    let mut seen: HashSet<Tag> = tags.iter().map(|listed| listed.tag.clone()).collect();
    let without = listing.tags.iter().filter_map(|tag| tag.parse().ok());
    let without = without.filter(|tag: &Tag| seen.insert(tag.clone()));
    tags.extend(without.map(|tag| ListedTag {
        tag,
        digest: None,
        media_type: None,
        pushed: None,
    }));
    Some(tags)
}

impl Milliseconds {
    fn stamp(&self) -> Option<jiff::Timestamp> {
        let milliseconds = match self {
            Self::Number(number) => *number,
            Self::Text(text) => text.parse().ok()?,
        };
        jiff::Timestamp::from_millisecond(milliseconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn google_locations_by_host() {
        for (host, wanted) in [
            ("europe-west1-docker.pkg.dev", Some("europe-west1")),
            ("US-docker.pkg.dev", Some("us")),
            ("-docker.pkg.dev", None),
            ("gcr.io", None),
            ("a.b-docker.pkg.dev", None),
        ] {
            assert_eq!(location(host).as_deref(), wanted, "{host}");
        }
    }

    #[test]
    fn google_tags_are_read_with_their_digests() {
        let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
        let listing = serde_json::from_value(serde_json::json!({
            "name": "project/images/app", "child": [], "tags": ["latest", "v1", "v2", "v3"],
            "manifest": {
                (digest("a")): {
                    "imageSizeBytes": "1033", "layerId": "", "mediaType": "application/vnd.oci.image.index.v1+json",
                    "tag": ["v1", "latest"], "timeCreatedMs": "0", "timeUploadedMs": "1772366400000",
                },
                (digest("b")): { "tag": ["v2"], "timeUploadedMs": 1_772_366_400_000_i64 },
                (digest("c")): { "tag": [] },
            },
        }));
        let tags = listed(listing.expect("a listing")).expect("digests");
        let shown: Vec<_> = tags
            .iter()
            .map(|listed| {
                let digest = listed.digest.as_ref().map(|digest| digest.to_string()[7..8].to_owned());
                (listed.tag.as_str(), digest, listed.pushed.is_some())
            })
            .collect();
        let with = |tag, letter: &str| (tag, Some(letter.to_owned()), true);
        assert_eq!(
            shown,
            [
                with("v1", "a"),
                with("latest", "a"),
                with("v2", "b"),
                ("v3", None, false)
            ]
        );
    }

    #[test]
    fn google_listings_without_digests_are_none() {
        let listing = serde_json::from_value(serde_json::json!({ "name": "app", "tags": ["v1"] }));
        assert!(listed(listing.expect("a listing")).is_none());
    }
}
