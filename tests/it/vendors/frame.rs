//! The frame of the fakes itself: it lets right requests through as they are, and lets no wrong one pass unnoticed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use http::Method;
use transship::demo::registry::Options;

use crate::support::fake::token::{Tokens, Worth};
use crate::support::fake::{Asked, Asking, Book, Face, Fake};
use crate::support::images::{image, two_platforms};
use crate::support::wire::Wire;
use crate::support::{PASSWORD, USERNAME};

/// A registry behind a token server, with nothing else of its own.
pub struct Guarded(Tokens);

impl Guarded {
    /// With its realm at this path, for this service.
    pub fn at(path: &'static str, service: &'static str) -> Self {
        Self(Tokens::new(path, service))
    }

    async fn start() -> Fake {
        Fake::start(Self::at("/token", "guarded"), Options::default()).await
    }
}

impl Face for Guarded {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        if self.0.is_realm(request) {
            let user = request
                .basic()
                .filter(|(user, password)| user == USERNAME && password == PASSWORD);
            let user = user.map(|(user, _)| user);
            return self.0.give(book, request, user.as_deref(), |_, action| {
                action == "pull" || user.is_some()
            });
        }
        match self.0.worth(book, request) {
            Worth::Good(_) => Asked::Pass,
            Worth::Missing | Worth::Ended | Worth::Lacks(_) => {
                Asked::Answer(self.0.challenge(book, request, "authentication required"))
            }
            Worth::Unknown => Asked::Wrong("a token that was not given out".to_owned()),
        }
    }
}

#[tokio::test]
async fn what_is_right_passes_as_it_is() {
    let fake = Guarded::start().await;
    let wire = Wire::with_account(fake.url());
    let sample = two_platforms(1, &[300_000]);
    wire.push("app", "v1", &sample).await;
    assert_eq!(fake.resolve("app", "v1"), Some(sample.digest()));
    assert_eq!(wire.resolve("app", "v1").await, Some(sample.digest()));
    assert_eq!(wire.tags("app").await, ["v1"]);
    let held = fake.book().registry.manifests(&"app".parse().expect("a name"));
    let held = held.expect("a repository");
    assert_eq!(held.len(), 3);
    let tagged: Vec<_> = held.iter().filter(|manifest| !manifest.tags.is_empty()).collect();
    assert_eq!((tagged.len(), &tagged[0].digest), (1, &sample.digest()));
    let blob = &sample.children[0].blobs[0];
    let path = format!("/v2/app/blobs/{}", transship::oci::Digest::of(blob));
    let part = wire.get(&path, &[("range", "bytes=1-3")]).await.expect(206);
    assert_eq!(part.body, blob.slice(1..4));
    assert!(fake.count("PUT", "/blobs/uploads/") > 0);
    fake.finish();
}

#[tokio::test]
async fn what_is_wrong_fails_the_test() {
    for (method, path, headers) in [
        (
            Method::GET,
            "/v2/app/tags/list",
            &[("authorization", "Bearer made-up")][..],
        ),
        (Method::GET, "/token?service=another&scope=repository:app:pull", &[]),
        (Method::GET, "/token?service=guarded&scope=app", &[]),
        (
            Method::PATCH,
            "/v2/app/blobs/uploads/1",
            &[("content-range", "bytes 0-1/2")],
        ),
    ] {
        let fake = Guarded::start().await;
        Wire::new(fake.url())
            .send(method, path, headers, Bytes::new())
            .await
            .expect(418);
        let finished = catch_unwind(AssertUnwindSafe(|| fake.finish()));
        assert!(finished.is_err(), "{path}");
    }
}

#[tokio::test]
async fn logins_end_and_answers_are_put_off_when_they_are_told_to() {
    let fake = Guarded::start().await;
    fake.seed("app", "v1", &image(1, "amd64", &[20]));
    let wire = Wire::new(fake.url());
    let token = wire.get("/token?service=guarded&scope=repository:app:pull", &[]).await;
    let bearer = format!(
        "Bearer {}",
        token.expect(200).json()["token"].as_str().expect("a token")
    );
    let list = async || {
        let answer = wire.get("/v2/app/tags/list", &[("authorization", &bearer)]).await;
        answer.status.as_u16()
    };
    fake.end_logins_before(Method::GET, "/tags/list", 1);
    fake.throttle(None, "/tags/list", 1);
    assert_eq!([list().await, list().await], [429, 401]);
    assert!(fake.logins_ended());
}
