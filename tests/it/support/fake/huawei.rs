//! Huawei Cloud SWR, the shared edition: the paths of its token server and of its organisations are those of
//! goharbor/harbor, adapter huawei.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use http::Method;
use serde_json::{Value, json};
use transship::demo::registry::Options;

use super::token::{Login, Tokens};
use super::{Asked, Asking, Book, Face, Fake, document, lock, refusal};

/// A login of long life: the region, and an access key.
pub const USER: &str = "cn-north-4@AKFAKE";
/// What is made of the access key and its secret.
pub const PASSWORD: &str = "5a1c9f3de0";

pub struct Huawei {
    tokens: Tokens,
    organisations: Mutex<BTreeSet<String>>,
}

impl Huawei {
    /// With these organisations.
    pub async fn start(organisations: &[&str]) -> (Fake, Arc<Self>) {
        let names = organisations.iter().map(|name| (*name).to_owned());
        let huawei = Arc::new(Self {
            tokens: Tokens::new("/swr/auth/v2/registry/auth", "dockyard"),
            organisations: Mutex::new(names.collect()),
        });
        (Fake::start(Arc::clone(&huawei), Options::default()).await, huawei)
    }

    /// The keys of its rules.
    pub fn keys() -> String {
        format!("kind: huawei, username: \"{USER}\", password: {PASSWORD}")
    }

    fn api(&self, request: &Asking, path: &str) -> Asked {
        match request.basic() {
            Some((user, password)) if user == USER && password == PASSWORD => {}
            _ => return Asked::Wrong("organisations are asked for by user and password".to_owned()),
        }
        let mut organisations = lock(&self.organisations);
        match (request.method.as_str(), path.strip_prefix("namespaces/")) {
            ("GET", Some(name)) => {
                // One that is missing has no name.
                let name = organisations.get(name).map_or("", String::as_str);
                Asked::Answer(document(200, &json!({ "id": 1, "name": name, "auth": 7 })))
            }
            ("POST", None) if path == "namespaces" => {
                let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
                let Some(name) = asked["namespace"].as_str() else {
                    return Asked::Wrong("an organisation without a name".to_owned());
                };
                match organisations.insert(name.to_owned()) {
                    true => Asked::Answer(document(201, &json!({}))),
                    false => Asked::Answer(document(409, &json!({ "errors": [{ "message": "it exists" }] }))),
                }
            }
            _ => Asked::Wrong("the API has no such path".to_owned()),
        }
    }
}

impl Face for Arc<Huawei> {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        if let Some(path) = request.path.strip_prefix("/dockyard/v2/") {
            return self.api(request, path);
        }
        let judged = |user: &str, password: &str| match (user, password) {
            (USER, PASSWORD) => Login::Good,
            _ => Login::Other,
        };
        if let Some(asked) = self.tokens.guard(book, request, judged) {
            return asked;
        }
        let organisation = request
            .path
            .strip_prefix("/v2/")
            .and_then(|path| path.split('/').next());
        let there = organisation.is_some_and(|name| lock(&self.organisations).contains(name));
        if request.writes() && request.method != Method::DELETE && !there {
            return Asked::Answer(refusal(
                403,
                "DENIED",
                "you do not have the permission, or the namespace is missing",
            ));
        }
        Asked::Pass
    }
}
