//! From what a registry refuses to an [`Error`] that says what can be done about it.

mod words;

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use serde::Deserialize;

pub(super) use self::words::{WHO_AT_THE_PROXY, quote};
use super::echo::Sent;
use super::rates::retry_after;
use crate::registry::{Error, ErrorKind, Operation, Phrase, Place};

/// The most that is read of an error's body: enough for an envelope that names every missing blob of an image.
pub(super) const MAX_ERROR_BODY: usize = 64 * 1024;

/// An answer that is not what was hoped for, with its body read.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// `Retry-After`, made relative.
    pub(super) retry_after: Option<Duration>,
    /// `Content-Type` without parameters, lower case.
    pub(super) content_type: Option<String>,
    /// First code of the error envelope.
    pub(super) code: Option<String>,
    /// First message of the envelope, else the body's text where it is short and plain.
    pub(super) text: String,
    /// Whether the body was an error envelope.
    pub(super) enveloped: bool,
    /// It repeats what we sent: nothing of it is said.
    pub(super) echoes: bool,
    /// What this kind of registry means by its words.
    pub(super) phrases: &'static [Phrase],
}

/// distribution-spec 1.1, "Error Codes". Lenient, as any body is legal with a 4xx.
#[derive(Deserialize)]
struct Envelope {
    errors: Vec<EnvelopeEntry>,
}

#[derive(Deserialize)]
struct EnvelopeEntry {
    code: Option<String>,
    message: Option<String>,
    detail: Option<serde_json::Value>,
}

impl Refusal {
    /// Reads an answer. `now` makes a `Retry-After` date relative; what was `sent` is not said again.
    pub(super) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8], now: Timestamp, sent: &Sent) -> Self {
        let mut refusal = Self {
            status,
            retry_after: retry_after(headers, now),
            content_type: content_type(headers),
            code: None,
            text: String::new(),
            enveloped: false,
            echoes: sent.is_in(body),
            phrases: &[],
        };
        if let Ok(envelope) = serde_json::from_slice::<Envelope>(body) {
            refusal.enveloped = true;
            if let Some(first) = envelope.errors.into_iter().next() {
                refusal.code = first.code.map(|code| quote(&code)).filter(|code| !code.is_empty());
                refusal.text = quote(&first.message.unwrap_or_default());
                // distribution puts the digest of a missing blob, and the reason of a 500, into `detail`.
                if let Some(detail) = first.detail
                    && matches!(&detail, serde_json::Value::String(_) | serde_json::Value::Object(_))
                {
                    let detail = match detail {
                        serde_json::Value::String(text) => text,
                        other if is_out_of_space(&other) => NO_SPACE.to_owned(),
                        other => other.to_string(),
                    };
                    if detail != refusal.text && detail != "{}" && !detail.is_empty() {
                        refusal.text = quote(&format!("{}: {detail}", refusal.text));
                    }
                }
            }
        } else if refusal.content_type.as_deref() != Some("text/html") {
            refusal.text = quote(&String::from_utf8_lossy(body));
        }
        refusal
    }

    /// The phrase of this kind of registry that it is.
    fn phrase(&self, operation: Operation) -> Option<&'static Phrase> {
        let (status, code) = (self.status.as_u16(), self.code.as_deref().unwrap_or_default());
        let text = self.text.to_ascii_lowercase();
        let fits = |phrase: &&Phrase| phrase.fits(status, code, &text, is_write(operation));
        self.phrases.iter().find(fits)
    }

    /// What to do about it: by the kind's own phrases, then by status, then by code, then by text, as the codes of registries differ more than their statuses.
    pub(super) fn kind(&self, operation: Operation) -> ErrorKind {
        if let Some(phrase) = self.phrase(operation) {
            return phrase.kind;
        }
        let code = self.code.as_deref().unwrap_or_default();
        let text = self.text.to_ascii_lowercase();
        let speaks_of = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let immutable = code == "TAG_IMMUTABLE"
            || code == "REGISTRY_DISALLOWED_OPERATION"
            || (code == "TAG_INVALID" && speaks_of(&["immutable", "cannot be overwritten"]))
            || speaks_of(&["immutable"]);
        let writes = is_write(operation);
        match self.status.as_u16() {
            429 => ErrorKind::Throttled,
            400 | 403 | 405 | 409 | 412 if immutable && writes => ErrorKind::Conflict,
            // Harbor answers 412 to a tag that may not move, and to a pull that a policy forbids.
            409 | 412 if writes => ErrorKind::Conflict,
            412 => ErrorKind::Denied,
            401 => ErrorKind::Unauthorized,
            // Harbor, Quay and TCR say "quota" with a 403 only in words.
            403 if speaks_of(&["quota", "limit exceeded", "exceeds the limit", "no space"])
                || code == "QuotaOverLimit" =>
            {
                ErrorKind::Quota
            }
            // A full disk stays full until somebody comes, and each attempt would send the blob again.
            500..=599 if self.says_no_space() => ErrorKind::Quota,
            // distribution with a policy for classes of repositories, as Alibaba runs it: it takes images alone.
            403 if operation == Operation::WriteManifest && text.contains(NO_CLASS) => ErrorKind::Unsupported,
            403 => ErrorKind::Denied,
            413 => ErrorKind::TooLarge,
            400 | 404 | 422
                if operation == Operation::WriteManifest
                    && (matches!(code, "MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN")
                        || (code == "MANIFEST_INVALID"
                            && speaks_of(&["unknown", "missing", "not found", "does not exist", "not exist"]))) =>
            {
                ErrorKind::MissingContent
            }
            // distribution answers MANIFEST_INVALID, not 413, to a manifest over its limit.
            400 if operation == Operation::WriteManifest && speaks_of(&["too large", "too big", "larger than"]) => {
                ErrorKind::TooLarge
            }
            // A manifest goes with the digest of its bytes. distribution with files for its storage says so for a moment where the
            // same manifest is put under several tags at once: it reads a link that another request has just emptied to write it
            // (`provided digest did not match uploaded content`, seen with 2.8.2).
            400 if code == "DIGEST_INVALID" && operation == Operation::WriteManifest => ErrorKind::Server,
            400 if code == "DIGEST_INVALID" => ErrorKind::Corrupt,
            // GHCR answers so to more than 4 MiB with a range; from others it says that the session stands elsewhere than
            // we think: asking it and going on mends that, as after a broken connection.
            416 if operation == Operation::WriteBlob && speaks_of(&["too large"]) => ErrorKind::TooLarge,
            416 if operation == Operation::WriteBlob => ErrorKind::Server,
            400 if code == "BLOB_UPLOAD_UNKNOWN" => ErrorKind::NotFound,
            // ECR's word for a wrong digest, Quay's for a spoilt session.
            400 if matches!(code, "BLOB_UPLOAD_INVALID" | "SIZE_INVALID") => ErrorKind::Corrupt,
            404 => ErrorKind::NotFound,
            405 | 501 => ErrorKind::Unsupported,
            // zot's and Quay's word for a media type that they do not know (project-zot/zot `pkg/api/routes.go`, quay/quay
            // `endpoints/v2/manifest.py`).
            415 if operation == Operation::WriteManifest => ErrorKind::Unsupported,
            // The proxy's own answer to what is not https.
            407 => ErrorKind::Config,
            _ if code == "UNSUPPORTED" => ErrorKind::Unsupported,
            _ if code == "TOOMANYREQUESTS" => ErrorKind::Throttled,
            _ if temporary(self.status) => ErrorKind::Server,
            500..=599 => ErrorKind::Server,
            _ => ErrorKind::Invalid,
        }
    }

    fn says_no_space(&self) -> bool {
        self.status == StatusCode::INSUFFICIENT_STORAGE || self.text.to_ascii_lowercase().contains(NO_SPACE)
    }

    /// The error. `user` is who we are there, where known.
    pub(super) fn into_error(mut self, operation: Operation, place: Place, user: Option<&str>) -> Error {
        let kind = self.kind(operation);
        // distribution repeats the digest that was asked for, and the place has it already.
        if let Some(reference) = &place.reference
            && let Some(text) = self.text.strip_suffix(reference.as_str())
        {
            self.text = text.trim_end_matches([':', ' ']).to_owned();
        }
        let message = self.sentence(operation, kind, user);
        let mut error = Error::new(operation, place, kind, message);
        error.status = Some(self.status.as_u16());
        error.code = self.code.filter(|_| !self.echoes);
        error.retry_after = self.retry_after;
        error
    }
}

fn is_write(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::WriteManifest | Operation::WriteBlob | Operation::MountBlob
    )
}

/// What distribution says of a manifest whose config it has no class for (`registry/handlers/manifests.go`), in lower case.
const NO_CLASS: &str = "unknown manifest class";

/// What a full disk is called, by distribution's Go errors among others.
const NO_SPACE: &str = "no space left on device";

/// distribution 2.8 tells an error of its storage as a number: 28 is ENOSPC (`detail.Enclosed.Err`, seen with a full tmpfs).
fn is_out_of_space(detail: &serde_json::Value) -> bool {
    detail.pointer("/Enclosed/Err").and_then(serde_json::Value::as_i64) == Some(28)
}

/// True for a status that may be another one in a moment: nothing about the request is wrong.
/// 499 and 522 come from proxies (nginx, Cloudflare).
pub(super) fn temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 499 | 500 | 502 | 503 | 504 | 522)
}

/// `Content-Type` without parameters, lower case.
pub(super) fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let value = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::remote::call::Answer;

    /// What the client reads of an answer.
    async fn read(status: u16, body: &str, operation: Operation) -> Refusal {
        let mut response = http::Response::new(body.to_owned());
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        let answer = Answer {
            status: response.status(),
            headers: HeaderMap::new(),
            url: "http://there.example/".parse().expect("an address"),
            elsewhere: false,
            response: response.into(),
            login: None,
            permit: None,
            operation,
            place: Place::default(),
            now: Timestamp::UNIX_EPOCH,
            phrases: &[],
            settings: std::sync::Arc::default(),
        };
        answer.refusal().await
    }

    fn refusal(status: u16, body: &str) -> Refusal {
        let status = StatusCode::from_u16(status).expect("a status");
        Refusal::read(
            status,
            &HeaderMap::new(),
            body.as_bytes(),
            Timestamp::UNIX_EPOCH,
            &Sent::default(),
        )
    }

    fn enveloped(code: &str, message: &str) -> String {
        serde_json::json!({"errors": [{"code": code, "message": message}]}).to_string()
    }

    #[tokio::test]
    async fn kinds_by_status_code_and_text() {
        use ErrorKind as K;
        use Operation as O;
        let rows = [
            (
                412,
                enveloped("PRECONDITION", "configured as immutable."),
                O::WriteManifest,
                K::Conflict,
            ),
            (409, enveloped("TAG_IMMUTABLE", ""), O::WriteManifest, K::Conflict),
            (
                400,
                enveloped("TAG_INVALID", "cannot be overwritten because the tag is immutable."),
                O::WriteManifest,
                K::Conflict,
            ),
            (
                405,
                enveloped("REGISTRY_DISALLOWED_OPERATION", "The operation is disallowed"),
                O::WriteManifest,
                K::Conflict,
            ),
            (
                412,
                enveloped("PROJECTPOLICYVIOLATION", "vulnerable"),
                O::ReadManifest,
                K::Denied,
            ),
            (
                400,
                enveloped("MANIFEST_BLOB_UNKNOWN", "blob unknown to registry"),
                O::WriteManifest,
                K::MissingContent,
            ),
            (
                400,
                enveloped("MANIFEST_INVALID", "manifest references a missing child"),
                O::WriteManifest,
                K::MissingContent,
            ),
            (
                400,
                enveloped("MANIFEST_INVALID", "manifest invalid"),
                O::WriteManifest,
                K::Invalid,
            ),
            (
                403,
                enveloped("DENIED", "adding 3 MiB would exceed the configured quota"),
                O::WriteBlob,
                K::Quota,
            ),
            (403, enveloped("DENIED", "no"), O::WriteBlob, K::Denied),
            (403, String::new(), O::ReadBlob, K::Denied),
            (413, "<html>".to_owned(), O::WriteBlob, K::TooLarge),
            (
                400,
                enveloped("DIGEST_INVALID", "provided digest did not match"),
                O::WriteBlob,
                K::Corrupt,
            ),
            (
                400,
                enveloped("DIGEST_INVALID", "provided digest did not match uploaded content"),
                O::WriteManifest,
                K::Server,
            ),
            (404, enveloped("NOT_FOUND", ""), O::ReadBlob, K::NotFound),
            (405, enveloped("UNSUPPORTED", ""), O::ListRepositories, K::Unsupported),
            (400, enveloped("UNSUPPORTED", ""), O::ListRepositories, K::Unsupported),
            (429, String::new(), O::ReadManifest, K::Throttled),
            (
                500,
                enveloped("UNKNOWN", "no space left on device"),
                O::WriteBlob,
                K::Quota,
            ),
            (507, String::new(), O::WriteBlob, K::Quota),
            (401, String::new(), O::ReadBlob, K::Unauthorized),
            (415, enveloped("MANIFEST_INVALID", ""), O::WriteManifest, K::Unsupported),
            (415, String::new(), O::WriteBlob, K::Invalid),
            (416, enveloped("RANGE_INVALID", ""), O::WriteBlob, K::Server),
            (
                416,
                enveloped("X", "request body is too large: 4.00MiB"),
                O::WriteBlob,
                K::TooLarge,
            ),
            (400, enveloped("BLOB_UPLOAD_INVALID", ""), O::WriteBlob, K::Corrupt),
            (404, enveloped("BLOB_UPLOAD_INVALID", ""), O::WriteBlob, K::NotFound),
        ];
        for (status, body, operation, kind) in rows {
            let refusal = read(status, &body, operation).await;
            assert_eq!(refusal.kind(operation), kind, "{status} {body}");
        }
    }

    #[test]
    fn messages_say_what_to_do() {
        let place = Place {
            registry: "hub".into(),
            repository: Some("a/b".into()),
            reference: None,
        };
        let error = refusal(403, &enveloped("DENIED", "requested access\nis denied")).into_error(
            Operation::WriteBlob,
            place,
            Some("robot"),
        );
        assert_eq!(
            error.to_string(),
            "cannot write the blob at hub/a/b: the registry answered 403 Forbidden DENIED: requested access is denied; \
             the user \"robot\" needs push rights to this repository"
        );
        assert_eq!(error.code.as_deref(), Some("DENIED"));
    }

    #[test]
    fn html_is_not_quoted() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            "text/html; charset=utf-8".parse().expect("a value"),
        );
        let refusal = Refusal::read(
            StatusCode::BAD_GATEWAY,
            &headers,
            b"<html>",
            Timestamp::UNIX_EPOCH,
            &Sent::default(),
        );
        assert_eq!((refusal.text.as_str(), refusal.enveloped), ("", false));
    }
}
