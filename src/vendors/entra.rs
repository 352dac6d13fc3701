//! Tokens of Microsoft Entra ID: of an application, of a workload, of the machine that we run on.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use jiff::Timestamp;
use serde::Deserialize;
use url::Url;

use crate::registry::{Api, ApiAnswer, ApiCall, AzureSettings, Error, ErrorKind, Operation, Result};
use crate::telemetry::Secret;

/// What says that a workload's token is one (RFC 7523).
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What can be done where it does not know us.
const ADVICE: &str = "check `azure:` of this registry";

/// What the process's environment says, as a value, so that only [`Surroundings::of_process`] reads it. The variables are
/// those of Azure's own SDKs.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    pub(super) tenant_id: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<Secret>,
    pub(super) federated_token_file: Option<PathBuf>,
    pub(super) authority: Option<String>,
    /// Where a machine tells of itself, in place of where it does.
    pub(super) metadata: Option<String>,
    /// Where App Service, Functions and Container Apps give out tokens, and what they want to see.
    pub(super) identity_endpoint: Option<String>,
    pub(super) identity_header: Option<Secret>,
}

impl Surroundings {
    /// As this process has them.
    pub(super) fn of_process() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            tenant_id: text("AZURE_TENANT_ID"),
            client_id: text("AZURE_CLIENT_ID"),
            client_secret: text("AZURE_CLIENT_SECRET").map(Secret::new),
            federated_token_file: text("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from),
            authority: text("AZURE_AUTHORITY_HOST"),
            metadata: text("AZURE_POD_IDENTITY_AUTHORITY_HOST"),
            identity_endpoint: text("IDENTITY_ENDPOINT"),
            identity_header: text("IDENTITY_HEADER").map(Secret::new),
        }
    }
}

/// Who we are to Entra ID.
#[derive(Debug)]
pub(super) struct Identity {
    settings: AzureSettings,
    /// Whether the rules have `azure:` at all.
    written: bool,
    around: Surroundings,
}

/// How we prove it.
enum Proof {
    Secret(Secret),
    /// A file with a token of an issuer that the application trusts.
    Federated(PathBuf),
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
}

/// RFC 6749, 5.2.
#[derive(Deserialize)]
struct Refused {
    error: String,
    error_description: Option<String>,
}

impl Identity {
    pub(super) fn new(settings: AzureSettings, written: bool, around: Surroundings) -> Self {
        Self {
            settings,
            written,
            around,
        }
    }

    /// The directory, where it is known.
    pub(super) fn tenant(&self) -> Option<&str> {
        self.settings.tenant_id.as_deref().or(self.around.tenant_id.as_deref())
    }

    /// A token for `audience`; `None` where nothing says who we are. `authority` is where Entra ID is for the registry's cloud.
    ///
    /// # Errors
    /// Who we are is said, and Entra ID or the machine gives no token.
    pub(super) async fn token(&self, api: &Api, authority: &str, audience: &str) -> Result<Option<Secret>> {
        let client = self.settings.client_id.as_ref().or(self.around.client_id.as_ref());
        if let Some(proof) = self.proof()
            && let Some(client) = client
        {
            let tenant = self.tenant().ok_or_else(|| {
                let message = "the directory is not known: set `azure.tenant_id` of this registry";
                Error::new(Operation::Authenticate, api.place(None), ErrorKind::Config, message)
            })?;
            return self
                .of_application(api, authority, audience, tenant, client, proof)
                .await
                .map(Some);
        }
        if !self.written {
            return Ok(None);
        }
        // In the rules, an id without a proof is that of a managed identity of several.
        self.of_machine(api, audience, self.settings.client_id.as_deref())
            .await
            .map(Some)
    }

    fn proof(&self) -> Option<Proof> {
        let (rules, around) = (&self.settings, &self.around);
        let of = |secret: &Option<Secret>, file: &Option<PathBuf>| {
            let secret = secret.clone().map(Proof::Secret);
            secret.or_else(|| file.clone().map(Proof::Federated))
        };
        of(&rules.client_secret, &rules.federated_token_file)
            .or_else(|| of(&around.client_secret, &around.federated_token_file))
    }

    async fn of_application(
        &self,
        api: &Api,
        authority: &str,
        audience: &str,
        tenant: &str,
        client: &str,
        proof: Proof,
    ) -> Result<Secret> {
        let fault = |message: String| Error::new(Operation::Authenticate, api.place(None), ErrorKind::Config, message);
        let authority = match (&self.settings.authority, &self.around.authority) {
            (Some(url), _) => url.as_str(),
            (None, Some(host)) => host,
            (None, None) => authority,
        };
        let url = format!("{}/{tenant}/oauth2/v2.0/token", authority.trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|error| {
            fault("the address of Entra ID is none: check `azure.authority` and `azure.tenant_id`".to_owned())
                .caused_by(error)
        })?;
        let mut form = vec![
            ("client_id", client.to_owned()),
            ("grant_type", "client_credentials".to_owned()),
            ("scope", format!("{audience}/.default")),
        ];
        match proof {
            Proof::Secret(secret) => form.push(("client_secret", secret.expose().to_owned())),
            Proof::Federated(file) => {
                let token = tokio::fs::read_to_string(&file).await.map_err(|error| {
                    fault(format!("the federated token cannot be read from {}", file.display())).caused_by(error)
                })?;
                form.push(("client_assertion_type", ASSERTION.to_owned()));
                form.push(("client_assertion", token.trim().to_owned()));
            }
        }
        let answer = api.call(post_form(api, url, &form)).await?;
        match answer.status {
            200 => Ok(Secret::new(answer.json::<Granted>()?.access_token)),
            _ => Err(refusal(&answer, ADVICE)),
        }
    }

    async fn of_machine(&self, api: &Api, audience: &str, client: Option<&str>) -> Result<Secret> {
        let none = |error: Option<Error>| {
            let message = "no managed identity answers on this machine: give it one, or set `azure.client_id` with \
                           `azure.client_secret` or `azure.federated_token_file` of this registry";
            let kind = error.as_ref().map_or(ErrorKind::Config, |error| error.kind);
            let mut told = Error::new(Operation::Authenticate, api.place(None), kind, message);
            if let Some(error) = error {
                told = told.caused_by(error);
            }
            told
        };
        let mut headers = HeaderMap::new();
        let (base, version) = match (&self.around.identity_endpoint, &self.around.identity_header) {
            (Some(endpoint), Some(secret)) => {
                let mut value = HeaderValue::from_str(secret.expose()).map_err(|_| none(None))?;
                value.set_sensitive(true);
                headers.insert(HeaderName::from_static("x-identity-header"), value);
                (endpoint.clone(), "2019-08-01")
            }
            _ => {
                headers.insert(HeaderName::from_static("metadata"), HeaderValue::from_static("true"));
                let host = self.around.metadata.as_deref().unwrap_or("http://169.254.169.254");
                let path = "metadata/identity/oauth2/token";
                (format!("{}/{path}", host.trim_end_matches('/')), "2018-02-01")
            }
        };
        let mut url = Url::parse(&base).map_err(|_| none(None))?;
        url.query_pairs_mut()
            .append_pair("api-version", version)
            .append_pair("resource", audience)
            .extend_pairs(client.map(|client| ("client_id", client)));
        let answer = api.metadata(Method::GET, url, headers, Bytes::new()).await;
        let answer = answer.map_err(|error| none(Some(error)))?;
        match answer.status {
            200 => Ok(Secret::new(answer.json::<Granted>()?.access_token)),
            404 => Err(none(None)),
            _ => Err(refusal(&answer, ADVICE)),
        }
    }
}

/// A POST of a form by nobody but what stands in it.
pub(super) fn post_form(api: &Api, url: Url, form: &[(&str, String)]) -> ApiCall {
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish();
    let mut call = ApiCall::post(Operation::Authenticate, api.place(None), url, body);
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
    call.headers.insert(header::CONTENT_TYPE, kind);
    call
}

/// What Entra ID, a managed identity or another giver of tokens (RFC 6749) says in place of one, with this advice where it is
/// about who we are. Its codes (`AADSTS…`) say more than its statuses.
pub(super) fn refusal(answer: &ApiAnswer, advice: &str) -> Error {
    let said: Option<Refused> = serde_json::from_slice(&answer.body).ok();
    let words = said.as_ref().map(|said| {
        let described = said.error_description.as_deref().unwrap_or_default();
        format!("{} {}", said.error, described.lines().next().unwrap_or_default())
    });
    let mut error = answer.refused(words.as_deref().unwrap_or_default().trim());
    let code = said.map(|said| said.error).unwrap_or_default();
    if matches!(
        code.as_str(),
        "invalid_client" | "unauthorized_client" | "invalid_grant"
    ) {
        error.kind = ErrorKind::Unauthorized;
        error.message = format!("{}; {advice}", error.message);
    }
    error.code = answer.told(Some(code));
    error
}

/// When a JWT ends (RFC 7519, 4.1.4). It is not verified: it only says when to ask again.
pub(super) fn ends(token: &str) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Claims {
        exp: i64,
    }
    let claims = URL_SAFE_NO_PAD
        .decode(token.split('.').nth(1)?.trim_end_matches('='))
        .ok()?;
    Timestamp::from_second(serde_json::from_slice::<Claims>(&claims).ok()?.exp).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_when_it_ends() {
        let token = |claims: &str| format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims));
        let at = Timestamp::from_second(1_750_000_000).ok();
        assert_eq!(ends(&token(r#"{"exp":1750000000,"jti":"x"}"#)), at);
        for bad in [
            token("{}"),
            token("x"),
            "opaque".to_owned(),
            "a.%.c".to_owned(),
            String::new(),
        ] {
            assert_eq!(ends(&bad), None, "{bad}");
        }
    }

    #[test]
    fn azure_proofs_of_the_rules_come_before_those_of_the_environment() {
        let around = Surroundings {
            client_secret: Some(Secret::new("around")),
            ..Surroundings::default()
        };
        let file = Some(PathBuf::from("/token"));
        let identity = Identity::new(
            AzureSettings {
                federated_token_file: file.clone(),
                ..AzureSettings::default()
            },
            true,
            around.clone(),
        );
        assert!(matches!(identity.proof(), Some(Proof::Federated(path)) if Some(&path) == file.as_ref()));
        let bare = Identity::new(AzureSettings::default(), false, around);
        assert!(matches!(bare.proof(), Some(Proof::Secret(secret)) if secret == Secret::new("around")));
        let nobody = Identity::new(AzureSettings::default(), false, Surroundings::default());
        assert!(nobody.proof().is_none());
    }
}
