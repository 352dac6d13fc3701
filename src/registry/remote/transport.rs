//! HTTP clients and the one request loop.

use crate::registry::Result;

/// A request to a token realm.
#[derive(Debug)]
pub(super) struct TokenRequest {
    /// Where to; already checked against the hosts that may be named as realm.
    pub(super) url: url::Url,
    /// `Some`: POST this form; `None`: GET.
    pub(super) form: Option<Vec<(String, String)>>,
    /// Basic credentials to send along.
    pub(super) basic: Option<crate::registry::Credentials>,
}

/// The answer of a token realm: any status, body limited to 64 KiB.
#[derive(Debug)]
pub(super) struct TokenReply {
    /// HTTP status.
    pub(super) status: u16,
    /// The body.
    pub(super) body: bytes::Bytes,
}

/// Sends requests of one registry.
#[derive(Clone, Debug)]
pub(super) struct Transport {}

impl Transport {
    /// Asks a token realm; network failures, 429 and 5xx are tried again here. Charged to the realm's host name.
    pub(super) async fn token(&self, request: TokenRequest, account: &crate::registry::Account) -> Result<TokenReply> {
        let _ = (request, account);
        unimplemented!()
    }
}
