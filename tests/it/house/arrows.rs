//! Arrows between the modules go inward only, and each outside thing has one room that may touch it.

use super::source::{self, Source};

/// Rooms and how far out they lie: a room uses only rooms with a smaller number. `ARCHITECTURE.md` has the picture.
const TIERS: &[(&str, u8)] = &[
    ("oci", 0),
    ("rules", 1),
    ("plan", 2),
    ("registry", 3),
    ("config", 4),
    ("store", 4),
    ("vendors", 4),
    ("engine", 5),
    ("demo", 6),
    ("http", 6),
    ("cli", 7),
];

/// Used by all but the pure rooms, and using no room themselves.
const EVERYWHERE: &[&str] = &["telemetry", "clock"];

/// Rooms without input and output: all that they need is an argument.
const PURE: &[&str] = &["oci", "rules", "plan"];

/// What makes a room impure.
const OUTSIDE: &[&str] = &[
    "tokio",
    "tokio_util",
    "reqwest",
    "sqlx",
    "sqlx_core",
    "axum",
    "hyper",
    "futures_util",
    "tracing",
    "oci_client",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::io::stdout",
    "std::io::stderr",
    "std::io::stdin",
    "std::time::SystemTime",
    "std::time::Instant",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
];

/// What only some rooms may name.
const ONLY: &[(&str, &[&str])] = &[
    ("sqlx", &["store"]),
    ("sqlx_core", &["store"]),
    ("reqwest", &["registry"]),
    ("serde_saphyr", &["config"]),
    ("axum", &["http", "demo"]),
    ("clap", &["cli", "telemetry"]),
    ("indicatif", &["cli"]),
    ("comfy_table", &["cli"]),
    // clippy.toml forbids tokio::spawn; the servers of `http` and `demo` expect that lint with a reason.
    ("tokio::spawn", &["engine", "http", "demo"]),
    ("tokio::task::spawn", &["engine", "http", "demo"]),
    ("tokio::task::spawn_local", &["engine"]),
    ("tokio::task::JoinSet", &["engine", "http", "demo"]),
    ("tokio_util::task::TaskTracker", &["engine", "http", "demo"]),
    ("std::thread::spawn", &["engine"]),
    ("std::io::stdout", &["cli"]),
    ("std::io::stderr", &["cli", "telemetry"]),
];

/// Only `cli` and `main.rs` print.
const PRINTS: &[&str] = &["print!", "println!", "eprint!", "eprintln!", "dbg!"];

/// All that is wrong with one file, as `path:line: what`.
fn faults(path: &str, text: &str) -> Vec<String> {
    let module = source::module_of(path);
    // lib.rs and main.rs are no room: they name all of them.
    let Some(room) = module.first() else {
        return Vec::new();
    };
    let source = source::read(path, text);
    let mut faults = Vec::new();
    let tier = tier(room);
    if tier.is_none() && !EVERYWHERE.contains(&room.as_str()) {
        faults.push(format!(
            "{path}:1: `{room}` is not a room of the house; give it a tier here and in ARCHITECTURE.md"
        ));
    }
    arrows(path, room, tier, &source, &mut faults);
    foreign(path, room, &source, &mut faults);
    faults
}

fn tier(room: &str) -> Option<u8> {
    TIERS.iter().find(|(name, _)| *name == room).map(|(_, tier)| *tier)
}

fn arrows(path: &str, room: &str, own: Option<u8>, source: &Source, faults: &mut Vec<String>) {
    for named in &source.paths {
        let target = match named.segments.as_slice() {
            [first, target, ..] if first == "crate" || first == "transship" => target.as_str(),
            _ => continue,
        };
        if target == room {
            continue;
        }
        let allowed = match (own, tier(target)) {
            (_, None) if EVERYWHERE.contains(&target) => own.is_some() && !PURE.contains(&room),
            // Tests may stand on the registry inside the program.
            (Some(_), Some(_)) if named.in_tests && target == "demo" => true,
            (Some(own), Some(target)) => target < own,
            _ => false,
        };
        if !allowed {
            faults.push(format!("{path}:{}: `{room}` must not use `{target}`", named.line));
        }
    }
}

fn foreign(path: &str, room: &str, source: &Source, faults: &mut Vec<String>) {
    let pure = PURE.contains(&room);
    for named in source.paths.iter().filter(|named| !named.in_tests) {
        let full = named.segments.join("::");
        let names = |what: &str| full == what || full.strip_prefix(what).is_some_and(|rest| rest.starts_with("::"));
        if pure && let Some(what) = OUTSIDE.iter().find(|what| names(what)) {
            faults.push(format!(
                "{path}:{}: `{room}` is pure and must not name `{what}`",
                named.line
            ));
        } else if let Some((what, rooms)) = ONLY.iter().find(|(what, rooms)| names(what) && !rooms.contains(&room)) {
            faults.push(format!(
                "{path}:{}: `{what}` belongs to {}",
                named.line,
                rooms.join(", ")
            ));
        }
    }
    for word in source.words.iter().filter(|word| !word.in_tests) {
        if pure && matches!(word.text.as_str(), "async" | "await") {
            faults.push(format!(
                "{path}:{}: `{room}` is pure and has no `{}`",
                word.line, word.text
            ));
        }
        if room != "cli" && PRINTS.contains(&word.text.as_str()) {
            faults.push(format!(
                "{path}:{}: only `cli` prints, not `{room}` by `{}`",
                word.line, word.text
            ));
        }
    }
}

#[test]
fn arrows_go_inward_only() {
    let mut faults_of_all = Vec::new();
    for path in super::files_below("src") {
        if path.extension().is_some_and(|extension| extension == "rs") {
            faults_of_all.extend(faults(path.to_str().unwrap(), &super::read(&path)));
        }
    }
    assert!(faults_of_all.is_empty(), "{}", faults_of_all.join("\n"));
}

/// One sample of each fault; a checker that misses one of them checks nothing.
#[test]
fn every_kind_of_fault_is_found() {
    let samples = [
        ("src/oci/a.rs", "use crate::rules::Rule;", "`oci` must not use `rules`"),
        (
            "src/rules/a.rs",
            "use crate::{oci::Digest, plan::Plan};",
            "`rules` must not use `plan`",
        ),
        (
            "src/plan/a/b.rs",
            "use super::super::super::registry::Error;",
            "`plan` must not use `registry`",
        ),
        (
            "src/plan/mod.rs",
            "fn f(e: crate::engine::Run) {}",
            "`plan` must not use `engine`",
        ),
        (
            "src/registry/a.rs",
            "\nuse crate::config::Rules as R;",
            "src/registry/a.rs:2: `registry` must not use `config`",
        ),
        (
            "src/store/a.rs",
            "use crate::config::Rules;",
            "`store` must not use `config`",
        ),
        (
            "src/engine/a.rs",
            "use crate::cli::Table;",
            "`engine` must not use `cli`",
        ),
        (
            "src/engine/a.rs",
            "use crate::demo::Server;",
            "`engine` must not use `demo`",
        ),
        (
            "src/http/a.rs",
            "use crate::demo::Server;",
            "`http` must not use `demo`",
        ),
        (
            "src/store/a.rs",
            "#[cfg(test)] mod tests { use crate::engine::Run; }",
            "`store` must not use `engine`",
        ),
        (
            "src/plan/a.rs",
            "use crate::clock::Clock;",
            "`plan` must not use `clock`",
        ),
        (
            "src/oci/a.rs",
            "use crate::telemetry::Secret;",
            "`oci` must not use `telemetry`",
        ),
        (
            "src/telemetry/a.rs",
            "use crate::oci::Digest;",
            "`telemetry` must not use `oci`",
        ),
        (
            "src/telemetry/a.rs",
            "use crate::clock::Clock;",
            "`telemetry` must not use `clock`",
        ),
        (
            "src/clock.rs",
            "use crate::telemetry::Secret;",
            "`clock` must not use `telemetry`",
        ),
        (
            "src/engine/a.rs",
            "use crate::attic::x;",
            "`engine` must not use `attic`",
        ),
        ("src/attic/a.rs", "", "`attic` is not a room"),
        ("src/plan/a.rs", "async fn f() {}", "has no `async`"),
        ("src/rules/a.rs", "fn f() { g().await; }", "has no `await`"),
        ("src/oci/a.rs", "use std::{fmt, fs};", "must not name `std::fs`"),
        (
            "src/oci/a.rs",
            "fn f() { std::env::var(\"A\"); }",
            "must not name `std::env`",
        ),
        ("src/plan/a.rs", "use tokio::time::Instant;", "must not name `tokio`"),
        (
            "src/plan/a.rs",
            "use std::time::{Duration, Instant};",
            "must not name `std::time::Instant`",
        ),
        (
            "src/rules/a.rs",
            "use std::time; fn f() { time::SystemTime::now(); }",
            "must not name `std::time::SystemTime`",
        ),
        (
            "src/rules/a.rs",
            "fn f() { jiff::Timestamp::now(); }",
            "must not name `jiff::Timestamp::now`",
        ),
        ("src/plan/a.rs", "use reqwest::StatusCode;", "must not name `reqwest`"),
        ("src/plan/a.rs", "use sqlx::Row;", "must not name `sqlx`"),
        ("src/engine/a.rs", "use sqlx::Row;", "`sqlx` belongs to store"),
        (
            "src/vendors/a.rs",
            "fn f() { reqwest::Client::builder(); }",
            "`reqwest` belongs to registry",
        ),
        (
            "src/cli/a.rs",
            "use serde_saphyr::Spanned;",
            "`serde_saphyr` belongs to config",
        ),
        (
            "src/registry/a.rs",
            "fn f() { tokio::spawn(g()); }",
            "`tokio::spawn` belongs to engine",
        ),
        (
            "src/store/a.rs",
            "use tokio::task; fn f() { task::spawn(g()); }",
            "`tokio::task::spawn` belongs to engine",
        ),
        (
            "src/registry/a.rs",
            "use tokio::task::JoinSet;",
            "`tokio::task::JoinSet` belongs to engine",
        ),
        (
            "src/engine/a.rs",
            "use std::io; fn f() { io::stdout(); }",
            "`std::io::stdout` belongs to cli",
        ),
        ("src/engine/a.rs", "fn f() { println!(\"x\"); }", "only `cli` prints"),
        ("src/demo/a.rs", "fn f() { eprintln!(\"x\"); }", "only `cli` prints"),
    ];
    for (path, text, expected) in samples {
        let found = faults(path, text);
        assert!(
            found.iter().any(|fault| fault.contains(expected)),
            "{path}: {text}\nexpected {expected}, found {found:?}"
        );
    }
}

#[test]
fn what_is_allowed_is_no_fault() {
    let samples = [
        ("src/lib.rs", "pub mod cli; pub mod oci;"),
        ("src/main.rs", "fn main() { transship::cli::main(); println!(); }"),
        (
            "src/cli/a.rs",
            "use crate::{engine, demo, http, clock::Clock, telemetry::Secret}; fn f() { println!(); }",
        ),
        (
            "src/engine/a.rs",
            "use crate::{config, store, vendors, registry, plan, rules, oci}; fn f() { tokio::spawn(g()); }",
        ),
        (
            "src/engine/a.rs",
            "#[cfg(test)] mod tests { use crate::demo::Server; fn f() { println!(); } }",
        ),
        (
            "src/registry/a.rs",
            "use super::error::Error; use crate::plan::ErrorKind; use crate::telemetry::RedactedUrl;",
        ),
        (
            "src/plan/a.rs",
            "use std::time::Duration; use jiff::Timestamp; use super::failure; // use crate::engine::Run;",
        ),
        (
            "src/plan/a.rs",
            "#[cfg(test)] mod tests { fn f() { std::fs::read(\"x\"); } }",
        ),
        (
            "src/plan/a.rs",
            "pub(in crate::plan) fn f() { let text = \"println!\"; assert!(a != b); }",
        ),
    ];
    for (path, text) in samples {
        assert_eq!(faults(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}
