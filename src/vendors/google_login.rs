//! Access tokens of Google: for the key of a service account, or of the machine that we run on.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use url::Url;

use super::entra::{post_form, refusal};
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
    /// Where the machine tells of itself, in place of where it does: host, and port where there is one.
    pub(super) metadata: Option<String>,
}

impl Surroundings {
    /// As this process has them.
    pub(super) fn of_process() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            credentials_file: text("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from),
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

fn fault(api: &Api, kind: ErrorKind, message: impl Into<String>) -> Error {
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
            (None, _) if self.written => self.of_machine(api).await?,
            (None, _) => return Ok(None),
        };
        Ok(Some(token))
    }

    async fn of_machine(&self, api: &Api) -> Result<AccessToken> {
        let none = |kind, why: &str| {
            let message = format!(
                "no service account answers on this machine ({why}): run it on Google Cloud, or set \
                 `google.credentials_file` of this registry"
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

/// The token that the key in a file gets.
async fn of_file(api: &Api, file: &Path) -> Result<AccessToken> {
    of_key(api, &read(api, file).await?).await
}

/// Reads the key of a service account.
async fn read(api: &Api, file: &Path) -> Result<ServiceAccount> {
    let text = tokio::fs::read_to_string(file).await.map_err(|error| {
        let message = format!("the credentials cannot be read from {}", file.display());
        fault(api, ErrorKind::Config, message).caused_by(error)
    })?;
    ServiceAccount::read(&text).map_err(|why| {
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

fn granted(api: &Api, answer: &ApiAnswer) -> Result<AccessToken> {
    let granted: Granted = answer.json()?;
    let life = SignedDuration::from_secs(granted.expires_in.clamp(0, 24 * 3600));
    Ok(AccessToken {
        secret: Secret::new(granted.access_token),
        ends: api.clock().now() + life,
    })
}
