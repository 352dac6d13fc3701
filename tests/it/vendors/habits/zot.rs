//! zot: tags that its search does not show, types of manifests that it does not know.

use http::StatusCode;
use serde_json::json;
use transship::oci::Reference;
use transship::registry::ErrorKind;

use super::{Pull, destination};
use crate::support::fake::zot::Zot;
use crate::support::images::image;
use crate::support::proxy::{Act, Fault, Proxy};

#[tokio::test]
async fn zot_tags_that_its_search_does_not_show_are_looked_at() {
    let (fake, _zot) = Zot::start().await;
    let (shown, hidden) = (image(1, "amd64", &[20]), image(2, "amd64", &[20]));
    fake.seed("a/b", "shown", &shown);
    fake.seed("a/b", "hidden", &hidden);
    let entry = json!({ "Tag": "shown", "Digest": shown.digest(), "MediaType": shown.media_type });
    let list = json!({ "data": { "ImageList": { "Page": { "TotalCount": 1 }, "Results": [entry] } } });
    let proxy = Proxy::start(fake.url()).await;
    proxy.add(Fault::every(
        "GET",
        "/ext/search",
        Act::AnswerAfter(StatusCode::OK, Box::leak(list.to_string().into_boxed_str())),
    ));
    let src = fake.rules("src", &Zot::keys()).replace(fake.url(), &proxy.url());
    let pull = Pull::new(&src, "a/b").await;
    let report = pull.run().await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert!(proxy.count("GET", "/ext/search") > 0);
    assert_eq!(pull.arrived("a/b", "shown"), Some(shown.digest()));
    assert_eq!(pull.arrived("a/b", "hidden"), Some(hidden.digest()));
}

/// 415 without a body: `UpdateManifest` in project-zot/zot `pkg/api/routes.go`.
#[tokio::test]
async fn zot_manifests_of_a_type_that_it_does_not_know_are_refused_in_words() {
    let (fake, _zot) = Zot::start().await;
    fake.seed("a/b", "other", &image(2, "amd64", &[20]));
    let proxy = Proxy::start(fake.url()).await;
    let refuse = Act::Answer(StatusCode::UNSUPPORTED_MEDIA_TYPE, None);
    proxy.add(Fault::every("PUT", "/manifests/", refuse));
    let end = destination(&fake.rules("dst", &Zot::keys()).replace(fake.url(), &proxy.url()));
    let (name, tag) = ("a/b".parse().expect("a name"), "v1".parse().expect("a tag"));
    let sample = image(1, "amd64", &[20]);
    let put = end
        .put_manifest(&name, &Reference::Tag(tag), sample.media_type, sample.manifest)
        .await;
    let error = put.expect_err("it is refused");
    assert_eq!(
        (error.kind, error.status),
        (ErrorKind::Unsupported, Some(415)),
        "{error}"
    );
    assert!(
        error.message.contains("the registry takes no manifests of this type"),
        "{error}"
    );
    assert_eq!(proxy.count("PUT", "/manifests/"), 1);
}
