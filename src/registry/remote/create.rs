//! Making what a push needs to be there, on the way to the push.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Registry;
use crate::oci::RepositoryName;
use crate::registry::{Created, Error, ErrorKind, Operation, Result};

/// How long an outcome holds for all who need the same: what is not there after that was deleted meanwhile, and a right that
/// was missing may have been granted.
const OUTCOME_LIFE: Duration = Duration::from_secs(60);
/// Repositories that are remembered as missing, and containers whose outcome is. Above it they are forgotten: a push tells.
const MOST: usize = 10_000;

/// What was made, and what is known to be missing.
#[derive(Debug, Default)]
pub(super) struct Creation {
    missing: Mutex<HashSet<RepositoryName>>,
    containers: Mutex<HashMap<String, Arc<Container>>>,
}

/// One project or repository: who makes it holds the lock, the others wait and see.
#[derive(Debug, Default)]
struct Container {
    last: tokio::sync::Mutex<Option<Outcome>>,
    /// Outcomes so far, so that those who waited can tell whose they see: that of a failure for a while holds for them alone.
    finished: AtomicU64,
}

#[derive(Clone, Debug)]
struct Outcome {
    until: Duration,
    came_to: Result<Created, Failure>,
}

/// What can be told of an error to everybody who waited.
#[derive(Clone, Debug)]
struct Failure {
    kind: ErrorKind,
    message: String,
    status: Option<u16>,
    code: Option<String>,
    retry_after: Option<Duration>,
}

impl Creation {
    /// A listing says that it is not there.
    pub(super) fn is_missing(&self, repository: &RepositoryName) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if missing.len() >= MOST {
            missing.clear();
        }
        missing.insert(repository.clone());
    }

    fn was_missing(&self, repository: &RepositoryName) -> bool {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.contains(repository)
    }

    fn is_there(&self, repository: &RepositoryName) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.remove(repository);
    }

    fn container(&self, name: &str) -> Arc<Container> {
        let mut containers = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
        if containers.len() >= MOST {
            containers.retain(|_, container| Arc::strong_count(container) > 1);
        }
        Arc::clone(containers.entry(name.to_owned()).or_default())
    }
}

impl Registry {
    /// Before a write to `repository`: what a listing said is missing is made. Where that is not allowed the write is tried
    /// all the same: it may make what is missing by itself (a template, a namespace that does so), and what it needs may be
    /// there while the repository alone is new. If not, [`Registry::after_refusal`] tells both.
    ///
    /// # Errors
    /// It cannot be made, for another reason than a right.
    pub(super) async fn before_write(&self, repository: &RepositoryName) -> Result<()> {
        if self.shared.creation.was_missing(repository) && self.makes_repositories() {
            match Box::pin(self.create(repository)).await {
                Ok(_) => {}
                Err(error) if is_refused(&error) => {
                    tracing::debug!("{error}: the push is tried without it");
                }
                Err(error) => return Err(error),
            }
            self.shared.creation.is_there(repository);
        }
        Ok(())
    }

    /// After a write to `repository` that was refused: where the refusal says that the repository, or its project, is
    /// missing, it is made, and the write is to be tried once more. [`refused_again`] knows what its refusal means then.
    ///
    /// # Errors
    /// The refusal, as one that will pass where it is none of a registry; or what stood in the way of making what is missing.
    pub(super) async fn after_refusal(&self, repository: &RepositoryName, refusal: Error) -> Result<Created> {
        // A proxy before a registry that starts again knows of no repository either, and nothing is missing then.
        if is_bare(&refusal) && !self.is_present().await {
            return Err(self.is_away(refusal));
        }
        if !says_missing(&refusal) || !self.shared.settings.create.enabled {
            return Err(refusal);
        }
        // What it is may not be known yet.
        let recognised = self.shared.vendor.recognise(&self.api()).await;
        let is_looked_into = says_unknown(&refusal) && self.shared.vendor.ways().create_when_refused;
        if recognised.is_err() || !(self.makes_repositories() || is_looked_into) {
            return Err(refusal);
        }
        match Box::pin(self.create(repository)).await {
            // It may be there since our write alone: by another one, or by an attempt of ours whose answer was lost.
            Ok(created @ (Created::Made | Created::WasThere)) => Ok(created),
            Ok(Created::Nothing) => Err(refusal),
            Err(error) if refusal.kind == ErrorKind::NotFound && error.kind != ErrorKind::NotFound => Err(error),
            // Rights would not help.
            Err(error) if error.kind == ErrorKind::Quota => Err(error),
            Err(error) => {
                let why = format!("it could not be created either: {}", error.message);
                Err(remark(refusal, &why))
            }
        }
    }

    /// True where a push makes what it needs by the vendor's API.
    pub(super) fn makes_repositories(&self) -> bool {
        self.shared.settings.create.enabled && self.shared.vendor.ways().must_create
    }

    /// Makes what a push to `repository` needs, once however many ask.
    async fn create(&self, repository: &RepositoryName) -> Result<Created> {
        let vendor = &self.shared.vendor;
        let name = vendor.container(repository);
        let container = self.shared.creation.container(name);
        let clock = self.shared.transport.clock();
        let seen = container.finished.load(Ordering::Acquire);
        let mut last = container.last.lock().await;
        let waited = container.finished.load(Ordering::Acquire) != seen;
        if let Some(known) = last.as_ref().filter(|known| waited || clock.elapsed() < known.until) {
            return known
                .came_to
                .clone()
                .map_err(|failure| self.failed(repository, failure));
        }
        let made = vendor.create(&self.api(), repository).await;
        if matches!(made, Ok(Created::Made)) {
            tracing::info!(
                registry = self.name(),
                created = name,
                "a repository was made for a push"
            );
        }
        let life = match &made {
            Err(error) if error.kind.is_temporary() => Duration::ZERO,
            _ => OUTCOME_LIFE,
        };
        let came_to = match &made {
            Ok(created) => Ok(*created),
            Err(error) => Err(Failure {
                kind: error.kind,
                message: error.message.clone(),
                status: error.status,
                code: error.code.clone(),
                retry_after: error.retry_after,
            }),
        };
        *last = Some(Outcome {
            until: clock.elapsed() + life,
            came_to,
        });
        container.finished.fetch_add(1, Ordering::AcqRel);
        made
    }

    fn failed(&self, repository: &RepositoryName, failure: Failure) -> Error {
        let place = self.place(Some(repository), None);
        let mut error = Error::new(Operation::CreateRepository, place, failure.kind, failure.message);
        error.status = failure.status;
        error.code = failure.code;
        error.retry_after = failure.retry_after;
        error
    }
}

/// The refusal of a write that was tried again after what it needs was looked for.
pub(super) fn refused_again(created: Created, refusal: Error) -> Error {
    let is_right = matches!(refusal.kind, ErrorKind::Denied | ErrorKind::Unauthorized) && !refusal.login_was_renewed();
    match created {
        Created::WasThere if is_right => remark(refusal, "it is there: a right to push is missing"),
        _ => refusal,
    }
}

/// Registries say so by 404, or, to hide what is there, by 401 and 403.
fn says_missing(error: &Error) -> bool {
    let refused = matches!(
        error.kind,
        ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Unauthorized
    );
    refused && !error.login_was_renewed()
}

/// True for a 404 that no registry need have given: its own have a code.
fn is_bare(error: &Error) -> bool {
    error.status == Some(404) && error.code.is_none()
}

/// True where it is the repository that is not there, as far as that is said: 404 is the answer for a blob, too.
fn says_unknown(error: &Error) -> bool {
    let is_of_name = error.code.as_deref().is_none_or(|code| code == "NAME_UNKNOWN");
    error.kind == ErrorKind::NotFound && is_of_name
}

/// True where a right to make it is missing, or it cannot be made so.
fn is_refused(error: &Error) -> bool {
    matches!(
        error.kind,
        // There may be no such API, as in a Harbor before 2.0: the push is what tells then.
        ErrorKind::Denied | ErrorKind::Unauthorized | ErrorKind::Unsupported | ErrorKind::NotFound
    )
}

fn remark(mut error: Error, why: &str) -> Error {
    error.message = format!("{} ({why})", error.message);
    error
}
