//! What each situation costs: every request at either side is named and counted.

use serde_json::json;
use transship::oci::Digest;

use crate::support::command::Transship;
use crate::support::compare::{Reader, Side, assert_same_images};
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::{image, rebuilt};
use crate::support::pair::{Fleet, Pair};
use crate::support::proxy::{self, Act, Exchange, Gate, Proxy};
use crate::sync::only_run;

/// Three repositories, named in the rule, so that no catalogue is asked for.
const RULE: &str = "rules:\n  - name: fleet\n    source: src\n    destinations: [dst]\n    \
                    repositories: [fleet/app-00, fleet/app-01, fleet/app-02]\n";

async fn synced() -> (Pair, Transship) {
    let pair = Pair::start().await;
    Fleet::new(3, 2, 400).push(&pair.at_source()).await;
    let home = Transship::new(&pair.rules(RULE));
    home.run(&["sync"]).await.expect(0);
    pair.reset();
    (pair, home)
}

async fn sync(home: &Transship, pair: &Pair) -> serde_json::Value {
    let report = home.run(&["sync", "--format", "json"]).await.expect(0).json();
    let run = only_run(&report).clone();
    assert_eq!(
        run["requests"],
        pair.counted(),
        "the report counts what the proxies saw"
    );
    run
}

#[tokio::test]
async fn a_first_sync_asks_for_nothing_that_it_knows() {
    let pair = Pair::start().await;
    Fleet::new(3, 2, 400).push(&pair.at_source()).await;
    let home = Transship::new(&pair.rules(RULE));
    let run = sync(&home, &pair).await;
    let expected = json!({
        // 3 tag listings; 6 manifests, read at once as the destination lacks them, so no HEAD;
        // 22 blobs: 1 of all, 3 × 3 of a repository, 6 own layers, 6 configs; and once the question whether the source
        // has the referrers API, which it has not.
        // Before each of the 2 mounts, the source is asked whether it has the blob: a manifest may name any digest.
        "src": { "GET": 3 + 6 + 22 + 1, "HEAD": 2 },
        "dst": {
            // 3 tag listings, each 404: the repositories are new, so no blob is looked for.
            "GET": 3,
            // 22 uploads begin, and the shared layer is mounted into 2 more repositories.
            "POST": 22 + 2,
            // 22 uploads end with all their bytes, and 6 manifests are put under their tags.
            "PUT": 22 + 6,
        },
    });
    assert_eq!(run["requests"], expected);
    assert_eq!(
        run["destinations"][0]["blobs"],
        json!({ "copied": 22, "mounted": 2, "present": 12, "imported": 0 })
    );
}

#[tokio::test]
async fn nothing_to_do_costs_a_listing_and_a_head_a_tag() {
    let (pair, home) = synced().await;
    let run = sync(&home, &pair).await;
    // A side: 3 tag listings and a HEAD for each of 6 tags.
    assert_eq!(
        run["requests"],
        json!({ "src": { "GET": 3, "HEAD": 6 }, "dst": { "GET": 3, "HEAD": 6 } })
    );
}

#[tokio::test]
async fn what_a_registry_is_is_asked_once_and_kept_for_later_processes() {
    let pair = Pair::start().await;
    // So many tags that a listing with digests would be worth the questions.
    Fleet::new(1, 20, 400).push(&pair.at_source()).await;
    let home = Transship::new(&pair.rules(&RULE.replace(", fleet/app-01, fleet/app-02", "")));
    let asked = |proxy: &Proxy| ["/api/v2.0/ping", "/ext/discover"].map(|path| proxy.count("GET", path));
    let mut asked_of = Vec::new();
    for _ in 0..3 {
        pair.reset();
        sync(&home, &pair).await;
        asked_of.push([&pair.src, &pair.dst].map(asked));
    }
    let (no, once) = ([0, 0], [1, 1]);
    // At first the destination has no tags at all.
    assert_eq!(asked_of, [[once, no], [no, once], [no, no]]);
    let ping = home.run(&["ping", "--format", "json"]).await.json();
    let known = ping["registries"][0]["capabilities"]
        .as_array()
        .expect("a list")
        .clone();
    let kind = known.iter().find(|known| known["name"] == "kind").expect("it is told");
    assert_eq!(kind["value"], "distribution", "{kind}");

    // Another registry has come by its name.
    let other = Pair::start().await;
    Fleet::new(1, 20, 400).push(&other.at_source()).await;
    home.set_rules(&other.rules(&RULE.replace(", fleet/app-01, fleet/app-02", "")));
    sync(&home, &other).await;
    assert_eq!(asked(&other.src), once);
}

#[tokio::test]
async fn a_moved_tag_costs_its_manifest_and_its_new_blobs() {
    let (pair, home) = synced().await;
    pair.at_source().push("fleet/app-01", "v1", &rebuilt(1, 300)).await;
    let run = sync(&home, &pair).await;
    let expected = json!({
        // As for nothing to do, and the manifest by digest, its config and its layer. That there is no referrers API is known of the
        // first run.
        "src": { "GET": 3 + 1 + 2, "HEAD": 6 },
        // As for nothing to do; each of the two new blobs is looked for, begun and sent; the tag is put.
        "dst": { "GET": 3, "HEAD": 6 + 2, "POST": 2, "PUT": 2 + 1 },
    });
    assert_eq!(run["requests"], expected);
    assert_eq!(run["destinations"][0]["images"]["copied"], 1);
    pair.assert_same("fleet/app-01", "fleet/app-01", &["v0", "v1"]).await;
}

#[tokio::test]
async fn a_new_tag_of_a_known_repository_costs_a_look_for_each_of_its_new_blobs() {
    let (pair, home) = synced().await;
    let new = &Fleet::new(1, 3, 400).repositories[0].1[2].1;
    pair.at_source().push("fleet/app-00", "v2", new).await;
    let run = sync(&home, &pair).await;
    let expected = json!({
        // The new tag's manifest is read at once, so it needs no HEAD; its config and its own layer are read.
        "src": { "GET": 3 + 1 + 2, "HEAD": 6 },
        // The destination lists no v2, so it is not asked about. The four shared blobs were sent within a day, and this
        // registry would refuse a manifest without them, so only the two new ones are looked for; they are sent.
        "dst": { "GET": 3, "HEAD": 6 + 2, "POST": 2, "PUT": 2 + 1 },
    });
    assert_eq!(run["requests"], expected);
    assert_eq!(
        run["destinations"][0]["blobs"],
        json!({ "copied": 2, "mounted": 0, "present": 4, "imported": 0 })
    );
}

#[tokio::test]
async fn a_new_repository_mounts_what_earlier_runs_left_elsewhere() {
    let (pair, home) = synced().await;
    let fleet = Fleet::new(4, 1, 400);
    let (name, tags) = &fleet.repositories[3];
    pair.at_source().push(name, "v0", &tags[0].1).await;
    home.set_rules(&pair.rules(&RULE.replace("fleet/app-02]", "fleet/app-02, fleet/app-03]")));
    let run = sync(&home, &pair).await;
    let expected = json!({
        // 4 listings, the new manifest and its 5 blobs that no repository of the destination has; 6 tags that are in step, and
        // before the mount whether the source has the blob.
        "src": { "GET": 4 + 1 + 5, "HEAD": 6 + 1 },
        // 4 listings of which one is 404; 5 uploads and 1 mount of the layer that all share, from what the state remembers.
        "dst": { "GET": 4, "HEAD": 6, "POST": 5 + 1, "PUT": 5 + 1 },
    });
    assert_eq!(run["requests"], expected);
    assert_eq!(
        run["destinations"][0]["blobs"],
        json!({ "copied": 5, "mounted": 1, "present": 0, "imported": 0 })
    );
}

#[tokio::test]
async fn a_missing_source_repository_costs_one_listing_a_side() {
    let (pair, home) = synced().await;
    home.set_rules(&pair.rules(&RULE.replace("fleet/app-02]", "fleet/app-02, fleet/none]")));
    let report = home.run(&["sync", "--format", "json"]).await.expect(1).json();
    let run = only_run(&report);
    assert_eq!(
        run["requests"],
        json!({ "src": { "GET": 4, "HEAD": 6 }, "dst": { "GET": 4, "HEAD": 6 } })
    );
    assert_eq!(run["requests"], pair.counted());
    let failure = &run["failures"][0];
    assert_eq!(
        (&failure["source"], &failure["kind"]),
        (&json!("src/fleet/none"), &json!("not_found"))
    );
    assert_eq!(
        run["destinations"][0]["images"]["in_step"], 6,
        "the others are none the worse"
    );
}

#[tokio::test]
async fn an_index_costs_a_request_a_manifest() {
    let pair = Pair::start().await;
    let sample = crate::support::images::attested_index(1);
    pair.at_source().push("fleet/app-00", "v1", &sample).await;
    pair.at_source()
        .push("fleet/app-00", "v2", &image(5, "amd64", &[10]))
        .await;
    let home = Transship::new(&pair.rules(&RULE.replace(", fleet/app-01, fleet/app-02", "")));
    let run = sync(&home, &pair).await;
    let expected = json!({
        // The listing; the index, its 4 children and the other image; two configs and layers of the images, the
        // config that both attestations share and their statements, the other image's config and layer; the referrers API.
        "src": { "GET": 1 + 2 + 4 + (4 + 1 + 2 + 2) + 1 },
        // The listing; 9 blobs begun and sent; 4 children by digest and two tags put.
        "dst": { "GET": 1, "POST": 9, "PUT": 9 + 6 },
    });
    assert_eq!(run["requests"], expected);
    pair.assert_same("fleet/app-00", "fleet/app-00", &["v1", "v2"]).await;
}

#[tokio::test]
async fn a_tag_that_moves_to_a_known_image_costs_no_manifest() {
    let (pair, home) = synced().await;
    let older = &Fleet::new(3, 2, 400).repositories[1].1[0].1;
    pair.at_source().push("fleet/app-01", "v1", older).await;
    let run = sync(&home, &pair).await;
    let expected = json!({
        // As for nothing to do: the manifest is that of v0, which the state has kept since the first run. It has no referrers that
        // could be asked for: that the source has no API for them is kept, too.
        "src": { "GET": 3, "HEAD": 6 },
        // Its blobs are all known to be there; the tag is put.
        "dst": { "GET": 3, "HEAD": 6, "PUT": 1 },
    });
    assert_eq!(run["requests"], expected);
    pair.assert_same("fleet/app-01", "fleet/app-01", &["v0", "v1"]).await;
}

#[tokio::test]
async fn a_second_destination_costs_no_manifest_again() {
    let (pair, home) = synced().await;
    let other = DockerRegistry::plain().await;
    let new = Proxy::start(&other.url()).await;
    let rules = RULE.replace("[dst]", "[dst, new]");
    home.set_rules(&pair.rules_with(&[("new", &new.url())], &rules));
    let report = home.run(&["sync", "--format", "json"]).await.expect(0).json();
    let run = only_run(&report);
    let expected = json!({
        // 3 listings and the 22 blobs, but no manifest: what the 6 tags point to is asked for, as the manifests are kept. Before
        // each of the 2 mounts, whether the source has the blob.
        "src": { "GET": 3 + 22, "HEAD": 6 + 2 },
        // Nothing to do there.
        "dst": { "GET": 3, "HEAD": 6 },
        // As for any first copy.
        "new": { "GET": 3, "POST": 22 + 2, "PUT": 22 + 6 },
    });
    assert_eq!(run["requests"], expected);
    let side = |host: &str| Side::new(host, "fleet/app-01");
    let (src, new) = (side(pair.source.host()), side(other.host()));
    assert_same_images(&src, &new, &["v0", "v1"], Reader::OciClient).await;
}

#[tokio::test]
async fn a_damaged_manifest_in_the_state_is_read_again() {
    let (pair, home) = synced().await;
    let state = std::fs::read(home.state()).expect("the state");
    let text = b"application/vnd.oci.image.layer.v1.tar+gzip";
    let mut damaged = state.clone();
    let found = damaged.windows(text.len()).enumerate();
    let places: Vec<usize> = found.filter(|(_, part)| part == text).map(|(at, _)| at).collect();
    assert!(places.len() >= 6 * 5, "the manifests are there: {places:?}");
    places.into_iter().for_each(|at| damaged[at] = b'A');
    std::fs::write(home.state(), damaged).expect("a file");
    let older = &Fleet::new(3, 2, 400).repositories[1].1[0].1;
    pair.at_source().push("fleet/app-01", "v1", older).await;
    let output = home.run(&["sync", "--format", "json"]).await.expect(0);
    assert!(output.stderr.contains("damaged and is read again"), "{}", output.stderr);
    assert_eq!(pair.src.count("GET", "/manifests/"), 1);
    pair.assert_same("fleet/app-01", "fleet/app-01", &["v0", "v1"]).await;
}

#[tokio::test]
async fn a_blob_that_the_destination_lost_is_noticed_and_sent_again() {
    let (mut pair, home) = synced().await;
    let fleet = Fleet::new(1, 3, 400);
    let new = &fleet.repositories[0].1[2].1;
    // One of the layers that all images of the repository share; the registry has never been asked about it since.
    let lost = Digest::of(&new.blobs[2]);
    assert!(fleet.repositories[0].1[0].1.blobs.contains(&new.blobs[2]));
    pair.destination.lose_blob("fleet/app-00", &lost);
    pair.destination.restart().await;
    pair.at_source().push("fleet/app-00", "v2", new).await;
    let run = sync(&home, &pair).await;
    let expected = json!({
        // As for a new tag, and the lost layer.
        "src": { "GET": 3 + 1 + 2 + 1, "HEAD": 6 },
        // As for a new tag; the manifest is refused, so all six blobs are looked for, the lost one is sent, and the
        // manifest is put again.
        "dst": { "GET": 3, "HEAD": 6 + 2 + 6, "POST": 2 + 1, "PUT": 2 + 1 + 1 + 1 },
    });
    assert_eq!(run["requests"], expected);
    assert_eq!(run["outcome"], "ok", "{lost}");
    pair.assert_same("fleet/app-00", "fleet/app-00", &["v0", "v2"]).await;
}

#[tokio::test]
async fn a_run_after_a_kill_reads_no_manifest_again() {
    let pair = Pair::start().await;
    Fleet::new(3, 2, 400).push(&pair.at_source()).await;
    let home = Transship::new(&pair.rules(RULE));
    // Every tag's put stands still, so that all else is done by then.
    pair.dst
        .add(proxy::Fault::every("PUT", "/manifests/", Act::HoldBefore(Gate::new())));
    let mut process = home.spawn(&["sync"]);
    let standing = |all: &[Exchange]| all.iter().filter(|exchange| exchange.held).count() == 6;
    pair.dst.wait_for("all manifests to be held", standing).await;
    process.kill();
    let ended = |all: &[Exchange]| all.iter().all(|exchange| exchange.done || exchange.broken);
    pair.dst.wait_for("the killed process' connections to end", ended).await;
    pair.dst.heal();
    pair.reset();
    let run = sync(&home, &pair).await;
    let expected = json!({
        // 3 listings and the referrers API; 6 tags are asked for, their manifests are kept; no blob is read again.
        "src": { "GET": 3 + 1, "HEAD": 6 },
        // 3 listings, each 404 as no tag was put. What the dead run sent is remembered; the tags are put.
        "dst": { "GET": 3, "PUT": 6 },
    });
    assert_eq!(run["requests"], expected);
    assert_eq!(run["trigger"], "recovery");
    pair.assert_same("fleet/app-02", "fleet/app-02", &["v0", "v1"]).await;
}

#[tokio::test]
async fn a_failed_look_is_reported_with_what_the_registry_answered() {
    let (pair, home) = synced().await;
    let forbidden = Act::Answer(http::StatusCode::FORBIDDEN, None);
    pair.dst
        .add(proxy::Fault::every("HEAD", "/fleet/app-01/manifests/v1", forbidden));
    let report = home.run(&["sync", "--format", "json"]).await.expect(1).json();
    let failure = &only_run(&report)["failures"][0];
    assert_eq!((&failure["kind"], &failure["status"]), (&json!("denied"), &json!(403)));
}

#[tokio::test]
async fn with_trust_nothing_to_do_costs_one_listing_a_repository_at_the_destination() {
    let (pair, home) = synced().await;
    let trusting = pair.rules(&format!("{RULE}    trust_destination: 6h\n"));
    home.set_rules(&trusting);
    let run = sync(&home, &pair).await;
    // 3 listings a side and 6 tags at the source; what the destination's 6 tags point to is what the first run wrote.
    let expected = json!({ "src": { "GET": 3, "HEAD": 6 }, "dst": { "GET": 3 } });
    assert_eq!(run["requests"], expected);
    let destination = &run["destinations"][0];
    assert_eq!(
        (&destination["images"]["in_step"], &destination["trusted"]),
        (&json!(6), &json!(6))
    );
    let plan = home.run(&["plan", "--format", "json"]).await.expect(0).json();
    assert!(plan.to_string().contains("\"trusted\":true"), "{plan}");

    // Another one's tag there: it differs from what is wanted now, so it is looked at before anything is done.
    pair.at_source().push("fleet/app-01", "v1", &rebuilt(1, 300)).await;
    pair.reset();
    let run = sync(&home, &pair).await;
    let expected = json!({
        // As before; the new manifest, config and layer.
        "src": { "GET": 3 + 1 + 2, "HEAD": 6 },
        // The tag that is to move, and its two new blobs.
        "dst": { "GET": 3, "HEAD": 1 + 2, "POST": 2, "PUT": 2 + 1 },
    });
    assert_eq!(run["requests"], expected);
    assert_eq!(run["destinations"][0]["trusted"], 5);

    // Without it everything is looked at, and `verify` never trusts.
    pair.reset();
    home.run(&["verify"]).await.expect(0);
    assert_eq!(pair.dst.count("HEAD", "/manifests/"), 6);
    home.set_rules(&pair.rules(RULE));
    pair.reset();
    let run = sync(&home, &pair).await;
    assert_eq!(
        (&run["requests"]["dst"], &run["destinations"][0]["trusted"]),
        (&json!({ "GET": 3, "HEAD": 6 }), &json!(0))
    );
}

#[tokio::test]
async fn a_trusted_tag_that_the_destination_lists_no_more_is_copied() {
    let (pair, home) = synced().await;
    home.set_rules(&pair.rules(&format!("{RULE}    trust_destination: 6h\n")));
    // What was not written but seen is trusted as well: the first of these runs looks, as its memory is gone.
    let lost = &Fleet::new(3, 2, 400).repositories[2].1[1].1;
    pair.at_destination().delete("fleet/app-02", &lost.digest()).await;
    let run = sync(&home, &pair).await;
    let destination = &run["destinations"][0];
    assert_eq!(
        (&destination["images"]["copied"], &destination["trusted"]),
        (&json!(1), &json!(5))
    );
    assert_eq!(
        run["requests"]["dst"],
        json!({ "GET": 3, "PUT": 1 }),
        "its blobs were sent within a day"
    );
    pair.assert_same("fleet/app-02", "fleet/app-02", &["v0", "v1"]).await;
}

#[tokio::test]
async fn what_was_seen_in_step_is_trusted_in_the_next_run() {
    let pair = Pair::start().await;
    let fleet = Fleet::new(3, 2, 400);
    fleet.push(&pair.at_source()).await;
    fleet.push(&pair.at_destination()).await;
    let home = Transship::new(&pair.rules(&format!("{RULE}    trust_destination: 6h\n")));
    let looked = sync(&home, &pair).await;
    assert_eq!(looked["destinations"][0]["trusted"], 0, "nothing is known of them yet");
    assert_eq!(looked["destinations"][0]["images"]["in_step"], 6);
    pair.reset();
    let trusted = sync(&home, &pair).await;
    assert_eq!(trusted["destinations"][0]["trusted"], 6);
    assert_eq!(pair.dst.count("HEAD", "/manifests/"), 0);
}

#[tokio::test]
async fn blobs_move_while_later_repositories_are_being_listed() {
    let pair = Pair::start().await;
    Fleet::new(3, 2, 400).push(&pair.at_source()).await;
    let home = Transship::new(&pair.rules(RULE));
    let gate = Gate::new();
    let listing = Act::HoldBefore(gate.clone());
    pair.src
        .add(proxy::Fault::every("GET", "/fleet/app-02/tags/list", listing));
    let process = home.spawn(&["sync", "--format", "json"]);
    let tagged = |all: &[Exchange]| {
        let puts = all
            .iter()
            .filter(|exchange| exchange.is("PUT", "/manifests/") && exchange.done);
        puts.count() == 4
    };
    pair.dst.wait_for("the images of the other repositories", tagged).await;
    gate.open();
    process.finish().await.expect(0);
    pair.assert_same("fleet/app-02", "fleet/app-02", &["v0", "v1"]).await;
}

#[tokio::test]
async fn images_are_copied_while_later_tags_of_the_repository_are_looked_at() {
    let pair = Pair::start().await;
    let tags: Vec<String> = (0..120).map(|number| format!("v{number:03}")).collect();
    let one = image(1, "amd64", &[10]);
    for tag in &tags {
        pair.at_source().push("fleet/app-00", tag, &one).await;
    }
    let home = Transship::new(&pair.rules(&RULE.replace(", fleet/app-01, fleet/app-02", "")));
    let gate = Gate::new();
    let last = Act::HoldBefore(gate.clone());
    pair.src.add(proxy::Fault::every("GET", "/manifests/v119", last));
    let process = home.spawn(&["sync", "--format", "json"]);
    let tagged = |all: &[Exchange]| {
        let puts = all
            .iter()
            .filter(|exchange| exchange.is("PUT", "/manifests/") && exchange.done);
        puts.count() == 100
    };
    pair.dst.wait_for("the first part of the images", tagged).await;
    gate.open();
    let output = process.finish().await.expect(0);
    assert_eq!(
        only_run(&output.json())["source"],
        json!({ "repositories": 1, "tags_listed": 120, "tags_selected": 120 })
    );
    assert_eq!(only_run(&output.json())["destinations"][0]["images"]["copied"], 120);
}

#[tokio::test]
async fn images_that_wait_for_a_shared_layer_leave_their_places_to_others() {
    let pair = Pair::start().await;
    let fleet = Fleet::new(1, 40, 400);
    fleet.push(&pair.at_source()).await;
    let home = Transship::new(&pair.rules(&RULE.replace(", fleet/app-01, fleet/app-02", "")));
    // The layer that all images have does not come.
    let shared = Digest::of(&fleet.repositories[0].1[0].1.blobs[1]);
    let gate = Gate::new();
    let layer = format!("/blobs/{shared}");
    pair.src
        .add(proxy::Fault::every("GET", &layer, Act::HoldBefore(gate.clone())));
    let process = home.spawn(&["sync", "--format", "json"]);
    let sent = |all: &[Exchange]| {
        let sent = all
            .iter()
            .filter(|exchange| exchange.is("PUT", "/blobs/uploads/") && exchange.done);
        // The three other layers that all have, and of each image its config and its own layer.
        sent.count() == 3 + 40 * 2
    };
    pair.dst.wait_for("everything else of all images", sent).await;
    assert_eq!(pair.dst.count("PUT", "/manifests/"), 0);
    gate.open();
    let output = process.finish().await.expect(0);
    assert_eq!(only_run(&output.json())["destinations"][0]["images"]["copied"], 40);
    assert_eq!(pair.src.count("GET", &layer), 1);
}
