//! GitHub's registry and, below `/api`, the packages of its REST API (docs.github.com, "REST API endpoints for packages";
//! the registry itself as oras-project/rust-oci-client#35 and tektoncd/chains#1691 saw it).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use axum::response::Response;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use transship::demo::registry::Options;

use super::token::Tokens;
use super::{Asked, Asking, Book, Face, Fake, REPLACED, document, refusal, tags, with_header};

/// A user, and his token for all of GitHub.
pub const USER: &str = "octocat";
pub const TOKEN: &str = "ghp_fake-token";
/// The only organisation; every other owner is a user.
pub const ORGANISATION: &str = "octo-org";
/// Tags or versions of a page.
const PAGE: usize = 100;
/// The longest body of a request that says where it belongs.
const LONGEST_PIECE: u64 = 4 * 1024 * 1024;

pub struct Github {
    tokens: Tokens,
    /// The token has not the scope `read:packages`.
    pub denies_listing: AtomicBool,
    /// So many requests to the API are told that there were too many.
    pub over_limit: AtomicU32,
    /// All requests of the hour are used up.
    pub spent: AtomicBool,
    /// Of the next piece of an upload no more bytes than these are taken; 0: all of them.
    pub takes: AtomicUsize,
}

impl Github {
    pub async fn start() -> (Fake, Arc<Self>) {
        let github = Arc::new(Self {
            tokens: Tokens::new("/token", "ghcr.io"),
            denies_listing: AtomicBool::new(false),
            over_limit: AtomicU32::new(0),
            spent: AtomicBool::new(false),
            takes: AtomicUsize::new(0),
        });
        (Fake::start(Arc::clone(&github), Options::default()).await, github)
    }

    /// The keys of its rules.
    pub fn keys(fake: &Fake) -> String {
        format!("{}, username: {USER}, password: {TOKEN}", Self::anonymous(fake))
    }

    /// The keys of its rules for nobody.
    pub fn anonymous(fake: &Fake) -> String {
        format!("kind: github, endpoint: \"{}/api\"", fake.url())
    }

    fn api(&self, book: &Book, request: &Asking, path: &str) -> Asked {
        if request.bearer() == Some(REPLACED) {
            return Asked::Answer(document(401, &json!({ "message": "Bad credentials" })));
        }
        if request.bearer() != Some(TOKEN) {
            return Asked::Wrong("the API takes the token itself".to_owned());
        }
        if request.header("accept") != Some("application/vnd.github+json") {
            return Asked::Wrong("the form of the answer is asked for".to_owned());
        }
        let number = |name: &str| request.parameter(name).and_then(|text| text.parse::<usize>().ok());
        let (Some(page @ 1..), Some(size @ 1..=PAGE)) = (number("page"), number("per_page")) else {
            return Asked::Wrong("a list is read by pages of 100 at most".to_owned());
        };
        let left = self
            .over_limit
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() {
            let message = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
            return Asked::Answer(document(403, &json!({ "message": message })));
        }
        if self.spent.load(Ordering::SeqCst) {
            let reset = transship::clock::Clock::system().now().as_second() + 1800;
            let message = "API rate limit exceeded for user ID 1.";
            let answer = document(403, &json!({ "message": message }));
            let answer = with_header(answer, "x-ratelimit-remaining", "0");
            return Asked::Answer(with_header(answer, "x-ratelimit-reset", &reset.to_string()));
        }
        if self.denies_listing.load(Ordering::SeqCst) {
            let message = "You need at least read:packages scope to list packages.";
            return Asked::Answer(document(403, &json!({ "message": message })));
        }
        let parts: Vec<&str> = path.split('/').collect();
        let (sort, owner) = match parts[..] {
            [sort @ ("orgs" | "users"), owner, "packages", ..] => (sort, owner),
            _ => return Asked::Wrong("the API has no such path".to_owned()),
        };
        if (sort == "orgs") != (owner == ORGANISATION) {
            return Asked::Answer(document(404, &json!({ "message": "Not Found" })));
        }
        let entries = match parts[3..] {
            [] if request.parameter("package_type").as_deref() == Some("container") => packages(book, owner),
            ["container", name, "versions"] => match versions(book, &format!("{owner}/{}", name.replace("%2F", "/"))) {
                Some(versions) => versions,
                None => return Asked::Answer(document(404, &json!({ "message": "Package not found." }))),
            },
            _ => return Asked::Wrong("the API has no such path".to_owned()),
        };
        let shown: Vec<&Value> = entries.iter().skip((page - 1) * size).take(size).collect();
        Asked::Answer(document(200, &json!(shown)))
    }
}

fn packages(book: &Book, owner: &str) -> Vec<Value> {
    let names = book.registry.repositories();
    let own = names
        .iter()
        .filter_map(|name| name.as_str().strip_prefix(owner)?.strip_prefix('/'));
    own.map(|name| json!({ "name": name, "package_type": "container", "visibility": "private" }))
        .collect()
}

/// Every manifest, those without tags too.
fn versions(book: &Book, repository: &str) -> Option<Vec<Value>> {
    let held = book.registry.manifests(&repository.parse().ok()?)?;
    let versions = held.iter().enumerate().map(|(id, held)| {
        json!({
            "id": id, "name": held.digest, "updated_at": "2026-03-01T12:00:00Z",
            "metadata": { "package_type": "container", "container": { "tags": held.tags } },
        })
    });
    Some(versions.collect())
}

/// The names of tags in an order of its own, a hundred at a time.
fn reversed(book: &Book, request: &Asking) -> Option<Response> {
    let repository = request.repository()?.parse().ok()?;
    book.registry.manifests(&repository)?;
    let mut tags = book.registry.tags(&repository);
    tags.reverse();
    tags::page(request, &tags, PAGE)
}

impl Face for Arc<Github> {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        if let Some(path) = request.path.strip_prefix("/api/") {
            return self.api(book, request, path);
        }
        if self.tokens.is_realm(request) {
            let user = match request.basic() {
                Some((user, secret)) if user == USER && secret == TOKEN => Some(user),
                Some(_) => return Asked::Wrong("another login than the rules have".to_owned()),
                // The packages of this fake are private.
                None => return Asked::Answer(refusal(403, "DENIED", "requested access to the resource is denied")),
            };
            return self.tokens.give(book, request, user.as_deref(), |_, _| true);
        }
        // What belongs to another owner is not mounted, and the upload is opened for who may push.
        let owner = |name: &str| name.split('/').next().map(str::to_owned);
        let from = request.parameter("from");
        let is_foreign = from.is_some_and(|from| owner(&from) != request.repository().and_then(owner));
        let plain = Asking {
            query: String::new(),
            ..request.clone()
        };
        if let Some(refused) = self.tokens.refuses(book, if is_foreign { &plain } else { request }) {
            return refused;
        }
        if is_foreign {
            return Asked::PassAs(String::new());
        }
        if request.path == "/v2/_catalog" {
            return Asked::Wrong("there is no catalogue".to_owned());
        }
        if request.method == Method::DELETE && request.reference().is_some() {
            return Asked::Wrong("manifests are deleted by the API alone".to_owned());
        }
        let length = request.header("content-length").and_then(|text| text.parse().ok());
        if request.header("content-range").is_some() && length.unwrap_or(u64::MAX) > LONGEST_PIECE {
            let message = "request body is too large; the maximum size for a chunk is 4.00MiB";
            book.wrong(request, message);
            return Asked::Answer(refusal(416, "REQUESTED_RANGE_NOT_SATISFIABLE", message));
        }
        let takes = match request.method {
            Method::PATCH => self.takes.swap(0, Ordering::SeqCst),
            _ => 0,
        };
        if takes > 0 {
            return Asked::PassPart(takes);
        }
        if request.method == Method::GET && request.path.ends_with("/tags/list") {
            return reversed(book, request).map_or(Asked::Pass, Asked::Answer);
        }
        Asked::Pass
    }

    fn answered(&self, _book: &Book, request: &Asking, mut answer: Response) -> Response {
        // The place of an upload says nothing of its state.
        if request.path.contains("/blobs/uploads/")
            && let Some(location) = answer.headers().get(header::LOCATION).and_then(|at| at.to_str().ok())
            && let Some((plain, _)) = location.split_once('?')
        {
            let plain = HeaderValue::from_str(plain).expect("a place");
            answer.headers_mut().insert(header::LOCATION, plain);
        }
        match answer.status() {
            StatusCode::BAD_REQUEST if request.reference().is_some() => {
                refusal(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")
            }
            _ => answer,
        }
    }
}
