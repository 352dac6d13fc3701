//! Docker Hub: its catalogue, its words for a used-up quota, tags that its API does not show, mounts.

use http::StatusCode;
use serde_json::json;
use transship::oci::Reference;
use transship::registry::ErrorKind;
use transship::vendors::habits_for;

use super::{Pull, destination, mounts};
use crate::support::fake::hub::Hub;
use crate::support::images::image;
use crate::support::proxy::{Act, Fault, Proxy};

/// Its limit is not documented.
#[test]
fn docker_hub_has_a_pace_of_5_requests_a_second_for_its_api() {
    assert_eq!(habits_for("docker.io").api_per_second, Some(5));
}

#[tokio::test]
async fn docker_hub_has_no_catalogue_to_be_asked_for() {
    let (fake, hub) = Hub::start().await;
    fake.seed("corp/app", "v1", &image(1, "amd64", &[20]));
    hub.change(|state| state.denies_listing = true);
    let pull = Pull::new(&fake.rules("src", &Hub::keys(&fake)), "corp/*").await;
    let report = pull.run().await;
    assert_eq!(
        (report.failures.len(), report.source.repositories),
        (1, 0),
        "{report:?}"
    );
    assert_eq!(fake.count("GET", "/_catalog"), 0, "{:#?}", fake.exchanges());
    fake.finish();
}

#[tokio::test]
async fn docker_hub_says_pull_rate_limit_of_a_quota_that_is_used_up() {
    let (fake, hub) = Hub::start().await;
    fake.seed("corp/app", "v1", &image(1, "amd64", &[20]));
    hub.change(|state| state.pulls_left = Some(0));
    let end = destination(&fake.rules("dst", &Hub::anonymous(&fake)));
    let tag = Reference::Tag("v1".parse().expect("a tag"));
    let refused = end.get_manifest(&"corp/app".parse().expect("a name"), &tag).await;
    let error = refused.map(|_| ()).expect_err("no pull is left");
    assert_eq!((error.kind, error.status), (ErrorKind::Throttled, Some(429)), "{error}");
    assert!(
        error.message.contains("log in, with a plan that has more, or wait"),
        "{error}"
    );
}

/// docs.docker.com/docker-hub/usage, "Abuse rate limit": by address, with plain words and no header. No quota of pulls is used up by it.
#[tokio::test]
async fn docker_hub_says_too_many_requests_in_plain_text_and_is_asked_again() {
    let (fake, _hub) = Hub::start().await;
    let sample = image(1, "amd64", &[20]);
    fake.seed("corp/app", "v1", &sample);
    let proxy = Proxy::start(fake.url()).await;
    let url = format!("url: \"{}\"", fake.url());
    // Its token server and its API are at its own address.
    let keys = format!("{}, token_hosts: [\"{}\"]", Hub::keys(&fake), fake.host());
    let dst = fake
        .rules("dst", &keys)
        .replacen(&url, &format!("url: \"{}\"", proxy.url()), 1);
    let plain = || Act::AnswerAfter(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests\n");
    let tag = Reference::Tag("v1".parse().expect("a tag"));
    let name = "corp/app".parse().expect("a name");
    proxy.add(Fault::once("GET", "/manifests/", plain()));
    let read = destination(&dst).get_manifest(&name, &tag).await.expect("read");
    assert_eq!(read.map(|manifest| manifest.digest().clone()), Some(sample.digest()));
    let statuses: Vec<_> = proxy.exchanges().into_iter().filter_map(|one| one.status).collect();
    let wanted = [StatusCode::TOO_MANY_REQUESTS, StatusCode::UNAUTHORIZED, StatusCode::OK];
    assert_eq!(statuses, wanted);

    proxy.add(Fault::every("GET", "/manifests/", plain()));
    let read = destination(&dst).get_manifest(&name, &tag).await;
    let error = read.map(|_| ()).expect_err("too many");
    assert_eq!((error.kind, error.status), (ErrorKind::Throttled, Some(429)), "{error}");
    assert!(
        error.message.contains("too many requests") && !error.message.contains("six hours"),
        "{error}"
    );
}

#[tokio::test]
async fn docker_hub_tags_that_its_api_does_not_show_are_looked_at() {
    let (fake, _hub) = Hub::start().await;
    let (shown, hidden) = (image(1, "amd64", &[20]), image(2, "amd64", &[20]));
    fake.seed("corp/app", "shown", &shown);
    fake.seed("corp/app", "hidden", &hidden);
    let list = json!({
        "count": 1, "next": null, "previous": null,
        "results": [{ "name": "shown", "digest": shown.digest(), "images": [] }],
    });
    let proxy = Proxy::start(fake.url()).await;
    proxy.add(Fault::every(
        "GET",
        "/tags",
        Act::AnswerAfter(StatusCode::OK, Box::leak(list.to_string().into_boxed_str())),
    ));
    let keys = Hub::keys(&fake).replace(fake.url(), &proxy.url());
    let pull = Pull::new(&fake.rules("src", &keys), "corp/app").await;
    let report = pull.run().await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert!(proxy.count("GET", "/tags") > 0);
    assert_eq!(pull.arrived("corp/app", "shown"), Some(shown.digest()));
    assert_eq!(pull.arrived("corp/app", "hidden"), Some(hidden.digest()));
}

#[tokio::test]
async fn docker_hub_mounts_blobs_of_another_repository() {
    let (fake, _hub) = Hub::start().await;
    mounts(&fake, &fake.rules("dst", &Hub::keys(&fake)), ["corp/base", "corp/app"]).await;
}
