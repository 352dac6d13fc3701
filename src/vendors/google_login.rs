//! Access tokens of Google: for what a file says of us, or of the machine that we run on (google.aip.dev, AIP-4110).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use url::Url;

use super::entra::{post_form, refusal};
use super::google_credentials::{Credentials, Source};
use super::google_exchange::{of_external, of_user, take_on};
use super::google_key::ServiceAccount;
use crate::registry::{Api, ApiAnswer, Error, ErrorKind, GoogleSettings, Operation, Result};
use crate::telemetry::Secret;

/// What says that the token which comes with it is one (RFC 7523).
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// By how much this machine's clock may be off: Google wants "a reasonable timeframe" and does not say which; its own libraries
/// allow for so much (googleapis/google-auth-library-python#145).
const CLOCK_OFF: Duration = Duration::from_secs(5 * 60);

/// What the process's environment says, as a value, so that only [`Surroundings::of_process`] reads it. The variables are
/// those of Google's own libraries.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    pub(super) credentials_file: Option<PathBuf>,
    /// Where gcloud puts the credentials of `gcloud auth application-default login`.
    pub(super) gcloud_file: Option<PathBuf>,
    /// Where the machine tells of itself, in place of where it does: host, and port where there is one.
    pub(super) metadata: Option<String>,
}

impl Surroundings {
    /// As this process has them.
    pub(super) fn of_process() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let own = || text("HOME").map(|home| PathBuf::from(home).join(".config/gcloud"));
        let gcloud_folder = text("CLOUDSDK_CONFIG").map(PathBuf::from).or_else(own);
        Self {
            credentials_file: text("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from),
            gcloud_file: gcloud_folder.map(|folder| folder.join("application_default_credentials.json")),
            metadata: text("GCE_METADATA_HOST"),
        }
    }
}

/// An access token, and when it ends.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AccessToken {
    pub(super) secret: Secret,
    pub(super) ends: Timestamp,
}

/// Who we are to Google.
#[derive(Debug)]
pub(super) struct Identity {
    settings: GoogleSettings,
    /// Whether the rules have `google:` at all.
    written: bool,
    around: Surroundings,
    /// That the environment's file is of no use was told.
    told: AtomicBool,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    /// Seconds.
    expires_in: i64,
}

pub(super) fn fault(api: &Api, kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(Operation::Authenticate, api.place(None), kind, message)
}

impl Identity {
    pub(super) fn new(settings: GoogleSettings, written: bool, around: Surroundings) -> Self {
        Self {
            settings,
            written,
            around,
            told: AtomicBool::new(false),
        }
    }

    /// A new access token; `None` where nothing says who we are.
    ///
    /// # Errors
    /// Who we are is said, and Google or the machine gives no token.
    pub(super) async fn token(&self, api: &Api) -> Result<Option<AccessToken>> {
        let token = match (&self.settings.credentials_file, &self.around.credentials_file) {
            (Some(file), _) => of_file(api, file).await?,
            // A service account of the machine that the rules name is meant, whatever else is around.
            (None, Some(file)) if self.settings.service_account.is_none() => match of_file(api, file).await {
                Ok(token) => token,
                Err(error) if self.written || error.kind.is_temporary() => return Err(error),
                // It may be there for something else, and everybody may read what is public.
                Err(error) => {
                    if !self.told.swap(true, Ordering::Relaxed) {
                        tracing::warn!("{error}: GOOGLE_APPLICATION_CREDENTIALS is not used");
                    }
                    return Ok(None);
                }
            },
            (None, _) if !self.written => return Ok(None),
            (None, _) => match self.of_gcloud().await {
                Some(file) => of_file(api, file).await?,
                None => self.of_machine(api).await?,
            },
        };
        Ok(Some(token))
    }

    /// The file that gcloud has written, where there is one and no service account of the machine is meant. One that may not be
    /// looked for, as of another user's home, is none.
    async fn of_gcloud(&self) -> Option<&Path> {
        let file = self.around.gcloud_file.as_deref()?;
        let is_meant = self.settings.service_account.is_none();
        (is_meant && tokio::fs::try_exists(file).await.unwrap_or(false)).then_some(file)
    }

    async fn of_machine(&self, api: &Api) -> Result<AccessToken> {
        let none = |kind, why: &str| {
            let message = format!(
                "no service account answers on this machine ({why}): run it on Google Cloud, set `google.credentials_file` of this \
                 registry, or run gcloud auth application-default login"
            );
            fault(api, kind, message)
        };
        let host = self.around.metadata.as_deref();
        let host = host.unwrap_or("metadata.google.internal");
        let mut url = Url::parse(&format!("http://{host}/computeMetadata/v1/instance/service-accounts/"))
            .map_err(|_| none(ErrorKind::Config, "its address is none"))?;
        let account = self.settings.service_account.as_deref().unwrap_or("default");
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend([account, "token"]);
        }
        let flavor = HeaderName::from_static("metadata-flavor");
        let mut headers = HeaderMap::new();
        headers.insert(flavor.clone(), HeaderValue::from_static("Google"));
        let answer = api.metadata(Method::GET, url, headers, Bytes::new()).await;
        let answer = answer.map_err(|error| none(error.kind, &error.message))?;
        // Whoever else answers there is none of Google's.
        if answer.headers.get(&flavor).is_none_or(|value| value != "Google") {
            return Err(none(ErrorKind::Config, "what answers is not Google's"));
        }
        match answer.status {
            200 => granted(api, &answer),
            404 => Err(none(ErrorKind::Config, &format!("it has no account {account:?}"))),
            status => Err(none(answer.refused("").kind, &format!("it answers {status}"))),
        }
    }
}

/// The token that the credentials in a file get.
async fn of_file(api: &Api, file: &Path) -> Result<AccessToken> {
    let credentials = read(api, file).await?;
    let token = match &credentials.source {
        Source::Key(key) => of_key(api, key).await?,
        Source::User(user) => of_user(api, user).await?,
        Source::External(external) => of_external(api, external).await?,
    };
    match &credentials.taken_on {
        Some(account) => take_on(api, account, token.secret).await,
        None => Ok(token),
    }
}

async fn read(api: &Api, file: &Path) -> Result<Credentials> {
    let text = tokio::fs::read_to_string(file).await.map_err(|error| {
        let message = format!("the credentials cannot be read from {}", file.display());
        fault(api, ErrorKind::Config, message).caused_by(error)
    })?;
    super::google_credentials::read(&text).map_err(|why| {
        let message = format!("{} cannot be used as credentials: {why}", file.display());
        fault(api, ErrorKind::Config, message)
    })
}

/// The token that a key gets.
pub(super) async fn of_key(api: &Api, key: &ServiceAccount) -> Result<AccessToken> {
    let assertion = key
        .assertion(api.clock().now())
        .ok_or_else(|| fault(api, ErrorKind::Config, "the key of the service account signs nothing"))?;
    let form = [("assertion", assertion), ("grant_type", GRANT.to_owned())];
    api.signs(CLOCK_OFF);
    let answer = api.call(post_form(api, key.token_uri.clone(), &form)).await?;
    match answer.status {
        200 => granted(api, &answer),
        _ => Err(refusal(
            &answer,
            "check the key of the service account, and this machine's clock",
        )),
    }
}

pub(super) fn granted(api: &Api, answer: &ApiAnswer) -> Result<AccessToken> {
    let granted: Granted = answer.json()?;
    let life = SignedDuration::from_secs(granted.expires_in.clamp(0, 24 * 3600));
    Ok(AccessToken {
        secret: Secret::new(granted.access_token),
        ends: api.clock().now() + life,
    })
}
