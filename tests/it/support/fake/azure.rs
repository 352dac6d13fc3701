//! A fake of Azure Container Registry, and of the Entra ID and the managed identity that it trusts.

pub mod manager;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, Method, header};
use jiff::SignedDuration;
use serde_json::{Value, json};
use transship::clock::Clock;
use transship::demo::registry::Options;

use super::token::{Tokens, Worth, needed};
use super::{Asked, Asking, Book, Face, Fake, document, lock, refusal, with_header};

pub const TENANT: &str = "11111111-2222-3333-4444-555555555555";
/// What App Service gives a program in its environment, to be shown again.
pub const IDENTITY_HEADER: &str = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a";
pub const CLIENT: &str = "99999999-8888-7777-6666-555555555555";
pub const SECRET: &str = "entra~secret-0123456789";
pub const FEDERATED: &str = "eyJm.token.of-the-workload";
/// The admin user, or a token of the registry.
pub const ADMIN: (&str, &str) = ("corp", "admin-password-0123456789");
const SERVICE: &str = "corp.azurecr.io";

/// One of Azure's clouds by its own names (learn.microsoft.com, "Azure Container Registry endpoints", "National clouds").
pub struct Names {
    pub registry: &'static str,
    /// The dedicated data endpoint, to which reads of blobs are sent on.
    pub data: &'static str,
    pub authority: &'static str,
    pub manager: &'static str,
}

pub static PUBLIC: Names = Names {
    registry: "corp00.azurecr.io",
    data: "corp00.westeurope.data.azurecr.io",
    authority: "login.microsoftonline.com",
    manager: "management.azure.com",
};
/// Another registry of the same cloud.
pub static OTHER: Names = Names {
    registry: "other0.azurecr.io",
    data: "other0.westeurope.data.azurecr.io",
    ..PUBLIC
};
pub static CHINA: Names = Names {
    registry: "corp00.azurecr.cn",
    data: "corp00.chinaeast2.data.azurecr.cn",
    authority: "login.chinacloudapi.cn",
    manager: "management.chinacloudapi.cn",
};
pub static GOVERNMENT: Names = Names {
    registry: "corp00.azurecr.us",
    data: "corp00.usgovvirginia.data.azurecr.us",
    authority: "login.microsoftonline.us",
    manager: "management.usgovcloudapi.net",
};
const AUDIENCE: &str = "https://containerregistry.azure.net";
/// Tags of a page, whatever is asked for.
pub const PAGE: usize = 100;
/// A parameter of the place of an upload.
const NO_CACHE: &str = "_nouploadcache";
/// Repositories of a page.
pub const CATALOGUE_PAGE: usize = 2;

/// What the tests of a fake turn, beside those of the frame.
#[derive(Default)]
pub struct Cloud {
    /// Tokens of Entra ID for the registry are refused; those for the resource manager are not.
    pub manager_only: AtomicBool,
    /// The token of the registry lacks `metadata_read`.
    pub no_metadata: AtomicBool,
    /// No page may have a length that is asked for.
    pub refuses_size: AtomicBool,
    /// Tags that may not be written.
    pub locked: Mutex<HashSet<String>>,
    /// Tags and digests that may not be read (`readEnabled`).
    pub unreadable: Mutex<HashSet<String>>,
    /// As many first requests of an upload fail with 500, as in a new repository.
    pub fresh: AtomicU32,
    /// The resource manager.
    pub manager: Arc<manager::Manager>,
    /// Tokens of Entra ID, by what they are for.
    entra: Arc<Mutex<BTreeMap<String, String>>>,
    refresh: Mutex<BTreeMap<String, u64>>,
    /// Links to next pages that were given out.
    links: Mutex<HashSet<String>>,
}

struct Azure {
    cloud: Arc<Cloud>,
    tokens: Tokens,
    service: &'static str,
    /// By which names it is asked; `None`: by its address alone, and without a resource manager.
    names: Option<&'static Names>,
}

/// It has the referrers API (learn.microsoft.com, "Manage OCI artifacts and supply chain artifacts with ORAS").
fn options() -> Options {
    Options {
        referrers_api: true,
        ..Options::default()
    }
}

/// A running fake.
pub async fn start() -> (Fake, Arc<Cloud>) {
    let cloud = Arc::new(Cloud::default());
    let face = Azure {
        cloud: Arc::clone(&cloud),
        tokens: Tokens::new("/oauth2/token", SERVICE),
        service: SERVICE,
        names: None,
    };
    (Fake::start(face, options()).await, cloud)
}

/// One that is asked by a cloud's names, which lead to it.
pub async fn start_as(names: &'static Names) -> (Fake, Arc<Cloud>) {
    let cloud = Arc::new(Cloud::default());
    (of_names(names, &cloud).await, cloud)
}

/// Another registry that trusts the same Entra ID.
pub async fn start_beside(names: &'static Names, cloud: &Cloud) -> Fake {
    let other = Cloud {
        entra: Arc::clone(&cloud.entra),
        ..Cloud::default()
    };
    of_names(names, &Arc::new(other)).await
}

async fn of_names(names: &'static Names, cloud: &Arc<Cloud>) -> Fake {
    let face = Azure {
        cloud: Arc::clone(cloud),
        tokens: Tokens::new("/oauth2/token", names.registry),
        service: names.registry,
        names: Some(names),
    };
    let url = format!("https://{}", names.registry);
    Fake::start_as(face, options(), Some(url)).await
}

fn form(request: &Asking) -> Vec<(String, String)> {
    url::form_urlencoded::parse(&request.body).into_owned().collect()
}

/// The only value of a field.
fn field<'f>(form: &'f [(String, String)], name: &str) -> Option<&'f str> {
    let mut values = form
        .iter()
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value.as_str());
    let value = values.next();
    value.filter(|_| values.next().is_none())
}

/// A token that says when it ends.
fn jwt(number: usize) -> String {
    let ends = Clock::system().now() + SignedDuration::from_hours(3);
    let claims = json!({ "exp": ends.as_second(), "jti": number });
    format!("eyJh.{}.sig{number}", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn disallowed() -> Response {
    let message = "The operation is disallowed on this registry, repository or image. View troubleshooting steps at \
                   https://aka.ms/acr/faq/";
    refusal(405, "REGISTRY_DISALLOWED_OPERATION", message)
}

/// What stands in the rules for a fake, beside its address.
pub fn keys(fake: &Fake) -> String {
    format!(
        "kind: azure, azure: {{ tenant_id: {TENANT}, client_id: {CLIENT}, client_secret: \"{SECRET}\", authority: \"{}\" }}",
        fake.url()
    )
}

impl Azure {
    fn entra_token(&self, audience: &str) -> Asked {
        let mut given = lock(&self.cloud.entra);
        let token = format!("entra-token-{}", given.len());
        given.insert(token.clone(), audience.to_owned());
        Asked::Answer(document(
            200,
            &json!({ "token_type": "Bearer", "expires_in": 3599, "access_token": token }),
        ))
    }

    fn entra(&self, request: &Asking) -> Asked {
        let form = form(request);
        let field = |name: &str| field(&form, name);
        if request.method != Method::POST || field("grant_type") != Some("client_credentials") {
            return Asked::Wrong("Entra ID is asked by another grant".to_owned());
        }
        let Some(audience) = field("scope").and_then(|scope| scope.strip_suffix("/.default")) else {
            return Asked::Wrong("the scope is none of an application".to_owned());
        };
        let proven = match (field("client_secret"), field("client_assertion")) {
            (Some(secret), None) => secret == SECRET,
            (None, Some(token)) => {
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                token == FEDERATED && field("client_assertion_type") == Some(kind)
            }
            _ => return Asked::Wrong("one proof is needed".to_owned()),
        };
        if field("client_id") != Some(CLIENT) || !proven {
            return Asked::Answer(document(
                401,
                &json!({ "error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 1" }),
            ));
        }
        self.entra_token(audience)
    }

    fn exchange(&self, request: &Asking) -> Asked {
        let form = form(request);
        let field = |name: &str| field(&form, name);
        if request.method != Method::POST
            || field("grant_type") != Some("access_token")
            || field("service") != Some(self.service)
            || field("tenant").is_some_and(|tenant| tenant != TENANT)
            || request.authorization().is_some()
        {
            return Asked::Wrong("the exchange is not as documented".to_owned());
        }
        let audience = lock(&self.cloud.entra)
            .get(field("access_token").unwrap_or_default())
            .cloned();
        let manager = self.names.map_or("management.azure.com", |names| names.manager);
        match audience.as_deref() {
            None => Asked::Wrong("a token that Entra ID did not give out".to_owned()),
            Some(AUDIENCE) if self.cloud.manager_only.load(Ordering::Relaxed) => {
                Asked::Answer(refusal(401, "UNAUTHORIZED", "authentication required"))
            }
            Some(audience) if audience == AUDIENCE || audience.strip_prefix("https://") == Some(manager) => {
                let mut refresh = lock(&self.cloud.refresh);
                let token = jwt(refresh.len());
                refresh.insert(token.clone(), 0);
                Asked::Answer(document(200, &json!({ "refresh_token": token })))
            }
            Some(_) => Asked::Wrong("a token for somebody else".to_owned()),
        }
    }

    /// Basic by GET, a refresh token by POST of a form with one scope a field.
    fn realm(&self, book: &Book, request: &Asking) -> Asked {
        let granted =
            |_: &str, action: &str| action != "metadata_read" || !self.cloud.no_metadata.load(Ordering::Relaxed);
        if request.method == Method::GET {
            return match request.basic() {
                Some((user, password)) if (user.as_str(), password.as_str()) == ADMIN => {
                    self.tokens.give(book, request, Some(&user), granted)
                }
                _ => Asked::Answer(refusal(401, "UNAUTHORIZED", "authentication required")),
            };
        }
        let fields = form(request);
        if field(&fields, "grant_type") != Some("refresh_token") {
            return Asked::Wrong("another grant".to_owned());
        }
        if !lock(&self.cloud.refresh).contains_key(field(&fields, "refresh_token").unwrap_or_default()) {
            return Asked::Wrong("a refresh token that was not given out".to_owned());
        }
        let mut scopes = fields.iter().filter(|(name, _)| name == "scope");
        if scopes.any(|(_, scope)| scope.contains(' ')) {
            return Asked::Wrong("a field holds one scope".to_owned());
        }
        // The same answer as by GET.
        let as_get = Asking {
            method: Method::GET,
            query: String::from_utf8_lossy(&request.body).into_owned(),
            ..request.clone()
        };
        self.tokens.give(book, &as_get, Some("entra"), granted)
    }

    fn tags(&self, book: &Book, request: &Asking, repository: &str) -> Asked {
        let sized = request.parameter("n").is_some() && request.parameter("last").is_none();
        if sized && self.cloud.refuses_size.load(Ordering::Relaxed) {
            return Asked::Answer(refusal(
                400,
                "PAGINATION_NUMBER_INVALID",
                "invalid number of results requested",
            ));
        }
        let all = repository.parse().ok().and_then(|name| book.registry.manifests(&name));
        let Some(held) = all else {
            return Asked::Answer(refusal(404, "NAME_UNKNOWN", "repository name not known to registry"));
        };
        let mut tags: Vec<(String, String)> = held
            .iter()
            .flat_map(|held| held.tags.iter().map(|tag| (tag.to_string(), held.digest.to_string())))
            .collect();
        tags.sort();
        let last = request.parameter("last");
        if last.is_some() && !lock(&self.cloud.links).contains(&request.target()) {
            return Asked::Wrong("a page that no link led to".to_owned());
        }
        let after = tags
            .iter()
            .filter(|(tag, _)| last.as_deref().is_none_or(|last| tag.as_str() > last));
        let page: Vec<&(String, String)> = after.clone().take(PAGE).collect();
        let time = "2019-01-01T00:00:00.1234567Z";
        let entries: Vec<Value> = page
            .iter()
            .map(|(tag, digest)| {
                json!({
                    "name": tag, "digest": digest, "createdTime": time, "lastUpdateTime": time, "signed": false,
                    "changeableAttributes": { "deleteEnabled": true, "writeEnabled": true, "readEnabled": true, "listEnabled": true },
                })
            })
            .collect();
        let answer = document(
            200,
            &json!({ "registry": self.service, "imageName": repository, "tags": entries }),
        );
        let more = after.count() > page.len();
        Asked::Answer(match page.last().filter(|_| more) {
            Some((tag, _)) => {
                let link = format!("/acr/v1/{repository}/_tags?last={tag}&n={PAGE}&orderby=");
                lock(&self.cloud.links).insert(link.clone());
                with_header(answer, "link", &format!("<{link}>; rel=\"next\""))
            }
            None => answer,
        })
    }

    /// Its links are to be followed as they are, the empty `orderby=` too.
    fn catalogue(&self, book: &Book, request: &Asking) -> Asked {
        let last = request.parameter("last");
        if last.is_some() && !lock(&self.cloud.links).contains(&request.target()) {
            return Asked::Wrong("a page that no link led to".to_owned());
        }
        let all: BTreeSet<String> = book.registry.repositories().iter().map(ToString::to_string).collect();
        let mut after = all
            .into_iter()
            .filter(|name| last.as_ref().is_none_or(|last| name > last));
        let page: Vec<String> = after.by_ref().take(CATALOGUE_PAGE).collect();
        let answer = document(200, &json!({ "repositories": page }));
        Asked::Answer(match (page.last(), after.next()) {
            (Some(name), Some(_)) => {
                let link = format!("/v2/_catalog?last={name}&n={CATALOGUE_PAGE}&orderby=");
                lock(&self.cloud.links).insert(link.clone());
                with_header(answer, "link", &format!("<{link}>; rel=\"next\""))
            }
            _ => answer,
        })
    }

    /// What comes to the hosts beside the registry; `None` where that is asked.
    fn elsewhere(&self, book: &Book, request: &Asking) -> Option<Asked> {
        let names = self.names?;
        let host = request.header("host").unwrap_or_default();
        let is_login = request.path == format!("/{TENANT}/oauth2/v2.0/token");
        match host {
            host if host == names.authority => {
                (!is_login).then(|| Asked::Wrong("Entra ID is asked for something else".to_owned()))
            }
            host if host == names.manager => {
                let audience = request
                    .bearer()
                    .and_then(|token| lock(&self.cloud.entra).get(token).cloned());
                Some(match audience {
                    Some(audience) if audience == format!("https://{host}") => {
                        self.cloud.manager.asked(request, host, &book.registry.url())
                    }
                    _ => Asked::Wrong("the resource manager sees a token for somebody else".to_owned()),
                })
            }
            // Its addresses are signed, and hold for a read of one blob.
            host if host == names.data => Some(match (request.authorization(), request.parameter("sig")) {
                (None, Some(_)) if request.method == Method::GET && request.path.contains("/blobs/") => {
                    Asked::PassAs(String::new())
                }
                (Some(_), _) => Asked::Wrong("a login goes to the data endpoint".to_owned()),
                _ => Asked::Wrong("the data endpoint is asked for something else".to_owned()),
            }),
            host if host == names.registry => {
                is_login.then(|| Asked::Wrong("a host that is not Entra ID's is asked for its tokens".to_owned()))
            }
            // The machine's own service.
            _ if request.path.starts_with("/metadata/") => None,
            _ => Some(Asked::Wrong(format!("another cloud's host is asked: {host}"))),
        }
    }

    fn guarded(&self, book: &Book, request: &Asking, needed: Vec<String>) -> Option<Asked> {
        // Basic works everywhere too.
        let basic = request.basic();
        if basic.is_some_and(|(user, password)| (user.as_str(), password.as_str()) == ADMIN) {
            return None;
        }
        match self.tokens.worth_of(book, request, needed.clone()) {
            Worth::Good(_) => None,
            Worth::Unknown => Some(Asked::Wrong("a token that was not given out".to_owned())),
            _ => {
                let message = "authentication required, visit https://aka.ms/acr/authorization for more information.";
                Some(Asked::Answer(self.tokens.challenge_of(book, needed, message)))
            }
        }
    }
}

impl Face for Azure {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        if let Some(asked) = self.elsewhere(book, request) {
            return asked;
        }
        if request.path == format!("/{TENANT}/oauth2/v2.0/token") {
            return self.entra(request);
        }
        if request.path == "/metadata/identity/oauth2/token" {
            let right = request.header("metadata") == Some("true")
                && request.parameter("api-version").as_deref() == Some("2018-02-01");
            return match request.parameter("resource").filter(|_| right) {
                Some(audience) => self.entra_token(&audience),
                None => Asked::Wrong("the managed identity is not asked as documented".to_owned()),
            };
        }
        // learn.microsoft.com, "Use managed identities for App Service and Azure Functions".
        if request.path == "/msi/token" {
            let right = request.header("x-identity-header") == Some(IDENTITY_HEADER)
                && request.header("metadata").is_none()
                && request.parameter("api-version").as_deref() == Some("2019-08-01")
                && request.parameter("client_id").as_deref() == Some(CLIENT);
            return match request.parameter("resource").filter(|_| right) {
                Some(audience) => self.entra_token(&audience),
                None => Asked::Wrong("App Service is not asked as documented".to_owned()),
            };
        }
        if request.path == "/oauth2/exchange" {
            return self.exchange(request);
        }
        if self.tokens.is_realm(request) {
            return self.realm(book, request);
        }
        let listed = request
            .path
            .strip_prefix("/acr/v1/")
            .and_then(|rest| rest.strip_suffix("/_tags"));
        let mut wanted = needed(request);
        if let Some(repository) = listed.or(request.repository().filter(|_| request.path.ends_with("/tags/list"))) {
            wanted = vec![format!("repository:{repository}:metadata_read")];
        }
        if let Some(asked) = self.guarded(book, request, wanted) {
            return asked;
        }
        if let Some(repository) = listed {
            return self.tags(book, request, repository);
        }
        if request.path == "/v2/_catalog" {
            return self.catalogue(book, request);
        }
        let first = request.method == Method::POST && request.path.ends_with("/blobs/uploads/");
        let left = |left: u32| left.checked_sub(1);
        if first
            && self
                .cloud
                .fresh
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left)
                .is_ok()
        {
            return Asked::Answer(refusal(500, "UNKNOWN", "unknown error"));
        }
        let locked = request
            .reference()
            .is_some_and(|tag| lock(&self.cloud.locked).contains(tag));
        if request.method == Method::PUT && locked {
            return Asked::Answer(disallowed());
        }
        let hidden = request
            .reference()
            .is_some_and(|reference| lock(&self.cloud.unreadable).contains(reference));
        if !request.writes() && hidden {
            return Asked::Answer(disallowed());
        }
        if let Some(names) = self.names
            && request.method == Method::GET
            && request.path.contains("/blobs/sha256:")
        {
            let mut answer = Response::default();
            *answer.status_mut() = http::StatusCode::TEMPORARY_REDIRECT;
            let at = format!("https://{}{}?sig=a%2Fb&se=1", names.data, request.path);
            return Asked::Answer(with_header(answer, "location", &at));
        }
        // What the place of an upload says of it goes with each piece.
        let is_piece =
            [Method::PATCH, Method::PUT].contains(&request.method) && request.path.contains("/blobs/uploads/");
        if is_piece && request.parameter(NO_CACHE).as_deref() != Some("false") {
            return Asked::Wrong("the query of the upload's place is lost".to_owned());
        }
        Asked::Pass
    }

    /// The place of an upload is a path, with a query of its own.
    fn answered(&self, _book: &Book, request: &Asking, mut answer: Response) -> Response {
        let at = answer.headers().get(header::LOCATION).and_then(|at| at.to_str().ok());
        if request.path.contains("/blobs/uploads/")
            && let Some((path, query)) = at.and_then(|at| at.split_once('?'))
        {
            // The registry behind writes the name by which it was asked.
            let path = path
                .split_once("://")
                .map_or(path, |(_, rest)| &rest[rest.find('/').unwrap_or(0)..]);
            let at = format!("{path}?{NO_CACHE}=false&{query}");
            answer
                .headers_mut()
                .insert(header::LOCATION, HeaderValue::from_str(&at).expect("a place"));
        }
        answer
    }

    fn throttled(&self, _request: &Asking) -> Response {
        with_header(refusal(429, "TOOMANYREQUESTS", "too many requests"), "retry-after", "0")
    }

    fn immutable(&self, _tag: &str) -> Option<Response> {
        Some(disallowed())
    }
}
