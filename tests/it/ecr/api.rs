//! What the API is asked for beside logins, listings and repositories: blobs by the hundred, archived images, the right to
//! delete.

use futures_util::future::join_all;
use futures_util::poll;
use transship::clock::Clock;
use transship::demo::images::{SampleImage, image};
use transship::oci::Digest;
use transship::registry::BulkListing;

use super::pushes::{end, name, seeded};
use super::{access_key, key, rules, source};
use crate::support::DEADLINE;
use crate::support::aws::{Aws, Stored};
use crate::support::command::Transship;
use crate::support::engine::{Workshop, by_hand};

/// Sizes of many layers.
const LAYERS: [usize; 12] = [100; 12];

fn refuse(aws: &Aws, action: &str, code: &str) {
    let refused = (400, code.to_owned());
    aws.book().refusals.insert(action.to_owned(), vec![refused; 99]);
}

/// Blobs that the repository has, without the image that they are of.
fn put_blobs(aws: &Aws, image: &SampleImage, from: usize) {
    let mut book = aws.book();
    let stored = book.repositories.entry("app/web".to_owned()).or_default();
    for blob in &image.blobs[from..] {
        stored.blobs.insert(Digest::of(blob).to_string(), blob.clone());
    }
}

fn requests(aws: &Aws, method: &str, part: &str) -> usize {
    let book = aws.book();
    let seen = book.seen.iter();
    seen.filter(|(verb, path, _)| verb == method && path.contains(part))
        .count()
}

/// Two images of 13 blobs each, of which the destination has all but one.
async fn a_copy_of_two_images(prepare: impl FnOnce(&Aws)) -> Aws {
    let (from, aws) = (source(&[]).await, Aws::start().await);
    for (seed, tag) in [(1, "v1"), (2, "v2")] {
        let image = image(seed, "amd64", &LAYERS);
        put_blobs(&aws, &image, usize::from(seed == 2));
        from.seed(&name("app/web"), &tag.parse().expect("a tag"), &image);
    }
    prepare(&aws);
    let workshop = Workshop::new(&rules(&from, &aws, &key()));
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "up").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let done = &report.destinations[0];
    assert_eq!((done.images.copied, done.blobs.present, done.blobs.copied), (2, 25, 1));
    aws
}

#[tokio::test]
async fn the_blobs_of_an_image_are_looked_for_by_one_request() {
    let aws = a_copy_of_two_images(|_| {}).await;
    assert_eq!(requests(&aws, "HEAD", "/blobs/"), 0);
    assert!((1..=2).contains(&aws.asked("BatchCheckLayerAvailability")));
    // What is there is not sent, and what is not there is not looked for again.
    assert_eq!(requests(&aws, "PUT", "/blobs/uploads/"), 1);
}

#[tokio::test]
async fn blobs_are_looked_for_one_by_one_where_the_api_may_not_be_asked() {
    let aws = a_copy_of_two_images(|aws| refuse(aws, "BatchCheckLayerAvailability", "AccessDeniedException")).await;
    assert_eq!(requests(&aws, "HEAD", "/blobs/"), 26);
    assert_eq!(aws.asked("BatchCheckLayerAvailability"), 1);
}

#[tokio::test]
async fn a_hundred_blobs_go_into_a_request_and_several_images_share_one() {
    let (from, aws) = (source(&[]).await, Aws::start().await);
    let end = end(&rules(&from, &aws, &key()), Clock::system());
    let digest = |n: usize| Digest::of(format!("blob {n}").as_bytes());
    let repository = name("app/web");
    {
        let mut book = aws.book();
        let stored = book.repositories.entry("app/web".to_owned()).or_default();
        for n in 0..50 {
            stored.blobs.insert(digest(n).to_string(), "x".into());
        }
    }
    let all: Vec<Digest> = (0..250).map(digest).collect();
    let held = end.held_blobs(&repository, &all).await;
    assert_eq!((held.len(), held.values().filter(|held| **held).count()), (250, 50));
    assert_eq!(aws.asked("BatchCheckLayerAvailability"), 3);

    // One goes at once; those that come while it is under way go together, each blob once.
    let looks = (0..20).map(|n| {
        let (end, repository) = (&end, &repository);
        let some: Vec<Digest> = (n * 4..n * 4 + 6).map(digest).collect();
        async move { (some.clone(), end.held_blobs(repository, &some).await) }
    });
    for (some, held) in join_all(looks).await {
        assert_eq!(some.len(), held.len());
        assert!(some.iter().all(|digest| held.contains_key(digest)));
    }
    assert_eq!(aws.asked("BatchCheckLayerAvailability"), 5);
    // Of a repository that is not there nothing is said, and others may still be asked for.
    assert!(end.held_blobs(&name("no/such"), &all[..2]).await.is_empty());
    assert_eq!(end.held_blobs(&repository, &all[..2]).await.len(), 2);
}

#[tokio::test]
async fn tags_of_archived_images_are_listed_and_said_to_be_looked_at() {
    let (from, aws) = (source(&[]).await, Aws::start().await);
    seeded(&aws, "app/web", 3);
    if let Some(stored) = aws.book().repositories.get_mut("app/web") {
        let archived = stored.tags["v00001"].clone();
        stored.archived.insert(archived);
    }
    let end = end(&rules(&from, &aws, &key()), Clock::system());
    let list = async || match end.list_digests(&name("app/web")).await {
        Ok(BulkListing::Known { mut tags, .. }) => {
            tags.sort_by(|one, other| one.tag.cmp(&other.tag));
            tags
        }
        other => panic!("{other:?}"),
    };
    let tags = list().await;
    let known: Vec<_> = tags
        .iter()
        .map(|tag| (tag.tag.as_str(), tag.digest.is_some()))
        .collect();
    assert_eq!(known, [("v00000", true), ("v00001", false), ("v00002", true)]);
    assert!(tags.iter().all(|tag| tag.pushed.is_some() && tag.media_type.is_some()));

    // By the lesser right the rest is listed; the greater one is asked for once.
    refuse(&aws, "DescribeImages", "AccessDeniedException");
    for _ in 0..2 {
        assert_eq!(list().await.len(), 2);
    }
    assert_eq!((aws.asked("DescribeImages"), aws.asked("ListImages")), (2, 2));
}

#[tokio::test]
async fn ping_tells_whether_images_may_be_deleted_and_deletes_none() {
    let (from, aws) = (source(&["v1"]).await, Aws::start().await);
    seeded(&aws, "app/web", 2);
    let home = Transship::new(&rules(&from, &aws, &key()));
    let before = aws.book().repositories["app/web"].tags.clone();
    let told = home.run(&["ping", "ecr"]).await.expect(0).stdout;
    assert!(told.contains("granted on app/web"), "{told}");
    assert_eq!(aws.book().repositories["app/web"].tags, before);
    refuse(&aws, "BatchDeleteImage", "AccessDeniedException");
    let told = home.run(&["ping", "ecr"]).await.expect(0).stdout;
    assert!(told.contains("not granted on app/web"), "{told}");
    aws.book().refusals.clear();
    aws.book().repositories = [("other".to_owned(), Stored::default())].into();
    let told = home.run(&["ping", "ecr"]).await.expect(0).stdout;
    assert!(told.contains("cannot be told without deleting"), "{told}");
}

/// A wait that does not end fails the test.
async fn in_time<T>(waited: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, waited).await.expect("an answer")
}

#[tokio::test]
async fn looks_that_do_not_fit_into_one_request_all_have_an_answer() {
    let (from, aws) = (source(&[]).await, Aws::start().await);
    let end = end(&rules(&from, &aws, &key()), Clock::system());
    let repository = name("app/web");
    aws.book().repositories.insert("app/web".to_owned(), Stored::default());
    let some = |n: usize, count: usize| -> Vec<Digest> {
        let digests = (0..count).map(|m| Digest::of(format!("{n} {m}").as_bytes()));
        digests.collect()
    };
    // Seven hundred blobs, and no two looks in one request.
    let looks = (0..10).map(|n| {
        let (end, repository, some) = (&end, &repository, some(n, 70));
        async move { end.held_blobs(repository, &some).await.len() }
    });
    assert_eq!(in_time(join_all(looks)).await, [70; 10]);
    assert_eq!(aws.asked("BatchCheckLayerAvailability"), 10);

    // Whoever is told to stop while he waits is in nobody's way.
    let [one, two, three] = [1, 90, 90].map(|count| some(count, count));
    let mut first = Box::pin(end.held_blobs(&repository, &one));
    let mut second = Box::pin(end.held_blobs(&repository, &two));
    let third_digests = some(11, 90);
    let mut third = Box::pin(end.held_blobs(&repository, &third_digests));
    assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
    drop(second);
    assert_eq!(in_time(first).await.len(), 1);
    assert_eq!(in_time(third).await.len(), 90);

    // Nor is whoever is told to stop while he asks for others, too.
    let mut first = Box::pin(end.held_blobs(&repository, &one));
    let two = some(12, 5);
    let mut second = Box::pin(end.held_blobs(&repository, &two));
    let mut last = Box::pin(end.held_blobs(&repository, &three[..5]));
    assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending() && poll!(&mut last).is_pending());
    assert_eq!(in_time(first).await.len(), 1);
    assert!(poll!(&mut second).is_pending());
    drop(second);
    assert_eq!(in_time(last).await.len(), 5);
}

#[tokio::test]
async fn an_api_that_fails_is_left_alone_for_a_while() {
    let (from, aws) = (source(&[]).await, Aws::start().await);
    let end = end(&rules(&from, &aws, &key()), Clock::system());
    aws.book().repositories.insert("app/web".to_owned(), Stored::default());
    let digests = [Digest::of(b"one"), Digest::of(b"two")];
    let look = async || end.held_blobs(&name("app/web"), &digests).await.len();
    refuse(&aws, "BatchCheckLayerAvailability", "ServerException");
    assert_eq!((look().await, look().await), (0, 0));
    assert_eq!(aws.asked("BatchCheckLayerAvailability"), 1);
    aws.book().refusals.clear();
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(301)).await;
    tokio::time::resume();
    assert_eq!(look().await, 2);
}

/// The API tells of the asker's own account unless it is told which: that may have the same names, with other images.
#[tokio::test]
async fn without_the_registry_s_account_the_api_is_asked_for_logins_only() {
    let (from, aws) = (source(&["v1"]).await, Aws::start().await);
    seeded(&aws, "app/web", 2);
    seeded(&aws, "app/other", 1);
    let of_nobody = format!("aws: {{ region: eu-west-1, {} }}", access_key());
    let rules = rules(&from, &aws, &of_nobody);
    let end = end(&rules, Clock::system());
    let (web, new) = (name("app/web"), name("app/new"));
    assert_eq!(end.list_digests(&web).await.expect("answered"), BulkListing::None);
    assert_eq!(
        end.list_tags(&web).await.expect("listed").map(|tags| tags.len()),
        Some(2)
    );
    let digests = [Digest::of(b"one"), Digest::of(b"two")];
    assert!(end.held_blobs(&web, &digests).await.is_empty());
    let error = end.begin_write(&new).await.expect_err("nothing is made");
    assert!(error.message.contains("registry_id"), "{error}");
    let home = Transship::new(&rules);
    home.run(&["sync"]).await.expect(0);
    let actions: Vec<String> = aws.book().actions.iter().map(|(action, _)| action.clone()).collect();
    assert!(
        actions.iter().all(|action| action == "GetAuthorizationToken"),
        "{actions:?}"
    );
}

/// Of two digests for a tag nobody knows which is the newer one.
#[tokio::test]
async fn tags_that_move_while_they_are_listed_are_said_to_be_looked_at() {
    let (from, aws) = (source(&[]).await, Aws::start().await);
    let mut images = [image(1, "amd64", &[100]), image(2, "amd64", &[100])];
    // Images are listed in the order of their digests.
    images.sort_by_key(SampleImage::digest);
    let [first, last] = images.map(|image| image.digest().to_string());
    {
        let mut book = aws.book();
        let stored = book.repositories.entry("app/web".to_owned()).or_default();
        let tags = [("v1", &first), ("stays", &first), ("v2", &last)];
        stored.tags = tags.map(|(tag, digest)| (tag.to_owned(), digest.clone())).into();
        book.page = 1;
        book.moves = Some(("app/web".to_owned(), "v1".to_owned(), last.clone()));
    }
    let end = end(&rules(&from, &aws, &key()), Clock::system());
    let Ok(BulkListing::Known { tags, .. }) = end.list_digests(&name("app/web")).await else {
        panic!("no listing");
    };
    let mut listed: Vec<_> = tags
        .iter()
        .map(|listed| (listed.tag.as_str(), listed.digest.as_ref().map(ToString::to_string)))
        .collect();
    listed.sort();
    assert_eq!(listed, [("stays", Some(first)), ("v1", None), ("v2", Some(last))]);
}
