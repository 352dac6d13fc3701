//! Errors of an end, typed by what the caller can do about them.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::oci::{Reference, RepositoryName};

pub use crate::plan::ErrorKind;

/// The result of an operation on an end.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Reach the registry at all.
    Ping,
    /// Look whether a directory is an OCI image layout, or can become one.
    OpenLayout,
    /// Get a token or read credentials.
    Authenticate,
    /// List repositories.
    ListRepositories,
    /// List tags.
    ListTags,
    /// Ask what a tag points to.
    ResolveTag,
    /// Read a manifest.
    ReadManifest,
    /// Write a manifest.
    WriteManifest,
    /// Ask whether a blob is there.
    FindBlob,
    /// Read a blob.
    ReadBlob,
    /// Start, go on with or finish an upload.
    WriteBlob,
    /// Mount a blob from another repository.
    MountBlob,
    /// List referrers.
    ListReferrers,
    /// Make a repository, or the project that it is in.
    CreateRepository,
    /// Have the registry fetch an image by itself.
    ImportImage,
}

impl Operation {
    /// The verb phrase that fits "cannot …".
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Ping => "reach the registry",
            Self::OpenLayout => "use the directory",
            Self::Authenticate => "log in",
            Self::ListRepositories => "list repositories",
            Self::ListTags => "list tags",
            Self::ResolveTag => "resolve the tag",
            Self::ReadManifest => "read the manifest",
            Self::WriteManifest => "write the manifest",
            Self::FindBlob => "look for the blob",
            Self::ReadBlob => "read the blob",
            Self::WriteBlob => "write the blob",
            Self::MountBlob => "mount the blob",
            Self::ListReferrers => "list referrers",
            Self::CreateRepository => "create the repository",
            Self::ImportImage => "have the registry import the image",
        }
    }
}

/// Which side of a copy an end is on: decides whose host is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Read from.
    Source,
    /// Written to.
    Destination,
}

/// Where it happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The registry's name in the rules, or its host for `copy`.
    pub registry: String,
    /// The repository, where one is concerned.
    pub repository: Option<String>,
    /// The tag or digest, where one is concerned.
    pub reference: Option<String>,
}

impl Place {
    /// An image, or what else of a repository is named by a tag or digest.
    pub fn image(registry: &str, repository: &RepositoryName, reference: Option<&Reference>) -> Self {
        Self {
            registry: registry.to_owned(),
            repository: Some(repository.to_string()),
            reference: reference.map(ToString::to_string),
        }
    }
}

impl fmt::Display for Place {
    /// As it is written on the command line: a layout that is named by its directory has no repository to show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.registry)?;
        let by_directory = self.registry.starts_with("oci:");
        let shown = |name: &&String| !(by_directory && name.as_str() == super::IMAGE_REPOSITORY);
        if let Some(repository) = self.repository.as_ref().filter(shown) {
            write!(f, "/{repository}")?;
        }
        match &self.reference {
            Some(reference) if reference.contains(':') => write!(f, "@{reference}"),
            Some(reference) => write!(f, ":{reference}"),
            None => Ok(()),
        }
    }
}

/// A failed operation on an end. `Display` is one sentence without its cause; walk `source()` for that.
#[derive(Debug, thiserror::Error)]
#[error("cannot {} at {place}: {message}", operation.phrase())]
pub struct Error {
    /// What was tried.
    pub operation: Operation,
    /// Which side; set by the caller that knows it ([`Error::on`]).
    pub side: Option<Side>,
    /// Where. Boxed, as results of this type are handed through many layers.
    pub place: Box<Place>,
    /// What to do about it.
    pub kind: ErrorKind,
    /// HTTP status, for reports only.
    pub status: Option<u16>,
    /// The registry's own error code, such as `MANIFEST_UNKNOWN`.
    pub code: Option<String>,
    /// What happened and what to do, as a lower-case fragment without secrets.
    pub message: String,
    /// How long the registry asked us to wait.
    pub retry_after: Option<Duration>,
    /// True where the login itself was refused by who gives out logins, whatever it was to be used for.
    pub login_refused: bool,
    /// The cause.
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without status, code or cause.
    pub fn new(operation: Operation, place: Place, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            operation,
            side: None,
            place: Box::new(place),
            kind,
            status: None,
            code: None,
            message: message.into(),
            retry_after: None,
            login_refused: false,
            cause: None,
        }
    }

    /// The same error, said to be on `side`.
    #[must_use]
    pub fn on(mut self, side: Side) -> Self {
        self.side = Some(side);
        self
    }

    /// The same error with its cause.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// True where nothing but a stale login stood in the way of bytes that can be sent only once: it has been renewed, and
    /// the caller may go on at once from where the destination stands.
    pub fn login_was_renewed(&self) -> bool {
        self.kind == ErrorKind::Unauthorized && self.retry_after == Some(Duration::ZERO)
    }
}
