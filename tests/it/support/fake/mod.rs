//! Strict fakes of vendors' registries, for what no test can run.
//!
//! A fake is a front before an in-process registry ([`transship::demo::registry`]), which keeps the images and knows the
//! protocol. What a vendor does otherwise is its [`Face`]: it answers its own API, checks logins and scopes, refuses in its
//! own words, and bends the registry's answers to its habits. To write one:
//!
//! 1. `asked` sees every request first. It gives [`Asked::Answer`] for what the vendor answers itself, [`Asked::Pass`] for
//!    what the registry answers (below `/v2/` only; [`Asked::PassAs`] with another query), and [`Asked::Wrong`] for a request that no careful client sends: a wrong
//!    signature, a page token that was not given out, a credential at the wrong place. That one fails the test, when the fake
//!    is dropped or by [`Fake::finish`].
//! 2. `answered` sees the registry's answer before the client does.
//! 3. `throttled` and `immutable` are the vendor's words for what [`Fake::throttle`] and [`Fake::immutable`] ask for.
//! 4. [`Book::era`] counts how often all logins have ended ([`Fake::end_logins_before`]): what was given out in an earlier
//!    one is refused as the vendor does. [`token::Tokens`] does so by itself.
//!
//! Bodies of uploads pass as they come, and `asked` sees none of them. What holds for all vendors is checked here:
//! `Content-Range` without a unit, one `Authorization` at most, no path that nobody has.
//!
//! Rules reach a fake by `url:`, `kind:` and, for an API at another host, `endpoint:`; [`Fake::rules`] writes the entry.

pub mod acs3;
pub mod alibaba;
pub mod artifactory;
pub mod azure;
pub mod ecr_public;
pub mod github;
pub mod gitlab;
pub mod google;
pub mod google_exchange;
pub mod harbor;
pub mod huawei;
pub mod hub;
pub mod nexus;
pub mod quay;
pub mod sdk_hmac;
pub mod tags;
pub mod tc3;
pub mod tencent;
pub mod token;
pub mod zot;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use transship::clock::Clock;
use transship::demo::images::SampleImage;
use transship::demo::registry::{Options, Registry, Running};
use transship::oci::Digest;

/// The longest body that is read whole: manifests and calls of an API.
const MAX_BODY: usize = 8 * 1024 * 1024;

/// A password that was good once: the API of Quay and GitHub says so.
pub const REPLACED: &str = "replaced-by-another-one";

/// What a vendor does otherwise than the registry behind it.
pub trait Face: Send + Sync + 'static {
    /// Before the registry.
    fn asked(&self, book: &Book, request: &Asking) -> Asked;

    /// After the registry.
    fn answered(&self, _book: &Book, _request: &Asking, answer: Response) -> Response {
        answer
    }

    /// Asked too often.
    fn throttled(&self, _request: &Asking) -> Response {
        refusal(429, "TOOMANYREQUESTS", "too many requests")
    }

    /// A tag that may not be moved; `None` where the vendor has none such.
    fn immutable(&self, _tag: &str) -> Option<Response> {
        None
    }
}

/// What becomes of a request.
pub enum Asked {
    /// The vendor answers.
    Answer(Response),
    /// The registry answers.
    Pass,
    /// The registry answers another query at the same path.
    PassAs(String),
    /// The registry answers for another path.
    PassTo(String),
    /// The registry answers, and gets no more than so many bytes of the body.
    PassPart(usize),
    /// No careful client asks so: the test fails.
    Wrong(String),
}

/// A request as a face sees it.
#[derive(Clone, Debug)]
pub struct Asking {
    pub method: Method,
    /// As it was sent, escapes and all.
    pub path: String,
    /// As it was sent, without the question mark.
    pub query: String,
    pub headers: HeaderMap,
    /// Empty for bytes of blobs.
    pub body: Bytes,
}

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub method: Method,
    /// Path and query as sent.
    pub target: String,
    /// `Basic`, `Bearer` or what else stood before the credential.
    pub scheme: Option<String>,
    /// `None` while there is no answer.
    pub status: Option<u16>,
}

/// What a fake knows: the registry behind it, what it was asked, and what was wrong with it.
pub struct Book {
    /// The registry behind the front.
    pub registry: Running,
    /// Where the front is, without a slash at the end.
    pub url: String,
    era: AtomicU64,
    /// Seconds by which its clock is ahead.
    ahead: AtomicI64,
    exchanges: Mutex<Vec<Exchange>>,
    wrongs: Mutex<Vec<String>>,
    switches: Mutex<Switches>,
}

#[derive(Default)]
struct Switches {
    /// Requests that are told to come later: method (any), part of the path, how many.
    throttle: Option<(Option<Method>, String, u32)>,
    /// Tags that may not be moved once they are there.
    immutable: Vec<String>,
    /// Before which request it goes away: method, part of the path; and whether it has gone.
    go_away: Option<(Method, String, bool)>,
    /// A part of the paths that this user may not ask for.
    denied: Option<String>,
    /// Before which request all logins end: method, part of the path, how many of them come before it.
    end_logins: Option<(Method, String, u32)>,
}

/// A running fake. Dropping it fails the test where something was wrong.
pub struct Fake {
    addr: SocketAddr,
    book: Arc<Book>,
    _serving: JoinSet<std::io::Result<()>>,
}

struct Front {
    face: Box<dyn Face>,
    book: Arc<Book>,
    client: reqwest::Client,
}

impl Fake {
    /// Starts a registry with a face on a free loopback port.
    pub async fn start(face: impl Face, options: Options) -> Self {
        Self::start_as(face, options, None).await
    }

    /// The same, which says that it is at this address, without a slash at the end.
    pub async fn start_as(face: impl Face, options: Options, url: Option<String>) -> Self {
        let registry = Registry::start(options).await.expect("a registry");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let book = Arc::new(Book {
            registry,
            url: url.unwrap_or_else(|| format!("http://{addr}")),
            era: AtomicU64::new(0),
            ahead: AtomicI64::new(0),
            exchanges: Mutex::default(),
            wrongs: Mutex::default(),
            switches: Mutex::default(),
        });
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let front = Arc::new(Front {
            face: Box::new(face),
            book: Arc::clone(&book),
            client: client.build().expect("a client"),
        });
        let app = axum::Router::new().fallback(answer).with_state(front);
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await });
        Self {
            addr,
            book,
            _serving: serving,
        }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.book.url
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Host and port.
    pub fn host(&self) -> String {
        self.addr.to_string()
    }

    /// Its line below `registries:`; `more` are further keys, such as `kind: harbor, username: x`.
    pub fn rules(&self, name: &str, more: &str) -> String {
        format!("  {name}: {{ url: \"{}\", {more} }}\n", self.url())
    }

    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Puts an image there, as a push would.
    pub fn seed(&self, repository: &str, tag: &str, image: &SampleImage) {
        let (repository, tag) = (repository.parse().expect("a name"), tag.parse().expect("a tag"));
        self.book.registry.seed(&repository, &tag, image);
    }

    /// What a tag names.
    pub fn resolve(&self, repository: &str, tag: &str) -> Option<Digest> {
        let (repository, tag) = (repository.parse().ok()?, tag.parse().ok()?);
        self.book.registry.resolve(&repository, &tag)
    }

    /// All requests so far.
    pub fn exchanges(&self) -> Vec<Exchange> {
        lock(&self.book.exchanges).clone()
    }

    /// How many requests there were by a method (`*`: any) whose path and query have `part` in them.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let of = |exchange: &&Exchange| (method == "*" || exchange.method == method) && exchange.target.contains(part);
        lock(&self.book.exchanges).iter().filter(of).count()
    }

    /// Forgets the requests so far, not what was wrong.
    pub fn forget(&self) {
        lock(&self.book.exchanges).clear();
    }

    /// The next `times` requests by a method (`None`: any) with `part` in the path are told to come later.
    pub fn throttle(&self, method: Option<Method>, part: &str, times: u32) {
        lock(&self.book.switches).throttle = Some((method, part.to_owned(), times));
    }

    /// From now on this user may not ask for what has `part` in its path.
    pub fn deny(&self, part: &str) {
        lock(&self.book.switches).denied = Some(part.to_owned());
    }

    /// A tag that may not be moved from now on.
    pub fn immutable(&self, tag: &str) {
        lock(&self.book.switches).immutable.push(tag.to_owned());
    }

    /// All logins given out so far end before a request by this method with `part` in the path, of which `after` come before.
    pub fn end_logins_before(&self, method: Method, part: &str, after: u32) {
        lock(&self.book.switches).end_logins = Some((method, part.to_owned(), after));
    }

    /// Before the first request by this method with `part` in the path it stops, and until [`Fake::come_back`] the proxy before it
    /// answers everything, in its own words (Traefik's, for a route whose service is gone).
    pub fn go_away_before(&self, method: Method, part: &str) {
        lock(&self.book.switches).go_away = Some((method, part.to_owned(), false));
    }

    /// It is back; whether it was away.
    pub fn come_back(&self) -> bool {
        let gone = lock(&self.book.switches).go_away.take();
        gone.is_some_and(|(_, _, gone)| gone)
    }

    /// From now on its clock is ahead by so many seconds, or behind.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.book.ahead.store(seconds, Ordering::SeqCst);
    }

    /// True once the logins have ended as [`Fake::end_logins_before`] asked for.
    pub fn logins_ended(&self) -> bool {
        self.book.era() > 0
    }

    /// Fails the test where something was wrong.
    #[track_caller]
    pub fn finish(self) {
        self.book.assert_right();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.book.assert_right();
        }
    }
}

impl Book {
    /// How often all logins have ended.
    pub fn era(&self) -> u64 {
        self.era.load(Ordering::SeqCst)
    }

    /// Takes note of what no careful client does.
    pub fn wrong(&self, request: &Asking, why: &str) {
        let text = format!("{} {}: {why}", request.method, request.target());
        lock(&self.wrongs).push(text);
    }

    #[track_caller]
    fn assert_right(&self) {
        let wrongs = lock(&self.wrongs);
        assert!(wrongs.is_empty(), "the fake was asked wrongly:\n{}", wrongs.join("\n"));
    }

    fn begin(&self, request: &Asking) -> usize {
        let scheme = request.authorization().map(|value| {
            let scheme = value.split(' ').next().unwrap_or_default();
            scheme.to_owned()
        });
        let mut exchanges = lock(&self.exchanges);
        exchanges.push(Exchange {
            method: request.method.clone(),
            target: request.target(),
            scheme,
            status: None,
        });
        exchanges.len() - 1
    }

    fn end(&self, index: usize, status: StatusCode) {
        if let Some(exchange) = lock(&self.exchanges).get_mut(index) {
            exchange.status = Some(status.as_u16());
        }
    }

    fn has_tag(&self, repository: &str, tag: &str) -> bool {
        let names = repository.parse().ok().zip(tag.parse().ok());
        names.is_some_and(|(repository, tag)| self.registry.resolve(&repository, &tag).is_some())
    }
}

impl Switches {
    fn ends_logins(&mut self, request: &Asking) -> bool {
        let Some((method, part, before)) = &mut self.end_logins else {
            return false;
        };
        if *method != request.method || !request.path.contains(part.as_str()) {
            return false;
        }
        if *before > 0 {
            *before -= 1;
            return false;
        }
        self.end_logins = None;
        true
    }

    fn is_away(&mut self, request: &Asking) -> bool {
        let Some((method, part, gone)) = &mut self.go_away else {
            return false;
        };
        *gone |= *method == request.method && request.path.contains(part.as_str());
        *gone
    }

    fn throttles(&mut self, request: &Asking) -> bool {
        let Some((method, part, left)) = &mut self.throttle else {
            return false;
        };
        let fits = method.as_ref().is_none_or(|method| *method == request.method);
        if *left == 0 || !fits || !request.target().contains(part.as_str()) {
            return false;
        }
        *left -= 1;
        true
    }
}

impl Asking {
    pub fn target(&self) -> String {
        match self.query.as_str() {
            "" => self.path.clone(),
            query => format!("{}?{query}", self.path),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn authorization(&self) -> Option<&str> {
        self.header("authorization")
    }

    /// User and password, where they came as Basic.
    pub fn basic(&self) -> Option<(String, String)> {
        let encoded = self.authorization()?.strip_prefix("Basic ")?;
        let pair = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        let (user, password) = pair.split_once(':')?;
        Some((user.to_owned(), password.to_owned()))
    }

    pub fn bearer(&self) -> Option<&str> {
        self.authorization()?.strip_prefix("Bearer ")
    }

    /// All values of a parameter of the query.
    pub fn all(&self, name: &str) -> Vec<String> {
        let pairs = url::form_urlencoded::parse(self.query.as_bytes());
        pairs
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
            .collect()
    }

    /// The only value of a parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<String> {
        match self.all(name).as_slice() {
            [value] => Some(value.clone()),
            _ => None,
        }
    }

    /// The repository of a path of the distribution protocol.
    pub fn repository(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("/v2/")?;
        ["/manifests/", "/blobs/", "/tags/list", "/referrers/"]
            .iter()
            .find_map(|part| rest.rfind(part).map(|at| &rest[..at]))
    }

    /// The tag or digest of a manifest's path.
    pub fn reference(&self) -> Option<&str> {
        let (_, reference) = self.path.rsplit_once("/manifests/")?;
        Some(reference)
    }

    pub fn writes(&self) -> bool {
        ![Method::GET, Method::HEAD].contains(&self.method)
    }
}

impl Front {
    fn judge(&self, request: &Asking) -> Asked {
        let book = &self.book;
        if request.headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
            return Asked::Wrong("more than one login".to_owned());
        }
        if request
            .header("content-range")
            .is_some_and(|range| range.contains("bytes"))
        {
            return Asked::Wrong("the content range of an upload has no unit".to_owned());
        }
        if lock(&book.switches).is_away(request) {
            return Asked::Answer((StatusCode::NOT_FOUND, "404 page not found\n").into_response());
        }
        if lock(&book.switches).ends_logins(request) {
            book.era.fetch_add(1, Ordering::SeqCst);
        }
        if lock(&book.switches).throttles(request) {
            return Asked::Answer(self.face.throttled(request));
        }
        let denied = lock(&book.switches).denied.clone();
        if denied.is_some_and(|part| request.path.contains(&part)) {
            return Asked::Answer(refusal(403, "DENIED", "this user may not ask for that"));
        }
        let asked = self.face.asked(book, request);
        if !matches!(asked, Asked::Pass | Asked::PassAs(_)) {
            return asked;
        }
        if !request.path.starts_with("/v2/") {
            return Asked::Wrong("nobody has this path".to_owned());
        }
        if request.method == Method::PUT
            && let (Some(repository), Some(tag)) = (request.repository(), request.reference())
            && lock(&book.switches).immutable.iter().any(|fixed| fixed == tag)
            && book.has_tag(repository, tag)
            && let Some(refused) = self.face.immutable(tag)
        {
            return Asked::Answer(refused);
        }
        asked
    }

    async fn pass(&self, request: &Asking, body: Body) -> Response {
        let url = format!("{}{}", self.book.registry.url(), request.target());
        let mut headers = request.headers.clone();
        for name in [header::AUTHORIZATION, header::CONNECTION, header::TRANSFER_ENCODING] {
            headers.remove(name);
        }
        let mut sent = self.client.request(request.method.clone(), url).headers(headers);
        if streams(&request.method, &request.path) {
            sent = sent.body(reqwest::Body::wrap_stream(body.into_data_stream()));
        } else if !request.body.is_empty() {
            sent = sent.body(request.body.clone());
        }
        let Ok(answer) = sent.send().await else {
            // The client broke off, so nobody reads this.
            return StatusCode::BAD_GATEWAY.into_response();
        };
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
            headers.remove(name);
        }
        let mut response = Response::new(Body::from_stream(answer.bytes_stream()));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// True for bytes of a blob, which are not read here.
fn streams(method: &Method, path: &str) -> bool {
    path.contains("/blobs/uploads/") && [Method::PATCH, Method::PUT, Method::POST].contains(method)
}

async fn answer(State(front): State<Arc<Front>>, request: axum::extract::Request) -> Response {
    let (parts, mut body) = request.into_parts();
    let (path, query) = (
        parts.uri.path().to_owned(),
        parts.uri.query().unwrap_or_default().to_owned(),
    );
    let mut read = Bytes::new();
    if !streams(&parts.method, &path) {
        let whole = std::mem::replace(&mut body, Body::empty());
        read = axum::body::to_bytes(whole, MAX_BODY).await.unwrap_or_default();
    }
    let asking = Asking {
        method: parts.method,
        path,
        query,
        headers: parts.headers,
        body: read,
    };
    let index = front.book.begin(&asking);
    let response = match front.judge(&asking) {
        Asked::Answer(response) => response,
        Asked::Pass => {
            let passed = front.pass(&asking, body).await;
            front.face.answered(&front.book, &asking, passed)
        }
        Asked::PassAs(query) => {
            let asking = Asking { query, ..asking };
            let passed = front.pass(&asking, body).await;
            front.face.answered(&front.book, &asking, passed)
        }
        Asked::PassTo(path) => {
            let inner = Asking { path, ..asking.clone() };
            let passed = front.pass(&inner, body).await;
            front.face.answered(&front.book, &asking, passed)
        }
        Asked::PassPart(most) => {
            let (asking, body) = shortened(asking, body, most).await;
            let passed = front.pass(&asking, body).await;
            front.face.answered(&front.book, &asking, passed)
        }
        Asked::Wrong(why) => {
            front.book.wrong(&asking, &why);
            (StatusCode::IM_A_TEAPOT, why).into_response()
        }
    };
    front.book.end(index, response.status());
    match front.book.ahead.load(Ordering::SeqCst) {
        0 => response,
        ahead => {
            let date = Clock::system().now() + SignedDuration::from_secs(ahead);
            with_header(
                response,
                "date",
                &date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
            )
        }
    }
}

/// The request as if it had no more bytes.
async fn shortened(mut asking: Asking, body: Body, most: usize) -> (Asking, Body) {
    let whole = axum::body::to_bytes(body, MAX_BODY).await.unwrap_or_default();
    let part = whole.slice(..most.min(whole.len()));
    let from = asking
        .header("content-range")
        .and_then(|range| range.split('-').next()?.parse::<usize>().ok());
    if let Some(from) = from {
        let range = HeaderValue::from_str(&format!("{from}-{}", from + part.len() - 1)).expect("a range");
        asking.headers.insert(header::CONTENT_RANGE, range);
    }
    asking.headers.insert(header::CONTENT_LENGTH, part.len().into());
    (asking, part.into())
}

/// An address that must not be called.
pub struct Nobody(std::net::TcpListener);

impl Nobody {
    pub fn listen() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        Self(listener)
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.0.local_addr().expect("an address")
    }

    /// True where somebody connected.
    pub fn has_callers(&self) -> bool {
        self.0.accept().is_ok()
    }
}

/// A document.
pub fn document(status: u16, value: &Value) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    (status, axum::Json(value)).into_response()
}

/// A refusal in the form of the distribution protocol.
pub fn refusal(status: u16, code: &str, message: &str) -> Response {
    document(status, &json!({ "errors": [{ "code": code, "message": message }] }))
}

/// The same answer with a header.
pub fn with_header(mut response: Response, name: &'static str, value: &str) -> Response {
    let value = HeaderValue::from_str(value).expect("a header's value");
    response.headers_mut().insert(HeaderName::from_static(name), value);
    response
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("not poisoned")
}
