//! A strict token server of a fake: opaque tokens with scopes, which are checked at every request.

use std::collections::HashMap;
use std::sync::Mutex;

use axum::response::Response;
use http::Method;
use serde_json::json;

use super::{Asked, Asking, Book, document, lock, refusal, with_header};
use crate::support::{PASSWORD, USERNAME};

/// Gives tokens out at one path and checks them.
pub struct Tokens {
    path: &'static str,
    /// `None`: that of the registry.
    origin: Option<&'static str>,
    /// `None`: it is called by its realm.
    service: Option<&'static str>,
    /// A token is good for whatever its user may do, and nobody is told which scope to ask for.
    is_for_all: bool,
    given: Mutex<HashMap<String, Given>>,
}

struct Given {
    user: Option<String>,
    /// `repository:name:action`, one action each.
    scopes: Vec<String>,
    era: u64,
}

/// What the token of a request is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Worth {
    /// There is none.
    Missing,
    /// It has ended.
    Ended,
    /// It is good, for this user.
    Good(Option<String>),
    /// It was given out for less: these are missing.
    Lacks(Vec<String>),
    /// It was never given out.
    Unknown,
}

/// How a registry asks for the one login that the rules have.
pub enum Asks {
    /// With this challenge, for user and password at every request.
    Basic(&'static str),
    /// For a token, which it gives for them.
    Token(Tokens),
}

impl Asks {
    /// What becomes of a request that is not let through; `None` for one that is.
    pub fn refuses(&self, book: &Book, request: &Asking) -> Option<Asked> {
        let is_ours = |user: &str, password: &str| user == USERNAME && password == PASSWORD;
        let challenge = match self {
            Self::Basic(challenge) => *challenge,
            Self::Token(tokens) => {
                return tokens.guard(book, request, |user, password| match is_ours(user, password) {
                    true => Login::Good,
                    false => Login::Other,
                });
            }
        };
        match request.basic() {
            Some((user, password)) if is_ours(&user, &password) => None,
            Some(_) => Some(Asked::Wrong("another login than the rules have".to_owned())),
            None => {
                let answer = refusal(401, "UNAUTHORIZED", "authentication required");
                Some(Asked::Answer(with_header(answer, "www-authenticate", challenge)))
            }
        }
    }
}

/// What user and password at a realm are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    Good,
    /// It was good once.
    Ended,
    /// Nobody has it: the test fails.
    Other,
}

impl Tokens {
    /// Those of a service whose realm is this path of the fake.
    pub fn new(path: &'static str, service: &'static str) -> Self {
        Self {
            path,
            origin: None,
            service: Some(service),
            is_for_all: false,
            given: Mutex::default(),
        }
    }

    /// Where the realm is at another origin than the registry.
    pub fn at(self, origin: &'static str) -> Self {
        Self {
            origin: Some(origin),
            ..self
        }
    }

    /// Those of a realm at this path, which heeds no scopes and is its service, too.
    pub fn for_all(path: &'static str) -> Self {
        Self {
            service: None,
            is_for_all: true,
            ..Self::new(path, "")
        }
    }

    fn service(&self, book: &Book) -> String {
        self.service
            .map_or_else(|| format!("{}{}", book.url, self.path), str::to_owned)
    }

    /// True for a request to the realm.
    pub fn is_realm(&self, request: &Asking) -> bool {
        request.path == self.path
    }

    /// Answers a request to the realm (`GET`). `granted` says whether a user (`None`: nobody) may do `action` with a
    /// repository; what is not granted is left out of the token, as token servers do.
    pub fn give(
        &self,
        book: &Book,
        request: &Asking,
        user: Option<&str>,
        granted: impl Fn(&str, &str) -> bool,
    ) -> Asked {
        if request.method != Method::GET {
            return Asked::Answer(refusal(405, "UNSUPPORTED", "the method is not allowed"));
        }
        let service = self.service(book);
        if request.parameter("service").as_ref() != Some(&service) {
            return Asked::Wrong(format!("the service is not {service}"));
        }
        let mut scopes = Vec::new();
        for scope in request.all("scope").iter().flat_map(|scope| scope.split(' ')) {
            let Some((name, actions)) = scope.rsplit_once(':').filter(|(name, _)| name.contains(':')) else {
                return Asked::Wrong(format!("{scope} is no scope"));
            };
            for action in actions.split(',') {
                let (kind, repository) = name.split_once(':').unwrap_or_default();
                if !["repository", "registry"].contains(&kind) || repository.is_empty() || action.is_empty() {
                    return Asked::Wrong(format!("{scope} is no scope"));
                }
                if granted(repository, action) {
                    scopes.push(format!("{name}:{action}"));
                }
            }
        }
        let mut given = lock(&self.given);
        let token = format!("fake-token-{}", given.len());
        given.insert(
            token.clone(),
            Given {
                user: user.map(str::to_owned),
                scopes,
                era: book.era(),
            },
        );
        // Long enough that only the fake's own clock ends it.
        Asked::Answer(document(200, &json!({ "token": token, "expires_in": 3600 })))
    }

    /// Where everything is for who logs in and nothing for nobody: what the realm answers, and what becomes of a request without
    /// a good token; `None` for one that is let through. `judged` says what user and password are worth.
    pub fn guard(&self, book: &Book, request: &Asking, judged: impl Fn(&str, &str) -> Login) -> Option<Asked> {
        if !self.is_realm(request) {
            return self.refuses(book, request);
        }
        let login = request.basic();
        let user = match &login {
            None => None,
            Some((user, password)) => match judged(user, password) {
                Login::Good => Some(user.as_str()),
                Login::Ended => return Some(Asked::Answer(refusal(401, "UNAUTHORIZED", "authentication failed"))),
                Login::Other => return Some(Asked::Wrong("another login than the rules have".to_owned())),
            },
        };
        Some(self.give(book, request, user, |_, _| user.is_some()))
    }

    /// What the token of a request to `/v2/` is worth.
    pub fn worth(&self, book: &Book, request: &Asking) -> Worth {
        self.worth_of(book, request, needed(request))
    }

    /// As [`Tokens::worth`], where the request needs these scopes, one action each.
    pub fn worth_of(&self, book: &Book, request: &Asking, needed: Vec<String>) -> Worth {
        let Some(token) = request.bearer() else {
            return Worth::Missing;
        };
        let given = lock(&self.given);
        let Some(given) = given.get(token) else {
            return Worth::Unknown;
        };
        if given.era < book.era() {
            return Worth::Ended;
        }
        let lacks: Vec<String> = needed
            .into_iter()
            .filter(|scope| !self.is_for_all && !given.scopes.contains(scope))
            .collect();
        match lacks.is_empty() {
            true => Worth::Good(given.user.clone()),
            false => Worth::Lacks(lacks),
        }
    }

    /// A 401 that says what the request needs.
    pub fn challenge(&self, book: &Book, request: &Asking, message: &str) -> Response {
        self.challenge_of(book, needed(request), message)
    }

    /// What becomes of a request whose token is not good for it; `None` where it is.
    pub fn refuses(&self, book: &Book, request: &Asking) -> Option<Asked> {
        match self.worth(book, request) {
            Worth::Good(_) => None,
            Worth::Missing | Worth::Ended | Worth::Lacks(_) => {
                Some(Asked::Answer(self.challenge(book, request, "authentication required")))
            }
            Worth::Unknown => Some(Asked::Wrong("a token that was not given out".to_owned())),
        }
    }

    /// As [`Tokens::challenge`], where these scopes are needed, one action each.
    pub fn challenge_of(&self, book: &Book, needed: Vec<String>, message: &str) -> Response {
        let mut scopes: Vec<String> = Vec::new();
        for scope in needed.into_iter().filter(|_| !self.is_for_all) {
            let (name, action) = scope.rsplit_once(':').unwrap_or_default();
            match scopes.iter_mut().find(|known| known.starts_with(&format!("{name}:"))) {
                Some(known) => known.push_str(&format!(",{action}")),
                None => scopes.push(scope),
            }
        }
        let service = self.service(book);
        let origin = self.origin.unwrap_or(&book.url);
        let mut challenge = format!("Bearer realm=\"{origin}{}\",service=\"{service}\"", self.path);
        if !scopes.is_empty() {
            challenge.push_str(&format!(",scope=\"{}\"", scopes.join(" ")));
        }
        with_header(refusal(401, "UNAUTHORIZED", message), "www-authenticate", &challenge)
    }
}

/// What a request to `/v2/` needs, one action each, as distribution has it.
pub fn needed(request: &Asking) -> Vec<String> {
    if request.path == "/v2/_catalog" {
        return vec!["registry:catalog:*".to_owned()];
    }
    let Some(repository) = request.repository() else {
        return Vec::new();
    };
    let actions: &[&str] = match request.method {
        Method::GET | Method::HEAD => &["pull"],
        Method::DELETE => &["delete"],
        _ => &["pull", "push"],
    };
    let own = actions.iter().map(|action| format!("repository:{repository}:{action}"));
    let from = request.parameter("from").filter(|from| from != repository);
    own.chain(from.map(|from| format!("repository:{from}:pull"))).collect()
}
