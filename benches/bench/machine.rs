//! What the numbers were measured on, and with what.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use crate::lab::Lab;
use crate::tools::Tool;

/// The machine and the programs, for the record.
pub fn describe(lab: &Lab) -> Value {
    let mut programs: BTreeMap<String, String> = lab
        .tools
        .iter()
        .map(|tool| (tool.name.clone(), tool.version()))
        .collect();
    programs.insert("curl".to_owned(), Tool::curl().version());
    programs.insert(
        "docker-registry".to_owned(),
        first_line("docker-registry", &["--version"]),
    );
    programs.insert("rustc".to_owned(), first_line("rustc", &["--version"]));
    if let Some(path) = &lab.registry3 {
        programs.insert(
            "REGISTRY3".to_owned(),
            first_line(&path.display().to_string(), &["--version"]),
        );
    }
    let changed = !first_line("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    json!({
        "cpu": field("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_mib": kibibytes("/proc/meminfo", "MemTotal") / 1024,
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "load_before": std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
        "date": jiff::Timestamp::now().to_string(),
        "commit": format!("{}{}", first_line("git", &["rev-parse", "--short=12", "HEAD"]), if changed { ", changed" } else { "" }),
        "programs": programs,
    })
}

/// Lines for people.
pub fn markdown(machine: &Value) -> String {
    let text = |key: &str| match &machine[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut lines = format!(
        "Machine: {}, {} cores, {} MiB, Linux {}. Load before: {}. {}, commit {}.\n\n",
        text("cpu"),
        text("cores"),
        text("memory_mib"),
        text("kernel"),
        text("load_before"),
        text("date"),
        text("commit")
    );
    let programs = machine["programs"].as_object().into_iter().flatten();
    let programs: Vec<String> = programs
        .map(|(name, version)| format!("{name} ({})", version.as_str().unwrap_or("")))
        .collect();
    lines.push_str(&format!("Programs: {}.\n", programs.join(", ")));
    lines
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().lines().next().unwrap_or("").trim().to_owned()
}

fn field(file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().strip_prefix(':'));
    line.unwrap_or("unknown").trim().to_owned()
}

fn kibibytes(file: &str, name: &str) -> u64 {
    let value = field(file, name);
    value
        .split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}
