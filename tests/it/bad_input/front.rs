//! A front before a registry that changes answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{Method, header};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Changes an answer, by the request's method and path.
type Twist = dyn Fn(&Method, &str, &mut Response<Bytes>) + Send + Sync;

/// Ended on drop.
pub struct Front {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<std::io::Result<()>>,
}

struct Shared {
    upstream: String,
    client: reqwest::Client,
    twist: Box<Twist>,
    twisting: AtomicBool,
}

impl Front {
    /// Listens on a free port in front of `upstream` (`http://host:port`).
    pub async fn start(
        upstream: &str,
        twist: impl Fn(&Method, &str, &mut Response<Bytes>) + Send + Sync + 'static,
    ) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client");
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            client,
            twist: Box::new(twist),
            twisting: AtomicBool::new(true),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let app = axum::Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await });
        Self {
            addr,
            shared,
            _serving: serving,
        }
    }

    /// Its URL without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Passes answers on as they are from now on.
    pub fn mend(&self) {
        self.shared.twisting.store(false, Ordering::SeqCst);
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("a whole request");
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let answer = shared
        .client
        .request(parts.method.clone(), format!("{}{target}", shared.upstream))
        .headers(parts.headers)
        .body(body)
        .send()
        .await
        .expect("the registry answers");
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = answer.status();
    response.headers_mut().clone_from(answer.headers());
    response.headers_mut().remove(header::TRANSFER_ENCODING);
    *response.body_mut() = answer.bytes().await.expect("a whole answer");
    if shared.twisting.load(Ordering::SeqCst) {
        (shared.twist)(&parts.method, parts.uri.path(), &mut response);
    }
    if parts.method != Method::HEAD {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response.map(Body::from)
}
