//! Tencent Container Registry, both editions, against fakes that check every signature.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::support::command::{Output, Transship};
use crate::support::docker_registry::DockerRegistry;
use crate::support::ends::{images, sync_keeping};
use crate::support::fake::tencent::{self, ID, INSTANCE, KEY, REGION};
use crate::support::fake::{Fake, lock};
use crate::support::images::{self as samples, image};
use crate::support::wire::Wire;
use crate::support::{PASSWORD, USERNAME};

/// Rules with the fake `tcr` as source or destination of a plain registry, and the fake's key in the environment.
fn home(fake: &Fake, keys: &str, plain: &DockerRegistry, rule: &str) -> Transship {
    let more = format!("{keys}, endpoint: \"{}\"", fake.url());
    let mut home = Transship::new(&format!(
        "version: 1\nregistries:\n{}  plain: {{ url: \"{}\" }}\nrules:\n  - name: r\n{rule}",
        fake.rules("tcr", &more),
        plain.url()
    ));
    home.set_env("TENCENTCLOUD_SECRET_ID", ID);
    home.set_env("TENCENTCLOUD_SECRET_KEY", KEY);
    home
}

fn enterprise(more: &str) -> String {
    format!("kind: tencent_enterprise, tencent: {{ registry_id: {INSTANCE} }}{more}")
}

const FROM_PLAIN: &str = "    source: plain\n    destinations: [tcr]\n    retry: { attempts: 3, max_delay: 1s }\n";
const TO_PLAIN: &str = "    source: tcr\n    destinations: [plain]\n    retry: { attempts: 1 }\n";

async fn sync(home: &Transship, status: i32) -> (Value, Output) {
    sync_keeping(home, status, &[KEY, "temporary-", PASSWORD, "session-token"]).await
}

#[tokio::test]
async fn tencent_enterprise_as_destination_makes_namespaces_and_repositories() {
    for missing_is_empty in [false, true] {
        let (fake, cloud) = tencent::enterprise().await;
        cloud.missing_is_empty.store(missing_is_empty, Ordering::Relaxed);
        let plain = DockerRegistry::plain().await;
        let wire = Wire::new(&plain.url());
        wire.push("corp/web", "v1", &samples::two_platforms(1, &[300])).await;
        wire.push("corp/api", "v1", &image(5, "amd64", &[300])).await;
        let rule = format!("{FROM_PLAIN}    repositories: [corp/web, corp/api]\n");
        let keys = enterprise(", create_repositories: { public: true, scan_on_push: true }");
        let home = home(&fake, &keys, &plain, &rule);
        let (run, _) = sync(&home, 0).await;
        assert_eq!(images(&run, "copied"), 2, "{run:#}");
        assert_eq!(fake.resolve("corp/web", "v1"), wire.resolve("corp/web", "v1").await);
        let wanted = json!({ "public": true, "scan": true });
        assert_eq!(lock(&cloud.namespaces).get("corp"), Some(&wanted));
        let made: Vec<String> = lock(&cloud.repositories).keys().cloned().collect();
        assert_eq!(made, ["corp/api", "corp/web"]);
        fake.forget();
        let (run, _) = sync(&home, 0).await;
        assert_eq!(images(&run, "in_step"), 2, "{run:#}");
        assert_eq!(fake.count("PUT", ""), 0);
        fake.finish();
    }
}

#[tokio::test]
async fn tencent_enterprise_lists_digests_by_pages_that_are_put_off_and_asked_for_again() {
    let (fake, cloud) = tencent::enterprise().await;
    cloud.namespace("corp");
    let sample = image(1, "amd64", &[100]);
    let other = samples::two_platforms(7, &[50]);
    for number in 0..230 {
        let sample = if number == 7 { &other } else { &sample };
        fake.seed("corp/web", &format!("v{number}"), sample);
    }
    let plain = DockerRegistry::plain().await;
    let rule = format!("{TO_PLAIN}    repositories: [\"corp/*\"]\n");
    let home = home(&fake, &enterprise(""), &plain, &rule);
    // The instance's region, its login and the first list wait: codes with status 200 say so.
    fake.throttle(Some(http::Method::POST), "/", 2);
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 230, "{run:#}");
    // Digests of an index are not documented: they count once HEAD agreed on an image and on an index.
    fake.forget();
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "in_step"), 230, "{run:#}");
    fake.forget();
    sync(&home, 0).await;
    assert!(fake.count("HEAD", "") <= 2, "{:#?}", fake.count("HEAD", ""));
    // The instance, its login, one page of repositories, three of tags.
    assert_eq!(fake.count("POST", ""), 6, "{:#?}", fake.exchanges());
    assert!(fake.exchanges().len() <= 13, "{:#?}", fake.exchanges());
    fake.finish();
}

#[tokio::test]
async fn tencent_tags_that_shift_past_the_reader_are_found_by_their_names() {
    let (fake, cloud) = tencent::enterprise().await;
    cloud.namespace("corp");
    cloud.shifts.store(true, Ordering::Relaxed);
    for number in 0..151 {
        fake.seed("corp/web", &format!("v{number:03}"), &image(number % 3, "amd64", &[50]));
    }
    let plain = DockerRegistry::plain().await;
    let rule = format!("{TO_PLAIN}    repositories: [corp/web]\n");
    let home = home(&fake, &enterprise(""), &plain, &rule);
    let (run, _) = sync(&home, 0).await;
    // As many as the list says it has, and one of them is not in it.
    assert_eq!(images(&run, "copied"), 151, "{run:#}");
    let shifted = Wire::new(&plain.url()).resolve("corp/web", "v100").await;
    assert_eq!(shifted, fake.resolve("corp/web", "v100"));
    fake.finish();
}

/// What the API says of an index is not documented. Where it is a child's digest, at both ends, a tag that moves to another
/// index with that child is seen to move all the same.
#[tokio::test]
async fn tencent_digests_that_are_not_those_of_the_tags_are_not_believed() {
    let fakes = [tencent::enterprise().await, tencent::enterprise().await];
    for (_, cloud) in &fakes {
        cloud.namespace("corp");
        cloud.lists_children.store(true, Ordering::Relaxed);
    }
    let [(src, _), (dst, _)] = fakes;
    let platforms = ["linux/amd64", "linux/arm64"];
    let same = image(1, "amd64", &[50]);
    let of = |seed| samples::index(vec![same.clone(), image(seed, "arm64", &[50])], &platforms);
    let rules =
        [("src", &src), ("dst", &dst)].map(|(name, fake)| fake.rules(name, &tencent::keys(fake, "tencent_enterprise")));
    let home = Transship::new(&format!(
        "version: 1\nregistries:\n{}rules:\n  - {{ name: r, source: src, destinations: [dst], repositories: [corp/web] }}\n",
        rules.concat()
    ));
    for (seed, outcome) in [(2, "copied"), (2, "in_step"), (3, "copied"), (3, "in_step")] {
        src.seed("corp/web", "v1", &of(seed));
        let (run, _) = sync(&home, 0).await;
        assert_eq!(images(&run, outcome), 1, "{run:#}");
        assert_eq!(dst.resolve("corp/web", "v1"), Some(of(seed).digest()));
    }
    src.finish();
    dst.finish();
}

/// By the names of the vendor's own hosts, which the rules lead to the fake.
#[tokio::test]
async fn tencent_instances_are_found_by_the_host_of_the_registry() {
    for name in ["corp", "corp-vpc"] {
        let (fake, cloud) = tencent::enterprise().await;
        cloud.namespace("corp");
        fake.seed("corp/web", "v1", &image(1, "amd64", &[100]));
        let plain = DockerRegistry::plain().await;
        let (host, at) = (format!("{name}.tencentcloudcr.com"), fake.host());
        let mut home = Transship::new(&format!(
            "version: 1\nregistries:\n  tcr: {{ url: \"http://{host}\", resolve: {{ {host}: \"{at}\" }}, token_hosts: [\"{at}\"], \
             endpoint: \"{}\", proxy: none }}\n  plain: {{ url: \"{}\" }}\nrules:\n  - name: r\n{TO_PLAIN}    \
             repositories: [corp/web]\n",
            fake.url(),
            plain.url()
        ));
        home.set_env("TENCENTCLOUD_SECRET_ID", ID);
        home.set_env("TENCENTCLOUD_SECRET_KEY", KEY);
        let (run, _) = sync(&home, 0).await;
        assert_eq!(images(&run, "copied"), 1, "{run:#}");
        // The instance, its login, the tags: it is asked for once.
        assert_eq!(fake.count("POST", ""), 3, "{:#?}", fake.exchanges());
        fake.finish();
    }
}

#[tokio::test]
async fn tencent_enterprise_without_the_right_to_list_says_which_and_goes_on() {
    let (fake, cloud) = tencent::enterprise().await;
    cloud.namespace("corp");
    fake.seed("corp/web", "v1", &image(1, "amd64", &[100]));
    lock(&cloud.forbidden).insert("DescribeImages".to_owned());
    let plain = DockerRegistry::plain().await;
    let rule = format!("{TO_PLAIN}    repositories: [corp/web]\n");
    let home = home(&fake, &enterprise(""), &plain, &rule);
    let (run, output) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    assert!(
        output.stderr.contains("grant the CAM action tcr:DescribeImages"),
        "{}",
        output.stderr
    );
    fake.finish();
}

#[tokio::test]
async fn tencent_logins_that_end_are_renewed_and_wrong_keys_are_told() {
    let (fake, _cloud) = tencent::enterprise().await;
    let plain = DockerRegistry::plain().await;
    let wire = Wire::new(&plain.url());
    wire.push("corp/web", "v1", &image(1, "amd64", &[300_000, 200_000]))
        .await;
    let rule = format!("{FROM_PLAIN}    repositories: [corp/web]\n");
    let mut home = home(&fake, &enterprise(""), &plain, &rule);
    fake.end_logins_before(http::Method::PUT, "/blobs/uploads/", 1);
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    assert!(fake.logins_ended());

    // A secret that is not the key's, and a key that nobody gave out.
    for (name, value, code) in [
        (
            "TENCENTCLOUD_SECRET_KEY",
            "tencent-secret-other",
            "AuthFailure.SignatureFailure",
        ),
        ("TENCENTCLOUD_SECRET_ID", "AKIDnobody", "AuthFailure.SecretIdNotFound"),
    ] {
        home.set_env(name, value);
        let (_, output) = sync(&home, 1).await;
        for words in [code, "check the key", "tencent.international: true"] {
            assert!(output.stdout.contains(words), "{words}: {}", output.stdout);
        }
    }
    fake.finish();
}

#[tokio::test]
async fn tencent_temporary_keys_send_their_token_and_a_written_region_saves_a_question() {
    let (fake, cloud) = tencent::enterprise().await;
    cloud.namespace("corp");
    cloud.signatures.add("AKIDtmp", "temp-secret", Some("session-token"));
    fake.seed("corp/web", "v1", &image(1, "amd64", &[100]));
    let plain = DockerRegistry::plain().await;
    let rule = format!("{TO_PLAIN}    repositories: [corp/web]\n");
    let keys = format!(
        "kind: tencent_enterprise, tencent: {{ registry_id: {INSTANCE}, region: {REGION}, secret_id: AKIDtmp, \
         secret_key: \"${{TMP_KEY}}\", token: \"${{TMP_TOKEN}}\" }}"
    );
    let mut home = home(&fake, &keys, &plain, &rule);
    home.set_env("TMP_KEY", "temp-secret");
    home.set_env("TMP_TOKEN", "session-token");
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    // The login and the tags.
    assert_eq!(fake.count("POST", ""), 2, "{:#?}", fake.exchanges());
    fake.finish();
}

#[tokio::test]
async fn tencent_personal_lists_and_makes_by_its_api_and_logs_in_by_its_user() {
    let (fake, cloud) = tencent::personal().await;
    let plain = DockerRegistry::plain().await;
    let wire = Wire::new(&plain.url());
    wire.push("corp/web", "v1", &image(1, "amd64", &[300])).await;
    let rule = format!("{FROM_PLAIN}    repositories: [corp/web]\n");
    let keys =
        format!("kind: tencent_personal, username: {USERNAME}, password: {PASSWORD}, tencent: {{ region: {REGION} }}");
    let public = format!("{keys}, create_repositories: {{ public: true }}");
    let to_tcr = home(&fake, &public, &plain, &rule);
    let (run, _) = sync(&to_tcr, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    assert_eq!(lock(&cloud.repositories).get("corp/web"), Some(&json!({ "public": 1 })));

    for number in 0..120 {
        fake.seed(&format!("corp/n{number}"), "v1", &image(number % 3, "amd64", &[10]));
    }
    for pattern in ["corp/*", "**"] {
        let rule = format!("{TO_PLAIN}    repositories: [\"{pattern}\"]\n");
        let from_tcr = home(&fake, &keys, &plain, &rule);
        fake.forget();
        let (run, _) = sync(&from_tcr, 0).await;
        assert_eq!(images(&run, "copied") + images(&run, "in_step"), 121, "{run:#}");
        assert_eq!(
            fake.count("POST", ""),
            3,
            "two pages of 100 repositories, and the first once more"
        );
    }
    fake.finish();
}
