//! W3 and W5: where both sides are in step, or nearly.

use std::path::PathBuf;

use crate::Outcome;
use crate::corpus::{Blob, Corpus, Image, MIB};
use crate::lab::Lab;
use crate::proxy::{Conditions, Proxy};
use crate::registry::{Family, Registry};
use crate::report::{Row, Section};
use crate::tools::{Task, Tool};
use crate::wire::Wire;

const FAMILY: &Family = &Family::Distribution2;

/// A tool with a destination of its own that is in step, and the home in which it has seen that.
struct Settled {
    tool: Tool,
    destination: Registry,
    home: PathBuf,
    row: Row,
}

/// Every tool, settled: each has run once before anything is measured.
async fn settle(lab: &Lab, source: &Registry, corpus: &Corpus, tools: &[Tool]) -> Outcome<Vec<Settled>> {
    let mut settled = Vec::new();
    for tool in tools {
        let destination = lab.twin(FAMILY, source).await?;
        let home = lab.home()?;
        let destinations = [destination.host()];
        let task = Task {
            corpus,
            source: source.host(),
            destinations: &destinations,
        };
        let mut row = Row::new(&tool.name);
        if let Some(fault) = lab.run(tool, &task, &home).await?.fault {
            row.notes.push(format!("the run before: {fault}"));
        }
        settled.push(Settled {
            tool: tool.clone(),
            destination,
            home,
            row,
        });
    }
    Ok(settled)
}

fn tools(lab: &Lab) -> Vec<Tool> {
    let mut tools = lab.tools.clone();
    if lab.knows_key("trust_destination") {
        tools.push(lab.ours().with_rule_line("trust_destination", "trust_destination: 6h"));
    }
    tools
}

/// A round: every tool once.
async fn round(lab: &Lab, number: usize, source: &Registry, corpus: &Corpus, settled: &mut [Settled]) -> Outcome {
    for one in settled {
        let destinations = [one.destination.host()];
        let task = Task {
            corpus,
            source: source.host(),
            destinations: &destinations,
        };
        let mut run = lab.run(&one.tool, &task, &one.home).await?;
        run.found(lab.check(one.destination.host(), corpus).await?);
        run.log(number, &one.row.tool);
        one.row.runs.push(run);
    }
    Ok(())
}

/// Counts the requests of one more run each. What a tool remembers, it remembers of an address: one run before goes through the
/// same proxies. `change` happens between the two.
async fn count(
    lab: &Lab,
    source: &Registry,
    corpus: &mut Corpus,
    settled: &mut [Settled],
    change: impl AsyncFnOnce(&mut Corpus) -> Outcome,
) -> Outcome {
    let mut ways = Vec::new();
    for one in settled.iter() {
        let src = Proxy::start(source.host(), Conditions::default()).await?;
        let dst = Proxy::start(one.destination.host(), Conditions::default()).await?;
        let home = lab.home()?;
        lab.run_through(&one.tool, corpus, &src, &dst, &home).await?;
        ways.push((src, dst, home));
    }
    change(corpus).await?;
    for (one, (src, dst, home)) in settled.iter_mut().zip(&ways) {
        src.reset();
        dst.reset();
        lab.run_through(&one.tool, corpus, src, dst, home).await?;
        one.row.count(src, dst);
    }
    Ok(())
}

pub async fn again(lab: &Lab) -> Outcome<Section> {
    let mut corpus = super::copies::corpus(lab);
    let source = lab.filled(FAMILY, &corpus).await?;
    let mut tools = tools(lab);
    tools.push(Tool::bare_requests());
    let mut settled = settle(lab, &source, &corpus, &tools).await?;
    for number in 1..=lab.options.rounds() {
        round(lab, number, &source, &corpus, &mut settled).await?;
    }
    count(lab, &source, &mut corpus, &mut settled, async |_| Ok(())).await?;
    let mut section = Section::new("w3", super::title("w3"));
    section.rows = settled.into_iter().map(|one| one.row).collect();
    section.our_completeness();
    let seconds = section.ours().and_then(Row::seconds).map(|seconds| seconds.median);
    section.at_most("at most 0.25 s", seconds, 0.25);
    section.our_requests(220, 220);
    trusted_requests(&mut section, 220, 20);
    Ok(section)
}

/// Promises the requests of the row that trusts the destination, where there is one.
pub fn trusted_requests(section: &mut Section, source: u64, destination: u64) {
    let row = section.row("transship, trust_destination");
    let requests = row.and_then(|row| row.requests.clone());
    let promise = format!("at most {source} / {destination} requests where the destination is remembered");
    section.budgets.push(crate::report::Budget {
        promise,
        measured: requests.as_ref().map_or_else(
            || "not measured: the rules know no trust_destination".to_owned(),
            |requests| format!("{} / {}", requests.source, requests.destination),
        ),
        met: requests.map(|requests| requests.source <= source && requests.destination <= destination),
    });
}

pub async fn one_changed(lab: &Lab) -> Outcome<Section> {
    let mut corpus = super::copies::corpus(lab);
    let source = lab.filled(FAMILY, &corpus).await?;
    let mut settled = settle(lab, &source, &corpus, &tools(lab)).await?;
    let wire = Wire::new(source.host())?;
    for number in 1..=lab.options.rounds() {
        change(&mut corpus, number as u64, &wire).await?;
        round(lab, number, &source, &corpus, &mut settled).await?;
    }
    let changed = async |corpus: &mut Corpus| change(corpus, 1000, &wire).await;
    count(lab, &source, &mut corpus, &mut settled, changed).await?;
    let mut section = Section::new("w5", super::title("w5"));
    section.rows = settled.into_iter().map(|one| one.row).collect();
    section.our_completeness();
    let seconds = section.ours().and_then(Row::seconds).map(|seconds| seconds.median);
    section.at_most("at most 0.3 s", seconds, 0.3);
    Ok(section)
}

/// Moves one tag to an image with one new layer.
async fn change(corpus: &mut Corpus, round: u64, wire: &Wire) -> Outcome {
    let count = corpus.repositories.len();
    let (name, images) = &mut corpus.repositories[usize::try_from(round)? % count];
    let (tag, image) = images.first_mut().ok_or("a repository without tags")?;
    let mut layers = image.layers.clone();
    layers.pop();
    layers.push(Blob::layer(900_000 + round, MIB));
    *image = Image::new(layers, &format!("changed {round}"));
    wire.push_image(name, tag, image).await
}
