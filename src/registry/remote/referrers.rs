//! Referrers of a manifest: by the API, else by the fallback tag (distribution-spec 1.1, "Listing Referrers").

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
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
use crate::registry::{
    ABSENT, ABSENT_LIFE, Error, ErrorKind, Fact, Kind, Operation, PRESENT, PRESENT_LIFE, ReferrerList, Result,
};

/// Referrers of one manifest: signatures, SBOMs and attestations of every build and scan are tens, and each is a copy to make.
const MAX_REFERRERS: usize = 1_000;
/// All pages of one list of referrers. Their annotations are kept, so the pages' own limit does not bound the memory.
const MAX_LIST_SIZE: usize = 32 * 1024 * 1024;

/// How long an API that never answered yet and let us wait in vain is not asked: each image would wait for minutes.
const SILENCE: Duration = Duration::from_secs(5 * 60);

/// How long a refusal is believed where the login is not of the rules: it may be another one at any time (`docker login`, a role).
const LOGIN_LIFE: Duration = Duration::from_secs(5 * 60);

/// What is known of the API, as far as only this process may know it.
#[derive(Debug, Default)]
pub(super) struct Api {
    /// It has answered.
    answered: AtomicBool,
    /// True once it was asked for; held while the first asks.
    asked: tokio::sync::Mutex<bool>,
    /// It is not asked before that.
    silent_until: Mutex<Option<Instant>>,
}

/// What is known of it for one repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing.
    Unknown,
    /// It has answered.
    Present,
    /// There is none.
    Absent,
    /// It is refused here to us.
    Refused,
}

impl Api {
    fn fell_silent(&self) {
        *self.silent_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + SILENCE);
    }
}

#[derive(Deserialize)]
struct Index {
    #[serde(deserialize_with = "Option::deserialize")]
    manifests: Option<Vec<Descriptor>>,
}

/// How much of a list is of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    All,
    /// Whether there is such a list.
    FirstPage,
}

/// What an answer to the first page means.
enum Found {
    List(Vec<Descriptor>),
    NoApi,
}

impl Registry {
    /// Referrers of a manifest by the API, else by the fallback tag. A registry that was seen to have no such API is
    /// not asked again for hours, by later processes either.
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

    /// Referrers by the API alone; `None` where the registry has none, which is asked once in some hours, or where it is refused to us
    /// ([`Registry::refuses_referrers`]).
    pub async fn referrers_by_api(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>> {
        match self.ask(repository, subject, Wanted::All).await? {
            Found::List(referrers) => Ok(Some(referrers)),
            Found::NoApi => Ok(None),
        }
    }

    /// Whether the registry lists the referrers of a manifest by itself; as [`Registry::referrers_by_api`], but for the length of
    /// the list, of which the first page is read alone.
    pub async fn has_referrers_api(&self, repository: &RepositoryName, subject: &Digest) -> Result<bool> {
        let found = self.ask(repository, subject, Wanted::FirstPage).await?;
        Ok(matches!(found, Found::List(_)))
    }

    async fn ask(&self, repository: &RepositoryName, subject: &Digest, wanted: Wanted) -> Result<Found> {
        match self.state(repository) {
            State::Absent | State::Refused => Ok(Found::NoApi),
            State::Unknown => self.ask_first(repository, subject, wanted).await,
            State::Present => self.ask_api(repository, subject, wanted).await,
        }
    }

    /// Whether the question for referrers was refused to us there, so that nobody can tell whether there is such an API.
    pub fn refuses_referrers(&self, repository: &RepositoryName) -> bool {
        self.state(repository) == State::Refused
    }

    /// That there is one is believed of an earlier process only as far as a refusal goes: else each answer says it anew.
    fn state(&self, repository: &RepositoryName) -> State {
        let known = |class| self.known(Fact::ReferrersApi, class);
        if self.shared.referrers.answered.load(Ordering::Relaxed) {
            return State::Present;
        }
        match known(None).as_deref() {
            Some(ABSENT) => State::Absent,
            Some(_) => State::Unknown,
            None if known(Some(repository.as_str())) == Some(self.refused_to_us()) => State::Refused,
            None => State::Unknown,
        }
    }

    /// A right is somebody's: what was refused to one account says nothing of another.
    fn refused_to_us(&self) -> String {
        match self.account_name() {
            Some(account) => format!("refused to {account}"),
            None => "refused".to_owned(),
        }
    }

    /// How long it is still left alone; `None` where it is asked.
    fn silent_for(&self, repository: &RepositoryName) -> Option<Duration> {
        let until = *self
            .shared
            .referrers
            .silent_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let left = until?.saturating_duration_since(Instant::now());
        (self.state(repository) == State::Unknown && !left.is_zero()).then_some(left)
    }

    /// One asks while the others wait for what it learns; where nothing was learnt all ask at once from then on.
    async fn ask_first(&self, repository: &RepositoryName, subject: &Digest, wanted: Wanted) -> Result<Found> {
        let mut asked = self.shared.referrers.asked.lock().await;
        if matches!(self.state(repository), State::Absent | State::Refused) {
            return Ok(Found::NoApi);
        }
        if !*asked {
            // A failure is an answer, too: those who wait must not ask one behind the other.
            let found = self.ask_api(repository, subject, wanted).await;
            // Once it is over that there is none, one asks for all again.
            *asked = self.state(repository) != State::Absent;
            return found;
        }
        drop(asked);
        self.ask_api(repository, subject, wanted).await
    }

    async fn ask_api(&self, repository: &RepositoryName, subject: &Digest, wanted: Wanted) -> Result<Found> {
        let api = &self.shared.referrers;
        if let Some(left) = self.silent_for(repository) {
            let place = self.place(Some(repository), Some(&Reference::Digest(subject.clone())));
            let message = format!(
                "the registry did not answer such a question in time; it is not asked again for {} s",
                left.as_secs()
            );
            return Err(Error::new(Operation::ListReferrers, place, ErrorKind::Network, message));
        }
        let found = self.read_referrers(repository, subject, wanted).await;
        if found.as_ref().is_err_and(Late::caused) {
            api.fell_silent();
        }
        found
    }

    async fn read_referrers(&self, repository: &RepositoryName, subject: &Digest, wanted: Wanted) -> Result<Found> {
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
                StatusCode::OK if html && first => {
                    let error = answer.broken_protocol("");
                    drop(answer);
                    return self.without_api(true, error).await;
                }
                StatusCode::OK => {}
                _ if first => return self.no_list(repository, answer).await,
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
                self.shared.referrers.answered.store(true, Ordering::Relaxed);
                let evidence = "it listed the referrers of a manifest";
                self.learn(Fact::ReferrersApi, None, PRESENT, evidence, PRESENT_LIFE);
            }
            referrers.extend(page.manifests.unwrap_or_default());
            if wanted == Wanted::FirstPage {
                break;
            }
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
    async fn no_list(&self, repository: &RepositoryName, answer: Answer) -> Result<Found> {
        let status = answer.status;
        let temporary = matches!(status.as_u16(), 408 | 425 | 429 | 499 | 522);
        if temporary || !(status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED) {
            return Err(answer.into_error(self.user()).await);
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return self.refused(repository, answer.into_error(self.user()).await);
        }
        let (operation, place) = (answer.operation, answer.place.clone());
        let refusal = answer.refusal().await;
        let subject_unknown = matches!(refusal.code.as_deref(), Some("MANIFEST_UNKNOWN" | "MANIFEST_INVALID"));
        let is_present = self.state(repository) == State::Present;
        let is_quay = self.vendor().kind() == Some(Kind::Quay);
        // Quay answers so to a subject that it does not have, instead of by an empty list. A registry says it in an envelope.
        if is_present && status == StatusCode::NOT_FOUND && refusal.enveloped
            || (is_present || is_quay) && subject_unknown && status == StatusCode::BAD_REQUEST
        {
            return Ok(Found::List(Vec::new()));
        }
        let for_all = refusal.is_unknown_route();
        let error = refusal.into_error(operation, place, self.user());
        self.without_api(for_all, error).await
    }

    /// Who may not read referrers where there are some is told so: what is attached may be there. Where the API never answered, it
    /// may as well be missing: there are registries, and walls before them, that forbid each path that they do not know. The manifest
    /// itself was read, so what is attached by tag can be, and a run that fails for ever helps nobody.
    fn refused(&self, repository: &RepositoryName, error: Error) -> Result<Found> {
        let is_there = self
            .known(Fact::ReferrersApi, None)
            .is_some_and(|value| value == PRESENT);
        if error.kind != ErrorKind::Denied || is_there || self.state(repository) == State::Present {
            return Err(error);
        }
        let (class, refused) = (Some(repository.as_str()), self.refused_to_us());
        let evidence = "the question for referrers was answered 403";
        let life = self.account_name().map_or(LOGIN_LIFE, |_| ABSENT_LIFE);
        self.learn(Fact::ReferrersApi, class, &refused, evidence, life);
        Ok(Found::NoApi)
    }

    /// There seems to be no API; `for_all`: not for other manifests either. Where it has answered before, that is an error: somebody
    /// else answers in the registry's place, or it is another registry.
    async fn without_api(&self, for_all: bool, error: Error) -> Result<Found> {
        let status = error.status.map(|status| status.to_string()).unwrap_or_default();
        if self.shared.referrers.answered.load(Ordering::Relaxed) {
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
        if !for_all {
            return Ok(Found::NoApi);
        }
        // It answered an earlier process: that is over only where a registry says so.
        if self.known(Fact::ReferrersApi, None).is_some() && !self.is_present().await {
            let message = format!(
                "the answer ({status}) is not in a registry's words, and there is none at /v2/ either: it may be starting"
            );
            return Err(Error {
                kind: ErrorKind::Server,
                message,
                ..error
            });
        }
        let evidence = match status.as_str() {
            "200" => "its question was answered with a web page".to_owned(),
            status => format!("its question was answered {status}"),
        };
        self.learn(Fact::ReferrersApi, None, ABSENT, &evidence, ABSENT_LIFE);
        Ok(Found::NoApi)
    }
}
