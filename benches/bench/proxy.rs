//! A proxy in front of a registry: it counts, slows down and does harm, for every tool alike.
//!
//! Each connection of a client has one connection to the registry behind it, so that there is no pool and no lock between
//! them. What it costs is measured with each run (`own_cpu_seconds`) and published.

mod counts;
mod harm;
mod tap;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Either, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;

use crate::Outcome;
pub use counts::{Counts, Kind};
use harm::{Harm, Injured};
use tap::{Pacer, Tap};

/// What the way between a client and a registry is like. The default changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// Added to each request.
    pub latency: Duration,
    /// Bytes a second that each connection may bring of answers.
    pub rate: Option<u64>,
    /// Blob answers under way at a time; more wait.
    pub flows: Option<usize>,
    /// Of 1,000 requests so many fail; which ones follows from this seed.
    pub failing: Option<(u64, u64)>,
    /// Every so manyth request is answered with 429 and `Retry-After: 2`.
    pub throttle: Option<u64>,
    /// The first answer with this blob has one byte changed.
    pub corrupt: Option<String>,
}

/// The proxy, ended on drop together with its connections.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

struct Shared {
    upstream: String,
    conditions: Conditions,
    counts: Counts,
    harm: Harm,
    flows: Option<Arc<Semaphore>>,
    first: OnceLock<Instant>,
    /// Bytes of request bodies and of answer bodies.
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<Either<Tap, Empty<Bytes>>>;

impl Proxy {
    /// Listens on a free port in front of `upstream` (`127.0.0.1:port`).
    pub async fn start(upstream: &str, conditions: Conditions) -> Outcome<Self> {
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            counts: Counts::default(),
            harm: Harm::new(&conditions),
            flows: conditions.flows.map(|flows| Arc::new(Semaphore::new(flows))),
            conditions,
            first: OnceLock::new(),
            sent: Arc::default(),
            received: Arc::default(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            addr,
            shared,
            _accepting: accepting,
        })
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> String {
        self.addr.to_string()
    }

    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Bytes that went to the registry, in bodies.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Bytes that came from the registry, in bodies.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// Forgets what was counted; only where nothing is under way.
    pub fn reset(&self) {
        self.shared.counts.reset();
        self.shared.sent.store(0, Ordering::Relaxed);
        self.shared.received.store(0, Ordering::Relaxed);
    }

    /// When the first request came.
    pub fn first_request(&self) -> Option<Instant> {
        self.shared.first.get().copied()
    }

    /// Requests that failed because they were made to.
    pub fn injured(&self) -> u64 {
        self.shared.harm.done()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let connection = Arc::new(Connection {
            upstream: Mutex::new(None),
            pacer: shared.conditions.rate.map(Pacer::new),
            shared: Arc::clone(&shared),
        });
        connections.spawn(async move {
            let service = service_fn(move |request| pass(Arc::clone(&connection), request));
            // Broken connections are part of what is measured.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// One connection of a client.
struct Connection {
    upstream: Mutex<Option<Upstream>>,
    pacer: Option<Pacer>,
    shared: Arc<Shared>,
}

struct Upstream {
    sender: SendRequest<Tap>,
    _driving: JoinSet<()>,
}

impl Upstream {
    async fn connect(host: &str) -> Result<Self, Failed> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut driving = JoinSet::new();
        driving.spawn(async move {
            let _ = connection.await;
        });
        Ok(Self {
            sender,
            _driving: driving,
        })
    }
}

async fn pass(connection: Arc<Connection>, request: Request<Incoming>) -> Result<Answer, Failed> {
    connection.forward(request).await
}

impl Connection {
    async fn forward(&self, request: Request<Incoming>) -> Result<Answer, Failed> {
        let shared = &self.shared;
        shared.first.get_or_init(Instant::now);
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let number = shared.counts.note(&method, &path);
        if !shared.conditions.latency.is_zero() {
            tokio::time::sleep(shared.conditions.latency).await;
        }
        if shared
            .conditions
            .throttle
            .is_some_and(|every| number.is_multiple_of(every))
        {
            return Ok(refuse(StatusCode::TOO_MANY_REQUESTS));
        }
        let injured = shared.harm.next(&method, &path);
        match injured {
            Some(Injured::Reset) => return Err("reset on purpose".into()),
            Some(Injured::Unavailable) => return Ok(refuse(StatusCode::SERVICE_UNAVAILABLE)),
            Some(Injured::Lost) | None => {}
        }
        // A ninth flow of eight waits before the registry hears of it.
        let permit = match &shared.flows {
            Some(flows) if method == Method::GET && Kind::of(&path) == Kind::Blob => {
                Some(Arc::clone(flows).acquire_owned().await?)
            }
            _ => None,
        };
        let request = request.map(|body| Tap::new(body, Arc::clone(&shared.sent)));
        let mut upstream = self.upstream.lock().await;
        let answer = self.send(&mut upstream, request).await?;
        if injured.is_some() {
            // The registry has done its work; the client never hears of it.
            *upstream = None;
            answer.into_body().collect().await?;
            return Err("answer lost on purpose".into());
        }
        let corrupt = answer.status().is_success() && method == Method::GET && shared.harm.corrupts(&path);
        let slow = self.pacer.clone().filter(|_| method == Method::GET);
        Ok(answer.map(|body| {
            let mut tap = Tap::new(body, Arc::clone(&shared.received));
            tap.corrupt(corrupt);
            tap.slow(slow);
            tap.hold(permit);
            Either::Left(tap)
        }))
    }

    async fn send(&self, upstream: &mut Option<Upstream>, request: Request<Tap>) -> Result<Response<Incoming>, Failed> {
        // A registry that has closed the connection meanwhile is connected to again.
        if let Some(there) = upstream.as_mut()
            && there.sender.ready().await.is_err()
        {
            *upstream = None;
        }
        let there = match upstream {
            Some(there) => there,
            None => upstream.insert(Upstream::connect(&self.shared.upstream).await?),
        };
        match there.sender.send_request(request).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                *upstream = None;
                Err(error.into())
            }
        }
    }
}

fn refuse(status: StatusCode) -> Answer {
    let mut response = Response::new(Either::Right(Empty::new()));
    *response.status_mut() = status;
    if status == StatusCode::TOO_MANY_REQUESTS {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, http::HeaderValue::from_static("2"));
    }
    response
}
