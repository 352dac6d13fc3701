//! Alibaba Cloud's request signature ACS3-HMAC-SHA256 (alibabacloud.com, "V3 request body and signature mechanism").

use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher as _};

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

use super::digests::{hex, hmac};
use crate::oci::Digest;
use crate::telemetry::Secret;

const ALGORITHM: &str = "ACS3-HMAC-SHA256";

/// An access key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AccessKey {
    pub(super) id: String,
    pub(super) secret: Secret,
    /// The token of a temporary one.
    pub(super) token: Option<Secret>,
}

/// What is signed of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsigned<'a> {
    pub(super) method: &'a str,
    /// Host as the request's `Host` says it, with the port where that is not the scheme's.
    pub(super) host: &'a str,
    /// The path as it is sent.
    pub(super) path: &'a str,
    /// Parameters of the query, not escaped, in any order.
    pub(super) query: &'a [(&'a str, &'a str)],
    /// Version of the API, such as `2018-12-01`.
    pub(super) version: &'a str,
    pub(super) action: &'a str,
    /// `Content-Type` of the body; none where there is no body.
    pub(super) content_type: Option<&'static str>,
    pub(super) body: &'a [u8],
}

/// The query as it is to be sent, sorted and escaped.
pub(super) fn query(parameters: &[(&str, &str)]) -> String {
    let mut pairs: Vec<(String, String)> = parameters
        .iter()
        .map(|(name, value)| (escaped(name), escaped(value)))
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// RFC 3986: everything but letters, digits and `-_.~` is escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// The headers that sign a request, `Host` left out; `None` for a key that no header can hold. `nonce` must never have been used.
pub(super) fn sign(request: &Unsigned<'_>, key: &AccessKey, now: Timestamp, nonce: &str) -> Option<HeaderMap> {
    let hash = Digest::of(request.body);
    let date = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut signed = vec![
        ("x-acs-action", request.action),
        ("x-acs-content-sha256", hash.hex()),
        ("x-acs-date", &date),
        ("x-acs-signature-nonce", nonce),
        ("x-acs-version", request.version),
        ("host", request.host),
    ];
    signed.extend(request.content_type.map(|kind| ("content-type", kind)));
    if let Some(token) = &key.token {
        signed.push(("x-acs-accesskey-id", &key.id));
        signed.push(("x-acs-security-token", token.expose()));
    }
    signed.sort_unstable();
    let names: Vec<&str> = signed.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let lines: String = signed
        .iter()
        .map(|(name, value)| format!("{name}:{}\n", value.trim()))
        .collect();
    let canonical = format!(
        "{}\n{}\n{}\n{lines}\n{names}\n{}",
        request.method,
        request.path,
        query(request.query),
        hash.hex()
    );
    let to_sign = format!("{ALGORITHM}\n{}", Digest::of(canonical.as_bytes()).hex());
    let signature = hex(&hmac(key.secret.expose().as_bytes(), to_sign.as_bytes()));
    let login = format!(
        "{ALGORITHM} Credential={},SignedHeaders={names},Signature={signature}",
        key.id
    );

    let mut headers = HeaderMap::new();
    for (name, value) in signed.iter().filter(|(name, _)| *name != "host") {
        let mut value = HeaderValue::from_str(value.trim()).ok()?;
        value.set_sensitive(*name == "x-acs-security-token");
        headers.insert(HeaderName::from_static(name), value);
    }
    let mut login = HeaderValue::from_str(&login).ok()?;
    login.set_sensitive(true);
    headers.insert(http::header::AUTHORIZATION, login);
    headers.insert(http::header::ACCEPT, HeaderValue::from_static("application/json"));
    Some(headers)
}

/// A text that no other request of any process has: it is no secret.
pub(super) fn nonce() -> String {
    // The keys of each state come from the system's random numbers, and differ from all others of this process.
    let word = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", word(), word())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: Unsigned<'_> = Unsigned {
        method: "POST",
        host: "ecs.cn-shanghai.aliyuncs.com",
        path: "/",
        query: &[
            ("RegionId", "cn-shanghai"),
            ("ImageId", "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd"),
        ],
        version: "2014-05-26",
        action: "RunInstances",
        content_type: None,
        body: b"",
    };

    fn key() -> AccessKey {
        AccessKey {
            id: "YourAccessKeyId".to_owned(),
            secret: Secret::new("YourAccessKeySecret"),
            token: None,
        }
    }

    fn at() -> Timestamp {
        "2023-10-26T10:22:32Z".parse().expect("a time")
    }

    fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
        headers[name].to_str().expect("a text")
    }

    #[test]
    fn alibaba_signs_as_the_published_example() {
        let headers = sign(&EXAMPLE, &key(), at(), "3156853299f313e23d1673dc12e1703d").expect("signed");
        assert_eq!(
            header(&headers, "authorization"),
            "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;\
             x-acs-signature-nonce;x-acs-version,Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
        );
        assert_eq!(header(&headers, "x-acs-date"), "2023-10-26T10:22:32Z");
        assert_eq!(
            header(&headers, "x-acs-content-sha256"),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert!(headers["authorization"].is_sensitive() && !headers.contains_key("host"));
    }

    #[test]
    fn alibaba_temporary_keys_and_bodies_are_signed_too() {
        let temporary = AccessKey {
            token: Some(Secret::new("tok/en+=")),
            ..key()
        };
        let request = Unsigned {
            content_type: Some("application/json"),
            body: b"{}",
            ..EXAMPLE
        };
        let headers = sign(&request, &temporary, at(), "n").expect("signed");
        let login = header(&headers, "authorization");
        assert!(
            login.contains(
                "SignedHeaders=content-type;host;x-acs-accesskey-id;x-acs-action;x-acs-content-sha256;x-acs-date;\
                 x-acs-security-token;x-acs-signature-nonce;x-acs-version,"
            ),
            "{login}"
        );
        assert_eq!(header(&headers, "x-acs-security-token"), "tok/en+=");
        assert!(headers["x-acs-security-token"].is_sensitive());
        let other = Unsigned {
            body: b"{ }",
            ..request
        };
        let other = sign(&other, &temporary, at(), "n").expect("signed");
        assert_ne!(header(&other, "authorization"), login);
        let unspeakable = AccessKey {
            id: "a\nb".to_owned(),
            ..key()
        };
        assert_eq!(sign(&request, &unspeakable, at(), "n"), None);
    }

    #[test]
    fn queries_are_sorted_and_escaped() {
        assert_eq!(
            query(&[("b", "x y/~*"), ("a", "ü=&"), ("B", "")]),
            "B=&a=%C3%BC%3D%26&b=x%20y%2F~%2A"
        );
        assert_ne!(nonce(), nonce());
        assert_eq!(nonce().len(), 32);
    }
}
