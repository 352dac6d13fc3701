//! Registries that are far away: each request takes long, each connection is slow.

use std::time::Duration;

use crate::Outcome;
use crate::corpus::{Corpus, MIB};
use crate::lab::{Lab, remove};
use crate::proxy::{Conditions, Proxy};
use crate::registry::Family;
use crate::report::{Row, Section};
use crate::tools::Tool;

const FAMILY: &Family = &Family::Distribution2;

pub async fn many_tags(lab: &Lab) -> Outcome<Section> {
    let tags = lab.size(2000, 100);
    let corpus = Corpus::many_tags(tags);
    let source = lab.filled(FAMILY, &corpus).await?;
    let destination = lab.twin(FAMILY, &source).await?;
    let mut section = Section::new("w4", super::title("w4"));
    let mut tools = lab.tools.clone();
    if !lab.options.slow && !lab.options.quick {
        tools.retain(|tool| !tool.name.starts_with("skopeo"));
        section
            .remarks
            .push("skopeo is not measured without --slow: it takes minutes.".to_owned());
    }
    if lab.knows_key("trust_destination") {
        tools.push(lab.ours().with_rule_line("trust_destination", "trust_destination: 6h"));
    }
    let bare = Tool::bare_requests();
    tools.push(bare.clone());
    let far = Conditions {
        latency: Duration::from_millis(50),
        ..Conditions::default()
    };
    for tool in tools {
        let src = Proxy::start(source.host(), far.clone()).await?;
        let dst = Proxy::start(destination.host(), far.clone()).await?;
        let home = lab.home()?;
        let mut row = Row::new(&tool.name);
        // Peers take long, and what they take does not change: one round. Ours has one run before, to remember from.
        let rounds = if tool.is_transship() || tool == bare {
            lab.options.rounds()
        } else {
            1
        };
        if tool.is_transship() {
            lab.run_through(&tool, &corpus, &src, &dst, &home).await?;
        }
        for round in 1..=rounds {
            src.reset();
            dst.reset();
            let mut run = lab.run_through(&tool, &corpus, &src, &dst, &home).await?;
            run.found(lab.check(destination.host(), &corpus).await?);
            run.log(round, &row.tool);
            row.runs.push(run);
        }
        row.count(&src, &dst);
        section.rows.push(row);
    }
    section.our_completeness();
    let seconds = section.ours().and_then(Row::seconds).map(|seconds| seconds.median);
    section.at_most("at most 2.5 s, checking both sides", seconds, 2.5);
    section.our_requests(tags + 1, tags + 1);
    super::nothing::trusted_requests(&mut section, tags + 1, 1);
    proxy_share(&mut section);
    section
        .remarks
        .push("No tool here has a bulk listing to use: docker-registry has none.".to_owned());
    Ok(section)
}

pub async fn capped_flow(lab: &Lab) -> Outcome<Section> {
    let corpus = Corpus::single(lab.size(256, 16) * MIB);
    let source = lab.filled(FAMILY, &corpus).await?;
    let mut tools = lab.tools.clone();
    tools.push(Tool::curl());
    let narrow = Conditions {
        rate: Some(10 * MIB),
        flows: Some(8),
        ..Conditions::default()
    };
    let mut section = Section::new("flow", super::title("flow"));
    let mut rows: Vec<Row> = tools.iter().map(|tool| Row::new(&tool.name)).collect();
    for round in 1..=lab.options.rounds().min(3) {
        for (tool, row) in tools.iter().zip(&mut rows) {
            let destination = lab.empty(FAMILY).await?;
            let src = Proxy::start(source.host(), narrow.clone()).await?;
            let dst = Proxy::start(destination.host(), Conditions::default()).await?;
            let home = lab.home()?;
            let mut run = lab.run_through(tool, &corpus, &src, &dst, &home).await?;
            run.found(lab.check(destination.host(), &corpus).await?);
            run.log(round, &row.tool);
            row.runs.push(run);
            row.count(&src, &dst);
            remove(&home);
        }
    }
    section.rows = rows;
    section.our_completeness();
    let ours = section.ours().zip(section.row("curl pipe"));
    let faster = ours.and_then(|(ours, curl)| curl.ratio(ours));
    section.at_least(
        "at least 5 × the speed of one stream (curl pipe)",
        faster.map(|faster| faster.median),
        5.0,
    );
    section.our_memory(40.0);
    section
        .remarks
        .push("At most three rounds, as one stream alone takes 26 s.".to_owned());
    proxy_share(&mut section);
    Ok(section)
}

/// Says what the proxies themselves took, as they run on the same processor.
pub fn proxy_share(section: &mut Section) {
    let shares = section.rows.iter().filter_map(|row| {
        let cpu = row.runs.iter().map(|run| run.proxy_cpu_seconds).fold(0.0, f64::max);
        (!row.runs.is_empty()).then(|| format!("{} {cpu:.2}", row.tool))
    });
    let shares: Vec<String> = shares.collect();
    section.remarks.push(format!(
        "CPU seconds of the proxies themselves, at most: {}.",
        shares.join(", ")
    ));
}
