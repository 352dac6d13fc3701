//! An API that may not be asked is left alone by later processes, too, until `ping` finds that it may.

use serde_json::Value;

use crate::support::command::Transship;
use crate::support::fake::Fake;
use crate::support::fake::harbor::{Harbor, ROBOT};
use crate::support::images::image;

const WARNING: &str = "listing is faster once this user has";

/// The classes of the refusals that `ping` tells of `src`, with what the API said.
async fn told(home: &Transship) -> Vec<(String, String)> {
    let document = home.run(&["ping", "src", "-o", "json"]).await.expect(0).json();
    let known = document["registries"][0]["capabilities"]
        .as_array()
        .expect("a list")
        .clone();
    let refused = known.into_iter().filter(|known| known["name"] == "bulk_listing");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    refused
        .map(|known| {
            assert_eq!(known["value"], format!("refused to {ROBOT}"));
            (text(&known["class"]), text(&known["evidence"]))
        })
        .collect()
}

#[tokio::test]
async fn a_refused_listing_is_asked_for_by_no_later_process_until_ping_finds_it_granted() {
    let (src, harbor) = Harbor::start(&["team"]).await;
    let (dst, _) = Harbor::start(&["team"]).await;
    harbor.change(|state| state.denies_listing = true);
    for number in 0..3 {
        src.seed("team/app", &format!("v{number}"), &image(number, "amd64", &[20]));
    }
    let rules = |src: &Fake, repositories: &str| {
        format!(
            "version: 1\nregistries:\n{}{}rules:\n  - name: r\n    source: src\n    destinations: [dst]\n    repositories: {repositories}\n",
            src.rules("src", &Harbor::keys()),
            dst.rules("dst", &Harbor::keys())
        )
    };
    let home = Transship::new(&rules(&src, "[team/app]"));
    let sync = async || {
        src.forget();
        let ended = home.run(&["sync"]).await.expect(0);
        (src.count("*", "/api/v2.0/"), ended.stderr.contains(WARNING))
    };
    let (asked, warned) = sync().await;
    assert!(asked > 0 && warned, "{asked}");
    assert_eq!(sync().await, (0, false), "another process neither asks nor warns");
    assert_eq!(src.count("HEAD", "/manifests/"), 3);

    // It is refused still: that is asked, and stays known.
    src.forget();
    let refused = told(&home).await;
    assert!(src.count("GET", "/api/v2.0/projects") > 0);
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].0, "team");
    assert!(refused[0].1.contains("403"), "{refused:?}");
    assert_eq!(sync().await, (0, false));

    harbor.change(|state| state.denies_listing = false);
    assert_eq!(sync().await, (0, false), "nobody has looked");
    assert_eq!(told(&home).await, []);
    sync().await;
    assert_eq!(src.count("GET", "/artifacts"), 1);
    assert_eq!(src.count("HEAD", "/manifests/"), 0);

    // A list of repositories is asked for each time, and the user told of its refusal once.
    harbor.change(|state| state.denies_listing = true);
    home.set_rules(&rules(&src, "[\"team/*\"]"));
    let first = sync().await;
    let second = sync().await;
    assert!(first.0 > second.0 && second.0 > 0, "{first:?} {second:?}");
    assert_eq!((first.1, second.1), (true, false));
    let classes: Vec<String> = told(&home).await.into_iter().map(|(class, _)| class).collect();
    assert_eq!(classes, ["*", "team"]);
}

#[tokio::test]
async fn what_one_account_was_refused_another_is_asked_at_once() {
    let (src, harbor) = Harbor::start(&["team"]).await;
    let (dst, _) = Harbor::start(&["team"]).await;
    harbor.change(|state| state.denies_listing = true);
    src.seed("team/app", "v1", &image(1, "amd64", &[20]));
    let rules = |keys: &str| {
        format!(
            "version: 1\nregistries:\n{}{}rules:\n  - name: r\n    source: src\n    destinations: [dst]\n    repositories: [team/app]\n",
            src.rules("src", keys),
            dst.rules("dst", &Harbor::keys())
        )
    };
    let home = Transship::new(&rules(&Harbor::keys()));
    home.run(&["sync"]).await.expect(0);

    // Who may ask has a name of its own.
    harbor.change(|state| {
        state.denies_listing = false;
        state.robot = Some("bot$allowed".to_owned());
    });
    home.set_rules(&rules(&Harbor::keys().replace(ROBOT, "bot$allowed")));
    src.forget();
    let ended = home.run(&["sync"]).await.expect(0);
    assert_eq!(src.count("GET", "/artifacts"), 1);
    assert!(!ended.stderr.contains(WARNING), "{}", ended.stderr);
}
