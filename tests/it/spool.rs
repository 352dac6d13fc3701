//! The spool: what the source is asked for after a kill or a break, in bytes that passed its proxy, and a spool that does not work.

mod damage;
mod several;

use std::fs::Permissions;
use std::ops::Deref;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use transship::demo::registry::{Habits, Options, Registry};

use crate::support::command::Transship;
use crate::support::compare::{Reader, Side, assert_same_images};
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::image;
use crate::support::link::{Link, MIB, REPOSITORY, only_run, rules};
use crate::support::proxy::{Act, Exchange, Fault, Gate, Proxy};
use crate::support::until;

/// Large enough for the spool.
const LAYER: u64 = 20 * MIB;

/// A source that is slow enough for it, even where the machine is so busy that bytes wait for us, and quick enough for a test.
const SLOW: u64 = 4 * MIB;

/// Where the first process dies.
const MIDDLE: u64 = 12 * MIB + MIB / 2;

/// The same rules with a spool.
fn with_spool(src: &Proxy, dst: &Proxy, place: &Path, max_size: &str) -> String {
    format!(
        "{}    retry: {{ attempts: 2 }}\nspool: {{ path: {place:?}, max_size: {max_size} }}\n",
        rules(&src.url(), &dst.url())
    )
}

/// A folder that may be a spool: a tenth of the disk stays free, so nothing of this works on a disk that is fuller.
fn roomy() -> TempDir {
    let mut parents = [std::env::temp_dir(), PathBuf::from("/dev/shm")].into_iter();
    let parent = parents.find(|parent| {
        rustix::fs::statvfs(parent).is_ok_and(|disk| {
            let capacity = disk.f_blocks - disk.f_bfree + disk.f_bavail;
            disk.f_bavail > capacity / 8
        })
    });
    TempDir::new_in(parent.expect("an eighth of the disk for temporary files is free")).expect("a temporary directory")
}

/// A link that is slow at its source, and a spool.
struct Slow {
    link: Link,
    spool: TempDir,
}

impl Deref for Slow {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.link
    }
}

impl Slow {
    async fn new(source: &DockerRegistry, destination: &str) -> Self {
        Self::with(source, destination, LAYER, SLOW).await
    }

    /// A layer of `size` bytes that come at `rate` bytes a second.
    async fn with(source: &DockerRegistry, destination: &str, size: u64, rate: u64) -> Self {
        let link = Link::new(&source.url(), destination, size).await;
        let slow = Self { link, spool: roomy() };
        slow.home.set_rules(&slow.rules("100MiB"));
        slow.src
            .add(Fault::every("GET", &slow.layer(), Act::ResponseRate(rate)));
        slow
    }

    fn rules(&self, max_size: &str) -> String {
        with_spool(&self.src, &self.dst, self.spool.path(), max_size)
    }

    /// The same rules with `other` as a second destination.
    fn to_two(&self, other: &Proxy) {
        let rules = std::fs::read_to_string(self.home.rules()).expect("rules");
        let rules = rules
            .replace(
                "\nrules:",
                &format!("\n  other: {{ url: \"{}\" }}\nrules:", other.url()),
            )
            .replace("[destination]", "[destination, other]");
        self.home.set_rules(&rules);
    }

    /// Not even one attempt may be counted for what went wrong.
    fn try_once(&self) {
        let rules = std::fs::read_to_string(self.home.rules()).expect("rules");
        self.home.set_rules(&rules.replace("attempts: 2", "attempts: 1"));
    }

    /// The image is at `other` too, where nobody had it.
    async fn assert_copied_to(&self, source: &DockerRegistry, other: &str) {
        let at = |host: &str| Side::new(host.trim_start_matches("http://"), REPOSITORY);
        assert_same_images(&at(source.host()), &at(other), &["v1"], Reader::OciClient).await;
    }

    /// Puts bytes where the layer is spooled, as an earlier process left them.
    fn leave(&self, bytes: &[u8]) {
        std::fs::write(self.file(), bytes).expect("a file");
        std::fs::set_permissions(self.file(), Permissions::from_mode(0o600)).expect("a mode");
    }

    /// Changes a byte of the file in its place.
    fn flip(&self, offset: u64) {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(self.file());
        let file = file.expect("a file");
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("a byte");
        file.write_all_at(&[byte[0] ^ 1], offset).expect("a byte");
    }

    /// Where the layer is spooled.
    fn file(&self) -> PathBuf {
        self.spool.path().join(format!("sha256-{}.part", self.layer()))
    }

    /// Names of blobs' files in the spool.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.spool.path()).expect("a directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.ends_with(".part")).collect()
    }

    /// Waits until the spool has exactly so many bytes of the layer.
    async fn spooled(&self, bytes: u64) {
        let path = self.file();
        let there = || (length(&path) == bytes).then_some(());
        until("the spool to hold what was read", there).await;
    }
}

fn length(path: &Path) -> u64 {
    path.symlink_metadata().map_or(0, |found| found.len())
}

/// Stops the next read of the layer after [`MIDDLE`] bytes.
fn hold(link: &Slow, gate: &Gate) {
    let act = Act::HoldResponse(MIDDLE, gate.clone());
    link.src.add(Fault::once("GET", &link.layer(), act));
}

/// A sync that is killed when it has read, and spooled, [`MIDDLE`] bytes.
async fn killed_in_the_middle(link: &Slow) {
    hold(link, &Gate::new());
    let mut first = link.start();
    link.spooled(MIDDLE).await;
    first.kill();
    link.src.heal();
}

/// Offsets from which the layer was read, and how much each read gave.
fn reads(link: &Slow) -> Vec<u64> {
    let all = link.src.exchanges();
    let reads = all.iter().filter(|exchange| exchange.is("GET", &link.layer()));
    reads.map(|exchange| exchange.response_bytes).collect()
}

#[track_caller]
fn no_failure(run: &serde_json::Value) {
    assert_eq!(run["failures"].as_array().map(Vec::len), Some(0), "{run}");
}

#[tokio::test]
async fn killed_in_the_middle_of_a_put_no_byte_is_read_twice() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Slow::new(&source, &destination.url()).await;
    killed_in_the_middle(&link).await;
    assert!(
        link.dst
            .exchanges()
            .iter()
            .any(|exchange| exchange.is("PUT", "/uploads/") && exchange.request_bytes > MIB && !exchange.done),
        "{:?}",
        link.dst.exchanges()
    );

    let second = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    assert_eq!(link.read_twice(), 0);
    assert_eq!(reads(&link), [MIDDLE, LAYER - MIDDLE]);
    assert!(link.sent_twice() > 5 * MIB, "the registry loses what it was sent");
    let run = only_run(&second);
    assert!(
        run["bytes"]["read"].as_u64().expect("a number") < LAYER - MIDDLE + MIB,
        "{run}"
    );
    assert_eq!(link.files(), Vec::<String>::new(), "what is done is removed");
}

#[tokio::test]
async fn heavy_killed_inside_a_piece_no_byte_is_read_twice() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    // Not done within half a minute at this rate, so that it goes in pieces; too small for several connections.
    let (rate, size) = (MIB, 56 * MIB);
    let link = Slow::with(&source, &destination.url(), size, rate).await;
    // Two pieces, and what surely fits the window behind them.
    let middle = 10 * MIB + 4096;
    let act = Act::HoldResponse(middle, Gate::new());
    link.src.add(Fault::once("GET", &link.layer(), act));
    let act = Act::HoldRequest(2 * MIB, Gate::new());
    link.dst.add(Fault::nth(2, "PATCH", "/uploads/", act));
    let mut first = link.start();
    let held = |all: &[Exchange]| all.iter().any(|exchange| exchange.held);
    link.dst.wait_for("the second piece to be held", held).await;
    link.spooled(middle).await;
    first.kill();
    link.src.heal();
    link.dst.heal();

    link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    assert_eq!(link.read_twice(), 0);
    assert_eq!(reads(&link), [middle, size - middle]);
    assert_eq!(link.files(), Vec::<String>::new());
}

#[tokio::test]
async fn a_destination_that_breaks_off_is_served_from_the_spool_in_the_same_run() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Slow::new(&source, &destination.url()).await;
    link.dst
        .add(Fault::times(2, "PUT", "/uploads/", Act::CutRequest(12 * MIB)));
    let output = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    assert!(link.sent_twice() > 12 * MIB, "{}", link.sent_twice());
    // What was on its way when the read was given up.
    assert!(link.read_twice() <= MIB, "{}", link.read_twice());
    no_failure(&only_run(&output));
    assert_eq!(link.files(), Vec::<String>::new());
}

#[tokio::test]
async fn a_stopped_sync_leaves_its_file_to_the_next() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Slow::new(&source, &destination.url()).await;
    hold(&link, &Gate::new());
    let mut first = link.start();
    link.spooled(MIDDLE).await;
    first.signal("INT");
    first.wait_for_line("nothing new starts").await;
    // What is under way would have 20 s; asking twice ends it now.
    first.signal("INT");
    first.finish().await.expect(130);
    assert_eq!(length(&link.file()), MIDDLE);

    link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    assert_eq!(link.read_twice(), 0);
}

#[tokio::test]
async fn an_image_that_failed_for_now_leaves_its_file_to_the_next_sync() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Slow::new(&source, &destination.url()).await;
    link.dst
        .add(Fault::every("PUT", "/uploads/", Act::CutRequest(12 * MIB)));
    link.sync().await.expect(1);
    assert_eq!(link.files().len(), 1);
    link.dst.heal();

    link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    // What was on its way when the read was given up.
    assert!(link.read_twice() <= MIB, "{}", link.read_twice());
    assert_eq!(link.files(), Vec::<String>::new());
}

#[tokio::test]
async fn a_spool_without_room_is_said_once_and_hinders_nothing() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Slow::new(&source, &destination.url()).await;
    let other = image(2, "arm64", &[17 << 20]);
    link.source_wire().push(REPOSITORY, "v2", &other).await;
    link.home.set_rules(&link.rules("16MiB"));
    let output = link.sync().await.expect(0);
    link.assert_copied(&["v1", "v2"]).await;
    no_failure(&only_run(&output));
    let said = output.stderr.lines().filter(|line| line.contains("no room"));
    let said: Vec<&str> = said.collect();
    assert_eq!(said.len(), 1, "{}", output.stderr);
    assert!(said[0].contains("spool.max_size"), "{said:?}");
    assert_eq!(link.files(), Vec::<String>::new());
}

#[tokio::test]
async fn a_spool_that_cannot_be_used_is_said_once_and_hinders_nothing() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Slow::new(&source, &destination.url()).await;
    std::fs::write(link.home.home().join("file"), "").expect("a file");
    // Not even root may make files in the second.
    for (place, tag) in [("file/spool", "v1"), ("/proc/spool", "v2")] {
        let other = image(u64::from(tag == "v2"), "arm64", &[17 << 20]);
        link.source_wire().push(REPOSITORY, tag, &other).await;
        let rules = with_spool(&link.src, &link.dst, Path::new(place), "100MiB");
        link.home.set_rules(&rules);
        let output = link.sync().await.expect(0);
        link.assert_copied(&[tag]).await;
        no_failure(&only_run(&output));
        let said = output.stderr.lines().filter(|line| line.contains("without the spool"));
        let said: Vec<&str> = said.collect();
        assert_eq!(said.len(), 1, "{}", output.stderr);
        assert!(said[0].contains(place), "{said:?}");
    }
}

#[tokio::test]
async fn a_link_in_the_place_of_a_file_is_not_followed() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Slow::new(&source, &destination.url()).await;
    let victim = link.home.home().join("victim");
    std::fs::write(&victim, "precious").expect("a file");
    // As the spool's own files, so that nothing but the link is wrong with it.
    std::fs::set_permissions(&victim, Permissions::from_mode(0o600)).expect("a mode");
    let path = link.file();
    symlink(&victim, &path).expect("a link");
    let output = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    no_failure(&only_run(&output));
    assert_eq!(std::fs::read(&victim).expect("a file"), b"precious");
    assert!(path.is_symlink());
    assert!(output.stderr.contains("without the spool"), "{}", output.stderr);
}

#[tokio::test]
async fn two_processes_share_a_spool() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Slow::new(&source, &destination.url()).await;
    let gate = Gate::new();
    hold(&link, &gate);
    let first = link.start();
    link.spooled(MIDDLE).await;

    let elsewhere = DockerRegistry::plain().await;
    let dst = Proxy::start(&elsewhere.url()).await;
    let other = Transship::new(&with_spool(&link.src, &dst, link.spool.path(), "100MiB"));
    let output = other.run(&["sync", "--format", "json"]).await.expect(0);
    no_failure(&only_run(&output));
    assert_eq!(length(&link.file()), MIDDLE, "the other process' file");
    assert_eq!(reads(&link), [MIDDLE, LAYER], "it reads for itself");

    gate.open();
    no_failure(&only_run(&first.finish().await.expect(0)));
    link.assert_copied(&["v1"]).await;
    assert_eq!(reads(&link), [LAYER, LAYER]);
    assert_eq!(link.files(), Vec::<String>::new());
}

#[tokio::test]
async fn a_piece_too_long_for_memory_is_complete_in_the_spool_before_its_request() {
    let source = DockerRegistry::plain().await;
    let options = Options {
        habits: Habits::distribution_2_8(),
        least_piece: Some(12 * MIB),
        ..Options::default()
    };
    let destination = Registry::start(options).await.expect("a registry");
    let link = Slow::new(&source, &destination.url()).await;
    let middle = 12 * MIB - 1;
    let act = Act::HoldResponse(middle, Gate::new());
    link.src.add(Fault::once("GET", &link.layer(), act));
    let mut first = link.start();
    link.spooled(middle).await;
    assert_eq!(link.dst.count("PATCH", ""), 0, "one byte is missing");
    first.kill();
    link.src.heal();

    let second = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    assert_eq!((link.read_twice(), link.sent_twice()), (0, 0));
    no_failure(&only_run(&second));
    let pieces = link.dst.exchanges();
    let pieces = pieces.iter().filter(|exchange| exchange.is("PATCH", "/uploads/"));
    let pieces: Vec<u64> = pieces.map(|exchange| exchange.request_bytes).collect();
    assert_eq!(pieces, [12 * MIB], "the rest goes with the closing request");
    assert_eq!(link.files(), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_spooled_for_a_destination_that_keeps_bytes() {
    let source = DockerRegistry::plain().await;
    let options = Options {
        habits: Habits::distribution_3(),
        ..Options::default()
    };
    let destination = Registry::start(options).await.expect("a registry");
    let link = Slow::new(&source, &destination.url()).await;
    let gate = Gate::new();
    hold(&link, &gate);
    let first = link.start();
    let reached = |all: &[Exchange]| all.iter().any(|exchange| exchange.held);
    link.src.wait_for("the source to be held", reached).await;
    let sent = |all: &[Exchange]| all.iter().any(|exchange| exchange.request_bytes == MIDDLE);
    link.dst.wait_for("what was read to be sent", sent).await;
    assert_eq!(link.files(), Vec::<String>::new());
    gate.open();
    first.finish().await.expect(0);
    link.assert_copied(&["v1"]).await;
}
