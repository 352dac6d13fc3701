//! ECR Public: how many pieces an upload may have, and what belongs to others.

use transship::demo::images::image;
use transship::demo::registry::{Options, Registry};
use transship::vendors::habits_for;

use crate::support::command::Transship;
use crate::support::engine::{Workshop, by_hand};
use crate::support::fake::ecr_public::{ALIAS, EcrPublic};

const MIB: u64 = 1024 * 1024;

/// AWS's "Service quotas" of ECR Public: 1,000 pieces of 5 to 10 MiB, and layers of 10,000 MiB.
#[test]
fn ecr_public_pieces_are_so_long_that_a_thousand_are_enough_for_the_largest_layer() {
    let habits = habits_for("public.ecr.aws");
    let longest = habits.max_piece.expect("a limit");
    assert!(habits.min_piece <= longest && longest <= 10 * MIB);
    assert!((10_000 * MIB).div_ceil(habits.min_piece) <= 1000);
}

#[tokio::test]
async fn ecr_public_large_layers_go_in_pieces_of_10_mib_and_a_rest() {
    let from = Registry::start(Options::default()).await.expect("a registry");
    let (fake, _public) = EcrPublic::start().await;
    let image = image(1, "amd64", &[24 << 20]);
    let repository = format!("{ALIAS}/big/app");
    from.seed(
        &repository.parse().expect("a name"),
        &"v1".parse().expect("a tag"),
        &image,
    );
    let workshop = Workshop::new(&format!(
        "version: 1\nregistries:\n  from: {{ url: \"{}\" }}\n{}rules:\n  - {{ name: r, source: from, destinations: [public], \
         repositories: [{repository}] }}\n",
        from.url(),
        fake.rules("public", &EcrPublic::keys(&fake)),
    ));
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(fake.resolve(&repository, "v1"), Some(image.digest()));
    // The fake fails the test for pieces of other lengths; where an upload stands is not asked, as it says something wrong.
    assert_eq!(fake.count("PATCH", "/blobs/uploads/"), 2);
    assert_eq!(fake.count("GET", "/blobs/uploads/"), 0);
    fake.finish();
}

#[tokio::test]
async fn ecr_public_images_of_others_are_read_as_nobody() {
    let to = Registry::start(Options::default()).await.expect("a registry");
    let (fake, _public) = EcrPublic::start().await;
    let image = image(1, "amd64", &[20]);
    fake.seed("docker/library/app", "v1", &image);
    let mut home = Transship::new(&format!(
        "version: 1\nregistries:\n  to: {{ url: \"{}\" }}\n{}rules:\n  - {{ name: r, source: public, destinations: [to], \
         repositories: [docker/library/app] }}\n",
        to.url(),
        fake.rules("public", &format!("kind: ecr_public, endpoint: \"{}\"", fake.url())),
    ));
    // No machine of the test's is asked for its role.
    home.set_env("AWS_EC2_METADATA_DISABLED", "true");
    home.run(&["sync"]).await.expect(0);
    let name = "docker/library/app".parse().expect("a name");
    assert_eq!(to.resolve(&name, &"v1".parse().expect("a tag")), Some(image.digest()));
    let api = fake.exchanges().iter().filter(|asked| asked.target == "/").count();
    assert_eq!(api, 0, "{:?}", fake.exchanges());
}

#[tokio::test]
async fn ecr_public_blobs_of_our_own_are_looked_for_by_one_request() {
    let from = Registry::start(Options::default()).await.expect("a registry");
    let (fake, _public) = EcrPublic::start().await;
    let layers = [100; 12];
    let (old, new) = (image(1, "amd64", &layers), image(2, "amd64", &layers));
    let repository = format!("{ALIAS}/app");
    // One of both images is there under another tag.
    fake.seed(&repository, "old", &old);
    for (tag, image) in [("v1", &old), ("v2", &new)] {
        from.seed(
            &repository.parse().expect("a name"),
            &tag.parse().expect("a tag"),
            image,
        );
    }
    let workshop = Workshop::new(&format!(
        "version: 1\nregistries:\n  from: {{ url: \"{}\" }}\n{}rules:\n  - {{ name: r, source: from, destinations: [public], \
         repositories: [{repository}] }}\n",
        from.url(),
        fake.rules("public", &EcrPublic::keys(&fake)),
    ));
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let done = &report.destinations[0];
    assert_eq!((done.images.copied, done.blobs.present, done.blobs.copied), (2, 13, 13));
    assert_eq!(fake.count("HEAD", "/blobs/"), 0, "{:?}", fake.exchanges());
    fake.finish();
}
