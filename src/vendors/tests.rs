//! Clouds whose API and registry are one scripted server.

mod alibaba;
mod environment;
mod huawei;
mod huawei_instance;
mod nexus;
mod tencent;

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::response::Response;
use serde_json::Value;

use crate::clock::Clock;
use crate::oci::RepositoryName;
use crate::registry::{
    CloudSettings, Endpoint, Habits, Limiter, RegistrySettings, RegistryUrl, RemoteSettings, Vendor,
};

/// A server whose answers a closure makes; it ends when it is dropped.
struct Stage {
    at: RegistryUrl,
    seen: Arc<Mutex<Vec<String>>>,
    _serving: tokio::task::JoinSet<std::io::Result<()>>,
}

impl Stage {
    /// Answers by `script`, which gets the action of the API, else method and path, and how many of the same came before.
    async fn open(script: impl Fn(&str, usize) -> Response<Body> + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::<String>::new()));
        let (script, log) = (Arc::new(script), Arc::clone(&seen));
        let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
            let (script, log) = (Arc::clone(&script), Arc::clone(&log));
            async move {
                let action = ["x-tc-action", "x-acs-action"]
                    .iter()
                    .find_map(|name| request.headers().get(*name)?.to_str().ok());
                let what = match action {
                    Some(action) => action.to_owned(),
                    None => format!("{} {}", request.method(), request.uri().path()),
                };
                let before = {
                    let mut log = log.lock().expect("no panic while held");
                    log.push(what.clone());
                    log.iter().filter(|seen| **seen == what).count() - 1
                };
                script(&what, before)
            }
        });
        let (at, serving) = serve(app).await;
        Self {
            at,
            seen,
            _serving: serving,
        }
    }

    /// What the rules say of it.
    fn settings(&self, cloud: CloudSettings) -> RemoteSettings {
        settings_at(&self.at, cloud)
    }

    fn count(&self, what: &str) -> usize {
        let seen = self.seen.lock().expect("no panic while held");
        seen.iter().filter(|seen| *seen == what).count()
    }
}

/// Serves both a registry and its cloud's API, until what comes with the address is dropped.
pub(super) async fn serve(app: axum::Router) -> (RegistryUrl, tokio::task::JoinSet<std::io::Result<()>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = RegistryUrl {
        plain_http: true,
        host: listener.local_addr().expect("an address").to_string(),
        path: String::new(),
    };
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move { axum::serve(listener, app).await });
    (at, serving)
}

/// What the rules say of a registry whose API is at the same address.
pub(super) fn settings_at(at: &RegistryUrl, cloud: CloudSettings) -> RemoteSettings {
    RemoteSettings {
        url: at.clone(),
        endpoint: Some(at.clone()),
        cloud,
        ..RemoteSettings::default()
    }
}

pub(super) fn end_of(vendor: Arc<dyn Vendor>, settings: RemoteSettings) -> Endpoint {
    let (limiter, settings) = (Limiter::default(), RegistrySettings::Remote(Box::new(settings)));
    Endpoint::open("cloud", &settings, Habits::default(), vendor, Clock::system(), &limiter).expect("an end")
}

fn repository(name: &str) -> RepositoryName {
    name.parse().expect("a name")
}

fn answer(status: u16, value: &Value) -> Response<Body> {
    with_headers(status, &[], value.to_string())
}

fn with_headers(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).expect("an answer")
}

/// A registry of which nothing is there.
fn nothing() -> Response<Body> {
    answer(404, &serde_json::json!({ "errors": [{ "code": "NAME_UNKNOWN" }] }))
}
