//! Our own registry and others', against an API that checks who asks.

use std::sync::Mutex;

use axum::Router;
use axum::extract::Request;
use serde_json::Value;

use super::*;
use crate::clock::Clock;
use crate::registry::{
    AwsSettings, CloudSettings, Endpoint, ErrorKind, Habits, Limiter, RegistrySettings, RegistryUrl,
};
use crate::telemetry::Secret;

const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
const OTHER: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What the API answers to an action.
fn api(action: &str, body: &Value) -> (u16, Value) {
    let missing = json!({ "__type": "RepositoryNotFoundException", "message": "x" });
    match (action, body["repositoryName"].as_str(), body["nextToken"].as_str()) {
        ("DescribeRegistries", ..) => (200, json!({ "registries": [{ "aliases": [{ "name": "ours" }] }] })),
        ("DescribeImageTags", Some("web"), None) => (
            200,
            json!({ "imageTagDetails": [{ "imageTag": "1", "imageDetail": { "imageDigest": DIGEST } }], "nextToken": "t" }),
        ),
        ("DescribeImageTags", Some("web"), Some("t")) => (
            200,
            json!({ "imageTagDetails": [{ "imageTag": "2", "imageDetail": { "imageDigest": DIGEST } }] }),
        ),
        // As `ReferencedImageDetail` of botocore's model has it.
        ("DescribeImageTags", Some("moving"), None) => {
            let detail = json!({ "imageDigest": DIGEST, "imagePushedAt": 1_767_225_600.25 });
            let tags = ["1", "2"].map(|tag| json!({ "imageTag": tag, "imageDetail": detail }));
            (200, json!({ "imageTagDetails": tags, "nextToken": "t" }))
        }
        ("DescribeImageTags", Some("moving"), Some("t")) => (
            200,
            json!({ "imageTagDetails": [{ "imageTag": "1", "imageDetail": { "imageDigest": OTHER } }] }),
        ),
        ("DescribeImageTags", ..) => (400, missing),
        ("DescribeRepositories", ..) => (200, json!({ "repositories": [{ "repositoryName": "web" }] })),
        ("CreateRepository", Some("new"), _) => (200, json!({})),
        _ => (400, json!({ "__type": "AccessDeniedException", "message": "no" })),
    }
}

/// What was asked, in order.
type Actions = Arc<Mutex<Vec<(String, Value)>>>;

/// An end at an API that knows us by these.
async fn start(aws: AwsSettings, environment: StaticEnv) -> (Endpoint, Actions) {
    let asked = Actions::default();
    let made = Arc::clone(&asked);
    let app = Router::new().fallback(async move |request: Request| {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let target = header("x-amz-target").and_then(|target| target.strip_prefix("SpencerFrontendService."));
        let signed = header("authorization").is_some_and(|text| text.contains("/us-east-1/ecr-public/aws4_request"));
        let status = |number| http::StatusCode::from_u16(number).expect("a status");
        match (target, signed) {
            (Some(action), true) => {
                let body: Value = serde_json::from_slice(&body).expect("JSON");
                let (number, answer) = api(action, &body);
                made.lock()
                    .expect("no panic while held")
                    .push((action.to_owned(), body));
                (status(number), answer.to_string())
            }
            // The upload of a repository that is not there until it is made.
            _ if head.method == "POST" => (status(404), r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#.to_owned()),
            _ => (status(404), String::new()),
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let host = listener.local_addr().expect("an address").to_string();
    #[expect(
        clippy::disallowed_methods,
        reason = "a server of a test; it ends with the test's runtime"
    )]
    tokio::spawn(async move { axum::serve(listener, app).await.expect("a running server") });
    let url = RegistryUrl {
        plain_http: true,
        host,
        path: String::new(),
    };
    let settings = RemoteSettings {
        endpoint: Some(url.clone()),
        url,
        cloud: CloudSettings::Aws(aws),
        ..RemoteSettings::default()
    };
    let vendor = Arc::new(EcrPublic::new(&settings, environment));
    let settings = RegistrySettings::Remote(Box::new(settings));
    let end = Endpoint::open(
        "p",
        &settings,
        Habits::default(),
        vendor,
        Clock::system(),
        &Limiter::default(),
    );
    (end.expect("an end"), asked)
}

fn name(text: &str) -> RepositoryName {
    text.parse().expect("a name")
}

#[tokio::test]
async fn our_own_alias_is_listed_and_made_and_others_are_left_alone() {
    let keys = AwsSettings {
        access_key_id: Some("AKIDEXAMPLE00000".to_owned()),
        secret_access_key: Some(Secret::new("s")),
        ..AwsSettings::default()
    };
    let (end, asked) = start(keys, StaticEnv::default()).await;

    let Ok(BulkListing::Known { tags, comparable }) = end.list_digests(&name("ours/web")).await else {
        panic!("no listing");
    };
    assert_eq!((tags.len(), comparable), (2, true));
    assert_eq!(
        end.list_digests(&name("ours/gone")).await.expect("answered"),
        BulkListing::Absent
    );
    // Another account may have a repository of the same name as ours.
    assert_eq!(
        end.list_digests(&name("docker/web")).await.expect("answered"),
        BulkListing::None
    );
    let listed = end.list_repositories(&["ours/".to_owned()]).await.expect("listed");
    assert_eq!(listed, Some(vec![name("ours/web")]));
    let error = end
        .list_repositories(&["docker/".to_owned()])
        .await
        .expect_err("not ours");
    assert_eq!(error.kind, ErrorKind::Unsupported);
    // Made, and the upload is tried once more.
    end.begin_write(&name("ours/new"))
        .await
        .expect_err("the test's registry takes no upload");
    let error = end.begin_write(&name("docker/new")).await.expect_err("not ours");
    assert!(error.message.contains("alias"), "{error}");
    let asked = asked.lock().expect("no panic while held");
    let count = |action: &str| asked.iter().filter(|(found, _)| found == action).count();
    assert_eq!(
        (
            count("DescribeRegistries"),
            count("DescribeImageTags"),
            count("CreateRepository")
        ),
        (1, 3, 1)
    );
}

#[tokio::test]
async fn tags_have_their_time_and_those_that_moved_meanwhile_no_digest() {
    let keys = AwsSettings {
        access_key_id: Some("AKIDEXAMPLE00000".to_owned()),
        secret_access_key: Some(Secret::new("s")),
        ..AwsSettings::default()
    };
    let (end, _) = start(keys, StaticEnv::default()).await;
    let Ok(BulkListing::Known { tags, .. }) = end.list_digests(&name("ours/moving")).await else {
        panic!("no listing");
    };
    let digest = |listed: &ListedTag| listed.digest.as_ref().map(ToString::to_string);
    let listed: Vec<_> = tags
        .iter()
        .map(|listed| (listed.tag.as_str(), digest(listed)))
        .collect();
    assert_eq!(listed, [("1", None), ("2", Some(DIGEST.to_owned()))]);
    let pushed = tags[1].pushed.map(|pushed| pushed.to_string());
    assert_eq!(pushed.as_deref(), Some("2026-01-01T00:00:00Z"));
}

/// Nobody but who is in this file of keys.
fn only(file: &std::path::Path) -> StaticEnv {
    let variables = [
        ("AWS_SHARED_CREDENTIALS_FILE", file.display().to_string()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ];
    StaticEnv {
        envs: variables.map(|(name, value)| (name.to_owned(), value)).into(),
        ..StaticEnv::default()
    }
}

#[tokio::test(start_paused = true)]
async fn our_aliases_are_asked_for_once_there_is_a_credential() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("credentials");
    let environment = only(&file);
    let (end, _) = start(AwsSettings::default(), environment).await;
    let listed = async || end.list_digests(&name("ours/web")).await.expect("answered");
    assert_eq!(listed().await, BulkListing::None);
    let keys = "[default]\naws_access_key_id = AKIDEXAMPLE00000\naws_secret_access_key = s\n";
    std::fs::write(file, keys).expect("written");
    tokio::time::advance(std::time::Duration::from_secs(5 * 60 + 1)).await;
    assert!(matches!(listed().await, BulkListing::Known { .. }));
}

/// What is around may be there for something else, and everybody may read.
#[tokio::test]
async fn credentials_that_nobody_asked_for_and_that_fail_are_those_of_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("credentials");
    std::fs::write(&file, "[default]\naws_access_key_id = AKIDEXAMPLE00000\n").expect("written");
    let (end, _) = start(AwsSettings::default(), only(&file)).await;
    for repository in ["docker/web", "ours/web"] {
        let listed = end.list_digests(&name(repository)).await;
        assert_eq!(listed.expect("answered"), BulkListing::None, "{repository}");
    }
    // Where they are asked for, they are to work.
    let asked_for = AwsSettings {
        profile: Some("default".to_owned()),
        ..AwsSettings::default()
    };
    let (end, _) = start(asked_for, only(&file)).await;
    let listed = end.list_repositories(&["ours/".to_owned()]).await;
    assert_eq!(listed.expect_err("half a key").kind, ErrorKind::Config);
}

#[tokio::test]
async fn repositories_that_cannot_be_listed_are_not_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let (end, _) = start(AwsSettings::default(), only(&folder.path().join("none"))).await;
    for below in [&[][..], &["ours/".to_owned()]] {
        let error = end.list_repositories(below).await.expect_err("nobody may ask");
        assert_eq!(error.kind, ErrorKind::Unauthorized, "{error}");
    }
}
