//! How hard registries are pressed: what they say is heeded, what the rules say is kept.

use std::time::Duration;

use http::StatusCode;

use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::pair::{Fleet, Pair};
use crate::support::proxy::{Act, Exchange, Fault, Gate, Proxy};
use crate::support::wire::Wire;
use crate::sync::only_run;

const RULE: &str = "rules:\n  - name: fleet\n    source: src\n    destinations: [dst]\n    \
                    repositories: [fleet/app-00, fleet/app-01]\n";

const TOO_MANY: StatusCode = StatusCode::TOO_MANY_REQUESTS;

/// All of a fleet of two repositories is at the destination.
async fn assert_all(pair: &Pair, fleet: &Fleet) {
    for (name, tags) in &fleet.repositories {
        let tags: Vec<&str> = tags.iter().map(|(tag, _)| tag.as_str()).collect();
        pair.assert_same(name, name, &tags).await;
    }
}

/// How often a window was halved, by class.
fn halvings(log: &str, class: &str) -> usize {
    let lines = log.lines().filter(|line| line.contains("asking for less at once"));
    lines.filter(|line| line.contains(class)).count()
}

#[tokio::test]
async fn a_storm_of_refusals_at_both_ends_costs_no_image() {
    let pair = Pair::start().await;
    let fleet = Fleet::new(2, 10, 20_000);
    fleet.push(&pair.at_source()).await;
    let storms = [
        (&pair.src, 15, TOO_MANY),
        (&pair.src, 11, StatusCode::SERVICE_UNAVAILABLE),
        (&pair.dst, 15, TOO_MANY),
        (&pair.dst, 13, StatusCode::SERVICE_UNAVAILABLE),
    ];
    for (proxy, step, status) in storms {
        proxy.add(Fault::every_nth(step, "*", "/v2/", Act::Answer(status, None)));
    }
    pair.src
        .add(Fault::every_nth(17, "GET", "/blobs/", Act::CutResponse(9_000)));
    pair.dst
        .add(Fault::every_nth(19, "*", "/blobs/", Act::CutRequest(9_000)));
    let home = Transship::new(&pair.rules(RULE));
    let report = home.run(&["sync", "--format", "json"]).await.expect(0).json();
    let run = only_run(&report);
    assert_eq!(run["destinations"][0]["images"]["copied"], 20, "{run}");
    assert_eq!(run["failures"].as_array().map(Vec::len), Some(0), "{run}");
    let refused = |proxy: &Proxy| proxy.exchanges().iter().filter(|e| e.status == Some(TOO_MANY)).count();
    assert!(refused(&pair.src) >= 3 && refused(&pair.dst) >= 8, "it was a storm");
    assert_all(&pair, &fleet).await;
}

#[tokio::test]
async fn a_registry_that_asks_for_a_pause_gets_it_and_loses_no_image() {
    let pair = Pair::start().await;
    let fleet = Fleet::new(1, 4, 3000);
    fleet.push(&pair.at_source()).await;
    let refusal = Act::Answer(TOO_MANY, Some("1".to_owned()));
    pair.dst.add(Fault::every_nth(15, "*", "/v2/", refusal));
    let home = Transship::new(&pair.rules(RULE).replace(", fleet/app-01", ""));
    let report = home.run(&["sync", "--format", "json"]).await.expect(0).json();
    assert_eq!(only_run(&report)["destinations"][0]["images"]["copied"], 4, "{report}");
    assert_all(&pair, &fleet).await;
}

#[tokio::test]
async fn requests_refused_together_halve_a_window_once() {
    let pair = Pair::start().await;
    let fleet = Fleet::new(2, 10, 3000);
    fleet.push(&pair.at_source()).await;
    // Twelve reads of manifests are under way when the first of them is refused, and so are all.
    let gate = Gate::new();
    pair.src
        .add(Fault::times(12, "GET", "/manifests/", Act::HoldBefore(gate.clone())));
    let refusal = Act::Answer(StatusCode::SERVICE_UNAVAILABLE, None);
    pair.src.add(Fault::times(12, "GET", "/manifests/", refusal));
    let home = Transship::new(&pair.rules(RULE));
    let process = home.spawn(&["-vv", "sync", "--format", "json"]);
    let held = |all: &[Exchange]| all.iter().filter(|exchange| exchange.held).count() == 12;
    pair.src.wait_for("twelve reads at once", held).await;
    gate.open();
    let output = process.finish().await.expect(0);
    assert_eq!(only_run(&output.json())["destinations"][0]["images"]["copied"], 20);
    assert_eq!(halvings(&output.stderr, "Read"), 1, "{}", output.stderr);
    assert_all(&pair, &fleet).await;
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_the_rules_say() {
    let pair = Pair::start().await;
    let fleet = Fleet::new(2, 6, 20_000);
    fleet.push(&pair.at_source()).await;
    for proxy in [&pair.src, &pair.dst] {
        proxy.add(Fault::every("*", "/v2/", Act::Delay(Duration::from_millis(5))));
    }
    let limited = |limits: &str| {
        let mut rules = pair.rules(RULE);
        for proxy in [&pair.src, &pair.dst] {
            let url = format!("url: \"{}\"", proxy.url());
            rules = rules.replace(&url, &format!("{url}, limits: {limits}"));
        }
        rules
    };
    let home = Transship::new(&limited("{ concurrency: 3 }"));
    home.run(&["sync"]).await.expect(0);
    let most = (pair.src.most_at_once(), pair.dst.most_at_once());
    assert!((2..=3).contains(&most.0) && (2..=3).contains(&most.1), "{most:?}");
    assert_all(&pair, &fleet).await;
}

/// Source and destination are one registry under two names, so that one proxy sees all that the process asks.
async fn copy_within_one(limits: &str, faults: Vec<Fault>) -> Proxy {
    let registry = DockerRegistry::plain().await;
    let wire = Wire::new(&registry.url());
    let fleet = Fleet::new(2, 5, 50_000);
    fleet.push(&wire).await;
    let proxy = Proxy::start(&registry.url()).await;
    for fault in faults {
        proxy.add(fault);
    }
    let rules = format!(
        "version: 1\nlimits: {limits}\nregistries:\n  a: {{ url: \"{url}\" }}\n  b: {{ url: \"{url}/\" }}\n\
         rules:\n  - name: within\n    source: a\n    destinations: [{{ registry: b, to: \"copy/{{name}}\" }}]\n    \
         repositories: [fleet/app-00, fleet/app-01]\n",
        url = proxy.url()
    );
    let home = Transship::new(&rules);
    let report = home.run(&["sync", "--format", "json"]).await.expect(0).json();
    assert_eq!(only_run(&report)["destinations"][0]["images"]["copied"], 10, "{report}");
    for (name, tags) in &fleet.repositories {
        let copy = name.replace("fleet/", "copy/");
        for (tag, _) in tags {
            assert_eq!(
                wire.resolve(&copy, tag).await,
                wire.resolve(name, tag).await,
                "{copy}:{tag}"
            );
        }
    }
    proxy
}

#[tokio::test]
async fn a_ceiling_of_the_process_is_kept_over_all_registries() {
    let slow = Fault::every("*", "/v2/", Act::Delay(Duration::from_millis(5)));
    let proxy = copy_within_one("{ concurrency: 4 }", vec![slow]).await;
    let most = proxy.most_at_once();
    assert!((3..=4).contains(&most), "{most}");
}

/// Every place is taken by copies whose reads break off while the windows shrink: each finds its way on.
#[tokio::test]
async fn copies_do_not_wait_for_each_other_while_windows_shrink() {
    let unavailable = Act::Answer(StatusCode::SERVICE_UNAVAILABLE, None);
    let faults = vec![
        Fault::every_nth(5, "GET", "/blobs/sha256", Act::CutResponse(20_000)),
        Fault::every_nth(4, "GET", "/blobs/sha256", unavailable.clone()),
        Fault::every_nth(6, "PUT", "/blobs/uploads/", Act::CutRequest(20_000)),
        Fault::every_nth(7, "*", "/blobs/uploads/", unavailable),
    ];
    let proxy = copy_within_one("{ concurrency: 2 }", faults).await;
    assert!(proxy.most_at_once() <= 2);
}

#[tokio::test]
async fn limits_of_requests_and_bytes_stop_nothing() {
    let pair = Pair::start().await;
    let fleet = Fleet::new(1, 3, 100_000);
    fleet.push(&pair.at_source()).await;
    let limits = "limits: { requests_per_second: 200, bandwidth: 2MiB }\nregistries:";
    let rules = pair
        .rules(RULE)
        .replace(", fleet/app-01", "")
        .replace("registries:", limits);
    let home = Transship::new(&rules);
    home.run(&["sync"]).await.expect(0);
    assert_all(&pair, &fleet).await;
}
