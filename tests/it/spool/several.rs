//! Several sources and destinations of one blob, and sources that turn out to be fast.

use bytes::Bytes;
use transship::demo::registry::{Options, Registry};
use transship::oci::{Digest, RepositoryName, Tag};

use super::{LAYER, Slow, no_failure, reads, with_spool};
use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::image;
use crate::support::link::{MIB, REPOSITORY, only_run, rules};
use crate::support::proxy::{Act, Exchange, Fault, Gate, Proxy};
use crate::support::until;
use crate::support::wire::Wire;

#[tokio::test]
async fn what_one_source_gave_is_not_for_another_that_only_names_it() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Slow::new(&source, &destination.url()).await;
    let layer = &link.image.blobs[1];
    link.leave(layer);

    let without_it = Registry::start(Options::default()).await.expect("a registry");
    let name: RepositoryName = REPOSITORY.parse().expect("a name");
    let tag: Tag = "v1".parse().expect("a tag");
    without_it.seed(&name, &tag, &link.image);
    assert!(without_it.lose_blob(&Digest::of(layer)));
    let elsewhere = DockerRegistry::plain().await;
    let (src, dst) = (
        Proxy::start(&without_it.url()).await,
        Proxy::start(&elsewhere.url()).await,
    );
    let plain = Transship::new(&format!(
        "{}    retry: {{ attempts: 2 }}\n",
        rules(&src.url(), &dst.url())
    ));
    let spooling = Transship::new(&with_spool(&src, &dst, link.spool.path(), "100MiB"));
    let mut failures = Vec::new();
    for home in [plain, spooling] {
        let output = home.run(&["sync", "--format", "json"]).await.expect(1);
        failures.push(only_run(&output)["failures"].clone());
    }
    assert_eq!(failures[0][0]["kind"], "not_found", "{failures:?}");
    assert_eq!(failures[0][0]["kind"], failures[1][0]["kind"], "{failures:?}");
    assert!(
        dst.request_bytes("*", "/uploads/") < MIB,
        "not a byte of the layer: {:?}",
        dst.exchanges()
    );
    let blob = format!("/v2/{REPOSITORY}/blobs/{}", Digest::of(layer));
    Wire::new(&elsewhere.url()).get(&blob, &[]).await.expect(404);

    // It is still there for the one that has it.
    link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    assert_eq!(reads(&link), Vec::<u64>::new());
}

#[tokio::test]
async fn a_manifest_with_too_small_a_length_loses_nothing_of_the_file() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Slow::new(&source, &destination.url()).await;
    let layer = &link.image.blobs[1];
    let mut wrong = link.image.clone();
    let text = String::from_utf8(wrong.manifest.to_vec()).expect("JSON");
    let small = text.replace(&LAYER.to_string(), &(17 * MIB).to_string());
    assert_ne!(text, small);
    wrong.manifest = Bytes::from(small);
    link.source_wire().push("team/wrong", "v1", &wrong).await;

    let elsewhere = DockerRegistry::plain().await;
    let dst = Proxy::start(&elsewhere.url()).await;
    let right = with_spool(&link.src, &dst, link.spool.path(), "100MiB");
    let home = Transship::new(
        &right
            .replace(REPOSITORY, "team/wrong")
            .replace("attempts: 2", "attempts: 1"),
    );
    // Less than it says, and more.
    for held in [12 * MIB, 19 * MIB] {
        let held = &layer[..usize::try_from(held).expect("a length")];
        link.leave(held);
        let output = home.run(&["sync", "--format", "json"]).await.expect(1);
        let failures = only_run(&output)["failures"].clone();
        assert_eq!(failures[0]["kind"], "corrupt", "{failures}");
        let left = std::fs::read(link.file()).expect("a file");
        assert!(left == held, "{} bytes of {} are left", left.len(), held.len());
    }

    link.src.reset();
    link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    assert_eq!(reads(&link), [MIB]);
    assert_eq!(link.files(), Vec::<String>::new());
}

#[tokio::test]
async fn a_manifest_with_too_great_a_length_removes_no_other_file() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Slow::new(&source, &destination.url()).await;
    let held = &link.image.blobs[1][..12 << 20];
    link.leave(held);
    let mut wrong = image(2, "arm64", &[17 << 20]);
    let text = String::from_utf8(wrong.manifest.to_vec()).expect("JSON");
    let great = text.replace(&(17 << 20).to_string(), &(95 * MIB).to_string());
    assert_ne!(text, great);
    wrong.manifest = Bytes::from(great);
    link.source_wire().push("team/wrong", "v1", &wrong).await;
    let rules = link.rules("100MiB").replace(REPOSITORY, "team/wrong");
    let output = Transship::new(&rules)
        .run(&["sync", "--format", "json"])
        .await
        .expect(1);
    let failures = only_run(&output)["failures"].clone();
    assert_eq!(failures[0]["kind"], "corrupt", "{failures}");
    assert!(std::fs::read(link.file()).expect("a file") == held, "it is left alone");

    link.src.reset();
    link.sync().await.expect(0);
    assert_eq!(reads(&link), [LAYER - (12 << 20)]);
}

#[tokio::test]
async fn a_file_that_is_longer_than_its_blob_goes_when_the_blob_has_arrived() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Slow::new(&source, &destination.url()).await;
    link.leave(&vec![7; 21 << 20]);
    link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    assert_eq!(reads(&link), [LAYER]);
    assert_eq!(link.files(), Vec::<String>::new());
}

#[tokio::test]
async fn heavy_a_destination_that_is_left_behind_is_served_from_the_spool() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let third = DockerRegistry::plain().await;
    let link = Slow::new(&source, &destination.url()).await;
    let other = Proxy::start(&third.url()).await;
    link.to_two(&other);
    // The config is shorter and passes; what is tried again passes too.
    let stuck = Act::HoldRequest(4 * MIB, Gate::new());
    other.add(Fault::times(2, "PUT", "/uploads/", stuck));
    let output = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    link.assert_copied_to(&source, third.host()).await;
    assert_eq!(link.sent_twice(), 0, "the other one noticed nothing");
    assert!(
        other.request_bytes("*", "/uploads/") > LAYER + 4 * MIB,
        "it got all again"
    );
    // What was on its way when nobody took it, see `stand_still`; a read of its own would be all of it.
    assert!(link.read_twice() < LAYER / 2, "{}", link.read_twice());
    no_failure(&only_run(&output));
    assert_eq!(link.files(), Vec::<String>::new());
}

#[tokio::test]
async fn heavy_a_failed_attempt_waits_for_no_destination_that_was_left_behind() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let third = DockerRegistry::plain().await;
    let link = Slow::new(&source, &destination.url()).await;
    let other = Proxy::start(&third.url()).await;
    link.to_two(&other);
    let gate = Gate::new();
    for method in ["PUT", "PATCH"] {
        let stuck = Act::HoldRequest(4 * MIB, gate.clone());
        other.add(Fault::every(method, "/uploads/", stuck));
    }
    // Most of what comes after the first piece. The config is shorter and passes; what is tried again passes, too.
    let lost = Act::CutRequest(10 * MIB);
    link.dst.add(Fault::times(2, "PUT", "/uploads/", lost));
    let sync = link.start();
    let tagged = |all: &[Exchange]| {
        all.iter()
            .any(|exchange| exchange.is("PUT", "/manifests/v1") && exchange.done)
    };
    link.dst.wait_for("the tag at the quick one", tagged).await;
    assert_eq!(Wire::new(&third.url()).resolve(REPOSITORY, "v1").await, None);
    gate.open();
    let output = sync.finish().await.expect(0);
    link.assert_copied(&["v1"]).await;
    link.assert_copied_to(&source, third.host()).await;
    no_failure(&only_run(&output));
    assert!(link.sent_twice() >= 10 * MIB, "{}", link.sent_twice());
    assert_eq!(link.files(), Vec::<String>::new());
}

#[tokio::test]
async fn a_source_that_turns_out_to_be_fast_drops_its_file() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Slow::new(&source, &destination.url()).await;
    link.src.heal();
    let (begin, middle) = (Gate::new(), Gate::new());
    for act in [
        Act::HoldReply(begin.clone()),
        Act::HoldResponse(16 * MIB, middle.clone()),
    ] {
        link.src.add(Fault::once("GET", &link.layer(), act));
    }
    // The destination is what is waited for, even where the machine is busy.
    for method in ["PATCH", "PUT"] {
        link.dst
            .add(Fault::every(method, "/uploads/", Act::RequestRate(8 * MIB)));
    }
    let sync = link.start();
    let made = || (link.files().len() == 1).then_some(());
    until("the file of a source that nobody measured", made).await;
    begin.open();
    let held = |all: &[Exchange]| all.iter().any(|exchange| exchange.held && exchange.response_bytes > 0);
    link.src.wait_for("the source to be held", held).await;
    let gone = || link.files().is_empty().then_some(());
    until("the file of a fast source to be removed", gone).await;
    middle.open();
    let output = sync.finish().await.expect(0);
    link.assert_copied(&["v1"]).await;
    no_failure(&only_run(&output));
    assert_eq!(link.read_twice(), 0);
}
