//! The faulty files, each with what is said of it.

use super::*;

/// What is said of a faulty file.
fn complaints(text: impl AsRef<str>) -> String {
    match parse_as(text.as_ref(), Mode::Run, &Table::default()) {
        Ok(loaded) => panic!(
            "no mistake found, warnings: {}",
            render(&loaded.warnings, &loaded.sources, false)
        ),
        Err(failure) => told(&failure),
    }
}

macro_rules! faulty {
    ($($name:ident: $text:expr;)*) => {$(
        #[test]
        fn $name() {
            insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false }, {
                insta::assert_snapshot!(stringify!($name), complaints($text));
            });
        }
    )*};
}

faulty! {
    unknown_key: with_rule("  - name: web\n    source: harbor\n    desination: [ecr]\n    repositories: [web]\n    window: night\n");
    key_of_a_later_release: with_lines("    referrers: all\n");
    duplicate_key: with_lines("    source: harbor\n");
    duplicate_registry: "version: 1\nregistries:\n  a: { url: https://a.example }\n  a: { url: https://b.example }\n";
    wrong_type: with_lines("    platforms: linux/amd64\n    retry: 5\n    jitter: 30\n    schedule: \"@daily\"\n    tags: { newest: { count: many } }\n");
    unquoted_cron: with_lines("    schedule: */5 * * * *\n");
    unknown_registry: with_rule("  - name: web\n    source: harbr\n    destinations: [ecr, nowhere]\n    repositories: [web]\n");
    float_tag: with_lines("    tags:\n      include: [1.10, 3, true]\n");
    empty_value: with_lines("    schedule:\n    timezone: \"\"\n");
    bad_glob: with_rule("  - name: web\n    source: harbor\n    destinations: [ecr]\n    repositories: [\"web/[a\", \"We**b\", Upper]\n    tags: { include: [\"v{1\", \"/(v/\"] }\n");
    bad_schedule: with_lines("    schedule: \"*/5 * * *\"\n");
    schedule_that_never_comes: with_lines("    schedule: \"0 0 30 2 *\"\n");
    bad_zone: with_lines("    schedule: \"@hourly\"\n    timezone: Asia/Shangai\n");
    bad_template: with_rule("  - name: web\n    source: harbor\n    destinations: [ecr, { registry: ecr, to: \"m/{2}\" }]\n    repositories:\n      - { match: \"a/*\", to: \"{3}\" }\n      - { match: b, to: \"{nam}\" }\n      - { match: c, to: \"Mirror/c\" }\n");
    self_destination: with_rule("  - name: web\n    source: harbor\n    destinations: [harbor]\n    repositories: [web]\n  - name: tree\n    source: harbor\n    destinations: [{ registry: harbor, to: \"base/{name}\" }]\n    repositories: [\"base/*\"]\n");
    self_destination_under_another_name: "version: 1\nregistries:\n  a: { url: https://Harbor.example:443/ }\n  b: { url: https://harbor.example }\nrules:\n  - { name: r, source: a, destinations: [b], repositories: [web] }\n";
    bad_zone_and_schedule: with_lines("    schedule: \"61 * * * *\"\n    timezone: Asia/Shangai\n");
    several_at_once: "version: 1\nregistries:\n  harbor: { url: harbor.example, usrname: x }\n  ecr: { url: https://ecr.example, layout: /x }\ndefaults:\n  timezone: Mars/Olympus\n  name: x\nrules:\n  - name: one\n    source: hrbor\n    destinations: []\n    repositories: [\"a[\"]\n  - name: one\n    source: harbor\n    destinations: [ecr]\n    repositories: [web]\n    moved_tags: folow\n";
    bad_version: "version: 2\n";
    missing_version: "registries: {}\n";
    tabs: "version: 1\nregistries:\n\tharbor:\n\t\turl: https://harbor.example\n";
    billion_laughs: billion_laughs_file();
    missing_reference: "version: 1\nregistries:\n  harbor:\n    url: https://harbor.example\n    username: robot$replicator\n    password: ${HARBOR_PASSWORD}\n  two:\n    url: https://two.example\n    username: ${file:/run/secrets/user}\n    password: ${credential:two}\n  three: { url: \"${URL\", username: \"${fil:/x}\", password: \"${a b}\" }\n";
    reference_under_rules: with_lines("    tags: { include: [\"${TAG}\"] }\n");
    empty_file: String::new();
    not_a_map: "- version: 1\n";
    two_documents: "version: 1\n---\nversion: 1\n";
    unclosed: "version: 1\nregistries: { harbor: { url: https://harbor.example\n";
    recursive_alias: "version: 1\nregistries: &a { b: *a }\n";
    bad_addresses: "version: 1\nregistries:\n  a: { url: \"ftp://a.example\" }\n  b: { url: \"https://user:hunter2@b.example\" }\n  c: { url: \"https://c.example/?x=1\" }\n  d: { url: \"https://d.example/v2/\" }\n  e: { url: \"https://\" }\n  f: { layout: /x, username: u }\n  g: { url: \"http://g.example\", tls: { client_cert: /c.pem } }\n  h: { url: https://h.example, password: hunter2 }\n  i: { url: https://i.example, username: u, token_hosts: [\"https://x\", \"*.com\"] }\n  j: {}\n  \"k l\": { url: https://k.example }\n";
    bad_limits: "version: 1\nlimits: { concurrency: 0, requests_per_second: 0, bandwith: 1MiB }\nregistries:\n  a: { url: https://a.example, limits: { requests_per_second: -5, bandwidth: 100MB } }\n  b: { url: https://b.example, limits: { requests_per_second: fast, bandwidth: 0MiB } }\n  c: { url: https://c.example, limits: { requests_per_second: 2000000, bandwidth: 100 } }\n  d: { url: https://d.example, limits: 5 }\n";
    contradictions: with_lines("    platforms: [linux/amd64, linux/amd64]\n    index: keep\n    overlap: queue\n    tags: { suffix: alpine }\n    retry: { attempts: 0, max_delay: 1ms }\n");
    rewrite_without_platforms: with_lines("    index: rewrite\n");
    strip_and_an_index_that_is_kept: with_lines("    attestations: strip\n    index: keep\n");
    same_destination_twice: with_rule("  - name: web\n    source: harbor\n    destinations: [ecr, { registry: ecr }]\n    repositories: [web]\n");
    contested_destination: "version: 1\nregistries:\n  a: { url: https://a.example }\n  b: { url: https://b.example }\n  c: { url: https://c.example }\nrules:\n  - { name: one, source: a, destinations: [c], repositories: [web], tags: { include: [\"1.0\", \"v*\"] } }\n  - { name: two, source: b, destinations: [c], repositories: [{ match: app, to: web }], tags: { include: [\"1.0\"] } }\n";
    bad_spool: "version: 1\nspool: { path: \"\", max_size: 20GB, maxsize: 1GiB }\n";
    bad_spool_sizes: "version: 1\nspool: { max_size: 20 }\n";
    bad_semver: with_lines("    tags: { semver: \">=1.20 <3\" }\n");
    secret_in_a_broken_file: "version: 1\nregistries:\n  a: { url: https://a.example, username: u, password: *hunter2 }\n";
    secret_under_a_wrong_key: "version: 1\nregistries:\n  a: { url: https://a.example, username: u, passwrod: hunter2 }\n";
}

fn billion_laughs_file() -> String {
    let mut text = "a: &a [\"ha\", \"ha\", \"ha\", \"ha\", \"ha\", \"ha\", \"ha\", \"ha\", \"ha\"]\n".to_owned();
    for (before, name) in ('a'..'i').zip('b'..='i') {
        let aliases = vec![format!("*{before}"); 9].join(", ");
        text.push_str(&format!("{name}: &{name} [{aliases}]\n"));
    }
    text
}

#[test]
fn deep_nesting_is_refused() {
    for text in ["[".repeat(100_000), "a: ".repeat(5_000), "- ".repeat(100_000)] {
        assert!(parse_as(&text, Mode::Run, &Table::default()).is_err());
    }
}
