//! The JSON Schema of rules files, for editors.

use serde_json::{Map, Value, json};

use super::duration;
use super::keys::{Entry, FILE, Kind, Section};
use super::size;

/// The JSON Schema (draft 2020-12) of a rules file, made from the same table of keys as the checks. It says less than
/// `check`: what globs, templates, schedules and names mean is beyond it.
pub fn json_schema() -> Value {
    let mut schema = section(&FILE);
    if let Value::Object(map) = &mut schema {
        map.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        map.insert("title".into(), "Rules of transship".into());
    }
    schema
}

fn section(section: &Section) -> Value {
    let properties: Map<String, Value> = section
        .keys
        .iter()
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    let required: Vec<&str> = section.keys.iter().filter(|k| k.required).map(|k| k.name).collect();
    let mut schema = json!({
        "type": "object",
        "description": section.about,
        "additionalProperties": false,
        "properties": properties,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn property(key: &Entry) -> Value {
    let mut schema = kind(&key.kind);
    let mut about = key.about.to_owned();
    if !key.default.is_empty() {
        about.push_str(" Default: ");
        about.push_str(key.default);
        about.push('.');
    }
    schema["description"] = about.into();
    schema
}

fn kind(of: &Kind) -> Value {
    match of {
        Kind::Version => json!({ "const": 1 }),
        Kind::Text(_) => json!({ "type": "string", "minLength": 1 }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Count { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Duration => json!({ "type": "string", "pattern": duration::PATTERN }),
        Kind::Rate { most } => json!({ "type": "number", "exclusiveMinimum": 0, "maximum": most }),
        Kind::Size => json!({ "type": "string", "pattern": size::PATTERN }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Map(of) => section(of),
        Kind::Texts(_) => json!({ "type": "object", "additionalProperties": { "type": "string", "minLength": 1 } }),
        Kind::Named(of) => json!({ "type": "object", "additionalProperties": section(of) }),
        Kind::List { of, may_be_empty } => {
            let mut list = json!({ "type": "array", "items": kind(of) });
            if !may_be_empty {
                list["minItems"] = json!(1);
            }
            list
        }
        Kind::TextOr(_, of) => json!({ "anyOf": [{ "type": "string", "minLength": 1 }, section(of)] }),
    }
}
