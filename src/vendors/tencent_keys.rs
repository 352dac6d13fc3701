//! Keys of Tencent Cloud's API: of the rules, of the environment, of the CVM instance that we run on.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde::Deserialize;
use url::Url;

use super::kept::{Current, Found, Kept};
use super::tc3::SecretKey;
use crate::registry::{Api, Error, ErrorKind, Operation, Result, TencentSettings};
use crate::telemetry::Secret;

/// What the process's environment says, as a value, so that only [`Surroundings::of_process`] reads it. The variables are
/// those of Tencent's own tools (tencentcloud-sdk-nodejs `common/credential`; the CLI has `TENCENTCLOUD_TOKEN` for the
/// token).
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    pub(super) secret_id: Option<String>,
    pub(super) secret_key: Option<Secret>,
    pub(super) token: Option<Secret>,
    /// Where the instance tells of itself, in place of where it does.
    pub(super) metadata: Option<String>,
}

impl Surroundings {
    /// As this process has them.
    pub(super) fn of_process() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let token = text("TENCENTCLOUD_TOKEN").or_else(|| text("TENCENTCLOUD_SESSION_TOKEN"));
        Self {
            secret_id: text("TENCENTCLOUD_SECRET_ID"),
            secret_key: text("TENCENTCLOUD_SECRET_KEY").map(Secret::new),
            token: token.map(Secret::new),
            metadata: None,
        }
    }
}

/// The key of one registry, read when it is first needed and again before it ends.
#[derive(Debug)]
pub(super) struct SecretKeys {
    settings: TencentSettings,
    /// Whether the rules have `tencent:` at all.
    written: bool,
    around: Surroundings,
    kept: Kept<SecretKey>,
    /// That there is no key was told.
    told: AtomicBool,
}

/// What the instance says (tencentcloud-sdk-nodejs `common/cvm_role_credential`).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Temporary {
    tmp_secret_id: String,
    tmp_secret_key: String,
    token: String,
    /// In seconds since 1970.
    expired_time: i64,
}

impl SecretKeys {
    pub(super) fn new(settings: TencentSettings, written: bool, around: Surroundings) -> Self {
        Self {
            settings,
            written,
            around,
            kept: Kept::default(),
            told: AtomicBool::new(false),
        }
    }

    /// The key; `None` where there is none anywhere.
    ///
    /// # Errors
    /// The instance should give one out, and does not.
    pub(super) async fn current(&self, api: &Api) -> Result<Option<SecretKey>> {
        match self.kept.current(api.clock(), self.find(api)).await? {
            Current::Is(key) => Ok(Some(key)),
            Current::Nothing | Current::Gone => {
                if self.written && !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        registry = %api.place(None).registry,
                        "no key of Tencent Cloud was found, in the rules and in the environment: its API is not asked"
                    );
                }
                Ok(None)
            }
        }
    }

    /// This key is not taken any more: the next is read anew.
    pub(super) async fn forget(&self, refused: &SecretKey) {
        self.kept.forget(refused).await;
    }

    async fn find(&self, api: &Api) -> Result<Option<Found<SecretKey>>> {
        let (rules, around) = (&self.settings, &self.around);
        if let Some(role) = &rules.cvm_role {
            return self.of_instance(api, role).await.map(Some);
        }
        let pairs = [
            (&rules.secret_id, &rules.secret_key, &rules.token),
            (&around.secret_id, &around.secret_key, &around.token),
        ];
        for (id, secret, token) in pairs {
            if let (Some(id), Some(secret)) = (id, secret) {
                let value = SecretKey {
                    id: id.clone(),
                    secret: secret.clone(),
                    token: token.clone(),
                };
                return Ok(Some(Found { value, ends: None }));
            }
        }
        Ok(None)
    }

    /// What the CVM instance gives out for a role.
    async fn of_instance(&self, api: &Api, role: &str) -> Result<Found<SecretKey>> {
        let failed = |kind, why: &str| {
            let message = format!("the CVM instance gives no key for its role {role:?}: {why}");
            Error::new(Operation::Authenticate, api.place(None), kind, message)
        };
        let base = self.around.metadata.as_deref();
        let base = base.unwrap_or("http://metadata.tencentyun.com");
        let mut url = Url::parse(&format!("{base}/latest/meta-data/cam/security-credentials/"))
            .map_err(|_| failed(ErrorKind::Config, "its address is none"))?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(role);
        }
        let answer = api.metadata(Method::GET, url, HeaderMap::new(), Bytes::new()).await;
        let answer = answer.map_err(|error| failed(error.kind, &error.message))?;
        if answer.status != 200 {
            return Err(match answer.status {
                404 => failed(ErrorKind::Config, "it has no such role, check `tencent.cvm_role`"),
                status => failed(answer.refused("").kind, &format!("it answers {status}")),
            });
        }
        // Without a key where it has no such role.
        let told: Temporary = answer
            .json()
            .map_err(|_| failed(ErrorKind::Config, "it has no such role, check `tencent.cvm_role`"))?;
        Ok(Found {
            value: SecretKey {
                id: told.tmp_secret_id,
                secret: Secret::new(told.tmp_secret_key),
                token: Some(Secret::new(told.token)),
            },
            ends: Timestamp::from_second(told.expired_time).ok(),
        })
    }
}

#[cfg(test)]
mod tests;
