//! Access tokens of Google for other proofs than its own keys: a user's refresh token, a token of another issuer, the right to take
//! on a service account.
//!
//! Facts: google.aip.dev, AIP-4113 and AIP-4117; RFC 6749, 6; RFC 8693, 2.1; googleapis/google-auth-library-python,
//! `google/oauth2/sts.py`; cloud.google.com, IAM Service Account Credentials API, `projects.serviceAccounts.generateAccessToken`.

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::entra::{post_form, refusal};
use super::google_credentials::{External, Subject, TakenOn, User};
use super::google_key::SCOPE;
use super::google_login::{AccessToken, fault, granted};
use crate::registry::{Api, ApiCall, ApiLogin, ErrorKind, Operation, Result};
use crate::telemetry::Secret;

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Generated {
    access_token: String,
    expire_time: Timestamp,
}

/// The token that a user's login gets.
pub(super) async fn of_user(api: &Api, user: &User) -> Result<AccessToken> {
    let form = [
        ("client_id", user.client_id.clone()),
        ("client_secret", user.client_secret.expose().to_owned()),
        ("grant_type", "refresh_token".to_owned()),
        ("refresh_token", user.refresh_token.expose().to_owned()),
    ];
    let answer = api.call(post_form(api, user.token_uri.clone(), &form)).await?;
    match answer.status {
        200 => granted(api, &answer),
        _ => Err(refusal(&answer, "run gcloud auth application-default login again")),
    }
}

/// The token that Google gives for one of another issuer.
pub(super) async fn of_external(api: &Api, external: &External) -> Result<AccessToken> {
    let subject = subject(api, external).await?;
    let form = [
        ("audience", external.audience.clone()),
        ("grant_type", EXCHANGE.to_owned()),
        ("requested_token_type", ACCESS_TOKEN.to_owned()),
        ("scope", SCOPE.to_owned()),
        ("subject_token", subject.expose().to_owned()),
        ("subject_token_type", external.subject_token_type.clone()),
    ];
    let answer = api.call(post_form(api, external.token_url.clone(), &form)).await?;
    match answer.status {
        200 => granted(api, &answer),
        _ => Err(refusal(
            &answer,
            "check the audience of the credentials, and the provider of the workload identity pool",
        )),
    }
}

/// The other issuer's token.
async fn subject(api: &Api, external: &External) -> Result<Secret> {
    let (text, at) = match &external.subject {
        Subject::File(file) => {
            let text = tokio::fs::read_to_string(file).await.map_err(|error| {
                let message = format!("the subject token cannot be read from {}", file.display());
                fault(api, ErrorKind::Config, message).caused_by(error)
            })?;
            (text, file.display().to_string())
        }
        Subject::Url(url, headers) => {
            let host = url.host_str().unwrap_or_default();
            // What has no certificate is on this machine or beside it, as the metadata of another cloud.
            let answer = match url.scheme() {
                "http" => {
                    api.metadata(Method::GET, url.clone(), headers.clone(), Bytes::new())
                        .await?
                }
                _ => {
                    let mut call = ApiCall::get(Operation::Authenticate, api.place(None), url.clone());
                    call.headers.clone_from(headers);
                    api.call(call).await?
                }
            };
            if answer.status != 200 {
                let mut error = answer.refused("");
                error.message = format!("{host} gives no subject token, it answers {}", answer.status);
                return Err(error);
            }
            (String::from_utf8_lossy(&answer.body).into_owned(), host.to_owned())
        }
    };
    external.token_in(&text).ok_or_else(|| {
        let message = format!("what {at} has is no subject token: check `format` of the credential_source");
        fault(api, ErrorKind::Config, message)
    })
}

/// The token of a service account, by the right of another's.
pub(super) async fn take_on(api: &Api, account: &TakenOn, by: Secret) -> Result<AccessToken> {
    let body = json!({
        "delegates": account.delegates, "lifetime": format!("{}s", account.life), "scope": [SCOPE],
    });
    let mut call = ApiCall::post(
        Operation::Authenticate,
        api.place(None),
        account.url.clone(),
        body.to_string(),
    );
    call.headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    call.login = ApiLogin::Bearer(by);
    let answer = api.call(call).await?;
    if answer.status != 200 {
        let mut error = answer.refused(&super::words::said(&answer.body));
        error.message = format!(
            "{}; taking on a service account needs `iam.serviceAccounts.getAccessToken` on it (Service Account Token Creator)",
            error.message
        );
        return Err(error);
    }
    let generated: Generated = answer.json()?;
    Ok(AccessToken {
        secret: Secret::new(generated.access_token),
        ends: generated.expire_time,
    })
}
