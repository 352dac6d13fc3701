//! What is written for readers holds: README, docs, the schema, completions.

use std::path::Path;

use crate::support::command::Transship;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        match &mut current {
            Some(block) if line == "```" => {
                found.push(std::mem::take(block));
                current = None;
            }
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
            None if line.strip_prefix("```") == Some(language) => current = Some(String::new()),
            // A block of another language is passed over to its end.
            None => {}
        }
    }
    found
}

#[tokio::test]
async fn the_rules_shown_to_readers_are_right() {
    for page in ["README.md", "docs/rules.md"] {
        let whole: Vec<String> = blocks(&read(page), "yaml")
            .into_iter()
            .filter(|block| block.starts_with("version:"))
            .collect();
        assert!(!whole.is_empty(), "{page} shows no rules");
        for rules in whole {
            let home = Transship::new(&rules);
            let checked = home.run(&["check"]).await.expect(0).stdout;
            assert!(checked.contains("no mistakes"), "{page}: {checked}");
        }
    }
}

#[tokio::test]
async fn the_commands_shown_to_readers_exist() {
    let definition = transship::cli::definition();
    let page = read("docs/commands.md");
    for command in definition.get_subcommands() {
        let name = command.get_name();
        let heading = page.lines().any(|line| line.starts_with("## ") && line.contains(name));
        assert!(
            name == "help" || heading,
            "docs/commands.md has no section about {name}"
        );
        for option in command.get_opts().filter_map(|option| option.get_long()) {
            if matches!(option, "version" | "help") {
                continue;
            }
            assert!(
                page.contains(&format!("--{option}")),
                "docs/commands.md does not mention {name} --{option}"
            );
        }
    }
    // Every line of a console that starts the program is taken by it, as far as its arguments go.
    let mut seen = 0;
    for path in ["README.md", "docs/commands.md", "docs/rules.md", "docs/operations.md"] {
        for block in blocks(&read(path), "console") {
            for line in block.lines().filter_map(|line| line.strip_prefix("$ transship")) {
                let line = line.split(" #").next().unwrap_or(line);
                let line = line.split(['>', '|', '&']).next().unwrap_or(line);
                let arguments = std::iter::once("transship").chain(line.split_whitespace());
                let parsed = transship::cli::definition().try_get_matches_from(arguments);
                assert!(parsed.is_ok(), "{path}: transship{line}: {:?}", parsed.err());
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "{seen}");
}

#[tokio::test]
async fn the_schema_that_is_printed_is_the_one_in_the_repository() {
    let home = Transship::new("");
    let printed = home.run(&["schema"]).await.expect(0).stdout;
    assert_eq!(printed, read("schema/rules.schema.json"));
}

#[tokio::test]
async fn every_shell_gets_completions_that_know_the_commands() {
    let home = Transship::new("");
    for shell in ["bash", "zsh", "fish"] {
        let script = home.run(&["completions", shell]).await.expect(0).stdout;
        for word in ["trigger", "verify", "src-creds-file"] {
            assert!(script.contains(word), "{shell} does not complete {word}");
        }
    }
    let file = home.home().join("completions");
    std::fs::write(&file, home.run(&["completions", "bash"]).await.stdout).expect("a file");
    let read = std::process::Command::new("bash")
        .arg("-n")
        .arg(&file)
        .status()
        .expect("bash");
    assert!(read.success(), "bash cannot read its completions");
    home.run(&["completions", "csh"]).await.expect(2);
}
