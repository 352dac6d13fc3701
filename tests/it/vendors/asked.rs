//! Registries that nobody named: what they claim to be, and what that gets them.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::IntoResponse as _;
use http::StatusCode;
use transship::demo::registry::{Options, Registry};
use transship::registry::{Endpoint, Kind};

use crate::support::command::Transship;
use crate::support::ends::{images, sync};
use crate::support::engine::Workshop;
use crate::support::fake::{Asked, Asking, Book, Face, Fake, lock, refusal, with_header};
use crate::support::images::image;
use crate::support::tunnel::Tunnel;
use crate::support::{PASSWORD, USERNAME};

/// A registry with Basic, which challenges as it likes, and may be out of order.
struct Claims {
    challenge: Mutex<String>,
    out_of_order: AtomicBool,
    /// What something before it answers to who asks for `/v2/`; 0 where nothing does.
    before: AtomicU16,
}

impl Claims {
    async fn start(challenge: &str) -> (Fake, Arc<Self>) {
        let claims = Arc::new(Self {
            challenge: Mutex::new(challenge.to_owned()),
            out_of_order: AtomicBool::new(false),
            before: AtomicU16::new(0),
        });
        (Fake::start(Arc::clone(&claims), Options::default()).await, claims)
    }
}

impl Face for Arc<Claims> {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        if self.out_of_order.load(Ordering::SeqCst) {
            return Asked::Answer(refusal(503, "UNAVAILABLE", "out of order"));
        }
        match self.before.load(Ordering::SeqCst) {
            0 => {}
            status => {
                let status = StatusCode::from_u16(status).expect("a status");
                return Asked::Answer((status, "no backend").into_response());
            }
        }
        if request.path.starts_with("/auth") {
            let token = serde_json::json!({ "token": "t", "expires_in": 3600 });
            return Asked::Answer(crate::support::fake::document(200, &token));
        }
        match request.authorization() {
            Some(_) if request.path.starts_with("/v2/") => Asked::Pass,
            Some(_) => Asked::Answer(refusal(404, "NOT_FOUND", "not here")),
            None => {
                let challenge = lock(&self.challenge).replace("REALM", &format!("{}/auth", book.url));
                let refused = refusal(401, "UNAUTHORIZED", "authentication required");
                Asked::Answer(with_header(refused, "www-authenticate", &challenge))
            }
        }
    }
}

#[tokio::test]
async fn who_claims_to_be_of_a_cloud_gets_nothing_signed_by_the_environments_keys() {
    for challenge in [
        r#"Bearer realm="REALM",service="registry.aliyuncs.com:evil.example/x:china:cri-1""#,
        r#"Bearer realm="REALM",service="registry.aliyuncs.com:cn-hangzhou:26842:cri-1""#,
        r#"Bearer realm="REALM",service="registry.aliyuncs.com:cn-hangzhou:26842""#,
        r#"Bearer realm="REALM",service="corp.azurecr.io""#,
        r#"Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com""#,
        r#"Basic realm="https://1.dkr.ecr.us-gov-west-1.amazonaws.com/",service="ecr.amazonaws.com""#,
        r#"Basic realm="ecr.amazonaws.com""#,
    ] {
        let (src, _) = Claims::start(challenge).await;
        src.seed("corp/web", "v1", &image(1, "amd64", &[20]));
        let dst = Registry::start(Options::default()).await.expect("a registry");
        let tunnel = Tunnel::start(None).await;
        let login = format!(
            "username: {USERNAME}, password: \"{PASSWORD}\", proxy: {{ url: \"{}\" }}",
            tunnel.url()
        );
        let mut home = Transship::new(&format!(
            "version: 1\nregistries:\n{}  dst: {{ url: \"{}\" }}\nrules:\n  - name: r\n    source: src\n    \
             destinations: [dst]\n    repositories: [corp/web]\n    retry: {{ attempts: 1 }}\n",
            src.rules("src", &login),
            dst.url()
        ));
        for (name, value) in [
            ("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAItest"),
            ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "alibaba-secret"),
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE00000"),
            ("AWS_SECRET_ACCESS_KEY", "aws-secret"),
            ("AWS_REGION", "eu-west-1"),
            ("AZURE_TENANT_ID", "tenant"),
            ("AZURE_CLIENT_ID", "client"),
            ("AZURE_CLIENT_SECRET", "azure-secret"),
        ] {
            home.set_env(name, value);
        }
        let (run, _) = sync(&home, 0).await;
        assert_eq!(images(&run, "copied"), 1, "{challenge}: {run:#}");
        let passages = tunnel.take();
        let own = format!("{}/", src.url());
        assert!(!passages.is_empty());
        assert!(
            passages.iter().all(|passage| passage.target.starts_with(&own)),
            "{challenge}: {passages:?}"
        );
    }
}

/// The registry as an end of its own, by the machine's clock.
fn end_of(fake: &Fake) -> Endpoint {
    let workshop = Workshop::new(&format!(
        "version: 1\nregistries:\n{0}  dst: {{ url: \"{1}\" }}\nrules:\n  - {{ name: r, source: src, destinations: [dst], \
         repositories: [corp/web] }}\n",
        fake.rules("src", &format!("username: {USERNAME}, password: \"{PASSWORD}\"")),
        "http://127.0.0.1:1"
    ));
    workshop.end("src")
}

async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

const NEXUS: &str = r#"Basic realm="Sonatype Nexus Repository Manager""#;
const HARBOR: &str = r#"Bearer realm="REALM/service/token",service="harbor-registry""#;

#[tokio::test]
async fn what_was_found_out_is_looked_at_anew_after_a_week() {
    let (fake, claims) = Claims::start(NEXUS).await;
    fake.seed("corp/web", "v1", &image(1, "amd64", &[20]));
    let end = end_of(&fake);
    let repository = "corp/web".parse().expect("a name");
    end.list_digests(&repository).await.expect("listed");
    end.list_digests(&repository).await.expect("listed");
    assert_eq!(
        (end.kind(), end.take_found_kind()),
        (Some(Kind::Nexus), Some(Kind::Nexus))
    );
    HARBOR.clone_into(&mut lock(&claims.challenge));
    pass(Duration::from_secs(6 * 24 * 3600)).await;
    end.list_digests(&repository).await.expect("listed");
    assert_eq!((end.kind(), end.take_found_kind()), (Some(Kind::Nexus), None));
    // While nobody can tell what it is now it is what it was.
    pass(Duration::from_secs(2 * 24 * 3600)).await;
    claims.before.store(404, Ordering::SeqCst);
    end.list_repositories(&[String::new()]).await.ok();
    assert_eq!((end.kind(), end.take_found_kind()), (Some(Kind::Nexus), None));
    claims.before.store(0, Ordering::SeqCst);
    pass(Duration::from_secs(301)).await;
    end.list_digests(&repository)
        .await
        .expect("by names, as its API is not there");
    assert_eq!(
        (end.kind(), end.take_found_kind()),
        (Some(Kind::Harbor), Some(Kind::Harbor))
    );
}

/// What an earlier process found out ends when it would have ended there.
#[tokio::test]
async fn what_was_taken_over_ends_in_its_time() {
    let (fake, _) = Claims::start(HARBOR).await;
    fake.seed("corp/web", "v1", &image(1, "amd64", &[20]));
    let end = end_of(&fake);
    end.assume_kind(Kind::Nexus, Duration::from_secs(3600));
    end.assume_kind(Kind::Quay, Duration::from_secs(3600));
    let repository = "corp/web".parse().expect("a name");
    end.list_digests(&repository).await.expect("listed");
    assert_eq!(end.kind(), Some(Kind::Nexus));
    pass(Duration::from_secs(3601)).await;
    end.list_digests(&repository).await.expect("listed");
    assert_eq!(
        (end.kind(), end.take_found_kind()),
        (Some(Kind::Harbor), Some(Kind::Harbor))
    );
}

/// A proxy's own answer in the place of a registry says nothing of its kind.
#[tokio::test]
async fn what_answers_in_the_place_of_a_registry_is_no_kind() {
    for status in [404, 403, 400, 503] {
        let (fake, claims) = Claims::start(r#"Basic realm="any""#).await;
        let end = end_of(&fake);
        claims.before.store(status, Ordering::SeqCst);
        assert_eq!(end.version().await.expect("nothing to be told"), None, "{status}");
        assert_eq!(end.kind(), None, "{status}");
        claims.before.store(0, Ordering::SeqCst);
        pass(Duration::from_secs(301)).await;
        end.version().await.expect("nothing to be told");
        assert_eq!(end.kind(), Some(Kind::Generic), "{status}");
    }
}

#[tokio::test]
async fn what_could_not_be_asked_once_is_found_out_later() {
    let (fake, claims) = Claims::start(r#"Bearer realm="REALM/service/token",service="harbor-registry""#).await;
    fake.seed("corp/web", "v1", &image(1, "amd64", &[20]));
    let end = end_of(&fake);
    claims.out_of_order.store(true, Ordering::SeqCst);
    assert_eq!(end.version().await.expect("nothing to be told"), None);
    assert_eq!(end.kind(), None);
    claims.out_of_order.store(false, Ordering::SeqCst);
    // Its challenge is seen on the way to the list.
    let tags = end.list_tags(&"corp/web".parse().expect("a name")).await;
    assert_eq!(tags.expect("listed").map(|tags| tags.len()), Some(1));
    end.version().await.expect_err("its API is not there");
    assert_eq!(end.kind(), Some(Kind::Harbor));
}
