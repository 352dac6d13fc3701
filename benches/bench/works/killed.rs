//! W6: a tool that is killed half-way through a large layer, and started again.

use std::time::{Duration, Instant};

use transship::demo::registry::Registry as Demo;
use transship::demo::registry::{Options, Running as InTree};

use crate::Outcome;
use crate::corpus::{Corpus, MIB};
use crate::lab::{Lab, as_run, remove};
use crate::proxy::{Conditions, Proxy};
use crate::registry::{Family, Registry};
use crate::report::{Bytes, Row, Section, megabytes};
use crate::tools::{Task, Tool};

/// Where the layer goes.
enum Destination {
    Process(Registry),
    InTree(InTree),
}

impl Destination {
    fn host(&self) -> String {
        match self {
            Self::Process(registry) => registry.host().to_owned(),
            Self::InTree(registry) => registry.addr().to_string(),
        }
    }
}

/// What one attempt moved.
struct Moved {
    /// Before the kill and in the second run.
    first: Bytes,
    second: Bytes,
}

pub async fn half_way(lab: &Lab) -> Outcome<Section> {
    let corpus = Corpus::single(lab.size(1024, 64) * MIB);
    let source = lab.filled(&Family::Distribution2, &corpus).await?;
    let mut section = Section::new("w6", super::title("w6"));
    let mut tools = lab.tools.clone();
    if lab.knows_key("spool") {
        tools.push(
            lab.ours()
                .with_top_line("spool", "spool: { path: \"$HOME/spool\", max_size: 4GiB }"),
        );
    }
    for tool in &tools {
        attempts(lab, &mut section, tool, &source, &corpus, "2.8").await?;
    }
    if lab.registry3.is_some() {
        attempts(lab, &mut section, &lab.ours(), &source, &corpus, "REGISTRY3").await?;
    }
    attempts(lab, &mut section, &lab.ours(), &source, &corpus, "in-tree").await?;
    section.remarks.push(format!(
        "MB are those of the second run alone, of the round that moved most; the layer has {} MB. The floor is what had not passed at \
         the kill. Seconds are those of the second run.",
        megabytes(corpus.bytes())
    ));
    section.remarks.push(
        "Destinations: 2.8 is docker-registry, REGISTRY3 the binary named so, in-tree the registry in this program with the habits of \
         distribution 3 (blobs in memory)."
            .to_owned(),
    );
    Ok(section)
}

async fn attempts(
    lab: &Lab,
    section: &mut Section,
    tool: &Tool,
    source: &Registry,
    corpus: &Corpus,
    family: &str,
) -> Outcome {
    let mut row = Row::new(&format!("{}, to {family}", tool.name));
    let mut over_source: u64 = 0;
    let mut over_destination: u64 = 0;
    for round in 1..=lab.options.rounds().min(3) {
        let destination = match (family, &lab.registry3) {
            ("REGISTRY3", Some(path)) => Destination::Process(lab.empty(&Family::Distribution3(path.clone())).await?),
            ("in-tree", _) => Destination::InTree(Demo::start(Options::default()).await?),
            _ => Destination::Process(lab.empty(&Family::Distribution2).await?),
        };
        let moved = attempt(lab, tool, source, &destination.host(), corpus, &mut row, round).await?;
        let size = corpus.bytes();
        let over = |first: u64, second: u64| second.saturating_sub(size.saturating_sub(first));
        over_source = over_source.max(over(moved.first.from_source, moved.second.from_source));
        over_destination = over_destination.max(over(moved.first.to_destination, moved.second.to_destination));
        let most = row.bytes.map_or(0, |bytes| bytes.from_source + bytes.to_destination);
        if moved.second.from_source + moved.second.to_destination >= most {
            row.bytes = Some(moved.second);
            row.notes = vec![format!(
                "{} / {} MB had passed at the kill",
                megabytes(moved.first.from_source),
                megabytes(moved.first.to_destination)
            )];
        }
        lab.settle();
    }
    let mebibytes = |bytes: u64| bytes as f64 / MIB as f64;
    let name = row.tool.clone();
    if tool.is_transship() && family != "2.8" {
        section.at_most(
            &format!("{name}: at most 16 MiB over the floor at the destination"),
            Some(mebibytes(over_destination)),
            16.0,
        );
        section.at_most(
            &format!("{name}: at most 16 MiB over the floor at the source"),
            Some(mebibytes(over_source)),
            16.0,
        );
    } else if name.contains("spool") {
        // What was in flight when it was killed is in no spool.
        section.at_most(
            &format!("{name}: the source is not read twice (MiB over the floor, 16 for what was in flight)"),
            Some(mebibytes(over_source)),
            16.0,
        );
    }
    section.rows.push(row);
    Ok(())
}

async fn attempt(
    lab: &Lab,
    tool: &Tool,
    source: &Registry,
    destination: &str,
    corpus: &Corpus,
    row: &mut Row,
    round: usize,
) -> Outcome<Moved> {
    let src = Proxy::start(source.host(), Conditions::default()).await?;
    let dst = Proxy::start(destination, Conditions::default()).await?;
    let (src_host, dst_host) = (src.host(), dst.host());
    let home = lab.home()?;
    let task = Task {
        corpus,
        source: &src_host,
        destinations: &[&dst_host],
    };
    let half = corpus.bytes() / 2;
    let mut running = tool.prepare(&task, &home)?.start()?;
    while dst.sent() < half {
        if !running.is_running() {
            let finished = running.finish().await?;
            let mut run = as_run(&finished, 0.0);
            run.fault("ended before it could be killed".to_owned());
            row.runs.push(run);
            return Err(format!("{} ended before half of the layer had passed", tool.name).into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    running.kill()?;
    running.finish().await?;
    still(&src, &dst).await;
    let first = Bytes {
        from_source: src.received(),
        to_destination: dst.sent(),
    };
    src.reset();
    dst.reset();
    let mut run = lab.run(tool, &task, &home).await?;
    run.found(lab.check(destination, corpus).await?);
    run.log(round, &row.tool);
    row.runs.push(run);
    row.count(&src, &dst);
    let second = Bytes {
        from_source: src.received(),
        to_destination: dst.sent(),
    };
    remove(&home);
    Ok(Moved { first, second })
}

/// Waits until nothing moves any more: what was in the sockets when a tool was killed still passes.
async fn still(src: &Proxy, dst: &Proxy) {
    let mut last = (src.received(), dst.sent());
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_millis(300) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = (src.received(), dst.sent());
        if now != last {
            last = now;
            since = Instant::now();
        }
    }
}
