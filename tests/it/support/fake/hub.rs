//! Docker Hub: the registry with its meter and its token server, and the Hub API below `/hub`
//! (docs.docker.com, "Docker Hub API" and "Pull usage and limits").

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use transship::demo::registry::Options;

use super::token::{Tokens, Worth};
use super::{Asked, Asking, Book, Face, Fake, document, lock, refusal, with_header};

/// An account.
pub const USER: &str = "corp";
/// Its access token, which stands for a password.
pub const SECRET: &str = "dckr_pat_fake-secret";
/// An access token of the organisation of that name.
pub const ORGANISATION_SECRET: &str = "dckr_oat_fake-secret";
/// The largest page: larger ones are cut.
const PAGE: usize = 100;

/// What the fake has beside what the registry behind it keeps.
pub struct Hub {
    tokens: Tokens,
    state: Mutex<State>,
    /// It is asked by its own names.
    is_itself: bool,
}

/// What a test changes, and what was counted.
#[derive(Default)]
pub struct State {
    /// Manifests that may be read yet; `None` for a plan without limit.
    pub pulls_left: Option<u32>,
    /// Tags from before the API knew digests.
    pub old: HashSet<String>,
    /// The new login is not there yet.
    pub old_login: bool,
    /// The API refuses this user.
    pub denies_listing: bool,
    /// A namespace that the API does not show.
    pub hidden: Option<String>,
    /// Repositories that are private.
    pub private: HashSet<String>,
    /// The token has not the scope to list those.
    pub hides_private: bool,
    /// The API lets nobody log in.
    pub refuses_logins: bool,
    /// The API takes no token, not even a new one.
    pub refuses_tokens: bool,
    /// Tokens of the API that are good.
    given: HashSet<String>,
    /// Manifests that were read.
    pub pulled: u32,
    /// Manifests that were not read as the limit was reached.
    pub refused: u32,
    /// Logins at the API.
    pub logins: u32,
    pages: BTreeMap<String, usize>,
}

impl Hub {
    pub async fn start() -> (Fake, Arc<Self>) {
        let hub = Arc::new(Self {
            tokens: Tokens::new("/token", "registry.docker.io"),
            state: Mutex::default(),
            is_itself: false,
        });
        (Fake::start(Arc::clone(&hub), Options::default()).await, hub)
    }

    /// As Docker Hub is known: three hosts, of which each answers for itself alone.
    pub async fn start_as_itself() -> (Fake, Arc<Self>) {
        let hub = Arc::new(Self {
            tokens: Tokens::new("/token", "registry.docker.io").at("https://auth.docker.io"),
            state: Mutex::default(),
            is_itself: true,
        });
        let url = "https://registry-1.docker.io".to_owned();
        (
            Fake::start_as(Arc::clone(&hub), Options::default(), Some(url)).await,
            hub,
        )
    }

    /// The keys of its rules for an account.
    pub fn keys(fake: &Fake) -> String {
        format!("{}, username: {USER}, password: {SECRET}", Self::anonymous(fake))
    }

    /// The keys of its rules for nobody.
    pub fn anonymous(fake: &Fake) -> String {
        format!("kind: docker_hub, endpoint: \"{}/hub\"", fake.url())
    }

    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.state));
    }

    pub fn pulled(&self) -> u32 {
        lock(&self.state).pulled
    }

    pub fn refused(&self) -> u32 {
        lock(&self.state).refused
    }

    pub fn logins(&self) -> u32 {
        lock(&self.state).logins
    }

    fn registry(&self, book: &Book, request: &Asking) -> Asked {
        if request.basic().is_some() {
            return Asked::Wrong("the password is for the token server alone".to_owned());
        }
        match self.tokens.worth(book, request) {
            Worth::Good(_) => {}
            Worth::Missing | Worth::Ended => {
                return Asked::Answer(self.tokens.challenge(book, request, "authentication required"));
            }
            Worth::Lacks(_) => {
                let message = "access to the resource is denied";
                return Asked::Answer(self.tokens.challenge(book, request, message));
            }
            Worth::Unknown => return Asked::Wrong("a token that the token server did not give out".to_owned()),
        }
        if request.path == "/v2/_catalog" {
            return Asked::Wrong("there is no catalogue".to_owned());
        }
        if request.repository().is_some_and(|name| !name.contains('/')) {
            return Asked::Wrong("an official image is in `library`".to_owned());
        }
        if request.method == Method::GET && request.reference().is_some() {
            let mut state = lock(&self.state);
            match &mut state.pulls_left {
                Some(0) => {
                    state.refused += 1;
                    return Asked::Answer(over_limit());
                }
                Some(left) => *left -= 1,
                None => {}
            }
            state.pulled += 1;
        }
        Asked::Pass
    }

    fn api(&self, book: &Book, request: &Asking, path: &str) -> Asked {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("POST", ["v2", "auth", "token"]) if lock(&self.state).old_login => Asked::Answer(not_found()),
            ("POST", ["v2", "auth", "token"]) => self.log_in(request, "identifier", "secret", "access_token"),
            ("POST", ["v2", "users", "login"]) => self.log_in(request, "username", "password", "token"),
            ("GET", ["v2", "namespaces", namespace, ..]) if lock(&self.state).hidden.as_deref() == Some(namespace) => {
                Asked::Answer(document(403, &json!({ "message": "access denied" })))
            }
            ("GET", ["v2", "namespaces", namespace, "repositories"]) => {
                self.listing(book, request, |book| self.repositories(book, namespace))
            }
            ("GET", ["v2", "namespaces", namespace, "repositories", name, "tags"]) => {
                let repository = format!("{namespace}/{name}");
                self.listing(book, request, |book| self.tags(book, &repository))
            }
            _ => Asked::Wrong("the API has no such path".to_owned()),
        }
    }

    fn log_in(&self, request: &Asking, user: &str, secret: &str, field: &str) -> Asked {
        if request.authorization().is_some() {
            return Asked::Wrong("who logs in has no login yet".to_owned());
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let refuses = lock(&self.state).refuses_logins;
        let good = [SECRET, ORGANISATION_SECRET].iter().any(|good| body[secret] == *good);
        if refuses || body[user] != USER || !good {
            return Asked::Answer(document(
                401,
                &json!({ "detail": "Incorrect authentication credentials" }),
            ));
        }
        let mut state = lock(&self.state);
        state.logins += 1;
        let token = format!("hub-jwt-{}", state.logins);
        state.given.insert(token.clone());
        Asked::Answer(document(200, &json!({ field: token })))
    }

    fn listing(&self, book: &Book, request: &Asking, entries: impl FnOnce(&Book) -> Option<Vec<Value>>) -> Asked {
        match request.authorization() {
            None => {}
            Some(_) => {
                let known = request
                    .bearer()
                    .is_some_and(|token| lock(&self.state).given.contains(token));
                if !known {
                    return Asked::Wrong("the API takes the tokens of its own login alone".to_owned());
                }
            }
        }
        if lock(&self.state).refuses_tokens {
            return Asked::Answer(document(401, &json!({ "message": "unauthorized" })));
        }
        if lock(&self.state).denies_listing {
            return Asked::Answer(document(403, &json!({ "message": "access denied" })));
        }
        let number = |name: &str| request.parameter(name).and_then(|text| text.parse::<usize>().ok());
        let (Some(page), Some(size)) = (number("page"), number("page_size")) else {
            return Asked::Wrong("a list is read by pages".to_owned());
        };
        if size > PAGE {
            return Asked::Wrong(format!("a page has {PAGE} entries at most"));
        }
        let Some(entries) = entries(book) else {
            return Asked::Answer(not_found());
        };
        let before = lock(&self.state)
            .pages
            .insert(request.path.clone(), page)
            .unwrap_or_default();
        if page != 1 && (page != before + 1 || (page - 1) * size >= entries.len()) {
            return Asked::Wrong(format!("page {page} after page {before}"));
        }
        let next = (page * size < entries.len())
            .then(|| format!("{}{}?page={}&page_size={size}", book.url, request.path, page + 1));
        let shown: Vec<&Value> = entries.iter().skip((page - 1) * size).take(size).collect();
        let body = json!({ "count": entries.len(), "next": next, "previous": null, "results": shown });
        Asked::Answer(document(200, &body))
    }

    fn repositories(&self, book: &Book, namespace: &str) -> Option<Vec<Value>> {
        let all = book.registry.repositories();
        let state = lock(&self.state);
        let of = all.iter().filter_map(|full| {
            let (of, name) = full.as_str().split_once('/')?;
            let private = state.private.contains(full.as_str());
            let shown = of == namespace && !(private && state.hides_private);
            shown.then(|| json!({ "name": name, "namespace": of, "is_private": private }))
        });
        let of: Vec<Value> = of.collect();
        (!of.is_empty()).then_some(of)
    }

    fn tags(&self, book: &Book, repository: &str) -> Option<Vec<Value>> {
        let held = book.registry.manifests(&repository.parse().ok()?)?;
        let old = lock(&self.state).old.clone();
        let tags = held.iter().flat_map(|held| {
            let old = &old;
            held.tags.iter().map(move |tag| {
                let known = !old.contains(tag.as_str());
                json!({
                    "name": tag,
                    "digest": known.then_some(&held.digest),
                    "media_type": if known { held.media_type.as_str() } else { "" },
                    "tag_last_pushed": "2026-03-01T12:00:00.123456Z",
                    // Never what the tag points to.
                    "images": [{ "architecture": "amd64", "digest": format!("sha256:{}", "e".repeat(64)) }],
                })
            })
        });
        Some(tags.collect())
    }
}

impl Face for Arc<Hub> {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        let host = request.header("host").unwrap_or_default();
        if self.is_itself && host == "hub.docker.com" {
            return self.api(book, request, &request.path);
        }
        let named = if self.tokens.is_realm(request) {
            "auth.docker.io"
        } else {
            "registry-1.docker.io"
        };
        if self.is_itself && host != named {
            return Asked::Wrong(format!("it is at {named}, and was asked for at {host}"));
        }
        if self.tokens.is_realm(request) {
            let user = match request.basic() {
                Some((user, secret)) if user == USER && [SECRET, ORGANISATION_SECRET].contains(&secret.as_str()) => {
                    Some(user)
                }
                Some(_) => return Asked::Answer(refusal(401, "UNAUTHORIZED", "incorrect username or password")),
                None => None,
            };
            let known = user.is_some();
            return self
                .tokens
                .give(book, request, user.as_deref(), |_, action| known || action == "pull");
        }
        match request.path.strip_prefix("/hub") {
            Some(path) => self.api(book, request, path),
            None => self.registry(book, request),
        }
    }

    fn answered(&self, _book: &Book, request: &Asking, answer: Response) -> Response {
        let left = lock(&self.state).pulls_left;
        match left {
            // Said with HEAD too, which counts for nothing.
            Some(left) if request.reference().is_some() && answer.status() == StatusCode::OK => {
                let answer = with_header(answer, "ratelimit-limit", "100;w=21600");
                with_header(answer, "ratelimit-remaining", &format!("{left};w=21600"))
            }
            _ => answer,
        }
    }
}

fn over_limit() -> Response {
    let message = "You have reached your pull rate limit. You may increase the limit by authenticating and upgrading";
    refusal(429, "TOOMANYREQUESTS", message)
}

fn not_found() -> Response {
    document(404, &json!({ "message": "object not found", "errinfo": {} }))
}
