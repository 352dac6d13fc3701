//! What the program costs before it works, and while it has nothing to do.

use std::fmt::Write as _;
use std::time::Duration;

use crate::Outcome;
use crate::corpus::Corpus;
use crate::lab::{Lab, remove};
use crate::process::{self, Invocation};
use crate::proxy::{Conditions, Proxy};
use crate::registry::Family;
use crate::report::{Row, Run, Section, Spread};
use crate::tools::Task;

/// Rules of the idle daemon.
const RULES: usize = 100;

pub async fn start(lab: &Lab) -> Outcome<Section> {
    let corpus = Corpus::single(1000);
    let source = lab.filled(&Family::Distribution2, &corpus).await?;
    let destination = lab.twin(&Family::Distribution2, &source).await?;
    let mut section = Section::new("start", super::title("start"));
    section.rows = lab.tools.iter().map(|tool| Row::new(&tool.name)).collect();
    for round in 1..=lab.options.rounds() * 4 {
        for (tool, row) in lab.tools.iter().zip(&mut section.rows) {
            let src = Proxy::start(source.host(), Conditions::default()).await?;
            let dst = Proxy::start(destination.host(), Conditions::default()).await?;
            let (src_host, dst_host) = (src.host(), dst.host());
            let home = lab.home()?;
            let task = Task {
                corpus: &corpus,
                source: &src_host,
                destinations: &[&dst_host],
            };
            let running = tool.prepare(&task, &home)?.start()?;
            let started = running.started();
            let finished = running.finish().await?;
            let first = [&src, &dst].into_iter().filter_map(Proxy::first_request).min();
            let mut run = crate::lab::as_run(&finished, 0.0);
            match first {
                Some(first) => run.seconds = (first - started).as_secs_f64(),
                None => run.fault("no request came".to_owned()),
            }
            run.log(round, &row.tool);
            row.runs.push(run);
            remove(&home);
        }
    }
    let seconds = section.ours().and_then(Row::seconds);
    let text = seconds.map_or_else(String::new, |seconds| {
        format!(
            ", here {:.0} ms ({:.0}–{:.0})",
            seconds.median * 1000.0,
            seconds.least * 1000.0,
            seconds.most * 1000.0
        )
    });
    section.at_most(
        &format!("at most 50 ms{text}"),
        seconds.map(|seconds| seconds.median * 1000.0),
        50.0,
    );
    section.remarks.push(
        "Seconds until the first request came; CPU and memory are of the whole run. The state is new each time."
            .to_owned(),
    );
    Ok(section)
}

pub async fn idle(lab: &Lab) -> Outcome<Section> {
    let home = lab.home()?;
    let rules = home.join("rules.yaml");
    // Nobody listens on port 9 (discard), and nothing is due before New Year.
    let mut text = String::from(
        "version: 1\nregistries:\n  src: { url: \"http://127.0.0.1:9\" }\n  dst: { url: \"http://localhost:9\" }\nrules:\n",
    );
    for number in 0..RULES {
        writeln!(
            text,
            "  - {{ name: rule-{number}, source: src, destinations: [dst], repositories: [app-{number}], schedule: \"0 0 1 1 *\" }}"
        )?;
    }
    std::fs::write(&rules, text)?;
    let daemon = Invocation::new(lab.ours().program(), &home).arguments([
        "--rules".to_owned(),
        rules.display().to_string(),
        "--state".to_owned(),
        format!("sqlite:{}", home.join("transship.db").display()),
        "daemon".to_owned(),
    ]);
    let mut running = daemon.start()?;
    let (settle, watch) = (lab.size(10, 2), lab.size(20, 4));
    tokio::time::sleep(Duration::from_secs(settle)).await;
    let pid = running.id();
    if !running.is_running() {
        let finished = running.finish().await?;
        return Err(format!("the daemon ended: {}", process::last_words(&finished.stderr)).into());
    }
    let resident = process::memory(pid, "VmRSS");
    let before = process::wakeups(pid)?;
    tokio::time::sleep(Duration::from_secs(watch)).await;
    let wakeups = process::wakeups(pid)? - before;
    running.kill()?;
    let finished = running.finish().await?;
    let mut row = Row::new("transship");
    row.runs.push(Run {
        seconds: finished.seconds,
        cpu_seconds: finished.cpu_seconds,
        resident_bytes: resident,
        proxy_cpu_seconds: 0.0,
        fault: None,
        last_words: None,
    });
    let mut section = Section::new("idle", super::title("idle"));
    let mebibytes = row.resident().map(|spread: Spread| spread.median);
    section.rows.push(row);
    section.at_most("at most 30 MiB resident", mebibytes, 30.0);
    // The scheduler looks at the clock every 60 s; a bound below says that nothing polls.
    section.at_most(
        &format!("no wake-ups but its timers: fewer than 1 a second over {watch} s"),
        Some(wakeups as f64 / watch as f64),
        1.0,
    );
    section.remarks.push(format!(
        "Resident after {settle} s; {wakeups} wake-ups of all threads (voluntary context switches) over the {watch} s after that."
    ));
    remove(&home);
    Ok(section)
}
