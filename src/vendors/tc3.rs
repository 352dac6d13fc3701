//! Tencent Cloud's request signature TC3-HMAC-SHA256 (cloud.tencent.com, "Signature v3").

use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;

use super::digests::{hex, hmac};
use crate::oci::Digest;
use crate::telemetry::Secret;

const ALGORITHM: &str = "TC3-HMAC-SHA256";
/// The end of every scope, and the last link of the chain of keys.
const END: &str = "tc3_request";
/// What is signed beside the body. It holds for `POST` to `/` of JSON alone, which is all that is sent.
const SIGNED: &str = "content-type;host;x-tc-action";
const CONTENT_TYPE: &str = "application/json; charset=utf-8";

/// A key of the API.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SecretKey {
    pub(super) id: String,
    pub(super) secret: Secret,
    /// The token of a temporary one.
    pub(super) token: Option<Secret>,
}

/// What is signed of a request, and what goes with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsigned<'a> {
    /// Host as the request's `Host` says it, with the port where that is not the scheme's.
    pub(super) host: &'a str,
    /// The product, such as `tcr`.
    pub(super) service: &'a str,
    /// Version of the API, such as `2019-09-24`.
    pub(super) version: &'a str,
    pub(super) action: &'a str,
    pub(super) region: &'a str,
    /// JSON.
    pub(super) body: &'a [u8],
}

/// The headers that sign a request, `Host` left out; `None` for a key that no header can hold.
pub(super) fn sign(request: &Unsigned<'_>, key: &SecretKey, now: Timestamp) -> Option<HeaderMap> {
    // Values are in lower case where they are signed.
    let canonical = format!(
        "POST\n/\n\ncontent-type:{CONTENT_TYPE}\nhost:{}\nx-tc-action:{}\n\n{SIGNED}\n{}",
        request.host.to_ascii_lowercase(),
        request.action.to_ascii_lowercase(),
        Digest::of(request.body).hex()
    );
    let date = now.strftime("%Y-%m-%d").to_string();
    let timestamp = now.as_second().to_string();
    let scope = format!("{date}/{}/{END}", request.service);
    let hash = Digest::of(canonical.as_bytes());
    let to_sign = format!("{ALGORITHM}\n{timestamp}\n{scope}\n{}", hash.hex());
    let first = hmac(format!("TC3{}", key.secret.expose()).as_bytes(), date.as_bytes());
    let last = [request.service, END]
        .iter()
        .fold(first, |link, text| hmac(&link, text.as_bytes()));
    let signature = hex(&hmac(&last, to_sign.as_bytes()));
    let login = format!(
        "{ALGORITHM} Credential={}/{scope}, SignedHeaders={SIGNED}, Signature={signature}",
        key.id
    );

    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    for (name, value) in [
        ("x-tc-action", request.action),
        ("x-tc-version", request.version),
        ("x-tc-region", request.region),
        ("x-tc-timestamp", &timestamp),
        // What is told of an error is for people.
        ("x-tc-language", "en-US"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).ok()?);
    }
    let mut secrets = vec![(header::AUTHORIZATION, login.as_str())];
    let token = key.token.as_ref().map(Secret::expose);
    secrets.extend(token.map(|token| (HeaderName::from_static("x-tc-token"), token)));
    for (name, value) in secrets {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: Unsigned<'_> = Unsigned {
        host: "cvm.tencentcloudapi.com",
        service: "cvm",
        version: "2017-03-12",
        action: "DescribeInstances",
        region: "ap-guangzhou",
        body: br#"{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}"#,
    };

    fn key(id: &str, secret: &str) -> SecretKey {
        SecretKey {
            id: id.to_owned(),
            secret: Secret::new(secret),
            token: None,
        }
    }

    fn at() -> Timestamp {
        Timestamp::from_second(1_551_113_065).expect("a time")
    }

    fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
        headers[name].to_str().expect("a text")
    }

    /// The examples of "Signature v3" in its newer and its older form: the asterisks are the characters that were signed. Both
    /// signatures were got by Python's `hmac` and `hashlib` too:
    ///
    /// ```python
    /// request = "\n".join(["POST", "/", "", "content-type:application/json; charset=utf-8\nhost:cvm.tencentcloudapi.com\n"
    ///     "x-tc-action:describeinstances\n", "content-type;host;x-tc-action", sha256(body).hexdigest()])
    /// to_sign = "\n".join(["TC3-HMAC-SHA256", "1551113065", "2019-02-25/cvm/tc3_request", sha256(request).hexdigest()])
    /// for part in ["2019-02-25", "cvm", "tc3_request"]: key = hmac.new(key, part, sha256).digest()  # from b"TC3" + secret
    /// hmac.new(key, to_sign, sha256).hexdigest()
    /// ```
    #[test]
    fn tencent_signs_as_the_published_examples() {
        let stars = "*".repeat(32);
        for (id, secret, signature) in [
            (
                format!("AKID{stars}"),
                stars,
                "10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f",
            ),
            (
                "AKIDz8krbsJ5yKBZQpn74WFkmLPx3*******".to_owned(),
                "Gu5t9xGARNpq86cd98joQYCN3*******".to_owned(),
                "be4f67d323c78ab9acb7395e43c0dbcf822a9cfac32fea2449a7bc7726b770a3",
            ),
        ] {
            let headers = sign(&EXAMPLE, &key(&id, &secret), at()).expect("signed");
            assert_eq!(
                header(&headers, "authorization"),
                format!(
                    "TC3-HMAC-SHA256 Credential={id}/2019-02-25/cvm/tc3_request, \
                     SignedHeaders=content-type;host;x-tc-action, Signature={signature}"
                )
            );
            assert!(headers["authorization"].is_sensitive() && !headers.contains_key("host"));
            for (name, value) in [
                ("content-type", "application/json; charset=utf-8"),
                ("x-tc-action", "DescribeInstances"),
                ("x-tc-timestamp", "1551113065"),
                ("x-tc-version", "2017-03-12"),
                ("x-tc-region", "ap-guangzhou"),
            ] {
                assert_eq!(header(&headers, name), value);
            }
        }
    }

    #[test]
    fn tencent_signs_bodies_by_the_day_of_utc_and_sends_the_token_of_a_temporary_key() {
        let temporary = SecretKey {
            token: Some(Secret::new("tok/en+=")),
            ..key("AKIDtmp", "s")
        };
        // The first second of a day.
        let midnight = "2026-03-01T00:00:00Z".parse().expect("a time");
        let headers = sign(&EXAMPLE, &temporary, midnight).expect("signed");
        let login = header(&headers, "authorization").to_owned();
        assert!(login.contains("Credential=AKIDtmp/2026-03-01/cvm/"), "{login}");
        assert_eq!(header(&headers, "x-tc-token"), "tok/en+=");
        assert!(headers["x-tc-token"].is_sensitive());
        let other = Unsigned { body: b"{}", ..EXAMPLE };
        let other = sign(&other, &temporary, midnight).expect("signed");
        assert_ne!(header(&other, "authorization"), login);
        assert_eq!(sign(&EXAMPLE, &key("a\nb", "s"), midnight), None);
    }
}
