//! Ways that break, and registries that refuse.

use crate::Outcome;
use crate::corpus::{Corpus, MIB};
use crate::lab::{Lab, remove};
use crate::proxy::{Conditions, Proxy};
use crate::registry::{Family, Registry};
use crate::report::{Row, Run, Section, Spread};
use crate::tools::Tool;

const FAMILY: &Family = &Family::Distribution2;

/// A first copy through two proxies; how many requests they harmed is noted in the row.
async fn through(
    lab: &Lab,
    tool: &Tool,
    source: &Registry,
    corpus: &Corpus,
    conditions: [Conditions; 2],
    row: &mut Row,
) -> Outcome<Run> {
    let destination = lab.empty(FAMILY).await?;
    let [of_source, of_destination] = conditions;
    let src = Proxy::start(source.host(), of_source).await?;
    let dst = Proxy::start(destination.host(), of_destination).await?;
    let home = lab.home()?;
    let mut run = lab.run_through(tool, corpus, &src, &dst, &home).await?;
    run.found(lab.check(destination.host(), corpus).await?);
    row.count(&src, &dst);
    let injured = src.injured() + dst.injured();
    if injured > 0 {
        row.notes = vec![format!("{injured} requests made to fail in the last run")];
    }
    drop(destination);
    remove(&home);
    lab.settle();
    Ok(run)
}

pub async fn failing(lab: &Lab) -> Outcome<Section> {
    let corpus = super::copies::corpus(lab);
    let source = lab.filled(FAMILY, &corpus).await?;
    let mut rows = vec![Row::new("transship")];
    rows.extend(
        lab.tools
            .iter()
            .map(|tool| Row::new(&format!("{}, 1 % failing", tool.name))),
    );
    for round in 1..=lab.options.rounds() {
        let calm = || [Conditions::default(), Conditions::default()];
        let run = through(lab, &lab.ours(), &source, &corpus, calm(), &mut rows[0]).await?;
        run.log(round, &rows[0].tool);
        rows[0].runs.push(run);
        for (tool, row) in lab.tools.iter().zip(&mut rows[1..]) {
            let seed = 2 * round as u64;
            let failing = |seed| Conditions {
                failing: Some((10, seed)),
                ..Conditions::default()
            };
            let harmful = [failing(seed), failing(seed + 1)];
            let run = through(lab, tool, &source, &corpus, harmful, row).await?;
            run.log(round, &row.tool);
            row.runs.push(run);
        }
    }
    let mut section = Section::new("w7", super::title("w7"));
    section.rows = rows;
    let name = "transship, 1 % failing";
    let whole = section.row(name).is_some_and(Row::is_whole);
    section.budgets.push(crate::report::Budget {
        promise: "complete, exit status 0".to_owned(),
        measured: if whole { "every run" } else { "not every run" }.to_owned(),
        met: Some(whole),
    });
    let ratio: Option<Spread> = section
        .row(name)
        .zip(section.ours())
        .and_then(|(with, without)| with.ratio(without));
    section.at_most(
        &format!(
            "at most 1.25 × its own time without faults, here {}",
            ratio.map_or_else(String::new, Spread::text)
        ),
        ratio.map(|ratio| ratio.median),
        1.25,
    );
    section.remarks.push(
        "Of 1,000 requests to each side 10 fail: a third by a closed connection, a third by 503, a third by an answer that is lost \
         after the registry has done its work. Every row goes through the proxies."
            .to_owned(),
    );
    Ok(section)
}

pub async fn flipped(lab: &Lab) -> Outcome<Section> {
    let corpus = Corpus::shared(1, 5, lab.size(MIB, 100_000));
    let source = lab.filled(FAMILY, &corpus).await?;
    let (_, _, image) = corpus.first().ok_or("no image")?;
    let layer = image.layers.last().ok_or("no layer")?.digest.clone();
    let corrupt = Conditions {
        corrupt: Some(layer),
        ..Conditions::default()
    };
    let mut section = each(lab, "flip", &source, &corpus, [corrupt, Conditions::default()], 1).await?;
    section.remarks.push(
        "Five images of one repository; the first answer with a layer that one of them has has its first byte changed. One round."
            .to_owned(),
    );
    Ok(section)
}

pub async fn throttled(lab: &Lab) -> Outcome<Section> {
    let corpus = Corpus::shared(1, 20, lab.size(MIB, 100_000));
    let source = lab.filled(FAMILY, &corpus).await?;
    let throttle = || Conditions {
        throttle: Some(15),
        ..Conditions::default()
    };
    let rounds = lab.options.rounds();
    let mut section = each(lab, "throttle", &source, &corpus, [throttle(), throttle()], rounds).await?;
    let seconds = section.ours().and_then(Row::seconds).map(|seconds| seconds.median);
    section.at_most("at most 3.3 s", seconds, 3.3);
    section.remarks.push(
        "Twenty images of one repository, five layers of 1 MiB each, first copy; both sides throttle.".to_owned(),
    );
    Ok(section)
}

async fn each(
    lab: &Lab,
    id: &str,
    source: &Registry,
    corpus: &Corpus,
    conditions: [Conditions; 2],
    rounds: usize,
) -> Outcome<Section> {
    let mut section = Section::new(id, super::title(id));
    section.rows = lab.tools.iter().map(|tool| Row::new(&tool.name)).collect();
    for round in 1..=rounds {
        for (tool, row) in lab.tools.iter().zip(&mut section.rows) {
            let run = through(lab, tool, source, corpus, conditions.clone(), row).await?;
            run.log(round, &row.tool);
            row.runs.push(run);
        }
    }
    section.our_completeness();
    Ok(section)
}
