//! What good files mean, and what must hold for all.

mod faulty;
mod generated;
mod limits;
mod reach;
mod registries;
mod spool;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::oci::Tag;
use crate::registry::{LoginSource, RemoteSettings};
use crate::rules::{MissedRuns, MovedTags, NewestBy, OnConflict, Overlap, PlatformPolicy};

/// An environment that a test made up.
#[derive(Default)]
struct Table {
    variables: BTreeMap<&'static str, &'static str>,
    files: BTreeMap<PathBuf, &'static str>,
}

impl Lookup for Table {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|value| (*value).to_owned())
    }
    fn file(&self, path: &Path) -> io::Result<String> {
        let text = self.files.get(path).map(|text| (*text).to_owned());
        text.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such file"))
    }
}

/// Two registries and a line for rules to follow.
const REGISTRIES: &str = "\
version: 1
registries:
  harbor: { url: https://harbor.example }
  ecr: { url: https://ecr.example }
rules:
";

fn with_rule(rule: &str) -> String {
    format!("{REGISTRIES}{rule}")
}

/// One rule that is right but for the lines added.
fn with_lines(lines: &str) -> String {
    with_rule(&format!(
        "  - name: web\n    source: harbor\n    destinations: [ecr]\n    repositories: [web]\n{lines}"
    ))
}

fn parse_as(text: &str, mode: Mode, lookup: &dyn Lookup) -> Result<Loaded, LoadFailure> {
    parse(&[("rules.yaml".to_owned(), text.to_owned())], lookup, mode)
}

fn good(text: &str) -> Loaded {
    match parse_as(text, Mode::Run, &Table::default()) {
        Ok(loaded) => loaded,
        Err(failure) => panic!("{}", told(&failure)),
    }
}

/// The settings of a registry that is none of a layout.
fn remote<'l>(loaded: &'l Loaded, name: &str) -> &'l RemoteSettings {
    match &loaded.config.registries[&RegistryName::new(name)] {
        RegistrySettings::Remote(settings) => settings,
        RegistrySettings::Layout { .. } => panic!("{name} is a layout"),
    }
}

fn told(failure: &LoadFailure) -> String {
    match failure {
        LoadFailure::Wrong { mistakes, sources } => render(mistakes, sources, false),
        LoadFailure::Unreadable { .. } => format!("{failure}"),
    }
}

#[test]
fn no_secret_is_ever_shown() {
    let lookup = Table {
        variables: BTreeMap::from([
            ("PW", "hunter2"),
            ("URL", "https://u:hunter2@a.example"),
            ("BAD", "hunter2 \n"),
        ]),
        ..Table::default()
    };
    let text = "\
version: 1
registries:
  a: { url: \"${URL}\", username: u, password: \"${PW}\", limits: { concurrency: \"${PW}\" } }
  b: { url: \"${PW}\", token_hosts: [\"${BAD}\"], tls: { insecure_skip_verify: \"${PW}\" } }
  c: { url: https://c.example, pasword: hunter2, tls: \"${PW}\" }
  d: { url: \"https://u:hunter2@d.example\", x: y }
  d1: { url: \"https://user:pa/hunter2@d.example\" }
  d2: { url: \"user:p@sshunter2@d.example\" }
  d3: { url: \"ftp://u:hunter2/x@y@d.example\" }
  d4: { url: \"\\x75:hunter2\\x40d.example\" }
  d5: { url: https://d.example, auth: hunter2, pwd: hunter2, api_key: [hunter2], headers: { Authorization: Basic hunter2 } }
  d6: { url: https://d.example, tls: { key: hunter2 }, limits: { hunter: hunter2 }, token_hosts: [\"u:hunter2@x\"] }
  d7: https://u:hunter2@d.example
  e: { url: https://e.example, username: u, password: [hunter2] }
  f: { url: https://f.example, username: u, password: 4711.10 }
  g: { url: https://g.example, username: u, passwords: { a: &pin 4711, b: true }, password: *pin }
  h:
    url: https://h.example
    secret: |
      hunter2
      hunter2
defaults: { timezone: \"${PW}\", moved_tags: \"${PW}\", jitter: \"${PW}\", platforms: [\"${PW}\"], tags: { include: \"${PW}\" } }
api_token: hunter2
rules: [{ name: r, source: a, destinations: [b], repositories: [web], schedule: \"@daily\" }]
";
    let failure = parse_as(text, Mode::Run, &lookup).expect_err("mistakes");
    let shown = told(&failure);
    assert!(shown.contains("rules.yaml:3:"), "{shown}");
    assert!(!shown.contains("hunter2") && !shown.contains("4711"), "{shown}");
    let LoadFailure::Wrong { mistakes, .. } = failure else {
        panic!("mistakes expected");
    };
    let json = serde_json::to_string(&mistakes).expect("JSON");
    assert!(!json.contains("hunter2") && !json.contains("4711"), "{json}");
    assert!(json.contains(r#""severity":"error""#), "{json}");
}

#[test]
fn no_secret_is_shown_of_a_file_that_is_no_yaml() {
    for line in [
        "a: { url: https://u:pa/p@hunter2@h.example, x: *none }",
        "a: { url: u:p@sshunter2@h.example, x: *none }",
        "a: { auth: hunter2, x: *none }",
        "a: { api_key: hunter2, x: *none }",
        "a: { headers: { Authorization: Basic hunter2 }, x: *none }",
    ] {
        let text = format!("version: 1\nregistries:\n  {line}\n");
        let failure = parse_as(&text, Mode::Run, &Table::default()).expect_err("an alias of nothing");
        let shown = told(&failure);
        assert!(shown.contains("rules.yaml:3:") && !shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn references() {
    let lookup = Table {
        variables: BTreeMap::from([
            ("HOST", "h.example"),
            ("PW", "a${HOST}$$"),
            ("CREDENTIALS_DIRECTORY", "/run/c"),
            ("N", "7"),
        ]),
        files: BTreeMap::from([(PathBuf::from("/s"), "file\n"), (PathBuf::from("/run/c/x"), "cred\r\n")]),
    };
    let text = "\
version: 1
registries:
  a: { url: \"https://${HOST}:8443\", username: \"robot$x $${HOST} $$\", password: \"${PW}\", limits: { concurrency: \"${N}\" } }
  b: { url: https://b.example, username: \"${file:/s}\", password: \"-${credential:x}-\" }
";
    let loaded = parse_as(text, Mode::Run, &lookup).expect("good");
    let login = |name: &str| match &loaded.config.registries[&RegistryName::new(name)] {
        RegistrySettings::Remote(settings) => match &settings.login {
            LoginSource::Given(given) => (given.username.clone(), given.password.expose().to_owned()),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    assert_eq!(login("a"), ("robot$x ${HOST} $$".to_owned(), "a${HOST}$$".to_owned()));
    assert_eq!(login("b"), ("file".to_owned(), "-cred-".to_owned()));
    let RemoteSettings { url, limits, .. } = remote(&loaded, "a");
    assert_eq!((url.host.as_str(), url.plain_http), ("h.example:8443", false));
    assert_eq!(limits.concurrency, Some(7));
    assert!(!format!("{loaded:?}").contains("-cred-"));
}

#[test]
fn check_works_without_secrets() {
    let text = "\
version: 1
registries:
  a: { url: \"${URL}\", username: \"${USER_NAME}\", password: \"${PW}\", limits: { concurrency: \"${N}\" } }
  b: { url: \"https://${HOST}\", token_hosts: [\"${HOST}\"] }
rules:
  - { name: r, source: a, destinations: [b], repositories: [web] }
";
    let loaded = parse_as(text, Mode::Check, &Table::default()).unwrap_or_else(|failure| panic!("{}", told(&failure)));
    assert_eq!(loaded.warnings.len(), 6);
    assert!(
        loaded
            .warnings
            .iter()
            .all(|w| w.severity == Severity::Warning && w.message.contains("is not set"))
    );
    let failure = parse_as(text, Mode::Run, &Table::default()).expect_err("unset");
    assert_eq!(failure.to_string(), "the rules have 6 mistakes");
}

#[test]
fn a_whole_rule() {
    let loaded = good(
        "\
version: 1
registries:
  hub: { url: docker.io }
  usb: { layout: /srv/bundle }
  ecr: { url: \"http://127.0.0.1:5000/prefix/\" }
defaults:
  timezone: Asia/Shanghai
  tags: { exclude: [\"*-rc*\"] }
  retry: { attempts: 3 }
  platforms: [linux/amd64]
rules:
  - name: platform
    schedule: \"*/30 * * * *\"
    jitter: 1m30s
    overlap: queue
    missed: skip
    missed_within: 2h
    source: hub
    destinations: [usb, { registry: ecr, to: \"corp/{flat}\" }]
    repositories:
      - platform/**
      - { match: \"base/*\", exclude: [\"base/tmp-*\"], to: \"mirror/{1}\", tags: { include: [\"3.*\"] } }
    tags: { include: [\"v*\"], semver: \">=1.20, <3\", suffix: alpine, newest: { count: 10, by: name } }
    platforms: []
    moved_tags: keep
    on_conflict: fail
    retry: { max_delay: 2m }
  - { name: second, source: hub, destinations: [usb], repositories: [alpine] }
",
    );
    let [first, second] = loaded.config.rules.as_slice() else {
        panic!("two rules");
    };
    let schedule = first.schedule.as_ref().expect("a schedule");
    assert_eq!((schedule.text(), schedule.zone()), ("*/30 * * * *", "Asia/Shanghai"));
    assert_eq!(
        (schedule.jitter, schedule.missed_within),
        (Duration::from_secs(90), Duration::from_secs(7200))
    );
    assert_eq!((schedule.overlap, schedule.missed), (Overlap::Queue, MissedRuns::Skip));
    assert_eq!(
        (first.moved_tags, first.on_conflict),
        (MovedTags::Keep, OnConflict::Fail)
    );
    assert_eq!(
        (first.retry.attempts, first.retry.max_delay),
        (3, Duration::from_secs(120))
    );
    assert_eq!(first.platforms, PlatformPolicy::default());
    assert_eq!(
        first.destinations[1].to.as_ref().map(ToString::to_string).as_deref(),
        Some("corp/{flat}")
    );
    assert_eq!(first.repositories[1].exclude.len(), 1);
    let own = first.repositories[1].tags.as_ref().expect("its own tags");
    assert!(own.exclude.is_empty() && own.include[0].matches(&"3.20".parse::<Tag>().expect("a tag")));
    assert_eq!(first.tags.exclude.len(), 1);
    let newest = first.tags.newest.expect("newest");
    assert_eq!((newest.count, newest.by), (10, NewestBy::Name));
    assert_eq!(
        first.tags.semver.as_ref().and_then(|s| s.suffix.as_deref()),
        Some("alpine")
    );

    assert!(second.schedule.is_none());
    assert_eq!(second.platforms.platforms.len(), 1);
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    let url = &remote(&loaded, "ecr").url;
    assert_eq!(
        (url.host.as_str(), url.path.as_str(), url.plain_http),
        ("127.0.0.1:5000", "/prefix", true)
    );
}

#[test]
fn anchors_and_merge_keys_work() {
    let loaded = good(
        "\
version: 1
registries:
  a: &plain { url: https://a.example, token_hosts: [auth.example] }
  b: { <<: *plain, url: https://b.example }
rules:
  - { name: r, source: a, destinations: [b], repositories: [web] }
",
    );
    let RemoteSettings { url, token_hosts, .. } = remote(&loaded, "b");
    assert_eq!(
        (url.host.as_str(), token_hosts.as_slice()),
        ("b.example", ["auth.example".to_owned()].as_slice())
    );
}

#[test]
fn warnings() {
    let loaded = good(
        "\
version: 1
registries:
  a: { url: https://a.example, tls: { insecure_skip_verify: true } }
  b: { url: https://b.example }
  idle: { url: https://c.example }
rules:
  - name: r
    source: a
    destinations: [b]
    repositories: [{ match: \"x/*\", to: one }, \"web/**\", web/app]
    platforms: [linux/amd64]
",
    );
    insta::with_settings!({ snapshot_path => "tests/snapshots", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("warnings", render(&loaded.warnings, &loaded.sources, false));
    });
}

#[test]
fn what_only_looks_like_a_mistake() {
    for text in [
        // Another name keeps source and destination apart.
        with_rule(
            "  - { name: r, source: harbor, destinations: [{ registry: harbor, to: \"mirror/{path}\" }], repositories: [\"a/**\"] }\n",
        ),
        // The same source twice into one place is shared work.
        with_rule(
            "  - { name: r, source: harbor, destinations: [ecr], repositories: [web] }\n  - { name: s, source: harbor, destinations: [ecr], repositories: [web] }\n",
        ),
        // Tags that may keep two sources apart.
        with_rule(
            "  - { name: r, source: harbor, destinations: [ecr], repositories: [{ match: a, to: x, tags: { include: [\"1.*\"] } }, { match: b, to: x, tags: { include: [\"2.*\"] } }] }\n",
        ),
        with_lines("    tags: { include: [\"1.10\"] }\n"),
        with_lines("    index: keep\n"),
        "version: 1\nregistries: {}\n".to_owned(),
        REGISTRIES.replace("harbor", "pass-through")
            + "  - { name: r, source: pass-through, destinations: [ecr], repositories: [web] }\n",
    ] {
        good(&text);
    }
}

#[test]
fn a_directory_is_read_as_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    write(
        "20-rules.yml",
        "version: 1\nrules: [{ name: r, source: a, destinations: [b], repositories: [web] }]\n",
    );
    write(
        "10-registries.yaml",
        "version: 1\nregistries: { a: { url: https://a.example }, b: { url: https://b.example } }\n",
    );
    write(".hidden.yaml", "not: [yaml");
    write("notes.txt", "not: [yaml");
    let loaded = load(folder.path(), &Table::default(), Mode::Run).expect("good");
    assert_eq!(loaded.config.rules.len(), 1);
    assert!(loaded.config.files[0].ends_with("10-registries.yaml"));
    assert_eq!(content(folder.path()).expect("readable"), loaded.config.content);

    write(
        "30-more.yaml",
        "version: 1\nregistries: { a: { url: https://c.example } }\nrules: [{ name: r, source: a, destinations: [b], repositories: [web] }]\n",
    );
    assert_ne!(content(folder.path()).expect("readable"), loaded.config.content);
    let failure = load(folder.path(), &Table::default(), Mode::Run).expect_err("twice");
    let shown = told(&failure);
    assert_eq!(failure.to_string(), "the rules have 2 mistakes", "{shown}");
    assert!(
        shown.contains("10-registries.yaml:2:15") && shown.contains("30-more.yaml:2:15"),
        "{shown}"
    );
    assert!(
        shown.contains("20-rules.yml:2:17") && shown.contains("30-more.yaml:3:17"),
        "{shown}"
    );

    let empty = tempfile::tempdir().expect("a folder");
    assert!(matches!(
        load(empty.path(), &Table::default(), Mode::Run),
        Err(LoadFailure::Unreadable { .. })
    ));
    let missing = load(&empty.path().join("rules.yaml"), &Table::default(), Mode::Run);
    assert!(matches!(missing, Err(LoadFailure::Unreadable { .. })));
    let large = empty.path().join("rules.yaml");
    std::fs::write(&large, vec![b'#'; 1024 * 1024 + 1]).expect("written");
    let refused = load(&large, &Table::default(), Mode::Run).expect_err("too large");
    assert!(
        std::error::Error::source(&refused).is_some_and(|why| why.to_string().contains("larger than 1048576 bytes"))
    );
}

#[test]
fn many_mistakes_are_cut_short() {
    let text: String = (0..1000).map(|n| format!("key{n}: 1\n")).collect();
    let Err(LoadFailure::Wrong { mistakes, .. }) = parse_as(&text, Mode::Run, &Table::default()) else {
        panic!("mistakes expected");
    };
    assert_eq!(mistakes.len(), 200);
    let last = mistakes[199].hint.as_deref().unwrap_or_default();
    assert!(last.ends_with("and 801 more mistakes after this one"), "{last}");
}

#[test]
fn the_example_has_no_mistake() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules.example.yaml");
    let loaded = load(&path, &Table::default(), Mode::Check).unwrap_or_else(|failure| panic!("{}", told(&failure)));
    assert!(
        loaded.warnings.iter().all(|w| w.message.contains("is not set")),
        "{:?}",
        loaded.warnings
    );
    assert!(!loaded.config.rules.is_empty());
    assert!(loaded.config.registries.len() >= 3);
}

#[test]
fn places_hold_in_files_from_windows() {
    let text = "\u{feff}version: 1\r\nregistries:\r\n  a: { url: https://ä.example, usr: \"x\" }\r\n";
    let Err(LoadFailure::Wrong { mistakes, sources }) = parse_as(text, Mode::Run, &Table::default()) else {
        panic!("a mistake expected");
    };
    assert_eq!((mistakes[0].line, mistakes[0].column), (3, 32), "{mistakes:?}");
    let shown = render(&mistakes, &sources, false);
    assert!(shown.contains("                               ^^^"), "{shown}");
    assert!(render(&mistakes, &sources, true).contains('\u{1b}'));
}

#[test]
fn columns_behind_a_hidden_password_are_those_of_the_file() {
    let text = "version: 1\nregistries:\n  a: { url: a.example, password: $ää€, usr: x }\n";
    let Err(LoadFailure::Wrong { mistakes, sources }) = parse_as(text, Mode::Run, &Table::default()) else {
        panic!("a mistake expected");
    };
    let unknown = mistakes
        .iter()
        .find(|mistake| mistake.message.contains("usr"))
        .expect("a mistake");
    assert_eq!((unknown.line, unknown.column), (3, 40), "{mistakes:?}");
    assert!(!render(&mistakes, &sources, false).contains('ä'));
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(200))]

    /// Whatever is done to a good file, it is read or refused with places that are in it.
    #[test]
    fn broken_files_have_mistakes_and_no_panics(
        at in 0..5_000_usize,
        cut in 0..40_usize,
        junk in "[-\\[\\]{}:,#&*!|>'\"%@`~? \\n\\tä1.a${<]{0,6}",
    ) {
        let good = include_str!("../../rules.example.yaml");
        let mut text: Vec<char> = good.chars().collect();
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        text.splice(at..end, junk.chars());
        let text: String = text.into_iter().collect();
        if let Err(LoadFailure::Wrong { mistakes, sources }) = parse_as(&text, Mode::Check, &Table::default()) {
            proptest::prop_assert!(!mistakes.is_empty());
            for mistake in &mistakes {
                let line = text.lines().nth(mistake.line - 1).unwrap_or_default();
                proptest::prop_assert!(mistake.column <= line.chars().count() + 1, "{:?}", mistake);
            }
            render(&mistakes, &sources, false);
        }
    }
}

/// Wherever transship is started: a service has another current directory than the shell that tried the rules.
#[test]
fn relative_paths_start_at_the_folder_of_the_file_that_names_them() {
    let one = "\
version: 1
registries:
  usb: { layout: bundle }
  whole: { layout: /srv/bundle }
";
    let two = "\
version: 1
registries:
  harbor: { url: https://harbor.example, tls: { ca_file: certs/ca.pem, client_cert: /etc/ssl/own.pem, client_key: ../own.key } }
rules:
  - { name: a, source: harbor, destinations: [usb, whole], repositories: [web] }
";
    let paths = |folder: &str| {
        let files = [
            (format!("{folder}one.yaml"), one.to_owned()),
            (format!("{folder}more/two.yaml"), two.to_owned()),
        ];
        let loaded = parse(&files, &Table::default(), Mode::Run).expect("good rules");
        let settings = |name: &str| loaded.config.registries[&RegistryName::new(name)].clone();
        let layout = |name: &str| match settings(name) {
            RegistrySettings::Layout { path } => path,
            RegistrySettings::Remote(_) => panic!("{name} is a layout"),
        };
        let tls = remote(&loaded, "harbor").tls.clone();
        let tls = [tls.ca_file, tls.client_cert, tls.client_key].map(|path| path.expect("it is named"));
        [vec![layout("usb"), layout("whole")], tls.to_vec()].concat()
    };
    let shown = |paths: Vec<PathBuf>| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    assert_eq!(
        shown(paths("/etc/transship/")),
        [
            "/etc/transship/bundle",
            "/srv/bundle",
            "/etc/transship/more/certs/ca.pem",
            "/etc/ssl/own.pem",
            "/etc/transship/more/../own.key"
        ]
    );
    assert_eq!(shown(paths(""))[0], "bundle");
}
