//! Images of every kind that registries hold, the same bytes at every run.

use bytes::Bytes;
use serde_json::{Value, json};
pub use transship::demo::images::{SampleImage, artifact, cosign_signature, docker_image, image, noise, two_platforms};
use transship::oci::{Digest, media_type};

/// An index over the given manifests. `platforms` are `os/architecture`, or empty for an entry without.
pub fn index(children: Vec<SampleImage>, platforms: &[&str]) -> SampleImage {
    let entries: Vec<Value> = children
        .iter()
        .zip(platforms)
        .map(|(child, platform)| {
            let mut entry = describe(child);
            if let Some((os, architecture)) = platform.split_once('/') {
                entry["platform"] = json!({ "os": os, "architecture": architecture });
            }
            entry
        })
        .collect();
    assert_eq!(entries.len(), children.len(), "a platform for each");
    index_of(entries, children)
}

/// An index that lists an index and an image.
pub fn nested_index(seed: u64) -> SampleImage {
    let inner = two_platforms(seed, &[300]);
    index(
        vec![inner, image(seed + 5000, "riscv64", &[200])],
        &["", "linux/riscv64"],
    )
}

/// What BuildKit makes: two platforms, each with an attestation entry (`unknown/unknown`).
pub fn attested_index(seed: u64) -> SampleImage {
    let mut entries = Vec::new();
    let mut children = Vec::new();
    for (offset, architecture) in ["amd64", "arm64"].into_iter().enumerate() {
        let child = image(seed + offset as u64, architecture, &[400]);
        let statement = json!({ "_type": "https://in-toto.io/Statement/v0.1", "subject": [child.digest()] });
        let attestation = manifest(
            &json!({ "mediaType": media_type::OCI_CONFIG }),
            &Bytes::from_static(b"{\"architecture\":\"unknown\",\"os\":\"unknown\"}"),
            &[("application/vnd.in-toto+json", Bytes::from(statement.to_string()))],
            json!({}),
        );
        let mut entry = describe(&child);
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        entries.push(entry);
        let mut entry = describe(&attestation);
        entry["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
        entry["annotations"] = json!({
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": child.digest(),
        });
        entries.push(entry);
        children.extend([child, attestation]);
    }
    index_of(entries, children)
}

/// A Docker manifest list of two Docker images.
pub fn docker_list(seed: u64) -> SampleImage {
    let children = vec![docker_image(seed, &[300]), docker_image(seed + 1, &[300])];
    let entries: Vec<Value> = children
        .iter()
        .zip(["amd64", "arm64"])
        .map(|(child, architecture)| {
            let mut entry = describe(child);
            entry["platform"] = json!({ "os": "linux", "architecture": architecture });
            entry
        })
        .collect();
    let list = json!({ "schemaVersion": 2, "mediaType": media_type::DOCKER_LIST, "manifests": entries });
    SampleImage {
        manifest: Bytes::from(list.to_string()),
        media_type: media_type::DOCKER_LIST,
        blobs: Vec::new(),
        children,
    }
}

/// A Helm chart.
pub fn helm_chart(seed: u64) -> SampleImage {
    manifest(
        &json!({ "mediaType": "application/vnd.cncf.helm.config.v1+json" }),
        &Bytes::from(json!({ "name": "web", "version": "1.4.0", "apiVersion": "v2" }).to_string()),
        &[("application/vnd.cncf.helm.chart.content.v1.tar+gzip", noise(seed, 900))],
        json!({ "annotations": { "org.opencontainers.image.title": "web" } }),
    )
}

/// What `oras push` makes: empty config, an artifact type, titles.
pub fn oras_artifact(seed: u64) -> SampleImage {
    artifact("application/vnd.example.report.v1", &noise(seed, 700))
}

/// A model with large-file media types of its own (CNCF ModelPack).
pub fn model_artifact(seed: u64, weights: usize) -> SampleImage {
    manifest(
        &json!({ "mediaType": "application/vnd.cncf.model.config.v1+json" }),
        &Bytes::from_static(b"{\"descriptor\":{\"name\":\"tiny\"}}"),
        &[("application/vnd.cncf.model.weight.v1.raw", noise(seed, weights))],
        json!({ "artifactType": "application/vnd.cncf.model.manifest.v1+json" }),
    )
}

/// An image with the same layer twice.
pub fn duplicate_layer(seed: u64) -> SampleImage {
    let layer = noise(seed, 800);
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let layers = [(kind, layer.clone()), (kind, noise(seed + 1, 10)), (kind, layer)];
    let config = Bytes::from(json!({ "architecture": "amd64", "os": "linux", "seed": seed }).to_string());
    manifest(
        &json!({ "mediaType": media_type::OCI_CONFIG }),
        &config,
        &layers,
        json!({}),
    )
}

/// An image with a layer of no bytes and one of a single byte.
pub fn tiny_layers(seed: u64) -> SampleImage {
    image(seed, "amd64", &[0, 1])
}

/// A Docker image whose first layer is foreign: it has `url` and is in no registry.
pub fn foreign_layer(seed: u64, url: &str) -> SampleImage {
    let mut image = docker_image(seed, &[100]);
    let mut document: Value = serde_json::from_slice(&image.manifest).expect("a manifest");
    let foreign = noise(seed + 77, 64);
    let entry = json!({
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": Digest::of(&foreign), "size": foreign.len(), "urls": [url],
    });
    document["layers"].as_array_mut().expect("layers").insert(0, entry);
    image.manifest = Bytes::from(document.to_string());
    image
}

/// An artifact that refers to `subject`.
pub fn referrer(subject: &SampleImage, artifact_type: &str, seed: u64) -> SampleImage {
    let mut referrer = artifact(artifact_type, &noise(seed, 120));
    let mut document: Value = serde_json::from_slice(&referrer.manifest).expect("a manifest");
    document["subject"] = describe(subject);
    referrer.manifest = Bytes::from(document.to_string());
    referrer
}

/// The referrers fallback index, to be pushed under `subject.digest().fallback_tag()`.
pub fn fallback_index(referrers: Vec<SampleImage>) -> SampleImage {
    let entries = referrers
        .iter()
        .map(|referrer| {
            let document: Value = serde_json::from_slice(&referrer.manifest).expect("a manifest");
            let mut entry = describe(referrer);
            entry["artifactType"] = document["artifactType"].clone();
            entry
        })
        .collect();
    index_of(entries, referrers)
}

/// The image with another of its layers' bytes: the same size, the same names, another digest.
pub fn rebuilt(seed: u64, size: usize) -> SampleImage {
    image(seed.wrapping_add(1_000_003), "amd64", &[size])
}

fn describe(image: &SampleImage) -> Value {
    json!({ "mediaType": image.media_type, "digest": image.digest(), "size": image.manifest.len() })
}

fn index_of(entries: Vec<Value>, children: Vec<SampleImage>) -> SampleImage {
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries });
    SampleImage {
        manifest: Bytes::from(index.to_string()),
        media_type: media_type::OCI_INDEX,
        blobs: Vec::new(),
        children,
    }
}

/// An OCI manifest from parts; `more` adds top-level fields.
pub fn manifest(config_fields: &Value, config: &Bytes, layers: &[(&str, Bytes)], more: Value) -> SampleImage {
    let mut described = config_fields.clone();
    described["digest"] = json!(Digest::of(config));
    described["size"] = json!(config.len());
    let entries: Vec<Value> = layers
        .iter()
        .map(|(kind, bytes)| json!({ "mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len() }))
        .collect();
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": described,
        "layers": entries,
    });
    if let (Some(document), Value::Object(more)) = (document.as_object_mut(), more) {
        document.extend(more);
    }
    let blobs = std::iter::once(config.clone()).chain(layers.iter().map(|(_, bytes)| bytes.clone()));
    SampleImage {
        manifest: Bytes::from(document.to_string()),
        media_type: media_type::OCI_MANIFEST,
        blobs: blobs.collect(),
        children: Vec::new(),
    }
}
