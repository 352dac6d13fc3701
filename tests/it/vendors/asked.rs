//! Registries that nobody named: what they claim to be, and what that gets them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use transship::demo::registry::{Options, Registry};
use transship::registry::Kind;

use crate::support::command::Transship;
use crate::support::ends::{images, sync};
use crate::support::engine::Workshop;
use crate::support::fake::{Asked, Asking, Book, Face, Fake, refusal, with_header};
use crate::support::images::image;
use crate::support::tunnel::Tunnel;
use crate::support::{PASSWORD, USERNAME};

/// A registry with Basic, which challenges as it likes, and may be out of order.
struct Claims {
    challenge: String,
    out_of_order: AtomicBool,
}

impl Claims {
    async fn start(challenge: &str) -> (Fake, Arc<Self>) {
        let claims = Arc::new(Self {
            challenge: challenge.to_owned(),
            out_of_order: AtomicBool::new(false),
        });
        (Fake::start(Arc::clone(&claims), Options::default()).await, claims)
    }
}

impl Face for Arc<Claims> {
    fn asked(&self, book: &Book, request: &Asking) -> Asked {
        if self.out_of_order.load(Ordering::SeqCst) {
            return Asked::Answer(refusal(503, "UNAVAILABLE", "out of order"));
        }
        if request.path.starts_with("/auth") {
            let token = serde_json::json!({ "token": "t", "expires_in": 3600 });
            return Asked::Answer(crate::support::fake::document(200, &token));
        }
        match request.authorization() {
            Some(_) if request.path.starts_with("/v2/") => Asked::Pass,
            Some(_) => Asked::Answer(refusal(404, "NOT_FOUND", "not here")),
            None => {
                let challenge = self.challenge.replace("REALM", &format!("{}/auth", book.url));
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

#[tokio::test]
async fn what_could_not_be_asked_once_is_found_out_later() {
    let (fake, claims) = Claims::start(r#"Bearer realm="REALM/service/token",service="harbor-registry""#).await;
    fake.seed("corp/web", "v1", &image(1, "amd64", &[20]));
    let workshop = Workshop::new(&format!(
        "version: 1\nregistries:\n{0}  dst: {{ url: \"{1}\" }}\nrules:\n  - {{ name: r, source: src, destinations: [dst], \
         repositories: [corp/web] }}\n",
        fake.rules("src", &format!("username: {USERNAME}, password: \"{PASSWORD}\"")),
        "http://127.0.0.1:1"
    ));
    let end = workshop.end("src");
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
