//! Checks signatures of Alibaba Cloud's API (ACS3-HMAC-SHA256) from the raw request, by code of its own.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use transship::clock::Clock;

use super::{Asking, lock};

/// What is known of the access keys, and which nonces were used.
#[derive(Default)]
pub struct Signatures {
    /// By id: secret, and token of a temporary key.
    keys: Mutex<HashMap<String, (String, Option<String>)>>,
    nonces: Mutex<HashSet<String>>,
    /// The client's clock stands still, so its date is none of now.
    any_date: AtomicBool,
}

/// What a signature is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    /// Good, by this access key.
    Good(String),
    /// Good, but its nonce was used before.
    Again,
    /// By a key that was never given out or is not good any more.
    Unknown(String),
    Wrong(String),
}

impl Signatures {
    pub fn add(&self, id: &str, secret: &str, token: Option<&str>) {
        let key = (secret.to_owned(), token.map(str::to_owned));
        lock(&self.keys).insert(id.to_owned(), key);
    }

    pub fn remove(&self, id: &str) {
        lock(&self.keys).remove(id);
    }

    /// Takes dates of any time from now on: the client's clock stands still.
    pub fn take_any_date(&self) {
        self.any_date.store(true, Ordering::Relaxed);
    }

    /// Uses up the nonce of a request that was not looked at.
    pub fn use_up(&self, request: &Asking) {
        if let Some(nonce) = request.header("x-acs-signature-nonce") {
            lock(&self.nonces).insert(nonce.to_owned());
        }
    }

    pub fn check(&self, request: &Asking, version: &str, action: &str) -> Signature {
        match self.checked(request, version, action) {
            Ok(signature) => signature,
            Err(why) => Signature::Wrong(why),
        }
    }

    fn checked(&self, request: &Asking, version: &str, action: &str) -> Result<Signature, String> {
        let header = |name: &str| request.header(name).ok_or_else(|| format!("no {name}"));
        let login = header("authorization")?;
        let rest = login.strip_prefix("ACS3-HMAC-SHA256 ").ok_or("another algorithm")?;
        let mut fields = HashMap::new();
        for field in rest.split(',') {
            let (name, value) = field.split_once('=').ok_or("no field of the login")?;
            fields.insert(name, value);
        }
        let field = |name: &str| {
            fields
                .get(name)
                .copied()
                .ok_or_else(|| format!("no {name} in the login"))
        };
        let (id, signed, signature) = (field("Credential")?, field("SignedHeaders")?, field("Signature")?);

        if (header("x-acs-version")?, header("x-acs-action")?) != (version, action) {
            return Err(format!("not {action} of {version}"));
        }
        let hash = hex(&Sha256::digest(&request.body));
        if header("x-acs-content-sha256")? != hash {
            return Err("the body has another hash".to_owned());
        }
        if request.body.is_empty() == request.header("content-type").is_some() {
            return Err("a content type is for a body".to_owned());
        }
        let date = header("x-acs-date")?;
        let time: Timestamp = date.parse().map_err(|_| format!("{date} is no date"))?;
        let off = Clock::system().now().duration_since(time).abs() > jiff::SignedDuration::from_mins(15);
        if date.len() != 20 || (off && !self.any_date.load(Ordering::Relaxed)) {
            return Err(format!("{date} is no date of now"));
        }

        let names: Vec<&str> = signed.split(';').collect();
        if !names.is_sorted() || !names.contains(&"host") {
            return Err(format!("the signed headers are not in order: {signed}"));
        }
        let mut lines = String::new();
        for name in &names {
            lines += &format!("{name}:{}\n", header(name)?.trim());
        }
        for name in request.headers.keys().map(http::HeaderName::as_str) {
            if (name.starts_with("x-acs-") || name == "content-type") && !names.contains(&name) {
                return Err(format!("{name} is not signed"));
            }
        }
        let mut pairs: Vec<&str> = request.query.split('&').filter(|pair| !pair.is_empty()).collect();
        pairs.sort_unstable();
        let fair = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~%=".contains(&byte);
        if let Some(pair) = pairs.iter().find(|pair| !pair.bytes().all(fair)) {
            return Err(format!("{pair} is not escaped"));
        }
        let request_text = [
            request.method.as_str(),
            &request.path,
            &pairs.join("&"),
            &lines,
            signed,
            &hash,
        ]
        .join("\n");
        let to_sign = format!("ACS3-HMAC-SHA256\n{}", hex(&Sha256::digest(request_text)));

        let keys = lock(&self.keys);
        let Some((secret, token)) = keys.get(id) else {
            return Ok(Signature::Unknown(id.to_owned()));
        };
        if hex(&hmac(secret.as_bytes(), to_sign.as_bytes())) != signature {
            return Err("the signature is wrong".to_owned());
        }
        if request.header("x-acs-security-token") != token.as_deref() {
            return Err("the key's token is wrong".to_owned());
        }
        if token.is_some() && request.header("x-acs-accesskey-id") != Some(id) {
            return Err("no x-acs-accesskey-id".to_owned());
        }
        if !lock(&self.nonces).insert(header("x-acs-signature-nonce")?.to_owned()) {
            return Ok(Signature::Again);
        }
        Ok(Signature::Good(id.to_owned()))
    }
}

/// RFC 2104.
pub fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    assert!(key.len() <= block.len(), "no key of a test is so long");
    block[..key.len()].copy_from_slice(key);
    let inner: Vec<u8> = block
        .iter()
        .map(|byte| byte ^ 0x36)
        .chain(message.iter().copied())
        .collect();
    let outer: Vec<u8> = block
        .iter()
        .map(|byte| byte ^ 0x5c)
        .chain(Sha256::digest(inner))
        .collect();
    Sha256::digest(outer).to_vec()
}

/// In lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
