//! Who may ask over TCP: any program of the machine can connect, and any web page can make a browser do so.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{HeaderMap, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};

use super::answer::Refusal;
use crate::telemetry::Secret;

/// The token that whoever changes something over TCP must show.
#[derive(Clone, Debug)]
pub struct Token(Arc<Secret>);

impl Token {
    /// A token as read from its file; `None` where nothing but blanks is there.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(Arc::new(Secret::new(text))))
    }

    /// Compares in time that does not depend on where the texts differ: hashes of equal length are compared whole.
    fn is(&self, shown: &str) -> bool {
        let ours = Sha256::digest(self.0.expose().as_bytes());
        let theirs = Sha256::digest(shown.as_bytes());
        let difference = ours.iter().zip(theirs.iter()).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

/// Lets a request over TCP through, or refuses it.
pub(super) async fn check(State(token): State<Option<Token>>, request: Request, next: Next) -> Response {
    match refusal(token.as_ref(), request.method(), request.uri(), request.headers()) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    }
}

fn refusal(token: Option<&Token>, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Refusal> {
    // A page of another site can point its own name at 127.0.0.1 (DNS rebinding), but cannot choose `Host`.
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .or_else(|| uri.authority().map(axum::http::uri::Authority::as_str));
    if !host.is_some_and(is_loopback_name) {
        return Some(Refusal::forbidden(
            "this API answers only to the names localhost, 127.0.0.1 and [::1]",
        ));
    }
    if method == Method::GET || method == Method::HEAD {
        return None;
    }
    let Some(token) = token else {
        return Some(Refusal::forbidden(
            "changes over TCP need a token: start the daemon with --api-token-file, or use its Unix socket",
        ));
    };
    let shown = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, shown)| shown.trim());
    match shown {
        Some(shown) if token.is(shown) => None,
        Some(_) => Some(Refusal::unauthorized("that is not the daemon's API token")),
        None => Some(Refusal::unauthorized(
            "changes over TCP need the daemon's API token: --api-token-file, or Authorization: Bearer",
        )),
    }
}

/// `localhost`, `127.0.0.1` or `[::1]`, with or without a port.
fn is_loopback_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1" || name == "[::1]"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(token: Option<&str>, method: Method, host: &str, authorization: Option<&str>) -> u16 {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        let token = token.and_then(Token::new);
        refusal(token.as_ref(), &method, &Uri::from_static("/api/v1/status"), &headers)
            .map_or(200, |refusal| refusal.into_response().status().as_u16())
    }

    #[test]
    fn only_loopback_names_are_answered() {
        for host in ["localhost", "LOCALHOST:9480", "127.0.0.1:9480", "[::1]", "[::1]:9480"] {
            assert_eq!(status(None, Method::GET, host, None), 200, "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:9480",
            "10.0.0.1",
            "",
        ] {
            assert_eq!(status(None, Method::GET, host, None), 403, "{host}");
        }
    }

    #[test]
    fn changes_need_the_token() {
        let post = |token, shown| status(token, Method::POST, "localhost", shown);
        assert_eq!(post(Some("s3cret"), Some("Bearer s3cret")), 200);
        assert_eq!(
            post(Some("s3cret\n"), Some("bearer s3cret")),
            200,
            "a file ends with a line's end"
        );
        assert_eq!(post(Some("s3cret"), Some("Bearer s3cre")), 401);
        assert_eq!(post(Some("s3cret"), Some("Basic s3cret")), 401);
        assert_eq!(post(Some("s3cret"), None), 401);
        assert_eq!(post(None, Some("Bearer ")), 403);
        assert_eq!(status(Some("s3cret"), Method::GET, "localhost", None), 200);
    }

    #[test]
    fn an_empty_file_is_no_token() {
        assert!(Token::new(" \n").is_none());
    }
}
