//! Azure Container Registry: locks, the places of uploads, scopes of mounts.

use transship::oci::Digest;
use transship::registry::ErrorKind;

use super::{Pull, body, destination, mounts};
use crate::support::engine::only_failure;
use crate::support::fake::azure::{self, ADMIN};
use crate::support::fake::lock;
use crate::support::images::{image, noise};

/// Its listing shows a tag that may not be read, and those beside it are copied.
#[tokio::test]
async fn azure_locks_for_reading_are_a_missing_right_in_words() {
    for by_names in [false, true] {
        let (fake, cloud) = azure::start().await;
        let (locked, open) = (image(1, "amd64", &[20]), image(2, "amd64", &[20]));
        fake.seed("corp/web", "locked", &locked);
        fake.seed("corp/web", "open", &open);
        lock(&cloud.unreadable).extend(["locked".to_owned(), locked.digest().to_string()]);
        let bulk = if by_names { ", bulk_listing: false" } else { "" };
        let src = fake.rules("src", &format!("{}{bulk}", azure::keys(&fake)));
        let pull = Pull::new(&src, "corp/web").await;
        let report = pull.run().await;
        let failure = only_failure(&report);
        assert_eq!(
            (failure.kind, failure.status),
            (ErrorKind::Denied, Some(405)),
            "{failure:?}"
        );
        let told = "it is locked for reading there (readEnabled), or the registry's network rules forbid it";
        assert!(failure.message.contains(told), "{failure:?}");
        assert_eq!(pull.arrived("corp/web", "locked"), None);
        assert_eq!(pull.arrived("corp/web", "open"), Some(open.digest()));
    }
}

/// The fake fails the test for a piece without the query of the place that the last answer gave, and for a range with a unit.
#[tokio::test]
async fn azure_pieces_go_to_the_path_and_query_that_it_names() {
    let (fake, _cloud) = azure::start().await;
    let end = destination(&fake.rules("dst", &azure::keys(&fake)));
    let blob = noise(1, (11 << 20) + 5);
    let (repository, size, piece) = ("corp/web".parse().expect("a name"), blob.len() as u64, 5 << 20);
    let mut write = end.begin_write(&repository).await.expect("opened");
    for number in 0..2 {
        let from = number * piece;
        let sent = end
            .write_piece(&write, from, piece, body(&blob, from, from + piece))
            .await;
        let (next, held) = sent.expect("a piece");
        assert_eq!(held, from + piece);
        write = next;
    }
    let (digest, from) = (Digest::of(&blob), 2 * piece);
    end.finish_write(&write, &digest, from, size - from, body(&blob, from, size))
        .await
        .expect("closed");
    assert_eq!(end.head_blob(&repository, &digest).await.expect("answered"), Some(size));
    assert_eq!(
        fake.count("PATCH", "_nouploadcache=false&_state="),
        2,
        "{:#?}",
        fake.exchanges()
    );
    fake.finish();
}

/// A mount wants the right to pull from the other repository, and its token server takes one scope a field.
#[tokio::test]
async fn azure_mounts_with_a_token_for_both_repositories() {
    for keys in [
        |fake: &_| azure::keys(fake),
        |_: &_| format!("kind: azure, username: {}, password: \"{}\"", ADMIN.0, ADMIN.1),
    ] {
        let (fake, _cloud) = azure::start().await;
        mounts(&fake, &fake.rules("dst", &keys(&fake)), ["corp/base", "corp/web"]).await;
        fake.finish();
    }
}
