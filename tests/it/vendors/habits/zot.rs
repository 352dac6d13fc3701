//! zot: tags that its search does not show.

use http::StatusCode;
use serde_json::json;

use super::Pull;
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
