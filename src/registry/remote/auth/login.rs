//! The credential of one registry, read when it is first needed and again when it was refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use super::docker_config::DockerConfig;
use super::failure::Failure;
use crate::registry::{Credentials, ErrorKind};

/// The user that marks a password as an identity token in Docker's files and helpers.
pub(super) const IDENTITY_USER: &str = "<token>";

/// Where the credential comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// It does not change while the program runs.
    Fixed(Option<Credentials>),
    /// Others may change it at any time.
    Docker(DockerConfig),
}

/// A credential as it was found.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// `None`: anonymous.
    pub(super) credentials: Option<Credentials>,
    /// Grows with every reading.
    pub(super) generation: u64,
}

impl Reading {
    /// The identity token, where that is what the credential is.
    pub(super) fn identity_token(&self) -> Option<&crate::telemetry::Secret> {
        let credentials = self.credentials.as_ref()?;
        (credentials.username == IDENTITY_USER).then_some(&credentials.password)
    }

    /// User and password, where that is what the credential is.
    pub(super) fn password(&self) -> Option<&Credentials> {
        self.credentials
            .as_ref()
            .filter(|credentials| credentials.username != IDENTITY_USER)
    }

    /// True where both say the same.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        match (&self.credentials, &other.credentials) {
            (None, None) => true,
            (Some(one), Some(two)) => one.username == two.username && one.password == two.password,
            _ => false,
        }
    }
}

/// The credential and its source. Whoever asks while it is read waits for that reading.
#[derive(Debug)]
pub(super) struct Login {
    source: Source,
    last: tokio::sync::Mutex<Option<Reading>>,
}

impl Login {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            last: tokio::sync::Mutex::new(None),
        }
    }

    /// The last reading, or the first.
    pub(super) async fn current(&self) -> Result<Reading, Failure> {
        self.newer_than(None).await
    }

    /// A reading made after that of `generation`: reads again unless somebody has done so meanwhile.
    pub(super) async fn again(&self, generation: u64) -> Result<Reading, Failure> {
        self.newer_than(Some(generation)).await
    }

    async fn newer_than(&self, refused: Option<u64>) -> Result<Reading, Failure> {
        let mut last = self.last.lock().await;
        if let Some(reading) = &*last
            && (matches!(self.source, Source::Fixed(_)) || refused.is_none_or(|refused| refused < reading.generation))
        {
            return Ok(reading.clone());
        }
        let credentials = match &self.source {
            Source::Fixed(credentials) => credentials.clone(),
            Source::Docker(config) => config.read().await?,
        };
        let generation = last.as_ref().map_or(0, |reading| reading.generation + 1);
        Ok(last
            .insert(Reading {
                credentials,
                generation,
            })
            .clone())
    }
}

/// `Basic …` for a user and password (RFC 7617), marked sensitive.
pub(super) fn basic_header(credentials: &Credentials) -> Result<HeaderValue, Failure> {
    let text = format!("{}:{}", credentials.username, credentials.password.expose());
    let mut header = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(text)))
        .map_err(|_| Failure::new(ErrorKind::Config, "the credential is too long for a header"))?;
    header.set_sensitive(true);
    Ok(header)
}
