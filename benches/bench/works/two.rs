//! One source, two destinations.

use std::time::Duration;

use crate::Outcome;
use crate::corpus::{Corpus, MIB};
use crate::lab::{Lab, remove};
use crate::proxy::{Conditions, Proxy};
use crate::registry::{Family, Registry};
use crate::report::{Row, Run, Section};
use crate::tools::Task;

const FAMILY: &Family = &Family::Distribution2;
const NAMES: [&str; 4] = [
    "transship",
    "transship, two destinations",
    "transship, far source",
    "transship, far source, two destinations",
];

pub async fn destinations(lab: &Lab) -> Outcome<Section> {
    let corpus = super::copies::corpus(lab);
    let source = lab.filled(FAMILY, &corpus).await?;
    let mut rows: Vec<Row> = NAMES.iter().map(|name| Row::new(name)).collect();
    // 20 ms away, eight connections of 4 MiB/s: slower than what two registries on this machine can take.
    let far = Conditions {
        latency: Duration::from_millis(20),
        rate: Some(4 * MIB),
        flows: Some(8),
        ..Conditions::default()
    };
    for round in 1..=lab.options.rounds() {
        for (number, row) in rows.iter_mut().enumerate() {
            let conditions = if number < 2 { Conditions::default() } else { far.clone() };
            let run = copy(lab, &source, &corpus, 1 + number % 2, conditions, row).await?;
            run.log(round, &row.tool);
            row.runs.push(run);
            lab.settle();
        }
    }
    let mut section = Section::new("two", super::title("two"));
    section.rows = rows;
    for (one, two, what) in [(0, 1, "source on this machine"), (2, 3, "far source")] {
        let (one, two) = (&section.rows[one], &section.rows[two]);
        let whole = one.is_whole() && two.is_whole();
        let ratio = two.ratio(one);
        let read = |row: &Row| row.bytes.map(|bytes| bytes.from_source as f64);
        let again = read(two).zip(read(one)).map(|(two, one)| two / one).filter(|_| whole);
        let text = ratio.map_or_else(String::new, |ratio| format!(", here {}", ratio.text()));
        section.at_most(
            &format!("{what}: bytes read from the source ÷ those for one destination"),
            again,
            1.001,
        );
        section.at_most(
            &format!("{what}: at most 1.3 × the time of one destination{text}"),
            ratio.map(|ratio| ratio.median),
            1.3,
        );
    }
    section.remarks.push(
        "With all three registries on this machine, a second destination costs the processor what the first costs; the far source is \
         20 ms away over at most eight connections of 4 MiB/s each. MB to the destination are those of the first one. All rows go through \
         proxies."
            .to_owned(),
    );
    Ok(section)
}

async fn copy(
    lab: &Lab,
    source: &Registry,
    corpus: &Corpus,
    count: usize,
    conditions: Conditions,
    row: &mut Row,
) -> Outcome<Run> {
    let src = Proxy::start(source.host(), conditions).await?;
    let mut registries = Vec::new();
    let mut proxies = Vec::new();
    for _ in 0..count {
        let registry = lab.empty(FAMILY).await?;
        proxies.push(Proxy::start(registry.host(), Conditions::default()).await?);
        registries.push(registry);
    }
    let src_host = src.host();
    let hosts: Vec<String> = proxies.iter().map(Proxy::host).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let home = lab.home()?;
    let task = Task {
        corpus,
        source: &src_host,
        destinations: &hosts,
    };
    let mut run = lab.run(&lab.ours(), &task, &home).await?;
    for registry in &registries {
        run.found(lab.check(registry.host(), corpus).await?);
    }
    if let Some(first) = proxies.first() {
        row.count(&src, first);
    }
    remove(&home);
    Ok(run)
}
