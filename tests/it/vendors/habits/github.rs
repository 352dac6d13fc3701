//! GitHub's registry: mounts, pieces that are taken in part, manifests without their blobs.

use std::sync::atomic::Ordering;

use transship::oci::Digest;

use super::{Pull, Scene, body, copied_twice, destination, mounts, seen_blobs_are_believed, statuses};
use crate::support::fake::github::Github;
use crate::support::images::{image, noise};

#[tokio::test]
async fn github_mounts_blobs_of_the_same_owner() {
    let (fake, _github) = Github::start().await;
    let dst = fake.rules("dst", &Github::keys(&fake));
    mounts(&fake, &dst, ["octo-org/team/app", "octo-org/tool"]).await;
}

/// It is silent about the right to pull elsewhere, and opens an upload.
#[tokio::test]
async fn github_mounts_from_another_owner_are_uploads() {
    let (fake, _github) = Github::start().await;
    let dst = fake.rules("dst", &Github::keys(&fake));
    let report = copied_twice(&fake, &dst, ["octo-org/app", "octocat/app"], || {}).await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let blobs = &report.destinations[0].blobs;
    assert_eq!((blobs.mounted, blobs.copied), (0, 2), "{:#?}", fake.exchanges());
    assert!(fake.count("POST", "mount=") > 0, "{:#?}", fake.exchanges());
    assert_eq!(
        statuses(&fake, "POST", "/blobs/uploads/"),
        [202; 2],
        "{:#?}",
        fake.exchanges()
    );
}

/// What `Range` says holds, not what was sent.
#[tokio::test]
async fn github_pieces_of_which_it_takes_a_part_go_on_where_it_stands() {
    let (fake, github) = Github::start().await;
    let end = destination(&fake.rules("dst", &Github::keys(&fake)));
    let blob = noise(1, (9 << 20) + 5);
    let (repository, size, piece) = ("octo-org/app".parse().expect("a name"), blob.len() as u64, 4 << 20);
    let write = end.begin_write(&repository).await.expect("opened");
    let taken = 3_000_001;
    github.takes.store(taken as usize, Ordering::SeqCst);
    let sent = end.write_piece(&write, 0, piece, body(&blob, 0, piece)).await;
    let (mut write, mut held) = sent.expect("a piece");
    assert_eq!(held, taken);
    while size - held > piece {
        let sent = end
            .write_piece(&write, held, piece, body(&blob, held, held + piece))
            .await;
        (write, held) = sent.expect("a piece");
    }
    let digest = Digest::of(&blob);
    end.finish_write(&write, &digest, held, size - held, body(&blob, held, size))
        .await
        .expect("closed");
    assert_eq!(end.head_blob(&repository, &digest).await.expect("answered"), Some(size));
    fake.finish();
}

#[tokio::test]
async fn github_layers_of_which_a_piece_is_taken_in_part_arrive_whole() {
    let (fake, github) = Github::start().await;
    let scene = Scene::new(&fake.rules("dst", &Github::keys(&fake)), &["octo-org/app"]).await;
    let sample = image(1, "amd64", &[21 << 20]);
    scene.seed("octo-org/app", "v1", &sample);
    github.takes.store(3_000_001, Ordering::SeqCst);
    scene.passes("octo-org/app").await;
    let layer = Digest::of(&sample.blobs[1]);
    let held = fake
        .book()
        .registry
        .blob(&"octo-org/app".parse().expect("a name"), &layer);
    assert!(held.as_ref() == Some(&sample.blobs[1]));
    // The upload that took a part is gone on with.
    assert_eq!(
        statuses(&fake, "POST", "/blobs/uploads/"),
        [202; 2],
        "{:#?}",
        fake.exchanges()
    );
    assert_eq!(fake.resolve("octo-org/app", "v1"), Some(sample.digest()));
}

/// oras-project/rust-oci-client#35: MANIFEST_BLOB_UNKNOWN.
#[tokio::test]
async fn github_blobs_that_were_seen_are_believed_until_a_manifest_is_refused() {
    let (fake, _github) = Github::start().await;
    seen_blobs_are_believed(&fake, &fake.rules("dst", &Github::keys(&fake)), "octo-org/app").await;
}

/// By nobody, who has no API either.
#[tokio::test]
async fn github_has_no_catalogue_to_be_asked_for() {
    let (fake, _github) = Github::start().await;
    fake.seed("octo-org/app", "v1", &image(1, "amd64", &[20]));
    let pull = Pull::new(&fake.rules("src", &Github::anonymous(&fake)), "octo-org/*").await;
    let report = pull.run().await;
    assert_eq!(
        (report.failures.len(), report.source.repositories),
        (1, 0),
        "{report:?}"
    );
    assert_eq!(fake.count("GET", "/_catalog"), 0, "{:#?}", fake.exchanges());
    fake.finish();
}
