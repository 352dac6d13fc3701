//! The other host that a registry redirects blob reads to.

use std::io::SeekFrom;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::io::ReaderStream;

/// Serves the files of a registry's storage. Dropping it fails the test if a request bore credentials.
pub struct Origin {
    addr: SocketAddr,
    inner: Arc<Inner>,
    _serving: JoinSet<std::io::Result<()>>,
}

struct Inner {
    root: PathBuf,
    paths: Mutex<Vec<String>>,
    credentials: Mutex<Vec<String>>,
}

impl Origin {
    /// Serves what is below `root`, the registry's storage directory.
    pub async fn start(root: PathBuf) -> Self {
        let inner = Arc::new(Inner {
            root,
            paths: Mutex::default(),
            credentials: Mutex::default(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&inner));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await });
        Self {
            addr,
            inner,
            _serving: serving,
        }
    }

    /// For [`super::docker_registry::DockerConfig::redirect`]. By name, where the registry is known by
    /// address: another host.
    pub fn url(&self) -> String {
        format!("http://localhost:{}", self.addr.port())
    }

    /// Paths asked for.
    pub fn paths(&self) -> Vec<String> {
        self.inner.paths.lock().expect("not poisoned").clone()
    }

    /// Paths asked for with an `Authorization` header, of which there must be none.
    pub fn credentials_seen(&self) -> Vec<String> {
        self.inner.credentials.lock().expect("not poisoned").clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(
                self.credentials_seen(),
                Vec::<String>::new(),
                "credentials left their host"
            );
        }
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    inner.paths.lock().expect("not poisoned").push(path.clone());
    if request.headers().contains_key(header::AUTHORIZATION) {
        inner.credentials.lock().expect("not poisoned").push(path.clone());
    }
    let file = inner.root.join(path.trim_start_matches('/'));
    let Ok(mut file) = tokio::fs::File::open(file).await else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let size = file.metadata().await.map_or(0, |metadata| metadata.len());
    let range = request.headers().get(header::RANGE).and_then(|range| {
        let (start, end) = range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
        let end = end.parse().map_or(size, |end: u64| size.min(end + 1));
        Some((start.parse::<u64>().ok()?, end))
    });
    let (start, end) = range.unwrap_or((0, size));
    if start > end || file.seek(SeekFrom::Start(start)).await.is_err() {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let length = (header::CONTENT_LENGTH, (end - start).to_string());
    if request.method() == http::Method::HEAD {
        return ([length], Body::empty()).into_response();
    }
    let body = Body::from_stream(ReaderStream::new(file.take(end - start)));
    match range {
        None => ([length], body).into_response(),
        Some(_) => {
            let range = (
                header::CONTENT_RANGE,
                format!("bytes {start}-{}/{size}", end.max(1) - 1),
            );
            (StatusCode::PARTIAL_CONTENT, [length, range], body).into_response()
        }
    }
}
