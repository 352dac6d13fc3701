//! ECR Public: its words, and no catalogue.

use http::StatusCode;
use transship::oci::Reference;
use transship::registry::ErrorKind;
use transship::vendors::habits_for;

use super::{Pull, destination};
use crate::support::fake::ecr_public::{ALIAS, EcrPublic};
use crate::support::images::image;
use crate::support::proxy::{Act, Fault, Proxy};

/// As ECR's.
#[test]
fn ecr_public_has_a_pace_of_10_requests_a_second_for_its_api() {
    assert_eq!(habits_for("public.ecr.aws").api_per_second, Some(10));
}

/// Others' registries have none, and our own is listed by the API.
#[tokio::test]
async fn ecr_public_has_no_catalogue_to_be_asked_for() {
    let (fake, _public) = EcrPublic::start().await;
    fake.seed("docker/library/app", "v1", &image(1, "amd64", &[20]));
    let pull = Pull::new(&fake.rules("src", &EcrPublic::keys(&fake)), "docker/**").await;
    let report = pull.run().await;
    assert_eq!(
        (report.failures.len(), report.source.repositories),
        (1, 0),
        "{report:?}"
    );
    assert_eq!(fake.count("GET", "/_catalog"), 0, "{:#?}", fake.exchanges());
    fake.finish();
}

/// As ECR says it.
#[tokio::test]
async fn ecr_public_says_in_words_what_is_the_matter() {
    for (status, message, kind, told) in [
        (
            403,
            "User: arn:aws:iam::123456789012:user/sync is not authorized to perform: ecr-public:InitiateLayerUpload",
            ErrorKind::Denied,
            "grant the AWS user that permission",
        ),
        (
            403,
            "Your authorization token has expired. Reauthenticate and try again.",
            ErrorKind::Unauthorized,
            "the token of ECR has ended",
        ),
        (400, "Rate exceeded", ErrorKind::Throttled, "too many requests"),
        (
            400,
            "The image tag 'v1' already exists and cannot be overwritten because the tag is immutable.",
            ErrorKind::Conflict,
            "the repository's tags are immutable",
        ),
        (
            405,
            "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax'",
            ErrorKind::Unsupported,
            "only with `mediaType` in it",
        ),
    ] {
        let code = match kind {
            ErrorKind::Conflict => "TAG_INVALID",
            ErrorKind::Unsupported => "UNSUPPORTED",
            _ => "DENIED",
        };
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] }).to_string();
        let (fake, _public) = EcrPublic::start().await;
        let repository = format!("{ALIAS}/app");
        fake.seed(&repository, "other", &image(2, "amd64", &[20]));
        let proxy = Proxy::start(fake.url()).await;
        let refuse = Act::AnswerAfter(
            StatusCode::from_u16(status).expect("a status"),
            Box::leak(body.into_boxed_str()),
        );
        proxy.add(Fault::every("PUT", "/manifests/", refuse));
        // Its token server and its API are at its own address.
        let url = format!("url: \"{}\"", fake.url());
        let keys = format!("{}, token_hosts: [\"{}\"]", EcrPublic::keys(&fake), fake.host());
        let dst = fake
            .rules("dst", &keys)
            .replacen(&url, &format!("url: \"{}\"", proxy.url()), 1);
        let end = destination(&dst);
        let sample = image(1, "amd64", &[20]);
        let (name, tag) = (repository.parse().expect("a name"), "v1".parse().expect("a tag"));
        let tag = Reference::Tag(tag);
        let put = end.put_manifest(&name, &tag, sample.media_type, sample.manifest);
        let error = put.await.expect_err("it is refused");
        assert_eq!((error.kind, error.status), (kind, Some(status)), "{error}");
        assert!(error.message.contains(told), "{error}");
    }
}
