//! Many tags, many repositories.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::StatusCode;
use serde_json::json;
use transship::oci::Digest;

use crate::support::command::Transship;
use crate::support::compare::{Reader, assert_same_images};
use crate::support::docker_registry::DockerConfig;
use crate::support::ends::{Ends, images, rules, sync};
use crate::support::images::{SampleImage, image, manifest, noise};

#[tokio::test]
async fn heavy_a_repository_with_three_thousand_tags() {
    const TAGS: u64 = 3000;
    // In memory where there is such a place: tens of thousands of small files and commits cost a busy disk minutes.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    let (src, dst) = [(); 2]
        .map(|()| tempfile::TempDir::new_in(&place).expect("a temporary directory"))
        .into();
    let storage = |place: &tempfile::TempDir| DockerConfig {
        storage: Some(place.path().to_owned()),
        ..DockerConfig::default()
    };
    let ends = Ends::start(storage(&src), storage(&dst)).await;
    let sample = image(1, "amd64", &[100]);
    ends.src_wire().push("many", "t0", &sample).await;
    // As a push of the same manifest under each tag leaves it, without three thousand pushes.
    let tags = ends
        .src
        .storage()
        .join("docker/registry/v2/repositories/many/_manifests/tags");
    let link = format!("index/sha256/{}", sample.digest().hex());
    for number in 1..TAGS {
        let tag = tags.join(format!("t{number}"));
        for place in ["current", &link] {
            std::fs::create_dir_all(tag.join(place)).expect("a folder");
            std::fs::write(tag.join(place).join("link"), sample.digest().to_string()).expect("a file");
        }
    }
    let rules = rules(
        &ends.src_proxy.url(),
        &ends.dst_proxy.url(),
        "    repositories: [many]\n",
    );
    let home = Transship::new_in(&place, &rules);
    let (run, _) = sync(&home, 0).await;
    assert_eq!(run["source"]["tags_listed"], TAGS, "{}", run["failures"]);
    assert_eq!(images(&run, "copied"), TAGS);
    assert_eq!(ends.dst_wire().tags("many").await.len() as u64, TAGS);
    let (src, dst) = (ends.src_side("many"), ends.dst_side("many"));
    assert_same_images(&src, &dst, &["t0", "t1500", "t2999"], Reader::OciClient).await;
    // Config and layer, each once, however many images want them at the same time.
    assert_eq!(ends.dst_proxy.count("POST", "/blobs/uploads/"), 2);
    assert_eq!(ends.src_proxy.count("GET", "/blobs/"), 2);

    ends.forget().await;
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "in_step"), TAGS);
    ends.assert_nothing_moved();
}

/// An image of three shared layers, one of its repository and one of its own.
fn layered(repository: u64, tag: u64) -> SampleImage {
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let mut layers: Vec<(&str, Bytes)> = (0..3).map(|layer| (kind, noise(layer, 20_000))).collect();
    layers.push((kind, noise(100 + repository, 5000)));
    layers.push((kind, noise(1000 + repository * 100 + tag, 500)));
    let config = json!({ "architecture": "amd64", "os": "linux", "repository": repository, "tag": tag });
    let media_type = json!({ "mediaType": transship::oci::media_type::OCI_CONFIG });
    manifest(&media_type, &Bytes::from(config.to_string()), &layers, json!({}))
}

#[tokio::test]
async fn twenty_repositories_with_shared_layers_send_no_blob_twice() {
    const REPOSITORIES: u64 = 20;
    const TAGS: u64 = 10;
    let ends = Ends::plain().await;
    let wire = ends.src_wire();
    let pushes = (0..REPOSITORIES).map(|repository| {
        let wire = &wire;
        async move {
            for tag in 0..TAGS {
                let name = format!("line/r{repository}");
                wire.push(&name, &format!("v{tag}"), &layered(repository, tag)).await;
            }
        }
    });
    futures_util::stream::iter(pushes)
        .for_each_concurrent(8, |push| push)
        .await;
    let home = ends.home("    repositories: [\"line/*\"]\n");
    let (run, _) = sync(&home, 0).await;
    assert_eq!(run["source"]["repositories"], REPOSITORIES);
    assert_eq!(images(&run, "copied"), REPOSITORIES * TAGS, "{}", run["failures"]);

    // What the proxy saw arrive: uploads by repository and digest, and mounts.
    let mut arrivals: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut mounted = 0;
    for one in ends.dst_proxy.exchanges() {
        if one.status != Some(StatusCode::CREATED) || !one.path.contains("/blobs/uploads/") {
            continue;
        }
        let (repository, _) = one.path.split_once("/blobs/").expect("a blob's path");
        let query = one.query.clone().unwrap_or_default();
        let query: BTreeMap<String, String> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let mount = query.get("mount");
        mounted += usize::from(mount.is_some());
        let digest = mount.or(query.get("digest")).expect("which blob").clone();
        *arrivals.entry((repository.to_owned(), digest)).or_default() += 1;
    }
    let twice: Vec<_> = arrivals.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    // Three shared, one of the repository, two of each tag.
    let blobs = REPOSITORIES * (3 + 1 + 2 * TAGS);
    assert_eq!(arrivals.len() as u64, blobs);
    let counted = &run["destinations"][0]["blobs"];
    assert_eq!(counted["mounted"], mounted);
    assert_eq!(counted["copied"], blobs - mounted as u64);
    // Each shared layer is read and sent once; every other repository has it mounted.
    assert_eq!(mounted as u64, 3 * (REPOSITORIES - 1));
    for layer in 0..3 {
        let digest = Digest::of(&noise(layer, 20_000));
        assert_eq!(ends.src_proxy.count("GET", digest.hex()), 1);
    }

    for repository in 0..REPOSITORIES {
        let name = format!("line/r{repository}");
        let (src, dst) = (ends.src_side(&name), ends.dst_side(&name));
        assert_same_images(&src, &dst, &["v0", "v4", "v9"], Reader::OciClient).await;
    }
    ends.forget().await;
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "in_step"), REPOSITORIES * TAGS);
    ends.assert_nothing_moved();
}
