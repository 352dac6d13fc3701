//! What must not be in the tree, and what must.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::source;

/// Stand-ins for code that is not written.
const UNWRITTEN: &[&str] = &["todo!", "unimplemented!"];

fn unwritten(path: &str, text: &str) -> Vec<String> {
    source::read(path, text)
        .words
        .into_iter()
        .filter(|word| UNWRITTEN.contains(&word.text.as_str()))
        .map(|word| format!("{path}:{}: {}", word.line, word.text))
        .collect()
}

fn sources() -> Vec<(String, String)> {
    super::files_below("src")
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| (path.to_str().unwrap().to_owned(), super::read(&path)))
        .collect()
}

#[test]
fn nothing_is_left_unwritten() {
    assert_eq!(
        unwritten(
            "src/plan/a.rs",
            "fn f() {\n todo!() }\nfn g() { unimplemented!(\"x\"); unreachable!() } // todo!()"
        )
        .len(),
        2
    );
    let found: Vec<_> = sources()
        .iter()
        .flat_map(|(path, text)| unwritten(path, text))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The compiler says nothing about a file that no `mod` names.
#[test]
fn every_source_file_is_part_of_the_crate() {
    let sources = sources();
    let mut named: BTreeSet<Vec<String>> = BTreeSet::new();
    for (path, text) in &sources {
        for (_, name) in source::read(path, text).modules {
            let mut module = source::module_of(path);
            module.push(name);
            named.insert(module);
        }
    }
    let orphans: Vec<_> = sources
        .iter()
        .map(|(path, _)| (path, source::module_of(path)))
        .filter(|(_, module)| !module.is_empty() && !named.contains(module))
        .map(|(path, _)| path.as_str())
        .collect();
    assert_eq!(orphans, Vec::<&str>::new(), "no `mod` names these files");
}

/// Links of the documents to files of the repository.
fn links(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|link| !link.contains("://") && !link.starts_with('#'))
        .map(|link| link.split('#').next().unwrap_or(link))
        .collect()
}

#[test]
fn documents_link_to_what_is_there() {
    assert_eq!(
        links("[a](b.md) [c](https://d.example/e) [f](#g) [h](i/j.md#k)"),
        ["b.md", "i/j.md"]
    );
    let mut seen = 0;
    for document in [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "docs/operations.md",
        "docs/performance.md",
        "docs/registries.md",
    ] {
        let folder = Path::new(document).parent().unwrap();
        for link in links(&super::read(document)) {
            seen += 1;
            assert!(
                super::root().join(folder).join(link).exists(),
                "{document} links to {link}"
            );
        }
    }
    assert!(seen > 0);
}

#[test]
fn the_entries_can_be_run() {
    for script in ["scripts/test", "scripts/bench", ".ci/run"] {
        let mode = super::root().join(script).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script} is not executable");
        assert!(super::read(script).starts_with("#!/usr/bin/env bash\n"), "{script}");
    }
    assert!(super::read(".ci/run").contains("./scripts/test"));
}

/// Works of the benchmark: the first text of each entry of its table.
fn works(text: &str) -> Vec<&str> {
    let (_, table) = text.split_once("pub const WORKS").unwrap();
    let (table, _) = table.split_once("];").unwrap();
    table
        .split("(\"")
        .skip(1)
        .filter_map(|entry| entry.split('"').next())
        .collect()
}

#[test]
fn every_work_of_the_benchmark_is_explained() {
    assert_eq!(
        works("pub const WORKS: &[(&str, &str)] = &[\n(\"a\", \"b (c)\"),\n    (\"d\", \"e\"),\n];\n(\"f\")"),
        ["a", "d"]
    );
    let document = super::read("docs/performance.md");
    for work in works(&super::read("benches/bench/works/mod.rs")) {
        assert!(
            document.contains(&format!("`{work}`")),
            "docs/performance.md does not explain {work}"
        );
    }
}
