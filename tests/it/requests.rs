//! What each situation costs: every request at either side is named and counted.

use serde_json::json;

use crate::support::command::Transship;
use crate::support::images::{image, rebuilt};
use crate::support::pair::{Fleet, Pair};
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
        json!({ "copied": 22, "mounted": 2, "present": 12 })
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
async fn a_moved_tag_costs_its_manifest_and_its_new_blobs() {
    let (pair, home) = synced().await;
    pair.at_source().push("fleet/app-01", "v1", &rebuilt(1, 300)).await;
    let run = sync(&home, &pair).await;
    let expected = json!({
        // As for nothing to do, and the manifest by digest, its config and its layer, and the referrers API.
        "src": { "GET": 3 + 1 + 2 + 1, "HEAD": 6 },
        // As for nothing to do; each of the two blobs is looked for, begun and sent; the tag is put.
        "dst": { "GET": 3, "HEAD": 6 + 2, "POST": 2, "PUT": 2 + 1 },
    });
    assert_eq!(run["requests"], expected);
    assert_eq!(run["destinations"][0]["images"]["copied"], 1);
    pair.assert_same("fleet/app-01", "fleet/app-01", &["v0", "v1"]).await;
}

#[tokio::test]
async fn a_new_tag_of_a_known_repository_costs_a_look_for_each_of_its_blobs() {
    let (pair, home) = synced().await;
    let new = &Fleet::new(1, 3, 400).repositories[0].1[2].1;
    pair.at_source().push("fleet/app-00", "v2", new).await;
    let run = sync(&home, &pair).await;
    let expected = json!({
        // The new tag's manifest is read at once, so it needs no HEAD; its config and its own layer are read; the
        // referrers API is asked for.
        "src": { "GET": 3 + 1 + 2 + 1, "HEAD": 6 },
        // The destination lists no v2, so it is not asked about. All six blobs are looked for, as registries collect
        // garbage between runs; four are there, two are sent.
        "dst": { "GET": 3, "HEAD": 6 + 6, "POST": 2, "PUT": 2 + 1 },
    });
    assert_eq!(run["requests"], expected);
    assert_eq!(
        run["destinations"][0]["blobs"],
        json!({ "copied": 2, "mounted": 0, "present": 4 })
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
        // 4 listings, the new manifest, its 5 blobs that no repository of the destination has, and the referrers API;
        // 6 tags that are in step, and before the mount whether the source has the blob.
        "src": { "GET": 4 + 1 + 5 + 1, "HEAD": 6 + 1 },
        // 4 listings of which one is 404; 5 uploads and 1 mount of the layer that all share, from what the state remembers.
        "dst": { "GET": 4, "HEAD": 6, "POST": 5 + 1, "PUT": 5 + 1 },
    });
    assert_eq!(run["requests"], expected);
    assert_eq!(
        run["destinations"][0]["blobs"],
        json!({ "copied": 5, "mounted": 1, "present": 0 })
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
