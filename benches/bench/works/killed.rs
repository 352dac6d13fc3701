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
    /// What the tool said of a spool that it could not use.
    warning: Option<String>,
}

/// Where a layer comes from and where it goes.
struct Scene<'a> {
    /// Behind the tool's name in the row's.
    name: &'a str,
    source: &'a Registry,
    corpus: &'a Corpus,
    way: Conditions,
    destination: Family,
    in_tree: bool,
}

impl Scene<'_> {
    async fn destination(&self, lab: &Lab) -> Outcome<Destination> {
        if self.in_tree {
            return Ok(Destination::InTree(Demo::start(Options::default()).await?));
        }
        Ok(Destination::Process(lab.empty(&self.destination).await?))
    }
}

pub async fn half_way(lab: &Lab) -> Outcome<Section> {
    let corpus = Corpus::single(lab.size(1024, 64) * MIB);
    let source = lab.filled(&Family::Distribution2, &corpus).await?;
    let mut section = Section::new("w6", super::title("w6"));
    let scene = |name, destination, in_tree| Scene {
        name,
        source: &source,
        corpus: &corpus,
        way: Conditions::default(),
        destination,
        in_tree,
    };
    for tool in &lab.tools {
        attempts(lab, &mut section, tool, &scene("to 2.8", Family::Distribution2, false)).await?;
    }
    if let Some(path) = lab.registry3.clone() {
        let scene = scene("to REGISTRY3", Family::Distribution3(path), false);
        let over = attempts(lab, &mut section, &lab.ours(), &scene).await?;
        promise(&mut section, scene.name, over);
    }
    let scene = scene("to in-tree", Family::Distribution2, true);
    let over = attempts(lab, &mut section, &lab.ours(), &scene).await?;
    promise(&mut section, scene.name, over);
    spooled(lab, &mut section).await?;
    section.remarks.push(format!(
        "MB are those of the second run alone, of the round that moved most; the layer has {} MB. The floor is what had not \
         passed at the kill. Seconds are those of the second run.",
        megabytes(corpus.bytes())
    ));
    section.remarks.push(
        "Destinations: 2.8 is docker-registry, REGISTRY3 the binary named so, in-tree the registry in this program with the habits of \
         distribution 3 (blobs in memory)."
            .to_owned(),
    );
    Ok(section)
}

/// A slow source to a destination that loses what a broken request brought: what the spool is for.
async fn spooled(lab: &Lab, section: &mut Section) -> Outcome {
    let corpus = Corpus::single(lab.size(256, 48) * MIB);
    let source = lab.filled(&Family::Distribution2, &corpus).await?;
    let scene = Scene {
        name: "slow source to 2.8",
        source: &source,
        corpus: &corpus,
        way: Conditions {
            rate: Some(20 * MIB),
            flows: Some(1),
            ..Conditions::default()
        },
        destination: Family::Distribution2,
        in_tree: false,
    };
    section.remarks.push(format!(
        "The slow source gives 20 MiB/s over one connection; its layer has {} MB.",
        megabytes(corpus.bytes())
    ));
    attempts(lab, section, &lab.ours(), &scene).await?;
    let promised = "slow source, spooled: at most 16 MiB over the floor at the source (what was in flight)";
    if !lab.knows_key("spool") {
        section.at_most(promised, None, 16.0);
        return Ok(());
    }
    let tool = lab
        .ours()
        .with_top_line("spool", "spool: { path: \"$HOME/spool\", max_size: 4GiB }");
    let over = attempts(lab, section, &tool, &scene).await?;
    section.at_most(promised, Some(over.source), 16.0);
    Ok(())
}

fn promise(section: &mut Section, name: &str, over: Over) {
    section.at_most(
        &format!("{name}: at most 16 MiB over the floor at the destination"),
        Some(over.destination),
        16.0,
    );
    section.at_most(
        &format!("{name}: at most 16 MiB read beyond what the destination lacked"),
        Some(over.beyond_destination),
        16.0,
    );
}

/// MiB that second runs moved beyond what had not passed before, the most of all rounds.
#[derive(Clone, Copy, Default)]
struct Over {
    source: f64,
    destination: f64,
    /// What the source gave beyond what had not passed to the destination. Between the two, megabytes are in the buffers of sockets and of the
    /// proxies, which nobody can know of after a kill.
    beyond_destination: f64,
}

async fn attempts(lab: &Lab, section: &mut Section, tool: &Tool, scene: &Scene<'_>) -> Outcome<Over> {
    let mut row = Row::new(&format!("{}, {}", tool.name, scene.name));
    let mut most = Over::default();
    let mut moved_most = 0;
    for round in 1..=lab.options.rounds().min(3) {
        let destination = scene.destination(lab).await?;
        let moved = attempt(lab, tool, scene, &destination.host(), &mut row, round).await?;
        let size = scene.corpus.bytes();
        let over = |first: u64, second: u64| (second.saturating_sub(size.saturating_sub(first))) as f64 / MIB as f64;
        let now = Over {
            source: over(moved.first.from_source, moved.second.from_source),
            destination: over(moved.first.to_destination, moved.second.to_destination),
            beyond_destination: over(moved.first.to_destination, moved.second.from_source),
        };
        most.source = most.source.max(now.source);
        most.destination = most.destination.max(now.destination);
        most.beyond_destination = most.beyond_destination.max(now.beyond_destination);
        let sum = moved.second.from_source + moved.second.to_destination;
        if sum >= moved_most {
            moved_most = sum;
            row.bytes = Some(moved.second);
            row.notes = vec![format!(
                "{} / {} MB had passed at the kill, {:.0} / {:.0} MiB over the floor",
                megabytes(moved.first.from_source),
                megabytes(moved.first.to_destination),
                now.source,
                now.destination
            )];
        }
        row.notes.extend(moved.warning);
        drop(destination);
        lab.settle();
    }
    section.rows.push(row);
    Ok(most)
}

async fn attempt(
    lab: &Lab,
    tool: &Tool,
    scene: &Scene<'_>,
    destination: &str,
    row: &mut Row,
    round: usize,
) -> Outcome<Moved> {
    let corpus = scene.corpus;
    let src = Proxy::start(scene.source.host(), scene.way.clone()).await?;
    let dst = Proxy::start(destination, Conditions::default()).await?;
    let (src_host, dst_host) = (src.host(), dst.host());
    let home = lab.home()?;
    let task = Task {
        corpus,
        source: &src_host,
        destinations: &[&dst_host],
    };
    let half = corpus.bytes() / 2;
    let mut warning = None;
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
    let said = std::fs::read_to_string(home.join("stderr")).unwrap_or_default();
    // Such as a disk that is too full for it.
    if let Some(line) = said
        .lines()
        .find(|line| line.contains("WARN") && line.contains("spool"))
    {
        run.last_words = Some(line.to_owned());
        warning = Some(line.chars().take(200).collect());
    }
    run.log(round, &row.tool);
    row.runs.push(run);
    row.count(&src, &dst);
    let second = Bytes {
        from_source: src.received(),
        to_destination: dst.sent(),
    };
    remove(&home);
    Ok(Moved { first, second, warning })
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
