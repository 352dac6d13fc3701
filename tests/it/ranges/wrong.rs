//! Sources that answer ranges with other bytes than the blob has.

use super::{LAYER, ranges};
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::image;
use crate::support::link::{Link, MIB, REPOSITORY, only_run};
use crate::support::proxy::{Act, Fault};

/// Too small for several connections.
const SMALL: u64 = 8 * MIB;

#[tokio::test]
async fn heavy_a_source_whose_ranges_have_wrong_bytes_is_read_whole_and_its_blob_is_not_blamed() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    let rules = crate::support::link::rules(&link.src.url(), &link.dst.url());
    link.home.set_rules(&format!("{rules}    retry: {{ attempts: 1 }}\n"));
    link.src.add(Fault::every("GET", "/blobs/", Act::WrongRange));
    let output = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    let run = only_run(&output);
    assert_eq!(run["failures"].as_array().map(Vec::len), Some(0), "{run}");
    let first = ranges(&link.src.exchanges(), &link.layer());
    assert_eq!(
        first.iter().filter(|range| **range == (0, None)).count(),
        1,
        "{first:?}"
    );

    // That is remembered.
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
async fn a_read_that_goes_on_with_wrong_bytes_begins_anew() {
    for wrong in [Act::WrongRange, Act::UnsaidRange] {
        let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
        let link = Link::new(&source.url(), &destination.url(), SMALL).await;
        let layer = link.layer();
        let rules = crate::support::link::rules(&link.src.url(), &link.dst.url());
        link.home
            .set_rules(&format!("{rules}    retry: {{ attempts: 2, max_delay: 1s }}\n"));
        link.src.add(Fault::every("GET", &layer, wrong));
        // The third is the whole blob, which breaks off and goes on as well.
        for cut in [1, 3] {
            link.src.add(Fault::nth(cut, "GET", &layer, Act::CutResponse(3 * MIB)));
        }
        link.sync().await.expect(0);
        link.assert_copied(&["v1"]).await;
        let exchanges = link.src.exchanges();
        let mut reads = exchanges.iter().filter(|exchange| exchange.is("GET", &layer));
        assert!(reads.any(|exchange| exchange.range.is_some()), "{exchanges:?}");
    }
}

#[tokio::test]
async fn a_blob_that_is_damaged_at_the_source_is_blamed_also_where_parts_of_it_were_read() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), SMALL).await;
    let layer = link.layer();
    link.src.add(Fault::every("GET", &layer, Act::FlipResponse(MIB)));
    link.src.add(Fault::once("GET", &layer, Act::CutResponse(3 * MIB)));
    let output = link.sync().await.expect(1);
    let run = only_run(&output);
    assert_eq!(run["failures"][0]["kind"], "corrupt", "{run}");
    let message = run["failures"][0]["message"].as_str().expect("a message");
    assert!(message.contains("the source holds a damaged blob"), "{message}");
    link.src.heal();
    link.home.spawn(&["sync", "--format", "json"]).finish().await.expect(0);
    link.assert_copied(&["v1"]).await;
}
