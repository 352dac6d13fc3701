//! Destinations that take nothing for a while, and what becomes of the source's connection meanwhile.

use std::sync::Arc;

use transship::demo::registry::{Options, Registry};

use super::under_way;
use crate::support::docker_registry::DockerRegistry;
use crate::support::link::{Link, MIB};
use crate::support::proxy::{Act, Exchange, Fault, Gate};

/// Too small for several connections.
const LAYER: u64 = 60 * MIB;

/// What can be on its way from the source to us: Linux gives a socket 6 MiB to receive into and 4 MiB to send from
/// (tcp_rmem and tcp_wmem), and both the source's and the proxy's are between.
const ON_THE_WAY: u64 = 20 * MIB;

fn reads<'a>(all: &'a [Exchange], layer: &str) -> Vec<&'a Exchange> {
    all.iter().filter(|exchange| exchange.is("GET", layer)).collect()
}

#[tokio::test]
async fn heavy_the_source_is_left_alone_while_the_destination_stands_still() {
    let source = DockerRegistry::plain().await;
    let destination = Registry::start(Options::default()).await.expect("a registry");
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    let layer = Arc::new(link.layer());
    let (first, second) = (Gate::new(), Gate::new());
    for (at, gate) in [(8 * MIB, &first), (36 * MIB, &second)] {
        link.dst
            .add(Fault::every("PUT", "/uploads/", Act::HoldRequest(at, gate.clone())));
    }
    let process = link.start();
    let read = Arc::clone(&layer);
    link.src
        .wait_for("the source's connection to be closed", move |all| {
            let reads = reads(all, &read);
            reads.len() == 1 && reads[0].broken
        })
        .await;
    first.open();
    link.dst
        .wait_for("the second standstill", |all| {
            all.iter()
                .any(|exchange| exchange.held && exchange.request_bytes == 36 * MIB)
        })
        .await;
    let read = Arc::clone(&layer);
    link.src
        .wait_for("no read under way", move |all| under_way(all, &read) == 0)
        .await;
    second.open();
    process.finish().await.expect(0);
    link.assert_copied(&["v1"]).await;
    assert_eq!(link.sent_twice(), 0);
    let exchanges = link.src.exchanges();
    let reads = reads(&exchanges, &layer);
    let closed = reads.iter().filter(|read| read.broken).count();
    assert_eq!(closed, 1, "after the first only what fits was asked for: {reads:?}");
    eprintln!(
        "measured: standstill: {} bytes read twice in {} requests",
        link.read_twice(),
        reads.len()
    );
    assert!(link.read_twice() <= ON_THE_WAY, "{}", link.read_twice());
    assert!(reads[1..].iter().all(|read| read.range.is_some()), "{reads:?}");
}
