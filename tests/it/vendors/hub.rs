//! Docker Hub: its meter, its API and who may see which password.

use std::sync::Arc;

use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::engine::{Workshop, by_hand, scheduled};
use crate::support::fake::hub::{self, Hub};
use crate::support::fake::{Fake, Nobody};
use crate::support::images::{image, two_platforms};
use crate::support::names::Names;
use crate::support::wire::Wire;
use transship::demo::registry::{Options, Registry, Running};
use transship::engine::{Control, RunReport};
use transship::registry::BulkListing;
use transship::rules::RuleName;
use transship::store::{JobOutcome, RunOutcome};

async fn plain() -> Running {
    Registry::start(Options::default()).await.expect("a registry")
}

fn pulling(fake: &Fake, keys: &str, dst: &Running, repositories: &str) -> Workshop {
    let src = fake.rules("src", keys);
    Workshop::new(&format!(
        "version: 1\nregistries:\n{src}  dst: {{ url: \"{}\" }}\nrules:\n  - name: r\n    source: src\n    destinations: [dst]\n    \
         repositories: {repositories}\n",
        dst.url()
    ))
}

fn seed(fake: &Fake) {
    fake.seed("library/alpine", "3", &two_platforms(1, &[20]));
    fake.seed("library/alpine", "3-amd64", &image(7, "amd64", &[20]));
}

#[tokio::test]
async fn docker_hub_tags_cost_no_pull_once_the_listing_has_proved_itself() {
    let (fake, hub): (Fake, Arc<Hub>) = Hub::start().await;
    let dst = plain().await;
    seed(&fake);
    hub.change(|state| {
        state.pulls_left = Some(10);
        state.old.insert("old".to_owned());
    });
    fake.seed("library/alpine", "old", &image(8, "amd64", &[20]));
    let workshop = pulling(&fake, &Hub::keys(&fake), &dst, "[library/alpine]");
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    // The index, its two images, and two images: by GET, which counts.
    assert_eq!(hub.pulled(), 5);
    // The first run compares the listing with looks at the tags, which are free; the others believe it.
    assert_eq!(fake.count("HEAD", "/manifests/"), 3);
    for _ in 0..2 {
        fake.forget();
        let report = scheduled(&engine, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert_eq!(hub.pulled(), 5);
        // The tag without a digest is looked at each time.
        assert_eq!(fake.count("HEAD", "/manifests/"), 1, "{:?}", fake.exchanges());
        assert_eq!(
            fake.count("GET", "/hub/v2/namespaces/library/repositories/alpine/tags?"),
            1
        );
    }
    // The API's token is asked for once.
    assert_eq!(hub.logins(), 1);
}

#[tokio::test]
async fn docker_hub_is_read_by_nobody_and_by_the_old_login() {
    for old_login in [false, true] {
        let (fake, hub) = Hub::start().await;
        let dst = plain().await;
        seed(&fake);
        hub.change(|state| state.old_login = old_login);
        let keys = match old_login {
            false => Hub::anonymous(&fake),
            true => Hub::keys(&fake),
        };
        // The official images are named without `library/` too.
        let workshop = pulling(&fake, &keys, &dst, "[alpine]");
        let engine = workshop.engine().await;
        let report = by_hand(&engine, "r").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert_eq!(hub.logins(), u32::from(old_login));
        let (name, tag) = ("alpine".parse().expect("a name"), "3".parse().expect("a tag"));
        assert_eq!(dst.resolve(&name, &tag), fake.resolve("library/alpine", "3"));
    }
}

#[tokio::test]
async fn docker_hub_repositories_come_from_their_namespace() {
    let (fake, _hub) = Hub::start().await;
    let dst = plain().await;
    seed(&fake);
    fake.seed("library/busybox", "1", &image(3, "amd64", &[20]));
    fake.seed("other/tool", "1", &image(4, "amd64", &[20]));
    let workshop = pulling(&fake, &Hub::keys(&fake), &dst, "[\"library/*\"]");
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(report.source.repositories, 2);
    let workshop = pulling(&fake, &Hub::keys(&fake), &dst, "[\"*/tool\"]");
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "r").await;
    let text = format!("{:?}", report.failures);
    assert!(text.contains("begin the patterns with a namespace"), "{text}");
}

#[tokio::test]
async fn docker_hub_namespace_that_is_missing_or_hidden_takes_nothing_from_the_patterns_of_others() {
    for hidden in [None, Some("corp".to_owned())] {
        let (fake, hub) = Hub::start().await;
        let dst = plain().await;
        seed(&fake);
        // What is not known is a failure of the run.
        let is_hidden = hidden.is_some();
        hub.change(|state| state.hidden = hidden);
        let src = fake.rules("src", &Hub::keys(&fake));
        let home = Transship::new(&format!(
            "version: 1\nregistries:\n{src}  dst: {{ url: \"{}\" }}\nrules:\n  - {{ name: r, source: src, destinations: [dst], \
             repositories: [\"corp/*\", \"library/*\"] }}\n",
            dst.url()
        ));
        let told = home.run(&["sync"]).await.expect(i32::from(is_hidden)).stderr;
        assert_eq!(told.contains("patterns find nothing in corp"), is_hidden, "{told}");
        let (name, tag) = ("library/alpine".parse().expect("a name"), "3".parse().expect("a tag"));
        assert_eq!(dst.resolve(&name, &tag), fake.resolve("library/alpine", "3"));
    }
}

/// A list without them is answered as any other is.
#[tokio::test]
async fn docker_hub_organisations_are_told_which_scope_their_private_repositories_need() {
    const TOLD: &str = "scope-repository-list";
    for (secret, hides, told) in [
        (hub::ORGANISATION_SECRET, true, 1),
        (hub::ORGANISATION_SECRET, false, 0),
        (hub::SECRET, true, 0),
    ] {
        let (fake, hub) = Hub::start().await;
        let dst = plain().await;
        fake.seed("corp/open", "1", &image(3, "amd64", &[20]));
        fake.seed("corp/own", "1", &image(4, "amd64", &[20]));
        hub.change(|state| {
            state.private.insert("corp/own".to_owned());
            state.hides_private = hides;
        });
        let src = fake.rules("src", &Hub::keys(&fake).replace(hub::SECRET, secret));
        let rule = |name: &str, pattern: &str| {
            format!("  - {{ name: {name}, source: src, destinations: [dst], repositories: [\"{pattern}\"] }}\n")
        };
        let home = Transship::new(&format!(
            "version: 1\nregistries:\n{src}  dst: {{ url: \"{}\" }}\nrules:\n{}{}",
            dst.url(),
            rule("all", "corp/*"),
            rule("some", "corp/o*")
        ));
        let ran = home.run(&["sync"]).await.expect(0).stderr;
        assert_eq!(ran.matches(TOLD).count(), told, "{ran}");
        let pinged = home.run(&["ping", "src"]).await.expect(0).stderr;
        assert_eq!(pinged.matches(TOLD).count(), told, "{pinged}");
        let (name, tag) = ("corp/own".parse().expect("a name"), "1".parse().expect("a tag"));
        assert_eq!(dst.resolve(&name, &tag).is_some(), !hides);
    }
}

#[tokio::test]
async fn docker_hub_that_lets_nobody_log_in_is_asked_once_for_all_repositories() {
    let (fake, hub) = Hub::start().await;
    let dst = plain().await;
    hub.change(|state| state.refuses_logins = true);
    let workshop = pulling(&fake, &Hub::keys(&fake), &dst, "[library/alpine]");
    let end = workshop.end("src");
    for number in 0..8 {
        let name = format!("library/a{number}").parse().expect("a name");
        let listed = end.list_digests(&name).await.expect("an answer");
        // So says the registry itself.
        assert_eq!(listed, BulkListing::Absent);
    }
    assert_eq!(fake.count("POST", "/hub/"), 1, "{:?}", fake.exchanges());
}

#[tokio::test]
async fn docker_hub_whose_api_refuses_is_read_tag_by_tag() {
    let (fake, hub) = Hub::start().await;
    let dst = plain().await;
    seed(&fake);
    hub.change(|state| state.denies_listing = true);
    let workshop = pulling(&fake, &Hub::keys(&fake), &dst, "[library/alpine]");
    let engine = workshop.engine().await;
    assert!(by_hand(&engine, "r").await.failures.is_empty());
    fake.forget();
    assert!(scheduled(&engine, "r").await.failures.is_empty());
    assert_eq!((fake.count("*", "/hub/"), fake.count("HEAD", "/manifests/")), (0, 2));
}

/// As a run does, by the namespaces of the rules: there is no list of everything.
#[tokio::test]
async fn ping_lists_docker_hub_below_what_the_rules_begin_with() {
    let (fake, _hub) = Hub::start().await;
    let dst = plain().await;
    seed(&fake);
    let src = fake.rules("src", &Hub::keys(&fake));
    let home = Transship::new(&format!(
        "version: 1\nregistries:\n{src}  dst: {{ url: \"{}\" }}\nrules:\n  - {{ name: r, source: src, destinations: [dst], \
         repositories: [\"library/*\", \"library/a*\"] }}\n",
        dst.url()
    ));
    let told = home.run(&["ping", "src"]).await.expect(0).stdout;
    assert!(told.contains("1 repositories listed"), "{told}");
    assert_eq!(
        fake.count("GET", "/v2/namespaces/library/repositories?"),
        1,
        "{:#?}",
        fake.exchanges()
    );
}

#[tokio::test]
async fn docker_hub_whose_api_takes_no_token_is_logged_in_to_once_more_alone() {
    let (fake, hub) = Hub::start().await;
    let dst = plain().await;
    seed(&fake);
    hub.change(|state| state.refuses_tokens = true);
    let workshop = pulling(&fake, &Hub::keys(&fake), &dst, "[library/alpine]");
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!((hub.logins(), fake.count("HEAD", "/manifests/")), (2, 2));
}

#[tokio::test]
async fn docker_hub_whose_api_is_out_of_reach_is_read_tag_by_tag() {
    let (fake, _hub) = Hub::start().await;
    let dst = plain().await;
    seed(&fake);
    fake.seed("library/busybox", "1", &image(3, "amd64", &[20]));
    // Nobody listens there any more.
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        format!("http://{}", listener.local_addr().expect("an address"))
    };
    let keys = Hub::keys(&fake).replace(&format!("{}/hub", fake.url()), &closed);
    let workshop = pulling(&fake, &keys, &dst, "[library/alpine, library/busybox]");
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let (name, tag) = ("library/alpine".parse().expect("a name"), "3".parse().expect("a tag"));
    assert_eq!(dst.resolve(&name, &tag), fake.resolve("library/alpine", "3"));
    assert_eq!(fake.count("HEAD", "/manifests/"), 3);
}

/// The quota is known from the looks at tags, which are free: no read is refused, by account and by nobody.
#[tokio::test]
async fn docker_hub_images_beyond_the_quota_wait_for_the_next_run() {
    for account in [true, false] {
        let (fake, hub) = Hub::start().await;
        let dst = plain().await;
        // Each an index and its two images: three reads.
        let tags: Vec<String> = (0..4).map(|number| format!("3.{number}")).collect();
        for (seed, tag) in (1..).zip(&tags) {
            fake.seed("library/alpine", tag, &two_platforms(seed * 10, &[20]));
        }
        hub.change(|state| state.pulls_left = Some(7));
        let keys = match account {
            true => Hub::keys(&fake),
            false => Hub::anonymous(&fake),
        };
        let workshop = pulling(&fake, &keys, &dst, "[library/alpine]");
        let counts = |report: &RunReport| {
            let images = report.destinations[0].images;
            (images.copied, images.deferred, images.failed)
        };
        // A plan reads nothing of it, and says that it will not do.
        let engine = workshop.engine().await;
        let plan = engine
            .plan(&RuleName::new("r"), &Control::never(), &mut drop)
            .await
            .expect("a plan");
        let told = plan.warnings.join("; ");
        assert!(
            plan.work && told.contains("lets us read 7 of 100 in 6 h; 4 images"),
            "{told}"
        );
        assert_eq!(hub.pulled(), 0);

        let report = scheduled(&workshop.engine().await, "r").await;
        assert_eq!(counts(&report), (2, 2, 0), "{:?}", report.failures);
        assert_eq!((report.outcome, report.failures.len()), (RunOutcome::Ok, 0));
        let waiting = report
            .changes
            .iter()
            .filter(|change| change.outcome == JobOutcome::Deferred);
        assert_eq!(waiting.count(), 2, "{:?}", report.changes);
        let told = report.warnings.join("; ");
        assert!(
            told.contains("put off: 2 of src") && told.contains("of 100 in 6 h"),
            "{told}"
        );
        assert_eq!((hub.pulled(), hub.refused()), (7, 0), "the quota is not run into");

        // Nothing came back yet: another process asks what is free, and reads nothing.
        let report = scheduled(&workshop.engine().await, "r").await;
        assert_eq!(counts(&report), (0, 2, 0), "{:?}", report.failures);
        assert_eq!(hub.pulled(), 7);

        hub.change(|state| state.pulls_left = Some(100));
        let report = scheduled(&workshop.engine().await, "r").await;
        assert_eq!(counts(&report), (2, 0, 0), "{:?}", report.failures);
        assert_eq!((hub.pulled(), hub.refused()), (12, 0), "nothing is read twice");
        let name = "library/alpine".parse().expect("a name");
        for tag in &tags {
            let tag = tag.parse().expect("a tag");
            assert_eq!(dst.resolve(&name, &tag), fake.resolve("library/alpine", tag.as_str()));
        }
    }
}

/// The rules say no more than whose it is.
#[tokio::test]
async fn docker_hub_is_asked_by_its_own_names() {
    let hosts = ["registry-1.docker.io", "auth.docker.io", "hub.docker.com"];
    for address in ["docker.io", "https://index.docker.io", "https://registry-1.docker.io"] {
        let (fake, _hub) = Hub::start_as_itself().await;
        let plain = DockerRegistry::plain().await;
        let wire = Wire::new(&plain.url());
        let (up, down) = (image(1, "amd64", &[20]), image(2, "amd64", &[20]));
        wire.push("team/app", "v1", &up).await;
        fake.seed("library/alpine", "3", &down);
        let mut names = hosts.map(|name| (name, Some(fake.addr()))).to_vec();
        // Nobody has a registry there.
        names.extend([("docker.io", None), ("index.docker.io", None)]);
        let listening = Names::start(&names).await;
        let all: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        let mut home = Transship::new(&format!(
            "version: 1\nregistries:\n  plain: {{ url: \"{}\" }}\n  hub:\n    url: {address}\n    username: {}\n    password: \
             \"${{SECRET}}\"\n    tls: {{ ca_file: \"{}\" }}\n    resolve:\n{}rules:\n  - {{ name: up, source: plain, destinations: \
             [hub], repositories: [team/app] }}\n  - {{ name: down, source: hub, destinations: [plain], repositories: [alpine] }}\n",
            plain.url(),
            hub::USER,
            listening.authority().ca_file.display(),
            listening.resolve(&all),
        ));
        home.set_env("SECRET", hub::SECRET);
        let output = home.run(&["sync", "-o", "json"]).await.expect(0);
        let runs = output.json();
        assert_eq!(runs["runs"].as_array().map(Vec::len), Some(2), "{runs:#}");
        assert_eq!(fake.resolve("team/app", "v1"), Some(up.digest()));
        assert_eq!(wire.resolve("alpine", "3").await, Some(down.digest()));
        let mut wanted = hosts.map(str::to_owned);
        wanted.sort();
        assert_eq!(listening.called(), wanted, "other hosts were asked");
        fake.finish();
    }
}

/// A plan of images whose platforms are chosen, which else are seen in their manifests.
#[tokio::test]
async fn docker_hub_plans_cost_no_pull() {
    let (fake, hub) = Hub::start().await;
    let dst = plain().await;
    for number in 0..3 {
        fake.seed(
            "library/alpine",
            &format!("3.{number}"),
            &two_platforms(number * 10, &[20]),
        );
    }
    hub.change(|state| state.pulls_left = Some(3));
    let rules = "[library/alpine]\n    platforms: [linux/amd64]";
    let workshop = pulling(&fake, &Hub::keys(&fake), &dst, rules);
    let engine = workshop.engine().await;
    let plan = engine
        .plan(&RuleName::new("r"), &Control::never(), &mut drop)
        .await
        .expect("a plan");
    assert!(plan.work && plan.failures.is_empty(), "{:?}", plan.failures);
    assert_eq!(hub.pulled(), 0);
}

/// What logs in to a mirror of one's own is none of Docker Hub's.
#[tokio::test]
async fn docker_hub_passwords_stay_at_the_registry_where_its_api_is_not_named() {
    let (fake, hub) = Hub::start().await;
    let dst = plain().await;
    seed(&fake);
    let elsewhere = Nobody::listen();
    let at = elsewhere.address();
    let keys = Hub::keys(&fake).replace(
        &format!("endpoint: \"{}/hub\"", fake.url()),
        &format!("resolve: {{ hub.docker.com: \"{at}\" }}"),
    );
    assert!(!keys.contains("endpoint"));
    let workshop = pulling(&fake, &keys, &dst, "[library/alpine]");
    let report = by_hand(&workshop.engine().await, "r").await;
    assert!(report.failures.is_empty(), "{report:?}");
    assert_eq!((hub.logins(), elsewhere.has_callers()), (0, false));
}
