//! What the resolved graph may hold. cargo-deny says the same from `deny.toml` where it is installed; this needs Cargo
//! alone. Cargo.lock is not asked: it names crates of other platforms and of features that nothing turns on.

use std::collections::BTreeMap;
use std::process::Command;

use semver::Version;

/// Crates that must not be built, not even for tests, and why.
const BANNED: &[(&str, &str)] = &[
    (
        "openssl-sys",
        "a library of the host at run time; rustls is in the program",
    ),
    ("native-tls", "a second TLS stack"),
    ("ring", "a second cryptography library beside aws-lc-rs"),
    ("backoff", "RUSTSEC-2025-0012: unmaintained; backon"),
    (
        "serde_yaml",
        "archived, and takes duplicate keys in silence; serde-saphyr",
    ),
    ("serde_yml", "RUSTSEC-2025-0067"),
    ("proc-macro-error2", "RUSTSEC-2026-0173; getset 0.1.7 does without"),
    ("quinn-proto", "RUSTSEC-2026-0037, RUSTSEC-2026-0185; HTTP/3 stays off"),
];

/// Least versions with the mend of an advisory. A crate that is not in the graph has nothing to mend.
const FLOORS: &[(&str, &str, &str)] = &[
    ("rustls", "0.23.45", "RUSTSEC-2026-0285"),
    ("rustls-webpki", "0.103.13", "RUSTSEC-2026-0049, -0098, -0099, -0104"),
    ("aws-lc-sys", "0.39.0", "RUSTSEC-2026-0044 to -0048"),
    ("h2", "0.4.16", "RUSTSEC-2026-0258"),
    ("anyhow", "1.0.103", "RUSTSEC-2026-0190"),
    ("rand", "0.10.1", "RUSTSEC-2026-0097"),
    ("sqlx", "0.8.1", "RUSTSEC-2024-0363"),
    ("getset", "0.1.7", "RUSTSEC-2026-0173"),
    ("tar", "0.4.46", "RUSTSEC-2026-0067, -0068"),
    ("oci-client", "0.18.0", "credentials went along to other hosts"),
    // SQLite up to 3.51.2 can corrupt a database in WAL mode that has several connections; 0.37 holds 3.51.3.
    ("libsqlite3-sys", "0.37.0", "SQLite's WAL-reset race"),
];

/// Crates of which more than one version would mean two stacks that do not know each other.
const SINGLE: &[&str] = &[
    "reqwest",
    "hyper",
    "h2",
    "rustls",
    "tokio",
    "http",
    "axum",
    "serde",
    "tracing",
    "jiff",
    "aws-lc-sys",
    "libsqlite3-sys",
];

type Graph = BTreeMap<String, Vec<Version>>;

/// What is wrong with a graph.
fn faults(graph: &Graph) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, reason) in BANNED {
        if graph.contains_key(*name) {
            faults.push(format!("{name} is built: {reason}; see `cargo tree -i {name}`"));
        }
    }
    for (name, floor, reason) in FLOORS {
        let floor = Version::parse(floor).unwrap();
        for version in graph
            .get(*name)
            .into_iter()
            .flatten()
            .filter(|version| **version < floor)
        {
            faults.push(format!("{name} {version} is below {floor}: {reason}"));
        }
    }
    for name in SINGLE {
        if let Some(versions) = graph.get(*name).filter(|versions| versions.len() > 1) {
            faults.push(format!("{name} is built {} times: {versions:?}", versions.len()));
        }
    }
    faults
}

/// Reads lines such as `rustls v0.23.46` or `serde_derive v1.0.229 (proc-macro) (*)`.
fn graph_of(text: &str) -> Graph {
    let mut graph = Graph::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        let version = words
            .next()
            .and_then(|word| word.strip_prefix('v'))
            .unwrap_or_else(|| panic!("not a crate: {line}"));
        let versions = graph.entry(name.to_owned()).or_default();
        let version = Version::parse(version).unwrap();
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    graph
}

#[test]
fn the_resolved_graph_is_within_bounds() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--locked",
            "--offline",
            "--prefix",
            "none",
            "--edges",
            "normal,build,dev",
            "--format",
            "{p}",
        ])
        .env("CARGO_TERM_COLOR", "never")
        .current_dir(super::root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let graph = graph_of(&String::from_utf8(output.stdout).unwrap());
    // The graph was really read: these are in it whatever else changes.
    for name in [
        "transship",
        "tokio",
        "reqwest",
        "rustls",
        "sqlx",
        "aws-lc-sys",
        "libsqlite3-sys",
        "rcgen",
    ] {
        assert!(graph.contains_key(name), "{name} is missing in {} crates", graph.len());
    }
    let faults = faults(&graph);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn bans_floors_and_doubles_are_found() {
    let found = faults(&graph_of(
        "ring v0.17.14\nrustls v0.23.44\nanyhow v1.0.103\nh2 v0.4.20\nh2 v0.3.27 (*)\nserde v1.0.1\nserde v1.0.1 (*)\n",
    ));
    let expected = [
        "ring is built",
        "rustls 0.23.44 is below",
        "h2 0.3.27 is below",
        "h2 is built 2 times",
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (fault, expected) in found.iter().zip(expected) {
        assert!(fault.starts_with(expected), "{fault}");
    }
    assert_eq!(
        faults(&graph_of("rustls v0.23.45\nanyhow v1.0.103\n")),
        Vec::<String>::new()
    );
}

/// `deny.toml` and this file must not drift apart.
#[test]
fn deny_toml_bans_the_same() {
    let text = super::read("deny.toml");
    for name in [
        "openssl-sys",
        "native-tls",
        "ring",
        "backoff",
        "serde_yaml",
        "serde_yml",
    ] {
        assert!(text.contains(&format!("{{ crate = \"{name}\", reason")), "{name}");
        assert!(BANNED.iter().any(|(banned, _)| *banned == name), "{name}");
    }
}
