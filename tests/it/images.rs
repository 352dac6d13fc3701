//! Every kind of image that registries hold arrives byte for byte, through real registries, read back by others.

mod attestations;
mod layouts;
mod many;
mod platforms;

use std::process::Stdio;

use serde_json::json;
use transship::oci::Digest;

use crate::support::command::Transship;
use crate::support::compare::{Reader, Side, assert_same_images};
use crate::support::docker_registry::{DockerConfig, DockerRegistry};
use crate::support::ends::{Ends, images, sync};
use crate::support::images::{self as samples, SampleImage, image};
use crate::support::proxy::Proxy;
use crate::support::wire::Wire;

/// One of each kind, with the tag to push it under.
fn kinds() -> Vec<(&'static str, SampleImage)> {
    vec![
        ("oci", image(1, "amd64", &[4000, 10])),
        ("docker", samples::docker_image(2, &[3000, 100])),
        ("index", samples::two_platforms(3, &[500])),
        ("docker-list", samples::docker_list(4)),
        ("nested", samples::nested_index(5)),
        ("attested", samples::attested_index(6)),
        ("helm", samples::helm_chart(7)),
        ("oras", samples::oras_artifact(8)),
        ("model", samples::model_artifact(9, 50_000)),
        ("twice", samples::duplicate_layer(10)),
        ("tiny", samples::tiny_layers(11)),
    ]
}

#[tokio::test]
async fn every_kind_of_image_arrives_byte_for_byte() {
    const REPOSITORY: &str = "team/area/group/app";
    let ends = Ends::plain().await;
    let kinds = kinds();
    for (tag, sample) in &kinds {
        ends.src_wire().push(REPOSITORY, tag, sample).await;
    }
    let home = ends.home("    repositories: [\"team/**\"]\n");
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), kinds.len() as u64, "{run:#}");
    assert_eq!(run["source"]["tags_listed"], json!(kinds.len()));
    assert_eq!(run["outcome"], "ok");

    let (src, dst) = (ends.src_side(REPOSITORY), ends.dst_side(REPOSITORY));
    let tags: Vec<&str> = kinds.iter().map(|(tag, _)| *tag).collect();
    assert_same_images(&src, &dst, &tags, Reader::OciClient).await;
    assert_same_images(&src, &dst, &tags, Reader::Skopeo).await;
    // skopeo 1.9 does not copy an index within an index.
    for tag in tags.iter().filter(|tag| **tag != "nested") {
        skopeo_copies(&dst, tag, &home).await;
    }

    ends.forget().await;
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "in_step"), kinds.len() as u64, "{run:#}");
    ends.assert_nothing_moved();
}

/// `skopeo copy` out of a registry into a directory, every platform, with digests kept.
async fn skopeo_copies(side: &Side, tag: &str, home: &Transship) {
    let output = tokio::process::Command::new("skopeo")
        .args(["copy", "--all", "--preserve-digests", "--src-tls-verify=false"])
        .args(["--insecure-policy", "--src-no-creds"])
        .arg(format!("docker://{}/{}:{tag}", side.host, side.repository))
        .arg(format!("dir:{}", home.home().join(format!("skopeo-{tag}")).display()))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("skopeo is installed");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skopeo copy of {tag}: {stderr}");
}

#[tokio::test]
async fn blobs_of_no_bytes_and_layers_that_come_twice_are_sent_once() {
    let ends = Ends::plain().await;
    let (twice, tiny) = (samples::duplicate_layer(1), samples::tiny_layers(2));
    ends.src_wire().push("a", "twice", &twice).await;
    ends.src_wire().push("a", "tiny", &tiny).await;
    let home = ends.home("    repositories: [a]\n");
    sync(&home, 0).await;
    let all = ends.dst_proxy.exchanges();
    for blob in twice.blobs.iter().chain(&tiny.blobs) {
        let digest = Digest::of(blob);
        let closing = all.iter().filter(|one| {
            let query = one.query.as_deref().unwrap_or_default();
            one.method == "PUT" && query.replace("%3A", ":").contains(&digest.to_string())
        });
        assert_eq!(closing.count(), 1, "{digest} of {} bytes: {all:#?}", blob.len());
        let path = format!("/v2/a/blobs/{digest}");
        let held = ends.dst_wire().get(&path, &[]).await.expect(200);
        assert_eq!(held.body, *blob);
    }
}

#[tokio::test]
async fn foreign_layers_stay_where_they_are() {
    const ADDRESS: &str = "https://layers.example.com/base.tar.gz";
    let allowing = DockerConfig {
        foreign_urls: vec!["^https://layers.example.com/".to_owned()],
        ..DockerConfig::default()
    };
    let ends = Ends::start(allowing.clone(), allowing).await;
    let refusing = DockerRegistry::plain().await;
    let foreign = samples::foreign_layer(1, ADDRESS);
    let plain = image(2, "amd64", &[700]);
    ends.src_wire().push("a", "windows", &foreign).await;
    ends.src_wire().push("a", "plain", &plain).await;
    let home = Transship::new(&format!(
        "version: 1\nregistries:\n  src: {{ url: \"{}\" }}\n  allows: {{ url: \"{}\" }}\n  refuses: {{ url: \"{}\" }}\n\
         rules:\n  - name: r\n    source: src\n    destinations: [allows, refuses]\n    repositories: [a]\n    \
         retry: {{ attempts: 2, max_delay: 1s }}\n",
        ends.src_proxy.url(),
        ends.dst_proxy.url(),
        refusing.url(),
    ));
    let (run, output) = sync(&home, 1).await;
    assert_eq!(run["outcome"], "partial", "{run:#}");
    let at = |registry: &str| {
        let all = run["destinations"].as_array().expect("a list");
        let found = all.iter().find(|one| one["registry"] == registry);
        found.expect("a destination")["images"].clone()
    };
    assert_eq!(
        (&at("allows")["copied"], &at("allows")["failed"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(
        (&at("refuses")["copied"], &at("refuses")["failed"]),
        (&json!(1), &json!(1))
    );

    let failures = run["failures"].as_array().expect("a list");
    assert_eq!(failures.len(), 1, "{run:#}");
    assert_eq!(failures[0]["destination"], "refuses/a:windows");
    let message = failures[0]["message"].as_str().expect("a message");
    assert!(
        message.contains("foreign") && message.contains("refuses/a"),
        "{message}\n{}",
        output.stderr
    );
    assert_eq!(failures[0]["kind"], "unsupported", "{message}");
    assert_eq!(failures[0]["attempts"], 1, "asking again changes nothing");

    let src = ends.src_side("a");
    assert_same_images(&src, &ends.dst_side("a"), &["windows", "plain"], Reader::OciClient).await;
    assert_same_images(&src, &Side::new(refusing.host(), "a"), &["plain"], Reader::Skopeo).await;
    assert_eq!(Wire::new(&refusing.url()).resolve("a", "windows").await, None);
    let elsewhere = Digest::of(&samples::noise(78, 64));
    let asked = |proxy: &Proxy| proxy.count("*", elsewhere.hex());
    assert_eq!((asked(&ends.src_proxy), asked(&ends.dst_proxy)), (0, 0));
}
