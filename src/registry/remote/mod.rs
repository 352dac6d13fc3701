//! Registries by the distribution protocol.

mod api;
mod api_pages;
mod auth;
mod blobs;
mod body;
mod broken;
mod bulk;
mod call;
mod certificate;
mod certs_d;
mod clients;
mod create;
mod echo;
mod heed;
mod held;
mod import;
mod known;
mod links;
mod lists;
mod manifests;
mod mirrors;
mod pages;
mod ping;
mod presence;
mod ranges;
mod rates;
mod referrers;
mod refusal;
mod targets;
#[cfg(test)]
mod tests;
mod throttle;
mod transport;
mod uploads;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

pub use self::api::{Api, ApiAnswer, ApiCall, ApiLogin, Probe};
pub use self::api_pages::ApiPages;
pub use self::bulk::{ListingRefusal, ListingRight, with_names};
pub use self::certificate::Certificate;
pub use self::pages::{NumberedPage, numbered, numbered_and_seen_again, numbered_in_part};
pub use self::ping::{Greeting, Identity, Located, PushRight};
pub use self::throttle::Limiter;

use self::auth::Auth;
use self::call::{Answer, Call};
use self::certs_d::CertFolders;
use self::clients::Clients;
use self::throttle::Permit;
use self::transport::Transport;
use super::facts::Facts;
use super::settings::{Limits, LoginSource, RemoteSettings};
use super::{Account, Error, ErrorKind, Habits, Operation, Place, Result, Vendor};
use crate::clock::Clock;
use crate::oci::{Reference, RepositoryName};

/// Requests to a vendor's API under way at once.
const API_PLACES: usize = 8;

/// A registry by the distribution protocol. Cheap to clone; clones share connections, tokens, windows and pauses, and
/// charge the same account until [`Registry::charged_to`] gives another.
#[derive(Clone, Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    account: Arc<Account>,
    reading: Option<Arc<ReadingPlace>>,
    /// What is read from first, for a source.
    mirrors: Option<Arc<mirrors::Mirrors>>,
}

/// A place to read one blob after the other.
#[derive(Debug)]
struct ReadingPlace {
    permit: Permit,
    turn: Arc<Semaphore>,
}

/// The use of a [`ReadingPlace`] by one reader.
#[derive(Debug)]
struct Taken {
    _turn: OwnedSemaphorePermit,
    place: Arc<ReadingPlace>,
}

impl Taken {
    fn permit(&self) -> &Permit {
        &self.place.permit
    }
}

impl ReadingPlace {
    /// Waits for the reader before; `None` never comes, as the semaphore is not closed.
    async fn take(self: &Arc<Self>) -> Option<Taken> {
        Some(Taken {
            _turn: Arc::clone(&self.turn).acquire_owned().await.ok()?,
            place: Arc::clone(self),
        })
    }

    /// `None` while another reader is there.
    fn take_at_once(self: &Arc<Self>) -> Option<Taken> {
        Some(Taken {
            _turn: Arc::clone(&self.turn).try_acquire_owned().ok()?,
            place: Arc::clone(self),
        })
    }
}

#[derive(Debug)]
struct Shared {
    name: String,
    /// Before `/v2/`, without a slash at its end.
    root: String,
    /// Who we are, where the rules say it; for messages.
    user: Option<String>,
    transport: Transport,
    auth: Auth,
    habits: Habits,
    host: String,
    /// True once an answer had the marks of distribution's code.
    distribution: AtomicBool,
    /// True once that was told.
    told: AtomicBool,
    /// What is known of the API of referrers.
    referrers: referrers::Api,
    /// Whether it is a registry that answers.
    presence: presence::Presence,
    settings: Arc<RemoteSettings>,
    vendor: Arc<dyn Vendor>,
    /// What was made for pushes.
    creation: create::Creation,
    /// What was found out of it, beyond its kind.
    facts: Facts,
    /// Where the vendor's API refused to list.
    refusals: bulk::Refusals,
    /// Looks for many blobs at once.
    looks: held::Looks,
    /// Its mirrors; unset where it has none.
    mirrors: OnceLock<Arc<mirrors::Mirrors>>,
}

impl Registry {
    /// Waits for a place to read a blob: the same registry, holding one until it and its readers are dropped. The blobs that
    /// it opens one after the other need not wait again; one that is opened beside another waits until that is dropped.
    pub async fn with_reading_place(&self) -> Self {
        self.in_place(self.shared.transport.reading_place(&self.account).await)
    }

    /// As [`Registry::with_reading_place`], where a place is free that nobody waits for.
    pub fn with_free_reading_place(&self) -> Option<Self> {
        Some(self.in_place(self.shared.transport.reading_place_at_once()?))
    }

    fn in_place(&self, permit: Permit) -> Self {
        let place = ReadingPlace {
            permit,
            turn: Arc::new(Semaphore::new(1)),
        };
        Self {
            reading: Some(Arc::new(place)),
            ..self.clone()
        }
    }

    /// From now on what is read in our reading place is being written: it is held during a pause of the registry, too.
    pub fn keep_reading_place(&self) {
        if let Some(place) = &self.reading {
            place.permit.keep();
        }
    }

    /// Our reading place, when the reader before has gone; `None` where we have none.
    async fn turn(&self) -> Option<Taken> {
        self.reading.as_ref()?.take().await
    }

    /// Our reading place where nobody reads in it, or another one that is free and that nobody waits for. It is given back
    /// after one reader.
    fn turn_at_once(&self) -> Option<Taken> {
        if let Some(taken) = self.reading.as_ref().and_then(ReadingPlace::take_at_once) {
            return Some(taken);
        }
        let place = ReadingPlace {
            permit: self.shared.transport.reading_place_at_once()?,
            turn: Arc::new(Semaphore::new(1)),
        };
        Arc::new(place).take_at_once()
    }

    /// How many blobs are read at once as things are; further readers wait.
    pub fn blob_reads_at_once(&self) -> usize {
        self.shared.transport.blob_reads_at_once()
    }

    /// Answers so far to questions for lists, manifests and the like, whoever asked, but for those that tell of trouble and will be
    /// asked again.
    pub fn small_answers(&self) -> u64 {
        self.shared.transport.heed().small_answers()
    }

    /// True where it refuses a manifest whose blobs the repository lacks: by its kind, or as an upload that it opened in
    /// this process shows that distribution's code answers.
    pub fn refuses_missing_blobs(&self) -> bool {
        self.shared.habits.refuses_missing_blobs || self.shared.distribution.load(Ordering::Relaxed)
    }

    /// True the first time that [`Registry::refuses_missing_blobs`] holds by what was seen: what is worth keeping.
    pub fn newly_refuses_missing_blobs(&self) -> bool {
        let seen = self.shared.distribution.load(Ordering::Relaxed) && !self.shared.habits.refuses_missing_blobs;
        seen && !self.shared.told.swap(true, Ordering::Relaxed)
    }

    /// Until when it wants to be left alone, as its answers said; `None` when it does not. Requests wait for the end of
    /// a short pause, and fail as `Throttled` during one longer than five minutes.
    pub fn penalty(&self) -> Option<jiff::Timestamp> {
        self.shared.transport.heed().penalty()
    }

    /// Leaves it alone until then; a longer pause that it asked for stays.
    pub fn set_penalty(&self, until: jiff::Timestamp) {
        self.shared.transport.heed().set_penalty(until);
    }

    /// Its metered quota of manifest reads as it last said; `None` where it said nothing of one.
    pub fn quota(&self) -> Option<crate::plan::Quota> {
        self.shared.transport.heed().quota()
    }

    /// What an earlier process knew of its quota; a newer answer holds.
    pub fn set_quota(&self, quota: crate::plan::Quota) {
        self.shared.transport.heed().set_quota(quota);
    }

    /// The host (with its port) that is asked.
    pub fn host(&self) -> &str {
        &self.shared.host
    }

    /// Scheme, host, port and path before `/v2/`.
    pub fn address(&self) -> &str {
        &self.shared.root
    }

    /// What the rules call the account: see [`crate::registry::RemoteSettings::account_name`].
    pub fn account_name(&self) -> Option<String> {
        self.shared.settings.account_name()
    }

    /// Its vendor's own ways.
    pub fn vendor(&self) -> &dyn Vendor {
        &*self.shared.vendor
    }

    /// Takes over what was found out of its kind before, and how long that is still believed; without effect where it is known.
    pub fn assume_kind(&self, kind: crate::registry::Kind, left: std::time::Duration) {
        self.shared.vendor.assume(kind, left, &self.api());
    }

    /// Product and version, where it tells them.
    pub async fn version(&self) -> Result<Option<String>> {
        self.shared.vendor.version(&self.api()).await
    }

    /// What is known of its kind.
    pub fn habits(&self) -> &Habits {
        &self.shared.habits
    }

    /// Makes a registry ready; connects to nothing.
    ///
    /// # Errors
    /// `Config` or `Tls` where the address or a file of `tls` cannot be used.
    pub(super) fn open(
        name: &str,
        settings: &RemoteSettings,
        habits: Habits,
        vendor: Arc<dyn Vendor>,
        clock: Clock,
        limiter: &Limiter,
    ) -> Result<Self> {
        Self::open_with(
            name,
            settings,
            habits,
            vendor,
            clock,
            limiter,
            &CertFolders::of_process(),
        )
    }

    /// The same, with other folders of certificates.
    fn open_with(
        name: &str,
        settings: &RemoteSettings,
        habits: Habits,
        vendor: Arc<dyn Vendor>,
        clock: Clock,
        limiter: &Limiter,
        folders: &CertFolders,
    ) -> Result<Self> {
        let mut settings = settings.clone();
        // Who writes where docker.io is means the host that is asked for it.
        if let Some(host) = &habits.api_host
            && let Some(address) = settings.resolve.get(&settings.url.host).copied()
        {
            settings.resolve.entry(host.clone()).or_insert(address);
        }
        let settings = Arc::new(settings);
        let (url, tls) = (&settings.url, &settings.tls);
        let scheme = if url.plain_http { "http" } else { "https" };
        let host = habits.api_host.as_deref().unwrap_or(&url.host);
        let root = format!("{scheme}://{host}{}", url.path.trim_end_matches('/'));
        let base = Url::parse(&root).map_err(|error| {
            let place = Place {
                registry: name.to_owned(),
                ..Place::default()
            };
            Error::new(
                Operation::Ping,
                place,
                ErrorKind::Config,
                format!("{root} is no address"),
            )
            .caused_by(error)
        })?;
        if tls.insecure_skip_verify {
            tracing::warn!(
                registry = name,
                "certificates are not checked (tls.insecure_skip_verify)"
            );
        }
        let user = match &settings.login {
            LoginSource::Given(credentials) => Some(credentials.username.clone()),
            LoginSource::DockerConfig | LoginSource::Anonymous => None,
        };
        let host = host.to_owned();
        let clients = Clients::build(name, &settings, &base, folders)?;
        let throttle = limiter.throttle(name, &host, settings.limits);
        // Its pauses are none of the registry's.
        let api_limits = Limits {
            concurrency: Some(API_PLACES),
            requests_per_second: habits.api_per_second.map(f64::from),
            bandwidth: None,
        };
        let api_throttle = limiter.throttle(name, &format!("the API of {host}"), api_limits);
        let transport = Transport::new(
            name,
            base,
            Arc::clone(&settings),
            Arc::clone(&vendor),
            clients,
            [throttle, api_throttle],
            clock.clone(),
        );
        let auth = Auth::new(name, &settings, &habits, Arc::clone(&vendor), clock);
        Ok(Self {
            shared: Arc::new(Shared {
                name: name.to_owned(),
                root,
                user,
                transport,
                auth,
                habits,
                host,
                distribution: AtomicBool::new(false),
                told: AtomicBool::new(false),
                referrers: referrers::Api::default(),
                presence: presence::Presence::default(),
                settings,
                vendor,
                creation: create::Creation::default(),
                facts: Facts::default(),
                refusals: bulk::Refusals::default(),
                looks: held::Looks::default(),
                mirrors: OnceLock::new(),
            }),
            account: Arc::default(),
            reading: None,
            mirrors: None,
        })
    }

    /// The same registry whose requests are charged to `account`.
    #[must_use]
    pub fn charged_to(&self, account: Arc<Account>) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            account,
            reading: self.reading.clone(),
            mirrors: self.mirrors.clone(),
        }
    }

    /// The name in the rules, or the host for `copy`.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    async fn run(&self, call: Call) -> Result<Answer> {
        // On the heap, as every operation would else carry the whole loop's state in its own.
        Box::pin(self.shared.transport.run(&self.shared.auth, &self.account, call)).await
    }

    /// As [`Registry::run`], for who has a place already.
    async fn run_in_place(&self, taken: &Taken, call: Call) -> Result<Answer> {
        let Shared { transport, auth, .. } = &*self.shared;
        Box::pin(transport.run_in_place(auth, &self.account, Some(taken.permit()), call)).await
    }

    fn user(&self) -> Option<&str> {
        self.shared.user.as_deref()
    }

    fn place(&self, repository: Option<&RepositoryName>, reference: Option<&Reference>) -> Place {
        Place {
            registry: self.shared.name.clone(),
            repository: repository.map(ToString::to_string),
            reference: reference.map(ToString::to_string),
        }
    }

    /// `/v2/<rest>`.
    fn url(&self, rest: &str) -> Result<Url> {
        let text = format!("{}/v2/{rest}", self.shared.root);
        Url::parse(&text).map_err(|error| {
            let message = format!("{} is no address", self.shared.root);
            Error::new(Operation::Ping, self.place(None, None), ErrorKind::Config, message).caused_by(error)
        })
    }

    /// `/v2/<repository>/<rest>`.
    fn repository_url(&self, repository: &RepositoryName, rest: &str) -> Result<Url> {
        self.url(&format!("{}/{rest}", self.remote_name(repository)))
    }

    /// The name that the registry knows a repository by: Docker Hub keeps `alpine` as `library/alpine`.
    fn remote_name(&self, repository: &RepositoryName) -> String {
        match &self.shared.habits.default_namespace {
            Some(namespace) if !repository.as_str().contains('/') => format!("{namespace}/{repository}"),
            _ => repository.to_string(),
        }
    }
}
