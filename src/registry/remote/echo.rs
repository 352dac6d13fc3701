//! Servers that repeat what they were sent: kept out of messages, which go into logs, reports and the state.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};
use regex::Regex;

use crate::registry::{Credentials, ProxySettings, RemoteSettings};
use crate::telemetry::Secret;

/// What of a request must not come back in words.
#[derive(Debug, Default)]
pub(super) struct Sent(Vec<Secret>);

impl Sent {
    /// What an `Authorization` header gives away: itself, what follows its scheme, and the password within that.
    pub(super) fn by_header(header: Option<&HeaderValue>) -> Self {
        let mut sent = Self::default();
        let Some(value) = header.and_then(|header| header.to_str().ok()) else {
            return sent;
        };
        let (scheme, rest) = value.split_once(' ').unwrap_or(("", value));
        // Some servers drop the padding.
        sent.add(rest.trim_end_matches('='));
        if scheme.eq_ignore_ascii_case("basic")
            && let Some(pair) = STANDARD.decode(rest).ok().and_then(|pair| String::from_utf8(pair).ok())
            && let Some((_, password)) = pair.split_once(':')
        {
            sent.add(password);
        }
        sent
    }

    /// What a user and password give away, as they are and as Basic sends them.
    pub(super) fn by_credentials(credentials: &Credentials) -> Self {
        let mut sent = Self::default();
        let pair = format!("{}:{}", credentials.username, credentials.password.expose());
        sent.add(STANDARD.encode(pair).trim_end_matches('='));
        sent.add(credentials.password.expose());
        sent
    }

    /// What the rules say to send beside the login: `headers`, and who we are at the proxy.
    pub(super) fn add_settings(&mut self, settings: &RemoteSettings) {
        for (_, value) in &settings.headers {
            self.add(value.expose());
        }
        if let ProxySettings::Through { login: Some(login), .. } = &settings.proxy {
            self.0.extend(Self::by_credentials(login).0);
        }
    }

    /// What of a call's own headers must not be read: all that are marked sensitive, and those that are keys by their names.
    pub(super) fn add_headers(&mut self, headers: &HeaderMap) {
        for (name, value) in headers {
            if value.is_sensitive() || is_secret(name.as_str()) {
                self.add(value.to_str().unwrap_or_default());
            }
        }
    }

    /// The same of a call's body, a form or a JSON object. Names of repositories, which refusals do repeat, are no secrets.
    pub(super) fn add_body(&mut self, body: &[u8]) {
        if body.is_empty() {
            return;
        }
        if let Ok(serde_json::Value::Object(fields)) = serde_json::from_slice(body) {
            self.add_fields(&fields);
        } else {
            for (name, value) in url::form_urlencoded::parse(body) {
                if is_secret(&name) {
                    self.add(&value);
                }
            }
        }
    }

    /// Those of a JSON object, and of objects within it.
    fn add_fields(&mut self, fields: &serde_json::Map<String, serde_json::Value>) {
        for (name, value) in fields {
            match value {
                serde_json::Value::String(text) if is_secret(name) => self.add(text),
                serde_json::Value::Object(within) => self.add_fields(within),
                _ => {}
            }
        }
    }

    /// One more.
    pub(super) fn add(&mut self, secret: &str) {
        if !secret.is_empty() {
            self.0.push(Secret::new(secret));
        }
    }

    /// True where `body` holds any of it: as it stands, within JSON, or percent-encoded as in a form.
    pub(super) fn is_in(&self, body: &[u8]) -> bool {
        if self.0.is_empty() || body.is_empty() {
            return false;
        }
        let text = String::from_utf8_lossy(body);
        let value = serde_json::from_slice::<serde_json::Value>(body).ok();
        self.0.iter().any(|secret| {
            let secret = secret.expose();
            let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            let held = |text: &str| text.contains(secret) || text.contains(&encoded);
            held(&text) || value.as_ref().is_some_and(|value| any_text(value, &held))
        })
    }
}

/// True for the name of a field or header that holds what proves who we are.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "secret", "token", "assertion", "identity-header"]
        .iter()
        .any(|word| name.contains(word))
        // Where to go on in a list, and what kind of a proof there is.
        && !matches!(
            name.as_str(),
            "nexttoken" | "client_assertion_type" | "subject_token_type" | "requested_token_type"
        )
}

fn any_text(value: &serde_json::Value, held: &impl Fn(&str) -> bool) -> bool {
    match value {
        serde_json::Value::String(text) => held(text),
        serde_json::Value::Array(items) => items.iter().any(|item| any_text(item, held)),
        serde_json::Value::Object(entries) => entries.iter().any(|(key, item)| held(key) || any_text(item, held)),
        _ => false,
    }
}

/// A server's words without what looks like a login, be it ours or not.
pub(super) fn masked(text: &str) -> String {
    static LOGIN: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?i)\b(basic|bearer)\s+\S+").expect("the pattern is a constant"));
    LOGIN.replace_all(text, "$1 …").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echoes_are_known_in_every_dress() {
        let header = HeaderValue::from_static("Basic dTpwIi8r"); // u:p"/+
        let sent = Sent::by_header(Some(&header));
        for body in [
            r#"authorization=Basic dTpwIi8r"#,
            r#"{"a":[{"b":"x dTpwIi8r"}]}"#,
            r#"{"errors":[{"detail":{"pw":"p\"\/\u002b"}}]}"#,
            "you sent password=p%22%2F%2B",
        ] {
            assert!(sent.is_in(body.as_bytes()), "{body}");
        }
        assert!(!sent.is_in(b"denied"));
        let bearer = Sent::by_header(Some(&HeaderValue::from_static("Bearer abc.def")));
        assert!(bearer.is_in(b"token abc.def is bad"));
        assert!(!Sent::by_header(None).is_in(b"anything"));
        assert!(!format!("{bearer:?}").contains("abc"));
    }

    #[test]
    fn secrets_of_a_call_are_known_by_their_names() {
        let sent = |body: &str| {
            let mut sent = Sent::default();
            sent.add_body(body.as_bytes());
            sent
        };
        let json =
            sent(r#"{"identifier":"someone","secret":"hunter2","repositoryName":"team/app","nextToken":"page2"}"#);
        assert!(json.is_in(b"not hunter2"));
        assert!(!json.is_in(b"someone has no team/app, page2"));
        let within =
            sent(r#"{"source":{"image":"team/app","credentials":{"username":"someone","password":"hunter2"}}}"#);
        assert!(within.is_in(b"not hunter2"));
        assert!(!within.is_in(b"someone has no team/app"));
        let form =
            sent("client_id=someone&client_secret=hunter%2F2&client_assertion_type=urn:x&grant_type=refresh_token");
        assert!(form.is_in(b"not hunter/2"));
        assert!(!form.is_in(b"someone: urn:x, refresh_token"));
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-amz-security-token", "hunter2"), ("accept", "text/x")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let mut sent = Sent::default();
        sent.add_headers(&headers);
        assert!(sent.is_in(b"hunter2") && !sent.is_in(b"text/x"));
    }

    #[test]
    fn logins_are_masked() {
        assert_eq!(masked("no: BASIC  abc==, x"), "no: BASIC … x");
        assert_eq!(masked("Bearer a.b.c"), "Bearer …");
        assert_eq!(masked("denied"), "denied");
    }
}
