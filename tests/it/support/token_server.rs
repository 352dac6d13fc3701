//! A strict token server for `docker-registry` (distribution `docs/spec/auth/token.md`).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{StatusCode, header};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SigningKey as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use transship::clock::Clock;

use super::docker_registry::TokenAuth;
use super::{PASSWORD, USERNAME};

const SERVICE: &str = "test-registry";
const ISSUER: &str = "transship-test";
/// Life of a token in seconds: the least that the specification allows.
const LIFE: i64 = 60;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The user, where credentials came along.
    pub user: Option<String>,
    /// The scopes, one a parameter.
    pub scopes: Vec<String>,
    /// What was answered.
    pub status: u16,
}

/// Gives out tokens of 60 seconds, ended on drop. The account may do everything; without
/// credentials only `pull` is granted, and only where `anonymous_pull` is set.
pub struct TokenServer {
    addr: SocketAddr,
    inner: Arc<Inner>,
    directory: TempDir,
    _serving: JoinSet<std::io::Result<()>>,
}

struct Inner {
    key: KeyPair,
    certificate: Vec<u8>,
    anonymous_pull: bool,
    clock: Clock,
    requests: Mutex<Vec<TokenRequest>>,
}

impl TokenServer {
    /// Starts one on a free port.
    pub async fn start(anonymous_pull: bool) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, ISSUER);
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(directory.path().join("bundle.pem"), certificate.pem()).expect("a file");
        let inner = Arc::new(Inner {
            key,
            certificate: certificate.der().to_vec(),
            anonymous_pull,
            clock: Clock::system(),
            requests: Mutex::default(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&inner));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await });
        Self {
            addr,
            inner,
            directory,
            _serving: serving,
        }
    }

    /// For [`super::docker_registry::DockerConfig::token`].
    pub fn docker_auth(&self) -> TokenAuth {
        TokenAuth {
            realm: format!("http://{}/token", self.addr),
            service: SERVICE.to_owned(),
            issuer: ISSUER.to_owned(),
            root_bundle: self.bundle(),
        }
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<TokenRequest> {
        self.inner.requests.lock().expect("not poisoned").clone()
    }

    fn bundle(&self) -> PathBuf {
        self.directory.path().join("bundle.pem")
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default().as_bytes();
    let query: Vec<(String, String)> = url::form_urlencoded::parse(query).into_owned().collect();
    let all = |name: &str| -> Vec<String> {
        let values = query.iter().filter(|(key, _)| key == name);
        values.map(|(_, value)| value.clone()).collect()
    };
    let authorization = request.headers().get(header::AUTHORIZATION);
    let user = match authorization.map(|value| user(value.to_str().unwrap_or_default())) {
        None => Ok(None),
        Some(Some(user)) => Ok(Some(user)),
        Some(None) => Err(StatusCode::UNAUTHORIZED),
    };
    let scopes = all("scope");
    let granted = if request.method() != http::Method::GET {
        Err(StatusCode::METHOD_NOT_ALLOWED)
    } else if request.uri().path() != "/token" {
        Err(StatusCode::NOT_FOUND)
    } else if all("service") != [SERVICE] {
        Err(StatusCode::BAD_REQUEST)
    } else {
        user.clone().and_then(|user| grant(&inner, user.as_deref(), &scopes))
    };
    let response = match granted {
        Ok(access) => {
            let token = inner.sign(user.clone().ok().flatten().as_deref().unwrap_or_default(), &access);
            axum::Json(json!({ "token": token, "expires_in": LIFE })).into_response()
        }
        Err(status) => {
            let errors = json!({ "errors": [{ "code": "UNAUTHORIZED", "message": "refused" }] });
            (status, axum::Json(errors)).into_response()
        }
    };
    inner.requests.lock().expect("not poisoned").push(TokenRequest {
        user: user.ok().flatten(),
        scopes,
        status: response.status().as_u16(),
    });
    response
}

/// The user of right credentials.
fn user(authorization: &str) -> Option<String> {
    let encoded = authorization.strip_prefix("Basic ")?;
    let pair = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    (pair == format!("{USERNAME}:{PASSWORD}")).then(|| USERNAME.to_owned())
}

fn grant(inner: &Inner, user: Option<&str>, scopes: &[String]) -> Result<Vec<Value>, StatusCode> {
    if user.is_none() && !inner.anonymous_pull {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let mut access = Vec::new();
    // distribution also takes several scopes in one parameter, separated by spaces.
    for scope in scopes.iter().flat_map(|scope| scope.split(' ')) {
        let (kind, rest) = scope.split_once(':').ok_or(StatusCode::BAD_REQUEST)?;
        let (name, actions) = rest.rsplit_once(':').ok_or(StatusCode::BAD_REQUEST)?;
        let known = match kind {
            "repository" => name.parse::<transship::oci::RepositoryName>().is_ok(),
            "registry" => name == "catalog" && actions == "*",
            _ => false,
        };
        if !known {
            return Err(StatusCode::BAD_REQUEST);
        }
        let mut granted = Vec::new();
        for action in actions.split(',') {
            match action {
                "pull" => granted.push(action),
                "push" | "delete" | "*" if user.is_some() => granted.push(action),
                "push" | "delete" | "*" => {}
                _ => return Err(StatusCode::BAD_REQUEST),
            }
        }
        if !granted.is_empty() {
            access.push(json!({ "type": kind, "name": name, "actions": granted }));
        }
    }
    Ok(access)
}

impl Inner {
    fn sign(&self, subject: &str, access: &[Value]) -> String {
        let now = self.clock.now().as_second();
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(&self.certificate)] });
        let number = self.requests.lock().expect("not poisoned").len();
        let claims = json!({
            "iss": ISSUER, "sub": subject, "aud": SERVICE, "exp": now + LIFE, "nbf": now - 5, "iat": now,
            "jti": number.to_string(), "access": access,
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(fixed(&signature)))
    }
}

/// From ASN.1 (`SEQUENCE { INTEGER r, INTEGER s }`) to the 64 bytes of RFC 7518, section 3.4.
fn fixed(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut fixed = Vec::with_capacity(64);
    for _ in 0..2 {
        let length = usize::from(rest[1]);
        let number = &rest[2..2 + length];
        rest = &rest[2 + length..];
        let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
        let number = &number[first..];
        fixed.resize(fixed.len() + 32 - number.len(), 0);
        fixed.extend_from_slice(number);
    }
    fixed
}
