//! Memory, as the kernel counts it.

use bytes::Bytes;
use futures_util::stream;
use http::Method;
use serde_json::json;
use transship::demo::registry::{Options, Registry};
use transship::oci::{Algorithm, Digest, Hasher};

use crate::support::command::Transship;
use crate::support::compare::{Reader, Side, assert_same_images};
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::{image, noise};
use crate::support::link::{MIB, REPOSITORY, only_run, rules};
use crate::support::proxy::{Act, Exchange, Fault, Gate, Proxy};
use crate::support::wire::{Wire, with_digest};

/// The most that a process had resident so far, in bytes.
fn peak(pid: u32) -> u64 {
    peak_so_far(pid).expect("a running process")
}

/// The same; `None` once it has ended.
fn peak_so_far(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes = line.trim().strip_suffix(" kB")?;
    Some(kibibytes.trim().parse::<u64>().ok()? * 1024)
}

/// Runs `sync` and reads its peak as the `last` manifest is about to arrive, when every blob has passed.
async fn peak_of_sync(home: &Transship, dst: &Proxy, last: usize) -> u64 {
    let gate = Gate::new();
    dst.add(Fault::nth(
        last,
        "PUT",
        "/manifests/",
        Act::HoldRequest(0, gate.clone()),
    ));
    let process = home.spawn(&["sync", "--format", "json"]);
    let held = |all: &[Exchange]| all.iter().any(|exchange| exchange.held);
    dst.wait_for("the last manifest", held).await;
    let peak = peak(process.id());
    gate.open();
    let output = process.finish().await.expect(0);
    assert_eq!(only_run(&output)["destinations"][0]["images"]["copied"], last);
    peak
}

/// Pushes an image of one layer of so many bytes that are nowhere as a whole.
async fn push_large(wire: &Wire, tag: &str, mebibytes: u64) {
    let block = noise(mebibytes, MIB as usize);
    let blocks = move || {
        let block = block.clone();
        (0..mebibytes).map(move |number| {
            let mut bytes = block.to_vec();
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            Bytes::from(bytes)
        })
    };
    let mut hasher = Hasher::new(Algorithm::Sha256);
    blocks().for_each(|block| hasher.update(&block));
    let layer: Digest = hasher.finish();
    let uploads = format!("/v2/{REPOSITORY}/blobs/uploads/");
    let opened = wire.send(Method::POST, &uploads, &[], "").await.expect(202);
    let location = with_digest(opened.header("location").expect("a location"), &layer);
    let length = (mebibytes * MIB).to_string();
    let headers = [
        ("content-type", "application/octet-stream"),
        ("content-length", length.as_str()),
    ];
    let body = reqwest::Body::wrap_stream(stream::iter(blocks().map(Ok::<_, std::io::Error>)));
    wire.send(Method::PUT, &location, &headers, body).await.expect(201);

    let small = image(mebibytes, "amd64", &[0]);
    let mut document: serde_json::Value = serde_json::from_slice(&small.manifest).expect("a manifest");
    document["layers"][0]["digest"] = json!(layer);
    document["layers"][0]["size"] = json!(mebibytes * MIB);
    wire.push_blob(REPOSITORY, &small.blobs[0]).await;
    let bytes = Bytes::from(document.to_string());
    let put = wire.put_manifest(REPOSITORY, tag, small.media_type, &bytes);
    put.await.expect(201);
}

#[tokio::test]
async fn heavy_a_gibibyte_takes_no_more_memory_than_its_sixteenth() {
    let mut peaks = Vec::new();
    for mebibytes in [64, 1024] {
        let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
        push_large(&Wire::new(&source.url()), "v1", mebibytes).await;
        let dst = Proxy::start(&destination.url()).await;
        let home = Transship::new(&rules(&source.url(), &dst.url()));
        peaks.push(peak_of_sync(&home, &dst, 1).await);
        assert_eq!(dst.count("PUT", "/manifests/"), 1);
        let resolved = Wire::new(&destination.url()).resolve(REPOSITORY, "v1").await;
        assert_eq!(resolved, Wire::new(&source.url()).resolve(REPOSITORY, "v1").await);
        assert!(dst.request_bytes("*", "/blobs/uploads/") > mebibytes * MIB);
    }
    eprintln!("measured: VmHWM {} at 64 MiB, {} at 1 GiB", peaks[0], peaks[1]);
    // Each of two or three threads keeps up to 3 MiB of freed memory (main.rs), which a short copy may not come to.
    assert!(peaks[1] <= peaks[0] + 8 * MIB, "{peaks:?}");
}

#[tokio::test]
async fn heavy_two_hundred_images_fit_in_80_mebibytes() {
    let source = Registry::start(Options::default()).await.expect("a registry");
    let repository = REPOSITORY.parse().expect("a name");
    let tags: Vec<String> = (0..200).map(|number| format!("v{number}")).collect();
    for (number, tag) in (0..).zip(&tags) {
        // Neighbours share their layers; the size makes each config another.
        let image = image(
            number / 4,
            "amd64",
            &[200_000, 1000 + usize::try_from(number % 4).expect("small")],
        );
        source.seed(&repository, &tag.parse().expect("a tag"), &image);
    }
    let destination = DockerRegistry::plain().await;
    let dst = Proxy::start(&destination.url()).await;
    let home = Transship::new(&rules(&source.url(), &dst.url()));
    let peak = peak_of_sync(&home, &dst, 200).await;
    eprintln!("measured: VmHWM {peak} at 200 images");
    assert!(peak <= 80 * MIB, "{peak}");
    let sides = [source.addr().to_string(), destination.host().to_owned()];
    let [src, dst] = sides.map(|host| Side::new(&host, REPOSITORY));
    let sample: Vec<&str> = tags.iter().step_by(20).map(String::as_str).collect();
    assert_same_images(&src, &dst, &sample, Reader::OciClient).await;
    assert_eq!(Wire::new(&destination.url()).tags(REPOSITORY).await.len(), 200);
}

#[tokio::test]
async fn heavy_memory_does_not_grow_with_the_tags_of_a_repository() {
    let mut peaks = Vec::new();
    for count in [2_500_u32, 6_000] {
        let (source, destination) = (start().await, start().await);
        let one = image(1, "amd64", &[100]);
        let repository = REPOSITORY.parse().expect("a name");
        for number in 0..count {
            let tag = format!("v{number}").parse().expect("a tag");
            source.seed(&repository, &tag, &one);
            destination.seed(&repository, &tag, &one);
        }
        let url = |registry: &transship::demo::registry::Running| format!("http://{}", registry.addr());
        let all = rules(&url(&source), &url(&destination));
        let home = Transship::new(&format!("{all}    tags: {{ include: [v0] }}\n"));
        // One image under all tags: with one of them its attachments are compared for the day.
        home.run(&["sync"]).await.expect(0);
        home.set_rules(&all);
        let process = home.spawn(&["sync", "--format", "json"]);
        let mut most = 0;
        // The kernel keeps the peak, and forgets it when the process ends.
        while let Some(peak) = peak_so_far(process.id()) {
            most = most.max(peak);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        peaks.push(most);
        let output = process.finish().await.expect(0);
        assert_eq!(only_run(&output)["destinations"][0]["images"]["in_step"], count);
    }
    eprintln!("measured: VmHWM {} at 2,500 tags, {} at 6,000", peaks[0], peaks[1]);
    assert!(peaks[1] <= peaks[0] + 6 * MIB, "{peaks:?}");
}

async fn start() -> transship::demo::registry::Running {
    Registry::start(Options::default()).await.expect("a registry")
}
