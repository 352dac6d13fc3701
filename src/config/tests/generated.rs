//! The committed files that are made from the table of keys.

use super::*;

/// Compares a committed file with what the code makes; `TRANSSHIP_WRITE_GENERATED=1` writes it instead.
fn committed(path: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("TRANSSHIP_WRITE_GENERATED").is_some() {
        std::fs::write(&path, wanted).expect("written");
    }
    let found = std::fs::read_to_string(&path).expect("the committed file");
    assert!(
        found == wanted,
        "{} is not what the table of keys says; run the tests with TRANSSHIP_WRITE_GENERATED=1 and commit it",
        path.display()
    );
}

#[test]
fn the_committed_schema_is_the_one_of_the_keys() {
    let schema = serde_json::to_string_pretty(&json_schema()).expect("JSON") + "\n";
    committed("schema/rules.schema.json", &schema);
}

#[test]
fn the_reference_names_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules.md");
    let text = std::fs::read_to_string(&path).expect("the reference");
    let (begin, end) = ("<!-- keys: begin -->\n", "<!-- keys: end -->\n");
    let before = text.split(begin).next().expect("text in front of the tables");
    let after = text.split(end).nth(1).expect("text behind the tables");
    committed("docs/rules.md", &format!("{before}{begin}{}{end}{after}", reference()));
}

fn reference() -> String {
    let mut text = String::new();
    for section in keys::SECTIONS {
        let title = if section.path.is_empty() {
            "The file".to_owned()
        } else {
            format!("`{}`", section.path)
        };
        text.push_str(&format!(
            "\n### {title}\n\n{}\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n",
            section.about
        ));
        for key in section.keys {
            let default = if key.required { "required" } else { key.default };
            text.push_str(&format!(
                "| `{}` | {} | {} | {} |\n",
                key.name,
                cell(&kind(&key.kind)),
                cell(default),
                cell(key.about)
            ));
        }
    }
    text.push('\n');
    text
}

/// Markdown takes stars outside of code for emphasis.
fn cell(text: &str) -> String {
    let text = text.replace('|', "\\|");
    let parts = text.split('`').enumerate();
    let parts = parts.map(|(n, part)| {
        if n % 2 == 0 {
            part.replace('*', "\\*")
        } else {
            part.to_owned()
        }
    });
    parts.collect::<Vec<_>>().join("`")
}

fn kind(of: &Kind) -> String {
    match of {
        Kind::Version => "`1`".to_owned(),
        Kind::Text(what) => (*what).to_owned(),
        Kind::Flag => "`true` or `false`".to_owned(),
        Kind::Count { least, most } => format!("a whole number from {least} to {most}"),
        Kind::Duration => "a length of time such as `30s`, `5m`, `1h30m`, `2d`".to_owned(),
        Kind::Rate { .. } => "a number greater than 0".to_owned(),
        Kind::Size => "a size such as `500MiB`, `20GiB`".to_owned(),
        Kind::Choice(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "),
        Kind::Map(section) => format!("a map, see `{}`", section.path),
        Kind::Texts(what) => format!("a map of names, behind each {what}"),
        Kind::Named(section) => format!("a map of names, see `{}`", section.path),
        Kind::List { of, .. } => match of {
            Kind::Map(section) => format!("a list, see `{}`", section.path),
            of => format!("a list; each {}", kind(of)),
        },
        Kind::TextOr(what, section) => format!("{what}, or a map, see `{}`", section.path),
    }
}
