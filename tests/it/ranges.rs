//! Large blobs of slow sources over several connections, and what happens to connections that nobody reads from.

mod few_bytes;
mod many;
mod standstill;
mod wrong;

use http::StatusCode;
use transship::demo::registry::{Options, Registry};

use crate::support::docker_registry::{DockerConfig, DockerRegistry};
use crate::support::images::image;
use crate::support::link::{Link, MIB, REPOSITORY, only_run, resumed};
use crate::support::origin::Origin;
use crate::support::proxy::{Act, Exchange, Fault, Gate, Proxy};

/// Bytes a second of one connection: so few that waiting for them is most of the time on any machine.
const RATE: u64 = 3 * MIB;

/// A layer that is large enough for several.
const LAYER: u64 = 72 * MIB;

/// The reads of the layer that gave bytes, first and last byte each, in the order of the blob. One without a range begins at 0.
fn ranges(all: &[Exchange], layer: &str) -> Vec<(u64, Option<u64>)> {
    let reads = all.iter().filter(|exchange| exchange.is("GET", layer));
    let given = reads.filter(|exchange| exchange.response_bytes > 0);
    let mut ranges: Vec<_> = given
        .map(|exchange| {
            let Some(range) = &exchange.range else { return (0, None) };
            let (first, last) = range
                .strip_prefix("bytes=")
                .and_then(|range| range.split_once('-'))
                .expect("one range");
            (first.parse().expect("an offset"), last.parse().ok())
        })
        .collect();
    ranges.sort();
    ranges
}

/// One range ends where the next begins, from the first byte to the last.
#[track_caller]
fn assert_one_after_the_other(ranges: &[(u64, Option<u64>)], size: u64) {
    let mut next = Some(0);
    for (first, last) in ranges {
        assert_eq!(Some(*first), next, "{ranges:?}");
        next = last.map(|last| last + 1);
    }
    assert!(next.is_none_or(|next| next == size), "{ranges:?}");
}

/// How many reads of the layer are under way.
fn under_way(all: &[Exchange], layer: &str) -> usize {
    let reads = all.iter().filter(|exchange| exchange.is("GET", layer));
    reads.filter(|exchange| !exchange.done && !exchange.broken).count()
}

#[tokio::test]
async fn heavy_a_slow_source_is_read_over_several_connections_and_no_byte_twice() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    let layer = link.layer();
    link.src.add(Fault::every("GET", &layer, Act::ResponseRate(RATE)));
    let process = link.start();
    link.src
        .wait_for("four reads at once", |all| under_way(all, &layer) >= 4)
        .await;
    process.finish().await.expect(0);
    link.assert_copied(&["v1"]).await;
    assert_eq!((link.read_twice(), link.sent_twice()), (0, 0));
    let exchanges = link.src.exchanges();
    let ranges = ranges(&exchanges, &layer);
    assert_one_after_the_other(&ranges, LAYER);
    assert!(
        ranges.len() <= 64,
        "not many requests more than there are MiB: {ranges:?}"
    );
    assert_eq!(
        ranges[0],
        (0, Some(4 * MIB - 1)),
        "it is found out with one connection how slow it is"
    );
    let statuses = exchanges.iter().filter(|exchange| exchange.is("GET", &layer));
    assert!(
        statuses
            .into_iter()
            .all(|exchange| exchange.status == Some(StatusCode::PARTIAL_CONTENT))
    );
}

#[tokio::test]
async fn heavy_a_limit_of_concurrency_holds_for_parts_too() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    let layer = link.layer();
    let rules = crate::support::link::rules(&link.src.url(), &link.dst.url());
    let limited = rules.replacen("\" }", "\", limits: { concurrency: 4 } }", 1);
    assert_ne!(rules, limited);
    link.home.set_rules(&limited);
    link.src.add(Fault::every("GET", &layer, Act::ResponseRate(RATE)));
    let process = link.start();
    let mut most = 0;
    link.src
        .wait_for("the blob to be read", |all| {
            most = most.max(under_way(all, &layer));
            let read = all.iter().filter(|exchange| exchange.is("GET", &layer));
            read.map(|exchange| exchange.response_bytes).sum::<u64>() >= LAYER
        })
        .await;
    process.finish().await.expect(0);
    assert_eq!(most, 2, "one of four places is for a write, one for small requests");
    assert_eq!(link.read_twice(), 0);
}

#[tokio::test]
async fn heavy_parts_of_blobs_in_an_object_store_are_asked_for_at_the_registry() {
    let mut source = DockerRegistry::plain().await;
    let destination = DockerRegistry::plain().await;
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    let layer = link.layer();
    let store = Origin::start(source.storage()).await;
    let port = store.url().rsplit(':').next().expect("a port").to_owned();
    let storage = Proxy::start(&format!("http://127.0.0.1:{port}")).await;
    let elsewhere = format!("http://localhost:{}", storage.addr().port());
    source
        .restart_with(|config: &mut DockerConfig| config.redirect = Some(elsewhere))
        .await;
    storage.add(Fault::every("GET", &layer, Act::ResponseRate(RATE)));
    let process = link.start();
    storage
        .wait_for("two reads at once", |all| under_way(all, &layer) >= 2)
        .await;
    process.finish().await.expect(0);
    assert_eq!(storage.response_bytes("GET", &layer), LAYER, "no byte twice");
    assert_one_after_the_other(&ranges(&storage.exchanges(), &layer), LAYER);
    assert_eq!(
        link.src.count("GET", &layer),
        storage.count("GET", &layer),
        "each by the registry"
    );
    source.restart_with(|config| config.redirect = None).await;
    link.assert_copied(&["v1"]).await;
}

#[tokio::test]
async fn heavy_a_source_that_ignores_ranges_is_asked_once_and_that_is_remembered() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    link.src.add(Fault::every("GET", "/blobs/", Act::IgnoreRange));
    link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    assert_eq!(link.src.count("GET", &link.layer()), 1);
    assert_eq!((link.read_twice(), link.sent_twice()), (0, 0));

    let next = image(2, "amd64", &[64 * MIB as usize]);
    link.source_wire().push(REPOSITORY, "v2", &next).await;
    let before = link.src.exchanges().len();
    link.sync().await.expect(0);
    link.assert_copied(&["v1", "v2"]).await;
    let exchanges = &link.src.exchanges()[before..];
    let mut reads = exchanges.iter().filter(|exchange| exchange.is("GET", "/blobs/"));
    assert!(reads.all(|exchange| exchange.range.is_none()), "{exchanges:?}");
}

#[tokio::test]
async fn heavy_a_wrong_answer_to_a_range_ends_their_use_and_costs_no_byte() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    let layer = link.layer();
    // A part that does not say which. The first read is the layer's, or else this waits in vain.
    let nonsense = Act::Answer(StatusCode::PARTIAL_CONTENT, None);
    link.src.add(Fault::every("GET", &layer, Act::ResponseRate(4 * RATE)));
    link.src.add(Fault::nth(2, "GET", &layer, nonsense));
    link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    assert_eq!((link.read_twice(), link.sent_twice()), (0, 0));
    let ranges = ranges(&link.src.exchanges(), &layer);
    assert_eq!(ranges, [(0, Some(4 * MIB - 1)), (4 * MIB, None)]);
}

#[tokio::test]
async fn heavy_a_connection_that_breaks_costs_its_own_part_alone() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    let layer = link.layer();
    link.src.add(Fault::every("GET", &layer, Act::ResponseRate(RATE)));
    for broken in [3, 6] {
        link.src
            .add(Fault::nth(broken, "GET", &layer, Act::CutResponse(MIB / 2)));
    }
    let output = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    // What was on its way; more only where a busy machine's destination stands still for seconds.
    assert!(link.read_twice() <= 8 * MIB, "{}", link.read_twice());
    assert_eq!(link.sent_twice(), 0);
    assert_eq!(link.dst.count("POST", "/uploads/"), 2, "one upload a blob");
    assert_eq!(only_run(&output)["failures"].as_array().map(Vec::len), Some(0));
}

#[tokio::test]
async fn heavy_killed_while_several_parts_are_read_it_goes_on_where_the_destination_stands() {
    let source = DockerRegistry::plain().await;
    let destination = Registry::start(Options::default()).await.expect("a registry");
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    let layer = link.layer();
    link.src.add(Fault::every("GET", &layer, Act::ResponseRate(RATE)));
    // The sixth stands still, and with it all that is behind it.
    let hold = Act::HoldResponse(MIB / 2, Gate::new());
    link.src.add(Fault::nth(6, "GET", &layer, hold));
    let mut first = link.start();
    link.src
        .wait_for("all others to be read", |all| {
            let held = all.iter().filter(|exchange| exchange.held).count();
            held == 1
                && under_way(all, &layer) == 1
                && all.iter().filter(|exchange| exchange.is("GET", &layer)).count() > 6
        })
        .await;
    let before: Vec<_> = ranges(&link.src.exchanges(), &layer);
    first.kill();
    link.src.heal();

    let second = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    assert_eq!(link.sent_twice(), 0);
    let resumed = resumed(&only_run(&second));
    assert!(
        before.iter().any(|(first, _)| *first > resumed),
        "{resumed}: {before:?}"
    );
    // From the checkpoint on, and what had come before its turn.
    assert!(link.read_twice() <= (8 + 8) * MIB, "{}", link.read_twice());
}

#[tokio::test]
async fn heavy_a_large_blob_of_a_layout_is_read_whole() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), 64 * MIB).await;
    let folder = link.home.home().join("layout");
    let layout = format!("oci:{}:v1", folder.display());
    let image = |url: &str| format!("{url}/{REPOSITORY}:v1");
    for (from, to) in [
        (image(&link.src.url()), layout.clone()),
        (layout, image(&link.dst.url())),
    ] {
        link.home.spawn(&["copy", &from, &to]).finish().await.expect(0);
    }
    link.assert_copied(&["v1"]).await;
    assert_eq!((link.read_twice(), link.sent_twice()), (0, 0));
}
