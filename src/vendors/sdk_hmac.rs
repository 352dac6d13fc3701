//! Huawei Cloud's request signature SDK-HMAC-SHA256 (support.huaweicloud.com, "AK/SK Signing and Authentication Guide",
//! devg-apisign; PyPI `huaweicloudsdkcore` 3.1.219, `signer/signer.py`).

use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;

use super::acs3::{escaped, query};
use super::digests::{hex, hmac};
use crate::oci::Digest;
use crate::telemetry::Secret;

const ALGORITHM: &str = "SDK-HMAC-SHA256";
const CONTENT_TYPE: &str = "application/json";

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
    /// The path as it is sent, which must have nothing escaped.
    pub(super) path: &'a str,
    /// Parameters of the query, not escaped, in any order.
    pub(super) query: &'a [(&'a str, &'a str)],
    /// The project, by its id, where the request says it.
    pub(super) project_id: Option<&'a str>,
    pub(super) body: &'a [u8],
}

/// The headers that sign a request, `Host` left out; `None` for a key that no header can hold.
pub(super) fn sign(request: &Unsigned<'_>, key: &AccessKey, now: Timestamp) -> Option<HeaderMap> {
    let date = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let mut signed = vec![
        ("content-type", CONTENT_TYPE),
        ("host", request.host),
        ("x-sdk-date", &date),
    ];
    signed.extend(request.project_id.map(|id| ("x-project-id", id)));
    let token = key.token.as_ref().map(Secret::expose);
    signed.extend(token.map(|token| ("x-security-token", token)));
    signed.sort_unstable();
    let names: Vec<&str> = signed.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let lines: String = signed
        .iter()
        .map(|(name, value)| format!("{name}:{}\n", value.trim()))
        .collect();
    // Escaped part by part, and with a slash at the end, whether it is sent with one or not.
    let mut path = request.path.split('/').map(escaped).collect::<Vec<_>>().join("/");
    if !path.ends_with('/') {
        path.push('/');
    }
    let canonical = format!(
        "{}\n{path}\n{}\n{lines}\n{names}\n{}",
        request.method,
        query(request.query),
        Digest::of(request.body).hex()
    );
    let hash = Digest::of(canonical.as_bytes());
    let to_sign = format!("{ALGORITHM}\n{date}\n{}", hash.hex());
    let signature = hex(&hmac(key.secret.expose().as_bytes(), to_sign.as_bytes()));
    let login = format!(
        "{ALGORITHM} Access={}, SignedHeaders={names}, Signature={signature}",
        key.id
    );

    let mut headers = HeaderMap::new();
    for (name, value) in signed.iter().filter(|(name, _)| *name != "host") {
        let mut value = HeaderValue::from_str(value.trim()).ok()?;
        value.set_sensitive(*name == "x-security-token");
        headers.insert(HeaderName::from_static(name), value);
    }
    let mut login = HeaderValue::from_str(&login).ok()?;
    login.set_sensitive(true);
    headers.insert(header::AUTHORIZATION, login);
    Some(headers)
}

/// The password of `docker login` that belongs to an access key for as long as the key is good (support.huaweicloud.com,
/// swr_01_1000).
pub(super) fn password(key: &AccessKey) -> Secret {
    Secret::new(hex(&hmac(key.secret.expose().as_bytes(), key.id.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of the published example.
    fn key() -> AccessKey {
        AccessKey {
            id: "QTWAOYTTINDUT2QVKYUC".to_owned(),
            secret: Secret::new("MFyfvK41ba2giqM7Uio6PznpdUKGpownRZlmVmHc"),
            token: None,
        }
    }

    fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
        headers[name].to_str().expect("a text")
    }

    /// "AK/SK Signing and Authentication Guide", from "Constructing a Standard Request" to "Adding the Signature to the Request".
    #[test]
    fn huawei_signs_as_the_published_example() {
        let example = Unsigned {
            method: "GET",
            host: "service.region.example.com",
            path: "/v1/77b6a44cba5143ab91d13ab9a8ff44fd/vpcs",
            query: &[("marker", "13551d6b-755d-4757-b956-536f674975c0"), ("limit", "2")],
            project_id: None,
            body: b"",
        };
        let at = "2019-11-15T03:36:55Z".parse().expect("a time");
        let headers = sign(&example, &key(), at).expect("signed");
        assert_eq!(
            header(&headers, "authorization"),
            "SDK-HMAC-SHA256 Access=QTWAOYTTINDUT2QVKYUC, SignedHeaders=content-type;host;x-sdk-date, \
             Signature=7be6668032f70418fcc22abc52071e57aff61b84a1d2381bb430d6870f4f6ebe"
        );
        assert_eq!(header(&headers, "x-sdk-date"), "20191115T033655Z");
        assert_eq!(header(&headers, "content-type"), "application/json");
        assert!(headers["authorization"].is_sensitive() && !headers.contains_key("host"));
    }

    /// The signature is that of `huaweicloudsdkcore` 3.1.219 for the same request.
    #[test]
    fn huawei_temporary_keys_projects_and_names_with_slashes_are_signed_too() {
        let temporary = AccessKey {
            id: "HSTtmp".to_owned(),
            secret: Secret::new("temp-secret"),
            token: Some(Secret::new("tok/en+=")),
        };
        let request = Unsigned {
            method: "GET",
            host: "swr-api.cn-north-4.myhuaweicloud.com",
            path: "/v2/manage/namespaces/team/repos/web$app/tags",
            query: &[("offset", "1000"), ("limit", "1000")],
            project_id: Some("p1"),
            body: b"",
        };
        let at = "2026-03-01T00:00:00Z".parse().expect("a time");
        let headers = sign(&request, &temporary, at).expect("signed");
        assert_eq!(
            header(&headers, "authorization"),
            "SDK-HMAC-SHA256 Access=HSTtmp, SignedHeaders=content-type;host;x-project-id;x-sdk-date;x-security-token, \
             Signature=1bb8606cf768e4fd70d16e918fcd35d317ffa1b66e1556ac7d50117a9300e963"
        );
        assert_eq!(header(&headers, "x-security-token"), "tok/en+=");
        assert!(headers["x-security-token"].is_sensitive());
        let other = Unsigned { body: b"{}", ..request };
        let other = sign(&other, &temporary, at).expect("signed");
        assert_ne!(header(&other, "authorization"), header(&headers, "authorization"));
        let unspeakable = AccessKey {
            id: "a\nb".to_owned(),
            ..key()
        };
        assert_eq!(sign(&request, &unspeakable, at), None);
    }

    /// As `printf "$AK" | openssl dgst -binary -sha256 -hmac "$SK" | od -An -vtx1 | tr -d ' \n'` has it, the documents' recipe.
    #[test]
    fn huawei_passwords_come_from_the_key() {
        assert_eq!(
            password(&key()).expose(),
            "89aca1198a970e4360203d71cdaa80cfc13ecd55ee84409719e88162d139ef34"
        );
    }
}
