//! Asking token servers.

use std::fmt;

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use url::Url;

use super::Transport;
use crate::registry::remote::auth::Scopes;
use crate::registry::remote::call::{Call, Payload};
use crate::registry::remote::echo::Sent;
use crate::registry::{Account, Credentials, ErrorKind, Operation, Place, Result};
use crate::telemetry::RedactedUrl;

/// The body of a token realm's answer: tokens are some KiB (Azure's and GitLab's name every permission).
const MAX_TOKEN_BODY: usize = 64 * 1024;

/// A request to a token realm.
pub(in crate::registry::remote) struct TokenRequest {
    /// Where to; already checked against the hosts that may be named as realm.
    pub(in crate::registry::remote) url: Url,
    /// `Some`: POST this form; `None`: GET.
    pub(in crate::registry::remote) form: Option<Vec<(String, String)>>,
    /// Basic credentials to send along.
    pub(in crate::registry::remote) basic: Option<Credentials>,
}

/// The answer of a token realm: any status, body limited to 64 KiB.
pub(in crate::registry::remote) struct TokenReply {
    /// HTTP status.
    pub(in crate::registry::remote) status: u16,
    /// The body.
    pub(in crate::registry::remote) body: Bytes,
}

impl fmt::Debug for TokenRequest {
    /// Without the form, which holds a refresh token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRequest")
            .field("url", &RedactedUrl(&self.url).to_string())
            .field("posts", &self.form.is_some())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenReply {
    /// Without the body, which holds a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReply")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Transport {
    /// Asks a token realm; network failures, 429 and 5xx are tried again here. Charged to the realm's host name. It needs no
    /// place: those who have one may wait for the token.
    pub(in crate::registry::remote) async fn token(
        &self,
        request: TokenRequest,
        account: &Account,
    ) -> Result<TokenReply> {
        let place = Place {
            registry: self.0.name.clone(),
            ..Place::default()
        };
        let method = if request.form.is_some() {
            Method::POST
        } else {
            Method::GET
        };
        let mut call = Call::new(Operation::Authenticate, place, method, request.url, Scopes::none());
        if let Some(form) = request.form {
            let text = url::form_urlencoded::Serializer::new(String::new())
                .extend_pairs(form)
                .finish();
            let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
            call.headers.insert(header::CONTENT_TYPE, form_type);
            call.payload = Payload::Bytes(text.into());
        }
        let basic = match &request.basic {
            None => None,
            Some(credentials) => {
                use base64::Engine as _;
                let pair = format!("{}:{}", credentials.username, credentials.password.expose());
                let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
                let mut value = HeaderValue::from_str(&format!("Basic {encoded}"))
                    .map_err(|_| call.error(ErrorKind::Config, "the user name or password cannot be sent"))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let answer = self.exchange(account, None, &mut call, basic.as_ref()).await?;
        let status = answer.status.as_u16();
        let mut body = answer.collect(MAX_TOKEN_BODY).await?;
        let mut sent = Sent::default();
        sent.add_settings(&self.0.settings);
        if status != 200 && sent.is_in(&body) {
            body.clear();
        }
        Ok(TokenReply { status, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_to_and_comes_from_token_servers_is_not_printed() {
        let request = TokenRequest {
            url: Url::parse("https://r.example/t?x=hunter2").expect("a URL"),
            form: Some(vec![("refresh_token".to_owned(), "hunter2".to_owned())]),
            basic: None,
        };
        let reply = TokenReply {
            status: 200,
            body: Bytes::from_static(b"hunter2"),
        };
        let printed = format!("{request:?} {reply:?}");
        assert!(printed.contains("r.example") && printed.contains("200"), "{printed}");
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
