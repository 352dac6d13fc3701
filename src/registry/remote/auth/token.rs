//! Tokens: what a token server answers, and how long that is good for.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use jiff::Timestamp;
use serde::Deserialize;

use crate::registry::remote::echo::masked;
use crate::telemetry::Secret;

/// Life of a token whose answer does not say, and the least that is believed (distribution's token specification:
/// `expires_in` defaults to 60, and no less must be given out).
const LEAST_LIFE: Duration = Duration::from_secs(60);

/// A token as the header that carries it. `Debug` prints no secret, as the header value is marked sensitive.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// `Bearer …`.
    pub(super) header: HeaderValue,
    /// Monotonic time at which 80 % of its life are over.
    pub(super) renew_at: Duration,
    /// Monotonic time at which it ends.
    pub(super) ends_at: Duration,
    /// Which reading of the credential it was got with.
    pub(super) generation: u64,
}

/// What an answer of a token server holds.
#[derive(Debug)]
pub(super) struct Granted {
    /// `Bearer …`.
    pub(super) header: HeaderValue,
    /// How long it is good for from now.
    pub(super) life: Duration,
    /// A refresh token for the next time.
    pub(super) refresh: Option<Secret>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    // Read leniently: a strange value here must not make a good token useless.
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
    #[serde(default)]
    issued_at: Option<serde_json::Value>,
    #[serde(default)]
    refresh_token: Option<String>,
}

impl Granted {
    /// Reads the body of a 200, got at `now`. `None` where it holds no token that a header could carry.
    pub(super) fn read(body: &[u8], now: Timestamp) -> Option<Self> {
        let answer: Answer = serde_json::from_slice(body).ok()?;
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let token = filled(answer.token).or(filled(answer.access_token))?;
        let mut header = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        header.set_sensitive(true);
        let said = answer.expires_in.as_ref().and_then(seconds);
        let issued_at = answer.issued_at.as_ref().and_then(serde_json::Value::as_str);
        let life = match said {
            Some(seconds) => {
                let whole = Duration::from_secs(seconds).max(LEAST_LIFE);
                // A token from a cache is older than its answer. Where the clocks disagree by more than its life,
                // the time of its making tells nothing.
                let age = issued_at
                    .and_then(|text| text.parse::<Timestamp>().ok())
                    .and_then(|issued| Duration::try_from(now.duration_since(issued)).ok())
                    .filter(|age| *age < whole);
                whole - age.unwrap_or_default()
            }
            // Azure's answers name no life, but its tokens do.
            None => jwt_end(&token)
                .and_then(|end| Duration::try_from(end.duration_since(now)).ok())
                .filter(|life| !life.is_zero())
                .unwrap_or(LEAST_LIFE),
        };
        Some(Self {
            header,
            life,
            refresh: filled(answer.refresh_token).map(Secret::new),
        })
    }

    /// The token, its life counted from the monotonic time `elapsed`.
    pub(super) fn into_token(self, elapsed: Duration, generation: u64) -> Token {
        Token {
            header: self.header,
            renew_at: elapsed.saturating_add(self.life.mul_f64(0.8)),
            ends_at: elapsed.saturating_add(self.life),
            generation,
        }
    }
}

/// Whole seconds, at most a year, from a number or a text that is one.
fn seconds(value: &serde_json::Value) -> Option<u64> {
    const YEAR: u64 = 366 * 24 * 3600;
    let number = value
        .as_f64()
        .or_else(|| value.as_str().and_then(|text| text.parse().ok()))?;
    // Saturates: below zero is 0, beyond the range is the largest.
    number.is_finite().then(|| (number as u64).min(YEAR))
}

/// `exp` of a JWT (RFC 7519, 4.1.4). Not verified: it only says when to ask again.
fn jwt_end(token: &str) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let claims: Claims = claims(token)?;
    Timestamp::from_second(claims.exp as i64).ok()
}

fn claims<T: serde::de::DeserializeOwned>(token: &str) -> Option<T> {
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&claims).ok()
}

/// What a token is for in a repository, where it says so (distribution, "Token Authentication Implementation": `access`). Not
/// verified: it is the registry that is told the same.
pub(super) fn granted_actions(header: &HeaderValue, repository: &str) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Claims {
        access: Vec<Access>,
    }
    #[derive(Deserialize)]
    struct Access {
        #[serde(rename = "type")]
        kind: String,
        name: String,
        #[serde(default)]
        actions: Vec<String>,
    }
    let claims: Claims = claims(header.to_str().ok()?.strip_prefix("Bearer ")?)?;
    let fitting = claims
        .access
        .into_iter()
        .filter(|access| access.kind == "repository" && access.name == repository);
    Some(fitting.flat_map(|access| access.actions).collect())
}

/// What a token server says about a refusal, fit for an error text: printable and short, or nothing.
pub(super) fn refusal(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else {
        return String::new();
    };
    // The OAuth2 form (RFC 6749, 5.2), distribution's error list, and the `details` of Docker Hub and Harbor.
    let text = [
        "/error_description",
        "/errors/0/message",
        "/details",
        "/message",
        "/error",
    ]
    .iter()
    .find_map(|pointer| value.pointer(pointer)?.as_str());
    let text: String = masked(text.unwrap_or_default())
        .chars()
        .filter(|c| !c.is_control())
        .take(160)
        .collect();
    if text.is_empty() {
        text
    } else {
        format!(" (it says: {text})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("a time")
    }

    fn life(body: &str) -> Option<u64> {
        Granted::read(body.as_bytes(), now()).map(|granted| granted.life.as_secs())
    }

    fn jwt(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn lives() {
        assert_eq!(life(r#"{"token":"t","expires_in":300}"#), Some(300));
        assert_eq!(life(r#"{"access_token":"t"}"#), Some(60));
        assert_eq!(life(r#"{"token":"","access_token":"t","expires_in":5}"#), Some(60));
        assert_eq!(life(r#"{"token":"t","expires_in":"900"}"#), Some(900));
        assert_eq!(life(r#"{"token":"t","expires_in":-1}"#), Some(60));
        assert_eq!(life(r#"{"token":"t","expires_in":1e300}"#), Some(366 * 24 * 3600));
        assert_eq!(
            life(r#"{"token":"t","expires_in":300,"issued_at":"2025-12-31T23:59:00Z"}"#),
            Some(240)
        );
        assert_eq!(
            life(r#"{"token":"t","expires_in":300,"issued_at":"2025-12-31T20:00:00Z"}"#),
            Some(300)
        );
        assert_eq!(
            life(r#"{"token":"t","expires_in":300,"issued_at":"2026-02-01T00:00:00Z"}"#),
            Some(300)
        );
        assert_eq!(life(r#"{"token":"t","expires_in":300,"issued_at":7}"#), Some(300));
    }

    #[test]
    fn a_jwt_without_expires_in_ends_when_it_says() {
        let exp = now().as_second() + 4500;
        let body = |claims: &str| format!(r#"{{"access_token":"{}"}}"#, jwt(claims));
        assert_eq!(life(&body(&format!(r#"{{"exp":{exp}}}"#))), Some(4500));
        assert_eq!(life(&body(r#"{"exp":1}"#)), Some(60));
        assert_eq!(life(&body("{}")), Some(60));
    }

    #[test]
    fn what_holds_no_token() {
        for body in [
            "",
            "{}",
            r#"{"token":""}"#,
            r#"{"token":"a\nb"}"#,
            "<html>",
            r#"{"token":7}"#,
        ] {
            assert_eq!(life(body), None, "{body}");
        }
    }

    #[test]
    fn nothing_secret_prints() {
        let granted = Granted::read(br#"{"token":"hunter2","refresh_token":"hunter3"}"#, now()).expect("a token");
        assert!(!format!("{granted:?}").contains("hunter"));
        assert!(!format!("{:?}", granted.into_token(Duration::ZERO, 0)).contains("hunter"));
    }

    #[test]
    fn refusals_are_short_and_printable() {
        assert_eq!(refusal(b"<html>"), "");
        assert_eq!(
            refusal(br#"{"errors":[{"code":"UNAUTHORIZED","message":"wrong\nuser"}]}"#),
            " (it says: wronguser)"
        );
        let long = format!(r#"{{"error":"{}"}}"#, "x".repeat(1000));
        assert!(refusal(long.as_bytes()).len() < 200);
    }
}
