//! Who we are at a registry: challenges, tokens, Basic, credentials from the rules or from Docker's files.

mod challenge;
mod docker_config;
mod failure;
mod helper;
mod login;
mod realm;
mod realm_talk;
mod scopes;
mod token;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderValue};

pub(super) use self::challenge::{Challenges, basic_realm};
use self::docker_config::{DockerConfig, DockerEnvironment};
use self::failure::Failure;
pub(super) use self::login::{IDENTITY_USER, basic_header};
use self::login::{Login, Reading, Source};
use self::realm::{Realm, RealmHosts};
use self::realm_talk::{get_request, no_login, refresh_request, refusal, refused_login, server};
pub(super) use self::scopes::Scopes;
use self::token::{Granted, Token};
use super::transport::{TokenReply, TokenRequest, Transport};
use crate::clock::Clock;
use crate::registry::settings::RemoteSettings;
use crate::registry::{
    Account, Api, Credentials, Error, ErrorKind, Habits, Identity, Issued, LoginSource, Place, Result, Vendor,
};
use crate::telemetry::Secret;

/// Sets of scopes of which tokens are kept. A token is about a kilobyte or two, and a run may touch many repositories.
const MOST_SLOTS: usize = 512;

/// The login of one registry: its credential, what its challenges said, and a token for each set of scopes. Shared by all clones of an end.
#[derive(Debug)]
pub(super) struct Auth {
    name: String,
    realm_hosts: RealmHosts,
    login: Login,
    vendor: Arc<dyn Vendor>,
    clock: Clock,
    learnt: Mutex<Learnt>,
}

/// What challenges and token servers have told so far.
#[derive(Debug, Default)]
struct Learnt {
    scheme: Scheme,
    /// A refresh token that a token server gave out, and the reading of the credential that it stands for.
    refresh: Option<(u64, Secret)>,
    /// The token server has no POST: refresh tokens are of no use.
    no_post: bool,
    slots: BTreeMap<Scopes, Arc<Slot>>,
}

#[derive(Clone, Debug, Default)]
enum Scheme {
    /// Not asked yet, or open to all.
    #[default]
    Unknown,
    Basic,
    Bearer(Realm),
}

/// One set of scopes: whoever fetches its token holds the lock; if that caller is cancelled, the next one fetches.
#[derive(Debug, Default)]
struct Slot {
    known: Mutex<Known>,
    held: tokio::sync::Mutex<Held>,
    /// Fetches that came to an end, so that those who waited can tell whose failure they see.
    finished: AtomicU64,
}

/// What the registry said about requests with these scopes.
#[derive(Debug, Default)]
struct Known {
    /// Scopes that the challenge named.
    named: Scopes,
    /// It wants Basic here whatever it wants elsewhere (Harbor's catalogue).
    basic: bool,
}

#[derive(Debug, Default)]
struct Held {
    token: Option<(Scopes, Token)>,
    failure: Option<Failure>,
}

/// What asks token servers: the transport, or a test.
trait AskToken: Sync {
    fn ask(&self, request: TokenRequest) -> impl Future<Output = Result<TokenReply>> + Send;

    /// Asks a vendor for a credential of its own.
    fn issue(&self, vendor: &dyn Vendor) -> impl Future<Output = Result<Option<Issued>>> + Send;
}

struct ByTransport<'a> {
    transport: &'a Transport,
    account: &'a Arc<Account>,
}

impl AskToken for ByTransport<'_> {
    async fn ask(&self, request: TokenRequest) -> Result<TokenReply> {
        self.transport.token(request, self.account).await
    }

    async fn issue(&self, vendor: &dyn Vendor) -> Result<Option<Issued>> {
        let api = Api::of_login(self.transport, self.account);
        vendor.login(&api).await
    }
}

impl Auth {
    /// Knows nothing yet. `name` is the registry's name in the rules, for error texts.
    ///
    /// Who we are: as the rules say, else as the vendor knows by itself, else as Docker's files say, else nobody.
    pub(super) fn new(
        name: &str,
        settings: &RemoteSettings,
        habits: &Habits,
        vendor: Arc<dyn Vendor>,
        clock: Clock,
    ) -> Self {
        let source = match &settings.login {
            LoginSource::Given(credentials) => Source::Fixed(Some(credentials.clone())),
            LoginSource::Anonymous => Source::Fixed(None),
            LoginSource::DockerConfig => {
                let files = DockerConfig::new(
                    DockerEnvironment::of_process(),
                    &settings.url.host,
                    &settings.url.path,
                    habits.credential_key.as_deref(),
                );
                Source::Vendor(Arc::clone(&vendor), files)
            }
        };
        Self::with_source(name, settings, source, habits, vendor, clock)
    }

    fn with_source(
        name: &str,
        settings: &RemoteSettings,
        source: Source,
        habits: &Habits,
        vendor: Arc<dyn Vendor>,
        clock: Clock,
    ) -> Self {
        let scheme = match habits.login_first {
            true => Scheme::Basic,
            false => Scheme::Unknown,
        };
        Self {
            name: name.to_owned(),
            realm_hosts: RealmHosts::new(&settings.url, habits, &settings.token_hosts),
            login: Login::new(source, clock.clone()),
            vendor,
            clock,
            learnt: Mutex::new(Learnt {
                scheme,
                ..Learnt::default()
            }),
        }
    }

    /// The credential as it is (`None` for anonymous), and the number of its reading.
    pub(super) async fn credentials(
        &self,
        transport: &Transport,
        account: &Arc<Account>,
    ) -> Result<(Option<Credentials>, u64)> {
        let ask = ByTransport { transport, account };
        let reading = self.login.current(&ask).await;
        let reading = reading.map_err(|failure| self.error(&Scopes::none(), failure))?;
        Ok((reading.credentials, reading.generation))
    }

    /// What has taken the place of a credential that was `refused`, which was of the reading with this number. `None` where it is
    /// the same still, or there is none any more.
    pub(super) async fn replaced(
        &self,
        refused: &Credentials,
        generation: u64,
        transport: &Transport,
        account: &Arc<Account>,
    ) -> Result<Option<Credentials>> {
        let ask = ByTransport { transport, account };
        let reading = self.login.again(generation, &ask).await;
        let reading = reading.map_err(|failure| self.error(&Scopes::none(), failure))?;
        Ok(reading.credentials.filter(|found| found != refused))
    }

    /// Who we are, and whether the registry asked.
    pub(super) async fn identity(&self, transport: &Transport, account: &Arc<Account>) -> Result<Identity> {
        let ask = ByTransport { transport, account };
        let reading = self.login.current(&ask).await;
        let reading = reading.map_err(|failure| self.error(&Scopes::none(), failure))?;
        let left = reading.left(self.clock.elapsed());
        Ok(Identity {
            ends: left.map(|left| self.clock.now() + left),
            user: reading.credentials.map(|credentials| credentials.username),
            asked: !matches!(self.learnt().scheme, Scheme::Unknown),
        })
    }

    /// What a token that we ask for with `scopes` says that we may do in a repository. `None` where no tokens are given out, none
    /// for that, or none that says so.
    pub(super) async fn rights(
        &self,
        repository: &str,
        scopes: &Scopes,
        transport: &Transport,
        account: &Arc<Account>,
    ) -> Option<Vec<String>> {
        let realm = match &self.learnt().scheme {
            Scheme::Bearer(realm) => realm.clone(),
            Scheme::Basic | Scheme::Unknown => return None,
        };
        let slot = self.slot(scopes);
        let ask = ByTransport { transport, account };
        let header = self.token(&slot, scopes, &realm, None, &ask).await.ok()?;
        token::granted_actions(&header, repository)
    }

    /// The `Authorization` header to send with a request that needs `scopes`: a token that is good for a while yet (renewed at 80 % of its
    /// life; one fetch however many ask), Basic where the registry wants that, `None` where it has not been asked yet or is open to all.
    pub(super) async fn header(
        &self,
        scopes: &Scopes,
        transport: &Transport,
        account: &Arc<Account>,
    ) -> Result<Option<HeaderValue>> {
        self.header_by(scopes, &ByTransport { transport, account }).await
    }

    /// After a 401: learns from the answer's headers, drops the `rejected` token and gives a new header, or an error of kind
    /// `Unauthorized`/`Denied`/`Config` that says what to do. The caller asks once for each request.
    pub(super) async fn after_401(
        &self,
        scopes: &Scopes,
        headers: &HeaderMap,
        rejected: Option<&HeaderValue>,
        transport: &Transport,
        account: &Arc<Account>,
    ) -> Result<HeaderValue> {
        self.after_401_by(scopes, headers, rejected, &ByTransport { transport, account })
            .await
    }

    async fn header_by(&self, scopes: &Scopes, ask: &impl AskToken) -> Result<Option<HeaderValue>> {
        let scheme = self.learnt().scheme.clone();
        if matches!(scheme, Scheme::Unknown) {
            return Ok(None);
        }
        let slot = self.slot(scopes);
        let realm = match scheme {
            Scheme::Bearer(realm) if !lock(&slot.known).basic => realm,
            _ => {
                // Without a password the request goes out bare: what is open to all is still had, and a refusal leads
                // to `after_401`, which reads the credential again.
                let reading = self
                    .login
                    .current(ask)
                    .await
                    .map_err(|failure| self.error(scopes, failure))?;
                let header = reading.password().map(basic_header).transpose();
                return header.map_err(|failure| self.error(scopes, failure));
            }
        };
        self.token(&slot, scopes, &realm, None, ask).await.map(Some)
    }

    async fn after_401_by(
        &self,
        scopes: &Scopes,
        headers: &HeaderMap,
        rejected: Option<&HeaderValue>,
        ask: &impl AskToken,
    ) -> Result<HeaderValue> {
        let challenges = Challenges::read(headers);
        let slot = self.slot(scopes);
        if let Some(bearer) = challenges.bearer {
            let realm = self.realm_hosts.check(&bearer);
            let realm = realm.map_err(|failure| self.error(scopes, failure.into()))?;
            *lock(&slot.known) = Known {
                named: bearer.scopes,
                basic: false,
            };
            self.learnt().scheme = Scheme::Bearer(realm.clone());
            return self.token(&slot, scopes, &realm, rejected, ask).await;
        }
        let realm = match &self.learnt().scheme {
            Scheme::Bearer(realm) => Some(realm.clone()),
            Scheme::Basic | Scheme::Unknown => None,
        };
        if challenges.basic {
            let by_token = rejected.is_some_and(|header| header.as_bytes().starts_with(b"Bearer "));
            let basic = self.basic(rejected, ask).await;
            match (basic.map_err(|failure| self.error(scopes, failure))?, realm) {
                (Some(header), realm) => {
                    lock(&slot.known).basic = true;
                    if realm.is_none() {
                        self.learnt().scheme = Scheme::Basic;
                    }
                    return Ok(header);
                }
                // Harbor asks for Basic where a token has run out.
                (None, Some(realm)) if by_token => return self.token(&slot, scopes, &realm, rejected, ask).await,
                (None, _) => return Err(self.error(scopes, no_login())),
            }
        }
        if let Some(scheme) = challenges.unknown.first() {
            let message = format!(
                "the registry asks for a login by {scheme:?}, which transship does not have (it has Basic, and Bearer with a realm)"
            );
            return Err(self.error(scopes, Failure::new(ErrorKind::Unsupported, message)));
        }
        // Some registries challenge only at `/v2/`; what was learnt there counts everywhere.
        if let (Some(realm), None) = (realm, rejected) {
            return self.token(&slot, scopes, &realm, None, ask).await;
        }
        // Harbor's answer for a project that is not there.
        let message = "the registry answers 401 without saying how to log in: the project or repository may be missing, \
                       or the user lacks rights to it; create it or grant the rights at the registry";
        Err(self.error(scopes, Failure::new(ErrorKind::Denied, message)))
    }

    /// The Basic header to try after `rejected`; `None` for anonymous.
    async fn basic(&self, rejected: Option<&HeaderValue>, ask: &impl AskToken) -> Result<Option<HeaderValue>, Failure> {
        let mut reading = self.login.current(ask).await?;
        if reading.credentials.is_none() {
            // It may be there by now: a login was made, or the service that gives it out answers again.
            reading = self.login.again(reading.generation, ask).await?;
        }
        for _ in 0..2 {
            if reading.identity_token().is_some() {
                return Err(Failure::new(
                    ErrorKind::Unauthorized,
                    "the registry wants user and password (Basic), and the credential is an identity token; \
                     set `username` and `password` of this registry or log in again with docker login",
                ));
            }
            let Some(credentials) = reading.password() else {
                return Ok(None);
            };
            let header = basic_header(credentials)?;
            if rejected != Some(&header) {
                return Ok(Some(header));
            }
            let again = self.login.again(reading.generation, ask).await?;
            if again.same_as(&reading) {
                break;
            }
            reading = again;
        }
        Err(refused_login(&reading, "the registry"))
    }

    /// The token of a slot: the one held where it is good, else a new one.
    async fn token(
        &self,
        slot: &Slot,
        scopes: &Scopes,
        realm: &Realm,
        rejected: Option<&HeaderValue>,
        ask: &impl AskToken,
    ) -> Result<HeaderValue> {
        let seen = slot.finished.load(Ordering::Acquire);
        let wanted = scopes.union(&lock(&slot.known).named);
        let mut held = slot.held.lock().await;
        let now = self.clock.elapsed();
        let mut refused_generation = None;
        if let Some((asked, token)) = &held.token {
            if rejected == Some(&token.header) {
                refused_generation = Some(token.generation);
                held.token = None;
            } else if *asked == wanted && now < token.renew_at {
                return Ok(token.header.clone());
            }
        }
        // Those who waited for a fetch that failed share its failure instead of asking one after the other.
        if slot.finished.load(Ordering::Acquire) != seen
            && let Some(failure) = &held.failure
        {
            return Err(self.error(scopes, failure.clone()));
        }
        let fetched = self.fetch(scopes, &wanted, realm, refused_generation, ask).await;
        slot.finished.fetch_add(1, Ordering::AcqRel);
        held.failure = None;
        match fetched {
            Ok(token) => {
                let header = token.header.clone();
                held.token = Some((wanted, token));
                Ok(header)
            }
            Err(error) => {
                let now = self.clock.elapsed();
                if let Some((asked, token)) = &mut held.token
                    && error.kind.is_temporary()
                    && *asked == wanted
                    && now < token.ends_at
                {
                    // The old one still works; the token server gets a rest until half of what is left is over.
                    token.renew_at = now + (token.ends_at - now) / 2;
                    return Ok(token.header.clone());
                }
                held.failure = Some(Failure::of(&error));
                Err(error)
            }
        }
    }

    /// Gets a token, with a credential that is read again where it was refused and may have changed since.
    async fn fetch(
        &self,
        scopes: &Scopes,
        wanted: &Scopes,
        realm: &Realm,
        refused_generation: Option<u64>,
        ask: &impl AskToken,
    ) -> Result<Token> {
        let placed = |failure: Failure| self.error(scopes, failure);
        let reading = match refused_generation {
            Some(generation) => self.login.again(generation, ask).await,
            None => self.login.current(ask).await,
        };
        let reading = reading.map_err(placed)?;
        match self.ask(scopes, wanted, realm, &reading, ask).await {
            Err(error) if error.kind == ErrorKind::Unauthorized => {
                let again = self.login.again(reading.generation, ask).await.map_err(placed)?;
                if again.same_as(&reading) {
                    return Err(error);
                }
                self.ask(scopes, wanted, realm, &again, ask).await
            }
            result => result,
        }
    }

    /// Asks the token server: by POST with a refresh token where there is one, else (or where that is refused and
    /// there is a password) by GET.
    async fn ask(
        &self,
        scopes: &Scopes,
        wanted: &Scopes,
        realm: &Realm,
        reading: &Reading,
        ask: &impl AskToken,
    ) -> Result<Token> {
        let gained = {
            let learnt = self.learnt();
            let gained = learnt.refresh.as_ref();
            gained
                .filter(|(generation, _)| *generation == reading.generation && !learnt.no_post)
                .map(|(_, token)| token.clone())
        };
        // A token server may give a new refresh token for an identity token; the old one is tried if that is refused.
        let refresh_tokens = gained.into_iter().chain(reading.identity_token().cloned());
        let mut refused = None;
        for refresh in refresh_tokens {
            let reply = ask
                .ask(refresh_request(
                    realm,
                    wanted,
                    &refresh,
                    self.vendor.ways().repeat_scopes,
                ))
                .await?;
            match reply.status {
                200 => return self.granted(scopes, realm, reading, &reply),
                400 | 401 | 404 | 405 => {
                    let mut learnt = self.learnt();
                    learnt.refresh = None;
                    learnt.no_post |= matches!(reply.status, 404 | 405);
                    refused = Some((refresh, reply));
                }
                _ => return Err(self.error(scopes, refusal(realm, reading, Some(&refresh), &reply))),
            }
        }
        if reading.identity_token().is_some()
            && let Some((refresh, reply)) = refused
        {
            return Err(self.error(scopes, refusal(realm, reading, Some(&refresh), &reply)));
        }
        let reply = ask.ask(get_request(realm, wanted, reading)).await?;
        match reply.status {
            200 => self.granted(scopes, realm, reading, &reply),
            _ => Err(self.error(scopes, refusal(realm, reading, None, &reply))),
        }
    }

    fn granted(&self, scopes: &Scopes, realm: &Realm, reading: &Reading, reply: &TokenReply) -> Result<Token> {
        let Some(mut granted) = Granted::read(&reply.body, self.clock.now()) else {
            let message = format!("the token server {} answers without a token", server(realm));
            let failure = Failure::new(ErrorKind::Invalid, message).with_status(reply.status);
            return Err(self.error(scopes, failure));
        };
        if let Some(refresh) = granted.refresh.take() {
            self.learnt().refresh = Some((reading.generation, refresh));
        }
        Ok(granted.into_token(self.clock.elapsed(), reading.generation))
    }

    /// The slot of a set of scopes. Where there are too many, those that nobody uses now are forgotten: their tokens
    /// cost a request to get again.
    fn slot(&self, scopes: &Scopes) -> Arc<Slot> {
        let mut learnt = self.learnt();
        if let Some(slot) = learnt.slots.get(scopes) {
            return Arc::clone(slot);
        }
        if learnt.slots.len() >= MOST_SLOTS {
            learnt.slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(learnt.slots.entry(scopes.clone()).or_default())
    }

    fn learnt(&self) -> std::sync::MutexGuard<'_, Learnt> {
        lock(&self.learnt)
    }

    fn error(&self, scopes: &Scopes, failure: Failure) -> Error {
        failure.at(Place {
            registry: self.name.clone(),
            repository: scopes.repository().map(str::to_owned),
            reference: None,
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // No code panics while it holds one, and the values are whole between statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
