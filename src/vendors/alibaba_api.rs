//! Requests to Alibaba Cloud's APIs, signed, and what their error codes mean.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::acs3::{self, AccessKey, Unsigned};
use crate::registry::{Api, ApiAnswer, ApiCall, Error, ErrorKind, Operation, Place, Result};

/// How often a request is signed: an attempt that failed on the way may have used up its nonce, and one that waited for its turn
/// may have grown too old.
const SIGNATURES: usize = 4;
/// By how much this machine's clock may be off.
const CLOCK_OFF: Duration = Duration::from_secs(15 * 60);
/// A signature is good for a quarter of an hour. What was signed longer ago than this and is called too old has waited.
const SIGNATURE_LIFE: Duration = Duration::from_secs(14 * 60);

/// A request that is to be signed.
#[derive(Clone, Debug)]
pub(super) struct AcsCall<'a> {
    pub(super) operation: Operation,
    pub(super) place: Place,
    pub(super) method: Method,
    /// With its query.
    pub(super) url: Url,
    /// The parameters of the query, as they are signed.
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) version: &'a str,
    pub(super) action: &'a str,
    /// JSON, or nothing.
    pub(super) body: Bytes,
}

/// What every answer of these APIs may have. Personal editions write small letters.
#[derive(Default, Deserialize)]
struct Said {
    #[serde(rename = "IsSuccess")]
    is_success: Option<bool>,
    #[serde(rename = "Code", alias = "code")]
    code: Option<Value>,
    #[serde(rename = "Message", alias = "message")]
    message: Option<String>,
}

impl Said {
    fn of(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    fn code(&self) -> String {
        match &self.code {
            Some(Value::String(code)) => code.clone(),
            _ => String::new(),
        }
    }
}

/// Sends a request that `key` signs, and gives the answer where it is no refusal.
///
/// # Errors
/// What the API's code says; `NotFound` and `Conflict` where something is not there, or is there already.
pub(super) async fn ask(api: &Api, call: AcsCall<'_>, key: &AccessKey) -> Result<ApiAnswer> {
    let mut left = SIGNATURES;
    loop {
        let host = match (call.url.host_str(), call.url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        let content_type = (!call.body.is_empty()).then_some("application/json; charset=utf-8");
        let unsigned = Unsigned {
            method: call.method.as_str(),
            host: &host,
            path: call.url.path(),
            query: call.query,
            version: call.version,
            action: call.action,
            content_type,
            body: &call.body,
        };
        let signed_at = api.clock().elapsed();
        let signed = acs3::sign(&unsigned, key, api.clock().now(), &acs3::nonce());
        let headers = signed.ok_or_else(|| {
            let message =
                "the access key has characters that no access key has: check `access_key_id` of this registry";
            Error::new(call.operation, call.place.clone(), ErrorKind::Config, message)
        })?;
        let mut to_send = ApiCall::get(call.operation, call.place.clone(), call.url.clone());
        to_send.method = call.method.clone();
        to_send.headers = headers;
        to_send.body = call.body.clone();
        to_send.throttled = is_throttled;
        api.signs(CLOCK_OFF);
        let answer = api.call(to_send).await?;
        let refused = refusal(&answer, call.action);
        let has_waited = api.clock().elapsed().saturating_sub(signed_at) > SIGNATURE_LIFE;
        let sign_anew =
            |code: &str| code == "SignatureNonceUsed" || has_waited && meaning(code) == Some(Meaning::Clock);
        left -= 1;
        match refused {
            None => return Ok(answer),
            Some((code, _)) if left > 0 && sign_anew(&code) => {}
            Some((_, error)) => return Err(error),
        }
    }
}

/// A form that nobody signs, for what proves in itself who asks.
pub(super) async fn ask_by_form(api: &Api, url: Url, action: &str, form: &[(&str, &str)]) -> Result<ApiAnswer> {
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish();
    let mut call = ApiCall::post(Operation::Authenticate, api.place(None), url, body);
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
    call.headers.insert(header::CONTENT_TYPE, kind);
    call.headers
        .insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    call.throttled = is_throttled;
    let answer = api.call(call).await?;
    match refusal(&answer, action) {
        None => Ok(answer),
        Some((_, error)) => Err(error),
    }
}

/// Alibaba says so by a code, with 400 as often as with 429 and 503.
fn is_throttled(status: u16, body: &[u8]) -> bool {
    status >= 400 && Said::of(body).is_some_and(|said| said.code().starts_with("Throttling"))
}

/// The code and the error of an answer that is a refusal: also of one with 200.
fn refusal(answer: &ApiAnswer, action: &str) -> Option<(String, Error)> {
    let is_fine = (200..300).contains(&answer.status);
    let said = match answer.json::<Said>() {
        Ok(said) if is_fine && said.is_success != Some(false) => return None,
        Ok(said) => said,
        Err(error) if is_fine => return Some((String::new(), error)),
        Err(_) => Said::default(),
    };
    let code = said.code();
    let meaning = meaning(&code);
    let words = match meaning {
        // It repeats what was signed.
        Some(Meaning::Key) => code.clone(),
        _ => format!("{code} {}", said.message.unwrap_or_default()),
    };
    let mut error = answer.refused(words.trim());
    if code.is_empty() && error.kind == ErrorKind::NotFound {
        // What is not there the API says in its own words.
        error.kind = ErrorKind::Server;
    }
    error.code = answer.told(Some(code.clone()));
    let advice = match meaning {
        Some(Meaning::Throttled) => {
            error.kind = ErrorKind::Throttled;
            return Some((code, error));
        }
        Some(Meaning::Absent) => {
            error.kind = ErrorKind::NotFound;
            return Some((code, error));
        }
        Some(Meaning::There) => {
            error.kind = ErrorKind::Conflict;
            return Some((code, error));
        }
        Some(Meaning::Key) => {
            error.kind = ErrorKind::Unauthorized;
            "check the access key (`alibaba:` of this registry, or ALIBABA_CLOUD_ACCESS_KEY_ID)".to_owned()
        }
        Some(Meaning::Clock) => {
            error.kind = ErrorKind::Config;
            "the clock of this machine is more than 15 minutes off: set it right".to_owned()
        }
        Some(Meaning::Right) => {
            error.kind = ErrorKind::Denied;
            format!("grant the RAM action {}:{action}", service(action))
        }
        None if is_fine => {
            error.kind = ErrorKind::Invalid;
            return Some((code, error));
        }
        None => return Some((code, error)),
    };
    error.message = format!("{}; {advice}", error.message);
    Some((code, error))
}

fn service(action: &str) -> &'static str {
    if action.starts_with("AssumeRole") { "sts" } else { "cr" }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Throttled,
    Key,
    Clock,
    Right,
    Absent,
    There,
}

/// What a code means, as far as the codes follow a rule: those of the registry's API are in capitals, those of the gateway are not.
fn meaning(code: &str) -> Option<Meaning> {
    let upper = code.to_ascii_uppercase().replace(['_', '.'], "");
    let begins = |words: &[&str]| words.iter().any(|word| upper.starts_with(word));
    match () {
        () if begins(&["THROTTLING"]) => Some(Meaning::Throttled),
        () if begins(&["INVALIDTIMESTAMP", "ILLEGALTIMESTAMP"]) => Some(Meaning::Clock),
        () if begins(&[
            "INVALIDACCESSKEY",
            "SIGNATUREDOESNOTMATCH",
            "INCOMPLETESIGNATURE",
            "INVALIDSECURITYTOKEN",
            "MISSINGSECURITYTOKEN",
            "SECURITYTOKENEXPIRED",
            "FORBIDDENACCESSKEY",
            "AUTHENTICATIONFAIL",
        ]) =>
        {
            Some(Meaning::Key)
        }
        () if begins(&["FORBIDDEN", "NOPERMISSION", "UNAUTHORIZED", "USERNOTAUTHORIZED"]) => Some(Meaning::Right),
        () if upper.contains("NOTEXIST") || upper.ends_with("NOTFOUND") => Some(Meaning::Absent),
        () if upper.ends_with("EXIST") || upper.ends_with("EXISTS") || upper.ends_with("EXISTED") => {
            Some(Meaning::There)
        }
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alibaba_codes_by_their_words() {
        for (code, wanted) in [
            ("Throttling.User", Some(Meaning::Throttled)),
            ("Throttling", Some(Meaning::Throttled)),
            ("InvalidAccessKeyId.NotFound", Some(Meaning::Key)),
            ("SignatureDoesNotMatch", Some(Meaning::Key)),
            ("InvalidSecurityToken.Expired", Some(Meaning::Key)),
            ("InvalidTimeStamp.Expired", Some(Meaning::Clock)),
            ("Forbidden.RAM", Some(Meaning::Right)),
            ("NoPermission", Some(Meaning::Right)),
            ("INSTANCE_NOT_EXIST", Some(Meaning::Absent)),
            ("REPO_NOT_EXIST", Some(Meaning::Absent)),
            ("EntityNotExist.Role", Some(Meaning::Absent)),
            ("NAMESPACE_ALREADY_EXIST", Some(Meaning::There)),
            ("REPO_EXIST", Some(Meaning::There)),
            ("INVALID_PARAMETER", None),
            ("SignatureNonceUsed", None),
            ("", None),
        ] {
            assert_eq!(meaning(code), wanted, "{code}");
        }
        assert!(is_throttled(400, br#"{"Code":"Throttling.User","Message":"slow"}"#));
        assert!(is_throttled(503, br#"{"code":"Throttling"}"#));
        assert!(!is_throttled(400, br#"{"Code":"Other"}"#) && !is_throttled(200, br#"{"Code":"Throttling"}"#));
    }
}
