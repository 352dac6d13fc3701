//! OCI image layouts between two registries.

use std::path::Path;
use std::process::Stdio;

use serde_json::json;

use crate::support::command::Transship;
use crate::support::compare::{Reader, assert_same_images};
use crate::support::ends::{Ends, images};
use crate::support::images::{self as samples, SampleImage};
use crate::support::wire::Wire;

async fn pushed(wire: &Wire, repository: &str) -> Vec<(&'static str, SampleImage)> {
    let all = vec![
        ("image", samples::image(1, "amd64", &[900, 0, 1])),
        ("docker", samples::docker_image(2, &[300])),
        ("nested", samples::nested_index(3)),
        ("attested", samples::attested_index(4)),
        ("chart", samples::helm_chart(5)),
        ("artifact", samples::oras_artifact(6)),
    ];
    for (tag, sample) in &all {
        wire.push(repository, tag, sample).await;
    }
    all
}

/// The raw top manifest of a layout's image, as skopeo reads it.
async fn skopeo_reads(layout: &Path, name: &str) -> Vec<u8> {
    let output = tokio::process::Command::new("skopeo")
        .args(["inspect", "--raw"])
        .arg(format!("oci:{}:{name}", layout.display()))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("skopeo is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test]
async fn copies_through_a_layout_keep_every_digest() {
    let ends = Ends::plain().await;
    let all = pushed(&ends.src_wire(), "a/b").await;
    let home = Transship::new("version: 1\n");
    let layout = home.home().join("bundle");
    for (tag, sample) in &all {
        let from = format!("{}/a/b:{tag}", ends.src.url());
        let over = format!("oci:{}:{tag}", layout.display());
        let to = format!("{}/c/d:{tag}", ends.dst.url());
        home.run(&["copy", &from, &over]).await.expect(0);
        // Docker's media types are not read by skopeo 1.9 in a layout.
        if *tag != "docker" {
            assert_eq!(skopeo_reads(&layout, tag).await, sample.manifest, "{tag}");
        }
        home.run(&["copy", &over, &to]).await.expect(0);
        assert_eq!(
            ends.dst_wire().resolve("c/d", tag).await,
            Some(sample.digest()),
            "{tag}"
        );
    }
    let tags: Vec<&str> = all.iter().map(|(tag, _)| *tag).collect();
    let (src, dst) = (ends.src_side("a/b"), ends.dst_side("c/d"));
    assert_same_images(&src, &dst, &tags, Reader::OciClient).await;

    // skopeo hashes every blob on its way out of the layout.
    let output = tokio::process::Command::new("skopeo")
        .args(["copy", "--all", "--preserve-digests", "--insecure-policy"])
        .arg(format!("oci:{}:attested", layout.display()))
        .arg(format!("dir:{}", home.home().join("out").display()))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("skopeo is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn rules_go_into_a_layout_and_out_of_it() {
    let ends = Ends::plain().await;
    let all = pushed(&ends.src_wire(), "team/deep/app").await;
    pushed(&ends.src_wire(), "team/web").await;
    let subject = &all[0].1;
    let (signature, image) = samples::cosign_signature("team/web", &subject.digest());
    ends.src_wire().push("team/web", signature.as_str(), &image).await;
    let home = Transship::new(&format!(
        "version: 1\nregistries:\n  src: {{ url: \"{}\" }}\n  usb: {{ layout: bundle }}\n  dst: {{ url: \"{}\" }}\n\
         rules:\n  - {{ name: in, source: src, destinations: [usb], repositories: [\"team/**\"] }}\n  \
         - {{ name: out, source: usb, destinations: [dst], repositories: [\"team/**\"] }}\n",
        ends.src_proxy.url(),
        ends.dst_proxy.url(),
    ));
    let count = 2 * all.len() as u64;
    for rule in ["in", "out"] {
        let report = home.run(&["sync", rule, "--format", "json"]).await.expect(0).json();
        let run = &report["runs"][0];
        assert_eq!(images(run, "copied"), count, "{run:#}");
        assert_eq!(run["source"]["tags_listed"], json!(count), "{run:#}");
    }
    assert_eq!(
        skopeo_reads(&home.home().join("bundle"), "team/deep/app:nested").await,
        all[2].1.manifest
    );
    let tags: Vec<&str> = all.iter().map(|(tag, _)| *tag).collect();
    for repository in ["team/deep/app", "team/web"] {
        let (src, dst) = (ends.src_side(repository), ends.dst_side(repository));
        assert_same_images(&src, &dst, &tags, Reader::OciClient).await;
    }
    let (src, dst) = (ends.src_side("team/web"), ends.dst_side("team/web"));
    assert_same_images(&src, &dst, &[signature.as_str()], Reader::OciClient).await;

    ends.forget().await;
    let output = home.run(&["sync", "--format", "json"]).await.expect(0).json();
    for run in output["runs"].as_array().expect("a list") {
        assert_eq!(images(run, "in_step"), count, "{run:#}");
    }
    ends.assert_nothing_moved();
}
