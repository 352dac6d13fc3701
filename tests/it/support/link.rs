//! Two registries with a proxy before each, and the program that copies from one to the other.

use std::time::Duration;

use serde_json::Value;
use transship::demo::images::SampleImage;
use transship::store::{Store, StoredUpload};

use super::command::{Output, Process, Transship};
use super::compare::{Reader, Side, assert_same_images};
use super::images::image;
use super::proxy::{Exchange, Proxy};
use super::wire::Wire;
use super::within;

pub const MIB: u64 = 1024 * 1024;

/// The repository, at both sides.
pub const REPOSITORY: &str = "team/app";

/// A source with one image of one layer under `v1`, an empty destination, and rules that copy all of it.
pub struct Link {
    pub src: Proxy,
    pub dst: Proxy,
    pub home: Transship,
    pub image: SampleImage,
    source: String,
    destination: String,
}

impl Link {
    /// `source` and `destination` are URLs; the layer has `size` bytes.
    pub async fn new(source: &str, destination: &str, size: u64) -> Self {
        let layer = usize::try_from(size).expect("a length");
        let image = image(1, "amd64", &[layer]);
        Wire::new(source).push(REPOSITORY, "v1", &image).await;
        let (src, dst) = (Proxy::start(source).await, Proxy::start(destination).await);
        let home = Transship::new(&rules(&src.url(), &dst.url()));
        Self {
            src,
            dst,
            home,
            image,
            source: source.to_owned(),
            destination: destination.to_owned(),
        }
    }

    /// Starts `sync`, the report as JSON.
    pub fn start(&self) -> Process {
        self.home.spawn(&["sync", "--format", "json"])
    }

    /// Runs `sync` to its end.
    pub async fn sync(&self) -> Output {
        self.start().finish().await
    }

    /// What identifies the layer in a blob's path.
    pub fn layer(&self) -> String {
        transship::oci::Digest::of(&self.image.blobs[1]).hex().to_owned()
    }

    pub fn layer_size(&self) -> u64 {
        self.image.blobs[1].len() as u64
    }

    /// Bytes of blobs that passed to the destination beyond the image's own, over all runs.
    pub fn sent_twice(&self) -> u64 {
        let own: u64 = self.image.blobs.iter().map(|blob| blob.len() as u64).sum();
        let sent = self.dst.request_bytes("*", "/blobs/uploads/");
        sent.checked_sub(own).expect("all of the image was sent")
    }

    /// Bytes of the layer that the source gave beyond its length, over all runs.
    pub fn read_twice(&self) -> u64 {
        let read = self.src.response_bytes("GET", &self.layer());
        read.checked_sub(self.layer_size()).expect("all of the layer was read")
    }

    /// What the program has written down of the layer's upload.
    pub async fn upload(&self) -> Option<StoredUpload> {
        let store = Store::open_read_only(&self.home.state()).await.expect("a state")?;
        let uploads = store.uploads().await.expect("uploads");
        store.close().await;
        let layer = self.layer();
        uploads.into_iter().find(|upload| upload.key.digest.hex() == layer)
    }

    /// Waits until the program has written down that the destination holds so many bytes of the layer.
    pub async fn recorded(&self, offset: u64) {
        let asking = async {
            while self.upload().await.is_none_or(|upload| upload.offset != offset) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within(&format!("a record of {offset} bytes"), asking).await;
    }

    /// Waits until the program has written down the hash state at an offset of the layer.
    pub async fn hashed(&self, offset: u64) {
        let asking = async {
            let there = |upload: StoredUpload| upload.checkpoints.iter().any(|state| state.offset == offset);
            while !self.upload().await.is_some_and(there) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within(&format!("a hash state at {offset} bytes"), asking).await;
    }

    /// The image is at the destination, read by others, and every tag of the source with it.
    pub async fn assert_copied(&self, tags: &[&str]) {
        let (src, dst) = (self.source_side(), self.destination_side());
        assert_same_images(&src, &dst, tags, Reader::OciClient).await;
        assert_same_images(&src, &dst, &tags[..1], Reader::Skopeo).await;
    }

    pub fn source_wire(&self) -> Wire {
        Wire::new(&self.source)
    }

    pub fn destination_wire(&self) -> Wire {
        Wire::new(&self.destination)
    }

    fn source_side(&self) -> Side {
        Side::new(host(&self.source), REPOSITORY)
    }

    fn destination_side(&self) -> Side {
        Side::new(host(&self.destination), REPOSITORY)
    }
}

fn host(url: &str) -> &str {
    url.strip_prefix("http://").expect("plain HTTP")
}

/// Rules that copy [`REPOSITORY`] from `source` to `destination` (URLs).
pub fn rules(source: &str, destination: &str) -> String {
    format!(
        "version: 1\n\
         registries:\n  source: {{ url: \"{source}\" }}\n  destination: {{ url: \"{destination}\" }}\n\
         rules:\n  - name: app\n    source: source\n    destinations: [destination]\n    \
         repositories: [{REPOSITORY}]\n"
    )
}

/// The only run of a report.
#[track_caller]
pub fn only_run(output: &Output) -> Value {
    let report = output.json();
    let runs = report["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 1, "{report}");
    runs[0].clone()
}

/// Bytes that were not sent again as an upload went on.
pub fn resumed(run: &Value) -> u64 {
    run["destinations"][0]["bytes"]["resumed"].as_u64().expect("a number")
}

/// Uploads' bodies that the destination has acknowledged.
pub fn acknowledged(all: &[Exchange], method: &str) -> usize {
    let meant = all.iter().filter(|exchange| {
        exchange.is(method, "/blobs/uploads/") && exchange.status.is_some_and(|status| status.is_success())
    });
    meant.count()
}
