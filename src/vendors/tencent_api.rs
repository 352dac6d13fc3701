//! Requests to Tencent Cloud's API, signed, and what its error codes mean.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::tc3::{self, SecretKey, Unsigned};
use crate::registry::{Api, ApiAnswer, ApiCall, Error, ErrorKind, Operation, Place, Result};

/// The registry's product, and the version of its API.
const SERVICE: &str = "tcr";
const VERSION: &str = "2019-09-24";
/// By how much this machine's clock may be off.
const CLOCK_OFF: Duration = Duration::from_secs(5 * 60);
/// A signature is good for five minutes. What was signed longer ago than this and is called too old has waited for its turn.
const SIGNATURE_LIFE: Duration = Duration::from_secs(4 * 60);

/// A request that is to be signed.
#[derive(Clone, Debug)]
pub(super) struct TcCall<'a> {
    pub(super) operation: Operation,
    pub(super) place: Place,
    pub(super) url: Url,
    pub(super) region: &'a str,
    pub(super) action: &'a str,
    /// The parameters.
    pub(super) body: &'a Value,
    /// Whether the key is one of the international site.
    pub(super) international: bool,
}

/// Every answer stands in one, with 200 also for what is refused.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope<T> {
    response: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refusal {
    error: Option<Fault>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Fault {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Fault {
    fn of(body: &[u8]) -> Option<Self> {
        let read: Envelope<Refusal> = serde_json::from_slice(body).ok()?;
        read.response.error
    }

    fn meaning(&self) -> Option<Meaning> {
        meaning(&self.code)
    }
}

/// What stands in an answer.
///
/// # Errors
/// `Invalid` where it is not what the documents say.
pub(super) fn response<T: DeserializeOwned>(answer: &ApiAnswer) -> Result<T> {
    Ok(answer.json::<Envelope<T>>()?.response)
}

/// Sends a request that `key` signs, and gives the answer where it is no refusal.
///
/// # Errors
/// What the API's code says; `NotFound` and `Conflict` where something is not there, or is there already. `Invalid` where what
/// answers is not the API.
pub(super) async fn ask(api: &Api, call: TcCall<'_>, key: &SecretKey) -> Result<ApiAnswer> {
    let host = match (call.url.host_str(), call.url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    let body = Bytes::from(call.body.to_string());
    let unsigned = Unsigned {
        host: &host,
        service: SERVICE,
        version: VERSION,
        action: call.action,
        region: call.region,
        body: &body,
    };
    let mut again = false;
    loop {
        let signed_at = api.clock().elapsed();
        let headers = tc3::sign(&unsigned, key, api.clock().now()).ok_or_else(|| {
            let message = "the key or the region has characters that none has: check `tencent` of this registry";
            Error::new(call.operation, call.place.clone(), ErrorKind::Config, message)
        })?;
        let mut to_send = ApiCall::post(call.operation, call.place.clone(), call.url.clone(), body.clone());
        to_send.headers = headers;
        to_send.throttled = |_, body| means(body, Meaning::Throttled);
        // With another status it was tried again already.
        to_send.troubled = |status, body| status == 200 && means(body, Meaning::Trouble);
        api.signs(CLOCK_OFF);
        let answer = api.call(to_send).await?;
        let Some(error) = refusal(&answer, &call) else {
            return Ok(answer);
        };
        let waited = api.clock().elapsed().saturating_sub(signed_at) > SIGNATURE_LIFE;
        if again || !waited || !means(&answer.body, Meaning::Clock) {
            return Err(error);
        }
        again = true;
    }
}

/// Tencent says so by a code, with 200.
fn means(body: &[u8], what: Meaning) -> bool {
    Fault::of(body).is_some_and(|fault| fault.meaning() == Some(what))
}

fn refusal(answer: &ApiAnswer, call: &TcCall<'_>) -> Option<Error> {
    let is_fine = (200..300).contains(&answer.status);
    let fault = match answer.json::<Envelope<Refusal>>() {
        Ok(Envelope {
            response: Refusal { error: Some(fault) },
        }) => fault,
        Ok(_) if is_fine => return None,
        Err(error) if is_fine => return Some(error),
        _ => return Some(of_nobody(answer)),
    };
    let meaning = fault.meaning();
    let words = match meaning {
        // It may repeat what was signed.
        Some(Meaning::Key) => fault.code.clone(),
        _ => format!("{} {}", fault.code, fault.message),
    };
    let mut error = answer.refused(words.trim());
    error.code = answer.told(Some(fault.code));
    let (kind, advice) = match meaning {
        Some(Meaning::Throttled) => (ErrorKind::Throttled, String::new()),
        Some(Meaning::Absent) => (ErrorKind::NotFound, String::new()),
        Some(Meaning::There) => (ErrorKind::Conflict, String::new()),
        Some(Meaning::Quota) => (ErrorKind::Quota, String::new()),
        Some(Meaning::Trouble) => (ErrorKind::Server, String::new()),
        Some(Meaning::Unknown) => (ErrorKind::Unsupported, String::new()),
        Some(Meaning::Key) => {
            let site = match call.international {
                true => "; a key of the Chinese site needs `tencent.international: false`",
                false => "; a key of the international site needs `tencent.international: true`",
            };
            let advice = "check the key (`tencent:` of this registry, or TENCENTCLOUD_SECRET_ID)";
            (ErrorKind::Unauthorized, format!("{advice}{site}"))
        }
        Some(Meaning::Clock) => (
            ErrorKind::Config,
            "the clock of this machine is more than 5 minutes off: set it right".to_owned(),
        ),
        Some(Meaning::Right) => (
            ErrorKind::Denied,
            format!("grant the CAM action {SERVICE}:{}", call.action),
        ),
        // By its status, where that says something.
        None if answer.status >= 400 => (error.kind, String::new()),
        None => (ErrorKind::Invalid, String::new()),
    };
    error.kind = kind;
    if !advice.is_empty() {
        error.message = format!("{}; {advice}", error.message);
    }
    Some(error)
}

/// A refusal in no words of the API's: what is not there it says in its own.
fn of_nobody(answer: &ApiAnswer) -> Error {
    let mut error = answer.refused("");
    if error.kind == ErrorKind::NotFound {
        error.kind = ErrorKind::Server;
    }
    error
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Throttled,
    Key,
    Clock,
    Right,
    Absent,
    There,
    Quota,
    /// On their side.
    Trouble,
    /// The API has nothing such.
    Unknown,
}

/// What a code means: those that are common to all products, and those of the registry (tencentcloud-sdk-python
/// `tcr/v20190924/errorcodes.py`), as far as they follow a rule. What stands behind the dot goes first: a conflict is an
/// `InternalError` there as well as a `FailedOperation`.
fn meaning(code: &str) -> Option<Meaning> {
    let (class, detail) = code.split_once('.').unwrap_or((code, ""));
    let is = |words: &[&str]| words.contains(&class);
    let speaks_of = |words: &[&str]| words.iter().any(|word| detail.contains(word));
    match () {
        () if class == "RequestLimitExceeded" => Some(Meaning::Throttled),
        () if detail == "SignatureExpire" => Some(Meaning::Clock),
        () if is(&["UnauthorizedOperation"]) || speaks_of(&["Unauthorized"]) => Some(Meaning::Right),
        () if class == "AuthFailure" => Some(Meaning::Key),
        () if is(&["ResourceNotFound"]) || speaks_of(&["NotExist"]) => Some(Meaning::Absent),
        () if speaks_of(&["Exist", "Conflict"]) => Some(Meaning::There),
        () if is(&["LimitExceeded"]) || speaks_of(&["OverLimit"]) => Some(Meaning::Quota),
        () if is(&["InternalError", "ResourceInsufficient", "ServiceUnavailable"])
            || speaks_of(&[
                "DbError",
                "DBDataError",
                "DependenceError",
                "EmptyCoreBody",
                "GetTcrClient",
            ]) =>
        {
            Some(Meaning::Trouble)
        }
        () if is(&[
            "ActionOffline",
            "InvalidAction",
            "NoSuchProduct",
            "NoSuchVersion",
            "UnsupportedOperation",
            "UnsupportedProtocol",
            "UnsupportedRegion",
        ]) =>
        {
            Some(Meaning::Unknown)
        }
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tencent_codes_by_their_words() {
        for (code, wanted) in [
            ("RequestLimitExceeded", Some(Meaning::Throttled)),
            ("RequestLimitExceeded.UinLimitExceeded", Some(Meaning::Throttled)),
            ("AuthFailure.SecretIdNotFound", Some(Meaning::Key)),
            ("AuthFailure.SignatureFailure", Some(Meaning::Key)),
            ("AuthFailure.TokenFailure", Some(Meaning::Key)),
            ("AuthFailure", Some(Meaning::Key)),
            ("AuthFailure.SignatureExpire", Some(Meaning::Clock)),
            ("AuthFailure.UnauthorizedOperation", Some(Meaning::Right)),
            ("UnauthorizedOperation", Some(Meaning::Right)),
            ("FailedOperation.ErrorTcrUnauthorized", Some(Meaning::Right)),
            ("InternalError.ErrUnauthorized", Some(Meaning::Right)),
            ("ResourceNotFound.TcrResourceNotFound", Some(Meaning::Absent)),
            ("ResourceNotFound", Some(Meaning::Absent)),
            ("InternalError.ErrNotExist", Some(Meaning::Absent)),
            ("InvalidParameter.ErrNamespaceExist", Some(Meaning::There)),
            ("InvalidParameter.ErrRepoExist", Some(Meaning::There)),
            ("FailedOperation.ErrorTcrResourceConflict", Some(Meaning::There)),
            ("InternalError.ErrorTcrResourceConflict", Some(Meaning::There)),
            ("LimitExceeded.ErrRepoMaxLimit", Some(Meaning::Quota)),
            ("OperationDenied.QuotaOverLimit", Some(Meaning::Quota)),
            ("InternalError.ErrorOverLimit", Some(Meaning::Quota)),
            ("InternalError", Some(Meaning::Trouble)),
            ("FailedOperation.DbError", Some(Meaning::Trouble)),
            ("InternalError.ErrorTcrInternal", Some(Meaning::Trouble)),
            ("InvalidAction", Some(Meaning::Unknown)),
            ("InvalidParameter.ErrorTcrInvalidParameter", None),
            ("MissingParameter", None),
            ("", None),
        ] {
            assert_eq!(meaning(code), wanted, "{code}");
        }
        let told =
            |code: &str| format!(r#"{{"Response":{{"Error":{{"Code":"{code}","Message":"m"}},"RequestId":"1"}}}}"#);
        let is_throttled = |body: &[u8]| means(body, Meaning::Throttled);
        assert!(is_throttled(told("RequestLimitExceeded.IPLimitExceeded").as_bytes()));
        assert!(!is_throttled(told("InternalError").as_bytes()) && !is_throttled(b"{}"));
    }
}
