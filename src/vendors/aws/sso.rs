//! IAM Identity Center (SSO): the token that a person's sign-in left on this machine, and the role that it is good for.

use http::HeaderValue;
use jiff::Timestamp;
use reqsign_aws_v4::Credential;
use reqsign_core::time::Timestamp as Instant;
use serde::Deserialize;
use sha1::{Digest as _, Sha1};
use url::Url;

use super::hosts;
use super::profile::SsoOfProfile;
use crate::registry::{Api, ApiCall, Error, ErrorKind, Operation, Result};

/// What `aws sso login` writes. It has more, for the renewal of the token, which is left to that program.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cached {
    access_token: String,
    expires_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    role_credentials: RoleCredentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RoleCredentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    /// In milliseconds since 1970.
    expiration: i64,
}

/// Name of the file in `~/.aws/sso/cache`.
pub(super) fn file(sso: &SsoOfProfile) -> String {
    use std::fmt::Write as _;
    let mut name = String::with_capacity(45);
    for byte in Sha1::digest(sso.key.as_bytes()) {
        let _ = write!(name, "{byte:02x}");
    }
    name + ".json"
}

/// The token in the text of that file, where it is good.
fn token(cached: &str, now: Timestamp) -> Option<String> {
    let cached: Cached = serde_json::from_str(cached).ok()?;
    // Early versions of the program wrote UTC for Z.
    let ends = cached.expires_at.replace("UTC", "Z");
    let ends: Timestamp = ends.parse().ok()?;
    (ends > now).then_some(cached.access_token)
}

/// `GetRoleCredentials`, by the text of the token's file; at `endpoint` in place of where AWS has the portal.
pub(super) async fn credential(
    api: &Api,
    endpoint: Option<&Url>,
    profile: &str,
    sso: &SsoOfProfile,
    cached: Option<&str>,
) -> Result<Credential> {
    let failed = |kind, message: String| Error::new(Operation::Authenticate, api.place(None), kind, message);
    let ended =
        || format!("nobody is signed in for the AWS profile {profile:?}: run aws sso login --profile {profile}");
    let token = cached.and_then(|cached| token(cached, api.clock().now()));
    let token = token.ok_or_else(|| failed(ErrorKind::Unauthorized, ended()))?;
    if !hosts::is_region(&sso.region) {
        let message = format!("the sso_region of the AWS profile {profile:?} is none");
        return Err(failed(ErrorKind::Config, message));
    }
    let base = match endpoint {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => format!("https://{}", hosts::sso_portal(&sso.region)),
    };
    let mut url = Url::parse(&format!("{base}/federation/credentials")).map_err(|_| {
        failed(
            ErrorKind::Config,
            "the address of AWS's SSO portal cannot be made".to_owned(),
        )
    })?;
    url.query_pairs_mut()
        .append_pair("role_name", &sso.role)
        .append_pair("account_id", &sso.account);
    let mut call = ApiCall::get(Operation::Authenticate, api.place(None), url);
    let mut value = HeaderValue::from_str(&token).map_err(|_| failed(ErrorKind::Unauthorized, ended()))?;
    value.set_sensitive(true);
    call.headers.insert("x-amz-sso_bearer_token", value);
    let answer = api.call(call).await?;
    match answer.status {
        200 => {}
        401 => return Err(answer.error(ErrorKind::Unauthorized, ended())),
        _ => {
            let mut error = answer.refused(&super::Fault::read(&answer.body).message);
            let SsoOfProfile { role, account, .. } = sso;
            error.message = format!(
                "the role {role} of the account {account} cannot be had by SSO: {}",
                error.message
            );
            return Err(error);
        }
    }
    let found = answer.json::<Answer>()?.role_credentials;
    let expires_in = Instant::from_millisecond(found.expiration);
    let expires_in = expires_in.map_err(|_| answer.error(ErrorKind::Invalid, "AWS's SSO portal gives no end"))?;
    Ok(Credential {
        access_key_id: found.access_key_id,
        secret_access_key: found.secret_access_key,
        session_token: Some(found.session_token),
        expires_in: Some(expires_in),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_session_and_its_token() {
        let sso = |key: &str| SsoOfProfile {
            account: String::new(),
            role: String::new(),
            region: String::new(),
            key: key.to_owned(),
        };
        // By sha1sum.
        assert_eq!(file(&sso("corp")), "ee0bfd2552fbd840c02cc48b6e823320543c450f.json");
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let cached = |ends: &str| format!(r#"{{"accessToken": "t", "expiresAt": "{ends}", "region": "x"}}"#);
        for (ends, good) in [
            ("2026-01-01T00:00:01Z", true),
            ("2026-01-01T00:00:01UTC", true),
            ("2026-01-01T00:00:00Z", false),
            ("soon", false),
        ] {
            assert_eq!(token(&cached(ends), now).is_some(), good, "{ends}");
        }
        assert_eq!(token("{}", now), None);
    }
}
