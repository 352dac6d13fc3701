//! Checks signatures of Tencent Cloud's API (TC3-HMAC-SHA256) from the raw request, by code of its own.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};
use transship::clock::Clock;

use super::acs3::{hex, hmac};
use super::{Asking, lock};

/// What is known of the keys.
#[derive(Default)]
pub struct Signatures {
    /// By id: secret, and token of a temporary key.
    keys: Mutex<HashMap<String, (String, Option<String>)>>,
    /// The client's clock stands still, so its date is none of now.
    any_date: AtomicBool,
}

/// What a signature is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    Good,
    /// By a key that was never given out or is not good any more.
    Unknown,
    /// By a secret that is not the key's.
    Mismatch,
    Wrong(String),
}

impl Signatures {
    pub fn add(&self, id: &str, secret: &str, token: Option<&str>) {
        let key = (secret.to_owned(), token.map(str::to_owned));
        lock(&self.keys).insert(id.to_owned(), key);
    }

    /// Takes dates of any time from now on: the client's clock stands still.
    pub fn take_any_date(&self) {
        self.any_date.store(true, Ordering::Relaxed);
    }

    pub fn check(&self, request: &Asking, service: &str) -> Signature {
        match self.checked(request, service) {
            Ok(signature) => signature,
            Err(why) => Signature::Wrong(why),
        }
    }

    fn checked(&self, request: &Asking, service: &str) -> Result<Signature, String> {
        let header = |name: &str| request.header(name).ok_or_else(|| format!("no {name}"));
        let login = header("authorization")?;
        let rest = login.strip_prefix("TC3-HMAC-SHA256 ").ok_or("another algorithm")?;
        let parts: Vec<&str> = rest.split(", ").collect();
        let [credential, signed, signature] = parts.as_slice() else {
            return Err("the login has not its three parts".to_owned());
        };
        let credential = credential.strip_prefix("Credential=").ok_or("no Credential")?;
        let signed = signed.strip_prefix("SignedHeaders=").ok_or("no SignedHeaders")?;
        let signature = signature.strip_prefix("Signature=").ok_or("no Signature")?;

        let seconds: i64 = header("x-tc-timestamp")?.parse().map_err(|_| "no timestamp")?;
        let time = Timestamp::from_second(seconds).map_err(|_| "no timestamp")?;
        let off = Clock::system().now().duration_since(time).abs() > jiff::SignedDuration::from_mins(5);
        if off && !self.any_date.load(Ordering::Relaxed) {
            return Err(format!("{time} is not now"));
        }
        let day = time.to_zoned(TimeZone::UTC).date().to_string();
        let scope = [day.as_str(), service, "tc3_request"];
        let id = credential
            .strip_suffix(&format!("/{}", scope.join("/")))
            .ok_or_else(|| format!("the scope of {credential} is not that of the request"))?;

        let names: Vec<&str> = signed.split(';').collect();
        if !names.is_sorted() || !names.contains(&"host") || !names.contains(&"content-type") {
            return Err(format!("the signed headers are not as documented: {signed}"));
        }
        let mut text = format!("{}\n{}\n{}\n", request.method, request.path, request.query);
        for name in &names {
            text += &format!("{name}:{}\n", header(name)?.trim().to_lowercase());
        }
        text += &format!("\n{signed}\n{}", hex(&Sha256::digest(&request.body)));
        let to_sign = format!(
            "TC3-HMAC-SHA256\n{seconds}\n{}\n{}",
            scope.join("/"),
            hex(&Sha256::digest(text))
        );

        let keys = lock(&self.keys);
        let Some((secret, token)) = keys.get(id) else {
            return Ok(Signature::Unknown);
        };
        let mut key = format!("TC3{secret}").into_bytes();
        for part in scope {
            key = hmac(&key, part.as_bytes());
        }
        if hex(&hmac(&key, to_sign.as_bytes())) != signature {
            return Ok(Signature::Mismatch);
        }
        if request.header("x-tc-token") != token.as_deref() {
            return Err("the key's token is wrong".to_owned());
        }
        Ok(Signature::Good)
    }
}
