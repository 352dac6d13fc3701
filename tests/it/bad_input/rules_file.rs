//! Rules that are wrong: `check` and `sync` say the same, and nothing is started.

use crate::support::command::Transship;

/// Line and column, then what must be told: the message, the line, the hint.
type Mistake<'a> = ((usize, usize), &'a str, &'a str, &'a str);

const REGISTRIES: &str = "version: 1\nregistries:\n  src: { url: \"http://127.0.0.1:9\" }\n  dst: { url: \"http://127.0.0.1:10\" }\nrules:\n";

fn rows() -> Vec<(&'static str, String, Vec<Mistake<'static>>)> {
    let with = |rules: &str| format!("{REGISTRIES}{rules}");
    let line = |line: &str| {
        with(&format!(
            "  - name: web\n    source: src\n    destinations: [dst]\n    repositories: [web]\n{line}\n"
        ))
    };
    vec![
        (
            "an unknown key, with the nearest one",
            line("    platfroms: [linux/amd64]"),
            vec![((10, 5), "platfroms", "platfroms: [linux/amd64]", "platforms")],
        ),
        (
            "a key twice",
            line("    source: src"),
            vec![((10, 5), "source", "source: src", "keep one")],
        ),
        (
            "a wrong type",
            line("    platforms: linux/amd64"),
            vec![((10, 16), "list", "platforms: linux/amd64", "[")],
        ),
        (
            "an unknown registry, with the nearest one",
            with("  - { name: web, source: scr, destinations: [dst], repositories: [web] }\n"),
            vec![((6, 26), "scr", "source: scr", "src")],
        ),
        (
            "an invalid glob",
            with("  - { name: web, source: src, destinations: [dst], repositories: [\"web/[a\"] }\n"),
            vec![((6, 67), "web/[a", "repositories: [\"web/[a\"]", "team/*")],
        ),
        (
            "an invalid schedule",
            line("    schedule: \"61 * * * *\""),
            vec![((10, 15), "minutes are 0-59", "schedule: \"61 * * * *\"", "*/30 * * * *")],
        ),
        (
            "an invalid time zone, with the nearest one",
            line("    schedule: \"@daily\"\n    timezone: Asia/Shangai"),
            vec![((11, 15), "Asia/Shangai", "timezone: Asia/Shangai", "Asia/Shanghai")],
        ),
        (
            "an invalid regular expression",
            line("    tags: { include: [\"/(v/\"] }"),
            vec![((10, 23), "(v", "tags: { include: [\"/(v/\"] }", "/^v[0-9]+$/")],
        ),
        (
            "an invalid version range",
            line("    tags: { semver: \">=1.20 <3\" }"),
            vec![((10, 21), ">=1.20 <3", "semver: \">=1.20 <3\"", ">=1.20, <3")],
        ),
        (
            "a destination that is the source",
            with("  - { name: web, source: src, destinations: [src], repositories: [web] }\n"),
            vec![((6, 46), "the source itself", "destinations: [src]", "another name with to:")],
        ),
        (
            "two sources for one destination tag",
            with(
                "  - { name: one, source: src, destinations: [dst], repositories: [web], tags: { include: [v1] } }\n  - { name: two, source: src, destinations: [dst], repositories: [{ match: app, to: web }], tags: { include: [v1] } }\n",
            ),
            vec![((7, 76), "different sources", "match: app", "give one of them another name with to:")],
        ),
        (
            "an address that is none, and an account in an address",
            "version: 1\nregistries:\n  a: { url: \"ftp://a.example\" }\n  b: { url: \"https://user:hunter2@b.example\" }\n".to_owned(),
            vec![
                ((3, 13), "scheme", "a: { url: \"ftp://a.example\" }", "https://"),
                ((4, 13), "holds a user name", "b: { url: ", "write them as username: and password:"),
            ],
        ),
        (
            "several mistakes, all told at once",
            "version: 1\nregistries:\n  src: { url: \"http://127.0.0.1:9\", usrname: x }\nrules:\n  - name: web\n    source: src\n    destinations: [nowhere]\n    repositories: [\"a[\"]\n    schedule: often\n    moved_tags: folow\n".to_owned(),
            vec![
                ((3, 37), "usrname", "usrname: *", "username"),
                ((7, 20), "nowhere", "destinations: [nowhere]", "known registries: src"),
                ((8, 20), "a[", "repositories: [\"a[\"]", "team/*"),
                ((9, 15), "often", "schedule: often", "@hourly"),
                ((10, 17), "folow", "moved_tags: folow", "follow"),
            ],
        ),
        (
            "no YAML at all",
            "version: 1\nregistries: { src: { url: x\n".to_owned(),
            vec![((2, 20), "unclosed", "registries: { src: { url: x", "check the indentation")],
        ),
    ]
}

#[tokio::test]
async fn wrong_rules_are_told_with_line_column_and_hint_and_start_nothing() {
    for (what, text, mistakes) in rows() {
        let home = Transship::new(&text);
        let file = home.rules().display().to_string();
        let check = home.run(&["check", "--format", "json"]).await.expect(2).json();
        assert_eq!(check["ok"], false, "{what}");
        let found = check["mistakes"].as_array().expect("mistakes");
        assert_eq!(found.len(), mistakes.len(), "{what}: {found:#?}");
        for (found, ((line, column), message, source_line, hint)) in found.iter().zip(&mistakes) {
            assert_eq!(found["file"], file, "{what}");
            assert_eq!(
                (&found["line"], &found["column"]),
                (&(*line).into(), &(*column).into()),
                "{what}: {found:#}"
            );
            for (field, piece) in [("message", message), ("source_line", source_line), ("hint", hint)] {
                let said = found[field].as_str().unwrap_or_default();
                assert!(said.contains(piece), "{what}: {piece:?} is not in {found:#}");
            }
            assert!(
                found["hint"].as_str().is_some_and(|hint| !hint.is_empty()),
                "{what}: no hint in {found:#}"
            );
        }

        // The same for people, from both commands, each at its place.
        let check = home.run(&["check"]).await.expect(2).stdout;
        let sync = home.run(&["sync"]).await.expect(2);
        assert_eq!(sync.stdout, "", "{what}");
        for ((line, column), _, source_line, _) in &mistakes {
            for shown in [&check, &sync.stderr] {
                let place = format!("{file}:{line}:{column}");
                assert!(shown.contains(&place), "{what}: {place} is not in\n{shown}");
                assert!(
                    shown.contains(source_line),
                    "{what}: {source_line:?} is not in\n{shown}"
                );
                assert!(!shown.contains("hunter2"), "{what}: a password is told:\n{shown}");
            }
        }
        assert!(!home.state().exists(), "{what}: nothing was started");
    }
}

#[tokio::test]
async fn a_secret_that_is_not_there_is_a_warning_to_check_and_an_error_to_sync() {
    let text = "version: 1\nregistries:\n  src: { url: \"http://127.0.0.1:9\", username: u, password: \"${NOT_SET_HERE}\" }\n  dst: { url: \"http://127.0.0.1:10\" }\nrules:\n  - { name: web, source: src, destinations: [dst], repositories: [web] }\n";
    let mut home = Transship::new(text);
    let check = home.run(&["check", "--format", "json"]).await.expect(0).json();
    let mistake = &check["mistakes"][0];
    assert_eq!((&mistake["severity"], &mistake["line"]), (&"warning".into(), &3.into()));
    let sync = home.run(&["sync"]).await.expect(2).stderr;
    for piece in ["rules.yaml:3:", "NOT_SET_HERE"] {
        assert!(sync.contains(piece), "{piece:?} is not in\n{sync}");
    }
    assert!(!home.state().exists(), "nothing was started");
    home.set_env("NOT_SET_HERE", "hunter2");
    // Now the rules are good, and only nobody listens there.
    let sync = home.run(&["sync"]).await.expect(1);
    assert!(!format!("{}{}", sync.stdout, sync.stderr).contains("hunter2"));
}

#[tokio::test]
async fn rules_that_are_not_there() {
    let home = Transship::new("");
    std::fs::remove_file(home.rules()).expect("the file");
    for command in ["check", "sync", "plan"] {
        let said = home.run(&[command]).await.expect(2).stderr;
        for piece in ["rules.yaml", "--rules"] {
            assert!(said.contains(piece), "{command}: {piece:?} is not in {said:?}");
        }
        assert_eq!(said.lines().count(), 1, "{said:?}");
    }
}
