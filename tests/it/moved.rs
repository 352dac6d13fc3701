//! A registry's name that comes to lead to another registry: nothing that is remembered of the one is believed of the other.

use transship::demo::images::SampleImage;
use transship::oci::Digest;

use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::engine::{Workshop, by_hand};
use crate::support::fake::Fake;
use crate::support::fake::artifactory::Artifactory;
use crate::support::fake::harbor::Harbor;
use crate::support::images::image;

use crate::support::pair::Pair;
use crate::support::proxy::{Act, Fault, Gate, Proxy};
use crate::support::wire::Wire;
use crate::sync::only_run;

const RULE: &str = "rules:\n  - name: r\n    source: src\n    destinations: [dst]\n    repositories: [app]\n    trust_destination: 6h\n";

/// The pair's rules with `dst` at another address.
fn moved(pair: &Pair, other: &Proxy, rules: &str) -> String {
    pair.rules(rules).replace(&pair.dst.url(), &other.url())
}

fn blobs(image: &SampleImage) -> Vec<Digest> {
    image.blobs.iter().map(|blob| Digest::of(blob)).collect()
}

#[tokio::test]
async fn a_destination_that_another_registry_takes_the_name_of_is_looked_at_anew() {
    let (pair, registry) = tokio::join!(Pair::start(), DockerRegistry::plain());
    let other = Proxy::start(&registry.url()).await;
    let there = Wire::new(&registry.url());
    for (seed, tag) in [(1, "v1"), (2, "v2")] {
        pair.at_source().push("app", tag, &image(seed, "amd64", &[300])).await;
    }
    // It lists one of the tags, of somebody else's image.
    there.push("app", "v1", &image(9, "amd64", &[300])).await;
    let home = Transship::new(&pair.rules(RULE));
    home.run(&["sync"]).await.expect(0);
    let report = home.run(&["sync", "--format", "json"]).await.expect(0).json();
    assert_eq!(only_run(&report)["destinations"][0]["trusted"], 2);

    home.set_rules(&moved(&pair, &other, RULE));
    let plan = home.run(&["plan", "--format", "json"]).await.expect(0).stdout;
    assert!(!plan.contains("\"trusted\":true"), "{plan}");
    let output = home.run(&["sync", "-v", "--format", "json"]).await.expect(0);
    let report = output.json();
    let destination = &only_run(&report)["destinations"][0];
    assert_eq!(
        (&destination["images"]["copied"], &destination["trusted"]),
        (&2.into(), &0.into())
    );
    for (seed, tag) in [(1, "v1"), (2, "v2")] {
        let expected = image(seed, "amd64", &[300]).digest();
        assert_eq!(there.resolve("app", tag).await, Some(expected), "{tag}");
    }
    assert_eq!(
        other.count("PUT", "/manifests/"),
        2,
        "none was refused for a blob that was believed to be there"
    );
    let log = &output.stderr;
    assert!(
        log.contains(&format!("dst is at {} now and was at {}", other.url(), pair.dst.url())),
        "{log}"
    );

    // What it knows now is of the new one, and said once.
    let output = home.run(&["sync", "-v", "--format", "json"]).await.expect(0);
    assert!(!output.stderr.contains("was at"), "{}", output.stderr);
    assert_eq!(only_run(&output.json())["destinations"][0]["trusted"], 2);
}

#[tokio::test]
async fn a_process_that_reads_such_rules_again_sends_every_blob() {
    let (pair, registry) = tokio::join!(Pair::start(), DockerRegistry::plain());
    let other = Proxy::start(&registry.url()).await;
    let there = Wire::new(&registry.url());
    let sample = image(1, "amd64", &[300, 20]);
    pair.at_source().push("app", "v1", &sample).await;
    there.push("app", "old", &image(9, "amd64", &[300])).await;
    let mut workshop = Workshop::new(&pair.rules(RULE));
    let engine = workshop.engine().await;
    by_hand(&engine, "r").await;
    workshop.set_rules(&moved(&pair, &other, RULE));
    let engine = engine.with_config(workshop.config()).expect("an engine");
    let report = by_hand(&engine, "r").await;
    assert_eq!(report.failures, [], "{report:?}");
    assert_eq!(there.resolve("app", "v1").await, Some(sample.digest()));
    assert_eq!(
        other.count("PUT", "/manifests/"),
        1,
        "it was refused for a blob that was believed to be there"
    );
}

#[tokio::test]
async fn what_a_run_with_the_rules_of_before_remembers_ends_with_it() {
    let (pair, registry) = tokio::join!(Pair::start(), DockerRegistry::plain());
    let other = Proxy::start(&registry.url()).await;
    let (web, api) = (image(1, "amd64", &[300]), image(2, "amd64", &[300]));
    pair.at_source().push("web", "v1", &web).await;
    pair.at_source().push("api", "v1", &api).await;
    let rules = "rules:\n  - { name: web, source: src, destinations: [dst], repositories: [web] }\n  \
                 - { name: api, source: src, destinations: [dst], repositories: [api] }\n";
    let mut workshop = Workshop::new(&pair.rules(rules));
    let before = workshop.engine().await;
    workshop.set_rules(&moved(&pair, &other, rules));
    let after = before.with_config(workshop.config()).expect("an engine");
    let known = async |image: &SampleImage| {
        let known = after.store().known_blobs("dst", &blobs(image)).await;
        known.expect("a state").len()
    };
    let gate = Gate::new();
    pair.dst.add(Fault::every(
        "POST",
        "/web/blobs/uploads/",
        Act::HoldBefore(gate.clone()),
    ));
    let meanwhile = async {
        let waiting = "the blobs of a run with the rules of before";
        pair.dst.wait_for(waiting, |all| all.iter().any(|one| one.held)).await;
        let report = by_hand(&after, "api").await;
        assert_eq!(report.failures, []);
        assert_eq!(known(&api).await, 2);
        gate.open();
    };
    let (report, ()) = tokio::join!(by_hand(&before, "web"), meanwhile);
    assert_eq!(report.failures, []);
    assert_eq!(pair.at_destination().resolve("web", "v1").await, Some(web.digest()));
    assert_eq!(known(&web).await, 0, "they are at the registry of before");
    let report = by_hand(&after, "web").await;
    assert_eq!(report.failures, []);
    assert_eq!(known(&web).await, 2);
    assert_eq!(
        Wire::new(&registry.url()).resolve("web", "v1").await,
        Some(web.digest())
    );
}

/// What the API of one refused, and how its uploads go on, says nothing of the other; and what is found out of that does not touch
/// what is remembered of the first, which a daemon may be at work with.
#[tokio::test]
async fn commands_that_write_nothing_do_not_believe_of_one_registry_what_was_seen_of_another() {
    let (src, harbor) = Harbor::start(&["team"]).await;
    let (other, _) = Harbor::start(&["team"]).await;
    let (dst, _) = Harbor::start(&["team"]).await;
    harbor.change(|state| state.denies_listing = true);
    for fake in [&src, &other] {
        fake.seed("team/app", "v1", &image(1, "amd64", &[20]));
    }
    let rules = |at: &Fake| {
        format!(
            "version: 1\nregistries:\n{}{}rules:\n  - {{ name: r, source: src, destinations: [dst], repositories: [team/app] }}\n",
            at.rules("src", &Harbor::keys()),
            dst.rules("dst", &Harbor::keys())
        )
    };
    let home = Transship::new(&rules(&src));
    home.run(&["sync"]).await.expect(0);
    let known = async |home: &Transship| {
        let document = home.run(&["ping", "src", "-o", "json"]).await.expect(0).json();
        document["registries"][0]["capabilities"]
            .as_array()
            .expect("a list")
            .len()
    };
    let before = known(&home).await;
    assert!(before > 0);
    home.set_rules(&rules(&other));
    for command in ["plan", "verify"] {
        other.forget();
        home.run(&[command]).await.expect(0);
        assert_eq!(
            other.count("GET", "/artifacts"),
            1,
            "{command}: {:?}",
            other.exchanges()
        );
    }
    assert_eq!(known(&home).await, 0);
    home.set_rules(&rules(&src));
    assert_eq!(known(&home).await, before);
}

/// A list whose digests agreed with looks at tags is believed at the registry whose list it is.
#[tokio::test]
async fn a_list_that_was_found_right_is_compared_anew_where_it_is_another_registrys() {
    let (src, other, dst) = (
        Artifactory::start().await,
        Artifactory::start().await,
        Artifactory::start().await,
    );
    for fake in [&src, &other] {
        fake.seed("team/app", "v1", &image(1, "amd64", &[20]));
    }
    let rules = |at: &Fake| {
        format!(
            "version: 1\nregistries:\n{}{}rules:\n  - {{ name: r, source: src, destinations: [dst], repositories: [team/app] }}\n",
            at.rules("src", &Artifactory::keys()),
            dst.rules("dst", &Artifactory::keys())
        )
    };
    let home = Transship::new(&rules(&src));
    home.run(&["sync"]).await.expect(0);
    home.run(&["sync"]).await.expect(0);
    src.forget();
    home.run(&["plan"]).await.expect(0);
    assert_eq!(
        src.count("HEAD", "/manifests/"),
        0,
        "it was believed: {:?}",
        src.exchanges()
    );
    home.set_rules(&rules(&other));
    for command in ["plan", "verify"] {
        other.forget();
        home.run(&[command]).await.expect(0);
        assert!(
            other.count("HEAD", "/manifests/") > 0,
            "{command}: {:?}",
            other.exchanges()
        );
    }
}
