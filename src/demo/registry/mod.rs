//! A small, strict registry in memory, on a loopback port.
//!
//! It answers as CNCF distribution 3 does (or, by [`Habits`], as 2.8 does), so that what works here works there:
//! it checks digests, refuses a manifest whose content is missing, keeps what a broken upload brought.

mod auth;
mod blobs;
mod failure;
mod listing;
mod manifests;
mod options;
mod route;
mod storage;
mod uploads;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Body as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use options::{Credentials, Habits, Options};

use crate::demo::images::SampleImage;
use crate::oci::{Digest, RepositoryName, Tag};
use failure::Failure;
use route::Route;
use storage::Storage;

/// How long [`Running::stop`] waits for requests under way before it cuts them.
const GRACE: Duration = Duration::from_secs(2);

/// Starts registries.
#[derive(Debug)]
pub struct Registry;

/// A registry that answers until it is stopped or dropped.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    shared: Arc<Shared>,
    stopping: CancellationToken,
    // Dropping the set ends the task that accepts connections.
    serving: JoinSet<io::Result<()>>,
}

/// One request as the registry saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The method.
    pub method: Method,
    /// The path, without the query.
    pub path: String,
    /// The answer's status; `None` while there is no answer, which stays so when the client broke off.
    pub status: Option<StatusCode>,
    /// Bytes of the request's body read so far.
    pub received: u64,
    /// Length of the answer's body in bytes.
    pub sent: u64,
}

/// A manifest that the registry keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its digest.
    pub digest: Digest,
    /// Its media type, as it was pushed.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
    /// The tags that name it, sorted.
    pub tags: Vec<Tag>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    storage: Mutex<Storage>,
    log: watch::Sender<Vec<Logged>>,
}

/// A request that matched a route, without its body.
struct Asked {
    method: Method,
    headers: HeaderMap,
    query: Vec<(String, String)>,
    /// Where the request stands in the log.
    index: usize,
}

impl Registry {
    /// Starts a registry on a free loopback port.
    ///
    /// # Errors
    /// No port can be had.
    pub async fn start(options: Options) -> io::Result<Running> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            options,
            storage: Mutex::default(),
            log: watch::Sender::new(Vec::new()),
        });
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let stopping = CancellationToken::new();
        let stopped = stopping.clone().cancelled_owned();
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).with_graceful_shutdown(stopped).await });
        Ok(Running {
            addr,
            shared,
            stopping,
            serving,
        })
    }
}

impl Running {
    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its address as a URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// All requests so far, in the order in which they came.
    pub fn log(&self) -> Vec<Logged> {
        self.shared.log.borrow().clone()
    }

    /// Waits until the log shows what is asked for; the caller sets the deadline.
    pub async fn logged(&self, mut seen: impl FnMut(&[Logged]) -> bool) {
        let mut log = self.shared.log.subscribe();
        // An error would mean that the sender is gone, but `self` holds it.
        let _ = log.wait_for(|log| seen(log)).await;
    }

    /// Puts an image, with all that it lists, under a tag, as a push would.
    pub fn seed(&self, repository: &RepositoryName, tag: &Tag, image: &SampleImage) {
        self.shared.storage().seed(repository, Some(tag), image);
    }

    /// The digest that a tag names.
    pub fn resolve(&self, repository: &RepositoryName, tag: &Tag) -> Option<Digest> {
        let storage = self.shared.storage();
        storage.repository(repository)?.tagged(tag).cloned()
    }

    /// The names of a repository's tags, sorted.
    pub fn tags(&self, repository: &RepositoryName) -> Vec<Tag> {
        let storage = self.shared.storage();
        storage
            .repository(repository)
            .map(storage::Repository::sorted_tags)
            .unwrap_or_default()
    }

    /// The names of all repositories, sorted.
    pub fn repositories(&self) -> Vec<RepositoryName> {
        self.shared.storage().names().cloned().collect()
    }

    /// All manifests of a repository, tagged or not, by digest; `None` where there is no such repository.
    pub fn manifests(&self, repository: &RepositoryName) -> Option<Vec<Held>> {
        let storage = self.shared.storage();
        let repository = storage.repository(repository)?;
        let held = repository.manifests().map(|(digest, stored)| Held {
            digest: digest.clone(),
            media_type: stored.media_type.clone(),
            bytes: stored.bytes.clone(),
            tags: repository.tags_of(digest),
        });
        Some(held.collect())
    }

    /// A blob's bytes, where the repository has it.
    pub fn blob(&self, repository: &RepositoryName, digest: &Digest) -> Option<Bytes> {
        self.shared.storage().blob(repository, digest)
    }

    /// Takes a blob's bytes away behind the registry's back: its manifests stay.
    pub fn lose_blob(&self, digest: &Digest) -> bool {
        self.shared.storage().lose_blob(digest)
    }

    /// Deletes a repository with all that it holds; false where there is none.
    pub fn delete_repository(&self, repository: &RepositoryName) -> bool {
        self.shared.storage().delete_repository(repository)
    }

    /// Answers no new request, lets those under way end for a short while, and ends.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        let ended = tokio::time::timeout(GRACE, self.serving.join_next()).await;
        if ended.is_err() {
            self.serving.shutdown().await;
        }
    }
}

impl Drop for Running {
    /// Lets the connections end too: they have tasks of their own.
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

impl Shared {
    fn storage(&self) -> MutexGuard<'_, Storage> {
        self.storage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, index: usize, change: impl FnOnce(&mut Logged)) {
        self.log.send_modify(|log| {
            if let Some(entry) = log.get_mut(index) {
                change(entry);
            }
        });
    }
}

impl Asked {
    fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    fn header(&self, name: http::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn query(&self, name: &str) -> Option<&str> {
        let pair = self.query.iter().find(|(key, _)| key == name)?;
        Some(&pair.1)
    }

    /// An absolute URL from the `Host` header, as distribution makes them.
    fn absolute(&self, path: &str) -> String {
        let host = self.header(http::header::HOST).unwrap_or("localhost");
        format!("http://{host}{path}")
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut index = 0;
    shared.log.send_modify(|log| {
        index = log.len();
        log.push(Logged {
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            status: None,
            received: 0,
            sent: 0,
        });
    });
    let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let asked = Asked {
        method: parts.method,
        query: query.into_owned().collect(),
        headers: parts.headers,
        index,
    };
    let head = asked.is_head();
    let outcome = dispatch(&shared, asked, parts.uri.path(), body).await;
    let mut response = outcome.unwrap_or_else(IntoResponse::into_response);
    let headers = response.headers_mut();
    headers.insert(
        "docker-distribution-api-version",
        HeaderValue::from_static("registry/2.0"),
    );
    headers.insert(
        http::header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    if shared.options.omit_digest_header {
        headers.remove("docker-content-digest");
    }
    let length = response.body().size_hint().exact().unwrap_or_default();
    if head && length > 0 {
        response
            .headers_mut()
            .insert(http::header::CONTENT_LENGTH, length.into());
        *response.body_mut() = Body::empty();
    }
    shared.note(index, |entry| {
        entry.status = Some(response.status());
        entry.sent = if head { 0 } else { length };
    });
    response
}

async fn dispatch(shared: &Shared, asked: Asked, path: &str, body: Body) -> Result<Response, Failure> {
    let route = Route::parse(path);
    auth::check(&shared.options, &asked)?;
    let method = asked.method.clone();
    match (route.ok_or_else(Failure::page_not_found)?, method.as_str()) {
        (Route::Base, "GET" | "HEAD") => Ok(listing::json(&serde_json::json!({}))),
        (Route::Catalog, "GET") => listing::catalog(shared, &asked),
        (Route::Tags(name), "GET") => listing::tags(shared, &asked, &name),
        (Route::Referrers(name, digest), "GET") => manifests::referrers(shared, &asked, &name, &digest),
        (Route::Manifest(name, reference), "GET" | "HEAD") => manifests::get(shared, &asked, &name, &reference),
        (Route::Manifest(name, reference), "PUT") => manifests::put(shared, &asked, &name, reference, body).await,
        (Route::Manifest(name, reference), "DELETE") => manifests::delete(shared, &name, &reference),
        (Route::Blob(name, digest), "GET" | "HEAD") => blobs::get(shared, &asked, &name, &digest),
        (Route::Blob(name, digest), "DELETE") => blobs::delete(shared, &name, &digest),
        (Route::Uploads(name), "POST") => uploads::start(shared, &asked, &name),
        (Route::Upload(name, id), "GET" | "HEAD") => uploads::status(shared, &asked, &name, &id),
        (Route::Upload(name, id), "PATCH") => uploads::patch(shared, &asked, &name, &id, body).await,
        (Route::Upload(name, id), "PUT") => uploads::finish(shared, &asked, &name, &id, body).await,
        (Route::Upload(name, id), "DELETE") => uploads::cancel(shared, &asked, &name, &id),
        _ => Err(Failure::unsupported()),
    }
}
