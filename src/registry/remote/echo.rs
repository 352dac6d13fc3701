//! Servers that repeat what they were sent: kept out of messages, which go into logs, reports and the state.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
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
    fn logins_are_masked() {
        assert_eq!(masked("no: BASIC  abc==, x"), "no: BASIC … x");
        assert_eq!(masked("Bearer a.b.c"), "Bearer …");
        assert_eq!(masked("denied"), "denied");
    }
}
