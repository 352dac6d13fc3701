//! Destinations that are full.

use std::path::Path;
use std::process::Command;

use transship::demo::registry::{Options, Registry};

use super::table::{Row, arrived, fails, rules, succeeds};
use crate::support::command::Transship;
use crate::support::docker_registry::{DockerConfig, DockerRegistry};
use crate::support::images::image;
use crate::support::proxy::Proxy;
use crate::support::wire::Wire;

/// A small file system in memory, unmounted on drop.
pub struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// `None`, with the reason printed, where this user may not mount.
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    pub fn mount(options: &str) -> Option<Self> {
        let folder = tempfile::TempDir::new().expect("a temporary directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "transship-test"])
            .arg(folder.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { folder }),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                eprintln!("skipped: a tmpfs cannot be mounted here (this test needs root): {why}");
                None
            }
            Err(error) => {
                eprintln!("skipped: mount cannot be started: {error}");
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount").args(["-o", &options]).arg(self.path()).status();
        assert!(status.expect("mount is installed").success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a registry on it may still be ending.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[tokio::test]
async fn a_destination_whose_disk_fills_up_half_way() {
    let Some(disk) = SmallDisk::mount("size=8m") else {
        return;
    };
    let (source, roomy) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let full = DockerRegistry::start(DockerConfig {
        storage: Some(disk.path().join("registry")),
        ..DockerConfig::default()
    })
    .await;
    let wire = Wire::new(&source.url());
    wire.push("bad", "v1", &image(1, "amd64", &[12 << 20])).await;
    wire.push("good", "v1", &image(2, "amd64", &[3000])).await;
    let home = Transship::new(&rules(
        &[
            &format!("src: {{ url: \"{}\" }}", source.url()),
            &format!("roomy: {{ url: \"{}\" }}", roomy.url()),
            &format!("full: {{ url: \"{}\" }}", full.url()),
        ],
        &[("both", "src", "full, roomy", "bad"), ("other", "src", "roomy", "good")],
    ));
    let row = Row {
        source: "src/bad:v1",
        destination: Some("full/bad:v1"),
        kind: "quota",
        status: Some(500),
        says: &["full/bad", "no space left on device", "free space"],
    };
    fails(&home, row).await;
    // The other destination of the same blob, and the other image, have nothing to do with it.
    arrived(source.host(), roomy.host(), "bad").await;
    arrived(source.host(), roomy.host(), "good").await;
    assert_eq!(Wire::new(&full.url()).resolve("bad", "v1").await, None);

    disk.remount("size=64m");
    succeeds(&home).await;
    arrived(source.host(), full.host(), "bad").await;
}

#[tokio::test]
async fn a_destination_over_its_quota() {
    let source = DockerRegistry::plain().await;
    let wire = Wire::new(&source.url());
    wire.push("bad", "v1", &image(1, "amd64", &[300_000])).await;
    wire.push("good", "v1", &image(2, "amd64", &[3000])).await;
    let options = Options {
        quota: Some(100_000),
        ..Options::default()
    };
    let small = Registry::start(options).await.expect("a registry");
    let large = Registry::start(Options::default()).await.expect("a registry");
    let proxy = Proxy::start(&small.url()).await;
    let home = Transship::new(&rules(
        &[
            &format!("src: {{ url: \"{}\" }}", source.url()),
            &format!("dst: {{ url: \"{}\" }}", proxy.url()),
        ],
        &[("both", "src", "dst", "bad, good")],
    ));
    let row = Row {
        source: "src/bad:v1",
        destination: Some("dst/bad:v1"),
        kind: "quota",
        status: Some(403),
        says: &["dst/bad", "quota", "free space or raise the quota at the registry"],
    };
    fails(&home, row).await;
    arrived(source.host(), &proxy.host(), "good").await;
    proxy.retarget(&large.url());
    succeeds(&home).await;
    arrived(source.host(), &proxy.host(), "bad").await;
    arrived(source.host(), &proxy.host(), "good").await;
}
