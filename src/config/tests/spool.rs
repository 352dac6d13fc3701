//! `spool:` of one file and of several.

use super::*;

fn spool(text: &str) -> Option<SpoolSettings> {
    good(&format!("version: 1\n{text}")).config.spool
}

#[test]
fn a_spool_has_a_place_and_a_size() {
    assert_eq!(spool(""), None);
    let settings = spool("spool: { path: /var/lib/transship/spool, max_size: 20GiB }\n").expect("a spool");
    assert_eq!(settings.path, Path::new("/var/lib/transship/spool"));
    assert_eq!(settings.max_size, 20 << 30);
    let default = spool("spool: { path: /spool }\n").expect("a spool");
    assert_eq!(default.max_size, 10 << 30);
}

#[test]
fn its_path_starts_at_the_folder_of_its_file_and_it_stands_in_one() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let one = file("/etc/transship/one.yaml", "version: 1\nspool: { path: spool }\n");
    let two = file("/etc/transship/two.yaml", "version: 1\nspool: { path: other }\n");
    let loaded = parse(std::slice::from_ref(&one), &Table::default(), Mode::Run).expect("good");
    let path = loaded.config.spool.expect("a spool").path;
    assert_eq!(path, Path::new("/etc/transship/spool"));
    let failure = parse(&[one, two], &Table::default(), Mode::Run).expect_err("twice");
    let shown = told(&failure);
    assert!(shown.contains("spool is written in two files"), "{shown}");
    assert!(
        shown.contains("one.yaml:2:1") && shown.contains("two.yaml:2:1"),
        "{shown}"
    );
}
