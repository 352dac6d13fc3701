//! GitLab's registry: its token server, the pages of its API and what they do not show, mounts.

use transship::registry::BulkListing;
use transship::vendors::habits_for;

use super::{Pull, destination, mounts};
use crate::support::fake::gitlab::Gitlab;
use crate::support::fake::lock;
use crate::support::images::image;

const REPOSITORY: &str = "group/project/app";

/// Its realm is https://gitlab.com/jwt/auth, which is another host.
#[test]
fn gitlab_token_server_is_known_by_name() {
    assert_eq!(habits_for("registry.gitlab.com").token_hosts, ["gitlab.com"]);
}

/// Links say the host, and go on from a mark that is no tag; the fake fails the test for another page.
#[tokio::test]
async fn gitlab_pages_of_a_thousand_tags_are_followed_by_their_link() {
    let (fake, _gitlab) = Gitlab::start().await;
    for number in 0..2_100 {
        fake.seed(REPOSITORY, &format!("v{number:04}"), &image(number % 3, "amd64", &[20]));
    }
    let end = destination(&fake.rules("dst", &Gitlab::keys()));
    let listed = end.list_digests(&REPOSITORY.parse().expect("a name")).await;
    let Ok(BulkListing::Known { tags, comparable: true }) = listed else {
        panic!("{listed:?}");
    };
    assert!(tags.len() == 2_100 && tags.iter().all(|tag| tag.digest.is_some()));
    let pages = fake.exchanges().into_iter();
    let pages = pages.filter(|one| one.target.starts_with("/gitlab/v1/") && one.status == Some(200));
    assert_eq!(pages.count(), 3, "{:#?}", fake.exchanges());
    assert_eq!(fake.count("HEAD", "/manifests/"), 0);
}

#[tokio::test]
async fn gitlab_tags_that_its_api_does_not_show_are_looked_at() {
    let (fake, gitlab) = Gitlab::start().await;
    let (shown, hidden) = (image(1, "amd64", &[20]), image(2, "amd64", &[20]));
    fake.seed(REPOSITORY, "shown", &shown);
    fake.seed(REPOSITORY, "hidden", &hidden);
    lock(&gitlab.hides).insert("hidden".to_owned());
    let pull = Pull::new(&fake.rules("src", &Gitlab::keys()), REPOSITORY).await;
    let report = pull.run().await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(pull.arrived(REPOSITORY, "shown"), Some(shown.digest()));
    assert_eq!(pull.arrived(REPOSITORY, "hidden"), Some(hidden.digest()));
    assert_eq!(fake.count("HEAD", "/manifests/shown"), 0, "{:#?}", fake.exchanges());
}

/// The token server is asked for the right to pull from the other project, without which the mount is refused.
#[tokio::test]
async fn gitlab_mounts_with_the_right_to_pull_from_the_other_project() {
    let (fake, _gitlab) = Gitlab::start().await;
    mounts(
        &fake,
        &fake.rules("dst", &Gitlab::keys()),
        ["group/sub/tool", REPOSITORY],
    )
    .await;
    let asked = fake.count("GET", "scope=repository%3Agroup%2Fsub%2Ftool%3Apull");
    assert!(asked > 0, "{:#?}", fake.exchanges());
}
