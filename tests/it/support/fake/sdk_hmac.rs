//! Checks signatures of Huawei Cloud's API (SDK-HMAC-SHA256) from the raw request, by code of its own.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};
use transship::clock::Clock;

use super::acs3::{hex, hmac};
use super::{Asking, lock};

/// What is known of the access keys.
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
    /// Good, by this access key.
    Good(String),
    /// By a key that was never given out, or by a secret that is not the key's.
    Mismatch,
    /// Of a time that is none of now.
    Expired,
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

    pub fn check(&self, request: &Asking) -> Signature {
        match self.checked(request) {
            Ok(signature) => signature,
            Err(why) => Signature::Wrong(why),
        }
    }

    fn checked(&self, request: &Asking) -> Result<Signature, String> {
        let header = |name: &str| request.header(name).ok_or_else(|| format!("no {name}"));
        let login = header("authorization")?;
        let rest = login.strip_prefix("SDK-HMAC-SHA256 ").ok_or("another algorithm")?;
        let parts: Vec<&str> = rest.split(", ").collect();
        let [access, signed, signature] = parts.as_slice() else {
            return Err("the login has not its three parts".to_owned());
        };
        let id = access.strip_prefix("Access=").ok_or("no Access")?;
        let signed = signed.strip_prefix("SignedHeaders=").ok_or("no SignedHeaders")?;
        let signature = signature.strip_prefix("Signature=").ok_or("no Signature")?;

        let names: Vec<&str> = signed.split(';').collect();
        let sent = ["content-type", "host", "x-project-id", "x-sdk-date", "x-security-token"];
        let wanted: Vec<&str> = sent.into_iter().filter(|name| request.header(name).is_some()).collect();
        if names != wanted || request.header("content-type").is_none() {
            return Err(format!("the signed headers are not those that were sent: {signed}"));
        }
        let date = header("x-sdk-date")?;
        let time = DateTime::strptime("%Y%m%dT%H%M%SZ", date).map_err(|_| "no date")?;
        let time: Timestamp = time.to_zoned(TimeZone::UTC).map_err(|_| "no date")?.timestamp();
        let off = Clock::system().now().duration_since(time).abs() > jiff::SignedDuration::from_mins(15);
        if off && !self.any_date.load(Ordering::Relaxed) {
            return Ok(Signature::Expired);
        }

        let mut path: String = request
            .path
            .split('/')
            .map(|part| format!("{}/", escaped(part)))
            .collect();
        // The slash behind the last part is that at the end.
        while path.ends_with("//") {
            path.pop();
        }
        let mut query: Vec<String> = url::form_urlencoded::parse(request.query.as_bytes())
            .map(|(name, value)| format!("{}={}", escaped(&name), escaped(&value)))
            .collect();
        query.sort();
        let mut text = format!("{}\n{path}\n{}\n", request.method, query.join("&"));
        for name in &names {
            text += &format!("{name}:{}\n", header(name)?.trim());
        }
        text += &format!("\n{signed}\n{}", hex(&Sha256::digest(&request.body)));
        let to_sign = format!("SDK-HMAC-SHA256\n{date}\n{}", hex(&Sha256::digest(text)));

        let keys = lock(&self.keys);
        let Some((secret, token)) = keys.get(id) else {
            return Ok(Signature::Mismatch);
        };
        if hex(&hmac(secret.as_bytes(), to_sign.as_bytes())) != signature {
            return Ok(Signature::Mismatch);
        }
        if request.header("x-security-token") != token.as_deref() {
            return Err("the key's token is wrong".to_owned());
        }
        Ok(Signature::Good(id.to_owned()))
    }
}

/// RFC 3986, of text with nothing escaped in it.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
