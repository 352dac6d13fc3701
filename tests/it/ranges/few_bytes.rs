//! Sources whose answers bring next to nothing.

use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::link::{Link, MIB, only_run};
use crate::support::proxy::{Act, Fault};

use super::LAYER;

/// A link whose rule gives up after two attempts.
async fn impatient(source: &DockerRegistry, destination: &DockerRegistry, size: u64) -> Link {
    let mut link = Link::new(&source.url(), &destination.url(), size).await;
    let rules = crate::support::link::rules(&link.src.url(), &link.dst.url());
    link.home = Transship::new(&format!("{rules}    retry: {{ attempts: 2, max_delay: 1s }}\n"));
    link
}

/// The reads of the layer are few, and the run says what came.
async fn assert_given_up(link: &Link, words: &str) {
    let output = link.sync().await.expect(1);
    let failure = only_run(&output)["failures"][0].clone();
    let message = failure["message"].as_str().unwrap_or_default();
    assert!(message.contains(words), "{failure}");
    // Two attempts of a transfer with two reads each, and what is asked for ahead.
    let reads = link.src.count("GET", &link.layer());
    assert!((2..=24).contains(&reads), "{reads} reads");
}

#[tokio::test]
async fn a_source_that_goes_on_by_single_bytes_is_given_up() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = impatient(&source, &destination, 5 * MIB).await;
    let layer = link.layer();
    // What is asked for as a whole breaks off, and of the rest comes next to nothing.
    link.src.add(Fault::every("GET", &layer, Act::CutResponse(MIB)));
    link.src.add(Fault::every("GET", &layer, Act::ShortRange(1)));
    assert_given_up(&link, "cut").await;
}

#[tokio::test]
async fn heavy_a_source_that_gives_one_byte_of_each_range_is_given_up() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = impatient(&source, &destination, LAYER).await;
    link.src.add(Fault::every("GET", &link.layer(), Act::ShortRange(1)));
    assert_given_up(&link, "gave 1 bytes of the blob").await;
}

#[tokio::test]
async fn heavy_a_source_that_gives_less_than_asked_for_but_enough_is_read_to_the_end() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = impatient(&source, &destination, LAYER).await;
    let layer = link.layer();
    link.src.add(Fault::every("GET", &layer, Act::ShortRange(MIB)));
    link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    assert_eq!((link.read_twice(), link.sent_twice()), (0, 0));
}
