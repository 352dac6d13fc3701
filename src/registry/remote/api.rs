//! Requests to a vendor's own API, by the same loop, clients and limits as all others.

use std::fmt;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use serde::de::DeserializeOwned;
use std::sync::{Arc, Mutex, PoisonError};
use url::Url;

use super::Registry;
use super::auth::{Challenges, Scopes, basic_realm};
use super::call::{Answer, Call, Payload};
use super::echo::Sent;
use super::rates::rate_limit_headers;
use super::targets::{host_and_port, same_origin};
use super::throttle::{Class, PATIENCE};
use super::transport::Transport;
use crate::clock::Clock;
use crate::oci::{RepositoryName, Tag};
use crate::registry::settings::{Credentials, RegistryUrl, RemoteSettings};
use crate::registry::{Account, Error, ErrorKind, Listing, Operation, Place, Result};
use crate::telemetry::{RedactedUrl, Secret};

/// The largest answer of an API, in bytes: a thousand images with all that Harbor says of each.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// What is kept of a registry's answer to the question what it is.
const MAX_PROBE: usize = 1024;
/// Attempts of a call that is told to slow down, and the first and longest delay between them.
const ATTEMPTS: usize = 4;
const FIRST_DELAY: Duration = Duration::from_millis(200);
const MAX_DELAY: Duration = Duration::from_secs(5);

/// What a vendor asks its API by. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    transport: Transport,
    account: Arc<Account>,
    /// `None` while a login is looked for, which must not wait for itself.
    registry: Option<Registry>,
    /// See [`Api::leave_out`].
    left_out: Arc<Mutex<Vec<Error>>>,
}

/// One request to an API.
pub struct ApiCall {
    /// For errors. What looks for a login is [`Operation::Authenticate`]: it waits for no place.
    pub operation: Operation,
    /// For errors.
    pub place: Place,
    /// Method.
    pub method: Method,
    /// Where to: the registry's own origin, or a host that the rules or the vendor's table name. Never one that an answer
    /// named. Redirects to other hosts are refused.
    pub url: Url,
    /// Headers beside the login.
    pub headers: HeaderMap,
    /// Body; empty for none.
    pub body: Bytes,
    /// Who asks.
    pub login: ApiLogin,
    /// Whether an answer, by status and body, says that it is asked too often, beside 429 and 5xx, which are known: it is
    /// then asked again after a while.
    pub throttled: fn(u16, &[u8]) -> bool,
    /// The longest answer that is read, in bytes: 8 MiB unless the vendor knows better.
    pub longest: usize,
    /// Whether an answer, by status and body, tells of trouble on the API's side, beside 5xx, which are known: it is then asked
    /// again, too, and its last answer holds.
    pub troubled: fn(u16, &[u8]) -> bool,
    /// What was told before in calls of the same matter, and its words must not repeat.
    pub secrets: Vec<Secret>,
}

/// Who asks an API.
#[derive(Clone, Debug)]
pub enum ApiLogin {
    /// Nobody, or whom the call's own headers say (a signature).
    Nobody,
    /// By this token.
    Bearer(Secret),
    /// By user and password of the registry's login, sent at once. At the registry's own origin or at `endpoint:` only.
    Basic,
    /// As with `/v2/`: by a token for these scopes, or whatever the registry's challenge asks for. At its own origin only.
    Own(Vec<String>),
}

/// An answer of an API, whatever its status.
pub struct ApiAnswer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body, [`ApiCall::longest`] at most.
    pub body: Bytes,
    /// What answered.
    pub url: Url,
    operation: Operation,
    place: Place,
    retry_after: Option<Duration>,
    /// What was sent and nobody may read: the body may repeat it.
    sent: Sent,
}

/// What a registry says of itself to who has not logged in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// HTTP status.
    pub status: u16,
    /// Realm of its Bearer challenge.
    pub realm: Option<String>,
    /// Service of its Bearer challenge.
    pub service: Option<String>,
    /// Realm of its Basic challenge.
    pub basic_realm: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
    /// The first KiB of the body; empty where only an answer to another question was seen.
    pub body: String,
}

impl fmt::Debug for ApiCall {
    /// Without headers and body, which may hold keys and signatures.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiCall")
            .field("operation", &self.operation)
            .field("method", &self.method)
            .field("url", &RedactedUrl(&self.url).to_string())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ApiAnswer {
    /// Without headers and body, which may hold tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiAnswer")
            .field("status", &self.status)
            .field("url", &RedactedUrl(&self.url).to_string())
            .finish_non_exhaustive()
    }
}

impl ApiCall {
    /// A GET by nobody, which is never told to slow down in words of its own.
    pub fn get(operation: Operation, place: Place, url: Url) -> Self {
        Self {
            operation,
            place,
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            login: ApiLogin::Nobody,
            throttled: |_, _| false,
            longest: MAX_ANSWER,
            troubled: |_, _| false,
            secrets: Vec::new(),
        }
    }

    /// A POST of the same kind.
    pub fn post(operation: Operation, place: Place, url: Url, body: impl Into<Bytes>) -> Self {
        Self {
            method: Method::POST,
            body: body.into(),
            ..Self::get(operation, place, url)
        }
    }

    fn to_call(&self) -> Call {
        let scopes = match &self.login {
            ApiLogin::Own(scopes) => Scopes::of_texts(scopes),
            _ => Scopes::none(),
        };
        let (place, method, url) = (self.place.clone(), self.method.clone(), self.url.clone());
        // What makes a repository is asked where a write is about to begin, and waits as that does.
        let class = match self.operation {
            Operation::CreateRepository => Class::Begin,
            _ => Class::List,
        };
        let mut call = Call::new(self.operation, place, method, url, scopes).class(class);
        call.headers = self.headers.clone();
        call.api = true;
        if !self.body.is_empty() {
            call.payload = Payload::Bytes(self.body.clone());
        }
        call
    }
}

impl Api {
    /// For all but the login.
    pub(super) fn of(registry: &Registry) -> Self {
        Self {
            transport: registry.shared.transport.clone(),
            account: Arc::clone(&registry.account),
            registry: Some(registry.clone()),
            left_out: Arc::default(),
        }
    }

    /// For the login.
    pub(super) fn of_login(transport: &Transport, account: &Arc<Account>) -> Self {
        Self {
            transport: transport.clone(),
            account: Arc::clone(account),
            registry: None,
            left_out: Arc::default(),
        }
    }

    /// What the rules say of the registry.
    pub fn settings(&self) -> &RemoteSettings {
        self.transport.settings()
    }

    /// The time.
    pub fn clock(&self) -> &Clock {
        self.transport.clock()
    }

    /// The registry, or a repository of it, for errors.
    pub fn place(&self, repository: Option<&RepositoryName>) -> Place {
        Place {
            registry: self.transport.name().to_owned(),
            repository: repository.map(ToString::to_string),
            reference: None,
        }
    }

    /// An address at the registry's own origin, below the path before `/v2/`; `path` begins with a slash and is taken as it is
    /// written, with its query.
    ///
    /// # Errors
    /// `Config` where that is no address.
    pub fn own(&self, path: &str) -> Result<Url> {
        let base = self.transport.base().as_str().trim_end_matches('/');
        self.address(&format!("{base}{path}"))
    }

    /// An address of the vendor's API: at `endpoint:` where the rules have one, else at `https://<host>`. As [`Api::own`].
    ///
    /// # Errors
    /// `Config` where that is no address.
    pub fn at(&self, host: &str, path: &str) -> Result<Url> {
        let text = match &self.settings().endpoint {
            Some(RegistryUrl {
                plain_http,
                host,
                path: before,
            }) => {
                let scheme = if *plain_http { "http" } else { "https" };
                format!("{scheme}://{host}{}{path}", before.trim_end_matches('/'))
            }
            None => format!("https://{host}{path}"),
        };
        self.address(&text)
    }

    fn address(&self, text: &str) -> Result<Url> {
        Url::parse(text).map_err(|error| {
            let message = "the address of its API cannot be made of these settings; check `endpoint`";
            Error::new(Operation::Ping, self.place(None), ErrorKind::Config, message).caused_by(error)
        })
    }

    /// User and password (or identity token) of the registry's login; `None` for anonymous.
    ///
    /// # Errors
    /// The login could not be read, or is being looked for just now.
    pub async fn credentials(&self) -> Result<Option<Credentials>> {
        let auth = &self.registry()?.shared.auth;
        Ok(auth.credentials(&self.transport, &self.account).await?.0)
    }

    /// All tags by the distribution protocol; `None` where the repository is not there.
    ///
    /// # Errors
    /// As with any listing.
    pub async fn list_tags(&self, repository: &RepositoryName) -> Result<Listing<Tag>> {
        self.registry()?.list_tags(repository).await
    }

    /// All repositories by the distribution protocol; `None` where there is no catalogue.
    ///
    /// # Errors
    /// As with any listing.
    pub async fn list_catalogue(&self) -> Result<Listing<RepositoryName>> {
        self.registry()?.list_catalogue().await
    }

    /// Says that something is signed with the time, for who takes signatures of a clock that is off by `within` at most.
    pub fn signs(&self, within: Duration) {
        self.transport.signs(within);
    }

    /// Says that a part of a list is not known, for this reason, while the rest of it is.
    pub fn leave_out(&self, why: Error) {
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner).push(why);
    }

    /// Why parts of what was listed are not known.
    pub(super) fn take_left_out(&self) -> Vec<Error> {
        std::mem::take(&mut *self.left_out.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn registry(&self) -> Result<&Registry> {
        self.registry.as_ref().ok_or_else(|| {
            let message = "what looks for the login asks for something that needs it";
            Error::new(Operation::Authenticate, self.place(None), ErrorKind::Config, message)
        })
    }

    /// Sends a request and gives the answer, whatever its status, once no further attempt would help: network failures, 429,
    /// 5xx and what [`ApiCall::throttled`] knows are tried again here.
    ///
    /// # Errors
    /// The connection or the login failed, or it was told to slow down too often.
    pub async fn call(&self, call: ApiCall) -> Result<ApiAnswer> {
        let answer = self.until_it_answers(&call).await;
        answer.map_err(|mut error| {
            // What an API at another host wants to be spared the registry may still tell by itself.
            let elsewhere = call.operation == Operation::ListTags && !same_origin(&call.url, self.transport.base());
            if elsewhere && error.kind == ErrorKind::Throttled {
                error.kind = ErrorKind::Server;
            }
            error
        })
    }

    /// As [`Api::call`], for what `make` makes of the registry's login. Where that is refused (401) and another one has taken its
    /// place meanwhile, by docker login or a credential helper, it is made of that, once.
    ///
    /// # Errors
    /// As [`Api::call`] and [`Api::credentials`].
    pub async fn call_as(&self, make: impl Fn(Option<&Credentials>) -> ApiCall) -> Result<ApiAnswer> {
        self.by_login(|credentials| self.call(make(credentials.as_ref()))).await
    }

    async fn by_login<F>(&self, send: impl Fn(Option<Credentials>) -> F) -> Result<ApiAnswer>
    where
        F: Future<Output = Result<ApiAnswer>>,
    {
        let auth = &self.registry()?.shared.auth;
        let (credentials, generation) = auth.credentials(&self.transport, &self.account).await?;
        let answer = send(credentials.clone()).await?;
        let Some(refused) = credentials.filter(|_| answer.status == 401) else {
            return Ok(answer);
        };
        let replaced = auth.replaced(&refused, generation, &self.transport, &self.account);
        match replaced.await? {
            Some(other) => send(Some(other)).await,
            None => Ok(answer),
        }
    }

    async fn until_it_answers(&self, call: &ApiCall) -> Result<ApiAnswer> {
        let mut delays = ExponentialBuilder::new()
            .with_min_delay(FIRST_DELAY)
            .with_max_delay(MAX_DELAY)
            .with_max_times(ATTEMPTS - 1)
            .with_jitter()
            .build();
        loop {
            let answer = self.once(call).await?;
            // One that says so by its status was asked as often as helps already.
            let by_status = answer.status == 429;
            let throttled = by_status || (call.throttled)(answer.status, &answer.body);
            if !throttled && !(call.troubled)(answer.status, &answer.body) {
                return Ok(answer);
            }
            let wanted = answer.retry_after.unwrap_or_default();
            match delays.next() {
                Some(delay) if !by_status && wanted <= PATIENCE => tokio::time::sleep(delay.max(wanted)).await,
                _ if !throttled => return Ok(answer),
                _ => {
                    let host = host_and_port(&answer.url);
                    return Err(answer.error(ErrorKind::Throttled, format!("the API at {host} is asked too often")));
                }
            }
        }
    }

    async fn once(&self, call: &ApiCall) -> Result<ApiAnswer> {
        let own = same_origin(&call.url, self.transport.base());
        let ours = own || self.is_endpoint(&call.url);
        let to_send = call.to_call();
        let login = match &call.login {
            ApiLogin::Own(_) if own => {
                let answer = self.registry()?.run(to_send).await?;
                return ApiAnswer::read(answer, call).await;
            }
            ApiLogin::Basic if ours => {
                let send = |credentials: Option<Credentials>| async move {
                    // An identity token is for the token server alone.
                    let credentials = credentials.filter(|found| found.username != super::auth::IDENTITY_USER);
                    let header = credentials.as_ref().map(super::auth::basic_header).transpose();
                    let header = header.map_err(|failure| failure.at(call.place.clone()))?;
                    let sent = self.transport.api(&self.account, call.to_call(), header.as_ref());
                    ApiAnswer::read(sent.await?, call).await
                };
                return Box::pin(self.by_login(send)).await;
            }
            ApiLogin::Own(_) | ApiLogin::Basic => {
                let host = host_and_port(&call.url);
                let message = format!("the registry's login is not for {host}");
                return Err(to_send.error(ErrorKind::Config, message));
            }
            ApiLogin::Bearer(token) => {
                let header = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
                let mut header = header.map_err(|_| to_send.error(ErrorKind::Invalid, "the token cannot be sent"))?;
                header.set_sensitive(true);
                Some(header)
            }
            ApiLogin::Nobody => None,
        };
        let answer = self.transport.api(&self.account, to_send, login.as_ref()).await?;
        ApiAnswer::read(answer, call).await
    }

    fn is_endpoint(&self, url: &Url) -> bool {
        let endpoint = self.settings().endpoint.as_ref();
        endpoint.is_some_and(|endpoint| {
            endpoint.host == host_and_port(url) && endpoint.plain_http == (url.scheme() == "http")
        })
    }

    /// Asks a service of the machine that we run on (169.254.169.254 and the like) for what it knows of us: by no proxy,
    /// once, for two seconds at most.
    ///
    /// # Errors
    /// It is not there, or does not answer.
    pub async fn metadata(&self, method: Method, url: Url, headers: HeaderMap, body: Bytes) -> Result<ApiAnswer> {
        let call = ApiCall {
            method,
            headers,
            body,
            ..ApiCall::get(Operation::Authenticate, self.place(None), url)
        };
        let answer = self.transport.metadata(&self.account, call.to_call()).await?;
        ApiAnswer::read(answer, &call).await
    }

    /// What the registry showed of itself so far in its answers, without a question of its own.
    pub fn seen(&self) -> Option<Probe> {
        self.transport.seen()
    }

    /// Asks for `/v2/` without a login: what the registry says of itself.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn probe(&self) -> Result<Probe> {
        let call = ApiCall::get(Operation::Ping, self.place(None), self.own("/v2/")?);
        let answer = self.call(call).await?;
        let mut probe = Probe::of(answer.status, &answer.headers);
        let body = &answer.body[..answer.body.len().min(MAX_PROBE)];
        probe.body = String::from_utf8_lossy(body).into_owned();
        Ok(probe)
    }
}

impl Probe {
    /// What an answer's head shows.
    pub(super) fn of(status: u16, headers: &HeaderMap) -> Self {
        let challenges = Challenges::read(headers);
        let (realm, service) = match challenges.bearer {
            Some(bearer) => (Some(bearer.realm), bearer.service),
            None => (None, None),
        };
        Self {
            status,
            realm,
            service,
            basic_realm: basic_realm(headers),
            headers: headers.clone(),
            body: String::new(),
        }
    }
}

impl ApiAnswer {
    async fn read(answer: Answer, call: &ApiCall) -> Result<Self> {
        let (status, headers, url) = (answer.status.as_u16(), answer.headers.clone(), answer.url.clone());
        let (operation, place) = (answer.operation, answer.place.clone());
        let retry_after = rate_limit_headers(&headers, answer.now).pause(true);
        let mut sent = Sent::by_header(answer.login.as_ref());
        sent.add_settings(&answer.settings);
        sent.add_headers(&call.headers);
        sent.add_body(&call.body);
        for secret in &call.secrets {
            sent.add(secret.expose());
        }
        let body = answer.collect(call.longest).await?;
        Ok(Self {
            status,
            headers,
            body,
            url,
            operation,
            place,
            retry_after,
            sent,
        })
    }

    /// What was asked, and where, for errors.
    pub(super) fn at(&self) -> (Operation, Place) {
        (self.operation, self.place.clone())
    }

    /// How long it wants to be left alone, or what was asked for still takes.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// What its head shows of the registry, where that is what answered.
    pub fn shows(&self) -> Probe {
        Probe::of(self.status, &self.headers)
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// `Invalid` where it is none, or another than is documented. Nothing of the body is said, which may hold a secret.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|_| {
            let host = host_and_port(&self.url);
            let message = format!("the answer of the API at {host} is not what its documents say");
            self.error(ErrorKind::Invalid, message)
        })
    }

    /// The error that this answer is.
    pub fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        let mut error = Error::new(self.operation, self.place.clone(), kind, message);
        error.status = Some(self.status);
        error.retry_after = self.retry_after;
        error
    }

    /// Something of the answer, fit to be told: cut, and `None` where the answer repeats a secret.
    pub fn told(&self, said: Option<String>) -> Option<String> {
        let told = super::refusal::quote(&said.filter(|said| !said.is_empty() && !self.sent.is_in(&self.body))?);
        (!told.is_empty()).then_some(told)
    }

    /// The error that this answer is by its status alone, for what the vendor has no words of its own: `Unauthorized` for
    /// 401, `Denied` for 403, `NotFound` for 404, `Unsupported` for 405 and 501, `Throttled` for 429, `Server` for 5xx and
    /// `Invalid` for the rest. `said` is what the answer says in words; it is left out where the answer repeats a secret that
    /// was sent.
    pub fn refused(&self, said: &str) -> Error {
        let kind = match self.status {
            401 => ErrorKind::Unauthorized,
            403 => ErrorKind::Denied,
            404 => ErrorKind::NotFound,
            405 | 501 => ErrorKind::Unsupported,
            429 => ErrorKind::Throttled,
            500..=599 => ErrorKind::Server,
            _ => ErrorKind::Invalid,
        };
        let host = host_and_port(&self.url);
        let said = self.told(Some(said.to_owned())).unwrap_or_default();
        let said = if said.is_empty() { said } else { format!(": {said}") };
        self.error(kind, format!("the API at {host} answered {}{said}", self.status))
    }
}
