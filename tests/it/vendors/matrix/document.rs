//! `docs/registries.md`, as far as it is made from the rows.

use std::fmt::Write as _;
use std::path::Path;

use transship::registry::Kind;

use super::rows::KINDS;
use super::{Bulk, Not, Row, Scenario, Shown};

const DOCUMENT: &str = "docs/registries.md";
const BEGIN: &str = "<!-- matrix: begin -->\n";
const END: &str = "<!-- matrix: end -->\n";

#[test]
fn the_document_of_registries_shows_what_is_tested() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    let text = std::fs::read_to_string(&path).expect("the document");
    let (before, rest) = text.split_once(BEGIN).expect("text in front of the tables");
    let (_, after) = rest.split_once(END).expect("text behind the tables");
    let wanted = format!("{before}{BEGIN}{}{END}{after}", tables());
    if std::env::var_os("TRANSSHIP_WRITE_GENERATED").is_some() {
        std::fs::write(&path, &wanted).expect("written");
    }
    let found = std::fs::read_to_string(&path).expect("the document");
    assert!(
        found == wanted,
        "{DOCUMENT} is not what the suite has; run the test with TRANSSHIP_WRITE_GENERATED=1 and commit it"
    );
}

#[test]
fn a_kind_has_one_row() {
    for (number, row) in KINDS.iter().enumerate() {
        assert!(Kind::from_word(row.kind).is_some(), "{}", row.kind);
        assert!(
            KINDS[..number].iter().all(|other| other.kind != row.kind),
            "{}",
            row.kind
        );
    }
}

fn tables() -> String {
    let mut text = String::from("\n| kind |");
    for scenario in Scenario::ALL {
        let _ = write!(text, " {} |", scenario.name());
    }
    text.push_str("\n| --- |");
    text.push_str(&" --- |".repeat(Scenario::ALL.len()));
    text.push('\n');
    for word in Kind::WORDS {
        let row = KINDS.iter().find(|row| row.kind == *word);
        let _ = write!(text, "| `{word}` |");
        for scenario in Scenario::ALL {
            let _ = write!(text, " {} |", cell(row.copied(), scenario));
        }
        text.push('\n');
    }
    text.push_str("\n| kind | checked against | a no-op over 2,000 tags | left out | nobody could check |\n");
    text.push_str("| --- | --- | --- | --- | --- |\n");
    for row in Kind::WORDS
        .iter()
        .filter_map(|word| KINDS.iter().find(|row| row.kind == *word))
    {
        let no_op = match row.listing {
            Bulk::None => "a listing and a `HEAD` for each tag (run over 40)".to_owned(),
            Bulk::Tags(page) => format!("at most {} requests a side", 2000_usize.div_ceil(page) + 10),
            Bulk::Images(page) => format!("at most one for every {page} images and 10 more, a side"),
        };
        let not: Vec<String> = row
            .not
            .iter()
            .map(|(scenario, not)| format!("{}: {}", scenario.name(), not.why()))
            .collect();
        let _ = writeln!(
            text,
            "| `{}` | {} | {no_op} | {} | {} |",
            row.kind,
            row.by,
            not.join("; "),
            row.unchecked.join("; ")
        );
    }
    text.push('\n');
    text
}

fn cell(row: Option<&Row>, scenario: Scenario) -> &'static str {
    match row {
        None => "not checked",
        Some(row) => match (row.not(scenario), row.shown) {
            (Some(Not::HasNone(_)), _) => "has none",
            (Some(Not::Unknown(_)), _) => "–",
            (None, Shown::Real) => "real",
            (None, Shown::Fake) => "fake",
        },
    }
}
