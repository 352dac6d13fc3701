//! A proxy in front of a registry, which counts what passes and does harm on request.

mod pulls;
mod pump;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::within;
pub use pulls::Pulls;
use pump::{Direction, Pump};

/// One request and its answer, as far as they have passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub method: Method,
    /// Without the query.
    pub path: String,
    pub query: Option<String>,
    /// The request's `Range`.
    pub range: Option<String>,
    /// The status sent to the client, or the upstream's where the reply was dropped.
    pub status: Option<StatusCode>,
    /// Bytes of the request's body passed on.
    pub request_bytes: u64,
    /// Bytes of the answer's body passed on.
    pub response_bytes: u64,
    /// It stands still at a gate.
    pub held: bool,
    /// A fault cut this exchange, or one of its sides went away.
    pub broken: bool,
    /// The answer has passed as a whole.
    pub done: bool,
}

/// Lets held bodies go on.
#[derive(Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets everything pass from now on.
    pub fn open(&self) {
        self.0.close();
    }

    async fn pass(&self) {
        // Closing the semaphore is the signal; there are never permits.
        let _ = self.0.acquire().await;
    }
}

/// What a fault does.
#[derive(Clone)]
pub enum Act {
    /// Passes the request on later.
    Delay(Duration),
    /// Passes the request on when the gate opens; until then the upstream sees nothing of it.
    HoldBefore(Gate),
    /// Passes the answer on when the gate opens; the upstream has done its work by then.
    HoldReply(Gate),
    /// Bytes a second of request bodies.
    RequestRate(u64),
    /// Bytes a second of response bodies.
    ResponseRate(u64),
    /// Stops the request's body after so many bytes, until the gate opens.
    HoldRequest(u64, Gate),
    /// Stops the response's body after so many bytes, until the gate opens.
    HoldResponse(u64, Gate),
    /// Breaks both connections after so many bytes of the request's body.
    CutRequest(u64),
    /// Breaks both connections after so many bytes of the response's body.
    CutResponse(u64),
    /// Answers by itself; the upstream sees nothing. The second is `Retry-After`.
    Answer(StatusCode, Option<String>),
    /// Takes the request's body, so that the client hears the answer for certain, and answers by itself, with this text.
    AnswerAfter(StatusCode, &'static str),
    /// Changes the byte at this offset of the request's body.
    FlipRequest(u64),
    /// Changes the byte at this offset of the response's body.
    FlipResponse(u64),
    /// Breaks the client's connection after the upstream has answered.
    DropReply,
    /// Counts pulls, tells what is left, and answers 429 where nothing is.
    Meter(Pulls),
    /// Passes the request on as if nobody had logged in.
    DropLogin,
    /// Gives all of a blob whatever part was asked for, and does not offer parts.
    IgnoreRange,
    /// Answers a range with other bytes than are there, as a cache does that keeps the wrong part; a whole blob comes right.
    WrongRange,
    /// Answers a range with a part that does not say which.
    UnsaidRange,
    /// Asks for no more than so many bytes of a range, so that the answer is a right one that is shorter than wanted.
    ShortRange(u64),
}

/// Which requests are meant, and what happens to them.
#[derive(Clone)]
pub struct Fault {
    method: Option<Method>,
    fragment: String,
    from: usize,
    count: usize,
    /// Every so many of them.
    step: usize,
    seen: usize,
    act: Act,
}

impl Fault {
    /// Every request with this method (`*` for any) whose path contains `fragment`.
    pub fn every(method: &str, fragment: &str, act: Act) -> Self {
        Self {
            method: (method != "*").then(|| method.parse().expect("a method")),
            fragment: fragment.to_owned(),
            from: 1,
            count: usize::MAX,
            step: 1,
            seen: 0,
            act,
        }
    }

    /// Only the `k`-th of them after the fault was added, counted from 1.
    pub fn nth(k: usize, method: &str, fragment: &str, act: Act) -> Self {
        Self {
            from: k,
            count: 1,
            ..Self::every(method, fragment, act)
        }
    }

    /// The next of them.
    pub fn once(method: &str, fragment: &str, act: Act) -> Self {
        Self::nth(1, method, fragment, act)
    }

    /// The next `count` of them.
    pub fn times(count: usize, method: &str, fragment: &str, act: Act) -> Self {
        Self {
            count,
            ..Self::every(method, fragment, act)
        }
    }

    /// Every `step`-th of them.
    pub fn every_nth(step: usize, method: &str, fragment: &str, act: Act) -> Self {
        Self {
            from: step,
            step,
            ..Self::every(method, fragment, act)
        }
    }

    fn hits(&mut self, method: &Method, path: &str) -> Option<Act> {
        if self.method.as_ref().is_some_and(|wanted| wanted != method) || !path.contains(&self.fragment) {
            return None;
        }
        self.seen += 1;
        let beyond = self.seen.checked_sub(self.from)?;
        (beyond.is_multiple_of(self.step) && beyond / self.step < self.count).then(|| self.act.clone())
    }
}

/// The proxy, ended on drop together with all connections through it.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

struct Shared {
    upstream: Mutex<String>,
    client: reqwest::Client,
    faults: Mutex<Vec<Fault>>,
    exchanges: watch::Sender<Vec<Exchange>>,
    most_at_once: AtomicUsize,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Proxy {
    /// Listens on a free port in front of `upstream` (`http://host:port`).
    pub async fn start(upstream: &str) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            // A registry that was started again must not be met through an old connection.
            .pool_max_idle_per_host(0)
            .build()
            .expect("a client");
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream.to_owned()),
            client,
            faults: Mutex::default(),
            exchanges: watch::Sender::new(Vec::new()),
            most_at_once: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        Self {
            addr,
            shared,
            _accepting: accepting,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> String {
        self.addr.to_string()
    }

    /// Its URL without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Another upstream for the requests to come.
    pub fn retarget(&self, upstream: &str) {
        upstream.clone_into(&mut self.shared.upstream.lock().expect("not poisoned"));
    }

    /// Adds a fault. All that match a request act on it.
    pub fn add(&self, fault: Fault) {
        self.shared.faults.lock().expect("not poisoned").push(fault);
    }

    /// Takes all faults away; bodies under way keep theirs.
    pub fn heal(&self) {
        self.shared.faults.lock().expect("not poisoned").clear();
    }

    /// Everything that passed so far.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.exchanges.borrow().clone()
    }

    /// The most exchanges that were under way at once.
    pub fn most_at_once(&self) -> usize {
        self.shared.most_at_once.load(Ordering::Relaxed)
    }

    /// How many exchanges have this method (`*` for any) and `fragment` in their path.
    pub fn count(&self, method: &str, fragment: &str) -> usize {
        self.sum(method, fragment, |_| 1) as usize
    }

    /// Bytes of their requests' bodies.
    pub fn request_bytes(&self, method: &str, fragment: &str) -> u64 {
        self.sum(method, fragment, |exchange| exchange.request_bytes)
    }

    /// Bytes of their answers' bodies.
    pub fn response_bytes(&self, method: &str, fragment: &str) -> u64 {
        self.sum(method, fragment, |exchange| exchange.response_bytes)
    }

    /// Forgets what passed, and how much of it at once; only where nothing is under way.
    pub fn reset(&self) {
        self.shared.exchanges.send_modify(|exchanges| {
            assert!(
                exchanges.iter().all(|exchange| exchange.done || exchange.broken),
                "an exchange is under way"
            );
            exchanges.clear();
            self.shared.most_at_once.store(0, Ordering::Relaxed);
        });
    }

    /// Waits until the exchanges show a fact; fails with `what` at the deadline.
    pub async fn wait_for(&self, what: &str, mut fact: impl FnMut(&[Exchange]) -> bool) {
        let mut exchanges = self.shared.exchanges.subscribe();
        let wait = exchanges.wait_for(|exchanges| fact(exchanges));
        within(what, wait).await.expect("the proxy holds the sender");
    }

    fn sum(&self, method: &str, fragment: &str, value: impl Fn(&Exchange) -> u64) -> u64 {
        let exchanges = self.shared.exchanges.borrow();
        let meant = exchanges.iter().filter(|exchange| exchange.is(method, fragment));
        meant.map(value).sum()
    }
}

impl Exchange {
    /// True for this method (`*` for any) and a path that contains `fragment`.
    pub fn is(&self, method: &str, fragment: &str) -> bool {
        (method == "*" || self.method == method) && self.path.contains(fragment)
    }
}

impl Shared {
    fn note(&self, index: usize, change: impl FnOnce(&mut Exchange)) {
        self.exchanges.send_modify(|exchanges| {
            if let Some(exchange) = exchanges.get_mut(index) {
                change(exchange);
            }
        });
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| pass(Arc::clone(&shared), request));
        connections.spawn(async move {
            // Broken connections are what this proxy is for.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn pass(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Failed> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let range = parts.headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let range = range.map(str::to_owned);
    let acts: Vec<Act> = {
        let mut faults = shared.faults.lock().expect("not poisoned");
        let hits = faults.iter_mut().map(|fault| fault.hits(&parts.method, &path));
        hits.flatten().collect()
    };
    let mut index = 0;
    shared.exchanges.send_modify(|exchanges| {
        index = exchanges.len();
        exchanges.push(Exchange {
            method: parts.method.clone(),
            path: path.clone(),
            query: parts.uri.query().map(str::to_owned),
            range: range.clone(),
            status: None,
            request_bytes: 0,
            response_bytes: 0,
            held: false,
            broken: false,
            done: false,
        });
        let under_way = exchanges.iter().filter(|exchange| !exchange.done && !exchange.broken);
        shared.most_at_once.fetch_max(under_way.count(), Ordering::Relaxed);
    });
    let outcome = forward(&shared, index, &acts, parts, body).await;
    if outcome.is_err() {
        shared.note(index, |exchange| exchange.broken = true);
    }
    outcome
}

async fn forward(
    shared: &Arc<Shared>,
    index: usize,
    acts: &[Act],
    parts: http::request::Parts,
    body: Incoming,
) -> Result<Response<Body>, Failed> {
    for act in acts {
        match act {
            Act::Delay(time) => tokio::time::sleep(*time).await,
            Act::HoldBefore(gate) => stand(shared, index, gate).await,
            Act::Answer(status, retry_after) => {
                shared.note(index, |exchange| {
                    exchange.status = Some(*status);
                    exchange.done = true;
                });
                let mut response = Response::new(Body::empty());
                *response.status_mut() = *status;
                if let Some(after) = retry_after {
                    let after = HeaderValue::from_str(after).expect("a header value");
                    response.headers_mut().insert(header::RETRY_AFTER, after);
                }
                return Ok(response);
            }
            Act::AnswerAfter(status, text) => {
                body.collect().await?;
                shared.note(index, |exchange| {
                    exchange.status = Some(*status);
                    exchange.done = true;
                });
                let mut response = Response::new(Body::from(*text));
                *response.status_mut() = *status;
                return Ok(response);
            }
            Act::Meter(pulls) if !pulls.count(&parts.method, parts.uri.path()) => {
                shared.note(index, |exchange| {
                    exchange.status = Some(StatusCode::TOO_MANY_REQUESTS);
                    exchange.done = true;
                });
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
                pulls.tell(response.headers_mut());
                return Ok(response);
            }
            _ => {}
        }
    }

    let upstream = shared.upstream.lock().expect("not poisoned").clone();
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut headers = parts.headers;
    // These speak of one connection (RFC 9110, section 7.6.1). `Host` stays: registries make addresses from it.
    headers.remove(header::CONNECTION);
    headers.remove(header::TRANSFER_ENCODING);
    if acts.iter().any(|act| matches!(act, Act::DropLogin)) {
        headers.remove(header::AUTHORIZATION);
    }
    let ranged = headers.contains_key(header::RANGE);
    let unsaid = ranged && acts.iter().any(|act| matches!(act, Act::UnsaidRange));
    let whole = acts.iter().any(|act| matches!(act, Act::IgnoreRange));
    if whole {
        headers.remove(header::RANGE);
    }
    let short = acts.iter().find_map(|act| match act {
        Act::ShortRange(bytes) => Some(*bytes),
        _ => None,
    });
    if let Some(bytes) = short {
        shorten(headers.get_mut(header::RANGE), bytes);
    }
    let mut request = shared
        .client
        .request(parts.method.clone(), format!("{upstream}{target}"))
        .headers(headers);
    if !body.is_end_stream() {
        let pump = Pump::new(Body::new(body), Direction::Request, acts, Arc::clone(shared), index);
        request = request.body(reqwest::Body::wrap_stream(pump.stream()));
    }
    let answer = request.send().await?;

    shared.note(index, |exchange| exchange.status = Some(answer.status()));
    for act in acts {
        if let Act::HoldReply(gate) = act {
            stand(shared, index, gate).await;
        }
    }
    if acts.iter().any(|act| matches!(act, Act::DropReply)) {
        answer.bytes().await?;
        return Err("the reply was dropped".into());
    }
    let answer: http::Response<reqwest::Body> = answer.into();
    let (mut parts_back, body) = answer.into_parts();
    parts_back.headers.remove(header::CONNECTION);
    parts_back.headers.remove(header::TRANSFER_ENCODING);
    for act in acts {
        if let Act::Meter(pulls) = act {
            pulls.tell(&mut parts_back.headers);
        }
    }
    if whole {
        parts_back.headers.remove(header::ACCEPT_RANGES);
    }
    if unsaid {
        parts_back.headers.remove(header::CONTENT_RANGE);
    }
    // The versions of the two connections are their own.
    parts_back.version = http::Version::HTTP_11;
    parts_back.extensions = http::Extensions::new();
    if parts.method == Method::HEAD || body.is_end_stream() {
        shared.note(index, |exchange| exchange.done = true);
        return Ok(Response::from_parts(parts_back, Body::empty()));
    }
    let mut acts = acts.to_vec();
    if ranged && acts.iter().any(|act| matches!(act, Act::WrongRange)) {
        acts.push(Act::FlipResponse(0));
    }
    let pump = Pump::new(Body::new(body), Direction::Response, &acts, Arc::clone(shared), index);
    Ok(Response::from_parts(parts_back, Body::from_stream(pump.stream())))
}

/// Stands still at a gate. Marks the exchange as broken where the client goes away meanwhile, which drops this future.
async fn stand(shared: &Arc<Shared>, index: usize, gate: &Gate) {
    struct Held<'a>(&'a Shared, usize, bool);
    impl Drop for Held<'_> {
        fn drop(&mut self) {
            self.0.note(self.1, |exchange| {
                exchange.held = false;
                exchange.broken |= !self.2;
            });
        }
    }
    let mut held = Held(shared, index, false);
    shared.note(index, |exchange| exchange.held = true);
    gate.pass().await;
    held.2 = true;
}

/// The same bytes but one.
fn flipped(data: &Bytes, at: usize) -> Bytes {
    let mut bytes = data.to_vec();
    bytes[at] ^= 0x20;
    Bytes::from(bytes)
}

/// Makes a range end after so many bytes, unless it ends before.
fn shorten(range: Option<&mut HeaderValue>, bytes: u64) {
    let Some(range) = range else { return };
    let text = range.to_str().expect("a range").to_owned();
    let (first, last) = text
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
        .expect("one range");
    let first: u64 = first.parse().expect("an offset");
    let end = first + bytes - 1;
    let last = last.parse().map_or(end, |last: u64| last.min(end));
    *range = HeaderValue::from_str(&format!("bytes={first}-{last}")).expect("a range");
}
