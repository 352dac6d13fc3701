//! The one request loop: every request of a registry, its logins and its redirects goes through here.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::time::Instant;
use url::Url;

use super::api::Probe;
use super::auth::Auth;
use super::body::{Outgoing, STALL_BYTES, STALL_LIMIT, Watch};
use super::broken::broken;
use super::call::{Answer, Call, Late, Payload, Turn};
use super::clients::Clients;
use super::heed::Heed;
use super::rates::rate_limit_headers;
use super::refusal::temporary;
use super::targets::{MAX_REDIRECTS, host_and_port, resolve, same_origin};
use super::throttle::{Class, Direction, Flow, PATIENCE, Permit, Throttle};
use crate::clock::Clock;
use crate::registry::settings::RemoteSettings;
use crate::registry::{Account, Answers, ErrorKind, Operation, ProxySettings, Result, Vendor};
use crate::telemetry::Secret;

mod target;
mod token;

pub(super) use token::{TokenReply, TokenRequest};

/// Attempts of one request within the loop: enough for a restarting replica behind a load balancer; what lasts longer is
/// for the job's own retries.
const MAX_ATTEMPTS: usize = 4;
/// First delay before another attempt; doubles, with jitter.
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// Longest delay of our own choosing between two attempts.
const MAX_DELAY: Duration = Duration::from_secs(5);
/// For an answer's headers where no blob is sent. Harbor and Artifactory take tens of seconds for large indexes and lists.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// For an answer of a service of the machine that we run on, which is near or not there at all.
const METADATA_LIMIT: Duration = Duration::from_secs(2);

/// Sends requests of one registry.
#[derive(Clone, Debug)]
pub(super) struct Transport(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    /// Scheme, host and port that credentials are for.
    base: Url,
    clients: Clients,
    throttle: Arc<Throttle>,
    /// For the vendor's API at another host.
    api_throttle: Arc<Throttle>,
    settings: Arc<RemoteSettings>,
    /// `headers:` of the rules, marked sensitive.
    own_headers: HeaderMap,
    vendor: Arc<dyn Vendor>,
    /// What the registry showed of itself.
    seen: Mutex<Option<Probe>>,
    /// Whether the registry has a public address; found out when first needed.
    public: OnceLock<bool>,
    heed: Heed,
    /// By how much our clock may be off for who checks our signatures; `None` while nothing was signed.
    signatures: Mutex<Option<Duration>>,
    clock: Clock,
}

impl Transport {
    /// Sends for the registry at `base`.
    pub(super) fn new(
        name: &str,
        base: Url,
        settings: Arc<RemoteSettings>,
        vendor: Arc<dyn Vendor>,
        clients: Clients,
        [throttle, api_throttle]: [Arc<Throttle>; 2],
        clock: Clock,
    ) -> Self {
        Self(Arc::new(Inner {
            name: name.to_owned(),
            base,
            clients,
            heed: Heed::new(Arc::clone(&throttle), clock.clone()),
            throttle,
            api_throttle,
            own_headers: sensitive(&settings.headers),
            settings,
            vendor,
            seen: Mutex::default(),
            public: OnceLock::new(),
            signatures: Mutex::default(),
            clock,
        }))
    }

    /// Takes note that something was signed for who takes signatures of a clock that is off by `within` at most.
    pub(super) fn signs(&self, within: Duration) {
        let mut signatures = self.0.signatures.lock().unwrap_or_else(PoisonError::into_inner);
        *signatures = Some(signatures.map_or(within, |least| least.min(within)));
    }

    /// By how much our clock may be off for who checks our signatures; `None` where nothing was signed so far.
    pub(super) fn signatures(&self) -> Option<Duration> {
        *self.0.signatures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name in the rules.
    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    /// Scheme, host, port and path before `/v2/`.
    pub(super) fn base(&self) -> &Url {
        &self.0.base
    }

    /// What the rules say.
    pub(super) fn settings(&self) -> &RemoteSettings {
        &self.0.settings
    }

    /// The time.
    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// What the registry showed of itself so far.
    pub(super) fn seen(&self) -> Option<Probe> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note of an answer of the registry: its first, and the first that asks for a login.
    fn see(&self, status: StatusCode, headers: &HeaderMap) {
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let news = match &*seen {
            None => true,
            Some(seen) => seen.status != 401 && status == StatusCode::UNAUTHORIZED,
        };
        if news {
            *seen = Some(Probe::of(status.as_u16(), headers));
        }
    }

    /// Sends a request to a vendor's API, with this login. What looks for a login needs no place: those who have one may wait
    /// for it.
    ///
    /// # Errors
    /// As [`Transport::run_in_place`].
    pub(super) async fn api(&self, account: &Account, mut call: Call, login: Option<&HeaderValue>) -> Result<Answer> {
        if call.operation == Operation::Authenticate {
            return self.exchange(account, None, &mut call, login).await;
        }
        let throttle = match same_origin(&call.url, &self.0.base) {
            true => &self.0.throttle,
            false => &self.0.api_throttle,
        };
        let permit = Answers::in_turn(throttle.place(call.class, account.priority())).await;
        let mut answer = self.exchange(account, Some(&permit), &mut call, login).await?;
        answer.permit = Some(permit);
        Ok(answer)
    }

    /// Asks a service of the machine that we run on, once.
    ///
    /// # Errors
    /// `Network` where it is not there.
    pub(super) async fn metadata(&self, account: &Account, call: Call) -> Result<Answer> {
        let host = host_and_port(&call.url);
        account.charge(&host, &call.method);
        let mut request = reqwest::Request::new(call.method.clone(), call.url.clone());
        request.headers_mut().extend(call.headers.clone());
        if let Payload::Bytes(bytes) = &call.payload
            && !bytes.is_empty()
        {
            *request.body_mut() = Some(bytes.clone().into());
        }
        let sent = self.0.clients.metadata()?.execute(request);
        let response = tokio::time::timeout(METADATA_LIMIT, sent)
            .await
            .map_err(|_| call.error(ErrorKind::Network, format!("{host} {Late}")).caused_by(Late))?
            .map_err(|error| broken(call.operation, call.place.clone(), &host, true, error))?;
        Ok(self.answer(&call, call.url.clone(), response, None))
    }

    fn answer(&self, call: &Call, url: Url, response: reqwest::Response, login: Option<&HeaderValue>) -> Answer {
        Answer {
            status: response.status(),
            headers: response.headers().clone(),
            elsewhere: !same_origin(&url, &call.url),
            url,
            response,
            login: login.cloned(),
            permit: None,
            operation: call.operation,
            place: call.place.clone(),
            now: self.0.clock.now(),
            phrases: self.0.vendor.ways().phrases,
            settings: Arc::clone(&self.0.settings),
        }
    }

    /// Waits for a place at the registry, and for none of the process yet.
    pub(super) async fn place(&self, class: Class, account: &Account) -> Permit {
        self.0.throttle.place(class, account.priority()).await
    }

    /// A place at the registry that is free, without one of the process; `None` during a pause, too.
    pub(super) fn place_at_once(&self, class: Class) -> Option<Permit> {
        self.0.throttle.try_place(class)
    }

    /// Takes a turn at the registry where none has to be waited for there ([`Throttle::turn_at_once`]).
    pub(super) async fn turn_at_once(&self, account: &Account) -> bool {
        self.0.throttle.turn_at_once(account.priority()).await
    }

    /// Waits for a place to read a blob, which many requests may then use one after the other.
    pub(super) async fn reading_place(&self, account: &Account) -> Permit {
        self.0.throttle.enter(Class::BlobRead, account.priority()).await
    }

    /// A place to read a blob that is free and that nobody waits for.
    pub(super) fn reading_place_at_once(&self) -> Option<Permit> {
        self.0.throttle.try_enter(Class::BlobRead)
    }

    /// Places to read blobs as things are, free or taken.
    pub(super) fn blob_reads_at_once(&self) -> usize {
        self.0.throttle.size(Class::BlobRead)
    }

    /// For the bytes of a blob.
    pub(super) fn flow(&self, direction: Direction, length: Option<u64>) -> Flow {
        self.0.throttle.flow(direction, length)
    }

    /// Waits for a place, and does what [`Transport::run_in_place`] does.
    ///
    /// # Errors
    /// As [`Transport::run_in_place`].
    pub(super) async fn run(&self, auth: &Auth, account: &Arc<Account>, call: Call) -> Result<Answer> {
        let turn = self.0.throttle.place(call.class, account.priority());
        let permit = Answers::in_turn(turn).await;
        let mut answer = self.run_in_place(auth, account, Some(&permit), call).await?;
        answer.permit = Some(permit);
        Ok(answer)
    }

    /// Sends a request with our login, in the place of `permit` (none: of somebody who has one at another registry), and gives the
    /// answer, whatever its status, once no further
    /// attempt would help.
    ///
    /// # Errors
    /// The connection failed, the login failed, or an address that the registry named is forbidden. A body that cannot be
    /// made again and met a 401 is an error of kind `Unauthorized` with a `retry_after` of zero: the login has been renewed
    /// and the caller may send the request once more.
    pub(super) async fn run_in_place(
        &self,
        auth: &Auth,
        account: &Arc<Account>,
        permit: Option<&Permit>,
        mut call: Call,
    ) -> Result<Answer> {
        let own = same_origin(&call.url, &self.0.base);
        if !own {
            self.check_target(&call.url)
                .await
                .map_err(|target| call.forbidden(target))?;
        }
        let authorization = if own {
            auth.header(&call.scopes, self, account).await?
        } else {
            None
        };
        let mut answer = self
            .exchange(account, permit, &mut call, authorization.as_ref())
            .await?;
        let from_registry = own && !answer.elsewhere && call.renews_login;
        let mut ended = false;
        if from_registry
            && matches!(answer.status.as_u16(), 400 | 403)
            && let Some(words) = self.0.vendor.ways().expired_login
        {
            ended = answer.says(words).await;
        }
        if from_registry && (ended || answer.status == StatusCode::UNAUTHORIZED) {
            let mut headers = std::mem::take(&mut answer.headers);
            if ended {
                // The kind says so without a challenge.
                let challenge = HeaderValue::from_static("Basic realm=\"ended\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            answer.drain().await;
            if let Some(permit) = permit {
                permit.step_back();
            }
            let fresh = auth
                .after_401(&call.scopes, &headers, authorization.as_ref(), self, account)
                .await?;
            if !call.body_can_be_made_again() {
                let message = "the registry wanted a new login in the middle of the upload; it has been renewed";
                let mut error = call.error(ErrorKind::Unauthorized, message);
                error.status = Some(StatusCode::UNAUTHORIZED.as_u16());
                error.retry_after = Some(Duration::ZERO);
                return Err(error);
            }
            answer = self.exchange(account, permit, &mut call, Some(&fresh)).await?;
        }
        Ok(answer)
    }

    /// Attempts until one is worth giving back. The only place that decides about trying again.
    async fn exchange(
        &self,
        account: &Account,
        permit: Option<&Permit>,
        call: &mut Call,
        login: Option<&HeaderValue>,
    ) -> Result<Answer> {
        let mut delays = ExponentialBuilder::new()
            .with_min_delay(FIRST_DELAY)
            .with_max_delay(MAX_DELAY)
            .with_max_times(MAX_ATTEMPTS - 1)
            .with_jitter()
            .build();
        let mut again = false;
        loop {
            self.wait_for_turn(account, permit, call, again).await?;
            again = true;
            let outcome = self.attempt(account, call, login).await;
            let (wanted, from_registry) = match &outcome {
                Ok(answer) if temporary(answer.status) => {
                    let own = same_origin(&answer.url, &self.0.base);
                    (rate_limit_headers(&answer.headers, answer.now).pause(true), own)
                }
                // A signed address of an object store is good for minutes; the registry gives a fresh one.
                Ok(answer) if answer.elsewhere && call.method == Method::GET && is_login_status(answer.status) => {
                    (None, false)
                }
                Err(error) if error.kind == ErrorKind::Network => (None, false),
                _ => return outcome,
            };
            let wanted = match wanted {
                Some(wanted) if wanted > PATIENCE => return outcome,
                wanted => wanted.unwrap_or_default(),
            };
            let delay = match delays.next() {
                Some(delay) if call.repeatable && call.body_can_be_made_again() => delay,
                _ => return outcome,
            };
            match outcome {
                Ok(answer) => {
                    tracing::debug!(registry = %self.0.name, status = %answer.status, method = %call.method, "trying again");
                    answer.drain().await;
                }
                Err(error) => {
                    tracing::debug!(registry = %self.0.name, error = %error, method = %call.method, "trying again");
                }
            }
            // A pause of the registry is waited for above; the jittered delay keeps those who waited from coming at once.
            let own_wait = if from_registry { delay } else { delay.max(wanted) };
            if let Some(permit) = permit {
                permit.step_back();
            }
            tokio::time::sleep(own_wait).await;
        }
    }

    /// Waits until the registry may be asked, and `permit` has a place of the process. `again`: the request was sent before.
    ///
    /// # Errors
    /// `Throttled` with the time that is left, where it is longer than is waited here. Nothing was sent.
    async fn wait_for_turn(
        &self,
        account: &Account,
        permit: Option<&Permit>,
        call: &mut Call,
        again: bool,
    ) -> Result<()> {
        let priority = account.priority();
        // Only what goes to the registry itself: its token realm and its object store may be other hosts.
        let own = same_origin(&call.url, &self.0.base);
        let turn = match permit {
            Some(permit) if own || call.api => Answers::in_turn(permit.turn(priority, again)).await,
            Some(permit) => {
                Answers::in_turn(permit.step_in(priority)).await;
                Ok(())
            }
            None if own => match call.turn {
                Turn::Awaited => Answers::in_turn(self.0.throttle.turn(priority, again)).await,
                Turn::Taken => {
                    call.turn = Turn::AtOnce;
                    Ok(())
                }
                Turn::AtOnce => match self.turn_at_once(account).await {
                    true => Ok(()),
                    false => Err(self.0.throttle.paused_for().unwrap_or_default()),
                },
            },
            None => Ok(()),
        };
        turn.map_err(|left| {
            let message = format!(
                "the registry wants no more requests for {} s; nothing was sent",
                left.as_secs()
            );
            let mut error = call.error(ErrorKind::Throttled, message);
            error.retry_after = Some(left);
            error
        })
    }

    /// What the registry said about how much it takes.
    pub(super) fn heed(&self) -> &Heed {
        &self.0.heed
    }

    /// One attempt with the redirects that it meets.
    async fn attempt(&self, account: &Account, call: &mut Call, login: Option<&HeaderValue>) -> Result<Answer> {
        let mut url = call.url.clone();
        let sent = login;
        let mut login = login;
        let mut away = false;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(account, call, &url, login, away).await?;
            let answer = self.answer(call, url, response, sent);
            if same_origin(&answer.url, &self.0.base) {
                self.see(answer.status, &answer.headers);
                let news = rate_limit_headers(&answer.headers, answer.now);
                self.0.heed.answer(answer.status, news);
            } else if call.api
                && let Some(pause) = rate_limit_headers(&answer.headers, answer.now).pause(temporary(answer.status))
            {
                self.0.api_throttle.pause(pause);
            }
            // A redirected write would send the bytes twice; no registry does it.
            let reads = matches!(call.method, Method::GET | Method::HEAD);
            if !reads || !matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let location = answer
                .headers
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok());
            let Some(location) = location else {
                return Err(answer.broken_protocol("the registry redirects to nowhere (no Location)"));
            };
            let next = resolve(&answer.url, location).map_err(|target| call.forbidden(target))?;
            if !same_origin(&next, &answer.url) {
                if call.api {
                    let host = host_and_port(&next);
                    return Err(answer.broken_protocol(format!(
                        "the API sends us on to {host}, where its requests do not belong; check `endpoint`"
                    )));
                }
                self.check_target(&next)
                    .await
                    .map_err(|target| call.forbidden(target))?;
                // Stay away for the rest of the way, even where that leads back.
                login = None;
                away = true;
            }
            url = next;
            answer.drain().await;
        }
        Err(call.error(
            ErrorKind::Invalid,
            format!("the registry redirects more than {MAX_REDIRECTS} times"),
        ))
    }

    async fn send(
        &self,
        account: &Account,
        call: &mut Call,
        url: &Url,
        login: Option<&HeaderValue>,
        away: bool,
    ) -> Result<reqwest::Response> {
        let mut request = reqwest::Request::new(call.method.clone(), url.clone());
        let own = same_origin(url, &self.0.base);
        if own && !away {
            request.headers_mut().extend(self.0.own_headers.clone());
        }
        request.headers_mut().extend(call.headers.clone());
        if let Some(login) = login {
            request.headers_mut().insert(header::AUTHORIZATION, login.clone());
        }
        let mut watch = None;
        match &mut call.payload {
            Payload::Empty => {
                if !matches!(call.method, Method::GET | Method::HEAD | Method::DELETE) {
                    request
                        .headers_mut()
                        .insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
                }
            }
            Payload::Bytes(bytes) => {
                self.0.throttle.charge(Direction::Up, bytes.len());
                *request.body_mut() = Some(bytes.clone().into());
            }
            Payload::Stream(stream, length) => {
                let Some(stream) = stream.get_mut().unwrap_or_else(PoisonError::into_inner).take() else {
                    return Err(call.error(ErrorKind::Invalid, "a body that was sent cannot be sent again"));
                };
                let (body, its_watch) = Outgoing::new(stream, *length);
                *request.body_mut() = Some(reqwest::Body::wrap(body));
                watch = Some(its_watch);
            }
        }
        let host = host_and_port(url);
        let charged = if own && call.operation != Operation::Authenticate {
            &self.0.name
        } else {
            &host
        };
        account.charge(charged, &call.method);
        let clients = if own {
            self.0.clients.own()
        } else {
            self.0.clients.others()
        };
        let client = match call.class {
            class if class.is_blob() => clients.blobs()?,
            _ => clients.small()?,
        };
        let began = Instant::now();
        let sent = client.execute(request);
        let sent = match watch {
            None => tokio::time::timeout(self.0.settings.timeouts.answer.unwrap_or(ANSWER_LIMIT), sent)
                .await
                .map_err(|_| call.error(ErrorKind::Network, format!("{host} {Late}")).caused_by(Late))?,
            Some(watch) => watched(call, &host, watch, sent).await?,
        };
        self.0.heed.learn(call, began, &sent);
        sent.map_err(|error| {
            let mut error = broken(call.operation, call.place.clone(), &host, url.scheme() == "http", error);
            if let (ProxySettings::Through { url, .. }, ErrorKind::Network) = (&self.0.settings.proxy, error.kind) {
                error
                    .message
                    .push_str(&format!(" (on the way through the proxy {})", host_and_port(url)));
            }
            error
        })
    }
}

fn sensitive(headers: &[(http::HeaderName, Secret)]) -> HeaderMap {
    let values = headers.iter().filter_map(|(name, secret)| {
        // The rules refuse what cannot be sent.
        let mut value = HeaderValue::from_str(secret.expose()).ok()?;
        value.set_sensitive(true);
        Some((name.clone(), value))
    });
    values.collect()
}

fn is_login_status(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// Waits for the answer to an upload, as long as its bytes go on being taken.
async fn watched<F>(call: &Call, host: &str, watch: Watch, sent: F) -> Result<F::Output>
where
    F: Future<Output = Result<reqwest::Response, reqwest::Error>>,
{
    tokio::select! {
        sent = sent => match sent {
            Err(error) if watch.source_failed() => {
                Err(call.error(ErrorKind::Network, "the bytes to send could not be had").caused_by(error.without_url()))
            }
            sent => Ok(sent),
        },
        () = watch.stalled() => {
            let limit = STALL_LIMIT.as_secs();
            let message =
                format!("{host} takes less than {STALL_BYTES} bytes in {limit} s, or does not confirm what it took");
            Err(call.error(ErrorKind::Network, message))
        }
    }
}
