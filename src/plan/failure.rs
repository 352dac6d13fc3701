//! Kinds of failure: what can be done about one.

use std::fmt;

use serde::Serialize;

/// What kind of failure it is; the kind alone decides what happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The connection could not be made or broke. Retried.
    Network,
    /// 429, or a quota header. Retried when the registry says.
    Throttled,
    /// 5xx, 408. Retried.
    Server,
    /// Bytes that do not match their digest or length. The upload is dropped; read again twice.
    Corrupt,
    /// 401 with a fresh credential.
    Unauthorized,
    /// 403 or 401 with too small a scope.
    Denied,
    /// 404.
    NotFound,
    /// The tag may not be changed (immutable, locked).
    Conflict,
    /// The registry refuses the content, or an answer breaks the protocol.
    Invalid,
    /// The registry refuses to store a manifest whose blobs or children it lacks (MANIFEST_BLOB_UNKNOWN): what
    /// we believed to be there is not. Heals once.
    MissingContent,
    /// The registry cannot do it.
    Unsupported,
    /// Out of space or over quota at the registry.
    Quota,
    /// Over a size limit.
    TooLarge,
    /// Certificate or handshake.
    Tls,
    /// A setting of ours is wrong (unknown realm host, no such credential helper).
    Config,
    /// Our own disk or state.
    Local,
    /// The run was stopped.
    Cancelled,
}

impl ErrorKind {
    /// True where the same request may succeed later without anybody's doing.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::Network | Self::Throttled | Self::Server)
    }

    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Throttled => "throttled",
            Self::Server => "server",
            Self::Corrupt => "corrupt",
            Self::Unauthorized => "unauthorized",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::MissingContent => "missing_content",
            Self::Unsupported => "unsupported",
            Self::Quota => "quota",
            Self::TooLarge => "too_large",
            Self::Tls => "tls",
            Self::Config => "config",
            Self::Local => "local",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
