//! A destination that says nothing while there is still something to be planned: the others are planned and copied without it, and it
//! has its own when it answers again.

use http::StatusCode;
use serde_json::json;

use super::destinations::{both, third};
use super::{json_of, outcomes};
use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::{SampleImage, image};
use crate::support::pair::Pair;
use crate::support::proxy::{Act, Exchange, Fault, Gate, Proxy};
use crate::support::wire::Wire;
use crate::sync::only_run;

const REPOSITORIES: u64 = 12;

/// More than are observed at once.
fn samples(seed: u64) -> Vec<(String, SampleImage)> {
    let sample = |number| (format!("team/app{number}"), image(seed + number, "amd64", &[5_000]));
    (0..REPOSITORIES).map(sample).collect()
}

fn rules(pair: &Pair, far: &Proxy) -> String {
    both(pair, far, "").replace("repositories: [app]", "repositories: ['team/*']")
}

async fn push(wire: &Wire, samples: &[(String, SampleImage)]) {
    for (repository, sample) in samples {
        wire.push(repository, "v1", sample).await;
    }
}

async fn assert_holds(registry: &DockerRegistry, samples: &[(String, SampleImage)]) {
    let there = Wire::new(&registry.url());
    for (repository, sample) in samples {
        assert_eq!(
            there.resolve(repository, "v1").await,
            Some(sample.digest()),
            "{repository}"
        );
    }
}

/// Waits until all tags are at the destination.
async fn complete(destination: &Proxy) {
    tagged(destination, "/manifests/v1", REPOSITORIES).await;
}

async fn tagged(destination: &Proxy, path: &str, count: u64) {
    let tagged = |all: &[Exchange]| {
        let tags = all.iter().filter(|exchange| exchange.is("PUT", path) && exchange.done);
        tags.count() as u64 == count
    };
    destination.wait_for("all tags at the one that answers", tagged).await;
}

#[tokio::test]
async fn nobody_waits_for_one_that_lists_nothing() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let samples = samples(1);
    push(&pair.at_source(), &samples).await;
    let gate = Gate::new();
    far.add(Fault::every("GET", "/tags/list", Act::HoldReply(gate.clone())));
    let home = Transship::new(&rules(&pair, &far));
    let process = home.spawn(&["sync", "--format", "json"]);
    complete(&pair.dst).await;
    assert_eq!(far.count("PUT", "/manifests/"), 0);
    gate.open();
    let report = process.finish().await.expect(0).json();
    let run = only_run(&report);
    assert_eq!(
        (outcomes(run, 0), outcomes(run, 1)),
        (vec![("copied", REPOSITORIES)], vec![("copied", REPOSITORIES)])
    );
    // Each counts once, however often it was looked at.
    let counts = ["repositories", "tags_listed", "tags_selected"].map(|key| &run["source"][key]);
    assert_eq!(counts, [&json!(REPOSITORIES); 3]);
    assert_holds(&registry, &samples).await;
    let [listed, read] = ["/tags/list", "/manifests/"].map(|path| pair.src.count("GET", path) as u64);
    assert!(
        listed <= 2 * REPOSITORIES,
        "{listed}: once for each destination at most"
    );
    assert_eq!(read, REPOSITORIES, "manifests are read once");
}

#[tokio::test]
async fn nobody_waits_for_one_that_does_not_say_what_its_tags_are() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    push(&pair.at_source(), &samples(1)).await;
    let home = Transship::new(&rules(&pair, &far));
    json_of(&home, &["sync"], 0).await;
    let moved = samples(100);
    push(&pair.at_source(), &moved).await;
    pair.reset();
    far.reset();
    let gate = Gate::new();
    far.add(Fault::every("HEAD", "/manifests/", Act::HoldReply(gate.clone())));
    let process = home.spawn(&["sync", "--format", "json"]);
    complete(&pair.dst).await;
    assert_eq!(far.count("PUT", "/manifests/"), 0);
    gate.open();
    let report = process.finish().await.expect(0).json();
    let runs = report["runs"].as_array().expect("runs");
    let run = runs.last().expect("a run");
    assert_eq!(
        (outcomes(run, 0), outcomes(run, 1)),
        (vec![("copied", REPOSITORIES)], vec![("copied", REPOSITORIES)])
    );
    assert_holds(&registry, &moved).await;
}

/// Requests that wait behind those that hang are no word of it.
#[tokio::test]
async fn nobody_waits_for_one_whose_places_are_all_taken_by_what_it_does_not_answer() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    // More than a registry is asked at once.
    const MANY: u64 = 80;
    let source = pair.at_source();
    for seed in [1, 2] {
        if seed == 2 {
            let home = Transship::new(&both(&pair, &far, ""));
            json_of(&home, &["sync"], 0).await;
        }
        let sample = image(seed, "amd64", &[5_000]);
        for number in 0..MANY {
            source.push("app", &format!("v1{number}"), &sample).await;
        }
    }
    pair.reset();
    let gate = Gate::new();
    far.add(Fault::every("HEAD", "/manifests/", Act::HoldReply(gate.clone())));
    let home = Transship::new(&both(&pair, &far, "    on_conflict: overwrite\n"));
    let process = home.spawn(&["sync", "--format", "json"]);
    tagged(&pair.dst, "/manifests/v1", MANY).await;
    gate.open();
    let report = process.finish().await.expect(0).json();
    let run = only_run(&report);
    assert_eq!(
        (outcomes(run, 0), outcomes(run, 1)),
        (vec![("copied", MANY)], vec![("copied", MANY)])
    );
    let there = Wire::new(&registry.url()).resolve("app", "v179").await;
    assert_eq!(there, source.resolve("app", "v179").await);
}

#[tokio::test]
async fn what_fails_for_one_that_was_silent_fails_for_it_alone() {
    let pair = Pair::start().await;
    let (_registry, far) = third().await;
    push(&pair.at_source(), &samples(1)[..2]).await;
    let gate = Gate::new();
    far.add(Fault::times(2, "GET", "/tags/list", Act::HoldReply(gate.clone())));
    far.add(Fault::times(2, "GET", "/tags/list", Act::DropReply));
    // Each is asked once more, as with an old login.
    for number in 3..=6 {
        let refusal = Act::Answer(StatusCode::FORBIDDEN, None);
        far.add(Fault::nth(number, "GET", "/tags/list", refusal));
    }
    let home = Transship::new(&rules(&pair, &far));
    let process = home.spawn(&["sync", "--format", "json"]);
    tagged(&pair.dst, "/manifests/v1", 2).await;
    gate.open();
    let report = process.finish().await.expect(1).json();
    let run = only_run(&report);
    assert_eq!(
        (outcomes(run, 0), outcomes(run, 1)),
        (vec![("copied", 2)], vec![("failed", 2)])
    );
    let failures = run["failures"].as_array().expect("failures");
    let mut places: Vec<&str> = failures
        .iter()
        .filter_map(|failure| failure["destination"].as_str())
        .collect();
    places.sort_unstable();
    assert_eq!(places, ["far/team/app0:v1", "far/team/app1:v1"]);
    assert_eq!(far.count("GET", "/tags/list"), 6, "what was asked is not asked anew");
}

/// More than a first part of one repository.
const TAGS: usize = 120;

#[tokio::test]
async fn what_cannot_be_found_out_later_is_a_failure() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let (source, sample) = (pair.at_source(), image(1, "amd64", &[5_000]));
    for number in 0..TAGS {
        source.push("app", &format!("t{number:03}"), &sample).await;
    }
    let home = Transship::new(&both(&pair, &far, ""));
    json_of(&home, &["sync"], 0).await;
    source.push("app", "t120", &sample).await;
    pair.reset();
    // From the second part on.
    let gate = Gate::new();
    far.add(Fault::every("HEAD", "/manifests/t1", Act::HoldReply(gate.clone())));
    for number in 2..=3 {
        let refusal = Act::Answer(StatusCode::FORBIDDEN, None);
        pair.src.add(Fault::nth(number, "GET", "/tags/list", refusal));
    }
    let report = json_of(&home, &["sync"], 1).await;
    gate.open();
    let runs = report["runs"].as_array().expect("runs");
    let run = runs.last().expect("a run");
    assert_eq!(
        (outcomes(run, 0), outcomes(run, 1)),
        (vec![("copied", 1), ("in_step", TAGS as u64)], vec![("in_step", 100)])
    );
    let failure = &run["failures"][0];
    assert_eq!(failure["source"], "src/app");
    let message = failure["message"].as_str().expect("a message");
    assert!(message.contains("(when it was looked at for far alone)"), "{message}");
    assert_eq!(Wire::new(&registry.url()).resolve("app", "t120").await, None);
}

#[tokio::test]
async fn who_answers_again_shares_with_the_others_again() {
    let pair = Pair::start().await;
    let (registry, far) = third().await;
    let samples = samples(1);
    push(&pair.at_source(), &samples).await;
    // The first lists alone: those of the repositories that are looked at first, with what is asked before anybody waits.
    let gate = Gate::new();
    far.add(Fault::once("GET", "/tags/list", Act::HoldReply(gate.clone())));
    let home = Transship::new(&rules(&pair, &far));
    let process = home.spawn(&["sync", "--format", "json"]);
    complete(&pair.dst).await;
    gate.open();
    let report = process.finish().await.expect(0).json();
    let run = only_run(&report);
    assert_eq!(
        (outcomes(run, 0), outcomes(run, 1)),
        (vec![("copied", REPOSITORIES)], vec![("copied", REPOSITORIES)])
    );
    assert_holds(&registry, &samples).await;
    // One list is late, and its repository alone is looked at twice.
    let [listed, read] = ["/tags/list", "/blobs/"].map(|path| pair.src.count("GET", path) as u64);
    assert_eq!(
        (listed, far.count("GET", "/tags/list") as u64),
        (REPOSITORIES + 1, REPOSITORIES)
    );
    assert_eq!(read, 2 * REPOSITORIES + 2, "blobs of the others are read once");
}

#[tokio::test]
async fn one_that_stays_silent_is_not_asked_for_each_repository() {
    let pair = Pair::start().await;
    let (_registry, far) = third().await;
    push(&pair.at_source(), &samples(1)).await;
    let gate = Gate::new();
    far.add(Fault::every("GET", "/tags/list", Act::HoldReply(gate.clone())));
    let written = format!("far: {{ url: \"{}\"", far.url());
    let rules = rules(&pair, &far);
    assert!(rules.contains(&written));
    let home = Transship::new(&rules.replace(&written, &format!("{written}, timeouts: {{ answer: 3s }}")));
    let report = json_of(&home, &["sync"], 1).await;
    gate.open();
    let run = only_run(&report);
    assert_eq!(
        (outcomes(run, 0), outcomes(run, 1)),
        (vec![("copied", REPOSITORIES)], vec![("failed", REPOSITORIES)])
    );
    let failures = run["failures"].as_array().expect("failures");
    let untold = failures.iter().filter(|failure| {
        let message = failure["message"].as_str().expect("a message");
        message.contains("was not asked again in this run")
    });
    // Those that were asked for at once, each with its attempts.
    assert!(untold.count() as u64 >= REPOSITORIES - 8, "{report:#}");
    assert!(
        far.count("GET", "/tags/list") <= 8 * 4,
        "{}",
        far.count("GET", "/tags/list")
    );
}
