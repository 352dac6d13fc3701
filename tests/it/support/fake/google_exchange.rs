//! What gives out Google's access tokens for other proofs than keys (google.aip.dev, AIP-4113, AIP-4117; RFC 6749, 6; RFC 8693, 2.1;
//! cloud.google.com, `projects.serviceAccounts.generateAccessToken`), and the files that lead there.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};
use transship::clock::Clock;

use super::google::Google;
use super::token::Login;
use super::{Asked, Asking, Fake, document};

/// The service account that may be taken on.
pub const TAKEN_ON: &str = "taken-on@project.iam.gserviceaccount.com";
/// The token of the other issuer.
pub const SUBJECT: &str = "header.subject-claims.signature";
const CLIENT: (&str, &str) = ("client.apps.googleusercontent.com", "GOCSPX-client-secret");
const REFRESH: &str = "1//refresh-secret";
const AUDIENCE: &str = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/ci";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// What the issuer wants to see before it gives out a token.
const PROOF: &str = "proof-of-the-job";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// What must not be told of any of this.
pub const SECRETS: [&str; 4] = ["GOCSPX-", "refresh-secret", "subject-claims", PROOF];

/// The file of `gcloud auth application-default login`.
pub fn user(fake: &Fake) -> Value {
    json!({
        "type": "authorized_user", "client_id": CLIENT.0, "client_secret": CLIENT.1, "refresh_token": REFRESH,
        "quota_project_id": "project", "universe_domain": "googleapis.com", "token_uri": format!("{}/oauth2/token", fake.url()),
    })
}

/// The file of `gcloud iam workload-identity-pools create-cred-config`.
pub fn external(fake: &Fake, source: &Value) -> Value {
    json!({
        "type": "external_account", "audience": AUDIENCE, "subject_token_type": JWT, "credential_source": source,
        "token_url": format!("{}/sts/v1/token", fake.url()), "token_info_url": "https://sts.googleapis.com/v1/introspect",
        "universe_domain": "googleapis.com",
    })
}

/// The source that asks the issuer.
pub fn by_url(fake: &Fake) -> Value {
    json!({
        "url": format!("{}/issuer/token", fake.url()), "headers": { "X-Proof": PROOF },
        "format": { "type": "json", "subject_token_field_name": "value" },
    })
}

/// Where a service account is taken on.
pub fn taking_on(fake: &Fake, account: &str) -> Value {
    let url = format!(
        "{}/v1/projects/-/serviceAccounts/{account}:generateAccessToken",
        fake.url()
    );
    json!(url)
}

/// Answers what is asked of it; `None` for all else.
pub fn asked(google: &Google, request: &Asking) -> Option<Asked> {
    match request.path.as_str() {
        "/oauth2/token"
            if form(request)
                .get("grant_type")
                .is_some_and(|grant| grant == "refresh_token") =>
        {
            Some(refreshed(google, request))
        }
        "/sts/v1/token" => Some(exchanged(google, request)),
        "/issuer/token" => Some(issued(request)),
        path => {
            let account = path.strip_prefix("/v1/projects/-/serviceAccounts/")?;
            Some(generated(
                google,
                request,
                account.strip_suffix(":generateAccessToken")?,
            ))
        }
    }
}

fn form(request: &Asking) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(&request.body).into_owned().collect()
}

fn refused(words: &str) -> Asked {
    Asked::Answer(document(
        400,
        &json!({ "error": "invalid_grant", "error_description": words }),
    ))
}

/// True where a form has these fields and no others, and nothing says who asks beside it.
fn is_form(request: &Asking, fields: &[(&str, &str)]) -> bool {
    let wanted = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    request.method == Method::POST
        && request.authorization().is_none()
        && request.header("content-type") == Some("application/x-www-form-urlencoded")
        && form(request) == wanted.collect()
}

fn refreshed(google: &Google, request: &Asking) -> Asked {
    let sent = form(request).remove("refresh_token").unwrap_or_default();
    let fields = [
        ("client_id", CLIENT.0),
        ("client_secret", CLIENT.1),
        ("grant_type", "refresh_token"),
        ("refresh_token", sent.as_str()),
    ];
    if !is_form(request, &fields) {
        return Asked::Wrong("another refresh than the documented one".to_owned());
    }
    match sent == REFRESH {
        true => Asked::Answer(document(200, &google.give_token())),
        // With what it was sent, as a careless server says it.
        false => refused(&format!("Token {sent} has been expired or revoked.")),
    }
}

fn exchanged(google: &Google, request: &Asking) -> Asked {
    let sent = form(request).remove("subject_token").unwrap_or_default();
    let fields = [
        ("audience", AUDIENCE),
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("scope", SCOPE),
        ("subject_token", sent.as_str()),
        ("subject_token_type", JWT),
    ];
    if !is_form(request, &fields) {
        return Asked::Wrong("another exchange than the documented one".to_owned());
    }
    match sent == SUBJECT {
        true => {
            let mut token = google.give_token();
            token["issued_token_type"] = "urn:ietf:params:oauth:token-type:access_token".into();
            Asked::Answer(document(200, &token))
        }
        false => refused("The given credential is rejected by the attribute condition."),
    }
}

fn issued(request: &Asking) -> Asked {
    if request.method != Method::GET || request.header("x-proof") != Some(PROOF) || request.authorization().is_some() {
        return Asked::Wrong("the issuer is asked as the file says alone".to_owned());
    }
    Asked::Answer(document(200, &json!({ "count": 1, "value": SUBJECT })))
}

fn generated(google: &Google, request: &Asking, account: &str) -> Asked {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let wanted = json!({ "delegates": [], "lifetime": "3600s", "scope": [SCOPE] });
    if request.method != Method::POST || body != wanted || request.header("content-type") != Some("application/json") {
        return Asked::Wrong(format!("a service account is taken on by {body}"));
    }
    if request.bearer().map(|token| google.worth(token)) != Some(Login::Good) {
        return Asked::Wrong("a service account is taken on by an access token".to_owned());
    }
    if account != TAKEN_ON {
        let message = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).";
        let error = json!({ "code": 403, "message": message, "status": "PERMISSION_DENIED" });
        return Asked::Answer(document(403, &json!({ "error": error })));
    }
    let ends = Clock::system().now() + jiff::SignedDuration::from_secs(3600);
    let token = google.give_token()["access_token"].take();
    let ends = ends.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    Asked::Answer(document(200, &json!({ "accessToken": token, "expireTime": ends })))
}
