//! Taking on a role by AWS STS. Written here, as the library's own way has no private endpoints, and asks the one STS of the
//! whole partition where it is not told otherwise.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use reqsign_aws_v4::Credential;
use reqsign_core::Context;
use url::Url;

use super::hosts::{self, Network};
use super::signing::signed;
use crate::registry::{Api, ApiCall, Error, ErrorKind, Operation, Result};

/// A role to take on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Role<'r> {
    pub(super) arn: &'r str,
    pub(super) external_id: Option<&'r str>,
    pub(super) session_name: Option<&'r str>,
}

/// Where STS is.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    pub(super) region: &'a str,
    pub(super) network: Network,
    /// In place of where AWS has it.
    pub(super) endpoint: Option<&'a Url>,
}

impl At<'_> {
    fn url(self, api: &Api) -> Result<Url> {
        if let Some(url) = self.endpoint {
            return Ok(url.clone());
        }
        let url = Url::parse(&format!("https://{}/", hosts::sts(self.region, self.network)));
        url.map_err(|_| {
            let message = format!("{:?} is no region of AWS", self.region);
            Error::new(Operation::Authenticate, api.place(None), ErrorKind::Config, message)
        })
    }
}

/// `AssumeRole`, for an hour, which every role allows.
pub(super) async fn assume(
    api: &Api,
    context: &Context,
    at: At<'_>,
    role: &Role<'_>,
    base: &Credential,
) -> Result<Credential> {
    let failed = |kind, message: String| Error::new(Operation::Authenticate, api.place(None), kind, message);
    let (region, url) = (at.region, at.url(api)?);
    let body = form("AssumeRole", role, None);
    let headers = signed(context, ("sts", region), &url, form_headers(), &body, base)
        .await
        .map_err(|message| failed(ErrorKind::Config, message))?;
    ask(api, role, url, headers, body).await
}

/// `AssumeRoleWithWebIdentity`, by the token of another issuer, such as a cluster of Kubernetes.
pub(super) async fn assume_by_token(api: &Api, at: At<'_>, role: &Role<'_>, token: &str) -> Result<Credential> {
    let url = at.url(api)?;
    let body = form("AssumeRoleWithWebIdentity", role, Some(token));
    ask(api, role, url, form_headers(), body).await
}

fn form_headers() -> HeaderMap {
    let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
    HeaderMap::from_iter([(header::CONTENT_TYPE, form_type)])
}

async fn ask(api: &Api, role: &Role<'_>, url: Url, headers: HeaderMap, body: Bytes) -> Result<Credential> {
    let mut call = ApiCall::post(Operation::Authenticate, api.place(None), url, body);
    call.headers = headers;
    call.throttled = |status, body| status == 400 && String::from_utf8_lossy(body).contains("<Code>Throttling");
    let answer = api.call(call).await?;
    let text = String::from_utf8_lossy(&answer.body);
    if answer.status != 200 {
        let (code, message) = (tag(&text, "Code"), tag(&text, "Message"));
        let said = format!("{}: {}", code.unwrap_or_default(), message.unwrap_or_default());
        let mut error = answer.refused(said.trim_matches([':', ' ']));
        if answer.status < 500 {
            error.kind = ErrorKind::Unauthorized;
        }
        error.message = format!("the role {} cannot be taken on: {}", role.arn, error.message);
        error.code = code.map(str::to_owned);
        return Err(error);
    }
    read(&text).ok_or_else(|| answer.error(ErrorKind::Invalid, "AWS STS answers without credentials".to_owned()))
}

fn form(action: &str, role: &Role<'_>, token: Option<&str>) -> Bytes {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("Action", action)
        .append_pair("Version", "2011-06-15")
        .append_pair("RoleArn", role.arn)
        .append_pair("RoleSessionName", role.session_name.unwrap_or("transship"))
        .append_pair("DurationSeconds", "3600");
    if let Some(id) = role.external_id {
        form.append_pair("ExternalId", id);
    }
    if let Some(token) = token {
        form.append_pair("WebIdentityToken", token);
    }
    form.finish().into()
}

fn read(text: &str) -> Option<Credential> {
    Some(Credential {
        access_key_id: tag(text, "AccessKeyId")?.to_owned(),
        secret_access_key: tag(text, "SecretAccessKey")?.to_owned(),
        session_token: Some(tag(text, "SessionToken")?.to_owned()),
        expires_in: Some(tag(text, "Expiration")?.parse().ok()?),
    })
}

/// What stands between the tags of this name. None of what is read here can hold what XML escapes.
fn tag<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (value, _) = rest.split_once(&format!("</{name}>"))?;
    Some(value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_sts() {
        let text = "<AssumeRoleResponse><AssumeRoleResult><Credentials>\
            <SessionToken>t/o+k=</SessionToken><SecretAccessKey>s/k</SecretAccessKey>\
            <Expiration>2030-01-01T00:00:00Z</Expiration><AccessKeyId>ASIA</AccessKeyId>\
            </Credentials></AssumeRoleResult></AssumeRoleResponse>";
        let found = read(text).expect("credentials");
        assert_eq!(
            (found.access_key_id.as_str(), found.secret_access_key.as_str()),
            ("ASIA", "s/k")
        );
        assert_eq!(found.session_token.as_deref(), Some("t/o+k="));
        assert!(read("<AccessKeyId>ASIA</AccessKeyId>").is_none());
    }
}
