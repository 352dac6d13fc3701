//! The credential of one registry, read when it is first needed and again when it was refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use jiff::Timestamp;

use super::AskToken;
use super::docker_config::DockerConfig;
use super::failure::Failure;
use crate::clock::Clock;
use crate::registry::{Credentials, ErrorKind, Vendor};

/// How long it is believed that there is no credential, by the vendor or in Docker's files: the service that gives them out may not
/// have answered, and somebody may log in.
const NOBODY_LIFE: Duration = Duration::from_secs(5 * 60);

/// The user that marks a password as an identity token in Docker's files and helpers.
pub(in crate::registry::remote) const IDENTITY_USER: &str = "<token>";

/// Where the credential comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// It does not change while the program runs.
    Fixed(Option<Credentials>),
    /// The vendor gives it out for a while; where it has none, others may change it at any time.
    Vendor(Arc<dyn Vendor>, DockerConfig),
}

/// A credential as it was found.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// `None`: anonymous.
    pub(super) credentials: Option<Credentials>,
    /// Grows with every reading.
    pub(super) generation: u64,
    /// When it ends, and when it is renewed before that, by the clock's monotonic time; `None` where it does not end.
    life: Option<Life>,
    /// When a credential is looked for again where there is none, by the same time.
    look_again_at: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    renew_at: Duration,
    ends_at: Duration,
}

impl Life {
    /// Four fifths of it are used.
    fn until(ends: Timestamp, clock: &Clock) -> Option<Self> {
        let left = Duration::try_from(ends.duration_since(clock.now())).ok()?;
        let now = clock.elapsed();
        (!left.is_zero()).then(|| Self {
            renew_at: now + left * 4 / 5,
            ends_at: now + left,
        })
    }
}

impl Reading {
    /// How long it is good for at the monotonic time `elapsed`, where it ends.
    pub(super) fn left(&self, elapsed: Duration) -> Option<Duration> {
        Some(self.life?.ends_at.saturating_sub(elapsed))
    }

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

    /// True where it is used at the monotonic time `elapsed` without a look for a newer one.
    fn is_young(&self, elapsed: Duration) -> bool {
        self.life.is_none_or(|life| elapsed < life.renew_at) && self.look_again_at.is_none_or(|at| elapsed < at)
    }

    /// Goes on with it for a while, where a look for a newer one came to nothing; false where it is over.
    fn keep(&mut self, elapsed: Duration) -> bool {
        if let Some(at) = &mut self.look_again_at {
            *at = elapsed + NOBODY_LIFE;
            return true;
        }
        match &mut self.life {
            Some(life) if elapsed < life.ends_at => {
                // Who gives them out gets a rest until half of what is left is over.
                life.renew_at = elapsed + (life.ends_at - elapsed) / 2;
                true
            }
            _ => false,
        }
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
    clock: Clock,
    last: tokio::sync::Mutex<Last>,
    /// Readings that failed, so that those who waited can tell whose failure they see.
    failed: AtomicU64,
}

#[derive(Debug, Default)]
struct Last {
    reading: Option<Reading>,
    failure: Option<Failure>,
}

impl Login {
    pub(super) fn new(source: Source, clock: Clock) -> Self {
        Self {
            source,
            clock,
            last: tokio::sync::Mutex::default(),
            failed: AtomicU64::new(0),
        }
    }

    /// The last reading, or the first; a new one where that is about to end.
    pub(super) async fn current(&self, ask: &impl AskToken) -> Result<Reading, Failure> {
        self.newer_than(None, ask).await
    }

    /// A reading made after that of `generation`: reads again unless somebody has done so meanwhile.
    pub(super) async fn again(&self, generation: u64, ask: &impl AskToken) -> Result<Reading, Failure> {
        self.newer_than(Some(generation), ask).await
    }

    async fn newer_than(&self, refused: Option<u64>, ask: &impl AskToken) -> Result<Reading, Failure> {
        let seen = self.failed.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        let now = self.clock.elapsed();
        if let Some(reading) = &last.reading {
            let accepted = refused.is_none_or(|refused| refused < reading.generation);
            if matches!(self.source, Source::Fixed(_)) || (accepted && reading.is_young(now)) {
                return Ok(reading.clone());
            }
        }
        if self.failed.load(Ordering::Acquire) != seen
            && let Some(failure) = &last.failure
        {
            return Err(failure.clone());
        }
        let read = self.read(ask).await;
        last.failure = None;
        let found_none = match &read {
            Ok((credentials, _)) => credentials.is_none(),
            Err(failure) => failure.kind.is_temporary(),
        };
        if found_none
            && let Some(reading) = &mut last.reading
            && refused.is_none_or(|refused| refused < reading.generation)
            && reading.keep(now)
        {
            return Ok(reading.clone());
        }
        match read {
            Ok((credentials, ends)) => {
                let generation = last.reading.as_ref().map_or(0, |reading| reading.generation + 1);
                let reading = Reading {
                    generation,
                    life: ends.and_then(|ends| Life::until(ends, &self.clock)),
                    look_again_at: credentials.is_none().then(|| now + NOBODY_LIFE),
                    credentials,
                };
                Ok(last.reading.insert(reading).clone())
            }
            Err(failure) => {
                self.failed.fetch_add(1, Ordering::AcqRel);
                last.failure = Some(failure.clone());
                Err(failure)
            }
        }
    }

    async fn read(&self, ask: &impl AskToken) -> Result<(Option<Credentials>, Option<Timestamp>), Failure> {
        match &self.source {
            Source::Fixed(credentials) => Ok((credentials.clone(), None)),
            Source::Vendor(vendor, then) => match ask.issue(&**vendor).await {
                Ok(Some(issued)) => Ok((Some(issued.credentials), issued.ends)),
                Ok(None) => Ok((then.read().await?, None)),
                Err(error) => Err(Failure::of_login(&error)),
            },
        }
    }
}

/// `Basic …` for a user and password (RFC 7617), marked sensitive.
pub(in crate::registry::remote) fn basic_header(credentials: &Credentials) -> Result<HeaderValue, Failure> {
    let text = format!("{}:{}", credentials.username, credentials.password.expose());
    let mut header = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(text)))
        .map_err(|_| Failure::new(ErrorKind::Config, "the credential is too long for a header"))?;
    header.set_sensitive(true);
    Ok(header)
}
