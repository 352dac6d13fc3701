//! Referrers of a manifest: by the API, else by the fallback tag (distribution-spec 1.1, "Listing Referrers").

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use tokio::time::Instant;

use super::Registry;
use super::auth::Scopes;
use super::call::{Answer, Call, Late};
use super::lists::{MAX_PAGE_SIZE, Pages};
use super::refusal::content_type;
use super::throttle::Class;
use crate::oci::{Descriptor, Digest, ManifestShape, Reference, RepositoryName, media_type};
use crate::registry::{Error, ErrorKind, Operation, ReferrerList, Result};

/// Referrers of one manifest: signatures, SBOMs and attestations of every build and scan are tens, and each is a copy to make.
const MAX_REFERRERS: usize = 1_000;
/// All pages of one list of referrers. Their annotations are kept, so the pages' own limit does not bound the memory.
const MAX_LIST_SIZE: usize = 32 * 1024 * 1024;

/// How long an API that never answered yet and let us wait in vain is not asked: each image would wait for minutes.
const SILENCE: Duration = Duration::from_secs(5 * 60);

/// How long a registry without the API is not asked again. Who said that there is none may have been a proxy while the registry
/// started.
const WITHOUT_LIFE: Duration = Duration::from_secs(6 * 3600);

/// What is known of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing.
    #[default]
    Unknown,
    /// It has answered.
    Present,
    /// There is none, which is believed until then.
    Absent(Instant),
}

/// What is known of the API, kept for all repositories of the registry.
#[derive(Debug, Default)]
pub(super) struct Api {
    state: Mutex<State>,
    /// True once it was asked for; held while the first asks.
    asked: tokio::sync::Mutex<bool>,
    /// It is not asked before that.
    silent_until: Mutex<Option<Instant>>,
}

impl Api {
    fn state(&self) -> State {
        let mut state = self.lock();
        if matches!(*state, State::Absent(until) if Instant::now() >= until) {
            *state = State::Unknown;
            // One asks for all again; whoever holds it asks already.
            if let Ok(mut asked) = self.asked.try_lock() {
                *asked = false;
            }
        }
        *state
    }

    fn is_present(&self) {
        *self.lock() = State::Present;
    }

    fn is_absent(&self) {
        *self.lock() = State::Absent(Instant::now() + WITHOUT_LIFE);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it is still left alone; `None` where it is asked.
    fn silent_for(&self) -> Option<Duration> {
        let until = *self.silent_until.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until?.saturating_duration_since(Instant::now());
        (self.state() == State::Unknown && !left.is_zero()).then_some(left)
    }

    fn fell_silent(&self) {
        *self.silent_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + SILENCE);
    }
}

#[derive(Deserialize)]
struct Index {
    #[serde(deserialize_with = "Option::deserialize")]
    manifests: Option<Vec<Descriptor>>,
}

/// What an answer to the first page means.
enum Found {
    List(Vec<Descriptor>),
    NoApi,
}

impl Registry {
    /// Referrers of a manifest by the API, else by the fallback tag. A registry that was seen to have no such API is
    /// not asked again for hours.
    pub async fn referrers(&self, repository: &RepositoryName, subject: &Digest) -> Result<ReferrerList> {
        if let Some(referrers) = self.referrers_by_api(repository, subject).await? {
            return Ok(ReferrerList { referrers, api: true });
        }
        let tag = Reference::Tag(subject.fallback_tag());
        let referrers = match self.get_manifest(repository, &tag).await? {
            Some(index) if index.shape() == ManifestShape::Index => index.entries().to_vec(),
            // Nobody's list of referrers, whatever it is.
            Some(_) | None => Vec::new(),
        };
        Ok(ReferrerList { referrers, api: false })
    }

    /// Referrers by the API alone; `None` where the registry has none, which is asked once in some hours.
    pub async fn referrers_by_api(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>> {
        let found = match self.shared.referrers.state() {
            State::Absent(_) => return Ok(None),
            State::Unknown => self.ask_first(repository, subject).await?,
            State::Present => self.ask_api(repository, subject).await?,
        };
        match found {
            Found::List(referrers) => Ok(Some(referrers)),
            Found::NoApi => Ok(None),
        }
    }

    /// One asks while the others wait for what it learns; where nothing was learnt all ask at once from then on.
    async fn ask_first(&self, repository: &RepositoryName, subject: &Digest) -> Result<Found> {
        let mut asked = self.shared.referrers.asked.lock().await;
        if !*asked {
            // A failure is an answer, too: those who wait must not ask one behind the other.
            let found = self.ask_api(repository, subject).await;
            *asked = true;
            return found;
        }
        drop(asked);
        if matches!(self.shared.referrers.state(), State::Absent(_)) {
            return Ok(Found::NoApi);
        }
        self.ask_api(repository, subject).await
    }

    async fn ask_api(&self, repository: &RepositoryName, subject: &Digest) -> Result<Found> {
        let api = &self.shared.referrers;
        if let Some(left) = api.silent_for() {
            let place = self.place(Some(repository), Some(&Reference::Digest(subject.clone())));
            let message = format!(
                "the registry did not answer such a question in time; it is not asked again for {} s",
                left.as_secs()
            );
            return Err(Error::new(Operation::ListReferrers, place, ErrorKind::Network, message));
        }
        let found = self.read_referrers(repository, subject).await;
        if found.as_ref().is_err_and(Late::caused) {
            api.fell_silent();
        }
        found
    }

    async fn read_referrers(&self, repository: &RepositoryName, subject: &Digest) -> Result<Found> {
        let operation = Operation::ListReferrers;
        let place = self.place(Some(repository), Some(&Reference::Digest(subject.clone())));
        let mut pages = Pages::new(operation, place.clone());
        let mut next = Some(self.repository_url(repository, &format!("referrers/{subject}"))?);
        let mut referrers = Vec::new();
        let mut read = 0;
        let mut first = true;
        while let Some(url) = next {
            let call = Call::new(operation, place.clone(), Method::GET, url, Scopes::pull(repository))
                .class(Class::List)
                .header(header::ACCEPT, HeaderValue::from_static(media_type::OCI_INDEX));
            let answer = self.run(call).await?;
            let html = content_type(&answer.headers).as_deref() == Some("text/html");
            match answer.status {
                // Some registries answer every path with their web page.
                StatusCode::OK if html && first => return self.without_api(true, || answer.broken_protocol("")),
                StatusCode::OK => {}
                _ if first => return self.no_list(answer).await,
                _ => return Err(answer.into_error(self.user()).await),
            }
            next = pages.next(&answer)?;
            let body = answer.collect(MAX_PAGE_SIZE).await?;
            read += body.len();
            if read > MAX_LIST_SIZE {
                let message = format!(
                    "the list of referrers of this manifest is longer than {} MiB",
                    MAX_LIST_SIZE >> 20
                );
                return Err(Error::new(operation, place, ErrorKind::Invalid, message));
            }
            let page: Index = serde_json::from_slice(&body).map_err(|error| {
                let message = "the answer is no index of referrers";
                Error::new(operation, place.clone(), ErrorKind::Invalid, message).caused_by(error)
            })?;
            if first {
                self.shared.referrers.is_present();
            }
            referrers.extend(page.manifests.unwrap_or_default());
            if referrers.len() > MAX_REFERRERS {
                let message = format!(
                    "the manifest has more than {MAX_REFERRERS} referrers, which are not read: delete old signatures and attestations there"
                );
                return Err(Error::new(operation, place, ErrorKind::Invalid, message));
            }
            first = false;
        }
        Ok(Found::List(referrers))
    }

    /// What another status than 200 to the first page means.
    async fn no_list(&self, answer: Answer) -> Result<Found> {
        let status = answer.status;
        let temporary = matches!(status.as_u16(), 408 | 425 | 429 | 499 | 522);
        if temporary || !(status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED) {
            return Err(answer.into_error(self.user()).await);
        }
        // Who may not read them is told so: what is attached may be there.
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(answer.into_error(self.user()).await);
        }
        let (operation, place) = (answer.operation, answer.place.clone());
        let refusal = answer.refusal().await;
        let subject_unknown = matches!(refusal.code.as_deref(), Some("MANIFEST_UNKNOWN" | "MANIFEST_INVALID"));
        let is_present = self.shared.referrers.state() == State::Present;
        // Quay answers so to a subject that it does not have, instead of by an empty list. A registry says it in an envelope.
        if is_present && matches!(status.as_u16(), 400 | 404) && refusal.enveloped
            || subject_unknown && status == StatusCode::BAD_REQUEST
        {
            return Ok(Found::List(Vec::new()));
        }
        let for_all = refusal.is_unknown_route();
        self.without_api(for_all, || refusal.into_error(operation, place, self.user()))
    }

    /// There seems to be no API; `for_all`: not for other manifests either. Where it has answered before, that is an `error`: somebody
    /// else answers in the registry's place, or it is another registry.
    fn without_api(&self, for_all: bool, error: impl FnOnce() -> Error) -> Result<Found> {
        let api = &self.shared.referrers;
        if api.state() == State::Present {
            let error = error();
            let status = error.status.map(|status| status.to_string()).unwrap_or_default();
            let message = format!(
                "the answer ({status}) is none of the registry that has told its referrers before: a proxy before it may have given it; \
                 where this is another registry by now, start transship again"
            );
            return Err(Error {
                kind: ErrorKind::Server,
                message,
                ..error
            });
        }
        if for_all {
            api.is_absent();
        }
        Ok(Found::NoApi)
    }
}
