//! Sonatype Nexus Repository 3, whose lists of tags hold nulls (containers/skopeo#2409).

use std::sync::Arc;

use axum::response::Response;
use http::Method;
use serde_json::{Value, json};
use transship::demo::registry::Options;

use super::{Asked, Asking, Book, Face, Fake, document, refusal, with_header};
use crate::support::{PASSWORD, USERNAME};

pub struct Nexus;

impl Nexus {
    pub async fn start() -> Fake {
        Fake::start(Arc::new(Self), Options::default()).await
    }

    /// The keys of its rules.
    pub fn keys() -> String {
        format!("kind: nexus, username: {USERNAME}, password: {PASSWORD}")
    }
}

/// The names of a repository's tags between others; `None` where there is no such repository.
pub fn tags_between(book: &Book, request: &Asking, others: &[Value]) -> Option<Response> {
    let name = request.repository()?;
    let repository = name.parse().ok()?;
    book.registry.manifests(&repository)?;
    let mut tags = others.to_vec();
    tags.extend(book.registry.tags(&repository).iter().map(|tag| json!(tag)));
    tags.extend_from_slice(others);
    Some(document(200, &json!({ "name": name, "tags": tags })))
}

impl Face for Arc<Nexus> {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        match request.basic() {
            Some((user, password)) if user == USERNAME && password == PASSWORD => {}
            Some(_) => return Asked::Wrong("another login than the rules have".to_owned()),
            None => {
                let answer = refusal(
                    401,
                    "UNAUTHORIZED",
                    "access to the requested resource is not authorized",
                );
                let challenge = "BASIC realm=\"Sonatype Nexus Repository Manager\"";
                return Asked::Answer(with_header(answer, "www-authenticate", challenge));
            }
        }
        if request.method == Method::GET && request.path.ends_with("/tags/list") {
            return tags_between(book, request, &[Value::Null]).map_or(Asked::Pass, Asked::Answer);
        }
        Asked::Pass
    }

    fn answered(&self, _book: &Book, _request: &Asking, answer: Response) -> Response {
        with_header(answer, "server", "Nexus/3.70.0-03 (OSS)")
    }
}
