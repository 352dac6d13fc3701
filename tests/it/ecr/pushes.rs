//! Repositories, listings, tokens and uploads.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::json;
use transship::clock::Clock;
use transship::demo::images::{image, noise};
use transship::oci::{Digest, Reference, RepositoryName};
use transship::registry::{BulkListing, Endpoint, ErrorKind};

use super::{key, rules, source};
use crate::support::aws::{Aws, Stored};
use crate::support::engine::{Workshop, by_hand, only_failure};
use crate::support::proxy::{Act, Fault, Proxy};

/// The end `ecr` of these rules, by a clock of the test.
pub(super) fn end(rules: &str, clock: Clock) -> Endpoint {
    Workshop::new(rules).end_by("ecr", clock)
}

pub(super) fn name(text: &str) -> RepositoryName {
    text.parse().expect("a name")
}

pub(super) fn seeded(aws: &Aws, repository: &str, tags: usize) {
    let mut book = aws.book();
    let stored = book.repositories.entry(repository.to_owned()).or_default();
    for number in 0..tags {
        let image = image(number as u64 % 20, "amd64", &[100]);
        let digest = image.digest().to_string();
        stored.tags.insert(format!("v{number:05}"), digest.clone());
        stored
            .manifests
            .insert(digest, (image.media_type.to_owned(), image.manifest.clone()));
    }
}

#[tokio::test]
async fn a_first_copy_makes_the_repository_with_its_settings_and_a_second_run_asks_the_api() {
    let (from, aws) = (source(&["v1", "v2", "v3"]).await, Aws::start().await);
    let create = "create_repositories: { tag_mutability: immutable, tag_mutability_exceptions: [latest, \"dev-*\"], \
                  scan_on_push: true, encryption: kms, kms_key: alias/k, tags: { team: web } }";
    let workshop = Workshop::new(&rules(&from, &aws, &format!("{create}, {}", key())));
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "up").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(report.destinations[0].images.copied, 3);
    assert_eq!(aws.asked("CreateRepository"), 1);
    let asked = aws
        .book()
        .actions
        .iter()
        .find(|(action, _)| action == "CreateRepository")
        .cloned();
    let wanted = json!({
        "registryId": "123456789012",
        "repositoryName": "app/web",
        "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
        "imageTagMutabilityExclusionFilters": [
            { "filterType": "WILDCARD", "filter": "latest" },
            { "filterType": "WILDCARD", "filter": "dev-*" },
        ],
        "imageScanningConfiguration": { "scanOnPush": true },
        "encryptionConfiguration": { "encryptionType": "KMS", "kmsKey": "alias/k" },
        "tags": [{ "Key": "team", "Value": "web" }],
    });
    assert_eq!(asked.map(|(_, body)| body), Some(wanted));
    assert_eq!(aws.asked("GetAuthorizationToken"), 1);
    // The first request was logged in already, and none of the pushes met a missing repository.
    assert!(
        aws.book()
            .seen
            .iter()
            .all(|(_, _, status)| !matches!(status, 401 | 403))
    );
    assert!(
        !aws.book()
            .seen
            .iter()
            .any(|(method, _, status)| method == "POST" && *status == 404)
    );

    let before = aws.book().seen.len();
    let report = by_hand(&engine, "up").await;
    assert_eq!((report.destinations[0].images.in_step, report.failures.len()), (3, 0));
    let after = aws.book().seen.len();
    assert_eq!((after, aws.asked("DescribeImages")), (before, 2));
}

#[tokio::test]
async fn nothing_to_do_over_2000_tags_costs_pages_of_the_api() {
    let aws = Aws::start().await;
    seeded(&aws, "app/web", 2_000);
    let from = source(&[]).await;
    for number in 0..2_000 {
        let tag = format!("v{number:05}").parse().expect("a tag");
        from.seed(&name("app/web"), &tag, &image(number % 20, "amd64", &[100]));
    }
    let workshop = Workshop::new(&rules(&from, &aws, &key()));
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "up").await;
    assert_eq!(
        (report.destinations[0].images.in_step, report.failures.len()),
        (2_000, 0)
    );
    // Its images are twenty.
    assert_eq!(
        (aws.asked("DescribeImages"), aws.asked("GetAuthorizationToken")),
        (1, 0)
    );
    assert_eq!(aws.book().seen.len(), 0);
}

#[tokio::test]
async fn pages_of_both_listings_are_read_to_their_end() {
    let aws = Aws::start().await;
    seeded(&aws, "app/web", 25);
    for number in 0..25 {
        aws.book()
            .repositories
            .insert(format!("b/{number:02}"), Stored::default());
    }
    aws.book().page = 10;
    let from = source(&[]).await;
    let end = end(&rules(&from, &aws, &key()), Clock::system());
    let Ok(BulkListing::Known { tags, comparable }) = end.list_digests(&name("app/web")).await else {
        panic!("no listing");
    };
    assert_eq!((tags.len(), comparable), (25, true));
    assert_eq!(
        end.list_digests(&name("no/such")).await.expect("answered"),
        BulkListing::Absent
    );
    // Nothing at all is not believed of the API alone.
    assert_eq!(
        end.list_digests(&name("b/01")).await.expect("answered"),
        BulkListing::None
    );
    let repositories = end
        .list_repositories(&["b/".to_owned()])
        .await
        .expect("listed")
        .expect("a list");
    assert_eq!(repositories.len(), 26);
}

#[tokio::test]
async fn without_the_right_to_list_digests_are_asked_for_by_tag() {
    let (from, aws) = (source(&["v1"]).await, Aws::start().await);
    for action in ["DescribeImages", "ListImages"] {
        let refused = (400, "AccessDeniedException".to_owned());
        aws.book().refusals.insert(action.to_owned(), vec![refused; 9]);
    }
    let workshop = Workshop::new(&rules(&from, &aws, &key()));
    let engine = workshop.engine().await;
    for run in 0..2 {
        let report = by_hand(&engine, "up").await;
        assert!(report.failures.is_empty(), "{run}: {:?}", report.failures);
    }
    assert_eq!(aws.asked("ListImages"), 1);
    assert!(
        aws.book()
            .seen
            .iter()
            .any(|(method, path, _)| method == "HEAD" && path.ends_with("/manifests/v1"))
    );
}

#[tokio::test]
async fn what_stands_in_the_way_of_creation_is_told() {
    let (from, aws) = (source(&["v1", "v2"]).await, Aws::start().await);
    let refused = (400, "AccessDeniedException".to_owned());
    aws.book().refusals.insert("CreateRepository".to_owned(), vec![refused]);
    let workshop = Workshop::new(&rules(&from, &aws, &key()));
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "up").await;
    assert_eq!(report.failures.len(), 2);
    for failure in &report.failures {
        assert_eq!(failure.kind, ErrorKind::Denied, "{failure:?}");
        assert!(failure.message.contains("ecr:CreateRepository"), "{failure:?}");
    }
    assert_eq!(aws.asked("CreateRepository"), 1);
}

#[tokio::test]
async fn throttling_by_status_400_is_waited_for() {
    let (from, aws) = (source(&["v1"]).await, Aws::start().await);
    for action in ["DescribeImages", "CreateRepository", "GetAuthorizationToken"] {
        let refused = (400, "ThrottlingException".to_owned());
        aws.book().refusals.insert(action.to_owned(), vec![refused; 2]);
    }
    let workshop = Workshop::new(&rules(&from, &aws, &key()));
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "up").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    for action in ["DescribeImages", "CreateRepository", "GetAuthorizationToken"] {
        assert_eq!(aws.asked(action), 3, "{action}");
    }
}

#[tokio::test]
async fn an_immutable_tag_is_a_conflict_in_words() {
    let (from, aws) = (source(&["v1"]).await, Aws::start().await);
    let workshop = Workshop::new(&rules(&from, &aws, &key()));
    let engine = workshop.engine().await;
    by_hand(&engine, "up").await;
    if let Some(stored) = aws.book().repositories.get_mut("app/web") {
        stored.immutable = true;
    }
    from.seed(
        &name("app/web"),
        &"v1".parse().expect("a tag"),
        &image(77, "amd64", &[100]),
    );
    let report = by_hand(&engine, "up").await;
    let failure = only_failure(&report);
    assert_eq!(failure.kind, ErrorKind::Conflict, "{failure:?}");
    assert!(failure.message.contains("moved_tags: keep"), "{failure:?}");
}

/// Bytes as a body in pieces.
fn body(bytes: Bytes) -> transship::registry::BodyStream {
    Box::pin(futures_util::stream::iter([Ok(bytes)]))
}

#[tokio::test]
async fn pieces_go_by_what_was_sent_and_the_rest_goes_with_the_closing_put() {
    let (from, aws) = (source(&[]).await, Aws::start().await);
    aws.book().refuses_empty_put = true;
    let end = end(&rules(&from, &aws, &key()), Clock::system());
    let (least, most) = (end.habits().min_piece, end.habits().max_piece);
    assert_eq!((least, most), (5 << 20, Some(20 << 20)));
    let blob = noise(1, 12 << 20);
    let digest = Digest::of(&blob);
    let repository = name("app/web");
    aws.book().repositories.insert("app/web".to_owned(), Stored::default());
    let mut write = end.begin_write(&repository).await.expect("opened");
    let mut offset = 0;
    for _ in 0..2 {
        let to = offset + least;
        let piece = blob.slice(offset as usize..to as usize);
        let (next, held) = end
            .write_piece(&write, offset, least, body(piece))
            .await
            .expect("a piece");
        // Its Range says 5 MiB after the second piece, too.
        assert_eq!(held, to);
        (write, offset) = (next, held);
    }
    let rest = blob.slice(offset as usize..);
    let length = rest.len() as u64;
    end.finish_write(&write, &digest, offset, length, body(rest))
        .await
        .expect("closed");
    assert_eq!(
        aws.book().repositories["app/web"].blobs.get(&digest.to_string()),
        Some(&blob)
    );
    assert_eq!(
        end.head_blob(&repository, &digest).await.expect("answered"),
        Some(blob.len() as u64)
    );
}

#[tokio::test]
async fn a_large_layer_goes_in_pieces_of_20_mib_and_starts_again_where_one_breaks() {
    let (from, aws) = (source(&[]).await, Aws::start().await);
    let image = image(1, "amd64", &[45 << 20]);
    from.seed(&name("app/web"), &"v1".parse().expect("a tag"), &image);
    let proxy = Proxy::start(&aws.url()).await;
    proxy.add(Fault::nth(2, "PATCH", "/uploads/", Act::CutRequest(3 << 20)));
    let rules = rules(&from, &aws, &key()).replace(&aws.url(), &proxy.url());
    let workshop = Workshop::new(&rules);
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "up").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(report.destinations[0].images.copied, 1);
    // One piece and the broken one; then all of them.
    assert_eq!(proxy.count("PATCH", "/uploads/"), 2 + 2);
    let largest = image.blobs.iter().max_by_key(|blob| blob.len()).expect("a layer");
    let held = aws.book().repositories["app/web"]
        .blobs
        .get(&Digest::of(largest).to_string())
        .cloned();
    assert!(held.as_ref() == Some(largest));
}

#[tokio::test]
async fn a_token_is_renewed_once_under_32_uploads_and_where_it_ended_before_its_time() {
    for by_words in [false, true] {
        let (from, aws) = (source(&[]).await, Aws::start().await);
        let repository = name("app/web");
        aws.book().repositories.insert("app/web".to_owned(), Stored::default());
        aws.book().ends_by_words = by_words;
        let end = Arc::new(end(&rules(&from, &aws, &key()), Clock::system()));
        let uploads = async |seed: u64| {
            let all = (0..32).map(|number| {
                let (end, repository) = (Arc::clone(&end), repository.clone());
                async move {
                    let blob = noise(seed * 100 + number, 1000);
                    let digest = Digest::of(&blob);
                    let write = end.begin_write(&repository).await?;
                    end.finish_write(&write, &digest, 0, 1000, body(blob)).await
                }
            });
            join_all(all).await
        };
        assert!(uploads(1).await.iter().all(Result::is_ok));
        assert_eq!(aws.asked("GetAuthorizationToken"), 1);
        // Another one was given out elsewhere, and ECR takes ours no longer.
        aws.book().tokens += 1;
        let done = uploads(2).await;
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        assert_eq!(aws.asked("GetAuthorizationToken"), 2, "by words: {by_words}");
    }
}

#[tokio::test]
async fn a_token_is_renewed_before_its_12_hours_end_once_under_load() {
    const HOUR: u64 = 3600;
    let (from, aws) = (source(&[]).await, Aws::start().await);
    seeded(&aws, "app/web", 3);
    let in_12_hours = Clock::system().now().as_second() as u64 + 12 * HOUR;
    aws.book().ends = Some(in_12_hours as f64);
    let end = Arc::new(end(&rules(&from, &aws, &key()), Clock::system()));
    let looks = async || {
        let all = (0..32).map(|_| {
            let (end, tag) = (Arc::clone(&end), "v00000".parse().expect("a tag"));
            async move { end.head_manifest(&name("app/web"), &Reference::Tag(tag)).await }
        });
        let all = join_all(all).await;
        assert!(all.iter().all(|look| matches!(look, Ok(Some(_)))), "{all:?}");
    };
    // The machine's time goes on while nothing is under way.
    let pass = async |seconds: u64| {
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(seconds)).await;
        tokio::time::resume();
    };
    looks().await;
    pass(9 * HOUR).await;
    looks().await;
    assert_eq!(aws.asked("GetAuthorizationToken"), 1, "it is good for three hours more");
    // AWS has a bad moment: the old one is used on.
    pass(HOUR).await;
    let refused = (400, "ServerException".to_owned());
    aws.book()
        .refusals
        .insert("GetAuthorizationToken".to_owned(), vec![refused]);
    looks().await;
    assert_eq!(aws.asked("GetAuthorizationToken"), 2);
    pass(HOUR + HOUR / 2).await;
    looks().await;
    looks().await;
    assert_eq!((aws.asked("GetAuthorizationToken"), aws.book().tokens), (3, 2));
    // Nobody met a refusal on the way.
    assert!(aws.book().seen.iter().all(|(_, _, status)| *status == 200));
}

#[tokio::test]
async fn a_token_whose_end_lies_in_the_past_is_used_for_an_hour() {
    let (from, aws) = (source(&[]).await, Aws::start().await);
    seeded(&aws, "app/web", 3);
    aws.book().ends = Some(1_420_070_400.5);
    let end = end(&rules(&from, &aws, &key()), Clock::system());
    for _ in 0..5 {
        let reference = Reference::Tag("v00000".parse().expect("a tag"));
        let head = end.head_manifest(&name("app/web"), &reference).await;
        assert!(head.expect("answered").is_some());
    }
    assert_eq!(aws.asked("GetAuthorizationToken"), 1);
}
