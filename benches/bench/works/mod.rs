//! What is measured, a file a subject.

mod copies;
mod far;
mod faults;
mod killed;
mod layer;
mod million;
mod nothing;
mod passage;
mod standing;
mod two;

use crate::Outcome;
use crate::lab::Lab;
use crate::report::Section;

/// Each work's name on the command line, and what it is.
pub const WORKS: &[(&str, &str)] = &[
    ("w1", "W1: one layer of 1 GiB, first copy, distribution 2.8"),
    ("w1-3x", "W1 between two distribution 3 (REGISTRY3)"),
    ("w2", "W2: 20 repositories of 10 images that share layers, first copy"),
    ("w3", "W3: W2 again, nothing to do"),
    (
        "w4",
        "W4: one repository of 2,000 tags, 50 ms added to each request, nothing to do",
    ),
    ("w5", "W5: one changed tag among 200"),
    ("w6", "W6: kill -9 half-way in W1, and again"),
    ("w7", "W7: W2 with 1 % of the requests failing"),
    ("flip", "One byte of a blob changed on the way, once"),
    ("throttle", "429 with Retry-After: 2 on every 15th request"),
    (
        "flow",
        "One layer of 256 MiB, each connection capped at 10 MiB/s, 8 allowed",
    ),
    ("two", "W2 to two destinations"),
    ("start", "From the start of the program to its first request"),
    ("idle", "A daemon with 100 rules that has nothing to do"),
    ("plan", "A plan of 1,000,000 tags in 10,000 repositories"),
    ("proxy", "What the benchmark's own proxy takes"),
];

/// Does one work by its name.
pub async fn measure(lab: &Lab, id: &str) -> Outcome<Section> {
    match id {
        "w1" => layer::distribution_2(lab).await,
        "w1-3x" => layer::distribution_3(lab).await,
        "w2" => copies::first(lab).await,
        "w3" => nothing::again(lab).await,
        "w4" => far::many_tags(lab).await,
        "w5" => nothing::one_changed(lab).await,
        "w6" => killed::half_way(lab).await,
        "w7" => faults::failing(lab).await,
        "flip" => faults::flipped(lab).await,
        "throttle" => faults::throttled(lab).await,
        "flow" => far::capped_flow(lab).await,
        "two" => two::destinations(lab).await,
        "start" => standing::start(lab).await,
        "idle" => standing::idle(lab).await,
        "plan" => million::plan(lab).await,
        "proxy" => passage::proxy(lab).await,
        _ => Err(format!("no work is named {id}; --list names them").into()),
    }
}

/// The title of a work.
pub fn title(id: &str) -> &'static str {
    WORKS
        .iter()
        .find(|(name, _)| *name == id)
        .map_or("", |(_, title)| title)
}
