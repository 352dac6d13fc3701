//! Alibaba Cloud Container Registry, both editions, against fakes that check every signature.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use transship::oci::media_type::BUILDKIT_ATTESTATION;

use crate::support::command::{Output, Transship};
use crate::support::docker_registry::DockerRegistry;
use crate::support::ends::{images, sync_keeping};
use crate::support::fake::alibaba::{self, KEY, OIDC_TOKEN, ROLE, SECRET};
use crate::support::fake::{Fake, lock};
use crate::support::images::{self as samples, image};
use crate::support::names::Names;
use crate::support::wire::Wire;

const ENTERPRISE: &str = "kind: alibaba_enterprise";
const PERSONAL: &str = "kind: alibaba_personal";

/// Rules with the fake `ali` as source or destination of a plain registry, and the fake's key in the environment.
fn home(fake: &Fake, kind: &str, cloud: &str, plain: &DockerRegistry, rule: &str) -> Transship {
    let more = format!("{kind}, endpoint: \"{}\"{cloud}", fake.url());
    let mut home = Transship::new(&format!(
        "version: 1\nregistries:\n{}  plain: {{ url: \"{}\" }}\nrules:\n  - name: r\n{rule}",
        fake.rules("ali", &more),
        plain.url()
    ));
    home.set_env("ALIBABA_CLOUD_ACCESS_KEY_ID", KEY);
    home.set_env("ALIBABA_CLOUD_ACCESS_KEY_SECRET", SECRET);
    home.set_env("ALIBABA_CLOUD_STS_ENDPOINT", &format!("{}/sts", fake.url()));
    home
}

const FROM_PLAIN: &str = "    source: plain\n    destinations: [ali]\n    retry: { attempts: 3, max_delay: 1s }\n";
const TO_PLAIN: &str = "    source: ali\n    destinations: [plain]\n    retry: { attempts: 1 }\n";

async fn sync(home: &Transship, status: i32) -> (Value, Output) {
    sync_keeping(
        home,
        status,
        &[SECRET, OIDC_TOKEN, "temporary-", "session-secret", "session/token"],
    )
    .await
}

/// The rules say no more than the registry's address and the key: public and VPC hosts are not mixed.
#[tokio::test]
async fn alibaba_is_asked_by_its_own_names() {
    for (of, others) in [(&alibaba::PUBLIC, &alibaba::VPC), (&alibaba::VPC, &alibaba::PUBLIC)] {
        let (fake, cloud) = alibaba::enterprise_as(of).await;
        cloud.repository("corp/web");
        let plain = DockerRegistry::plain().await;
        let wire = Wire::new(&plain.url());
        let sample = image(1, "amd64", &[300]);
        wire.push("corp/web", "v1", &sample).await;
        let host = |url: &'static str| url.trim_start_matches("https://");
        let own = [of.registry, host(of.realm), of.api];
        let foreign = [others.registry, host(others.realm), others.api];
        let mut names: Vec<_> = own.iter().map(|name| (*name, Some(fake.addr()))).collect();
        names.extend(foreign.iter().map(|name| (*name, None)));
        let listening = Names::start(&names).await;
        let all: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        let mut home = Transship::new(&format!(
            "version: 1\nregistries:\n  plain: {{ url: \"{}\" }}\n  ali:\n    url: https://{}\n    tls: {{ ca_file: \"{}\" }}\n    \
             resolve:\n{}rules:\n  - {{ name: up, source: plain, destinations: [ali], repositories: [corp/web] }}\n  - {{ name: down, \
             source: ali, destinations: [plain], repositories: [{{ match: \"corp/*\", to: \"back/{{name}}\" }}] }}\n",
            plain.url(),
            of.registry,
            listening.authority().ca_file.display(),
            listening.resolve(&all),
        ));
        home.set_env("ALIBABA_CLOUD_ACCESS_KEY_ID", KEY);
        home.set_env("ALIBABA_CLOUD_ACCESS_KEY_SECRET", SECRET);
        for rule in ["up", "down"] {
            let output = home.run(&["sync", "-o", "json", rule]).await.expect(0);
            let run = output.json()["runs"][0].clone();
            assert_eq!(images(&run, "copied"), 1, "{run:#}");
        }
        assert_eq!(wire.resolve("back/web", "v1").await, Some(sample.digest()));
        let mut wanted = own.map(str::to_owned);
        wanted.sort();
        assert_eq!(listening.called(), wanted, "other hosts were asked");
        fake.finish();
    }
}

#[tokio::test]
async fn alibaba_enterprise_as_destination_makes_namespaces_and_repositories() {
    let (fake, cloud) = alibaba::enterprise().await;
    let plain = DockerRegistry::plain().await;
    let wire = Wire::new(&plain.url());
    wire.push("corp/web", "v1", &samples::two_platforms(1, &[300])).await;
    wire.push("corp/api", "v1", &image(5, "amd64", &[300])).await;
    let rule = format!("{FROM_PLAIN}    repositories: [corp/web, corp/api]\n");
    let home = home(
        &fake,
        ENTERPRISE,
        ", create_repositories: { tag_mutability: immutable }",
        &plain,
        &rule,
    );
    fake.throttle(None, "PageNo", 2);
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 2, "{run:#}");
    assert_eq!(fake.resolve("corp/web", "v1"), wire.resolve("corp/web", "v1").await);
    let made = lock(&cloud.repositories).clone();
    let wanted = json!({ "type": "PRIVATE", "immutable": "true" });
    assert_eq!(made.get("corp/web"), Some(&wanted));
    assert_eq!(made.get("corp/api"), Some(&wanted));
    assert_eq!(lock(&cloud.namespaces).get("corp"), Some(&true));
    assert!(fake.count("POST", "AutoCreateRepo=true") >= 1);
    fake.forget();
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "in_step"), 2, "{run:#}");
    assert_eq!(fake.count("PUT", ""), 0);
    fake.finish();
}

/// It knows no exceptions: what would fix their tags, too, is not asked for.
#[tokio::test]
async fn alibaba_enterprise_is_told_of_no_immutable_tags_that_have_exceptions() {
    let (fake, cloud) = alibaba::enterprise().await;
    let plain = DockerRegistry::plain().await;
    let wire = Wire::new(&plain.url());
    wire.push("corp/web", "v1", &image(5, "amd64", &[300])).await;
    let create = ", create_repositories: { tag_mutability: immutable, tag_mutability_exceptions: [latest] }";
    let rule = format!("{FROM_PLAIN}    repositories: [corp/web]\n");
    let home = home(&fake, ENTERPRISE, create, &plain, &rule);
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    let wanted = json!({ "type": "PRIVATE", "immutable": null });
    assert_eq!(lock(&cloud.repositories).get("corp/web"), Some(&wanted));
    fake.finish();
}

#[tokio::test]
async fn alibaba_enterprise_lists_digests_by_pages_that_are_put_off_and_signed_again() {
    let (fake, cloud) = alibaba::enterprise().await;
    cloud.repository("corp/web");
    let sample = image(1, "amd64", &[100]);
    let other = samples::two_platforms(7, &[50]);
    for number in 0..230 {
        let sample = if number == 7 { &other } else { &sample };
        fake.seed("corp/web", &format!("v{number}"), sample);
    }
    let plain = DockerRegistry::plain().await;
    let rule = format!("{TO_PLAIN}    repositories: [\"corp/*\"]\n");
    let home = home(&fake, ENTERPRISE, "", &plain, &rule);
    fake.throttle(None, "PageNo=2", 1);
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 230, "{run:#}");
    let twice = fake.exchanges().iter().filter(|one| one.status == Some(400)).count();
    assert_eq!(twice, 2, "put off, then its nonce was used up");
    // Digests of an index are not documented: they count once HEAD agreed on an image and on an index.
    fake.forget();
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "in_step"), 230, "{run:#}");
    fake.forget();
    sync(&home, 0).await;
    assert!(fake.count("HEAD", "") <= 2, "{:#?}", fake.count("HEAD", ""));
    assert!(fake.count("POST", "RepoId=") == 3, "three pages");
    assert!(fake.exchanges().len() <= 13, "{:#?}", fake.exchanges());
    fake.finish();
}

#[tokio::test]
async fn alibaba_tags_that_shift_past_the_reader_are_found_by_their_names() {
    for kind in [ENTERPRISE, PERSONAL] {
        let (fake, cloud) = match kind {
            ENTERPRISE => alibaba::enterprise().await,
            _ => alibaba::personal().await,
        };
        cloud.repository("corp/web");
        cloud.shifts.store(true, Ordering::Relaxed);
        for number in 0..151 {
            fake.seed("corp/web", &format!("v{number:03}"), &image(number % 3, "amd64", &[50]));
        }
        let plain = DockerRegistry::plain().await;
        let rule = format!("{TO_PLAIN}    repositories: [corp/web]\n");
        let home = home(&fake, kind, "", &plain, &rule);
        let (run, _) = sync(&home, 0).await;
        // As many as the list says it has, and one of them is not in it.
        assert_eq!(images(&run, "copied"), 151, "{kind}: {run:#}");
        let shifted = Wire::new(&plain.url()).resolve("corp/web", "v100").await;
        assert_eq!(shifted, fake.resolve("corp/web", "v100"));
        fake.finish();
    }
}

#[tokio::test]
async fn alibaba_enterprise_without_the_right_to_list_says_which_and_goes_on() {
    let (fake, cloud) = alibaba::enterprise().await;
    cloud.repository("corp/web");
    fake.seed("corp/web", "v1", &image(1, "amd64", &[100]));
    lock(&cloud.forbidden).insert("GetRepository".to_owned());
    let plain = DockerRegistry::plain().await;
    let rule = format!("{TO_PLAIN}    repositories: [corp/web]\n");
    let home = home(&fake, ENTERPRISE, "", &plain, &rule);
    let (run, output) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    assert_eq!(output.stderr.matches("cr:ListRepoTag").count(), 1, "{}", output.stderr);
    assert!(output.stderr.contains("cr:GetRepository"), "{}", output.stderr);
    fake.finish();
}

#[tokio::test]
async fn alibaba_logins_that_end_are_renewed_and_wrong_keys_are_told() {
    let (fake, cloud) = alibaba::enterprise().await;
    let plain = DockerRegistry::plain().await;
    let wire = Wire::new(&plain.url());
    wire.push("corp/web", "v1", &image(1, "amd64", &[300_000, 200_000]))
        .await;
    let rule = format!("{FROM_PLAIN}    repositories: [corp/web]\n");
    let home = home(&fake, ENTERPRISE, "", &plain, &rule);
    fake.end_logins_before(http::Method::PUT, "/blobs/uploads/", 1);
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    assert!(fake.logins_ended());

    cloud.signatures.remove(KEY);
    let (_, output) = sync(&home, 1).await;
    assert!(
        output.stdout.contains("InvalidAccessKeyId.NotFound"),
        "{}",
        output.stdout
    );
    assert!(output.stdout.contains("check the access key"), "{}", output.stdout);
    fake.finish();
}

#[tokio::test]
async fn alibaba_roles_by_sts_and_by_an_oidc_token() {
    for oidc in [false, true] {
        let (fake, cloud) = alibaba::enterprise().await;
        cloud.repository("corp/web");
        fake.seed("corp/web", "v1", &image(1, "amd64", &[100]));
        // With the rules' own key instead of one of the environment.
        let key = "access_key_id: LTAItest, access_key_secret: \"${ALI_SECRET}\"";
        let cloud_keys = match oidc {
            false => format!(", alibaba: {{ instance_id: cri-test, region: cn-test, role_arn: \"{ROLE}\", {key} }}"),
            true => String::new(),
        };
        let plain = DockerRegistry::plain().await;
        let rule = format!("{TO_PLAIN}    repositories: [corp/web]\n");
        let mut home = home(&fake, ENTERPRISE, &cloud_keys, &plain, &rule);
        home.set_env("ALI_SECRET", SECRET);
        home.set_env("ALIBABA_CLOUD_ACCESS_KEY_ID", "");
        if oidc {
            let file = home.home().join("oidc-token");
            std::fs::write(&file, format!("{OIDC_TOKEN}\n")).expect("a file");
            home.set_env("ALIBABA_CLOUD_ROLE_ARN", ROLE);
            home.set_env("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "acs:ram::1234:oidc-provider/cluster");
            home.set_env("ALIBABA_CLOUD_OIDC_TOKEN_FILE", &file.display().to_string());
        }
        let (run, _) = sync(&home, 0).await;
        assert_eq!(images(&run, "copied"), 1, "{run:#}");
        assert_eq!(fake.count("POST", "/sts/"), 1, "{:#?}", fake.exchanges());
        fake.finish();
    }
}

#[tokio::test]
async fn alibaba_personal_lists_makes_and_logs_in_by_its_own_api() {
    let (fake, cloud) = alibaba::personal().await;
    let plain = DockerRegistry::plain().await;
    let wire = Wire::new(&plain.url());
    wire.push("corp/web", "v1", &image(1, "amd64", &[300])).await;
    let rule = format!("{FROM_PLAIN}    repositories: [corp/web]\n");
    let to_ali = home(
        &fake,
        PERSONAL,
        ", create_repositories: { public: true }",
        &plain,
        &rule,
    );
    let (run, _) = sync(&to_ali, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    assert_eq!(
        lock(&cloud.repositories).get("corp/web"),
        Some(&json!({ "type": "PUBLIC" }))
    );
    assert_eq!(fake.count("GET", "/tokens"), 1);

    for number in 0..120 {
        fake.seed("corp/web", &format!("n{number}"), &image(number % 3, "amd64", &[10]));
    }
    let rule = format!("{TO_PLAIN}    repositories: [\"corp/*\"]\n");
    let from_ali = home(&fake, PERSONAL, "", &plain, &rule);
    fake.forget();
    let (run, _) = sync(&from_ali, 0).await;
    assert_eq!(images(&run, "copied") + images(&run, "in_step"), 121, "{run:#}");
    assert_eq!(fake.count("GET", "/repos/corp/web/tags?"), 2, "pages of 100");
    assert!(
        fake.count("GET", "/tags/list") > 0,
        "and the names, for what the pages may miss"
    );
    fake.finish();
}

#[tokio::test]
async fn alibaba_refuses_attestations_in_words_that_name_the_way_out() {
    let (fake, cloud) = alibaba::personal().await;
    cloud.namespace("corp", true);
    cloud.images_only.store(true, Ordering::Relaxed);
    let plain = DockerRegistry::plain().await;
    let child = image(1, "amd64", &[200]);
    let attestation = samples::referrer(&child, BUILDKIT_ATTESTATION, 9);
    let mut index = samples::index(vec![child, attestation], &["linux/amd64", "unknown/unknown"]);
    let mut document: Value = serde_json::from_slice(&index.manifest).expect("an index");
    document["manifests"][1]["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": index.children[0].digest(),
    });
    index.manifest = document.to_string().into();
    Wire::new(&plain.url()).push("corp/web", "v1", &index).await;

    let rule = format!("{FROM_PLAIN}    repositories: [corp/web]\n");
    let as_it_is = home(&fake, PERSONAL, "", &plain, &rule);
    let (run, _) = sync(&as_it_is, 1).await;
    let message = run["failures"][0]["message"].as_str().expect("a message");
    assert!(
        message.contains("unknown manifest class") && message.contains("`attestations: strip`"),
        "{message}"
    );
    let stripped = home(&fake, PERSONAL, "", &plain, &format!("{rule}    attestations: strip\n"));
    let (run, _) = sync(&stripped, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    let (run, _) = sync(&stripped, 0).await;
    assert_eq!(images(&run, "in_step"), 1, "{run:#}");
    fake.finish();
}
