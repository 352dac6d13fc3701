//! W2: many images that share most of their layers.

use crate::Outcome;
use crate::corpus::{Corpus, MIB};
use crate::lab::Lab;
use crate::registry::Family;
use crate::report::Section;

/// The images of W2, W3, W5, W7 and of two destinations.
pub fn corpus(lab: &Lab) -> Corpus {
    Corpus::shared(lab.size(20, 3), lab.size(10, 4), lab.size(MIB, 100_000))
}

pub async fn first(lab: &Lab) -> Outcome<Section> {
    let corpus = corpus(lab);
    let source = lab.filled(&Family::Distribution2, &corpus).await?;
    let mut section = Section::new("w2", super::title("w2"));
    section.rows = lab
        .first_copies(&Family::Distribution2, &source, &corpus, &lab.tools, async |_| Ok(None))
        .await?;
    section.our_completeness();
    let ours = section.ours().zip(section.fastest_peer());
    let faster = ours.and_then(|(ours, peer)| Some((peer.ratio(ours)?, peer.tool.clone())));
    let (promise, measured) = match &faster {
        Some((ratio, peer)) => (
            format!(
                "at least 1.15 × faster than the fastest peer ({peer}), here {}",
                ratio.text()
            ),
            Some(ratio.median),
        ),
        None => ("at least 1.15 × faster than the fastest peer".to_owned(), None),
    };
    section.at_least(&promise, measured, 1.15);
    section.our_requests(720, 1250);
    let bytes = section.ours().and_then(|row| row.bytes);
    let manifests: usize = corpus
        .repositories
        .iter()
        .flat_map(|(_, images)| images)
        .map(|(_, image)| image.manifest.len())
        .sum();
    let floor = corpus.bytes() + manifests as u64;
    section.at_most(
        "bytes to the destination beyond blobs and manifests, each once: none",
        bytes.map(|bytes| bytes.to_destination.saturating_sub(floor) as f64),
        0.0,
    );
    section.our_memory(40.0);
    Ok(section)
}
