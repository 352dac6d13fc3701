//! AWS's signature, version 4, as its documents have it ("Create a signed AWS API request").

use std::collections::BTreeMap;

use bytes::Bytes;
use http::request::Parts;
use sha2::{Digest, Sha256};

/// What is wrong with a signature.
pub enum Bad {
    UnknownKey,
    Wrong(String),
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 2104 over SHA-256.
pub fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; 64];
    if key.len() > 64 {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(text).finalize();
    Sha256::new()
        .chain_update(padded(0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}

/// The key of a day, region and service.
pub fn signing_key(secret: &str, date: &str, region: &str, service: &str) -> [u8; 32] {
    let day = hmac(format!("AWS4{secret}").as_bytes(), date.as_bytes());
    let of_region = hmac(&day, region.as_bytes());
    hmac(&hmac(&of_region, service.as_bytes()), b"aws4_request")
}

/// The access key of whoever signed this POST to `/`.
pub fn check(
    head: &Parts,
    body: &Bytes,
    service: &str,
    region: &str,
    keys: &BTreeMap<String, (String, Option<String>)>,
) -> Result<String, Bad> {
    let wrong = |why: &str| Bad::Wrong(why.to_owned());
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let given = header("authorization").ok_or_else(|| wrong("not signed"))?;
    let fields = given
        .strip_prefix("AWS4-HMAC-SHA256 ")
        .ok_or_else(|| wrong("another algorithm"))?;
    let field = |name: &str| {
        let found = fields
            .split(", ")
            .find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        found.ok_or_else(|| Bad::Wrong(format!("no {name}")))
    };
    let scope: Vec<&str> = field("Credential")?.split('/').collect();
    let [key, date, of_region, of_service, "aws4_request"] = scope[..] else {
        return Err(wrong("a scope of another form"));
    };
    if (of_region, of_service) != (region, service) {
        return Err(Bad::Wrong(format!("signed for {of_service} in {of_region}")));
    }
    let time = header("x-amz-date").ok_or_else(|| wrong("no date"))?;
    if !time.starts_with(date) {
        return Err(wrong("two dates"));
    }
    let Some((secret, token)) = keys.get(key) else {
        return Err(Bad::UnknownKey);
    };
    if header("x-amz-security-token") != token.as_deref() {
        return Err(wrong("another session token than belongs to the key"));
    }
    let digest = hex(&Sha256::digest(body));
    if header("x-amz-content-sha256") != Some(digest.as_str()) {
        return Err(wrong("another digest of the body"));
    }
    let signed = field("SignedHeaders")?;
    let mut canonical = format!(
        "{}\n{}\n{}\n",
        head.method,
        head.uri.path(),
        head.uri.query().unwrap_or_default()
    );
    for name in signed.split(';') {
        let value = header(name).ok_or_else(|| Bad::Wrong(format!("signs {name}, which is not there")))?;
        canonical += &format!("{name}:{}\n", value.trim());
    }
    for name in ["host", "x-amz-date", "x-amz-content-sha256"] {
        if !signed.split(';').any(|found| found == name) {
            return Err(Bad::Wrong(format!("does not sign {name}")));
        }
    }
    if header("x-amz-target").is_some() && !signed.contains("x-amz-target") {
        return Err(wrong("does not sign x-amz-target"));
    }
    canonical += &format!("\n{signed}\n{digest}");
    let text = format!(
        "AWS4-HMAC-SHA256\n{time}\n{date}/{region}/{service}/aws4_request\n{}",
        hex(&Sha256::digest(canonical.as_bytes()))
    );
    let wanted = hex(&hmac(&signing_key(secret, date, region, service), text.as_bytes()));
    match field("Signature")? == wanted {
        true => Ok(key.to_owned()),
        false => Err(wrong("the signature is another")),
    }
}

/// The worked example of AWS's documents ("Examples of how to derive a signing key", of 2012).
#[test]
fn the_published_key() {
    let key = signing_key(
        "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        "20120215",
        "us-east-1",
        "iam",
    );
    assert_eq!(
        hex(&key),
        "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d"
    );
}
