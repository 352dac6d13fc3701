//! What `/v2/` of ECR does otherwise than other registries: lists of names, mounts, manifests without their layers, its words.

use http::StatusCode;
use transship::clock::Clock;
use transship::demo::images::image;
use transship::demo::registry::Running;
use transship::engine::{Engine, RunReport};
use transship::oci::Digest;
use transship::registry::ErrorKind;
use transship::vendors::habits_for;

use super::pushes::{end, name, seeded};
use super::{key, rules, source};
use crate::support::aws::{Aws, Stored};
use crate::support::engine::{Workshop, by_hand, only_failure, scheduled};
use crate::support::proxy::{Act, Fault, Proxy};

/// Method, path and status of what was asked below a path.
fn statuses(aws: &Aws, method: &str, part: &str) -> Vec<u16> {
    let book = aws.book();
    let seen = book.seen.iter();
    let of = seen.filter(|(verb, path, _)| verb == method && path.contains(part));
    of.map(|(_, _, status)| *status).collect()
}

/// "Low tens" of listings a second were seen; the rates are not published.
#[test]
fn ecr_has_a_pace_of_10_requests_a_second_for_its_api() {
    let habits = habits_for("123456789012.dkr.ecr.eu-west-1.amazonaws.com");
    assert_eq!(habits.api_per_second, Some(10));
}

/// The link says the host and goes on from a mark that is no tag; more than a thousand names a page are refused, which fails the test.
#[tokio::test]
async fn ecr_names_of_tags_come_by_links_taken_as_they_are() {
    for (page, pages) in [(1000, 3), (100, 21)] {
        let aws = Aws::start().await;
        seeded(&aws, "app/web", 2_050);
        aws.book().page = page;
        let from = source(&[]).await;
        let end = end(&rules(&from, &aws, &key()), Clock::system());
        let tags = end.list_tags(&name("app/web")).await.expect("listed").expect("tags");
        assert_eq!(tags.len(), 2_050);
        assert_eq!(statuses(&aws, "GET", "/tags/list"), vec![200; pages]);
    }
}

/// Where neither listing of the API is for this user.
#[tokio::test]
async fn ecr_whose_api_may_not_be_asked_is_read_by_its_own_pages_of_names() {
    let (from, aws) = (source(&["v00000"]).await, Aws::start().await);
    seeded(&aws, "app/web", 250);
    aws.book().page = 100;
    for action in ["DescribeImages", "ListImages"] {
        let refused = (400, "AccessDeniedException".to_owned());
        aws.book().refusals.insert(action.to_owned(), vec![refused; 9]);
    }
    // Of the pages the last has it, as the names are sorted by nothing.
    from.seed(
        &name("app/web"),
        &"v00000".parse().expect("a tag"),
        &image(0, "amd64", &[100]),
    );
    let workshop = Workshop::new(&rules(&from, &aws, &key()));
    let report = by_hand(&workshop.engine().await, "up").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(report.destinations[0].images.in_step, 1);
    assert_eq!(statuses(&aws, "GET", "/tags/list"), [200; 3]);
}

/// From a registry in memory to two repositories, by a rule each.
async fn twice(from: &Running, aws: &Aws) -> (Workshop, Engine) {
    for repository in ["app/web", "app/other"] {
        let tag = "v1".parse().expect("a tag");
        from.seed(&name(repository), &tag, &image(1, "amd64", &[3000]));
    }
    let rules = rules(from, aws, &key());
    let workshop = Workshop::new(&format!(
        "{rules}  - {{ name: other, source: src, destinations: [ecr], repositories: [app/other] }}\n"
    ));
    let engine = workshop.engine().await;
    (workshop, engine)
}

/// ECR user guide, "Blob mounting": by the account's setting `BLOB_MOUNTING`; without it a mount is an upload.
#[tokio::test]
async fn ecr_mounts_blobs_where_the_account_has_that_switched_on() {
    for (mounts, mounted, posts, sent) in [(true, 2, vec![201; 2], 0), (false, 0, vec![202; 2], 2)] {
        let (from, aws) = (source(&[]).await, Aws::start().await);
        aws.book().mounts = mounts;
        let (_workshop, engine) = twice(&from, &aws).await;
        assert!(by_hand(&engine, "up").await.failures.is_empty());
        aws.book().seen.clear();
        let report = by_hand(&engine, "other").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        let blobs = &report.destinations[0].blobs;
        assert_eq!((blobs.mounted, blobs.copied), (mounted, 2 - mounted));
        // The upload that a mount became is the one that the blob is sent by.
        assert_eq!(statuses(&aws, "POST", "/app/other/blobs/uploads/"), posts);
        assert_eq!(statuses(&aws, "PUT", "/app/other/blobs/uploads/"), vec![201; sent]);
        let book = aws.book();
        let stored = &book.repositories["app/other"];
        assert_eq!((stored.blobs.len(), stored.tags.len()), (2, 1));
    }
}

/// `LayersNotFoundException` of `PutImage`; what it is on `/v2/` is not published, so each way in which it may be said.
#[tokio::test]
async fn ecr_layers_are_believed_for_a_day_and_sent_where_a_manifest_is_refused_for_them() {
    for lacks in [
        (400, "BLOB_UNKNOWN"),
        (404, "BLOB_UNKNOWN"),
        (400, "MANIFEST_BLOB_UNKNOWN"),
    ] {
        let (from, aws) = (source(&[]).await, Aws::start().await);
        aws.book().lacks = Some(lacks);
        let workshop = Workshop::new(&rules(&from, &aws, &key()));
        let engine = workshop.engine().await;
        let put = |tag: &str, architecture: &str| {
            let tag = tag.parse().expect("a tag");
            from.seed(&name("app/web"), &tag, &image(1, architecture, &[3000]));
        };
        put("v1", "amd64");
        assert!(by_hand(&engine, "up").await.failures.is_empty());
        let layer = Digest::of(&image(1, "amd64", &[3000]).blobs[1]).to_string();
        let lost = |aws: &Aws| {
            let mut book = aws.book();
            let stored = book.repositories.get_mut("app/web").expect("made");
            stored.blobs.remove(&layer)
        };
        assert!(lost(&aws).is_some());
        put("v2", "arm64");
        aws.book().seen.clear();
        let report = scheduled(&engine, "up").await;
        assert!(report.failures.is_empty(), "{lacks:?}: {:?}", report.failures);
        // The layer was sent just before, so nobody looks for it until the manifest is refused.
        let asked = aws.book().seen.clone().into_iter();
        let mut before = asked.take_while(|(method, _, _)| method != "PUT");
        assert!(
            before.all(|(_, path, _)| !path.ends_with(&layer)),
            "{:?}",
            aws.book().seen
        );
        assert_eq!(statuses(&aws, "PUT", "/manifests/v2"), [lacks.0, 201], "{lacks:?}");
        assert!(aws.book().repositories["app/web"].blobs.contains_key(&layer));
    }
}

/// ECR behind something that answers in its stead where a test wants that.
async fn behind(fault: Fault) -> (Aws, Proxy, RunReport) {
    let (from, aws) = (source(&["v1"]).await, Aws::start().await);
    aws.book().repositories.insert("app/web".to_owned(), Stored::default());
    let proxy = Proxy::start(&aws.url()).await;
    proxy.add(fault);
    let rules = rules(&from, &aws, &key()).replace(&aws.url(), &proxy.url());
    let workshop = Workshop::new(&rules);
    let report = by_hand(&workshop.engine().await, "up").await;
    (aws, proxy, report)
}

#[tokio::test]
async fn ecr_says_in_words_which_permission_is_missing_or_nothing_at_all() {
    let words = r#"{"errors":[{"code":"DENIED","message":"User: arn:aws:iam::123456789012:user/sync is not authorized to perform: ecr:InitiateLayerUpload on resource: arn:aws:ecr:eu-west-1:123456789012:repository/app/web"}]}"#;
    for (text, told) in [
        (words, "grant the AWS user that permission"),
        ("", "push rights to this repository"),
    ] {
        let refuse = Act::AnswerAfter(StatusCode::FORBIDDEN, text);
        let (aws, proxy, report) = behind(Fault::every("POST", "/blobs/uploads/", refuse)).await;
        let failure = only_failure(&report);
        assert_eq!(
            (failure.kind, failure.status),
            (ErrorKind::Denied, Some(403)),
            "{failure:?}"
        );
        assert!(failure.message.contains(told), "{failure:?}");
        // It may be the repository that is missing, so its making is tried, once; nobody asks a third time for what is not granted.
        assert_eq!(aws.asked("CreateRepository"), 1);
        assert_eq!(
            proxy.count("POST", "/app/web/blobs/uploads/"),
            2 * 2,
            "{:?}",
            proxy.exchanges()
        );
    }
}

/// `/v2/` takes part in the rates of the API's actions, and may say so with another status.
#[tokio::test]
async fn ecr_rates_that_are_exceeded_are_waited_for_whatever_the_status() {
    let words = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}"#;
    for (status, text) in [
        (StatusCode::TOO_MANY_REQUESTS, words),
        (
            StatusCode::BAD_REQUEST,
            r#"{"errors":[{"code":"UNSUPPORTED","message":"Rate exceeded"}]}"#,
        ),
    ] {
        let (aws, proxy, report) = behind(Fault::once("PUT", "/manifests/", Act::AnswerAfter(status, text))).await;
        assert!(report.failures.is_empty(), "{status}: {:?}", report.failures);
        assert_eq!(proxy.count("PUT", "/manifests/v1"), 2);
        assert!(aws.book().repositories["app/web"].tags.contains_key("v1"));
    }
}

/// containers/image#584; which status it has is not published. The field is optional in OCI, and so no client may add it.
#[tokio::test]
async fn ecr_manifests_without_a_media_type_are_refused_in_words() {
    let (from, aws) = (source(&[]).await, Aws::start().await);
    let mut plain = image(1, "amd64", &[100]);
    let mut manifest: serde_json::Value = serde_json::from_slice(&plain.manifest).expect("a manifest");
    manifest.as_object_mut().expect("a map").remove("mediaType");
    plain.manifest = manifest.to_string().into();
    from.seed(&name("app/web"), &"v1".parse().expect("a tag"), &plain);
    let workshop = Workshop::new(&rules(&from, &aws, &key()));
    let report = by_hand(&workshop.engine().await, "up").await;
    let by_itself = only_failure(&report);

    let words = r#"{"errors":[{"code":"UNSUPPORTED","message":"Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax'"}]}"#;
    let refuse = Act::AnswerAfter(StatusCode::BAD_REQUEST, words);
    let (_aws, _proxy, report) = behind(Fault::every("PUT", "/manifests/", refuse)).await;
    for (failure, status) in [(by_itself, 405), (only_failure(&report), 400)] {
        assert_eq!(
            (failure.kind, failure.status),
            (ErrorKind::Unsupported, Some(status)),
            "{failure:?}"
        );
        assert!(
            failure.message.contains("only with `mediaType` in it") && !failure.message.contains("read-only"),
            "{failure:?}"
        );
    }
    assert_eq!(statuses(&aws, "PUT", "/manifests/v1"), [405], "it is not tried again");
}

/// A repository creation template that is applied for CREATE_ON_PUSH, and a user who may push and make nothing.
#[tokio::test]
async fn ecr_templates_make_what_is_pushed_to_where_the_user_may_not() {
    let (from, aws) = (source(&["v1"]).await, Aws::start().await);
    let refused = (400, "AccessDeniedException".to_owned());
    aws.book()
        .refusals
        .insert("CreateRepository".to_owned(), vec![refused; 9]);
    aws.book().creates_on_push = true;
    let workshop = Workshop::new(&rules(&from, &aws, &key()));
    let report = by_hand(&workshop.engine().await, "up").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(report.destinations[0].images.copied, 1);
    assert_eq!(aws.asked("CreateRepository"), 1);
    assert!(aws.book().repositories["app/web"].tags.contains_key("v1"));
}
