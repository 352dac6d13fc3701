//! Access keys that an ECS instance of Huawei Cloud gives out for its agency.
//!
//! Facts: support.huaweicloud.com, usermanual-ecs, "Obtaining Metadata" (Security Key); huaweicloud/huaweicloud-sdk-python-v3,
//! `huaweicloudsdkcore/auth/internal.py`, `MetadataAccessor`.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use serde::Deserialize;
use url::Url;

use super::kept::{Current, Found, Kept};
use super::sdk_hmac::AccessKey;
use crate::registry::{Api, ApiAnswer, Error, ErrorKind, Operation, Result};
use crate::telemetry::Secret;

/// Where the instance tells of itself.
const METADATA: &str = "http://169.254.169.254";

/// The access key of the instance that we run on, got when it is first needed and again before it ends.
#[derive(Debug, Default)]
pub(super) struct Instance {
    kept: Kept<AccessKey>,
    /// It gave out a key: that it says nothing is trouble from then on, and no word that there is none.
    gave: AtomicBool,
}

#[derive(Deserialize)]
struct Answer {
    credential: Temporary,
}

#[derive(Deserialize)]
struct Temporary {
    access: String,
    secret: String,
    securitytoken: String,
    expires_at: Timestamp,
}

/// What a question for a key came to.
enum Told {
    Key(Found<AccessKey>),
    /// The instance has no agency.
    NoAgency,
    /// Nobody answers, or who does is none of Huawei's.
    Nobody(Error),
}

impl Instance {
    /// Its key; `None` on a machine that has no agency, or is none of Huawei's. `metadata` stands in for where it tells of itself.
    ///
    /// # Errors
    /// What it answers is neither a key nor that there is none; or it gave out a key before, and does not now.
    pub(super) async fn key(&self, api: &Api, metadata: Option<&str>) -> Result<Option<AccessKey>> {
        let base = metadata.unwrap_or(METADATA);
        let find = async {
            match ask(api, base).await? {
                Told::Key(found) => {
                    self.gave.store(true, Ordering::Relaxed);
                    Ok(Some(found))
                }
                Told::NoAgency => Ok(None),
                Told::Nobody(error) if self.gave.load(Ordering::Relaxed) => Err(error),
                // Nobody said that there is one.
                Told::Nobody(error) => {
                    tracing::info!("{error}: this machine is taken for none of Huawei Cloud's");
                    Ok(None)
                }
            }
        };
        match self.kept.current(api.clock(), find).await? {
            Current::Is(key) => Ok(Some(key)),
            Current::Nothing => Ok(None),
            Current::Gone => {
                let message =
                    "the access key that was used so far cannot be had anew: the ECS instance has no agency any more";
                let place = api.place(None);
                Err(Error::new(Operation::Authenticate, place, ErrorKind::Config, message))
            }
        }
    }

    /// This key is not taken any more: the next is got anew.
    pub(super) async fn forget(&self, refused: &AccessKey) {
        self.kept.forget(refused).await;
    }
}

/// Asks the instance for a key.
///
/// # Errors
/// It answers something else than that it has one or none.
async fn ask(api: &Api, base: &str) -> Result<Told> {
    let fault = |kind, message: &str| Error::new(Operation::Authenticate, api.place(None), kind, message);
    let url = |path: &str| {
        Url::parse(&format!("{base}{path}"))
            .map_err(|_| fault(ErrorKind::Config, "the address of the ECS instance is none"))
    };
    let mut headers = HeaderMap::new();
    let life = HeaderName::from_static("x-metadata-token-ttl-seconds");
    headers.insert(life, HeaderValue::from_static("300"));
    let answer = api
        .metadata(Method::PUT, url("/meta-data/latest/api/token")?, headers, Bytes::new())
        .await;
    let answer = match answer {
        Err(error) if error.kind == ErrorKind::Network => return Ok(Told::Nobody(error)),
        answer => answer?,
    };
    if matches!(answer.status, 429 | 500..) {
        return Err(no_key(&answer));
    }
    let mut headers = HeaderMap::new();
    // Where it is not wanted, the instance knows no tokens.
    let knows_tokens = answer.status == 200;
    if knows_tokens && let Ok(mut token) = HeaderValue::from_bytes(answer.body.trim_ascii()) {
        token.set_sensitive(true);
        headers.insert(HeaderName::from_static("x-metadata-token"), token);
    }
    let url = url("/openstack/latest/securitykey")?;
    let answer = api.metadata(Method::GET, url, headers, Bytes::new()).await?;
    match answer.status {
        200 => {
            let told = answer.json::<Answer>()?.credential;
            let value = AccessKey {
                id: told.access,
                secret: Secret::new(told.secret),
                token: Some(Secret::new(told.securitytoken)),
            };
            Ok(Told::Key(Found {
                value,
                ends: Some(told.expires_at),
            }))
        }
        404 => Ok(Told::NoAgency),
        401 if String::from_utf8_lossy(&answer.body).contains("configure Cloud Service Agency") => Ok(Told::NoAgency),
        // Other clouds have a service at the same address, which wants headers of its own for any question.
        400 | 401 | 403 | 405 if !knows_tokens => Ok(Told::Nobody(no_key(&answer))),
        _ => Err(no_key(&answer)),
    }
}

fn no_key(answer: &ApiAnswer) -> Error {
    let mut error = answer.refused("");
    error.message = format!("the ECS instance gives no access key, it answers {}", answer.status);
    error
}
