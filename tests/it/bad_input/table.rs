//! What is asked of every fault.

use serde_json::Value;

use crate::support::command::Transship;
use crate::support::compare::{Reader, Side, assert_same_images};

/// One failure as the report must have it.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    pub source: &'a str,
    pub destination: Option<&'a str>,
    pub kind: &'a str,
    pub status: Option<u16>,
    /// Pieces of the message: the place, what happened, what to do.
    pub says: &'a [&'a str],
}

/// A rules file: lines of `registries:`, and rules as (name, source, destinations, repositories).
pub fn rules(registries: &[&str], rules: &[(&str, &str, &str, &str)]) -> String {
    let mut text = "version: 1\nregistries:\n".to_owned();
    for registry in registries {
        text.push_str(&format!("  {registry}\n"));
    }
    // Two attempts show that a fault is tried again where that makes sense; six would only take longer.
    text.push_str("defaults: { retry: { attempts: 2, max_delay: 1s } }\nrules:\n");
    for (name, source, destinations, repositories) in rules {
        text.push_str(&format!(
            "  - {{ name: {name}, source: {source}, destinations: [{destinations}], repositories: [{repositories}] }}\n"
        ));
    }
    text
}

/// Runs a sync that must end with 1 and report exactly this failure. Gives the report.
pub async fn fails(home: &Transship, row: Row<'_>) -> Value {
    let output = home.run(&["sync", "--format", "json"]).await.expect(1);
    let report = output.json();
    let failures = failures(&report);
    assert_eq!(failures.len(), 1, "{failures:#?}");
    let failure = &failures[0];
    check(failure, row);
    // Who watches sees it at once, not only in the report.
    let message = failure["message"].as_str().expect("a message");
    assert!(
        output.stderr.contains(message),
        "{message}\nis not in\n{}",
        output.stderr
    );
    report
}

/// All failures of all runs.
pub fn failures(report: &Value) -> Vec<Value> {
    let runs = report["runs"].as_array().expect("runs");
    runs.iter()
        .flat_map(|run| run["failures"].as_array().expect("failures").clone())
        .collect()
}

/// One failure against what is expected of it.
pub fn check(failure: &Value, row: Row<'_>) {
    let message = failure["message"].as_str().expect("a message");
    assert_eq!(failure["source"], row.source, "{failure:#}");
    assert_eq!(failure["destination"].as_str(), row.destination, "{failure:#}");
    assert_eq!(failure["kind"], row.kind, "{failure:#}");
    assert_eq!(failure["status"].as_u64(), row.status.map(u64::from), "{failure:#}");
    for piece in row.says {
        assert!(message.contains(piece), "{piece:?} is not in {message:?}");
    }
    assert_readable(message);
}

/// One line that says nothing twice and no query of a URL.
pub fn assert_readable(message: &str) {
    assert!(!message.contains('\n'), "{message:?} has several lines");
    assert!(message.len() < 500, "{message:?} is too long to be read");
    let query = message
        .split(' ')
        .find(|word| word.contains("://") && word.contains('?'));
    assert_eq!(query, None, "a query is in {message:?}");
    let pieces: Vec<&str> = message.split(['(', ')', ':', ';', ',']).map(str::trim).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let again = piece.len() > 12 && pieces[..index].contains(piece);
        assert!(!again, "{piece:?} is twice in {message:?}");
    }
}

/// Runs a sync that must end with 0 and report no failure. Gives the report.
pub async fn succeeds(home: &Transship) -> Value {
    let report = home.run(&["sync", "--format", "json"]).await.expect(0).json();
    assert_eq!(failures(&report), Vec::<Value>::new());
    report
}

/// The image `v1` of a repository is at the second host as it is at the first.
pub async fn arrived(source: &str, destination: &str, repository: &str) {
    let (src, dst) = (Side::new(source, repository), Side::new(destination, repository));
    assert_same_images(&src, &dst, &["v1"], Reader::OciClient).await;
}
