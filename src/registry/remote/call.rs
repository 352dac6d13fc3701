//! Requests and answers as values.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::Url;

use super::auth::Scopes;
use super::body::{BodyFault, Incoming};
use super::echo::Sent;
use super::refusal::{MAX_ERROR_BODY, Refusal};
use super::targets::{ForbiddenTarget, host_and_port};
use super::throttle::{Class, Direction, Permit};
use crate::registry::blob::BodyStream;
use crate::registry::{Error, ErrorKind, Operation, Phrase, Place, RemoteSettings, Result};

/// The cause of an error: waited for as long as we wait. What had asked may come to the same again.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("did not answer in time")]
pub(super) struct Late;

impl Late {
    /// Whether an error is one of waiting in vain, for an answer or for its body.
    pub(super) fn caused(error: &Error) -> bool {
        let cause = error.cause.as_deref();
        cause.is_some_and(|cause| cause.is::<Self>() || matches!(cause.downcast_ref(), Some(BodyFault::Stalled)))
    }
}

/// For reading what is left of a small answer so that its connection can be used again.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// What is sent along.
pub(super) enum Payload {
    /// Nothing; with methods that could have a body, `Content-Length: 0`.
    Empty,
    /// Bytes that can be sent again.
    Bytes(Bytes),
    /// This many bytes, once. Behind a mutex that is never locked, as a call is shared with the watch over its body and a
    /// stream alone is not `Sync`.
    Stream(Mutex<Option<BodyStream>>, u64),
}

impl Payload {
    pub(super) fn stream(body: BodyStream, length: u64) -> Self {
        Self::Stream(Mutex::new(Some(body)), length)
    }
}

/// One request as a value; the loop decides about its attempts.
pub(super) struct Call {
    /// For errors.
    pub(super) operation: Operation,
    /// For errors.
    pub(super) place: Place,
    /// Method.
    pub(super) method: Method,
    /// Where to. Credentials go along only where it is the registry's own origin.
    pub(super) url: Url,
    /// Headers beside the login.
    pub(super) headers: HeaderMap,
    /// Body.
    pub(super) payload: Payload,
    /// Which window it waits in.
    pub(super) class: Class,
    /// What it needs to be allowed to do.
    pub(super) scopes: Scopes,
    /// Whether sending it twice does no harm. Reads, the put of a manifest (its bytes are the same), and opening an upload
    /// (a second one is purged by the registry) are; blob bytes never: only the caller knows where the session stands.
    pub(super) repeatable: bool,
    /// Whether a 401 is answered by a new login.
    pub(super) renews_login: bool,
    /// A vendor's API, wherever it is: it may be at a private address, and sends us to no other host.
    pub(super) api: bool,
    /// When it is sent.
    pub(super) turn: Turn,
}

/// When a request is sent for which no place of the process is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// When its turn comes.
    Awaited,
    /// Now: the turn was taken before. Another attempt is [`Turn::AtOnce`].
    Taken,
    /// Now or not at all.
    AtOnce,
}

/// An answer of any status that no further attempt would change. Body unread.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// What answered, after redirects.
    pub(super) url: Url,
    /// True where a host other than the one asked answered.
    pub(super) elsewhere: bool,
    /// Body unread.
    pub(super) response: reqwest::Response,
    /// What we logged in with, which its words must not repeat. The header is marked sensitive.
    pub(super) login: Option<HeaderValue>,
    /// The place in its window.
    pub(super) permit: Option<Permit>,
    /// For errors.
    pub(super) operation: Operation,
    /// For errors.
    pub(super) place: Place,
    /// When it came.
    pub(super) now: jiff::Timestamp,
    /// What this kind of registry means by its refusals.
    pub(super) phrases: &'static [Phrase],
    /// What else was sent that its words must not repeat.
    pub(super) settings: Arc<RemoteSettings>,
}

impl Call {
    /// A small read: repeatable, without body.
    pub(super) fn new(operation: Operation, place: Place, method: Method, url: Url, scopes: Scopes) -> Self {
        let class = Class::of(operation, &method);
        Self {
            operation,
            place,
            method,
            url,
            headers: HeaderMap::new(),
            payload: Payload::Empty,
            class,
            scopes,
            repeatable: true,
            renews_login: true,
            api: false,
            turn: Turn::Awaited,
        }
    }

    pub(super) fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    pub(super) fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(super) fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(self.operation, self.place.clone(), kind, message)
    }

    pub(super) fn forbidden(&self, target: ForbiddenTarget) -> Error {
        self.error(
            ErrorKind::Invalid,
            format!("an address that the registry named is refused: {target}"),
        )
    }

    pub(super) fn body_can_be_made_again(&self) -> bool {
        !matches!(self.payload, Payload::Stream(..))
    }
}

impl Answer {
    /// The body, with the right to have it under way.
    pub(super) fn into_body(self) -> (Incoming, Option<Permit>) {
        (Incoming::new(self.response), self.permit)
    }

    /// The whole body, up to `limit` bytes.
    pub(super) async fn collect(self, limit: usize) -> Result<Bytes> {
        let (operation, place) = (self.operation, self.place);
        let whole = Incoming::new(self.response)
            .collect(limit)
            .await
            .map_err(|fault| body_error(operation, place, fault))?;
        if let Some(permit) = self.permit {
            permit.charge(Direction::Down, whole.len());
        }
        Ok(whole)
    }

    /// True where the body, as far as that of an error is read, holds these words, in whatever letters. It stays to be read.
    pub(super) async fn says(&mut self, words: &str) -> bool {
        let empty = reqwest::Response::from(http::Response::new(Bytes::new()));
        let response = std::mem::replace(&mut self.response, empty);
        let body = Incoming::new(response)
            .collect(MAX_ERROR_BODY)
            .await
            .unwrap_or_default();
        let says = String::from_utf8_lossy(&body).to_ascii_lowercase().contains(words);
        let mut again = http::Response::new(body);
        *again.status_mut() = self.status;
        *again.headers_mut() = self.headers.clone();
        self.response = again.into();
        says
    }

    /// Reads the body as a refusal.
    pub(super) async fn refusal(self) -> Refusal {
        let reads_blob = matches!(self.operation, Operation::ReadBlob | Operation::FindBlob);
        let body = if self.status == StatusCode::RANGE_NOT_SATISFIABLE && reads_blob {
            // distribution 2.8 announces the whole blob here and sends 33 bytes.
            Bytes::new()
        } else {
            Incoming::new(self.response)
                .collect(MAX_ERROR_BODY)
                .await
                .unwrap_or_default()
        };
        let mut sent = Sent::by_header(self.login.as_ref());
        sent.add_settings(&self.settings);
        let mut refusal = Refusal::read(self.status, &self.headers, &body, self.now, &sent);
        refusal.phrases = self.phrases;
        refusal
    }

    /// The error that this answer is. `user` is who we are there, where known.
    pub(super) async fn into_error(self, user: Option<&str>) -> Error {
        // On the heap, as every operation would else carry it in its own.
        Box::pin(self.into_told_error(user)).await.0
    }

    /// As [`Answer::into_error`], and whether it was in an envelope, as a registry's own words are.
    pub(super) async fn into_told_error(self, user: Option<&str>) -> (Error, bool) {
        let (operation, place) = (self.operation, self.place.clone());
        let storage = self.elsewhere.then(|| host_and_port(&self.url));
        let refusal = self.refusal().await;
        let enveloped = refusal.enveloped;
        let error = match storage {
            Some(host) if matches!(refusal.status.as_u16(), 400..=499) => {
                let kind = match refusal.status.as_u16() {
                    404 | 410 => ErrorKind::NotFound,
                    401 | 403 => ErrorKind::Denied,
                    _ => refusal.kind(operation),
                };
                let message = format!("the registry sent us on to {host}, which answered {}", refusal.status);
                let mut error = Error::new(operation, place, kind, message);
                error.status = Some(refusal.status.as_u16());
                error.retry_after = refusal.retry_after;
                error
            }
            _ => refusal.into_error(operation, place, user),
        };
        (error, enveloped)
    }

    /// An error about an answer that breaks the protocol.
    pub(super) fn broken_protocol(&self, message: impl Into<String>) -> Error {
        let mut error = Error::new(self.operation, self.place.clone(), ErrorKind::Invalid, message);
        error.status = Some(self.status.as_u16());
        error
    }

    /// Reads what little is left, so that the connection can be used again.
    pub(super) async fn drain(mut self) {
        let small = self
            .response
            .content_length()
            .is_some_and(|length| length <= MAX_ERROR_BODY as u64);
        if small && self.status != StatusCode::RANGE_NOT_SATISFIABLE {
            let rest = async { while let Ok(Some(_)) = self.response.chunk().await {} };
            let _ = tokio::time::timeout(DRAIN_LIMIT, rest).await;
        }
    }
}

/// The error that a body's fault is.
pub(super) fn body_error(operation: Operation, place: Place, fault: BodyFault) -> Error {
    let kind = match fault {
        BodyFault::TooLarge { .. } => ErrorKind::TooLarge,
        BodyFault::Stalled | BodyFault::Broken(_) => ErrorKind::Network,
    };
    let error = Error::new(operation, place, kind, fault.to_string());
    match fault {
        BodyFault::Broken(cause) => error.caused_by(cause),
        BodyFault::Stalled => error.caused_by(fault),
        BodyFault::TooLarge { .. } => error,
    }
}
