//! Keys of Google's service accounts, and what they sign to get an access token (RFC 7523; developers.google.com, "Using OAuth
//! 2.0 for Server to Server Applications").

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use url::{Host, Url};

/// What an access token may be used for; what of that our account may do is said elsewhere.
pub(super) const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// The longest life of an assertion, in seconds.
const LIFE: i64 = 3600;
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";

/// A service account.
#[derive(Debug)]
pub(super) struct ServiceAccount {
    email: String,
    key_id: Option<String>,
    /// Where tokens are given out.
    pub(super) token_uri: Url,
    key: RsaKeyPair,
}

/// Why a file is no key of a service account. Nothing of the file is said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoKey {
    #[error("it is no JSON")]
    NoJson,
    #[error("a field of it is of another type than in Google's keys")]
    Shape,
    #[error("it is of the type {0:?}, and keys of a service account (service_account) are understood alone")]
    OtherType(String),
    #[error("client_email or private_key is missing")]
    Incomplete,
    #[error("its private_key is no RSA key in PKCS #8")]
    NoRsaKey,
    #[error("its token_uri is no https address")]
    TokenUri,
}

/// As the console gives it out.
#[derive(Deserialize)]
struct File {
    #[serde(rename = "type", default)]
    kind: String,
    client_email: Option<String>,
    private_key_id: Option<String>,
    private_key: Option<String>,
    token_uri: Option<String>,
}

impl ServiceAccount {
    /// Reads a key as it stands in its file.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn read(text: &str) -> Result<Self, NoKey> {
        let value: Value = serde_json::from_str(text).map_err(|_| NoKey::NoJson)?;
        let file: File = serde_json::from_value(value).map_err(|_| NoKey::Shape)?;
        if file.kind != "service_account" {
            return Err(NoKey::OtherType(file.kind.chars().take(40).collect()));
        }
        let (Some(email), Some(pem)) = (file.client_email, file.private_key) else {
            return Err(NoKey::Incomplete);
        };
        let token_uri = Url::parse(file.token_uri.as_deref().unwrap_or(TOKEN_URI)).map_err(|_| NoKey::TokenUri)?;
        let here = match token_uri.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            _ => false,
        };
        if token_uri.scheme() != "https" && !(here && token_uri.scheme() == "http") {
            return Err(NoKey::TokenUri);
        }
        let key = RsaKeyPair::from_pkcs8(&der(&pem).ok_or(NoKey::NoRsaKey)?).map_err(|_| NoKey::NoRsaKey)?;
        Ok(Self {
            email,
            key_id: file.private_key_id,
            token_uri,
            key,
        })
    }

    /// A JWT that asks for an access token (RS256, RFC 7518); `None` where it could not be signed.
    pub(super) fn assertion(&self, now: Timestamp) -> Option<String> {
        let mut header = json!({ "alg": "RS256", "typ": "JWT" });
        if let Some(id) = &self.key_id {
            header["kid"] = id.as_str().into();
        }
        let claims = json!({
            "iss": self.email, "scope": SCOPE, "aud": self.token_uri.as_str(),
            "iat": now.as_second(), "exp": now.as_second() + LIFE,
        });
        let encoded = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encoded(&header), encoded(&claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .ok()?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// The bytes of the first key of a PEM text (RFC 7468).
fn der(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (inside, _) = rest.split_once("-----END PRIVATE KEY-----")?;
    let inside: String = inside.split_whitespace().collect();
    STANDARD.decode(inside).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    /// The file of a new key with this token address, and its public key.
    pub(in crate::vendors) fn new_key(token_uri: &str) -> (Value, Vec<u8>) {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        let der: Pkcs8V1Der<'_> = pair.as_der().expect("a key");
        let lines: Vec<String> = STANDARD
            .encode(der.as_ref())
            .as_bytes()
            .chunks(64)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        let armour = |word: &str| format!("-----{word} PRIVATE KEY-----\n");
        let pem = format!("{}{}\n{}", armour("BEGIN"), lines.join("\n"), armour("END"));
        let file = json!({
            "type": "service_account", "project_id": "project", "private_key_id": "key-1", "private_key": pem,
            "client_email": "sync@project.iam.gserviceaccount.com", "client_id": "1", "token_uri": token_uri,
        });
        (file, pair.public_key().as_ref().to_vec())
    }

    #[test]
    fn google_assertions_are_signed_claims_of_the_account() {
        let (file, public) = new_key("https://oauth2.googleapis.com/token");
        let account = ServiceAccount::read(&file.to_string()).expect("a key");
        let now = Timestamp::from_second(1_772_366_400).expect("a time");
        let jwt = account.assertion(now).expect("signed");
        let (signed, signature) = jwt.rsplit_once('.').expect("three parts");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &public)
            .verify(signed.as_bytes(), &signature)
            .expect("its signature");
        let parts: Vec<Value> = signed
            .split('.')
            .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON"))
            .collect();
        assert_eq!(parts[0], json!({ "alg": "RS256", "typ": "JWT", "kid": "key-1" }));
        assert_eq!(
            parts[1],
            json!({
                "iss": "sync@project.iam.gserviceaccount.com", "scope": "https://www.googleapis.com/auth/cloud-platform",
                "aud": "https://oauth2.googleapis.com/token", "iat": 1_772_366_400, "exp": 1_772_370_000,
            })
        );
        let shown = format!("{account:?}");
        let private = file["private_key"].as_str().expect("a text");
        assert!(!shown.contains(&private[40..80]), "{shown}");
    }

    #[test]
    fn google_files_that_are_no_keys_are_told() {
        let (file, _) = new_key("https://oauth2.googleapis.com/token");
        let with = |name: &str, value: Value| {
            let mut file = file.clone();
            file[name] = value;
            ServiceAccount::read(&file.to_string()).map(|_| ())
        };
        assert_eq!(ServiceAccount::read("x").map(|_| ()), Err(NoKey::NoJson));
        let other = "external_account".to_owned();
        assert_eq!(with("type", json!(other)), Err(NoKey::OtherType(other)));
        assert_eq!(with("client_email", Value::Null), Err(NoKey::Incomplete));
        assert_eq!(with("private_key", json!("secret")), Err(NoKey::NoRsaKey));
        for uri in ["http://tokens.example/token", "ftp://127.0.0.1/", "token"] {
            assert_eq!(with("token_uri", json!(uri)), Err(NoKey::TokenUri), "{uri}");
        }
        assert_eq!(with("token_uri", json!("http://127.0.0.1:1/token")), Ok(()));
        assert_eq!(with("token_uri", Value::Null), Ok(()));
    }
}
