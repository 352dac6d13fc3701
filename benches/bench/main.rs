//! Measures transship beside other tools, on one machine, in one run. `./scripts/bench` starts it; docs/performance.md says
//! what is measured and what came of it.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tables and progress are for people"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the measuring program has a clock, tasks and a client of its own"
)]

mod corpus;
mod lab;
mod machine;
mod options;
mod process;
mod proxy;
mod registry;
mod report;
mod tools;
mod wire;
mod works;

use std::path::{Path, PathBuf};

use clap::Parser as _;
use serde_json::json;

use lab::Lab;
use options::Options;
use report::Section;

/// What a step gives, or why it could not.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome {
    let options = Options::parse();
    if options.list {
        for (id, title) in works::WORKS {
            println!("{id:<10} {title}");
        }
        return Ok(());
    }
    for only in &options.only {
        if !works::WORKS.iter().any(|(id, _)| id.eq_ignore_ascii_case(only)) {
            return Err(format!("no work is named {only}; --list names them").into());
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    let storage = options.storage.clone().unwrap_or_else(|| folder.clone());
    let out = options.out.clone().unwrap_or(folder);
    std::fs::create_dir_all(&out)?;
    let ours = match &options.binary {
        Some(path) => path.canonicalize()?,
        None => PathBuf::from(env!("CARGO_BIN_EXE_transship")),
    };
    if !tools::on_path("docker-registry") {
        return Err("docker-registry is not installed; ./scripts/bench installs it".into());
    }
    let found = tools::find(&ours);
    let skipped = found.skipped.clone();
    for line in &skipped {
        eprintln!("{line}");
    }
    let lab = Lab::new(options, found, &storage)?;
    let machine = machine::describe(&lab);
    // The lab is dropped in every case: registries are ended, folders removed.
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let interrupted = "interrupted; what was measured before is written";
    let ended = tokio::select! {
        done = measure(&lab, &machine, &skipped, &out) => done,
        _ = tokio::signal::ctrl_c() => Err(interrupted.into()),
        _ = terminated.recv() => Err(interrupted.into()),
    };
    process::stop_all();
    drop(lab);
    ended
}

async fn measure(lab: &Lab, machine: &serde_json::Value, skipped: &[String], out: &Path) -> Outcome {
    let mut sections = Vec::new();
    for (id, title) in works::WORKS.iter().filter(|(id, _)| lab.options.wants(id)) {
        eprintln!("{title}");
        let section = match works::measure(lab, id).await {
            Ok(section) => section,
            // One work that cannot be done must not take the others away.
            Err(error) => Section::not_measured(id, title, &error.to_string()),
        };
        println!("{}", section.markdown());
        sections.push(section);
        // After each work, so that an end in the middle leaves what was measured.
        write(lab, machine, skipped, &sections, out)?;
    }
    println!("{}", report::promises(&sections));
    eprintln!("written: {} and result.md beside it", out.join("result.json").display());
    Ok(())
}

fn write(lab: &Lab, machine: &serde_json::Value, skipped: &[String], sections: &[Section], out: &Path) -> Outcome {
    let document = json!({
        "schema_version": 1,
        "machine": machine,
        "rounds": lab.options.rounds(),
        "quick": lab.options.quick,
        "skipped": skipped,
        "works": sections,
    });
    std::fs::write(out.join("result.json"), serde_json::to_string_pretty(&document)? + "\n")?;
    let mut text = machine::markdown(machine);
    text.push_str(&format!(
        "\nMedian of {} rounds (least–most).{}\n\n",
        lab.options.rounds(),
        if lab.options.quick {
            " **Small data: these numbers say nothing.**"
        } else {
            ""
        }
    ));
    for line in skipped {
        text.push_str(&format!("- {line}\n"));
    }
    if !skipped.is_empty() {
        text.push('\n');
    }
    text.push_str("### Promises\n\n");
    text.push_str(&report::promises(sections));
    text.push('\n');
    for section in sections {
        text.push_str(&section.markdown());
    }
    std::fs::write(out.join("result.md"), &text)?;
    if let Some(file) = &lab.options.markdown {
        publish(file, &text)?;
    }
    Ok(())
}

/// Puts the tables into a document between its two marks, or makes a file of them.
fn publish(file: &Path, tables: &str) -> Outcome {
    const MARKS: [&str; 2] = ["<!-- results: begin -->", "<!-- results: end -->"];
    let document = std::fs::read_to_string(file).unwrap_or_default();
    let parts = document.split_once(MARKS[0]).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(MARKS[1])?;
        Some((before, after))
    });
    let text = match parts {
        Some((before, after)) => format!("{before}{}\n\n{}\n{}{after}", MARKS[0], tables.trim_end(), MARKS[1]),
        None => tables.to_owned(),
    };
    Ok(std::fs::write(file, text)?)
}
