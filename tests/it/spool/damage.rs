//! Bytes of the spool that are wrong: who notices, who is blamed, and what is read again.

use http::StatusCode;
use transship::demo::registry::{Habits, Options, Registry, Running};

use super::{LAYER, MIDDLE, Slow, hold, killed_in_the_middle, no_failure, reads};
use crate::support::docker_registry::DockerRegistry;
use crate::support::link::{MIB, only_run};
use crate::support::proxy::{Act, Exchange, Fault, Gate, Proxy};

const DAMAGED: &str = "what the spool held of a blob is damaged";

/// The length of the first piece for [`patient`], too long for memory, so that it is sent from the spool.
const PIECE: u64 = 12 * MIB;

/// A destination that wants long pieces.
async fn patient() -> Running {
    let options = Options {
        habits: Habits::distribution_2_8(),
        least_piece: Some(PIECE),
        ..Options::default()
    };
    Registry::start(options).await.expect("a registry")
}

/// Requests that were refused for their bytes.
fn refused(proxy: &Proxy) -> usize {
    let all = proxy.exchanges();
    let refused = all
        .iter()
        .filter(|exchange| exchange.status == Some(StatusCode::BAD_REQUEST));
    refused.count()
}

/// Holds the source where all but one byte of the first piece was read and hashed, and is in the spool.
fn hold_before_the_piece(link: &Slow, gate: &Gate) {
    let act = Act::HoldResponse(PIECE - 1, gate.clone());
    link.src.add(Fault::once("GET", &link.layer(), act));
}

#[tokio::test]
async fn a_damaged_file_is_dropped_and_the_source_not_blamed() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Slow::new(&source, &destination.url()).await;
    killed_in_the_middle(&link).await;
    link.flip(3_000_000);
    link.try_once();

    let second = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    no_failure(&only_run(&second));
    assert_eq!(reads(&link), [MIDDLE, LAYER - MIDDLE, LAYER]);
    assert!(
        second.stderr.contains("what the spool held of a blob is damaged"),
        "{}",
        second.stderr
    );
    assert!(!second.stderr.contains("source holds a damaged"), "{}", second.stderr);
    assert_eq!(link.files(), Vec::<String>::new());
}

#[tokio::test]
async fn a_source_that_gave_a_damaged_byte_is_read_again_and_not_the_spool() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Slow::new(&source, &destination.url()).await;
    link.src
        .add(Fault::once("GET", &link.layer(), Act::FlipResponse(LAYER / 2)));
    let output = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    no_failure(&only_run(&output));
    assert_eq!(reads(&link), [LAYER, LAYER]);
    assert!(!output.stderr.contains("what the spool held"), "{}", output.stderr);
}

#[tokio::test]
async fn a_damaged_file_is_dropped_for_two_destinations_and_read_again_once() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let third = DockerRegistry::plain().await;
    let link = Slow::new(&source, &destination.url()).await;
    let other = Proxy::start(&third.url()).await;
    link.to_two(&other);
    killed_in_the_middle(&link).await;
    link.flip(3_000_000);
    link.try_once();

    let second = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    link.assert_copied_to(&source, third.host()).await;
    no_failure(&only_run(&second));
    assert_eq!(reads(&link), [MIDDLE, LAYER - MIDDLE, LAYER]);
    assert!(second.stderr.contains(DAMAGED), "{}", second.stderr);
    assert_eq!(link.files(), Vec::<String>::new());
}

#[tokio::test]
async fn a_piece_that_was_damaged_after_it_was_read_is_refused_and_read_again() {
    let (source, destination) = (DockerRegistry::plain().await, patient().await);
    let link = Slow::new(&source, &destination.url()).await;
    link.try_once();
    let gate = Gate::new();
    hold_before_the_piece(&link, &gate);
    let sync = link.start();
    link.spooled(PIECE - 1).await;
    link.flip(3_000_000);
    gate.open();

    let output = sync.finish().await.expect(0);
    link.assert_copied(&["v1"]).await;
    no_failure(&only_run(&output));
    assert_eq!(reads(&link), [LAYER, LAYER]);
    assert!(output.stderr.contains(DAMAGED), "{}", output.stderr);
    assert_eq!(link.files(), Vec::<String>::new());
}

#[tokio::test]
async fn a_piece_that_was_damaged_for_two_destinations_is_read_again_once() {
    let (source, destination, third) = (DockerRegistry::plain().await, patient().await, patient().await);
    let link = Slow::new(&source, &destination.url()).await;
    let other = Proxy::start(&third.url()).await;
    link.to_two(&other);
    link.try_once();
    let gate = Gate::new();
    hold_before_the_piece(&link, &gate);
    let sync = link.start();
    link.spooled(PIECE - 1).await;
    link.flip(3_000_000);
    gate.open();

    let output = sync.finish().await.expect(0);
    link.assert_copied(&["v1"]).await;
    link.assert_copied_to(&source, &third.url()).await;
    no_failure(&only_run(&output));
    assert_eq!((refused(&link.dst), refused(&other)), (1, 1), "each noticed");
    assert_eq!(reads(&link), [LAYER, LAYER]);
    assert_eq!(link.files(), Vec::<String>::new());
}

#[tokio::test]
async fn a_destination_that_failed_with_a_damaged_piece_starts_again_with_the_one_that_noticed() {
    let (source, destination, third) = (DockerRegistry::plain().await, patient().await, patient().await);
    let link = Slow::new(&source, &destination.url()).await;
    let other = Proxy::start(&third.url()).await;
    link.to_two(&other);
    let gate = Gate::new();
    hold_before_the_piece(&link, &gate);
    let sync = link.start();
    link.spooled(PIECE - 1).await;
    let config = |all: &[Exchange]| {
        all.iter()
            .any(|exchange| exchange.is("PUT", "/uploads/") && exchange.done)
    };
    other.wait_for("the config to be there", config).await;
    // It keeps its upload, and the damaged piece in it.
    let busy = Act::Answer(StatusCode::SERVICE_UNAVAILABLE, None);
    other.add(Fault::once("PUT", "/uploads/", busy));
    link.flip(3_000_000);
    gate.open();

    let output = sync.finish().await.expect(0);
    link.assert_copied(&["v1"]).await;
    link.assert_copied_to(&source, &third.url()).await;
    no_failure(&only_run(&output));
    assert_eq!(reads(&link), [LAYER, LAYER]);
    assert_eq!(
        (refused(&link.dst), refused(&other)),
        (1, 0),
        "it did not have to notice"
    );
    assert_eq!(link.files(), Vec::<String>::new());
}

#[tokio::test]
async fn what_was_sent_from_the_spool_before_a_kill_is_not_sent_again() {
    let (source, destination) = (DockerRegistry::plain().await, patient().await);
    let link = Slow::new(&source, &destination.url()).await;
    hold(&link, &Gate::new());
    // Behind the config's; the destination sees nothing of it, so that it keeps the piece.
    let closing = Act::HoldBefore(Gate::new());
    link.dst.add(Fault::nth(2, "PUT", "/uploads/", closing));
    let mut first = link.start();
    link.recorded(PIECE).await;
    link.spooled(MIDDLE).await;
    first.kill();
    link.src.heal();
    link.dst.heal();
    // Nobody asks for this byte any more.
    link.flip(3_000_000);
    link.try_once();

    let second = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    no_failure(&only_run(&second));
    assert_eq!((link.read_twice(), link.sent_twice()), (0, 0));
    assert_eq!(link.files(), Vec::<String>::new());
}
