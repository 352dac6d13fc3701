//! Images that Azure fetches by itself: `importImage` of the resource manager (Azure/azure-rest-api-specs,
//! `Microsoft.ContainerRegistry`, 2023-07-01; learn.microsoft.com, "Import container images to a container registry").
//!
//! It is asked for by digest and for no tag (`untaggedTargetRepositories`): the tag is put as after any copy, so that what the
//! rules say of tags holds, and an import that nobody waits for any more moves none.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::kept::{Current, Found, Kept};
use crate::oci::RepositoryName;
use crate::registry::{
    Api, ApiAnswer, ApiCall, ApiLogin, AzureImport, AzureSettings, CloudSettings, Credentials, Error, ErrorKind,
    ImportSource, ImportedImage, Kind, LoginSource, Operation, RemoteSettings, Result,
};
use crate::telemetry::Secret;

const VERSION: &str = "2023-07-01";
/// "The maximum number of manifests for an imported image is 50."
pub(super) const MANIFESTS: usize = 50;
/// The longest answer that is read, in bytes. What it says of an import fits in a few hundred.
const LONGEST: usize = 256 * 1024;
/// The longest address of an operation: the resource manager's have some 4 KiB ("minimum URL size of 4 KB").
const LONGEST_ADDRESS: usize = 16 * 1024;
/// How long an import may take at least and at most, and how many bytes of it a second are waited for.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(3600));
const BYTES_A_SECOND: u64 = 4 << 20;
/// Between two looks at it, where the resource manager does not say; the first is sooner, as small images are imported at once.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_secs(5);
/// What is granted to whom, in refusals.
const ROLE: &str = "grant the role `Container Registry Data Importer and Data Reader` at this registry, or the action \
                    `Microsoft.ContainerRegistry/registries/importImage/action`";

/// Where an image comes from, as the resource manager is told.
#[derive(Debug, PartialEq)]
pub(super) enum Origin {
    /// A registry of Azure's: whoever asks must be able to read it.
    Resource(String),
    /// Any registry on the internet.
    Host(String, Option<Credentials>),
}

/// How the resource manager is to find the source of a registry at `own`.
///
/// # Errors
/// Why it cannot, as a lower-case fragment.
pub(super) fn origin(own: &RemoteSettings, import: &AzureImport, source: ImportSource<'_>) -> Result<Origin, String> {
    let settings = source.settings;
    let host = settings.url.host.to_ascii_lowercase();
    if settings.url.plain_http || !is_public_name(&host) {
        return Err(format!("Azure cannot reach {}", source.name));
    }
    if !settings.url.path.is_empty() {
        return Err(format!("{} is at a path, which an import cannot name", source.name));
    }
    if !settings.headers.is_empty() || settings.tls.client_cert.is_some() {
        return Err(format!(
            "{} wants headers or a certificate that Azure does not have",
            source.name
        ));
    }
    let suffix = |host: &str| host.rsplit_once(".azurecr.").map(|(_, cloud)| cloud.to_owned());
    let same_cloud = suffix(&host).is_some() && suffix(&host) == suffix(&own.url.host.to_ascii_lowercase());
    let may_be_told = import.credentials_of.iter().any(|name| name == source.name);
    let apart = only_ours(settings, &host);
    let login = match &settings.cloud {
        CloudSettings::Azure(azure) => {
            let login = application(azure);
            // Whoever writes `credentials_of` wants the login to be who reads.
            let is_told = may_be_told && login.is_some() && apart.is_none();
            match &azure.resource_id {
                Some(id) if same_cloud && !is_told => return Ok(Origin::Resource(id.clone())),
                _ if login.is_some() => login,
                _ => {
                    return Err(format!(
                        "{} has no `azure.resource_id` that Azure could go by",
                        source.name
                    ));
                }
            }
        }
        CloudSettings::None if is_of_short_logins(settings, &host) => {
            return Err(format!("{} gives out logins that Azure cannot use", source.name));
        }
        CloudSettings::None => source.credentials().cloned(),
        _ => return Err(format!("{} gives out logins that Azure cannot use", source.name)),
    };
    if let Some(why) = apart {
        return Err(format!("{} {why}", source.name));
    }
    match login {
        Some(login) if login.username == "<token>" => {
            Err(format!("{} gives out logins that Azure cannot use", source.name))
        }
        Some(_) if !may_be_told => Err(format!(
            "{0} wants a login, which is told to Azure only with `azure.import.credentials_of: [{0}]`",
            source.name
        )),
        login => Ok(Origin::Host(registry_uri(&host), login)),
    }
}

/// What says that only we find this registry under its name: Azure may find another one there, which is to get no password.
fn only_ours(settings: &RemoteSettings, host: &str) -> Option<&'static str> {
    let name = host.split(':').next().unwrap_or_default();
    if settings.resolve.contains_key(name) {
        return Some("is found by `resolve`, and Azure may find another registry under its name");
    }
    let own_trust = settings.tls.ca_file.is_some() || settings.tls.insecure_skip_verify;
    own_trust.then_some("is trusted by its `tls`, which Azure does not have")
}

/// An application's login (learn.microsoft.com, "Import from a registry using service principal credentials").
fn application(azure: &AzureSettings) -> Option<Credentials> {
    Some(Credentials {
        username: azure.client_id.clone()?,
        password: azure.client_secret.clone()?,
    })
}

/// True for a registry at which nobody has a password of their own.
fn is_of_short_logins(settings: &RemoteSettings, host: &str) -> bool {
    let kind = settings.kind.or_else(|| Kind::of_host(host));
    kind == Some(Kind::Ecr) && settings.login == LoginSource::DockerConfig
}

/// True for a host that a name server of the internet may know.
fn is_public_name(host: &str) -> bool {
    let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let local = ["localhost", "local", "internal", "lan", "home.arpa", "svc"];
    let is_local = |end: &str| name == end || name.strip_suffix(end).is_some_and(|rest| rest.ends_with('.'));
    digits && name.contains('.') && name.parse::<IpAddr>().is_err() && !local.into_iter().any(is_local)
}

/// What the host is called there. Docker Hub's own documents and Azure's say `docker.io`.
fn registry_uri(host: &str) -> String {
    match Kind::of_host(host) {
        Some(Kind::DockerHub) => "docker.io".to_owned(),
        _ => host.to_owned(),
    }
}

/// The name that the repository has there: on Docker Hub one of a single part is in `library`.
fn source_name(origin: &Origin, repository: &RepositoryName) -> String {
    match origin {
        Origin::Host(host, _) if host == "docker.io" && !repository.as_str().contains('/') => {
            format!("library/{repository}")
        }
        _ => repository.to_string(),
    }
}

/// What is asked for.
fn body(origin: &Origin, image: &ImportedImage<'_>) -> Value {
    let mut source = json!({ "sourceImage": format!("{}@{}", source_name(origin, image.from), image.digest) });
    match origin {
        Origin::Resource(id) => source["resourceId"] = id.as_str().into(),
        Origin::Host(host, login) => {
            source["registryUri"] = host.as_str().into();
            if let Some(login) = login {
                source["credentials"] = json!({ "username": login.username, "password": login.password.expose() });
            }
        }
    }
    json!({ "source": source, "untaggedTargetRepositories": [image.to.as_str()], "mode": "NoForce" })
}

/// How long to wait before the next look at an import, after so many looks and such a time; `None` where it has taken too long.
fn next_look(looks: u32, waited: Duration, wanted: Option<Duration>, bytes: u64) -> Option<Duration> {
    let patience = PATIENCE.0 + Duration::from_secs(bytes / BYTES_A_SECOND);
    let patience = patience.min(PATIENCE.1);
    let least = FIRST_PAUSE.saturating_mul(1 << looks.min(8)).min(PAUSE);
    let pause = wanted.unwrap_or_default().max(least);
    (waited + pause <= patience).then_some(pause)
}

/// Where an operation is looked at: as an answer names it, and only at the resource manager itself, by https, as its token goes
/// along.
fn operation(manager: &Url, answer: &ApiAnswer) -> Result<Option<Url>, &'static str> {
    // "If your operation returns this value, use it"; the other one is looked at only without it.
    let named = ["azure-asyncoperation", "location"]
        .iter()
        .find_map(|name| answer.headers.get(*name));
    let Some(named) = named else { return Ok(None) };
    let text = named.to_str().unwrap_or_default();
    if text.len() > LONGEST_ADDRESS {
        return Err("the address of the import is too long");
    }
    let url = Url::parse(text).map_err(|_| "the address of the import is none")?;
    let same = url.scheme() == "https"
        && url.host() == manager.host()
        && url.port_or_known_default() == manager.port_or_known_default()
        && url.username().is_empty()
        && url.password().is_none();
    match same {
        true => Ok(Some(url)),
        false => Err("the resource manager names an address elsewhere for the import, where its token does not go"),
    }
}

/// How an import stands.
#[derive(Debug, PartialEq)]
enum State {
    Running,
    Done,
    /// With the code and the words of the resource manager.
    Failed(String, String),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    status: Option<String>,
    error: Option<Refused>,
}

/// learn.microsoft.com, "Common API error responses" of Azure Resource Manager.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refused {
    code: Option<String>,
    message: Option<String>,
}

/// How an answer to a look says that an import stands: by its status, and where it has one, by `status` in its body
/// (learn.microsoft.com, "Track asynchronous Azure operations"). `None` for a refusal.
fn state(status: u16, body: &[u8]) -> Option<State> {
    let told: Told = serde_json::from_slice(body).unwrap_or_default();
    let failed = |error: Option<Refused>, word: &str| {
        let error = error.unwrap_or_default();
        let words = error.message.filter(|words| !words.is_empty());
        State::Failed(error.code.unwrap_or_default(), words.unwrap_or_else(|| word.to_owned()))
    };
    match (status, told.status.as_deref()) {
        (200..=202, Some(word @ ("Failed" | "Canceled"))) => Some(failed(told.error, word)),
        (200 | 201, None) if told.error.is_some() => Some(failed(told.error, "Failed")),
        (200 | 201, None | Some("Succeeded")) | (204, _) => Some(State::Done),
        (200..=202, _) => Some(State::Running),
        _ => None,
    }
}

/// What to do where Azure was told no login and may have needed one: how it passes on what a source refuses is not documented.
fn as_anybody(origin: &Origin, source: &str) -> Option<String> {
    matches!(origin, Origin::Host(_, None)).then(|| {
        format!(
            "Azure reads {source} as anybody may; where that takes a login, it has to be in the rules and {source} in \
             `azure.import.credentials_of`"
        )
    })
}

/// The error that a refusal of the resource manager is, after so many looks. `open`: what to do at a source without a login.
fn refused(answer: &ApiAnswer, looks: u32, open: Option<&str>) -> Error {
    let told: Told = serde_json::from_slice(&answer.body).unwrap_or_default();
    let said = told.error.unwrap_or_default();
    let (code, message) = (said.code.unwrap_or_default(), said.message.unwrap_or_default());
    let words = format!("{code} {}", first_line(&message));
    let mut error = answer.refused(words.trim());
    if matches!(error.kind, ErrorKind::Denied | ErrorKind::Unauthorized) {
        // "Because the URL that tracks the status isn't scoped to the resource, resource group-level permission is needed."
        let what = if looks == 0 {
            ROLE
        } else {
            "grant the right to read in its resource group, where imports are looked at"
        };
        error.message = format!("{}; {what}", error.message);
    }
    if error.kind == ErrorKind::NotFound {
        if looks == 0 {
            error.message = format!("{}; check `azure.resource_id`", error.message);
        } else {
            // The registry was found: it is the operation that is gone, and the next one may not be.
            error.kind = ErrorKind::Server;
        }
    }
    if let Some(open) = open.filter(|_| looks == 0 && matches!(answer.status, 400 | 401 | 403 | 404)) {
        error.message = format!("{}; or {open}", error.message);
    }
    error.code = answer.told(Some(code));
    error
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The resource manager of a registry's cloud, and what is asked of it.
pub(super) struct Manager<'a, L> {
    pub(super) api: &'a Api,
    /// Where it is.
    pub(super) base: &'static str,
    /// What it calls the registry.
    pub(super) resource_id: &'a str,
    /// Tokens for it, and what gets a new one.
    pub(super) tokens: &'a Kept<Secret>,
    pub(super) login: L,
}

impl<L, F> Manager<'_, L>
where
    L: Fn() -> F + Sync,
    F: Future<Output = Result<Option<Found<Secret>>>> + Send,
{
    /// Has it import an image into the registry, and waits until it has.
    ///
    /// # Errors
    /// As [`crate::registry::Vendor::import`].
    pub(super) async fn import(&self, origin: &Origin, image: &ImportedImage<'_>) -> Result<()> {
        let base = self.address(image, self.base)?;
        let id = self.resource_id.trim_end_matches('/');
        let url = self.address(image, &format!("{}{id}/importImage?api-version={VERSION}", self.base))?;
        let clock = self.api.clock();
        let begun = clock.elapsed();
        let login = match origin {
            Origin::Host(_, Some(login)) => Some(&login.password),
            Origin::Host(_, None) | Origin::Resource(_) => None,
        };
        let open = as_anybody(origin, image.source.name);
        let posted = body(origin, image).to_string();
        let mut answer = self.send(image, &url, Some(posted), login).await?;
        let (mut at, mut looks) = (None, 0);
        loop {
            match state(answer.status, &answer.body).ok_or_else(|| refused(&answer, looks, open.as_deref()))? {
                State::Done => return Ok(()),
                State::Failed(code, words) => {
                    let words = answer.told(Some(format!("{code} {}", first_line(&words))));
                    let words = words.unwrap_or_else(|| "it does not say why".to_owned());
                    let open = open.map(|open| format!("; {open}")).unwrap_or_default();
                    return Err(answer.error(ErrorKind::Invalid, format!("the import failed: {words}{open}")));
                }
                State::Running => {}
            }
            // A later answer need not name it again.
            let named = operation(&base, &answer).map_err(|why| answer.error(ErrorKind::Invalid, why))?;
            at = named.or(at);
            let Some(at) = &at else {
                let message = "the resource manager does not say where to look at the import";
                return Err(answer.error(ErrorKind::Invalid, message));
            };
            let waited = clock.elapsed().saturating_sub(begun);
            let Some(pause) = next_look(looks, waited, answer.retry_after(), image.bytes) else {
                let message = format!(
                    "the import was not done in {} s, and it is not waited for longer",
                    waited.as_secs()
                );
                return Err(answer.error(ErrorKind::Server, message));
            };
            tokio::time::sleep(pause).await;
            answer = self.send(image, at, None, login).await?;
            looks += 1;
        }
    }

    /// Posts this, or looks; `login` was told. A token may have ended before its time: another one is tried, once.
    async fn send(
        &self,
        image: &ImportedImage<'_>,
        url: &Url,
        body: Option<String>,
        login: Option<&Secret>,
    ) -> Result<ApiAnswer> {
        let api = self.api;
        let mut renewed = false;
        loop {
            let token = match self.tokens.current(api.clock(), (self.login)()).await? {
                Current::Is(token) => token,
                Current::Nothing | Current::Gone => {
                    let message = "nothing says who we are at Azure; check `azure:` of this registry";
                    return Err(self.fault(image, message));
                }
            };
            let (operation, place) = (Operation::ImportImage, api.place(Some(image.to)));
            let mut call = match &body {
                Some(body) => ApiCall::post(operation, place, url.clone(), body.clone()),
                None => ApiCall::get(operation, place, url.clone()),
            };
            if body.is_some() {
                let json = HeaderValue::from_static("application/json");
                call.headers.insert(header::CONTENT_TYPE, json);
            }
            call.longest = LONGEST;
            call.secrets.extend(login.cloned());
            call.login = ApiLogin::Bearer(token.clone());
            let answer = api.call(call).await?;
            if answer.status != 401 || std::mem::replace(&mut renewed, true) {
                return Ok(answer);
            }
            self.tokens.forget(&token).await;
        }
    }

    fn address(&self, image: &ImportedImage<'_>, text: &str) -> Result<Url> {
        let message = "the address of the resource manager cannot be made; check `azure.resource_id`";
        Url::parse(text).map_err(|error| self.fault(image, message).caused_by(error))
    }

    fn fault(&self, image: &ImportedImage<'_>, message: &str) -> Error {
        let place = self.api.place(Some(image.to));
        Error::new(Operation::ImportImage, place, ErrorKind::Config, message)
    }
}

#[cfg(test)]
mod tests;
