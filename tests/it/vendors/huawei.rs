//! Huawei Cloud: logins, listings and organisations, against a fake that checks every signature.

use std::sync::atomic::Ordering;

use serde_json::Value;
use transship::demo::registry::{Options, Registry};

use crate::support::command::{Output, Transship};
use crate::support::docker_registry::DockerRegistry;
use crate::support::ends::{images, sync_keeping};
use crate::support::engine::{Workshop, by_hand};
use crate::support::fake::huawei::{Huawei, KEY, REGION, SECRET, TEMPORARY, password};
use crate::support::fake::{Fake, lock};
use crate::support::images::{self as samples, image};
use crate::support::wire::Wire;

const TO_PLAIN: &str = "    source: swr\n    destinations: [plain]\n    retry: { attempts: 1 }\n";

/// Rules with the fake `swr` and a plain registry.
fn home(fake: &Fake, keys: &str, plain: &DockerRegistry, rule: &str) -> Transship {
    Transship::new(&format!(
        "version: 1\nregistries:\n{}  plain: {{ url: \"{}\" }}\nrules:\n  - name: r\n{rule}",
        fake.rules("swr", keys),
        plain.url()
    ))
}

/// From the fake to the plain registry.
fn to_plain(fake: &Fake, plain: &DockerRegistry, repositories: &str) -> Transship {
    let rule = format!("{TO_PLAIN}    repositories: {repositories}\n");
    home(fake, &Huawei::keys(fake), plain, &rule)
}

async fn sync(home: &Transship, status: i32) -> (Value, Output) {
    let secrets = [SECRET, TEMPORARY.1, TEMPORARY.2, "temporary-", &password()];
    sync_keeping(home, status, &secrets).await
}

#[tokio::test]
async fn huawei_organisations_are_made_once_for_all_that_need_them() {
    for has_key in [false, true] {
        let (fake, huawei) = Huawei::start(&[]).await;
        huawei.signatures.take_any_date();
        let keys = match has_key {
            true => Huawei::keys(&fake),
            false => Huawei::keys_of_user(),
        };
        let src = Registry::start(Options::default()).await.expect("a registry");
        let sample = image(1, "amd64", &[20]);
        let tag = "v1".parse().expect("a tag");
        for name in ["team/app", "team/web"] {
            src.seed(&name.parse().expect("a name"), &tag, &sample);
        }
        let workshop = Workshop::new(&format!(
            "version: 1\nregistries:\n{}  src: {{ url: \"{}\" }}\nrules:\n  - {{ name: r, source: src, destinations: [dst], \
             repositories: [team/app, team/web] }}\n",
            fake.rules("dst", &keys),
            src.url()
        ));
        let engine = workshop.engine().await;
        let report = by_hand(&engine, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        for name in ["team/app", "team/web"] {
            assert_eq!(fake.resolve(name, "v1"), Some(sample.digest()));
        }
        assert_eq!(
            fake.count("POST", "/dockyard/v2/namespaces"),
            1,
            "{:?}",
            fake.exchanges()
        );
        fake.finish();
    }
}

#[tokio::test]
async fn huawei_lists_digests_by_pages_that_are_put_off_and_asked_for_again() {
    let (fake, huawei) = Huawei::start(&["team", "team2"]).await;
    // Whatever is asked for.
    huawei.most.store(100, Ordering::Relaxed);
    let sample = image(1, "amd64", &[100]);
    let other = samples::two_platforms(7, &[50]);
    for number in 0..230 {
        let sample = if number == 7 { &other } else { &sample };
        fake.seed("team/web/app", &format!("v{number}"), sample);
    }
    fake.seed("team2/app", "v1", &sample);
    let plain = DockerRegistry::plain().await;
    let home = to_plain(&fake, &plain, "[\"team/**\"]");
    // The lists of repositories and of tags: 429 by the gateway.
    fake.throttle(Some(http::Method::GET), "/v2/manage/", 2);
    let (run, _) = sync(&home, 0).await;
    // Those of the other organisation are listed with ours, and are none of them.
    assert_eq!(images(&run, "copied"), 230, "{run:#}");
    // Digests of an index are not documented: they count once HEAD agreed on an image and on an index.
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "in_step"), 230, "{run:#}");
    fake.forget();
    sync(&home, 0).await;
    assert_eq!(fake.count("HEAD", ""), 0, "{:#?}", fake.exchanges());
    // One page of repositories, three of tags.
    assert_eq!(fake.count("GET", "/v2/manage/repos?"), 1);
    assert_eq!(fake.count("GET", "/v2/manage/namespaces/team/repos/web$app/tags?"), 3);
    assert!(fake.exchanges().len() <= 10, "{:#?}", fake.exchanges());
    // Without a total a page that is not full is the last of the tags, which the registry has, too. Of repositories it is looked
    // behind it, and at both pages once more.
    huawei.most.store(0, Ordering::Relaxed);
    huawei.without_totals.store(true, Ordering::Relaxed);
    fake.forget();
    sync(&home, 0).await;
    assert_eq!((fake.count("GET", "/v2/manage/repos?"), fake.count("HEAD", "")), (4, 0));
    assert_eq!(fake.count("GET", "/v2/manage/namespaces/team/repos/web$app/tags?"), 1);
    fake.finish();
}

#[tokio::test]
async fn huawei_tags_that_shift_past_the_reader_are_found_by_their_names() {
    let (fake, huawei) = Huawei::start(&["team"]).await;
    huawei.most.store(100, Ordering::Relaxed);
    huawei.shifts.store(true, Ordering::Relaxed);
    for number in 0..151 {
        fake.seed("team/web", &format!("v{number:03}"), &image(number % 3, "amd64", &[50]));
    }
    let plain = DockerRegistry::plain().await;
    let home = to_plain(&fake, &plain, "[team/web]");
    let (run, _) = sync(&home, 0).await;
    // As many as the list says it has, and one of them is not in it.
    assert_eq!(images(&run, "copied"), 151, "{run:#}");
    let shifted = Wire::new(&plain.url()).resolve("team/web", "v100").await;
    assert_eq!(shifted, fake.resolve("team/web", "v100"));
    fake.finish();
}

/// What the API says of an index is not documented. Where it is a child's digest, a tag that moves to another index with that
/// child is seen to move all the same.
#[tokio::test]
async fn huawei_digests_that_are_not_those_of_the_tags_are_not_believed() {
    let fakes = [Huawei::start(&["team"]).await, Huawei::start(&["team"]).await];
    for (_, huawei) in &fakes {
        huawei.lists_children.store(true, Ordering::Relaxed);
    }
    let [(src, _), (dst, _)] = fakes;
    let platforms = ["linux/amd64", "linux/arm64"];
    let same = image(1, "amd64", &[50]);
    let of = |seed| samples::index(vec![same.clone(), image(seed, "arm64", &[50])], &platforms);
    let rules = [("src", &src), ("dst", &dst)].map(|(name, fake)| fake.rules(name, &Huawei::keys(fake)));
    let home = Transship::new(&format!(
        "version: 1\nregistries:\n{}rules:\n  - {{ name: r, source: src, destinations: [dst], repositories: [team/web] }}\n",
        rules.concat()
    ));
    for (seed, outcome) in [(2, "copied"), (2, "in_step"), (3, "copied"), (3, "in_step")] {
        src.seed("team/web", "v1", &of(seed));
        let (run, _) = sync(&home, 0).await;
        assert_eq!(images(&run, outcome), 1, "{run:#}");
        assert_eq!(dst.resolve("team/web", "v1"), Some(of(seed).digest()));
    }
    src.finish();
    dst.finish();
}

#[tokio::test]
async fn huawei_without_the_right_to_list_says_which_once_and_goes_on() {
    let (fake, huawei) = Huawei::start(&["team"]).await;
    for name in ["team/web", "team/app"] {
        fake.seed(name, "v1", &image(1, "amd64", &[100]));
    }
    lock(&huawei.forbidden).insert("/tags".to_owned());
    let plain = DockerRegistry::plain().await;
    let home = to_plain(&fake, &plain, "[team/web, team/app]");
    let (run, output) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 2, "{run:#}");
    let told = &output.stderr;
    assert!(told.contains("grant the IAM action swr:repo:listRepoTags"), "{told}");
    assert_eq!(told.matches("digests are asked for tag by tag").count(), 1, "{told}");
    // One organisation is asked for once, and by no later process.
    fake.forget();
    let (_, output) = sync(&home, 0).await;
    assert_eq!(fake.count("GET", "/v2/manage/"), 0, "{:#?}", fake.exchanges());
    assert!(!output.stderr.contains("tag by tag"), "{}", output.stderr);
    fake.finish();
}

#[tokio::test]
async fn huawei_repositories_that_are_missing_are_absent_and_nobody_else_is_listed() {
    for missing_is_empty in [false, true] {
        let (fake, huawei) = Huawei::start(&["team"]).await;
        huawei.missing_is_empty.store(missing_is_empty, Ordering::Relaxed);
        fake.seed("team/web", "v1", &image(1, "amd64", &[100]));
        let plain = DockerRegistry::plain().await;
        let home = to_plain(&fake, &plain, "[team/web, team/gone]");
        let (run, _) = sync(&home, 1).await;
        assert_eq!(images(&run, "copied"), 1, "{run:#}");
        let failures = run["failures"].as_array().expect("a list");
        assert_eq!(failures.len(), 1, "{run:#}");
        assert_eq!(
            (&failures[0]["source"], &failures[0]["kind"]),
            (&"swr/team/gone".into(), &"not_found".into())
        );
        fake.finish();
    }
}

#[tokio::test]
async fn huawei_keys_of_the_environment_log_in_and_wrong_ones_are_told() {
    let (fake, _huawei) = Huawei::start(&["team"]).await;
    fake.seed("team/web", "v1", &image(1, "amd64", &[100]));
    let plain = DockerRegistry::plain().await;
    let keys = format!(
        "kind: huawei, endpoint: \"{}\", huawei: {{ region: {REGION} }}",
        fake.url()
    );
    let rule = format!("{TO_PLAIN}    repositories: [team/web]\n");
    let mut home = home(&fake, &keys, &plain, &rule);
    home.set_env("HUAWEICLOUD_SDK_AK", KEY);
    home.set_env("HUAWEICLOUD_SDK_SK", SECRET);
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    // The login of a key that lasts is made here: nobody is asked for it.
    assert_eq!(fake.count("POST", "/v2/manage/"), 0);
    assert_eq!(fake.count("GET", "/v2/manage/"), 1);

    home.set_env("HUAWEICLOUD_SDK_SK", "another-secret");
    // The login that is made of it is refused as the signature is.
    let (run, _) = sync(&home, 1).await;
    let failure = &run["failures"][0];
    assert_eq!(failure["kind"], "unauthorized", "{run:#}");
    let message = failure["message"].as_str().expect("a text");
    assert!(message.contains("cn-north-4@AKFAKE"), "{message}");
    fake.finish();
}

#[tokio::test]
async fn huawei_temporary_keys_send_their_token_and_get_a_login_for_a_while() {
    let (fake, _huawei) = Huawei::start(&["team"]).await;
    let plain = DockerRegistry::plain().await;
    let wire = Wire::new(&plain.url());
    wire.push("team/web", "v1", &image(1, "amd64", &[300_000, 200_000]))
        .await;
    let keys = format!(
        "kind: huawei, endpoint: \"{}\", huawei: {{ region: {REGION}, access_key: {}, secret_key: \"${{TMP_SK}}\", \
         security_token: \"${{TMP_TOKEN}}\", project_id: p1 }}",
        fake.url(),
        TEMPORARY.0
    );
    let rule = "    source: plain\n    destinations: [swr]\n    repositories: [team/web]\n    retry: { attempts: 3, max_delay: 1s }\n";
    let mut home = home(&fake, &keys, &plain, rule);
    home.set_env("TMP_SK", TEMPORARY.1);
    home.set_env("TMP_TOKEN", TEMPORARY.2);
    fake.end_logins_before(http::Method::PUT, "/blobs/uploads/", 1);
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    assert!(fake.logins_ended());
    assert!(fake.count("POST", "/v2/manage/utils/secret") >= 1);
    assert_eq!(fake.resolve("team/web", "v1"), wire.resolve("team/web", "v1").await);
    fake.finish();
}

/// By the name of Huawei's own host, which the rules lead to the fake; its API is at another name, which leads nowhere.
#[tokio::test]
async fn huawei_keys_sign_for_huaweis_own_hosts_alone() {
    let (fake, _huawei) = Huawei::start(&["team"]).await;
    fake.seed("team/web", "v1", &image(1, "amd64", &[100]));
    let plain = DockerRegistry::plain().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let nowhere = nobody.local_addr().expect("an address");
    drop(nobody);
    let (host, at) = (format!("swr.{REGION}.myhuaweicloud.com"), fake.host());
    let home = Transship::new(&format!(
        "version: 1\nregistries:\n  swr: {{ url: \"http://{host}\", proxy: none, token_hosts: [\"{at}\"], \
         resolve: {{ {host}: \"{at}\", swr-api.{REGION}.myhuaweicloud.com: \"{nowhere}\" }}, \
         huawei: {{ access_key: {KEY}, secret_key: \"{SECRET}\" }} }}\n  plain: {{ url: \"{}\" }}\nrules:\n  - name: r\n{TO_PLAIN}    \
         repositories: [team/web]\n",
        plain.url()
    ));
    let (run, output) = sync(&home, 0).await;
    // The region is the host's, so the login is found; the API is out of reach, so tags are looked at.
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    assert!(
        output.stderr.contains("swr-api.cn-north-4.myhuaweicloud.com"),
        "{}",
        output.stderr
    );
    let signed = fake
        .exchanges()
        .into_iter()
        .filter(|seen| seen.scheme.as_deref() == Some("SDK-HMAC-SHA256"));
    assert_eq!(signed.count(), 0, "{:#?}", fake.exchanges());
    fake.finish();
}
